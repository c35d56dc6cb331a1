#include "inherit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cwd.h"
#include "descriptors.h"
#include "real.h"
#include "report.h"
#include "state.h"

static char published[sizeof RUNTIME_VARIABLE + 1 + RUNTIME_VARIABLE_SIZE];

/* A state file that can be inherited: the one there is, or a copy where somebody has closed it. */
static int inheritable_state(struct attachment *at) {
    struct stat status;

    if (REAL(fstat)(at->state_file, &status) == 0 && status.st_ino == at->state_inode) {
        int flags = REAL(fcntl)(at->state_file, F_GETFD);
        if (flags >= 0 && (flags & FD_CLOEXEC) == 0)
            return at->state_file;
    }
    int copy = memory_file("sealfs");
    if (copy < 0)
        return -1;
    if (REAL(ftruncate)(copy, (off_t)at->state_size) != 0 || write_all(copy, at->state, at->state_size) != 0) {
        REAL(close)(copy);
        return -1;
    }
    return private_keep(copy, true);
}

static int state_numbers(char *value, size_t size) {
    unsigned count = atomic_load(&attachment_count);
    size_t length = 0;

    for (unsigned i = 0; i < count; i++) {
        int number = inheritable_state(&attachments[i]);
        if (number < 0)
            return -1;
        length += (size_t)snprintf(value + length, size - length, i == 0 ? "%d" : ",%d", number);
        if (length >= size)
            return fail(E2BIG);
    }
    return 0;
}

int inherit_variable(char value[RUNTIME_VARIABLE_SIZE], int table) {
    struct sealed_cwd cwd = get_sealed_cwd();
    int length = snprintf(value, RUNTIME_VARIABLE_SIZE, "1:%d:%d:%u:", table, cwd.at != NULL ? (int)cwd.at->number : -1,
                          cwd.entry);

    return state_numbers(value + length, RUNTIME_VARIABLE_SIZE - (size_t)length);
}

void inherit_publish(void) {
    static const char name[] = RUNTIME_VARIABLE "=";
    char value[RUNTIME_VARIABLE_SIZE];

    if (inherit_variable(value, -1) != 0)
        return;
    memcpy(published, name, sizeof name - 1);
    memcpy(published + sizeof name - 1, value, strlen(value) + 1);
    putenv(published); /* this buffer becomes part of the environment: later calls change it in place */
}

void inherit_attachments(void) {
    const char *value = getenv(RUNTIME_VARIABLE);
    int table, cwd, used = 0;
    unsigned entry;
    char message[160] = "";

    if (value == NULL || sscanf(value, "1:%d:%d:%u:%n", &table, &cwd, &entry, &used) < 3 || used == 0)
        return;
    for (const char *at = value + used; *at != '\0';) {
        char *end;
        long number = strtol(at, &end, 10);
        if (end == at || number < 0 || number > INT32_MAX)
            break;
        int error = state_attach((int)number, message, sizeof message);
        if (error != 0)
            say("a dataset that the parent process has attached is not here: %s", message);
        at = end + (*end == ',');
    }
    if (table >= 0)
        descriptors_inherit(table);
    struct stat here;
    if (REAL(stat)(".", &here) == 0 && attachment_at(&here) != NULL) {
        bool known = cwd >= 0 && cwd < (int)atomic_load(&attachment_count);
        set_sealed_cwd(known ? &attachments[cwd] : attachment_at(&here), known ? entry : SEALFS_ROOT);
    }
    if (anything_attached())
        inherit_publish();
}

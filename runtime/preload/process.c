/* Life of the library in a process: start, fork, and `sealfs_attach`. */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core.h"
#include "cwd.h"
#include "descriptors.h"
#include "family.h"
#include "gaps.h"
#include "helpers.h"
#include "inherit.h"
#include "mappings.h"
#include "real.h"
#include "report.h"
#include "semaphores.h"
#include "state.h"
#include "streams.h"

static unsigned held; /* attachments whose locks are held around a fork */

static void before_fork(void) {
    helpers_before_fork();
    gaps_fill();
    descriptors_before_fork();
    streams_before_fork();
    mappings_before_fork();
    semaphores_before_fork();
    held = atomic_load(&attachment_count); /* guarded by the locks above */
    for (unsigned i = 0; i < held; i++)
        reader_before_fork(&attachments[i].core->reader);
}

static void after_fork(bool child) {
    for (unsigned i = held; i > 0; i--)
        reader_after_fork(&attachments[i - 1].core->reader);
    semaphores_after_fork();
    mappings_after_fork();
    streams_after_fork();
    descriptors_after_fork(child);
    helpers_after_fork();
    if (child) {
        note_process();
        family_join();
    }
}

static void after_fork_in_parent(void) {
    after_fork(false);
}

static void after_fork_in_child(void) {
    after_fork(true);
}

__attribute__((constructor)) static void start(void) {
    int error = errno;

    report_initialise();
    note_process();
    pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
    inherit_attachments();
    semaphores_inherit();
    family_join();
    errno = error;
}

static int refuse(char *message, size_t size, int error, const char *text) {
    if (message != NULL && size != 0)
        snprintf(message, size, "%s", text);
    return error;
}

/* Whether one path is the other, or lies below it. */
static bool overlap(const char *a, const char *b) {
    size_t length = strlen(a) < strlen(b) ? strlen(a) : strlen(b);

    return strncmp(a, b, length) == 0 && (a[length] == '\0' || a[length] == '/') && (b[length] == '\0' || b[length] == '/');
}

/* The sources of a union with their real paths, to be freed; NULL, and why. */
static struct sealfs_source *real_sources(const struct sealfs_options *options, const char *mount, int *error) {
    struct sealfs_source *sources = calloc(options->source_count + 1, sizeof *sources);
    char objects[PATH_MAX];

    *error = sources == NULL ? -ENOMEM : 0;
    for (uint32_t i = 0; *error == 0 && i < options->source_count; i++) {
        sources[i] = options->sources[i];
        sources[i].objects_path[SEALFS_MAX_PATH - 1] = '\0';
        if (REAL(realpath)(options->sources[i].objects_path, objects) == NULL)
            *error = -errno;
        else if (overlap(mount, objects))
            *error = -EINVAL;
        else
            snprintf(sources[i].objects_path, sizeof sources[i].objects_path, "%s", objects);
    }
    if (*error == 0)
        return sources;
    free(sources);
    return NULL;
}

/* 0 if the directory is empty, else a negative errno. */
static int check_empty(const char *path) {
    DIR *directory = REAL(opendir)(path);
    struct dirent *item;
    int error = 0;

    if (directory == NULL)
        return -errno;
    while ((item = REAL(readdir)(directory)) != NULL)
        if (strcmp(item->d_name, ".") != 0 && strcmp(item->d_name, "..") != 0)
            error = -ENOTEMPTY;
    REAL(closedir)(directory);
    return error;
}

HOOK int sealfs_attach(const struct sealfs_options *options, char *message, size_t message_size) {
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    char mount[PATH_MAX], objects[PATH_MAX], given[PATH_MAX];
    struct sealfs_options wanted;

    if (options == NULL || options->struct_size != sizeof *options || options->mount_path == NULL ||
        options->objects_path == NULL || options->index == NULL || options->key_count > 10000 ||
        options->source_count > SEALFS_MAX_SOURCES || (options->source_count != 0 && options->sources == NULL))
        return refuse(message, message_size, -EINVAL, "incomplete options");
    if (REAL(realpath)(options->mount_path, mount) == NULL)
        return refuse(message, message_size, -errno, "the mount path must be an existing empty directory");
    if (REAL(realpath)(options->objects_path, objects) == NULL)
        return refuse(message, message_size, -errno, "there is no such folder of objects");
    int error = check_empty(mount);
    if (error != 0 || strcmp(mount, "/") == 0)
        return refuse(message, message_size, error != 0 ? error : -EINVAL,
                      "the mount path must be an existing empty directory");
    bool plain = options->mount_path[0] == '/' && strlen(options->mount_path) < sizeof given &&
                 strstr(options->mount_path, "//") == NULL && strstr(options->mount_path, "/.") == NULL;
    strcpy(given, plain ? options->mount_path : mount);
    for (size_t length = strlen(given); length > 1 && given[length - 1] == '/';)
        given[--length] = '\0';
    wanted = *options;
    wanted.mount_path = mount;
    wanted.objects_path = objects;
    struct sealfs_source *sources = real_sources(options, mount, &error);
    if (error != 0)
        return refuse(message, message_size, error, "a folder of a union's objects is not there, or lies in the way");
    wanted.sources = sources;
    pthread_mutex_lock(&lock);
    for (unsigned i = 0; i < atomic_load(&attachment_count) && error == 0; i++)
        if (overlap(attachments[i].mount, mount))
            error = refuse(message, message_size, -EBUSY, "a dataset is attached there already, above or below");
    if (error == 0 && overlap(mount, objects))
        error = refuse(message, message_size, -EINVAL, "the mount path and the folder of objects overlap");
    if (error == 0) {
        char text[160] = "cannot keep the state of the attachment in memory";
        struct stat status;
        int state = REAL(stat)(mount, &status) == 0 ? state_write(&wanted, given, &status) : -errno;
        error = state < 0 ? state : state_attach(state, text, sizeof text);
        if (error != 0)
            refuse(message, message_size, error, text);
        else
            inherit_publish();
        family_join();
    }
    pthread_mutex_unlock(&lock);
    free(sources);
    return error;
}

#include "attachments.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "family.h"
#include "real.h"
#include "report.h"
#include "state.h"

struct attachment attachments[MAX_ATTACHMENTS];
atomic_uint attachment_count;

#define VFORK_CHILDREN 16 /* that may be between vfork and exec at the same time, each with a directory of its own */

static struct sealed_cwd own_cwd;
static pid_t process;
static atomic_uint children_count; /* slots ever used */
static struct {
    pid_t pid;
    struct sealed_cwd cwd;
} children[VFORK_CHILDREN];

void note_process(void) {
    process = getpid();
    atomic_store(&children_count, 0);
}

bool is_vfork_child(void) {
    return process != 0 && getpid() != process;
}

struct sealed_cwd get_sealed_cwd(void) {
    if (atomic_load_explicit(&children_count, memory_order_acquire) != 0 && is_vfork_child())
        for (int i = 0; i < VFORK_CHILDREN; i++)
            if (children[i].pid == getpid())
                return children[i].cwd;
    return own_cwd;
}

void set_sealed_cwd(struct attachment *at, uint32_t entry) {
    struct sealed_cwd cwd = {at, entry};

    if (is_vfork_child()) {
        unsigned place = atomic_fetch_add(&children_count, 1) % VFORK_CHILDREN;
        for (unsigned i = 0; i < VFORK_CHILDREN; i++)
            if (children[i].pid == getpid())
                place = i;
        children[place].cwd = cwd;
        children[place].pid = getpid();
    } else if (own_cwd.at != at || own_cwd.entry != entry) {
        own_cwd = cwd;
        state_publish();
    }
}

struct attachment *attachment_at(const struct stat *status) {
    unsigned count = atomic_load_explicit(&attachment_count, memory_order_acquire);

    if (S_ISDIR(status->st_mode))
        for (unsigned i = 0; i < count; i++)
            if (attachments[i].mount_inode == status->st_ino && attachments[i].mount_device == status->st_dev)
                return &attachments[i];
    return NULL;
}

int refuse_damaged(struct attachment *at, int error) {
    if (error == -EIO && sealfs_failure(at->core) != NULL)
        stop_damaged(at, error); /* an errno would not do: loaders swallow it and go on without the file */
    return fail(-error);
}

void stop_damaged(struct attachment *at, int error) {
    const char *failure = sealfs_failure(at->core);

    if (failure == NULL)
        say("cannot go on reading in %s: %s", at->mount, strerror(-error));
    else
        say("INTEGRITY FAILURE in %s: %s. The process ends here, so that nothing is made of damaged data.", at->mount,
            failure);
    family_end();
    _exit(SEALFS_EXIT_INTEGRITY);
}

int full_path(const struct attachment *at, uint32_t entry, char *path, size_t size) {
    if (at->mount_length + 2 > size)
        return ENAMETOOLONG;
    memcpy(path, at->mount, at->mount_length + 1);
    if (entry == SEALFS_ROOT)
        return 0;
    path[at->mount_length] = '/';
    ssize_t length = sealfs_path(at->core, entry, path + at->mount_length + 1, size - at->mount_length - 1);
    return length == -ERANGE ? ENAMETOOLONG : length < 0 ? EIO : 0;
}

#include "attachments.h"

#include <errno.h>
#include <string.h>

struct attachment attachments[MAX_ATTACHMENTS];
atomic_uint attachment_count;

struct attachment *attachment_at(const struct stat *status) {
    unsigned count = atomic_load_explicit(&attachment_count, memory_order_acquire);

    if (S_ISDIR(status->st_mode))
        for (unsigned i = 0; i < count; i++)
            if (attachments[i].mount_inode == status->st_ino && attachments[i].mount_device == status->st_dev)
                return &attachments[i];
    return NULL;
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

/* What is attached where.
 *
 * Threading: attachments are only ever added, and immutable once `attachment_count` includes them.
 */
#ifndef SEALFS_ATTACHMENTS_H
#define SEALFS_ATTACHMENTS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <sys/stat.h>

#include "sealfs.h"

#define MAX_ATTACHMENTS 16

struct attachment {
    struct sealfs *core;
    const char *mount; /* canonical */
    size_t mount_length;
    const char *given; /* as the caller wrote it; may lead through symlinks */
    size_t given_length;
    dev_t mount_device; /* of the empty directory that is really there */
    ino_t mount_inode;
    dev_t device; /* st_dev of what is served */
    uint32_t flags;
    uint32_t number;
    const void *state; /* mapped: all that a child needs, the index included */
    size_t state_size;
    int state_file; /* private, inherited */
    ino_t state_inode;
    pid_t head; /* the process that attached it */
};

extern struct attachment attachments[MAX_ATTACHMENTS];
extern atomic_uint attachment_count;

static inline bool anything_attached(void) {
    return atomic_load_explicit(&attachment_count, memory_order_acquire) != 0;
}

/* The attachment whose mount path is this directory, or NULL. */
struct attachment *attachment_at(const struct stat *status);

/* Where everything lies for the application: mount path and the entry's path in it. Returns 0 or an errno. */
int full_path(const struct attachment *at, uint32_t entry, char *path, size_t size);

#endif

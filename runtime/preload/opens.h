/* Opening a sealed entry; for the hooks that end in a descriptor. */
#ifndef SEALFS_OPENS_H
#define SEALFS_OPENS_H

#include "attachments.h"
#include "descriptors.h"

/* What open() does with an entry: a descriptor, or -1 with errno set. */
int open_sealed(struct attachment *at, uint32_t entry, int flags);

/* openat(), with symlinks into sealed trees followed. */
int open_anywhere(int dirfd, const char *path, int flags, mode_t mode);

/* Whether `path` would be made inside a sealed tree: EROFS then. For hooks that create. Keeps errno. */
bool creates_inside(int dirfd, const char *path);

#endif

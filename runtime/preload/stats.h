/* stat() of a sealed entry, and of any path; for the hooks that need to know what something is. */
#ifndef SEALFS_STATS_H
#define SEALFS_STATS_H

#include "attachments.h"

int stat_sealed(struct attachment *at, uint32_t entry, struct stat *status);
int stat_anywhere(int dirfd, const char *path, struct stat *status, int flags);

#endif

/* What fork needs to know of hook_map.c. */
#ifndef SEALFS_MAPPINGS_H
#define SEALFS_MAPPINGS_H

void mappings_before_fork(void);
void mappings_after_fork(void);

#endif

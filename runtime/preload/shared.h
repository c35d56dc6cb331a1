/* One placeholder for all open files of a dataset: opening a file that is there costs a third of making one.
 *
 * Such a descriptor is one more opening of the same unlinked file. Which entry it stands for shows in its offset:
 * entry and the file's own offset share its 63 bits. dup, fork, exec and SCM_RIGHTS carry that along, as the offset
 * is the kernel's. Between the places of two entries lies one of the same size that is nobody's: an offset that was
 * moved past this library, or too far, makes the descriptor unreadable before it could mean another file.
 *
 * What does not fit (very large files, very many entries) or can't be done here (no /proc, as in Gramine) gets a
 * placeholder of its own.
 *
 * Threading: safe from many threads.
 */
#ifndef SEALFS_SHARED_H
#define SEALFS_SHARED_H

#include <stdbool.h>

#include "attachments.h"

#define SHARED_MODE 0200 /* write-only even for its owner, who has to open it again and again */
#define SHARED_OFFSET_BITS 39
#define SHARED_MAX_ENTRY ((1u << (62 - SHARED_OFFSET_BITS)) - 1)
#define SHARED_MAX_FILE ((uint64_t)1 << (SHARED_OFFSET_BITS - 1))
#define SHARED_MAX_OFFSET (SHARED_MAX_FILE + ((uint64_t)1 << (SHARED_OFFSET_BITS - 2))) /* the rest is for reads at
                          the same time, each of which first moves the offset by as much as it wants */

/* Opens the dataset's placeholder once more, for a regular file. Returns the lowest free number or -1, and then a placeholder of its own
 * is to be tried. `remember`: told the identity of a placeholder that has just been made. */
int shared_open(struct attachment *at, uint32_t entry, int flags, int (*remember)(int number, struct attachment *at));

/* The entry and where its offset 0 is among the kernel's offsets. False: no entry is there. */
bool shared_entry(int number, const struct attachment *at, uint32_t *entry, uint64_t *base);

/* Around fork; /proc/self is another folder in the child. */
void shared_before_fork(void);
void shared_after_fork(bool child);

#endif

/* The processes that have the same datasets: damage that one of them meets ends them all. A worker that alone dies
 * is its parent's to notice, and many a parent goes on without the worker's share of the data.
 *
 * Who belongs to the family shows in record locks (fcntl(2)) on the first attachment's memory file, which all of them
 * have inherited: each process holds one at the offset of its own number, and loses it when it ends, however it ends.
 * Where memory files are not shared between processes (Gramine), each tells its parent, up to the one that attached.
 *
 * They are told by a signal (FAMILY_SIGNAL), at which they end with SEALFS_EXIT_INTEGRITY; who is still there after a
 * second is killed.
 *
 * Threading: `family_join` belongs to start, attach and fork; `family_end` may be called from any thread.
 */
#ifndef SEALFS_FAMILY_H
#define SEALFS_FAMILY_H

#include <signal.h>

#define FAMILY_SIGNAL (SIGRTMAX - 6)

/* Makes this process a member; without effect where nothing is attached. */
void family_join(void);

/* Ends the other members. */
void family_end(void);

#endif

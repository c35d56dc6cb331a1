/* Threads of this library that take parts of a large read: one processor decrypts at a third of the speed at which
 * memory is copied, and another one is often idle.
 *
 * They are a help and never needed: the thread that reads works as well, and does all there is when nobody comes. There
 * are none where there is one processor, and none in Gramine, whose enclaves have a fixed number of threads. They begin
 * with the first large read and end when idle, with the last reader, or before a fork: a child has none until it reads.
 *
 * Threading: safe from many threads. Parts of one caller at a time are shared; others do theirs alone.
 */
#ifndef SEALFS_HELPERS_H
#define SEALFS_HELPERS_H

#include <stdint.h>

#define HELPERS_MAX 3
#define HELPERS_THREADS (HELPERS_MAX + 1) /* with the one that reads */

/* Does items `first` to `first + count - 1`. `thread`: a number below HELPERS_THREADS that no other one has who works
 * on the same. */
typedef void helpers_function(void *argument, unsigned thread, uint64_t first, uint64_t count);

/* For each reader: what is begun is ended by the last. */
void helpers_enter(void);
void helpers_leave(void);

/* Has items 0 to `items - 1` done, each once and in any order, at most `most` at a time where they are shared. All are
 * done when it returns. Signals wait until then, so it should not take long. */
void helpers_share(helpers_function *function, void *argument, uint64_t items, uint64_t most);

/* Around fork, before all locks that a part may take. */
void helpers_before_fork(void);
void helpers_after_fork(void);

#endif

/* libc's own functions behind the interposed names, and descriptors that the application must not notice. */
#ifndef SEALFS_REAL_H
#define SEALFS_REAL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "musl.h"

/* An interposed name: everything else in the library is hidden. */
#define HOOK __attribute__((visibility("default")))

/* On 64-bit Linux the names with 64 are the same functions; only their types are called otherwise. */
#define SAME_AS(name) __attribute__((visibility("default"), alias(#name)))
#pragma GCC diagnostic ignored "-Wattribute-alias"

/* libc's function of that name; looked up once for each place that uses it. */
#define REAL(name)                                                                                                 \
    __extension__({                                                                                                \
        static _Atomic(void *) found_;                                                                             \
        void *function_ = atomic_load_explicit(&found_, memory_order_relaxed);                                     \
        if (function_ == NULL) {                                                                                   \
            function_ = real_find(#name);                                                                          \
            atomic_store_explicit(&found_, function_, memory_order_relaxed);                                       \
        }                                                                                                          \
        (__typeof__(&name)) function_;                                                                             \
    })

/* Never NULL: without libc's function there is no way on, and the process ends with a message. */
void *real_find(const char *name);

/* Returns -1 and sets errno: how most hooks end that refuse. */
int fail(int error);

/* Moves a descriptor out of the way, to a high number, and protects it from close(), dup2() and close_range().
 * `inherit`: whether exec'd children get it. Returns the new number, or -1 with errno set and nothing open. */
int private_keep(int descriptor, bool inherit);
bool private_is(int descriptor);
void private_close(int descriptor);

/* The lowest private number above `from`, or -1: for hooks that close ranges. */
int private_next(int from);

/* An unlinked file in memory, read-write, close-on-exec: a memfd, or where there is none a file in a tmpfs. */
int memory_file(const char *name);

/* Whether processes can share memory: Gramine's can't, and it shows in no better way than memfd_create's ENOSYS. */
bool shares_memory(void);

/* Writes all of it. Returns 0 or -1 with errno set. */
int write_all(int descriptor, const void *bytes, size_t size);

/* A folder for placeholders: in memory, where files can be made. */
const char *scratch_folder(void);

#endif

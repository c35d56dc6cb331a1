/* The few system calls that the core makes. The core alone uses libc; libsealfs.so puts its own in their place,
 * which go past the interposed names and keep descriptors out of the application's way.
 *
 * All return -1 (`sys_map`: NULL) and set errno on failure.
 */
#ifndef SEALFS_SYS_H
#define SEALFS_SYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

/* Opens for reading, close-on-exec, without following a final symlink and without waiting for a FIFO's writer. */
int sys_open(const char *path);
int sys_close(int descriptor);
int sys_fstat(int descriptor, struct stat *status);
ssize_t sys_pread(int descriptor, void *out, size_t size, uint64_t offset);

/* Fresh memory of whole pages. */
void *sys_map(size_t size);
int sys_unmap(void *start, size_t size);

/* Whether the library may have threads of its own here (helpers.h). */
bool sys_helpers_welcome(void);

#endif

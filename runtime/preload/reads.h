/* Reading a sealed descriptor; for the hooks that hand out bytes. Damage ends the process, as open() already
 * succeeded (attachments.h, `stop_damaged`).
 */
#ifndef SEALFS_READS_H
#define SEALFS_READS_H

#include "descriptors.h"

/* Whether `number` is a placeholder, that is: has to be served by this library. Keeps errno. */
bool sealed_file(int number, struct descriptor *descriptor);

/* read(), pread() and lseek() of a placeholder. */
ssize_t read_sealed(int number, const struct descriptor *descriptor, void *out, size_t size);
ssize_t read_sealed_at(const struct descriptor *descriptor, void *out, size_t size, uint64_t offset);
off_t seek_sealed(int number, const struct descriptor *descriptor, off_t offset, int whence);

/* Moves the kernel's offset over up to `*size` bytes of the file; `*size` becomes how many there are.
 * Returns where they start, or -1 with errno set. */
int64_t take_range(int number, const struct descriptor *descriptor, size_t *size);

#endif

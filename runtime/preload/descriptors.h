/* Which descriptors are sealed files.
 *
 * What open() returns for a sealed path is a real descriptor of the kernel: of a placeholder, an unlinked empty
 * file, write-only and of mode 0. Whoever reads it behind this library's back gets EBADF, not silence. The
 * descriptor's offset is the file's offset, so dup() and fork() share it as they should. Regular files share one
 * placeholder where that can be done (shared.h).
 *
 * A placeholder is known by its inode (device, number and change time), not by the descriptor's number: however
 * a descriptor came about, it is recognised, and one that has become something else is not mistaken. Nothing is
 * dropped when a descriptor is closed; what no descriptor of this process refers to any more is dropped when the
 * table is full.
 *
 * Threading: locks itself, and only for descriptors that look like a placeholder: reads, writes and closes of
 * other descriptors stay safe in signal handlers.
 */
#ifndef SEALFS_DESCRIPTORS_H
#define SEALFS_DESCRIPTORS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "attachments.h"

enum descriptor_kind {
    DESCRIPTOR_FILE,      /* placeholder of a regular file */
    DESCRIPTOR_DIRECTORY, /* placeholder of a directory */
    DESCRIPTOR_PATH,      /* placeholder opened with O_PATH */
    DESCRIPTOR_REAL,      /* a memory file that holds the decrypted bytes, open for reading */
};

struct descriptor {
    struct attachment *at;
    uint32_t entry;
    enum descriptor_kind kind;
    int flags; /* of open(), as far as fcntl(F_GETFL) shows them */
    uint64_t base; /* where the file's offset 0 is among the kernel's offsets: 0 unless the placeholder is shared */
};

/* Whether `number` is a sealed file. Keeps errno. */
bool descriptor_find(int number, struct descriptor *descriptor);

/* lseek() with SEEK_SET or SEEK_CUR in terms of the file's own offsets; others are EINVAL. */
int64_t descriptor_seek(int number, const struct descriptor *descriptor, int64_t offset, int whence);

/* Makes a placeholder. `flags`: O_CLOEXEC and O_NONBLOCK count. Returns the lowest free number, or -1. */
int descriptor_new(const struct descriptor *descriptor, int flags);

/* Decrypts the whole file into a memory file; returns it open for reading, or -1. Damage is an error (EIO). */
int descriptor_materialise(struct attachment *at, uint32_t entry, int flags);

/* Decrypts the whole file into an empty one that is open for writing. Returns 0, or -1; damage as above. */
int descriptor_copy(struct attachment *at, uint32_t entry, int file);

/* Writes a table of the sealed descriptors that are open, to be inherited by an exec'd child. Returns its
 * descriptor (not close-on-exec), -1 if there are none, -2 with errno set on failure. Safe in a vfork child. */
int descriptors_table(void);

/* Takes over the parent's table. */
void descriptors_inherit(int table);

/* Calls `visit` for each open descriptor; no memory is allocated. Returns 0 or -1. */
int each_descriptor(void (*visit)(int number, void *context), void *context);

void descriptors_before_fork(void);
void descriptors_after_fork(bool child);

#endif

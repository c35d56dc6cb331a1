/* The C interface of the sealfs reader: a sealed dataset, read from ciphertext objects in a folder.
 *
 * Two layers use it. `sealfs_open` and what follows is the core: a handle, entry numbers, authenticated bytes.
 * `sealfs_attach` exists in libsealfs.so only: it serves a dataset at a path of this process to everything that
 * calls libc, and to the processes that it starts.
 *
 * Conventions: functions return 0 or a count, or a negative errno value. Sizes and offsets are in bytes. Entry
 * numbers are those of the index; the root directory is 0 (docs/format.md, "Index").
 *
 * Errors: -EIO means that something is not what the provider sealed, or could not be read. After the first one
 * the handle is poisoned: every later call returns -EIO, and `sealfs_failure` says why. -EINVAL: the caller asked
 * for something that makes no sense. -ENOMEM: no memory.
 *
 * Threading: a handle may be used from many threads at once. The library has up to three threads of its own that
 * decrypt parts of large reads. They block signals, end when idle or with the last handle, and are not there where a
 * process may use one processor only. Who uses the core and forks calls nothing of it in the child.
 */
#ifndef SEALFS_H
#define SEALFS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SEALFS_API __attribute__((visibility("default")))

#define SEALFS_ROOT 0u
#define SEALFS_KEY_SIZE 32
#define SEALFS_DATASET_ID_SIZE 16
#define SEALFS_MAX_PATH 4096 /* bytes, with its zero */
#define SEALFS_MAX_SOURCES 256
#define SEALFS_EXIT_INTEGRITY 85 /* exit code of a process in which damage was found */
#define SEALFS_DEFAULT_CACHE_BYTES (64u << 20)
#define SEALFS_DEFAULT_WHOLE_FILE_LIMIT (8u << 20)

/* The FLOE key of one epoch's packs: key("pack", epoch) of docs/format.md. */
struct sealfs_pack_key {
    uint32_t epoch;
    uint32_t source; /* 0: packs of the dataset itself; N: of `sources[N - 1]` */
    uint8_t key[SEALFS_KEY_SIZE];
};

/* One of several datasets that make up a union. The union's index has epochs of its own, so that each pack's epoch
 * says which dataset it is of, and which key opens it (sealfs/dataset/union.py). */
struct sealfs_source {
    uint8_t dataset[SEALFS_DATASET_ID_SIZE];
    char objects_path[SEALFS_MAX_PATH]; /* the folder that holds its packs/ */
};

#define SEALFS_REAL_FILES 1u /* attach only: open always gives a file of the kernel with the decrypted bytes */

/* What a handle is made from. Zero the struct before filling it, so that members added later have their default.
 * Nothing of it is kept but `index`, which must stay, unchanged, until the handle is closed (`sealfs_attach`
 * copies it, too). The caller wipes its own copy of the keys. */
struct sealfs_options {
    size_t struct_size;       /* sizeof(struct sealfs_options) */
    const char *mount_path;   /* attach only: an existing empty directory */
    const char *objects_path; /* the folder that holds packs/ */
    const void *index;        /* decrypted and authenticated by the caller; 8-byte aligned for sealfs_open */
    size_t index_size;
    uint8_t dataset[SEALFS_DATASET_ID_SIZE];
    const struct sealfs_pack_key *keys;
    size_t key_count;
    uint64_t cache_bytes;      /* decrypted segments to keep; 0: SEALFS_DEFAULT_CACHE_BYTES */
    uint64_t whole_file_limit; /* files up to this size are authenticated at open; 0: the default above */
    uint32_t flags;            /* SEALFS_REAL_FILES */
    uint32_t source_count;
    const struct sealfs_source *sources; /* of a union; copied */
};

struct sealfs;

/* Opens a dataset. -EIO: the index is malformed or another dataset's; `message` (may be NULL) tells in words. */
SEALFS_API int sealfs_open(const struct sealfs_options *options, struct sealfs **handle, char *message,
                           size_t message_size);

/* Wipes keys, frees everything. No other thread may be using the handle. NULL is fine. */
SEALFS_API void sealfs_close(struct sealfs *handle);

/* The library whose AES-256-GCM is used: "openssl", "ipsec-mb" or "libgcrypt". */
SEALFS_API const char *sealfs_cipher(void);

/* Why the handle is poisoned, or NULL while it is not. The text lives as long as the handle. */
SEALFS_API const char *sealfs_failure(struct sealfs *handle);

/* Finds a path below the root, "a/b" or "/a/b"; follows no symlink, knows "." but not "..".
 * -ENOENT, -ENOTDIR, -EIO. */
SEALFS_API int sealfs_lookup(struct sealfs *handle, const char *path, uint32_t *entry);

/* Finds one name in a directory. -ENOENT, -ENOTDIR, -EIO. */
SEALFS_API int sealfs_find(struct sealfs *handle, uint32_t directory, const char *name, size_t length,
                           uint32_t *entry);

/* Fills in mode, size, blocks, inode (entry + 1), link count 1 and times; the rest is 0. -EINVAL: no such entry. */
SEALFS_API int sealfs_stat(struct sealfs *handle, uint32_t entry, struct stat *status);

/* The directory that holds an entry; the root holds itself. */
SEALFS_API int sealfs_parent(struct sealfs *handle, uint32_t entry, uint32_t *parent);

/* An item of a directory: number `position`, from 0, in the provider's order. The name is not terminated and lives
 * in the index. Returns 1, 0 after the last item, -ENOTDIR, -EIO. */
struct sealfs_item {
    uint32_t entry;
    uint32_t mode;
    const char *name;
    size_t length;
};
SEALFS_API int sealfs_readdir(struct sealfs *handle, uint32_t directory, uint64_t position,
                              struct sealfs_item *item);

/* Points `target` at a symlink's target in the index (not terminated) and returns its length. -EINVAL: none. */
SEALFS_API ssize_t sealfs_readlink(struct sealfs *handle, uint32_t entry, const char **target);

/* Writes the path below the root ("a/b", "" for the root), terminated. -ERANGE: it does not fit. */
SEALFS_API ssize_t sealfs_path(struct sealfs *handle, uint32_t entry, char *path, size_t size);

/* What must come before a file's first byte is used: checks where its bytes lie and, if it is at most
 * `whole_file_limit` long, authenticates them all. -EISDIR, -EINVAL (a symlink), -EIO. */
SEALFS_API int sealfs_prepare(struct sealfs *handle, uint32_t entry);

/* Reads a file's bytes from `offset` on: all that fit, or what is left of the file; 0 at its end and beyond.
 * Never less for any other reason. On an error `out` holds nothing to rely on. -EISDIR, -EINVAL, -EIO, -ENOMEM. */
SEALFS_API ssize_t sealfs_pread(struct sealfs *handle, uint32_t entry, void *out, size_t size, uint64_t offset);

/* libsealfs.so only: serves a dataset at `options->mount_path`. The path must be an empty directory: what does not
 * go through libc finds that. Attached datasets stay for the life of the process; nothing in the environment
 * changes them. -EBUSY: something is attached there, above or below; -ENOTEMPTY, -ENOTDIR, and those above.
 * Call it before other threads use the path. */
SEALFS_API int sealfs_attach(const struct sealfs_options *options, char *message, size_t message_size);

#ifdef __cplusplus
}
#endif
#endif

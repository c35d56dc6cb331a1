/* The core's interface (sealfs.h): a dataset as entries and bytes. Semantics of sealfs/vfs.py.
 *
 * Fails closed: the first thing that does not authenticate poisons the handle.
 */
#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core.h"

#define STAT_BLOCK 512
#define PREFERRED_READ (1 << 20)
#define NANOSECONDS 1000000000

static int refuse(char *message, size_t size, const char *text, int error) {
    if (message != NULL && size != 0)
        snprintf(message, size, "%s", text);
    return error;
}

int sealfs_open(const struct sealfs_options *options, struct sealfs **handle, char *message, size_t message_size) {
    if (options == NULL || handle == NULL || options->struct_size != sizeof *options || options->index == NULL ||
        options->objects_path == NULL || (options->keys == NULL && options->key_count != 0))
        return refuse(message, message_size, "incomplete options", -EINVAL);
    struct sealfs *opened = calloc(1, sizeof *opened);
    if (opened == NULL)
        return refuse(message, message_size, "no memory", -ENOMEM);
    int error = index_open(&opened->index, options->index, options->index_size, options->dataset);
    if (error != 0) {
        free(opened);
        return refuse(message, message_size, "the index is malformed, or another dataset's", error);
    }
    pthread_mutex_init(&opened->failure_lock, NULL);
    opened->whole_file_limit =
        options->whole_file_limit != 0 ? options->whole_file_limit : SEALFS_DEFAULT_WHOLE_FILE_LIMIT;
    opened->authenticated = calloc(opened->index.entries / 8 + 1, 1);
    error = reader_init(&opened->reader, &opened->index, options);
    if (error != 0 || opened->authenticated == NULL) {
        sealfs_close(opened);
        return refuse(message, message_size, "no memory", error != 0 ? error : -ENOMEM);
    }
    *handle = opened;
    return 0;
}

void sealfs_close(struct sealfs *handle) {
    if (handle == NULL)
        return;
    reader_destroy(&handle->reader);
    pthread_mutex_destroy(&handle->failure_lock);
    free((void *)handle->authenticated);
    free(handle);
}

const char *sealfs_cipher(void) {
    return floe_aes_gcm();
}

const char *sealfs_failure(struct sealfs *handle) {
    return atomic_load_explicit(&handle->failure, memory_order_acquire);
}

/* Notes the first failure, with the path it was met at. Passes every other result on. */
static int judged(struct sealfs *handle, uint32_t entry, int error) {
    char path[256];

    if (error != -EIO)
        return error;
    pthread_mutex_lock(&handle->failure_lock);
    if (sealfs_failure(handle) == NULL) {
        if (sealfs_path(handle, entry, path, sizeof path) < 0)
            snprintf(path, sizeof path, "entry %u", entry);
        snprintf(handle->failure_text, sizeof handle->failure_text, "'%s' is not what the provider sealed", path);
        atomic_store_explicit(&handle->failure, handle->failure_text, memory_order_release);
    }
    pthread_mutex_unlock(&handle->failure_lock);
    return error;
}

int sealfs_find(struct sealfs *handle, uint32_t directory, const char *name, size_t length, uint32_t *entry) {
    if (sealfs_failure(handle) != NULL)
        return -EIO;
    if (directory >= handle->index.entries)
        return -EINVAL;
    return judged(handle, directory, index_find(&handle->index, directory, name, length, entry));
}

int sealfs_lookup(struct sealfs *handle, const char *path, uint32_t *entry) {
    uint32_t number = SEALFS_ROOT;

    if (sealfs_failure(handle) != NULL)
        return -EIO;
    while (*path != '\0') {
        size_t length = strcspn(path, "/");
        if (length != 0 && !(length == 1 && path[0] == '.')) {
            int error = sealfs_find(handle, number, path, length, &number);
            if (error != 0)
                return error;
        }
        path += length + (path[length] == '/');
    }
    *entry = number;
    return 0;
}

int sealfs_stat(struct sealfs *handle, uint32_t entry, struct stat *status) {
    const struct index_view *index = &handle->index;

    if (sealfs_failure(handle) != NULL)
        return -EIO;
    if (entry >= index->entries)
        return -EINVAL;
    int64_t seconds = index->mtime_ns[entry] / NANOSECONDS, nanoseconds = index->mtime_ns[entry] % NANOSECONDS;
    if (nanoseconds < 0) {
        nanoseconds += NANOSECONDS;
        seconds--;
    }
    memset(status, 0, sizeof *status);
    status->st_ino = (ino_t)entry + 1;
    status->st_mode = index->mode[entry];
    status->st_nlink = 1;
    status->st_size = (off_t)index->size[entry];
    status->st_blocks = (blkcnt_t)(index->size[entry] / STAT_BLOCK + (index->size[entry] % STAT_BLOCK != 0));
    status->st_blksize = PREFERRED_READ;
    status->st_mtim = status->st_ctim = status->st_atim = (struct timespec){seconds, nanoseconds};
    return 0;
}

int sealfs_parent(struct sealfs *handle, uint32_t entry, uint32_t *parent) {
    if (sealfs_failure(handle) != NULL)
        return -EIO;
    return judged(handle, entry, index_parent(&handle->index, entry, parent));
}

int sealfs_readdir(struct sealfs *handle, uint32_t directory, uint64_t position, struct sealfs_item *item) {
    uint32_t first, count;
    struct index_name name;

    if (sealfs_failure(handle) != NULL)
        return -EIO;
    int error = index_children(&handle->index, directory, &first, &count);
    if (error == 0 && position >= count)
        return 0;
    if (error == 0)
        error = index_name(&handle->index, first + (uint32_t)position, &name);
    if (error != 0)
        return judged(handle, directory, error);
    uint32_t entry = first + (uint32_t)position;
    *item = (struct sealfs_item){entry, handle->index.mode[entry], name.bytes, name.length};
    return 1;
}

ssize_t sealfs_readlink(struct sealfs *handle, uint32_t entry, const char **target) {
    struct index_name found;

    if (sealfs_failure(handle) != NULL)
        return -EIO;
    int error = judged(handle, entry, index_symlink(&handle->index, entry, &found));
    if (error != 0)
        return error;
    *target = found.bytes;
    return (ssize_t)found.length;
}

ssize_t sealfs_path(struct sealfs *handle, uint32_t entry, char *path, size_t size) {
    size_t at = size; /* written from the end */

    if (size == 0)
        return -ERANGE;
    path[--at] = '\0';
    while (entry != SEALFS_ROOT) {
        struct index_name name;
        uint32_t parent;
        bool first = at == size - 1;

        if (index_name(&handle->index, entry, &name) != 0 || index_parent(&handle->index, entry, &parent) != 0)
            return -EIO;
        if (name.length + !first > at)
            return -ERANGE;
        if (!first)
            path[--at] = '/';
        at -= name.length;
        memcpy(path + at, name.bytes, name.length);
        entry = parent;
    }
    memmove(path, path + at, size - at);
    return (ssize_t)(size - at - 1);
}

/* Reads a range that lies within the file, or with `out` NULL authenticates it. */
static int read_range(struct sealfs *handle, uint32_t entry, uint64_t offset, uint64_t size, uint8_t *out) {
    const struct index_view *index = &handle->index;
    uint64_t start = 0, end = (uint64_t)index->first[entry] + index->count[entry];

    for (uint64_t i = index->first[entry]; size != 0 && i < end; i++) {
        uint64_t length = index->extent_length[i];
        if (offset - start >= length) {
            start += length;
            continue;
        }
        uint64_t skip = offset - start, count = length - skip < size ? length - skip : size;
        if (index->extent_pack[i] != INDEX_HOLE) {
            int error = reader_read(&handle->reader, index->extent_pack[i], index->extent_offset[i] + skip, count, out);
            if (error != 0)
                return error;
        } else if (out != NULL)
            memset(out, 0, count);
        out = out != NULL ? out + count : NULL;
        offset += count;
        size -= count;
        start += length;
    }
    return size == 0 ? 0 : -EIO;
}

static int check_file(struct sealfs *handle, uint32_t entry) {
    if (sealfs_failure(handle) != NULL)
        return -EIO;
    if (entry >= handle->index.entries)
        return -EINVAL;
    if (S_ISDIR(handle->index.mode[entry]))
        return -EISDIR;
    return judged(handle, entry, index_check_extents(&handle->index, entry));
}

static bool is_authenticated(struct sealfs *handle, uint32_t entry) {
    return atomic_load_explicit(&handle->authenticated[entry / 8], memory_order_relaxed) >> entry % 8 & 1;
}

static int authenticate(struct sealfs *handle, uint32_t entry) {
    int error = read_range(handle, entry, 0, handle->index.size[entry], NULL);

    if (error == 0)
        atomic_fetch_or_explicit(&handle->authenticated[entry / 8], (uint8_t)(1u << entry % 8), memory_order_relaxed);
    return error;
}

int sealfs_prepare(struct sealfs *handle, uint32_t entry) {
    int error = check_file(handle, entry);

    /* what was authenticated once is again when it is read, straight into the caller's buffer where it fits */
    if (error != 0 || handle->index.size[entry] > handle->whole_file_limit || is_authenticated(handle, entry))
        return error;
    return judged(handle, entry, authenticate(handle, entry));
}

ssize_t sealfs_pread(struct sealfs *handle, uint32_t entry, void *out, size_t size, uint64_t offset) {
    int error = check_file(handle, entry);

    if (error != 0)
        return error;
    uint64_t length = handle->index.size[entry];
    if (offset >= length || size == 0)
        return 0;
    if (size > SSIZE_MAX)
        size = SSIZE_MAX;
    uint64_t count = length - offset < size ? length - offset : size;
    bool small = length <= handle->whole_file_limit;
    if (small && count != length && !is_authenticated(handle, entry))
        error = authenticate(handle, entry); /* who skipped `sealfs_prepare` gets no byte of a damaged one either */
    if (error == 0)
        error = read_range(handle, entry, offset, count, out);
    if ((error = judged(handle, entry, error)) != 0)
        return error;
    return (ssize_t)count;
}

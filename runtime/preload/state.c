#include "state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "real.h"

#define STATE_ALIGNMENT 4096
#define DEVICE_MINOR 0xF5EA0u /* an st_dev that no kernel gives out: its anonymous devices count from 0 */

struct state_header {
    char magic[8];
    uint64_t size, index_offset, index_size, cache_bytes, whole_file_limit;
    uint32_t flags, key_count, head;
    uint64_t mount_device, mount_inode;
    uint32_t strings; /* bytes of: mount, given, objects; each with its zero */
    uint32_t source_count;
    uint8_t dataset[SEALFS_DATASET_ID_SIZE];
    uint8_t keys_and_strings[]; /* keys, sources, strings */
};

static const char magic[8] = {'S', 'E', 'A', 'L', 'R', 'T', 'S', '1'};

int state_write(const struct sealfs_options *options, const char *given, const struct stat *mount) {
    size_t keys = options->key_count * sizeof *options->keys;
    size_t sources = options->source_count * sizeof *options->sources;
    size_t mount_size = strlen(options->mount_path) + 1, given_size = strlen(given) + 1;
    size_t objects_size = strlen(options->objects_path) + 1, strings = mount_size + given_size + objects_size;
    size_t head = sizeof(struct state_header) + keys + sources + strings;
    uint64_t offset = (head + STATE_ALIGNMENT - 1) / STATE_ALIGNMENT * STATE_ALIGNMENT;
    struct state_header *header = calloc(1, offset);
    int descriptor = header == NULL ? -1 : memory_file("sealfs");

    if (descriptor < 0) {
        int error = header == NULL ? -ENOMEM : -errno;
        free(header);
        return error;
    }
    memcpy(header->magic, magic, sizeof magic);
    header->size = offset + options->index_size;
    header->index_offset = offset;
    header->index_size = options->index_size;
    header->cache_bytes = options->cache_bytes;
    header->whole_file_limit = options->whole_file_limit;
    header->flags = options->flags;
    header->head = (uint32_t)getpid();
    header->mount_device = mount->st_dev;
    header->mount_inode = mount->st_ino;
    header->key_count = (uint32_t)options->key_count;
    header->source_count = options->source_count;
    header->strings = (uint32_t)strings;
    memcpy(header->dataset, options->dataset, sizeof header->dataset);
    uint8_t *at = header->keys_and_strings;
    memcpy(at, options->keys, keys);
    at += keys;
    if (sources != 0)
        memcpy(at, options->sources, sources);
    at += sources;
    memcpy(at, options->mount_path, mount_size);
    memcpy(at + mount_size, given, given_size);
    memcpy(at + mount_size + given_size, options->objects_path, objects_size);
    int error = 0;
    if (REAL(ftruncate)(descriptor, (off_t)header->size) != 0 || write_all(descriptor, header, offset) != 0 ||
        write_all(descriptor, options->index, options->index_size) != 0)
        error = -errno;
    explicit_bzero(header, offset);
    free(header);
    if (error != 0) {
        REAL(close)(descriptor);
        return error;
    }
    /* fails where the file is no memfd, and then nobody else has it either */
    REAL(fcntl)(descriptor, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
    return descriptor;
}

static uint64_t sources_at(const struct state_header *header) {
    return header->key_count * sizeof(struct sealfs_pack_key);
}

static uint64_t strings_at(const struct state_header *header) {
    return sources_at(header) + header->source_count * sizeof(struct sealfs_source);
}

/* The three strings, if they are there. */
static bool split_strings(const struct state_header *header, const char *strings[3]) {
    const char *at = (const char *)header->keys_and_strings + strings_at(header);
    const char *end = at + header->strings;

    for (int i = 0; i < 3; i++) {
        const char *zero = memchr(at, '\0', (size_t)(end - at));
        if (zero == NULL)
            return false;
        strings[i] = at;
        at = zero + 1;
    }
    return true;
}

static int read_whole(int descriptor, void *out, size_t size) {
    for (size_t done = 0; done < size;) {
        ssize_t count = REAL(pread)(descriptor, (char *)out + done, size - done, (off_t)done);
        if (count <= 0 && !(count < 0 && errno == EINTR))
            return -1;
        done += count > 0 ? (size_t)count : 0;
    }
    return 0;
}

static const struct state_header *map_state(int descriptor, struct stat *status) {
    if (REAL(fstat)(descriptor, status) != 0 || status->st_size < (off_t)sizeof(struct state_header))
        return NULL;
    /* Gramine can't restore the mapping of an unlinked file after fork: what is no memfd is copied. */
    bool memfd = REAL(fcntl)(descriptor, F_GET_SEALS) >= 0;
    size_t size = (size_t)status->st_size;
    struct state_header *header =
        memfd ? REAL(mmap)(NULL, size, PROT_READ, MAP_PRIVATE, descriptor, 0)
              : REAL(mmap)(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (header == MAP_FAILED)
        return NULL;
    if (!memfd && (read_whole(descriptor, header, size) != 0 || mprotect(header, size, PROT_READ) != 0)) {
        REAL(munmap)(header, size);
        return NULL;
    }
    (void)madvise(header, (size_t)status->st_size, MADV_DONTDUMP);
    uint64_t head = sizeof *header + strings_at(header) + header->strings;
    if (memcmp(header->magic, magic, sizeof magic) == 0 && header->size == (uint64_t)status->st_size &&
        head <= header->index_offset && header->index_offset % STATE_ALIGNMENT == 0 &&
        header->index_offset + header->index_size == header->size)
        return header;
    REAL(munmap)(header, (size_t)status->st_size);
    return NULL;
}

int state_attach(int descriptor, char *message, size_t message_size) {
    unsigned number = atomic_load(&attachment_count);
    struct attachment *at = &attachments[number];
    struct stat status;
    const char *strings[3];

    if (number == MAX_ATTACHMENTS) {
        snprintf(message, message_size, "at most %d datasets can be attached", MAX_ATTACHMENTS);
        REAL(close)(descriptor);
        return -ENOSPC;
    }
    const struct state_header *header = map_state(descriptor, &status);
    if (header == NULL || !split_strings(header, strings)) {
        snprintf(message, message_size, "the attachment's state is not readable");
        if (header != NULL)
            REAL(munmap)((void *)header, (size_t)status.st_size);
        REAL(close)(descriptor);
        return -EINVAL;
    }
    struct sealfs_options options = {
        .struct_size = sizeof options,
        .objects_path = strings[2],
        .index = (const uint8_t *)header + header->index_offset,
        .index_size = header->index_size,
        .keys = (const void *)header->keys_and_strings,
        .key_count = header->key_count,
        .cache_bytes = header->cache_bytes,
        .whole_file_limit = header->whole_file_limit,
        .source_count = header->source_count,
        .sources = (const void *)(header->keys_and_strings + sources_at(header)),
    };
    memcpy(options.dataset, header->dataset, sizeof options.dataset);
    struct sealfs *core;
    int error = sealfs_open(&options, &core, message, message_size);
    int kept = error != 0 ? -1 : private_keep(descriptor, true);
    if (kept < 0) {
        if (error == 0) {
            error = -errno;
            sealfs_close(core);
        } else
            REAL(close)(descriptor);
        REAL(munmap)((void *)header, (size_t)status.st_size);
        return error;
    }
    *at = (struct attachment){
        .core = core,
        .mount = strings[0],
        .mount_length = strlen(strings[0]),
        .given = strings[1],
        .given_length = strlen(strings[1]),
        .mount_device = header->mount_device,
        .mount_inode = header->mount_inode,
        .device = makedev(0, DEVICE_MINOR + number),
        .flags = header->flags,
        .number = number,
        .state = header,
        .state_size = (size_t)status.st_size,
        .state_file = kept,
        .state_inode = status.st_ino,
        .head = (pid_t)header->head,
    };
    atomic_store_explicit(&attachment_count, number + 1, memory_order_release);
    return 0;
}

/* libFuzzer target for what takes bytes from outside: the index (everything that follows a reference in it) and
 * FLOE headers and segments. The first byte of the input chooses.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "floe.h"
#include "index.h"
#include "sealfs.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fuzz_index(const uint8_t *data, size_t size) {
    uint8_t dataset[16] = {0};
    if (size < 128)
        return;
    memcpy(dataset, data + 16, 16);
    uint8_t *copy = malloc(size);
    memcpy(copy, data, size);
    struct sealfs_pack_key key = {.epoch = 1};
    struct sealfs_options options = {.struct_size = sizeof options, .objects_path = "/nonexistent", .index = copy,
                                     .index_size = size, .keys = &key, .key_count = 1, .cache_bytes = 1 << 16};
    memcpy(options.dataset, dataset, 16);
    struct sealfs *handle;
    if (sealfs_open(&options, &handle, NULL, 0) == 0) {
        uint32_t entries;
        memcpy(&entries, copy + 40, 4);
        for (uint32_t entry = 0; entry < entries && entry < 64; entry++) {
            /* a failure poisons the handle: the index itself is asked, too */
            struct index_view index;
            struct index_name name;
            struct floe_layout layout;
            uint32_t first, count, found;
            char path[64], out[64];
            struct stat status;
            struct sealfs_item item;
            const char *target;
            if (index_open(&index, copy, size, dataset) == 0) {
                if (index_name(&index, entry, &name) == 0)
                    index_find(&index, entry / 2, name.bytes, name.length, &found);
                index_parent(&index, entry, &found);
                index_children(&index, entry, &first, &count);
                index_symlink(&index, entry, &name);
                index_check_extents(&index, entry);
                index_pack(&index, entry, &layout);
            }
            sealfs_stat(handle, entry, &status);
            sealfs_readdir(handle, entry, 0, &item);
            sealfs_readlink(handle, entry, &target);
            sealfs_path(handle, entry, path, sizeof path);
            sealfs_prepare(handle, entry);
            sealfs_pread(handle, entry, out, sizeof out, 3);
        }
        sealfs_close(handle);
    }
    free(copy);
}

static void fuzz_floe(const uint8_t *data, size_t size) {
    static const uint8_t key[FLOE_KEY_SIZE];
    struct floe_message message;
    struct floe_cipher *cipher = floe_cipher_new();
    uint32_t length;
    if (size >= FLOE_HEADER_SIZE && floe_segment_length(data, &length) == 0) {
        floe_open(&message, key, data, size < 16 ? size : 16, data);
        message = (struct floe_message){.segment_length = length};
        size_t left = size - FLOE_HEADER_SIZE;
        uint8_t *out = malloc(left + 1);
        if (left <= length)
            floe_decrypt_segment(cipher, &message, data + FLOE_HEADER_SIZE, left, left, left % 2, out);
        free(out);
    }
    floe_cipher_free(cipher);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 1 || floe_initialise() != 0)
        return 0;
    if (data[0] % 2 == 0)
        fuzz_index(data + 1, size - 1);
    else
        fuzz_floe(data + 1, size - 1);
    return 0;
}

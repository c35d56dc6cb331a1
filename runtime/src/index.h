/* The index: a dataset's path table, read in place (docs/format.md, "Index"; sealfs/dataset/index.py).
 *
 * The bytes are authentic when they come here, but what they say is still bounded: column sizes at opening, each
 * reference when it is followed. Functions return 0 or a negative errno; -EIO means out of bounds.
 *
 * Threading: immutable after `index_open`.
 */
#ifndef SEALFS_INDEX_H
#define SEALFS_INDEX_H

#include <stddef.h>
#include <stdint.h>

#include "floe.h"

#define INDEX_HOLE 0xFFFFFFFFu
#define INDEX_PACK_ID_SIZE 24

struct index_view {
    uint32_t entries, extents, packs;
    uint64_t names_size, total_size;
    const uint32_t *name_offset, *parent, *mode, *first, *count, *by_name;
    const uint64_t *size;
    const int64_t *mtime_ns;
    const uint32_t *extent_pack;
    const uint64_t *extent_offset, *extent_length;
    const uint32_t *pack_epoch;
    const uint64_t *pack_size;
    const uint8_t *pack_id, *pack_header;
    const char *names;
};

struct index_name {
    const char *bytes;
    size_t length;
};

/* Lays the columns over `data`, which must be 8-byte aligned and stay. -EINVAL: not aligned. */
int index_open(struct index_view *index, const void *data, size_t size, const uint8_t dataset[16]);

int index_name(const struct index_view *index, uint32_t entry, struct index_name *name);
int index_parent(const struct index_view *index, uint32_t entry, uint32_t *parent);
int index_children(const struct index_view *index, uint32_t directory, uint32_t *first, uint32_t *count);
int index_find(const struct index_view *index, uint32_t directory, const char *name, size_t length,
               uint32_t *entry);
int index_symlink(const struct index_view *index, uint32_t entry, struct index_name *target);

/* Checks all extents of a regular file: within their packs, and as long as the file together. */
int index_check_extents(const struct index_view *index, uint32_t entry);

/* Checks a row of the pack table and returns its layout. */
int index_pack(const struct index_view *index, uint32_t pack, struct floe_layout *layout);

#endif

#include "index.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the index is read in place: little-endian machines only");

#define HEADER_BYTES 128
#define NAME_MAX_BYTES 255

struct header {
    char magic[8];
    uint32_t format, header_size;
    uint8_t dataset[16];
    uint64_t version;
    uint32_t entries, extents, packs, zero;
    uint64_t names, total;
};
_Static_assert(sizeof(struct header) == 72, "as the format has it");

/* Where the next column lies: `place` moves on by `items` of `size` bytes, to the next multiple of 8. */
static uint64_t next_column(uint64_t *place, uint64_t items, size_t size) {
    uint64_t here = *place;

    *place = (here + items * size + 7) & ~(uint64_t)7;
    return here;
}

int index_open(struct index_view *index, const void *data, size_t size, const uint8_t dataset[16]) {
    const uint8_t *base = data;
    struct header header;
    uint64_t place = HEADER_BYTES;

    if ((uintptr_t)data % 8 != 0)
        return -EINVAL;
    if (size < HEADER_BYTES)
        return -EIO;
    memcpy(&header, data, sizeof header);
    if (memcmp(header.magic, "SEALIDX1", 8) != 0 || header.format != 1 || header.header_size != HEADER_BYTES)
        return -EIO;
    if (memcmp(header.dataset, dataset, 16) != 0)
        return -EIO;
    /* with all counts below 2^32 the sum below can't overflow */
    if (header.entries < 1 || header.entries > 0xFFFFFFFEu || header.names >= (uint64_t)1 << 32)
        return -EIO;

    uint64_t e = header.entries, x = header.extents, p = header.packs;
    uint64_t at[17];
    at[0] = next_column(&place, e + 1, 4);            /* name_offset */
    at[1] = next_column(&place, e, 4);                /* parent */
    at[2] = next_column(&place, e, 4);                /* mode */
    at[3] = next_column(&place, e, 8);                /* size */
    at[4] = next_column(&place, e, 8);                /* mtime_ns */
    at[5] = next_column(&place, e, 4);                /* first */
    at[6] = next_column(&place, e, 4);                /* count */
    at[7] = next_column(&place, e, 4);                /* by_name */
    at[8] = next_column(&place, e, 32);               /* sha256 */
    at[9] = next_column(&place, x, 4);                /* extent_pack */
    at[10] = next_column(&place, x, 8);               /* extent_offset */
    at[11] = next_column(&place, x, 8);               /* extent_length */
    at[12] = next_column(&place, p, 4);               /* pack_epoch */
    at[13] = next_column(&place, p, 8);               /* pack_size */
    at[14] = next_column(&place, p, INDEX_PACK_ID_SIZE);
    at[15] = next_column(&place, p, FLOE_HEADER_SIZE);
    at[16] = next_column(&place, header.names, 1);
    if (place != size)
        return -EIO;

    *index = (struct index_view){
        .entries = header.entries,
        .extents = header.extents,
        .packs = header.packs,
        .names_size = header.names,
        .total_size = header.total,
        .name_offset = (const void *)(base + at[0]),
        .parent = (const void *)(base + at[1]),
        .mode = (const void *)(base + at[2]),
        .size = (const void *)(base + at[3]),
        .mtime_ns = (const void *)(base + at[4]),
        .first = (const void *)(base + at[5]),
        .count = (const void *)(base + at[6]),
        .by_name = (const void *)(base + at[7]),
        .extent_pack = (const void *)(base + at[9]),
        .extent_offset = (const void *)(base + at[10]),
        .extent_length = (const void *)(base + at[11]),
        .pack_epoch = (const void *)(base + at[12]),
        .pack_size = (const void *)(base + at[13]),
        .pack_id = base + at[14],
        .pack_header = base + at[15],
        .names = (const char *)(base + at[16]),
    };
    return S_ISDIR(index->mode[0]) ? 0 : -EIO;
}

static int name_of(const struct index_view *index, uint32_t entry, struct index_name *name) {
    uint32_t start = index->name_offset[entry], end = index->name_offset[entry + 1];

    if (start > end || end > index->names_size)
        return -EIO;
    *name = (struct index_name){index->names + start, end - start};
    return 0;
}

int index_name(const struct index_view *index, uint32_t entry, struct index_name *name) {
    if (entry >= index->entries || name_of(index, entry, name) != 0)
        return -EIO;
    /* what no directory can hold must not reach a caller's buffers */
    if (entry != 0 && (name->length == 0 || name->length > NAME_MAX_BYTES ||
                       memchr(name->bytes, '/', name->length) != NULL ||
                       memchr(name->bytes, '\0', name->length) != NULL))
        return -EIO;
    return 0;
}

int index_parent(const struct index_view *index, uint32_t entry, uint32_t *parent) {
    if (entry >= index->entries)
        return -EIO;
    *parent = index->parent[entry];
    return entry == 0 ? (*parent == 0 ? 0 : -EIO) : (*parent < entry ? 0 : -EIO);
}

int index_children(const struct index_view *index, uint32_t directory, uint32_t *first, uint32_t *count) {
    if (directory >= index->entries)
        return -EIO;
    if (!S_ISDIR(index->mode[directory]))
        return -ENOTDIR;
    *first = index->first[directory];
    *count = index->count[directory];
    if (*count != 0 && (*first <= directory || (uint64_t)*first + *count > index->entries))
        return -EIO;
    return 0;
}

static int compare(const struct index_name *name, const char *bytes, size_t length) {
    size_t common = name->length < length ? name->length : length;
    int order = common == 0 ? 0 : memcmp(name->bytes, bytes, common);

    return order != 0 ? order : (name->length > length) - (name->length < length);
}

int index_find(const struct index_view *index, uint32_t directory, const char *name, size_t length,
               uint32_t *entry) {
    uint32_t first, count;
    int error = index_children(index, directory, &first, &count);

    if (error != 0)
        return error;
    uint32_t low = 0, high = count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2, candidate = index->by_name[first + middle];
        struct index_name found;

        if (candidate < first || candidate - first >= count || name_of(index, candidate, &found) != 0)
            return -EIO;
        int order = compare(&found, name, length);
        if (order == 0) {
            *entry = candidate;
            return 0;
        }
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return -ENOENT;
}

int index_symlink(const struct index_view *index, uint32_t entry, struct index_name *target) {
    if (entry >= index->entries || !S_ISLNK(index->mode[entry]))
        return -EINVAL;
    uint64_t start = index->first[entry], length = index->count[entry];
    if (start + length > index->names_size)
        return -EIO;
    *target = (struct index_name){index->names + start, (size_t)length};
    return memchr(target->bytes, '\0', target->length) == NULL ? 0 : -EIO;
}

int index_check_extents(const struct index_view *index, uint32_t entry) {
    if (entry >= index->entries || !S_ISREG(index->mode[entry]))
        return -EINVAL;
    uint64_t first = index->first[entry], count = index->count[entry], sum = 0;
    if (first + count > index->extents)
        return -EIO;
    for (uint64_t i = first; i < first + count; i++) {
        uint64_t offset = index->extent_offset[i], length = index->extent_length[i];
        uint32_t pack = index->extent_pack[i];

        if (pack != INDEX_HOLE && (pack >= index->packs || offset > index->pack_size[pack] ||
                                   length > index->pack_size[pack] - offset))
            return -EIO;
        if (__builtin_add_overflow(sum, length, &sum))
            return -EIO;
    }
    return sum == index->size[entry] && sum <= INT64_MAX ? 0 : -EIO;
}

int index_pack(const struct index_view *index, uint32_t pack, struct floe_layout *layout) {
    uint32_t segment_length;

    if (pack >= index->packs ||
        floe_segment_length(index->pack_header + (size_t)pack * FLOE_HEADER_SIZE, &segment_length) != 0)
        return -EIO;
    return floe_layout_of(index->pack_size[pack], segment_length, layout);
}

/* A bounded cache of decrypted segments, least recently used out first.
 *
 * A segment in use is not freed under its user: `segments_get` and `segments_new` hold a reference for the caller,
 * who gives it back with `segments_release`. The bytes lie in slots of one size (arena.h), that of the first pack's
 * segments; what is larger, or comes when all slots are in use, has memory of its own.
 *
 * Threading: not locked; the caller holds its lock around each call, not around the use of a segment's bytes.
 */
#ifndef SEALFS_SEGMENTS_H
#define SEALFS_SEGMENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "arena.h"

struct segment {
    struct segment *chain;              /* next in the same bucket */
    struct segment *newer, *older;      /* order of use */
    uint64_t position;
    uint32_t pack;
    uint32_t users;
    bool cached;  /* still in the table */
    bool in_slot; /* of the arena */
    bool tail;    /* a long read ended in it: who reads on wants the rest, and then no more of it */
    size_t size;
    uint8_t *bytes;
};

struct segments {
    struct segment **buckets;
    size_t bucket_count; /* a power of two */
    struct segment *newest, *oldest;
    uint64_t used, limit;
    struct arena arena;
};

/* `limit`: bytes to keep. Returns 0 or -ENOMEM. */
int segments_init(struct segments *cache, uint64_t limit);
void segments_destroy(struct segments *cache);

/* A segment outside the table, to be filled by its one user; NULL without memory. `room`: what a whole segment of
 * this pack holds. */
struct segment *segments_new(struct segments *cache, uint32_t pack, uint64_t position, size_t size, size_t room);

/* The cached segment, or NULL. */
struct segment *segments_get(struct segments *cache, uint32_t pack, uint64_t position);
bool segments_has(const struct segments *cache, uint32_t pack, uint64_t position);

/* Whether it is the one that was used last. */
bool segments_is_newest(const struct segments *cache, uint32_t pack, uint64_t position);

/* Takes a segment out of the table. */
void segments_forget(struct segments *cache, struct segment *segment);

/* Keeps a filled segment unless it is there already or larger than the cache. */
void segments_put(struct segments *cache, struct segment *segment);
void segments_release(struct segments *cache, struct segment *segment);

#endif

#include "segments.h"

#include <errno.h>
#include <stdlib.h>

#define SMALLEST_USUAL_SEGMENT (16u << 10)
#define MAX_BUCKETS (1u << 20)
#define MOST_DROPPED 4 /* for one slot: those that are being read from give theirs back later */

int segments_init(struct segments *cache, uint64_t limit) {
    size_t buckets = 64;

    while (buckets < MAX_BUCKETS && buckets < limit / SMALLEST_USUAL_SEGMENT)
        buckets *= 2;
    *cache = (struct segments){.bucket_count = buckets, .limit = limit};
    cache->buckets = calloc(buckets, sizeof *cache->buckets);
    return cache->buckets != NULL ? 0 : -ENOMEM;
}

static struct segment **bucket(const struct segments *cache, uint32_t pack, uint64_t position) {
    uint64_t mixed = (position ^ (uint64_t)pack << 32) * 0x9E3779B97F4A7C15u;

    return &cache->buckets[mixed >> 32 & (cache->bucket_count - 1)];
}

static struct segment *find(const struct segments *cache, uint32_t pack, uint64_t position) {
    struct segment *segment = *bucket(cache, pack, position);

    while (segment != NULL && (segment->position != position || segment->pack != pack))
        segment = segment->chain;
    return segment;
}

static void unlink_use(struct segments *cache, struct segment *segment) {
    *(segment->newer != NULL ? &segment->newer->older : &cache->newest) = segment->older;
    *(segment->older != NULL ? &segment->older->newer : &cache->oldest) = segment->newer;
}

static void link_newest(struct segments *cache, struct segment *segment) {
    segment->newer = NULL;
    segment->older = cache->newest;
    *(cache->newest != NULL ? &cache->newest->newer : &cache->oldest) = segment;
    cache->newest = segment;
}

/* What it counts for: a slot is taken whole, however little is in it. */
static size_t weight(const struct segments *cache, const struct segment *segment) {
    return segment->in_slot ? cache->arena.slot_size : segment->size;
}

static void free_segment(struct segments *cache, struct segment *segment) {
    if (segment->in_slot)
        arena_give(&cache->arena, segment->bytes);
    else
        free(segment->bytes);
    free(segment);
}

static void drop(struct segments *cache, struct segment *segment) {
    struct segment **place = bucket(cache, segment->pack, segment->position);

    while (*place != segment)
        place = &(*place)->chain;
    *place = segment->chain;
    unlink_use(cache, segment);
    cache->used -= weight(cache, segment);
    segment->cached = false;
    if (segment->users == 0)
        free_segment(cache, segment);
}

void segments_destroy(struct segments *cache) {
    while (cache->oldest != NULL)
        drop(cache, cache->oldest);
    arena_destroy(&cache->arena);
    free(cache->buckets);
    cache->buckets = NULL;
}

/* A slot, if need be of what was not used for longest. */
static void *take_slot(struct segments *cache, size_t size, size_t room) {
    if (cache->arena.slot_size == 0)
        arena_init(&cache->arena, room, cache->limit);
    if (size > cache->arena.slot_size)
        return NULL;
    void *slot = arena_take(&cache->arena);
    for (int tries = 0; slot == NULL && tries < MOST_DROPPED && cache->oldest != NULL; tries++) {
        drop(cache, cache->oldest);
        slot = arena_take(&cache->arena);
    }
    return slot;
}

struct segment *segments_new(struct segments *cache, uint32_t pack, uint64_t position, size_t size, size_t room) {
    struct segment *segment = malloc(sizeof *segment);

    if (segment == NULL)
        return NULL;
    *segment = (struct segment){.position = position, .pack = pack, .users = 1, .size = size};
    segment->bytes = take_slot(cache, size, room);
    segment->in_slot = segment->bytes != NULL;
    if (!segment->in_slot)
        segment->bytes = malloc(size != 0 ? size : 1);
    if (segment->bytes != NULL)
        return segment;
    free(segment);
    return NULL;
}

bool segments_has(const struct segments *cache, uint32_t pack, uint64_t position) {
    return find(cache, pack, position) != NULL;
}

bool segments_is_newest(const struct segments *cache, uint32_t pack, uint64_t position) {
    return cache->newest != NULL && cache->newest->position == position && cache->newest->pack == pack;
}

void segments_forget(struct segments *cache, struct segment *segment) {
    if (segment->cached)
        drop(cache, segment);
}

struct segment *segments_get(struct segments *cache, uint32_t pack, uint64_t position) {
    struct segment *segment = find(cache, pack, position);

    if (segment == NULL)
        return NULL;
    unlink_use(cache, segment);
    link_newest(cache, segment);
    segment->users++;
    return segment;
}

void segments_put(struct segments *cache, struct segment *segment) {
    size_t size = weight(cache, segment);

    if (size > cache->limit || find(cache, segment->pack, segment->position) != NULL)
        return;
    while (cache->used + size > cache->limit)
        drop(cache, cache->oldest);
    struct segment **place = bucket(cache, segment->pack, segment->position);
    segment->chain = *place;
    *place = segment;
    segment->cached = true;
    cache->used += size;
    link_newest(cache, segment);
}

void segments_release(struct segments *cache, struct segment *segment) {
    if (--segment->users == 0 && !segment->cached)
        free_segment(cache, segment);
}

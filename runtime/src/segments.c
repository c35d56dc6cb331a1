#include "segments.h"

#include <errno.h>
#include <stdlib.h>

#define SMALLEST_USUAL_SEGMENT (16u << 10)
#define MAX_BUCKETS (1u << 20)

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

static void drop(struct segments *cache, struct segment *segment) {
    struct segment **place = bucket(cache, segment->pack, segment->position);

    while (*place != segment)
        place = &(*place)->chain;
    *place = segment->chain;
    unlink_use(cache, segment);
    cache->used -= segment->size;
    segment->cached = false;
    if (segment->users == 0)
        free(segment);
}

void segments_destroy(struct segments *cache) {
    while (cache->oldest != NULL)
        drop(cache, cache->oldest);
    free(cache->buckets);
    cache->buckets = NULL;
}

struct segment *segments_new(uint32_t pack, uint64_t position, size_t size) {
    struct segment *segment = malloc(sizeof *segment + size);

    if (segment != NULL)
        *segment = (struct segment){.position = position, .pack = pack, .users = 1, .size = size};
    return segment;
}

bool segments_has(const struct segments *cache, uint32_t pack, uint64_t position) {
    return find(cache, pack, position) != NULL;
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
    if (segment->size > cache->limit || find(cache, segment->pack, segment->position) != NULL)
        return;
    while (cache->used + segment->size > cache->limit)
        drop(cache, cache->oldest);
    struct segment **place = bucket(cache, segment->pack, segment->position);
    segment->chain = *place;
    *place = segment;
    segment->cached = true;
    cache->used += segment->size;
    link_newest(cache, segment);
}

void segments_release(struct segment *segment) {
    if (--segment->users == 0 && !segment->cached)
        free(segment);
}

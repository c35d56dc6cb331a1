/* The segment cache: bounded, least recently used out first, and nothing is freed while it is used. */
#include <string.h>

#include "check.h"
#include "segments.h"

static void put(struct segments *cache, uint64_t position, size_t size) {
    struct segment *segment = segments_new(1, position, size);
    CHECK(segment != NULL);
    memset(segment->bytes, (int)position, size);
    segments_put(cache, segment);
    segments_release(segment);
}

static bool has(struct segments *cache, uint64_t position) {
    struct segment *segment = segments_get(cache, 1, position);
    if (segment == NULL)
        return false;
    CHECK(segment->bytes[0] == (uint8_t)position);
    segments_release(segment);
    return true;
}

int main(void) {
    struct segments cache;
    CHECK(segments_init(&cache, 1000) == 0);
    for (uint64_t i = 0; i < 10; i++)
        put(&cache, i, 100);
    CHECK(has(&cache, 0) && cache.used == 1000); /* and now it is the newest */
    put(&cache, 10, 100);
    CHECK(has(&cache, 0) && !has(&cache, 1) && has(&cache, 10) && !segments_has(&cache, 2, 0));

    struct segment *held = segments_get(&cache, 1, 2);
    for (uint64_t i = 100; i < 200; i++)
        put(&cache, i, 90);
    CHECK(!has(&cache, 2) && held->bytes[99] == 2 && cache.used <= 1000);
    segments_release(held);

    put(&cache, 300, 2000); /* larger than the cache: not kept */
    CHECK(!has(&cache, 300));
    put(&cache, 301, 1000);
    CHECK(has(&cache, 301) && cache.used == 1000);
    put(&cache, 301, 1000); /* there already */
    CHECK(cache.used == 1000);
    segments_destroy(&cache);

    CHECK(segments_init(&cache, 1 << 20) == 0);
    for (uint64_t i = 0; i < 5000; i++) {
        put(&cache, i * 7919 % 600, 1 + i % 4096);
        CHECK(cache.used <= 1 << 20);
    }
    segments_destroy(&cache);
    puts("segments");
    return 0;
}

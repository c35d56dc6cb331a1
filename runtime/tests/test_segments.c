/* The segment cache: bounded, least recently used out first, and nothing is freed while it is used. */
#include <string.h>

#include "check.h"
#include "segments.h"

#define ROOM 128 /* of a slot */

static void put(struct segments *cache, uint64_t position, size_t size) {
    struct segment *segment = segments_new(cache, 1, position, size, ROOM);
    CHECK(segment != NULL);
    memset(segment->bytes, (int)position, size);
    segments_put(cache, segment);
    segments_release(cache, segment);
}

static bool has(struct segments *cache, uint64_t position) {
    struct segment *segment = segments_get(cache, 1, position);
    if (segment == NULL)
        return false;
    CHECK(segment->bytes[0] == (uint8_t)position);
    segments_release(cache, segment);
    return true;
}

int main(void) {
    struct segments cache;
    CHECK(segments_init(&cache, 10 * ROOM + 5) == 0);
    for (uint64_t i = 0; i < 10; i++)
        put(&cache, i, 100);
    CHECK(has(&cache, 0) && cache.used == 10 * ROOM); /* and now it is the newest */
    put(&cache, 10, 100);
    CHECK(has(&cache, 0) && !has(&cache, 1) && has(&cache, 10) && !segments_has(&cache, 2, 0));

    struct segment *held = segments_get(&cache, 1, 2);
    for (uint64_t i = 100; i < 200; i++)
        put(&cache, i, 90);
    CHECK(!has(&cache, 2) && held->bytes[99] == 2 && cache.used <= 10 * ROOM);
    segments_release(&cache, held);

    put(&cache, 300, 20 * ROOM); /* larger than the cache: not kept */
    CHECK(!has(&cache, 300));
    put(&cache, 301, 10 * ROOM); /* larger than a slot, but not than the cache */
    CHECK(has(&cache, 301) && cache.used == 10 * ROOM);
    put(&cache, 301, 10 * ROOM); /* there already */
    CHECK(cache.used == 10 * ROOM);

    struct segment *many[20]; /* all slots are taken, and none comes back: others have memory of their own */
    for (int i = 0; i < 20; i++) {
        many[i] = segments_new(&cache, 2, (uint64_t)i, ROOM, ROOM);
        CHECK(many[i] != NULL && many[i]->in_slot == (i < 10));
        memset(many[i]->bytes, i, ROOM);
    }
    for (int i = 0; i < 20; i++) {
        CHECK(many[i]->bytes[0] == i && many[i]->bytes[ROOM - 1] == i);
        segments_put(&cache, many[i]);
        segments_release(&cache, many[i]);
        CHECK(cache.used <= cache.limit);
    }
    segments_destroy(&cache);

    CHECK(segments_init(&cache, 10 * ROOM) == 0 && !segments_is_newest(&cache, 1, 0));
    put(&cache, 1, ROOM);
    put(&cache, 2, ROOM);
    CHECK(segments_is_newest(&cache, 1, 2) && !segments_is_newest(&cache, 2, 2) && !segments_is_newest(&cache, 1, 1));
    held = segments_get(&cache, 1, 1);
    const uint8_t *slot = held->bytes;
    segments_forget(&cache, held);
    segments_forget(&cache, held); /* another thread may have been faster */
    CHECK(!segments_has(&cache, 1, 1) && cache.used == ROOM && held->bytes[ROOM - 1] == 1);
    segments_release(&cache, held);
    held = segments_new(&cache, 1, 3, ROOM, ROOM);
    CHECK(held->bytes == slot); /* the memory that was used last */
    segments_release(&cache, held);
    segments_destroy(&cache);

    CHECK(segments_init(&cache, 5 << 20) == 0); /* more than one chunk of slots */
    for (uint64_t i = 0; i < 5000; i++) {
        put(&cache, i * 7919 % 90000, 1 + i % ROOM);
        CHECK(cache.used <= 5 << 20);
    }
    for (uint64_t i = 0; i < 100000; i++)
        put(&cache, i, ROOM);
    CHECK(cache.used == 5 << 20 && has(&cache, 99999) && !has(&cache, 100000 - (5 << 20) / ROOM - 1));
    segments_destroy(&cache);
    puts("segments");
    return 0;
}

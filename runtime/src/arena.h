/* Equal slots in memory that is taken from the system 2 MiB at a time, in huge pages where it gives them.
 *
 * Fresh memory is the dearest part of decrypting a segment into a cache: in pages of 4 KiB its page faults cost
 * more than AES does. Slots that are given back are used again first; nothing goes back to the system before the end.
 *
 * Threading: not locked; the caller holds its lock around each call.
 */
#ifndef SEALFS_ARENA_H
#define SEALFS_ARENA_H

#include <stddef.h>
#include <stdint.h>

struct arena_chunk;

struct arena {
    struct arena_chunk *chunks;
    void *free;           /* a list through the free slots */
    uint8_t *fresh, *end; /* what of the newest chunk was never used */
    size_t slot_size;
    size_t left; /* slots that may still be made */
};

/* `limit`: bytes of all slots together. Takes nothing yet. */
void arena_init(struct arena *arena, size_t slot_size, uint64_t limit);
void arena_destroy(struct arena *arena);

/* A slot with arbitrary content; NULL when the limit is reached or there is no memory. */
void *arena_take(struct arena *arena);
void arena_give(struct arena *arena, void *slot);

#endif

#include "arena.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "sys.h"

#define HUGE_PAGE ((size_t)2 << 20)
#define PAGE ((size_t)4096)
#define SLOT_ALIGNMENT ((size_t)64)

struct arena_chunk {
    struct arena_chunk *next;
    void *start;
    size_t size;
};

void arena_init(struct arena *arena, size_t slot_size, uint64_t limit) {
    size_t rounded = (slot_size + SLOT_ALIGNMENT - 1) / SLOT_ALIGNMENT * SLOT_ALIGNMENT;

    *arena = (struct arena){.slot_size = rounded, .left = (size_t)(limit / rounded)};
}

void arena_destroy(struct arena *arena) {
    while (arena->chunks != NULL) {
        struct arena_chunk *chunk = arena->chunks;
        arena->chunks = chunk->next;
        sys_unmap(chunk->start, chunk->size);
        free(chunk);
    }
    *arena = (struct arena){.slot_size = arena->slot_size};
}

/* Maps a multiple of 2 MiB on a boundary of 2 MiB: only such a place can be one huge page. */
static void *map_aligned(size_t size) {
    uint8_t *start = sys_map(size + HUGE_PAGE);

    if (start == NULL)
        return NULL;
    size_t before = (HUGE_PAGE - (uintptr_t)start % HUGE_PAGE) % HUGE_PAGE;
    if (before != 0)
        sys_unmap(start, before);
    sys_unmap(start + before + size, HUGE_PAGE - before);
    (void)madvise(start + before, size, MADV_HUGEPAGE); /* where there is none, small pages do */
    return start + before;
}

static int add_chunk(struct arena *arena) {
    uint64_t wanted = (uint64_t)arena->left * arena->slot_size;
    size_t size = arena->slot_size > HUGE_PAGE || wanted > HUGE_PAGE ? HUGE_PAGE : (size_t)wanted;
    struct arena_chunk *chunk = malloc(sizeof *chunk);

    if (chunk == NULL)
        return -1;
    if (arena->slot_size > size)
        size = arena->slot_size;
    size = (size + PAGE - 1) / PAGE * PAGE;
    void *start = size == HUGE_PAGE ? map_aligned(size) : sys_map(size);
    if (start == NULL) {
        free(chunk);
        return -1;
    }
    *chunk = (struct arena_chunk){arena->chunks, start, size};
    arena->chunks = chunk;
    arena->fresh = start;
    arena->end = arena->fresh + size;
    return 0;
}

void *arena_take(struct arena *arena) {
    void *slot = arena->free;

    if (slot != NULL) {
        memcpy(&arena->free, slot, sizeof arena->free);
        return slot;
    }
    if (arena->left == 0 || ((size_t)(arena->end - arena->fresh) < arena->slot_size && add_chunk(arena) != 0))
        return NULL;
    slot = arena->fresh;
    arena->fresh += arena->slot_size;
    arena->left--;
    return slot;
}

void arena_give(struct arena *arena, void *slot) {
    memcpy(slot, &arena->free, sizeof arena->free);
    arena->free = slot;
}

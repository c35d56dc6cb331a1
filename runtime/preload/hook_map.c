/* mmap: a private anonymous copy, decrypted at once. Nobody can write to a sealed file, so that nobody can tell.
 *
 * Not page by page when they are touched: a handler of SIGSEGV is not asked when the kernel touches them (write() of
 * a mapping would fail), and userfaultfd(2) needs privileges, a thread in each process, and is not in Gramine.
 */
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "damage.h"
#include "mappings.h"
#include "reads.h"
#include "real.h"
#include "report.h"

#define KEPT_FLAGS (MAP_FIXED | MAP_FIXED_NOREPLACE | MAP_32BIT | MAP_LOCKED | MAP_STACK)
#define TYPE_MASK 0x0f /* MAP_SHARED, MAP_PRIVATE, MAP_SHARED_VALIDATE */
#define LARGE_MAP ((size_t)4 << 20) /* in huge pages: those of 4 KiB cost more to get than their bytes to decrypt */

#ifndef MAP_32BIT
#define MAP_32BIT 0
#endif

/* --- which ranges are such copies: mremap() would make them larger with zeros --- */

struct range {
    struct range *next;
    uintptr_t start, end;
};
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct range *ranges;
static atomic_bool any_range;

static int note_range(const void *address, size_t size) {
    struct range *range = malloc(sizeof *range);

    if (range == NULL)
        return -1;
    pthread_mutex_lock(&lock);
    *range = (struct range){ranges, (uintptr_t)address, (uintptr_t)address + size};
    ranges = range;
    atomic_store(&any_range, true);
    pthread_mutex_unlock(&lock);
    return 0;
}

static bool overlaps(const void *address, size_t size) {
    uintptr_t start = (uintptr_t)address;
    bool found = false;

    if (!atomic_load_explicit(&any_range, memory_order_acquire))
        return false;
    pthread_mutex_lock(&lock);
    for (const struct range *range = ranges; range != NULL && !found; range = range->next)
        found = range->start < start + size && start < range->end;
    pthread_mutex_unlock(&lock);
    return found;
}

/* What was unmapped, or mapped over, is no copy any more. */
static void forget_range(const void *address, size_t size) {
    uintptr_t start = (uintptr_t)address, end = start + size, rest = 0, rest_end = 0;
    struct range *dropped = NULL;

    if (!atomic_load_explicit(&any_range, memory_order_acquire))
        return;
    pthread_mutex_lock(&lock);
    for (struct range **place = &ranges; *place != NULL;) {
        struct range *range = *place;
        if (range->start < start && end < range->end) { /* out of the middle */
            rest = end;
            rest_end = range->end;
            range->end = start;
        } else if (start <= range->start && range->end <= end) {
            *place = range->next;
            range->next = dropped;
            dropped = range;
            continue;
        } else if (range->start < start && start < range->end)
            range->end = start;
        else if (range->start < end && end < range->end)
            range->start = end;
        place = &range->next;
    }
    atomic_store(&any_range, ranges != NULL);
    pthread_mutex_unlock(&lock);
    while (dropped != NULL) { /* not under the lock: free() may come back here by munmap() */
        struct range *range = dropped;
        dropped = range->next;
        free(range);
    }
    if (rest != rest_end)
        (void)note_range((const void *)rest, rest_end - rest);
}

void mappings_before_fork(void) {
    pthread_mutex_lock(&lock);
}

void mappings_after_fork(void) {
    pthread_mutex_unlock(&lock);
}

/* --- mmap --- */

static void *refuse_map(int error) {
    errno = error;
    return MAP_FAILED;
}

/* Makes what lies wholly behind the end of the file as deadly as it is in a file's mapping: SIGBUS. */
static int end_map(uint8_t *from, uint8_t *to, int protection) {
    int empty = from < to ? memory_file("sealfs-end") : -1, error;

    if (from >= to)
        return 0;
    void *end = empty < 0 ? MAP_FAILED
                          : REAL(mmap)(from, (size_t)(to - from), protection, MAP_PRIVATE | MAP_FIXED, empty, 0);
    error = end != MAP_FAILED ? 0 : mprotect(from, (size_t)(to - from), PROT_NONE);
    if (empty >= 0)
        REAL(close)(empty);
    return error;
}

/* Decrypts `size` bytes of the file into a mapping. */
static int fill_map(const struct descriptor *descriptor, uint8_t *map, size_t size, uint64_t offset) {
    if (size == 0)
        return 0;
    if (mprotect(map, size, PROT_READ | PROT_WRITE) != 0) {
        unserved("mmap", "a file that does not fit into memory");
        return -1;
    }
    if (size >= LARGE_MAP)
        (void)madvise(map, size, MADV_HUGEPAGE);
    for (size_t done = 0; done < size;) {
        ssize_t count = read_sealed_at(descriptor, map + done, size - done, offset + done);
        if (count <= 0)
            return count < 0 ? -1 : fail(EIO);
        done += (size_t)count;
    }
    return 0;
}

static void *map_sealed(const struct descriptor *descriptor, void *address, size_t size, int protection, int flags,
                        off_t offset) {
    int type = flags & TYPE_MASK;
    uint64_t length = sealed_size(descriptor->at, descriptor->entry);

    if (descriptor->kind == DESCRIPTOR_PATH)
        return refuse_map(EBADF);
    if (descriptor->kind == DESCRIPTOR_DIRECTORY)
        return refuse_map(ENODEV);
    if (size == 0 || offset < 0 || offset % sysconf(_SC_PAGESIZE) != 0 ||
        (type != MAP_SHARED && type != MAP_PRIVATE && type != MAP_SHARED_VALIDATE))
        return refuse_map(EINVAL);
    if (type != MAP_PRIVATE && (protection & PROT_WRITE) != 0)
        return refuse_map(EACCES);
    size_t page = (size_t)sysconf(_SC_PAGESIZE), whole = (size + page - 1) / page * page;
    uint64_t wanted = (uint64_t)offset >= length ? 0 : length - (uint64_t)offset;
    if (wanted > size)
        wanted = size;
    size_t filled = ((size_t)wanted + page - 1) / page * page;
    /* the place first, and memory only for what the file has: LMDB maps a terabyte, whatever is there */
    uint8_t *map = REAL(mmap)(address, size, PROT_NONE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (flags & KEPT_FLAGS), -1, 0);
    if (map == MAP_FAILED)
        return map;
    if ((flags & MAP_FIXED) != 0)
        forget_range(map, size);
    if (fill_map(descriptor, map, (size_t)wanted, (uint64_t)offset) != 0 ||
        (filled != 0 && mprotect(map, filled, protection) != 0) ||
        end_map(map + filled, map + whole, protection) != 0 || note_range(map, whole) != 0) {
        int error = errno;
        REAL(munmap)(map, size);
        return refuse_map(error);
    }
    return map;
}

static void *map_other(void *address, size_t size, int protection, int flags, int number, off_t offset) {
    if ((flags & MAP_FIXED) != 0)
        forget_range(address, size);
    return REAL(mmap)(address, size, protection, flags, number, offset);
}

HOOK void *mmap(void *address, size_t size, int protection, int flags, int number, off_t offset) {
    struct descriptor descriptor;

    if ((flags & MAP_ANONYMOUS) != 0 || !sealed_file(number, &descriptor))
        return map_other(address, size, protection, flags, number, offset);
    return map_sealed(&descriptor, address, size, protection, flags, offset);
}

void *mmap64(void *address, size_t size, int protection, int flags, int number, off64_t offset) SAME_AS(mmap);

HOOK int munmap(void *address, size_t size) {
    forget_range(address, size);
    return REAL(munmap)(address, size);
}

HOOK void *mremap(void *old, size_t old_size, size_t size, int flags, ...) {
    va_list arguments;

    va_start(arguments, flags);
    void *wanted = (flags & MREMAP_FIXED) != 0 ? va_arg(arguments, void *) : NULL;
    va_end(arguments);
    bool ours = overlaps(old, old_size != 0 ? old_size : 1);
    if (ours && size > old_size) {
        unserved("mremap", "a mapping of a sealed file, to make it larger");
        return refuse_map(ENOMEM);
    }
    void *map = REAL(mremap)(old, old_size, size, flags, wanted);
    if (map == MAP_FAILED)
        return map;
    forget_range(old, old_size);
    if ((flags & MREMAP_FIXED) != 0)
        forget_range(wanted, size);
    if (ours)
        (void)note_range(map, size);
    return map;
}

/* mmap: a private anonymous copy, decrypted at once. Nobody can write to a sealed file, so that nobody can tell. */
#include <errno.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include "reads.h"
#include "real.h"
#include "report.h"

#define KEPT_FLAGS (MAP_FIXED | MAP_FIXED_NOREPLACE | MAP_32BIT | MAP_NORESERVE | MAP_LOCKED | MAP_STACK)
#define TYPE_MASK 0x0f /* MAP_SHARED, MAP_PRIVATE, MAP_SHARED_VALIDATE */

#ifndef MAP_32BIT
#define MAP_32BIT 0
#endif

static void *refuse_map(int error) {
    errno = error;
    return MAP_FAILED;
}

static void *map_sealed(const struct descriptor *descriptor, void *address, size_t size, int protection, int flags,
                        off_t offset) {
    int type = flags & TYPE_MASK;
    uint64_t length = descriptor_size(descriptor);

    if (descriptor->kind == DESCRIPTOR_PATH)
        return refuse_map(EBADF);
    if (descriptor->kind == DESCRIPTOR_DIRECTORY)
        return refuse_map(ENODEV);
    if (size == 0 || offset < 0 || offset % sysconf(_SC_PAGESIZE) != 0 ||
        (type != MAP_SHARED && type != MAP_PRIVATE && type != MAP_SHARED_VALIDATE))
        return refuse_map(EINVAL);
    if (type != MAP_PRIVATE && (protection & PROT_WRITE) != 0)
        return refuse_map(EACCES);
    uint8_t *map = REAL(mmap)(address, size, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | (flags & KEPT_FLAGS), -1, 0);
    if (map == MAP_FAILED) {
        unserved("mmap", "a file that does not fit into memory");
        return map;
    }
    uint64_t wanted = (uint64_t)offset >= length ? 0 : length - (uint64_t)offset;
    if (wanted > size)
        wanted = size;
    for (uint64_t done = 0; done < wanted;) {
        ssize_t count = read_sealed_at(descriptor, map + done, (size_t)(wanted - done), (uint64_t)offset + done);
        if (count <= 0) {
            munmap(map, size);
            return refuse_map(count < 0 ? errno : EIO);
        }
        done += (uint64_t)count;
    }
    if (protection != (PROT_READ | PROT_WRITE) && mprotect(map, size, protection) != 0) {
        int error = errno;
        munmap(map, size);
        return refuse_map(error);
    }
    return map;
}

HOOK void *mmap(void *address, size_t size, int protection, int flags, int number, off_t offset) {
    struct descriptor descriptor;

    if ((flags & MAP_ANONYMOUS) != 0 || !sealed_file(number, &descriptor))
        return REAL(mmap)(address, size, protection, flags, number, offset);
    return map_sealed(&descriptor, address, size, protection, flags, offset);
}

void *mmap64(void *address, size_t size, int protection, int flags, int number, off64_t offset) SAME_AS(mmap);

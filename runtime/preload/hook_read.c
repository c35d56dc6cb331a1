/* read and its family, lseek; and write, which a sealed file refuses.
 *
 * The offset is the kernel's: a read moves it by one lseek and only then fetches the bytes that it moved over, so
 * that threads and processes that share a descriptor never get the same bytes twice.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "damage.h"
#include "descriptors.h"
#include "reads.h"
#include "real.h"
#include "report.h"

#define KERNEL_MAX_READ 0x7ffff000u /* what one read() gives at most */

bool sealed_file(int number, struct descriptor *descriptor) {
    return descriptor_find(number, descriptor) && descriptor->kind != DESCRIPTOR_REAL;
}

/* Why a descriptor can't be read, or 0. */
static int unreadable(const struct descriptor *descriptor) {
    return descriptor->kind == DESCRIPTOR_DIRECTORY ? EISDIR : descriptor->kind == DESCRIPTOR_PATH ? EBADF : 0;
}

ssize_t read_sealed_at(const struct descriptor *descriptor, void *out, size_t size, uint64_t offset) {
    int error = unreadable(descriptor);

    if (error != 0)
        return fail(error);
    if (size > KERNEL_MAX_READ)
        size = KERNEL_MAX_READ;
    ssize_t count = sealfs_pread(descriptor->at->core, descriptor->entry, out, size, offset);
    if (count == -ENOMEM)
        return fail(ENOMEM);
    if (count < 0)
        stop_damaged(descriptor->at, (int)count);
    return count;
}

int64_t take_range(int number, const struct descriptor *descriptor, size_t *size) {
    uint64_t length = sealed_size(descriptor->at, descriptor->entry);

    if (*size > KERNEL_MAX_READ)
        *size = KERNEL_MAX_READ;
    if (*size > length)
        *size = (size_t)length;
    off_t end = REAL(lseek)(number, (off_t)*size, SEEK_CUR);
    if (end < 0)
        return -1;
    end -= (off_t)descriptor->base;
    uint64_t start = (uint64_t)end - *size;
    if ((uint64_t)end <= length)
        return (int64_t)start;
    *size = start < length ? (size_t)(length - start) : 0;
    if (descriptor_seek(number, descriptor, (off_t)(start < length ? length : start), SEEK_SET) < 0)
        return -1;
    return (int64_t)start;
}

ssize_t read_sealed(int number, const struct descriptor *descriptor, void *out, size_t size) {
    int error = unreadable(descriptor);

    if (error != 0)
        return fail(error);
    int64_t offset = take_range(number, descriptor, &size);
    if (offset < 0)
        return -1;
    ssize_t count = size == 0 ? 0 : read_sealed_at(descriptor, out, size, (uint64_t)offset);
    if (count < 0)
        (void)descriptor_seek(number, descriptor, -(off_t)size, SEEK_CUR);
    return count;
}

off_t seek_sealed(int number, const struct descriptor *descriptor, off_t offset, int whence) {
    off_t length = (off_t)sealed_size(descriptor->at, descriptor->entry), target;

    if (descriptor->kind == DESCRIPTOR_PATH)
        return fail(EBADF);
    switch (whence) {
    case SEEK_END:
        if (__builtin_add_overflow(length, offset, &target))
            return fail(EOVERFLOW);
        return target < 0 ? fail(EINVAL) : descriptor_seek(number, descriptor, target, SEEK_SET);
    case SEEK_DATA:
    case SEEK_HOLE:
        if (offset < 0 || offset >= length)
            return fail(ENXIO);
        return descriptor_seek(number, descriptor, whence == SEEK_DATA ? offset : length, SEEK_SET);
    default:
        return descriptor_seek(number, descriptor, offset, whence);
    }
}

HOOK ssize_t read(int number, void *out, size_t size) {
    struct descriptor descriptor;

    return sealed_file(number, &descriptor) ? read_sealed(number, &descriptor, out, size) : REAL(read)(number, out, size);
}

HOOK ssize_t pread(int number, void *out, size_t size, off_t offset) {
    struct descriptor descriptor;

    if (!sealed_file(number, &descriptor))
        return REAL(pread)(number, out, size, offset);
    return offset < 0 ? fail(EINVAL) : read_sealed_at(&descriptor, out, size, (uint64_t)offset);
}

ssize_t pread64(int number, void *out, size_t size, off64_t offset) SAME_AS(pread);

ssize_t __read_chk(int number, void *out, size_t size, size_t room);
ssize_t __pread_chk(int number, void *out, size_t size, off_t offset, size_t room);
ssize_t __pread64_chk(int number, void *out, size_t size, off_t offset, size_t room) SAME_AS(__pread_chk);

HOOK ssize_t __read_chk(int number, void *out, size_t size, size_t room) {
    if (size > room)
        stop("buffer overflow in read");
    return read(number, out, size);
}

HOOK ssize_t __pread_chk(int number, void *out, size_t size, off_t offset, size_t room) {
    if (size > room)
        stop("buffer overflow in pread");
    return pread(number, out, size, offset);
}

/* --- several buffers at once --- */

static ssize_t total_of(const struct iovec *pieces, int count) {
    size_t total = 0;

    if (count < 0 || count > IOV_MAX)
        return fail(EINVAL);
    for (int i = 0; i < count; i++)
        if (__builtin_add_overflow(total, pieces[i].iov_len, &total) || total > SSIZE_MAX)
            return fail(EINVAL);
    return (ssize_t)(total < KERNEL_MAX_READ ? total : KERNEL_MAX_READ);
}

/* Fills the buffers from `offset` on, `total` bytes at most. */
static ssize_t scatter(const struct descriptor *descriptor, const struct iovec *pieces, int count, size_t total,
                       uint64_t offset) {
    ssize_t done = 0;

    for (int i = 0; i < count && total > 0; i++) {
        size_t size = pieces[i].iov_len < total ? pieces[i].iov_len : total;
        ssize_t got = size == 0 ? 0 : read_sealed_at(descriptor, pieces[i].iov_base, size, offset);
        if (got < 0)
            return done != 0 ? done : got;
        done += got;
        offset += (uint64_t)got;
        total -= (size_t)got;
        if ((size_t)got < size)
            break;
    }
    return done;
}

static ssize_t preadv_sealed(const struct descriptor *descriptor, const struct iovec *pieces, int count, off_t offset) {
    ssize_t total = total_of(pieces, count);
    int error = unreadable(descriptor);

    if (error != 0 || total < 0)
        return error != 0 ? fail(error) : -1;
    return offset < 0 ? fail(EINVAL) : scatter(descriptor, pieces, count, (size_t)total, (uint64_t)offset);
}

static ssize_t readv_sealed(int number, const struct descriptor *descriptor, const struct iovec *pieces, int count) {
    ssize_t total = total_of(pieces, count);
    int error = unreadable(descriptor);

    if (error != 0 || total < 0)
        return error != 0 ? fail(error) : -1;
    size_t size = (size_t)total;
    int64_t offset = take_range(number, descriptor, &size);
    return offset < 0 ? -1 : scatter(descriptor, pieces, count, size, (uint64_t)offset);
}

HOOK ssize_t readv(int number, const struct iovec *pieces, int count) {
    struct descriptor descriptor;

    return sealed_file(number, &descriptor) ? readv_sealed(number, &descriptor, pieces, count)
                                            : REAL(readv)(number, pieces, count);
}

/* Passes on what the kernel answered, or does it with one call for each buffer: Gramine has no preadv and pwritev. */
static ssize_t vector(ssize_t answer, int number, const struct iovec *pieces, int count, off_t offset, int flags,
                      bool writes) {
    ssize_t done = 0;

    if (answer >= 0 || errno != ENOSYS || flags != 0)
        return answer;
    if (total_of(pieces, count) < 0)
        return -1;
    if (offset == -1)
        return writes ? REAL(writev)(number, pieces, count) : REAL(readv)(number, pieces, count);
    for (int i = 0; i < count; i++) {
        ssize_t moved = writes ? REAL(pwrite)(number, pieces[i].iov_base, pieces[i].iov_len, offset + done)
                               : REAL(pread)(number, pieces[i].iov_base, pieces[i].iov_len, offset + done);
        if (moved < 0)
            return done != 0 ? done : -1;
        done += moved;
        if ((size_t)moved != pieces[i].iov_len)
            break;
    }
    return done;
}

HOOK ssize_t preadv(int number, const struct iovec *pieces, int count, off_t offset) {
    struct descriptor descriptor;

    if (sealed_file(number, &descriptor))
        return preadv_sealed(&descriptor, pieces, count, offset);
    if (offset < 0)
        return fail(EINVAL);
    return vector(REAL(preadv)(number, pieces, count, offset), number, pieces, count, offset, 0, false);
}

ssize_t preadv64(int number, const struct iovec *pieces, int count, off64_t offset) SAME_AS(preadv);

HOOK ssize_t preadv2(int number, const struct iovec *pieces, int count, off_t offset, int flags) {
    struct descriptor descriptor;

    if (!sealed_file(number, &descriptor))
        return vector(REAL(preadv2)(number, pieces, count, offset, flags), number, pieces, count, offset, flags, false);
    if ((flags & ~(RWF_HIPRI | RWF_NOWAIT)) != 0)
        return fail(EOPNOTSUPP);
    return offset == -1 ? readv_sealed(number, &descriptor, pieces, count)
                        : preadv_sealed(&descriptor, pieces, count, offset);
}

ssize_t preadv64v2(int number, const struct iovec *pieces, int count, off64_t offset, int flags) SAME_AS(preadv2);

HOOK off_t lseek(int number, off_t offset, int whence) {
    struct descriptor descriptor;

    return sealed_file(number, &descriptor) ? seek_sealed(number, &descriptor, offset, whence)
                                            : REAL(lseek)(number, offset, whence);
}

off64_t lseek64(int number, off64_t offset, int whence) SAME_AS(lseek);

/* --- what a file that is open for reading refuses; the placeholder itself would take it --- */

HOOK ssize_t write(int number, const void *bytes, size_t size) {
    struct descriptor descriptor;

    return sealed_file(number, &descriptor) ? fail(EBADF) : REAL(write)(number, bytes, size);
}

HOOK ssize_t pwrite(int number, const void *bytes, size_t size, off_t offset) {
    struct descriptor descriptor;

    return sealed_file(number, &descriptor) ? fail(EBADF) : REAL(pwrite)(number, bytes, size, offset);
}

ssize_t pwrite64(int number, const void *bytes, size_t size, off64_t offset) SAME_AS(pwrite);

HOOK ssize_t writev(int number, const struct iovec *pieces, int count) {
    struct descriptor descriptor;

    return sealed_file(number, &descriptor) ? fail(EBADF) : REAL(writev)(number, pieces, count);
}

HOOK ssize_t pwritev(int number, const struct iovec *pieces, int count, off_t offset) {
    struct descriptor descriptor;

    if (sealed_file(number, &descriptor))
        return fail(EBADF);
    if (offset < 0)
        return fail(EINVAL);
    return vector(REAL(pwritev)(number, pieces, count, offset), number, pieces, count, offset, 0, true);
}

ssize_t pwritev64(int number, const struct iovec *pieces, int count, off64_t offset) SAME_AS(pwritev);

HOOK ssize_t pwritev2(int number, const struct iovec *pieces, int count, off_t offset, int flags) {
    struct descriptor descriptor;

    if (sealed_file(number, &descriptor))
        return fail(EBADF);
    return vector(REAL(pwritev2)(number, pieces, count, offset, flags), number, pieces, count, offset, flags, true);
}

ssize_t pwritev64v2(int number, const struct iovec *pieces, int count, off64_t offset, int flags) SAME_AS(pwritev2);

HOOK int ftruncate(int number, off_t length) {
    struct descriptor descriptor;

    return descriptor_find(number, &descriptor) ? fail(EINVAL) : REAL(ftruncate)(number, length);
}

int ftruncate64(int number, off64_t length) SAME_AS(ftruncate);

HOOK int fallocate(int number, int mode, off_t offset, off_t length) {
    struct descriptor descriptor;

    return descriptor_find(number, &descriptor) ? fail(EBADF) : REAL(fallocate)(number, mode, offset, length);
}

int fallocate64(int number, int mode, off64_t offset, off64_t length) SAME_AS(fallocate);

HOOK int posix_fallocate(int number, off_t offset, off_t length) {
    struct descriptor descriptor;

    return descriptor_find(number, &descriptor) ? EBADF : REAL(posix_fallocate)(number, offset, length);
}

int posix_fallocate64(int number, off64_t offset, off64_t length) SAME_AS(posix_fallocate);

HOOK ssize_t readahead(int number, off64_t offset, size_t count) {
    struct descriptor descriptor;

    return sealed_file(number, &descriptor) ? 0 : REAL(readahead)(number, offset, count);
}

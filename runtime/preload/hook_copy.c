/* sendfile, copy_file_range and splice out of a sealed file: read and write. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/sendfile.h>
#include <unistd.h>

#include "reads.h"
#include "real.h"

#define PIECE (256u << 10)

/* Copies up to `size` bytes. A NULL offset means the descriptor's own, which moves on. */
static ssize_t copy(int from, const struct descriptor *source, off_t *from_offset, int to, off_t *to_offset,
                    size_t size) {
    off_t start = from_offset != NULL ? *from_offset : descriptor_seek(from, source, 0, SEEK_CUR);
    size_t done = 0;
    ssize_t count = 0;
    uint8_t *piece = start < 0 ? NULL : malloc(PIECE);

    if (piece == NULL)
        return start < 0 ? fail(EINVAL) : -1;
    while (done < size) {
        size_t wanted = size - done < PIECE ? size - done : PIECE;
        ssize_t got = count = read_sealed_at(source, piece, wanted, (uint64_t)start + done);
        if (got > 0)
            count = to_offset != NULL ? pwrite(to, piece, (size_t)got, *to_offset + (off_t)done)
                                      : write(to, piece, (size_t)got);
        if (count <= 0)
            break;
        done += (size_t)count;
        if (count < got)
            break;
    }
    int error = errno;
    free(piece);
    errno = error;
    if (count < 0 && done == 0)
        return -1;
    if (from_offset != NULL)
        *from_offset = start + (off_t)done;
    else if (descriptor_seek(from, source, start + (off_t)done, SEEK_SET) < 0)
        return -1;
    if (to_offset != NULL)
        *to_offset += (off_t)done;
    return (ssize_t)done;
}

HOOK ssize_t sendfile(int to, int from, off_t *offset, size_t size) {
    struct descriptor source, target;

    if (sealed_file(to, &target))
        return fail(EBADF);
    return sealed_file(from, &source) ? copy(from, &source, offset, to, NULL, size)
                                      : REAL(sendfile)(to, from, offset, size);
}

ssize_t sendfile64(int to, int from, off64_t *offset, size_t size) SAME_AS(sendfile);

HOOK ssize_t copy_file_range(int from, off64_t *from_offset, int to, off64_t *to_offset, size_t size, unsigned flags) {
    struct descriptor source, target;

    if (sealed_file(to, &target))
        return fail(EBADF);
    if (!descriptor_find(from, &source)) /* a memory file, too: the kernel copies within one file system only */
        return REAL(copy_file_range)(from, from_offset, to, to_offset, size, flags);
    return flags != 0 ? fail(EINVAL) : copy(from, &source, from_offset, to, to_offset, size);
}

HOOK ssize_t splice(int from, off64_t *from_offset, int to, off64_t *to_offset, size_t size, unsigned flags) {
    struct descriptor source, target;

    if (sealed_file(to, &target))
        return fail(EBADF);
    if (!sealed_file(from, &source))
        return REAL(splice)(from, from_offset, to, to_offset, size, flags);
    return to_offset != NULL ? fail(ESPIPE) : copy(from, &source, from_offset, to, NULL, size);
}

/* Directories: opendir and what works on a DIR, scandir, getdents64. Items come in the provider's order.
 *
 * A sealed DIR is this library's own struct. libc's begins with a descriptor, which is never negative; that tells
 * them apart.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "damage.h"
#include "opens.h"
#include "place.h"
#include "reads.h"
#include "real.h"
#include "report.h"

#define OURS INT32_MIN /* where libc has the descriptor */

struct sealed_dir {
    int32_t mark;
    int number; /* -1 until somebody asks */
    struct attachment *at;
    uint32_t entry;
    uint64_t position; /* 0: ".", 1: "..", then the children */
    struct dirent item;
};

static struct sealed_dir *ours(DIR *dir) {
    int32_t mark;

    memcpy(&mark, (const void *)dir, sizeof mark);
    return mark == OURS ? (struct sealed_dir *)(void *)dir : NULL;
}

static DIR *no_dir(int error) {
    errno = error;
    return NULL;
}

static DIR *make_dir(struct attachment *at, uint32_t entry, int number) {
    struct sealed_dir *dir = calloc(1, sizeof *dir);

    if (dir == NULL)
        return no_dir(ENOMEM);
    dir->mark = OURS;
    dir->number = number;
    dir->at = at;
    dir->entry = entry;
    return (DIR *)(void *)dir;
}

static DIR *open_dir(struct attachment *at, uint32_t entry) {
    struct stat status;
    int error = sealfs_stat(at->core, entry, &status);

    if (error != 0) {
        refuse_damaged(at, error);
        return NULL;
    }
    if (!S_ISDIR(status.st_mode))
        return no_dir(ENOTDIR);
    return geteuid() != 0 && (status.st_mode & S_IRUSR) == 0 ? no_dir(EACCES) : make_dir(at, entry, -1);
}

HOOK DIR *opendir(const char *path) {
    struct place place;
    struct stat status;
    DIR *dir;

    place_find(&place, AT_FDCWD, path, PLACE_FOLLOW);
    do {
        if (place.kind == PLACE_SEALED)
            return open_dir(place.at, place.entry);
        if (place.kind == PLACE_FAILED)
            return no_dir(place.error);
        dir = REAL(opendir)(place.path);
    } while (dir == NULL && place_again(&place));
    if (dir != NULL && anything_attached() && REAL(fstat)(REAL(dirfd)(dir), &status) == 0 &&
        place_is_mount(&place, &status)) {
        REAL(closedir)(dir);
        return open_dir(place.at, place.entry);
    }
    return dir;
}

HOOK DIR *fdopendir(int number) {
    struct descriptor descriptor;

    if (!descriptor_find(number, &descriptor))
        return REAL(fdopendir)(number);
    if (descriptor.kind == DESCRIPTOR_PATH)
        return no_dir(EBADF);
    return descriptor.kind == DESCRIPTOR_DIRECTORY ? make_dir(descriptor.at, descriptor.entry, number)
                                                   : no_dir(ENOTDIR);
}

/* Fills in item `position` of a directory. Returns 1, 0 at the end, or -1 with errno set. */
static int item_at(struct attachment *at, uint32_t directory, uint64_t position, struct dirent *out) {
    struct sealfs_item item = {.entry = directory, .mode = S_IFDIR, .name = "..", .length = position + 1};
    uint32_t parent;
    int found = 1;

    if (position == 1 && sealfs_parent(at->core, directory, &parent) == 0)
        item.entry = parent;
    if (position >= 2)
        found = sealfs_readdir(at->core, directory, position - 2, &item);
    if (found < 0)
        stop_damaged(at, found); /* an error after some names looks like the end of the list */
    if (found == 0)
        return 0;
    out->d_ino = (ino_t)item.entry + 1;
    out->d_off = (off_t)position + 1;
    out->d_type = (unsigned char)IFTODT(item.mode);
    memcpy(out->d_name, item.name, item.length);
    out->d_name[item.length] = '\0';
    out->d_reclen = (unsigned short)((offsetof(struct dirent, d_name) + item.length + 1 + 7) & ~(size_t)7);
    return 1;
}

HOOK struct dirent *readdir(DIR *stream) {
    struct sealed_dir *dir = ours(stream);

    if (dir == NULL)
        return REAL(readdir)(stream);
    if (item_at(dir->at, dir->entry, dir->position, &dir->item) != 1)
        return NULL;
    dir->position++;
    return &dir->item;
}

#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
HOOK int readdir_r(DIR *stream, struct dirent *item, struct dirent **result) {
    struct sealed_dir *dir = ours(stream);

    if (dir == NULL)
        return REAL(readdir_r)(stream, item, result);
    int found = item_at(dir->at, dir->entry, dir->position, item);
    dir->position += found == 1;
    *result = found == 1 ? item : NULL;
    return 0;
}

struct dirent64 *readdir64(DIR *stream) SAME_AS(readdir);
int readdir64_r(DIR *stream, struct dirent64 *item, struct dirent64 **result) SAME_AS(readdir_r);

HOOK int closedir(DIR *stream) {
    struct sealed_dir *dir = ours(stream);

    if (dir == NULL)
        return REAL(closedir)(stream);
    int result = dir->number < 0 ? 0 : REAL(close)(dir->number);
    free(dir);
    return result;
}

HOOK void rewinddir(DIR *stream) {
    struct sealed_dir *dir = ours(stream);

    if (dir == NULL)
        REAL(rewinddir)(stream);
    else
        dir->position = 0;
}

HOOK long telldir(DIR *stream) {
    struct sealed_dir *dir = ours(stream);

    return dir == NULL ? REAL(telldir)(stream) : (long)dir->position;
}

HOOK void seekdir(DIR *stream, long position) {
    struct sealed_dir *dir = ours(stream);

    if (dir == NULL)
        REAL(seekdir)(stream, position);
    else
        dir->position = (uint64_t)position;
}

HOOK int dirfd(DIR *stream) {
    struct sealed_dir *dir = ours(stream);

    if (dir == NULL)
        return REAL(dirfd)(stream);
    if (dir->number < 0)
        dir->number = open_sealed(dir->at, dir->entry, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return dir->number;
}

HOOK ssize_t getdents64(int number, void *buffer, size_t size) {
    struct descriptor descriptor;
    struct dirent item;
    size_t used = 0;

    if (!descriptor_find(number, &descriptor) || descriptor.kind == DESCRIPTOR_REAL)
        return REAL(getdents64)(number, buffer, size);
    if (descriptor.kind != DESCRIPTOR_DIRECTORY)
        return fail(descriptor.kind == DESCRIPTOR_PATH ? EBADF : ENOTDIR);
    off_t position = REAL(lseek)(number, 0, SEEK_CUR);
    if (position < 0)
        return -1;
    while (item_at(descriptor.at, descriptor.entry, (uint64_t)position, &item) == 1) {
        if (used + item.d_reclen > size) {
            if (used == 0)
                return fail(EINVAL);
            break;
        }
        memcpy((char *)buffer + used, &item, item.d_reclen);
        used += item.d_reclen;
        position++;
    }
    return REAL(lseek)(number, position, SEEK_SET) < 0 ? -1 : (ssize_t)used;
}

#ifndef __GLIBC__
int getdents(int number, struct dirent *buffer, size_t size) SAME_AS(getdents64);
#endif

/* --- scandir: over the above, as libc's own does not pass through it --- */

typedef int (*selector)(const struct dirent *);
typedef int (*comparison)(const struct dirent **, const struct dirent **);

static int collect(DIR *stream, struct dirent ***list, selector wanted, comparison order) {
    struct dirent **items = NULL, *item;
    size_t count = 0, room = 0;

    errno = 0;
    while ((item = readdir(stream)) != NULL) {
        if (wanted != NULL && !wanted(item))
            continue;
        if (count == room) {
            struct dirent **larger = realloc(items, (room = room * 2 + 16) * sizeof *items);
            if (larger == NULL)
                break;
            items = larger;
        }
        struct dirent *copy = malloc(item->d_reclen);
        if (copy == NULL)
            break;
        items[count++] = memcpy(copy, item, item->d_reclen);
        errno = 0;
    }
    if (item != NULL || errno != 0) {
        int error = item != NULL ? ENOMEM : errno;
        while (count > 0)
            free(items[--count]);
        free(items);
        return fail(error);
    }
    if (order != NULL && count > 1)
        qsort(items, count, sizeof *items, (int (*)(const void *, const void *))order);
    *list = items;
    return (int)count;
}

HOOK int scandirat(int dirfd, const char *path, struct dirent ***list, selector wanted, comparison order) {
    int number = open_anywhere(dirfd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    DIR *stream = number < 0 ? NULL : fdopendir(number);

    if (stream == NULL) {
        int error = errno;
        if (number >= 0)
            close(number);
        return fail(error);
    }
    int count = collect(stream, list, wanted, order), error = errno;
    closedir(stream);
    errno = error;
    return count;
}

HOOK int scandir(const char *path, struct dirent ***list, selector wanted, comparison order) {
    return scandirat(AT_FDCWD, path, list, wanted, order);
}

typedef int (*selector64)(const struct dirent64 *);
typedef int (*comparison64)(const struct dirent64 **, const struct dirent64 **);
int scandir64(const char *path, struct dirent64 ***list, selector64 wanted, comparison64 order) SAME_AS(scandir);
int scandirat64(int dirfd, const char *path, struct dirent64 ***list, selector64 wanted, comparison64 order)
    SAME_AS(scandirat);

/* open, openat, creat and close, with all their names. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "damage.h"
#include "opens.h"
#include "place.h"
#include "real.h"
#include "report.h"

#define NEEDS_MODE(flags) (((flags) & O_CREAT) != 0 || ((flags) & O_TMPFILE) == O_TMPFILE)

static int refusal(const struct stat *status, int flags) {
    bool directory = S_ISDIR(status->st_mode), changes = (flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC) != 0;

    if ((flags & O_PATH) != 0)
        return (flags & O_DIRECTORY) != 0 && !directory ? ENOTDIR : 0;
    if ((flags & (O_CREAT | O_EXCL)) == (O_CREAT | O_EXCL))
        return EEXIST;
    if (S_ISLNK(status->st_mode))
        return ELOOP;
    if ((flags & O_TMPFILE) == O_TMPFILE)
        return directory ? EROFS : ENOTDIR;
    if ((flags & O_DIRECTORY) != 0 && !directory)
        return ENOTDIR;
    if (directory && (changes || (flags & O_CREAT) != 0))
        return EISDIR;
    if (changes)
        return EROFS;
    if (!directory && !S_ISREG(status->st_mode))
        return ENXIO;
    return (status->st_mode & S_IRUSR) == 0 && geteuid() != 0 ? EACCES : 0;
}

int open_sealed(struct attachment *at, uint32_t entry, int flags) {
    struct descriptor made = {at, entry, DESCRIPTOR_FILE, flags, 0};
    struct stat status;
    int error = sealfs_stat(at->core, entry, &status);

    if (error != 0)
        return refuse_damaged(at, error);
    if ((error = refusal(&status, flags)) != 0)
        return fail(error);
    if ((flags & O_PATH) != 0)
        made.kind = DESCRIPTOR_PATH;
    else if (S_ISDIR(status.st_mode))
        made.kind = DESCRIPTOR_DIRECTORY;
    else if ((error = sealfs_prepare(at->core, entry)) != 0)
        return refuse_damaged(at, error);
    else if ((at->flags & SEALFS_REAL_FILES) != 0)
        return descriptor_materialise(at, entry, flags);
    return descriptor_new(&made, flags);
}

bool creates_inside(int dirfd, const char *path) {
    struct place place;
    char folder[PATH_MAX];
    struct stat status;
    int error = errno;
    bool inside = false;

    if (path == NULL || !anything_attached())
        return false;
    place_find(&place, dirfd, path, 0);
    if (place.kind != PLACE_REAL)
        return place.kind == PLACE_SEALED || place.at != NULL;
    /* a link elsewhere that leads to the mount path: the kernel would make the file in the empty directory there */
    size_t length = strlen(place.path);
    while (length > 0 && place.path[length - 1] == '/')
        length--;
    while (length > 0 && place.path[length - 1] != '/')
        length--;
    if (length < sizeof folder) {
        memcpy(folder, length == 0 ? "." : place.path, length == 0 ? 1 : length);
        folder[length == 0 ? 1 : length] = '\0';
        if (REAL(fstatat)(place.dirfd, folder, &status, 0) == 0)
            inside = attachment_at(&status) != NULL;
        else if (place_again(&place))
            inside = place.kind == PLACE_SEALED || place.at != NULL;
    }
    errno = error;
    return inside;
}

int open_anywhere(int dirfd, const char *path, int flags, mode_t mode) {
    bool creates = (flags & O_CREAT) != 0;
    bool follows = (flags & O_NOFOLLOW) == 0 && (flags & (O_CREAT | O_EXCL)) != (O_CREAT | O_EXCL);
    struct place place;
    int number;

    place_find(&place, dirfd, path, follows ? PLACE_FOLLOW : 0);
    if (creates && place.kind == PLACE_REAL && creates_inside(place.dirfd, place.path)) {
        errno = ENOENT; /* look where the link leads */
        if (!place_again(&place))
            return fail(EROFS);
    }
    do {
        if (place.kind == PLACE_SEALED)
            return open_sealed(place.at, place.entry, flags);
        if (place.kind == PLACE_FAILED)
            return fail(creates && place.missing_last && place.at != NULL ? EROFS : place.error);
        number = REAL(openat)(place.dirfd, place.path, flags, mode);
    } while (number < 0 && place_again(&place));
    struct stat status;
    if (number >= 0 && !creates && anything_attached() && REAL(fstat)(number, &status) == 0 &&
        place_is_mount(&place, &status)) {
        REAL(close)(number);
        return open_sealed(place.at, place.entry, flags);
    }
    return number;
}

static mode_t mode_of(int flags, va_list arguments) {
    return NEEDS_MODE(flags) ? va_arg(arguments, mode_t) : 0;
}

HOOK int openat(int dirfd, const char *path, int flags, ...) {
    va_list arguments;

    va_start(arguments, flags);
    mode_t mode = mode_of(flags, arguments);
    va_end(arguments);
    return open_anywhere(dirfd, path, flags, mode);
}

HOOK int open(const char *path, int flags, ...) {
    va_list arguments;

    va_start(arguments, flags);
    mode_t mode = mode_of(flags, arguments);
    va_end(arguments);
    return open_anywhere(AT_FDCWD, path, flags, mode);
}

HOOK int open64(const char *path, int flags, ...) SAME_AS(open);
HOOK int openat64(int dirfd, const char *path, int flags, ...) SAME_AS(openat);
int __open_2(const char *path, int flags);
int __openat_2(int dirfd, const char *path, int flags);

HOOK int __open_2(const char *path, int flags) {
    return open_anywhere(AT_FDCWD, path, flags, 0);
}

HOOK int __openat_2(int dirfd, const char *path, int flags) {
    return open_anywhere(dirfd, path, flags, 0);
}

int __open64_2(const char *path, int flags) SAME_AS(__open_2);
int __openat64_2(int dirfd, const char *path, int flags) SAME_AS(__openat_2);

HOOK int creat(const char *path, mode_t mode) {
    return open_anywhere(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

int creat64(const char *path, mode_t mode) SAME_AS(creat);

/* --- closing: the library's own descriptors are none of the application's --- */

HOOK int close(int number) {
    return private_is(number) ? fail(EBADF) : REAL(close)(number);
}

HOOK int close_range(unsigned first, unsigned last, int flags) {
    unsigned from = first;

    for (int own = private_next((int)(first > INT_MAX ? INT_MAX : first) - 1); own >= 0 && (unsigned)own <= last;
         own = private_next(own)) {
        if ((unsigned)own > from && REAL(close_range)(from, (unsigned)own - 1, flags) != 0)
            return -1;
        from = (unsigned)own + 1;
    }
    return from > last && from != first ? 0 : REAL(close_range)(from, last, flags);
}

HOOK void closefrom(int first) {
    if (close_range((unsigned)(first < 0 ? 0 : first), ~0u, 0) == 0)
        return;
    REAL(closefrom)(first); /* a kernel without close_range: the state is written anew for the next child */
}

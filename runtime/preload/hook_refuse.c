/* What changes files: a sealed tree is a read-only file system, so EROFS (or what comes before it). */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/xattr.h>
#include <unistd.h>
#include <utime.h>

#include "descriptors.h"
#include "opens.h"
#include "place.h"
#include "real.h"
#include "report.h"

static int refused(const struct place *place, int if_there, bool creates) {
    if (place->kind == PLACE_SEALED)
        return fail(if_there);
    return fail(creates && place->missing_last && place->at != NULL ? EROFS : place->error);
}

/* A hook for a call that changes what is at a path. */
#define CHANGES(name, parameters, dirfd_, path_, flags_, call)                                                     \
    HOOK int name parameters {                                                                                     \
        struct place place;                                                                                        \
        int result;                                                                                                \
        place_find(&place, dirfd_, path_, flags_);                                                                 \
        do {                                                                                                       \
            if (place.kind != PLACE_REAL)                                                                          \
                return refused(&place, EROFS, false);                                                              \
            result = call;                                                                                         \
        } while (result != 0 && place_again(&place));                                                              \
        return result;                                                                                             \
    }

/* A hook for a call that makes something at a path. */
#define CREATES(name, parameters, dirfd_, path_, call)                                                             \
    HOOK int name parameters {                                                                                     \
        struct place place;                                                                                        \
        int result;                                                                                                \
        place_find(&place, dirfd_, path_, 0);                                                                      \
        if (place.kind == PLACE_REAL && creates_inside(dirfd_, path_))                                             \
            return fail(EROFS);                                                                                    \
        do {                                                                                                       \
            if (place.kind != PLACE_REAL)                                                                          \
                return refused(&place, EEXIST, true);                                                              \
            result = call;                                                                                         \
        } while (result != 0 && place_again(&place));                                                              \
        return result;                                                                                             \
    }

#define FOLLOW_UNLESS(flags) ((flags) & AT_SYMLINK_NOFOLLOW ? 0 : PLACE_FOLLOW)
#define EMPTY_IF(flags) ((flags) & AT_EMPTY_PATH ? PLACE_EMPTY : 0)

CREATES(mkdir, (const char *path, mode_t mode), AT_FDCWD, path, REAL(mkdir)(place.path, mode))
CREATES(mkdirat, (int dirfd, const char *path, mode_t mode), dirfd, path, REAL(mkdirat)(place.dirfd, place.path, mode))
CREATES(mknod, (const char *path, mode_t mode, dev_t device), AT_FDCWD, path, REAL(mknod)(place.path, mode, device))
CREATES(mknodat, (int dirfd, const char *path, mode_t mode, dev_t device), dirfd, path,
        REAL(mknodat)(place.dirfd, place.path, mode, device))
CREATES(mkfifo, (const char *path, mode_t mode), AT_FDCWD, path, REAL(mkfifo)(place.path, mode))
CREATES(mkfifoat, (int dirfd, const char *path, mode_t mode), dirfd, path,
        REAL(mkfifoat)(place.dirfd, place.path, mode))
CREATES(symlink, (const char *target, const char *path), AT_FDCWD, path, REAL(symlink)(target, place.path))
CREATES(symlinkat, (const char *target, int dirfd, const char *path), dirfd, path,
        REAL(symlinkat)(target, place.dirfd, place.path))

CHANGES(rmdir, (const char *path), AT_FDCWD, path, 0, REAL(rmdir)(place.path))
CHANGES(unlink, (const char *path), AT_FDCWD, path, 0, REAL(unlink)(place.path))
CHANGES(unlinkat, (int dirfd, const char *path, int flags), dirfd, path, 0,
        REAL(unlinkat)(place.dirfd, place.path, flags))
CHANGES(remove, (const char *path), AT_FDCWD, path, 0, REAL(remove)(place.path))
CHANGES(truncate, (const char *path, off_t length), AT_FDCWD, path, PLACE_FOLLOW, REAL(truncate)(place.path, length))
int truncate64(const char *path, off64_t length) SAME_AS(truncate);
CHANGES(chmod, (const char *path, mode_t mode), AT_FDCWD, path, PLACE_FOLLOW, REAL(chmod)(place.path, mode))
CHANGES(fchmodat, (int dirfd, const char *path, mode_t mode, int flags), dirfd, path, FOLLOW_UNLESS(flags),
        REAL(fchmodat)(place.dirfd, place.path, mode, flags))
CHANGES(chown, (const char *path, uid_t user, gid_t group), AT_FDCWD, path, PLACE_FOLLOW,
        REAL(chown)(place.path, user, group))
CHANGES(lchown, (const char *path, uid_t user, gid_t group), AT_FDCWD, path, 0, REAL(lchown)(place.path, user, group))
CHANGES(fchownat, (int dirfd, const char *path, uid_t user, gid_t group, int flags), dirfd, path,
        FOLLOW_UNLESS(flags) | EMPTY_IF(flags), REAL(fchownat)(place.dirfd, place.path, user, group, flags))
CHANGES(utime, (const char *path, const struct utimbuf *times), AT_FDCWD, path, PLACE_FOLLOW,
        REAL(utime)(place.path, times))
CHANGES(utimes, (const char *path, const struct timeval times[2]), AT_FDCWD, path, PLACE_FOLLOW,
        REAL(utimes)(place.path, times))
CHANGES(lutimes, (const char *path, const struct timeval times[2]), AT_FDCWD, path, 0,
        REAL(lutimes)(place.path, times))
CHANGES(setxattr, (const char *path, const char *name, const void *value, size_t size, int flags), AT_FDCWD, path,
        PLACE_FOLLOW, REAL(setxattr)(place.path, name, value, size, flags))
CHANGES(lsetxattr, (const char *path, const char *name, const void *value, size_t size, int flags), AT_FDCWD, path, 0,
        REAL(lsetxattr)(place.path, name, value, size, flags))
CHANGES(removexattr, (const char *path, const char *name), AT_FDCWD, path, PLACE_FOLLOW,
        REAL(removexattr)(place.path, name))
CHANGES(lremovexattr, (const char *path, const char *name), AT_FDCWD, path, 0, REAL(lremovexattr)(place.path, name))

/* --- the same by descriptor --- */

#define CHANGES_OPEN(name, parameters, call)                                                                       \
    HOOK int name parameters {                                                                                     \
        struct descriptor descriptor;                                                                              \
        return descriptor_find(number, &descriptor) ? fail(EROFS) : call;                                          \
    }

CHANGES_OPEN(fchmod, (int number, mode_t mode), REAL(fchmod)(number, mode))
CHANGES_OPEN(fchown, (int number, uid_t user, gid_t group), REAL(fchown)(number, user, group))
CHANGES_OPEN(futimens, (int number, const struct timespec times[2]), REAL(futimens)(number, times))
CHANGES_OPEN(futimes, (int number, const struct timeval times[2]), REAL(futimes)(number, times))
CHANGES_OPEN(fsetxattr, (int number, const char *name, const void *value, size_t size, int flags),
             REAL(fsetxattr)(number, name, value, size, flags))
CHANGES_OPEN(fremovexattr, (int number, const char *name), REAL(fremovexattr)(number, name))

/* With no path these two mean the descriptor. */
HOOK int utimensat(int dirfd, const char *path, const struct timespec times[2], int flags) {
    struct descriptor descriptor;
    struct place place;
    int result;

    if (descriptor_find(dirfd, &descriptor) && (uintptr_t)path == 0)
        return fail(EROFS);
    place_find(&place, dirfd, path, FOLLOW_UNLESS(flags));
    do {
        if (place.kind != PLACE_REAL)
            return refused(&place, EROFS, false);
        result = REAL(utimensat)(place.dirfd, place.path, times, flags);
    } while (result != 0 && place_again(&place));
    return result;
}

HOOK int futimesat(int dirfd, const char *path, const struct timeval times[2]) {
    struct descriptor descriptor;
    struct place place;
    int result;

    if (descriptor_find(dirfd, &descriptor) && path == NULL)
        return fail(EROFS);
    place_find(&place, dirfd, path, PLACE_FOLLOW);
    do {
        if (place.kind != PLACE_REAL)
            return refused(&place, EROFS, false);
        result = REAL(futimesat)(place.dirfd, place.path, times);
    } while (result != 0 && place_again(&place));
    return result;
}

/* --- two paths: between a sealed tree and anything else there is a border of file systems --- */

static int refuse_pair(const struct place *from, const struct place *to) {
    if (from->kind == PLACE_FAILED)
        return fail(from->error);
    bool to_inside = to->kind == PLACE_SEALED || (to->kind == PLACE_FAILED && to->at != NULL && to->missing_last);
    if (to->kind == PLACE_FAILED && !to_inside)
        return fail(to->error);
    bool from_inside = from->kind == PLACE_SEALED;
    return fail(from_inside && to_inside ? EROFS : EXDEV);
}

static void find_pair(struct place *from, int from_dir, const char *from_path, struct place *to, int to_dir,
                      const char *to_path, unsigned flags) {
    struct stat status;

    place_find(from, from_dir, from_path, flags);
    place_find(to, to_dir, to_path, 0);
    if (from->kind == PLACE_REAL && from->path != NULL && anything_attached() &&
        REAL(fstatat)(from->dirfd, from->path, &status, AT_SYMLINK_NOFOLLOW) != 0)
        place_again(from);
    if (to->kind == PLACE_REAL && creates_inside(to_dir, to_path)) {
        errno = ENOENT;
        place_again(to);
    }
}

HOOK int renameat2(int from_dir, const char *from_path, int to_dir, const char *to_path, unsigned flags) {
    struct place from, to;

    find_pair(&from, from_dir, from_path, &to, to_dir, to_path, 0);
    return from.kind == PLACE_REAL && to.kind == PLACE_REAL
               ? REAL(renameat2)(from.dirfd, from.path, to.dirfd, to.path, flags)
               : refuse_pair(&from, &to);
}

HOOK int renameat(int from_dir, const char *from_path, int to_dir, const char *to_path) {
    struct place from, to;

    find_pair(&from, from_dir, from_path, &to, to_dir, to_path, 0);
    return from.kind == PLACE_REAL && to.kind == PLACE_REAL ? REAL(renameat)(from.dirfd, from.path, to.dirfd, to.path)
                                                            : refuse_pair(&from, &to);
}

HOOK int rename(const char *from, const char *to) {
    return renameat(AT_FDCWD, from, AT_FDCWD, to);
}

HOOK int linkat(int from_dir, const char *from_path, int to_dir, const char *to_path, int flags) {
    struct place from, to;

    find_pair(&from, from_dir, from_path, &to, to_dir, to_path,
              ((flags & AT_SYMLINK_FOLLOW) != 0 ? PLACE_FOLLOW : 0) | EMPTY_IF(flags));
    return from.kind == PLACE_REAL && to.kind == PLACE_REAL
               ? REAL(linkat)(from.dirfd, from.path, to.dirfd, to.path, flags)
               : refuse_pair(&from, &to);
}

HOOK int link(const char *from, const char *to) {
    return linkat(AT_FDCWD, from, AT_FDCWD, to, 0);
}

/* --- names made up by libc --- */

#define MAKES_UP(result, name, parameters, failed, call)                                                           \
    HOOK result name parameters {                                                                                  \
        if (creates_inside(AT_FDCWD, pattern)) {                                                                   \
            errno = EROFS;                                                                                         \
            return failed;                                                                                         \
        }                                                                                                          \
        return call;                                                                                               \
    }

MAKES_UP(int, mkstemp, (char *pattern), -1, REAL(mkstemp)(pattern))
MAKES_UP(int, mkostemp, (char *pattern, int flags), -1, REAL(mkostemp)(pattern, flags))
MAKES_UP(int, mkstemps, (char *pattern, int suffix), -1, REAL(mkstemps)(pattern, suffix))
MAKES_UP(int, mkostemps, (char *pattern, int suffix, int flags), -1, REAL(mkostemps)(pattern, suffix, flags))
MAKES_UP(char *, mkdtemp, (char *pattern), NULL, REAL(mkdtemp)(pattern))
int mkstemp64(char *pattern) SAME_AS(mkstemp);
int mkostemp64(char *pattern, int flags) SAME_AS(mkostemp);
int mkstemps64(char *pattern, int suffix) SAME_AS(mkstemps);
int mkostemps64(char *pattern, int suffix, int flags) SAME_AS(mkostemps);

/* --- what is not served --- */

HOOK int inotify_add_watch(int number, const char *path, uint32_t mask) {
    struct place place;

    place_find(&place, AT_FDCWD, path, PLACE_FOLLOW);
    if (place.kind == PLACE_REAL)
        return REAL(inotify_add_watch)(number, path, mask);
    unserved("inotify_add_watch", path);
    return fail(place.kind == PLACE_FAILED ? place.error : ENOSYS);
}

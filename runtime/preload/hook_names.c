/* What asks about a name without opening it: access, readlink, realpath, the current directory, attributes. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "cwd.h"
#include "damage.h"
#include "descriptors.h"
#include "inherit.h"
#include "place.h"
#include "real.h"
#include "report.h"
#include "stats.h"

static int access_sealed(struct attachment *at, uint32_t entry, int mode, uid_t user) {
    struct stat status;

    if ((mode & ~(R_OK | W_OK | X_OK)) != 0)
        return fail(EINVAL);
    if (stat_sealed(at, entry, &status) != 0)
        return -1;
    if ((mode & W_OK) != 0)
        return fail(EROFS);
    bool may_read = user == 0 || (status.st_mode & S_IRUSR) != 0;
    bool may_execute = (status.st_mode & S_IXUSR) != 0 ||
                       (user == 0 && (S_ISDIR(status.st_mode) || (status.st_mode & (S_IXGRP | S_IXOTH)) != 0));
    return ((mode & R_OK) != 0 && !may_read) || ((mode & X_OK) != 0 && !may_execute) ? fail(EACCES) : 0;
}

HOOK int faccessat(int dirfd, const char *path, int mode, int flags) {
    struct place place;
    int result;

    place_find(&place, dirfd, path,
               ((flags & AT_SYMLINK_NOFOLLOW) != 0 ? 0 : PLACE_FOLLOW) | ((flags & AT_EMPTY_PATH) != 0 ? PLACE_EMPTY : 0));
    do {
        if (place.kind == PLACE_SEALED)
            return access_sealed(place.at, place.entry, mode, (flags & AT_EACCESS) != 0 ? geteuid() : getuid());
        if (place.kind == PLACE_FAILED)
            return fail(place.error);
        result = REAL(faccessat)(place.dirfd, place.path, mode, flags);
    } while (result != 0 && place_again(&place));
    return result;
}

HOOK int access(const char *path, int mode) {
    return faccessat(AT_FDCWD, path, mode, 0);
}

HOOK int eaccess(const char *path, int mode) {
    return faccessat(AT_FDCWD, path, mode, AT_EACCESS);
}

HOOK int euidaccess(const char *path, int mode) {
    return faccessat(AT_FDCWD, path, mode, AT_EACCESS);
}

/* --- links --- */

static ssize_t readlink_sealed(const struct place *place, char *out, size_t size) {
    const char *target;
    char path[PATH_MAX];
    ssize_t length;

    if (place->dereferenced) { /* /proc/self/fd/N: where the descriptor leads */
        int error = full_path(place->at, place->entry, path, sizeof path);
        if (error != 0)
            return fail(error);
        target = path;
        length = (ssize_t)strlen(path);
    } else if ((length = sealfs_readlink(place->at->core, place->entry, &target)) < 0)
        return refuse_damaged(place->at, (int)length);
    if (size == 0)
        return fail(EINVAL);
    size_t count = (size_t)length < size ? (size_t)length : size;
    memcpy(out, target, count);
    return (ssize_t)count;
}

HOOK ssize_t readlinkat(int dirfd, const char *path, char *out, size_t size) {
    struct place place;
    ssize_t result;

    place_find(&place, dirfd, path, PLACE_EMPTY | PLACE_LINK);
    do {
        if (place.kind == PLACE_SEALED)
            return readlink_sealed(&place, out, size);
        if (place.kind == PLACE_FAILED)
            return fail(place.error);
        result = REAL(readlinkat)(place.dirfd, place.path, out, size);
    } while (result < 0 && place_again(&place));
    return result;
}

HOOK ssize_t readlink(const char *path, char *out, size_t size) {
    return readlinkat(AT_FDCWD, path, out, size);
}

ssize_t __readlink_chk(const char *path, char *out, size_t size, size_t room);
ssize_t __readlinkat_chk(int dirfd, const char *path, char *out, size_t size, size_t room);

HOOK ssize_t __readlink_chk(const char *path, char *out, size_t size, size_t room) {
    if (size > room)
        stop("buffer overflow in readlink");
    return readlink(path, out, size);
}

HOOK ssize_t __readlinkat_chk(int dirfd, const char *path, char *out, size_t size, size_t room) {
    if (size > room)
        stop("buffer overflow in readlinkat");
    return readlinkat(dirfd, path, out, size);
}

HOOK char *realpath(const char *path, char *out) {
    struct place place;
    char found[PATH_MAX], *result;

    place_find(&place, AT_FDCWD, path, PLACE_FOLLOW);
    do {
        int error = place.kind == PLACE_FAILED ? place.error : 0;
        if (place.kind == PLACE_SEALED && (error = full_path(place.at, place.entry, found, sizeof found)) == 0)
            return out != NULL ? strcpy(out, found) : strdup(found);
        if (error != 0) {
            errno = error;
            return NULL;
        }
        result = REAL(realpath)(place.path, out);
    } while (result == NULL && place_again(&place));
    return result;
}

char *__realpath_chk(const char *path, char *out, size_t room);

HOOK char *__realpath_chk(const char *path, char *out, size_t room) {
    if (room < PATH_MAX)
        stop("buffer overflow in realpath");
    return realpath(path, out);
}

HOOK char *canonicalize_file_name(const char *path) {
    return realpath(path, NULL);
}

/* --- the current directory: the kernel's is the mount path while this library's is in the tree --- */

static int change_sealed(struct attachment *at, uint32_t entry) {
    struct stat status;

    if (stat_sealed(at, entry, &status) != 0)
        return -1;
    if (!S_ISDIR(status.st_mode))
        return fail(ENOTDIR);
    if (geteuid() != 0 && (status.st_mode & S_IXUSR) == 0)
        return fail(EACCES);
    if (REAL(chdir)(at->mount) != 0)
        return -1;
    if (set_sealed_cwd(at, entry))
        inherit_publish();
    return 0;
}

static void note_real_cwd(void) {
    struct stat here;

    if (anything_attached() &&
        set_sealed_cwd(REAL(stat)(".", &here) == 0 ? attachment_at(&here) : NULL, SEALFS_ROOT))
        inherit_publish();
}

HOOK int chdir(const char *path) {
    struct place place;
    int result;

    place_find(&place, AT_FDCWD, path, PLACE_FOLLOW);
    do {
        if (place.kind == PLACE_SEALED)
            return change_sealed(place.at, place.entry);
        if (place.kind == PLACE_FAILED)
            return fail(place.error);
        result = REAL(chdir)(place.path);
    } while (result != 0 && place_again(&place));
    if (result == 0)
        note_real_cwd();
    return result;
}

HOOK int fchdir(int number) {
    struct descriptor descriptor;

    if (descriptor_find(number, &descriptor))
        return change_sealed(descriptor.at, descriptor.entry);
    int result = REAL(fchdir)(number);
    if (result == 0)
        note_real_cwd();
    return result;
}

HOOK char *getcwd(char *out, size_t size) {
    struct sealed_cwd cwd = get_sealed_cwd();
    struct stat here;
    char path[PATH_MAX];

    if (cwd.at == NULL || REAL(stat)(".", &here) != 0 || attachment_at(&here) != cwd.at)
        return REAL(getcwd)(out, size);
    int error = full_path(cwd.at, cwd.entry, path, sizeof path);
    size_t needed = error == 0 ? strlen(path) + 1 : 0;
    if (error == 0 && out != NULL && size == 0)
        error = EINVAL;
    if (error == 0 && size != 0 && needed > size)
        error = ERANGE;
    if (error == 0 && out == NULL && (out = malloc(size != 0 ? size : needed)) == NULL)
        error = ENOMEM;
    if (error == 0)
        return memcpy(out, path, needed);
    errno = error;
    return NULL;
}

char *__getcwd_chk(char *out, size_t size, size_t room);

HOOK char *__getcwd_chk(char *out, size_t size, size_t room) {
    if (size > room)
        stop("buffer overflow in getcwd");
    return getcwd(out, size);
}

HOOK char *get_current_dir_name(void) {
    return getcwd(NULL, 0);
}

/* --- extended attributes: a sealed file has none --- */

static int attributes_of(const char *path, unsigned flags, struct place *place) {
    place_find(place, AT_FDCWD, path, flags);
    if (place->kind == PLACE_FAILED)
        return fail(place->error);
    return place->kind == PLACE_SEALED;
}

#define GET_ATTRIBUTE(name, flags)                                                                                 \
    HOOK ssize_t name(const char *path, const char *attribute, void *value, size_t size) {                         \
        struct place place;                                                                                        \
        int sealed = attributes_of(path, flags, &place);                                                           \
        return sealed < 0 ? -1 : sealed ? fail(ENODATA) : REAL(name)(place.path, attribute, value, size);          \
    }
#define LIST_ATTRIBUTES(name, flags)                                                                               \
    HOOK ssize_t name(const char *path, char *list, size_t size) {                                                 \
        struct place place;                                                                                        \
        int sealed = attributes_of(path, flags, &place);                                                           \
        return sealed != 0 ? (sealed < 0 ? -1 : 0) : REAL(name)(place.path, list, size);                           \
    }

GET_ATTRIBUTE(getxattr, PLACE_FOLLOW)
GET_ATTRIBUTE(lgetxattr, 0)
LIST_ATTRIBUTES(listxattr, PLACE_FOLLOW)
LIST_ATTRIBUTES(llistxattr, 0)

HOOK ssize_t fgetxattr(int number, const char *attribute, void *value, size_t size) {
    struct descriptor descriptor;

    return descriptor_find(number, &descriptor) ? fail(ENODATA) : REAL(fgetxattr)(number, attribute, value, size);
}

HOOK ssize_t flistxattr(int number, char *list, size_t size) {
    struct descriptor descriptor;

    return descriptor_find(number, &descriptor) ? 0 : REAL(flistxattr)(number, list, size);
}

#include "place.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cwd.h"
#include "descriptors.h"
#include "real.h"
#include "walk.h"

bool descriptor_path(int number, char path[PATH_MAX]) {
    char link[32];
    ssize_t length;

    snprintf(link, sizeof link, "/proc/self/fd/%d", number);
    length = REAL(readlink)(link, path, PATH_MAX - 1);
    if (length <= 0 || path[0] != '/')
        return false;
    path[length] = '\0';
    return true;
}

/* --- the first look --- */

/* The number in /proc/self/fd/N, /dev/fd/N and the like, or -1. `rest`: what follows it. */
static int descriptor_in(const char *path, const char **rest) {
    static const char *const named[] = {"/dev/stdin", "/dev/stdout", "/dev/stderr"};
    static const char *const folders[] = {"/proc/self/fd/", "/dev/fd/", "/proc/thread-self/fd/"};
    char own[32];
    const char *number = NULL;

    if (strncmp(path, "/dev/", 5) != 0 && strncmp(path, "/proc/", 6) != 0)
        return -1;
    for (int i = 0; i < 3; i++) {
        if (strcmp(path, named[i]) == 0) {
            *rest = "";
            return i;
        }
        if (strncmp(path, folders[i], strlen(folders[i])) == 0)
            number = path + strlen(folders[i]);
    }
    snprintf(own, sizeof own, "/proc/%d/fd/", (int)getpid());
    if (strncmp(path, own, strlen(own)) == 0)
        number = path + strlen(own);
    if (number == NULL || number[0] < '0' || number[0] > '9')
        return -1;
    char *end;
    long value = strtol(number, &end, 10);
    *rest = end;
    return value <= INT_MAX && (*end == '\0' || *end == '/') ? (int)value : -1;
}

/* Whether `path` lies in the tree by its first characters; `rest` is what follows them. */
static bool begins_with(const char *path, const char *prefix, size_t length, const char **rest) {
    if (strncmp(path, prefix, length) != 0 || (path[length] != '/' && path[length] != '\0'))
        return false;
    *rest = path + length;
    return true;
}

static void find_absolute(struct place *place, const char *path) {
    unsigned count = atomic_load_explicit(&attachment_count, memory_order_acquire);
    struct descriptor descriptor;
    const char *rest;

    for (unsigned i = 0; i < count; i++) {
        struct attachment *at = &attachments[i];
        if (!begins_with(path, at->mount, at->mount_length, &rest) &&
            !begins_with(path, at->given, at->given_length, &rest))
            continue;
        if (rest[strspn(rest, "/")] == '\0')
            set_sealed(place, at, SEALFS_ROOT);
        else
            walk_from(place, at, SEALFS_ROOT, rest + strspn(rest, "/"));
        return;
    }
    int number = descriptor_in(path, &rest);
    if (number < 0 || !descriptor_find(number, &descriptor))
        return;
    bool last = rest[strspn(rest, "/")] == '\0';
    if (last && (place->flags & (PLACE_FOLLOW | (number > 2 || path[1] == 'p' ? PLACE_LINK : 0))) == 0)
        return; /* the link itself is the kernel's */
    place->dereferenced = true;
    if (!last)
        walk_from(place, descriptor.at, descriptor.entry, rest + strspn(rest, "/"));
    else
        set_sealed(place, descriptor.at, descriptor.entry);
}

static bool in_sealed_cwd(struct sealed_cwd *out) {
    struct sealed_cwd cwd = *out = get_sealed_cwd();
    struct stat here;

    return cwd.at != NULL && REAL(stat)(".", &here) == 0 && attachment_at(&here) == cwd.at;
}

static void find_relative(struct place *place, int dirfd, const char *path) {
    struct descriptor descriptor;
    struct sealed_cwd cwd;

    if (dirfd == AT_FDCWD) {
        if (path[0] == '\0' && (place->flags & PLACE_EMPTY) != 0 && in_sealed_cwd(&cwd))
            set_sealed(place, cwd.at, cwd.entry);
        else if (path[0] != '\0' && in_sealed_cwd(&cwd))
            walk_from(place, cwd.at, cwd.entry, path);
        return;
    }
    if (!descriptor_find(dirfd, &descriptor))
        return;
    if (path[0] != '\0')
        walk_from(place, descriptor.at, descriptor.entry, path);
    else if ((place->flags & PLACE_EMPTY) != 0)
        set_sealed(place, descriptor.at, descriptor.entry);
    else
        set_failed(place, NULL, ENOENT);
}

void place_find(struct place *place, int dirfd, const char *path, unsigned flags) {
    int error = errno;

    place->kind = PLACE_REAL;
    place->at = NULL;
    place->missing_last = place->dereferenced = place->walked = false;
    place->dirfd = dirfd;
    place->path = path;
    place->flags = flags;
    if (path == NULL || !anything_attached())
        return;
    if (path[0] == '/')
        find_absolute(place, path);
    else
        find_relative(place, dirfd, path);
    errno = error;
}

/* --- the second look --- */

/* Where a relative path starts, as a path of the kernel's. */
static bool start_of(int dirfd, char path[PATH_MAX]) {
    /* the system call: getcwd() is interposed, and must not be asked here */
    return dirfd == AT_FDCWD ? syscall(SYS_getcwd, path, PATH_MAX) > 0 && path[0] == '/' : descriptor_path(dirfd, path);
}

/* Whether the path leads to where the kernel says, for sure: its folder is there, is no mount path, and the name is
 * not in it. Two calls instead of one for each part of the path. */
static bool plainly_missing(const struct place *place) {
    const char *slash = strrchr(place->path, '/');
    char folder[PATH_MAX];
    struct stat status;
    size_t length = slash == NULL ? 1 : slash == place->path ? 1 : (size_t)(slash - place->path);

    if (length >= sizeof folder || (slash != NULL && slash[1] == '\0'))
        return false;
    memcpy(folder, slash == NULL ? "." : place->path, length);
    folder[length] = '\0';
    return REAL(fstatat)(place->dirfd, folder, &status, 0) == 0 && attachment_at(&status) == NULL &&
           REAL(fstatat)(place->dirfd, place->path, &status, AT_SYMLINK_NOFOLLOW) != 0;
}

bool place_again(struct place *place) {
    int error = errno;
    struct walk walk;

    if (error != ENOENT || place->kind != PLACE_REAL || place->walked || place->path == NULL || !anything_attached() ||
        place->path[0] == '\0' || strlen(place->path) >= PATH_MAX)
        return false;
    const char *asked = place->path;
    place->walked = true;
    walk = (struct walk){.at = NULL};
    if (!plainly_missing(place) && (asked[0] == '/' || start_of(place->dirfd, walk.real))) {
        walk.real_length = strlen(walk.real);
        if (walk.real_length == 1)
            go_outside(&walk, "", 0);
        walk.at = attachment_of_path(walk.real);
        walk.entry = SEALFS_ROOT;
        walk.was_inside = walk.at != NULL;
        strcpy(walk.rest, asked);
        walk_on(place, &walk);
    }
    errno = error;
    return place->kind != PLACE_REAL ? place->at != NULL || place->kind == PLACE_SEALED : place->path != asked;
}

bool place_is_mount(struct place *place, const struct stat *status) {
    struct attachment *at = anything_attached() ? attachment_at(status) : NULL;

    if (at == NULL)
        return false;
    set_sealed(place, at, SEALFS_ROOT);
    return true;
}

#include "place.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "descriptors.h"
#include "real.h"

#define MAX_LINKS 40

/* Walking a path by hand. `real` is canonical while outside the trees: no links, no "..", no slash at the end. */
struct walk {
    struct attachment *at; /* NULL: outside */
    uint32_t entry;
    bool was_inside;
    int links;
    size_t real_length;
    char real[PATH_MAX];
    char rest[2 * PATH_MAX]; /* what is still to be walked */
};

static void set_sealed(struct place *place, struct attachment *at, uint32_t entry) {
    place->kind = PLACE_SEALED;
    place->at = at;
    place->entry = entry;
}

static void set_failed(struct place *place, struct attachment *at, int error) {
    place->kind = PLACE_FAILED;
    place->at = at;
    place->error = error;
}

static struct attachment *attachment_of_path(const char *path) {
    unsigned count = atomic_load_explicit(&attachment_count, memory_order_acquire);

    for (unsigned i = 0; i < count; i++)
        if (strcmp(path, attachments[i].mount) == 0)
            return &attachments[i];
    return NULL;
}

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

/* --- the walk --- */

static void go_outside(struct walk *walk, const char *folder, size_t length) {
    walk->at = NULL;
    memcpy(walk->real, folder, length);
    walk->real[length] = '\0';
    walk->real_length = length;
}

static int go_up(struct walk *walk) {
    if (walk->at != NULL && walk->entry != SEALFS_ROOT) {
        int error = sealfs_parent(walk->at->core, walk->entry, &walk->entry);
        return error != 0 ? EIO : 0;
    }
    if (walk->at != NULL)
        go_outside(walk, walk->at->mount, walk->at->mount_length);
    while (walk->real_length > 0 && walk->real[--walk->real_length] != '/')
        ;
    walk->real[walk->real_length] = '\0';
    return 0;
}

/* Puts a link's target in front of what is still to be walked. `rest` starts inside walk->rest. */
static int follow(struct walk *walk, const char *target, size_t length, const char **rest) {
    size_t left = strlen(*rest);

    if (++walk->links > MAX_LINKS)
        return ELOOP;
    if (length == 0)
        return ENOENT;
    if (length + 1 + left + 1 > sizeof walk->rest)
        return ENAMETOOLONG;
    memmove(walk->rest + length + 1, *rest, left + 1);
    memcpy(walk->rest, target, length);
    walk->rest[length] = '/';
    if (left == 0)
        walk->rest[length] = '\0';
    *rest = walk->rest;
    if (target[0] == '/')
        go_outside(walk, "", 0);
    return 0;
}

/* One step outside. Returns 0, an errno, or -1: the kernel is to say what it thinks of `real` and the rest. */
static int step_outside(struct walk *walk, const char *name, size_t length, bool follow_link, const char **rest) {
    size_t before = walk->real_length;
    struct stat status;
    char target[PATH_MAX];

    if (before + 1 + length + 1 > sizeof walk->real)
        return ENAMETOOLONG;
    walk->real[before] = '/';
    memcpy(walk->real + before + 1, name, length);
    walk->real_length = before + 1 + length;
    walk->real[walk->real_length] = '\0';
    struct attachment *at = attachment_of_path(walk->real);
    if (at != NULL) {
        walk->at = at;
        walk->entry = SEALFS_ROOT;
        walk->was_inside = true;
        return 0;
    }
    if (REAL(lstat)(walk->real, &status) != 0)
        return -1;
    if (!S_ISLNK(status.st_mode) || !follow_link)
        return 0;
    ssize_t size = REAL(readlink)(walk->real, target, sizeof target);
    if (size < 0 || size == sizeof target)
        return -1;
    walk->real_length = before;
    walk->real[before] = '\0';
    return follow(walk, target, (size_t)size, rest);
}

static int step_inside(struct walk *walk, const char *name, size_t length, bool follow_link, const char **rest) {
    const char *target;
    struct stat status;
    uint32_t child;
    int error = sealfs_find(walk->at->core, walk->entry, name, length, &child);

    if (error == 0)
        error = sealfs_stat(walk->at->core, child, &status);
    if (error != 0)
        return -error;
    if (!S_ISLNK(status.st_mode) || !follow_link) {
        walk->entry = child;
        return 0;
    }
    ssize_t size = sealfs_readlink(walk->at->core, child, &target);
    return size < 0 ? (int)-size : follow(walk, target, (size_t)size, rest);
}

static bool is_directory(const struct walk *walk) {
    struct stat status;

    return sealfs_stat(walk->at->core, walk->entry, &status) == 0 && S_ISDIR(status.st_mode);
}

static void end_outside(struct place *place, struct walk *walk, const char *rest) {
    size_t length = strlen(rest);

    if (!walk->was_inside && place->walked)
        return; /* the kernel's own answer stands */
    if (walk->real_length + 1 + length + 1 > sizeof place->buffer) {
        set_failed(place, NULL, ENAMETOOLONG);
        return;
    }
    memcpy(place->buffer, walk->real, walk->real_length);
    place->buffer[walk->real_length] = '/';
    memcpy(place->buffer + walk->real_length + (length != 0 || walk->real_length == 0), rest, length + 1);
    place->kind = PLACE_REAL;
    place->dirfd = AT_FDCWD;
    place->path = place->buffer;
}

/* Walks what `walk->rest` says from where `walk` stands, and sets `place`. */
static void walk_on(struct place *place, struct walk *walk) {
    const char *rest = walk->rest;

    if (rest[0] == '\0') {
        set_failed(place, NULL, ENOENT);
        return;
    }
    if (rest[0] == '/')
        go_outside(walk, "", 0);
    for (;;) {
        const char *start = rest;
        rest += strspn(rest, "/");
        bool trailing_slash = rest != start;
        if (walk->at != NULL && (trailing_slash || rest[0] != '\0') && !is_directory(walk)) {
            set_failed(place, walk->at, sealfs_failure(walk->at->core) != NULL ? EIO : ENOTDIR);
            return;
        }
        if (rest[0] == '\0')
            break;
        size_t length = strcspn(rest, "/");
        const char *name = rest, *after = rest + length;
        bool last = after[strspn(after, "/")] == '\0';
        bool follow_link = after[0] != '\0' || (place->flags & PLACE_FOLLOW) != 0;
        struct attachment *inside = walk->at;
        char copy[NAME_MAX + 1];
        int error;

        if (length > NAME_MAX) {
            set_failed(place, inside, ENAMETOOLONG);
            return;
        }
        memcpy(copy, name, length); /* following a link writes over where the name stands */
        copy[length] = '\0';
        rest = after;
        if (strcmp(copy, ".") == 0)
            continue;
        if (strcmp(copy, "..") == 0)
            error = go_up(walk);
        else if (inside != NULL)
            error = step_inside(walk, copy, length, follow_link, &rest);
        else
            error = step_outside(walk, copy, length, follow_link, &rest);
        if (error == -1) {
            end_outside(place, walk, rest);
            return;
        }
        if (error != 0) {
            if (error == EIO && inside != NULL)
                refuse_damaged(inside, -EIO);
            set_failed(place, inside, error);
            place->missing_last = error == ENOENT && last;
            return;
        }
    }
    if (walk->at != NULL)
        set_sealed(place, walk->at, walk->entry);
    else
        end_outside(place, walk, "");
}

static void walk_from(struct place *place, struct attachment *at, uint32_t entry, const char *path) {
    struct walk walk;

    walk.at = at;
    walk.entry = entry;
    walk.was_inside = at != NULL;
    walk.links = 0;
    go_outside(&walk, "", 0);
    walk.at = at;
    if (strlen(path) >= PATH_MAX) {
        set_failed(place, at, ENAMETOOLONG);
        return;
    }
    strcpy(walk.rest, path);
    walk_on(place, &walk);
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

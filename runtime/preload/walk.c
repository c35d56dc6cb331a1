#include "walk.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "damage.h"
#include "real.h"

#define MAX_LINKS 40

void set_sealed(struct place *place, struct attachment *at, uint32_t entry) {
    place->kind = PLACE_SEALED;
    place->at = at;
    place->entry = entry;
}

void set_failed(struct place *place, struct attachment *at, int error) {
    place->kind = PLACE_FAILED;
    place->at = at;
    place->error = error;
}

struct attachment *attachment_of_path(const char *path) {
    unsigned count = atomic_load_explicit(&attachment_count, memory_order_acquire);

    for (unsigned i = 0; i < count; i++)
        if (strcmp(path, attachments[i].mount) == 0)
            return &attachments[i];
    return NULL;
}

void go_outside(struct walk *walk, const char *folder, size_t length) {
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

void walk_on(struct place *place, struct walk *walk) {
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

void walk_from(struct place *place, struct attachment *at, uint32_t entry, const char *path) {
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

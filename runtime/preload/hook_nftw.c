/* ftw and nftw: libc's own walk past every hook, so that once something is attached this one does all walks. */
#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <limits.h>
#include <search.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "attachments.h"
#include "real.h"
#include "report.h"

struct tree_walk {
    __ftw_func_t plain; /* of ftw(); NULL: `full` */
    __nftw_func_t full;
    int flags;
    dev_t device; /* of the root */
    void *seen;   /* directories, when links are followed: each is walked once */
    size_t length;
    char path[PATH_MAX];
};

struct object {
    dev_t device;
    ino_t inode;
};

static int compare_objects(const void *a, const void *b) {
    const struct object *x = a, *y = b;

    return x->device != y->device ? (x->device < y->device ? -1 : 1) : (x->inode > y->inode) - (x->inode < y->inode);
}

/* 1: seen before, 0: not, -1: no memory. */
static int note(struct tree_walk *walk, const struct stat *status) {
    struct object *object = malloc(sizeof *object);

    if (object == NULL)
        return -1;
    *object = (struct object){status->st_dev, status->st_ino};
    struct object **found = tsearch(object, &walk->seen, compare_objects);
    if (found != NULL && *found == object)
        return 0;
    free(object);
    return found == NULL ? -1 : 1;
}

static int tell(struct tree_walk *walk, const struct stat *status, int type, struct FTW *where) {
    static const int of_ftw[] = {[FTW_F] = FTW_F,  [FTW_D] = FTW_D,  [FTW_DNR] = FTW_DNR, [FTW_NS] = FTW_NS,
                                 [FTW_SL] = FTW_F, [FTW_DP] = FTW_D, [FTW_SLN] = FTW_NS};

    if (walk->plain != NULL)
        return walk->plain(walk->path, status, FTW_FOLLOWS ? of_ftw[type] : type);
    return walk->full(walk->path, status, type, where);
}

static int type_of(struct tree_walk *walk, struct stat *status) {
    bool physical = (walk->flags & FTW_PHYS) != 0;

    if ((physical ? lstat(walk->path, status) : stat(walk->path, status)) != 0) {
        if (errno != ENOENT && errno != EACCES)
            return -1;
        return !physical && lstat(walk->path, status) == 0 && S_ISLNK(status->st_mode) ? FTW_SLN : FTW_NS;
    }
    return S_ISDIR(status->st_mode) ? FTW_D : S_ISLNK(status->st_mode) ? FTW_SL : FTW_F;
}

static int visit(struct tree_walk *walk, struct FTW where);

static int visit_children(struct tree_walk *walk, DIR *directory, struct FTW where) {
    size_t length = walk->length;
    bool slash = length > 0 && walk->path[length - 1] == '/';
    struct dirent *item;
    int result = 0;

    while (result == 0 && (errno = 0, item = readdir(directory)) != NULL) {
        size_t size = strlen(item->d_name);
        if (strcmp(item->d_name, ".") == 0 || strcmp(item->d_name, "..") == 0)
            continue;
        if (length + !slash + size + 1 > sizeof walk->path)
            return fail(ENAMETOOLONG);
        if (!slash)
            walk->path[length] = '/';
        memcpy(walk->path + length + !slash, item->d_name, size + 1);
        walk->length = length + !slash + size;
        result = visit(walk, (struct FTW){(int)(length + !slash), where.level + 1});
    }
    if (result == 0 && errno != 0)
        result = -1;
    walk->length = length;
    walk->path[length] = '\0';
    return result;
}

static int visit_directory(struct tree_walk *walk, const struct stat *status, struct FTW where) {
    bool actions = (walk->flags & FTW_ACTIONRETVAL) != 0, depth = (walk->flags & FTW_DEPTH) != 0;
    DIR *directory = opendir(walk->path);

    if (directory == NULL)
        return errno == EACCES ? tell(walk, status, FTW_DNR, &where) : -1;
    int result = depth ? 0 : tell(walk, status, FTW_D, &where);
    if (result != 0) {
        closedir(directory);
        return actions && result == FTW_SKIP_SUBTREE ? 0 : result;
    }
    result = visit_children(walk, directory, where);
    int error = errno;
    closedir(directory);
    errno = error;
    if (actions && result == FTW_SKIP_SIBLINGS)
        result = 0;
    return result == 0 && depth ? tell(walk, status, FTW_DP, &where) : result;
}

static int visit(struct tree_walk *walk, struct FTW where) {
    struct stat status;
    int type = type_of(walk, &status);

    if (type < 0)
        return -1;
    if (where.level == 0)
        walk->device = status.st_dev;
    else if ((walk->flags & FTW_MOUNT) != 0 && type != FTW_NS && status.st_dev != walk->device)
        return 0;
    if (type != FTW_D) {
        int result = tell(walk, &status, type, &where);
        return (walk->flags & FTW_ACTIONRETVAL) != 0 && result == FTW_SKIP_SUBTREE ? 0 : result;
    }
    int seen = (walk->flags & FTW_PHYS) != 0 ? 0 : note(walk, &status);
    return seen != 0 ? (seen < 0 ? -1 : 0) : visit_directory(walk, &status, where);
}

static int start(const char *path, __ftw_func_t plain, __nftw_func_t full, int flags) {
    size_t length = strlen(path);

    if (length == 0)
        return fail(ENOENT);
    if (length >= PATH_MAX)
        return fail(ENAMETOOLONG);
    struct tree_walk *walk = malloc(sizeof *walk);
    if (walk == NULL)
        return -1;
    walk->plain = plain;
    walk->full = full;
    walk->flags = flags;
    walk->seen = NULL;
    memcpy(walk->path, path, length + 1);
    while (length > 1 && walk->path[length - 1] == '/')
        walk->path[--length] = '\0';
    walk->length = length;
    const char *slash = strrchr(walk->path, '/');
    int base = slash == NULL || slash[1] == '\0' ? 0 : (int)(slash + 1 - walk->path);
    int result = visit(walk, (struct FTW){base, 0});
    int error = errno;
    if ((flags & FTW_ACTIONRETVAL) != 0 && (result == FTW_SKIP_SIBLINGS || result == FTW_SKIP_SUBTREE))
        result = 0;
    tdestroy(walk->seen, free);
    free(walk);
    errno = error;
    return result;
}

HOOK int nftw(const char *path, __nftw_func_t function, int descriptors, int flags) {
    if (!anything_attached())
        return REAL(nftw)(path, function, descriptors, flags);
    if ((flags & FTW_CHDIR) != 0) {
        unserved("nftw with FTW_CHDIR", path);
        return fail(ENOSYS);
    }
    return start(path, NULL, function, flags);
}

HOOK int ftw(const char *path, __ftw_func_t function, int descriptors) {
    return anything_attached() ? start(path, function, NULL, FTW_FOLLOWS ? 0 : FTW_PHYS)
                               : REAL(ftw)(path, function, descriptors);
}

int nftw64(const char *path, __nftw64_func_t function, int descriptors, int flags) SAME_AS(nftw);
int ftw64(const char *path, __ftw64_func_t function, int descriptors) SAME_AS(ftw);

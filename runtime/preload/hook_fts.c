/* fts: like nftw, once something is attached this one does all walks. It never changes the current directory:
 * fts_accpath is fts_path. What is asked for with FTS_NOSTAT is stat'ed all the same.
 *
 * An FTS of this library has a descriptor number in `fts_rfd` that libc's never has.
 */
#include <dirent.h>
#include <errno.h>
#include <fts.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "attachments.h"
#include "real.h"

#define OURS INT_MIN

typedef int (*order)(const FTSENT **, const FTSENT **);

static bool ours(const FTS *tree) {
    return tree->fts_rfd == OURS;
}

static void free_entry(FTSENT *entry) {
    free(entry->fts_path);
    free(entry->fts_statp);
    free(entry);
}

static void free_list(FTSENT *entry) {
    while (entry != NULL) {
        FTSENT *next = entry->fts_link;
        free_entry(entry);
        entry = next;
    }
}

static unsigned short kind_of(FTS *tree, FTSENT *entry, bool follow) {
    struct stat *status = entry->fts_statp;
    bool by_name = strcmp(entry->fts_name, ".") == 0 || strcmp(entry->fts_name, "..") == 0;

    entry->fts_errno = 0;
    if (follow || (tree->fts_options & FTS_LOGICAL) != 0) {
        if (stat(entry->fts_path, status) != 0) {
            int error = errno;
            if (lstat(entry->fts_path, status) == 0)
                return FTS_SLNONE;
            entry->fts_errno = error;
            return FTS_NS;
        }
    } else if (lstat(entry->fts_path, status) != 0) {
        entry->fts_errno = errno;
        return FTS_NS;
    }
    entry->fts_dev = status->st_dev;
    entry->fts_ino = status->st_ino;
    entry->fts_nlink = status->st_nlink;
    if (!S_ISDIR(status->st_mode))
        return S_ISLNK(status->st_mode) ? FTS_SL : S_ISREG(status->st_mode) ? FTS_F : FTS_DEFAULT;
    if (by_name && entry->fts_level != FTS_ROOTLEVEL)
        return FTS_DOT;
    for (FTSENT *above = entry->fts_parent; above->fts_level >= FTS_ROOTLEVEL; above = above->fts_parent)
        if (above->fts_ino == entry->fts_ino && above->fts_dev == entry->fts_dev) {
            entry->fts_cycle = above;
            return FTS_DC;
        }
    return FTS_D;
}

/* `folder` is NULL for a root, whose name is its path. */
static FTSENT *new_entry(FTS *tree, FTSENT *parent, const char *folder, const char *name) {
    size_t name_size = strlen(name), folder_size = folder != NULL ? strlen(folder) : 0;
    bool slash = folder_size != 0 && folder[folder_size - 1] != '/';
    FTSENT *entry = calloc(1, sizeof *entry + name_size + 1);

    if (entry == NULL)
        return NULL;
    entry->fts_path = malloc(folder_size + slash + name_size + 1);
    entry->fts_statp = calloc(1, sizeof *entry->fts_statp);
    if (entry->fts_path == NULL || entry->fts_statp == NULL) {
        free_entry(entry);
        return NULL;
    }
    if (folder_size != 0)
        memcpy(entry->fts_path, folder, folder_size);
    if (slash)
        entry->fts_path[folder_size] = '/';
    memcpy(entry->fts_path + folder_size + slash, name, name_size + 1);
    memcpy(entry->fts_name, name, name_size + 1);
    entry->fts_accpath = entry->fts_path;
    entry->fts_pathlen = (unsigned short)(folder_size + slash + name_size);
    entry->fts_namelen = (unsigned short)name_size;
    entry->fts_parent = parent;
    entry->fts_level = (short)(parent->fts_level + 1);
    entry->fts_instr = FTS_NOINSTR;
    entry->fts_info = kind_of(tree, entry, parent->fts_level < FTS_ROOTLEVEL && (tree->fts_options & FTS_COMFOLLOW) != 0);
    return entry;
}

static FTSENT *sorted(FTS *tree, FTSENT *first, size_t count) {
    FTSENT **list;

    if (tree->fts_compar == NULL || count < 2 || (list = malloc(count * sizeof *list)) == NULL)
        return first;
    for (size_t i = 0; i < count; i++, first = first->fts_link)
        list[i] = first;
    qsort(list, count, sizeof *list, (int (*)(const void *, const void *))tree->fts_compar);
    for (size_t i = 0; i < count; i++)
        list[i]->fts_link = i + 1 < count ? list[i + 1] : NULL;
    first = list[0];
    free(list);
    return first;
}

/* The entries of a directory; NULL with `fts_errno` set if it can't be read. */
static FTSENT *children_of(FTS *tree, FTSENT *directory) {
    DIR *stream = opendir(directory->fts_accpath);
    FTSENT *first = NULL, **last = &first;
    struct dirent *item;
    size_t count = 0;

    directory->fts_errno = stream == NULL ? errno : 0;
    while (stream != NULL && (item = readdir(stream)) != NULL) {
        bool dot = strcmp(item->d_name, ".") == 0 || strcmp(item->d_name, "..") == 0;
        if (dot && (tree->fts_options & FTS_SEEDOT) == 0)
            continue;
        *last = new_entry(tree, directory, directory->fts_path, item->d_name);
        if (*last == NULL) {
            directory->fts_errno = ENOMEM;
            break;
        }
        last = &(*last)->fts_link;
        count++;
    }
    if (stream != NULL)
        closedir(stream);
    if (directory->fts_errno == ENOMEM) {
        free_list(first);
        return NULL;
    }
    return sorted(tree, first, count);
}

HOOK FTS *fts_open(char *const *paths, int options, order compare) {
    if (!anything_attached())
        return REAL(fts_open)(paths, options, compare);
    FTS *tree = calloc(1, sizeof *tree);
    FTSENT *above = calloc(1, sizeof *above), *first = NULL, **last = &first;
    size_t count = 0;

    if (tree == NULL || above == NULL || (options & ~FTS_OPTIONMASK) != 0) {
        errno = tree == NULL || above == NULL ? ENOMEM : EINVAL;
        free(tree);
        free(above);
        return NULL;
    }
    tree->fts_rfd = OURS;
    tree->fts_options = options;
    tree->fts_compar = (__typeof__(tree->fts_compar))compare;
    above->fts_level = FTS_ROOTPARENTLEVEL;
    for (; *paths != NULL; paths++, count++) {
        *last = **paths != '\0' ? new_entry(tree, above, NULL, *paths) : NULL;
        if (*last == NULL) {
            errno = **paths == '\0' ? ENOENT : ENOMEM;
            free_list(first);
            free(above);
            free(tree);
            return NULL;
        }
        last = &(*last)->fts_link;
    }
    tree->fts_child = sorted(tree, first, count);
    tree->fts_array = (FTSENT **)(void *)above; /* kept to be freed; libc's array of that name is not needed */
    return tree;
}

/* A root's name is its path until it is visited, then the path's last part. */
static FTSENT *visited(FTSENT *entry) {
    char *slash = entry->fts_level == FTS_ROOTLEVEL ? strrchr(entry->fts_name, '/') : NULL;

    if (slash != NULL && (slash != entry->fts_name || slash[1] != '\0')) {
        entry->fts_namelen = (unsigned short)strlen(slash + 1);
        memmove(entry->fts_name, slash + 1, (size_t)entry->fts_namelen + 1);
    }
    return entry;
}

/* After `entry`, which is done with: its next sibling, or its parent once more. */
static FTSENT *after(FTS *tree, FTSENT *entry) {
    for (;;) {
        FTSENT *next = entry->fts_link, *parent = entry->fts_parent;
        free_entry(entry);
        if (next == NULL) {
            if (parent->fts_level == FTS_ROOTPARENTLEVEL) {
                tree->fts_cur = NULL;
                errno = 0;
                return NULL;
            }
            parent->fts_info = parent->fts_errno != 0 ? FTS_ERR : FTS_DP;
            return tree->fts_cur = parent;
        }
        entry = next;
        if (entry->fts_instr == FTS_SKIP)
            continue;
        if (entry->fts_instr == FTS_FOLLOW) {
            entry->fts_info = kind_of(tree, entry, true);
            entry->fts_instr = FTS_NOINSTR;
        }
        return tree->fts_cur = visited(entry);
    }
}

static FTSENT *descend(FTS *tree, FTSENT *directory, bool skip) {
    bool other = (tree->fts_options & FTS_XDEV) != 0 && directory->fts_dev != tree->fts_dev;

    if (skip || other) {
        free_list(tree->fts_child);
        tree->fts_child = NULL;
        directory->fts_info = FTS_DP;
        return directory;
    }
    FTSENT *child = tree->fts_child != NULL ? tree->fts_child : children_of(tree, directory);
    tree->fts_child = NULL;
    if (child == NULL) {
        directory->fts_info = directory->fts_errno != 0 ? FTS_DNR : FTS_DP;
        return directory;
    }
    return tree->fts_cur = child;
}

HOOK FTSENT *fts_read(FTS *tree) {
    if (!ours(tree))
        return REAL(fts_read)(tree);
    FTSENT *entry = tree->fts_cur;
    if (entry == NULL) { /* the first call, or one after the end */
        entry = tree->fts_cur = tree->fts_child;
        tree->fts_child = NULL;
        if (entry != NULL)
            tree->fts_dev = visited(entry)->fts_dev;
        return entry;
    }
    int instruction = entry->fts_instr;
    entry->fts_instr = FTS_NOINSTR;
    if (instruction == FTS_AGAIN ||
        (instruction == FTS_FOLLOW && (entry->fts_info == FTS_SL || entry->fts_info == FTS_SLNONE))) {
        entry->fts_info = kind_of(tree, entry, instruction == FTS_FOLLOW);
        return entry;
    }
    if (entry->fts_info == FTS_D)
        return descend(tree, entry, instruction == FTS_SKIP);
    entry = after(tree, entry);
    if (entry != NULL && entry->fts_level == FTS_ROOTLEVEL && entry->fts_info == FTS_D)
        tree->fts_dev = entry->fts_dev;
    return entry;
}

HOOK FTSENT *fts_children(FTS *tree, int instruction) {
    if (!ours(tree))
        return REAL(fts_children)(tree, instruction);
    if (instruction != 0 && instruction != FTS_NAMEONLY) {
        errno = EINVAL;
        return NULL;
    }
    errno = 0;
    FTSENT *entry = tree->fts_cur;
    if (entry == NULL)
        return tree->fts_child;
    if (entry->fts_info != FTS_D)
        return NULL;
    free_list(tree->fts_child);
    tree->fts_child = children_of(tree, entry);
    errno = entry->fts_errno;
    return tree->fts_child;
}

HOOK int fts_set(FTS *tree, FTSENT *entry, int instruction) {
    if (!ours(tree))
        return REAL(fts_set)(tree, entry, instruction);
    if (instruction != 0 && instruction != FTS_AGAIN && instruction != FTS_FOLLOW && instruction != FTS_NOINSTR &&
        instruction != FTS_SKIP)
        return fail(EINVAL);
    entry->fts_instr = (unsigned short)instruction;
    return 0;
}

HOOK int fts_close(FTS *tree) {
    if (!ours(tree))
        return REAL(fts_close)(tree);
    FTSENT *entry = tree->fts_cur;
    while (entry != NULL && entry->fts_level >= FTS_ROOTLEVEL) {
        FTSENT *parent = entry->fts_parent;
        free_list(entry);
        entry = parent;
    }
    free_list(tree->fts_child);
    free(tree->fts_array);
    free(tree);
    return 0;
}

#ifdef __GLIBC__
FTS64 *fts64_open(char *const *paths, int options, int (*compare)(const FTSENT64 **, const FTSENT64 **)) SAME_AS(fts_open);
FTSENT64 *fts64_read(FTS64 *tree) SAME_AS(fts_read);
FTSENT64 *fts64_children(FTS64 *tree, int instruction) SAME_AS(fts_children);
int fts64_set(FTS64 *tree, FTSENT64 *entry, int instruction) SAME_AS(fts_set);
int fts64_close(FTS64 *tree) SAME_AS(fts_close);
#endif

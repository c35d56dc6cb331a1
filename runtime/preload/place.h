/* Where a path leads: into a sealed tree, or to the kernel.
 *
 * Every hook that takes a path goes
 *
 *     place_find(&place, dirfd, path, PLACE_FOLLOW);
 *     do {
 *         if (place.kind == PLACE_SEALED) return ...;
 *         if (place.kind == PLACE_FAILED) return fail(place.error);
 *         result = REAL(stat)(place.path, ...);
 *     } while (result < 0 && place_again(&place));
 *
 * Paths that are not sealed at first sight are the kernel's to answer, at no extra cost. Only when it knows no such
 * file a second look follows all symlinks by hand: a link somewhere outside may lead into the tree.
 *
 * Threading: values; the sealed current directory is the process's, as the kernel's is.
 */
#ifndef SEALFS_PLACE_H
#define SEALFS_PLACE_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "attachments.h"

#define PLACE_FOLLOW 1u /* follow a symlink at the end */
#define PLACE_LINK 4u   /* ask where a link of /proc/self/fd leads */
#define PLACE_EMPTY 2u  /* an empty path means the descriptor itself (AT_EMPTY_PATH) */

enum place_kind { PLACE_REAL, PLACE_SEALED, PLACE_FAILED };

struct place {
    enum place_kind kind;
    struct attachment *at; /* SEALED; FAILED: the tree in which the name is missing, or NULL */
    uint32_t entry;        /* SEALED */
    int error;             /* FAILED: errno */
    bool missing_last;     /* FAILED with ENOENT: only the last part is missing, so it could be created */
    bool dereferenced;     /* SEALED: reached through /proc/self/fd or /dev/fd */
    int dirfd;             /* REAL: what to hand to the kernel */
    const char *path;
    unsigned flags;
    bool walked;
    char buffer[PATH_MAX];
};

void place_find(struct place *place, int dirfd, const char *path, unsigned flags);

/* After the kernel's refusal: whether `place` is now something else. Keeps errno if not. */
bool place_again(struct place *place);

/* After the kernel's answer about a directory: whether that is a mount path, reached by another name. */
bool place_is_mount(struct place *place, const struct stat *status);

/* The path that an open descriptor of the kernel's has; false if it can't be told. */
bool descriptor_path(int number, char path[PATH_MAX]);

#endif

/* Walking a path by hand, symlink by symlink, into sealed trees and out of them: for place.c.
 *
 * Threading: values.
 */
#ifndef SEALFS_WALK_H
#define SEALFS_WALK_H

#include "place.h"

/* `real` is canonical while outside the trees: no links, no "..", no slash at the end. */
struct walk {
    struct attachment *at; /* NULL: outside */
    uint32_t entry;
    bool was_inside;
    int links;
    size_t real_length;
    char real[PATH_MAX];
    char rest[2 * PATH_MAX]; /* what is still to be walked */
};

void set_sealed(struct place *place, struct attachment *at, uint32_t entry);
void set_failed(struct place *place, struct attachment *at, int error);

/* The attachment whose canonical mount path this is, or NULL. */
struct attachment *attachment_of_path(const char *path);

/* Makes the walk stand outside, in a folder with a canonical path ("" is the root). */
void go_outside(struct walk *walk, const char *folder, size_t length);

/* Walks what `walk->rest` says from where `walk` stands, and sets `place`. */
void walk_on(struct place *place, struct walk *walk);

/* The same from a sealed entry. */
void walk_from(struct place *place, struct attachment *at, uint32_t entry, const char *path);

#endif

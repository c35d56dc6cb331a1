/* Authenticated plaintext out of packs, at random access.
 *
 * Ciphertext is copied into own memory before it is authenticated. Whole segments are decrypted straight into the
 * caller's buffer; a segment of which only a part is wanted goes through the cache, since its neighbours are
 * usually wanted next. Parts of a large request are read by several threads at once (helpers.h).
 *
 * Threading: safe from many threads; no lock is held while reading or decrypting.
 */
#ifndef SEALFS_READER_H
#define SEALFS_READER_H

#include <pthread.h>

#include "packs.h"
#include "segments.h"

struct worker; /* a cipher and a buffer for ciphertext */

struct reader {
    pthread_mutex_t lock; /* guards the two below */
    struct segments segments;
    struct worker *idle;
    struct packs packs;
};

int reader_init(struct reader *reader, const struct index_view *index, const struct sealfs_options *options);
void reader_destroy(struct reader *reader);

/* Fills `out` with a pack's plaintext from `offset` on. With `out` NULL: authenticates the range and leaves what
 * fits in the cache. -EIO, -ENOMEM. */
int reader_read(struct reader *reader, uint32_t pack, uint64_t offset, uint64_t size, uint8_t *out);

/* Around fork: the child must find the locks free and what they guard whole. */
void reader_before_fork(struct reader *reader);
void reader_after_fork(struct reader *reader);

#endif

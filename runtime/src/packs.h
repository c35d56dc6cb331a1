/* Packs: their keys and where their ciphertext comes from.
 *
 * A pack is checked against its row of the index and opened when it is first needed; of the files that hold packs
 * only a few stay open. A descriptor is used only if it still is the file that was opened: some programs close
 * every number there is.
 *
 * Threading: locks itself; its lock is never held during a system call that reads.
 */
#ifndef SEALFS_PACKS_H
#define SEALFS_PACKS_H

#include <pthread.h>
#include <stdbool.h>

#include "floe.h"
#include "index.h"
#include "sealfs.h"

#define PACKS_OPEN_FILES 48

struct pack {
    struct floe_message message;
    struct floe_layout layout;
    uint32_t number;
    uint32_t source;
    int slot; /* in `packs.files`, or -1 */
};

struct pack_file {
    struct pack *pack; /* NULL: nothing is open here */
    int descriptor;
    dev_t device;
    ino_t inode;
    uint32_t users;
    uint64_t used_at;
};

struct packs {
    pthread_mutex_t lock;
    pthread_mutex_t again; /* for reading once more, first of the two: a number that one opens is closed by no other */
    const struct index_view *index;
    struct sealfs_source *sources; /* the dataset itself, then those of a union */
    uint32_t source_count;
    struct sealfs_pack_key *keys;
    size_t key_count;
    struct pack **table;
    struct pack_file files[PACKS_OPEN_FILES];
    uint64_t clock;
};

int packs_init(struct packs *packs, const struct index_view *index, const struct sealfs_options *options);
void packs_destroy(struct packs *packs);

/* The opened pack, which stays until `packs_destroy`. -EIO: not what was sealed, or no key; -ENOMEM. */
int packs_open(struct packs *packs, uint32_t number, struct pack **pack);

/* Fills `out` with ciphertext. `again`: do not trust the open file, take a new one. -EIO: missing, cut, unreadable. */
int packs_read(struct packs *packs, struct pack *pack, void *out, size_t size, uint64_t offset, bool again);

/* Around fork, as in reader.h. */
void packs_before_fork(struct packs *packs);
void packs_after_fork(struct packs *packs);

/* The object's name, "packs/<16 hex>-<32 hex>". */
#define PACK_NAME_SIZE 64
void packs_name(const struct index_view *index, uint32_t number, char name[PACK_NAME_SIZE]);

#endif

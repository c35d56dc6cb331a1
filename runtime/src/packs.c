#include "packs.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sys.h"

#define PUSH_ID_SIZE 8

int packs_init(struct packs *packs, const struct index_view *index, const struct sealfs_options *options) {
    memset(packs, 0, sizeof *packs);
    packs->index = index;
    if (options->source_count > SEALFS_MAX_SOURCES || strlen(options->objects_path) >= SEALFS_MAX_PATH)
        return -EINVAL;
    packs->source_count = options->source_count + 1;
    packs->sources = calloc(packs->source_count, sizeof *packs->sources);
    packs->table = calloc((size_t)index->packs + 1, sizeof *packs->table);
    packs->keys = calloc(options->key_count + 1, sizeof *packs->keys);
    pthread_mutex_init(&packs->lock, NULL);
    pthread_mutex_init(&packs->again, NULL);
    if (packs->sources == NULL || packs->table == NULL || packs->keys == NULL)
        return -ENOMEM;
    memcpy(packs->sources[0].dataset, options->dataset, sizeof options->dataset);
    strcpy(packs->sources[0].objects_path, options->objects_path);
    for (uint32_t i = 1; i < packs->source_count; i++) {
        packs->sources[i] = options->sources[i - 1];
        packs->sources[i].objects_path[SEALFS_MAX_PATH - 1] = '\0';
    }
    packs->key_count = options->key_count;
    if (options->key_count != 0)
        memcpy(packs->keys, options->keys, options->key_count * sizeof *packs->keys);
    return 0;
}

static void close_file(struct pack_file *file) {
    struct stat status;

    /* whoever closed our number may have another file there now, which is not ours to close */
    if (sys_fstat(file->descriptor, &status) == 0 && status.st_dev == file->device && status.st_ino == file->inode)
        sys_close(file->descriptor);
    file->pack->slot = -1;
    file->pack = NULL;
}

void packs_destroy(struct packs *packs) {
    for (size_t i = 0; i < PACKS_OPEN_FILES; i++)
        if (packs->files[i].pack != NULL)
            close_file(&packs->files[i]);
    for (uint32_t i = 0; packs->table != NULL && i < packs->index->packs; i++)
        if (packs->table[i] != NULL) {
            floe_wipe(&packs->table[i]->message);
            free(packs->table[i]);
        }
    if (packs->keys != NULL)
        OPENSSL_cleanse(packs->keys, packs->key_count * sizeof *packs->keys);
    free(packs->keys);
    free(packs->table);
    free(packs->sources);
    pthread_mutex_destroy(&packs->lock);
    pthread_mutex_destroy(&packs->again);
}

static struct pack *make_pack(struct packs *packs, uint32_t number, int *error) {
    const struct index_view *index = packs->index;
    const struct sealfs_pack_key *key = NULL;
    struct pack *pack = calloc(1, sizeof *pack);

    if (pack == NULL) {
        *error = -ENOMEM;
        return NULL;
    }
    pack->number = number;
    pack->slot = -1;
    *error = index_pack(index, number, &pack->layout);
    for (size_t i = 0; *error == 0 && key == NULL && i < packs->key_count; i++)
        if (packs->keys[i].epoch == index->pack_epoch[number])
            key = &packs->keys[i];
    if (*error == 0 && (key == NULL || key->source >= packs->source_count))
        *error = -EIO;
    if (*error == 0) {
        const struct sealfs_source *source = &packs->sources[pack->source = key->source];
        *error = floe_open(&pack->message, key->key, source->dataset, sizeof source->dataset,
                           index->pack_header + (size_t)number * FLOE_HEADER_SIZE);
    }
    if (*error == 0)
        return pack;
    free(pack);
    return NULL;
}

int packs_open(struct packs *packs, uint32_t number, struct pack **pack) {
    int error = 0;

    if (number >= packs->index->packs)
        return -EIO;
    pthread_mutex_lock(&packs->lock);
    if (packs->table[number] == NULL)
        packs->table[number] = make_pack(packs, number, &error);
    *pack = packs->table[number];
    pthread_mutex_unlock(&packs->lock);
    return error;
}

void packs_name(const struct index_view *index, uint32_t number, char name[PACK_NAME_SIZE]) {
    const uint8_t *id = index->pack_id + (size_t)number * INDEX_PACK_ID_SIZE;
    char *at = name + sprintf(name, "packs/");

    for (int i = 0; i < INDEX_PACK_ID_SIZE; i++)
        at += sprintf(at, i == PUSH_ID_SIZE ? "-%02x" : "%02x", id[i]);
}

/* Opens the pack's file into `file`; nothing is locked. */
static int open_file(const struct packs *packs, const struct pack *pack, struct pack_file *file) {
    const char *folder = packs->sources[pack->source].objects_path;
    char name[PACK_NAME_SIZE];
    size_t length = strlen(folder) + PACK_NAME_SIZE + 1;
    char *path = malloc(length);
    struct stat status;

    if (path == NULL)
        return -ENOMEM;
    packs_name(packs->index, pack->number, name);
    snprintf(path, length, "%s/%s", folder, name);
    file->descriptor = sys_open(path);
    free(path);
    if (file->descriptor < 0)
        return -EIO;
    if (sys_fstat(file->descriptor, &status) != 0 || !S_ISREG(status.st_mode)) {
        sys_close(file->descriptor);
        return -EIO;
    }
    file->device = status.st_dev;
    file->inode = status.st_ino;
    return 0;
}

/* The pack's open file, if it has one, for the caller to use and give back. */
static struct pack_file *take_open(struct packs *packs, const struct pack *pack) {
    struct pack_file *file = NULL;

    pthread_mutex_lock(&packs->lock);
    if (pack->slot >= 0) {
        file = &packs->files[pack->slot];
        file->users++;
        file->used_at = ++packs->clock;
    }
    pthread_mutex_unlock(&packs->lock);
    return file;
}

/* `stale`: it is perhaps no longer what was opened. Who else reads from it will find out. */
static void give_back(struct packs *packs, struct pack_file *file, bool stale) {
    pthread_mutex_lock(&packs->lock);
    if (--file->users == 0 && stale)
        close_file(file);
    pthread_mutex_unlock(&packs->lock);
}

/* Finds room for a newly opened file. Called with the lock held; NULL: everything is in use. */
static struct pack_file *keep(struct packs *packs, struct pack *pack, const struct pack_file *opened) {
    struct pack_file *place = NULL;

    if (pack->slot >= 0)
        return NULL; /* another thread was faster */
    for (size_t i = 0; i < PACKS_OPEN_FILES; i++) {
        struct pack_file *file = &packs->files[i];
        if (file->pack == NULL) {
            place = file;
            break;
        }
        if (file->users == 0 && (place == NULL || file->used_at < place->used_at))
            place = file;
    }
    if (place == NULL)
        return NULL;
    if (place->pack != NULL)
        close_file(place);
    *place = *opened;
    place->pack = pack;
    place->users = 1;
    place->used_at = ++packs->clock;
    pack->slot = (int)(place - packs->files);
    return place;
}

static int read_all(int descriptor, uint8_t *out, size_t size, uint64_t offset) {
    while (size > 0) {
        ssize_t count = sys_pread(descriptor, out, size, offset);
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0)
            return -EIO;
        out += count;
        size -= (size_t)count;
        offset += (uint64_t)count;
    }
    return 0;
}

static int read_pack(struct packs *packs, struct pack *pack, void *out, size_t size, uint64_t offset, bool again) {
    struct pack_file opened, *file = take_open(packs, pack);
    int error;

    if (file != NULL && again) {
        give_back(packs, file, true);
        file = NULL;
    }
    if (file == NULL) {
        if ((error = open_file(packs, pack, &opened)) != 0)
            return error;
        pthread_mutex_lock(&packs->lock);
        file = again ? NULL : keep(packs, pack, &opened);
        pthread_mutex_unlock(&packs->lock);
    }
    error = read_all(file != NULL ? file->descriptor : opened.descriptor, out, size, offset);
    if (file != NULL)
        give_back(packs, file, false);
    else
        sys_close(opened.descriptor);
    return error;
}

int packs_read(struct packs *packs, struct pack *pack, void *out, size_t size, uint64_t offset, bool again) {
    if (!again)
        return read_pack(packs, pack, out, size, offset, false);
    pthread_mutex_lock(&packs->again);
    int error = read_pack(packs, pack, out, size, offset, true);
    pthread_mutex_unlock(&packs->again);
    return error;
}

void packs_before_fork(struct packs *packs) {
    pthread_mutex_lock(&packs->again);
    pthread_mutex_lock(&packs->lock);
}

void packs_after_fork(struct packs *packs) {
    pthread_mutex_unlock(&packs->lock);
    pthread_mutex_unlock(&packs->again);
}

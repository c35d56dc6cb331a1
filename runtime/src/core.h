/* What a handle consists of; for dataset.c and the layers above it. */
#ifndef SEALFS_CORE_H
#define SEALFS_CORE_H

#include "index.h"
#include "reader.h"

struct sealfs {
    struct index_view index;
    struct reader reader;
    uint64_t whole_file_limit;
    _Atomic uint8_t *authenticated; /* one bit for each entry: the whole file was, at least once */
    pthread_mutex_t failure_lock;
    _Atomic(const char *) failure; /* points to `failure_text` once it is written */
    char failure_text[512];
};

#endif

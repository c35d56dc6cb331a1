#include "reader.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "helpers.h"

/* Ciphertext read at a time, unless one segment is longer: it should stay in the CPU's cache. */
#define MAX_RUN (256u << 10)
/* What is shared with the helpers: less is done before they are awake, and signals and forks wait for more. */
#define MIN_SHARED (512u << 10)
#define MAX_SHARED (4u << 20)

struct worker {
    struct worker *next;
    struct floe_cipher *cipher;
    size_t room;
    uint8_t *ciphertext;
};

/* A range of a pack's plaintext, and where it is wanted. */
struct request {
    struct pack *pack;
    uint64_t offset, size;
    uint8_t *out; /* NULL: authenticate only */
    uint64_t first, last; /* the segments that have it */
};

/* A request of which threads take parts. */
struct shared_request {
    struct reader *reader;
    const struct request *request;
    uint64_t first; /* segment of those that are shared now */
    struct worker *workers[HELPERS_THREADS];
    atomic_int error; /* of any of them */
};

int reader_init(struct reader *reader, const struct index_view *index, const struct sealfs_options *options) {
    int error = floe_initialise();

    memset(reader, 0, sizeof *reader);
    pthread_mutex_init(&reader->lock, NULL);
    if (error == 0)
        error = segments_init(&reader->segments,
                              options->cache_bytes != 0 ? options->cache_bytes : SEALFS_DEFAULT_CACHE_BYTES);
    int packs_error = packs_init(&reader->packs, index, options); /* in any case: `reader_destroy` undoes it */
    helpers_enter();
    return error != 0 ? error : packs_error;
}

static void free_worker(struct worker *worker) {
    floe_cipher_free(worker->cipher);
    free(worker->ciphertext);
    free(worker);
}

void reader_destroy(struct reader *reader) {
    helpers_leave();
    while (reader->idle != NULL) {
        struct worker *worker = reader->idle;
        reader->idle = worker->next;
        free_worker(worker);
    }
    segments_destroy(&reader->segments);
    packs_destroy(&reader->packs);
    pthread_mutex_destroy(&reader->lock);
}

/* How many whole segments so many bytes of ciphertext are, and at least one. */
static uint64_t segments_in(const struct pack *pack, size_t bytes) {
    return bytes > pack->layout.segment_length ? bytes / pack->layout.segment_length : 1;
}

/* One with room for the pack's longest run. */
static struct worker *take_worker(struct reader *reader, const struct pack *pack) {
    size_t room = segments_in(pack, MAX_RUN) * pack->layout.segment_length;

    pthread_mutex_lock(&reader->lock);
    struct worker *worker = reader->idle;
    if (worker != NULL)
        reader->idle = worker->next;
    pthread_mutex_unlock(&reader->lock);
    if (worker == NULL && (worker = calloc(1, sizeof *worker)) == NULL)
        return NULL;
    if (worker->cipher == NULL)
        worker->cipher = floe_cipher_new();
    if (worker->room < room) {
        free(worker->ciphertext);
        worker->ciphertext = malloc(room);
        worker->room = worker->ciphertext != NULL ? room : 0;
    }
    if (worker->cipher != NULL && worker->ciphertext != NULL)
        return worker;
    free_worker(worker);
    return NULL;
}

static void return_worker(struct reader *reader, struct worker *worker) {
    pthread_mutex_lock(&reader->lock);
    worker->next = reader->idle;
    reader->idle = worker;
    pthread_mutex_unlock(&reader->lock);
}

static uint64_t room_of(const struct pack *pack) {
    return pack->layout.segment_length - FLOE_SEGMENT_OVERHEAD;
}

/* Copies to the request what the segment at `position` has of it. */
static void copy_part(const struct request *request, const struct segment *segment) {
    uint64_t start = segment->position * room_of(request->pack), end = start + segment->size;
    uint64_t from = start > request->offset ? start : request->offset;
    uint64_t stop = request->offset + request->size < end ? request->offset + request->size : end;

    if (request->out != NULL && from < stop)
        memcpy(request->out + (from - request->offset), segment->bytes + (from - start), (size_t)(stop - from));
}

/* Decrypts one segment into the caller's buffer if it fits in there whole, otherwise into the cache. */
static int decrypt_one(struct reader *reader, const struct request *request, struct worker *worker,
                       const uint8_t *sealed, uint64_t position) {
    const struct pack *pack = request->pack;
    uint64_t start = position * room_of(pack);
    size_t size = floe_segment_size(&pack->layout, position), plain = size - FLOE_SEGMENT_OVERHEAD;
    bool final = position == pack->layout.segments - 1;

    if (request->out != NULL && start >= request->offset && start + plain <= request->offset + request->size)
        return floe_decrypt_segment(worker->cipher, &pack->message, sealed, size, position, final,
                                    request->out + (start - request->offset));
    pthread_mutex_lock(&reader->lock);
    struct segment *segment = segments_new(&reader->segments, pack->number, position, plain, room_of(pack));
    pthread_mutex_unlock(&reader->lock);
    if (segment == NULL)
        return -ENOMEM;
    segment->tail = request->out != NULL && start > request->offset;
    int error = floe_decrypt_segment(worker->cipher, &pack->message, sealed, size, position, final, segment->bytes);
    if (error == 0)
        copy_part(request, segment);
    pthread_mutex_lock(&reader->lock);
    if (error == 0)
        segments_put(&reader->segments, segment);
    segments_release(&reader->segments, segment);
    pthread_mutex_unlock(&reader->lock);
    return error;
}

static int decrypt_run(struct reader *reader, const struct request *request, struct worker *worker, uint64_t position,
                       uint64_t stop, bool again) {
    const struct floe_layout *layout = &request->pack->layout;
    uint64_t offset = floe_segment_offset(layout, position);
    size_t size = (size_t)(floe_segment_offset(layout, stop - 1) - offset) + floe_segment_size(layout, stop - 1);
    int error = packs_read(&reader->packs, request->pack, worker->ciphertext, size, offset, again);

    for (uint64_t i = position; error == 0 && i < stop; i++)
        error = decrypt_one(reader, request, worker,
                            worker->ciphertext + (i - position) * layout->segment_length, i);
    return error;
}

/* Where the run of segments from `position` on ends that are not cached and can be read at once. */
static uint64_t end_of_run(struct reader *reader, const struct pack *pack, uint64_t position, uint64_t end) {
    uint64_t longest = segments_in(pack, MAX_RUN), stop = position + 1;

    pthread_mutex_lock(&reader->lock);
    while (stop < end && stop - position < longest && !segments_has(&reader->segments, pack->number, stop))
        stop++;
    pthread_mutex_unlock(&reader->lock);
    return stop;
}

/* Reads what segments from `position` to before `end` have of a request. */
static int read_segments(struct reader *reader, const struct request *request, uint64_t position, uint64_t end,
                         struct worker **worker) {
    const struct pack *pack = request->pack;

    while (position < end) {
        pthread_mutex_lock(&reader->lock);
        bool reads_on = segments_is_newest(&reader->segments, pack->number, position);
        struct segment *segment = segments_get(&reader->segments, pack->number, position);
        pthread_mutex_unlock(&reader->lock);
        if (segment != NULL) {
            copy_part(request, segment);
            pthread_mutex_lock(&reader->lock);
            if (segment->tail && reads_on && position < request->last)
                segments_forget(&reader->segments, segment); /* so that its warm memory is the next tail's */
            segments_release(&reader->segments, segment);
            pthread_mutex_unlock(&reader->lock);
            position++;
            continue;
        }
        uint64_t stop = end_of_run(reader, pack, position, end);
        if (*worker == NULL && (*worker = take_worker(reader, pack)) == NULL)
            return -ENOMEM;
        int error = decrypt_run(reader, request, *worker, position, stop, false);
        if (error == -EIO) /* the descriptor may have been closed and reused under us: look once more */
            error = decrypt_run(reader, request, *worker, position, stop, true);
        if (error != 0)
            return error;
        position = stop;
    }
    return 0;
}

static void read_part(void *argument, unsigned thread, uint64_t first, uint64_t count) {
    struct shared_request *shared = argument;
    uint64_t position = shared->first + first;

    if (atomic_load_explicit(&shared->error, memory_order_relaxed) != 0)
        return;
    int error = read_segments(shared->reader, shared->request, position, position + count, &shared->workers[thread]);
    int none = 0;
    if (error == -EIO) /* whatever else there is: it must be noted */
        atomic_store_explicit(&shared->error, error, memory_order_relaxed);
    else if (error != 0)
        atomic_compare_exchange_strong(&shared->error, &none, error);
}

int reader_read(struct reader *reader, uint32_t number, uint64_t offset, uint64_t size, uint8_t *out) {
    struct request request = {.offset = offset, .size = size, .out = out};
    struct shared_request shared = {.reader = reader, .request = &request};
    int error = packs_open(&reader->packs, number, &request.pack);

    if (error != 0 || size == 0)
        return error;
    const struct floe_layout *layout = &request.pack->layout;
    if (offset > layout->plaintext_size || size > layout->plaintext_size - offset)
        return -EIO;
    request.first = offset / room_of(request.pack);
    request.last = (offset + size - 1) / room_of(request.pack);
    uint64_t most = size < MIN_SHARED ? UINT64_MAX : segments_in(request.pack, MAX_RUN);
    uint64_t once = segments_in(request.pack, MAX_SHARED);
    /* This cipher first: choosing it may need the loader's lock, which this thread may have, and helpers then not. */
    if (size >= MIN_SHARED && (shared.workers[0] = take_worker(reader, request.pack)) == NULL)
        return -ENOMEM;
    for (shared.first = request.first; shared.first <= request.last; shared.first += once) {
        uint64_t left = request.last - shared.first + 1;
        helpers_share(read_part, &shared, left < once ? left : once, most);
    }
    for (unsigned i = 0; i < HELPERS_THREADS; i++)
        if (shared.workers[i] != NULL)
            return_worker(reader, shared.workers[i]);
    return atomic_load_explicit(&shared.error, memory_order_relaxed);
}

void reader_before_fork(struct reader *reader) {
    packs_before_fork(&reader->packs);
    pthread_mutex_lock(&reader->lock);
}

void reader_after_fork(struct reader *reader) {
    pthread_mutex_unlock(&reader->lock);
    packs_after_fork(&reader->packs);
}

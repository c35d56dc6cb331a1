/* stdio: what libc reads into a FILE's buffer passes no hook, so a sealed file's FILE is made with fopencookie.
 *
 * fileno() of such a FILE is the sealed descriptor: C++ streams take it from there and read it themselves.
 *
 * Threading: the list of these FILEs has a lock.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "opens.h"
#include "place.h"
#include "reads.h"
#include "real.h"
#include "report.h"
#include "streams.h"

#define BUCKETS 256

struct cookie {
    struct cookie *next;
    FILE *stream;
    int number;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct cookie *streams[BUCKETS];
static atomic_uint stream_count;

void streams_before_fork(void) {
    pthread_mutex_lock(&lock);
}

void streams_after_fork(void) {
    pthread_mutex_unlock(&lock);
}

static struct cookie **bucket_of(const FILE *stream) {
    return &streams[((uintptr_t)stream >> 4) % BUCKETS];
}

/* The descriptor behind one of our FILEs, or -1. */
static int number_of(const FILE *stream) {
    int number = -1;

    if (atomic_load_explicit(&stream_count, memory_order_acquire) == 0)
        return -1;
    pthread_mutex_lock(&lock);
    for (struct cookie *cookie = *bucket_of(stream); cookie != NULL; cookie = cookie->next)
        if (cookie->stream == stream)
            number = cookie->number;
    pthread_mutex_unlock(&lock);
    return number;
}

static ssize_t cookie_read(void *context, char *out, size_t size) {
    struct cookie *cookie = context;

    return read(cookie->number, out, size);
}

static int cookie_seek(void *context, off64_t *offset, int whence) {
    struct cookie *cookie = context;
    off_t place = lseek(cookie->number, *offset, whence);

    if (place < 0)
        return -1;
    *offset = place;
    return 0;
}

static int cookie_close(void *context) {
    struct cookie *cookie = context;

    pthread_mutex_lock(&lock);
    struct cookie **place = bucket_of(cookie->stream);
    while (*place != cookie)
        place = &(*place)->next;
    *place = cookie->next;
    atomic_fetch_sub(&stream_count, 1);
    pthread_mutex_unlock(&lock);
    int result = REAL(close)(cookie->number);
    free(cookie);
    return result;
}

/* A FILE on a placeholder; takes the descriptor over unless it fails. */
static FILE *wrap(int number) {
    cookie_io_functions_t functions = {.read = cookie_read, .seek = cookie_seek, .close = cookie_close};
    struct cookie *cookie = malloc(sizeof *cookie);

    if (cookie == NULL)
        return NULL;
    cookie->number = number;
    cookie->stream = fopencookie(cookie, "r", functions);
    if (cookie->stream == NULL) {
        free(cookie);
        return NULL;
    }
    pthread_mutex_lock(&lock);
    struct cookie **place = bucket_of(cookie->stream);
    cookie->next = *place;
    *place = cookie;
    atomic_fetch_add(&stream_count, 1);
    pthread_mutex_unlock(&lock);
    return cookie->stream;
}

/* A mode's flags for open(), or -1. */
static int flags_of(const char *mode) {
    int flags = mode[0] == 'r' ? O_RDONLY : mode[0] == 'w' ? O_WRONLY | O_CREAT | O_TRUNC
                                        : mode[0] == 'a'   ? O_WRONLY | O_CREAT | O_APPEND
                                                           : -1;

    for (const char *at = mode + 1; flags >= 0 && *at != '\0' && *at != ','; at++)
        flags |= *at == 'e' ? O_CLOEXEC : *at == 'x' ? O_EXCL : 0;
    if (flags >= 0 && strchr(mode, '+') != NULL)
        flags = (flags & ~O_ACCMODE) | O_RDWR;
    return flags;
}

static FILE *fail_stream(int error) {
    errno = error;
    return NULL;
}

static FILE *open_stream(struct attachment *at, uint32_t entry, const char *mode) {
    struct descriptor descriptor;
    int flags = flags_of(mode);

    if (flags < 0)
        return fail_stream(EINVAL);
    if (strstr(mode, ",ccs=") != NULL) {
        unserved("fopen with ccs=", "a sealed file");
        return fail_stream(ENOSYS);
    }
    int number = open_sealed(at, entry, flags);
    if (number < 0)
        return NULL;
    FILE *stream = sealed_file(number, &descriptor) ? wrap(number) : REAL(fdopen)(number, mode);
    if (stream == NULL) {
        int error = errno;
        REAL(close)(number);
        errno = error;
    }
    return stream;
}

HOOK FILE *fopen(const char *path, const char *mode) {
    struct place place;
    FILE *stream;

    place_find(&place, AT_FDCWD, path, PLACE_FOLLOW);
    if (place.kind == PLACE_REAL && mode[0] != 'r' && creates_inside(AT_FDCWD, path)) {
        errno = ENOENT;
        if (!place_again(&place))
            return fail_stream(EROFS);
    }
    do {
        if (place.kind == PLACE_SEALED)
            return open_stream(place.at, place.entry, mode);
        if (place.kind == PLACE_FAILED)
            return fail_stream(mode[0] != 'r' && place.missing_last && place.at != NULL ? EROFS : place.error);
        stream = REAL(fopen)(place.path, mode);
    } while (stream == NULL && place_again(&place));
    return stream;
}

FILE *fopen64(const char *path, const char *mode) SAME_AS(fopen);

HOOK FILE *fdopen(int number, const char *mode) {
    struct descriptor descriptor;

    if (!sealed_file(number, &descriptor))
        return REAL(fdopen)(number, mode);
    if (mode[0] != 'r' || strchr(mode, '+') != NULL || descriptor.kind == DESCRIPTOR_PATH)
        return fail_stream(EINVAL);
    return wrap(number);
}

/* libc keeps the FILE, so it gets a file that libc can read: the decrypted bytes in memory. */
static FILE *reopen_sealed(struct attachment *at, uint32_t entry, const char *mode, FILE *stream) {
    int flags = flags_of(mode), number = -1;
    char path[32];

    if (flags < 0)
        errno = EINVAL;
    else if ((flags & O_ACCMODE) != O_RDONLY)
        errno = EROFS;
    else
        number = descriptor_materialise(at, entry, O_RDONLY | O_CLOEXEC);
    if (number < 0) {
        int error = errno;
        fclose(stream); /* as freopen does when it fails */
        return fail_stream(error);
    }
    snprintf(path, sizeof path, "/proc/self/fd/%d", number);
    stream = REAL(freopen)(path, mode, stream);
    int error = errno;
    REAL(close)(number);
    errno = error;
    return stream;
}

HOOK FILE *freopen(const char *path, const char *mode, FILE *stream) {
    struct place place;

    place_find(&place, AT_FDCWD, path, PLACE_FOLLOW);
    if (place.kind == PLACE_REAL && path != NULL && anything_attached()) {
        struct stat status; /* libc closes the stream before it tries: look before it does */
        if (REAL(stat)(path, &status) != 0)
            place_again(&place);
        else if (creates_inside(AT_FDCWD, path)) {
            errno = ENOENT;
            place_again(&place);
        }
    }
    if (place.kind == PLACE_SEALED)
        return reopen_sealed(place.at, place.entry, mode, stream);
    if (place.kind == PLACE_FAILED && place.at != NULL) {
        fclose(stream);
        return fail_stream(mode[0] != 'r' && place.missing_last ? EROFS : place.error);
    }
    if (number_of(stream) >= 0) {
        unserved("freopen", "a FILE of a sealed file");
        fclose(stream);
        return fail_stream(ENOSYS);
    }
    return REAL(freopen)(place.path, mode, stream);
}

FILE *freopen64(const char *path, const char *mode, FILE *stream) SAME_AS(freopen);

HOOK int fileno(FILE *stream) {
    int number = number_of(stream);

    return number >= 0 ? number : REAL(fileno)(stream);
}

HOOK int fileno_unlocked(FILE *stream) {
    int number = number_of(stream);

    return number >= 0 ? number : REAL(fileno_unlocked)(stream);
}

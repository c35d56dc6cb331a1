#include "shared.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "damage.h"
#include "real.h"

#define SHOWN_FLAGS (O_DIRECTORY | O_NOFOLLOW | O_PATH | O_NOATIME | O_SYNC | O_DSYNC) /* fcntl(F_GETFL) shows them */

struct placeholder {
    char name[12]; /* its number: what it is called in /proc/self/fd */
    dev_t device;
    ino_t inode;
};

static uint64_t place_of(uint32_t entry) {
    return 2 * (uint64_t)entry + 1;
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct placeholder placeholders[MAX_ATTACHMENTS];
static atomic_uint made; /* a bit for each attachment */
static atomic_int numbers = -1; /* /proc/self/fd */
static atomic_bool impossible;

static int folder_of_numbers(void) {
    int folder = atomic_load_explicit(&numbers, memory_order_acquire);

    if (folder >= 0)
        return folder;
    pthread_mutex_lock(&lock);
    folder = atomic_load(&numbers);
    if (folder < 0 && (folder = REAL(open)("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC)) >= 0) {
        folder = private_keep(folder, false);
        atomic_store_explicit(&numbers, folder, memory_order_release);
    }
    pthread_mutex_unlock(&lock);
    return folder;
}

static int make(struct attachment *at, int (*remember)(int, struct attachment *)) {
    struct placeholder *placeholder = &placeholders[at->number];
    struct stat status;
    int file = REAL(open)(scratch_folder(), O_WRONLY | O_TMPFILE | O_EXCL | O_CLOEXEC, SHARED_MODE);

    if (file < 0 || (file = private_keep(file, false)) < 0)
        return -1;
    if (REAL(fchmod)(file, SHARED_MODE) != 0 || REAL(fstat)(file, &status) != 0 || remember(file, at) != 0) {
        private_close(file);
        return -1;
    }
    snprintf(placeholder->name, sizeof placeholder->name, "%d", file);
    placeholder->device = status.st_dev;
    placeholder->inode = status.st_ino;
    atomic_fetch_or_explicit(&made, 1u << at->number, memory_order_release);
    return 0;
}

static const struct placeholder *placeholder_of(struct attachment *at, int (*remember)(int, struct attachment *)) {
    int error = 0;

    if ((atomic_load_explicit(&made, memory_order_acquire) >> at->number & 1) == 0) {
        pthread_mutex_lock(&lock);
        if ((atomic_load(&made) >> at->number & 1) == 0)
            error = make(at, remember);
        pthread_mutex_unlock(&lock);
    }
    return error == 0 ? &placeholders[at->number] : NULL;
}

int shared_open(struct attachment *at, uint32_t entry, int flags, int (*remember)(int, struct attachment *)) {
    struct stat status;

    if (atomic_load_explicit(&impossible, memory_order_relaxed) || (flags & SHOWN_FLAGS) != 0 ||
        entry > SHARED_MAX_ENTRY || sealed_size(at, entry) > SHARED_MAX_FILE)
        return -1;
    int folder = folder_of_numbers();
    const struct placeholder *placeholder = folder < 0 ? NULL : placeholder_of(at, remember);
    int number = placeholder == NULL
                     ? -1
                     : REAL(openat)(folder, placeholder->name, O_WRONLY | (flags & (O_CLOEXEC | O_NONBLOCK)));
    if (number < 0) {
        if (errno != EMFILE && errno != ENFILE)
            atomic_store(&impossible, true);
        return -1;
    }
    /* somebody may have closed our numbers by raw system calls, and have other files there */
    if (REAL(fstat)(number, &status) == 0 && status.st_ino == placeholder->inode &&
        status.st_dev == placeholder->device &&
        REAL(lseek)(number, (off_t)(place_of(entry) << SHARED_OFFSET_BITS), SEEK_SET) > 0)
        return number;
    REAL(close)(number);
    atomic_store(&impossible, true);
    return -1;
}

bool shared_entry(int number, const struct attachment *at, uint32_t *entry, uint64_t *base) {
    off_t offset = REAL(lseek)(number, 0, SEEK_CUR);
    uint64_t place = offset < 0 ? 0 : (uint64_t)offset >> SHARED_OFFSET_BITS;
    struct stat status;

    if (place % 2 == 0 || sealfs_stat(at->core, (uint32_t)(place / 2), &status) == -EINVAL)
        return false;
    *entry = (uint32_t)(place / 2);
    *base = place << SHARED_OFFSET_BITS;
    return true;
}

void shared_before_fork(void) {
    pthread_mutex_lock(&lock);
}

void shared_after_fork(bool child) {
    int folder = child ? atomic_exchange(&numbers, -1) : -1;

    pthread_mutex_unlock(&lock);
    if (folder >= 0)
        private_close(folder);
}

#include "descriptors.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "damage.h"
#include "real.h"
#include "report.h"
#include "shared.h"

/* Permission bits of what this library makes; hardly anybody else's files have them. */
#define MARK_MODE 0
#define MARK_MODE_REAL 0400
#define KIND_SHARED 99 /* of a record: which entry it is shows in the descriptor's offset */
#define FIRST_CAPACITY 1024
#define SHOWN_FLAGS (O_DIRECTORY | O_NOFOLLOW | O_PATH | O_LARGEFILE | O_NOATIME | O_SYNC | O_DSYNC)
#define COPY_PIECE (1u << 20)

struct record {
    uint64_t inode; /* 0: free */
    uint64_t device;
    int64_t seconds, nanoseconds; /* of the last change of the inode */
    uint32_t attachment, entry, kind;
    int32_t flags;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct record *table;
static size_t capacity, used;
static atomic_bool any;
static pid_t owner; /* a vfork child shares this memory but not the descriptors */

static size_t home(const struct record *record, size_t size) {
    return (size_t)((record->inode * 0x9E3779B97F4A7C15u) >> 20) & (size - 1);
}

static bool same(const struct record *a, const struct record *b) {
    return a->inode == b->inode && a->device == b->device && a->seconds == b->seconds &&
           a->nanoseconds == b->nanoseconds;
}

static struct record *slot(struct record *in, size_t size, const struct record *wanted) {
    size_t place = home(wanted, size);

    while (in[place].inode != 0 && !same(&in[place], wanted))
        place = (place + 1) & (size - 1);
    return &in[place];
}

/* Fills in what identifies an inode. False: it can't be one of ours. */
static bool identify(int number, struct record *identity) {
    struct stat status;

    if (REAL(fstat)(number, &status) != 0 || !S_ISREG(status.st_mode) || status.st_ino == 0)
        return false;
    mode_t mode = status.st_mode & 07777;
    if (mode != MARK_MODE && mode != MARK_MODE_REAL && mode != SHARED_MODE)
        return false;
    *identity = (struct record){.inode = status.st_ino,
                                .device = status.st_dev,
                                .seconds = status.st_ctim.tv_sec,
                                .nanoseconds = status.st_ctim.tv_nsec};
    return true;
}

bool descriptor_find(int number, struct descriptor *descriptor) {
    struct record identity;
    int error = errno;

    if (number < 0 || !atomic_load_explicit(&any, memory_order_acquire))
        return false;
    bool found = identify(number, &identity);
    errno = error;
    if (!found)
        return false;
    pthread_mutex_lock(&lock);
    struct record *record = capacity != 0 ? slot(table, capacity, &identity) : NULL;
    found = record != NULL && record->inode != 0;
    if (found)
        *descriptor =
            (struct descriptor){&attachments[record->attachment], record->entry, record->kind, record->flags, 0};
    pthread_mutex_unlock(&lock);
    if (found && descriptor->kind == KIND_SHARED) {
        descriptor->kind = DESCRIPTOR_FILE;
        found = shared_entry(number, descriptor->at, &descriptor->entry, &descriptor->base);
        errno = error;
    }
    return found;
}

/* --- dropping what no descriptor refers to, growing --- */

int each_descriptor(void (*visit)(int number, void *context), void *context) {
    struct {
        uint64_t inode;
        int64_t offset;
        unsigned short length;
        unsigned char type;
        char name[];
    } *item;
    _Alignas(8) char buffer[4096];
    int folder = REAL(open)("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    long size;

    if (folder < 0)
        return -1;
    while ((size = syscall(SYS_getdents64, folder, buffer, sizeof buffer)) > 0)
        for (long at = 0; at < size; at += item->length) {
            item = (void *)(buffer + at);
            if (item->name[0] >= '0' && item->name[0] <= '9' && atoi(item->name) != folder)
                visit(atoi(item->name), context);
        }
    int error = errno;
    REAL(close)(folder);
    return size < 0 ? fail(error) : 0;
}

struct survivors {
    struct record *table;
    size_t capacity, used;
};

static void keep_if_open(int number, void *context) {
    struct survivors *survivors = context;
    struct record identity;

    if (!identify(number, &identity))
        return;
    struct record *old = slot(table, capacity, &identity);
    if (old->inode == 0)
        return;
    struct record *place = slot(survivors->table, survivors->capacity, &identity);
    survivors->used += place->inode == 0;
    *place = *old;
}

/* Makes room for one more record. Called with the lock held. */
static int make_room(void) {
    if (capacity != 0 && used < capacity / 2)
        return 0;
    struct survivors survivors = {.capacity = capacity == 0 ? FIRST_CAPACITY : capacity * 2};
    survivors.table = calloc(survivors.capacity, sizeof *survivors.table);
    if (survivors.table == NULL)
        return -1;
    bool ours = capacity != 0 && owner == getpid() && each_descriptor(keep_if_open, &survivors) == 0;
    if (ours && survivors.used < capacity / 4) { /* few survive: the old size will do */
        memset(table, 0, capacity * sizeof *table);
        for (size_t i = 0; i < survivors.capacity; i++)
            if (survivors.table[i].inode != 0)
                *slot(table, capacity, &survivors.table[i]) = survivors.table[i];
        used = survivors.used;
        free(survivors.table);
        return 0;
    }
    for (size_t i = 0; i < capacity; i++)
        if (table[i].inode != 0)
            *slot(survivors.table, survivors.capacity, &table[i]) = table[i];
    free(table);
    table = survivors.table;
    capacity = survivors.capacity;
    return 0;
}

static int insert(const struct record *record) {
    pthread_mutex_lock(&lock);
    if (owner == 0)
        owner = getpid();
    int result = make_room();
    if (result == 0) {
        struct record *place = slot(table, capacity, record);
        used += place->inode == 0;
        *place = *record;
        atomic_store_explicit(&any, true, memory_order_release);
    }
    pthread_mutex_unlock(&lock);
    return result == 0 ? 0 : fail(ENOMEM);
}

/* --- making descriptors --- */

static int open_placeholder(int flags) {
    static atomic_uint named;
    char path[96];
    int wanted = O_WRONLY | (flags & (O_CLOEXEC | O_NONBLOCK));
    int number = REAL(open)(scratch_folder(), wanted | O_TMPFILE | O_EXCL, MARK_MODE);

    if (number >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL && errno != ENOSYS))
        return number;
    do {
        snprintf(path, sizeof path, "%s/.sealfs-%d-%u", scratch_folder(), (int)getpid(), atomic_fetch_add(&named, 1));
        number = REAL(open)(path, wanted | O_CREAT | O_EXCL, MARK_MODE);
    } while (number < 0 && errno == EEXIST);
    if (number >= 0)
        REAL(unlink)(path);
    return number;
}

static int remember(int number, const struct descriptor *descriptor) {
    struct record record;

    if (!identify(number, &record)) {
        REAL(close)(number);
        return fail(EIO);
    }
    record.attachment = descriptor->at->number;
    record.entry = descriptor->entry;
    record.kind = descriptor->kind;
    record.flags = descriptor->flags & SHOWN_FLAGS;
    if (insert(&record) == 0)
        return number;
    REAL(close)(number);
    return fail(ENOMEM);
}

static int remember_shared(int number, struct attachment *at) {
    struct record record;

    if (!identify(number, &record))
        return fail(EIO);
    record.attachment = at->number;
    record.kind = KIND_SHARED;
    return insert(&record);
}

int64_t descriptor_seek(int number, const struct descriptor *descriptor, int64_t offset, int whence) {
    int64_t base = (int64_t)descriptor->base, target = offset;

    if (base == 0 || (whence != SEEK_SET && whence != SEEK_CUR))
        return REAL(lseek)(number, offset, whence);
    if (whence == SEEK_CUR) {
        int64_t here = REAL(lseek)(number, 0, SEEK_CUR);
        if (here < 0 || offset == 0)
            return here < 0 ? -1 : here - base;
        if (__builtin_add_overflow(here - base, offset, &target))
            return fail(EOVERFLOW);
    }
    if (target < 0 || target > (int64_t)SHARED_MAX_OFFSET)
        return fail(EINVAL);
    int64_t there = REAL(lseek)(number, whence == SEEK_CUR ? offset : base + offset, whence);
    return there < 0 ? -1 : there - base;
}

int descriptor_new(const struct descriptor *descriptor, int flags) {
    int number = descriptor->kind == DESCRIPTOR_FILE
                     ? shared_open(descriptor->at, descriptor->entry, flags, remember_shared)
                     : -1;

    if (number >= 0)
        return number;
    number = open_placeholder(flags);
    return number < 0 ? -1 : remember(number, descriptor);
}

static int copy_out(struct attachment *at, uint32_t entry, int file) {
    uint8_t *piece = malloc(COPY_PIECE);
    uint64_t offset = 0;
    ssize_t count;

    if (piece == NULL)
        return -ENOMEM;
    while ((count = sealfs_pread(at->core, entry, piece, COPY_PIECE, offset)) > 0) {
        if (write_all(file, piece, (size_t)count) != 0) {
            count = -errno;
            break;
        }
        offset += (uint64_t)count;
    }
    free(piece);
    return (int)count;
}

int descriptor_copy(struct attachment *at, uint32_t entry, int file) {
    struct stat status;
    int error = sealfs_stat(at->core, entry, &status);

    if (error == 0 && REAL(ftruncate)(file, status.st_size) != 0)
        error = -errno;
    if (error == 0)
        error = copy_out(at, entry, file);
    return error == 0 ? 0 : refuse_damaged(at, error);
}

int descriptor_materialise(struct attachment *at, uint32_t entry, int flags) {
    struct descriptor made = {at, entry, DESCRIPTOR_REAL, flags, 0};
    char path[32];
    int file = memory_file("sealfs-file");

    if (file < 0)
        return -1;
    if (descriptor_copy(at, entry, file) != 0 || REAL(fchmod)(file, MARK_MODE_REAL) != 0) {
        int error = errno;
        REAL(close)(file);
        return fail(error);
    }
    REAL(fcntl)(file, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
    /* the same file once more, for reading only; without /proc the read-write descriptor must do, at its start */
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    int number = REAL(open)(path, O_RDONLY | (flags & (O_CLOEXEC | O_NONBLOCK)));
    if (number >= 0) {
        /* the lowest number was `file`'s: swap, so that the caller gets it */
        int lowest = REAL(dup3)(number, file, flags & O_CLOEXEC);
        REAL(close)(number);
        number = lowest;
    } else if (REAL(lseek)(file, 0, SEEK_SET) == 0) {
        REAL(fcntl)(file, F_SETFD, flags & O_CLOEXEC ? FD_CLOEXEC : 0);
        number = file;
    }
    return number < 0 ? -1 : remember(number, &made);
}

/* --- children --- */

static void write_record(int number, void *context) {
    int *file = context;
    struct descriptor descriptor;
    struct record record;

    if (*file == -2 || !descriptor_find(number, &descriptor) || !identify(number, &record))
        return;
    if (*file == -1 && (*file = memory_file("sealfs-table")) < 0) {
        *file = -2;
        return;
    }
    record.attachment = descriptor.at->number;
    record.entry = descriptor.entry;
    record.kind = descriptor.base != 0 ? KIND_SHARED : descriptor.kind;
    record.flags = descriptor.flags;
    if (write_all(*file, &record, sizeof record) != 0) {
        REAL(close)(*file);
        *file = -2;
    }
}

int descriptors_table(void) {
    int file = -1;

    if (!atomic_load(&any))
        return -1;
    if (each_descriptor(write_record, &file) != 0 && file != -2) {
        if (file >= 0)
            REAL(close)(file);
        return -2;
    }
    if (file < 0)
        return file;
    file = private_keep(file, true);
    return file < 0 ? -2 : file;
}

void descriptors_inherit(int file) {
    struct record record;
    off_t offset = 0;

    while (REAL(pread)(file, &record, sizeof record, offset) == sizeof record) {
        if (record.attachment < atomic_load(&attachment_count) &&
            (record.kind <= DESCRIPTOR_REAL || record.kind == KIND_SHARED) && record.inode != 0 && insert(&record) != 0)
            say("no memory for the descriptors that the parent process has open");
        offset += sizeof record;
    }
    REAL(close)(file);
}

void descriptors_before_fork(void) {
    shared_before_fork(); /* first, as making a shared placeholder takes both in this order */
    pthread_mutex_lock(&lock);
}

void descriptors_after_fork(bool child) {
    if (child)
        owner = getpid();
    pthread_mutex_unlock(&lock);
    shared_after_fork(child);
}

/* Named semaphores over pipes, for kernels whose processes share no memory (Gramine): libc's live in a mapping of
 * /dev/shm. Elsewhere every call is libc's. Python's multiprocessing, and so every DataLoader worker, needs them.
 *
 * A unit is a byte in a pipe: to wait is to read one, to post is to write one. Each is a single system call, so a
 * process that is killed in the middle loses nothing. A semaphore that starts at SEM_VALUE_MAX counts the other way
 * round, the bytes being what was taken: it bounds nothing (that is how multiprocessing writes "no limit").
 *
 * Children share them: those of fork as they are, exec'd programs by the names that there are when they start, which
 * an environment variable tells them. A name made later, or elsewhere, is unknown (ENOENT). In SGX Gramine encrypts
 * each pipe between two processes, so there these serve two processes at most.
 *
 * Threading: the table has a lock; waiting and posting take none and are as safe in signal handlers as libc's.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "real.h"
#include "report.h"
#include "semaphores.h"

#define MAX_SEMAPHORES 1024
#define MAX_UNITS (60 << 10) /* that fit into a pipe */
#define UNBOUNDED SEM_VALUE_MAX
#define SECOND 1000000000ll
#define PUBLISHED_SIZE (32 << 10)

struct semaphore {
    char name[NAME_MAX + 1]; /* "": unlinked */
    unsigned users;          /* opened so often, and one more for the name; 0: free */
    bool unbounded;
    int out, in; /* to read from, to write to */
};

static struct semaphore table[MAX_SEMAPHORES]; /* a sem_t * that points in here is one of these */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char published[PUBLISHED_SIZE]; /* part of the environment once it is not empty */

static struct semaphore *ours(sem_t *semaphore) {
    uintptr_t at = (uintptr_t)semaphore, first = (uintptr_t)table;

    return at >= first && at < first + sizeof table ? (struct semaphore *)(void *)semaphore : NULL;
}

/* --- bytes --- */

static bool fill(int number, unsigned units) {
    static const char bytes[4096];

    while (units > 0) {
        ssize_t count = REAL(write)(number, bytes, units < sizeof bytes ? units : sizeof bytes);
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0)
            return false;
        units -= (unsigned)count;
    }
    return true;
}

/* Gramine's pipes are sockets, which hold few pieces of one byte and many bytes in one piece. */
static bool compact(const struct semaphore *semaphore) {
    char bytes[4096];
    unsigned units = 0;
    ssize_t count;

    while (units < MAX_UNITS && (count = REAL(read)(semaphore->out, bytes, sizeof bytes)) > 0)
        units += (unsigned)count;
    return fill(semaphore->in, units) && units < MAX_UNITS;
}

static int put(const struct semaphore *semaphore) {
    for (bool again = false;; again = true) {
        if (REAL(write)(semaphore->in, "", 1) == 1)
            return 0;
        if (errno == EINTR)
            continue;
        if (errno != EAGAIN)
            return -1;
        if (again || !compact(semaphore))
            return fail(EOVERFLOW);
    }
}

static int take(const struct semaphore *semaphore) {
    char byte;
    ssize_t count = REAL(read)(semaphore->out, &byte, 1);

    return count == 1 ? 0 : fail(count == 0 ? EINVAL : errno);
}

/* Takes a unit; waits until `deadline` of `clock` for it, NULL: for as long as it takes. */
static int wait_until(const struct semaphore *semaphore, clockid_t clock, const struct timespec *deadline) {
    struct pollfd readable = {.fd = semaphore->out, .events = POLLIN};

    if (semaphore->unbounded) {
        (void)put(semaphore); /* more than fit are not counted: nobody reaches 2^31 */
        return 0;
    }
    while (take(semaphore) != 0) {
        int patience = -1;
        if (errno != EAGAIN)
            return -1;
        if (deadline != NULL) {
            struct timespec now;
            if (deadline->tv_nsec < 0 || deadline->tv_nsec >= SECOND || clock_gettime(clock, &now) != 0)
                return fail(EINVAL);
            long long left = (deadline->tv_sec - now.tv_sec) * SECOND + deadline->tv_nsec - now.tv_nsec;
            if (left <= 0)
                return fail(ETIMEDOUT);
            long long milliseconds = (left + 999999) / 1000000;
            patience = milliseconds > INT_MAX ? INT_MAX : (int)milliseconds;
        }
        if (poll(&readable, 1, patience) < 0)
            return -1;
    }
    return 0;
}

/* --- the table --- */

static struct semaphore *named(const char *name) {
    for (size_t i = 0; i < MAX_SEMAPHORES; i++)
        if (table[i].users != 0 && table[i].name[0] != '\0' && strcmp(table[i].name, name) == 0)
            return &table[i];
    return NULL;
}

/* Tells exec'd programs which names there are: NAME=OUT/IN/UNBOUNDED/NAME/... Called with the lock held. */
static void publish(void) {
    int length = snprintf(published, sizeof published, SEMAPHORES_VARIABLE "=");

    for (size_t i = 0; i < MAX_SEMAPHORES; i++) {
        const struct semaphore *one = &table[i];
        if (one->users == 0 || one->name[0] == '\0')
            continue;
        size_t room = sizeof published - (size_t)length;
        int more = snprintf(published + length, room, "%d/%d/%d/%s/", one->out, one->in, one->unbounded, one->name);
        if ((size_t)more >= room) {
            published[length] = '\0';
            say("too many semaphores: programs that are started now do not find them all");
            break;
        }
        length += more;
    }
    putenv(published);
}

static int make_pipe(struct semaphore *semaphore, unsigned value) {
    int ends[2];

    if (pipe2(ends, O_NONBLOCK | O_CLOEXEC) != 0)
        return -1;
    semaphore->out = private_keep(ends[0], true);
    semaphore->in = semaphore->out < 0 ? -1 : private_keep(ends[1], true);
    if (semaphore->in >= 0 && fill(semaphore->in, semaphore->unbounded ? 0 : value))
        return 0;
    int error = errno;
    if (semaphore->out < 0)
        REAL(close)(ends[1]);
    else
        private_close(semaphore->out);
    if (semaphore->in >= 0)
        private_close(semaphore->in);
    return fail(error);
}

static struct semaphore *free_one(void) {
    for (size_t i = 0; i < MAX_SEMAPHORES; i++)
        if (table[i].users == 0)
            return &table[i];
    say("no more than %d semaphores here", MAX_SEMAPHORES);
    errno = ENOSPC;
    return NULL;
}

static struct semaphore *make(const char *name, unsigned value) {
    struct semaphore *made = value <= UNBOUNDED ? free_one() : NULL;

    if (value > UNBOUNDED)
        errno = EINVAL;
    else if (value > MAX_UNITS && value != UNBOUNDED) {
        say("a semaphore can't start above %d here", MAX_UNITS);
        errno = ENOSPC;
        made = NULL;
    }
    if (made == NULL)
        return NULL;
    made->unbounded = value == UNBOUNDED;
    if (make_pipe(made, value) != 0)
        return NULL;
    strcpy(made->name, name);
    made->users = 1;
    publish();
    return made;
}

/* Called with the lock held. */
static void drop(struct semaphore *semaphore) {
    if (--semaphore->users != 0)
        return;
    private_close(semaphore->out);
    private_close(semaphore->in);
}

static sem_t *open_named(const char *name, int flags, unsigned value) {
    name += strspn(name, "/");
    size_t length = strlen(name);
    if (length == 0 || length > NAME_MAX || strchr(name, '/') != NULL) {
        errno = length > NAME_MAX ? ENAMETOOLONG : EINVAL;
        return SEM_FAILED;
    }
    pthread_mutex_lock(&lock);
    struct semaphore *there = named(name);
    if (there != NULL && (flags & (O_CREAT | O_EXCL)) == (O_CREAT | O_EXCL)) {
        errno = EEXIST;
        there = NULL;
    } else if (there == NULL && (flags & O_CREAT) == 0)
        errno = ENOENT;
    else if (there == NULL)
        there = make(name, value);
    if (there != NULL)
        there->users++;
    pthread_mutex_unlock(&lock);
    return there == NULL ? SEM_FAILED : (sem_t *)(void *)there;
}

void semaphores_inherit(void) {
    const char *at = getenv(SEMAPHORES_VARIABLE);
    int out, in, unbounded, used;
    char name[NAME_MAX + 1];

    if (at == NULL || shares_memory())
        return;
    for (; sscanf(at, "%d/%d/%d/%255[^/]/%n", &out, &in, &unbounded, name, &used) == 4; at += used) {
        struct stat status;
        struct semaphore *taken = REAL(fstat)(out, &status) == 0 && S_ISFIFO(status.st_mode) &&
                                          REAL(fstat)(in, &status) == 0 && S_ISFIFO(status.st_mode)
                                      ? free_one()
                                      : NULL;
        if (taken == NULL) {
            say("the semaphore %s of the parent process is not here", name);
            continue;
        }
        taken->out = private_keep(out, true);
        taken->in = private_keep(in, true);
        taken->unbounded = unbounded != 0;
        strcpy(taken->name, name);
        taken->users = 1;
    }
    publish();
}

void semaphores_before_fork(void) {
    pthread_mutex_lock(&lock);
}

void semaphores_after_fork(void) {
    pthread_mutex_unlock(&lock);
}

/* --- the calls --- */

HOOK sem_t *sem_open(const char *name, int flags, ...) {
    va_list arguments;

    va_start(arguments, flags);
    mode_t mode = (flags & O_CREAT) != 0 ? va_arg(arguments, mode_t) : 0;
    unsigned value = (flags & O_CREAT) != 0 ? va_arg(arguments, unsigned) : 0;
    va_end(arguments);
    return shares_memory() ? REAL(sem_open)(name, flags, mode, value) : open_named(name, flags, value);
}

HOOK int sem_close(sem_t *semaphore) {
    struct semaphore *own = ours(semaphore);

    if (own == NULL)
        return REAL(sem_close)(semaphore);
    pthread_mutex_lock(&lock);
    bool known = own->users != 0;
    if (known)
        drop(own);
    pthread_mutex_unlock(&lock);
    return known ? 0 : fail(EINVAL);
}

HOOK int sem_unlink(const char *name) {
    if (shares_memory())
        return REAL(sem_unlink)(name);
    pthread_mutex_lock(&lock);
    struct semaphore *there = named(name + strspn(name, "/"));
    if (there != NULL) {
        there->name[0] = '\0';
        REAL(fcntl)(there->out, F_SETFD, FD_CLOEXEC);
        REAL(fcntl)(there->in, F_SETFD, FD_CLOEXEC);
        drop(there);
        publish();
    }
    pthread_mutex_unlock(&lock);
    return there != NULL ? 0 : fail(ENOENT);
}

HOOK int sem_wait(sem_t *semaphore) {
    const struct semaphore *own = ours(semaphore);

    return own == NULL ? REAL(sem_wait)(semaphore) : wait_until(own, CLOCK_REALTIME, NULL);
}

HOOK int sem_timedwait(sem_t *semaphore, const struct timespec *deadline) {
    const struct semaphore *own = ours(semaphore);

    return own == NULL ? REAL(sem_timedwait)(semaphore, deadline) : wait_until(own, CLOCK_REALTIME, deadline);
}

HOOK int sem_clockwait(sem_t *semaphore, clockid_t clock, const struct timespec *deadline) {
    const struct semaphore *own = ours(semaphore);

    return own == NULL ? REAL(sem_clockwait)(semaphore, clock, deadline) : wait_until(own, clock, deadline);
}

HOOK int sem_trywait(sem_t *semaphore) {
    const struct semaphore *own = ours(semaphore);

    if (own == NULL)
        return REAL(sem_trywait)(semaphore);
    return own->unbounded ? wait_until(own, CLOCK_REALTIME, NULL) : take(own);
}

HOOK int sem_post(sem_t *semaphore) {
    const struct semaphore *own = ours(semaphore);

    if (own == NULL)
        return REAL(sem_post)(semaphore);
    if (!own->unbounded)
        return put(own);
    return take(own) == 0 || errno == EAGAIN ? 0 : -1;
}

HOOK int sem_getvalue(sem_t *semaphore, int *value) {
    const struct semaphore *own = ours(semaphore);
    int units;

    if (own == NULL)
        return REAL(sem_getvalue)(semaphore, value);
    if (REAL(ioctl)(own->out, FIONREAD, &units) != 0)
        return -1;
    /* never quite UNBOUNDED: multiprocessing would refuse to post what the pipe had no room to count */
    *value = own->unbounded ? (int)UNBOUNDED - (units == 0 ? 1 : units) : units;
    return 0;
}

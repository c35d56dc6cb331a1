#include "helpers.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>

#include "sys.h"

/* How often one looks before it sleeps, 50 to 200 µs: who reads a file to its end comes back sooner, and being woken
 * takes as long. */
#define LOOKS 4000
#define IDLE_SECONDS 2 /* then a helper ends: a process whose own threads have all ended must end, too */

struct work {
    helpers_function *function;
    void *argument;
    uint64_t items, most;
    unsigned threads;
};

/* Held by the thread whose parts are shared, and around fork. */
static pthread_mutex_t owner = PTHREAD_MUTEX_INITIALIZER;

/* What is to be done; `lock` guards it. What is atomic is looked at without it, too. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t offered = PTHREAD_COND_INITIALIZER, finished = PTHREAD_COND_INITIALIZER;
static struct work offered_work;
static bool open_for_work, ending;
static atomic_bool retired; /* one or more have ended for want of work */
static atomic_uint offers;  /* so many times there was something new, or the end */
static atomic_uint working; /* helpers that are at it */
static _Atomic uint64_t next_item;

/* Guarded by `owner`. */
static pthread_t threads[HELPERS_MAX];
static unsigned thread_count;
static bool tried; /* to begin them */
static _Atomic pid_t process; /* whose they are: what came by a raw clone or by vfork has none, with the same memory */
static unsigned readers;

static atomic_uint waiting; /* for `owner`: until they had it nobody takes it again to share */

/* Reached without `__tls_get_addr`, which may wait for the loader. */
#define THREAD_LOCAL static _Thread_local __attribute__((tls_model("initial-exec")))
THREAD_LOCAL bool at_work;     /* on a share, here or as a helper: the handler of a fault may fork then */
THREAD_LOCAL bool holds_owner; /* since before a fork */

static void pause_briefly(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

/* Locks `lock`, which others hold for some instructions only: sleeping for it would take a hundred times as long. */
static void lock_soon(void) {
    for (int i = 0; i < LOOKS; i++) {
        if (pthread_mutex_trylock(&lock) == 0)
            return;
        pause_briefly();
    }
    pthread_mutex_lock(&lock);
}

/* Takes less and less towards the end, so that nobody waits long for the one that is last. */
static void do_items(const struct work *work, unsigned thread) {
    uint64_t first = atomic_load(&next_item);

    while (first < work->items) {
        uint64_t count = (work->items - first) / (2 * work->threads);
        count = count > work->most ? work->most : count == 0 ? 1 : count;
        if (!atomic_compare_exchange_weak(&next_item, &first, first + count))
            continue;
        work->function(work->argument, thread, first, count);
        first = atomic_load(&next_item);
    }
}

/* Under the lock: the owner may just have seen that somebody works, and be about to sleep. */
static void wake_owner(void) {
    lock_soon();
    pthread_cond_signal(&finished);
    pthread_mutex_unlock(&lock);
}

/* Called with the lock held. Returns false after too long. */
static bool sleep_until_offered(unsigned seen) {
    struct timespec end;

    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += IDLE_SECONDS;
    while (atomic_load(&offers) == seen)
        if (pthread_cond_timedwait(&offered, &lock, &end) == ETIMEDOUT && atomic_load(&offers) == seen) {
            atomic_store(&retired, true);
            return false;
        }
    return true;
}

static void *help(void *number) {
    unsigned thread = (unsigned)(uintptr_t)number, seen = 0;

    lock_soon();
    while (!ending) {
        bool take = open_for_work && atomic_load(&offers) != seen;
        struct work work = offered_work;
        seen = atomic_load(&offers);
        if (take)
            atomic_fetch_add(&working, 1);
        pthread_mutex_unlock(&lock);
        if (take) {
            at_work = true;
            do_items(&work, thread);
            at_work = false;
            if (atomic_fetch_sub(&working, 1) == 1)
                wake_owner();
        }
        for (int i = 0; i < LOOKS && atomic_load(&offers) == seen; i++)
            pause_briefly();
        lock_soon();
        if (!sleep_until_offered(seen))
            break;
    }
    pthread_mutex_unlock(&lock);
    return NULL;
}

/* The application's signals are for its own threads. What a thread causes itself, by a bad pointer of the application's
 * or a system call that it traps, is met there: blocked, it would end the process without a handler. */
static void block_signals(sigset_t *before) {
    static const int own[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS};
    sigset_t blocked;

    sigfillset(&blocked);
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        sigdelset(&blocked, own[i]);
    pthread_sigmask(SIG_SETMASK, &blocked, before);
}

/* Called with signals blocked, which the threads inherit. */
static void begin(void) {
    cpu_set_t processors;
    unsigned wanted = 0;

    tried = true;
    if (sys_helpers_welcome() && sched_getaffinity(0, sizeof processors, &processors) == 0)
        wanted = (unsigned)CPU_COUNT(&processors) - 1;
    if (wanted > HELPERS_MAX)
        wanted = HELPERS_MAX;
    ending = false;
    while (thread_count < wanted &&
           pthread_create(&threads[thread_count], NULL, help, (void *)(uintptr_t)(thread_count + 1)) == 0) {
        pthread_setname_np(threads[thread_count], "sealfs-helper");
        thread_count++;
    }
}

static void end(void) {
    pthread_mutex_lock(&lock);
    ending = true;
    atomic_fetch_add(&offers, 1);
    pthread_cond_broadcast(&offered);
    pthread_mutex_unlock(&lock);
    for (; thread_count != 0; thread_count--)
        pthread_join(threads[thread_count - 1], NULL);
    atomic_store(&retired, false);
    tried = false;
}

static void lock_owner(void) {
    atomic_fetch_add(&waiting, 1);
    pthread_mutex_lock(&owner);
    atomic_fetch_sub(&waiting, 1);
}

void helpers_enter(void) {
    lock_owner();
    if (readers++ == 0)
        process = getpid();
    pthread_mutex_unlock(&owner);
}

void helpers_leave(void) {
    lock_owner();
    if (--readers == 0 && process == getpid())
        end();
    pthread_mutex_unlock(&owner);
}

static void share(const struct work *work) {
    pthread_mutex_lock(&lock);
    offered_work = *work;
    open_for_work = true;
    atomic_store(&next_item, 0);
    atomic_fetch_add(&offers, 1);
    pthread_cond_broadcast(&offered);
    pthread_mutex_unlock(&lock);
    at_work = true;
    do_items(work, 0);
    at_work = false;
    lock_soon();
    open_for_work = false; /* who comes now finds nothing */
    pthread_mutex_unlock(&lock);
    for (int i = 0; i < LOOKS && atomic_load(&working) != 0; i++)
        pause_briefly();
    if (atomic_load(&working) == 0)
        return;
    pthread_mutex_lock(&lock);
    while (atomic_load(&working) != 0)
        pthread_cond_wait(&finished, &lock);
    pthread_mutex_unlock(&lock);
}

/* Called with `owner` held and signals blocked. Returns false if nobody helps: then nothing was done. */
static bool try_to_share(struct work *work) {
    if (process != getpid())
        return false;
    if (atomic_load(&retired))
        end();
    if (!tried)
        begin();
    if (thread_count == 0)
        return false;
    work->threads = thread_count + 1;
    share(work);
    return true;
}

void helpers_share(helpers_function *function, void *argument, uint64_t items, uint64_t most) {
    struct work work = {function, argument, items, most, 1};
    bool shared = false;
    sigset_t signals;
    int cancellable;

    if (items > most && atomic_load(&waiting) == 0) {
        /* Neither cancelled nor by a handler's longjmp may this thread leave the others at work on its stack, and no
         * handler may run, and fork, while it is the owner. */
        pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancellable);
        block_signals(&signals);
        if (pthread_mutex_trylock(&owner) == 0) {
            shared = try_to_share(&work);
            pthread_mutex_unlock(&owner);
        }
        pthread_sigmask(SIG_SETMASK, &signals, NULL);
        pthread_setcancelstate(cancellable, NULL);
    }
    if (!shared)
        function(argument, 0, 0, items);
}

void helpers_before_fork(void) {
    /* In the handler of a fault in the middle of a share nobody can be waited for; a child of that reads alone, as does
     * one that has no helpers. */
    holds_owner = !at_work && process == getpid();
    if (!holds_owner)
        return;
    lock_owner();
    end();
}

void helpers_after_fork(void) {
    if (!holds_owner)
        return;
    if (process != getpid()) {
        process = getpid();
        atomic_store(&waiting, 0); /* they did not come along */
    }
    pthread_mutex_unlock(&owner);
}

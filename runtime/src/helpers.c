#include "helpers.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <unistd.h>

#include "sys.h"

/* How often one looks before it sleeps, 50 to 200 µs: who reads a file to its end comes back sooner, and being woken
 * takes as long. */
#define LOOKS 4000

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
static atomic_uint offers;  /* so many times there was something new, or the end */
static atomic_uint working; /* helpers that are at it */
static _Atomic uint64_t next_item;

/* Guarded by `owner`. */
static pthread_t threads[HELPERS_MAX];
static unsigned thread_count;
static bool tried; /* to begin them */
static pid_t process; /* whose they are: what came by a raw clone or by vfork has this memory, and no helpers */
static bool forking;  /* in that process */
static unsigned readers;

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
            do_items(&work, thread);
            if (atomic_fetch_sub(&working, 1) == 1)
                wake_owner();
        }
        for (int i = 0; i < LOOKS && atomic_load(&offers) == seen; i++)
            pause_briefly();
        lock_soon();
        while (atomic_load(&offers) == seen)
            pthread_cond_wait(&offered, &lock);
    }
    pthread_mutex_unlock(&lock);
    return NULL;
}

/* The application's signals are for its own threads; a bad pointer of its is met where it is used. */
static void block_signals(sigset_t *before) {
    sigset_t blocked;

    sigfillset(&blocked);
    sigdelset(&blocked, SIGSEGV);
    sigdelset(&blocked, SIGBUS);
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
    tried = false;
}

void helpers_enter(void) {
    pthread_mutex_lock(&owner);
    if (readers++ == 0)
        process = getpid();
    pthread_mutex_unlock(&owner);
}

void helpers_leave(void) {
    pthread_mutex_lock(&owner);
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
    do_items(work, 0);
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

/* Called with `owner` held. Returns false if nobody helps: then nothing was done. */
static bool try_to_share(struct work *work) {
    sigset_t signals;
    int cancellable;

    if (process != getpid() || (tried && thread_count == 0))
        return false;
    /* Neither cancelled nor by a signal handler's longjmp may this thread leave the others at work on its stack. */
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancellable);
    block_signals(&signals);
    if (!tried)
        begin();
    bool shared = thread_count != 0;
    work->threads = thread_count + 1;
    if (shared)
        share(work);
    pthread_sigmask(SIG_SETMASK, &signals, NULL);
    pthread_setcancelstate(cancellable, NULL);
    return shared;
}

void helpers_share(helpers_function *function, void *argument, uint64_t items, uint64_t most) {
    struct work work = {function, argument, items, most, 1};
    bool shared = false;

    if (items > most && pthread_mutex_trylock(&owner) == 0) {
        shared = try_to_share(&work);
        pthread_mutex_unlock(&owner);
    }
    if (!shared)
        function(argument, 0, 0, items);
}

void helpers_before_fork(void) {
    pthread_mutex_lock(&owner);
    forking = process == getpid();
    if (forking)
        end();
}

void helpers_after_fork(void) {
    if (forking)
        process = getpid();
    pthread_mutex_unlock(&owner);
}

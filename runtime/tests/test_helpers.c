/* Helper threads: each item is done once, whoever else is at it, before and after a fork; then they are gone. */
#include <dirent.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "helpers.h"

#define ITEMS 1000
#define MOST 4
#define ROUNDS 300
#define SHARERS 3

struct job {
    unsigned char done[ITEMS];       /* each is written by the one thread that does it */
    unsigned counts[HELPERS_THREADS];
    atomic_bool busy[HELPERS_THREADS]; /* no two threads have the same number */
};

static atomic_uint helped;
static atomic_bool stop;
static pthread_t first_thread;
static unsigned others; /* threads that are neither the first nor helpers: a sanitizer's */

static void sleep_microseconds(long microseconds) {
    nanosleep(&(struct timespec){0, microseconds * 1000}, NULL);
}

static void work(void *argument, unsigned thread, uint64_t first, uint64_t count) {
    struct job *job = argument;

    CHECK(thread < HELPERS_THREADS && !atomic_exchange(&job->busy[thread], true));
    for (uint64_t i = first; i < first + count; i++)
        job->done[i]++;
    job->counts[thread] += (unsigned)count;
    if (thread != 0)
        atomic_fetch_add(&helped, 1);
    atomic_store(&job->busy[thread], false);
}

static void share(uint64_t items) {
    struct job job;
    unsigned sum = 0;

    memset(&job, 0, sizeof job);
    helpers_share(work, &job, items, MOST);
    for (uint64_t i = 0; i < ITEMS; i++)
        CHECK(job.done[i] == (i < items));
    for (unsigned i = 0; i < HELPERS_THREADS; i++)
        sum += job.counts[i];
    CHECK(sum == items);
}

static void *keep_sharing(void *argument) {
    (void)argument;
    for (unsigned i = 0; !atomic_load(&stop); i++)
        share(1 + i * 37 % ITEMS);
    return NULL;
}

static void *do_nothing(void *argument) {
    return argument;
}

/* But for `others`. */
static unsigned count_threads(void) {
    DIR *directory = opendir("/proc/self/task");
    unsigned count = 0;

    CHECK(directory != NULL);
    for (struct dirent *item; (item = readdir(directory)) != NULL;)
        count += item->d_name[0] != '.';
    closedir(directory);
    return count - others;
}

/* The kernel counts a thread for a moment after it was joined. */
static void wait_for_threads(unsigned count) {
    for (int i = 0; i < 1000 && count_threads() != count; i++)
        sleep_microseconds(1000);
    CHECK(count_threads() == count);
}

static void on_alarm(int number) {
    (void)number;
    CHECK(pthread_equal(pthread_self(), first_thread)); /* of all threads here it is the only one that takes it */
}

static void fork_and_share(void) {
    helpers_before_fork();
    pid_t child = fork();
    CHECK(child >= 0);
    helpers_after_fork();
    if (child == 0) {
        for (int i = 0; i < 10; i++)
            share(ITEMS);
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

/* Its memory is this process's, and so seem the helpers. */
static void share_in_vfork_child(void) {
    static struct job job;

    memset(&job, 0, sizeof job);
    pid_t child = vfork();
    if (child == 0) {
        helpers_share(work, &job, ITEMS, MOST);
        helpers_before_fork();
        helpers_after_fork();
        _exit(0);
    }
    int status;
    CHECK(child > 0 && waitpid(child, &status, 0) == child && status == 0);
#ifndef __SANITIZE_THREAD__ /* which makes a vfork a fork */
    CHECK(job.counts[0] == ITEMS);
#endif
}

int main(void) {
    cpu_set_t processors, one;
    pthread_t sharers[SHARERS];
    unsigned wanted;

    first_thread = pthread_self();
    CHECK(pthread_create(&sharers[0], NULL, do_nothing, NULL) == 0 && pthread_join(sharers[0], NULL) == 0);
    sleep_microseconds(100000);
    others = count_threads() - 1;
    CHECK(sched_getaffinity(0, sizeof processors, &processors) == 0);
    wanted = (unsigned)CPU_COUNT(&processors) - 1;
    wanted = wanted < HELPERS_MAX ? wanted : HELPERS_MAX;

    share(ITEMS); /* nobody has entered: alone */
    CHECK(helped == 0);
    helpers_enter();
    helpers_enter();
    CHECK(count_threads() == 1);
    share(MOST); /* too little */
    CHECK(count_threads() == 1);
    for (int i = 0; i < ROUNDS || (wanted != 0 && helped == 0); i++)
        share(ITEMS);
    CHECK(count_threads() == 1 + wanted);
    sleep_microseconds(100000); /* they sleep by now, and have to be woken */
    unsigned before = helped;
    for (int i = 0; i < ROUNDS || (wanted != 0 && helped == before); i++)
        share(ITEMS);

    sigset_t signals, kept;
    sigemptyset(&signals);
    sigaddset(&signals, SIGALRM);
    pthread_sigmask(SIG_BLOCK, &signals, &kept);
    for (int i = 0; i < SHARERS; i++)
        CHECK(pthread_create(&sharers[i], NULL, keep_sharing, NULL) == 0);
    pthread_sigmask(SIG_SETMASK, &kept, NULL);
    CHECK(signal(SIGALRM, on_alarm) != SIG_ERR);
    setitimer(ITIMER_REAL, &(struct itimerval){{0, 1000}, {0, 1000}}, NULL);
    for (int i = 0; i < ROUNDS; i++)
        share(ITEMS);
    setitimer(ITIMER_REAL, &(struct itimerval){{0, 0}, {0, 0}}, NULL);
    for (int i = 0; i < 50; i++)
        fork_and_share();
    atomic_store(&stop, true);
    for (int i = 0; i < SHARERS; i++)
        CHECK(pthread_join(sharers[i], NULL) == 0);
    share(ITEMS);
    share_in_vfork_child();
    share(ITEMS);
    wait_for_threads(1 + wanted);

    helpers_leave();
    wait_for_threads(1 + wanted);
    helpers_leave();
    wait_for_threads(1);
    CPU_ZERO(&one);
    for (int i = 0; CPU_COUNT(&one) == 0; i++)
        if (CPU_ISSET(i, &processors))
            CPU_SET(i, &one);
    CHECK(sched_setaffinity(0, sizeof one, &one) == 0);
    helpers_enter();
    share(ITEMS);
    CHECK(count_threads() == 1);
    helpers_leave();
    puts("helpers");
    return 0;
}

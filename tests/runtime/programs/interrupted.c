/* What happens to a large read, or to its process, while others help with it. LARGE names the file.
 *
 *   interrupted MODE    see `main`; with -DCONSTRUCTOR a library that reads while it is loaded
 */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define SIZE (8u << 20)

static ssize_t read_large(void *out) {
    static int descriptor = -1;

    if (descriptor < 0)
        descriptor = open(getenv("LARGE"), O_RDONLY);
    return pread(descriptor, out, SIZE, 0);
}

#ifdef CONSTRUCTOR
__attribute__((constructor)) static void load(void) {
    printf("%zd\n", read_large(malloc(SIZE)));
}
#else
static int fork_and_wait(void) {
    int status = -1;
    pid_t child = fork();

    if (child == 0)
        _exit(read_large(malloc(SIZE)) == SIZE ? 0 : 1);
    waitpid(child, &status, 0);
    return status;
}

static sigjmp_buf before;
static volatile sig_atomic_t forks;

static void jump(int number) {
    (void)number;
    siglongjmp(before, 1);
}

static void fork_again(int number) {
    (void)number;
    if (fork_and_wait() != 0)
        _exit(3);
    forks++;
}

static void report(int number) {
    (void)number;
    _exit(fork_and_wait() == 0 ? 0 : 4);
}

static void interrupt(void handler(int), void *out) {
    signal(SIGALRM, handler);
    if (sigsetjmp(before, 1) == 0) {
        setitimer(ITIMER_REAL, &(struct itimerval){{0, 0}, {0, 3000}}, NULL);
        while (forks == 0)
            if (read_large(out) != SIZE)
                _exit(5);
    }
}

static void *last(void *out) {
    sleep(1); /* the first thread has ended by then */
    printf("%zd\n", read_large(out));
    return NULL;
}

int main(int count, char **arguments) {
    char *out = malloc(SIZE), *readable = mmap(NULL, SIZE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    pthread_t thread;

    if (count != 2 || read_large(out) != SIZE)
        return 2;
    /* The first two where signals wait for the end of a share; in the rest of a read they might meet a lock. */
    if (strcmp(arguments[1], "jump") == 0) /* a handler leaves the read, and then somebody forks */
        for (int i = 0; i < 2; i++) {
            interrupt(jump, out);
            if (fork_and_wait() != 0)
                return 3;
        }
    else if (strcmp(arguments[1], "fork") == 0) /* a handler forks */
        for (int i = 0; i < 2; i++) {
            forks = 0;
            interrupt(fork_again, out);
        }
    else if (strcmp(arguments[1], "fault") == 0) { /* the buffer is none, and a handler of that forks */
        signal(SIGSEGV, report);
        read_large(readable);
        return 6;
    } else if (strcmp(arguments[1], "exit") == 0) { /* of the first thread, then of the last */
        pthread_create(&thread, NULL, last, out);
        pthread_exit(NULL);
    }
    return 0;
}
#endif

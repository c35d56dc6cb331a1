#include "family.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "attachments.h"
#include "real.h"

#define PAUSE_NS 10000000 /* between two looks at who is still there */
#define PATIENT_LOOKS 100 /* of these pauses, before a kill */
#define LOOKS 150
#define TOLD_EVERY 10 /* looks: who joins meanwhile is told, too */

/* The file with the locks, or -1. */
static int members_file(void) {
    struct stat status;
    const struct attachment *first = &attachments[0];

    if (!anything_attached() || REAL(fstat)(first->state_file, &status) != 0 || status.st_ino != first->state_inode ||
        REAL(fcntl)(first->state_file, F_GET_SEALS) < 0) /* no memory file: it is not the other processes' */
        return -1;
    return first->state_file;
}

static void tell_parent(void) {
    pid_t parent = getppid(), head = attachments[0].head;

    if (head == 1) /* Gramine's first process: all others there are its descendants */
        kill(-1, FAMILY_SIGNAL);
    if (getpid() != head && (parent > 1 || parent == head))
        kill(parent, FAMILY_SIGNAL);
}

static void told(int number) {
    static const char text[] = "sealfs: another process has met damaged data: this one ends, too\n";

    (void)number;
    (void)!syscall(SYS_write, STDERR_FILENO, text, sizeof text - 1);
    if (members_file() < 0)
        tell_parent();
    _exit(SEALFS_EXIT_INTEGRITY);
}

void family_join(void) {
    struct sigaction action = {.sa_handler = told}, old;
    struct flock mine = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = getpid(), .l_len = 1};

    if (!anything_attached())
        return;
    if (sigaction(FAMILY_SIGNAL, NULL, &old) == 0 && (old.sa_flags & SA_SIGINFO) == 0 && old.sa_handler == SIG_DFL)
        sigaction(FAMILY_SIGNAL, &action, NULL); /* else it is the application's, and only the kill is left */
    int file = members_file();
    if (file >= 0)
        (void)REAL(fcntl)(file, F_SETLK, &mine);
}

/* Sends a signal to all other members; says whether there were any. */
static bool send_to_members(int file, int number) {
    struct flock found = {.l_start = 0};
    bool any = false;

    for (off_t start = 0;; start = found.l_start + 1) {
        found = (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = start};
        if (REAL(fcntl)(file, F_GETLK, &found) != 0 || found.l_type == F_UNLCK)
            return any;
        if (found.l_pid > 0) {
            any = true;
            kill(found.l_pid, number);
        }
    }
}

void family_end(void) {
    static const struct timespec pause = {.tv_nsec = PAUSE_NS};
    int file = members_file();

    if (file < 0) {
        if (anything_attached())
            tell_parent();
        return;
    }
    for (int look = 0; look < LOOKS; look++) {
        if (!send_to_members(file, look >= PATIENT_LOOKS ? SIGKILL : look % TOLD_EVERY == 0 ? FAMILY_SIGNAL : 0))
            return;
        nanosleep(&pause, NULL);
    }
}

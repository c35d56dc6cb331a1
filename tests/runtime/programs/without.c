/* Runs a program on a kernel that lacks what Gramine lacks: memfd_create, O_TMPFILE, preadv, pwritev.
 *
 *     without PROGRAM ARGUMENTS
 *
 * A seccomp filter makes the calls fail as they do there, for the program and all of its children. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LOAD(member) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, member))
#define IS(value, yes, no) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (value), (yes), (no))
#define HAS(bits, yes, no) BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, (bits), (yes), (no))
#define RETURN(value) BPF_STMT(BPF_RET | BPF_K, (value))
#define TMPFILE (O_TMPFILE & ~O_DIRECTORY)

int main(int count, char **arguments) {
    struct sock_filter filter[] = {
        /*  0 */ LOAD(arch),
        /*  1 */ IS(AUDIT_ARCH_X86_64, 1, 0),
        /*  2 */ RETURN(SECCOMP_RET_KILL_PROCESS),
        /*  3 */ LOAD(nr),
        /*  4 */ IS(SYS_memfd_create, 11, 0), /* to 16 */
        /*  5 */ IS(SYS_preadv, 10, 0),
        /*  6 */ IS(SYS_preadv2, 9, 0),
        /*  7 */ IS(SYS_pwritev, 8, 0),
        /*  8 */ IS(SYS_pwritev2, 7, 0),
        /*  9 */ IS(SYS_open, 1, 0),
        /* 10 */ IS(SYS_openat, 2, 4), /* to 13, 15 */
        /* 11 */ LOAD(args[1]),
        /* 12 */ HAS(TMPFILE, 4, 2), /* to 17, 15 */
        /* 13 */ LOAD(args[2]),
        /* 14 */ HAS(TMPFILE, 2, 0), /* to 17, 15 */
        /* 15 */ RETURN(SECCOMP_RET_ALLOW),
        /* 16 */ RETURN(SECCOMP_RET_ERRNO | ENOSYS),
        /* 17 */ RETURN(SECCOMP_RET_ERRNO | EISDIR),
    };
    struct sock_fprog program = {sizeof filter / sizeof *filter, filter};

    if (count < 2 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
        perror("without");
        return 125;
    }
    execvp(arguments[1], arguments + 1);
    perror(arguments[1]);
    return 127;
}

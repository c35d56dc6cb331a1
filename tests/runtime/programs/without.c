/* Runs a program on a kernel that lacks what Gramine lacks: memfd_create, O_TMPFILE.
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
        /*  4 */ IS(SYS_memfd_create, 7, 0), /* to 12 */
        /*  5 */ IS(SYS_open, 1, 0),
        /*  6 */ IS(SYS_openat, 2, 4), /* to 9, 11 */
        /*  7 */ LOAD(args[1]),
        /*  8 */ HAS(TMPFILE, 4, 2), /* to 13, 11 */
        /*  9 */ LOAD(args[2]),
        /* 10 */ HAS(TMPFILE, 2, 0), /* to 13, 11 */
        /* 11 */ RETURN(SECCOMP_RET_ALLOW),
        /* 12 */ RETURN(SECCOMP_RET_ERRNO | ENOSYS),
        /* 13 */ RETURN(SECCOMP_RET_ERRNO | EISDIR),
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

/* What is asked of descriptors besides reading: dup2, fcntl, locks, ioctl. dup() needs no hook (descriptors.h). */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "damage.h"
#include "descriptors.h"
#include "reads.h"
#include "real.h"

/* Of the placeholder, and of how it was made, which Gramine shows, too. */
#define OWN_FLAGS (O_ACCMODE | O_TMPFILE | O_CREAT | O_EXCL | O_CLOEXEC)

/* The numbers that this library keeps are as good as beyond the limit. */
HOOK int dup2(int from, int to) {
    return private_is(to) && from != to ? fail(EBADF) : REAL(dup2)(from, to);
}

HOOK int dup3(int from, int to, int flags) {
    return private_is(to) ? fail(EBADF) : REAL(dup3)(from, to, flags);
}

/* Nobody writes to a sealed file: shared locks are always free, exclusive ones need a descriptor open for writing. */
static int lock_sealed(int command, struct flock *lock) {
    if (command == F_GETLK || command == F_OFD_GETLK) {
        lock->l_type = F_UNLCK;
        return 0;
    }
    return lock->l_type == F_WRLCK ? fail(EBADF) : 0;
}

HOOK int fcntl(int number, int command, ...) {
    struct descriptor descriptor;
    va_list arguments;

    va_start(arguments, command);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    if (!sealed_file(number, &descriptor))
        return REAL(fcntl)(number, command, argument);
    switch (command) {
    case F_GETFL: {
        int flags = REAL(fcntl)(number, F_GETFL);
        return flags < 0 ? -1 : (flags & ~OWN_FLAGS) | descriptor.flags | O_RDONLY;
    }
    case F_GETLK:
    case F_SETLK:
    case F_SETLKW:
    case F_OFD_GETLK:
    case F_OFD_SETLK:
    case F_OFD_SETLKW:
        return lock_sealed(command, argument);
    case F_ADD_SEALS:
        return fail(EPERM);
    case F_GET_SEALS:
        return fail(EINVAL);
    default:
        return REAL(fcntl)(number, command, argument);
    }
}

int fcntl64(int number, int command, ...) SAME_AS(fcntl);

HOOK int lockf(int number, int command, off_t length) {
    struct descriptor descriptor;

    if (!sealed_file(number, &descriptor))
        return REAL(lockf)(number, command, length);
    return command == F_LOCK || command == F_TLOCK ? fail(EBADF) : 0;
}

/* Placeholders are shared, or each open file's own: a lock of theirs would keep the wrong ones out. A sealed file
 * needs no lock, as nobody writes to it. */
HOOK int flock(int number, int operation) {
    struct descriptor descriptor;
    int what = operation & ~LOCK_NB;

    if (!sealed_file(number, &descriptor))
        return REAL(flock)(number, operation);
    return what == LOCK_SH || what == LOCK_EX || what == LOCK_UN ? 0 : fail(EINVAL);
}

int lockf64(int number, int command, off64_t length) SAME_AS(lockf);

HOOK int ioctl(int number, ioctl_request request, ...) {
    struct descriptor descriptor;
    va_list arguments;

    va_start(arguments, request);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    if (request != FIONREAD || !sealed_file(number, &descriptor))
        return REAL(ioctl)(number, request, argument);
    off_t here = descriptor_seek(number, &descriptor, 0, SEEK_CUR), left = (off_t)sealed_size(descriptor.at, descriptor.entry) - here;
    if (here < 0)
        return -1;
    *(int *)argument = (int)left;
    return 0;
}

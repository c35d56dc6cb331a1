#include "real.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "report.h"
#include "sys.h"

#define PROTECTABLE 4096 /* numbers that can be protected; private ones are chosen below */
#define USUAL_LIMIT 1024
#define ROOM_FOR_PRIVATE 124

static atomic_ulong protected_numbers[PROTECTABLE / 64];

void *real_find(const char *name) {
    void *function = dlsym(RTLD_NEXT, name);

    if (function == NULL)
        stop("libc has no function %s", name);
    return function;
}

int fail(int error) {
    errno = error;
    return -1;
}

bool private_is(int descriptor) {
    return descriptor >= 0 && descriptor < PROTECTABLE &&
           (atomic_load_explicit(&protected_numbers[descriptor / 64], memory_order_relaxed) >> descriptor % 64 & 1) != 0;
}

/* What the core needs of libc, looked up in one place each: `sys_helpers_welcome` has it done before there are helpers,
 * which must not wait for the loader's lock: who waits for them may have it. */
#define LOOKED_UP_ONCE(name)                                                                                       \
    static __typeof__(&name) libc_##name(void) {                                                                   \
        return REAL(name);                                                                                         \
    }
LOOKED_UP_ONCE(open)
LOOKED_UP_ONCE(close)
LOOKED_UP_ONCE(fcntl)
LOOKED_UP_ONCE(fstat)
LOOKED_UP_ONCE(pread)
LOOKED_UP_ONCE(mmap)
LOOKED_UP_ONCE(munmap)

static int first_private_number(void) {
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= USUAL_LIMIT)
        return USUAL_LIMIT - ROOM_FOR_PRIVATE;
    return (int)limit.rlim_cur / 2;
}

int private_keep(int descriptor, bool inherit) {
    int moved = libc_fcntl()(descriptor, inherit ? F_DUPFD : F_DUPFD_CLOEXEC, first_private_number());
    int error = errno;

    libc_close()(descriptor);
    if (moved < 0)
        return fail(error);
    if (inherit)
        libc_fcntl()(moved, F_SETFD, 0); /* Gramine 1.9's F_DUPFD leaves FD_CLOEXEC as it was */
    if (moved < PROTECTABLE)
        atomic_fetch_or(&protected_numbers[moved / 64], 1ul << moved % 64);
    return moved;
}

void private_close(int descriptor) {
    if (private_is(descriptor))
        atomic_fetch_and(&protected_numbers[descriptor / 64], ~(1ul << descriptor % 64));
    libc_close()(descriptor);
}

int private_next(int from) {
    for (int number = from + 1; number < PROTECTABLE; number++)
        if (private_is(number))
            return number;
    return -1;
}

const char *scratch_folder(void) {
    static const char *const folders[] = {"/dev/shm", "/tmp", "/run"};
    static _Atomic(const char *) chosen;
    const char *folder = atomic_load(&chosen);

    for (size_t i = 0; folder == NULL && i < sizeof folders / sizeof *folders; i++)
        if (REAL(access)(folders[i], W_OK | X_OK) == 0)
            folder = folders[i];
    if (folder == NULL)
        stop("none of /dev/shm, /tmp and /run can be written to");
    atomic_store(&chosen, folder);
    return folder;
}

int memory_file(const char *name) {
    int descriptor = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    char path[64];

    if (descriptor >= 0 || errno != ENOSYS)
        return descriptor;
    snprintf(path, sizeof path, "%s/.sealfs-XXXXXX", scratch_folder());
    descriptor = REAL(mkostemp)(path, O_CLOEXEC);
    if (descriptor >= 0)
        REAL(unlink)(path);
    return descriptor;
}

bool shares_memory(void) {
    static _Atomic int answer; /* 0: not asked yet */
    int known = atomic_load(&answer);

    if (known == 0) {
        int error = errno, file = memfd_create("sealfs-probe", MFD_CLOEXEC);
        known = file < 0 && errno == ENOSYS ? 2 : 1;
        if (file >= 0)
            REAL(close)(file);
        errno = error;
        atomic_store(&answer, known);
    }
    return known == 1;
}

int write_all(int descriptor, const void *bytes, size_t size) {
    const char *at = bytes;

    while (size > 0) {
        ssize_t count = REAL(write)(descriptor, at, size);
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0)
            return -1;
        at += count;
        size -= (size_t)count;
    }
    return 0;
}

/* --- what the core needs (sys.h) --- */

int sys_open(const char *path) {
    int descriptor = libc_open()(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);

    return descriptor < 0 ? -1 : private_keep(descriptor, false);
}

int sys_close(int descriptor) {
    private_close(descriptor);
    return 0;
}

int sys_fstat(int descriptor, struct stat *status) {
    return libc_fstat()(descriptor, status);
}

ssize_t sys_pread(int descriptor, void *out, size_t size, uint64_t offset) {
    return libc_pread()(descriptor, out, size, (off_t)offset);
}

void *sys_map(size_t size) {
    void *start = libc_mmap()(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    return start == MAP_FAILED ? NULL : start;
}

int sys_unmap(void *start, size_t size) {
    return libc_munmap()(start, size);
}

bool sys_helpers_welcome(void) {
    (void)libc_open(), (void)libc_close(), (void)libc_fcntl(), (void)libc_fstat(), (void)libc_pread();
    (void)libc_mmap(), (void)libc_munmap();
    return shares_memory(); /* not in Gramine: each would take one of the enclave's threads, and wait outside of it */
}

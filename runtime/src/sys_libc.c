#include "sys.h"

#include <fcntl.h>
#include <unistd.h>

int sys_open(const char *path) {
    return open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
}

int sys_close(int descriptor) {
    return close(descriptor);
}

int sys_fstat(int descriptor, struct stat *status) {
    return fstat(descriptor, status);
}

ssize_t sys_pread(int descriptor, void *out, size_t size, uint64_t offset) {
    return pread(descriptor, out, size, (off_t)offset);
}

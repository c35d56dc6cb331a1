#include "sys.h"

#include <fcntl.h>
#include <sys/mman.h>
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

void *sys_map(size_t size) {
    void *start = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    return start == MAP_FAILED ? NULL : start;
}

int sys_unmap(void *start, size_t size) {
    return munmap(start, size);
}

bool sys_helpers_welcome(void) {
    return true;
}

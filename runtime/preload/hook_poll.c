/* poll and select. A file is always ready, and Linux says so of a placeholder as well; Gramine says of one, which is
 * write-only, that it is never ready to be read, and a caller would wait for ever. Elsewhere nothing is done here.
 */
#include <poll.h>
#include <stdbool.h>
#include <sys/select.h>
#include <time.h>

#include "attachments.h"
#include "descriptors.h"
#include "reads.h"
#include "real.h"
#include "report.h"

#define MAX_POLLED 4096 /* descriptors that a process can have in our manifest */
#define READY (POLLIN | POLLRDNORM | POLLOUT | POLLWRNORM)

static const struct timespec no_time;

static bool is_file(int number) {
    struct descriptor descriptor;

    return number >= 0 && sealed_file(number, &descriptor) && descriptor.kind == DESCRIPTOR_FILE;
}

static bool concerns(nfds_t count) {
    return anything_attached() && count <= MAX_POLLED && !shares_memory();
}

/* Takes sealed files out of what is asked of the kernel, which ignores negative numbers. Returns how many are ready. */
static int hide(struct pollfd *items, nfds_t count, bool *hidden) {
    int ready = 0;

    for (nfds_t i = 0; i < count; i++) {
        hidden[i] = (items[i].events & READY) != 0 && is_file(items[i].fd);
        if (hidden[i]) {
            items[i].fd = ~items[i].fd;
            ready++;
        }
    }
    return ready;
}

static int show(struct pollfd *items, nfds_t count, const bool *hidden, int ready, int others) {
    for (nfds_t i = 0; i < count; i++)
        if (hidden[i]) {
            items[i].fd = ~items[i].fd;
            items[i].revents = items[i].events & READY;
        }
    return others < 0 ? others : ready + others;
}

HOOK int poll(struct pollfd *items, nfds_t count, int timeout) {
    if (!concerns(count))
        return REAL(poll)(items, count, timeout);
    bool hidden[MAX_POLLED];
    int ready = hide(items, count, hidden);
    return show(items, count, hidden, ready, REAL(poll)(items, count, ready != 0 ? 0 : timeout));
}

HOOK int ppoll(struct pollfd *items, nfds_t count, const struct timespec *timeout, const sigset_t *mask) {
    if (!concerns(count))
        return REAL(ppoll)(items, count, timeout, mask);
    bool hidden[MAX_POLLED];
    int ready = hide(items, count, hidden);
    return show(items, count, hidden, ready, REAL(ppoll)(items, count, ready != 0 ? &no_time : timeout, mask));
}

int __poll_chk(struct pollfd *items, nfds_t count, int timeout, size_t room);
int __ppoll_chk(struct pollfd *items, nfds_t count, const struct timespec *timeout, const sigset_t *mask, size_t room);

HOOK int __poll_chk(struct pollfd *items, nfds_t count, int timeout, size_t room) {
    if (room / sizeof *items < count)
        stop("buffer overflow in poll");
    return poll(items, count, timeout);
}

HOOK int __ppoll_chk(struct pollfd *items, nfds_t count, const struct timespec *timeout, const sigset_t *mask,
                     size_t room) {
    if (room / sizeof *items < count)
        stop("buffer overflow in ppoll");
    return ppoll(items, count, timeout, mask);
}

/* Moves sealed files from `wanted` to `ready`. Returns how many. */
static int take(int limit, fd_set *wanted, fd_set *ready) {
    int count = 0;

    FD_ZERO(ready);
    for (int number = 0; wanted != NULL && number < limit && number < FD_SETSIZE; number++)
        if (FD_ISSET(number, wanted) && is_file(number)) {
            FD_CLR(number, wanted);
            FD_SET(number, ready);
            count++;
        }
    return count;
}

static int give(int limit, fd_set *wanted, const fd_set *ready, int count, int others) {
    for (int number = 0; count > 0 && others >= 0 && number < limit && number < FD_SETSIZE; number++)
        if (FD_ISSET(number, ready))
            FD_SET(number, wanted);
    return others < 0 ? others : count + others;
}

HOOK int select(int limit, fd_set *reading, fd_set *writing, fd_set *failing, struct timeval *timeout) {
    struct timeval none = {0, 0};
    fd_set ready;

    if (!concerns(0))
        return REAL(select)(limit, reading, writing, failing, timeout);
    int count = take(limit, reading, &ready);
    int others = REAL(select)(limit, reading, writing, failing, count != 0 ? &none : timeout);
    return give(limit, reading, &ready, count, others);
}

HOOK int pselect(int limit, fd_set *reading, fd_set *writing, fd_set *failing, const struct timespec *timeout,
                 const sigset_t *mask) {
    fd_set ready;

    if (!concerns(0))
        return REAL(pselect)(limit, reading, writing, failing, timeout, mask);
    int count = take(limit, reading, &ready);
    int others = REAL(pselect)(limit, reading, writing, failing, count != 0 ? &no_time : timeout, mask);
    return give(limit, reading, &ready, count, others);
}

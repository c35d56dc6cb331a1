#include "cwd.h"

#include <stdatomic.h>
#include <unistd.h>

#define VFORK_CHILDREN 16 /* that may be between vfork and exec at the same time, each with a directory of its own */

static struct sealed_cwd own_cwd;
static pid_t process;
static atomic_uint children_count; /* slots ever used */
static struct {
    pid_t pid;
    struct sealed_cwd cwd;
} children[VFORK_CHILDREN];

void note_process(void) {
    process = getpid();
    atomic_store(&children_count, 0);
}

static bool is_vfork_child(void) {
    return process != 0 && getpid() != process;
}

struct sealed_cwd get_sealed_cwd(void) {
    if (atomic_load_explicit(&children_count, memory_order_acquire) != 0 && is_vfork_child())
        for (int i = 0; i < VFORK_CHILDREN; i++)
            if (children[i].pid == getpid())
                return children[i].cwd;
    return own_cwd;
}

bool set_sealed_cwd(struct attachment *at, uint32_t entry) {
    struct sealed_cwd cwd = {at, entry};

    if (is_vfork_child()) {
        unsigned place = atomic_fetch_add(&children_count, 1) % VFORK_CHILDREN;
        for (unsigned i = 0; i < VFORK_CHILDREN; i++)
            if (children[i].pid == getpid())
                place = i;
        children[place].cwd = cwd;
        children[place].pid = getpid();
        return false;
    }
    bool changed = own_cwd.at != at || own_cwd.entry != entry;
    own_cwd = cwd;
    return changed;
}

/* What is attached where, and how that is handed to exec'd children: a sealed memory file for each dataset, whose
 * number stands in the environment variable SEALFS_RUNTIME.
 *
 * Threading: attachments are only ever added, and immutable once `attachment_count` includes them.
 */
#ifndef SEALFS_ATTACHMENTS_H
#define SEALFS_ATTACHMENTS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <sys/stat.h>

#include "sealfs.h"

#define MAX_ATTACHMENTS 16
#define RUNTIME_VARIABLE "SEALFS_RUNTIME"
#define RUNTIME_VARIABLE_SIZE 256

struct attachment {
    struct sealfs *core;
    const char *mount; /* canonical */
    size_t mount_length;
    const char *given; /* as the caller wrote it; may lead through symlinks */
    size_t given_length;
    dev_t mount_device; /* of the empty directory that is really there */
    ino_t mount_inode;
    dev_t device; /* st_dev of what is served */
    uint32_t flags;
    uint32_t number;
    const void *state; /* mapped: all that a child needs, the index included */
    size_t state_size;
    int state_file; /* private, inherited */
    ino_t state_inode;
    pid_t head; /* the process that attached it */
};

extern struct attachment attachments[MAX_ATTACHMENTS];
extern atomic_uint attachment_count;

/* The current directory, when it is inside a sealed tree: the kernel's is then the mount path. A vfork child, which
 * shares this memory, has its own. */
struct sealed_cwd {
    struct attachment *at; /* NULL: the kernel's current directory counts */
    uint32_t entry;
};
struct sealed_cwd get_sealed_cwd(void);
void set_sealed_cwd(struct attachment *at, uint32_t entry);

/* Whether this is a vfork child: its memory is its parent's. */
bool is_vfork_child(void);

/* Notes the process's number: at start and after fork. */
void note_process(void);

static inline bool anything_attached(void) {
    return atomic_load_explicit(&attachment_count, memory_order_acquire) != 0;
}

/* The attachment whose mount path is this directory, or NULL. */
struct attachment *attachment_at(const struct stat *status);

/* Writes the variable's value for a child that inherits `table` (see descriptors.h), or -1; makes sure that the
 * state files are there to be inherited. Returns 0 or -1. Safe in a vfork child. */
int runtime_variable(char value[RUNTIME_VARIABLE_SIZE], int table);

/* What a child's constructor does with the variable. */
void attach_inherited(void);

/* Turns the core's error into errno and returns -1; ends the process if the error is damage. */
int refuse_damaged(struct attachment *at, int error);

/* Ends the process: bytes were handed out already, so an error could be taken for the end of a file. */
void stop_damaged(struct attachment *at, int error) __attribute__((noreturn));

/* Where everything lies for the application: mount path and the entry's path in it. Returns 0 or an errno. */
int full_path(const struct attachment *at, uint32_t entry, char *path, size_t size);

#endif

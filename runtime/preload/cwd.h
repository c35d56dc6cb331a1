/* The current directory, when it is inside a sealed tree: the kernel's is then the mount path.
 *
 * Threading: the process's, as the kernel's is. A vfork child, which shares this memory, has its own.
 */
#ifndef SEALFS_CWD_H
#define SEALFS_CWD_H

#include <stdbool.h>
#include <stdint.h>

#include "attachments.h"

struct sealed_cwd {
    struct attachment *at; /* NULL: the kernel's current directory counts */
    uint32_t entry;
};
struct sealed_cwd get_sealed_cwd(void);

/* Whether children have to be told (inherit.h). */
bool set_sealed_cwd(struct attachment *at, uint32_t entry);

/* Notes the process's number: at start and after fork. */
void note_process(void);

#endif

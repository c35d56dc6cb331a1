/* What the life of the process has to do with semaphores (hook_semaphore.c). */
#ifndef SEALFS_SEMAPHORES_H
#define SEALFS_SEMAPHORES_H

#define SEMAPHORES_VARIABLE "SEALFS_SEMAPHORES"

/* Around fork: the table must be whole in the child. */
void semaphores_before_fork(void);
void semaphores_after_fork(void);

/* At the start: takes over those that the parent process had names for. */
void semaphores_inherit(void);

#endif

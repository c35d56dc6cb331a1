/* For fork: the table of semaphores must be whole in the child (hook_semaphore.c). */
#ifndef SEALFS_SEMAPHORES_H
#define SEALFS_SEMAPHORES_H

void semaphores_before_fork(void);
void semaphores_after_fork(void);

#endif

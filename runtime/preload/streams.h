/* Around fork: the list of sealed FILEs must be whole in the child. */
#ifndef SEALFS_STREAMS_H
#define SEALFS_STREAMS_H

void streams_before_fork(void);
void streams_after_fork(void);

#endif

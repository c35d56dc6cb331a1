/* What becomes of the core's errors: an errno, or the end of the process. */
#ifndef SEALFS_DAMAGE_H
#define SEALFS_DAMAGE_H

#include "attachments.h"

/* Turns the core's error into errno and returns -1; ends the process if the error is damage. */
int refuse_damaged(struct attachment *at, int error);

/* Ends the process: bytes were handed out already, so an error could be taken for the end of a file. */
void stop_damaged(struct attachment *at, int error) __attribute__((noreturn));

/* The size of an entry's file, which was found before. */
uint64_t sealed_size(struct attachment *at, uint32_t entry);

#endif

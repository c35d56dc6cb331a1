/* The memory file that holds an attachment, and the variable that names it. */
#ifndef SEALFS_STATE_H
#define SEALFS_STATE_H

#include "attachments.h"

/* Writes options and index to a new memory file. `mount` is the empty directory's status. Returns its descriptor (not yet private), or a negative errno. */
int state_write(const struct sealfs_options *options, const char *given, const struct stat *mount);

/* Maps a state file and attaches what it says. Takes the descriptor over. Returns 0 or a negative errno. */
int state_attach(int descriptor, char *message, size_t message_size);

/* Updates the variable in this process's own environment, for children that no hook sees. */
void state_publish(void);

/* Appends to `value` the numbers of all state files. Returns 0 or -1 with errno set. */
int state_numbers(char *value, size_t size);

#endif

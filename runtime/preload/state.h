/* The memory file that holds an attachment: options, keys and index. */
#ifndef SEALFS_STATE_H
#define SEALFS_STATE_H

#include "attachments.h"

/* Writes options and index to a new memory file. `mount` is the empty directory's status. Returns its descriptor (not
 * yet private), or a negative errno. */
int state_write(const struct sealfs_options *options, const char *given, const struct stat *mount);

/* Maps a state file and attaches what it says. Takes the descriptor over. Returns 0 or a negative errno. */
int state_attach(int descriptor, char *message, size_t message_size);

#endif

/* What exec'd children get: for each dataset a sealed memory file (state.h), the current directory, and a table of open
 * descriptors (descriptors.h). The environment variable SEALFS_RUNTIME names them.
 *
 * Threading: as for the environment.
 */
#ifndef SEALFS_INHERIT_H
#define SEALFS_INHERIT_H

#define RUNTIME_VARIABLE "SEALFS_RUNTIME"
#define RUNTIME_VARIABLE_SIZE 256

/* Writes the variable's value for a child that inherits `table`, or -1; makes sure that the state files are there to
 * be inherited. Returns 0 or -1. Safe in a vfork child. */
int inherit_variable(char value[RUNTIME_VARIABLE_SIZE], int table);

/* Updates the variable in this process's own environment, for children that no hook sees. */
void inherit_publish(void);

/* What a child's constructor does with the variable. */
void inherit_attachments(void);

#endif

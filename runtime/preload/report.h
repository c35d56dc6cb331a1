/* What the library says, on standard error, and how it ends a process. */
#ifndef SEALFS_REPORT_H
#define SEALFS_REPORT_H

/* Reads SEALFS_DEBUG_CALLS; called once, before anything is attached. */
void report_initialise(void);

/* One line. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* One line, then the end: SEALFS_EXIT_INTEGRITY. Nothing is flushed and no handler runs. */
void stop(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/* Debug mode only: a call that touched a sealed path and is not served. Keeps errno. */
void unserved(const char *call, const char *what);

#endif

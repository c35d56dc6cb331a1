#include "report.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sealfs.h"

static bool debug;

void report_initialise(void) {
    const char *value = getenv("SEALFS_DEBUG_CALLS");

    debug = value != NULL && strcmp(value, "") != 0 && strcmp(value, "0") != 0;
}

/* Names are the provider's: leaves nothing of UTF-8 that a terminal would obey. Those are control characters, and
 * among U+2000 to U+207F what turns the direction or begins another line. */
static void tame(char *text, size_t size) {
    for (size_t i = 0; i < size; i++) {
        unsigned char byte = (unsigned char)text[i], next = i + 1 < size ? (unsigned char)text[i + 1] : 0;
        size_t length = byte < ' ' || byte == 0x7f                       ? 1
                        : byte == 0xc2 && next < 0xa0                     ? 2
                        : byte == 0xe2 && (next == 0x80 || next == 0x81) ? 3
                                                                          : 0;
        if (length != 0)
            memset(text + i, '?', length < size - i ? length : size - i);
    }
}

/* By the system call: stdio may be what has gone wrong, and write() is interposed. */
static void put_line(const char *format, va_list arguments) {
    char line[1024] = "sealfs: ";
    int length = vsnprintf(line + 8, sizeof line - 9, format, arguments);
    size_t size = 8 + (length < 0 ? 0 : (size_t)length < sizeof line - 9 ? (size_t)length : sizeof line - 10);

    tame(line, size);
    line[size++] = '\n';
    (void)!syscall(SYS_write, STDERR_FILENO, line, size);
}

void say(const char *format, ...) {
    int error = errno;
    va_list arguments;

    va_start(arguments, format);
    put_line(format, arguments);
    va_end(arguments);
    errno = error;
}

void stop(const char *format, ...) {
    va_list arguments;

    va_start(arguments, format);
    put_line(format, arguments);
    va_end(arguments);
    _exit(SEALFS_EXIT_INTEGRITY);
}

void unserved(const char *call, const char *what) {
    if (debug)
        say("not served: %s of %s", call, what);
}

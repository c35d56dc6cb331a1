/* Starting programs: children see the same files. They inherit the state files (state.h) and, where sealed
 * descriptors are open, a table of those; what names them, and this library, is put into the child's environment
 * even if the caller made an empty one.
 *
 * Threading: safe in a vfork child, which runs in its parent's memory: nothing here outlives the call.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "damage.h"
#include "descriptors.h"
#include "inherit.h"
#include "opens.h"
#include "place.h"
#include "real.h"
#include "report.h"
#include "semaphores.h"

#define PRELOAD_SIZE 8192
#define MAX_ARGUMENTS 65536
#define ROOM 4 /* for what is put into an environment, and its end */

extern char **environ;

static const char libraries_name[] = "LD_LIBRARY_PATH";
static char libraries[PRELOAD_SIZE]; /* that variable as this process got it; "": it did not, or it is not needed */

/* What a child needs to be started. */
struct child {
    int table; /* to be closed if there is no child after all; -1: none */
    char variable[sizeof RUNTIME_VARIABLE + 1 + RUNTIME_VARIABLE_SIZE];
    char preload[PRELOAD_SIZE];
};

/* A sealed program as a file that the kernel can read. */
struct program {
    int number;    /* open as long as the file is needed; -1: none */
    char path[64]; /* ending in XXXXXX at first; "": none */
};

__attribute__((constructor)) static void note_libraries(void) {
    const char *value = getenv(libraries_name);

    if (value != NULL && strlen(libraries_name) + 1 + strlen(value) < sizeof libraries && !shares_memory())
        snprintf(libraries, sizeof libraries, "%s=%s", libraries_name, value);
}

static bool is_variable(const char *item, const char *name) {
    size_t length = strlen(name);

    return strncmp(item, name, length) == 0 && item[length] == '=';
}

static size_t length_of(char *const *list) {
    size_t count = 0;

    while (list != NULL && list[count] != NULL)
        count++;
    return count;
}

/* Whether the list of libraries in LD_PRELOAD has this one. */
static bool lists(const char *value, const char *library) {
    size_t length = strlen(library);

    for (const char *at = strstr(value, library); at != NULL; at = strstr(at + 1, library))
        if ((at == value || strchr(": ", at[-1]) != NULL) && strchr(": ", at[length]) != NULL)
            return true; /* strchr finds the end of a string, too */
    return false;
}

/* Fills `out`, which has room for three more than `given`, with the child's environment. In Gramine it needs the paths
 * of libraries as well: its C library finds no other in the usual folders. */
static int prepare(struct child *child, char *const *given, char **out) {
    static const char runtime[] = RUNTIME_VARIABLE "=", preload[] = "LD_PRELOAD=";
    const char *old = NULL;
    Dl_info self;
    size_t count = 0;
    bool has_libraries = libraries[0] == '\0';

    child->table = descriptors_table();
    if (child->table == -2 || dladdr((void *)prepare, &self) == 0)
        return -1;
    memcpy(child->variable, runtime, sizeof runtime);
    if (inherit_variable(child->variable + sizeof runtime - 1, child->table) != 0)
        return -1;
    for (; given != NULL && *given != NULL; given++)
        if (is_variable(*given, "LD_PRELOAD"))
            old = *given + sizeof preload - 1;
        else if (!is_variable(*given, RUNTIME_VARIABLE)) {
            has_libraries |= is_variable(*given, libraries_name);
            out[count++] = *given;
        }
    if (old == NULL || old[0] == '\0')
        old = NULL;
    bool there = old != NULL && lists(old, self.dli_fname);
    int size = there || old == NULL
                   ? snprintf(child->preload, sizeof child->preload, "%s%s", preload, there ? old : self.dli_fname)
                   : snprintf(child->preload, sizeof child->preload, "%s%s:%s", preload, self.dli_fname, old);
    if (size < 0 || (size_t)size >= sizeof child->preload)
        return fail(E2BIG);
    out[count++] = child->preload;
    out[count++] = child->variable;
    if (!has_libraries)
        out[count++] = libraries;
    out[count] = NULL;
    return 0;
}

static void forget(struct child *child) {
    int error = errno;

    if (child->table >= 0)
        private_close(child->table);
    errno = error;
}

/* Where a file without a name can't be executed (Gramine): one with a name, in memory that only this process sees. */
static int write_program(struct place *place, struct program *program) {
    snprintf(program->path, sizeof program->path, "%s/.sealfs-program-XXXXXX", scratch_folder());
    int file = REAL(mkostemp)(program->path, O_CLOEXEC);
    if (file < 0) {
        program->path[0] = '\0';
        return -1;
    }
    int error = descriptor_copy(place->at, place->entry, file) != 0 || REAL(fchmod)(file, 0555) != 0 ? errno : 0;
    REAL(close)(file);
    return error == 0 ? 0 : fail(error);
}

/* Makes the file for a sealed program. Returns 0 or -1; `discard` in either case. */
static int executable(struct place *place, struct program *program) {
    struct stat status;
    int error = sealfs_stat(place->at->core, place->entry, &status);

    if (error != 0)
        return refuse_damaged(place->at, error);
    if (!S_ISREG(status.st_mode) || (status.st_mode & (S_IXUSR | S_IXGRP | S_IXOTH)) == 0)
        return fail(EACCES);
    program->number = descriptor_materialise(place->at, place->entry, O_RDONLY);
    if (program->number < 0 || REAL(fchmod)(program->number, 0555) != 0)
        return -1;
    snprintf(program->path, sizeof program->path, "/proc/self/fd/%d", program->number);
    if (shares_memory() || REAL(access)(program->path, X_OK) == 0)
        return 0;
    REAL(close)(program->number);
    program->number = -1;
    return write_program(place, program);
}

static void discard(struct program *program) {
    int error = errno;

    if (program->number >= 0)
        REAL(close)(program->number);
    else if (program->path[0] != '\0')
        REAL(unlink)(program->path);
    errno = error;
}

/* Finds the program, and makes a file for a sealed one. Returns -1 with errno set if there is none. */
static int locate(struct place *place, const char *path, struct program *sealed, const char **program) {
    struct stat status;

    *sealed = (struct program){.number = -1};
    place_find(place, AT_FDCWD, path, PLACE_FOLLOW);
    if (place->kind == PLACE_REAL && REAL(stat)(place->path, &status) != 0)
        place_again(place);
    if (place->kind == PLACE_FAILED)
        return fail(place->error);
    *program = place->kind == PLACE_SEALED ? sealed->path : place->path;
    return place->kind == PLACE_SEALED ? executable(place, sealed) : 0;
}

HOOK int execve(const char *path, char *const arguments[], char *const environment[]) {
    size_t count = length_of(environment);
    struct child child;
    struct place place;
    struct program sealed;
    const char *program;

    if (!anything_attached())
        return REAL(execve)(path, arguments, environment);
    if (count > MAX_ARGUMENTS)
        return fail(E2BIG);
    char *own[count + ROOM];
    if (locate(&place, path, &sealed, &program) == 0) {
        if (prepare(&child, environment, own) == 0)
            REAL(execve)(program, arguments, own);
        forget(&child);
    }
    discard(&sealed);
    return -1;
}

HOOK int execvpe(const char *file, char *const arguments[], char *const environment[]) {
    size_t count = length_of(environment);
    struct child child;

    if (!anything_attached())
        return REAL(execvpe)(file, arguments, environment);
    if (strchr(file, '/') != NULL)
        return execve(file, arguments, environment);
    if (count > MAX_ARGUMENTS)
        return fail(E2BIG);
    char *own[count + ROOM];
    if (prepare(&child, environment, own) == 0)
        REAL(execvpe)(file, arguments, own);
    forget(&child);
    return -1;
}

HOOK int execv(const char *path, char *const arguments[]) {
    return execve(path, arguments, environ);
}

HOOK int execvp(const char *file, char *const arguments[]) {
    return execvpe(file, arguments, environ);
}

HOOK int execveat(int dirfd, const char *path, char *const arguments[], char *const environment[], int flags) {
    size_t count = length_of(environment);
    struct child child;
    struct place place;
    struct program sealed = {.number = -1};

    if (!anything_attached())
        return REAL(execveat)(dirfd, path, arguments, environment, flags);
    if (count > MAX_ARGUMENTS)
        return fail(E2BIG);
    char *own[count + ROOM];
    place_find(&place, dirfd, path,
               ((flags & AT_SYMLINK_NOFOLLOW) != 0 ? 0 : PLACE_FOLLOW) | ((flags & AT_EMPTY_PATH) != 0 ? PLACE_EMPTY : 0));
    if (place.kind == PLACE_FAILED)
        return fail(place.error);
    if (place.kind != PLACE_SEALED || executable(&place, &sealed) == 0) {
        if (prepare(&child, environment, own) == 0) {
            if (place.kind == PLACE_SEALED)
                REAL(execve)(sealed.path, arguments, own);
            else
                REAL(execveat)(place.dirfd, place.path, arguments, own, flags);
        }
        forget(&child);
    }
    discard(&sealed);
    return -1;
}

HOOK int fexecve(int number, char *const arguments[], char *const environment[]) {
    return execveat(number, "", arguments, environment, AT_EMPTY_PATH);
}

/* Copies a variable list of arguments, which begins with `first`, to an array on the stack. */
#define COLLECT(first, after)                                                                                      \
    va_list list_;                                                                                                 \
    size_t count_ = 1;                                                                                             \
    va_start(list_, first);                                                                                        \
    while (va_arg(list_, char *) != NULL)                                                                          \
        if (++count_ > MAX_ARGUMENTS) {                                                                            \
            va_end(list_);                                                                                         \
            return fail(E2BIG);                                                                                    \
        }                                                                                                          \
    va_end(list_);                                                                                                 \
    char *arguments[count_ + 1];                                                                                   \
    va_start(list_, first);                                                                                        \
    arguments[0] = (char *)(uintptr_t)first;                                                                       \
    for (size_t i_ = 1; i_ <= count_; i_++)                                                                        \
        arguments[i_] = va_arg(list_, char *);                                                                     \
    after;                                                                                                         \
    va_end(list_);

HOOK int execl(const char *path, const char *argument, ...) {
    COLLECT(argument, (void)0)
    return execve(path, arguments, environ);
}

HOOK int execlp(const char *file, const char *argument, ...) {
    COLLECT(argument, (void)0)
    return execvpe(file, arguments, environ);
}

HOOK int execle(const char *path, const char *argument, ...) {
    char *const *environment;
    COLLECT(argument, environment = va_arg(list_, char *const *))
    return execve(path, arguments, environment);
}

/* --- posix_spawn --- */

typedef int (*spawner)(pid_t *, const char *, const posix_spawn_file_actions_t *, const posix_spawnattr_t *,
                       char *const *, char *const *);

static int spawn(spawner real, pid_t *pid, const char *program, const posix_spawn_file_actions_t *actions,
                 const posix_spawnattr_t *attributes, char *const *arguments, char *const *environment) {
    size_t count = length_of(environment);
    struct child child;
    int error = E2BIG;

    if (!anything_attached())
        return real(pid, program, actions, attributes, arguments, environment);
    if (count > MAX_ARGUMENTS)
        return E2BIG;
    char *own[count + ROOM];
    if (prepare(&child, environment, own) == 0)
        error = real(pid, program, actions, attributes, arguments, own);
    else
        error = errno;
    forget(&child);
    return error;
}

HOOK int posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
                     const posix_spawnattr_t *attributes, char *const arguments[], char *const environment[]) {
    struct place place;
    struct program sealed = {.number = -1};
    const char *program = path;
    int error = 0;

    if (anything_attached() && locate(&place, path, &sealed, &program) != 0)
        error = errno;
    if (error == 0 && sealed.path[0] != '\0' && sealed.number < 0) { /* only this process sees it, not its child */
        unserved("posix_spawn", path);
        error = ENOSYS;
    }
    if (error == 0)
        error = spawn(REAL(posix_spawn), pid, program, actions, attributes, arguments, environment);
    discard(&sealed);
    return error;
}

HOOK int posix_spawnp(pid_t *pid, const char *file, const posix_spawn_file_actions_t *actions,
                      const posix_spawnattr_t *attributes, char *const arguments[], char *const environment[]) {
    if (strchr(file, '/') != NULL)
        return posix_spawn(pid, file, actions, attributes, arguments, environment);
    return spawn(REAL(posix_spawnp), pid, file, actions, attributes, arguments, environment);
}

/* libc opens these files in the child, past every hook: they are opened here instead, and dup2'ed there. What was
 * opened stays open, close-on-exec, until the process ends or `..._destroy` finds it in the list. */
struct opened {
    struct opened *next;
    const posix_spawn_file_actions_t *actions;
    int number;
};
static pthread_mutex_t opened_lock = PTHREAD_MUTEX_INITIALIZER;
static struct opened *opened_list;

HOOK int posix_spawn_file_actions_addopen(posix_spawn_file_actions_t *actions, int number, const char *path, int flags,
                                          mode_t mode) {
    struct place place;
    struct stat status;

    place_find(&place, AT_FDCWD, path, (flags & O_NOFOLLOW) != 0 ? 0 : PLACE_FOLLOW);
    if (place.kind == PLACE_REAL && anything_attached() && REAL(stat)(path, &status) != 0)
        place_again(&place);
    if (place.kind == PLACE_REAL || (place.kind == PLACE_FAILED && place.at == NULL))
        return REAL(posix_spawn_file_actions_addopen)(actions, number, path, flags, mode);
    struct opened *opened = malloc(sizeof *opened);
    int file = opened == NULL ? -1 : open_anywhere(AT_FDCWD, path, flags | O_CLOEXEC, mode);
    int moved = file < 0 ? -1 : REAL(fcntl)(file, F_DUPFD_CLOEXEC, 64); /* not where dup2 may be told to go */
    int error = moved < 0 ? errno : 0;
    if (file >= 0)
        REAL(close)(file);
    if (error == 0 && (error = REAL(posix_spawn_file_actions_adddup2)(actions, moved, number)) != 0)
        REAL(close)(moved);
    if (error != 0) {
        free(opened);
        return error;
    }
    *opened = (struct opened){NULL, actions, moved};
    pthread_mutex_lock(&opened_lock);
    opened->next = opened_list;
    opened_list = opened;
    pthread_mutex_unlock(&opened_lock);
    return 0;
}

HOOK int posix_spawn_file_actions_destroy(posix_spawn_file_actions_t *actions) {
    pthread_mutex_lock(&opened_lock);
    for (struct opened **place = &opened_list; *place != NULL;) {
        struct opened *opened = *place;
        if (opened->actions != actions) {
            place = &opened->next;
            continue;
        }
        *place = opened->next;
        REAL(close)(opened->number);
        free(opened);
    }
    pthread_mutex_unlock(&opened_lock);
    return REAL(posix_spawn_file_actions_destroy)(actions);
}

HOOK int posix_spawn_file_actions_addchdir_np(posix_spawn_file_actions_t *actions, const char *path) {
    struct place place;

    place_find(&place, AT_FDCWD, path, PLACE_FOLLOW);
    if (place.kind == PLACE_REAL)
        return REAL(posix_spawn_file_actions_addchdir_np)(actions, path);
    unserved("posix_spawn_file_actions_addchdir_np", path);
    return place.kind == PLACE_FAILED ? place.error : ENOSYS;
}

/* glob. glibc's can be made to use the functions here; musl's can't, and goes past them: what leads into a sealed tree is
 * refused there.
 */
#include <dirent.h>
#include <errno.h>
#include <fnmatch.h>
#include <glob.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "attachments.h"
#include "real.h"
#include "report.h"

#ifdef GLOB_ALTDIRFUNC

static void *glob_opendir(const char *path) {
    return opendir(path);
}

static struct dirent *glob_readdir(void *stream) {
    return readdir(stream);
}

static void glob_closedir(void *stream) {
    closedir(stream);
}

HOOK int glob(const char *pattern, int flags, int (*on_error)(const char *, int), glob_t *result) {
    if ((flags & GLOB_ALTDIRFUNC) != 0 || !anything_attached())
        return REAL(glob)(pattern, flags, on_error, result);
    result->gl_opendir = glob_opendir;
    result->gl_readdir = glob_readdir;
    result->gl_closedir = glob_closedir;
    result->gl_stat = stat;
    result->gl_lstat = lstat;
    int found = REAL(glob)(pattern, flags | GLOB_ALTDIRFUNC, on_error, result);
    result->gl_flags &= ~GLOB_ALTDIRFUNC;
    return found;
}

#else

/* Cuts the first part off a path or pattern; an empty one at its end. */
static void cut(const char **rest, char part[PATH_MAX]) {
    const char *start = *rest + strspn(*rest, "/");
    size_t length = strcspn(start, "/");

    snprintf(part, PATH_MAX, "%.*s", (int)length, start);
    *rest = start + length;
}

static bool leads_below(const char *pattern, const char *mount) {
    char wanted[PATH_MAX], name[PATH_MAX];

    for (;;) {
        cut(&mount, name);
        cut(&pattern, wanted);
        if (name[0] == '\0')
            return wanted[0] != '\0';
        if (fnmatch(wanted, name, 0) != 0)
            return false;
    }
}

static bool leads_inside(const char *pattern) {
    unsigned count = atomic_load_explicit(&attachment_count, memory_order_acquire);
    char here[PATH_MAX] = "", whole[2 * PATH_MAX];

    if (pattern[0] != '/' && getcwd(here, sizeof here) == NULL)
        return false;
    snprintf(whole, sizeof whole, "%s/%s", here, pattern);
    for (unsigned i = 0; i < count; i++)
        if (leads_below(whole, attachments[i].mount) || leads_below(whole, attachments[i].given))
            return true;
    return false;
}

HOOK int glob(const char *pattern, int flags, int (*on_error)(const char *, int), glob_t *result) {
    if (!anything_attached() || !leads_inside(pattern))
        return REAL(glob)(pattern, flags, on_error, result);
    unserved("glob", pattern);
    errno = ENOSYS;
    return GLOB_ABORTED;
}

#endif

int glob64(const char *pattern, int flags, int (*on_error)(const char *, int), glob64_t *result) SAME_AS(glob);

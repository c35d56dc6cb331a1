/* The dynamic loader maps a whole library at once and takes all access from what lies between its segments. Where
 * such a gap begins beyond the file's end (as in some wheels' repaired libraries) Gramine 1.9 can't map it again in
 * the child, and fork fails. Nobody can touch a gap, so an anonymous one does as well.
 *
 * Threading: mappings that other threads make meanwhile are theirs; only inaccessible ones are replaced.
 */
#include "gaps.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "real.h"

#define MOST_GAPS 256

void gaps_fill(void) {
    struct {
        unsigned long start, end;
    } gaps[MOST_GAPS];
    size_t count = 0;
    unsigned long start, end, offset;
    char line[4096], access[5];
    struct stat status;
    int error = errno, path;
    FILE *maps = shares_memory() ? NULL : REAL(fopen)("/proc/self/maps", "re");

    while (maps != NULL && count < MOST_GAPS && fgets(line, sizeof line, maps) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        if (sscanf(line, "%lx-%lx %4s %lx %*s %*s %n", &start, &end, access, &offset, &path) == 4 &&
            strcmp(access, "---p") == 0 && line[path] == '/' && REAL(stat)(line + path, &status) == 0 &&
            S_ISREG(status.st_mode) && offset >= (unsigned long)status.st_size) {
            gaps[count].start = start;
            gaps[count++].end = end;
        }
    }
    if (maps != NULL)
        REAL(fclose)(maps);
    for (size_t i = 0; i < count; i++)
        REAL(mmap)((void *)gaps[i].start, gaps[i].end - gaps[i].start, PROT_NONE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
    errno = error;
}

/* C's ways to read files and folders, printed: the same for plain and sealed ones. Usage: calls FOLDER */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <ftw.h>
#include <limits.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *root;
static char where[PATH_MAX];

static const char *at(const char *name) {
    snprintf(where, sizeof where, "%s%s", root, name);
    return where;
}

static uint64_t sum(const void *bytes, size_t size) {
    uint64_t hash = 14695981039346656037u;
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ ((const uint8_t *)bytes)[i]) * 1099511628211u;
    return hash;
}

static const char *below(const char *path) {
    return strncmp(path, root, strlen(root)) == 0 ? path + strlen(root) : path;
}

static void whole(const char *title, FILE *file) {
    size_t size = 0, count;
    uint64_t hash = 0;
    static char buffer[77777];
    while ((count = fread(buffer, 1, sizeof buffer, file)) > 0) {
        size += count;
        hash = hash * 31 + sum(buffer, count);
    }
    printf("%s: %zu %016llx eof %d error %d at %ld\n", title, size, (unsigned long long)hash, feof(file) != 0,
           ferror(file) != 0, ftell(file));
}

static void streams(const char *name) {
    char line[64], *text = NULL;
    size_t room = 0;
    FILE *file = fopen(at(name), "rbe");
    if (file == NULL) {
        printf("%s: %s\n", name, strerror(errno));
        return;
    }
    struct stat status;
    printf("%s fileno %d size %ld\n", name, fileno(file) > 2, fstat(fileno(file), &status) == 0 ? (long)status.st_size : -1);
    long numbers[16];
    int n = 0;
    numbers[n++] = fgetc(file);
    numbers[n++] = getc(file);
    numbers[n++] = ungetc('x', file);
    numbers[n++] = fgetc(file);
    numbers[n++] = ftell(file);
    numbers[n++] = fseek(file, -20, SEEK_END);
    numbers[n++] = ftell(file);
    numbers[n++] = (long)fread(line, 1, 64, file);
    numbers[n++] = feof(file) != 0;
    rewind(file);
    numbers[n++] = getline(&text, &room, file);
    numbers[n] = numbers[n - 1] > 0 ? (long)sum(text, (size_t)numbers[n - 1]) : 0;
    n++;
    fpos_t position;
    numbers[n++] = fgetpos(file, &position);
    numbers[n++] = fgets(line, 10, file) != NULL;
    numbers[n++] = fsetpos(file, &position);
    numbers[n++] = ftell(file);
    for (int i = 0; i < n; i++)
        printf("%ld ", numbers[i]);
    printf("\n");
    free(text);
    printf("write %d\n", fputc('x', file));
    clearerr(file);
    whole(name, file);
    int copy = dup(fileno(file));
    rewind(file);
    FILE *second = fdopen(copy, "r");
    whole("fdopen", second);
    printf("close %d %d\n", fclose(second), fclose(file));
    printf("fdopen w: %s\n", fdopen(open(at(name), O_RDONLY), "w") == NULL ? strerror(errno) : "opened");
    file = fopen("/dev/null", "r");
    file = freopen(at(name), "r", file);
    if (file == NULL) {
        printf("freopen: %s\n", strerror(errno));
        return;
    }
    printf("freopen %ld ", fstat(fileno(file), &status) == 0 ? (long)status.st_size : -1);
    whole("freopen", file);
    fclose(file);
}

static int visited(const char *path, const struct stat *status, int type, struct FTW *ftw) {
    printf("nftw %s %ld %d %d %s\n", below(path), S_ISREG(status->st_mode) ? (long)status->st_size : 0, type, ftw->level,
           path + ftw->base);
    return 0;
}

static int visited_plain(const char *path, const struct stat *status, int type) {
    printf("ftw %s %ld %d\n", below(path), S_ISREG(status->st_mode) ? (long)status->st_size : 0, type);
    return 0;
}

static int by_name(const FTSENT **a, const FTSENT **b) {
    return strcmp((*a)->fts_name, (*b)->fts_name);
}

static void trees(void) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s", root);
    printf("%d\n", nftw(path, visited, 10, FTW_PHYS));
    printf("%d\n", nftw(path, visited, 10, FTW_PHYS | FTW_DEPTH | FTW_MOUNT));
    printf("%d\n", nftw(path, visited, 10, 0));
    printf("%d\n", ftw(path, visited_plain, 10));
    for (int options = 0; options < 3; options++) {
        int flags[] = {FTS_PHYSICAL, FTS_LOGICAL | FTS_NOCHDIR, FTS_PHYSICAL | FTS_NOSTAT | FTS_XDEV | FTS_SEEDOT};
        FTS *tree = fts_open((char *[]){path, NULL}, flags[options], options == 1 ? by_name : NULL);
        for (FTSENT *entry; (entry = fts_read(tree)) != NULL;) {
            int info = entry->fts_info == FTS_NSOK ? FTS_F : entry->fts_info;
            if (options == 2 && info != FTS_D && info != FTS_DP && info != FTS_DOT)
                info = 0;
            if (info == FTS_DOT)
                continue; /* these may stand anywhere among the others */
            printf("fts %s %d %d %d %s\n", below(entry->fts_path), info, entry->fts_level, entry->fts_errno, below(entry->fts_name));
            if (strcmp(entry->fts_name, "deep") == 0)
                fts_set(tree, entry, FTS_SKIP);
        }
        printf("end %d %d\n", errno, fts_close(tree));
    }
}

static int only_files(const struct dirent *item) {
    return item->d_type == DT_REG;
}

static void folders(void) {
    struct dirent **list;
    int count = scandir(root, &list, NULL, NULL);
    for (int i = 0; i < count; free(list[i++]))
        if (strcmp(list[i]->d_name, ".") != 0 && strcmp(list[i]->d_name, "..") != 0)
            printf("scandir %s %d\n", list[i]->d_name, list[i]->d_type);
    free(list);
    count = scandir(at("/many"), &list, only_files, versionsort);
    for (int i = 0; i < count; free(list[i++]))
        printf("sorted %s\n", list[i]->d_name);
    free(list);
    DIR *directory = opendir(at("/many"));
    long places[200];
    int read_count = 0;
    for (struct dirent *item; places[read_count] = telldir(directory), (item = readdir(directory)) != NULL;)
        read_count++;
    seekdir(directory, places[5]);
    struct dirent *fifth = readdir(directory);
    char name[256];
    snprintf(name, sizeof name, "%s", fifth->d_name);
    rewinddir(directory);
    for (int i = 0; i < 5; i++)
        readdir(directory);
    printf("telldir %d %d\n", read_count, strcmp(name, readdir(directory)->d_name));
    struct stat status;
    int number = dirfd(directory);
    int answer = fstat(number, &status);
    printf("dirfd %d %d\n", answer, S_ISDIR(status.st_mode));
    int result = fstatat(number, "005.bin", &status, 0);
    printf("fstatat %d %ld\n", result, (long)status.st_size);
    int file = openat(number, "../text", O_RDONLY);
    char head[7] = "";
    printf("openat %zd %s\n", read(file, head, 6), head);
    close(file);
    closedir(directory);
    printf("opendir %s\n", opendir(at("/text")) == NULL ? strerror(errno) : "opened");
    char buffer[512];
    int folder = open(at("/many"), O_RDONLY | O_DIRECTORY), items = 0;
    printf("read %s\n", read(folder, buffer, 1) < 0 ? strerror(errno) : "bytes");
    for (ssize_t size; (size = getdents64(folder, buffer, sizeof buffer)) > 0;)
        for (ssize_t place = 0; place < size; items++)
            place += ((struct dirent64 *)(void *)(buffer + place))->d_reclen;
    printf("getdents64 %d\n", items);
    close(folder);
}

static void names(void) {
    char path[PATH_MAX], *found;
    int result;
    const char *all[] = {"/link", "/up/bin/../text", "/dangling", "/no", "/bin/small.bin/", "/loop", "", "/out", "/./bin//"};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        found = realpath(at(all[i]), path);
        printf("realpath %s: %s\n", all[i], found != NULL ? below(found) : strerror(errno));
#ifdef STATX_BASIC_STATS /* older musl has none */
        struct statx more;
        result = statx(AT_FDCWD, at(all[i]), 0, STATX_BASIC_STATS, &more);
        printf("statx %d %o %s\n", result, result == 0 ? more.stx_mode : 0, result == 0 ? "" : strerror(errno));
#endif
        printf("access %d %d\n", access(where, R_OK), faccessat(AT_FDCWD, where, F_OK, AT_SYMLINK_NOFOLLOW));
    }
    struct stat status;
    int file = open(at("/text"), O_PATH);
    result = fstatat(file, "", &status, AT_EMPTY_PATH);
    printf("O_PATH %d %d %s\n", result, (int)status.st_size,
           read(file, path, 1) < 0 ? strerror(errno) : "read");
    close(file);
    printf("pathconf %ld\n", pathconf(at("/bin"), _PC_NAME_MAX) > 0 ? 255 : -1L);
}

static void maps(void) {
    int file = open(at("/bin/large.bin"), O_RDONLY);
    char *shared = mmap(NULL, 3 << 20, PROT_READ, MAP_SHARED, file, 1 << 20);
    char *private = mmap(NULL, 5000, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
    printf("mmap %016llx %016llx\n", (unsigned long long)sum(shared, 3 << 20), (unsigned long long)sum(private, 5000));
    private[0] ^= 1;
    printf("mmap w %s %s\n", mmap(NULL, 10, PROT_WRITE, MAP_SHARED, file, 0) == MAP_FAILED ? strerror(errno) : "mapped",
           mmap(NULL, 10, PROT_READ, MAP_SHARED, file, 5) == MAP_FAILED ? strerror(errno) : "mapped");
    close(file);
    munmap(shared, 3 << 20);
    munmap(private, 5000);
}

static void children(void) {
    fflush(stdout);
    pid_t pid = vfork();
    if (pid == 0) {
        for (int i = 3; i < 2000; i++)
            close(i);
        execl("/usr/bin/sha256sum", "sha256sum", at("/bin/small.bin"), (char *)NULL);
        _exit(127);
    }
    int status;
    waitpid(pid, &status, 0);
    printf("\nvfork %d\n", status);
    int file = open(at("/text"), O_RDONLY);
    char head[10];
    printf("%zd\n", read(file, head, 10));
    fflush(stdout);
    if ((pid = vfork()) == 0) {
        dup2(file, 0);
        execle("/usr/bin/head", "head", "-c", "10", (char *)NULL, (char *[]){NULL});
        _exit(127);
    }
    waitpid(pid, &status, 0);
    printf("\ninherited %d at %ld\n", status, (long)lseek(file, 0, SEEK_CUR) > 10);
    fflush(stdout);
    if ((pid = fork()) == 0) {
        execv(at("/script"), (char *[]){(char *)"script", (char *)"argument", NULL});
        _exit(127);
    }
    waitpid(pid, &status, 0);
    printf("script %d\n", status);
    fflush(stdout);
    if ((pid = fork()) == 0) {
        execlp(at("/text"), "text", (char *)NULL);
        _exit(errno == EACCES ? 42 : 127);
    }
    waitpid(pid, &status, 0);
    printf("text %d\n", WEXITSTATUS(status));
}

int main(int count, char **arguments) {
    if (count < 2)
        return 2;
    root = arguments[1];
    const char *files[] = {"/text", "/bin/small.bin", "/bin/large.bin", "/nothing", "/no", "/link"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        streams(files[i]);
    folders();
    trees();
    names();
    maps();
    children();
    return 0;
}

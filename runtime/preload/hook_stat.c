/* The stat family, statfs and statvfs. */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "core.h"
#include "damage.h"
#include "descriptors.h"
#include "place.h"
#include "real.h"
#include "stats.h"

#define STAT_VERSION 1 /* of __xstat on x86-64 and AArch64 */
#define BLOCK 4096
#define FUSE_MAGIC 0x65735546 /* what the same tree is when it is mounted */

int stat_sealed(struct attachment *at, uint32_t entry, struct stat *status) {
    int error = sealfs_stat(at->core, entry, status);

    if (error != 0)
        return refuse_damaged(at, error);
    status->st_dev = at->device;
    status->st_uid = geteuid();
    status->st_gid = getegid();
    return 0;
}

int stat_anywhere(int dirfd, const char *path, struct stat *status, int flags) {
    struct place place;
    int result;

    place_find(&place, dirfd, path,
               ((flags & AT_SYMLINK_NOFOLLOW) != 0 ? 0 : PLACE_FOLLOW) | ((flags & AT_EMPTY_PATH) != 0 ? PLACE_EMPTY : 0));
    do {
        if (place.kind == PLACE_SEALED)
            return stat_sealed(place.at, place.entry, status);
        if (place.kind == PLACE_FAILED)
            return fail(place.error);
        result = REAL(fstatat)(place.dirfd, place.path, status, flags);
    } while (result != 0 && place_again(&place));
    return result == 0 && place_is_mount(&place, status) ? stat_sealed(place.at, place.entry, status) : result;
}

HOOK int stat(const char *path, struct stat *status) {
    return stat_anywhere(AT_FDCWD, path, status, 0);
}

HOOK int lstat(const char *path, struct stat *status) {
    return stat_anywhere(AT_FDCWD, path, status, AT_SYMLINK_NOFOLLOW);
}

HOOK int fstatat(int dirfd, const char *path, struct stat *status, int flags) {
    return stat_anywhere(dirfd, path, status, flags);
}

HOOK int fstat(int number, struct stat *status) {
    struct descriptor descriptor;
    struct place place;

    if (descriptor_find(number, &descriptor))
        return stat_sealed(descriptor.at, descriptor.entry, status);
    int result = REAL(fstat)(number, status);
    return result == 0 && place_is_mount(&place, status) ? stat_sealed(place.at, place.entry, status) : result;
}

int stat64(const char *path, struct stat64 *status) SAME_AS(stat);
int lstat64(const char *path, struct stat64 *status) SAME_AS(lstat);
int fstat64(int number, struct stat64 *status) SAME_AS(fstat);
int fstatat64(int dirfd, const char *path, struct stat64 *status, int flags) SAME_AS(fstatat);

/* Programs linked before glibc 2.33 call these. */
int __xstat(int version, const char *path, struct stat *status);
int __lxstat(int version, const char *path, struct stat *status);
int __fxstat(int version, int number, struct stat *status);
int __fxstatat(int version, int dirfd, const char *path, struct stat *status, int flags);

HOOK int __xstat(int version, const char *path, struct stat *status) {
    return version > STAT_VERSION ? fail(EINVAL) : stat(path, status);
}

HOOK int __lxstat(int version, const char *path, struct stat *status) {
    return version > STAT_VERSION ? fail(EINVAL) : lstat(path, status);
}

HOOK int __fxstat(int version, int number, struct stat *status) {
    return version > STAT_VERSION ? fail(EINVAL) : fstat(number, status);
}

HOOK int __fxstatat(int version, int dirfd, const char *path, struct stat *status, int flags) {
    return version > STAT_VERSION ? fail(EINVAL) : fstatat(dirfd, path, status, flags);
}

int __xstat64(int version, const char *path, struct stat64 *status) SAME_AS(__xstat);
int __lxstat64(int version, const char *path, struct stat64 *status) SAME_AS(__lxstat);
int __fxstat64(int version, int number, struct stat64 *status) SAME_AS(__fxstat);
int __fxstatat64(int version, int dirfd, const char *path, struct stat64 *status, int flags) SAME_AS(__fxstatat);

#ifdef STATX_BASIC_STATS /* older musl has no statx() */

static struct statx_timestamp stamp(struct timespec time) {
    return (struct statx_timestamp){.tv_sec = time.tv_sec, .tv_nsec = (uint32_t)time.tv_nsec};
}

static int statx_sealed(struct attachment *at, uint32_t entry, struct statx *out) {
    struct stat status;

    if (stat_sealed(at, entry, &status) != 0)
        return -1;
    memset(out, 0, sizeof *out);
    out->stx_mask = STATX_BASIC_STATS;
    out->stx_blksize = (uint32_t)status.st_blksize;
    out->stx_nlink = (uint32_t)status.st_nlink;
    out->stx_uid = status.st_uid;
    out->stx_gid = status.st_gid;
    out->stx_mode = (uint16_t)status.st_mode;
    out->stx_ino = status.st_ino;
    out->stx_size = (uint64_t)status.st_size;
    out->stx_blocks = (uint64_t)status.st_blocks;
    out->stx_atime = stamp(status.st_atim);
    out->stx_ctime = stamp(status.st_ctim);
    out->stx_mtime = stamp(status.st_mtim);
    out->stx_dev_major = major(at->device);
    out->stx_dev_minor = minor(at->device);
    return 0;
}

HOOK int statx(int dirfd, const char *path, int flags, unsigned mask, struct statx *out) {
    struct place place;
    int result;

    place_find(&place, dirfd, path,
               ((flags & AT_SYMLINK_NOFOLLOW) != 0 ? 0 : PLACE_FOLLOW) | ((flags & AT_EMPTY_PATH) != 0 ? PLACE_EMPTY : 0));
    do {
        if (place.kind == PLACE_SEALED)
            return statx_sealed(place.at, place.entry, out);
        if (place.kind == PLACE_FAILED)
            return fail(place.error);
        result = REAL(statx)(place.dirfd, place.path, flags, mask | STATX_TYPE | STATX_INO, out);
    } while (result != 0 && place_again(&place));
    if (result != 0 || !S_ISDIR(out->stx_mode))
        return result;
    struct stat status = {
        .st_mode = out->stx_mode, .st_ino = out->stx_ino, .st_dev = makedev(out->stx_dev_major, out->stx_dev_minor)};
    return place_is_mount(&place, &status) ? statx_sealed(place.at, place.entry, out) : result;
}

#endif

/* --- file systems --- */

static int describe(struct attachment *at, struct statfs *out) {
    memset(out, 0, sizeof *out);
    out->f_type = FUSE_MAGIC;
    out->f_bsize = out->f_frsize = BLOCK;
    out->f_blocks = (fsblkcnt_t)(at->core->index.total_size / BLOCK + (at->core->index.total_size % BLOCK != 0));
    out->f_files = at->core->index.entries;
    out->f_namelen = 255;
    out->f_flags = ST_RDONLY | ST_NOSUID | ST_NODEV;
    return 0;
}

static int describe_posix(struct attachment *at, struct statvfs *out) {
    struct statfs all;

    describe(at, &all);
    memset(out, 0, sizeof *out);
    out->f_bsize = out->f_frsize = BLOCK;
    out->f_blocks = all.f_blocks;
    out->f_files = all.f_files;
    out->f_namemax = (unsigned long)all.f_namelen;
    out->f_flag = ST_RDONLY | ST_NOSUID | ST_NODEV;
    return 0;
}

HOOK int statfs(const char *path, struct statfs *out) {
    struct place place;
    int result;

    place_find(&place, AT_FDCWD, path, PLACE_FOLLOW);
    do {
        if (place.kind == PLACE_SEALED)
            return describe(place.at, out);
        if (place.kind == PLACE_FAILED)
            return fail(place.error);
        result = REAL(statfs)(place.path, out);
    } while (result != 0 && place_again(&place));
    return result;
}

HOOK int statvfs(const char *path, struct statvfs *out) {
    struct place place;
    int result;

    place_find(&place, AT_FDCWD, path, PLACE_FOLLOW);
    do {
        if (place.kind == PLACE_SEALED)
            return describe_posix(place.at, out);
        if (place.kind == PLACE_FAILED)
            return fail(place.error);
        result = REAL(statvfs)(place.path, out);
    } while (result != 0 && place_again(&place));
    return result;
}

HOOK int fstatfs(int number, struct statfs *out) {
    struct descriptor descriptor;

    return descriptor_find(number, &descriptor) ? describe(descriptor.at, out) : REAL(fstatfs)(number, out);
}

HOOK int fstatvfs(int number, struct statvfs *out) {
    struct descriptor descriptor;

    return descriptor_find(number, &descriptor) ? describe_posix(descriptor.at, out) : REAL(fstatvfs)(number, out);
}

/* Limits of names: those of the file system where the empty directory is. */
HOOK long pathconf(const char *path, int name) {
    struct place place;
    long result;

    place_find(&place, AT_FDCWD, path, PLACE_FOLLOW);
    do {
        if (place.kind == PLACE_SEALED)
            return REAL(pathconf)(place.at->mount, name);
        if (place.kind == PLACE_FAILED)
            return fail(place.error);
        result = REAL(pathconf)(place.path, name);
    } while (result < 0 && place_again(&place));
    return result;
}

int statfs64(const char *path, struct statfs64 *out) SAME_AS(statfs);
int fstatfs64(int number, struct statfs64 *out) SAME_AS(fstatfs);
int statvfs64(const char *path, struct statvfs64 *out) SAME_AS(statvfs);
int fstatvfs64(int number, struct statvfs64 *out) SAME_AS(fstatvfs);

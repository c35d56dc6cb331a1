/* What musl's headers say otherwise than glibc's; included last, by real.h.
 *
 * They call the functions with 64 in their names by the names without. Here both are defined: programs that were built
 * with other headers use both.
 */
#ifndef SEALFS_MUSL_H
#define SEALFS_MUSL_H

#ifdef __GLIBC__

typedef unsigned long ioctl_request;
#define FTW_FOLLOWS true

#else

#undef creat64
#undef fallocate64
#undef fopen64
#undef freopen64
#undef fstat64
#undef fstatat64
#undef fstatfs64
#undef fstatvfs64
#undef ftruncate64
#undef ftw64
#undef getdents64
#undef glob64
#undef lockf64
#undef lseek64
#undef lstat64
#undef mkostemp64
#undef mkostemps64
#undef mkstemp64
#undef mkstemps64
#undef mmap64
#undef nftw64
#undef open64
#undef openat64
#undef posix_fallocate64
#undef pread64
#undef preadv64
#undef pwrite64
#undef pwritev64
#undef readdir64
#undef readdir64_r
#undef scandir64
#undef sendfile64
#undef stat64
#undef statfs64
#undef statvfs64
#undef truncate64

struct stat;
struct FTW;
struct dirent64;
struct stat64;
struct statfs64;
struct statvfs64;

typedef int ioctl_request;
#define FTW_FOLLOWS false /* ftw() tells of symlinks themselves */
typedef int (*__ftw_func_t)(const char *, const struct stat *, int);
typedef int (*__nftw_func_t)(const char *, const struct stat *, int, struct FTW *);
typedef int (*__ftw64_func_t)(const char *, const struct stat64 *, int);
typedef int (*__nftw64_func_t)(const char *, const struct stat64 *, int, struct FTW *);

/* of the kernel */
#ifndef RWF_HIPRI
#define RWF_HIPRI 0x1
#define RWF_NOWAIT 0x8
#endif

/* nftw() has no such flag */
#define FTW_ACTIONRETVAL 0
#define FTW_SKIP_SUBTREE (-1)
#define FTW_SKIP_SIBLINGS (-1)

#endif

#endif

/* Count the calls that change the disk while armed; make the chosen one fail, write half, or kill the process.
 * faults.py compiles and preloads this file. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { COUNT, FAIL, KILL };

static __thread int armed;
static __thread long count, chosen;
static __thread int how, with_errno;

void faults_arm(long number, int mode, int error) { count = 0; chosen = number; how = mode; with_errno = error; armed = 1; }
long faults_disarm(void) { armed = 0; return count; }

/* Return whether this call is the chosen one, which fails. Does not return if it kills the process. */
static int strikes(void) {
    if (!armed || ++count != chosen || how == COUNT) return 0;
    if (how == KILL) kill(getpid(), SIGKILL);
    errno = with_errno;
    return 1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int fd, const void *buffer, size_t size) {
    if (fd > 2 && strikes()) {
        if (size > 1) REAL(write)(fd, buffer, size / 2); /* a failed write may leave part of the data */
        errno = with_errno;
        return -1;
    }
    return REAL(write)(fd, buffer, size);
}
ssize_t writev(int fd, const struct iovec *parts, int n) { return fd > 2 && strikes() ? -1 : REAL(writev)(fd, parts, n); }
ssize_t pwrite64(int fd, const void *b, size_t n, off64_t at) { return strikes() ? -1 : REAL(pwrite64)(fd, b, n, at); }
int ftruncate64(int fd, off64_t size) { return strikes() ? -1 : REAL(ftruncate64)(fd, size); }
int fsync(int fd) { return strikes() ? -1 : REAL(fsync)(fd); }
int fdatasync(int fd) { return strikes() ? -1 : REAL(fdatasync)(fd); }
int rename(const char *a, const char *b) { return strikes() ? -1 : REAL(rename)(a, b); }
int renameat(int c, const char *a, int d, const char *b) { return strikes() ? -1 : REAL(renameat)(c, a, d, b); }
int mkdir(const char *path, mode_t mode) { return strikes() ? -1 : REAL(mkdir)(path, mode); }
int rmdir(const char *path) { return strikes() ? -1 : REAL(rmdir)(path); }
int unlink(const char *path) { return strikes() ? -1 : REAL(unlink)(path); }
int unlinkat(int fd, const char *path, int flags) { return strikes() ? -1 : REAL(unlinkat)(fd, path, flags); }
int chmod(const char *path, mode_t mode) { return strikes() ? -1 : REAL(chmod)(path, mode); }

#define OPENING(name, ...)                                                         \
    mode_t mode = 0;                                                               \
    if (flags & O_CREAT) {                                                         \
        va_list rest;                                                              \
        va_start(rest, flags);                                                     \
        mode = va_arg(rest, mode_t);                                               \
        va_end(rest);                                                              \
        if (strikes()) return -1;                                                  \
    }                                                                              \
    return REAL(name)(__VA_ARGS__, flags, mode);
int open(const char *path, int flags, ...) { OPENING(open, path) }
int open64(const char *path, int flags, ...) { OPENING(open64, path) }
int openat(int fd, const char *path, int flags, ...) { OPENING(openat, fd, path) }
int openat64(int fd, const char *path, int flags, ...) { OPENING(openat64, fd, path) }

/*
 * kill_at.c - for LD_PRELOAD: the process kills itself just before the KILL_AT-th call that changes
 * files. Built by tests/program/kill_spec.lua.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

static atomic_long calls;

static void step(void)
{
    const char *at = getenv("KILL_AT");

    if (at != NULL && atomic_fetch_add(&calls, 1) + 1 == atol(at))
        kill(getpid(), SIGKILL);
}

#define NEXT(name) (*(void **)(&real) = dlsym(RTLD_NEXT, name))

int fsync(int fd)
{
    int (*real)(int);

    NEXT("fsync");
    step();
    return real(fd);
}

int fdatasync(int fd)
{
    int (*real)(int);

    NEXT("fdatasync");
    step();
    return real(fd);
}

int link(const char *from, const char *to)
{
    int (*real)(const char *, const char *);

    NEXT("link");
    step();
    return real(from, to);
}

int rename(const char *from, const char *to)
{
    int (*real)(const char *, const char *);

    NEXT("rename");
    step();
    return real(from, to);
}

int unlink(const char *path)
{
    int (*real)(const char *);

    NEXT("unlink");
    step();
    return real(path);
}

int remove(const char *path)
{
    int (*real)(const char *);

    NEXT("remove");
    step();
    return real(path);
}

ssize_t pwrite64(int fd, const void *p, size_t n, off64_t at)
{
    ssize_t (*real)(int, const void *, size_t, off64_t);

    NEXT("pwrite64");
    step();
    return real(fd, p, n, at);
}

ssize_t pwrite(int fd, const void *p, size_t n, off_t at)
{
    return pwrite64(fd, p, n, at);
}

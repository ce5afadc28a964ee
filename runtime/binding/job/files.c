/*
 * files.c - the files around the parts: the index replaced in one step, the sum of an input, the lock
 * of a directory, ranges of vectors as they are.
 */
#include "binding/binding.h"
#include "binding/job/job.h"

#include "base/hash.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHUNK ((size_t)1 << 20)

/* ---- replacing a file; its text, then its name, is on the disk when it returns ---- */

struct task {
    struct mp__pool_op op;
    char *path, *other, *text;
    size_t n;
    uint64_t limit, bytes;
    char hex[33];
    int narrow;
};

static const char task_type[] = "moonpool.job_task";

static struct task *task_of(struct mp__pool_op *op)
{
    return (struct task *)((char *)op - offsetof(struct task, op));
}

static int l_task_gc(lua_State *L)
{
    struct task *t = luaL_checkudata(L, 1, task_type);

    free(t->path);
    free(t->other);
    free(t->text);
    t->path = t->other = t->text = NULL;
    return 0;
}

static struct task *new_task(lua_State *L, const char *path)
{
    struct task *t = lua_newuserdatauv(L, sizeof(*t), 0);

    memset(t, 0, sizeof(*t));
    if (luaL_newmetatable(L, task_type)) {
        lua_pushcfunction(L, l_task_gc);
        lua_setfield(L, -2, "__gc");
    }
    lua_setmetatable(L, -2);
    t->path = strdup(path);
    if (t->path == NULL)
        luaL_error(L, "out of memory");
    return t;
}

static int sync_parent(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *dir = slash == path   ? strdup("/")
                : slash != NULL ? strndup(path, (size_t)(slash - path))
                                : strdup(".");
    int fd = dir != NULL ? open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1, rc, e;

    free(dir);
    if (fd < 0)
        return -1;
    rc = fsync(fd);
    e = errno;
    close(fd);
    errno = e;
    return rc == 0 || e == EINVAL ? 0 : -1;
}

static int replace_work(struct mp__pool_op *op)
{
    struct task *t = task_of(op);
    int fd = open(t->other, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), rc, e;

    if (fd < 0)
        return -1;
    rc = mp__write_at(fd, t->text, t->n, 0);
    if (rc == 0)
        rc = fsync(fd);
    e = errno;
    if (close(fd) != 0 && rc == 0)
        return -1;
    errno = e;
    if (rc != 0 || rename(t->other, t->path) != 0)
        return -1;
    return sync_parent(t->path);
}

static int replace_k(lua_State *L, int status, lua_KContext ctx)
{
    struct task *t = lua_touserdata(L, 1);

    (void)status;
    (void)ctx;
    errno = t->op.error;
    return luaL_fileresult(L, t->op.error == 0, t->path);
}

/* replace_file(path, text, now) -> true, or nil and the reason. */
static int l_replace(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    size_t n;
    const char *text = luaL_checklstring(L, 2, &n);
    int now = lua_toboolean(L, 3);
    struct task *t = new_task(L, path);

    t->other = malloc(strlen(path) + 5);
    t->text = malloc(n + 1);
    if (t->other == NULL || t->text == NULL)
        return luaL_error(L, "out of memory");
    memcpy(t->other, path, strlen(path));
    memcpy(t->other + strlen(path), ".tmp", 5);
    memcpy(t->text, text, n);
    t->n = n;
    lua_replace(L, 1);
    lua_settop(L, 1);
    return mp__pool_run(L, &t->op, replace_work, now, replace_k);
}

/* ---- the sum of a file ---- */

static int sum_fd(struct task *t, int fd, struct mp__hash_sum *sum, char *chunk)
{
    while (t->bytes < t->limit) {
        uint64_t left = t->limit - t->bytes;
        ssize_t got = read(fd, chunk, left < CHUNK ? (size_t)left : CHUNK);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -1;
        if (got == 0)
            break;
        mp__hash_sum_add(sum, chunk, (size_t)got);
        t->bytes += (uint64_t)got;
    }
    mp__hash_sum_hex(sum, t->hex);
    return 0;
}

static int sum_work(struct mp__pool_op *op)
{
    struct task *t = task_of(op);
    int fd = open(t->path, O_RDONLY | O_CLOEXEC), rc = -1, e;
    struct mp__hash_sum *sum = mp__hash_sum_new(!t->narrow);
    char *chunk = malloc(CHUNK);

    if (fd >= 0 && sum != NULL && chunk != NULL)
        rc = sum_fd(t, fd, sum, chunk);
    e = errno;
    if (fd >= 0)
        close(fd);
    mp__hash_sum_free(sum);
    free(chunk);
    errno = e;
    return rc;
}

static int sum_k(lua_State *L, int status, lua_KContext ctx)
{
    struct task *t = lua_touserdata(L, 1);

    (void)status;
    (void)ctx;
    errno = t->op.error;
    if (t->op.error)
        return luaL_fileresult(L, 0, t->path);
    lua_pushstring(L, t->hex);
    lua_pushinteger(L, (lua_Integer)t->bytes);
    return 2;
}

/* sum_file(path [, bytes [, narrow]]) -> 32 hexadecimal digits (16 if narrow) of its first bytes and how
 * many they were; waits. */
static int l_sum(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    lua_Integer limit = luaL_optinteger(L, 2, INT64_MAX);
    int narrow = lua_toboolean(L, 3);
    struct task *t;

    luaL_argcheck(L, limit >= 0, 2, "cannot be negative");
    t = new_task(L, path);
    t->limit = (uint64_t)limit;
    t->narrow = narrow;
    lua_replace(L, 1);
    lua_settop(L, 1);
    return mp__pool_run(L, &t->op, sum_work, 0, sum_k);
}

/* sum(text) -> 32 hexadecimal digits */
static int l_sum_text(lua_State *L)
{
    size_t n;
    const char *s = luaL_checklstring(L, 1, &n);
    char hex[33];

    mp__hash128_hex(mp__hash128(s, n, 0), hex);
    lua_pushstring(L, hex);
    return 1;
}

/* ---- vectors as they are ---- */

struct raw {
    int fd;
    uint64_t offset;
    size_t stride;
};

static const char raw_type[] = "moonpool.job_raw";

/* raw:read(at, n) -> the bytes of rows at..at+n (from 0), or nil and the reason. */
static int l_raw_read(lua_State *L)
{
    struct raw *r = luaL_checkudata(L, 1, raw_type);
    lua_Integer at = luaL_checkinteger(L, 2), n = luaL_checkinteger(L, 3);
    luaL_Buffer b;
    size_t bytes;
    char *p;

    luaL_argcheck(L, r->fd >= 0, 1, "the file is closed");
    luaL_argcheck(L, at >= 0 && n >= 1 && n <= (lua_Integer)(SIZE_MAX / 4 / (r->stride + 1)), 3,
                  "out of range");
    bytes = (size_t)n * r->stride;
    p = luaL_buffinitsize(L, &b, bytes);
    if (mp__read_at(r->fd, p, bytes, r->offset + (uint64_t)at * r->stride) != 0)
        return luaL_fileresult(L, 0, NULL);
    luaL_pushresultsize(&b, bytes);
    return 1;
}

/* raw:sum(at, n) -> 16 digits: what part:publish says of the vectors in its file. */
static int l_raw_sum(lua_State *L)
{
    struct raw *r = luaL_checkudata(L, 1, raw_type);
    uint64_t n = (uint64_t)luaL_checkinteger(L, 2), *sums;
    char *row;
    char hex[17];
    int rc = 0;

    luaL_argcheck(L, r->fd >= 0, 1, "the file is closed");
    luaL_argcheck(L, n <= UINT32_MAX, 2, "out of range");
    sums = lua_newuserdatauv(L, (size_t)n * sizeof(*sums) + 1, 0);
    row = lua_newuserdatauv(L, r->stride + 1, 0);
    for (uint64_t i = 0; rc == 0 && i < n; i++) {
        rc = mp__read_at(r->fd, row, r->stride, r->offset + i * r->stride);
        if (rc == 0)
            sums[i] = mp__hash64(row, r->stride, 0);
    }
    if (rc != 0)
        return luaL_fileresult(L, 0, NULL);
    mp__hash64_hex(mp__hash64(sums, (size_t)n * sizeof(*sums), 0), hex);
    lua_pushstring(L, hex);
    return 1;
}

static int l_raw_close(lua_State *L)
{
    struct raw *r = luaL_checkudata(L, 1, raw_type);

    if (r->fd >= 0)
        close(r->fd);
    r->fd = -1;
    return 0;
}

/* job_raw(path, stride) -> the vectors of an .npy file that a job wrote. */
static int l_raw(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    lua_Integer stride = luaL_checkinteger(L, 2);
    struct raw *r;

    luaL_argcheck(L, stride >= 1 && stride <= INT32_MAX, 2, "out of range");
    r = lua_newuserdatauv(L, sizeof(*r), 0);
    r->fd = -1;
    r->offset = 128; /* MP__NPY_HEADER */
    r->stride = (size_t)stride;
    luaL_setmetatable(L, raw_type);
    r->fd = open(path, O_RDONLY | O_CLOEXEC);
    return r->fd < 0 ? luaL_fileresult(L, 0, path) : 1;
}

/* ---- one job at a time ---- */

struct lock {
    int fd;
};

static const char lock_type[] = "moonpool.job_lock";

static int l_unlock(lua_State *L)
{
    struct lock *l = luaL_checkudata(L, 1, lock_type);

    if (l->fd >= 0)
        close(l->fd);
    l->fd = -1;
    return 0;
}

/* Whether somebody has it, who is left alone. */
static int probe(lua_State *L, const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC), locked;

    locked = fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    if (fd >= 0)
        close(fd);
    lua_pushboolean(L, locked);
    return 1;
}

/* is_locked(path) -> boolean */
static int l_is_locked(lua_State *L)
{
    return probe(L, luaL_checkstring(L, 1));
}

/* lock_file(path) -> lock; or nil, the process that has it, "locked"; or nil and the reason. */
static int l_lock(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    struct lock *l = lua_newuserdatauv(L, sizeof(*l), 0);
    char other[64] = "";
    int n;

    l->fd = -1;
    luaL_setmetatable(L, lock_type);
    l->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (l->fd < 0)
        return luaL_fileresult(L, 0, path);
    if (flock(l->fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK)
            return luaL_fileresult(L, 0, path);
        if (pread(l->fd, other, sizeof(other) - 1, 0) < 0)
            other[0] = '\0';
        lua_pushnil(L);
        lua_pushstring(L, other);
        lua_pushliteral(L, "locked");
        return 3;
    }
    n = snprintf(other, sizeof(other), "%ld\n", (long)getpid());
    if (ftruncate(l->fd, 0) != 0 || mp__write_at(l->fd, other, (size_t)n, 0) != 0)
        return luaL_fileresult(L, 0, path);
    return 1;
}

/* link(from, to): a second name for a file */
static int l_link(lua_State *L)
{
    const char *from = luaL_checkstring(L, 1), *to = luaL_checkstring(L, 2);

    return luaL_fileresult(L, link(from, to) == 0, to);
}

static void make_class(lua_State *L, const char *name, const luaL_Reg *methods, lua_CFunction gc)
{
    luaL_newmetatable(L, name);
    lua_newtable(L);
    luaL_setfuncs(L, methods, 0);
    lua_setfield(L, -2, "__index");
    lua_pushcfunction(L, gc);
    lua_setfield(L, -2, "__gc");
    lua_pushcfunction(L, gc);
    lua_setfield(L, -2, "__close");
    lua_pop(L, 1);
}

void mp__open_job_files(lua_State *L)
{
    static const luaL_Reg raw_methods[] = {
        {"read", l_raw_read}, {"sum", l_raw_sum}, {"close", l_raw_close}, {NULL, NULL}};
    static const luaL_Reg lock_methods[] = {{"close", l_unlock}, {NULL, NULL}};
    static const luaL_Reg functions[] = {{"replace_file", l_replace},
                                         {"sum_file", l_sum},
                                         {"sum", l_sum_text},
                                         {"job_raw", l_raw},
                                         {"lock_file", l_lock},
                                         {"link", l_link},
                                         {"is_locked", l_is_locked},
                                         {"text_fault", mp__l_text_fault},
                                         {NULL, NULL}};

    make_class(L, raw_type, raw_methods, l_raw_close);
    make_class(L, lock_type, lock_methods, l_unlock);
    luaL_setfuncs(L, functions, 0);
}

void mp__open_job(lua_State *L)
{
    mp__open_job_rows(L);
    mp__open_job_part(L);
    mp__open_job_ledger(L);
    mp__open_job_files(L);
    mp__open_job_quantize(L);
    mp__open_job_sqlite(L);
}

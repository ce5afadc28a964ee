/*
 * writer.c - buffered output, text or JSON lines, that waits for a slow pipe like a task.
 */
#include "binding/files/files.h"
#include "binding/value/json.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define FLUSH_AT  ((size_t)64 * 1024)
#define PIPE_SURE 4096 /* a ready pipe takes so much without blocking (PIPE_BUF) */

struct writer {
    int fd; /* < 0: closed */
    int own;
    int stream;
    struct mp__buf buf;
    size_t done;        /* bytes of buf already written */
    lua_Integer offset; /* bytes taken since it was opened */
    struct mp__fd_slot slot;
};

enum after { AFTER_WRITE, AFTER_CLOSE };

static const char writer_type[] = "moonpool.writer";

static struct writer *check_writer(lua_State *L)
{
    struct writer *w = luaL_checkudata(L, 1, writer_type);

    if (w->fd < 0)
        luaL_argerror(L, 1, "the file is closed");
    return w;
}

/* 1: all written; 0: the pipe is full; -1: errno. */
static int write_some(struct writer *w, int may_block)
{
    while (w->done < w->buf.n) {
        size_t n = w->buf.n - w->done;
        ssize_t got;

        if (w->stream && !may_block) {
            if (!mp__fd_ready(w->fd, MP__FD_WRITE))
                return 0;
            n = n < PIPE_SURE ? n : PIPE_SURE;
        }
        got = write(w->fd, w->buf.p + w->done, n);
        if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return 0;
        if (got < 0 && errno != EINTR)
            return -1;
        w->done += got > 0 ? (size_t)got : 0;
    }
    w->buf.n = w->done = 0;
    return 1;
}

static void close_fd(struct writer *w)
{
    mp__fd_unwatch(&w->slot);
    if (w->fd >= 0 && w->own)
        close(w->fd);
    w->fd = -1;
    mp__buf_free(&w->buf);
}

static int push_failure(lua_State *L, struct writer *w)
{
    int e = errno;

    w->buf.n = w->done = 0; /* or the finaliser would fail with it again */
    lua_getiuservalue(L, 1, 1);
    errno = e;
    return mp__push_errno(L, lua_tostring(L, -1));
}

static int drain_k(lua_State *L, int status, lua_KContext ctx)
{
    struct writer *w = lua_touserdata(L, 1);
    int rc;

    (void)status;
    rc = w->fd < 0 ? 1 : write_some(w, 0);
    if (rc == 0)
        return mp__fd_wait(L, &w->slot, w->fd, MP__FD_WRITE, ctx, drain_k);
    if (rc < 0)
        return push_failure(L, w);
    if (ctx == AFTER_CLOSE)
        close_fd(w);
    lua_settop(L, 1);
    return 1;
}

/* While one task waits for the pipe, others may still fill the buffer up to a bound. */
static int drain(lua_State *L, struct writer *w, size_t from, enum after after)
{
    int busy = mp__fd_waiting(&w->slot);

    if (w->buf.n < from || (busy && w->buf.n < 16 * FLUSH_AT)) {
        lua_settop(L, 1);
        return 1;
    }
    if (busy)
        return luaL_error(L, "another task is writing this file");
    return drain_k(L, LUA_OK, after);
}

static int fail_buffer(lua_State *L)
{
    return luaL_error(L, "out of memory for a write buffer");
}

/* w:write(string, ...) -> w, or nil and the reason. */
static int l_write(lua_State *L)
{
    struct writer *w = check_writer(L);
    int top = lua_gettop(L);
    size_t n;

    for (int i = 2; i <= top; i++)
        luaL_checkstring(L, i);
    for (int i = 2; i <= top; i++) {
        const char *s = lua_tolstring(L, i, &n);

        if (mp__buf_add(&w->buf, s, n) != 0)
            return fail_buffer(L);
        w->offset += (lua_Integer)n;
    }
    return drain(L, w, FLUSH_AT, AFTER_WRITE);
}

/* w:json(value [, sort_keys]) -> w: the value and a newline; a bad value writes nothing. */
static int l_json(lua_State *L)
{
    struct writer *w = check_writer(L);
    struct mp__json_options opt = {.sort_keys = lua_toboolean(L, 3)};
    size_t before = w->buf.n;
    char err[512];

    luaL_checkany(L, 2);
    if (mp__json_encode_with(L, 2, &w->buf, &opt, err, sizeof(err)) != 0) {
        lua_pushnil(L);
        lua_pushstring(L, err);
        return 2;
    }
    if (mp__buf_addc(&w->buf, '\n') != 0)
        return fail_buffer(L);
    w->offset += (lua_Integer)(w->buf.n - before);
    return drain(L, w, FLUSH_AT, AFTER_WRITE);
}

/* w:offset() -> bytes written since it was opened, those in the buffer included. */
static int l_offset(lua_State *L)
{
    lua_pushinteger(L, check_writer(L)->offset);
    return 1;
}

static int l_flush(lua_State *L)
{
    return drain(L, check_writer(L), 0, AFTER_WRITE);
}

/* w:sync(): what was written so far is on the disk when it returns. */
static int l_sync(lua_State *L)
{
    struct writer *w = check_writer(L);

    if (write_some(w, 1) < 0 || (fsync(w->fd) != 0 && errno != EINVAL && errno != EROFS))
        return push_failure(L, w);
    lua_settop(L, 1);
    return 1;
}

static int l_close(lua_State *L)
{
    struct writer *w = luaL_checkudata(L, 1, writer_type);

    lua_settop(L, 1);
    return w->fd < 0 ? 1 : drain(L, w, 0, AFTER_CLOSE);
}

/* End of scope, or collected: what is left goes out, even if that blocks. */
static int l_finalize(lua_State *L)
{
    struct writer *w = luaL_checkudata(L, 1, writer_type);

    if (w->fd >= 0)
        write_some(w, 1);
    close_fd(w);
    return 0;
}

static int flag(lua_State *L, const char *name)
{
    int on;

    if (!lua_istable(L, 2))
        return 0;
    lua_getfield(L, 2, name);
    on = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return on;
}

/* open_writer(path or "-" [, {append=, exclusive=}]) -> writer. Readable by the owner only. */
static int l_open_writer(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    int flags = O_WRONLY | O_CREAT | O_CLOEXEC;
    struct writer *w;

    if (!lua_isnoneornil(L, 2))
        luaL_checktype(L, 2, LUA_TTABLE);
    flags |= flag(L, "append") ? O_APPEND : O_TRUNC;
    flags |= flag(L, "exclusive") ? O_EXCL : 0;
    w = lua_newuserdatauv(L, sizeof(*w), 1);
    memset(w, 0, sizeof(*w));
    w->fd = -1;
    mp__buf_init(&w->buf, 0);
    luaL_setmetatable(L, writer_type);
    w->own = strcmp(path, "-") != 0;
    lua_pushstring(L, w->own ? path : "standard output");
    lua_setiuservalue(L, -2, 1);
    w->fd = w->own ? open(path, flags, 0600) : STDOUT_FILENO;
    if (w->fd < 0)
        return mp__push_errno(L, path);
    w->stream = mp__fd_is_stream(w->fd);
    return 1;
}

void mp__open_writer(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"write", l_write}, {"json", l_json},     {"flush", l_flush}, {"sync", l_sync},
        {"close", l_close}, {"offset", l_offset}, {NULL, NULL},
    };

    luaL_newmetatable(L, writer_type);
    luaL_newlib(L, methods);
    lua_setfield(L, -2, "__index");
    lua_pushcfunction(L, l_finalize);
    lua_setfield(L, -2, "__gc");
    lua_pushcfunction(L, l_finalize);
    lua_setfield(L, -2, "__close");
    lua_pop(L, 1);
    lua_pushcfunction(L, l_open_writer);
    lua_setfield(L, -2, "open_writer");
}

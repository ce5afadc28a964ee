/*
 * files.c - a line reader for files of any size: bounded memory, and slow pipes do not stop the
 * loop.
 *
 * A regular file is read at once, without the loop: the page cache answers in microseconds. Of
 * pipes and terminals is read only what is there; for more the task waits.
 */
#include "binding/files/files.h"

#include "binding/files/decode.h"
#include "binding/binding.h"
#include "binding/value/json.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHUNK            ((size_t)256 * 1024)
#define MAX_LINE_DEFAULT (16 << 20)

struct reader {
    int fd; /* < 0: closed */
    int own;
    int stream;
    int eof;
    int skipping; /* in a line that is longer than max_line */
    char *buf;
    size_t cap;
    size_t start;   /* of the line not handed out yet */
    size_t scanned; /* no newline before here */
    size_t end;
    size_t max_line;
    lua_Integer line;   /* number of the last line handed out */
    lua_Integer offset; /* bytes of all lines handed out */
    lua_Integer size;   /* of a regular file, else -1 */
    struct mp__fd_slot slot;
    int joined; /* files put behind one another: each may begin with a mark */
    struct mp__decode *decode;
    const char *why; /* what is wrong with the file, where errno does not say */
};

enum got { GOT_LINE, GOT_MORE, GOT_END, GOT_LONG, GOT_ERROR, GOT_NOTHING_YET };

enum want { WANT_LINE, WANT_JSON, WANT_RECORD };

static const char reader_type[] = "moonpool.line_reader";

int mp__push_errno(lua_State *L, const char *path)
{
    int e = errno;

    lua_pushnil(L);
    lua_pushfstring(L, "%s: %s", path, strerror(e));
    lua_pushinteger(L, e);
    return 3;
}

/* ---- the buffer ---- */

static int make_room(struct reader *r)
{
    char *p;

    if (r->start > 0) {
        memmove(r->buf, r->buf + r->start, r->end - r->start);
        r->end -= r->start;
        r->scanned -= r->start;
        r->start = 0;
    }
    if (r->cap - r->end >= CHUNK / 2)
        return 0;
    p = realloc(r->buf, r->cap < CHUNK ? CHUNK : r->cap * 2);
    if (p == NULL)
        return -1;
    r->buf = p;
    r->cap = r->cap < CHUNK ? CHUNK : r->cap * 2;
    return 0;
}

static enum got fill(struct reader *r)
{
    long n;

    if (r->skipping)
        r->start = r->scanned = r->end = 0;
    if (make_room(r) != 0) {
        errno = ENOMEM;
        return GOT_ERROR;
    }
    n = mp__decode_read(r->decode, r->fd, r->stream, r->buf + r->end, r->cap - r->end, &r->why);
    if (n == -1 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return GOT_NOTHING_YET;
    if (n < 0)
        return GOT_ERROR;
    r->eof = n == 0;
    r->end += (size_t)n;
    return GOT_MORE;
}

static void skip_bom(struct reader *r)
{
    if (r->offset == 0 && r->end - r->start >= 3 && !r->skipping &&
        memcmp(r->buf + r->start, "\xEF\xBB\xBF", 3) == 0) {
        r->start += 3;
        r->offset = 3;
        r->scanned = r->scanned < r->start ? r->start : r->scanned;
    }
}

/* Hands out buf[start..to) and moves on to `next`. */
static enum got hand_out(struct reader *r, size_t to, size_t next, const char **p, size_t *n)
{
    int too_long = r->skipping || to - r->start > r->max_line;

    *p = r->buf + r->start;
    *n = to - r->start;
    if (*n > 0 && next > to && (*p)[*n - 1] == '\r')
        --*n;
    if (r->joined && *n >= 3 &&
        memcmp(*p, "\xEF\xBB\xBF", 3) == 0) { /* files put behind one another */
        *p += 3;
        *n -= 3;
    }
    r->offset += (lua_Integer)(next - r->start);
    r->start = r->scanned = next;
    r->skipping = 0;
    r->line++;
    return too_long ? GOT_LONG : GOT_LINE;
}

/* The next line if it is in the buffer. */
static enum got take_line(struct reader *r, const char **p, size_t *n)
{
    const char *nl = NULL;

    if (r->line == 0)
        skip_bom(r);
    if (r->end > r->scanned)
        nl = memchr(r->buf + r->scanned, '\n', r->end - r->scanned);
    if (nl != NULL)
        return hand_out(r, (size_t)(nl - r->buf), (size_t)(nl - r->buf) + 1, p, n);
    r->scanned = r->end;
    if (r->eof)
        return r->end > r->start || r->skipping ? hand_out(r, r->end, r->end, p, n) : GOT_END;
    if (r->end - r->start > r->max_line)
        r->skipping = 1;
    if (r->skipping)
        r->offset += (lua_Integer)(r->end - r->start);
    return GOT_MORE;
}

/* ---- reading from Lua ---- */

static int push_bad(lua_State *L, const char *message, const char *code)
{
    lua_pushnil(L);
    lua_pushstring(L, message);
    lua_pushstring(L, code);
    return 3;
}

static int push_long(lua_State *L, const struct reader *r)
{
    char text[96];

    snprintf(text, sizeof(text), "the line is longer than %zu bytes", r->max_line);
    return push_bad(L, text, "long");
}

static int is_blank(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (p[i] != ' ' && p[i] != '\t' && p[i] != '\r' && p[i] != '\v' && p[i] != '\f')
            return 0;
    }
    return 1;
}

/* To the decoder each line is line 1; whoever reads the message has the file. */
static const char *in_file(lua_State *L, const char *err, char *out, size_t cap)
{
    static const char first[] = "line 1, ";
    const struct reader *r = lua_touserdata(L, 1);
    if (strncmp(err, first, sizeof(first) - 1) != 0)
        return err;
    snprintf(out, cap, "line %lld, %s", (long long)r->line, err + sizeof(first) - 1);
    return out;
}

static int push_line(lua_State *L, const char *p, size_t n, enum want want)
{
    char err[160], text[192];

    if (want == WANT_LINE) {
        lua_pushlstring(L, p, n);
        return 1;
    }
    if (is_blank(p, n))
        return push_bad(L, "the line is blank", "blank");
    if (mp__json_decode(L, p, n, err, sizeof(err)) == 1) {
        if (want == WANT_RECORD)
            lua_pushlstring(L, p, n);
        return want == WANT_RECORD ? 2 : 1;
    }
    return push_bad(L, in_file(L, err, text, sizeof(text)), "json");
}

static int push_failure(lua_State *L, struct reader *r)
{
    int e = errno;

    r->eof = 1;
    r->start = r->scanned = r->end = 0;
    r->skipping = 0;
    lua_getiuservalue(L, 1, 1);
    lua_pushnil(L);
    lua_pushfstring(L, "%s: %s", lua_tostring(L, -2), r->why != NULL ? r->why : strerror(e));
    lua_pushstring(L, "io");
    return 3;
}

static int read_k(lua_State *L, int status, lua_KContext ctx)
{
    struct reader *r = lua_touserdata(L, 1);
    const char *p;
    size_t n;

    (void)status;
    for (;;) {
        enum got got = r->fd < 0 ? GOT_END : take_line(r, &p, &n);

        if (got == GOT_MORE)
            got = fill(r);
        switch (got) {
        case GOT_LINE:
            return push_line(L, p, n, (enum want)ctx);
        case GOT_LONG:
            return push_long(L, r);
        case GOT_END:
            lua_pushnil(L);
            return 1;
        case GOT_ERROR:
            return push_failure(L, r);
        case GOT_NOTHING_YET:
            return mp__fd_wait(L, &r->slot, r->fd, MP__FD_READ, ctx, read_k);
        case GOT_MORE:
            break;
        }
    }
}

static struct reader *check_reader(lua_State *L)
{
    struct reader *r = luaL_checkudata(L, 1, reader_type);

    if (r->fd < 0)
        luaL_argerror(L, 1, "the file is closed");
    if (mp__fd_waiting(&r->slot))
        luaL_error(L, "another task is reading this file");
    return r;
}

/* r:read() -> line without its end; nil at the end; nil, message, code for a line that is bad. */
static int l_read(lua_State *L)
{
    check_reader(L);
    lua_settop(L, 1);
    return read_k(L, LUA_OK, WANT_LINE);
}

/* r:json() -> the value of the next line; else as read. Codes: blank, json, long, io. */
static int l_json(lua_State *L)
{
    check_reader(L);
    lua_settop(L, 1);
    return read_k(L, LUA_OK, WANT_JSON);
}

/* r:record() -> the value of the next line, and its text; else as json. */
static int l_record(lua_State *L)
{
    check_reader(L);
    lua_settop(L, 1);
    return read_k(L, LUA_OK, WANT_RECORD);
}

static int l_line(lua_State *L)
{
    lua_pushinteger(L, ((struct reader *)luaL_checkudata(L, 1, reader_type))->line);
    return 1;
}

static int l_offset(lua_State *L)
{
    struct reader *r = luaL_checkudata(L, 1, reader_type);
    int plain = r->decode == NULL || mp__decode_plain(r->decode);

    lua_pushinteger(L, plain ? r->offset : (lua_Integer)mp__decode_taken(r->decode));
    return 1;
}

/* r:skip(n) -> how many lines were passed over, less than n at the end and where one cannot be read;
 * nil for what may have to be waited for. */
static int l_skip(lua_State *L)
{
    struct reader *r = check_reader(L);
    lua_Integer n = luaL_checkinteger(L, 2), done = 0;
    const char *p;
    size_t length;

    if (r->stream)
        return 0;
    while (done < n) {
        enum got got = take_line(r, &p, &length);

        if (got == GOT_MORE)
            got = fill(r);
        if (got == GOT_LINE || got == GOT_LONG)
            done++;
        else if (got != GOT_MORE)
            break;
    }
    lua_pushinteger(L, done);
    return 1;
}

static int l_size(lua_State *L)
{
    struct reader *r = luaL_checkudata(L, 1, reader_type);

    if (r->size >= 0)
        lua_pushinteger(L, r->size);
    else
        lua_pushnil(L);
    return 1;
}

static int l_close(lua_State *L)
{
    struct reader *r = luaL_checkudata(L, 1, reader_type);

    mp__fd_unwatch(&r->slot);
    if (r->fd >= 0 && r->own)
        close(r->fd);
    r->fd = -1;
    free(r->buf);
    mp__decode_free(r->decode);
    r->decode = NULL;
    r->buf = NULL;
    r->cap = r->start = r->scanned = r->end = 0;
    return 0;
}

/* ---- opening ---- */

/* Non-blocking, so that a FIFO without a writer does not hold up the open; this open file is ours
 * alone. */
static int open_path(struct reader *r, const char *path)
{
    r->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    r->own = 1;
    return r->fd < 0 ? -1 : 0;
}

/* What stdio has read ahead is lost for a pipe; for a file fflush puts the position back. */
static int take_handle(lua_State *L, struct reader *r)
{
    luaL_Stream *s = luaL_checkudata(L, 1, LUA_FILEHANDLE);

    luaL_argcheck(L, s->closef != NULL, 1, "the file is closed");
    fflush(s->f);
    r->fd = fileno(s->f);
    r->own = 0;
    return 0;
}

static struct reader *push_reader(lua_State *L, lua_Integer max_line)
{
    struct reader *r = lua_newuserdatauv(L, sizeof(*r), 2);

    memset(r, 0, sizeof(*r));
    r->fd = -1;
    r->size = -1;
    r->max_line = (size_t)max_line;
    luaL_setmetatable(L, reader_type);
    return r;
}

static void look_at(struct reader *r)
{
    struct stat st;

    r->stream = mp__fd_is_stream(r->fd);
    if (fstat(r->fd, &st) == 0 && S_ISREG(st.st_mode)) {
        r->size = (lua_Integer)st.st_size;
        posix_fadvise(r->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    }
}

/* open_lines(path or handle or "-" [, max_line [, joined]]) -> reader, or nil and the reason. */
static int l_open_lines(lua_State *L)
{
    lua_Integer max_line = luaL_optinteger(L, 2, MAX_LINE_DEFAULT);
    int is_path = lua_type(L, 1) == LUA_TSTRING;
    const char *path = is_path ? lua_tostring(L, 1) : "input";
    int joined;
    struct reader *r;

    luaL_argcheck(L, max_line >= 1, 2, "a line has at least one byte");
    if (!is_path)
        luaL_checkudata(L, 1, LUA_FILEHANDLE);
    joined = lua_toboolean(L, 3);
    lua_settop(L, 1);
    r = push_reader(L, max_line);
    r->joined = joined;
    lua_pushstring(L, is_path && strcmp(path, "-") == 0 ? "standard input" : path);
    lua_setiuservalue(L, 2, 1);
    lua_pushvalue(L, 1); /* a handle must outlive its reader */
    lua_setiuservalue(L, 2, 2);
    if (!is_path)
        take_handle(L, r);
    else if (strcmp(path, "-") == 0)
        r->fd = STDIN_FILENO;
    else if (open_path(r, path) != 0)
        return mp__push_errno(L, path);
    r->decode = mp__decode_new();
    if (r->decode == NULL)
        return luaL_error(L, "out of memory for a reader");
    look_at(r);
    return 1;
}

void mp__open_files(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"read", l_read}, {"json", l_json},     {"record", l_record},
        {"line", l_line}, {"offset", l_offset}, {"size", l_size},
        {"skip", l_skip}, {"close", l_close},   {NULL, NULL},
    };

    luaL_newmetatable(L, reader_type);
    luaL_newlib(L, methods);
    lua_setfield(L, -2, "__index");
    lua_pushcfunction(L, l_close);
    lua_setfield(L, -2, "__gc");
    lua_pushcfunction(L, l_close);
    lua_setfield(L, -2, "__close");
    lua_pop(L, 1);
    lua_pushcfunction(L, l_open_lines);
    lua_setfield(L, -2, "open_lines");
    mp__open_writer(L);
}

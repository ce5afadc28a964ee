/*
 * npy.c - .npy files: whole matrices, a writer that appends, a reader of ranges of rows.
 *
 * Files fail in the way of Lua's io library: nil, "path: reason". They are read and written at
 * once, without the loop: a local file answers in less time than a turn takes.
 */
#include "task/task.h"
#include "binding/value/matrix.h"
#include "codec/npy.h"
#include "codec/vec.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAN_BLOCK 16384 /* numbers */

static const char writer_type[] = "moonpool.npy_writer";
static const char reader_type[] = "moonpool.npy_reader";

static int push_failure(lua_State *L, const char *path, const char *why)
{
    lua_pushnil(L);
    lua_pushfstring(L, "%s: %s", path, why);
    return 2;
}

static const char *reason(int rc)
{
    return rc == MP_ESYS ? strerror(errno) : mp_strerror(rc);
}

static int option_flag(lua_State *L, int idx, const char *name)
{
    int on;

    if (lua_isnoneornil(L, idx))
        return 0;
    luaL_checktype(L, idx, LUA_TTABLE);
    lua_getfield(L, idx, name);
    on = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return on;
}

/* ---- the writer ---- */

struct writer {
    struct mp__npy_writer w; /* w.fd < 0: closed */
};

static struct writer *push_writer(lua_State *L)
{
    struct writer *w = lua_newuserdatauv(L, sizeof(*w), 1);

    memset(w, 0, sizeof(*w));
    w->w.fd = -1;
    luaL_setmetatable(L, writer_type);
    return w;
}

static struct writer *check_writer(lua_State *L)
{
    struct writer *w = luaL_checkudata(L, 1, writer_type);

    if (w->w.fd < 0)
        luaL_argerror(L, 1, "the file is closed");
    return w;
}

static const char *writer_path(lua_State *L)
{
    lua_getiuservalue(L, 1, 1);
    return lua_tostring(L, -1);
}

/* npy_create(path, cols [, {f16=, exclusive=}]) -> writer. Readable by the owner only. */
static int l_create(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    lua_Integer cols = luaL_checkinteger(L, 2);
    int f16 = option_flag(L, 3, "f16");
    int flags = O_RDWR | O_CREAT | O_CLOEXEC | (option_flag(L, 3, "exclusive") ? O_EXCL : 0);
    struct writer *w;
    int fd, rc;

    luaL_argcheck(L, cols >= 1 && cols <= INT32_MAX, 2, "not a number of columns");
    w = push_writer(L);
    lua_pushvalue(L, 1);
    lua_setiuservalue(L, -2, 1);
    fd = open(path, flags, 0600);
    if (fd < 0)
        return push_failure(L, path, strerror(errno));
    rc = mp__npy_create(&w->w, fd, (uint32_t)cols, f16);
    w->w.fd = fd;
    return rc ? push_failure(L, path, reason(rc)) : 1;
}

static int push_written(lua_State *L, int rc)
{
    if (rc != 0)
        return push_failure(L, writer_path(L), reason(rc));
    lua_settop(L, 1);
    return 1;
}

/* w:append(matrix [, first, count]): rows in order. The matrix must have the file's columns. */
static int l_append(lua_State *L)
{
    struct writer *w = check_writer(L);
    mp_matrix *m = mp__check_matrix(L, 2);
    size_t rows = mp_matrix_rows(m), cols = mp_matrix_cols(m);
    lua_Integer first = luaL_optinteger(L, 3, 1);
    lua_Integer count = luaL_optinteger(L, 4, (lua_Integer)rows - first + 1);

    if (cols != w->w.cols)
        return luaL_error(L, "a matrix of %I columns, the file has %I", (lua_Integer)cols,
                          (lua_Integer)w->w.cols);
    luaL_argcheck(L, first >= 1 && (lua_Unsigned)first <= rows + 1, 3, "outside the matrix");
    luaL_argcheck(L, count >= 0 && (lua_Unsigned)count <= rows - (size_t)first + 1, 4,
                  "outside the matrix");
    return push_written(
        L, mp__npy_append(&w->w, mp_matrix_data(m) + (size_t)(first - 1) * cols, (size_t)count));
}

/* w:append_nan(count): the place of rows that have no vector. */
static int l_append_nan(lua_State *L)
{
    struct writer *w = check_writer(L);
    lua_Integer count = luaL_checkinteger(L, 2);
    size_t cols = w->w.cols, block = cols < NAN_BLOCK ? NAN_BLOCK / cols : 1;
    float *rows;
    int rc = 0;

    luaL_argcheck(L, count >= 0, 2, "cannot be negative");
    block = (lua_Unsigned)count < block ? (size_t)count : block;
    rows = lua_newuserdatauv(L, block * cols * sizeof(*rows) + 1, 0);
    for (size_t i = 0; i < block * cols; i++)
        rows[i] = NAN;
    for (size_t left = (size_t)count; rc == 0 && left > 0; left -= block) {
        block = left < block ? left : block;
        rc = mp__npy_append(&w->w, rows, block);
    }
    return push_written(L, rc);
}

static int l_writer_rows(lua_State *L)
{
    struct writer *w = luaL_checkudata(L, 1, writer_type);

    lua_pushinteger(L, (lua_Integer)w->w.rows);
    return 1;
}

/* w:finish(): the header tells the rows written so far; more may follow. */
static int l_finish(lua_State *L)
{
    return push_written(L, mp__npy_finish(&check_writer(L)->w));
}

/* w:sync(): finish, and wait until the disk has it. */
static int l_sync(lua_State *L)
{
    struct writer *w = check_writer(L);
    int rc = mp__npy_finish(&w->w);

    if (rc == 0 && fsync(w->w.fd) != 0)
        rc = MP_ESYS;
    return push_written(L, rc);
}

static int l_writer_close(lua_State *L)
{
    struct writer *w = luaL_checkudata(L, 1, writer_type);
    int rc = 0;

    if (w->w.fd >= 0) {
        rc = mp__npy_finish(&w->w);
        if (close(w->w.fd) != 0 && rc == 0)
            rc = MP_ESYS;
        w->w.fd = -1;
    }
    return push_written(L, rc);
}

/* ---- the reader ---- */

struct reader {
    struct mp__npy_info info;
    int fd; /* < 0: closed */
};

static int read_at(int fd, void *out, size_t n, uint64_t offset)
{
    char *p = out;

    while (n > 0) {
        ssize_t got = pread(fd, p, n, (off_t)offset);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return MP_ESYS;
        if (got == 0)
            return MP_EINVAL;
        p += got;
        n -= (size_t)got;
        offset += (uint64_t)got;
    }
    return 0;
}

static int read_header(struct reader *r, char *err, size_t cap)
{
    struct stat st;
    char head[4096];
    ssize_t n = pread(r->fd, head, sizeof(head), 0);
    uint64_t data;
    int rc;

    if (n < 0 || fstat(r->fd, &st) != 0) {
        snprintf(err, cap, "%s", strerror(errno));
        return -1;
    }
    rc = mp__npy_parse(head, (size_t)n, &r->info, err, cap);
    if (rc == MP_EAGAIN)
        snprintf(err, cap, "not a .npy file: its header is cut short or very long");
    if (rc != 0)
        return -1;
    data = (uint64_t)st.st_size - r->info.offset;
    if (r->info.cols > INT32_MAX ||
        (r->info.cols > 0 && r->info.rows > data / r->info.cols / (uint64_t)r->info.item)) {
        snprintf(err, cap, "the header promises more rows than the file holds");
        return -1;
    }
    return 0;
}

/* npy_open(path) -> reader of ranges of rows. */
static int l_open(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    struct reader *r = lua_newuserdatauv(L, sizeof(*r), 1);
    char err[160] = "";

    memset(r, 0, sizeof(*r));
    r->fd = -1;
    luaL_setmetatable(L, reader_type);
    lua_pushvalue(L, 1);
    lua_setiuservalue(L, -2, 1);
    r->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (r->fd < 0)
        return push_failure(L, path, strerror(errno));
    return read_header(r, err, sizeof(err)) ? push_failure(L, path, err) : 1;
}

static void convert(float *out, const void *raw, size_t n, int item)
{
    double v;

    if (item == 2) {
        mp__f32_from_f16_row(out, raw, n);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        memcpy(&v, (const char *)raw + i * sizeof(v), sizeof(v));
        out[i] = (float)v;
    }
}

static int read_rows(lua_State *L, struct reader *r, mp_matrix *m, uint64_t first)
{
    size_t n = mp_matrix_rows(m) * mp_matrix_cols(m);
    uint64_t at = r->info.offset + first * r->info.cols * (uint64_t)r->info.item;
    void *raw;
    int rc;

    if (r->info.item == 4)
        return read_at(r->fd, mp_matrix_data(m), n * 4, at);
    raw = lua_newuserdatauv(L, n * (size_t)r->info.item + 1, 0);
    rc = read_at(r->fd, raw, n * (size_t)r->info.item, at);
    if (rc == 0)
        convert(mp_matrix_data(m), raw, n, r->info.item);
    lua_pop(L, 1);
    return rc;
}

/* r:read(first, count) -> matrix of at most count rows from row first (1-based) on. */
static int l_read(lua_State *L)
{
    struct reader *r = luaL_checkudata(L, 1, reader_type);
    lua_Integer first = luaL_checkinteger(L, 2), count = luaL_checkinteger(L, 3);
    uint64_t left;
    mp_matrix **box;
    int rc;

    luaL_argcheck(L, r->fd >= 0, 1, "the file is closed");
    luaL_argcheck(L, first >= 1 && (lua_Unsigned)first <= r->info.rows + 1, 2, "no such row");
    luaL_argcheck(L, count >= 0, 3, "cannot be negative");
    left = r->info.rows - (uint64_t)first + 1;
    box = mp__push_matrix_box(L);
    *box =
        mp_matrix_new((uint64_t)count < left ? (size_t)count : (size_t)left, (size_t)r->info.cols);
    if (*box == NULL)
        return luaL_error(L, "out of memory for %I rows", count);
    mp__matrix_account(L, *box);
    rc = read_rows(L, r, *box, (uint64_t)first - 1);
    if (rc == 0)
        return 1;
    lua_getiuservalue(L, 1, 1);
    return push_failure(L, lua_tostring(L, -1), rc == MP_ESYS ? strerror(errno) : "cut short");
}

static int l_reader_rows(lua_State *L)
{
    struct reader *r = luaL_checkudata(L, 1, reader_type);

    lua_pushinteger(L, (lua_Integer)r->info.rows);
    return 1;
}

static int l_reader_cols(lua_State *L)
{
    struct reader *r = luaL_checkudata(L, 1, reader_type);

    lua_pushinteger(L, (lua_Integer)r->info.cols);
    return 1;
}

static int l_reader_close(lua_State *L)
{
    struct reader *r = luaL_checkudata(L, 1, reader_type);

    if (r->fd >= 0)
        close(r->fd);
    r->fd = -1;
    return 0;
}

/* ---- whole matrices ---- */

/* npy_load(path) -> matrix. */
static int l_load(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    mp_matrix **box = mp__push_matrix_box(L);
    char err[160] = "";
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return push_failure(L, path, strerror(errno));
    *box = mp__npy_load(fd, err, sizeof(err));
    close(fd);
    if (*box == NULL)
        return push_failure(L, path, err);
    mp__matrix_account(L, *box);
    return 1;
}

/* m:save_npy(path [, {f16=}]) -> m. */
static int l_save(lua_State *L)
{
    mp_matrix *m = mp__check_matrix(L, 1);
    const char *path = luaL_checkstring(L, 2);
    int f16 = option_flag(L, 3, "f16");
    struct mp__npy_writer w;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    int rc;

    if (fd < 0)
        return push_failure(L, path, strerror(errno));
    rc = mp__npy_create(&w, fd, (uint32_t)mp_matrix_cols(m), f16);
    if (rc == 0)
        rc = mp__npy_append(&w, mp_matrix_data(m), mp_matrix_rows(m));
    if (rc == 0)
        rc = mp__npy_finish(&w);
    if (close(fd) != 0 && rc == 0)
        rc = MP_ESYS;
    if (rc != 0)
        return push_failure(L, path, reason(rc));
    lua_settop(L, 1);
    return 1;
}

static const luaL_Reg writer_methods[] = {
    {"append", l_append}, {"append_nan", l_append_nan}, {"rows", l_writer_rows},
    {"finish", l_finish}, {"close", l_writer_close},    {"sync", l_sync},
    {NULL, NULL},
};

static const luaL_Reg reader_methods[] = {
    {"read", l_read}, {"rows", l_reader_rows}, {"cols", l_reader_cols}, {"close", l_reader_close},
    {NULL, NULL},
};

static void make_class(lua_State *L, const char *name, const luaL_Reg *methods, lua_CFunction gc)
{
    luaL_newmetatable(L, name);
    lua_createtable(L, 0, 6);
    luaL_setfuncs(L, methods, 0);
    lua_setfield(L, -2, "__index");
    lua_pushcfunction(L, gc);
    lua_setfield(L, -2, "__gc");
    lua_pushcfunction(L, gc);
    lua_setfield(L, -2, "__close");
    lua_pop(L, 1);
}

void mp__open_npy(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"npy_create", l_create}, {"npy_open", l_open}, {"npy_load", l_load}, {NULL, NULL}};

    make_class(L, writer_type, writer_methods, l_writer_close);
    make_class(L, reader_type, reader_methods, l_reader_close);
    luaL_setfuncs(L, functions, 0);
    lua_getfield(L, -1, "matrix_methods");
    lua_pushcfunction(L, l_save);
    lua_setfield(L, -2, "save_npy");
    lua_pop(L, 1);
    lua_pushnil(L);
    lua_setfield(L, -2, "matrix_methods");
}

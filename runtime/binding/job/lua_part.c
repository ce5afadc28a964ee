/*
 * lua_part.c - a part as Lua sees it: rows are put in as batches end, in any order.
 */
#include "binding/job/job.h"
#include "binding/value/matrix.h"
#include "codec/npy.h"
#include "codec/vec.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct box {
    struct mp__part part;
    int open, normalize, with_text;
    struct mp__pool_op op;
    /* for publish, which runs in another thread */
    char *jsonl, *npy_name, *jsonl_name, *dir;
    int rows_fd;
    uint32_t publish_rows;
    struct mp__published published;
    /* scratch of put */
    struct mp__row *records;
    char *vectors;
    float *floats;
    size_t cap_records, cap_vectors, cap_floats;
    struct mp__buf lines;
};

static const char part_type[] = "moonpool.job_part";

static struct box *check(lua_State *L)
{
    struct box *b = luaL_checkudata(L, 1, part_type);

    if (!b->open)
        luaL_argerror(L, 1, "the part is closed");
    return b;
}

static int push_failure(lua_State *L, struct box *b, int e)
{
    lua_pushnil(L);
    lua_pushfstring(L, "%s: %s", b->part.npy, strerror(e));
    lua_pushinteger(L, e);
    return 3;
}

static void *grown(lua_State *L, void *p, size_t *cap, size_t n)
{
    void *q;

    if (n <= *cap)
        return p;
    q = realloc(p, n);
    if (q == NULL)
        luaL_error(L, "out of memory for a batch of rows");
    *cap = n;
    return q;
}

/* ---- opening ---- */

static lua_Integer integer_of(lua_State *L, const char *name, lua_Integer low, lua_Integer high)
{
    lua_Integer v;

    lua_getfield(L, 1, name);
    v = luaL_optinteger(L, -1, low);
    lua_pop(L, 1);
    if (v < low || v > high)
        luaL_error(L, "job_part: %s is out of range", name);
    return v;
}

static int flag_of(lua_State *L, const char *name)
{
    int v;

    lua_getfield(L, 1, name);
    v = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return v;
}

/* job_part {npy=, log=, first=, limit=, cols=, f16=, normalize=, text=, ledger=} -> part with the rows
 * that an earlier run logged, or nil and the reason. */
static int l_new(lua_State *L)
{
    struct box *b;
    lua_Integer first, limit, cols;

    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    first = integer_of(L, "first", 0, INT64_MAX / 2);
    limit = integer_of(L, "limit", 1, UINT32_MAX / 2);
    cols = integer_of(L, "cols", 0, INT32_MAX);
    lua_getfield(L, 1, "npy");
    lua_getfield(L, 1, "log");
    lua_getfield(L, 1, "ledger");
    luaL_checkstring(L, 2);
    luaL_checkstring(L, 3);
    b = lua_newuserdatauv(L, sizeof(*b), 1);
    memset(b, 0, sizeof(*b));
    b->rows_fd = -1;
    luaL_setmetatable(L, part_type);
    lua_pushvalue(L, 4);
    lua_setiuservalue(L, -2, 1);
    mp__buf_init(&b->lines, 0);
    b->normalize = flag_of(L, "normalize");
    b->with_text = flag_of(L, "text");
    b->open = 1;
    if (mp__part_open(&b->part, lua_tostring(L, 2), lua_tostring(L, 3), (uint64_t)first,
                      (uint32_t)limit, (uint32_t)cols, flag_of(L, "f16"),
                      lua_isnil(L, 4) ? NULL : mp__ledger_sound(L, 4)) != 0)
        return luaL_fileresult(L, 0, lua_tostring(L, 3));
    return 1;
}

static int l_set_cols(lua_State *L)
{
    struct box *b = check(L);
    lua_Integer cols = luaL_checkinteger(L, 2);

    luaL_argcheck(L, cols >= 1 && cols <= INT32_MAX, 2, "not a number of columns");
    if (mp__part_set_cols(&b->part, (uint32_t)cols) != 0)
        return push_failure(L, b, errno);
    lua_pushboolean(L, 1);
    return 1;
}

/* ---- putting rows ---- */

static void to_file_form(struct box *b, char *out, const float *row)
{
    uint32_t cols = b->part.cols;
    float *f = b->part.f16 ? b->floats : (float *)(void *)out;

    memcpy(f, row, cols * sizeof(*f));
    if (b->normalize)
        mp__normalize(f, cols);
    if (b->part.f16)
        mp__f16_from_f32_row((void *)out, f, cols);
}

static void nan_row(struct box *b, char *out)
{
    for (uint32_t i = 0; i < b->part.cols; i++)
        b->floats[i] = NAN;
    if (b->part.f16)
        mp__f16_from_f32_row((void *)out, b->floats, b->part.cols);
    else
        memcpy(out, b->floats, b->part.cols * sizeof(float));
}

/* Rows in the file's form: as they are where nothing is to be done to them. */
static const void *vectors_of(lua_State *L, struct box *b, mp_matrix *m, size_t from, uint32_t n)
{
    size_t stride = mp__part_stride(&b->part), cols = m != NULL ? mp_matrix_cols(m) : 0;
    int plain = m != NULL && !b->part.f16 && !b->normalize && cols == b->part.cols;

    if (b->part.cols == 0)
        return NULL;
    for (uint32_t i = 0; plain && i < n; i++)
        plain = b->records[i].key[15] == MP__ROW_OK;
    if (plain)
        return mp_matrix_data(m) + from * cols;
    b->vectors = grown(L, b->vectors, &b->cap_vectors, n * stride);
    b->floats = grown(L, b->floats, &b->cap_floats, b->part.cols * sizeof(float));
    for (uint32_t i = 0; i < n; i++) {
        if (m != NULL && b->records[i].key[15] == MP__ROW_OK)
            to_file_form(b, b->vectors + i * stride, mp_matrix_data(m) + (from + i) * cols);
        else
            nan_row(b, b->vectors + i * stride);
    }
    return b->vectors;
}

/* Records and lines of items i..i+n of the table at 2; errors at 8: by index, or nil. */
static void describe(lua_State *L, struct box *b, lua_Integer i, uint32_t n, uint32_t at)
{
    int errors = lua_istable(L, 8);
    struct mp__item fields;

    b->records = grown(L, b->records, &b->cap_records, n * sizeof(*b->records));
    b->lines.n = 0;
    for (uint32_t k = 0; k < n; k++) {
        int failed = errors && lua_geti(L, 8, i + k) == LUA_TTABLE, item;

        if (!errors)
            lua_pushnil(L);
        lua_geti(L, 2, i + k);
        item = lua_gettop(L);
        luaL_checktype(L, item, LUA_TTABLE);
        mp__item_read(L, item, &fields);
        mp__item_row(L, item, &fields, &b->records[k]);
        b->records[k].key[15] = !failed          ? MP__ROW_OK
                                : fields.problem ? MP__ROW_LOCAL
                                                 : MP__ROW_FAILED;
        if (mp__item_line(L, item, &fields, (lua_Integer)b->part.first + at + k,
                          failed ? item - 1 : 0, b->with_text, &b->lines) != 0)
            luaL_error(L, "out of memory for the lines of a batch");
        lua_pop(L, 2);
    }
}

static int done(lua_State *L, struct box *b, int rc)
{
    if (rc != 0)
        return push_failure(L, b, errno);
    lua_pushboolean(L, 1);
    return 1;
}

static uint32_t check_range(lua_State *L, struct box *b, int n_arg, int at_arg)
{
    lua_Integer n = luaL_checkinteger(L, n_arg), at = luaL_checkinteger(L, at_arg);

    luaL_argcheck(L, at >= 0 && at < b->part.limit, at_arg, "outside the part");
    luaL_argcheck(L, n >= 1 && n <= b->part.limit - at, n_arg, "outside the part");
    return (uint32_t)n;
}

/* part:put(items, i, n, at, matrix or nil, row, errors): items i..i+n are rows at..at+n of the part,
 * their vectors the matrix's from `row` (1-based) on. */
static int l_put(lua_State *L)
{
    struct box *b = check(L);
    lua_Integer i = luaL_checkinteger(L, 3), row = luaL_optinteger(L, 7, 1);
    uint32_t n = check_range(L, b, 4, 5), at = (uint32_t)lua_tointeger(L, 5);
    mp_matrix *m = lua_isnil(L, 6) ? NULL : mp__check_matrix(L, 6);
    const void *vectors;

    luaL_checktype(L, 2, LUA_TTABLE);
    luaL_argcheck(L, m == NULL || (row >= 1 && (size_t)row - 1 + n <= mp_matrix_rows(m)), 7,
                  "outside the matrix");
    luaL_argcheck(L, m == NULL || mp_matrix_cols(m) >= b->part.cols, 6, "too few columns");
    lua_settop(L, 8);
    describe(L, b, i, n, at);
    vectors = vectors_of(L, b, m, m != NULL ? (size_t)row - 1 : 0, n);
    return done(L, b, mp__part_put(&b->part, at, n, vectors, b->records, b->lines.p, b->lines.n));
}

/* part:put_raw(items, i, n, at, bytes): vectors as another file of this form holds them. */
static int l_put_raw(lua_State *L)
{
    struct box *b = check(L);
    lua_Integer i = luaL_checkinteger(L, 3);
    uint32_t n = check_range(L, b, 4, 5), at = (uint32_t)lua_tointeger(L, 5);
    size_t bytes;
    const char *raw = luaL_checklstring(L, 6, &bytes);

    luaL_checktype(L, 2, LUA_TTABLE);
    luaL_argcheck(L, b->part.cols && bytes == n * mp__part_stride(&b->part), 6, "wrong length");
    lua_settop(L, 7);
    lua_pushnil(L);
    describe(L, b, i, n, at);
    return done(L, b, mp__part_put(&b->part, at, n, raw, b->records, b->lines.p, b->lines.n));
}

/* part:adopt(rows, n, at, bytes or nil, lines): rows of an earlier job at the same place, as they are. */
static int l_adopt(lua_State *L)
{
    struct box *b = check(L);
    uint32_t n = check_range(L, b, 3, 4), at = (uint32_t)lua_tointeger(L, 4);
    size_t bytes = 0, length;
    const char *raw = lua_isnil(L, 5) ? NULL : luaL_checklstring(L, 5, &bytes);
    const char *lines = luaL_checklstring(L, 6, &length);

    luaL_argcheck(L, !raw || bytes == n * mp__part_stride(&b->part), 5, "wrong length");
    b->records = grown(L, b->records, &b->cap_records, n * sizeof(*b->records));
    if (mp__job_rows_read(L, 2, b->part.first + at, n, b->records) != 0)
        return push_failure(L, b, errno);
    return done(L, b, mp__part_put(&b->part, at, n, raw, b->records, lines, length));
}

/* ---- looking ---- */

/* part:state(at) -> as job_rows:state */
static int l_state(lua_State *L)
{
    struct box *b = check(L);
    lua_Integer at = luaL_checkinteger(L, 2);

    lua_pushinteger(L, at >= 0 && at < b->part.limit ? b->part.rows[at].key[15] : 0);
    return 1;
}

/* part:gap(from) -> the first row from there on that has no state yet; the limit where there is none. */
static int l_gap(lua_State *L)
{
    struct box *b = check(L);
    lua_Integer at = luaL_checkinteger(L, 2);

    while (at < b->part.limit && b->part.rows[at].key[15] != MP__ROW_NONE)
        at++;
    lua_pushinteger(L, at);
    return 1;
}

/* part:counts() -> rows that have a state, those of them that failed, bytes not in the log yet */
static int l_counts(lua_State *L)
{
    struct box *b = check(L);

    lua_pushinteger(L, b->part.have);
    lua_pushinteger(L, b->part.failed);
    lua_pushinteger(L, (lua_Integer)(b->part.pending.n + b->part.flight.n));
    return 3;
}

static void set_number(lua_State *L, const char *name, double v)
{
    lua_pushnumber(L, v);
    lua_setfield(L, -2, name);
}

static void set_integer(lua_State *L, const char *name, uint64_t v)
{
    lua_pushinteger(L, (lua_Integer)v);
    lua_setfield(L, -2, name);
}

static void push_health(lua_State *L, const struct mp__health *h)
{
    uint64_t n = h->rows - h->zero - h->bad;

    lua_createtable(L, 0, 8);
    set_integer(L, "rows", h->rows);
    set_integer(L, "zero", h->zero);
    set_integer(L, "not_finite", h->bad);
    set_integer(L, "identical", h->same);
    if (n > 0) {
        set_number(L, "norm_min", h->norm_min);
        set_number(L, "norm_max", h->norm_max);
        set_number(L, "norm_mean", h->norm_sum / (double)n);
    }
    lua_createtable(L, MP__HEALTH_BINS, 0);
    for (int i = 0; i < MP__HEALTH_BINS; i++) {
        lua_pushinteger(L, (lua_Integer)h->norms[i]);
        lua_rawseti(L, -2, i + 1);
    }
    lua_setfield(L, -2, "norms");
}

/* part:health() -> {rows=, zero=, not_finite=, identical=, norm_min=, norm_max=, norm_mean=, norms=} */
static int l_health(lua_State *L)
{
    push_health(L, &check(L)->part.health);
    return 1;
}

/* part:records(fd file): all records to a rows file at path, for rows that have none there. */
static int l_records(lua_State *L)
{
    struct box *b = check(L);
    const char *path = luaL_checkstring(L, 2);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600), rc, e;

    if (fd < 0)
        return luaL_fileresult(L, 0, path);
    rc = mp__write_at(fd, b->part.rows, b->part.limit * sizeof(struct mp__row),
                      b->part.first * sizeof(struct mp__row));
    if (rc == 0)
        rc = fdatasync(fd);
    e = errno;
    close(fd);
    errno = e;
    return luaL_fileresult(L, rc == 0, path);
}

/* ---- commits ---- */

static struct box *box_of(struct mp__pool_op *op)
{
    return (struct box *)((char *)op - offsetof(struct box, op));
}

static int commit_work(struct mp__pool_op *op)
{
    return mp__part_commit(&box_of(op)->part);
}

static int commit_k(lua_State *L, int status, lua_KContext ctx)
{
    struct box *b = lua_touserdata(L, 1);

    (void)status;
    (void)ctx;
    mp__part_landed(&b->part);
    if (b->op.error)
        return push_failure(L, b, b->op.error);
    lua_pushboolean(L, 1);
    return 1;
}

/* part:commit(now) -> true once what was put before is on the disk; nil and the reason. */
static int l_commit(lua_State *L)
{
    struct box *b = check(L);
    int now = lua_toboolean(L, 2);

    lua_settop(L, 1);
    if (b->part.error)
        return push_failure(L, b, b->part.error);
    if (!now)
        mp__wait_check(L);
    if (b->op.busy)
        return luaL_error(L, "a commit of this part is under way");
    if (!mp__part_launch(&b->part)) {
        lua_pushboolean(L, 1);
        return 1;
    }
    /* what comes while the commit runs belongs to the next one */
    return mp__pool_run(L, &b->op, commit_work, now, commit_k);
}

static int publish_work(struct mp__pool_op *op)
{
    struct box *b = box_of(op);

    return mp__part_publish(&b->part, b->publish_rows, b->rows_fd, b->jsonl, b->npy_name,
                            b->jsonl_name, b->dir, &b->published);
}

static void forget_publish(struct box *b)
{
    free(b->jsonl);
    free(b->npy_name);
    free(b->jsonl_name);
    free(b->dir);
    if (b->rows_fd >= 0)
        close(b->rows_fd);
    b->jsonl = b->npy_name = b->jsonl_name = b->dir = NULL;
    b->rows_fd = -1;
}

static int publish_k(lua_State *L, int status, lua_KContext ctx)
{
    struct box *b = lua_touserdata(L, 1);

    (void)status;
    (void)ctx;
    forget_publish(b);
    if (b->op.error)
        return push_failure(L, b, b->op.error);
    lua_createtable(L, 0, 5);
    if (b->part.cols) {
        lua_pushstring(L, b->published.npy_sum);
        lua_setfield(L, -2, "npy_sum");
        set_integer(L, "npy_bytes", b->published.npy_bytes);
    }
    lua_pushstring(L, b->published.jsonl_sum);
    lua_setfield(L, -2, "jsonl_sum");
    set_integer(L, "jsonl_bytes", b->published.jsonl_bytes);
    push_health(L, &b->part.health);
    lua_setfield(L, -2, "health");
    return 1;
}

static char *copy_of(lua_State *L, const char *name)
{
    char *s;

    lua_getfield(L, 2, name);
    s = strdup(luaL_checkstring(L, -1));
    lua_pop(L, 1);
    return s;
}

/* part:publish({rows=, records=, lines=, npy=, jsonl=, dir=}, now) -> what index.json says of its files;
 * records: the path of the job's rows; lines: where they are gathered. */
static int l_publish(lua_State *L)
{
    struct box *b = check(L);
    int now = lua_toboolean(L, 3);
    const char *records;
    lua_Integer rows;

    luaL_checktype(L, 2, LUA_TTABLE);
    lua_settop(L, 2);
    lua_getfield(L, 2, "rows");
    rows = luaL_checkinteger(L, -1);
    luaL_argcheck(L, rows >= 1 && rows <= b->part.limit, 2, "rows outside the part");
    lua_getfield(L, 2, "records");
    records = luaL_checkstring(L, -1);
    if (b->op.busy)
        return luaL_error(L, "a commit of this part is under way");
    forget_publish(b);
    b->jsonl = copy_of(L, "lines");
    b->npy_name = copy_of(L, "npy");
    b->jsonl_name = copy_of(L, "jsonl");
    b->dir = copy_of(L, "dir");
    if (b->jsonl == NULL || b->npy_name == NULL || b->jsonl_name == NULL || b->dir == NULL)
        return luaL_error(L, "out of memory");
    b->rows_fd = open(records, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (b->rows_fd < 0)
        return luaL_fileresult(L, 0, records);
    b->publish_rows = (uint32_t)rows;
    lua_settop(L, 1);
    return mp__pool_run(L, &b->op, publish_work, now, publish_k);
}

/* ---- the end ---- */

static int l_rest(lua_State *L)
{
    struct box *b = check(L);

    if (!b->op.busy)
        mp__part_rest(&b->part);
    return 0;
}

static int l_close(lua_State *L)
{
    struct box *b = luaL_checkudata(L, 1, part_type);

    if (!b->open || b->op.busy)
        return 0;
    b->open = 0;
    forget_publish(b);
    mp__part_close(&b->part);
    free(b->records);
    free(b->vectors);
    free(b->floats);
    mp__buf_free(&b->lines);
    return 0;
}

void mp__open_job_part(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"put", l_put},           {"put_raw", l_put_raw}, {"adopt", l_adopt},
        {"set_cols", l_set_cols}, {"state", l_state},     {"gap", l_gap},
        {"counts", l_counts},     {"health", l_health},   {"records", l_records},
        {"commit", l_commit},     {"publish", l_publish}, {"rest", l_rest},
        {"close", l_close},       {NULL, NULL},
    };

    luaL_newmetatable(L, part_type);
    luaL_newlib(L, methods);
    lua_setfield(L, -2, "__index");
    lua_pushcfunction(L, l_close);
    lua_setfield(L, -2, "__gc");
    lua_pop(L, 1);
    lua_pushcfunction(L, l_new);
    lua_setfield(L, -2, "job_part");
}

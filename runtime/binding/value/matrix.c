/*
 * matrix.c - moonpool.matrix: a float32 block in C memory behind a small userdata.
 */
#include "binding/value/matrix.h"

#include "binding/binding.h"
#include "task/task.h"
#include "codec/vec.h"

#include <string.h>

static const char matrix_type[] = "moonpool.matrix";

/* ---- the userdata: one pointer, NULL once freed ---- */

mp_matrix **mp__push_matrix_box(lua_State *L)
{
    mp_matrix **box = lua_newuserdatauv(L, sizeof(*box), 0);

    *box = NULL;
    luaL_setmetatable(L, matrix_type);
    return box;
}

void mp__matrix_account(lua_State *L, const mp_matrix *m)
{
    size_t kb = mp_matrix_rows(m) * mp_matrix_cols(m) * sizeof(float) / 1024;

    if (kb > 0 && lua_gc(L, LUA_GCISRUNNING))
        lua_gc(L, LUA_GCSTEP, kb < 1 << 20 ? (int)kb : 1 << 20);
}

mp_matrix *mp__to_matrix(lua_State *L, int idx)
{
    mp_matrix **box = luaL_testudata(L, idx, matrix_type);

    return box != NULL ? *box : NULL;
}

mp_matrix *mp__check_matrix(lua_State *L, int idx)
{
    mp_matrix **box = luaL_checkudata(L, idx, matrix_type);

    if (*box == NULL)
        luaL_argerror(L, idx, "the matrix was freed");
    return *box;
}

static int l_free(lua_State *L)
{
    mp_matrix **box = luaL_checkudata(L, 1, matrix_type);

    mp_matrix_unref(*box);
    *box = NULL;
    return 0;
}

static mp_matrix *push_new(lua_State *L, size_t rows, size_t cols)
{
    mp_matrix **box = mp__push_matrix_box(L);

    *box = mp_matrix_new(rows, cols);
    if (*box == NULL)
        luaL_error(L, "out of memory for a matrix of %I x %I", (lua_Integer)rows,
                   (lua_Integer)cols);
    mp__matrix_account(L, *box);
    return *box;
}

static void set_int(lua_State *L, const char *name, lua_Integer v)
{
    lua_pushinteger(L, v);
    lua_setfield(L, -2, name);
}

/* ---- making ---- */

static int from_size(lua_State *L)
{
    lua_Integer rows = luaL_checkinteger(L, 1), cols = luaL_checkinteger(L, 2);

    luaL_argcheck(L, rows >= 0, 1, "a number of rows cannot be negative");
    luaL_argcheck(L, cols >= 0 && cols <= INT32_MAX, 2, "not a number of columns");
    push_new(L, (size_t)rows, (size_t)cols);
    return 1;
}

static int from_bytes(lua_State *L)
{
    size_t n, width;
    const char *p = lua_tolstring(L, 1, &n);
    lua_Integer cols = luaL_checkinteger(L, 2);
    mp_matrix *m;

    luaL_argcheck(L, cols >= 1 && cols <= INT32_MAX, 2, "not a number of columns");
    width = (size_t)cols * sizeof(float);
    if (n % width != 0)
        return luaL_error(L, "%I bytes are not whole rows of %I float32", (lua_Integer)n, cols);
    m = push_new(L, n / width, (size_t)cols);
    if (n > 0)
        memcpy(mp_matrix_data(m), p, n);
    return 1;
}

static int from_rows(lua_State *L)
{
    size_t rows = (size_t)lua_rawlen(L, 1), cols = 0;
    mp_matrix *m;

    if (rows > 0) {
        lua_rawgeti(L, 1, 1);
        if (!lua_istable(L, -1) && !lua_isuserdata(L, -1))
            return luaL_argerror(L, 1, "a table of rows expected (each a table of numbers)");
        cols = (size_t)luaL_len(L, -1);
        lua_pop(L, 1);
    }
    m = push_new(L, rows, cols);
    for (size_t i = 0; i < rows; i++) {
        lua_rawgeti(L, 1, (lua_Integer)i + 1);
        mp__matrix_fill_row(L, lua_gettop(L), mp_matrix_data(m) + i * cols, cols,
                            (lua_Integer)i + 1);
        lua_pop(L, 1);
    }
    return 1;
}

/* matrix_from({{...}, ...}), (rows, cols) of zeros, or (packed bytes, cols). */
static int l_from(lua_State *L)
{
    switch (lua_type(L, 1)) {
    case LUA_TNUMBER:
        return from_size(L);
    case LUA_TSTRING:
        return from_bytes(L);
    case LUA_TTABLE:
        return from_rows(L);
    default:
        return luaL_typeerror(L, 1, "table of rows, number of rows, or packed bytes");
    }
}

/* matrix_concat({m, ...}) -> a matrix of all their rows */
static int l_concat(lua_State *L)
{
    size_t rows = 0, cols = 0, at = 0, n;
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_Integer count = luaL_len(L, 1);
    luaL_argcheck(L, count > 0, 1, "a list of matrices expected");
    for (lua_Integer i = 1; i <= count; i++) {
        lua_rawgeti(L, 1, i);
        mp_matrix *m = mp__check_matrix(L, -1);
        if (i > 1 && mp_matrix_cols(m) != cols)
            return luaL_error(L, "concat: matrix %I has %I columns, the first has %I", i,
                              (lua_Integer)mp_matrix_cols(m), (lua_Integer)cols);
        cols = mp_matrix_cols(m);
        rows += mp_matrix_rows(m);
        lua_pop(L, 1);
    }
    float *to = mp_matrix_data(push_new(L, rows, cols));
    for (lua_Integer i = 1; i <= count; i++) {
        lua_rawgeti(L, 1, i);
        mp_matrix *m = mp__check_matrix(L, -1);
        n = mp_matrix_rows(m) * cols;
        if (n > 0)
            memcpy(to + at, mp_matrix_data(m), n * sizeof(float));
        at += n;
        lua_pop(L, 1);
    }
    return 1;
}

/* ---- reading ---- */

static size_t check_row(lua_State *L, int arg, const mp_matrix *m)
{
    lua_Integer i = luaL_checkinteger(L, arg);
    size_t rows = mp_matrix_rows(m);

    if (i < 1 || (lua_Unsigned)i > rows) {
        if (rows == 0)
            lua_pushfstring(L, "row %I of a matrix without rows", i);
        else
            lua_pushfstring(L, "row %I is outside 1..%I", i, (lua_Integer)rows);
        luaL_argerror(L, arg, lua_tostring(L, -1));
    }
    return (size_t)i - 1;
}

static int l_rows(lua_State *L)
{
    lua_pushinteger(L, (lua_Integer)mp_matrix_rows(mp__check_matrix(L, 1)));
    return 1;
}

static int l_cols(lua_State *L)
{
    lua_pushinteger(L, (lua_Integer)mp_matrix_cols(mp__check_matrix(L, 1)));
    return 1;
}

static int l_row(lua_State *L)
{
    mp_matrix *m = mp__check_matrix(L, 1);

    mp__push_row(L, m, check_row(L, 2, m));
    return 1;
}

/* m[i]: nil outside 1..#m, so that ipairs ends; else a method. */
static int l_index(lua_State *L)
{
    if (lua_type(L, 2) == LUA_TNUMBER) {
        mp_matrix *m = mp__check_matrix(L, 1);
        int is_int;
        lua_Integer i = lua_tointegerx(L, 2, &is_int);

        if (is_int && i >= 1 && (lua_Unsigned)i <= mp_matrix_rows(m))
            mp__push_row(L, m, (size_t)i - 1);
        else
            lua_pushnil(L);
        return 1;
    }
    lua_settop(L, 2);
    lua_rawget(L, lua_upvalueindex(1));
    return 1;
}

static int l_newindex(lua_State *L)
{
    return luaL_error(L, "a matrix is read-only; moonpool.matrix.from makes a new one");
}

static int l_bytes(lua_State *L)
{
    mp_matrix *m = mp__check_matrix(L, 1);

    lua_pushlstring(L, (const char *)mp_matrix_data(m),
                    mp_matrix_rows(m) * mp_matrix_cols(m) * sizeof(float));
    return 1;
}

static int l_totable(lua_State *L)
{
    mp_matrix *m = mp__check_matrix(L, 1);
    const float *p = mp_matrix_data(m);
    size_t rows = mp_matrix_rows(m), cols = mp_matrix_cols(m);

    lua_createtable(L, rows < INT32_MAX ? (int)rows : 0, 0);
    for (size_t i = 0; i < rows; i++) {
        lua_createtable(L, (int)cols, 0);
        for (size_t k = 0; k < cols; k++) {
            lua_pushnumber(L, (lua_Number)*p++);
            lua_rawseti(L, -2, (lua_Integer)k + 1);
        }
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    return 1;
}

static int l_tostring(lua_State *L)
{
    mp_matrix **box = luaL_checkudata(L, 1, matrix_type);

    if (*box != NULL)
        lua_pushfstring(L, "matrix %I x %I", (lua_Integer)mp_matrix_rows(*box),
                        (lua_Integer)mp_matrix_cols(*box));
    else
        lua_pushliteral(L, "matrix (freed)");
    return 1;
}

static int same(const mp_matrix *a, const mp_matrix *b)
{
    const float *x = mp_matrix_data((mp_matrix *)a), *y = mp_matrix_data((mp_matrix *)b);
    size_t n = mp_matrix_rows(a) * mp_matrix_cols(a);

    if (mp_matrix_rows(a) != mp_matrix_rows(b) || mp_matrix_cols(a) != mp_matrix_cols(b))
        return 0;
    for (size_t i = 0; i < n; i++) {
        if (x[i] != y[i])
            return 0;
    }
    return 1;
}

static int l_eq(lua_State *L)
{
    mp_matrix *a = mp__to_matrix(L, 1), *b = mp__to_matrix(L, 2);

    lua_pushboolean(L, a != NULL && b != NULL && same(a, b));
    return 1;
}

/* ---- arithmetic ---- */

static int l_dot(lua_State *L)
{
    mp_matrix *m = mp__check_matrix(L, 1);
    size_t cols = mp_matrix_cols(m), n;
    size_t row = check_row(L, 2, m);
    const float *v = mp__check_vector(L, 3, cols, &n);

    lua_pushnumber(L, (lua_Number)mp__dot(mp_matrix_data(m) + row * cols, v, cols));
    return 1;
}

/* Every row to length 1, in place; returns the matrix. */
static int l_normalize(lua_State *L)
{
    mp_matrix *m = mp__check_matrix(L, 1);
    size_t rows = mp_matrix_rows(m), cols = mp_matrix_cols(m);

    for (size_t i = 0; i < rows; i++)
        mp__normalize(mp_matrix_data(m) + i * cols, cols);
    lua_settop(L, 1);
    return 1;
}

/* m:topk(vector, k [, "cosine" | "dot"]) -> {{index=, score=}, ...}, best first. */
static int l_topk(lua_State *L)
{
    static const char *const names[] = {"cosine", "dot", NULL};
    static const int metrics[] = {MP__TOPK_COSINE, MP__TOPK_DOT};
    mp_matrix *m = mp__check_matrix(L, 1);
    lua_Integer want = luaL_checkinteger(L, 3);
    int metric = metrics[luaL_checkoption(L, 4, "cosine", names)];
    size_t n, k, found;
    const float *v;
    size_t *idx;
    float *score;

    luaL_argcheck(L, want >= 0, 3, "cannot be negative");
    k = (lua_Unsigned)want < mp_matrix_rows(m) ? (size_t)want : mp_matrix_rows(m);
    v = mp__check_vector(L, 2, mp_matrix_cols(m), &n);
    idx = lua_newuserdatauv(L, k * sizeof(*idx) + 1, 0);
    score = lua_newuserdatauv(L, k * sizeof(*score) + 1, 0);
    found = k > 0 ? mp__topk(m, v, k, metric, idx, score) : 0;
    lua_createtable(L, (int)found, 0);
    for (size_t i = 0; i < found; i++) {
        lua_createtable(L, 0, 2);
        set_int(L, "index", (lua_Integer)idx[i] + 1);
        lua_pushnumber(L, (lua_Number)score[i]);
        lua_setfield(L, -2, "score");
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    return 1;
}

/* ---- table of contents ---- */

/* matrix_cut(m, first, count, cols, normalize): a copy of these rows' first columns, each of length 1
 * if asked. */
static int l_matrix_cut(lua_State *L)
{
    mp_matrix *from = mp__check_matrix(L, 1);
    lua_settop(L, 5);
    size_t rows = mp_matrix_rows(from), width = mp_matrix_cols(from);
    lua_Integer first = luaL_checkinteger(L, 2), count = luaL_checkinteger(L, 3);
    lua_Integer cols = luaL_checkinteger(L, 4);
    luaL_argcheck(L, first >= 1 && (size_t)first <= rows + 1, 2, "no such row");
    luaL_argcheck(L, count >= 0 && (size_t)count <= rows + 1 - (size_t)first, 3, "too many rows");
    luaL_argcheck(L, cols >= 1 && (size_t)cols <= width, 4, "too many columns");
    mp_matrix **box = mp__push_matrix_box(L);
    *box = mp_matrix_new((size_t)count, (size_t)cols);
    if (*box == NULL)
        return luaL_error(L, "out of memory");
    mp__matrix_account(L, *box);
    const float *src = mp_matrix_data(from) + (size_t)(first - 1) * width;
    float *dst = mp_matrix_data(*box);
    for (lua_Integer i = 0; i < count; i++, src += width, dst += cols) {
        memcpy(dst, src, (size_t)cols * sizeof(*dst));
        if (lua_toboolean(L, 5))
            mp__normalize(dst, (size_t)cols);
    }
    return 1;
}

static const luaL_Reg methods[] = {
    {"rows", l_rows},           {"cols", l_cols}, {"row", l_row},     {"dot", l_dot},
    {"normalize", l_normalize}, {"topk", l_topk}, {"bytes", l_bytes}, {"string", l_bytes},
    {"totable", l_totable},     {"free", l_free}, {NULL, NULL},
};

static const luaL_Reg meta[] = {
    {"__gc", l_free}, {"__close", l_free},        {"__len", l_rows}, {"__tostring", l_tostring},
    {"__eq", l_eq},   {"__newindex", l_newindex}, {NULL, NULL},
};

/* save_npy is a method that lives with the other .npy code: mp__open_npy sets it. */
void mp__open_matrix(lua_State *L)
{
    luaL_newmetatable(L, matrix_type);
    luaL_setfuncs(L, meta, 0);
    luaL_newlib(L, methods);
    lua_pushvalue(L, -1);
    lua_setfield(L, -4, "matrix_methods");
    lua_pushcclosure(L, l_index, 1);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
    lua_pushcfunction(L, l_from);
    lua_setfield(L, -2, "matrix_from");
    lua_pushcfunction(L, l_concat);
    lua_setfield(L, -2, "matrix_concat");
    lua_pushcfunction(L, l_matrix_cut);
    lua_setfield(L, -2, "matrix_cut");
    mp__open_matrix_row(L);
    mp__open_npy(L);
}

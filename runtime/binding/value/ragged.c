/*
 * ragged.c - rows of several vectors, and sparse rows, as Lua userdata.
 */
#include "codec/ragged.h"
#include "binding/binding.h"
#include "binding/value/matrix.h"

#include <stdlib.h>
#include <string.h>

#define TYPE  "moonpool.ragged"
#define BUILD "moonpool.ragged_build"

static struct mp__ragged *check(lua_State *L)
{
    struct mp__ragged **box = luaL_checkudata(L, 1, TYPE);
    luaL_argcheck(L, *box != NULL, 1, "it was freed");
    return *box;
}

static size_t check_row(lua_State *L, const struct mp__ragged *r)
{
    lua_Integer i = luaL_checkinteger(L, 2);
    luaL_argcheck(L, i >= 1 && (lua_Unsigned)i <= r->rows, 2, "no such row");
    return (size_t)i - 1;
}

static struct mp__ragged **push_box(lua_State *L)
{
    struct mp__ragged **box = lua_newuserdatauv(L, sizeof(*box), 0);
    *box = NULL;
    luaL_setmetatable(L, TYPE);
    return box;
}

static int l_gc(lua_State *L)
{
    struct mp__ragged **box = luaL_checkudata(L, 1, TYPE);
    mp__ragged_free(*box);
    *box = NULL;
    return 0;
}

static int l_rows(lua_State *L)
{
    lua_pushinteger(L, (lua_Integer)check(L)->rows);
    return 1;
}

static int l_cols(lua_State *L)
{
    const struct mp__ragged *r = check(L);
    lua_pushinteger(L, r->indices != NULL ? 0 : (lua_Integer)mp_matrix_cols(r->vectors));
    return 1;
}

static int l_is_sparse(lua_State *L)
{
    lua_pushboolean(L, check(L)->indices != NULL);
    return 1;
}

/* r:count(i): how many vectors, or numbers, row i has. */
static int l_count(lua_State *L)
{
    const struct mp__ragged *r = check(L);
    size_t row = check_row(L, r);
    lua_pushinteger(L, (lua_Integer)(r->offsets[row + 1] - r->offsets[row]));
    return 1;
}

static void push_sparse_row(lua_State *L, const struct mp__ragged *r, uint64_t from, size_t n)
{
    const float *data = mp_matrix_data(r->vectors) + from;
    lua_createtable(L, 0, 2);
    lua_createtable(L, (int)n, 0);
    for (size_t i = 0; i < n; i++) {
        lua_pushinteger(L, r->indices[from + i]);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    lua_setfield(L, -2, "indices");
    lua_createtable(L, (int)n, 0);
    for (size_t i = 0; i < n; i++) {
        lua_pushnumber(L, (lua_Number)data[i]);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    lua_setfield(L, -2, "values");
}

/* r:row(i): a matrix of the row's vectors; of a sparse one {indices =, values =}. */
static int l_row(lua_State *L)
{
    const struct mp__ragged *r = check(L);
    size_t row = check_row(L, r), cols = mp_matrix_cols(r->vectors);
    uint64_t from = r->offsets[row];
    size_t n = (size_t)(r->offsets[row + 1] - from);
    if (r->indices != NULL) {
        push_sparse_row(L, r, from, n);
        return 1;
    }
    mp_matrix **box = mp__push_matrix_box(L);
    *box = mp_matrix_new(n, cols);
    if (*box == NULL)
        return luaL_error(L, "out of memory");
    memcpy(mp_matrix_data(*box), mp_matrix_data(r->vectors) + from * cols,
           n * cols * sizeof(float));
    mp__matrix_account(L, *box);
    return 1;
}

/* r:vectors(): all of them in one matrix. */
static int l_vectors(lua_State *L)
{
    const struct mp__ragged *r = check(L);
    mp_matrix **box = mp__push_matrix_box(L);
    *box = mp_matrix_ref(r->vectors);
    mp__matrix_account(L, *box);
    return 1;
}

/* r:offsets(): rows + 1 integers of 8 bytes; r:indices(): of 4 bytes, or nil. As this machine has
 * them, which is how .npy files have them too. */
static int l_offsets(lua_State *L)
{
    const struct mp__ragged *r = check(L);
    lua_pushlstring(L, (const char *)r->offsets, (r->rows + 1) * sizeof(*r->offsets));
    return 1;
}

static int l_indices(lua_State *L)
{
    const struct mp__ragged *r = check(L);
    if (r->indices == NULL)
        return 0;
    lua_pushlstring(L, (const char *)r->indices, mp_matrix_rows(r->vectors) * sizeof(*r->indices));
    return 1;
}

/* ---- search ---- */

struct pair {
    uint32_t place;
    float number;
};

static int by_place(const void *a, const void *b)
{
    uint32_t x = ((const struct pair *)a)->place, y = ((const struct pair *)b)->place;
    return x < y ? -1 : x > y;
}

/* {indices =, values =} at 2, in order. */
static size_t sparse_query(lua_State *L, uint32_t **places, float **numbers)
{
    luaL_checktype(L, 2, LUA_TTABLE);
    luaL_argcheck(L, lua_getfield(L, 2, "indices") == LUA_TTABLE, 2, "indices: list expected");
    luaL_argcheck(L, lua_getfield(L, 2, "values") == LUA_TTABLE, 2, "values: list expected");
    size_t n = lua_rawlen(L, -1);
    luaL_argcheck(L, n == lua_rawlen(L, -2), 2, "as many values as indices expected");
    struct pair *all = lua_newuserdatauv(L, n * sizeof(*all) + 1, 0);
    for (size_t i = 0; i < n; i++) {
        int ok = 0;
        lua_rawgeti(L, -3, (lua_Integer)i + 1);
        lua_Integer place = lua_tointegerx(L, -1, &ok);
        luaL_argcheck(L, ok && place >= 0 && place <= UINT32_MAX, 2, "indices: a place expected");
        lua_rawgeti(L, -3, (lua_Integer)i + 1);
        all[i] = (struct pair){(uint32_t)place, (float)luaL_checknumber(L, -1)};
        lua_pop(L, 2);
    }
    qsort(all, n, sizeof(*all), by_place);
    *places = lua_newuserdatauv(L, n * sizeof(**places) + 1, 0);
    *numbers = lua_newuserdatauv(L, n * sizeof(**numbers) + 1, 0);
    for (size_t i = 0; i < n; i++) {
        (*places)[i] = all[i].place;
        (*numbers)[i] = all[i].number;
    }
    return n;
}

/* r:topk(query, k): {{index =, score =}, ...}, best first. query: a matrix of vectors, or one row or
 * list; for sparse rows {indices =, values =}. */
static int l_topk(lua_State *L)
{
    const struct mp__ragged *r = check(L);
    size_t cols = mp_matrix_cols(r->vectors), n = 1, found;
    lua_Integer want = luaL_checkinteger(L, 3);
    luaL_argcheck(L, want >= 0, 3, "cannot be negative");
    size_t k = (lua_Unsigned)want < r->rows ? (size_t)want : r->rows;
    size_t *idx = lua_newuserdatauv(L, k * sizeof(*idx) + 1, 0);
    float *score = lua_newuserdatauv(L, k * sizeof(*score) + 1, 0);
    if (r->indices != NULL) {
        uint32_t *places;
        float *numbers;
        n = sparse_query(L, &places, &numbers);
        found = mp__ragged_topk_sparse(r, places, numbers, n, k, idx, score);
    } else {
        mp_matrix *m = mp__to_matrix(L, 2);
        const float *query = NULL;
        if (m != NULL) {
            luaL_argcheck(L, mp_matrix_cols(m) == cols, 2, "its vectors have another dimension");
            query = mp_matrix_data(m);
            n = mp_matrix_rows(m);
        } else {
            size_t unused;
            query = mp__check_vector(L, 2, cols, &unused);
        }
        found = mp__ragged_topk(r, query, n, k, idx, score);
    }
    lua_createtable(L, (int)found, 0);
    for (size_t i = 0; i < found; i++) {
        lua_createtable(L, 0, 2);
        lua_pushinteger(L, (lua_Integer)idx[i] + 1);
        lua_setfield(L, -2, "index");
        lua_pushnumber(L, (lua_Number)score[i]);
        lua_setfield(L, -2, "score");
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    return 1;
}

static int l_tostring(lua_State *L)
{
    const struct mp__ragged *r = check(L);
    if (r->indices != NULL)
        lua_pushfstring(L, "ragged: %d sparse rows", (int)r->rows);
    else
        lua_pushfstring(L, "ragged: %d rows x %d", (int)r->rows, (int)mp_matrix_cols(r->vectors));
    return 1;
}

/* ---- made ---- */

static void *bytes_of(lua_State *L, int idx, size_t width, size_t *n)
{
    size_t len;
    const char *p = luaL_checklstring(L, idx, &len);
    luaL_argcheck(L, len % width == 0, idx, "not whole numbers");
    *n = len / width;
    void *copy = malloc(len + 1);
    if (copy == NULL)
        luaL_error(L, "out of memory");
    memcpy(copy, p, len);
    return copy;
}

/* ragged_make(matrix, offsets, indices or nil): of the bytes that offsets() and indices() gave. */
static int l_ragged_make(lua_State *L)
{
    mp_matrix *m = mp__check_matrix(L, 1);
    size_t rows = 0, n = 0;
    luaL_checktype(L, 2, LUA_TSTRING);
    luaL_argcheck(L, lua_rawlen(L, 2) >= 8, 2, "no offsets");
    int sparse = !lua_isnoneornil(L, 3);
    luaL_argcheck(L, !sparse || lua_rawlen(L, 3) == mp_matrix_rows(m) * sizeof(uint32_t), 3,
                  "not one index a number");
    struct mp__ragged **box = push_box(L);
    uint64_t *offsets = bytes_of(L, 2, sizeof(*offsets), &rows);
    uint32_t *indices = sparse ? bytes_of(L, 3, sizeof(*indices), &n) : NULL;
    *box = mp__ragged_new(mp_matrix_ref(m), rows - 1, offsets, indices);
    return *box != NULL ? 1 : luaL_error(L, "offsets and vectors do not fit each other");
}

static int l_build_gc(lua_State *L)
{
    struct mp__ragged_build **box = luaL_checkudata(L, 1, BUILD);
    mp__ragged_build_free(*box);
    *box = NULL;
    return 0;
}

/* ragged_build(rows) */
static int l_ragged_build(lua_State *L)
{
    lua_Integer rows = luaL_checkinteger(L, 1);
    luaL_argcheck(L, rows >= 0 && rows < INT32_MAX, 1, "out of range");
    struct mp__ragged_build **box = lua_newuserdatauv(L, sizeof(*box), 0);
    *box = NULL;
    luaL_setmetatable(L, BUILD);
    *box = mp__ragged_build_new((size_t)rows);
    return *box != NULL ? 1 : luaL_error(L, "out of memory");
}

static const char *field(lua_State *L, int t, const char *name)
{
    const char *s = lua_getfield(L, t, name) == LUA_TSTRING ? lua_tostring(L, -1) : NULL;
    lua_pop(L, 1); /* the table keeps it */
    return s;
}

/* ragged_read(build, body, first, count, shape): true; or nil and what is wrong. */
static int l_ragged_read(lua_State *L)
{
    struct mp__ragged_build **box = luaL_checkudata(L, 1, BUILD);
    size_t n;
    char err[160] = "rows out of range";
    const char *body = luaL_checklstring(L, 2, &n);
    lua_Integer first = luaL_checkinteger(L, 3), count = luaL_checkinteger(L, 4);
    luaL_checktype(L, 5, LUA_TTABLE);
    struct mp__ragged_shape shape = {field(L, 5, "list"),    field(L, 5, "index"),
                                     field(L, 5, "vectors"), field(L, 5, "places"),
                                     field(L, 5, "numbers"), MP__RAGGED_LISTS};
    const char *form = field(L, 5, "form");
    if (form != NULL && strcmp(form, "pairs") == 0)
        shape.form = MP__RAGGED_PAIRS;
    else if (form != NULL && strcmp(form, "arrays") == 0)
        shape.form = MP__RAGGED_ARRAYS;
    luaL_argcheck(L, shape.list != NULL, 5, "list: missing");
    luaL_argcheck(L, shape.form == MP__RAGGED_LISTS || (shape.places && shape.numbers), 5,
                  "places and numbers: missing");
    luaL_argcheck(L, first >= 1 && count >= 0, 3, "out of range");
    if (mp__ragged_read(*box, &shape, body, n, (size_t)first - 1, (size_t)count, err,
                        sizeof(err)) != 0) {
        lua_pushnil(L);
        lua_pushstring(L, err);
        return 2;
    }
    lua_pushboolean(L, 1);
    return 1;
}

static int l_ragged_done(lua_State *L)
{
    struct mp__ragged_build **from = luaL_checkudata(L, 1, BUILD);
    struct mp__ragged **box = push_box(L);
    *box = mp__ragged_done(*from);
    return *box != NULL ? 1 : luaL_error(L, "out of memory");
}

void mp__open_ragged(lua_State *L)
{
    static const luaL_Reg methods[] = {{"rows", l_rows},        {"cols", l_cols},
                                       {"sparse", l_is_sparse}, {"count", l_count},
                                       {"row", l_row},          {"vectors", l_vectors},
                                       {"offsets", l_offsets},  {"indices", l_indices},
                                       {"topk", l_topk},        {NULL, NULL}};
    static const luaL_Reg meta[] = {{"__gc", l_gc},
                                    {"__close", l_gc},
                                    {"__len", l_rows},
                                    {"__tostring", l_tostring},
                                    {NULL, NULL}};
    static const luaL_Reg functions[] = {{"ragged_make", l_ragged_make},
                                         {"ragged_build", l_ragged_build},
                                         {"ragged_read", l_ragged_read},
                                         {"ragged_done", l_ragged_done},
                                         {NULL, NULL}};
    luaL_newmetatable(L, TYPE);
    luaL_setfuncs(L, meta, 0);
    luaL_newlib(L, methods);
    lua_pushvalue(L, -1);
    lua_setfield(L, -4, "ragged_methods");
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
    luaL_newmetatable(L, BUILD);
    lua_pushcfunction(L, l_build_gc);
    lua_setfield(L, -2, "__gc");
    lua_pop(L, 1);
    luaL_setfuncs(L, functions, 0);
}

/*
 * matrix_row.c - views of one row: v[1] .. v[#v], without a copy.
 *
 * A view holds a reference of its own to the numbers, so it outlives the matrix it was taken from.
 */
#include "task/task.h"
#include "binding/value/matrix.h"
#include "codec/vec.h"

#include <string.h>

struct row {
    mp_matrix *m;
    float *p;
    size_t n;
};

static const char row_type[] = "moonpool.row";

void mp__push_row(lua_State *L, mp_matrix *m, size_t row)
{
    struct row *r = lua_newuserdatauv(L, sizeof(*r), 0);

    r->n = mp_matrix_cols(m);
    r->p = mp_matrix_data(m) + row * r->n;
    r->m = mp_matrix_ref(m);
    luaL_setmetatable(L, row_type);
}

static int read_number(lua_State *L, float *out)
{
    int ok = lua_type(L, -1) == LUA_TNUMBER;

    if (ok)
        *out = (float)lua_tonumber(L, -1);
    lua_pop(L, 1);
    return ok;
}

static size_t vector_length(lua_State *L, int idx)
{
    struct row *r = luaL_testudata(L, idx, row_type);

    return r != NULL ? r->n : (size_t)lua_rawlen(L, idx);
}

const float *mp__check_vector(lua_State *L, int idx, size_t want, size_t *n)
{
    struct row *r = luaL_testudata(L, idx, row_type);
    float *out;

    if (r == NULL && !lua_istable(L, idx))
        luaL_typeerror(L, idx, "row view or table of numbers");
    *n = vector_length(L, idx);
    if (want && *n != want) {
        lua_pushfstring(L, "a vector of %I numbers, expected %I", (lua_Integer)*n,
                        (lua_Integer)want);
        luaL_argerror(L, idx, lua_tostring(L, -1));
    }
    if (r != NULL) {
        lua_pushvalue(L, idx);
        return r->p;
    }
    out = lua_newuserdatauv(L, *n * sizeof(*out) + 1, 0);
    for (size_t i = 0; i < *n; i++) {
        lua_rawgeti(L, idx, (lua_Integer)i + 1);
        if (!read_number(L, &out[i])) {
            lua_pushfstring(L, "element %I is not a number", (lua_Integer)i + 1);
            luaL_argerror(L, idx, lua_tostring(L, -1));
        }
    }
    return out;
}

void mp__matrix_fill_row(lua_State *L, int idx, float *out, size_t cols, lua_Integer row)
{
    struct row *r = luaL_testudata(L, idx, row_type);
    size_t n;

    if (r == NULL && !lua_istable(L, idx))
        luaL_error(L, "row %I: a table of numbers expected, got %s", row, luaL_typename(L, idx));
    n = vector_length(L, idx);
    if (n != cols)
        luaL_error(L, "row %I has %I numbers, row 1 has %I", row, (lua_Integer)n,
                   (lua_Integer)cols);
    if (r != NULL) {
        memcpy(out, r->p, cols * sizeof(*out));
        return;
    }
    for (size_t i = 0; i < cols; i++) {
        lua_rawgeti(L, idx, (lua_Integer)i + 1);
        if (!read_number(L, &out[i]))
            luaL_error(L, "row %I, element %I is not a number", row, (lua_Integer)i + 1);
    }
}

/* v[i]: nil outside 1..#v, so that ipairs ends; else a method. */
static int l_row_index(lua_State *L)
{
    struct row *r = luaL_checkudata(L, 1, row_type);
    int is_int;
    lua_Integer i = lua_tointegerx(L, 2, &is_int);

    if (lua_type(L, 2) == LUA_TNUMBER) {
        if (is_int && i >= 1 && (lua_Unsigned)i <= r->n)
            lua_pushnumber(L, (lua_Number)r->p[i - 1]);
        else
            lua_pushnil(L);
        return 1;
    }
    lua_settop(L, 2);
    lua_rawget(L, lua_upvalueindex(1));
    return 1;
}

static int l_row_len(lua_State *L)
{
    struct row *r = luaL_checkudata(L, 1, row_type);

    lua_pushinteger(L, (lua_Integer)r->n);
    return 1;
}

static int l_row_gc(lua_State *L)
{
    struct row *r = luaL_checkudata(L, 1, row_type);

    mp_matrix_unref(r->m);
    r->m = NULL;
    r->p = NULL;
    r->n = 0;
    return 0;
}

static int l_row_tostring(lua_State *L)
{
    struct row *r = luaL_checkudata(L, 1, row_type);

    lua_pushfstring(L, "row of %I", (lua_Integer)r->n);
    return 1;
}

static int l_row_totable(lua_State *L)
{
    struct row *r = luaL_checkudata(L, 1, row_type);

    lua_createtable(L, (int)r->n, 0);
    for (size_t i = 0; i < r->n; i++) {
        lua_pushnumber(L, (lua_Number)r->p[i]);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    return 1;
}

static int l_row_dot(lua_State *L)
{
    struct row *r = luaL_checkudata(L, 1, row_type);
    size_t n;
    const float *v = mp__check_vector(L, 2, r->n, &n);

    lua_pushnumber(L, (lua_Number)mp__dot(r->p, v, r->n));
    return 1;
}

static int l_row_bytes(lua_State *L)
{
    struct row *r = luaL_checkudata(L, 1, row_type);

    lua_pushlstring(L, (const char *)r->p, r->n * sizeof(*r->p));
    return 1;
}

static int l_row_eq(lua_State *L)
{
    struct row *a = luaL_testudata(L, 1, row_type);
    struct row *b = luaL_testudata(L, 2, row_type);
    int same = a != NULL && b != NULL && a->n == b->n;

    for (size_t i = 0; same && i < a->n; i++)
        same = a->p[i] == b->p[i];
    lua_pushboolean(L, same);
    return 1;
}

static int l_row_newindex(lua_State *L)
{
    return luaL_error(L, "a row view is read-only; v:totable() gives a copy");
}

static const luaL_Reg methods[] = {
    {"totable", l_row_totable}, {"dot", l_row_dot}, {"bytes", l_row_bytes},
    {"string", l_row_bytes},    {NULL, NULL},
};

static const luaL_Reg meta[] = {
    {"__len", l_row_len},           {"__gc", l_row_gc},
    {"__tostring", l_row_tostring}, {"__eq", l_row_eq},
    {"__newindex", l_row_newindex}, {NULL, NULL},
};

void mp__open_matrix_row(lua_State *L)
{
    luaL_newmetatable(L, row_type);
    luaL_setfuncs(L, meta, 0);
    luaL_newlib(L, methods);
    lua_pushcclosure(L, l_row_index, 1);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
}

/*
 * json.c - moonpool.core's json_encode and json_decode, and the markers of lists and objects.
 */
#include "binding/value/json.h"

#include "binding/binding.h"
#include "codec/json_find.h"
#include "task/task.h"

#include <lauxlib.h>

#define SCRATCH_KEPT (1u << 20) /* a larger scratch buffer is given back after use */

static const char marker_keys[MP__MARKS];
static const char scratch_type[] = "moonpool.json.scratch";

void mp__json_push_marker(lua_State *L, enum mp__marker which)
{
    lua_rawgetp(L, LUA_REGISTRYINDEX, &marker_keys[which]);
}

void mp__json_push_digits(lua_State *L, const char *p, size_t n)
{
    lua_createtable(L, 1, 0);
    lua_pushlstring(L, p, n);
    lua_rawseti(L, -2, 1);
    mp__json_push_marker(L, MP__MARK_NUMBER);
    lua_setmetatable(L, -2);
}

static void make_marker(lua_State *L, enum mp__marker which, const char *name)
{
    lua_createtable(L, 0, 2);
    lua_pushstring(L, name);
    lua_setfield(L, -2, "__name");
    lua_rawsetp(L, LUA_REGISTRYINDEX, &marker_keys[which]);
}

static int l_digits(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_rawgeti(L, 1, 1);
    return 1;
}

static int l_same_digits(lua_State *L)
{
    lua_rawgeti(L, 1, 1);
    lua_rawgeti(L, 2, 1);
    lua_pushboolean(L, lua_rawequal(L, -1, -2));
    return 1;
}

static void make_number_marker(lua_State *L)
{
    make_marker(L, MP__MARK_NUMBER, "moonpool.json.number");
    mp__json_push_marker(L, MP__MARK_NUMBER);
    lua_pushcfunction(L, l_digits);
    lua_setfield(L, -2, "__tostring");
    lua_pushcfunction(L, l_same_digits);
    lua_setfield(L, -2, "__eq");
    lua_pop(L, 1);
}

static int l_scratch_gc(lua_State *L)
{
    mp__buf_free(luaL_checkudata(L, 1, scratch_type));
    return 0;
}

static void push_scratch(lua_State *L)
{
    struct mp__buf *b = lua_newuserdatauv(L, sizeof(*b), 0);

    mp__buf_init(b, 0);
    if (luaL_newmetatable(L, scratch_type)) {
        lua_pushcfunction(L, l_scratch_gc);
        lua_setfield(L, -2, "__gc");
    }
    lua_setmetatable(L, -2);
}

static void read_options(lua_State *L, int idx, struct mp__json_options *opt, size_t *max)
{
    if (lua_isnoneornil(L, idx))
        return;
    luaL_checktype(L, idx, LUA_TTABLE);
    lua_getfield(L, idx, "sort_keys");
    opt->sort_keys = lua_toboolean(L, -1);
    lua_getfield(L, idx, "root"); /* stays on the stack, so the string stays alive */
    opt->root = lua_tostring(L, -1);
    lua_getfield(L, idx, "max");
    if (!lua_isnil(L, -1))
        *max = (size_t)luaL_checkinteger(L, -1);
}

/* json_encode(value [, {sort_keys=, root=, max=}]) -> text, or nil and the reason. */
static int l_encode(lua_State *L)
{
    struct mp__buf *b = lua_touserdata(L, lua_upvalueindex(1));
    struct mp__json_options opt = {0};
    char err[512];

    lua_settop(L, 2);
    b->max = 0;
    read_options(L, 2, &opt, &b->max);
    b->n = 0;
    if (mp__json_encode_with(L, 1, b, &opt, err, sizeof(err)) != 0) {
        lua_pushnil(L);
        lua_pushstring(L, err);
        return 2;
    }
    lua_pushlstring(L, b->p, b->n);
    if (b->cap > SCRATCH_KEPT)
        mp__buf_free(b);
    return 1;
}

/*
 * json_decode(text [, most]) -> value, or nil, the reason with line, column and byte, and "decode";
 * or "too_large" where the values would take more than `most` bytes (none given: no limit).
 */
static int l_decode(lua_State *L)
{
    char err[160];
    size_t n;
    const char *p = luaL_checklstring(L, 1, &n);
    lua_Number most = luaL_optnumber(L, 2, -1);
    int rc = mp__json_decode_within(L, p, n, most < 0 || most > 1e18 ? SIZE_MAX : (size_t)most, err,
                                    sizeof(err));

    if (rc == 1)
        return 1;
    lua_pushnil(L);
    lua_pushstring(L, err);
    lua_pushstring(L, rc == -2 ? "too_large" : "decode");
    return 3;
}

/* json_slice(text, path) -> the text of the value at a dotted path; of valid JSON. Or nil. */
static int l_slice(lua_State *L)
{
    size_t n, len = 0;
    const char *p = luaL_checklstring(L, 1, &n);
    const char *found = mp__json_find(p, n, luaL_checkstring(L, 2), &len);

    if (found == NULL)
        return 0;
    lua_pushlstring(L, found, len);
    return 1;
}

static int mark(lua_State *L, enum mp__marker which)
{
    if (lua_isnoneornil(L, 1)) {
        lua_settop(L, 0);
        lua_createtable(L, 0, 0);
    }
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    mp__json_push_marker(L, which);
    if (lua_getmetatable(L, 1)) {
        mp__json_push_marker(L, which == MP__MARK_ARRAY ? MP__MARK_OBJECT : MP__MARK_ARRAY);
        if (!lua_rawequal(L, -2, -3) && !lua_rawequal(L, -1, -2))
            return luaL_argerror(L, 1, "the table has a metatable of its own");
        lua_pop(L, 2);
    }
    lua_setmetatable(L, 1);
    return 1;
}

static int l_array(lua_State *L)
{
    return mark(L, MP__MARK_ARRAY);
}

static int l_object(lua_State *L)
{
    return mark(L, MP__MARK_OBJECT);
}

static const luaL_Reg functions[] = {
    {"json_decode", l_decode},
    {"json_slice", l_slice},
    {"json_array", l_array},
    {"json_object", l_object},
    {NULL, NULL},
};

void mp__open_json(lua_State *L)
{
    make_marker(L, MP__MARK_ARRAY, "moonpool.json.array");
    make_marker(L, MP__MARK_OBJECT, "moonpool.json.object");
    make_number_marker(L);
    luaL_setfuncs(L, functions, 0);
    push_scratch(L);
    lua_pushcclosure(L, l_encode, 1);
    lua_setfield(L, -2, "json_encode");
    lua_pushlightuserdata(L, NULL);
    lua_setfield(L, -2, "json_null");
}

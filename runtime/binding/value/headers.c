/*
 * headers.c - a reply's headers as a table that is filled when somebody looks.
 *
 * Most scripts never look at the headers of most replies, and making their tables was a twentieth of
 * the cost of a small request. Until the first look the table holds only the bytes, at [1], and a
 * metatable; the first index, pairs or JSON encoding fills it and takes the metatable away.
 */
#include "binding/value/headers.h"

#include "codec/head.h"

#include <lauxlib.h>

static const char meta_key;

/* Lower-case names; of a name that comes more than once the values are joined by ", ". */
static void put_header(lua_State *L, int t, const struct mp__head_line *line)
{
    char name[256];
    size_t n = line->name_n;
    if (n >= sizeof(name))
        return;
    for (size_t i = 0; i < n; i++)
        name[i] = line->name[i] >= 'A' && line->name[i] <= 'Z' ? (char)(line->name[i] + 32)
                                                               : line->name[i];
    lua_pushlstring(L, name, n);
    lua_pushvalue(L, -1);
    if (lua_rawget(L, t) == LUA_TSTRING) {
        lua_pushliteral(L, ", ");
        lua_pushlstring(L, line->value, line->value_n);
        lua_concat(L, 3);
    } else {
        lua_pop(L, 1);
        lua_pushlstring(L, line->value, line->value_n);
    }
    lua_rawset(L, t);
}

void mp__headers_fill(lua_State *L, int idx)
{
    size_t n = 0;
    int t = lua_absindex(L, idx);
    if (!lua_getmetatable(L, t))
        return;
    lua_rawgetp(L, LUA_REGISTRYINDEX, &meta_key);
    int ours = lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
    if (!ours)
        return;
    lua_rawgeti(L, t, 1); /* the bytes stay alive on the stack */
    const char *p = lua_tolstring(L, -1, &n);
    lua_pushnil(L);
    lua_setmetatable(L, t);
    lua_pushnil(L);
    lua_rawseti(L, t, 1);
    struct mp__head_line line;
    for (const char *at = p; mp__head_next(&at, p + n, &line);)
        put_header(L, t, &line);
    lua_pop(L, 1);
}

static int l_index(lua_State *L)
{
    mp__headers_fill(L, 1);
    lua_settop(L, 2);
    lua_rawget(L, 1);
    return 1;
}

static int l_newindex(lua_State *L)
{
    mp__headers_fill(L, 1);
    lua_settop(L, 3);
    lua_rawset(L, 1);
    return 0;
}

static int l_pairs(lua_State *L)
{
    mp__headers_fill(L, 1);
    lua_getglobal(L, "next");
    lua_pushvalue(L, 1);
    lua_pushnil(L);
    return 3;
}

static int l_len(lua_State *L)
{
    mp__headers_fill(L, 1);
    lua_pushinteger(L, 0);
    return 1;
}

static void push_meta(lua_State *L)
{
    static const luaL_Reg meta[] = {{"__index", l_index},
                                    {"__newindex", l_newindex},
                                    {"__pairs", l_pairs},
                                    {"__len", l_len},
                                    {NULL, NULL}};
    if (lua_rawgetp(L, LUA_REGISTRYINDEX, &meta_key) == LUA_TTABLE)
        return;
    lua_pop(L, 1);
    luaL_newlib(L, meta);
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &meta_key);
}

void mp__headers_push(lua_State *L, const char *lines, size_t n)
{
    lua_createtable(L, n > 0 ? 1 : 0, 0);
    if (n == 0)
        return;
    lua_pushlstring(L, lines, n);
    lua_rawseti(L, -2, 1);
    push_meta(L);
    lua_setmetatable(L, -2);
}

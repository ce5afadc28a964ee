/*
 * error.c - the error table of the Lua interface: facts as fields, readable as a string.
 */
#include "task/task.h"

#define ERROR_META "moonpool.error"

void mp__push_error(lua_State *L, const char *kind, const char *message)
{
    lua_createtable(L, 0, 4);
    lua_pushstring(L, kind);
    lua_setfield(L, -2, "kind");
    lua_pushstring(L, message);
    lua_setfield(L, -2, "message");
    luaL_setmetatable(L, ERROR_META);
}

static const char *text_field(lua_State *L, const char *name)
{
    lua_pushstring(L, name);
    lua_rawget(L, 1);
    return lua_type(L, -1) == LUA_TSTRING || lua_type(L, -1) == LUA_TNUMBER ? lua_tostring(L, -1)
                                                                            : NULL;
}

/* "kind: message"; which row it is about, and after how many attempts when there were several. */
static int l_tostring(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    const char *kind = text_field(L, "kind");
    const char *message = text_field(L, "message");
    (void)text_field(L, "attempts");
    lua_Integer attempts = lua_tointeger(L, -1);
    (void)text_field(L, "row");
    lua_Integer row = lua_tointeger(L, -1);
    kind = kind != NULL ? kind : "error";
    message = message != NULL ? message : "(no message)";
    if (row > 0)
        lua_pushfstring(L, "%s: row %I: %s", kind, row, message);
    else
        lua_pushfstring(L, "%s: %s", kind, message);
    if (attempts > 1) {
        lua_pushfstring(L, " (after %d attempts)", (int)attempts);
        lua_concat(L, 2);
    }
    return 1;
}

/* error(kind, message, fields or nil) -> an error table; `fields` are copied into it */
static int l_error(lua_State *L)
{
    const char *kind = luaL_checkstring(L, 1);
    const char *message = luaL_checkstring(L, 2);
    if (!lua_isnoneornil(L, 3))
        luaL_checktype(L, 3, LUA_TTABLE);
    lua_settop(L, 3);
    mp__push_error(L, kind, message);
    if (lua_isnil(L, 3))
        return 1;
    lua_pushnil(L);
    while (lua_next(L, 3)) {
        lua_pushvalue(L, -2);
        lua_insert(L, -2);
        lua_rawset(L, 4);
    }
    return 1;
}

int mp__is_error(lua_State *L, int idx)
{
    if (!lua_getmetatable(L, idx))
        return 0;
    luaL_getmetatable(L, ERROR_META);
    int is = lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
    return is;
}

static int l_is_error(lua_State *L)
{
    lua_pushboolean(L, mp__is_error(L, 1));
    return 1;
}

void mp__open_error(lua_State *L)
{
    luaL_newmetatable(L, ERROR_META);
    lua_pushcfunction(L, l_tostring);
    lua_setfield(L, -2, "__tostring");
    lua_pop(L, 1);
    lua_pushcfunction(L, l_error);
    lua_setfield(L, -2, "error");
    lua_pushcfunction(L, l_is_error);
    lua_setfield(L, -2, "is_error");
}

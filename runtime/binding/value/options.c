/* options.c - fields of an options table, read and checked by type. */
#include "binding/value/options.h"

#include <lauxlib.h>
#include <string.h>

double mp__opt_number(lua_State *L, int t, const char *field, double fallback)
{
    double v = fallback;
    int type = lua_getfield(L, t, field);
    if (type == LUA_TNUMBER)
        v = lua_tonumber(L, -1);
    else if (type == LUA_TBOOLEAN && !lua_toboolean(L, -1))
        v = -1; /* false: none */
    else if (type != LUA_TNIL)
        luaL_error(L, "%s: number expected, got %s", field, luaL_typename(L, -1));
    lua_pop(L, 1);
    return v;
}

/* The string stays alive as long as the table holds it. */
const char *mp__opt_string(lua_State *L, int t, const char *field)
{
    const char *s = NULL;
    int type = lua_getfield(L, t, field);
    size_t n = 0;
    if (type == LUA_TSTRING)
        s = lua_tolstring(L, -1, &n);
    else if (type != LUA_TNIL)
        luaL_error(L, "%s: string expected, got %s", field, luaL_typename(L, -1));
    if (s != NULL && strlen(s) != n)
        luaL_error(L, "%s: holds a NUL byte", field);
    lua_pop(L, 1);
    return s;
}

int mp__opt_bool(lua_State *L, int t, const char *field, int fallback)
{
    int v = fallback;
    if (lua_getfield(L, t, field) != LUA_TNIL)
        v = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return v;
}

void mp__opt_timeouts(lua_State *L, int t, struct mp_timeouts *out)
{
    memset(out, 0, sizeof(*out));
    if (lua_getfield(L, t, "timeouts") == LUA_TTABLE) {
        int i = lua_gettop(L);
        out->connect = mp__opt_number(L, i, "connect", 0);
        out->read = mp__opt_number(L, i, "read", 0);
        out->write = mp__opt_number(L, i, "write", 0);
        out->pool = mp__opt_number(L, i, "pool", 0);
        out->attempt = mp__opt_number(L, i, "attempt", 0);
        out->total = mp__opt_number(L, i, "total", 0);
    }
    lua_pop(L, 1);
}

const struct mp_header *mp__opt_headers(lua_State *L, int idx, size_t *n)
{
    idx = lua_absindex(L, idx);
    size_t len = lua_istable(L, idx) ? lua_rawlen(L, idx) / 2 : 0;
    struct mp_header *h = lua_newuserdatauv(L, (len + 1) * sizeof(*h), 0);
    for (size_t i = 0; i < len; i++) {
        lua_rawgeti(L, idx, (lua_Integer)(2 * i + 1));
        lua_rawgeti(L, idx, (lua_Integer)(2 * i + 2));
        size_t value_len = 0;
        h[i].name = lua_tostring(L, -2);
        h[i].value = lua_isstring(L, -1) ? lua_tolstring(L, -1, &value_len) : NULL;
        if (h[i].name == NULL)
            luaL_error(L, "headers: a name must be a string");
        if (h[i].value != NULL && strlen(h[i].value) != value_len)
            luaL_error(L, "headers: the value of %s holds a NUL byte", h[i].name);
        lua_pop(L, 2);
    }
    *n = len;
    return h;
}

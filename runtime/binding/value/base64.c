/* base64.c - moonpool.base64: bytes as text and back. */
#include "codec/base64.h"
#include "binding/binding.h"

#include <lauxlib.h>

/* base64_encode(bytes) -> text */
static int l_encode(lua_State *L)
{
    luaL_Buffer b;
    size_t n;
    const char *p = luaL_checklstring(L, 1, &n);
    char *out = luaL_buffinitsize(L, &b, MP__BASE64_ENCODED(n) + 1);

    luaL_pushresultsize(&b, mp__base64_encode(out, p, n));
    return 1;
}

/* base64_decode(text) -> bytes, or nil and the reason */
static int l_decode(lua_State *L)
{
    luaL_Buffer b;
    size_t n, got = 0;
    const char *p = luaL_checklstring(L, 1, &n);
    char *out = luaL_buffinitsize(L, &b, n / 4 * 3 + 3);
    int bad = mp__base64_decode((uint8_t *)out, &got, p, n) != 0;

    luaL_pushresultsize(&b, bad ? 0 : got);
    if (!bad)
        return 1;
    lua_pushnil(L);
    lua_pushliteral(L, "not base64");
    return 2;
}

void mp__open_base64(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"base64_encode", l_encode}, {"base64_decode", l_decode}, {NULL, NULL}};
    luaL_setfuncs(L, functions, 0);
}

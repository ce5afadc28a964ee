/* msgpack.h - MessagePack replies as Lua values. */
#ifndef MP_BINDING_VALUE_MSGPACK_H
#define MP_BINDING_VALUE_MSGPACK_H

#include <lua.h>
#include <stddef.h>

/* Pushes the value of the document p[0..n) and returns 1; or pushes nothing and returns -1 with
 * the reason in err, or -2 where the values would take more than MP__VALUES_MAX bytes. nil becomes moonpool.json.null, bin a string, ext {type=, data=}. */
int mp__msgpack_decode(lua_State *L, const char *p, size_t n, char *err, size_t errcap);

#endif

/* headers.h - a reply's headers as a table that is filled when somebody looks. */
#ifndef MP_BINDING_VALUE_HEADERS_H
#define MP_BINDING_VALUE_HEADERS_H

#include <lua.h>
#include <stddef.h>

/* Pushes the table of "name: value\n" lines: lower-case names, repeated ones joined by ", ". */
void mp__headers_push(lua_State *L, const char *lines, size_t n);

/* Fills the table at idx if it is one of ours and not filled yet; for code that looks at tables
 * without metamethods. */
void mp__headers_fill(lua_State *L, int idx);

#endif

/* options.h - fields of an options table; they raise naming the field. */
#ifndef MP_BINDING_VALUE_OPTIONS_H
#define MP_BINDING_VALUE_OPTIONS_H

#include "moonpool.h"

#include <lua.h>

/* Absent: the fallback. */
double mp__opt_number(lua_State *L, int t, const char *field, double fallback);
const char *mp__opt_string(lua_State *L, int t, const char *field);
int mp__opt_bool(lua_State *L, int t, const char *field, int fallback);
void mp__opt_timeouts(lua_State *L, int t, struct mp_timeouts *out);

/* The list {name, value, name, value...} at idx as headers, in a userdata that is pushed; false as
 * value removes. *n headers; the strings stay the list's. */
const struct mp_header *mp__opt_headers(lua_State *L, int idx, size_t *n);

#endif

/*
 * matrix.h - mp_matrix as Lua userdata, for the files of the binding.
 */
#ifndef MP_BINDING_VALUE_MATRIX_H
#define MP_BINDING_VALUE_MATRIX_H

#include "moonpool.h"

#include <lauxlib.h>
#include <lua.h>

/* Pushes an empty box that may be filled with one reference later; it frees what is in it. Where
 * work between allocation and push may raise, the box comes first. */
mp_matrix **mp__push_matrix_box(lua_State *L);
void mp__matrix_account(lua_State *L, const mp_matrix *m); /* tells the collector of a filled box */

/* Borrowed. check raises for another type and for a freed matrix; to gives NULL. */
mp_matrix *mp__check_matrix(lua_State *L, int idx);
mp_matrix *mp__to_matrix(lua_State *L, int idx);

/* A vector argument: row view, or table of numbers (converted into a new userdata, pushed; a row
 * view pushes itself). Raises for anything else, and for a length other than want (0: any). */
const float *mp__check_vector(lua_State *L, int idx, size_t want, size_t *n);

/* Copies the numbers of the row view or table at idx into out[cols]; raises, calling it `row`. */
void mp__matrix_fill_row(lua_State *L, int idx, float *out, size_t cols, lua_Integer row);

void mp__push_row(lua_State *L, mp_matrix *m, size_t row); /* 0-based; the view holds m */
void mp__open_matrix_row(lua_State *L);
void mp__open_npy(lua_State *L);

#endif

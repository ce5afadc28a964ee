/* binding.h - the parts of the C half: each sets its functions in the table on the top of the stack. */
#ifndef MP_BINDING_BINDING_H
#define MP_BINDING_BINDING_H

#include <lua.h>

void mp__open_client(lua_State *L);
void mp__open_files(lua_State *L);
void mp__open_hmac(lua_State *L);
void mp__open_job(lua_State *L);
void mp__open_hooks(lua_State *L);
void mp__open_base64(lua_State *L);
void mp__open_json(lua_State *L);
void mp__open_matrix(lua_State *L);
void mp__open_ragged(lua_State *L);
void mp__open_server(lua_State *L);
void mp__open_sim(lua_State *L);
void mp__open_system(lua_State *L);

#endif

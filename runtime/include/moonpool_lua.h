/*
 * moonpool_lua.h - the scripted runtime inside a C program that has a lua_State of its own.
 *
 * One runtime per lua_State, one thread. Under stock Lua none of this is needed: require "moonpool".
 *
 *     lua_State *L = luaL_newstate();
 *     luaL_openlibs(L);
 *     if (mp_lua_open(L, NULL) == LUA_OK && luaL_loadfile(L, "job.lua") == LUA_OK)
 *         mp_lua_call(L, 0, 0);
 *     mp_lua_close(L);
 *     lua_close(L);
 */
#ifndef MOONPOOL_LUA_H
#define MOONPOOL_LUA_H

#include "moonpool.h"

#include <lua.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What require calls: pushes the library. moonpool.core is the C half alone. */
MP_API int luaopen_moonpool(lua_State *L);
MP_API int luaopen_moonpool_core(lua_State *L);

/* Opens the library (the package library must be there), so that require "moonpool" finds it. The
 * loop is a uv_loop_t the host runs itself and that outlives the state, or NULL for one of the
 * runtime's own. Returns a Lua status, on error with the message on the stack. */
MP_API int mp_lua_open(lua_State *L, void *uv_loop);

/* As lua_pcall, but the function runs as a task and may wait; runs the loop until it is over. What
 * it leaves running is cancelled. Not from inside a callback of the loop. */
MP_API int mp_lua_call(lua_State *L, int nargs, int nresults);

/* Cancels and closes all tasks, runs their <close> variables, then closes the engine. Call it before
 * lua_close; without it lua_close does the same but runs no Lua. With a host's loop the handles are
 * closed the next time that loop runs. Returns 0, or MP_EINVAL from inside a task or callback. */
MP_API int mp_lua_close(lua_State *L);

/* SIGINT and SIGTERM cancel the tasks from now on; a second one within 2 s ends the process. */
MP_API void mp_lua_signals(lua_State *L);

/* What the process should exit with: the signal's, what moonpool.exit asked for, or `code`. */
MP_API int mp_lua_exit_code(lua_State *L, int code);

/* Whether a signal or moonpool.exit ended the program, so that its error is no news: 0 or 1. */
MP_API int mp_lua_ended(lua_State *L);

/* Pushes the traceback of the error on the top, or nil; returns its text or NULL. */
MP_API const char *mp_lua_traceback(lua_State *L);

#ifdef __cplusplus
}
#endif

#endif

/*
 * scripts.c - a program that runs its users' Lua scripts with the whole library in them. A script's
 * main chunk is a task, so every call in it may wait; the program lends it a function of its own.
 *
 *     moonpool mock --port 8089 &
 *     make && ./scripts embed.lua http://127.0.0.1:8089
 */
#include <lauxlib.h>
#include <lualib.h>
#include <moonpool_lua.h>
#include <stdio.h>

static int l_report(lua_State *L)
{
    printf("reported: %s\n", luaL_checkstring(L, 1));
    return 0;
}

static void set_arguments(lua_State *L, int argc, char **argv)
{
    lua_createtable(L, argc, 1);
    for (int i = 1; i < argc; i++) {
        lua_pushstring(L, argv[i]);
        lua_rawseti(L, -2, i - 1);
    }
    lua_setglobal(L, "arg");
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: scripts SCRIPT.lua [ARG...]\n");
        return 2;
    }
    lua_State *L = luaL_newstate();
    if (L == NULL)
        return 1;
    luaL_openlibs(L);
    lua_register(L, "report", l_report);
    set_arguments(L, argc, argv);
    int status = mp_lua_open(L, NULL);
    if (status == LUA_OK)
        mp_lua_signals(L); /* the first SIGINT cancels the script's tasks */
    if (status == LUA_OK)
        status = luaL_loadfile(L, argv[1]);
    if (status == LUA_OK)
        status = mp_lua_call(L, 0, 0);
    if (status != LUA_OK && !mp_lua_ended(L))
        fprintf(stderr, "%s\n", lua_tostring(L, -1));
    int code = mp_lua_exit_code(L, status == LUA_OK ? 0 : 1);
    mp_lua_close(L); /* tasks end, <close> variables run */
    lua_close(L);
    return code;
}

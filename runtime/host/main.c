/*
 * main.c - the `moonpool` binary: Lua, the library and the command line, which is written in Lua.
 *
 * The command runs as a task, so whatever it does may wait. When it returns the process ends, in
 * order: tasks, engine, loop, Lua.
 */
#include "host/editor.h"
#include "moonpool_lua.h"
#include "task/task.h"

#include <lauxlib.h>
#include <lualib.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

enum { EXIT_ERROR = 1 };

/* What a service or a file came to is no fault of the program: where in it that was interests only who
 * looks for faults in it. */
static int wants_trace(lua_State *L, int err)
{
    const char *level = getenv("MOONPOOL_LOG");
    if (!mp__is_error(L, err))
        return 1;
    return level != NULL && (strcasecmp(level, "debug") == 0 || strcasecmp(level, "trace") == 0);
}

static void report(lua_State *L)
{
    int traced = wants_trace(L, -1);
    const char *trace = mp_lua_traceback(L);
    const char *message = luaL_tolstring(L, -2, NULL);
    fflush(stdout);
    fprintf(stderr, "moonpool: %s\n", message);
    if (trace != NULL && traced)
        fprintf(stderr, "%s\n", trace);
    lua_pop(L, 3);
}

static void push_args(lua_State *L, int argc, char **argv)
{
    lua_createtable(L, argc, 1);
    for (int i = 0; i < argc; i++) {
        lua_pushstring(L, argv[i]);
        lua_rawseti(L, -2, i);
    }
}

struct command {
    int argc;
    char **argv;
    int code;
};

/* The library must be open before the task begins: require cannot wait, nor can a task start in it. */
static int p_prepare(lua_State *L)
{
    struct command *c = lua_touserdata(L, 1);
    lua_getglobal(L, "require");
    lua_pushliteral(L, "moonpool.cli");
    lua_call(L, 1, 1);
    lua_getfield(L, -1, "main");
    push_args(L, c->argc, c->argv);
    return 2;
}

static int failed(lua_State *L)
{
    int code = mp_lua_exit_code(L, EXIT_ERROR);
    /* An interruption or moonpool.exit ends the command with an error that nobody wants to read. */
    if (mp_lua_ended(L) == 0)
        report(L);
    return code;
}

/* Found by require, opened only by who edits lines. */
static void preload_editor(lua_State *L)
{
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
    lua_pushcfunction(L, mp__open_editor);
    lua_setfield(L, -2, "moonpool.editor");
    lua_pop(L, 1);
}

static int run(lua_State *L, struct command *c)
{
    if (mp_lua_open(L, NULL) != LUA_OK)
        return failed(L);
    mp_lua_signals(L);
    lua_pushcfunction(L, p_prepare);
    lua_pushlightuserdata(L, c);
    if (lua_pcall(L, 1, 2, 0) != LUA_OK || mp_lua_call(L, 1, 1) != LUA_OK)
        return failed(L);
    int is_number;
    int code = (int)lua_tointegerx(L, -1, &is_number);
    return mp_lua_exit_code(L, is_number ? code : 0);
}

/* 0: what was printed did not all get out. Who reads a pipe and stops needs no telling. */
static int flushed(void)
{
    struct stat out;
    int before = ferror(stdout);
    if (fflush(stdout) == 0 && !before)
        return 1;
    if (fstat(STDOUT_FILENO, &out) == 0 && !S_ISFIFO(out.st_mode) && !S_ISSOCK(out.st_mode))
        fputs("moonpool: standard output could not be written\n", stderr);
    return 0;
}

/* All of it protected: an error outside any pcall ends the process with a core. */
static int p_run(lua_State *L)
{
    struct command *c = lua_touserdata(L, 1);
    luaL_openlibs(L);
    preload_editor(L);
    c->code = run(L, c);
    return 0;
}

int main(int argc, char **argv)
{
    struct command c = {argc, argv, 0};
    signal(SIGPIPE, SIG_IGN);
    lua_State *L = luaL_newstate();
    if (L == NULL) {
        fputs("moonpool: not enough memory\n", stderr);
        return EXIT_ERROR;
    }
    lua_pushcfunction(L, p_run);
    lua_pushlightuserdata(L, &c);
    if (lua_pcall(L, 1, 0, 0) != LUA_OK) {
        fprintf(stderr, "moonpool: %s\n",
                lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "not enough memory");
        c.code = EXIT_ERROR;
    }
    mp_lua_close(L);
    lua_close(L);
    return flushed() ? c.code : c.code != 0 ? c.code : EXIT_ERROR;
}

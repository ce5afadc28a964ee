/*
 * open.c - luaopen_moonpool: the C half (moonpool.core), a searcher for the Lua half, then init.lua.
 *
 * The Lua files are inside the module, so that neither half can shadow the other on the module
 * paths. MOONPOOL_PATH=dir reads dir/moonpool/x.lua instead, for work on the library.
 */
#include "binding/binding.h"
#include "binding/embedded.h"
#include "task/task.h"
#include "moonpool_lua.h"

#include <lualib.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- the Lua half ---- */

static const struct mp__embedded *find_embedded(const char *name)
{
    for (const struct mp__embedded *e = mp__embedded; e->module != NULL; e++)
        if (strcmp(e->module, name) == 0)
            return e;
    return NULL;
}

/* Pushes the path of the module's file under MOONPOOL_PATH; 0 and nothing when there is none. */
static int push_override(lua_State *L, const char *name)
{
    const char *dir = getenv("MOONPOOL_PATH");
    static const char *const forms[] = {"%s/%s.lua", "%s/%s/init.lua"};
    if (dir == NULL || !*dir)
        return 0;
    const char *path = luaL_gsub(L, name, ".", "/");
    for (int i = 0; i < 2; i++) {
        const char *file = lua_pushfstring(L, forms[i], dir, path);
        if (access(file, R_OK) == 0) {
            lua_remove(L, -2);
            return 1;
        }
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    return 0;
}

/* Pushes the module's chunk and where it is from; 0 and nothing when there is no such module. */
static int push_chunk(lua_State *L, const char *name)
{
    const struct mp__embedded *e;
    int status;
    if (push_override(L, name)) {
        status = luaL_loadfilex(L, lua_tostring(L, -1), "t");
        lua_insert(L, -2);
    } else {
        e = find_embedded(name);
        if (e == NULL)
            return 0;
        status = luaL_loadbufferx(L, e->start, (size_t)(e->end - e->start), e->chunk, "t");
        lua_pushstring(L, ":embedded:");
    }
    if (status != LUA_OK) {
        lua_pop(L, 1);
        lua_error(L);
    }
    return 1;
}

static int l_searcher(lua_State *L)
{
    const char *name = luaL_checkstring(L, 1);
    if (strncmp(name, "moonpool.", 9) != 0)
        return 0;
    if (push_chunk(L, name))
        return 2;
    lua_pushfstring(L, "no module '%s' inside moonpool", name);
    return 1;
}

/* Second in the list, after package.preload: a script's directory must not replace parts of us. */
static void add_searcher(lua_State *L)
{
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    if (lua_getfield(L, -1, LUA_LOADLIBNAME) != LUA_TTABLE ||
        lua_getfield(L, -1, "searchers") != LUA_TTABLE)
        luaL_error(L, "moonpool needs Lua's package library");
    for (lua_Integer i = (lua_Integer)lua_rawlen(L, -1); i >= 2; i--) {
        lua_rawgeti(L, -1, i);
        lua_rawseti(L, -2, i + 1);
    }
    lua_pushcfunction(L, l_searcher);
    lua_rawseti(L, -2, 2);
    lua_pop(L, 3);
}

/* embedded(name) -> the text of a part, such as "NOTICE", or nil */
static int l_embedded(lua_State *L)
{
    const struct mp__embedded *e = find_embedded(luaL_checkstring(L, 1));
    if (e == NULL)
        return 0;
    lua_pushlstring(L, e->start, (size_t)(e->end - e->start));
    return 1;
}

/* ---- the C half ---- */

MP_API int luaopen_moonpool_core(lua_State *L)
{
    if (mp__rt_if_any(L) == NULL)
        mp__rt_open(L, NULL);
    lua_newtable(L);
    lua_pushliteral(L, MP_VERSION_STRING);
    lua_setfield(L, -2, "version");
    lua_pushcfunction(L, l_embedded);
    lua_setfield(L, -2, "embedded");
    mp__open_error(L);
    mp__open_task(L);
    mp__open_system(L);
    mp__open_base64(L);
    mp__open_json(L);
    mp__open_matrix(L);
    mp__open_ragged(L);
    mp__open_files(L);
    mp__open_server(L);
    mp__open_client(L);
    mp__open_hmac(L);
    mp__open_hooks(L);
    mp__open_sim(L);
    mp__open_job(L);
    add_searcher(L);
    return 1;
}

MP_API int luaopen_moonpool(lua_State *L)
{
    luaL_requiref(L, "moonpool.core", luaopen_moonpool_core, 0);
    lua_pop(L, 1);
    if (!push_chunk(L, "moonpool"))
        return luaL_error(L, "the Lua library is missing from this build");
    lua_pushliteral(L, "moonpool");
    lua_insert(L, -2);
    lua_call(L, 2, 1);
    return 1;
}

/* ---- for C programs ---- */

static int p_open(lua_State *L)
{
    uv_loop_t *loop = lua_touserdata(L, 1);
    if (mp__rt_if_any(L) == NULL)
        mp__rt_open(L, loop);
    luaL_requiref(L, "moonpool", luaopen_moonpool, 0);
    return 0;
}

int mp_lua_open(lua_State *L, void *uv_loop)
{
    lua_pushcfunction(L, p_open);
    lua_pushlightuserdata(L, uv_loop);
    return lua_pcall(L, 1, 0, 0);
}

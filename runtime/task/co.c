/*
 * co.c - the coroutine library's resume, wrap, close and yield, aware of tasks.
 *
 * A wait inside a generator must suspend the whole task, not only the generator: resume sees the
 * mark that a wait yields, passes it outward, and when the task goes on resumes the generator again.
 * The mark stays on the generator's stack meanwhile, which tells other tasks to keep their hands off
 * it. Outside tasks the four behave as in Lua.
 */
#include "task/internal.h"

#include <lualib.h>

enum { AS_RESUME, AS_WRAP };

static int waits_in_task(lua_State *co)
{
    return lua_status(co) == LUA_YIELD && lua_gettop(co) > 0 && mp__is_mark(co, -1, &mp__wait_mark);
}

/* lua_resume with the running thread published for the signal handler. Finalizers may come here when
 * the runtime is gone. */
static int resume(lua_State *L, lua_State *co, int nargs, int *nres)
{
    struct mp__rt *rt = mp__rt_if_any(L);
    if (rt == NULL)
        return lua_resume(co, L, nargs, nres);
    struct mp__sched *s = rt->sched;
    lua_State *running = s->running;
    int blocks = s->current != NULL && !lua_isyieldable(L);
    s->blocked += (unsigned)blocks;
    s->running = co;
    int status = lua_resume(co, L, nargs, nres);
    s->running = running;
    s->blocked -= (unsigned)blocks;
    if (status != LUA_OK && status != LUA_YIELD)
        mp__signal_spread(s, co, L);
    if (rt->in_hook)
        rt->spread(co, L);
    return status;
}

/* What coroutine.wrap does with an error: close the coroutine, say where, raise. */
static int raise_wrapped(lua_State *L, lua_State *co)
{
    int status = lua_status(co);
    if (status != LUA_OK && status != LUA_YIELD) {
        status = mp__close_thread(co, L);
        lua_xmove(co, L, 1);
    }
    if (status != LUA_ERRMEM && lua_type(L, -1) == LUA_TSTRING) {
        luaL_where(L, 1);
        lua_insert(L, -2);
        lua_concat(L, 2);
    }
    return lua_error(L);
}

static int give_error(lua_State *L, lua_State *co, int how)
{
    if (how == AS_WRAP)
        return raise_wrapped(L, co);
    lua_pushboolean(L, 0);
    lua_insert(L, -2);
    return 2;
}

static int refuse(lua_State *L, lua_State *co, int how, const char *message)
{
    lua_pushstring(L, message);
    return give_error(L, co, how);
}

static int give_values(lua_State *L, lua_State *co, int how, int n)
{
    if (!lua_checkstack(L, n + 1)) {
        lua_pop(co, n);
        return refuse(L, co, how, "too many results to resume");
    }
    if (how == AS_RESUME)
        lua_pushboolean(L, 1);
    lua_xmove(co, L, n);
    return n + (how == AS_RESUME);
}

static int go_on(lua_State *L, int status, lua_KContext how);

/* The coroutine is at index 1, for AS_WRAP in the first upvalue. */
static lua_State *subject(lua_State *L, int how)
{
    return lua_tothread(L, how == AS_WRAP ? lua_upvalueindex(1) : 1);
}

static int wants_to_be_closed(lua_State *L, lua_State *co, int n)
{
    if (n == 1)
        return mp__is_mark(co, -1, &mp__kill_mark);
    struct mp__rt *rt = mp__rt_if_any(L);
    return n == 0 && rt != NULL && mp__signal_yielded(rt->sched);
}

static int run(lua_State *L, lua_State *co, int nargs, int how)
{
    int n = 0;
    int status = resume(L, co, nargs, &n);
    if (status == LUA_YIELD && n == 1 && mp__is_mark(co, -1, &mp__wait_mark)) {
        lua_pushlightuserdata(L, (void *)&mp__wait_mark);
        return lua_yieldk(L, 1, how, go_on);
    }
    if (status == LUA_YIELD && wants_to_be_closed(L, co, n)) {
        mp__close_thread(co, L);
        lua_settop(co, 0);
        lua_pushlightuserdata(L, (void *)&mp__kill_mark);
        return lua_yield(L, 1);
    }
    if (status == LUA_OK || status == LUA_YIELD)
        return give_values(L, co, how, n);
    if (!lua_checkstack(L, 3))
        return luaL_error(L, "stack overflow");
    lua_xmove(co, L, 1);
    return give_error(L, co, how);
}

static int go_on(lua_State *L, int status, lua_KContext how)
{
    (void)status;
    lua_State *co = subject(L, (int)how);
    if (waits_in_task(co))
        lua_pop(co, 1);
    return run(L, co, 0, (int)how);
}

static int begin(lua_State *L, lua_State *co, int nargs, int how)
{
    if (waits_in_task(co))
        return refuse(L, co, how, "cannot resume a coroutine that waits inside a task");
    if (!lua_checkstack(co, nargs))
        return refuse(L, co, how, "too many arguments to resume");
    lua_xmove(L, co, nargs);
    return run(L, co, nargs, how);
}

static int l_resume(lua_State *L)
{
    lua_State *co = lua_tothread(L, 1);
    luaL_argexpected(L, co, 1, "coroutine");
    return begin(L, co, lua_gettop(L) - 1, AS_RESUME);
}

static int l_wrapped(lua_State *L)
{
    return begin(L, subject(L, AS_WRAP), lua_gettop(L), AS_WRAP);
}

static int l_wrap(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TFUNCTION);
    lua_State *co = lua_newthread(L);
    lua_pushvalue(L, 1);
    lua_xmove(L, co, 1);
    lua_pushcclosure(L, l_wrapped, 1);
    return 1;
}

static int l_yield(lua_State *L)
{
    struct mp__rt *rt = mp__rt_if_any(L);
    struct mp__task *t = rt != NULL ? rt->sched->current : NULL;
    if (t != NULL && t->co == L)
        return luaL_error(L, "coroutine.yield outside a coroutine of your own "
                             "(moonpool.sleep(0) lets other tasks run)");
    return lua_yield(L, lua_gettop(L));
}

/* Lua's own close, unless the coroutine is linked to an event. */
static int l_close(lua_State *L)
{
    lua_State *co = lua_tothread(L, 1);
    luaL_argexpected(L, co, 1, "coroutine");
    if (waits_in_task(co))
        return luaL_error(L, "cannot close a coroutine that waits inside a task");
    lua_settop(L, 1);
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, 1, LUA_MULTRET);
    return lua_gettop(L);
}

/* Replaces the functions in the standard table: a generator written for Lua works in a task. */
void mp__open_coroutine(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"resume", l_resume}, {"wrap", l_wrap}, {"yield", l_yield}, {NULL, NULL}};
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    if (lua_getfield(L, -1, LUA_COLIBNAME) == LUA_TTABLE) {
        luaL_setfuncs(L, functions, 0);
        lua_getfield(L, -1, "close");
        lua_pushcclosure(L, l_close, 1);
        lua_setfield(L, -2, "close");
    }
    lua_pop(L, 2);
}

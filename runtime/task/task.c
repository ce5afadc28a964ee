/*
 * task.c - tasks as Lua sees them: made in a scope, awaited, cancelled.
 */
#include "task/task.h"

#include "task/internal.h"

#include <string.h>

#define TASK_META "moonpool.task"

/* The last error a task ended with and where that was; so a traceback survives the way through
 * await and scope, which raise the same value again elsewhere. */
static const char last_error_key, last_trace_key;

static int is_cancellation(lua_State *L, int idx)
{
    if (!lua_istable(L, idx))
        return 0;
    lua_pushliteral(L, "kind");
    lua_rawget(L, idx);
    int is = lua_type(L, -1) == LUA_TSTRING && strcmp(lua_tostring(L, -1), "cancelled") == 0;
    lua_pop(L, 1);
    return is;
}

static int known_error(lua_State *L, int idx)
{
    lua_rawgetp(L, LUA_REGISTRYINDEX, &last_error_key);
    int known = !lua_isnil(L, -1) && lua_rawequal(L, -1, idx);
    lua_pop(L, 1);
    return known;
}

/* Message handler: keeps the error value as it is and the traceback beside it. */
static int l_traceback(lua_State *L)
{
    lua_settop(L, 1);
    if (lua_isnil(L, 1) || is_cancellation(L, 1) || known_error(L, 1))
        return 1;
    lua_pushvalue(L, 1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &last_error_key);
    luaL_traceback(L, L, NULL, 1);
    mp__task_sign(L);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &last_trace_key);
    return 1;
}

void mp__push_traceback(lua_State *L, int err)
{
    if (known_error(L, err))
        lua_rawgetp(L, LUA_REGISTRYINDEX, &last_trace_key);
    else
        lua_pushnil(L);
}

static int l_get_traceback(lua_State *L)
{
    luaL_checkany(L, 1);
    mp__push_traceback(L, 1);
    return 1;
}

/* ---- the coroutine's first function ---- */

static int task_over(lua_State *L, int status, lua_KContext ctx)
{
    (void)ctx;
    if (status == LUA_OK || status == LUA_YIELD)
        return lua_gettop(L) - 1;
    struct mp__task *t = mp__rt(L)->sched->current;
    if (t != NULL)
        t->failed = 1;
    return 1;
}

/* The pcall inside the coroutine lets <close> variables wait while an error unwinds. */
static int task_main(lua_State *L)
{
    int nargs = lua_gettop(L) - 1;
    lua_pushcfunction(L, l_traceback);
    lua_insert(L, 1);
    return task_over(L, lua_pcallk(L, nargs, LUA_MULTRET, 1, 0, task_over), 0);
}

/* ---- new ---- */

static void check_room(lua_State *L, struct mp__sched *s, struct mp__scope *scope)
{
    if (s->closing || scope->ended)
        luaL_error(L, "the scope has ended: no task without a scope");
    if (s->current != NULL && s->current->state == TASK_CLOSING)
        luaL_error(L, "cannot spawn while a task is being closed");
    if (s->ntasks >= MP__MAX_TASKS)
        luaL_error(L, "too many tasks (limit %d): use moonpool.map, it runs a window of them",
                   (int)MP__MAX_TASKS);
}

static struct mp__task *push_new(lua_State *L, struct mp__scope *scope, int scope_idx)
{
    struct mp__task *t = lua_newuserdatauv(L, sizeof(*t), TASK_UVS);
    memset(t, 0, sizeof(*t));
    t->rt = mp__rt(L);
    t->scope = scope;
    t->state = TASK_NEW;
    mp__waitlist_init(&t->joiners);
    luaL_setmetatable(L, TASK_META);
    if (scope_idx) {
        lua_pushvalue(L, scope_idx);
        lua_setiuservalue(L, -2, TASK_UV_SCOPE);
    }
    mp__task_mark_place(L);
    return t;
}

/* Takes a function and its arguments off the stack and leaves the task. scope_idx: the scope's
 * absolute index, 0 for the root. */
struct mp__task *mp__task_new(lua_State *L, struct mp__scope *scope, int scope_idx, int nargs)
{
    struct mp__rt *rt = mp__rt(L);
    int base = lua_gettop(L) - nargs;
    check_room(L, rt->sched, scope);
    struct mp__task *t = push_new(L, scope, scope_idx);
    lua_insert(L, base);
    luaL_checkstack(L, 4, NULL);
    lua_pushvalue(L, base);
    mp__sched_adopt(L, t);
    lua_pop(L, 1);
    /* From here to the end nothing may raise: the task is anchored. */
    t->n = nargs + 1;
    t->why = scope->why;
    if (lua_checkstack(t->co, nargs + 2)) {
        lua_pushcfunction(t->co, task_main);
        lua_xmove(L, t->co, nargs + 1);
    } else {
        lua_settop(L, base);
        t->why = WHY_CANCEL;
    }
    mp__scope_enter(scope, t);
    mp__sched_ready(t);
    return t;
}

/* ---- results ---- */

static struct mp__task *check_task(lua_State *L, int idx)
{
    return luaL_checkudata(L, idx, TASK_META);
}

static int push_values(lua_State *L, struct mp__task *t, int idx)
{
    if (t->n == 1)
        lua_getiuservalue(L, idx, TASK_UV_RESULT);
    if (t->n < 2)
        return t->n;
    luaL_checkstack(L, t->n, "too many results");
    if (!lua_checkstack(t->co, 1))
        return luaL_error(L, "too many results");
    for (int i = 1; i <= t->n; i++) {
        lua_pushvalue(t->co, i);
        lua_xmove(t->co, L, 1);
    }
    return t->n;
}

int mp__task_results(lua_State *L, int idx)
{
    struct mp__task *t = check_task(L, idx);
    if (t->state == TASK_DONE)
        return push_values(L, t, idx);
    lua_getiuservalue(L, idx, TASK_UV_RESULT);
    if (lua_isnil(L, -1) && t->state == TASK_CANCELLED)
        mp__push_cancelled(L, t->why);
    return lua_error(L);
}

static int await_k(lua_State *L, int status, lua_KContext ctx)
{
    (void)status;
    (void)ctx;
    return mp__task_results(L, 1);
}

/* task:await(): its results, or its error raised. */
static int l_await(lua_State *L)
{
    struct mp__task *t = check_task(L, 1);
    struct mp__rt *rt = mp__rt(L);
    lua_settop(L, 1);
    if (t == rt->sched->current)
        return luaL_error(L, "a task cannot await itself");
    if (t->state >= TASK_DONE)
        return mp__task_results(L, 1);
    mp__wait_check(L);
    return mp__waitlist_wait(L, &t->joiners, 0, await_k);
}

/* task:cancel(): true when there was something left to cancel. */
static int l_cancel(lua_State *L)
{
    struct mp__task *t = check_task(L, 1);
    (void)mp__rt(L); /* raises after the end of the runtime */
    lua_pushboolean(L, t->state < TASK_DONE && !t->why);
    mp__task_cancel(t);
    return 1;
}

/* task:status(): "pending", "done", "failed" or "cancelled". */
static int l_status(lua_State *L)
{
    struct mp__task *t = check_task(L, 1);
    static const char *const words[] = {"done", "failed", "cancelled"};
    lua_pushstring(L, t->state < TASK_DONE ? "pending" : words[t->state - TASK_DONE]);
    return 1;
}

static int l_tostring(lua_State *L)
{
    lua_pushfstring(L, "task: %p", (const void *)check_task(L, 1));
    return 1;
}

/* ---- library ---- */

static int l_now(lua_State *L)
{
    lua_pushnumber(L, mp__seconds(mp__now()));
    return 1;
}

/* in_task(): whether a wait here lets other tasks run rather than running the loop. */
static int l_in_task(lua_State *L)
{
    lua_pushboolean(L, mp__rt(L)->sched->current != NULL);
    return 1;
}

/* task_count(): tasks that are not over. */
static int l_task_count(lua_State *L)
{
    lua_pushinteger(L, mp__rt(L)->sched->ntasks);
    return 1;
}

static int l_deadline(lua_State *L)
{
    double left = mp__task_deadline(L);
    if (left < 0)
        lua_pushnil(L);
    else
        lua_pushnumber(L, left);
    return 1;
}

static void make_class(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"await", l_await}, {"cancel", l_cancel}, {"status", l_status}, {NULL, NULL}};
    luaL_newmetatable(L, TASK_META);
    luaL_newlib(L, methods);
    lua_setfield(L, -2, "__index");
    lua_pushcfunction(L, l_tostring);
    lua_setfield(L, -2, "__tostring");
    lua_pop(L, 1);
}

void mp__open_task(lua_State *L)
{
    static const luaL_Reg functions[] = {{"await", l_await},
                                         {"sleep", mp__l_sleep},
                                         {"pause", mp__l_pause},
                                         {"now", l_now},
                                         {"in_task", l_in_task},
                                         {"deadline", l_deadline},
                                         {"task_count", l_task_count},
                                         {"tasks", mp__l_tasks},
                                         {"traceback", l_traceback},
                                         {"traceback_of", l_get_traceback},
                                         {NULL, NULL}};
    make_class(L);
    luaL_setfuncs(L, functions, 0);
    mp__open_scope(L);
    mp__open_sync(L);
    mp__open_signal(L);
    mp__open_limit(L);
    mp__open_coroutine(L);
}

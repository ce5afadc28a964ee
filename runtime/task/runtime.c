/*
 * runtime.c - one struct mp__rt per lua_State: made when the library opens, closed in order.
 *
 * Order of the end: tasks are cancelled and closed while Lua still runs; then the close hooks (the
 * engine) and the scheduler's handles; the loop runs until all of them are released; then the loop
 * itself. A finalizer does the same without running any Lua.
 */
#include "task/internal.h"
#include "base/fds.h"
#include "moonpool_lua.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct mp__close_hook {
    struct mp__close_hook *next;
    void (*fn)(struct mp__rt *rt, void *arg);
    void *arg;
};

/* rt, its scheduler and its loop in one block, which outlives the state if the loop is a host's. */
struct house {
    struct mp__rt rt;
    struct mp__sched sched;
    uv_loop_t loop;
    int closing;
    int orphan; /* the state is gone: the last release frees the block */
};

static const char rt_key;

struct mp__rt *mp__rt_if_any(lua_State *L)
{
    lua_rawgetp(L, LUA_REGISTRYINDEX, &rt_key);
    struct house **box = lua_touserdata(L, -1);
    lua_pop(L, 1);
    return box != NULL && *box != NULL ? &(*box)->rt : NULL;
}

struct mp__rt *mp__rt(lua_State *L)
{
    struct mp__rt *rt = mp__rt_if_any(L);
    if (rt == NULL)
        luaL_error(L, "moonpool is closed");
    return rt;
}

/* ---- close hooks ---- */

int mp__rt_on_close(struct mp__rt *rt, void (*fn)(struct mp__rt *rt, void *arg), void *arg)
{
    struct mp__close_hook *hook = malloc(sizeof(*hook));
    if (hook == NULL)
        return MP_ENOMEM;
    *hook = (struct mp__close_hook){rt->hooks, fn, arg};
    rt->hooks = hook;
    return 0;
}

void mp__rt_off_close(struct mp__rt *rt, void (*fn)(struct mp__rt *rt, void *arg), void *arg)
{
    for (struct mp__close_hook **at = &rt->hooks; *at != NULL; at = &(*at)->next) {
        struct mp__close_hook *hook = *at;
        if (hook->fn == fn && hook->arg == arg) {
            *at = hook->next;
            free(hook);
            return;
        }
    }
}

void mp__rt_hold(struct mp__rt *rt)
{
    rt->holds++;
}

void mp__rt_release(struct mp__rt *rt)
{
    struct house *house = MP__ENTRY(rt, struct house, rt);
    if (--rt->holds == 0 && house->orphan)
        free(house);
}

static void run_hooks(struct mp__rt *rt)
{
    while (rt->hooks != NULL) {
        struct mp__close_hook *hook = rt->hooks;
        rt->hooks = hook->next;
        hook->fn(rt, hook->arg);
        free(hook);
    }
}

/* ---- new and close ---- */

static struct house *house_new(lua_State *L, uv_loop_t *loop, int *err)
{
    struct house *house = calloc(1, sizeof(*house));
    *err = UV_ENOMEM;
    if (house == NULL)
        return NULL;
    mp__fds_keep_standard();
    *err = loop != NULL ? 0 : uv_loop_init(&house->loop);
    if (*err) {
        free(house);
        return NULL;
    }
    struct mp__sched *s = &house->sched;
    house->rt = (struct mp__rt){.loop = loop != NULL ? loop : &house->loop, .L = L, .sched = s};
    house->rt.owns_loop = loop == NULL;
    s->rt = &house->rt;
    s->exit_code = -1;
    mp__list_init(&s->queue);
    mp__waitlist_init(&s->later);
    mp__scope_init(&s->root, &house->rt);
    *err = mp__sched_init(&house->rt);
    if (*err && loop == NULL)
        uv_loop_close(&house->loop);
    if (*err)
        free(house);
    return *err ? NULL : house;
}

static void close_handles(struct house *house)
{
    struct mp__rt *rt = &house->rt;
    if (house->closing)
        return;
    house->closing = 1;
    mp__signal_forget(rt);
    run_hooks(rt);
    mp__sched_close(rt);
}

/* Not possible from inside uv_run (os.exit(true, true) in a task): the process ends anyway. */
static void run_down(struct house *house)
{
    struct mp__rt *rt = &house->rt;
    if (!rt->owns_loop || rt->sched->in_run)
        return;
    while (rt->holds > 0)
        uv_run(rt->loop, UV_RUN_ONCE);
    int err = uv_loop_close(rt->loop);
    assert(err == 0);
    if (err)
        fprintf(stderr, "moonpool: the loop still has handles at the end\n");
    rt->owns_loop = 0;
}

static int l_gc(lua_State *L)
{
    struct house **box = lua_touserdata(L, 1);
    struct house *house = *box;
    if (house == NULL)
        return 0;
    close_handles(house);
    run_down(house);
    *box = NULL;
    house->orphan = 1;
    if (house->rt.holds == 0)
        free(house);
    return 0;
}

static lua_State *main_thread(lua_State *L)
{
    lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_MAINTHREAD);
    lua_State *main = lua_tothread(L, -1);
    lua_pop(L, 1);
    return main;
}

/* The box first, with its finalizer, then what it holds: an error in between leaks nothing. */
void mp__rt_open(lua_State *L, uv_loop_t *loop)
{
    int err;
    struct house **box = lua_newuserdatauv(L, sizeof(struct house *), 0);
    *box = NULL;
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, l_gc);
    lua_setfield(L, -2, "__gc");
    lua_setmetatable(L, -2);
    mp__sched_tables(L);
    *box = house_new(main_thread(L), loop, &err);
    if (err)
        luaL_error(L, "cannot make the event loop: %s", uv_strerror(err));
    lua_rawsetp(L, LUA_REGISTRYINDEX, &rt_key);
}

/* ---- for C programs ---- */

/* Lets cancelled tasks unwind; what then still waits is closed where it stands. */
static void wind_up(lua_State *L, struct mp__rt *rt)
{
    struct mp__sched *s = rt->sched;
    mp__scope_cancel(&s->root, WHY_EXIT);
    s->from = L;
    for (int turn = 0; turn < 1000 && !mp__list_empty(&s->queue); turn++)
        mp__sched_run(rt);
    mp__sched_kill_all(L, rt);
    s->from = NULL;
}

int mp_lua_close(lua_State *L)
{
    struct mp__rt *rt = mp__rt_if_any(L);
    if (rt == NULL)
        return 0;
    if (rt->sched->current != NULL || rt->sched->in_run || !lua_checkstack(L, 40))
        return MP_EINVAL;
    struct house *house = MP__ENTRY(rt, struct house, rt);
    if (!house->closing)
        wind_up(L, rt);
    close_handles(house);
    run_down(house);
    return 0;
}

int mp_lua_call(lua_State *L, int nargs, int nresults)
{
    lua_pushcfunction(L, mp__l_main);
    lua_insert(L, -nargs - 2);
    int status = lua_pcall(L, nargs + 1, nresults, 0);
    /* A script that span until the end has not let the loop see the signal. */
    struct mp__rt *rt = mp__rt_if_any(L);
    if (rt != NULL)
        mp__signal_seen(rt);
    return status;
}

void mp_lua_signals(lua_State *L)
{
    mp__signal_host(mp__rt(L));
}

int mp_lua_exit_code(lua_State *L, int code)
{
    struct mp__rt *rt = mp__rt_if_any(L);
    if (rt == NULL)
        return code;
    if (rt->sched->interrupted)
        return 128 + rt->sched->interrupted;
    return rt->sched->exit_code >= 0 ? rt->sched->exit_code : code;
}

int mp_lua_ended(lua_State *L)
{
    struct mp__rt *rt = mp__rt_if_any(L);
    return rt != NULL && (rt->sched->interrupted || rt->sched->exit_code >= 0);
}

const char *mp_lua_traceback(lua_State *L)
{
    lua_pushvalue(L, -1);
    mp__push_traceback(L, lua_gettop(L));
    lua_remove(L, -2);
    return lua_tostring(L, -1);
}

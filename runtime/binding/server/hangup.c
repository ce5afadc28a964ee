/*
 * hangup.c - SIGHUP as something a task may wait for: a server reads its configuration again.
 *
 * A signal that comes while nobody waits is remembered, however many there were. The handle does not
 * keep the loop alive: a server does. It lives until the runtime closes.
 */
#include "binding/server/server.h"

#include <stdlib.h>

#define HANGUP "moonpool.hangup"

struct hangup {
    uv_signal_t signal;
    struct mp__rt *rt;
    struct mp__waitlist waiting;
    int seen;
};

static void on_signal(uv_signal_t *handle, int number)
{
    struct hangup *h = handle->data;
    (void)number;
    h->seen = h->waiting.n == 0;
    mp__waitlist_wake_all(&h->waiting);
}

static void on_closed(uv_handle_t *handle)
{
    struct hangup *h = handle->data;
    mp__rt_release(h->rt);
    free(h);
}

static void on_runtime_close(struct mp__rt *rt, void *arg)
{
    struct hangup *h = arg;
    mp__rt_hold(rt);
    uv_close((uv_handle_t *)&h->signal, on_closed);
}

static int wait_over(lua_State *L, int status, lua_KContext ctx)
{
    (void)L, (void)status, (void)ctx;
    return 0;
}

/* wait(): until the next SIGHUP, or at once when one came since the last wait. */
static int l_wait(lua_State *L)
{
    struct hangup *h = *(struct hangup **)luaL_checkudata(L, 1, HANGUP);
    mp__wait_check(L);
    if (h->seen) {
        h->seen = 0;
        return 0;
    }
    return mp__waitlist_wait(L, &h->waiting, 0, wait_over);
}

/* hangup(): an object to wait with; the signal no longer ends the process. nil: not possible. */
static int l_hangup(lua_State *L)
{
    struct hangup **box = lua_newuserdatauv(L, sizeof(*box), 0);
    struct mp__rt *rt = mp__rt(L);
    struct hangup *h = calloc(1, sizeof(*h));
    *box = h;
    if (h == NULL)
        return luaL_error(L, "not enough memory");
    h->rt = rt;
    mp__waitlist_init(&h->waiting);
    if (uv_signal_init(rt->loop, &h->signal) != 0) {
        free(h);
        return 0;
    }
    h->signal.data = h;
    uv_unref((uv_handle_t *)&h->signal);
    if (uv_signal_start(&h->signal, on_signal, SIGHUP) != 0 ||
        mp__rt_on_close(rt, on_runtime_close, h) != 0) {
        on_runtime_close(rt, h);
        return 0;
    }
    luaL_setmetatable(L, HANGUP);
    return 1;
}

void mp__open_hangup(lua_State *L)
{
    static const luaL_Reg methods[] = {{"wait", l_wait}, {NULL, NULL}};
    static const luaL_Reg functions[] = {{"hangup", l_hangup}, {NULL, NULL}};
    luaL_newmetatable(L, HANGUP);
    luaL_newlib(L, methods);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
    luaL_setfuncs(L, functions, 0);
}

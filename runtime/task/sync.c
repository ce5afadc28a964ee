/*
 * sync.c - what channels, semaphores and cancel tokens are made of.
 *
 * A wait list is a FIFO of parked tasks: wl:wait() parks, wl:wake(n) lets the first n go on. A
 * cancelled waiter unlinks itself in constant time, so a list never fills with the dead.
 */
#include "task/internal.h"

#include <limits.h>

#define WAITLIST_META "moonpool.waitlist"
#define TOKEN_META    "moonpool.cancel_token"

/* ---- wait lists ---- */

static struct mp__waitlist *check_waitlist(lua_State *L, int idx)
{
    return luaL_checkudata(L, idx, WAITLIST_META);
}

static int l_waitlist(lua_State *L)
{
    mp__waitlist_init(lua_newuserdatauv(L, sizeof(struct mp__waitlist), 0));
    luaL_setmetatable(L, WAITLIST_META);
    return 1;
}

static int wait_over(lua_State *L, int status, lua_KContext ctx)
{
    (void)L;
    (void)status;
    (void)ctx;
    return 0;
}

static int l_wait(lua_State *L)
{
    struct mp__waitlist *wl = check_waitlist(L, 1);
    mp__wait_check(L);
    return mp__waitlist_wait(L, wl, 0, wait_over);
}

/* wl:wake(n or nil for all) -> how many were woken */
static int l_wake(lua_State *L)
{
    struct mp__waitlist *wl = check_waitlist(L, 1);
    lua_Integer most = luaL_optinteger(L, 2, LLONG_MAX);
    lua_Integer n = 0;
    while (n < most && mp__waitlist_wake(wl))
        n++;
    lua_pushinteger(L, n);
    return 1;
}

/* ---- cancel tokens ---- */

struct mp__token {
    int cancelled;
    struct mp__link watchers; /* mp__watch.link */
};

struct mp__token *mp__token_test(lua_State *L, int idx)
{
    return luaL_testudata(L, idx, TOKEN_META);
}

int mp__token_cancelled(const struct mp__token *token)
{
    return token->cancelled;
}

void mp__token_watch(struct mp__token *token, struct mp__watch *w)
{
    mp__list_push(&token->watchers, &w->link);
}

void mp__token_unwatch(struct mp__watch *w)
{
    mp__list_remove(&w->link);
}

static int l_cancel_token(lua_State *L)
{
    struct mp__token *token = lua_newuserdatauv(L, sizeof(*token), 0);
    token->cancelled = 0;
    mp__list_init(&token->watchers);
    luaL_setmetatable(L, TOKEN_META);
    return 1;
}

/* token:cancel(): everything that carries the token ends now; once is for ever. */
static int l_token_cancel(lua_State *L)
{
    struct mp__token *token = luaL_checkudata(L, 1, TOKEN_META);
    token->cancelled = 1;
    while (!mp__list_empty(&token->watchers)) {
        struct mp__watch *w = MP__ENTRY(mp__list_shift(&token->watchers), struct mp__watch, link);
        w->cb(w);
    }
    return 0;
}

static int l_is_cancelled(lua_State *L)
{
    struct mp__token *token = luaL_checkudata(L, 1, TOKEN_META);
    lua_pushboolean(L, token->cancelled);
    return 1;
}

/* ---- library ---- */

static void make_class(lua_State *L, const char *name, const luaL_Reg *methods)
{
    luaL_newmetatable(L, name);
    lua_newtable(L);
    luaL_setfuncs(L, methods, 0);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
}

void mp__open_sync(lua_State *L)
{
    static const luaL_Reg waitlist[] = {{"wait", l_wait}, {"wake", l_wake}, {NULL, NULL}};
    static const luaL_Reg token[] = {
        {"cancel", l_token_cancel}, {"is_cancelled", l_is_cancelled}, {NULL, NULL}};
    static const luaL_Reg functions[] = {
        {"waitlist", l_waitlist}, {"cancel_token", l_cancel_token}, {NULL, NULL}};
    make_class(L, WAITLIST_META, waitlist);
    make_class(L, TOKEN_META, token);
    luaL_setfuncs(L, functions, 0);
}

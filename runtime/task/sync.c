/*
 * sync.c - what channels, semaphores and cancel tokens are made of.
 *
 * A wait list is a FIFO of parked tasks: wl:wait() parks, wl:wake(n) lets the first n go on. A
 * cancelled waiter unlinks itself in constant time, so a list never fills with the dead.
 */
#include "task/internal.h"

#include <limits.h>
#include <string.h>

#define WAITLIST_META "moonpool.waitlist"
#define TOKEN_META    "moonpool.cancel_token"

/* ---- wait lists ---- */

struct waitlist {
    struct mp__tlink waiters;
};

static struct waitlist *check_waitlist(lua_State *L, int idx)
{
    return luaL_checkudata(L, idx, WAITLIST_META);
}

static int l_waitlist(lua_State *L)
{
    struct waitlist *wl = lua_newuserdatauv(L, sizeof(*wl), 0);
    mp__tlink_init(&wl->waiters);
    luaL_setmetatable(L, WAITLIST_META);
    return 1;
}

static void unlink_waiter(struct mp_wait *w)
{
    mp__tlink_remove(&MP_OF(w, struct mp__node, w)->link);
}

static int wait_over(lua_State *L, int status, lua_KContext ctx)
{
    (void)L, (void)status, (void)ctx;
    return 0;
}

static int l_wait(lua_State *L)
{
    struct waitlist *wl = check_waitlist(L, 1);
    mp__wait_check(L);
    struct mp__node *node = mp__node(mp__rt(L), unlink_waiter);
    mp__tlink_append(&wl->waiters, &node->link);
    return mp__wait_begin(L, &node->w, 0, wait_over);
}

/* wl:wake(n or nil for all) -> how many were woken */
static int l_wake(lua_State *L)
{
    struct waitlist *wl = check_waitlist(L, 1);
    lua_Integer most = luaL_optinteger(L, 2, LLONG_MAX);
    lua_Integer n = 0;
    for (; n < most && !mp__tlink_alone(&wl->waiters); n++) {
        struct mp__node *node = MP_OF(wl->waiters.next, struct mp__node, link);
        mp__tlink_remove(&node->link);
        mp__wait_wake(node->rt, &node->w);
    }
    lua_pushinteger(L, n);
    return 1;
}

/* ---- cancel tokens ---- */

struct mp__token {
    int cancelled;
    struct mp__watch watchers; /* head of the circular list */
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
    struct mp__watch *head = &token->watchers;
    w->prev = head->prev;
    w->next = head;
    head->prev->next = w;
    head->prev = w;
}

void mp__token_unwatch(struct mp__watch *w)
{
    if (!w->next)
        return;
    w->prev->next = w->next;
    w->next->prev = w->prev;
    w->prev = NULL;
    w->next = NULL;
}

static int l_cancel_token(lua_State *L)
{
    struct mp__token *token = lua_newuserdatauv(L, sizeof(*token), 0);
    memset(token, 0, sizeof(*token));
    token->watchers.prev = &token->watchers;
    token->watchers.next = &token->watchers;
    luaL_setmetatable(L, TOKEN_META);
    return 1;
}

/* token:cancel(): everything that carries the token ends now; once is for ever. */
static int l_token_cancel(lua_State *L)
{
    struct mp__token *token = luaL_checkudata(L, 1, TOKEN_META);
    token->cancelled = 1;
    while (token->watchers.next != &token->watchers) {
        struct mp__watch *w = token->watchers.next;
        mp__token_unwatch(w);
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

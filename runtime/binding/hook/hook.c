/* hook.c - sets of hooks: made from a table of functions, asked, counted. */
#include "binding/hook/hook.h"

#include "binding/binding.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define QUIET_NS (60 * MP__SECOND) /* between two lines of the log */

const char *const mp__hook_names[HOOK_COUNT] = {
    "classify", "retry", "hedge",           "route",          "concurrency",    "breaker",
    "rate",     "batch", "estimate_tokens", "before_request", "after_response", "on_giveup"};

static const char sets_key; /* registry: set's address -> its userdata, weakly */

/* ---- counts ---- */

static struct mp__hook_counts *counts_new(void)
{
    struct mp__hook_counts *n = calloc(1, sizeof(*n));
    if (n != NULL)
        n->refs = 1;
    return n;
}

void mp__hook_counts_unref(struct mp__hook_counts *n)
{
    if (n != NULL && --n->refs == 0)
        free(n);
}

static void put(lua_State *L, const char *name, uint64_t v)
{
    lua_pushinteger(L, (lua_Integer)v);
    lua_setfield(L, -2, name);
}

static void put_counts(lua_State *L, uint64_t calls, uint64_t errors, uint64_t bad, uint64_t slow,
                       uint64_t stopped)
{
    put(L, "calls", calls);
    put(L, "errors", errors);
    put(L, "bad_verdicts", bad);
    put(L, "slow", slow);
    put(L, "stopped", stopped);
}

void mp__push_hook_stats(lua_State *L, const struct mp__hook_counts *n)
{
    static const struct mp__hook_counts none;
    uint64_t sum[5] = {0};
    n = n != NULL ? n : &none;
    lua_createtable(L, 0, 8);
    for (int i = 0; i < HOOK_COUNT; i++) {
        const uint64_t of[5] = {n->by[i].calls, n->by[i].errors, n->by[i].bad, n->by[i].slow,
                                n->by[i].stopped};
        for (int k = 0; k < 5; k++)
            sum[k] += of[k];
        if (of[0] == 0)
            continue;
        lua_createtable(L, 0, 5);
        put_counts(L, of[0], of[1], of[2], of[3], of[4]);
        lua_setfield(L, -2, mp__hook_names[i]);
    }
    put_counts(L, sum[0], sum[1], sum[2], sum[3], sum[4]);
    lua_pushnumber(L, mp__seconds(n->time));
    lua_setfield(L, -2, "time");
    if (n->last[0] != '\0') {
        lua_pushstring(L, n->last);
        lua_setfield(L, -2, "last_error");
    }
}

/* ---- one call of a hook ---- */

/* estimate_tokens gets the row itself: texts and payloads are Lua values already. */
static void push_row(lua_State *L, const struct mp__hook_case *c)
{
    struct mp__op *op = mp__hook_op(c);
    if (op == NULL || lua_rawgetp(L, LUA_REGISTRYINDEX, op) != LUA_TTABLE) {
        lua_pushnil(L);
        return;
    }
    if (lua_getfield(L, -1, "rows") != LUA_TTABLE) {
        lua_pop(L, 1);
        lua_getfield(L, -1, "payloads");
    }
    lua_rawgeti(L, -1, (lua_Integer)c->row + 1);
}

/* Pushes the function; 0: the set's userdata is gone. */
static int push_function(lua_State *L, const struct mp__hook_case *c)
{
    lua_rawgetp(L, LUA_REGISTRYINDEX, &sets_key);
    if (lua_rawgetp(L, -1, c->hs) != LUA_TUSERDATA)
        return 0;
    return lua_getiuservalue(L, -1, (int)c->which + 1) == LUA_TFUNCTION;
}

static const char *shown(lua_State *L, int idx)
{
    int type = lua_type(L, idx);
    if (type == LUA_TNUMBER || type == LUA_TBOOLEAN || type == LUA_TSTRING)
        return luaL_tolstring(L, idx, NULL);
    return lua_pushfstring(L, type == LUA_TNIL ? "%s" : "a %s", lua_typename(L, type));
}

static int p_ask(lua_State *L)
{
    struct mp__hook_case *c = lua_touserdata(L, 1);
    if (!push_function(L, c))
        return 0;
    int fn = lua_gettop(L);
    if (c->which == HOOK_TOKENS)
        push_row(L, c);
    else
        mp__push_hook_view(L, c);
    lua_pushvalue(L, fn);
    lua_insert(L, -2);
    lua_call(L, 1, 2);
    int first = lua_gettop(L) - 1;
    const char *expected = c->read != NULL ? c->read(L, c, first) : NULL;
    if (expected == NULL)
        return 0;
    c->bad = 1;
    if (c->plain)
        return luaL_error(L, "%s", expected);
    return luaL_error(L, "%s expected, got %s", expected, shown(L, first));
}

static int p_text(lua_State *L)
{
    luaL_tolstring(L, 1, NULL);
    return 1;
}

/* The message of the error on the top; turning a table into text may fail too. */
static const char *message(lua_State *H)
{
    if (lua_type(H, -1) != LUA_TSTRING) {
        lua_pushcfunction(H, p_text);
        lua_insert(H, -2);
        (void)lua_pcall(H, 1, 1, 0); /* if it fails, that has a text */
    }
    return lua_type(H, -1) == LUA_TSTRING ? lua_tostring(H, -1) : "an error without text";
}

static void tell(struct mp__hook_case *c, const char *text)
{
    struct mp__hook_counts *n = c->hs->counts;
    struct mp_engine *e = c->hs->rt->engine;
    char more[64] = "";
    char line[400];
    mp__time now = mp__now();
    snprintf(n->last, sizeof(n->last), "%s: %s", mp__hook_names[c->which], text);
    n->unlogged++;
    if (e == NULL || (n->logged_at != 0 && now - n->logged_at < QUIET_NS))
        return;
    if (n->unlogged > 1)
        snprintf(more, sizeof(more), " (and %llu more since the last line)",
                 (unsigned long long)n->unlogged - 1);
    snprintf(line, sizeof(line), "hook %s; the default decision is taken%s", n->last, more);
    mp__hook_warn(e, line);
    n->logged_at = now;
    n->unlogged = 0;
}

/* 1: its verdict counts. fault: what it raised, or NULL. */
static int account(struct mp__hook_case *c, const char *fault, int stopped, mp__time took)
{
    struct mp__hook_counts *n = c->hs->counts;
    n->time += took;
    n->by[c->which].slow += took > MP__HOOK_SOFT_NS;
    if (stopped)
        n->by[c->which].stopped++;
    else if (fault != NULL && c->bad)
        n->by[c->which].bad++;
    else if (fault != NULL)
        n->by[c->which].errors++;
    else
        return 1;
    tell(c, fault != NULL ? fault : "it ran too long and was stopped");
    return 0;
}

int mp__hook_ask(struct mp__hook_case *c)
{
    struct mp__hookset *hs = c->hs;
    struct mp__rt *rt = hs->rt;
    struct mp__hook_watch *w = rt->watch;
    if (hs->dead || w == NULL || rt->in_hook || (!hs->alone && rt->engine == NULL))
        return 0;
    c->out = (struct mp__verdict){.answer = MPP_DEFAULT, .number = -1};
    c->bad = 0;
    hs->counts->by[c->which].calls++;
    lua_settop(w->H, 0);
    if (!hs->alone)
        mp__hook_enter(rt->engine);
    mp__time start = mp__now();
    mp__hook_begin(w);
    lua_pushcfunction(w->H, p_ask);
    lua_pushlightuserdata(w->H, c);
    /* Inside the watch: the error's __tostring may spin like the hook itself. */
    const char *fault = lua_pcall(w->H, 1, 0, 0) != LUA_OK ? message(w->H) : NULL;
    w->open = NULL;
    int stopped = mp__hook_end(w);
    int counts = account(c, fault, stopped, mp__now() - start);
    if (!hs->alone)
        mp__hook_leave(rt->engine);
    return counts;
}

/* ---- sets ---- */

static void set_ref(struct mp__hookset *hs)
{
    hs->refs++;
}

static void set_unref(struct mp__hookset *hs)
{
    if (--hs->refs > 0)
        return;
    mp__hook_counts_unref(hs->counts);
    free(hs);
}

static void retain(void *arg)
{
    set_ref(arg);
}

static void release(void *arg)
{
    set_unref(arg);
}

struct mp__hookset *mp__hookset_test(lua_State *L, int idx)
{
    struct mp__hookset **box = luaL_testudata(L, idx, MP__HOOKS_TYPE);
    return box != NULL ? *box : NULL;
}

static int l_gc(lua_State *L)
{
    struct mp__hookset **box = luaL_checkudata(L, 1, MP__HOOKS_TYPE);
    struct mp__hookset *hs = *box;
    *box = NULL;
    if (hs != NULL) {
        hs->dead = 1;
        set_unref(hs);
    }
    return 0;
}

static struct mp__hook_counts *counts_of(lua_State *L, struct mp__client_box *client)
{
    struct mp__hook_counts *n = client != NULL ? client->counts : NULL;
    if (n == NULL)
        n = counts_new();
    if (n == NULL)
        luaL_error(L, "out of memory");
    if (client != NULL)
        client->counts = n;
    if (client != NULL)
        n->refs++; /* one for the client, one for the set */
    return n;
}

/* Stack: its box on the top. */
static struct mp__hookset *set_new(lua_State *L, struct mp__hookset **box,
                                   struct mp__client_box *client)
{
    struct mp__hookset *hs = calloc(1, sizeof(*hs));
    if (hs == NULL)
        luaL_error(L, "out of memory");
    hs->refs = 1;
    hs->rt = mp__rt(L);
    *box = hs;
    hs->counts = counts_of(L, client);
    hs->c.core.arg = hs;
    hs->c.retain = retain;
    hs->c.release = release;
    return hs;
}

static void remember(lua_State *L, struct mp__hookset *hs)
{
    if (lua_rawgetp(L, LUA_REGISTRYINDEX, &sets_key) != LUA_TTABLE) {
        lua_pop(L, 1);
        lua_newtable(L);
        lua_createtable(L, 0, 1);
        lua_pushliteral(L, "v");
        lua_setfield(L, -2, "__mode");
        lua_setmetatable(L, -2);
        lua_pushvalue(L, -1);
        lua_rawsetp(L, LUA_REGISTRYINDEX, &sets_key);
    }
    lua_pushvalue(L, -2);
    lua_rawsetp(L, -2, hs);
    lua_pop(L, 1);
}

/*
 * core.hooks(client or nil, {retry = function, ...}) -> a set, for core.client_new (client is nil
 * then) or a call's spec. Names are those of mp__hook_names; others are ignored.
 */
static int l_hooks(lua_State *L)
{
    struct mp__client_box *client = luaL_testudata(L, 1, MP__CLIENT_TYPE);
    luaL_checktype(L, 2, LUA_TTABLE);
    lua_settop(L, 2);
    mp__hook_watch_of(L);
    struct mp__hookset **box = lua_newuserdatauv(L, sizeof(struct mp__hookset *), HOOK_COUNT);
    *box = NULL;
    luaL_setmetatable(L, MP__HOOKS_TYPE);
    struct mp__hookset *hs = set_new(L, box, client);
    for (int i = 0; i < HOOK_COUNT; i++) {
        if (lua_getfield(L, 2, mp__hook_names[i]) == LUA_TFUNCTION) {
            lua_setiuservalue(L, 3, i + 1);
            hs->has |= 1u << i;
        } else {
            lua_pop(L, 1);
        }
    }
    mp__hook_decisions(hs);
    mp__hook_requests(hs);
    remember(L, hs);
    return 1;
}

void mp__open_hooks(lua_State *L)
{
    static const luaL_Reg functions[] = {{"hooks", l_hooks}, {NULL, NULL}};
    luaL_newmetatable(L, MP__HOOKS_TYPE);
    lua_pushcfunction(L, l_gc);
    lua_setfield(L, -2, "__gc");
    lua_pop(L, 1);
    luaL_setfuncs(L, functions, 0);
    mp__open_hook_view(L);
}

/*
 * view.c - what a hook may look at: a userdata whose fields are read from the engine when they
 * are asked for. It knows the number of its call of a hook and shows nothing after that.
 */
#include "binding/hook/hook.h"
#include "base/prng.h"
#include "codec/head.h"

#include <math.h>
#include <string.h>
#include <strings.h>

struct view {
    struct mp__hook_watch *watch;
    uint64_t number;
};

static const char meta_key;

enum field {
    F_HOOK = 1,
    F_NOW,
    F_ID,
    F_TAG,
    F_METHOD,
    F_PATH,
    F_URL,
    F_HOST,
    F_FIRST,
    F_COUNT,
    F_LEFT,
    F_BYTES,
    F_TOKENS,
    F_ATTEMPTS,
    F_HEDGES,
    F_IS_HEDGE,
    F_ENDPOINT,
    F_ENDPOINTS,
    F_LAST_ENDPOINT,
    F_ELAPSED,
    F_TIME,
    F_DEADLINE_LEFT,
    F_DELAY,
    F_BUDGET,
    F_IN_FLIGHT,
    F_CLASS,
    F_KIND,
    F_STATUS,
    F_MESSAGE,
    F_RETRY_AFTER,
    F_NEVER_SENT,
    F_TOKENS_USED,
    F_BODY,
    F_RECEIVED,
    F_REQUEST_ID,
};

static const struct {
    const char *name;
    enum field id;
} fields[] = {
    {"hook", F_HOOK},
    {"now", F_NOW},
    {"id", F_ID},
    {"tag", F_TAG},
    {"method", F_METHOD},
    {"path", F_PATH},
    {"url", F_URL},
    {"host", F_HOST},
    {"first", F_FIRST},
    {"count", F_COUNT},
    {"left", F_LEFT},
    {"bytes", F_BYTES},
    {"tokens", F_TOKENS},
    {"attempts", F_ATTEMPTS},
    {"hedges", F_HEDGES},
    {"is_hedge", F_IS_HEDGE},
    {"endpoint", F_ENDPOINT},
    {"endpoints", F_ENDPOINTS},
    {"last_endpoint", F_LAST_ENDPOINT},
    {"elapsed", F_ELAPSED},
    {"time", F_TIME},
    {"deadline_left", F_DEADLINE_LEFT},
    {"delay", F_DELAY},
    {"budget", F_BUDGET},
    {"in_flight", F_IN_FLIGHT},
    {"class", F_CLASS},
    {"kind", F_KIND},
    {"status", F_STATUS},
    {"message", F_MESSAGE},
    {"retry_after", F_RETRY_AFTER},
    {"never_sent", F_NEVER_SENT},
    {"tokens_used", F_TOKENS_USED},
    {"body", F_BODY},
    {"received", F_RECEIVED},
    {"request_id", F_REQUEST_ID},
};

/* ---- where the facts are ---- */

/* The engine's attempt behind a case: 1 and *out, or 0. */
static int attempt_of(const struct mp__hook_case *c, struct mp__attempt_facts *out)
{
    const struct mp__attempt *a = c->attempt;
    if (a == NULL && c->core != NULL && c->core->outcome != NULL && !c->hs->alone)
        a = mp__hook_last(c->core->part);
    if (a == NULL)
        return 0;
    mp__hook_attempt(a, out);
    return 1;
}

/* The call's op is its arg: the binding submits no other. */
struct mp__op *mp__hook_op(const struct mp__hook_case *c)
{
    struct mp__call_facts call;
    if (c->call == NULL)
        return NULL;
    mp__hook_call(c->call, &call);
    return call.arg;
}

static const struct mpp_part_facts *part_of(const struct mp__hook_case *c)
{
    struct mp__attempt_facts a;
    if (c->core != NULL)
        return c->core->part;
    return attempt_of(c, &a) ? a.part : NULL;
}

static const struct mpp_client *client_of(const struct mp__hook_case *c)
{
    struct mp__attempt_facts a;
    if (c->core != NULL)
        return c->core->client;
    return attempt_of(c, &a) ? a.client : NULL;
}

/* 0-based; -1: none is chosen yet. */
static int64_t endpoint_of(const struct mp__hook_case *c)
{
    struct mp__attempt_facts a;
    if (c->core != NULL)
        return c->which == HOOK_ROUTE ? -1 : (int64_t)c->core->endpoint;
    return attempt_of(c, &a) ? (int64_t)a.endpoint : -1;
}

/* ---- values ---- */

static void push_int(lua_State *L, uint64_t v)
{
    lua_pushinteger(L, (lua_Integer)v);
}

/* Negative: not known, nil. */
static void push_known(lua_State *L, double v)
{
    if (v >= 0)
        lua_pushnumber(L, v);
    else
        lua_pushnil(L);
}

static void push_count(lua_State *L, int64_t v)
{
    if (v >= 0)
        lua_pushinteger(L, v);
    else
        lua_pushnil(L);
}

/* The same for every attempt of a request, evenly spread. */
static void push_id(lua_State *L, const struct mp__hook_case *c)
{
    const struct mpp_part_facts *part = part_of(c);
    struct mp__call_facts call = {.ticket = 0};
    uint64_t first = c->offer != NULL ? c->offer->first : part != NULL ? part->info.first : 0;
    if (c->call != NULL)
        mp__hook_call(c->call, &call);
    else if (part != NULL)
        call.ticket = (uint64_t)part->created;
    uint64_t seed = call.ticket ^ (first << 1 | 1) * MP__GOLDEN;
    push_int(L, mp__mix64(seed) >> 1);
}

static void push_tag(lua_State *L, const struct mp__hook_case *c)
{
    struct mp__op *op = mp__hook_op(c);
    if (op != NULL && lua_rawgetp(L, LUA_REGISTRYINDEX, op) == LUA_TTABLE)
        lua_getfield(L, -1, "tag");
    else
        lua_pushnil(L);
}

/* Without what stands before an @: it may be a password. */
static void push_url(lua_State *L, const char *url)
{
    const char *scheme = strstr(url, "://");
    const char *host = scheme != NULL ? scheme + 3 : url;
    size_t n = strcspn(host, "/?");
    const char *at = memchr(host, '@', n);
    if (at == NULL) {
        lua_pushstring(L, url);
        return;
    }
    lua_pushlstring(L, url, (size_t)(host - url));
    lua_pushstring(L, at + 1);
    lua_concat(L, 2);
}

static int call_field(lua_State *L, const struct mp__hook_case *c, enum field f)
{
    struct mp__call_facts call;
    if (c->call == NULL)
        return 0;
    mp__hook_call(c->call, &call);
    lua_pushstring(L, f == F_METHOD ? call.method : call.path);
    return 1;
}

static int offer_field(lua_State *L, const struct mp__offer *o, enum field f)
{
    switch (f) {
    case F_FIRST:
        push_int(L, o->first + 1);
        return 1;
    case F_COUNT:
        push_int(L, o->count);
        return 1;
    case F_LEFT:
        push_int(L, o->left);
        return 1;
    case F_BYTES:
        push_int(L, o->bytes);
        return 1;
    case F_TOKENS:
        lua_pushnumber(L, o->tokens);
        return 1;
    default:
        return 0;
    }
}

static int part_field(lua_State *L, const struct mpp_part_facts *p, enum field f)
{
    switch (f) {
    case F_FIRST:
        push_int(L, p->info.first + 1);
        return 1;
    case F_COUNT:
        push_int(L, p->info.count);
        return 1;
    case F_BYTES:
        push_int(L, p->info.bytes);
        return 1;
    case F_TOKENS:
        lua_pushnumber(L, p->info.tokens);
        return 1;
    case F_ATTEMPTS:
        push_int(L, p->attempts);
        return 1;
    case F_HEDGES:
        push_int(L, p->hedges);
        return 1;
    case F_LAST_ENDPOINT:
        push_count(L, p->attempts > 0 ? (int64_t)p->last_endpoint + 1 : -1);
        return 1;
    default:
        return 0;
    }
}

static const char *const classes[] = {"ok", "throttled", "transient", "fatal", "cancelled"};

static int core_field(lua_State *L, const struct mp__hook_case *c, enum field f)
{
    const struct mpp_view *v = c->core;
    switch (f) {
    case F_ELAPSED:
        lua_pushnumber(L, v->elapsed);
        return 1;
    case F_DEADLINE_LEFT:
        push_known(L, v->deadline_left);
        return 1;
    case F_DELAY:
        push_known(L, v->delay);
        return 1;
    case F_BUDGET:
        lua_pushnumber(L, v->budget_level);
        return c->which != HOOK_ROUTE;
    case F_IN_FLIGHT:
        push_int(L, v->in_flight);
        return c->which != HOOK_ROUTE;
    case F_CLASS:
        lua_pushstring(L, classes[v->cls]);
        return c->which == HOOK_CLASSIFY || c->which == HOOK_RETRY;
    default:
        return 0;
    }
}

static void push_kind(lua_State *L, enum mp_kind kind)
{
    if (kind == MP_KIND_NONE)
        lua_pushnil(L);
    else
        lua_pushstring(L, mp_kind_name(kind));
}

static int outcome_field(lua_State *L, const struct mpp_outcome *o, enum field f)
{
    switch (f) {
    case F_KIND:
        push_kind(L, o->kind);
        return 1;
    case F_STATUS:
        push_count(L, o->status > 0 ? o->status : -1);
        return 1;
    case F_RETRY_AFTER:
        push_known(L, o->hints.retry_after);
        return 1;
    case F_NEVER_SENT:
        lua_pushboolean(L, o->never_sent);
        return 1;
    case F_TOKENS_USED:
        push_count(L, o->tokens);
        return 1;
    case F_RECEIVED:
        push_int(L, o->body_bytes);
        return 1;
    default:
        return 0;
    }
}

static void push_text(lua_State *L, const char *s, size_t n)
{
    if (s != NULL)
        lua_pushlstring(L, s, n);
    else
        lua_pushnil(L);
}

static int attempt_field(lua_State *L, const struct mp__hook_case *c, enum field f)
{
    struct mp__attempt_facts a;
    if (!attempt_of(c, &a))
        return 0;
    int before = c->which == HOOK_BEFORE;
    switch (f) {
    case F_URL:
        push_url(L, a.url);
        return 1;
    case F_HOST:
        lua_pushstring(L, a.host);
        return 1;
    case F_REQUEST_ID:
        lua_pushstring(L, before ? NULL : a.request_id); /* NULL: nil */
        return 1;
    case F_MESSAGE:
        lua_pushstring(L, a.message[0] != '\0' && !before ? a.message : NULL);
        return 1;
    case F_BODY:
        push_text(L, before ? a.request : a.body, before ? a.request_len : a.body_len);
        return 1;
    case F_TIME:
        lua_pushnumber(L, a.time);
        return !before;
    case F_KIND:
        push_kind(L, a.kind);
        return 1;
    case F_STATUS:
        push_count(L, a.status > 0 ? a.status : -1);
        return 1;
    case F_RETRY_AFTER:
        push_known(L, a.retry_after);
        return 1;
    case F_TOKENS_USED:
        push_count(L, a.tokens);
        return 1;
    case F_RECEIVED:
        push_int(L, a.received);
        return 1;
    case F_IS_HEDGE:
        lua_pushboolean(L, a.is_hedge);
        return 1;
    case F_ELAPSED:
        if (a.part == NULL)
            return 0;
        lua_pushnumber(L, mp__seconds(mp__now() - a.part->created));
        return 1;
    default:
        return 0;
    }
}

static int general_field(lua_State *L, const struct mp__hook_case *c, enum field f)
{
    const struct mpp_client *client = client_of(c);
    struct mpp_load load;
    switch (f) {
    case F_HOOK:
        lua_pushstring(L, mp__hook_names[c->which]);
        return 1;
    case F_NOW: /* the simulator's clock where it asks */
        lua_pushnumber(L, mp__seconds(c->core != NULL ? c->core->now : mp__now()));
        return 1;
    case F_ID:
        push_id(L, c);
        return 1;
    case F_TAG:
        push_tag(L, c);
        return 1;
    case F_METHOD:
    case F_PATH:
        return call_field(L, c, f);
    case F_ENDPOINT:
        push_count(L, endpoint_of(c) < 0 ? -1 : endpoint_of(c) + 1);
        return 1;
    case F_ENDPOINTS:
        push_count(L, client != NULL ? (int64_t)mpp_client_endpoints(client) : -1);
        return 1;
    case F_IN_FLIGHT: /* before and after */
        if (client == NULL || endpoint_of(c) < 0)
            return 0;
        mpp_endpoint_load(client, (uint32_t)endpoint_of(c), &load);
        push_int(L, load.in_flight);
        return 1;
    case F_KIND:
        if (c->which != HOOK_GIVEUP)
            return 0;
        push_kind(L, c->kind);
        return 1;
    default:
        return 0;
    }
}

/* The first source that knows the field; else nil. */
static void push_field(lua_State *L, const struct mp__hook_case *c, enum field f)
{
    const struct mpp_part_facts *part = NULL;
    int top = lua_gettop(L);
    if (c->core != NULL && core_field(L, c, f))
        return;
    lua_settop(L, top);
    if (c->offer != NULL && offer_field(L, c->offer, f))
        return;
    if (f != F_KIND || c->which != HOOK_GIVEUP) {
        if (c->core != NULL && c->core->outcome != NULL && outcome_field(L, c->core->outcome, f))
            return;
    }
    if (f >= F_FIRST && f <= F_LAST_ENDPOINT)
        part = part_of(c);
    if (part != NULL && part_field(L, part, f))
        return;
    if (general_field(L, c, f) || attempt_field(L, c, f))
        return;
    lua_settop(L, top);
    lua_pushnil(L);
}

/* ---- the userdata ---- */

static struct mp__hook_case *open_case(lua_State *L, const struct view *v)
{
    struct mp__hook_case *c = v->watch->view == v->number ? v->watch->open : NULL;
    if (c == NULL)
        luaL_error(L,
                   "a view can be read only while its hook runs: take what you need from it then");
    return c;
}

/* Upvalues: the metatable, fields by name. */
static int l_index(lua_State *L)
{
    if (!lua_getmetatable(L, 1) || !lua_rawequal(L, -1, lua_upvalueindex(1)))
        return luaL_argerror(L, 1, "view expected");
    struct mp__hook_case *c = open_case(L, lua_touserdata(L, 1));
    lua_settop(L, 2);
    lua_pushvalue(L, 2);
    switch (lua_rawget(L, lua_upvalueindex(2))) {
    case LUA_TNUMBER:
        push_field(L, c, (enum field)lua_tointeger(L, -1));
        return 1;
    case LUA_TFUNCTION:
        return 1;
    default:
        return luaL_error(L, "a view has no field '%s'", luaL_tolstring(L, 2, NULL));
    }
}

static int l_newindex(lua_State *L)
{
    return luaL_error(L, "a view is read-only; a hook returns what it decides");
}

static int l_tostring(lua_State *L)
{
    lua_pushliteral(L, "moonpool.view");
    return 1;
}

static struct mp__hook_case *check_view(lua_State *L)
{
    if (!lua_getmetatable(L, 1))
        lua_pushnil(L);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &meta_key);
    luaL_argcheck(L, lua_rawequal(L, -1, -2), 1, "view expected: view:header(name)");
    lua_pop(L, 2);
    return open_case(L, lua_touserdata(L, 1));
}

/* view:header(name) -> the reply's header, or nil */
static int l_header(lua_State *L)
{
    struct mp__hook_case *c = check_view(L);
    size_t n = 0;
    const char *name = luaL_checkstring(L, 2);
    struct mp__attempt_facts a;
    if (!attempt_of(c, &a) || c->which == HOOK_BEFORE)
        return 0;
    const char *value = mp__head_find(a.head, a.head_len, name, &n);
    if (value == NULL)
        return 0;
    lua_pushlstring(L, value, n);
    return 1;
}

/* view:load(i) -> in flight, sound, latency, limit of endpoint i (none: its own) */
static int l_load(lua_State *L)
{
    struct mp__hook_case *c = check_view(L);
    const struct mpp_client *client = client_of(c);
    lua_Integer i = luaL_optinteger(L, 2, endpoint_of(c) + 1);
    struct mpp_load load;
    if (client == NULL)
        return 0;
    luaL_argcheck(L, i >= 1 && i <= (lua_Integer)mpp_client_endpoints(client), 2,
                  "no such endpoint");
    mpp_endpoint_load(client, (uint32_t)i - 1, &load);
    push_int(L, load.in_flight);
    lua_pushboolean(L, load.sound);
    push_known(L, load.latency > 0 ? load.latency : -1);
    push_count(L, load.limit > 0 ? (int64_t)load.limit : -1);
    return 4;
}

/* view:row(i) -> the i-th row of the request, 1..count: a text, or a payload as it was given */
static int l_row(lua_State *L)
{
    struct mp__hook_case *c = check_view(L);
    const struct mpp_part_facts *part = part_of(c);
    lua_Integer i = luaL_checkinteger(L, 2);
    uint64_t first = c->offer != NULL ? c->offer->first : part != NULL ? part->info.first : 0;
    uint32_t count = c->offer != NULL ? c->offer->count : part != NULL ? part->info.count : 0;
    luaL_argcheck(L, i >= 1 && i <= (lua_Integer)count, 2, "no such row");
    struct mp__op *op = mp__hook_op(c);
    if (op == NULL || lua_rawgetp(L, LUA_REGISTRYINDEX, op) != LUA_TTABLE)
        return 0;
    if (lua_getfield(L, -1, "rows") != LUA_TTABLE)
        lua_getfield(L, -2, "payloads");
    if (!lua_istable(L, -1))
        return 0;
    lua_rawgeti(L, -1, (lua_Integer)first + i);
    return 1;
}

void mp__push_hook_view(lua_State *L, struct mp__hook_case *c)
{
    struct mp__hook_watch *w = c->hs->rt->watch;
    struct view *v = lua_newuserdatauv(L, sizeof(*v), 0);
    v->watch = w;
    v->number = ++w->view;
    lua_rawgetp(L, LUA_REGISTRYINDEX, &meta_key);
    lua_setmetatable(L, -2);
    w->open = c;
}

void mp__open_hook_view(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"header", l_header}, {"load", l_load}, {"row", l_row}, {NULL, NULL}};
    lua_createtable(L, 0, 5); /* the metatable */
    lua_pushvalue(L, -1);
    lua_newtable(L);
    luaL_setfuncs(L, methods, 0);
    for (size_t i = 0; i < sizeof(fields) / sizeof(*fields); i++) {
        lua_pushinteger(L, fields[i].id);
        lua_setfield(L, -2, fields[i].name);
    }
    lua_pushcclosure(L, l_index, 2);
    lua_setfield(L, -2, "__index");
    lua_pushcfunction(L, l_newindex);
    lua_setfield(L, -2, "__newindex");
    lua_pushcfunction(L, l_tostring);
    lua_setfield(L, -2, "__tostring");
    lua_pushliteral(L, "moonpool.view");
    lua_setfield(L, -2, "__name");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_rawsetp(L, LUA_REGISTRYINDEX, &meta_key);
}

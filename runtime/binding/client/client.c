/*
 * client.c - clients and pools as userdata. The Lua library checks and completes what users write;
 * here only types are checked, and what the engine refuses is raised with its reason.
 */
#include "binding/client/client.h"

#include "binding/binding.h"
#include "binding/hook/hook.h"
#include "moonpool_uv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the engine of this state ---- */

static void on_log(void *arg, enum mp_log_level level, const char *message)
{
    static const char *const names[] = {"trace", "debug", "info", "warn", "error"};
    (void)arg;
    fprintf(stderr, "moonpool: %s: %s\n", names[level], message);
}

static enum mp_log_level log_level(void)
{
    static const char *const names[] = {"trace", "debug", "info", "warn", "error"};
    static const char *const vars[] = {"MOONPOOL_LOG", "PERFORMANCE_CLIENT_LOG_LEVEL", "RUST_LOG"};
    for (size_t v = 0; v < sizeof(vars) / sizeof(*vars); v++) {
        const char *text = getenv(vars[v]);
        for (int i = 0; text != NULL && i < 5; i++)
            if (strcasecmp(text, names[i]) == 0)
                return (enum mp_log_level)i;
    }
    return MP_LOG_WARN;
}

static void on_turn(void *rt)
{
    mp__sched_run(rt);
}

static void engine_closed(void *rtp)
{
    struct mp__rt *rt = rtp;
    mp__rt_release(rt);
}

static void close_engine(struct mp__rt *rt, void *arg)
{
    mp_engine *e = rt->engine;
    (void)arg;
    if (e == NULL)
        return;
    rt->engine = NULL;
    mp__rt_hold(rt);
    mp_engine_on_turn(e, NULL, NULL);
    mp_engine_close(e, engine_closed, rt);
}

static mp_engine *engine_of(lua_State *L)
{
    struct mp__rt *rt = mp__rt(L);
    if (rt->engine != NULL)
        return rt->engine;
    struct mp_config cfg = MP_INIT(struct mp_config);
    cfg.log = on_log;
    cfg.log_level = log_level();
    const char *seed = getenv("MOONPOOL_SEED");
    if (seed != NULL)
        cfg.seed = strtoull(seed, NULL, 10);
    /* First, for an engine that nobody closes would keep the loop from ending. */
    if (mp__rt_on_close(rt, close_engine, NULL) != 0)
        luaL_error(L, "out of memory");
    rt->engine = mp_engine_new_on_loop(rt->loop, &cfg);
    if (rt->engine == NULL) {
        mp__rt_off_close(rt, close_engine, NULL);
        luaL_error(L, "cannot make the engine: out of memory or descriptors");
    }
    mp_engine_on_turn(rt->engine, on_turn, rt);
    return rt->engine;
}

/* ---- pools ---- */

static void read_pool_config(lua_State *L, int t, struct mp_pool_config *c)
{
    *c = MP_INIT(struct mp_pool_config);
    c->max_connections = (uint32_t)mp__opt_number(L, t, "max_connections", 0);
    c->max_idle = (uint32_t)mp__opt_number(L, t, "max_idle", 0);
    c->idle_timeout = mp__opt_number(L, t, "idle_timeout", 0);
    c->max_age = mp__opt_number(L, t, "max_age", 0);
    c->lane_size = (uint32_t)mp__opt_number(L, t, "lane_size", 0);
}

static int l_pool_new(lua_State *L)
{
    struct mp_pool_config c;
    luaL_checktype(L, 1, LUA_TTABLE);
    read_pool_config(L, 1, &c);
    mp_engine *e = engine_of(L);
    struct mp__pool_box *box = lua_newuserdatauv(L, sizeof(*box), 0);
    box->pool = NULL;
    luaL_setmetatable(L, MP__POOL_TYPE);
    box->pool = mp_pool_new(e, &c);
    if (box->pool == NULL)
        return luaL_error(L, "cannot make a pool: out of memory");
    return 1;
}

static int l_pool_gc(lua_State *L)
{
    struct mp__pool_box *box = luaL_checkudata(L, 1, MP__POOL_TYPE);
    if (box->pool != NULL && mp__rt(L) != NULL && mp__rt(L)->engine != NULL)
        mp_pool_unref(box->pool);
    box->pool = NULL;
    return 0;
}

/* ---- clients ---- */

static void read_endpoint(lua_State *L, int t, struct mp_endpoint_config *ep)
{
    memset(ep, 0, sizeof(*ep));
    ep->base_url = mp__opt_string(L, t, "base_url");
    ep->weight = mp__opt_number(L, t, "weight", 1);
    ep->health_path = mp__opt_string(L, t, "health_path");
    ep->health_interval = mp__opt_number(L, t, "health_interval", 0);
    ep->health_timeout = mp__opt_number(L, t, "health_timeout", 0);
    lua_getfield(L, t, "headers");
    ep->headers = mp__opt_headers(L, -1, &ep->nheaders);
    lua_remove(L, -2); /* the list is held by the endpoint's table, the userdata stays */
}

static void read_endpoints(lua_State *L, struct mp_client_config *c)
{
    luaL_argcheck(L, lua_getfield(L, 1, "endpoints") == LUA_TTABLE, 1, "endpoints missing");
    int list = lua_gettop(L);
    size_t n = lua_rawlen(L, list);
    luaL_checkstack(L, (int)n * 2 + 20, "too many endpoints");
    struct mp_endpoint_config *eps = lua_newuserdatauv(L, (n + 1) * sizeof(*eps), 0);
    for (size_t i = 0; i < n; i++) {
        lua_rawgeti(L, list, (lua_Integer)i + 1);
        read_endpoint(L, lua_gettop(L), &eps[i]);
    }
    c->endpoints = eps;
    c->nendpoints = n;
}

static void read_client_config(lua_State *L, struct mp_client_config *c, struct mp_pool_config *pc)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    *c = MP_INIT(struct mp_client_config);
    read_endpoints(L, c);
    lua_getfield(L, 1, "headers");
    c->headers = mp__opt_headers(L, -1, &c->nheaders);
    mp__opt_timeouts(L, 1, &c->timeouts);
    c->proxy_http = mp__opt_string(L, 1, "proxy_http");
    c->proxy_https = mp__opt_string(L, 1, "proxy_https");
    c->no_proxy = mp__opt_string(L, 1, "no_proxy");
    c->accept_encoding = mp__opt_string(L, 1, "accept_encoding");
    c->http_version = (int)mp__opt_number(L, 1, "http_version", 1);
    c->request_id_header = mp__opt_string(L, 1, "request_id_header");
    c->request_id_prefix = mp__opt_string(L, 1, "request_id_prefix");
    c->idempotency_header = mp__opt_string(L, 1, "idempotency_header");
    c->deadline_headers = (uint8_t)mp__opt_bool(L, 1, "deadline_headers", 0);
    c->rate_key = mp__opt_string(L, 1, "rate_key");
    c->tls.no_verify = (uint8_t)!mp__opt_bool(L, 1, "tls_verify", 1);
    c->tls.ca_file = mp__opt_string(L, 1, "tls_ca_file");
    c->tls.cert_file = mp__opt_string(L, 1, "tls_cert_file");
    c->tls.key_file = mp__opt_string(L, 1, "tls_key_file");
    lua_getfield(L, 1, "policy");
    c->policy = luaL_testudata(L, -1, MP__POLICY_TYPE);
    lua_getfield(L, 1, "hooks");
    struct mp__hookset *hooks = mp__hookset_test(L, -1);
    c->hooks = hooks != NULL ? &hooks->c : NULL;
    lua_getfield(L, 1, "pool");
    struct mp__pool_box *pool = luaL_testudata(L, -1, MP__POOL_TYPE);
    if (pool != NULL)
        c->pool = pool->pool;
    else if (lua_istable(L, -1)) {
        read_pool_config(L, lua_gettop(L), pc);
        c->pool_config = pc;
    }
}

/* The set lives as long as the client, its numbers are the client's. Stack: the box. */
static void keep_hooks(lua_State *L, struct mp__client_box *box)
{
    lua_getfield(L, 1, "hooks");
    struct mp__hookset *hooks = mp__hookset_test(L, -1);
    if (hooks != NULL) {
        box->counts = hooks->counts;
        box->counts->refs++;
    }
    lua_setiuservalue(L, -2, 1);
}

static int l_client_new(lua_State *L)
{
    struct mp_client_config c;
    struct mp_pool_config pc;
    read_client_config(L, &c, &pc);
    mp_engine *e = engine_of(L);
    struct mp__client_box *box = lua_newuserdatauv(L, sizeof(*box), 1);
    box->client = NULL;
    box->counts = NULL;
    box->rt = mp__rt(L);
    luaL_setmetatable(L, MP__CLIENT_TYPE);
    keep_hooks(L, box);
    int rc = mp_client_new(e, &c, &box->client);
    if (rc == MP_EINVAL)
        return luaL_error(L, "%s", mp_last_error());
    if (rc != 0)
        return luaL_error(L, "cannot make a client: %s", mp_strerror(rc));
    return 1;
}

static int l_client_close(lua_State *L)
{
    struct mp__client_box *box = luaL_checkudata(L, 1, MP__CLIENT_TYPE);
    mp_client *c = box->client;
    box->client = NULL;
    mp__hook_counts_unref(box->counts);
    box->counts = NULL;
    if (c != NULL && box->rt->engine != NULL)
        mp_client_close(c);
    return 0;
}

static void put_number(lua_State *L, const char *name, double v)
{
    lua_pushnumber(L, v);
    lua_setfield(L, -2, name);
}

static void put_count(lua_State *L, const char *name, uint64_t v)
{
    lua_pushinteger(L, (lua_Integer)v);
    lua_setfield(L, -2, name);
}

static void push_engine_stats(lua_State *L, mp_engine *e)
{
    struct mp_stats s = MP_INIT(struct mp_stats);
    mp_stats(e, &s);
    lua_createtable(L, 0, 16);
    put_count(L, "calls", s.calls);
    put_count(L, "calls_open", s.calls_open);
    put_count(L, "requests", s.requests);
    put_count(L, "attempts", s.attempts);
    put_count(L, "turns", s.turns);
    put_number(L, "longest_turn", s.longest_turn);
    put_count(L, "queued_bytes", s.queued_bytes);
    put_count(L, "connections_opened", s.connections_opened);
    put_count(L, "connections_reused", s.connections_reused);
    put_count(L, "connections_closed", s.connections_closed);
    put_count(L, "connections_open", s.connections_open);
    put_count(L, "tcp_retransmits", s.tcp_retransmits);
}

static void push_latency(lua_State *L, const struct mp_client_stats *s)
{
    lua_createtable(L, 0, 4);
    if (s->p50 >= 0) { /* nothing was answered lately: no percentiles */
        put_number(L, "p50", s->p50);
        put_number(L, "p90", s->p90);
        put_number(L, "p95", s->p95);
        put_number(L, "p99", s->p99);
    }
    lua_setfield(L, -2, "latency");
}

static void push_pool_stats(lua_State *L, const struct mp_client_stats *s)
{
    lua_createtable(L, 0, 8);
    put_count(L, "opened", s->connections_opened);
    put_count(L, "reused", s->connections_reused);
    put_count(L, "refused", s->connects_refused);
    put_count(L, "dropped", s->resets);
    put_count(L, "open", s->connections_open);
    put_count(L, "in_flight", s->in_flight);
    put_count(L, "waiting", s->pool_waiting);
    put_count(L, "idle", s->connections_idle);
    put_count(L, "ports_in_use", s->ports_in_use);
    put_count(L, "tcp_retransmits", s->tcp_retransmits);
    put_count(L, "no_local_port", s->no_local_port);
    put_count(L, "timeouts", s->pool_timeouts);
    if (s->pool_wait_p50 >= 0) {
        put_number(L, "wait_p50", s->pool_wait_p50);
        put_number(L, "wait_p99", s->pool_wait_p99);
    }
    lua_setfield(L, -2, "pool");
}

/* What servers take at most, learnt from their refusals. */
static void push_limits(lua_State *L, mp_client *client)
{
    struct mp_size_limit limit = MP_INIT(struct mp_size_limit);
    lua_newtable(L);
    for (uint32_t i = 0; mp_client_limit(client, i, &limit); i++) {
        lua_createtable(L, 0, 4);
        lua_pushstring(L, limit.path);
        lua_setfield(L, -2, "path");
        if (limit.model[0] != '\0') {
            lua_pushstring(L, limit.model);
            lua_setfield(L, -2, "model");
        }
        if (limit.rows > 0)
            put_count(L, "inputs", limit.rows);
        else
            put_count(L, "bytes", limit.bytes);
        lua_pushboolean(L, limit.guessed);
        lua_setfield(L, -2, "guessed");
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
}

static int l_client_stats(lua_State *L)
{
    struct mp__client_box *box = luaL_checkudata(L, 1, MP__CLIENT_TYPE);
    struct mp_client_stats s = MP_INIT(struct mp_client_stats);
    if (box->client == NULL)
        return luaL_error(L, "the client is closed");
    mp_client_stats(box->client, &s);
    lua_createtable(L, 0, 24);
    put_count(L, "calls", s.calls);
    put_count(L, "requests", s.requests);
    put_count(L, "attempts", s.attempts);
    put_count(L, "retries", s.retries);
    put_count(L, "hedges", s.hedges);
    put_count(L, "hedges_won", s.hedges_won);
    put_count(L, "ok", s.ok);
    put_count(L, "failed", s.failed);
    put_count(L, "throttled", s.throttled);
    put_count(L, "rows", s.rows);
    put_count(L, "rows_failed", s.rows_failed);
    put_count(L, "bytes_sent", s.bytes_sent);
    put_count(L, "bytes_received", s.bytes_received);
    put_count(L, "in_flight", s.in_flight);
    put_count(L, "concurrency_limit", s.concurrency_limit);
    put_number(L, "retry_budget", s.retry_budget);
    put_number(L, "paused_for", s.paused_for);
    push_latency(L, &s);
    push_pool_stats(L, &s);
    if (s.hint != NULL) {
        lua_pushstring(L, s.hint);
        lua_setfield(L, -2, "hint");
    }
    push_limits(L, box->client);
    lua_setfield(L, -2, "limits");
    mp__push_hook_stats(L, box->counts);
    lua_setfield(L, -2, "hooks");
    push_engine_stats(L, box->rt->engine);
    lua_setfield(L, -2, "engine");
    return 1;
}

static int l_client_tostring(lua_State *L)
{
    struct mp__client_box *box = luaL_checkudata(L, 1, MP__CLIENT_TYPE);
    lua_pushstring(L, box->client != NULL ? "moonpool client" : "moonpool client (closed)");
    return 1;
}

/* restrict_addresses{address, ...}: see mp_restrict_addresses. */
static int l_restrict_addresses(lua_State *L)
{
    const char *list[64];
    luaL_checktype(L, 1, LUA_TTABLE);
    size_t n = lua_rawlen(L, 1);
    luaL_argcheck(L, n <= 64, 1, "more than 64 addresses");
    luaL_checkstack(L, 70, "addresses");
    for (size_t i = 0; i < n; i++) {
        lua_rawgeti(L, 1, (lua_Integer)i + 1);
        list[i] = lua_tostring(L, -1); /* stays on the stack */
    }
    if (mp_restrict_addresses(list, n) != 0)
        return luaL_error(L, "%s", mp_last_error());
    return 0;
}

void mp__open_client(lua_State *L)
{
    static const luaL_Reg client_meta[] = {{"__gc", l_client_close},
                                           {"__close", l_client_close},
                                           {"__tostring", l_client_tostring},
                                           {NULL, NULL}};
    static const luaL_Reg pool_meta[] = {{"__gc", l_pool_gc}, {"__close", l_pool_gc}, {NULL, NULL}};
    static const luaL_Reg functions[] = {{"client_new", l_client_new},
                                         {"client_close", l_client_close},
                                         {"client_stats", l_client_stats},
                                         {"pool_new", l_pool_new},
                                         {"pool_close", l_pool_gc},
                                         {"restrict_addresses", l_restrict_addresses},
                                         {NULL, NULL}};
    luaL_newmetatable(L, MP__CLIENT_TYPE);
    luaL_setfuncs(L, client_meta, 0);
    luaL_newmetatable(L, MP__POOL_TYPE);
    luaL_setfuncs(L, pool_meta, 0);
    lua_pop(L, 2);
    luaL_setfuncs(L, functions, 0);
    mp__open_policy(L);
    mp__open_result(L);
    mp__open_call(L);
    mp__open_batcher(L);
    mp__open_stream(L);
}

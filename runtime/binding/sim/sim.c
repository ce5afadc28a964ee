/*
 * sim.c - core.simulate(t): one run of the policy core against modelled servers.
 *
 * t is flat and checked by the Lua library (moonpool.simulate): numbers under the names of struct
 * mp__sim, policy = a compiled policy, hooks = a set of hooks of its own (or nil), servers = a list of
 * tables under the names of struct mp__sim_server. The result has the sums, and under `seconds` a list a
 * column.
 */
#include "binding/client/client.h"
#include "binding/binding.h"
#include "binding/hook/hook.h"
#include "sim/sim.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#define MAX_SECONDS 20000 /* of the series; the run may be longer */

/* ---- in ---- */

enum type { DOUBLE, U32, U64, BYTE };

struct name {
    const char *name;
    size_t offset;
    enum type type;
};

#define IN(member, type)                                                                           \
    {                                                                                              \
#member, offsetof(struct mp__sim, member), type                                            \
    }
#define OF(member, type)                                                                           \
    {                                                                                              \
#member, offsetof(struct mp__sim_server, member), type                                     \
    }

static const struct name run_names[] = {
    IN(seed, U64),
    IN(pool, U32),
    IN(rate, DOUBLE),
    IN(concurrency, U32),
    IN(parts, U64),
    IN(duration, DOUBLE),
    IN(rows, U32),
    IN(total_rows, U64),
    IN(tokens, DOUBLE),
    IN(poison_share, DOUBLE),
    IN(attempt_timeout, DOUBLE),
    IN(total_timeout, DOUBLE),
    IN(pool_timeout, DOUBLE),
    IN(max_time, DOUBLE),
    {NULL, 0, DOUBLE},
};

static const struct name server_names[] = {
    OF(weight, DOUBLE),       OF(median, DOUBLE),       OF(sigma, DOUBLE),
    OF(per_row, DOUBLE),      OF(service, U32),         OF(stall_share, DOUBLE),
    OF(stall, DOUBLE),        OF(error_share, DOUBLE),  OF(error_status, U32),
    OF(places, U32),          OF(queue, U32),           OF(rpm, DOUBLE),
    OF(tpm, DOUBLE),          OF(quota_window, DOUBLE), OF(quota_tells, BYTE),
    OF(outage_from, DOUBLE),  OF(outage_to, DOUBLE),    OF(outage, U32),
    OF(outage_delay, DOUBLE), {NULL, 0, DOUBLE},
};

_Static_assert(sizeof(enum mp__sim_outage) == sizeof(uint32_t), "read as one");

static void set(char *at, enum type type, double v)
{
    switch (type) {
    case DOUBLE:
        *(double *)at = v;
        break;
    case U32:
        *(uint32_t *)at = v > 0 ? (uint32_t)fmin(v, UINT32_MAX) : 0;
        break;
    case U64:
        *(uint64_t *)at = v > 0 ? (uint64_t)fmin(v, 9e15) : 0;
        break;
    case BYTE:
        *(uint8_t *)at = v > 0 ? (uint8_t)fmin(v, UINT8_MAX) : 0;
        break;
    }
}

static void read_names(lua_State *L, int t, void *into, const struct name *names)
{
    for (; names->name != NULL; names++)
        set((char *)into + names->offset, names->type, mp__opt_number(L, t, names->name, 0));
}

/* samples = list of seconds: left on the stack in a userdata, which the run needs. */
static void read_samples(lua_State *L, int t, struct mp__sim_server *s)
{
    if (lua_getfield(L, t, "samples") == LUA_TNIL)
        return;
    luaL_checktype(L, -1, LUA_TTABLE);
    lua_Integer n = luaL_len(L, -1);
    luaL_argcheck(L, n >= 1 && n <= 10000000, 1, "samples: 1 to 10,000,000 numbers expected");
    double *v = lua_newuserdatauv(L, (size_t)n * sizeof(*v), 0);
    for (lua_Integer i = 0; i < n; i++) {
        lua_rawgeti(L, -2, i + 1);
        v[i] = luaL_checknumber(L, -1);
        lua_pop(L, 1);
    }
    s->samples = v;
    s->nsamples = (uint32_t)n;
}

static void read_servers(lua_State *L, struct mp__sim *sim)
{
    luaL_checktype(L, (lua_getfield(L, 1, "servers"), -1), LUA_TTABLE);
    int list = lua_gettop(L);
    lua_Integer n = luaL_len(L, list);
    luaL_argcheck(L, n >= 1 && n <= MP__SIM_SERVERS, 1, "1 to 16 servers expected");
    luaL_checkstack(L, 4 * MP__SIM_SERVERS, NULL);
    for (lua_Integer i = 0; i < n; i++) {
        lua_rawgeti(L, list, i + 1);
        luaL_checktype(L, -1, LUA_TTABLE);
        int t = lua_gettop(L);
        read_names(L, t, &sim->servers[i], server_names);
        read_samples(L, t, &sim->servers[i]);
    }
    sim->nservers = (uint32_t)n;
}

/* ---- out ---- */

static void put(lua_State *L, const char *name, double v)
{
    if (v == floor(v) && fabs(v) < 9e15)
        lua_pushinteger(L, (lua_Integer)v);
    else
        lua_pushnumber(L, v);
    lua_setfield(L, -2, name);
}

static void put_seconds(lua_State *L, const struct mp__sim *sim, double makespan)
{
    static const char *const names[] = {"ok",    "failed", "attempts", "throttled", "running",
                                        "limit", "tokens", "p50",      "p99",       NULL};
    uint32_t n = makespan + 1 < sim->nseconds ? (uint32_t)makespan + 1 : sim->nseconds;
    lua_createtable(L, 0, 9);
    for (int k = 0; names[k] != NULL; k++) {
        lua_createtable(L, (int)n, 0);
        for (uint32_t i = 0; i < n; i++) {
            const struct mp__sim_second *s = &sim->seconds[i];
            double v[] = {s->ok,    s->failed, s->attempts, s->throttled, s->running,
                          s->limit, s->tokens, s->p50,      s->p99};
            lua_pushnumber(L, v[k]);
            lua_rawseti(L, -2, (lua_Integer)i + 1);
        }
        lua_setfield(L, -2, names[k]);
    }
    lua_setfield(L, -2, "seconds");
}

static void put_kinds(lua_State *L, const struct mp__sim_result *r)
{
    lua_newtable(L);
    for (int k = 0; k < MP_KIND_COUNT; k++)
        if (r->kinds[k] > 0)
            put(L, mp_kind_name((enum mp_kind)k), (double)r->kinds[k]);
    lua_setfield(L, -2, "kinds");
}

/* As text: a hash of 64 bits fits no double. */
static void put_trace(lua_State *L, uint64_t trace)
{
    char text[24];
    snprintf(text, sizeof(text), "%016llx", (unsigned long long)trace);
    lua_pushstring(L, text);
    lua_setfield(L, -2, "trace");
}

static void put_servers(lua_State *L, const struct mp__sim *sim, const struct mp__sim_result *r)
{
    lua_createtable(L, (int)sim->nservers, 0);
    for (uint32_t i = 0; i < sim->nservers; i++) {
        lua_pushinteger(L, (lua_Integer)r->server_attempts[i]);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    lua_setfield(L, -2, "server_attempts");
}

static void put_result(lua_State *L, const struct mp__sim_result *r)
{
    lua_createtable(L, 0, 32);
    put(L, "requests", (double)r->parts);
    put(L, "ok", (double)r->ok);
    put(L, "failed", (double)(r->failed + r->cut));
    put(L, "rows_ok", (double)r->rows_ok);
    put(L, "rows_failed", (double)r->rows_failed);
    put(L, "attempts", (double)r->attempts);
    put(L, "first_attempts", (double)r->first);
    put(L, "retries", (double)r->retries);
    put(L, "hedges", (double)r->hedges);
    put(L, "aborted", (double)r->aborted);
    put(L, "throttled", (double)r->throttled);
    put(L, "splits", (double)r->splits);
    put(L, "parked", (double)r->parked);
    put(L, "tokens", r->tokens);
    put(L, "time", r->makespan);
    if (r->ok > 0) {
        put(L, "p50", r->p50);
        put(L, "p90", r->p90);
        put(L, "p99", r->p99);
        put(L, "p999", r->p999);
        put(L, "max", r->max);
    }
    lua_pushboolean(L, r->unfinished);
    lua_setfield(L, -2, "unfinished");
    if (r->violations > 0) {
        lua_pushstring(L, r->violation);
        lua_setfield(L, -2, "violation");
    }
    put_trace(L, r->trace);
    put_kinds(L, r);
}

/* ---- the call ---- */

static int interrupted(void *arg)
{
    return mp__interrupted(arg);
}

static struct mp__hookset *hooks_of(lua_State *L)
{
    if (lua_getfield(L, 1, "hooks") == LUA_TNIL)
        return NULL;
    struct mp__hookset *hs = mp__hookset_test(L, -1);
    luaL_argcheck(L, hs != NULL, 1, "hooks: a set of hooks expected");
    hs->alone = 1;
    return hs;
}

static int l_simulate(lua_State *L)
{
    struct mp__sim sim = {.stop = interrupted, .stop_arg = mp__rt(L)};
    struct mp__sim_result r;
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    lua_getfield(L, 1, "policy");
    sim.policy = *(const struct mp_policy *)luaL_checkudata(L, 2, MP__POLICY_TYPE);
    struct mp__hookset *hs = hooks_of(L);
    sim.hooks = hs != NULL ? &hs->c.core : NULL;
    read_names(L, 1, &sim, run_names);
    read_servers(L, &sim);
    double series = sim.max_time > 0 && sim.max_time < MAX_SECONDS ? sim.max_time : MAX_SECONDS;
    sim.nseconds = (uint32_t)series + 1;
    sim.seconds = lua_newuserdatauv(L, sim.nseconds * sizeof(*sim.seconds), 0);
    int err = mp__sim_run(&sim, &r);
    if (err != MP_OK)
        return luaL_error(L, "simulate: %s", mp_strerror(err));
    put_result(L, &r);
    put_servers(L, &sim, &r);
    put_seconds(L, &sim, r.makespan);
    mp__push_hook_stats(L, hs != NULL ? hs->counts : NULL);
    lua_setfield(L, -2, "hooks");
    return 1;
}

void mp__open_sim(lua_State *L)
{
    static const luaL_Reg functions[] = {{"simulate", l_simulate}, {NULL, NULL}};
    luaL_setfuncs(L, functions, 0);
}

/*
 * policy.c - policies: a table of plain fields compiled to the C struct, once.
 *
 * core.policy(preset, {["retry.max_attempts"] = 6, ...}): names are those of struct mp_policy with
 * dots; the Lua library translates what users write.
 */
#include "binding/client/client.h"

#include <stddef.h>
#include <string.h>

enum field_type { F_U32, F_U64, F_DOUBLE, F_BYTE };

struct field {
    const char *name;
    size_t offset;
    enum field_type type;
};

#define FIELD(group, member, type)                                                                 \
    {                                                                                              \
#group "." #member,                                                                        \
            offsetof(struct mp_policy, group) + offsetof(struct mp_##group##_policy, member), type \
    }

static const struct field fields[] = {
    FIELD(retry, max_attempts, F_U32),
    FIELD(retry, base, F_DOUBLE),
    FIELD(retry, throttle_base, F_DOUBLE),
    FIELD(retry, cap, F_DOUBLE),
    FIELD(retry, max_server_delay, F_DOUBLE),
    FIELD(retry, budget, F_DOUBLE),
    FIELD(retry, reserve, F_DOUBLE),
    FIELD(retry, budget_cap, F_DOUBLE),
    FIELD(retry, transport, F_BYTE),
    FIELD(retry, respect_retry_after, F_BYTE),
    FIELD(retry, fail_fast, F_BYTE),
    FIELD(hedge, delay, F_DOUBLE),
    FIELD(hedge, factor, F_DOUBLE),
    FIELD(hedge, percentile, F_DOUBLE),
    FIELD(hedge, budget, F_DOUBLE),
    FIELD(hedge, reserve, F_DOUBLE),
    FIELD(rate, rpm, F_DOUBLE),
    FIELD(rate, tpm, F_DOUBLE),
    FIELD(rate, share, F_DOUBLE),
    FIELD(concurrency, mode, F_U32),
    FIELD(concurrency, limit, F_U32),
    FIELD(concurrency, max, F_U32),
    FIELD(concurrency, min, F_U32),
    FIELD(batch, size, F_U32),
    FIELD(batch, chars, F_U64),
    FIELD(batch, tokens, F_U64),
    FIELD(batch, bytes, F_U64),
    FIELD(batch, max_wait, F_DOUBLE),
    FIELD(breaker, enabled, F_U32),
    FIELD(breaker, consecutive, F_U32),
    FIELD(breaker, ratio, F_DOUBLE),
    FIELD(breaker, min_requests, F_U32),
    FIELD(breaker, window, F_DOUBLE),
    FIELD(breaker, open, F_DOUBLE),
    FIELD(breaker, open_max, F_DOUBLE),
    FIELD(route, mode, F_U32),
    FIELD(route, eject, F_U32),
};

static void set_field(struct mp_policy *p, const struct field *f, double v)
{
    char *at = (char *)p + f->offset;
    switch (f->type) {
    case F_U32:
        *(uint32_t *)at = v >= UINT32_MAX ? UINT32_MAX : (uint32_t)v;
        break;
    case F_U64:
        *(uint64_t *)at = v >= 9e18 ? UINT64_MAX : (uint64_t)v;
        break;
    case F_DOUBLE:
        *(double *)at = v;
        break;
    case F_BYTE:
        *(uint8_t *)at = (uint8_t)v;
        break;
    }
}

static double get_field(const struct mp_policy *p, const struct field *f)
{
    const char *at = (const char *)p + f->offset;
    switch (f->type) {
    case F_U32:
        return *(const uint32_t *)at;
    case F_U64:
        return (double)*(const uint64_t *)at;
    case F_DOUBLE:
        return *(const double *)at;
    default:
        return *(const uint8_t *)at;
    }
}

/* on = {[status] = true or false}; "clear" empties the set first. */
static void read_statuses(lua_State *L, int t, struct mp_policy *p)
{
    if (lua_getfield(L, t, "statuses") == LUA_TTABLE) {
        if (mp__opt_bool(L, lua_gettop(L), "clear", 0))
            memset(p->retry.on, 0, sizeof(p->retry.on));
        lua_pushnil(L);
        while (lua_next(L, -2) != 0) {
            if (lua_isinteger(L, -2))
                mp_status_set(p->retry.on, (unsigned)lua_tointeger(L, -2), lua_toboolean(L, -1));
            lua_pop(L, 1);
        }
    }
    lua_pop(L, 1);
}

static void read_fields(lua_State *L, int t, struct mp_policy *p)
{
    for (size_t i = 0; i < sizeof(fields) / sizeof(*fields); i++) {
        int type = lua_getfield(L, t, fields[i].name);
        if (type == LUA_TNUMBER)
            set_field(p, &fields[i], lua_tonumber(L, -1));
        else if (type == LUA_TBOOLEAN)
            set_field(p, &fields[i], lua_toboolean(L, -1));
        else if (type != LUA_TNIL)
            luaL_error(L, "%s: number expected, got %s", fields[i].name, luaL_typename(L, -1));
        lua_pop(L, 1);
    }
    read_statuses(L, t, p);
}

/* core.policy(preset name or policy userdata, fields) */
static int l_policy(lua_State *L)
{
    static const char *const presets[] = {"job", "gateway", "interactive", "none", NULL};
    const struct mp_policy *base = luaL_testudata(L, 1, MP__POLICY_TYPE);
    int preset = base != NULL ? 0 : luaL_checkoption(L, 1, "job", presets);
    luaL_checktype(L, 2, LUA_TTABLE);
    struct mp_policy *p = lua_newuserdatauv(L, sizeof(*p), 1);
    if (base != NULL)
        *p = *base;
    else
        mp_policy_init(p, (enum mp_preset)preset);
    luaL_setmetatable(L, MP__POLICY_TYPE);
    read_fields(L, 2, p);
    return 1;
}

/* core.policy_fields(policy) -> {["retry.max_attempts"] = 6, ...}, statuses = sorted list */
static int l_policy_fields(lua_State *L)
{
    const struct mp_policy *p = luaL_checkudata(L, 1, MP__POLICY_TYPE);
    lua_createtable(L, 0, 48);
    for (size_t i = 0; i < sizeof(fields) / sizeof(*fields); i++) {
        lua_pushnumber(L, get_field(p, &fields[i]));
        lua_setfield(L, -2, fields[i].name);
    }
    lua_newtable(L);
    for (unsigned s = 0, n = 0; s < MP_STATUS_WORDS * 32; s++)
        if (mp_status_has(p->retry.on, s)) {
            lua_pushinteger(L, s);
            lua_rawseti(L, -2, ++n);
        }
    lua_setfield(L, -2, "statuses");
    return 1;
}

void mp__open_policy(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"policy", l_policy}, {"policy_fields", l_policy_fields}, {NULL, NULL}};
    luaL_newmetatable(L, MP__POLICY_TYPE);
    lua_pop(L, 1);
    luaL_setfuncs(L, functions, 0);
}

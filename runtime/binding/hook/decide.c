/* decide.c - what the policy core asks: classify, retry, hedge, route, gates, on_giveup. */
#include "binding/hook/hook.h"

#include <math.h>
#include <string.h>

#define LONGEST 1e7  /* s: more is taken for a mistake */
#define GATE    0.05 /* s until a shut gate is asked again; a slot that frees asks at once */

/* ---- reading verdicts ---- */

int mp__hook_number(lua_State *L, int idx, double least, double most, double *out)
{
    if (lua_isnil(L, idx))
        return 0;
    if (lua_type(L, idx) != LUA_TNUMBER)
        return -1;
    double v = lua_tonumber(L, idx);
    if (!(v >= least && v <= most))
        return -1;
    *out = v;
    return 1;
}

static int is_word(lua_State *L, int idx, const char *word)
{
    return lua_type(L, idx) == LUA_TSTRING && strcmp(lua_tostring(L, idx), word) == 0;
}

static int says_nothing(lua_State *L, int idx)
{
    return lua_isnil(L, idx) || is_word(L, idx, "default");
}

/* nil; "retry"[, delay], true[, delay], a delay; "fail", false */
static const char *read_retry(lua_State *L, struct mp__hook_case *c, int i)
{
    static const char expected[] = "\"retry\" and a delay, \"fail\" or nil";
    int yes = is_word(L, i, "retry") || (lua_isboolean(L, i) && lua_toboolean(L, i));
    if (says_nothing(L, i))
        return NULL;
    if (is_word(L, i, "fail") || (lua_isboolean(L, i) && !yes)) {
        c->out.answer = MPP_NO;
        return NULL;
    }
    if (mp__hook_number(L, yes ? i + 1 : i, 0, LONGEST, &c->out.number) < (yes ? 0 : 1))
        return expected;
    c->out.answer = MPP_YES;
    return NULL;
}

/* nil; a delay; false */
static const char *read_hedge(lua_State *L, struct mp__hook_case *c, int i)
{
    if (says_nothing(L, i))
        return NULL;
    if (is_word(L, i, "hedge"))
        i++;
    c->out.answer = MPP_YES;
    if (lua_isboolean(L, i) && !lua_toboolean(L, i))
        c->out.answer = MPP_NO;
    else if (mp__hook_number(L, i, 0, LONGEST, &c->out.number) != 1)
        return "a delay in seconds, false or nil";
    return NULL;
}

/* nil; i; "route", i */
static const char *read_route(lua_State *L, struct mp__hook_case *c, int i)
{
    double n = mpp_client_endpoints(c->core->client);
    if (says_nothing(L, i))
        return NULL;
    if (is_word(L, i, "route"))
        i++;
    if (mp__hook_number(L, i, 1, n, &c->out.number) != 1 || floor(c->out.number) != c->out.number)
        return "the number of an endpoint or nil";
    c->out.answer = MPP_YES;
    return NULL;
}

/* nil, true, 0: go; a number: wait; false: wait a little; "wait", s; "fail" */
static const char *read_gate(lua_State *L, struct mp__hook_case *c, int i)
{
    int breaker = c->which == HOOK_BREAKER; /* true means open, that is: do not go */
    if (says_nothing(L, i) || (lua_isboolean(L, i) && lua_toboolean(L, i) != breaker))
        return NULL;
    c->out.number = GATE;
    if (is_word(L, i, "fail")) {
        c->out.number = -(double)(breaker ? MP_KIND_BREAKER_OPEN : MP_KIND_BUDGET);
    } else if (!lua_isboolean(L, i)) {
        if (is_word(L, i, "wait"))
            i++;
        if (mp__hook_number(L, i, 0, LONGEST, &c->out.number) != 1)
            return "seconds to wait, \"fail\" or nil";
    }
    c->out.answer = c->out.number == 0 ? MPP_DEFAULT : MPP_NO;
    return NULL;
}

/* nil; the most that may be in flight there */
static const char *read_concurrency(lua_State *L, struct mp__hook_case *c, int i)
{
    if (says_nothing(L, i))
        return NULL;
    if (mp__hook_number(L, i, 1, 1e9, &c->out.number) != 1)
        return "a number of requests or nil";
    c->out.answer = c->core->in_flight >= c->out.number ? MPP_NO : MPP_DEFAULT;
    c->out.number = GATE;
    return NULL;
}

/* nil; a class[, delay]. A failure has nothing to deliver, a good reply has been decoded. */
static const char *read_classify(lua_State *L, struct mp__hook_case *c, int i)
{
    static const char *const names[] = {"ok", "throttled", "transient", "fatal", "cancelled"};
    int cls = -1;
    if (says_nothing(L, i))
        return NULL;
    for (int k = 0; k < 5 && cls < 0; k++)
        if (is_word(L, i, names[k]))
            cls = k;
    if (cls < 0 || mp__hook_number(L, i + 1, 0, LONGEST, &c->out.number) < 0)
        return "\"throttled\", \"transient\", \"fatal\" and perhaps a delay, or nil";
    if ((cls == MPP_OK) != (c->core->cls == MPP_OK))
        return cls == MPP_OK ? "a class of failures (a failed request cannot become \"ok\")"
                             : "\"ok\" or nil for a good reply (after_response can refuse one)";
    c->out.cls = (enum mpp_class)cls;
    c->out.answer = MPP_YES;
    return NULL;
}

/* ---- asking ---- */

static int ask(struct mp__hook_case *c, void *arg, enum mp__hook which, const struct mpp_view *v,
               const char *(*read)(lua_State *, struct mp__hook_case *, int))
{
    memset(c, 0, sizeof(*c));
    c->hs = arg;
    c->which = which;
    c->core = v;
    c->call = c->hs->alone ? NULL : v->call_user;
    c->read = read;
    return mp__hook_ask(c) && c->out.answer != MPP_DEFAULT;
}

static enum mpp_verdict on_classify(void *arg, const struct mpp_view *v, enum mpp_class *cls,
                                    double *delay)
{
    struct mp__hook_case c;
    if (!ask(&c, arg, HOOK_CLASSIFY, v, read_classify))
        return MPP_DEFAULT;
    *cls = c.out.cls;
    *delay = c.out.number;
    return MPP_YES;
}

static enum mpp_verdict on_retry(void *arg, const struct mpp_view *v, double *delay)
{
    struct mp__hook_case c;
    if (!ask(&c, arg, HOOK_RETRY, v, read_retry))
        return MPP_DEFAULT;
    if (c.out.number >= 0)
        *delay = c.out.number;
    return c.out.answer;
}

static enum mpp_verdict on_hedge(void *arg, const struct mpp_view *v, double *delay)
{
    struct mp__hook_case c;
    if (!ask(&c, arg, HOOK_HEDGE, v, read_hedge))
        return MPP_DEFAULT;
    if (c.out.answer == MPP_YES)
        *delay = c.out.number > 0.001 ? c.out.number : 0.001;
    return c.out.answer;
}

static enum mpp_verdict on_route(void *arg, const struct mpp_view *v, uint32_t *endpoint)
{
    struct mp__hook_case c;
    if (!ask(&c, arg, HOOK_ROUTE, v, read_route))
        return MPP_DEFAULT;
    *endpoint = (uint32_t)c.out.number - 1;
    return MPP_YES;
}

/* Three places, one gate; rate is last, so that what it lets through goes. */
static enum mpp_verdict on_gate(void *arg, const struct mpp_view *v, double *wait)
{
    static const enum mp__hook gates[] = {HOOK_CONCURRENCY, HOOK_BREAKER, HOOK_RATE};
    struct mp__hookset *hs = arg;
    struct mp__hook_case c;
    for (int i = 0; i < 3; i++) {
        if (!mp__hook_has(hs, gates[i]) ||
            !ask(&c, arg, gates[i], v, gates[i] == HOOK_CONCURRENCY ? read_concurrency : read_gate))
            continue;
        *wait = c.out.number;
        return MPP_NO;
    }
    return MPP_YES;
}

static void on_giveup(void *arg, const struct mpp_view *v, enum mp_kind kind)
{
    struct mp__hook_case c = {.hs = arg, .which = HOOK_GIVEUP, .core = v, .kind = kind};
    c.call = c.hs->alone ? NULL : v->call_user;
    mp__hook_ask(&c);
}

void mp__hook_decisions(struct mp__hookset *hs)
{
    struct mpp_hooks *h = &hs->c.core;
    if (mp__hook_has(hs, HOOK_CLASSIFY))
        h->classify = on_classify;
    if (mp__hook_has(hs, HOOK_RETRY))
        h->retry = on_retry;
    if (mp__hook_has(hs, HOOK_HEDGE))
        h->hedge = on_hedge;
    if (mp__hook_has(hs, HOOK_ROUTE))
        h->route = on_route;
    if (hs->has & (1u << HOOK_CONCURRENCY | 1u << HOOK_BREAKER | 1u << HOOK_RATE))
        h->rate = on_gate;
    if (mp__hook_has(hs, HOOK_GIVEUP))
        h->on_giveup = on_giveup;
}

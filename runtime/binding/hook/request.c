/* request.c - what the engine asks: batches, token counts, requests, replies. */
#include "binding/hook/hook.h"

#include <math.h>
#include <string.h>

#define MAX_HEADERS 100

/* ---- batch and estimate_tokens ---- */

/* nil; how many of the offered rows go now */
static const char *read_batch(lua_State *L, struct mp__hook_case *c, int i)
{
    int r = mp__hook_number(L, i, 1, UINT32_MAX, &c->out.number);
    if (r == 0)
        return NULL;
    if (r < 0 || floor(c->out.number) != c->out.number)
        return "a number of rows or nil";
    c->out.answer = MPP_YES;
    return NULL;
}

static uint32_t on_batch(void *arg, const struct mp__offer *offer)
{
    struct mp__hook_case c = {.hs = arg, .which = HOOK_BATCH, .offer = offer, .read = read_batch};
    c.call = offer->call;
    return mp__hook_ask(&c) && c.out.answer == MPP_YES ? (uint32_t)c.out.number : 0;
}

static const char *read_tokens(lua_State *L, struct mp__hook_case *c, int i)
{
    int r = mp__hook_number(L, i, 0, 1e12, &c->out.number);
    c->out.answer = r == 1 ? MPP_YES : MPP_DEFAULT;
    return r < 0 ? "a number of tokens or nil" : NULL;
}

static double on_tokens(void *arg, const void *call, uint64_t row)
{
    struct mp__hook_case c = {.hs = arg, .which = HOOK_TOKENS, .row = row, .read = read_tokens};
    c.call = call;
    return mp__hook_ask(&c) && c.out.answer == MPP_YES ? c.out.number : -1;
}

/* ---- before_request ---- */

/* {name = value or false} at t as a list on the stack; NULL, or what was expected. */
static const char *read_headers(lua_State *L, int t, struct mp__rewrite *rw)
{
    struct mp_header *h = lua_newuserdatauv(L, MAX_HEADERS * sizeof(*h), 0);
    rw->headers = h;
    lua_pushnil(L);
    while (lua_next(L, t) != 0) {
        size_t n = 0;
        int type = lua_type(L, -1);
        int off = type == LUA_TBOOLEAN && !lua_toboolean(L, -1);
        if (rw->nheaders == MAX_HEADERS)
            return "at most 100 headers";
        if (lua_type(L, -2) != LUA_TSTRING || (!off && type != LUA_TSTRING && type != LUA_TNUMBER))
            return "headers = {name = string, number or false}";
        /* A number is converted in a copy that stays on the stack with its key's. */
        const char *value = off ? NULL : lua_tolstring(L, -1, &n);
        if (value != NULL && strlen(value) != n)
            return "a header without a NUL byte";
        h[rw->nheaders++] = (struct mp_header){lua_tostring(L, -2), value};
        luaL_checkstack(L, 4, NULL);
        lua_pushvalue(L, -2); /* the value stays below, alive */
    }
    return NULL;
}

static const char *read_rewrite(lua_State *L, int t, struct mp__rewrite *rw)
{
    lua_pushnil(L);
    while (lua_next(L, t) != 0) {
        const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "";
        if (strcmp(name, "headers") != 0 && strcmp(name, "body") != 0 && strcmp(name, "path") != 0)
            return "a table of headers, body and path, or nil";
        lua_pop(L, 1);
    }
    lua_getfield(L, t, "path");
    lua_getfield(L, t, "body");
    if ((!lua_isnil(L, -2) && lua_type(L, -2) != LUA_TSTRING) ||
        (!lua_isnil(L, -1) && lua_type(L, -1) != LUA_TSTRING))
        return "strings for body and path";
    rw->path = lua_tostring(L, -2);
    rw->body = lua_tolstring(L, -1, &rw->body_len);
    switch (lua_getfield(L, t, "headers")) {
    case LUA_TNIL:
        return NULL;
    case LUA_TTABLE:
        return read_headers(L, lua_gettop(L), rw);
    default:
        return "headers = {name = value}";
    }
}

/* nil; {headers = {name = value or false}, body = text, path = text} */
static const char *read_before(lua_State *L, struct mp__hook_case *c, int i)
{
    struct mp__rewrite rw = {0};
    if (lua_isnil(L, i))
        return NULL;
    if (!lua_istable(L, i))
        return "a table of headers, body and path, or nil";
    const char *expected = read_rewrite(L, i, &rw);
    if (expected != NULL)
        return expected;
    if (rw.path != NULL && rw.path[0] != '/')
        return "a path that begins with /";
    c->plain = mp__hook_rewrite(c->attempt, &rw) != 0;
    return c->plain ? mp_last_error() : NULL;
}

static void on_before(void *arg, struct mp__attempt *a)
{
    struct mp__attempt_facts facts;
    struct mp__hook_case c = {.hs = arg, .which = HOOK_BEFORE, .attempt = a, .read = read_before};
    mp__hook_attempt(a, &facts);
    c.call = facts.call;
    mp__hook_ask(&c);
}

/* ---- after_response ---- */

/* nil, true; "fail"[, why]; "body", text */
static const char *read_after(lua_State *L, struct mp__hook_case *c, int i)
{
    static const char expected[] = "\"fail\" and why, \"body\" and a text, or nil";
    size_t n = 0;
    int rc;
    if (lua_isnil(L, i) || (lua_isboolean(L, i) && lua_toboolean(L, i)))
        return NULL;
    if (lua_type(L, i) != LUA_TSTRING)
        return expected;
    const char *word = lua_tostring(L, i);
    const char *text = lua_type(L, i + 1) == LUA_TSTRING ? lua_tolstring(L, i + 1, &n) : NULL;
    if (strcmp(word, "fail") == 0)
        rc = mp__hook_refuse(c->attempt, text != NULL ? text : "after_response refused the reply");
    else if (strcmp(word, "body") == 0 && text != NULL)
        rc = mp__hook_replace(c->attempt, text, n);
    else
        return expected;
    c->plain = rc != 0;
    return c->plain ? mp_last_error() : NULL;
}

static void on_after(void *arg, struct mp__attempt *a)
{
    struct mp__attempt_facts facts;
    struct mp__hook_case c = {.hs = arg, .which = HOOK_AFTER, .attempt = a, .read = read_after};
    mp__hook_attempt(a, &facts);
    c.call = facts.call;
    mp__hook_ask(&c);
}

void mp__hook_requests(struct mp__hookset *hs)
{
    struct mp__hooks *h = &hs->c;
    if (mp__hook_has(hs, HOOK_BATCH))
        h->batch = on_batch;
    if (mp__hook_has(hs, HOOK_TOKENS))
        h->tokens = on_tokens;
    if (mp__hook_has(hs, HOOK_BEFORE))
        h->before = on_before;
    if (mp__hook_has(hs, HOOK_AFTER))
        h->after = on_after;
}

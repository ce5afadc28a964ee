/*
 * batcher.c - the engine's batcher for Lua: plans made once, rows submitted many times.
 *
 * A plan is a spec without rows, read once and kept as the engine takes it; a submission costs its
 * rows. The batcher's pointer lives in a counted struct, because submissions that nobody waits for any
 * more may outlive the userdata.
 */
#include "binding/client/client.h"
#include "binding/value/matrix.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define BATCHER_TYPE "moonpool.core.batcher"
#define PLAN_TYPE    "moonpool.core.plan"
#define WAITER_TYPE  "moonpool.core.waiter"
#define FEW          16 /* rows that need no memory of their own while they are read */

/* One submission: counted, a reference is its waiter's (a userdata on the stack of who waits, for a
 * coroutine may be closed where it stands), one the engine's. */
struct submission {
    struct mp__wait wait; /* first: the wait's cancel finds it by this */
    struct mp__watch watch;
    struct mp__gatherer *gatherer;
    struct mp_result *result;
    uint64_t ticket;
    int refs, done;
};

void mp__gatherer_unref(struct mp__gatherer *g)
{
    if (--g->refs == 0)
        free(g);
}

static void submission_unref(struct submission *s)
{
    if (--s->refs > 0)
        return;
    mp__token_unwatch(&s->watch);
    mp_result_free(s->result);
    mp__gatherer_unref(s->gatherer);
    free(s);
}

/* ---- from the engine's turn ---- */

static void on_done(void *arg, const struct mp_result *result)
{
    struct submission *s = arg;
    s->done = 1;
    mp__token_unwatch(&s->watch);
    if (s->refs > 1 && s->gatherer->rt->engine != NULL) {
        s->result = mp_result_keep(result);
        mp__wait_wake(s->gatherer->rt, &s->wait);
    }
    submission_unref(s);
}

static void cancel(struct submission *s)
{
    mp__token_unwatch(&s->watch);
    if (!s->done)
        mp__gather_cancel(s->gatherer, s->ticket);
}

static void on_cancel(struct mp__wait *w)
{
    cancel((struct submission *)w);
}

static int l_waiter_gc(lua_State *L)
{
    struct submission **box = luaL_checkudata(L, 1, WAITER_TYPE);
    struct submission *s = *box;
    *box = NULL;
    if (s != NULL) {
        cancel(s);
        submission_unref(s);
    }
    return 0;
}

static void on_token(struct mp__watch *watch)
{
    cancel((struct submission *)((char *)watch - offsetof(struct submission, watch)));
}

/* ---- plans ---- */

/* batcher_plan(client, spec): the spec without rows, ready for submissions. Its strings are kept. */
static int l_batcher_plan(lua_State *L)
{
    struct mp__client_box *box = luaL_checkudata(L, 1, MP__CLIENT_TYPE);
    luaL_checktype(L, 2, LUA_TTABLE);
    lua_settop(L, 2);
    struct mp__plan *p = lua_newuserdatauv(L, sizeof(*p), 3); /* at 3 */
    memset(p, 0, sizeof(*p));
    luaL_setmetatable(L, PLAN_TYPE);
    lua_newtable(L); /* the anchor, at 4 */
    p->request = MP_INIT(struct mp_request);
    mp__read_spec(L, 2, 4, &p->request, &p->vectors, &p->timeouts);
    lua_setiuservalue(L, 3, 3); /* the list of headers */
    lua_pushvalue(L, 2);
    lua_setiuservalue(L, 3, 2); /* and what the strings are of */
    lua_pushvalue(L, 4);
    lua_setiuservalue(L, 3, 1);
    p->request.client = box->client;
    p->request.flags &= ~(uint32_t)MP_BORROW;
    lua_settop(L, 3);
    return 1;
}

/* ---- batchers ---- */

static int l_batcher_gc(lua_State *L)
{
    struct mp__gatherer **box = luaL_checkudata(L, 1, BATCHER_TYPE);
    struct mp__gatherer *g = *box;
    *box = NULL;
    if (g == NULL)
        return 0;
    if (g->batcher != NULL && g->rt->engine != NULL)
        mp_batcher_close(g->batcher);
    g->batcher = NULL;
    mp__gatherer_unref(g);
    return 0;
}

struct mp__gatherer *mp__check_gatherer(lua_State *L, int idx)
{
    struct mp__gatherer **box = luaL_checkudata(L, idx, BATCHER_TYPE);
    luaL_argcheck(L, *box != NULL, idx, "the batcher is closed");
    return *box;
}

const struct mp__plan *mp__check_plan(lua_State *L, int idx)
{
    return luaL_checkudata(L, idx, PLAN_TYPE);
}

int mp__gather(struct mp__gatherer *g, const struct mp__plan *p, const struct mp_str *rows,
               size_t n, const struct mp_gather *how, double total, mp_done_fn *done, void *arg,
               uint64_t *ticket)
{
    struct mp_request q = p->request;
    struct mp_timeouts timeouts = p->timeouts;
    if (g->batcher == NULL || g->rt->engine == NULL)
        return MP_ECLOSED;
    timeouts.total = total;
    q.timeouts = &timeouts;
    q.vectors = &p->vectors;
    q.rows = rows;
    q.nrows = n;
    q.done = done;
    q.arg = arg;
    return mp_batcher_submit(g->batcher, &q, how, ticket);
}

void mp__gather_cancel(struct mp__gatherer *g, uint64_t ticket)
{
    if (g->batcher != NULL && g->rt->engine != NULL)
        mp_batcher_cancel(g->batcher, ticket);
}

/* batcher_new(client, {slots=, size=, tokens=, chars=, bytes=, max_wait=, max_waiting=, cache_bytes=,
 * single_flight=}) */
static int l_batcher_new(lua_State *L)
{
    struct mp__client_box *client = luaL_checkudata(L, 1, MP__CLIENT_TYPE);
    luaL_checktype(L, 2, LUA_TTABLE);
    struct mp_batcher_config c = MP_INIT(struct mp_batcher_config);
    c.slots = (uint32_t)mp__opt_number(L, 2, "slots", 0);
    c.batch.size = (uint32_t)mp__opt_number(L, 2, "size", 0);
    c.batch.chars = (uint64_t)mp__opt_number(L, 2, "chars", 0);
    c.batch.tokens = (uint64_t)mp__opt_number(L, 2, "tokens", 0);
    c.batch.bytes = (uint64_t)mp__opt_number(L, 2, "bytes", 0);
    c.batch.max_wait = mp__opt_number(L, 2, "max_wait", 0);
    c.max_waiting = (uint32_t)mp__opt_number(L, 2, "max_waiting", 0);
    c.cache_bytes = (uint64_t)mp__opt_number(L, 2, "cache_bytes", 0);
    int flight = mp__opt_bool(L, 2, "single_flight", -1);
    c.single_flight = flight < 0 ? MP_FLIGHT_CACHE : flight ? MP_FLIGHT_ON : MP_FLIGHT_OFF;
    luaL_argcheck(L, client->client != NULL, 1, "the client is closed");
    struct mp__gatherer **box = lua_newuserdatauv(L, sizeof(*box), 1);
    *box = NULL;
    luaL_setmetatable(L, BATCHER_TYPE);
    lua_pushvalue(L, 1);
    lua_setiuservalue(L, -2, 1);
    struct mp__gatherer *g = calloc(1, sizeof(*g));
    if (g == NULL)
        return luaL_error(L, "out of memory");
    g->rt = client->rt;
    g->refs = 1;
    *box = g;
    if (mp_batcher_new(client->client, &c, &g->batcher) != 0)
        return luaL_error(L, "%s", mp_last_error());
    return 1;
}

static void put_count(lua_State *L, const char *name, uint64_t v)
{
    lua_pushinteger(L, (lua_Integer)v);
    lua_setfield(L, -2, name);
}

static int l_batcher_stats(lua_State *L)
{
    struct mp__gatherer *g = mp__check_gatherer(L, 1);
    struct mp_batcher_stats st = MP_INIT(struct mp_batcher_stats);
    if (g->batcher != NULL && g->rt->engine != NULL)
        mp_batcher_stats(g->batcher, &st);
    lua_createtable(L, 0, 16);
    put_count(L, "submissions", st.submissions);
    put_count(L, "rows", st.rows);
    put_count(L, "requests", st.requests);
    put_count(L, "request_rows", st.request_rows);
    put_count(L, "largest", st.largest);
    put_count(L, "alone", st.alone);
    put_count(L, "dropped", st.dropped);
    put_count(L, "refused", st.refused);
    put_count(L, "hits", st.hits);
    put_count(L, "misses", st.misses);
    put_count(L, "shared", st.shared);
    put_count(L, "cache_bytes", st.cache_bytes);
    put_count(L, "evicted", st.evicted);
    put_count(L, "waiting", st.waiting);
    put_count(L, "busy", st.busy);
    return 1;
}

/* ---- submissions ---- */

static const struct mp_str *read_texts(lua_State *L, int list, struct mp_str *few, size_t n)
{
    struct mp_str *rows = few;
    if (n > FEW)
        rows = lua_newuserdatauv(L, n * sizeof(*rows), 0);
    for (size_t i = 0; i < n; i++) {
        if (lua_rawgeti(L, list, (lua_Integer)i + 1) != LUA_TSTRING)
            luaL_error(L, "input[%d]: string expected, got %s", (int)i + 1, luaL_typename(L, -1));
        rows[i].p = lua_tolstring(L, -1, &rows[i].n); /* the list keeps it; it is copied below */
        lua_pop(L, 1);
    }
    return rows;
}

void mp__push_result(lua_State *L, struct mp_result *r)
{
    struct mp__result_box *box = lua_newuserdatauv(L, sizeof(*box), 0);
    box->result = r;
    luaL_setmetatable(L, MP__RESULT_TYPE);
}

static struct mp_str opt_text(lua_State *L, int idx)
{
    struct mp_str s = {"", 0};
    s.p = luaL_optlstring(L, idx, "", &s.n);
    return s;
}

/* Everything came: matrix, first row, tokens of the prompt and in all (-1: not said), model, attempts,
 * seconds, rows of the shared request. Else nil and the result. */
static int push_outcome(lua_State *L, int status, lua_KContext ctx)
{
    struct submission *s = *(struct submission **)ctx;
    struct mp_result *r = s->result;
    (void)status;
    if (lua_toboolean(L, 10) || r == NULL || r->rows_ok < r->rows || r->matrix == NULL) {
        lua_pushnil(L);
        mp__push_result(L, r);
        s->result = NULL;
        return 2;
    }
    uint32_t attempts = 0;
    float longest = 0;
    for (size_t i = 0; i < r->nexchanges; i++) {
        attempts += r->exchanges[i].attempts;
        if (r->exchanges[i].time > longest)
            longest = r->exchanges[i].time;
    }
    mp_matrix **box = mp__push_matrix_box(L);
    *box = mp_matrix_ref(r->matrix);
    mp__matrix_account(L, *box);
    lua_pushinteger(L, (lua_Integer)r->first_row + 1);
    lua_pushinteger(L, r->prompt_tokens);
    lua_pushinteger(L, r->total_tokens);
    lua_pushstring(L, r->model);
    lua_pushinteger(L, attempts);
    lua_pushnumber(L, (double)longest);
    lua_pushinteger(L, (lua_Integer)mp_matrix_rows(r->matrix));
    submission_unref(s); /* now, not when it is collected */
    *(struct submission **)ctx = NULL;
    return 8;
}

/* Pushes its box. */
static struct submission **submission_new(lua_State *L, struct mp__gatherer *g)
{
    struct submission **box = lua_newuserdatauv(L, sizeof(*box), 1);
    *box = NULL;
    luaL_setmetatable(L, WAITER_TYPE);
    struct submission *s = calloc(1, sizeof(*s));
    if (s == NULL)
        luaL_error(L, "out of memory");
    *box = s;
    s->gatherer = g;
    g->refs++;
    s->refs = 1;
    s->wait.cancel = on_cancel;
    s->watch.cb = on_token;
    return box;
}

static int not_taken(lua_State *L, int rc)
{
    if (rc == MP_EINVAL)
        return luaL_error(L, "%s", mp_last_error());
    lua_pushnil(L);
    mp__push_error(L, rc == MP_ECLOSED ? "closed" : "rate_limited",
                   rc == MP_ENOMEM    ? "out of memory"
                   : rc == MP_ECLOSED ? "the batcher is closed"
                                      : mp_last_error());
    return 2;
}

/* batcher_embed(batcher, plan, texts, group, key, priority, max_wait, total, cancel token, whole): waits;
 * what push_outcome says (whole: nil and the result in any case), or nil and an error where nothing was
 * submitted. max_wait and total: nil for the plan's. */
static int l_batcher_embed(lua_State *L)
{
    struct mp__gatherer *g = mp__check_gatherer(L, 1);
    const struct mp__plan *p = mp__check_plan(L, 2);
    luaL_checktype(L, 3, LUA_TTABLE);
    lua_settop(L, 10);
    struct mp_gather how = MP_INIT(struct mp_gather);
    how.group = opt_text(L, 4);
    how.key = opt_text(L, 5);
    how.priority = (int32_t)luaL_optinteger(L, 6, 0);
    how.max_wait = luaL_optnumber(L, 7, 0);
    double total = luaL_optnumber(L, 8, p->timeouts.total);
    struct mp__token *token = mp__token_test(L, 9);
    if (token != NULL && mp__token_cancelled(token)) {
        lua_pushnil(L);
        mp__push_error(L, "cancelled", "the cancel token was cancelled before the call");
        return 2;
    }
    mp__wait_check(L);
    struct mp_str few[FEW];
    size_t n = lua_rawlen(L, 3);
    const struct mp_str *rows = read_texts(L, 3, few, n);
    double left = mp__task_deadline(L);
    if (left >= 0 && (total <= 0 || left < total))
        total = left > 0.001 ? left : 0.001;
    struct submission **box = submission_new(L, g);
    struct submission *s = *box;
    lua_pushvalue(L, 9);
    lua_setiuservalue(L, -2, 1); /* the token, while it may be watched */
    int rc = mp__gather(g, p, rows, n, &how, total, on_done, s, &s->ticket);
    if (rc != 0) {
        s->done = 1;
        return not_taken(L, rc);
    }
    s->refs++;
    if (token != NULL)
        mp__token_watch(token, &s->watch);
    return mp__wait_begin(L, &s->wait, (lua_KContext)box, push_outcome);
}

void mp__open_batcher(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"batcher_new", l_batcher_new},     {"batcher_plan", l_batcher_plan},
        {"batcher_embed", l_batcher_embed}, {"batcher_stats", l_batcher_stats},
        {"batcher_close", l_batcher_gc},    {NULL, NULL},
    };
    luaL_newmetatable(L, PLAN_TYPE);
    lua_pop(L, 1);
    luaL_newmetatable(L, WAITER_TYPE);
    lua_pushcfunction(L, l_waiter_gc);
    lua_setfield(L, -2, "__gc");
    lua_pop(L, 1);
    luaL_newmetatable(L, BATCHER_TYPE);
    lua_pushcfunction(L, l_batcher_gc);
    lua_setfield(L, -2, "__gc");
    lua_pop(L, 1);
    luaL_setfuncs(L, functions, 0);
}

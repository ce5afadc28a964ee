/*
 * call.c - one call of the client: start, wait, hand the result to Lua.
 *
 * What the engine borrows (rows, prefix, the spec's strings) is anchored in the registry under the
 * op's address until the engine says it is done, because a cancelled task is gone before that. The
 * op itself is counted: one reference is the userdata's, one the engine's.
 */
#include "binding/client/client.h"
#include "binding/hook/hook.h"
#include "binding/value/json.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

static void op_unref(struct mp__op *op)
{
    if (--op->refs > 0)
        return;
    mp__token_unwatch(&op->watch);
    mp_result_free(op->result);
    mp__buf_free(&op->body);
    mp__buf_free(&op->in);
    mp__buf_free(&op->head);
    free(op->headers);
    free(op);
}

/* ---- callbacks from the engine's turn ---- */

static void on_done(void *arg, const struct mp_result *result)
{
    struct mp__op *op = arg;
    op->result = mp_result_keep(result);
    op->done = 1;
    mp__token_unwatch(&op->watch);
    if (op->rt->engine != NULL) { /* not while the state closes */
        lua_State *L = op->rt->L;
        lua_pushnil(L); /* an existing key: no memory is asked for */
        lua_rawsetp(L, LUA_REGISTRYINDEX, op);
        mp__wait_wake(op->rt, &op->wait);
    }
    op_unref(op);
}

static void on_cancel(struct mp__wait *w)
{
    struct mp__op *op = (struct mp__op *)w; /* its first member */
    if (!op->done && op->rt->engine != NULL)
        mp_cancel(op->engine, op->ticket);
}

static int l_op_gc(lua_State *L)
{
    struct mp__op_box *box = luaL_checkudata(L, 1, MP__OP_TYPE);
    struct mp__op *op = box->op;
    box->op = NULL;
    if (op != NULL) {
        mp__token_unwatch(&op->watch);
        on_cancel(&op->wait); /* nobody can take its result any more */
        op_unref(op);
    }
    return 0;
}

static void on_token(struct mp__watch *watch)
{
    struct mp__op *op = MP__ENTRY(watch, struct mp__op, watch);
    if (!op->done && op->rt->engine != NULL)
        mp_cancel(op->engine, op->ticket);
}

/* ---- bodies and headers of single rows, made when they are sent ---- */

static int encode_row(lua_State *L)
{
    struct mp__op *op = lua_touserdata(L, 1);
    char err[256];
    op->body.n = 0;
    lua_rawgetp(L, LUA_REGISTRYINDEX, op);
    lua_getfield(L, -1, "payloads");
    lua_rawgeti(L, -1, lua_tointeger(L, 2));
    if (lua_type(L, -1) == LUA_TSTRING) {
        size_t n = 0;
        const char *p = lua_tolstring(L, -1, &n);
        if (mp__buf_add(&op->body, p, n) != 0)
            return luaL_error(L, "out of memory");
    } else if (mp__json_encode(L, -1, &op->body, err, sizeof(err)) != 0) {
        return luaL_error(L, "payload %d: %s", (int)lua_tointeger(L, 2), err);
    }
    return 0;
}

/* Made with the library: an error here, in a callback of the engine, would leap through the loop. */
static const char hook_key;

static lua_State *hook_thread(struct mp__rt *rt)
{
    lua_State *L = rt->L;
    lua_rawgetp(L, LUA_REGISTRYINDEX, &hook_key);
    lua_State *H = lua_tothread(L, -1);
    lua_pop(L, 1);
    return H;
}

static int protected(struct mp__op *op, lua_CFunction fn, uint64_t row)
{
    lua_State *H = hook_thread(op->rt);
    lua_settop(H, 0);
    lua_pushcfunction(H, fn);
    lua_pushlightuserdata(H, op);
    lua_pushinteger(H, (lua_Integer)row + 1);
    return lua_pcall(H, 2, 0, 0);
}

static int on_source(void *arg, uint64_t row, struct mp_str *out)
{
    struct mp__op *op = arg;
    if (protected(op, encode_row, row) != LUA_OK) {
        lua_State *H = hook_thread(op->rt);
        out->p = lua_type(H, -1) == LUA_TSTRING ? lua_tolstring(H, -1, &out->n) : NULL;
        return -1;
    }
    out->p = op->body.p != NULL ? op->body.p : "";
    out->n = op->body.n;
    return 0;
}

static int read_row_headers(lua_State *L)
{
    struct mp__op *op = lua_touserdata(L, 1);
    op->nheaders = 0;
    lua_rawgetp(L, LUA_REGISTRYINDEX, op);
    lua_getfield(L, -1, "row_headers");
    if (lua_rawgeti(L, -1, lua_tointeger(L, 2)) != LUA_TTABLE)
        return 0;
    size_t n = 0;
    const struct mp_header *h = mp__opt_headers(L, -1, &n);
    if (n > op->cap_headers) {
        struct mp_header *v = realloc(op->headers, n * sizeof(*v));
        if (v == NULL)
            return luaL_error(L, "out of memory");
        op->headers = v;
        op->cap_headers = n;
    }
    memcpy(op->headers, h, n * sizeof(*h)); /* the strings are the anchored list's */
    op->nheaders = n;
    return 0;
}

static const struct mp_header *on_row_headers(void *arg, uint64_t row, size_t *n)
{
    struct mp__op *op = arg;
    *n = SIZE_MAX;
    if (protected(op, read_row_headers, row) != LUA_OK)
        return NULL;
    *n = op->nheaders;
    return op->headers;
}

/* ---- the spec ---- */

/* The rows in a private list (the caller may change theirs while it waits), and their bytes. */
static const struct mp_str *read_rows(lua_State *L, int spec, int anchor, size_t *n)
{
    if (lua_getfield(L, spec, "rows") != LUA_TTABLE)
        luaL_error(L, "input: a list of strings is needed");
    int from = lua_gettop(L);
    *n = lua_rawlen(L, from);
    lua_createtable(L, (int)*n, 0);
    struct mp_str *rows = lua_newuserdatauv(L, (*n + 1) * sizeof(*rows), 0);
    for (size_t i = 0; i < *n; i++) {
        if (lua_rawgeti(L, from, (lua_Integer)i + 1) != LUA_TSTRING)
            luaL_error(L, "input[%d]: string expected, got %s", (int)i + 1, luaL_typename(L, -1));
        rows[i].p = lua_tolstring(L, -1, &rows[i].n);
        lua_rawseti(L, from + 1, (lua_Integer)i + 1);
    }
    lua_setfield(L, anchor, "bytes");
    lua_setfield(L, anchor, "rows");
    lua_pop(L, 1);
    return rows;
}

static void anchor_field(lua_State *L, int spec, int anchor, const char *name)
{
    lua_getfield(L, spec, name);
    lua_setfield(L, anchor, name);
}

static uint32_t choice(lua_State *L, int spec, const char *field, const char *const *names)
{
    const char *s = mp__opt_string(L, spec, field);
    for (uint32_t i = 0; s != NULL && names[i] != NULL; i++)
        if (strcmp(s, names[i]) == 0)
            return i;
    if (s != NULL)
        luaL_error(L, "%s: unknown value '%s'", field, s);
    return 0;
}

static struct mp_str text_field(lua_State *L, int spec, const char *field)
{
    struct mp_str s = {"", 0};
    if (lua_getfield(L, spec, field) == LUA_TSTRING)
        s.p = lua_tolstring(L, -1, &s.n);
    lua_pop(L, 1);
    return s;
}

static void read_vectors(lua_State *L, int spec, struct mp_request *q, struct mp_vectors *v)
{
    static const char *const dtypes[] = {"f32", "i8", "u8", "bits", "bits_i8", NULL};
    static const char *const layouts[] = {"list", "one", "tensor", "packed", NULL};
    memset(v, 0, sizeof(*v));
    if (lua_getfield(L, spec, "vectors") == LUA_TTABLE) {
        int t = lua_gettop(L);
        v->list = mp__opt_string(L, t, "list");
        v->list = v->list != NULL ? v->list : "";
        v->vector = mp__opt_string(L, t, "vector");
        v->index = mp__opt_string(L, t, "index");
        v->dtype = choice(L, t, "dtype", dtypes);
        v->dimensions = (uint32_t)mp__opt_number(L, t, "dimensions", 0);
        v->layout = choice(L, t, "layout", layouts);
        v->header = mp__opt_string(L, t, "header");
        v->tokens = mp__opt_string(L, t, "tokens");
        v->cut = mp__opt_string(L, t, "cut");
        v->dims = mp__opt_string(L, t, "dims");
        v->kind = mp__opt_string(L, t, "kind");
        v->usage = mp__opt_string(L, t, "usage");
        v->tokens_header = mp__opt_string(L, t, "tokens_header");
        q->vectors = v;
    }
    lua_pop(L, 1);
}

static uint32_t read_flags(lua_State *L, int spec)
{
    uint32_t flags = MP_BORROW;
    flags |= mp__opt_bool(L, spec, "no_split", 0) ? MP_NO_SPLIT : 0;
    flags |= mp__opt_bool(L, spec, "one_request", 0) ? MP_ONE_REQUEST : 0;
    flags |= mp__opt_bool(L, spec, "idempotent", 0) ? MP_IDEMPOTENT : 0;
    flags |= mp__opt_bool(L, spec, "trust", 0) ? MP_TRUST : 0;
    flags |= mp__opt_bool(L, spec, "big_reply", 0) ? MP_BIG_REPLY : 0;
    flags |= mp__opt_bool(L, spec, "service_path", 0) ? MP_SERVICE_PATH : 0;
    return flags;
}

static void read_body(lua_State *L, int spec, int anchor, struct mp_request *q)
{
    static const char *const styles[] = {"string", "wrapped", "json", NULL};
    if (lua_getfield(L, spec, "payloads") == LUA_TTABLE) {
        q->mode = MP_BODY_WHOLE;
        q->nrows = lua_rawlen(L, -1);
        if (!mp__opt_bool(L, spec, "no_body", 0))
            q->source = on_source;
        lua_createtable(L, (int)q->nrows, 0); /* the list is ours, its values are the caller's */
        for (size_t i = 1; i <= q->nrows; i++) {
            lua_rawgeti(L, -2, (lua_Integer)i);
            lua_rawseti(L, -2, (lua_Integer)i);
        }
        lua_setfield(L, anchor, "payloads");
    } else {
        q->mode = MP_BODY_JOIN;
        q->row_style = choice(L, spec, "row_style", styles);
        q->rows = read_rows(L, spec, anchor, &q->nrows);
    }
    lua_pop(L, 1);
    if (lua_getfield(L, spec, "row_headers") == LUA_TTABLE)
        q->row_headers = on_row_headers;
    lua_setfield(L, anchor, "row_headers");
}

void mp__read_spec(lua_State *L, int spec, int anchor, struct mp_request *q, struct mp_vectors *v,
                   struct mp_timeouts *t)
{
    q->method = mp__opt_string(L, spec, "method");
    q->path = mp__opt_string(L, spec, "path");
    q->model = mp__opt_string(L, spec, "model");
    q->prefix = text_field(L, spec, "prefix");
    q->suffix = text_field(L, spec, "suffix");
    q->row_prefix = text_field(L, spec, "row_prefix");
    q->row_suffix = text_field(L, spec, "row_suffix");
    q->tail = text_field(L, spec, "tail");
    if (q->tail.n == 0)
        q->tail.p = NULL;
    q->optional_at = (size_t)mp__opt_number(L, spec, "optional_at", 0);
    q->optional_n = (size_t)mp__opt_number(L, spec, "optional_n", 0);
    q->flags = read_flags(L, spec);
    q->max_concurrent = (uint32_t)mp__opt_number(L, spec, "max_concurrent", 0);
    read_body(L, spec, anchor, q);
    read_vectors(L, spec, q, v);
    mp__opt_timeouts(L, spec, t);
    double left = mp__task_deadline(L);
    if (left >= 0 && (t->total <= 0 || left < t->total))
        t->total = left > 0.001 ? left : 0.001;
    q->timeouts = t;
    lua_getfield(L, spec, "policy");
    q->policy = luaL_testudata(L, -1, MP__POLICY_TYPE);
    lua_pop(L, 1);
    anchor_field(L, spec, anchor, "prefix");
    anchor_field(L, spec, anchor, "suffix");
    anchor_field(L, spec, anchor, "row_prefix");
    anchor_field(L, spec, anchor, "row_suffix");
    anchor_field(L, spec, anchor, "tail");
    anchor_field(L, spec, anchor, "policy");
    anchor_field(L, spec, anchor, "vectors");
    anchor_field(L, spec, anchor, "tag"); /* views show it */
    lua_getfield(L, spec, "hooks");
    struct mp__hookset *hooks = mp__hookset_test(L, -1);
    q->hooks = hooks != NULL ? &hooks->c : NULL;
    lua_setfield(L, anchor, "hooks");
    lua_getfield(L, spec, "headers");
    q->headers = mp__opt_headers(L, -1, &q->nheaders);
    lua_remove(L, -2);
}

/* ---- the call ---- */

static int push_outcome(lua_State *L, int status, lua_KContext ctx)
{
    struct mp__op *op = (struct mp__op *)ctx;
    (void)status;
    struct mp__result_box *box = lua_newuserdatauv(L, sizeof(*box), 0);
    box->result = op->result;
    op->result = NULL;
    luaL_setmetatable(L, MP__RESULT_TYPE);
    return 1;
}

static struct mp__op *op_new(lua_State *L, mp_engine *e)
{
    struct mp__op_box *box = lua_newuserdatauv(L, sizeof(*box), 1);
    box->op = NULL;
    luaL_setmetatable(L, MP__OP_TYPE);
    struct mp__op *op = calloc(1, sizeof(*op));
    if (op == NULL)
        luaL_error(L, "out of memory");
    op->rt = mp__rt(L);
    op->engine = e;
    op->refs = 1;
    op->wait.cancel = on_cancel;
    op->watch.cb = on_token;
    box->op = op;
    return op;
}

/* nil, error for what the engine refuses at a bound or after closing. */
static int refused(lua_State *L, int rc)
{
    if (rc == MP_EINVAL)
        return luaL_error(L, "%s", mp_last_error());
    lua_pushnil(L);
    mp__push_error(L, rc == MP_ECLOSED ? "closed" : "too_large",
                   rc == MP_ENOMEM ? "out of memory" : mp_last_error());
    return 2;
}

static int cancelled_before(lua_State *L)
{
    lua_pushnil(L);
    mp__push_error(L, "cancelled", "the cancel token was cancelled before the call");
    return 2;
}

/* core.call_start(client, spec) -> op, or nil, error. Does not wait. */
static int l_call_start(lua_State *L)
{
    struct mp__client_box *box = luaL_checkudata(L, 1, MP__CLIENT_TYPE);
    luaL_checktype(L, 2, LUA_TTABLE);
    lua_settop(L, 2);
    if (box->client == NULL) {
        lua_pushnil(L);
        mp__push_error(L, "closed", "the client is closed");
        return 2;
    }
    if (box->rt->in_hook)
        return luaL_error(L, "a hook cannot start a call; a task can");
    struct mp_request q = MP_INIT(struct mp_request);
    struct mp_vectors vectors;
    struct mp_timeouts timeouts;
    struct mp__op *op = op_new(L, box->rt->engine); /* at 3 */
    lua_newtable(L);                                /* the anchor, at 4 */
    mp__read_spec(L, 2, 4, &q, &vectors, &timeouts);
    lua_getfield(L, 2, "cancel_token");
    struct mp__token *token = mp__token_test(L, -1);
    if (token != NULL && mp__token_cancelled(token))
        return cancelled_before(L);
    lua_setiuservalue(L, 3, 1); /* the op keeps the token */
    lua_pushvalue(L, 4);
    lua_rawsetp(L, LUA_REGISTRYINDEX, op);
    q.client = box->client;
    q.source_arg = op;
    q.done = on_done;
    q.arg = op;
    if (mp__opt_bool(L, 2, "stream", 0))
        mp__stream_into(&q);
    op->refs++;
    int rc = mp_submit(op->engine, &q, &op->ticket);
    if (rc != 0) {
        op->refs--;
        op->done = 1;
        lua_pushnil(L);
        lua_rawsetp(L, LUA_REGISTRYINDEX, op);
        return refused(L, rc);
    }
    if (token != NULL)
        mp__token_watch(token, &op->watch);
    lua_settop(L, 3);
    return 1;
}

/* core.call_wait(op) -> result; once an op. If the waiting task is cancelled so is the call. */
static int l_call_wait(lua_State *L)
{
    struct mp__op_box *box = luaL_checkudata(L, 1, MP__OP_TYPE);
    struct mp__op *op = box->op;
    luaL_argcheck(L, op != NULL && !op->taken, 1, "its result was taken");
    if (op->done) {
        op->taken = 1;
        return push_outcome(L, LUA_OK, (lua_KContext)op);
    }
    mp__wait_check(L);
    op->taken = 1;
    return mp__wait_begin(L, &op->wait, (lua_KContext)op, push_outcome);
}

static int l_call_cancel(lua_State *L)
{
    struct mp__op_box *box = luaL_checkudata(L, 1, MP__OP_TYPE);
    if (box->op != NULL)
        on_cancel(&box->op->wait);
    return 0;
}

void mp__open_call(lua_State *L)
{
    static const luaL_Reg functions[] = {{"call_start", l_call_start},
                                         {"call_wait", l_call_wait},
                                         {"call_cancel", l_call_cancel},
                                         {NULL, NULL}};
    luaL_newmetatable(L, MP__OP_TYPE);
    lua_pushcfunction(L, l_op_gc);
    lua_setfield(L, -2, "__gc");
    lua_pop(L, 1);
    lua_newthread(L);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &hook_key);
    luaL_setfuncs(L, functions, 0);
}

/*
 * reply.c - what a handler returns, on its way to the client.
 *
 * A reply is a table {status=, headers=, json= or body= or stream= or vectors=}, or a string (a plain text).
 * Everything is read and checked while nothing is sent, so a wrong reply can still become a 500.
 */
#include "binding/server/server.h"
#include "binding/value/json.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define MAX_HEADERS 64

struct reply {
    int status;
    size_t nheaders;
    struct mp__http_header headers[MAX_HEADERS];
    const char *body;
    size_t len;
    int typed; /* the handler names a content-type */
};

/* ---- reading the table ---- */

static const char *check_text(lua_State *L, int idx, const char *what)
{
    size_t n;
    const char *s = lua_tolstring(L, idx, &n);
    if (s == NULL || strlen(s) != n)
        luaL_error(L, "reply: a header's %s must be a string without NUL, not %s", what,
                   luaL_typename(L, idx));
    return s;
}

/* The value at the top stays on the stack: the reply points into it. */
static void add_header(lua_State *L, struct reply *r, const char *name)
{
    if (r->nheaders == MAX_HEADERS)
        luaL_error(L, "reply: more than %d headers", MAX_HEADERS);
    r->headers[r->nheaders].name = name;
    r->headers[r->nheaders].value = check_text(L, -1, "value");
    r->nheaders++;
    if (strcasecmp(name, "content-type") == 0)
        r->typed = 1;
}

/* Pushes what it points into: at most three values a header. */
static void read_headers(lua_State *L, int idx, struct reply *r)
{
    if (lua_isnoneornil(L, idx))
        return;
    luaL_argexpected(L, lua_istable(L, idx), idx, "table of headers");
    luaL_checkstack(L, 3 * MAX_HEADERS + 10, "reply");
    lua_pushnil(L);
    while (lua_next(L, idx)) {
        if (lua_type(L, -2) != LUA_TSTRING)
            luaL_error(L, "reply: header names must be strings");
        const char *name = check_text(L, -2, "name");
        int value = lua_gettop(L);
        if (lua_istable(L, value)) {
            for (lua_Integer i = 1; lua_rawgeti(L, value, i) != LUA_TNIL; i++)
                add_header(L, r, name);
            lua_pop(L, 1);
        } else {
            add_header(L, r, name);
        }
        lua_pushvalue(L, value - 1); /* the key again, above what must stay */
    }
}

static int opt_status(lua_State *L, int idx)
{
    if (lua_isnil(L, idx))
        return 200;
    int is;
    lua_Integer status = lua_tointegerx(L, idx, &is);
    if (!is || status < 200 || status > 599)
        luaL_error(L, "reply: status must be an integer from 200 to 599");
    return (int)status;
}

static void add_type(struct reply *r, const char *type)
{
    if (r->typed || r->nheaders == MAX_HEADERS)
        return;
    r->headers[r->nheaders].name = "content-type";
    r->headers[r->nheaders].value = type;
    r->nheaders++;
}

/* Ends the request unless it is UV_EINVAL. The request is let go first: the reply may bring the
 * connection's next one, under the same pointer. */
static int try_send(struct mp__req *q, const struct reply *r, const struct mp__http_fault *fault)
{
    struct mp__http_request *http = q->http;
    mp__request_over(q);
    int err =
        fault != NULL
            ? mp__http_reply_fault(http, r->status, r->headers, r->nheaders, r->body, r->len, fault)
            : mp__http_reply(http, r->status, r->headers, r->nheaders, r->body, r->len);
    if (err == UV_EINVAL)
        mp__request_again(q, http);
    return err;
}

/* Pushes whether the client is still there. */
static int sent(lua_State *L, int err)
{
    if (err == UV_EINVAL)
        return luaL_error(L, "reply: a header name or value with a line break or the like");
    lua_pushboolean(L, err == 0);
    return 1;
}

static int answer_json(lua_State *L, struct mp__req *q, struct reply *r, int value)
{
    char why[200];
    struct mp__buf out;
    mp__buf_init(&out, 0);
    if (mp__json_encode(L, value, &out, why, sizeof(why)) != 0) {
        mp__buf_free(&out);
        return luaL_error(L, "reply: json: %s", why);
    }
    add_type(r, "application/json");
    r->body = out.p;
    r->len = out.n;
    int err = try_send(q, r, NULL);
    mp__buf_free(&out);
    return sent(L, err);
}

static int answer_body(lua_State *L, struct mp__req *q, struct reply *r, int value)
{
    if (!lua_isnil(L, value)) {
        r->body = lua_tolstring(L, value, &r->len);
        if (r->body == NULL)
            return luaL_error(L, "reply: body must be a string, not %s", luaL_typename(L, value));
        add_type(r, "text/plain; charset=utf-8");
    }
    return sent(L, try_send(q, r, NULL));
}

static int answer_vectors(lua_State *L, struct mp__req *q, struct reply *r)
{
    struct mp__srv *s = q->srv;
    lua_rotate(L, 8, -1); /* what the headers point into lies above */
    add_type(r, mp__reply_vectors(L, 2, lua_gettop(L), &s->out));
    r->body = s->out.p;
    r->len = s->out.n;
    int err = try_send(q, r, NULL);
    mp__reply_vectors_over(&s->out);
    return sent(L, err);
}

static int start_stream(lua_State *L, struct mp__req *q, struct reply *r)
{
    if (!lua_isfunction(L, 7) && luaL_getmetafield(L, 7, "__call") == LUA_TNIL)
        return luaL_error(L, "reply: stream must be a function, not %s", luaL_typename(L, 7));
    int err = mp__http_start(q->http, r->status, r->headers, r->nheaders);
    if (err == UV_EINVAL)
        return sent(L, err);
    q->started = 1;
    lua_pushnil(L);
    lua_getfield(L, 2, "stream");
    return 2;
}

/* server_answer(req, reply): true when it was sent, false when the client has gone; nil and the
 * stream when the head was sent and the values of reply.stream are to follow. */
static int l_server_answer(lua_State *L)
{
    struct mp__req *q = mp__check_request(L, 1);
    struct reply r;
    r.status = 200;
    r.nheaders = 0;
    r.typed = 0;
    r.body = NULL;
    r.len = 0;
    luaL_argcheck(L, !q->started, 1, "the reply has begun");
    lua_settop(L, 2);
    if (lua_type(L, 2) == LUA_TSTRING)
        return answer_body(L, q, &r, 2);
    if (!lua_istable(L, 2))
        return luaL_error(L, "reply: a table or a string expected, got %s", luaL_typename(L, 2));
    static const char *const fields[] = {"status", "headers", "json", "body", "stream", "vectors"};
    for (int i = 0; i < 6; i++)
        lua_getfield(L, 2, fields[i]);
    r.status = opt_status(L, 3);
    read_headers(L, 4, &r);
    if (!lua_isnil(L, 5) + !lua_isnil(L, 6) + !lua_isnil(L, 7) + !lua_isnil(L, 8) > 1)
        return luaL_error(L, "reply: only one of json, body, stream and vectors");
    if (!lua_isnil(L, 8))
        return answer_vectors(L, q, &r);
    if (!lua_isnil(L, 5))
        return answer_json(L, q, &r, 5);
    if (!lua_isnil(L, 7))
        return start_stream(L, q, &r);
    return answer_body(L, q, &r, 6);
}

/* ---- the plain way, and the broken one ---- */

static void read_plain(lua_State *L, struct reply *r)
{
    r->nheaders = 0;
    r->typed = 0;
    r->status = opt_status(L, 2);
    r->body = luaL_optlstring(L, 4, "", &r->len);
    if (lua_type(L, 3) == LUA_TSTRING)
        add_type(r, lua_tostring(L, 3));
    else
        read_headers(L, 3, r);
}

/* server_reply(req, status, content type or headers, body): whether it was sent. */
static int l_server_reply(lua_State *L)
{
    struct mp__req *q = mp__check_request(L, 1);
    struct reply r;
    lua_settop(L, 5);
    read_plain(L, &r);
    return sent(L, try_send(q, &r, NULL));
}

static double fault_number(lua_State *L, const char *name, double otherwise)
{
    lua_getfield(L, 5, name);
    double v = luaL_optnumber(L, -1, otherwise);
    lua_pop(L, 1);
    return v > 0 ? v : 0;
}

/* server_fault(req, status, type or headers, body, {delay=, chunk=, dribble=, gap=, cut=, ends=
 * "reset" "close" "hang", raw=}): as http.h says. */
static int l_server_fault(lua_State *L)
{
    static const char *const ends[] = {"finish", "reset", "close", "hang", NULL};
    struct mp__req *q = mp__check_request(L, 1);
    struct reply r;
    luaL_checktype(L, 5, LUA_TTABLE);
    lua_settop(L, 5);
    struct mp__http_fault f = {0};
    f.delay = fault_number(L, "delay", 0);
    f.chunk = (size_t)fault_number(L, "chunk", 0);
    f.dribble = (size_t)fault_number(L, "dribble", 0);
    f.gap = fault_number(L, "gap", 0);
    double cut = fault_number(L, "cut", 1e15);
    f.cut = cut >= 1e15 ? SIZE_MAX : (size_t)cut;
    lua_getfield(L, 5, "ends");
    f.end = luaL_checkoption(L, -1, "finish", ends);
    lua_getfield(L, 5, "raw");
    f.raw = lua_toboolean(L, -1);
    read_plain(L, &r);
    return sent(L, try_send(q, &r, &f));
}

/* ---- streaming ---- */

static void on_drain(struct mp__http_request *http)
{
    struct mp__req *q = http->data;
    mp__waitlist_wake_all(&q->drain);
}

static int drain_k(lua_State *L, int status, lua_KContext ctx)
{
    struct mp__req *q = (struct mp__req *)ctx;
    (void)status;
    lua_pushboolean(L, q->http != NULL && !q->gone);
    return 1;
}

/* server_write(req, text): waits while the client is behind; false when it has gone. */
static int l_server_write(lua_State *L)
{
    struct mp__req *q = mp__check_request(L, 1);
    size_t n;
    const char *text = luaL_checklstring(L, 2, &n);
    luaL_argcheck(L, q->started, 1, "the reply has not begun");
    mp__wait_check(L);
    int state = q->gone ? -1 : mp__http_write(q->http, text, n);
    if (state != 1) {
        lua_pushboolean(L, state == 0);
        return 1;
    }
    q->http->on_drain = on_drain;
    return mp__waitlist_wait(L, &q->drain, (lua_KContext)q, drain_k);
}

static int l_server_end(lua_State *L)
{
    struct mp__req *q = mp__check_request(L, 1);
    struct mp__http_request *http = q->http;
    luaL_argcheck(L, q->started, 1, "the reply has not begun");
    mp__request_over(q);
    mp__http_end(http);
    return 0;
}

/* server_abort(req): drops the connection; fine when the request is over. */
static int l_server_abort(lua_State *L)
{
    struct mp__req *q = luaL_checkudata(L, 1, MP__REQUEST);
    struct mp__http_request *http = q->http;
    if (http == NULL)
        return 0;
    mp__request_over(q);
    mp__http_abort(http);
    return 0;
}

/* server_state(req): "new", "started" or "over". */
static int l_server_state(lua_State *L)
{
    struct mp__req *q = luaL_checkudata(L, 1, MP__REQUEST);
    lua_pushstring(L, q->http == NULL ? "over" : q->started ? "started" : "new");
    return 1;
}

void mp__open_reply(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"server_answer", l_server_answer}, {"server_reply", l_server_reply},
        {"server_fault", l_server_fault},   {"server_write", l_server_write},
        {"server_end", l_server_end},       {"server_abort", l_server_abort},
        {"server_state", l_server_state},   {NULL, NULL},
    };
    luaL_setfuncs(L, functions, 0);
}

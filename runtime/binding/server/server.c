/* server.c - core.server_*: listening, the queue of requests, the end. */
#include "binding/server/server.h"

#include "binding/binding.h"

#include <stdlib.h>
#include <string.h>

/* Requests that workers answer one after the other before the loop gets its turn. */
#define MAX_STREAK 64

/* ---- the queue ---- */

static int queue_grow(struct mp__srv *s)
{
    size_t cap = s->cap ? s->cap * 2 : 64;
    struct mp__waiting_request *queue = malloc(cap * sizeof(*queue));
    if (queue == NULL)
        return -1;
    for (size_t i = 0; i < s->queued; i++)
        queue[i] = s->queue[(s->head + i) % s->cap];
    free(s->queue);
    s->queue = queue;
    s->cap = cap;
    s->head = 0;
    return 0;
}

/* The oldest; its http is NULL when there is none. */
static struct mp__waiting_request queue_take(struct mp__srv *s)
{
    while (s->queued > 0) {
        struct mp__waiting_request req = s->queue[s->head];
        s->head = (s->head + 1) % s->cap;
        s->queued--;
        if (req.http != NULL)
            return req;
        mp_result_free(req.failed);
    }
    return (struct mp__waiting_request){NULL, NULL};
}

static void gone_while_queued(struct mp__http_request *req)
{
    struct mp__srv *s = req->data;
    for (size_t i = 0; i < s->queued; i++) {
        if (s->queue[(s->head + i) % s->cap].http == req)
            s->queue[(s->head + i) % s->cap].http = NULL;
    }
    mp__http_abort(req);
}

void mp__srv_queue(struct mp__srv *s, struct mp__http_request *req, struct mp_result *failed)
{
    if (s->closing || (s->queued == s->cap && queue_grow(s) != 0)) {
        mp_result_free(failed);
        mp__http_abort(req);
        return;
    }
    req->data = s;
    req->on_gone = gone_while_queued;
    s->queue[(s->head + s->queued) % s->cap] = (struct mp__waiting_request){req, failed};
    s->queued++;
    mp__waitlist_wake_last(&s->idle);
}

static void on_request(struct mp__http_request *req, void *arg)
{
    struct mp__srv *s = arg;
    if (s->front == NULL || !mp__front_take(s, req))
        mp__srv_queue(s, req, NULL);
}

static void on_quiet(void *arg)
{
    mp__waitlist_wake_all(&((struct mp__srv *)arg)->quiet);
}

/* ---- life ---- */

static void maybe_free(struct mp__srv *s)
{
    if (!s->closed || !s->collected)
        return;
    for (size_t i = 0; i < s->queued; i++)
        mp_result_free(s->queue[(s->head + i) % s->cap].failed);
    free(s->queue);
    mp__buf_free(&s->out);
    free(s);
}

static void on_closed(void *arg)
{
    struct mp__srv *s = arg;
    s->closed = 1;
    mp__rt_release(s->rt);
    maybe_free(s);
}

static void server_shut(struct mp__rt *rt, void *arg);

static void server_close(struct mp__srv *s)
{
    struct mp__http_server *http = s->http;
    if (s->closing)
        return;
    s->closing = 1;
    mp__rt_off_close(s->rt, server_shut, s);
    mp__waitlist_wake_all(&s->idle);
    mp__waitlist_wake_all(&s->quiet);
    if (http == NULL) {
        s->closed = 1;
        return;
    }
    mp__rt_hold(s->rt);
    mp__http_server_stop(http);
    mp__http_server_stats(http, &s->last);
    mp__http_server_close(http, on_closed, s);
    s->http = NULL;
}

/* The runtime's last call: the tasks are over, so nobody waits and nobody will answer. */
static void server_shut(struct mp__rt *rt, void *arg)
{
    struct mp__srv *s = arg;
    (void)rt;
    server_close(s);
    while (!mp__list_empty(&s->taken)) {
        struct mp__req *r = MP__ENTRY(s->taken.next, struct mp__req, link);
        struct mp__http_request *http = r->http;
        mp__request_over(r);
        mp__http_abort(http);
    }
}

static int l_server_gc(lua_State *L)
{
    struct mp__srv **box = luaL_checkudata(L, 1, MP__SERVER);
    if (*box == NULL)
        return 0;
    struct mp__srv *s = *box;
    *box = NULL;
    if (!s->closing)
        server_close(s);
    s->collected = 1;
    maybe_free(s);
    return 0;
}

struct mp__srv *mp__check_server(lua_State *L, int idx)
{
    struct mp__srv **box = luaL_checkudata(L, idx, MP__SERVER);
    luaL_argcheck(L, *box != NULL, idx, "the server never opened");
    return *box;
}

/* ---- opening ---- */

static double number_option(lua_State *L, const char *name)
{
    lua_getfield(L, 1, name);
    double v = luaL_optnumber(L, -1, 0);
    if (v < 0 || v != v)
        luaL_error(L, "%s must not be negative", name);
    lua_pop(L, 1);
    return v;
}

static size_t size_option(lua_State *L, const char *name)
{
    double v = number_option(L, name);
    return v > 1e15 ? (size_t)1e15 : (size_t)v;
}

static void read_config(lua_State *L, struct mp__http_config *c)
{
    c->max_head = size_option(L, "max_head");
    c->max_headers = size_option(L, "max_headers");
    c->max_body = size_option(L, "max_body");
    c->max_connections = size_option(L, "max_connections");
    c->header_timeout = number_option(L, "header_timeout");
    c->body_timeout = number_option(L, "body_timeout");
    c->idle_timeout = number_option(L, "idle_timeout");
    c->write_timeout = number_option(L, "write_timeout");
    c->total_body_timeout = number_option(L, "total_body_timeout");
    lua_getfield(L, 1, "reuse_port");
    c->reuse_port = lua_toboolean(L, -1);
    lua_pop(L, 1);
}

static int fail(lua_State *L, const char *address, int err)
{
    lua_pushnil(L);
    const char *why =
        err == UV_EINVAL ? "not an address (host:port or unix:/path)" : uv_strerror(err);
    lua_pushfstring(L, "cannot listen on %s: %s", address, why);
    mp__push_error(L, err == UV_EINVAL ? "invalid" : "connect", lua_tostring(L, -1));
    lua_remove(L, -2);
    return 2;
}

/* server_open{listen=, max_body=, ...}: a listening server, or nil and the error. */
static int l_server_open(lua_State *L)
{
    struct mp__http_config config = {.on_request = on_request, .on_quiet = on_quiet};
    luaL_checktype(L, 1, LUA_TTABLE);
    read_config(L, &config);
    lua_getfield(L, 1, "listen");
    const char *address = luaL_checkstring(L, -1);
    lua_getfield(L, 1, "front");
    struct front *front = mp__test_front(L, -1);
    struct mp__srv **box = lua_newuserdatauv(L, sizeof(*box), 1);
    *box = NULL;
    luaL_setmetatable(L, MP__SERVER);
    lua_pushvalue(L, -2);
    lua_setiuservalue(L, -2, 1);

    struct mp__srv *s = calloc(1, sizeof(*s));
    if (s == NULL)
        return luaL_error(L, "not enough memory");
    *box = s;
    s->rt = mp__rt(L);
    s->front = front;
    mp__waitlist_init(&s->idle);
    mp__waitlist_init(&s->quiet);
    mp__list_init(&s->taken);
    config.arg = s;
    int err = mp__http_server_new(s->rt->loop, &config, &s->http);
    if (err == 0)
        err = mp__http_server_listen(s->http, address);
    if (err == 0 && mp__rt_on_close(s->rt, server_shut, s) != 0)
        err = UV_ENOMEM;
    if (err == 0)
        return 1;
    server_close(s);
    return fail(L, address, err);
}

static int l_server_close(lua_State *L)
{
    server_close(mp__check_server(L, 1));
    return 0;
}

/* Takes no new connections; what is being answered is the last of its connection. */
static int l_server_stop(lua_State *L)
{
    struct mp__srv *s = mp__check_server(L, 1);
    if (s->http != NULL)
        mp__http_server_stop(s->http);
    return 0;
}

static int quiet_k(lua_State *L, int status, lua_KContext ctx)
{
    (void)L;
    (void)status;
    (void)ctx;
    return 0;
}

/* server_quiet(server): waits until a stopped server answers nothing any more. */
static int l_server_quiet(lua_State *L)
{
    struct mp__srv *s = mp__check_server(L, 1);
    mp__wait_check(L);
    if (s->http == NULL || mp__http_server_quiet(s->http))
        return 0;
    return mp__waitlist_wait(L, &s->quiet, 0, quiet_k);
}

/* server_address(server): url, port (0 for a unix socket); nil once it is closed. */
static int l_server_address(lua_State *L)
{
    struct mp__srv *s = mp__check_server(L, 1);
    if (s->http == NULL)
        return 0;
    lua_pushstring(L, mp__http_server_url(s->http));
    lua_pushinteger(L, mp__http_server_port(s->http));
    return 2;
}

static void set_count(lua_State *L, const char *name, uint64_t v)
{
    lua_pushinteger(L, (lua_Integer)v);
    lua_setfield(L, -2, name);
}

static int l_server_stats(lua_State *L)
{
    struct mp__srv *s = mp__check_server(L, 1);
    struct mp__http_stats st = s->last;
    if (s->http != NULL)
        mp__http_server_stats(s->http, &st);
    else
        st.open = st.working = 0;
    lua_createtable(L, 0, 16);
    set_count(L, "connections_opened", st.accepted);
    set_count(L, "connections_refused", st.refused);
    set_count(L, "connections_now", st.open);
    set_count(L, "requests", st.requests);
    set_count(L, "replies", st.replies);
    set_count(L, "in_flight", st.working);
    set_count(L, "queued", s->queued);
    set_count(L, "disconnects", st.gone);
    set_count(L, "malformed", st.malformed);
    set_count(L, "timeouts", st.timeouts);
    set_count(L, "bytes_in", st.bytes_in);
    set_count(L, "bytes_out", st.bytes_out);
    static const char *const names[6] = {NULL,         NULL,         "status_2xx",
                                         "status_3xx", "status_4xx", "status_5xx"};
    for (int i = 2; i < 6; i++)
        set_count(L, names[i], st.status[i]);
    return 1;
}

/* ---- workers ---- */

static int next_now(lua_State *L, struct mp__srv *s);

static int next_k(lua_State *L, int status, lua_KContext ctx)
{
    (void)status;
    return next_now(L, (struct mp__srv *)ctx);
}

static int next_now(lua_State *L, struct mp__srv *s)
{
    if (s->closing)
        return 0;
    /* The object first: if there is no memory for it the request stays in the queue. */
    struct mp__req *r = s->queued > 0 ? mp__push_request(L, 1) : NULL;
    struct mp__waiting_request next = queue_take(s);
    if (next.http == NULL) {
        s->streak = 0;
        return mp__waitlist_wait(L, &s->idle, (lua_KContext)s, next_k);
    }
    s->streak++;
    r->failed = next.failed;
    mp__request_again(r, next.http);
    lua_pushinteger(L, s->idle.n);
    return 2;
}

/* server_next(server): waits for a request; returns it and how many workers are idle; nothing once
 * the server is closed. */
static int l_server_next(lua_State *L)
{
    struct mp__srv *s = mp__check_server(L, 1);
    mp__wait_check(L);
    if (s->streak < MAX_STREAK || mp__task_current(s->rt) == NULL)
        return next_now(L, s);
    s->streak = 0;
    return mp__wait_pause(L, (lua_KContext)s, next_k);
}

void mp__open_server(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"server_open", l_server_open},       {"server_close", l_server_close},
        {"server_stop", l_server_stop},       {"server_quiet", l_server_quiet},
        {"server_address", l_server_address}, {"server_stats", l_server_stats},
        {"server_next", l_server_next},       {NULL, NULL},
    };
    luaL_newmetatable(L, MP__SERVER);
    lua_pushcfunction(L, l_server_gc);
    lua_setfield(L, -2, "__gc");
    lua_pushliteral(L, "server");
    lua_setfield(L, -2, "__name");
    lua_pop(L, 1);
    luaL_setfuncs(L, functions, 0);
    mp__open_request(L);
    mp__open_reply(L);
    mp__open_mock(L);
    mp__open_hangup(L);
    mp__open_front(L);
}

/*
 * front.c - plain requests for embeddings from the parser to the batcher and back.
 *
 * A front knows the models whose requests it may send: the gateway in Lua teaches it one when it has
 * answered for it itself. Calls belong to the generation in which they began, so that a configuration
 * can be replaced and the old one closed when its last call is over.
 */
#include "binding/server/front.h"

#include "binding/client/client.h"
#include "binding/value/options.h"
#include "codec/reply.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FRONT       "moonpool.front"
#define MODELS      256
#define GENERATIONS 16
#define BUCKETS     32
#define MAX_BODY    ((size_t)1 << 20) /* larger ones are not plain */

struct measure {
    size_t n; /* bounds */
    double bounds[BUCKETS];
    uint64_t counts[BUCKETS + 1];
    double sum;
};

struct model {
    char *name, *upstream;
    size_t name_len;
    struct mp__gatherer *gatherer; /* kept by the front's user value, as the plan */
    const struct mp__plan *plan;
    uint64_t requests;
    int caches;
};

struct front {
    struct mp__rt *rt;
    struct model models[MODELS];
    size_t nmodels;
    unsigned generation;
    unsigned open[GENERATIONS];
    struct mp__waitlist quiet;
    double timeout;
    char prefix[48]; /* of request ids */
    uint64_t serial;
    struct measure duration, overhead, batch;
    uint64_t rows, tokens;
    struct mp__buf scratch;
    struct call *spare;
    int refs; /* the userdata's, and one a call */
};

struct call {
    struct front *front;
    struct mp__srv *srv;
    struct mp__http_request *http; /* NULL: its client has left, and it is ended */
    struct mp__gatherer *gatherer;
    struct call *next; /* spare */
    char upstream[64], model[128];
    uint64_t ticket, started;
    unsigned generation;
    uint32_t format, rows;
    int caches;
};

static void front_unref(struct front *f)
{
    if (--f->refs > 0)
        return;
    while (f->spare != NULL) {
        struct call *c = f->spare;
        f->spare = c->next;
        free(c);
    }
    mp__buf_free(&f->scratch);
    free(f);
}

static struct call *call_new(struct front *f)
{
    struct call *c = f->spare;
    if (c != NULL)
        f->spare = c->next;
    else
        c = malloc(sizeof(*c));
    if (c == NULL)
        return NULL;
    c->front = f;
    f->refs++;
    return c;
}

static void call_over(struct call *c)
{
    struct front *f = c->front;
    mp__gatherer_unref(c->gatherer);
    if (--f->open[c->generation % GENERATIONS] == 0)
        mp__waitlist_wake_all(&f->quiet);
    c->next = f->spare;
    f->spare = c;
    front_unref(f);
}

/* ---- counting ---- */

static struct model *find_model(struct front *f, struct mp_str name)
{
    const char *p = name.p != NULL ? name.p : "";
    for (size_t i = 0; i < f->nmodels; i++) {
        struct model *m = &f->models[i];
        if (m->name_len == name.n && memcmp(m->name, p, name.n) == 0)
            return m;
    }
    return NULL;
}

static void count(struct measure *m, double v)
{
    size_t i = 0;
    while (i < m->n && v > m->bounds[i])
        i++;
    m->counts[i]++;
    m->sum += v;
}

static void count_call(struct call *c, const struct mp_result *r, double took, double overhead)
{
    struct front *f = c->front;
    struct mp_str name = {c->model, strlen(c->model)};
    struct model *m = find_model(f, name);
    if (m != NULL)
        m->requests++;
    int64_t tokens = r->total_tokens >= 0 ? r->total_tokens : r->prompt_tokens;
    count(&f->duration, took);
    count(&f->overhead, overhead);
    count(&f->batch, (double)mp_matrix_rows(r->matrix));
    f->rows += c->rows;
    f->tokens += tokens > 0 ? (uint64_t)tokens : 0;
}

/* ---- replies ---- */

static int is_id(const char *s)
{
    static const char fine[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:/+=@";
    size_t n = strspn(s, fine);
    return n > 0 && n <= 128 && s[n] == '\0';
}

static void what_it_took(const struct mp_result *r, uint32_t *attempts, double *longest)
{
    *attempts = 0;
    *longest = 0;
    for (size_t i = 0; i < r->nexchanges; i++) {
        *attempts += r->exchanges[i].attempts;
        if ((double)r->exchanges[i].time > *longest)
            *longest = (double)r->exchanges[i].time;
    }
}

static int reply(struct call *c, const struct mp_result *r)
{
    struct mp__buf *out = &c->srv->out;
    struct mp_reply body = MP_INIT(struct mp_reply);
    char id[80], tries[16], rows[24], ms[32];
    uint32_t attempts;
    double longest;
    size_t bad_row;
    body.matrix = r->matrix;
    body.first = (size_t)r->first_row;
    body.nrows = c->rows;
    body.format = c->format;
    body.model = r->model != NULL ? r->model : c->model;
    body.prompt_tokens = r->prompt_tokens;
    body.total_tokens = r->total_tokens;
    out->n = 0;
    if (mp__reply_add(out, &body, &bad_row) != 0)
        return -1;
    what_it_took(r, &attempts, &longest);
    double took = (double)(uv_hrtime() - c->started) / 1e9;
    double overhead = took > longest ? took - longest : 0;
    const char *given = mp__http_header(c->http, "x-request-id");
    snprintf(id, sizeof(id), "%s%llu", c->front->prefix, (unsigned long long)++c->front->serial);
    snprintf(tries, sizeof(tries), "%u", attempts);
    snprintf(rows, sizeof(rows), "%zu", mp_matrix_rows(r->matrix));
    unsigned us = (unsigned)(overhead * 1e6);
    snprintf(ms, sizeof(ms), "%u.%03u", us / 1000, us % 1000);
    struct mp__http_header headers[] = {
        {"content-type", "application/json"},
        {"x-request-id", given != NULL && is_id(given) ? given : id},
        {"x-moonpool-upstream", c->upstream},
        {"x-moonpool-attempts", tries},
        {"x-moonpool-batch", rows},
        {"x-moonpool-overhead-ms", ms},
        {"x-moonpool-cache", attempts == 0 ? "hit" : "miss"},
    };
    size_t nheaders = sizeof(headers) / sizeof(headers[0]) - !c->caches;
    struct mp__http_request *http = c->http;
    c->http = NULL;
    count_call(c, r, took, overhead);
    mp__http_reply(http, 200, headers, nheaders, out->p, out->n);
    mp__reply_vectors_over(out);
    return 0;
}

static void on_done(void *arg, const struct mp_result *r)
{
    struct call *c = arg;
    struct front *f = c->front;
    int fine = c->http != NULL && r->rows_ok == r->rows && r->rows == c->rows && r->matrix != NULL;
    if (c->http != NULL && (!fine || reply(c, r) != 0)) {
        /* Lua says what went wrong, in the caller's words. */
        c->http->on_gone = NULL;
        mp__srv_queue(c->srv, c->http, f->rt->engine != NULL ? mp_result_keep(r) : NULL);
    }
    call_over(c);
}

static void on_gone(struct mp__http_request *http)
{
    struct call *c = http->data;
    c->http = NULL;
    mp__gather_cancel(c->gatherer, c->ticket);
    mp__http_abort(http);
}

/* ---- requests ---- */

static int is_plain(const struct mp__http_request *http)
{
    return strcmp(http->path, "/v1/embeddings") == 0 && strcmp(http->method, "POST") == 0 &&
           http->body_len <= MAX_BODY && mp__http_header(http, "content-encoding") == NULL &&
           mp__http_header(http, "request-timeout-ms") == NULL;
}

int mp__front_take(struct mp__srv *s, struct mp__http_request *http)
{
    struct front *f = s->front;
    struct mp__front_body body;
    if (!is_plain(http) || !mp__front_read(http->body, http->body_len, &f->scratch, &body))
        return 0;
    struct model *m = find_model(f, body.model);
    struct call *c = m != NULL ? call_new(f) : NULL;
    if (c == NULL)
        return 0;
    c->srv = s;
    c->http = http;
    c->gatherer = m->gatherer;
    c->gatherer->refs++;
    c->started = uv_hrtime();
    c->generation = f->generation;
    c->format = body.format;
    c->rows = (uint32_t)body.nrows;
    c->caches = m->caches;
    snprintf(c->upstream, sizeof(c->upstream), "%s", m->upstream);
    snprintf(c->model, sizeof(c->model), "%s", m->name);
    f->open[c->generation % GENERATIONS]++;
    http->data = c;
    http->on_gone = on_gone;
    int rc = mp__gather(c->gatherer, m->plan, body.rows, body.nrows, NULL, f->timeout, on_done, c,
                        &c->ticket);
    if (rc != 0) {
        call_over(c);
        return 0;
    }
    return 1;
}

/* ---- from Lua ---- */

static struct front *check_front(lua_State *L, int idx)
{
    return *(struct front **)luaL_checkudata(L, idx, FRONT);
}

struct front *mp__test_front(lua_State *L, int idx)
{
    struct front **box = luaL_testudata(L, idx, FRONT);
    return box != NULL ? *box : NULL;
}

static void read_bounds(lua_State *L, const char *field, struct measure *m)
{
    lua_getfield(L, 1, field);
    luaL_checktype(L, -1, LUA_TTABLE);
    m->n = lua_rawlen(L, -1);
    luaL_argcheck(L, m->n <= BUCKETS, 1, "too many bounds");
    for (size_t i = 0; i < m->n; i++) {
        lua_rawgeti(L, -1, (lua_Integer)i + 1);
        m->bounds[i] = lua_tonumber(L, -1);
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
}

static int l_front_gc(lua_State *L)
{
    struct front **box = luaL_checkudata(L, 1, FRONT);
    struct front *f = *box;
    *box = NULL;
    if (f != NULL) {
        for (size_t i = 0; i < f->nmodels; i++)
            free(f->models[i].name);
        f->nmodels = 0;
        front_unref(f);
    }
    return 0;
}

/* front_new{timeout=, prefix=, duration=, overhead=, batch=}: the last three are bounds of histograms. */
static int l_front_new(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    struct front **box = lua_newuserdatauv(L, sizeof(*box), 1);
    *box = NULL;
    luaL_setmetatable(L, FRONT);
    struct front *f = calloc(1, sizeof(*f));
    if (f == NULL)
        return luaL_error(L, "not enough memory");
    f->refs = 1;
    f->rt = mp__rt(L);
    mp__waitlist_init(&f->quiet);
    *box = f;
    f->timeout = mp__opt_number(L, 1, "timeout", 60);
    const char *prefix = mp__opt_string(L, 1, "prefix");
    snprintf(f->prefix, sizeof(f->prefix), "%s", prefix != NULL ? prefix : "");
    read_bounds(L, "duration", &f->duration);
    read_bounds(L, "overhead", &f->overhead);
    read_bounds(L, "batch", &f->batch);
    lua_newtable(L);
    lua_setiuservalue(L, -2, 1);
    return 1;
}

/* front_learn(front, model, batcher, plan, upstream, caches): requests for that model may be taken. */
static int l_front_learn(lua_State *L)
{
    struct front *f = check_front(L, 1);
    size_t n, upstream_len;
    const char *name = luaL_checklstring(L, 2, &n);
    struct mp__gatherer *g = mp__check_gatherer(L, 3);
    const struct mp__plan *p = mp__check_plan(L, 4);
    const char *upstream = luaL_checklstring(L, 5, &upstream_len);
    struct mp_str wanted = {name, n};
    if (f->nmodels == MODELS || n >= sizeof(((struct call *)0)->model) ||
        find_model(f, wanted) != NULL)
        return 0;
    lua_getiuservalue(L, 1, 1); /* what must stay */
    lua_pushvalue(L, 3);
    lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
    lua_pushvalue(L, 4);
    lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
    char *text = malloc(n + upstream_len + 2);
    if (text == NULL)
        return luaL_error(L, "not enough memory");
    memcpy(text, name, n + 1);
    memcpy(text + n + 1, upstream, upstream_len + 1);
    struct model *m = &f->models[f->nmodels++];
    m->name = text;
    m->upstream = text + n + 1;
    m->name_len = n;
    m->gatherer = g;
    m->plan = p;
    m->requests = 0;
    m->caches = lua_toboolean(L, 6);
    return 0;
}

/* front_clear(front, timeout): forgets its models; returns the generation that ends with this. */
static int l_front_clear(lua_State *L)
{
    struct front *f = check_front(L, 1);
    f->timeout = luaL_optnumber(L, 2, f->timeout);
    for (size_t i = 0; i < f->nmodels; i++)
        free(f->models[i].name);
    f->nmodels = 0;
    lua_newtable(L);
    lua_setiuservalue(L, 1, 1);
    lua_pushinteger(L, f->generation++);
    return 1;
}

static int quiet_k(lua_State *L, int status, lua_KContext ctx)
{
    struct front *f = check_front(L, 1);
    (void)status;
    if (f->open[(unsigned)ctx % GENERATIONS] == 0)
        return 0;
    return mp__waitlist_wait(L, &f->quiet, ctx, quiet_k);
}

/* front_quiet(front, generation): waits until its last call is over. */
static int l_front_quiet(lua_State *L)
{
    check_front(L, 1);
    mp__wait_check(L);
    return quiet_k(L, LUA_OK, (lua_KContext)luaL_checkinteger(L, 2));
}

static void push_measure(lua_State *L, const char *name, struct measure *m)
{
    lua_createtable(L, (int)m->n + 1, 1);
    for (size_t i = 0; i <= m->n; i++) {
        lua_pushinteger(L, (lua_Integer)m->counts[i]);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
        m->counts[i] = 0;
    }
    lua_pushnumber(L, m->sum);
    lua_setfield(L, -2, "sum");
    m->sum = 0;
    lua_setfield(L, -2, name);
}

/* front_counts(front): what was counted since the last time: {duration=, overhead=, batch=, rows=,
 * tokens=, models={[name]=requests}}; sum and counts of each bucket. */
static int l_front_counts(lua_State *L)
{
    struct front *f = check_front(L, 1);
    lua_newtable(L);
    push_measure(L, "duration", &f->duration);
    push_measure(L, "overhead", &f->overhead);
    push_measure(L, "batch", &f->batch);
    lua_pushinteger(L, (lua_Integer)f->rows);
    lua_setfield(L, -2, "rows");
    lua_pushinteger(L, (lua_Integer)f->tokens);
    lua_setfield(L, -2, "tokens");
    f->rows = f->tokens = 0;
    lua_newtable(L);
    for (size_t i = 0; i < f->nmodels; i++) {
        lua_pushlstring(L, f->models[i].name, f->models[i].name_len);
        lua_pushinteger(L, (lua_Integer)f->models[i].requests);
        lua_rawset(L, -3);
        f->models[i].requests = 0;
    }
    lua_setfield(L, -2, "models");
    return 1;
}

void mp__open_front(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"front_new", l_front_new},       {"front_learn", l_front_learn},
        {"front_clear", l_front_clear},   {"front_quiet", l_front_quiet},
        {"front_counts", l_front_counts}, {NULL, NULL},
    };
    luaL_newmetatable(L, FRONT);
    lua_pushcfunction(L, l_front_gc);
    lua_setfield(L, -2, "__gc");
    lua_pop(L, 1);
    luaL_setfuncs(L, functions, 0);
}

/*
 * result.c - what a call came to, as Lua values.
 *
 * A result of tens of thousands of requests is turned into tables a slice at a time
 * (core.result_rows), so that the loop goes on meanwhile; each exchange's bytes are freed as soon
 * as its table stands.
 */
#include "base/clock.h"
#include "binding/client/client.h"
#include "binding/value/headers.h"
#include "binding/value/json.h"
#include "binding/value/matrix.h"
#include "binding/value/msgpack.h"
#include "codec/head.h"
#include "engine/hooks.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SLICE_NS 1000000

static struct mp_result *check_result(lua_State *L)
{
    struct mp__result_box *box = luaL_checkudata(L, 1, MP__RESULT_TYPE);
    luaL_argcheck(L, box->result != NULL, 1, "the result was freed");
    return box->result;
}

static int l_result_gc(lua_State *L)
{
    struct mp__result_box *box = luaL_checkudata(L, 1, MP__RESULT_TYPE);
    mp_result_free(box->result);
    box->result = NULL;
    return 0;
}

static void put_int(lua_State *L, const char *name, lua_Integer v)
{
    lua_pushinteger(L, v);
    lua_setfield(L, -2, name);
}

static void put_num(lua_State *L, const char *name, double v)
{
    lua_pushnumber(L, v);
    lua_setfield(L, -2, name);
}

static void put_text(lua_State *L, const char *name, const char *s)
{
    if (s == NULL || *s == '\0')
        return;
    lua_pushstring(L, s);
    lua_setfield(L, -2, name);
}

/* core.result_info(r) */
static int l_result_info(lua_State *L)
{
    const struct mp_result *r = check_result(L);
    lua_createtable(L, 0, 10);
    put_text(L, "kind", r->kind != MP_KIND_NONE ? mp_kind_name(r->kind) : NULL);
    put_int(L, "rows", (lua_Integer)r->rows);
    put_int(L, "rows_ok", (lua_Integer)r->rows_ok);
    put_int(L, "first_row", (lua_Integer)r->first_row + 1);
    put_int(L, "dimensions", r->dimensions);
    put_int(L, "exchanges", (lua_Integer)r->nexchanges);
    put_num(L, "total_time", r->total_time);
    put_text(L, "model", r->model);
    put_text(L, "words", r->words);
    if (r->status > 0)
        put_int(L, "status", r->status);
    if (r->prompt_tokens >= 0)
        put_int(L, "prompt_tokens", r->prompt_tokens);
    if (r->total_tokens >= 0)
        put_int(L, "total_tokens", r->total_tokens);
    if (r->rows_cut > 0)
        put_int(L, "rows_cut", (lua_Integer)r->rows_cut);
    return 1;
}

/* core.result_matrix(r) -> matrix or nil */
static int l_result_matrix(lua_State *L)
{
    struct mp_result *r = check_result(L);
    if (r->matrix == NULL)
        return 0;
    mp_matrix **box = mp__push_matrix_box(L);
    *box = mp_matrix_ref(r->matrix);
    mp__matrix_account(L, *box);
    return 1;
}

/* core.matrix_scatter(m, at, n) -> matrix of n rows: row i of m stands at at[i], others are NaN */
static int l_matrix_scatter(lua_State *L)
{
    mp_matrix *from = mp__check_matrix(L, 1);
    luaL_checktype(L, 2, LUA_TTABLE);
    lua_Integer n = luaL_checkinteger(L, 3);
    size_t rows = mp_matrix_rows(from);
    size_t cols = mp_matrix_cols(from);
    luaL_argcheck(L, n >= (lua_Integer)rows && n < INT32_MAX, 3, "fewer rows than the matrix has");
    mp_matrix **box = mp__push_matrix_box(L);
    *box = mp_matrix_new((size_t)n, cols);
    if (*box == NULL)
        return luaL_error(L, "out of memory");
    float *to = mp_matrix_data(*box);
    for (size_t i = 0; i < (size_t)n * cols; i++)
        to[i] = NAN;
    for (size_t i = 0; i < rows; i++) {
        lua_rawgeti(L, 2, (lua_Integer)i + 1);
        lua_Integer at = lua_tointeger(L, -1);
        luaL_argcheck(L, at >= 1 && at <= n, 2, "a place out of range");
        lua_pop(L, 1);
        memcpy(to + (size_t)(at - 1) * cols, mp_matrix_data(from) + i * cols, cols * sizeof(float));
    }
    mp__matrix_account(L, *box);
    return 1;
}

/* ---- one exchange ---- */

static void push_error(lua_State *L, const struct mp_exchange *x, const char *kind,
                       const char *message)
{
    mp__push_error(L, kind, message);
    if (x->status > 0)
        put_int(L, "status", x->status);
    if (x->body_len > 0) {
        lua_pushlstring(L, mp_exchange_body(x), x->body_len);
        lua_setfield(L, -2, "body");
    }
    lua_pushboolean(L, x->retryable);
    lua_setfield(L, -2, "retryable");
    if (x->retry_after >= 0)
        put_num(L, "retry_after", x->retry_after);
    put_int(L, "attempts", x->attempts);
    put_text(L, "request_id", mp_exchange_request_id(x));
    put_int(L, "endpoint_index", x->endpoint + 1);
}

/* core.result_exchange(r, k) -> table, the body and (if it failed) error included */
static int l_result_exchange(lua_State *L)
{
    const struct mp_result *r = check_result(L);
    lua_Integer k = luaL_checkinteger(L, 2);
    luaL_argcheck(L, k >= 1 && (uint64_t)k <= r->nexchanges, 2, "no such exchange");
    const struct mp_exchange *x = &r->exchanges[k - 1];
    lua_createtable(L, 0, 12);
    put_int(L, "first", (lua_Integer)x->first + 1);
    put_int(L, "count", x->count);
    put_int(L, "status", x->status);
    put_num(L, "time", x->time);
    put_int(L, "attempts", x->attempts);
    put_int(L, "hedges", x->hedges);
    lua_pushboolean(L, x->hedge_won);
    lua_setfield(L, -2, "hedge_won");
    put_int(L, "endpoint", x->endpoint + 1);
    put_text(L, "request_id", mp_exchange_request_id(x));
    mp__headers_push(L, x->data, x->head_len);
    lua_setfield(L, -2, "headers");
    if (x->kind != MP_KIND_NONE) {
        push_error(L, x, mp_kind_name(x->kind), mp_exchange_message(x));
        if (x->attempts == 0 && x->kind == MP_KIND_INVALID) /* refused before anything was sent */
            put_int(L, "row", (lua_Integer)x->first + 1);
        lua_setfield(L, -2, "error");
    }
    return 1;
}

/* The first fault at or behind `row`. */
static size_t fault_from(const struct mp_result *r, uint64_t row)
{
    size_t lo = 0, hi = r->nfaults;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (r->faults[mid].row < row)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

/* core.result_faults(r, k) -> list of {index=, error=}: rows of a good exchange without a vector */
static int l_result_faults(lua_State *L)
{
    const struct mp_result *r = check_result(L);
    lua_Integer k = luaL_checkinteger(L, 2);
    luaL_argcheck(L, k >= 1 && (uint64_t)k <= r->nexchanges, 2, "no such exchange");
    struct mp_exchange x = r->exchanges[k - 1];
    size_t i = fault_from(r, x.first);
    x.body_len = 0;
    x.retryable = 1;
    lua_newtable(L);
    for (lua_Integer n = 1; i < r->nfaults && r->faults[i].row < x.first + x.count; i++, n++) {
        const char *why = r->faults[i].message;
        lua_Integer row = (lua_Integer)r->faults[i].row + 1;
        lua_createtable(L, 0, 2);
        put_int(L, "index", row);
        push_error(L, &x, "decode", why != NULL ? why : "the vector is wrong");
        put_int(L, "row", row);
        lua_setfield(L, -2, "error");
        lua_rawseti(L, -2, n);
    }
    return 1;
}

/* core.result_body(r, k) -> the reply's bytes */
static int l_result_body(lua_State *L)
{
    const struct mp_result *r = check_result(L);
    lua_Integer k = luaL_checkinteger(L, 2);
    luaL_argcheck(L, k >= 1 && (uint64_t)k <= r->nexchanges, 2, "no such exchange");
    const struct mp_exchange *x = &r->exchanges[k - 1];
    lua_pushlstring(L, mp_exchange_body(x), x->body_len);
    return 1;
}

/* ---- rows of a batch of whole requests ---- */

static int looks_like_json(const struct mp_exchange *x)
{
    size_t n = 0;
    const char *type = mp__head_find(x->data, x->head_len, "content-type", &n);
    if (n > 0)
        return memmem(type, n, "json", 4) != NULL;
    const char *body = mp_exchange_body(x);
    return x->body_len > 0 && (body[0] == '{' || body[0] == '[');
}

static int is_msgpack(const struct mp_exchange *x)
{
    size_t n = 0;
    const char *type = mp__head_find(x->data, x->head_len, "content-type", &n);
    return n > 0 &&
           (memmem(type, n, "msgpack", 7) != NULL || memmem(type, n, "messagepack", 11) != NULL);
}

/* Pushes the reply as a value: JSON or MessagePack decoded, other bytes as a string, nothing as
 * nil. The kind of what is wrong, with the reason in err and nothing pushed; NULL: nothing. */
static const char *push_data(lua_State *L, const struct mp_exchange *x, char *err, size_t cap)
{
    const char *body = mp_exchange_body(x);
    int rc = 1;
    if (x->body_len == 0)
        lua_pushnil(L);
    else if (is_msgpack(x))
        rc = mp__msgpack_decode(L, body, x->body_len, err, cap);
    else if (looks_like_json(x))
        rc = mp__json_decode(L, body, x->body_len, err, cap);
    else
        lua_pushlstring(L, body, x->body_len);
    return rc == 1 ? NULL : rc == -2 ? "too_large" : "decode";
}

/* Pushes the row's table; 1 when it has an error. */
static int push_row(lua_State *L, const struct mp_exchange *x)
{
    char err[200];
    lua_createtable(L, 0, 7);
    if (x->status > 0)
        put_int(L, "status", x->status);
    put_num(L, "time", x->time);
    put_int(L, "attempts", x->attempts);
    put_text(L, "request_id", mp_exchange_request_id(x));
    if (x->hedges > 0)
        put_int(L, "hedges", x->hedges);
    mp__headers_push(L, mp_exchange_head(x), x->head_len);
    lua_setfield(L, -2, "headers");
    const char *bad = push_data(L, x, err, sizeof(err));
    if (bad == NULL)
        lua_setfield(L, -2, "data");
    if (x->kind != MP_KIND_NONE)
        push_error(L, x, mp_kind_name(x->kind), mp_exchange_message(x));
    else if (bad != NULL)
        push_error(L, x, bad, err);
    else
        return 0;
    lua_setfield(L, -2, "error");
    return 1;
}

static void append_error(lua_State *L, int list, int row, lua_Integer index)
{
    lua_createtable(L, 0, 2);
    put_int(L, "index", index);
    lua_getfield(L, row, "error");
    lua_setfield(L, -2, "error");
    lua_rawseti(L, list, (lua_Integer)lua_rawlen(L, list) + 1);
}

/*
 * core.result_rows(r, out, errors, from) - fills out[row] for exchanges from `from` on, appends
 * {index=, error=} to errors, until a slice of time is used up. Returns the exchange to go on
 * with, or nil at the end. An exchange's bytes are freed behind it.
 */
static int l_result_rows(lua_State *L)
{
    struct mp_result *r = check_result(L);
    luaL_checktype(L, 2, LUA_TTABLE);
    luaL_checktype(L, 3, LUA_TTABLE);
    uint64_t k = (uint64_t)luaL_checkinteger(L, 4) - 1;
    mp__time start = mp__now();
    for (; k < r->nexchanges; k++) {
        if ((k & 15) == 15 && mp__now() - start > SLICE_NS) {
            lua_pushinteger(L, (lua_Integer)k + 1);
            return 1;
        }
        struct mp_exchange *x = &r->exchanges[k];
        if (push_row(L, x))
            append_error(L, 3, lua_gettop(L), (lua_Integer)x->first + 1);
        lua_rawseti(L, 2, (lua_Integer)x->first + 1);
        mp__exchange_drop(x);
    }
    return 0;
}

void mp__open_result(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"result_info", l_result_info},         {"result_matrix", l_result_matrix},
        {"result_exchange", l_result_exchange}, {"result_body", l_result_body},
        {"result_faults", l_result_faults},     {"result_rows", l_result_rows},
        {"matrix_scatter", l_matrix_scatter},   {NULL, NULL}};
    luaL_newmetatable(L, MP__RESULT_TYPE);
    lua_pushcfunction(L, l_result_gc);
    lua_setfield(L, -2, "__gc");
    lua_pop(L, 1);
    luaL_setfuncs(L, functions, 0);
}

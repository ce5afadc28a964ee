/*
 * json_encode.c - Lua values to JSON text.
 *
 * A table is written in the one pass of lua_next: Lua hands out the array part first and in order,
 * so "the keys came as 1, 2, 3 ..." is the usual proof of a list. Only when they come otherwise are
 * the keys counted.
 */
#include "binding/value/headers.h"
#include "binding/value/json.h"
#include "codec/json_write.h"
#include "codec/number.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <lauxlib.h>

struct frame {
    const struct frame *up;
    const void *table;
    const char *key; /* NULL: `index` counts */
    lua_Integer index;
};

struct encoder {
    lua_State *L;
    struct mp__buf *out;
    const struct mp__json_options *opt;
    const void *array_marker;
    const void *object_marker;
    const void *number_marker;
    char *err;
    size_t errcap;
};

enum { OUT_OF_ORDER = 1 };

static int encode_value(struct encoder *e, const struct frame *up, int depth);

/* ---- errors that name the path ---- */

static size_t put(char *dst, size_t cap, size_t at, const char *fmt, const char *s, long long i)
{
    int n;

    if (at >= cap)
        return at;
    n = s != NULL ? snprintf(dst + at, cap - at, fmt, s) : snprintf(dst + at, cap - at, fmt, i);
    return n < 0 ? at : at + (size_t)n;
}

static int is_name(const char *s)
{
    size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_");

    return n > 0 && n <= 40 && s[n] == '\0' && (s[0] < '0' || s[0] > '9');
}

static size_t put_path(struct encoder *e, const struct frame *f)
{
    const char *root = e->opt != NULL && e->opt->root != NULL ? e->opt->root : "value";
    size_t at;

    if (f == NULL)
        return put(e->err, e->errcap, 0, "%s", root, 0);
    at = put_path(e, f->up);
    if (f->key == NULL)
        return put(e->err, e->errcap, at, "[%lld]", NULL, (long long)f->index);
    return put(e->err, e->errcap, at, is_name(f->key) ? ".%s" : "[\"%.40s\"]", f->key, 0);
}

static int fail(struct encoder *e, const struct frame *f, const char *what)
{
    size_t at = put_path(e, f);

    put(e->err, e->errcap, at, ": %s", what, 0);
    return -1;
}

static int fail_put(struct encoder *e, const struct frame *f, int rc)
{
    char what[80];

    if (rc != MP__ETOOBIG)
        luaL_error(e->L, "not enough memory"); /* as where Lua itself has none */
    snprintf(what, sizeof(what), "the text would be longer than %zu bytes", e->out->max);
    return fail(e, f, what);
}

static int fail_depth(struct encoder *e, const struct frame *up, const void *table)
{
    char what[80];
    const struct frame *f;

    for (f = up; f != NULL; f = f->up) {
        if (f->table == table)
            break;
    }
    snprintf(what, sizeof(what),
             f != NULL ? "the table contains itself" : "nested deeper than %d levels",
             MP__JSON_ENCODE_DEPTH);
    while (up != NULL && up->up != NULL &&
           up->up->up != NULL) /* three levels show where; 128 would only fill the line */
        up = up->up;
    return fail(e, up, what);
}

/* ---- scalars ---- */

static int add(struct encoder *e, const struct frame *f, const char *p, size_t n)
{
    int rc = mp__buf_add(e->out, p, n);

    return rc ? fail_put(e, f, rc) : 0;
}

static int add_char(struct encoder *e, const struct frame *f, char c)
{
    int rc = mp__buf_addc(e->out, c);

    return rc ? fail_put(e, f, rc) : 0;
}

static int add_string(struct encoder *e, const struct frame *f, const char *s, size_t n, int is_key)
{
    char what[80];
    size_t bad = 0;
    int rc = mp__json_string(e->out, s, n, &bad);

    if (rc == 0)
        return 0;
    if (rc != MP_EINVAL)
        return fail_put(e, f, rc);
    snprintf(what, sizeof(what), "%sinvalid UTF-8 at byte %zu", is_key ? "a key has " : "",
             bad + 1);
    return fail(e, f, what);
}

static int add_integer(struct encoder *e, const struct frame *f, lua_Integer v)
{
    char text[24];
    char *p = text + sizeof(text);
    uint64_t u = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;

    do {
        *--p = (char)('0' + u % 10);
        u /= 10;
    } while (u);
    if (v < 0)
        *--p = '-';
    return add(e, f, p, (size_t)(text + sizeof(text) - p));
}

static int add_number(struct encoder *e, const struct frame *f)
{
    lua_Number v;
    int rc;

    if (lua_isinteger(e->L, -1))
        return add_integer(e, f, lua_tointeger(e->L, -1));
    v = lua_tonumber(e->L, -1);
    if (isnan(v))
        return fail(e, f, "NaN has no JSON form");
    if (isinf(v))
        return fail(e, f, "infinity has no JSON form");
    rc = mp__json_number(e->out, v);
    return rc ? fail_put(e, f, rc) : 0;
}

/* ---- tables: on entry the table is on the top of the stack, and stays there ---- */

static int encode_list_in_order(struct encoder *e, struct frame *f, int depth)
{
    lua_State *L = e->L;
    int rc = add_char(e, f->up, '[');

    f->index = 0;
    lua_pushnil(L);
    while (rc == 0 && lua_next(L, -2)) {
        if (!lua_isinteger(L, -2) || lua_tointeger(L, -2) != f->index + 1)
            return OUT_OF_ORDER;
        if (f->index++ > 0)
            rc = add_char(e, f, ',');
        if (rc == 0)
            rc = encode_value(e, f, depth);
        lua_pop(L, 1);
    }
    return rc ? rc : add_char(e, f->up, ']');
}

/* The keys are known to be 1..n in some order. */
static int encode_list_by_index(struct encoder *e, struct frame *f, lua_Integer n, int depth)
{
    int rc = add_char(e, f->up, '[');

    for (f->index = 1; rc == 0 && f->index <= n; f->index++) {
        if (f->index > 1)
            rc = add_char(e, f, ',');
        lua_rawgeti(e->L, -1, f->index);
        if (rc == 0)
            rc = encode_value(e, f, depth);
        lua_pop(e->L, 1);
    }
    return rc ? rc : add_char(e, f->up, ']');
}

/* How many keys, if all are integers 1..count; else the reason. */
static int count_list(struct encoder *e, const struct frame *f, lua_Integer *count)
{
    lua_State *L = e->L;
    lua_Integer n = 0, strings = 0, odd = 0, max = 0;
    char what[96];

    lua_pushnil(L);
    while (lua_next(L, -2)) {
        if (lua_isinteger(L, -2) && lua_tointeger(L, -2) >= 1) {
            n++;
            max = lua_tointeger(L, -2) > max ? lua_tointeger(L, -2) : max;
        } else if (lua_type(L, -2) == LUA_TSTRING) {
            strings++;
        } else {
            odd++;
        }
        lua_pop(L, 1);
    }
    *count = n;
    if (strings && (n || odd))
        return fail(e, f->up, "a table with both string and other keys");
    if (odd || strings)
        return fail(e, f->up, "keys must be strings, or 1..n for a list");
    if (max == n)
        return 0;
    snprintf(what, sizeof(what), "a list with holes: %lld values, highest index %lld", (long long)n,
             (long long)max);
    return fail(e, f->up, what);
}

static int encode_list(struct encoder *e, struct frame *f, int depth)
{
    size_t start = e->out->n;
    int top = lua_gettop(e->L);
    lua_Integer n;
    int rc = encode_list_in_order(e, f, depth);

    lua_settop(e->L, top);
    if (rc != OUT_OF_ORDER)
        return rc;
    e->out->n = start;
    if (count_list(e, f, &n) != 0)
        return -1;
    return encode_list_by_index(e, f, n, depth);
}

/* Key at -2, value at -1. */
static int encode_pair(struct encoder *e, struct frame *f, int first, int depth)
{
    lua_State *L = e->L;
    size_t n;
    int rc;

    f->key = lua_tolstring(L, -2, &n);
    rc = first ? 0 : add_char(e, f, ',');
    if (rc == 0)
        rc = add_string(e, f, f->key, n, 1);
    if (rc == 0)
        rc = add_char(e, f, ':');
    return rc ? rc : encode_value(e, f, depth);
}

static int encode_object(struct encoder *e, struct frame *f, int depth)
{
    lua_State *L = e->L;
    int first = 1;
    int rc = add_char(e, f->up, '{');
    lua_Integer n;

    lua_pushnil(L);
    while (rc == 0 && lua_next(L, -2)) {
        if (lua_type(L, -2) != LUA_TSTRING) {
            lua_pop(L, 2);
            f->key = NULL;
            return count_list(e, f, &n) ? -1 : fail(e, f->up, "an object needs string keys");
        }
        rc = encode_pair(e, f, first, depth);
        first = 0;
        lua_pop(L, 1);
    }
    return rc ? rc : add_char(e, f->up, '}');
}

struct key {
    const char *p;
    size_t n;
};

static int compare_keys(const void *a, const void *b)
{
    const struct key *x = a, *y = b;
    int c = memcmp(x->p, y->p, x->n < y->n ? x->n : y->n);

    return c ? c : (x->n > y->n) - (x->n < y->n);
}

/* The keys' bytes stay valid: the table that holds them is on the stack and nothing changes it. */
static int encode_sorted(struct encoder *e, struct frame *f, int depth)
{
    lua_State *L = e->L;
    size_t n = 0, i = 0;
    struct key *keys;
    int rc = add_char(e, f->up, '{');

    for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
        if (lua_type(L, -2) != LUA_TSTRING)
            return fail(e, f->up, "an object needs string keys");
        n++;
    }
    keys = lua_newuserdatauv(L, n * sizeof(*keys) + 1, 0);
    for (lua_pushnil(L); lua_next(L, -3); lua_pop(L, 1), i++)
        keys[i].p = lua_tolstring(L, -2, &keys[i].n);
    qsort(keys, n, sizeof(*keys), compare_keys);
    for (i = 0; rc == 0 && i < n; i++) {
        lua_pushlstring(L, keys[i].p, keys[i].n);
        lua_pushvalue(L, -1);
        lua_rawget(L, -4);
        rc = encode_pair(e, f, i == 0, depth);
        lua_pop(L, 2);
    }
    return rc ? rc : add_char(e, f->up, '}');
}

static int encode_table_as(struct encoder *e, struct frame *f, int depth, int as_list,
                           int as_object)
{
    int first_is_one;

    lua_pushnil(e->L);
    if (!lua_next(e->L, -2))
        return add(e, f->up, as_list ? "[]" : "{}", 2);
    first_is_one = lua_type(e->L, -2) != LUA_TSTRING;
    lua_pop(e->L, 2);
    if (!as_object && (as_list || first_is_one))
        return encode_list(e, f, depth);
    return e->opt != NULL && e->opt->sort_keys ? encode_sorted(e, f, depth)
                                               : encode_object(e, f, depth);
}

/* An integer beyond Lua's, as it was read. */
static int encode_digits(struct encoder *e, const struct frame *up)
{
    size_t n = 0;
    const char *p = NULL;
    float unused;

    lua_rawgeti(e->L, -1, 1);
    if (lua_type(e->L, -1) == LUA_TSTRING)
        p = lua_tolstring(e->L, -1, &n);
    if (p == NULL || mp__num_parse(p, n, &unused) == MP_EINVAL)
        return fail(e, up, "a number whose digits are none");
    return add(e, up, p, n);
}

static int encode_table(struct encoder *e, const struct frame *up, int depth)
{
    lua_State *L = e->L;
    struct frame f = {.up = up, .table = lua_topointer(L, -1)};
    const void *marker = NULL;
    int top = lua_gettop(L);
    int rc;

    if (depth >= MP__JSON_ENCODE_DEPTH)
        return fail_depth(e, up, f.table);
    if (!lua_checkstack(L, 8))
        return fail(e, up, "out of memory");
    if (lua_getmetatable(L, -1)) {
        marker = lua_topointer(L, -1);
        lua_pop(L, 1);
        mp__headers_fill(L, -1);
    }
    if (marker != NULL && marker == e->number_marker)
        rc = encode_digits(e, up);
    else
        rc = encode_table_as(e, &f, depth + 1, marker != NULL && marker == e->array_marker,
                             marker != NULL && marker == e->object_marker);
    lua_settop(L, top);
    return rc;
}

static int fail_type(struct encoder *e, const struct frame *f)
{
    char what[96];

    snprintf(what, sizeof(what), "a %s has no JSON form", luaL_typename(e->L, -1));
    return fail(e, f, what);
}

/* The value is on the top of the stack, and stays there. */
static int encode_value(struct encoder *e, const struct frame *up, int depth)
{
    lua_State *L = e->L;
    const char *s;
    size_t n;

    switch (lua_type(L, -1)) {
    case LUA_TSTRING:
        s = lua_tolstring(L, -1, &n);
        return add_string(e, up, s, n, 0);
    case LUA_TNUMBER:
        return add_number(e, up);
    case LUA_TTABLE:
        return encode_table(e, up, depth);
    case LUA_TBOOLEAN:
        return lua_toboolean(L, -1) ? add(e, up, "true", 4) : add(e, up, "false", 5);
    case LUA_TNIL:
        return add(e, up, "null", 4);
    case LUA_TLIGHTUSERDATA:
        if (lua_touserdata(L, -1) == NULL)
            return add(e, up, "null", 4);
        return fail_type(e, up);
    default:
        return fail_type(e, up);
    }
}

static const void *marker_pointer(lua_State *L, enum mp__marker which)
{
    const void *p;

    mp__json_push_marker(L, which);
    p = lua_topointer(L, -1);
    lua_pop(L, 1);
    return p;
}

int mp__json_encode_with(lua_State *L, int idx, struct mp__buf *out,
                         const struct mp__json_options *opt, char *err, size_t errcap)
{
    struct encoder e = {.L = L, .out = out, .opt = opt, .err = err, .errcap = errcap};
    size_t start = out->n;
    int top = lua_gettop(L);
    int rc;

    if (errcap > 0)
        err[0] = '\0';
    if (!lua_checkstack(L, 4))
        return fail(&e, NULL, "out of memory");
    e.array_marker = marker_pointer(L, MP__MARK_ARRAY);
    e.object_marker = marker_pointer(L, MP__MARK_OBJECT);
    e.number_marker = marker_pointer(L, MP__MARK_NUMBER);
    lua_pushvalue(L, idx);
    rc = encode_value(&e, NULL, 0);
    lua_settop(L, top);
    if (rc != 0)
        out->n = start;
    return rc;
}

int mp__json_encode(lua_State *L, int idx, struct mp__buf *out, char *err, size_t errcap)
{
    return mp__json_encode_with(L, idx, out, NULL, err, errcap);
}

/*
 * item.c - an item's record and its line of JSON. Keys are in byte order, so a job that was cut short
 * and taken up again writes the bytes that an undisturbed one writes.
 */
#include "binding/job/job.h"

#include "base/hash.h"
#include "binding/value/json.h"
#include "codec/json_write.h"
#include "codec/utf8.h"

#include <stdio.h>
#include <string.h>

static const char broken[] = "\xEF\xBF\xBD"; /* U+FFFD */

static int put(struct mp__buf *b, const char *s, size_t n)
{
    return mp__buf_add(b, s, n);
}

/* ---- reading ---- */

static int is(const char *name, size_t n, const char *what)
{
    return strlen(what) == n && memcmp(name, what, n) == 0;
}

static void take(lua_State *L, struct mp__item *item, const char *name, size_t n)
{
    struct mp__span *span = is(name, n, "text")   ? &item->text
                            : is(name, n, "key")  ? &item->key
                            : is(name, n, "json") ? &item->json
                                                  : NULL;

    if (span != NULL && lua_type(L, -1) == LUA_TSTRING)
        span->p = lua_tolstring(L, -1, &span->n);
    else if (is(name, n, "id") || is(name, n, "parent") || is(name, n, "piece"))
        item->labels = 1;
    else if (is(name, n, "problem"))
        item->problem = lua_toboolean(L, -1);
}

void mp__item_read(lua_State *L, int idx, struct mp__item *item)
{
    size_t n;

    memset(item, 0, sizeof(*item));
    idx = lua_absindex(L, idx);
    lua_pushnil(L);
    while (lua_next(L, idx)) {
        if (lua_type(L, -2) == LUA_TSTRING) {
            const char *name = lua_tolstring(L, -2, &n);

            take(L, item, name, n);
        }
        lua_pop(L, 1); /* the item still holds it */
    }
}

/* ---- records ---- */

static uint64_t number_hash(lua_State *L, uint64_t before)
{
    struct {
        uint64_t before;
        lua_Number value;
        int kind;
    } v;

    memset(&v, 0, sizeof(v));
    v.before = before;
    v.kind = lua_isinteger(L, -1) ? 1 : lua_isboolean(L, -1) ? 2 + lua_toboolean(L, -1) : 4;
    v.value = v.kind == 1 || v.kind == 4 ? lua_tonumber(L, -1) : 0;
    return mp__hash64(&v, sizeof(v), 0);
}

static uint64_t mix(lua_State *L, int idx, const char *name, uint64_t before)
{
    size_t n;
    const char *s;

    if (lua_getfield(L, idx, name) == LUA_TNIL) {
        lua_pop(L, 1);
        return before;
    }
    if (lua_type(L, -1) == LUA_TSTRING) {
        s = lua_tolstring(L, -1, &n);
        before = before * 31 + mp__hash64(s, n, 0) + 1;
    } else {
        before = number_hash(L, before);
    }
    lua_pop(L, 1);
    return before;
}

/* High half first, each from its highest byte (xxHash's canonical form); the last is the row's state. */
static void row_key(const struct mp__span *span, unsigned char key[16])
{
    struct mp__hash128 h = mp__hash128(span->p, span->n, 0);

    for (int i = 0; i < 8; i++) {
        key[i] = (unsigned char)(h.high >> (56 - 8 * i));
        key[8 + i] = (unsigned char)(h.low >> (56 - 8 * i));
    }
    key[15] = 0;
}

void mp__item_row(lua_State *L, int idx, const struct mp__item *item, struct mp__row *row)
{
    const struct mp__span *span = item->key.p != NULL ? &item->key : &item->text;

    row_key(span, row->key);
    row->tag = 0;
    if (!item->labels)
        return;
    row->tag = mix(L, idx, "id", 0);
    row->tag = mix(L, idx, "parent", row->tag);
    row->tag = mix(L, idx, "piece", row->tag);
}

/* ---- lines ---- */

/* A string as JSON, U+FFFD where it is no UTF-8: there is no other way. */
static int add_cleaned(struct mp__buf *b, const char *s, size_t n)
{
    struct mp__buf clean;
    size_t i = 0, from = 0, bad, step;
    int rc = 0;

    mp__buf_init(&clean, 0);
    while (rc == 0 && i < n) {
        step = (unsigned char)s[i] < 0x80 ? 1 : mp__utf8_seq((const unsigned char *)s + i, n - i);
        if (step == 0) {
            rc = put(&clean, s + from, i - from);
            rc = rc ? rc : put(&clean, broken, 3);
            from = i + 1;
        }
        i += step ? step : 1;
    }
    rc = rc ? rc : put(&clean, s + from, n - from);
    rc = rc ? rc : mp__json_string(b, clean.p != NULL ? clean.p : "", clean.n, &bad);
    mp__buf_free(&clean);
    return rc;
}

static int add_string(struct mp__buf *b, const char *s, size_t n)
{
    size_t before = b->n, bad;

    if (mp__json_string(b, s, n, &bad) == 0)
        return 0;
    b->n = before;
    return add_cleaned(b, s, n);
}

/* ,"name":value of a field that is there and has a form in JSON. */
static int add_field(lua_State *L, int item, const char *name, struct mp__buf *b)
{
    size_t before = b->n, n;
    char err[16];
    int rc = 0;

    if (lua_getfield(L, item, name) != LUA_TNIL) {
        rc = mp__buf_adds(b, ",\"") || mp__buf_adds(b, name) || mp__buf_adds(b, "\":");
        if (lua_type(L, -1) == LUA_TSTRING) {
            const char *s = lua_tolstring(L, -1, &n);

            rc = rc || add_string(b, s, n);
        } else if (!rc && mp__json_encode(L, -1, b, err, sizeof(err)) != 0) {
            b->n = before;
        }
    }
    lua_pop(L, 1);
    return rc ? MP__ENOMEM : 0;
}

static int add_integer(struct mp__buf *b, const char *name, lua_Integer v)
{
    char text[48];
    int n = snprintf(text, sizeof(text), "%lld", (long long)v);

    return mp__buf_adds(b, name) || put(b, text, (size_t)n);
}

/* {"kind":..,"message":..,"status":..}: what is told of an error. */
static int add_error(lua_State *L, int error, struct mp__buf *b)
{
    struct mp__json_options sorted = {.sort_keys = 1};
    size_t before = b->n;
    char err[64];

    if (error == 0)
        return mp__buf_adds(b, "null");
    if (mp__json_encode_with(L, error, b, &sorted, err, sizeof(err)) == 0)
        return 0;
    b->n = before;
    return mp__buf_adds(b,
                        "{\"kind\":\"invalid\",\"message\":\"an error that has no form in JSON\"}");
}

static int add_labels(lua_State *L, int idx, struct mp__buf *b)
{
    return add_field(L, idx, "id", b) || add_field(L, idx, "parent", b) ||
           add_field(L, idx, "piece", b);
}

int mp__item_line(lua_State *L, int idx, const struct mp__item *item, lua_Integer row, int error,
                  int with_text, struct mp__buf *b)
{
    int rc;

    if (item->json.p != NULL)
        return put(b, item->json.p, item->json.n) || mp__buf_addc(b, '\n') ? MP__ENOMEM : 0;
    rc = mp__buf_adds(b, "{\"error\":") || add_error(L, error, b) ||
         (item->labels && add_labels(L, idx, b)) || add_integer(b, ",\"row\":", row);
    if (!rc && with_text && item->text.p != NULL)
        rc = mp__buf_adds(b, ",\"text\":") || add_string(b, item->text.p, item->text.n);
    return rc || mp__buf_adds(b, "}\n") ? MP__ENOMEM : 0;
}

/* text_fault(text) -> nil, "blank" or "nul": why a text cannot be asked. */
int mp__l_text_fault(lua_State *L)
{
    size_t n, i = 0;
    const char *s = luaL_checklstring(L, 1, &n);

    while (i < n && (s[i] == ' ' || (s[i] >= '\t' && s[i] <= '\r')))
        i++;
    if (i < n && memchr(s, '\0', n) == NULL)
        return 0;
    lua_pushstring(L, i == n ? "blank" : "nul");
    return 1;
}

/*
 * json_decode.c - JSON text to Lua values, in one pass and without a tree in between.
 *
 * The elements of a small array or object wait on the Lua stack until the closing bracket, so that
 * its table is made once and of the right size; growing tables cost more than parsing.
 */
#include "binding/value/json.h"
#include "codec/json_text.h"
#include "codec/json_write.h"
#include "codec/utf8.h"

#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <lauxlib.h>

#define ON_STACK 32 /* elements, or keys and values, that wait on the stack */

struct decoder {
    lua_State *L;
    const char *start;
    const char *p;
    const char *end;
    const char *what; /* the error, once there is one */
    const char *at;   /* and its place */
    int depth;
    size_t left; /* of the budget of values */
};

static const char too_many[] = "the values would take too much memory";

static int parse_value(struct decoder *d);

static int fail_at(struct decoder *d, const char *at, const char *what)
{
    d->what = what;
    d->at = at;
    return -1;
}

static int fail(struct decoder *d, const char *what)
{
    return fail_at(d, d->p, d->p == d->end ? "the text ends too early" : what);
}

static int take(struct decoder *d, size_t bytes)
{
    return mp__values_take(&d->left, bytes) ? 0 : fail_at(d, d->p, too_many);
}

static void skip_space(struct decoder *d)
{
    d->p = mp__json_skip(d->p, d->end);
}

/* ---- numbers ---- */

static int is_digit(const struct decoder *d)
{
    return d->p < d->end && *d->p >= '0' && *d->p <= '9';
}

struct number {
    uint64_t mant; /* of the first 19 significant digits */
    int digits;    /* significant, up to 20 */
    int point;     /* power of ten of mant's last digit */
    int plain;     /* neither fraction nor exponent */
    int neg;
};

static void eat_digits(struct decoder *d, struct number *num, int in_fraction)
{
    for (; is_digit(d); d->p++) {
        if (num->digits < 19) {
            num->mant = num->mant * 10 + (uint64_t)(*d->p - '0');
            num->digits += num->mant != 0;
            num->point -= in_fraction;
        } else {
            num->digits = 20; /* cut off: only strtod knows */
        }
    }
}

static int scan_number(struct decoder *d, struct number *num)
{
    int exp = 0, sign = 1;

    num->neg = *d->p == '-';
    d->p += num->neg;
    if (!is_digit(d))
        return fail(d, "a digit must follow the minus sign");
    if (*d->p == '0' && d->p + 1 < d->end && d->p[1] >= '0' && d->p[1] <= '9')
        return fail(d, "a number may not begin with 0");
    eat_digits(d, num, 0);
    num->plain = 1;
    if (d->p < d->end && *d->p == '.') {
        num->plain = 0;
        d->p++;
        if (!is_digit(d))
            return fail(d, "a digit must follow the decimal point");
        eat_digits(d, num, 1);
    }
    if (d->p < d->end && (*d->p == 'e' || *d->p == 'E')) {
        num->plain = 0;
        d->p++;
        if (d->p < d->end && (*d->p == '+' || *d->p == '-'))
            sign = *d->p++ == '-' ? -1 : 1;
        if (!is_digit(d))
            return fail(d, "a digit must follow the exponent");
        for (; is_digit(d); d->p++)
            exp = exp < 100000 ? exp * 10 + (*d->p - '0') : exp;
        num->point += sign * exp;
    }
    return 0;
}

static double strtod_c(const char *p)
{
    static locale_t c_locale; /* a script may have called os.setlocale */

    if (c_locale == NULL)
        c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    return c_locale != NULL ? strtod_l(p, NULL, c_locale) : strtod(p, NULL);
}

/* Only a number at the very end may lack a byte after it that stops strtod. */
static double slow_number(struct decoder *d, const char *start)
{
    double v;

    if (d->p < d->end)
        return strtod_c(start);
    lua_pushlstring(d->L, start, (size_t)(d->p - start));
    v = strtod_c(lua_tostring(d->L, -1));
    lua_pop(d->L, 1);
    return v;
}

/* Beyond Lua's integers: a float where that is exact, else its digits. */
static int large_integer(struct decoder *d, const char *start)
{
    char text[330];
    size_t n = (size_t)(d->p - start);
    double v = slow_number(d, start);

    if (n < sizeof(text) && snprintf(text, sizeof(text), "%.0f", v) == (int)n &&
        memcmp(text, start, n) == 0) {
        lua_pushnumber(d->L, v);
        return 0;
    }
    mp__json_push_digits(d->L, start, n);
    return take(d, MP__VALUE_TABLE + MP__VALUE_STRING + n);
}

static int parse_number(struct decoder *d)
{
    static const double pow10[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                   1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                   1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    struct number num = {0};
    const char *start = d->p;
    double v;

    if (scan_number(d, &num) != 0)
        return -1;
    if (num.plain && num.digits <= 19 && num.mant <= (uint64_t)INT64_MAX + (unsigned)num.neg &&
        !(num.neg && num.mant == 0)) {
        lua_pushinteger(d->L, (lua_Integer)(num.neg ? 0 - num.mant : num.mant));
        return 0;
    }
    if (num.plain && num.mant != 0)
        return large_integer(d, start);
    if (num.digits <= 19 && num.mant <= UINT64_C(1) << 53 && num.point >= -22 && num.point <= 22) {
        /* both factors are exact doubles, so one rounding: exact (Clinger, PLDI 1990) */
        v = (double)num.mant;
        v = num.point < 0 ? v / pow10[-num.point] : v * pow10[num.point];
        v = num.neg ? -v : v;
    } else {
        v = slow_number(d, start);
    }
    if (isinf(v))
        return fail_at(d, start, "the number is out of range");
    lua_pushnumber(d->L, v);
    return 0;
}

/* ---- strings ---- */

/* d->p is at the 'u'. Bytes written, or -1. */
static int unescape_u(struct decoder *d, const char *close, char *out)
{
    const char *at = d->p - 1;
    int hi = close - d->p >= 5 ? mp__json_hex4(d->p + 1) : -1;
    int lo;

    if (hi < 0)
        return fail_at(d, at, "\\u needs four hexadecimal digits");
    d->p += 5;
    if (hi < 0xD800 || hi > 0xDFFF)
        return (int)mp__utf8_put(out, (unsigned)hi);
    if (hi > 0xDBFF || close - d->p < 6 || d->p[0] != '\\' || d->p[1] != 'u')
        return fail_at(d, at, "half of a surrogate pair");
    lo = mp__json_hex4(d->p + 2);
    if (lo < 0xDC00 || lo > 0xDFFF)
        return fail_at(d, at, "half of a surrogate pair");
    d->p += 6;
    return (int)mp__utf8_put(out, mp__utf8_pair((uint32_t)hi, (uint32_t)lo));
}

static int unescape_one(struct decoder *d, const char *close, char *out)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char *hit;

    d->p++; /* the backslash; the scan has made sure that a byte follows it */
    if (*d->p == 'u')
        return unescape_u(d, close, out);
    hit = *d->p ? strchr(from, *d->p) : NULL;
    if (hit == NULL)
        return fail_at(d, d->p - 1, "unknown escape");
    out[0] = to[hit - from];
    d->p++;
    return 1;
}

/* The text of d->p..close has escapes; unescaped it is never longer. */
static int push_escaped(struct decoder *d, const char *close)
{
    luaL_Buffer b;
    char *out = luaL_buffinitsize(d->L, &b, (size_t)(close - d->p));
    size_t n = 0;

    while (d->p < close) {
        const char *esc = memchr(d->p, '\\', (size_t)(close - d->p));
        size_t run = (size_t)((esc != NULL ? esc : close) - d->p);
        int got;

        memcpy(out + n, d->p, run);
        n += run;
        d->p += run;
        if (esc == NULL)
            break;
        got = unescape_one(d, close, out + n);
        if (got < 0) {
            luaL_pushresultsize(&b, 0); /* returns the buffer's box */
            lua_pop(d->L, 1);
            return -1;
        }
        n += (size_t)got;
    }
    luaL_pushresultsize(&b, n);
    return 0;
}

/* Whether one of the eight bytes is a quote, a backslash, a control or not ASCII. */
static int eight_special(const char *p)
{
    const uint64_t ones = UINT64_C(0x0101010101010101), tops = UINT64_C(0x8080808080808080);
    uint64_t w, quote, slash;

    memcpy(&w, p, sizeof(w));
    quote = w ^ (ones * '"');
    slash = w ^ (ones * '\\');
    return (((quote - ones) & ~quote) | ((slash - ones) & ~slash) | (w - ones * 0x20) | w) & tops
               ? 1
               : 0;
}

static int parse_string(struct decoder *d)
{
    const char *open = d->p++;
    const char *s = d->p, *start = d->p;
    int escapes = 0, wide = 0;
    size_t bad = 0;

    for (;; s++) {
        while (d->end - s >= 8 && !eight_special(s))
            s += 8;
        if (s >= d->end)
            return fail_at(d, open, "the string never ends");
        if (*s == '"')
            break;
        if ((unsigned char)*s < 0x20)
            return fail_at(d, s, "a control character in a string must be escaped");
        wide |= *s & 0x80;
        if (*s == '\\') {
            escapes = 1;
            s++;
            if (s >= d->end)
                return fail_at(d, open, "the string never ends");
        }
    }
    if (wide && mp__utf8_valid(start, (size_t)(s - start), &bad) != 0)
        return fail_at(d, start + bad, "invalid UTF-8");
    if (escapes) {
        if (push_escaped(d, s) != 0)
            return -1;
    } else {
        lua_pushlstring(d->L, start, (size_t)(s - start));
    }
    d->p = s + 1;
    return take(d, MP__VALUE_STRING + (size_t)(s - start));
}

/* ---- arrays and objects ---- */

/* The n values on the top become a list, which takes their place. */
static void close_small_array(lua_State *L, int n)
{
    lua_createtable(L, n, 0);
    if (n == 0) {
        mp__json_push_marker(L, MP__MARK_ARRAY);
        lua_setmetatable(L, -2);
        return;
    }
    lua_insert(L, -n - 1);
    for (int i = n; i >= 1; i--)
        lua_rawseti(L, -i - 1, i);
}

static int parse_elements(struct decoder *d)
{
    lua_State *L = d->L;
    lua_Integer n = 0;

    for (;;) {
        if (parse_value(d) != 0 || take(d, MP__VALUE_SLOT) != 0)
            return -1;
        n++;
        if (n == ON_STACK)
            close_small_array(L, ON_STACK);
        else if (n > ON_STACK)
            lua_rawseti(L, -2, n);
        skip_space(d);
        if (d->p < d->end && *d->p == ',') {
            d->p++;
            skip_space(d);
            continue;
        }
        if (d->p == d->end || *d->p != ']')
            return fail(d, "expected ',' or ']' after an array element");
        d->p++;
        if (n < ON_STACK)
            close_small_array(L, (int)n);
        return 0;
    }
}

static int parse_array(struct decoder *d)
{
    d->p++;
    skip_space(d);
    if (d->p < d->end && *d->p == ']') {
        d->p++;
        close_small_array(d->L, 0);
        return 0;
    }
    return parse_elements(d);
}

/* The n key-value pairs on the top become a table, which takes their place. In order: last wins. */
static void close_small_object(lua_State *L, int n)
{
    int base = lua_gettop(L) - 2 * n;

    lua_createtable(L, 0, n);
    for (int i = 0; i < n; i++) {
        lua_pushvalue(L, base + 2 * i + 1);
        lua_pushvalue(L, base + 2 * i + 2);
        lua_rawset(L, -3);
    }
    if (n > 0) {
        lua_replace(L, base + 1);
        lua_settop(L, base + 1);
    }
}

static int parse_pair(struct decoder *d)
{
    if (d->p == d->end || *d->p != '"')
        return fail(d, "expected a key in quotes");
    if (parse_string(d) != 0)
        return -1;
    skip_space(d);
    if (d->p == d->end || *d->p != ':')
        return fail(d, "expected ':' after an object key");
    d->p++;
    skip_space(d);
    return parse_value(d);
}

static int parse_members(struct decoder *d)
{
    lua_State *L = d->L;
    int n = 0;

    for (;;) {
        if (parse_pair(d) != 0 || take(d, MP__VALUE_NODE) != 0)
            return -1;
        n += n <= ON_STACK / 2;
        if (n == ON_STACK / 2)
            close_small_object(L, n);
        else if (n > ON_STACK / 2)
            lua_rawset(L, -3);
        skip_space(d);
        if (d->p < d->end && *d->p == ',') {
            d->p++;
            skip_space(d);
            continue;
        }
        if (d->p == d->end || *d->p != '}')
            return fail(d, "expected ',' or '}' after an object member");
        d->p++;
        if (n < ON_STACK / 2)
            close_small_object(L, n);
        return 0;
    }
}

static int parse_object(struct decoder *d)
{
    d->p++;
    skip_space(d);
    if (d->p < d->end && *d->p == '}') {
        d->p++;
        lua_createtable(d->L, 0, 0);
        return 0;
    }
    return parse_members(d);
}

static int parse_nested(struct decoder *d)
{
    int rc;

    if (d->depth >= MP__JSON_DECODE_DEPTH)
        return fail_at(d, d->p, "nested deeper than 512 levels");
    if (!lua_checkstack(d->L, ON_STACK + 8))
        return fail_at(d, d->p, "out of memory");
    if (take(d, MP__VALUE_TABLE) != 0)
        return -1;
    d->depth++;
    rc = *d->p == '[' ? parse_array(d) : parse_object(d);
    d->depth--;
    return rc;
}

static int eat_word(struct decoder *d, const char *word, size_t n)
{
    if ((size_t)(d->end - d->p) < n || memcmp(d->p, word, n) != 0)
        return fail_at(d, d->p, "expected a value");
    d->p += n;
    return 0;
}

static int parse_word(struct decoder *d)
{
    if (*d->p == 'n') {
        if (eat_word(d, "null", 4) != 0)
            return -1;
        lua_pushlightuserdata(d->L, NULL);
        return 0;
    }
    if (*d->p == 't') {
        if (eat_word(d, "true", 4) != 0)
            return -1;
        lua_pushboolean(d->L, 1);
        return 0;
    }
    if (eat_word(d, "false", 5) != 0)
        return -1;
    lua_pushboolean(d->L, 0);
    return 0;
}

/* d->p is at the first byte of a value; pushes one, or returns -1 with any number pushed. */
static int parse_value(struct decoder *d)
{
    if (d->p == d->end)
        return fail(d, "");
    switch (*d->p) {
    case '"':
        return parse_string(d);
    case '[':
    case '{':
        return parse_nested(d);
    case '-':
    case '0':
    case '1':
    case '2':
    case '3':
    case '4':
    case '5':
    case '6':
    case '7':
    case '8':
    case '9':
        return parse_number(d);
    default:
        return parse_word(d);
    }
}

static int parse_document(struct decoder *d)
{
    skip_space(d);
    if (d->p == d->end)
        return fail_at(d, d->p, "the text is empty");
    if (parse_value(d) != 0)
        return -1;
    skip_space(d);
    return d->p == d->end ? 0 : fail_at(d, d->p, "something follows the document");
}

static void report(const struct decoder *d, char *err, size_t errcap)
{
    size_t line = 1, byte = (size_t)(d->at - d->start) + 1;
    const char *bol = d->start;
    const char *nl;

    for (;;) {
        nl = memchr(bol, '\n', (size_t)(d->at - bol));
        if (nl == NULL)
            break;
        bol = nl + 1;
        line++;
    }
    snprintf(err, errcap, "line %zu, column %zu (byte %zu): %s", line, (size_t)(d->at - bol) + 1,
             byte, d->what);
}

int mp__json_decode(lua_State *L, const char *p, size_t n, char *err, size_t errcap)
{
    return mp__json_decode_within(L, p, n, MP__VALUES_MAX, err, errcap);
}

int mp__json_decode_within(lua_State *L, const char *p, size_t n, size_t most, char *err,
                           size_t errcap)
{
    struct decoder d = {.L = L, .left = most, .start = p != NULL ? p : "", .p = p != NULL ? p : ""};
    int top = lua_gettop(L);

    d.end = d.start + (p != NULL ? n : 0);
    if (!lua_checkstack(L, 8))
        fail_at(&d, d.p, "out of memory");
    else if (parse_document(&d) == 0)
        return 1;
    lua_settop(L, top);
    report(&d, err, errcap);
    return d.what == too_many ? -2 : -1;
}

/*
 * decode_string.c - strings and keys of a reply, byte by byte where it matters.
 *
 * A lone surrogate escape is refused: no UTF-8 text can hold it, so the rest could not be read
 * back.
 */
#include "codec/internal.h"
#include "codec/utf8.h"

#include <string.h>

void mp__dec_string_start(struct mp__decoder *d, int role)
{
    memset(&d->str, 0, sizeof(d->str));
    d->str.role = (uint8_t)role;
    d->state = STRING;
    if (role == NAME) {
        d->key_n = 0;
        d->key_odd = 0;
    }
}

static int kept(const struct mp__decoder *d)
{
    if (d->str.role == NAME)
        return d->frame[d->depth - 1].role == REST;
    return d->str.role == REST;
}

static void add_key(struct mp__decoder *d, const char *p, size_t n)
{
    if (n > MAX_KEY - d->key_n) {
        d->key_odd = 1;
        return;
    }
    memcpy(d->key + d->key_n, p, n);
    d->key_n += (uint32_t)n;
}

static size_t plain_run(const char *p, const char *end)
{
    const char *s = p;
    uint64_t w, quote, slash;
    const uint64_t ones = 0x0101010101010101u, high = 0x8080808080808080u;

    /* Eight at once while none is a quote, a backslash, a control or above ASCII. */
    for (; end - s >= 8; s += 8) {
        memcpy(&w, s, 8);
        quote = w ^ ones * '"';
        slash = w ^ ones * '\\';
        if (((w - ones * 0x20) | (quote - ones) | (slash - ones) | w) & high)
            break;
    }
    while (s < end && (unsigned char)*s >= 0x20 && (unsigned char)*s < 0x80 && *s != '"' &&
           *s != '\\')
        s++;
    return (size_t)(s - p);
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static void not_base64(struct mp__decoder *d)
{
    mp__dec_fault(d, NOT_BASE64, 0, 0);
    d->vec.spoilt = 1;
}

/* A whole escape has been read. */
static int escaped(struct mp__decoder *d, uint32_t code)
{
    d->str.text = TEXT;
    d->str.odd = 1;
    d->key_odd |= d->str.role == NAME;
    if (d->str.role != VECTOR || d->vec.spoilt || (code < 0x80 && mp__dec_vec_char(d, (char)code)))
        return 1;
    if (d->failed != 0)
        return 0;
    not_base64(d);
    return 1;
}

static int unit_done(struct mp__decoder *d)
{
    struct str *s = &d->str;
    int low = s->unit >= 0xDC00 && s->unit <= 0xDFFF;

    if (s->high != 0 || low) {
        if (s->high == 0 || !low)
            return 0;
        s->high = 0;
        return escaped(d, 0x10000);
    }
    if (s->unit >= 0xD800 && s->unit <= 0xDBFF) {
        s->high = s->unit;
        s->text = LOW_SLASH;
        return 1;
    }
    return escaped(d, s->unit);
}

static int hex_digit(struct mp__decoder *d, char c)
{
    struct str *s = &d->str;
    int v = hex_value(c);

    if (v < 0)
        return 0;
    s->unit = (uint16_t)(s->unit << 4 | v);
    return ++s->hex < 4 || unit_done(d);
}

static int after_backslash(struct mp__decoder *d, char c)
{
    static const char names[] = "\"\\/bfnrt", codes[] = "\"\\/\b\f\n\r\t";
    const char *at;

    if (c == 'u') {
        d->str.text = HEX;
        d->str.hex = 0;
        d->str.unit = 0;
        return 1;
    }
    at = c != '\0' ? strchr(names, c) : NULL;
    return at != NULL && escaped(d, (unsigned char)codes[at - names]);
}

static int first_byte(struct mp__decoder *d, unsigned char c)
{
    struct str *s = &d->str;
    size_t len;

    if (c == '\\') {
        s->text = ESCAPE;
        return 1;
    }
    len = mp__utf8_lead(c, &s->lo, &s->hi);
    if (c < 0x20 || len < 2)
        return 0;
    s->need = (uint8_t)(len - 1);
    s->text = UTF8;
    return 1;
}

static int next_byte(struct mp__decoder *d, unsigned char c)
{
    struct str *s = &d->str;

    if (c < s->lo || c > s->hi)
        return 0;
    s->lo = 0x80;
    s->hi = 0xBF;
    if (--s->need == 0)
        s->text = TEXT;
    return 1;
}

/* A byte that is not plain, or inside an escape or sequence; 0 when it cannot stand here. */
static int odd_byte(struct mp__decoder *d, char c)
{
    switch (d->str.text) {
    case UTF8:
        return next_byte(d, (unsigned char)c);
    case ESCAPE:
        return after_backslash(d, c);
    case HEX:
        return hex_digit(d, c);
    case LOW_SLASH:
        d->str.text = LOW_U;
        return c == '\\';
    case LOW_U:
        return c == 'u' && after_backslash(d, c);
    default:
        return first_byte(d, (unsigned char)c);
    }
}

static const char *bad_byte(struct mp__decoder *d, const char *p)
{
    if (d->failed != 0)
        return NULL;
    if (d->str.text == UTF8 || (unsigned char)*p >= 0x80)
        return mp__dec_fail(d, "a string is not UTF-8 at byte %llu", mp__dec_at(d, p));
    if (d->str.text == TEXT)
        return mp__dec_fail(d, "a control character in a string at byte %llu", mp__dec_at(d, p));
    return mp__dec_fail(d, "a wrong escape in a string at byte %llu", mp__dec_at(d, p));
}

static const char *string_end(struct mp__decoder *d, const char *p)
{
    if (kept(d) && !mp__dec_keep(d, "\"", 1))
        return NULL;
    if (d->str.role == NAME) {
        d->state = COLON;
        return p + 1;
    }
    if (d->str.role == VECTOR)
        return mp__dec_vec_end(d) ? p + 1 : NULL;
    if (d->str.role == INDEX && !mp__dec_position(d))
        return NULL;
    return mp__dec_over(d) ? p + 1 : NULL;
}

const char *mp__dec_string(struct mp__decoder *d, const char *p, const char *end)
{
    int keep = kept(d);
    size_t run;

    while (p < end) {
        if (d->str.text == TEXT) {
            if (d->str.role == VECTOR && !d->vec.spoilt) {
                p = mp__dec_vec_base64(d, p, end);
                if (p == NULL || p == end)
                    return p;
                if (*p != '"' && *p != '\\' && !d->vec.spoilt)
                    not_base64(d);
                if (d->vec.spoilt)
                    continue;
            } else {
                run = plain_run(p, end);
                if (keep && !mp__dec_keep(d, p, run))
                    return NULL;
                if (d->str.role == NAME)
                    add_key(d, p, run);
                else if (d->str.role == INDEX)
                    d->str.odd |= mp__num_feed(&d->num, p, run) != run;
                p += run;
                if (p == end)
                    return p;
            }
            if (*p == '"')
                return string_end(d, p);
        }
        if (!odd_byte(d, *p))
            return bad_byte(d, p);
        if (keep && !mp__dec_keep(d, p, 1))
            return NULL;
        if (d->str.role == NAME)
            add_key(d, p, 1);
        p++;
    }
    return p;
}

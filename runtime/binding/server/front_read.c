/* front_read.c - a plain request for embeddings, read without building anything. */
#include "binding/server/front.h"

#include "codec/json_text.h"
#include "codec/utf8.h"

#include <string.h>

struct reader {
    const char *p, *end;
    struct mp__buf *scratch;
};

static void skip_space(struct reader *r)
{
    r->p = mp__json_skip(r->p, r->end);
}

static int take(struct reader *r, char c)
{
    skip_space(r);
    if (r->p == r->end || *r->p != c)
        return 0;
    r->p++;
    return 1;
}

/* The escape at p (behind its backslash, before end) as bytes in out; the length read, 0: none. */
static size_t unescape(const char *p, const char *end, char *out, size_t *n)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char *at = p < end && *p != '\0' ? strchr(from, *p) : NULL;
    int u, low;
    if (at != NULL) {
        *out = to[at - from];
        *n = 1;
        return 1;
    }
    u = end - p < 5 || *p != 'u' ? -1 : mp__json_hex4(p + 1);
    if (u < 0 || (u >= 0xDC00 && u < 0xE000))
        return 0;
    if (u < 0xD800 || u >= 0xE000) {
        *n = mp__utf8_put(out, (uint32_t)u);
        return 5;
    }
    low = end - p < 11 || p[5] != '\\' || p[6] != 'u' ? -1 : mp__json_hex4(p + 7);
    if (low < 0xDC00 || low >= 0xE000)
        return 0;
    *n = mp__utf8_put(out, mp__utf8_pair((uint32_t)u, (uint32_t)low));
    return 11;
}

/* From the first escape on: into scratch, which has room for all of it. */
static int copy_string(struct reader *r, const char *start, struct mp_str *out)
{
    struct mp__buf *b = r->scratch;
    char *to = b->p + b->n;
    out->p = to;
    memcpy(to, start, (size_t)(r->p - start));
    to += r->p - start;
    while (r->p < r->end && *r->p != '"') {
        if ((unsigned char)*r->p < 0x20)
            return 0;
        if (*r->p != '\\') {
            *to++ = *r->p++;
            continue;
        }
        size_t n = 0;
        size_t len = unescape(r->p + 1, r->end, to, &n);
        if (len == 0)
            return 0;
        r->p += 1 + len;
        to += n;
    }
    if (r->p == r->end)
        return 0;
    out->n = (size_t)(to - out->p);
    b->n += out->n;
    r->p++;
    return 1;
}

static int read_string(struct reader *r, struct mp_str *out)
{
    if (!take(r, '"'))
        return 0;
    const char *start = r->p;
    while (r->p < r->end && *r->p != '"' && *r->p != '\\' && (unsigned char)*r->p >= 0x20)
        r->p++;
    if (r->p == r->end || (unsigned char)*r->p < 0x20)
        return 0;
    if (*r->p == '\\')
        return copy_string(r, start, out);
    out->p = start;
    out->n = (size_t)(r->p - start);
    r->p++;
    return 1;
}

static int read_input(struct reader *r, struct mp__front_body *out)
{
    skip_space(r);
    if (r->p < r->end && *r->p == '"') {
        out->nrows = 1;
        return read_string(r, &out->rows[0]);
    }
    if (!take(r, '['))
        return 0;
    do {
        if (out->nrows == MP__FRONT_ROWS || !read_string(r, &out->rows[out->nrows]))
            return 0;
        out->nrows++;
    } while (take(r, ','));
    return take(r, ']');
}

static int is(struct mp_str s, const char *word)
{
    return s.n == strlen(word) && memcmp(s.p, word, s.n) == 0;
}

static int read_field(struct reader *r, struct mp__front_body *out, unsigned *seen)
{
    struct mp_str name, format;
    unsigned bit;
    int fine;
    if (!read_string(r, &name) || !take(r, ':'))
        return 0;
    if (is(name, "input")) {
        bit = 1;
        fine = (*seen & bit) == 0 && read_input(r, out);
    } else if (is(name, "model")) {
        bit = 2;
        fine = read_string(r, &out->model);
    } else if (is(name, "encoding_format")) {
        bit = 4;
        fine = read_string(r, &format) && (is(format, "float") || is(format, "base64"));
        out->format = fine && is(format, "base64") ? MP_FORMAT_BASE64 : MP_FORMAT_FLOAT;
    } else {
        return 0;
    }
    fine = fine && (*seen & bit) == 0;
    *seen |= bit;
    return fine;
}

int mp__front_read(const char *p, size_t n, struct mp__buf *scratch, struct mp__front_body *out)
{
    struct reader r = {p, p + n, scratch};
    unsigned seen = 0;
    out->model.p = NULL;
    out->model.n = 0;
    out->nrows = 0;
    out->format = MP_FORMAT_FLOAT;
    scratch->n = 0;
    if (memchr(p, '\\', n) != NULL && mp__buf_reserve(scratch, n) != 0)
        return 0;
    if (!take(&r, '{'))
        return 0;
    do {
        if (!read_field(&r, out, &seen))
            return 0;
    } while (take(&r, ','));
    if (!take(&r, '}'))
        return 0;
    skip_space(&r);
    return r.p == r.end && (seen & 1);
}

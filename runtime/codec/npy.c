/*
 * npy.c - .npy headers: written with room for any row count, read with suspicion.
 */
#include "codec/npy.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define MAX_HEADER 65536 /* bytes of a header read; NumPy itself stops at 10000 */

int mp__npy_header(char *out, size_t cap, uint64_t rows, uint32_t cols, int f16)
{
    int n;

    if (cap < MP__NPY_HEADER)
        return MP_EINVAL;
    memset(out, ' ', MP__NPY_HEADER);
    memcpy(out, "\x93NUMPY\x01\x00", 8);
    out[8] = (char)(MP__NPY_HEADER - 10);
    out[9] = 0;
    /* 20 digits of rows and 10 of columns end at byte 105: always before the padding's newline. */
    n = snprintf(out + 10, MP__NPY_HEADER - 10,
                 "{'descr': '<f%d', 'fortran_order': False, 'shape': (%" PRIu64 ", %" PRIu32 "), }",
                 f16 ? 2 : 4, rows, cols);
    out[10 + n] = ' ';
    out[MP__NPY_HEADER - 1] = '\n';
    return MP__NPY_HEADER;
}

static int fail(char *err, size_t cap, const char *why)
{
    if (cap != 0)
        snprintf(err, cap, "%s", why);
    return MP_EINVAL;
}

/* ---- the header's Python literal: a cursor that never passes the end ------------------------- */

struct cursor {
    const char *p;
    const char *end;
};

static void space(struct cursor *c)
{
    while (c->p < c->end && (*c->p == ' ' || *c->p == '\n' || *c->p == '\t'))
        c->p++;
}

static int take(struct cursor *c, char ch)
{
    space(c);
    if (c->p == c->end || *c->p != ch)
        return 0;
    c->p++;
    return 1;
}

static int word(struct cursor *c, const char *w)
{
    size_t n = strlen(w);

    space(c);
    if ((size_t)(c->end - c->p) < n || memcmp(c->p, w, n) != 0)
        return 0;
    c->p += n;
    return 1;
}

static int quoted(struct cursor *c, char *out, size_t cap)
{
    size_t n = 0;
    char q;

    space(c);
    if (c->p == c->end || (*c->p != '\'' && *c->p != '"'))
        return 0;
    q = *c->p++;
    while (c->p < c->end && *c->p != q && n + 1 < cap)
        out[n++] = *c->p++;
    out[n] = '\0';
    return take(c, q);
}

static int integer(struct cursor *c, uint64_t *v)
{
    const char *start;

    space(c);
    start = c->p;
    for (*v = 0; c->p < c->end && *c->p >= '0' && *c->p <= '9'; c->p++)
        if (__builtin_mul_overflow(*v, 10u, v) ||
            __builtin_add_overflow(*v, (uint64_t)(*c->p - '0'), v))
            return 0;
    return c->p > start;
}

static const char *descr(struct cursor *c, struct mp__npy_info *info)
{
    char text[16];

    if (!quoted(c, text, sizeof(text)))
        return "npy: 'descr' is not a simple type";
    if (strcmp(text, "<f4") == 0)
        info->item = 4;
    else if (strcmp(text, "<f2") == 0)
        info->item = 2;
    else if (strcmp(text, "<f8") == 0)
        info->item = 8;
    else
        return "npy: element type is not '<f4', '<f2' or '<f8'";
    return NULL;
}

static const char *order(struct cursor *c)
{
    if (word(c, "False"))
        return NULL;
    return word(c, "True") ? "npy: fortran_order is not supported; save in C order"
                           : "npy: 'fortran_order' is not True or False";
}

static const char *shape(struct cursor *c, struct mp__npy_info *info)
{
    info->cols = 1;
    if (!take(c, '(') || !integer(c, &info->rows))
        return "npy: an array of one or two dimensions is needed";
    if (take(c, ',') && !take(c, ')')) {
        if (!integer(c, &info->cols))
            return "npy: 'shape' cannot be read";
        take(c, ',');
        if (!take(c, ')'))
            return "npy: an array of one or two dimensions is needed";
        return NULL;
    }
    return c->p[-1] == ')' ? NULL : "npy: 'shape' cannot be read";
}

static const char *dictionary(struct cursor *c, struct mp__npy_info *info)
{
    char key[32];
    unsigned seen = 0, bit;
    const char *why;

    if (!take(c, '{'))
        return "npy: the header is not a dictionary";
    while (!take(c, '}')) {
        if (!quoted(c, key, sizeof(key)) || !take(c, ':'))
            return "npy: the header cannot be read";
        if (strcmp(key, "descr") == 0) {
            bit = 1;
            why = descr(c, info);
        } else if (strcmp(key, "fortran_order") == 0) {
            bit = 2;
            why = order(c);
        } else if (strcmp(key, "shape") == 0) {
            bit = 4;
            why = shape(c, info);
        } else {
            return "npy: the header has an unknown key";
        }
        if (why != NULL)
            return why;
        if (seen & bit)
            return "npy: a key comes twice in the header";
        seen |= bit;
        if (!take(c, ',') && (c->p == c->end || *c->p != '}'))
            return "npy: the header cannot be read";
    }
    return seen == 7 ? NULL : "npy: the header lacks 'descr', 'fortran_order' or 'shape'";
}

int mp__npy_parse(const char *p, size_t n, struct mp__npy_info *info, char *err, size_t cap)
{
    struct cursor c;
    const uint8_t *u = (const uint8_t *)p;
    const char *why;
    uint64_t bytes;
    size_t start, len;

    memset(info, 0, sizeof(*info));
    info->offset = 12;
    if (n < 12)
        return MP_EAGAIN;
    if (memcmp(p, "\x93NUMPY", 6) != 0)
        return fail(err, cap, "npy: not an .npy file");
    if (u[6] < 1 || u[6] > 3 || u[7] != 0)
        return fail(err, cap, "npy: unknown format version");
    start = u[6] == 1 ? 10 : 12;
    len = (size_t)u[8] | (size_t)u[9] << 8;
    if (u[6] != 1)
        len |= (size_t)u[10] << 16 | (size_t)u[11] << 24;
    if (len > MAX_HEADER)
        return fail(err, cap, "npy: the header is too long");
    info->offset = start + len;
    if (n < start + len)
        return MP_EAGAIN;
    c.p = p + start;
    c.end = c.p + len;
    why = dictionary(&c, info);
    if (why == NULL && (__builtin_mul_overflow(info->rows, info->cols, &bytes) ||
                        bytes > (uint64_t)INT64_MAX / 8 - MAX_HEADER))
        why = "npy: the shape is too large";
    return why != NULL ? fail(err, cap, why) : 0;
}

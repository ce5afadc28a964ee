/*
 * decode_vec.c - the vectors of a reply: their elements and their checks.
 *
 * A vector goes straight into its row when its item number and the dimension are known before it
 * comes and its elements are floats; else into the scratch, and from there when all is known.
 */
#include "codec/internal.h"
#include "codec/json_text.h"
#include "codec/vec.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

static size_t width(const struct vec *v)
{
    return v->bytes ? 1 : sizeof(float);
}

int mp__dec_packed(const struct mp__decoder *d)
{
    return d->cfg.shape->dtype == MP__BITS || d->cfg.shape->dtype == MP__BITS_I8;
}

/* 0: failed, or the vector is too long, which is its row's fault. */
static int grow(struct mp__decoder *d)
{
    struct vec *v = &d->vec;
    size_t bytes = d->scratch_cap < 8192 ? 8192 : d->scratch_cap * 2;
    void *p;

    if (v->cap == v->limit) {
        mp__dec_fault(d, TOO_LONG, d->dim != 0 ? d->dim : d->cfg.max_dim, d->dim != 0);
        v->spoilt = 1;
        return 0;
    }
    p = realloc(d->scratch, bytes);
    if (p == NULL) {
        mp__dec_oom(d);
        return 0;
    }
    d->scratch = p;
    d->scratch_cap = bytes;
    v->p = p;
    v->cap = bytes / width(v) < v->limit ? bytes / width(v) : v->limit;
    return 1;
}

int mp__dec_vec_start(struct mp__decoder *d, char c)
{
    struct vec *v = &d->vec;
    int dtype = d->cfg.shape->dtype;
    size_t dims;

    memset(v, 0, sizeof(*v));
    v->bytes = c == '"';
    if (d->item.placed && d->dim != 0 && !mp__dec_packed(d) && (dtype == MP__F32 || !v->bytes)) {
        v->p = (uint8_t *)mp__dec_row(d, d->item.index);
        v->direct = 1;
        if (v->p == NULL)
            return 0;
    }
    dims = d->dim != 0 ? d->dim : d->cfg.max_dim;
    v->limit = mp__dec_packed(d) ? (dims + 7) / 8 : dims;
    if (v->bytes && dtype == MP__F32)
        v->limit *= sizeof(float);
    if (v->direct) {
        v->cap = v->limit;
        return 1;
    }
    if (d->scratch == NULL)
        return grow(d);
    v->p = d->scratch;
    v->cap = d->scratch_cap / width(v) < v->limit ? d->scratch_cap / width(v) : v->limit;
    return 1;
}

/* The list holds numbers: all rows in one vector, cut when their end is known. */
int mp__dec_flat_start(struct mp__decoder *d)
{
    struct vec *v = &d->vec;
    uint64_t dims = d->dim != 0 ? d->dim : d->cfg.max_dim;

    if (mp__dec_packed(d)) {
        mp__dec_fail(d, "packed bits in one list of all rows");
        return 0;
    }
    memset(v, 0, sizeof(*v));
    v->limit = (size_t)(dims * d->cfg.items);
    d->depth--; /* the list's frame: its bracket ends the vector */
    d->flat = 1;
    d->state = ELEMENT;
    if (d->scratch == NULL)
        return grow(d);
    v->p = d->scratch;
    v->cap = d->scratch_cap / width(v) < v->limit ? d->scratch_cap / width(v) : v->limit;
    return 1;
}

/* ---- base64 -------------------------------------------------------------------------------- */

const char *mp__dec_vec_base64(struct mp__decoder *d, const char *p, const char *end)
{
    struct vec *v = &d->vec;

    while (p < end) {
        p += mp__b64_feed(&v->b64, p, (size_t)(end - p), v->p + v->n, v->cap - v->n, &v->n);
        /* Stopped for want of room, or by what the caller must look at? */
        if (p == end || v->b64.have != 3 || v->cap - v->n >= 3 || *p == '"' || *p == '\\' ||
            *p == '=')
            break;
        if (!grow(d))
            return d->failed != 0 ? NULL : p;
    }
    return p;
}

int mp__dec_vec_char(struct mp__decoder *d, char c)
{
    const char *p = mp__dec_vec_base64(d, &c, &c + 1);

    return p == &c + 1;
}

/* 0: failed, or there is a fault. */
static int base64_end(struct mp__decoder *d)
{
    struct vec *v = &d->vec;
    size_t tail = v->b64.have > 1 ? v->b64.have - 1u : 0;

    while (v->cap - v->n < tail)
        if (!grow(d))
            return 0;
    if (mp__b64_finish(&v->b64, v->p + v->n, &v->n) != 0) {
        mp__dec_fault(d, BASE64_END, 0, 0);
        return 0;
    }
    if (d->cfg.shape->dtype != MP__F32)
        return 1;
    if (v->n % sizeof(float) != 0) {
        mp__dec_fault(d, BASE64_SIZE, v->n, 0);
        return 0;
    }
    v->n /= sizeof(float);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    for (size_t i = 0; i < v->n; i++) {
        uint32_t w;
        memcpy(&w, v->p + 4 * i, 4);
        w = __builtin_bswap32(w);
        memcpy(v->p + 4 * i, &w, 4);
    }
#endif
    return 1;
}

/* ---- the end of a vector ------------------------------------------------------------------- */

static void check_elements(struct mp__decoder *d)
{
    const float *x = (const float *)(const void *)d->vec.p;
    int dtype = d->cfg.shape->dtype;
    int is_signed = dtype == MP__I8 || dtype == MP__BITS_I8;
    float lo = is_signed ? -128 : 0, hi = is_signed ? 127 : 255;
    size_t i;

    if (dtype == MP__F32) {
        /* Numbers were checked when they were read; base64 can spell anything. */
        if (d->vec.bytes && mp__finite(x, d->vec.n, NULL) != 0)
            mp__dec_fault(d, VECTOR_NAN, 0, 0);
        else if (!d->flat && mp__dec_zero(d, x, d->vec.n))
            mp__dec_fault(d, ALL_ZERO, 0, 0);
        return;
    }
    for (i = 0; !d->vec.bytes && i < d->vec.n; i++)
        if (!(x[i] >= lo && x[i] <= hi && x[i] == (float)(int)x[i])) {
            mp__dec_fault(d, ELEMENT_RANGE, i + 1, (uint64_t)is_signed);
            return;
        }
}

static void check_vector(struct mp__decoder *d)
{
    size_t dims = mp__dec_packed(d) ? d->vec.n * 8 : d->vec.n;

    if (dims == 0)
        mp__dec_fault(d, IS_EMPTY, 0, 0);
    else if (dims > d->cfg.max_dim && d->dim == 0)
        mp__dec_fault(d, TOO_LONG, d->cfg.max_dim, 0);
    else if (d->dim != 0 && dims != d->dim)
        mp__dec_fault(d, DIMENSION, dims, d->dim);
    else
        check_elements(d);
}

static int flat_end(struct mp__decoder *d)
{
    const float *all = (const float *)(const void *)d->vec.p;
    size_t dims = d->cfg.items != 0 ? d->vec.n / d->cfg.items : 0;
    float *row;
    uint32_t i;

    if (dims == 0 || d->vec.n % d->cfg.items != 0) {
        mp__dec_fail(d, "reply has %zu numbers, which are not %u vectors of one dimension",
                     d->vec.n, d->cfg.items);
        return 0;
    }
    if (d->dim != 0 && dims != d->dim) {
        mp__dec_fail(d, "the vectors have dimension %zu, expected %u", dims, d->dim);
        return 0;
    }
    d->dim = (uint32_t)dims;
    check_elements(d);
    if (d->failed != 0)
        return 0;
    for (i = 0; i < d->cfg.items; i++) {
        row = mp__dec_row(d, i);
        if (row != NULL && dims != d->dim)
            mp__dec_fail(d, "the vectors have dimension %zu, expected %u", dims, d->dim);
        if (d->failed != 0)
            return 0;
        memcpy(row, all + i * dims, dims * sizeof(float));
        if (!mp__dec_zero(d, row, dims))
            d->done++;
        else if (!mp__dec_row_fault(d, ALL_ZERO, i))
            return 0;
    }
    d->position = d->cfg.items;
    memset(&d->item, 0, sizeof(d->item));
    d->flat = 0;
    return mp__dec_over(d);
}

int mp__dec_vec_end(struct mp__decoder *d)
{
    if (d->flat)
        return flat_end(d);
    if (!d->vec.spoilt && (!d->vec.bytes || base64_end(d)))
        check_vector(d);
    if (d->failed != 0)
        return 0;
    d->item.vector = 1;
    d->item.waits = !d->vec.direct;
    return mp__dec_over(d);
}

void mp__dec_vec_spoilt(struct mp__decoder *d, int state)
{
    d->frame[d->depth++] = (struct frame){.role = SPOILT}; /* the vector's start saw to the room */
    d->state = (uint8_t)state;
    d->lenient = 1;
}

/* ---- numbers ------------------------------------------------------------------------------- */

static const char *number(struct mp__decoder *d, const char *p, const char *end)
{
    struct vec *v = &d->vec;
    float unused;
    int err, room;

    p += mp__num_feed(&d->num, p, (size_t)(end - p));
    if (p == end)
        return p;
    room = v->n < v->cap || grow(d);
    err = mp__num_finish(&d->num, room ? (float *)(void *)v->p + v->n : &unused);
    if (d->failed != 0)
        return NULL;
    if (err == MP_ENOMEM)
        return mp__dec_oom(d);
    if (err == MP_EINVAL && *p == 'I' && mp__num_is_minus(&d->num)) {
        mp__dec_fault(d, ELEMENT_NAN, v->n + 1, 0);
        d->literal = "Infinity";
        d->role = SKIP;
        mp__dec_vec_spoilt(d, LITERAL);
        return d->failed == 0 ? p : NULL;
    }
    if (err == MP_EINVAL)
        return mp__dec_fail(d, "item %u: element %zu is not a JSON number (byte %llu)",
                            d->position + 1, v->n + 1, mp__dec_at(d, p));
    if (err == MP__ERANGE)
        mp__dec_fault(d, ELEMENT_HUGE, v->n + 1, 0);
    if (err != 0 || !room) {
        mp__dec_vec_spoilt(d, AFTER);
        return d->failed == 0 ? p : NULL;
    }
    v->n++;
    d->state = ELEMENT_AFTER;
    return p;
}

static enum why odd_element(char c)
{
    if (c == 'n')
        return ELEMENT_NULL;
    return c == 'N' || c == 'I' ? ELEMENT_NAN : ELEMENT_ODD;
}

static const char *element(struct mp__decoder *d, const char *p, const char *end)
{
    struct vec *v = &d->vec;

    if (v->n < v->cap)
        v->n += mp__num_list(&p, end, (float *)(void *)v->p + v->n, v->cap - v->n);
    p = mp__json_skip(p, end);
    if (p == end)
        return p;
    if (*p == ']' && v->n == 0)
        return mp__dec_vec_end(d) ? p + 1 : NULL;
    if (*p != '-' && (*p < '0' || *p > '9')) {
        mp__dec_fault(d, odd_element(*p), v->n + 1, 0);
        mp__dec_vec_spoilt(d, VALUE);
        return d->failed == 0 ? p : NULL;
    }
    mp__num_start(&d->num);
    d->state = ELEMENT_NUMBER;
    return p;
}

static const char *after(struct mp__decoder *d, const char *p, const char *end)
{
    p = mp__json_skip(p, end);
    if (p == end)
        return p;
    if (*p == ',') {
        d->state = ELEMENT;
        return p + 1;
    }
    if (*p != ']')
        return mp__dec_fail(d, "item %u: no comma after element %zu (byte %llu)", d->position + 1,
                            d->vec.n, mp__dec_at(d, p));
    return mp__dec_vec_end(d) ? p + 1 : NULL;
}

const char *mp__dec_vec_numbers(struct mp__decoder *d, const char *p, const char *end)
{
    while (p != NULL && p < end) {
        if (d->state == ELEMENT)
            p = element(d, p, end);
        else if (d->state == ELEMENT_NUMBER)
            p = number(d, p, end);
        else if (d->state == ELEMENT_AFTER)
            p = after(d, p, end);
        else
            break;
    }
    return p;
}

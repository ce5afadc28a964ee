/*
 * decode_vec.c - the vectors of a reply: their elements, their place, their checks.
 *
 * A vector goes straight into its row when its item number and the dimension are known before it
 * comes and its elements are floats; else into the scratch, and from there when all is known.
 */
#include "codec/internal.h"
#include "codec/vec.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

static size_t width(const struct vec *v)
{
    return v->bytes ? 1 : sizeof(float);
}

static int packed(const struct mp__decoder *d)
{
    return d->cfg.shape->dtype == MP__BITS || d->cfg.shape->dtype == MP__BITS_I8;
}

uint32_t mp__dec_row(const struct mp__decoder *d)
{
    return d->item.placed ? d->item.index : d->position;
}

/* ---- place --------------------------------------------------------------------------------- */

int mp__dec_place(struct mp__decoder *d, uint64_t index)
{
    uint64_t bit;

    if (index >= d->cfg.items) {
        mp__dec_fail(d, "index %llu out of range: %u were sent", (unsigned long long)index,
                     d->cfg.items);
        return 0;
    }
    bit = UINT64_C(1) << (index % 64);
    if (d->seen[index / 64] & bit) {
        mp__dec_fail(d, "duplicate index %llu", (unsigned long long)index);
        return 0;
    }
    d->seen[index / 64] |= bit;
    d->item.index = (uint32_t)index;
    d->item.placed = 1;
    return 1;
}

static float *row_of(struct mp__decoder *d)
{
    float *row = d->cfg.row(d->cfg.arg, d->item.index, d->dim);

    if (row == NULL)
        mp__dec_oom(d);
    return row;
}

static int grow(struct mp__decoder *d)
{
    struct vec *v = &d->vec;
    size_t bytes = d->scratch_cap < 8192 ? 8192 : d->scratch_cap * 2;
    void *p;

    if (v->cap == v->limit) {
        if (d->dim != 0)
            mp__dec_fail(d, "row %u has more than the expected dimension %u", mp__dec_row(d),
                         d->dim);
        else
            mp__dec_fail(d, "row %u has more than %u dimensions", mp__dec_row(d), d->cfg.max_dim);
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
    size_t dims = d->dim != 0 ? d->dim : d->cfg.max_dim;

    memset(v, 0, sizeof(*v));
    v->bytes = c == '"';
    v->limit = packed(d) ? (dims + 7) / 8 : dims;
    if (v->bytes && dtype == MP__F32)
        v->limit *= sizeof(float);
    if (d->item.placed && d->dim != 0 && !packed(d) && (dtype == MP__F32 || !v->bytes)) {
        v->p = (uint8_t *)row_of(d);
        v->cap = v->limit;
        v->direct = 1;
        return v->p != NULL;
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

    if (packed(d)) {
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
            return NULL;
    }
    return p;
}

int mp__dec_vec_char(struct mp__decoder *d, char c)
{
    const char *p = mp__dec_vec_base64(d, &c, &c + 1);

    return p == &c + 1;
}

static int base64_end(struct mp__decoder *d)
{
    struct vec *v = &d->vec;
    size_t tail = v->b64.have > 1 ? v->b64.have - 1u : 0;

    while (v->cap - v->n < tail)
        if (!grow(d))
            return 0;
    if (mp__b64_finish(&v->b64, v->p + v->n, &v->n) != 0) {
        mp__dec_fail(d, "row %u is not base64: its end is wrong", mp__dec_row(d));
        return 0;
    }
    if (d->cfg.shape->dtype != MP__F32)
        return 1;
    if (v->n % sizeof(float) != 0) {
        mp__dec_fail(d, "row %u is base64 of %zu bytes, not a multiple of 4", mp__dec_row(d), v->n);
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

static void range_of(int dtype, float *lo, float *hi)
{
    *lo = dtype == MP__I8 || dtype == MP__BITS_I8 ? -128 : 0;
    *hi = dtype == MP__I8 || dtype == MP__BITS_I8 ? 127 : 255;
}

static int check_elements(struct mp__decoder *d)
{
    const float *x = (const float *)(const void *)d->vec.p;
    int dtype = d->cfg.shape->dtype;
    float lo, hi;
    size_t i;

    if (dtype == MP__F32) {
        /* Numbers were checked when they were read; base64 can spell anything. */
        if (!d->vec.bytes || mp__finite(x, d->vec.n, NULL) == 0)
            return 1;
        mp__dec_fail(d, "NaN or infinity in row %u", mp__dec_row(d));
        return 0;
    }
    range_of(dtype, &lo, &hi);
    for (i = 0; !d->vec.bytes && i < d->vec.n; i++)
        if (!(x[i] >= lo && x[i] <= hi && x[i] == (float)(int)x[i])) {
            mp__dec_fail(d, "row %u: element %zu is not a whole number of %g to %g", mp__dec_row(d),
                         i, (double)lo, (double)hi);
            return 0;
        }
    return 1;
}

static int byte_at(const struct vec *v, size_t i)
{
    return v->bytes ? v->p[i] : (int)((const float *)(const void *)v->p)[i];
}

static void expand_bits(const struct mp__decoder *d, float *row)
{
    int flip = d->cfg.shape->dtype == MP__BITS_I8 ? 0x80 : 0; /* signed less 128 and back */
    size_t i;
    int b, k;

    for (i = 0; i < d->vec.n; i++) {
        b = byte_at(&d->vec, i) ^ flip;
        for (k = 0; k < 8; k++)
            row[8 * i + (size_t)k] = b & (0x80 >> k) ? 1.0f : -1.0f;
    }
}

/* From the scratch to the row. */
static int deliver(struct mp__decoder *d)
{
    const struct vec *v = &d->vec;
    float *row;
    size_t i;

    if (!v->direct) {
        row = row_of(d);
        if (row == NULL)
            return 0;
        if (packed(d))
            expand_bits(d, row);
        else if (d->cfg.shape->dtype == MP__F32 || !v->bytes)
            memcpy(row, v->p, v->n * sizeof(float));
        else
            for (i = 0; i < v->n; i++)
                row[i] = d->cfg.shape->dtype == MP__I8 ? (float)(int8_t)v->p[i] : (float)v->p[i];
    }
    d->done++;
    return 1;
}

static int flat_end(struct mp__decoder *d)
{
    const float *all = (const float *)(const void *)d->vec.p;
    size_t dims = d->cfg.items != 0 ? d->vec.n / d->cfg.items : 0;
    float *row;

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
    if (!check_elements(d))
        return 0;
    for (; d->done < d->cfg.items; d->done++) {
        if (!mp__dec_place(d, d->done) || (row = row_of(d)) == NULL)
            return 0;
        memcpy(row, all + d->done * dims, dims * sizeof(float));
    }
    d->position = d->done;
    memset(&d->item, 0, sizeof(d->item));
    d->flat = 0;
    mp__dec_value_end(d);
    return 1;
}

int mp__dec_vec_end(struct mp__decoder *d)
{
    size_t dims;

    if (d->flat)
        return flat_end(d);
    if (d->vec.bytes && !base64_end(d))
        return 0;
    dims = packed(d) ? d->vec.n * 8 : d->vec.n;
    if (dims == 0) {
        mp__dec_fail(d, "row %u is empty", mp__dec_row(d));
        return 0;
    }
    if (d->dim == 0 && dims <= d->cfg.max_dim)
        d->dim = (uint32_t)dims;
    if (dims != d->dim) {
        mp__dec_fail(d, "row %u has dimension %zu, expected %u", mp__dec_row(d), dims,
                     d->dim != 0 ? d->dim : d->cfg.max_dim);
        return 0;
    }
    if (!check_elements(d))
        return 0;
    d->item.vector = 1;
    d->item.waits = !d->item.placed;
    if (d->item.placed && !deliver(d))
        return 0;
    mp__dec_value_end(d);
    /* An item that is the vector itself ends here; an object ends at its brace. */
    return d->cfg.shape->vector != NULL || mp__dec_item_end(d);
}

int mp__dec_item_end(struct mp__decoder *d)
{
    const struct mp__shape *s = d->cfg.shape;

    if (!d->item.vector) {
        mp__dec_fail(d, "item %u has no \"%s\"", d->position, s->vector);
        return 0;
    }
    if (!d->item.placed) {
        mp__dec_fail(d, "item %u has no \"%s\"", d->position, s->index);
        return 0;
    }
    if (d->item.waits && !deliver(d))
        return 0;
    d->position++;
    memset(&d->item, 0, sizeof(d->item));
    return 1;
}

/* ---- numbers ------------------------------------------------------------------------------- */

static const char *number(struct mp__decoder *d, const char *p, const char *end)
{
    struct vec *v = &d->vec;
    int err;

    p += mp__num_feed(&d->num, p, (size_t)(end - p));
    if (p == end)
        return p;
    if (v->n == v->cap && !grow(d))
        return NULL;
    err = mp__num_finish(&d->num, (float *)(void *)v->p + v->n);
    if (err == MP_ENOMEM)
        return mp__dec_oom(d);
    if (err == MP__ERANGE)
        return mp__dec_fail(d, "row %u: element %zu is too large for float32", mp__dec_row(d),
                            v->n);
    if (err != 0)
        return mp__dec_fail(d, "row %u: element %zu is not a JSON number (byte %llu)",
                            mp__dec_row(d), v->n, mp__dec_at(d, p));
    v->n++;
    d->state = ELEMENT_AFTER;
    return p;
}

static const char *element(struct mp__decoder *d, const char *p, const char *end)
{
    struct vec *v = &d->vec;

    if (v->n < v->cap)
        v->n += mp__num_list(&p, end, (float *)(void *)v->p + v->n, v->cap - v->n);
    while (p < end && mp__dec_space(*p))
        p++;
    if (p == end)
        return p;
    if (*p == ']' && v->n == 0)
        return mp__dec_fail(d, "row %u is empty", mp__dec_row(d));
    if (*p != '-' && (*p < '0' || *p > '9'))
        return mp__dec_fail(d, "row %u: element %zu is not a number (byte %llu)", mp__dec_row(d),
                            v->n, mp__dec_at(d, p));
    mp__num_start(&d->num);
    d->state = ELEMENT_NUMBER;
    return p;
}

static const char *after(struct mp__decoder *d, const char *p, const char *end)
{
    while (p < end && mp__dec_space(*p))
        p++;
    if (p == end)
        return p;
    if (*p == ',') {
        d->state = ELEMENT;
        return p + 1;
    }
    if (*p != ']')
        return mp__dec_fail(d, "row %u: no comma after element %zu (byte %llu)", mp__dec_row(d),
                            d->vec.n - 1, mp__dec_at(d, p));
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

/*
 * decode_item.c - the items of a reply: which row each is for, what dimension holds, where a
 * complete vector goes, and what is wrong with the rows that get none.
 *
 * A dimension that nobody told is learnt from the first two vectors that agree, so that one odd
 * vector in front does not speak for all the others. Until then vectors are held.
 */
#include "codec/internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- place --------------------------------------------------------------------------------- */

int mp__dec_place(struct mp__decoder *d, uint64_t index)
{
    uint64_t bit;

    if (index >= d->cfg.items) {
        mp__dec_fail(d, "index %" PRIu64 " out of range: %u were sent", index, d->cfg.items);
        return 0;
    }
    bit = UINT64_C(1) << (index % 64);
    if (d->seen[index / 64] & bit) {
        mp__dec_fail(d, "duplicate index %" PRIu64, index);
        return 0;
    }
    d->seen[index / 64] |= bit;
    d->item.index = (uint32_t)index;
    d->item.placed = 1;
    return 1;
}

int mp__dec_position(struct mp__decoder *d)
{
    uint64_t index;

    if (d->str.odd || mp__num_uint(&d->num, &index) != 0) {
        mp__dec_fail(d, "item %u: \"%s\" is not a position", d->position + 1, d->cfg.shape->index);
        return 0;
    }
    return mp__dec_place(d, index);
}

/* ---- faults of rows ------------------------------------------------------------------------ */

static int add_fault(struct mp__decoder *d, struct fault fault, uint32_t row)
{
    size_t cap = d->faults_cap != 0 ? d->faults_cap * 2 : 8;
    struct fault *p;

    if (d->nfaults == d->faults_cap) {
        p = realloc(d->faults, cap * sizeof(*p));
        if (p == NULL) {
            mp__dec_oom(d);
            return 0;
        }
        d->faults = p;
        d->faults_cap = cap;
    }
    fault.row = row;
    d->faults[d->nfaults++] = fault;
    return 1;
}

static void words(const struct fault *f, char *out, size_t cap)
{
    static const char *const texts[] = {
        [SOUND] = "",
        [NO_VECTOR] = "its item has no vector",
        [NO_ITEM] = "the reply has no vector for it",
        [NO_OBJECT] = "its item is not an object",
        [NO_LIST] = "the vector is not a list",
        [IS_NULL] = "the vector is null",
        [IS_EMPTY] = "the vector is empty",
        [ELEMENT_NULL] = "element %" PRIu64 " of the vector is null",
        [ELEMENT_ODD] = "element %" PRIu64 " of the vector is not a number",
        [ELEMENT_NAN] = "element %" PRIu64 " of the vector is NaN or infinite",
        [ELEMENT_HUGE] = "element %" PRIu64 " of the vector is too large for float32",
        [ELEMENT_RANGE] = "element %" PRIu64 " of the vector is not a whole number of %s",
        [NOT_BASE64] = "the vector is not base64",
        [BASE64_END] = "the vector is not base64: its end is wrong",
        [BASE64_SIZE] = "the vector is base64 of %" PRIu64 " bytes, not a multiple of 4",
        [VECTOR_NAN] = "NaN or infinity in the vector",
        [ALL_ZERO] = "the vector is all zeros",
        [DIMENSION] = "the vector has dimension %" PRIu64 ", expected %" PRIu64,
        [TOO_LONG] = "the vector has more than %s%" PRIu64 " dimensions",
    };

    switch (f->why) {
    case ELEMENT_RANGE:
        snprintf(out, cap, texts[f->why], f->a, f->b ? "-128 to 127" : "0 to 255");
        break;
    case TOO_LONG:
        snprintf(out, cap, texts[f->why], f->b ? "the expected " : "", f->a);
        break;
    default:
        snprintf(out, cap, texts[f->why], f->a, f->b);
    }
}

/* In a list of all rows' numbers nobody knows yet whose it is. */
void mp__dec_fault(struct mp__decoder *d, enum why why, uint64_t a, uint64_t b)
{
    struct fault fault = {0, why, a, b};
    char text[128];

    if (d->flat) {
        words(&fault, text, sizeof(text));
        mp__dec_fail(d, "%s", text);
    }
    if (d->item.fault.why == SOUND)
        d->item.fault = fault;
    d->item.vector = 1;
}

int mp__dec_zero(const struct mp__decoder *d, const float *x, size_t n)
{
    size_t i = 0;

    if (d->cfg.zeros || n < MP__MODEL_DIMS)
        return 0;
    while (i < n && x[i] == 0)
        i++;
    return i == n;
}

int mp__dec_row_fault(struct mp__decoder *d, enum why why, uint32_t row)
{
    return add_fault(d, (struct fault){.why = why}, row);
}

uint32_t mp__decoder_faults(const struct mp__decoder *d)
{
    return d->nfaults;
}

uint32_t mp__decoder_missing(const struct mp__decoder *d)
{
    return d->state == END && d->failed == 0 ? d->cfg.items - d->position : 0;
}

uint32_t mp__decoder_fault(const struct mp__decoder *d, uint32_t k, char *why, size_t cap)
{
    words(&d->faults[k], why, cap);
    return d->faults[k].row;
}

/* ---- where vectors go ---------------------------------------------------------------------- */

float *mp__dec_row(struct mp__decoder *d, uint32_t index)
{
    uint32_t dim = d->dim;
    float *row = d->cfg.row(d->cfg.arg, index, dim);

    if (row == NULL && d->dim != dim)
        row = d->cfg.row(d->cfg.arg, index, d->dim);
    if (row == NULL)
        mp__dec_oom(d);
    return row;
}

static size_t dims_of(const struct mp__decoder *d, const struct whole *w)
{
    return mp__dec_packed(d) ? w->n * 8 : w->n;
}

static void expand_bits(const struct mp__decoder *d, const struct whole *w, float *row)
{
    int flip = d->cfg.shape->dtype == MP__BITS_I8 ? 0x80 : 0; /* signed less 128 and back */
    const float *x = (const float *)(const void *)w->p;
    size_t i;
    int b, k;

    for (i = 0; i < w->n; i++) {
        b = (w->bytes ? w->p[i] : (int)x[i]) ^ flip;
        for (k = 0; k < 8; k++)
            row[8 * i + (size_t)k] = b & (0x80 >> k) ? 1.0f : -1.0f;
    }
}

static int deliver(struct mp__decoder *d, const struct whole *w)
{
    size_t i, dims = dims_of(d, w);
    int dtype = d->cfg.shape->dtype;
    float *row = dims == d->dim ? mp__dec_row(d, w->index) : NULL;

    if (d->failed != 0)
        return 0;
    if (dims != d->dim) /* also where the row's owner has come to know better */
        return add_fault(d, (struct fault){0, DIMENSION, dims, d->dim}, w->index);
    if (mp__dec_packed(d))
        expand_bits(d, w, row);
    else if (dtype == MP__F32 || !w->bytes)
        memcpy(row, w->p, w->n * sizeof(float));
    else
        for (i = 0; i < w->n; i++)
            row[i] = dtype == MP__I8 ? (float)(int8_t)w->p[i] : (float)w->p[i];
    d->done++;
    return 1;
}

/* ---- the dimension ------------------------------------------------------------------------- */

void mp__dec_let_go(struct mp__decoder *d)
{
    while (d->nheld > 0)
        free((void *)d->held[--d->nheld].p);
}

static int hold(struct mp__decoder *d, const struct whole *w)
{
    int one = w->bytes && d->cfg.shape->dtype != MP__F32;
    size_t size = w->n * (one ? 1 : sizeof(float));
    uint8_t *p = malloc(size);

    if (p == NULL) {
        mp__dec_oom(d);
        return 0;
    }
    memcpy(p, w->p, size);
    d->held[d->nheld] = *w;
    d->held[d->nheld++].p = p;
    return 1;
}

static int deliver_held(struct mp__decoder *d)
{
    int ok = 1;
    uint32_t i;

    for (i = 0; i < d->nheld && ok; i++)
        ok = deliver(d, &d->held[i]);
    mp__dec_let_go(d);
    return ok;
}

/* A vector without a dimension to measure it by. */
static int learn(struct mp__decoder *d, const struct whole *w)
{
    size_t dims = dims_of(d, w);
    uint32_t i;

    for (i = 0; i < d->nheld && dims_of(d, &d->held[i]) != dims; i++)
        ;
    if (i == d->nheld && d->cfg.items > 1 && i < MAX_HELD)
        return hold(d, w);
    if (i == d->nheld && i > 0) /* no two agree */
        dims = dims_of(d, &d->held[0]);
    d->dim = (uint32_t)dims;
    return deliver_held(d) && deliver(d, w);
}

/* ---- ends ---------------------------------------------------------------------------------- */

static int item_end(struct mp__decoder *d)
{
    struct item *it = &d->item;
    const struct vec *v = &d->vec;
    struct whole w = {v->p, v->n, 0, v->bytes};
    int ok = 1;

    if (!it->placed) {
        d->unnamed = 1;
        if (!mp__dec_place(d, d->position))
            return 0;
    }
    if (!it->vector)
        mp__dec_fault(d, NO_VECTOR, 0, 0);
    w.index = it->index;
    if (it->fault.why != SOUND)
        ok = add_fault(d, it->fault, it->index);
    else if (!it->waits)
        d->done++;
    else
        ok = d->dim != 0 ? deliver(d, &w) : learn(d, &w);
    d->position++;
    memset(it, 0, sizeof(*it));
    return ok;
}

int mp__dec_over(struct mp__decoder *d)
{
    int role = d->depth != 0 ? d->frame[d->depth - 1].role : REST;

    d->state = d->depth == 0 ? END : AFTER;
    if (role == LIST || role == ITEM || role == INSIDE)
        d->lenient = 0;
    if (role != LIST && d->one != d->depth + 1)
        return 1;
    d->one = 0;
    return item_end(d);
}

static int note_missing(struct mp__decoder *d)
{
    uint32_t i;

    for (i = 0; i < d->cfg.items; i++)
        if (!(d->seen[i / 64] >> i % 64 & 1) && !add_fault(d, (struct fault){.why = NO_ITEM}, i))
            return 0;
    return 1;
}

int mp__dec_settle(struct mp__decoder *d)
{
    uint32_t items = d->cfg.items;
    char text[128];

    if (d->nheld > 0) {
        d->dim = (uint32_t)dims_of(d, &d->held[0]);
        if (!deliver_held(d))
            return 0;
    }
    if (d->position < items) {
        if (d->cfg.shape->index == NULL || d->unnamed || d->position == 0) {
            mp__dec_fail(d, "reply has %u vectors, %u were sent", d->position, items);
            return 0;
        }
        if (!note_missing(d))
            return 0;
    }
    if (d->done == 0 && items > 0) {
        words(&d->faults[0], text, sizeof(text));
        if (items == 1)
            mp__dec_fail(d, "%s", text);
        else
            mp__dec_fail(d, "no vector of %u is sound; the first: %s", items, text);
        return 0;
    }
    return 1;
}

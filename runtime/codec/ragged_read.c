/*
 * ragged_read.c - rows of several vectors, and sparse ones, out of JSON replies.
 *
 * A reply is whole when it comes here. What is looked at must be right; the rest is stepped over.
 */
#include "base/buf.h"
#include "codec/json_find.h"
#include "codec/json_text.h"
#include "codec/number.h"
#include "codec/ragged.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct row {
    size_t at; /* of its first vector among all read */
    size_t n;
    uint8_t read;
};

struct mp__ragged_build {
    size_t rows;
    size_t cols; /* 0: not known yet; 1 of sparse rows */
    int sparse;
    struct mp__buf numbers, places;
    struct row row[];
};

struct read { /* one reply being read */
    struct mp__ragged_build *b;
    const struct mp__ragged_shape *shape;
    const char *p, *end;
    size_t first, count, item;
    char *err;
    size_t cap;
    int failed;
};

struct mp__ragged_build *mp__ragged_build_new(size_t rows)
{
    struct mp__ragged_build *b = calloc(1, sizeof(*b) + rows * sizeof(b->row[0]));

    if (b == NULL)
        return NULL;
    b->rows = rows;
    mp__buf_init(&b->numbers, MP__RAGGED_MAX * sizeof(float));
    mp__buf_init(&b->places, MP__RAGGED_MAX * sizeof(uint32_t));
    return b;
}

void mp__ragged_build_free(struct mp__ragged_build *b)
{
    if (b == NULL)
        return;
    mp__buf_free(&b->numbers);
    mp__buf_free(&b->places);
    free(b);
}

/* ---- steps through JSON -------------------------------------------------------------------------- */

__attribute__((format(printf, 2, 3))) static int fail(struct read *r, const char *fmt, ...)
{
    va_list ap;

    if (r->failed == 0) {
        va_start(ap, fmt);
        vsnprintf(r->err, r->cap, fmt, ap);
        va_end(ap);
        r->failed = MP_EINVAL;
    }
    return 0;
}

static int oom(struct read *r)
{
    fail(r, "out of memory, or the reply is too large");
    r->failed = MP_ENOMEM;
    return 0;
}

static void space(struct read *r)
{
    r->p = mp__json_skip(r->p, r->end);
}

static int take(struct read *r, char c)
{
    space(r);
    if (r->p == r->end || *r->p != c)
        return 0;
    r->p++;
    return 1;
}

/* In a list: 1 when another element comes. *n counts those before. */
static int more(struct read *r, size_t *n)
{
    if (take(r, ']'))
        return 0;
    if (*n > 0 && !take(r, ','))
        return fail(r, "item %zu: the list is broken", r->item + 1);
    space(r);
    (*n)++;
    return r->p < r->end ? 1 : fail(r, "item %zu: the reply breaks off", r->item + 1);
}

static int number(struct read *r, float *out)
{
    struct mp__num num;

    mp__num_start(&num);
    r->p += mp__num_feed(&num, r->p, (size_t)(r->end - r->p));
    if (mp__num_finish(&num, out) != 0)
        return fail(r, "item %zu: not a number", r->item + 1);
    return 1;
}

static int place(struct read *r, uint32_t *out)
{
    struct mp__num num;
    uint64_t v;

    mp__num_start(&num);
    r->p += mp__num_feed(&num, r->p, (size_t)(r->end - r->p));
    if (mp__num_uint(&num, &v) != 0 || v > UINT32_MAX)
        return fail(r, "item %zu: not a place", r->item + 1);
    *out = (uint32_t)v;
    return 1;
}

static int add(struct read *r, struct mp__buf *b, const void *p, size_t n)
{
    return mp__buf_add(b, p, n) == 0 ? 1 : oom(r);
}

/* ---- rows -------------------------------------------------------------------------------------------- */

/* One vector, at its bracket; its numbers. */
static int vector(struct read *r)
{
    struct mp__ragged_build *b = r->b;
    size_t n = 0;
    float v;

    if (!take(r, '['))
        return fail(r, "item %zu: a vector is not a list", r->item + 1);
    while (more(r, &n))
        if (!number(r, &v) || !add(r, &b->numbers, &v, sizeof(v)))
            return 0;
    if (r->failed != 0)
        return 0;
    if (b->cols == 0)
        b->cols = n;
    if (n == 0 || n != b->cols)
        return fail(r, "item %zu: a vector has dimension %zu, expected %zu", r->item + 1, n,
                    b->cols);
    return 1;
}

/* The next value of the object at p: its text, stepped over. */
static int value_at(struct read *r, const char *object, size_t object_n, const char *path,
                    struct read *out)
{
    size_t n = 0;
    const char *p = mp__json_find(object, object_n, path, &n);

    if (p == NULL)
        return fail(r, "item %zu has no \"%s\"", r->item + 1, path);
    *out = *r;
    out->p = p;
    out->end = p + n;
    return 1;
}

/* The vector of an object in a row, and its place there. */
static int held_vector(struct read *r, uint32_t *where)
{
    const char *object = r->p;
    size_t len = 0;
    struct read at;
    int ok;

    if (mp__json_find(object, (size_t)(r->end - object), "", &len) == NULL || *object != '{')
        return fail(r, "item %zu: a vector's object is none", r->item + 1);
    r->p += len;
    ok = value_at(r, object, len, r->shape->numbers, &at) && vector(&at);
    if (ok && r->shape->places != NULL)
        ok = value_at(r, object, len, r->shape->places, &at) && place(&at, where);
    if (!ok && r->failed == 0)
        r->failed = at.failed != 0 ? at.failed : MP_EINVAL;
    return ok;
}

/* Vectors that came in another order than their places say. */
static int reorder(struct read *r, const struct row *row, const uint32_t *order)
{
    size_t bytes = r->b->cols * sizeof(float), i;
    char *all = r->b->numbers.p + row->at * bytes;
    char *copy = malloc(row->n * bytes + row->n);
    char *seen;

    if (copy == NULL)
        return oom(r);
    memcpy(copy, all, row->n * bytes);
    seen = memset(copy + row->n * bytes, 0, row->n);
    for (i = 0; i < row->n && r->failed == 0; i++) {
        if (order[i] >= row->n || seen[order[i]]++)
            fail(r, "item %zu: the place %u is out of range or comes twice", r->item + 1, order[i]);
        else
            memcpy(all + order[i] * bytes, copy + i * bytes, bytes);
    }
    free(copy);
    return r->failed == 0;
}

static int lists(struct read *r, struct row *row)
{
    struct mp__buf order;
    uint32_t where = 0;
    size_t n = 0;
    int ok = 1;

    if (!take(r, '['))
        return fail(r, "item %zu is not a list of vectors", r->item + 1);
    mp__buf_init(&order, MP__RAGGED_MAX);
    while (ok && more(r, &n)) {
        ok = r->shape->numbers != NULL ? held_vector(r, &where) : vector(r);
        if (ok && r->shape->places != NULL)
            ok = add(r, &order, &where, sizeof(where));
    }
    row->n = n;
    if (ok && r->failed == 0 && r->shape->places != NULL && n > 0)
        ok = reorder(r, row, (const uint32_t *)(const void *)order.p);
    mp__buf_free(&order);
    return ok && r->failed == 0;
}

static int pairs(struct read *r, struct row *row)
{
    size_t n = 0, len = 0;
    struct read at;
    uint32_t where;
    float v;

    if (!take(r, '['))
        return fail(r, "item %zu is not a list of pairs", r->item + 1);
    while (more(r, &n)) {
        const char *object = r->p;

        if (mp__json_find(object, (size_t)(r->end - object), "", &len) == NULL || *object != '{')
            return fail(r, "item %zu: a pair is not an object", r->item + 1);
        r->p += len;
        if (!value_at(r, object, len, r->shape->places, &at) || !place(&at, &where) ||
            !value_at(r, object, len, r->shape->numbers, &at) || !number(&at, &v)) {
            r->failed = MP_EINVAL;
            return 0;
        }
        if (!add(r, &r->b->places, &where, sizeof(where)) || !add(r, &r->b->numbers, &v, sizeof(v)))
            return 0;
    }
    row->n = n;
    return r->failed == 0;
}

static int arrays(struct read *r, const char *item, size_t item_n, struct row *row)
{
    struct read places, numbers;
    size_t np = 0, nn = 0;
    uint32_t where;
    float v;

    if (!value_at(r, item, item_n, r->shape->places, &places) ||
        !value_at(r, item, item_n, r->shape->numbers, &numbers))
        return 0;
    if (!take(&places, '[') || !take(&numbers, '['))
        return fail(r, "item %zu has no lists of places and numbers", r->item + 1);
    while (more(&places, &np) && place(&places, &where) &&
           add(&places, &r->b->places, &where, sizeof(where)))
        ;
    while (more(&numbers, &nn) && number(&numbers, &v) &&
           add(&numbers, &r->b->numbers, &v, sizeof(v)))
        ;
    r->failed = places.failed != 0 ? places.failed : numbers.failed;
    if (r->failed != 0)
        return 0;
    if (np != nn)
        return fail(r, "item %zu has %zu places and %zu numbers", r->item + 1, np, nn);
    row->n = nn;
    return 1;
}

/* ---- order of a sparse row ------------------------------------------------------------------------- */

struct pair {
    uint32_t place;
    float number;
};

static int by_place(const void *a, const void *b)
{
    uint32_t x = ((const struct pair *)a)->place, y = ((const struct pair *)b)->place;

    return x < y ? -1 : x > y;
}

static int sort_row(struct read *r, const struct row *row)
{
    uint32_t *places = (uint32_t *)(void *)r->b->places.p + row->at;
    float *numbers = (float *)(void *)r->b->numbers.p + row->at;
    struct pair *all;
    size_t i = 1;

    while (i < row->n && places[i] > places[i - 1])
        i++;
    if (i >= row->n)
        return 1;
    all = malloc(row->n * sizeof(*all));
    if (all == NULL)
        return oom(r);
    for (i = 0; i < row->n; i++)
        all[i] = (struct pair){places[i], numbers[i]};
    qsort(all, row->n, sizeof(*all), by_place);
    for (i = 0; i < row->n; i++) {
        places[i] = all[i].place;
        numbers[i] = all[i].number;
        if (i > 0 && places[i] == places[i - 1])
            fail(r, "item %zu names the place %u twice", r->item + 1, places[i]);
    }
    free(all);
    return r->failed == 0;
}

/* ---- items ------------------------------------------------------------------------------------------- */

static struct row *row_of(struct read *r, const char *item, size_t n)
{
    int64_t index = (int64_t)r->item;

    if (r->shape->index != NULL)
        index = mp__json_find_int(item, n, r->shape->index);
    if (index < 0 || (size_t)index >= r->count) {
        fail(r, "item %zu: its index is out of range: %zu were sent", r->item + 1, r->count);
        return NULL;
    }
    if (r->b->row[r->first + (size_t)index].read) {
        fail(r, "duplicate index %lld", (long long)index);
        return NULL;
    }
    return &r->b->row[r->first + (size_t)index];
}

static int item(struct read *r)
{
    const char *start = r->p;
    struct mp__ragged_build *b = r->b;
    size_t n = 0, width = b->sparse || b->cols == 0 ? 1 : b->cols;
    struct read inner = *r;
    struct row *row;
    int ok;

    if (r->item >= r->count)
        return fail(r, "reply has more items than the %zu that were sent", r->count);
    if (mp__json_find(start, (size_t)(r->end - start), "", &n) == NULL)
        return fail(r, "item %zu: the reply breaks off", r->item + 1);
    row = row_of(r, start, n);
    if (row == NULL)
        return 0;
    row->at = b->numbers.n / sizeof(float) / width;
    inner.end = start + n;
    if (r->shape->form != MP__RAGGED_ARRAYS && r->shape->vectors != NULL &&
        !value_at(r, start, n, r->shape->vectors, &inner))
        return 0;
    if (r->shape->form == MP__RAGGED_ARRAYS)
        ok = arrays(&inner, start, n, row);
    else
        ok = r->shape->form == MP__RAGGED_PAIRS ? pairs(&inner, row) : lists(&inner, row);
    r->failed = inner.failed;
    if (!ok || (b->sparse && !sort_row(r, row)))
        return 0;
    row->read = 1;
    r->p = start + n;
    return 1;
}

int mp__ragged_read(struct mp__ragged_build *b, const struct mp__ragged_shape *shape,
                    const char *body, size_t n, size_t first, size_t count, char *err, size_t cap)
{
    struct read r = {b, shape, body, body + n, first, count, 0, err, cap, 0};
    size_t numbers = b->numbers.n, places = b->places.n, cols = b->cols, i = 0;

    b->sparse = shape->form != MP__RAGGED_LISTS;
    if (first > b->rows || count > b->rows - first)
        return MP_EINVAL;
    r.p = mp__json_at(body, n, shape->list);
    if (r.p == NULL || !take(&r, '['))
        fail(&r, "the reply has no list%s%s", *shape->list != '\0' ? " " : "", shape->list);
    while (r.failed == 0 && more(&r, &i) && item(&r))
        r.item++;
    if (r.failed == 0 && r.item != count)
        fail(&r, "the reply has %zu items, %zu were sent", r.item, count);
    if (r.failed != 0) {
        b->numbers.n = numbers;
        b->places.n = places;
        b->cols = cols;
        for (i = first; i < first + count; i++)
            b->row[i] = (struct row){0};
    } else if (b->sparse) {
        b->cols = 1;
    }
    return r.failed;
}

/* ---- the matrix --------------------------------------------------------------------------------------- */

struct mp__ragged *mp__ragged_done(const struct mp__ragged_build *b)
{
    size_t cols = b->cols != 0 ? b->cols : 1, total = 0, i;
    uint64_t *offsets = calloc(b->rows + 1, sizeof(*offsets));
    uint32_t *indices = NULL;
    mp_matrix *m;

    if (offsets == NULL)
        return NULL;
    for (i = 0; i < b->rows; i++) {
        offsets[i] = total;
        total += b->row[i].n;
    }
    offsets[b->rows] = total;
    m = mp_matrix_new(total, cols);
    if (b->sparse)
        indices = malloc((total + 1) * sizeof(*indices));
    if (m == NULL || (b->sparse && indices == NULL)) {
        mp_matrix_unref(m);
        free(offsets);
        free(indices);
        return NULL;
    }
    for (i = 0; i < b->rows; i++) {
        const struct row *row = &b->row[i];

        if (row->n == 0)
            continue;
        memcpy(mp_matrix_data(m) + offsets[i] * cols,
               (const float *)(const void *)b->numbers.p + row->at * cols,
               row->n * cols * sizeof(float));
        if (b->sparse)
            memcpy(indices + offsets[i], (const uint32_t *)(const void *)b->places.p + row->at,
                   row->n * sizeof(*indices));
    }
    return mp__ragged_new(m, b->rows, offsets, indices);
}

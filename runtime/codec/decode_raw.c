/*
 * decode_raw.c - vectors that come as bytes: copied from the network's buffer to their rows, checked,
 * and never seen as text. A header, or JSON in front of them, says how they lie.
 */
#include "codec/internal.h"
#include "codec/json_find.h"
#include "codec/vec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_HEADER ((size_t)1 << 20)

static size_t width_of(int kind)
{
    return kind == RAW_F64 ? 8 : kind == RAW_F32 ? 4 : 2;
}

/* ---- a layout in JSON: {"data": [{index, start, end, embed_dtype, endianness, shape}], ...} -------- */

/*
 * The text of an item read before, between its three numbers: items differ in nothing else, so that
 * the next ones need no look-up of names, which would cost more than their vectors.
 */
struct pattern {
    int known;
    int order[3]; /* which of index, start, end comes first, second, third */
    const char *piece[4];
    size_t n[4];
};

static void learn_pattern(struct pattern *t, const char *p, size_t n)
{
    static const char *const names[] = {"index", "start", "end"};
    const char *value[3], *at = p;
    size_t value_n[3];
    int i, k, next;

    for (i = 0; i < 3; i++)
        value[i] = mp__json_find(p, n, names[i], &value_n[i]);
    for (i = 0; i < 3; i++) {
        next = -1;
        for (k = 0; k < 3; k++)
            if (value[k] >= at && (next < 0 || value[k] < value[next]))
                next = k;
        t->order[i] = next;
        t->piece[i] = at;
        t->n[i] = (size_t)(value[next] - at);
        at = value[next] + value_n[next];
    }
    t->piece[3] = at;
    t->n[3] = (size_t)(p + n - at);
    t->known = 1;
}

/* The numbers of an item with that text; its length, 0: it is another one. */
static size_t match_pattern(const struct pattern *t, const char *p, const char *end,
                            uint64_t number[3])
{
    const char *start = p;
    uint64_t v;
    int i, digits;

    for (i = 0; i < 4; i++) {
        if ((size_t)(end - p) < t->n[i] || memcmp(p, t->piece[i], t->n[i]) != 0)
            return 0;
        p += t->n[i];
        if (i == 3)
            break;
        v = 0;
        for (digits = 0; p < end && *p >= '0' && *p <= '9' && digits < 15; digits++)
            v = v * 10 + (uint64_t)(*p++ - '0');
        if (digits == 0)
            return 0;
        number[t->order[i]] = v;
    }
    return (size_t)(p - start);
}

static int text_is(const char *p, size_t n, const char *want)
{
    return p != NULL && n == strlen(want) + 2 && memcmp(p + 1, want, n - 2) == 0;
}

static int kind_named(const char *p, size_t n)
{
    static const struct {
        const char *name;
        int kind;
    } names[] = {{"float32", RAW_F32}, {"float16", RAW_F16}, {"bfloat16", RAW_BF16},
                 {"FP32", RAW_F32},    {"FP64", RAW_F64},    {"FP16", RAW_F16},
                 {"BF16", RAW_BF16}};
    size_t i;

    for (i = 0; i < sizeof(names) / sizeof(*names); i++)
        if (text_is(p, n, names[i].name))
            return names[i].kind;
    return 0;
}

static int read_item(struct mp__decoder *d, const char *p, size_t n, uint64_t number[3])
{
    int64_t index = mp__json_find_int(p, n, "index");
    int64_t start = mp__json_find_int(p, n, "start");
    int64_t end = mp__json_find_int(p, n, "end");
    int64_t dims = mp__json_find_int(p, n, "shape.0");
    const char *text;
    size_t text_n = 0;
    int kind;

    text = mp__json_find(p, n, "embed_dtype", &text_n);
    kind = text != NULL ? kind_named(text, text_n) : RAW_F32;
    if (kind == 0 || (d->raw.kind != 0 && kind != d->raw.kind)) {
        mp__dec_fail(d, "the reply's layout names a type of numbers that is not known: %.*s",
                     (int)(text_n < 20 ? text_n : 20), text != NULL ? text : "");
        return 0;
    }
    d->raw.kind = (uint8_t)kind;
    text = mp__json_find(p, n, "endianness", &text_n);
    d->raw.swap = text_is(text, text_n, "big");
    if (index < 0 || start < 0 || end <= start || (uint64_t)(end - start) % width_of(kind) != 0 ||
        (dims >= 0 && (uint64_t)dims * width_of(kind) != (uint64_t)(end - start)) ||
        mp__json_find(p, n, "shape.1", &text_n) != NULL) {
        mp__dec_fail(d, "the reply's layout makes no sense at vector %u", d->raw.nsegments + 1);
        return 0;
    }
    number[0] = (uint64_t)index;
    number[1] = (uint64_t)start;
    number[2] = (uint64_t)end;
    return 1;
}

/* One item; its length, 0 failed. */
static size_t read_segment(struct mp__decoder *d, const char *p, const char *end, struct pattern *t)
{
    struct segment *to = &d->segments[d->raw.nsegments];
    uint64_t number[3];
    size_t n = t->known ? match_pattern(t, p, end, number) : 0;

    /* The same text promises the same dimension; a length that breaks this is seen below. */
    if (n == 0) {
        if (mp__json_find(p, (size_t)(end - p), "", &n) == NULL)
            mp__dec_fail(d, "the header with the reply's layout breaks off");
        if (d->failed != 0 || !read_item(d, p, n, number))
            return 0;
        learn_pattern(t, p, n);
    }
    if (!mp__dec_place(d, number[0]))
        return 0;
    *to = (struct segment){number[1], number[2], (uint32_t)number[0]};
    d->raw.nsegments++;
    return n;
}

static int by_start(const void *a, const void *b)
{
    uint64_t x = ((const struct segment *)a)->start, y = ((const struct segment *)b)->start;

    return x < y ? -1 : x > y;
}

/* In the order of the body, without gaps, all as long as each other. */
static void check_segments(struct mp__decoder *d)
{
    struct segment *s = d->segments;
    size_t bytes = (size_t)(s[0].end - s[0].start);
    uint32_t i = 1;

    while (i < d->raw.nsegments && s[i].start > s[i - 1].start)
        i++;
    if (i < d->raw.nsegments)
        qsort(s, d->raw.nsegments, sizeof(*s), by_start);
    for (i = 0; i < d->raw.nsegments; i++) {
        if (s[i].start != (i == 0 ? 0 : s[i - 1].end)) {
            mp__dec_fail(d, "the reply's layout has a gap before byte %llu",
                         (unsigned long long)s[i].start);
            return;
        }
        if (s[i].end - s[i].start != bytes) {
            mp__dec_fail(d, "vector %u has dimension %llu, expected %zu", s[i].item + 1,
                         (unsigned long long)(s[i].end - s[i].start) / width_of(d->raw.kind),
                         bytes / width_of(d->raw.kind));
            return;
        }
    }
    d->raw.bytes = bytes;
}

static int room_for_segments(struct mp__decoder *d)
{
    if (d->cfg.items <= d->segments_cap)
        return 1;
    free(d->segments);
    d->segments_cap = 0;
    d->segments = malloc((size_t)d->cfg.items * sizeof(*d->segments));
    if (d->segments == NULL) {
        mp__dec_oom(d);
        return 0;
    }
    d->segments_cap = d->cfg.items;
    return 1;
}

/* Dimension and type are known: what comes now are vectors. */
static int begin(struct mp__decoder *d)
{
    size_t dims = d->raw.bytes / width_of(d->raw.kind);

    if (dims == 0 || dims > d->cfg.max_dim || (d->dim != 0 && dims != d->dim)) {
        mp__dec_fail(d, "the vectors have dimension %zu, expected %u", dims,
                     d->dim != 0 ? d->dim : d->cfg.max_dim);
        return 0;
    }
    d->dim = (uint32_t)dims;
    d->listed = 1;
    d->raw.on = 1;
    return 1;
}

/* What the header says besides the list of vectors: usage, model. */
static void keep_others(struct mp__decoder *d, const char *json, size_t n, const char *list,
                        const char *after)
{
    if (mp__dec_keep(d, json, (size_t)(list - json)) && mp__dec_keep(d, "[]", 2) &&
        mp__dec_keep(d, after, (size_t)(json + n - after)))
        d->state = END;
}

/* Where the list ends; NULL failed. */
static const char *read_list(struct mp__decoder *d, const char *p, const char *end)
{
    struct pattern pattern = {0};
    size_t n;

    for (p++; p < end && *p != ']'; p += n) {
        n = 1;
        if (*p != '{')
            continue;
        if (d->raw.nsegments == d->cfg.items)
            return mp__dec_fail(d, "reply has more vectors than the %u that were sent",
                                d->cfg.items);
        n = read_segment(d, p, end, &pattern);
        if (n == 0)
            return NULL;
    }
    if (d->raw.nsegments != d->cfg.items)
        return mp__dec_fail(d, "reply has %u vectors, %u were sent", d->raw.nsegments,
                            d->cfg.items);
    return p < end ? p + 1 : mp__dec_fail(d, "the header with the reply's layout breaks off");
}

int mp__dec_raw_layout(struct mp__decoder *d, const char *json, size_t n)
{
    const char *list = n <= MAX_HEADER ? mp__json_at(json, n, "data") : NULL;
    const char *after;

    if (list == NULL || *list != '[') {
        mp__dec_fail(d, "the header with the reply's layout has no list \"data\"");
        return d->failed;
    }
    if (!room_for_segments(d))
        return d->failed;
    after = read_list(d, list, json + n);
    if (after != NULL && d->raw.nsegments != 0)
        check_segments(d);
    if (d->failed == 0 && begin(d))
        keep_others(d, json, n, list, after);
    return d->failed;
}

/* ---- a JSON head with the tensor's sizes ------------------------------------------------------------ */

static int64_t size_at(const struct mp__decoder *d, int place)
{
    char path[96];

    snprintf(path, sizeof(path), "%s.%d", d->cfg.shape->dims, place);
    return mp__json_find_int(d->rest.p, d->rest.n, path);
}

int mp__dec_raw_start(struct mp__decoder *d)
{
    int64_t rows, dims;
    const char *kind;
    size_t n = 0;

    if (d->state != END || d->listed || d->cfg.shape->dims == NULL) {
        mp__dec_fail(d, "the JSON before the vectors ends in its middle, or holds vectors itself");
        return 0;
    }
    rows = size_at(d, 0);
    dims = size_at(d, 1);
    if (rows != (int64_t)d->cfg.items || dims <= 0 || dims > d->cfg.max_dim || size_at(d, 2) >= 0) {
        mp__dec_fail(d, "reply has a tensor of %lld rows x %lld, %u were sent", (long long)rows,
                     (long long)dims, d->cfg.items);
        return 0;
    }
    kind = d->cfg.shape->kind != NULL ? mp__json_find(d->rest.p, d->rest.n, d->cfg.shape->kind, &n)
                                      : NULL;
    d->raw.kind = (uint8_t)(kind != NULL ? kind_named(kind, n) : RAW_F32);
    if (d->raw.kind == 0) {
        mp__dec_fail(d, "a tensor of %.*s holds no vectors", (int)(n < 20 ? n : 20), kind);
        return 0;
    }
    d->raw.bytes = (size_t)dims * width_of(d->raw.kind);
    return begin(d);
}

/* ---- the bytes ---------------------------------------------------------------------------------------- */

static int same_order(int swap)
{
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    return swap;
#else
    return !swap;
#endif
}

static int is_direct(const struct mp__decoder *d)
{
    return d->raw.kind == RAW_F32 && same_order(d->raw.swap);
}

static void swap_each(uint8_t *p, size_t n, size_t width)
{
    uint8_t t;
    size_t i, k;

    for (i = 0; i < n; i += width)
        for (k = 0; k < width / 2; k++) {
            t = p[i + k];
            p[i + k] = p[i + width - 1 - k];
            p[i + width - 1 - k] = t;
        }
}

static void convert(const struct mp__decoder *d, float *row)
{
    uint8_t *p = d->scratch;
    uint32_t i, bits;
    uint16_t half;
    double wide;

    if (!same_order(d->raw.swap))
        swap_each(p, d->raw.bytes, width_of(d->raw.kind));
    if (d->raw.kind == RAW_F32) {
        memcpy(row, p, d->raw.bytes);
    } else if (d->raw.kind == RAW_F16) {
        mp__f32_from_f16_row(row, (const uint16_t *)(const void *)p, d->dim);
    } else {
        for (i = 0; i < d->dim; i++) {
            if (d->raw.kind == RAW_BF16) {
                memcpy(&half, p + 2 * (size_t)i, sizeof(half));
                bits = (uint32_t)half << 16;
                memcpy(&row[i], &bits, sizeof(bits));
            } else {
                memcpy(&wide, p + 8 * (size_t)i, sizeof(wide));
                row[i] = (float)wide;
            }
        }
    }
}

/* The bytes are cut for one dimension: another that holds meanwhile is no fault of single rows. */
static float *row_at(struct mp__decoder *d, uint32_t item)
{
    uint32_t dim = d->dim;
    float *row = mp__dec_row(d, item);

    if (row == NULL || d->dim == dim)
        return row;
    mp__dec_fail(d, "the vectors have dimension %u, expected %u", dim, d->dim);
    return NULL;
}

static uint32_t item_at(const struct mp__decoder *d)
{
    return d->raw.nsegments != 0 ? d->segments[d->raw.at].item : d->raw.at;
}

/* Where the next vector's bytes go; 0 failed. */
static int vector_start(struct mp__decoder *d)
{
    void *p;

    if (is_direct(d)) {
        d->raw.to = (uint8_t *)row_at(d, item_at(d));
        return d->raw.to != NULL;
    }
    if (d->scratch_cap < d->raw.bytes) {
        p = realloc(d->scratch, d->raw.bytes);
        if (p == NULL) {
            mp__dec_oom(d);
            return 0;
        }
        d->scratch = p;
        d->scratch_cap = d->raw.bytes;
    }
    d->raw.to = d->scratch;
    return 1;
}

static int vector_end(struct mp__decoder *d)
{
    float *row = (float *)(void *)d->raw.to;
    enum why why = SOUND;

    if (!is_direct(d)) {
        row = row_at(d, item_at(d));
        if (row == NULL)
            return 0;
        convert(d, row);
    }
    if (mp__finite(row, d->dim, NULL) != 0)
        why = VECTOR_NAN;
    else if (mp__dec_zero(d, row, d->dim))
        why = ALL_ZERO;
    if (why == SOUND)
        d->done++;
    else if (!mp__dec_row_fault(d, why, item_at(d)))
        return 0;
    d->raw.at++;
    d->raw.n = 0;
    return 1;
}

int mp__dec_raw(struct mp__decoder *d, const char *p, size_t n)
{
    size_t take;

    d->base += n;
    while (n > 0) {
        if (d->raw.at == d->cfg.items) {
            mp__dec_fail(d, "trailing bytes after the vectors");
            break;
        }
        if (d->raw.n == 0 && !vector_start(d))
            break;
        take = d->raw.bytes - d->raw.n < n ? d->raw.bytes - d->raw.n : n;
        memcpy(d->raw.to + d->raw.n, p, take);
        d->raw.n += take;
        p += take;
        n -= take;
        if (d->raw.n == d->raw.bytes && !vector_end(d))
            break;
    }
    return d->failed;
}

int mp__dec_raw_finish(struct mp__decoder *d)
{
    d->position = d->raw.at;
    if (!d->raw.on || d->raw.at != d->cfg.items)
        mp__dec_fail(d, "the reply broke off: %u of %u vectors are whole", d->raw.at, d->cfg.items);
    else
        mp__dec_settle(d);
    return d->failed;
}

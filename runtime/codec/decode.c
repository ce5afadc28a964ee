/*
 * decode.c - the streaming decoder: public calls and the structure of the document.
 */
#include "codec/decode.h"

#include "codec/internal.h"
#include "codec/json_find.h"
#include "codec/json_text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_MAX_DIM  (1u << 16)
#define DEFAULT_MAX_REST ((size_t)1 << 20)

#define MAX_COUNT ((uint64_t)1 << 40) /* of tokens; more is no count */

/* A pooled decoder does not sit on what one odd reply needed. */
#define KEEP_REST    ((size_t)64 << 10)
#define KEEP_SCRATCH ((size_t)256 << 10)

/* ---- errors -------------------------------------------------------------------------------- */

const char *mp__dec_fail(struct mp__decoder *d, const char *fmt, ...)
{
    va_list ap;

    if (d->failed != 0)
        return NULL;
    d->failed = MP__EDECODE;
    va_start(ap, fmt);
    vsnprintf(d->error, sizeof(d->error), fmt, ap);
    va_end(ap);
    return NULL;
}

const char *mp__dec_oom(struct mp__decoder *d)
{
    mp__dec_fail(d, "out of memory");
    d->failed = MP_ENOMEM;
    return NULL;
}

unsigned long long mp__dec_at(const struct mp__decoder *d, const char *p)
{
    return (unsigned long long)(d->base + (uint64_t)(p - d->chunk));
}

int mp__dec_keep(struct mp__decoder *d, const char *p, size_t n)
{
    int err = mp__buf_add(&d->rest, p, n);

    if (err == MP__ETOOBIG)
        mp__dec_fail(d, "the reply has more than %zu bytes besides its vectors", d->rest.max);
    else if (err != 0)
        mp__dec_oom(d);
    return err == 0;
}

/* ---- the shape ----------------------------------------------------------------------------- */

static int64_t place_of(const char *p, size_t n)
{
    int64_t v = 0;
    size_t i;

    for (i = 0; i < n && n < 10; i++) {
        if (p[i] < '0' || p[i] > '9')
            return -1;
        v = v * 10 + (p[i] - '0');
    }
    return n == 0 || n >= 10 ? -1 : v;
}

static int parse_path(struct path *path, const char *p, size_t n)
{
    const char *end = p + n, *dot;

    path->n = 0;
    while (n != 0 && p <= end) {
        if (path->n == MAX_SEGS)
            return 0;
        dot = memchr(p, '.', (size_t)(end - p));
        if (dot == NULL)
            dot = end;
        path->seg[path->n].p = p;
        path->seg[path->n].place = place_of(p, (size_t)(dot - p));
        path->seg[path->n++].n = (size_t)(dot - p);
        p = dot + 1;
    }
    return 1;
}

static int parse_fields(struct mp__decoder *d)
{
    const struct mp__shape *s = d->cfg.shape;
    const char *const names[FIELDS] = {s->vector, s->index, s->tokens, s->cut};
    int i;

    d->fields = 0;
    for (i = 0; i < FIELDS; i++) {
        if (names[i] == NULL)
            continue;
        if (!parse_path(&d->field[i], names[i], strlen(names[i])) || d->field[i].n == 0)
            return MP_EINVAL;
        d->fields |= (uint8_t)(1u << i);
    }
    return 0;
}

static int parse_shape(struct mp__decoder *d)
{
    const char *p = d->cfg.shape->list;
    size_t n;

    if (parse_fields(d) != 0)
        return MP_EINVAL;
    d->paths = 0;
    for (;;) {
        n = strcspn(p, "|");
        if (d->paths == MAX_PATHS || !parse_path(&d->path[d->paths++], p, n))
            return MP_EINVAL;
        if (p[n] == '\0')
            return 0;
        p += n + 1;
    }
}

/* Does segment `level` of the path name the value about to come in this frame? */
static int leads(const struct mp__decoder *d, const struct frame *top, const struct path *path,
                 uint32_t level)
{
    if (!top->object)
        return path->seg[level].place == (int64_t)top->at - 1;
    return !d->key_odd && path->seg[level].n == d->key_n &&
           memcmp(path->seg[level].p, d->key, d->key_n) == 0;
}

/* Bits of the alternatives that lead to, or through, the value about to come. */
static unsigned leading(const struct mp__decoder *d)
{
    const struct frame *top;
    unsigned bits = 0, i;

    if (d->depth == 0)
        return (1u << d->paths) - 1;
    top = &d->frame[d->depth - 1];
    for (i = 0; i < d->paths && top->paths != 0; i++)
        if ((top->paths & 1u << i) && d->path[i].n >= d->depth &&
            leads(d, top, &d->path[i], d->depth - 1))
            bits |= 1u << i;
    return bits;
}

/* The fields of the item that are, or lie in, the value about to come. */
static unsigned fields(const struct mp__decoder *d)
{
    const struct frame *top = &d->frame[d->depth - 1];
    uint32_t level = d->depth - d->item_depth;
    unsigned bits = 0, i;

    for (i = 0; i < FIELDS; i++)
        if ((top->paths & 1u << i) && d->field[i].n > level && leads(d, top, &d->field[i], level))
            bits |= 1u << i;
    return bits;
}

/* Of these, the one that ends here; FIELDS: none. */
static unsigned field_here(const struct mp__decoder *d, unsigned bits)
{
    uint32_t level = d->depth - d->item_depth;
    unsigned i = 0;

    while (i < FIELDS && !((bits & 1u << i) && d->field[i].n == level + 1))
        i++;
    return i;
}

static int is_list(const struct mp__decoder *d, unsigned bits)
{
    unsigned i;

    for (i = 0; i < d->paths; i++)
        if ((bits & 1u << i) && d->path[i].n == d->depth)
            return 1;
    return 0;
}

/* ---- containers ---------------------------------------------------------------------------- */

static const char *open_frame(struct mp__decoder *d, const char *p, int role, unsigned paths)
{
    struct frame *f;

    if (d->depth == MP__MAX_NESTING)
        return mp__dec_fail(d, "nesting deeper than %d at byte %llu", MP__MAX_NESTING,
                            mp__dec_at(d, p));
    f = &d->frame[d->depth++];
    f->object = *p == '{';
    f->role = (uint8_t)role;
    f->paths = (uint8_t)paths;
    f->at = 0;
    d->state = f->object ? KEY_OR_END : VALUE_OR_END;
    if ((role == REST && !mp__dec_keep(d, p, 1)) || (role == LIST && !mp__dec_keep(d, "[]", 2)))
        return NULL;
    return p + 1;
}

static const char *close_frame(struct mp__decoder *d, const char *p)
{
    int role = d->frame[--d->depth].role;

    if (role == REST && !mp__dec_keep(d, p, 1))
        return NULL;
    return mp__dec_over(d) ? p + 1 : NULL;
}

/* ---- values -------------------------------------------------------------------------------- */

static const char *unexpected(struct mp__decoder *d, const char *p)
{
    if (d->base == 0 && p == d->chunk && (unsigned char)*p == 0xEF)
        return mp__dec_fail(d, "a byte order mark before the JSON document");
    return mp__dec_fail(d, "invalid JSON at byte %llu", mp__dec_at(d, p));
}

/* What Python writes where JSON has no word; in a vector it costs the row and not the reply. */
static const char *odd_literal(struct mp__decoder *d, char c)
{
    if (!d->lenient)
        return NULL;
    return c == 'N' ? "NaN" : c == 'I' ? "Infinity" : NULL;
}

/* Any value that holds no vector. Numbers and literals leave their first byte to their eater. */
static const char *plain_value(struct mp__decoder *d, const char *p, int role, unsigned paths)
{
    d->role = (uint8_t)role;
    switch (*p) {
    case '{':
    case '[':
        return open_frame(d, p, role, paths);
    case '"':
        if (role == REST && !mp__dec_keep(d, p, 1))
            return NULL;
        mp__dec_string_start(d, role);
        return p + 1;
    case 't':
        d->literal = "true";
        break;
    case 'f':
        d->literal = "false";
        break;
    case 'n':
        d->literal = "null";
        break;
    default:
        d->literal = odd_literal(d, *p);
        if (d->literal != NULL)
            break;
        if (*p != '-' && (*p < '0' || *p > '9'))
            return unexpected(d, p);
        mp__num_start(&d->num);
        d->state = NUMBER;
        return p;
    }
    d->state = LITERAL;
    return p;
}

/* Stands where a vector or an item should. */
static const char *spoilt(struct mp__decoder *d, const char *p, enum why why)
{
    mp__dec_fault(d, *p == 'n' ? IS_NULL : why, 0, 0);
    d->lenient = 1;
    return plain_value(d, p, SPOILT, 0);
}

static const char *vector_value(struct mp__decoder *d, const char *p)
{
    if (d->item.vector)
        return mp__dec_fail(d, "item %u has two vectors", d->position + 1);
    if (d->cfg.shape->index == NULL && !d->item.placed && !mp__dec_place(d, d->position))
        return NULL;
    if (*p != '[' && *p != '"')
        return spoilt(d, p, NO_LIST);
    if (*p == '[' && d->depth == MP__MAX_NESTING)
        return open_frame(d, p, SKIP, 0);
    if (!mp__dec_vec_start(d, *p))
        return NULL;
    if (*p == '"')
        mp__dec_string_start(d, VECTOR);
    else
        d->state = ELEMENT;
    return p + 1;
}

static const char *list_value(struct mp__decoder *d, const char *p)
{
    if (d->cfg.shape->layout == MP__TENSOR && d->position == 0 && d->done == 0 &&
        (*p == '-' || (*p >= '0' && *p <= '9')))
        return mp__dec_flat_start(d) ? p : NULL;
    if (d->position == d->cfg.items)
        return mp__dec_fail(d, "reply has more vectors than the %u that were sent", d->cfg.items);
    if (d->cfg.shape->vector == NULL)
        return vector_value(d, p);
    if (*p != '{')
        return spoilt(d, p, NO_OBJECT);
    d->item_depth = d->depth + 1;
    return open_frame(d, p, ITEM, d->fields);
}

static const char *index_value(struct mp__decoder *d, const char *p)
{
    if (d->item.placed)
        return mp__dec_fail(d, "item %u has two indices", d->position + 1);
    if (*p == 't' || *p == 'f' || *p == '[' || *p == '{') {
        mp__num_start(&d->num);
        mp__dec_position(d); /* which says so */
        return NULL;
    }
    if (*p == '"')
        mp__num_start(&d->num);
    return plain_value(d, p, INDEX, 0);
}

static const char *item_value(struct mp__decoder *d, const char *p)
{
    unsigned bits = fields(d);

    switch (field_here(d, bits)) {
    case IN_VECTOR:
        return vector_value(d, p);
    case IN_INDEX:
        return *p == 'n' ? plain_value(d, p, SKIP, 0) : index_value(d, p); /* null is none */
    case IN_TOKENS:
        return plain_value(d, p, *p >= '0' && *p <= '9' ? COUNT : SKIP, 0);
    case IN_CUT:
        d->cuts += *p == 't';
        return plain_value(d, p, SKIP, 0);
    default:
        return plain_value(d, p, bits != 0 && *p == '{' ? INSIDE : SKIP, bits);
    }
}

/* The list, or the one vector that stands in its place. */
static const char *list_start(struct mp__decoder *d, const char *p)
{
    if (d->listed)
        return mp__dec_fail(d, "the list of vectors comes twice (byte %llu)", mp__dec_at(d, p));
    d->listed = 1;
    if (d->cfg.shape->layout != MP__ONE)
        return open_frame(d, p, LIST, 0);
    if (!mp__dec_keep(d, "[]", 2))
        return NULL;
    d->one = d->depth + 1;
    return vector_value(d, p);
}

static const char *value(struct mp__decoder *d, const char *p)
{
    unsigned paths;

    if (d->depth != 0) {
        d->frame[d->depth - 1].at++;
        switch (d->frame[d->depth - 1].role) {
        case LIST:
            return list_value(d, p);
        case ITEM:
        case INSIDE:
            return item_value(d, p);
        case SKIP:
        case SPOILT:
            return plain_value(d, p, SKIP, 0);
        default:
            break;
        }
    }
    paths = leading(d);
    if (is_list(d, paths) && (*p == '[' || (*p == '"' && d->cfg.shape->layout == MP__ONE)))
        return list_start(d, p);
    return plain_value(d, p, REST, paths);
}

/* ---- numbers and literals outside the vectors ------------------------------------------------ */

/* Where the number is over; NULL: failed. */
static const char *number_done(struct mp__decoder *d, const char *p)
{
    uint64_t count;
    float unused;

    /* A number too large for float32 is still JSON. */
    if (mp__num_finish(&d->num, &unused) == MP_EINVAL) {
        if (!d->lenient || *p != 'I' || !mp__num_is_minus(&d->num))
            return unexpected(d, p);
        d->literal = "Infinity";
        d->state = LITERAL;
        return p;
    }
    if (d->role == COUNT && mp__num_uint(&d->num, &count) == 0 && count < MAX_COUNT) {
        d->tokens += (int64_t)count;
        d->counted = 1;
    }
    if (d->role == INDEX && !mp__dec_position(d))
        return NULL;
    return mp__dec_over(d) ? p : NULL;
}

static const char *plain_number(struct mp__decoder *d, const char *p, const char *end)
{
    size_t n = mp__num_feed(&d->num, p, (size_t)(end - p));

    if (d->role == REST && !mp__dec_keep(d, p, n))
        return NULL;
    p += n;
    return p == end ? p : number_done(d, p);
}

static const char *literal(struct mp__decoder *d, const char *p, const char *end)
{
    const char *start = p;

    while (p < end && *d->literal != '\0') {
        if (*p != *d->literal)
            return unexpected(d, p);
        p++;
        d->literal++;
    }
    if (d->role == REST && !mp__dec_keep(d, start, (size_t)(p - start)))
        return NULL;
    return *d->literal != '\0' || mp__dec_over(d) ? p : NULL;
}

/* ---- structure ----------------------------------------------------------------------------- */

static const char *punctuation(struct mp__decoder *d, const char *p, int next)
{
    d->state = (uint8_t)next;
    if (d->frame[d->depth - 1].role == REST && !mp__dec_keep(d, p, 1))
        return NULL;
    return p + 1;
}

static const char *key_start(struct mp__decoder *d, const char *p)
{
    if (*p != '"')
        return unexpected(d, p);
    p = punctuation(d, p, KEY);
    mp__dec_string_start(d, NAME);
    return p;
}

/* One byte that is not white space, between values. */
static const char *structure(struct mp__decoder *d, const char *p)
{
    const struct frame *top = d->depth != 0 ? &d->frame[d->depth - 1] : NULL;

    switch (d->state) {
    case VALUE_OR_END:
        return *p == ']' ? close_frame(d, p) : value(d, p);
    case VALUE:
        return value(d, p);
    case KEY_OR_END:
        return *p == '}' ? close_frame(d, p) : key_start(d, p);
    case KEY:
        return key_start(d, p);
    case COLON:
        return *p == ':' ? punctuation(d, p, VALUE) : unexpected(d, p);
    case AFTER:
        if (*p == ',')
            return punctuation(d, p, top->object ? KEY : VALUE);
        return *p == (top->object ? '}' : ']') ? close_frame(d, p) : unexpected(d, p);
    default:
        return mp__dec_fail(d, "trailing bytes after the JSON document at byte %llu",
                            mp__dec_at(d, p));
    }
}

static const char *eat(struct mp__decoder *d, const char *p, const char *end)
{
    switch (d->state) {
    case STRING:
        return mp__dec_string(d, p, end);
    case NUMBER:
        return plain_number(d, p, end);
    case LITERAL:
        return literal(d, p, end);
    case ELEMENT:
    case ELEMENT_NUMBER:
    case ELEMENT_AFTER:
        return mp__dec_vec_numbers(d, p, end);
    default:
        p = mp__json_skip(p, end);
        return p < end ? structure(d, p) : p;
    }
}

static int feed_text(struct mp__decoder *d, const char *p, size_t n)
{
    const char *end = p + n;

    d->chunk = p;
    while (p != NULL && p < end)
        p = eat(d, p, end);
    d->chunk = NULL;
    d->base += n;
    return d->failed;
}

/* A body that begins with JSON and goes on in bytes. */
static int feed_head(struct mp__decoder *d, const char *p, size_t n)
{
    size_t head = n < d->raw.head ? n : (size_t)d->raw.head;

    d->raw.head -= head;
    if (feed_text(d, p, head) != 0 || d->raw.head != 0 || !mp__dec_raw_start(d))
        return d->failed;
    return n > head ? mp__dec_raw(d, p + head, n - head) : 0;
}

int mp__decoder_feed(struct mp__decoder *d, const char *p, size_t n)
{
    if (d->failed != 0 || n == 0)
        return d->failed;
    if (d->raw.on)
        return mp__dec_raw(d, p, n);
    return d->raw.head != 0 ? feed_head(d, p, n) : feed_text(d, p, n);
}

int mp__decoder_header(struct mp__decoder *d, const char *value, size_t n)
{
    int64_t head;

    if (d->cfg.shape->layout == MP__PACKED)
        return mp__dec_raw_layout(d, value, n);
    if (d->cfg.shape->layout != MP__TENSOR)
        return 0;
    head = place_of(value, n);
    if (head <= 0)
        mp__dec_fail(d, "the header that tells where the vectors begin is not a length");
    else
        d->raw.head = (uint64_t)head;
    return d->failed;
}

/* What the tensor itself says of its size must be what came: the first size is the rows' number. */
static void check_sizes(struct mp__decoder *d)
{
    int64_t n;
    char path[96];

    snprintf(path, sizeof(path), "%s.0", d->cfg.shape->dims);
    n = mp__json_find_int(d->rest.p, d->rest.n, path);
    if (n >= 0 && n != (int64_t)d->cfg.items)
        mp__dec_fail(d, "reply has a tensor of %lld rows, %u were sent", (long long)n,
                     d->cfg.items);
}

int mp__decoder_finish(struct mp__decoder *d)
{
    if (d->failed != 0)
        return d->failed;
    if (d->raw.on || d->raw.head != 0)
        return mp__dec_raw_finish(d);
    if (d->state == NUMBER && d->depth == 0 && d->role == REST)
        d->state = END; /* a bare number is ended by the end alone; the list is missing */
    if (d->state != END)
        mp__dec_fail(d, "truncated JSON at byte %llu", (unsigned long long)d->base);
    else if (!d->listed)
        mp__dec_fail(d, "reply has no list \"%s\"", d->cfg.shape->list);
    else if (mp__dec_settle(d) && d->cfg.shape->dims != NULL)
        check_sizes(d);
    return d->failed;
}

/* ---- life ---------------------------------------------------------------------------------- */

struct mp__decoder *mp__decoder_new(const struct mp__decoder_cfg *cfg)
{
    struct mp__decoder *d = calloc(1, sizeof(*d));

    if (d == NULL)
        return NULL;
    if (mp__decoder_reset(d, cfg) != 0) {
        mp__decoder_free(d);
        return NULL;
    }
    return d;
}

void mp__decoder_free(struct mp__decoder *d)
{
    if (d == NULL)
        return;
    mp__dec_let_go(d);
    free(d->faults);
    free(d->scratch);
    free(d->seen);
    free(d->segments);
    mp__buf_free(&d->rest);
    free(d);
}

static int reset_seen(struct mp__decoder *d)
{
    size_t words = ((size_t)d->cfg.items + 63) / 64;

    if (words > d->seen_cap) {
        free(d->seen);
        d->seen_cap = 0;
        d->seen = calloc(words, sizeof(*d->seen));
        if (d->seen == NULL)
            return MP_ENOMEM;
        d->seen_cap = words;
    } else if (words != 0) {
        memset(d->seen, 0, words * sizeof(*d->seen));
    }
    return 0;
}

int mp__decoder_reset(struct mp__decoder *d, const struct mp__decoder_cfg *cfg)
{
    memset(&d->failed, 0, offsetof(struct mp__decoder, num) - offsetof(struct mp__decoder, failed));
    d->cfg = *cfg;
    mp__dec_let_go(d);
    if (d->cfg.max_dim == 0)
        d->cfg.max_dim = DEFAULT_MAX_DIM;
    if (d->rest.cap > KEEP_REST)
        mp__buf_free(&d->rest);
    d->rest.n = 0;
    d->rest.max = cfg->max_rest != 0 ? cfg->max_rest : DEFAULT_MAX_REST;
    if (d->scratch_cap > KEEP_SCRATCH) {
        free(d->scratch);
        d->scratch = NULL;
        d->scratch_cap = 0;
    }
    d->dim = cfg->dim;
    d->state = VALUE;
    return parse_shape(d) != 0 ? MP_EINVAL : reset_seen(d);
}

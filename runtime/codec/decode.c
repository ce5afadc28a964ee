/*
 * decode.c - the streaming decoder: public calls and the structure of the document.
 */
#include "codec/internal.h"
#include "codec/json_find.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_MAX_DIM  (1u << 20)
#define DEFAULT_MAX_REST ((size_t)1 << 20)

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
        path->seg[path->n++].n = (size_t)(dot - p);
        p = dot + 1;
    }
    return 1;
}

static int parse_shape(struct mp__decoder *d)
{
    const char *p = d->cfg.shape->list;
    size_t n;

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

/* Bits of the alternatives that lead to, or through, the value about to come. */
static unsigned leading(const struct mp__decoder *d)
{
    const struct frame *top;
    unsigned bits = 0, i;

    if (d->depth == 0)
        return (1u << d->paths) - 1;
    top = &d->frame[d->depth - 1];
    if (!top->object || top->paths == 0 || d->key_odd)
        return 0;
    for (i = 0; i < d->paths; i++) {
        const struct path *path = &d->path[i];

        if ((top->paths & 1u << i) && path->n >= d->depth &&
            path->seg[d->depth - 1].n == d->key_n &&
            memcmp(path->seg[d->depth - 1].p, d->key, d->key_n) == 0)
            bits |= 1u << i;
    }
    return bits;
}

static int is_list(const struct mp__decoder *d, unsigned bits)
{
    unsigned i;

    for (i = 0; i < d->paths; i++)
        if ((bits & 1u << i) && d->path[i].n == d->depth)
            return 1;
    return 0;
}

static int key_is(const struct mp__decoder *d, const char *name)
{
    return name != NULL && !d->key_odd && strlen(name) == d->key_n &&
           memcmp(name, d->key, d->key_n) == 0;
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
    f->paths = (uint8_t)(f->object ? paths : 0);
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
    mp__dec_value_end(d);
    if (role == ITEM && !mp__dec_item_end(d))
        return NULL;
    return p + 1;
}

void mp__dec_value_end(struct mp__decoder *d)
{
    d->state = d->depth == 0 ? END : AFTER;
}

/* ---- values -------------------------------------------------------------------------------- */

static const char *unexpected(struct mp__decoder *d, const char *p)
{
    if (d->base == 0 && p == d->chunk && (unsigned char)*p == 0xEF)
        return mp__dec_fail(d, "a byte order mark before the JSON document");
    return mp__dec_fail(d, "invalid JSON at byte %llu", mp__dec_at(d, p));
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
        if (*p != '-' && (*p < '0' || *p > '9'))
            return unexpected(d, p);
        mp__num_start(&d->num);
        d->state = NUMBER;
        return p;
    }
    d->state = LITERAL;
    return p;
}

static const char *vector_value(struct mp__decoder *d, const char *p)
{
    if (d->item.vector)
        return mp__dec_fail(d, "item %u has two vectors", d->position);
    if (*p != '[' && *p != '"')
        return mp__dec_fail(d, "row %u is not a vector (byte %llu)", mp__dec_row(d),
                            mp__dec_at(d, p));
    if (d->cfg.shape->index == NULL && !d->item.placed && !mp__dec_place(d, d->position))
        return NULL;
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
    if (d->position == d->cfg.items)
        return mp__dec_fail(d, "reply has more vectors than the %u that were sent", d->cfg.items);
    if (d->cfg.shape->vector == NULL)
        return vector_value(d, p);
    if (*p != '{')
        return mp__dec_fail(d, "item %u is not an object (byte %llu)", d->position,
                            mp__dec_at(d, p));
    return open_frame(d, p, ITEM, 0);
}

static const char *item_value(struct mp__decoder *d, const char *p)
{
    if (key_is(d, d->cfg.shape->vector))
        return vector_value(d, p);
    if (!key_is(d, d->cfg.shape->index))
        return plain_value(d, p, SKIP, 0);
    if (d->item.placed)
        return mp__dec_fail(d, "item %u has two indices", d->position);
    if (*p < '0' || *p > '9')
        return mp__dec_fail(d, "item %u: \"%s\" is not a position (byte %llu)", d->position,
                            d->cfg.shape->index, mp__dec_at(d, p));
    return plain_value(d, p, INDEX, 0);
}

static const char *value(struct mp__decoder *d, const char *p)
{
    unsigned paths;

    if (d->depth != 0) {
        switch (d->frame[d->depth - 1].role) {
        case LIST:
            return list_value(d, p);
        case ITEM:
            return item_value(d, p);
        case SKIP:
            return plain_value(d, p, SKIP, 0);
        default:
            break;
        }
    }
    paths = leading(d);
    if (*p != '[' || !is_list(d, paths))
        return plain_value(d, p, REST, paths);
    if (d->listed)
        return mp__dec_fail(d, "the list of vectors comes twice (byte %llu)", mp__dec_at(d, p));
    d->listed = 1;
    return open_frame(d, p, LIST, 0);
}

/* ---- numbers and literals outside the vectors ------------------------------------------------ */

static int number_done(struct mp__decoder *d, const char *p)
{
    uint64_t index;
    float unused;
    int err = mp__num_finish(&d->num, &unused);

    /* A number too large for float32 is still JSON. */
    if (err == MP_EINVAL) {
        unexpected(d, p);
        return 0;
    }
    mp__dec_value_end(d);
    if (d->role != INDEX)
        return 1;
    if (mp__num_uint(&d->num, &index) != 0) {
        mp__dec_fail(d, "item %u: \"%s\" is not a position", d->position, d->cfg.shape->index);
        return 0;
    }
    return mp__dec_place(d, index);
}

static const char *plain_number(struct mp__decoder *d, const char *p, const char *end)
{
    size_t n = mp__num_feed(&d->num, p, (size_t)(end - p));

    if (d->role == REST && !mp__dec_keep(d, p, n))
        return NULL;
    p += n;
    return p == end || number_done(d, p) ? p : NULL;
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
    if (*d->literal == '\0')
        mp__dec_value_end(d);
    return p;
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
        while (p < end && mp__dec_space(*p))
            p++;
        return p < end ? structure(d, p) : p;
    }
}

int mp__decoder_feed(struct mp__decoder *d, const char *p, size_t n)
{
    const char *end;

    if (d->failed != 0 || n == 0)
        return d->failed;
    end = p + n;
    d->chunk = p;
    while (p != NULL && p < end)
        p = eat(d, p, end);
    d->chunk = NULL;
    d->base += n;
    return d->failed;
}

int mp__decoder_finish(struct mp__decoder *d)
{
    if (d->failed != 0)
        return d->failed;
    if (d->state == NUMBER && d->depth == 0 && d->role == REST)
        mp__dec_value_end(d); /* a bare number is ended by the end alone; the list is missing */
    if (d->state != END)
        mp__dec_fail(d, "truncated JSON at byte %llu", (unsigned long long)d->base);
    else if (!d->listed)
        mp__dec_fail(d, "reply has no list \"%s\"", d->cfg.shape->list);
    else if (d->done != d->cfg.items)
        mp__dec_fail(d, "reply has %u vectors, %u were sent", d->done, d->cfg.items);
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
    free(d->scratch);
    free(d->seen);
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

/* ---- what is known ------------------------------------------------------------------------- */

const char *mp__decoder_error(const struct mp__decoder *d)
{
    return d->error;
}

uint32_t mp__decoder_dim(const struct mp__decoder *d)
{
    return d->dim;
}

uint32_t mp__decoder_items(const struct mp__decoder *d)
{
    return d->done;
}

const char *mp__decoder_rest(const struct mp__decoder *d, size_t *n)
{
    *n = d->rest.n;
    return d->rest.p != NULL ? d->rest.p : "";
}

static int64_t first_int(const struct mp__decoder *d, const char *const *paths)
{
    int64_t v = -1;

    for (; *paths != NULL && v < 0; paths++)
        v = mp__json_find_int(d->rest.p, d->rest.n, *paths);
    return v;
}

void mp__decoder_usage(const struct mp__decoder *d, int64_t *prompt, int64_t *total)
{
    static const char *const prompts[] = {"usage.prompt_tokens", "meta.billed_units.input_tokens",
                                          "usage.input_tokens", "meta.tokens.input_tokens", NULL};
    static const char *const totals[] = {"usage.total_tokens", "usage.tokens", NULL};

    *prompt = *total = -1;
    if (d->rest.n == 0 || d->state != END)
        return; /* the look-up trusts the document */
    *prompt = first_int(d, prompts);
    *total = first_int(d, totals);
}

const char *mp__decoder_model(const struct mp__decoder *d, size_t *n)
{
    const char *p;

    if (d->rest.n == 0 || d->state != END)
        return NULL;
    p = mp__json_find(d->rest.p, d->rest.n, "model", n);
    if (p == NULL || *p != '"')
        return NULL;
    *n -= 2;
    return p + 1;
}

/*
 * gather_cache.c - texts that need not be asked: vectors kept by content, and one question for equal
 * texts that are asked at the same time.
 *
 * What is known about a row is found by 128 bits of hash over its text, seeded by the batcher (nobody
 * outside can aim at it) and by its group, since another frame means another vector. A vector is kept as
 * a matrix of one row: a caller of one text gets a reference, a caller of several a copy beside what is
 * asked for the others.
 *
 * Submissions of one equal text form a flight: the first asks, the others follow and get a view of
 * its answer. When the first is cancelled or late, the next takes its place, in its request too.
 */
#include "base/hash.h"
#include "engine/gather.h"

#include <stdlib.h>
#include <string.h>

struct cached {
    struct mp__node node;
    struct mp__link link; /* least recently used first */
    uint64_t high;
    size_t bytes;
    mp_matrix *row;
};

/* ---- vectors by content ---- */

void mp__cache_init(struct mp__cache *c, uint64_t max)
{
    mp__table_init(&c->table);
    mp__list_init(&c->used);
    c->max = max;
}

static void drop(struct mp__cache *c, struct cached *e)
{
    mp__table_remove(&c->table, &e->node);
    mp__list_remove(&e->link);
    c->bytes -= e->bytes;
    mp_matrix_unref(e->row);
    free(e);
}

void mp__cache_fini(struct mp__cache *c)
{
    while (!mp__list_empty(&c->used))
        drop(c, MP__ENTRY(c->used.next, struct cached, link));
    mp__table_fini(&c->table);
}

static struct mp__hash128 key_of(const struct mp__group *g, const struct mp_str *text)
{
    struct mp__hash128 k = mp__hash128(text->p, text->n, g->content_seed);
    k.high ^= g->content_high;
    return k;
}

static struct cached *find(const struct mp__cache *c, struct mp__hash128 key)
{
    for (struct mp__node *n = mp__table_chain(&c->table, key.low); n != NULL; n = n->next) {
        struct cached *e = MP__ENTRY(n, struct cached, node);
        if (n->hash == key.low && e->high == key.high)
            return e;
    }
    return NULL;
}

/* The vector of a text, or NULL. */
static mp_matrix *look_up(mp_batcher *b, const struct mp__group *g, const struct mp_str *text)
{
    struct cached *e = b->cache.max > 0 ? find(&b->cache, key_of(g, text)) : NULL;
    if (e == NULL)
        return NULL;
    mp__list_remove(&e->link);
    mp__list_push(&b->cache.used, &e->link);
    return e->row;
}

void mp__cache_put(mp_batcher *b, const struct mp__group *g, const struct mp_str *text,
                   const float *v, uint32_t dim)
{
    struct mp__cache *c = &b->cache;
    struct mp__hash128 key = key_of(g, text);
    size_t bytes = sizeof(struct cached) + 128 + dim * sizeof(float);
    struct cached *e = bytes <= c->max ? find(c, key) : NULL;
    if (e != NULL)
        drop(c, e); /* it was asked twice, the later answer stays */
    e = bytes <= c->max ? calloc(1, sizeof(*e)) : NULL;
    if (e == NULL)
        return;
    e->row = mp_matrix_new(1, dim);
    if (e->row == NULL) {
        free(e);
        return;
    }
    memcpy(mp_matrix_data(e->row), v, dim * sizeof(float));
    e->high = key.high;
    e->bytes = bytes;
    mp__table_add(&c->table, &e->node, key.low);
    mp__list_push(&c->used, &e->link);
    c->bytes += bytes;
    while (c->bytes > c->max) {
        drop(c, MP__ENTRY(c->used.next, struct cached, link));
        b->n.evicted++;
    }
}

/* ---- a submission, before it waits ---- */

static void known_exchange(struct mp__submission *s, uint64_t first, uint32_t count)
{
    struct mp_exchange x = {.first = first, .count = count, .status = 200, .retry_after = -1};
    mp__submission_add_exchange(s, &x, first, count);
}

static int answer_one(struct mp__submission *s, mp_matrix *row)
{
    struct mp_result *r = s->result;
    r->matrix = mp_matrix_ref(row);
    r->dimensions = (uint32_t)mp_matrix_cols(row);
    r->prompt_tokens = r->total_tokens = 0;
    known_exchange(s, 0, 1);
    s->left = 0;
    return 1;
}

/* Copies a known row into the submission's own matrix; 0: it does not go with those before. */
static int keep_row(struct mp__submission *s, uint64_t row, mp_matrix *known)
{
    struct mp_result *r = s->result;
    uint32_t dim = (uint32_t)mp_matrix_cols(known);
    if (r->matrix == NULL) {
        r->matrix = mp_matrix_new(s->nrows, dim);
        r->dimensions = r->matrix != NULL ? dim : 0;
    }
    if (r->matrix == NULL || dim != r->dimensions)
        return 0;
    memcpy(mp_matrix_data(r->matrix) + row * dim, mp_matrix_data(known), dim * sizeof(float));
    known_exchange(s, row, 1);
    return 1;
}

/* Known rows leave the list of what is asked; `map` says which row each of the others is. */
static int answer_some(struct mp__submission *s)
{
    mp_batcher *b = s->batcher;
    uint32_t n = 0;
    uint32_t *map = NULL;
    for (uint32_t i = 0; i < s->nrows; i++) {
        mp_matrix *known = look_up(b, s->group, &s->rows[i]);
        if (known != NULL && map == NULL) {
            map = malloc(s->nrows * sizeof(*map));
            for (uint32_t k = 0; map != NULL && k < i; k++)
                map[k] = k;
        }
        if (known != NULL && map != NULL && keep_row(s, i, known)) {
            b->n.hits++;
            continue;
        }
        b->n.misses++;
        if (map != NULL)
            map[n] = i;
        s->rows[n++] = s->rows[i];
    }
    s->map = map;
    s->nrows = s->left = n;
    if (n > 0)
        return 0;
    s->result->prompt_tokens = s->result->total_tokens = 0;
    return 1;
}

int mp__cache_answer(struct mp__submission *s)
{
    if (s->batcher->cache.max == 0 || s->alone)
        return 0;
    if (s->nrows > 1)
        return answer_some(s);
    mp_matrix *known = look_up(s->batcher, s->group, &s->rows[0]);
    s->batcher->n.hits += known != NULL;
    s->batcher->n.misses += known == NULL;
    return known != NULL && answer_one(s, known);
}

/* ---- flights ---- */

static struct mp__submission *leader_of(const mp_batcher *b, struct mp__hash128 key)
{
    for (struct mp__node *n = mp__table_chain(&b->flights, key.low); n != NULL; n = n->next) {
        struct mp__submission *s = MP__ENTRY(n, struct mp__submission, flight);
        if (n->hash == key.low && s->flight_high == key.high)
            return s;
    }
    return NULL;
}

/* 1: it follows another, which asks for it; else it asks, and others may follow. */
int mp__flight_join(struct mp__submission *s)
{
    mp_batcher *b = s->batcher;
    if (!b->single_flight || s->result->rows != 1 || s->alone)
        return 0;
    struct mp__hash128 key = key_of(s->group, &s->rows[0]);
    struct mp__submission *leader = leader_of(b, key);
    s->flight_high = key.high;
    if (leader == NULL) {
        mp__list_init(&s->followers);
        mp__table_add(&b->flights, &s->flight, key.low);
        s->leads = 1;
        return 0;
    }
    s->flight.hash = key.low;
    mp__list_push(&leader->followers, &s->link);
    b->n.shared++;
    return 1;
}

/* The next in line leads; it takes over the leader's place in a request, or waits anew. */
static void promote(struct mp__submission *s)
{
    mp_batcher *b = s->batcher;
    struct mp__submission *next =
        MP__ENTRY(mp__list_shift(&s->followers), struct mp__submission, link);
    next->leads = 1;
    mp__list_init(&next->followers);
    mp__list_move(&s->followers, &next->followers);
    mp__table_add(&b->flights, &next->flight, next->flight.hash);
    if (s->flying == 0) {
        mp__submission_wait(next);
        return;
    }
    for (struct mp__link *l = b->requests.next; l != &b->requests; l = l->next) {
        struct mp__request *r = MP__ENTRY(l, struct mp__request, link);
        for (uint32_t i = 0; i < r->nshares; i++)
            if (r->shares[i].s == s)
                r->shares[i].s = next;
    }
    next->refs += s->flying;
    next->flying = s->flying;
    next->taken = s->taken;
    for (; s->flying > 0; s->flying--)
        mp__submission_unref(s); /* the delivery's reference stays */
}

static void give_view(struct mp__submission *to, const struct mp__submission *from)
{
    const struct mp_result *r = from->result;
    if (r->matrix != NULL) {
        to->result->matrix = mp_matrix_ref(r->matrix);
        to->result->first_row = r->first_row;
        to->result->dimensions = r->dimensions;
    }
    for (size_t i = 0; i < r->nexchanges; i++)
        mp__submission_add_exchange(to, &r->exchanges[i], r->exchanges[i].first,
                                    r->exchanges[i].count);
    for (size_t i = 0; i < r->nfaults; i++)
        mp__result_fault(to->result, r->faults[i].row, r->faults[i].message);
    to->result->prompt_tokens = r->prompt_tokens >= 0 ? 0 : -1; /* the leader has paid */
    to->result->total_tokens = r->total_tokens >= 0 ? 0 : -1;
    to->left = 0;
}

void mp__flight_pass_on(struct mp__submission *s, enum mp_kind kind)
{
    if (!s->leads)
        return;
    s->leads = 0;
    mp__table_remove(&s->batcher->flights, &s->flight);
    if (mp__list_empty(&s->followers))
        return;
    if (kind == MP_KIND_CANCELLED || kind == MP_KIND_TOTAL_TIMEOUT) {
        promote(s);
        return;
    }
    for (struct mp__link *l = mp__list_shift(&s->followers); l != NULL;
         l = mp__list_shift(&s->followers)) {
        struct mp__submission *f = MP__ENTRY(l, struct mp__submission, link);
        give_view(f, s);
        mp__submission_end(f, kind);
    }
}

/*
 * gather_send.c - who goes into the next request, and what its reply gives to whom.
 *
 * Groups take turns; within a group keys take turns by deficit round robin with a quantum of one
 * row. The reply's matrix is not copied: each submission gets a reference and its first row. What a
 * server refused together with other callers' rows is asked again alone, so nobody pays for a row
 * that is not his; within one submission the engine's own halving goes on as for any call.
 */
#include "engine/gather.h"

#include <stdlib.h>
#include <string.h>

#define BELOW_FIRST 8 /* of so many requests one begins with the lowest lane */

/* ---- taking rows ---- */

static struct mp__request *request_new(mp_batcher *b, struct mp__group *g)
{
    struct mp__request *r = calloc(1, sizeof(*r));
    if (r == NULL)
        return NULL;
    r->batcher = b;
    r->group = g;
    g->refs++;
    return r;
}

static void request_free(struct mp__request *r)
{
    for (uint32_t i = 0; i < r->nshares; i++)
        mp__submission_unref(r->shares[i].s);
    mp__group_unref(r->group);
    free(r->shares);
    free(r->rows);
    free(r);
}

static int share_add(struct mp__request *r, struct mp__submission *s, uint32_t count)
{
    if ((r->nshares & (r->nshares - 1)) == 0) { /* 0 or a power of two: full */
        size_t cap = r->nshares > 0 ? 2 * (size_t)r->nshares : 1;
        struct mp__share *v = realloc(r->shares, cap * sizeof(*v));
        if (v == NULL)
            return MP_ENOMEM;
        r->shares = v;
    }
    r->shares[r->nshares++] =
        (struct mp__share){.s = s, .first = s->taken, .count = count, .at = r->nrows};
    r->nrows += count;
    r->alive++;
    s->refs++;
    s->flying++;
    if (s->taken + count == s->nrows) {
        mp__submission_leave(s);
    } else {
        s->batcher->waiting -= count;
        s->group->waiting -= count;
    }
    s->taken += count;
    return 0;
}

static struct mp__submission *flow_head(const struct mp__flow *f)
{
    return MP__ENTRY(f->queue.next, struct mp__submission, link);
}

static uint32_t flow_cost(const struct mp__flow *f)
{
    struct mpp_batch_sum sum;
    return mp__submission_piece(flow_head(f), &sum);
}

/* The flow whose turn it is, its deficit charged for what it may send next. Rounds in which nobody
 * has saved enough are skipped at once. */
static struct mp__flow *next_flow(struct mp__lane *lane, uint32_t *cost)
{
    struct mp__flow *best = NULL;
    uint64_t rounds = UINT64_MAX;
    for (struct mp__link *l = lane->ring.next; l != &lane->ring; l = l->next) {
        struct mp__flow *f = MP__ENTRY(l, struct mp__flow, link);
        uint32_t need = flow_cost(f);
        uint64_t missing = need > f->deficit ? need - f->deficit : 0;
        if (missing < rounds) {
            rounds = missing;
            best = f;
            *cost = need;
        }
        if (missing == 0)
            break;
    }
    for (struct mp__link *l = lane->ring.next; rounds > 0 && l != &lane->ring; l = l->next)
        MP__ENTRY(l, struct mp__flow, link)->deficit += rounds;
    return best;
}

/* 1: something was taken; 0: it does not fit behind what is there. */
static int take_next(struct mp__request *r, struct mp__lane *lane, struct mpp_batch_sum *sum)
{
    struct mp__group *g = r->group;
    struct mpp_batch_sum more;
    uint32_t cost = 0;
    struct mp__flow *f = next_flow(lane, &cost);
    struct mp__submission *s = flow_head(f);
    uint32_t count = mp__submission_piece(s, &more);
    struct mpp_cost all = {.chars = more.chars, .bytes = more.bytes, .tokens = more.tokens};
    if (r->nshares > 0 && (!s->whole || !mpp_batch_fits(&g->limits, sum, r->nrows, &all) ||
                           r->nrows + count > g->limits.size))
        return 0;
    f->deficit -= cost;
    int last = f->queue.next->next == &f->queue && s->taken + count == s->nrows;
    if (!last) { /* a flow that ends gives its savings back */
        mp__list_remove(&f->link);
        mp__list_push(&lane->ring, &f->link);
    }
    int whole = s->whole;
    if (share_add(r, s, count) != 0)
        return 0;
    sum->chars += more.chars;
    sum->bytes += more.bytes;
    sum->tokens += more.tokens;
    return whole; /* a piece of a large one travels alone */
}

static void fill(struct mp__request *r, int from_below)
{
    struct mpp_batch_sum sum = {0};
    for (int i = 0; i < MP__LANES; i++) {
        struct mp__lane *lane = &r->group->lanes[from_below ? MP__LANES - 1 - i : i];
        while (!mp__list_empty(&lane->ring))
            if (!take_next(r, lane, &sum))
                return;
    }
}

/* ---- choosing a group ---- */

static int over(uint64_t sum, uint64_t limit)
{
    return limit > 0 && sum >= limit;
}

static int group_ready(const struct mp__group *g)
{
    const struct mp_batch_policy *l = &g->limits;
    return g->due > 0 || g->waiting >= l->size || over(g->sum.chars, l->chars) ||
           over(g->sum.bytes, l->bytes) || over((uint64_t)g->sum.tokens, l->tokens);
}

static struct mp__group *pick(mp_batcher *b, int from_below)
{
    for (int i = 0; i < MP__LANES; i++) {
        int lane = from_below ? MP__LANES - 1 - i : i;
        for (struct mp__link *l = b->ready.next; l != &b->ready; l = l->next) {
            struct mp__group *g = MP__ENTRY(l, struct mp__group, link);
            if (mp__list_empty(&g->lanes[lane].ring) || !group_ready(g))
                continue;
            mp__list_remove(l);
            mp__list_push(&b->ready, l);
            return g;
        }
    }
    return NULL;
}

/* ---- what a reply gives to whom ---- */

void mp__submission_add_exchange(struct mp__submission *s, const struct mp_exchange *from,
                                 uint64_t first, uint32_t count)
{
    struct mp_result *r = s->result;
    if (r->nexchanges == s->exchanges_cap) {
        size_t cap = s->exchanges_cap ? s->exchanges_cap * 2 : 1;
        struct mp_exchange *v = realloc(r->exchanges, cap * sizeof(*v));
        if (v == NULL)
            return;
        r->exchanges = v;
        s->exchanges_cap = cap;
    }
    struct mp_exchange x = *from;
    x.first = first;
    x.count = count;
    x.data = mp__exchange_pack(&x, mp_exchange_head(from), mp_exchange_message(from),
                               mp_exchange_request_id(from), mp_exchange_body(from));
    if (x.data == NULL)
        return;
    r->exchanges[r->nexchanges++] = x;
    if (x.kind == MP_KIND_NONE)
        r->rows_ok += count;
}

/* Would these rows have fared better without the others? An outage would not. */
static int is_refusal(const struct mp_exchange *x)
{
    return x->kind == MP_KIND_DECODE || x->kind == MP_KIND_TOO_LARGE ||
           (x->kind == MP_KIND_HTTP && (x->status == 400 || x->status == 413 || x->status == 422));
}

static int overlaps(const struct mp_exchange *x, const struct mp__share *sh)
{
    return x->first < sh->at + sh->count && sh->at < x->first + x->count;
}

static int covers_others(const struct mp_exchange *x, const struct mp__share *sh)
{
    return x->first < sh->at || x->first + x->count > sh->at + sh->count;
}

static int guilt_unknown(const struct mp__share *sh, const struct mp_result *r)
{
    for (size_t i = 0; i < r->nexchanges; i++) {
        const struct mp_exchange *x = &r->exchanges[i];
        if (overlaps(x, sh) && is_refusal(x) && covers_others(x, sh))
            return 1;
    }
    return 0;
}

static void give_matrix(const struct mp__share *sh, const struct mp_result *from)
{
    struct mp__submission *s = sh->s;
    struct mp_result *r = s->result;
    if (from->matrix == NULL)
        return;
    if (mp__submission_is_view(s)) {
        mp_matrix_unref(r->matrix);
        r->matrix = mp_matrix_ref(from->matrix);
        r->first_row = sh->at;
        r->dimensions = from->dimensions;
        return;
    }
    if (r->matrix == NULL) {
        r->matrix = mp_matrix_new(r->rows, from->dimensions);
        r->dimensions = r->matrix != NULL ? from->dimensions : 0;
    }
    size_t dim = r->dimensions;
    for (uint32_t i = 0; r->matrix != NULL && dim == from->dimensions && i < sh->count; i++) {
        uint32_t row = s->map != NULL ? s->map[sh->first + i] : sh->first + i;
        memcpy(mp_matrix_data(r->matrix) + row * dim,
               mp_matrix_data(from->matrix) + (sh->at + i) * dim, dim * sizeof(float));
    }
}

static void remember(const struct mp__request *r, const struct mp_result *from)
{
    mp_batcher *b = r->batcher;
    size_t fault = 0;
    for (size_t i = 0; b->cache.max > 0 && from->matrix != NULL && i < from->nexchanges; i++) {
        const struct mp_exchange *x = &from->exchanges[i];
        const float *v = mp_matrix_data(from->matrix) + x->first * from->dimensions;
        for (uint64_t k = 0; x->kind == MP_KIND_NONE && k < x->count; k++) {
            while (fault < from->nfaults && from->faults[fault].row < x->first + k)
                fault++;
            if (fault < from->nfaults && from->faults[fault].row == x->first + k)
                continue;
            mp__cache_put(b, r->group, &r->rows[x->first + k], v + k * from->dimensions,
                          from->dimensions);
        }
    }
}

/* A piece whose vectors are of another length than those before it. */
static int wrong_dimension(const struct mp__share *sh, const struct mp_result *from)
{
    const struct mp_result *r = sh->s->result;
    return from->matrix != NULL && (r->matrix == NULL || r->dimensions != from->dimensions);
}

/* In the caller's rows: those that were known before lie between. */
static void add_mapped(struct mp__submission *s, const struct mp_exchange *x, uint64_t first,
                       uint32_t count)
{
    uint32_t n = 0;
    for (uint64_t i = first; s->map != NULL && i < first + count; i += n) {
        n = 1;
        while (i + n < first + count && s->map[i + n] == s->map[i] + n)
            n++;
        mp__submission_add_exchange(s, x, s->map[i], n);
    }
    if (s->map == NULL)
        mp__submission_add_exchange(s, x, first, count);
}

static void give_exchanges(const struct mp__share *sh, const struct mp_result *from)
{
    int wrong = wrong_dimension(sh, from);
    for (size_t i = 0; i < from->nexchanges; i++) {
        struct mp_exchange x = from->exchanges[i];
        if (!overlaps(&x, sh))
            continue;
        if (wrong && x.kind == MP_KIND_NONE)
            x.kind = MP_KIND_DECODE;
        uint64_t first = x.first > sh->at ? x.first : sh->at;
        uint64_t end = x.first + x.count;
        if (end > sh->at + sh->count)
            end = sh->at + sh->count;
        add_mapped(sh->s, &x, first - sh->at + sh->first, (uint32_t)(end - first));
    }
}

/* The caller's row that `row` of the request is. */
static uint64_t row_of(const struct mp__share *sh, uint64_t row)
{
    uint64_t i = row - sh->at + sh->first;
    return sh->s->map != NULL ? sh->s->map[i] : i;
}

/* Rows that the reply had no vector for; in the matrix they are NaN already. */
static void give_faults(const struct mp__share *sh, const struct mp_result *from)
{
    for (size_t i = 0; i < from->nfaults && !wrong_dimension(sh, from); i++) {
        const struct mp_row_error *f = &from->faults[i];
        if (f->row >= sh->at && f->row < sh->at + sh->count)
            mp__result_fault(sh->s->result, row_of(sh, f->row), f->message);
    }
}

static void give_usage(struct mp__share *sh, int64_t prompt, int64_t total)
{
    struct mp_result *r = sh->s->result;
    if (prompt >= 0)
        r->prompt_tokens = (r->prompt_tokens > 0 ? r->prompt_tokens : 0) + prompt;
    if (total >= 0)
        r->total_tokens = (r->total_tokens > 0 ? r->total_tokens : 0) + total;
}

/* A call that a fault has ended (nobody was ever answered) tells it by its exchanges, as any other. */
static enum mp_kind cut_short(const struct mp_result *from)
{
    return from->kind == MP_KIND_CANCELLED || from->kind == MP_KIND_TOTAL_TIMEOUT ||
                   from->kind == MP_KIND_CLOSED
               ? from->kind
               : MP_KIND_NONE;
}

static void give(struct mp__share *sh, const struct mp_result *from)
{
    struct mp__submission *s = sh->s;
    struct mp_result *r = s->result;
    /* It was promised to somebody with less time, whose place was taken since. */
    if (from->kind == MP_KIND_TOTAL_TIMEOUT && s->leads && s->deadline_at > mp__now()) {
        s->taken = 0;
        mp__submission_wait(s);
        return;
    }
    if (s->whole && !s->alone && guilt_unknown(sh, from)) {
        mp__submission_requeue(s);
        return;
    }
    give_matrix(sh, from);
    give_exchanges(sh, from);
    give_faults(sh, from);
    if (r->model == NULL && from->model != NULL)
        r->model = strdup(from->model);
    if (r->words == NULL && from->words != NULL) {
        r->words = strdup(from->words);
        r->status = from->status;
    }
    s->left -= sh->count;
    if (cut_short(from) != MP_KIND_NONE || s->left == 0)
        mp__submission_end(s, cut_short(from));
}

/* Bytes of the rows that the server answered, three more a row so that empty ones count. */
static uint64_t weigh(struct mp__request *r, const struct mp_result *from)
{
    uint64_t total = 0;
    size_t k = 0;
    for (uint32_t i = 0; i < r->nshares; i++) {
        struct mp__share *sh = &r->shares[i];
        sh->weight = 0;
        for (uint64_t row = sh->at; row < sh->at + sh->count; row++) {
            while (k < from->nexchanges &&
                   from->exchanges[k].first + from->exchanges[k].count <= row)
                k++;
            if (k < from->nexchanges && from->exchanges[k].first <= row &&
                from->exchanges[k].kind == MP_KIND_NONE)
                sh->weight += r->rows[row].n + 3;
        }
        total += sh->weight;
    }
    return total;
}

/* What the rows up to `weight` of `all` have used: differences of it sum exactly. */
static int64_t used_by(int64_t tokens, uint64_t weight, uint64_t all)
{
    if (tokens < 0 || all == 0)
        return -1;
    return (int64_t)((unsigned __int128)(uint64_t)tokens * weight / all);
}

static void on_reply(void *arg, const struct mp_result *result)
{
    struct mp__request *r = arg;
    mp_batcher *b = r->batcher;
    uint64_t all = weigh(r, result);
    uint64_t seen = 0;
    b->busy--;
    mp__list_remove(&r->link); /* from here on nobody who ends looks for it */
    remember(r, result);
    for (uint32_t i = 0; i < r->nshares; i++) {
        struct mp__share *sh = &r->shares[i];
        uint64_t upto = seen + sh->weight;
        sh->s->flying--;
        int64_t prompt = used_by(result->prompt_tokens, upto, all);
        int64_t total = used_by(result->total_tokens, upto, all);
        if (!sh->s->ended) {
            if (r->nshares == 1) /* the reply does not say which rows */
                sh->s->result->rows_cut += result->rows_cut;
            give_usage(sh, prompt - (prompt < 0 ? 0 : used_by(result->prompt_tokens, seen, all)),
                       total - (total < 0 ? 0 : used_by(result->total_tokens, seen, all)));
            give(sh, result);
        }
        seen = upto;
    }
    request_free(r);
    mp__wake(b->engine);
    mp__batcher_maybe_free(b);
}

/* ---- sending ---- */

static mp__time last_deadline(const struct mp__request *r)
{
    mp__time last = 0;
    for (uint32_t i = 0; i < r->nshares; i++)
        if (r->shares[i].s->deadline_at > last)
            last = r->shares[i].s->deadline_at;
    return last;
}

static int submit(struct mp__request *r)
{
    struct mp_request q = r->group->frame.request;
    struct mp_timeouts t = r->group->frame.timeouts;
    mp__time until = last_deadline(r);
    mp__time now = mp__now();
    uint64_t at = 0;
    r->rows = malloc(r->nrows * sizeof(*r->rows));
    if (r->rows == NULL)
        return MP_ENOMEM;
    for (uint32_t i = 0; i < r->nshares; i++) {
        struct mp__share *sh = &r->shares[i];
        memcpy(r->rows + at, sh->s->rows + sh->first, sh->count * sizeof(*r->rows));
        at += sh->count;
    }
    t.total = until == MP__NEVER ? -1 : until > now ? (double)(until - now) / 1e9 : 1e-9;
    q.timeouts = &t;
    q.rows = r->rows;
    q.nrows = r->nrows;
    q.done = on_reply;
    q.arg = r;
    return mp_submit(r->batcher->engine, &q, &r->ticket);
}

static void not_sent(struct mp__request *r, int rc)
{
    struct mp_exchange x = {.kind = MP_KIND_CONNECT, .retryable = 1, .retry_after = -1};
    x.data = mp__exchange_pack(&x, "", mp_strerror(rc), "", "");
    for (uint32_t i = 0; i < r->nshares; i++) {
        struct mp__submission *s = r->shares[i].s;
        if (rc != MP_ECLOSED && x.data != NULL)
            add_mapped(s, &x, r->shares[i].first, r->shares[i].count);
        s->flying--;
        mp__submission_end(s, rc == MP_ECLOSED ? MP_KIND_CLOSED : MP_KIND_NONE);
    }
    free((char *)x.data);
    request_free(r);
}

static void start(struct mp__request *r)
{
    mp_batcher *b = r->batcher;
    int rc = submit(r);
    if (rc != 0) {
        not_sent(r, rc);
        return;
    }
    mp__list_push(&b->requests, &r->link);
    b->busy++;
    b->n.requests++;
    b->n.request_rows += r->nrows;
    if (r->nrows > b->n.largest)
        b->n.largest = r->nrows;
}

static struct mp__request *gather(mp_batcher *b)
{
    struct mp__request *r = NULL;
    int from_below = (b->turns + 1) % BELOW_FIRST == 0;
    int lonely = !mp__list_empty(&b->alone);
    struct mp__group *g = lonely && b->turns % 2 == 0 ? NULL : pick(b, from_below);
    if (g == NULL && lonely) {
        struct mp__submission *s = MP__ENTRY(b->alone.next, struct mp__submission, link);
        r = request_new(b, s->group);
        if (r != NULL)
            share_add(r, s, s->nrows);
    } else if (g != NULL) {
        r = request_new(b, g);
        if (r != NULL)
            fill(r, from_below);
    }
    if (r != NULL && r->nshares == 0) { /* no memory */
        request_free(r);
        return NULL;
    }
    b->turns += r != NULL;
    return r;
}

void mp__gather_send(mp_batcher *b)
{
    while (b->busy < b->slots && b->waiting > 0 &&
           b->engine->calls_open < b->engine->cfg.max_calls) {
        struct mp__request *r = gather(b);
        if (r == NULL)
            return;
        start(r);
    }
}

/*
 * gather.c - the batcher: submissions taken in, queued and ended.
 *
 * What may share a request is decided by the request itself: equal frames are one group.
 */
#include "engine/gather.h"

#include "base/hash.h"
#include "codec/json_write.h"

#include <stdlib.h>
#include <string.h>

/* ---- groups ---- */

static void set_policy(struct mp__group *g, const struct mp_request *q)
{
    size_t frame = q->prefix.n + q->suffix.n + q->tail.n;
    g->limits = g->batcher->limits;
    g->policy = g->batcher->client->policy;
    if (q->policy != NULL)
        memcpy(&g->policy, q->policy,
               q->policy->size < sizeof(g->policy) ? q->policy->size : sizeof(g->policy));
    g->policy.batch = g->limits; /* for submissions that go alone: the engine cuts these */
    if (g->limits.bytes > 0)
        g->limits.bytes = g->limits.bytes > frame ? g->limits.bytes - frame : 1;
}

static struct mp__group *group_new(mp_batcher *b, const struct mp_request *q, struct mp__buf *id)
{
    struct mp__group *g = calloc(1, sizeof(*g));
    if (g == NULL)
        return NULL;
    if (mp__frame_take(&g->frame, id, q) != 0) {
        free(g);
        return NULL;
    }
    g->batcher = b;
    struct mp__hash128 content = mp__hash128(g->frame.bytes, g->frame.n, b->seed);
    g->content_seed = content.low;
    g->content_high = content.high;
    set_policy(g, q);
    struct mp_request *r = &g->frame.request;
    r->client = b->client;
    r->flags = (r->flags & ~(uint32_t)MP_ONE_REQUEST) | MP_BORROW;
    r->max_concurrent = 1;
    r->policy = &g->policy;
    mp__table_init(&g->flows);
    for (int i = 0; i < MP__LANES; i++)
        mp__list_init(&g->lanes[i].ring);
    return g;
}

static struct mp__group *group_get(mp_batcher *b, const struct mp_request *q,
                                   const struct mp_gather *how)
{
    struct mp__buf id;
    mp__buf_init(&id, 0);
    struct mp__group *g = NULL;
    if (mp__frame_write(&id, q) != 0 || mp__buf_add(&id, how->group.p, how->group.n) != 0)
        goto out;
    uint64_t hash = mp__hash64(id.p, id.n, b->seed);
    for (struct mp__node *n = mp__table_chain(&b->groups, hash); n != NULL; n = n->next) {
        g = MP__ENTRY(n, struct mp__group, node);
        if (n->hash == hash && g->frame.n == id.n && memcmp(g->frame.bytes, id.p, id.n) == 0)
            goto out;
    }
    g = group_new(b, q, &id);
    if (g != NULL)
        mp__table_add(&b->groups, &g->node, hash);
out:
    mp__buf_free(&id);
    if (g != NULL)
        g->refs++;
    return g;
}

void mp__group_unref(struct mp__group *g)
{
    if (--g->refs > 0)
        return;
    mp__table_remove(&g->batcher->groups, &g->node);
    mp__table_fini(&g->flows);
    mp__frame_free(&g->frame);
    free(g);
}

/* ---- flows ---- */

static struct mp__flow *flow_get(struct mp__group *g, const struct mp__submission *s)
{
    uint64_t hash = s->key_hash ^ s->lane;
    for (struct mp__node *n = mp__table_chain(&g->flows, hash); n != NULL; n = n->next) {
        struct mp__flow *f = MP__ENTRY(n, struct mp__flow, node);
        if (n->hash == hash && f->lane == s->lane && f->key_len == s->key.n &&
            memcmp(f->key, s->key.p, s->key.n) == 0)
            return f;
    }
    struct mp__flow *f = calloc(1, sizeof(*f) + s->key.n + 1);
    if (f == NULL)
        return NULL;
    f->lane = s->lane;
    f->key_len = s->key.n;
    memcpy(f->key, s->key.p, s->key.n);
    mp__list_init(&f->queue);
    mp__list_push(&g->lanes[s->lane].ring, &f->link);
    mp__table_add(&g->flows, &f->node, hash);
    return f;
}

/* ---- queues ---- */

uint32_t mp__submission_piece(const struct mp__submission *s, struct mpp_batch_sum *sum)
{
    struct mp__group *g = s->group;
    if (s->whole) {
        *sum = s->cost;
        return s->nrows;
    }
    return mpp_batch_take(&g->limits, mp__submission_cost, (void *)s, s->taken, s->nrows - s->taken,
                          sum);
}

static void add_due(struct mp__submission *s)
{
    if (!s->is_due) {
        s->is_due = 1;
        s->group->due++;
    }
}

static void enter(struct mp__submission *s, struct mp__flow *f)
{
    struct mp__group *g = s->group;
    s->waiting = 1;
    s->flow = f;
    s->batcher->waiting += s->nrows - s->taken;
    if (f == NULL) {
        mp__list_push(&s->batcher->alone, &s->link);
        return;
    }
    mp__list_push(&f->queue, &s->link);
    g->waiting += s->nrows - s->taken;
    g->sum.chars += s->cost.chars;
    g->sum.bytes += s->cost.bytes;
    g->sum.tokens += s->cost.tokens;
    if (!mp__linked(&g->link))
        mp__list_push(&s->batcher->ready, &g->link);
}

static void leave_flow(struct mp__submission *s)
{
    struct mp__group *g = s->group;
    struct mp__flow *f = s->flow;
    g->waiting -= s->nrows - s->taken;
    g->sum.chars -= s->cost.chars;
    g->sum.bytes -= s->cost.bytes;
    g->sum.tokens -= s->cost.tokens;
    if (s->is_due)
        g->due--;
    s->is_due = 0;
    if (mp__list_empty(&f->queue)) {
        mp__list_remove(&f->link);
        mp__table_remove(&g->flows, &f->node);
        free(f);
    }
    if (g->waiting == 0) {
        mp__list_remove(&g->link);
        g->sum = (struct mpp_batch_sum){0};
    }
}

/* Its remaining rows do not wait any more: they were taken, or nobody wants them. */
void mp__submission_leave(struct mp__submission *s)
{
    if (!s->waiting)
        return;
    s->waiting = 0;
    mp__list_remove(&s->link);
    mp__heap_clear(&s->batcher->engine->timers, &s->due);
    s->batcher->waiting -= s->nrows - s->taken;
    if (s->flow != NULL)
        leave_flow(s);
    s->flow = NULL;
}

void mp__submission_requeue(struct mp__submission *s)
{
    s->alone = 1;
    s->taken = 0;
    s->batcher->n.alone++;
    enter(s, NULL);
}

/* ---- the life of a submission ---- */

static struct mp__submission *submission_new(struct mp_engine *e)
{
    struct mp__submission *s = mp__slab_get(&e->submissions);
    if (s == NULL)
        return NULL;
    if (s->generation == 0) { /* the object's first use; its number is for life */
        s->index = mp__slab_index(&e->submissions, s);
        s->generation = 1;
    }
    uint32_t index = s->index;
    uint32_t generation = s->generation;
    *s = (struct mp__submission){.index = index, .generation = generation};
    s->deadline.kind = MP__T_DEADLINE;
    s->due.kind = MP__T_DUE;
    s->refs = 1;
    return s;
}

static struct mp__submission *submission_find(struct mp_engine *e, uint64_t ticket)
{
    struct mp__submission *s = mp__slab_at(&e->submissions, (uint32_t)ticket);
    return s != NULL && ticket >> 32 != 0 && s->generation == (uint32_t)(ticket >> 32) ? s : NULL;
}

static void submission_free(struct mp__submission *s)
{
    struct mp_engine *e = s->batcher != NULL ? s->batcher->engine : NULL;
    if (e != NULL)
        e->queued_bytes -= s->charged;
    if (s->group != NULL)
        mp__group_unref(s->group);
    free(s->block);
    free(s->map);
    s->block = NULL;
    s->map = NULL;
    s->generation = s->generation == UINT32_MAX ? 1 : s->generation + 1;
}

void mp__submission_unref(struct mp__submission *s)
{
    mp_batcher *b = s->batcher;
    if (--s->refs > 0)
        return;
    submission_free(s);
    mp__slab_put(&b->engine->submissions, s);
}

/* Nobody waits for its rows any more. */
static void abandon(struct mp__submission *s)
{
    for (struct mp__link *l = s->batcher->requests.next; l != &s->batcher->requests; l = l->next) {
        struct mp__request *r = MP__ENTRY(l, struct mp__request, link);
        for (uint32_t i = 0; i < r->nshares; i++)
            if (r->shares[i].s == s && --r->alive == 0)
                mp_cancel(s->batcher->engine, r->ticket);
    }
}

void mp__submission_end(struct mp__submission *s, enum mp_kind kind)
{
    struct mp_engine *e = s->batcher->engine;
    struct mp_result *r = s->result;
    if (s->ended)
        return;
    if (s->waiting)
        s->batcher->n.dropped += s->nrows - s->taken;
    mp__submission_leave(s);
    s->ended = 1;
    mp__heap_clear(&e->timers, &s->deadline);
    r->kind = kind;
    r->total_time = (double)(mp__now() - s->created) / 1e9;
    mp__result_finish(r, mp__submission_is_view(s));
    mp__flight_pass_on(s, kind);
    if (s->flying > 0)
        abandon(s);
    mp__list_remove(&s->link); /* of a flight that it followed */
    mp__list_push(&e->submissions_done, &s->link);
    mp__wake(e);
}

/* ---- submission ---- */

int mp__submission_cost(void *arg, uint64_t row, struct mpp_cost *out)
{
    const struct mp__submission *s = arg;
    const struct mp_str *t = &s->rows[row];
    out->chars = s->batcher->limits.chars > 0 ? mp__utf8_chars(t->p, t->n) : 0;
    const struct mp_request *f = s->group != NULL ? &s->group->frame.request : NULL;
    out->bytes = t->n + 3 + (f != NULL ? f->row_prefix.n + f->row_suffix.n : 0);
    out->tokens = (double)t->n * mpp_client_tokens_per_byte(s->batcher->client->core);
    return 0;
}

int mp__gather_check(const struct mp_request *q, const struct mp_gather *how)
{
    if (q->mode != MP_BODY_JOIN)
        return mp__fail(MP_EINVAL, "mode: a batcher joins rows (MP_BODY_JOIN)");
    if (q->vectors == NULL)
        return mp__fail(MP_EINVAL, "vectors: missing");
    if (q->chunk != NULL || q->source != NULL || q->row_headers != NULL)
        return mp__fail(MP_EINVAL, "chunk, source, row_headers: not for a batcher");
    if (how->priority < -1 || how->priority > 1)
        return mp__fail(MP_EINVAL, "priority: %d is not -1, 0 or 1", (int)how->priority);
    if (how->key.n > 4096 || how->group.n > 65536)
        return mp__fail(MP_EINVAL, "key: longer than 4,096 bytes, or group than 65,536");
    return 0;
}

static int check_submission(const mp_batcher *b, const struct mp_request *q,
                            const struct mp_gather *how)
{
    if (q->done == NULL)
        return mp__fail(MP_EINVAL, "done: missing");
    if (q->nrows > b->max_waiting)
        return mp__fail(MP_EINVAL, "rows: %zu are more than may wait (max_waiting %u)", q->nrows,
                        b->max_waiting);
    return mp__gather_check(q, how);
}

static int copy_rows(struct mp__submission *s, const struct mp_request *q,
                     const struct mp_gather *how)
{
    size_t n = q->nrows * sizeof(struct mp_str) + how->key.n + 1;
    for (size_t i = 0; i < q->nrows; i++)
        s->bytes += q->rows[i].n;
    n += s->bytes;
    struct mp_engine *e = s->batcher->engine;
    if (e->queued_bytes + n > e->cfg.max_queued_bytes)
        return mp__fail(MP_EAGAIN, "max_queued_bytes are waiting");
    s->block = malloc(n);
    if (s->block == NULL)
        return mp__fail(MP_ENOMEM, "out of memory");
    s->charged = n;
    e->queued_bytes += n;
    s->rows = s->block;
    char *at = (char *)(s->rows + q->nrows);
    for (size_t i = 0; i < q->nrows; i++) {
        s->rows[i] = (struct mp_str){at, q->rows[i].n};
        if (q->rows[i].n > 0)
            memcpy(at, q->rows[i].p, q->rows[i].n);
        at += q->rows[i].n;
        size_t bad = 0;
        /* The engine says which row it is: only where the rows are the caller's own is it right. */
        if (q->row_style != MP_ROW_JSON && mp__utf8_valid(s->rows[i].p, s->rows[i].n, &bad) != 0)
            s->alone = 1;
    }
    s->key = (struct mp_str){at, how->key.n};
    if (how->key.n > 0)
        memcpy(at, how->key.p, how->key.n);
    s->key_hash = mp__hash64(at, how->key.n, s->batcher->seed);
    return 0;
}

static int take_in(struct mp__submission *s, const struct mp_request *q,
                   const struct mp_gather *how)
{
    int rc = copy_rows(s, q, how);
    if (rc != 0)
        return rc;
    s->group = group_get(s->batcher, q, how);
    s->result = calloc(1, sizeof(*s->result));
    if (s->group == NULL || s->result == NULL)
        return mp__fail(MP_ENOMEM, "out of memory");
    s->nrows = s->left = (uint32_t)q->nrows;
    s->lane = (uint32_t)(1 - how->priority);
    s->done = q->done;
    s->arg = q->arg;
    s->created = mp__now();
    s->result->rows = q->nrows;
    s->result->ticket = ((uint64_t)s->generation << 32) | s->index;
    s->result->prompt_tokens = s->result->total_tokens = -1;
    return 0;
}

void mp__submission_wait(struct mp__submission *s)
{
    /* Without memory for a flow it has no turn to wait for: it goes by itself. */
    struct mp__flow *f = s->alone ? NULL : flow_get(s->group, s);
    if (f == NULL)
        s->alone = 1;
    enter(s, f);
    if (f != NULL)
        add_due(s);
}

/* Answered from what is known, following another, or waiting for its turn. */
static void settle_in(struct mp__submission *s, double wait)
{
    struct mp__group *g = s->group;
    if (mp__cache_answer(s)) {
        mp__submission_end(s, MP_KIND_NONE);
        return;
    }
    s->whole =
        mpp_batch_take(&g->limits, mp__submission_cost, s, 0, s->nrows, &s->cost) == s->nrows;
    if (!s->whole)
        s->cost = (struct mpp_batch_sum){0};
    if (mp__flight_join(s))
        return;
    struct mp__flow *f = s->alone ? NULL : flow_get(g, s);
    s->alone |= f == NULL;
    enter(s, f);
    if (f == NULL)
        return;
    if (wait > 0 && s->whole)
        mp__heap_set(&s->batcher->engine->timers, &s->due, mp__after(s->created, wait));
    else
        add_due(s);
}

static void set_deadline(struct mp__submission *s, const struct mp_request *q)
{
    mp_batcher *b = s->batcher;
    double total = q->timeouts != NULL ? q->timeouts->total : 0;
    s->deadline_at = mp__limit_at(s->created, total != 0 ? total : b->client->timeouts.total);
    if (s->deadline_at != MP__NEVER)
        mp__heap_set(&b->engine->timers, &s->deadline, s->deadline_at);
}

int mp_batcher_submit(mp_batcher *b, const struct mp_request *given, const struct mp_gather *how,
                      uint64_t *ticket)
{
    struct mp_request q = {0};
    struct mp_gather h = {0};
    if (b == NULL || given == NULL)
        return mp__fail(MP_EINVAL, "batcher or request: missing");
    struct mp_engine *e = b->engine;
    memcpy(&q, given, given->size < sizeof(q) ? given->size : sizeof(q));
    if (how != NULL)
        memcpy(&h, how, how->size < sizeof(h) ? how->size : sizeof(h));
    q.client = b->client;
    if (b->closed)
        return mp__fail(MP_ECLOSED, "the batcher is closed");
    int rc = mp__call_check(e, &q);
    if (rc == 0)
        rc = check_submission(b, &q, &h);
    if (rc != 0)
        return rc;
    if (q.nrows > b->max_waiting - b->waiting) {
        b->n.refused++;
        return mp__fail(MP_EAGAIN, "%u rows are waiting", b->waiting);
    }
    struct mp__submission *s = submission_new(e);
    if (s == NULL)
        return mp__fail(MP_ENOMEM, "out of memory");
    s->batcher = b;
    rc = take_in(s, &q, &h);
    if (rc != 0) {
        free(s->result);
        submission_free(s);
        mp__slab_put(&e->submissions, s);
        return rc;
    }
    b->open++;
    e->submissions_open++;
    b->n.submissions++;
    b->n.rows += q.nrows;
    if (ticket != NULL)
        *ticket = s->result->ticket;
    set_deadline(s, &q);
    settle_in(s, h.max_wait != 0 ? h.max_wait : b->limits.max_wait);
    mp__wake(e);
    return MP_OK;
}

void mp_batcher_cancel(mp_batcher *b, uint64_t ticket)
{
    struct mp__submission *s = b != NULL ? submission_find(b->engine, ticket) : NULL;
    if (s != NULL && s->batcher == b && !s->ended)
        mp__submission_end(s, MP_KIND_CANCELLED);
}

/* ---- batchers ---- */

int mp_batcher_new(mp_client *client, const struct mp_batcher_config *given, mp_batcher **out)
{
    struct mp_batcher_config cfg = {0};
    if (out == NULL)
        return mp__fail(MP_EINVAL, "out: missing");
    *out = NULL;
    if (given != NULL)
        memcpy(&cfg, given, given->size < sizeof(cfg) ? given->size : sizeof(cfg));
    if (client == NULL)
        return mp__fail(MP_EINVAL, "client: missing");
    if (client->closed)
        return mp__fail(MP_ECLOSED, "the client is closed");
    mp_batcher *b = calloc(1, sizeof(*b));
    if (b == NULL)
        return mp__fail(MP_ENOMEM, "out of memory");
    const struct mp_batch_policy *own = &client->policy.batch;
    b->engine = client->engine;
    b->client = client;
    b->slots = cfg.slots > 0 ? cfg.slots : 4;
    b->limits = cfg.batch;
    if (b->limits.size == 0)
        b->limits.size = own->size > 0 ? own->size : 128;
    b->limits.chars = cfg.batch.chars > 0 ? cfg.batch.chars : own->chars;
    b->limits.tokens = cfg.batch.tokens > 0 ? cfg.batch.tokens : own->tokens;
    b->limits.bytes = cfg.batch.bytes > 0 ? cfg.batch.bytes : own->bytes;
    b->max_waiting = cfg.max_waiting > 0 ? cfg.max_waiting : 65536;
    b->seed = mp__mix64(client->engine->id_salt);
    b->single_flight = cfg.single_flight == MP_FLIGHT_ON ||
                       (cfg.single_flight == MP_FLIGHT_CACHE && cfg.cache_bytes > 0);
    mp__cache_init(&b->cache, cfg.cache_bytes);
    mp__table_init(&b->flights);
    mp__table_init(&b->groups);
    mp__list_init(&b->ready);
    mp__list_init(&b->alone);
    mp__list_init(&b->requests);
    mp__list_push(&b->engine->batchers, &b->link);
    client->refs++;
    *out = b;
    return MP_OK;
}

void mp__batcher_maybe_free(mp_batcher *b)
{
    if (!b->released || b->open > 0 || !mp__list_empty(&b->requests))
        return;
    struct mp_client *client = b->client;
    mp__list_remove(&b->link);
    mp__table_fini(&b->groups);
    mp__table_fini(&b->flights);
    mp__cache_fini(&b->cache);
    free(b);
    mp__client_unref(client);
}

static void end_queue(struct mp__link *queue, enum mp_kind kind)
{
    while (!mp__list_empty(queue))
        mp__submission_end(MP__ENTRY(queue->next, struct mp__submission, link), kind);
}

static void end_all(mp_batcher *b, enum mp_kind kind)
{
    b->closed = 1;
    end_queue(&b->alone, kind);
    while (!mp__list_empty(&b->ready)) {
        struct mp__group *g = MP__ENTRY(b->ready.next, struct mp__group, link);
        g->refs++;
        for (int i = 0; i < MP__LANES; i++) {
            struct mp__link *ring = &g->lanes[i].ring;
            while (!mp__list_empty(ring)) { /* a flow goes with the last of its queue */
                struct mp__flow *f = MP__ENTRY(ring->next, struct mp__flow, link);
                mp__submission_end(MP__ENTRY(f->queue.next, struct mp__submission, link), kind);
            }
        }
        mp__group_unref(g);
    }
    for (struct mp__link *l = b->requests.next; l != &b->requests; l = l->next) {
        struct mp__request *r = MP__ENTRY(l, struct mp__request, link);
        for (uint32_t i = 0; i < r->nshares; i++)
            mp__submission_end(r->shares[i].s, kind);
    }
}

void mp_batcher_close(mp_batcher *b)
{
    if (b == NULL || b->released)
        return;
    end_all(b, MP_KIND_CLOSED);
    b->released = 1;
    mp__batcher_maybe_free(b);
}

void mp_batcher_stats(mp_batcher *b, struct mp_batcher_stats *out)
{
    size_t want = out->size;
    b->n.size = want < sizeof(b->n) ? want : sizeof(b->n);
    b->n.waiting = b->waiting;
    b->n.busy = b->busy;
    b->n.cache_bytes = b->cache.bytes;
    memcpy(out, &b->n, b->n.size);
}

/* ---- what the engine calls ---- */

void mp__gather_init(struct mp_engine *e)
{
    mp__slab_init(&e->submissions, sizeof(struct mp__submission), 128);
    mp__list_init(&e->batchers);
    mp__list_init(&e->submissions_done);
}

void mp__gather_fini(struct mp_engine *e)
{
    mp__slab_fini(&e->submissions);
}

void mp__gather_close(struct mp_engine *e, const struct mp_client *client)
{
    struct mp__link *next = NULL;
    for (struct mp__link *l = e->batchers.next; l != &e->batchers; l = next) {
        mp_batcher *b = MP__ENTRY(l, mp_batcher, link);
        next = l->next;
        if (client == NULL)
            mp_batcher_close(b);
        else if (b->client == client)
            end_all(b, MP_KIND_CLOSED);
    }
}

void mp__gather_timer(struct mp_engine *e, struct mp__timer *t)
{
    (void)e;
    if (t->kind == MP__T_DUE)
        add_due(MP__ENTRY(t, struct mp__submission, due));
    else
        mp__submission_end(MP__ENTRY(t, struct mp__submission, deadline), MP_KIND_TOTAL_TIMEOUT);
}

void mp__gather_turn(struct mp_engine *e)
{
    for (struct mp__link *l = e->batchers.next; l != &e->batchers; l = l->next)
        mp__gather_send(MP__ENTRY(l, mp_batcher, link));
}

int mp__gather_deliver(struct mp_engine *e, mp__time until)
{
    while (!mp__list_empty(&e->submissions_done)) {
        if (mp__now() >= until)
            return 1;
        struct mp__submission *s =
            MP__ENTRY(mp__list_shift(&e->submissions_done), struct mp__submission, link);
        mp_batcher *b = s->batcher;
        e->delivered = 1;
        e->submissions_open--;
        s->done(s->arg, s->result);
        mp_result_free(s->result);
        s->result = NULL;
        b->open--;
        mp__submission_unref(s);
        mp__batcher_maybe_free(b);
    }
    return 0;
}

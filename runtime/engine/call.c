/*
 * call.c - a user's call: taken in, answered once; part.c cuts it.
 *
 * What a call needs later is copied into one block at submission, except rows that the caller
 * promised to keep (MP_BORROW). Parts are made only when the core has a slot for one, so a call of
 * a million rows costs no more than the parts in flight.
 */
#include "engine/frame.h"
#include "engine/internal.h"

#include <stdlib.h>
#include <string.h>

/* ---- tickets ---- */

#define NO_SLOT UINT32_MAX

static int slot_take(struct mp_engine *e, struct mp__call *call)
{
    if (e->free_slot == NO_SLOT) {
        uint32_t cap = e->nslots ? e->nslots * 2 : 64;
        struct mp__slot *v = realloc(e->slots, cap * sizeof(*v));
        if (v == NULL)
            return MP_ENOMEM;
        for (uint32_t i = e->nslots; i < cap; i++)
            v[i] = (struct mp__slot){1, i + 1 < cap ? i + 1 : NO_SLOT, NULL};
        e->free_slot = e->nslots;
        e->slots = v;
        e->nslots = cap;
    }
    uint32_t i = e->free_slot;
    e->free_slot = e->slots[i].next_free;
    e->slots[i].call = call;
    call->ticket = ((uint64_t)e->slots[i].generation << 32) | i;
    return 0;
}

static struct mp__call *slot_find(struct mp_engine *e, uint64_t ticket)
{
    uint32_t i = (uint32_t)ticket;
    if (e == NULL || i >= e->nslots || e->slots[i].generation != (uint32_t)(ticket >> 32))
        return NULL;
    return e->slots[i].call;
}

static void slot_give(struct mp_engine *e, uint64_t ticket)
{
    uint32_t i = (uint32_t)ticket;
    e->slots[i].call = NULL;
    e->slots[i].generation++;
    e->slots[i].next_free = e->free_slot;
    e->free_slot = i;
}

/* ---- checks ---- */

static int check_method(const char *m)
{
    static const char *const known[] = {"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"};
    for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
        if (strcmp(m, known[i]) == 0)
            return 0;
    return mp__fail(MP_EINVAL,
                    "method: Invalid HTTP method '%.20s' (GET POST PUT PATCH DELETE HEAD "
                    "OPTIONS)",
                    m);
}

int mp__call_check_path(const char *path)
{
    for (const unsigned char *p = (const unsigned char *)path; *p != '\0'; p++)
        if (*p <= ' ' || *p == 127 || *p == '#')
            return mp__fail(MP_EINVAL, "path: holds a space, a control character or a fragment");
    return 0;
}

static int check_headers(const struct mp_request *q)
{
    const char *why = NULL;
    for (size_t i = 0; i < q->nheaders; i++)
        if (mp__header_check(q->headers[i].name, q->headers[i].value, &why) != 0)
            return mp__fail(MP_EINVAL, "headers: %s (%.40s)", why,
                            q->headers[i].name != NULL ? q->headers[i].name : "");
    return 0;
}

int mp__call_check(struct mp_engine *e, const struct mp_request *q)
{
    if (e->pid != getpid())
        return mp__fail(MP_EFORK, "the engine was made before a fork");
    if (q->client == NULL)
        return mp__fail(MP_EINVAL, "client: missing");
    if (e->closing || q->client->closed)
        return mp__fail(MP_ECLOSED, "the client is closed");
    return mp__request_check(q);
}

int mp__request_check(const struct mp_request *q)
{
    if (q->nrows == 0)
        return mp__fail(MP_EINVAL, "rows: empty");
    if (q->mode == MP_BODY_JOIN && q->rows == NULL)
        return mp__fail(MP_EINVAL, "rows: missing");
    if (q->chunk != NULL && (q->nrows != 1 || q->mode != MP_BODY_WHOLE || q->vectors != NULL))
        return mp__fail(MP_EINVAL, "chunk: only for a call of one whole request");
    if (q->nrows > UINT32_MAX)
        return mp__fail(MP_EINVAL, "rows: more than %u", UINT32_MAX);
    if (q->optional_at > q->suffix.n || q->optional_n > q->suffix.n - q->optional_at)
        return mp__fail(MP_EINVAL, "optional_at: outside the suffix");
    int rc = mp__frame_check(q);
    if (rc == 0)
        rc = check_method(q->method != NULL ? q->method : "POST");
    if (rc == 0)
        rc = mp__call_check_path(q->path != NULL ? q->path : "/");
    return rc != 0 ? rc : check_headers(q);
}

/* ---- submission ---- */

static size_t block_size(const struct mp_request *q)
{
    size_t n = strlen(q->method != NULL ? q->method : "POST") + 1 +
               strlen(q->path != NULL ? q->path : "/") + 1;
    if (q->flags & MP_BORROW)
        return n;
    n += q->prefix.n + q->suffix.n + q->row_prefix.n + q->row_suffix.n + q->tail.n + 16;
    if (q->rows != NULL) {
        n += q->nrows * sizeof(struct mp_str);
        for (size_t i = 0; i < q->nrows; i++)
            n += q->rows[i].n;
    }
    return n;
}

static char *put(char **at, const char *p, size_t n)
{
    char *to = *at;
    if (n > 0)
        memcpy(to, p, n);
    *at += n;
    return to;
}

static void copy_inputs(struct mp__call *call, const struct mp_request *q, char *at)
{
    call->rows = q->rows;
    call->prefix = q->prefix;
    call->suffix = q->suffix;
    call->row_prefix = q->row_prefix;
    call->row_suffix = q->row_suffix;
    call->tail = q->tail;
    call->optional_at = q->optional_at;
    call->optional_n = q->optional_n;
    if (!(q->flags & MP_BORROW) && q->rows != NULL) {
        struct mp_str *rows = (struct mp_str *)at; /* first in the block: aligned */
        at += q->nrows * sizeof(*rows);
        for (size_t i = 0; i < q->nrows; i++) {
            rows[i].p = q->rows[i].p != NULL ? put(&at, q->rows[i].p, q->rows[i].n) : NULL;
            rows[i].n = q->rows[i].n;
        }
        call->rows = rows;
    }
    if (!(q->flags & MP_BORROW)) {
        call->prefix.p = put(&at, q->prefix.p, q->prefix.n);
        call->suffix.p = put(&at, q->suffix.p, q->suffix.n);
        call->row_prefix.p = put(&at, q->row_prefix.p, q->row_prefix.n);
        call->row_suffix.p = put(&at, q->row_suffix.p, q->row_suffix.n);
        if (q->tail.p != NULL)
            call->tail.p = put(&at, q->tail.p, q->tail.n);
    }
    const char *method = q->method != NULL ? q->method : "POST";
    const char *path = q->path != NULL ? q->path : "/";
    call->method = put(&at, method, strlen(method) + 1);
    call->path = put(&at, path, strlen(path) + 1);
}

static void take_timeouts(struct mp__call *call, const struct mp_timeouts *given)
{
    const struct mp_timeouts *base = &call->client->timeouts;
    call->timeouts = *base;
    if (given == NULL)
        return;
    struct mp_timeouts *t = &call->timeouts;
    t->connect = given->connect != 0 ? given->connect : base->connect;
    t->read = given->read != 0 ? given->read : base->read;
    t->write = given->write != 0 ? given->write : base->write;
    t->pool = given->pool != 0 ? given->pool : base->pool;
    t->attempt = given->attempt != 0 ? given->attempt : base->attempt;
    t->total = given->total != 0 ? given->total : base->total;
}

static int take_headers(struct mp__call *call, const struct mp_request *q)
{
    if (q->nheaders == 0)
        return 0;
    call->headers = calloc(1, sizeof(*call->headers));
    if (call->headers == NULL)
        return MP_ENOMEM;
    for (size_t i = 0; i < q->nheaders; i++)
        if (mp__header_put(call->headers, q->headers[i].name, q->headers[i].value) != 0)
            return MP_ENOMEM;
    return 0;
}

static int start_in_core(struct mp__call *call, const struct mp_request *q)
{
    struct mpp_call_cfg cfg = {0};
    cfg.client = call->client->core;
    cfg.policy = q->policy;
    cfg.max_concurrent = q->max_concurrent;
    cfg.deadline = mp__limit_at(call->created, call->timeouts.total);
    cfg.pool_timeout = call->timeouts.pool;
    cfg.idempotent = (q->flags & MP_IDEMPOTENT) != 0;
    cfg.pinned_endpoint = -1;
    cfg.hooks = call->hooks != NULL ? &call->hooks->core : NULL;
    cfg.rows_alike = call->mode == MP_BODY_JOIN;
    cfg.size_key =
        call->mode == MP_BODY_JOIN ? mp__limit_key(call->client, call->path, q->model) : 0;
    cfg.user = call;
    call->core = mpp_call_new(&cfg, call->created);
    if (call->core != NULL)
        return 0;
    return call->engine->calls_open >= call->engine->cfg.max_calls ? MP_EAGAIN : MP_ENOMEM;
}

static struct mp__call *call_new(struct mp_engine *e, const struct mp_request *q, size_t bytes)
{
    struct mp__call *call = calloc(1, sizeof(*call) + bytes);
    if (call == NULL)
        return NULL;
    call->result = calloc(1, sizeof(*call->result));
    call->engine = e;
    call->client = q->client;
    call->created = mp__now();
    call->owned_bytes = bytes;
    call->nrows = q->nrows;
    call->mode = q->mode;
    call->row_style = q->row_style;
    call->flags = q->flags;
    call->source = q->source;
    call->source_arg = q->source_arg;
    call->row_headers = q->row_headers;
    call->policy = q->policy != NULL ? q->policy : &q->client->policy;
    call->hooks = q->hooks != NULL ? q->hooks : q->client->hooks;
    call->done = q->done;
    call->head = q->head;
    call->chunk = q->chunk;
    call->arg = q->arg;
    if (q->vectors != NULL) {
        call->vectors = *q->vectors;
        call->has_vectors = 1;
    }
    copy_inputs(call, q, (char *)(call + 1));
    take_timeouts(call, q->timeouts);
    if (call->result != NULL && call->mode == MP_BODY_WHOLE)
        call->result->exchanges = calloc(call->nrows, sizeof(*call->result->exchanges));
    if (call->result == NULL || take_headers(call, q) != 0 ||
        (call->mode == MP_BODY_WHOLE && call->result->exchanges == NULL)) {
        mp__header_free(call->headers);
        mp_result_free(call->result);
        free(call);
        return NULL;
    }
    call->result->rows = q->nrows;
    call->result->prompt_tokens = call->result->total_tokens = -1;
    return call;
}

int mp_submit(mp_engine *e, const struct mp_request *given, uint64_t *ticket)
{
    struct mp_request q = {0};
    if (e == NULL || given == NULL)
        return mp__fail(MP_EINVAL, "engine or request: missing");
    memcpy(&q, given, given->size < sizeof(q) ? given->size : sizeof(q));
    int rc = mp__call_check(e, &q);
    if (rc != 0)
        return rc;
    size_t bytes = block_size(&q);
    if (e->calls_open >= e->cfg.max_calls || e->queued_bytes + bytes > e->cfg.max_queued_bytes)
        return mp__fail(MP_EAGAIN, "%u calls are open", e->calls_open);
    struct mp__call *call = call_new(e, &q, bytes);
    if (call == NULL)
        return mp__fail(MP_ENOMEM, "out of memory");
    rc = slot_take(e, call);
    if (rc == 0) {
        rc = start_in_core(call, &q);
        if (rc != 0)
            slot_give(e, call->ticket);
    }
    if (rc != 0) {
        mp__header_free(call->headers);
        mp_result_free(call->result);
        free(call);
        return mp__fail(rc, "%s", mp_strerror(rc));
    }
    call->result->ticket = call->ticket;
    call->client->refs++;
    if (call->hooks != NULL)
        call->hooks->retain(call->hooks->core.arg);
    call->client->n.calls++;
    call->client->n.rows += q.nrows;
    e->calls_open++;
    e->queued_bytes += bytes;
    e->n.calls++;
    if (ticket != NULL)
        *ticket = call->ticket;
    mp__wake(e);
    return MP_OK;
}

void mp_cancel(mp_engine *e, uint64_t ticket)
{
    struct mp__call *call = slot_find(e, ticket);
    if (call == NULL || call->finished || call->cancelled)
        return;
    if (e->in_hook) {
        call->cancel_later = e->later = 1;
        mp__wake(e);
        return;
    }
    call->cancelled = 1;
    mpp_call_cancel(call->core, MP_KIND_CANCELLED, mp__now());
    mp__wake(e);
}

void mp_resume(mp_engine *e, uint64_t ticket)
{
    struct mp__call *call = slot_find(e, ticket);
    if (call == NULL || call->streaming == NULL)
        return;
    mp__attempt_resume(call->streaming);
    mp__wake(e);
}

/* ---- ends ---- */

const char *mp__row_words(enum mp__row_fault fault)
{
    static const char *const words[] = {
        [MP__ROW_FINE] = "",
        [MP__ROW_DIMENSION] = "the reply's vectors have another dimension than those before",
        [MP__ROW_TOO_MANY] = "the matrix would be larger than max_matrix_bytes",
        [MP__ROW_NO_MEMORY] = "out of memory",
    };
    return words[fault];
}

float *mp__call_row(struct mp__call *call, uint64_t row, uint32_t dim, enum mp__row_fault *fault)
{
    struct mp_result *r = call->result;
    if (r->matrix == NULL) {
        if (dim > 0 && call->nrows > call->engine->cfg.max_matrix_bytes / sizeof(float) / dim) {
            *fault = MP__ROW_TOO_MANY;
            return NULL;
        }
        r->matrix = mp_matrix_new(call->nrows, dim);
        if (r->matrix == NULL) {
            *fault = MP__ROW_NO_MEMORY;
            return NULL;
        }
        r->dimensions = dim;
    }
    if (dim != r->dimensions) {
        *fault = MP__ROW_DIMENSION;
        return NULL;
    }
    return mp_matrix_data(r->matrix) + row * dim;
}

static void fill_exchange(struct mp_exchange *x, const struct mp__part *part,
                          const struct mpp_action *act, const struct mp__attempt *a)
{
    const struct mpp_part_facts *facts = mpp_part_facts(act->part);
    mp__time from = facts->admitted > 0 ? facts->admitted : facts->created;
    x->first = part->first;
    x->count = part->count;
    x->kind = (uint16_t)act->kind;
    x->attempts = (uint16_t)facts->attempts;
    x->hedges = (uint16_t)facts->hedges;
    x->endpoint = (uint16_t)facts->last_endpoint;
    x->time = (float)((double)(part->call->engine->now - from) / 1e9);
    x->retry_after = -1;
    if (a == NULL)
        return;
    x->status = (int16_t)a->status;
    x->endpoint = (uint16_t)a->endpoint;
    x->hedge_won = a->is_hedge && act->kind == MP_KIND_NONE;
    x->retry_after = (float)a->hints.retry_after;
    x->retryable = act->retryable;
    x->head_len = part->call->flags & MP_NO_HEADERS ? 0 : (uint32_t)a->head.n;
    if (act->kind != MP_KIND_NONE || !part->call->has_vectors)
        x->body_len = a->reply.n;
    if (act->kind != MP_KIND_NONE && x->body_len > MP__MAX_ERROR_BODY)
        x->body_len = MP__MAX_ERROR_BODY; /* of a reply that was too large, the beginning */
}

static const char *kind_message(enum mp_kind kind)
{
    switch (kind) {
    case MP_KIND_POOL_TIMEOUT:
        return "no connection of the pool became free in time; raise pool.max_connections or "
               "lower max_concurrent_requests";
    case MP_KIND_TOTAL_TIMEOUT:
        return "the call's total timeout passed";
    case MP_KIND_BUDGET:
        return "the budget is used up: that of the endpoint's retries, or a rate hook refused";
    case MP_KIND_BREAKER_OPEN:
        return "the circuit breaker of the endpoint is open";
    case MP_KIND_CANCELLED:
        return "cancelled";
    case MP_KIND_CLOSED:
        return "the client was closed";
    case MP_KIND_RATE_LIMITED:
        return "the rate limit leaves no room";
    case MP_KIND_TOO_LARGE:
        return "out of memory";
    default:
        return mp_kind_name(kind);
    }
}

static void add_usage(struct mp_result *r, struct mp__attempt *a)
{
    int64_t prompt = -1;
    int64_t total = -1;
    size_t n = 0;
    if (a->decoder == NULL)
        return;
    mp__attempt_usage(a, &prompt, &total);
    r->rows_cut += mp__decoder_cuts(a->decoder);
    if (prompt >= 0)
        r->prompt_tokens = (r->prompt_tokens > 0 ? r->prompt_tokens : 0) + prompt;
    if (total < 0)
        total = prompt;
    if (total >= 0)
        r->total_tokens = (r->total_tokens > 0 ? r->total_tokens : 0) + total;
    const char *model = mp__decoder_model(a->decoder, &n);
    if (model != NULL && r->model == NULL)
        r->model = strndup(model, n);
}

/* A hedge decoded beside the matrix: it won, so its rows move in. */
static enum mp_kind take_scratch(struct mp__part *part, struct mp__attempt *a)
{
    enum mp__row_fault fault;
    if (a->scratch == NULL)
        return MP_KIND_NONE;
    float *to = mp__call_row(part->call, part->first, a->scratch_dim, &fault);
    if (to == NULL) {
        snprintf(a->message, sizeof(a->message), "%s", mp__row_words(fault));
        a->kind = fault == MP__ROW_DIMENSION ? MP_KIND_DECODE : MP_KIND_TOO_LARGE;
        return a->kind;
    }
    memcpy(to, a->scratch, (size_t)part->count * a->scratch_dim * sizeof(float));
    return MP_KIND_NONE;
}

/* Rows of a good reply that have no vector of their own. */
static enum mp_kind take_faults(struct mp__part *part, struct mp__attempt *a)
{
    int n = mp__result_faults(part->call->result, part->first, a->decoder);
    if (n >= 0) {
        part->call->client->n.rows_failed += (uint64_t)n;
        return MP_KIND_NONE;
    }
    snprintf(a->message, sizeof(a->message), "out of memory");
    a->kind = MP_KIND_TOO_LARGE;
    return a->kind;
}

/* A piece of a refused part that was never sent alone: what was said to the others holds for it. */
static int stand_in(struct mp__part *part, const struct mpp_action *act)
{
    struct mp_result *r = part->call->result;
    if (act->kind != MP_KIND_HTTP || part->call->mode != MP_BODY_JOIN)
        return 0;
    for (size_t i = r->nexchanges; i > 0; i--) {
        const struct mp_exchange *said = &r->exchanges[i - 1];
        if (said->kind != (uint16_t)act->kind)
            continue;
        struct mp_exchange x = *said;
        x.first = part->first;
        x.count = part->count;
        x.attempts = x.hedges = 0;
        x.time = 0;
        return mp__result_add(part->call, &x, mp_exchange_head(said), mp_exchange_message(said),
                              mp_exchange_request_id(said), mp_exchange_body(said)) == 0;
    }
    return 0;
}

static void count_end(struct mp__part *part, enum mp_kind kind)
{
    struct mp__call *call = part->call;
    call->engine->n.requests++;
    call->client->n.requests++;
    if (kind == MP_KIND_NONE) {
        call->engine->n.ok++;
        call->client->n.ok++;
    } else {
        call->engine->n.failed++;
        call->client->n.failed++;
        call->client->n.rows_failed += part->count;
        if (kind == MP_KIND_POOL_TIMEOUT)
            mp__hint_pool(call->client);
    }
}

void mp__call_part_done(struct mp__part *part, const struct mpp_action *act)
{
    struct mp__call *call = part->call;
    struct mp__attempt *a = part->last;
    struct mp_exchange x = {0};
    struct mpp_action done = *act;

    while (part->running != NULL)
        mp__attempt_leave(part->running);
    if (done.kind == MP_KIND_DECODE && a != NULL && a->partial)
        done.kind = a->kind = MP_KIND_NONE;
    if (done.kind == MP_KIND_NONE && a != NULL && call->has_vectors) {
        done.kind = take_scratch(part, a);
        add_usage(call->result, a);
    }
    if (done.kind == MP_KIND_NONE && a != NULL && a->decoding)
        done.kind = take_faults(part, a);
    if (a == NULL && stand_in(part, &done)) {
        count_end(part, done.kind);
        mp__part_free(part);
        return;
    }
    fill_exchange(&x, part, &done, a);
    int own = a != NULL && (a->kind == done.kind || done.kind == MP_KIND_NONE);
    int barred = a == NULL && done.kind == call->client->fault.kind; /* see policy/door.c */
    if (barred)
        x.status = (int16_t)call->client->fault.status;
    const char *message = done.kind == MP_KIND_NONE ? ""
                          : barred                  ? call->client->fault.words
                          : own && a->message[0]    ? a->message
                                                    : kind_message(done.kind);
    mp__result_add(call, &x, a != NULL ? a->head.p : "", message, a != NULL ? a->request_id : "",
                   a != NULL ? a->reply.p : "");
    count_end(part, done.kind);
    mp__part_free(part);
}

void mp__call_done(struct mp__call *call, enum mp_kind kind)
{
    struct mp_engine *e = call->engine;
    if (call->client->fault.kind == kind && kind != MP_KIND_NONE) {
        call->result->words = strdup(call->client->fault.words);
        call->result->status = call->client->fault.status;
    }
    mp__result_seal(call, kind, mp__now());
    call->finished = 1;
    call->core = NULL;
    call->next = NULL;
    struct mp__call ***tail = call->done != NULL ? &e->finished_tail : &e->polled_tail;
    **tail = call;
    *tail = &call->next;
    e->npolled += call->done == NULL;
    e->n.calls_done++;
}

static void free_chains(struct mp__call *call)
{
    if (call->chains == NULL)
        return;
    for (uint32_t i = 0; i < call->client->nendpoints * 2; i++)
        mp__hdr_free(call->chains[i]);
    free(call->chains);
}

void mp__call_free(struct mp__call *call)
{
    struct mp_engine *e = call->engine;
    struct mp_client *client = call->client;
    slot_give(e, call->ticket);
    if (call->hooks != NULL)
        call->hooks->release(call->hooks->core.arg);
    e->calls_open--;
    e->queued_bytes -= call->owned_bytes;
    free_chains(call);
    mp__header_free(call->headers);
    mp_result_free(call->result);
    free(call->back);
    free(call);
    mp__client_unref(client);
    mp__engine_live(e);
}

struct mp__hdr *mp__call_chain(struct mp__call *call, uint32_t endpoint, int with_body)
{
    struct mp__endpoint *ep = &call->client->endpoints[endpoint];
    if (call->headers == NULL)
        return with_body ? ep->with_body : ep->without_body;
    if (call->chains == NULL)
        call->chains = calloc(call->client->nendpoints * 2, sizeof(*call->chains));
    if (call->chains == NULL)
        return NULL;
    struct mp__hdr **chain = &call->chains[endpoint * 2 + (with_body ? 1 : 0)];
    if (*chain == NULL) {
        struct mp__header_set *all = mp__header_copy(ep->headers);
        int rc = all != NULL ? 0 : MP_ENOMEM;
        for (size_t i = 0; rc == 0 && i < call->headers->n; i++)
            rc = mp__header_put(all, call->headers->v[i].name, call->headers->v[i].value);
        if (rc == 0)
            *chain = mp__header_chain(all, with_body);
        mp__header_free(all);
    }
    return *chain;
}

int mp_poll(mp_engine *e, struct mp_completion *out, int max)
{
    int n = 0;
    if (e == NULL || (out == NULL && max > 0))
        return mp__fail(MP_EINVAL, "engine or out: missing");
    while (n < max && e->polled != NULL) {
        struct mp__call *call = e->polled;
        e->polled = call->next;
        if (e->polled == NULL)
            e->polled_tail = &e->polled;
        out[n].ticket = call->ticket;
        out[n].arg = call->arg;
        out[n].result = mp_result_keep(call->result);
        n++;
        e->npolled--;
        mp__call_free(call);
    }
    return n;
}

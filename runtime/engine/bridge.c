/*
 * bridge.c - an engine on a thread of its own, and the host's side of it.
 *
 * The host's calls copy, lock, and post a letter; the engine's thread opens the letters on its loop,
 * and at the end of each turn hands over what was finished in it: by then the engine has let go of
 * the results.
 */
#include "engine/bridge.h"

#include "base/thread.h"
#include "moonpool_uv.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STACK       (1024 * 1024) /* TLS handshakes happen on it */
#define SNAPSHOT_NS (MP__SECOND / 10)

/* ---- calls, under the lock ---- */

static void call_unref(struct mp__bcall *c)
{
    mp_bridge *b = c->bridge;
    if (--c->refs > 0)
        return;
    b->bytes -= c->bytes;
    mp__bcall_clear(c);
    mp__slab_put(&b->calls, c);
}

/* The host has what it wanted, or wants it no more: the ticket is no more. */
static void host_leaves(struct mp__bcall *c)
{
    c->generation = c->generation == UINT32_MAX ? 1 : c->generation + 1;
    c->bridge->n.open--;
    call_unref(c);
}

static struct mp__bcall *call_find(mp_bridge *b, uint64_t ticket)
{
    struct mp__bcall *c = mp__slab_at(&b->calls, (uint32_t)ticket);
    return c != NULL && ticket >> 32 != 0 && c->generation == (uint32_t)(ticket >> 32) ? c : NULL;
}

static uint64_t call_ticket(const struct mp__bcall *c)
{
    return ((uint64_t)c->generation << 32) | c->index;
}

/* ---- the engine's thread ---- */

static void on_done(void *arg, const struct mp_result *result)
{
    struct mp__bcall *c = arg;
    c->result = mp_result_keep(result);
    c->ended = 1;
    mp__list_push(&c->bridge->fresh, &c->link);
}

/* The engine refused it: a completion all the same. */
static void refuse(struct mp__bcall *c, int rc)
{
    struct mp_result *r = calloc(1, sizeof(*r));
    struct mp_exchange *x = calloc(1, sizeof(*x));
    if (r != NULL && x != NULL) {
        r->kind = rc == MP_ECLOSED ? MP_KIND_CLOSED : MP_KIND_NONE;
        r->rows = x->count = c->nrows;
        r->prompt_tokens = r->total_tokens = -1;
        x->kind = rc == MP_ECLOSED  ? MP_KIND_CLOSED
                  : rc == MP_EAGAIN ? MP_KIND_BUDGET
                                    : MP_KIND_INVALID;
        x->retryable = rc == MP_EAGAIN;
        x->retry_after = -1;
        x->data = mp__exchange_pack(x, "", mp_last_error(), "", "");
        r->exchanges = x;
        r->nexchanges = x->data != NULL;
    }
    if (r == NULL || r->nexchanges == 0) {
        free(x);
        if (r != NULL)
            r->exchanges = NULL;
    }
    c->result = r;
    c->ended = 1;
    mp__list_push(&c->bridge->fresh, &c->link);
}

static void submit(struct mp__bcall *c)
{
    mp_bridge *b = c->bridge;
    struct mp_request q = c->frame.request;
    q.rows = c->rows;
    q.nrows = c->nrows;
    q.client = b->client;
    q.flags |= MP_BORROW;
    q.flags &= ~(uint32_t)MP_HELD;
    q.done = on_done;
    q.arg = c;
    c->submitted = 1;
    int rc = b->closing    ? mp__fail(MP_ECLOSED, "the bridge is closed")
             : c->gathered ? mp_batcher_submit(b->batcher, &q, &c->gather, &c->ticket)
                           : mp_submit(b->engine, &q, &c->ticket);
    if (rc != 0)
        refuse(c, rc);
}

static void cancel(struct mp__bcall *c)
{
    if (c->submitted && !c->ended) {
        if (c->gathered)
            mp_batcher_cancel(c->bridge->batcher, c->ticket);
        else
            mp_cancel(c->bridge->engine, c->ticket);
    }
    pthread_mutex_lock(&c->bridge->lock);
    call_unref(c);
    pthread_mutex_unlock(&c->bridge->lock);
}

static void take_snapshot(mp_bridge *b)
{
    mp__time now = mp__now();
    struct mp_stats e = MP_INIT(struct mp_stats);
    struct mp_client_stats c = MP_INIT(struct mp_client_stats);
    struct mp_batcher_stats g = MP_INIT(struct mp_batcher_stats);
    if (now - b->counted < SNAPSHOT_NS || b->closing)
        return;
    b->counted = now;
    mp_stats(b->engine, &e);
    mp_client_stats(b->client, &c);
    mp_batcher_stats(b->batcher, &g);
    pthread_mutex_lock(&b->lock);
    b->n.engine = e;
    b->n.client = c;
    b->n.batcher = g;
    pthread_mutex_unlock(&b->lock);
}

static void deliver(struct mp__bcall *c)
{
    mp_bridge *b = c->bridge;
    b->n.completed++;
    if (c->dropped) {
        mp_result_free(c->result);
        c->result = NULL;
    } else {
        c->done = 1;
        b->n.ready++;
        if (!c->held)
            mp__list_push(&b->ready, &c->link);
    }
    call_unref(c);
}

static void hand_over(mp_bridge *b)
{
    struct mp__link *l = NULL;
    if (mp__list_empty(&b->fresh))
        return;
    pthread_mutex_lock(&b->lock);
    int was_empty = mp__list_empty(&b->ready);
    for (l = mp__list_shift(&b->fresh); l != NULL; l = mp__list_shift(&b->fresh))
        deliver(MP__ENTRY(l, struct mp__bcall, link));
    if (was_empty && !mp__list_empty(&b->ready)) {
        b->n.bells++;
        mp__bells_ring(&b->bells);
    }
    pthread_mutex_unlock(&b->lock);
}

static void on_turn(void *arg)
{
    hand_over(arg);
    take_snapshot(arg);
}

static void on_beat(uv_timer_t *t)
{
    mp_bridge *b = t->data;
    take_snapshot(b);
    pthread_mutex_lock(&b->lock);
    mp__bells_beat(&b->bells);
    pthread_mutex_unlock(&b->lock);
}

static void set_flag(void *arg)
{
    *(int *)arg = 1;
}

static void on_beat_closed(uv_handle_t *h)
{
    ((mp_bridge *)h->data)->beat_closed = 1;
}

static void begin_close(mp_bridge *b)
{
    b->closing = 1;
    mp_batcher_close(b->batcher);
    mp_client_close(b->client);
    mp_engine_close(b->engine, set_flag, &b->engine_closed);
}

static void open_letter(mp_bridge *b, struct mp__letter *letter)
{
    switch (letter->kind) {
    case MP__L_SUBMIT:
        submit(MP__ENTRY(letter, struct mp__bcall, submit));
        break;
    case MP__L_CANCEL:
        cancel(MP__ENTRY(letter, struct mp__bcall, cancel));
        break;
    case MP__L_CLOSE:
        begin_close(b);
        break;
    }
}

static void open_letters(void *arg, struct mp__link *letters)
{
    mp_bridge *b = arg;
    struct mp__link *l = NULL;
    for (l = mp__list_shift(letters); l != NULL; l = mp__list_shift(letters))
        open_letter(b, MP__ENTRY(l, struct mp__letter, link));
    hand_over(b); /* what was refused: no turn may follow */
}

/* ---- start ---- */

static int open_loop(mp_bridge *b)
{
    if (uv_loop_init(&b->loop) != 0)
        return mp__fail(MP_ESYS, "no event loop: descriptors or memory ran out");
    b->box = mp__mailbox_new(&b->loop, open_letters, b);
    b->engine = b->box != NULL ? mp_engine_new_on_loop(&b->loop, b->config->engine) : NULL;
    if (b->engine == NULL)
        return mp__fail(MP_ESYS, "no engine: descriptors or memory ran out");
    uv_timer_init(&b->loop, &b->beat); /* keeps the loop alive, too */
    b->beat.data = b;
    uv_timer_start(&b->beat, on_beat, 1000, 1000);
    return 0;
}

static int open_engine(mp_bridge *b)
{
    struct mp_client_config none = MP_INIT(struct mp_client_config);
    int rc = open_loop(b);
    if (rc != 0)
        return rc;
    mp_engine_on_turn(b->engine, on_turn, b);
    rc =
        mp_client_new(b->engine, b->config->client != NULL ? b->config->client : &none, &b->client);
    return rc == 0 ? mp_batcher_new(b->client, b->config->batcher, &b->batcher) : rc;
}

/* Everything that open_engine may have made. */
static void shut_engine(mp_bridge *b)
{
    struct mp__link left;
    mp__list_init(&left);
    if (b->engine != NULL && !b->closing)
        begin_close(b);
    while (b->engine != NULL && !b->engine_closed)
        uv_run(&b->loop, UV_RUN_ONCE);
    if (b->beat.data != NULL)
        uv_close((uv_handle_t *)&b->beat, on_beat_closed);
    if (b->box != NULL)
        mp__mailbox_close(b->box, &left, set_flag, &b->box_closed);
    uv_run(&b->loop, UV_RUN_DEFAULT);
    uv_loop_close(&b->loop);
}

static void *run(void *arg)
{
    mp_bridge *b = arg;
    int rc = open_engine(b);
    pthread_mutex_lock(&b->lock);
    b->rc = rc;
    if (rc != 0)
        snprintf(b->message, sizeof(b->message), "%s", mp_last_error());
    b->state = 1;
    pthread_cond_signal(&b->started);
    pthread_mutex_unlock(&b->lock);
    while (rc == 0 && !b->engine_closed)
        uv_run(&b->loop, UV_RUN_ONCE);
    hand_over(b);
    shut_engine(b);
    return NULL;
}

static void bridge_free(mp_bridge *b)
{
    mp__bells_fini(&b->bells);
    mp__slab_fini(&b->calls);
    pthread_mutex_destroy(&b->lock);
    pthread_cond_destroy(&b->started);
    free(b->name);
    free(b->note);
    free(b);
}

static mp_bridge *bridge_new(const struct mp_bridge_config *cfg)
{
    mp_bridge *b = calloc(1, sizeof(*b));
    if (b == NULL)
        return NULL;
    pthread_mutex_init(&b->lock, NULL);
    pthread_cond_init(&b->started, NULL);
    mp__slab_init(&b->calls, sizeof(struct mp__bcall), 64);
    mp__list_init(&b->ready);
    mp__list_init(&b->fresh);
    b->close.kind = MP__L_CLOSE;
    b->pid = getpid();
    b->users = 1;
    b->config = cfg;
    b->max_open = cfg->max_open > 0 ? cfg->max_open : 65536;
    b->max_bytes = cfg->engine != NULL && cfg->engine->max_queued_bytes > 0
                       ? cfg->engine->max_queued_bytes
                       : UINT64_C(1) << 30;
    b->name = cfg->name != NULL ? strdup(cfg->name) : NULL;
    b->note = strdup(cfg->note != NULL ? cfg->note : "");
    if (mp__bells_init(&b->bells) != 0 || b->note == NULL ||
        (cfg->name != NULL && b->name == NULL)) {
        bridge_free(b);
        return NULL;
    }
    return b;
}

static int start(const struct mp_bridge_config *cfg, mp_bridge **out)
{
    mp_bridge *b = bridge_new(cfg);
    if (b == NULL)
        return mp__fail(MP_ENOMEM, "out of memory or descriptors");
    if (mp__thread_start_with(&b->thread, STACK, run, b) != 0) {
        bridge_free(b);
        return mp__fail(MP_ESYS, "no thread could be started");
    }
    pthread_mutex_lock(&b->lock);
    while (b->state == 0)
        pthread_cond_wait(&b->started, &b->lock);
    int rc = b->rc;
    b->config = NULL;
    pthread_mutex_unlock(&b->lock);
    if (rc == 0) {
        *out = b;
        return MP_OK;
    }
    pthread_join(b->thread, NULL);
    rc = mp__fail(rc, "%s", b->message);
    bridge_free(b);
    return rc;
}

/* ---- names ---- */

static pthread_mutex_t names_lock = PTHREAD_MUTEX_INITIALIZER;
static mp_bridge *named; /* a child of fork keeps the list, and skips what is its parent's */

static mp_bridge *find(const char *name)
{
    mp_bridge *b = named;
    while (b != NULL && (b->pid != getpid() || strcmp(b->name, name) != 0))
        b = b->next;
    return b;
}

mp_bridge *mp_bridge_find(const char *name)
{
    if (name == NULL)
        return NULL;
    pthread_mutex_lock(&names_lock);
    mp_bridge *b = find(name);
    if (b != NULL)
        b->users++;
    pthread_mutex_unlock(&names_lock);
    return b;
}

/* 1: somebody still uses it. */
static int leave_name(mp_bridge *b)
{
    pthread_mutex_lock(&names_lock);
    int left = --b->users;
    for (mp_bridge **at = &named; left == 0 && *at != NULL; at = &(*at)->next)
        if (*at == b) {
            *at = b->next;
            break;
        }
    pthread_mutex_unlock(&names_lock);
    return left > 0;
}

int mp_bridge_start(const struct mp_bridge_config *given, mp_bridge **out)
{
    struct mp_bridge_config cfg = {0};
    int rc = 0;
    if (given == NULL || out == NULL)
        return mp__fail(MP_EINVAL, "config or out: missing");
    *out = NULL;
    memcpy(&cfg, given, given->size < sizeof(cfg) ? given->size : sizeof(cfg));
    if (cfg.name == NULL)
        return start(&cfg, out);
    pthread_mutex_lock(&names_lock);
    *out = find(cfg.name);
    if (*out != NULL)
        (*out)->users++;
    else
        rc = start(&cfg, out);
    if (rc == 0 && (*out)->users == 1) {
        (*out)->next = named;
        named = *out;
    }
    pthread_mutex_unlock(&names_lock);
    return rc;
}

void mp_bridge_close(mp_bridge *b)
{
    if (b == NULL || b->pid != getpid() || leave_name(b))
        return;
    pthread_mutex_lock(&b->lock);
    b->state = 2;
    pthread_mutex_unlock(&b->lock);
    mp__mailbox_post(b->box, &b->close.link);
    pthread_join(b->thread, NULL);
    struct mp_completion c;
    while (mp_bridge_poll(b, &c, 1) == 1)
        mp_result_free(c.result);
    for (uint32_t i = 0; mp__slab_at(&b->calls, i) != NULL; i++) {
        struct mp__bcall *held = mp__slab_at(&b->calls, i);
        if (held->refs > 0) {
            mp_result_free(held->result);
            mp__bcall_clear(held);
        }
    }
    bridge_free(b);
}

/* ---- the host's calls ---- */

int mp__bridge_check(mp_bridge *b)
{
    if (b == NULL)
        return mp__fail(MP_EINVAL, "bridge: missing");
    return b->pid == getpid() ? 0 : mp__fail(MP_EFORK, "the bridge was started before a fork");
}

static int check_call(mp_bridge *b, const struct mp_request *q, struct mp_request *copy)
{
    int rc = mp__bridge_check(b);
    if (rc != 0)
        return rc;
    if (q == NULL)
        return mp__fail(MP_EINVAL, "request: missing");
    memcpy(copy, q, q->size < sizeof(*copy) ? q->size : sizeof(*copy));
    if (copy->client != NULL || copy->done != NULL || copy->source != NULL || copy->head != NULL ||
        copy->chunk != NULL || copy->row_headers != NULL || copy->hooks != NULL)
        return mp__fail(MP_EINVAL,
                        "client, done, source, row_headers, head, chunk, hooks: not over "
                        "a bridge");
    return mp__request_check(copy);
}

/* The object's memory keeps its generation from use to use. */
static struct mp__bcall *call_new(mp_bridge *b)
{
    struct mp__bcall *c = mp__slab_get(&b->calls);
    if (c == NULL)
        return NULL;
    if (c->generation == 0) {
        c->generation = 1;
        c->index = mp__slab_index(&b->calls, c);
    }
    uint32_t index = c->index;
    uint32_t generation = c->generation;
    memset(c, 0, sizeof(*c));
    c->index = index;
    c->generation = generation;
    c->bridge = b;
    c->submit.kind = MP__L_SUBMIT;
    c->cancel.kind = MP__L_CANCEL;
    return c;
}

static int post(mp_bridge *b, struct mp__bcall *made, uint64_t *ticket)
{
    if (b->state != 1)
        return mp__fail(MP_ECLOSED, "the bridge is closed");
    if (b->n.open >= b->max_open || made->bytes > b->max_bytes - b->bytes) {
        b->n.refused++;
        return mp__fail(MP_EAGAIN, "%u calls are open", b->n.open);
    }
    struct mp__bcall *c = call_new(b);
    if (c == NULL)
        return mp__fail(MP_ENOMEM, "out of memory");
    c->frame = made->frame;
    if (c->frame.request.vectors != NULL)
        c->frame.request.vectors = &c->frame.vectors;
    if (c->frame.request.timeouts != NULL)
        c->frame.request.timeouts = &c->frame.timeouts;
    c->policy = made->policy;
    if (c->frame.request.policy != NULL)
        c->frame.request.policy = &c->policy;
    c->gather = made->gather;
    c->gathered = made->gathered;
    c->held = (made->frame.request.flags & MP_HELD) != 0;
    c->rows = made->rows;
    c->nrows = made->nrows;
    c->bytes = made->bytes;
    c->arg = made->arg;
    c->refs = 2;
    b->bytes += c->bytes;
    b->n.open++;
    b->n.submitted++;
    if (ticket != NULL)
        *ticket = call_ticket(c);
    mp__mailbox_post(b->box, &c->submit.link);
    return MP_OK;
}

int mp_bridge_submit(mp_bridge *b, const struct mp_request *given, const struct mp_gather *how,
                     uint64_t *ticket)
{
    struct mp_request q = {0};
    struct mp_gather g = {0};
    struct mp__bcall made = {0};
    int rc = check_call(b, given, &q);
    if (rc != 0)
        return rc;
    if (how != NULL) {
        memcpy(&g, how, how->size < sizeof(g) ? how->size : sizeof(g));
        rc = mp__gather_check(&q, &g);
        if (rc != 0)
            return rc;
    }
    rc = mp__bcall_copy(&made, &q, how != NULL ? &g : NULL);
    if (rc != 0)
        return rc;
    made.arg = q.arg;
    pthread_mutex_lock(&b->lock);
    rc = post(b, &made, ticket);
    pthread_mutex_unlock(&b->lock);
    if (rc != 0)
        mp__bcall_clear(&made);
    return rc;
}

static void complete(struct mp__bcall *c, struct mp_completion *out)
{
    out->ticket = call_ticket(c);
    out->arg = c->arg;
    out->result = c->result;
    if (c->result != NULL)
        c->result->ticket = out->ticket;
    c->result = NULL;
    c->bridge->n.ready--;
    c->bridge->n.taken++;
    mp__list_remove(&c->link);
    host_leaves(c);
}

int mp_bridge_poll(mp_bridge *b, struct mp_completion *out, int max)
{
    int rc = mp__bridge_check(b);
    int n = 0;
    if (rc != 0)
        return rc;
    if (out == NULL && max > 0)
        return mp__fail(MP_EINVAL, "out: missing");
    pthread_mutex_lock(&b->lock);
    while (n < max && !mp__list_empty(&b->ready))
        complete(MP__ENTRY(b->ready.next, struct mp__bcall, link), &out[n++]);
    if (mp__list_empty(&b->ready))
        mp__bells_quiet(&b->bells);
    pthread_mutex_unlock(&b->lock);
    return n;
}

int mp_bridge_take(mp_bridge *b, uint64_t ticket, struct mp_completion *out)
{
    int rc = mp__bridge_check(b);
    if (rc == 0 && out == NULL)
        rc = mp__fail(MP_EINVAL, "out: missing");
    if (rc != 0)
        return rc;
    pthread_mutex_lock(&b->lock);
    struct mp__bcall *c = call_find(b, ticket);
    if (c == NULL || c->dropped || !c->held) {
        rc = mp__fail(MP_EINVAL, "ticket: unknown, or its call is not held");
    } else if (c->done) {
        complete(c, out);
        rc = 1;
    }
    pthread_mutex_unlock(&b->lock);
    return rc;
}

static void ask_to_cancel(struct mp__bcall *c)
{
    if (c->asked || c->done || c->bridge->state != 1)
        return;
    c->asked = 1;
    c->refs++;
    mp__mailbox_post(c->bridge->box, &c->cancel.link);
}

void mp_bridge_cancel(mp_bridge *b, uint64_t ticket)
{
    if (mp__bridge_check(b) != 0)
        return;
    pthread_mutex_lock(&b->lock);
    struct mp__bcall *c = call_find(b, ticket);
    if (c != NULL)
        ask_to_cancel(c);
    pthread_mutex_unlock(&b->lock);
}

void mp_bridge_drop(mp_bridge *b, uint64_t ticket)
{
    struct mp_completion out = {0};
    if (mp__bridge_check(b) != 0)
        return;
    pthread_mutex_lock(&b->lock);
    struct mp__bcall *c = call_find(b, ticket);
    if (c != NULL) {
        b->n.dropped++;
        if (c->done) {
            complete(c, &out);
            b->n.taken--;
        } else {
            c->dropped = 1;
            ask_to_cancel(c);
            host_leaves(c);
        }
    }
    if (mp__list_empty(&b->ready))
        mp__bells_quiet(&b->bells);
    pthread_mutex_unlock(&b->lock);
    mp_result_free(out.result);
}

const char *mp_bridge_note(mp_bridge *b)
{
    return mp__bridge_check(b) == 0 ? b->note : "";
}

int mp_bridge_fd(mp_bridge *b)
{
    return mp__bridge_check(b) == 0 ? b->bells.event : -1;
}

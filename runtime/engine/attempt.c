/*
 * attempt.c - one exchange: its request is sent (attempt_request.c builds it), its bytes taken in,
 * its end judged.
 *
 * The byte callbacks run inside curl: they copy, decode and flag. What decides (on_end, the timer)
 * runs in the turn.
 */
#include "codec/json_find.h"
#include "codec/head.h"
#include "engine/internal.h"
#include "engine/message.h"
#include "policy/told.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#define KEEP      ((size_t)64 * 1024) /* larger buffers are not kept between attempts */
#define MAX_HEADS 16                  /* of one reply: interim ones (1xx), and its own */

static void settle(struct mp__attempt *a);
static void on_end(struct mp__xfer *x);

/* ---- memory ---- */

static struct mp__attempt *attempt_take(struct mp_engine *e)
{
    struct mp__attempt *a = e->free_attempts;
    if (a != NULL)
        e->free_attempts = a->next;
    else
        a = calloc(1, sizeof(*a));
    if (a == NULL)
        return NULL;
    e->attempts_open++;
    return a;
}

void mp__attempt_free(struct mp__attempt *a)
{
    struct mp_engine *e = a->engine;
    mp__heap_clear(&e->timers, &a->timer);
    mp__list_remove(&a->waiter.link);
    mp__hdr_free(a->row_chain);
    free(a->scratch);
    mp__buf_trim(&a->body, KEEP);
    mp__buf_trim(&a->head, KEEP);
    mp__buf_trim(&a->reply, KEEP);
    memset(a, 0, offsetof(struct mp__attempt, decoder));
    a->message[0] = '\0';
    a->next = e->free_attempts;
    e->free_attempts = a;
    e->attempts_open--;
}

static void uncount(struct mp__attempt *a)
{
    if (a->call != NULL && a->call->streaming == a)
        a->call->streaming = NULL;
    if (a->counted)
        a->client->n.running--;
    a->counted = 0;
}

static void unlink_running(struct mp__attempt *a)
{
    struct mp__attempt **p = a->part != NULL ? &a->part->running : &a->engine->draining;
    while (*p != NULL && *p != a)
        p = &(*p)->next;
    if (*p == a)
        *p = a->next;
    a->next = NULL;
}

/* ---- bytes in: inside curl ---- */

static int stop(struct mp__attempt *a, enum mp_kind kind, const char *message)
{
    a->stop = kind;
    snprintf(a->message, sizeof(a->message), "%s", message);
    return 1;
}

static int on_status_line(struct mp__attempt *a, const char *line, size_t n)
{
    const char *space = memchr(line, ' ', n);
    a->status =
        space != NULL && (size_t)(line + n - space) > 3 ? (int)strtol(space + 1, NULL, 10) : 0;
    if (++a->heads > MAX_HEADS)
        return stop(a, MP_KIND_TOO_LARGE, "the reply does not get beyond interim ones (1xx)");
    a->head.n = 0; /* a new block after 100 Continue */
    a->nheaders = 0;
    mpp_hints_init(&a->hints);
    return 0;
}

static int on_header(struct mp__xfer *x, const char *line, size_t n)
{
    struct mp__attempt *a = (struct mp__attempt *)x;
    if (!a->first_byte) {
        a->first_byte = 1;
        mpp_attempt_first_byte(a->engine->core, a->id, mp__now());
    }
    while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r'))
        n--;
    if (n == 0)
        return 0;
    if (n > 5 && memcmp(line, "HTTP/", 5) == 0 && memchr(line, ':', n) == NULL)
        return on_status_line(a, line, n);
    const char *colon = memchr(line, ':', n);
    if (colon == NULL)
        return 0;
    if (++a->nheaders > MP__MAX_HEADERS || a->head.n + n + 1 > MP__MAX_HEAD)
        return stop(a, MP_KIND_TOO_LARGE, "the reply has too many headers");
    size_t name_len = (size_t)(colon - line);
    const char *value = colon + 1;
    while (value < line + n && (*value == ' ' || *value == '\t'))
        value++;
    size_t value_len = (size_t)(line + n - value);
    mpp_hints_header(&a->hints, line, name_len, value, value_len, (double)time(NULL));
    if (mp__buf_add(&a->head, line, name_len) != 0 || mp__buf_add(&a->head, ": ", 2) != 0 ||
        mp__buf_add(&a->head, value, value_len) != 0 || mp__buf_addc(&a->head, '\n') != 0)
        return stop(a, MP_KIND_TOO_LARGE, "out of memory for the reply's headers");
    return 0;
}

static float *scratch_row(struct mp__attempt *a, uint32_t item, uint32_t dim,
                          enum mp__row_fault *fault)
{
    if (a->scratch == NULL) {
        a->scratch = calloc((size_t)a->part->count * dim, sizeof(float));
        a->scratch_dim = dim;
    }
    if (a->scratch != NULL && dim == a->scratch_dim)
        return a->scratch + (size_t)item * dim;
    *fault = a->scratch == NULL ? MP__ROW_NO_MEMORY : MP__ROW_DIMENSION;
    return NULL;
}

static float *on_row(void *arg, uint32_t item, uint32_t dim)
{
    struct mp__attempt *a = arg;
    enum mp__row_fault fault = MP__ROW_FINE;
    float *to = a->is_hedge ? scratch_row(a, item, dim, &fault)
                            : mp__call_row(a->call, a->part->first + item, dim, &fault);
    if (to == NULL && fault == MP__ROW_DIMENSION) /* another reply of this call was first */
        mp__decoder_expect(a->decoder, a->is_hedge ? a->scratch_dim : a->call->result->dimensions);
    else if (to == NULL)
        snprintf(a->message, sizeof(a->message), "%s", mp__row_words(fault));
    return to;
}

static int ready_decoder(struct mp__attempt *a, const struct mp__decoder_cfg *cfg)
{
    const char *header = a->call->vectors.header;
    const char *value = NULL;
    size_t n = 0;
    if (a->decoder == NULL)
        a->decoder = mp__decoder_new(cfg);
    else if (mp__decoder_reset(a->decoder, cfg) != 0)
        return MP_ENOMEM;
    if (a->decoder == NULL)
        return MP_ENOMEM;
    if (header != NULL)
        value = mp__head_find(a->head.p, a->head.n, header, &n);
    if (value != NULL) /* an error stays in the decoder, which says it at the first byte */
        mp__decoder_header(a->decoder, value, n);
    return 0;
}

static int open_decoder(struct mp__attempt *a)
{
    const struct mp_vectors *v = &a->call->vectors;
    struct mp__shape shape = {v->list,   v->vector, v->index, (int)v->dtype, (int)v->layout,
                              v->tokens, v->cut,    v->dims,  v->kind,       v->usage};
    struct mp__decoder_cfg cfg = {0};
    a->shape = shape;
    cfg.shape = &a->shape;
    cfg.items = a->part->count;
    cfg.dim = v->dimensions != 0 ? v->dimensions : a->call->result->dimensions;
    cfg.row = on_row;
    cfg.zeros = (a->call->flags & MP_TRUST) != 0;
    cfg.arg = a;
    a->decoding = 1;
    return ready_decoder(a, &cfg);
}

static int keep_error_body(struct mp__attempt *a, const char *p, size_t n)
{
    size_t room = a->reply.n < MP__MAX_ERROR_BODY ? MP__MAX_ERROR_BODY - a->reply.n : 0;
    if (mp__buf_add(&a->reply, p, n < room ? n : room) != 0)
        return stop(a, MP_KIND_TOO_LARGE, "out of memory for the reply");
    return 0;
}

/* The decoder has given up. */
static void bad_reply(struct mp__attempt *a)
{
    int memory = mp__decoder_feed(a->decoder, "", 0) == MP_ENOMEM;
    a->kind = memory ? MP_KIND_TOO_LARGE : MP_KIND_DECODE;
    if (a->message[0] == '\0')
        snprintf(a->message, sizeof(a->message), "%s", mp__decoder_error(a->decoder));
}

/* To show when the reply is not what it should be; of one that may be an error more. */
static void keep_beginning(struct mp__attempt *a, const char *p, size_t n)
{
    size_t most = 512;
    size_t head = a->reply.n > 0 ? a->reply.n : n;
    if (a->reply.n >= MP__MAX_ERROR_BODY)
        return;
    if (memmem(a->reply.n > 0 ? a->reply.p : p, head < most ? head : most, "\"error\"", 7) != NULL)
        most = MP__MAX_ERROR_BODY;
    if (a->reply.n < most)
        mp__buf_add(&a->reply, p, n < most - a->reply.n ? n : most - a->reply.n);
}

static int decode(struct mp__attempt *a, const char *p, size_t n)
{
    if (!a->decoding && open_decoder(a) != 0)
        return stop(a, MP_KIND_TOO_LARGE, "out of memory for the decoder");
    keep_beginning(a, p, n);
    if (mp__decoder_feed(a->decoder, p, n) == 0)
        return 0;
    bad_reply(a);
    a->stop = a->kind;
    return 1;
}

static void start_stream(struct mp__attempt *a)
{
    a->streamed = 1;
    a->call->streaming = a;
    a->call->head(a->call->arg, a->status, a->head.p != NULL ? a->head.p : "", a->head.n);
}

static int stream(struct mp__attempt *a, const char *p, size_t n)
{
    if (!a->streamed)
        start_stream(a);
    if (a->call->chunk(a->call->arg, p, n) != 0)
        a->xfer.hold = 1;
    return 0;
}

static int on_body(struct mp__xfer *x, const char *p, size_t n)
{
    struct mp__attempt *a = (struct mp__attempt *)x;
    a->received += n;
    if (a->call != NULL && a->call->chunk != NULL && a->status >= 200 && a->status <= 299)
        return stream(a, p, n);
    if (a->received > a->engine->cfg.max_response_bytes)
        return stop(a, MP_KIND_TOO_LARGE, "the reply is larger than max_response_bytes");
    if (a->discard)
        return 0;
    if (a->status < 200 || a->status > 299)
        return keep_error_body(a, p, n);
    if (a->call->has_vectors)
        return decode(a, p, n);
    if (mp__buf_add(&a->reply, p, n) != 0)
        return stop(a, MP_KIND_TOO_LARGE, "out of memory for the reply");
    return 0;
}

/* ---- timers: one a running attempt, at the nearest of its limits ---- */

static mp__time earlier(mp__time a, mp__time b)
{
    return a < b ? a : b;
}

static mp__time quiet_until(const struct mp__attempt *a, mp__time now)
{
    const struct mp_timeouts *t = &a->call->timeouts;
    if (a->xfer.hold) /* it is us who do not read */
        return MP__NEVER;
    if (a->state == MP__NAMING || !a->xfer.connected)
        return mp__limit_at(a->sent_at, t->connect);
    double limit = a->xfer.sent || a->xfer.replied ? t->read : t->write;
    uint64_t loop_ms = uv_now(a->engine->loop);
    uint64_t idle_ms = loop_ms > a->xfer.last_io ? loop_ms - a->xfer.last_io : 0;
    return mp__limit_at(now - (mp__time)idle_ms * 1000000, limit);
}

static mp__time next_limit(const struct mp__attempt *a, mp__time now)
{
    return earlier(quiet_until(a, now), mp__limit_at(a->started, a->call->timeouts.attempt));
}

/* Runs inside curl. Another limit holds from here on, which may be much nearer. */
static void on_progress(struct mp__xfer *x)
{
    struct mp__attempt *a = (struct mp__attempt *)x;
    mp__time now = mp__now();
    if (!a->counted) {
        a->client->n.running++;
        a->counted = 1;
        mpp_attempt_connected(a->engine->core, a->id, now);
    }
    if (a->call != NULL)
        mp__heap_set(&a->engine->timers, &a->timer, next_limit(a, now));
}

static const char *limit_message(enum mp_kind kind)
{
    switch (kind) {
    case MP_KIND_CONNECT_TIMEOUT:
        return "no connection within the connect timeout; check the network and the address, then "
               "retry";
    case MP_KIND_WRITE_TIMEOUT:
        return "the server stopped taking the request within the write timeout";
    default:
        return "the server was silent longer than the read or attempt timeout; raise it if the "
               "model needs longer";
    }
}

void mp__attempt_resume(struct mp__attempt *a)
{
    mp__transport_resume(a->pool->transport, &a->xfer);
    mp__heap_set(&a->engine->timers, &a->timer, next_limit(a, mp__now()));
}

void mp__attempt_timer(struct mp__attempt *a)
{
    mp__time now = mp__now();
    if (a->call == NULL) { /* a draining loser has had its time */
        mp__transport_cancel(a->pool->transport, &a->xfer);
        a->kind = MP_KIND_CANCELLED;
        settle(a);
        return;
    }
    mp__time limit = next_limit(a, now);
    if (limit > now) {
        mp__heap_set(&a->engine->timers, &a->timer, limit);
        return;
    }
    if (!a->xfer.connected)
        a->kind = MP_KIND_CONNECT_TIMEOUT;
    else
        a->kind = a->xfer.sent || a->xfer.replied ? MP_KIND_READ_TIMEOUT : MP_KIND_WRITE_TIMEOUT;
    snprintf(a->message, sizeof(a->message), "%s", limit_message(a->kind));
    mp__list_remove(&a->waiter.link);
    mp__transport_cancel(a->pool->transport, &a->xfer);
    settle(a);
}

/* ---- start ---- */

static void fail_now(struct mp__attempt *a, enum mp_kind kind, const char *message)
{
    a->kind = kind;
    a->xfer.never_sent = 1;
    if (message != NULL)
        snprintf(a->message, sizeof(a->message), "%s", message);
    settle(a);
}

static void send_now(struct mp__attempt *a)
{
    struct mp__endpoint *ep = &a->client->endpoints[a->endpoint];
    a->xfer.target = mp__endpoint_target(a->client, ep);
    a->xfer.on_progress = on_progress;
    a->xfer.on_header = on_header;
    a->xfer.on_body = on_body;
    a->xfer.on_end = on_end;
    a->state = MP__SENDING;
    if (a->xfer.target == NULL || mp__transport_start(a->pool->transport, &a->xfer) != 0) {
        fail_now(a, MP_KIND_CONNECT, "out of memory or connections");
        return;
    }
    a->client->n.sent += a->xfer.body_len;
    a->engine->n.bytes_sent += a->xfer.body_len;
    a->engine->n.attempts++;
}

static void on_name(struct mp__waiter *w)
{
    struct mp__attempt *a = MP__ENTRY(w, struct mp__attempt, waiter);
    struct mp__endpoint *ep = &a->client->endpoints[a->endpoint];
    if (ep->name->addresses == NULL) {
        char text[256];
        snprintf(text, sizeof(text), "could not resolve host %.120s: %s; check base_url and DNS",
                 ep->name->host, ep->name->failure);
        if (ep->name->missing)
            a->hints.should_retry = 0;
        fail_now(a, MP_KIND_CONNECT, text);
        return;
    }
    send_now(a);
}

void mp__attempt_start(struct mp__part *part, const struct mpp_action *act)
{
    struct mp__call *call = mpp_call_user(act->call);
    struct mp_engine *e = call->engine;
    struct mp__attempt *a = part != NULL ? attempt_take(e) : NULL;
    const struct mpp_part_facts *facts = mpp_part_facts(act->part);
    mp__time now = mp__now();
    if (a == NULL) { /* no memory */
        struct mpp_outcome o = {.kind = MP_KIND_CONNECT, .never_sent = 1, .tokens = -1};
        mpp_hints_init(&o.hints);
        mpp_attempt_done(e->core, act->attempt, &o, now);
        return;
    }
    a->engine = e;
    a->client = call->client;
    a->pool = call->client->pool;
    a->call = call;
    a->part = part;
    a->id = act->attempt;
    a->endpoint = act->endpoint;
    a->is_hedge = act->is_hedge;
    a->xfer.fresh = act->fresh_connection;
    a->started = a->sent_at = now;
    a->state = MP__NAMING;
    a->request_id = ""; /* until its request is built */
    mpp_hints_init(&a->hints);
    a->next = part->running;
    part->running = a;
    part->core = act->part;
    if (facts->attempts == 1 && !a->is_hedge && facts->admitted > 0)
        mp__hists_record(&a->client->pool_waits, 0, now - facts->admitted, now);
    int rc = mp__attempt_build(a, facts, now);
    if (rc != 0) {
        fail_now(a, rc == MP_ENOMEM ? MP_KIND_CONNECT : MP_KIND_INVALID,
                 a->message[0] ? NULL : mp_strerror(rc));
        return;
    }
    struct mp__endpoint *ep = &a->client->endpoints[a->endpoint];
    a->waiter.ready = on_name;
    if (ep->name == NULL)
        send_now(a);
    else if (mp__name_wait(ep->name, &a->waiter, now))
        on_name(&a->waiter);
    if (a->state != MP__ENDED)
        mp__heap_set(&e->timers, &a->timer, next_limit(a, now));
}

/* ---- end ---- */

static void judge_status(struct mp__attempt *a)
{
    if (a->status >= 200 && a->status <= 299)
        return;
    a->kind = a->status == 429 ? MP_KIND_RATE_LIMITED : MP_KIND_HTTP;
    mpp_hints_body(&a->hints, a->status, a->reply.p, a->reply.n);
    mpp_hints_settle(&a->hints, a->status); /* what the error and the breaker read */
    if (a->status == 429 && a->reply.n > 0 &&
        memmem(a->reply.p, a->reply.n, "insufficient_quota", 18) != NULL)
        a->hints.should_retry = 0; /* no waiting heals it */
    if (a->status <= 399)
        mp__redirect_message(a);
    else
        mp__status_message(a->message, sizeof(a->message), a->status, a->reply.p, a->reply.n);
    mp__status_where(a->message, sizeof(a->message), a->status, a->xfer.method, a->xfer.url);
}

/* A 2xx whose body is an error: judged as the status that it names; one without is a
 * reply that cannot be read, and no reason to ask again. */
static void judge_words(struct mp__attempt *a)
{
    int named = 0;
    int sent = a->xfer.status;
    char words[161];
    if (!mp__error_reply(a->reply.p, a->reply.n, &named, words, sizeof(words)))
        return;
    a->status = named > 0 ? named : sent;
    a->kind = named == 429 ? MP_KIND_RATE_LIMITED : named > 0 ? MP_KIND_HTTP : MP_KIND_DECODE;
    if (named == 0)
        a->hints.should_retry = 0;
    mpp_hints_settle(&a->hints, a->status);
    if (named > 0)
        snprintf(a->message, sizeof(a->message), "HTTP %d, error %d: %s", sent, named, words);
    else
        snprintf(a->message, sizeof(a->message), "HTTP %d, error: %s", sent, words);
}

/* A proxy may have cut it: worth asking once more. If that changes nothing its rows are taken. */
static void judge_short(struct mp__attempt *a)
{
    uint32_t count = a->part->count;
    a->kind = MP_KIND_DECODE;
    a->partial = 1;
    snprintf(a->message, sizeof(a->message), "reply has %u vectors, %u were sent",
             count - mp__decoder_missing(a->decoder), count);
}

static void judge(struct mp__attempt *a, const struct mp__xfer *x)
{
    a->kind = x->kind;
    if (a->stop != MP_KIND_NONE) {
        a->kind = a->stop;
        if (a->kind == MP_KIND_DECODE)
            judge_words(a);
        return;
    }
    if (x->kind != MP_KIND_NONE) {
        if (x->kind == MP_KIND_HTTP) /* a proxy's refusal */
            a->status = x->status;
        mp__fault_message(a->message, sizeof(a->message), x);
        if (x->hopeless)
            a->hints.should_retry = 0;
        return;
    }
    a->status = x->status;
    judge_status(a);
    if (a->kind == MP_KIND_NONE && !a->call->has_vectors && a->call->mode == MP_BODY_JOIN)
        judge_words(a);
    if (a->kind == MP_KIND_NONE && a->call->chunk != NULL && !a->streamed)
        start_stream(a); /* an empty reply */
    if (a->kind != MP_KIND_NONE || !a->call->has_vectors)
        return;
    if (!a->decoding && open_decoder(a) != 0)
        a->kind = MP_KIND_TOO_LARGE;
    else if (mp__decoder_finish(a->decoder) != 0) {
        bad_reply(a);
        judge_words(a);
    } else if (mp__decoder_missing(a->decoder) > 0)
        judge_short(a);
    else if (mp__same_for_all(a)) {
        a->kind = MP_KIND_DECODE;
        snprintf(a->message, sizeof(a->message),
                 "the reply has the same vector for different texts");
    }
}

void mp__attempt_usage(const struct mp__attempt *a, int64_t *prompt, int64_t *total)
{
    const char *name = a->call != NULL ? a->call->vectors.tokens_header : NULL;
    size_t n = 0;
    const char *value = name != NULL ? mp__head_find(a->head.p, a->head.n, name, &n) : NULL;
    mp__decoder_usage(a->decoder, prompt, total);
    if (value != NULL && *prompt < 0)
        *prompt = mp__json_find_int(value, n, "");
}

static int64_t used_tokens(const struct mp__attempt *a)
{
    int64_t prompt = -1;
    int64_t total = -1;
    if (a->kind == MP_KIND_NONE && a->call->has_vectors)
        mp__attempt_usage(a, &prompt, &total);
    return total >= 0 ? total : prompt;
}

/* The server may say how much it takes; its bytes are those of the body, ours those of the rows. */
static void read_limit(const struct mp__attempt *a, struct mpp_outcome *o)
{
    size_t frame = a->call->prefix.n + a->call->suffix.n + a->call->tail.n;
    char words[512];
    mp__status_reason(words, sizeof(words), a->reply.p, a->reply.n);
    mpp_told(words, strlen(words), a->part->count, a->xfer.body_len, o);
    if (o->told_bytes > 0)
        o->told_bytes = o->told_bytes > frame ? o->told_bytes - frame : 1;
}

/* Tells the core; the attempt stays with its part as the newest that ended. */
static void settle(struct mp__attempt *a)
{
    struct mp_engine *e = a->engine;
    struct mp__part *part = a->part;
    struct mpp_outcome o = {0};
    uint64_t id = a->id;

    a->state = MP__ENDED;
    uncount(a);
    mp__heap_clear(&e->timers, &a->timer);
    o.kind = a->kind;
    o.status = a->status;
    o.never_sent = a->xfer.never_sent;
    o.hints = a->hints;
    o.tokens = -1;
    o.body_bytes = a->received;
    e->n.bytes_received += a->received;
    a->client->n.received += a->received;
    if (part == NULL) {
        struct mp_client *client = a->client;
        unlink_running(a);
        mp__attempt_free(a);
        mp__client_unref(client);
        mpp_attempt_done(e->core, id, &o, mp__now());
        mp__wake(e);
        return;
    }
    o.tokens = used_tokens(a);
    if (a->streamed) /* its reader has had the first bytes */
        o.hints.should_retry = 0;
    o.splittable = part->count > 1 && !a->partial && a->call->mode == MP_BODY_JOIN &&
                   !(a->call->flags & (MP_NO_SPLIT | MP_ONE_REQUEST));
    o.unread = a->xfer.connected && !a->xfer.sent && a->status == 0 && a->xfer.body_len > 0;
    if (o.splittable && (a->status == 400 || a->status == 413 || a->status == 422))
        read_limit(a, &o);
    unlink_running(a);
    mp__hdr_free(a->row_chain);
    a->row_chain = NULL;
    mp__buf_trim(&a->body, KEEP);
    if (a->kind == MP_KIND_HTTP || a->kind == MP_KIND_TLS || a->xfer.never_sent) {
        a->client->fault.kind = a->kind;
        a->client->fault.status = a->status;
        memcpy(a->client->fault.words, a->message, sizeof(a->message));
    }
    /* A good reply stays the part's last word even if its rival ends in the same turn. */
    if (part->last == NULL || part->last->kind != MP_KIND_NONE) {
        if (part->last != NULL)
            mp__attempt_free(part->last);
        part->last = a;
        a = NULL;
    }
    if (a != NULL)
        mp__attempt_free(a);
    mpp_attempt_done(e->core, id, &o, mp__now());
    mp__wake(e);
}

static void on_end(struct mp__xfer *x)
{
    struct mp__attempt *a = (struct mp__attempt *)x;
    if (x->os_errno != 0)
        mp__hint_fault(a->client, x);
    a->client->n.refused += x->refused;
    a->client->n.resets += x->reset;
    a->client->n.opened += x->new_conn;
    a->client->n.reused += x->connected && !x->new_conn;
    if (a->call != NULL && x->kind == MP_KIND_NONE && (mp__redirect(a) || mp__optional_drop(a)))
        return;
    if (a->call != NULL) {
        judge(a, x);
        mp__optional_judge(a);
        const struct mp__hooks *hooks = a->call->hooks;
        if (hooks != NULL && hooks->after != NULL && a->status > 0)
            hooks->after(hooks->core.arg, a);
    } else {
        a->kind = x->kind;
        a->status = x->status;
    }
    settle(a);
}

static void halt(struct mp__attempt *a)
{
    struct mp_client *client = a->part == NULL ? a->client : NULL; /* a draining one holds it */
    uncount(a);
    mp__list_remove(&a->waiter.link);
    mp__transport_cancel(a->pool->transport, &a->xfer);
    unlink_running(a);
    mp__attempt_free(a);
    if (client != NULL)
        mp__client_unref(client);
}

void mp__attempt_abort(struct mp__attempt *list, uint64_t id)
{
    for (struct mp__attempt *a = list; a != NULL; a = a->next)
        if (a->id == id) {
            halt(a);
            return;
        }
}

/* The part is decided while this copy still runs, and the core lets it drain to keep its
 * connection. A copy that has not begun to answer could still need the request's bytes, which go
 * with the call: that one is stopped. */
void mp__attempt_leave(struct mp__attempt *a)
{
    uint64_t id = a->id;
    struct mp_engine *e = a->engine;
    if (!a->xfer.running || !a->xfer.replied) {
        struct mpp_outcome o = {.kind = MP_KIND_CANCELLED, .tokens = -1};
        mpp_hints_init(&o.hints);
        halt(a);
        mpp_attempt_done(e->core, id, &o, mp__now());
        return;
    }
    double limit = a->call->timeouts.read > 0 ? a->call->timeouts.read : 60;
    unlink_running(a);
    a->discard = 1;
    a->call = NULL;
    a->part = NULL;
    a->client->refs++;
    a->next = e->draining;
    e->draining = a;
    mp__heap_set(&e->timers, &a->timer, mp__limit_at(mp__now(), limit < 5 ? limit : 5));
}

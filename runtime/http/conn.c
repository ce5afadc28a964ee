/*
 * conn.c - the life of a connection: read, parse, hand out, write, next.
 *
 * Reading goes on while a handler works, only so that a client that leaves is noticed. What arrives
 * meanwhile (pipelining) is held, and the first held byte stops the reading.
 */
#include "http/internal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* Connections told 503 beyond the limit; past these, closed without a word. */
#define REFUSALS 64

static void read_on(struct mp__conn *c);
static void next_request(struct mp__conn *c);

/* ---- memory ---- */

struct mp__conn *mp__conn_new(struct mp__http_server *s)
{
    struct mp__link *spare = mp__list_shift(&s->spare);
    if (spare != NULL) {
        s->nspare--;
        return MP__ENTRY(spare, struct mp__conn, all);
    }
    struct mp__conn *c = calloc(1, sizeof(*c));
    if (c == NULL)
        return NULL;
    c->headers = calloc(s->config.max_headers, sizeof(*c->headers));
    c->offsets = calloc(s->config.max_headers * 2, sizeof(*c->offsets));
    if (c->headers == NULL || c->offsets == NULL) {
        mp__conn_free(c);
        return NULL;
    }
    c->server = s;
    return c;
}

void mp__conn_free(struct mp__conn *c)
{
    mp__buf_trim(&c->head, 0);
    mp__buf_trim(&c->body, 0);
    mp__buf_trim(&c->held, 0);
    free(c->headers);
    free(c->offsets);
    free(c);
}

static void release(struct mp__conn *c)
{
    struct mp__http_server *s = c->server;
    if (c->handle_open || c->req_out)
        return;
    mp__buf_trim(&c->head, MP__KEEP_HEAD);
    mp__buf_trim(&c->body, 0);
    mp__buf_trim(&c->held, 0);
    if (s->reserve == NULL && !s->closing) {
        s->reserve = c;
        if (s->missed && !s->stopping) {
            s->missed = 0;
            mp__conn_accept(s);
        }
    } else if (s->closing || s->nspare >= MP__SPARE_CONNS) {
        mp__conn_free(c);
    } else {
        mp__list_unshift(&s->spare, &c->all);
        s->nspare++;
    }
    mp__server_released(s);
}

/* ---- ways to end ---- */

static void closed_cb(uv_handle_t *h)
{
    struct mp__conn *c = h->data;
    struct mp__http_server *s = c->server;
    mp__list_remove(&c->all);
    c->handle_open = 0;
    s->handles--;
    s->stats.open--;
    release(c);
}

static void set_state(struct mp__conn *c, enum mp__conn_state state)
{
    struct mp__http_server *s = c->server;
    int wrote = c->state == MP__S_FLUSH;
    s->writing += (size_t)(state == MP__S_FLUSH) - (size_t)wrote;
    c->state = (uint8_t)state;
    if (wrote)
        mp__server_quiet(s);
}

static int leave(struct mp__conn *c)
{
    if (c->state == MP__S_CLOSED)
        return 0;
    set_state(c, MP__S_CLOSED);
    c->reading = 0;
    mp__server_clock(c, MP__C_NONE);
    mp__fault_cancel(c);
    return 1;
}

void mp__conn_close(struct mp__conn *c)
{
    if (leave(c))
        uv_close(&c->uv.handle, closed_cb);
}

void mp__conn_reset(struct mp__conn *c)
{
    if (!leave(c))
        return;
    if (!c->is_tcp || uv_tcp_close_reset(&c->uv.tcp, closed_cb) != 0)
        uv_close(&c->uv.handle, closed_cb);
}

static void shutdown_cb(uv_shutdown_t *req, int status)
{
    (void)req;
    (void)status;
}

/* Closing with unread input makes the kernel send RST, which can destroy our last words in the
 * client's buffers. So: FIN, then read and forget until the client closes too, for two seconds. */
void mp__conn_linger(struct mp__conn *c)
{
    if (c->state == MP__S_CLOSED || c->state == MP__S_LINGER)
        return;
    set_state(c, MP__S_LINGER);
    mp__buf_trim(&c->held, 0);
    mp__server_clock(c, MP__C_LINGER);
    if (c->gone || c->half_closed || uv_shutdown(&c->shutdown, &c->uv.stream, shutdown_cb) != 0) {
        mp__conn_close(c);
        return;
    }
    c->shut = 1;
    read_on(c);
}

void mp__conn_gone(struct mp__conn *c)
{
    void (*on_gone)(struct mp__http_request *) = c->req.on_gone;
    if (c->job != NULL)
        mp__conn_close(c);
    if (!c->req_out)
        return;
    c->server->stats.gone++;
    c->req.on_gone = NULL;
    if (on_gone != NULL)
        on_gone(&c->req);
}

/* Someone who does not take the reply, or died while taking it. */
static void lose(struct mp__conn *c)
{
    mp__conn_close(c);
    mp__conn_gone(c);
}

void mp__conn_expired(struct mp__conn *c)
{
    struct mp__http_server *s = c->server;
    size_t queue = uv_stream_get_write_queue_size(&c->uv.stream);
    if (c->clock_kind == MP__C_WRITE && queue < c->queue_then) {
        c->queue_then = queue;
        mp__server_clock(c, MP__C_WRITE);
        return;
    }
    if (c->clock_kind != MP__C_LINGER && c->clock_kind != MP__C_IDLE)
        s->stats.timeouts++;
    if (c->clock_kind == MP__C_HEAD || c->clock_kind == MP__C_BODY)
        mp__reply_fail(c, 408);
    else
        lose(c);
}

/* ---- writing ---- */

struct write_req {
    uv_write_t req;
    struct mp__conn *c;
    size_t n;
    char data[];
};

static void wrote_all(struct mp__conn *c)
{
    if (c->clock_kind == MP__C_WRITE)
        mp__server_clock(c, MP__C_NONE);
    if (c->state == MP__S_FLUSH)
        next_request(c);
}

static void write_cb(uv_write_t *req, int status)
{
    struct write_req *w = (struct write_req *)req;
    struct mp__conn *c = w->c;
    c->pending -= w->n;
    free(w);
    if (c->state == MP__S_CLOSED)
        return;
    if (status < 0) {
        lose(c);
        return;
    }
    if (c->pending == 0)
        wrote_all(c);
    if (c->full && c->req_out && c->pending <= c->server->config.high_water / 2) {
        c->full = 0;
        if (c->req.on_drain != NULL)
            c->req.on_drain(&c->req);
    }
}

/* Queues what try_write left of bufs, copied behind one header. */
static int write_rest(struct mp__conn *c, uv_buf_t *bufs, unsigned int n, size_t skip)
{
    size_t total = 0;
    for (unsigned int i = 0; i < n; i++)
        total += bufs[i].len;
    struct write_req *w = malloc(sizeof(*w) + total - skip);
    if (w == NULL)
        return UV_ENOMEM;
    w->c = c;
    w->n = total - skip;
    size_t at = 0;
    for (unsigned int i = 0; i < n; i++) {
        size_t cut = skip < bufs[i].len ? skip : bufs[i].len;
        if (bufs[i].len > cut)
            memcpy(w->data + at, bufs[i].base + cut, bufs[i].len - cut);
        at += bufs[i].len - cut;
        skip -= cut;
    }
    uv_buf_t whole = uv_buf_init(w->data, (unsigned int)w->n);
    int err = uv_write(&w->req, &c->uv.stream, &whole, 1, write_cb);
    if (err != 0) {
        free(w);
        return err;
    }
    if (c->pending == 0) {
        c->queue_then = 0;
        mp__server_clock(c, MP__C_WRITE);
    }
    c->pending += w->n;
    c->queue_then += w->n;
    return 0;
}

int mp__conn_write(struct mp__conn *c, uv_buf_t *bufs, unsigned int n)
{
    if (c->state == MP__S_CLOSED)
        return UV_ECANCELED;
    size_t total = 0;
    for (unsigned int i = 0; i < n; i++)
        total += bufs[i].len;
    int wrote = c->pending > 0 ? UV_EAGAIN : uv_try_write(&c->uv.stream, bufs, n);
    if (wrote == UV_EAGAIN)
        wrote = 0;
    int err = wrote < 0 ? wrote : 0;
    if (err == 0 && (size_t)wrote < total)
        err = write_rest(c, bufs, n, (size_t)wrote);
    if (err != 0) {
        mp__conn_close(c);
        return err;
    }
    c->server->stats.bytes_out += total;
    return 0;
}

/* ---- reading ---- */

/* Who ends the input in one breath with the first request, as `nc -N` does, sends no more and waits
 * for the reply. */
static int has_ended(struct mp__conn *c)
{
    uv_os_fd_t fd;
    char byte;
    return uv_fileno(&c->uv.handle, &fd) == 0 && recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

static void dispatch(struct mp__conn *c)
{
    struct mp__http_server *s = c->server;
    c->state = MP__S_WORK;
    c->req_out = 1;
    c->last_words = (uint8_t)(!c->used && c->feeding && has_ended(c));
    c->used = 1;
    s->stats.requests++;
    s->stats.working++;
    mp__server_clock(c, MP__C_NONE);
    s->config.on_request(&c->req, s->config.arg);
}

static void parse_all(struct mp__conn *c, const char *p, size_t n)
{
    c->feeding = 1;
    while (n > 0 && c->state < MP__S_READY) {
        size_t eaten = mp__parse(c, p, n);
        p += eaten;
        n -= eaten;
        if (c->fail != 0)
            mp__reply_fail(c, c->fail);
        else if (c->state == MP__S_READY)
            dispatch(c);
    }
    c->feeding = 0;
    if (n == 0 || (c->state != MP__S_WORK && c->state != MP__S_FLUSH))
        return;
    if (mp__bytes_add(&c->held, p, n) != 0) {
        lose(c);
    } else if (c->reading) {
        c->reading = 0;
        uv_read_stop(&c->uv.stream);
    }
}

/* One clock between two pieces; and who sends a byte now and then has no more time than others. */
static void body_clock(struct mp__conn *c)
{
    struct mp__http_server *s = c->server;
    if ((double)(uv_now(s->loop) - c->body_since) <= s->config.total_body_timeout * 1000) {
        mp__server_clock(c, MP__C_BODY);
        return;
    }
    s->stats.timeouts++;
    mp__reply_fail(c, 408);
}

static void feed(struct mp__conn *c, const char *p, size_t n)
{
    parse_all(c, p, n);
    if (c->state == MP__S_HEAD && c->clock_kind != MP__C_HEAD)
        mp__server_clock(c, MP__C_HEAD);
    else if (c->state == MP__S_BODY)
        body_clock(c);
}

static void alloc_cb(uv_handle_t *h, size_t suggested, uv_buf_t *buf)
{
    struct mp__conn *c = h->data;
    (void)suggested;
    *buf = uv_buf_init(c->server->read_buf, MP__READ_SIZE);
}

/* Of most the end of input means that they leave; a reply that is ready all the same is still written,
 * as Go's server does it. */
static void input_ended(struct mp__conn *c, int eof)
{
    int waits = !c->keep_alive || c->last_words;
    c->keep_alive = 0;
    if (eof && c->state == MP__S_WORK && waits && c->job == NULL) {
        c->half_closed = 1;
        c->reading = 0;
        uv_read_stop(&c->uv.stream);
        return;
    }
    if (!eof || (c->state != MP__S_WORK && c->state != MP__S_FLUSH)) {
        lose(c);
        return;
    }
    c->gone = 1;
    c->reading = 0;
    uv_read_stop(&c->uv.stream);
    mp__conn_gone(c);
}

static void read_cb(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct mp__conn *c = stream->data;
    if (n < 0) {
        input_ended(c, n == UV_EOF);
        return;
    }
    if (n == 0)
        return;
    c->server->stats.bytes_in += (uint64_t)n;
    if (c->state != MP__S_LINGER)
        feed(c, buf->base, (size_t)n);
}

static void read_on(struct mp__conn *c)
{
    if (c->reading || c->gone || c->half_closed || c->state == MP__S_CLOSED)
        return;
    c->reading = 1;
    if (uv_read_start(&c->uv.stream, alloc_cb, read_cb) != 0)
        lose(c);
}

/* ---- from one request to the next ---- */

static void feed_held(struct mp__conn *c)
{
    struct mp__buf held = c->held;
    c->held = (struct mp__buf){0};
    feed(c, held.p, held.n);
    free(held.p);
}

static void next_request(struct mp__conn *c)
{
    set_state(c, MP__S_IDLE);
    if (!c->keep_alive || c->server->stopping) {
        if (c->held.n > 0 || c->feeding)
            mp__conn_linger(c);
        else
            mp__conn_close(c);
        return;
    }
    mp__parse_start(c);
    mp__server_clock(c, MP__C_IDLE);
    if (c->feeding)
        return; /* the loop that called the handler goes on with what it has */
    if (c->held.n > 0)
        feed_held(c);
    if (c->held.n == 0)
        read_on(c);
}

void mp__conn_ended(struct mp__conn *c)
{
    if (c->req_out) {
        c->req_out = 0;
        c->server->stats.working--;
    }
    c->req.data = NULL;
    c->req.on_gone = NULL;
    c->req.on_drain = NULL;
    c->full = 0;
    if (c->state == MP__S_CLOSED) {
        mp__server_quiet(c->server);
        release(c);
        return;
    }
    if (c->job != NULL)
        return; /* the fault writes on; it comes back here */
    if (c->pending > 0)
        set_state(c, MP__S_FLUSH);
    else
        next_request(c);
    mp__server_quiet(c->server);
}

static void reset_fields(struct mp__conn *c)
{
    c->req = (struct mp__http_request){0};
    c->state = MP__S_IDLE;
    c->clock_kind = MP__C_NONE;
    c->reading = c->feeding = c->gone = c->half_closed = c->last_words = c->used = c->req_out =
        c->shut = c->full = 0;
    c->keep_alive = 1;
    c->pending = 0;
    c->job = NULL;
}

/* Whoever has waited longest between two requests goes. */
static int make_room(struct mp__http_server *s)
{
    struct mp__link *idle = &s->clocks[MP__C_IDLE];
    if (mp__list_empty(idle))
        return 0;
    mp__conn_close(MP__ENTRY(idle->next, struct mp__conn, clock));
    return 1;
}

void mp__conn_accept(struct mp__http_server *s)
{
    struct mp__conn *c = mp__conn_new(s);
    int none = c == NULL;
    if (none) {
        c = s->reserve;
        s->reserve = NULL;
        s->missed = c == NULL;
    }
    if (c == NULL)
        return;
    reset_fields(c);
    c->is_tcp = (uint8_t)s->is_tcp;
    int err = s->is_tcp ? uv_tcp_init(s->loop, &c->uv.tcp) : uv_pipe_init(s->loop, &c->uv.pipe, 0);
    if (err != 0) {
        release(c);
        return;
    }
    c->uv.handle.data = c;
    c->handle_open = 1;
    s->handles++;
    s->stats.open++;
    s->stats.accepted++;
    mp__list_push(&s->conns, &c->all);
    if (uv_accept(&s->uv.stream, &c->uv.stream) != 0 || none) {
        mp__conn_close(c);
        return;
    }
    if (s->is_tcp)
        uv_tcp_nodelay(&c->uv.tcp, 1);
    mp__parse_start(c);
    if (s->stats.open > s->config.max_connections && !make_room(s)) {
        s->stats.refused++;
        if (s->stats.open > s->config.max_connections + REFUSALS)
            mp__conn_close(c);
        else
            mp__reply_fail(c, 503);
        return;
    }
    mp__server_clock(c, MP__C_IDLE);
    read_on(c);
}

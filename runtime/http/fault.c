/*
 * fault.c - replies that go wrong on purpose.
 *
 * The whole reply is laid out as bytes first, cut where it shall break, then played: wait, write
 * (all at once, or a few bytes a turn), end. The player lives beside the connection because its
 * timer closes in its own time.
 */
#include "http/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct mp__fault_job {
    uv_timer_t timer;
    struct mp__http_server *server;
    struct mp__conn *c; /* NULL once cancelled */
    struct mp__buf wire;
    size_t at;
    size_t step;
    uint64_t gap_ms;
    int end;
};

static void job_closed(uv_handle_t *h)
{
    struct mp__fault_job *j = h->data;
    struct mp__http_server *s = j->server;
    mp__buf_trim(&j->wire, 0);
    free(j);
    s->handles--;
    mp__server_released(s);
}

static void job_close(struct mp__fault_job *j)
{
    j->c->job = NULL;
    j->c = NULL;
    uv_close((uv_handle_t *)&j->timer, job_closed);
}

void mp__fault_cancel(struct mp__conn *c)
{
    if (c->job != NULL)
        job_close(c->job);
}

static void finish(struct mp__fault_job *j)
{
    struct mp__conn *c = j->c;
    if (j->end == MP_HTTP_HANG)
        return;
    job_close(j);
    if (j->end == MP_HTTP_RESET)
        mp__conn_reset(c);
    else if (j->end == MP_HTTP_CLOSE)
        mp__conn_linger(c);
    else
        mp__conn_ended(c);
}

static void play(uv_timer_t *t)
{
    struct mp__fault_job *j = t->data;
    struct mp__conn *c = j->c;
    if (c == NULL)
        return;
    if (j->at < j->wire.n && c->pending == 0) {
        size_t left = j->wire.n - j->at;
        size_t n = left < j->step ? left : j->step;
        uv_buf_t buf = uv_buf_init(j->wire.p + j->at, (unsigned int)n);
        j->at += n;
        if (mp__conn_write(c, &buf, 1) != 0)
            return; /* closed, and this job with it */
    }
    /* A reset throws away what the kernel has not sent, so the queue must be empty first. */
    if (j->at == j->wire.n && c->pending == 0)
        finish(j);
    else
        uv_timer_start(t, play, c->pending > 0 ? 1 : j->gap_ms, 0);
}

static int add_chunk(struct mp__buf *b, const char *p, size_t n)
{
    char size[24];
    int len = snprintf(size, sizeof(size), "%zx\r\n", n);
    if (mp__bytes_add(b, size, (size_t)len) != 0 || mp__bytes_add(b, p, n) != 0)
        return UV_ENOMEM;
    return mp__bytes_add(b, "\r\n", 2);
}

/* The body's bytes as they go over the wire, up to the cut. */
static int lay_body(struct mp__buf *b, const char *p, size_t len, const struct mp__http_fault *f)
{
    size_t n = f->cut < len ? f->cut : len;
    if (f->chunk == 0 || f->raw)
        return mp__bytes_add(b, p, n);
    for (size_t at = 0; at < n; at += f->chunk) {
        if (add_chunk(b, p + at, n - at < f->chunk ? n - at : f->chunk) != 0)
            return UV_ENOMEM;
    }
    return f->end == MP_HTTP_FINISH ? mp__bytes_add(b, "0\r\n\r\n", 5) : 0;
}

static int lay_out(struct mp__fault_job *j, struct mp__conn *c, int status,
                   const struct mp__http_header *headers, size_t nheaders, const void *body,
                   size_t len, const struct mp__http_fault *f)
{
    int chunked = f->chunk > 0 && c->req.http_minor == 1;
    int err = 0;
    if (!f->raw)
        err = mp__reply_head(c, status, headers, nheaders, chunked ? -1 : (int64_t)len);
    if (err == 0 && !f->raw)
        err = mp__bytes_add(&j->wire, c->server->scratch.p, c->server->scratch.n);
    struct mp__http_fault shape = *f;
    shape.chunk = chunked ? f->chunk : 0;
    if (err == 0 && !c->is_head)
        err = lay_body(&j->wire, body, len, &shape);
    return err;
}

int mp__http_reply_fault(struct mp__http_request *req, int status,
                         const struct mp__http_header *headers, size_t nheaders, const void *body,
                         size_t len, const struct mp__http_fault *fault)
{
    struct mp__conn *c = (struct mp__conn *)req;
    struct mp__http_server *s = c->server;
    struct mp__fault_job *j = calloc(1, sizeof(*j));
    int err = UV_ENOMEM;
    if (j != NULL)
        err = lay_out(j, c, status, headers, nheaders, body, len, fault);
    if (err == 0 && c->state == MP__S_CLOSED)
        err = UV_ECANCELED;
    if (err != 0) {
        if (j != NULL)
            mp__buf_trim(&j->wire, 0);
        free(j);
        if (err != UV_EINVAL)
            mp__http_abort(req);
        return err;
    }
    if (fault->raw || fault->cut < len)
        c->keep_alive = 0;
    j->server = s;
    j->c = c;
    j->step = fault->dribble > 0 ? fault->dribble : j->wire.n;
    j->gap_ms = (uint64_t)(fault->gap * 1000);
    j->end = fault->end;
    uv_timer_init(s->loop, &j->timer);
    j->timer.data = j;
    s->handles++;
    c->job = j;
    s->stats.replies++;
    if (!fault->raw)
        s->stats.status[status / 100]++;
    mp__conn_ended(c); /* takes the request from the caller; the job keeps the connection */
    if (fault->delay > 0)
        uv_timer_start(&j->timer, play, (uint64_t)(fault->delay * 1000 + 0.5), 0);
    else
        play(&j->timer);
    return 0;
}

/* hooks.c - what hooks may see and change of calls and attempts, and what waits while one runs. */
#include "engine/hooks.h"

#include "engine/internal.h"
#include "policy/batch.h"

#include <stdio.h>
#include <string.h>

/* ---- facts ---- */

void mp__hook_call(const void *callp, struct mp__call_facts *out)
{
    const struct mp__call *call = callp;
    out->arg = call->arg;
    out->method = call->method;
    out->path = call->path;
    out->ticket = call->ticket;
    out->nrows = call->nrows;
    out->rows = call->rows;
}

static void reply_facts(const struct mp__attempt *a, struct mp__attempt_facts *out)
{
    out->head = a->head.n > 0 ? a->head.p : "";
    out->head_len = a->head.n;
    int good = a->status >= 200 && a->status <= 299;
    if (a->call != NULL && (!good || (!a->call->has_vectors && !a->streamed))) {
        out->body = a->reply.n > 0 ? a->reply.p : "";
        out->body_len = a->reply.n;
    }
    out->tokens = -1;
    if (a->call != NULL && a->call->has_vectors && a->kind == MP_KIND_NONE && a->decoder != NULL) {
        int64_t prompt = -1;
        mp__attempt_usage(a, &prompt, &out->tokens);
        if (out->tokens < 0)
            out->tokens = prompt;
    }
}

void mp__hook_attempt(const struct mp__attempt *a, struct mp__attempt_facts *out)
{
    const struct mp__endpoint *ep = &a->client->endpoints[a->endpoint];
    memset(out, 0, sizeof(*out));
    out->call = a->call;
    out->client = a->client->core;
    out->part = a->part != NULL && a->part->core != NULL ? mpp_part_facts(a->part->core) : NULL;
    out->host = ep->url.host;
    out->url = a->url.n > 0 ? a->url.p : "";
    out->request_id = a->request_id;
    out->message = a->message;
    out->request = a->xfer.body;
    out->request_len = a->xfer.body_len;
    out->received = a->received;
    out->time = (double)(mp__now() - a->started) / 1e9;
    out->retry_after = a->hints.retry_after;
    out->endpoint = a->endpoint;
    out->kind = a->kind;
    out->status = a->status;
    out->is_hedge = a->is_hedge;
    reply_facts(a, out);
}

const struct mp__attempt *mp__hook_last(const struct mpp_part_facts *part)
{
    const struct mp__part *p = part->info.user;
    return p != NULL ? p->last : NULL;
}

/* ---- deeds ---- */

static int check_rewrite(const struct mp__rewrite *rw)
{
    const char *why = NULL;
    for (size_t i = 0; i < rw->nheaders; i++)
        if (mp__header_check(rw->headers[i].name, rw->headers[i].value, &why) != 0)
            return mp__fail(MP_EINVAL, "headers: %s (%.40s)", why,
                            rw->headers[i].name != NULL ? rw->headers[i].name : "");
    return rw->path != NULL ? mp__call_check_path(rw->path) : 0;
}

int mp__hook_rewrite(struct mp__attempt *a, const struct mp__rewrite *rw)
{
    int rc = check_rewrite(rw);
    if (rc == 0 && rw->body != NULL) {
        struct mp__buf body = {0};
        rc = mp__buf_add(&body, rw->body, rw->body_len);
        if (rc != 0)
            return mp__fail(rc, "out of memory");
        mp__buf_free(&a->body); /* the present bytes may be those: not overwritten in place */
        a->body = body;
        a->xfer.body = a->body.p != NULL ? a->body.p : "";
        a->xfer.body_len = a->body.n;
    }
    if (rc == 0 && rw->path != NULL)
        rc = mp__attempt_url(a, rw->path);
    if (rc == 0 && (rw->nheaders > 0 || rw->body != NULL))
        rc = mp__attempt_headers(a, rw->headers, rw->nheaders);
    return rc;
}

int mp__hook_replace(struct mp__attempt *a, const char *body, size_t n)
{
    struct mp__buf reply = {0};
    if (a->streamed || (a->call->has_vectors && a->kind == MP_KIND_NONE))
        return mp__fail(MP_EINVAL, "the body of a reply with vectors or a stream is not kept");
    if (mp__buf_add(&reply, body, n) != 0)
        return mp__fail(MP_ENOMEM, "out of memory");
    mp__buf_free(&a->reply);
    a->reply = reply;
    return 0;
}

int mp__hook_refuse(struct mp__attempt *a, const char *message)
{
    if (a->kind != MP_KIND_NONE || a->streamed)
        return mp__fail(MP_EINVAL, "only a good reply that is no stream can be refused");
    a->kind = MP_KIND_DECODE;
    snprintf(a->message, sizeof(a->message), "%s", message);
    return 0;
}

/* ---- batches ---- */

uint32_t mp__hook_batch(struct mp__call *call, const struct mp__offer *offer)
{
    const struct mp__hooks *hooks = call->hooks;
    uint32_t n = hooks->batch(hooks->core.arg, offer);
    return n > 0 && n < offer->count ? n : offer->count;
}

/* ---- around a hook ---- */

void mp__hook_enter(struct mp_engine *e)
{
    e->in_hook++;
}

void mp__hook_leave(struct mp_engine *e)
{
    e->in_hook--;
}

void mp__hook_warn(struct mp_engine *e, const char *message)
{
    mp__log(e, MP_LOG_WARN, "%s", message);
}

void mp__hook_later(struct mp_engine *e)
{
    struct mp_client *next = NULL;
    e->later = 0;
    for (uint32_t i = 0; i < e->nslots; i++)
        if (e->slots[i].call != NULL && e->slots[i].call->cancel_later)
            mp_cancel(e, e->slots[i].call->ticket);
    for (struct mp_client *c = e->clients; c != NULL; c = next) {
        next = c->next;
        if (c->close_later)
            mp_client_close(c);
    }
}

/* probe.c - active health checks: a GET of an endpoint's health path, when the core asks. */
#include "engine/internal.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

struct mp__xfer_probe {
    struct mp__xfer xfer;
    struct mp_client *client;
    uint32_t endpoint;
    char *url;
    uv_timer_t limit;
};

static void closed(uv_handle_t *handle)
{
    struct mp__xfer_probe *p = handle->data;
    struct mp_client *c = p->client;
    free(p->url);
    free(p);
    mp__client_unref(c);
}

static void finish(struct mp__xfer_probe *p, int healthy)
{
    struct mp__endpoint *ep = &p->client->endpoints[p->endpoint];
    if (ep->probe != p)
        return;
    ep->probe = NULL;
    uv_timer_stop(&p->limit);
    if (!p->client->closed)
        mpp_probe_done(p->client->core, p->endpoint, healthy, mp__now());
    uv_close((uv_handle_t *)&p->limit, closed);
    mp__wake(p->client->engine);
}

static void on_end(struct mp__xfer *x)
{
    int ok = x->kind == MP_KIND_NONE && x->status >= 200 && x->status <= 299;
    int late = x->kind == MP_KIND_CONNECT_TIMEOUT || x->kind == MP_KIND_READ_TIMEOUT;
    finish((struct mp__xfer_probe *)x, late ? -1 : ok);
}

static void on_limit(uv_timer_t *timer)
{
    struct mp__xfer_probe *p = timer->data;
    mp__transport_cancel(p->client->pool->transport, &p->xfer);
    finish(p, -1); /* a slow answer is no vote */
}

static void on_progress(struct mp__xfer *x)
{
    (void)x;
}

static int on_bytes(struct mp__xfer *x, const char *p, size_t n)
{
    (void)x;
    (void)p;
    (void)n;
    return 0;
}

static char *probe_url(const struct mp__endpoint *ep)
{
    size_t n = strlen(ep->url.base);
    size_t m = strlen(ep->health_path);
    char *url = malloc(n + m + 2);
    if (url == NULL)
        return NULL;
    memcpy(url, ep->url.base, n);
    if (ep->health_path[0] != '/')
        url[n++] = '/';
    memcpy(url + n, ep->health_path, m + 1);
    return url;
}

void mp__probe_start(struct mp_client *c, uint32_t endpoint)
{
    struct mp__endpoint *ep = &c->endpoints[endpoint];
    struct mp__xfer_probe *p = calloc(1, sizeof(*p));
    if (ep->probe != NULL || c->closed || p == NULL) {
        if (p == NULL && ep->probe == NULL && !c->closed)
            mpp_probe_done(c->core, endpoint, -1, mp__now()); /* or none would be asked for again */
        free(p);
        return;
    }
    p->client = c;
    p->endpoint = endpoint;
    p->url = probe_url(ep);
    p->xfer.target = mp__endpoint_target(c, ep);
    p->xfer.url = p->url;
    p->xfer.method = "GET";
    p->xfer.headers = ep->without_body;
    p->xfer.on_progress = on_progress;
    p->xfer.on_header = on_bytes;
    p->xfer.on_body = on_bytes;
    p->xfer.on_end = on_end;
    if (p->url == NULL || p->xfer.target == NULL ||
        mp__transport_start(c->pool->transport, &p->xfer) != 0) {
        free(p->url);
        free(p);
        mpp_probe_done(c->core, endpoint, -1, mp__now());
        return;
    }
    c->refs++;
    ep->probe = p;
    uv_timer_init(c->engine->loop, &p->limit);
    p->limit.data = p;
    double limit = ep->health_timeout > 0 ? ep->health_timeout : 6;
    uv_timer_start(&p->limit, on_limit, (uint64_t)(limit * 1000), 0);
    uv_unref((uv_handle_t *)&p->limit);
}

void mp__probes_stop(struct mp_client *c)
{
    for (uint32_t i = 0; i < c->nendpoints; i++) {
        struct mp__xfer_probe *p = c->endpoints[i].probe;
        if (p == NULL)
            continue;
        mp__transport_cancel(c->pool->transport, &p->xfer);
        finish(p, -1);
    }
}

/*
 * client.c - pools, clients and their endpoints: checked once, so that nothing has to be checked
 * again for each request.
 */
#include "engine/internal.h"
#include "base/fds.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* ---- pools ---- */

static void on_transport_event(void *engine)
{
    mp__wake(engine);
}

#define OTHER_FILES 24 /* descriptors left to whatever else the process opens: output, names */

/* A connection is a descriptor. With `ulimit -n 100` the default pool would take them all, and the
 * first file opened after it fails; so a pool is no larger than what there is. */
static void fit_pool(struct mp_engine *e, struct mp_pool_config *cfg)
{
    size_t left = mp__fds_left();
    size_t room = left > OTHER_FILES ? left - OTHER_FILES : 1;
    uint32_t idle = cfg->max_idle != 0 ? cfg->max_idle : MP__MAX_IDLE;
    if (room >= (size_t)cfg->max_connections + idle)
        return;
    size_t busy = room - room / 4;
    if (busy < cfg->max_connections) {
        mp__log(e, MP_LOG_INFO,
                "%zu file descriptors are left (ulimit -n): the pool has %zu connections, not %u",
                left, busy, cfg->max_connections);
        cfg->max_connections = (uint32_t)busy;
    }
    cfg->max_idle = room - busy < 1 ? 1 : room - busy < idle ? (uint32_t)(room - busy) : idle;
}

mp_pool *mp_pool_new(mp_engine *e, const struct mp_pool_config *config)
{
    struct mp_pool *p = calloc(1, sizeof(*p));
    if (p == NULL || e == NULL || e->closing) {
        free(p);
        return NULL;
    }
    if (config != NULL)
        memcpy(&p->cfg, config, config->size < sizeof(p->cfg) ? config->size : sizeof(p->cfg));
    p->cfg.size = sizeof(p->cfg);
    if (p->cfg.max_connections == 0)
        p->cfg.max_connections = 256;
    fit_pool(e, &p->cfg);
    p->engine = e;
    p->refs = 1;
    p->slots = mpp_pool_new(e->core, p->cfg.max_connections);
    p->transport = p->slots != NULL ? mp__transport_new(e->loop, &p->cfg) : NULL;
    if (p->transport == NULL) {
        if (p->slots != NULL)
            mpp_pool_unref(p->slots);
        free(p);
        return NULL;
    }
    mp__transport_on_event(p->transport, on_transport_event, e);
    mp__transport_ref(p->transport, e->live);
    p->next = e->pools;
    e->pools = p;
    return p;
}

static void transport_gone(void *poolp)
{
    struct mp_pool *p = poolp;
    struct mp_engine *e = p->engine;
    free(p);
    mp__engine_part_closed(e);
}

void mp__pool_unref(struct mp_pool *p)
{
    struct mp_engine *e = p->engine;
    if (--p->refs > 0)
        return;
    for (struct mp_pool **link = &e->pools; *link != NULL; link = &(*link)->next)
        if (*link == p) {
            *link = p->next;
            break;
        }
    mpp_pool_unref(p->slots);
    e->closing_left++; /* the engine waits for it, should it close meanwhile */
    mp__transport_close(p->transport, transport_gone, p);
}

void mp_pool_unref(mp_pool *p)
{
    if (p != NULL)
        mp__pool_unref(p);
}

/* ---- checks ---- */

static int check_headers(const struct mp_header *h, size_t n, const char *where)
{
    const char *why = NULL;
    for (size_t i = 0; i < n; i++)
        if (mp__header_check(h[i].name, h[i].value, &why) != 0)
            return mp__fail(MP_EINVAL, "%s: %s (%.40s)", where, why,
                            h[i].name != NULL ? h[i].name : "");
    return 0;
}

static int check_number(double v, const char *name)
{
    if (v != v)
        return mp__fail(MP_EINVAL, "%s: not a number", name);
    return 0;
}

static int check_timeouts(const struct mp_timeouts *t)
{
    int rc = check_number(t->connect, "timeouts.connect");
    rc = rc ? rc : check_number(t->read, "timeouts.read");
    rc = rc ? rc : check_number(t->write, "timeouts.write");
    rc = rc ? rc : check_number(t->pool, "timeouts.pool");
    rc = rc ? rc : check_number(t->attempt, "timeouts.attempt");
    return rc ? rc : check_number(t->total, "timeouts.total");
}

/* Headers of our own making, from names and a prefix that the host gives. */
static int check_made_headers(const struct mp_client_config *c)
{
    const char *why = NULL;
    const char *name = c->request_id_header;
    if (name != NULL && *name != '\0' && mp__header_check(name, NULL, &why) != 0)
        return mp__fail(MP_EINVAL, "request_id_header: %s", why);
    if (c->request_id_prefix != NULL && mp__header_check("x", c->request_id_prefix, &why) != 0)
        return mp__fail(MP_EINVAL, "request_id_prefix: %s", why);
    name = c->idempotency_header;
    if (name != NULL && mp__header_check(name, NULL, &why) != 0)
        return mp__fail(MP_EINVAL, "idempotency_header: %s", why);
    return 0;
}

static int check_config(const struct mp_client_config *c)
{
    if (c->endpoints == NULL || c->nendpoints == 0)
        return mp__fail(MP_EINVAL, "endpoints: at least one is needed");
    for (size_t i = 0; i < c->nendpoints; i++)
        if (!(c->endpoints[i].weight >= 0))
            return mp__fail(MP_EINVAL, "endpoints: weight: cannot be negative");
    if (c->http_version != 0 && c->http_version != 1 && c->http_version != 2)
        return mp__fail(MP_EINVAL, "http_version: must be 1 or 2");
    int rc = check_headers(c->headers, c->nheaders, "headers");
    rc = rc ? rc : check_made_headers(c);
    return rc ? rc : check_timeouts(&c->timeouts);
}

/* ---- endpoints ---- */

static int base_headers(struct mp__header_set *set, const struct mp_client_config *c,
                        const struct mp_endpoint_config *ep)
{
    int rc = mp__header_put(set, "User-Agent", "moonpool/" MP_VERSION_STRING);
    rc = rc ? rc : mp__header_put(set, "Accept", "application/json");
    rc = rc ? rc : mp__header_put(set, "Content-Type", "application/json");
    for (size_t i = 0; rc == 0 && i < c->nheaders; i++)
        rc = mp__header_put(set, c->headers[i].name, c->headers[i].value);
    for (size_t i = 0; rc == 0 && i < ep->nheaders; i++)
        rc = mp__header_put(set, ep->headers[i].name, ep->headers[i].value);
    return rc;
}

/* An empty variable is not set, as curl reads it: it must not hide the one after it. */
static const char *env(const char *name)
{
    const char *v = getenv(name);
    return v != NULL && *v != '\0' ? v : NULL;
}

/* What the environment says, read once: curl would look at every request. */
static const char *env_proxy(const char *scheme)
{
    const char *v = NULL;
    if (strcmp(scheme, "https") == 0) {
        v = env("https_proxy");
        v = v != NULL ? v : env("HTTPS_PROXY");
    } else {
        v = env("http_proxy"); /* HTTP_PROXY can be set by a CGI client's header */
    }
    v = v != NULL ? v : env("all_proxy");
    v = v != NULL ? v : env("ALL_PROXY");
    return v != NULL ? v : "";
}

static const char *proxy_of(const struct mp_client *c, const struct mp__endpoint *ep)
{
    if (ep->url.unix_path != NULL)
        return "";
    int https = strcmp(ep->url.scheme, "https") == 0;
    const char *given = https ? c->proxy_https : c->proxy_http;
    return given != NULL ? given : env_proxy(ep->url.scheme);
}

static int check_proxy(const struct mp__endpoint *ep)
{
    char why[160];
    const char *name = strcmp(ep->url.scheme, "https") == 0 ? "proxy for https" : "proxy for http";
    int rc = mp__proxy_check(ep->target.proxy, why, sizeof(why));
    if (rc == MP_ENOMEM)
        return mp__fail(rc, "out of memory");
    return rc != 0 ? mp__fail(rc, "%s: %s", name, why) : 0;
}

static int copy_or(char **to, const char *s, const char *fallback)
{
    const char *from = s != NULL ? s : fallback;
    *to = from != NULL ? strdup(from) : NULL;
    return from != NULL && *to == NULL;
}

static int endpoint_init(struct mp_client *c, struct mp__endpoint *ep,
                         const struct mp_client_config *cfg, const struct mp_endpoint_config *in)
{
    char why[256];
    int rc = mp__url_parse(in->base_url, &ep->url, why, sizeof(why));
    if (rc != 0)
        return mp__fail(rc, "base_url: %s", why);
    rc = check_headers(in->headers, in->nheaders, "endpoint headers");
    if (rc != 0)
        return rc;
    ep->headers = calloc(1, sizeof(*ep->headers));
    if (ep->headers == NULL || base_headers(ep->headers, cfg, in) != 0)
        return mp__fail(MP_ENOMEM, "out of memory");
    ep->with_body = mp__header_chain(ep->headers, 1);
    ep->without_body = mp__header_chain(ep->headers, 0);
    if (ep->with_body == NULL || ep->without_body == NULL)
        return mp__fail(MP_ENOMEM, "out of memory");
    ep->target.unix_path = ep->url.unix_path;
    ep->target.proxy = proxy_of(c, ep);
    ep->target.no_proxy = c->no_proxy;
    rc = check_proxy(ep);
    if (rc != 0)
        return rc;
    ep->target.ca_file = c->tls_ca;
    ep->target.cert_file = c->tls_cert;
    ep->target.key_file = c->tls_key;
    ep->target.accept_encoding = c->accept_encoding;
    ep->target.verify = !cfg->tls.no_verify;
    ep->target.http_version = cfg->http_version == 2 ? 2 : 1;
    ep->target.connect_timeout = c->timeouts.connect;
    ep->target.idle_timeout = c->pool->cfg.idle_timeout > 0 ? c->pool->cfg.idle_timeout : 30;
    ep->target.max_age = c->pool->cfg.max_age;
    ep->target.id = ++c->engine->target_ids;
    /* A proxy looks names up itself, and curl knows localhost without asking anybody. */
    if (!ep->url.numeric && *ep->target.proxy == '\0' &&
        strcasecmp(ep->url.host, "localhost") != 0) {
        ep->name = mp__name_get(c->engine, ep->url.host);
        if (ep->name == NULL)
            return mp__fail(MP_ENOMEM, "out of memory");
    }
    ep->health_timeout = in->health_timeout;
    return copy_or(&ep->health_path, in->health_path, NULL) ? mp__fail(MP_ENOMEM, "out of memory")
                                                            : 0;
}

const struct mp__target *mp__endpoint_target(struct mp_client *c, struct mp__endpoint *ep)
{
    if (ep->name == NULL || ep->name_version == ep->name->version || ep->name->addresses == NULL)
        return &ep->target;
    size_t cap = strlen(ep->url.host) + strlen(ep->name->addresses) + 16;
    char *resolve = malloc(cap);
    if (resolve == NULL)
        return NULL;
    snprintf(resolve, cap, "%s:%d:%s", ep->url.host, ep->url.port, ep->name->addresses);
    /* Handles in use keep their own copy; a new id makes the others take the new addresses. */
    free(ep->resolve);
    ep->resolve = resolve;
    ep->target.resolve = resolve;
    ep->target.id = ++c->engine->target_ids;
    ep->name_version = ep->name->version;
    return &ep->target;
}

static void endpoint_fini(struct mp__endpoint *ep)
{
    mp__url_free(&ep->url);
    mp__hdr_free(ep->with_body);
    mp__hdr_free(ep->without_body);
    mp__header_free(ep->headers);
    free(ep->resolve);
    free(ep->health_path);
}

/* ---- clients ---- */

/* A CA or a proxy that is lost for want of memory would be a client that trusts others or talks past
 * the proxy: without all of them there is no client. */
static int copy_strings(struct mp_client *c, const struct mp_client_config *cfg)
{
    int lost = 0;
    const char *no_proxy = env("no_proxy");
    if (no_proxy == NULL)
        no_proxy = env("NO_PROXY");
    lost |= copy_or(&c->tls_ca, cfg->tls.ca_file, NULL);
    lost |= copy_or(&c->tls_cert, cfg->tls.cert_file, NULL);
    lost |= copy_or(&c->tls_key, cfg->tls.key_file, NULL);
    lost |= copy_or(&c->proxy_http, cfg->proxy_http, NULL);
    lost |= copy_or(&c->proxy_https, cfg->proxy_https, NULL);
    lost |= copy_or(&c->no_proxy, cfg->no_proxy, no_proxy != NULL ? no_proxy : "");
    lost |= copy_or(&c->accept_encoding, cfg->accept_encoding, "gzip, zstd");
    lost |= copy_or(&c->request_id_header, cfg->request_id_header, "x-request-id");
    lost |= copy_or(&c->request_id_prefix, cfg->request_id_prefix, "moonpool");
    lost |= copy_or(&c->idempotency_header, cfg->idempotency_header, NULL);
    lost |= copy_or(&c->rate_key, cfg->rate_key, NULL);
    return lost ? mp__fail(MP_ENOMEM, "out of memory") : 0;
}

static void take_timeouts(struct mp_timeouts *t, const struct mp_timeouts *given)
{
    t->connect = given->connect != 0 ? given->connect : 10;
    t->read = given->read != 0 ? given->read : 60;
    t->write = given->write != 0 ? given->write : 30;
    t->pool = given->pool != 0 ? given->pool : 10;
    t->attempt = given->attempt;
    t->total = given->total;
}

static void client_free(struct mp_client *c)
{
    for (uint32_t i = 0; c->endpoints != NULL && i < c->nendpoints; i++)
        endpoint_fini(&c->endpoints[i]);
    free(c->endpoints);
    free(c->tls_ca);
    free(c->tls_cert);
    free(c->tls_key);
    free(c->proxy_http);
    free(c->proxy_https);
    free(c->no_proxy);
    free(c->accept_encoding);
    free(c->request_id_header);
    free(c->request_id_prefix);
    free(c->idempotency_header);
    free(c->rate_key);
    mp__limits_free(c);
    mp__hists_fini(&c->pool_waits);
    if (c->pool != NULL)
        mp__pool_unref(c->pool);
    if (c->hooks != NULL)
        c->hooks->release(c->hooks->core.arg);
    free(c);
}

/* What the endpoint is to other processes: its rate's key, or its URL and whose key it is asked with. */
static struct mpp_shared *shared_of(struct mp_client *c, const struct mp__endpoint *ep,
                                    struct mp__shared_map *map)
{
    struct mp__buf b;
    struct mpp_shared *shared = NULL;
    const struct mp__header_set *h = ep->headers;
    const char *key = c->rate_key != NULL ? c->rate_key : c->policy.rate.key;
    mp__buf_init(&b, 0);
    int rc = mp__buf_adds(&b, key != NULL ? key : ep->url.base);
    for (size_t i = 0; key == NULL && rc == 0 && i < h->n; i++)
        if (h->v[i].value != NULL && strcasecmp(h->v[i].name, "user-agent") != 0)
            rc = mp__buf_addc(&b, '\n') | mp__buf_adds(&b, h->v[i].name) |
                 mp__buf_adds(&b, h->v[i].value);
    if (rc == 0)
        shared = mp__shared_slot(map, b.p, b.n, mp__now());
    if (shared == NULL)
        mp__log(c->engine, MP_LOG_WARN, "no place is left to share the rates of %s", ep->url.base);
    mp__buf_free(&b);
    return shared;
}

static int start_in_core(struct mp_client *c, const struct mp_client_config *cfg)
{
    struct mpp_client_cfg k = {0};
    struct mpp_endpoint_cfg *eps = calloc(c->nendpoints, sizeof(*eps));
    if (eps == NULL)
        return mp__fail(MP_ENOMEM, "out of memory");
    struct mp__shared_map *map = NULL;
    if (cfg->shared != NULL) {
        map = mp__shared_open(c->engine, cfg->shared);
        if (map == NULL) {
            free(eps);
            return MP_ESYS;
        }
    }
    double weights = 0;
    for (uint32_t i = 0; i < c->nendpoints; i++)
        weights += cfg->endpoints[i].weight;
    for (uint32_t i = 0; i < c->nendpoints; i++) {
        const struct mp_endpoint_config *in = &cfg->endpoints[i];
        eps[i].weight = weights > 0 ? in->weight : 1;
        eps[i].idempotent = 1; /* whether a call may be hedged is the call's to say */
        eps[i].health_check = in->health_path != NULL;
        eps[i].health_interval = in->health_interval > 0 ? in->health_interval : 10;
        eps[i].health_timeout = in->health_timeout > 0 ? in->health_timeout : 6;
        eps[i].health_retries = 2;
        eps[i].timeout_is_no_vote = 1;
        eps[i].shared = map != NULL ? shared_of(c, &c->endpoints[i], map) : NULL;
        eps[i].rate_key = c->rate_key;
    }
    k.pool = c->pool->slots;
    k.policy = &c->policy;
    k.hooks = c->hooks != NULL ? &c->hooks->core : NULL;
    k.endpoints = eps;
    k.nendpoints = c->nendpoints;
    k.user = c;
    c->core = mpp_client_new(c->engine->core, &k);
    free(eps);
    return c->core != NULL ? 0 : mp__fail(MP_ENOMEM, "out of memory");
}

static int client_init(struct mp_client *c, const struct mp_client_config *cfg)
{
    int lost = copy_strings(c, cfg);
    if (lost != 0)
        return lost;
    c->hooks = cfg->hooks;
    if (c->hooks != NULL)
        c->hooks->retain(c->hooks->core.arg);
    take_timeouts(&c->timeouts, &cfg->timeouts);
    if (cfg->policy != NULL)
        memcpy(&c->policy, cfg->policy,
               cfg->policy->size < sizeof(c->policy) ? cfg->policy->size : sizeof(c->policy));
    else
        mp_policy_init(&c->policy, MP_PRESET_JOB);
    c->deadline_headers = cfg->deadline_headers;
    c->pool = cfg->pool;
    if (c->pool != NULL)
        c->pool->refs++;
    else
        c->pool = mp_pool_new(c->engine, cfg->pool_config);
    c->endpoints = calloc(cfg->nendpoints, sizeof(*c->endpoints));
    if (c->pool == NULL || c->endpoints == NULL)
        return mp__fail(MP_ENOMEM, "out of memory");
    for (; c->nendpoints < cfg->nendpoints; c->nendpoints++) {
        const struct mp_endpoint_config *in = &cfg->endpoints[c->nendpoints];
        int rc = endpoint_init(c, &c->endpoints[c->nendpoints], cfg, in);
        if (rc != 0) {
            endpoint_fini(&c->endpoints[c->nendpoints]);
            return rc;
        }
    }
    return start_in_core(c, cfg);
}

int mp_client_new(mp_engine *e, const struct mp_client_config *given, mp_client **out)
{
    struct mp_client_config cfg = {0};
    if (e == NULL || given == NULL || out == NULL)
        return mp__fail(MP_EINVAL, "engine, config or out: missing");
    *out = NULL;
    memcpy(&cfg, given, given->size < sizeof(cfg) ? given->size : sizeof(cfg));
    if (e->closing)
        return mp__fail(MP_ECLOSED, "the engine is closed");
    int rc = check_config(&cfg);
    if (rc != 0)
        return rc;
    struct mp_client *c = calloc(1, sizeof(*c));
    if (c == NULL)
        return mp__fail(MP_ENOMEM, "out of memory");
    c->engine = e;
    c->refs = 1;
    rc = client_init(c, &cfg);
    if (rc != 0) {
        client_free(c);
        return rc;
    }
    c->next = e->clients;
    c->link = &e->clients;
    if (c->next != NULL)
        c->next->link = &c->next;
    e->clients = c;
    if (cfg.tls.no_verify)
        mp__log(e, MP_LOG_WARN, "TLS certificates of %s are not verified",
                c->endpoints[0].url.base);
    mp__wake(e);
    *out = c;
    return MP_OK;
}

void mp__client_unref(struct mp_client *c)
{
    if (--c->refs > 0)
        return;
    *c->link = c->next;
    if (c->next != NULL)
        c->next->link = c->link;
    client_free(c);
}

void mp_client_close(mp_client *c)
{
    if (c == NULL || c->closed)
        return;
    struct mp_engine *e = c->engine;
    if (e->in_hook) {
        c->close_later = e->later = 1;
        mp__wake(e);
        return;
    }
    c->closed = 1;
    mp__gather_close(e, c);
    mp__probes_stop(c);
    mpp_client_close(c->core, mp__now());
    mp__wake(e);
    mp__client_unref(c);
}

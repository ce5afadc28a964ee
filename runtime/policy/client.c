/* client.c - clients with their endpoints, and the pools of connections they share. */
#include "policy/state.h"

#include <stdlib.h>
#include <string.h>

#define KEPT 5000000 /* millionths of a retry token */

/* ---- pools ----------------------------------------------------------------------------------- */

struct mpp_pool *mpp_pool_new(struct mpp_core *core, uint32_t max_running)
{
    struct mpp_pool *pool = calloc(1, sizeof(*pool));

    if (pool == NULL)
        return NULL;
    pool->core = core;
    pool->refs = 1;
    pool->max_running = max_running ? max_running : 256;
    mp__list_init(&pool->waiters);
    return pool;
}

void mpp_pool_unref(struct mpp_pool *pool)
{
    if (pool == NULL || --pool->refs > 0)
        return;
    mp__list_remove(&pool->link);
    free(pool);
}

void mpp_pool_freed(struct mpp_pool *pool)
{
    if (pool->nwaiters > 0 && pool->running < pool->max_running && !mp__linked(&pool->link))
        mp__list_push(&pool->core->pools, &pool->link);
}

/* ---- endpoints ------------------------------------------------------------------------------- */

static struct mpp_rate *rate_for(struct mpp_client *client, const char *key)
{
    struct mpp_core *core = client->core;
    struct mp__link *link;
    struct mpp_rate *r;

    for (link = core->rates.next; key != NULL && link != &core->rates; link = link->next) {
        r = MP__ENTRY(link, struct mpp_rate, link);
        if (strcmp(r->key, key) == 0) {
            r->refs++;
            return r;
        }
    }
    r = mpp_rate_new(key, &client->policy.rate, core->now);
    if (r != NULL && key != NULL)
        mp__list_push(&core->rates, &r->link);
    return r;
}

static void rate_unref(struct mpp_rate *r)
{
    if (r == NULL || --r->refs > 0)
        return;
    mp__list_remove(&r->link);
    mpp_rate_free(r);
}

static int endpoint_init(struct mpp_client *client, uint32_t i, const struct mpp_endpoint_cfg *cfg)
{
    struct mpp_endpoint *ep = &client->endpoints[i];
    const struct mp_policy *p = &client->policy;

    ep->client = client;
    ep->index = i;
    ep->cfg = *cfg;
    ep->cfg.rate_key = NULL; /* the caller's string */
    ep->tokens_per_byte = 0.30;
    mp__list_init(&ep->parked);
    mpp_budget_init(&ep->budget, p->retry.reserve, p->retry.budget, p->retry.budget_cap);
    if (!p->retry.fail_fast)
        ep->budget.keep = KEPT;
    mpp_budget_init(&ep->hedge, p->hedge.reserve, p->hedge.budget, 20);
    mpp_concurrency_init(&ep->concurrency, &p->concurrency, client->core->now);
    ep->trickle.kind = MPP_T_TRICKLE;
    ep->health.timer.kind = MPP_T_HEALTH;
    ep->health.healthy = 1;
    ep->rate = rate_for(client, cfg->rate_key != NULL ? cfg->rate_key : p->rate.key);
    if (ep->rate != NULL && cfg->shared != NULL)
        ep->rate->shared = cfg->shared;
    return ep->rate != NULL ? 0 : -1;
}

static void endpoint_fini(struct mpp_endpoint *ep)
{
    struct mp__heap *heap = &ep->client->core->heap;

    mp__heap_clear(heap, &ep->trickle);
    mp__heap_clear(heap, &ep->health.timer);
    mp__list_remove(&ep->health.note.link);
    rate_unref(ep->rate);
    mp__hists_fini(&ep->hists);
}

struct mpp_endpoint *mpp_endpoint_of(const struct mpp_client *client, uint32_t index)
{
    return index < client->n ? &client->endpoints[index] : NULL;
}

void mpp_endpoint_pause(struct mpp_endpoint *ep, mp__time until)
{
    if (until <= ep->not_before)
        return;
    ep->not_before = until;
    if (ep->cfg.shared != NULL)
        mp__gcra_raise(&ep->cfg.shared->not_before, until);
}

/* ---- clients --------------------------------------------------------------------------------- */

static void client_free(struct mpp_client *client, uint32_t made)
{
    struct mpp_core *core = client->core;

    while (made > 0)
        endpoint_fini(&client->endpoints[--made]);
    mp__heap_clear(&core->heap, &client->wake);
    mp__list_remove(&client->link);
    mpp_lanes_free(client);
    mpp_pool_unref(client->pool);
    free(client->endpoints);
    free(client);
}

static void lists_init(struct mpp_client *client)
{
    mp__list_init(&client->ring);
    mp__list_init(&client->calls);
    mp__list_init(&client->hedges);
    mp__list_init(&client->strays);
    mp__list_init(&client->lanes);
    client->wake.kind = MPP_T_CLIENT;
}

struct mpp_client *mpp_client_new(struct mpp_core *core, const struct mpp_client_cfg *cfg)
{
    struct mpp_client *client;
    uint32_t i;

    if (cfg->nendpoints == 0 || cfg->nendpoints > MPP_MAX_ENDPOINTS)
        return NULL;
    client = calloc(1, sizeof(*client));
    if (client == NULL)
        return NULL;
    client->endpoints = calloc(cfg->nendpoints, sizeof(*client->endpoints));
    if (client->endpoints == NULL) {
        free(client);
        return NULL;
    }
    client->core = core;
    client->pool = cfg->pool;
    client->pool->refs++;
    client->policy = *cfg->policy;
    client->hooks = cfg->hooks;
    client->user = cfg->user;
    client->n = cfg->nendpoints;
    lists_init(client);
    for (i = 0; i < cfg->nendpoints; i++) {
        if (endpoint_init(client, i, &cfg->endpoints[i]) < 0) {
            rate_unref(client->endpoints[i].rate);
            client_free(client, i);
            return NULL;
        }
    }
    for (i = 0; i < client->n; i++)
        mpp_health_start(&client->endpoints[i], core->now);
    return client;
}

void mpp_client_close(struct mpp_client *client, mp__time now)
{
    struct mpp_core *core = client->core;
    struct mp__link *link, *next;
    uint32_t i;

    if (now > core->now)
        core->now = now;
    client->closing = 1;
    for (link = client->calls.next; link != &client->calls; link = next) {
        next = link->next;
        mpp_call_end(MP__ENTRY(link, struct mpp_call, siblings), MP_KIND_CLOSED);
    }
    for (link = client->strays.next; link != &client->strays; link = next) {
        next = link->next;
        mpp_attempt_abort(MP__ENTRY(link, struct mpp_attempt, stray));
    }
    for (i = 0; i < client->n; i++) {
        mp__heap_clear(&core->heap, &client->endpoints[i].health.timer);
        mp__list_remove(&client->endpoints[i].health.note.link);
    }
    mpp_client_maybe_free(client);
}

void mpp_client_maybe_free(struct mpp_client *client)
{
    if (client->closing && client->ncalls == 0 && client->nattempts == 0)
        client_free(client, client->n);
}

void mpp_client_touch(struct mpp_client *client)
{
    if (mp__linked(&client->link))
        return;
    if (mp__list_empty(&client->ring) && mp__list_empty(&client->hedges))
        return;
    mp__list_push(&client->core->ring, &client->link);
}

void mpp_client_wake(struct mpp_client *client, mp__time at)
{
    if (at == MP__NEVER)
        mp__heap_clear(&client->core->heap, &client->wake);
    else
        mp__heap_set(&client->core->heap, &client->wake, at);
}

void *mpp_client_user(const struct mpp_client *client)
{
    return client->user;
}

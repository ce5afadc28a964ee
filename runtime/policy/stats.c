/* stats.c - numbers for people. */
#include "policy/state.h"

static double level(const struct mpp_bucket *b, mp__time now)
{
    double l = b->level;

    if (b->rate <= 0)
        return -1;
    if (now > b->at)
        l += b->rate * mp__seconds(now - b->at);
    if (l > b->burst)
        l = b->burst;
    return l > 0 ? l : 0;
}

void mpp_endpoint_stats(const struct mpp_client *client, uint32_t endpoint, mp__time now,
                        struct mpp_endpoint_stats *out)
{
    struct mpp_endpoint *ep = mpp_endpoint_of(client, endpoint);
    uint32_t limit;

    if (ep == NULL) {
        *out = (struct mpp_endpoint_stats){.rpm_level = -1, .tpm_level = -1};
        return;
    }
    *out = ep->stats;
    limit = mpp_concurrency_limit(&ep->concurrency);
    out->budget_level = mpp_budget_level(&ep->budget);
    out->hedge_level = mpp_budget_level(&ep->hedge);
    out->rpm_level = level(&ep->rate->requests, now);
    out->tpm_level = level(&ep->rate->tokens, now);
    out->in_flight = ep->running;
    out->limit = limit == UINT32_MAX ? 0 : limit;
    out->p50 = mp__hists_seen(&ep->hists, 0.50, now);
    out->p90 = mp__hists_seen(&ep->hists, 0.90, now);
    out->p95 = mp__hists_seen(&ep->hists, 0.95, now);
    out->p99 = mp__hists_seen(&ep->hists, 0.99, now);
    out->paused_for = ep->not_before > now ? mp__seconds(ep->not_before - now) : 0;
    out->breaker = ep->breaker.state;
    out->healthy = ep->health.healthy;
    out->tokens_per_byte = ep->tokens_per_byte;
}

static struct mp__hists *hists_at(void *client, uint32_t i)
{
    struct mpp_endpoint *ep = mpp_endpoint_of(client, i);

    return ep != NULL ? &ep->hists : NULL;
}

double mpp_client_latency(const struct mpp_client *client, double q, mp__time now)
{
    return mp__hists_seen_all(hists_at, (void *)client, q, now);
}

uint32_t mpp_client_waiting(const struct mpp_client *client)
{
    return client->nwaiting;
}

uint32_t mpp_client_endpoints(const struct mpp_client *client)
{
    return client->n;
}

void mpp_endpoint_load(const struct mpp_client *client, uint32_t endpoint, struct mpp_load *out)
{
    const struct mpp_endpoint *ep = mpp_endpoint_of(client, endpoint);
    uint32_t limit;

    *out = (struct mpp_load){0};
    if (ep == NULL)
        return;
    limit = mpp_concurrency_limit(&ep->concurrency);
    out->in_flight = ep->used;
    out->limit = limit == UINT32_MAX ? 0 : limit;
    out->latency = ep->latency;
    out->sound = mpp_endpoint_sound(ep);
}

double mpp_client_tokens_per_byte(const struct mpp_client *client)
{
    double sum = 0;
    uint32_t i;

    for (i = 0; i < client->n; i++)
        sum += client->endpoints[i].tokens_per_byte;
    return sum / client->n;
}

void mpp_core_stats(const struct mpp_core *core, struct mpp_core_stats *out)
{
    *out = core->stats;
}

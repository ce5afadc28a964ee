/* health.c - active checks: asked for by the clock, answered by mpp_probe_done. */
#include "policy/state.h"

#define AGAIN 0.2 /* s between the tries of one check */

static void arm(struct mpp_endpoint *ep, double seconds)
{
    struct mpp_core *core = ep->client->core;

    mp__heap_set(&core->heap, &ep->health.timer, mp__after(core->now, seconds));
}

static double base_interval(const struct mpp_endpoint *ep)
{
    double s = ep->cfg.health_interval > 0 ? ep->cfg.health_interval : 10;

    return s < 0.1 ? 0.1 : s;
}

void mpp_health_start(struct mpp_endpoint *ep, mp__time now)
{
    (void)now;
    ep->health.interval = base_interval(ep);
    if (ep->cfg.health_check)
        arm(ep, 0);
}

void mpp_health_due(struct mpp_endpoint *ep)
{
    if (ep->health.asked || ep->client->closing)
        return;
    ep->health.asked = 1;
    ep->health.sent = ep->client->core->now;
    mpp_tell(ep->client->core, &ep->health.note, MPP_TELL_PROBE);
}

/* While checks take more than half of the interval it stretches, up to tenfold. */
static void stretch(struct mpp_endpoint *ep)
{
    struct mpp_health *h = &ep->health;
    double base = base_interval(ep);
    double took = mp__seconds(ep->client->core->now - h->sent);

    h->interval = took > h->interval / 2 ? h->interval * 1.5 : base;
    if (h->interval > 10 * base)
        h->interval = 10 * base;
}

void mpp_probe_done(struct mpp_client *client, uint32_t endpoint, int healthy, mp__time now)
{
    struct mpp_endpoint *ep = mpp_endpoint_of(client, endpoint);
    struct mpp_health *h;

    if (now > client->core->now)
        client->core->now = now;
    if (ep == NULL || !ep->health.asked || client->closing)
        return;
    h = &ep->health;
    h->asked = 0;
    if (healthy == 0 && h->failures < ep->cfg.health_retries) {
        h->failures++;
        arm(ep, AGAIN);
        return;
    }
    h->failures = 0;
    stretch(ep);
    arm(ep, h->interval);
    if (healthy < 0)
        return;
    h->healthy = healthy > 0;
    mpp_client_touch(client);
}

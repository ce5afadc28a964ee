/*
 * park.c - parts whose retry found an empty budget wait here, first in, first out.
 *
 * They are let go
 *  1. for a token each, as first attempts at the endpoint earn some;
 *  2. without a token, four for each acceptable reply: an endpoint that answers one request in
 *     four keeps its backlog moving, one in two wins it back in a few round trips, and an endpoint
 *     that answers nothing releases nothing. A job's concurrency bounds its load, so here the
 *     budget has to stop outages only, not a server that fails often;
 *  3. without a token, one at a time by the clock, but only while first attempts earn less than
 *     half a token in that time: after 1, 2, 4, 8, 10, 10 ... s (never above the policy's cap).
 *     So nothing waits for ever. These are paid from what the budget keeps for them, then on
 *     credit: a total outage sees at most budget * requests + reserve retries, and only one that
 *     goes on when nothing new is sent sees one more in ten seconds.
 * Those let go without a token are counted in stats.released.
 *
 * An address where no endpoint of the client has ever been reached, not in 10 s of trying, is not
 * down but wrong: its parked parts end with their own error instead of waiting for an end of the
 * outage. This is the one case in which an empty budget ends a job's part.
 */
#include "policy/state.h"

#define RELEASES 4 /* parts a good reply lets go */

static double first_wait(const struct mpp_endpoint *ep)
{
    const struct mp_retry_policy *policy = &ep->client->policy.retry;
    double wait = policy->throttle_base > 0.05 ? policy->throttle_base : 0.05;

    return policy->cap > 0.05 && wait > policy->cap ? policy->cap : wait;
}

#define PATIENCE (10 * MP__SECOND)

int mpp_park_hopeless(struct mpp_endpoint *ep)
{
    const struct mpp_client *client = ep->client;
    mp__time first = MP__NEVER;
    uint32_t i;

    for (i = 0; i < client->n; i++) {
        const struct mpp_endpoint *other = &client->endpoints[i];

        if (other->reached)
            return 0;
        if (other->knocked > 0 && other->knocked < first)
            first = other->knocked;
    }
    return first != MP__NEVER && client->core->now - first >= PATIENCE;
}

static void arm(struct mpp_endpoint *ep)
{
    struct mpp_core *core = ep->client->core;

    ep->first_at_trickle = ep->first;
    mp__heap_set(&core->heap, &ep->trickle, mp__after(core->now, ep->trickle_wait));
}

void mpp_park(struct mpp_part *part, struct mpp_endpoint *ep, mp__time resume_at)
{
    part->state = MPP_PARKED;
    part->endpoint = ep;
    part->resume_at = resume_at;
    mp__list_push(&ep->parked, &part->queue);
    ep->stats.parked++;
    if (ep->nparked++ == 0) {
        ep->trickle_wait = first_wait(ep);
        arm(ep);
    }
}

void mpp_unpark(struct mpp_part *part)
{
    struct mpp_endpoint *ep = part->endpoint;

    mp__list_remove(&part->queue);
    if (--ep->nparked == 0)
        mp__heap_clear(&ep->client->core->heap, &ep->trickle);
}

static void release(struct mpp_endpoint *ep)
{
    struct mpp_part *part = MP__ENTRY(ep->parked.next, struct mpp_part, queue);

    mpp_unpark(part);
    mpp_part_backoff(part, part->resume_at);
}

void mpp_park_earned(struct mpp_endpoint *ep)
{
    while (ep->nparked > 0 && mpp_budget_take(&ep->budget))
        release(ep);
}

void mpp_park_success(struct mpp_endpoint *ep)
{
    int n;

    for (n = 0; n < RELEASES && ep->nparked > 0; n++) {
        ep->stats.released++;
        release(ep);
    }
}

void mpp_park_trickle(struct mpp_endpoint *ep)
{
    double most = ep->client->policy.retry.cap;
    double earned = (double)(ep->first - ep->first_at_trickle) * (double)ep->budget.earn / 1e6;

    if (most > 10 || !(most > 0.05))
        most = 10;
    while (ep->nparked > 0 && mpp_park_hopeless(ep)) {
        struct mpp_part *part = MP__ENTRY(ep->parked.next, struct mpp_part, queue);

        mpp_part_end(part, (enum mp_kind)part->last_kind);
    }
    if (ep->nparked == 0)
        return;
    if (earned < 0.5) {
        if (!mpp_budget_borrow(&ep->budget))
            ep->stats.released++;
        ep->trickle_wait = ep->trickle_wait * 2 < most ? ep->trickle_wait * 2 : most;
        release(ep);
    }
    if (ep->nparked > 0)
        arm(ep);
}

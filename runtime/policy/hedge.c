/*
 * hedge.c - a second copy of a request that is slow to answer (Dean and Barroso, "The Tail at
 * Scale", CACM 2013).
 *
 * Delay: fixed, or factor * percentile of the endpoint's live latency for that size class. Gates:
 * call and endpoint idempotent, the part's first attempt, no byte of an answer yet, nothing
 * throttled for 10 s, breaker closed, a free slot, at least 20 % left in the rate buckets, one
 * hedge token. The budget earns `budget` tokens per first attempt and never goes below zero. A
 * hedge that only lacks a slot waits for the next one, ahead of new work; one that fails another
 * gate is looked at again after the same delay.
 */
#include "policy/state.h"

#define QUIET   (10 * MP__SECOND)
#define LEAST   0.001
#define UNKNOWN 0.25 /* s until the next look while there are too few samples */

static const struct mp_hedge_policy *policy_of(const struct mpp_part *part)
{
    return &part->call->policy->hedge;
}

/* s, or < 0: not known yet. */
static double delay_of(struct mpp_part *part)
{
    const struct mp_hedge_policy *policy = policy_of(part);
    struct mpp_endpoint *ep = part->endpoint;
    double p;

    if (policy->delay > 0)
        return policy->delay;
    p = mp__hists_percentile(&ep->hists, part->facts.info.size_class, policy->percentile,
                             ep->client->core->now);
    if (p < 0)
        return -1;
    return policy->factor * p > LEAST ? policy->factor * p : LEAST;
}

static int wanted(const struct mpp_part *part)
{
    const struct mp_hedge_policy *policy = policy_of(part);

    return (policy->delay > 0 || policy->factor > 0) && policy->budget > 0 &&
           part->call->idempotent && part->endpoint->cfg.idempotent && part->facts.attempts == 1 &&
           part->facts.hedges == 0;
}

void mpp_hedge_arm(struct mpp_part *part)
{
    const struct mpp_hooks *hooks = part->call->hooks;
    struct mpp_core *core = part->call->client->core;
    struct mpp_view view;
    double delay;
    enum mpp_verdict verdict = MPP_DEFAULT;

    part->hedge_wait = 0;
    if (!wanted(part))
        return;
    delay = delay_of(part);
    if (hooks != NULL && hooks->hedge != NULL) {
        mpp_view_fill(&view, part, part->endpoint);
        view.elapsed = 0;
        view.delay = delay;
        part->endpoint->stats.hook_calls++;
        verdict = hooks->hedge(hooks->arg, &view, &delay);
    }
    if (verdict == MPP_NO)
        return;
    if (verdict == MPP_YES && delay > 0)
        part->hedge_wait = delay > LEAST ? delay : LEAST;
    mp__heap_set(&core->heap, &part->timer, mp__after(core->now, delay > 0 ? delay : UNKNOWN));
}

static mp__time started(const struct mpp_part *part)
{
    return part->run[0]->started;
}

/* The delay may have become known, or longer, while the alarm was running. */
void mpp_hedge_due(struct mpp_part *part)
{
    struct mpp_client *client = part->call->client;
    struct mpp_core *core = client->core;
    double delay = part->hedge_wait > 0 ? part->hedge_wait : delay_of(part);
    mp__time at;

    if (part->run[0] == NULL || part->run[1] != NULL || part->run[0]->first_byte)
        return;
    at = delay < 0 ? core->now + mp__ns(UNKNOWN) : mp__after(started(part), delay);
    if (at > core->now) {
        mp__heap_set(&core->heap, &part->timer, at);
        return;
    }
    if (!mp__linked(&part->hedging))
        mp__list_push(&client->hedges, &part->hedging);
    mpp_client_touch(client);
}

void mpp_hedge_forget(struct mpp_part *part)
{
    mp__list_remove(&part->hedging);
    if (part->state == MPP_RUNNING)
        mp__heap_clear(&part->call->client->core->heap, &part->timer);
}

static int gates(const struct mpp_part *part)
{
    struct mpp_endpoint *ep = part->endpoint;
    mp__time now = ep->client->core->now;

    return (!ep->throttled_once || now - ep->throttled_at >= QUIET) &&
           ep->breaker.state == MPP_BREAKER_CLOSED && ep->hedge.level >= 1000000 &&
           mpp_rate_room(ep->rate, now) >= 0.2;
}

static void look_again(struct mpp_part *part)
{
    struct mpp_core *core = part->call->client->core;
    double delay = part->hedge_wait > 0 ? part->hedge_wait : delay_of(part);

    mp__heap_set(&core->heap, &part->timer, mp__after(core->now, delay > 0 ? delay : UNKNOWN));
}

static struct mpp_endpoint *place_for(struct mpp_part *part)
{
    struct mpp_endpoint *ep = NULL;
    mp__time wake = MP__NEVER;

    if (part->call->client->n > 1)
        ep = mpp_route(part, 1, &wake);
    if (ep == NULL && mpp_endpoint_open(part->endpoint, part, part->facts.info.tokens, &wake))
        ep = part->endpoint;
    return ep;
}

int mpp_hedge_next(struct mpp_client *client, struct mpp_action *out)
{
    struct mp__link *link, *next;
    struct mpp_attempt *a;

    for (link = client->hedges.next; link != &client->hedges; link = next) {
        struct mpp_part *part = MP__ENTRY(link, struct mpp_part, hedging);
        struct mpp_endpoint *ep;

        next = link->next;
        if (part->run[0]->first_byte) {
            mp__list_remove(link);
            continue;
        }
        if (!gates(part) || client->pool->running >= client->pool->max_running) {
            mp__list_remove(link);
            look_again(part);
            continue;
        }
        ep = place_for(part);
        if (ep == NULL)
            return 0; /* for a slot it waits, and the others behind it */
        mp__list_remove(link);
        mpp_budget_take(&part->endpoint->hedge);
        ep->used++;
        mpp_rate_reserve(ep->rate, part, part->facts.info.tokens, client->core->now);
        a = mpp_attempt_start(part, ep, 1);
        if (a == NULL) {
            ep->used--;
            mpp_rate_return(ep->rate, part->facts.info.tokens, client->core->now);
            continue;
        }
        mpp_fill_start(out, a);
        return 1;
    }
    return 0;
}

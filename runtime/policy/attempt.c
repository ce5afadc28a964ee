/* attempt.c - one transmission: started, watched, answered or aborted. */
#include "policy/state.h"

#include <string.h>

uint64_t mpp_attempt_id(const struct mpp_attempt *a)
{
    return (uint64_t)a->gen << 32 | (a->index + 1);
}

static struct mpp_attempt *find(struct mpp_core *core, uint64_t id)
{
    struct mpp_attempt *a;

    if ((uint32_t)id == 0)
        return NULL;
    a = mp__slab_at(&core->attempts, (uint32_t)id - 1);
    if (a == NULL || a->gen != id >> 32 || a->state == MPP_A_FREE)
        return NULL;
    return a;
}

static struct mpp_attempt *attempt_new(struct mpp_core *core)
{
    struct mpp_attempt *a = mp__slab_get(&core->attempts);

    if (a == NULL)
        return NULL;
    if (a->gen == 0) {
        a->gen = 1;
        a->index = mp__slab_index(&core->attempts, a);
    }
    a->stray = (struct mp__link){NULL, NULL};
    a->note = (struct mpp_note){.what = 0};
    a->state = MPP_A_RUNNING;
    a->is_hedge = a->first_byte = a->is_probe = 0;
    return a;
}

static void count_start(struct mpp_part *part, struct mpp_endpoint *ep, int is_hedge)
{
    struct mpp_core *core = ep->client->core;

    ep->stats.attempts++;
    core->stats.attempts++;
    core->stats.running++;
    ep->running++;
    ep->client->pool->running++;
    ep->client->nattempts++;
    if (is_hedge) {
        part->facts.hedges++;
        ep->stats.hedges++;
        core->stats.hedges++;
    } else if (++part->facts.attempts > 1 || part->unearned) {
        ep->stats.retries += part->facts.attempts > 1;
        core->stats.retries += part->facts.attempts > 1;
    } else {
        ep->first++;
        mpp_budget_earn(&ep->budget);
        mpp_budget_earn(&ep->hedge);
        mpp_park_earned(ep);
    }
}

/* From WAITING, or a hedge from RUNNING whose slot the caller has taken. NULL: no memory. */
struct mpp_attempt *mpp_attempt_start(struct mpp_part *part, struct mpp_endpoint *ep, int is_hedge)
{
    struct mpp_core *core = ep->client->core;
    struct mpp_attempt *a = attempt_new(core);

    if (a == NULL)
        return NULL;
    a->part = part;
    a->endpoint = ep;
    a->started = core->now;
    a->tokens = part->facts.info.tokens;
    a->bytes = part->facts.info.bytes;
    a->size_class = part->facts.info.size_class;
    a->is_hedge = (uint8_t)is_hedge;
    part->run[part->run[0] != NULL ? 1 : 0] = a;
    part->facts.last_endpoint = ep->index;
    if (ep->index < 64)
        part->tried |= UINT64_C(1) << ep->index;
    if (!is_hedge) {
        mp__list_remove(&part->queue);
        ep->client->pool->nwaiters--;
        ep->client->nwaiting--;
        core->stats.pool_waiting--;
        mp__heap_clear(&core->heap, &part->timer);
        part->state = MPP_RUNNING;
        a->is_probe = part->is_probe;
        part->is_probe = 0;
    }
    count_start(part, ep, is_hedge);
    mpp_concurrency_started(&ep->concurrency, ep->used);
    if (!is_hedge)
        mpp_hedge_arm(part);
    return a;
}

void mpp_attempt_gone(struct mpp_attempt *a)
{
    struct mpp_endpoint *ep = a->endpoint;
    struct mpp_client *client = ep->client;
    struct mpp_core *core = client->core;

    mp__list_remove(&a->stray);
    mp__list_remove(&a->note.link);
    a->state = MPP_A_FREE;
    a->gen = a->gen == UINT32_MAX ? 1 : a->gen + 1;
    mp__slab_put(&core->attempts, a);
    ep->used--;
    ep->running--;
    client->pool->running--;
    client->nattempts--;
    core->stats.running--;
    mpp_pool_freed(client->pool);
    mpp_client_touch(client);
}

static void detach(struct mpp_attempt *a)
{
    struct mpp_part *part = a->part;

    if (part == NULL)
        return;
    if (part->run[0] == a)
        part->run[0] = part->run[1];
    part->run[1] = NULL;
}

void mpp_attempt_abort(struct mpp_attempt *a)
{
    if (a->state != MPP_A_RUNNING)
        return;
    mpp_observe_aborted(a);
    detach(a);
    mp__list_remove(&a->stray);
    a->state = MPP_A_ABORTING;
    mpp_tell(a->endpoint->client->core, &a->note, MPP_TELL_ABORT);
}

/* The slower copy: aborting closes an HTTP/1.1 connection, so one that will soon be through anyway
 * is left to finish (Finagle's sendInterrupts = false reason). */
static void dismiss(struct mpp_attempt *loser, mp__time hedged_at)
{
    struct mpp_endpoint *ep = loser->endpoint;
    struct mpp_core *core = ep->client->core;
    double p50;

    ep->stats.hedges_wasted++;
    if (core->drain_losers) {
        p50 = mp__hists_percentile(&ep->hists, loser->size_class, 0.5, core->now);
        if (p50 > 0 && core->now - hedged_at <= mp__ns(p50)) {
            detach(loser);
            loser->part = NULL;
            mp__list_push(&ep->client->strays, &loser->stray);
            return;
        }
    }
    mpp_attempt_abort(loser);
}

static void won(struct mpp_part *part, uint64_t id, int is_hedge, mp__time hedged_at)
{
    struct mpp_attempt *other = part->run[0];

    part->winner = id;
    mpp_split_taken(part);
    if (is_hedge)
        part->endpoint->stats.hedges_won++;
    if (other != NULL)
        dismiss(other, other->is_hedge ? other->started : hedged_at);
    mpp_part_end(part, MP_KIND_NONE);
}

void mpp_attempt_done(struct mpp_core *core, uint64_t id, const struct mpp_outcome *outcome,
                      mp__time now)
{
    struct mpp_attempt *a = find(core, id);
    struct mpp_judgement judgement;
    struct mpp_endpoint *ep;
    struct mpp_part *part;
    mp__time started;
    int is_hedge;

    if (now > core->now)
        core->now = now;
    if (a == NULL)
        return;
    if (a->state == MPP_A_ABORTING) { /* it ended before its abort was told */
        mpp_attempt_gone(a);
        return;
    }
    ep = a->endpoint;
    part = a->part;
    started = a->started;
    is_hedge = a->is_hedge;
    mpp_judge(part != NULL ? &part->call->policy->retry : &ep->client->policy.retry, outcome,
              part != NULL ? part->decode_faults : 0, &judgement);
    if (part != NULL)
        mpp_classify_hook(part, ep, outcome, &judgement);
    mpp_observe(a, outcome, &judgement);
    detach(a);
    mpp_attempt_gone(a);
    if (part == NULL)
        return;
    part->retryable = judgement.retry;
    mpp_hedge_forget(part);
    if (judgement.cls == MPP_OK)
        won(part, id, is_hedge, started);
    else if (part->run[0] != NULL)
        part->last_kind = (uint8_t)outcome->kind; /* the other copy may still be acceptable */
    else
        mpp_decide(part, ep, outcome, &judgement);
}

void mpp_attempt_connected(struct mpp_core *core, uint64_t id, mp__time now)
{
    struct mpp_attempt *a = find(core, id);

    if (now > core->now)
        core->now = now;
    if (a != NULL)
        a->endpoint->reached = 1;
}

void mpp_attempt_first_byte(struct mpp_core *core, uint64_t id, mp__time now)
{
    struct mpp_attempt *a = find(core, id);

    mpp_attempt_connected(core, id, now);
    if (a != NULL)
        a->first_byte = 1;
}

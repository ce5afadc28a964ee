/* part.c - a part's moves between its states, and the slots that go with them. */
#include "policy/state.h"

#include <string.h>

struct mpp_part *mpp_part_new(struct mpp_call *call)
{
    struct mpp_core *core = call->client->core;
    struct mpp_part *part = mp__slab_get(&core->parts);

    if (part == NULL)
        return NULL;
    memset(part, 0, sizeof(*part));
    part->call = call;
    part->facts.info.count = 1;
    part->facts.created = core->now;
    part->timer.kind = MPP_T_PART;
    part->ready_since = core->now;
    mp__list_push(&call->parts, &part->siblings);
    call->live++;
    core->stats.parts_open++;
    return part;
}

void mpp_part_free(struct mpp_part *part)
{
    struct mpp_core *core = part->call->client->core;

    core->stats.parts_open--;
    mp__slab_put(&core->parts, part);
}

void mpp_part_unhold(struct mpp_part *part)
{
    struct mpp_client *client = part->call->client;
    uint32_t i;

    if (!part->holding)
        return;
    part->holding = 0;
    for (i = 0; i < client->n; i++)
        if (client->endpoints[i].rate->holder == part)
            client->endpoints[i].rate->holder = NULL;
    mpp_client_touch(client);
}

void mpp_part_ready(struct mpp_part *part, int first)
{
    part->state = MPP_READY;
    part->ready_since = part->call->client->core->now;
    if (first)
        mp__list_unshift(&part->call->ready, &part->queue);
    else
        mp__list_push(&part->call->ready, &part->queue);
    mpp_call_touch(part->call);
}

void mpp_part_admit(struct mpp_part *part, struct mpp_endpoint *ep)
{
    struct mpp_call *call = part->call;
    struct mpp_core *core = call->client->core;
    struct mpp_pool *pool = call->client->pool;

    mp__list_remove(&part->queue);
    call->admitted++;
    call->client->admitted++;
    ep->used++;
    part->endpoint = ep;
    part->state = MPP_WAITING;
    mpp_lane_enter(part);
    mpp_rate_reserve(ep->rate, part, part->facts.info.tokens, core->now);
    mpp_part_unhold(part);
    if (ep->breaker.state == MPP_BREAKER_HALF)
        part->is_probe = ep->breaker.probing = 1;
    if (part->facts.admitted == 0)
        part->facts.admitted = core->now;
    mp__list_push(&pool->waiters, &part->queue);
    pool->nwaiters++;
    call->client->nwaiting++;
    core->stats.pool_waiting++;
    mpp_pool_freed(pool);
    if (!mp__linked(&pool->link) && call->pool_timeout > 0)
        mp__heap_set(&core->heap, &part->timer, core->now + call->pool_timeout);
}

/* Off the pool's queue, whatever comes next. */
static void stop_waiting(struct mpp_part *part)
{
    struct mpp_client *client = part->call->client;

    mp__list_remove(&part->queue);
    client->pool->nwaiters--;
    client->nwaiting--;
    client->core->stats.pool_waiting--;
    mp__heap_clear(&client->core->heap, &part->timer);
}

/* Gives back what admission took, when nothing was sent. */
static void undo_admission(struct mpp_part *part)
{
    struct mpp_endpoint *ep = part->endpoint;

    stop_waiting(part);
    ep->used--;
    mpp_rate_return(ep->rate, part->facts.info.tokens, part->call->client->core->now);
    if (part->is_probe)
        part->is_probe = ep->breaker.probing = 0;
    mpp_part_leave(part);
}

void mpp_part_unadmit(struct mpp_part *part)
{
    undo_admission(part);
    mpp_part_ready(part, 1);
}

/* Its endpoint may have been paused or ejected while the part waited for a connection. */
int mpp_part_may_start(const struct mpp_part *part)
{
    const struct mpp_endpoint *ep = part->endpoint;

    return ep->not_before <= part->call->client->core->now && !mpp_lane_over(part) &&
           (ep->breaker.state == MPP_BREAKER_CLOSED || part->is_probe);
}

void mpp_part_leave(struct mpp_part *part)
{
    struct mpp_call *call = part->call;

    call->admitted--;
    call->client->admitted--;
    mpp_lane_leave(part);
    mpp_call_touch(call);
    mpp_client_touch(call->client);
}

void mpp_part_backoff(struct mpp_part *part, mp__time until)
{
    struct mpp_core *core = part->call->client->core;

    if (until <= core->now) {
        mpp_part_ready(part, 0);
        return;
    }
    part->state = MPP_BACKOFF;
    mp__heap_set(&core->heap, &part->timer, until);
}

void mpp_part_end(struct mpp_part *part, enum mp_kind kind)
{
    struct mpp_call *call = part->call;
    struct mpp_core *core = call->client->core;

    switch (part->state) {
    case MPP_WAITING:
        undo_admission(part);
        break;
    case MPP_RUNNING:
        while (part->run[0] != NULL) /* which makes the other one the first */
            mpp_attempt_abort(part->run[0]);
        mpp_hedge_forget(part);
        mpp_part_leave(part);
        break;
    case MPP_PARKED:
        mpp_unpark(part);
        break;
    default:
        mp__list_remove(&part->queue);
    }
    mpp_part_unhold(part);
    mp__heap_clear(&core->heap, &part->timer);
    mp__list_remove(&part->siblings);
    part->state = MPP_ENDED;
    part->kind = (uint8_t)kind;
    mpp_tell(core, &part->note, MPP_TELL_PART);
    mpp_split_forget(part);
    mpp_call_after_part(call);
}

void mpp_part_timer(struct mpp_part *part)
{
    switch (part->state) {
    case MPP_BACKOFF:
        mpp_part_ready(part, 0);
        break;
    case MPP_WAITING:
        /* Behind a pause it waits for the server, not for a connection. */
        if (mpp_part_may_start(part))
            mpp_part_end(part, MP_KIND_POOL_TIMEOUT);
        else
            mpp_part_unadmit(part);
        break;
    case MPP_RUNNING:
        mpp_hedge_due(part);
        break;
    default:
        break;
    }
}

const struct mpp_part_facts *mpp_part_facts(const struct mpp_part *part)
{
    return &part->facts;
}

void mpp_part_set_user(struct mpp_part *part, void *user)
{
    part->facts.info.user = user;
}

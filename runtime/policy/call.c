/* call.c - a call's life: it yields parts while it may, and ends once. */
#include "policy/batch.h"
#include "policy/state.h"

#include <string.h>

struct mpp_call *mpp_call_new(const struct mpp_call_cfg *cfg, mp__time now)
{
    struct mpp_client *client = cfg->client;
    struct mpp_core *core = client->core;
    struct mpp_call *call;

    if (now > core->now)
        core->now = now;
    if (client->closing || core->stats.calls_open >= core->max_calls)
        return NULL;
    call = mp__slab_get(&core->calls);
    if (call == NULL)
        return NULL;
    memset(call, 0, sizeof(*call));
    call->lane = mpp_lane_take(client, cfg->size_key);
    if (call->lane == NULL) {
        mp__slab_put(&core->calls, call);
        return NULL;
    }
    call->client = client;
    call->policy = cfg->policy != NULL ? cfg->policy : &client->policy;
    call->hooks = cfg->hooks != NULL ? cfg->hooks : client->hooks;
    call->user = cfg->user;
    call->max_concurrent = cfg->max_concurrent ? cfg->max_concurrent : MPP_CALL_PARTS;
    call->pool_timeout = mp__ns(cfg->pool_timeout);
    call->idempotent = cfg->idempotent;
    call->rows_alike = cfg->rows_alike;
    call->pinned = cfg->pinned_endpoint < (int32_t)client->n ? cfg->pinned_endpoint : -1;
    call->stuck_to = -1;
    call->more = 1;
    call->deadline_at = cfg->deadline;
    call->deadline.kind = MPP_T_CALL;
    mp__list_init(&call->ready);
    mp__list_init(&call->parts);
    mp__list_push(&client->calls, &call->siblings);
    client->ncalls++;
    core->stats.calls++;
    core->stats.calls_open++;
    if (cfg->deadline != MP__NEVER)
        mp__heap_set(&core->heap, &call->deadline, cfg->deadline);
    mpp_call_touch(call);
    return call;
}

void mpp_call_free(struct mpp_call *call)
{
    struct mpp_client *client = call->client;
    struct mpp_core *core = client->core;

    mp__heap_clear(&core->heap, &call->deadline);
    mp__list_remove(&call->siblings);
    mpp_lane_give(call->lane);
    mp__slab_put(&core->calls, call);
    core->stats.calls_open--;
    client->ncalls--;
    mpp_client_maybe_free(client);
}

/* While a piece of it is probed a call sends nothing new. Parts in backoff and parked ones hold no
 * slot; twice the concurrency bounds how many of them pile up before the source is asked to wait. */
int mpp_call_may_ask(const struct mpp_call *call)
{
    return call->more && !call->dry && call->spare == NULL && call->lane->seeker != call &&
           call->live / 2 < call->max_concurrent;
}

int mpp_call_has_work(const struct mpp_call *call)
{
    if (call->ended || call->admitted >= call->max_concurrent)
        return 0;
    return !mp__list_empty(&call->ready) || mpp_call_may_ask(call);
}

void mpp_call_touch(struct mpp_call *call)
{
    struct mpp_client *client = call->client;

    if (!mpp_call_has_work(call)) {
        mp__list_remove(&call->link);
        return;
    }
    if (!mp__linked(&call->link)) {
        /* Behind an open breaker only those who will not wait are worth a look. */
        if (call->policy->retry.fail_fast && mpp_all_broken(client))
            mp__list_unshift(&client->ring, &call->link);
        else
            mp__list_push(&client->ring, &call->link);
    }
    mpp_client_touch(client);
}

static void done(struct mpp_call *call, enum mp_kind kind)
{
    struct mpp_core *core = call->client->core;

    if (call->told)
        return;
    call->told = 1;
    call->ended = 1;
    call->kind = (uint8_t)kind;
    mp__list_remove(&call->link);
    mp__list_remove(&call->note.link);
    mp__heap_clear(&core->heap, &call->deadline);
    mpp_tell(core, &call->note, MPP_TELL_CALL);
}

/* The part's memory is had before it is asked for: rows once taken cannot be put back. */
int mpp_call_ask(struct mpp_call *call, struct mpp_action *out)
{
    struct mpp_part *part = mpp_part_new(call);

    if (part == NULL)
        return 0;
    call->spare = part;
    out->type = MPP_WANT_PART;
    out->call = call;
    out->client = call->client;
    mpp_lane_want(call, out);
    return 1;
}

int mpp_part_give(struct mpp_call *call, const struct mpp_part_info *info)
{
    struct mpp_part *part = call->spare;
    struct mpp_part_info *to;

    if (part == NULL)
        return 0;
    call->spare = NULL;
    part->facts.info = *info;
    to = &part->facts.info;
    if (to->count == 0)
        to->count = 1;
    if (to->size_class == 0)
        to->size_class = mpp_size_class(to->tokens);
    if (to->last)
        call->more = 0;
    part->unearned = to->again;
    part->trial = call->trial;
    call->trial = 0;
    call->client->core->stats.parts++;
    mpp_part_ready(part, 0);
    if (call->in_turn && mp__linked(&call->link)) { /* the slot that it was asked for is its own */
        mp__list_remove(&call->link);
        mp__list_unshift(&call->client->ring, &call->link);
    }
    call->in_turn = 0;
    return 1;
}

static void drop_spare(struct mpp_call *call)
{
    struct mpp_part *part = call->spare;

    if (part == NULL)
        return;
    call->spare = NULL;
    if (call->trial)
        call->trial = call->lane->trial = 0;
    call->in_turn = 0;
    call->live--;
    mp__list_remove(&part->siblings);
    mpp_part_free(part);
}

void mpp_part_none(struct mpp_call *call, int later)
{
    if (call->spare == NULL)
        return;
    drop_spare(call);
    if (later)
        call->dry = 1;
    else
        call->more = 0;
    if (!later && call->live == 0)
        done(call, MP_KIND_NONE);
}

void mpp_call_after_part(struct mpp_call *call)
{
    call->live--;
    if (call->live > 0)
        mpp_call_touch(call);
    else if (call->ended || !call->more)
        done(call, (enum mp_kind)call->kind);
    else if (!call->dry && !mp__linked(&call->note.link))
        mp__list_push(&call->client->core->asking, &call->note.link);
}

void mpp_call_ready(struct mpp_call *call, mp__time now)
{
    struct mpp_core *core = call->client->core;

    if (now > core->now)
        core->now = now;
    if (call->ended || !call->more)
        return;
    call->dry = 0;
    if (call->live == 0 && !mp__linked(&call->note.link))
        mp__list_push(&core->asking, &call->note.link);
    else
        mpp_call_touch(call);
}

void mpp_call_end(struct mpp_call *call, enum mp_kind kind)
{
    struct mp__link *link, *next;

    if (call->ended)
        return;
    call->ended = 1;
    call->more = 0;
    call->kind = (uint8_t)kind;
    mp__list_remove(&call->link);
    mp__list_remove(&call->note.link);
    mp__heap_clear(&call->client->core->heap, &call->deadline);
    drop_spare(call);
    call->live++; /* so that the last part's end does not end the call within the loop */
    for (link = call->parts.next; link != &call->parts; link = next) {
        struct mpp_part *part = MP__ENTRY(link, struct mpp_part, siblings);

        next = link->next;
        if (part->state != MPP_SPLITTING)
            mpp_part_end(part, kind);
    }
    mpp_call_after_part(call);
}

void mpp_call_cancel(struct mpp_call *call, enum mp_kind kind, mp__time now)
{
    struct mpp_core *core = call->client->core;

    if (now > core->now)
        core->now = now;
    mpp_call_end(call, kind);
}

void *mpp_call_user(const struct mpp_call *call)
{
    return call->user;
}

/* core.c - the turn: what is to be told, then alarms, then waiting parts, then new work. */
#include "policy/core.h"

#include "policy/state.h"

#include <stdlib.h>
#include <string.h>

struct mpp_core *mpp_new(const struct mpp_config *cfg)
{
    struct mpp_core *core = calloc(1, sizeof(*core));

    if (core == NULL)
        return NULL;
    core->rng = cfg->seed;
    core->max_calls = cfg->max_calls ? cfg->max_calls : 1000000;
    core->drain_losers = cfg->drain_losers;
    mp__slab_init(&core->calls, sizeof(struct mpp_call), 256);
    mp__slab_init(&core->parts, sizeof(struct mpp_part), 128);
    mp__slab_init(&core->attempts, sizeof(struct mpp_attempt), 128);
    mp__list_init(&core->outbox);
    mp__list_init(&core->ring);
    mp__list_init(&core->pools);
    mp__list_init(&core->asking);
    mp__list_init(&core->rates);
    /* What runs can end without memory, and as it ends the next may begin. */
    if (mp__slab_reserve(&core->parts) < 0 || mp__slab_reserve(&core->attempts) < 0) {
        mpp_free(core);
        return NULL;
    }
    return core;
}

static void forget_told(struct mpp_core *core)
{
    if (core->told_part != NULL) {
        mpp_part_free(core->told_part);
        core->told_part = NULL;
    }
    if (core->told_call != NULL) {
        struct mpp_call *call = core->told_call;

        core->told_call = NULL;
        mpp_call_free(call);
    }
}

void mpp_free(struct mpp_core *core)
{
    if (core == NULL)
        return;
    forget_told(core);
    mp__slab_fini(&core->calls);
    mp__slab_fini(&core->parts);
    mp__slab_fini(&core->attempts);
    free(core);
}

void mpp_tell(struct mpp_core *core, struct mpp_note *note, enum mpp_told what)
{
    note->what = (uint8_t)what;
    mp__list_push(&core->outbox, &note->link);
}

/* ---- the outbox ------------------------------------------------------------------------------ */

static void tell_abort(struct mpp_attempt *a, struct mpp_action *out)
{
    out->type = MPP_ABORT;
    out->attempt = mpp_attempt_id(a);
    out->client = a->endpoint->client;
    out->endpoint = a->endpoint->index;
    out->part = a->part;
    out->call = a->part != NULL ? a->part->call : NULL;
    out->is_hedge = a->is_hedge;
    mpp_attempt_gone(a);
}

static void tell_part(struct mpp_core *core, struct mpp_part *part, struct mpp_action *out)
{
    out->type = MPP_PART_DONE;
    out->part = part;
    out->call = part->call;
    out->client = part->call->client;
    out->kind = (enum mp_kind)part->kind;
    out->retryable = part->retryable;
    out->attempt = part->winner;
    out->endpoint = part->facts.last_endpoint;
    core->told_part = part;
}

static void tell_split(struct mpp_part *part, struct mpp_action *out)
{
    struct mpp_call *call = part->call;
    struct mpp_part *half = part->half;

    out->type = MPP_PART_SPLIT;
    out->part = part;
    out->other = half;
    out->call = call;
    out->client = call->client;
    out->keep = part->keep;
    part->half = NULL;
    if (call->ended || mpp_hopeless(call)) {
        mpp_part_end(part, call->ended ? (enum mp_kind)call->kind : (enum mp_kind)part->last_kind);
        mpp_part_end(half, call->ended ? (enum mp_kind)call->kind : (enum mp_kind)part->last_kind);
    } else if (part->last_first) {
        part->last_first = 0;
        mpp_part_ready(half, 1);
        mpp_part_ready(part, 0);
    } else {
        int piece = call->lane->seeker != NULL && part->tree == call->lane->tree;

        mpp_part_ready(piece ? half : part, piece);
        mpp_part_ready(piece ? part : half, piece);
    }
}

static void tell_back(struct mpp_core *core, struct mpp_part *part, struct mpp_action *out)
{
    out->type = MPP_PART_BACK;
    out->part = part;
    out->call = part->call;
    out->client = part->call->client;
    core->told_part = part;
}

static void tell_limit(struct mpp_lane *lane, struct mpp_action *out)
{
    out->type = MPP_LIMIT;
    out->client = lane->client;
    mpp_lane_limit(lane, &out->limit);
}

static void tell_call(struct mpp_core *core, struct mpp_call *call, struct mpp_action *out)
{
    out->type = MPP_CALL_DONE;
    out->call = call;
    out->client = call->client;
    out->kind = (enum mp_kind)call->kind;
    core->told_call = call;
}

static int tell_next(struct mpp_core *core, struct mpp_action *out)
{
    struct mp__link *link = mp__list_shift(&core->outbox);
    struct mpp_note *note;

    if (link == NULL)
        return 0;
    note = MP__ENTRY(link, struct mpp_note, link);
    switch (note->what) {
    case MPP_TELL_ABORT:
        tell_abort(MP__ENTRY(note, struct mpp_attempt, note), out);
        break;
    case MPP_TELL_PART:
        tell_part(core, MP__ENTRY(note, struct mpp_part, note), out);
        break;
    case MPP_TELL_SPLIT:
        tell_split(MP__ENTRY(note, struct mpp_part, note), out);
        break;
    case MPP_TELL_BACK:
        tell_back(core, MP__ENTRY(note, struct mpp_part, note), out);
        break;
    case MPP_TELL_LIMIT:
        tell_limit(MP__ENTRY(note, struct mpp_lane, note), out);
        break;
    case MPP_TELL_CALL:
        tell_call(core, MP__ENTRY(note, struct mpp_call, note), out);
        break;
    default: {
        struct mpp_endpoint *ep = MP__ENTRY(note, struct mpp_endpoint, health.note);

        out->type = MPP_PROBE;
        out->client = ep->client;
        out->endpoint = ep->index;
    }
    }
    return 1;
}

/* ---- alarms ---------------------------------------------------------------------------------- */

static int expire_one(struct mpp_core *core)
{
    struct mp__timer *t = mp__heap_first(&core->heap);

    if (t == NULL || t->at > core->now)
        return 0;
    mp__heap_clear(&core->heap, t);
    switch (t->kind) {
    case MPP_T_CALL:
        mpp_call_end(MP__ENTRY(t, struct mpp_call, deadline), MP_KIND_TOTAL_TIMEOUT);
        break;
    case MPP_T_PART:
        mpp_part_timer(MP__ENTRY(t, struct mpp_part, timer));
        break;
    case MPP_T_CLIENT:
        mpp_client_touch(MP__ENTRY(t, struct mpp_client, wake));
        break;
    case MPP_T_TRICKLE:
        mpp_park_trickle(MP__ENTRY(t, struct mpp_endpoint, trickle));
        break;
    default:
        mpp_health_due(MP__ENTRY(t, struct mpp_endpoint, health.timer));
    }
    return 1;
}

/* A call whose parts have all ended is asked for more at once, slot or no slot: its end must not
 * wait behind a paused endpoint. */
static int ask_one(struct mpp_core *core, struct mpp_action *out)
{
    struct mp__link *link;

    for (link = mp__list_shift(&core->asking); link != NULL; link = mp__list_shift(&core->asking)) {
        struct mpp_call *call = MP__ENTRY(link, struct mpp_call, note.link);

        if (mpp_call_ask(call, out))
            return 1;
        mpp_call_touch(call);
    }
    return 0;
}

static int start_waiter(struct mpp_core *core, struct mpp_action *out)
{
    while (!mp__list_empty(&core->pools)) {
        struct mpp_pool *pool = MP__ENTRY(core->pools.next, struct mpp_pool, link);
        struct mpp_part *part;
        struct mpp_attempt *a;

        if (pool->running >= pool->max_running || pool->nwaiters == 0) {
            mp__list_remove(&pool->link);
            continue;
        }
        part = MP__ENTRY(pool->waiters.next, struct mpp_part, queue);
        if (!mpp_part_may_start(part)) {
            mpp_part_unadmit(part);
            continue;
        }
        a = mpp_attempt_start(part, part->endpoint, 0);
        if (a == NULL)
            return 0;
        mpp_fill_start(out, a);
        return 1;
    }
    return 0;
}

int mpp_next(struct mpp_core *core, mp__time now, struct mpp_action *out)
{
    int progress;

    forget_told(core);
    if (now > core->now)
        core->now = now;
    memset(out, 0, sizeof(*out));
    do {
        if (tell_next(core, out))
            return 1;
        if (expire_one(core)) {
            progress = 1;
            continue;
        }
        if (ask_one(core, out))
            return 1;
        if (start_waiter(core, out))
            return 1;
        progress = mpp_dispatch(core, out);
        if (progress > 0)
            return 1;
    } while (progress || !mp__list_empty(&core->outbox));
    return 0;
}

mp__time mpp_wake_at(const struct mpp_core *core)
{
    struct mp__timer *t = mp__heap_first(&core->heap);

    return t != NULL ? t->at : MP__NEVER;
}

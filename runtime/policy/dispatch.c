/*
 * dispatch.c - new work into free slots: clients take turns, and the calls of a client.
 *
 * A pass looks at no more than MPP_LOOK_AHEAD calls that cannot go, and a client whose pass came to
 * nothing is left alone until a slot frees, work arrives or its alarm rings.
 */
#include "policy/state.h"

/* HELD: shut by the rate hook. GATED: by its lane, which touches the client when that changes. ASKS:
 * for a part, *out says so. */
enum tried_call { TOOK, ENDED, NOTHING, SHUT, HELD, GATED, FULL, ASKS };

#define GATED_LOOK_AHEAD 1024

#define READY_LOOK_AHEAD 16

void mpp_fill_start(struct mpp_action *out, const struct mpp_attempt *a)
{
    struct mpp_part *part = a->part;

    out->type = MPP_START;
    out->client = a->endpoint->client;
    out->call = part->call;
    out->part = part;
    out->attempt = mpp_attempt_id(a);
    out->endpoint = a->endpoint->index;
    out->is_hedge = a->is_hedge;
    out->fresh_connection = a->is_hedge && part->endpoint == a->endpoint;
}

/* A holder that must wait for a probe of its size, or for its elder, would keep that from going. */
static void free_blocked(struct mpp_part *part, mp__time *wake)
{
    struct mpp_client *client = part->call->client;
    uint32_t i;

    for (i = 0; i < client->n; i++) {
        struct mpp_part *holder = client->endpoints[i].rate->holder;

        if (holder != NULL && holder != part &&
            (holder->call == part->call || !mpp_lane_open(holder, wake))) {
            mpp_part_unhold(holder);
            *wake = client->core->now;
        }
    }
}

/* The oldest waiting part, passed over for 2 s by smaller ones, gets the bucket for itself. */
static void maybe_hold(struct mpp_part *part, mp__time *wake)
{
    struct mpp_client *client = part->call->client;
    uint32_t i;

    free_blocked(part, wake);
    if (part->holding || client->core->now - part->ready_since < MPP_AGE_LIMIT)
        return;
    for (i = 0; i < client->n; i++) {
        struct mpp_rate *r = client->endpoints[i].rate;

        if (r->holder == NULL && r->tokens.rate > 0) {
            r->holder = part;
            part->holding = 1;
        }
    }
}

/* The last gate, asked when everything else lets the part go to ep. */
static enum tried_call ask_rate(struct mpp_part *part, struct mpp_endpoint *ep, mp__time *wake)
{
    const struct mpp_hooks *hooks = part->call->hooks;
    mp__time now = ep->client->core->now;
    struct mpp_view view;
    double wait = 0;

    mpp_view_fill(&view, part, ep);
    ep->stats.hook_calls++;
    if (hooks->rate(hooks->arg, &view, &wait) != MPP_NO)
        return TOOK;
    if (wait < 0) {
        mpp_part_end(part, wait > -MP_KIND_COUNT ? (enum mp_kind) - wait : MP_KIND_RATE_LIMITED);
        return ENDED;
    }
    if (!(wait > 0.001))
        wait = 0.001;
    if (mp__after(now, wait) < *wake)
        *wake = mp__after(now, wait);
    return HELD;
}

/* The first that its lane lets go; those behind a probe of their size are passed over. */
static struct mpp_part *first_open(struct mpp_call *call, mp__time *wake)
{
    struct mp__link *link;
    int looked = 0;

    for (link = call->ready.next; link != &call->ready && looked < READY_LOOK_AHEAD;
         link = link->next, looked++) {
        struct mpp_part *part = MP__ENTRY(link, struct mpp_part, queue);

        if (mpp_lane_over(part) || mpp_lane_open(part, wake))
            return part;
    }
    return NULL;
}

static enum tried_call try_call(struct mpp_call *call, mp__time *wake, struct mpp_action *out)
{
    struct mpp_client *client = call->client;
    uint32_t most = client->pool->max_running;
    struct mpp_part *part;
    struct mpp_endpoint *ep;

    if (!mpp_call_has_work(call))
        return NOTHING;
    if (call->max_concurrent > most)
        most = call->max_concurrent;
    if (client->admitted >= most)
        return FULL;
    if (mp__list_empty(&call->ready)) {
        call->in_turn = 1;
        if (mpp_call_ask(call, out))
            return ASKS;
        call->in_turn = 0;
        *wake = client->core->now + MP__SECOND / 10; /* no memory for the part */
        return SHUT;
    }
    part = first_open(call, wake);
    if (part == NULL)
        return GATED;
    if (mpp_lane_over(part)) {
        mpp_part_back(part);
        return ENDED;
    }
    ep = mpp_route(part, 0, wake);
    if (ep != NULL && call->hooks != NULL && call->hooks->rate != NULL) {
        enum tried_call r = ask_rate(part, ep, wake);

        if (r != TOOK)
            return r;
    }
    if (ep != NULL) {
        mpp_part_admit(part, ep);
        return TOOK;
    }
    if (call->policy->retry.fail_fast && mpp_all_broken(client)) {
        mpp_part_end(part,
                     part->facts.attempts ? (enum mp_kind)part->last_kind : MP_KIND_BREAKER_OPEN);
        return ENDED;
    }
    return SHUT;
}

static int anything_open(struct mpp_client *client, mp__time *wake)
{
    uint32_t i;

    for (i = 0; i < client->n; i++)
        if (mpp_endpoint_open(&client->endpoints[i], NULL, 0, wake))
            return 1;
    return 0;
}

/* The next pass begins behind the first n calls. */
static void see_others(struct mpp_client *client, int n)
{
    for (; n > 0; n--)
        mp__list_push(&client->ring, mp__list_shift(&client->ring));
}

/* TOOK: a part went to the pool's queue. ENDED: the outbox grew. SHUT: nothing, *wake says until
 * when. */
static enum tried_call pass(struct mpp_client *client, mp__time *wake, struct mpp_action *out)
{
    struct mp__link *link, *next;
    int open = anything_open(client, wake);
    int looked = 0, held = 0, gated = 0;

    /* Behind open breakers those that will not wait are to be told. */
    if (!open && !mpp_all_broken(client))
        return SHUT;
    for (link = client->ring.next;
         link != &client->ring && looked < MPP_LOOK_AHEAD && gated < GATED_LOOK_AHEAD;
         link = next) {
        struct mpp_call *call = MP__ENTRY(link, struct mpp_call, link);
        enum tried_call r;

        next = link->next;
        r = try_call(call, wake, out);
        if (r == FULL)
            return SHUT;
        if (r == TOOK || r == NOTHING || r == ENDED || r == ASKS)
            mp__list_remove(&call->link);
        if (r == ASKS)
            return r;
        if (r == TOOK || r == ENDED) {
            mpp_call_touch(call); /* to the end of the ring: the next one's turn */
            return r;
        }
        if (r == GATED)
            gated++;
        if (r == HELD) {
            held = 1;
            looked++;
        } else if (r == SHUT) {
            struct mpp_part *part = first_open(call, wake);

            if (looked++ == 0 && part != NULL)
                maybe_hold(part, wake);
        }
    }
    if (gated == GATED_LOOK_AHEAD)
        see_others(client, gated);
    if (looked == MPP_LOOK_AHEAD && (client->n > 1 || held) && open) {
        /* They may all wait for one endpoint while another is idle, or by one rule of the hook. */
        mp__time soon = client->core->now + MP__SECOND / 1000;

        see_others(client, looked);
        if (soon < *wake)
            *wake = soon;
    }
    return SHUT;
}

int mpp_dispatch(struct mpp_core *core, struct mpp_action *out)
{
    while (!mp__list_empty(&core->ring)) {
        struct mpp_client *client = MP__ENTRY(core->ring.next, struct mpp_client, link);
        mp__time wake = MP__NEVER;
        enum tried_call r;

        if (mpp_hedge_next(client, out))
            return 1;
        r = mp__list_empty(&client->ring) ? SHUT : pass(client, &wake, out);
        mp__list_remove(&client->link);
        if (r == SHUT) {
            mpp_client_wake(client, wake);
            continue;
        }
        mpp_client_touch(client); /* behind the other clients */
        return r == ASKS ? 1 : -1;
    }
    return 0;
}

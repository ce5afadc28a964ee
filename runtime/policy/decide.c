/* decide.c - after a failure: retry, wait, split or give up. */
#include "policy/state.h"

#include <string.h>

#define PACE_MOST  100
#define PACE_FRESH (600 * MP__SECOND) /* since the endpoint's last good reply */
#define PACE_STEPS 5                  /* of the backoff */

void mpp_view_fill(struct mpp_view *view, const struct mpp_part *part,
                   const struct mpp_endpoint *ep)
{
    const struct mpp_call *call = part->call;
    mp__time now = call->client->core->now;

    memset(view, 0, sizeof(*view));
    view->client = call->client;
    view->call_user = call->user;
    view->now = now;
    view->part = &part->facts;
    view->endpoint = ep != NULL ? ep->index : 0;
    view->elapsed = mp__seconds(now - part->facts.created);
    view->deadline_left = -1;
    if (call->deadline_at != MP__NEVER)
        view->deadline_left = call->deadline_at > now ? mp__seconds(call->deadline_at - now) : 0;
    view->delay = -1;
    if (ep != NULL) {
        view->budget_level = mpp_budget_level(&ep->budget);
        view->in_flight = ep->used;
    }
}

void mpp_classify_hook(struct mpp_part *part, struct mpp_endpoint *ep,
                       const struct mpp_outcome *outcome, struct mpp_judgement *j)
{
    const struct mpp_hooks *hooks = part->call->hooks;
    struct mpp_view view;
    enum mpp_class cls = j->cls;
    double delay = -1;

    if (hooks == NULL || hooks->classify == NULL)
        return;
    mpp_view_fill(&view, part, ep);
    view.outcome = outcome;
    view.cls = j->cls;
    ep->stats.hook_calls++;
    if (hooks->classify(hooks->arg, &view, &cls, &delay) == MPP_DEFAULT)
        return;
    /* A failure cannot be called a success: there is nothing decoded to deliver. */
    if ((j->cls == MPP_OK) != (cls == MPP_OK))
        return;
    j->cls = cls;
    j->retry = cls == MPP_THROTTLED || cls == MPP_TRANSIENT;
    if (delay > 0)
        j->server_delay = delay;
}

static void give_up(struct mpp_part *part, struct mpp_endpoint *ep,
                    const struct mpp_outcome *outcome, enum mp_kind kind)
{
    const struct mpp_hooks *hooks = part->call->hooks;
    struct mpp_view view;

    if (hooks != NULL && hooks->on_giveup != NULL) {
        mpp_view_fill(&view, part, ep);
        view.outcome = outcome;
        ep->stats.hook_calls++;
        hooks->on_giveup(hooks->arg, &view, kind);
    }
    mpp_part_end(part, kind);
}

static enum mpp_verdict ask_retry(struct mpp_part *part, struct mpp_endpoint *ep,
                                  const struct mpp_outcome *outcome, const struct mpp_judgement *j,
                                  double *delay)
{
    const struct mpp_hooks *hooks = part->call->hooks;
    struct mpp_view view;
    enum mpp_verdict verdict;
    double wish = *delay;

    if (hooks == NULL || hooks->retry == NULL)
        return MPP_DEFAULT;
    mpp_view_fill(&view, part, ep);
    view.outcome = outcome;
    view.cls = j->cls;
    view.delay = *delay;
    ep->stats.hook_calls++;
    verdict = hooks->retry(hooks->arg, &view, &wish);
    /* What the server asked for stays the least. */
    if (verdict == MPP_YES && wish >= 0 && wish > j->server_delay)
        *delay = wish;
    return verdict;
}

/* The failed endpoint's token, or that of a sound one where the retry may go: with several, a dead
 * one must not hold up what the others have room for. */
static int take_token(struct mpp_endpoint *ep)
{
    struct mpp_client *client = ep->client;
    uint32_t i;

    if (mp__list_empty(&ep->parked) && mpp_budget_take(&ep->budget))
        return 1;
    for (i = 0; i < client->n; i++) {
        struct mpp_endpoint *other = &client->endpoints[i];

        if (other != ep && mpp_endpoint_sound(other) && mp__list_empty(&other->parked) &&
            mpp_budget_take(&other->budget))
            return 1;
    }
    return 0;
}

static struct mpp_endpoint *place_to_park(struct mpp_endpoint *ep)
{
    struct mpp_client *client = ep->client;
    uint32_t i;

    for (i = 0; i < client->n && !mpp_endpoint_sound(ep); i++)
        if (mpp_endpoint_sound(&client->endpoints[i]))
            return &client->endpoints[i];
    return ep;
}

static void retry(struct mpp_part *part, struct mpp_endpoint *ep, const struct mpp_outcome *outcome,
                  const struct mpp_judgement *j, mp__time at)
{
    if (j->unbudgeted) {
        ep->stats.unbudgeted++;
    } else if (!take_token(ep)) {
        /* What was cut to find a row has no time to wait for the budget. */
        if (part->most > 0) {
            if (!mpp_split_last(part, outcome))
                give_up(part, ep, outcome, outcome->kind);
            return;
        }
        if (part->call->policy->retry.fail_fast) {
            give_up(part, ep, outcome, MP_KIND_BUDGET);
            return;
        }
        if (mpp_park_hopeless(ep)) {
            give_up(part, ep, outcome, outcome->kind);
            return;
        }
        mpp_part_leave(part);
        mpp_park(part, place_to_park(ep), at);
        return;
    }
    mpp_part_leave(part);
    mpp_part_backoff(part, at);
}

uint32_t mpp_most_attempts(const struct mpp_part *part)
{
    uint32_t max = part->call->policy->retry.max_attempts;

    if (max == 0)
        max = 1;
    if (part->most > 0 && part->most < max)
        max = part->most;
    return max < MPP_MAX_ATTEMPTS ? max : MPP_MAX_ATTEMPTS;
}

/* It was held for what a tree would find, which was nothing: the ordinary retry after all. */
void mpp_retry_held(struct mpp_part *part)
{
    const struct mp_retry_policy *policy = &part->call->policy->retry;
    struct mpp_endpoint *ep = part->endpoint;
    struct mpp_core *core = ep->client->core;
    struct mpp_judgement j = {.cls = MPP_TRANSIENT, .server_delay = -1};
    mp__time at = mp__after(core->now, mpp_backoff(policy, &j, part->facts.attempts, &core->rng));

    if (take_token(ep))
        mpp_part_backoff(part, at);
    else if (policy->fail_fast || mpp_park_hopeless(ep))
        mpp_part_end(part, (enum mp_kind)part->last_kind);
    else
        mpp_park(part, place_to_park(ep), at);
}

/* Throttling is a matter of pace, which the rate and the limit of concurrency see to, as long as the
 * endpoint answers somebody: it takes no attempt away from the row. Who will not wait or wants no second
 * attempt has it so, and a request that is refused for ever has an end. */
static int only_pace(const struct mpp_part *part, const struct mpp_endpoint *ep,
                     const struct mpp_outcome *o, const struct mpp_judgement *j)
{
    return j->cls == MPP_THROTTLED && j->retry && o->status != 0 &&
           !part->call->policy->retry.fail_fast && mpp_most_attempts(part) > 1 &&
           part->facts.throttled < PACE_MOST && ep->stats.ok > 0 &&
           ep->client->core->now - ep->latency_at < PACE_FRESH;
}

static void count_fault(struct mpp_part *part, const struct mpp_outcome *outcome,
                        const struct mpp_judgement *j)
{
    part->last_kind = (uint8_t)outcome->kind;
    if (part->faults == 0)
        part->taken_before = part->call->lane->taken;
    if (outcome->kind == MP_KIND_DECODE && part->decode_faults < 255)
        part->decode_faults++;
    if (j->cls == MPP_TRANSIENT)
        part->faults++;
}

void mpp_decide(struct mpp_part *part, struct mpp_endpoint *ep, const struct mpp_outcome *outcome,
                const struct mpp_judgement *j)
{
    const struct mp_retry_policy *policy = &part->call->policy->retry;
    struct mpp_core *core = ep->client->core;
    int hooked = part->call->hooks != NULL && part->call->hooks->retry != NULL;
    enum mpp_verdict verdict;
    uint32_t steps;
    int used_up;
    double delay;
    mp__time at;

    count_fault(part, outcome, j);
    if (j->cls != MPP_CANCELLED && mpp_door_shut(part, ep, outcome)) {
        struct mpp_call *call = part->call;

        give_up(part, ep, outcome, outcome->kind);
        mpp_door_end(call, outcome->kind);
        return;
    }
    if (j->cls != MPP_CANCELLED && mpp_split(part, outcome))
        return;
    steps = part->facts.attempts;
    if (part->facts.throttled > 0 && steps > PACE_STEPS)
        steps = PACE_STEPS;
    delay = j->retry || hooked ? mpp_backoff(policy, j, steps, &core->rng) : 0;
    if (only_pace(part, ep, outcome, j))
        part->facts.throttled++;
    used_up = part->facts.attempts - part->facts.throttled >= mpp_most_attempts(part);
    verdict =
        !used_up && j->cls != MPP_CANCELLED ? ask_retry(part, ep, outcome, j, &delay) : MPP_DEFAULT;
    if (used_up || verdict == MPP_NO || j->cls == MPP_CANCELLED ||
        (verdict == MPP_DEFAULT && !j->retry)) {
        if (j->cls != MPP_CANCELLED && verdict == MPP_DEFAULT && mpp_split_last(part, outcome))
            return;
        give_up(part, ep, outcome, outcome->kind);
        return;
    }
    at = mp__after(core->now, delay);
    if (at >= part->call->deadline_at) {
        give_up(part, ep, outcome, outcome->kind);
        return;
    }
    retry(part, ep, outcome, j, at);
}

/* observe.c - what each answer teaches about its endpoint, whatever becomes of the part. */
#include "policy/state.h"

static enum mpp_pressure pressure_of(const struct mpp_outcome *o, const struct mpp_judgement *j)
{
    if (j->cls == MPP_OK)
        return MPP_CALM;
    if (j->cls == MPP_CANCELLED)
        return MPP_IGNORE;
    if (o->status == 0)
        return o->kind == MP_KIND_INVALID ? MPP_IGNORE : MPP_FAULT;
    /* A quota is the rate's business: fewer at once would not make it larger. */
    if (o->status == 429 && (o->hints.retry_after > 0 || o->hints.remaining_requests == 0 ||
                             o->hints.remaining_tokens == 0))
        return MPP_IGNORE;
    return j->cls == MPP_FATAL ? MPP_IGNORE : MPP_PUSHED;
}

static void learn_tokens(struct mpp_attempt *a, const struct mpp_outcome *o)
{
    struct mpp_endpoint *ep = a->endpoint;

    if (o->tokens <= 0 || a->bytes == 0)
        return;
    ep->tokens_per_byte += 0.1 * ((double)o->tokens / (double)a->bytes - ep->tokens_per_byte);
}

static void learn_latency(struct mpp_endpoint *ep, double took, mp__time now)
{
    ep->latency += (ep->latency > 0 ? 0.1 : 1) * (took - ep->latency);
    ep->latency_at = now;
}

/* A 429 that names a delay is obeyed, no more; but one that comes again right after the pause was
 * over says that the herd after each pause is too large. */
static int rate_too_high(const struct mpp_attempt *a, const struct mpp_outcome *o,
                         const struct mpp_judgement *j)
{
    const struct mpp_endpoint *ep = a->endpoint;

    if (o->status != 429)
        return 0;
    if (j->server_delay <= 0)
        return 1;
    return ep->not_before > 0 && a->started >= ep->not_before &&
           a->started - ep->not_before < 2 * MP__SECOND;
}

static void note_throttle(struct mpp_endpoint *ep, const struct mpp_outcome *o,
                          const struct mpp_judgement *j)
{
    mp__time now = ep->client->core->now;

    if (j->cls == MPP_THROTTLED) {
        ep->throttled_at = now;
        ep->throttled_once = 1;
        ep->stats.throttled++;
    }
    if (o->status != 0 && j->retry && j->server_delay > 0)
        mpp_endpoint_pause(ep, mp__after(now, j->server_delay));
}

/* With several endpoints, ejection leaves one; a lone endpoint has the breaker proper. An address
 * that never answered is not protected from us, it is wrong: its parts fail by their attempts. */
static int may_open(const struct mpp_endpoint *ep)
{
    const struct mpp_client *client = ep->client;
    uint32_t i;

    if (client->n == 1)
        return client->policy.breaker.enabled && ep->reached;
    for (i = 0; i < client->n; i++)
        if (i != ep->index && mpp_endpoint_sound(&client->endpoints[i]))
            return client->policy.route.eject != 0;
    return client->policy.breaker.enabled && ep->reached;
}

static void vote(struct mpp_attempt *a, const struct mpp_outcome *o)
{
    struct mpp_endpoint *ep = a->endpoint;
    struct mpp_core *core = ep->client->core;

    if (mpp_breaker_record(&ep->breaker, &ep->client->policy.breaker, mpp_breaker_vote(o),
                           a->is_probe, may_open(ep), core->now, &core->rng))
        ep->stats.breaker_opened++;
    a->is_probe = 0;
}

void mpp_observe(struct mpp_attempt *a, const struct mpp_outcome *o, const struct mpp_judgement *j)
{
    struct mpp_endpoint *ep = a->endpoint;
    mp__time now = ep->client->core->now;
    mp__time took = now - a->started;
    int timed_out = o->kind == MP_KIND_READ_TIMEOUT || o->kind == MP_KIND_TOTAL_TIMEOUT;

    if (o->status != 0)
        ep->reached = 1;
    else if (o->never_sent && ep->knocked == 0)
        ep->knocked = now;
    if (j->cls == MPP_OK)
        mpp_door_answered(ep->client);
    if (j->cls == MPP_OK)
        ep->stats.ok++;
    else if (j->cls != MPP_CANCELLED)
        ep->stats.failed++;
    /* Fast failures would make the service look fast; timeouts are latencies cut short. */
    if (j->cls == MPP_OK || timed_out)
        mp__hists_record(&ep->hists, a->size_class, took, now);
    mpp_concurrency_done(&ep->concurrency, pressure_of(o, j), mp__seconds(took), a->size_class,
                         now);
    learn_tokens(a, o);
    if (j->cls == MPP_OK)
        learn_latency(ep, mp__seconds(took), now);
    mpp_rate_done(ep->rate, a->tokens, o, rate_too_high(a, o, j), now);
    note_throttle(ep, o, j);
    vote(a, o);
    if (j->cls == MPP_OK)
        mpp_park_success(ep);
}

void mpp_observe_aborted(struct mpp_attempt *a)
{
    struct mpp_endpoint *ep = a->endpoint;
    struct mpp_core *core = ep->client->core;
    struct mpp_outcome nothing = {.kind = MP_KIND_CANCELLED, .tokens = -1};

    mpp_hints_init(&nothing.hints);
    /* The loser of a hedge took at least so long; without it the tail would vanish from view. */
    if (a->part != NULL && a->part->winner)
        mp__hists_record(&ep->hists, a->size_class, core->now - a->started, core->now);
    mpp_rate_done(ep->rate, a->tokens, &nothing, 0, core->now);
    vote(a, &nothing);
}

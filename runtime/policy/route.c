/*
 * route.c - which endpoint a part goes to.
 *
 * Tiers: sound and not yet tried by this part; sound; and only when no endpoint is sound at all:
 * not yet tried; any. Within a tier only those that could take it now count, and those of weight
 * zero only when nobody else does. Weighted choice: the hash of a ticket is a point in the sum of
 * weights, so the same tickets give the same choices.
 *
 * load = (in flight + 1) * latency / weight, the time a newcomer would wait for (Finagle's peak
 * EWMA). least takes the smallest, p2c (the default) the smaller of two drawn by weight, of equally
 * fast ones by in flight / weight alone; and the weighted choice leaves out those
 * with more than four in flight and more than twice the smallest load (bounded loads, after
 * Mirrokni, Thorup, Zadimoghaddam 2016): tickets alone would let a slow endpoint collect the whole
 * of a closed load.
 */
#include "policy/state.h"
#include "base/prng.h"

#include <math.h>

#define ALIKE 1.5 /* times: no difference of latency to choose by */

int mpp_endpoint_sound(const struct mpp_endpoint *ep)
{
    return ep->health.healthy && ep->breaker.state == MPP_BREAKER_CLOSED;
}

int mpp_all_broken(const struct mpp_client *client)
{
    mp__time now = client->core->now;
    uint32_t i;

    for (i = 0; i < client->n; i++) {
        const struct mpp_breaker *b = &client->endpoints[i].breaker;

        if (b->state == MPP_BREAKER_CLOSED || (b->state == MPP_BREAKER_OPEN && b->until <= now) ||
            (b->state == MPP_BREAKER_HALF && !b->probing))
            return 0;
    }
    return 1;
}

/* part NULL: could it take anything at all? */
int mpp_endpoint_open(struct mpp_endpoint *ep, const struct mpp_part *part, double tokens,
                      mp__time *wake)
{
    mp__time now = ep->client->core->now;

    if (ep->cfg.shared != NULL) { /* a pause that another process was told */
        mp__time until = atomic_load_explicit(&ep->cfg.shared->not_before, memory_order_relaxed);
        if (until > ep->not_before && until - now < MP__GCRA_SANE)
            ep->not_before = until;
    }
    if (ep->not_before > now) {
        if (ep->not_before < *wake)
            *wake = ep->not_before;
        return 0;
    }
    if (ep->used >= mpp_concurrency_limit(&ep->concurrency))
        return 0;
    if (!mpp_breaker_allows(&ep->breaker, now, wake))
        return 0;
    return mpp_rate_allows(ep->rate, part, tokens, now, wake);
}

static int tried(const struct mpp_part *part, const struct mpp_endpoint *ep)
{
    if (ep->index < 64)
        return part->tried >> ep->index & 1;
    return part->facts.attempts > 0 && part->facts.last_endpoint == ep->index;
}

/* A healing endpoint takes its one probe from first attempts; hedges and retries want certainty. */
static int usable(const struct mpp_endpoint *ep, const struct mpp_part *part, int is_hedge)
{
    if (!ep->health.healthy)
        return 0;
    if (ep->breaker.state == MPP_BREAKER_CLOSED)
        return 1;
    return !is_hedge && part->facts.attempts == 0;
}

static double weight(const struct mpp_endpoint *ep)
{
    return ep->cfg.weight;
}

/* ---- choosing among the marked --------------------------------------------------------------- */

static uint32_t by_weight(const struct mpp_client *client, const uint8_t *ok, uint64_t hash)
{
    double sum = 0, point;
    uint32_t i, last = 0;

    for (i = 0; i < client->n; i++)
        sum += ok[i] ? weight(&client->endpoints[i]) : 0;
    if (sum <= 0) { /* only zero weights are left: equal shares */
        uint32_t n = 0, k;

        for (i = 0; i < client->n; i++)
            n += ok[i];
        k = (uint32_t)(mp__unit(hash) * n);
        for (i = 0; i < client->n; i++)
            if (ok[i] && k-- == 0)
                return i;
    }
    point = mp__unit(hash) * sum;
    for (i = 0; i < client->n; i++) {
        if (!ok[i] || weight(&client->endpoints[i]) <= 0)
            continue;
        last = i;
        point -= weight(&client->endpoints[i]);
        if (point < 0)
            break;
    }
    return last;
}

static double fastest(const struct mpp_client *client)
{
    double best = 0;
    uint32_t i;

    for (i = 0; i < client->n; i++) {
        double l = client->endpoints[i].latency;

        if (l > 0 && (best <= 0 || l < best))
            best = l;
    }
    return best > 0 ? best : 1;
}

/* An old latency fades towards the best one: the slow endpoint may have recovered unseen. */
static double latency_of(const struct mpp_endpoint *ep, double best)
{
    double idle = mp__seconds(ep->client->core->now - ep->latency_at);

    return ep->latency > best ? best + (ep->latency - best) * exp(-idle / 10) : best;
}

static double load(const struct mpp_endpoint *ep, double best)
{
    double w = weight(ep) > 0 ? weight(ep) : 1e-3;

    return (ep->used + 1) * latency_of(ep, best) / w;
}

/* Between equally fast ones the weights are shares of what is in flight, and of what goes when
 * nothing is: a was drawn by them. */
static int better(const struct mpp_endpoint *b, const struct mpp_endpoint *a, double best)
{
    double la = latency_of(a, best), lb = latency_of(b, best);

    if (la <= ALIKE * lb && lb <= ALIKE * la && weight(a) > 0 && weight(b) > 0)
        return b->used / weight(b) < a->used / weight(a);
    return load(b, best) < load(a, best);
}

/* Unmarks those that have more than their share to do. */
static void bound(const struct mpp_client *client, uint8_t *ok)
{
    double best = fastest(client), least_load = -1;
    uint32_t i;

    for (i = 0; i < client->n; i++) {
        double l = ok[i] ? load(&client->endpoints[i], best) : -1;

        if (l >= 0 && (least_load < 0 || l < least_load))
            least_load = l;
    }
    for (i = 0; i < client->n; i++)
        if (ok[i] && client->endpoints[i].used > 4 &&
            load(&client->endpoints[i], best) > 2 * least_load)
            ok[i] = 0;
}

static uint32_t least(const struct mpp_client *client, const uint8_t *ok, uint64_t ticket)
{
    double quick = fastest(client);
    uint32_t best = UINT32_MAX, k;

    for (k = 0; k < client->n; k++) {
        uint32_t i = (uint32_t)((ticket + k) % client->n);

        if (ok[i] && (best == UINT32_MAX ||
                      load(&client->endpoints[i], quick) < load(&client->endpoints[best], quick)))
            best = i;
    }
    return best;
}

static uint32_t p2c(const struct mpp_client *client, uint8_t *ok, uint64_t hash)
{
    uint32_t a = by_weight(client, ok, hash), b, i, others = 0;

    double best = fastest(client);

    for (i = 0; i < client->n; i++)
        others += ok[i] && i != a;
    if (others == 0)
        return a;
    ok[a] = 0;
    b = by_weight(client, ok, mp__mix64(hash ^ UINT64_C(0xa5a5a5a5a5a5a5a5)));
    return better(&client->endpoints[b], &client->endpoints[a], best) ? b : a;
}

/* The call may have a route of its own. */
static uint32_t mode_of(const struct mpp_part *part)
{
    return part->call->policy->route.mode;
}

static uint32_t choose(const struct mpp_part *part, uint8_t *ok)
{
    struct mpp_client *client = part->call->client;
    uint64_t ticket = client->ticket++;

    switch (mode_of(part)) {
    case MP_ROUTE_LEAST:
        return least(client, ok, ticket);
    case MP_ROUTE_P2C:
        return p2c(client, ok, mp__ticket_hash(ticket));
    default:
        bound(client, ok);
        return by_weight(client, ok, mp__ticket_hash(ticket));
    }
}

/* ---- tiers ----------------------------------------------------------------------------------- */

enum { SOUND = 1, UNTRIED = 2 };

static int mark(struct mpp_part *part, int is_hedge, int tier, uint8_t *ok, mp__time *wake)
{
    struct mpp_client *client = part->call->client;
    double tokens = part->facts.info.tokens;
    uint32_t i;
    int n = 0, weighty = 0;

    for (i = 0; i < client->n; i++) {
        struct mpp_endpoint *ep = &client->endpoints[i];

        ok[i] = (!(tier & SOUND) || usable(ep, part, is_hedge)) &&
                (!(tier & UNTRIED) || !tried(part, ep)) &&
                mpp_endpoint_open(ep, part, tokens, wake);
        n += ok[i];
        weighty += ok[i] && weight(ep) > 0;
    }
    for (i = 0; weighty && i < client->n; i++)
        if (ok[i] && weight(&client->endpoints[i]) <= 0)
            ok[i] = 0;
    return n;
}

static int any_sound(const struct mpp_client *client)
{
    uint32_t i;

    for (i = 0; i < client->n; i++)
        if (mpp_endpoint_sound(&client->endpoints[i]))
            return 1;
    return 0;
}

static struct mpp_endpoint *by_tiers(struct mpp_part *part, int is_hedge, mp__time *wake)
{
    struct mpp_client *client = part->call->client;
    uint8_t ok[MPP_MAX_ENDPOINTS];

    if (mark(part, is_hedge, SOUND | UNTRIED, ok, wake) ||
        (!is_hedge && mark(part, is_hedge, SOUND, ok, wake)))
        return &client->endpoints[choose(part, ok)];
    if (any_sound(client) || is_hedge)
        return NULL;
    if (mark(part, is_hedge, UNTRIED, ok, wake) || mark(part, is_hedge, 0, ok, wake))
        return &client->endpoints[choose(part, ok)];
    return NULL;
}

/* -1: no wish, or its place is not sound; else the endpoint a first attempt waits for. */
static int32_t fixed_place(struct mpp_part *part, int is_hedge)
{
    struct mpp_call *call = part->call;
    struct mpp_client *client = call->client;

    if (is_hedge || part->facts.attempts > 0)
        return -1;
    if (call->pinned >= 0)
        return mpp_endpoint_sound(&client->endpoints[call->pinned]) ? call->pinned : -1;
    if (mode_of(part) != MP_ROUTE_STICKY)
        return -1;
    if (call->stuck_to >= 0 && mpp_endpoint_sound(&client->endpoints[call->stuck_to]))
        return call->stuck_to;
    return -1;
}

static struct mpp_endpoint *by_hook(struct mpp_part *part, mp__time *wake, int *decided)
{
    const struct mpp_hooks *hooks = part->call->hooks;
    struct mpp_client *client = part->call->client;
    struct mpp_endpoint *ep;
    struct mpp_view view;
    uint32_t choice = part->facts.last_endpoint;

    *decided = 0;
    mpp_view_fill(&view, part, NULL);
    client->endpoints[0].stats.hook_calls++;
    if (hooks->route(hooks->arg, &view, &choice) != MPP_YES || choice >= client->n)
        return NULL;
    *decided = 1;
    ep = &client->endpoints[choice];
    return mpp_endpoint_open(ep, part, part->facts.info.tokens, wake) ? ep : NULL;
}

struct mpp_endpoint *mpp_route(struct mpp_part *part, int is_hedge, mp__time *wake)
{
    struct mpp_client *client = part->call->client;
    struct mpp_endpoint *ep;
    int32_t fixed;
    int decided;

    if (client->n == 1) {
        ep = &client->endpoints[0];
        return mpp_endpoint_open(ep, part, part->facts.info.tokens, wake) ? ep : NULL;
    }
    if (part->call->hooks != NULL && part->call->hooks->route != NULL && !is_hedge) {
        ep = by_hook(part, wake, &decided);
        if (decided)
            return ep;
    }
    fixed = fixed_place(part, is_hedge);
    if (fixed >= 0) {
        ep = &client->endpoints[fixed];
        return mpp_endpoint_open(ep, part, part->facts.info.tokens, wake) ? ep : NULL;
    }
    ep = by_tiers(part, is_hedge, wake);
    if (ep != NULL && mode_of(part) == MP_ROUTE_STICKY && part->facts.attempts == 0 && !is_hedge)
        part->call->stuck_to = (int32_t)ep->index;
    return ep;
}

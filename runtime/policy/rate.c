#include "policy/rate.h"

#include "base/time.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void set_limit(struct mpp_bucket *b, double limit, double share)
{
    double before = b->burst;

    b->limit = limit;
    b->rate = limit > 0 ? limit * share / 60 : 0;
    b->burst = b->rate > b->largest ? b->rate : b->largest;
    if (b->burst < 1)
        b->burst = 1;
    if (before == 0 || b->level > b->burst)
        b->level = b->burst;
}

static void refill(struct mpp_bucket *b, mp__time now)
{
    if (b->rate > 0 && now > b->at) {
        b->level += b->rate * mp__seconds(now - b->at);
        if (b->level > b->burst)
            b->level = b->burst;
    }
    if (now > b->at)
        b->at = now;
}

struct mpp_rate *mpp_rate_new(const char *key, const struct mp_rate_policy *policy, mp__time now)
{
    struct mpp_rate *r = calloc(1, sizeof(*r));

    if (r == NULL)
        return NULL;
    if (key != NULL) {
        size_t n = strlen(key) + 1;

        r->key = malloc(n);
        if (r->key == NULL) {
            free(r);
            return NULL;
        }
        memcpy(r->key, key, n);
    }
    r->refs = 1;
    r->share = policy->share > 0 && policy->share <= 1 ? policy->share : 0.95;
    r->requests.at = r->tokens.at = r->slot = now;
    set_limit(&r->requests, policy->rpm > 0 ? policy->rpm : 0, r->share);
    set_limit(&r->tokens, policy->tpm > 0 ? policy->tpm : 0, r->share);
    return r;
}

void mpp_rate_free(struct mpp_rate *r)
{
    if (r == NULL)
        return;
    free(r->key);
    free(r);
}

/* ---- the curb: what a 429 without a delay teaches -------------------------------------------- */

/* 429s without a delay that are rarer than this say nothing of a rate: some servers refuse at random
 * or when one of their replicas is full, and to those the backoff is the answer. */
#define REFUSED_SHARE 0.15

static void measure(struct mpp_rate *r, mp__time now)
{
    double elapsed = mp__seconds(now - r->slot);

    if (elapsed < 0.5)
        return;
    r->measured = 0.8 * (r->count / elapsed) + 0.2 * r->measured;
    r->accepted = 0.8 * (r->good / elapsed) + 0.2 * r->accepted;
    r->count = 0;
    r->good = 0;
    r->slot = now;
}

static void apply_curb(struct mpp_rate *r, mp__time now)
{
    struct mpp_bucket *b = &r->requests;
    double t = mp__seconds(now - r->throttled) - r->k;
    double rate = 0.4 * t * t * t + r->w_max;
    double full = b->limit > 0 ? b->limit * r->share / 60 : 0;

    refill(b, now);
    /* Never under what the server takes: some refuse at random, and their work must go on. */
    if (rate < r->accepted)
        rate = r->accepted;
    if (rate < 0.5)
        rate = 0.5;
    /* Twice what was in use when it was cut, or the declared limit: the curb has done its work. */
    if (full > 0 ? rate >= full : rate >= 2 * r->w_max && rate >= 2 * r->measured) {
        r->curbed = 0;
        set_limit(b, b->limit, r->share);
        return;
    }
    b->rate = rate;
    b->burst = rate > 1 ? rate : 1;
    if (b->level > b->burst)
        b->level = b->burst;
}

static void curb(struct mpp_rate *r, mp__time now)
{
    double in_use;
    /* One burst of 429s is one message. */
    if (r->curbed && now - r->throttled < MP__SECOND)
        return;
    if (now > r->slot) {
        double elapsed = mp__seconds(now - r->slot);
        double current = r->count / (elapsed > 0.5 ? elapsed : 0.5);

        in_use = current > r->measured ? current : r->measured;
    } else {
        in_use = r->measured;
    }
    if (r->curbed && r->requests.rate > 0 && r->requests.rate < in_use)
        in_use = r->requests.rate;
    if (in_use < 2) /* so little is the backoff's business */
        in_use = 2;
    r->w_max = in_use;
    r->k = cbrt(in_use * 0.3 / 0.4);
    r->throttled = now;
    r->curbed = 1;
    if (r->requests.rate <= 0)
        r->requests.level = 1;
    apply_curb(r, now);
}

/* ---- reserving ------------------------------------------------------------------------------- */

static int has(struct mpp_bucket *b, double need, mp__time now, mp__time *wake)
{
    mp__time at;

    if (b->rate <= 0)
        return 1;
    refill(b, now);
    if (need > b->largest) {
        b->largest = need;
        if (need > b->burst)
            b->burst = need;
    }
    /* A hair of slack: sums of doubles must not wait for the last 1e-12 of a token. */
    if (b->level >= need - 1e-6 - 2e-9 * b->rate)
        return 1;
    at = mp__after(now, (need - b->level) / b->rate) + 1;
    if (at < *wake)
        *wake = at;
    return 0;
}

/* ---- with other processes ---------------------------------------------------------------------- */

static mp__time cost_of(const struct mpp_bucket *b, double amount)
{
    return (mp__time)(amount / (b->limit > 0 ? b->rate : 1) * 1e9);
}

static mp__time shared_at(const struct mpp_bucket *b, mp__gcra *g, double amount, mp__time now)
{
    if (b->limit <= 0 || b->rate <= 0)
        return now;
    return mp__gcra_at(g, cost_of(b, amount), cost_of(b, b->burst), now);
}

/* What others have taken moves the time when this one may. */
static mp__time allowed_by_all(struct mpp_rate *r, double tokens, mp__time now)
{
    mp__time a, b;

    if (r->shared == NULL)
        return now;
    a = shared_at(&r->requests, &r->shared->requests, 1, now);
    b = shared_at(&r->tokens, &r->shared->tokens, tokens, now);
    return a > b ? a : b;
}

static void take_of_all(struct mpp_rate *r, double requests, double tokens, mp__time now)
{
    if (r->shared == NULL)
        return;
    if (r->requests.limit > 0 && requests != 0)
        mp__gcra_take(&r->shared->requests, cost_of(&r->requests, requests), now);
    if (r->tokens.limit > 0 && tokens != 0)
        mp__gcra_take(&r->shared->tokens, cost_of(&r->tokens, tokens), now);
    mp__gcra_raise(&r->shared->used, now);
}

int mpp_rate_allows(struct mpp_rate *r, const void *who, double tokens, mp__time now,
                    mp__time *wake)
{
    mp__time later = now;
    mp__time a = MP__NEVER, b = MP__NEVER;
    int ok;

    if (r->curbed)
        apply_curb(r, now);
    if (who != NULL && r->holder != NULL && r->holder != who) {
        /* Another client may hold it, whose going tells us nothing: look again by the clock. */
        later = r->holder_at > now ? r->holder_at : now + MP__SECOND / 1000;
        if (later < *wake)
            *wake = later;
        return 0;
    }
    ok = has(&r->requests, 1, now, &a);
    ok &= has(&r->tokens, tokens, now, &b);
    if (ok) {
        later = allowed_by_all(r, tokens, now);
        if (later <= now)
            return 1;
    }
    if (a != MP__NEVER)
        later = a;
    if (b != MP__NEVER && b > later)
        later = b;
    if (later < *wake)
        *wake = later;
    if (who != NULL && r->holder == who)
        r->holder_at = later;
    return 0;
}

void mpp_rate_reserve(struct mpp_rate *r, const void *who, double tokens, mp__time now)
{
    measure(r, now);
    r->count++;
    r->in_flight_requests++;
    r->in_flight_tokens += tokens;
    take_of_all(r, 1, tokens, now);
    if (r->requests.rate > 0)
        r->requests.level -= 1;
    if (r->tokens.rate > 0)
        r->tokens.level -= tokens;
    if (r->holder == who)
        r->holder = NULL;
}

static void settle(struct mpp_rate *r, double tokens)
{
    r->in_flight_requests -= 1;
    r->in_flight_tokens -= tokens;
    if (r->in_flight_requests < 0.5) {
        r->in_flight_requests = 0;
        r->in_flight_tokens = 0;
    }
}

static void give(struct mpp_bucket *b, double amount, mp__time now)
{
    if (b->rate <= 0)
        return;
    refill(b, now);
    b->level += amount;
    if (b->level > b->burst)
        b->level = b->burst;
}

void mpp_rate_return(struct mpp_rate *r, double tokens, mp__time now)
{
    settle(r, tokens);
    if (r->count > 0)
        r->count--;
    take_of_all(r, -1, -tokens, now);
    give(&r->requests, 1, now);
    give(&r->tokens, tokens, now);
}

/* What the server says is left, less what is still on its way, is an upper bound. */
static void heed(struct mpp_bucket *b, double share, double limit, double remaining, double reset,
                 double in_flight, int exhausted, mp__time now)
{
    double left = remaining < 0 ? -1 : remaining - in_flight;

    /* A declared limit below the server's is the user's wish; one nobody declared is learnt only
     * when it begins to matter, since nothing tells for certain that it is a minute's. */
    if (limit > 0 && limit < b->limit) {
        refill(b, now);
        set_limit(b, limit, share);
    } else if (limit > 0 && b->limit <= 0 && (exhausted || (left >= 0 && left < 0.1 * limit))) {
        b->at = now;
        set_limit(b, limit, share);
    }
    if (b->rate <= 0 || remaining < 0 || (remaining == 0 && !exhausted))
        return;
    /* What is whole again within a second is within our own burst: when the news arrives, that
     * second is over. */
    if (reset > 0 && reset <= 1)
        return;
    refill(b, now);
    if (b->level > left)
        b->level = left > 0 ? left : 0;
}

void mpp_rate_done(struct mpp_rate *r, double tokens, const struct mpp_outcome *o, int throttled,
                   mp__time now)
{
    settle(r, tokens);
    if (o->tokens >= 0) {
        give(&r->tokens, tokens - (double)o->tokens, now);
        take_of_all(r, 0, (double)o->tokens - tokens, now);
    }
    heed(&r->requests, r->share, o->hints.limit_requests, o->hints.remaining_requests,
         o->hints.reset_requests, r->in_flight_requests, o->status == 429, now);
    heed(&r->tokens, r->share, o->hints.limit_tokens, o->hints.remaining_tokens,
         o->hints.reset_tokens, r->in_flight_tokens, o->status == 429, now);
    if (o->kind == MP_KIND_NONE)
        r->good++;
    r->refused = 0.95 * r->refused + (throttled ? 0.05 : 0);
    if (throttled && r->refused > REFUSED_SHARE)
        curb(r, now);
}

double mpp_rate_room(struct mpp_rate *r, mp__time now)
{
    double room = 1;

    refill(&r->requests, now);
    refill(&r->tokens, now);
    if (r->requests.rate > 0)
        room = r->requests.level / r->requests.burst;
    if (r->tokens.rate > 0 && r->tokens.level / r->tokens.burst < room)
        room = r->tokens.level / r->tokens.burst;
    return room;
}

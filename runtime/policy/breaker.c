#include "policy/breaker.h"

#include "base/prng.h"
#include "base/time.h"

#include <string.h>

enum mpp_breaker_vote mpp_breaker_vote(const struct mpp_outcome *o)
{
    switch (o->kind) {
    case MP_KIND_CANCELLED:
    case MP_KIND_CLOSED:
    case MP_KIND_INVALID:
    case MP_KIND_POOL_TIMEOUT:
        return MPP_VOTE_NONE;
    case MP_KIND_CONNECT:
    case MP_KIND_CONNECT_TIMEOUT:
    case MP_KIND_READ_TIMEOUT:
    case MP_KIND_WRITE_TIMEOUT:
    case MP_KIND_TOTAL_TIMEOUT:
    case MP_KIND_TLS:
        return MPP_VOTE_GATEWAY;
    default:
        break;
    }
    if (o->status >= 502 && o->status <= 504 && !(o->hints.retry_after > 0))
        return MPP_VOTE_GATEWAY;
    if (o->status >= 500 && o->status < 600 && o->status != 529 && o->status != 501)
        return MPP_VOTE_FAILED;
    return MPP_VOTE_ALIVE;
}

static void advance(struct mpp_breaker *b, const struct mp_breaker_policy *policy, mp__time now)
{
    double width = policy->window > 0 ? policy->window / MPP_BREAKER_SLICES : 1;
    int64_t slice = now / mp__ns(width);

    if (slice - b->slice >= MPP_BREAKER_SLICES) {
        memset(b->ok, 0, sizeof(b->ok));
        memset(b->failed, 0, sizeof(b->failed));
        b->slice = slice;
    }
    while (b->slice < slice) {
        b->slice++;
        b->ok[b->slice % MPP_BREAKER_SLICES] = 0;
        b->failed[b->slice % MPP_BREAKER_SLICES] = 0;
    }
}

static int share_failed(const struct mpp_breaker *b, double ratio, uint32_t at_least)
{
    uint64_t ok = 0, failed = 0;
    int i;

    for (i = 0; i < MPP_BREAKER_SLICES; i++) {
        ok += b->ok[i];
        failed += b->failed[i];
    }
    return ok + failed >= at_least && (double)failed >= ratio * (double)(ok + failed);
}

static void open_now(struct mpp_breaker *b, const struct mp_breaker_policy *policy, double seconds,
                     mp__time now, uint64_t *rng)
{
    if (seconds > policy->open_max)
        seconds = policy->open_max;
    b->state = MPP_BREAKER_OPEN;
    b->probing = 0;
    b->open_for = seconds;
    b->until = mp__after(now, seconds * (0.9 + 0.2 * mp__random01(rng)));
    b->opened++;
}

static void close_now(struct mpp_breaker *b)
{
    b->state = MPP_BREAKER_CLOSED;
    b->probing = 0;
    b->open_for = 0;
    memset(b->ok, 0, sizeof(b->ok));
    memset(b->failed, 0, sizeof(b->failed));
}

int mpp_breaker_allows(struct mpp_breaker *b, mp__time now, mp__time *wake)
{
    if (b->state == MPP_BREAKER_CLOSED)
        return 1;
    if (b->state == MPP_BREAKER_OPEN) {
        if (now < b->until) {
            if (b->until < *wake)
                *wake = b->until;
            return 0;
        }
        b->state = MPP_BREAKER_HALF;
        b->probing = 0;
    }
    return !b->probing;
}

int mpp_breaker_record(struct mpp_breaker *b, const struct mp_breaker_policy *policy,
                       enum mpp_breaker_vote vote, int was_probe, int may_open, mp__time now,
                       uint64_t *rng)
{
    uint32_t at_least = 1;

    if (was_probe)
        b->probing = 0;
    if (vote == MPP_VOTE_NONE)
        return 0;
    advance(b, policy, now);
    if (vote == MPP_VOTE_ALIVE) {
        b->consecutive = 0;
        if (b->state != MPP_BREAKER_CLOSED)
            close_now(b);
        b->ok[b->slice % MPP_BREAKER_SLICES]++;
        return 0;
    }
    b->failed[b->slice % MPP_BREAKER_SLICES]++;
    if (vote == MPP_VOTE_GATEWAY)
        b->consecutive++;
    if (b->state != MPP_BREAKER_CLOSED) {
        if (was_probe)
            open_now(b, policy, b->open_for * 2, now, rng);
        return was_probe;
    }
    if (b->consecutive < policy->consecutive)
        at_least = policy->min_requests;
    if (!may_open || !share_failed(b, policy->ratio, at_least))
        return 0;
    open_now(b, policy, policy->open, now, rng);
    return 1;
}

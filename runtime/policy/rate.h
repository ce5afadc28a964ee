/*
 * rate.h - requests and tokens a minute, reserved before sending.
 *
 * Two token buckets (GCRA's equivalent) a key: rate = share * limit / 60 a second, burst =
 * max(1 s of rate, the largest batch seen), because providers enforce a minute's limit over one
 * second. A reply's usage corrects the reservation; failures stay charged. Rate headers lower the
 * level (never raise it) and tell the limit. A 429 that names no delay means that the true limit is
 * lower than believed: rate = 0.7 of what was sent, then CUBIC back (AWS SDK "adaptive" mode).
 *
 * The oldest waiting part has a right of way: after 2 s of passing smaller ones, it alone may
 * reserve until it is through.
 */
#ifndef MP_POLICY_RATE_H
#define MP_POLICY_RATE_H

#include "policy/core.h"
#include "base/list.h"

struct mpp_bucket {
    double limit; /* a minute, as declared or told; 0: none known */
    double rate;  /* a second; 0: no limit */
    double burst, level;
    double largest; /* of one reservation */
    mp__time at;    /* level is of then */
};

struct mpp_rate {
    struct mp__link link; /* core's list of buckets with a key */
    char *key;
    uint32_t refs;
    struct mpp_shared *shared; /* the same limits, counted by all processes */
    double share;
    struct mpp_bucket requests, tokens;
    void *holder;       /* a part: has the exclusive right to reserve; NULL: nobody */
    mp__time holder_at; /* when it can, as far as is known */
    double in_flight_requests, in_flight_tokens; /* reserved, not answered */
    /* throttle: send rate in requests a second, measured over half seconds */
    double measured, count;
    mp__time slot;
    double w_max, k;
    double good, accepted; /* acceptable replies: in this half second, a second */
    double refused;        /* share of 429s without a delay, EWMA over replies */
    mp__time throttled;    /* last cut; the curve's origin */
    uint8_t curbed;
};

struct mpp_rate *mpp_rate_new(const char *key, const struct mp_rate_policy *policy, mp__time now);
void mpp_rate_free(struct mpp_rate *r);

/* May `who` (NULL: somebody) reserve one request and `tokens` now? 1, or 0 with *wake lowered to
 * when. */
int mpp_rate_allows(struct mpp_rate *r, const void *who, double tokens, mp__time now,
                    mp__time *wake);
void mpp_rate_reserve(struct mpp_rate *r, const void *who, double tokens, mp__time now);
void mpp_rate_return(struct mpp_rate *r, double tokens, mp__time now); /* it was never sent */

/* The answer to a reservation of `tokens`; throttled: a 429 that named no delay. */
void mpp_rate_done(struct mpp_rate *r, double tokens, const struct mpp_outcome *outcome,
                   int throttled, mp__time now);

/* Share of the emptier bucket that is left, 0..1; 1 without limits. */
double mpp_rate_room(struct mpp_rate *r, mp__time now);

#endif

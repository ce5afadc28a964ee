/*
 * breaker.h - one endpoint's circuit breaker; with several endpoints the same state is passive
 * ejection (after Envoy's outlier detection).
 *
 * Opens after `consecutive` gateway or transport failures in a row, or when at least `ratio` of at
 * least `min_requests` in the window failed. Open lasts `open` s, doubled each time a probe fails,
 * up to open_max, +- 10 %; then one probe at a time. Any sign of life closes it, be it the late
 * answer of an attempt that was sent before it opened.
 *
 * A row of failures opens it only while they are also the window's majority: under many requests in
 * flight five failures in a row are ordinary luck at an error rate of a third.
 */
#ifndef MP_POLICY_BREAKER_H
#define MP_POLICY_BREAKER_H

#include "policy/core.h"

#define MPP_BREAKER_SLICES 10

enum mpp_breaker_state { MPP_BREAKER_CLOSED = 0, MPP_BREAKER_OPEN, MPP_BREAKER_HALF };

struct mpp_breaker {
    uint8_t state;
    uint8_t probing; /* half open, and its probe is on its way */
    uint32_t consecutive;
    mp__time until;  /* open: not before */
    double open_for; /* s, of the last opening */
    int64_t slice;   /* number of the newest slice */
    uint32_t ok[MPP_BREAKER_SLICES], failed[MPP_BREAKER_SLICES];
    uint64_t opened; /* times */
};

enum mpp_breaker_vote { MPP_VOTE_NONE = 0, MPP_VOTE_ALIVE, MPP_VOTE_FAILED, MPP_VOTE_GATEWAY };

/* What an outcome says about its endpoint: gateway and transport faults weigh double (they open
 * by themselves), other 5xx count for the ratio, any other answer is a sign of life. */
enum mpp_breaker_vote mpp_breaker_vote(const struct mpp_outcome *outcome);

/* May a request go? 1, or 0 with *wake lowered to when it may (NEVER: when the probe is back).
 * An open breaker whose time has come turns half open here. */
int mpp_breaker_allows(struct mpp_breaker *b, mp__time now, mp__time *wake);

/* may_open: 0 keeps it closed whatever happens. Returns 1 when it opened now. */
int mpp_breaker_record(struct mpp_breaker *b, const struct mp_breaker_policy *policy,
                       enum mpp_breaker_vote vote, int was_probe, int may_open, mp__time now,
                       uint64_t *rng);

#endif

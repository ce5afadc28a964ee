/*
 * retry.h - what an outcome means, how long to wait, and whether the budget allows it.
 *
 * Delay: full jitter, rand(0, min(cap, base * 2^(n-1))) (AWS Architecture Blog, "Exponential
 * Backoff And Jitter"); a server's delay is a minimum, plus rand(0, 10 %).
 * Budget: a token bucket an endpoint (after Finagle's RetryBudget and gRPC A6): + budget per first
 * attempt, - 1 per retry. Counted in millionths, so that ten tenths are exactly one. One token of
 * twenty that were earned, five at most, may be kept for those whom only the clock lets go.
 */
#ifndef MP_POLICY_RETRY_H
#define MP_POLICY_RETRY_H

#include "policy/core.h"

#define MPP_MAX_ATTEMPTS 20 /* whatever a policy says */

struct mpp_judgement {
    enum mpp_class cls;
    uint8_t retry;       /* a retry may heal it */
    uint8_t unbudgeted;  /* a 429 with a server delay: the server itself said when */
    double server_delay; /* s, < 0: none or not to be respected */
};

/* decode_faults: broken 2xx bodies this part has had before; the second one is fatal. */
void mpp_judge(const struct mp_retry_policy *policy, const struct mpp_outcome *outcome,
               unsigned decode_faults, struct mpp_judgement *out);

/* s before the retry after the n-th failure (n >= 1). */
double mpp_backoff(const struct mp_retry_policy *policy, const struct mpp_judgement *judgement,
                   unsigned n, uint64_t *rng);

struct mpp_budget {
    int64_t level, earn, cap; /* millionths of a token */
    int64_t kept, keep;       /* of the level; the most that is kept */
    int64_t earned;           /* since a token was kept */
};

void mpp_budget_init(struct mpp_budget *budget, double reserve, double earn, double cap);
void mpp_budget_earn(struct mpp_budget *budget);
int mpp_budget_take(struct mpp_budget *budget); /* 1: a token was taken */
/* 1: a token was taken, kept ones too. 0: none was there; as many as may be kept are taken on credit,
 * which first attempts pay back. */
int mpp_budget_borrow(struct mpp_budget *budget);

static inline double mpp_budget_level(const struct mpp_budget *budget)
{
    return budget->level > 0 ? (double)budget->level / 1e6 : 0;
}

#endif

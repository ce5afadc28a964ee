#include "policy/retry.h"

#include "base/prng.h"

static int transport_fault(const struct mpp_outcome *o)
{
    switch (o->kind) {
    case MP_KIND_CONNECT:
    case MP_KIND_CONNECT_TIMEOUT:
    case MP_KIND_READ_TIMEOUT:
    case MP_KIND_WRITE_TIMEOUT:
    case MP_KIND_TOTAL_TIMEOUT: /* of one attempt; the call's deadline ends the part elsewhere */
        return 1;
    case MP_KIND_HTTP:
        return o->status == 0;
    default:
        return 0;
    }
}

/* What kind of fault it is; before the request left, a timeout is both. */
static unsigned fault_bits(const struct mpp_outcome *o)
{
    switch (o->kind) {
    case MP_KIND_CONNECT_TIMEOUT:
        return MP_FAULT_CONNECT | MP_FAULT_TIMEOUT;
    case MP_KIND_READ_TIMEOUT:
    case MP_KIND_WRITE_TIMEOUT:
    case MP_KIND_TOTAL_TIMEOUT:
        return MP_FAULT_TIMEOUT;
    default:
        return o->never_sent ? MP_FAULT_CONNECT : MP_FAULT_LOST;
    }
}

static void judge_status(const struct mp_retry_policy *policy, const struct mpp_outcome *o,
                         struct mpp_judgement *out)
{
    unsigned status = (unsigned)o->status;

    out->retry = (uint8_t)mp_status_has(policy->on, status);
    if (o->hints.should_retry >= 0)
        out->retry = (uint8_t)(o->hints.should_retry > 0);
    if (status == 429 || status == 529 || (status == 503 && out->server_delay > 0))
        out->cls = MPP_THROTTLED;
    else
        out->cls = out->retry ? MPP_TRANSIENT : MPP_FATAL;
    out->unbudgeted = (uint8_t)(status == 429 && out->server_delay > 0);
}

void mpp_judge(const struct mp_retry_policy *policy, const struct mpp_outcome *o,
               unsigned decode_faults, struct mpp_judgement *out)
{
    *out = (struct mpp_judgement){.cls = MPP_FATAL, .server_delay = -1};
    if (o->kind == MP_KIND_NONE) {
        out->cls = MPP_OK;
        return;
    }
    if (policy->respect_retry_after) {
        struct mpp_hints hints = o->hints;

        mpp_hints_settle(&hints, o->status);
        if (hints.retry_after > 0)
            out->server_delay = hints.retry_after;
    }
    if (o->kind == MP_KIND_CANCELLED || o->kind == MP_KIND_CLOSED) {
        out->cls = MPP_CANCELLED;
    } else if (o->kind == MP_KIND_DECODE) {
        out->retry = (uint8_t)((policy->transport & MP_FAULT_LOST) && decode_faults == 0 &&
                               o->hints.should_retry != 0);
        out->cls = out->retry ? MPP_TRANSIENT : MPP_FATAL;
    } else if (transport_fault(o)) {
        unsigned wanted = policy->transport & fault_bits(o);
        out->retry = (uint8_t)(wanted && o->hints.should_retry != 0);
        out->cls = out->retry || !wanted ? MPP_TRANSIENT : MPP_FATAL;
    } else if (o->status >= 300 && (o->kind == MP_KIND_HTTP || o->kind == MP_KIND_RATE_LIMITED)) {
        judge_status(policy, o, out);
    }
    /* A delay too long to wait for is a refusal. */
    if (out->server_delay > policy->max_server_delay)
        out->retry = 0;
}

double mpp_backoff(const struct mp_retry_policy *policy, const struct mpp_judgement *judgement,
                   unsigned n, uint64_t *rng)
{
    double wait = judgement->cls == MPP_THROTTLED ? policy->throttle_base : policy->base;

    if (judgement->server_delay > 0)
        return judgement->server_delay * (1 + 0.1 * mp__random01(rng));
    while (n-- > 1 && wait < policy->cap)
        wait *= 2;
    if (wait > policy->cap)
        wait = policy->cap;
    return wait * mp__random01(rng);
}

static int64_t micro(double tokens)
{
    if (!(tokens > 0))
        return 0;
    return tokens > 1e9 ? INT64_C(1000000000000000) : (int64_t)(tokens * 1e6 + 0.5);
}

#define TOKEN INT64_C(1000000)

void mpp_budget_init(struct mpp_budget *budget, double reserve, double earn, double cap)
{
    budget->kept = budget->keep = budget->earned = 0;
    budget->earn = micro(earn);
    budget->cap = micro(cap > reserve ? cap : reserve);
    budget->level = micro(reserve);
}

void mpp_budget_earn(struct mpp_budget *budget)
{
    budget->level += budget->earn;
    if (budget->level > budget->cap)
        budget->level = budget->cap;
    if (budget->kept >= budget->keep)
        return;
    budget->earned += budget->earn;
    if (budget->earned >= 20 * TOKEN) {
        budget->earned = 0;
        budget->kept += TOKEN;
    }
}

int mpp_budget_take(struct mpp_budget *budget)
{
    if (budget->level - budget->kept < TOKEN)
        return 0;
    budget->level -= TOKEN;
    return 1;
}

int mpp_budget_borrow(struct mpp_budget *budget)
{
    int covered = budget->level >= TOKEN;

    if (budget->level - TOKEN >= -budget->keep)
        budget->level -= TOKEN;
    budget->kept = budget->kept > TOKEN ? budget->kept - TOKEN : 0;
    return covered;
}

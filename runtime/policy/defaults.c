/* defaults.c - the presets: what a policy is before anybody says anything. */
#include "policy/core.h"

#include <string.h>

void mp_status_set(uint32_t *bits, unsigned status, int on)
{
    if (status >= MP_STATUS_WORDS * 32)
        return;
    if (on)
        bits[status / 32] |= UINT32_C(1) << (status % 32);
    else
        bits[status / 32] &= ~(UINT32_C(1) << (status % 32));
}

int mp_status_has(const uint32_t *bits, unsigned status)
{
    if (status >= MP_STATUS_WORDS * 32)
        return 0;
    return bits[status / 32] >> (status % 32) & 1;
}

static void retry_defaults(struct mp_retry_policy *retry)
{
    unsigned status;

    retry->max_attempts = 6;
    retry->base = 0.25;
    retry->throttle_base = 1;
    retry->cap = 30;
    retry->max_server_delay = 120;
    retry->budget = 0.1;
    retry->reserve = 10;
    retry->budget_cap = 100;
    retry->transport = MP_FAULT_ANY;
    retry->respect_retry_after = 1;
    mp_status_set(retry->on, 408, 1);
    mp_status_set(retry->on, 409, 1);
    mp_status_set(retry->on, 425, 1);
    mp_status_set(retry->on, 429, 1);
    for (status = 500; status < 600; status++)
        mp_status_set(retry->on, status, 1);
}

/* No breaker: a job waits for its server either way, and the budget already keeps an outage cheap;
 * an open breaker would only stop a server that fails half of its requests from serving the rest. */
static void job_defaults(struct mp_policy *policy)
{
    retry_defaults(&policy->retry);
    policy->hedge.budget = 0.05;
    policy->hedge.reserve = 2;
    policy->rate.share = 0.95;
    policy->concurrency.limit = 4;
    policy->concurrency.max = 256;
    policy->concurrency.min = 1;
    policy->batch.size = MPP_BATCH_ROWS;
    policy->breaker.consecutive = 5;
    policy->breaker.ratio = 0.5;
    policy->breaker.min_requests = 20;
    policy->breaker.window = 10;
    policy->breaker.open = 5;
    policy->breaker.open_max = 60;
    policy->route.mode = MP_ROUTE_P2C;
    policy->route.eject = 1;
}

/* A person waits: fewer attempts, shorter waits, and the answer "no" at once. */
static void interactive(struct mp_policy *policy)
{
    policy->retry.max_attempts = 3;
    policy->retry.cap = 8;
    policy->retry.max_server_delay = 20;
    policy->retry.fail_fast = 1;
    policy->breaker.enabled = 1;
}

static void gateway(struct mp_policy *policy)
{
    policy->retry.max_attempts = 2;
    policy->retry.cap = 2;
    policy->retry.max_server_delay = 5;
    policy->retry.fail_fast = 1;
    policy->breaker.enabled = 1;
    policy->route.mode = MP_ROUTE_P2C;
}

static void none(struct mp_policy *policy)
{
    policy->retry.max_attempts = 1;
    policy->retry.respect_retry_after = 0;
    policy->route.eject = 0;
}

void mp_policy_init(struct mp_policy *policy, enum mp_preset preset)
{
    memset(policy, 0, sizeof(*policy));
    policy->size = sizeof(*policy);
    job_defaults(policy);
    if (preset == MP_PRESET_GATEWAY)
        gateway(policy);
    else if (preset == MP_PRESET_INTERACTIVE)
        interactive(policy);
    else if (preset == MP_PRESET_NONE)
        none(policy);
}

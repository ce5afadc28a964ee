/*
 * Ten thousand random scenarios: policy, servers, load and misfortune drawn from a seed, run
 * through the simulator, which watches the promises of the core (see sim.c).
 *
 * POLICY_SCENARIOS=first,count runs others; a failing seed is printed and runs alone with
 * POLICY_SCENARIOS=seed,1.
 */
#include "policy_rig.h"
#include "base/prng.h"
#include "sim/sim.h"

static double between(uint64_t *rng, double a, double b)
{
    return a + (b - a) * mp__random01(rng);
}

static int chance(uint64_t *rng, double p)
{
    return mp__random01(rng) < p;
}

static void draw_server(uint64_t *rng, struct mp__sim_server *s)
{
    static const int statuses[] = {500, 502, 503, 429, 408, 400};

    s->median = between(rng, 0.001, 0.3);
    s->sigma = between(rng, 0, 0.8);
    s->weight = chance(rng, 0.2) ? between(rng, 0.1, 5) : 1;
    s->places = chance(rng, 0.5) ? 1 + (uint32_t)between(rng, 0, 40) : 0;
    s->queue = chance(rng, 0.3) ? 1 + (uint32_t)between(rng, 0, 20) : 0;
    if (chance(rng, 0.4)) {
        s->stall_share = between(rng, 0, 0.1);
        s->stall = between(rng, 0.5, 10);
    }
    if (chance(rng, 0.4)) {
        s->error_share = chance(rng, 0.2) ? 1 : between(rng, 0, 0.5);
        s->error_status = statuses[mp__random(rng) % 6];
    }
    if (chance(rng, 0.3)) {
        s->rpm = chance(rng, 0.7) ? between(rng, 120, 6000) : 0;
        s->tpm = chance(rng, 0.7) ? between(rng, 12000, 600000) : 0;
        s->quota_tells = mp__random(rng) % 3;
    }
    if (chance(rng, 0.4)) {
        s->outage_from = between(rng, 0, 5);
        s->outage_to = s->outage_from + between(rng, 0.1, 20);
        s->outage = (enum mp__sim_outage)(mp__random(rng) % 4);
        s->outage_delay = chance(rng, 0.3) ? between(rng, 0.1, 4) : 0;
    }
}

static void draw_policy(uint64_t *rng, struct mp_policy *p)
{
    mp_policy_init(p, (enum mp_preset)(mp__random(rng) % 4));
    if (chance(rng, 0.5))
        p->retry.max_attempts = 1 + (uint32_t)(mp__random(rng) % 8);
    if (chance(rng, 0.3))
        p->retry.reserve = (double)(mp__random(rng) % 4);
    if (chance(rng, 0.3))
        p->retry.budget = between(rng, 0, 0.5);
    if (chance(rng, 0.3))
        p->retry.fail_fast = !p->retry.fail_fast;
    if (chance(rng, 0.2))
        p->retry.cap = between(rng, 0, 3);
    if (chance(rng, 0.5)) {
        p->hedge.delay = chance(rng, 0.5) ? between(rng, 0.005, 1) : 0;
        p->hedge.factor = between(rng, 0.5, 3);
        p->hedge.percentile = between(rng, 0.5, 0.99);
        p->hedge.budget = between(rng, 0.001, 0.5);
        p->hedge.reserve = (double)(mp__random(rng) % 4);
    }
    if (chance(rng, 0.3)) {
        p->rate.rpm = between(rng, 120, 6000);
        p->rate.tpm = chance(rng, 0.5) ? between(rng, 12000, 600000) : 0;
    }
    p->concurrency.mode = mp__random(rng) % 3;
    if (p->concurrency.mode == MP_CONC_FIXED)
        p->concurrency.limit = 1 + (uint32_t)(mp__random(rng) % 40);
    if (chance(rng, 0.2))
        p->breaker.enabled = !p->breaker.enabled;
    p->route.mode = mp__random(rng) % 4;
    p->route.eject = chance(rng, 0.8);
}

static void draw(uint64_t seed, struct mp__sim *sim)
{
    uint64_t rng = seed * UINT64_C(0x2545f4914f6cdd1d) + 1;
    uint32_t i;

    mp__sim_init(sim, MP_PRESET_JOB);
    sim->seed = seed;
    draw_policy(&rng, &sim->policy);
    sim->nservers = chance(&rng, 0.5) ? 1 : 1 + (uint32_t)(mp__random(&rng) % 4);
    for (i = 0; i < sim->nservers; i++)
        draw_server(&rng, &sim->servers[i]);
    sim->pool = 1 + (uint32_t)(mp__random(&rng) % 64);
    sim->parts = 1 + mp__random(&rng) % 120;
    sim->rows = 1 + (uint32_t)(mp__random(&rng) % 40);
    sim->tokens = between(&rng, 0, 40);
    sim->rate = chance(&rng, 0.4) ? between(&rng, 5, 400) : 0;
    sim->concurrency = 1 + (uint32_t)(mp__random(&rng) % 100);
    sim->attempt_timeout = between(&rng, 0.3, 8);
    sim->total_timeout = chance(&rng, 0.3) ? between(&rng, 0.5, 30) : 0;
    sim->pool_timeout = chance(&rng, 0.2) ? between(&rng, 0.01, 3) : 0;
    sim->poison_share = chance(&rng, 0.15) ? between(&rng, 0, 0.02) : 0;
    sim->cancel_share = chance(&rng, 0.2) ? 0.3 : 0;
    sim->drain_losers = mp__random(&rng) & 1;
    sim->hasty = chance(&rng, 0.3) ? between(&rng, 0, 0.7) : 0;
    sim->spread = chance(&rng, 0.5) ? between(&rng, 0, 0.9) : 0;
    for (i = 0; i < sim->nservers && chance(&rng, 0.3); i++) {
        static const int statuses[] = {400, 413, 422, 504, -1};

        sim->servers[i].too_large = statuses[mp__random(&rng) % 5];
        if (chance(&rng, 0.6))
            sim->servers[i].most_rows = 1 + (uint32_t)(mp__random(&rng) % 40);
        else
            sim->servers[i].most_bytes = 100 + mp__random(&rng) % 4000;
    }
}

static void ten_thousand_scenarios_keep_every_promise(void **state)
{
    const char *env = getenv("POLICY_SCENARIOS");
    unsigned long first = 1, count = 10000, seed;
    unsigned long long attempts = 0, rows = 0;
    double simulated = 0;

    (void)state;
    if (env != NULL)
        sscanf(env, "%lu,%lu", &first, &count);
    for (seed = first; seed < first + count; seed++) {
        struct mp__sim sim;
        struct mp__sim_result r;

        draw(seed, &sim);
        assert_int_equal(mp__sim_run(&sim, &r), MP_OK);
        if (r.violations)
            fail_msg("seed %lu: %s (%llu in all)", seed, r.violation,
                     (unsigned long long)r.violations);
        attempts += r.attempts;
        rows += r.rows_ok + r.rows_failed;
        simulated += r.makespan;
    }
    print_message("seeds %lu..%lu: %llu attempts, %llu rows, %.0f s simulated\n", first,
                  first + count - 1, attempts, rows, simulated);
}

static void same_seed_same_trace(void **state)
{
    uint64_t seed, different = 0;

    (void)state;
    for (seed = 1; seed <= 300; seed++) {
        struct mp__sim sim;
        struct mp__sim_result a, b, c;

        draw(seed, &sim);
        assert_int_equal(mp__sim_run(&sim, &a), MP_OK);
        assert_int_equal(mp__sim_run(&sim, &b), MP_OK);
        assert_true(a.trace == b.trace && a.steps == b.steps);
        sim.seed += 1000000;
        assert_int_equal(mp__sim_run(&sim, &c), MP_OK);
        different += c.trace != a.trace;
    }
    assert_true(different > 290);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ten_thousand_scenarios_keep_every_promise),
        cmocka_unit_test(same_seed_same_trace),
    };

    return cmocka_run_group_tests_name("sim_scenarios", tests, NULL, NULL);
}

/* The figures that the defaults must reach, in the simulator; seeds are in the output. */
#include "policy_rig.h"
#include "sim/sim.h"

#define SECONDS 500

static struct mp__sim_second S[SECONDS];

static void run(struct mp__sim *sim, struct mp__sim_result *r)
{
    memset(S, 0, sizeof(S));
    sim->seconds = S;
    sim->nseconds = SECONDS;
    assert_int_equal(mp__sim_run(sim, r), MP_OK);
    if (r->violations)
        fail_msg("seed %llu: %s", (unsigned long long)sim->seed, r->violation);
}

static double mean_ok(int from, int to)
{
    double sum = 0;
    int i;

    for (i = from; i < to; i++)
        sum += S[i].ok;
    return sum / (to - from);
}

/* 1 % of 20,000 requests stall for 5 s: p99.9 <= 5 * p50 with at most 2 % more requests. */
static void hedging_hides_stalls(void **state)
{
    uint64_t seed;

    (void)state;
    for (seed = 1; seed <= 8; seed++) {
        struct mp__sim sim;
        struct mp__sim_result r;

        mp__sim_init(&sim, MP_PRESET_JOB);
        sim.seed = seed;
        sim.parts = 20000;
        sim.concurrency = 32;
        sim.servers[0].median = 0.02;
        sim.servers[0].sigma = 0.2;
        sim.servers[0].stall_share = 0.01;
        sim.servers[0].stall = 5;
        sim.policy.hedge.factor = 2;
        sim.policy.hedge.percentile = 0.95;
        run(&sim, &r);
        print_message("seed %llu: p50 %.4f p99.9 %.4f, %.2f %% more requests\n",
                      (unsigned long long)seed, r.p50, r.p999,
                      100.0 * (double)(r.attempts - r.parts) / (double)r.parts);
        assert_true(r.p999 <= 5 * r.p50);
        assert_true(r.attempts <= r.parts * 1.02);
        assert_int_equal(r.ok, 20000);
    }
}

/* 30 s without service: few attempts in vain, no row lost, full throughput within 15 s. */
static void an_outage_costs_little_and_ends_soon(void **state)
{
    static const char *const names[] = {"refused", "503", "silent", "429"};
    int kind, phase;

    (void)state;
    for (kind = 0; kind < 4; kind++) {
        for (phase = 0; phase < 6; phase++) {
            struct mp__sim sim;
            struct mp__sim_result r;
            int i, back = -1;
            double base;

            mp__sim_init(&sim, MP_PRESET_JOB);
            sim.seed = 100 + (uint64_t)phase;
            sim.duration = 120;
            sim.concurrency = 32;
            sim.attempt_timeout = 10;
            sim.servers[0].sigma = 0.2;
            sim.servers[0].outage = (enum mp__sim_outage)kind;
            sim.servers[0].outage_from = 30 + phase / 6.0;
            sim.servers[0].outage_to = 60;
            run(&sim, &r);
            base = mean_ok(10, 29);
            for (i = 60; i < 119 && back < 0; i++)
                if (S[i].ok >= 0.95 * base)
                    back = i - 60;
            print_message("%s, seed %d: back after %d s, %.3f attempts a request\n", names[kind],
                          100 + phase, back, (double)r.attempts / (double)r.parts);
            assert_in_range(back, 0, 15);
            assert_true((double)r.attempts <= 1.10 * (double)r.parts + sim.policy.retry.reserve);
            assert_int_equal(r.failed, 0);
        }
    }
}

/* Nothing ever answers: 1.10 attempts a request, the reserve, and the counted trickle. */
static void a_total_outage_is_not_amplified(void **state)
{
    int kind, breaker;

    (void)state;
    for (kind = 0; kind < 4; kind++) {
        for (breaker = 0; breaker < 2; breaker++) {
            struct mp__sim sim;
            struct mp__sim_result r;

            mp__sim_init(&sim, MP_PRESET_JOB);
            sim.rate = 100;
            sim.duration = 60;
            sim.total_timeout = 30;
            sim.attempt_timeout = 1;
            sim.policy.breaker.enabled = (uint32_t)breaker;
            sim.servers[0].outage = (enum mp__sim_outage)kind;
            sim.servers[0].outage_to = 1e9;
            run(&sim, &r);
            print_message("kind %d breaker %d: %llu requests, %llu attempts, %llu by the trickle\n",
                          kind, breaker, (unsigned long long)r.parts,
                          (unsigned long long)r.attempts, (unsigned long long)r.released);
            assert_true((double)r.attempts <=
                        1.10 * (double)r.first + sim.policy.retry.reserve + (double)r.released);
            assert_true(r.released <= 12);
        }
    }
}

/* All are sent at once, then nothing new: what the clock lets go is within the budget too. */
static void a_burst_into_an_outage_keeps_the_budget(void **state)
{
    int kind;

    (void)state;
    for (kind = 0; kind < 4; kind++) {
        struct mp__sim sim;
        struct mp__sim_result r;

        mp__sim_init(&sim, MP_PRESET_JOB);
        sim.rate = 5000;
        sim.parts = 2000;
        sim.total_timeout = 20;
        sim.attempt_timeout = 1;
        sim.servers[0].outage = (enum mp__sim_outage)kind;
        sim.servers[0].outage_to = 1e9;
        run(&sim, &r);
        print_message("kind %d: %llu requests sent, %llu attempts\n", kind,
                      (unsigned long long)r.first, (unsigned long long)r.attempts);
        assert_true((double)r.attempts <= 1.10 * (double)r.first + sim.policy.retry.reserve);
    }
}

/* 600 requests and 60,000 tokens a minute, enforced each second, from the second minute on. */
static void a_declared_quota_is_used_without_429s(void **state)
{
    int tells;

    (void)state;
    for (tells = 0; tells < 3; tells++) {
        struct mp__sim sim;
        struct mp__sim_result r;
        double ok = 0, tokens = 0, throttled = 0, attempts = 0;
        int i;

        mp__sim_init(&sim, MP_PRESET_JOB);
        sim.policy.rate.rpm = 600;
        sim.policy.rate.tpm = 60000;
        sim.duration = 361;
        sim.concurrency = 32;
        sim.tokens = 100;
        sim.servers[0].median = 0.2;
        sim.servers[0].sigma = 0.2;
        sim.servers[0].rpm = 600;
        sim.servers[0].tpm = 60000;
        sim.servers[0].quota_tells = (uint8_t)tells;
        run(&sim, &r);
        for (i = 60; i < 360; i++) {
            ok += S[i].ok;
            tokens += S[i].tokens;
            throttled += S[i].throttled;
            attempts += S[i].attempts;
        }
        print_message("tells %d: %.1f %% of requests, %.1f %% of tokens, %.2f %% 429\n", tells,
                      ok / 30, tokens / 3000, 100 * throttled / attempts);
        assert_true(ok >= 0.93 * 3000);
        assert_true(throttled <= 0.005 * attempts);
    }
}

static double best_fixed(uint32_t places)
{
    double best = 0;
    uint32_t limit;

    for (limit = 4; limit <= 256; limit *= 2) {
        struct mp__sim sim;
        struct mp__sim_result r;

        mp__sim_init(&sim, MP_PRESET_JOB);
        sim.duration = 21;
        sim.concurrency = 256;
        sim.servers[0].median = 0.1;
        sim.servers[0].sigma = 0.2;
        sim.servers[0].places = places;
        sim.policy.concurrency.mode = MP_CONC_FIXED;
        sim.policy.concurrency.limit = limit;
        run(&sim, &r);
        if (mean_ok(1, 20) > best)
            best = mean_ok(1, 20);
    }
    return best;
}

/* 90 % of the best fixed limit after ten round trips of 0.1 s, 95 % held. */
static void adaptive_concurrency_finds_the_limit(void **state)
{
    static const uint32_t places[] = {8, 32, 64};
    size_t k;

    (void)state;
    for (k = 0; k < sizeof(places) / sizeof(places[0]); k++) {
        double best = best_fixed(places[k]);
        struct mp__sim sim;
        struct mp__sim_result r;

        mp__sim_init(&sim, MP_PRESET_JOB);
        sim.duration = 90;
        sim.concurrency = 256;
        sim.servers[0].median = 0.1;
        sim.servers[0].sigma = 0.2;
        sim.servers[0].places = places[k];
        sim.policy.concurrency.mode = MP_CONC_ADAPTIVE;
        run(&sim, &r);
        print_message("%u places: best %.0f/s, second 2 %.0f/s, then %.0f/s, limit %u\n", places[k],
                      best, mean_ok(1, 2), mean_ok(2, 89), S[88].limit);
        assert_true(mean_ok(1, 2) >= 0.90 * best);
        assert_true(mean_ok(2, 89) >= 0.95 * best);
    }
}

/* One of three is ten times slower, one is dead: the capacity of the two that work, no row lost. */
static void a_slow_and_a_dead_endpoint_cost_little(void **state)
{
    int mode;

    (void)state;
    for (mode = MP_ROUTE_WEIGHTED; mode <= MP_ROUTE_P2C; mode++) {
        struct mp__sim sim;
        struct mp__sim_result r;
        double capacity = 8 / 0.0204 + 8 / 0.204; /* the mean of a log-normal, sigma 0.2 */
        int i;

        mp__sim_init(&sim, MP_PRESET_JOB);
        sim.nservers = 3;
        sim.duration = 60;
        sim.concurrency = 32;
        sim.policy.route.mode = (uint32_t)mode;
        for (i = 0; i < 3; i++) {
            sim.servers[i].median = i == 1 ? 0.2 : 0.02;
            sim.servers[i].sigma = 0.2;
            sim.servers[i].places = 8;
        }
        sim.servers[2].outage_from = -1;
        sim.servers[2].outage_to = 1e9;
        run(&sim, &r);
        print_message("mode %d: %.1f %% of the capacity\n", mode, 100 * mean_ok(1, 59) / capacity);
        assert_true(mean_ok(1, 59) >= 0.95 * capacity);
        assert_int_equal(r.failed, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hedging_hides_stalls),
        cmocka_unit_test(an_outage_costs_little_and_ends_soon),
        cmocka_unit_test(a_total_outage_is_not_amplified),
        cmocka_unit_test(a_burst_into_an_outage_keeps_the_budget),
        cmocka_unit_test(a_declared_quota_is_used_without_429s),
        cmocka_unit_test(adaptive_concurrency_finds_the_limit),
        cmocka_unit_test(a_slow_and_a_dead_endpoint_cost_little),
    };

    return cmocka_run_group_tests_name("sim_figures", tests, NULL, NULL);
}

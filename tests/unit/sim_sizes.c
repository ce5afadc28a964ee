/* Limits of size that nobody told: every row, and few requests more than the least. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "sim/sim.h"

static uint64_t log2_up(uint64_t n)
{
    uint64_t k = 0;

    while ((UINT64_C(1) << k) < n)
        k++;
    return k;
}

static void run(const struct mp__sim *sim, struct mp__sim_result *out)
{
    assert_int_equal(mp__sim_run(sim, out), 0);
    if (out->violations)
        fail_msg("%s", out->violation);
}

/* least: requests if the limit were known. */
static void expect(const struct mp__sim *sim, uint64_t least, const char *what)
{
    struct mp__sim_result r;
    uint64_t most = least + least / 5 + 2 * log2_up(sim->total_rows);

    run(sim, &r);
    print_message(
        "%-40s %4llu of at most %4llu requests, %llu refused, limit %llu rows %llu bytes, "
        "%.2f s\n",
        what, (unsigned long long)r.attempts, (unsigned long long)most,
        (unsigned long long)r.too_large, (unsigned long long)r.limit.rows,
        (unsigned long long)r.limit.bytes, r.makespan);
    assert_int_equal(r.rows_ok, sim->total_rows);
    assert_int_equal(r.rows_failed, 0);
    assert_true(r.attempts <= most);
}

static void init(struct mp__sim *sim)
{
    mp__sim_init(sim, MP_PRESET_JOB);
    sim->rows = 128;
    sim->total_rows = 3000;
    sim->tokens = 10;
}

static void unknown_limits_of_rows(void **state)
{
    static const uint32_t limits[] = {1,  2,  3,  5,  7,  10, 11,  16, 25,
                                      31, 32, 33, 64, 77, 96, 100, 127};
    struct mp__sim sim;
    size_t i;

    (void)state;
    for (i = 0; i < sizeof(limits) / sizeof(*limits); i++) {
        char what[40];

        init(&sim);
        sim.servers[0].most_rows = limits[i];
        sim.spread = 0.5;
        snprintf(what, sizeof(what), "at most %u rows", limits[i]);
        expect(&sim, (3000 + limits[i] - 1) / limits[i], what);
    }
}

static uint64_t least_by_bytes(const struct mp__sim *sim, uint64_t most)
{
    uint32_t each = sim->bytes ? sim->bytes : 100;

    return (uint64_t)ceil((double)sim->total_rows / floor((double)most / each));
}

static void unknown_limits_of_bytes(void **state)
{
    static const uint64_t limits[] = {900, 1500, 4000, 12000, 100000};
    struct mp__sim sim;
    size_t i;

    (void)state;
    for (i = 0; i < sizeof(limits) / sizeof(*limits); i++) {
        char what[40];
        int spread;

        for (spread = 0; spread < 2; spread++) {
            init(&sim);
            sim.bytes = 45;
            sim.spread = spread ? 0.6 : 0;
            sim.servers[0].most_bytes = limits[i];
            sim.servers[0].too_large = spread ? 413 : 400;
            snprintf(what, sizeof(what), "at most %llu bytes, %d", (unsigned long long)limits[i],
                     sim.servers[0].too_large);
            expect(&sim, least_by_bytes(&sim, limits[i]) + (spread ? 8 : 0), what);
            if (!spread)
                continue;
            sim.servers[0].too_large = 400;
            expect(&sim, least_by_bytes(&sim, limits[i]) + 8, "the same, 400");
        }
    }
}

static void a_gateway_that_gives_up(void **state)
{
    static const uint32_t limits[] = {10, 40, 100};
    struct mp__sim sim;
    size_t i;

    (void)state;
    for (i = 0; i < sizeof(limits) / sizeof(*limits); i++) {
        init(&sim);
        sim.servers[0].most_rows = limits[i];
        sim.servers[0].too_large = 504;
        expect(&sim, (3000 + limits[i] - 1) / limits[i], "504");
        sim.servers[0].too_large = -1;
        sim.attempt_timeout = 0.5;
        expect(&sim, (3000 + limits[i] - 1) / limits[i], "no answer in time");
    }
}

static void small_calls(void **state)
{
    struct mp__sim sim;
    uint32_t n;

    (void)state;
    for (n = 2; n < 600; n = n * 5 / 4 + 1) {
        init(&sim);
        sim.total_rows = n;
        sim.servers[0].most_rows = 7;
        expect(&sim, (n + 6) / 7, "at most 7 rows");
        sim.servers[0].most_rows = 1;
        expect(&sim, n, "single rows");
    }
}

/* Poison among the rows of a server with a limit: only the poison is lost. */
static void poison_and_a_limit(void **state)
{
    struct mp__sim sim;
    struct mp__sim_result r;
    uint64_t seed;

    (void)state;
    for (seed = 1; seed <= 40; seed++) {
        uint64_t poison = 0, i;

        init(&sim);
        sim.seed = seed;
        sim.poison_share = 0.004;
        sim.servers[0].most_rows = seed % 3 ? 20 : 0;
        run(&sim, &r);
        for (i = 0; i < 1; i++)
            poison = r.rows_failed;
        assert_int_equal(r.rows_ok + r.rows_failed, 3000);
        assert_in_range(poison, 1, 30);
        assert_true(r.attempts <= 24 + 2 * 12 + 150 + 36 + 16 * poison);
    }
}

static void nothing_to_learn_costs_nothing(void **state)
{
    struct mp__sim sim;
    struct mp__sim_result r;

    (void)state;
    init(&sim);
    sim.spread = 0.9;
    run(&sim, &r);
    assert_int_equal(r.attempts, 24);
    assert_int_equal(r.rows_ok, 3000);
    assert_int_equal(r.limit.rows + r.limit.bytes, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unknown_limits_of_rows),  cmocka_unit_test(unknown_limits_of_bytes),
        cmocka_unit_test(a_gateway_that_gives_up), cmocka_unit_test(small_calls),
        cmocka_unit_test(poison_and_a_limit),      cmocka_unit_test(nothing_to_learn_costs_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

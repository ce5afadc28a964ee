/* The simulator itself: its distributions, its load, its series and its end. */
#include "policy_rig.h"
#include "sim/sim.h"

#define SECONDS 200

static struct mp__sim_second S[SECONDS];

static struct mp__sim a_sim(void)
{
    struct mp__sim sim;

    mp__sim_init(&sim, MP_PRESET_JOB);
    sim.concurrency = 8;
    memset(S, 0, sizeof(S));
    sim.seconds = S;
    sim.nseconds = SECONDS;
    return sim;
}

static struct mp__sim_result run(const struct mp__sim *sim)
{
    struct mp__sim_result r;

    assert_int_equal(mp__sim_run(sim, &r), MP_OK);
    if (r.violations)
        fail_msg("%s", r.violation);
    return r;
}

static void service_times_follow_their_distribution(void **state)
{
    static const double samples[] = {0.010, 0.010, 0.010, 0.500};
    struct mp__sim sim = a_sim();
    struct mp__sim_result r;

    (void)state;
    sim.parts = 20000;
    sim.servers[0].median = 0.1;
    r = run(&sim);
    assert_true(r.p50 > 0.0999 && r.max < 0.1001); /* no spread asked for */
    sim.servers[0].sigma = 0.5;
    r = run(&sim);
    assert_true(r.p50 > 0.098 && r.p50 < 0.102);
    assert_true(r.p90 > 0.182 && r.p90 < 0.198); /* 0.1 * exp(0.5 * 1.2816) = 0.190 */
    sim.servers[0].service = MP__SIM_UNIFORM;
    r = run(&sim);
    assert_true(r.p50 > 0.29 && r.p50 < 0.31 && r.p999 < 0.5001);
    sim.servers[0].service = MP__SIM_EXPONENTIAL;
    r = run(&sim);
    assert_true(r.p50 > 0.067 && r.p50 < 0.072); /* 0.1 * ln 2 */
    sim.servers[0].samples = samples;
    sim.servers[0].nsamples = 4;
    r = run(&sim);
    assert_true(r.p50 > 0.0099 && r.p50 < 0.0101 && r.p90 > 0.499 && r.max < 0.501);
}

static void a_number_of_rows_ends_with_a_smaller_part(void **state)
{
    struct mp__sim sim = a_sim();
    struct mp__sim_result r;

    (void)state;
    sim.total_rows = 1030;
    sim.rows = 100;
    r = run(&sim);
    assert_int_equal(r.parts, 11);
    assert_int_equal(r.rows_ok, 1030);
}

static void each_second_has_its_own_percentiles(void **state)
{
    struct mp__sim sim = a_sim();
    struct mp__sim_result r;
    uint64_t ok = 0;
    int i;

    (void)state;
    sim.duration = 20;
    sim.servers[0].median = 0.1;
    sim.servers[0].sigma = 0.2;
    sim.servers[0].outage = MP__SIM_REFUSE;
    sim.servers[0].outage_from = 5;
    sim.servers[0].outage_to = 8;
    r = run(&sim);
    for (i = 0; i < SECONDS; i++) {
        ok += S[i].ok;
        assert_true((S[i].ok == 0) == (S[i].p50 < 0));
        assert_true(S[i].p50 <= S[i].p99);
    }
    assert_int_equal(ok, r.ok);
    assert_true(S[3].p50 > 0.08 && S[3].p50 < 0.12 && S[3].p99 < 0.3);
    assert_true(S[6].ok == 0); /* nothing came through */
    assert_true(r.max > 2);    /* and some waited for that long */
}

static void a_run_without_an_end_is_cut(void **state)
{
    struct mp__sim sim = a_sim();
    struct mp__sim_result r;

    (void)state;
    sim.parts = 100;
    sim.max_time = 30;
    sim.servers[0].outage = MP__SIM_SILENT;
    sim.servers[0].outage_to = 1e9;
    r = run(&sim);
    assert_int_equal(r.unfinished, 1);
    assert_int_equal(r.ok, 0);
    assert_true(r.makespan <= 30);
}

static int after_three_questions(void *arg)
{
    return ++*(int *)arg == 3;
}

static void a_run_stops_when_told(void **state)
{
    struct mp__sim sim = a_sim();
    struct mp__sim_result r;
    int questions = 0;

    (void)state;
    sim.parts = 1000000;
    sim.stop = after_three_questions;
    sim.stop_arg = &questions;
    r = run(&sim);
    assert_int_equal(questions, 3);
    assert_int_equal(r.unfinished, 1);
    assert_true(r.ok > 0 && r.ok < 100000);
}

static void a_load_without_an_end_is_refused(void **state)
{
    struct mp__sim sim = a_sim();
    struct mp__sim_result r;

    (void)state;
    assert_int_equal(mp__sim_run(&sim, &r), MP_EINVAL);
    sim.parts = 1;
    sim.nservers = 0;
    assert_int_equal(mp__sim_run(&sim, &r), MP_EINVAL);
    sim.nservers = MP__SIM_SERVERS + 1;
    assert_int_equal(mp__sim_run(&sim, &r), MP_EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(service_times_follow_their_distribution),
        cmocka_unit_test(a_number_of_rows_ends_with_a_smaller_part),
        cmocka_unit_test(each_second_has_its_own_percentiles),
        cmocka_unit_test(a_run_without_an_end_is_cut),
        cmocka_unit_test(a_run_stops_when_told),
        cmocka_unit_test(a_load_without_an_end_is_refused),
    };

    return cmocka_run_group_tests_name("sim_simulator", tests, NULL, NULL);
}

/* Hedging: when a second copy goes, which answer counts, what it may cost. */
#include "policy_rig.h"

static struct rig R;

static void open_with_delay(uint32_t endpoints, double delay)
{
    rig_init(&R, endpoints, 200);
    R.policy.hedge.delay = delay;
    rig_open(&R);
}

static void a_slow_request_is_copied_once(void **state)
{
    struct rig_call c;

    (void)state;
    open_with_delay(1, 0.5);
    rig_call(&R, &c, 1, 1);
    rig_wait(&R, 0.499);
    assert_int_equal(R.na, 1);
    rig_wait(&R, 10);
    assert_int_equal(R.na, 2);
    assert_int_equal(R.a[1].is_hedge, 1);
    assert_int_equal(R.a[1].fresh, 1);
    assert_true(R.a[1].part == R.a[0].part);
    rig_ok(&R, 1);
    assert_int_equal(R.aborts, 1);
    assert_int_equal(R.last_abort, 0);
    assert_int_equal(R.parts_ok, 1);
    assert_true(R.last_winner == R.a[1].id);
    assert_int_equal(R.last_facts.hedges, 1);
    assert_int_equal(R.last_facts.attempts, 1);
    assert_int_equal(rig_stats(&R, 0).hedges_won, 1);
    rig_fini(&R);
}

static void a_failed_copy_does_not_beat_a_later_success(void **state)
{
    struct rig_call c;

    (void)state;
    open_with_delay(1, 0.2);
    rig_call(&R, &c, 1, 1);
    rig_wait(&R, 0.3);
    rig_status(&R, 1, 500);
    assert_int_equal(R.parts_failed + R.parts_ok, 0);
    rig_ok(&R, 0);
    assert_int_equal(R.parts_ok, 1);
    assert_int_equal(R.aborts, 0);
    rig_fini(&R);
}

static void a_fatal_answer_of_one_copy_waits_for_the_other(void **state)
{
    struct rig_call c;

    (void)state;
    open_with_delay(1, 0.2);
    rig_call(&R, &c, 2, 1);
    rig_wait(&R, 0.3);
    rig_status(&R, 0, 400);
    assert_int_equal(R.parts_failed, 0);
    rig_status(&R, 2, 400);
    assert_int_equal(R.parts_failed, 1);
    rig_fini(&R);
}

static void both_failed_is_one_failure(void **state)
{
    struct rig_call c;

    (void)state;
    open_with_delay(1, 0.2);
    rig_call(&R, &c, 1, 1);
    rig_wait(&R, 0.3);
    rig_status(&R, 0, 500);
    rig_status(&R, 1, 500);
    rig_wait(&R, 1);
    assert_int_equal(R.na, 3);
    assert_int_equal(R.a[2].n, 2);
    assert_int_equal(R.a[2].is_hedge, 0);
    rig_wait(&R, 5); /* a retry is not hedged */
    assert_int_equal(R.na, 3);
    rig_fini(&R);
}

static void a_first_byte_rules_it_out(void **state)
{
    struct rig_call c;

    (void)state;
    open_with_delay(1, 0.2);
    rig_call(&R, &c, 1, 1);
    rig_run(&R);
    mpp_attempt_first_byte(R.core, R.a[0].id, R.now);
    rig_wait(&R, 5);
    assert_int_equal(R.na, 1);
    rig_fini(&R);
}

static void not_idempotent_not_hedged(void **state)
{
    struct rig_call c;
    struct mpp_call_cfg cfg;

    (void)state;
    open_with_delay(1, 0.2);
    cfg = rig_cfg(&R, &c, 1, 1);
    cfg.idempotent = 0;
    c.call = mpp_call_new(&cfg, R.now);
    rig_wait(&R, 5);
    assert_int_equal(R.na, 1);
    rig_fini(&R);
}

static void nothing_is_hedged_for_ten_seconds_after_a_throttle(void **state)
{
    struct rig_call c, d;

    (void)state;
    open_with_delay(1, 0.2);
    rig_call(&R, &c, 1, 1);
    rig_run(&R);
    rig_status(&R, 0, 429);
    rig_call(&R, &d, 1, 1);
    rig_wait(&R, 9);
    assert_int_equal(rig_stats(&R, 0).hedges, 0);
    rig_wait(&R, 2);
    assert_int_equal(rig_stats(&R, 0).hedges, 1);
    rig_fini(&R);
}

static void the_budget_is_exact_and_never_wraps(void **state)
{
    struct rig_call c;

    (void)state;
    open_with_delay(1, 0.2);
    rig_call(&R, &c, 60, 1); /* 2 + 60 * 0.05 = 5 tokens */
    rig_wait(&R, 30);
    assert_int_equal(rig_stats(&R, 0).hedges, 5);
    assert_true(rig_stats(&R, 0).hedge_level >= 0);
    rig_fini(&R);
}

static void a_hedge_goes_to_another_endpoint(void **state)
{
    struct rig_call c;

    (void)state;
    open_with_delay(2, 0.2);
    rig_call(&R, &c, 1, 1);
    rig_wait(&R, 1);
    assert_int_equal(R.na, 2);
    assert_int_not_equal(R.a[0].endpoint, R.a[1].endpoint);
    assert_int_equal(R.a[1].fresh, 0);
    rig_fini(&R);
}

static void without_a_slot_it_takes_the_next_before_new_work(void **state)
{
    struct rig_call c;

    (void)state;
    rig_init(&R, 1, 64);
    R.policy.hedge.delay = 0.2;
    R.policy.concurrency = (struct mp_concurrency_policy){.mode = MP_CONC_FIXED, .limit = 2};
    rig_open(&R);
    rig_call(&R, &c, 10, 1);
    rig_wait(&R, 1);
    assert_int_equal(R.na, 2);
    rig_ok(&R, 1);
    assert_int_equal(R.a[2].is_hedge, 1);
    assert_int_equal(R.running, 2);
    assert_int_equal(R.most_running, 2);
    rig_fini(&R);
}

static void the_delay_follows_the_percentile_of_the_size_class(void **state)
{
    struct rig_call small, large;
    uint32_t i;

    (void)state;
    rig_init(&R, 1, 64);
    R.policy.hedge.factor = 2;
    R.policy.hedge.percentile = 0.95;
    rig_open(&R);
    rig_call(&R, &small, 30, 1);
    small.tokens = 10;
    rig_run(&R);
    R.now += MP__SECOND / 50;
    for (i = 0; i < 30; i++)
        rig_ok(&R, i);
    rig_call(&R, &large, 30, 1);
    large.tokens = 10000;
    rig_run(&R);
    /* The large ones are judged by the small until enough of them are known. */
    R.now += MP__SECOND / 100;
    for (i = 30; i < 60; i++)
        if (R.a[i].live)
            rig_ok(&R, i);
    rig_call(&R, &small, 1, 1);
    small.tokens = 10;
    rig_wait(&R, 0.038);
    assert_int_equal(R.na, 61);
    rig_wait(&R, 0.01);
    assert_int_equal(R.na, 62);
    rig_fini(&R);
}

static void a_cold_endpoint_is_not_hedged(void **state)
{
    struct rig_call c;

    (void)state;
    rig_init(&R, 1, 64);
    R.policy.hedge.factor = 2;
    R.policy.hedge.percentile = 0.95;
    rig_open(&R);
    rig_call(&R, &c, 1, 1);
    rig_wait(&R, 30);
    assert_int_equal(R.na, 1);
    rig_fini(&R);
}

static void a_quick_loser_may_drain(void **state)
{
    struct rig_call c;
    struct mpp_outcome ok = rig_outcome(MP_KIND_NONE, 200);
    uint32_t i;

    (void)state;
    rig_init(&R, 1, 64);
    mpp_pool_unref(R.pool);
    mpp_free(R.core);
    R.core = mpp_new(&(struct mpp_config){.seed = 3, .drain_losers = 1});
    R.pool = mpp_pool_new(R.core, 64);
    R.policy.hedge.delay = 0.2;
    rig_open(&R);
    rig_call(&R, &c, 31, 1);
    rig_run(&R);
    R.now += MP__SECOND / 10;
    for (i = 0; i < 30; i++)
        rig_ok(&R, i);
    rig_wait(&R, 0.15);
    assert_int_equal(R.na, 32);
    rig_ok(&R, 30); /* 50 ms after the hedge began, within one p50 of 100 ms */
    assert_int_equal(R.aborts, 0);
    assert_int_equal(c.done, 1);
    assert_int_equal(rig_stats(&R, 0).in_flight, 1);
    R.running--;
    mpp_attempt_done(R.core, R.a[31].id, &ok, R.now);
    rig_run(&R);
    assert_int_equal(rig_stats(&R, 0).in_flight, 0);
    assert_int_equal(R.parts_ok, 31);
    rig_fini(&R);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_slow_request_is_copied_once),
        cmocka_unit_test(a_failed_copy_does_not_beat_a_later_success),
        cmocka_unit_test(a_fatal_answer_of_one_copy_waits_for_the_other),
        cmocka_unit_test(both_failed_is_one_failure),
        cmocka_unit_test(a_first_byte_rules_it_out),
        cmocka_unit_test(not_idempotent_not_hedged),
        cmocka_unit_test(nothing_is_hedged_for_ten_seconds_after_a_throttle),
        cmocka_unit_test(the_budget_is_exact_and_never_wraps),
        cmocka_unit_test(a_hedge_goes_to_another_endpoint),
        cmocka_unit_test(without_a_slot_it_takes_the_next_before_new_work),
        cmocka_unit_test(the_delay_follows_the_percentile_of_the_size_class),
        cmocka_unit_test(a_cold_endpoint_is_not_hedged),
        cmocka_unit_test(a_quick_loser_may_drain),
    };

    return cmocka_run_group_tests_name("policy_hedge", tests, NULL, NULL);
}

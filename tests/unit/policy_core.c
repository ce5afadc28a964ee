/* The core's life cycle: slots, pool, deadlines, cancel, close. */
#include "policy_rig.h"

static struct rig R;

static void one_part_starts_ends_and_ends_its_call(void **state)
{
    struct rig_call c;

    (void)state;
    rig_init(&R, 1, 4);
    rig_open(&R);
    rig_call(&R, &c, 1, 3);
    rig_run(&R);
    assert_int_equal(R.na, 1);
    assert_int_equal(R.a[0].count, 3);
    rig_ok(&R, 0);
    assert_int_equal(R.parts_ok, 1);
    assert_int_equal(c.done, 1);
    assert_int_equal(c.kind, MP_KIND_NONE);
    assert_true(R.last_winner == R.a[0].id);
    rig_fini(&R);
}

static void empty_call_ends(void **state)
{
    struct rig_call c;

    (void)state;
    rig_init(&R, 1, 4);
    rig_open(&R);
    rig_call(&R, &c, 0, 1);
    rig_run(&R);
    assert_int_equal(c.done, 1);
    assert_int_equal(R.na, 0);
    rig_fini(&R);
}

static void max_concurrent_bounds_a_call(void **state)
{
    struct rig_call c;
    struct mpp_call_cfg cfg;
    uint32_t i;

    (void)state;
    rig_init(&R, 1, 100);
    rig_open(&R);
    cfg = rig_cfg(&R, &c, 20, 1);
    cfg.max_concurrent = 3;
    c.call = mpp_call_new(&cfg, R.now);
    rig_run(&R);
    assert_int_equal(R.running, 3);
    for (i = 0; i < 20; i++)
        rig_ok(&R, i);
    assert_int_equal(R.most_running, 3);
    assert_int_equal(c.done, 1);
    rig_fini(&R);
}

static void excess_over_the_pool_times_out_there(void **state)
{
    struct rig_call c;
    struct mpp_call_cfg cfg;

    (void)state;
    rig_init(&R, 1, 2);
    rig_open(&R);
    cfg = rig_cfg(&R, &c, 5, 1);
    cfg.max_concurrent = 5;
    cfg.pool_timeout = 1;
    c.call = mpp_call_new(&cfg, R.now);
    rig_run(&R);
    assert_int_equal(R.running, 2);
    rig_wait(&R, 0.5);
    rig_ok(&R, 0);
    assert_int_equal(R.running, 2);
    rig_wait(&R, 0.6);
    assert_int_equal(R.parts_failed, 2);
    assert_int_equal(R.last_kind, MP_KIND_POOL_TIMEOUT);
    assert_int_equal(R.last_facts.attempts, 0);
    rig_ok(&R, 1);
    rig_ok(&R, 2);
    assert_int_equal(c.done, 1);
    rig_fini(&R);
}

static void waiting_in_the_queue_is_no_pool_wait(void **state)
{
    static struct rig_call c[50];
    int i;

    (void)state;
    rig_init(&R, 1, 2);
    R.policy.concurrency.mode = MP_CONC_OFF;
    rig_open(&R);
    for (i = 0; i < 50; i++) {
        struct mpp_call_cfg cfg = rig_cfg(&R, &c[i], 1, 1);

        cfg.max_concurrent = 1;
        cfg.pool_timeout = 1;
        c[i].call = mpp_call_new(&cfg, R.now);
    }
    rig_wait(&R, 100);
    assert_int_equal(R.running, 2);
    assert_int_equal(R.parts_failed, 0);
    for (i = 0; i < 50; i++)
        rig_ok(&R, (uint32_t)i);
    assert_int_equal(R.parts_ok, 50);
    assert_int_equal(R.calls_done, 50);
    rig_fini(&R);
}

static void calls_of_a_client_take_turns(void **state)
{
    struct rig_call c[2];
    uint32_t i, odd = 0;

    (void)state;
    rig_init(&R, 1, 4);
    R.policy.concurrency = (struct mp_concurrency_policy){.mode = MP_CONC_FIXED, .limit = 4};
    rig_open(&R);
    rig_call(&R, &c[0], 100, 1);
    rig_call(&R, &c[1], 100, 2);
    rig_run(&R);
    for (i = 0; i < 60; i++)
        rig_ok(&R, i);
    for (i = 0; i < 60; i++)
        odd += R.a[i].count == 2;
    assert_in_range(odd, 29, 31);
    rig_fini(&R);
}

static void deadline_ends_every_unfinished_part(void **state)
{
    struct rig_call c;
    struct mpp_call_cfg cfg;

    (void)state;
    rig_init(&R, 1, 8);
    rig_open(&R);
    cfg = rig_cfg(&R, &c, 20, 1);
    cfg.max_concurrent = 4;
    cfg.deadline = R.now + 2 * MP__SECOND;
    c.call = mpp_call_new(&cfg, R.now);
    rig_run(&R);
    rig_ok(&R, 0);
    rig_wait(&R, 3);
    assert_int_equal(R.aborts, 4);
    assert_int_equal(R.parts_failed, 4);
    assert_int_equal(R.last_kind, MP_KIND_TOTAL_TIMEOUT);
    assert_int_equal(c.done, 1);
    assert_int_equal(c.kind, MP_KIND_TOTAL_TIMEOUT);
    rig_fini(&R);
}

static void cancel_aborts_at_once_and_ends_once(void **state)
{
    struct rig_call c;

    (void)state;
    rig_init(&R, 1, 8);
    rig_open(&R);
    rig_call(&R, &c, 20, 1);
    rig_run(&R);
    assert_int_equal(R.running, 8);
    mpp_call_cancel(c.call, MP_KIND_CANCELLED, R.now);
    mpp_call_cancel(c.call, MP_KIND_CANCELLED, R.now);
    rig_run(&R);
    assert_int_equal(R.running, 0);
    assert_int_equal(R.aborts, 8);
    assert_int_equal(c.kind, MP_KIND_CANCELLED);
    assert_int_equal(R.calls_done, 1);
    rig_fini(&R);
}

static void answer_between_cancel_and_abort_is_no_second_end(void **state)
{
    struct rig_call c;
    struct mpp_outcome ok = rig_outcome(MP_KIND_NONE, 200);

    (void)state;
    rig_init(&R, 1, 8);
    rig_open(&R);
    rig_call(&R, &c, 1, 1);
    rig_run(&R);
    mpp_call_cancel(c.call, MP_KIND_CANCELLED, R.now);
    mpp_attempt_done(R.core, R.a[0].id, &ok, R.now);
    R.running--;
    rig_run(&R);
    assert_int_equal(R.aborts, 0);
    assert_int_equal(R.parts_failed, 1);
    assert_int_equal(R.calls_done, 1);
    mpp_attempt_done(R.core, R.a[0].id, &ok, R.now); /* stale: nothing */
    rig_run(&R);
    assert_int_equal(R.calls_done, 1);
    rig_fini(&R);
}

static void close_ends_calls_with_closed(void **state)
{
    struct rig_call c[2];

    (void)state;
    rig_init(&R, 1, 8);
    rig_open(&R);
    rig_call(&R, &c[0], 2, 1);
    rig_call(&R, &c[1], 2, 1);
    rig_run(&R);
    mpp_client_close(R.client, R.now);
    R.client = NULL;
    rig_run(&R);
    assert_int_equal(c[0].kind, MP_KIND_CLOSED);
    assert_int_equal(c[1].kind, MP_KIND_CLOSED);
    assert_int_equal(R.aborts, 4);
    rig_fini(&R);
}

static void a_dry_source_is_asked_again_only_when_ready(void **state)
{
    struct rig_call c;

    (void)state;
    rig_init(&R, 1, 8);
    rig_open(&R);
    rig_call(&R, &c, 1, 1);
    c.dry = 1;
    rig_wait(&R, 5);
    assert_int_equal(R.na, 0);
    c.dry = 0;
    rig_wait(&R, 5);
    assert_int_equal(R.na, 0);
    mpp_call_ready(c.call, R.now);
    rig_run(&R);
    assert_int_equal(R.na, 1);
    rig_ok(&R, 0);
    assert_int_equal(c.done, 1);
    rig_fini(&R);
}

static void a_call_ends_though_its_endpoint_is_paused(void **state)
{
    struct rig_call a, b;

    (void)state;
    rig_init(&R, 1, 8);
    rig_open(&R);
    rig_call(&R, &a, 1, 1);
    rig_call(&R, &b, 1, 1);
    rig_run(&R);
    rig_delay(&R, 1, 429, 60);
    rig_ok(&R, 0);
    assert_int_equal(a.done, 1);
    assert_int_equal(b.done, 0);
    rig_fini(&R);
}

static void max_calls_is_a_bound(void **state)
{
    struct rig_call c[3];
    struct mpp_call_cfg cfg;
    struct mpp_core *core = mpp_new(&(struct mpp_config){.seed = 1, .max_calls = 2});

    (void)state;
    memset(&R, 0, sizeof(R));
    rig_init(&R, 1, 8);
    mpp_pool_unref(R.pool);
    mpp_free(R.core);
    R.core = core;
    R.pool = mpp_pool_new(core, 8);
    rig_open(&R);
    rig_call(&R, &c[0], 1, 1);
    rig_call(&R, &c[1], 1, 1);
    cfg = rig_cfg(&R, &c[2], 1, 1);
    assert_null(mpp_call_new(&cfg, R.now));
    rig_run(&R);
    rig_ok(&R, 0);
    assert_non_null(mpp_call_new(&cfg, R.now));
    rig_fini(&R);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_part_starts_ends_and_ends_its_call),
        cmocka_unit_test(empty_call_ends),
        cmocka_unit_test(max_concurrent_bounds_a_call),
        cmocka_unit_test(excess_over_the_pool_times_out_there),
        cmocka_unit_test(waiting_in_the_queue_is_no_pool_wait),
        cmocka_unit_test(calls_of_a_client_take_turns),
        cmocka_unit_test(deadline_ends_every_unfinished_part),
        cmocka_unit_test(cancel_aborts_at_once_and_ends_once),
        cmocka_unit_test(answer_between_cancel_and_abort_is_no_second_end),
        cmocka_unit_test(close_ends_calls_with_closed),
        cmocka_unit_test(a_dry_source_is_asked_again_only_when_ready),
        cmocka_unit_test(a_call_ends_though_its_endpoint_is_paused),
        cmocka_unit_test(max_calls_is_a_bound),
    };

    return cmocka_run_group_tests_name("policy_core", tests, NULL, NULL);
}

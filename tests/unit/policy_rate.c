/* Rate: reserve before sending, one second of burst, corrections, right of way, the curb. */
#include "policy_rig.h"

static struct rig R;

static void answer_tokens(uint32_t i, int64_t tokens)
{
    struct mpp_outcome o = rig_outcome(MP_KIND_NONE, 200);

    o.tokens = tokens;
    rig_answer(&R, i, &o);
}

static void requests_go_at_the_rate_after_a_second_of_burst(void **state)
{
    struct rig_call c;

    (void)state;
    rig_init(&R, 1, 1000);
    R.policy.rate = (struct mp_rate_policy){.rpm = 600, .share = 1};
    rig_open(&R);
    rig_call(&R, &c, 500, 1);
    rig_wait(&R, 0);
    assert_int_equal(R.na, 10);
    rig_wait(&R, 1.001);
    assert_int_equal(R.na, 20);
    rig_wait(&R, 9);
    assert_in_range(R.na, 109, 110);
    rig_fini(&R);
}

static void tokens_are_reserved_before_sending(void **state)
{
    struct rig_call c;

    (void)state;
    rig_init(&R, 1, 1000);
    R.policy.rate = (struct mp_rate_policy){.tpm = 60000, .share = 1};
    rig_open(&R);
    rig_call(&R, &c, 100, 1);
    c.tokens = 250;
    rig_wait(&R, 0);
    assert_int_equal(R.na, 4);
    rig_wait(&R, 1.001);
    assert_int_equal(R.na, 8);
    rig_fini(&R);
}

static void usage_corrects_the_estimate(void **state)
{
    struct rig_call c;

    (void)state;
    rig_init(&R, 1, 1000);
    R.policy.rate = (struct mp_rate_policy){.tpm = 60000, .share = 1};
    rig_open(&R);
    rig_call(&R, &c, 100, 1);
    c.tokens = 500;
    rig_wait(&R, 0);
    assert_int_equal(R.na, 2);
    answer_tokens(0, 0);
    assert_int_equal(R.na, 3); /* 500 came back */
    answer_tokens(1, 1000);    /* 500 more were used */
    rig_wait(&R, 0.9);
    assert_int_equal(R.na, 3);
    rig_wait(&R, 0.2);
    assert_int_equal(R.na, 4);
    rig_fini(&R);
}

static void failures_stay_charged(void **state)
{
    struct rig_call c;

    (void)state;
    rig_init(&R, 1, 1000);
    R.policy.rate = (struct mp_rate_policy){.rpm = 60, .share = 1};
    rig_open(&R);
    rig_call(&R, &c, 10, 1);
    rig_wait(&R, 0);
    assert_int_equal(R.na, 1);
    rig_status(&R, 0, 400);
    assert_int_equal(R.na, 1);
    rig_wait(&R, 1.01);
    assert_int_equal(R.na, 2);
    rig_fini(&R);
}

static void a_batch_above_the_burst_is_not_waited_for_in_vain(void **state)
{
    struct rig_call c;

    (void)state;
    rig_init(&R, 1, 1000);
    R.policy.rate = (struct mp_rate_policy){.tpm = 60000, .share = 1};
    rig_open(&R);
    rig_call(&R, &c, 3, 1);
    c.tokens = 5000;
    rig_wait(&R, 4.1);
    assert_int_equal(R.na, 1);
    rig_wait(&R, 5);
    assert_int_equal(R.na, 2);
    rig_fini(&R);
}

static void small_ones_pass_a_big_one_for_two_seconds_only(void **state)
{
    struct rig_call big, small, more;
    uint32_t i;
    mp__time start;

    (void)state;
    rig_init(&R, 1, 1000);
    R.policy.rate = (struct mp_rate_policy){.tpm = 60000, .share = 1};
    rig_open(&R);
    rig_call(&R, &small, 1, 1); /* empties the bucket */
    small.tokens = 1000;
    rig_wait(&R, 0);
    rig_call(&R, &big, 1, 1);
    big.tokens = 3000;
    rig_run(&R);
    start = R.now;
    rig_call(&R, &more, 1000, 1);
    more.tokens = 100;
    rig_wait(&R, 2);
    assert_in_range(R.na, 15, 22); /* the small ones had it all */
    rig_wait(&R, 3.2);
    for (i = 0; i < R.na && R.a[i].tokens < 2999; i++)
        ;
    assert_true(i < R.na);
    assert_true(R.a[i].at - start < 6 * MP__SECOND);
    rig_fini(&R);
}

static void clients_with_one_key_share_one_bucket(void **state)
{
    struct rig_call c, d;
    struct mpp_client *first;

    (void)state;
    rig_init(&R, 1, 1000);
    R.policy.rate = (struct mp_rate_policy){.rpm = 600, .share = 1, .key = "org/model"};
    rig_open(&R);
    first = R.client;
    rig_call(&R, &c, 100, 1);
    rig_open(&R);
    rig_call(&R, &d, 100, 1);
    rig_wait(&R, 1);
    assert_in_range(R.na, 19, 20);
    mpp_client_close(first, R.now);
    rig_run(&R);
    rig_wait(&R, 1);
    assert_in_range(R.na, 29, 30);
    rig_fini(&R);
}

static void headers_lower_the_level(void **state)
{
    struct rig_call c;
    struct mpp_outcome o = rig_outcome(MP_KIND_NONE, 200);
    uint32_t before;

    (void)state;
    rig_init(&R, 1, 1000);
    R.policy.rate = (struct mp_rate_policy){.rpm = 6000, .share = 1};
    rig_open(&R);
    rig_call(&R, &c, 1, 1);
    rig_run(&R);
    o.hints.limit_requests = 6000;
    o.hints.remaining_requests = 3;
    o.hints.reset_requests = 40;
    rig_answer(&R, 0, &o);
    before = R.na;
    rig_call(&R, &c, 50, 1);
    rig_run(&R);
    assert_int_equal(R.na - before, 3);
    rig_fini(&R);
}

static void an_undeclared_limit_is_learnt_when_it_matters(void **state)
{
    struct rig_call c;
    struct mpp_outcome o = rig_outcome(MP_KIND_NONE, 200);

    (void)state;
    rig_init(&R, 1, 1000);
    rig_open(&R);
    rig_call(&R, &c, 2, 1);
    rig_run(&R);
    o.hints.limit_requests = 600;
    o.hints.remaining_requests = 590;
    rig_answer(&R, 0, &o);
    assert_true(rig_stats(&R, 0).rpm_level < 0);
    o.hints.remaining_requests = 20;
    rig_answer(&R, 1, &o);
    assert_true(rig_stats(&R, 0).rpm_level >= 0);
    rig_fini(&R);
}

static void a_429_without_a_delay_curbs_and_recovers(void **state)
{
    struct rig_call c;
    uint32_t i, before;

    (void)state;
    rig_init(&R, 1, 4000);
    R.policy.concurrency.mode = MP_CONC_OFF;
    rig_open(&R);
    rig_call(&R, &c, 4000, 1);
    rig_run(&R); /* 128 in flight */
    for (i = 0; i < 400; i++) {
        R.now += MP__SECOND / 100;
        if (i >= 300 && i < 305) /* one alone says nothing */
            rig_status(&R, i, 429);
        else
            rig_ok(&R, i);
    }
    assert_true(rig_stats(&R, 0).rpm_level >= 0);
    /* 100 a second were sent, so about 70 are let through, and more again later */
    before = R.na;
    for (; i < R.na && i < 1200; i++) {
        rig_wait(&R, 0.01);
        if (R.a[i].live)
            rig_ok(&R, i);
    }
    assert_true(R.na - before > 100);
    rig_fini(&R);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_go_at_the_rate_after_a_second_of_burst),
        cmocka_unit_test(tokens_are_reserved_before_sending),
        cmocka_unit_test(usage_corrects_the_estimate),
        cmocka_unit_test(failures_stay_charged),
        cmocka_unit_test(a_batch_above_the_burst_is_not_waited_for_in_vain),
        cmocka_unit_test(small_ones_pass_a_big_one_for_two_seconds_only),
        cmocka_unit_test(clients_with_one_key_share_one_bucket),
        cmocka_unit_test(headers_lower_the_level),
        cmocka_unit_test(an_undeclared_limit_is_learnt_when_it_matters),
        cmocka_unit_test(a_429_without_a_delay_curbs_and_recovers),
    };

    return cmocka_run_group_tests_name("policy_rate", tests, NULL, NULL);
}

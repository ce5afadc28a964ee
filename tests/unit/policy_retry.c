/* Retry: classification, backoff, server delays, budget, parking, split. */
#include "policy_rig.h"
#include "policy/retry.h"

static struct rig R;

static int judged(int status, double after, struct mpp_judgement *j)
{
    struct mp_policy p;
    struct mpp_outcome o = rig_outcome(status == 429 ? MP_KIND_RATE_LIMITED : MP_KIND_HTTP, status);

    mp_policy_init(&p, MP_PRESET_JOB);
    o.hints.retry_after = after;
    mpp_judge(&p.retry, &o, 0, j);
    return j->retry;
}

static void statuses_are_classified(void **state)
{
    static const int yes[] = {408, 409, 425, 429, 500, 501, 502, 503, 504, 529, 599};
    static const int no[] = {400, 401, 403, 404, 410, 413, 422, 301, 304};
    struct mpp_judgement j;
    size_t i;

    (void)state;
    for (i = 0; i < sizeof(yes) / sizeof(yes[0]); i++)
        assert_int_equal(judged(yes[i], -1, &j), 1);
    for (i = 0; i < sizeof(no) / sizeof(no[0]); i++) {
        assert_int_equal(judged(no[i], -1, &j), 0);
        assert_int_equal(j.cls, MPP_FATAL);
    }
    judged(429, -1, &j);
    assert_int_equal(j.cls, MPP_THROTTLED);
    assert_int_equal(j.unbudgeted, 0);
    judged(429, 3, &j);
    assert_int_equal(j.unbudgeted, 1);
    judged(503, 3, &j);
    assert_int_equal(j.cls, MPP_THROTTLED);
    assert_int_equal(j.unbudgeted, 0);
    judged(503, -1, &j);
    assert_int_equal(j.cls, MPP_TRANSIENT);
    assert_int_equal(judged(429, 121, &j), 0);
    assert_int_equal(judged(429, 120, &j), 1);
}

static void x_should_retry_wins_over_the_table(void **state)
{
    struct mp_policy p;
    struct mpp_judgement j;
    struct mpp_outcome o = rig_outcome(MP_KIND_HTTP, 400);

    (void)state;
    mp_policy_init(&p, MP_PRESET_JOB);
    o.hints.should_retry = 1;
    mpp_judge(&p.retry, &o, 0, &j);
    assert_int_equal(j.retry, 1);
    o.status = 503;
    o.hints.should_retry = 0;
    mpp_judge(&p.retry, &o, 0, &j);
    assert_int_equal(j.retry, 0);
    o.kind = MP_KIND_CONNECT;
    o.status = 0;
    mpp_judge(&p.retry, &o, 0, &j);
    assert_int_equal(j.retry, 0);
}

/* Who says "connect" wants nothing repeated that the server may have seen. */
static void faults_are_retried_by_kind(void **state)
{
    static const struct {
        enum mp_kind kind;
        int never_sent;
        unsigned bits; /* any of which lets it be retried */
    } cases[] = {
        {MP_KIND_CONNECT, 1, MP_FAULT_CONNECT},
        {MP_KIND_CONNECT, 0, MP_FAULT_LOST}, /* reset after the request had left */
        {MP_KIND_CONNECT_TIMEOUT, 0, MP_FAULT_CONNECT | MP_FAULT_TIMEOUT},
        {MP_KIND_READ_TIMEOUT, 0, MP_FAULT_TIMEOUT},
        {MP_KIND_WRITE_TIMEOUT, 0, MP_FAULT_TIMEOUT},
        {MP_KIND_DECODE, 0, MP_FAULT_LOST},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        for (unsigned bits = 0; bits <= MP_FAULT_ANY; bits++) {
            struct mp_policy p;
            struct mpp_judgement j;
            struct mpp_outcome o = rig_outcome(cases[i].kind, 0);

            mp_policy_init(&p, MP_PRESET_JOB);
            p.retry.transport = (uint8_t)bits;
            o.never_sent = (uint8_t)cases[i].never_sent;
            mpp_judge(&p.retry, &o, 0, &j);
            assert_int_equal(j.retry, (bits & cases[i].bits) != 0);
        }
    }
}

static void backoff_is_full_jitter_below_its_cap(void **state)
{
    struct mp_policy p;
    struct mpp_judgement j = {.cls = MPP_TRANSIENT, .server_delay = -1};
    uint64_t rng = 7;
    double sum = 0;
    unsigned i;

    (void)state;
    mp_policy_init(&p, MP_PRESET_JOB);
    for (i = 0; i < 10000; i++) {
        double d = mpp_backoff(&p.retry, &j, 3, &rng);

        assert_true(d >= 0 && d < 1);
        sum += d;
    }
    assert_true(sum > 4800 && sum < 5200);
    for (i = 0; i < 100; i++)
        assert_true(mpp_backoff(&p.retry, &j, 4000000000u, &rng) < 30);
    j.cls = MPP_THROTTLED;
    for (sum = 0, i = 0; i < 10000; i++)
        sum += mpp_backoff(&p.retry, &j, 1, &rng);
    assert_true(sum > 4800 && sum < 5200);
    j.server_delay = 7;
    for (i = 0; i < 100; i++) {
        double d = mpp_backoff(&p.retry, &j, 1, &rng);

        assert_true(d >= 7 && d < 7.7 + 1e-9);
    }
}

static void budget_counts_exactly(void **state)
{
    struct mpp_budget b;
    int i, taken = 0;

    (void)state;
    mpp_budget_init(&b, 10, 0.1, 100);
    while (mpp_budget_take(&b))
        taken++;
    assert_int_equal(taken, 10);
    assert_int_equal(b.level, 0);
    for (i = 0; i < 9; i++)
        mpp_budget_earn(&b);
    assert_int_equal(mpp_budget_take(&b), 0);
    mpp_budget_earn(&b);
    assert_int_equal(mpp_budget_take(&b), 1);
    assert_int_equal(mpp_budget_take(&b), 0);
    for (i = 0; i < 5000; i++)
        mpp_budget_earn(&b);
    assert_int_equal(b.level, 100 * 1000000);
    for (i = 0; i < 1000; i++)
        mpp_budget_take(&b);
    assert_true(b.level >= 0);
}

static void a_part_of_the_budget_is_kept_for_the_clock(void **state)
{
    struct mpp_budget b;
    int i, taken = 0;

    (void)state;
    mpp_budget_init(&b, 10, 0.1, 100);
    b.keep = 5000000;
    for (i = 0; i < 400; i++)
        mpp_budget_earn(&b); /* 40, of which 2 are kept */
    while (mpp_budget_take(&b))
        taken++;
    assert_int_equal(taken, 48);
    assert_int_equal(mpp_budget_borrow(&b), 1);
    assert_int_equal(mpp_budget_borrow(&b), 1);
    for (i = 0; i < 20; i++)
        assert_int_equal(mpp_budget_borrow(&b), 0); /* five of them on credit */
    assert_int_equal(b.level, -5000000);
    assert_true(mpp_budget_level(&b) == 0);
    for (i = 0; i < 59; i++)
        mpp_budget_earn(&b);
    assert_int_equal(mpp_budget_take(&b), 0);
    mpp_budget_earn(&b);
    assert_int_equal(mpp_budget_take(&b), 1);
}

static void six_attempts_then_the_last_error(void **state)
{
    struct rig_call c;
    uint32_t i;

    (void)state;
    rig_init(&R, 1, 4);
    R.policy.breaker.enabled = 0;
    rig_open(&R);
    rig_call(&R, &c, 1, 1);
    rig_run(&R);
    for (i = 0; i < 6; i++) {
        assert_int_equal(R.na, i + 1);
        rig_status(&R, i, 500);
        if (i < 5)
            assert_int_equal(R.running, 0);
        rig_wait(&R, 8.1);
    }
    assert_int_equal(R.na, 6);
    assert_int_equal(R.parts_failed, 1);
    assert_int_equal(R.last_kind, MP_KIND_HTTP);
    assert_int_equal(R.last_facts.attempts, 6);
    assert_int_equal(c.done, 1);
    rig_fini(&R);
}

static void fatal_status_is_not_retried(void **state)
{
    struct rig_call c;

    (void)state;
    rig_init(&R, 1, 4);
    rig_open(&R);
    rig_call(&R, &c, 1, 1);
    rig_run(&R);
    rig_status(&R, 0, 401);
    rig_wait(&R, 60);
    assert_int_equal(R.na, 1);
    assert_int_equal(R.parts_failed, 1);
    rig_fini(&R);
}

static void a_broken_body_is_retried_once(void **state)
{
    struct rig_call c;

    (void)state;
    rig_init(&R, 1, 4);
    rig_open(&R);
    rig_call(&R, &c, 1, 1);
    rig_run(&R);
    rig_fault(&R, 0, MP_KIND_DECODE);
    rig_wait(&R, 1);
    assert_int_equal(R.na, 2);
    rig_fault(&R, 1, MP_KIND_DECODE);
    rig_wait(&R, 60);
    assert_int_equal(R.na, 2);
    assert_int_equal(R.last_kind, MP_KIND_DECODE);
    rig_fini(&R);
}

static void backoff_holds_no_slot(void **state)
{
    struct rig_call c;
    struct mpp_call_cfg cfg;

    (void)state;
    rig_init(&R, 1, 4);
    rig_open(&R);
    cfg = rig_cfg(&R, &c, 2, 1);
    cfg.max_concurrent = 1;
    c.call = mpp_call_new(&cfg, R.now);
    rig_run(&R);
    rig_delay(&R, 0, 503, 0);  /* 0 is no delay */
    assert_int_equal(R.na, 2); /* the second part goes while the first backs off */
    assert_int_equal(R.a[1].first, 1);
    rig_fini(&R);
}

static void retried_parts_go_before_new_ones(void **state)
{
    struct rig_call c;
    struct mpp_call_cfg cfg;

    (void)state;
    rig_init(&R, 1, 4);
    rig_open(&R);
    cfg = rig_cfg(&R, &c, 10, 1);
    cfg.max_concurrent = 1;
    c.call = mpp_call_new(&cfg, R.now);
    rig_run(&R);
    rig_status(&R, 0, 500);
    rig_wait(&R, 1);
    assert_int_equal(R.a[1].first, 1);
    rig_ok(&R, 1);
    assert_int_equal(R.a[2].first, 0);
    assert_int_equal(R.a[2].n, 2);
    rig_fini(&R);
}

static void server_delay_pauses_the_whole_endpoint(void **state)
{
    struct rig_call c, d;
    mp__time until;
    uint32_t i;

    (void)state;
    rig_init(&R, 1, 4);
    rig_open(&R);
    rig_call(&R, &c, 10, 1);
    rig_run(&R);
    until = R.now + 5 * MP__SECOND;
    rig_delay(&R, 0, 429, 5);
    rig_ok(&R, 1);
    rig_ok(&R, 2);
    rig_call(&R, &d, 3, 1);
    rig_wait(&R, 4.999);
    assert_int_equal(R.na, 4);
    rig_wait(&R, 1);
    assert_true(R.na > 4);
    for (i = 4; i < R.na; i++)
        assert_true(R.a[i].at >= until);
    assert_true(rig_stats(&R, 0).budget_level >= 10);
    assert_int_equal(rig_stats(&R, 0).unbudgeted, 1);
    rig_fini(&R);
}

static void a_pause_catches_parts_that_wait_for_a_connection(void **state)
{
    struct rig_call c;
    struct mpp_call_cfg cfg;

    (void)state;
    rig_init(&R, 1, 1);
    rig_open(&R);
    cfg = rig_cfg(&R, &c, 3, 1);
    cfg.pool_timeout = 2;
    c.call = mpp_call_new(&cfg, R.now);
    rig_run(&R);
    rig_delay(&R, 0, 429, 30);
    rig_wait(&R, 29.9);
    assert_int_equal(R.na, 1);
    assert_int_equal(R.parts_failed, 0);
    rig_wait(&R, 0.2);
    assert_int_equal(R.na, 2);
    rig_fini(&R);
}

static void respect_can_be_switched_off(void **state)
{
    struct rig_call c;

    (void)state;
    rig_init(&R, 1, 4);
    R.policy.retry.respect_retry_after = 0;
    rig_open(&R);
    rig_call(&R, &c, 2, 1);
    rig_run(&R);
    rig_delay(&R, 0, 429, 100);
    rig_wait(&R, 1.1);
    assert_int_equal(R.na, 3);
    rig_fini(&R);
}

static void too_long_a_delay_fails_the_part(void **state)
{
    struct rig_call c;

    (void)state;
    rig_init(&R, 1, 4);
    rig_open(&R);
    rig_call(&R, &c, 3, 1);
    rig_run(&R);
    rig_delay(&R, 0, 429, 121);
    assert_int_equal(R.parts_failed, 1);
    assert_int_equal(R.last_kind, MP_KIND_RATE_LIMITED);
    assert_true(rig_stats(&R, 0).paused_for < 0.001);
    rig_fini(&R);
}

static void a_retry_that_would_miss_the_deadline_is_not_waited_for(void **state)
{
    struct rig_call c;
    struct mpp_call_cfg cfg;

    (void)state;
    rig_init(&R, 1, 4);
    rig_open(&R);
    cfg = rig_cfg(&R, &c, 1, 1);
    cfg.deadline = R.now + 4 * MP__SECOND;
    c.call = mpp_call_new(&cfg, R.now);
    rig_run(&R);
    rig_delay(&R, 0, 429, 5);
    assert_int_equal(c.done, 1);
    assert_int_equal(R.last_kind, MP_KIND_RATE_LIMITED);
    rig_fini(&R);
}

/* 100 parts that all fail: the reserve and a tenth of the first attempts, the rest parked. */
static void empty_budget_parks_a_job(void **state)
{
    struct rig_call c;
    struct mpp_endpoint_stats s;
    uint32_t i;

    (void)state;
    rig_init(&R, 1, 200);
    R.policy.breaker.enabled = 0;
    rig_open(&R);
    rig_call(&R, &c, 100, 1);
    rig_run(&R);
    for (i = 0; i < 100; i++)
        rig_status(&R, i, 500);
    rig_wait(&R, 0.9);
    s = rig_stats(&R, 0);
    assert_int_equal(R.parts_failed, 0);
    assert_int_equal(R.na, 120);
    assert_int_equal(s.parked, 80);
    assert_true(s.budget_level < 1 && s.budget_level >= 0);
    rig_fini(&R);
}

static void first_attempts_release_parked_parts_in_order(void **state)
{
    struct rig_call c, d;
    uint32_t i, n;

    (void)state;
    rig_init(&R, 1, 200);
    R.policy.breaker.enabled = 0;
    R.policy.retry.reserve = 0;
    rig_open(&R);
    rig_call(&R, &c, 9, 1);
    rig_run(&R);
    for (i = 0; i < 9; i++)
        rig_status(&R, i, 500);
    rig_wait(&R, 0.5);
    assert_int_equal(R.na, 9);
    rig_call(&R, &d, 21, 1);
    rig_run(&R);
    n = R.na;
    assert_int_equal(n, 9 + 21 + 3);
    assert_int_equal(R.a[n - 1].n + R.a[n - 2].n + R.a[n - 3].n >= 3, 1);
    rig_fini(&R);
}

static void parked_parts_trickle_and_return_after_an_outage(void **state)
{
    struct rig_call c;
    struct mpp_endpoint_stats s;
    uint32_t i, before;

    (void)state;
    rig_init(&R, 1, 200);
    R.policy.breaker.enabled = 0;
    R.policy.retry.reserve = 0;
    R.policy.retry.budget = 0;
    rig_open(&R);
    rig_call(&R, &c, 100, 1);
    rig_run(&R);
    for (i = 0; i < 100; i++)
        rig_status(&R, i, 500);
    for (i = 100; i < 103; i++) { /* the trickle: 1, 2, 4 s */
        before = R.na;
        rig_wait(&R, 10.5);
        assert_true(R.na > before);
        for (; before < R.na; before++)
            if (R.a[before].live)
                rig_status(&R, before, 500);
    }
    s = rig_stats(&R, 0);
    assert_true(s.released <= 7);
    rig_wait(&R, 10.5); /* healed */
    for (i = 0; i < R.na; i++)
        if (R.a[i].live)
            rig_ok(&R, i);
    rig_wait(&R, 0);
    for (i = 0; i < R.na; i++)
        if (R.a[i].live)
            rig_ok(&R, i);
    assert_int_equal(R.parts_ok, 100);
    assert_int_equal(c.done, 1);
    rig_fini(&R);
}

/* A server that refuses two requests of three is no outage: its backlog keeps moving. */
static void half_broken_server_keeps_its_backlog_moving(void **state)
{
    struct rig_call c;
    uint32_t i, turn = 0;
    mp__time start;

    (void)state;
    rig_init(&R, 1, 64);
    R.policy.retry.max_attempts = 20;
    R.policy.retry.cap = 1;
    rig_open(&R);
    rig_call(&R, &c, 300, 1);
    rig_run(&R);
    start = R.now;
    while (!c.done && R.now - start < 300 * MP__SECOND) {
        for (i = 0; i < R.na; i++)
            if (R.a[i].live && turn++ % 3 == 2)
                rig_ok(&R, i);
            else if (R.a[i].live)
                rig_status(&R, i, 503);
        rig_wait(&R, 0.02);
    }
    assert_int_equal(R.parts_ok, 300);
    print_message("300 parts after %.1f s\n", (double)(R.now - start) / MP__SECOND);
    assert_true(R.now - start < 60 * MP__SECOND);
    rig_fini(&R);
}

static void empty_budget_fails_a_gateway_fast(void **state)
{
    struct rig_call c;
    uint32_t i;

    (void)state;
    rig_init(&R, 1, 200);
    mp_policy_init(&R.policy, MP_PRESET_GATEWAY);
    R.policy.breaker.enabled = 0;
    R.policy.retry.reserve = 0;
    rig_open(&R);
    rig_call(&R, &c, 5, 1);
    rig_run(&R);
    for (i = 0; i < 5; i++)
        rig_status(&R, i, 500);
    assert_int_equal(R.parts_failed, 5);
    assert_int_equal(R.last_kind, MP_KIND_BUDGET);
    rig_fini(&R);
}

/* Connection refused from the first moment on: the parked parts are told within 10 s and a bit. */
static void an_address_that_never_answers_is_given_up(void **state)
{
    struct rig_call c;
    struct mpp_outcome o = rig_outcome(MP_KIND_CONNECT, 0);
    uint32_t i;
    int k;

    (void)state;
    rig_init(&R, 1, 200);
    rig_open(&R);
    rig_call(&R, &c, 100, 1);
    o.never_sent = 1;
    for (k = 0; k < 120 && !c.done; k++) {
        rig_wait(&R, 0.2);
        for (i = 0; i < R.na; i++)
            if (R.a[i].live)
                rig_answer(&R, i, &o);
    }
    assert_int_equal(c.done, 1);
    assert_int_equal(R.parts_failed, 100);
    assert_int_equal(R.last_kind, MP_KIND_CONNECT);
    assert_true(R.na <= 110 + 10 + 5);
    assert_in_range(k, 45, 90);
    rig_fini(&R);
}

static void a_refused_batch_is_cut_until_the_row_is_found(void **state)
{
    struct rig_call c;
    uint32_t i, refused = 0;

    (void)state;
    rig_init(&R, 1, 200);
    rig_open(&R);
    rig_call(&R, &c, 1, 100);
    rig_run(&R);
    for (i = 0; i < R.na; i++) {
        int poison = R.a[i].first <= 37 && R.a[i].first + R.a[i].count > 37;
        struct mpp_outcome o =
            poison ? rig_outcome(MP_KIND_HTTP, 422) : rig_outcome(MP_KIND_NONE, 200);

        o.splittable = R.a[i].count > 1;
        refused += (uint32_t)poison;
        rig_answer(&R, i, &o);
    }
    assert_int_equal(R.parts_failed, 1);
    assert_int_equal(R.last_facts.info.count <= 50, 1);
    assert_true(R.na <= 1 + 2 * 7);
    assert_int_equal(R.splits, R.parts_ok);
    assert_int_equal(refused, R.splits + 1);
    assert_int_equal(c.done, 1);
    rig_fini(&R);
}

static void a_wrong_request_does_not_become_one_a_row(void **state)
{
    struct rig_call c;
    uint32_t i, rows = 0;

    (void)state;
    rig_init(&R, 1, 200);
    rig_open(&R);
    rig_call(&R, &c, 10, 128);
    rig_run(&R);
    for (i = 0; i < R.na; i++) {
        struct mpp_outcome o = rig_outcome(MP_KIND_HTTP, 400);

        o.splittable = R.a[i].count > 1;
        rig_answer(&R, i, &o);
    }
    rows = R.parts_failed;
    assert_true(R.na <= 10 + 2 * 16);
    assert_int_equal(rows, 10 + R.splits);
    assert_int_equal(c.done, 1);
    rig_fini(&R);
}

static void cancel_before_a_split_is_told_ends_both_halves(void **state)
{
    struct rig_call c;
    struct mpp_outcome o = rig_outcome(MP_KIND_HTTP, 422);

    (void)state;
    rig_init(&R, 1, 4);
    rig_open(&R);
    rig_call(&R, &c, 1, 8);
    rig_run(&R);
    o.splittable = 1;
    R.a[0].live = 0;
    mpp_attempt_done(R.core, R.a[0].id, &o, R.now);
    mpp_call_cancel(c.call, MP_KIND_CANCELLED, R.now);
    rig_run(&R);
    assert_int_equal(R.splits, 1);
    assert_int_equal(R.parts_failed, 2);
    assert_int_equal(R.calls_done, 1);
    rig_fini(&R);
}

/* Behind a limiter that names no delay: as long as it answers some, no row is lost. */
static void throttling_takes_no_attempt_from_a_row(void **state)
{
    struct rig_call c;
    struct mpp_call_cfg cfg;
    uint32_t i, refused = 0;

    (void)state;
    rig_init(&R, 1, 200);
    rig_open(&R);
    cfg = rig_cfg(&R, &c, 40, 1);
    cfg.max_concurrent = 20;
    c.call = mpp_call_new(&cfg, R.now);
    rig_run(&R);
    for (i = 0; !c.done && i < RIG_MAX; i++) {
        while (i >= R.na)
            rig_wait(&R, 1);
        if (i % 12 == 0) {
            rig_ok(&R, i);
        } else {
            rig_status(&R, i, 429);
            refused++;
        }
    }
    assert_int_equal(c.done, 1);
    assert_int_equal(R.parts_ok, 40);
    assert_int_equal(R.parts_failed, 0);
    assert_true(refused > 40 * 6); /* more than six attempts each */
    rig_fini(&R);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(statuses_are_classified),
        cmocka_unit_test(throttling_takes_no_attempt_from_a_row),
        cmocka_unit_test(x_should_retry_wins_over_the_table),
        cmocka_unit_test(faults_are_retried_by_kind),
        cmocka_unit_test(backoff_is_full_jitter_below_its_cap),
        cmocka_unit_test(budget_counts_exactly),
        cmocka_unit_test(a_part_of_the_budget_is_kept_for_the_clock),
        cmocka_unit_test(six_attempts_then_the_last_error),
        cmocka_unit_test(fatal_status_is_not_retried),
        cmocka_unit_test(a_broken_body_is_retried_once),
        cmocka_unit_test(backoff_holds_no_slot),
        cmocka_unit_test(retried_parts_go_before_new_ones),
        cmocka_unit_test(server_delay_pauses_the_whole_endpoint),
        cmocka_unit_test(a_pause_catches_parts_that_wait_for_a_connection),
        cmocka_unit_test(respect_can_be_switched_off),
        cmocka_unit_test(too_long_a_delay_fails_the_part),
        cmocka_unit_test(a_retry_that_would_miss_the_deadline_is_not_waited_for),
        cmocka_unit_test(empty_budget_parks_a_job),
        cmocka_unit_test(first_attempts_release_parked_parts_in_order),
        cmocka_unit_test(parked_parts_trickle_and_return_after_an_outage),
        cmocka_unit_test(half_broken_server_keeps_its_backlog_moving),
        cmocka_unit_test(empty_budget_fails_a_gateway_fast),
        cmocka_unit_test(an_address_that_never_answers_is_given_up),
        cmocka_unit_test(a_refused_batch_is_cut_until_the_row_is_found),
        cmocka_unit_test(a_wrong_request_does_not_become_one_a_row),
        cmocka_unit_test(cancel_before_a_split_is_told_ends_both_halves),
    };

    return cmocka_run_group_tests_name("policy_retry", tests, NULL, NULL);
}

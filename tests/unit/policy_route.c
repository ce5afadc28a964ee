/* Routing, ejection and breaker, active health checks. */
#include "policy_rig.h"
#include "policy/breaker.h"

static struct rig R;

static void picks(struct rig_call *c, uint32_t n, uint32_t *count)
{
    uint32_t i, from = R.na;

    for (i = 0; i < n; i++) {
        rig_call(&R, c, 1, 1);
        rig_run(&R);
        count[R.a[from].endpoint]++;
        rig_ok(&R, from);
        R.na = from; /* the rig's table is small */
    }
}

static void with_weights(const double *w, uint32_t n)
{
    uint32_t i;

    rig_init(&R, n, 64);
    for (i = 0; i < n; i++)
        R.eps[i].weight = w[i];
    rig_open(&R);
}

static void weights_one_to_three(void **state)
{
    struct rig_call c;
    uint32_t count[8] = {0};

    (void)state;
    with_weights((double[]){1, 3}, 2);
    picks(&c, 4000, count);
    assert_in_range(count[0], 900, 1100);
    assert_in_range(count[1], 2900, 3100);
    rig_fini(&R);
}

static void equal_weights_reach_all(void **state)
{
    struct rig_call c;
    uint32_t count[8] = {0};

    (void)state;
    with_weights((double[]){1, 1, 1}, 3);
    picks(&c, 24, count);
    assert_true(count[0] && count[1] && count[2]);
    rig_fini(&R);
    memset(count, 0, sizeof(count));
    with_weights((double[]){0.1, 0.9}, 2);
    picks(&c, 64, count);
    assert_true(count[0] && count[1]);
    rig_fini(&R);
}

/* One answers in 20 ms, one in 200: of sixteen in flight the slow one has one or two. */
static void the_fast_one_has_most_by_default(void **state)
{
    static const double took[] = {0.02, 0.2};
    struct rig_call c;
    struct mpp_call_cfg cfg;
    uint32_t count[2] = {0}, i, left = 1000;
    mp__time begun;

    (void)state;
    with_weights((double[]){1, 1}, 2);
    begun = R.now;
    cfg = rig_cfg(&R, &c, left, 1);
    cfg.max_concurrent = 16;
    c.call = mpp_call_new(&cfg, R.now);
    rig_run(&R);
    while (!c.done) {
        struct rig_attempt *next = NULL;

        for (i = 0; i < R.na; i++)
            if (R.a[i].live && (next == NULL || R.a[i].at + mp__ns(took[R.a[i].endpoint]) <
                                                    next->at + mp__ns(took[next->endpoint])))
                next = &R.a[i];
        assert_non_null(next);
        R.now = next->at + mp__ns(took[next->endpoint]);
        count[next->endpoint]++;
        rig_ok(&R, (uint32_t)(next - R.a));
    }
    assert_true(count[1] < 150);
    assert_true(R.now - begun < 2 * MP__SECOND);
    rig_fini(&R);
}

static void zero_weight_only_when_the_rest_is_unsound(void **state)
{
    struct rig_call c;
    uint32_t count[8] = {0};

    (void)state;
    rig_init(&R, 3, 64);
    R.eps[0].weight = 1;
    R.eps[1].weight = R.eps[2].weight = 0;
    R.eps[0].health_check = 1;
    rig_open(&R);
    picks(&c, 50, count);
    assert_int_equal(count[0], 50);
    rig_run(&R);
    assert_int_equal(R.probes, 1);
    mpp_probe_done(R.client, 0, 0, R.now);
    picks(&c, 50, count);
    assert_int_equal(count[0], 50);
    assert_true(count[1] && count[2]);
    rig_fini(&R);
}

static void choices_are_the_tickets(void **state)
{
    struct rig_call c;
    uint32_t first[64], i;

    (void)state;
    with_weights((double[]){1, 2, 3}, 3);
    for (i = 0; i < 64; i++) {
        rig_call(&R, &c, 1, 1);
        rig_run(&R);
        first[i] = R.a[i].endpoint;
        rig_ok(&R, i);
    }
    rig_fini(&R);
    with_weights((double[]){1, 2, 3}, 3);
    for (i = 0; i < 64; i++) {
        rig_call(&R, &c, 1, 1);
        rig_run(&R);
        assert_int_equal(R.a[i].endpoint, first[i]);
        rig_ok(&R, i);
    }
    rig_fini(&R);
}

static void a_retry_goes_elsewhere(void **state)
{
    struct rig_call c;
    uint32_t i;

    (void)state;
    for (i = 0; i < 10; i++) {
        rig_init(&R, 3, 64);
        rig_open(&R);
        rig_call(&R, &c, 1, 1);
        rig_run(&R);
        rig_status(&R, 0, 500);
        rig_wait(&R, 1);
        rig_status(&R, 1, 500);
        rig_wait(&R, 1);
        assert_int_equal(R.na, 3);
        assert_int_equal(1u << R.a[0].endpoint | 1u << R.a[1].endpoint | 1u << R.a[2].endpoint, 7);
        rig_fini(&R);
    }
}

static void a_pinned_call_stays_on_first_attempts(void **state)
{
    struct rig_call c;
    struct mpp_call_cfg cfg;
    uint32_t i;

    (void)state;
    rig_init(&R, 3, 64);
    rig_open(&R);
    cfg = rig_cfg(&R, &c, 9, 1);
    cfg.pinned_endpoint = 2;
    c.call = mpp_call_new(&cfg, R.now);
    rig_run(&R);
    for (i = 0; i < 9; i++)
        assert_int_equal(R.a[i].endpoint, 2);
    rig_status(&R, 0, 500);
    rig_wait(&R, 1);
    assert_int_not_equal(R.a[9].endpoint, 2);
    rig_fini(&R);
}

static void sticky_calls_stay_together_and_differ(void **state)
{
    static struct rig_call c[24];
    uint32_t i, k, seen = 0;

    (void)state;
    rig_init(&R, 3, 256);
    R.policy.route.mode = MP_ROUTE_STICKY;
    rig_open(&R);
    for (i = 0; i < 24; i++) {
        uint32_t from = R.na;

        rig_call(&R, &c[i], 3, 1);
        rig_run(&R);
        for (k = from; k < R.na; k++)
            assert_int_equal(R.a[k].endpoint, R.a[from].endpoint);
        seen |= 1u << R.a[from].endpoint;
    }
    assert_int_equal(R.na, 72);
    assert_int_equal(seen, 7);
    rig_fini(&R);
}

static void least_takes_the_idle_one(void **state)
{
    struct rig_call c;
    uint32_t count[8] = {0}, i;

    (void)state;
    rig_init(&R, 4, 256);
    R.policy.route.mode = MP_ROUTE_LEAST;
    rig_open(&R);
    rig_call(&R, &c, 40, 1);
    rig_run(&R);
    for (i = 0; i < 40; i++)
        count[R.a[i].endpoint]++;
    for (i = 0; i < 4; i++)
        assert_int_equal(count[i], 10);
    rig_fini(&R);
}

static void a_failing_endpoint_is_ejected_and_probed(void **state)
{
    struct rig_call c, d;
    uint32_t i, sent = 0;

    (void)state;
    rig_init(&R, 2, 64);
    rig_open(&R);
    rig_call(&R, &c, 200, 1);
    rig_run(&R);
    for (i = 0; i < 64; i++) {
        if (R.a[i].endpoint == 0)
            rig_fault(&R, i, MP_KIND_CONNECT);
    }
    assert_int_equal(rig_stats(&R, 0).breaker, MPP_BREAKER_OPEN);
    for (i = 64; i < R.na; i++)
        sent += R.a[i].endpoint == 0;
    assert_true(sent < 10);
    for (i = 0; i < R.na; i++) {
        if (!R.a[i].live)
            continue;
        if (R.a[i].endpoint == 0)
            rig_fault(&R, i, MP_KIND_CONNECT);
        else
            rig_ok(&R, i);
    }
    assert_int_equal(c.done, 0); /* some are in backoff */
    rig_wait(&R, 6);
    rig_call(&R, &d, 20, 1);
    rig_run(&R);
    for (sent = 0, i = 0; i < R.na; i++)
        sent += R.a[i].live && R.a[i].endpoint == 0;
    assert_true(sent <= 1); /* the probe */
    rig_fini(&R);
}

static void the_last_sound_endpoint_is_kept(void **state)
{
    struct rig_call c;
    uint32_t i;

    (void)state;
    rig_init(&R, 2, 64);
    R.policy.breaker.enabled = 0; /* ejection alone */
    rig_open(&R);
    rig_call(&R, &c, 60, 1);
    rig_run(&R);
    for (i = 0; i < 60; i++)
        rig_fault(&R, i, MP_KIND_CONNECT);
    assert_int_equal(rig_stats(&R, 0).breaker + rig_stats(&R, 1).breaker, MPP_BREAKER_OPEN);
    rig_fini(&R);
}

static void one_endpoint_opens_waits_and_closes(void **state)
{
    struct rig_call c, d;
    uint32_t i, n;

    (void)state;
    rig_init(&R, 1, 64);
    R.policy.breaker.enabled = 1; /* a job's default is none */
    rig_open(&R);
    rig_call(&R, &c, 30, 1);
    rig_run(&R);
    mpp_attempt_connected(R.core, R.a[0].id, R.now);
    for (i = 0; i < 30; i++)
        rig_status(&R, i, 503);
    assert_int_equal(rig_stats(&R, 0).breaker, MPP_BREAKER_OPEN);
    n = R.na;
    rig_call(&R, &d, 10, 1);
    rig_wait(&R, 4.4);
    assert_int_equal(R.na, n);
    rig_wait(&R, 1.2);
    assert_int_equal(R.na, n + 1); /* one probe */
    rig_status(&R, n, 503);
    rig_wait(&R, 8.9);
    assert_int_equal(R.na, n + 1); /* doubled */
    rig_wait(&R, 2.2);
    assert_int_equal(R.na, n + 2);
    rig_ok(&R, n + 1);
    assert_true(R.na > n + 10);
    assert_int_equal(rig_stats(&R, 0).breaker, MPP_BREAKER_CLOSED);
    rig_fini(&R);
}

static void an_open_breaker_fails_a_gateway_fast(void **state)
{
    struct rig_call c, d;
    uint32_t i;

    (void)state;
    rig_init(&R, 1, 64);
    mp_policy_init(&R.policy, MP_PRESET_GATEWAY);
    rig_open(&R);
    rig_call(&R, &c, 20, 1);
    rig_run(&R);
    for (i = 0; i < 20; i++)
        rig_status(&R, i, 503);
    rig_call(&R, &d, 3, 1);
    rig_run(&R);
    assert_int_equal(d.done, 1);
    assert_int_equal(R.last_kind, MP_KIND_BREAKER_OPEN);
    rig_fini(&R);
}

static void ordinary_luck_does_not_open_it(void **state)
{
    struct mpp_breaker b = {0};
    struct mp_policy p;
    uint64_t rng = 5;
    mp__time t = 1000 * MP__SECOND;
    int i;

    (void)state;
    mp_policy_init(&p, MP_PRESET_JOB);
    for (i = 0; i < 40; i++, t += MP__SECOND / 100)
        mpp_breaker_record(&b, &p.breaker, MPP_VOTE_ALIVE, 0, 1, t, &rng);
    for (i = 0; i < 10; i++, t += MP__SECOND / 100)
        assert_int_equal(mpp_breaker_record(&b, &p.breaker, MPP_VOTE_GATEWAY, 0, 1, t, &rng), 0);
    for (i = 0; i < 31; i++, t += MP__SECOND / 100)
        if (mpp_breaker_record(&b, &p.breaker, MPP_VOTE_GATEWAY, 0, 1, t, &rng))
            break;
    assert_int_equal(i, 29); /* half of 80 */
    mpp_breaker_record(&b, &p.breaker, MPP_VOTE_ALIVE, 0, 1, t, &rng);
    assert_int_equal(b.state, MPP_BREAKER_CLOSED); /* a late answer is a sign of life */
}

static void statuses_vote_as_they_should(void **state)
{
    struct mpp_outcome o = rig_outcome(MP_KIND_HTTP, 500);

    (void)state;
    assert_int_equal(mpp_breaker_vote(&o), MPP_VOTE_FAILED);
    o.status = 502;
    assert_int_equal(mpp_breaker_vote(&o), MPP_VOTE_GATEWAY);
    o.status = 503;
    o.hints.retry_after = 3;
    assert_int_not_equal(mpp_breaker_vote(&o), MPP_VOTE_GATEWAY);
    o.status = 404;
    assert_int_equal(mpp_breaker_vote(&o), MPP_VOTE_ALIVE);
    o = rig_outcome(MP_KIND_RATE_LIMITED, 429);
    assert_int_equal(mpp_breaker_vote(&o), MPP_VOTE_ALIVE);
    o = rig_outcome(MP_KIND_CONNECT_TIMEOUT, 0);
    assert_int_equal(mpp_breaker_vote(&o), MPP_VOTE_GATEWAY);
    o = rig_outcome(MP_KIND_CANCELLED, 0);
    assert_int_equal(mpp_breaker_vote(&o), MPP_VOTE_NONE);
}

static void probes_flip_both_ways_and_retry(void **state)
{
    struct rig_call c;
    uint32_t count[8] = {0};

    (void)state;
    rig_init(&R, 2, 64);
    R.eps[0].health_check = 1;
    R.eps[0].health_interval = 1;
    R.eps[0].health_retries = 2;
    rig_open(&R);
    rig_wait(&R, 0);
    assert_int_equal(R.probes, 1);
    mpp_probe_done(R.client, 0, 0, R.now);
    rig_wait(&R, 0.25);
    assert_int_equal(R.probes, 2);
    assert_int_equal(rig_stats(&R, 0).healthy, 1);
    mpp_probe_done(R.client, 0, 0, R.now);
    rig_wait(&R, 0.25);
    mpp_probe_done(R.client, 0, 0, R.now);
    assert_int_equal(rig_stats(&R, 0).healthy, 0);
    picks(&c, 20, count);
    assert_int_equal(count[0], 0);
    rig_wait(&R, 1.1);
    assert_int_equal(R.probes, 4);
    mpp_probe_done(R.client, 0, -1, R.now); /* no vote */
    assert_int_equal(rig_stats(&R, 0).healthy, 0);
    rig_wait(&R, 2);
    mpp_probe_done(R.client, 0, 1, R.now);
    assert_int_equal(rig_stats(&R, 0).healthy, 1);
    picks(&c, 20, count);
    assert_true(count[0] > 0);
    rig_fini(&R);
}

static enum mpp_verdict to_one(void *arg, const struct mpp_view *v, uint32_t *endpoint)
{
    (void)arg;
    (void)v;
    *endpoint = 1;
    return MPP_YES;
}

static void a_hook_decides(void **state)
{
    static const struct mpp_hooks hooks = {.route = to_one};
    struct mpp_client_cfg cfg;
    struct rig_call c;
    uint32_t count[8] = {0};

    (void)state;
    rig_init(&R, 3, 64);
    cfg = (struct mpp_client_cfg){
        .pool = R.pool, .policy = &R.policy, .endpoints = R.eps, .nendpoints = 3, .hooks = &hooks};
    R.client = mpp_client_new(R.core, &cfg);
    picks(&c, 20, count);
    assert_int_equal(count[1], 20);
    rig_fini(&R);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_one_to_three),
        cmocka_unit_test(the_fast_one_has_most_by_default),
        cmocka_unit_test(equal_weights_reach_all),
        cmocka_unit_test(zero_weight_only_when_the_rest_is_unsound),
        cmocka_unit_test(choices_are_the_tickets),
        cmocka_unit_test(a_retry_goes_elsewhere),
        cmocka_unit_test(a_pinned_call_stays_on_first_attempts),
        cmocka_unit_test(sticky_calls_stay_together_and_differ),
        cmocka_unit_test(least_takes_the_idle_one),
        cmocka_unit_test(a_failing_endpoint_is_ejected_and_probed),
        cmocka_unit_test(the_last_sound_endpoint_is_kept),
        cmocka_unit_test(one_endpoint_opens_waits_and_closes),
        cmocka_unit_test(an_open_breaker_fails_a_gateway_fast),
        cmocka_unit_test(ordinary_luck_does_not_open_it),
        cmocka_unit_test(statuses_vote_as_they_should),
        cmocka_unit_test(probes_flip_both_ways_and_retry),
        cmocka_unit_test(a_hook_decides),
    };

    return cmocka_run_group_tests_name("policy_route", tests, NULL, NULL);
}

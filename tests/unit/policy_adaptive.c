/* Adaptive concurrency, latency histograms, presets, and the hooks' manners. */
#include "policy_rig.h"
#include "policy/concurrency.h"
#include "base/hist.h"
#include "base/prng.h"

static struct rig R;

static void drive(struct mpp_concurrency *c, mp__time *t, int windows, double latency,
                  enum mpp_pressure p)
{
    int w, i;

    for (w = 0; w < windows; w++) {
        uint32_t n = mpp_concurrency_limit(c);

        mpp_concurrency_started(c, n);
        for (i = 0; i < 4; i++) {
            *t += (mp__time)(latency * 1e9 / 3);
            mpp_concurrency_done(c, p, latency, 1, *t);
        }
    }
}

static void init(struct mpp_concurrency *c)
{
    struct mp_policy p;

    mp_policy_init(&p, MP_PRESET_JOB);
    p.concurrency.mode = MP_CONC_ADAPTIVE;
    mpp_concurrency_init(c, &p.concurrency, 1000 * MP__SECOND);
}

static void slow_start_doubles_from_four(void **state)
{
    struct mpp_concurrency c;
    mp__time t = 1000 * MP__SECOND;

    (void)state;
    init(&c);
    assert_int_equal(mpp_concurrency_limit(&c), 4);
    drive(&c, &t, 3, 0.1, MPP_CALM);
    assert_int_equal(mpp_concurrency_limit(&c), 32);
    drive(&c, &t, 10, 0.1, MPP_CALM);
    assert_int_equal(mpp_concurrency_limit(&c), 256);
}

static void pressure_shrinks_by_a_tenth_and_ends_slow_start(void **state)
{
    struct mpp_concurrency c;
    mp__time t = 1000 * MP__SECOND;

    (void)state;
    init(&c);
    drive(&c, &t, 3, 0.1, MPP_CALM);
    drive(&c, &t, 1, 0.1, MPP_PUSHED);
    assert_int_equal(mpp_concurrency_limit(&c), 28);
    drive(&c, &t, 2, 0.1, MPP_CALM);
    assert_in_range(mpp_concurrency_limit(&c), 28, 30);
}

static void a_hiccup_does_not_end_slow_start(void **state)
{
    struct mpp_concurrency c;
    mp__time t = 1000 * MP__SECOND;

    (void)state;
    init(&c);
    drive(&c, &t, 2, 0.1, MPP_CALM);
    assert_int_equal(mpp_concurrency_limit(&c), 16);
    drive(&c, &t, 2, 0.3, MPP_CALM);
    assert_in_range(mpp_concurrency_limit(&c), 12, 15);
    drive(&c, &t, 4, 0.1, MPP_CALM);
    assert_in_range(mpp_concurrency_limit(&c), 96, 240);
}

static void a_queue_ends_slow_start_for_good(void **state)
{
    struct mpp_concurrency c;
    mp__time t = 1000 * MP__SECOND;

    (void)state;
    init(&c);
    drive(&c, &t, 3, 0.1, MPP_CALM);
    drive(&c, &t, 10, 0.16, MPP_CALM); /* stays slow: by and by that is how it is */
    drive(&c, &t, 4, 0.1, MPP_CALM);
    assert_in_range(mpp_concurrency_limit(&c), 24, 45);
}

static void pushing_back_ends_slow_start_for_good(void **state)
{
    struct mpp_concurrency c;
    mp__time t = 1000 * MP__SECOND;

    (void)state;
    init(&c);
    drive(&c, &t, 3, 0.1, MPP_CALM);
    drive(&c, &t, 1, 0.3, MPP_CALM);
    drive(&c, &t, 1, 0.1, MPP_PUSHED);
    drive(&c, &t, 4, 0.1, MPP_CALM);
    assert_in_range(mpp_concurrency_limit(&c), 20, 32);
}

static void faults_halve_and_the_minimum_holds(void **state)
{
    struct mpp_concurrency c;
    mp__time t = 1000 * MP__SECOND;

    (void)state;
    init(&c);
    drive(&c, &t, 4, 0.1, MPP_CALM);
    drive(&c, &t, 1, 0.1, MPP_FAULT);
    assert_int_equal(mpp_concurrency_limit(&c), 32);
    drive(&c, &t, 50, 0.1, MPP_FAULT);
    assert_int_equal(mpp_concurrency_limit(&c), 1);
}

static void a_limit_not_reached_does_not_grow(void **state)
{
    struct mpp_concurrency c;
    mp__time t = 1000 * MP__SECOND;
    int i;

    (void)state;
    init(&c);
    for (i = 0; i < 100; i++) {
        mpp_concurrency_started(&c, 2);
        t += MP__SECOND / 10;
        mpp_concurrency_done(&c, MPP_CALM, 0.1, 1, t);
    }
    assert_int_equal(mpp_concurrency_limit(&c), 4);
}

static void batch_size_is_not_latency(void **state)
{
    struct mpp_concurrency c;
    mp__time t = 1000 * MP__SECOND;
    int i;

    (void)state;
    init(&c);
    for (i = 0; i < 400; i++) { /* two kinds of batches, one ten times slower */
        uint32_t size = (i / 20) & 1;

        mpp_concurrency_started(&c, mpp_concurrency_limit(&c));
        t += MP__SECOND / 20;
        mpp_concurrency_done(&c, MPP_CALM, size ? 1.0 : 0.1, 1 + size * 4, t);
    }
    assert_true(mpp_concurrency_limit(&c) >= 128);
}

static void percentiles_are_within_a_bucket(void **state)
{
    struct mp__hists h = {0};
    uint64_t rng = 3;
    mp__time t = 1000 * MP__SECOND;
    double p;
    int i;

    (void)state;
    assert_true(mp__hists_percentile(&h, 0, 0.5, t) < 0);
    for (i = 0; i < 10000; i++)
        mp__hists_record(&h, 1, (mp__time)(mp__random01(&rng) * 1e9), t);
    p = mp__hists_percentile(&h, 1, 0.95, t);
    assert_true(p > 0.95 / 1.05 && p < 0.95 * 1.05);
    p = mp__hists_percentile(&h, 1, 0.5, t);
    assert_true(p > 0.5 / 1.05 && p < 0.5 * 1.05);
    /* A class of its own, and the fall-back to all. */
    for (i = 0; i < 100; i++)
        mp__hists_record(&h, 7, 9 * MP__SECOND, t);
    assert_true(mp__hists_percentile(&h, 7, 0.5, t) > 8);
    assert_true(mp__hists_percentile(&h, 9, 0.5, t) < 1);
    /* Old ones fade. */
    assert_true(mp__hists_percentile(&h, 7, 0.5, t + 40 * MP__SECOND) < 0);
    mp__hists_record(&h, 31, MP__NEVER, t);
    mp__hists_record(&h, 4000000000u, 0, t);
    mp__hists_fini(&h);
}

static void presets_are_what_the_reference_says(void **state)
{
    struct mp_policy p;

    (void)state;
    mp_policy_init(&p, MP_PRESET_JOB);
    assert_int_equal(p.retry.max_attempts, 6);
    assert_true(p.retry.base == 0.25 && p.retry.throttle_base == 1 && p.retry.cap == 30);
    assert_true(p.retry.budget == 0.1 && p.retry.reserve == 10 && p.retry.max_server_delay == 120);
    assert_true(p.hedge.delay == 0 && p.hedge.factor == 0 && p.hedge.budget == 0.05);
    assert_int_equal(p.batch.size, 128);
    assert_int_equal(p.concurrency.mode, MP_CONC_OFF);
    assert_true(p.retry.fail_fast == 0 && p.rate.rpm == 0);
    assert_true(mp_status_has(p.retry.on, 425) && mp_status_has(p.retry.on, 599));
    assert_false(mp_status_has(p.retry.on, 404) || mp_status_has(p.retry.on, 100000));
    mp_policy_init(&p, MP_PRESET_GATEWAY);
    assert_int_equal(p.retry.max_attempts, 2);
    assert_int_equal(p.retry.fail_fast, 1);
    mp_policy_init(&p, MP_PRESET_NONE);
    assert_int_equal(p.retry.max_attempts, 1);
    mp_status_set(p.retry.on, 404, 1);
    assert_true(mp_status_has(p.retry.on, 404));
    mp_status_set(p.retry.on, 404, 0);
    assert_false(mp_status_has(p.retry.on, 404));
}

/* ---- hooks ----------------------------------------------------------------------------------- */

static int ASKED, GIVEN_UP;

static enum mpp_verdict retry_400(void *arg, const struct mpp_view *v, double *delay)
{
    (void)arg;
    ASKED++;
    assert_non_null(v->outcome);
    assert_non_null(v->part);
    *delay = 0.5;
    return v->outcome->status == 400 ? MPP_YES : MPP_NO;
}

static void gave_up(void *arg, const struct mpp_view *v, enum mp_kind kind)
{
    (void)arg;
    (void)v;
    assert_int_equal(kind, MP_KIND_HTTP);
    GIVEN_UP++;
}

static enum mpp_verdict classify_404(void *arg, const struct mpp_view *v, enum mpp_class *cls,
                                     double *delay)
{
    (void)arg;
    *cls = v->outcome->status == 404 ? MPP_TRANSIENT : MPP_OK; /* the latter is not believed */
    *delay = 2;
    return MPP_YES;
}

static void open_hooked(const struct mpp_hooks *hooks)
{
    struct mpp_client_cfg cfg;

    rig_init(&R, 1, 64);
    cfg = (struct mpp_client_cfg){
        .pool = R.pool, .policy = &R.policy, .endpoints = R.eps, .nendpoints = 1, .hooks = hooks};
    R.client = mpp_client_new(R.core, &cfg);
}

static void a_retry_hook_rules_within_the_caps(void **state)
{
    static const struct mpp_hooks hooks = {.retry = retry_400, .on_giveup = gave_up};
    struct rig_call c, d;
    uint32_t i;

    (void)state;
    ASKED = GIVEN_UP = 0;
    open_hooked(&hooks);
    rig_call(&R, &c, 1, 1);
    rig_run(&R);
    for (i = 0; i < 6; i++) {
        rig_status(&R, i, 400);
        rig_wait(&R, 0.51);
    }
    assert_int_equal(R.na, 6);
    assert_int_equal(ASKED, 5);
    assert_int_equal(GIVEN_UP, 1);
    rig_call(&R, &d, 1, 1);
    rig_run(&R);
    rig_status(&R, 6, 500);
    assert_int_equal(d.done, 1);
    assert_int_equal(GIVEN_UP, 2);
    rig_fini(&R);
}

static void a_classify_hook_cannot_make_a_failure_a_success(void **state)
{
    static const struct mpp_hooks hooks = {.classify = classify_404};
    struct rig_call c;

    (void)state;
    open_hooked(&hooks);
    rig_call(&R, &c, 1, 1);
    rig_run(&R);
    rig_status(&R, 0, 404);
    rig_wait(&R, 1.9);
    assert_int_equal(R.na, 1);
    rig_wait(&R, 0.4);
    assert_int_equal(R.na, 2);
    rig_status(&R, 1, 403);
    assert_int_equal(R.parts_failed, 1);
    rig_fini(&R);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slow_start_doubles_from_four),
        cmocka_unit_test(pressure_shrinks_by_a_tenth_and_ends_slow_start),
        cmocka_unit_test(a_hiccup_does_not_end_slow_start),
        cmocka_unit_test(a_queue_ends_slow_start_for_good),
        cmocka_unit_test(pushing_back_ends_slow_start_for_good),
        cmocka_unit_test(faults_halve_and_the_minimum_holds),
        cmocka_unit_test(a_limit_not_reached_does_not_grow),
        cmocka_unit_test(batch_size_is_not_latency),
        cmocka_unit_test(percentiles_are_within_a_bucket),
        cmocka_unit_test(presets_are_what_the_reference_says),
        cmocka_unit_test(a_retry_hook_rules_within_the_caps),
        cmocka_unit_test(a_classify_hook_cannot_make_a_failure_a_success),
    };

    return cmocka_run_group_tests_name("policy_adaptive", tests, NULL, NULL);
}

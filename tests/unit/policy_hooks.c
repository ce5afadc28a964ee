/* Hooks of calls, and the rate hook: the last gate, asked once for what goes. */
#include "policy_rig.h"

static struct rig R;

static int ASKED, CLIENTS, CALLS;
static double WAIT;
static int UNTIL; /* asked so often before it lets go */

static enum mpp_verdict rate(void *arg, const struct mpp_view *v, double *wait)
{
    (void)arg;
    assert_non_null(v->part);
    assert_true(v->now == R.now);
    if (++ASKED > UNTIL)
        return MPP_YES;
    *wait = WAIT;
    return MPP_NO;
}

/* Rows of the first call are held for ever. */
static enum mpp_verdict hold_first(void *arg, const struct mpp_view *v, double *wait)
{
    ASKED++;
    *wait = 5;
    return v->call_user == arg ? MPP_NO : MPP_YES;
}

static enum mpp_verdict fail_odd(void *arg, const struct mpp_view *v, double *wait)
{
    (void)arg;
    *wait = -(double)MP_KIND_BUDGET;
    return v->part->info.first % 2 ? MPP_NO : MPP_YES;
}

static enum mpp_verdict of_client(void *arg, const struct mpp_view *v, double *delay)
{
    (void)arg;
    (void)v;
    (void)delay;
    CLIENTS++;
    return MPP_NO;
}

static enum mpp_verdict of_call(void *arg, const struct mpp_view *v, double *delay)
{
    (void)arg;
    CALLS++;
    *delay = -1; /* the policy's own */
    return v->part->attempts < 3 ? MPP_YES : MPP_NO;
}

static void open_with(const struct mpp_hooks *hooks, uint32_t endpoints)
{
    struct mpp_client_cfg cfg;

    rig_init(&R, endpoints, 64);
    ASKED = CLIENTS = CALLS = 0;
    cfg = (struct mpp_client_cfg){.pool = R.pool,
                                  .policy = &R.policy,
                                  .endpoints = R.eps,
                                  .nendpoints = endpoints,
                                  .hooks = hooks};
    R.client = mpp_client_new(R.core, &cfg);
    assert_non_null(R.client);
}

static void a_yes_of_the_rate_hook_is_an_admission(void **state)
{
    static const struct mpp_hooks hooks = {.rate = rate};
    struct rig_call c;

    (void)state;
    UNTIL = 0;
    open_with(&hooks, 1);
    mpp_client_close(R.client, R.now);
    R.policy.concurrency.mode = MP_CONC_FIXED;
    R.policy.concurrency.limit = 2;
    R.client = mpp_client_new(R.core, &(struct mpp_client_cfg){.pool = R.pool,
                                                               .policy = &R.policy,
                                                               .endpoints = R.eps,
                                                               .nendpoints = 1,
                                                               .hooks = &hooks});
    rig_call(&R, &c, 5, 1);
    rig_wait(&R, 1);
    assert_int_equal(R.na, 2); /* at the limit: the others are not even asked about */
    assert_int_equal(ASKED, 2);
    for (uint32_t i = 0; i < 5; i++)
        rig_ok(&R, i);
    assert_int_equal(R.parts_ok, 5);
    assert_int_equal(ASKED, 5);
    rig_fini(&R);
}

static void it_is_asked_again_after_the_wait(void **state)
{
    static const struct mpp_hooks hooks = {.rate = rate};
    struct rig_call c;

    (void)state;
    UNTIL = 2;
    WAIT = 1;
    open_with(&hooks, 1);
    rig_call(&R, &c, 1, 1);
    rig_wait(&R, 0.9);
    assert_int_equal(ASKED, 1);
    rig_wait(&R, 0.2);
    assert_int_equal(ASKED, 2);
    assert_int_equal(R.na, 0);
    rig_wait(&R, 1);
    assert_int_equal(R.na, 1);
    rig_ok(&R, 0);
    rig_fini(&R);
}

/* More calls than a pass looks at are held; those behind must be seen all the same, and no held
 * part may take a rate bucket for itself. */
static void what_it_holds_holds_up_nobody_else(void **state)
{
    static struct rig_call held[100];
    struct rig_call other;
    struct mpp_hooks hooks = {.rate = hold_first};
    struct mpp_call_cfg cfg;
    struct mpp_hooks none = {0};

    (void)state;
    open_with(NULL, 1);
    mpp_client_close(R.client, R.now);
    R.policy.rate.tpm = 6000000;
    R.client = mpp_client_new(
        R.core, &(struct mpp_client_cfg){
                    .pool = R.pool, .policy = &R.policy, .endpoints = R.eps, .nendpoints = 1});
    for (int i = 0; i < 100; i++) {
        cfg = rig_cfg(&R, &held[i], 1, 1);
        held[i].tokens = 1000;
        hooks.arg = &held[i];
        /* Each holds its own call only, so one struct of hooks a call. */
        static struct mpp_hooks each[100];
        each[i] = hooks;
        cfg.hooks = &each[i];
        held[i].call = mpp_call_new(&cfg, R.now);
        assert_non_null(held[i].call);
    }
    rig_wait(&R, 3);
    assert_int_equal(R.na, 0);
    cfg = rig_cfg(&R, &other, 3, 1);
    other.tokens = 1000;
    cfg.hooks = &none;
    other.call = mpp_call_new(&cfg, R.now);
    rig_wait(&R, 0.2);
    assert_int_equal(R.na, 3);
    rig_fini(&R);
}

static void it_can_end_a_part(void **state)
{
    static const struct mpp_hooks hooks = {.rate = fail_odd};
    struct rig_call c;

    (void)state;
    open_with(&hooks, 1);
    rig_call(&R, &c, 4, 1);
    rig_run(&R);
    assert_int_equal(R.parts_failed, 2);
    assert_int_equal(R.last_kind, MP_KIND_BUDGET);
    assert_int_equal(R.na, 2);
    rig_ok(&R, 0);
    rig_ok(&R, 1);
    assert_int_equal(c.done, 1);
    rig_fini(&R);
}

static void a_call_has_its_own(void **state)
{
    static const struct mpp_hooks clients = {.retry = of_client};
    static const struct mpp_hooks calls = {.retry = of_call};
    struct rig_call c, d;
    struct mpp_call_cfg cfg;

    (void)state;
    open_with(&clients, 1);
    rig_call(&R, &c, 1, 1);
    rig_run(&R);
    rig_status(&R, 0, 500);
    assert_int_equal(c.done, 1);
    assert_int_equal(CLIENTS, 1);
    cfg = rig_cfg(&R, &d, 1, 1);
    cfg.hooks = &calls;
    d.call = mpp_call_new(&cfg, R.now);
    rig_run(&R);
    rig_status(&R, 1, 400); /* which the policy would not retry */
    assert_int_equal(R.na, 2);
    rig_wait(&R, 0.3); /* a backoff like any: rand(0, 0.25 s) */
    assert_int_equal(R.na, 3);
    rig_status(&R, 2, 400);
    rig_wait(&R, 0.6);
    assert_int_equal(R.na, 4);
    rig_status(&R, 3, 400);
    assert_int_equal(d.done, 1);
    assert_int_equal(CALLS, 3);
    assert_int_equal(CLIENTS, 1);
    rig_fini(&R);
}

static void loads_are_told(void **state)
{
    struct rig_call c;
    struct mpp_load load;

    (void)state;
    open_with(NULL, 2);
    assert_int_equal(mpp_client_endpoints(R.client), 2);
    rig_call(&R, &c, 4, 1);
    rig_run(&R);
    uint32_t sum = 0;
    for (uint32_t i = 0; i < 2; i++) {
        mpp_endpoint_load(R.client, i, &load);
        assert_int_equal(load.sound, 1);
        assert_int_equal(load.limit, 0);
        assert_true(load.latency == 0);
        sum += load.in_flight;
    }
    assert_int_equal(sum, 4);
    R.now += MP__SECOND / 10;
    for (uint32_t i = 0; i < 4; i++)
        rig_ok(&R, i);
    mpp_endpoint_load(R.client, R.a[0].endpoint, &load);
    assert_true(load.latency > 0.05);
    mpp_endpoint_load(R.client, 7, &load);
    assert_int_equal(load.sound, 0);
    rig_fini(&R);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_yes_of_the_rate_hook_is_an_admission),
        cmocka_unit_test(it_is_asked_again_after_the_wait),
        cmocka_unit_test(what_it_holds_holds_up_nobody_else),
        cmocka_unit_test(it_can_end_a_part),
        cmocka_unit_test(a_call_has_its_own),
        cmocka_unit_test(loads_are_told),
    };

    return cmocka_run_group_tests_name("policy_hooks", tests, NULL, NULL);
}

/*
 * engine_abuse.c - the C ABI under arguments that make no sense and calls from where they do not
 * belong: refused with a reason, never a crash.
 */
#include "engine_rig.h"

static void test_nothing_at_all(void **state)
{
    (void)state;
    struct mp_request q = MP_INIT(struct mp_request);
    struct mp_completion c;
    mp_client *client = NULL;
    mp_batcher *batcher = NULL;
    char *text = NULL;
    size_t n = 0;
    assert_int_equal(mp_submit(NULL, &q, NULL), MP_EINVAL);
    assert_int_equal(mp_poll(NULL, &c, 1), MP_EINVAL);
    assert_int_equal(mp_wait(NULL, 0), MP_EINVAL);
    mp_cancel(NULL, 1);
    mp_resume(NULL, 1);
    mp_engine_close(NULL, NULL, NULL);
    mp_stats(NULL, NULL);
    mp_client_stats(NULL, NULL);
    mp_client_close(NULL);
    mp_pool_unref(NULL);
    assert_null(mp_pool_new(NULL, NULL));
    assert_int_equal(mp_client_new(NULL, NULL, &client), MP_EINVAL);
    assert_int_equal(mp_batcher_new(NULL, NULL, &batcher), MP_EINVAL);
    assert_int_equal(mp_batcher_new(NULL, NULL, NULL), MP_EINVAL);
    assert_int_equal(mp_batcher_submit(NULL, &q, NULL, NULL), MP_EINVAL);
    mp_batcher_cancel(NULL, 1);
    mp_batcher_close(NULL);
    mp_result_free(NULL);
    mp_matrix_unref(NULL);
    mp_free(NULL);
    assert_int_equal(mp_reply_write(NULL, &text, &n), MP_EINVAL);
    assert_int_equal(mp_policy_json(NULL, "{}", 2), MP_EINVAL);
    assert_string_equal(mp_kind_name((enum mp_kind)999), "unknown");
    assert_string_equal(mp_strerror(-999), "unknown error");
    assert_int_equal(mp_struct_size(NULL), 0);
    assert_int_equal(mp_struct_size("mp_request"), sizeof(q));
}

static void test_impossible_lengths(void **state)
{
    (void)state;
    static struct rig rig;
    struct mp_str row = {"x", 1};
    rig_open(&rig);
    rig_client(&rig, NULL);
    struct mp_request q = rig_request(&rig, &row, 1);
    q.size = 0;
    assert_int_equal(mp_submit(rig.engine, &q, NULL), MP_EINVAL);
    q.size = SIZE_MAX;
    q.nrows = SIZE_MAX;
    assert_int_equal(mp_submit(rig.engine, &q, NULL), MP_EINVAL);
    q.nrows = 0;
    assert_int_equal(mp_submit(rig.engine, &q, NULL), MP_EINVAL);
    q.nrows = 1;
    row.n = SIZE_MAX;
    assert_int_equal(mp_submit(rig.engine, &q, NULL), MP_EINVAL);
    assert_non_null(strstr(mp_last_error(), "row 1"));
    row.n = SIZE_MAX / 2;
    assert_int_equal(mp_submit(rig.engine, &q, NULL), MP_EINVAL);
    row = (struct mp_str){NULL, 5};
    assert_int_equal(mp_submit(rig.engine, &q, NULL), MP_EINVAL);
    row = (struct mp_str){"x", 1};
    q.suffix = (struct mp_str){"x", SIZE_MAX};
    assert_int_equal(mp_submit(rig.engine, &q, NULL), MP_EINVAL);
    q.suffix = (struct mp_str){NULL, 0};
    assert_null(mp_matrix_new(SIZE_MAX, SIZE_MAX));
    assert_null(mp_matrix_new(SIZE_MAX / 2, 4));
    mp_cancel(rig.engine, UINT64_MAX);
    mp_resume(rig.engine, UINT64_MAX);
    struct mp_completion c;
    assert_int_equal(mp_poll(rig.engine, NULL, 1), MP_EINVAL);
    assert_int_equal(mp_poll(rig.engine, &c, INT32_MIN), 0);
    assert_int_equal(mp_wait(rig.engine, 0), MP_EINVAL); /* the loop is the host's */
    q.size = sizeof(q);
    rig_submit(&rig, &q);
    rig_run(&rig, 1);
    rig_close(&rig);
}

/* ---- from inside a callback ---- */

static mp_engine *own;
static int waited, closed;

static void close_inside(void *arg, const struct mp_result *r)
{
    (void)r;
    waited = mp_wait(own, -1);
    if (arg != NULL)
        mp_engine_close(own, rig_closed, &closed);
}

static void test_waiting_and_closing_inside_done(void **state)
{
    (void)state;
    struct mp_endpoint_config ep = {.base_url = "http://127.0.0.1:9"}; /* nobody is there */
    struct mp_client_config c = MP_INIT(struct mp_client_config);
    struct mp_policy p;
    struct mp_str row = {"x", 1};
    struct mp_request q = MP_INIT(struct mp_request);
    mp_policy_init(&p, MP_PRESET_NONE);
    c.policy = &p;
    c.endpoints = &ep;
    c.nendpoints = 1;
    for (int how = 0; how < 2; how++) {
        own = mp_engine_new(NULL);
        waited = closed = 0;
        assert_int_equal(mp_client_new(own, &c, &q.client), 0);
        q.rows = &row;
        q.nrows = 1;
        q.done = close_inside;
        q.arg = how ? &closed : NULL;
        assert_int_equal(mp_submit(own, &q, NULL), 0);
        assert_int_equal(mp_submit(own, &q, NULL), 0); /* still open when the first closes */
        int rc = mp_wait(own, 20000);
        assert_int_equal(waited, MP_EINVAL);
        assert_int_equal(rc, how ? MP_ECLOSED : 1);
        assert_int_equal(closed, how);
        if (!how)
            mp_engine_close(own, NULL, NULL);
    }
}

/* ---- policies from JSON ---- */

static int parse(struct mp_policy *p, const char *json)
{
    return mp_policy_json(p, json, strlen(json));
}

static void test_policies_from_json(void **state)
{
    (void)state;
    struct mp_policy p, job;
    mp_policy_init(&job, MP_PRESET_JOB);
    assert_int_equal(parse(&p, "{}"), 0);
    assert_memory_equal(&p, &job, sizeof(p));
    assert_int_equal(parse(&p, "{\"preset\":\"gateway\",\"retry\":{\"max_attempts\":4,\"base\":0.5,"
                               "\"on\":[429,\"5xx\",\"connect\"],\"never\":[501],\"when_empty\":"
                               "\"park\"},\"hedge\":{\"after\":\"1.5*p90\"},\"rate\":{\"rpm\":60},"
                               "\"concurrency\":\"adaptive\",\"batch\":64,\"breaker\":false,"
                               "\"route\":\"least\"}"),
                     0);
    assert_int_equal(p.retry.max_attempts, 4);
    assert_true(p.retry.base == 0.5 && p.retry.throttle_base == 1);
    assert_true(mp_status_has(p.retry.on, 429) && mp_status_has(p.retry.on, 500));
    assert_false(mp_status_has(p.retry.on, 501) || mp_status_has(p.retry.on, 408));
    assert_int_equal(p.retry.transport, MP_FAULT_CONNECT);
    assert_int_equal(p.retry.fail_fast, 0);
    assert_true(p.hedge.factor == 1.5 && p.hedge.percentile == 0.9 && p.hedge.delay == 0);
    assert_true(p.rate.rpm == 60 && p.rate.tpm == 0);
    assert_int_equal(p.concurrency.mode, MP_CONC_ADAPTIVE);
    assert_int_equal(p.batch.size, 64);
    assert_int_equal(p.breaker.enabled, 0);
    assert_int_equal(p.route.mode, MP_ROUTE_LEAST);
    assert_int_equal(parse(&p, "{\"retry\":false,\"hedge\":0.2,\"concurrency\":8}"), 0);
    assert_int_equal(p.retry.max_attempts, 1);
    assert_true(p.hedge.delay == 0.2);
    assert_int_equal(p.concurrency.limit, 8);
}

static void test_wrong_json_is_named(void **state)
{
    (void)state;
    static const struct {
        const char *json, *word;
    } wrong[] = {
        {"", "json"},
        {"[]", "json"},
        {"{\"retry\":{\"max_attempts\":0}}", "retry.max_attempts"},
        {"{\"retry\":{\"max_attempts\":1.5}}", "retry.max_attempts"},
        {"{\"retry\":{\"max_attempts\":1e300}}", "retry.max_attempts"},
        {"{\"retry\":{\"on\":[\"6xx\"]}}", "retry.on"},
        {"{\"retry\":{\"when_empty\":\"x\"}}", "retry.when_empty"},
        {"{\"retry\":{\"tries\":3}}", "retry.tries"},
        {"{\"retry\":7}", "retry"},
        {"{\"hedge\":{\"after\":\"p\"}}", "hedge.after"},
        {"{\"rate\":{\"rpm\":-1}}", "rate.rpm"},
        {"{\"concurrency\":0}", "concurrency"},
        {"{\"route\":\"best\"}", "route"},
        {"{\"preset\":\"fast\"}", "preset"},
        {"{\"policy\":{}}", "policy"},
    };
    struct mp_policy p, before;
    mp_policy_init(&p, MP_PRESET_NONE);
    before = p;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
        assert_int_equal(parse(&p, wrong[i].json), MP_EINVAL);
        if (strstr(mp_last_error(), wrong[i].word) == NULL)
            fail_msg("%s: %s", wrong[i].json, mp_last_error());
        assert_memory_equal(&p, &before, sizeof(p));
    }
    assert_int_equal(mp_policy_json(&p, NULL, 5), MP_EINVAL);
    assert_int_equal(mp_policy_json(&p, "{}", SIZE_MAX), MP_EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_at_all),
        cmocka_unit_test(test_impossible_lengths),
        cmocka_unit_test(test_waiting_and_closing_inside_done),
        cmocka_unit_test(test_policies_from_json),
        cmocka_unit_test(test_wrong_json_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

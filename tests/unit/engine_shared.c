/* engine_shared.c - processes that share a file keep one rate and one pause. */
#include "engine_rig.h"

#include <sys/stat.h>
#include <unistd.h>

static char path[64];

static void make_path(void)
{
    snprintf(path, sizeof(path), "/tmp/mp-shared-%ld", (long)getpid());
    unlink(path);
}

static int open_client(struct rig *rig, double rpm)
{
    struct mp_policy p = {0};
    struct mp_client_config c = MP_INIT(struct mp_client_config);
    struct mp_endpoint_config ep = {.base_url = rig->url};
    mp_policy_init(&p, MP_PRESET_JOB);
    p.rate.rpm = rpm;
    p.rate.share = 1;
    p.retry.throttle_base = 0.001;
    c.policy = &p;
    c.shared = path;
    c.endpoints = &ep;
    c.nendpoints = 1;
    return mp_client_new(rig->engine, &c, &rig->client);
}

/* Another engine, as another worker would have one, with its own connection to the same server. */
static void second_engine(struct rig *rig, struct rig *other)
{
    memset(other, 0, sizeof(*other));
    memcpy(other->url, rig->url, sizeof(other->url));
    struct mp_config c = MP_INIT(struct mp_config);
    other->engine = mp_engine_new_on_loop(&rig->loop, &c);
}

static void run_both(struct rig *rig, const struct rig *other)
{
    for (int i = 0; i < 1000000 && other->done == 0; i++)
        uv_run(&rig->loop, UV_RUN_ONCE);
    assert_int_equal(other->done, 1);
}

static void test_one_rate(void **state)
{
    (void)state;
    static struct rig a, b;
    struct mp_str row = {"{}", 2};
    make_path();
    rig_open(&a);
    assert_int_equal(open_client(&a, 60), 0); /* one a second, and one at once */
    second_engine(&a, &b);
    assert_int_equal(open_client(&b, 60), 0);
    struct mp_request q = rig_request(&a, &row, 1);
    rig_submit(&a, &q);
    rig_run(&a, 1);
    q = rig_request(&b, &row, 1);
    rig_submit(&b, &q);
    for (int i = 0; i < 100; i++)
        uv_run(&a.loop, UV_RUN_NOWAIT);
    assert_int_equal(b.done, 0); /* the first has taken what there was */
    run_both(&a, &b);
    assert_int_equal(a.requests, 2);
    int closed = 0;
    mp_engine_close(b.engine, rig_closed, &closed);
    while (!closed)
        uv_run(&a.loop, UV_RUN_ONCE);
    mp_result_free(b.last);
    rig_close(&a);
    unlink(path);
}

static void serve_pause(struct rig *rig, struct mp__http_request *req)
{
    static const struct mp__http_header later = {"retry-after", "30"};
    (void)rig;
    mp__http_reply(req, 429, &later, 1, "{}", 2);
}

static void test_one_pause(void **state)
{
    (void)state;
    static struct rig a, b;
    struct mp_str row = {"{}", 2};
    struct mp_client_stats s = MP_INIT(struct mp_client_stats);
    make_path();
    rig_open(&a);
    a.serve = serve_pause;
    assert_int_equal(open_client(&a, 0), 0);
    second_engine(&a, &b);
    assert_int_equal(open_client(&b, 0), 0);
    struct mp_request q = rig_request(&a, &row, 1);
    rig_submit(&a, &q);
    for (int i = 0; i < 100000 && s.paused_for <= 0; i++) {
        uv_run(&a.loop, UV_RUN_ONCE);
        mp_client_stats(a.client, &s);
    }
    assert_true(s.paused_for > 20);
    assert_int_equal(a.requests, 1);
    q = rig_request(&b, &row, 1);
    uint64_t t = rig_submit(&b, &q);
    for (int i = 0; i < 100; i++)
        uv_run(&a.loop, UV_RUN_NOWAIT);
    assert_int_equal(a.requests, 1); /* it has not even asked */
    mp_client_stats(b.client, &s);
    assert_true(s.paused_for > 20);
    mp_cancel(b.engine, t);
    run_both(&a, &b);
    int closed = 0;
    mp_engine_close(b.engine, rig_closed, &closed);
    while (!closed)
        uv_run(&a.loop, UV_RUN_ONCE);
    mp_result_free(b.last);
    rig_close(&a);
    unlink(path);
}

static void test_files_of_others_are_refused(void **state)
{
    (void)state;
    static struct rig a;
    make_path();
    rig_open(&a);
    FILE *f = fopen(path, "w");
    fclose(f);
    chmod(path, 0666);
    assert_int_equal(open_client(&a, 60), MP_ESYS);
    assert_non_null(strstr(mp_last_error(), "not a private file"));
    unlink(path);
    assert_int_equal(symlink("/etc/passwd", path), 0);
    assert_int_equal(open_client(&a, 60), MP_ESYS);
    unlink(path);
    assert_int_equal(open_client(&a, 60), 0);
    rig_close(&a);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_rate),
        cmocka_unit_test(test_one_pause),
        cmocka_unit_test(test_files_of_others_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

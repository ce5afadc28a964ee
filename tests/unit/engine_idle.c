/* Connections that rest: they hold no loop, wake nobody, and go when their time is over. */
#include "engine_rig.h"

static const struct mp_str body = {"{}", 2};

static void serve_later_free(uv_handle_t *timer)
{
    free(timer);
}

static void serve_later_reply(uv_timer_t *timer)
{
    rig_reply(timer->data, 200, "{}");
    uv_close((uv_handle_t *)timer, serve_later_free);
}

/* Long enough for the others to come: so many requests, so many connections. */
static void serve_later(struct rig *rig, struct mp__http_request *req)
{
    uv_timer_t *timer = malloc(sizeof(*timer));
    assert_non_null(timer);
    uv_timer_init(&rig->loop, timer);
    timer->data = req;
    uv_timer_start(timer, serve_later_reply, 30, 0);
}

static void use(struct rig *rig, unsigned n)
{
    unsigned done = rig->done;
    struct mp_request q = rig_request(rig, &body, 1);
    for (unsigned i = 0; i < n; i++)
        rig_submit(rig, &q);
    rig_run(rig, done + n);
}

static uint32_t connections(struct rig *rig)
{
    struct mp_stats s = MP_INIT(struct mp_stats);
    mp_stats(rig->engine, &s);
    return s.connections_open;
}

static void open_with(struct rig *rig, uint32_t max_idle, double idle_timeout)
{
    struct mp_pool_config pool = MP_INIT(struct mp_pool_config);
    struct mp_client_config c = MP_INIT(struct mp_client_config);
    pool.max_idle = max_idle;
    pool.idle_timeout = idle_timeout;
    c.pool_config = &pool;
    rig_open(rig);
    rig->serve = serve_later;
    rig_client(rig, &c);
}

static void on_tick(uv_timer_t *timer)
{
    (void)timer;
}

static void until_open(struct rig *rig, uint32_t n)
{
    uint64_t stop = uv_hrtime() + UINT64_C(10000000000);
    uv_timer_t tick; /* the test's: the engine's timers hold no loop */
    uv_timer_init(&rig->loop, &tick);
    uv_timer_start(&tick, on_tick, 5, 5);
    while (connections(rig) != n && uv_hrtime() < stop)
        uv_run(&rig->loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)&tick, NULL);
    uv_run(&rig->loop, UV_RUN_NOWAIT);
    assert_int_equal(connections(rig), n);
}

/* That of the server waits 75 s. */
static void count_timer(uv_handle_t *handle, void *n)
{
    if (handle->type == UV_TIMER && uv_is_active(handle) &&
        uv_timer_get_due_in((uv_timer_t *)handle) < 60000)
        ++*(unsigned *)n;
}

static unsigned active_timers(struct rig *rig)
{
    unsigned n = 0;
    uv_walk(&rig->loop, count_timer, &n);
    return n;
}

static void test_they_go_in_time(void **state)
{
    struct rig rig;
    (void)state;
    open_with(&rig, 100, 0.1);
    use(&rig, 12);
    assert_int_equal(connections(&rig), 12);
    assert_int_equal(active_timers(&rig), 1);
    until_open(&rig, 0);
    assert_int_equal(active_timers(&rig), 0); /* nothing rests, nothing ticks */
    use(&rig, 3);
    assert_int_equal(rig.last->kind, MP_KIND_NONE);
    assert_int_equal(connections(&rig), 3);
    rig_close(&rig);
}

static void test_no_more_than_max_idle(void **state)
{
    struct rig rig;
    (void)state;
    open_with(&rig, 4, 60);
    use(&rig, 12);
    assert_int_equal(connections(&rig), 12);
    until_open(&rig, 4);
    use(&rig, 4); /* those that are left serve */
    assert_int_equal(connections(&rig), 4);
    rig_close(&rig);
}

static void test_peers_that_leave(void **state)
{
    struct rig rig;
    (void)state;
    open_with(&rig, 100, 60);
    use(&rig, 6);
    assert_int_equal(connections(&rig), 6);
    mp__http_server_close(rig.server, rig_closed, &rig.server_closed);
    until_open(&rig, 0);
    assert_true(rig.server_closed);
    /* A loop with a client that rests comes to its end. */
    assert_int_equal(uv_run(&rig.loop, UV_RUN_DEFAULT), 0);
    mp_engine_close(rig.engine, rig_closed, &rig.closed);
    uv_run(&rig.loop, UV_RUN_DEFAULT);
    assert_true(rig.closed);
    mp_result_free(rig.last);
    assert_int_equal(uv_loop_close(&rig.loop), 0);
    assert_int_equal(rig_open_fds(), rig.fds);
}

static void test_they_hold_no_loop(void **state)
{
    struct rig rig;
    (void)state;
    open_with(&rig, 2, 60);
    use(&rig, 6);
    mp__http_server_close(rig.server, rig_closed, &rig.server_closed);
    /* Sockets and the timer that is to close four of them are still there. */
    assert_int_equal(uv_run(&rig.loop, UV_RUN_DEFAULT), 0);
    assert_int_equal(connections(&rig), 6);
    mp_engine_close(rig.engine, rig_closed, &rig.closed);
    uv_run(&rig.loop, UV_RUN_DEFAULT);
    assert_true(rig.closed && rig.server_closed);
    mp_result_free(rig.last);
    assert_int_equal(uv_loop_close(&rig.loop), 0);
    assert_int_equal(rig_open_fds(), rig.fds);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_they_go_in_time),
        cmocka_unit_test(test_no_more_than_max_idle),
        cmocka_unit_test(test_peers_that_leave),
        cmocka_unit_test(test_they_hold_no_loop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

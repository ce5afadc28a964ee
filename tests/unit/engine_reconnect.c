/* engine_reconnect.c - transfers that end while their sockets still connect: curl 7.88 closes such a
 * socket without a word, so its watcher must be gone before. */
#include "engine_rig.h"

#define N 24

static const struct mp_str body = {"{}", 2};
static struct mp__http_request *held[N];
static unsigned nheld;

static void serve_never(struct rig *rig, struct mp__http_request *req)
{
    (void)rig;
    assert_true(nheld < N);
    held[nheld++] = req;
}

static void reply_to_all(struct rig *rig)
{
    (void)rig;
    while (nheld > 0)
        rig_reply(held[--nheld], 200, "{}");
}

/* N connections, all in use; the tickets of their calls. */
static void fill(struct rig *rig, uint64_t *tickets)
{
    struct mp_request q = rig_request(rig, &body, 1);
    for (unsigned i = 0; i < N; i++)
        tickets[i] = rig_submit(rig, &q);
    for (int turn = 0; turn < 100000 && nheld < N; turn++)
        uv_run(&rig->loop, UV_RUN_ONCE);
    assert_int_equal(nheld, N);
}

/* The server goes away under requests on kept connections, which curl begins anew by itself; in the
 * same turn of the loop they are cancelled. */
static void test_cancel_during_a_second_connect(void **state)
{
    struct rig rig;
    uint64_t tickets[N];
    (void)state;
    rig_open(&rig);
    rig_client(&rig, NULL);
    rig.serve = serve_never;
    fill(&rig, tickets);
    reply_to_all(&rig);
    rig_run(&rig, N);
    fill(&rig, tickets);
    mp__http_server_close(rig.server, rig_closed, &rig.server_closed);
    for (unsigned i = 0; i < N; i++)
        mp_cancel(rig.engine, tickets[i]);
    rig_run(&rig, 2 * N);
    assert_int_equal(rig.last->kind, MP_KIND_CANCELLED);
    for (int turn = 0; turn < 10; turn++)
        uv_run(&rig.loop, UV_RUN_NOWAIT);
    struct mp_stats s = MP_INIT(struct mp_stats);
    mp_stats(rig.engine, &s);
    assert_int_equal(s.connections_open, 0);
    reply_to_all(&rig); /* to nobody: but only then is the server free to go */
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
        cmocka_unit_test(test_cancel_during_a_second_connect),
    };
    return cmocka_run_group_tests_name("engine_reconnect", tests, NULL, NULL);
}

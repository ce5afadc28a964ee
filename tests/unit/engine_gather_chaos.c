/*
 * engine_gather_chaos.c - random submissions, servers, cancels, deadlines and closings: each
 * submission ends exactly once, and nothing is left open.
 */
#include "gather_rig.h"

static void serve_anything(struct rig *r, struct mp__http_request *req)
{
    static char out[MANY * 64];
    static const struct mp__http_header json = {"content-type", "application/json"};
    struct mp__http_fault fault = {.cut = SIZE_MAX};
    int bad = 0;
    (void)r;
    unsigned tokens = 0;
    answer(req->body, out, sizeof(out), &bad, &tokens);
    size_t n = strlen(out);
    switch (bad ? 0 : draw(10)) {
    case 0:
        rig_reply(req, bad ? 400 : 503, "{\"error\":\"x\"}");
        return;
    case 1:
        fault.cut = draw((unsigned)n);
        fault.end = MP_HTTP_CLOSE;
        break;
    case 2:
        fault.delay = 0.001 * draw(20);
        break;
    default:
        break;
    }
    mp__http_reply_fault(req, 200, &json, 1, out, n, &fault);
}

static void chaos_submit(struct want *w)
{
    static const char *const keys[] = {"", "a", "b", "c"};
    struct mp_timeouts t = {.read = 0.1};
    struct mp_request q = request_of(w, draw(8) ? 1 + draw(4) : 1 + draw(40), draw(12) ? "" : "x");
    struct mp_gather how = MP_INIT(struct mp_gather);
    w->check_rows = 0;
    const char *key = keys[draw(4)];
    how.key = (struct mp_str){key, strlen(key)};
    how.priority = (int)draw(3) - 1;
    how.max_wait = draw(4) ? 0 : 0.001 * draw(5);
    if (draw(3) == 0)
        q.suffix = (struct mp_str){"],\"a\":1}", 8};
    if (draw(5) == 0)
        t.total = 0.001 * (1 + draw(30));
    q.timeouts = &t;
    put(w, &q, &how);
}

static void chaos_run(unsigned run)
{
    static unsigned kinds[MP_KIND_COUNT];
    seed = 500 + run;
    struct mp_batcher_config c = MP_INIT(struct mp_batcher_config);
    c.slots = 1 + draw(6);
    c.batch.size = 1 + draw(16);
    c.batch.max_wait = draw(2) ? 0 : 0.002;
    open_with(&c);
    rig.serve = serve_anything;
    unsigned many = 300 + draw(300);
    for (unsigned i = 0; i < many; i++) {
        chaos_submit(&wants[i]);
        if (draw(5) == 0)
            mp_batcher_cancel(batcher, wants[draw(i + 1)].ticket);
        for (unsigned k = draw(6); k > 0; k--)
            uv_run(&rig.loop, UV_RUN_NOWAIT);
    }
    if (run % 3 == 1)
        mp_batcher_close(batcher);
    if (run % 3 == 2)
        mp_client_close(rig.client);
    rig_run(&rig, many);
    unsigned ok = 0;
    for (unsigned i = 0; i < many; i++) {
        assert_int_equal(wants[i].ends, 1);
        kinds[wants[i].kind]++;
        ok += wants[i].kind == MP_KIND_NONE;
    }
    print_message("seed %u: %u submissions, %u whole, %u requests\n", 500 + run, many, ok,
                  rig.requests);
    if (run % 3 != 1)
        mp_batcher_close(batcher);
    rig_close(&rig);
    for (unsigned i = 0; i < MANY; i++)
        mp_matrix_unref(wants[i].matrix);
    if (run == 8)
        assert_true(kinds[MP_KIND_NONE] > 0 && kinds[MP_KIND_CANCELLED] > 0 &&
                    kinds[MP_KIND_TOTAL_TIMEOUT] > 0 && kinds[MP_KIND_CLOSED] > 0);
}

static void test_chaos(void **state)
{
    (void)state;
    for (unsigned run = 0; run < 9; run++)
        chaos_run(run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chaos),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* engine_calls.c - submit, complete, cancel, poll, close: every call ends exactly once. */
#include "engine_rig.h"

static const struct mp_str body = {"{\"a\":1}", 7};

static void test_one_call(void **state)
{
    struct rig rig;
    (void)state;
    rig_open(&rig);
    rig_client(&rig, NULL);
    struct mp_request q = rig_request(&rig, &body, 1);
    rig_submit(&rig, &q);
    assert_int_equal(rig.done, 0); /* never before mp_submit returns */
    rig_run(&rig, 1);
    assert_int_equal(rig.last->kind, MP_KIND_NONE);
    assert_int_equal(rig.last->rows_ok, 1);
    assert_int_equal(rig.last->nexchanges, 1);
    const struct mp_exchange *x = &rig.last->exchanges[0];
    assert_int_equal(x->status, 200);
    assert_int_equal(x->attempts, 1);
    assert_string_equal(mp_exchange_body(x), "{\"ok\":true}");
    assert_non_null(strstr(mp_exchange_head(x), "content-type: application/json\n"));
    assert_string_equal(mp_exchange_message(x), "");
    assert_true(strlen(mp_exchange_request_id(x)) > 10);
    rig_close(&rig);
}

/* What the server saw of the last request. */
static char seen[4096];

static void serve_echo(struct rig *rig, struct mp__http_request *req)
{
    size_t n = 0;
    (void)rig;
    n += (size_t)snprintf(seen + n, sizeof(seen) - n, "%s %s\n", req->method, req->path);
    for (size_t i = 0; i < req->nheaders; i++)
        n += (size_t)snprintf(seen + n, sizeof(seen) - n, "%s: %s\n", req->headers[i].name,
                              req->headers[i].value);
    snprintf(seen + n, sizeof(seen) - n, "\n%s", req->body);
    rig_reply(req, 200, "{}");
}

static unsigned count(const char *text, const char *word)
{
    unsigned n = 0;
    for (const char *p = strstr(text, word); p != NULL; p = strstr(p + 1, word))
        n++;
    return n;
}

static void test_headers_replace(void **state)
{
    struct rig rig;
    (void)state;
    rig_open(&rig);
    rig.serve = serve_echo;
    struct mp_header client_headers[] = {{"Authorization", "Bearer one"}, {"X-App", "a"}};
    struct mp_header call_headers[] = {{"authorization", "Bearer two"}, {"x-app", NULL}};
    struct mp_client_config c = MP_INIT(struct mp_client_config);
    c.headers = client_headers;
    c.nheaders = 2;
    rig_client(&rig, &c);
    struct mp_request q = rig_request(&rig, &body, 1);
    q.headers = call_headers;
    q.nheaders = 2;
    rig_submit(&rig, &q);
    rig_run(&rig, 1);
    assert_int_equal(count(seen, "authorization:"), 1);
    assert_non_null(strstr(seen, "authorization: Bearer two\n"));
    assert_null(strstr(seen, "x-app"));
    assert_null(strstr(seen, "expect:"));
    assert_non_null(strstr(seen, "POST /v1/test\n"));
    assert_non_null(strstr(seen, "\n\n{\"a\":1}"));
    q = rig_request(&rig, &body, 1); /* the next call has the client's again */
    rig_submit(&rig, &q);
    rig_run(&rig, 2);
    assert_non_null(strstr(seen, "authorization: Bearer one\n"));
    assert_non_null(strstr(seen, "x-app: a\n"));
    rig_close(&rig);
}

static void test_methods(void **state)
{
    static const char *const methods[] = {"GET",  "PUT",     "PATCH", "DELETE",
                                          "HEAD", "OPTIONS", "POST",  "GET"};
    struct rig rig;
    (void)state;
    rig_open(&rig);
    rig.serve = serve_echo;
    rig_client(&rig, NULL);
    for (unsigned i = 0; i < sizeof(methods) / sizeof(*methods); i++) {
        char first[40];
        int has_body = methods[i][0] == 'P';
        struct mp_str none = {NULL, 0};
        struct mp_request q = rig_request(&rig, has_body ? &body : &none, 1);
        q.method = methods[i];
        rig_submit(&rig, &q);
        rig_run(&rig, i + 1);
        assert_int_equal(rig.last->exchanges[0].status, 200);
        snprintf(first, sizeof(first), "%s /v1/test\n", methods[i]);
        assert_int_equal(strncmp(seen, first, strlen(first)), 0);
        assert_int_equal(count(seen, "content-type"), has_body);
        assert_int_equal(count(seen, "\n\n{\"a\":1}"), has_body);
    }
    rig_close(&rig);
}

static void test_refused_arguments(void **state)
{
    struct rig rig;
    struct mp_header broken = {"X-A", "b\r\nX-Evil: 1"};
    uint64_t ticket = 0;
    (void)state;
    rig_open(&rig);
    rig_client(&rig, NULL);
    struct mp_request q = rig_request(&rig, &body, 1);
    q.method = "FETCH";
    assert_int_equal(mp_submit(rig.engine, &q, &ticket), MP_EINVAL);
    assert_non_null(strstr(mp_last_error(), "Invalid HTTP method"));
    q = rig_request(&rig, &body, 0);
    assert_int_equal(mp_submit(rig.engine, &q, &ticket), MP_EINVAL);
    q = rig_request(&rig, &body, 1);
    q.path = "/a b";
    assert_int_equal(mp_submit(rig.engine, &q, &ticket), MP_EINVAL);
    q = rig_request(&rig, &body, 1);
    q.headers = &broken;
    q.nheaders = 1;
    assert_int_equal(mp_submit(rig.engine, &q, &ticket), MP_EINVAL);
    assert_non_null(strstr(mp_last_error(), "line break"));
    static const char *const urls[] = {
        "ftp://x",           "", "http://", "http://u:p@h/", "h:80", "http://a b/", "http://h/?q=1",
        "file:///etc/passwd"};
    for (size_t i = 0; i < sizeof(urls) / sizeof(*urls); i++) {
        struct mp_endpoint_config ep = {.base_url = urls[i]};
        struct mp_client_config c = MP_INIT(struct mp_client_config);
        mp_client *client = NULL;
        c.endpoints = &ep;
        c.nendpoints = 1;
        assert_int_equal(mp_client_new(rig.engine, &c, &client), MP_EINVAL);
        assert_null(client);
        assert_non_null(strstr(mp_last_error(), "base_url"));
        assert_null(strstr(mp_last_error(), "u:p"));
    }
    rig_close(&rig);
}

static void serve_never(struct rig *rig, struct mp__http_request *req)
{
    static const struct mp__http_fault hang = {.cut = 0, .end = MP_HTTP_HANG};
    (void)rig;
    mp__http_reply_fault(req, 200, NULL, 0, "{}", 2, &hang);
}

static void test_cancel(void **state)
{
    struct rig rig;
    uint64_t tickets[40];
    (void)state;
    rig_open(&rig);
    rig.serve = serve_never;
    struct mp_pool_config pool = MP_INIT(struct mp_pool_config);
    struct mp_client_config c = MP_INIT(struct mp_client_config);
    pool.max_connections = 8;
    c.pool_config = &pool;
    rig_client(&rig, &c);
    for (int i = 0; i < 40; i++) {
        struct mp_request q = rig_request(&rig, &body, 1);
        tickets[i] = rig_submit(&rig, &q);
    }
    while (rig.requests < 8)
        uv_run(&rig.loop, UV_RUN_ONCE);
    for (int i = 0; i < 40; i++) {
        mp_cancel(rig.engine, tickets[i]);
        mp_cancel(rig.engine, tickets[i]); /* idempotent */
    }
    rig_run(&rig, 40);
    assert_int_equal(rig.last->kind, MP_KIND_CANCELLED);
    assert_int_equal(rig.requests, 8);
    mp_cancel(rig.engine, tickets[3]); /* a late cancel hits nobody, also after reuse of the slot */
    rig.serve = rig_serve_ok;
    struct mp_request q = rig_request(&rig, &body, 1);
    rig_submit(&rig, &q);
    mp_cancel(rig.engine, tickets[39]);
    mp_cancel(rig.engine, tickets[0]);
    rig_run(&rig, 41);
    assert_int_equal(rig.last->kind, MP_KIND_NONE);
    rig_close(&rig);
}

static void test_cancel_in_turns(void **state)
{
    struct rig rig;
    unsigned seed = 12345;
    enum { CALLS = 600 };
    static uint64_t tickets[CALLS];
    (void)state;
    print_message("seed %u\n", seed);
    rig_open(&rig);
    rig_client(&rig, NULL);
    for (int i = 0; i < CALLS; i++) {
        struct mp_request q = rig_request(&rig, &body, 1);
        tickets[i] = rig_submit(&rig, &q);
        if ((i & 7) == 7) {
            uv_run(&rig.loop, UV_RUN_NOWAIT);
            mp_cancel(rig.engine, tickets[(unsigned)rand_r(&seed) % (unsigned)(i + 1)]);
        }
    }
    rig_run(&rig, CALLS);
    for (int i = 0; i < CALLS; i++)
        assert_true(rig.ends[(uint32_t)tickets[i] % RIG_MAX] >= 1);
    rig_close(&rig);
}

static void test_close_with_open_calls(void **state)
{
    struct rig rig;
    (void)state;
    rig_open(&rig);
    rig.serve = serve_never;
    rig_client(&rig, NULL);
    for (int i = 0; i < 20; i++) {
        struct mp_request q = rig_request(&rig, &body, 1);
        rig_submit(&rig, &q);
    }
    while (rig.requests < 20)
        uv_run(&rig.loop, UV_RUN_ONCE);
    mp_client_close(rig.client);
    struct mp_request q = rig_request(&rig, &body, 1);
    assert_int_equal(mp_submit(rig.engine, &q, NULL), MP_ECLOSED);
    rig_run(&rig, 20);
    assert_int_equal(rig.last->kind, MP_KIND_CLOSED);
    rig_close(&rig);
}

static void test_engine_closes_over_open_calls(void **state)
{
    struct rig rig;
    (void)state;
    rig_open(&rig);
    rig.serve = serve_never;
    rig_client(&rig, NULL);
    for (int i = 0; i < 20; i++) {
        struct mp_request q = rig_request(&rig, &body, 1);
        rig_submit(&rig, &q);
    }
    while (rig.requests < 10)
        uv_run(&rig.loop, UV_RUN_ONCE);
    rig_close(&rig);
    assert_int_equal(rig.done, 20);
}

static void test_poll(void **state)
{
    struct rig rig;
    struct mp_completion out[8];
    unsigned got = 0;
    (void)state;
    rig_open(&rig);
    rig_client(&rig, NULL);
    for (int i = 0; i < 20; i++) {
        struct mp_request q = rig_request(&rig, &body, 1);
        q.done = NULL;
        rig_submit(&rig, &q);
    }
    for (int turns = 0; got < 20 && turns < 100000; turns++) {
        int n = mp_poll(rig.engine, out, 8);
        if (n == 0)
            uv_run(&rig.loop, UV_RUN_ONCE);
        assert_true(n <= 8);
        for (int i = 0; i < n; i++) {
            assert_int_equal(out[i].result->rows_ok, 1);
            assert_ptr_equal(out[i].arg, &rig);
            mp_result_free(out[i].result);
        }
        got += (unsigned)n;
    }
    assert_int_equal(got, 20);
    rig_close(&rig);
}

static void test_own_loop(void **state)
{
    struct mp_endpoint_config ep = {.base_url = "http://127.0.0.1:1"};
    struct mp_client_config c = MP_INIT(struct mp_client_config);
    struct mp_policy policy = {0};
    struct mp_completion out;
    mp_client *client = NULL;
    (void)state;
    int fds = rig_open_fds();
    mp_engine *e = mp_engine_new(NULL);
    assert_non_null(e);
    mp_policy_init(&policy, MP_PRESET_NONE);
    c.policy = &policy;
    c.endpoints = &ep;
    c.nendpoints = 1;
    assert_int_equal(mp_client_new(e, &c, &client), 0);
    struct mp_request q = MP_INIT(struct mp_request);
    q.client = client;
    q.rows = &body;
    q.nrows = 1;
    assert_int_equal(mp_wait(e, 10), 0); /* nothing open */
    assert_int_equal(mp_submit(e, &q, NULL), 0);
    assert_int_equal(mp_wait(e, 5000), 1);
    assert_int_equal(mp_poll(e, &out, 1), 1);
    assert_int_equal(out.result->exchanges[0].kind, MP_KIND_CONNECT);
    assert_non_null(strstr(mp_exchange_message(&out.result->exchanges[0]), "refused"));
    mp_result_free(out.result);
    mp_engine_close(e, NULL, NULL);
    assert_int_equal(rig_open_fds(), fds);
}

static void test_bounds(void **state)
{
    struct rig rig;
    (void)state;
    rig_open(&rig);
    mp_engine_close(rig.engine, rig_closed, &rig.closed);
    while (!rig.closed)
        uv_run(&rig.loop, UV_RUN_ONCE);
    rig.closed = 0;
    struct mp_config c = MP_INIT(struct mp_config);
    c.max_calls = 4;
    rig.engine = mp_engine_new_on_loop(&rig.loop, &c);
    rig_client(&rig, NULL);
    struct mp_request q = rig_request(&rig, &body, 1);
    for (int i = 0; i < 4; i++)
        rig_submit(&rig, &q);
    assert_int_equal(mp_submit(rig.engine, &q, NULL), MP_EAGAIN);
    rig_run(&rig, 4);
    rig_submit(&rig, &q);
    rig_run(&rig, 5);
    rig_close(&rig);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_call),
        cmocka_unit_test(test_headers_replace),
        cmocka_unit_test(test_methods),
        cmocka_unit_test(test_refused_arguments),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_cancel_in_turns),
        cmocka_unit_test(test_close_with_open_calls),
        cmocka_unit_test(test_engine_closes_over_open_calls),
        cmocka_unit_test(test_poll),
        cmocka_unit_test(test_own_loop),
        cmocka_unit_test(test_bounds),
    };
    cmocka_set_test_filter(argc > 1 ? argv[1] : NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

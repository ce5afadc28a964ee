/* engine_faults.c - servers that misbehave: every row right, none lost, none twice. */
#include "engine_rig.h"

#include <math.h>

static const struct mp_vectors openai = {.list = "data", .vector = "embedding", .index = "index"};

/* The texts are numbers; the vector of text k is {k, k + 0.5, -k}. */
static unsigned numbers_of(const char *body, long *out, unsigned max)
{
    unsigned n = 0;
    for (const char *p = strchr(body, '['); p != NULL && *p != '\0' && *p != ']' && n < max; p++) {
        if (*p != '"')
            continue;
        out[n++] = strtol(p + 1, NULL, 10);
        p = strchr(p + 1, '"');
    }
    return n;
}

static size_t vectors_reply(const char *body, char *out, size_t cap, int shuffled)
{
    long k[256];
    size_t len = 0;
    unsigned n = numbers_of(body, k, 256);
    len += (size_t)snprintf(out, cap, "{\"object\":\"list\",\"data\":[");
    for (unsigned i = 0; i < n; i++) {
        unsigned j = shuffled ? (i * 7 + 3) % n : i;
        if (shuffled && n % 7 == 0)
            j = n - 1 - i;
        len += (size_t)snprintf(out + len, cap - len,
                                "%s{\"embedding\":[%ld,%ld.5,-%ld],\"index\":%u}", i ? "," : "",
                                k[j], k[j], k[j], j);
    }
    len += (size_t)snprintf(
        out + len, cap - len,
        "],\"model\":\"m\",\"usage\":{\"prompt_tokens\":%u,\"total_tokens\":%u}}", n, n);
    return len;
}

static struct mp_str rows[4096];
static char texts[4096][8];

static void make_rows(unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        rows[i].n = (size_t)snprintf(texts[i], sizeof(texts[i]), "%u", i);
        rows[i].p = texts[i];
    }
}

static struct mp_request embed(struct rig *rig, unsigned n, const struct mp_policy *policy)
{
    make_rows(n);
    struct mp_request q = rig_request(rig, rows, n);
    q.mode = MP_BODY_JOIN;
    q.flags = MP_BORROW;
    q.prefix = (struct mp_str){"{\"input\":[", 10};
    q.suffix = (struct mp_str){"]}", 2};
    q.vectors = &openai;
    q.policy = policy;
    return q;
}

static void check_rows(const struct mp_result *r, unsigned n)
{
    assert_int_equal(r->rows_ok, n);
    assert_non_null(r->matrix);
    assert_int_equal(mp_matrix_cols(r->matrix), 3);
    const float *m = mp_matrix_data(r->matrix);
    for (unsigned i = 0; i < n; i++) {
        assert_float_equal(m[3 * i], (float)i, 0);
        assert_float_equal(m[3 * i + 1], (float)i + 0.5f, 0);
        assert_float_equal(m[3 * i + 2], -(float)i, 0);
    }
}

/* The budget is the endpoint's, so the client has the policy too. */
static void quick_client(struct rig *rig, const struct mp_policy *p)
{
    struct mp_client_config c = MP_INIT(struct mp_client_config);
    c.policy = p;
    rig_client(rig, &c);
}

static struct mp_policy quick(void)
{
    struct mp_policy p = {0};
    mp_policy_init(&p, MP_PRESET_JOB);
    p.size = sizeof(p);
    p.retry.base = p.retry.throttle_base = 0.001;
    p.retry.reserve = p.retry.budget_cap = 10000;
    p.retry.max_attempts = 20;
    p.retry.cap = 0.01;
    p.batch.size = 16;
    p.breaker.enabled = 0;
    return p;
}

/* ---- one byte at a time, indices shuffled ---- */

static void serve_dribble(struct rig *rig, struct mp__http_request *req)
{
    static char out[65536];
    static const struct mp__http_fault fault = {.chunk = 1, .cut = SIZE_MAX};
    struct mp__http_header json = {"content-type", "application/json"};
    (void)rig;
    size_t n = vectors_reply(req->body, out, sizeof(out), 1);
    mp__http_reply_fault(req, 200, &json, 1, out, n, &fault);
}

static void test_one_byte_chunks_shuffled(void **state)
{
    struct rig rig;
    struct mp_policy p = quick();
    (void)state;
    rig_open(&rig);
    rig.serve = serve_dribble;
    rig_client(&rig, NULL);
    struct mp_request q = embed(&rig, 100, &p);
    rig_submit(&rig, &q);
    rig_run(&rig, 1);
    check_rows(rig.last, 100);
    assert_int_equal(rig.last->total_tokens, 100);
    assert_string_equal(rig.last->model, "m");
    assert_int_equal(rig.requests, 7);
    rig_close(&rig);
}

/* ---- a mixture ---- */

static unsigned served[4096], refused[4096];
static unsigned seed;

/* A part whose first row is k fails 12 times at most: with 20 attempts no draw of luck loses it. */
static unsigned draw(long k)
{
    unsigned what = refused[k] < 12 ? (unsigned)rand_r(&seed) % 6 : 4;
    refused[k] += what < 4;
    return what;
}

static void serve_mixture(struct rig *rig, struct mp__http_request *req)
{
    static char out[65536];
    struct mp__http_header json = {"content-type", "application/json"};
    struct mp__http_header retry = {"retry-after-ms", "5"};
    long k[256];
    (void)rig;
    size_t n = vectors_reply(req->body, out, sizeof(out), 1);
    struct mp__http_fault fault = {.cut = SIZE_MAX};
    switch (draw(numbers_of(req->body, k, 256) > 0 ? k[0] : 0)) {
    case 0:
        mp__http_reply(req, 429, &retry, 1, "{}", 2);
        return;
    case 1:
        rig_reply(req, 503, "{\"error\":\"busy\"}");
        return;
    case 2:
        fault.cut = n / 2;
        fault.end = MP_HTTP_RESET;
        break;
    case 3:
        fault.cut = n - 1;
        fault.end = MP_HTTP_CLOSE;
        break;
    default:
        fault.chunk = 1 + (unsigned)rand_r(&seed) % 50;
        for (unsigned i = 0, m = numbers_of(req->body, k, 256); i < m; i++)
            served[k[i]]++;
    }
    mp__http_reply_fault(req, 200, &json, 1, out, n, &fault);
}

static void test_mixture_of_faults(void **state)
{
    struct rig rig;
    struct mp_policy p = quick();
    (void)state;
    seed = 4711;
    print_message("seed %u\n", seed);
    memset(served, 0, sizeof(served));
    memset(refused, 0, sizeof(refused));
    rig_open(&rig);
    rig.serve = serve_mixture;
    quick_client(&rig, &p);
    struct mp_request q = embed(&rig, 2000, &p);
    rig_submit(&rig, &q);
    rig_run(&rig, 1);
    check_rows(rig.last, 2000);
    for (unsigned i = 0; i < 2000; i++)
        assert_int_equal(served[i], 1);
    rig_close(&rig);
}

/* ---- replies that are wrong ---- */

static const char *reply;

static void serve_fixed(struct rig *rig, struct mp__http_request *req)
{
    (void)rig;
    rig_reply(req, 200, reply);
}

static void test_wrong_replies(void **state)
{
    static const struct {
        const char *reply, *word;
    } cases[] = {
        {"{\"data\":[{\"embedding\":[1,2]}]}", "2 were sent"},
        {"{\"data\":[{\"embedding\":[],\"index\":0},{\"embedding\":[1e40],\"index\":1}]}",
         "no vector of 2 is sound; the first: the vector is empty"},
        {"{\"data\":[{\"embedding\":[1],\"index\":0},{\"embedding\":[1],\"index\":0}]}",
         "duplicate"},
        {"{\"data\":[{\"embedding\":[1],\"index\":0},{\"embedding\":[1],\"index\":5}]}", "range"},
        {"{\"data\":[{\"embedding\":[1],\"index\":0},{\"embedding\":[N],\"index\":1}]}", ""},
        {"{\"data\":[{\"embedding\":[1],\"index\":0},{\"embedding\":[1],\"index\":1}]} x",
         "trailing"},
        {"{\"data\":[{\"embedding\":[1],\"index\":0},{\"embedding\":[1],\"ind", "truncated"},
        {"", ""},
        {"<html>", ""},
        {"{\"error\":\"no\"}", "error: no"},
    };
    struct rig rig;
    struct mp_policy p = quick();
    (void)state;
    rig_open(&rig);
    rig.serve = serve_fixed;
    quick_client(&rig, &p);
    for (unsigned i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        reply = cases[i].reply;
        struct mp_request q = embed(&rig, 2, &p);
        q.flags |= MP_NO_SPLIT; /* what the halves would get is another matter */
        rig_submit(&rig, &q);
        rig_run(&rig, i + 1);
        const struct mp_exchange *x = &rig.last->exchanges[0];
        assert_int_equal(rig.last->rows_ok, 0);
        assert_null(rig.last->matrix);
        assert_int_equal(x->kind, MP_KIND_DECODE);
        assert_int_equal(x->attempts,
                         cases[i].word[0] == 'e' ? 1 : 2); /* once more, then believed */
        if (strstr(mp_exchange_message(x), cases[i].word) == NULL)
            fail_msg("case %u: '%s' lacks '%s'", i, mp_exchange_message(x), cases[i].word);
    }
    rig_close(&rig);
}

/* What is wrong with one vector is no matter of the others, nor of the reply. */
static void test_wrong_rows(void **state)
{
    static const struct {
        const char *reply, *message;
        int attempts;
    } cases[] = {
        {"{\"data\":[{\"embedding\":[1,2],\"index\":0}]}", "the reply has no vector for it", 2},
        {"{\"data\":[{\"embedding\":[1,2]},{\"embedding\":[1]}]}",
         "the vector has dimension 1, expected 2", 1},
        {"{\"data\":[{\"embedding\":[1,2],\"index\":0},{\"embedding\":[NaN],\"index\":1}]}",
         "element 1 of the vector is NaN or infinite", 1},
    };
    struct rig rig;
    struct mp_policy p = quick();
    (void)state;
    rig_open(&rig);
    rig.serve = serve_fixed;
    quick_client(&rig, &p);
    for (unsigned i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        reply = cases[i].reply;
        struct mp_request q = embed(&rig, 2, &p);
        rig_submit(&rig, &q);
        rig_run(&rig, i + 1);
        const struct mp_result *r = rig.last;
        assert_int_equal(r->exchanges[0].kind, MP_KIND_NONE);
        assert_int_equal(r->exchanges[0].attempts, cases[i].attempts);
        assert_int_equal(r->rows_ok, 1);
        assert_int_equal(r->nfaults, 1);
        assert_int_equal(r->faults[0].row, 1);
        assert_string_equal(r->faults[0].message, cases[i].message);
        assert_true(mp_matrix_data(r->matrix)[0] == 1 && mp_matrix_data(r->matrix)[1] == 2);
        assert_true(isnan(mp_matrix_data(r->matrix)[2]) && isnan(mp_matrix_data(r->matrix)[3]));
    }
    rig_close(&rig);
}

/* ---- poison ---- */

static void serve_poison(struct rig *rig, struct mp__http_request *req)
{
    static char out[65536];
    long k[256];
    unsigned n = numbers_of(req->body, k, 256);
    (void)rig;
    for (unsigned i = 0; i < n; i++)
        if (k[i] == 13 || k[i] == 77) {
            rig_reply(req, 422, "{\"error\":\"input is poison\",\"error_type\":\"Validation\"}");
            return;
        }
    vectors_reply(req->body, out, sizeof(out), 0);
    rig_reply(req, 200, out);
}

static void test_poison_rows_stand_alone(void **state)
{
    struct rig rig;
    struct mp_policy p = quick();
    (void)state;
    rig_open(&rig);
    rig.serve = serve_poison;
    rig_client(&rig, NULL);
    struct mp_request q = embed(&rig, 128, &p);
    rig_submit(&rig, &q);
    rig_run(&rig, 1);
    assert_int_equal(rig.last->rows_ok, 126);
    const float *m = mp_matrix_data(rig.last->matrix);
    for (unsigned i = 0; i < 128; i++) {
        if (i == 13 || i == 77)
            assert_true(isnan(m[3 * i]) && isnan(m[3 * i + 2]));
        else
            assert_float_equal(m[3 * i], (float)i, 0);
    }
    unsigned failed = 0;
    for (size_t i = 0; i < rig.last->nexchanges; i++) {
        const struct mp_exchange *x = &rig.last->exchanges[i];
        if (x->kind == MP_KIND_NONE)
            continue;
        failed++;
        assert_int_equal(x->count, 1);
        assert_true(x->first == 13 || x->first == 77);
        assert_int_equal(x->status, 422);
        assert_non_null(strstr(mp_exchange_message(x), "input is poison"));
    }
    assert_int_equal(failed, 2);
    rig_close(&rig);
}

static void test_bad_utf8_fails_alone(void **state)
{
    struct rig rig;
    struct mp_policy p = quick();
    (void)state;
    rig_open(&rig);
    rig.serve = serve_poison;
    rig_client(&rig, NULL);
    struct mp_request q = embed(&rig, 10, &p);
    rows[4] = (struct mp_str){"a\xed\xa0\x80", 4};
    rig_submit(&rig, &q);
    rig_run(&rig, 1);
    assert_int_equal(rig.last->rows_ok, 9);
    const struct mp_exchange *bad = &rig.last->exchanges[1];
    assert_int_equal(bad->first, 4);
    assert_int_equal(bad->kind, MP_KIND_INVALID);
    assert_string_equal(mp_exchange_message(bad), "invalid UTF-8 at byte 2");
    assert_true(isnan(mp_matrix_data(rig.last->matrix)[12]));
    assert_float_equal(mp_matrix_data(rig.last->matrix)[15], 5.0f, 0);
    rig_close(&rig);
}

/* ---- bounds and timeouts ---- */

static void serve_endless(struct rig *rig, struct mp__http_request *req)
{
    static char big[300000];
    struct mp__http_header json = {"content-type", "application/json"};
    (void)rig;
    memset(big, ' ', sizeof(big));
    mp__http_reply(req, 200, &json, 1, big, sizeof(big));
}

static void test_too_large(void **state)
{
    struct rig rig;
    struct mp_str body = {"{}", 2};
    (void)state;
    rig_open(&rig);
    mp_engine_close(rig.engine, rig_closed, &rig.closed);
    while (!rig.closed)
        uv_run(&rig.loop, UV_RUN_ONCE);
    rig.closed = 0;
    struct mp_config c = MP_INIT(struct mp_config);
    c.max_response_bytes = 100000;
    rig.engine = mp_engine_new_on_loop(&rig.loop, &c);
    rig.serve = serve_endless;
    rig_client(&rig, NULL);
    struct mp_request q = rig_request(&rig, &body, 1);
    rig_submit(&rig, &q);
    rig_run(&rig, 1);
    assert_int_equal(rig.last->exchanges[0].kind, MP_KIND_TOO_LARGE);
    assert_int_equal(rig.last->exchanges[0].attempts, 1);
    rig_close(&rig);
}

static void serve_silence(struct rig *rig, struct mp__http_request *req)
{
    static const struct mp__http_fault hang = {.cut = 5, .end = MP_HTTP_HANG};
    (void)rig;
    mp__http_reply_fault(req, 200, NULL, 0, "{\"data\":[]}", 11, &hang);
}

static void test_timeouts(void **state)
{
    struct rig rig;
    struct mp_policy p = quick();
    struct mp_timeouts t = {0};
    (void)state;
    rig_open(&rig);
    rig.serve = serve_silence;
    rig_client(&rig, NULL);
    p.retry.max_attempts = 2;
    t.read = 0.05; /* silence in the middle of the body is a fault like any other: retried */
    struct mp_request q = embed(&rig, 2, &p);
    q.timeouts = &t;
    rig_submit(&rig, &q);
    rig_run(&rig, 1);
    assert_int_equal(rig.last->exchanges[0].kind, MP_KIND_READ_TIMEOUT);
    assert_int_equal(rig.last->exchanges[0].attempts, 2);
    t = (struct mp_timeouts){.attempt = 0.05};
    q.timeouts = &t;
    rig_submit(&rig, &q);
    rig_run(&rig, 2);
    assert_int_equal(rig.last->exchanges[0].kind, MP_KIND_READ_TIMEOUT);
    t = (struct mp_timeouts){.total = 0.05};
    q.timeouts = &t;
    rig_submit(&rig, &q);
    rig_run(&rig, 3);
    assert_int_equal(rig.last->kind, MP_KIND_TOTAL_TIMEOUT);
    rig_close(&rig);
}

static void test_pool_timeout(void **state)
{
    struct rig rig;
    struct mp_policy p = quick();
    struct mp_timeouts t = {.pool = 0.05, .read = 0.5};
    struct mp_pool_config pool = MP_INIT(struct mp_pool_config);
    struct mp_client_config c = MP_INIT(struct mp_client_config);
    (void)state;
    rig_open(&rig);
    rig.serve = serve_silence;
    pool.max_connections = 1;
    c.pool_config = &pool;
    rig_client(&rig, &c);
    p.retry.max_attempts = 1;
    p.batch.size = 1;
    struct mp_request q = embed(&rig, 3, &p);
    q.timeouts = &t;
    rig_submit(&rig, &q);
    rig_run(&rig, 1);
    unsigned pool_timeouts = 0;
    for (size_t i = 0; i < rig.last->nexchanges; i++)
        pool_timeouts += rig.last->exchanges[i].kind == MP_KIND_POOL_TIMEOUT;
    assert_int_equal(pool_timeouts, 2);
    rig_close(&rig);
}

/* ---- Retry-After holds back the whole endpoint ---- */

static uint64_t told, first_after;

static void serve_retry_after(struct rig *rig, struct mp__http_request *req)
{
    struct mp__http_header retry = {"Retry-After", "0.2"};
    if (told == 0) {
        told = uv_hrtime();
        mp__http_reply(req, 429, &retry, 1, "{}", 2);
        return;
    }
    if (rig->requests > 1 && first_after == 0)
        first_after = uv_hrtime();
    rig_reply(req, 200, "{}");
}

static void test_retry_after_pauses_the_endpoint(void **state)
{
    struct rig rig;
    struct mp_str body = {"{}", 2};
    (void)state;
    told = first_after = 0;
    rig_open(&rig);
    rig.serve = serve_retry_after;
    rig_client(&rig, NULL);
    struct mp_request q = rig_request(&rig, &body, 1);
    rig_submit(&rig, &q);
    while (told == 0)
        uv_run(&rig.loop, UV_RUN_ONCE);
    while (rig.requests == 1 && uv_hrtime() - told < 20000000)
        uv_run(&rig.loop, UV_RUN_NOWAIT); /* the client has heard of it by now */
    for (int i = 0; i < 20; i++)
        rig_submit(&rig, &q);
    rig_run(&rig, 21);
    assert_true(first_after - told >= 200000000);
    assert_int_equal(rig.last->rows_ok, 1);
    rig_close(&rig);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_byte_chunks_shuffled),
        cmocka_unit_test(test_mixture_of_faults),
        cmocka_unit_test(test_wrong_replies),
        cmocka_unit_test(test_wrong_rows),
        cmocka_unit_test(test_poison_rows_stand_alone),
        cmocka_unit_test(test_bad_utf8_fails_alone),
        cmocka_unit_test(test_too_large),
        cmocka_unit_test(test_timeouts),
        cmocka_unit_test(test_pool_timeout),
        cmocka_unit_test(test_retry_after_pauses_the_endpoint),
    };
    cmocka_set_test_filter(argc > 1 ? argv[1] : NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * engine_chaos.c - random servers, hedges, timeouts, cancels and closings: every call ends exactly
 * once, every good row holds its vector, nothing is left open.
 */
#include "engine_rig.h"

#include <math.h>

static unsigned seed;
static int calm;
static uint64_t hedges;

static unsigned draw(unsigned n)
{
    return (unsigned)rand_r(&seed) % n;
}

/* The text is a number k; its vector is {k, -k}. Several texts a request. */
static size_t vectors_for(const char *body, char *out, size_t cap)
{
    size_t len = (size_t)snprintf(out, cap, "{\"data\":[");
    unsigned i = 0;
    for (const char *p = strchr(body, '['); p != NULL && *p != ']' && *p != '\0'; p++) {
        if (*p != '"')
            continue;
        long k = strtol(p + 1, NULL, 10);
        len += (size_t)snprintf(out + len, cap - len, "%s{\"index\":%u,\"embedding\":[%ld,-%ld]}",
                                i > 0 ? "," : "", i, k, k);
        i++;
        p = strchr(p + 1, '"');
    }
    return len + (size_t)snprintf(out + len, cap - len, "]}");
}

static void serve_anything(struct rig *rig, struct mp__http_request *req)
{
    static char out[65536];
    static const struct mp__http_header json = {"content-type", "application/json"};
    static const struct mp__http_header soon = {"retry-after-ms", "2"};
    struct mp__http_fault fault = {.cut = SIZE_MAX};
    size_t n = vectors_for(req->body, out, sizeof(out));
    (void)rig;
    switch (draw(14)) {
    case 0:
        if (calm) /* after a 429 nothing is hedged for a while */
            break;
        mp__http_reply(req, 429, draw(2) ? &soon : &json, 1, "{}", 2);
        return;
    case 1:
        mp__http_reply(req, draw(2) ? 500 : 503, &json, 1, "{\"error\":\"x\"}", 13);
        return;
    case 2:
        fault.cut = draw((unsigned)n);
        fault.end = MP_HTTP_RESET;
        break;
    case 3:
        fault.cut = draw((unsigned)n);
        fault.end = draw(2) ? MP_HTTP_CLOSE : MP_HTTP_HANG;
        break;
    case 4:
        fault.delay = 0.001 * draw(60);
        break;
    case 5:
        fault.chunk = 1 + draw(9);
        fault.delay = 0.001 * draw(20);
        break;
    case 6:
        mp__http_reply(req, draw(2) ? 400 : 422, &json, 1, "{\"error\":\"bad\"}", 15);
        return;
    default:
        if (draw(3) == 0)
            fault.delay = 0.001 * draw(8);
    }
    mp__http_reply_fault(req, 200, &json, 1, out, n, &fault);
}

enum { CALLS = 400, ROWS = 40 };

static struct {
    uint64_t ticket;
    unsigned ends;
    unsigned rows;
    unsigned first;
} calls[CALLS];
static struct mp_str texts[CALLS * ROWS];
static char words[CALLS * ROWS][12];
static unsigned ended, kinds[MP_KIND_COUNT];

static void on_end(void *arg, const struct mp_result *r)
{
    unsigned i = (unsigned)(uintptr_t)arg;
    calls[i].ends++;
    ended++;
    kinds[r->kind]++;
    assert_int_equal(r->rows, calls[i].rows);
    uint64_t ok = 0;
    uint64_t last = 0;
    for (size_t k = 0; k < r->nexchanges; k++) {
        const struct mp_exchange *x = &r->exchanges[k];
        assert_true(x->first >= last && x->count > 0);
        last = x->first + x->count;
        assert_true(last <= r->rows);
        if (x->kind != MP_KIND_NONE)
            assert_true(strlen(mp_exchange_message(x)) > 0);
        else
            ok += x->count;
        for (uint64_t row = x->first; row < last && r->matrix != NULL; row++) {
            const float *v = mp_matrix_data(r->matrix) + 2 * row;
            float want = (float)(calls[i].first + row);
            if (x->kind != MP_KIND_NONE)
                assert_true(isnan(v[0]) && isnan(v[1]));
            else
                assert_true(v[0] == want && v[1] == -want);
        }
    }
    assert_int_equal(ok, r->rows_ok);
    if (r->kind == MP_KIND_NONE)
        assert_int_equal(last, r->rows);
}

static const struct mp_vectors shape = {.list = "data", .vector = "embedding", .index = "index"};

static void start_call(struct rig *rig, unsigned i, const struct mp_policy *policy)
{
    static struct mp_timeouts t;
    struct mp_request q = MP_INIT(struct mp_request);
    t = (struct mp_timeouts){.read = 0.05, .pool = draw(3) ? 1 : 0.02};
    if (draw(4) == 0)
        t.attempt = 0.03;
    if (draw(6) == 0)
        t.total = 0.001 * (1 + draw(200));
    calls[i].rows = 1 + draw(ROWS);
    calls[i].first = i * ROWS;
    q.client = rig->client;
    q.path = "/v1/embeddings";
    q.mode = MP_BODY_JOIN;
    q.flags = MP_IDEMPOTENT | (draw(2) ? MP_BORROW : 0);
    q.rows = &texts[i * ROWS];
    q.nrows = calls[i].rows;
    q.prefix = (struct mp_str){"{\"input\":[", 10};
    q.suffix = (struct mp_str){"]}", 2};
    q.vectors = &shape;
    q.policy = policy;
    q.timeouts = &t;
    q.max_concurrent = 1 + draw(8);
    q.done = on_end;
    q.arg = (void *)(uintptr_t)i;
    calls[i].ticket = rig_submit(rig, &q);
}

static void run_some(struct rig *rig)
{
    for (unsigned n = draw(12); n > 0; n--) {
        uv_run(&rig->loop, UV_RUN_NOWAIT);
        if (draw(8) == 0)
            uv_sleep(1); /* some of what happens needs time to pass */
    }
}

static struct mp_policy chaos_policy(void)
{
    struct mp_policy p = {0};
    mp_policy_init(&p, MP_PRESET_JOB);
    p.retry.base = p.retry.throttle_base = 0.001;
    p.retry.cap = 0.02;
    p.retry.reserve = p.retry.budget_cap = 100000;
    p.hedge.delay = 0.004;
    p.hedge.budget = 1;
    p.hedge.reserve = 1000;
    p.batch.size = 4;
    return p;
}

static void one_run(unsigned run)
{
    static struct rig rig;
    struct mp_policy p = chaos_policy();
    struct mp_client_config c = MP_INIT(struct mp_client_config);
    struct mp_pool_config pool = MP_INIT(struct mp_pool_config);
    seed = 1000 + run;
    calm = run % 2;
    memset(calls, 0, sizeof(calls));
    ended = 0;
    rig_open(&rig);
    rig.serve = serve_anything;
    pool.max_connections = 4 + draw(20);
    pool.lane_size = 1 + draw(8);
    c.pool_config = &pool;
    c.policy = &p;
    rig_client(&rig, &c);
    unsigned many = CALLS / 4 + draw(CALLS / 4);
    for (unsigned i = 0; i < many; i++) {
        start_call(&rig, i, &p);
        if (draw(5) == 0)
            mp_cancel(rig.engine, calls[draw(i + 1)].ticket);
        run_some(&rig);
    }
    if (run % 3 == 1)
        mp_client_close(rig.client);
    for (int guard = 0; run % 3 != 2 && ended < many && guard < 2000000; guard++)
        uv_run(&rig.loop, UV_RUN_ONCE);
    struct mp_stats s = MP_INIT(struct mp_stats);
    mp_stats(rig.engine, &s);
    hedges += s.hedges;
    print_message("seed %u: %u calls, %llu attempts, %llu hedges, %llu won, %llu retries\n",
                  1000 + run, many, (unsigned long long)s.attempts, (unsigned long long)s.hedges,
                  (unsigned long long)s.hedges_won, (unsigned long long)s.retries);
    rig_close(&rig); /* also over open calls, every third run */
    assert_int_equal(ended, many);
    for (unsigned i = 0; i < many; i++)
        assert_int_equal(calls[i].ends, 1);
}

static void test_chaos(void **state)
{
    (void)state;
    for (unsigned i = 0; i < CALLS * ROWS; i++) {
        texts[i].n = (size_t)snprintf(words[i], sizeof(words[i]), "%u", i);
        texts[i].p = words[i];
    }
    for (unsigned run = 0; run < 10; run++)
        one_run(run);
    assert_true(hedges > 0);
    assert_true(kinds[MP_KIND_NONE] > 0);
    assert_true(kinds[MP_KIND_CANCELLED] > 0);
    assert_true(kinds[MP_KIND_CLOSED] > 0);
    assert_true(kinds[MP_KIND_TOTAL_TIMEOUT] > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chaos),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

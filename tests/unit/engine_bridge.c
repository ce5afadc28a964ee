/*
 * engine_bridge.c - an engine on its own thread, used from others: completions, bells, cancels, ends.
 *
 * The server has a thread too. Its vector of the text "k" is {k, -k}; what is posted to /echo comes
 * back; /slow is not answered until the server is told to.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uv.h>

#include "http/http.h"
#include "moonpool.h"

/* ---- the server's thread ---- */

static struct {
    pthread_t thread;
    uv_loop_t loop;
    uv_async_t stop, answer;
    struct mp__http_server *server;
    struct mp__http_request *held[64];
    unsigned nheld;
    char url[64];
    uv_sem_t started;
    uv_sem_t holding; /* once a request on /slow */
    unsigned embeds;
} srv;

static void reply(struct mp__http_request *req, const char *body)
{
    static const struct mp__http_header json = {"content-type", "application/json"};
    mp__http_reply(req, 200, &json, 1, body, strlen(body));
}

static void embed(struct mp__http_request *req)
{
    static char out[1 << 20];
    size_t len = (size_t)snprintf(out, sizeof(out), "{\"data\":[");
    unsigned rows = 0;
    srv.embeds++;
    for (const char *p = strchr(req->body, '[') + 1; *p == '"' || *p == ','; p++) {
        if (*p == ',')
            continue;
        long k = strtol(p + 1, NULL, 10);
        len +=
            (size_t)snprintf(out + len, sizeof(out) - len, "%s[%ld,%ld]", rows++ ? "," : "", k, -k);
        p = strchr(p + 1, '"');
    }
    snprintf(out + len, sizeof(out) - len, "]}");
    reply(req, out);
}

static void on_request(struct mp__http_request *req, void *arg)
{
    (void)arg;
    if (strcmp(req->path, "/slow") == 0 && srv.nheld < 64) {
        srv.held[srv.nheld++] = req;
        uv_sem_post(&srv.holding);
    } else if (strcmp(req->path, "/embed") == 0) {
        embed(req);
    } else {
        reply(req, req->body_len > 0 ? req->body : "{}");
    }
}

static void on_answer(uv_async_t *a)
{
    (void)a;
    for (unsigned i = 0; i < srv.nheld; i++)
        reply(srv.held[i], "{\"late\":true}");
    srv.nheld = 0;
}

static void on_server_closed(void *arg)
{
    (void)arg;
}

static void on_stop(uv_async_t *a)
{
    on_answer(a);
    mp__http_server_close(srv.server, on_server_closed, NULL);
    uv_close((uv_handle_t *)&srv.stop, NULL);
    uv_close((uv_handle_t *)&srv.answer, NULL);
}

static void *serve(void *arg)
{
    (void)arg;
    struct mp__http_config hc = {.on_request = on_request};
    uv_loop_init(&srv.loop);
    uv_async_init(&srv.loop, &srv.stop, on_stop);
    uv_async_init(&srv.loop, &srv.answer, on_answer);
    mp__http_server_new(&srv.loop, &hc, &srv.server);
    mp__http_server_listen(srv.server, "127.0.0.1:0");
    snprintf(srv.url, sizeof(srv.url), "%s", mp__http_server_url(srv.server));
    uv_sem_post(&srv.started);
    uv_run(&srv.loop, UV_RUN_DEFAULT);
    uv_loop_close(&srv.loop);
    return NULL;
}

static int server_up(void **state)
{
    (void)state;
    uv_sem_init(&srv.started, 0);
    uv_sem_init(&srv.holding, 0);
    pthread_create(&srv.thread, NULL, serve, NULL);
    uv_sem_wait(&srv.started);
    return 0;
}

static int server_down(void **state)
{
    (void)state;
    uv_async_send(&srv.stop);
    pthread_join(srv.thread, NULL);
    return 0;
}

/* ---- the host ---- */

static mp_bridge *start_with(struct mp_bridge_config *cfg)
{
    static struct mp_endpoint_config ep;
    static struct mp_client_config c;
    mp_bridge *b = NULL;
    ep = (struct mp_endpoint_config){.base_url = srv.url};
    c = (struct mp_client_config)MP_INIT(struct mp_client_config);
    c.endpoints = &ep;
    c.nendpoints = 1;
    cfg->client = &c;
    int rc = mp_bridge_start(cfg, &b);
    if (rc != 0)
        print_error("%s\n", mp_last_error());
    assert_int_equal(rc, 0);
    return b;
}

static mp_bridge *start(void)
{
    struct mp_bridge_config cfg = MP_INIT(struct mp_bridge_config);
    return start_with(&cfg);
}

static uint64_t post(mp_bridge *b, const char *path, const char *body, uint32_t flags)
{
    struct mp_request q = MP_INIT(struct mp_request);
    struct mp_str row = {body, strlen(body)};
    uint64_t ticket = 0;
    q.path = path;
    q.rows = &row;
    q.nrows = 1;
    q.flags = flags;
    assert_int_equal(mp_bridge_submit(b, &q, NULL, &ticket), 0);
    return ticket;
}

static const struct mp_vectors in_data = {.list = "data"};

static uint64_t ask(mp_bridge *b, long k, unsigned rows, const char *key, void *arg)
{
    struct mp_request q = MP_INIT(struct mp_request);
    struct mp_gather how = MP_INIT(struct mp_gather);
    struct mp_str v[64];
    char text[64][16];
    uint64_t ticket = 0;
    for (unsigned i = 0; i < rows; i++) {
        v[i].n = (size_t)snprintf(text[i], sizeof(text[i]), "%ld", k + (long)i);
        v[i].p = text[i];
    }
    how.key = (struct mp_str){key, strlen(key)};
    q.path = "/embed";
    q.mode = MP_BODY_JOIN;
    q.rows = v;
    q.nrows = rows;
    q.prefix = (struct mp_str){"{\"input\":[", 10};
    q.suffix = (struct mp_str){"]}", 2};
    q.vectors = &in_data;
    q.arg = arg;
    int rc = mp_bridge_submit(b, &q, &how, &ticket);
    return rc == 0 ? ticket : 0;
}

static int readable(int fd, int ms)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    int n = poll(&p, 1, ms);
    return n == 1 && p.revents & POLLIN;
}

/* Waits on the descriptor for one completion. */
static struct mp_completion next(mp_bridge *b)
{
    struct mp_completion c = {0};
    while (mp_bridge_poll(b, &c, 1) == 0)
        assert_true(readable(mp_bridge_fd(b), 20000));
    return c;
}

/* ---- tests ---- */

static void test_one_call(void **state)
{
    (void)state;
    mp_bridge *b = start();
    assert_false(readable(mp_bridge_fd(b), 0));
    uint64_t t = post(b, "/echo", "{\"a\":1}", 0);
    struct mp_completion c = next(b);
    assert_int_equal(c.ticket, t);
    assert_int_equal(c.result->ticket, t);
    assert_int_equal(c.result->exchanges[0].status, 200);
    assert_string_equal(mp_exchange_body(&c.result->exchanges[0]), "{\"a\":1}");
    assert_false(readable(mp_bridge_fd(b), 0)); /* nothing is left */
    mp_result_free(c.result);
    mp_bridge_close(b);
}

static void test_batches(void **state)
{
    (void)state;
    mp_bridge *b = start();
    unsigned before = srv.embeds;
    for (long i = 0; i < 500; i++)
        assert_true(ask(b, 10 * i, 1 + i % 3, i % 2 ? "a" : "b", (void *)(intptr_t)i) != 0);
    for (unsigned n = 0; n < 500; n++) {
        struct mp_completion c = next(b);
        intptr_t i = (intptr_t)c.arg;
        assert_int_equal(c.result->rows_ok, 1 + i % 3);
        for (uint64_t row = 0; row < c.result->rows; row++) {
            const float *v = mp_matrix_data(c.result->matrix) + 2 * (c.result->first_row + row);
            assert_true(v[0] == (float)(10 * i + (long)row) && v[1] == -v[0]);
        }
        mp_result_free(c.result);
    }
    struct mp_bridge_stats s = MP_INIT(struct mp_bridge_stats);
    assert_int_equal(mp_bridge_stats(b, &s), 0);
    assert_int_equal(s.submitted, 500);
    assert_int_equal(s.taken, 500);
    assert_int_equal(s.open, 0);
    assert_true(srv.embeds - before <
                400); /* gathered, though how much is the scheduler's choice */
    mp_bridge_close(b);
}

static void test_cancel_drop_and_held(void **state)
{
    (void)state;
    mp_bridge *b = start();
    struct mp_completion c = {0};
    uint64_t t1 = post(b, "/slow", "{}", 0);
    uint64_t t2 = post(b, "/slow", "{}", 0);
    uint64_t t3 = post(b, "/slow", "{}", MP_HELD);
    for (int i = 0; i < 3; i++)
        uv_sem_wait(&srv.holding);
    mp_bridge_cancel(b, t1);
    mp_bridge_cancel(b, t1);
    c = next(b);
    assert_int_equal(c.ticket, t1);
    assert_int_equal(c.result->kind, MP_KIND_CANCELLED);
    mp_result_free(c.result);
    mp_bridge_drop(b, t2);
    mp_bridge_drop(b, t2);
    assert_int_equal(mp_bridge_take(b, t2, &c), MP_EINVAL);
    assert_int_equal(mp_bridge_take(b, t3, &c), 0);
    uv_async_send(&srv.answer);
    while (mp_bridge_take(b, t3, &c) == 0)
        uv_sleep(1);
    assert_string_equal(mp_exchange_body(&c.result->exchanges[0]), "{\"late\":true}");
    mp_result_free(c.result);
    assert_int_equal(mp_bridge_take(b, t3, &c), MP_EINVAL); /* it was taken */
    assert_int_equal(mp_bridge_poll(b, &c, 1), 0);          /* and never in the others' way */
    mp_bridge_cancel(b, t1);
    mp_bridge_cancel(b, 0);
    mp_bridge_cancel(b, UINT64_MAX);
    mp_bridge_close(b);
}

static void test_close_with_open_calls(void **state)
{
    (void)state;
    mp_bridge *b = start();
    for (int i = 0; i < 8; i++)
        post(b, "/slow", "{}", i % 2 ? MP_HELD : 0);
    for (int i = 0; i < 8; i++)
        uv_sem_wait(&srv.holding);
    for (long i = 0; i < 50; i++)
        ask(b, i, 1, "", NULL);
    mp_bridge_close(b);
    uv_async_send(&srv.answer);
}

static int connect_to(const char *path)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    return fd;
}

static void test_bell_on_a_socket(void **state)
{
    (void)state;
    mp_bridge *b = start();
    char path[128], dir[] = "/tmp/mp-bell-XXXXXX", byte = 0;
    assert_non_null(mkdtemp(dir));
    assert_int_equal(mp_bridge_bell(b, "/", path, sizeof(path)), MP_EINVAL); /* not private */
    assert_int_equal(mp_bridge_bell(b, dir, path, 3), MP_EINVAL);
    assert_int_equal(mp_bridge_bell(b, dir, path, sizeof(path)), 0);
    assert_int_equal(mp_bridge_bell_accept(b), 0);
    int fd = connect_to(path);
    assert_int_equal(mp_bridge_bell_accept(b), 1);
    assert_int_equal(access(path, F_OK), -1); /* gone as soon as it is used */
    post(b, "/echo", "{}", 0);
    assert_int_equal(read(fd, &byte, 1), 1);
    struct mp_completion c = next(b);
    mp_result_free(c.result);
    assert_int_equal(read(fd, &byte, 1), 1); /* the sign of life */
    /* Another process of the same user may connect, but is not answered. */
    assert_int_equal(mp_bridge_bell(b, dir, path, sizeof(path)), 0);
    pid_t pid = fork();
    if (pid == 0) {
        connect_to(path);
        _exit(0);
    }
    waitpid(pid, NULL, 0);
    assert_int_equal(mp_bridge_bell_accept(b), 0);
    int second = connect_to(path);
    assert_int_equal(mp_bridge_bell_accept(b), 1);
    while (read(fd, &byte, 1) == 1)
        ; /* the old bell was closed */
    close(fd);
    close(second); /* a reader that died: the next bell notices */
    post(b, "/echo", "{}", 0);
    c = next(b);
    mp_result_free(c.result);
    mp_bridge_close(b);
    assert_int_equal(rmdir(dir), 0);
}

static void test_names(void **state)
{
    (void)state;
    struct mp_bridge_config cfg = MP_INIT(struct mp_bridge_config);
    cfg.name = "one";
    mp_bridge *a = start_with(&cfg);
    mp_bridge *b = start_with(&cfg);
    assert_ptr_equal(a, b);
    assert_ptr_equal(mp_bridge_find("one"), a);
    assert_null(mp_bridge_find("two"));
    mp_bridge_close(a);
    mp_bridge_close(a);
    post(a, "/echo", "{}", 0);
    struct mp_completion c = next(a);
    mp_result_free(c.result);
    mp_bridge_close(a);
    assert_null(mp_bridge_find("one"));
}

static void test_after_a_fork(void **state)
{
    (void)state;
    struct mp_bridge_config cfg = MP_INIT(struct mp_bridge_config);
    cfg.name = "forked";
    mp_bridge *b = start_with(&cfg);
    pid_t pid = fork();
    if (pid == 0) {
        struct mp_completion c;
        struct mp_request q = MP_INIT(struct mp_request);
        struct mp_bridge_stats s = MP_INIT(struct mp_bridge_stats);
        char path[128];
        q.nrows = 1;
        int bad = mp_bridge_submit(b, &q, NULL, NULL) != MP_EFORK;
        bad |= mp_bridge_poll(b, &c, 1) != MP_EFORK;
        bad |= mp_bridge_take(b, 1, &c) != MP_EFORK;
        bad |= mp_bridge_stats(b, &s) != MP_EFORK;
        bad |= mp_bridge_bell(b, "/tmp", path, sizeof(path)) != MP_EFORK;
        bad |= mp_bridge_fd(b) != -1;
        bad |= mp_bridge_find("forked") != NULL;
        mp_bridge_cancel(b, 1);
        mp_bridge_drop(b, 1);
        mp_bridge_close(b); /* is the parent's */
        _exit(bad);
    }
    int status = -1;
    waitpid(pid, &status, 0);
    assert_int_equal(status, 0);
    post(b, "/echo", "{}", 0);
    struct mp_completion c = next(b);
    mp_result_free(c.result);
    mp_bridge_close(b);
}

static void test_nonsense(void **state)
{
    (void)state;
    mp_bridge *b = NULL;
    struct mp_completion c;
    struct mp_request q = MP_INIT(struct mp_request);
    struct mp_bridge_config cfg = MP_INIT(struct mp_bridge_config);
    struct mp_str row = {"x", 1};
    assert_int_equal(mp_bridge_start(NULL, &b), MP_EINVAL);
    assert_int_equal(mp_bridge_start(&cfg, NULL), MP_EINVAL);
    assert_int_equal(mp_bridge_start(&cfg, &b), MP_EINVAL); /* no endpoint */
    assert_non_null(strstr(mp_last_error(), "endpoint"));
    assert_null(b);
    mp_bridge_close(NULL);
    assert_int_equal(mp_bridge_submit(NULL, &q, NULL, NULL), MP_EINVAL);
    assert_int_equal(mp_bridge_poll(NULL, &c, 1), MP_EINVAL);
    mp_bridge_cancel(NULL, 1);
    mp_bridge_drop(NULL, 1);
    assert_int_equal(mp_bridge_fd(NULL), -1);
    b = start();
    assert_int_equal(mp_bridge_submit(b, NULL, NULL, NULL), MP_EINVAL);
    q.size = 0;
    assert_int_equal(mp_bridge_submit(b, &q, NULL, NULL), MP_EINVAL);
    q.size = SIZE_MAX; /* newer than this library: what it knows is taken */
    assert_int_equal(mp_bridge_submit(b, &q, NULL, NULL), MP_EINVAL);
    q.size = sizeof(q);
    q.rows = &row;
    q.nrows = SIZE_MAX;
    assert_int_equal(mp_bridge_submit(b, &q, NULL, NULL), MP_EINVAL);
    q.nrows = 1;
    row.n = SIZE_MAX;
    assert_int_equal(mp_bridge_submit(b, &q, NULL, NULL), MP_EINVAL);
    row.n = 1;
    row.p = NULL;
    assert_int_equal(mp_bridge_submit(b, &q, NULL, NULL), MP_EINVAL);
    row.p = "x";
    q.path = "/a b";
    assert_int_equal(mp_bridge_submit(b, &q, NULL, NULL), MP_EINVAL);
    q.path = "/";
    q.prefix = (struct mp_str){NULL, SIZE_MAX};
    assert_int_equal(mp_bridge_submit(b, &q, NULL, NULL), MP_EINVAL);
    assert_int_equal(mp_bridge_poll(b, NULL, 1), MP_EINVAL);
    assert_int_equal(mp_bridge_poll(b, &c, 0), 0);
    assert_int_equal(mp_bridge_poll(b, &c, -7), 0);
    assert_int_equal(mp_bridge_poll(b, &c, INT32_MAX), 0);
    assert_int_equal(mp_bridge_take(b, UINT64_MAX, &c), MP_EINVAL);
    mp_bridge_close(b);
}

static void test_bounds(void **state)
{
    (void)state;
    struct mp_bridge_config cfg = MP_INIT(struct mp_bridge_config);
    cfg.max_open = 4;
    mp_bridge *b = start_with(&cfg);
    struct mp_request q = MP_INIT(struct mp_request);
    struct mp_str row = {"{}", 2};
    q.path = "/echo";
    q.rows = &row;
    q.nrows = 1;
    for (int i = 0; i < 4; i++)
        assert_int_equal(mp_bridge_submit(b, &q, NULL, NULL), 0);
    assert_int_equal(mp_bridge_submit(b, &q, NULL, NULL), MP_EAGAIN);
    struct mp_completion c = next(b);
    mp_result_free(c.result);
    assert_int_equal(mp_bridge_submit(b, &q, NULL, NULL), 0);
    for (int i = 0; i < 4; i++) {
        c = next(b);
        mp_result_free(c.result);
    }
    mp_bridge_close(b);
}

/* ---- many threads ---- */

enum { THREADS = 4, EACH = 1500 };

static struct {
    mp_bridge *bridge;
    unsigned ends[THREADS * EACH];
    uint64_t tickets[THREADS * EACH];
} many;

static void *submitter(void *arg)
{
    unsigned me = (unsigned)(uintptr_t)arg;
    unsigned seed = 77 + me;
    for (unsigned i = me * EACH; i < (me + 1) * EACH; i++) {
        uint64_t t = ask(many.bridge, (long)i, 1, "k", (void *)(uintptr_t)i);
        while (t == 0) {
            uv_sleep(1);
            t = ask(many.bridge, (long)i, 1, "k", (void *)(uintptr_t)i);
        }
        if (rand_r(&seed) % 4 == 0)
            mp_bridge_cancel(many.bridge, t);
        __atomic_store_n(&many.tickets[i], t, __ATOMIC_RELAXED);
        if (rand_r(&seed) % 8 == 0) /* somebody else's, or one that is over */
            mp_bridge_cancel(many.bridge,
                             __atomic_load_n(&many.tickets[(unsigned)rand_r(&seed) % (i + 1)],
                                             __ATOMIC_RELAXED));
    }
    return NULL;
}

static void test_many_threads(void **state)
{
    (void)state;
    pthread_t threads[THREADS];
    struct mp_bridge_config cfg = MP_INIT(struct mp_bridge_config);
    cfg.max_open = 500;
    many.bridge = start_with(&cfg);
    for (uintptr_t i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, submitter, (void *)i);
    unsigned ok = 0;
    for (unsigned n = 0; n < THREADS * EACH; n++) {
        struct mp_completion c = next(many.bridge);
        unsigned i = (unsigned)(uintptr_t)c.arg;
        many.ends[i]++;
        if (c.result->kind == MP_KIND_NONE) {
            const float *v = mp_matrix_data(c.result->matrix) + 2 * c.result->first_row;
            assert_true(v[0] == (float)i);
            ok++;
        } else {
            assert_int_equal(c.result->kind, MP_KIND_CANCELLED);
        }
        mp_result_free(c.result);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    for (unsigned i = 0; i < THREADS * EACH; i++)
        assert_int_equal(many.ends[i], 1);
    struct mp_bridge_stats s = MP_INIT(struct mp_bridge_stats);
    mp_bridge_stats(many.bridge, &s);
    print_message("%u of %u whole, %llu bells\n", ok, THREADS * EACH, (unsigned long long)s.bells);
    assert_true(ok > 0 && s.bells <= THREADS * EACH);
    assert_int_equal(s.ready, 0);
    mp_bridge_close(many.bridge);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_call),
        cmocka_unit_test(test_batches),
        cmocka_unit_test(test_cancel_drop_and_held),
        cmocka_unit_test(test_close_with_open_calls),
        cmocka_unit_test(test_bell_on_a_socket),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_after_a_fork),
        cmocka_unit_test(test_nonsense),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_many_threads),
    };
    return cmocka_run_group_tests(tests, server_up, server_down);
}

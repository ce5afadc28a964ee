/* What the HTTP server makes of bytes: requests cut anywhere, too large, smuggled, malformed. */
#include "http_util.h"

#define HEAD "POST /v1/x?q=1 HTTP/1.1\r\nHost: a\r\nX-Two: b \r\nContent-Length: 5\r\n\r\n"

static void start_echo(struct fixture *f)
{
    fixture_init(f);
    fixture_start(f, echo);
}

static void every_cut_gives_the_same_request(void **state)
{
    (void)state;
    static const char *const whole[] = {
        HEAD "hello",
        "POST /v1/x?q=1 HTTP/1.1\r\nHost: a\r\nX-Two:\r\nTransfer-Encoding: chunked\r\n\r\n"
        "2\r\nhe\r\n3;ext=1\r\nllo\r\n0\r\nTrailer: x\r\n\r\n",
    };
    struct fixture f;
    start_echo(&f);
    for (size_t w = 0; w < 2; w++) {
        for (size_t cut = 1; cut < strlen(whole[w]); cut++) {
            struct inbox in = {0};
            int fd = client_new(&f);
            f.log[0] = '\0';
            client_send(&f, fd, whole[w], cut);
            WAIT_FOR(&f, uv_loop_alive(&f.loop) != 0);
            assert_string_equal(f.log, "");
            client_say(&f, fd, whole[w] + cut);
            read_until(&f, fd, &in, "[hello]");
            assert_string_equal(f.log, "POST /v1/x?q=1 3[hello]");
            close(fd);
        }
    }
    fixture_end(&f);
}

static void one_byte_at_a_time(void **state)
{
    (void)state;
    struct fixture f;
    struct inbox in = {0};
    start_echo(&f);
    int fd = client_new(&f);
    for (int twice = 0; twice < 2; twice++) {
        const char *text = HEAD "hello";
        for (; *text != '\0'; text++)
            client_send(&f, fd, text, 1);
    }
    while (count_of(in.p, "[hello]") < 2)
        read_some(&f, fd, &in);
    assert_int_equal(f.seen, 2);
    close(fd);
    fixture_end(&f);
}

static void pipelined_requests_are_answered_in_order(void **state)
{
    (void)state;
    struct fixture f;
    struct inbox in = {0};
    start_echo(&f);
    int fd = client_new(&f);
    char text[8192] = "";
    size_t n = 0;
    for (int i = 0; i < 60; i++)
        n += (size_t)snprintf(text + n, sizeof(text) - n, "%s /%d HTTP/1.1\r\nHost: a\r\n%s",
                              i % 2 ? "GET" : "PUT", i,
                              i % 2 ? "\r\n" : "Content-Length: 3\r\n\r\nabc");
    client_send(&f, fd, text, n);
    read_until(&f, fd, &in, "GET /59?- 1[]");
    const char *at = in.p;
    for (int i = 0; i < 60; i++) {
        char want[32];
        snprintf(want, sizeof(want), " /%d?-", i);
        at = strstr(at, want);
        assert_non_null(at);
    }
    assert_int_equal(f.seen, 60);
    close(fd);
    fixture_end(&f);
}

/* Pipelined behind a request whose handler takes its time: not handed out before its reply. */
static void the_next_request_waits_for_the_reply(void **state)
{
    (void)state;
    struct fixture f;
    struct inbox in = {0};
    fixture_init(&f);
    fixture_start(&f, park);
    int fd = client_new(&f);
    client_say(&f, fd,
               "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\nGET /3");
    WAIT_FOR(&f, f.parked != NULL);
    client_say(&f, fd, " HTTP/1.1\r\nHost: a\r\n\r\n");
    for (int i = 1; i <= 3; i++) {
        char path[16], body[24];
        snprintf(path, sizeof(path), "/%d", i);
        snprintf(body, sizeof(body), "answer %d", i);
        WAIT_FOR(&f, f.parked != NULL);
        for (int idle = 0; idle < 5; idle++)
            turn(&f);
        assert_int_equal(f.seen, i);
        assert_string_equal(f.parked->path, path);
        struct mp__http_request *req = f.parked;
        f.parked = NULL;
        mp__http_reply(req, 200, NULL, 0, body, strlen(body));
        read_until(&f, fd, &in, body);
    }
    close(fd);
    fixture_end(&f);
}

struct bad {
    int status;
    const char *bytes;
};

static const struct bad bad_requests[] = {
    {400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: "
          "chunked\r\n\r\n0\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: "
          "5\r\n\r\n0\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello"},
    {400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello"},
    {400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello"},
    {400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\n"},
    {501, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\nhello"},
    {501, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"},
    {501, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n"},
    {400, "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabcd\r\n0\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n"},
    {400, "GET / HTTP/1.1\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"},
    {400, "GET / HTTP/1.1\nHost: a\n\n"},
    {400, "GET / HTTP/1.1\r\nHost: a\r\n folded: x\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n\tb\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\t2\r\n\r\nhi"},
    {400, "GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\n:\r\nHost: a\r\n\r\n"},
    {400, "GET  / HTTP/1.1\r\nHost: a\r\n\r\n"},
    {400, "GET /  HTTP/1.1\r\nHost: a\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\n Host: a\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\nHost: a\r\nX: \x01\r\n\r\n"},
    {400, "GET relative HTTP/1.1\r\nHost: a\r\n\r\n"},
    {400, "FROB / HTTP/1.1\r\nHost: a\r\n\r\n"},
    {400, "GET / HTTP/9.9\r\nHost: a\r\n\r\n"},
    {505, "GET / HTTP/2.0\r\nHost: a\r\n\r\n"},
    {400, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"},
    {501, "CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n"},
    {417, "POST / HTTP/1.1\r\nHost: a\r\nExpect: miracles\r\nContent-Length: 1\r\n\r\nx"},
    {400, "\x16\x03\x01\x02\x00 tls hello"},
};

static void malformed_requests_are_refused(void **state)
{
    (void)state;
    struct fixture f;
    struct inbox in;
    start_echo(&f);
    for (size_t i = 0; i < sizeof(bad_requests) / sizeof(bad_requests[0]); i++) {
        const struct bad *b = &bad_requests[i];
        int status = one_shot(&f, b->bytes, strlen(b->bytes), &in);
        if (status != b->status || f.seen != 0)
            print_message("request %zu: %d instead of %d, handled %d: %s\n%s\n", i, status,
                          b->status, f.seen, b->bytes, f.log);
        assert_int_equal(status, b->status);
        assert_int_equal(f.seen, 0);
        assert_int_equal(in.end, 1); /* an orderly end: the reply is not lost to a reset */
        assert_non_null(strstr(in.p, "connection: close"));
    }
    fixture_end(&f);
}

struct good {
    const char *bytes;
    const char *log;
};

static const struct good good_requests[] = {
    {"GET / HTTP/1.0\r\n\r\n", "GET /?- 0[]"},
    {"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "GET /?- 2[]"},
    {"GET http://h.example/p?q HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "GET /p?q 2[]"},
    {"GET http://h.example?q HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "GET /?q 2[]"},
    {"OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "OPTIONS *?- 2[]"},
    {"GET /?a=%20b%3F HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "GET /?a=%20b%3F 2[]"},
    {"DELETE /x HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n", "DELETE /x?- 2[]"},
    {"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
     "POST /?- 3[]"},
    {"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, close\r\nUpgrade: h2c\r\n\r\n",
     "GET /?- 3[]"},
    {"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
     "0\r\n\r\n",
     "POST /?- 3[]"},
};

static void odd_but_lawful_requests_are_taken(void **state)
{
    (void)state;
    struct fixture f;
    struct inbox in;
    start_echo(&f);
    for (size_t i = 0; i < sizeof(good_requests) / sizeof(good_requests[0]); i++) {
        const struct good *g = &good_requests[i];
        int status = one_shot(&f, g->bytes, strlen(g->bytes), &in);
        if (status != 200)
            print_message("request %zu: %d for %s\n", i, status, g->bytes);
        assert_int_equal(status, 200);
        assert_string_equal(f.log, g->log);
    }
    fixture_end(&f);
}

static void headers(struct mp__http_request *req, void *arg)
{
    struct fixture *f = arg;
    f->seen++;
    assert_string_equal(mp__http_header(req, "x-mixed"), "Value Kept");
    assert_string_equal(mp__http_header(req, "x-empty"), "");
    assert_string_equal(mp__http_header(req, "x-tab"), "a\tb");
    assert_null(mp__http_header(req, "X-Mixed"));
    assert_string_equal(req->body, "");
    mp__http_reply(req, 204, NULL, 0, NULL, 0);
}

static void header_names_are_lower_case_values_trimmed(void **state)
{
    (void)state;
    struct fixture f;
    struct inbox in;
    fixture_init(&f);
    fixture_start(&f, headers);
    const char *text = "GET / HTTP/1.1\r\nHost: a\r\nX-MiXed: \t Value Kept \t \r\nX-Empty:   \r\n"
                       "X-Tab: a\tb\r\nConnection: close\r\n\r\n";
    assert_int_equal(one_shot(&f, text, strlen(text), &in), 204);
    assert_null(strstr(in.p, "content-length"));
    assert_int_equal(f.seen, 1);
    fixture_end(&f);
}

static void oversize_heads_get_431(void **state)
{
    (void)state;
    struct fixture f;
    struct inbox in;
    start_echo(&f);
    size_t n = 70000;
    char *text = malloc(n + 64);
    static const char *const starts[] = {"GET /", "GET / HTTP/1.1\r\nX: ", "GET / HTTP/1.1\r\n",
                                         "GET / HTTP/1.1\r\nX:"};
    for (size_t i = 0; i < 4; i++) {
        memset(text, "aaa "[i], n);
        memcpy(text, starts[i], strlen(starts[i]));
        assert_int_equal(one_shot(&f, text, n, &in), 431);
    }
    size_t at = (size_t)snprintf(text, n, "GET / HTTP/1.1\r\n");
    for (int i = 0; i < 101; i++)
        at += (size_t)snprintf(text + at, n - at, "a: b\r\n");
    at += (size_t)snprintf(text + at, n - at, "\r\n");
    assert_int_equal(one_shot(&f, text, at, &in), 431);
    assert_int_equal(f.seen, 0);
    free(text);
    fixture_end(&f);
}

static size_t fill(char *text, size_t n, const char *start)
{
    memset(text, 'x', n);
    memcpy(text, start, strlen(start));
    return strlen(start);
}

static void oversize_bodies_get_413(void **state)
{
    (void)state;
    struct fixture f;
    struct inbox in;
    fixture_init(&f);
    f.config.max_body = 1000;
    fixture_start(&f, echo);
    size_t n = 300000;
    char *text = malloc(n);
    /* Declared: refused before it comes, and the reply survives though the client still sends. */
    fill(text, n, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 290000\r\n\r\n");
    assert_int_equal(one_shot(&f, text, n, &in), 413);
    /* Not declared: refused when the 1001st byte comes. */
    fill(text, n, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n");
    assert_int_equal(one_shot(&f, text, n, &in), 413);
    /* Endless framing around nothing. */
    fill(text, n, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;");
    assert_int_equal(one_shot(&f, text, n, &in), 413);
    assert_int_equal(f.seen, 0);
    /* Exactly the limit is fine. */
    size_t at = fill(text, n,
                     "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
                     "Content-Length: 1000\r\n\r\n");
    assert_int_equal(one_shot(&f, text, at + 1000, &in), 200);
    free(text);
    fixture_end(&f);
}

static void a_body_in_one_byte_chunks_is_no_attack(void **state)
{
    (void)state;
    struct fixture f;
    struct inbox in;
    start_echo(&f);
    size_t n = 0, size = 1000000;
    char *text = malloc(size);
    n += (size_t)snprintf(text, size,
                          "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
                          "Transfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < 100000; i++)
        n += (size_t)snprintf(text + n, size - n, "1\r\n%c\r\n", 'a' + i % 26);
    n += (size_t)snprintf(text + n, size - n, "0\r\n\r\n");
    assert_int_equal(one_shot(&f, text, n, &in), 200);
    assert_non_null(strstr(in.p, "[abcdef"));
    free(text);
    fixture_end(&f);
}

static void continue_is_said_only_to_who_waits(void **state)
{
    (void)state;
    struct fixture f;
    struct inbox in = {0};
    start_echo(&f);
    int fd = client_new(&f);
    client_say(&f, fd,
               "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\n"
               "Content-Length: 2\r\n\r\n");
    read_until(&f, fd, &in, "100 Continue\r\n\r\n");
    assert_int_equal(f.seen, 0);
    client_say(&f, fd, "ok");
    read_until(&f, fd, &in, "[ok]");
    close(fd);
    const char *at_once =
        "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nConnection: close\r\n"
        "Content-Length: 2\r\n\r\nok";
    assert_int_equal(one_shot(&f, at_once, strlen(at_once), &in), 200);
    const char *too_large = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
                            "Content-Length: 99999999999\r\n\r\n";
    assert_int_equal(one_shot(&f, too_large, strlen(too_large), &in), 413);
    fixture_end(&f);
}

static uint64_t dice(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return *state >> 33;
}

/* Garbled requests in random pieces: the server must answer or hang up, and be well afterwards. */
static void garbled_requests_do_no_harm(void **state)
{
    (void)state;
    static const char *const seeds[] = {
        HEAD "hello" HEAD "world",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "GET /a HTTP/1.0\r\nConnection: keep-alive\r\nExpect: 100-continue\r\n\r\n" HEAD "x",
    };
    static const char bytes[] = "\r\n :;,\t0159afz/\0\xff%";
    uint64_t rng = 20240607;
    struct fixture f;
    struct mp__http_stats stats;
    start_echo(&f);
    for (int i = 0; i < 3000; i++) {
        char text[512];
        size_t n = strlen(seeds[i % 3]);
        memcpy(text, seeds[i % 3], n);
        for (uint64_t k = 1 + dice(&rng) % 4; k > 0; k--)
            text[dice(&rng) % n] = bytes[dice(&rng) % (sizeof(bytes) - 1)];
        int fd = client_new(&f);
        size_t cut = dice(&rng) % n;
        client_send(&f, fd, text, cut);
        client_send(&f, fd, text + cut, n - cut);
        close(fd);
    }
    WAIT_FOR(&f, (mp__http_server_stats(f.server, &stats), stats.open == 0));
    assert_int_equal(stats.accepted, 3000);
    assert_int_equal(stats.working, 0);
    assert_true(stats.malformed > 300);
    assert_true(f.seen > 300);
    fixture_end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_cut_gives_the_same_request),
        cmocka_unit_test(one_byte_at_a_time),
        cmocka_unit_test(pipelined_requests_are_answered_in_order),
        cmocka_unit_test(the_next_request_waits_for_the_reply),
        cmocka_unit_test(malformed_requests_are_refused),
        cmocka_unit_test(odd_but_lawful_requests_are_taken),
        cmocka_unit_test(header_names_are_lower_case_values_trimmed),
        cmocka_unit_test(oversize_heads_get_431),
        cmocka_unit_test(oversize_bodies_get_413),
        cmocka_unit_test(a_body_in_one_byte_chunks_is_no_attack),
        cmocka_unit_test(continue_is_said_only_to_who_waits),
        cmocka_unit_test(garbled_requests_do_no_harm),
    };
    return cmocka_run_group_tests_name("http_parse", tests, NULL, NULL);
}

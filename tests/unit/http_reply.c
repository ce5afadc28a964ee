/* Replies: whole, streamed with backpressure, refused when malformed, and broken on purpose. */
#include "http_util.h"

#define GET  "GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
#define LAST "GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"

static struct mp__http_request *ask(struct fixture *f, int fd, const char *text)
{
    f->parked = NULL;
    client_say(f, fd, text);
    WAIT_FOR(f, f->parked != NULL);
    return f->parked;
}

static void start_parking(struct fixture *f)
{
    fixture_init(f);
    fixture_start(f, park);
}

static void head_has_length_but_no_body(void **state)
{
    (void)state;
    struct fixture f;
    struct inbox in = {0};
    start_parking(&f);
    int fd = client_new(&f);
    mp__http_reply(ask(&f, fd, "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"), 200, NULL, 0, "12345", 5);
    read_until(&f, fd, &in, "\r\n\r\n");
    assert_non_null(strstr(in.p, "content-length: 5\r\n"));
    struct mp__http_request *req = ask(&f, fd, "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    mp__http_start(req, 200, NULL, 0);
    assert_int_equal(mp__http_write(req, "12345", 5), 0);
    mp__http_end(req);
    mp__http_reply(ask(&f, fd, LAST), 304, NULL, 0, "12345", 5);
    read_to_end(&f, fd, &in);
    assert_null(strstr(in.p, "12345"));
    assert_int_equal(count_of(in.p, "content-length"), 1);
    assert_int_equal(count_of(in.p, "HTTP/1.1 "), 3);
    close(fd);
    fixture_end(&f);
}

static void bad_headers_are_refused_before_anything_is_sent(void **state)
{
    (void)state;
    static const struct mp__http_header bad[] = {
        {"x-a", "b\r\nset-cookie: evil"}, {"x a", "b"}, {"", "b"}, {"x\n", "b"}, {"x", "a\x7f"}};
    struct fixture f;
    struct inbox in = {0};
    start_parking(&f);
    int fd = client_new(&f);
    struct mp__http_request *req = ask(&f, fd, LAST);
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(mp__http_reply(req, 200, &bad[i], 1, "x", 1), UV_EINVAL);
        assert_int_equal(mp__http_start(req, 200, &bad[i], 1), UV_EINVAL);
    }
    assert_int_equal(mp__http_reply(req, 199, NULL, 0, "x", 1), UV_EINVAL);
    assert_int_equal(mp__http_reply(req, 600, NULL, 0, "x", 1), UV_EINVAL);
    static const struct mp__http_header mine[] = {
        {"Content-Length", "77"}, {"Transfer-Encoding", "chunked"}, {"X-Fine", "yes \xc3\xa4"}};
    assert_int_equal(mp__http_reply(req, 500, mine, 3, "sorry", 5), 0);
    read_to_end(&f, fd, &in);
    assert_int_equal(status_of(&in), 500);
    assert_int_equal(count_of(in.p, "HTTP/1.1"), 1);
    assert_null(strstr(in.p, "evil"));
    assert_null(strstr(in.p, "77"));
    assert_null(strstr(in.p, "ransfer-"));
    assert_non_null(strstr(in.p, "X-Fine: yes \xc3\xa4\r\n"));
    assert_non_null(strstr(in.p, "\r\n\r\nsorry"));
    close(fd);
    fixture_end(&f);
}

static void streams_are_chunked_or_end_with_the_connection(void **state)
{
    (void)state;
    struct fixture f;
    struct inbox in = {0}, old = {0};
    start_parking(&f);
    int fd = client_new(&f);
    struct mp__http_request *req = ask(&f, fd, GET);
    assert_int_equal(mp__http_start(req, 200, NULL, 0), 0);
    read_until(&f, fd, &in, "\r\n\r\n");
    mp__http_write(req, "hello", 5);
    mp__http_write(req, "", 0);
    read_until(&f, fd, &in, "5\r\nhello\r\n");
    mp__http_write(req, "0123456789abcdef", 16);
    mp__http_end(req);
    read_until(&f, fd, &in, "10\r\n0123456789abcdef\r\n0\r\n\r\n");
    mp__http_reply(ask(&f, fd, GET), 200, NULL, 0, "again", 5); /* the connection lives on */
    read_until(&f, fd, &in, "again");
    close(fd);

    fd = client_new(&f);
    req = ask(&f, fd, "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    mp__http_start(req, 200, NULL, 0);
    mp__http_write(req, "plain", 5);
    mp__http_end(req);
    read_to_end(&f, fd, &old);
    assert_non_null(strstr(old.p, "\r\n\r\nplain"));
    assert_null(strstr(old.p, "chunked"));
    close(fd);
    fixture_end(&f);
}

static int drained;

static void note_drain(struct mp__http_request *req)
{
    (void)req;
    drained++;
}

/* Writes until told to wait; the client reads all; the drain is heard once. */
static void a_full_stream_says_so_and_drains(void **state)
{
    (void)state;
    struct fixture f;
    static char block[65536];
    memset(block, 'z', sizeof(block));
    start_parking(&f);
    int fd = client_new(&f);
    struct mp__http_request *req = ask(&f, fd, LAST);
    drained = 0;
    req->on_drain = note_drain;
    mp__http_start(req, 200, NULL, 0);
    size_t wrote = 0;
    int full = 0;
    while (!full && wrote < (64u << 20)) {
        full = mp__http_write(req, block, sizeof(block));
        wrote += sizeof(block);
    }
    assert_int_equal(full, 1);
    size_t got = 0;
    while (drained == 0) {
        struct inbox in = {0};
        assert_true(read_some(&f, fd, &in));
        got += in.n;
    }
    mp__http_end(req);
    for (struct inbox in = {0}; in.end == 0; in.n = 0) {
        read_some(&f, fd, &in);
        got += in.n;
    }
    assert_int_equal(drained, 1);
    assert_true(got > wrote && got < wrote + wrote / 100 + 4096);
    close(fd);
    fixture_end(&f);
}

static void who_does_not_read_is_dropped(void **state)
{
    (void)state;
    struct fixture f;
    struct mp__http_stats stats;
    fixture_init(&f);
    f.config.write_timeout = 0.05;
    fixture_start(&f, park);
    size_t n = 16u << 20;
    char *big = calloc(1, n);
    int fd = client_new(&f);
    mp__http_reply(ask(&f, fd, GET), 200, NULL, 0, big, n);
    WAIT_FOR(&f, (mp__http_server_stats(f.server, &stats), stats.open == 0));
    assert_int_equal(stats.timeouts, 1);
    close(fd);

    /* A slow reader that does read is served, however long it takes. */
    fd = client_new(&f);
    mp__http_reply(ask(&f, fd, LAST), 200, NULL, 0, big, n);
    size_t got = 0;
    struct inbox in = {0};
    for (; in.end == 0; in.n = 0) {
        wait_readable(fd);
        read_some(&f, fd, &in);
        got += in.n;
    }
    assert_int_equal(in.end, 1);
    assert_true(got > n);
    close(fd);
    free(big);
    fixture_end(&f);
}

/* ---- faults ---- */

struct fault_case {
    const char *name;
    struct mp__http_fault fault;
    int end;          /* what the client meets: 1 orderly, or -ECONNRESET */
    const char *tail; /* the last bytes it sees */
    int length;       /* a content-length of 10 is declared */
};

static const struct fault_case faults[] = {
    {"none", {.cut = SIZE_MAX}, 1, "\r\n\r\n0123456789", 1},
    {"delay", {.cut = SIZE_MAX, .delay = 0.01}, 1, "\r\n\r\n0123456789", 1},
    {"dribble", {.cut = SIZE_MAX, .dribble = 1}, 1, "\r\n\r\n0123456789", 1},
    {"slow dribble", {.cut = SIZE_MAX, .dribble = 40, .gap = 0.002}, 1, "\n0123456789", 1},
    {"chunk 1", {.cut = SIZE_MAX, .chunk = 1}, 1, "\r\n8\r\n1\r\n9\r\n0\r\n\r\n", 0},
    {"chunk 4", {.cut = SIZE_MAX, .chunk = 4}, 1, "4\r\n4567\r\n2\r\n89\r\n0\r\n\r\n", 0},
    {"reset", {.cut = 4, .end = MP_HTTP_RESET}, -ECONNRESET, "\r\n\r\n0123", 1},
    {"reset of nothing", {.cut = 0, .end = MP_HTTP_RESET}, -ECONNRESET, "\r\n\r\n", 1},
    {"reset in chunks",
     {.cut = 3, .chunk = 2, .end = MP_HTTP_RESET},
     -ECONNRESET,
     "2\r\n01\r\n1\r\n2\r\n",
     0},
    {"short", {.cut = 4, .end = MP_HTTP_CLOSE}, 1, "\r\n\r\n0123", 1},
    {"short chunks", {.cut = SIZE_MAX, .chunk = 8, .end = MP_HTTP_CLOSE}, 1, "2\r\n89\r\n", 0},
    {"raw", {.cut = SIZE_MAX, .raw = 1}, 1, "0123456789", 0},
};

static void each_fault_is_as_asked(void **state)
{
    (void)state;
    struct fixture f;
    start_parking(&f);
    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
        const struct fault_case *k = &faults[i];
        struct inbox in = {0};
        int fd = client_new(&f);
        struct mp__http_request *req = ask(&f, fd, LAST);
        assert_int_equal(mp__http_reply_fault(req, 200, NULL, 0, "0123456789", 10, &k->fault), 0);
        read_to_end(&f, fd, &in);
        size_t n = strlen(k->tail);
        if (in.end != k->end || in.n < n || strcmp(in.p + in.n - n, k->tail) != 0)
            print_message("%s: end %d, got %s\n", k->name, in.end, in.p);
        assert_int_equal(in.end, k->end);
        assert_true(in.n >= n);
        assert_string_equal(in.p + in.n - n, k->tail);
        assert_int_equal(strstr(in.p, "content-length: 10") != NULL, k->length);
        close(fd);
    }
    fixture_end(&f);
}

static void a_harmless_fault_keeps_the_connection(void **state)
{
    (void)state;
    struct fixture f;
    struct inbox in = {0};
    struct mp__http_fault fault = {.cut = SIZE_MAX, .chunk = 3, .dribble = 7, .delay = 0.002};
    start_parking(&f);
    int fd = client_new(&f);
    for (int i = 1; i <= 3; i++) {
        mp__http_reply_fault(ask(&f, fd, GET), 200, NULL, 0, "0123456789", 10, &fault);
        while (count_of(in.p, "9\r\n0\r\n\r\n") < i)
            read_some(&f, fd, &in);
    }
    close(fd);
    fixture_end(&f);
}

static void a_hanging_reply_ends_when_the_client_leaves(void **state)
{
    (void)state;
    struct fixture f;
    struct mp__http_stats stats;
    struct mp__http_fault hang = {.cut = 2, .end = MP_HTTP_HANG};
    struct mp__http_fault late = {.cut = SIZE_MAX, .delay = 1e6};
    start_parking(&f);
    for (int i = 0; i < 2; i++) {
        struct inbox in = {0};
        int fd = client_new(&f);
        mp__http_reply_fault(ask(&f, fd, GET), 200, NULL, 0, "0123456789", 10, i ? &late : &hang);
        if (i == 0)
            read_until(&f, fd, &in, "\r\n\r\n01");
        close(fd);
        WAIT_FOR(&f, (mp__http_server_stats(f.server, &stats), stats.open == 0));
        assert_null(strstr(in.p, "012"));
    }
    int fd = client_new(&f); /* and when the server closes */
    mp__http_reply_fault(ask(&f, fd, GET), 200, NULL, 0, "0123456789", 10, &late);
    f.fds++; /* fd */
    fixture_end(&f);
    close(fd);
}

static void peers_have_names(void **state)
{
    (void)state;
    struct fixture f;
    char peer[80];
    start_parking(&f);
    int fd = client_new(&f);
    struct mp__http_request *req = ask(&f, fd, GET);
    mp__http_peer(req, peer, sizeof(peer));
    assert_int_equal(strncmp(peer, "127.0.0.1:", 10), 0);
    mp__http_abort(req);
    close(fd);
    fixture_end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(head_has_length_but_no_body),
        cmocka_unit_test(bad_headers_are_refused_before_anything_is_sent),
        cmocka_unit_test(streams_are_chunked_or_end_with_the_connection),
        cmocka_unit_test(a_full_stream_says_so_and_drains),
        cmocka_unit_test(who_does_not_read_is_dropped),
        cmocka_unit_test(each_fault_is_as_asked),
        cmocka_unit_test(a_harmless_fault_keeps_the_connection),
        cmocka_unit_test(a_hanging_reply_ends_when_the_client_leaves),
        cmocka_unit_test(peers_have_names),
    };
    return cmocka_run_group_tests_name("http_reply", tests, NULL, NULL);
}

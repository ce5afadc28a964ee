/* The life of connections: reuse, time-outs, clients that leave, limits, and the server's end. */
#include "http_util.h"

#define GET "GET /a HTTP/1.1\r\nHost: a\r\n\r\n"

static void a_connection_serves_many_requests(void **state)
{
    (void)state;
    struct fixture f;
    struct mp__http_stats stats;
    struct inbox in;
    fixture_init(&f);
    fixture_start(&f, echo);
    int fd = client_new(&f);
    for (int i = 0; i < 200; i++) {
        memset(&in, 0, sizeof(in));
        client_say(&f, fd, GET);
        read_until(&f, fd, &in, "GET /a?- 1[]");
    }
    mp__http_server_stats(f.server, &stats);
    assert_int_equal(stats.accepted, 1);
    assert_int_equal(stats.open, 1);
    assert_int_equal(stats.requests, 200);
    assert_int_equal(stats.status[2], 200);
    assert_int_equal(stats.working, 0);
    close(fd);
    WAIT_FOR(&f, (mp__http_server_stats(f.server, &stats), stats.open == 0));
    fixture_end(&f);
}

static void close_and_http_1_0_end_the_connection(void **state)
{
    (void)state;
    struct fixture f;
    struct inbox in;
    fixture_init(&f);
    fixture_start(&f, echo);
    const char *last = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" GET;
    assert_int_equal(one_shot(&f, last, strlen(last), &in), 200);
    assert_int_equal(f.seen, 1);
    assert_int_equal(in.end, 1); /* not a reset, though a second request lay there unread */
    const char *old = "GET / HTTP/1.0\r\n\r\n";
    assert_int_equal(one_shot(&f, old, strlen(old), &in), 200);
    assert_non_null(strstr(in.p, "connection: close"));

    struct inbox kept = {0};
    int fd = client_new(&f);
    client_say(&f, fd, "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    read_until(&f, fd, &kept, "[]");
    assert_non_null(strstr(kept.p, "connection: keep-alive"));
    client_say(&f, fd, "GET / HTTP/1.0\r\n\r\n");
    read_to_end(&f, fd, &kept);
    assert_int_equal(f.seen, 4);
    close(fd);
    fixture_end(&f);
}

static void slow_senders_get_408(void **state)
{
    (void)state;
    struct fixture f;
    struct inbox in;
    fixture_init(&f);
    f.config.header_timeout = 0.03;
    f.config.body_timeout = 0.03;
    fixture_start(&f, echo);
    const char *head = "GET / HTTP/1.1\r\nHo";
    assert_int_equal(one_shot(&f, head, strlen(head), &in), 408);
    const char *body = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel";
    assert_int_equal(one_shot(&f, body, strlen(body), &in), 408);

    /* A head is not saved by coming byte by byte: its time counts from the first. */
    struct inbox drip = {0};
    int fd = client_new(&f);
    client_say(&f, fd, "GET / HTTP/1.1\r\n");
    uint64_t until = uv_hrtime() + PATIENCE_MS * 1000000ull;
    while (drip.end == 0 && uv_hrtime() < until) {
        send(fd, "x", 1, MSG_NOSIGNAL);
        read_some(&f, fd, &drip);
        wait_readable(fd);
    }
    assert_int_equal(status_of(&drip), 408);
    close(fd);
    assert_int_equal(f.seen, 0);
    struct mp__http_stats stats;
    mp__http_server_stats(f.server, &stats);
    assert_int_equal(stats.timeouts, 3);
    fixture_end(&f);
}

static void idle_connections_are_closed_silently(void **state)
{
    (void)state;
    struct fixture f;
    struct inbox in = {0};
    fixture_init(&f);
    f.config.idle_timeout = 0.03;
    fixture_start(&f, echo);
    int fresh = client_new(&f);
    read_to_end(&f, fresh, &in);
    assert_int_equal(in.end, 1);
    assert_int_equal(in.n, 0);
    close(fresh);
    memset(&in, 0, sizeof(in));
    int used = client_new(&f);
    client_say(&f, used, GET);
    read_to_end(&f, used, &in);
    assert_int_equal(in.end, 1);
    assert_int_equal(count_of(in.p, "HTTP/1.1 "), 1);
    close(used);
    fixture_end(&f);
}

static void a_working_handler_has_no_time_limit(void **state)
{
    (void)state;
    struct fixture f;
    struct inbox in = {0};
    fixture_init(&f);
    f.config.idle_timeout = f.config.header_timeout = f.config.body_timeout = 0.01;
    fixture_start(&f, park);
    int fd = client_new(&f);
    client_say(&f, fd, GET);
    WAIT_FOR(&f, f.parked != NULL);
    uint64_t until = uv_hrtime() + 50 * 1000000ull;
    WAIT_FOR(&f, uv_hrtime() > until);
    assert_int_equal(f.gone, 0);
    mp__http_reply(f.parked, 200, NULL, 0, "late", 4);
    read_until(&f, fd, &in, "late");
    close(fd);
    fixture_end(&f);
}

static void a_client_that_leaves_is_noticed(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f);
    fixture_start(&f, park);
    for (int how = 0; how < 2; how++) {
        int fd = client_new(&f);
        client_say(&f, fd, GET);
        WAIT_FOR(&f, f.parked != NULL);
        struct linger hard = {1, 0};
        if (how == 1)
            setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
        close(fd);
        WAIT_FOR(&f, f.gone == how + 1);
    }
    struct mp__http_stats stats;
    WAIT_FOR(&f, (mp__http_server_stats(f.server, &stats), stats.open == 0));
    assert_int_equal(stats.gone, 2);
    assert_int_equal(stats.working, 0);
    fixture_end(&f);
}

static void note_only(struct mp__http_request *req)
{
    ((struct fixture *)req->data)->gone++;
}

/* One who half-closes still wants the reply, and a handler that does not mind leaving gives it. */
static void a_half_closed_client_can_be_answered(void **state)
{
    (void)state;
    struct fixture f;
    struct inbox in = {0};
    fixture_init(&f);
    fixture_start(&f, park);
    int fd = client_new(&f);
    client_say(&f, fd, GET);
    WAIT_FOR(&f, f.parked != NULL);
    f.parked->on_gone = note_only;
    shutdown(fd, SHUT_WR);
    WAIT_FOR(&f, f.gone == 1);
    mp__http_reply(f.parked, 200, NULL, 0, "still", 5);
    read_to_end(&f, fd, &in);
    assert_non_null(strstr(in.p, "still"));
    assert_int_equal(in.end, 1);
    close(fd);
    fixture_end(&f);
}

/* The request outlives its connection until the handler lets go. */
static void replying_after_a_reset_is_harmless(void **state)
{
    (void)state;
    struct fixture f;
    struct mp__http_stats stats;
    fixture_init(&f);
    fixture_start(&f, park);
    for (int kind = 0; kind < 3; kind++) {
        int fd = client_new(&f);
        client_say(&f, fd, "POST /kept HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
        WAIT_FOR(&f, f.parked != NULL);
        f.parked->on_gone = note_only;
        struct linger hard = {1, 0};
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
        close(fd);
        WAIT_FOR(&f, (mp__http_server_stats(f.server, &stats), stats.open == 0));
        assert_string_equal(f.parked->path, "/kept");
        assert_string_equal(f.parked->body, "hi");
        if (kind == 0) {
            assert_int_equal(mp__http_reply(f.parked, 200, NULL, 0, "x", 1), UV_ECANCELED);
        } else if (kind == 1) {
            assert_int_equal(mp__http_start(f.parked, 200, NULL, 0), UV_ECANCELED);
            assert_true(mp__http_write(f.parked, "x", 1) < 0);
            mp__http_end(f.parked);
        } else {
            struct mp__http_fault fault = {.cut = SIZE_MAX};
            assert_int_equal(mp__http_reply_fault(f.parked, 200, NULL, 0, "x", 1, &fault),
                             UV_ECANCELED);
        }
        f.parked = NULL;
        mp__http_server_stats(f.server, &stats);
        assert_int_equal(stats.working, 0);
    }
    assert_int_equal(f.gone, 3);
    fixture_end(&f);
}

static void many_connections_at_once(void **state)
{
    (void)state;
    enum { MANY = 300 };
    struct fixture f;
    struct mp__http_stats stats;
    int fds[MANY];
    fixture_init(&f);
    fixture_start(&f, echo);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < MANY; i++) {
            fds[i] = client_new(&f);
            turn(&f);
        }
        for (int i = 0; i < MANY; i++)
            client_say(&f, fds[i], GET);
        for (int i = 0; i < MANY; i++) {
            struct inbox in = {0};
            read_until(&f, fds[i], &in, "GET /a?- 1[]");
        }
        mp__http_server_stats(f.server, &stats);
        assert_int_equal(stats.open, MANY);
        for (int i = 0; i < MANY; i++)
            close(fds[i]);
        WAIT_FOR(&f, (mp__http_server_stats(f.server, &stats), stats.open == 0));
    }
    assert_int_equal(f.seen, 3 * MANY);
    fixture_end(&f);
}

static void beyond_the_limit_clients_are_told_503(void **state)
{
    (void)state;
    struct fixture f;
    struct mp__http_stats stats;
    struct inbox in = {0};
    int fds[3];
    fixture_init(&f);
    f.config.max_connections = 3;
    fixture_start(&f, echo);
    for (int i = 0; i < 3; i++) {
        fds[i] = client_new(&f);
        client_say(&f, fds[i], "GET / HT"); /* not idle */
    }
    WAIT_FOR(&f, (mp__http_server_stats(f.server, &stats), stats.bytes_in == 24));
    assert_int_equal(one_shot(&f, GET, strlen(GET), &in), 503);
    assert_int_equal(in.end, 1);
    client_say(&f, fds[0], GET + strlen("GET / HT"));
    memset(&in, 0, sizeof(in));
    read_until(&f, fds[0], &in, "[]");
    close(fds[1]);
    WAIT_FOR(&f, (mp__http_server_stats(f.server, &stats), stats.open == 2));
    assert_int_equal(stats.refused, 1);
    const char *last = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    assert_int_equal(one_shot(&f, last, strlen(last), &in), 200);
    close(fds[0]);
    close(fds[2]);
    fixture_end(&f);
}

static void the_oldest_idle_connection_makes_room(void **state)
{
    (void)state;
    struct fixture f;
    struct mp__http_stats stats;
    struct inbox in = {0}, gone = {0};
    int fds[3];
    fixture_init(&f);
    f.config.max_connections = 3;
    fixture_start(&f, echo);
    for (int i = 0; i < 3; i++) {
        fds[i] = client_new(&f);
        client_say(&f, fds[i], GET);
        memset(&in, 0, sizeof(in));
        read_until(&f, fds[i], &in, "[]");
    }
    client_say(&f, fds[0], GET); /* the second is now the oldest */
    memset(&in, 0, sizeof(in));
    read_until(&f, fds[0], &in, "[]");
    int fourth = client_new(&f);
    client_say(&f, fourth, GET);
    memset(&in, 0, sizeof(in));
    read_until(&f, fourth, &in, "[]");
    read_to_end(&f, fds[1], &gone);
    assert_int_equal(gone.n, 0);
    mp__http_server_stats(f.server, &stats);
    assert_int_equal(stats.refused, 0);
    for (int i = 0; i < 3; i++)
        close(fds[i]);
    close(fourth);
    fixture_end(&f);
}

/* With "Connection: close" or in one breath with its request, as nc -N does it. */
static void who_sends_no_more_waits_for_the_reply(void **state)
{
    (void)state;
    static const char *const requests[] = {"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
                                           "GET / HTTP/1.0\r\n\r\n", GET};
    struct fixture f;
    fixture_init(&f);
    fixture_start(&f, park);
    for (int i = 0; i < 3; i++) {
        struct inbox in = {0};
        int fd = client_new(&f);
        client_say(&f, fd, requests[i]);
        shutdown(fd, SHUT_WR);
        WAIT_FOR(&f, f.parked != NULL);
        for (int turn = 0; turn < 20; turn++)
            uv_run(&f.loop, UV_RUN_NOWAIT);
        assert_int_equal(f.gone, 0);
        mp__http_reply(f.parked, 200, NULL, 0, "patience", 8);
        f.parked = NULL;
        read_to_end(&f, fd, &in);
        assert_non_null(strstr(in.p, "patience"));
        close(fd);
    }
    fixture_end(&f);
}

/* A byte now and then keeps the pause short, but not the body. */
static void a_body_has_a_total_time(void **state)
{
    (void)state;
    struct fixture f;
    struct inbox in = {0};
    fixture_init(&f);
    f.config.total_body_timeout = 0.02;
    fixture_start(&f, echo);
    int fd = client_new(&f);
    client_say(&f, fd, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n");
    uint64_t until = uv_hrtime() + 30 * 1000000ull;
    WAIT_FOR(&f, uv_hrtime() > until);
    client_say(&f, fd, "x");
    read_to_end(&f, fd, &in);
    assert_non_null(strstr(in.p, "408"));
    close(fd);
    fixture_end(&f);
}

static void stop_lets_open_requests_finish(void **state)
{
    (void)state;
    struct fixture f;
    struct mp__http_stats stats;
    struct inbox in = {0}, idle_in = {0};
    fixture_init(&f);
    fixture_start(&f, park);
    int idle = client_new(&f);
    int fd = client_new(&f);
    client_say(&f, fd, GET);
    WAIT_FOR(&f, f.parked != NULL);
    mp__http_server_stop(f.server);
    read_to_end(&f, idle, &idle_in);
    assert_int_equal(idle_in.n, 0);
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)mp__http_server_port(f.server)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    turn(&f);
    int late = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(late, (struct sockaddr *)&to, sizeof(to)), -1);
    close(late);
    mp__http_reply(f.parked, 200, NULL, 0, "done", 4);
    read_to_end(&f, fd, &in);
    assert_non_null(strstr(in.p, "done"));
    assert_non_null(strstr(in.p, "connection: close"));
    WAIT_FOR(&f, (mp__http_server_stats(f.server, &stats), stats.open == 0));
    close(fd);
    close(idle);
    fixture_end(&f);
}

static void close_tells_handlers_and_waits_for_them(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f);
    fixture_start(&f, park);
    int fd = client_new(&f);
    client_say(&f, fd, GET);
    WAIT_FOR(&f, f.parked != NULL);
    f.parked->on_gone = note_only;
    mp__http_server_close(f.server, note_closed, &f);
    assert_int_equal(f.gone, 1);
    uv_run(&f.loop, UV_RUN_DEFAULT);
    assert_int_equal(f.closed, 0); /* the handler still holds a request */
    assert_string_equal(f.parked->path, "/a");
    mp__http_abort(f.parked);
    assert_int_equal(f.closed, 1);
    close(fd);
    assert_int_equal(uv_loop_close(&f.loop), 0);
    assert_int_equal(count_fds(), f.fds);
}

static int unix_client(const char *path)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    snprintf(to.sun_path, sizeof(to.sun_path), "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

static void unix_sockets_and_a_stale_file(void **state)
{
    (void)state;
    struct fixture f;
    struct inbox in = {0};
    char dir[] = "/tmp/mp-http-XXXXXX", address[64];
    assert_non_null(mkdtemp(dir));
    snprintf(address, sizeof(address), "unix:%s/s", dir);
    const char *path = address + 5;
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    snprintf(at.sun_path, sizeof(at.sun_path), "%s", path);
    int dead = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(dead, (struct sockaddr *)&at, sizeof(at)), 0);
    close(dead);

    fixture_init(&f);
    f.config.on_request = echo;
    fixture_listen(&f, address);
    assert_string_equal(mp__http_server_url(f.server), address);
    assert_int_equal(mp__http_server_port(f.server), 0);
    int fd = unix_client(path);
    client_say(&f, fd, GET);
    read_until(&f, fd, &in, "GET /a?- 1[]");

    /* A living listener's file is not taken away. */
    struct mp__http_server *second;
    assert_int_equal(mp__http_server_new(&f.loop, &f.config, &second), 0);
    assert_int_equal(mp__http_server_listen(second, address), UV_EADDRINUSE);
    mp__http_server_close(second, NULL, NULL);
    close(fd);
    fixture_end(&f);
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(rmdir(dir), 0);
}

static void addresses(void **state)
{
    (void)state;
    static const struct {
        const char *address;
        int ok;
    } cases[] = {
        {"127.0.0.1:0", 1},
        {":0", 1},
        {"localhost:0", 1},
        {"127.0.0.1", 0},
        {"127.0.0.1:x", 0},
        {"1.2.3.4.5:0", 0},
        {"127.0.0.1:70000", 0},
        {"unix:", 0},
        {"", 0},
        {"127.0.0.1:", 0},
        {"unix:/no/such/dir", 0},
    };
    struct fixture f;
    fixture_init(&f);
    f.config.on_request = echo;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct mp__http_server *s;
        assert_int_equal(mp__http_server_new(&f.loop, &f.config, &s), 0);
        int err = mp__http_server_listen(s, cases[i].address);
        assert_int_equal(err == 0, cases[i].ok);
        if (err == 0) {
            assert_true(mp__http_server_port(s) > 0);
            assert_int_equal(strncmp(mp__http_server_url(s), "http://", 7), 0);
        }
        mp__http_server_close(s, NULL, NULL);
        uv_run(&f.loop, UV_RUN_DEFAULT);
    }
    assert_int_equal(uv_loop_close(&f.loop), 0);
    assert_int_equal(count_fds(), f.fds);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_connection_serves_many_requests),
        cmocka_unit_test(close_and_http_1_0_end_the_connection),
        cmocka_unit_test(slow_senders_get_408),
        cmocka_unit_test(idle_connections_are_closed_silently),
        cmocka_unit_test(a_working_handler_has_no_time_limit),
        cmocka_unit_test(a_client_that_leaves_is_noticed),
        cmocka_unit_test(a_half_closed_client_can_be_answered),
        cmocka_unit_test(replying_after_a_reset_is_harmless),
        cmocka_unit_test(many_connections_at_once),
        cmocka_unit_test(beyond_the_limit_clients_are_told_503),
        cmocka_unit_test(the_oldest_idle_connection_makes_room),
        cmocka_unit_test(who_sends_no_more_waits_for_the_reply),
        cmocka_unit_test(a_body_has_a_total_time),
        cmocka_unit_test(stop_lets_open_requests_finish),
        cmocka_unit_test(close_tells_handlers_and_waits_for_them),
        cmocka_unit_test(unix_sockets_and_a_stale_file),
        cmocka_unit_test(addresses),
    };
    return cmocka_run_group_tests_name("http_conn", tests, NULL, NULL);
}

/* http_util.h - a server and raw clients in one thread, for the tests of the HTTP server. */
#ifndef HTTP_UTIL_H
#define HTTP_UTIL_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "http/http.h"

/* Guards a hang only. */
#define PATIENCE_MS 20000

struct fixture {
    uv_loop_t loop;
    struct mp__http_server *server;
    struct mp__http_config config;
    struct mp__http_request *parked; /* taken by the parking handler */
    int seen;
    int gone;
    int closed;
    int fds;
    char log[8192]; /* what handlers saw */
};

static inline int count_fds(void)
{
    int n = 0;
    DIR *d = opendir("/proc/self/fd");
    while (readdir(d) != NULL)
        n++;
    closedir(d);
    return n;
}

static inline void fixture_init(struct fixture *f)
{
    memset(f, 0, sizeof(*f));
    uv_loop_t first; /* libuv's own two descriptors of a process come with the first loop */
    assert_int_equal(uv_loop_init(&first), 0);
    assert_int_equal(uv_loop_close(&first), 0);
    f->fds = count_fds();
    assert_int_equal(uv_loop_init(&f->loop), 0);
    f->config.arg = f;
}

static inline void fixture_listen(struct fixture *f, const char *address)
{
    assert_int_equal(mp__http_server_new(&f->loop, &f->config, &f->server), 0);
    assert_int_equal(mp__http_server_listen(f->server, address), 0);
}

static inline void fixture_start(struct fixture *f,
                                 void (*on_request)(struct mp__http_request *, void *))
{
    f->config.on_request = on_request;
    fixture_listen(f, "127.0.0.1:0");
}

static inline void note_closed(void *arg)
{
    ((struct fixture *)arg)->closed++;
}

/* Everything must be gone: handles, memory (the sanitizer looks), descriptors. */
static inline void fixture_end(struct fixture *f)
{
    mp__http_server_close(f->server, note_closed, f);
    uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(f->closed, 1);
    assert_int_equal(uv_loop_close(&f->loop), 0);
    assert_int_equal(count_fds(), f->fds);
}

/* ---- client ---- */

static inline int client_new(struct fixture *f)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)mp__http_server_port(f->server)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

static inline void turn(struct fixture *f)
{
    uv_run(&f->loop, UV_RUN_NOWAIT);
}

static inline void client_send(struct fixture *f, int fd, const char *p, size_t n)
{
    while (n > 0) {
        ssize_t k = send(fd, p, n, MSG_NOSIGNAL);
        if (k > 0) {
            p += k;
            n -= (size_t)k;
        } else if (errno != EAGAIN) {
            return; /* the server hung up on us; the reply tells */
        }
        turn(f);
    }
}

static inline void client_say(struct fixture *f, int fd, const char *text)
{
    client_send(f, fd, text, strlen(text));
}

/* Reads what comes until `stop` says so, the peer ends (-> 0) or resets (-> -errno). */
struct inbox {
    char p[1 << 16];
    size_t n;
    int end; /* 1: orderly end, < 0: -errno, 0: still open */
};

static inline int read_some(struct fixture *f, int fd, struct inbox *in)
{
    turn(f);
    ssize_t k = recv(fd, in->p + in->n, sizeof(in->p) - 1 - in->n, 0);
    if (k > 0)
        in->n += (size_t)k;
    else if (k == 0)
        in->end = 1;
    else if (errno != EAGAIN)
        in->end = -errno;
    in->p[in->n] = '\0';
    return in->end == 0;
}

static inline void wait_readable(int fd)
{
    struct pollfd pfd = {.fd = fd, .events = POLLIN};
    poll(&pfd, 1, 1);
}

#define WAIT_FOR(f, condition)                                                                     \
    do {                                                                                           \
        uint64_t until_ = uv_hrtime() + PATIENCE_MS * 1000000ull;                                  \
        while (!(condition)) {                                                                     \
            turn(f);                                                                               \
            assert_true(uv_hrtime() < until_);                                                     \
        }                                                                                          \
    } while (0)

static inline void read_until(struct fixture *f, int fd, struct inbox *in, const char *text)
{
    uint64_t until = uv_hrtime() + PATIENCE_MS * 1000000ull;
    in->p[in->n] = '\0';
    while (in->end == 0 && (text == NULL || strstr(in->p, text) == NULL)) {
        if (read_some(f, fd, in) && (text == NULL || strstr(in->p, text) == NULL))
            wait_readable(fd);
        assert_true(uv_hrtime() < until);
    }
}

static inline void read_to_end(struct fixture *f, int fd, struct inbox *in)
{
    read_until(f, fd, in, NULL);
}

static inline int count_of(const char *in, const char *what)
{
    int n = 0;
    for (const char *p = strstr(in, what); p != NULL; p = strstr(p + 1, what))
        n++;
    return n;
}

static inline int status_of(const struct inbox *in)
{
    int status = 0;
    if (sscanf(in->p, "HTTP/1.1 %d ", &status) != 1)
        return 0;
    return status;
}

/* One connection, these bytes, everything until the server hangs up. */
static inline int one_shot(struct fixture *f, const char *bytes, size_t n, struct inbox *in)
{
    memset(in, 0, sizeof(*in));
    int fd = client_new(f);
    client_send(f, fd, bytes, n);
    read_to_end(f, fd, in);
    close(fd);
    return status_of(in);
}

/* ---- handlers ---- */

/* Echoes what it understood, and writes it to the log. */
static inline void echo(struct mp__http_request *req, void *arg)
{
    struct fixture *f = arg;
    char out[4096];
    int n = snprintf(out, sizeof(out), "%s %s?%s %zu[%.*s]", req->method, req->path,
                     req->query != NULL ? req->query : "-", req->nheaders,
                     (int)(req->body_len < 1000 ? req->body_len : 1000), req->body);
    f->seen++;
    snprintf(f->log, sizeof(f->log), "%s", out);
    mp__http_reply(req, 200, NULL, 0, out, (size_t)n);
}

static inline void note_gone(struct mp__http_request *req)
{
    struct fixture *f = req->data;
    f->gone++;
    f->parked = NULL;
    mp__http_abort(req);
}

/* Keeps the request for the test to answer. */
static inline void park(struct mp__http_request *req, void *arg)
{
    struct fixture *f = arg;
    f->seen++;
    f->parked = req;
    req->data = f;
    req->on_gone = note_gone;
}

#endif

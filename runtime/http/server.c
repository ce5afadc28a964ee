/* server.c - the listener, the one timer behind every time-out, and the end of the server. */
#include "http/internal.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG 4096

/* ---- clocks ---- */

static void timer_cb(uv_timer_t *t);

static void timer_arm(struct mp__http_server *s)
{
    uint64_t at = UINT64_MAX;
    for (int k = 0; k < MP__C_COUNT; k++) {
        if (mp__list_empty(&s->clocks[k]))
            continue;
        uint64_t end = MP__ENTRY(s->clocks[k].next, struct mp__conn, clock)->since + s->clock_ms[k];
        if (end < at)
            at = end;
    }
    s->timer_at = at == UINT64_MAX ? 0 : at;
    if (s->timer_at == 0 || s->closing)
        return;
    uint64_t now = uv_now(s->loop);
    uv_timer_start(&s->timer, timer_cb, at > now ? at - now : 1, 0);
}

static void timer_cb(uv_timer_t *t)
{
    struct mp__http_server *s = t->data;
    uint64_t now = uv_now(s->loop);
    for (int k = 0; k < MP__C_COUNT; k++) {
        while (!mp__list_empty(&s->clocks[k])) {
            struct mp__conn *c = MP__ENTRY(s->clocks[k].next, struct mp__conn, clock);
            if (c->since + s->clock_ms[k] > now)
                break;
            mp__conn_expired(c);
        }
    }
    timer_arm(s);
}

void mp__server_clock(struct mp__conn *c, enum mp__clock kind)
{
    struct mp__http_server *s = c->server;
    mp__list_remove(&c->clock);
    c->clock_kind = (uint8_t)kind;
    if (kind == MP__C_NONE)
        return;
    c->since = uv_now(s->loop);
    mp__list_push(&s->clocks[kind], &c->clock);
    /* A timer that fires too early only looks again; it must never fire too late. */
    if (s->timer_at == 0 || c->since + s->clock_ms[kind] < s->timer_at)
        timer_arm(s);
}

/* ---- making ---- */

static void defaults(struct mp__http_config *c)
{
    c->max_head = c->max_head != 0 ? c->max_head : 65536;
    c->max_headers = c->max_headers != 0 ? c->max_headers : 100;
    c->max_body = c->max_body != 0 ? c->max_body : (size_t)64 << 20;
    c->max_connections = c->max_connections != 0 ? c->max_connections : 4096;
    c->high_water = c->high_water != 0 ? c->high_water : 262144;
    c->header_timeout = c->header_timeout > 0 ? c->header_timeout : 10;
    c->body_timeout = c->body_timeout > 0 ? c->body_timeout : 30;
    c->total_body_timeout = c->total_body_timeout > 0 ? c->total_body_timeout : 300;
    c->idle_timeout = c->idle_timeout > 0 ? c->idle_timeout : 75;
    c->write_timeout = c->write_timeout > 0 ? c->write_timeout : 60;
}

static uint64_t to_ms(double seconds)
{
    if (seconds > 1e9)
        return UINT64_C(1000000000000);
    uint64_t ms = (uint64_t)(seconds * 1000);
    return ms > 0 ? ms : 1;
}

static void ignore_sigpipe(void)
{
    struct sigaction now;
    if (sigaction(SIGPIPE, NULL, &now) != 0 || now.sa_handler != SIG_DFL)
        return;
    now.sa_handler = SIG_IGN;
    sigaction(SIGPIPE, &now, NULL);
}

int mp__http_server_new(uv_loop_t *loop, const struct mp__http_config *config,
                        struct mp__http_server **out)
{
    if (config->on_request == NULL)
        return UV_EINVAL;
    struct mp__http_server *s = calloc(1, sizeof(*s));
    if (s == NULL)
        return UV_ENOMEM;
    s->loop = loop;
    s->config = *config;
    defaults(&s->config);
    s->clock_ms[MP__C_IDLE] = to_ms(s->config.idle_timeout);
    s->clock_ms[MP__C_HEAD] = to_ms(s->config.header_timeout);
    s->clock_ms[MP__C_BODY] = to_ms(s->config.body_timeout);
    s->clock_ms[MP__C_WRITE] = to_ms(s->config.write_timeout);
    s->clock_ms[MP__C_LINGER] = 2000;
    mp__list_init(&s->conns);
    mp__list_init(&s->spare);
    for (int k = 0; k < MP__C_COUNT; k++)
        mp__list_init(&s->clocks[k]);
    mp__parse_settings(&s->settings);
    s->reserve = mp__conn_new(s);
    if (s->reserve == NULL) {
        free(s);
        return UV_ENOMEM;
    }
    ignore_sigpipe();
    uv_timer_init(loop, &s->timer);
    uv_unref((uv_handle_t *)&s->timer); /* what it guards keeps the loop alive */
    s->timer.data = s;
    s->handles = 1;
    *out = s;
    return 0;
}

/* ---- listening ---- */

static void connection_cb(uv_stream_t *stream, int status)
{
    if (status == 0)
        mp__conn_accept(stream->data);
}

static int split_address(const char *address, char *host, size_t host_size, char *port,
                         size_t port_size)
{
    const char *colon = strrchr(address, ':');
    if (colon == NULL || colon[1] == '\0' || strspn(colon + 1, "0123456789") != strlen(colon + 1))
        return UV_EINVAL;
    const char *from = address;
    const char *to = colon;
    if (*from == '[' && to > from + 1 && to[-1] == ']') {
        from++;
        to--;
    }
    size_t n = (size_t)(to - from);
    if (n >= host_size || strlen(colon + 1) >= port_size || strtol(colon + 1, NULL, 10) > 65535)
        return UV_EINVAL;
    snprintf(host, host_size, "%.*s", (int)n, from);
    snprintf(port, port_size, "%s", colon + 1);
    return 0;
}

static void note_bound_port(struct mp__http_server *s, const char *host)
{
    struct sockaddr_storage at;
    int len = (int)sizeof(at);
    char port[8] = "0";
    if (uv_tcp_getsockname(&s->uv.tcp, (struct sockaddr *)&at, &len) == 0)
        getnameinfo((struct sockaddr *)&at, (socklen_t)len, NULL, 0, port, sizeof(port),
                    NI_NUMERICSERV);
    s->port = (int)strtol(port, NULL, 10);
    int v6 = strchr(host, ':') != NULL;
    snprintf(s->url, sizeof(s->url), "http://%s%s%s:%d", v6 ? "[" : "", host, v6 ? "]" : "",
             s->port);
}

/* The kernel spreads new connections over all sockets that said so before they were bound. */
static int share_port(uv_handle_t *handle)
{
    uv_os_fd_t fd;
    int on = 1;
    int err = uv_fileno(handle, &fd);
    if (err == 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) != 0)
        err = uv_translate_sys_error(errno);
    return err;
}

static int listen_tcp(struct mp__http_server *s, const char *address)
{
    char host[100], port[8];
    int err = split_address(address, host, sizeof(host), port, sizeof(port));
    if (err != 0)
        return err;
    if (host[0] == '\0')
        snprintf(host, sizeof(host), "127.0.0.1");
    uv_getaddrinfo_t find;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    err = uv_getaddrinfo(s->loop, &find, NULL, host, port, &hints);
    if (err != 0)
        return err;
    uv_tcp_init_ex(s->loop, &s->uv.tcp, (unsigned int)find.addrinfo->ai_family);
    s->listening = 1;
    s->handles++;
    err = s->config.reuse_port ? share_port(&s->uv.handle) : 0;
    if (err == 0)
        err = uv_tcp_bind(&s->uv.tcp, find.addrinfo->ai_addr, 0);
    uv_freeaddrinfo(find.addrinfo);
    s->uv.stream.data = s;
    if (err == 0)
        err = uv_listen(&s->uv.stream, BACKLOG, connection_cb);
    if (err == 0)
        note_bound_port(s, host);
    return err;
}

/* A socket file left by a dead process refuses connections; only then may it go. */
static void remove_stale_socket(const char *path)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    memcpy(to.sun_path, path, strlen(path));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return;
    if (connect(fd, (const struct sockaddr *)&to, sizeof(to)) != 0 && errno == ECONNREFUSED)
        unlink(path);
    close(fd);
}

static int listen_unix(struct mp__http_server *s, const char *path)
{
    struct sockaddr_un at;
    if (path[0] == '\0' || strlen(path) >= sizeof(at.sun_path))
        return path[0] == '\0' ? UV_EINVAL : UV_ENAMETOOLONG; /* libuv would cut it silently */
    remove_stale_socket(path);
    uv_pipe_init(s->loop, &s->uv.pipe, 0);
    s->listening = 1;
    s->handles++;
    s->uv.stream.data = s;
    int err = uv_pipe_bind(&s->uv.pipe, path);
    if (err == 0)
        err = uv_listen(&s->uv.stream, BACKLOG, connection_cb);
    if (err == 0)
        snprintf(s->url, sizeof(s->url), "unix:%s", path);
    return err;
}

static void listener_closed(uv_handle_t *h)
{
    struct mp__http_server *s = h->data;
    s->handles--;
    mp__server_released(s);
}

static void listener_close(struct mp__http_server *s)
{
    if (!s->listening)
        return;
    s->listening = 0;
    s->uv.handle.data = s;
    uv_close(&s->uv.handle, listener_closed);
}

int mp__http_server_listen(struct mp__http_server *s, const char *address)
{
    if (s->listening || s->stopping || s->url[0] != '\0')
        return UV_EALREADY;
    s->is_tcp = strncmp(address, "unix:", 5) != 0;
    int err = s->is_tcp ? listen_tcp(s, address) : listen_unix(s, address + 5);
    if (err != 0 && s->listening) {
        s->stopping = 1; /* the handle is used up: such a server can only be closed */
        listener_close(s);
    }
    return err;
}

int mp__http_server_port(const struct mp__http_server *s)
{
    return s->port;
}

const char *mp__http_server_url(const struct mp__http_server *s)
{
    return s->url;
}

void mp__http_server_stats(const struct mp__http_server *s, struct mp__http_stats *out)
{
    *out = s->stats;
}

/* ---- the end ---- */

void mp__http_server_stop(struct mp__http_server *s)
{
    s->stopping = 1;
    listener_close(s);
    for (struct mp__link *l = s->conns.next; l != &s->conns;) {
        struct mp__conn *c = MP__ENTRY(l, struct mp__conn, all);
        l = l->next;
        c->keep_alive = 0;
        if (c->state == MP__S_IDLE)
            mp__conn_close(c);
    }
}

static void timer_closed(uv_handle_t *h)
{
    struct mp__http_server *s = h->data;
    s->handles--;
    mp__server_released(s);
}

void mp__http_server_close(struct mp__http_server *s, void (*cb)(void *arg), void *arg)
{
    if (s->closing)
        return;
    mp__http_server_stop(s);
    s->closing = 1;
    s->close_cb = cb;
    s->close_arg = arg;
    for (struct mp__link *l = s->conns.next; l != &s->conns;) {
        struct mp__conn *c = MP__ENTRY(l, struct mp__conn, all);
        l = l->next;
        mp__conn_close(c);
        mp__conn_gone(c);
    }
    uv_close((uv_handle_t *)&s->timer, timer_closed);
}

int mp__http_server_quiet(const struct mp__http_server *s)
{
    return s->stats.working == 0 && s->writing == 0;
}

void mp__server_quiet(struct mp__http_server *s)
{
    if (s->stopping && s->config.on_quiet != NULL && mp__http_server_quiet(s))
        s->config.on_quiet(s->config.arg);
}

void mp__server_released(struct mp__http_server *s)
{
    if (!s->closing || s->handles > 0 || s->stats.working > 0)
        return;
    if (s->reserve != NULL)
        mp__conn_free(s->reserve);
    while (!mp__list_empty(&s->spare))
        mp__conn_free(MP__ENTRY(mp__list_shift(&s->spare), struct mp__conn, all));
    void (*cb)(void *) = s->close_cb;
    void *arg = s->close_arg;
    mp__buf_trim(&s->scratch, 0);
    free(s);
    if (cb != NULL)
        cb(arg);
}

/*
 * socket.c - libuv watchers for curl's sockets.
 *
 * The rules that keep this small and fast:
 *  - a socket that curl opened through us keeps one watcher until curl closes the socket; REMOVE
 *    only marks it idle, and an event on an idle one stops it;
 *  - libuv stops a watcher on an error without telling curl, so a live one is started again;
 *  - curl 7.88 closes a socket that still connects without a word when its transfer is removed, and
 *    libuv aborts on a watcher of a closed descriptor: those watchers go before the transfer does;
 *  - neither callback ever returns -1: that would kill the multi handle for good.
 */
#include "engine/transport/internal.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct mp__socket *by_fd(const struct mp__transport *t, curl_socket_t fd)
{
    return fd >= 0 && (size_t)fd < t->by_fd_cap ? t->by_fd[fd] : NULL;
}

static int remember(struct mp__transport *t, curl_socket_t fd, struct mp__socket *s)
{
    if ((size_t)fd >= t->by_fd_cap) {
        size_t cap = t->by_fd_cap ? t->by_fd_cap : 64;
        while (cap <= (size_t)fd)
            cap *= 2;
        struct mp__socket **p = realloc(t->by_fd, cap * sizeof(*p));
        if (p == NULL)
            return MP_ENOMEM;
        memset(p + t->by_fd_cap, 0, (cap - t->by_fd_cap) * sizeof(*p));
        t->by_fd = p;
        t->by_fd_cap = cap;
    }
    t->by_fd[fd] = s;
    return 0;
}

static void on_poll(uv_poll_t *poll, int status, int events);

static void arm(struct mp__socket *s, int events)
{
    if (s->armed == events)
        return;
    if (events == 0)
        uv_poll_stop(&s->poll);
    else if (uv_poll_start(&s->poll, events, on_poll) != 0)
        events = 0; /* curl's own timeouts end the transfer */
    s->armed = events;
    if (s->lane->t->live)
        uv_ref((uv_handle_t *)&s->poll);
    else
        uv_unref((uv_handle_t *)&s->poll);
}

void mp__socket_rest(struct mp__socket *s, int events)
{
    arm(s, events);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct mp__socket *s = poll->data;
    struct mp__lane *lane = s->lane;
    curl_socket_t fd = s->fd;
    int flags = 0;

    if (status < 0) {
        /* libuv stopped the watcher. Told of an error, curl before 8 drops the reply that came ahead
         * of it (a 413 and a reset); told that it may read, it meets both in their order. */
        s->armed = 0;
        flags = CURL_CSELECT_IN | CURL_CSELECT_OUT;
    }
    if (s->want == 0) {
        mp__idle_event(s);
        return;
    }
    if (events & UV_READABLE)
        flags |= CURL_CSELECT_IN;
    if (events & UV_WRITABLE)
        flags |= CURL_CSELECT_OUT;
    mp__lane_action(lane, fd, flags);
    if (status < 0 && by_fd(lane->t, fd) == s && s->want != 0)
        arm(s, s->want);
}

static struct mp__socket *socket_new(struct mp__lane *lane, curl_socket_t fd, int ours)
{
    struct mp__socket *s = calloc(1, sizeof(*s));
    if (s == NULL)
        return NULL;
    s->lane = lane;
    s->fd = fd;
    s->ours = ours ? 1 : 0;
    s->opened_at = uv_now(lane->t->loop);
    if (remember(lane->t, fd, s) != 0 || uv_poll_init(lane->t->loop, &s->poll, fd) != 0) {
        if ((size_t)fd < lane->t->by_fd_cap)
            lane->t->by_fd[fd] = NULL;
        free(s);
        return NULL;
    }
    s->poll.data = s;
    lane->t->handles_open++;
    return s;
}

static void on_closed(uv_handle_t *handle)
{
    struct mp__socket *s = handle->data;
    struct mp__transport *t = s->lane->t;
    free(s);
    mp__transport_handle_closed(t);
}

void mp__socket_release(struct mp__transport *t, struct mp__socket *s)
{
    if (s->closing)
        return;
    s->closing = 1;
    mp__idle_closed(t, s);
    mp__list_remove(&s->connecting);
    t->by_fd[s->fd] = NULL;
    uv_poll_stop(&s->poll);
    uv_close((uv_handle_t *)&s->poll, on_closed);
}

int mp__socket_cb(CURL *easy, curl_socket_t fd, int what, void *lanep, void *sockp)
{
    struct mp__lane *lane = lanep;
    struct mp__socket *s = by_fd(lane->t, fd);
    (void)easy;
    (void)sockp;

    if (what == CURL_POLL_REMOVE) {
        if (s != NULL && !s->ours) {
            mp__socket_release(lane->t, s);
        } else if (s != NULL) {
            s->want = 0;
            mp__idle_add(lane->t, s);
        }
        return 0;
    }
    if (s == NULL)
        s = socket_new(lane, fd, 0); /* the resolver's pipe */
    if (s == NULL)
        return 0;
    mp__idle_remove(lane->t, s);
    s->want = (what & CURL_POLL_IN ? UV_READABLE : 0) | (what & CURL_POLL_OUT ? UV_WRITABLE : 0);
    arm(s, s->want);
    return 0;
}

static void count_closed(struct mp__transport *t, const struct mp__socket *s)
{
    t->n.ports -= s->has_port;
    if (t->n.open > 0)
        t->n.open--;
    t->n.closed++;
}

void mp__sockets_connected(struct mp__handle *h)
{
    while (!mp__list_empty(&h->connecting))
        mp__list_remove(h->connecting.next);
}

void mp__sockets_abandon(struct mp__handle *h)
{
    while (!mp__list_empty(&h->connecting)) {
        struct mp__socket *s = MP__ENTRY(h->connecting.next, struct mp__socket, connecting);
        count_closed(s->lane->t, s);
        mp__socket_release(s->lane->t, s);
    }
}

void mp__sockets_lose(struct mp__lane *lane)
{
    struct mp__transport *t = lane->t;
    for (size_t fd = 0; fd < t->by_fd_cap; fd++)
        if (t->by_fd[fd] != NULL && t->by_fd[fd]->lane == lane && t->by_fd[fd]->ours)
            mp__socket_close(lane, (curl_socket_t)fd);
        else if (t->by_fd[fd] != NULL && t->by_fd[fd]->lane == lane)
            mp__socket_release(t, t->by_fd[fd]);
}

curl_socket_t mp__socket_open(void *handle, curlsocktype purpose, struct curl_sockaddr *addr)
{
    struct mp__handle *h = handle;
    struct mp__lane *lane = h->xfer->lane;
    (void)purpose;
    if (!mp__guard_allows(&addr->addr)) {
        lane->t->open_errno = EACCES;
        return CURL_SOCKET_BAD;
    }
    curl_socket_t fd =
        socket(addr->family, addr->socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, addr->protocol);
    struct mp__socket *s = fd >= 0 ? socket_new(lane, fd, 1) : NULL;
    if (s == NULL) {
        lane->t->open_errno = fd < 0 ? errno : ENOMEM;
        if (fd >= 0)
            close(fd);
        return CURL_SOCKET_BAD;
    }
    mp__list_push(&h->connecting, &s->connecting);
    s->has_port = addr->family != AF_UNIX;
    lane->t->n.ports += s->has_port;
    lane->t->n.open++;
    return fd;
}

unsigned mp__socket_retransmits(int fd)
{
    struct tcp_info info;
    socklen_t len = sizeof(info);
    memset(&info, 0, sizeof(info));
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) != 0)
        return 0;
    return info.tcpi_total_retrans;
}

int mp__socket_close(void *lanep, curl_socket_t fd)
{
    struct mp__lane *lane = lanep;
    struct mp__socket *s = by_fd(lane->t, fd);
    if (s != NULL) {
        count_closed(lane->t, s);
        mp__socket_release(lane->t, s); /* before the number can be used again */
    }
    lane->t->n.retransmits += mp__socket_retransmits(fd);
    return close(fd) == 0 ? 0 : 1;
}

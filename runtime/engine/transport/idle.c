/*
 * idle.c - connections that nobody uses: how many stay, and for how long.
 *
 * curl looks at its idle connections only when the next request comes, so alone it would keep them
 * for as long as a program rests. Here every idle socket stands in one list, the longest idle
 * first, and one timer stands for its head. What is to go is shut down, which the server sees at
 * once; then curl is made to look, for it alone may close the descriptor.
 *
 * A transfer pays for this with two list operations; the timer moves only when it must fire
 * earlier, and it holds no loop alive.
 */
#include "engine/transport/internal.h"

#include <poll.h>
#include <sys/socket.h>

#define MS_GRACE 1000 /* beyond max_idle but this fresh: about to be used again in a busy time */
#define MS_PRUNE 1000 /* curl cleans its cache once a second at most */
#define NEVER    UINT64_MAX

static uint64_t ms_of(double seconds)
{
    return seconds > 0 && seconds < 1e9 ? (uint64_t)(seconds * 1000) : NEVER / 4;
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t later(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static struct mp__socket *socket_of(struct mp__link *link)
{
    return MP__ENTRY(link, struct mp__socket, idle);
}

/* ---- the timer ---- */

static void on_sweep(uv_timer_t *timer);

static void sweep_by(struct mp__transport *t, uint64_t at)
{
    uint64_t now = uv_now(t->loop);
    if (t->closing || (uv_is_active((uv_handle_t *)&t->sweep) && t->sweep_at <= at))
        return;
    t->sweep_at = at;
    uv_timer_start(&t->sweep, on_sweep, at > now ? at - now : 1, 0);
}

/* When this socket is to be looked at, were it the head of the list. */
static uint64_t due(const struct mp__transport *t, const struct mp__socket *s)
{
    uint64_t at = s->idle_since + t->idle_ms;
    if (t->idles > t->cfg.max_idle)
        at = s->idle_since + MS_GRACE;
    return earlier(at, later(s->opened_at + t->age_ms, s->idle_since + MS_GRACE));
}

void mp__idle_add(struct mp__transport *t, struct mp__socket *s)
{
    if (mp__linked(&s->idle) || s->retired || t->closing)
        return;
    s->idle_since = uv_now(t->loop);
    mp__list_push(&t->idle, &s->idle);
    t->idles++;
    if (t->idles == 1 || t->idles > t->cfg.max_idle || t->cfg.max_age > 0)
        sweep_by(t, due(t, s));
}

void mp__idle_remove(struct mp__transport *t, struct mp__socket *s)
{
    if (!mp__linked(&s->idle))
        return;
    mp__list_remove(&s->idle);
    t->idles--;
}

/* ---- the end of a connection ---- */

/* To curl a connection with bytes to read is a live one: only when they are gone it sees the end. */
static void drain(const struct mp__socket *s)
{
    char rest[4096];
    for (int i = 0; i < 16; i++)
        if (recv(s->fd, rest, sizeof(rest), MSG_DONTWAIT) <= 0)
            break;
}

static void retire(struct mp__transport *t, struct mp__socket *s)
{
    mp__idle_remove(t, s);
    mp__socket_rest(s, 0);
    shutdown(s->fd, SHUT_RDWR);
    drain(s);
    s->retired = 1;
    s->lane->retired++;
    t->retired++;
}

void mp__idle_event(struct mp__socket *s)
{
    struct mp__transport *t = s->lane->t;
    struct pollfd p = {.fd = s->fd, .events = POLLRDHUP};
    int ended = poll(&p, 1, 0) > 0;
    if (!mp__linked(&s->idle) || s->lane->paused > 0) {
        mp__socket_rest(s, 0);
    } else if (!ended) { /* a ticket, a ping: curl reads it with the next reply */
        mp__socket_rest(s, UV_DISCONNECT);
    } else {
        retire(t, s);
        sweep_by(t, uv_now(t->loop) + MS_PRUNE);
    }
}

void mp__idle_closed(struct mp__transport *t, struct mp__socket *s)
{
    mp__idle_remove(t, s);
    if (!s->retired)
        return;
    s->retired = 0;
    s->lane->retired--;
    t->retired--;
}

static curl_socket_t no_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *addr)
{
    (void)arg;
    (void)purpose;
    (void)addr;
    return CURL_SOCKET_BAD;
}

/* Before a transfer connects, curl closes what is dead in its cache. So one is begun that cannot get
 * a socket: it ends in the same breath. */
static void prune(struct mp__lane *lane)
{
    struct mp__transport *t = lane->t;
    CURL *e = curl_easy_init();
    if (e == NULL)
        return;
    for (size_t fd = 0; fd < t->by_fd_cap; fd++) /* the peer's goodbye may have come meanwhile */
        if (t->by_fd[fd] != NULL && t->by_fd[fd]->lane == lane && t->by_fd[fd]->retired)
            drain(t->by_fd[fd]);
    curl_easy_setopt(e, CURLOPT_URL, "http://127.0.0.1:9/");
    curl_easy_setopt(e, CURLOPT_PROXY, "");
    curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(e, CURLOPT_FRESH_CONNECT, 1L);
    curl_easy_setopt(e, CURLOPT_MAXAGE_CONN, 1000000L); /* ages are judged here, not there */
    curl_easy_setopt(e, CURLOPT_OPENSOCKETFUNCTION, no_socket);
    if (curl_multi_add_handle(lane->multi, e) == CURLM_OK) {
        mp__lane_action(lane, CURL_SOCKET_TIMEOUT, 0);
        curl_multi_remove_handle(lane->multi, e);
    }
    curl_easy_cleanup(e);
}

/* ---- the sweep ---- */

static int is_over(const struct mp__transport *t, const struct mp__socket *s, uint64_t now)
{
    uint64_t rest = now - s->idle_since;
    return rest >= t->idle_ms || (t->idles > t->cfg.max_idle && rest >= MS_GRACE) ||
           now - s->opened_at >= t->age_ms;
}

static void on_sweep(uv_timer_t *timer)
{
    struct mp__transport *t = timer->data;
    uint64_t now = uv_now(t->loop);
    uint64_t next_at = NEVER;
    struct mp__link *next = NULL;
    for (struct mp__link *l = t->idle.next; l != &t->idle; l = next) {
        struct mp__socket *s = socket_of(l);
        next = l->next;
        if (s->lane->paused > 0) { /* it may be a transfer that pauses: that looks the same */
            next_at = earlier(next_at, now + MS_GRACE);
        } else if (is_over(t, s, now)) {
            retire(t, s);
        } else {
            next_at = earlier(next_at, due(t, s));
            if (t->cfg.max_age <= 0)
                break; /* those behind have rested less */
        }
    }
    for (uint32_t i = 0; i < t->lanes_open && t->retired > 0; i++)
        if (t->lanes[i].retired > 0)
            prune(&t->lanes[i]);
    if (t->retired > 0)
        next_at = earlier(next_at, now + MS_PRUNE);
    if (next_at != NEVER)
        sweep_by(t, next_at);
}

void mp__idle_init(struct mp__transport *t)
{
    mp__list_init(&t->idle);
    t->idle_ms = ms_of(t->cfg.idle_timeout);
    t->age_ms = ms_of(t->cfg.max_age);
    uv_timer_init(t->loop, &t->sweep);
    uv_unref((uv_handle_t *)&t->sweep);
    t->sweep.data = t;
    t->handles_open++;
}

static void sweep_closed(uv_handle_t *handle)
{
    mp__transport_handle_closed(handle->data);
}

void mp__idle_fini(struct mp__transport *t)
{
    uv_close((uv_handle_t *)&t->sweep, sweep_closed);
}

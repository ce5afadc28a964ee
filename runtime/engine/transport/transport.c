/*
 * transport.c - transfers over lanes: start, cancel, reap; life of the transport.
 */
#include "engine/transport/transport.h"

#include "engine/transport/internal.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define KICK_ROUNDS 4

/* What a pool is when nobody says. */
#define MAX_CONNECTIONS 256
#define IDLE_TIMEOUT    30 /* s */
#define LANE_SIZE       64

static pthread_once_t global_once = PTHREAD_ONCE_INIT;

static void global_init(void)
{
    curl_global_init(CURL_GLOBAL_DEFAULT);
}

/* ---- lanes ---- */

static void lane_flag(struct mp__lane *lane, int due)
{
    if (due)
        lane->due = 1;
    else
        lane->touched = 1;
    if (lane->t->wake != NULL)
        lane->t->wake(lane->t->wake_arg);
}

void mp__lane_action(struct mp__lane *lane, curl_socket_t fd, int events)
{
    int running = 0;
    if (lane->lost)
        return;
    /* Where curl 7.88 has no memory for what it knows of a socket it leaves a hash table with no slots
     * behind and divides by their number at the next call, a removal included. */
    if (curl_multi_socket_action(lane->multi, fd, events, &running) == CURLM_OUT_OF_MEMORY)
        lane->lost = 1;
    lane_flag(lane, 0);
}

static void on_timer(uv_timer_t *timer)
{
    mp__lane_action(timer->data, CURL_SOCKET_TIMEOUT, 0);
}

static int timer_cb(CURLM *multi, long ms, void *lanep)
{
    struct mp__lane *lane = lanep;
    (void)multi;
    if (lane->t->closing)
        return 0;
    if (ms < 0) {
        uv_timer_stop(&lane->timer);
    } else if (ms == 0) {
        /* A zero uv timer re-armed in its own callback starves I/O in libuv before 1.48. */
        uv_timer_stop(&lane->timer);
        lane_flag(lane, 1);
    } else {
        uv_update_time(lane->t->loop);
        uv_timer_start(&lane->timer, on_timer, (uint64_t)ms, 0);
        if (!lane->t->live)
            uv_unref((uv_handle_t *)&lane->timer);
    }
    return 0;
}

static int lane_multi(struct mp__lane *lane)
{
    struct mp__transport *t = lane->t;
    lane->multi = curl_multi_init();
    if (lane->multi == NULL)
        return MP_ENOMEM;
    /* The default cache shrinks with the number of running handles and would drop warm
     * connections in every quiet moment. */
    curl_multi_setopt(lane->multi, CURLMOPT_MAXCONNECTS, (long)t->cfg.lane_size + 8);
    curl_multi_setopt(lane->multi, CURLMOPT_SOCKETFUNCTION, mp__socket_cb);
    curl_multi_setopt(lane->multi, CURLMOPT_SOCKETDATA, lane);
    curl_multi_setopt(lane->multi, CURLMOPT_TIMERFUNCTION, timer_cb);
    curl_multi_setopt(lane->multi, CURLMOPT_TIMERDATA, lane);
    lane->lost = 0;
    return 0;
}

static int lane_open(struct mp__transport *t, struct mp__lane *lane, uint32_t index)
{
    lane->t = t;
    lane->index = index;
    if (lane_multi(lane) != 0)
        return MP_ENOMEM;
    mp__list_init(&lane->handles);
    uv_timer_init(t->loop, &lane->timer);
    uv_unref((uv_handle_t *)&lane->timer);
    lane->timer.data = lane;
    t->handles_open++;
    return 0;
}

static int lane_has_room(struct mp__lane *lane)
{
    if (lane->lost && (lane->running > 0 || lane_multi(lane) != 0))
        return 0;
    return lane->running < lane->t->cfg.lane_size;
}

static struct mp__lane *lane_with_room(struct mp__transport *t)
{
    for (uint32_t i = 0; i < t->lanes_open; i++)
        if (lane_has_room(&t->lanes[i]))
            return &t->lanes[i];
    if (t->lanes_open == t->nlanes)
        return NULL;
    struct mp__lane *lane = &t->lanes[t->lanes_open];
    if (lane_open(t, lane, t->lanes_open) != 0)
        return NULL;
    t->lanes_open++;
    return lane;
}

/* ---- life of a transfer ---- */

int mp__transport_start(struct mp__transport *t, struct mp__xfer *x)
{
    struct mp__lane *lane = lane_with_room(t);
    if (lane == NULL)
        return MP_EAGAIN;
    struct mp__handle *h = mp__easy_take(lane, x);
    if (h == NULL)
        return MP_ENOMEM;
    x->handle = h;
    x->lane = lane;
    x->connected = x->sent = x->replied = x->aborted = x->new_conn = 0;
    x->never_sent = x->refused = x->reset = x->hopeless = 0;
    x->fault = MP_KIND_NONE;
    x->hold = x->paused = x->astray = 0;
    x->strayed = 0;
    x->body_off = 0;
    x->last_io = uv_now(t->loop);
    h->xfer = x;
    h->error[0] = '\0';
    if (mp__easy_request(h, x) != 0 || curl_multi_add_handle(lane->multi, h->easy) != CURLM_OK) {
        mp__easy_give(lane, h);
        x->handle = NULL;
        return MP_ENOMEM;
    }
    x->running = 1;
    mp__list_push(&lane->handles, &h->running);
    lane->running++;
    t->n.running++;
    lane->due = 1;
    return 0;
}

static void detach(struct mp__transport *t, struct mp__xfer *x)
{
    struct mp__lane *lane = x->lane;
    lane->paused -= x->paused;
    x->paused = 0;
    mp__list_remove(&x->handle->running);
    if (lane->lost) {
        x->handle->xfer = NULL; /* it stays with its multi handle, which cannot be freed */
    } else {
        mp__sockets_abandon(x->handle);
        curl_multi_remove_handle(lane->multi, x->handle->easy);
        mp__easy_give(lane, x->handle);
    }
    x->handle = NULL;
    x->running = 0;
    lane->running--;
    t->n.running--;
}

void mp__transport_cancel(struct mp__transport *t, struct mp__xfer *x)
{
    if (x->running)
        detach(t, x);
}

void mp__transport_resume(struct mp__transport *t, struct mp__xfer *x)
{
    int was_paused = x->paused;
    if (!x->running)
        return;
    x->hold = x->paused = 0;
    x->last_io = uv_now(t->loop);
    if (was_paused) {
        x->lane->paused--;
        if (!x->lane->lost)
            curl_easy_pause(x->handle->easy, CURLPAUSE_CONT);
        lane_flag(x->lane, 1);
    }
}

static enum mp_kind timed_out(const struct mp__xfer *x)
{
    if (!x->connected)
        return MP_KIND_CONNECT_TIMEOUT;
    return x->sent ? MP_KIND_READ_TIMEOUT : MP_KIND_WRITE_TIMEOUT;
}

static enum mp_kind kind_of(CURLcode code, const struct mp__xfer *x)
{
    switch (code) {
    case CURLE_OK:
        return MP_KIND_NONE;
    case CURLE_OPERATION_TIMEDOUT:
        return timed_out(x);
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CIPHER:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_ENGINE_NOTFOUND:
    case CURLE_SSL_ENGINE_SETFAILED:
    case CURLE_SSL_ENGINE_INITFAILED:
    case CURLE_SSL_CRL_BADFILE:
    case CURLE_SSL_PINNEDPUBKEYNOTMATCH:
    case CURLE_SSL_INVALIDCERTSTATUS:
    case CURLE_SSL_CLIENTCERT:
    case CURLE_USE_SSL_FAILED:
        return MP_KIND_TLS;
    case CURLE_BAD_CONTENT_ENCODING:
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_UNSUPPORTED_PROTOCOL:
        return code == CURLE_UNSUPPORTED_PROTOCOL && !x->connected ? MP_KIND_INVALID
                                                                   : MP_KIND_DECODE;
    case CURLE_URL_MALFORMAT:
    case CURLE_BAD_FUNCTION_ARGUMENT:
        return MP_KIND_INVALID;
    default:
        return MP_KIND_CONNECT;
    }
}

/* A handshake that the line broke is no verdict on certificates: trying again makes sense. */
static int handshake_broke(CURLcode code, const struct mp__xfer *x)
{
    static const char *const signs[] = {"reset by peer", "SSL_ERROR_SYSCALL", "unexpected eof",
                                        "Broken pipe"};
    if (code != CURLE_SSL_CONNECT_ERROR)
        return 0;
    for (size_t i = 0; i < sizeof(signs) / sizeof(*signs); i++)
        if (strstr(x->handle->error, signs[i]) != NULL)
            return 1;
    return 0;
}

static void describe_end(struct mp__transport *t, struct mp__xfer *x, CURLcode code)
{
    CURL *e = x->handle->easy;
    long status = 0;
    long opened = 0;
    long os_errno = 0;
    long proxy_status = 0;

    curl_easy_getinfo(e, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_getinfo(e, CURLINFO_NUM_CONNECTS, &opened);
    x->status = (int)status;
    x->new_conn = opened > 0;
    if (opened > 0)
        t->n.opened += (uint64_t)opened;
    else if (x->connected)
        t->n.reused++;
    mp__reply_end(x->handle, code);
    x->kind = x->fault != MP_KIND_NONE ? (enum mp_kind)x->fault : kind_of(code, x);
    x->never_sent = !x->connected;
    x->os_errno = 0;
    x->detail = "";
    if (code == CURLE_OK && x->kind == MP_KIND_NONE)
        return;
    curl_easy_getinfo(e, CURLINFO_OS_ERRNO, &os_errno);
    curl_easy_getinfo(e, CURLINFO_HTTP_CONNECTCODE, &proxy_status);
    if (x->kind == MP_KIND_TLS) /* curl 8 keeps that of another address it tried */
        os_errno = 0;
    if (os_errno == 0 && !x->connected)
        os_errno = t->open_errno;
    if (t->open_errno == EACCES && !x->connected)
        x->kind = MP_KIND_INVALID; /* the guard's no: another attempt would get the same */
    t->open_errno = 0;
    x->os_errno = (int)os_errno;
    x->detail = x->handle->fault[0] != '\0'   ? x->handle->fault
                : x->handle->error[0] != '\0' ? x->handle->error
                                              : curl_easy_strerror(code);
    x->refused = os_errno == ECONNREFUSED && !x->connected;
    if (!x->connected && proxy_status >= 300) { /* the proxy's answer is the verdict */
        x->kind = MP_KIND_HTTP;
        x->status = (int)proxy_status;
    } else if (handshake_broke(code, x)) {
        x->kind = MP_KIND_CONNECT;
        x->reset = 1;
    } else {
        x->reset = x->connected && x->kind == MP_KIND_CONNECT && !x->hopeless;
    }
    t->n.refused += x->refused;
    t->n.resets += x->reset;
}

/* Its transfers end, its connections are closed, and the next transfer gets another multi handle; the
 * present one is left as it is, with what curl holds in it. */
static int lane_lose(struct mp__transport *t, struct mp__lane *lane)
{
    int reaped = 0;
    uv_timer_stop(&lane->timer);
    lane->due = 0;
    mp__sockets_lose(lane);
    while (!mp__list_empty(&lane->handles)) {
        struct mp__xfer *x = MP__ENTRY(lane->handles.next, struct mp__handle, running)->xfer;
        x->status = 0;
        x->kind = MP_KIND_CONNECT;
        x->detail = "out of memory";
        x->never_sent = !x->connected;
        x->reset = x->connected;
        x->os_errno = 0;
        detach(t, x);
        x->on_end(x);
        reaped++;
    }
    return reaped;
}

int mp__transport_reap(struct mp__transport *t)
{
    int reaped = 0;
    for (uint32_t i = 0; i < t->lanes_open; i++) {
        struct mp__lane *lane = &t->lanes[i];
        if (!lane->touched)
            continue;
        lane->touched = 0;
        if (lane->lost) {
            reaped += lane_lose(t, lane);
            continue;
        }
        CURLMsg *msg;
        int left = 0;
        /* One message at a time: removing a handle invalidates the message, and what on_end does
         * may remove others. */
        for (msg = curl_multi_info_read(lane->multi, &left); msg != NULL;
             msg = curl_multi_info_read(lane->multi, &left)) {
            struct mp__handle *h = NULL;
            CURLcode code = msg->data.result;
            if (msg->msg != CURLMSG_DONE)
                continue;
            curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, (char **)&h);
            struct mp__xfer *x = h->xfer;
            describe_end(t, x, code);
            detach(t, x);
            if (!h->h2c || !mp__h2c_again(t, x))
                x->on_end(x);
            reaped++;
        }
    }
    return reaped;
}

void mp__transport_kick(struct mp__transport *t)
{
    for (int round = 0; round < KICK_ROUNDS; round++) {
        int any = 0;
        for (uint32_t i = 0; i < t->lanes_open; i++) {
            struct mp__lane *lane = &t->lanes[i];
            if (!lane->due)
                continue;
            lane->due = 0;
            any = 1;
            mp__lane_action(lane, CURL_SOCKET_TIMEOUT, 0);
        }
        if (!any)
            break;
    }
}

int mp__transport_pending(const struct mp__transport *t)
{
    for (uint32_t i = 0; i < t->lanes_open; i++)
        if (t->lanes[i].due || t->lanes[i].touched)
            return 1;
    return 0;
}

/* ---- transport ---- */

static void config_defaults(struct mp_pool_config *c, const struct mp_pool_config *given)
{
    memset(c, 0, sizeof(*c));
    if (given != NULL)
        memcpy(c, given, given->size < sizeof(*c) ? given->size : sizeof(*c));
    if (c->max_connections == 0)
        c->max_connections = MAX_CONNECTIONS;
    if (c->max_idle == 0)
        c->max_idle = MP__MAX_IDLE;
    if (c->idle_timeout == 0)
        c->idle_timeout = IDLE_TIMEOUT;
    if (c->lane_size == 0)
        c->lane_size = LANE_SIZE;
    if (c->lane_size > c->max_connections)
        c->lane_size = c->max_connections;
}

struct mp__transport *mp__transport_new(uv_loop_t *loop, const struct mp_pool_config *config)
{
    pthread_once(&global_once, global_init);
    struct mp__transport *t = calloc(1, sizeof(*t));
    if (t == NULL)
        return NULL;
    t->loop = loop;
    t->live = 1;
    config_defaults(&t->cfg, config);
    t->nlanes = (t->cfg.max_connections + t->cfg.lane_size - 1) / t->cfg.lane_size;
    t->lanes = calloc(t->nlanes, sizeof(*t->lanes));
    t->share = curl_share_init();
    if (t->lanes == NULL || t->share == NULL) {
        if (t->share != NULL)
            curl_share_cleanup(t->share);
        free(t->lanes);
        free(t);
        return NULL;
    }
    /* In curl 7.88 the TLS session cache belongs to an easy handle; one thread, so no locks. */
    curl_share_setopt(t->share, CURLSHOPT_SHARE, CURL_LOCK_DATA_SSL_SESSION);
    mp__idle_init(t);
    return t;
}

void mp__transport_handle_closed(struct mp__transport *t)
{
    t->handles_open--;
    if (!t->closing || t->handles_open > 0)
        return;
    void (*closed)(void *) = t->closed;
    void *arg = t->closed_arg;
    free(t->by_fd);
    free(t->lanes);
    free(t);
    if (closed != NULL)
        closed(arg);
}

static void lane_timer_closed(uv_handle_t *handle)
{
    struct mp__lane *lane = handle->data;
    mp__transport_handle_closed(lane->t);
}

void mp__transport_close(struct mp__transport *t, void (*closed)(void *arg), void *arg)
{
    t->closing = 1;
    t->closed = closed;
    t->closed_arg = arg;
    t->wake = NULL;
    t->handles_open++; /* this call */
    mp__idle_fini(t);
    for (uint32_t i = 0; i < t->lanes_open; i++) {
        struct mp__lane *lane = &t->lanes[i];
        struct mp__handle *next = NULL;
        for (struct mp__handle *h = lane->free_handles; h != NULL; h = next) {
            next = h->next;
            mp__easy_free(h);
        }
        lane->free_handles = NULL;
        if (!lane->lost)
            curl_multi_cleanup(lane->multi);
        uv_close((uv_handle_t *)&lane->timer, lane_timer_closed);
    }
    curl_share_cleanup(t->share);
    for (size_t fd = 0; fd < t->by_fd_cap; fd++)
        if (t->by_fd[fd] != NULL)
            mp__socket_release(t, t->by_fd[fd]);
    mp__transport_handle_closed(t);
}

void mp__transport_ref(struct mp__transport *t, int live)
{
    if (t->live == (live != 0))
        return;
    t->live = live != 0;
    for (size_t fd = 0; fd < t->by_fd_cap; fd++) {
        uv_handle_t *poll = t->by_fd[fd] != NULL ? (uv_handle_t *)&t->by_fd[fd]->poll : NULL;
        if (poll != NULL && live)
            uv_ref(poll);
        else if (poll != NULL)
            uv_unref(poll);
    }
}

void mp__transport_counters(struct mp__transport *t, struct mp__transport_counters *out)
{
    *out = t->n;
    out->idle = t->idles;
    for (size_t fd = 0; fd < t->by_fd_cap; fd++)
        if (t->by_fd[fd] != NULL && t->by_fd[fd]->ours)
            out->retransmits += mp__socket_retransmits((int)fd);
}

void mp__transport_on_event(struct mp__transport *t, void (*wake)(void *arg), void *arg)
{
    t->wake = wake;
    t->wake_arg = arg;
}

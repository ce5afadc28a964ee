/*
 * transport.c - transfers: lanes, pooled easy handles, start, cancel, reap.
 *
 * Easy handles are never reset between requests of one endpoint: the static options stay and only
 * what differs is set, which is worth a quarter of the CPU of a small request. Everything a handle
 * points to as callback data is the handle itself, so nothing dangles when it changes hands.
 */
#include "engine/transport.h"

#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/transport_int.h"

#define SMALL_BODY   (60 * 1024) /* curl sends up to 64 KiB together with the headers */
#define SMALL_BUFFER (16L * 1024)
#define BIG_BUFFER   (128L * 1024)
#define KICK_ROUNDS  4

_Static_assert(offsetof(struct mp__hdr, data) == offsetof(struct curl_slist, data) &&
                   offsetof(struct mp__hdr, next) == offsetof(struct curl_slist, next) &&
                   sizeof(struct mp__hdr) == sizeof(struct curl_slist),
               "mp__hdr mirrors curl_slist");

static pthread_once_t global_once = PTHREAD_ONCE_INIT;

static void global_init(void)
{
    curl_global_init(CURL_GLOBAL_DEFAULT);
}

/* ---- callbacks from curl: copy and flag only ---- */

static size_t on_write(char *p, size_t size, size_t n, void *hp)
{
    struct mp__xfer *x = ((struct mp__handle *)hp)->xfer;
    (void)size;
    if (x->hold) { /* curl keeps these bytes and stops reading the socket */
        x->paused = 1;
        return CURL_WRITEFUNC_PAUSE;
    }
    x->replied = 1;
    x->last_io = uv_now(x->lane->t->loop);
    if (x->on_body(x, p, n) != 0) {
        x->aborted = 1;
        return n == 0 ? 1 : 0;
    }
    return n;
}

static size_t on_header(char *p, size_t size, size_t n, void *hp)
{
    struct mp__xfer *x = ((struct mp__handle *)hp)->xfer;
    (void)size;
    x->replied = 1;
    x->last_io = uv_now(x->lane->t->loop);
    if (x->on_header(x, p, n) != 0) {
        x->aborted = 1;
        return n == 0 ? 1 : 0;
    }
    return n;
}

static int on_prereq(void *hp, char *remote, char *local, int remote_port, int local_port)
{
    struct mp__xfer *x = ((struct mp__handle *)hp)->xfer;
    (void)remote;
    (void)local;
    (void)remote_port;
    (void)local_port;
    x->connected = 1;
    x->last_io = uv_now(x->lane->t->loop);
    if (x->body_len <= SMALL_BODY)
        x->sent = 1;
    x->on_progress(x);
    return CURL_PREREQFUNC_OK;
}

static size_t on_read(char *out, size_t size, size_t n, void *hp)
{
    struct mp__xfer *x = ((struct mp__handle *)hp)->xfer;
    size_t left = x->body_len - x->body_off;
    size_t take = size * n < left ? size * n : left;
    memcpy(out, x->body + x->body_off, take);
    x->body_off += take;
    x->last_io = uv_now(x->lane->t->loop);
    if (x->body_off == x->body_len && !x->sent) {
        x->sent = 1;
        x->on_progress(x);
    }
    return take;
}

static int on_seek(void *hp, curl_off_t offset, int origin)
{
    struct mp__xfer *x = ((struct mp__handle *)hp)->xfer;
    if (origin != SEEK_SET || offset < 0 || (size_t)offset > x->body_len)
        return CURL_SEEKFUNC_CANTSEEK;
    x->body_off = (size_t)offset;
    x->sent = 0;
    return CURL_SEEKFUNC_OK;
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
    curl_multi_socket_action(lane->multi, fd, events, &running);
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

static int lane_open(struct mp__transport *t, struct mp__lane *lane, uint32_t index)
{
    lane->t = t;
    lane->index = index;
    lane->multi = curl_multi_init();
    if (lane->multi == NULL)
        return MP_ENOMEM;
    uv_timer_init(t->loop, &lane->timer);
    uv_unref((uv_handle_t *)&lane->timer);
    lane->timer.data = lane;
    t->handles_open++;
    /* The default cache shrinks with the number of running handles and would drop warm
     * connections in every quiet moment. */
    curl_multi_setopt(lane->multi, CURLMOPT_MAXCONNECTS, (long)t->cfg.lane_size + 8);
    curl_multi_setopt(lane->multi, CURLMOPT_SOCKETFUNCTION, mp__socket_cb);
    curl_multi_setopt(lane->multi, CURLMOPT_SOCKETDATA, lane);
    curl_multi_setopt(lane->multi, CURLMOPT_TIMERFUNCTION, timer_cb);
    curl_multi_setopt(lane->multi, CURLMOPT_TIMERDATA, lane);
    return 0;
}

static struct mp__lane *lane_with_room(struct mp__transport *t)
{
    for (uint32_t i = 0; i < t->lanes_open; i++)
        if (t->lanes[i].running < t->cfg.lane_size)
            return &t->lanes[i];
    if (t->lanes_open == t->nlanes)
        return NULL;
    struct mp__lane *lane = &t->lanes[t->lanes_open];
    if (lane_open(t, lane, t->lanes_open) != 0)
        return NULL;
    t->lanes_open++;
    return lane;
}

/* ---- easy handles ---- */

static void handle_free(struct mp__handle *h)
{
    curl_easy_cleanup(h->easy);
    curl_slist_free_all(h->resolve);
    free(h);
}

static void set_callbacks(struct mp__handle *h)
{
    CURL *e = h->easy;
    curl_easy_setopt(e, CURLOPT_PRIVATE, h);
    curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_write);
    curl_easy_setopt(e, CURLOPT_WRITEDATA, h);
    curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(e, CURLOPT_HEADERDATA, h);
    curl_easy_setopt(e, CURLOPT_READFUNCTION, on_read);
    curl_easy_setopt(e, CURLOPT_READDATA, h);
    curl_easy_setopt(e, CURLOPT_SEEKFUNCTION, on_seek);
    curl_easy_setopt(e, CURLOPT_SEEKDATA, h);
    curl_easy_setopt(e, CURLOPT_PREREQFUNCTION, on_prereq);
    curl_easy_setopt(e, CURLOPT_PREREQDATA, h);
    curl_easy_setopt(e, CURLOPT_OPENSOCKETFUNCTION, mp__socket_open);
    curl_easy_setopt(e, CURLOPT_CLOSESOCKETFUNCTION, mp__socket_close);
    curl_easy_setopt(e, CURLOPT_ERRORBUFFER, h->error);
}

/* What holds for every request: no signals, no environment, no redirects, no cookies, no netrc. */
static void set_house_rules(CURL *e)
{
    curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(e, CURLOPT_QUICK_EXIT, 1L);
    curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(e, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(e, CURLOPT_HEADEROPT, (long)CURLHEADER_SEPARATE);
    curl_easy_setopt(e, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
    curl_easy_setopt(e, CURLOPT_TCP_NODELAY, 1L);
    curl_easy_setopt(e, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(e, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    curl_easy_setopt(e, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    curl_easy_setopt(e, CURLOPT_DNS_CACHE_TIMEOUT, -1L);
}

static long http_version(const struct mp__target *target, const char *url)
{
    if (target->http_version != 2)
        return CURL_HTTP_VERSION_1_1;
    return strncmp(url, "https:", 6) == 0 ? CURL_HTTP_VERSION_2TLS
                                          : CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE;
}

static void set_tls(CURL *e, const struct mp__target *target)
{
    curl_easy_setopt(e, CURLOPT_SSL_VERIFYPEER, target->verify ? 1L : 0L);
    curl_easy_setopt(e, CURLOPT_SSL_VERIFYHOST, target->verify ? 2L : 0L);
    if (target->ca_file != NULL) {
        curl_easy_setopt(e, CURLOPT_CAINFO, target->ca_file);
        curl_easy_setopt(e, CURLOPT_CAPATH, NULL);
    }
    if (target->cert_file != NULL)
        curl_easy_setopt(e, CURLOPT_SSLCERT, target->cert_file);
    if (target->key_file != NULL)
        curl_easy_setopt(e, CURLOPT_SSLKEY, target->key_file);
}

static void set_target(struct mp__handle *h, struct mp__lane *lane, const struct mp__target *target,
                       const char *url)
{
    CURL *e = h->easy;
    struct curl_slist *old = h->resolve;
    if (h->target_id != 0)
        curl_easy_reset(e);
    set_callbacks(h);
    set_house_rules(e);
    curl_easy_setopt(e, CURLOPT_OPENSOCKETDATA, lane);
    curl_easy_setopt(e, CURLOPT_CLOSESOCKETDATA, lane);
    curl_easy_setopt(e, CURLOPT_SHARE, lane->t->share);
    curl_easy_setopt(e, CURLOPT_HTTP_VERSION, http_version(target, url));
    curl_easy_setopt(e, CURLOPT_PIPEWAIT, target->http_version == 2 ? 1L : 0L);
    curl_easy_setopt(e, CURLOPT_PROXY, target->proxy); /* set even when "": no look at the env */
    curl_easy_setopt(e, CURLOPT_NOPROXY, target->no_proxy);
    set_tls(e, target);
    if (target->unix_path != NULL)
        curl_easy_setopt(e, CURLOPT_UNIX_SOCKET_PATH, target->unix_path);
    if (*target->accept_encoding != '\0')
        curl_easy_setopt(e, CURLOPT_ACCEPT_ENCODING, target->accept_encoding);
    if (target->connect_timeout > 0) /* ours fires first and knows why */
        curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS,
                         (long)(target->connect_timeout * 1000) + 5000L);
    if (target->idle_timeout >= 1)
        curl_easy_setopt(e, CURLOPT_MAXAGE_CONN, (long)target->idle_timeout);
    if (target->max_age >= 1)
        curl_easy_setopt(e, CURLOPT_MAXLIFETIME_CONN, (long)target->max_age);
    h->resolve = target->resolve != NULL ? curl_slist_append(NULL, target->resolve) : NULL;
    curl_easy_setopt(e, CURLOPT_RESOLVE, h->resolve);
    curl_slist_free_all(old);
    h->target_id = target->id;
    h->url[0] = '\0';
    h->method[0] = '\0';
    h->buffer = 0;
    h->fresh = 0;
}

static struct mp__handle *handle_take(struct mp__lane *lane, const struct mp__xfer *x)
{
    struct mp__handle **link = &lane->free_handles;
    /* A handle of the same endpoint if one is near the top of the pile. */
    for (int i = 0; i < 8 && *link != NULL; i++, link = &(*link)->next)
        if ((*link)->target_id == x->target->id)
            break;
    if (*link == NULL || (*link)->target_id != x->target->id)
        link = &lane->free_handles;
    struct mp__handle *h = *link;
    if (h != NULL) {
        *link = h->next;
    } else {
        h = calloc(1, sizeof(*h));
        if (h == NULL)
            return NULL;
        h->easy = curl_easy_init();
        if (h->easy == NULL) {
            free(h);
            return NULL;
        }
    }
    if (h->target_id != x->target->id)
        set_target(h, lane, x->target, x->url);
    return h;
}

static void handle_give(struct mp__lane *lane, struct mp__handle *h)
{
    h->xfer = NULL;
    h->next = lane->free_handles;
    lane->free_handles = h;
}

static void set_method(struct mp__handle *h, const char *method, int has_body)
{
    CURL *e = h->easy;
    int post = has_body || strcmp(method, "POST") == 0;
    int head = strcmp(method, "HEAD") == 0;
    int plain = (post && strcmp(method, "POST") == 0) || head || (!post && strcmp(method, "GET") == 0);

    curl_easy_setopt(e, CURLOPT_NOBODY, head ? 1L : 0L);
    if (post && !head)
        curl_easy_setopt(e, CURLOPT_POST, 1L);
    else if (!head)
        curl_easy_setopt(e, CURLOPT_HTTPGET, 1L);
    curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, plain ? NULL : method);
}

static void set_request(struct mp__handle *h, struct mp__xfer *x)
{
    CURL *e = h->easy;
    int has_body = x->body != NULL;
    long buffer = x->big_reply ? BIG_BUFFER : SMALL_BUFFER;

    if (strcmp(h->url, x->url) != 0) {
        curl_easy_setopt(e, CURLOPT_URL, x->url);
        size_t n = strlen(x->url);
        if (n < sizeof(h->url))
            memcpy(h->url, x->url, n + 1);
        else
            h->url[0] = '\0';
    }
    if (!has_body || strcmp(h->method, x->method) != 0) {
        set_method(h, x->method, has_body);
        snprintf(h->method, sizeof(h->method), "%s", has_body ? x->method : "");
    }
    if (has_body || strcmp(x->method, "POST") == 0) {
        int small = x->body_len <= SMALL_BODY;
        curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)x->body_len);
        curl_easy_setopt(e, CURLOPT_POSTFIELDS, small ? (has_body ? x->body : "") : NULL);
    }
    curl_easy_setopt(e, CURLOPT_HTTPHEADER, (struct curl_slist *)x->headers);
    if (h->buffer != buffer) {
        curl_easy_setopt(e, CURLOPT_BUFFERSIZE, buffer);
        h->buffer = buffer;
    }
    if (h->fresh != x->fresh) {
        curl_easy_setopt(e, CURLOPT_FRESH_CONNECT, x->fresh ? 1L : 0L);
        h->fresh = x->fresh;
    }
}

/* ---- life of a transfer ---- */

int mp__transport_start(struct mp__transport *t, struct mp__xfer *x)
{
    struct mp__lane *lane = lane_with_room(t);
    if (lane == NULL)
        return MP_EAGAIN;
    struct mp__handle *h = handle_take(lane, x);
    if (h == NULL)
        return MP_ENOMEM;
    x->handle = h;
    x->lane = lane;
    x->connected = x->sent = x->replied = x->aborted = x->new_conn = 0;
    x->never_sent = x->refused = x->reset = 0;
    x->hold = x->paused = 0;
    x->body_off = 0;
    x->last_io = uv_now(t->loop);
    h->xfer = x;
    h->error[0] = '\0';
    set_request(h, x);
    if (curl_multi_add_handle(lane->multi, h->easy) != CURLM_OK) {
        handle_give(lane, h);
        x->handle = NULL;
        return MP_ENOMEM;
    }
    x->running = 1;
    lane->running++;
    t->n.running++;
    lane->due = 1;
    return 0;
}

static void detach(struct mp__transport *t, struct mp__xfer *x)
{
    struct mp__lane *lane = x->lane;
    curl_multi_remove_handle(lane->multi, x->handle->easy);
    handle_give(lane, x->handle);
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

static void describe_end(struct mp__transport *t, struct mp__xfer *x, CURLcode code)
{
    CURL *e = x->handle->easy;
    long status = 0;
    long opened = 0;
    long os_errno = 0;

    curl_easy_getinfo(e, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_getinfo(e, CURLINFO_NUM_CONNECTS, &opened);
    x->status = (int)status;
    x->new_conn = opened > 0;
    if (opened > 0)
        t->n.opened += (uint64_t)opened;
    else if (x->connected)
        t->n.reused++;
    x->kind = kind_of(code, x);
    x->never_sent = !x->connected;
    x->os_errno = 0;
    x->detail = "";
    if (code == CURLE_OK)
        return;
    curl_easy_getinfo(e, CURLINFO_OS_ERRNO, &os_errno);
    x->os_errno = (int)os_errno;
    x->detail = x->handle->error[0] != '\0' ? x->handle->error : curl_easy_strerror(code);
    x->refused = os_errno == ECONNREFUSED && !x->connected;
    x->reset = x->connected && x->kind == MP_KIND_CONNECT;
    t->n.refused += x->refused;
    t->n.resets += x->reset;
}

int mp__transport_reap(struct mp__transport *t)
{
    int reaped = 0;
    for (uint32_t i = 0; i < t->lanes_open; i++) {
        struct mp__lane *lane = &t->lanes[i];
        if (!lane->touched)
            continue;
        lane->touched = 0;
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
        c->max_connections = 256;
    if (c->max_idle == 0)
        c->max_idle = 128;
    if (c->idle_timeout == 0)
        c->idle_timeout = 30;
    if (c->lane_size == 0)
        c->lane_size = 64;
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
    for (uint32_t i = 0; i < t->lanes_open; i++) {
        struct mp__lane *lane = &t->lanes[i];
        struct mp__handle *next = NULL;
        for (struct mp__handle *h = lane->free_handles; h != NULL; h = next) {
            next = h->next;
            handle_free(h);
        }
        lane->free_handles = NULL;
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
    for (size_t fd = 0; fd < t->by_fd_cap; fd++)
        if (t->by_fd[fd] != NULL && t->by_fd[fd]->ours)
            out->retransmits += mp__socket_retransmits((int)fd);
}

void mp__transport_on_event(struct mp__transport *t, void (*wake)(void *arg), void *arg)
{
    t->wake = wake;
    t->wake_arg = arg;
}

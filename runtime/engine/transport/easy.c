/*
 * easy.c - curl's easy handles: callbacks, options, a pile of them per lane.
 *
 * Easy handles are never reset between requests of one endpoint: the static options stay and only
 * what differs is set, which is worth a quarter of the CPU of a small request. Everything a handle
 * points to as callback data is the handle itself, so nothing dangles when it changes hands.
 */
#include "engine/transport/internal.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SMALL_BODY   (60 * 1024) /* curl sends up to 64 KiB together with the headers */
#define SMALL_BUFFER (16L * 1024)
#define BIG_BUFFER   (128L * 1024)
#define NOBODYS      UINT64_MAX /* a target's id: set for none, to be reset before it is set again */

_Static_assert(offsetof(struct mp__hdr, data) == offsetof(struct curl_slist, data) &&
                   offsetof(struct mp__hdr, next) == offsetof(struct curl_slist, next) &&
                   sizeof(struct mp__hdr) == sizeof(struct curl_slist),
               "mp__hdr mirrors curl_slist");

/* ---- callbacks from curl: copy and flag only ---- */

static size_t on_write(char *p, size_t size, size_t n, void *hp)
{
    struct mp__xfer *x = ((struct mp__handle *)hp)->xfer;
    (void)size;
    if (x->hold) { /* curl keeps these bytes and stops reading the socket */
        x->lane->paused += !x->paused;
        x->paused = 1;
        return CURL_WRITEFUNC_PAUSE;
    }
    x->replied = 1;
    x->last_io = uv_now(x->lane->t->loop);
    if (mp__reply_bytes(hp, p, n) != 0) {
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
    if (mp__reply_line(hp, p, n) != 0 || x->on_header(x, p, n) != 0) {
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
    mp__sockets_connected(x->handle);
    if (x->handle->h2c && mp__h2c_astray(x))
        return CURL_PREREQFUNC_ABORT;
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

/* ---- easy handles ---- */

void mp__easy_free(struct mp__handle *h)
{
    curl_easy_cleanup(h->easy);
    mp__coding_free(h->coding);
    curl_slist_free_all(h->resolve);
    free(h);
}

/* A text that curl copies. One that it has no memory for must not just be missing: without its CA or
 * its proxy a request would go out all the same, and without its URL to the place of the one before. */
static void set_text(struct mp__handle *h, CURLoption option, const char *text)
{
    if (curl_easy_setopt(h->easy, option, text) != CURLE_OK)
        h->spoilt = 1;
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
static void set_house_rules(struct mp__handle *h)
{
    CURL *e = h->easy;
    curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(e, CURLOPT_QUICK_EXIT, 1L);
    set_text(h, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(e, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(e, CURLOPT_HEADEROPT, (long)CURLHEADER_SEPARATE);
    curl_easy_setopt(e, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
    curl_easy_setopt(e, CURLOPT_TCP_NODELAY, 1L);
    curl_easy_setopt(e, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(e, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    curl_easy_setopt(e, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    curl_easy_setopt(e, CURLOPT_PROXY_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    curl_easy_setopt(e, CURLOPT_DNS_CACHE_TIMEOUT, -1L);
}

static long http_version(const struct mp__target *target, const char *url)
{
    if (target->http_version != 2)
        return CURL_HTTP_VERSION_1_1;
    if (strncmp(url, "https:", 6) == 0)
        return CURL_HTTP_VERSION_2TLS;
    /* curl speaks HTTP/1.1 to a proxy, whatever it is told */
    return *target->proxy != '\0' ? CURL_HTTP_VERSION_1_1 : CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE;
}

static void set_tls(struct mp__handle *h, const struct mp__target *target)
{
    CURL *e = h->easy;
    curl_easy_setopt(e, CURLOPT_SSL_VERIFYPEER, target->verify ? 1L : 0L);
    curl_easy_setopt(e, CURLOPT_SSL_VERIFYHOST, target->verify ? 2L : 0L);
    curl_easy_setopt(e, CURLOPT_PROXY_SSL_VERIFYPEER, target->verify ? 1L : 0L);
    curl_easy_setopt(e, CURLOPT_PROXY_SSL_VERIFYHOST, target->verify ? 2L : 0L);
    if (target->ca_file != NULL) {
        set_text(h, CURLOPT_CAINFO, target->ca_file);
        curl_easy_setopt(e, CURLOPT_CAPATH, NULL);
        set_text(h, CURLOPT_PROXY_CAINFO, target->ca_file);
        curl_easy_setopt(e, CURLOPT_PROXY_CAPATH, NULL);
    }
    if (target->cert_file != NULL)
        set_text(h, CURLOPT_SSLCERT, target->cert_file);
    if (target->key_file != NULL)
        set_text(h, CURLOPT_SSLKEY, target->key_file);
}

static int set_target(struct mp__handle *h, struct mp__lane *lane, const struct mp__target *target,
                      const char *url)
{
    CURL *e = h->easy;
    struct curl_slist *old = h->resolve;
    h->spoilt = 0;
    if (h->target_id != 0)
        curl_easy_reset(e);
    set_callbacks(h);
    set_house_rules(h);
    curl_easy_setopt(e, CURLOPT_OPENSOCKETDATA, h);
    curl_easy_setopt(e, CURLOPT_CLOSESOCKETDATA, lane);
    curl_easy_setopt(e, CURLOPT_SHARE, lane->t->share);
    curl_easy_setopt(e, CURLOPT_HTTP_VERSION, http_version(target, url));
    curl_easy_setopt(e, CURLOPT_PIPEWAIT, target->http_version == 2 ? 1L : 0L);
    set_text(h, CURLOPT_PROXY, target->proxy); /* set even when "": no look at the env */
    set_text(h, CURLOPT_NOPROXY, target->no_proxy);
    set_tls(h, target);
    if (target->unix_path != NULL)
        set_text(h, CURLOPT_UNIX_SOCKET_PATH, target->unix_path);
    h->decodes = *target->accept_encoding != '\0' && mp__coding_offers(target->accept_encoding);
    if (*target->accept_encoding != '\0')
        set_text(h, CURLOPT_ACCEPT_ENCODING, target->accept_encoding);
    curl_easy_setopt(e, CURLOPT_HTTP_CONTENT_DECODING, h->decodes ? 0L : 1L);
    if (target->connect_timeout > 0) /* ours fires first and knows why */
        curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS,
                         (long)(target->connect_timeout * 1000) + 5000L);
    /* For a loop that did not run meanwhile, and for connections that never rest; whole seconds,
     * of which curl lets one more pass. */
    if (target->idle_timeout > 0)
        curl_easy_setopt(e, CURLOPT_MAXAGE_CONN, (long)target->idle_timeout);
    if (target->max_age > 0)
        curl_easy_setopt(e, CURLOPT_MAXLIFETIME_CONN,
                         target->max_age >= 1 ? (long)target->max_age : 1L);
    h->resolve = target->resolve != NULL ? curl_slist_append(NULL, target->resolve) : NULL;
    if (target->resolve != NULL && h->resolve == NULL)
        h->spoilt = 1;
    curl_easy_setopt(e, CURLOPT_RESOLVE, h->resolve);
    h->spread = target->resolve != NULL && strchr(target->resolve, ',') != NULL;
    curl_easy_setopt(e, CURLOPT_DNS_SHUFFLE_ADDRESSES, h->spread ? 1L : 0L);
    curl_slist_free_all(old);
    h->target_id = h->spoilt ? NOBODYS : target->id;
    h->url[0] = '\0';
    h->method[0] = '\0';
    h->buffer = 0;
    h->fresh = 0;
    h->h2c = http_version(target, url) == CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE;
    return h->spoilt ? MP_ENOMEM : 0;
}

struct mp__handle *mp__easy_take(struct mp__lane *lane, const struct mp__xfer *x)
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
        mp__list_init(&h->connecting);
        h->easy = curl_easy_init();
        if (h->easy == NULL) {
            free(h);
            return NULL;
        }
    }
    if (h->target_id != x->target->id && set_target(h, lane, x->target, x->url) != 0) {
        mp__easy_give(lane, h);
        return NULL;
    }
    return h;
}

void mp__easy_give(struct mp__lane *lane, struct mp__handle *h)
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
    int plain =
        (post && strcmp(method, "POST") == 0) || head || (!post && strcmp(method, "GET") == 0);

    curl_easy_setopt(e, CURLOPT_NOBODY, head ? 1L : 0L);
    if (post && !head)
        curl_easy_setopt(e, CURLOPT_POST, 1L);
    else if (!head)
        curl_easy_setopt(e, CURLOPT_HTTPGET, 1L);
    set_text(h, CURLOPT_CUSTOMREQUEST, plain ? NULL : method);
}

int mp__easy_request(struct mp__handle *h, struct mp__xfer *x)
{
    h->spoilt = 0;
    CURL *e = h->easy;
    int has_body = x->body != NULL;
    mp__reply_begin(h);
    long buffer = x->big_reply ? BIG_BUFFER : SMALL_BUFFER;

    if (strcmp(h->url, x->url) != 0) {
        set_text(h, CURLOPT_URL, x->url);
        size_t n = strlen(x->url);
        if (n < sizeof(h->url))
            memcpy(h->url, x->url, n + 1);
        else
            h->url[0] = '\0';
    }
    /* Loaded again, the addresses are shuffled again: new connections go to all of them, where the
     * first would take every one for as long as it answers. */
    if (h->spread)
        curl_easy_setopt(e, CURLOPT_RESOLVE, h->resolve);
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
    if (h->h2c) {
        mp__h2c_start(x->lane, h, x);
    } else if (h->fresh != x->fresh) {
        curl_easy_setopt(e, CURLOPT_FRESH_CONNECT, x->fresh ? 1L : 0L);
        h->fresh = x->fresh;
    }
    if (!h->spoilt)
        return 0;
    h->url[0] = '\0'; /* what it is set to is not known */
    h->method[0] = '\0';
    return MP_ENOMEM;
}

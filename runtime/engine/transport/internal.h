/* internal.h - shared by transport.c (transfers), _easy.c (handles), _socket.c (watchers)
 * and _idle.c (connections that nobody uses). */
#ifndef MP_ENGINE_TRANSPORT_INTERNAL_H
#define MP_ENGINE_TRANSPORT_INTERNAL_H

#include "engine/transport/coding.h"
#include "engine/transport/transport.h"
#include "base/list.h"

#include <curl/curl.h>
#include <uv.h>

/* One watcher a socket, registered from its first use until the socket is closed: curl reports
 * REMOVE whenever a kept-alive connection goes idle, and following that with an epoll_ctl each time
 * doubles the cost of a small request. */
struct mp__socket {
    uv_poll_t poll;
    struct mp__lane *lane;
    curl_socket_t fd;
    int want;          /* UV events curl asks for now, 0: idle */
    int armed;         /* UV events the watcher has, 0: stopped */
    unsigned ours : 1; /* seen in OPENSOCKETFUNCTION; else the watcher lives until REMOVE */
    unsigned closing : 1;
    unsigned has_port : 1;          /* not a unix socket */
    unsigned retired : 1;           /* shut down: curl is to close it */
    struct mp__link idle;           /* of the transport, while nobody uses it */
    struct mp__link connecting;     /* of the handle that opened it, until its request goes out */
    uint64_t opened_at, idle_since; /* ms, uv_now */
};

#define MP__LED 8

struct mp__lane {
    struct mp__transport *t;
    CURLM *multi;
    uv_timer_t timer;
    uint32_t running;
    uint32_t paused;  /* of the running, by us */
    uint32_t retired; /* sockets */
    uint32_t index;
    struct mp__handle *free_handles;
    struct mp__link handles; /* mp__handle.running */
    uint64_t led[MP__LED];   /* targets whose clear-text HTTP/2 connection was opened */
    unsigned led_next;
    unsigned due : 1;     /* curl wants to be called at once */
    unsigned touched : 1; /* curl acted: messages may wait */
    unsigned lost : 1;    /* curl ran out of memory in it: it must not be called again */
};

/* What is to be known of a reply's head, interim ones aside. */
struct mp__head {
    uint8_t coding;    /* enum mp__coding_name */
    unsigned over : 1; /* the empty line behind the last one has come */
    unsigned interim : 1;
    unsigned coded : 1; /* its coding is being undone */
    unsigned sized : 1; /* a Content-Length was there */
    uint64_t size;
};

struct mp__handle {
    CURL *easy;
    struct mp__handle *next;
    uint64_t target_id;
    struct mp__xfer *xfer;
    struct curl_slist *resolve;
    struct mp__link running;
    struct mp__link connecting; /* struct mp__socket */
    char method[12];            /* with a body: the method the handle is set to; else "" */
    char url[256];              /* the url it is set to, "" when longer */
    long buffer;
    unsigned fresh : 1, spread : 1;
    unsigned spoilt : 1; /* an option could not be set */
    unsigned h2c : 1;
    unsigned decodes : 1;        /* codings are undone here and not by curl */
    struct mp__head head;        /* of the reply */
    struct mp__coding *coding;   /* NULL: none was met yet */
    char error[CURL_ERROR_SIZE]; /* curl's */
    char fault[CURL_ERROR_SIZE]; /* ours: what is wrong with the reply */
};

struct mp__transport {
    uv_loop_t *loop;
    struct mp_pool_config cfg;
    struct mp__lane *lanes;
    uint32_t nlanes, lanes_open;
    CURLSH *share;
    struct mp__socket **by_fd;
    size_t by_fd_cap;
    struct mp__transport_counters n;
    struct mp__link idle;    /* struct mp__socket, the longest idle first */
    uint32_t idles, retired; /* sockets on it; shut down and not yet closed */
    uint64_t idle_ms, age_ms;
    uint64_t h2c[MP__LED]; /* targets that answered by clear-text HTTP/2 */
    unsigned h2c_next;
    int open_errno; /* why a socket could not be opened, for the transfer that ends so */
    uv_timer_t sweep;
    uint64_t sweep_at;
    uint32_t handles_open; /* uv handles that still have to close */
    unsigned closing : 1, live : 1;
    void (*closed)(void *arg);
    void *closed_arg;
    void (*wake)(void *arg);
    void *wake_arg;
};

struct mp__handle *mp__easy_take(struct mp__lane *lane, const struct mp__xfer *x);
void mp__easy_give(struct mp__lane *lane, struct mp__handle *h);
void mp__easy_free(struct mp__handle *h);
/* HTTP/2 without TLS: how this request is to go; whether its connection is of the wrong kind;
 * whether, after its end, it was begun again (1). */
void mp__h2c_start(struct mp__lane *lane, struct mp__handle *h, struct mp__xfer *x);
int mp__h2c_astray(struct mp__xfer *x);
int mp__h2c_again(struct mp__transport *t, struct mp__xfer *x);
/* Whether that target has answered so; `yes`: it has now. */
int mp__h2c_answered(struct mp__transport *t, uint64_t target, int yes);
int mp__easy_request(struct mp__handle *h, struct mp__xfer *x); /* MP_ENOMEM: not to be sent */

/* reply.c: a line of the head, bytes of the body: 0 to go on; what a good end leaves to be said. */
void mp__reply_begin(struct mp__handle *h);
int mp__reply_line(struct mp__handle *h, const char *line, size_t n);
int mp__reply_bytes(struct mp__handle *h, const char *p, size_t n);
void mp__reply_end(struct mp__handle *h, CURLcode code);

int mp__socket_cb(CURL *easy, curl_socket_t fd, int what, void *lane, void *sockp);
curl_socket_t mp__socket_open(void *handle, curlsocktype purpose, struct curl_sockaddr *addr);
int mp__guard_allows(const struct sockaddr *sa); /* guard.c */
int mp__socket_close(void *lane, curl_socket_t fd);
void mp__socket_rest(struct mp__socket *s, int events); /* what an idle one watches for */
void mp__socket_release(struct mp__transport *t, struct mp__socket *s);
void mp__sockets_connected(struct mp__handle *h);
void mp__sockets_lose(struct mp__lane *lane);   /* closes them all in curl's place */
void mp__sockets_abandon(struct mp__handle *h); /* before an unfinished transfer is removed */
unsigned mp__socket_retransmits(int fd);
void mp__transport_handle_closed(struct mp__transport *t);
void mp__idle_init(struct mp__transport *t);
void mp__idle_fini(struct mp__transport *t);
void mp__idle_add(struct mp__transport *t, struct mp__socket *s);
void mp__idle_remove(struct mp__transport *t, struct mp__socket *s);
void mp__idle_event(struct mp__socket *s); /* it spoke, or its peer went */
void mp__idle_closed(struct mp__transport *t, struct mp__socket *s);
void mp__lane_action(struct mp__lane *lane, curl_socket_t fd, int events);

#endif

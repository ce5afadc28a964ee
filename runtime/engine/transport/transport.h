/*
 * transport.h - HTTP exchanges over libcurl's multi interface on a libuv loop; the only room that
 * knows curl.
 *
 * A transport holds lanes: curl multi handles of at most lane_size running transfers each, because
 * the cost of a request in curl grows with the connections of its multi (at 2,048 connections a
 * single multi spends more than twice the CPU of 32 lanes). Requests fill the lowest lane that has
 * room, so keep-alive connections are met again.
 *
 * Callbacks of a transfer run inside curl: they may copy bytes and set flags, nothing else. What
 * ended is fetched with mp__transport_reap, outside of curl.
 */
#ifndef MP_ENGINE_TRANSPORT_TRANSPORT_H
#define MP_ENGINE_TRANSPORT_TRANSPORT_H

#include "moonpool.h"

#include <stdint.h>
#include <uv.h>

#define MP__MAX_IDLE 128 /* connections kept unused, unless told otherwise */

struct mp__transport;
struct mp__lane;
struct mp__handle;

/* Same layout as curl_slist (asserted in transport.c), so that a request's own headers can be
 * chained in front of its client's shared ones without a copy. */
struct mp__hdr {
    char *data;
    struct mp__hdr *next;
};

/* What does not change from request to request of one endpoint; read-only while in use. */
struct mp__target {
    uint64_t id; /* never reused; a handle set up for this id needs no static options */
    const char *unix_path;
    const char *proxy; /* "" none */
    const char *no_proxy;
    const char *ca_file, *cert_file, *key_file;
    const char *accept_encoding; /* "" none */
    const char *resolve;         /* "+host:port:addr,addr" or NULL */
    int verify;
    int http_version;
    double connect_timeout; /* s */
    double idle_timeout, max_age;
};

struct mp__xfer {
    /* set by the caller before start */
    const struct mp__target *target;
    const char *url;
    const char *method;
    struct mp__hdr *headers;
    const char *body; /* NULL: none */
    size_t body_len;
    unsigned big_reply : 1;
    unsigned fresh : 1;                      /* a connection of its own */
    void (*on_progress)(struct mp__xfer *x); /* connected, or the whole body was handed over */
    int (*on_header)(struct mp__xfer *x, const char *line, size_t n); /* nonzero: abort */
    int (*on_body)(struct mp__xfer *x, const char *p, size_t n);      /* nonzero: abort */
    void (*on_end)(struct mp__xfer *x); /* from the reap; may start and cancel others */
    /* kept by the transport */
    unsigned running : 1, connected : 1, sent : 1, replied : 1, aborted : 1, new_conn : 1;
    unsigned hold : 1;              /* set in on_body: no more bytes before mp__transport_resume */
    unsigned paused : 1;            /* curl has been told */
    unsigned leads : 1, astray : 1; /* see transport_h2c.c */
    uint8_t strayed;
    uint8_t fault; /* enum mp_kind: what we found wrong with the reply ourselves */
    size_t body_off;
    uint64_t last_io; /* ms, uv_now of the last byte either way */
    struct mp__handle *handle;
    struct mp__lane *lane;
    /* the end, valid in on_end */
    enum mp_kind kind; /* NONE: a whole reply came, whatever its status. HTTP: a proxy refused */
    int status;
    int os_errno;
    unsigned never_sent : 1;
    unsigned refused : 1, reset : 1;
    unsigned hopeless : 1; /* trying again changes nothing */
    const char *detail;    /* in words; valid during the callback */
};

struct mp__transport_counters {
    uint64_t opened, reused, closed, refused, resets, retransmits;
    uint32_t open, running, idle, ports; /* ports: local ones in use */
};

struct mp__transport *mp__transport_new(uv_loop_t *loop, const struct mp_pool_config *config);
/* Closes sockets and timers; `closed` runs when the last handle is gone, then the memory is freed.
 * Nothing may be running. */
void mp__transport_close(struct mp__transport *t, void (*closed)(void *arg), void *arg);

int mp__transport_start(struct mp__transport *t, struct mp__xfer *x);   /* 0 or an enum mp_err */
void mp__transport_cancel(struct mp__transport *t, struct mp__xfer *x); /* no reap follows */
void mp__transport_resume(struct mp__transport *t, struct mp__xfer *x); /* on_body may run here */
/* Lets curl act on what was started or is due now. */
void mp__transport_kick(struct mp__transport *t);
/* Calls on_end of each transfer that ended since. */
int mp__transport_reap(struct mp__transport *t);
int mp__transport_pending(const struct mp__transport *t);  /* a kick or reap is due */
void mp__transport_ref(struct mp__transport *t, int live); /* keep the loop alive or not */
void mp__transport_counters(struct mp__transport *t, struct mp__transport_counters *out);
/* `wake` runs from loop callbacks after which a reap may find something. */
void mp__transport_on_event(struct mp__transport *t, void (*wake)(void *arg), void *arg);

/* ---- URLs, by curl's own parser ---- */

struct mp__url {
    char *base;   /* scheme://host[:port]/prefix without trailing slash */
    char *scheme; /* http or https */
    char *host;
    char *path;      /* prefix, "" or "/v1" */
    char *unix_path; /* NULL, or a socket's path */
    int port;
    int numeric; /* host is an address */
};

/* 0, or MP_EINVAL with a reason in err. */
int mp__url_parse(const char *text, struct mp__url *out, char *err, size_t errcap);
/* 0, or MP_EINVAL with a reason, which never repeats the text: it may hold a password. */
int mp__proxy_check(const char *text, char *err, size_t errcap);
/* Where a Location leads from a URL, to be freed; NULL: elsewhere than the same scheme, host and port,
 * or nowhere. */
char *mp__url_follow(const char *from, const char *location);
void mp__url_free(struct mp__url *url);

/* Addresses nobody connects to but those listed: see mp_restrict_addresses. -1, or the index of the
 * entry that is none. At most MP__GUARD_MAX entries. */
#define MP__GUARD_MAX 64
int mp__guard_set(const char *const *list, size_t n);

#endif

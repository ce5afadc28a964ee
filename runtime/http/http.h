/*
 * http.h - a small HTTP/1.1 server on libuv, parsed by llhttp (strict, never lenient).
 *
 * One server is one listener on one loop; everything happens on the loop's thread. A request is
 * handed to `on_request` whole (head and body read) and ends by exactly one of mp__http_reply,
 * mp__http_reply_fault, mp__http_end, mp__http_abort, at once or later; after that the request must
 * not be touched. Requests of one connection come one after the other: what a client pipelines
 * waits, unread beyond one buffer, until the reply before it has left.
 *
 * Bounded: head bytes and header count (431), body (413), connections (503), time for head, body,
 * idleness and a client that does not read its reply, bytes of chunk framing around a body.
 * Refused: Transfer-Encoding together with Content-Length, unknown codings, HTTP/1.1 without Host,
 * CONNECT, upgrades (ignored, answered as HTTP/1.1).
 *
 * Calls return 0 or a libuv error code unless said. Durations are seconds.
 */
#ifndef MP_HTTP_HTTP_H
#define MP_HTTP_HTTP_H

#include <stddef.h>
#include <stdint.h>
#include <uv.h>

struct mp__http_server;
struct mp__http_request;

struct mp__http_header {
    const char *name; /* lower case in requests */
    const char *value;
};

struct mp__http_config {       /* a zero field takes its default */
    size_t max_head;           /* bytes of request line and headers: 65,536 */
    size_t max_headers;        /* 100 */
    size_t max_body;           /* bytes: 64 MiB */
    size_t max_connections;    /* 4,096; a further client is told 503 */
    size_t high_water;         /* queued reply bytes above which a stream should wait: 262,144 */
    double header_timeout;     /* from the first byte of a head to its end: 10 */
    double body_timeout;       /* between two pieces of a body: 30 */
    double idle_timeout;       /* between two requests: 75 */
    double write_timeout;      /* between two bytes that the client takes of a reply: 60 */
    double total_body_timeout; /* for the whole of a body: 300 */
    int reuse_port;            /* other processes may listen on the same port, each of them so */
    void (*on_request)(struct mp__http_request *req, void *arg);
    void (*on_quiet)(void *arg); /* once stopped: the last reply is written, or its client gone */
    void *arg;
};

/* Made by the server, one a connection, used again for the next request. */
struct mp__http_request {
    /* read-only, valid until the request ends */
    const char *method; /* "POST" */
    const char *path;   /* as sent, up to the '?', not percent-decoded; "*" for OPTIONS */
    const char *query;  /* after the '?', NULL when there is none */
    const struct mp__http_header *headers;
    size_t nheaders;
    const char *body; /* NUL follows; "" when there is none */
    size_t body_len;
    int http_minor; /* 0 or 1 */

    /* the handler's; NULL at the start of each request */
    void *data;
    /* The client has gone (or the server closes): the reply will reach nobody, and the request must
     * still be ended, here or later. Called once at most, never from inside a call of yours. */
    void (*on_gone)(struct mp__http_request *req);
    /* The queue of a streamed reply has fallen under half of high_water after mp__http_write said 1. */
    void (*on_drain)(struct mp__http_request *req);
};

struct mp__http_stats {
    uint64_t accepted, refused; /* connections; refused: over max_connections */
    uint64_t requests, replies;
    uint64_t gone;      /* clients that left while a handler worked */
    uint64_t malformed; /* answered 4xx or 5xx by the server itself */
    uint64_t timeouts;
    uint64_t bytes_in, bytes_out;
    uint64_t status[6]; /* replies by hundreds: [2] is 2xx */
    size_t open;        /* connections now */
    size_t working;     /* requests in a handler's hands now */
};

/* ---- server ---- */

/* The loop and `config.arg` must outlive the server. SIGPIPE is ignored from here on, unless the
 * process handles it: libuv writes with write(). */
int mp__http_server_new(uv_loop_t *loop, const struct mp__http_config *config,
                        struct mp__http_server **out);

/* "127.0.0.1:8080", "[::1]:0", "localhost:8080", ":8080" (127.0.0.1) or "unix:/path". Port 0: the
 * kernel chooses. A socket file that nobody listens on any more is replaced. UV_EINVAL: no such
 * form. Once a server. */
int mp__http_server_listen(struct mp__http_server *s, const char *address);
int mp__http_server_port(const struct mp__http_server *s);        /* 0 for unix sockets */
const char *mp__http_server_url(const struct mp__http_server *s); /* "http://127.0.0.1:8080" */

/* Stops listening, closes idle connections; each request being worked on is the last of its
 * connection. mp__http_stats.open falls to 0 when all are through. */
void mp__http_server_stop(struct mp__http_server *s);

/* Closes everything, telling handlers by on_gone; when all handles are closed and all requests
 * ended, frees the server and then calls cb (may be NULL). */
void mp__http_server_close(struct mp__http_server *s, void (*cb)(void *arg), void *arg);

/* Nothing is being answered. */
int mp__http_server_quiet(const struct mp__http_server *s);
void mp__http_server_stats(const struct mp__http_server *s, struct mp__http_stats *out);

/* ---- request ---- */

/* The first header of that (lower-case) name, or NULL. */
const char *mp__http_header(const struct mp__http_request *req, const char *name);
/* "127.0.0.1:40312", or "unix". Returns out. */
const char *mp__http_peer(const struct mp__http_request *req, char *out, size_t n);

/* ---- reply ----
 *
 * The framing headers (content-length, transfer-encoding, keep-alive, date) are the server's own
 * and ignored in `headers`; "connection: close" is obeyed. A name or value with a line break, or a
 * status outside 200..599, is UV_EINVAL: nothing was sent and the request is still to be ended. It
 * is over after every other result. Bytes are copied only as far as the socket did not take them.
 */
int mp__http_reply(struct mp__http_request *req, int status, const struct mp__http_header *headers,
                   size_t nheaders, const void *body, size_t len);

/* A streamed reply: chunked, or up to the end of the connection for HTTP/1.0. Whatever it returns,
 * mp__http_end or mp__http_abort is still to come. */
int mp__http_start(struct mp__http_request *req, int status, const struct mp__http_header *headers,
                   size_t nheaders);
/* 0: go on; 1: taken, but wait for on_drain before more; < 0: the client has gone. */
int mp__http_write(struct mp__http_request *req, const void *data, size_t len);
void mp__http_end(struct mp__http_request *req);

/* Drops the connection without more words; the request is over. */
void mp__http_abort(struct mp__http_request *req);

/* ---- faults, for servers that must misbehave ---- */

enum mp__http_fault_end {
    MP_HTTP_FINISH = 0, /* the rest as it should be */
    MP_HTTP_RESET,      /* RST (SO_LINGER 0); a plain close on unix sockets */
    MP_HTTP_CLOSE,      /* an orderly close, too early */
    MP_HTTP_HANG        /* silence until the client leaves */
};

struct mp__http_fault {
    double delay;   /* before the first byte of the head */
    size_t chunk;   /* > 0: chunked coding, this many body bytes a chunk; else content-length */
    size_t dribble; /* > 0: this many bytes a write, one write a turn of the loop */
    double gap;     /* between two such writes */
    size_t cut;     /* body bytes sent before `end`; SIZE_MAX: all of them */
    int end;        /* enum mp__http_fault_end */
    int raw;        /* `body` is the whole reply, head included; the connection closes after it */
};

/* The request is over for the caller at once, as with mp__http_reply. */
int mp__http_reply_fault(struct mp__http_request *req, int status,
                         const struct mp__http_header *headers, size_t nheaders, const void *body,
                         size_t len, const struct mp__http_fault *fault);

#endif

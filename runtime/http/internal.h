/*
 * internal.h - what the files of the HTTP server share.
 *
 * server.c owns the listener and the clocks, conn.c a connection's life, parse.c turns bytes into a
 * request, reply.c writes answers, fault.c writes bad ones.
 */
#ifndef MP_HTTP_INTERNAL_H
#define MP_HTTP_INTERNAL_H

#include "base/buf.h"
#include "base/list.h"
#include "http/http.h"

#include <llhttp.h>

#define MP__READ_SIZE   65536
#define MP__KEEP_BODY   65536 /* a larger body buffer is not kept between requests */
#define MP__KEEP_HEAD   16384
#define MP__SPARE_CONNS 256

/* What a connection's clock is measuring. Each kind has one length, so a list ordered by start is
 * also ordered by end and the server needs one timer for all. */
enum mp__clock { MP__C_IDLE, MP__C_HEAD, MP__C_BODY, MP__C_WRITE, MP__C_LINGER, MP__C_COUNT };
#define MP__C_NONE MP__C_COUNT

/* What the raw lines of a head are watched for, which llhttp lets pass. */
enum mp__lines { MP__L_REQUEST, MP__L_HEADERS, MP__L_OVER };

enum mp__conn_state {
    MP__S_IDLE, /* between requests */
    MP__S_HEAD, /* some of a head is here */
    MP__S_BODY,
    MP__S_READY,  /* a whole request, not yet handed out */
    MP__S_WORK,   /* the handler has it */
    MP__S_FLUSH,  /* answered, not all of it written */
    MP__S_LINGER, /* we said our last word; what still comes is thrown away */
    MP__S_CLOSED
};

struct mp__fault_job;

struct mp__conn {
    struct mp__http_request req; /* first: the public pointer is this one */
    struct mp__http_server *server;
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    } uv;
    uv_shutdown_t shutdown;
    struct mp__link all;   /* in server->conns */
    struct mp__link clock; /* in server->clocks[clock_kind] */
    uint64_t since;        /* ms of the loop, when the clock was set */
    size_t queue_then;     /* uv's write queue when the write clock was set */
    uint8_t clock_kind;    /* enum mp__clock */
    uint8_t state;         /* enum mp__conn_state */
    uint8_t reading;
    uint8_t feeding; /* inside the parse loop: who finishes a request must not start another */
    uint8_t keep_alive;
    uint8_t gone; /* the client was seen leaving */
    uint8_t is_tcp;
    uint8_t handle_open;
    uint8_t req_out;   /* a handler holds req: the struct must stay */
    uint8_t is_head;   /* the method is HEAD */
    uint8_t streaming; /* 1: chunked; 2: up to the connection's end */
    uint8_t full;      /* mp__http_write said 1 */
    uint8_t shut;      /* the shutdown request is out */
    uint8_t in_field;  /* the parser is inside a header's name */
    uint8_t wants_continue;
    uint8_t used;        /* has sent a request */
    uint8_t last_words;  /* the input had ended when its first request came */
    uint8_t half_closed; /* it sends no more, and waits for its reply */
    uint8_t lines;       /* enum mp__lines */
    uint8_t line_last;   /* the byte before, while in the request line */
    uint32_t line_n;     /* bytes of the line under way, at most 2 are counted */
    uint64_t body_since; /* ms of the loop */

    llhttp_t parser;
    int fail;              /* status to answer instead of handing out, 0: none */
    size_t raw;            /* bytes fed in this state, framing included */
    struct mp__buf head;   /* url, then name NUL value NUL ... */
    const char *piece;     /* start of the bytes being parsed */
    const char *value_end; /* of the last value span; NULL: the end of the piece before */
    size_t nheaders;
    uint32_t *offsets; /* nheaders pairs into head, which may move while it grows */
    struct mp__http_header *headers;
    struct mp__buf body;
    struct mp__buf held; /* bytes of later requests */
    size_t pending;      /* reply bytes in our uv_write requests */
    struct mp__fault_job *job;
};

struct mp__http_server {
    uv_loop_t *loop;
    struct mp__http_config config;
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    } uv;
    uv_timer_t timer;
    uint64_t timer_at; /* ms of the loop, 0: not running */
    int listening, stopping, closing, is_tcp;
    size_t writing; /* connections in MP__S_FLUSH */
    size_t handles; /* open: timer, listener, connections, faults' timers */
    struct mp__link conns;
    struct mp__link clocks[MP__C_COUNT];
    uint64_t clock_ms[MP__C_COUNT];
    struct mp__link spare; /* mp__conn.all */
    size_t nspare;
    struct mp__conn *reserve; /* to turn a client away when there is no memory for another */
    int missed;               /* one waits to be turned away: libuv reports no more until then */
    llhttp_settings_t settings;
    struct mp__http_stats stats;
    struct mp__buf scratch; /* the head of the reply being written */
    int64_t date_at;
    char date[40];
    int port;
    char url[160];
    void (*close_cb)(void *arg);
    void *close_arg;
    char read_buf[MP__READ_SIZE];
};

/* 0 or UV_ENOMEM */
static inline int mp__bytes_add(struct mp__buf *b, const void *p, size_t n)
{
    return mp__buf_add(b, p, n) != 0 ? UV_ENOMEM : 0;
}

/* server.c */
void mp__server_clock(struct mp__conn *c, enum mp__clock kind); /* MP__C_NONE: off */
void mp__server_quiet(struct mp__http_server *s);               /* a reply is over: the last one? */
void mp__server_released(struct mp__http_server *s); /* a handle closed or a request ended */

/* conn.c */
struct mp__conn *mp__conn_new(struct mp__http_server *s); /* NULL: out of memory */
void mp__conn_accept(struct mp__http_server *s);
void mp__conn_close(struct mp__conn *c);
void mp__conn_reset(struct mp__conn *c);
void mp__conn_linger(struct mp__conn *c);
void mp__conn_gone(struct mp__conn *c);
void mp__conn_ended(struct mp__conn *c); /* the reply is all handed over */
void mp__conn_expired(struct mp__conn *c);
void mp__conn_free(struct mp__conn *c);

/* Writes now what the socket takes, queues a copy of the rest. 0 or the error, which closed c. */
int mp__conn_write(struct mp__conn *c, uv_buf_t *bufs, unsigned int n);

/* parse.c */
void mp__parse_settings(llhttp_settings_t *settings);
void mp__parse_start(struct mp__conn *c);
/* Eats bytes up to the end of one request; sets state and fail. */
size_t mp__parse(struct mp__conn *c, const char *p, size_t n);

/* reply.c */
void mp__reply_fail(struct mp__conn *c, int status); /* the server's own words, then the end */
int mp__reply_head(struct mp__conn *c, int status, const struct mp__http_header *headers,
                   size_t nheaders, int64_t length); /* into scratch; length -1: streamed */

/* fault.c */
void mp__fault_cancel(struct mp__conn *c);

#endif

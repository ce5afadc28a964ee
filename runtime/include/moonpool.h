/*
 * moonpool.h - the embedding runtime's engine for C programs.
 *
 * An engine drives many HTTP calls over pooled connections on one event loop. A call is a list of
 * rows (texts, or whole request bodies); the engine cuts it into parts (one HTTP request each),
 * retries and hedges them by policy, and decodes vectors straight into one float32 matrix.
 *
 * Threads: one engine, one loop, one thread. No call blocks but mp_wait(). Only mp_cancel's
 * ticket, never a pointer, refers to a call after submission, so a late cancel is harmless.
 *
 * Every struct that a caller fills begins with its own size (MP_INIT does it), so it can grow
 * without breaking programs compiled against an older header. Durations are seconds (double),
 * zero means "the default"; negative means "none" where that makes sense.
 */
#ifndef MOONPOOL_H
#define MOONPOOL_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__) && !defined(MP_STATIC)
#define MP_API __attribute__((visibility("default")))
#else
#define MP_API
#endif

/* ---- version ---------------------------------------------------------------------------- */

#define MP_VERSION_STRING "0.1.0"

MP_API const char *mp_version(void);
/* The size of "mp_request" and so on, for those who declare structs without this header (FFI): where
 * it differs from theirs they are of another version. 0: unknown. */
MP_API size_t mp_struct_size(const char *name);

/* ---- errors ----------------------------------------------------------------------------- */

/* What an API call itself returns; the fate of a request is an enum mp_kind. */
enum mp_err {
    MP_OK = 0,
    MP_EINVAL = -1, /* an argument makes no sense; mp_last_error() names it */
    MP_EAGAIN = -2, /* a bound is reached: try again after a completion */
    MP_ENOMEM = -3,
    MP_ECLOSED = -4, /* the engine or client is closing */
    MP_EFORK = -5,   /* the engine was made before a fork */
    MP_ESYS = -6     /* the system refused (file, socket); errno tells */
};

/* How a request ended, in the words of the Lua interface. */
enum mp_kind {
    MP_KIND_NONE = 0,
    MP_KIND_INVALID,
    MP_KIND_CONNECT,
    MP_KIND_CONNECT_TIMEOUT,
    MP_KIND_READ_TIMEOUT,
    MP_KIND_WRITE_TIMEOUT,
    MP_KIND_POOL_TIMEOUT,
    MP_KIND_TOTAL_TIMEOUT,
    MP_KIND_HTTP,
    MP_KIND_DECODE,
    MP_KIND_TLS,
    MP_KIND_TOO_LARGE,
    MP_KIND_RATE_LIMITED,
    MP_KIND_BUDGET,
    MP_KIND_BREAKER_OPEN,
    MP_KIND_CANCELLED,
    MP_KIND_CLOSED,
    MP_KIND_COUNT
};

MP_API const char *mp_kind_name(enum mp_kind kind); /* "connect_timeout", ... */
MP_API const char *mp_strerror(int err);

/* ---- bytes ------------------------------------------------------------------------------ */

struct mp_str {
    const char *p;
    size_t n;
};

struct mp_header {
    const char *name;
    const char *value; /* NULL removes a default header of that name */
};

/* ---- matrix: a counted block of float32 rows, 64-byte aligned ---------------------------- */

typedef struct mp_matrix mp_matrix;

MP_API mp_matrix *mp_matrix_new(size_t rows, size_t cols); /* zeroed; NULL: out of memory */
MP_API mp_matrix *mp_matrix_ref(mp_matrix *m);
MP_API void mp_matrix_unref(mp_matrix *m); /* NULL is fine */
MP_API float *mp_matrix_data(mp_matrix *m);
MP_API size_t mp_matrix_rows(const mp_matrix *m);
MP_API size_t mp_matrix_cols(const mp_matrix *m);

/* ---- replies: rows of a matrix as the body that a service would answer ------------------- */

enum mp_reply_style {
    MP_REPLY_OPENAI =
        0,           /* {"object":"list","data":[{"index":0,"embedding":...}],"model","usage"} */
    MP_REPLY_TEI,    /* [[...],[...]] */
    MP_REPLY_COHERE, /* {"id","embeddings":{"float":[...]},"meta"} */
    MP_REPLY_OLLAMA  /* {"model","embeddings":[...],"prompt_eval_count"} */
};

enum mp_reply_format {
    MP_FORMAT_FLOAT = 0, /* the shortest decimal text that reads back as the same float32 */
    MP_FORMAT_BASE64,    /* of the row's little-endian bytes; styles openai and cohere */
    MP_FORMAT_BYTES      /* the rows' bytes and nothing else, whatever the style */
};

struct mp_reply {
    size_t size;
    mp_matrix *matrix;
    const size_t
        *rows; /* 0-based, in the order of the reply; NULL: nrows of them from `first` on */
    size_t first;
    size_t nrows;    /* 0 without `rows`: all from `first` on */
    uint32_t style;  /* enum mp_reply_style */
    uint32_t format; /* enum mp_reply_format */
    const char *model, *id;
    int64_t prompt_tokens, total_tokens; /* < 0: not known */
    double total_time;                   /* s, for styles that say it */
};

/* Writes the body into memory that mp_free gives back. MP_EINVAL: mp_last_error() names the field,
 * or the row that holds NaN or infinity (a failed row), which no style can express. */
MP_API int mp_reply_write(const struct mp_reply *reply, char **out, size_t *n);
MP_API void mp_free(void *p);

/* ---- policy: data, compiled from declarations -------------------------------------------- */

#define MP_STATUS_WORDS 20 /* bits for statuses 0..639 */

/* Faults without a status: the request never left (no address, no connection); a timeout of an
 * attempt; the connection broke, or a 2xx reply was not what was asked for. */
enum mp_fault_bits {
    MP_FAULT_CONNECT = 1,
    MP_FAULT_TIMEOUT = 2,
    MP_FAULT_LOST = 4,
    MP_FAULT_ANY = 7
};

struct mp_retry_policy {
    uint32_t max_attempts;   /* the first included; 1: no retry. Default 6 */
    double base;             /* s, full jitter: rand(0, min(cap, base * 2^(n-1))). Default 0.25 */
    double throttle_base;    /* the same after 429 and friends. Default 1 */
    double cap;              /* s. Default 30 */
    double max_server_delay; /* a Retry-After above this is not waited for. Default 120 */
    double budget;           /* tokens earned by a first attempt. Default 0.1 */
    double reserve;          /* tokens at the start. Default 10 */
    double budget_cap;       /* tokens at most. Default 100 */
    uint32_t on[MP_STATUS_WORDS]; /* statuses retried. Default 408 409 425 429 5xx */
    uint8_t transport;            /* enum mp_fault_bits that are retried. Default any */
    uint8_t respect_retry_after;  /* Default 1 */
    uint8_t fail_fast; /* empty budget: 0 parks the part, 1 fails it with MP_KIND_BUDGET */
    uint8_t pad;
};

struct mp_hedge_policy {
    double delay;      /* fixed, s; 0: use factor */
    double factor;     /* delay = factor * percentile of live latency; both 0: hedging off */
    double percentile; /* 0..1, for example 0.95 */
    double budget;     /* hedges per first attempt. Default 0.05 */
    double reserve;    /* hedge tokens at the start. Default 2 */
};

struct mp_rate_policy {
    double rpm;      /* requests a minute, 0: no limit */
    double tpm;      /* tokens a minute, 0: no limit */
    double share;    /* of the limit to use. Default 0.95 */
    const char *key; /* clients with the same key share one bucket; NULL: this client's own */
};

enum mp_concurrency_mode { MP_CONC_OFF = 0, MP_CONC_FIXED, MP_CONC_ADAPTIVE };

struct mp_concurrency_policy {
    uint32_t mode;  /* enum mp_concurrency_mode; per endpoint */
    uint32_t limit; /* fixed: the limit. adaptive: the start, default 4 */
    uint32_t max;   /* adaptive: default 256 */
    uint32_t min;   /* adaptive: default 1 */
};

struct mp_batch_policy {
    uint32_t size; /* rows a request, default 128 */
    uint32_t pad;
    uint64_t chars;  /* Unicode scalar values a request, 0: no limit */
    uint64_t tokens; /* estimated tokens a request, 0: no limit */
    uint64_t bytes;  /* body bytes a request, 0: no limit */
    double max_wait; /* s, for coalescing */
};

struct mp_breaker_policy {
    uint32_t enabled;
    uint32_t consecutive;  /* failures in a row that open it. Default 5 */
    double ratio;          /* or this share of failures. Default 0.5 */
    uint32_t min_requests; /* of at least so many in the window. Default 20 */
    uint32_t pad;
    double window;   /* s. Default 10 */
    double open;     /* s before the first probe. Default 5 */
    double open_max; /* s, doubling up to. Default 60 */
};

enum mp_route_mode {
    MP_ROUTE_WEIGHTED = 0, /* weighted, deterministic by ticket */
    MP_ROUTE_LEAST,        /* least in flight for its weight */
    MP_ROUTE_P2C,          /* the better of two random choices */
    MP_ROUTE_STICKY        /* first attempts of one call stay on one endpoint */
};

struct mp_route_policy {
    uint32_t mode;
    uint32_t eject; /* passive ejection on, default 1 with several endpoints */
};

struct mp_policy {
    size_t size;
    struct mp_retry_policy retry;
    struct mp_hedge_policy hedge;
    struct mp_rate_policy rate;
    struct mp_concurrency_policy concurrency;
    struct mp_batch_policy batch;
    struct mp_breaker_policy breaker;
    struct mp_route_policy route;
};

enum mp_preset { MP_PRESET_JOB = 0, MP_PRESET_GATEWAY, MP_PRESET_INTERACTIVE, MP_PRESET_NONE };

/* Fills every field with the preset's defaults. */
MP_API void mp_policy_init(struct mp_policy *policy, enum mp_preset preset);

/* The same from JSON, in the words of the Lua library: {"preset": "gateway", "retry": {"on": [429,
 * "5xx"]}, "hedge": {"after": "2*p95"}, "breaker": false}. MP_EINVAL: mp_last_error() names the
 * option, and *policy is as before. */
MP_API int mp_policy_json(struct mp_policy *policy, const char *json, size_t n);

MP_API void mp_status_set(uint32_t *bits, unsigned status, int on);
MP_API int mp_status_has(const uint32_t *bits, unsigned status);

/* ---- engine ----------------------------------------------------------------------------- */

typedef struct mp_engine mp_engine;
typedef struct mp_pool mp_pool;
typedef struct mp_client mp_client;

/* A struct of zeros that knows its size. */
#ifdef __cplusplus
extern "C++" {
template <class T> inline T mp_init_of()
{
    T zeros = T();
    zeros.size = sizeof(T);
    return zeros;
}
}
#define MP_INIT(type) mp_init_of<type>()
#else
#define MP_INIT(type)                                                                              \
    (type)                                                                                         \
    {                                                                                              \
        .size = sizeof(type)                                                                       \
    }
#endif

enum mp_log_level { MP_LOG_TRACE, MP_LOG_DEBUG, MP_LOG_INFO, MP_LOG_WARN, MP_LOG_ERROR };

struct mp_config {
    size_t size;
    uint32_t max_calls;          /* open at once; beyond: MP_EAGAIN. Default 1,000,000 */
    uint64_t max_queued_bytes;   /* copied inputs of open calls; beyond: MP_EAGAIN. 1 GiB */
    uint64_t max_response_bytes; /* decoded bytes of one response; beyond: TOO_LARGE. 64 MiB */
    uint64_t max_matrix_bytes;   /* one call's matrix; beyond: TOO_LARGE. 16 GiB */
    uint64_t seed;               /* of jitter and ids; 0: from the system */
    void (*log)(void *arg, enum mp_log_level level, const char *message);
    void *log_arg;
    enum mp_log_level log_level; /* only this and above are formatted */
};

/* An engine with a loop of its own, run by mp_wait(). config may be NULL. NULL: out of memory or
 * the system refused (errno). Make it after fork(), never before. */
MP_API mp_engine *mp_engine_new(const struct mp_config *config);

/* Cancels what is open (each call still completes, with CLOSED) and tears down; `cb` runs on the
 * loop when nothing is left, then the engine is freed. An engine with its own loop is driven to
 * that end inside this call, or, from inside a callback, by the mp_wait around it (MP_ECLOSED). */
MP_API void mp_engine_close(mp_engine *engine, void (*cb)(void *arg), void *arg);

/* Runs an engine's own loop until a completion was delivered or can be polled: 1; nothing is open:
 * 0; timeout_ms passed (-1: none): 0; else an enum mp_err. */
MP_API int mp_wait(mp_engine *engine, int timeout_ms);

/* From now on no engine of this process connects to a loopback, link-local, private or otherwise
 * special address, nor to a unix socket, but for those listed ("10.0.0.0/8", "127.0.0.1:8089",
 * "[::1]:80"), whatever names, redirects and proxies say. For programs that run scripts of others;
 * call it before the first request. MP_EINVAL: mp_last_error() names the entry. */
MP_API int mp_restrict_addresses(const char *const *allowed, size_t n);

/* ---- pool: connections, shared by clients ----------------------------------------------- */

struct mp_pool_config {
    size_t size;
    uint32_t max_connections; /* in use at once. Default 256 */
    uint32_t max_idle;        /* kept alive unused. Default 128 */
    double idle_timeout;      /* s. Default 30 */
    double max_age;           /* s a connection is reused, 0: no limit */
    uint32_t lane_size;       /* connections a curl multi handle, default 64 */
};

MP_API mp_pool *mp_pool_new(mp_engine *engine, const struct mp_pool_config *config);
MP_API void mp_pool_unref(mp_pool *pool); /* clients hold their own references */

/* ---- client: endpoints, defaults --------------------------------------------------------- */

struct mp_timeouts { /* s; 0: the default, < 0: none */
    double connect;  /* to an established connection, name and TLS included. 10 */
    double read;     /* between two bytes of the reply. 60 */
    double write;    /* between two bytes of the request. 30 */
    double pool;     /* from admission to a connection. 10 */
    double attempt;  /* one attempt. None */
    double total;    /* the call. None */
};

struct mp_tls_config {
    uint8_t no_verify; /* 1: certificates are not checked (logged once as a warning) */
    const char *ca_file, *cert_file, *key_file;
};

struct mp_endpoint_config {
    const char *base_url; /* http(s)://host[:port][/prefix], or unix:/path[:/prefix] */
    double weight;        /* share of the traffic, all 0: equal shares; 0 among others: a spare */
    const struct mp_header *headers; /* this endpoint's only, for example its key */
    size_t nheaders;
    const char *health_path; /* set: active health checks by GET */
    double health_interval, health_timeout;
};

struct mp_client_config {
    size_t size;
    const struct mp_endpoint_config *endpoints; /* at least one; copied */
    size_t nendpoints;
    mp_pool *pool; /* NULL: one of its own with pool_config */
    const struct mp_pool_config *pool_config;
    const struct mp_header *headers;
    size_t nheaders;
    struct mp_timeouts timeouts;
    const struct mp_policy *policy; /* NULL: preset job */
    struct mp_tls_config tls;
    const char *proxy_http, *proxy_https; /* NULL: from the environment; "": none */
    const char *no_proxy;
    const char *accept_encoding;    /* NULL: "gzip, zstd"; "": none */
    int http_version;               /* 1 (default) or 2 */
    const char *request_id_header;  /* NULL: x-request-id; "": none */
    const char *request_id_prefix;  /* NULL: moonpool */
    const char *idempotency_header; /* NULL: none; the key is the same for all attempts of a part */
    uint8_t deadline_headers;       /* send Request-Timeout-Ms and Request-Deadline-Ms */
    const char *rate_key;
    const void *hooks; /* for the binding: struct mp__hooks of engine/hooks.h, by reference */
    const char
        *shared; /* a file (say in /dev/shm, mode 0600): processes that name it keep one rate and
                           one pause an endpoint; made if it is not there. NULL: none */
};

/* MP_EINVAL: mp_last_error() names the field. */
MP_API int mp_client_new(mp_engine *engine, const struct mp_client_config *config, mp_client **out);
/* Open calls end with CLOSED; the memory goes when the last of them is delivered. */
MP_API void mp_client_close(mp_client *client);

/* What was wrong with the last refused argument on this thread; "" if nothing. */
MP_API const char *mp_last_error(void);

/* ---- calls ------------------------------------------------------------------------------- */

enum mp_body_mode {
    MP_BODY_WHOLE = 0, /* each row is the body of a request of its own; p NULL: no body */
    MP_BODY_JOIN       /* rows joined by commas between prefix and suffix, by batch policy */
};

enum mp_row_style {
    MP_ROW_STRING = 0, /* UTF-8 text, becomes a JSON string */
    MP_ROW_WRAPPED,    /* UTF-8 text, becomes a list of one JSON string */
    MP_ROW_JSON        /* JSON already, copied as it is */
};

enum mp_dtype { MP_F32 = 0, MP_I8, MP_U8, MP_BITS };

enum mp_layout {
    MP_LAYOUT_LIST = 0, /* a list of vectors, or of objects that hold them */
    MP_LAYOUT_ONE,      /* one vector, at the list's path */
    MP_LAYOUT_TENSOR, /* a list of vectors, or of all their numbers; or, if `header` is there and says
                           how long the JSON is, bytes behind it */
    MP_LAYOUT_PACKED /* bytes, their places in `header`; without it as MP_LAYOUT_LIST */
};

struct mp_vectors {     /* where a reply carries its vectors; the strings must outlive the call */
    const char *list;   /* dotted path from the root, "a|b" for alternatives, "" for the root; a
                           number in a path is a place in an array */
    const char *vector; /* path in an item; NULL: the item is the vector */
    const char *index;  /* path of the item's 0-based position; NULL: positional */
    uint32_t dtype;
    uint32_t dimensions;       /* expected, 0: learn */
    uint32_t layout;           /* enum mp_layout */
    const char *header;        /* of the reply, that a layout of bytes needs */
    const char *tokens;        /* path in an item of its count of tokens */
    const char *cut;           /* path in an item of "was truncated" */
    const char *dims, *kind;   /* of a tensor: paths of its sizes and of its type's name */
    const char *usage;         /* path of the request's count of tokens, where it is not usual */
    const char *tokens_header; /* the same as a header of the reply */
};

struct mp_exchange { /* how one part ended */
    uint64_t first;  /* rows first .. first+count-1 of the call, 0-based */
    uint32_t count;
    uint16_t kind;  /* enum mp_kind; 0: fine */
    int16_t status; /* of the last reply, 0: none */
    uint16_t attempts;
    uint16_t hedges;
    uint16_t endpoint;
    uint8_t retryable; /* whether trying again later makes sense */
    uint8_t hedge_won;
    float time;        /* s from admission to the end, backoff included */
    float retry_after; /* s the server asked for, < 0: none */
    uint32_t head_len; /* "name: value\n" lines of the last reply's headers */
    uint32_t message_len;
    size_t body_len;  /* of a kept body: bodies mode, or the reply of a failed part (bounded) */
    const char *data; /* head, then message NUL, then request id NUL, then body NUL */
};

MP_API const char *mp_exchange_head(const struct mp_exchange *x);
MP_API const char *mp_exchange_message(const struct mp_exchange *x);
MP_API const char *mp_exchange_request_id(const struct mp_exchange *x);
MP_API const char *mp_exchange_body(const struct mp_exchange *x);

struct mp_row_error { /* a row without a vector in a reply that was good for others */
    uint64_t row;
    const char *message; /* NULL: there was no memory for it */
};

struct mp_result {
    uint64_t ticket;
    enum mp_kind kind; /* NONE: ran to its end. CANCELLED, TOTAL_TIMEOUT, CLOSED: cut short; rows
                          that no exchange covers share this fate */
    uint32_t dimensions;
    uint64_t rows;
    uint64_t rows_ok;
    mp_matrix *matrix; /* vectors mode, rows x dimensions, failed rows NaN; NULL: nothing decoded.
                          Take a reference to keep it */
    struct mp_exchange *exchanges; /* sorted by first */
    size_t nexchanges;
    int64_t prompt_tokens, total_tokens; /* sums; -1: never said */
    uint64_t rows_cut;                   /* rows that the server says it truncated */
    const char *model;                   /* as the first reply says, or NULL */
    double total_time;
    int kept;           /* private */
    uint64_t first_row; /* of the matrix: where row 0 stands. 0 but for a batcher's, whose matrix is
                           shared by everybody in the same request */
    struct mp_row_error *faults; /* sorted by row; their exchanges are fine */
    size_t nfaults;
    /* kind is another: nothing was ever answered, and a fault that no row can cause (a wrong key, no
     * server) made going on useless. Its words and status; NULL: none */
    const char *words;
    int status;
};

typedef void mp_done_fn(void *arg, const struct mp_result *result);

/* Gives row `row` its body just before it is sent (again on each attempt): 0 and *out, valid until
 * the next call of it; or nonzero: the row fails with INVALID and the message in out->p. */
typedef int mp_source_fn(void *arg, uint64_t row, struct mp_str *out);

enum mp_request_flags {
    MP_BORROW = 1,         /* rows, prefix and suffix stay valid until completion: not copied */
    MP_NO_SPLIT = 2,       /* never cut a refused part in two */
    MP_ONE_REQUEST = 4,    /* all rows in one request, whatever the batch policy says */
    MP_IDEMPOTENT = 8,     /* may be hedged */
    MP_NO_HEADERS = 16,    /* do not keep response headers */
    MP_HELD = 64,          /* a bridge: fetched by mp_bridge_take, not by mp_bridge_poll */
    MP_SERVICE_PATH = 128, /* the path is the service's own: a base URL may end in it */
    MP_TRUST = 256,        /* vectors of zeros, and one vector for different texts, are taken */
    MP_BIG_REPLY = 32      /* expect replies of more than 64 KiB: larger receive buffers */
};

struct mp_request {
    size_t size;
    mp_client *client;
    const char *method; /* default POST */
    const char *path;   /* joined to the endpoint's base URL */
    const struct mp_header *headers;
    size_t nheaders;
    uint32_t mode; /* enum mp_body_mode */
    uint32_t row_style;
    uint32_t flags;
    uint32_t max_concurrent; /* requests of this call in flight, default 128 */
    const struct mp_str *rows;
    size_t nrows;
    mp_source_fn *source; /* MP_BODY_WHOLE without rows */
    void *source_arg;
    /* MP_BODY_WHOLE: headers of single rows, nrows entries or NULL; read before each attempt. *n
     * SIZE_MAX: they cannot be had, and the row is not sent */
    const struct mp_header *(*row_headers)(void *arg, uint64_t row, size_t *n);
    struct mp_str prefix, suffix;
    struct mp_str row_prefix, row_suffix; /* around each row */
    struct mp_str tail; /* p set: the number of the request's rows, then this, follow the suffix */
    /* Of the suffix, bytes that may be left out: ,"field":value. A server that refuses them is asked
     * again without at once, and the client leaves them out from then on. */
    size_t optional_at, optional_n;
    const struct mp_vectors *vectors;   /* NULL: replies are kept as bytes */
    const struct mp_policy *policy;     /* NULL: the client's; must outlive the call */
    const struct mp_timeouts *timeouts; /* NULL: the client's; zero fields: the client's */
    mp_done_fn *done;                   /* NULL: the result is fetched by mp_poll */
    void *arg;
    /* A call of one row may take the bytes of a 2xx reply as they come instead of keeping them. The
     * attempt is not repeated once `head` has run. Both run inside the transport: they may copy
     * and flag, and call nothing of this header. chunk returns 0 to go on, or 1: taken, but no
     * more before mp_resume (the server is then held back by its connection). */
    void (*head)(void *arg, int status, const char *head, size_t head_len);
    int (*chunk)(void *arg, const char *p, size_t n);
    const void *hooks; /* for the binding, as the client's; NULL: the client's */
    /* Limits of request sizes that the server does not tell are learnt for a path and this name,
     * say of the model; NULL: for the path. */
    const char *model;
};

/* Takes the call in: MP_OK and its ticket, MP_EAGAIN at a bound, MP_EINVAL (mp_last_error()).
 * `done` never runs before mp_submit returns. */
MP_API int mp_submit(mp_engine *engine, const struct mp_request *request, uint64_t *ticket);

/* Ends the call with CANCELLED, soon and by its ordinary completion. Idempotent, never blocks; an
 * unknown or finished ticket is ignored. */
MP_API void mp_cancel(mp_engine *engine, uint64_t ticket);

/* Lets a streamed reply go on; `chunk` may run before this returns. Unknown tickets are ignored. */
MP_API void mp_resume(mp_engine *engine, uint64_t ticket);

struct mp_completion {
    uint64_t ticket;
    void *arg;
    struct mp_result *result; /* yours: mp_result_free */
};

/* Takes up to max finished calls that have no `done`. Never blocks. */
MP_API int mp_poll(mp_engine *engine, struct mp_completion *out, int max);
MP_API void mp_result_free(struct mp_result *result);
/* Inside `done`: keep the result beyond it (then mp_result_free it). */
MP_API struct mp_result *mp_result_keep(const struct mp_result *result);

/* All rows of a result as the body of a reply, as mp_reply_write does; model NULL: as the server said.
 * MP_EINVAL also where a row failed. */
MP_API int mp_result_reply(const struct mp_result *result, uint32_t style, uint32_t format,
                           const char *model, char **out, size_t *n);

/* ---- batcher: the rows of many callers in few requests -------------------------------------

 * Submissions whose requests would be the same but for their rows are joined. While one of `slots`
 * is free what there is goes out at the end of the engine's turn; while all are busy rows gather.
 * A submission of up to batch.size rows is never cut: its vectors are a view of the shared matrix
 * (result->matrix from row result->first_row on), usage is shared out by the bytes of the rows so
 * that it sums exactly, and what one caller's rows make the server refuse befalls that caller only:
 * the others' are sent again without them. */

typedef struct mp_batcher mp_batcher;

enum mp_single_flight {
    MP_FLIGHT_CACHE = 0, /* are asked once if there is a cache */
    MP_FLIGHT_ON,        /* are asked once */
    MP_FLIGHT_OFF        /* are asked each */
};

struct mp_batcher_config {
    size_t size;
    uint32_t slots; /* requests at once. Default 4 */
    uint32_t pad;
    struct mp_batch_policy batch; /* of a request; zero fields: as the client's policy. max_wait 0:
                                     while a slot is free nothing waits; else a request goes out when
                                     full or when its oldest row has waited so long */
    uint32_t max_waiting;         /* rows waiting; beyond: MP_EAGAIN. Default 65,536 */
    uint32_t single_flight; /* enum mp_single_flight: equal texts asked for at the same time */
    uint64_t cache_bytes;   /* vectors kept by content, oldest use goes first. 0: none */
};

/* How a submission stands among the others; all zero is fine. */
struct mp_gather {
    size_t size;
    struct mp_str group; /* more than the request that must be equal to be joined */
    struct mp_str key;   /* whose rows these are: keys take turns, row by row */
    int32_t priority;    /* -1, 0 or 1; higher goes first, but one request in 8 starts below */
    uint32_t pad;
    double max_wait; /* s; 0: the batcher's; < 0: none */
};

MP_API int mp_batcher_new(mp_client *client, const struct mp_batcher_config *config,
                          mp_batcher **out);
/* As mp_submit, for an MP_BODY_JOIN request with rows, vectors and `done`; rows are always copied,
 * `policy` and `hooks` must outlive the batcher, max_concurrent means nothing. timeouts->total is the
 * submission's own: a row not yet sent is then dropped. gather may be NULL. */
MP_API int mp_batcher_submit(mp_batcher *batcher, const struct mp_request *request,
                             const struct mp_gather *gather, uint64_t *ticket);
/* As mp_cancel; a request nobody waits for any more is cancelled with its last submission. */
MP_API void mp_batcher_cancel(mp_batcher *batcher, uint64_t ticket);
/* What is open ends with CLOSED; the memory goes with the last of them. Closing the client does so
 * too, but leaves the batcher to be closed; closing the engine closes both. */
MP_API void mp_batcher_close(mp_batcher *batcher);

struct mp_batcher_stats {
    size_t size;
    uint64_t submissions, rows;
    uint64_t requests, request_rows; /* sent upstream: their ratio is the mean batch */
    uint64_t largest;                /* rows of a request */
    uint64_t alone;                  /* submissions sent again by themselves */
    uint64_t dropped;                /* rows that were never sent: cancelled, late */
    uint64_t refused;                /* submissions answered MP_EAGAIN */
    uint64_t hits, misses, shared;   /* rows: cached, not, asked once for several */
    uint64_t cache_bytes, evicted;
    uint32_t waiting, busy; /* rows; slots */
};

MP_API void mp_batcher_stats(mp_batcher *batcher, struct mp_batcher_stats *out);

/* ---- statistics --------------------------------------------------------------------------- */

struct mp_stats {
    size_t size;
    uint64_t calls, calls_done;
    uint64_t requests; /* parts ended */
    uint64_t attempts, retries, hedges, hedges_won;
    uint64_t ok, failed;
    uint64_t bytes_sent, bytes_received; /* bodies, decoded */
    uint64_t connections_opened, connections_reused, connections_closed;
    uint64_t connects_refused, resets;
    uint64_t turns;
    double longest_turn; /* s */
    uint32_t calls_open, running, pool_waiting, connections_open;
    uint64_t queued_bytes;    /* copied inputs of open calls */
    uint64_t tcp_retransmits; /* of connections closed so far and open now */
};

MP_API void mp_stats(mp_engine *engine, struct mp_stats *out);

struct mp_client_stats {
    size_t size;
    uint64_t calls, requests, attempts, retries, hedges, hedges_won, ok, failed, throttled;
    uint64_t rows, rows_failed, bytes_sent, bytes_received;
    uint64_t connections_opened, connections_reused, connects_refused, resets;
    uint32_t in_flight, concurrency_limit, pool_waiting, connections_open;
    double p50, p90, p95, p99;           /* s, of acceptable replies of all endpoints */
    double pool_wait_p50, pool_wait_p99; /* s, of the last 30 s; -1: too few to say */
    double paused_for;                   /* s left of a server's Retry-After */
    double retry_budget;
    /* Of the pool, whoever uses it: */
    uint32_t connections_idle;
    uint32_t ports_in_use;    /* local TCP ports */
    uint64_t tcp_retransmits; /* of connections closed so far and open now */
    /* Of this client: */
    uint64_t no_local_port; /* attempts that failed for want of one */
    uint64_t pool_timeouts;
    const char *hint; /* what to change, for a minute after ports, descriptors or the pool ran out;
                         NULL: nothing. Static */
};

MP_API void mp_client_stats(mp_client *client, struct mp_client_stats *out);

/* A limit of request sizes that was learnt from refusals, see mp_request.model. */
struct mp_size_limit {
    size_t size;
    const char *path, *model; /* the client's */
    uint64_t rows, bytes;     /* a request; one of them, the other is 0 */
    int guessed;              /* from timeouts and 504, not from a refusal */
};

/* The nth (from 0), the latest used first: 1, or 0 when there are no more. */
MP_API int mp_client_limit(mp_client *client, uint32_t nth, struct mp_size_limit *out);

/* ---- bridge: an engine on a thread of its own ----------------------------------------------
 *
 * For programs that have another loop or none: an engine, one client and one batcher run on a thread
 * that blocks all signals. Everything here may be called from any thread, at any time but after
 * mp_bridge_close, and waits for nothing but a short lock. After a fork the child gets MP_EFORK. */

typedef struct mp_bridge mp_bridge;

struct mp_bridge_config {
    size_t size;
    const struct mp_config *engine;          /* NULL: defaults */
    const struct mp_client_config *client;   /* what its pointers name is copied */
    const struct mp_batcher_config *batcher; /* NULL: defaults */
    uint32_t max_open;                       /* calls not yet polled; beyond: MP_EAGAIN. 65,536 */
    uint32_t pad;
    const char
        *name; /* set: a second start of this name in this process gets the same bridge, which
                         then has to be closed as often */
    const char *note; /* kept for whoever finds it by name */
};

MP_API int mp_bridge_start(const struct mp_bridge_config *config, mp_bridge **out);
/* The same from JSON: base_url or endpoints, api_key, headers, timeout, pool, tls, proxy, policies, as
 * the Lua library's client has them (preset gateway unless said), "batch": {"slots", "max_batch",
 * "max_wait", ...}, "max_open" and "name". */
MP_API int mp_bridge_start_json(const char *json, size_t n, mp_bridge **out);
/* The running bridge of that name, to be closed once more; NULL: none in this process. */
MP_API mp_bridge *mp_bridge_find(const char *name);
MP_API const char *mp_bridge_note(mp_bridge *bridge); /* "": none */

/* Ends what is open, without completions, and the thread; waits for that. NULL is fine. */
MP_API void mp_bridge_close(mp_bridge *bridge);

/* As mp_submit, all of the request copied (client, done and source must be NULL), or, with gather,
 * as mp_batcher_submit. MP_OK: exactly one completion will come. */
MP_API int mp_bridge_submit(mp_bridge *bridge, const struct mp_request *request,
                            const struct mp_gather *gather, uint64_t *ticket);
/* Takes up to max finished calls. */
MP_API int mp_bridge_poll(mp_bridge *bridge, struct mp_completion *out, int max);
/* For MP_HELD: 1 and the completion of this one, 0: not yet, MP_EINVAL: no such ticket. */
MP_API int mp_bridge_take(mp_bridge *bridge, uint64_t ticket, struct mp_completion *out);
/* Ends the call soon, by its ordinary completion. Idempotent. */
MP_API void mp_bridge_cancel(mp_bridge *bridge, uint64_t ticket);
/* The same without a completion: nobody wants it any more. */
MP_API void mp_bridge_drop(mp_bridge *bridge, uint64_t ticket);

/* A descriptor that is readable while mp_bridge_poll would find something; for poll(), not to be
 * read or closed. -1: after a fork. */
MP_API int mp_bridge_fd(mp_bridge *bridge);

/* For programs that can read a unix socket but not watch a descriptor: makes one under `dir` (private
 * to this user) and writes its path. Connect, then call mp_bridge_bell_accept (1: that peer is this
 * process; 0: nobody has connected). From then on one byte comes when completions appear where none
 * were, and one a second as a sign of life. A new bell takes the place of the old one. */
MP_API int mp_bridge_bell(mp_bridge *bridge, const char *dir, char *path, size_t size);
MP_API int mp_bridge_bell_accept(mp_bridge *bridge);

struct mp_bridge_stats {
    size_t size;
    uint64_t submitted, completed, taken, dropped, refused;
    uint64_t bells; /* bytes or wake-ups: completed / bells is how many one serves */
    uint32_t open;  /* submitted, not yet taken */
    uint32_t ready; /* completed, not yet taken */
    /* As of a moment ago, a second at most. */
    struct mp_stats engine;
    struct mp_client_stats client;
    struct mp_batcher_stats batcher;
};

MP_API int mp_bridge_stats(mp_bridge *bridge, struct mp_bridge_stats *out);
/* The same as lines "client.retries 3"; mp_free gives the text back. */
MP_API int mp_bridge_stats_text(mp_bridge *bridge, char **out, size_t *n);

#ifdef __cplusplus
}
#endif

#endif

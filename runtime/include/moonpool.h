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

/* ---- policy: data, compiled from declarations -------------------------------------------- */

#define MP_STATUS_WORDS 20 /* bits for statuses 0..639 */

struct mp_retry_policy {
    uint32_t max_attempts;  /* the first included; 1: no retry. Default 6 */
    double base;            /* s, full jitter: rand(0, min(cap, base * 2^(n-1))). Default 0.25 */
    double throttle_base;   /* the same after 429 and friends. Default 1 */
    double cap;             /* s. Default 30 */
    double max_server_delay; /* a Retry-After above this is not waited for. Default 120 */
    double budget;          /* tokens earned by a first attempt. Default 0.1 */
    double reserve;         /* tokens at the start. Default 10 */
    double budget_cap;      /* tokens at most. Default 100 */
    uint32_t on[MP_STATUS_WORDS]; /* statuses retried. Default 408 409 425 429 5xx */
    uint8_t transport;      /* retry connect, TLS-less transport and timeout faults. Default 1 */
    uint8_t respect_retry_after; /* Default 1 */
    uint8_t fail_fast;      /* empty budget: 0 parks the part, 1 fails it with MP_KIND_BUDGET */
    uint8_t pad;
};

struct mp_hedge_policy {
    double delay;  /* fixed, s; 0: use factor */
    double factor; /* delay = factor * percentile of live latency; both 0: hedging off */
    double percentile; /* 0..1, for example 0.95 */
    double budget; /* hedges per first attempt. Default 0.05 */
    double reserve; /* hedge tokens at the start. Default 2 */
};

struct mp_rate_policy {
    double rpm; /* requests a minute, 0: no limit */
    double tpm; /* tokens a minute, 0: no limit */
    double share; /* of the limit to use. Default 0.95 */
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
    uint32_t size;   /* rows a request, default 128 */
    uint32_t pad;
    uint64_t chars;  /* Unicode scalar values a request, 0: no limit */
    uint64_t tokens; /* estimated tokens a request, 0: no limit */
    uint64_t bytes;  /* body bytes a request, 0: no limit */
    double max_wait; /* s, for coalescing */
};

struct mp_breaker_policy {
    uint32_t enabled;
    uint32_t consecutive; /* failures in a row that open it. Default 5 */
    double ratio;         /* or this share of failures. Default 0.5 */
    uint32_t min_requests; /* of at least so many in the window. Default 20 */
    uint32_t pad;
    double window;  /* s. Default 10 */
    double open;    /* s before the first probe. Default 5 */
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

MP_API void mp_status_set(uint32_t *bits, unsigned status, int on);
MP_API int mp_status_has(const uint32_t *bits, unsigned status);


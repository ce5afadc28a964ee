/*
 * core.h - every decision of the engine, as a pure state machine.
 *
 * The core knows calls, parts, attempts, endpoints and pools only as counters and clocks. It makes
 * no I/O, reads no clock and uses no randomness but its own seeded generator: events go in with the
 * time they happened, actions come out. The engine drives it over sockets, the simulator over a
 * modelled server, and both run the same code.
 *
 *   call     the user's list; parts are asked for one by one (MPP_WANT_PART), at most max_concurrent
 *            of them admitted
 *   part     what one HTTP request carries: READY -> ADMITTED -> RUNNING -> (BACKOFF ->) DONE
 *   attempt  one transmission of a part; at most two of a part at once (the second is the hedge)
 *
 * A part holds one slot of its call from ADMITTED until it ends or backs off. It is admitted only
 * when its endpoint is neither paused, ejected, rate limited nor at its concurrency limit; admitted
 * it can wait for nothing but a connection of the pool, and that wait alone is what pool_timeout
 * bounds. When the pool has room an admitted part starts at once.
 *
 * Time is int64_t nanoseconds on a monotonic clock (mp__time).
 */
#ifndef MP_POLICY_CORE_H
#define MP_POLICY_CORE_H

#include "base/gcra.h"
#include "base/time.h"
#include "moonpool.h"
#include "policy/hints.h"

#include <stddef.h>
#include <stdint.h>

#define MPP_BATCH_ROWS 128 /* a request, when nobody says */
#define MPP_CALL_PARTS 128 /* of a call at once, likewise */

struct mpp_core;
struct mpp_pool;   /* connection slots, shared by clients */
struct mpp_client; /* endpoints + default policy */
struct mpp_call;
struct mpp_part;

/* ---- what an attempt came to ---- */

enum mpp_class {
    MPP_OK = 0,
    MPP_THROTTLED, /* 429, 529, 503 with a server delay */
    MPP_TRANSIENT, /* transport faults, timeouts, 408 409 425 5xx, a short or broken 2xx */
    MPP_FATAL,     /* everything that a retry does not heal */
    MPP_CANCELLED
};

enum mpp_about { MPP_ABOUT_NOTHING = 0, MPP_ABOUT_ROWS, MPP_ABOUT_BYTES };

struct mpp_outcome {
    enum mp_kind kind;      /* MP_KIND_NONE: a 2xx whose body decoded */
    int status;             /* 0: no response */
    uint8_t never_sent;     /* the request certainly did not reach the server (connect phase) */
    uint8_t unread;         /* the connection broke before the whole body was sent */
    uint8_t splittable;     /* rows > 1 and the dialect allows cutting this part in two */
    uint8_t about;          /* enum mpp_about: what the words of a refusal complain of */
    uint32_t told_rows;     /* the limit in those words, fewer than were sent; 0: none */
    uint64_t told_bytes;    /* likewise, in the bytes of a part */
    struct mpp_hints hints; /* from the response's headers; mpp_hints_init'ed when there are none */
    int64_t tokens;         /* usage.total_tokens, -1 unknown */
    uint64_t body_bytes;    /* decoded bytes received */
};

/* ---- actions ---- */

enum mpp_action_type {
    MPP_START = 1,  /* send attempt `attempt` of `part` to endpoint `endpoint` */
    MPP_ABORT,      /* stop attempt `attempt`; no mpp_attempt_done is expected for it */
    MPP_PART_DONE,  /* `part` ended: kind (NONE = ok), winner attempt; the part is freed by the next
                      mpp_next call, take what you need from it now */
    MPP_PART_SPLIT, /* `part` was refused; from now on it covers its first `keep` rows, and `other`
                      is a new part (user = NULL until the receiver sets it) with the rest */
    MPP_PART_BACK,  /* `part` is larger than the server takes: its rows are the call's again, to be
                      cut anew; the part is freed by the next mpp_next call */
    MPP_WANT_PART,  /* a slot is free for the call's next part, of at most most_rows and most_bytes
                      (0: no such limit; a single row may pass it). Answer before the next mpp_next
                      by mpp_part_give, or mpp_part_none */
    MPP_LIMIT,      /* a limit of request sizes has become known: `limit` */
    MPP_CALL_DONE,  /* every part of `call` ended; kind tells whether it was cut short
                      (TOTAL_TIMEOUT, CANCELLED, CLOSED; another: a fault that no row can cause,
                      before anything was answered, see door.c); the call is freed by the next mpp_next */
    MPP_PROBE       /* send a health check to endpoint `endpoint` of `client` */
};

struct mpp_limit {
    uint64_t key;         /* mpp_call_cfg.size_key */
    uint64_t rows, bytes; /* one of them; the other is 0 */
    int soft;             /* read from timeouts and 504 */
};

struct mpp_action {
    enum mpp_action_type type;
    struct mpp_client *client;
    struct mpp_call *call;
    struct mpp_part *part;
    struct mpp_part *other;
    uint64_t attempt;  /* never 0, never reused */
    uint32_t endpoint; /* index in the client's list */
    uint32_t keep;
    uint32_t most_rows;
    uint64_t most_bytes;
    struct mpp_limit limit;
    enum mp_kind kind;
    uint8_t retryable; /* PART_DONE: trying again later may heal its last failure */
    uint8_t is_hedge;
    uint8_t fresh_connection; /* a hedge on the same endpoint must not share a stalled connection */
};

/* ---- parts ---- */

struct mpp_part_info {
    uint64_t first;      /* of the call's rows; opaque to the core but for splitting */
    uint32_t count;      /* rows, >= 1 */
    uint32_t size_class; /* floor(log2(tokens or bytes)) + 1; 0 is fine */
    uint64_t bytes;
    double tokens; /* estimate, for the rate buckets */
    void *user;
    uint8_t last;  /* 1: no more parts after it; saves an action, 0 is always right */
    uint8_t whole; /* its rows must stay together */
    uint8_t again; /* of rows that came back: no first attempt, so it earns no budget */
};

/* The facts a receiver of an action may read. */
struct mpp_part_facts {
    struct mpp_part_info info;
    uint32_t attempts;  /* started, the first included, hedges not */
    uint32_t hedges;    /* started */
    uint32_t throttled; /* of the attempts, those that count for none: see decide.c */
    uint32_t last_endpoint;
    mp__time created;
    mp__time admitted; /* first time */
};
const struct mpp_part_facts *mpp_part_facts(const struct mpp_part *part);
void mpp_part_set_user(struct mpp_part *part, void *user);
void *mpp_call_user(const struct mpp_call *call);

/* ---- hooks: NULL when absent, one predictable branch ---- */

struct mpp_view { /* what a hook may look at; valid during the hook only */
    const struct mpp_client *client;
    void *call_user;
    const struct mpp_part_facts *part;
    const struct mpp_outcome *outcome; /* retry, classify */
    enum mpp_class cls;
    uint32_t endpoint;
    mp__time now;
    double elapsed;       /* s since the attempt started (hedge) or the part was created */
    double deadline_left; /* s, < 0: none */
    double delay;         /* what the default would do */
    double budget_level;
    uint32_t in_flight; /* on that endpoint */
};

enum mpp_verdict { MPP_DEFAULT = 0, MPP_YES, MPP_NO };

struct mpp_hooks {
    void *arg;
    /* classify: a class in *cls, delay in *delay (s, < 0 untouched) */
    enum mpp_verdict (*classify)(void *arg, const struct mpp_view *, enum mpp_class *cls,
                                 double *delay);
    enum mpp_verdict (*retry)(void *arg, const struct mpp_view *, double *delay);
    enum mpp_verdict (*hedge)(void *arg, const struct mpp_view *, double *delay); /* at start */
    /* route may be asked again before its answer comes to a request; rate is the last gate: its
     * MPP_YES is an admission. MPP_NO: the part waits *wait s, or with *wait < 0 ends with the
     * kind -*wait. */
    enum mpp_verdict (*route)(void *arg, const struct mpp_view *, uint32_t *endpoint);
    enum mpp_verdict (*rate)(void *arg, const struct mpp_view *, double *wait);
    void (*on_giveup)(void *arg, const struct mpp_view *, enum mp_kind kind);
};

/* ---- set-up ---- */

struct mpp_config {
    uint64_t seed;
    uint32_t max_calls; /* 0: 1,000,000 */
    /* 1: the receiver can go on receiving an attempt whose part has ended. Then the slower copy of
     * a hedged part may get no MPP_ABORT but be left to finish, which keeps its connection; its
     * data is to be thrown away and mpp_attempt_done called as ever. 0: losers are aborted. */
    uint8_t drain_losers;
};

struct mpp_core *mpp_new(const struct mpp_config *cfg);
void mpp_free(struct mpp_core *core); /* everything must have ended */

struct mpp_pool *mpp_pool_new(struct mpp_core *core, uint32_t max_running);
void mpp_pool_unref(struct mpp_pool *pool); /* clients hold references */

/* What processes share about one endpoint; may lie in memory mapped by all of them. */
struct mpp_shared {
    mp__gcra requests, tokens; /* taken by everybody, at the declared rates */
    mp__gcra not_before;       /* the server's pause */
    mp__gcra used;             /* when somebody last did */
};

struct mpp_endpoint_cfg {
    double weight;              /* >= 0; default 1 */
    uint8_t idempotent;         /* hedging allowed */
    uint8_t health_check;       /* active checks wanted */
    double health_interval;     /* s, 10 */
    double health_timeout;      /* s, 6 */
    uint32_t health_retries;    /* 2, 0.2 s apart */
    uint8_t timeout_is_no_vote; /* default 1 */
    const char *rate_key;       /* credential + model; NULL: own bucket */
    struct mpp_shared *shared;  /* must outlive the client; NULL: this process only */
};

struct mpp_client_cfg {
    struct mpp_pool *pool;
    const struct mp_policy *policy; /* copied */
    const struct mpp_hooks *hooks;  /* kept by reference; may be NULL */
    const struct mpp_endpoint_cfg *endpoints;
    uint32_t nendpoints;
    void *user;
};

struct mpp_client *mpp_client_new(struct mpp_core *core, const struct mpp_client_cfg *cfg);
/* Ends every call of it with CLOSED; freed when the last of them is gone. */
void mpp_client_close(struct mpp_client *client, mp__time now);
void *mpp_client_user(const struct mpp_client *client);

struct mpp_call_cfg {
    struct mpp_client *client;
    const struct mp_policy *policy; /* NULL: the client's. Else must outlive the call */
    uint32_t max_concurrent;        /* parts admitted at once; 0: MPP_CALL_PARTS */
    mp__time deadline;              /* absolute; MP__NEVER */
    double pool_timeout;            /* s; <= 0 none */
    uint8_t idempotent;
    int32_t pinned_endpoint;       /* -1: route freely */
    const struct mpp_hooks *hooks; /* NULL: the client's. Else must outlive the call */
    uint8_t rows_alike; /* they go to one path as one kind of body: a 404 is none's own */
    uint64_t size_key;  /* calls of a client with the same one meet the same limits of size */
    void *user;
};

/* The call is ready at once; NULL when max_calls are open. */
struct mpp_call *mpp_call_new(const struct mpp_call_cfg *cfg, mp__time now);
/* The answers to MPP_WANT_PART. 0: the call has ended meanwhile and takes none. */
int mpp_part_give(struct mpp_call *call, const struct mpp_part_info *info);
/* No more parts ever, or (later) none before mpp_call_ready. */
void mpp_part_none(struct mpp_call *call, int later);
void mpp_call_ready(struct mpp_call *call, mp__time now); /* a part can now be had */
/* Ends the call with `kind` (CANCELLED, CLOSED): attempts are aborted, parts end, by actions. */
void mpp_call_cancel(struct mpp_call *call, enum mp_kind kind, mp__time now);

/* ---- events ---- */

void mpp_attempt_connected(struct mpp_core *, uint64_t attempt, mp__time now);
void mpp_attempt_first_byte(struct mpp_core *, uint64_t attempt, mp__time now);
void mpp_attempt_done(struct mpp_core *, uint64_t attempt, const struct mpp_outcome *,
                      mp__time now);
void mpp_probe_done(struct mpp_client *, uint32_t endpoint, int healthy /* -1: no vote */,
                    mp__time now);

/* One action into *out: 1, or 0 when there is nothing to do before mpp_wake_at(). Expires the
 * core's timers (backoff, hedge, pool wait, deadlines, pauses) up to `now`. */
int mpp_next(struct mpp_core *core, mp__time now, struct mpp_action *out);
mp__time mpp_wake_at(const struct mpp_core *core);

/* ---- facts for statistics ---- */

struct mpp_endpoint_stats {
    uint64_t attempts, retries, hedges, hedges_won, hedges_wasted;
    uint64_t ok, failed, throttled;
    uint64_t parked;     /* times a part waited for the retry budget */
    uint64_t unbudgeted; /* retries that cost no budget: 429s with a server delay */
    uint64_t released;   /* parked parts let go without a token: trickle, or after success */
    uint64_t splits, breaker_opened, hook_calls;
    double budget_level, hedge_level;
    double rpm_level, tpm_level; /* tokens in the buckets, < 0: no limit */
    uint32_t in_flight, limit;   /* limit 0: none */
    double p50, p90, p95, p99;   /* s, of acceptable replies */
    double paused_for;           /* s left of a server's delay */
    uint8_t breaker;             /* 0 closed, 1 open, 2 half open */
    uint8_t healthy;
    double tokens_per_byte;
};
struct mpp_load {              /* what a routing decision needs, without the percentiles */
    uint32_t in_flight, limit; /* limit 0: none */
    double latency;            /* EWMA of acceptable replies, s; 0: unknown */
    int sound;                 /* healthy and its breaker closed */
};
/* The nth limit learnt, the latest used first; 0: there are no more. */
int mpp_client_limit(const struct mpp_client *client, uint32_t nth, struct mpp_limit *out);
/* s, a percentile of the acceptable replies of all endpoints; -1: none were seen. */
double mpp_client_latency(const struct mpp_client *client, double q, mp__time now);
uint32_t mpp_client_waiting(const struct mpp_client *client); /* parts, for a connection */
uint32_t mpp_client_endpoints(const struct mpp_client *client);
void mpp_endpoint_load(const struct mpp_client *, uint32_t endpoint, struct mpp_load *out);
/* Learnt from usage, 0.30 at first; the mean over the endpoints. */
double mpp_client_tokens_per_byte(const struct mpp_client *client);
void mpp_endpoint_stats(const struct mpp_client *, uint32_t endpoint, mp__time now,
                        struct mpp_endpoint_stats *out);

struct mpp_core_stats {
    uint64_t calls, parts, attempts, retries, hedges;
    uint32_t calls_open, parts_open, running, pool_waiting;
};
void mpp_core_stats(const struct mpp_core *, struct mpp_core_stats *out);

#endif

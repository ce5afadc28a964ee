/*
 * sim.h - the real policy core against modelled servers and a modelled load, on a virtual clock.
 *
 * A server is a number of places with log-normal service times, stalls, errors, a quota enforced
 * over windows and an outage. The load is closed (one call of many parts) or open (Poisson arrivals
 * of one-part calls). The run also watches the core: whatever breaks a promise is counted in
 * `violations` and the first one is named. Same seed, same trace.
 */
#ifndef MP_SIM_SIM_H
#define MP_SIM_SIM_H

#include "policy/core.h"

#define MP__SIM_SERVERS 16

enum mp__sim_service { MP__SIM_LOGNORMAL = 0, MP__SIM_UNIFORM, MP__SIM_EXPONENTIAL };
enum mp__sim_outage { MP__SIM_REFUSE = 0, MP__SIM_503, MP__SIM_SILENT, MP__SIM_429 };

struct mp__sim_server {
    double weight;  /* 0: 1 */
    double median;  /* s of service; 0: 0.02. Of an exponential the mean, of a uniform the low */
    double sigma;   /* of its logarithm; of a uniform the high end, s */
    double per_row; /* s more a row */
    enum mp__sim_service service;
    const double *samples; /* measured service times, drawn from instead; the caller's */
    uint32_t nsamples;
    double stall_share; /* of the requests, which take `stall` s more */
    double stall;
    double error_share;
    int error_status;    /* 0: 500 */
    uint32_t places;     /* served at once, the rest queue; 0: no limit */
    uint32_t queue;      /* that may queue, the rest get 429; 0: no limit */
    double rpm, tpm;     /* quota; beyond it 429 */
    double quota_window; /* s it is enforced over; 0: 1 */
    uint8_t quota_tells; /* 1: the 429 names the delay; 2: and replies carry rate headers */
    double outage_from, outage_to; /* s since the start */
    uint32_t most_rows;            /* a request; more get `too_large`. 0: no limit */
    uint64_t most_bytes;           /* likewise */
    int too_large;                 /* status; 0: 400. -1: never answered */
    enum mp__sim_outage outage;
    double outage_delay; /* s, Retry-After of the outage's replies; 0 none */
};

struct mp__sim_second {
    uint32_t ok, failed, attempts, throttled, running;
    uint32_t limit;  /* of endpoint 1 at the end of the second */
    double tokens;   /* answered with success */
    double p50, p99; /* s, of the parts that ended well in it; < 0: none did */
};

struct mp__sim {
    uint64_t seed;
    struct mp_policy policy;
    const struct mpp_hooks *hooks;
    uint32_t pool; /* connections; 0: 256 */
    uint32_t nservers;
    struct mp__sim_server servers[MP__SIM_SERVERS];
    double rate;            /* arrivals a second; 0: closed load */
    uint32_t concurrency;   /* of the closed load's call; 0: 128 */
    uint64_t parts;         /* at most; 0: no limit, then duration must be given */
    double duration;        /* s during which new parts appear; 0: no limit */
    uint32_t rows;          /* a part; 0: 1 */
    uint64_t total_rows;    /* 0: no limit; the last part may be smaller */
    double tokens;          /* a row */
    uint32_t bytes;         /* a row; 0: 100. They vary by `spread` */
    double spread;          /* 0..1: a row has bytes * (1 +- spread) */
    double poison_share;    /* of the rows, which make their request a 422 */
    double attempt_timeout; /* s; 0: 60 */
    double total_timeout;   /* s, of a call; 0: none */
    double pool_timeout;    /* s; 0: none */
    double cancel_share;    /* of the open load's calls, cancelled at a random moment */
    uint8_t drain_losers;
    double hasty;    /* chance to leave mpp_next after an action and do something else */
    double max_time; /* s, then the run is cut; 0: 100,000 */
    struct mp__sim_second *seconds; /* the caller's, filled; may be NULL */
    uint32_t nseconds;
    int (*stop)(void *arg); /* asked now and then; 1 ends the run. May be NULL */
    void *stop_arg;
};

struct mp__sim_result {
    uint64_t parts, ok, failed, cut; /* cut: ended with their call */
    uint64_t rows_ok, rows_failed;
    uint64_t attempts, first, retries, hedges, aborted, throttled, splits, too_large, backs;
    struct mpp_limit limit; /* the last that was learnt */
    uint64_t unbudgeted, released, parked;
    uint64_t server_attempts[MP__SIM_SERVERS];
    uint64_t kinds[MP_KIND_COUNT];   /* of failed parts */
    double p50, p90, p99, p999, max; /* s, of ok parts */
    double tokens;                   /* answered with success */
    double makespan;                 /* s until the last call ended */
    uint64_t steps;                  /* calls of mpp_next */
    uint64_t trace;                  /* hash of every action */
    uint8_t unfinished; /* max_time came, or stop said so, before the last call ended */
    uint64_t violations;
    char violation[128];
};

/* 0, or MP_EINVAL (no server, or a load without an end) or MP_ENOMEM. */
int mp__sim_run(const struct mp__sim *sim, struct mp__sim_result *out);

void mp__sim_init(struct mp__sim *sim, enum mp_preset preset); /* one server, defaults */

#endif

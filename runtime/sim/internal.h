/* internal.h - between the simulator's files: the run (sim.c), the servers (sim_server.c), what it
 * came to (sim_report.c). */
#ifndef MP_SIM_INTERNAL_H
#define MP_SIM_INTERNAL_H

#include "base/heap.h"
#include "base/list.h"
#include "sim/sim.h"
#include "base/slab.h"

struct sim_request {         /* an attempt as its server sees it */
    struct mp__link link;    /* in server->waiting */
    struct mp__link running; /* all that are on their way */
    struct mp__timer timer;  /* its end, by answer or by time-out */
    uint64_t id;
    uint32_t endpoint;
    uint32_t rows;
    uint64_t first, bytes;
    double tokens;
    mp__time sent, limit; /* limit: the client's patience */
    uint8_t serving, quota_ok, is_hedge;
    struct mpp_outcome outcome;
};

struct sim_server {
    const struct mp__sim_server *cfg;
    uint32_t busy, queued;
    struct mp__link waiting;
    int64_t window;
    double used_requests, used_tokens;
};

#define SIM_START (1000 * MP__SECOND) /* the clock does not begin at 0 */

struct sim_call {
    struct mpp_call *call;
    struct mp__timer cancel;
    struct sim_run *run;
    uint32_t left; /* open load: parts still to give */
    uint8_t done;
};

struct sim_rows {
    uint64_t first;
    uint64_t count;
    mp__time born;
};

struct sim_part {
    mp__time born;
    uint32_t ends; /* times it was told to have ended */
};

struct sim_run {
    const struct mp__sim *sim;
    struct mp__sim_result *out;
    struct mpp_core *core;
    struct mpp_pool *pool;
    struct mpp_client *client;
    mp__time now;
    uint64_t rng;
    struct mp__heap heap;
    struct mp__slab requests, calls, parts;
    struct sim_server servers[MP__SIM_SERVERS];
    mp__time not_before[MP__SIM_SERVERS];
    uint32_t running[MP__SIM_SERVERS];
    uint32_t on_the_way, calls_open;
    struct mp__link running_list;
    struct mp__timer arrival;
    uint64_t arrivals, born, rows_born, ended;
    struct sim_rows *back; /* came back, to be cut anew; in order */
    uint32_t nback, backcap;
    double *latency; /* of ok parts */
    uint64_t nlatency, cap;
    int nomem;
};

uint64_t *mp__sim_rng(struct sim_run *run);
struct sim_server *mp__sim_server_at(struct sim_run *run, uint32_t i);
mp__time mp__sim_now(const struct sim_run *run);
double mp__sim_elapsed(const struct sim_run *run);
int mp__sim_poisoned(const struct sim_run *run, uint64_t first, uint32_t rows);
void mp__sim_end_at(struct sim_run *run, struct sim_request *q, double seconds);

/* A request arrives: decides its fate or queues it. */
void mp__sim_server_take(struct sim_run *run, struct sim_request *q);
/* It left, answered or not: the next in the queue is served. */
void mp__sim_server_leave(struct sim_run *run, struct sim_request *q);

/* rows.c: the rows of the load, and those that came back. */
int mp__sim_rows_left(const struct sim_run *run);
int mp__sim_rows_take(struct sim_run *run, const struct mpp_action *act, struct mpp_part_info *out,
                      mp__time *born);
void mp__sim_rows_back(struct sim_run *run, const struct mpp_part_info *info, mp__time born);
uint64_t mp__sim_row_bytes(const struct sim_run *run, uint64_t first, uint64_t count);

/* Counts a promise that the core broke; the first is named. */
void mp__sim_violated(struct sim_run *run, const char *what);
void mp__sim_keep_latency(struct sim_run *run, double t); /* in the order of the clock */
void mp__sim_check_budgets(struct sim_run *run);
void mp__sim_summarise(struct sim_run *run);

#endif

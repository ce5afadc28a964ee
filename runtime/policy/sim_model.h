/* sim_model.h - between the simulator's files: the servers (sim_server.c), the run (sim.c). */
#ifndef MP_POLICY_SIM_MODEL_H
#define MP_POLICY_SIM_MODEL_H

#include "policy/heap.h"
#include "policy/list.h"
#include "policy/sim.h"

struct sim_request {         /* an attempt as its server sees it */
    struct mpp_link link;    /* in server->waiting */
    struct mpp_link running; /* all that are on their way */
    struct mpp_timer timer;  /* its end, by answer or by time-out */
    uint64_t id;
    uint32_t endpoint;
    uint32_t rows;
    uint64_t first;
    double tokens;
    mpp_time sent, limit; /* limit: the client's patience */
    uint8_t serving, quota_ok, is_hedge;
    struct mpp_outcome outcome;
};

struct sim_server {
    const struct mpp_sim_server *cfg;
    uint32_t busy, queued;
    struct mpp_link waiting;
    int64_t window;
    double used_requests, used_tokens;
};

struct sim_run;

uint64_t *sim_rng(struct sim_run *run);
struct sim_server *sim_server_at(struct sim_run *run, uint32_t i);
mpp_time sim_now(const struct sim_run *run);
double sim_elapsed(const struct sim_run *run);
int sim_poisoned(const struct sim_run *run, uint64_t first, uint32_t rows);
void sim_end_at(struct sim_run *run, struct sim_request *q, double seconds);

/* A request arrives: decides its fate or queues it. */
void sim_server_take(struct sim_run *run, struct sim_request *q);
/* It left, answered or not: the next in the queue is served. */
void sim_server_leave(struct sim_run *run, struct sim_request *q);

#endif

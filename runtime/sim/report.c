/* report.c - what a run came to: percentiles, sums, budgets. */
#include "sim/internal.h"

#include <stdio.h>
#include <stdlib.h>

void mp__sim_violated(struct sim_run *run, const char *what)
{
    if (run->out->violations++ == 0)
        snprintf(run->out->violation, sizeof(run->out->violation), "%s at %.6f s", what,
                 mp__sim_elapsed(run));
}

void mp__sim_keep_latency(struct sim_run *run, double t)
{
    if (run->nlatency == run->cap) {
        uint64_t cap = run->cap ? run->cap * 2 : 1024;
        double *v = realloc(run->latency, cap * sizeof(*v));

        if (v == NULL) {
            run->nomem = 1;
            return;
        }
        run->latency = v;
        run->cap = cap;
    }
    run->latency[run->nlatency++] = t;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* The usual q-th of n sorted values; -1 of none. */
static double quantile(const double *v, uint64_t n, double q)
{
    uint64_t i = (uint64_t)(q * (double)n);

    if (n == 0)
        return -1;
    return v[i < n ? i : n - 1];
}

/* The latencies lie in the order of the clock, so each second's are a stretch of its own. */
static void summarise_seconds(struct sim_run *run)
{
    uint64_t at = 0;
    uint32_t i;

    for (i = 0; run->sim->seconds != NULL && i < run->sim->nseconds; i++) {
        struct mp__sim_second *s = &run->sim->seconds[i];
        double *v = run->latency + at;

        if (s->ok > 1)
            qsort(v, s->ok, sizeof(*v), by_value);
        s->p50 = quantile(v, s->ok, 0.50);
        s->p99 = quantile(v, s->ok, 0.99);
        at += s->ok;
    }
}

void mp__sim_check_budgets(struct sim_run *run)
{
    const struct mp_policy *p = &run->sim->policy;
    uint32_t i;

    for (i = 0; i < run->sim->nservers; i++) {
        struct mpp_endpoint_stats s;

        mpp_endpoint_stats(run->client, i, run->now, &s);
        run->out->server_attempts[i] = s.attempts;
        run->out->retries += s.retries;
        run->out->hedges += s.hedges;
        run->out->unbudgeted += s.unbudgeted;
        run->out->released += s.released;
        run->out->parked += s.parked;
    }
    run->out->first = run->out->attempts - run->out->retries - run->out->hedges;
    if ((double)run->out->retries > p->retry.reserve * run->sim->nservers +
                                        p->retry.budget * (double)run->out->first +
                                        (double)(run->out->unbudgeted + run->out->released) + 1e-6)
        mp__sim_violated(run, "retries beyond the budget");
    if ((double)run->out->hedges >
        p->hedge.reserve * run->sim->nservers + p->hedge.budget * (double)run->out->first + 1e-6)
        mp__sim_violated(run, "hedges beyond the budget");
    if (run->ended != run->rows_born && !run->out->unfinished)
        mp__sim_violated(run, "rows without an end");
}

void mp__sim_summarise(struct sim_run *run)
{
    struct mp__sim_result *out = run->out;

    summarise_seconds(run);
    if (run->nlatency > 0)
        qsort(run->latency, run->nlatency, sizeof(*run->latency), by_value);
    out->p50 = quantile(run->latency, run->nlatency, 0.50);
    out->p90 = quantile(run->latency, run->nlatency, 0.90);
    out->p99 = quantile(run->latency, run->nlatency, 0.99);
    out->p999 = quantile(run->latency, run->nlatency, 0.999);
    out->max = quantile(run->latency, run->nlatency, 1);
    out->parts = run->born;
}

#include "policy/concurrency.h"

#include "base/time.h"

#include <math.h>
#include <string.h>

#define ALPHA 0.4
#define DOUBT 8   /* windows */
#define NEAR  1.2 /* times the best mean: nothing queues */

void mpp_concurrency_init(struct mpp_concurrency *c, const struct mp_concurrency_policy *policy,
                          mp__time now)
{
    memset(c, 0, sizeof(*c));
    c->mode = policy->mode;
    c->max = policy->max ? policy->max : 256;
    c->min = policy->min ? policy->min : 1;
    c->limit = policy->limit ? policy->limit : 4;
    if (c->mode == MP_CONC_ADAPTIVE && c->limit > c->max)
        c->limit = c->max;
    c->slow_start = 1;
    c->window_start = now;
}

uint32_t mpp_concurrency_limit(const struct mpp_concurrency *c)
{
    return c->mode == MP_CONC_OFF ? UINT32_MAX : (uint32_t)c->limit;
}

void mpp_concurrency_started(struct mpp_concurrency *c, uint32_t in_flight)
{
    if (c->mode == MP_CONC_ADAPTIVE && in_flight >= (uint32_t)c->limit)
        c->reached = 1;
}

static double normalised(struct mpp_concurrency *c, double latency, uint32_t size_class)
{
    double *scale = &c->scale[size_class < 32 ? size_class : 31];
    double x;

    /* The first class to be seen is the measure of the others. */
    if (*scale <= 0)
        *scale = c->load > 0 ? latency / c->load : 1;
    x = latency / *scale;
    c->load = c->load > 0 ? c->load + 0.1 * (x - c->load) : x;
    *scale += 0.02 * (latency / c->load - *scale);
    return x;
}

static void shrink(struct mpp_concurrency *c, double factor)
{
    c->slow_start = 0;
    c->limit = floor(c->limit * factor);
    if (c->limit < c->min)
        c->limit = c->min;
}

static void grow(struct mpp_concurrency *c)
{
    c->limit = c->slow_start ? c->limit * 2 : c->limit + 1;
    if (c->limit > c->max)
        c->limit = c->max;
}

static void remember(struct mpp_concurrency *c, double mean)
{
    double d = mean - c->past_mean;

    if (c->past_mean == 0) {
        c->past_mean = mean;
        return;
    }
    c->past_mean += ALPHA * d;
    c->past_var = (1 - ALPHA) * (c->past_var + ALPHA * d * d);
}

/* Is the limit higher than 16 windows ago for nothing? */
static void compare(struct mpp_concurrency *c, double seconds)
{
    double limit, rate;

    c->sum_limit += c->limit;
    c->sum_done += c->rtt_n;
    c->sum_time += seconds;
    if (++c->windows < 16 || c->sum_time <= 0)
        return;
    limit = c->sum_limit / c->windows;
    rate = c->sum_done / c->sum_time;
    if (!c->slow_start && c->mark_limit > 0 && limit > 1.02 * c->mark_limit &&
        rate < 1.01 * c->mark_rate) {
        c->limit = floor(0.9 * c->mark_limit);
        if (c->limit < c->min)
            c->limit = c->min;
    }
    c->mark_limit = limit;
    c->mark_rate = rate;
    c->windows = 0;
    c->sum_limit = c->sum_done = c->sum_time = 0;
}

/* One pause of the network or of this machine looks like a queue, but a queue would stay. */
static void reconsider(struct mpp_concurrency *c, double mean)
{
    if (c->slow_start || c->doubt == 0)
        return;
    c->doubt--;
    if (c->reached && mean <= NEAR * c->best)
        c->slow_start = 1;
}

static void decide(struct mpp_concurrency *c)
{
    double mean = c->rtt_n ? c->rtt_sum / c->rtt_n : 0;

    if (c->pressure)
        c->doubt = 0;
    if (c->faults * 2 >= c->done && c->faults) {
        shrink(c, 0.5);
    } else if (c->pressure) {
        shrink(c, 0.9);
    } else if (mean > 0) {
        if (c->best == 0 || mean < c->best)
            c->best = mean;
        reconsider(c, mean);
        if (c->slow_start && mean > 1.5 * c->best) {
            shrink(c, 0.9);
            c->doubt = DOUBT;
        } else if (!c->slow_start && c->past_mean > 0 &&
                   mean > c->past_mean + 2.5 * sqrt(c->past_var) && mean > 1.05 * c->past_mean) {
            shrink(c, 0.9);
        } else if (c->reached && (c->slow_start || c->past_mean == 0 || mean <= c->past_mean)) {
            grow(c);
        }
    }
    if (mean > 0)
        remember(c, mean);
}

void mpp_concurrency_done(struct mpp_concurrency *c, enum mpp_pressure pressure, double latency,
                          uint32_t size_class, mp__time now)
{
    double width;

    if (c->mode != MP_CONC_ADAPTIVE || pressure == MPP_IGNORE)
        return;
    if (c->window_start == 0) /* the client was made before the first event told the time */
        c->window_start = now;
    c->done++;
    if (pressure == MPP_PUSHED)
        c->pressure = 1;
    if (pressure == MPP_FAULT) {
        c->pressure = 1;
        c->faults++;
    }
    if (pressure == MPP_CALM) {
        c->rtt = c->rtt > 0 ? c->rtt + 0.1 * (latency - c->rtt) : latency;
        c->rtt_sum += normalised(c, latency, size_class);
        c->rtt_n++;
    }
    width = c->rtt > 0.05 ? c->rtt : 0.05;
    if (now - c->window_start < mp__ns(width))
        return;
    decide(c);
    compare(c, mp__seconds(now - c->window_start));
    c->window_start = now;
    c->rtt_sum = 0;
    c->rtt_n = c->done = c->faults = 0;
    c->reached = c->pressure = 0;
}

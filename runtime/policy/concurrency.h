/*
 * concurrency.h - how many attempts may run at one endpoint: off, fixed or adaptive.
 *
 * Adaptive (Vector's adaptive request concurrency, with a slow start): one decision a window of
 * max(50 ms, mean latency). Slow start doubles the limit while it was reached and the mean latency
 * stays within 1.5 of the best (a slow window that was but a hiccup, latency near the best again at
 * a limit that is reached within eight windows, is forgiven); then + 1 a window while the limit was reached and latency does not
 * rise, x 0.9 when it exceeds past + 2.5 sigma or the server pushes back, x 0.5 when half of a
 * window's attempts are transport faults. That rule alone drifts upwards on a server that queues
 * (latency follows slowly, throughput does not): every 16 windows a higher limit that brought no
 * more throughput is taken back. Each attempt is measured by itself (time spent in backoff
 * is not latency) and latencies are divided by what a batch of that size takes beside others.
 */
#ifndef MP_POLICY_CONCURRENCY_H
#define MP_POLICY_CONCURRENCY_H

#include "policy/core.h"

struct mpp_concurrency {
    uint32_t mode, max, min;
    double limit;
    uint8_t slow_start;
    uint8_t reached;  /* in this window */
    uint8_t pressure; /* in this window */
    uint8_t doubt;    /* windows in which latency may prove that slow start ended for nothing */
    mp__time window_start;
    double rtt_sum, raw_sum;
    uint32_t rtt_n, faults, done;
    double past_mean, past_var;           /* EWMA over windows, alpha 0.4 */
    double rtt;                           /* EWMA of raw latency, for the window's length */
    double best;                          /* least normalised window mean */
    double sum_limit, sum_done, sum_time; /* since the last comparison */
    uint32_t windows;
    double mark_limit, mark_rate; /* of the comparison before */
    double scale[32]; /* of a size class: latency = scale * load, the load common to all classes */
    double load;
};

void mpp_concurrency_init(struct mpp_concurrency *c, const struct mp_concurrency_policy *policy,
                          mp__time now);

/* UINT32_MAX: none. */
uint32_t mpp_concurrency_limit(const struct mpp_concurrency *c);

/* An attempt was started, in_flight counts it. */
void mpp_concurrency_started(struct mpp_concurrency *c, uint32_t in_flight);

enum mpp_pressure { MPP_CALM = 0, MPP_PUSHED, MPP_FAULT, MPP_IGNORE };

/* An attempt ended. CALM: latency counts. PUSHED: 429 or 5xx that no quota explains. FAULT: the
 * transport failed or timed out. IGNORE: nothing to learn. */
void mpp_concurrency_done(struct mpp_concurrency *c, enum mpp_pressure pressure, double latency,
                          uint32_t size_class, mp__time now);

#endif

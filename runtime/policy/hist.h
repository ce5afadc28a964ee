/*
 * hist.h - latencies of the last 20 to 30 s: log-spaced buckets (16 an octave, so a percentile is
 * right within 4.4 %), three windows of 10 s, one histogram a size class and one for all.
 *
 * The time of a batch grows with its tokens: one global percentile would call every large batch
 * slow. A class with too few samples answers with the histogram of all.
 */
#ifndef MP_POLICY_HIST_H
#define MP_POLICY_HIST_H

#include "policy/core.h"

#define MPP_HIST_BUCKETS 400 /* 62.5 us * 2^(i/16): to about 2000 s */
#define MPP_HIST_WINDOWS 3
#define MPP_HIST_CLASSES 32
#define MPP_HIST_ENOUGH  20 /* samples before a percentile means anything */

struct mpp_hist {
    uint32_t count[MPP_HIST_WINDOWS][MPP_HIST_BUCKETS];
    uint32_t total[MPP_HIST_WINDOWS];
    int64_t window; /* number of the newest */
    /* The last answers, good until `fresh` more samples came or the window turned. */
    double cached_q[2], cached[2];
    uint32_t fresh[2];
    uint8_t turn;
};

struct mpp_hists {
    struct mpp_hist *all;
    struct mpp_hist *of[MPP_HIST_CLASSES]; /* made when first needed */
};

void mpp_hists_fini(struct mpp_hists *hists);
void mpp_hists_record(struct mpp_hists *hists, uint32_t size_class, mpp_time latency, mpp_time now);

/* Of all classes, however few were seen: for people, not for decisions. -1: none. */
double mpp_hists_seen(struct mpp_hists *hists, double q, mpp_time now);
/* s, or -1 while there are too few samples. size_class 0: of all. */
double mpp_hists_percentile(struct mpp_hists *hists, uint32_t size_class, double q, mpp_time now);

#endif

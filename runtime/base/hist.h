/*
 * hist.h - latencies of the last 20 to 30 s: log-spaced buckets (16 an octave, so a percentile is
 * right within 4.4 %), three windows of 10 s, one histogram a size class and one for all.
 *
 * The time of a batch grows with its tokens: one global percentile would call every large batch
 * slow. A class with too few samples answers with the histogram of all.
 */
#ifndef MP_BASE_HIST_H
#define MP_BASE_HIST_H

#include "base/time.h"

#define MP__HIST_BUCKETS 400 /* 62.5 us * 2^(i/16): to about 2000 s */
#define MP__HIST_WINDOWS 3
#define MP__HIST_CLASSES 32
#define MP__HIST_ENOUGH  20 /* samples before a percentile means anything */

struct mp__hist {
    uint32_t count[MP__HIST_WINDOWS][MP__HIST_BUCKETS];
    uint32_t total[MP__HIST_WINDOWS];
    int64_t window; /* number of the newest */
    /* The last answers, good until `fresh` more samples came or the window turned. */
    double cached_q[2], cached[2];
    uint32_t fresh[2];
    uint8_t turn;
};

struct mp__hists {
    struct mp__hist *all;
    struct mp__hist *of[MP__HIST_CLASSES]; /* made when first needed */
};

void mp__hists_fini(struct mp__hists *hists);
void mp__hists_record(struct mp__hists *hists, uint32_t size_class, mp__time latency, mp__time now);

/* Of all classes, however few were seen: for people, not for decisions. -1: none. */
double mp__hists_seen(struct mp__hists *hists, double q, mp__time now);
/* The same over all that next(arg, i) gives for i = 0, 1, ...; NULL ends it. */
double mp__hists_seen_all(struct mp__hists *(*next)(void *arg, uint32_t i), void *arg, double q,
                          mp__time now);
/* s, or -1 while there are too few samples. size_class 0: of all. */
double mp__hists_percentile(struct mp__hists *hists, uint32_t size_class, double q, mp__time now);

#endif

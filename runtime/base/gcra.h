/*
 * gcra.h - a rate that processes share, as one number: the generic cell rate algorithm.
 *
 * The number is the time at which everything taken so far is paid for ("theoretical arrival time", ns).
 * Taking moves it on by the cost, never from a time that has passed; it may run ahead of the clock by
 * the burst. One compare-and-swap a taking, so it may lie in memory that processes share.
 */
#ifndef MP_BASE_GCRA_H
#define MP_BASE_GCRA_H

#include "base/time.h"

#include <stdatomic.h>

#define MP__GCRA_SANE (3600 * MP__SECOND) /* further ahead it is rubbish, of another boot say */

typedef _Atomic int64_t mp__gcra;

static inline mp__time mp__gcra_from(int64_t paid, mp__time now)
{
    return paid > now && paid - now < MP__GCRA_SANE ? paid : now;
}

/* When may `cost` (ns at the rate) be taken? now: at once. A cost above the burst waits until all
 * before it is paid. */
static inline mp__time mp__gcra_at(mp__gcra *g, mp__time cost, mp__time burst, mp__time now)
{
    mp__time from = mp__gcra_from(atomic_load_explicit(g, memory_order_relaxed), now);
    mp__time room = burst > cost ? burst - cost : 0;
    return from - room > now ? from - room : now;
}

/* Takes it, whether or not it was time; a negative cost gives back. */
static inline void mp__gcra_take(mp__gcra *g, mp__time cost, mp__time now)
{
    int64_t old = atomic_load_explicit(g, memory_order_relaxed);
    int64_t paid;
    do {
        paid = mp__gcra_from(old, now);
        paid = cost > MP__GCRA_SANE - (paid - now) ? now + MP__GCRA_SANE - 1 : paid + cost;
    } while (!atomic_compare_exchange_weak_explicit(g, &old, paid, memory_order_relaxed,
                                                    memory_order_relaxed));
}

/* Raises a time that is shared; it only grows. */
static inline void mp__gcra_raise(mp__gcra *g, mp__time to)
{
    int64_t old = atomic_load_explicit(g, memory_order_relaxed);
    while (old < to && !atomic_compare_exchange_weak_explicit(g, &old, to, memory_order_relaxed,
                                                              memory_order_relaxed))
        ;
}

#endif

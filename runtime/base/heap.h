/*
 * heap.h - alarms: a pairing heap of intrusive timers ordered by time, then by arming order, so that
 * equal times fire in the order they were set and a run can be repeated exactly.
 *
 * It needs no memory of its own, so setting one cannot fail. A zeroed timer is one that is not armed.
 * Fredman, Sedgewick, Sleator, Tarjan 1986 (two-pass variant).
 */
#ifndef MP_BASE_HEAP_H
#define MP_BASE_HEAP_H

#include <stdint.h>

struct mp__timer {
    int64_t at;
    uint64_t seq;
    struct mp__timer *child, *next, *prev; /* prev: elder sibling, or parent of a first child */
    uint8_t armed;
    uint8_t kind; /* whose it is; the owner is found from the address */
};

struct mp__heap {
    struct mp__timer *first;
    uint64_t seq;
};

void mp__heap_set(struct mp__heap *heap, struct mp__timer *timer, int64_t at); /* or moves it */
void mp__heap_clear(struct mp__heap *heap, struct mp__timer *timer); /* fine when not armed */

static inline struct mp__timer *mp__heap_first(const struct mp__heap *heap)
{
    return heap->first;
}

#endif

/*
 * heap.h - the core's alarms: an intrusive binary heap ordered by time, then by arming order, so
 * that equal times fire in the order they were set and a run can be repeated exactly.
 */
#ifndef MP_BASE_HEAP_H
#define MP_BASE_HEAP_H

#include <stdint.h>

struct mp__timer {
    int64_t at;
    uint64_t seq;
    uint32_t pos; /* place in the heap + 1; 0: not armed */
    uint8_t kind; /* whose it is; the owner is found from the address */
};

struct mp__heap {
    struct mp__timer **v;
    uint32_t n, cap;
    uint32_t promised; /* timers that exist, armed or not: arming one never allocates */
    uint64_t seq;
};

void mp__heap_fini(struct mp__heap *heap);

/* Promises room for one more timer: 0, or -1 without memory. Taken back by mp__heap_yield. */
int mp__heap_promise(struct mp__heap *heap);
void mp__heap_yield(struct mp__heap *heap);

void mp__heap_set(struct mp__heap *heap, struct mp__timer *timer, int64_t at); /* or moves it */
void mp__heap_clear(struct mp__heap *heap, struct mp__timer *timer);

static inline struct mp__timer *mp__heap_first(const struct mp__heap *heap)
{
    return heap->n ? heap->v[0] : (struct mp__timer *)0;
}

#endif

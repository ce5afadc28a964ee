/*
 * heap.h - the core's alarms: an intrusive binary heap ordered by time, then by arming order, so
 * that equal times fire in the order they were set and a run can be repeated exactly.
 */
#ifndef MP_POLICY_HEAP_H
#define MP_POLICY_HEAP_H

#include <stdint.h>

struct mpp_timer {
    int64_t at;
    uint64_t seq;
    uint32_t pos; /* place in the heap + 1; 0: not armed */
    uint8_t kind; /* whose it is; the owner is found from the address */
};

struct mpp_heap {
    struct mpp_timer **v;
    uint32_t n, cap;
    uint32_t promised; /* timers that exist, armed or not: arming one never allocates */
    uint64_t seq;
};

void mpp_heap_fini(struct mpp_heap *heap);

/* Promises room for one more timer: 0, or -1 without memory. Taken back by mpp_heap_yield. */
int mpp_heap_promise(struct mpp_heap *heap);
void mpp_heap_yield(struct mpp_heap *heap);

void mpp_heap_set(struct mpp_heap *heap, struct mpp_timer *timer, int64_t at); /* or moves it */
void mpp_heap_clear(struct mpp_heap *heap, struct mpp_timer *timer);

static inline struct mpp_timer *mpp_heap_first(const struct mpp_heap *heap)
{
    return heap->n ? heap->v[0] : (struct mpp_timer *)0;
}

#endif

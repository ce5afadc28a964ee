#include "base/heap.h"

#include <stdlib.h>

static int before(const struct mp__timer *a, const struct mp__timer *b)
{
    return a->at != b->at ? a->at < b->at : a->seq < b->seq;
}

static void place(struct mp__heap *heap, uint32_t i, struct mp__timer *timer)
{
    heap->v[i] = timer;
    timer->pos = i + 1;
}

static void sift_up(struct mp__heap *heap, uint32_t i, struct mp__timer *timer)
{
    while (i > 0) {
        uint32_t parent = (i - 1) / 2;

        if (!before(timer, heap->v[parent]))
            break;
        place(heap, i, heap->v[parent]);
        i = parent;
    }
    place(heap, i, timer);
}

static void sift_down(struct mp__heap *heap, uint32_t i, struct mp__timer *timer)
{
    for (;;) {
        uint32_t child = 2 * i + 1;

        if (child >= heap->n)
            break;
        if (child + 1 < heap->n && before(heap->v[child + 1], heap->v[child]))
            child++;
        if (!before(heap->v[child], timer))
            break;
        place(heap, i, heap->v[child]);
        i = child;
    }
    place(heap, i, timer);
}

void mp__heap_fini(struct mp__heap *heap)
{
    free(heap->v);
    heap->v = NULL;
    heap->n = heap->cap = 0;
}

int mp__heap_promise(struct mp__heap *heap)
{
    if (heap->promised == heap->cap) {
        uint32_t cap = heap->cap ? heap->cap * 2 : 64;
        struct mp__timer **v = realloc(heap->v, cap * sizeof(*v));

        if (!v)
            return -1;
        heap->v = v;
        heap->cap = cap;
    }
    heap->promised++;
    return 0;
}

void mp__heap_yield(struct mp__heap *heap)
{
    heap->promised--;
}

void mp__heap_set(struct mp__heap *heap, struct mp__timer *timer, int64_t at)
{
    mp__heap_clear(heap, timer);
    timer->at = at;
    timer->seq = heap->seq++;
    sift_up(heap, heap->n++, timer);
}

void mp__heap_clear(struct mp__heap *heap, struct mp__timer *timer)
{
    uint32_t i = timer->pos - 1;
    struct mp__timer *last;

    if (timer->pos == 0)
        return;
    timer->pos = 0;
    last = heap->v[--heap->n];
    if (last == timer)
        return;
    if (i > 0 && before(last, heap->v[(i - 1) / 2]))
        sift_up(heap, i, last);
    else
        sift_down(heap, i, last);
}

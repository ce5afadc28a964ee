#include "base/heap.h"

#include <stddef.h>

static int before(const struct mp__timer *a, const struct mp__timer *b)
{
    return a->at != b->at ? a->at < b->at : a->seq < b->seq;
}

/* Two trees without siblings. */
static struct mp__timer *meld(struct mp__timer *a, struct mp__timer *b)
{
    if (a == NULL || b == NULL)
        return a != NULL ? a : b;
    if (before(b, a)) {
        struct mp__timer *t = a;

        a = b;
        b = t;
    }
    b->next = a->child;
    b->prev = a;
    if (a->child != NULL)
        a->child->prev = b;
    a->child = b;
    a->next = NULL;
    a->prev = NULL;
    return a;
}

/* Joins a list of siblings: pairs from the left, then the pairs from the right. */
static struct mp__timer *meld_siblings(struct mp__timer *list)
{
    struct mp__timer *pairs = NULL;
    struct mp__timer *root = NULL;

    while (list != NULL) {
        struct mp__timer *a = list;
        struct mp__timer *b = a->next;

        list = b != NULL ? b->next : NULL;
        a = meld(a, b);
        a->next = pairs;
        a->prev = NULL;
        pairs = a;
    }
    while (pairs != NULL) {
        struct mp__timer *a = pairs;

        pairs = a->next;
        a->next = NULL;
        root = meld(root, a);
    }
    return root;
}

void mp__heap_set(struct mp__heap *heap, struct mp__timer *timer, int64_t at)
{
    mp__heap_clear(heap, timer);
    timer->at = at;
    timer->seq = heap->seq++;
    timer->armed = 1;
    heap->first = meld(heap->first, timer);
}

void mp__heap_clear(struct mp__heap *heap, struct mp__timer *timer)
{
    struct mp__timer *below = timer->child;

    if (!timer->armed)
        return;
    if (below != NULL && below->next != NULL)
        below = meld_siblings(below);
    else if (below != NULL)
        below->prev = NULL;
    if (timer == heap->first) {
        heap->first = below;
    } else {
        if (timer->prev->child == timer)
            timer->prev->child = timer->next;
        else
            timer->prev->next = timer->next;
        if (timer->next != NULL)
            timer->next->prev = timer->prev;
        heap->first = meld(heap->first, below);
    }
    timer->child = timer->next = timer->prev = NULL;
    timer->armed = 0;
}

/* base_heap.c - the heap against a plain array: what comes first, under every kind of change. */
#include "base/heap.h"
#include "base/prng.h"
#include "base_util.h"

#define N 300

static struct mp__timer *first_of(struct mp__timer *t, int n)
{
    struct mp__timer *first = NULL;
    int i;

    for (i = 0; i < n; i++)
        if (t[i].armed && (first == NULL || t[i].at < first->at ||
                           (t[i].at == first->at && t[i].seq < first->seq)))
            first = &t[i];
    return first;
}

static void the_first_is_the_earliest(void **state)
{
    static struct mp__timer t[N];
    struct mp__heap heap = {0};
    uint64_t rng = 9;
    int round;

    (void)state;
    for (round = 0; round < 20000; round++) {
        struct mp__timer *timer = &t[mp__random(&rng) % N];

        if (mp__random(&rng) % 3 > 0)
            mp__heap_set(&heap, timer, (int64_t)(mp__random(&rng) % 50));
        else
            mp__heap_clear(&heap, timer);
        assert_ptr_equal(mp__heap_first(&heap), first_of(t, N));
    }
    while (mp__heap_first(&heap) != NULL) {
        assert_ptr_equal(mp__heap_first(&heap), first_of(t, N));
        mp__heap_clear(&heap, mp__heap_first(&heap));
    }
    assert_null(first_of(t, N));
}

static void equal_times_come_in_the_order_they_were_set(void **state)
{
    static struct mp__timer t[N];
    struct mp__heap heap = {0};
    int i;

    (void)state;
    for (i = 0; i < N; i++)
        mp__heap_set(&heap, &t[i], 7);
    mp__heap_set(&heap, &t[0], 7); /* again: now it is the last */
    for (i = 1; i <= N; i++) {
        assert_ptr_equal(mp__heap_first(&heap), &t[i % N]);
        mp__heap_clear(&heap, &t[i % N]);
    }
    assert_null(mp__heap_first(&heap));
}

static void clearing_what_is_not_armed_does_nothing(void **state)
{
    struct mp__timer a = {0}, b = {0};
    struct mp__heap heap = {0};

    (void)state;
    mp__heap_clear(&heap, &a);
    mp__heap_set(&heap, &b, INT64_MIN);
    mp__heap_clear(&heap, &a);
    assert_ptr_equal(mp__heap_first(&heap), &b);
    mp__heap_clear(&heap, &b);
    mp__heap_clear(&heap, &b);
    assert_null(mp__heap_first(&heap));
    mp__heap_set(&heap, &a, INT64_MAX);
    assert_ptr_equal(mp__heap_first(&heap), &a);
}

/* A million sleepers: the pairs must not be joined by recursion. */
static void many_fit(void **state)
{
    int n = 1000000, i;
    struct mp__timer *t = calloc((size_t)n, sizeof(*t));
    struct mp__heap heap = {0};
    int64_t last = 0;

    (void)state;
    assert_non_null(t);
    for (i = 0; i < n; i++)
        mp__heap_set(&heap, &t[i], (int64_t)i * 7919 % n);
    for (i = 0; i < n; i++) {
        assert_true(mp__heap_first(&heap)->at >= last);
        last = mp__heap_first(&heap)->at;
        mp__heap_clear(&heap, mp__heap_first(&heap));
    }
    assert_null(mp__heap_first(&heap));
    free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_is_the_earliest),
        cmocka_unit_test(equal_times_come_in_the_order_they_were_set),
        cmocka_unit_test(clearing_what_is_not_armed_does_nothing),
        cmocka_unit_test(many_fit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

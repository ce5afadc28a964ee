/* base_gcra.c - a rate in one number: bursts, waiting, giving back, many threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>

#include "base/gcra.h"

#define MS (MP__SECOND / 1000)

static void test_burst_then_rate(void **state)
{
    (void)state;
    mp__gcra g = 0;
    mp__time now = 5000 * MP__SECOND;
    /* 100 a second, 5 at once */
    for (int i = 0; i < 5; i++) {
        assert_true(mp__gcra_at(&g, 10 * MS, 50 * MS, now) == now);
        mp__gcra_take(&g, 10 * MS, now);
    }
    assert_true(mp__gcra_at(&g, 10 * MS, 50 * MS, now) == now + 10 * MS);
    now += 10 * MS;
    assert_true(mp__gcra_at(&g, 10 * MS, 50 * MS, now) == now);
    mp__gcra_take(&g, 10 * MS, now);
    mp__gcra_take(&g, -10 * MS, now); /* it was never sent */
    assert_true(mp__gcra_at(&g, 10 * MS, 50 * MS, now) == now);
    /* More than the burst: when all before it is paid. */
    assert_true(mp__gcra_at(&g, 900 * MS, 50 * MS, now) == now + 40 * MS);
}

static void test_rubbish_is_not_believed(void **state)
{
    (void)state;
    mp__gcra g = INT64_MAX; /* of another boot, or of a broken file */
    mp__time now = 100 * MP__SECOND;
    assert_true(mp__gcra_at(&g, MS, MS, now) == now);
    mp__gcra_take(&g, INT64_MAX, now);
    assert_true(atomic_load(&g) < now + MP__GCRA_SANE);
    g = INT64_MIN;
    assert_true(mp__gcra_at(&g, MS, MS, now) == now);
    mp__gcra_take(&g, MS, now);
    assert_true(atomic_load(&g) == now + MS);
    mp__gcra_raise(&g, now);
    assert_true(atomic_load(&g) == now + MS); /* it only grows */
}

static mp__gcra common;

static void *taker(void *arg)
{
    for (int i = 0; i < 100000; i++)
        mp__gcra_take(&common, 3, *(mp__time *)arg);
    return NULL;
}

static void test_threads_lose_nothing(void **state)
{
    (void)state;
    pthread_t t[4];
    mp__time now = 1000 * MP__SECOND;
    common = 0;
    for (int i = 0; i < 4; i++)
        pthread_create(&t[i], NULL, taker, &now);
    for (int i = 0; i < 4; i++)
        pthread_join(t[i], NULL);
    assert_true(atomic_load(&common) == now + 4 * 100000 * 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_burst_then_rate),
        cmocka_unit_test(test_rubbish_is_not_believed),
        cmocka_unit_test(test_threads_lose_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

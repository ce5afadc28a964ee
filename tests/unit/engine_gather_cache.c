/* engine_gather_cache.c - texts that are not asked again: the batcher's cache and its flights. */
#include "gather_rig.h"

/* Texts of the caller's choice; the vectors are checked by `first`, row by row. */
static void put_texts(struct want *w, long first, unsigned rows, const char *key)
{
    struct mp_gather how = MP_INIT(struct mp_gather);
    struct mp_request q = request_of(w, rows, "");
    static char text[64][16];
    struct mp_str v[64];
    for (unsigned i = 0; i < rows; i++) {
        v[i].n = (size_t)snprintf(text[i], sizeof(text[i]), "%ld", first + (long)i);
        v[i].p = text[i];
    }
    w->first = first;
    q.rows = v;
    how.key = (struct mp_str){key, strlen(key)};
    put(w, &q, &how);
}

static void open_cached(uint64_t bytes, unsigned slots)
{
    struct mp_batcher_config c = MP_INIT(struct mp_batcher_config);
    c.slots = slots;
    c.batch.size = 8;
    c.cache_bytes = bytes;
    c.single_flight = MP_FLIGHT_ON;
    open_with(&c);
}

static void test_known_texts_are_not_asked(void **state)
{
    (void)state;
    open_cached(1 << 20, 4);
    put_texts(&wants[0], 10, 4, "");
    rig_run(&rig, 1);
    unsigned before = rig.requests;
    put_texts(&wants[1], 11, 1, ""); /* one */
    put_texts(&wants[2], 10, 4, ""); /* all of several */
    rig_run(&rig, 3);
    assert_int_equal(rig.requests, before);
    assert_int_equal(wants[1].total, 0); /* and cost nothing */
    put_texts(&wants[3], 8, 8, "");      /* known ones between new ones */
    rig_run(&rig, 4);
    assert_int_equal(rig.requests, before + 1);
    assert_int_equal(batch_rows[before], 4);
    assert_int_equal(stats().hits, 1 + 4 + 4);
    assert_int_equal(stats().misses, 4 + 4);
    put_texts(&wants[4], 9, 6, "");
    rig_run(&rig, 5);
    assert_int_equal(rig.requests, before + 1);
    shut();
}

static void test_another_frame_is_another_text(void **state)
{
    (void)state;
    open_cached(1 << 20, 4);
    put_texts(&wants[0], 10, 1, "");
    rig_run(&rig, 1);
    struct mp_request q = request_of(&wants[1], 1, "");
    struct mp_str v = {"10", 2};
    wants[1].first = 10;
    q.rows = &v;
    q.suffix = (struct mp_str){"],\"dimensions\":2}", 17};
    put(&wants[1], &q, NULL);
    rig_run(&rig, 2);
    assert_int_equal(rig.requests, 2);
    shut();
}

static void test_the_cache_is_bounded(void **state)
{
    (void)state;
    open_cached(4000, 4);
    for (unsigned i = 0; i < 60; i++) {
        put_texts(&wants[i], 100 + (long)i, 1, "");
        rig_run(&rig, i + 1);
        assert_true(stats().cache_bytes <= 4000);
    }
    assert_true(stats().evicted > 0);
    unsigned before = rig.requests;
    put_texts(&wants[60], 159, 1, ""); /* the newest is there, the oldest is not */
    rig_run(&rig, 61);
    assert_int_equal(rig.requests, before);
    put_texts(&wants[61], 100, 1, "");
    rig_run(&rig, 62);
    assert_int_equal(rig.requests, before + 1);
    shut();
}

static void test_failures_are_not_kept(void **state)
{
    (void)state;
    open_cached(1 << 20, 4);
    for (unsigned i = 0; i < 2; i++) {
        struct mp_request q = request_of(&wants[i], 1, "");
        struct mp_str v = {"5x", 2};
        wants[i].check_rows = 0;
        q.rows = &v;
        put(&wants[i], &q, NULL);
        rig_run(&rig, i + 1);
        assert_int_equal(wants[i].status, 400);
    }
    assert_int_equal(rig.requests, 2);
    shut();
}

static void test_equal_texts_are_asked_once(void **state)
{
    (void)state;
    open_cached(0, 4);
    hold = 1;
    put_texts(&wants[0], 7, 1, "a");
    put_texts(&wants[1], 7, 1, "b");
    run_until_held(1);
    for (unsigned i = 2; i < 10; i++)
        put_texts(&wants[i], 7, 1, "c");
    put_texts(&wants[10], 8, 1, "c");
    run_until_held(2);
    hold = 0;
    release();
    rig_run(&rig, 11);
    assert_int_equal(rig.requests, 2);
    assert_int_equal(stats().shared, 9);
    assert_ptr_equal(wants[0].matrix, wants[9].matrix);
    int64_t sum = 0;
    for (unsigned i = 0; i < 11; i++) {
        assert_int_equal(wants[i].kind, MP_KIND_NONE);
        sum += wants[i].total;
    }
    assert_int_equal(sum, billed);
    put_texts(&wants[11], 7, 1, "a"); /* a flight is over with its answer */
    rig_run(&rig, 12);
    assert_int_equal(rig.requests, 3);
    shut();
}

static void test_the_next_takes_over(void **state)
{
    (void)state;
    open_cached(0, 1);
    hold = 1;
    put_texts(&wants[0], 7, 1, ""); /* in flight, with two behind it */
    run_until_held(1);
    put_texts(&wants[1], 7, 1, "");
    put_texts(&wants[2], 7, 1, "");
    put_texts(&wants[3], 9, 1, ""); /* waiting, with one behind it */
    put_texts(&wants[4], 9, 1, "");
    run_a_little();
    mp_batcher_cancel(batcher, wants[0].ticket);
    mp_batcher_cancel(batcher, wants[3].ticket);
    rig_run(&rig, 2);
    assert_int_equal(wants[0].kind, MP_KIND_CANCELLED);
    assert_int_equal(wants[3].kind, MP_KIND_CANCELLED);
    mp_batcher_cancel(batcher, wants[1].ticket);
    rig_run(&rig, 3);
    assert_int_equal(stats().busy, 1); /* somebody still wants it */
    hold = 0;
    release();
    rig_run(&rig, 5);
    assert_int_equal(wants[2].kind, MP_KIND_NONE);
    assert_int_equal(wants[4].kind, MP_KIND_NONE);
    assert_int_equal(rig.requests, 2);
    shut();
}

static void test_a_follower_has_more_time(void **state)
{
    (void)state;
    open_cached(0, 1);
    hold = 1;
    struct mp_request q = request_of(&wants[0], 1, "");
    struct mp_timeouts t = {.total = 0.02};
    struct mp_str v = {"7", 1};
    wants[0].first = 7;
    q.rows = &v;
    q.timeouts = &t;
    put(&wants[0], &q, NULL);
    run_until_held(1);
    t.total = 60; /* the same frame: the total is each one's own */
    wants[1].first = 7;
    q.arg = &wants[1];
    wants[1].rows = wants[1].check_rows = 1;
    put(&wants[1], &q, NULL);
    rig_run(&rig, 1);
    assert_int_equal(wants[0].kind, MP_KIND_TOTAL_TIMEOUT);
    hold = 0;
    release();
    rig_run(&rig, 2);
    assert_int_equal(wants[1].kind, MP_KIND_NONE);
    shut();
}

static void test_a_failure_is_everybodys(void **state)
{
    (void)state;
    open_cached(0, 1);
    struct mp_str v = {"5x", 2};
    for (unsigned i = 0; i < 4; i++) {
        struct mp_request q = request_of(&wants[i], 1, "");
        wants[i].check_rows = 0;
        q.rows = &v;
        put(&wants[i], &q, NULL);
    }
    rig_run(&rig, 4);
    assert_int_equal(rig.requests, 1);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(wants[i].status, 400);
    shut();
}

/* Few texts, many who ask, some who leave: each ends once, with the right vector or none. */
static void test_chaos_of_equal_texts(void **state)
{
    (void)state;
    for (unsigned run = 0; run < 4; run++) {
        seed = 900 + run;
        open_cached(run % 2 ? 3000 : 0, 1 + draw(3));
        unsigned many = 600;
        for (unsigned i = 0; i < many; i++) {
            put_texts(&wants[i], (long)draw(20), draw(3) ? 1 : 1 + draw(6), draw(2) ? "a" : "b");
            if (draw(4) == 0)
                mp_batcher_cancel(batcher, wants[draw(i + 1)].ticket);
            for (unsigned k = draw(4); k > 0; k--)
                uv_run(&rig.loop, UV_RUN_NOWAIT);
        }
        if (run == 3)
            mp_client_close(rig.client);
        rig_run(&rig, many);
        for (unsigned i = 0; i < many; i++)
            assert_int_equal(wants[i].ends, 1);
        assert_true(stats().shared > 0);
        shut();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_texts_are_not_asked),
        cmocka_unit_test(test_another_frame_is_another_text),
        cmocka_unit_test(test_the_cache_is_bounded),
        cmocka_unit_test(test_failures_are_not_kept),
        cmocka_unit_test(test_equal_texts_are_asked_once),
        cmocka_unit_test(test_the_next_takes_over),
        cmocka_unit_test(test_a_follower_has_more_time),
        cmocka_unit_test(test_a_failure_is_everybodys),
        cmocka_unit_test(test_chaos_of_equal_texts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

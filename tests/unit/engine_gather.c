/* engine_gather.c - the batcher: who shares a request, who waits, who pays, who is spared. */
#include "gather_rig.h"

static void test_free_slot_sends_at_once(void **state)
{
    (void)state;
    open_slots(2, 128);
    put_one(&wants[0], "", "");
    rig_run(&rig, 1);
    assert_int_equal(rig.requests, 1);
    assert_int_equal(wants[0].kind, MP_KIND_NONE);
    shut();
}

static void test_gathers_while_busy(void **state)
{
    (void)state;
    open_slots(1, 8);
    hold = 1;
    put_one(&wants[0], "", "");
    run_until_held(1);
    for (unsigned i = 1; i <= 20; i++)
        put_one(&wants[i], "", "");
    run_a_little();
    assert_int_equal(rig.requests, 1); /* all that came later waits */
    assert_int_equal(stats().waiting, 20);
    hold = 0;
    release();
    rig_run(&rig, 21);
    assert_int_equal(rig.requests, 4); /* 1, 8, 8, 4 */
    assert_int_equal(batch_rows[1], 8);
    assert_int_equal(batch_rows[3], 4);
    for (unsigned i = 0; i <= 20; i++)
        assert_int_equal(wants[i].ends, 1);
    assert_ptr_equal(wants[1].matrix, wants[8].matrix); /* a view, not a copy */
    assert_int_equal(wants[8].first_row, 7);
    assert_int_equal(stats().largest, 8);
    shut();
}

static void test_submissions_of_one_turn_share(void **state)
{
    (void)state;
    open_slots(4, 128);
    for (unsigned i = 0; i < 64; i++)
        put_one(&wants[i], "", "");
    rig_run(&rig, 64);
    assert_int_equal(rig.requests, 1);
    shut();
}

static void test_max_wait_is_the_oldests(void **state)
{
    (void)state;
    struct mp_batcher_config c = MP_INIT(struct mp_batcher_config);
    c.slots = 8;
    c.batch.size = 4;
    c.batch.max_wait = 3600;
    open_with(&c);
    for (unsigned i = 0; i < 3; i++)
        put_one(&wants[i], "", "");
    run_a_little();
    assert_int_equal(rig.requests, 0); /* neither full nor late */
    put_one(&wants[3], "", "");
    rig_run(&rig, 4); /* full */
    assert_int_equal(rig.requests, 1);
    put_one(&wants[4], "", "");
    struct mp_request q = request_of(&wants[5], 1, "");
    struct mp_gather how = MP_INIT(struct mp_gather);
    how.max_wait = 0.01; /* its own is shorter: the other goes with it */
    put(&wants[5], &q, &how);
    rig_run(&rig, 6);
    assert_int_equal(rig.requests, 2);
    assert_int_equal(batch_rows[1], 2);
    shut();
}

static void test_requests_that_differ_are_not_joined(void **state)
{
    (void)state;
    open_slots(16, 128);
    struct mp_header blue = {"x-colour", "blue"};
    struct mp_gather how = MP_INIT(struct mp_gather);
    struct mp_request q = request_of(&wants[0], 1, "");
    put(&wants[0], &q, NULL);
    q = request_of(&wants[1], 1, "");
    q.suffix = (struct mp_str){"],\"dimensions\":2}", 17};
    put(&wants[1], &q, NULL);
    q = request_of(&wants[2], 1, "");
    q.headers = &blue;
    q.nheaders = 1;
    put(&wants[2], &q, NULL);
    q = request_of(&wants[3], 1, "");
    how.group = (struct mp_str){"query", 5};
    put(&wants[3], &q, &how);
    q = request_of(&wants[4], 1, "");
    struct mp_vectors other = shape;
    other.dimensions = 2;
    q.vectors = &other;
    put(&wants[4], &q, NULL);
    q = request_of(&wants[5], 1, ""); /* like the first */
    put(&wants[5], &q, NULL);
    rig_run(&rig, 6);
    assert_int_equal(rig.requests, 5);
    shut();
}

static void test_a_row_without_vector_is_its_owners(void **state)
{
    (void)state;
    open_slots(1, 8);
    hold = 1;
    put_one(&wants[0], "", "");
    run_until_held(1);
    for (unsigned i = 1; i <= 4; i++) {
        struct mp_request q = request_of(&wants[i], i == 4 ? 12 : 2, i == 3 ? "n" : "");
        wants[i].bad = i == 3 ? 2 : 0;
        put(&wants[i], &q, NULL);
    }
    hold = 0;
    release();
    rig_run(&rig, 5);
    assert_int_equal(wants[3].kind, MP_KIND_NONE);
    assert_int_equal(wants[3].exchange_kind, MP_KIND_NONE);
    assert_ptr_equal(wants[3].matrix, NULL); /* no row of it is sound */
    assert_non_null(wants[2].matrix);
    assert_non_null(wants[4].matrix);
    shut();
}

static void test_usage_sums_exactly(void **state)
{
    (void)state;
    open_slots(1, 64);
    hold = 1;
    put_one(&wants[0], "", "");
    run_until_held(1);
    for (unsigned i = 1; i < 40; i++) {
        struct mp_request q = request_of(&wants[i], 1 + i % 3, i % 5 ? "abc" : "");
        wants[i].check_rows = 1;
        put(&wants[i], &q, NULL);
    }
    hold = 0;
    release();
    rig_run(&rig, 40);
    int64_t sum = 0;
    for (unsigned i = 0; i < 40; i++) {
        assert_true(wants[i].prompt > 0);
        assert_int_equal(wants[i].prompt, wants[i].total);
        sum += wants[i].prompt;
    }
    assert_int_equal(sum, billed);
    shut();
}

static void test_poison_harms_its_owner_only(void **state)
{
    (void)state;
    open_slots(1, 64);
    hold = 1;
    put_one(&wants[0], "", "");
    run_until_held(1);
    for (unsigned i = 1; i <= 32; i++) {
        wants[i].bad = i == 13;
        put_one(&wants[i], i == 13 ? "x" : "", "");
    }
    hold = 0;
    release();
    rig_run(&rig, 33);
    for (unsigned i = 0; i <= 32; i++) {
        int bad = i == 13;
        assert_int_equal(wants[i].exchange_kind, bad ? MP_KIND_HTTP : MP_KIND_NONE);
        assert_int_equal(wants[i].status, bad ? 400 : 200);
    }
    assert_int_equal(stats().alone, 0); /* halving was enough */
    shut();
}

/* Every second text is bad: still each gets what it would have got alone. */
static void test_much_poison(void **state)
{
    (void)state;
    open_slots(2, 64);
    hold = 1;
    put_one(&wants[0], "", "");
    put_one(&wants[1], "", "");
    run_until_held(1);
    for (unsigned i = 2; i < 66; i++) {
        struct mp_request q = request_of(&wants[i], 1, i % 2 ? "x" : "");
        wants[i].check_rows = i % 2 == 0;
        put(&wants[i], &q, NULL);
    }
    hold = 0;
    release();
    rig_run(&rig, 66);
    for (unsigned i = 2; i < 66; i++) {
        assert_int_equal(wants[i].ends, 1);
        assert_int_equal(wants[i].status, i % 2 ? 400 : 200);
    }
    int64_t sum = 0;
    for (unsigned i = 0; i < 66; i++)
        sum += wants[i].prompt > 0 ? wants[i].prompt : 0;
    assert_int_equal(sum, billed);
    shut();
}

static void test_invalid_text_names_its_row(void **state)
{
    (void)state;
    open_slots(1, 64);
    for (unsigned i = 0; i < 4; i++)
        put_one(&wants[i], "", "");
    struct mp_request q = request_of(&wants[4], 3, "");
    struct mp_str rows[3] = {q.rows[0], {"\xff", 1}, q.rows[2]};
    q.rows = rows;
    wants[4].bad = 1;
    put(&wants[4], &q, NULL);
    rig_run(&rig, 5);
    assert_int_equal(wants[4].bad_row, 1);
    assert_int_equal(wants[4].kind, MP_KIND_NONE);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(wants[i].exchange_kind, MP_KIND_NONE);
    shut();
}

static void test_keys_take_turns(void **state)
{
    (void)state;
    open_slots(1, 4);
    hold = 1;
    put_one(&wants[0], "", "");
    run_until_held(1);
    for (unsigned i = 1; i <= 100; i++)
        put_one(&wants[i], "", "flood");
    put_one(&wants[101], "", "quiet");
    put_one(&wants[102], "", "quiet");
    hold = 0;
    release();
    rig_run(&rig, 103);
    /* The first request after the hold has two of each key. */
    assert_true(wants[101].order <= 5 && wants[102].order <= 5);
    shut();
}

static void test_priority(void **state)
{
    (void)state;
    open_slots(1, 2);
    hold = 1;
    put_one(&wants[0], "", "");
    run_until_held(1);
    struct mp_gather how = MP_INIT(struct mp_gather);
    for (unsigned i = 1; i <= 40; i++) {
        struct mp_request q = request_of(&wants[i], 1, "");
        how.priority = i <= 20 ? -1 : 1;
        put(&wants[i], &q, &how);
    }
    hold = 0;
    release();
    rig_run(&rig, 41);
    unsigned early = 0;
    for (unsigned i = 21; i <= 40; i++)
        early += wants[i].order <= 1 + 20 + 4;
    assert_int_equal(early, 20);              /* ahead of those that came before */
    assert_true(wants[1].order <= 1 + 2 * 8); /* but nobody starves */
    shut();
}

static void test_large_submission_is_cut(void **state)
{
    (void)state;
    open_slots(2, 8);
    struct mp_request q = request_of(&wants[0], 50, "");
    put(&wants[0], &q, NULL);
    for (unsigned i = 1; i < 10; i++)
        put_one(&wants[i], "", "other");
    rig_run(&rig, 10);
    assert_int_equal(wants[0].first_row, 0);
    assert_int_equal(mp_matrix_rows(wants[0].matrix), 50);
    for (unsigned i = 0; i < rig.requests; i++)
        assert_true(batch_rows[i] <= 8);
    assert_true(wants[1].order < wants[0].order); /* it does not keep the others waiting */
    shut();
}

static void test_token_budget(void **state)
{
    (void)state;
    struct mp_batcher_config c = MP_INIT(struct mp_batcher_config);
    c.slots = 1;
    c.batch.bytes = 40; /* and the frame is 12 */
    open_with(&c);
    for (unsigned i = 0; i < 12; i++)
        put_one(&wants[i], "abcd", "");
    rig_run(&rig, 12);
    assert_true(rig.requests >= 4);
    shut();
}

static void test_cancel_and_deadline(void **state)
{
    (void)state;
    open_slots(1, 8);
    hold = 1;
    put_one(&wants[0], "", "");
    run_until_held(1);
    put_one(&wants[1], "", "");
    struct mp_request q = request_of(&wants[2], 1, "");
    struct mp_timeouts t = {.total = 0.005};
    q.timeouts = &t;
    put(&wants[2], &q, NULL);
    put_one(&wants[3], "", "");
    mp_batcher_cancel(batcher, wants[1].ticket);
    mp_batcher_cancel(batcher, wants[1].ticket); /* idempotent */
    mp_batcher_cancel(batcher, 12345);
    rig_run(&rig, 2);
    assert_int_equal(wants[1].kind, MP_KIND_CANCELLED);
    assert_int_equal(wants[2].kind, MP_KIND_TOTAL_TIMEOUT);
    assert_int_equal(stats().dropped, 2);
    hold = 0;
    release();
    rig_run(&rig, 4);
    assert_int_equal(batch_rows[1], 1); /* what was dropped is not asked */
    shut();
}

static void test_last_interest_cancels_upstream(void **state)
{
    (void)state;
    open_slots(1, 8);
    hold = 1;
    put_one(&wants[0], "", "");
    put_one(&wants[1], "", "");
    run_until_held(1);
    struct mp_client_stats s = MP_INIT(struct mp_client_stats);
    mp_batcher_cancel(batcher, wants[0].ticket);
    rig_run(&rig, 1);
    mp_client_stats(rig.client, &s);
    assert_int_equal(s.in_flight, 1); /* the other still waits */
    mp_batcher_cancel(batcher, wants[1].ticket);
    rig_run(&rig, 2);
    run_a_little();
    mp_client_stats(rig.client, &s);
    assert_int_equal(s.in_flight, 0);
    assert_int_equal(stats().busy, 0); /* and the slot is free again */
    release();
    shut();
}

static void test_bounds(void **state)
{
    (void)state;
    struct mp_batcher_config c = MP_INIT(struct mp_batcher_config);
    c.slots = 1;
    c.max_waiting = 10;
    open_with(&c);
    hold = 1;
    put_one(&wants[0], "", "");
    run_until_held(1);
    for (unsigned i = 1; i <= 10; i++)
        put_one(&wants[i], "", "");
    struct mp_request q = request_of(&wants[11], 1, "");
    assert_int_equal(mp_batcher_submit(batcher, &q, NULL, NULL), MP_EAGAIN);
    q = request_of(&wants[11], 11, "");
    assert_int_equal(mp_batcher_submit(batcher, &q, NULL, NULL), MP_EINVAL);
    q = request_of(&wants[11], 1, "");
    q.vectors = NULL;
    assert_int_equal(mp_batcher_submit(batcher, &q, NULL, NULL), MP_EINVAL);
    assert_non_null(strstr(mp_last_error(), "vectors"));
    q = request_of(&wants[11], 1, "");
    q.path = "/a b";
    assert_int_equal(mp_batcher_submit(batcher, &q, NULL, NULL), MP_EINVAL);
    hold = 0;
    release();
    rig_run(&rig, 11);
    assert_int_equal(stats().refused, 1);
    struct mp_stats es = MP_INIT(struct mp_stats);
    run_a_little();
    mp_stats(rig.engine, &es);
    assert_int_equal(es.queued_bytes, 0);
    shut();
}

static void test_close_ends_all(void **state)
{
    (void)state;
    for (int how = 0; how < 3; how++) {
        open_slots(1, 4);
        hold = 1;
        put_one(&wants[0], "", "");
        run_until_held(1);
        for (unsigned i = 1; i < 20; i++)
            put_one(&wants[i], "", i % 2 ? "a" : "b");
        struct mp_request q = request_of(&wants[20], 40, "");
        put(&wants[20], &q, NULL);
        if (how == 0)
            mp_batcher_close(batcher);
        else if (how == 1)
            mp_client_close(rig.client);
        else
            mp_engine_close(rig.engine, rig_closed, &rig.closed);
        if (how == 1) {
            q = request_of(&wants[21], 1, "");
            assert_int_equal(mp_batcher_submit(batcher, &q, NULL, NULL), MP_ECLOSED);
        }
        rig_run(&rig, 21);
        for (int i = 0; how == 2 && i < 100000 && !rig.closed; i++)
            uv_run(&rig.loop, UV_RUN_ONCE);
        if (how == 2)
            rig.engine = NULL; /* gone, and the batcher with it */
        for (unsigned i = 0; i <= 20; i++) {
            assert_int_equal(wants[i].ends, 1);
            assert_int_equal(wants[i].kind, MP_KIND_CLOSED);
        }
        release();
        if (how == 1)
            mp_batcher_close(batcher);
        rig_close(&rig);
        for (unsigned i = 0; i < MANY; i++)
            mp_matrix_unref(wants[i].matrix);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_free_slot_sends_at_once),
        cmocka_unit_test(test_gathers_while_busy),
        cmocka_unit_test(test_submissions_of_one_turn_share),
        cmocka_unit_test(test_max_wait_is_the_oldests),
        cmocka_unit_test(test_requests_that_differ_are_not_joined),
        cmocka_unit_test(test_a_row_without_vector_is_its_owners),
        cmocka_unit_test(test_usage_sums_exactly),
        cmocka_unit_test(test_poison_harms_its_owner_only),
        cmocka_unit_test(test_much_poison),
        cmocka_unit_test(test_invalid_text_names_its_row),
        cmocka_unit_test(test_keys_take_turns),
        cmocka_unit_test(test_priority),
        cmocka_unit_test(test_large_submission_is_cut),
        cmocka_unit_test(test_token_budget),
        cmocka_unit_test(test_cancel_and_deadline),
        cmocka_unit_test(test_last_interest_cancels_upstream),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_close_ends_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

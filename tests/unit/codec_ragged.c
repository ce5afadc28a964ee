/*
 * codec_ragged.c - rows of several vectors and sparse rows out of replies: good, odd and cut off.
 */
#include "codec/ragged.h"
#include "codec_util.h"

static const struct mp__ragged_shape all = {.list = ""};
static const struct mp__ragged_shape pairs = {
    .list = "", .places = "index", .numbers = "value", .form = MP__RAGGED_PAIRS};
static const struct mp__ragged_shape arrays = {
    .list = "data", .places = "i", .numbers = "v", .form = MP__RAGGED_ARRAYS};
static const struct mp__ragged_shape placed = {.list = "data", .index = "index", .vectors = "e.v"};

/* In an allocation of its own, so that reading past it is seen. */
static int read_text(struct mp__ragged_build *b, const struct mp__ragged_shape *shape,
                     const char *text, size_t n, size_t first, size_t count, char *err)
{
    char *copy = malloc(n != 0 ? n : 1);
    int rc;

    memcpy(copy, text, n);
    rc = mp__ragged_read(b, shape, copy, n, first, count, err, 160);
    free(copy);
    return rc;
}

static void bad(const struct mp__ragged_shape *shape, const char *text, size_t count,
                const char *part)
{
    struct mp__ragged_build *b = mp__ragged_build_new(count);
    struct mp__ragged *r;
    char err[160] = "";
    size_t n;

    assert_int_equal(read_text(b, shape, text, strlen(text), 0, count, err), MP_EINVAL);
    if (strstr(err, part) == NULL)
        fail_msg("'%s' does not say '%s'", err, part);
    for (n = 0; n < strlen(text); n++)
        assert_int_equal(read_text(b, shape, text, n, 0, count, err), MP_EINVAL);
    r = mp__ragged_done(b);
    assert_int_equal(r->offsets[count], 0); /* nothing of a bad reply is left */
    mp__ragged_free(r);
    mp__ragged_build_free(b);
}

static void test_good(void **state)
{
    static const char first[] = "[[[1,2],[3,4]] , [ [5, 6] ]]", second[] = "[[[7,8]]]";
    static const char mixed[] = "{\"data\":[{\"e\":{\"v\":[[3,4]]},\"index\":1},"
                                "{\"index\":0,\"e\":{\"v\":[[1,2],[5,6]],\"w\":[]}}]}";
    struct mp__ragged_build *b = mp__ragged_build_new(4);
    struct mp__ragged *r;
    char err[160];

    (void)state;
    /* Replies come in any order; row 3 (from 0) never does. */
    assert_int_equal(read_text(b, &all, second, strlen(second), 2, 1, err), 0);
    assert_int_equal(read_text(b, &all, first, strlen(first), 0, 2, err), 0);
    r = mp__ragged_done(b);
    assert_int_equal(r->offsets[1], 2);
    assert_int_equal(r->offsets[2], 3);
    assert_int_equal(r->offsets[4], 4);
    assert_true(mp_matrix_data(r->vectors)[4] == 5 && mp_matrix_data(r->vectors)[6] == 7);
    mp__ragged_free(r);
    mp__ragged_build_free(b);

    b = mp__ragged_build_new(2);
    assert_int_equal(read_text(b, &placed, mixed, strlen(mixed), 0, 2, err), 0);
    r = mp__ragged_done(b);
    assert_int_equal(r->offsets[1], 2);
    assert_true(mp_matrix_data(r->vectors)[2] == 5 && mp_matrix_data(r->vectors)[4] == 3);
    mp__ragged_free(r);
    mp__ragged_build_free(b);
}

static const struct mp__ragged_shape groups = {
    .list = "data", .index = "index", .vectors = "data", .places = "index", .numbers = "embedding"};

static void test_groups(void **state)
{
    static const char text[] = "{\"data\":[{\"data\":[{\"index\":1,\"embedding\":[3,4]},"
                               "{\"embedding\":[1,2],\"index\":0}],\"index\":1},"
                               "{\"index\":0,\"data\":[{\"embedding\":[5,6],\"index\":0}]}]}";
    struct mp__ragged_build *b = mp__ragged_build_new(2);
    struct mp__ragged *r;
    char err[160];

    (void)state;
    assert_int_equal(read_text(b, &groups, text, strlen(text), 0, 2, err), 0);
    r = mp__ragged_done(b);
    assert_int_equal(r->offsets[1], 1);
    assert_true(mp_matrix_data(r->vectors)[0] == 5 && mp_matrix_data(r->vectors)[2] == 1);
    assert_true(mp_matrix_data(r->vectors)[4] == 3);
    mp__ragged_free(r);
    mp__ragged_build_free(b);
    bad(&groups, "{\"data\":[{\"index\":0,\"data\":[{\"index\":1,\"embedding\":[1]}]}]}", 1,
        "place 1 is out of range");
    bad(&groups, "{\"data\":[{\"index\":0,\"data\":[{\"index\":0}]}]}", 1, "has no \"embedding\"");
    bad(&groups, "{\"data\":[{\"index\":0,\"data\":[{\"index\":0,\"embedding\":[null]}]}]}", 1,
        "not a number");
}

static void test_sparse(void **state)
{
    static const char text[] = "[[{\"index\":9,\"value\":0.5},{\"value\":2,\"index\":3}],[]]";
    static const char lists[] = "{\"data\":[{\"v\":[1,2],\"i\":[4,8]}]}";
    static const uint32_t query[] = {3, 9};
    static const float weights[] = {1, 4};
    struct mp__ragged_build *b = mp__ragged_build_new(2);
    struct mp__ragged *r;
    size_t idx[2];
    float score[2];
    char err[160];

    (void)state;
    assert_int_equal(read_text(b, &pairs, text, strlen(text), 0, 2, err), 0);
    r = mp__ragged_done(b);
    assert_int_equal(r->indices[0], 3); /* put in order */
    assert_true(mp_matrix_data(r->vectors)[0] == 2);
    assert_int_equal(mp__ragged_topk_sparse(r, query, weights, 2, 2, idx, score), 1);
    assert_true(idx[0] == 0 && score[0] == 4);
    mp__ragged_free(r);
    mp__ragged_build_free(b);
    b = mp__ragged_build_new(1);
    assert_int_equal(read_text(b, &arrays, lists, strlen(lists), 0, 1, err), 0);
    r = mp__ragged_done(b);
    assert_int_equal(r->indices[1], 8);
    mp__ragged_free(r);
    mp__ragged_build_free(b);
}

static void test_bad(void **state)
{
    (void)state;
    bad(&all, "[[[1,2]]]", 2, "1 items, 2 were sent");
    bad(&all, "[[[1]],[[2]],[[3]]]", 2, "more items than the 2");
    bad(&all, "[[[1,2],[3]]]", 1, "dimension 1, expected 2");
    bad(&all, "[[[]]]", 1, "dimension 0");
    bad(&all, "[[[1,null]]]", 1, "not a number");
    bad(&all, "[[1,2]]", 1, "a vector is not a list");
    bad(&all, "[null]", 1, "not a list of vectors");
    bad(&all, "{}", 1, "no list");
    bad(&placed, "{\"data\":[{\"index\":2,\"e\":{\"v\":[[1]]}}]}", 1, "out of range");
    bad(&placed, "{\"data\":[{\"index\":0,\"e\":{\"v\":[[1]]}},{\"index\":0,\"e\":{\"v\":[[1]]}}]}",
        2, "duplicate index 0");
    bad(&placed, "{\"data\":[{\"index\":0,\"e\":{}}]}", 1, "has no \"e.v\"");
    bad(&pairs, "[[{\"index\":1}]]", 1, "has no \"value\"");
    bad(&pairs, "[[{\"index\":-1,\"value\":1}]]", 1, "not a place");
    bad(&pairs, "[[{\"index\":1,\"value\":1},{\"index\":1,\"value\":2}]]", 1, "twice");
    bad(&arrays, "{\"data\":[{\"v\":[1],\"i\":[4,8]}]}", 1, "2 places and 1 numbers");
    bad(&arrays, "{\"data\":[{\"v\":[1]}]}", 1, "has no \"i\"");
}

static void test_unfit(void **state)
{
    uint64_t *offsets = calloc(3, sizeof(*offsets));

    (void)state;
    offsets[1] = 2;
    offsets[2] = 1;
    assert_null(mp__ragged_new(mp_matrix_new(1, 2), 2, offsets, NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good), cmocka_unit_test(test_groups), cmocka_unit_test(test_sparse),
        cmocka_unit_test(test_bad),  cmocka_unit_test(test_unfit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Batching: the seeds' splitting examples, and the limits of every kind. */
#include "policy_rig.h"
#include "policy/batch.h"

static const uint64_t *SIZES;
static uint64_t BAD = UINT64_MAX, ASKED;

static int cost(void *arg, uint64_t row, struct mpp_cost *out)
{
    (void)arg;
    ASKED++;
    if (row == BAD)
        return -1;
    out->chars = SIZES[row];
    out->bytes = SIZES[row] * 2;
    out->tokens = (double)SIZES[row] / 4;
    return 0;
}

static void expect(const struct mp_batch_policy *p, const uint64_t *sizes, uint64_t n,
                   const uint32_t *want, size_t batches)
{
    uint64_t at = 0;
    size_t k;

    SIZES = sizes;
    for (k = 0; k < batches; k++) {
        uint32_t got = mpp_batch_take(p, cost, NULL, at, n - at, NULL);

        assert_int_equal(got, want[k]);
        at += got;
    }
    assert_int_equal(at, n);
    assert_int_equal(mpp_batch_take(p, cost, NULL, at, 0, NULL), 0);
}

#define EXPECT(policy, sizes, ...)                                                                 \
    do {                                                                                           \
        const uint32_t want[] = {__VA_ARGS__};                                                     \
        expect(policy, sizes, sizeof(sizes) / sizeof(sizes[0]), want,                              \
               sizeof(want) / sizeof(want[0]));                                                    \
    } while (0)

static void an_item_over_the_limit_goes_alone(void **state)
{
    static const uint64_t s[] = {5, 10, 3, 21, 5, 5};

    (void)state;
    EXPECT((&(struct mp_batch_policy){.size = 3, .chars = 20}), s, 3, 1, 2);
}

static void an_exact_fit_is_allowed(void **state)
{
    static const uint64_t s[] = {5, 10, 5, 4};

    (void)state;
    EXPECT((&(struct mp_batch_policy){.size = 3, .chars = 20}), s, 3, 1);
}

static void the_count_is_a_cap(void **state)
{
    static const uint64_t s[] = {1, 1, 1, 1, 9, 2};

    (void)state;
    EXPECT((&(struct mp_batch_policy){.size = 3, .chars = 6}), s, 3, 1, 1, 1);
}

static void all_over_the_limit_one_each(void **state)
{
    static const uint64_t s[] = {50, 60, 70};

    (void)state;
    EXPECT((&(struct mp_batch_policy){.size = 10, .chars = 20}), s, 1, 1, 1);
}

static void a_large_limit_makes_one_batch(void **state)
{
    static const uint64_t s[] = {1, 2, 3, 4};

    (void)state;
    EXPECT((&(struct mp_batch_policy){.size = 128, .chars = 256000}), s, 4);
    EXPECT((&(struct mp_batch_policy){.size = 2}), s, 2, 2);
}

static void bytes_and_tokens_limit_too(void **state)
{
    static const uint64_t s[] = {4, 4, 4, 4};
    static const uint64_t huge[] = {UINT64_MAX, 1, UINT64_MAX};

    (void)state;
    EXPECT((&(struct mp_batch_policy){.size = 9, .bytes = 16}), s, 2, 2);
    EXPECT((&(struct mp_batch_policy){.size = 9, .tokens = 3}), s, 3, 1);
    EXPECT((&(struct mp_batch_policy){.size = 9, .tokens = 3, .bytes = 8}), s, 1, 1, 1, 1);
    EXPECT((&(struct mp_batch_policy){.size = 9, .chars = 10}), huge, 1, 1, 1);
}

static void the_default_size_is_128(void **state)
{
    static uint64_t s[300];
    static const uint32_t want[] = {128, 128, 44};

    (void)state;
    expect(&(struct mp_batch_policy){0}, s, 300, want, 3);
}

static void a_row_without_a_cost_ends_the_batch(void **state)
{
    static const uint64_t s[] = {1, 1, 1};
    struct mpp_batch_sum sum;

    (void)state;
    SIZES = s;
    BAD = 2;
    assert_int_equal(mpp_batch_take(&(struct mp_batch_policy){.size = 9}, cost, NULL, 0, 3, &sum),
                     2);
    assert_int_equal(sum.chars, 2);
    assert_int_equal(mpp_batch_take(&(struct mp_batch_policy){.size = 9}, cost, NULL, 2, 1, &sum),
                     0);
    BAD = UINT64_MAX;
}

static void a_full_batch_does_not_look_further(void **state)
{
    static const uint64_t s[] = {1, 1, 1, 1};

    (void)state;
    SIZES = s;
    ASKED = 0;
    mpp_batch_take(&(struct mp_batch_policy){.size = 2}, cost, NULL, 0, 4, NULL);
    assert_int_equal(ASKED, 2);
}

static void size_classes_are_powers_of_two(void **state)
{
    (void)state;
    assert_int_equal(mpp_size_class(0), 0);
    assert_int_equal(mpp_size_class(1), 1);
    assert_int_equal(mpp_size_class(2), 2);
    assert_int_equal(mpp_size_class(3.9), 2);
    assert_int_equal(mpp_size_class(1024), 11);
    assert_true(mpp_size_class(1e300) <= 64);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_item_over_the_limit_goes_alone),
        cmocka_unit_test(an_exact_fit_is_allowed),
        cmocka_unit_test(the_count_is_a_cap),
        cmocka_unit_test(all_over_the_limit_one_each),
        cmocka_unit_test(a_large_limit_makes_one_batch),
        cmocka_unit_test(bytes_and_tokens_limit_too),
        cmocka_unit_test(the_default_size_is_128),
        cmocka_unit_test(a_row_without_a_cost_ends_the_batch),
        cmocka_unit_test(a_full_batch_does_not_look_further),
        cmocka_unit_test(size_classes_are_powers_of_two),
    };

    return cmocka_run_group_tests_name("policy_batch", tests, NULL, NULL);
}

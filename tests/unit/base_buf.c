/* base_buf.c - the buffer: what is in it, its maximum, and what becomes of its memory. */
#include "base/buf.h"
#include "base_util.h"

static void bytes_are_kept_in_order(void **state)
{
    struct mp__buf b;
    char *text;
    size_t n = 0;
    int i;

    (void)state;
    mp__buf_init(&b, 0);
    for (i = 0; i < 10000; i++)
        assert_int_equal(mp__buf_addc(&b, (char)('a' + i % 26)), 0);
    assert_int_equal(mp__buf_adds(&b, "end"), 0);
    assert_int_equal(mp__buf_add(&b, NULL, 0), 0);
    assert_int_equal(b.n, 10003);
    text = mp__buf_take(&b, &n);
    assert_non_null(text);
    assert_int_equal(n, 10003);
    assert_int_equal(strlen(text), n);
    for (i = 0; i < 10000; i++)
        assert_int_equal(text[i], 'a' + i % 26);
    assert_string_equal(text + 10000, "end");
    assert_null(b.p);
    assert_int_equal(b.n, 0);
    free(text);
}

static void the_maximum_is_hard_and_leaves_what_was_there(void **state)
{
    struct mp__buf b;
    size_t n;
    char *text;

    (void)state;
    mp__buf_init(&b, 10);
    assert_int_equal(mp__buf_adds(&b, "12345678"), 0);
    assert_int_equal(mp__buf_adds(&b, "abc"), MP__ETOOBIG);
    assert_int_equal(b.n, 8);
    assert_memory_equal(b.p, "12345678", 8);
    assert_int_equal(mp__buf_adds(&b, "ab"), 0);
    assert_int_equal(mp__buf_addc(&b, 'x'), MP__ETOOBIG);
    assert_int_equal(mp__buf_reserve(&b, SIZE_MAX), MP__ETOOBIG);
    assert_int_equal(mp__buf_reserve(&b, SIZE_MAX / 2), MP__ETOOBIG);
    assert_int_equal(mp__buf_reserve(&b, 0), 0);
    text = mp__buf_take(&b, &n); /* its NUL may lie past the maximum */
    assert_string_equal(text, "12345678ab");
    assert_int_equal(b.max, 10);
    free(text);
    mp__buf_init(&b, 0);
    assert_int_equal(mp__buf_adds(&b, "x"), 0);
    assert_int_equal(mp__buf_reserve(&b, SIZE_MAX), MP__ETOOBIG);
    assert_int_equal(b.n, 1);
    mp__buf_free(&b);
}

static void room_reserved_is_room_had(void **state)
{
    struct mp__buf b;
    char *p;

    (void)state;
    mp__buf_init(&b, 0);
    assert_int_equal(mp__buf_reserve(&b, 1000), 0);
    p = b.p;
    assert_true(b.cap >= 1000);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(mp__buf_addc(&b, 'x'), 0);
    assert_ptr_equal(b.p, p);
    mp__buf_free(&b);
    assert_null(b.p);
    assert_int_equal(mp__buf_adds(&b, "again"), 0);
    assert_memory_equal(b.p, "again", 5);
    mp__buf_free(&b);
}

static void trimming_keeps_small_memory_and_frees_big(void **state)
{
    struct mp__buf b;

    (void)state;
    mp__buf_init(&b, 5000);
    mp__buf_trim(&b, 0);
    assert_int_equal(mp__buf_reserve(&b, 4000), 0);
    b.n = 4000;
    mp__buf_trim(&b, b.cap);
    assert_int_equal(b.n, 0);
    assert_non_null(b.p);
    mp__buf_trim(&b, b.cap - 1);
    assert_null(b.p);
    assert_int_equal(b.cap, 0);
    assert_int_equal(b.max, 5000);
}

static void an_empty_buffer_is_an_empty_string(void **state)
{
    struct mp__buf b;
    size_t n = 9;
    char *text;

    (void)state;
    mp__buf_init(&b, 0);
    text = mp__buf_take(&b, &n);
    assert_string_equal(text, "");
    assert_int_equal(n, 0);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_are_kept_in_order),
        cmocka_unit_test(the_maximum_is_hard_and_leaves_what_was_there),
        cmocka_unit_test(room_reserved_is_room_had),
        cmocka_unit_test(trimming_keeps_small_memory_and_frees_big),
        cmocka_unit_test(an_empty_buffer_is_an_empty_string),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * codec_json.c - buffers, JSON text out, UTF-8, and looking one value up.
 */
#include "codec/cpu.h"
#include "codec/json_find.h"
#include "codec/json_write.h"
#include "codec_util.h"

#include <cjson/cJSON.h>
#include <locale.h>
#include <math.h>

static void test_buf(void **state)
{
    struct mp__buf b;
    size_t n;
    char *p;
    int i;

    (void)state;
    mp__buf_init(&b, 10);
    assert_int_equal(mp__buf_adds(&b, "12345"), 0);
    assert_int_equal(mp__buf_add(&b, "67890X", 6), MP__ETOOBIG);
    assert_int_equal(b.n, 5);
    assert_int_equal(mp__buf_reserve(&b, SIZE_MAX), MP__ETOOBIG);
    assert_int_equal(mp__buf_adds(&b, "67890"), 0);
    assert_int_equal(mp__buf_addc(&b, '1'), MP__ETOOBIG);
    p = mp__buf_take(&b, &n);
    assert_int_equal(n, 10);
    assert_string_equal(p, "1234567890");
    free(p);
    assert_int_equal(b.n, 0);
    assert_int_equal(b.max, 10);
    p = mp__buf_take(&b, NULL);
    assert_string_equal(p, "");
    free(p);
    mp__buf_init(&b, 0);
    for (i = 0; i < 100000; i++)
        assert_int_equal(mp__buf_addc(&b, (char)i), 0);
    assert_int_equal(b.n, 100000);
    assert_int_equal(b.p[65], 65);
    assert_int_equal(mp__buf_reserve(&b, SIZE_MAX - 5), MP__ETOOBIG);
    mp__buf_free(&b);
    mp__buf_free(&b);
}

static void check_string(const char *s, size_t n, const char *want)
{
    struct mp__buf b;

    mp__buf_init(&b, 0);
    mp__buf_adds(&b, "x");
    assert_int_equal(mp__json_string(&b, s, n, NULL), 0);
    assert_int_equal(b.n, strlen(want) + 1);
    assert_memory_equal(b.p + 1, want, b.n - 1);
    mp__buf_free(&b);
}

static void test_string(void **state)
{
    int level;

    (void)state;
    for (level = MP__SIMD_NONE; level <= MP__SIMD_AVX2; level++) {
        mp__simd_limit(level);
        check_string("", 0, "\"\"");
        check_string("a\0b", 3, "\"a\\u0000b\"");
        check_string("\b\f\n\r\t\x01\x1f\x7f/", 9, "\"\\b\\f\\n\\r\\t\\u0001\\u001f\x7f/\"");
        check_string("\"\\", 2, "\"\\\"\\\\\"");
        check_string("\xE2\x80\xA8\xC3\xA9\xF0\x9F\x98\x80", 9,
                     "\"\xE2\x80\xA8\xC3\xA9\xF0\x9F\x98\x80\"");
    }
    mp__simd_limit(0);
}

static const struct {
    const char *s;
    size_t n;
    size_t at;
} bad_utf8[] = {
    {"\x80", 1, 0},
    {"a\xC3", 2, 1},
    {"\xC0\x80", 2, 0},
    {"\xC1\xBF", 2, 0},
    {"ok\xE0\x9F\xBF", 5, 2},
    {"\xED\xA0\x80", 3, 0},
    {"\xED\xBF\xBF", 3, 0},
    {"\xF0\x8F\xBF\xBF", 4, 0},
    {"\xF4\x90\x80\x80", 4, 0},
    {"\xF5\x80\x80\x80", 4, 0},
    {"\xFF", 1, 0},
    {"\xC3\xA9\xE2\x82", 4, 2},
    {"\xE2\x28\xA1", 3, 0},
    {"\xF0\x9F\x98", 3, 0},
    {"\xF8\x88\x80\x80\x80", 5, 0},
};

static void test_bad_utf8(void **state)
{
    size_t i, pad, at;

    (void)state;
    for (i = 0; i < sizeof(bad_utf8) / sizeof(*bad_utf8); i++)
        for (pad = 0; pad < 70; pad++) {
            char s[160];
            struct mp__buf b;
            size_t n = pad + bad_utf8[i].n;

            memset(s, 'x', sizeof(s));
            memcpy(s + pad, bad_utf8[i].s, bad_utf8[i].n);
            mp__buf_init(&b, 0);
            mp__buf_adds(&b, "keep");
            at = 999;
            assert_int_equal(mp__json_string(&b, s, n, &at), MP_EINVAL);
            assert_int_equal(at, pad + bad_utf8[i].at);
            assert_int_equal(b.n, 4);
            at = 999;
            assert_int_equal(mp__utf8_valid(s, n, &at), MP_EINVAL);
            assert_int_equal(at, pad + bad_utf8[i].at);
            mp__buf_free(&b);
        }
}

static size_t put_scalar(char *p, uint32_t c)
{
    if (c < 0x80) {
        p[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        p[0] = (char)(0xC0 | c >> 6);
        p[1] = (char)(0x80 | (c & 63));
        return 2;
    }
    if (c < 0x10000) {
        p[0] = (char)(0xE0 | c >> 12);
        p[1] = (char)(0x80 | (c >> 6 & 63));
        p[2] = (char)(0x80 | (c & 63));
        return 3;
    }
    p[0] = (char)(0xF0 | c >> 18);
    p[1] = (char)(0x80 | (c >> 12 & 63));
    p[2] = (char)(0x80 | (c >> 6 & 63));
    p[3] = (char)(0x80 | (c & 63));
    return 4;
}

static void test_all_scalars(void **state)
{
    char s[4];
    uint32_t c;
    size_t n;

    (void)state;
    for (c = 0; c < 0x110800; c++) {
        int good = c < 0x110000 && (c < 0xD800 || c > 0xDFFF);

        n = put_scalar(s, c);
        if ((mp__utf8_valid(s, n, NULL) == 0) != good)
            fail_msg("U+%04X", c);
    }
}

static void test_round_trip(void **state)
{
    char s[300];
    struct mp__buf b;
    size_t n, chars;
    int round;
    cJSON *j;

    (void)state;
    mp__buf_init(&b, 0);
    for (round = 0; round < 20000; round++) {
        size_t want = below(60);

        mp__simd_limit((int)below(4));
        for (n = chars = 0; chars < want; chars++) {
            static const uint32_t most[] = {0x7F, 0x7F, 0x7F, 0x7FF, 0xD7FF, 0x10FFFF};
            uint32_t c = (uint32_t)below(most[below(6)]) + 1;

            n += put_scalar(s + n, c >= 0xD800 && c <= 0xDFFF ? 'x' : c);
        }
        s[n] = '\0';
        b.n = 0;
        assert_int_equal(mp__utf8_valid(s, n, NULL), 0);
        assert_int_equal(mp__utf8_chars(s, n), chars);
        assert_int_equal(mp__json_string(&b, s, n, NULL), 0);
        j = cJSON_ParseWithLength(b.p, b.n);
        assert_non_null(j);
        assert_string_equal(cJSON_GetStringValue(j), s);
        cJSON_Delete(j);
    }
    mp__simd_limit(0);
    mp__buf_free(&b);
}

static void test_string_bounds(void **state)
{
    struct mp__buf b;

    (void)state;
    mp__buf_init(&b, 6);
    assert_int_equal(mp__json_string(&b, "12345", 5, NULL), MP__ETOOBIG);
    assert_int_equal(b.n, 0);
    assert_int_equal(mp__json_string(&b, "\n\n\n", 3, NULL), MP__ETOOBIG); /* 8 once escaped */
    assert_int_equal(b.n, 0);
    assert_int_equal(mp__json_string(&b, "1234", 4, NULL), 0);
    mp__buf_free(&b);
}

static void check_number(double v, const char *want)
{
    struct mp__buf b;

    mp__buf_init(&b, 0);
    assert_int_equal(mp__json_number(&b, v), 0);
    if (b.n != strlen(want) || memcmp(b.p, want, b.n) != 0)
        fail_msg("%.*s, wanted %s", (int)b.n, b.p, want);
    mp__buf_free(&b);
}

static void check_numbers(void)
{
    check_number(0, "0");
    check_number(-0.0, "-0");
    check_number(1, "1");
    check_number(-42, "-42");
    check_number(0.1, "0.1");
    check_number(0.1 + 0.2, "0.30000000000000004");
    check_number(1e21, "1e+21");
    check_number(1.5e-7, "1.5e-07");
    check_number(9007199254740991.0, "9007199254740991");
    check_number(100000000000.0, "100000000000");
    check_number(1.7976931348623157e308, "1.7976931348623157e+308");
    check_number(5e-324, "4.94065645841247e-324");
}

static void test_number(void **state)
{
    static const char *const names[] = {"de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8"};
    struct mp__buf b;
    size_t i;
    uint64_t u;
    double v;
    char text[64];

    (void)state;
    check_numbers();
    mp__buf_init(&b, 0);
    assert_int_equal(mp__json_number(&b, NAN), MP_EINVAL);
    assert_int_equal(mp__json_number(&b, -INFINITY), MP_EINVAL);
    for (i = 0; i < 100000; i++) {
        u = rnd();
        memcpy(&v, &u, sizeof(v));
        if (!isfinite(v))
            continue;
        b.n = 0;
        assert_int_equal(mp__json_number(&b, v), 0);
        snprintf(text, sizeof(text), "%.*s", (int)b.n, b.p);
        assert_true(strtod(text, NULL) == v);
    }
    mp__buf_free(&b);
    for (i = 0; i < sizeof(names) / sizeof(*names); i++)
        if (setlocale(LC_ALL, names[i]) != NULL)
            check_numbers();
    setlocale(LC_ALL, "C");
}

static void check_find(const char *doc, const char *path, const char *want)
{
    size_t n = 0;
    const char *p = mp__json_find(doc, strlen(doc), path, &n);

    if (want == NULL)
        assert_null(p);
    else if (p == NULL || n != strlen(want) || memcmp(p, want, n) != 0)
        fail_msg("%s in %s: %.*s", path, doc, (int)n, p != NULL ? p : "");
}

static void test_find(void **state)
{
    static const char doc[] =
        " {\"a\":{\"b\":[1,{\"c\":2}],\"c\":\"x}\\\"\"},\"c\" : -1.5e3 , \"d\":{},\"n\":12,"
        "\"a\\u0062\":3,\"t\":true}";
    size_t n;

    (void)state;
    check_find(doc, "a.b", "[1,{\"c\":2}]");
    check_find(doc, "a.c", "\"x}\\\"\"");
    check_find(doc, "c", "-1.5e3");
    check_find(doc, "d", "{}");
    check_find(doc, "d.x", NULL);
    check_find(doc, "a.b.c", NULL);
    check_find(doc, "ab", NULL);
    check_find(doc, "t", "true");
    check_find(doc, "", doc + 1);
    check_find("7", "", "7");
    check_find("[1]", "a", NULL);
    check_find("", "a", NULL);
    check_find("", "", NULL);
    assert_true(mp__json_find_int(doc, strlen(doc), "n") == 12);
    assert_true(mp__json_find_int(doc, strlen(doc), "c") == -1);
    assert_true(mp__json_find_int(doc, strlen(doc), "t") == -1);
    /* Half a document is not what it is for, but must not lead it astray. */
    for (n = 0; n < strlen(doc); n++) {
        char *copy = malloc(n + 1);
        size_t len;

        memcpy(copy, doc, n);
        mp__json_find(copy, n, "zz.b", &len);
        mp__json_find(copy, n, "a.c", &len);
        free(copy);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_buf),        cmocka_unit_test(test_string),
        cmocka_unit_test(test_bad_utf8),   cmocka_unit_test(test_all_scalars),
        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_string_bounds),
        cmocka_unit_test(test_number),     cmocka_unit_test(test_find),
    };

    seed_start();
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Every float32 comes back from its text, short numbers stay short, all of it is JSON. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "codec/float_text.h"

static float from_bits(uint32_t u)
{
    float v;
    memcpy(&v, &u, sizeof(v));
    return v;
}

static uint32_t to_bits(float v)
{
    uint32_t u;
    memcpy(&u, &v, sizeof(u));
    return u;
}

static int is_json_number(const char *s)
{
    s += *s == '-';
    if (*s == '0' && strspn(s + 1, "0123456789") > 0)
        return 0;
    size_t n = strspn(s, "0123456789");
    if (n == 0)
        return 0;
    s += n;
    if (*s == '.') {
        n = strspn(s + 1, "0123456789");
        if (n == 0)
            return 0;
        s += 1 + n;
    }
    if (*s == 'e') {
        s += 1 + (s[1] == '-');
        n = strspn(s, "0123456789");
        if (n == 0)
            return 0;
        s += n;
    }
    return *s == '\0';
}

static void check(uint32_t bits)
{
    char text[MP__FLOAT_TEXT + 1];
    float v = from_bits(bits);
    size_t n = mp__float_text(text, v);
    if (!isfinite(v)) {
        assert_int_equal(n, 0);
        return;
    }
    assert_true(n > 0 && n <= MP__FLOAT_TEXT);
    text[n] = '\0';
    if (to_bits(strtof(text, NULL)) != bits || !is_json_number(text))
        print_message("bits %08x, %.9g became %s\n", bits, (double)v, text);
    assert_int_equal(to_bits(strtof(text, NULL)), bits);
    assert_true(is_json_number(text));
}

static void all_kinds_come_back(void **state)
{
    (void)state;
    for (uint32_t e = 0; e < 512; e++) { /* both ends of each binade, both signs, subnormals */
        for (uint32_t m = 0; m < 40; m++) {
            check(e << 23 | m);
            check(e << 23 | (0x7fffff - m));
        }
    }
    for (int k = -45; k <= 38; k++) { /* the neighbours of powers of ten */
        uint32_t near = to_bits((float)pow(10, k));
        for (uint32_t d = 0; d < 20; d++) {
            check(near + d);
            check(near - d < 0x80000000u ? near - d : 0);
        }
    }
}

static void random_bits_come_back(void **state)
{
    (void)state;
    uint64_t x = 20240607; /* the seed */
    for (int i = 0; i < 1000000; i++) {
        x = x * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        check((uint32_t)(x >> 32));
        check((uint32_t)(x >> 34) & 0x3fffffff); /* below 1, where vectors live */
    }
}

static void short_numbers_stay_short(void **state)
{
    (void)state;
    static const struct {
        float v;
        const char *text;
    } cases[] = {
        {0, "0"},
        {-0.0f, "-0"},
        {1, "1"},
        {-1, "-1"},
        {0.5f, "0.5"},
        {0.1f, "0.1"},
        {100, "100"},
        {-0.25f, "-0.25"},
        {3.14f, "3.14"},
        {123456, "123456"},
        {1e9f, "1e9"},
        {1e-5f, "0.00001"},
        {1e-6f, "1e-6"},
        {0.3333333f, "0.3333333"},
        {16777216, "16777216"},
        {8.589973e9f, "8.589974e9"}, /* both read back: the nearer one */
        {1e-45f, "1e-45"},
        {9.99999f, "9.99999"},
        {1e10f, "1e10"},
        {3.4028235e38f, "3.4028235e38"},
        {1.17549435e-38f, "1.1754944e-38"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[MP__FLOAT_TEXT + 1];
        text[mp__float_text(text, cases[i].v)] = '\0';
        assert_string_equal(text, cases[i].text);
    }
}

static int digits_of(const char *text)
{
    int n = 0, zeros = 0, begun = 0;
    for (const char *s = text; *s != '\0' && *s != 'e'; s++) {
        if (*s < '0' || *s > '9')
            continue;
        begun |= *s != '0';
        n += begun;
        zeros = *s == '0' ? zeros + begun : 0;
    }
    return n - zeros;
}

/* printf's correctly rounded text with one digit fewer never reads back, nor does its neighbour on
 * the other side; with as many digits it is the text itself, unless only a neighbour reads back. */
static void check_shortest(uint32_t bits)
{
    char text[MP__FLOAT_TEXT + 1], other[40];
    float v = from_bits(bits & 0x7fffffff);
    text[mp__float_text(text, v)] = '\0';
    if (!isfinite(v) || v == 0)
        return;
    int n = digits_of(text);
    for (int fewer = 1; fewer < n; fewer++) {
        snprintf(other, sizeof(other), "%.*e", fewer - 1, (double)v);
        double unit = pow(10, strtol(strchr(other, 'e') + 1, NULL, 10) - fewer + 1);
        for (int step = -1; step <= 1; step++) {
            char moved[40];
            snprintf(moved, sizeof(moved), "%.*e", fewer - 1, strtod(other, NULL) + step * unit);
            if (to_bits(strtof(moved, NULL)) == to_bits(v))
                fail_msg("bits %08x became %s, but %s reads back too", bits, text, moved);
        }
    }
    snprintf(other, sizeof(other), "%.*e", n - 1, (double)v);
    if (to_bits(strtof(other, NULL)) == to_bits(v))
        assert_true(strtod(other, NULL) == strtod(text, NULL));
}

static void no_text_is_shorter(void **state)
{
    (void)state;
    uint64_t x = 7; /* the seed */
    for (int i = 0; i < 60000; i++) {
        x = x * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        check_shortest((uint32_t)(x >> 32));
        check_shortest((uint32_t)(x >> 34) & 0x3fffffff);
        check_shortest((uint32_t)(x >> 32) & 0xff800000u); /* powers of two */
        check_shortest((uint32_t)(x >> 41));               /* subnormals */
    }
    for (uint32_t bits = 1; bits < 3000; bits++)
        check_shortest(bits);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_kinds_come_back),
        cmocka_unit_test(random_bits_come_back),
        cmocka_unit_test(short_numbers_stay_short),
        cmocka_unit_test(no_text_is_shorter),
    };
    return cmocka_run_group_tests_name("codec_float_text", tests, NULL, NULL);
}

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

#include "mock/float_text.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_kinds_come_back),
        cmocka_unit_test(random_bits_come_back),
        cmocka_unit_test(short_numbers_stay_short),
    };
    return cmocka_run_group_tests_name("codec_float_text", tests, NULL, NULL);
}

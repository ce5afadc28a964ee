/*
 * codec_number_list.c - arrays of numbers are read as strtof reads each, at every SIMD level, and
 * reading stops exactly before what is wrong.
 */
#include "codec/cpu.h"
#include "codec/number.h"
#include "codec_util.h"

#include <math.h>

#define NUMBERS 200
#define TEXT    (NUMBERS * 400)

/* Mostly what embeddings look like; now and then what only the general path can read. */
static int a_number(char *t, size_t cap)
{
    double v = (double)(int64_t)rnd() / 1e20;

    switch (below(12)) {
    case 0:
        return snprintf(t, cap, "%.9g", v);
    case 1:
        return snprintf(t, cap, "%.17g", v * 3);
    case 2: /* d.ddd with 1 to 20 digits */
        return snprintf(t, cap, "%.*f", (int)below(20) + 1, v * 50);
    case 3: { /* the midpoint of two floats, exactly or a hair off */
        float f = ldexpf((float)(1 + below(1 << 24)), -27);
        double mid = ((double)f + (double)nextafterf(f, 1)) / 2;

        return snprintf(t, cap, "%.*f", (int)below(6) + 14, mid);
    }
    case 4:
        return snprintf(t, cap, "%s0.%0*d", below(2) ? "-" : "", (int)below(19) + 1, 0);
    case 5:
        return snprintf(t, cap, "%.12e", v);
    case 6:
        return snprintf(t, cap, "%d", (int)below(2001) - 1000);
    case 7:
        return snprintf(t, cap, "%u.%u", (unsigned)below(10000), (unsigned)below(100000));
    case 8: /* nineteen digits after a whole part: too many to hold */
        return snprintf(t, cap, "%u.%019llu", (unsigned)below(10),
                        (unsigned long long)(rnd() % 10000000000000000000u));
    default:
        return snprintf(t, cap, "%.8f", v * 10);
    }
}

static const char *const separators[] = {",", ", ", ",\n        ", " ,", "\t, \r\n"};

/* Reads as the decoder does: the list, then one number by the careful path, and on. */
static size_t read_all(const char *p, const char *end, float *out, size_t cap)
{
    size_t n = 0;

    while (n < cap) {
        const char *q;

        n += mp__num_list(&p, end, out + n, cap - n);
        if (n == cap)
            break;
        while (p < end && strchr(" \t\r\n", *p) != NULL)
            p++;
        for (q = p; q < end && strchr("+-.eE0123456789", *q) != NULL; q++)
            continue;
        if (mp__num_parse(p, (size_t)(q - p), out + n) != 0)
            break;
        n++;
        for (p = q; p < end && *p != ','; p++)
            continue;
        if (p == end)
            break;
        p++;
    }
    return n;
}

static void test_random(void **state)
{
    static float got[NUMBERS], want[NUMBERS];
    int round, level;
    size_t i;

    (void)state;
    for (round = 0; round < 600; round++) {
        const char *separator = separators[below(5)];
        char *text = malloc(TEXT), *exact;
        size_t n = 0;

        for (i = 0; i < NUMBERS; i++) {
            size_t start = n;

            n += (size_t)a_number(text + n, TEXT - n);
            want[i] = strtof(text + start, NULL);
            if (i + 1 < NUMBERS)
                n += (size_t)snprintf(text + n, TEXT - n, "%s", separator);
        }
        /* To the byte, so that a sanitizer sees any look over the edge. */
        exact = malloc(n);
        memcpy(exact, text, n);
        for (level = MP__SIMD_NONE; level <= MP__SIMD_AVX2; level++) {
            mp__simd_limit(level);
            memset(got, 0xFF, sizeof(got));
            assert_int_equal(read_all(exact, exact + n, got, NUMBERS), NUMBERS);
            for (i = 0; i < NUMBERS; i++)
                if (memcmp(got + i, want + i, sizeof(float)) != 0)
                    fail_msg("level %d, number %zu: %a, not %a", level, i, (double)got[i],
                             (double)want[i]);
        }
        mp__simd_limit(0);
        free(exact);
        free(text);
    }
}

/* Whatever byte is put wherever: nothing that the careful path would refuse is taken. */
static void test_wrong(void **state)
{
    static const char bad[] = "x-.e+/:\"]}0,\0\xB1\xFF";
    const char *good = "0.12345678,-0.0312345678,0.5,0.25,-1.125,0.012345678901234567,";
    size_t n = strlen(good), at, i, k;
    char text[512];
    float by[2][64];

    (void)state;
    for (at = 0; at < 2 * n; at++)
        for (i = 0; i < sizeof(bad) - 1; i++) {
            const char *p[2];
            size_t count[2];

            snprintf(text, sizeof(text), "%s%s%s%s", good, good, good, good);
            text[at] = bad[i];
            for (k = 0; k < 2; k++) {
                mp__simd_limit(k == 0 ? MP__SIMD_NONE : MP__SIMD_AVX2);
                p[k] = text;
                count[k] = mp__num_list(&p[k], text + 4 * n, by[k], 64);
            }
            assert_int_equal(count[0], count[1]);
            assert_ptr_equal(p[0], p[1]);
            assert_memory_equal(by[0], by[1], count[0] * sizeof(float));
        }
    mp__simd_limit(0);
}

static void test_room(void **state)
{
    char text[1024];
    float out[8];
    size_t n = 0, room;

    (void)state;
    while (n < 900)
        n += (size_t)snprintf(text + n, sizeof(text) - n, "-0.%06u,", (unsigned)below(1000000));
    for (room = 0; room < 8; room++) {
        const char *p = text;

        memset(out, 0, sizeof(out));
        assert_int_equal(mp__num_list(&p, text + n, out, room), room);
        assert_ptr_equal(p, text + 10 * room);
        assert_true(out[room] == 0); /* nothing after the last */
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_wrong),
        cmocka_unit_test(test_room),
    };

    seed_start();
    return cmocka_run_group_tests(tests, NULL, NULL);
}

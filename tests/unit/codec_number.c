/*
 * codec_number.c - JSON numbers to float32 are strtof's, bit for bit.
 */
#include "codec/number.h"
#include "codec_util.h"

#include <locale.h>
#include <math.h>

/* ---- random texts against strtof ------------------------------------------------------------- */

static float random_float(void)
{
    float f;
    uint32_t u;

    do {
        u = (uint32_t)rnd();
        memcpy(&f, &u, sizeof(f));
    } while (!isfinite(f));
    return f;
}

static int near_half(char *t, size_t cap)
{
    float f = fabsf(random_float());
    double mid = ((double)f + (double)nextafterf(f, INFINITY)) / 2;
    int n;

    if (!isfinite(mid))
        mid = f;
    n = snprintf(t, cap, "%.*e", (int)(below(130) + 5), mid);
    /* One in three goes a hair to a side, sometimes hundreds of digits on. */
    if (below(3) == 0) {
        char *e = strchr(t, 'e'), tail[16];
        int zeros = (int)below(200);

        snprintf(tail, sizeof(tail), "%s", e);
        n = (int)(e - t) + snprintf(e, cap - (size_t)(e - t), "%0*d1%s", zeros + 1, 0, tail);
    }
    return n;
}

static int random_text(char *t, size_t cap)
{
    switch (below(9)) {
    case 0:
        return snprintf(t, cap, "%.*g", (int)below(20) + 1, (double)(int64_t)rnd() / 1e19);
    case 1:
        return snprintf(t, cap, "%.*g", (int)below(12) + 1, (double)random_float());
    case 2:
        return snprintf(t, cap, "%u.%llue%d", (unsigned)below(1000), (unsigned long long)rnd(),
                        (int)below(110) - 65);
    case 3:
    case 4:
        return near_half(t, cap);
    case 5:
        return snprintf(t, cap, "%llu", (unsigned long long)(rnd() >> below(64)));
    case 6:
        return snprintf(t, cap, "-0.%0*llu", (int)below(24) + 1,
                        (unsigned long long)(rnd() >> below(64)));
    case 7:
        return snprintf(t, cap, "%llu%llu.%llu%llu", (unsigned long long)(rnd() >> 1) + 1,
                        (unsigned long long)rnd(), (unsigned long long)rnd(),
                        (unsigned long long)rnd());
    default:
        return snprintf(t, cap, "%lluE-%d", (unsigned long long)(rnd() >> below(64)),
                        (int)below(70));
    }
}

static void check(const char *t, size_t n, int err, const float *p)
{
    float want = strtof(t, NULL), got = *p;

    if (isinf(want) ? err != MP__ERANGE : err != 0 || memcmp(&got, &want, sizeof(got)) != 0)
        fail_msg("%.*s: error %d, got %a, strtof %a", (int)n, t, err, (double)got, (double)want);
}

static void test_random(void **state)
{
    char t[800];
    long i, hot = 0;
    int n;

    (void)state;
    for (i = 0; i < 2000000; i++) {
        float f = 0;
        const char *end;

        n = random_text(t, sizeof(t));
        check(t, (size_t)n, mp__num_parse(t, (size_t)n, &f), &f);
        memset(t + n, ',', MP__NUM_AHEAD);
        end = mp__num_fast(t, &f);
        if (end == NULL)
            continue;
        hot++;
        assert_ptr_equal(end, t + n);
        check(t, (size_t)n, 0, &f);
    }
    /* The hot path that gives up always would pass too. */
    assert_true(hot > 500000);
}

static void test_all_halves(void **state)
{
    /* Every float exponent: the float itself, its upper midpoint in full, and that plus a hair. */
    char t[400];
    uint32_t e;

    (void)state;
    for (e = 0; e < 254; e++) {
        uint32_t u = e << 23 | ((uint32_t)rnd() & 0x7FFFFF), up = u + 1;
        float f, g, got = 0;
        int n, k;

        memcpy(&f, &u, sizeof(f));
        memcpy(&g, &up, sizeof(g));
        for (k = 0; k < 3; k++) {
            double v = k == 0 ? (double)f : ((double)f + (double)g) / 2;

            n = snprintf(t, sizeof(t), "%.170f", v);
            if (k == 2)
                n += snprintf(t + n, sizeof(t) - (size_t)n, "0001");
            check(t, (size_t)n, mp__num_parse(t, (size_t)n, &got), &got);
        }
    }
}

/* ---- chosen texts ---------------------------------------------------------------------------- */

static void test_edges(void **state)
{
    static const char *const texts[] = {"0",
                                        "-0",
                                        "0.0",
                                        "-0e5",
                                        "0e999999999999999999999",
                                        "1",
                                        "-1",
                                        "1e0",
                                        "1E+2",
                                        "1e-2",
                                        "1e-45",
                                        "7e-46",
                                        "7.006492321624085e-46",
                                        "7.006492321624086e-46",
                                        "1.4e-45",
                                        "1e-46",
                                        "1.17549435e-38",
                                        "1.1754942e-38",
                                        "3.4028235e38",
                                        "3.4028235677973366e38",
                                        "3.4028236e38",
                                        "3.40282356779733661637539395458142568447e38",
                                        "3.40282356779733661637539395458142568448e38",
                                        "1e39",
                                        "1e400",
                                        "-1e400",
                                        "1e-400",
                                        "1e99999999999999999999",
                                        "1e-99999999999999999999",
                                        "16777217",
                                        "16777219",
                                        "33554433",
                                        "9007199254740993",
                                        "9007199791611905",
                                        "123456789012345678901234567890",
                                        "0.000000000000000000000000000000000000000000000000001",
                                        "8388609.5",
                                        "8388608.5",
                                        "0.1",
                                        "0.3",
                                        "1.00000017881393421514957253748434595763683",
                                        "1.00000017881393432617187499",
                                        "1.000000178813934326171875",
                                        "1.00000017881393432617187501"};
    size_t i;

    (void)state;
    for (i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
        float f = 0;

        check(texts[i], strlen(texts[i]), mp__num_parse(texts[i], strlen(texts[i]), &f), &f);
    }
}

static void test_huge_counts(void **state)
{
    /* 10^5 zeros and an exponent that takes them back; and a last digit far away that decides. */
    size_t zeros = 100000, n;
    char *t = malloc(zeros + 200);
    float f = 0;

    (void)state;
    n = (size_t)snprintf(t, 8, "0.");
    memset(t + n, '0', zeros);
    n += zeros;
    n += (size_t)snprintf(t + n, 64, "25e%zu", zeros);
    assert_int_equal(mp__num_parse(t, n, &f), 0);
    assert_true(f == 0.25f);
    n = (size_t)snprintf(t, 64, "16777217.");
    memset(t + n, '0', zeros);
    n += zeros;
    assert_int_equal(mp__num_parse(t, n, &f), 0);
    assert_true(f == 16777216.0f);
    t[n++] = '1';
    assert_int_equal(mp__num_parse(t, n, &f), 0);
    assert_true(f == 16777218.0f);
    free(t);
}

static void test_grammar(void **state)
{
    static const char *const bad[] = {
        "",    "-",   "+1",   ".5",       "1.",       "01",        "-01",   "00",
        "1e",  "1e+", "1.e5", "NaN",      "Infinity", "-Infinity", "0x10",  "1 ",
        " 1",  "1,",  "--1",  "1-",       "1e5.5",    "1e5e5",     "0.1.2", "1_000",
        "1e-", "nan", "inf",  "\xD9\xA1", "1f",       "0b1",       "-.5",   "-e5"};
    size_t i;
    float f;

    (void)state;
    for (i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        char pad[128];

        if (mp__num_parse(bad[i], strlen(bad[i]), &f) != MP_EINVAL)
            fail_msg("accepted: %s", bad[i]);
        /* The hot path must refuse too, or stop before what is wrong. */
        memset(pad, ',', sizeof(pad));
        memcpy(pad, bad[i], strlen(bad[i]));
        if (mp__num_fast(pad, &f) == pad + strlen(bad[i]))
            fail_msg("hot path accepted: %s", bad[i]);
    }
}

static void test_splits(void **state)
{
    static const char *const texts[] = {"-0.0123456789", "123456.789e-12", "1E+05", "-0",
                                        "3.14159265358979323846264338327950288419716939937510"};
    size_t i, cut;

    (void)state;
    for (i = 0; i < sizeof(texts) / sizeof(*texts); i++)
        for (cut = 0; cut <= strlen(texts[i]); cut++) {
            struct mp__num s;
            float f = 0;

            mp__num_start(&s);
            assert_int_equal(mp__num_feed(&s, texts[i], cut), cut);
            assert_int_equal(mp__num_feed(&s, texts[i] + cut, strlen(texts[i]) - cut),
                             strlen(texts[i]) - cut);
            check(texts[i], strlen(texts[i]), mp__num_finish(&s, &f), &f);
        }
}

static void test_uint(void **state)
{
    static const struct {
        const char *text;
        int err;
        uint64_t v;
    } cases[] = {{"0", 0, 0},
                 {"17", 0, 17},
                 {"-0", 0, 0},
                 {"-1", MP_EINVAL, 0},
                 {"1.0", 0, 1},
                 {"0.000", 0, 0},
                 {"1e2", 0, 100},
                 {"1.25e2", 0, 125},
                 {"1200e-2", 0, 12},
                 {"1.5", MP_EINVAL, 0},
                 {"125e-2", MP_EINVAL, 0},
                 {"1e19", MP_EINVAL, 0},
                 {"1e999999", MP_EINVAL, 0},
                 {"1.", MP_EINVAL, 0},
                 {"-", MP_EINVAL, 0},
                 {"4294967296", 0, 4294967296u},
                 {"99999999999999999999", MP_EINVAL, 0}};
    size_t i;

    (void)state;
    for (i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct mp__num s;
        uint64_t v = 0;

        mp__num_start(&s);
        mp__num_feed(&s, cases[i].text, strlen(cases[i].text));
        assert_int_equal(mp__num_uint(&s, &v), cases[i].err);
        assert_true(v == cases[i].v);
    }
}

static void test_list(void **state)
{
    char text[2000];
    float out[64], want;
    const char *p = text;
    size_t n = 0, got, i;

    (void)state;
    for (i = 0; i < 40; i++)
        n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%zu.5%s,", i % 3 ? "\n  \t" : "", i,
                              i % 4 ? "" : " \r");
    snprintf(text + n, sizeof(text) - n, "]%64s", "");
    got = mp__num_list(&p, text + n + 65, out, 64);
    assert_int_equal(got, 40);
    assert_int_equal(*p, ']');
    for (i = 0; i < got; i++) {
        want = (float)i + 0.5f;
        assert_true(out[i] == want);
    }
    p = text;
    assert_int_equal(mp__num_list(&p, text + n + 65, out, 7), 7); /* no more than there is room */
    p = text;
    assert_int_equal(mp__num_list(&p, text + 20, out, 64), 0); /* too near the edge */
    assert_ptr_equal(p, text);
}

static void test_locale(void **state)
{
    static const char *const names[] = {"de_DE.UTF-8", "de_DE.utf8", "de_DE", "fr_FR.UTF-8"};
    size_t i;
    float f = 0;

    (void)state;
    for (i = 0; i < sizeof(names) / sizeof(*names); i++)
        if (setlocale(LC_ALL, names[i]) != NULL)
            break;
    if (i == sizeof(names) / sizeof(*names))
        skip();
    assert_int_equal(mp__num_parse("1.5", 3, &f), 0);
    assert_true(f == 1.5f);
    /* This one needs the exact fallback. */
    assert_int_equal(mp__num_parse("1.00000017881393432617187501", 28, &f), 0);
    assert_true(f == 0x1.000004p0f);
    setlocale(LC_ALL, "C");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random),  cmocka_unit_test(test_all_halves),
        cmocka_unit_test(test_edges),   cmocka_unit_test(test_huge_counts),
        cmocka_unit_test(test_grammar), cmocka_unit_test(test_splits),
        cmocka_unit_test(test_uint),    cmocka_unit_test(test_list),
        cmocka_unit_test(test_locale),
    };

    seed_start();
    return cmocka_run_group_tests(tests, NULL, NULL);
}

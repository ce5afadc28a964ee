/*
 * codec_vec.c - matrices and the arithmetic on their rows, at every SIMD level.
 */
#include "codec/cpu.h"
#include "codec/vec.h"
#include "codec_util.h"

#include <math.h>

static float unit_float(void)
{
    return (float)((double)(int64_t)rnd() / 9.3e18);
}

static void test_matrix(void **state)
{
    mp_matrix *m = mp_matrix_new(3, 5);
    size_t i;

    (void)state;
    assert_int_equal(mp_matrix_rows(m), 3);
    assert_int_equal(mp_matrix_cols(m), 5);
    assert_int_equal((uintptr_t)mp_matrix_data(m) % 64, 0);
    for (i = 0; i < 15; i++)
        assert_true(mp_matrix_data(m)[i] == 0);
    assert_ptr_equal(mp_matrix_ref(m), m);
    mp_matrix_unref(m);
    mp_matrix_data(m)[14] = 1; /* still ours */
    mp_matrix_unref(m);
    mp_matrix_unref(NULL);
    m = mp_matrix_new(0, 7);
    assert_non_null(m);
    assert_non_null(mp_matrix_data(m));
    mp_matrix_unref(m);
    assert_null(mp_matrix_new(SIZE_MAX, 2));
    assert_null(mp_matrix_new(SIZE_MAX / 2, 2));
    assert_null(mp_matrix_new(SIZE_MAX / 4 + 1, 1));
    assert_null(mp_matrix_new(SIZE_MAX, 1));
}

static long resident_kb(void)
{
    FILE *f = fopen("/proc/self/statm", "r");
    long size = 0, pages = 0;

    if (f == NULL)
        return -1;
    if (fscanf(f, "%ld %ld", &size, &pages) != 2)
        pages = -1;
    fclose(f);
    return pages * 4;
}

static void test_big_matrix_is_lazy(void **state)
{
    long before = resident_kb();
    mp_matrix *m = mp_matrix_new(1 << 18, 1024); /* 1 GiB */

    (void)state;
    if (m == NULL || before < 0)
        skip();
    mp_matrix_data(m)[(size_t)1 << 27] = 1;
    assert_true(mp_matrix_data(m)[((size_t)1 << 28) - 1] == 0);
    assert_true(resident_kb() - before < 16 * 1024);
    mp_matrix_unref(m);
}

static void test_dot(void **state)
{
    static float a[300], b[300];
    size_t n, i;
    int level;

    (void)state;
    for (i = 0; i < 300; i++) {
        a[i] = unit_float();
        b[i] = unit_float();
    }
    for (level = MP__SIMD_NONE; level <= MP__SIMD_AVX2; level++) {
        mp__simd_limit(level);
        for (n = 0; n < 299; n++) {
            double want = 0;

            for (i = 0; i < n; i++)
                want += (double)a[i + 1] * (double)b[i];
            assert_true(fabs(want - (double)mp__dot(a + 1, b, n)) < 1e-4);
        }
    }
    mp__simd_limit(0);
    assert_true(mp__dot(a, b, 0) == 0);
}

static void test_normalize(void **state)
{
    float v[5] = {3, 0, 4, 0, 0}, zero[3] = {0}, tiny[2] = {3e-30f, 4e-30f};
    float huge[2] = {3e30f, 4e30f}, bad[2] = {NAN, 1};

    (void)state;
    assert_true(mp__normalize(v, 5) == 5);
    assert_true(fabsf(v[0] - 0.6f) < 1e-6f && fabsf(v[2] - 0.8f) < 1e-6f);
    assert_true(mp__normalize(zero, 3) == 0);
    assert_true(zero[0] == 0);
    mp__normalize(tiny, 2);
    assert_true(fabsf(tiny[0] - 0.6f) < 1e-6f);
    mp__normalize(huge, 2);
    assert_true(fabsf(huge[1] - 0.8f) < 1e-6f);
    tiny[0] = 3e-42f;
    tiny[1] = 4e-42f;
    mp__normalize(tiny, 2);
    assert_true(fabsf(tiny[1] - 0.8f) < 1e-3f);
    assert_true(isnan(mp__normalize(bad, 2)));
    assert_true(bad[1] == 1);
}

static void test_finite(void **state)
{
    static const uint32_t odd[] = {0x7F800000, 0xFF800000, 0x7FC00000, 0x7F800001, 0xFFFFFFFF};
    float v[70];
    size_t n, at, k, bad;
    int level;

    (void)state;
    for (level = MP__SIMD_NONE; level <= MP__SIMD_AVX2; level++) {
        mp__simd_limit(level);
        for (n = 0; n < 69; n++) {
            for (k = 0; k < n; k++)
                v[1 + k] = k % 2 ? 3.4028235e38f : -1e-45f;
            assert_int_equal(mp__finite(v + 1, n, NULL), 0);
            for (at = 0; at < n; at++) {
                float keep = v[1 + at];

                memcpy(&v[1 + at], &odd[at % 5], sizeof(float));
                assert_int_equal(mp__finite(v + 1, n, &bad), MP_EINVAL);
                assert_int_equal(bad, at);
                v[1 + at] = keep;
            }
        }
    }
    mp__simd_limit(0);
}

static void check_topk(mp_matrix *m, const float *query, size_t k, int metric)
{
    size_t rows = mp_matrix_rows(m), cols = mp_matrix_cols(m), idx[64], n, i, r;
    float score[64];
    char taken[64] = {0};

    n = mp__topk(m, query, k, metric, idx, score);
    for (i = 0; i < n; i++) {
        const float *row = mp_matrix_data(m) + idx[i] * cols;
        double len = metric == MP__TOPK_COSINE ? sqrt((double)mp__dot(row, row, cols)) *
                                                     sqrt((double)mp__dot(query, query, cols))
                                               : 1;

        assert_true(fabs((double)mp__dot(row, query, cols) / len - (double)score[i]) < 1e-5);
        assert_false(taken[idx[i]]);
        taken[idx[i]] = 1;
        assert_true(i == 0 || score[i - 1] > score[i] ||
                    (score[i - 1] == score[i] && idx[i - 1] < idx[i]));
    }
    /* Nothing better was left out. */
    for (r = 0; r < rows && k != 0 && metric == MP__TOPK_DOT; r++)
        if (!taken[r] && !isnan(mp_matrix_data(m)[r * cols]))
            assert_true(n == k &&
                        mp__dot(mp_matrix_data(m) + r * cols, query, cols) <= score[n - 1]);
}

static void test_topk(void **state)
{
    float query[6], *p;
    size_t k, i, idx[8];
    float score[8];
    int round;

    (void)state;
    for (round = 0; round < 300; round++) {
        size_t rows = below(40) + 1;
        mp_matrix *m = mp_matrix_new(rows, 6);

        p = mp_matrix_data(m);
        for (i = 0; i < rows * 6; i++)
            p[i] = (float)((int)below(5) - 2); /* many equal scores */
        for (i = 0; i < rows; i++)
            p[i * 6] = below(7) ? 1 : NAN;
        for (i = 0; i < 6; i++)
            query[i] = (float)((int)below(5) - 2);
        query[0] = 1;
        for (k = 0; k <= 41; k += 1 + k / 3) {
            check_topk(m, query, k, MP__TOPK_DOT);
            check_topk(m, query, k, MP__TOPK_COSINE);
        }
        mp_matrix_unref(m);
    }
    {
        mp_matrix *m = mp_matrix_new(3, 2);

        p = mp_matrix_data(m);
        p[0] = 10;
        p[1] = 10;
        p[2] = 0.1f;
        assert_int_equal(mp__topk(m, (const float[]){1, 0}, 8, MP__TOPK_COSINE, idx, score), 3);
        assert_int_equal(idx[0], 1); /* not the longest, the nearest */
        assert_true(score[0] == 1 && score[2] == 0);
        p[4] = NAN;
        assert_int_equal(mp__topk(m, (const float[]){1, 0}, 8, MP__TOPK_COSINE, idx, score), 2);
        mp_matrix_unref(m);
    }
}

static void test_half(void **state)
{
    static const struct {
        float f;
        uint16_t h;
    } known[] = {{0, 0},
                 {-0.0f, 0x8000},
                 {1, 0x3C00},
                 {-2, 0xC000},
                 {65504, 0x7BFF},
                 {65519.9f, 0x7BFF},
                 {65520, 0x7C00},
                 {1e30f, 0x7C00},
                 {0x1p-24f, 1},
                 {0x1p-25f, 0},
                 {0x1.8p-25f, 1},
                 {0x1p-14f, 0x0400},
                 {0x1.ff8p-15f, 0x03FF},
                 {0x1.ffcp-15f, 0x0400},
                 {1.00048828125f, 0x3C00},
                 {1.00146484375f, 0x3C02},
                 {INFINITY, 0x7C00},
                 {-INFINITY, 0xFC00},
                 {1e-30f, 0}};
    uint16_t h[40];
    float f[40], back[40];
    size_t i, k;
    uint32_t u;
    int level;

    (void)state;
    for (i = 0; i < sizeof(known) / sizeof(*known); i++)
        assert_int_equal(mp__f16_from_f32(known[i].f), known[i].h);
    assert_int_equal(mp__f16_from_f32(NAN) & 0x7E00, 0x7E00);
    for (u = 0; u < 0x10000; u++) {
        float v = mp__f32_from_f16((uint16_t)u);

        if (isnan(v))
            assert_true((u & 0x7FFF) > 0x7C00);
        else
            assert_int_equal(mp__f16_from_f32(v), u);
    }
    /* The hardware and the plain form agree on everything. */
    for (k = 0; k < 20000; k++) {
        for (i = 0; i < 37; i++) {
            u = (uint32_t)rnd();
            if (below(2))
                u = (u & 0x80FFFFFF) | (uint32_t)(0x30 + below(0x20)) << 24;
            memcpy(&f[i], &u, sizeof(u));
        }
        for (level = MP__SIMD_NONE; level <= MP__SIMD_AVX2; level += 2) {
            mp__simd_limit(level);
            mp__f16_from_f32_row(h, f, 37);
            mp__f32_from_f16_row(back, h, 37);
            for (i = 0; i < 37; i++) {
                float want = mp__f32_from_f16(h[i]);

                assert_int_equal(h[i], mp__f16_from_f32(f[i]));
                assert_memory_equal(&back[i], &want, sizeof(want));
            }
        }
    }
    mp__simd_limit(0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_matrix), cmocka_unit_test(test_big_matrix_is_lazy),
        cmocka_unit_test(test_dot),    cmocka_unit_test(test_normalize),
        cmocka_unit_test(test_finite), cmocka_unit_test(test_topk),
        cmocka_unit_test(test_half),
    };

    seed_start();
    return cmocka_run_group_tests(tests, NULL, NULL);
}

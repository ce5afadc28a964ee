/*
 * vec.c - arithmetic on float32 rows.
 */
#include "codec/vec.h"

#include "codec/cpu.h"

#include <math.h>
#include <string.h>

#if MP__X86
#include <immintrin.h>
#endif

/* ---- dot ----------------------------------------------------------------------------------- */

#if MP__X86
MP__TARGET("avx2,fma") static float dot_avx2(const float *a, const float *b, size_t n, size_t *done)
{
    __m256 s0 = _mm256_setzero_ps(), s1 = s0, s2 = s0, s3 = s0;
    __m128 h;
    size_t i;

    for (i = 0; i + 32 <= n; i += 32) {
        s0 = _mm256_fmadd_ps(_mm256_loadu_ps(a + i), _mm256_loadu_ps(b + i), s0);
        s1 = _mm256_fmadd_ps(_mm256_loadu_ps(a + i + 8), _mm256_loadu_ps(b + i + 8), s1);
        s2 = _mm256_fmadd_ps(_mm256_loadu_ps(a + i + 16), _mm256_loadu_ps(b + i + 16), s2);
        s3 = _mm256_fmadd_ps(_mm256_loadu_ps(a + i + 24), _mm256_loadu_ps(b + i + 24), s3);
    }
    for (; i + 8 <= n; i += 8)
        s0 = _mm256_fmadd_ps(_mm256_loadu_ps(a + i), _mm256_loadu_ps(b + i), s0);
    s0 = _mm256_add_ps(_mm256_add_ps(s0, s1), _mm256_add_ps(s2, s3));
    h = _mm_add_ps(_mm256_castps256_ps128(s0), _mm256_extractf128_ps(s0, 1));
    h = _mm_add_ps(h, _mm_movehl_ps(h, h));
    h = _mm_add_ss(h, _mm_shuffle_ps(h, h, 1));
    *done = i;
    return _mm_cvtss_f32(h);
}

static float dot_sse(const float *a, const float *b, size_t n, size_t *done)
{
    __m128 s0 = _mm_setzero_ps(), s1 = s0;
    size_t i;

    for (i = 0; i + 8 <= n; i += 8) {
        s0 = _mm_add_ps(s0, _mm_mul_ps(_mm_loadu_ps(a + i), _mm_loadu_ps(b + i)));
        s1 = _mm_add_ps(s1, _mm_mul_ps(_mm_loadu_ps(a + i + 4), _mm_loadu_ps(b + i + 4)));
    }
    s0 = _mm_add_ps(s0, s1);
    s0 = _mm_add_ps(s0, _mm_movehl_ps(s0, s0));
    s0 = _mm_add_ss(s0, _mm_shuffle_ps(s0, s0, 1));
    *done = i;
    return _mm_cvtss_f32(s0);
}
#endif

static float dot_plain(const float *a, const float *b, size_t n)
{
    float s[4] = {0};
    size_t i;

    for (i = 0; i + 4 <= n; i += 4) {
        s[0] += a[i] * b[i];
        s[1] += a[i + 1] * b[i + 1];
        s[2] += a[i + 2] * b[i + 2];
        s[3] += a[i + 3] * b[i + 3];
    }
    for (; i < n; i++)
        s[0] += a[i] * b[i];
    return (s[0] + s[1]) + (s[2] + s[3]);
}

float mp__dot(const float *a, const float *b, size_t n)
{
    float s = 0;
    size_t i = 0;

#if MP__X86
    enum mp__simd level = mp__simd();

    if (level == MP__SIMD_AVX2)
        s = dot_avx2(a, b, n, &i);
    else if (level == MP__SIMD_SSE)
        s = dot_sse(a, b, n, &i);
#endif
    return s + dot_plain(a + i, b + i, n - i);
}

/* ---- length -------------------------------------------------------------------------------- */

/* Squares of ordinary floats can leave float32's range, so the odd cases are summed in double. */
static double length(const float *row, size_t n)
{
    float s = mp__dot(row, row, n);
    double d = 0;
    size_t i;

    if (s > 1e-30f && s < 1e30f)
        return sqrt((double)s);
    for (i = 0; i < n; i++)
        d += (double)row[i] * (double)row[i];
    return sqrt(d);
}

float mp__normalize(float *row, size_t n)
{
    double len = length(row, n);
    size_t i;

    if (len > 0 && isfinite(len)) {
        double inv = 1.0 / len;
        float f = (float)inv;

        for (i = 0; i < n; i++)
            row[i] = isnormal(f) ? row[i] * f : (float)(row[i] * inv);
    }
    return (float)len;
}

/* ---- finite -------------------------------------------------------------------------------- */

#if MP__X86
MP__TARGET("avx2") static size_t finite_avx2(const float *p, size_t n)
{
    const __m256i exp = _mm256_set1_epi32(0x7F800000);
    __m256i bad;
    size_t i;

    for (i = 0; i + 16 <= n; i += 16) {
        __m256i a = _mm256_loadu_si256((const __m256i *)(const void *)(p + i));
        __m256i b = _mm256_loadu_si256((const __m256i *)(const void *)(p + i + 8));

        bad = _mm256_or_si256(_mm256_cmpeq_epi32(_mm256_and_si256(a, exp), exp),
                              _mm256_cmpeq_epi32(_mm256_and_si256(b, exp), exp));
        if (!_mm256_testz_si256(bad, bad))
            break;
    }
    return i;
}

static size_t finite_sse2(const float *p, size_t n)
{
    const __m128i exp = _mm_set1_epi32(0x7F800000);
    size_t i;

    for (i = 0; i + 4 <= n; i += 4) {
        __m128i a = _mm_loadu_si128((const __m128i *)(const void *)(p + i));

        if (_mm_movemask_epi8(_mm_cmpeq_epi32(_mm_and_si128(a, exp), exp)) != 0)
            break;
    }
    return i;
}
#endif

int mp__finite(const float *p, size_t n, size_t *bad_at)
{
    size_t i = 0;

#if MP__X86
    enum mp__simd level = mp__simd();

    if (level == MP__SIMD_AVX2)
        i = finite_avx2(p, n);
    else if (level == MP__SIMD_SSE)
        i = finite_sse2(p, n);
#endif
    while (i < n && isfinite(p[i]))
        i++;
    if (i == n)
        return 0;
    if (bad_at != NULL)
        *bad_at = i;
    return MP_EINVAL;
}

/* ---- the k best ---------------------------------------------------------------------------- */

/* The worst kept row is at the root: lower score, or same score and higher row. */
static int worse(const size_t *idx, const float *score, size_t a, size_t b)
{
    return score[a] < score[b] || (score[a] == score[b] && idx[a] > idx[b]);
}

static void swap(size_t *idx, float *score, size_t a, size_t b)
{
    size_t i = idx[a];
    float s = score[a];

    idx[a] = idx[b];
    score[a] = score[b];
    idx[b] = i;
    score[b] = s;
}

static void sift_down(size_t *idx, float *score, size_t n)
{
    size_t at = 0, child;

    for (child = 1; child < n; child = 2 * at + 1) {
        if (child + 1 < n && worse(idx, score, child + 1, child))
            child++;
        if (!worse(idx, score, child, at))
            return;
        swap(idx, score, at, child);
        at = child;
    }
}

static void sift_up(size_t *idx, float *score, size_t at)
{
    while (at > 0 && worse(idx, score, at, (at - 1) / 2)) {
        swap(idx, score, at, (at - 1) / 2);
        at = (at - 1) / 2;
    }
}

static float score_of(const float *row, const float *query, size_t n, int metric, double qlen)
{
    double len;

    if (metric != MP__TOPK_COSINE)
        return mp__dot(row, query, n);
    len = length(row, n) * qlen;
    /* A zero row is at a right angle to everything. */
    return len > 0 ? (float)((double)mp__dot(row, query, n) / len) : (float)len;
}

size_t mp__topk(mp_matrix *m, const float *query, size_t k, int metric, size_t *idx, float *score)
{
    size_t rows = mp_matrix_rows(m), cols = mp_matrix_cols(m), n = 0, r, left;
    const float *row = mp_matrix_data(m);
    double qlen = metric == MP__TOPK_COSINE ? length(query, cols) : 1;
    float s;

    for (r = 0; r < rows && k != 0; r++, row += cols) {
        s = score_of(row, query, cols, metric, qlen);
        if (isnan(s))
            continue;
        if (n < k) {
            idx[n] = r;
            score[n] = s;
            sift_up(idx, score, n++);
        } else if (s > score[0]) { /* an equal score of a later row never wins */
            idx[0] = r;
            score[0] = s;
            sift_down(idx, score, n);
        }
    }
    for (left = n; left > 1; left--) { /* heap sort: the worst goes last */
        swap(idx, score, 0, left - 1);
        sift_down(idx, score, left - 1);
    }
    return n;
}

/*
 * number_simd.c - arrays of numbers, several at once: where each ends is known before it is read.
 *
 * A number at a time, the next one's place waits for this one's length: some 18 cycles of latency
 * whatever the parser does. Here all commas of half a kilobyte are found first, and numbers are read two
 * at a time and backwards from their commas: the last 16 digits of a fraction are one load, cleaned
 * by a mask that its length selects, and all that follows is arithmetic without a branch.
 *
 * Served is what arrays of embeddings are made of: [-]d.ddd with 1 to 19 digits after the point.
 * All else (exponents, integers, white space before the comma) is left to mp__num_fast, number by
 * number.
 */
#include "codec/number.h"
#include "codec/cpu.h"
#include "codec/json_text.h"

#include <string.h>

#if MP__X86

#include <immintrin.h>

#define ISA "avx2,fma,bmi,popcnt"

#define BEHIND 32  /* reading backwards from a comma may look so far before the number */
#define SPAN   512 /* bytes whose commas are found at once */

/* 10^-n, for n digits after the point. */
static const double inverse[20] = {1e0,   1e-1,  1e-2,  1e-3,  1e-4,  1e-5,  1e-6,
                                   1e-7,  1e-8,  1e-9,  1e-10, 1e-11, 1e-12, 1e-13,
                                   1e-14, 1e-15, 1e-16, 1e-17, 1e-18, 1e-19};

/* 16 bytes from byte n on: the last n are set. */
static const uint8_t last_bytes[32] = {
    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,
    0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF,
};

MP__TARGET(ISA)
static inline uint64_t commas_in(const char *p)
{
    const __m256i comma = _mm256_set1_epi8(',');
    __m256i a = _mm256_loadu_si256((const __m256i *)(const void *)p);
    __m256i b = _mm256_loadu_si256((const __m256i *)(const void *)(p + 32));

    return (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(a, comma)) |
           (uint64_t)(uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(b, comma)) << 32;
}

/* Offsets of the commas in p[0..bytes), a multiple of 64; how many. Eight are written at a time,
 * needed or not: a loop of their exact number would be mispredicted in every block. */
MP__TARGET(ISA)
static size_t find_commas(const char *p, size_t bytes, uint16_t *at)
{
    size_t n = 0, block, i;

    for (block = 0; block < bytes; block += 64) {
        uint64_t commas = commas_in(p + block);
        size_t count = (size_t)__builtin_popcountll(commas), done = 0;

        do {
#pragma GCC unroll 8
            for (i = 0; i < 8; i++) {
                /* 64 is what tzcnt says of nothing; such an entry is written over. */
                at[n + done + i] = (uint16_t)(block + _tzcnt_u64(commas));
                commas = _blsr_u64(commas);
            }
            done += 8;
        } while (done < count);
        n += count;
    }
    return n;
}

struct number {
    size_t neg;
    size_t n;       /* digits after the point */
    unsigned whole; /* the digit before it; above 9: this is no [-]d.ddd */
};

static inline struct number look(const char *s, const char *e)
{
    struct number a;
    uint16_t two;

    a.neg = *s == '-';
    a.n = (size_t)(e - s) - a.neg - 2;
    memcpy(&two, s + a.neg, 2);
    a.whole = (uint16_t)(two - ('0' | '.' << 8));
    return a;
}

/* What the n <= 16 digits before e are: the digits as bytes, zeros before them. */
MP__TARGET(ISA)
static inline __m128i digits_before(const char *e, size_t n)
{
    __m128i t = _mm_loadu_si128((const __m128i *)(const void *)(e - 16));
    __m128i keep = _mm_loadu_si128((const __m128i *)(const void *)(last_bytes + n));

    return _mm_and_si128(_mm_sub_epi8(t, _mm_set1_epi8('0')), keep);
}

/* Above 9 as unsigned: the saturating difference is not zero. */
MP__TARGET(ISA)
static inline __m256i no_digits(__m256i t)
{
    return _mm256_subs_epu8(t, _mm256_set1_epi8(9));
}

/* Two runs of 16 digits as two doubles, each right but for one rounding. */
MP__TARGET(ISA)
static inline __m128d two_runs(__m256i t)
{
    __m256d half;

    t = _mm256_maddubs_epi16(t, _mm256_set1_epi16(0x010A));  /* pairs: 10 a + b */
    t = _mm256_madd_epi16(t, _mm256_set1_epi32(0x00010064)); /* fours: 100 a + b */
    t = _mm256_packus_epi32(t, t);                           /* at most 9999: fits */
    t = _mm256_madd_epi16(t, _mm256_set1_epi32(0x00012710)); /* eights: 10000 a + b */
    t = _mm256_permute4x64_epi64(t, 0x08);
    half = _mm256_cvtepi32_pd(_mm256_castsi256_si128(t));
    half = _mm256_mul_pd(half, _mm256_setr_pd(1e8, 1, 1e8, 1));
    return _mm_hadd_pd(_mm256_castpd256_pd128(half), _mm256_extractf128_pd(half, 1));
}

/*
 * The doubles are wrong by less than 4 units of their last place. Rounded to float they are what
 * the exact values are unless a midpoint of two floats is that near: then some bit here is set.
 */
#define MIDPOINT 0x10000000 /* in the 29 bits that float does not have */

MP__TARGET(ISA)
static inline __m128i near_midpoint(__m128d d)
{
    __m128i low = _mm_and_si128(_mm_castpd_si128(d), _mm_set1_epi64x(0x1FFFFFFF));
    /* The upper halves are 0 - 1, which is far from any. */
    __m128i from = _mm_sub_epi32(low, _mm_set_epi32(1, MIDPOINT - 8, 1, MIDPOINT - 8));

    return _mm_cmpeq_epi32(_mm_min_epu32(from, _mm_set_epi32(0, 16, 0, 16)), from);
}

/* The numbers in s[0..e) and t[0..f) to out[0..2): 1, or 0 when one of them is not simple. */
MP__TARGET(ISA)
static inline int two(const char *s, const char *e, const char *t, const char *f, float *out)
{
    struct number a = look(s, e), b = look(t, f);
    __m256i digits, bad;
    __m128i sign;
    __m128d d;

    if ((a.whole > 9) | (b.whole > 9) | (a.n - 1 > 15) | (b.n - 1 > 15))
        return 0;
    digits = _mm256_set_m128i(digits_before(f, b.n), digits_before(e, a.n));
    d = _mm_fmadd_pd(two_runs(digits), _mm_set_pd(inverse[b.n], inverse[a.n]),
                     _mm_cvtepi32_pd(_mm_set_epi32(0, 0, (int)b.whole, (int)a.whole)));
    bad = _mm256_or_si256(no_digits(digits), _mm256_zextsi128_si256(near_midpoint(d)));
    if (!_mm256_testz_si256(bad, bad))
        return 0;
    sign = _mm_set_epi64x((long long)b.neg, (long long)a.neg);
    d = _mm_or_pd(d, _mm_castsi128_pd(_mm_slli_epi64(sign, 63)));
    _mm_storel_pi((__m64 *)(void *)out, _mm_cvtpd_ps(d));
    return 1;
}

/* One of 1 to 19 digits: the digits before the last 16 are another run. */
MP__TARGET(ISA)
static inline int one(const char *s, const char *e, float *out)
{
    struct number a = look(s, e);
    size_t low = a.n < 16 ? a.n : 16;
    __m256i digits, bad;
    __m128d d;

    if (a.whole > 9 || a.n - 1 > 18)
        return 0;
    digits = _mm256_set_m128i(digits_before(e - 16, a.n - low), digits_before(e, low));
    d = two_runs(digits);
    d = _mm_fmadd_sd(_mm_unpackhi_pd(d, d), _mm_set_sd(1e16), d);
    d = _mm_fmadd_sd(d, _mm_set_sd(inverse[a.n]), _mm_set_sd((double)a.whole));
    bad = _mm256_zextsi128_si256(near_midpoint(_mm_unpacklo_pd(d, d)));
    bad = _mm256_or_si256(no_digits(digits), bad);
    if (!_mm256_testz_si256(bad, bad))
        return 0;
    /* No branch: signs are random. */
    d = _mm_or_pd(d, _mm_castsi128_pd(_mm_slli_epi64(_mm_cvtsi64_si128((long long)a.neg), 63)));
    *out = (float)_mm_cvtsd_f64(d);
    return 1;
}

/* Two with more digits: seventeen are what a double prints as. */
MP__TARGET(ISA)
static __attribute__((noinline)) int two_long(const char *s, const char *e, const char *t,
                                              const char *f, float *out)
{
    return one(s, e, out) & one(t, f, out + 1);
}

static const char *skip(const char *p, const char *e)
{
    while (mp__json_space(*p) && p < e)
        p++;
    return p;
}

/* The element that ends before the comma at e, whatever it is; 0: that is not a number. */
MP__TARGET(ISA)
static __attribute__((noinline)) int any(const char *s, const char *e, const char *from,
                                         const char *end, float *out)
{
    const char *p;

    s = skip(s, e);
    if (e - from >= BEHIND && one(s, e, out))
        return 1;
    if (end - s < MP__NUM_AHEAD)
        return 0;
    p = mp__num_fast(s, out);
    return p != NULL && p <= e && skip(p, e) == e;
}

MP__TARGET(ISA)
size_t mp__num_list_avx2(const char **at, const char *end, float *out, size_t cap)
{
    const char *from = *at, *block = from, *s = from;
    uint16_t comma[SPAN + 8];
    size_t i = 0, k, n, bytes;

    for (; i < cap && end - block >= 64; block += bytes) {
        bytes = end - block < SPAN ? (size_t)(end - block) & ~(size_t)63 : SPAN;
        n = find_commas(block, bytes, comma);
        if (n > cap - i)
            n = cap - i;
        for (k = 0; k < n; s = block + comma[k++] + 1) {
            const char *e = block + comma[k];

            if (k + 1 < n && e - from >= BEHIND) {
                const char *t = e + 1, *f = block + comma[k + 1];

                if ((unsigned char)*s <= ' ')
                    s = skip(s, e);
                if ((unsigned char)*t <= ' ')
                    t = skip(t, f);
                if (two(s, e, t, f, out + i + k) || two_long(s, e, t, f, out + i + k)) {
                    k++;
                    continue;
                }
            }
            if (!any(s, e, from, end, out + i + k)) {
                *at = s;
                return i + k;
            }
        }
        i += n;
    }
    *at = s;
    return i;
}

#endif

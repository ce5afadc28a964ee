/*
 * number_simd.c - arrays of numbers, several at once: where each ends is known before it is read.
 *
 * A number at a time, the next one's place waits for this one's length: some 18 cycles of latency
 * whatever the parser does. Here the commas of 64 bytes become one bitmap, so that only two cheap
 * instructions stand between two numbers, and every number is read backwards from its comma: the
 * last 16 digits of the fraction are one load, cleaned by a mask that its length selects.
 *
 * Served is what arrays of embeddings are made of: [-]d.ddd with 1 to 19 digits after the point.
 * All else (exponents, integers, white space before the comma) is left to mp__num_fast, number by
 * number.
 */
#include "codec/number.h"

#include "codec/cpu.h"

#include <string.h>

#if MP__X86

#include <immintrin.h>

/* Reading backwards from the comma may look so many bytes before the number. */
#define BEHIND 32

#define ISA "avx2,bmi"

/* 10^-n, and what a digit before the point is worth when n follow. */
static const struct {
    double inverse;
    uint64_t unit;
} scale[20] = {
    {1e0, 1},
    {1e-1, 10},
    {1e-2, 100},
    {1e-3, 1000},
    {1e-4, 10000},
    {1e-5, 100000},
    {1e-6, 1000000},
    {1e-7, 10000000},
    {1e-8, 100000000},
    {1e-9, 1000000000},
    {1e-10, 10000000000},
    {1e-11, 100000000000},
    {1e-12, 1000000000000},
    {1e-13, 10000000000000},
    {1e-14, 100000000000000},
    {1e-15, 1000000000000000},
    {1e-16, 10000000000000000},
    {1e-17, 100000000000000000},
    {1e-18, 1000000000000000000},
    {1e-19, 10000000000000000000u},
};

/* The last n bytes of 16, from byte n on. */
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

/* The n <= 16 digits before e as a number; not only digits: *bad becomes non-zero. */
MP__TARGET(ISA)
static inline uint64_t digits_before(const char *e, size_t n, int *bad)
{
    __m128i t = _mm_loadu_si128((const __m128i *)(const void *)(e - 16));
    __m128i keep = _mm_loadu_si128((const __m128i *)(const void *)(last_bytes + n));
    uint64_t halves;

    t = _mm_and_si128(_mm_sub_epi8(t, _mm_set1_epi8('0')), keep);
    /* Greater than 9 as unsigned: the saturating difference is not zero. */
    *bad |= !_mm_testz_si128(_mm_subs_epu8(t, _mm_set1_epi8(9)), _mm_set1_epi8(-1));
    t = _mm_maddubs_epi16(t, _mm_set1_epi16(0x010A));  /* pairs: 10 a + b */
    t = _mm_madd_epi16(t, _mm_set1_epi32(0x00010064)); /* fours: 100 a + b */
    t = _mm_packus_epi32(t, t);                        /* at most 9999: fits */
    t = _mm_madd_epi16(t, _mm_set1_epi32(0x00012710)); /* eights: 10000 a + b */
    halves = (uint64_t)_mm_cvtsi128_si64(t);
    return (halves & 0xFFFFFFFF) * 100000000 + (halves >> 32);
}

/*
 * The number in s[0..e): 1, or 0 for the general path. BEHIND bytes before e can be read.
 *
 * w * 10^-n in double is wrong by three roundings, so by less than 4 units of its last place. To
 * float it rounds as the exact value does unless a midpoint of two floats is that near.
 */
MP__TARGET(ISA)
static inline int one(const char *s, const char *e, float *out)
{
    size_t neg = *s == '-';
    size_t n = (size_t)(e - s) - neg - 2;
    uint64_t whole = (unsigned char)(s[neg] - '0'), w, bits;
    int bad = whole > 9 || s[neg + 1] != '.' || n - 1 > 18;
    double d;

    if (bad)
        return 0;
    if (n <= 16)
        w = digits_before(e, n, &bad);
    else
        w = digits_before(e, 16, &bad) + digits_before(e - 16, n - 16, &bad) * scale[16].unit;
    w += whole * scale[n].unit; /* n = 19: wraps unless whole is 0, see below */
    d = (double)(int64_t)w * scale[n].inverse;
    memcpy(&bits, &d, sizeof(bits));
    if (bad || (int64_t)w < 0 || (n == 19 && whole != 0) || (bits & 0x1FFFFFFF) - 0x0FFFFFFC <= 8)
        return 0;
    bits |= (uint64_t)neg << 63;
    memcpy(&d, &bits, sizeof(d));
    *out = (float)d;
    return 1;
}

static inline int is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

/* The same by the general path: 0 unless the number and spaces reach exactly to e. */
static int one_slow(const char *s, const char *e, const char *end, float *out)
{
    const char *p;

    while (s < e && is_space(*s))
        s++;
    if (end - s < MP__NUM_AHEAD)
        return 0;
    p = mp__num_fast(s, out);
    while (p != NULL && p < e && is_space(*p))
        p++;
    return p == e;
}

MP__TARGET(ISA)
size_t mp__num_list_avx2(const char **at, const char *end, float *out, size_t cap)
{
    const char *from = *at, *block = from, *s = from;
    size_t i = 0;

    while (i < cap && end - block >= 64) {
        uint64_t commas = commas_in(block);

        for (; commas != 0 && i < cap; commas &= commas - 1) {
            const char *e = block + __builtin_ctzll(commas);
            const char *t = s + (*s == ' ');

            while (is_space(*t) && t < e)
                t++;
            if ((e - from < BEHIND || !one(t, e, out + i)) && !one_slow(s, e, end, out + i)) {
                *at = s;
                return i;
            }
            s = e + 1;
            i++;
        }
        block += 64;
    }
    *at = s;
    return i;
}

#endif

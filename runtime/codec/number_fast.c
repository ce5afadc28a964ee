/*
 * number_fast.c - the hot path: eight digits at a time, as one 64-bit word.
 *
 * The word trick is from the same paper as number.h's method (section 5); here the digits of a
 * shorter run are shifted to the top of the word, so a run of any length costs the same.
 */
#include "codec/number.h"
#include "codec/cpu.h"
#include "codec/json_text.h"

#include <string.h>

static const uint64_t pow10u[] = {
    1,
    10,
    100,
    1000,
    10000,
    100000,
    1000000,
    10000000,
    100000000,
    1000000000,
    10000000000,
    100000000000,
    1000000000000,
    10000000000000,
    100000000000000,
    1000000000000000,
    10000000000000000,
    100000000000000000,
    1000000000000000000,
    10000000000000000000u,
};

static const double pow10d[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

static inline uint64_t load(const char *p)
{
    uint64_t w;

    memcpy(&w, p, 8);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    w = __builtin_bswap64(w);
#endif
    return w;
}

/* Leading digits of the word, 0..8. A carry can only come from a byte that is not a digit, and
 * only rises, so the lowest flag is right. */
static inline unsigned digits_in(uint64_t w)
{
    uint64_t no = ((w + 0x4646464646464646u) | (w - 0x3030303030303030u)) & 0x8080808080808080u;

    return no == 0 ? 8 : (unsigned)__builtin_ctzll(no) >> 3;
}

/* The first n (1..8) digits of the word as a number. */
static inline uint64_t number_in(uint64_t w, unsigned n)
{
    const uint64_t mask = 0x000000FF000000FFu;

    w = (w - 0x3030303030303030u) << (64 - 8 * n);
    w = w * 10 + (w >> 8);
    return (((w & mask) * 0x000F424000000064u) + (((w >> 16) & mask) * 0x0000271000000001u)) >> 32;
}

/* The fraction's digits onto *w; how many, or 0 when there are none or too many to hold. */
static inline unsigned fraction(const char *p, uint64_t *w)
{
    uint64_t v = load(p);
    unsigned n = digits_in(v), more;

    if (n == 0)
        return 0;
    *w = *w * pow10u[n] + number_in(v, n);
    if (n < 8)
        return n;
    v = load(p + 8);
    more = digits_in(v);
    if (more == 0)
        return 8;
    *w = *w * pow10u[more] + number_in(v, more);
    if (more < 8)
        return 8 + more;
    v = load(p + 16);
    more = digits_in(v);
    if (more == 0)
        return 16;
    if (more == 8 || *w >= pow10u[19 - more])
        return 0;
    *w = *w * pow10u[more] + number_in(v, more);
    return 16 + more;
}

/* At most two digits; NULL otherwise. */
static inline const char *exponent(const char *p, int64_t *e)
{
    int neg = *p == '-';
    int64_t v;

    p += *p == '-' || *p == '+';
    if ((unsigned char)(*p - '0') > 9)
        return NULL;
    v = *p++ - '0';
    if ((unsigned char)(*p - '0') <= 9)
        v = v * 10 + (*p++ - '0');
    if ((unsigned char)(*p - '0') <= 9)
        return NULL;
    *e += neg ? -v : v;
    return p;
}

/*
 * With w and the power of ten exact in a double, one division rounds correctly to double. Rounding
 * that to float is right too unless the double is itself the midpoint of two floats, for rounding
 * keeps order and every midpoint is a double (Clinger's fast path, one precision up).
 */
static inline int convert(uint64_t w, int64_t e, int neg, float *out)
{
    double d;
    uint64_t bits;

    if (w >= UINT64_C(1) << 53 || e < -22 || e > 0 || w == 0)
        return mp__num_scale(w, e, neg, out);
    d = (double)(int64_t)w / pow10d[-e];
    memcpy(&bits, &d, sizeof(bits));
    if ((bits & 0x1FFFFFFF) == 0x10000000)
        return mp__num_scale(w, e, neg, out);
    *out = (float)(neg ? -d : d);
    return 0;
}

static inline const char *fast(const char *p, float *out)
{
    int neg = *p == '-';
    uint64_t w;
    int64_t e = 0;
    unsigned n;

    p += neg;
    w = (unsigned char)(*p - '0');
    if (w > 9)
        return NULL;
    p++;
    if (*p != '.') {
        /* Up to three digits before the point, so that 16 after it still fit in w. */
        for (n = 1; n < 3 && w != 0 && (unsigned char)(*p - '0') <= 9; n++)
            w = w * 10 + (uint64_t)(*p++ - '0');
        if ((unsigned char)(*p - '0') <= 9)
            return NULL;
    }
    if (*p == '.') {
        n = fraction(p + 1, &w);
        if (n == 0)
            return NULL;
        p += 1 + n;
        e = -(int64_t)n;
    }
    if ((*p | 0x20) == 'e') {
        p = exponent(p + 1, &e);
        if (p == NULL)
            return NULL;
    }
    return convert(w, e, neg, out) == 0 ? p : NULL;
}

const char *mp__num_fast(const char *p, float *out)
{
    return fast(p, out);
}

static size_t list_by_one(const char **at, const char *end, float *out, size_t cap)
{
    const char *p = *at, *limit = end - MP__NUM_AHEAD, *q;
    size_t i;

    if (end - p < MP__NUM_AHEAD)
        return 0;
    for (i = 0; i < cap && p <= limit; i++) {
        while (mp__json_space(*p) && p < limit)
            p++;
        q = fast(p, out + i);
        if (q == NULL)
            break;
        while (mp__json_space(*q) && q < end - 1)
            q++;
        if (*q != ',')
            break;
        p = q + 1;
        *at = p;
    }
    return i;
}

size_t mp__num_list(const char **at, const char *end, float *out, size_t cap)
{
    size_t n = 0;

#if MP__X86
    if (mp__simd() >= MP__SIMD_AVX2)
        n = mp__num_list_avx2(at, end, out, cap);
#endif
    return n + list_by_one(at, end, out + n, cap - n);
}

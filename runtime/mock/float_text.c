/*
 * float_text.c - float32 to text by one multiplication.
 *
 * Nine digits always identify a float32 (10^8 > 2^24 with room to spare: Matula, "In-and-out
 * conversions", CACM 11(1), 1968), and a double holds v * 10^k to within 1e-6 of its last digit. So
 * nine digits are rounded from the double product, and fewer are taken only where they lie safely,
 * by far more than that error, inside the half gap to the neighbouring floats.
 */
#include "mock/float_text.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

static const double tens[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10,
                              1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21,
                              1e22, 1e23, 1e24, 1e25, 1e26, 1e27, 1e28, 1e29, 1e30, 1e31, 1e32,
                              1e33, 1e34, 1e35, 1e36, 1e37, 1e38, 1e39, 1e40, 1e41, 1e42, 1e43,
                              1e44, 1e45, 1e46, 1e47, 1e48, 1e49, 1e50, 1e51, 1e52, 1e53, 1e54};

#define FEWER 0.4999 /* of the gap between floats; 0.5 would be exact, less is safe */

/* a * 10^k with a few units in the last place of a double at most. */
static double scaled(double a, int k)
{
    return k >= 0 ? a * tens[k] : a / tens[-k];
}

/* The power of ten of the first digit of a > 0. */
static int exponent10(double a, int exp2)
{
    int e = ((exp2 - 1) * 1233) >> 12; /* log10(2), rounded down: at most one too small */
    return scaled(a, -e) >= 10 ? e + 1 : e;
}

static double power_of_two(int e)
{
    uint64_t bits = (uint64_t)(e + 1023) << 52;
    double v;
    memcpy(&v, &bits, sizeof(v));
    return v;
}

/* a = m * 2^result with 0.5 <= m < 1, a from a float. *gap: to the nearest other float. */
static int binade(double a, double *gap)
{
    uint64_t bits;
    memcpy(&bits, &a, sizeof(bits));
    int e = (int)(bits >> 52) - 1022;
    int of_gap = e - 24 < -149 ? -149 : e - 24;
    int at_edge = (bits << 12) == 0 && of_gap > -149; /* the floats below lie twice as dense */
    *gap = power_of_two(of_gap - at_edge);
    return e;
}

/* Up to nine digits of a in *digits, trailing zeros cut; *e10 may grow by rounding up. */
static int shortest(double a, uint32_t *digits, int *e10)
{
    double gap;
    int exp2 = binade(a, &gap);
    *e10 = exponent10(a, exp2);
    double x = scaled(a, 8 - *e10);
    double safe = scaled(gap, 8 - *e10) * FEWER;
    int n = 9;
    uint32_t u = (uint32_t)(x + 0.5);
    uint32_t seven = (uint32_t)(x * 0.01 + 0.5) * 100;
    uint32_t eight = (uint32_t)(x * 0.1 + 0.5) * 10;
    if (fabs(seven - x) < safe)
        u = seven;
    else if (fabs(eight - x) < safe)
        u = eight;
    if (u == 1000000000) {
        u = 100000000;
        ++*e10;
    }
    while (u % 10 == 0) {
        u /= 10;
        n--;
    }
    *digits = u;
    return n;
}

static void put_digits(char *out, uint32_t u, int n)
{
    while (n-- > 0) {
        out[n] = (char)('0' + u % 10);
        u /= 10;
    }
}

static size_t put_exponent(char *out, int e)
{
    size_t n = 0;
    out[n++] = 'e';
    if (e < 0)
        out[n++] = '-';
    uint32_t u = (uint32_t)(e < 0 ? -e : e);
    int digits = u >= 10 ? 2 : 1;
    put_digits(out + n, u, digits);
    return n + (size_t)digits;
}

/* d.ddd e10 as text: with leading zeros down to 1e-5, plain up to nine places, else exponent. */
static size_t lay_out(char *out, uint32_t u, int n, int e10)
{
    char digits[10];
    put_digits(digits, u, n);
    if (e10 < 0 && e10 >= -5) {
        size_t zeros = (size_t)(-e10 - 1);
        memcpy(out, "0.0000", 2 + zeros);
        memcpy(out + 2 + zeros, digits, (size_t)n);
        return 2 + zeros + (size_t)n;
    }
    int whole = e10 >= 0 && e10 < 9 ? e10 + 1 : 1;
    for (int i = 0; i < whole; i++)
        out[i] = i < n ? digits[i] : '0';
    size_t at = (size_t)whole;
    if (n > whole) {
        out[at++] = '.';
        memcpy(out + at, digits + whole, (size_t)(n - whole));
        at += (size_t)(n - whole);
    }
    return whole == e10 + 1 ? at : at + put_exponent(out + at, e10);
}

size_t mp__float_text(char *out, float v)
{
    uint32_t digits;
    int e10;
    size_t sign = 0;
    if (!isfinite(v))
        return 0;
    if (signbit(v))
        out[sign++] = '-';
    if (v == 0) {
        out[sign] = '0';
        return sign + 1;
    }
    int n = shortest(fabs((double)v), &digits, &e10);
    return sign + lay_out(out + sign, digits, n, e10);
}

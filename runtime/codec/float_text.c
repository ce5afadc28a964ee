/*
 * float_text.c - float32 to the shortest decimal text, exactly.
 *
 * After R. Giulietti, "The Schubfach way to render doubles" (2020), for binary32: the float and the
 * two halfway points around it are scaled by one power of ten, kept to 64 bits and rounded to odd, so
 * that integer comparisons decide as real numbers would. At one scale at most two candidates lie
 * between those points; one digit fewer is tried first.
 */
#include "codec/float_text.h"

#include <stdint.h>
#include <string.h>

#define POW_MIN (-31)

/* 10^k for k = -31..45, scaled by a power of two into 64 bits, rounded up. */
static const uint64_t pow10_bits[] = {
    0x81ceb32c4b43fcf5u, 0xa2425ff75e14fc32u, 0xcad2f7f5359a3b3fu, 0xfd87b5f28300ca0eu,
    0x9e74d1b791e07e49u, 0xc612062576589ddbu, 0xf79687aed3eec552u, 0x9abe14cd44753b53u,
    0xc16d9a0095928a28u, 0xf1c90080baf72cb2u, 0x971da05074da7befu, 0xbce5086492111aebu,
    0xec1e4a7db69561a6u, 0x9392ee8e921d5d08u, 0xb877aa3236a4b44au, 0xe69594bec44de15cu,
    0x901d7cf73ab0acdau, 0xb424dc35095cd810u, 0xe12e13424bb40e14u, 0x8cbccc096f5088ccu,
    0xafebff0bcb24aaffu, 0xdbe6fecebdedd5bfu, 0x89705f4136b4a598u, 0xabcc77118461cefdu,
    0xd6bf94d5e57a42bdu, 0x8637bd05af6c69b6u, 0xa7c5ac471b478424u, 0xd1b71758e219652cu,
    0x83126e978d4fdf3cu, 0xa3d70a3d70a3d70bu, 0xcccccccccccccccdu, 0x8000000000000000u,
    0xa000000000000000u, 0xc800000000000000u, 0xfa00000000000000u, 0x9c40000000000000u,
    0xc350000000000000u, 0xf424000000000000u, 0x9896800000000000u, 0xbebc200000000000u,
    0xee6b280000000000u, 0x9502f90000000000u, 0xba43b74000000000u, 0xe8d4a51000000000u,
    0x9184e72a00000000u, 0xb5e620f480000000u, 0xe35fa931a0000000u, 0x8e1bc9bf04000000u,
    0xb1a2bc2ec5000000u, 0xde0b6b3a76400000u, 0x8ac7230489e80000u, 0xad78ebc5ac620000u,
    0xd8d726b7177a8000u, 0x878678326eac9000u, 0xa968163f0a57b400u, 0xd3c21bcecceda100u,
    0x84595161401484a0u, 0xa56fa5b99019a5c8u, 0xcecb8f27f4200f3au, 0x813f3978f8940985u,
    0xa18f07d736b90be6u, 0xc9f2c9cd04674edfu, 0xfc6f7c4045812297u, 0x9dc5ada82b70b59eu,
    0xc5371912364ce306u, 0xf684df56c3e01bc7u, 0x9a130b963a6c115du, 0xc097ce7bc90715b4u,
    0xf0bdc21abb48db21u, 0x96769950b50d88f5u, 0xbc143fa4e250eb32u, 0xeb194f8e1ae525feu,
    0x92efd1b8d0cf37bfu, 0xb7abc627050305aeu, 0xe596b7b0c643c71au, 0x8f7e32ce7bea5c70u,
    0xb35dbf821ae4f38cu,
};

/* floor(log10(2^q)), or of 3/4 of it, the gap below a power of two; right for |q| <= 1650. */
static int floor_log10(int q, int three_quarters)
{
    return (q * 1262611 - (three_quarters ? 524031 : 0)) >> 22;
}

static int floor_log2_pow10(int k)
{
    return (k * 1741647) >> 19;
}

/* The integer part of g * c / 2^64, its last bit set when anything was cut off. */
static uint32_t round_to_odd(uint64_t g, uint32_t c)
{
    uint64_t low = (g & 0xffffffffu) * c;
    uint64_t high = (g >> 32) * c + (low >> 32);
    return (uint32_t)(high >> 32) | ((uint32_t)high > 1);
}

/* digits * 10^*k is the shortest number that rounds to m * 2^q, of those the nearest. */
static uint32_t shortest(uint32_t m, int q, int at_edge, int *k)
{
    uint32_t odd = m & 1;
    *k = floor_log10(q, at_edge);
    int shift = q + floor_log2_pow10(-*k) + 1;
    uint64_t g = pow10_bits[-*k - POW_MIN];
    uint32_t lower = round_to_odd(g, (4 * m - 2 + (uint32_t)at_edge) << shift) + odd;
    uint32_t v = round_to_odd(g, (4 * m) << shift);
    uint32_t upper = round_to_odd(g, (4 * m + 2) << shift) - odd;
    uint32_t s = v / 4;
    if (s >= 10) {
        uint32_t tenth = s / 10;
        int below = lower <= 40 * tenth;
        int above = 40 * tenth + 40 <= upper;
        if (below != above) {
            ++*k;
            return tenth + (uint32_t)above;
        }
    }
    int below = lower <= 4 * s;
    int above = 4 * s + 4 <= upper;
    if (below != above)
        return s + (uint32_t)above;
    return s + (v > 4 * s + 2 || (v == 4 * s + 2 && (s & 1)));
}

static const char pairs[] = "00010203040506070809101112131415161718192021222324252627282930313233"
                            "34353637383940414243444546474849505152535455565758596061626364656667"
                            "6869707172737475767778798081828384858687888990919293949596979899";

static int count_digits(uint32_t u)
{
    static const uint32_t tens[] = {10, 100, 1000, 10000, 100000, 1000000, 10000000, 100000000};
    int n = 1;
    if (u >= 1000000) /* most floats have seven to nine */
        n = 7;
    while (n < 9 && u >= tens[n - 1])
        n++;
    return n;
}

static void put_digits(char *out, uint32_t u, int n)
{
    while (n >= 2) {
        n -= 2;
        memcpy(out + n, pairs + 2 * (u % 100), 2);
        u /= 100;
    }
    if (n > 0)
        out[0] = (char)('0' + u);
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
    if (e10 < 0 && e10 >= -5) {
        size_t zeros = (size_t)(-e10 - 1);
        memcpy(out, "0.0000", 6);
        put_digits(out + 2 + zeros, u, n);
        return 2 + zeros + (size_t)n;
    }
    char digits[10];
    put_digits(digits, u, n);
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
    uint32_t bits;
    memcpy(&bits, &v, sizeof(bits));
    size_t sign = bits >> 31;
    uint32_t exponent = bits >> 23 & 0xff, fraction = bits & 0x7fffff;
    out[0] = '-';
    if (exponent == 0xff)
        return 0;
    if (exponent == 0 && fraction == 0) {
        out[sign] = '0';
        return sign + 1;
    }
    int k;
    int at_edge = fraction == 0 && exponent > 1; /* the floats below lie twice as dense */
    uint32_t u = exponent != 0 ? shortest(fraction | 0x800000, (int)exponent - 150, at_edge, &k)
                               : shortest(fraction, -149, 0, &k);
    while (u % 10 == 0) {
        u /= 10;
        k++;
    }
    int n = count_digits(u);
    return sign + lay_out(out + sign, u, n, k + n - 1);
}

/*
 * number.h - JSON numbers to float32, correctly rounded, resumable at every character.
 *
 * The grammar is RFC 8259's and no more: no leading zeros, '+', bare dot, hex, NaN or Infinity.
 * The result is bit-equal to strtof() in the C locale with rounding to nearest. Method: Lemire,
 * "Number parsing at a gigabyte per second", Software: Practice and Experience 51(8), 2021, cut
 * to float32; when more than 19 digits leave it open, the first 160 digits decide exactly.
 */
#ifndef MP_CODEC_NUMBER_H
#define MP_CODEC_NUMBER_H

#include "moonpool.h"

#define MP__ERANGE (-21) /* a number too large for float32 */

/* The midpoint of two floats has at most 113 significant digits, so 160 and one sticky decide. */
#define MP__NUM_DIGITS 160

struct mp__num {
    uint64_t mant; /* the first 19 significant digits */
    int64_t point; /* power of ten of the last digit of mant, exponent not included */
    int64_t exp;   /* the exponent's digits, capped */
    uint32_t nd;   /* significant digits in digits[] */
    uint8_t state;
    uint8_t neg;
    uint8_t eneg;
    uint8_t sticky; /* a non-zero digit was cut off after digits[] */
    uint64_t total; /* significant digits met */
    char digits[MP__NUM_DIGITS];
};

void mp__num_start(struct mp__num *s);

/* Eats what belongs to the number; fewer than n eaten: the number has ended (or is wrong there). */
size_t mp__num_feed(struct mp__num *s, const char *p, size_t n);

/* 0 and *out; MP_EINVAL: not a whole JSON number; MP__ERANGE: rounds to infinity. */
int mp__num_finish(const struct mp__num *s, float *out);

/* 0 and *out when the number is whole, not negative and below 10^19, however it is written (0.0, 2e1);
 * else MP_EINVAL. */
int mp__num_uint(const struct mp__num *s, uint64_t *out);
int mp__num_is_minus(const struct mp__num *s); /* nothing but the sign so far */

/* Whole text p[0..n): the same results. */
int mp__num_parse(const char *p, size_t n, float *out);

/*
 * The hot path: a number that starts at p, of which MP__NUM_AHEAD bytes can be read. Returns the
 * first byte after it, or NULL when the careful path must look (odd, long, wrong, out of range).
 */
#define MP__NUM_AHEAD 48
const char *mp__num_fast(const char *p, float *out);

/*
 * Elements of a JSON array, each with the comma after it: from *at (an element's start) up to cap
 * of them, as long as the hot path serves. Returns how many, *at is after the last comma. The
 * array's last element, errors and the chunk's edge are left to the careful path.
 */
size_t mp__num_list(const char **at, const char *end, float *out, size_t cap);
size_t mp__num_list_avx2(const char **at, const char *end, float *out, size_t cap); /* x86 only */

/* (neg ? -1 : 1) * w * 10^e to float32: 0; 1 when these bits leave two floats open; MP__ERANGE. */
int mp__num_scale(uint64_t w, int64_t e, int neg, float *out);

#endif

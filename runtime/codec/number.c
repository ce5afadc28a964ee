/*
 * number.c - JSON numbers to float32: the careful, resumable path and the conversion.
 */
#include "codec/number.h"

#include "codec/number_pow5.h"

#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define POW_MIN (-64) /* below it 2^64 * 10^q is under half of the least float */
#define POW_MAX 38
#define EXP_CAP INT64_C(1000000000000000) /* far beyond any shift that digits can make */

enum state { START, MINUS, ZERO, INT, DOT, FRAC, EXP, EXP_SIGN, EXP_DIGITS };

/* ---- decimal to binary --------------------------------------------------------------------- */

static float from_bits(uint32_t mantissa, int32_t power, int neg)
{
    uint32_t bits = mantissa | (uint32_t)power << 23 | (uint32_t)(neg != 0) << 31;
    float f;

    memcpy(&f, &bits, sizeof(f));
    return f;
}

/* The top of w * 5^q, with a second multiplication only when the first leaves a carry open. */
static void product(uint64_t w, int64_t q, uint64_t *hi, uint64_t *lo)
{
    unsigned __int128 p = (unsigned __int128)w * pow5[q - POW_MIN].hi;
    const uint64_t mask = UINT64_MAX >> 26; /* 23 bits of mantissa and 3 more */

    *hi = (uint64_t)(p >> 64);
    *lo = (uint64_t)p;
    if ((*hi & mask) == mask) {
        uint64_t more = (uint64_t)((unsigned __int128)w * pow5[q - POW_MIN].lo >> 64);

        *lo += more;
        if (more > *lo)
            ++*hi;
    }
}

static uint64_t round_even(uint64_t mantissa)
{
    return (mantissa + (mantissa & 1)) >> 1;
}

int mp__num_scale(uint64_t w, int64_t e, int neg, float *out)
{
    uint64_t hi, lo, mantissa;
    int lz, upper;
    int32_t power;

    *out = from_bits(0, 0, neg);
    if (w == 0 || e < POW_MIN)
        return 0;
    if (e > POW_MAX)
        return MP__ERANGE;
    lz = __builtin_clzll(w);
    product(w << lz, e, &hi, &lo);
    if (lo == UINT64_MAX && (e < -27 || e > 55))
        return 1;
    upper = (int)(hi >> 63);
    mantissa = hi >> (upper + 38); /* 25 bits or 26: the float's 24, one to round, perhaps one */
    /* 217706 / 2^16 is log2(10); 127 the bias. */
    power = (int32_t)((217706 * e) >> 16) + 63 + upper - lz + 127;
    if (power <= 0) {
        if (power < -62)
            return 0;
        mantissa = round_even(mantissa >> (1 - power));
        *out = from_bits((uint32_t)mantissa, 0, neg); /* a carry into 2^23 is the right float too */
        return 0;
    }
    /* Exactly half way is possible only for these small powers: then round to even. */
    if (lo <= 1 && e >= -17 && e <= 10 && (mantissa & 3) == 1 && mantissa << (upper + 38) == hi)
        mantissa &= ~UINT64_C(1);
    mantissa = round_even(mantissa);
    if (mantissa >= UINT64_C(1) << 24) {
        mantissa = UINT64_C(1) << 23;
        power++;
    }
    if (power >= 255)
        return MP__ERANGE;
    *out = from_bits((uint32_t)mantissa & 0x7FFFFF, power, neg);
    return 0;
}

static uint64_t kept(const struct mp__num *s)
{
    return s->total < 19 ? s->total : 19;
}

/* All the digits decide. Whatever was cut off only says "a little more": one digit stands for it. */
static int exact(const struct mp__num *s, int64_t e, float *out)
{
    char text[MP__NUM_DIGITS + 32];
    locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    size_t n = s->nd;
    float f;

    if (c == (locale_t)0)
        return MP_ENOMEM;
    memcpy(text, s->digits, n);
    e -= (int64_t)(n - kept(s));
    if (s->sticky) {
        text[n++] = '1';
        e--;
    }
    snprintf(text + n, sizeof(text) - n, "e%lld", (long long)e);
    f = strtof_l(text, NULL, c);
    freelocale(c);
    if (isinf(f))
        return MP__ERANGE;
    *out = s->neg ? -f : f;
    return 0;
}

int mp__num_finish(const struct mp__num *s, float *out)
{
    int64_t e = s->point + (s->eneg ? -s->exp : s->exp);
    float more;
    int err, err2;

    if (s->state != ZERO && s->state != INT && s->state != FRAC && s->state != EXP_DIGITS)
        return MP_EINVAL;
    err = mp__num_scale(s->mant, e, s->neg, out);
    if (s->total > 19) {
        /* The value lies between mant and mant + 1: if both give one float, so does it. */
        err2 = mp__num_scale(s->mant + 1, e, s->neg, &more);
        if (err != err2 || (err == 0 && memcmp(out, &more, sizeof(more)) != 0))
            err = 1;
    }
    return err == 1 ? exact(s, e, out) : err;
}

int mp__num_uint(const struct mp__num *s, uint64_t *out)
{
    int64_t e = s->point + (s->eneg ? -s->exp : s->exp);
    uint64_t v = s->mant;

    if ((s->state != ZERO && s->state != INT && s->state != FRAC && s->state != EXP_DIGITS) ||
        s->total > 19 || (s->neg && v != 0))
        return MP_EINVAL;
    for (; v != 0 && e < 0; e++, v /= 10)
        if (v % 10 != 0)
            return MP_EINVAL;
    for (; v != 0 && e > 0; e--, v *= 10)
        if (v >= UINT64_C(1000000000000000000))
            return MP_EINVAL;
    *out = v;
    return 0;
}

int mp__num_is_minus(const struct mp__num *s)
{
    return s->state == MINUS;
}

/* ---- the grammar --------------------------------------------------------------------------- */

void mp__num_start(struct mp__num *s)
{
    memset(s, 0, offsetof(struct mp__num, digits));
}

static void add_digit(struct mp__num *s, char c, int fraction)
{
    if (s->total != 0 || c != '0') {
        if (s->total < 19)
            s->mant = s->mant * 10 + (uint64_t)(c - '0');
        else
            s->point++;
        if (s->nd < MP__NUM_DIGITS)
            s->digits[s->nd++] = c;
        else
            s->sticky |= c != '0';
        s->total++;
    }
    s->point -= fraction;
}

static int on_digit(struct mp__num *s, char c)
{
    switch (s->state) {
    case START:
    case MINUS:
        s->state = c == '0' ? ZERO : INT;
        break;
    case ZERO:
        return 0;
    case DOT:
        s->state = FRAC;
        break;
    case EXP:
    case EXP_SIGN:
        s->state = EXP_DIGITS;
        break;
    default:
        break;
    }
    if (s->state == EXP_DIGITS)
        s->exp = s->exp > EXP_CAP ? s->exp : s->exp * 10 + (c - '0');
    else
        add_digit(s, c, s->state == FRAC);
    return 1;
}

static int on_other(struct mp__num *s, char c)
{
    int whole = s->state == ZERO || s->state == INT;

    if (c == '-' && s->state == START) {
        s->neg = 1;
        s->state = MINUS;
    } else if (c == '.' && whole) {
        s->state = DOT;
    } else if ((c == 'e' || c == 'E') && (whole || s->state == FRAC)) {
        s->state = EXP;
    } else if ((c == '-' || c == '+') && s->state == EXP) {
        s->eneg = c == '-';
        s->state = EXP_SIGN;
    } else {
        return 0;
    }
    return 1;
}

size_t mp__num_feed(struct mp__num *s, const char *p, size_t n)
{
    size_t i;
    int fits;

    for (i = 0; i < n; i++) {
        fits = p[i] >= '0' && p[i] <= '9' ? on_digit(s, p[i]) : on_other(s, p[i]);
        if (!fits)
            break;
    }
    return i;
}

int mp__num_parse(const char *p, size_t n, float *out)
{
    struct mp__num s;

    mp__num_start(&s);
    if (mp__num_feed(&s, p, n) != n)
        return MP_EINVAL;
    return mp__num_finish(&s, out);
}

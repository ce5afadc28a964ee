/*
 * base64.c - strict base64 in plain C; the SIMD bulk is in base64_simd.c.
 */
#include "codec/base64.h"

#include "codec/base64_simd.h"

#include <string.h>

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

#define XX       0xFF
#define ROW16(x) x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x
/* clang-format off */
static const uint8_t value[256] = {
    ROW16(XX), ROW16(XX),
    XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, 62, XX, XX, XX, 63,
    52, 53, 54, 55, 56, 57, 58, 59, 60, 61, XX, XX, XX, XX, XX, XX,
    XX, 0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14,
    15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, XX, XX, XX, XX, XX,
    XX, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40,
    41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, XX, XX, XX, XX, XX,
    ROW16(XX), ROW16(XX), ROW16(XX), ROW16(XX), ROW16(XX), ROW16(XX), ROW16(XX), ROW16(XX),
};
/* clang-format on */

size_t mp__base64_encode(char *out, const void *in, size_t n)
{
    const uint8_t *p = in;
    char *o = out;
    uint32_t v;
    size_t i = 0;

#if MP__X86
    if (n >= 16 && mp__simd() >= MP__SIMD_SSE) {
        i = mp__b64_encode_ssse3(o, p, n);
        o += i / 3 * 4;
    }
#endif
    for (; i + 3 <= n; i += 3, o += 4) {
        v = (uint32_t)p[i] << 16 | (uint32_t)p[i + 1] << 8 | p[i + 2];
        o[0] = alphabet[v >> 18];
        o[1] = alphabet[v >> 12 & 63];
        o[2] = alphabet[v >> 6 & 63];
        o[3] = alphabet[v & 63];
    }
    if (i < n) {
        v = (uint32_t)p[i] << 16 | (i + 1 < n ? (uint32_t)p[i + 1] << 8 : 0);
        o[0] = alphabet[v >> 18];
        o[1] = alphabet[v >> 12 & 63];
        o[2] = i + 1 < n ? alphabet[v >> 6 & 63] : '=';
        o[3] = '=';
        o += 4;
    }
    return (size_t)(o - out);
}

/* Whole groups of four, as many as fit; the characters eaten. */
static size_t bulk(const uint8_t *in, size_t n, uint8_t *out, size_t cap)
{
    size_t i = 0, o = 0;

#if MP__X86
    if (n >= 32) {
        enum mp__simd level = mp__simd();

        if (level == MP__SIMD_AVX2)
            i = mp__b64_avx2(in, n, out, cap);
        else if (level == MP__SIMD_SSE)
            i = mp__b64_ssse3(in, n, out, cap);
        o = i / 4 * 3;
    }
#endif
    for (; i + 4 <= n && o + 3 <= cap; i += 4, o += 3) {
        uint32_t a = value[in[i]], b = value[in[i + 1]], c = value[in[i + 2]], d = value[in[i + 3]];
        uint32_t v = a << 18 | b << 12 | c << 6 | d;

        if ((a | b | c | d) & 0x80)
            break;
        out[o] = (uint8_t)(v >> 16);
        out[o + 1] = (uint8_t)(v >> 8);
        out[o + 2] = (uint8_t)v;
    }
    return i;
}

/* One '=': 1 when it may stand here. */
static int pad(struct mp__b64 *s)
{
    if (s->pads == 0)
        s->extra = s->have;
    if (s->extra < 2 || s->extra + s->pads >= 4)
        return 0;
    s->pads++;
    return 1;
}

size_t mp__b64_feed(struct mp__b64 *s, const char *text, size_t n, uint8_t *out, size_t cap,
                    size_t *out_n)
{
    const uint8_t *in = (const uint8_t *)text;
    size_t i = 0, o = 0, eaten;

    while (i < n) {
        if (s->have == 0 && s->pads == 0) {
            eaten = bulk(in + i, n - i, out + o, cap - o);
            i += eaten;
            o += eaten / 4 * 3;
        }
        if (i == n)
            break;
        if (in[i] == '=' && pad(s)) {
            i++;
            continue;
        }
        if (value[in[i]] == XX || s->pads != 0 || (s->have == 3 && cap - o < 3))
            break;
        s->acc = s->acc << 6 | value[in[i++]];
        if (++s->have == 4) {
            out[o++] = (uint8_t)(s->acc >> 16);
            out[o++] = (uint8_t)(s->acc >> 8);
            out[o++] = (uint8_t)s->acc;
            s->have = 0;
            s->acc = 0;
        }
    }
    *out_n += o;
    return i;
}

int mp__b64_finish(struct mp__b64 *s, uint8_t *out, size_t *out_n)
{
    uint32_t acc = s->acc;

    if (s->have == 1 || (s->pads != 0 && s->have + s->pads != 4))
        return MP_EINVAL;
    if (s->have == 0)
        return 0;
    if (acc & (s->have == 2 ? 0xFu : 0x3u))
        return MP_EINVAL;
    acc <<= s->have == 2 ? 12 : 6;
    *out++ = (uint8_t)(acc >> 16);
    if (s->have == 3)
        *out = (uint8_t)(acc >> 8);
    *out_n += s->have - 1u;
    return 0;
}

int mp__base64_decode(uint8_t *out, size_t *out_n, const char *in, size_t n)
{
    struct mp__b64 s = {0};

    *out_n = 0;
    if (mp__b64_feed(&s, in, n, out, n / 4 * 3 + 3, out_n) != n)
        return MP_EINVAL;
    return mp__b64_finish(&s, out + *out_n, out_n);
}

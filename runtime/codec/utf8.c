/*
 * utf8.c - strict UTF-8: validation and counting.
 */
#include "codec/utf8.h"

#include "codec/json_write.h"
#include "codec/cpu.h"

#include <stdint.h>
#include <string.h>

#if MP__X86
#include <immintrin.h>
#endif

/*
 * One sequence of 2 to 4 bytes; its length, or 0 when bad (or cut by the end). The second byte's
 * range is what forbids overlong forms (E0, F0), surrogates (ED) and values past U+10FFFF (F4).
 */
size_t mp__utf8_seq(const unsigned char *s, size_t n)
{
    unsigned char lo, hi;
    size_t len = mp__utf8_lead(s[0], &lo, &hi);
    size_t i;

    if (len < 2 || n < len || s[1] < lo || s[1] > hi)
        return 0;
    for (i = 2; i < len; i++)
        if ((s[i] & 0xC0) != 0x80)
            return 0;
    return len;
}

size_t mp__utf8_put(char *out, uint32_t c)
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xC0 | c >> 6);
        out[1] = (char)(0x80 | (c & 63));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xE0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 63));
        out[2] = (char)(0x80 | (c & 63));
        return 3;
    }
    out[0] = (char)(0xF0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 63));
    out[2] = (char)(0x80 | (c >> 6 & 63));
    out[3] = (char)(0x80 | (c & 63));
    return 4;
}

int mp__utf8_valid(const char *str, size_t n, size_t *bad_at)
{
    const unsigned char *s = (const unsigned char *)str;
    size_t i = 0, len;
    uint64_t w;

    while (i < n) {
        if (n - i >= 8) {
            memcpy(&w, s + i, 8);
            if ((w & 0x8080808080808080u) == 0) {
                i += 8;
                continue;
            }
        }
        if (s[i] < 0x80) {
            i++;
            continue;
        }
        len = mp__utf8_seq(s + i, n - i);
        if (len == 0) {
            if (bad_at != NULL)
                *bad_at = i;
            return MP_EINVAL;
        }
        i += len;
    }
    return 0;
}

#if MP__X86
MP__TARGET("avx2") static size_t chars_avx2(const char *s, size_t n, size_t *done)
{
    const __m256i limit = _mm256_set1_epi8(-65); /* 10xxxxxx is -128..-65 as a signed byte */
    size_t i, count = 0;

    for (i = 0; i + 32 <= n; i += 32) {
        __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)(s + i));
        unsigned mask = (unsigned)_mm256_movemask_epi8(_mm256_cmpgt_epi8(v, limit));

        count += (size_t)__builtin_popcount(mask);
    }
    *done = i;
    return count;
}
#endif

size_t mp__utf8_chars(const char *s, size_t n)
{
    size_t i = 0, count = 0;
    uint64_t w, cont;

#if MP__X86
    if (n >= 32 && mp__simd() == MP__SIMD_AVX2)
        count = chars_avx2(s, n, &i);
#endif
    for (; i + 8 <= n; i += 8) {
        memcpy(&w, s + i, 8);
        cont = (w >> 7) & (~w >> 6) & 0x0101010101010101u;
        count += 8 - (size_t)__builtin_popcountll(cont);
    }
    for (; i < n; i++)
        count += ((unsigned char)s[i] & 0xC0) != 0x80;
    return count;
}

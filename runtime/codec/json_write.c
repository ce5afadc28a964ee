/*
 * json_write.c - JSON text out.
 */
#include "codec/json_write.h"

#include "codec/cpu.h"
#include "codec/utf8.h"

#include <stdint.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if MP__X86
#include <immintrin.h>
#endif

/* 1: may stand in a string as it is. The rest: controls, quote, backslash, and all above ASCII. */
static int plain(unsigned char c)
{
    return c >= 0x20 && c < 0x80 && c != '"' && c != '\\';
}

#if MP__X86
MP__TARGET("avx2") static size_t run_avx2(const char *s, size_t n)
{
    const __m256i space = _mm256_set1_epi8(0x1F), quote = _mm256_set1_epi8('"');
    const __m256i slash = _mm256_set1_epi8('\\');
    size_t i;

    for (i = 0; i + 32 <= n; i += 32) {
        __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)(s + i));
        __m256i ok = _mm256_cmpgt_epi8(v, space); /* signed: refuses 0x80.. as well */
        __m256i no = _mm256_or_si256(_mm256_cmpeq_epi8(v, quote), _mm256_cmpeq_epi8(v, slash));
        unsigned mask = (unsigned)_mm256_movemask_epi8(_mm256_andnot_si256(no, ok));

        if (mask != 0xFFFFFFFFu)
            return i + (size_t)__builtin_ctz(~mask);
    }
    return i;
}

static size_t run_sse2(const char *s, size_t n)
{
    const __m128i space = _mm_set1_epi8(0x1F), quote = _mm_set1_epi8('"');
    const __m128i slash = _mm_set1_epi8('\\');
    size_t i;

    for (i = 0; i + 16 <= n; i += 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)(const void *)(s + i));
        __m128i ok = _mm_cmpgt_epi8(v, space);
        __m128i no = _mm_or_si128(_mm_cmpeq_epi8(v, quote), _mm_cmpeq_epi8(v, slash));
        unsigned mask = (unsigned)_mm_movemask_epi8(_mm_andnot_si128(no, ok));

        if (mask != 0xFFFFu)
            return i + (size_t)__builtin_ctz(~mask);
    }
    return i;
}
#endif

/* Length of the run of bytes at s that need nothing done to them. */
static size_t plain_run(const char *s, size_t n)
{
    size_t i = 0;

#if MP__X86
    enum mp__simd level = mp__simd();

    if (n >= 32 && level == MP__SIMD_AVX2)
        i = run_avx2(s, n);
    else if (n >= 16 && level >= MP__SIMD_SSE)
        i = run_sse2(s, n);
#endif
    while (i < n && plain((unsigned char)s[i]))
        i++;
    return i;
}

static int add_escape(struct mp__buf *b, unsigned char c)
{
    static const char hex[] = "0123456789abcdef";
    static const char from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt";
    const char *at = c != 0 ? strchr(from, c) : NULL;
    char text[6] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]};

    if (at == NULL)
        return mp__buf_add(b, text, 6);
    text[1] = to[at - from];
    return mp__buf_add(b, text, 2);
}

static int add_body(struct mp__buf *b, const char *s, size_t n, size_t *bad_at)
{
    size_t i = 0, run;
    int err = 0;

    while (i < n && err == 0) {
        run = plain_run(s + i, n - i);
        err = mp__buf_add(b, s + i, run);
        i += run;
        if (err != 0 || i == n)
            break;
        if ((unsigned char)s[i] < 0x80) {
            err = add_escape(b, (unsigned char)s[i++]);
            continue;
        }
        /* Text in other scripts is runs of such sequences: copy the whole run at once. */
        for (run = i; run < n && (unsigned char)s[run] >= 0x80;) {
            size_t len = mp__utf8_seq((const unsigned char *)s + run, n - run);

            if (len == 0) {
                *bad_at = run;
                return MP_EINVAL;
            }
            run += len;
        }
        err = mp__buf_add(b, s + i, run - i);
        i = run;
    }
    return err;
}

int mp__json_string(struct mp__buf *b, const char *s, size_t n, size_t *bad_at)
{
    size_t before = b->n, bad = 0;
    int err = MP__ETOOBIG;

    if (n <= SIZE_MAX - 2)
        err = mp__buf_reserve(b, n + 2); /* almost always enough, so one allocation */
    if (err == 0)
        err = mp__buf_addc(b, '"');
    if (err == 0)
        err = add_body(b, s, n, &bad);
    if (err == 0)
        err = mp__buf_addc(b, '"');
    if (err != 0)
        b->n = before;
    if (err == MP_EINVAL && bad_at != NULL)
        *bad_at = bad;
    return err;
}

static int add_integer(struct mp__buf *b, int64_t v)
{
    char text[24];
    int n = snprintf(text, sizeof(text), "%lld", (long long)v);

    return mp__buf_add(b, text, (size_t)n);
}

/* printf and strtod obey LC_NUMERIC alike, so the round trip holds; only the point is corrected. */
static int add_shortest(struct mp__buf *b, double v)
{
    char text[64];
    const char *point = localeconv()->decimal_point;
    size_t plen = strlen(point);
    int digits;
    char *at;

    for (digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof(text), "%.*g", digits, v);
        if (strtod(text, NULL) == v)
            break;
    }
    at = plen > 0 ? strstr(text, point) : NULL;
    if (at != NULL) {
        *at = '.';
        memmove(at + 1, at + plen, strlen(at + plen) + 1);
    }
    return mp__buf_adds(b, text);
}

int mp__json_number(struct mp__buf *b, double v)
{
    if (!isfinite(v))
        return MP_EINVAL;
    if (v == 0)
        return mp__buf_adds(b, signbit(v) ? "-0" : "0");
    if (fabs(v) < 9007199254740992.0 && v == floor(v))
        return add_integer(b, (int64_t)v);
    return add_shortest(b, v);
}

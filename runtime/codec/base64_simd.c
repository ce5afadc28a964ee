/*
 * base64_simd.c - blocks of 32 or 16 characters; method and tables after Muła and Lemire 2018.
 *
 * A character is classified by its two nibbles: two table look-ups share a bit exactly when it is
 * not of the alphabet. The high nibble (with '/' apart) also gives the offset to its 6-bit value.
 */
#include "codec/base64_simd.h"

#if MP__X86
#include <immintrin.h>

#define LOW_BITS                                                                                   \
    0x15, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x13, 0x1A, 0x1B, 0x1B, 0x1B, 0x1A
#define HIGH_BITS                                                                                  \
    0x10, 0x10, 0x01, 0x02, 0x04, 0x08, 0x04, 0x08, 0x10, 0x10, 0x10, 0x10, 0x10, 0x10, 0x10, 0x10
#define ROLL 0, 16, 19, 4, -65, -65, -71, -71, 0, 0, 0, 0, 0, 0, 0, 0
#define PACK 2, 1, 0, 6, 5, 4, 10, 9, 8, 14, 13, 12, -1, -1, -1, -1

MP__TARGET("avx2") size_t mp__b64_avx2(const uint8_t *in, size_t n, uint8_t *out, size_t cap)
{
    const __m256i low_bits = _mm256_setr_epi8(LOW_BITS, LOW_BITS);
    const __m256i high_bits = _mm256_setr_epi8(HIGH_BITS, HIGH_BITS);
    const __m256i roll_by = _mm256_setr_epi8(ROLL, ROLL);
    const __m256i pack = _mm256_setr_epi8(PACK, PACK);
    const __m256i slash = _mm256_set1_epi8(0x2F);
    size_t i, o;

    /* A store is 32 bytes wide for 24 of use. */
    for (i = 0, o = 0; n - i >= 32 && cap - o >= 32; i += 32, o += 24) {
        __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)(in + i));
        __m256i high = _mm256_and_si256(_mm256_srli_epi32(v, 4), slash);
        __m256i lo = _mm256_shuffle_epi8(low_bits, _mm256_and_si256(v, slash));
        __m256i hi = _mm256_shuffle_epi8(high_bits, high);
        __m256i roll =
            _mm256_shuffle_epi8(roll_by, _mm256_add_epi8(_mm256_cmpeq_epi8(v, slash), high));

        if (!_mm256_testz_si256(lo, hi))
            break;
        v = _mm256_add_epi8(v, roll);
        v = _mm256_maddubs_epi16(v, _mm256_set1_epi32(0x01400140));
        v = _mm256_madd_epi16(v, _mm256_set1_epi32(0x00011000));
        v = _mm256_shuffle_epi8(v, pack);
        v = _mm256_permutevar8x32_epi32(v, _mm256_setr_epi32(0, 1, 2, 4, 5, 6, 3, 7));
        _mm256_storeu_si256((__m256i *)(void *)(out + o), v);
    }
    return i;
}

MP__TARGET("ssse3") size_t mp__b64_ssse3(const uint8_t *in, size_t n, uint8_t *out, size_t cap)
{
    const __m128i low_bits = _mm_setr_epi8(LOW_BITS), high_bits = _mm_setr_epi8(HIGH_BITS);
    const __m128i roll_by = _mm_setr_epi8(ROLL), pack = _mm_setr_epi8(PACK);
    const __m128i slash = _mm_set1_epi8(0x2F), zero = _mm_setzero_si128();
    size_t i, o;

    for (i = 0, o = 0; n - i >= 16 && cap - o >= 16; i += 16, o += 12) {
        __m128i v = _mm_loadu_si128((const __m128i *)(const void *)(in + i));
        __m128i high = _mm_and_si128(_mm_srli_epi32(v, 4), slash);
        __m128i lo = _mm_shuffle_epi8(low_bits, _mm_and_si128(v, slash));
        __m128i hi = _mm_shuffle_epi8(high_bits, high);
        __m128i roll = _mm_shuffle_epi8(roll_by, _mm_add_epi8(_mm_cmpeq_epi8(v, slash), high));

        if (_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_and_si128(lo, hi), zero)) != 0xFFFF)
            break;
        v = _mm_add_epi8(v, roll);
        v = _mm_maddubs_epi16(v, _mm_set1_epi32(0x01400140));
        v = _mm_madd_epi16(v, _mm_set1_epi32(0x00011000));
        _mm_storeu_si128((__m128i *)(void *)(out + o), _mm_shuffle_epi8(v, pack));
    }
    return i;
}

/* Twelve bytes become sixteen characters; a load reads sixteen. After the same paper, section 4:
 * two multiplications move the 6-bit fields, and a look-up by range gives each its offset. */
MP__TARGET("ssse3") size_t mp__b64_encode_ssse3(char *out, const uint8_t *in, size_t n)
{
    const __m128i spread = _mm_setr_epi8(1, 0, 2, 1, 4, 3, 5, 4, 7, 6, 8, 7, 10, 9, 11, 10);
    const __m128i offset =
        _mm_setr_epi8(71, -4, -4, -4, -4, -4, -4, -4, -4, -4, -4, -19, -16, 65, 0, 0);
    size_t i;

    for (i = 0; n - i >= 16; i += 12, out += 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)(const void *)(in + i));
        __m128i a, b, range;

        v = _mm_shuffle_epi8(v, spread);
        a = _mm_mulhi_epu16(_mm_and_si128(v, _mm_set1_epi32(0x0FC0FC00)),
                            _mm_set1_epi32(0x04000040));
        b = _mm_mullo_epi16(_mm_and_si128(v, _mm_set1_epi32(0x003F03F0)),
                            _mm_set1_epi32(0x01000010));
        v = _mm_or_si128(a, b);
        range = _mm_subs_epu8(v, _mm_set1_epi8(51)); /* 0 for letters, 1..10 digits, 11, 12 */
        range = _mm_or_si128(range, _mm_and_si128(_mm_cmpgt_epi8(_mm_set1_epi8(26), v),
                                                  _mm_set1_epi8(13))); /* 13 for capitals */
        v = _mm_add_epi8(v, _mm_shuffle_epi8(offset, range));
        _mm_storeu_si128((__m128i *)(void *)out, v);
    }
    return i;
}
#endif

/*
 * half.c - float32 to IEEE half precision and back.
 */
#include "codec/cpu.h"
#include "codec/vec.h"

#include <string.h>

#if MP__X86
#include <immintrin.h>
#endif

uint16_t mp__f16_from_f32(float v)
{
    uint32_t u, sign, exp, man, half, cut;

    memcpy(&u, &v, sizeof(u));
    sign = u >> 16 & 0x8000;
    exp = u >> 23 & 0xFF;
    man = u & 0x7FFFFF;
    if (exp == 0xFF) /* a NaN stays quiet and keeps its high bits, as the hardware does */
        return (uint16_t)(sign | 0x7C00 | (man != 0 ? 0x200 | man >> 13 : 0));
    if (exp >= 143)
        return (uint16_t)(sign | 0x7C00);
    if (exp < 102)
        return (uint16_t)sign;
    if (exp >= 113) {
        half = (exp - 112) << 10 | man >> 13;
        cut = man << 19;
    } else { /* subnormal: the hidden one comes into sight */
        man |= 0x800000;
        half = man >> (126 - exp);
        cut = man << (exp - 94);
    }
    /* A carry out of the mantissa is the next exponent, up to infinity. */
    if (cut > 0x80000000u || (cut == 0x80000000u && (half & 1)))
        half++;
    return (uint16_t)(sign | half);
}

float mp__f32_from_f16(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exp = h >> 10 & 0x1F, man = h & 0x3FF, u;
    float f;

    if (exp == 0) {
        f = (float)man * 0x1p-24f;
        return sign != 0 ? -f : f;
    }
    if (exp == 31)
        u = sign | 0x7F800000 | man << 13 | (man != 0 ? 0x400000 : 0);
    else
        u = sign | (exp + 112) << 23 | man << 13;
    memcpy(&f, &u, sizeof(f));
    return f;
}

#if MP__X86
MP__TARGET("avx2,f16c") static size_t down_f16c(uint16_t *out, const float *in, size_t n)
{
    size_t i;

    for (i = 0; i + 8 <= n; i += 8) {
        __m128i h = _mm256_cvtps_ph(_mm256_loadu_ps(in + i), _MM_FROUND_TO_NEAREST_INT);

        _mm_storeu_si128((__m128i *)(void *)(out + i), h);
    }
    return i;
}

MP__TARGET("avx2,f16c") static size_t up_f16c(float *out, const uint16_t *in, size_t n)
{
    size_t i;

    for (i = 0; i + 8 <= n; i += 8)
        _mm256_storeu_ps(out + i, _mm256_cvtph_ps(_mm_loadu_si128((const void *)(in + i))));
    return i;
}
#endif

void mp__f16_from_f32_row(uint16_t *out, const float *in, size_t n)
{
    size_t i = 0;

#if MP__X86
    if (mp__simd() == MP__SIMD_AVX2)
        i = down_f16c(out, in, n);
#endif
    for (; i < n; i++)
        out[i] = mp__f16_from_f32(in[i]);
}

void mp__f32_from_f16_row(float *out, const uint16_t *in, size_t n)
{
    size_t i = 0;

#if MP__X86
    if (mp__simd() == MP__SIMD_AVX2)
        i = up_f16c(out, in, n);
#endif
    for (; i < n; i++)
        out[i] = mp__f32_from_f16(in[i]);
}

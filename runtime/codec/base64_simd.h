/*
 * base64_simd.h - whole blocks of base64; stop before the first block with another byte.
 */
#ifndef MP_CODEC_BASE64_SIMD_H
#define MP_CODEC_BASE64_SIMD_H

#include "codec/cpu.h"

#include <stddef.h>
#include <stdint.h>

/* Return the characters eaten, a multiple of 4; 3 bytes are written for each 4. */
size_t mp__b64_avx2(const uint8_t *in, size_t n, uint8_t *out, size_t cap);
size_t mp__b64_ssse3(const uint8_t *in, size_t n, uint8_t *out, size_t cap);

/* Returns the bytes eaten, a multiple of 3; 4 characters are written for each 3. */
size_t mp__b64_encode_ssse3(char *out, const uint8_t *in, size_t n);

#endif

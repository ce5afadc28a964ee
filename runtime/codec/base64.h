/*
 * base64.h - RFC 4648 base64, standard alphabet, strict, resumable at every character.
 *
 * Padding may be complete or absent, nothing in between; unused bits of the last character must be
 * zero. The SIMD forms follow Muła and Lemire, "Faster Base64 Encoding and Decoding Using AVX2
 * Instructions", ACM TWEB 12(3), 2018.
 */
#ifndef MP_CODEC_BASE64_H
#define MP_CODEC_BASE64_H

#include "moonpool.h"

#define MP__BASE64_ENCODED(n) (((n) + 2) / 3 * 4)

/* Writes MP__BASE64_ENCODED(n) characters with padding, no NUL; returns how many. */
size_t mp__base64_encode(char *out, const void *in, size_t n);

/* Whole text. out needs n / 4 * 3 + 3 bytes. 0 and *out_n, or MP_EINVAL. */
int mp__base64_decode(uint8_t *out, size_t *out_n, const char *in, size_t n);

/* Decoding state between chunks; all zero is the start. */
struct mp__b64 {
    uint32_t acc;  /* bits of an unfinished group of four */
    uint8_t have;  /* characters in it, 0..3 */
    uint8_t pads;  /* '=' seen */
    uint8_t extra; /* characters in the last group when '=' began */
};

/*
 * Decodes until the text ends, out has no room for another group, or a character that cannot
 * follow comes; returns the characters eaten and adds the bytes written to *out_n (never more than
 * cap in one call). A caller that sees fewer eaten than given looks at in[eaten]: it is either the
 * text's own end or wrong, unless cap - *written < 3.
 */
size_t mp__b64_feed(struct mp__b64 *s, const char *in, size_t n, uint8_t *out, size_t cap,
                    size_t *out_n);

/* At the end of the text: writes the last 0..2 bytes to out; 0 or MP_EINVAL. */
int mp__b64_finish(struct mp__b64 *s, uint8_t *out, size_t *out_n);

#endif

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
 * Decodes until the text ends, a character that cannot follow comes, or a group of four is about
 * to be complete with less than 3 bytes of room. Returns the characters eaten; adds the bytes
 * written to *out_n, never more than cap a call. in[eaten] tells a caller why it stopped early.
 */
size_t mp__b64_feed(struct mp__b64 *s, const char *in, size_t n, uint8_t *out, size_t cap,
                    size_t *out_n);

/* At the end of the text: writes the last have - 1 bytes (0 to 2) to out; 0 or MP_EINVAL. */
int mp__b64_finish(struct mp__b64 *s, uint8_t *out, size_t *out_n);

#endif

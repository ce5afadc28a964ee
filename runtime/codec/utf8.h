/*
 * utf8.h - the table of RFC 3629, for those who read UTF-8 byte by byte.
 */
#ifndef MP_CODEC_UTF8_H
#define MP_CODEC_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Length of the sequence that lead byte c begins and the range of its second byte; 0: cannot. */
static inline size_t mp__utf8_lead(unsigned char c, unsigned char *lo, unsigned char *hi)
{
    *lo = 0x80;
    *hi = 0xBF;
    if (c < 0x80)
        return 1;
    if (c < 0xC2 || c > 0xF4)
        return 0;
    if (c == 0xE0)
        *lo = 0xA0;
    else if (c == 0xED)
        *hi = 0x9F;
    else if (c == 0xF0)
        *lo = 0x90;
    else if (c == 0xF4)
        *hi = 0x8F;
    return c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
}

/* Whether c may stand in a text: no half of a surrogate pair, not past U+10FFFF. */
static inline int mp__utf8_is_scalar(uint32_t c)
{
    return c <= 0x10FFFF && (c < 0xD800 || c > 0xDFFF);
}

/* The character that UTF-16 writes as two halves. */
static inline uint32_t mp__utf8_pair(uint32_t high, uint32_t low)
{
    return 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
}

/* The character c, which is one, as 1 to 4 bytes; how many. */
size_t mp__utf8_put(char *out, uint32_t c);

/* Length of the valid sequence of 2 to 4 bytes at s, 0 when it is not one. n is at least 1. */
size_t mp__utf8_seq(const unsigned char *s, size_t n);

#endif

/*
 * json_write.h - JSON text out: strings with strict UTF-8, shortest numbers.
 */
#ifndef MP_CODEC_JSON_WRITE_H
#define MP_CODEC_JSON_WRITE_H

#include "base/buf.h"
#include "moonpool.h"

/*
 * Appends s[0..n) as a JSON string with its quotes. Bytes must be UTF-8 without surrogates,
 * overlong forms or values above U+10FFFF; else MP_EINVAL, *bad_at (may be NULL) is the offset of
 * the first byte of the bad sequence. On any error (also MP_ENOMEM, MP__ETOOBIG) b is unchanged.
 */
int mp__json_string(struct mp__buf *b, const char *s, size_t n, size_t *bad_at);

/*
 * Appends the shortest decimal text that reads back as the same double; integers below 2^53 have
 * no fraction and no exponent. NaN and infinities have no JSON form: MP_EINVAL.
 */
int mp__json_number(struct mp__buf *b, double v);

int mp__utf8_valid(const char *s, size_t n, size_t *bad_at); /* 0 or MP_EINVAL */

/* Unicode scalar values of valid UTF-8; of other bytes, those that are not 10xxxxxx. */
size_t mp__utf8_chars(const char *s, size_t n);

#endif

/*
 * json_find.h - one value out of a small JSON document that is known to be valid.
 */
#ifndef MP_CODEC_JSON_FIND_H
#define MP_CODEC_JSON_FIND_H

#include <stddef.h>
#include <stdint.h>

/*
 * Finds the value at a dotted path of object keys and of places in arrays ("usage.prompt_tokens",
 * "outputs.0.shape"; "" is the root). The document must be valid JSON, as mp__decoder_rest() gives it. Returns the value's first byte and
 * its length (quotes included), NULL when absent. Keys with escapes never match. First one wins.
 */
const char *mp__json_find(const char *doc, size_t n, const char *path, size_t *len);

/* The first byte alone, without looking where the value ends. */
const char *mp__json_at(const char *doc, size_t n, const char *path);

/* The same for a non-negative integer below 2^53 (a fraction is cut off); -1 when absent. */
int64_t mp__json_find_int(const char *doc, size_t n, const char *path);

#endif

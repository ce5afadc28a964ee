/*
 * float_text.h - float32 to the shortest decimal text that reads back as the same float32.
 */
#ifndef MP_CODEC_FLOAT_TEXT_H
#define MP_CODEC_FLOAT_TEXT_H

#include <stddef.h>

#define MP__FLOAT_TEXT 20 /* bytes that out must have */

/*
 * Writes v as a JSON number, no NUL, and returns its length; 0 for NaN and infinities, which JSON
 * has not. No other text with as few digits reads back as v, or lies nearer to it; trailing zeros
 * are cut. Any correctly rounding reader gets v back, whatever the locale.
 */
size_t mp__float_text(char *out, float v);

#endif

/*
 * float_text.h - float32 to decimal text that reads back as the same float32.
 */
#ifndef MP_MOCK_FLOAT_TEXT_H
#define MP_MOCK_FLOAT_TEXT_H

#include <stddef.h>

#define MP__FLOAT_TEXT 20 /* bytes that out must have */

/*
 * Writes v as a JSON number, no NUL, and returns its length; 0 for NaN and infinities, which JSON
 * has not. At most nine significant digits, seven or eight where they are enough; trailing zeros
 * cut. Any correctly rounding reader gets v back, whatever the locale.
 */
size_t mp__float_text(char *out, float v);

#endif

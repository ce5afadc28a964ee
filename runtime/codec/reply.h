/*
 * reply.h - rows of a matrix as the body of a reply, in the words of several services.
 */
#ifndef MP_CODEC_REPLY_H
#define MP_CODEC_REPLY_H

#include "base/buf.h"
#include "moonpool.h"

/*
 * Appends the body that r describes (checked already: rows inside the matrix, known style and
 * format). MP_EINVAL: a row holds NaN or infinity, *bad_row (0-based, of the reply) is the first, or
 * SIZE_MAX when the model or id is not UTF-8. On any error b is as before.
 */
int mp__reply_add(struct mp__buf *b, const struct mp_reply *r, size_t *bad_row);

#endif

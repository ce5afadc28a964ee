/*
 * front.h - the short way of a gateway: requests for embeddings of the plainest kind, answered without
 * a task and without a Lua value.
 *
 *   front.c        models learnt, calls under way, replies, counts
 *   front_read.c   the body
 *
 * Whatever is not plain is left to the handler in Lua, which is the gateway; so is every failure, with
 * the result that it had.
 */
#ifndef MP_BINDING_SERVER_FRONT_H
#define MP_BINDING_SERVER_FRONT_H

#include "binding/server/server.h"

#define MP__FRONT_ROWS 64 /* inputs of a request that takes the short way */

struct mp__front_body {
    struct mp_str model; /* p NULL: not named */
    struct mp_str rows[MP__FRONT_ROWS];
    size_t nrows;
    uint32_t format; /* enum mp_reply_format */
};

/* {"model": text, "input": text or list of texts, "encoding_format": "float" or "base64"}, in any order
 * and nothing else: 1. Texts point into p or, where they had escapes, into scratch (which may grow). */
int mp__front_read(const char *p, size_t n, struct mp__buf *scratch, struct mp__front_body *out);

#endif

/*
 * frame.h - a request without its rows as one string of bytes: to be kept, and to be compared.
 *
 * Two requests whose frames are equal may carry each other's rows. What a frame says it points to
 * lies in its own bytes.
 */
#ifndef MP_ENGINE_FRAME_H
#define MP_ENGINE_FRAME_H

#include "base/buf.h"
#include "moonpool.h"

struct mp__frame {
    struct mp_request request; /* without rows, source, callbacks */
    struct mp_vectors vectors;
    struct mp_timeouts timeouts;
    struct mp_header *headers;
    size_t n;
    char *bytes;
};

/* Whether the lengths of q's texts can be true: MP_EINVAL names the first that cannot. */
int mp__frame_check(const struct mp_request *q);
/* Appends the bytes of q's frame: 0, MP_EINVAL (a length that cannot be), MP_ENOMEM. The total timeout
 * is left out: it does not keep rows apart. */
int mp__frame_write(struct mp__buf *b, const struct mp_request *q);
/* Takes the bytes over from b; q is what was written at its beginning. 0 or MP_ENOMEM. */
int mp__frame_take(struct mp__frame *f, struct mp__buf *b, const struct mp_request *q);
void mp__frame_free(struct mp__frame *f);

#endif

#include "engine/frame.h"

#include "engine/internal.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define NO_STRING UINT64_MAX
#define KEPT_FLAGS                                                                                 \
    (MP_NO_SPLIT | MP_ONE_REQUEST | MP_IDEMPOTENT | MP_NO_HEADERS | MP_BIG_REPLY | MP_HELD |       \
     MP_SERVICE_PATH)

static const size_t strings[] = {offsetof(struct mp_request, method),
                                 offsetof(struct mp_request, path),
                                 offsetof(struct mp_request, model)};

static const size_t spans[] = {
    offsetof(struct mp_request, prefix),     offsetof(struct mp_request, suffix),
    offsetof(struct mp_request, row_prefix), offsetof(struct mp_request, row_suffix),
    offsetof(struct mp_request, tail),
};

static const size_t vector_strings[] = {
    offsetof(struct mp_vectors, list),   offsetof(struct mp_vectors, vector),
    offsetof(struct mp_vectors, index),  offsetof(struct mp_vectors, header),
    offsetof(struct mp_vectors, tokens), offsetof(struct mp_vectors, cut),
    offsetof(struct mp_vectors, dims),   offsetof(struct mp_vectors, kind),
    offsetof(struct mp_vectors, usage),  offsetof(struct mp_vectors, tokens_header),
};

#define MOST     (UINT64_C(1) << 40) /* bytes; a length above it is a mistake, not a request */
#define COUNT(a) (sizeof(a) / sizeof(*(a)))

int mp__frame_check(const struct mp_request *q)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < COUNT(spans); i++) {
        struct mp_str s;
        memcpy(&s, (const char *)q + spans[i], sizeof(s));
        if (s.n > MOST || (s.n > 0 && s.p == NULL))
            return mp__fail(MP_EINVAL, "prefix, suffix or tail: no bytes, or an impossible length");
    }
    for (size_t i = 0; q->rows != NULL && i < q->nrows; i++) {
        sum += q->rows[i].n > MOST ? MOST + 1 : q->rows[i].n;
        if (sum > MOST || (q->rows[i].n > 0 && q->rows[i].p == NULL))
            return mp__fail(MP_EINVAL, "row %zu: no bytes, or an impossible length", i + 1);
    }
    return 0;
}

static const char *string_at(const void *base, size_t offset)
{
    const char *s = NULL;
    memcpy(&s, (const char *)base + offset, sizeof(s));
    return s;
}

static int put_bytes(struct mp__buf *b, const char *p, size_t n)
{
    uint64_t len = p != NULL ? n : NO_STRING;
    int rc = mp__buf_add(b, &len, sizeof(len));
    if (rc == 0 && p != NULL)
        rc = mp__buf_add(b, p, n);
    return rc == 0 ? mp__buf_addc(b, '\0') : rc;
}

static int put_string(struct mp__buf *b, const char *s)
{
    return put_bytes(b, s, s != NULL ? strlen(s) : 0);
}

static int put_scalars(struct mp__buf *b, const struct mp_request *q)
{
    uint64_t nheaders = q->nheaders;
    uint32_t v[] = {q->mode,
                    q->row_style,
                    (uint32_t)q->optional_at,
                    (uint32_t)q->optional_n,
                    q->flags & KEPT_FLAGS,
                    q->vectors != NULL,
                    q->vectors != NULL ? q->vectors->dtype : 0,
                    q->vectors != NULL ? q->vectors->dimensions : 0,
                    q->vectors != NULL ? q->vectors->layout : 0};
    struct mp_timeouts t = {0};
    if (q->timeouts != NULL)
        t = *q->timeouts;
    t.total = 0;
    int rc = mp__buf_add(b, v, sizeof(v));
    rc |= mp__buf_add(b, &nheaders, sizeof(nheaders));
    rc |= mp__buf_add(b, &q->policy, sizeof(q->policy));
    rc |= mp__buf_add(b, &q->hooks, sizeof(q->hooks));
    return rc | mp__buf_add(b, &t, sizeof(t));
}

int mp__frame_write(struct mp__buf *b, const struct mp_request *q)
{
    /* At once what most need: growing step by step costs more than all the rest. */
    int rc = mp__buf_reserve(b, 640 + q->prefix.n + q->suffix.n);
    for (size_t i = 0; i < COUNT(strings); i++)
        rc |= put_string(b, string_at(q, strings[i]));
    for (size_t i = 0; i < COUNT(spans); i++) {
        struct mp_str s;
        memcpy(&s, (const char *)q + spans[i], sizeof(s));
        rc |= put_bytes(b, s.p, s.n);
    }
    for (size_t i = 0; q->vectors != NULL && i < COUNT(vector_strings); i++)
        rc |= put_string(b, string_at(q->vectors, vector_strings[i]));
    rc |= put_scalars(b, q);
    for (size_t i = 0; i < q->nheaders; i++)
        rc |= put_string(b, q->headers[i].name) | put_string(b, q->headers[i].value);
    return rc == 0 ? 0 : MP_ENOMEM;
}

static const char *next(const char **p, size_t *n)
{
    uint64_t len = 0;
    memcpy(&len, *p, sizeof(len));
    const char *s = *p + sizeof(len);
    *n = len == NO_STRING ? 0 : (size_t)len;
    *p = s + *n + 1;
    return len == NO_STRING ? NULL : s;
}

static void read_strings(void *to, const size_t *offsets, size_t count, const char **p)
{
    size_t n = 0;
    for (size_t i = 0; i < count; i++) {
        const char *s = next(p, &n);
        memcpy((char *)to + offsets[i], &s, sizeof(s));
    }
}

static const char *scalars_end(const char *p)
{
    return p + 9 * sizeof(uint32_t) + sizeof(uint64_t) + 2 * sizeof(void *) +
           sizeof(struct mp_timeouts);
}

int mp__frame_take(struct mp__frame *f, struct mp__buf *b, const struct mp_request *q)
{
    memset(f, 0, sizeof(*f));
    f->headers = calloc(q->nheaders + 1, sizeof(*f->headers));
    f->bytes = f->headers != NULL ? mp__buf_take(b, &f->n) : NULL;
    if (f->bytes == NULL) {
        free(f->headers);
        return MP_ENOMEM;
    }
    const char *p = f->bytes;
    struct mp_request *r = &f->request;
    r->size = sizeof(*r);
    r->mode = q->mode;
    r->row_style = q->row_style;
    r->flags = q->flags & KEPT_FLAGS;
    r->optional_at = q->optional_at;
    r->optional_n = q->optional_n;
    r->max_concurrent = q->max_concurrent;
    r->policy = q->policy;
    r->hooks = q->hooks;
    read_strings(r, strings, COUNT(strings), &p);
    for (size_t i = 0; i < COUNT(spans); i++) {
        struct mp_str s;
        s.p = next(&p, &s.n);
        memcpy((char *)r + spans[i], &s, sizeof(s));
    }
    if (q->vectors != NULL) {
        f->vectors = *q->vectors;
        read_strings(&f->vectors, vector_strings, COUNT(vector_strings), &p);
        r->vectors = &f->vectors;
    }
    if (q->timeouts != NULL) {
        f->timeouts = *q->timeouts;
        r->timeouts = &f->timeouts;
    }
    p = scalars_end(p);
    for (size_t i = 0; i < q->nheaders; i++) {
        size_t n = 0;
        f->headers[i].name = next(&p, &n);
        f->headers[i].value = next(&p, &n);
    }
    r->headers = f->headers;
    r->nheaders = q->nheaders;
    return 0;
}

void mp__frame_free(struct mp__frame *f)
{
    free(f->headers);
    free(f->bytes);
    memset(f, 0, sizeof(*f));
}

/*
 * codec_decode_rig.h - a decoder whose rows land in a fixed sink.
 */
#ifndef CODEC_DECODE_RIG_H
#define CODEC_DECODE_RIG_H

#include "codec/decode.h"
#include "codec_util.h"

#define MAX_ITEMS 8
#define MAX_DIM   64

static const struct mp__shape openai = {"data", "embedding", "index", MP__F32};
struct sink {
    float rows[MAX_ITEMS][MAX_DIM];
    unsigned calls[MAX_ITEMS];
    uint32_t dim;
    int fail;
};

static inline float *row(void *arg, uint32_t item, uint32_t dim)
{
    struct sink *s = arg;

    assert_true(item < MAX_ITEMS && dim <= MAX_DIM);
    s->calls[item]++;
    s->dim = dim;
    return s->fail ? NULL : s->rows[item];
}

static inline struct mp__decoder *start(struct sink *s, const struct mp__shape *shape,
                                        uint32_t items, uint32_t dim)
{
    struct mp__decoder_cfg cfg = {shape, items, dim, 0, 0, row, s};
    struct mp__decoder *d;

    memset(s, 0, sizeof(*s));
    d = mp__decoder_new(&cfg);
    assert_non_null(d);
    return d;
}

/* Each chunk in its own allocation, so that reading past it is seen. */
static inline int feed_copy(struct mp__decoder *d, const char *p, size_t n)
{
    char *copy = malloc(n != 0 ? n : 1);
    int rc;

    memcpy(copy, p, n);
    rc = mp__decoder_feed(d, copy, n);
    free(copy);
    return rc;
}

#endif

/*
 * decode.h - the streaming decoder of vector replies.
 *
 * Fed a reply in chunks of any size, it writes the vectors straight to float32 rows and keeps only
 * the rest of the document. The grammar is strict JSON everywhere. Where the vectors are is data
 * (struct mp__shape). Memory: the rest (bounded), one scratch row, one bit an item.
 *
 * A reply is wrong as a whole when it is no JSON, holds no list, or contradicts itself (an index
 * twice, more items than were sent). A vector that is wrong costs its own row only: that is a fault,
 * and the decoder goes on behind it. Positions that items do not name are the items' order.
 */
#ifndef MP_CODEC_DECODE_H
#define MP_CODEC_DECODE_H

#include "moonpool.h"

#define MP__EDECODE     (-22) /* the reply is wrong; mp__decoder_error() says how */
#define MP__MAX_NESTING 32
#define MP__MODEL_DIMS  4 /* no model's vectors have fewer: of those little can be suspected */

enum mp__dtype {
    MP__F32 = 0, /* numbers, or base64 of little-endian float32 */
    MP__I8,      /* numbers -128..127, or base64 of signed bytes */
    MP__U8,      /* numbers 0..255, or base64 of bytes */
    MP__BITS,    /* bytes 0..255 of packed bits, highest first, become 8 values +1 or -1 */
    MP__BITS_I8  /* the same less 128 ("binary" of Cohere and Voyage) */
};

enum mp__layout {
    MP__LIST = 0, /* a list of vectors, or of objects that hold them */
    MP__ONE,      /* what stands at the list's path is itself the one vector */
    MP__TENSOR, /* a list of vectors, or of all their numbers in a row; or, with a header that says
                     how long the JSON is, the numbers as bytes behind it (KServe's binary tensors) */
    MP__PACKED  /* vectors as bytes, their places in a header (vLLM); without it as MP__LIST */
};

/*
 * Where the vectors are in a reply. Paths are dotted; a number in one is a place in an array. The
 * strings must outlive the decoder's use of them.
 */
struct mp__shape {
    const char *list;   /* path of the list: "data", "" (the root), "a.b|a.c" alternatives */
    const char *vector; /* path of the vector in an item object; NULL: the item is the vector */
    const char *index;  /* the same of the item's 0-based position; NULL: positional. An item
                           without it stands where it comes */
    int dtype;          /* enum mp__dtype */
    int layout;         /* enum mp__layout */
    const char *tokens; /* path of an item's count of tokens in its object; NULL: none */
    const char *cut;    /* path of an item's "was truncated": true; NULL: none */
    const char *dims;   /* MP__TENSOR: path of the list of its sizes, checked where it is there */
    const char *kind;   /* MP__TENSOR: path of the name of its type ("FP32"), of bytes */
    const char *usage;  /* path of the request's count of tokens; NULL: the well-known places */
};

struct mp__decoder_cfg {
    const struct mp__shape *shape;
    uint32_t items;   /* how many vectors must come */
    uint32_t dim;     /* expected dimension, 0: learn it: that of the first two that agree */
    uint32_t max_dim; /* that may be learnt, default 1 << 16 */
    size_t max_rest;  /* bytes kept of the rest, default 1 MiB */

    /*
     * Where vector `item` (0-based in the reply) of `dim` floats goes; NULL: out of memory, or
     * another dimension holds by now, which mp__decoder_expect has been told. Called once an item.
     * The row may be written while the item is still arriving, so after an error or a fault it may
     * hold half a vector.
     */
    float *(*row)(void *arg, uint32_t item, uint32_t dim);
    void *arg;
    uint8_t zeros; /* vectors of nothing but zeros are taken, else they are a fault of their rows */
};

struct mp__decoder;

struct mp__decoder *mp__decoder_new(const struct mp__decoder_cfg *cfg); /* NULL: out of memory */
void mp__decoder_free(struct mp__decoder *d);                           /* NULL is fine */
int mp__decoder_reset(struct mp__decoder *d, const struct mp__decoder_cfg *cfg); /* or MP_ENOMEM */

/* Before the first feed: the value of the header that tells how the body is laid out, as the shape's
 * layout has it. 0, MP__EDECODE or MP_ENOMEM. */
int mp__decoder_header(struct mp__decoder *d, const char *value, size_t n);

/* 0, MP__EDECODE or MP_ENOMEM; an error stays. cfg.row is called from here. */
int mp__decoder_feed(struct mp__decoder *d, const char *p, size_t n);
int mp__decoder_finish(struct mp__decoder *d); /* the body has ended: is everything there? */

const char *mp__decoder_error(const struct mp__decoder *d); /* "" while there is none */

/* From within cfg.row: what the dimension is. */
void mp__decoder_expect(struct mp__decoder *d, uint32_t dim);

/* After a good finish, the rows without a vector: how many, and the k-th with its reason in words.
 * At least one row has a vector; a reply with none is wrong as a whole. */
uint32_t mp__decoder_faults(const struct mp__decoder *d);
uint32_t mp__decoder_missing(const struct mp__decoder *d); /* of them, rows without an item */
uint32_t mp__decoder_fault(const struct mp__decoder *d, uint32_t k, char *why, size_t cap);

uint32_t mp__decoder_dim(const struct mp__decoder *d);   /* 0 until known */
uint32_t mp__decoder_items(const struct mp__decoder *d); /* vectors complete so far */
uint32_t mp__decoder_cuts(const struct mp__decoder *d);  /* items said to have been truncated */

/* The document with the list as [], compact; valid JSON after a good finish. Not NUL-ended. */
const char *mp__decoder_rest(const struct mp__decoder *d, size_t *n);

/* After finish: -1 where absent. The items' own counts, else what the rest says: at shape.usage, or
 * by OpenAI's, Cohere's and Jina's names. */
void mp__decoder_usage(const struct mp__decoder *d, int64_t *prompt, int64_t *total);
const char *mp__decoder_model(const struct mp__decoder *d, size_t *n); /* NULL when absent */

#endif

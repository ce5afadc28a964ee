/*
 * ragged.h - rows of as many vectors each as they like: one a token (ColBERT, TEI's /embed_all), or
 * the few weights of a sparse vector (TEI's /embed_sparse, Pinecone).
 *
 * All vectors stand in one matrix; offsets say which are whose. A sparse row is a run of numbers (a
 * matrix of one column) with the place of each in `indices`, ascending.
 */
#ifndef MP_CODEC_RAGGED_H
#define MP_CODEC_RAGGED_H

#include "moonpool.h"

#define MP__RAGGED_MAX ((size_t)1 << 31) /* numbers in all */

struct mp__ragged {
    mp_matrix *vectors;
    size_t rows;
    uint64_t *offsets; /* rows + 1; row r has the vectors offsets[r] .. offsets[r + 1] - 1 */
    uint32_t *indices; /* sparse: one for each number; NULL: dense */
};

/* Takes over all three also where it fails: offsets that do not fit, indices out of order within a
 * row. NULL: that, or out of memory. */
struct mp__ragged *mp__ragged_new(mp_matrix *vectors, size_t rows, uint64_t *offsets,
                                  uint32_t *indices);
void mp__ragged_free(struct mp__ragged *r);

/*
 * The k best rows for a query of n vectors, best first, equal ones by lower row: for each vector of
 * the query the best dot product with one of the row's, summed ("maxsim"). Rows without vectors are
 * skipped. Returns how many; idx[k] and score[k] are filled.
 */
size_t mp__ragged_topk(const struct mp__ragged *r, const float *query, size_t n, size_t k,
                       size_t *idx, float *score);
/* The same for a sparse query: the sum of the products where both have a number. */
size_t mp__ragged_topk_sparse(const struct mp__ragged *r, const uint32_t *indices,
                              const float *values, size_t n, size_t k, size_t *idx, float *score);

/* ---- out of replies ---- */

enum mp__ragged_form {
    MP__RAGGED_LISTS = 0, /* a row is a list of vectors; or, with `numbers`, of objects that hold a
                             vector there, and at `places` its position in the row */
    MP__RAGGED_PAIRS,     /* a row is a list of objects with a place and a number */
    MP__RAGGED_ARRAYS     /* a row has a list of places and a list of numbers */
};

struct mp__ragged_shape { /* paths as in struct mp__shape */
    const char *list;
    const char *index;   /* of an item's position; NULL: in order */
    const char *vectors; /* in an item: its vectors or pairs; NULL: the item itself */
    const char *places;  /* key of the place in a pair, or path of the list of places */
    const char *numbers; /* the same of the numbers */
    int form;            /* enum mp__ragged_form */
};

struct mp__ragged_build;
struct mp__ragged_build *mp__ragged_build_new(size_t rows); /* NULL: out of memory */
void mp__ragged_build_free(struct mp__ragged_build *b);

/* Rows first .. first + count - 1 out of a reply, all of them. 0; MP_ENOMEM; or MP_EINVAL with the
 * reason in err[cap], and those rows are as if they had not been read. */
int mp__ragged_read(struct mp__ragged_build *b, const struct mp__ragged_shape *shape,
                    const char *body, size_t n, size_t first, size_t count, char *err, size_t cap);
/* What was read; rows that were not have no vectors. NULL: out of memory. The builder stays. */
struct mp__ragged *mp__ragged_done(const struct mp__ragged_build *b);

#endif

/*
 * vec.h - arithmetic on float32 rows; AVX2+FMA, SSE or plain C chosen at run time.
 */
#ifndef MP_CODEC_VEC_H
#define MP_CODEC_VEC_H

#include "moonpool.h"

/* Rows need no alignment. Sums are pairwise by lane, so levels may differ in the last bits. */
float mp__dot(const float *a, const float *b, size_t n);

/* Scales the row to length 1 and returns its old length; a zero or non-finite row stays as it is. */
float mp__normalize(float *row, size_t n);

/* 0, or MP_EINVAL when some element is NaN or infinite; *bad_at (may be NULL) is the first one. */
int mp__finite(const float *p, size_t n, size_t *bad_at);

enum { MP__TOPK_DOT = 0, MP__TOPK_COSINE = 1 };

/*
 * The k best rows by dot product or cosine with query[cols], best first, equal scores by lower
 * row. Rows whose score is NaN are skipped, so fewer than k may come back: the count is returned.
 * idx[k] are 0-based rows, score[k] theirs; O(rows * (cols + log k)), no allocation.
 */
size_t mp__topk(mp_matrix *m, const float *query, size_t k, int metric, size_t *idx, float *score);

/* IEEE half precision, round to nearest even; overflow gives infinity, NaN stays NaN. */
uint16_t mp__f16_from_f32(float v);
float mp__f32_from_f16(uint16_t h);
void mp__f16_from_f32_row(uint16_t *out, const float *in, size_t n);
void mp__f32_from_f16_row(float *out, const uint16_t *in, size_t n);

#endif

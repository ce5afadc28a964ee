/*
 * ragged.c - the ragged matrix and the search over it.
 */
#include "codec/ragged.h"

#include "codec/vec.h"

#include <stdlib.h>

static int offsets_fit(const struct mp__ragged *r)
{
    size_t i;

    if (r->offsets[0] != 0 || r->offsets[r->rows] != mp_matrix_rows(r->vectors))
        return 0;
    for (i = 0; i < r->rows; i++)
        if (r->offsets[i] > r->offsets[i + 1])
            return 0;
    return 1;
}

static int indices_ascend(const struct mp__ragged *r)
{
    uint64_t i;
    size_t row;

    for (row = 0; row < r->rows; row++)
        for (i = r->offsets[row] + 1; i < r->offsets[row + 1]; i++)
            if (r->indices[i] <= r->indices[i - 1])
                return 0;
    return 1;
}

struct mp__ragged *mp__ragged_new(mp_matrix *vectors, size_t rows, uint64_t *offsets,
                                  uint32_t *indices)
{
    struct mp__ragged *r = malloc(sizeof(*r));

    if (r == NULL) {
        mp_matrix_unref(vectors);
        free(offsets);
        free(indices);
        return NULL;
    }
    *r = (struct mp__ragged){vectors, rows, offsets, indices};
    if (!offsets_fit(r) ||
        (indices != NULL && (mp_matrix_cols(vectors) > 1 || !indices_ascend(r)))) {
        mp__ragged_free(r);
        return NULL;
    }
    return r;
}

void mp__ragged_free(struct mp__ragged *r)
{
    if (r == NULL)
        return;
    mp_matrix_unref(r->vectors);
    free(r->offsets);
    free(r->indices);
    free(r);
}

/* ---- search ------------------------------------------------------------------------------------ */

/* Into the k best so far, in order; k is small and most rows fall at the first comparison. */
static size_t keep(size_t row, float score, size_t k, size_t *idx, float *best, size_t n)
{
    size_t i;

    if (k == 0 || score != score || (n == k && score <= best[n - 1]))
        return n;
    i = n < k ? n++ : n - 1;
    for (; i > 0 && best[i - 1] < score; i--) {
        best[i] = best[i - 1];
        idx[i] = idx[i - 1];
    }
    best[i] = score;
    idx[i] = row;
    return n;
}

static float maxsim(const float *row, size_t vectors, const float *query, size_t n, size_t cols)
{
    float sum = 0, best, dot;
    size_t q, v;

    for (q = 0; q < n; q++) {
        best = mp__dot(row, query + q * cols, cols);
        for (v = 1; v < vectors; v++) {
            dot = mp__dot(row + v * cols, query + q * cols, cols);
            best = dot > best ? dot : best;
        }
        sum += best;
    }
    return sum;
}

size_t mp__ragged_topk(const struct mp__ragged *r, const float *query, size_t n, size_t k,
                       size_t *idx, float *score)
{
    size_t cols = mp_matrix_cols(r->vectors), row, found = 0;
    const float *data = mp_matrix_data(r->vectors);

    for (row = 0; row < r->rows; row++) {
        uint64_t from = r->offsets[row];
        size_t vectors = (size_t)(r->offsets[row + 1] - from);

        if (vectors > 0 && n > 0)
            found = keep(row, maxsim(data + from * cols, vectors, query, n, cols), k, idx, score,
                         found);
    }
    return found;
}

size_t mp__ragged_topk_sparse(const struct mp__ragged *r, const uint32_t *indices,
                              const float *values, size_t n, size_t k, size_t *idx, float *score)
{
    const float *data = mp_matrix_data(r->vectors);
    size_t row, q, found = 0;

    for (row = 0; row < r->rows; row++) {
        uint64_t i = r->offsets[row], end = r->offsets[row + 1];
        float sum = 0;

        if (i == end)
            continue;
        for (q = 0; q < n && i < end;) {
            if (r->indices[i] < indices[q])
                i++;
            else if (r->indices[i] > indices[q])
                q++;
            else
                sum += data[i++] * values[q++];
        }
        found = keep(row, sum, k, idx, score, found);
    }
    return found;
}

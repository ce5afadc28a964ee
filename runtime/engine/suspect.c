/*
 * suspect.c - replies that are well formed and cannot be true: one vector for texts that differ. A
 * gateway that joins a list into one text answers so, and a model that failed to load.
 *
 * Texts differ here by their letters and digits: models fold case, accents and what they do not know,
 * and cut what is too long, so that others may have one vector with good reason.
 */
#include "engine/internal.h"

#include <string.h>

#define LOOKED_AT 1024 /* letters; behind them a model may have cut */

static int letter(const char **p, const char *end)
{
    for (; *p < end; (*p)++) {
        char c = **p;
        if (c >= 'A' && c <= 'Z')
            c = (char)(c + 32);
        if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9')) {
            (*p)++;
            return c;
        }
    }
    return 0;
}

static int differ(const struct mp_str *a, const struct mp_str *b)
{
    const char *p = a->p, *q = b->p;
    for (int i = 0; i < LOOKED_AT; i++) {
        int c = letter(&p, a->p + a->n);
        int e = letter(&q, b->p + b->n);
        if (c != e)
            return 1;
        if (c == 0)
            return 0;
    }
    return 0;
}

static const float *row_of(const struct mp__attempt *a, uint32_t i)
{
    size_t dim = a->is_hedge ? a->scratch_dim : a->call->result->dimensions;
    const float *base =
        a->is_hedge ? a->scratch : mp_matrix_data(a->call->result->matrix) + a->part->first * dim;
    return base + (size_t)i * dim;
}

static int same_vector(const float *a, const float *b, size_t dim)
{
    return memcmp(a, b, dim * sizeof(float)) == 0;
}

/* A reply of one row is held against the first such of the call. */
static int same_as_witness(const struct mp__attempt *a, size_t dim)
{
    struct mp__call *call = a->call;
    uint64_t row = a->part->first;
    if (call->witness == 0 || call->witness == row + 1) {
        call->witness = a->is_hedge ? 0 : row + 1;
        return 0;
    }
    const float *other = mp_matrix_data(call->result->matrix) + (call->witness - 1) * dim;
    if (!same_vector(row_of(a, 0), other, dim)) {
        call->varied = 1;
        return 0;
    }
    return differ(&call->rows[row], &call->rows[call->witness - 1]);
}

int mp__same_for_all(const struct mp__attempt *a)
{
    struct mp__call *call = a->call;
    size_t dim = call->result->dimensions;
    if (call->varied || call->flags & MP_TRUST || call->mode != MP_BODY_JOIN ||
        dim < MP__MODEL_DIMS || call->vectors.dtype != MP_F32 ||
        mp__decoder_faults(a->decoder) > 0 ||
        (a->is_hedge && (a->scratch == NULL || a->scratch_dim != dim)))
        return 0;
    if (a->part->count == 1)
        return same_as_witness(a, dim);
    const float *first = row_of(a, 0);
    int other_text = 0;
    for (uint32_t i = 1; i < a->part->count; i++) {
        if (!same_vector(first, row_of(a, i), dim)) {
            call->varied = 1;
            return 0;
        }
        other_text |= differ(&call->rows[a->part->first], &call->rows[a->part->first + i]);
    }
    return other_text;
}

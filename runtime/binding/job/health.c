/*
 * health.c - what can be told of vectors while they pass: none of it needs to know what they mean.
 */
#include "binding/job/part.h"
#include "codec/vec.h"

#include <math.h>
#include <string.h>

static void count_norm(struct mp__health *h, double norm)
{
    int bin = 0;

    if (h->rows == h->zero + h->bad + 1 || norm < h->norm_min)
        h->norm_min = norm;
    if (norm > h->norm_max)
        h->norm_max = norm;
    h->norm_sum += norm;
    h->norm_squares += norm * norm;
    frexp(norm, &bin); /* norm = m * 2^bin, 0.5 <= m < 1 */
    bin = bin - 1 + MP__HEALTH_BINS / 2;
    h->norms[bin < 0 ? 0 : bin >= MP__HEALTH_BINS ? MP__HEALTH_BINS - 1 : bin]++;
}

void mp__health_row(struct mp__health *h, struct mp__sound *s, const float *row, size_t cols,
                    uint64_t vector, uint64_t text)
{
    double square = mp__dot(row, row, cols);
    size_t slot = (size_t)(vector % MP__HEALTH_SLOTS);

    h->rows++;
    if (!isfinite(square)) {
        h->bad++;
        return;
    }
    if (square == 0) {
        h->zero++;
        return;
    }
    count_norm(h, sqrt(square));
    if (s == NULL)
        return;
    if (s->slots[slot].vector == vector && s->slots[slot].text != text)
        h->same++;
    s->slots[slot].vector = vector;
    s->slots[slot].text = text;
}

void mp__health_add(struct mp__health *to, const struct mp__health *from)
{
    int first = to->rows == to->zero + to->bad;

    if (from->rows > from->zero + from->bad) {
        if (first || from->norm_min < to->norm_min)
            to->norm_min = from->norm_min;
        if (from->norm_max > to->norm_max)
            to->norm_max = from->norm_max;
    }
    to->rows += from->rows;
    to->zero += from->zero;
    to->bad += from->bad;
    to->same += from->same;
    to->norm_sum += from->norm_sum;
    to->norm_squares += from->norm_squares;
    for (int i = 0; i < MP__HEALTH_BINS; i++)
        to->norms[i] += from->norms[i];
}

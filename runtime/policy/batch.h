/*
 * batch.h - how many rows the next request carries: greedy, in input order. A batch closes when it
 * has `size` rows or the next row would pass a limit; a total exactly at a limit is allowed; a row
 * that alone passes one goes alone.
 */
#ifndef MP_POLICY_BATCH_H
#define MP_POLICY_BATCH_H

#include "moonpool.h"

#include <stddef.h>
#include <stdint.h>

struct mpp_cost {
    uint64_t chars; /* Unicode scalar values */
    uint64_t bytes;
    double tokens;
};

struct mpp_batch_sum { /* of the rows taken */
    uint64_t chars, bytes;
    double tokens;
};

/* The cost of a row; not 0: the row cannot be sent, the batch ends before it. */
typedef int mpp_cost_fn(void *arg, uint64_t row, struct mpp_cost *out);

/* How many of the rows [first, first + nrows) make the next batch; 0: there are none, or the cost
 * of the first was refused. Looks at one row more than it takes. sum may be NULL. */
uint32_t mpp_batch_take(const struct mp_batch_policy *policy, mpp_cost_fn *cost, void *arg,
                        uint64_t first, uint64_t nrows, struct mpp_batch_sum *sum);

/* Does a row fit behind `rows` rows that cost `sum`? */
int mpp_batch_fits(const struct mp_batch_policy *policy, const struct mpp_batch_sum *sum,
                   uint32_t rows, const struct mpp_cost *row);

/* floor(log2(x)) + 1; 0 for less than 1: the size class of a part of so many tokens. */
uint32_t mpp_size_class(double x);

#endif

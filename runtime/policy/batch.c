#include "policy/batch.h"

#include "policy/core.h"

static uint32_t most(const struct mp_batch_policy *p)
{
    return p->size ? p->size : MPP_BATCH_ROWS;
}

int mpp_batch_fits(const struct mp_batch_policy *p, const struct mpp_batch_sum *sum, uint32_t rows,
                   const struct mpp_cost *row)
{
    if (rows == 0)
        return 1;
    if (rows >= most(p))
        return 0;
    /* Written as subtractions: a cost may be UINT64_MAX. */
    if (p->chars && (sum->chars > p->chars || row->chars > p->chars - sum->chars))
        return 0;
    if (p->bytes && (sum->bytes > p->bytes || row->bytes > p->bytes - sum->bytes))
        return 0;
    return !(p->tokens && sum->tokens + row->tokens > (double)p->tokens + 1e-6);
}

static uint64_t add(uint64_t a, uint64_t b)
{
    return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

uint32_t mpp_batch_take(const struct mp_batch_policy *policy, mpp_cost_fn *cost, void *arg,
                        uint64_t first, uint64_t nrows, struct mpp_batch_sum *out)
{
    struct mpp_batch_sum sum = {0};
    struct mpp_cost row;
    uint32_t n = 0;

    for (; n < nrows && n < UINT32_MAX; n++) {
        row = (struct mpp_cost){0};
        /* A full batch need not look: the row may be dear to measure. */
        if (n >= most(policy) || cost(arg, first + n, &row) != 0 ||
            !mpp_batch_fits(policy, &sum, n, &row))
            break;
        sum.chars = add(sum.chars, row.chars);
        sum.bytes = add(sum.bytes, row.bytes);
        sum.tokens += row.tokens;
    }
    if (out != NULL)
        *out = sum;
    return n;
}

uint32_t mpp_size_class(double x)
{
    uint32_t k = 0;

    for (; x >= 1 && k < 64; x /= 2)
        k++;
    return k;
}

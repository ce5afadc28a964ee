/*
 * decode_known.c - what a decoder knows of its reply: errors, dimension, usage, model.
 */
#include "codec/decode.h"
#include "codec/internal.h"
#include "codec/json_find.h"

const char *mp__decoder_error(const struct mp__decoder *d)
{
    return d->error;
}

void mp__decoder_expect(struct mp__decoder *d, uint32_t dim)
{
    d->dim = dim;
}

uint32_t mp__decoder_dim(const struct mp__decoder *d)
{
    return d->dim;
}

uint32_t mp__decoder_items(const struct mp__decoder *d)
{
    return d->done;
}

uint32_t mp__decoder_cuts(const struct mp__decoder *d)
{
    return d->cuts;
}

const char *mp__decoder_rest(const struct mp__decoder *d, size_t *n)
{
    *n = d->rest.n;
    return d->rest.p != NULL ? d->rest.p : "";
}

static int64_t first_int(const struct mp__decoder *d, const char *const *paths)
{
    int64_t v = -1;

    for (; *paths != NULL && v < 0; paths++)
        v = mp__json_find_int(d->rest.p, d->rest.n, *paths);
    return v;
}

void mp__decoder_usage(const struct mp__decoder *d, int64_t *prompt, int64_t *total)
{
    static const char *const prompts[] = {"usage.prompt_tokens", "meta.billed_units.input_tokens",
                                          "usage.input_tokens", "meta.tokens.input_tokens", NULL};
    static const char *const totals[] = {"usage.total_tokens", "usage.tokens", NULL};

    *prompt = *total = -1;
    if (d->counted)
        *prompt = d->tokens;
    if (d->rest.n == 0 || d->state != END)
        return; /* the look-up trusts the document */
    if (d->cfg.shape->usage != NULL && *prompt < 0)
        *prompt = mp__json_find_int(d->rest.p, d->rest.n, d->cfg.shape->usage);
    if (*prompt >= 0)
        return;
    *prompt = first_int(d, prompts);
    *total = first_int(d, totals);
}

const char *mp__decoder_model(const struct mp__decoder *d, size_t *n)
{
    const char *p;

    if (d->rest.n == 0 || d->state != END)
        return NULL;
    p = mp__json_find(d->rest.p, d->rest.n, "model", n);
    if (p == NULL || *p != '"')
        return NULL;
    *n -= 2;
    return p + 1;
}

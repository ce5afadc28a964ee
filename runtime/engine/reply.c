/* reply.c - mp_reply_write: the checks in front of codec/reply.c. */
#include "codec/reply.h"
#include "engine/internal.h"

#include <stdlib.h>

static int check(const struct mp_reply *r)
{
    if (r == NULL || r->size < sizeof(*r))
        return mp__fail(MP_EINVAL, "reply: size is not set");
    if (r->matrix == NULL)
        return mp__fail(MP_EINVAL, "reply: matrix is missing");
    if (r->style > MP_REPLY_OLLAMA || r->format > MP_FORMAT_BYTES)
        return mp__fail(MP_EINVAL, "reply: unknown %s",
                        r->style > MP_REPLY_OLLAMA ? "style" : "format");
    if (r->format == MP_FORMAT_BASE64 && r->style != MP_REPLY_OPENAI && r->style != MP_REPLY_COHERE)
        return mp__fail(MP_EINVAL, "reply: this style has no base64");
    size_t rows = mp_matrix_rows(r->matrix);
    for (size_t i = 0; r->rows != NULL && i < r->nrows; i++)
        if (r->rows[i] >= rows)
            return mp__fail(MP_EINVAL, "reply: rows[%zu] is %zu, of a matrix with %zu rows", i,
                            r->rows[i], rows);
    if (r->rows == NULL && (r->first > rows || r->nrows > rows - r->first))
        return mp__fail(MP_EINVAL, "reply: %zu rows from %zu on, of a matrix with %zu", r->nrows,
                        r->first, rows);
    return 0;
}

int mp_reply_write(const struct mp_reply *reply, char **out, size_t *n)
{
    size_t bad_row;
    if (check(reply) != 0)
        return MP_EINVAL;
    if (out == NULL || n == NULL)
        return mp__fail(MP_EINVAL, "reply: nowhere to write to");
    struct mp_reply r = *reply;
    if (r.rows == NULL && r.nrows == 0)
        r.nrows = mp_matrix_rows(r.matrix) - r.first;
    struct mp__buf b;
    mp__buf_init(&b, 0);
    int err = mp__reply_add(&b, &r, &bad_row);
    if (err == MP_EINVAL && bad_row == SIZE_MAX)
        mp__fail(err, "reply: model or id is not UTF-8");
    else if (err == MP_EINVAL)
        mp__fail(err, "reply: row %zu is not finite: it failed", bad_row + 1);
    char *text = err == 0 ? mp__buf_take(&b, n) : NULL;
    mp__buf_free(&b);
    if (err == 0 && text == NULL)
        err = MP_ENOMEM;
    *out = text;
    return err;
}

void mp_free(void *p)
{
    free(p);
}

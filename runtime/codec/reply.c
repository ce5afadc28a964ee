/*
 * reply.c - rows of a matrix as the body of a reply: the way back of what decode.c reads.
 *
 * The size of the whole is known but for the length of the numbers, so room is made a row at a time
 * and the digits go straight into it.
 */
#include "codec/reply.h"

#include "codec/base64.h"
#include "codec/float_text.h"
#include "codec/json_write.h"
#include "codec/vec.h"

#include <string.h>

#define SMALL_TEXT 24 /* a comma and an integer */

static const char *const quote[] = {"", "\"", ""};

static const float *row_at(const struct mp_reply *r, size_t i)
{
    size_t row = r->rows != NULL ? r->rows[i] : r->first + i;
    return mp_matrix_data(r->matrix) + row * mp_matrix_cols(r->matrix);
}

static int add_floats(struct mp__buf *b, const float *v, size_t n)
{
    int err = mp__buf_reserve(b, n * (MP__FLOAT_TEXT + 1) + 2);
    if (err != 0)
        return err;
    char *p = b->p + b->n;
    *p++ = '[';
    for (size_t i = 0; i < n; i++) {
        size_t len = mp__float_text(p, v[i]);
        if (len == 0)
            return MP_EINVAL;
        p += len;
        *p++ = ',';
    }
    p[n > 0 ? -1 : 0] = ']';
    b->n = (size_t)(p - b->p) + (n == 0);
    return 0;
}

static int add_base64(struct mp__buf *b, const float *v, size_t n)
{
    size_t bytes = n * sizeof(*v);
    int err = mp__buf_reserve(b, MP__BASE64_ENCODED(bytes));
    if (err != 0)
        return err;
    if (mp__finite(v, n, NULL) != 0)
        return MP_EINVAL;
    b->n += mp__base64_encode(b->p + b->n, v, bytes);
    return 0;
}

static int add_row(struct mp__buf *b, const struct mp_reply *r, size_t i)
{
    size_t cols = mp_matrix_cols(r->matrix);
    if (r->format == MP_FORMAT_BASE64)
        return add_base64(b, row_at(r, i), cols);
    return add_floats(b, row_at(r, i), cols);
}

static int add_number(struct mp__buf *b, const char *before, uint64_t v)
{
    int err = mp__buf_adds(b, before);
    if (err == 0)
        err = mp__buf_reserve(b, SMALL_TEXT);
    if (err != 0)
        return err;
    char text[SMALL_TEXT];
    size_t n = 0;
    do {
        text[SMALL_TEXT - ++n] = (char)('0' + v % 10);
        v /= 10;
    } while (v > 0);
    return mp__buf_add(b, text + SMALL_TEXT - n, n);
}

/* [row,row,...], each as the style has it. */
static int add_list(struct mp__buf *b, const struct mp_reply *r, size_t *bad_row)
{
    const char *q = quote[r->format];
    int openai = r->style == MP_REPLY_OPENAI;
    int err = mp__buf_addc(b, '[');
    for (size_t i = 0; i < r->nrows && err == 0; i++) {
        if (i > 0)
            err = mp__buf_addc(b, ',');
        if (err == 0 && openai) {
            err = add_number(b, "{\"object\":\"embedding\",\"index\":", i);
            if (err == 0)
                err = mp__buf_adds(b, ",\"embedding\":");
        }
        if (err == 0)
            err = mp__buf_adds(b, q);
        if (err == 0)
            err = add_row(b, r, i);
        if (err == 0)
            err = mp__buf_adds(b, q);
        if (err == 0 && openai)
            err = mp__buf_addc(b, '}');
        if (err == MP_EINVAL)
            *bad_row = i;
    }
    return err == 0 ? mp__buf_addc(b, ']') : err;
}

static int add_model(struct mp__buf *b, const char *before, const struct mp_reply *r)
{
    const char *model = r->model != NULL ? r->model : "";
    int err = mp__buf_adds(b, before);
    return err == 0 ? mp__json_string(b, model, strlen(model), NULL) : err;
}

static uint64_t tokens(int64_t first, int64_t other)
{
    return first >= 0 ? (uint64_t)first : other >= 0 ? (uint64_t)other : 0;
}

static int add_openai(struct mp__buf *b, const struct mp_reply *r, size_t *bad_row)
{
    int err = mp__buf_adds(b, "{\"object\":\"list\",\"data\":");
    if (err == 0)
        err = add_list(b, r, bad_row);
    if (err == 0)
        err = add_model(b, ",\"model\":", r);
    if (err == 0)
        err = add_number(
            b, ",\"usage\":{\"prompt_tokens\":", tokens(r->prompt_tokens, r->total_tokens));
    if (err == 0)
        err = add_number(b, ",\"total_tokens\":", tokens(r->total_tokens, r->prompt_tokens));
    return err == 0 ? mp__buf_adds(b, "}}") : err;
}

static int add_cohere(struct mp__buf *b, const struct mp_reply *r, size_t *bad_row)
{
    const char *id = r->id != NULL ? r->id : "";
    int err = mp__buf_adds(b, "{\"id\":");
    if (err == 0)
        err = mp__json_string(b, id, strlen(id), NULL);
    if (err == 0)
        err = mp__buf_adds(b, r->format == MP_FORMAT_BASE64 ? ",\"embeddings\":{\"base64\":"
                                                            : ",\"embeddings\":{\"float\":");
    if (err == 0)
        err = add_list(b, r, bad_row);
    if (err == 0)
        err = add_number(b,
                         "},\"meta\":{\"api_version\":{\"version\":\"2\"},\"billed_units\":{"
                         "\"input_tokens\":",
                         tokens(r->prompt_tokens, r->total_tokens));
    return err == 0 ? mp__buf_adds(b, "}},\"response_type\":\"embeddings_by_type\"}") : err;
}

static int add_ollama(struct mp__buf *b, const struct mp_reply *r, size_t *bad_row)
{
    int err = add_model(b, "{\"model\":", r);
    if (err == 0)
        err = mp__buf_adds(b, ",\"embeddings\":");
    if (err == 0)
        err = add_list(b, r, bad_row);
    double ns = r->total_time > 0 && r->total_time < 1e9 ? r->total_time * 1e9 : 0;
    if (err == 0)
        err = add_number(b, ",\"total_duration\":", (uint64_t)ns);
    if (err == 0)
        err = add_number(b, ",\"load_duration\":0,\"prompt_eval_count\":",
                         tokens(r->prompt_tokens, r->total_tokens));
    return err == 0 ? mp__buf_addc(b, '}') : err;
}

static int add_bytes(struct mp__buf *b, const struct mp_reply *r, size_t *bad_row)
{
    size_t cols = mp_matrix_cols(r->matrix);
    int err = 0;
    for (size_t i = 0; i < r->nrows && err == 0; i++) {
        err = mp__finite(row_at(r, i), cols, NULL);
        if (err != 0)
            *bad_row = i;
        else
            err = mp__buf_add(b, row_at(r, i), cols * sizeof(float));
    }
    return err;
}

int mp__reply_add(struct mp__buf *b, const struct mp_reply *r, size_t *bad_row)
{
    size_t before = b->n;
    int err;
    *bad_row = SIZE_MAX;
    if (r->format == MP_FORMAT_BYTES)
        err = add_bytes(b, r, bad_row);
    else if (r->style == MP_REPLY_OPENAI)
        err = add_openai(b, r, bad_row);
    else if (r->style == MP_REPLY_COHERE)
        err = add_cohere(b, r, bad_row);
    else if (r->style == MP_REPLY_OLLAMA)
        err = add_ollama(b, r, bad_row);
    else
        err = add_list(b, r, bad_row);
    if (err != 0)
        b->n = before;
    return err;
}

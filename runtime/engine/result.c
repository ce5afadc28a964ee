/* result.c - what a call came to: exchanges, matrix, sums. */
#include "engine/internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const char *mp_exchange_head(const struct mp_exchange *x)
{
    return x->data != NULL ? x->data : "";
}

const char *mp_exchange_message(const struct mp_exchange *x)
{
    return x->data != NULL ? x->data + x->head_len + 1 : "";
}

const char *mp_exchange_request_id(const struct mp_exchange *x)
{
    return x->data != NULL ? mp_exchange_message(x) + x->message_len + 1 : "";
}

const char *mp_exchange_body(const struct mp_exchange *x)
{
    const char *id = mp_exchange_request_id(x);
    return x->data != NULL ? id + strlen(id) + 1 : "";
}

/* What an exchange says that there is no memory to describe: head, message, id and body. */
static const char nothing[] = "\0\0\0";
static const char no_memory[] = "\0out of memory\0\0";

/* The place of the next exchange. Where every row is a request of its own the row is the index:
 * sorting tens of thousands of them at the end would stall the loop. */
static struct mp_exchange *place(struct mp__call *call, uint64_t first)
{
    struct mp_result *r = call->result;
    if (call->mode == MP_BODY_WHOLE)
        return &r->exchanges[first]; /* made with the call */
    if (r->nexchanges == call->results_cap) {
        size_t cap = call->results_cap ? call->results_cap * 2 : 4;
        struct mp_exchange *v = realloc(r->exchanges, cap * sizeof(*v));
        if (v == NULL)
            return NULL;
        r->exchanges = v;
        call->results_cap = cap;
    }
    return &r->exchanges[r->nexchanges];
}

/* head, message, id and body lie behind each other in one block: an exchange costs one malloc. */
char *mp__exchange_pack(struct mp_exchange *x, const char *head, const char *message,
                        const char *id, const char *body)
{
    size_t id_len = strlen(id);
    x->message_len = (uint32_t)strlen(message);
    char *p = malloc(x->head_len + x->message_len + id_len + x->body_len + 4);
    if (p == NULL)
        return NULL;
    char *q = p;
    if (x->head_len > 0)
        memcpy(q, head, x->head_len);
    q += x->head_len;
    *q++ = '\0';
    memcpy(q, message, x->message_len + 1);
    q += x->message_len + 1;
    memcpy(q, id, id_len + 1);
    q += id_len + 1;
    if (x->body_len > 0)
        memcpy(q, body, x->body_len);
    q[x->body_len] = '\0';
    return p;
}

void mp__exchange_drop(struct mp_exchange *x)
{
    if (x->data != nothing && x->data != no_memory)
        free((char *)x->data);
    x->data = NULL;
    x->head_len = x->message_len = 0;
    x->body_len = 0;
}

/* Vectors stand without their exchange's text; a body that is lost is no success. */
static void without_memory(struct mp_exchange *x, int vectors)
{
    int fine = x->kind == MP_KIND_NONE && vectors;
    if (x->kind == MP_KIND_NONE && !vectors)
        x->kind = MP_KIND_TOO_LARGE;
    x->data = fine ? nothing : no_memory;
    x->message_len = (uint32_t)strlen(x->data + 1);
    x->head_len = 0;
    x->body_len = 0;
}

int mp__result_add(struct mp__call *call, const struct mp_exchange *x, const char *head,
                   const char *message, const char *request_id, const char *body)
{
    struct mp_result *r = call->result;
    struct mp_exchange *to = place(call, x->first);
    struct mp_exchange filled = *x;
    if (to == NULL) {
        call->lost = 1;
        return MP_ENOMEM;
    }
    filled.data = mp__exchange_pack(&filled, head, message, request_id, body);
    if (filled.data == NULL)
        without_memory(&filled, call->has_vectors);
    x = &filled;
    *to = filled;
    r->nexchanges++;
    call->covered += x->count;
    if (x->kind == MP_KIND_NONE)
        r->rows_ok += x->count;
    return 0;
}

/* A list that doubles at each power of two needs no capacity beside it. */
int mp__result_fault(struct mp_result *r, uint64_t row, const char *why)
{
    size_t n = r->nfaults;
    if ((n & (n - 1)) == 0) {
        struct mp_row_error *v = realloc(r->faults, (n != 0 ? 2 * n : 1) * sizeof(*v));
        if (v == NULL)
            return MP_ENOMEM;
        r->faults = v;
    }
    r->faults[r->nfaults++] = (struct mp_row_error){row, why != NULL ? strdup(why) : NULL};
    r->rows_ok--;
    return 0;
}

int mp__result_faults(struct mp_result *r, uint64_t first, const struct mp__decoder *d)
{
    size_t before = r->nfaults;
    uint32_t n = mp__decoder_faults(d);
    char why[128];
    for (uint32_t k = 0; k < n; k++) {
        uint64_t row = first + mp__decoder_fault(d, k, why, sizeof(why));
        if (mp__result_fault(r, row, why) == 0)
            continue;
        while (r->nfaults > before) { /* the rows fail together */
            free((char *)r->faults[--r->nfaults].message);
            r->rows_ok++;
        }
        return MP_ENOMEM;
    }
    return (int)n;
}

static int by_row(const void *a, const void *b)
{
    const struct mp_row_error *x = a;
    const struct mp_row_error *y = b;
    return (x->row > y->row) - (x->row < y->row);
}

static int by_first(const void *a, const void *b)
{
    const struct mp_exchange *x = a;
    const struct mp_exchange *y = b;
    return (x->first > y->first) - (x->first < y->first);
}

static void nan_rows(mp_matrix *m, uint64_t first, uint64_t end)
{
    size_t cols = mp_matrix_cols(m);
    float *p = mp_matrix_data(m) + first * cols;
    for (uint64_t i = 0; i < (end - first) * cols; i++)
        p[i] = NAN;
}

/* Rows without a vector are NaN, whether their exchange failed or none ever spoke for them. */
static void blank_failed_rows(struct mp_result *r)
{
    uint64_t row = 0;
    for (size_t i = 0; i < r->nexchanges; i++) {
        const struct mp_exchange *x = &r->exchanges[i];
        if (x->first > row)
            nan_rows(r->matrix, row, x->first);
        if (x->kind != MP_KIND_NONE)
            nan_rows(r->matrix, x->first, x->first + x->count);
        row = x->first + x->count;
    }
    if (row < r->rows)
        nan_rows(r->matrix, row, r->rows);
    for (size_t i = 0; i < r->nfaults; i++)
        nan_rows(r->matrix, r->faults[i].row, r->faults[i].row + 1);
}

static void close_gaps(struct mp__call *call)
{
    struct mp_result *r = call->result;
    size_t to = 0;
    for (size_t i = 0; i < call->nrows && r->exchanges != NULL; i++)
        if (r->exchanges[i].data != NULL)
            r->exchanges[to++] = r->exchanges[i];
}

static void sort_exchanges(struct mp_result *r)
{
    int sorted = 1;
    for (size_t i = 1; i < r->nexchanges && sorted; i++)
        sorted = r->exchanges[i - 1].first <= r->exchanges[i].first;
    if (!sorted)
        qsort(r->exchanges, r->nexchanges, sizeof(*r->exchanges), by_first);
}

void mp__result_finish(struct mp_result *r, int view)
{
    sort_exchanges(r);
    if (r->nfaults > 1)
        qsort(r->faults, r->nfaults, sizeof(*r->faults), by_row);
    if (r->matrix != NULL && r->rows_ok == 0) {
        mp_matrix_unref(r->matrix);
        r->matrix = NULL;
        r->dimensions = 0;
        r->first_row = 0;
    }
    if (r->matrix != NULL && r->rows_ok < r->rows && !view)
        blank_failed_rows(r);
}

void mp__result_seal(struct mp__call *call, enum mp_kind kind, mp__time now)
{
    struct mp_result *r = call->result;
    r->kind = kind == MP_KIND_NONE && call->lost ? MP_KIND_TOO_LARGE : kind;
    r->total_time = (double)(now - call->created) / 1e9;
    if (call->mode == MP_BODY_WHOLE && r->nexchanges < call->nrows)
        close_gaps(call);
    mp__result_finish(r, 0);
}

struct mp_result *mp_result_keep(const struct mp_result *result)
{
    struct mp_result *r = (struct mp_result *)result;
    r->kept++;
    return r;
}

void mp_result_free(struct mp_result *r)
{
    if (r == NULL || r->kept-- > 0)
        return;
    for (size_t i = 0; i < r->nexchanges; i++)
        mp__exchange_drop(&r->exchanges[i]);
    free(r->exchanges);
    for (size_t i = 0; i < r->nfaults; i++)
        free((char *)r->faults[i].message);
    free(r->faults);
    mp_matrix_unref(r->matrix);
    free((char *)r->model);
    free((char *)r->words);
    free(r);
}

int mp_result_reply(const struct mp_result *r, uint32_t style, uint32_t format, const char *model,
                    char **out, size_t *n)
{
    struct mp_reply reply = MP_INIT(struct mp_reply);
    if (r == NULL || r->matrix == NULL)
        return mp__fail(MP_EINVAL, "result: it has no vectors");
    reply.matrix = r->matrix;
    reply.first = (size_t)r->first_row;
    reply.nrows = (size_t)r->rows;
    reply.style = style;
    reply.format = format;
    reply.model = model != NULL ? model : r->model;
    reply.prompt_tokens = r->prompt_tokens;
    reply.total_tokens = r->total_tokens;
    reply.total_time = r->total_time;
    return mp_reply_write(&reply, out, n);
}

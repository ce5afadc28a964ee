/*
 * gather_rig.h - a batcher on the engine's rig, and what every submission has to come to.
 *
 * The server's vector of the text "k..." is {k, -k}; its usage counts 10 tokens a request and one a
 * byte of text. A text with an x is refused with 400, together with the whole request; one with an n
 * gets null for its vector.
 */
#ifndef GATHER_RIG_H
#define GATHER_RIG_H

#include "engine_rig.h"

#include <math.h>

#define MANY 4096

static const struct mp_vectors shape = {.list = "data", .vector = "embedding", .index = "index"};

static struct rig rig;
static mp_batcher *batcher;
static unsigned seed;

static inline unsigned draw(unsigned n)
{
    return (unsigned)rand_r(&seed) % n;
}

/* ---- the server ---- */

enum { HOLD_MAX = 256 };
static struct mp__http_request *held[HOLD_MAX];
static unsigned nheld, hold;
static unsigned batch_rows[MANY]; /* of each request */
static uint64_t billed;

static inline unsigned answer(const char *body, char *out, size_t cap, int *bad, unsigned *tokens)
{
    size_t len = (size_t)snprintf(out, cap, "{\"model\":\"m1\",\"data\":[");
    unsigned rows = 0;
    unsigned bytes = 0;
    const char *p = strchr(body, '[');
    *bad = 0;
    for (p++; *p == '"' || *p == ','; p++) {
        if (*p == ',')
            continue;
        const char *end = strchr(p + 1, '"');
        long k = strtol(p + 1, NULL, 10);
        *bad |= memchr(p, 'x', (size_t)(end - p)) != NULL;
        int null = memchr(p, 'n', (size_t)(end - p)) != NULL;
        len += (size_t)snprintf(out + len, cap - len,
                                null ? "%s{\"index\":%u,\"embedding\":null}"
                                     : "%s{\"index\":%u,\"embedding\":[%ld,%ld]}",
                                rows > 0 ? "," : "", rows, k, -k);
        bytes += (unsigned)(end - p - 1);
        rows++;
        p = end;
    }
    snprintf(out + len, cap - len, "],\"usage\":{\"prompt_tokens\":%u,\"total_tokens\":%u}}",
             10 + bytes, 10 + bytes);
    *tokens = 10 + bytes;
    return rows;
}

static inline void answer_one(struct mp__http_request *req)
{
    static char out[MANY * 64];
    int bad = 0;
    unsigned tokens = 0;
    answer(req->body, out, sizeof(out), &bad, &tokens);
    billed += bad ? 0 : tokens;
    rig_reply(req, bad ? 400 : 200, bad ? "{\"error\":\"an x\"}" : out);
}

static inline void serve(struct rig *r, struct mp__http_request *req)
{
    static char out[MANY * 64];
    int bad = 0;
    unsigned tokens = 0;
    batch_rows[(r->requests - 1) % MANY] = answer(req->body, out, sizeof(out), &bad, &tokens);
    if (hold && nheld < HOLD_MAX)
        held[nheld++] = req;
    else
        answer_one(req);
}

static inline void release(void)
{
    unsigned n = nheld;
    nheld = 0;
    for (unsigned i = 0; i < n; i++)
        answer_one(held[i]);
}

/* ---- submissions ---- */

static struct want {
    unsigned ends;
    int kind, exchange_kind, status;
    unsigned rows;
    long first;     /* number of the first text */
    unsigned bad;   /* rows that have to fail */
    int check_rows; /* they hold their vectors */
    uint64_t ticket;
    int64_t prompt, total;
    mp_matrix *matrix;
    uint64_t first_row;
    unsigned order;
    uint64_t bad_row;
} wants[MANY];
static unsigned finished;

static inline int has_fault(const struct mp_result *r, uint64_t row)
{
    for (size_t i = 0; i < r->nfaults; i++)
        if (r->faults[i].row == row && strcmp(r->faults[i].message, "the vector is null") == 0)
            return 1;
    return 0;
}

static inline void on_done(void *arg, const struct mp_result *r)
{
    struct want *w = arg;
    w->ends++;
    w->kind = (int)r->kind;
    w->prompt = r->prompt_tokens;
    w->total = r->total_tokens;
    w->first_row = r->first_row;
    w->order = ++finished;
    rig.done++;
    assert_int_equal(r->rows, w->rows);
    assert_int_equal(r->ticket, w->ticket);
    if (r->nexchanges > 0) {
        w->exchange_kind = r->exchanges[0].kind;
        w->status = r->exchanges[0].status;
    }
    uint64_t covered = 0;
    for (size_t i = 0; i < r->nexchanges; i++) {
        const struct mp_exchange *x = &r->exchanges[i];
        assert_true(x->first == covered || (r->kind != MP_KIND_NONE && x->first > covered));
        covered = x->first + x->count;
        for (uint64_t row = x->first; row < x->first + x->count && r->matrix != NULL; row++) {
            assert_true(r->first_row + row < mp_matrix_rows(r->matrix));
            const float *v = mp_matrix_data(r->matrix) + 2 * (r->first_row + row);
            float k = (float)(w->first + (long)row);
            if (x->kind != MP_KIND_NONE || has_fault(r, row)) {
                assert_true(isnan(v[0]));
                w->bad_row = row;
            } else if (w->check_rows)
                assert_true(v[0] == k && v[1] == -k);
        }
    }
    if (r->kind == MP_KIND_NONE)
        assert_int_equal(covered, r->rows);
    if (w->check_rows && r->kind == MP_KIND_NONE)
        assert_int_equal(r->rows_ok, w->rows - w->bad);
    if (r->matrix != NULL)
        w->matrix = mp_matrix_ref(r->matrix);
}

static char texts[MANY * 4][24];

/* Rows first, first+1, ...; `mark` is written behind the numbers. */
static inline struct mp_request request_of(struct want *w, unsigned rows, const char *mark)
{
    static struct mp_str v[MANY];
    static long next;
    w->first = next;
    w->rows = rows;
    w->check_rows = 1;
    for (unsigned i = 0; i < rows; i++) {
        char *t = texts[(next + i) % (MANY * 4)];
        v[i].n = (size_t)snprintf(t, sizeof(texts[0]), "%ld%s", next + (long)i, mark);
        v[i].p = t;
    }
    next = (next + rows) % 100000;
    struct mp_request q = MP_INIT(struct mp_request);
    q.path = "/v1/embeddings";
    q.mode = MP_BODY_JOIN;
    q.rows = v;
    q.nrows = rows;
    q.prefix = (struct mp_str){"{\"input\":[", 10};
    q.suffix = (struct mp_str){"]}", 2};
    q.vectors = &shape;
    q.done = on_done;
    q.arg = w;
    return q;
}

static inline void put(struct want *w, const struct mp_request *q, const struct mp_gather *how)
{
    int rc = mp_batcher_submit(batcher, q, how, &w->ticket);
    if (rc != 0)
        print_error("%s\n", mp_last_error());
    assert_int_equal(rc, 0);
}

static inline void put_one(struct want *w, const char *mark, const char *key)
{
    struct mp_request q = request_of(w, 1, mark);
    struct mp_gather how = MP_INIT(struct mp_gather);
    how.key = (struct mp_str){key, strlen(key)};
    put(w, &q, &how);
}

static inline void open_with(const struct mp_batcher_config *c)
{
    memset(wants, 0, sizeof(wants));
    finished = nheld = hold = 0;
    billed = 0;
    rig_open(&rig);
    rig.serve = serve;
    struct mp_policy p = {0};
    mp_policy_init(&p, MP_PRESET_JOB);
    p.retry.base = p.retry.throttle_base = 0.001;
    struct mp_client_config cc = MP_INIT(struct mp_client_config);
    cc.policy = &p;
    rig_client(&rig, &cc);
    assert_int_equal(mp_batcher_new(rig.client, c, &batcher), 0);
}

static inline void open_slots(unsigned slots, unsigned max_batch)
{
    struct mp_batcher_config c = MP_INIT(struct mp_batcher_config);
    c.slots = slots;
    c.batch.size = max_batch;
    open_with(&c);
}

static inline struct mp_batcher_stats stats(void)
{
    struct mp_batcher_stats s = MP_INIT(struct mp_batcher_stats);
    mp_batcher_stats(batcher, &s);
    return s;
}

static inline void shut(void)
{
    mp_batcher_close(batcher);
    rig_close(&rig);
    for (unsigned i = 0; i < MANY; i++)
        mp_matrix_unref(wants[i].matrix);
}

/* Turns the loop until the server holds `n` requests. */
static inline void run_until_held(unsigned n)
{
    for (int i = 0; i < 1000000 && nheld < n; i++)
        uv_run(&rig.loop, UV_RUN_ONCE);
    assert_int_equal(nheld, n);
}

static inline void run_a_little(void)
{
    for (int i = 0; i < 50; i++)
        uv_run(&rig.loop, UV_RUN_NOWAIT);
}

#endif

/*
 * part.c - a call's rows as parts: how many the next one carries, one cut in two, one taken back.
 */
#include "codec/json_write.h"
#include "engine/internal.h"
#include "policy/batch.h"

#include <stdlib.h>
#include <string.h>

struct cost_ctx {
    struct mp__call *call;
    uint64_t bad_row;
    size_t bad_at;
    int bad;
};

static double row_tokens(const struct mp__call *call, uint64_t row, uint64_t bytes)
{
    double n = -1;
    if (call->hooks != NULL && call->hooks->tokens != NULL)
        n = call->hooks->tokens(call->hooks->core.arg, call, row);
    return n >= 0 ? n : (double)bytes * mpp_client_tokens_per_byte(call->client->core);
}

static int row_cost(void *arg, uint64_t row, struct mpp_cost *out)
{
    struct cost_ctx *ctx = arg;
    const struct mp_str *s = &ctx->call->rows[row];
    if (ctx->call->row_style != MP_ROW_JSON && mp__utf8_valid(s->p, s->n, &ctx->bad_at) != 0) {
        ctx->bad_row = row;
        ctx->bad = 1;
        return -1;
    }
    out->chars = ctx->call->policy->batch.chars > 0 ? mp__utf8_chars(s->p, s->n) : 0;
    out->bytes = s->n + 3 + ctx->call->row_prefix.n + ctx->call->row_suffix.n;
    out->tokens = row_tokens(ctx->call, row, s->n);
    return 0;
}

/* A row that is not UTF-8 has no JSON form: it fails alone, before anything is sent for it. */
static void refuse_row(struct mp__call *call, uint64_t row, const char *message)
{
    struct mp_exchange x = {0};
    x.first = row;
    x.count = 1;
    x.kind = MP_KIND_INVALID;
    x.retry_after = -1;
    mp__result_add(call, &x, "", message, "", "");
}

static int make_part(struct mp__call *call, uint64_t first, uint32_t count,
                     struct mpp_part_info *out)
{
    struct mp__part *part = calloc(1, sizeof(*part));
    if (part == NULL)
        return -1;
    part->call = call;
    part->first = first;
    part->count = count;
    part->serial = call->parts_made++;
    out->first = first;
    out->count = count;
    out->user = part;
    return 1;
}

static int next_whole(struct mp__call *call, struct mpp_part_info *out)
{
    uint64_t row = call->cursor++;
    out->bytes = call->rows != NULL ? call->rows[row].n : 0;
    out->tokens = row_tokens(call, row, out->bytes);
    out->size_class = mpp_size_class(out->tokens);
    return make_part(call, row, 1, out);
}

/* A hook may take fewer rows than the policy: the limits stand. */
static uint32_t ask_batch(struct mp__call *call, struct mp_batch_policy *limits, struct mp__span s,
                          uint32_t n, struct mpp_batch_sum *sum)
{
    struct cost_ctx ctx = {.call = call};
    if (call->hooks == NULL || call->hooks->batch == NULL || call->flags & MP_ONE_REQUEST)
        return n;
    uint64_t left = call->nback > 0 ? s.end - s.first : call->nrows - call->cursor;
    struct mp__offer offer = {call, s.first, left, n, sum->bytes, sum->tokens};
    uint32_t fewer = mp__hook_batch(call, &offer);
    if (fewer == n)
        return n;
    struct mp_batch_policy smaller = *limits;
    smaller.size = fewer;
    return mpp_batch_take(&smaller, row_cost, &ctx, s.first, fewer, sum);
}

/* What the policy, the caller and the server's learnt limit allow, whichever is least. */
static struct mp_batch_policy limits_of(const struct mp__call *call, const struct mpp_action *want)
{
    struct mp_batch_policy limits = call->policy->batch;
    if (call->flags & MP_ONE_REQUEST)
        return (struct mp_batch_policy){.size = UINT32_MAX};
    if (limits.bytes > 0) {
        size_t frame = call->prefix.n + call->suffix.n + call->tail.n;
        limits.bytes = limits.bytes > frame ? limits.bytes - frame : 1;
    }
    if (want->most_rows > 0 && (limits.size == 0 || want->most_rows < limits.size))
        limits.size = want->most_rows;
    if (want->most_bytes > 0 && (limits.bytes == 0 || want->most_bytes < limits.bytes))
        limits.bytes = want->most_bytes;
    return limits;
}

/* The rows to cut from: those that came back first. */
static struct mp__span span_of(const struct mp__call *call)
{
    return call->nback > 0 ? call->back[0] : (struct mp__span){call->cursor, call->nrows};
}

static void advance(struct mp__call *call, uint64_t rows)
{
    if (call->nback == 0) {
        call->cursor += rows;
        return;
    }
    call->back[0].first += rows;
    if (call->back[0].first >= call->back[0].end)
        memmove(call->back, call->back + 1, --call->nback * sizeof(*call->back));
}

static int next_joined(struct mp__call *call, const struct mpp_action *want,
                       struct mpp_part_info *out)
{
    struct mp_batch_policy limits = limits_of(call, want);
    for (struct mp__span s = span_of(call); s.first < s.end; s = span_of(call)) {
        struct cost_ctx ctx = {.call = call};
        struct mpp_batch_sum sum;
        uint32_t n = mpp_batch_take(&limits, row_cost, &ctx, s.first, s.end - s.first, &sum);
        if (n > 0) {
            n = ask_batch(call, &limits, s, n, &sum);
            out->again = call->nback > 0;
            out->whole = (call->flags & (MP_NO_SPLIT | MP_ONE_REQUEST)) != 0;
            advance(call, n);
            out->bytes = sum.bytes;
            out->tokens = sum.tokens;
            out->size_class = mpp_size_class(sum.tokens);
            return make_part(call, s.first, n, out);
        }
        char message[96];
        snprintf(message, sizeof(message), "invalid UTF-8 at byte %zu", ctx.bad_at + 1);
        refuse_row(call, ctx.bad_row, message);
        advance(call, 1);
    }
    return 0;
}

void mp__call_give_part(struct mp__call *call, const struct mpp_action *want)
{
    struct mpp_part_info info = {0};
    int got = 0;
    if (call->mode == MP_BODY_JOIN)
        got = next_joined(call, want, &info);
    else if (call->cursor < call->nrows)
        got = next_whole(call, &info);
    if (got == 1) {
        info.last = call->nback == 0 && call->cursor >= call->nrows;
        mpp_part_give(call->core, &info);
        return;
    }
    mpp_part_none(call->core, 0);
    if (got < 0) /* the rows are cut off and no memory is left to send them */
        mpp_call_cancel(call->core, MP_KIND_TOO_LARGE, mp__now());
}

void mp__part_free(struct mp__part *part)
{
    if (part->last != NULL)
        mp__attempt_free(part->last);
    free(part);
}

/* Neighbours become one again, so that they are cut as if they had never been apart. */
void mp__call_back(struct mp__part *part)
{
    struct mp__call *call = part->call;
    struct mp__span s = {part->first, part->first + part->count};
    size_t i = 0;
    mp__part_free(part);
    while (i < call->nback && call->back[i].first < s.first)
        i++;
    if (i > 0 && call->back[i - 1].end == s.first) {
        call->back[i - 1].end = s.end;
        if (i < call->nback && call->back[i].first == s.end) {
            call->back[i - 1].end = call->back[i].end;
            call->nback--;
            memmove(call->back + i, call->back + i + 1, (call->nback - i) * sizeof(s));
        }
        return;
    }
    if (i < call->nback && call->back[i].first == s.end) {
        call->back[i].first = s.first;
        return;
    }
    if (call->nback == call->backcap) {
        size_t cap = call->backcap ? call->backcap * 2 : 16;
        struct mp__span *v = realloc(call->back, cap * sizeof(*v));
        if (v == NULL) {
            mpp_call_cancel(call->core, MP_KIND_TOO_LARGE, mp__now());
            return;
        }
        call->back = v;
        call->backcap = cap;
    }
    memmove(call->back + i + 1, call->back + i, (call->nback - i) * sizeof(s));
    call->back[i] = s;
    call->nback++;
}

struct mp__part *mp__part_of(struct mpp_part *part)
{
    return mpp_part_facts(part)->info.user;
}

void mp__call_split(struct mp__part *part, struct mpp_part *other, uint32_t keep)
{
    struct mp__call *call = part->call;
    struct mpp_part_info info;
    if (make_part(call, part->first + keep, part->count - keep, &info) != 1)
        return; /* without memory the other half ends as it would by a failed start */
    mpp_part_set_user(other, info.user);
    ((struct mp__part *)info.user)->core = other;
    part->count = keep;
}

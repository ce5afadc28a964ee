/* policy_rig.h - a policy core on a virtual clock, driven by hand: a test answers each attempt. */
#ifndef POLICY_RIG_H
#define POLICY_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "policy/core.h"

#define RIG_MAX 4096

struct rig_call {
    struct rig *rig;
    struct mpp_call *call;
    uint32_t left; /* parts to give */
    uint32_t rows; /* of each */
    double tokens;
    uint64_t next;         /* row */
    uint32_t back[129][2]; /* first and count of rows that came back */
    uint32_t nback;
    int dry; /* answer -1 */
    int done;
    enum mp_kind kind;
};

struct rig_attempt {
    uint64_t id;
    struct mpp_part *part;
    uint32_t endpoint;
    int is_hedge, fresh, live;
    mp__time at;
    uint64_t first;
    uint32_t count, n; /* n: which attempt of the part */
    double tokens;
};

struct rig {
    struct mpp_core *core;
    struct mpp_pool *pool;
    struct mpp_client *client;
    struct mp_policy policy;
    struct mpp_endpoint_cfg eps[8];
    uint32_t n;
    mp__time now;
    struct rig_attempt a[RIG_MAX]; /* in order of start */
    uint32_t na;
    uint32_t running, most_running, aborts, parts_ok, parts_failed, calls_done, splits, backs,
        probes;
    uint32_t limits;
    struct mpp_limit limit; /* the last that was told */
    enum mp_kind last_kind;
    struct mpp_part_facts last_facts;
    uint64_t last_winner;
    uint32_t last_abort;
};

static inline void rig_init(struct rig *r, uint32_t endpoints, uint32_t pool)
{
    uint32_t i;

    memset(r, 0, sizeof(*r));
    mp_policy_init(&r->policy, MP_PRESET_JOB);
    r->n = endpoints;
    r->now = 1000 * MP__SECOND;
    for (i = 0; i < endpoints; i++)
        r->eps[i] = (struct mpp_endpoint_cfg){.weight = 1, .idempotent = 1};
    r->core = mpp_new(&(struct mpp_config){.seed = 42});
    r->pool = mpp_pool_new(r->core, pool);
}

static inline void rig_open(struct rig *r)
{
    struct mpp_client_cfg cfg = {
        .pool = r->pool, .policy = &r->policy, .endpoints = r->eps, .nendpoints = r->n};

    r->client = mpp_client_new(r->core, &cfg);
    assert_non_null(r->client);
}

/* Rows that came back are cut first, as the core wants them. */
static inline void rig_part(const struct mpp_action *act)
{
    struct rig_call *c = mpp_call_user(act->call);
    struct mpp_part_info info = {0};
    uint32_t most = act->most_rows;

    if (act->most_bytes > 0 && (most == 0 || act->most_bytes / 100 < most))
        most = act->most_bytes > 100 ? (uint32_t)(act->most_bytes / 100) : 1;
    if (c->dry) {
        mpp_part_none(act->call, 1);
        return;
    }
    if (c->nback > 0) {
        info.first = c->back[0][0];
        info.count = c->back[0][1];
        info.again = 1;
        c->nback--;
        memmove(c->back, c->back + 1, c->nback * sizeof(c->back[0]));
    } else if (c->left > 0) {
        c->left--;
        info.first = c->next;
        info.count = c->rows;
        c->next += c->rows;
    } else {
        mpp_part_none(act->call, 0);
        return;
    }
    if (most > 0 && info.count > most) {
        memmove(c->back + 1, c->back, c->nback * sizeof(c->back[0]));
        c->back[0][0] = (uint32_t)info.first + most;
        c->back[0][1] = info.count - most;
        c->nback++;
        info.count = most;
    }
    info.tokens = c->tokens;
    info.bytes = info.count * 100;
    assert_int_equal(mpp_part_give(act->call, &info), 1);
}

/* In order, next to its neighbours. */
static inline void rig_back(struct rig_call *c, uint32_t first, uint32_t count)
{
    uint32_t i = 0;

    while (i < c->nback && c->back[i][0] < first)
        i++;
    assert_true(c->nback < 128);
    memmove(c->back + i + 1, c->back + i, (c->nback - i) * sizeof(c->back[0]));
    c->back[i][0] = first;
    c->back[i][1] = count;
    c->nback++;
    for (i = 0; i + 1 < c->nback;) {
        if (c->back[i][0] + c->back[i][1] == c->back[i + 1][0]) {
            c->back[i][1] += c->back[i + 1][1];
            c->nback--;
            memmove(c->back + i + 1, c->back + i + 2, (c->nback - i - 1) * sizeof(c->back[0]));
        } else {
            i++;
        }
    }
}

static inline struct mpp_call_cfg rig_cfg(struct rig *r, struct rig_call *c, uint32_t parts,
                                          uint32_t rows)
{
    memset(c, 0, sizeof(*c));
    c->rig = r;
    c->left = parts;
    c->rows = rows;
    return (struct mpp_call_cfg){.client = r->client,
                                 .deadline = MP__NEVER,
                                 .pool_timeout = 10,
                                 .idempotent = 1,
                                 .pinned_endpoint = -1,
                                 .user = c};
}

static inline void rig_call(struct rig *r, struct rig_call *c, uint32_t parts, uint32_t rows)
{
    struct mpp_call_cfg cfg = rig_cfg(r, c, parts, rows);

    c->call = mpp_call_new(&cfg, r->now);
    assert_non_null(c->call);
}

static inline struct rig_attempt *rig_find(struct rig *r, uint64_t id)
{
    uint32_t i;

    for (i = r->na; i-- > 0;)
        if (r->a[i].id == id)
            return &r->a[i];
    return NULL;
}

static inline void rig_take(struct rig *r, const struct mpp_action *act)
{
    struct rig_attempt *a;

    switch (act->type) {
    case MPP_START:
        assert_true(r->na < RIG_MAX);
        a = &r->a[r->na++];
        *a = (struct rig_attempt){.id = act->attempt,
                                  .part = act->part,
                                  .endpoint = act->endpoint,
                                  .is_hedge = act->is_hedge,
                                  .fresh = act->fresh_connection,
                                  .live = 1,
                                  .at = r->now,
                                  .first = mpp_part_facts(act->part)->info.first,
                                  .count = mpp_part_facts(act->part)->info.count,
                                  .n = mpp_part_facts(act->part)->attempts,
                                  .tokens = mpp_part_facts(act->part)->info.tokens};
        if (++r->running > r->most_running)
            r->most_running = r->running;
        break;
    case MPP_ABORT:
        a = rig_find(r, act->attempt);
        assert_non_null(a);
        assert_true(a->live);
        a->live = 0;
        r->last_abort = (uint32_t)(a - r->a);
        r->running--;
        r->aborts++;
        break;
    case MPP_PART_DONE:
        r->last_kind = act->kind;
        r->last_facts = *mpp_part_facts(act->part);
        r->last_winner = act->attempt;
        if (act->kind == MP_KIND_NONE)
            r->parts_ok++;
        else
            r->parts_failed++;
        break;
    case MPP_PART_SPLIT:
        assert_int_equal(mpp_part_facts(act->part)->info.count, act->keep);
        r->splits++;
        break;
    case MPP_PART_BACK:
        rig_back(mpp_call_user(act->call), (uint32_t)mpp_part_facts(act->part)->info.first,
                 mpp_part_facts(act->part)->info.count);
        r->backs++;
        break;
    case MPP_WANT_PART:
        rig_part(act);
        break;
    case MPP_LIMIT:
        r->limit = act->limit;
        r->limits++;
        break;
    case MPP_CALL_DONE: {
        struct rig_call *c = mpp_call_user(act->call);

        assert_int_equal(c->done, 0);
        c->done = 1;
        c->kind = act->kind;
        r->calls_done++;
        break;
    }
    case MPP_PROBE:
        r->probes++;
        break;
    }
}

/* Everything that is to be done now. */
static inline void rig_run(struct rig *r)
{
    struct mpp_action act;
    int guard = 0;

    while (mpp_next(r->core, r->now, &act)) {
        rig_take(r, &act);
        assert_true(guard++ < 100000);
    }
}

/* Lets the clock go on, stopping at every alarm. */
static inline void rig_wait(struct rig *r, double seconds)
{
    mp__time end = r->now + (mp__time)(seconds * 1e9);
    int guard = 0;

    rig_run(r);
    while (mpp_wake_at(r->core) <= end) {
        if (mpp_wake_at(r->core) > r->now)
            r->now = mpp_wake_at(r->core);
        rig_run(r);
        assert_true(guard++ < 1000000);
    }
    r->now = end;
    rig_run(r);
}

static inline struct mpp_outcome rig_outcome(enum mp_kind kind, int status)
{
    struct mpp_outcome o = {.kind = kind, .status = status, .tokens = -1};

    mpp_hints_init(&o.hints);
    return o;
}

static inline void rig_answer(struct rig *r, uint32_t i, const struct mpp_outcome *o)
{
    assert_true(i < r->na);
    assert_true(r->a[i].live);
    r->a[i].live = 0;
    r->running--;
    mpp_attempt_done(r->core, r->a[i].id, o, r->now);
    rig_run(r);
}

static inline void rig_ok(struct rig *r, uint32_t i)
{
    struct mpp_outcome o = rig_outcome(MP_KIND_NONE, 200);

    rig_answer(r, i, &o);
}

static inline void rig_status(struct rig *r, uint32_t i, int status)
{
    struct mpp_outcome o = rig_outcome(status == 429 ? MP_KIND_RATE_LIMITED : MP_KIND_HTTP, status);

    rig_answer(r, i, &o);
}

static inline void rig_fault(struct rig *r, uint32_t i, enum mp_kind kind)
{
    struct mpp_outcome o = rig_outcome(kind, 0);

    rig_answer(r, i, &o);
}

static inline void rig_delay(struct rig *r, uint32_t i, int status, double retry_after)
{
    struct mpp_outcome o = rig_outcome(status == 429 ? MP_KIND_RATE_LIMITED : MP_KIND_HTTP, status);

    o.hints.retry_after = retry_after;
    rig_answer(r, i, &o);
}

static inline void rig_fini(struct rig *r)
{
    if (r->client != NULL)
        mpp_client_close(r->client, r->now);
    rig_run(r);
    mpp_pool_unref(r->pool);
    mpp_free(r->core);
}

static inline struct mpp_endpoint_stats rig_stats(struct rig *r, uint32_t endpoint)
{
    struct mpp_endpoint_stats s;

    mpp_endpoint_stats(r->client, endpoint, r->now, &s);
    return s;
}

#endif

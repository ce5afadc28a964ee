/*
 * gather.h - the batcher's own structures.
 *
 *   gather.c         submissions: taken in, queued, ended
 *   gather_send.c    who goes into the next request, and what its reply gives to whom
 *   gather_cache.c   what need not be asked: vectors by content, equal texts at the same time
 *
 * group    submissions whose requests are the same but for their rows; lives while one is open
 * flow     a caller's key in one lane of a group: a queue, with a deficit in rows
 * share    a submission's rows in one request
 *
 * A submission is WAITING on its flow's queue or the batcher's `alone` list, then SENT (some or all
 * of its rows in requests), then FINISHED on the engine's list until `done` has run. Requests keep
 * the memory of their submissions, also of those that have ended.
 */
#ifndef MP_ENGINE_GATHER_H
#define MP_ENGINE_GATHER_H

#include "base/table.h"
#include "engine/frame.h"
#include "engine/internal.h"
#include "policy/batch.h"

#define MP__LANES 3

enum mp__share_timer { MP__T_ATTEMPT = 0, MP__T_DEADLINE, MP__T_DUE };

struct mp__flow {
    struct mp__node node; /* in group->flows */
    struct mp__link link; /* in lane->ring */
    struct mp__link queue;
    uint64_t deficit; /* rows */
    uint32_t lane;
    size_t key_len;
    char key[];
};

struct mp__lane {
    struct mp__link ring; /* flows with a queue */
};

struct mp__group {
    struct mp__node node; /* in batcher->groups */
    struct mp__link link; /* in batcher->ready while something waits */
    mp_batcher *batcher;
    struct mp__lane lanes[MP__LANES];
    struct mp__table flows;
    uint32_t refs;                       /* submissions and requests */
    uint64_t content_seed, content_high; /* of its rows' keys */
    uint32_t waiting;
    uint32_t due; /* waiting submissions that need not wait for company */
    struct mpp_batch_sum sum;
    struct mp_batch_policy limits;
    struct mp_policy policy;
    struct mp__frame frame;
};

struct mp__submission {
    struct mp__link link;
    struct mp__timer deadline, due;
    mp_batcher *batcher;
    struct mp__group *group;
    struct mp__flow *flow; /* while WAITING in it */
    uint32_t index, generation;
    uint32_t refs;   /* requests that hold rows of it, and 1 until delivered */
    uint32_t flying; /* of these, requests not yet answered */
    uint32_t nrows, taken, left;
    uint32_t lane;
    unsigned ended : 1, is_due : 1, waiting : 1;
    unsigned whole : 1; /* one request may carry all of it */
    unsigned alone : 1; /* and nobody else's */
    unsigned leads : 1; /* of a flight */
    uint64_t bytes;     /* of the texts */
    uint64_t charged;   /* to the engine's queued_bytes */
    struct mpp_batch_sum cost;
    struct mp_str *rows;
    uint32_t *map;          /* rows of the result that these are; NULL: the same */
    struct mp__node flight; /* in batcher->flights if it leads */
    uint64_t flight_high;
    struct mp__link followers;
    uint64_t key_hash;
    struct mp_str key;
    mp__time created, deadline_at;
    mp_done_fn *done;
    void *arg;
    struct mp_result *result;
    size_t exchanges_cap;
    void *block; /* rows and texts */
};

struct mp__share {
    struct mp__submission *s;
    uint32_t first; /* row of the submission */
    uint32_t count;
    uint64_t at; /* row of the request */
    uint64_t weight;
};

struct mp__request { /* one upstream call */
    struct mp__link link;
    mp_batcher *batcher;
    struct mp__group *group;
    uint64_t ticket;
    uint32_t nshares, nrows;
    uint32_t alive; /* submissions that still wait for it */
    struct mp__share *shares;
    struct mp_str *rows;
};

struct mp__cache {
    struct mp__table table;
    struct mp__link used; /* least recently first */
    uint64_t bytes, max;
};

struct mp_batcher {
    struct mp__link link; /* in engine->batchers */
    struct mp_engine *engine;
    struct mp_client *client;
    uint32_t slots, busy;
    struct mp_batch_policy limits;
    uint32_t max_waiting, waiting;
    uint32_t open; /* submissions not yet delivered */
    uint32_t turns;
    struct mp__table groups;
    struct mp__link ready;
    struct mp__link alone;
    struct mp__link requests;
    struct mp__cache cache;
    struct mp__table flights;
    int single_flight;
    uint64_t seed;
    unsigned closed : 1, released : 1;
    struct mp_batcher_stats n;
};

/* gather.c */
void mp__submission_end(struct mp__submission *s, enum mp_kind kind); /* to be delivered */
void mp__submission_leave(struct mp__submission *s);                  /* its queue */
void mp__submission_requeue(struct mp__submission *s);                /* alone, in front */
void mp__submission_unref(struct mp__submission *s);
void mp__submission_wait(struct mp__submission *s); /* in its key's queue */
void mp__group_unref(struct mp__group *g);
void mp__batcher_maybe_free(mp_batcher *b);
int mp__submission_cost(void *submission, uint64_t row, struct mpp_cost *out);
/* How many of its rows the next request may carry. */
uint32_t mp__submission_piece(const struct mp__submission *s, struct mpp_batch_sum *sum);

/* Its vectors are a stretch of its request's matrix. */
static inline int mp__submission_is_view(const struct mp__submission *s)
{
    return s->map == NULL && (s->whole || s->alone || s->result->rows == 1);
}

/* gather_send.c */
void mp__submission_add_exchange(struct mp__submission *s, const struct mp_exchange *from,
                                 uint64_t first, uint32_t count);
void mp__gather_send(mp_batcher *b); /* while slots and rows allow */

/* gather_cache.c */
void mp__cache_init(struct mp__cache *c, uint64_t max);
void mp__cache_fini(struct mp__cache *c);
int mp__cache_answer(struct mp__submission *s); /* 1: everything was known */
void mp__cache_put(mp_batcher *b, const struct mp__group *g, const struct mp_str *text,
                   const float *v, uint32_t dim);
int mp__flight_join(struct mp__submission *s);
void mp__flight_pass_on(struct mp__submission *s, enum mp_kind kind); /* it has ended so */

#endif

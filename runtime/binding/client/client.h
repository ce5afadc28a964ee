/* client.h - shared by the files of the client binding. */
#ifndef MP_BINDING_CLIENT_CLIENT_H
#define MP_BINDING_CLIENT_CLIENT_H

#include "base/buf.h"
#include "binding/value/options.h"
#include "task/task.h"

#define MP__CLIENT_TYPE "moonpool.core.client"
#define MP__POOL_TYPE   "moonpool.core.pool"
#define MP__POLICY_TYPE "moonpool.core.policy"
#define MP__RESULT_TYPE "moonpool.core.result"

struct mp__client_box {
    struct mp__rt *rt;
    mp_client *client;              /* NULL once closed */
    struct mp__hook_counts *counts; /* NULL: none yet */
};

struct mp__pool_box {
    mp_pool *pool;
};

struct mp__result_box {
    struct mp_result *result;
};

/* One call: counted, a reference is the userdata's, another the engine's while it runs. */
struct mp__op {
    struct mp__wait wait; /* first: mp__wait's cancel finds the op by it */
    struct mp__watch watch;
    struct mp__rt *rt;
    mp_engine *engine;
    int refs;
    int done;
    int taken;
    uint64_t ticket;
    struct mp_result *result;
    struct mp__buf body;       /* of the row being sent */
    struct mp_header *headers; /* of the row being sent */
    size_t nheaders, cap_headers;
    /* a streamed reply */
    struct mp__buf in, head;
    int status;
    int waiting; /* somebody waits for the head or for bytes */
    int held;    /* the engine was told to stop until mp_resume */
};

#define MP__OP_TYPE "moonpool.core.op"

struct mp__op_box {
    struct mp__op *op;
};

void mp__stream_into(struct mp_request *q);
void mp__open_stream(lua_State *L);

/* Reads a spec of call_start; its strings are kept by the table at `anchor`, or are the spec's. Pushes
 * what holds the headers. */
void mp__read_spec(lua_State *L, int spec, int anchor, struct mp_request *q, struct mp_vectors *v,
                   struct mp_timeouts *t);
void mp__push_result(lua_State *L, struct mp_result *r); /* takes it over */

/* ---- batchers: batcher.c ---- */

/* Counted: submissions that nobody waits for any more may outlive the userdata. */
struct mp__gatherer {
    mp_batcher *batcher; /* NULL: closed */
    struct mp__rt *rt;
    int refs;
};

struct mp__plan { /* a spec without rows, as the engine takes it */
    struct mp_request request;
    struct mp_vectors vectors;
    struct mp_timeouts timeouts;
};

struct mp__gatherer *mp__check_gatherer(lua_State *L, int idx); /* borrowed */
void mp__gatherer_unref(struct mp__gatherer *g);
const struct mp__plan *mp__check_plan(lua_State *L, int idx);
/* An enum mp_err; total in seconds. */
int mp__gather(struct mp__gatherer *g, const struct mp__plan *p, const struct mp_str *rows,
               size_t n, const struct mp_gather *how, double total, mp_done_fn *done, void *arg,
               uint64_t *ticket);
void mp__gather_cancel(struct mp__gatherer *g, uint64_t ticket);
void mp__open_batcher(lua_State *L);

void mp__open_policy(lua_State *L);
void mp__open_result(lua_State *L);
void mp__open_call(lua_State *L);

#endif

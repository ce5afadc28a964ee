/* bridge_call.c - a request copied in the host's thread, so that the engine's needs nothing of it. */
#include "engine/bridge.h"

#include <stdlib.h>
#include <string.h>

static size_t measure(const struct mp_request *q, const struct mp_gather *how)
{
    size_t n = q->nrows * sizeof(struct mp_str);
    for (size_t i = 0; q->rows != NULL && i < q->nrows; i++)
        n += q->rows[i].n;
    return n + (how != NULL ? how->key.n + how->group.n : 0);
}

static char *put(char **at, const char *p, size_t n)
{
    char *to = *at;
    if (n > 0)
        memcpy(to, p, n);
    *at += n;
    return to;
}

static int copy_rows(struct mp__bcall *c, const struct mp_request *q, const struct mp_gather *how)
{
    size_t total = measure(q, how);
    c->bytes = total;
    c->rows = malloc(total + 1);
    if (c->rows == NULL)
        return mp__fail(MP_ENOMEM, "out of memory");
    char *at = (char *)(c->rows + q->nrows);
    c->nrows = (uint32_t)q->nrows;
    for (size_t i = 0; i < q->nrows; i++)
        c->rows[i] = q->rows == NULL || q->rows[i].p == NULL
                         ? (struct mp_str){NULL, 0}
                         : (struct mp_str){put(&at, q->rows[i].p, q->rows[i].n), q->rows[i].n};
    if (how == NULL)
        return 0;
    memcpy(&c->gather, how, how->size < sizeof(c->gather) ? how->size : sizeof(c->gather));
    c->gather.size = sizeof(c->gather);
    c->gather.key = (struct mp_str){put(&at, how->key.p, how->key.n), how->key.n};
    c->gather.group = (struct mp_str){put(&at, how->group.p, how->group.n), how->group.n};
    c->gathered = 1;
    return 0;
}

int mp__bcall_copy(struct mp__bcall *c, const struct mp_request *q, const struct mp_gather *how)
{
    struct mp__buf b;
    mp__buf_init(&b, 0);
    int rc = mp__frame_write(&b, q);
    if (rc == 0)
        rc = mp__frame_take(&c->frame, &b, q);
    mp__buf_free(&b);
    if (rc != 0)
        return mp__fail(rc,
                        rc == MP_EINVAL ? "prefix, suffix: an impossible length" : "out of memory");
    if (q->policy != NULL) {
        memcpy(&c->policy, q->policy,
               q->policy->size < sizeof(c->policy) ? q->policy->size : sizeof(c->policy));
        c->frame.request.policy = &c->policy;
    }
    rc = copy_rows(c, q, how);
    if (rc != 0)
        mp__bcall_clear(c);
    return rc;
}

void mp__bcall_clear(struct mp__bcall *c)
{
    mp__frame_free(&c->frame);
    free(c->rows);
    c->rows = NULL;
}

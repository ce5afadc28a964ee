/*
 * hooks.h - decisions that a script may take, as the engine asks for them.
 *
 * mp_client_config.hooks and mp_request.hooks point to a struct mp__hooks; what is NULL in it is
 * decided by the policy alone. Every hook runs inside the engine's turn, between mp__hook_enter and
 * mp__hook_leave: calls cancelled and clients closed meanwhile (say by a finalizer) end in the next
 * turn, and nothing may be submitted.
 */
#ifndef MP_ENGINE_HOOKS_H
#define MP_ENGINE_HOOKS_H

#include "moonpool.h"
#include "policy/core.h"

struct mp__call;
struct mp__attempt;

struct mp__offer { /* the rows that the batch policy would send next */
    const void *call;
    uint64_t first;
    uint64_t left; /* rows of the call not yet sent, these included */
    uint32_t count;
    uint64_t bytes;
    double tokens;
};

struct mp__hooks {
    struct mpp_hooks core;                                       /* first; its arg is everybody's */
    uint32_t (*batch)(void *arg, const struct mp__offer *offer); /* rows, fewer; 0: as offered */
    double (*tokens)(void *arg, const void *call, uint64_t row); /* < 0: by the bytes */
    void (*before)(void *arg, struct mp__attempt *a);            /* its request is built */
    void (*after)(void *arg, struct mp__attempt *a); /* its reply is in, not yet judged by policy */
    void (*retain)(void *arg);                       /* a client or call keeps the hooks */
    void (*release)(void *arg);
};

/* ---- facts, valid during the hook ---- */

struct mp__call_facts {
    void *arg; /* of mp_request */
    const char *method, *path;
    uint64_t ticket, nrows;
    const struct mp_str *rows; /* NULL: bodies come from a source */
};
void mp__hook_call(const void *call, struct mp__call_facts *out);

struct mp__attempt_facts {
    const struct mp__call *call;
    const struct mpp_client *client;
    const struct mpp_part_facts *part; /* NULL: not known any more */
    const char *host, *url, *request_id, *message;
    const char *request;
    size_t request_len;
    const char *head; /* "name: value\n" lines of the reply */
    size_t head_len;
    const char
        *body; /* of the reply, where it is kept: no vectors, no stream; errors up to 16 KiB */
    size_t body_len;
    uint64_t received;
    int64_t tokens; /* usage of a reply with vectors; -1: unknown */
    double time;    /* s since it started */
    double retry_after;
    uint32_t endpoint;
    enum mp_kind kind;
    int status;
    int is_hedge;
};
void mp__hook_attempt(const struct mp__attempt *a, struct mp__attempt_facts *out);
/* The attempt whose end the core is deciding about; NULL: none. */
const struct mp__attempt *mp__hook_last(const struct mpp_part_facts *part);

/* ---- deeds; MP_EINVAL changes nothing, mp_last_error() says why ---- */

struct mp__rewrite { /* NULL: as it is */
    const struct mp_header *headers;
    size_t nheaders;
    const char *path;
    const char *body;
    size_t body_len;
};
int mp__hook_rewrite(struct mp__attempt *a, const struct mp__rewrite *rewrite); /* in before */
int mp__hook_replace(struct mp__attempt *a, const char *body, size_t n);        /* in after */
int mp__hook_refuse(struct mp__attempt *a, const char *message);                /* in after */

void mp__exchange_drop(struct mp_exchange *x); /* frees what it says, not itself */

/* ---- around a hook ---- */

void mp__hook_enter(struct mp_engine *e);
void mp__hook_leave(struct mp_engine *e);
void mp__hook_warn(struct mp_engine *e, const char *message);

#endif

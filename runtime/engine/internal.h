/*
 * internal.h - the engine's own structures.
 *
 * engine.c   the turn, life of the engine        client.c   endpoints, headers, pools
 * call.c     submit, ends                        attempt.c  one exchange: start, bytes, verdict
 * part.c     a call cut into parts
 * result.c   what the caller gets                attempt_request.c  its body, URL, headers, ids
 * hooks.c    decisions of scripts                hint.c     what faults say to an operator
 * gather.c   batchers: many callers, few requests
 * names.c    name look-ups in threads            redirect.c  the few that are followed
 * transport*.c  curl and libuv
 */
#ifndef MP_ENGINE_INTERNAL_H
#define MP_ENGINE_INTERNAL_H

#include "base/buf.h"
#include "base/clock.h"
#include "base/heap.h"
#include "base/hist.h"
#include "base/list.h"
#include "base/prng.h"
#include "base/slab.h"
#include "codec/decode.h"
#include "engine/hooks.h"
#include "engine/transport/transport.h"
#include "moonpool.h"
#include "policy/core.h"

#include <sys/types.h>
#include <uv.h>

#define MP__MAX_HEAD       (64 * 1024)
#define MP__MAX_ERROR_BODY (16 * 1024)
#define MP__MAX_HEADERS    100
#define MP__TURN_NS        2000000 /* of work before a turn hands back to the loop */

/* ---- names ---- */

struct mp__waiter {
    struct mp__link link;
    void (*ready)(struct mp__waiter *w);
};

struct mp__name {
    struct mp_engine *engine;
    struct mp__name *next;
    char *host;
    char *addresses;     /* "1.2.3.4,[::1]"; NULL: none known */
    const char *failure; /* of the last look-up; NULL: it worked */
    uint64_t version;    /* grows with every change of addresses */
    mp__time fresh_until;
    unsigned looking : 1;
    unsigned missing : 1; /* failure: there is no such name, asking again is no use */
    struct mp__link waiters;
};

struct mp__names;
struct mp__names *mp__names_new(struct mp_engine *e);
void mp__names_close(struct mp__names *n, void (*closed)(void *arg), void *arg);
struct mp__name *mp__name_get(struct mp_engine *e, const char *host); /* lives with the engine */
/* 1: addresses or failure are known now; 0: `w` is linked and called when they are. */
int mp__name_wait(struct mp__name *name, struct mp__waiter *w, mp__time now);

/* ---- pools and clients ---- */

struct mp_pool {
    struct mp_engine *engine;
    struct mp_pool *next;
    struct mp__transport *transport;
    struct mpp_pool *slots;
    struct mp_pool_config cfg;
    int refs;
};

struct mp__endpoint {
    struct mp__url url;
    struct mp__target target;
    struct mp__hdr *with_body, *without_body; /* client's and endpoint's headers, merged */
    struct mp__header_set *headers;           /* the same as pairs, for calls that override */
    struct mp__name *name;                    /* NULL: nothing to look up */
    uint64_t name_version;
    char *resolve;
    char *health_path;
    double health_timeout;
    struct mp__xfer_probe *probe;
};

struct mp_client {
    struct mp_engine *engine;
    struct mp_client *next, **link;
    struct mp_pool *pool;
    struct mpp_client *core;
    struct mp_policy policy;
    struct mp_timeouts timeouts;
    struct mp__endpoint *endpoints;
    uint32_t nendpoints;
    int refs;                      /* the owner's and one a call */
    const struct mp__hooks *hooks; /* NULL: none */
    unsigned closed : 1, deadline_headers : 1, close_later : 1;
    unsigned plain : 1;   /* optional fields are left out: a server refuses them */
    uint32_t plain_wrong; /* refusals that named one, and were no better without */
    char *tls_ca, *tls_cert, *tls_key, *no_proxy, *proxy_http, *proxy_https, *accept_encoding;
    char *request_id_header, *request_id_prefix, *idempotency_header, *rate_key;
    struct {
        uint64_t calls, requests, rows, rows_failed, ok, failed, sent, received, opened, reused,
            refused, resets, no_ports, pool_timeouts;
        uint32_t running;
    } n;
    struct mp__label *labels; /* of the keys of mpp_call_cfg.size_key, see limits.c */
    uint32_t nlabels;
    struct { /* the last fault that no row can cause, while nothing was ever answered */
        enum mp_kind kind;
        int status;
        char words[320];
    } fault;
    struct mp__hists pool_waits; /* from admission to the first attempt */
    const char *hint;            /* static; said by mp__hint_now */
    mp__time hint_until;
};

struct mp__header_set {
    struct mp__pair {
        char *name;
        char *value;
    } * v;
    size_t n, cap;
};

int mp__header_check(const char *name, const char *value, const char **why);
int mp__header_put(struct mp__header_set *set, const char *name, const char *value);
struct mp__header_set *mp__header_copy(const struct mp__header_set *set);
void mp__header_free(struct mp__header_set *set);
struct mp__hdr *mp__header_chain(const struct mp__header_set *set, int with_body);
void mp__hdr_free(struct mp__hdr *chain);
int mp__fail(int err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

int mp__attempt_again(struct mp__attempt *a); /* its request is sent once more; 0: it cannot be */
/* The server refuses the optional field: 1, the request is on its way without it. */
int mp__optional_drop(struct mp__attempt *a);
void mp__optional_judge(struct mp__attempt *a); /* what its end says about the field */
/* The reply redirects: 1, the request is on its way again. */
int mp__redirect(struct mp__attempt *a);
void mp__redirect_message(struct mp__attempt *a); /* why not */

void mp__hint_fault(struct mp_client *c, const struct mp__xfer *x);
void mp__hint_pool(struct mp_client *c);
const char *mp__hint_now(const struct mp_client *c); /* NULL: nothing to say */

struct mp__shared_map {
    struct mp__shared_map *next;
    void *slots;
    char path[];
};

struct mp__shared_map *mp__shared_open(struct mp_engine *e, const char *path); /* NULL: why */
void mp__shared_fini(struct mp_engine *e);
/* The place for what these bytes name; NULL: all places are taken. */
struct mpp_shared *mp__shared_slot(struct mp__shared_map *m, const char *what, size_t n,
                                   mp__time now);
void mp__client_unref(struct mp_client *c);
void mp__pool_unref(struct mp_pool *p);
/* The endpoint's target with the addresses that are known now. */
const struct mp__target *mp__endpoint_target(struct mp_client *c, struct mp__endpoint *ep);
void mp__probe_start(struct mp_client *c, uint32_t endpoint);
void mp__probes_stop(struct mp_client *c);

/* ---- calls ---- */

struct mp__part;
struct mp__attempt;

struct mp__call {
    struct mp_engine *engine;
    struct mp_client *client;
    struct mpp_call *core;
    struct mp__call *next; /* finished, waiting for delivery or mp_poll */
    uint64_t ticket;
    const char *method, *path;
    const struct mp_str *rows;
    size_t nrows, cursor;
    struct mp_str prefix, suffix, row_prefix, row_suffix, tail;
    size_t optional_at, optional_n;
    struct mp__span *back; /* rows that came back, in order */
    size_t nback, backcap;
    struct mp_vectors vectors;
    struct mp__header_set *headers; /* NULL: none of its own */
    struct mp__hdr **chains;        /* per endpoint and with/without body, made on first use */
    struct mp_timeouts timeouts;
    const struct mp_policy *policy;
    const struct mp__hooks *hooks; /* NULL: none */
    mp_source_fn *source;
    void *source_arg;
    const struct mp_header *(*row_headers)(void *arg, uint64_t row, size_t *n);
    mp_done_fn *done;
    void *arg;
    void (*head)(void *arg, int status, const char *head, size_t head_len);
    int (*chunk)(void *arg, const char *p, size_t n);
    struct mp__attempt *streaming;
    struct mp_result *result;
    mp__time created;
    uint64_t owned_bytes;
    size_t results_cap;
    uint64_t covered; /* rows that exchanges speak for */
    uint32_t mode, row_style, flags;
    uint32_t parts_made;
    uint64_t witness;    /* a row with a vector of its own, plus one; 0: none yet */
    unsigned varied : 1; /* rows differ: the server is no constant */
    unsigned has_vectors : 1, cancelled : 1, finished : 1, lost : 1, cancel_later : 1;
};

struct mp__span {
    uint64_t first, end;
};

struct mp__part {
    struct mp__call *call;
    struct mpp_part *core;
    uint64_t first;
    uint32_t count;
    uint32_t serial;
    struct mp__attempt *running; /* at most two */
    struct mp__attempt *last;    /* the newest that ended, kept for its facts */
};

enum mp__attempt_state { MP__NAMING = 1, MP__SENDING, MP__ENDED };

struct mp__attempt {
    struct mp__xfer xfer;
    struct mp__waiter waiter;
    struct mp__timer timer;
    struct mp__attempt *next;
    struct mp_engine *engine;
    struct mp_client *client;
    struct mp_pool *pool;
    struct mp__call *call; /* NULL: a loser that drains */
    struct mp__part *part;
    uint64_t id;
    uint32_t endpoint;
    mp__time started;
    mp__time sent_at; /* the same, or the last redirect */
    enum mp__attempt_state state;
    enum mp_kind kind; /* how it ended */
    enum mp_kind stop; /* why we stopped reading: TOO_LARGE, DECODE */
    int status;
    unsigned is_hedge : 1, discard : 1, header_done : 1, wrong_dim : 1, decoding : 1;
    unsigned first_byte : 1, counted : 1, streamed : 1;
    unsigned optional : 1, trial : 1; /* the optional field was sent; is left out to see */
    unsigned partial : 1; /* a reply that is short of items, and good for those it has */
    uint8_t hops;         /* redirects followed */
    uint8_t heads;        /* that came: interim ones, and the reply's */
    uint16_t nheaders;
    uint64_t received;
    struct mpp_hints hints;
    struct mp__shape shape;
    float *scratch; /* a hedge decodes beside the matrix, copied if it wins */
    uint32_t scratch_dim;
    struct mp__hdr *row_chain;
    struct mp__hdr own[5];
    const char *request_id; /* in own_text */
    /* From here on kept from use to use, and not cleared. */
    struct mp__decoder *decoder;
    struct mp__buf body; /* request */
    struct mp__buf head; /* "name: value\n" lines */
    struct mp__buf reply;
    struct mp__buf url;
    char message[320];
    char own_text[5][192];
};

int mp__call_check(struct mp_engine *e, const struct mp_request *q);
int mp__request_check(const struct mp_request *q); /* what needs no engine, from any thread */
void mp__call_give_part(struct mp__call *call, const struct mpp_action *want);
void mp__call_back(struct mp__part *part); /* its rows are to be cut anew */
int mp__call_check_path(const char *path);
void mp__call_split(struct mp__part *part, struct mpp_part *other, uint32_t keep);
void mp__call_part_done(struct mp__part *part, const struct mpp_action *act);
void mp__call_done(struct mp__call *call, enum mp_kind kind);
void mp__call_free(struct mp__call *call);
struct mp__part *mp__part_of(struct mpp_part *part);
void mp__part_free(struct mp__part *part);
struct mp__hdr *mp__call_chain(struct mp__call *call, uint32_t endpoint, int with_body);

void mp__attempt_start(struct mp__part *part, const struct mpp_action *act);
int mp__attempt_joined(struct mp__attempt *a, int optional); /* its body, from its rows */
/* Body, URL and headers of `a`; 0 or a negative error with the message in `a`. */
int mp__attempt_build(struct mp__attempt *a, const struct mpp_part_facts *facts, mp__time now);
/* Is the reply one vector for texts that differ? Such servers give every text the same answer. */
int mp__same_for_all(const struct mp__attempt *a);
/* What a good reply with vectors says it used: by its body, or by a header; -1: nothing. */
void mp__attempt_usage(const struct mp__attempt *a, int64_t *prompt, int64_t *total);
int mp__attempt_url(struct mp__attempt *a, const char *path);
/* Its own list of headers: the endpoint's, the call's, the row's and those of a hook. */
int mp__attempt_headers(struct mp__attempt *a, const struct mp_header *more, size_t n);
void mp__attempt_abort(struct mp__attempt *list, uint64_t id);
void mp__attempt_timer(struct mp__attempt *a);
void mp__attempt_free(struct mp__attempt *a);
void mp__attempt_resume(struct mp__attempt *a); /* its streamed reply may go on */
void mp__attempt_leave(struct mp__attempt *a);  /* its part is over while it still runs */
enum mp__row_fault { MP__ROW_FINE, MP__ROW_DIMENSION, MP__ROW_TOO_MANY, MP__ROW_NO_MEMORY };
const char *mp__row_words(enum mp__row_fault fault);
/* Where the row's vector goes; NULL: *fault says why not. */
float *mp__call_row(struct mp__call *call, uint64_t row, uint32_t dim, enum mp__row_fault *fault);

/* ---- limits of size that the core learns ---- */

uint64_t mp__limit_key(struct mp_client *c, const char *path, const char *model);
void mp__limit_learnt(struct mp_client *c, const struct mpp_limit *limit);
void mp__limits_free(struct mp_client *c);

/* Adds an exchange for rows [first, first+count). */
int mp__result_add(struct mp__call *call, const struct mp_exchange *x, const char *head,
                   const char *message, const char *request_id, const char *body);
/* Drops a matrix without a good row, else makes rows without a vector NaN; `view`: they are. */
void mp__result_finish(struct mp_result *r, int view);
/* Head, message, id and body in one block; lengths are the exchange's. NULL: out of memory. */
char *mp__exchange_pack(struct mp_exchange *x, const char *head, const char *message,
                        const char *id, const char *body);
int mp__result_fault(struct mp_result *r, uint64_t row, const char *why); /* or MP_ENOMEM */
/* Takes over the rows that a good reply has no vector for; how many, or MP_ENOMEM. */
int mp__result_faults(struct mp_result *r, uint64_t first, const struct mp__decoder *d);
void mp__result_seal(struct mp__call *call, enum mp_kind kind, mp__time now);

/* ---- hooks ---- */

uint32_t mp__hook_batch(struct mp__call *call, const struct mp__offer *offer); /* rows to take */
void mp__hook_later(struct mp_engine *e); /* what was put off while a hook ran */

/* ---- batchers ---- */

/* Whether a batcher takes it; from any thread. */
int mp__gather_check(const struct mp_request *q, const struct mp_gather *how);
void mp__gather_init(struct mp_engine *e);
void mp__gather_fini(struct mp_engine *e);
void mp__gather_close(struct mp_engine *e, const struct mp_client *client); /* NULL: all */
void mp__gather_timer(struct mp_engine *e, struct mp__timer *t);
void mp__gather_turn(struct mp_engine *e);
int mp__gather_deliver(struct mp_engine *e, mp__time until); /* 1: some are left */

/* ---- engine ---- */

struct mp__slot {
    uint32_t generation;
    uint32_t next_free;
    struct mp__call *call;
};

struct mp_engine {
    uv_loop_t *loop;
    int owns_loop;
    pid_t pid;
    struct mp_config cfg;
    struct mpp_core *core;
    struct mp__heap timers; /* of attempts; the core keeps its own */
    uv_check_t check;
    uv_idle_t idle;
    uv_timer_t timer;
    struct mp__names *names;
    struct mp__name *name_list;
    struct mp__slot *slots;
    uint32_t nslots, free_slot;
    struct mp_pool *pools;
    struct mp_client *clients;
    struct mp__attempt *free_attempts;
    struct mp__attempt *draining;               /* losers of a hedge that keep their connection */
    struct mp__call *finished, **finished_tail; /* to deliver by callback */
    struct mp__call *polled, **polled_tail;     /* to hand out by mp_poll */
    uint32_t npolled;    /* calls in it: nothing will happen to them on the loop */
    uint32_t calls_open; /* submitted, not yet delivered or polled */
    uint32_t attempts_open;
    struct mp__shared_map *shared_maps;
    struct mp__link batchers;
    struct mp__slab submissions;
    struct mp__link submissions_done; /* to deliver by callback */
    uint32_t submissions_open;        /* not yet delivered */
    uint64_t queued_bytes;
    mp__time now; /* of the action being performed, as the core was told */
    uint64_t id_salt;
    uint64_t target_ids;
    mp__time next_hint; /* not in the log before */
    unsigned in_hook;   /* depth */
    unsigned dirty : 1, live : 1, closing : 1, down : 1, in_turn : 1, delivered : 1;
    unsigned in_wait : 1, close_wanted : 1;
    unsigned later : 1; /* calls and clients wait to be cancelled or closed behind a hook */
    int closing_left;
    void (*turn_cb)(void *arg);
    void *turn_arg;
    void (*close_cb)(void *arg);
    void *close_arg;
    struct mp_stats n;
};

void mp__wake(struct mp_engine *e);
void mp__engine_part_closed(struct mp_engine *e);
void mp__engine_live(struct mp_engine *e);
void mp__log(struct mp_engine *e, enum mp_log_level level, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static inline mp__time mp__limit_at(mp__time from, double seconds)
{
    return seconds <= 0 || seconds > 1e9 ? MP__NEVER : from + (mp__time)(seconds * 1e9);
}

#endif

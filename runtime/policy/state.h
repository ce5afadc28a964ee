/*
 * state.h - the structs behind core.h and the calls between the core's own files.
 *
 * Where a thing is linked is its state:
 *   call   in client->ring while a part of it could be admitted at once; else nowhere
 *   client in core->ring while a pass over its calls may achieve something; a pass that achieves
 *          nothing takes it off until a slot frees, an alarm rings or work arrives (touch)
 *   part   READY in call->ready, WAITING in pool->waiters, PARKED in endpoint->parked,
 *          HELD in lane->held, ENDED and SPLIT in core->outbox; RUNNING and BACKOFF on no list
 *   outbox everything that mpp_next still has to tell, in order
 */
#ifndef MP_POLICY_STATE_H
#define MP_POLICY_STATE_H

#include "policy/breaker.h"
#include "policy/concurrency.h"
#include "policy/core.h"
#include "base/heap.h"
#include "base/hist.h"
#include "base/list.h"
#include "policy/rate.h"
#include "policy/retry.h"
#include "policy/size.h"
#include "base/slab.h"
#include "base/time.h"

#define MPP_MAX_ENDPOINTS 256
#define MPP_LOOK_AHEAD    64
#define MPP_AGE_LIMIT     (2 * MP__SECOND)
#define MPP_WIDTH         8    /* requests of an untried size at once */
#define MPP_SLACK         1.25 /* texts differ in length: that much more is no new size */

enum mpp_timer_kind { MPP_T_CALL = 1, MPP_T_PART, MPP_T_CLIENT, MPP_T_TRICKLE, MPP_T_HEALTH };

enum mpp_told {
    MPP_TELL_ABORT = 1,
    MPP_TELL_PART,
    MPP_TELL_SPLIT,
    MPP_TELL_BACK,
    MPP_TELL_CALL,
    MPP_TELL_LIMIT,
    MPP_TELL_PROBE
};

struct mpp_note { /* an entry of the outbox */
    struct mp__link link;
    uint8_t what; /* enum mpp_told */
};

struct mpp_health {
    uint8_t healthy;
    uint8_t asked;    /* a probe is on its way */
    uint8_t failures; /* in a row, of this check */
    double interval;
    mp__time sent;
    struct mp__timer timer;
    struct mpp_note note;
};

struct mpp_endpoint {
    struct mpp_client *client;
    uint32_t index;
    struct mpp_endpoint_cfg cfg;
    uint32_t used; /* running attempts and admitted parts that wait for a connection */
    uint32_t running;
    mp__time not_before;
    mp__time throttled_at; /* last time; with throttled_once */
    uint8_t throttled_once;
    uint32_t door_faults; /* see door.c */
    uint8_t door_steps;
    uint8_t reached;  /* has ever answered or accepted a connection */
    mp__time knocked; /* first failure while never reached; 0 none */
    struct mpp_budget budget, hedge;
    struct mp__link parked;
    uint32_t nparked;
    struct mp__timer trickle;
    double trickle_wait;
    uint64_t first_at_trickle; /* stats.first when the trickle was armed */
    struct mpp_breaker breaker;
    struct mpp_concurrency concurrency;
    struct mpp_rate *rate;
    struct mp__hists hists;
    struct mpp_health health;
    double tokens_per_byte;
    double latency; /* EWMA of acceptable replies, s; 0 unknown */
    mp__time latency_at;
    struct mpp_endpoint_stats stats; /* its counters; the rest is filled when asked */
    uint64_t first;                  /* first attempts */
};

struct mpp_pool {
    struct mpp_core *core;
    uint32_t refs;
    uint32_t max_running, running;
    struct mp__link waiters; /* parts */
    uint32_t nwaiters;
    struct mp__link link; /* in core->pools while it has waiters and a free slot */
};

struct mpp_lane { /* requests that a server judges alike, see lane.c */
    struct mpp_client *client;
    struct mp__link link; /* in client->lanes, the latest used first */
    uint64_t key;
    uint32_t refs; /* calls */
    struct mpp_size size;
    uint64_t taken;      /* parts that were */
    uint64_t taken_then; /* when the last was refused for its size */
    uint32_t width, risky, probing;
    struct mpp_call *probe_of;
    mp__time probed_at;
    struct mpp_call *seeker; /* whose part is the tree; NULL: none. See split.c */
    uint64_t taken_before;   /* when the tree began */
    uint32_t tree, pieces;
    struct mp__link held; /* refused parts that wait for what the tree finds */
    struct mpp_note note;
    uint8_t trial;  /* 1: wanted, 2: on its way. See mpp_size_doubtful */
    uint64_t known; /* the limit as it was told last */
    uint8_t known_unit;
};

struct mpp_client {
    struct mpp_core *core;
    struct mpp_pool *pool;
    struct mp_policy policy;
    const struct mpp_hooks *hooks;
    void *user;
    struct mpp_endpoint *endpoints;
    uint32_t n;
    struct mp__link ring;   /* calls */
    struct mp__link calls;  /* all of them */
    struct mp__link hedges; /* parts whose hedge is due and waits for a slot */
    struct mp__link strays; /* attempts left to drain after their part ended */
    struct mp__link link;   /* in core->ring */
    struct mp__link lanes;
    struct mp__timer wake;
    uint32_t nlanes;
    uint8_t answered;     /* has ever had a good reply, see door.c */
    uint32_t door_faults; /* before */
    mp__time door_since;
    uint32_t admitted;
    uint32_t nwaiting; /* parts, for a connection */
    uint32_t ncalls, nattempts;
    uint64_t ticket;
    uint8_t closing;
};

struct mpp_call {
    struct mpp_client *client;
    const struct mp_policy *policy;
    const struct mpp_hooks *hooks;
    struct mpp_lane *lane;
    uint64_t given_up_at;   /* lane->taken when it was found hopeless */
    struct mpp_part *spare; /* asked for, not yet given */
    void *user;
    struct mp__link link;     /* in client->ring */
    struct mp__link siblings; /* in client->calls */
    struct mp__link ready, parts;
    struct mp__timer deadline;
    mp__time deadline_at;
    mp__time pool_timeout; /* ns, 0: none */
    struct mpp_note note;
    uint32_t max_concurrent, admitted, live;
    int32_t pinned, stuck_to; /* endpoints; -1 none */
    uint8_t lone, lone_kind;  /* single rows of the tree that were refused */
    uint8_t hopeless;         /* refused parts fail as they are, until one is taken */
    uint8_t in_turn;          /* a part was asked for in its turn: it has the next */
    uint8_t trial;            /* the part that is asked for is one */
    uint8_t calm;             /* timeouts are no matter of size, until one is taken */
    uint8_t more;             /* there may be more parts */
    uint8_t dry;              /* but not before mpp_call_ready */
    uint8_t ended, told;
    uint8_t idempotent;
    uint8_t rows_alike;
    uint8_t kind;
};

enum mpp_part_state {
    MPP_READY = 1,
    MPP_WAITING,
    MPP_RUNNING,
    MPP_BACKOFF,
    MPP_PARKED,
    MPP_HELD,
    MPP_SPLITTING, /* until the receiver has been told */
    MPP_ENDED
};

struct mpp_part {
    struct mpp_part_facts facts;
    struct mpp_call *call;
    struct mp__link siblings; /* in call->parts until it ends */
    struct mp__link queue;    /* by its state */
    struct mp__link hedging;  /* in client->hedges */
    struct mpp_note note;
    struct mp__timer timer; /* BACKOFF: resume; WAITING: pool timeout; RUNNING: hedge */
    struct mpp_attempt *run[2];
    struct mpp_endpoint *endpoint; /* of the admission or the last attempt */
    struct mpp_part *half;         /* SPLIT: the new one */
    mp__time ready_since;
    mp__time resume_at;
    double hedge_wait; /* s */
    uint64_t tried;    /* endpoints 0..63 */
    uint64_t winner;
    uint32_t keep;
    uint32_t faults; /* transient failures since it got its present rows */
    uint8_t state;
    uint8_t kind;      /* ENDED */
    uint8_t last_kind; /* of the last failure */
    uint8_t retryable; /* likewise, the verdict of hooks included */
    uint8_t decode_faults;
    uint8_t holding;    /* the exclusive right to reserve at some rate */
    uint8_t is_probe;   /* its next attempt is the breaker's probe */
    uint8_t unearned;   /* a half: its first attempt is an extra request */
    uint8_t risk;       /* as which its lane counts it while it is admitted */
    uint8_t refusal;    /* HELD: how it was refused */
    uint8_t most;       /* attempts; 0: as the policy says */
    uint8_t lonely;     /* counted as a single row that was refused */
    uint8_t trial;      /* larger than the limit, on purpose */
    uint8_t last_first; /* SPLIT: the new one goes first */
    uint8_t twin_taken, whole_soft;
    uint32_t tree; /* the piece of which; 0: none */
    uint64_t whole_rows, whole_bytes;
    struct mpp_part *twin;
    uint64_t taken_before; /* of its lane, when it first failed */
};

enum mpp_attempt_state { MPP_A_FREE = 0, MPP_A_RUNNING, MPP_A_ABORTING };

struct mpp_attempt {
    struct mp__link stray;
    struct mpp_note note;  /* abort */
    struct mpp_part *part; /* NULL: a stray */
    struct mpp_endpoint *endpoint;
    mp__time started;
    double tokens; /* reserved */
    uint64_t bytes;
    uint32_t index, gen, size_class;
    uint8_t state, is_hedge, first_byte, is_probe;
};

struct mpp_core {
    uint64_t rng;
    uint32_t max_calls;
    uint8_t drain_losers;
    mp__time now;
    struct mp__heap heap;
    struct mp__slab calls, parts, attempts;
    struct mp__link outbox;
    struct mp__link ring;       /* clients */
    struct mp__link pools;      /* with waiters and room */
    struct mp__link asking;     /* calls (by note.link) without parts: is there more? */
    struct mp__link rates;      /* with a key */
    struct mpp_part *told_part; /* freed by the next mpp_next */
    struct mpp_call *told_call;
    struct mpp_core_stats stats;
};

/* ---- core.c ---- */
void mpp_tell(struct mpp_core *core, struct mpp_note *note, enum mpp_told what);
struct mpp_endpoint *mpp_endpoint_of(const struct mpp_client *client, uint32_t index);

/* ---- client.c ---- */
void mpp_client_touch(struct mpp_client *client); /* something may be possible again */
void mpp_client_wake(struct mpp_client *client, mp__time at);
void mpp_client_maybe_free(struct mpp_client *client);
void mpp_pool_freed(struct mpp_pool *pool); /* a slot */
void mpp_endpoint_pause(struct mpp_endpoint *ep, mp__time until);

/* ---- call.c ---- */
void mpp_call_touch(struct mpp_call *call);
void mpp_call_after_part(struct mpp_call *call); /* one of its parts ended */
void mpp_call_free(struct mpp_call *call);
int mpp_call_has_work(const struct mpp_call *call);
int mpp_call_may_ask(const struct mpp_call *call);
int mpp_call_ask(struct mpp_call *call, struct mpp_action *out); /* 0: no memory for the part */
void mpp_call_end(struct mpp_call *call, enum mp_kind kind);

/* ---- part.c ---- */
struct mpp_part *mpp_part_new(struct mpp_call *call); /* with one row; on no list but the call's */
void mpp_part_free(struct mpp_part *part);
void mpp_part_ready(struct mpp_part *part, int first); /* first: to the head of the queue */
void mpp_part_admit(struct mpp_part *part, struct mpp_endpoint *ep);
void mpp_part_unadmit(struct mpp_part *part); /* WAITING -> READY, nothing was sent */
int mpp_part_may_start(const struct mpp_part *part);
void mpp_part_leave(struct mpp_part *part); /* its slot of the call, after the last attempt */
void mpp_part_backoff(struct mpp_part *part, mp__time until);
void mpp_part_end(struct mpp_part *part, enum mp_kind kind); /* from any state */
void mpp_part_timer(struct mpp_part *part);
void mpp_part_unhold(struct mpp_part *part);

/* ---- attempt.c ---- */
struct mpp_attempt *mpp_attempt_start(struct mpp_part *part, struct mpp_endpoint *ep, int is_hedge);
uint64_t mpp_attempt_id(const struct mpp_attempt *a);
void mpp_attempt_abort(struct mpp_attempt *a);
void mpp_attempt_gone(struct mpp_attempt *a); /* slots back, freed */

/* ---- decide.c: after a failure ---- */
void mpp_decide(struct mpp_part *part, struct mpp_endpoint *ep, const struct mpp_outcome *outcome,
                const struct mpp_judgement *judgement);
uint32_t mpp_most_attempts(const struct mpp_part *part);
void mpp_retry_held(struct mpp_part *part);
void mpp_classify_hook(struct mpp_part *part, struct mpp_endpoint *ep,
                       const struct mpp_outcome *outcome, struct mpp_judgement *judgement);
void mpp_view_fill(struct mpp_view *view, const struct mpp_part *part,
                   const struct mpp_endpoint *ep);

/* ---- park.c ---- */
void mpp_park(struct mpp_part *part, struct mpp_endpoint *ep, mp__time resume_at);
void mpp_unpark(struct mpp_part *part); /* takes it off the list only */
void mpp_park_earned(struct mpp_endpoint *ep);
void mpp_park_success(struct mpp_endpoint *ep);
int mpp_park_hopeless(struct mpp_endpoint *ep); /* nobody has ever answered, for 10 s by now */
void mpp_park_trickle(struct mpp_endpoint *ep);

/* ---- door.c ---- */
int mpp_door_shut(struct mpp_part *part, struct mpp_endpoint *ep, const struct mpp_outcome *o);
void mpp_door_end(struct mpp_call *call, enum mp_kind kind);
int mpp_door_open(const struct mpp_part *part);
void mpp_door_answered(struct mpp_client *client);

/* ---- lane.c ---- */
struct mpp_lane *mpp_lane_take(struct mpp_client *client, uint64_t key); /* NULL: no memory */
void mpp_lane_give(struct mpp_lane *lane);
void mpp_lanes_free(struct mpp_client *client);
int mpp_lane_open(struct mpp_part *part, mp__time *wake); /* may the part go? */
void mpp_lane_enter(struct mpp_part *part);               /* admitted */
void mpp_lane_leave(struct mpp_part *part);
int mpp_lane_over(const struct mpp_part *part);
void mpp_lane_want(struct mpp_call *call, struct mpp_action *out);
void mpp_lane_taken(struct mpp_part *part);
void mpp_lane_tried(struct mpp_part *part); /* a trial was refused, or came to nothing */
void mpp_lane_refused(struct mpp_lane *lane, uint64_t rows, uint64_t bytes,
                      const struct mpp_outcome *outcome, int soft);
void mpp_lane_limit(const struct mpp_lane *lane, struct mpp_limit *out);

/* ---- split.c ---- */
int mpp_hopeless(const struct mpp_call *call);
int mpp_split(struct mpp_part *part, const struct mpp_outcome *outcome);
int mpp_split_last(struct mpp_part *part, const struct mpp_outcome *outcome);
void mpp_split_taken(struct mpp_part *part);
void mpp_split_forget(struct mpp_part *part);
void mpp_part_back(struct mpp_part *part);

/* ---- hedge.c ---- */
void mpp_hedge_arm(struct mpp_part *part);
void mpp_hedge_due(struct mpp_part *part);
int mpp_hedge_next(struct mpp_client *client, struct mpp_action *out);
void mpp_hedge_forget(struct mpp_part *part);

/* ---- route.c ---- */
int mpp_endpoint_open(struct mpp_endpoint *ep, const struct mpp_part *part, double tokens,
                      mp__time *wake);
int mpp_endpoint_sound(const struct mpp_endpoint *ep); /* healthy and its breaker closed */
int mpp_all_broken(const struct mpp_client *client);   /* every breaker is open */
/* NULL: none now; *wake lowered to when. */
struct mpp_endpoint *mpp_route(struct mpp_part *part, int is_hedge, mp__time *wake);

/* ---- dispatch.c ---- */
/* 1: *out is filled; 0: nothing can be done; -1: go on, the outbox may have grown. */
int mpp_dispatch(struct mpp_core *core, struct mpp_action *out);
void mpp_fill_start(struct mpp_action *out, const struct mpp_attempt *a);

/* ---- health.c ---- */
void mpp_health_start(struct mpp_endpoint *ep, mp__time now);
void mpp_health_due(struct mpp_endpoint *ep);

/* ---- observe.c: what an outcome teaches about its endpoint ---- */
void mpp_observe(struct mpp_attempt *a, const struct mpp_outcome *outcome,
                 const struct mpp_judgement *judgement);
void mpp_observe_aborted(struct mpp_attempt *a);

#endif

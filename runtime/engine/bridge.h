/*
 * bridge.h - an engine on its own thread: what its files share.
 *
 *   bridge.c       the thread, its letters, completions
 *   bridge_bell.c  how the host is woken
 *   bridge_call.c  a request copied on its way in
 *   bridge_stats.c its counters
 *
 * One lock guards the calls' table, the completions and the bells; the engine's thread takes it once
 * a turn. A call belongs to the host (until taken or dropped), to the engine's thread (until its
 * result is in), and to a letter that is under way: it is freed when nobody is left.
 */
#ifndef MP_ENGINE_BRIDGE_H
#define MP_ENGINE_BRIDGE_H

#include "base/mailbox.h"
#include "base/slab.h"
#include "engine/frame.h"
#include "engine/internal.h"

#include <pthread.h>

enum mp__letter_kind { MP__L_SUBMIT = 1, MP__L_CANCEL, MP__L_CLOSE };

struct mp__letter {
    struct mp__link link;
    enum mp__letter_kind kind;
};

struct mp__bcall {
    struct mp__link link; /* of completions: fresh, then ready */
    struct mp__letter submit, cancel;
    struct mp_bridge *bridge;
    uint32_t index, generation;
    uint32_t refs;
    uint8_t asked;            /* a cancel letter was sent */
    uint8_t dropped;          /* the host wants no completion */
    uint8_t done;             /* result is the host's */
    uint8_t held, gathered;   /* never changed */
    uint8_t submitted, ended; /* the engine's thread only, as is ticket */
    uint64_t ticket;          /* of the engine or the batcher */
    void *arg;
    struct mp_result *result;
    /* The request: frame, rows, and how to gather. */
    struct mp__frame frame;
    struct mp_policy policy;
    struct mp_gather gather;
    struct mp_str *rows;
    uint32_t nrows;
    uint64_t bytes; /* of the rows' block */
};

struct mp__bells {
    int event;    /* eventfd */
    int listener; /* of a socket nobody has connected to yet */
    int socket;
    char path[108];
};

struct mp_bridge {
    pid_t pid;
    pthread_t thread;
    pthread_mutex_t lock; /* for these */
    pthread_cond_t started;
    int state; /* 0: starting, 1: runs, 2: closing */
    struct mp__slab calls;
    struct mp__link ready;
    uint32_t max_open;
    uint64_t max_bytes, bytes;
    struct mp__bells bells;
    struct mp_bridge_stats n;
    uv_loop_t loop; /* the engine's thread only, from here on */
    struct mp__mailbox *box;
    mp_engine *engine;
    mp_client *client;
    mp_batcher *batcher;
    uv_timer_t beat;
    struct mp__link fresh;
    struct mp__letter close;
    mp__time counted; /* the last snapshot of statistics */
    int closing, box_closed, beat_closed, engine_closed;
    /* Of the registry of names. */
    struct mp_bridge *next;
    char *name, *note;
    int users;
    const struct mp_bridge_config *config; /* while it starts */
    int rc;
    char message[256];
};

int mp__bridge_check(mp_bridge *b); /* a bridge, and of this process */

/* bridge_call.c: 0, MP_EINVAL, MP_ENOMEM. */
int mp__bcall_copy(struct mp__bcall *c, const struct mp_request *q, const struct mp_gather *how);
void mp__bcall_clear(struct mp__bcall *c);

/* bridge_bell.c; the lock is held but for init and fini. */
int mp__bells_init(struct mp__bells *b);
void mp__bells_fini(struct mp__bells *b);
void mp__bells_ring(struct mp__bells *b);
void mp__bells_quiet(struct mp__bells *b); /* nothing is left to take */
void mp__bells_beat(struct mp__bells *b);  /* a sign of life, for the socket */

#endif

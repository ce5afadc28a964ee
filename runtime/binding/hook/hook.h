/*
 * hook.h - decisions in Lua.
 *
 * A hook set is a userdata with a Lua function a place and the C callbacks that ask them. It lives
 * in three pieces with lives of their own:
 *   the userdata     holds the functions; while it lives hooks are asked
 *   struct mp__hookset  what the engine keeps by reference; counted, without Lua values in it, so a
 *                    set that is collected before its last call ends just decides nothing any more
 *   struct mp__hook_counts  the numbers, shared by a client's set and those of its calls
 *
 * One call of a hook: a fresh view is made, the function is called by lua_pcall on one thread of
 * its own that cannot yield, its results are read into a struct mp__verdict while they are alive.
 * Error, bad verdict or too much time: the default decision, counted. Views are good for that one
 * call; afterwards reading one raises.
 */
#ifndef MP_BINDING_HOOK_HOOK_H
#define MP_BINDING_HOOK_HOOK_H

#include "base/clock.h"
#include "binding/client/client.h"
#include "engine/hooks.h"

#include <pthread.h>
#include <stdatomic.h>

#define MP__HOOKS_TYPE "moonpool.core.hooks"

enum mp__hook {
    HOOK_CLASSIFY,
    HOOK_RETRY,
    HOOK_HEDGE,
    HOOK_ROUTE,
    HOOK_CONCURRENCY,
    HOOK_BREAKER,
    HOOK_RATE,
    HOOK_BATCH,
    HOOK_TOKENS,
    HOOK_BEFORE,
    HOOK_AFTER,
    HOOK_GIVEUP,
    HOOK_COUNT
};

extern const char *const mp__hook_names[HOOK_COUNT]; /* as options of the client */

struct mp__hook_counts {
    int refs;
    struct {
        uint64_t calls, errors, bad, slow, stopped;
    } by[HOOK_COUNT];
    mp__time time;      /* in hooks, together */
    mp__time logged_at; /* the last line; 0: none */
    uint64_t unlogged;  /* failures since then */
    char last[240];     /* the last failure */
};

struct mp__hookset {
    struct mp__hooks c; /* first: what the engine and the simulator get */
    struct mp__rt *rt;
    struct mp__hook_counts *counts;
    int refs;
    uint32_t has; /* bits by enum mp__hook */
    int dead;     /* its userdata is gone: no Lua from here on */
    int alone;    /* without an engine: call_user and part->info.user are not the engine's */
};

struct mp__verdict {
    enum mpp_verdict answer; /* MPP_DEFAULT: none, all else is as it was */
    double number;           /* delay, wait, tokens, rows, endpoint; < 0: none */
    enum mpp_class cls;
};

/* What a hook is asked about. Filled by hook_decide.c, read by the view. */
struct mp__hook_case {
    struct mp__hookset *hs;
    enum mp__hook which;
    const struct mpp_view *core;   /* the core's hooks */
    struct mp__attempt *attempt;   /* before and after */
    const struct mp__offer *offer; /* batch */
    const void *call;              /* the engine's call; NULL: there is none */
    uint64_t row;                  /* tokens */
    enum mp_kind kind;             /* giveup */
    struct mp__verdict out;
    int bad;   /* it made no sense */
    int plain; /* what read returned says it all */
    /* Reads the two results at `first` and behind; NULL, or what was expected. May raise. */
    const char *(*read)(lua_State *L, struct mp__hook_case *c, int first);
};

/* hook.c */
/* 1: the hook ran and made sense, out is filled (perhaps with MPP_DEFAULT); 0: it did not. */
int mp__hook_ask(struct mp__hook_case *c);
struct mp__hookset *mp__hookset_test(lua_State *L, int idx); /* NULL: not one */
void mp__hook_counts_unref(struct mp__hook_counts *n);       /* NULL is fine */
void mp__push_hook_stats(lua_State *L,
                         const struct mp__hook_counts *n); /* a table; n may be NULL */

/* hook_view.c */
void mp__push_hook_view(lua_State *L, struct mp__hook_case *c);
struct mp__op *mp__hook_op(const struct mp__hook_case *c); /* of its call, or NULL */
void mp__open_hook_view(lua_State *L);

/* hook_decide.c: what the core asks; hook_request.c: what the engine asks */
void mp__hook_decisions(struct mp__hookset *hs);
void mp__hook_requests(struct mp__hookset *hs);
/* A finite number from `least` to `most` at idx: 1 and *out; nil: 0; else -1. */
int mp__hook_number(lua_State *L, int idx, double least, double most, double *out);
static inline int mp__hook_has(const struct mp__hookset *hs, enum mp__hook which)
{
    return hs->has >> which & 1;
}

/* ---- hook_watch.c: the thread that hooks run on, and the one that watches it ---- */

#define MP__HOOK_SOFT_NS 5000000 /* slower ones are counted */
#define MP__HOOK_HARD_MS 100     /* then it is stopped */

struct mp__hook_watch {
    struct mp__rt *rt;
    lua_State *H;
    lua_State *outer;           /* whom a signal would have hooked */
    uint64_t view;              /* number of the last view */
    struct mp__hook_case *open; /* the case of that view while it may be read */
    _Atomic(pthread_t) owner;
    _Atomic(uint64_t) seq;  /* odd: a hook runs */
    _Atomic(uint64_t) kill; /* the run that is to be stopped */
    _Atomic(int) asleep;
    int grace;
    int started; /* 0 not yet, 1, -1 could not be */
    int stop;
    pid_t pid;
    pthread_t thread;
    uv_mutex_t lock;
    uv_cond_t cond;
};

struct mp__hook_watch *mp__hook_watch_of(lua_State *L);
void mp__hook_begin(struct mp__hook_watch *w);
int mp__hook_end(struct mp__hook_watch *w); /* 1: it was stopped */

#endif

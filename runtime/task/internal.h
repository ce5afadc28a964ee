/*
 * internal.h - the scheduler's own types, shared by the task_*.c files, wait.c and runtime.c.
 *
 * A task is a coroutine in a scope. It is in exactly one of these places: the run queue, a wait
 * (struct mp_wait, linked to whatever will end it), running, or over. Nothing in these structs is a
 * Lua value: a live task is anchored in a registry table under its address, its coroutine, result
 * and scope in the task's user values.
 */
#ifndef MP_TASK_INTERNAL_H
#define MP_TASK_INTERNAL_H

#include <signal.h>
#include <stddef.h>

#include "task/task.h"

/* ---- intrusive circular list; a link that is in no list points at itself ---- */

struct mp__tlink {
    struct mp__tlink *prev;
    struct mp__tlink *next;
};

#define MP_OF(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

static inline void mp__tlink_init(struct mp__tlink *l)
{
    l->prev = l;
    l->next = l;
}

static inline int mp__tlink_alone(const struct mp__tlink *l)
{
    return l->next == l;
}

static inline void mp__tlink_append(struct mp__tlink *list, struct mp__tlink *l)
{
    l->prev = list->prev;
    l->next = list;
    list->prev->next = l;
    list->prev = l;
}

static inline void mp__tlink_remove(struct mp__tlink *l)
{
    l->prev->next = l->next;
    l->next->prev = l->prev;
    mp__tlink_init(l);
}

/* ---- timers: an intrusive heap under one uv_timer_t, so no handle needs closing ---- */

struct mp__ttimer {
    double when; /* uv_hrtime in seconds */
    uint64_t seq;
    void (*fire)(struct mp__ttimer *timer); /* runs no Lua */
    struct mp__ttimer *child, *next,
        *prev; /* prev: the elder sibling, or the parent of a first child */
    int armed;
};

/* What a task waits with when the source needs no memory of its own. */
struct mp__node {
    struct mp_wait w;
    struct mp__rt *rt;
    struct mp__tlink link;
    struct mp__ttimer timer;
};

/* ---- tasks and scopes ---- */

enum task_state {
    TASK_NEW,
    TASK_READY,
    TASK_RUNNING,
    TASK_WAITING,
    TASK_CLOSING, /* its <close> variables run and may not wait */
    TASK_DONE,    /* from here on it is over */
    TASK_FAILED,
    TASK_CANCELLED
};

enum cancel_why {
    WHY_NONE,
    WHY_CANCEL,   /* task:cancel(), scope:cancel() */
    WHY_SIBLING,  /* another task of the scope failed */
    WHY_DEADLINE, /* the scope's own */
    WHY_TOKEN,
    WHY_OUTER,     /* a scope further out was cancelled */
    WHY_INTERRUPT, /* SIGINT, SIGTERM */
    WHY_DEADLOCK,
    WHY_EXIT /* the main task is over */
};

struct mp__task {
    struct mp__rt *rt;
    struct mp__scope *scope; /* NULL once it is over */
    lua_State *co;
    struct mp_wait *wait;
    struct mp__tlink run;     /* in the run queue */
    struct mp__tlink sibling; /* in scope->tasks, or when over in scope->failures */
    struct mp__tlink joiners; /* mp__node.link of those who await it */
    struct mp__node node;
    int n;                /* new: values on co to start it with; done: results */
    unsigned raised;      /* times the cancellation was raised */
    unsigned char state;  /* enum task_state */
    unsigned char why;    /* enum cancel_why; not WHY_NONE: cancelled, maybe not aware of it yet */
    unsigned char failed; /* its function raised */
};

enum { TASK_UV_CO = 1, TASK_UV_RESULT, TASK_UV_SCOPE, TASK_UVS = TASK_UV_SCOPE };

struct mp__scope {
    struct mp__rt *rt; /* NULL: the runtime is gone */
    struct mp__scope *parent;
    struct mp__task *body;
    struct mp__tlink sub; /* in parent->subs */
    struct mp__tlink subs;
    struct mp__tlink tasks;
    struct mp__tlink failures; /* tasks that failed, when they are collected */
    struct mp__tlink joiners;
    struct mp__ttimer timer;
    struct mp__watch watch;
    double deadline;      /* uv_hrtime in seconds, HUGE_VAL: none; inherited */
    unsigned live;        /* tasks, and scopes below that have any */
    unsigned cut;         /* tasks that ended by cancellation */
    unsigned char why;    /* enum cancel_why */
    unsigned char failed; /* the first error is in SCOPE_UV_ERROR */
    unsigned char collect, shielded, main, ended;
};

enum { SCOPE_UV_ERROR = 1, SCOPE_UV_TOKEN, SCOPE_UV_PARENT, SCOPE_UVS = SCOPE_UV_PARENT };

struct mp__sched {
    struct mp__rt *rt;
    struct mp__tlink queue;
    struct mp__tlink later; /* mp__node.link of those who let the loop turn once */
    struct mp__task *current;
    lua_State *from;             /* who runs the loop: lua_resume's `from` */
    lua_State *volatile running; /* for the signal handler: whom to hook */
    struct mp__ttimer *timers;
    uint64_t timer_seq;
    struct mp__scope root;
    struct mp__scope *interruptible; /* what a SIGINT cancels; NULL: root */
    struct mp_wait *outer;           /* the wait outside any task that runs the loop */
    struct mp__node outer_node;
    unsigned ntasks;
    unsigned nfree;       /* reset threads kept for reuse */
    unsigned blocked;     /* resumed from where a wait cannot pass out */
    unsigned char in_run; /* uv_run is on the C stack */
    unsigned char idling, closing, hosted;
    unsigned char hook_yield; /* the signal's hook has yielded, to be closed */
    int exit_code;            /* -1: none asked for */
    int interrupted;          /* the signal's number, once the loop has seen it */
    volatile sig_atomic_t signalled;
    volatile sig_atomic_t gentle; /* the first signal only cancels `interruptible` */
    int grace;                    /* index of the next hook period */
    uv_check_t check;
    uv_idle_t idle;
    uv_timer_t timer;
    uv_async_t async;
};

#define MP_MAX_TASKS    (1u << 20)
#define MP_FREE_THREADS 256

/* What a coroutine of ours yields. Only the addresses matter. */
extern const char mp__wait_mark; /* waits for an event: pass it outward */
extern const char mp__kill_mark; /* wants to be closed: pass it outward and close */

static inline double mp__now_s(void)
{
    return (double)uv_hrtime() * 1e-9;
}

/* runtime.c */
void mp__rt_open(lua_State *L, uv_loop_t *loop); /* NULL: a loop of its own */
struct mp__rt *mp__rt_if_any(lua_State *L);      /* NULL: not open, or closed for good */

/* wait.c */
struct mp__node *mp__node(struct mp__rt *rt, void (*cancel)(struct mp_wait *w));
void mp__wait_possible(lua_State *L); /* as mp__wait_check, but a cancelled task may pass */
int mp__wait_pause(lua_State *L, struct mp_wait *w, lua_KFunction k); /* to the queue's end */
int mp__raise_cancelled(lua_State *L, struct mp__task *t);
void mp__push_cancelled(lua_State *L, int why);

/* task_sched.c */
void mp__sched_tables(lua_State *L);
int mp__sched_init(struct mp__rt *rt); /* a uv error */
void mp__sched_kill_all(lua_State *L, struct mp__rt *rt);
void mp__sched_close(struct mp__rt *rt);
void mp__sched_ready(struct mp__task *t);
void mp__sched_spin(struct mp__sched *s); /* the next poll must not block */
void mp__sched_adopt(lua_State *L, struct mp__task *t);
void mp__task_cancel(struct mp__task *t, int why);
void mp__task_push(lua_State *L, struct mp__task *t);
void mp__task_release(lua_State *L, struct mp__task *t); /* one of a scope's failures */
int mp__is_mark(lua_State *L, int idx, const char *mark);
int mp__close_thread(lua_State *L, lua_State *from);

/* task.c */
struct mp__task *mp__task_new(lua_State *L, struct mp__scope *scope, int scope_idx, int nargs);
int mp__task_results(lua_State *L, int task);   /* pushes them, or raises its error */
void mp__push_traceback(lua_State *L, int err); /* where the error at `err` was raised, or nil */

/* task_timer.c */
void mp__timer_start(struct mp__sched *s, struct mp__ttimer *t, double when);
void mp__timer_stop(struct mp__sched *s, struct mp__ttimer *t);
int l_sleep(lua_State *L);
int l_pause(lua_State *L);

/* task_scope.c */
void mp__scope_init(struct mp__scope *s, struct mp__rt *rt);
void mp__scope_cancel(struct mp__scope *s, int why);
void mp__scope_enter(struct mp__scope *s, struct mp__task *t);
void mp__scope_leave(struct mp__scope *s,
                     struct mp__task *t); /* joiners wake when it was the last */
void mp__scope_detach(struct mp__scope *s);
void mp__open_scope(lua_State *L);
int l_main(lua_State *L);

/* task_co.c, task_sync.c, task_signal.c */
void mp__open_coroutine(lua_State *L);
void mp__open_sync(lua_State *L);
void mp__open_signal(lua_State *L);
void mp__signal_take(struct mp__rt *rt);
void mp__signal_release(struct mp__rt *rt);
void mp__signal_seen(struct mp__rt *rt); /* on the loop: cancel what a signal cancels */
void mp__signal_spread(struct mp__sched *s, lua_State *dead, lua_State *L);
void mp__signal_closing(struct mp__sched *s, lua_State *co);
int mp__signal_yielded(struct mp__sched *s);
void mp__signal_unhook(lua_State *co);
void mp__signal_host(struct mp__rt *rt);
void mp__signal_forget(struct mp__rt *rt);

#endif

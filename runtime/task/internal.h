/*
 * internal.h - the scheduler's own types.
 *
 * A task is a coroutine in a scope. It is in exactly one of these places: the run queue, a wait
 * (struct mp__wait, linked to whatever will end it), running, or over. Nothing in these structs is a
 * Lua value: a live task is anchored in a registry table under its address, its coroutine, result
 * and scope in the task's user values.
 */
#ifndef MP_TASK_INTERNAL_H
#define MP_TASK_INTERNAL_H

#include "base/clock.h"
#include "base/heap.h"
#include "task/task.h"

#include <signal.h>

/* An alarm of the scheduler: one uv_timer_t under all, so no handle needs closing. */
struct mp__alarm {
    struct mp__timer timer;
    void (*fire)(struct mp__alarm *alarm); /* runs no Lua */
};

/* What a task waits with when the source needs no memory of its own. */
struct mp__node {
    struct mp__wait w;
    struct mp__rt *rt;
    struct mp__link link;
    struct mp__waitlist *in; /* whose list `link` is on */
    struct mp__alarm alarm;
};

enum wait_state { WAIT_IDLE, WAIT_WAITING, WAIT_WOKEN, WAIT_CANCELLED };

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
    struct mp__wait *wait;
    struct mp__link run;     /* in the run queue */
    struct mp__link sibling; /* in scope->tasks, or when over in scope->failures */
    struct mp__waitlist joiners;
    struct mp__node node;
    uint64_t steps;       /* instructions left to it; MP__NO_STEPS: as many as it likes */
    int n;                /* new: values on co to start it with; done: results */
    unsigned raised;      /* times the cancellation was raised */
    unsigned char state;  /* enum task_state */
    unsigned char why;    /* enum cancel_why; not WHY_NONE: cancelled, maybe not aware of it yet */
    unsigned char failed; /* its function raised */
};

#define MP__NO_STEPS UINT64_MAX

enum { TASK_UV_CO = 1, TASK_UV_RESULT, TASK_UV_SCOPE, TASK_UV_PLACE, TASK_UVS = TASK_UV_PLACE };

struct mp__scope {
    struct mp__rt *rt; /* NULL: the runtime is gone */
    struct mp__scope *parent;
    struct mp__task *body;
    struct mp__link sub; /* in parent->subs */
    struct mp__link subs;
    struct mp__link tasks;
    struct mp__link failures; /* tasks that failed, when they are collected */
    struct mp__waitlist joiners;
    struct mp__alarm alarm;
    struct mp__watch watch;
    mp__time deadline;    /* MP__NEVER: none; inherited */
    unsigned live;        /* tasks, and scopes below that have any */
    unsigned cut;         /* tasks that ended by cancellation */
    unsigned char why;    /* enum cancel_why */
    unsigned char failed; /* the first error is in SCOPE_UV_ERROR */
    unsigned char collect, shielded, main, ended;
};

enum { SCOPE_UV_ERROR = 1, SCOPE_UV_TOKEN, SCOPE_UV_PARENT, SCOPE_UVS = SCOPE_UV_PARENT };

struct mp__sched {
    struct mp__rt *rt;
    struct mp__link queue;
    struct mp__waitlist later; /* who lets the loop turn once */
    struct mp__task *current;
    lua_State *from;             /* who runs the loop: lua_resume's `from` */
    lua_State *volatile running; /* for the signal handler: whom to hook */
    struct mp__heap alarms;
    struct mp__scope root;
    struct mp__scope *interruptible; /* what a SIGINT cancels; NULL: root */
    struct mp__wait *outer;          /* the wait outside any task that runs the loop */
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
    struct mp__mailbox *bell; /* rung by the signal handler */
};

#define MP__MAX_TASKS    (1u << 20)
#define MP__FREE_THREADS 256

/* What a coroutine of ours yields. Only the addresses matter. */
extern const char mp__wait_mark; /* waits for an event: pass it outward */
extern const char mp__kill_mark; /* wants to be closed: pass it outward and close */

/* wait.c */
struct mp__node *mp__node(struct mp__rt *rt, void (*cancel)(struct mp__wait *w));
void mp__wait_possible(lua_State *L); /* as mp__wait_check, but a cancelled task may pass */
void mp__node_join(struct mp__waitlist *list, struct mp__node *node);
void mp__node_leave(struct mp__node *node); /* fine when on no list */
int mp__raise_cancelled(lua_State *L, struct mp__task *t);
void mp__push_cancelled(lua_State *L, int why);

/* sched.c */
void mp__sched_tables(lua_State *L);
int mp__sched_init(struct mp__rt *rt); /* a uv error */
void mp__sched_kill_all(lua_State *L, struct mp__rt *rt);
void mp__sched_close(struct mp__rt *rt);
void mp__sched_ready(struct mp__task *t);
void mp__sched_spin(struct mp__sched *s); /* the next poll must not block */
void mp__sched_adopt(lua_State *L, struct mp__task *t);
void mp__task_cancel_for(struct mp__task *t, int why);
void mp__task_push(lua_State *L, struct mp__task *t);
void mp__sched_push_tasks(lua_State *L); /* the table address -> task of all that are not over */
void mp__task_release(lua_State *L, struct mp__task *t); /* one of a scope's failures */
int mp__is_mark(lua_State *L, int idx, const char *mark);
int mp__close_thread(lua_State *L, lua_State *from);

/* watch.c */
void mp__task_mark_place(lua_State *L); /* the task on the top of the stack: who spawns it */
void mp__task_sign(lua_State *L);       /* the traceback on the top of the stack: of which task */
int mp__l_tasks(lua_State *L);

/* task.c */
struct mp__task *mp__task_new(lua_State *L, struct mp__scope *scope, int scope_idx, int nargs);
int mp__task_results(lua_State *L, int task);   /* pushes them, or raises its error */
void mp__push_traceback(lua_State *L, int err); /* where the error at `err` was raised, or nil */

/* timer.c */
void mp__alarm_set(struct mp__sched *s, struct mp__alarm *alarm, mp__time at);
void mp__alarm_clear(struct mp__sched *s, struct mp__alarm *alarm);
int mp__l_sleep(lua_State *L);
int mp__l_pause(lua_State *L);

/* scope.c */
void mp__scope_init(struct mp__scope *s, struct mp__rt *rt);
void mp__scope_cancel(struct mp__scope *s, int why);
void mp__scope_enter(struct mp__scope *s, struct mp__task *t);
void mp__scope_leave(struct mp__scope *s,
                     struct mp__task *t); /* joiners wake when it was the last */
void mp__scope_detach(struct mp__scope *s);
void mp__open_scope(lua_State *L);
int mp__l_main(lua_State *L);

/* co.c, sync.c, signal.c */
void mp__open_coroutine(lua_State *L);
void mp__open_sync(lua_State *L);
void mp__open_signal(lua_State *L);

/* limit.c: a task made by a limited one is limited too; a coroutine is given back. */
void mp__limit_inherit(struct mp__task *t, lua_State *co);
void mp__limit_unhook(lua_State *co);
void mp__open_limit(lua_State *L);
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

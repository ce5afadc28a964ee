/*
 * task.h - the scheduler's own types, shared by the task_*.c files, wait.c and runtime.c.
 *
 * A task is a coroutine in a scope. It is in exactly one of these places: the run queue, a wait
 * (struct mp_wait, linked to whatever will end it), running, or over. Nothing in these structs is a
 * Lua value: a live task is anchored in a registry table under its address, its coroutine, result
 * and scope in the task's user values.
 */
#ifndef MP_BINDING_TASK_H
#define MP_BINDING_TASK_H

#include <signal.h>
#include <stddef.h>

#include "binding/binding.h"

/* ---- intrusive circular list; a link that is in no list points at itself ---- */

struct mp_link {
    struct mp_link *prev;
    struct mp_link *next;
};

#define MP_OF(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

static inline void mp_link_init(struct mp_link *l)
{
    l->prev = l;
    l->next = l;
}

static inline int mp_link_alone(const struct mp_link *l)
{
    return l->next == l;
}

static inline void mp_link_append(struct mp_link *list, struct mp_link *l)
{
    l->prev = list->prev;
    l->next = list;
    list->prev->next = l;
    list->prev = l;
}

static inline void mp_link_remove(struct mp_link *l)
{
    l->prev->next = l->next;
    l->next->prev = l->prev;
    mp_link_init(l);
}

/* ---- timers: an intrusive heap under one uv_timer_t, so no handle needs closing ---- */

struct mp_timer {
    double when; /* uv_hrtime in seconds */
    uint64_t seq;
    void (*fire)(struct mp_timer *timer); /* runs no Lua */
    struct mp_timer *child, *next,
        *prev; /* prev: the elder sibling, or the parent of a first child */
    int armed;
};

/* What a task waits with when the source needs no memory of its own. */
struct mp_node {
    struct mp_wait w;
    struct mp_rt *rt;
    struct mp_link link;
    struct mp_timer timer;
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

struct mp_task {
    struct mp_rt *rt;
    struct mp_scope *scope; /* NULL once it is over */
    lua_State *co;
    struct mp_wait *wait;
    struct mp_link run;     /* in the run queue */
    struct mp_link sibling; /* in scope->tasks, or when over in scope->failures */
    struct mp_link joiners; /* mp_node.link of those who await it */
    struct mp_node node;
    int n;                /* new: values on co to start it with; done: results */
    unsigned raised;      /* times the cancellation was raised */
    unsigned char state;  /* enum task_state */
    unsigned char why;    /* enum cancel_why; not WHY_NONE: cancelled, maybe not aware of it yet */
    unsigned char failed; /* its function raised */
};

enum { TASK_UV_CO = 1, TASK_UV_RESULT, TASK_UV_SCOPE, TASK_UVS = TASK_UV_SCOPE };

struct mp_scope {
    struct mp_rt *rt; /* NULL: the runtime is gone */
    struct mp_scope *parent;
    struct mp_task *body;
    struct mp_link sub; /* in parent->subs */
    struct mp_link subs;
    struct mp_link tasks;
    struct mp_link failures; /* tasks that failed, when they are collected */
    struct mp_link joiners;
    struct mp_timer timer;
    struct mp_watch watch;
    double deadline;      /* uv_hrtime in seconds, HUGE_VAL: none; inherited */
    unsigned live;        /* tasks, and scopes below that have any */
    unsigned cut;         /* tasks that ended by cancellation */
    unsigned char why;    /* enum cancel_why */
    unsigned char failed; /* the first error is in SCOPE_UV_ERROR */
    unsigned char collect, shielded, main, ended;
};

enum { SCOPE_UV_ERROR = 1, SCOPE_UV_TOKEN, SCOPE_UV_PARENT, SCOPE_UVS = SCOPE_UV_PARENT };

struct mp_sched {
    struct mp_rt *rt;
    struct mp_link queue;
    struct mp_link later; /* mp_node.link of those who let the loop turn once */
    struct mp_task *current;
    lua_State *from;             /* who runs the loop: lua_resume's `from` */
    lua_State *volatile running; /* for the signal handler: whom to hook */
    struct mp_timer *timers;
    uint64_t timer_seq;
    struct mp_scope root;
    struct mp_scope *interruptible; /* what a SIGINT cancels; NULL: root */
    struct mp_wait *outer;          /* the wait outside any task that runs the loop */
    struct mp_node outer_node;
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

static inline double mp__now(void)
{
    return (double)uv_hrtime() * 1e-9;
}

/* runtime.c */
void mp__rt_open(lua_State *L, uv_loop_t *loop); /* NULL: a loop of its own */
struct mp_rt *mp__rt_if_any(lua_State *L);       /* NULL: not open, or closed for good */

/* wait.c */
struct mp_node *mp__node(struct mp_rt *rt, void (*cancel)(struct mp_wait *w));
void mp__wait_possible(lua_State *L); /* as mp_wait_check, but a cancelled task may pass */
int mp__wait_pause(lua_State *L, struct mp_wait *w, lua_KFunction k); /* to the queue's end */
int mp__raise_cancelled(lua_State *L, struct mp_task *t);
void mp__push_cancelled(lua_State *L, int why);

/* task_sched.c */
void mp__sched_tables(lua_State *L);
int mp__sched_init(struct mp_rt *rt); /* a uv error */
void mp__sched_kill_all(lua_State *L, struct mp_rt *rt);
void mp__sched_close(struct mp_rt *rt);
void mp__sched_ready(struct mp_task *t);
void mp__sched_spin(struct mp_sched *s); /* the next poll must not block */
void mp__sched_adopt(lua_State *L, struct mp_task *t);
void mp__task_cancel(struct mp_task *t, int why);
void mp__task_push(lua_State *L, struct mp_task *t);
void mp__task_release(lua_State *L, struct mp_task *t); /* one of a scope's failures */
int mp__is_mark(lua_State *L, int idx, const char *mark);
int mp__close_thread(lua_State *L, lua_State *from);

/* task.c */
struct mp_task *mp__task_new(lua_State *L, struct mp_scope *scope, int scope_idx, int nargs);
int mp__task_results(lua_State *L, int task);   /* pushes them, or raises its error */
void mp__push_traceback(lua_State *L, int err); /* where the error at `err` was raised, or nil */

/* task_timer.c */
void mp__timer_start(struct mp_sched *s, struct mp_timer *t, double when);
void mp__timer_stop(struct mp_sched *s, struct mp_timer *t);
int l_sleep(lua_State *L);
int l_pause(lua_State *L);

/* task_scope.c */
void mp__scope_init(struct mp_scope *s, struct mp_rt *rt);
void mp__scope_cancel(struct mp_scope *s, int why);
void mp__scope_enter(struct mp_scope *s, struct mp_task *t);
void mp__scope_leave(struct mp_scope *s, struct mp_task *t); /* joiners wake when it was the last */
void mp__scope_detach(struct mp_scope *s);
void mp__open_scope(lua_State *L);
int l_main(lua_State *L);

/* task_co.c, task_sync.c, task_signal.c */
void mp__open_coroutine(lua_State *L);
void mp__open_sync(lua_State *L);
void mp__open_signal(lua_State *L);
void mp__signal_take(struct mp_rt *rt);
void mp__signal_release(struct mp_rt *rt);
void mp__signal_seen(struct mp_rt *rt); /* on the loop: cancel what a signal cancels */
void mp__signal_spread(struct mp_sched *s, lua_State *dead, lua_State *L);
void mp__signal_closing(struct mp_sched *s, lua_State *co);
int mp__signal_yielded(struct mp_sched *s);
void mp__signal_unhook(lua_State *co);
void mp__signal_host(struct mp_rt *rt);
void mp__signal_forget(struct mp_rt *rt);

#endif

/*
 * task.h - tasks, and how C functions that Lua calls wait in them: all that other rooms see.
 *
 * One struct mp__rt per lua_State: the loop, the engine and the task scheduler. Every C function that
 * Lua calls keeps the order: parse and check all arguments (may raise, holds nothing), act, push.
 */
#ifndef MP_TASK_TASK_H
#define MP_TASK_TASK_H

#include "base/list.h"
#include "moonpool.h"

#include <lauxlib.h>
#include <lua.h>
#include <uv.h>

struct mp__task;
struct mp__sched;
struct mp__close_hook;
struct mp__hook_watch;

struct mp__rt {
    uv_loop_t *loop;
    lua_State *L; /* the main thread, whoever opened the library */
    struct mp_engine *engine;
    struct mp__sched *sched;
    int owns_loop;
    unsigned holds; /* what must close before the loop can */
    struct mp__close_hook *hooks;
    struct mp__hook_watch *watch; /* NULL: no policy hook was ever set */
    int in_hook;                  /* a policy hook runs: nothing may wait, no call may begin */
    /* A coroutine inside a policy hook came back: if the hook is to be stopped, so is who resumed it.
     * Set by whoever sets in_hook. */
    void (*spread)(lua_State *co, lua_State *L);
};

struct mp__rt *mp__rt(lua_State *L);             /* from the registry; raises when it is closed */
struct mp__rt *mp__rt_if_any(lua_State *L);      /* NULL: not open, or closed for good */
void mp__rt_open(lua_State *L, uv_loop_t *loop); /* NULL: a loop of its own */

/* ---- waiting ----
 *
 * A C function that must wait for an event links a struct mp__wait (zeroed, living in a userdata or
 * other memory that outlives the wait) to its source and returns mp__wait_begin(...). Inside a task
 * that yields; outside any task it runs the loop until the wait ends. Then `k` runs with `ctx`, in
 * the same Lua function, to push the results. If the task is cancelled meanwhile, `cancel` is called
 * instead (it must unlink the source, and may not run Lua) and the cancellation is raised in the
 * task; `k` does not run. mp__wait_wake only links the task into the run queue: it may be called from
 * any loop callback, at most once a wait.
 */
struct mp__wait {
    struct mp__task *task; /* NULL outside a task */
    void (*cancel)(struct mp__wait *w);
    lua_KFunction k;
    lua_KContext ctx;
    unsigned char state; /* enum wait_state */
    unsigned char hold;  /* 1: cancel is called but the wait goes on until it is woken */
};

/* The source must keep the loop alive (a referenced active handle) while somebody waits: a loop
 * with nothing alive and nothing runnable is taken for a deadlock and ends in an error. A wait
 * that was woken before it began, or before its task was cancelled, ends normally. */
int mp__wait_begin(lua_State *L, struct mp__wait *w, lua_KContext ctx, lua_KFunction k);
void mp__wait_wake(struct mp__rt *rt, struct mp__wait *w);

/* Raises (with a clear message) where this Lua function cannot wait: inside table.sort, a gsub
 * callback, require or a metamethod called from C, while in a task; and raises the cancellation in
 * a task that is cancelled. Call it before acting. */
void mp__wait_check(lua_State *L);

/* Lets every other runnable task have its turn, then goes on in `k`. Only in a task. */
int mp__wait_pause(lua_State *L, lua_KContext ctx, lua_KFunction k);

/* ---- lists of those who wait ----
 *
 * For a source that needs no memory of its own. Whoever is cancelled leaves the list at once. */
struct mp__waitlist {
    struct mp__link nodes; /* oldest first */
    unsigned n;
};

void mp__waitlist_init(struct mp__waitlist *list);
int mp__waitlist_wait(lua_State *L, struct mp__waitlist *list, lua_KContext ctx, lua_KFunction k);
int mp__waitlist_wake(struct mp__waitlist *list);      /* the oldest; 0: nobody waits */
int mp__waitlist_wake_last(struct mp__waitlist *list); /* whose coroutine is still in the cache */
void mp__waitlist_wake_all(struct mp__waitlist *list);

/* ---- tasks ---- */

struct mp__task *mp__task_current(const struct mp__rt *rt); /* NULL: outside any */
void mp__task_cancel(struct mp__task *t);                   /* fine when it is over */

/* Seconds until the deadline that the running task inherits from its scopes; < 0: none. */
double mp__task_deadline(lua_State *L);

/* Resumes tasks until the run queue is empty or the turn's time budget is spent. */
void mp__sched_run(struct mp__rt *rt);

/* The coroutine that a signal's hook would stop. Who runs Lua outside of tasks sets its own and puts
 * back what was there. Readable in a signal handler of the same thread. */
lua_State *mp__running(const struct mp__rt *rt);
lua_State *mp__running_set(struct mp__rt *rt, lua_State *co); /* what was there */

int mp__interrupted(const struct mp__rt *rt); /* a signal came that is not dealt with */

/* ---- cancel tokens ----
 *
 * Whoever wants to hear of token:cancel() links a struct mp__watch and keeps the token alive (in a
 * user value) until it has unwatched. The callback runs once, may not run Lua, and is unlinked
 * before it runs. Check mp__token_cancelled first: a token that is cancelled calls nobody. */
struct mp__token;
struct mp__watch {
    struct mp__link link;
    void (*cb)(struct mp__watch *w);
};

struct mp__token *mp__token_test(lua_State *L, int idx); /* NULL: not a token */
int mp__token_cancelled(const struct mp__token *token);
void mp__token_watch(struct mp__token *token, struct mp__watch *w);
void mp__token_unwatch(struct mp__watch *w); /* fine when not watching */

/* ---- the end of the runtime ----
 *
 * The hooks run once, last registered first, when the runtime closes: all tasks are over by then and
 * no Lua may run. A hook that closes asynchronously calls mp__rt_hold before it starts and
 * mp__rt_release from its last callback; the loop is run until all are released. */
int mp__rt_on_close(struct mp__rt *rt, void (*fn)(struct mp__rt *rt, void *arg),
                    void *arg); /* MP_ENOMEM */
void mp__rt_off_close(struct mp__rt *rt, void (*fn)(struct mp__rt *rt, void *arg), void *arg);
void mp__rt_hold(struct mp__rt *rt);
void mp__rt_release(struct mp__rt *rt);

/* ---- the error table of the Lua interface: {kind=, message=, ...} with tostring ---- */
void mp__push_error(lua_State *L, const char *kind, const char *message); /* metatable set */
int mp__is_error(lua_State *L, int idx);

/* ---- parts of the library: each sets its C functions in the table on the top of the stack ---- */
void mp__open_task(lua_State *L);
void mp__open_error(lua_State *L);

#endif

/*
 * binding.h - what the files of the Lua binding share.
 *
 * One struct mp_rt per lua_State: the loop, the engine and the task scheduler. Every C function that
 * Lua calls keeps the order: parse and check all arguments (may raise, holds nothing), act, push.
 */
#ifndef MP_BINDING_BINDING_H
#define MP_BINDING_BINDING_H

#include <lauxlib.h>
#include <lua.h>
#include <uv.h>

#include "moonpool.h"

struct mp_task;
struct mp_sched;

struct mp_rt {
    uv_loop_t *loop;
    lua_State *L; /* the main thread, whoever opened the library */
    struct mp_engine *engine;
    struct mp_sched *sched;
    int owns_loop;
};

struct mp_rt *mp_rt(lua_State *L); /* from the registry; never NULL once the library is open */

/* ---- waiting ----
 *
 * A C function that must wait for an event links a struct mp_wait (zeroed, living in a userdata or
 * other memory that outlives the wait) to its source and returns mp_wait_begin(...). Inside a task
 * that yields; outside any task it runs the loop until the wait ends. Then `k` runs with `ctx`, in
 * the same Lua function, to push the results. If the task is cancelled meanwhile, `cancel` is called
 * instead (it must unlink the source, and may not run Lua) and the cancellation is raised in the
 * task; `k` does not run. mp_wait_wake only links the task into the run queue: it may be called from
 * any loop callback, at most once a wait.
 */
struct mp_wait {
    struct mp_task *task;                /* NULL outside a task */
    void (*cancel)(struct mp_wait *w);
    lua_KFunction k;
    lua_KContext ctx;
    unsigned char state; /* 0 idle, 1 waiting, 2 woken, 3 cancelled */
};

int mp_wait_begin(lua_State *L, struct mp_wait *w, lua_KContext ctx, lua_KFunction k);
void mp_wait_wake(struct mp_rt *rt, struct mp_wait *w);

/* Raises (with a clear message) where this Lua function cannot wait: inside table.sort, a gsub
 * callback, require or a metamethod called from C, while in a task. Call it before acting. */
void mp_wait_check(lua_State *L);

/* Seconds until the deadline that the running task inherits from its scopes; < 0: none. */
double mp_task_deadline(lua_State *L);

/* Resumes tasks until the run queue is empty or the turn's time budget is spent. */
void mp_sched_run(struct mp_rt *rt);

/* ---- the error table of the Lua interface: {kind=, message=, ...} with tostring ---- */
void mp_push_error(lua_State *L, const char *kind, const char *message); /* metatable set */

/* ---- parts of the library: each sets its C functions in the table on the top of the stack ---- */
void mp_open_task(lua_State *L);
void mp_open_json(lua_State *L);
void mp_open_matrix(lua_State *L);
void mp_open_files(lua_State *L);
void mp_open_server(lua_State *L);
void mp_open_client(lua_State *L);
void mp_open_system(lua_State *L);

#endif

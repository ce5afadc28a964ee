/*
 * sched.c - the run queue: resume, end, close.
 *
 * Callbacks of the loop only link tasks (mp__wait_wake); they are resumed from the check phase, after
 * the poll, so no Lua runs on top of a curl or uv callback. While anything is runnable an idle
 * handle keeps the next poll from blocking. Nothing here allocates Lua memory outside a protected
 * call: it would longjmp through uv_run.
 */
#include "base/mailbox.h"
#include "task/internal.h"

#include <stdlib.h>
#include <string.h>

#define TURN_BUDGET   5000000 /* ns of tasks before the loop looks at its sockets again */
#define BUDGET_STRIDE 4       /* resumes between looks at the clock */

/* Registry keys. */
static const char tasks_key, free_key, stray_key, crash_key;

static void on_idle(uv_idle_t *handle)
{
    (void)handle;
}

void mp__sched_spin(struct mp__sched *s)
{
    if (s->idling || s->closing)
        return;
    s->idling = 1;
    uv_idle_start(&s->idle, on_idle);
}

void mp__sched_ready(struct mp__task *t)
{
    struct mp__sched *s = t->rt->sched;
    t->state = t->state == TASK_NEW ? TASK_NEW : TASK_READY;
    mp__list_push(&s->queue, &t->run);
    mp__sched_spin(s);
}

void mp__task_cancel_for(struct mp__task *t, int why)
{
    struct mp__wait *w = t->wait;
    if (t->state >= TASK_DONE || t->why)
        return;
    t->why = (unsigned char)why;
    if (t->state != TASK_WAITING || w == NULL || w->state != WAIT_WAITING)
        return;
    if (w->cancel != NULL)
        w->cancel(w);
    if (w->hold)
        return;
    w->state = WAIT_CANCELLED;
    t->wait = NULL;
    mp__sched_ready(t);
}

void mp__task_cancel(struct mp__task *t)
{
    mp__task_cancel_for(t, WHY_CANCEL);
}

struct mp__task *mp__task_current(const struct mp__rt *rt)
{
    return rt->sched->current;
}

lua_State *mp__running(const struct mp__rt *rt)
{
    return rt->sched->running;
}

lua_State *mp__running_set(struct mp__rt *rt, lua_State *co)
{
    lua_State *before = rt->sched->running;
    rt->sched->running = co;
    return before;
}

/* ---- threads, reset and reused: making one costs ten times a resume ---- */

/* Runs the pending <close> variables of a dead or suspended thread. */
int mp__close_thread(lua_State *co, lua_State *from)
{
#if LUA_VERSION_RELEASE_NUM >= 50406
    return lua_closethread(co, from);
#else
    (void)from;
    return lua_resetthread(co);
#endif
}

static void keep_thread(struct mp__sched *s, lua_State *L, struct mp__task *t, int ud)
{
    lua_State *co = t->co;
    t->co = NULL;
    mp__signal_unhook(co);
    mp__limit_unhook(co);
    if (s->nfree < MP__FREE_THREADS && lua_status(co) == LUA_OK && lua_gettop(co) == 0) {
        lua_rawgetp(L, LUA_REGISTRYINDEX, &free_key);
        lua_getiuservalue(L, ud, TASK_UV_CO);
        lua_rawseti(L, -2, ++s->nfree); /* the array was made in full size */
        lua_pop(L, 1);
    }
    lua_pushnil(L);
    lua_setiuservalue(L, ud, TASK_UV_CO);
}

static lua_State *take_thread(struct mp__sched *s, lua_State *L)
{
    if (s->nfree == 0)
        return lua_newthread(L);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &free_key);
    lua_rawgeti(L, -1, s->nfree);
    lua_pushnil(L);
    lua_rawseti(L, -3, s->nfree--);
    lua_remove(L, -2);
    return lua_tothread(L, -1);
}

/* Gives the task on the top of the stack its coroutine and anchors it; the task's `co` is set last,
 * so an error on the way leaves nothing. */
void mp__sched_adopt(lua_State *L, struct mp__task *t)
{
    struct mp__sched *s = t->rt->sched;
    lua_State *co = take_thread(s, L);
    lua_setiuservalue(L, -2, TASK_UV_CO);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &tasks_key);
    lua_pushvalue(L, -2);
    lua_rawsetp(L, -2, t);
    lua_pop(L, 1);
    mp__limit_inherit(t, co);
    t->co = co;
    s->ntasks++;
}

void mp__sched_push_tasks(lua_State *L)
{
    lua_rawgetp(L, LUA_REGISTRYINDEX, &tasks_key);
}

/* Pushes a live task's userdata. */
void mp__task_push(lua_State *L, struct mp__task *t)
{
    lua_rawgetp(L, LUA_REGISTRYINDEX, &tasks_key);
    lua_rawgetp(L, -1, t);
    lua_remove(L, -2);
}

static void release_task(lua_State *L, struct mp__task *t)
{
    lua_rawgetp(L, LUA_REGISTRYINDEX, &tasks_key);
    lua_pushnil(L);
    lua_rawsetp(L, -2, t);
    lua_pop(L, 1);
}

/* ---- the end of a task ---- */

static void note_failure(lua_State *L, struct mp__task *t, int ud)
{
    struct mp__scope *scope = t->scope;
    if (scope->collect && t != scope->body) {
        mp__list_push(&scope->failures, &t->sibling);
        return;
    }
    if (!scope->failed && scope != &t->rt->sched->root) {
        lua_getiuservalue(L, ud, TASK_UV_SCOPE);
        lua_getiuservalue(L, ud, TASK_UV_RESULT);
        lua_setiuservalue(L, -2, SCOPE_UV_ERROR);
        lua_pop(L, 1);
    }
    scope->failed = 1;
    if (scope != &t->rt->sched->root)
        mp__scope_cancel(scope, WHY_SIBLING);
}

static int is_cancelled_error(lua_State *L, int idx)
{
    int is = 0;
    if (lua_istable(L, idx)) {
        lua_pushliteral(L, "kind");
        lua_rawget(L, idx < 0 ? idx - 1 : idx);
        const char *kind = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "";
        is = strcmp(kind, "cancelled") == 0;
        lua_pop(L, 1);
    }
    return is;
}

/* The error is on the top; it is nil for a task that was only closed. Joiners wake before the scope
 * cancels its tasks, so whoever awaits this one gets its error and not a cancellation. */
static void settle_failure(lua_State *L, struct mp__task *t, int ud)
{
    int cancelled = t->why && (lua_isnil(L, -1) || is_cancelled_error(L, -1));
    t->state = cancelled ? TASK_CANCELLED : TASK_FAILED;
    lua_setiuservalue(L, ud, TASK_UV_RESULT);
    mp__waitlist_wake_all(&t->joiners);
    if (cancelled)
        t->scope->cut++;
    else
        note_failure(L, t, ud);
    keep_thread(t->rt->sched, L, t, ud);
}

/* One result moves to the task; more stay on the thread, which the task keeps. */
static void settle_results(lua_State *L, struct mp__task *t, int ud, int n)
{
    t->state = TASK_DONE;
    t->n = n;
    if (n == 1) {
        lua_xmove(t->co, L, 1);
        lua_setiuservalue(L, ud, TASK_UV_RESULT);
    }
    mp__waitlist_wake_all(&t->joiners);
    if (n < 2)
        keep_thread(t->rt->sched, L, t, ud);
    else
        mp__signal_unhook(t->co);
}

static void leave_scope(lua_State *L, struct mp__task *t, int ud)
{
    struct mp__scope *scope = t->scope;
    mp__scope_leave(scope, t);
    t->scope = NULL;
    /* A failed task in the scope's list of failures stays anchored by its scope's owner. */
    if (!mp__linked(&t->sibling))
        release_task(L, t);
    lua_pushnil(L);
    lua_setiuservalue(L, ud, TASK_UV_SCOPE);
}

void mp__task_release(lua_State *L, struct mp__task *t)
{
    mp__list_remove(&t->sibling);
    release_task(L, t);
}

static void end_task(lua_State *L, struct mp__task *t, int status, int n)
{
    mp__task_push(L, t);
    int ud = lua_gettop(L);
    t->rt->sched->ntasks--;
    mp__list_remove(&t->sibling);
    if (status == LUA_OK && !t->failed) {
        settle_results(L, t, ud, n);
    } else {
        lua_xmove(t->co, L, 1);
        settle_failure(L, t, ud);
    }
    /* The scope's user values are needed until the failure is noted, so it is left last. */
    leave_scope(L, t, ud);
    lua_settop(L, ud - 1);
}

/* Ends a task from outside: what its <close> variables raise is its error. */
static void close_task(lua_State *L, struct mp__task *t)
{
    struct mp__sched *s = t->rt->sched;
    struct mp__task *current = s->current;
    lua_State *running = s->running;
    t->state = TASK_CLOSING;
    s->current = t;
    s->running = t->co;
    mp__signal_closing(s, t->co);
    int status = mp__close_thread(t->co, L);
    s->running = running;
    s->current = current;
    if (status == LUA_OK)
        lua_pushnil(t->co);
    t->failed = 1;
    end_task(L, t, LUA_ERRRUN, 1);
}

/* ---- resume ---- */

static void stray_yield(lua_State *L, struct mp__task *t, int n)
{
    lua_pop(t->co, n);
    mp__close_thread(t->co, L);
    lua_settop(t->co, 0);
    lua_rawgetp(t->co, LUA_REGISTRYINDEX, &stray_key);
    t->failed = 1;
    end_task(L, t, LUA_ERRRUN, 1);
}

static void interrupt_task(lua_State *L, struct mp__task *t)
{
    t->why = t->why ? t->why : WHY_INTERRUPT;
    close_task(L, t);
}

static void yielded(lua_State *L, struct mp__task *t, int n)
{
    if (n == 1 && mp__is_mark(t->co, -1, &mp__wait_mark))
        lua_pop(t->co, 1);
    else if (n == 1 && mp__is_mark(t->co, -1, &mp__kill_mark))
        close_task(L, t);
    else if (n == 0 && mp__signal_yielded(t->rt->sched))
        interrupt_task(L, t);
    else
        stray_yield(L, t, n);
}

/* Out of memory or C stack in a place that task_main's pcall does not cover. A resume that was refused
 * leaves the thread alive, and closing it leaves no error. */
static void crashed(lua_State *L, struct mp__task *t)
{
    t->failed = 1;
    if (mp__close_thread(t->co, L) == LUA_OK)
        lua_rawgetp(t->co, LUA_REGISTRYINDEX, &crash_key);
    end_task(L, t, LUA_ERRRUN, 1);
}

static void resume_task(lua_State *L, struct mp__task *t)
{
    struct mp__sched *s = t->rt->sched;
    int fresh = t->state == TASK_NEW;
    int results = 0;
    if (fresh && t->why) {
        lua_settop(t->co, 0);
        lua_pushnil(t->co);
        t->failed = 1;
        end_task(L, t, LUA_OK, 1);
        return;
    }
    t->state = TASK_RUNNING;
    s->current = t;
    s->running = t->co;
    s->blocked = 0;
    int status = lua_resume(t->co, L, fresh ? t->n : 0, &results);
    s->running = NULL;
    s->current = NULL;
    s->blocked = 0;
    if (status == LUA_YIELD)
        yielded(L, t, results);
    else if (status == LUA_OK)
        end_task(L, t, status, results);
    else
        crashed(L, t);
}

void mp__sched_run(struct mp__rt *rt)
{
    struct mp__sched *s = rt->sched;
    lua_State *L = s->from != NULL ? s->from : rt->L;
    if (s->current != NULL || s->closing || !lua_checkstack(L, 20))
        return;
    mp__time end = mp__now() + TURN_BUDGET;
    for (unsigned n = 1; !mp__list_empty(&s->queue); n++) {
        struct mp__task *t = MP__ENTRY(s->queue.next, struct mp__task, run);
        mp__list_remove(&t->run);
        resume_task(L, t);
        if (n % BUDGET_STRIDE == 0 && mp__now() > end)
            break;
    }
    if (s->idling && mp__list_empty(&s->queue) && s->later.n == 0) {
        s->idling = 0;
        uv_idle_stop(&s->idle);
    }
}

static void on_check(uv_check_t *handle)
{
    struct mp__sched *s = handle->data;
    mp__waitlist_wake_all(&s->later);
    mp__sched_run(s->rt);
}

static void on_bell(void *arg, struct mp__link *letters)
{
    struct mp__sched *s = arg;
    (void)letters;
    mp__signal_seen(s->rt);
}

/* ---- life ---- */

static void on_closed(uv_handle_t *handle)
{
    struct mp__sched *s = handle->data;
    mp__rt_release(s->rt);
}

static void bell_closed(void *arg)
{
    struct mp__sched *s = arg;
    mp__rt_release(s->rt);
}

static void add_handle(struct mp__sched *s, uv_handle_t *handle)
{
    handle->data = s;
    mp__rt_hold(s->rt);
}

int mp__sched_init(struct mp__rt *rt)
{
    struct mp__sched *s = rt->sched;
    s->bell = mp__mailbox_new(rt->loop, on_bell, s);
    if (s->bell == NULL)
        return UV_ENOMEM;
    mp__rt_hold(rt);
    uv_check_init(rt->loop, &s->check);
    add_handle(s, (uv_handle_t *)&s->check);
    uv_idle_init(rt->loop, &s->idle);
    add_handle(s, (uv_handle_t *)&s->idle);
    uv_timer_init(rt->loop, &s->timer);
    add_handle(s, (uv_handle_t *)&s->timer);
    uv_check_start(&s->check, on_check);
    uv_unref((uv_handle_t *)&s->check);
    return 0;
}

void mp__sched_tables(lua_State *L)
{
    lua_newtable(L);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &tasks_key);
    lua_createtable(L, MP__FREE_THREADS, 0);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &free_key);
    lua_pushliteral(L, "a task's coroutine yielded from outside moonpool");
    lua_rawsetp(L, LUA_REGISTRYINDEX, &stray_key);
    lua_pushliteral(L, "no C stack left to run a task");
    lua_rawsetp(L, LUA_REGISTRYINDEX, &crash_key);
}

void mp__sched_close(struct mp__rt *rt)
{
    struct mp__sched *s = rt->sched;
    struct mp__link letters; /* there are none */
    s->closing = 1;
    mp__scope_detach(&s->root);
    mp__mailbox_close(s->bell, &letters, bell_closed, s);
    uv_close((uv_handle_t *)&s->check, on_closed);
    uv_close((uv_handle_t *)&s->idle, on_closed);
    uv_close((uv_handle_t *)&s->timer, on_closed);
}

/* Closes every task that is still there, waiting or not yet begun; their <close> variables run. */
void mp__sched_kill_all(lua_State *L, struct mp__rt *rt)
{
    struct mp__sched *s = rt->sched;
    for (;;) {
        lua_rawgetp(L, LUA_REGISTRYINDEX, &tasks_key);
        lua_pushnil(L);
        int more = lua_next(L, -2);
        struct mp__task *t = more ? lua_touserdata(L, -1) : NULL;
        lua_pop(L, more ? 3 : 1);
        if (t == NULL)
            break;
        if (t->state >= TASK_DONE) {
            mp__task_release(L, t);
            continue;
        }
        if (t->wait != NULL && t->wait->state == WAIT_WAITING && t->wait->cancel != NULL)
            t->wait->cancel(t->wait);
        t->wait = NULL;
        mp__node_leave(&t->node);
        mp__list_remove(&t->run);
        t->why = t->why ? t->why : WHY_EXIT;
        close_task(L, t);
    }
    s->current = NULL;
}

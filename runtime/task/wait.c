/*
 * wait.c - the one way to wait: a sentinel yield inside a task, the loop itself outside.
 */
#include "task/internal.h"

#include <stdlib.h>
#include <string.h>

/* A task that goes on waiting after so many cancellations will never end by itself. */
#define MAX_RAISED 1000

const char mp__wait_mark;
const char mp__kill_mark;

int mp__is_mark(lua_State *L, int idx, const char *mark)
{
    return lua_islightuserdata(L, idx) && lua_touserdata(L, idx) == (const void *)mark;
}

/* A task waits for one thing at a time, so one node a task will do; likewise outside. */
struct mp__node *mp__node(struct mp__rt *rt, void (*cancel)(struct mp__wait *w))
{
    struct mp__sched *s = rt->sched;
    struct mp__node *node = s->current != NULL ? &s->current->node : &s->outer_node;
    memset(node, 0, sizeof(*node));
    node->rt = rt;
    node->w.cancel = cancel;
    return node;
}

/* ---- lists ---- */

void mp__node_join(struct mp__waitlist *list, struct mp__node *node)
{
    node->in = list;
    list->n++;
    mp__list_push(&list->nodes, &node->link);
}

void mp__node_leave(struct mp__node *node)
{
    if (!mp__linked(&node->link))
        return;
    mp__list_remove(&node->link);
    node->in->n--;
}

static void leave_list(struct mp__wait *w)
{
    mp__node_leave(MP__ENTRY(w, struct mp__node, w));
}

void mp__waitlist_init(struct mp__waitlist *list)
{
    mp__list_init(&list->nodes);
    list->n = 0;
}

int mp__waitlist_wait(lua_State *L, struct mp__waitlist *list, lua_KContext ctx, lua_KFunction k)
{
    struct mp__node *node = mp__node(mp__rt(L), leave_list);
    mp__node_join(list, node);
    return mp__wait_begin(L, &node->w, ctx, k);
}

static int wake(struct mp__waitlist *list, struct mp__link *link)
{
    if (link == &list->nodes)
        return 0;
    struct mp__node *node = MP__ENTRY(link, struct mp__node, link);
    mp__node_leave(node);
    mp__wait_wake(node->rt, &node->w);
    return 1;
}

int mp__waitlist_wake(struct mp__waitlist *list)
{
    return wake(list, list->nodes.next);
}

int mp__waitlist_wake_last(struct mp__waitlist *list)
{
    return wake(list, list->nodes.prev);
}

void mp__waitlist_wake_all(struct mp__waitlist *list)
{
    while (list->n > 0)
        mp__waitlist_wake(list);
}

/* ---- cancellation ---- */

void mp__push_cancelled(lua_State *L, int why)
{
    static const char *const words[] = {
        [WHY_NONE] = "the task was cancelled",
        [WHY_CANCEL] = "the task was cancelled",
        [WHY_SIBLING] = "another task of the scope failed",
        [WHY_DEADLINE] = "the deadline of the scope has passed",
        [WHY_TOKEN] = "the cancel token was cancelled",
        [WHY_OUTER] = "an outer scope was cancelled",
        [WHY_INTERRUPT] = "interrupted",
        [WHY_DEADLOCK] = "deadlock: every task waits and nothing is left that could wake one",
        [WHY_EXIT] = "the program ends",
    };
    mp__push_error(L, "cancelled", words[why]);
}

/* pcall can catch a cancellation, so the next wait raises it again. A task that does nothing else
 * is closed from outside in the end. */
int mp__raise_cancelled(lua_State *L, struct mp__task *t)
{
    if (++t->raised > MAX_RAISED && lua_isyieldable(L) && t->state != TASK_CLOSING) {
        lua_pushlightuserdata(L, (void *)&mp__kill_mark);
        return lua_yield(L, 1);
    }
    mp__push_cancelled(L, t->why);
    return lua_error(L);
}

/* ---- in a task ---- */

static int wait_k(lua_State *L, int status, lua_KContext ctx)
{
    struct mp__wait *w = (struct mp__wait *)ctx;
    unsigned char state = w->state;
    w->state = WAIT_IDLE;
    if (state == WAIT_WOKEN)
        return w->k(L, status, w->ctx);
    struct mp__task *t = mp__rt(L)->sched->current;
    if (state == WAIT_CANCELLED && t != NULL)
        return mp__raise_cancelled(L, t);
    /* A coroutine library that does not know our mark resumed it. */
    if (state == WAIT_WAITING && w->cancel != NULL)
        w->cancel(w);
    return luaL_error(L, "a waiting coroutine was resumed from outside its task");
}

static int park(lua_State *L, struct mp__wait *w)
{
    lua_pushlightuserdata(L, (void *)&mp__wait_mark);
    return lua_yieldk(L, 1, (lua_KContext)w, wait_k);
}

static void enter(struct mp__task *t, struct mp__wait *w)
{
    w->state = WAIT_WAITING;
    w->task = t;
    t->wait = w;
    t->state = TASK_WAITING;
}

int mp__wait_pause(lua_State *L, lua_KContext ctx, lua_KFunction k)
{
    struct mp__rt *rt = mp__rt(L);
    struct mp__wait *w = &mp__node(rt, NULL)->w;
    w->k = k;
    w->ctx = ctx;
    enter(rt->sched->current, w);
    mp__wait_wake(rt, w);
    return park(L, w);
}

/* ---- outside any task: run the loop here ---- */

static int outer_error(lua_State *L, struct mp__wait *w, int why)
{
    if (w->cancel != NULL)
        w->cancel(w);
    w->state = WAIT_IDLE;
    mp__push_cancelled(L, why);
    return lua_error(L);
}

/* Nothing runnable and no live handle: the loop would return at once for ever. */
static int stuck(struct mp__sched *s, struct mp__wait *w, int alive)
{
    return !alive && w->state == WAIT_WAITING && mp__list_empty(&s->queue);
}

static void run_until_woken(struct mp__rt *rt, struct mp__wait *w)
{
    struct mp__sched *s = rt->sched;
    while (w->state == WAIT_WAITING) {
        s->in_run = 1;
        int alive = uv_run(rt->loop, UV_RUN_ONCE);
        s->in_run = 0;
        if (s->interrupted && !w->hold)
            return;
        if (!stuck(s, w, alive))
            continue;
        if (!w->hold || s->root.why)
            return;
        mp__scope_cancel(&s->root, WHY_DEADLOCK);
    }
}

/* Ends the process where a script under stock Lua asked for it: no task runs any more. */
static void leave_process(struct mp__rt *rt)
{
    int code = rt->sched->exit_code;
    lua_close(rt->L);
    exit(code);
}

static int run_outside(lua_State *L, struct mp__wait *w)
{
    struct mp__rt *rt = mp__rt(L);
    struct mp__sched *s = rt->sched;
    lua_State *from = s->from;
    s->from = L;
    w->state = WAIT_WAITING;
    w->task = NULL;
    s->outer = w;
    mp__signal_take(rt);
    run_until_woken(rt, w);
    mp__signal_release(rt);
    s->outer = NULL;
    s->from = from;
    if (s->exit_code >= 0 && !s->hosted)
        leave_process(rt);
    int why = s->interrupted ? WHY_INTERRUPT : s->root.why;
    if (!s->hosted) {
        s->interrupted = 0;
        s->root.why = WHY_NONE;
    }
    if (w->state == WAIT_WAITING)
        return outer_error(L, w, why ? why : WHY_DEADLOCK);
    w->state = WAIT_IDLE;
    /* Whatever was waited for, Ctrl+C under stock Lua must reach the main chunk. */
    if (why == WHY_INTERRUPT && !s->hosted) {
        mp__push_cancelled(L, why);
        return lua_error(L);
    }
    return w->k(L, LUA_OK, w->ctx);
}

/* ---- the contract ---- */

static const char *wait_obstacle(lua_State *L)
{
    const struct mp__sched *s = mp__rt(L)->sched;
    const struct mp__task *t = s->current;
    if (s->closing)
        return "cannot wait: the runtime is closing";
    if (s->rt->in_hook)
        return "cannot wait inside a policy hook: it decides at once";
    if (t != NULL && t->state == TASK_CLOSING)
        return "cannot wait while a task is being closed (use moonpool.shield before it ends)";
    if (t != NULL && (s->blocked || !lua_isyieldable(L)))
        return "cannot wait here: a C function is in between (table.sort, string.gsub, require, "
               "a metamethod or a hook)";
    if (t == NULL && s->in_run)
        return "cannot wait here: inside a callback of the event loop; use a task";
    return lua_checkstack(L, 20) ? NULL : "no room to run the loop";
}

void mp__wait_possible(lua_State *L)
{
    const char *obstacle = wait_obstacle(L);
    if (obstacle != NULL)
        luaL_error(L, "%s", obstacle);
}

void mp__wait_check(lua_State *L)
{
    struct mp__task *t = mp__rt(L)->sched->current;
    mp__wait_possible(L);
    if (t != NULL && t->why)
        mp__raise_cancelled(L, t);
}

int mp__wait_begin(lua_State *L, struct mp__wait *w, lua_KContext ctx, lua_KFunction k)
{
    struct mp__task *t = mp__rt(L)->sched->current;
    w->k = k;
    w->ctx = ctx;
    if (w->state == WAIT_WOKEN) {
        w->state = WAIT_IDLE;
        return k(L, LUA_OK, ctx);
    }
    const char *obstacle = wait_obstacle(L);
    int cancelled = t != NULL && t->why && !w->hold;
    if ((obstacle != NULL || cancelled) && w->cancel != NULL)
        w->cancel(w);
    if (obstacle != NULL)
        return luaL_error(L, "%s", obstacle);
    if (cancelled)
        return mp__raise_cancelled(L, t);
    if (t == NULL)
        return run_outside(L, w);
    enter(t, w);
    return park(L, w);
}

void mp__wait_wake(struct mp__rt *rt, struct mp__wait *w)
{
    (void)rt;
    if (w->state != WAIT_WAITING) {
        if (w->state == WAIT_IDLE)
            w->state = WAIT_WOKEN;
        return;
    }
    w->state = WAIT_WOKEN;
    if (w->task != NULL) {
        w->task->wait = NULL;
        mp__sched_ready(w->task);
    }
}

double mp__task_deadline(lua_State *L)
{
    struct mp__task *t = mp__rt(L)->sched->current;
    if (t == NULL || t->scope == NULL || t->scope->deadline == MP__NEVER)
        return -1;
    mp__time left = t->scope->deadline - mp__now();
    return left > 0 ? mp__seconds(left) : 0;
}

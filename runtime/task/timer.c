/*
 * timer.c - sleep and deadlines: a pairing heap of intrusive timers under one uv_timer_t.
 *
 * One uv handle a sleeping task would need an asynchronous close each; the heap needs no memory at
 * all. Pairing heap: Fredman, Sedgewick, Sleator, Tarjan 1986 (two-pass variant).
 */
#include "task/internal.h"

#include <math.h>

static int earlier(const struct mp__ttimer *a, const struct mp__ttimer *b)
{
    return a->when < b->when || (a->when == b->when && a->seq < b->seq);
}

static struct mp__ttimer *meld(struct mp__ttimer *a, struct mp__ttimer *b)
{
    if (!a || !b)
        return a ? a : b;
    if (earlier(b, a)) {
        struct mp__ttimer *t = a;
        a = b;
        b = t;
    }
    b->next = a->child;
    b->prev = a;
    if (a->child)
        a->child->prev = b;
    a->child = b;
    a->next = NULL;
    a->prev = NULL;
    return a;
}

/* Joins a list of siblings: pairs from the left, then the pairs from the right. */
static struct mp__ttimer *meld_siblings(struct mp__ttimer *list)
{
    struct mp__ttimer *pairs = NULL;
    while (list) {
        struct mp__ttimer *a = list;
        struct mp__ttimer *b = a->next;
        list = b ? b->next : NULL;
        a->next = NULL;
        a->prev = NULL;
        if (b) {
            b->next = NULL;
            b->prev = NULL;
        }
        a = meld(a, b);
        a->next = pairs;
        pairs = a;
    }
    struct mp__ttimer *root = NULL;
    while (pairs) {
        struct mp__ttimer *a = pairs;
        pairs = a->next;
        a->next = NULL;
        root = meld(root, a);
    }
    return root;
}

static void heap_remove(struct mp__sched *s, struct mp__ttimer *t)
{
    struct mp__ttimer *below = meld_siblings(t->child);
    if (t == s->timers) {
        s->timers = below;
    } else {
        if (t->prev->child == t)
            t->prev->child = t->next;
        else
            t->prev->next = t->next;
        if (t->next)
            t->next->prev = t->prev;
        s->timers = meld(s->timers, below);
    }
    t->child = t->next = t->prev = NULL;
    t->armed = 0;
}

static void on_timer(uv_timer_t *handle);

/* libuv counts whole milliseconds from a time rounded down, so it may call early: on_timer looks at
 * the real clock and arms again for the rest. */
static void arm(struct mp__sched *s)
{
    if (!s->timers) {
        uv_timer_stop(&s->timer);
        return;
    }
    double left = s->timers->when - mp__now_s();
    double ms = left > 0 ? ceil(left * 1e3) : 0;
    uv_update_time(s->rt->loop);
    /* Never zero: before 1.48 a zero timer armed in its own callback starves the poll. */
    uv_timer_start(&s->timer, on_timer, ms < 1 ? 1 : ms > 1e12 ? (uint64_t)1e12 : (uint64_t)ms, 0);
}

static void on_timer(uv_timer_t *handle)
{
    struct mp__sched *s = handle->data;
    double now = mp__now_s();
    while (s->timers && s->timers->when <= now) {
        struct mp__ttimer *t = s->timers;
        heap_remove(s, t);
        t->fire(t);
    }
    arm(s);
}

void mp__timer_start(struct mp__sched *s, struct mp__ttimer *t, double when)
{
    if (t->armed)
        heap_remove(s, t);
    t->when = when;
    t->seq = ++s->timer_seq;
    t->child = t->next = t->prev = NULL;
    t->armed = 1;
    s->timers = meld(s->timers, t);
    if (s->timers == t)
        arm(s);
}

void mp__timer_stop(struct mp__sched *s, struct mp__ttimer *t)
{
    if (!t->armed)
        return;
    int first = s->timers == t;
    heap_remove(s, t);
    if (first)
        arm(s);
}

/* ---- sleep ---- */

static void sleep_over(struct mp__ttimer *t)
{
    struct mp__node *node = MP_OF(t, struct mp__node, timer);
    mp__wait_wake(node->rt, &node->w);
}

static void sleep_cancel(struct mp_wait *w)
{
    struct mp__node *node = MP_OF(w, struct mp__node, w);
    mp__timer_stop(node->rt->sched, &node->timer);
}

static int sleep_k(lua_State *L, int status, lua_KContext ctx)
{
    (void)L, (void)status, (void)ctx;
    return 0;
}

static void pause_cancel(struct mp_wait *w)
{
    struct mp__node *node = MP_OF(w, struct mp__node, w);
    mp__tlink_remove(&node->link);
}

/* core.pause(): lets the loop turn once. For long work done in slices: sleep(0) only goes to the end
 * of the run queue, and sockets and timers would wait for the whole of a turn's budget. */
int l_pause(lua_State *L)
{
    mp__wait_check(L);
    struct mp__rt *rt = mp__rt(L);
    struct mp__node *node = mp__node(rt, pause_cancel);
    mp__tlink_append(&rt->sched->later, &node->link);
    mp__sched_spin(rt->sched);
    return mp__wait_begin(L, &node->w, 0, sleep_k);
}

/* sleep(seconds): zero lets every other runnable task have its turn. */
int l_sleep(lua_State *L)
{
    double seconds = luaL_checknumber(L, 1);
    luaL_argcheck(L, seconds >= 0, 1, "must not be negative or NaN");
    mp__wait_check(L);
    struct mp__rt *rt = mp__rt(L);
    struct mp__node *node = mp__node(rt, sleep_cancel);
    if (seconds == 0 && rt->sched->current)
        return mp__wait_pause(L, &node->w, sleep_k);
    node->timer.fire = sleep_over;
    mp__timer_start(rt->sched, &node->timer, mp__now_s() + seconds);
    return mp__wait_begin(L, &node->w, 0, sleep_k);
}

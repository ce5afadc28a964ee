/*
 * timer.c - sleep and deadlines: all alarms under one uv_timer_t.
 */
#include "task/internal.h"

static void on_timer(uv_timer_t *handle);

/* libuv counts whole milliseconds from a time rounded down, so it may call early: on_timer looks at
 * the real clock and arms again for the rest. */
static void arm(struct mp__sched *s)
{
    const struct mp__timer *first = mp__heap_first(&s->alarms);
    if (first == NULL) {
        uv_timer_stop(&s->timer);
        return;
    }
    mp__time left = first->at - mp__now();
    /* Never zero: before 1.48 a zero timer armed in its own callback starves the poll. */
    uint64_t ms = left > 0 ? (uint64_t)(left - 1) / 1000000 + 1 : 1;
    uv_update_time(s->rt->loop);
    uv_timer_start(&s->timer, on_timer, ms, 0);
}

static void on_timer(uv_timer_t *handle)
{
    struct mp__sched *s = handle->data;
    mp__time now = mp__now();
    for (struct mp__timer *t = mp__heap_first(&s->alarms); t != NULL && t->at <= now;
         t = mp__heap_first(&s->alarms)) {
        struct mp__alarm *alarm = MP__ENTRY(t, struct mp__alarm, timer);
        mp__heap_clear(&s->alarms, t);
        alarm->fire(alarm);
    }
    arm(s);
}

void mp__alarm_set(struct mp__sched *s, struct mp__alarm *alarm, mp__time at)
{
    mp__heap_set(&s->alarms, &alarm->timer, at);
    if (mp__heap_first(&s->alarms) == &alarm->timer)
        arm(s);
}

void mp__alarm_clear(struct mp__sched *s, struct mp__alarm *alarm)
{
    int first = mp__heap_first(&s->alarms) == &alarm->timer;
    mp__heap_clear(&s->alarms, &alarm->timer);
    if (first)
        arm(s);
}

/* ---- sleep ---- */

static void sleep_over(struct mp__alarm *alarm)
{
    struct mp__node *node = MP__ENTRY(alarm, struct mp__node, alarm);
    mp__wait_wake(node->rt, &node->w);
}

static void sleep_cancel(struct mp__wait *w)
{
    struct mp__node *node = MP__ENTRY(w, struct mp__node, w);
    mp__alarm_clear(node->rt->sched, &node->alarm);
}

static int sleep_k(lua_State *L, int status, lua_KContext ctx)
{
    (void)L;
    (void)status;
    (void)ctx;
    return 0;
}

/* core.pause(): lets the loop turn once. For long work done in slices: sleep(0) only goes to the end
 * of the run queue, and sockets and timers would wait for the whole of a turn's budget. */
int mp__l_pause(lua_State *L)
{
    mp__wait_check(L);
    struct mp__rt *rt = mp__rt(L);
    mp__sched_spin(rt->sched);
    return mp__waitlist_wait(L, &rt->sched->later, 0, sleep_k);
}

/* sleep(seconds): zero lets every other runnable task have its turn. */
int mp__l_sleep(lua_State *L)
{
    double seconds = luaL_checknumber(L, 1);
    luaL_argcheck(L, seconds >= 0, 1, "must not be negative or NaN");
    mp__wait_check(L);
    struct mp__rt *rt = mp__rt(L);
    if (seconds == 0 && rt->sched->current != NULL)
        return mp__wait_pause(L, 0, sleep_k);
    struct mp__node *node = mp__node(rt, sleep_cancel);
    node->alarm.fire = sleep_over;
    mp__alarm_set(rt->sched, &node->alarm, mp__after(mp__now(), seconds));
    return mp__wait_begin(L, &node->w, 0, sleep_k);
}

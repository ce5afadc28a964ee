/*
 * engine.c - the turn, and the life of the engine.
 *
 * Callbacks of curl and libuv only flag; once a loop iteration, in uv_check, the turn does the rest:
 * reap what ended, expire timers, ask the core what to do and do it, let curl act, deliver. A turn
 * that has worked for MP__TURN_NS hands back to the loop and goes on in the next iteration (an
 * active idle handle keeps the poll from blocking).
 */
#include "engine/internal.h"
#include "base/fds.h"
#include "moonpool_uv.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

/* ---- small services ---- */

void mp__log(struct mp_engine *e, enum mp_log_level level, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    if (e->cfg.log == NULL || level < e->cfg.log_level)
        return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    e->cfg.log(e->cfg.log_arg, level, text);
}

static void on_idle(uv_idle_t *idle)
{
    (void)idle; /* its being active is the point */
}

void mp__wake(struct mp_engine *e)
{
    if (e->dirty || e->down)
        return;
    e->dirty = 1;
    uv_idle_start(&e->idle, on_idle);
    mp__engine_live(e);
}

/* Handles keep the host's loop alive only while something is open. */
void mp__engine_live(struct mp_engine *e)
{
    unsigned live = e->calls_open > e->npolled || e->attempts_open > 0 || e->submissions_open > 0;
    if (e->live == live)
        return;
    e->live = live;
    for (struct mp_pool *p = e->pools; p != NULL; p = p->next)
        mp__transport_ref(p->transport, (int)live);
    if (live)
        uv_ref((uv_handle_t *)&e->timer);
    else
        uv_unref((uv_handle_t *)&e->timer);
}

/* ---- the turn ---- */

static void perform(struct mp_engine *e, const struct mpp_action *act)
{
    struct mp__part *part = NULL;
    switch (act->type) {
    case MPP_START:
        mp__attempt_start(mp__part_of(act->part), act);
        break;
    case MPP_ABORT:
        part = act->part != NULL ? mp__part_of(act->part) : NULL;
        if (part != NULL)
            mp__attempt_abort(part->running, act->attempt);
        else
            mp__attempt_abort(e->draining, act->attempt);
        break;
    case MPP_PART_DONE:
        part = mp__part_of(act->part);
        if (part != NULL)
            mp__call_part_done(part, act);
        break;
    case MPP_PART_SPLIT:
        part = mp__part_of(act->part);
        if (part != NULL)
            mp__call_split(part, act->other, act->keep);
        break;
    case MPP_PART_BACK:
        part = mp__part_of(act->part);
        if (part != NULL)
            mp__call_back(part);
        break;
    case MPP_WANT_PART:
        mp__call_give_part(mpp_call_user(act->call), act);
        break;
    case MPP_LIMIT:
        mp__limit_learnt(mpp_client_user(act->client), &act->limit);
        break;
    case MPP_CALL_DONE:
        mp__call_done(mpp_call_user(act->call), act->kind);
        break;
    case MPP_PROBE:
        mp__probe_start(mpp_client_user(act->client), act->endpoint);
        break;
    }
}

static void expire(struct mp_engine *e, mp__time now)
{
    for (struct mp__timer *t = mp__heap_first(&e->timers); t != NULL && t->at <= now;
         t = mp__heap_first(&e->timers)) {
        mp__heap_clear(&e->timers, t);
        if (t->kind != 0)
            mp__gather_timer(e, t);
        else
            mp__attempt_timer(MP__ENTRY(t, struct mp__attempt, timer));
    }
}

/* Reap, decide and send until nothing is left or the time is up: 1 when something is left. */
static int work(struct mp_engine *e, mp__time start)
{
    struct mpp_action act;
    for (;;) {
        mp__time now = mp__now();
        struct mp_pool *next = NULL;
        if (e->later)
            mp__hook_later(e);
        for (struct mp_pool *p = e->pools; p != NULL; p = next) {
            next = p->next;
            mp__transport_reap(p->transport);
        }
        expire(e, now);
        mp__gather_turn(e);
        int more = 1;
        for (unsigned i = 0; more && now - start < MP__TURN_NS; i++) {
            e->now = now;
            more = mpp_next(e->core, now, &act);
            if (more)
                perform(e, &act);
            if ((i & 15) == 15 || (more && act.type == MPP_START))
                now = mp__now();
        }
        int pending = 0;
        for (struct mp_pool *p = e->pools; p != NULL; p = p->next) {
            mp__transport_kick(p->transport);
            pending |= mp__transport_pending(p->transport);
        }
        if (more || mp__now() - start >= MP__TURN_NS)
            return more || pending;
        if (!pending)
            return 0;
    }
}

static int deliver(struct mp_engine *e, mp__time start)
{
    while (e->finished != NULL) {
        struct mp__call *call = e->finished;
        if (mp__now() - start >= 2 * MP__TURN_NS)
            return 1;
        e->finished = call->next;
        if (e->finished == NULL)
            e->finished_tail = &e->finished;
        e->delivered = 1;
        if (call->done != NULL)
            call->done(call->arg, call->result);
        mp__call_free(call);
    }
    if (mp__gather_deliver(e, start + 2 * MP__TURN_NS))
        return 1;
    if (e->polled != NULL)
        e->delivered = 1;
    return 0;
}

static void close_step(struct mp_engine *e);

static void on_timer(uv_timer_t *timer)
{
    mp__wake(timer->data);
}

static void arm(struct mp_engine *e)
{
    mp__time at = mpp_wake_at(e->core);
    struct mp__timer *first = mp__heap_first(&e->timers);
    if (first != NULL && first->at < at)
        at = first->at;
    if (at == MP__NEVER) {
        uv_timer_stop(&e->timer);
        return;
    }
    mp__time now = mp__now();
    uint64_t ms = at > now ? (uint64_t)((at - now + 999999) / 1000000) : 0;
    uv_update_time(e->loop);
    uv_timer_start(&e->timer, on_timer, ms > 0 ? ms : 1, 0);
}

static void turn(struct mp_engine *e)
{
    mp__time start = mp__now();
    e->in_turn = 1;
    int left = work(e, start);
    left |= deliver(e, start);
    e->in_turn = 0;
    double took = (double)(mp__now() - start) / 1e9;
    e->n.turns++;
    if (took > e->n.longest_turn)
        e->n.longest_turn = took;
    if (e->turn_cb != NULL)
        e->turn_cb(e->turn_arg);
    if (left)
        mp__wake(e);
    if (!e->dirty)
        arm(e);
    mp__engine_live(e);
    if (e->closing)
        close_step(e);
}

static void on_check(uv_check_t *check)
{
    struct mp_engine *e = check->data;
    if (!e->dirty || e->in_turn)
        return;
    e->dirty = 0;
    uv_idle_stop(&e->idle);
    turn(e);
}

/* ---- set-up ---- */

static void take_config(struct mp_config *c, const struct mp_config *given)
{
    if (given != NULL)
        memcpy(c, given, given->size < sizeof(*c) ? given->size : sizeof(*c));
    if (c->max_calls == 0)
        c->max_calls = 1000000;
    if (c->max_queued_bytes == 0)
        c->max_queued_bytes = UINT64_C(1) << 30;
    if (c->max_response_bytes == 0)
        c->max_response_bytes = UINT64_C(64) << 20;
    if (c->max_matrix_bytes == 0)
        c->max_matrix_bytes = UINT64_C(16) << 30;
    while (c->seed == 0)
        if (getrandom(&c->seed, sizeof(c->seed), 0) != sizeof(c->seed))
            c->seed = (uint64_t)uv_hrtime() | 1;
}

mp_engine *mp_engine_new_on_loop(uv_loop_t *loop, const struct mp_config *config)
{
    struct mp_engine *e = calloc(1, sizeof(*e));
    if (e == NULL)
        return NULL;
    take_config(&e->cfg, config);
    struct mpp_config core = {
        .seed = e->cfg.seed, .max_calls = e->cfg.max_calls, .drain_losers = 1};
    e->loop = loop;
    e->pid = getpid();
    e->id_salt = mp__mix64(e->cfg.seed + MP__GOLDEN);
    e->free_slot = UINT32_MAX;
    e->finished_tail = &e->finished;
    e->polled_tail = &e->polled;
    mp__gather_init(e);
    e->core = mpp_new(&core);
    e->names = e->core != NULL ? mp__names_new(e) : NULL;
    if (e->names == NULL) {
        if (e->core != NULL)
            mpp_free(e->core);
        free(e);
        return NULL;
    }
    uv_check_init(loop, &e->check);
    uv_idle_init(loop, &e->idle);
    uv_timer_init(loop, &e->timer);
    e->check.data = e->idle.data = e->timer.data = e;
    uv_check_start(&e->check, on_check);
    uv_unref((uv_handle_t *)&e->check);
    uv_unref((uv_handle_t *)&e->timer);
    return e;
}

mp_engine *mp_engine_new(const struct mp_config *config)
{
    uv_loop_t *loop = malloc(sizeof(*loop));
    mp__fds_keep_standard();
    if (loop == NULL || uv_loop_init(loop) != 0) {
        free(loop);
        return NULL;
    }
    struct mp_engine *e = mp_engine_new_on_loop(loop, config);
    if (e == NULL) {
        uv_loop_close(loop);
        free(loop);
        return NULL;
    }
    e->owns_loop = 1;
    return e;
}

void mp_engine_on_turn(mp_engine *e, void (*cb)(void *arg), void *arg)
{
    e->turn_cb = cb;
    e->turn_arg = arg;
}

static void on_wait_timeout(uv_timer_t *timer)
{
    *(int *)timer->data = 1;
}

int mp_wait(mp_engine *e, int timeout_ms)
{
    int timed_out = 0;
    uv_timer_t timer;
    if (e == NULL || !e->owns_loop)
        return mp__fail(MP_EINVAL, "mp_wait: the loop belongs to the host");
    if (e->in_wait)
        return mp__fail(MP_EINVAL, "mp_wait: called from inside a callback");
    if (e->pid != getpid())
        return mp__fail(MP_EFORK, "the engine was made before a fork");
    e->delivered = e->polled != NULL;
    uv_timer_init(e->loop, &timer);
    timer.data = &timed_out;
    if (timeout_ms >= 0)
        uv_timer_start(&timer, on_wait_timeout, (uint64_t)timeout_ms, 0);
    e->in_wait = 1;
    while (!e->delivered && !timed_out && !e->close_wanted &&
           (e->calls_open > 0 || e->submissions_open > 0))
        uv_run(e->loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)&timer, NULL);
    uv_run(e->loop, UV_RUN_NOWAIT);
    e->in_wait = 0;
    int delivered = e->delivered;
    if (!e->close_wanted)
        return delivered;
    mp_engine_close(e, e->close_cb, e->close_arg);
    return mp__fail(MP_ECLOSED, "mp_wait: a callback closed the engine");
}

/* ---- closing: clients, then attempts, then pools, then our own handles, then the memory ---- */

static void engine_free(struct mp_engine *e)
{
    struct mp__attempt *next = NULL;
    void (*cb)(void *) = e->close_cb;
    void *arg = e->close_arg;
    for (struct mp__attempt *a = e->free_attempts; a != NULL; a = next) {
        next = a->next;
        mp__buf_free(&a->body);
        mp__buf_free(&a->head);
        mp__buf_free(&a->reply);
        mp__buf_free(&a->url);
        mp__decoder_free(a->decoder);
        free(a);
    }
    mpp_free(e->core);
    mp__gather_fini(e);
    mp__shared_fini(e);
    free(e->slots);
    free(e);
    if (cb != NULL)
        cb(arg);
}

void mp__engine_part_closed(struct mp_engine *e)
{
    e->closing_left--;
    if (e->down && e->closing_left == 0)
        engine_free(e);
    else if (e->closing)
        mp__wake(e);
}

static void handle_closed(uv_handle_t *handle)
{
    mp__engine_part_closed(handle->data);
}

static void names_closed(void *engine)
{
    mp__engine_part_closed(engine);
}

static void close_step(struct mp_engine *e)
{
    if (e->down || e->calls_open > 0 || e->finished != NULL || e->submissions_open > 0)
        return;
    while (e->draining != NULL)
        mp__attempt_timer(e->draining);
    if (e->attempts_open > 0 || e->clients != NULL)
        return;
    while (e->pools != NULL) { /* pools that were made by mp_pool_new and never given back */
        e->pools->refs = 1;
        mp__pool_unref(e->pools);
    }
    if (e->closing_left > 0)
        return;
    e->down = 1;
    e->closing_left = 4;
    uv_idle_stop(&e->idle);
    mp__names_close(e->names, names_closed, e);
    uv_close((uv_handle_t *)&e->check, handle_closed);
    uv_close((uv_handle_t *)&e->idle, handle_closed);
    uv_close((uv_handle_t *)&e->timer, handle_closed);
}

static void drop_polled(struct mp_engine *e)
{
    struct mp_completion c;
    while (mp_poll(e, &c, 1) == 1)
        mp_result_free(c.result);
}

void mp_engine_close(mp_engine *e, void (*cb)(void *arg), void *arg)
{
    if (e == NULL || e->closing)
        return;
    e->close_cb = cb;
    e->close_arg = arg;
    if (e->in_wait) { /* a callback cannot run the loop that it is called from: mp_wait does it */
        e->close_wanted = 1;
        return;
    }
    e->closing = 1;
    struct mp_client *next = NULL;
    mp__gather_close(e, NULL);
    for (struct mp_client *c = e->clients; c != NULL; c = next) {
        next = c->next;
        mp_client_close(c);
    }
    mp__wake(e);
    if (!e->owns_loop)
        return;
    uv_loop_t *loop = e->loop;
    while (e->calls_open > 0 || e->submissions_open > 0) {
        uv_run(loop, UV_RUN_NOWAIT);
        drop_polled(e);
    }
    mp__wake(e);
    uv_run(loop, UV_RUN_DEFAULT);
    uv_loop_close(loop);
    free(loop);
}

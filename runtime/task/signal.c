/*
 * signal.c - Ctrl+C, which must stop a waiting script and a spinning one.
 *
 * The handler may touch next to nothing. It rings the loop, which
 * cancels the tasks; and because the loop cannot hear while Lua spins, it plants a hook on the
 * coroutine that runs, as lua.c does: hooks are per coroutine, so the scheduler publishes which one.
 *
 * The hook raises once. pcall may catch that and clean up, for a while; then the hook yields, which
 * no pcall can catch, and the scheduler closes the task, so its <close> variables still run. Where
 * a C function is in between it cannot yield and raises again, after fewer instructions each time,
 * down to one: then no loop of pcalls survives.
 *
 * In the binary the handlers stay installed; under stock Lua they are there while the loop runs, and
 * the host's own come back afterwards.
 */
#include "base/mailbox.h"
#include "task/internal.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define TWICE 2 /* s within which a second signal ends the process at once */

static struct mp__sched *volatile listener;
static pthread_t listener_thread;
static volatile time_t first_at;
static struct sigaction saved_int;
static int taken;

/* Instructions until the hook comes again. */
static const int graces[] = {100000, 20000, 1000, 100, 10, 1};
#define GRACES        ((int)(sizeof(graces) / sizeof(graces[0])))
#define CLOSING_GRACE 1000000

/* ---- the hook ---- */

static void on_hook(lua_State *L, lua_Debug *ar)
{
    struct mp__rt *rt = mp__rt_if_any(L);
    (void)ar;
    if (rt == NULL || !rt->sched->signalled) {
        lua_sethook(L, NULL, 0, 0);
        return;
    }
    struct mp__sched *s = rt->sched;
    int closing = s->current != NULL && s->current->state == TASK_CLOSING;
    if (s->grace > 0 && !closing && s->current != NULL && !s->blocked && lua_isyieldable(L)) {
        lua_sethook(L, NULL, 0, 0);
        s->hook_yield = 1;
        lua_yield(L, 0);
        return;
    }
    lua_sethook(L, on_hook, LUA_MASKCOUNT, closing ? CLOSING_GRACE : graces[s->grace]);
    if (s->grace < GRACES - 1)
        s->grace++;
    mp__push_cancelled(L, WHY_INTERRUPT);
    lua_error(L);
}

/* Cleaning up must end some time too. */
void mp__signal_closing(struct mp__sched *s, lua_State *co)
{
    if (s->signalled)
        lua_sethook(co, on_hook, LUA_MASKCOUNT, CLOSING_GRACE);
}

/* Whether the yield just seen is the hook's, once. */
int mp__signal_yielded(struct mp__sched *s)
{
    int is = s->hook_yield;
    s->hook_yield = 0;
    return is;
}

/* A generator died of the hook: whoever resumed it is next, or a loop of pcalls there would go on. */
void mp__signal_spread(struct mp__sched *s, lua_State *dead, lua_State *L)
{
    if (s->signalled && s->current != NULL && lua_gethook(dead) == on_hook)
        lua_sethook(L, on_hook, LUA_MASKCOUNT, graces[s->grace]);
}

void mp__signal_unhook(lua_State *co)
{
    if (lua_gethook(co) == on_hook)
        lua_sethook(co, NULL, 0, 0);
}

/* ---- the handler ---- */

static void quit(int sig)
{
    if (listener->hosted)
        _exit(128 + sig);
    sigaction(SIGINT, &saved_int, NULL);
    raise(sig);
}

static void on_signal(int sig)
{
    struct mp__sched *s = listener;
    struct timespec now;
    if (s == NULL)
        return;
    if (!pthread_equal(pthread_self(), listener_thread)) {
        pthread_kill(listener_thread, sig);
        return;
    }
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (s->signalled && now.tv_sec - first_at <= TWICE) {
        quit(sig);
        return;
    }
    int gently = s->gentle && !s->signalled;
    first_at = now.tv_sec;
    s->signalled = sig;
    s->grace = 0;
    lua_State *co = s->running;
    if (co != NULL && !gently)
        lua_sethook(co, on_hook, LUA_MASKCALL | LUA_MASKRET | LUA_MASKLINE | LUA_MASKCOUNT, 1);
    mp__mailbox_ring(s->bell);
}

/* Later, on the loop. */
void mp__signal_seen(struct mp__rt *rt)
{
    struct mp__sched *s = rt->sched;
    if (!s->signalled)
        return;
    if (s->interruptible != NULL) {
        mp__scope_cancel(s->interruptible, WHY_INTERRUPT);
        return;
    }
    s->interrupted = s->signalled;
    mp__scope_cancel(&s->root, WHY_INTERRUPT);
}

int mp__interrupted(const struct mp__rt *rt)
{
    return rt->sched != NULL && rt->sched->signalled;
}

/* ---- who listens ---- */

static void listen_with(struct mp__sched *s, int sig, struct sigaction *old)
{
    struct sigaction action;
    memset(&action, 0, sizeof(action));
    action.sa_handler = on_signal;
    action.sa_flags = SA_RESTART;
    sigemptyset(&action.sa_mask);
    listener = s;
    listener_thread = pthread_self();
    sigaction(sig, &action, old);
}

/* For the time of one wait under stock Lua. A SIGINT that is ignored stays ignored. */
void mp__signal_take(struct mp__rt *rt)
{
    struct sigaction now;
    if (rt->sched->hosted || listener != NULL || !rt->owns_loop)
        return;
    if (sigaction(SIGINT, NULL, &now) || now.sa_handler == SIG_IGN)
        return;
    listen_with(rt->sched, SIGINT, &saved_int);
    taken = 1;
}

void mp__signal_release(struct mp__rt *rt)
{
    if (rt->sched->hosted || listener != rt->sched || !taken)
        return;
    sigaction(SIGINT, &saved_int, NULL);
    listener = NULL;
    taken = 0;
    /* A signal that came after the last turn of the loop. */
    mp__signal_seen(rt);
    rt->sched->signalled = 0;
}

/* For good, in the binary. */
void mp__signal_host(struct mp__rt *rt)
{
    struct sigaction now;

    rt->sched->hosted = 1;
    listen_with(rt->sched, SIGINT, NULL);
    listen_with(rt->sched, SIGTERM, NULL);
    /* a job under nohup goes on */
    if (sigaction(SIGHUP, NULL, &now) == 0 && now.sa_handler != SIG_IGN)
        listen_with(rt->sched, SIGHUP, NULL);
    signal(SIGXFSZ, SIG_IGN); /* a write fails with EFBIG instead */
}

void mp__signal_forget(struct mp__rt *rt)
{
    if (listener == rt->sched)
        listener = NULL;
}

/* ---- library ---- */

/* interrupt_over(): what a prompt calls when the interrupted line is done with. */
static int l_interrupt_over(lua_State *L)
{
    mp__rt(L)->sched->signalled = 0;
    return 0;
}

static int l_interrupted(lua_State *L)
{
    const struct mp__rt *rt = mp__rt(L);

    lua_pushboolean(L, mp__interrupted(rt));
    lua_pushinteger(L, rt->sched->signalled);
    return 2;
}

/* exit(code): ends the program from any depth; no pcall can hold it. */
static int l_exit(lua_State *L)
{
    struct mp__rt *rt = mp__rt(L);
    struct mp__sched *s = rt->sched;
    int code = (int)luaL_checkinteger(L, 1);
    if (rt->in_hook)
        return luaL_error(L, "a policy hook cannot end the program");
    if (s->current == NULL && !s->hosted) {
        lua_close(rt->L);
        exit(code);
    }
    if (s->exit_code < 0)
        s->exit_code = code;
    mp__scope_cancel(&s->root, WHY_EXIT);
    if (s->current == NULL || s->blocked || !lua_isyieldable(L) ||
        s->current->state == TASK_CLOSING) {
        mp__push_cancelled(L, WHY_EXIT);
        return lua_error(L);
    }
    lua_pushlightuserdata(L, (void *)&mp__kill_mark);
    return lua_yield(L, 1);
}

void mp__open_signal(lua_State *L)
{
    static const luaL_Reg functions[] = {{"interrupt_over", l_interrupt_over},
                                         {"interrupted", l_interrupted},
                                         {"exit", l_exit},
                                         {NULL, NULL}};
    luaL_setfuncs(L, functions, 0);
}

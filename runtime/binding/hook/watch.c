/*
 * watch.c - the hard limit of a hook: one that spins is stopped after MP__HOOK_HARD_MS.
 *
 * A count hook left armed makes Lua more than twice as slow, and a timer armed for each call would
 * be two system calls for a decision of less than a microsecond. So the running hook only publishes
 * a number: odd while it runs, another one for each run. A thread looks every 10 ms; where it finds
 * one number for too long it sends a signal to the thread that runs the hook, whose handler arms a
 * debug hook, as lua.c does for Ctrl+C: another thread must not touch the state, a handler of the
 * same thread may. When no hook has run for a second the watcher sleeps until one does.
 *
 * The debug hook is planted on the hook's thread and on the coroutine that runs inside it, again at
 * each look while it goes on; it raises again and again, faster each time, so no pcall holds out.
 * SIGURG is what is sent: its default is to be ignored, and others use it for nothing else.
 */
#include "binding/hook/hook.h"
#include "base/thread.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define TICK_NS    10000000u
#define HARD_TICKS (MP__HOOK_HARD_MS / 10) /* of the same run seen, so up to a tick more */
#define IDLE_TICKS 100                     /* without a run: sleep */

static _Thread_local struct mp__hook_watch *running; /* the one whose hook this thread runs */
static struct sigaction before_ours;

/* ---- stopping: on the thread that runs the hook ---- */

static const int graces[] = {1000, 100, 10, 1}; /* instructions until it is raised again */
#define GRACES ((int)(sizeof(graces) / sizeof(graces[0])))

static int condemned(const struct mp__hook_watch *w)
{
    return w != NULL && atomic_load(&w->kill) == atomic_load(&w->seq);
}

static void on_count(lua_State *L, lua_Debug *ar)
{
    struct mp__hook_watch *w = running;
    (void)ar;
    if (!condemned(w)) { /* a coroutine that outlived its hook */
        lua_sethook(L, NULL, 0, 0);
        return;
    }
    lua_sethook(L, on_count, LUA_MASKCOUNT, graces[w->grace]);
    if (w->grace < GRACES - 1)
        w->grace++;
    luaL_error(L, "it ran longer than %d ms and was stopped", MP__HOOK_HARD_MS);
}

/* Once: it walks all frames, and a deep stack takes longer than the time between two signals. */
static void arm(lua_State *L)
{
    if (lua_gethook(L) != on_count)
        lua_sethook(L, on_count, LUA_MASKCALL | LUA_MASKRET | LUA_MASKLINE | LUA_MASKCOUNT, 1);
}

/* Or a loop that makes a new coroutine for each that is stopped would go on. */
static void spread(lua_State *co, lua_State *L)
{
    if (condemned(running) && lua_gethook(co) == on_count)
        arm(L);
}

static void on_signal(int sig, siginfo_t *info, void *context)
{
    struct mp__hook_watch *w = running;
    if (condemned(w)) {
        lua_State *inner = mp__running(w->rt);
        arm(w->H);
        if (inner != NULL && inner != w->H)
            arm(inner);
    } else if (before_ours.sa_flags & SA_SIGINFO) {
        before_ours.sa_sigaction(sig, info, context);
    } else if (before_ours.sa_handler != SIG_IGN && before_ours.sa_handler != SIG_DFL) {
        before_ours.sa_handler(sig);
    }
}

static void take_signal(void)
{
    struct sigaction action;
    memset(&action, 0, sizeof(action));
    action.sa_sigaction = on_signal;
    action.sa_flags = SA_RESTART | SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    sigaction(SIGURG, &action, &before_ours);
}

/* ---- the watcher ---- */

static void look(struct mp__hook_watch *w, uint64_t *last, unsigned *ticks)
{
    uint64_t seq = atomic_load(&w->seq);
    *ticks = seq == *last ? *ticks + 1 : 0;
    *last = seq;
    if ((seq & 1) == 0 || *ticks < HARD_TICKS)
        return;
    atomic_store(&w->kill, seq);
    pthread_kill(w->owner, SIGURG);
}

static void *watch(void *wp)
{
    struct mp__hook_watch *w = wp;
    uint64_t last = 0;
    unsigned ticks = 0;
    uv_mutex_lock(&w->lock);
    while (!w->stop) {
        uv_cond_timedwait(&w->cond, &w->lock, TICK_NS);
        look(w, &last, &ticks);
        if ((last & 1) != 0 || ticks < IDLE_TICKS)
            continue;
        atomic_store(&w->asleep, 1); /* before the last look: a run that begins now sees it */
        while (!w->stop && atomic_load(&w->seq) == last)
            uv_cond_wait(&w->cond, &w->lock);
        atomic_store(&w->asleep, 0);
        ticks = 0;
    }
    uv_mutex_unlock(&w->lock);
    return NULL;
}

/* At the first run: a set of hooks that is never asked costs no thread. Without one there is no
 * hard limit, which is better than no client. */
static void start(struct mp__hook_watch *w)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    w->started = -1;
    pthread_once(&once, take_signal);
    if (uv_mutex_init(&w->lock) != 0)
        return;
    if (uv_cond_init(&w->cond) != 0) {
        uv_mutex_destroy(&w->lock);
        return;
    }
    w->pid = getpid();
    if (mp__thread_start(&w->thread, watch, w) == 0) {
        w->started = 1;
        return;
    }
    uv_cond_destroy(&w->cond);
    uv_mutex_destroy(&w->lock);
}

static void close_watch(struct mp__rt *rt, void *arg)
{
    struct mp__hook_watch *w = arg;
    rt->watch = NULL;
    if (w->started != 1 || w->pid != getpid()) /* a fork has no such thread */
        return;
    uv_mutex_lock(&w->lock);
    w->stop = 1;
    uv_cond_signal(&w->cond);
    uv_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    uv_cond_destroy(&w->cond);
    uv_mutex_destroy(&w->lock);
}

struct mp__hook_watch *mp__hook_watch_of(lua_State *L)
{
    static const char watch_key;
    static const char thread_key;
    struct mp__rt *rt = mp__rt(L);
    if (rt->watch != NULL)
        return rt->watch;
    /* A userdata: views point to it, and may be read by finalizers when the runtime is gone. */
    struct mp__hook_watch *w = lua_newuserdatauv(L, sizeof(*w), 0);
    memset(w, 0, sizeof(*w));
    lua_rawsetp(L, LUA_REGISTRYINDEX, &watch_key);
    w->rt = rt;
    w->H = lua_newthread(L);
    lua_sethook(w->H, NULL, 0, 0); /* not the debug hook of whoever is first */
    lua_rawsetp(L, LUA_REGISTRYINDEX, &thread_key);
    if (mp__rt_on_close(rt, close_watch, w) != 0)
        luaL_error(L, "out of memory");
    rt->watch = w;
    rt->spread = spread;
    return w;
}

/* ---- a run ---- */

void mp__hook_begin(struct mp__hook_watch *w)
{
    if (w->started == 0)
        start(w);
    w->owner = pthread_self();
    w->grace = 0;
    w->outer = mp__running_set(w->rt, w->H);
    running = w;
    w->rt->in_hook = 1;
    atomic_fetch_add(&w->seq, 1);
    if (atomic_load(&w->asleep)) {
        uv_mutex_lock(&w->lock);
        uv_cond_signal(&w->cond);
        uv_mutex_unlock(&w->lock);
    }
}

int mp__hook_end(struct mp__hook_watch *w)
{
    int stopped = condemned(w);
    atomic_fetch_add(&w->seq, 1); /* a signal from here on finds nothing to stop */
    w->rt->in_hook = 0;
    running = NULL;
    mp__running_set(w->rt, w->outer);
    if (lua_gethook(w->H) != NULL)
        lua_sethook(w->H, NULL, 0, 0);
    return stopped;
}

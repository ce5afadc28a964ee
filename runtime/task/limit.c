/*
 * limit.c - how much memory a state may have and how long a task may compute, for scripts of others.
 *
 * Time is counted in instructions of the virtual machine, a hook every STEP of them: the same script is
 * stopped at the same place on any machine. The hook is a coroutine's own, and a coroutine made inside a
 * limited one inherits it; what is left is the task's. Once it is used up the hook raises the same value
 * each time it comes: whoever catches it (see moonpool.cli.restricted) must raise it again.
 */
#include "task/internal.h"

#include <stdlib.h>

#define STEP 10000

static const char spent_key;

struct memory {
    size_t used, limit;
    lua_Alloc inner;
    void *inner_ud;
};

static void *limited(void *ud, void *p, size_t old, size_t size)
{
    struct memory *m = ud;
    size_t before = p != NULL ? old : 0;
    if (size > before && size - before > m->limit - (m->used < m->limit ? m->used : m->limit))
        return NULL;
    void *to = m->inner(m->inner_ud, p, old, size);
    if (to != NULL || size == 0)
        m->used += size - before;
    return to;
}

/* limit_memory(bytes): for all of this state, from now on and for good. */
static int l_limit_memory(lua_State *L)
{
    static struct memory memory; /* as long as the state, whose end frees through it */
    lua_Integer bytes = luaL_checkinteger(L, 1);
    luaL_argcheck(L, bytes > 0, 1, "must be above 0");
    luaL_argcheck(L, memory.inner == NULL, 1, "the memory is limited already");
    lua_gc(L, LUA_GCCOLLECT);
    memory.inner = lua_getallocf(L, &memory.inner_ud);
    memory.used = (size_t)lua_gc(L, LUA_GCCOUNT) * 1024 + (size_t)lua_gc(L, LUA_GCCOUNTB);
    memory.limit = memory.used + (size_t)bytes;
    lua_setallocf(L, limited, &memory);
    return 0;
}

static void on_count(lua_State *L, lua_Debug *ar)
{
    struct mp__task *t = mp__rt(L)->sched->current;
    (void)ar;
    if (t == NULL || t->steps == MP__NO_STEPS)
        return;
    t->steps = t->steps > STEP ? t->steps - STEP : 0;
    if (t->steps > 0)
        return;
    lua_rawgetp(L, LUA_REGISTRYINDEX, &spent_key);
    lua_error(L);
}

void mp__limit_inherit(struct mp__task *t, lua_State *co)
{
    const struct mp__task *maker = t->rt->sched->current;
    t->steps = maker != NULL ? maker->steps : MP__NO_STEPS;
    if (t->steps != MP__NO_STEPS)
        lua_sethook(co, on_count, LUA_MASKCOUNT, STEP);
}

void mp__limit_unhook(lua_State *co)
{
    if (lua_gethook(co) == on_count)
        lua_sethook(co, NULL, 0, 0);
}

/* limit_steps(n): the running task may take so many more instructions, then `spent` is raised in it; nil:
 * as many as it likes. Coroutines that are made from here on count too. */
static int l_limit_steps(lua_State *L)
{
    struct mp__task *t = mp__rt(L)->sched->current;
    if (t == NULL)
        return luaL_error(L, "limit_steps: only in a task");
    if (lua_isnoneornil(L, 1)) {
        t->steps = MP__NO_STEPS;
        return 0;
    }
    lua_Integer n = luaL_checkinteger(L, 1);
    luaL_argcheck(L, n > 0, 1, "must be above 0");
    t->steps = (uint64_t)n;
    lua_sethook(L, on_count, LUA_MASKCOUNT, STEP);
    return 0;
}

void mp__open_limit(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"limit_memory", l_limit_memory}, {"limit_steps", l_limit_steps}, {NULL, NULL}};
    luaL_setfuncs(L, functions, 0);
    mp__push_error(L, "total_timeout", "the script has used up its time");
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &spent_key);
    lua_setfield(L, -2, "spent");
}

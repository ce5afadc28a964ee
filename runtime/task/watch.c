/*
 * watch.c - what a person wants to know of tasks: where each was spawned, what it waits for.
 */
#include "task/task.h"
#include "task/internal.h"

#include <string.h>

/* C, or a function of the library. */
static int is_ours(const lua_Debug *ar)
{
    return ar->currentline < 0 || strncmp(ar->source, "@lua/moonpool/", 14) == 0;
}

/* Of the task on the top of the stack: where in the script it is being spawned, nil: nowhere there. */
void mp__task_mark_place(lua_State *L)
{
    lua_Debug ar;
    for (int level = 1; lua_getstack(L, level, &ar); level++) {
        lua_getinfo(L, "Sl", &ar);
        if (is_ours(&ar))
            continue;
        lua_pushfstring(L, "%s:%d", ar.short_src, ar.currentline);
        lua_setiuservalue(L, -2, TASK_UV_PLACE);
        return;
    }
}

/* Appends to the traceback on the top of the stack which task it is of. */
void mp__task_sign(lua_State *L)
{
    struct mp__task *t = mp__rt(L)->sched->current;
    if (t == NULL || !lua_checkstack(L, 4))
        return;
    int trace = lua_gettop(L);
    mp__task_push(L, t);
    if (lua_isuserdata(L, -1) && lua_getiuservalue(L, -1, TASK_UV_PLACE) == LUA_TSTRING) {
        lua_pushfstring(L, "%s\n\t[in a task spawned at %s]", lua_tostring(L, trace),
                        lua_tostring(L, -1));
        lua_replace(L, trace);
    }
    lua_settop(L, trace);
}

/* Sets `at`, the line of the script that the task has come to, and `waits`, what it called there. */
static void set_position(lua_State *L, lua_State *co)
{
    lua_Debug ar, called;
    memset(&called, 0, sizeof(called));
    for (int level = 0; lua_getstack(co, level, &ar); level++) {
        lua_getinfo(co, "Sln", &ar);
        if (!is_ours(&ar)) {
            lua_pushfstring(L, "%s:%d", ar.short_src, ar.currentline);
            lua_setfield(L, -2, "at");
            break;
        }
        if (ar.name != NULL)
            called = ar; /* the outermost that was not a tail call */
    }
    if (called.name != NULL) {
        lua_pushstring(L, called.name);
        lua_setfield(L, -2, "waits");
    }
}

static void push_one(lua_State *L, int task)
{
    static const char *const states[] = {"new", "ready", "running", "waiting", "closing"};
    struct mp__task *t = lua_touserdata(L, task);
    lua_createtable(L, 0, 5);
    lua_pushvalue(L, task);
    lua_setfield(L, -2, "task");
    lua_pushstring(L, states[t->state]);
    lua_setfield(L, -2, "state");
    lua_getiuservalue(L, task, TASK_UV_PLACE);
    lua_setfield(L, -2, "spawned");
    if (t->why != WHY_NONE) {
        lua_pushboolean(L, 1);
        lua_setfield(L, -2, "cancelled");
    }
    if (t->state == TASK_WAITING || t->state == TASK_READY)
        set_position(L, t->co);
}

/* tasks() -> a list of {task=, state=, spawned=, waits=, at=, cancelled=} of those that are not over */
int mp__l_tasks(lua_State *L)
{
    lua_Integer n = 0;
    (void)mp__rt(L);
    lua_settop(L, 0);
    lua_newtable(L);
    mp__sched_push_tasks(L);
    for (lua_pushnil(L); lua_next(L, 2); lua_pop(L, 1)) {
        if (((struct mp__task *)lua_touserdata(L, 4))->state >= TASK_DONE)
            continue;
        push_one(L, 4);
        lua_rawseti(L, 1, ++n);
    }
    lua_settop(L, 1);
    return 1;
}

/*
 * scope.c - structured concurrency: a scope ends when all its tasks have.
 *
 * The body of a scope is a task of its own, so that cancelling a scope always means cancelling whole
 * tasks; the caller waits for the scope. Scopes form a tree; cancellation and deadlines go down it.
 */
#include "task/internal.h"

#include <string.h>

#define SCOPE_META "moonpool.scope"
#define FOREVER    1e9 /* s; such a deadline is none */

enum mode { MODE_SCOPE, MODE_TIMEOUT, MODE_SHIELD, MODE_MAIN };

/* ---- the tree ---- */

void mp__scope_init(struct mp__scope *s, struct mp__rt *rt)
{
    memset(s, 0, sizeof(*s));
    s->rt = rt;
    s->deadline = MP__NEVER;
    mp__list_init(&s->subs);
    mp__list_init(&s->tasks);
    mp__list_init(&s->failures);
    mp__waitlist_init(&s->joiners);
}

static int inherited(int why)
{
    return why >= WHY_INTERRUPT ? why : WHY_OUTER;
}

void mp__scope_cancel(struct mp__scope *s, int why)
{
    if (s->why)
        return;
    s->why = (unsigned char)why;
    for (struct mp__link *l = s->subs.next; l != &s->subs; l = l->next) {
        struct mp__scope *sub = MP__ENTRY(l, struct mp__scope, sub);
        if (!sub->shielded)
            mp__scope_cancel(sub, inherited(why));
    }
    int task_why = s == &s->rt->sched->root ? inherited(why) : why;
    for (struct mp__link *l = s->tasks.next; l != &s->tasks; l = l->next)
        mp__task_cancel_for(MP__ENTRY(l, struct mp__task, sibling), task_why);
}

/* live counts tasks and scopes below that are live, so the step to and from zero climbs. */
static void more_live(struct mp__scope *s)
{
    while (s != NULL && s->live++ == 0)
        s = s->parent;
}

static void less_live(struct mp__scope *s)
{
    while (s != NULL && --s->live == 0) {
        mp__waitlist_wake_all(&s->joiners);
        s = s->parent;
    }
}

void mp__scope_enter(struct mp__scope *s, struct mp__task *t)
{
    mp__list_push(&s->tasks, &t->sibling);
    more_live(s);
}

void mp__scope_leave(struct mp__scope *s, struct mp__task *t)
{
    if (s->main && t == s->body)
        mp__scope_cancel(s, WHY_EXIT);
    less_live(s);
}

/* What was opened below it and left open cannot be used any more either. */
static void finish_scope(struct mp__scope *s)
{
    while (!mp__list_empty(&s->subs))
        finish_scope(MP__ENTRY(s->subs.next, struct mp__scope, sub));
    s->ended = 1;
    mp__list_remove(&s->sub);
    if (s->rt == NULL)
        return;
    mp__alarm_clear(s->rt->sched, &s->alarm);
    mp__token_unwatch(&s->watch);
    if (s->rt->sched->interruptible == s)
        s->rt->sched->interruptible = NULL;
}

/* The runtime goes first: finalizers of scopes that come later find nothing to do. */
void mp__scope_detach(struct mp__scope *s)
{
    while (!mp__list_empty(&s->subs)) {
        struct mp__scope *sub = MP__ENTRY(s->subs.next, struct mp__scope, sub);
        mp__scope_detach(sub);
        finish_scope(sub);
        sub->rt = NULL;
    }
}

static void deadline_passed(struct mp__alarm *alarm)
{
    mp__scope_cancel(MP__ENTRY(alarm, struct mp__scope, alarm), WHY_DEADLINE);
}

static void token_cancelled(struct mp__watch *watch)
{
    mp__scope_cancel(MP__ENTRY(watch, struct mp__scope, watch), WHY_TOKEN);
}

/* ---- options ---- */

struct options {
    double deadline; /* seconds from now, < 0: none */
    struct mp__token *token;
    int token_idx;
    int collect;
};

static void parse_deadline(lua_State *L, int idx, struct options *o)
{
    if (lua_getfield(L, idx, "deadline") != LUA_TNIL) {
        int is_number;
        o->deadline = lua_tonumberx(L, -1, &is_number);
        if (!is_number || !(o->deadline >= 0))
            luaL_error(L, "deadline must be a number of seconds, not negative");
    }
    lua_pop(L, 1);
}

static void parse_on_error(lua_State *L, int idx, struct options *o)
{
    if (lua_getfield(L, idx, "on_error") != LUA_TNIL) {
        const char *word = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "";
        o->collect = strcmp(word, "collect") == 0;
        if (!o->collect && strcmp(word, "cancel") != 0)
            luaL_error(L, "on_error must be \"cancel\" or \"collect\"");
    }
    lua_pop(L, 1);
}

/* Leaves the token, or nil, on the stack. */
static void parse_options(lua_State *L, int idx, struct options *o)
{
    *o = (struct options){.deadline = -1};
    if (lua_isnoneornil(L, idx)) {
        lua_pushnil(L);
        return;
    }
    luaL_checktype(L, idx, LUA_TTABLE);
    parse_deadline(L, idx, o);
    parse_on_error(L, idx, o);
    if (lua_getfield(L, idx, "cancel_token") != LUA_TNIL) {
        o->token = mp__token_test(L, -1);
        if (o->token == NULL)
            luaL_error(L, "cancel_token must be made by moonpool.cancel_token()");
    }
}

/* ---- new ---- */

static struct mp__scope *current_scope(struct mp__sched *sched)
{
    return sched->current != NULL ? sched->current->scope : &sched->root;
}

/* Pushes the scope, a child of the running task's. */
static struct mp__scope *push_scope(lua_State *L, int shielded)
{
    struct mp__rt *rt = mp__rt(L);
    struct mp__scope *parent = current_scope(rt->sched);
    struct mp__scope *s = lua_newuserdatauv(L, sizeof(*s), SCOPE_UVS);
    mp__scope_init(s, rt);
    luaL_setmetatable(L, SCOPE_META);
    if (rt->sched->current != NULL) {
        mp__task_push(L, rt->sched->current);
        lua_getiuservalue(L, -1, TASK_UV_SCOPE);
        lua_setiuservalue(L, -3, SCOPE_UV_PARENT);
        lua_pop(L, 1);
    }
    s->parent = parent;
    s->shielded = (unsigned char)shielded;
    s->deadline = shielded ? MP__NEVER : parent->deadline;
    s->why = shielded ? WHY_NONE : parent->why ? (unsigned char)inherited(parent->why) : WHY_NONE;
    mp__list_push(&parent->subs, &s->sub);
    return s;
}

/* `token` is the index of the options' token, if there is one. */
static void apply_options(lua_State *L, struct mp__scope *s, const struct options *o, int token)
{
    if (o->deadline >= 0 && o->deadline < FOREVER) {
        mp__time when = mp__after(mp__now(), o->deadline);
        s->alarm.fire = deadline_passed;
        if (when < s->deadline) {
            s->deadline = when;
            mp__alarm_set(s->rt->sched, &s->alarm, when);
        }
    }
    s->collect = (unsigned char)o->collect;
    if (o->token == NULL)
        return;
    lua_pushvalue(L, token);
    lua_setiuservalue(L, -2, SCOPE_UV_TOKEN);
    s->watch.cb = token_cancelled;
    if (mp__token_cancelled(o->token))
        mp__scope_cancel(s, WHY_TOKEN);
    else
        mp__token_watch(o->token, &s->watch);
}

/* ---- waiting for the end; the stack is: ..., scope, body ---- */

static void join_cancel(struct mp__wait *w)
{
    struct mp__scope *s = (struct mp__scope *)w->ctx;
    if (w->task != NULL && !s->shielded)
        mp__scope_cancel(s, inherited(w->task->why));
}

static int push_failures(lua_State *L, struct mp__scope *s)
{
    lua_newtable(L);
    for (int i = 1; !mp__list_empty(&s->failures); i++) {
        struct mp__task *t = MP__ENTRY(s->failures.next, struct mp__task, sibling);
        mp__task_push(L, t);
        lua_getiuservalue(L, -1, TASK_UV_RESULT);
        lua_rawseti(L, -3, i);
        lua_pop(L, 1);
        mp__task_release(L, t);
    }
    return 1;
}

static int timed_out(lua_State *L, enum mode mode)
{
    mp__push_error(L, "total_timeout", "the deadline of the scope has passed");
    if (mode != MODE_TIMEOUT)
        return lua_error(L);
    lua_pushnil(L);
    lua_insert(L, -2);
    return 2;
}

/* What a scope gives whose tasks were cut short by its own cancellation. */
static int cut_short(lua_State *L, struct mp__scope *s, enum mode mode)
{
    struct mp__task *caller = s->rt->sched->current;
    if (s->why == WHY_DEADLINE)
        return timed_out(L, mode);
    if (s->why == WHY_CANCEL && s->body->state != TASK_DONE)
        return 0;
    if (caller != NULL && caller->why)
        return mp__raise_cancelled(L, caller);
    mp__push_cancelled(L, s->why);
    return lua_error(L);
}

static int own_choice(const struct mp__scope *s)
{
    return s->why == WHY_CANCEL || (s->main && s->why == WHY_EXIT);
}

static int scope_k(lua_State *L, int status, lua_KContext ctx)
{
    struct mp__scope *s = (struct mp__scope *)ctx;
    int top = lua_gettop(L);
    (void)status;
    finish_scope(s);
    enum mode mode = (enum mode)lua_tointeger(L, top - 2);
    if (s->failed) {
        lua_getiuservalue(L, top - 1, SCOPE_UV_ERROR);
        return lua_error(L);
    }
    if (s->cut && !(s->body->state == TASK_DONE && own_choice(s)) && s->why)
        return cut_short(L, s, mode);
    int n = s->collect ? push_failures(L, s) : 0;
    return n + mp__task_results(L, top);
}

/* Stack: fn, args (nargs), token. Makes the scope, spawns the body in it and waits. */
static int run_scope(lua_State *L, enum mode mode, const struct options *o, int nargs)
{
    int token = lua_gettop(L);
    struct mp__scope *s = push_scope(L, mode == MODE_SHIELD);
    int ud = lua_gettop(L);
    lua_pushinteger(L, mode);
    lua_insert(L, ud++);
    s->main = mode == MODE_MAIN;
    apply_options(L, s, o, token);
    luaL_checkstack(L, nargs + 4, "too many arguments");
    for (int i = 1; i <= nargs + 1; i++)
        lua_pushvalue(L, i);
    if (mode == MODE_SCOPE) {
        lua_pushvalue(L, ud);
        nargs++;
    }
    s->body = mp__task_new(L, s, ud, nargs);
    struct mp__node *node = mp__node(s->rt, join_cancel);
    node->w.hold = 1;
    mp__node_join(&s->joiners, node);
    return mp__wait_begin(L, &node->w, (lua_KContext)s, scope_k);
}

/* scope(fn, {deadline=, on_error=, cancel_token=}): fn(scope) */
static int l_scope(lua_State *L)
{
    struct options o;
    luaL_checktype(L, 1, LUA_TFUNCTION);
    lua_settop(L, 2);
    parse_options(L, 2, &o);
    mp__wait_check(L);
    return run_scope(L, MODE_SCOPE, &o, 0);
}

/* timeout(seconds, fn, ...): what fn returns, or nil and a total_timeout error */
static int l_timeout(lua_State *L)
{
    struct options o = {.deadline = luaL_checknumber(L, 1)};
    luaL_argcheck(L, o.deadline >= 0, 1, "must not be negative or NaN");
    luaL_checktype(L, 2, LUA_TFUNCTION);
    mp__wait_check(L);
    lua_remove(L, 1);
    int nargs = lua_gettop(L) - 1;
    lua_pushnil(L);
    return run_scope(L, MODE_TIMEOUT, &o, nargs);
}

static int uncancelled(lua_State *L, enum mode mode)
{
    struct options o = {.deadline = -1};
    luaL_checktype(L, 1, LUA_TFUNCTION);
    mp__wait_possible(L);
    int nargs = lua_gettop(L) - 1;
    lua_pushnil(L);
    return run_scope(L, mode, &o, nargs);
}

/* shield(fn, ...): runs fn to its end even in, or into, a cancelled task */
static int l_shield(lua_State *L)
{
    return uncancelled(L, MODE_SHIELD);
}

/* main(fn, ...): as a scope, but what still runs when fn returns is cancelled */
int mp__l_main(lua_State *L)
{
    return uncancelled(L, MODE_MAIN);
}

/* ---- methods ---- */

static struct mp__scope *check_scope(lua_State *L, int idx)
{
    return luaL_checkudata(L, idx, SCOPE_META);
}

/* scope:spawn(fn, ...) -> task */
static int l_spawn(lua_State *L)
{
    struct mp__scope *s = check_scope(L, 1);
    luaL_checktype(L, 2, LUA_TFUNCTION);
    mp__task_new(L, s, 1, lua_gettop(L) - 2);
    return 1;
}

/* scope:cancel(): every task of it; the scope then ends without an error. */
static int l_scope_cancel(lua_State *L)
{
    struct mp__scope *s = check_scope(L, 1);
    if (s->rt != NULL && !s->ended)
        mp__scope_cancel(s, WHY_CANCEL);
    return 0;
}

static int close_k(lua_State *L, int status, lua_KContext ctx)
{
    (void)L;
    (void)status;
    finish_scope((struct mp__scope *)ctx);
    return 0;
}

/* scope:close(), also as <close>: cancels what an open scope still runs and waits for its end. Where
 * nothing can wait, the scope further out waits for it. */
static int l_close(lua_State *L)
{
    struct mp__scope *s = check_scope(L, 1);
    lua_settop(L, 1);
    if (s->rt == NULL || s->ended)
        return 0;
    mp__scope_cancel(s, WHY_CANCEL);
    struct mp__sched *sched = s->rt->sched;
    int can = sched->current != NULL ? lua_isyieldable(L) && !sched->blocked : !sched->in_run;
    if (s->live == 0 || sched->closing || !can ||
        (sched->current != NULL && sched->current->state == TASK_CLOSING)) {
        if (s->live == 0)
            finish_scope(s);
        return 0;
    }
    struct mp__node *node = mp__node(s->rt, NULL);
    node->w.hold = 1;
    mp__node_join(&s->joiners, node);
    return mp__wait_begin(L, &node->w, (lua_KContext)s, close_k);
}

/* error of an open scope's first failed task, or nil */
static int l_scope_error(lua_State *L)
{
    check_scope(L, 1);
    lua_getiuservalue(L, 1, SCOPE_UV_ERROR);
    return 1;
}

/* scope:deadline(): seconds left, or nil */
static int l_scope_deadline(lua_State *L)
{
    struct mp__scope *s = check_scope(L, 1);
    if (s->deadline == MP__NEVER)
        return 0;
    mp__time left = s->deadline - mp__now();
    lua_pushnumber(L, left > 0 ? mp__seconds(left) : 0);
    return 1;
}

/* open_scope(opts): for iterators, which have no function to wrap. Whoever opens it closes it; the
 * scope it stands in waits for its tasks in any case. */
static int l_open_scope(lua_State *L)
{
    struct options o;
    lua_settop(L, 1);
    parse_options(L, 1, &o);
    mp__wait_check(L);
    struct mp__scope *s = push_scope(L, 0);
    apply_options(L, s, &o, 2);
    return 1;
}

static int l_gc(lua_State *L)
{
    struct mp__scope *s = check_scope(L, 1);
    while (s->rt != NULL && !mp__list_empty(&s->failures))
        mp__task_release(L, MP__ENTRY(s->failures.next, struct mp__task, sibling));
    if (s->rt != NULL && !s->ended)
        finish_scope(s);
    return 0;
}

/* set_interrupt(scope or nil, gently): what Ctrl+C cancels instead of everything (the line of a prompt).
 * Gently: the first signal does not stop Lua where it is, for others are at work (a server). */
static int l_set_interrupt(lua_State *L)
{
    struct mp__scope *s = lua_isnoneornil(L, 1) ? NULL : check_scope(L, 1);
    struct mp__sched *sched = mp__rt(L)->sched;
    sched->interruptible = s != NULL && !s->ended ? s : NULL;
    sched->gentle = lua_toboolean(L, 2);
    return 0;
}

static void make_class(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"spawn", l_spawn},       {"cancel", l_scope_cancel},     {"close", l_close},
        {"error", l_scope_error}, {"deadline", l_scope_deadline}, {NULL, NULL}};
    luaL_newmetatable(L, SCOPE_META);
    luaL_newlib(L, methods);
    lua_setfield(L, -2, "__index");
    lua_pushcfunction(L, l_close);
    lua_setfield(L, -2, "__close");
    lua_pushcfunction(L, l_gc);
    lua_setfield(L, -2, "__gc");
    lua_pop(L, 1);
}

void mp__open_scope(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"scope", l_scope},   {"timeout", l_timeout},       {"shield", l_shield},
        {"main", mp__l_main}, {"open_scope", l_open_scope}, {"set_interrupt", l_set_interrupt},
        {NULL, NULL}};
    make_class(L);
    luaL_setfuncs(L, functions, 0);
}

/*
 * binding_host.c - the scripted runtime inside a C program: with its own loop, with the host's, and
 * with an allocator that fails at every allocation in turn.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "moonpool_lua.h"

/* ---- an allocator that can fail ---- */

struct memory {
    long used;    /* bytes */
    long count;   /* allocations so far */
    long fail_at; /* the first to fail, 0: none */
    int for_ever; /* all after it fail too, else two do: Lua tries again after a collection */
};

static int refuses(const struct memory *m)
{
    if (!m->fail_at || m->count < m->fail_at)
        return 0;
    return m->for_ever || m->count <= m->fail_at + 1;
}

static void *allocate(void *ud, void *p, size_t old, size_t size)
{
    struct memory *m = ud;
    size_t before = p != NULL ? old : 0;
    if (size == 0) {
        m->used -= (long)before;
        free(p);
        return NULL;
    }
    if (size > before) {
        m->count++;
        if (refuses(m))
            return NULL;
    }
    void *q = realloc(p, size);
    if (q != NULL)
        m->used += (long)size - (long)before;
    return q;
}

static lua_State *new_state(struct memory *m, uv_loop_t *loop)
{
    lua_State *L = lua_newstate(allocate, m);
    assert_non_null(L);
    luaL_openlibs(L);
    if (mp_lua_open(L, loop) != LUA_OK)
        fail_msg("%s", lua_tostring(L, -1));
    return L;
}

static void load(lua_State *L, const char *text)
{
    if (luaL_loadstring(L, text) != LUA_OK)
        fail_msg("%s", lua_tostring(L, -1));
}

static void end_state(lua_State *L, struct memory *m)
{
    assert_int_equal(mp_lua_close(L), 0);
    lua_close(L);
    assert_int_equal(m->used, 0);
}

/* ---- its own loop ---- */

static void test_call_is_a_task(void **state)
{
    struct memory m = {0};
    lua_State *L = new_state(&m, NULL);
    (void)state;
    load(L, "local a, b = ... require('moonpool').sleep(0.001) return b, a");
    lua_pushinteger(L, 1);
    lua_pushinteger(L, 2);
    assert_int_equal(mp_lua_call(L, 2, LUA_MULTRET), LUA_OK);
    assert_int_equal(lua_gettop(L), 2);
    assert_int_equal(lua_tointeger(L, 1), 2);
    assert_int_equal(lua_tointeger(L, 2), 1);
    end_state(L, &m);
}

static void test_error_with_traceback(void **state)
{
    struct memory m = {0};
    lua_State *L = new_state(&m, NULL);
    (void)state;
    load(L,
         "local function culprit() error('broken', 0) end require('moonpool').sleep(0) culprit()");
    assert_int_equal(mp_lua_call(L, 0, 0), LUA_ERRRUN);
    assert_string_equal(lua_tostring(L, -1), "broken");
    assert_non_null(mp_lua_traceback(L));
    end_state(L, &m);
}

static const char leftovers[] = "local moonpool = require 'moonpool'\n"
                                "keep = {moonpool.map(function() return 1 end, {ordered = false},\n"
                                "  function()\n"
                                "    local c <close> = setmetatable({}, {__close = function()\n"
                                "      closed = (closed or 0) + 1 end})\n"
                                "    moonpool.sleep(1000)\n"
                                "  end)}\n"
                                "moonpool.sleep(0)\n";

/* What the caller opened is not the call's to cancel; closing the runtime does that. */
static void test_close_runs_close_variables(void **state)
{
    struct memory m = {0};
    lua_State *L = new_state(&m, NULL);
    (void)state;
    load(L, leftovers);
    assert_int_equal(lua_pcall(L, 0, 0, 0), LUA_OK);
    assert_int_equal(mp_lua_close(L), 0);
    lua_getglobal(L, "closed");
    assert_int_equal(lua_tointeger(L, -1), 32);
    load(L, "return pcall(require('moonpool').sleep, 0)");
    assert_int_equal(lua_pcall(L, 0, 1, 0), LUA_OK);
    assert_false(lua_toboolean(L, -1));
    end_state(L, &m);
}

static void test_state_closed_without_notice(void **state)
{
    struct memory m = {0};
    lua_State *L = new_state(&m, NULL);
    (void)state;
    load(L, leftovers);
    assert_int_equal(lua_pcall(L, 0, 0, 0), LUA_OK);
    lua_close(L);
    assert_int_equal(m.used, 0);
}

static int l_close_inside(lua_State *L)
{
    lua_pushinteger(L, mp_lua_close(L));
    return 1;
}

static void test_no_close_from_inside(void **state)
{
    struct memory m = {0};
    lua_State *L = new_state(&m, NULL);
    (void)state;
    lua_pushcfunction(L, l_close_inside);
    assert_int_equal(mp_lua_call(L, 0, 1), LUA_OK);
    assert_int_equal(lua_tointeger(L, -1), MP_EINVAL);
    end_state(L, &m);
}

/* ---- the host's loop ---- */

static void test_host_loop(void **state)
{
    struct memory m = {0};
    uv_loop_t loop;
    (void)state;
    assert_int_equal(uv_loop_init(&loop), 0);
    lua_State *L = new_state(&m, &loop);
    /* Nothing waits: the host's uv_run returns. */
    assert_int_equal(uv_run(&loop, UV_RUN_DEFAULT), 0);
    load(L, leftovers);
    assert_int_equal(lua_pcall(L, 0, 0, 0), LUA_OK);
    load(L, "local moonpool = require 'moonpool'\n"
            "local _, _, _, scope = moonpool.map({1}, {ordered = false}, function()\n"
            "  moonpool.sleep(0.001) done = true end)\n"
            "keep2 = scope\n");
    assert_int_equal(lua_pcall(L, 0, 0, 0), LUA_OK);
    for (int done = 0; !done;) {
        uv_run(&loop, UV_RUN_ONCE);
        lua_getglobal(L, "done");
        done = lua_toboolean(L, -1);
        lua_pop(L, 1);
    }
    end_state(L, &m);
    assert_int_equal(uv_run(&loop, UV_RUN_DEFAULT), 0);
    assert_int_equal(uv_loop_close(&loop), 0);
}

static char callback_error[200];

static void on_timer(uv_timer_t *timer)
{
    lua_State *L = timer->data;
    if (luaL_dostring(L, "require('moonpool').sleep(0)")) {
        snprintf(callback_error, sizeof(callback_error), "%s", lua_tostring(L, -1));
        lua_pop(L, 1);
    }
    uv_close((uv_handle_t *)timer, NULL);
}

/* A wait in a callback would run the loop inside itself. */
static void test_no_wait_in_a_callback(void **state)
{
    struct memory m = {0};
    uv_loop_t loop;
    uv_timer_t timer;
    (void)state;
    assert_int_equal(uv_loop_init(&loop), 0);
    lua_State *L = new_state(&m, &loop);
    uv_timer_init(&loop, &timer);
    timer.data = L;
    uv_timer_start(&timer, on_timer, 1, 0);
    load(L, "require('moonpool').sleep(0.005)");
    assert_int_equal(lua_pcall(L, 0, 0, 0), LUA_OK);
    assert_non_null(strstr(callback_error, "inside a callback"));
    end_state(L, &m);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
}

/* ---- every allocation fails once ---- */

static const char everything[] =
    "local mp = require 'moonpool'\n"
    "mp.scope(function(s)\n"
    "  local ch, sem = mp.channel(2), mp.semaphore(1)\n"
    "  s:spawn(function() for i = 1, 5 do ch:put(i) end ch:close() end)\n"
    "  s:spawn(function() for v in ch do mp.sleep(0) end end)\n"
    "  local t = s:spawn(function()\n"
    "    local x <close> = setmetatable({}, {__close = function() end})\n"
    "    mp.sleep(2)\n"
    "  end)\n"
    "  for v in coroutine.wrap(function()\n"
    "    for i = 1, 3 do mp.sleep(0) coroutine.yield(i) end\n"
    "  end) do end\n"
    "  t:cancel()\n"
    "  sem:with(function() mp.sleep(0) end)\n"
    "  mp.map({1, 2, 3}, {window = 2}, function(x) mp.sleep(0) return x end)\n"
    "  for i in mp.map({1, 2, 3}, {window = 2, ordered = false}, function(x)\n"
    "    mp.sleep(0) return x end) do if i == 2 then break end end\n"
    "  mp.timeout(0.001, function() mp.sleep(2) end)\n"
    "  mp.race{function() mp.sleep(0) return 1 end, function() mp.sleep(2) end}\n"
    "  pcall(mp.scope, function(s2) s2:spawn(function() error('x') end) mp.sleep(2) end)\n"
    "  mp.scope(function(s3) s3:spawn(error, 'z') end, {on_error = 'collect'})\n"
    "  mp.shield(function() mp.sleep(0) return 1, 2, 3 end)\n"
    "  return s:spawn(function() return 1, 2, 3 end):await()\n"
    "end, {deadline = 50, cancel_token = mp.cancel_token()})\n";

/* Runs it with the n-th allocation failing; how many there were. */
static long run_failing(long n, int for_ever)
{
    struct memory m = {0};
    lua_State *L = new_state(&m, NULL);
    load(L, everything);
    m.count = 0;
    m.fail_at = n;
    m.for_ever = for_ever;
    int status = mp_lua_call(L, 0, 0);
    long count = m.count;
    m.fail_at = 0;
    if (n == 0 && status != LUA_OK)
        fail_msg("%s", lua_tostring(L, -1));
    end_state(L, &m);
    return count;
}

static void test_torture(void **state)
{
    long all = run_failing(0, 0);
    (void)state;
    assert_true(all > 100);
    for (long n = 1; n <= all; n++) {
        run_failing(n, 0);
        run_failing(n, 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_call_is_a_task),
        cmocka_unit_test(test_error_with_traceback),
        cmocka_unit_test(test_close_runs_close_variables),
        cmocka_unit_test(test_state_closed_without_notice),
        cmocka_unit_test(test_no_close_from_inside),
        cmocka_unit_test(test_host_loop),
        cmocka_unit_test(test_no_wait_in_a_callback),
        cmocka_unit_test(test_torture),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

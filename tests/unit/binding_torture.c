/*
 * binding_torture.c - calls while memory runs out: the N-th allocation fails, for every N.
 *
 * Each point is a child of its own, forked where the library is loaded and nothing has begun. It ends
 * with a good reply or a clean error: no signal, no hang, the loop closed, no descriptor left. What
 * fails is ours (wrapped by the linker), curl's (its own hooks) and Lua's; once, or twice in a row,
 * because Lua asks again after a collection.
 *
 * Every few points are tried, from a seed that is printed: SEED= chooses it, TORTURE=full tries all.
 * Not made to fail is libuv, which aborts when it cannot grow its table of watchers (maybe_resize in
 * uv__io_start). curl 7.88 divides by zero in hash_fd or trhash once it had no memory for a socket's
 * transfers (sh_addentry in multi.c); the transport leaves such a multi handle behind, whose pair of
 * sockets to wake it stays open: two descriptors are not held against a point.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <curl/curl.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <lualib.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uv.h>

#include "moonpool_lua.h"

#define TRIED    120 /* points of a scenario, both ways of failing together */
#define PATIENCE 20  /* s until a point hangs */
#define CURL_FDS 2

/* ---- allocations that fail ---- */

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
char *__real_strdup(const char *s);
char *__real_strndup(const char *s, size_t n);

static struct {
    long count;   /* since it was set */
    long fail_at; /* 0: none */
    long in_row;
} memory;

static int refuse(void)
{
    long n = __atomic_add_fetch(&memory.count, 1, __ATOMIC_RELAXED);
    if (memory.fail_at == 0 || n < memory.fail_at || n >= memory.fail_at + memory.in_row)
        return 0;
    errno = ENOMEM;
    return 1;
}

void *__wrap_malloc(size_t n)
{
    return refuse() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
    return refuse() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t n)
{
    return refuse() ? NULL : __real_realloc(p, n);
}

char *__wrap_strdup(const char *s)
{
    return refuse() ? NULL : __real_strdup(s);
}

char *__wrap_strndup(const char *s, size_t n)
{
    return refuse() ? NULL : __real_strndup(s, n);
}

static void *allocate(void *ud, void *p, size_t old, size_t size)
{
    (void)ud;
    if (size == 0) {
        free(p);
        return NULL;
    }
    if (p != NULL && size <= old) /* Lua relies on it */
        return __real_realloc(p, size);
    return __wrap_realloc(p, size);
}

/* ---- the scenarios: each gets a URL, and returns or raises ---- */

static const struct scenario {
    const char *name, *script;
} scenarios[] = {
    {"embed", "local url = ...\n"
              "local mp = require 'moonpool'\n"
              "local c <close> = mp.client{base_url = url, api_key = 'k', timeout = 3,\n"
              "  retry = {max_attempts = 2, base = 0.001}}\n"
              "local v = assert(c:embed{input = {'one', 'two', 'three'}})\n"
              "assert(#v == 3)\n"},
    {"batch_post", "local url = ...\n"
                   "local mp = require 'moonpool'\n"
                   "local c <close> = mp.client{base_url = url, api_key = 'k', timeout = 3,\n"
                   "  retry = {max_attempts = 2, base = 0.001}}\n"
                   "assert(c:batch_post{path = '/v1/embeddings',\n"
                   "  payloads = {{input = 'a'}, {input = 'b'}}})\n"},
    {"stream", "local url = ...\n"
               "local mp = require 'moonpool'\n"
               "local c <close> = mp.client{base_url = url, api_key = 'k', timeout = 3,\n"
               "  retry = {max_attempts = 2, base = 0.001}}\n"
               "local n = 0\n"
               "for chunk in assert(c:stream{path = '/v1/embeddings', json = {input = 'a'}}) do\n"
               "  n = n + 1\n"
               "end\n"
               "assert(n > 0)\n"},
    {"serve", "local mp = require 'moonpool'\n"
              "local server <close> = assert(mp.serve{listen = '127.0.0.1:0',\n"
              "  handler = function(req) return {json = {got = req:json().x}} end,\n"
              "  on_error = function() end})\n"
              "local c <close> = mp.client{base_url = server.url, timeout = 3, retry = false}\n"
              "local r = assert(c:request{path = '/x', json = {x = 5}})\n"
              "assert(r.data.got == 5)\n"},
};
#define SCENARIOS (sizeof(scenarios) / sizeof(*scenarios))

static char url[128];
static pid_t server;

/* A service of the same library, in a process where memory does not fail. */
static int start_server(void **state)
{
    int out[2];
    char ready[sizeof(url)];
    (void)state;
    assert_int_equal(pipe(out), 0);
    server = fork();
    if (server == 0) {
        lua_State *L = luaL_newstate();
        luaL_openlibs(L);
        if (mp_lua_open(L, NULL) != LUA_OK ||
            luaL_dostring(L, "mock = assert(require('moonpool').mock{dim = 4}) return mock.url") !=
                LUA_OK)
            _exit(1);
        const char *text = lua_tostring(L, -1);
        if (write(out[1], text, strlen(text) + 1) < 0)
            _exit(1);
        (void)luaL_dostring(L, "mock.server:wait()");
        _exit(0);
    }
    close(out[1]);
    ssize_t n = read(out[0], ready, sizeof(ready));
    close(out[0]);
    assert_true(n > 0);
    snprintf(url, sizeof(url), "%.*s", (int)n, ready);
    return 0;
}

static int stop_server(void **state)
{
    (void)state;
    kill(server, SIGKILL);
    waitpid(server, NULL, 0);
    return 0;
}

/* ---- one point ---- */

struct report {
    long count;         /* allocations */
    int fds;            /* open at the end */
    int loop;           /* uv_loop_close */
    char modules[8192]; /* loaded, of the library */
    char error[160];
};

struct house {
    uv_loop_t loop;
    lua_State *L;
};

static int open_fds(void)
{
    int n = 0;
    DIR *dir = opendir("/proc/self/fd");
    while (dir != NULL && readdir(dir) != NULL)
        n++;
    closedir(dir);
    return n;
}

static void note_modules(lua_State *L, struct report *r)
{
    lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    for (lua_pushnil(L); lua_next(L, -2) != 0; lua_pop(L, 1)) {
        size_t at = strlen(r->modules);
        if (strncmp(lua_tostring(L, -2), "moonpool.", 9) == 0)
            snprintf(r->modules + at, sizeof(r->modules) - at, "%s ", lua_tostring(L, -2));
    }
    lua_pop(L, 1);
}

/* The child: never returns. */
static void run_point(struct house *h, const struct scenario *s, long fail_at, long in_row, int out)
{
    static struct report r;
    lua_State *L = h->L;
    int null = open("/dev/null", 1);
    dup2(null, 2);
    close(null);
    alarm(PATIENCE);
    if (uv_loop_fork(&h->loop) != 0 || luaL_loadstring(L, s->script) != LUA_OK)
        _exit(3);
    lua_pushstring(L, url);
    memory.count = 0;
    memory.in_row = in_row;
    memory.fail_at = fail_at;
    int status = mp_lua_call(L, 1, 0);
    memory.fail_at = 0;
    r.count = memory.count;
    if (status != LUA_OK)
        snprintf(r.error, sizeof(r.error), "%s", luaL_tolstring(L, -1, NULL));
    if (fail_at == 0)
        note_modules(L, &r);
    int closed = mp_lua_close(L);
    lua_close(L);
    uv_run(&h->loop, UV_RUN_DEFAULT);
    r.loop = uv_loop_close(&h->loop);
    r.fds = open_fds();
    if (write(out, &r, sizeof(r)) != (ssize_t)sizeof(r) || closed != 0)
        _exit(4);
    _exit(status == LUA_OK ? 0 : 1);
}

/* How it ended: a wait status; the report is all zero if there was none. */
static int point(struct house *h, const struct scenario *s, long fail_at, long in_row,
                 struct report *r)
{
    int out[2];
    int status = 0;
    memset(r, 0, sizeof(*r));
    assert_int_equal(pipe(out), 0);
    pid_t pid = fork();
    if (pid == 0) {
        close(out[0]);
        run_point(h, s, fail_at, in_row, out[1]);
    }
    close(out[1]);
    for (size_t got = 0; got < sizeof(*r);) {
        ssize_t n = read(out[0], (char *)r + got, sizeof(*r) - got);
        if (n <= 0)
            break;
        got += (size_t)n;
    }
    close(out[0]);
    waitpid(pid, &status, 0);
    return status;
}

static void open_house(struct house *h, const char *modules)
{
    assert_int_equal(uv_loop_init(&h->loop), 0);
    h->L = lua_newstate(allocate, NULL);
    luaL_openlibs(h->L);
    assert_int_equal(mp_lua_open(h->L, &h->loop), LUA_OK);
    lua_pushstring(h->L, modules);
    lua_setglobal(h->L, "modules");
    assert_int_equal(luaL_dostring(h->L, "for m in modules:gmatch '%S+' do require(m) end"), 0);
}

static void close_house(struct house *h)
{
    assert_int_equal(mp_lua_close(h->L), 0);
    lua_close(h->L);
    uv_run(&h->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&h->loop), 0);
}

/* ---- all of them ---- */

struct tally {
    long points, errors, faults;
};

static void judge(struct tally *t, const struct scenario *s, long n, long in_row, int status,
                  const struct report *r, const struct report *well)
{
    const char *why = NULL;
    t->points++;
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
        why = "it hangs";
    else if (WIFSIGNALED(status))
        why = strsignal(WTERMSIG(status));
    else if (WEXITSTATUS(status) > 1)
        why = "it was not closed";
    else if (r->loop != 0)
        why = "the loop has handles left";
    else if (r->fds > well->fds + CURL_FDS)
        why = "descriptors are left open";
    else if (WEXITSTATUS(status) == 1 && r->error[0] == '\0')
        why = "an error without words";
    t->errors += why == NULL && WEXITSTATUS(status) == 1;
    if (why == NULL)
        return;
    t->faults++;
    print_message("%s: allocation %ld%s: %s\n", s->name, n, in_row > 1 ? " and the next" : "", why);
}

static uint64_t seed(void)
{
    const char *text = getenv("SEED");
    return text != NULL ? strtoull(text, NULL, 0) : (uint64_t)getpid();
}

static void torture(const struct scenario *s, uint64_t random, int full, struct tally *t)
{
    struct house h;
    static struct report well, r;
    open_house(&h, "");
    int status = point(&h, s, 0, 0, &well); /* to learn what it loads */
    if (status != 0)
        fail_msg("%s: %s", s->name, well.error);
    close_house(&h);
    open_house(&h, well.modules);
    status = point(&h, s, 0, 0, &well);
    assert_int_equal(status, 0);
    assert_true(well.count > 100);
    long stride = full ? 1 : 1 + 2 * well.count / TRIED;
    for (long in_row = 1; in_row <= 2; in_row++)
        for (long n = 1 + (long)(random % (uint64_t)stride); n <= well.count; n += stride) {
            status = point(&h, s, n, in_row, &r);
            judge(t, s, n, in_row, status, &r, &well);
        }
    close_house(&h);
}

static void every_failure_ends_cleanly(void **state)
{
    struct tally t = {0};
    const char *how = getenv("TORTURE");
    uint64_t random = seed();
    (void)state;
    for (size_t i = 0; i < SCENARIOS; i++)
        torture(&scenarios[i], random, how != NULL && strcmp(how, "full") == 0, &t);
    print_message("seed %llu: %ld points, %ld clean errors, %ld crashes of ours\n",
                  (unsigned long long)random, t.points, t.errors, t.faults);
    assert_int_equal(t.faults, 0);
    assert_true(t.errors > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_failure_ends_cleanly)};
    curl_global_init_mem(CURL_GLOBAL_DEFAULT, __wrap_malloc, free, __wrap_realloc, __wrap_strdup,
                         __wrap_calloc);
    return cmocka_run_group_tests(tests, start_server, stop_server);
}

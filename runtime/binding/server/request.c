/*
 * request.c - a request as a Lua object: fields are made when they are asked for.
 *
 * Most handlers look at the path and the body and nothing else, so the headers table is built on
 * first use and kept in the object's own fields, where handlers may put theirs too. After the reply
 * only what was read before is left.
 */
#include "binding/server/server.h"
#include "binding/client/client.h"
#include "binding/value/json.h"

#include <string.h>

enum field { F_METHOD = 1, F_PATH, F_QUERY, F_HEADERS, F_BODY, F_PEER, F_VERSION };

/* ---- life ---- */

static void on_gone(struct mp__http_request *http)
{
    struct mp__req *r = http->data;
    r->gone = 1;
    if (r->task != NULL)
        mp__task_cancel(r->task);
    mp__waitlist_wake_all(&r->drain); /* outside a task there is nothing to cancel */
}

void mp__request_again(struct mp__req *r, struct mp__http_request *http)
{
    r->http = http;
    r->task = mp__task_current(r->srv->rt);
    mp__list_push(&r->srv->taken, &r->link);
    http->data = r;
    http->on_gone = on_gone;
}

struct mp__req *mp__push_request(lua_State *L, int server)
{
    struct mp__req *r = lua_newuserdatauv(L, sizeof(*r), REQ_UVS);
    memset(r, 0, sizeof(*r));
    mp__waitlist_init(&r->drain);
    luaL_setmetatable(L, MP__REQUEST);
    lua_pushvalue(L, server);
    lua_setiuservalue(L, -2, REQ_UV_SERVER);
    r->srv = mp__check_server(L, server);
    return r;
}

void mp__request_over(struct mp__req *r)
{
    mp__list_remove(&r->link);
    r->http = NULL;
    r->task = NULL;
    mp__waitlist_wake_all(&r->drain);
}

struct mp__req *mp__check_request(lua_State *L, int idx)
{
    struct mp__req *r = luaL_checkudata(L, idx, MP__REQUEST);
    luaL_argcheck(L, r->http != NULL, idx, "the request is over");
    return r;
}

/* Also __close: a worker that ends without an answer drops the connection. */
static int l_request_gc(lua_State *L)
{
    struct mp__req *r = luaL_checkudata(L, 1, MP__REQUEST);
    struct mp__http_request *http = r->http;
    mp_result_free(r->failed);
    r->failed = NULL;
    if (http == NULL)
        return 0;
    mp__request_over(r);
    mp__http_abort(http);
    return 0;
}

/* ---- fields ---- */

static void push_headers(lua_State *L, const struct mp__http_request *http)
{
    lua_createtable(L, 0, (int)http->nheaders);
    for (size_t i = 0; i < http->nheaders; i++) {
        lua_pushstring(L, http->headers[i].name);
        lua_pushvalue(L, -1);
        /* Lists may come in several lines (RFC 9110, 5.3). */
        if (lua_rawget(L, -3) == LUA_TNIL) {
            lua_pop(L, 1);
            lua_pushstring(L, http->headers[i].value);
        } else {
            lua_pushfstring(L, ", %s", http->headers[i].value);
            lua_concat(L, 2);
        }
        lua_rawset(L, -3);
    }
}

static void push_field(lua_State *L, const struct mp__http_request *http, int field)
{
    char peer[80];
    switch (field) {
    case F_METHOD:
        lua_pushstring(L, http->method);
        break;
    case F_PATH:
        lua_pushstring(L, http->path);
        break;
    case F_QUERY:
        lua_pushstring(L, http->query);
        break;
    case F_HEADERS:
        push_headers(L, http);
        break;
    case F_BODY:
        lua_pushlstring(L, http->body, http->body_len);
        break;
    case F_PEER:
        lua_pushstring(L, mp__http_peer(http, peer, sizeof(peer)));
        break;
    default:
        lua_pushstring(L, http->http_minor == 1 ? "1.1" : "1.0");
        break;
    }
}

/* Pushes the table of fields already made, if there is one. */
static int push_fields(lua_State *L, int make)
{
    if (lua_getiuservalue(L, 1, REQ_UV_FIELDS) == LUA_TTABLE)
        return 1;
    lua_pop(L, 1);
    if (!make)
        return 0;
    lua_newtable(L);
    lua_pushvalue(L, -1);
    lua_setiuservalue(L, 1, REQ_UV_FIELDS);
    return 1;
}

/* Upvalues: the field numbers, the methods. */
static int l_request_index(lua_State *L)
{
    struct mp__req *r = luaL_checkudata(L, 1, MP__REQUEST);
    lua_settop(L, 2);
    lua_pushvalue(L, 2);
    int kind = lua_rawget(L, lua_upvalueindex(2));
    if (kind != LUA_TNIL)
        return 1;
    if (push_fields(L, 0)) {
        lua_pushvalue(L, 2);
        if (lua_rawget(L, -2) != LUA_TNIL)
            return 1;
    }
    lua_pushvalue(L, 2);
    if (lua_rawget(L, lua_upvalueindex(1)) != LUA_TNUMBER || r->http == NULL)
        return 0;
    int field = (int)lua_tointeger(L, -1);
    push_field(L, r->http, field);
    if (field == F_METHOD || field == F_PATH)
        return 1; /* short strings are interned: cheaper to make again than to keep */
    int value = lua_gettop(L);
    push_fields(L, 1);
    lua_pushvalue(L, 2);
    lua_pushvalue(L, value);
    lua_rawset(L, -3);
    lua_settop(L, value);
    return 1;
}

static int l_request_newindex(lua_State *L)
{
    luaL_checkudata(L, 1, MP__REQUEST);
    luaL_checkany(L, 3);
    lua_settop(L, 3);
    push_fields(L, 1);
    lua_insert(L, 2);
    lua_rawset(L, 2);
    return 0;
}

/* ---- methods ---- */

/* req:json(): the body's value; or nil and an error of kind "decode". */
static int l_request_json(lua_State *L)
{
    struct mp__req *r = mp__check_request(L, 1);
    char err[200];
    if (mp__json_decode(L, r->http->body, r->http->body_len, err, sizeof(err)) == 1)
        return 1;
    lua_pushnil(L);
    mp__push_error(L, "decode", err);
    return 2;
}

/* req:header(name): any case; the first of that name, without building the table. */
static int l_request_header(lua_State *L)
{
    struct mp__req *r = mp__check_request(L, 1);
    char name[128];
    size_t n;
    const char *given = luaL_checklstring(L, 2, &n);
    if (n >= sizeof(name))
        return 0;
    for (size_t i = 0; i <= n; i++)
        name[i] = (char)(given[i] >= 'A' && given[i] <= 'Z' ? given[i] + 32 : given[i]);
    lua_pushstring(L, mp__http_header(r->http, name));
    return 1;
}

/* req:failed(): the result of the short way where it failed, once; else nil. */
static int l_request_failed(lua_State *L)
{
    struct mp__req *r = luaL_checkudata(L, 1, MP__REQUEST);
    if (r->failed == NULL)
        return 0;
    mp__push_result(L, r->failed);
    r->failed = NULL;
    return 1;
}

/* req:gone(): whether the client left before the reply. */
static int l_request_gone(lua_State *L)
{
    struct mp__req *r = luaL_checkudata(L, 1, MP__REQUEST);
    lua_pushboolean(L, r->gone);
    return 1;
}

static void push_field_numbers(lua_State *L)
{
    static const char *const names[] = {"method", "path", "query",  "headers",
                                        "body",   "peer", "version"};
    lua_newtable(L);
    for (int i = 0; i < 7; i++) {
        lua_pushinteger(L, i + 1);
        lua_setfield(L, -2, names[i]);
    }
}

void mp__open_request(lua_State *L)
{
    static const luaL_Reg meta[] = {
        {"__gc", l_request_gc},
        {"__close", l_request_gc},
        {"__newindex", l_request_newindex},
        {NULL, NULL},
    };
    static const luaL_Reg methods[] = {
        {"json", l_request_json},
        {"header", l_request_header},
        {"gone", l_request_gone},
        {"failed", l_request_failed},
        {NULL, NULL},
    };
    luaL_newmetatable(L, MP__REQUEST);
    luaL_setfuncs(L, meta, 0);
    push_field_numbers(L);
    luaL_newlib(L, methods);
    lua_pushcclosure(L, l_request_index, 2);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
}

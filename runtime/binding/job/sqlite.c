/*
 * sqlite.c - a little of SQLite, whose library is loaded when a file is opened and not before: who
 * uses no cache needs none.
 */
#include "binding/job/job.h"

#include <dlfcn.h>
#include <string.h>

#define ROW           100
#define DONE          101
#define SQL_INTEGER   1
#define SQL_FLOAT     2
#define SQL_NULL      5
#define BUSY_MS       10000
#define OPEN_FLAGS    0x8006 /* read, write, create; one thread */
#define LIBRARY       "libsqlite3.so.0"
#define COPY_OF_BYTES ((void (*)(void *)) - 1)

struct sqlite3;
struct sqlite3_stmt;

static struct {
    int (*open_v2)(const char *, struct sqlite3 **, int, const char *);
    int (*close_v2)(struct sqlite3 *);
    int (*busy_timeout)(struct sqlite3 *, int);
    const char *(*errmsg)(struct sqlite3 *);
    int (*prepare_v2)(struct sqlite3 *, const char *, int, struct sqlite3_stmt **, const char **);
    int (*finalize)(struct sqlite3_stmt *);
    int (*step)(struct sqlite3_stmt *);
    int (*reset)(struct sqlite3_stmt *);
    int (*bind_blob)(struct sqlite3_stmt *, int, const void *, int, void (*)(void *));
    int (*bind_int64)(struct sqlite3_stmt *, int, long long);
    int (*column_count)(struct sqlite3_stmt *);
    int (*column_type)(struct sqlite3_stmt *, int);
    long long (*column_int64)(struct sqlite3_stmt *, int);
    double (*column_double)(struct sqlite3_stmt *, int);
    const void *(*column_blob)(struct sqlite3_stmt *, int);
    int (*column_bytes)(struct sqlite3_stmt *, int);
} sql;

static const struct {
    const char *name;
    void *to;
} symbols[] = {
    {"sqlite3_open_v2", &sql.open_v2},
    {"sqlite3_close_v2", &sql.close_v2},
    {"sqlite3_busy_timeout", &sql.busy_timeout},
    {"sqlite3_errmsg", &sql.errmsg},
    {"sqlite3_prepare_v2", &sql.prepare_v2},
    {"sqlite3_finalize", &sql.finalize},
    {"sqlite3_step", &sql.step},
    {"sqlite3_reset", &sql.reset},
    {"sqlite3_bind_blob", &sql.bind_blob},
    {"sqlite3_bind_int64", &sql.bind_int64},
    {"sqlite3_column_count", &sql.column_count},
    {"sqlite3_column_type", &sql.column_type},
    {"sqlite3_column_int64", &sql.column_int64},
    {"sqlite3_column_double", &sql.column_double},
    {"sqlite3_column_blob", &sql.column_blob},
    {"sqlite3_column_bytes", &sql.column_bytes},
};

struct db {
    struct sqlite3 *db;
};

static const char db_type[] = "moonpool.sqlite";

static int load(void)
{
    static void *library;

    if (library != NULL)
        return 0;
    library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    for (size_t i = 0; library != NULL && i < sizeof(symbols) / sizeof(symbols[0]); i++) {
        void *p = dlsym(library, symbols[i].name);

        if (p == NULL) {
            dlclose(library);
            library = NULL;
            break;
        }
        memcpy(symbols[i].to, &p, sizeof(p));
    }
    return library != NULL ? 0 : -1;
}

static struct db *check(lua_State *L)
{
    struct db *d = luaL_checkudata(L, 1, db_type);

    if (d->db == NULL)
        luaL_argerror(L, 1, "the database is closed");
    return d;
}

static int push_failure(lua_State *L, struct db *d)
{
    lua_pushnil(L);
    lua_pushstring(L, sql.errmsg(d->db));
    return 2;
}

/* ---- statements, kept by their text ---- */

/* The statement of the text at 2, from the table in the user value. */
static struct sqlite3_stmt *statement(lua_State *L, struct db *d)
{
    struct sqlite3_stmt *s = NULL;

    lua_getiuservalue(L, 1, 1);
    lua_pushvalue(L, 2);
    if (lua_rawget(L, -2) == LUA_TLIGHTUSERDATA) {
        s = lua_touserdata(L, -1);
        lua_pop(L, 2);
        return s;
    }
    lua_pop(L, 1);
    lua_pushvalue(L, 2);
    lua_pushnil(L);
    lua_rawset(L, -3); /* the table has room now */
    if (sql.prepare_v2(d->db, lua_tostring(L, 2), -1, &s, NULL) == 0 && s != NULL) {
        lua_pushvalue(L, 2);
        lua_pushlightuserdata(L, s);
        lua_rawset(L, -3);
    }
    lua_pop(L, 1);
    return s;
}

static void bind_all(lua_State *L, struct sqlite3_stmt *s, int top)
{
    for (int i = 3; i <= top; i++) {
        size_t n;

        if (lua_isinteger(L, i)) {
            sql.bind_int64(s, i - 2, lua_tointeger(L, i));
        } else {
            const char *p = lua_tolstring(L, i, &n);

            sql.bind_blob(s, i - 2, p, (int)n, COPY_OF_BYTES);
        }
    }
}

static void push_column(lua_State *L, struct sqlite3_stmt *s, int i)
{
    const void *p;

    switch (sql.column_type(s, i)) {
    case SQL_INTEGER:
        lua_pushinteger(L, sql.column_int64(s, i));
        break;
    case SQL_FLOAT:
        lua_pushnumber(L, sql.column_double(s, i));
        break;
    case SQL_NULL:
        lua_pushboolean(L, 0);
        break;
    default:
        p = sql.column_blob(s, i);
        lua_pushlstring(L, p != NULL ? p : "", (size_t)sql.column_bytes(s, i));
    }
}

static void push_row(lua_State *L, struct sqlite3_stmt *s)
{
    int n = sql.column_count(s);

    lua_createtable(L, n, 0);
    for (int i = 0; i < n; i++) {
        push_column(L, s, i);
        lua_rawseti(L, -2, i + 1);
    }
}

/* db:query(sql, integer or bytes, ...) -> list of rows, each a list; nil and the reason. */
static int l_query(lua_State *L)
{
    struct db *d = check(L);
    int top = lua_gettop(L), rc;
    struct sqlite3_stmt *s;
    lua_Integer n = 0;

    luaL_checkstring(L, 2);
    for (int i = 3; i <= top; i++)
        if (!lua_isinteger(L, i))
            luaL_checkstring(L, i);
    lua_newtable(L);
    s = statement(L, d);
    if (s == NULL)
        return push_failure(L, d);
    bind_all(L, s, top);
    for (rc = sql.step(s); rc == ROW; rc = sql.step(s)) {
        push_row(L, s);
        lua_rawseti(L, top + 1, ++n);
    }
    sql.reset(s);
    if (rc != DONE)
        return push_failure(L, d);
    return 1;
}

static int l_close(lua_State *L)
{
    struct db *d = luaL_checkudata(L, 1, db_type);

    if (d->db == NULL)
        return 0;
    lua_getiuservalue(L, 1, 1);
    lua_pushnil(L);
    while (lua_next(L, -2)) {
        sql.finalize(lua_touserdata(L, -1));
        lua_pop(L, 1);
    }
    sql.close_v2(d->db);
    d->db = NULL;
    return 0;
}

/* sqlite_open(path) -> db, or nil and the reason. */
static int l_open(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    struct db *d = lua_newuserdatauv(L, sizeof(*d), 1);

    d->db = NULL;
    lua_newtable(L);
    lua_setiuservalue(L, -2, 1);
    luaL_setmetatable(L, db_type);
    if (load() != 0) {
        lua_pushnil(L);
        lua_pushliteral(L, "SQLite is not installed (its library is " LIBRARY ")");
        return 2;
    }
    if (sql.open_v2(path, &d->db, OPEN_FLAGS, NULL) != 0) {
        lua_pushnil(L);
        lua_pushfstring(L, "%s: %s", path, d->db != NULL ? sql.errmsg(d->db) : "out of memory");
        return 2;
    }
    sql.busy_timeout(d->db, BUSY_MS);
    return 1;
}

void mp__open_job_sqlite(lua_State *L)
{
    static const luaL_Reg methods[] = {{"query", l_query}, {"close", l_close}, {NULL, NULL}};

    luaL_newmetatable(L, db_type);
    luaL_newlib(L, methods);
    lua_setfield(L, -2, "__index");
    lua_pushcfunction(L, l_close);
    lua_setfield(L, -2, "__gc");
    lua_pushcfunction(L, l_close);
    lua_setfield(L, -2, "__close");
    lua_pop(L, 1);
    lua_pushcfunction(L, l_open);
    lua_setfield(L, -2, "sqlite_open");
}

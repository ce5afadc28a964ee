/*
 * ledger.c - which texts a job has met lately, and which vectors: fixed tables, so memory is flat
 * however many rows there are. What falls out of them is asked again, never taken for another.
 */
#include "binding/job/job.h"

#include <stdlib.h>
#include <string.h>

#define BITS 19 /* of sets */
#define WAYS 2

struct slot {
    uint64_t text; /* the half of the hash that is not its place */
    uint64_t row;  /* plus 1; 0: free */
};

struct mp__ledger {
    struct slot *slots;
    struct mp__sound sound;
};

static const char ledger_type[] = "moonpool.job_ledger";

static struct mp__ledger *check(lua_State *L, int idx)
{
    return luaL_checkudata(L, idx, ledger_type);
}

struct mp__sound *mp__ledger_sound(lua_State *L, int idx)
{
    return &check(L, idx)->sound;
}

/* The set of a text; its first slot is the younger one. */
static struct slot *set_of(struct mp__ledger *l, const struct mp__row *r, uint64_t *text)
{
    uint64_t place;

    memcpy(text, r->key, sizeof(*text));
    memcpy(&place, r->key + 7, sizeof(place)); /* bytes 7 to 14 */
    place ^= *text;
    return l->slots + ((place >> (64 - BITS)) * WAYS);
}

/* ledger:seen(item, row) -> the row that asked the same before; else remembers this one. */
static int l_seen(lua_State *L)
{
    struct mp__ledger *l = check(L, 1);
    lua_Integer row = luaL_checkinteger(L, 3);
    struct mp__row r;
    struct mp__item item;
    struct slot *set;
    uint64_t text;

    luaL_checktype(L, 2, LUA_TTABLE);
    if (l->slots == NULL)
        l->slots = calloc((size_t)WAYS << BITS, sizeof(*l->slots));
    if (l->slots == NULL)
        return luaL_error(L, "out of memory for the texts of a job");
    mp__item_read(L, 2, &item);
    mp__item_row(L, 2, &item, &r);
    set = set_of(l, &r, &text);
    for (int i = 0; i < WAYS; i++) {
        if (set[i].row && set[i].text == text) {
            lua_pushinteger(L, (lua_Integer)set[i].row - 1);
            return 1;
        }
    }
    memmove(set + 1, set, (WAYS - 1) * sizeof(*set));
    set[0].text = text;
    set[0].row = (uint64_t)row + 1;
    return 0;
}

/* ledger:forget(item): it failed, so the next one asks. */
static int l_forget(lua_State *L)
{
    struct mp__ledger *l = check(L, 1);
    struct mp__row r;
    struct mp__item item;
    struct slot *set;
    uint64_t text;

    luaL_checktype(L, 2, LUA_TTABLE);
    if (l->slots == NULL)
        return 0;
    mp__item_read(L, 2, &item);
    mp__item_row(L, 2, &item, &r);
    set = set_of(l, &r, &text);
    for (int i = 0; i < WAYS; i++)
        if (set[i].row && set[i].text == text)
            set[i].row = 0;
    return 0;
}

static int l_close(lua_State *L)
{
    struct mp__ledger *l = check(L, 1);

    free(l->slots);
    l->slots = NULL;
    return 0;
}

/* job_ledger() */
static int l_new(lua_State *L)
{
    struct mp__ledger *l = lua_newuserdatauv(L, sizeof(*l), 0);

    memset(l, 0, sizeof(*l));
    luaL_setmetatable(L, ledger_type);
    return 1;
}

void mp__open_job_ledger(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"seen", l_seen}, {"forget", l_forget}, {"close", l_close}, {NULL, NULL}};

    luaL_newmetatable(L, ledger_type);
    luaL_newlib(L, methods);
    lua_setfield(L, -2, "__index");
    lua_pushcfunction(L, l_close);
    lua_setfield(L, -2, "__gc");
    lua_pop(L, 1);
    lua_pushcfunction(L, l_new);
    lua_setfield(L, -2, "job_ledger");
}

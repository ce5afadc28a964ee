/*
 * rows.c - the records of all rows of an earlier job, on the disk: which row was this text? Memory is
 * a window, and while a job is compared with an edited input a table of 8 bytes a row and slot.
 */
#include "binding/job/job.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define WINDOW 2048 /* rows */

struct rows {
    int fd;
    uint64_t n;
    uint64_t from, held; /* the window */
    uint64_t *table;     /* low half: row + 1, high half: part of the hash; 0: free */
    size_t slots;
    uint64_t next; /* behind the row found last: texts that moved mostly moved together */
    struct mp__row window[WINDOW];
};

static const char rows_type[] = "moonpool.job_rows";

static struct rows *check(lua_State *L)
{
    struct rows *r = luaL_checkudata(L, 1, rows_type);

    if (r->fd < 0)
        luaL_argerror(L, 1, "the file is closed");
    return r;
}

static const struct mp__row *row_at(struct rows *r, uint64_t row)
{
    if (row >= r->n)
        return NULL;
    if (row < r->from || row >= r->from + r->held) {
        r->from = row;
        r->held = r->n - row < WINDOW ? r->n - row : WINDOW;
        if (mp__read_at(r->fd, r->window, r->held * sizeof(struct mp__row),
                        row * sizeof(struct mp__row)) != 0)
            r->held = 0;
        if (r->held == 0)
            return NULL;
    }
    return &r->window[row - r->from];
}

int mp__job_rows_read(lua_State *L, int idx, uint64_t first, uint32_t n, struct mp__row *out)
{
    struct rows *r = luaL_checkudata(L, idx, rows_type);

    return mp__read_at(r->fd, out, n * sizeof(*out), first * sizeof(*out));
}

static int same_key(const struct mp__row *a, const struct mp__row *b)
{
    return memcmp(a->key, b->key, 15) == 0;
}

/* rows:match(row, item) -> 0 another text, 1 the same line, 2 the same text; and the row's state. */
static int l_match(lua_State *L)
{
    struct rows *r = check(L);
    lua_Integer row = luaL_checkinteger(L, 2);
    const struct mp__row *old;
    struct mp__row item;
    struct mp__item fields;

    luaL_checktype(L, 3, LUA_TTABLE);
    old = row < 0 ? NULL : row_at(r, (uint64_t)row);
    if (old == NULL || old->key[15] == MP__ROW_NONE) {
        lua_pushinteger(L, 0);
        lua_pushinteger(L, 0);
        return 2;
    }
    mp__item_read(L, 3, &fields);
    mp__item_row(L, 3, &fields, &item);
    lua_pushinteger(L, !same_key(old, &item) ? 0 : old->tag == item.tag ? 1 : 2);
    lua_pushinteger(L, old->key[15]);
    return 2;
}

/* rows:state(row) -> 0 none, 1 ok, 2 failed, 3 failed before it was asked. */
static int l_state(lua_State *L)
{
    struct rows *r = check(L);
    const struct mp__row *row = row_at(r, (uint64_t)luaL_checkinteger(L, 2));

    lua_pushinteger(L, row != NULL ? row->key[15] : 0);
    return 1;
}

/* ---- by content ---- */

static uint64_t hash_of(const struct mp__row *row)
{
    uint64_t h;

    memcpy(&h, row->key, sizeof(h));
    return h;
}

static void remember(struct rows *r, const struct mp__row *row, uint64_t number)
{
    uint64_t h = hash_of(row);
    size_t i = (size_t)(h % r->slots);

    while (r->table[i] != 0)
        i = i + 1 == r->slots ? 0 : i + 1;
    r->table[i] = (h & 0xFFFFFFFF00000000u) | (number + 1);
}

/* Pages of a file without a name: what is not used may leave memory. */
static int make_table(struct rows *r)
{
    void *p;

    r->slots = (size_t)(r->n + r->n / 2 + 64) | 1;
    p = mmap(NULL, r->slots * sizeof(*r->table), PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return -1;
    r->table = p;
    for (uint64_t i = 0; i < r->n; i++) {
        const struct mp__row *row = row_at(r, i);

        if (row == NULL)
            return -1;
        if (row->key[15] == MP__ROW_OK)
            remember(r, row, i);
    }
    return 0;
}

static int is_it(struct rows *r, uint64_t number, const struct mp__row *item)
{
    struct mp__row one;
    const struct mp__row *row = &one;

    if (number >= r->n)
        return 0;
    if (number >= r->from && number < r->from + r->held)
        row = &r->window[number - r->from];
    else if (mp__read_at(r->fd, &one, sizeof(one), number * sizeof(one)) != 0)
        return 0;
    return row->key[15] == MP__ROW_OK && same_key(row, item);
}

static int64_t find(struct rows *r, const struct mp__row *item)
{
    uint64_t h = hash_of(item);
    size_t i = (size_t)(h % r->slots);

    if (r->next < r->n && row_at(r, r->next) != NULL && is_it(r, r->next, item))
        return (int64_t)r->next++;
    for (; r->table[i] != 0; i = i + 1 == r->slots ? 0 : i + 1) {
        uint64_t number = (r->table[i] & 0xFFFFFFFFu) - 1;

        if ((r->table[i] >> 32) == (h >> 32) && is_it(r, number, item)) {
            r->next = number + 1;
            return (int64_t)number;
        }
    }
    return -1;
}

/* rows:find(item) -> a row with this text that has a result, or nil. */
static int l_find(lua_State *L)
{
    struct rows *r = check(L);
    struct mp__row item;
    struct mp__item fields;
    int64_t number;

    luaL_checktype(L, 2, LUA_TTABLE);
    if (r->n >= UINT32_MAX)
        return luaL_error(L, "too many rows to be found by their content");
    if (r->table == NULL && make_table(r) != 0)
        return luaL_error(L, "cannot read the records of the rows: %s", strerror(errno));
    mp__item_read(L, 2, &fields);
    mp__item_row(L, 2, &fields, &item);
    number = find(r, &item);
    if (number < 0)
        return 0;
    lua_pushinteger(L, number);
    return 1;
}

/* rows:count(first, n, state) -> how many of these rows are in that state. */
static int l_count(lua_State *L)
{
    struct rows *r = check(L);
    uint64_t first = (uint64_t)luaL_checkinteger(L, 2), n = (uint64_t)luaL_checkinteger(L, 3);
    lua_Integer state = luaL_checkinteger(L, 4), found = 0;

    for (uint64_t i = first; i < first + n; i++) {
        const struct mp__row *row = row_at(r, i);

        found += (row != NULL ? row->key[15] : 0) == state;
    }
    lua_pushinteger(L, found);
    return 1;
}

/* ---- the file ---- */

static int l_close(lua_State *L)
{
    struct rows *r = luaL_checkudata(L, 1, rows_type);

    if (r->fd >= 0)
        close(r->fd);
    if (r->table != NULL)
        munmap(r->table, r->slots * sizeof(*r->table));
    r->fd = -1;
    r->table = NULL;
    return 0;
}

static int l_size(lua_State *L)
{
    lua_pushinteger(L, (lua_Integer)check(L)->n);
    return 1;
}

/* job_rows(path) -> the records, or nil and the reason. */
static int l_open(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    struct rows *r = lua_newuserdatauv(L, sizeof(*r), 0);
    struct stat st;

    memset(r, 0, sizeof(*r));
    r->fd = -1;
    luaL_setmetatable(L, rows_type);
    r->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (r->fd < 0 || fstat(r->fd, &st) != 0)
        return luaL_fileresult(L, 0, path);
    r->n = (uint64_t)st.st_size / sizeof(struct mp__row);
    return 1;
}

static int copy(int from, int to, uint64_t first, uint64_t n)
{
    struct mp__row block[256];

    for (uint64_t end = first + n; first < end;) {
        uint64_t take = end - first < 256 ? end - first : 256;

        if (mp__read_at(from, block, take * sizeof(*block), first * sizeof(*block)) != 0 ||
            mp__write_at(to, block, take * sizeof(*block), first * sizeof(*block)) != 0)
            return -1;
        first += take;
    }
    return fdatasync(to);
}

/* job_copy_records(from, to, first, n): records of rows first..first+n from one file to another. */
static int l_copy(lua_State *L)
{
    const char *from = luaL_checkstring(L, 1), *to = luaL_checkstring(L, 2);
    lua_Integer first = luaL_checkinteger(L, 3), n = luaL_checkinteger(L, 4);
    int in, out, rc = -1, e;

    luaL_argcheck(L, first >= 0 && n >= 0, 3, "cannot be negative");
    in = open(from, O_RDONLY | O_CLOEXEC);
    out = in < 0 ? -1 : open(to, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (out >= 0)
        rc = copy(in, out, (uint64_t)first, (uint64_t)n);
    e = errno;
    if (in >= 0)
        close(in);
    if (out >= 0)
        close(out);
    errno = e;
    return luaL_fileresult(L, rc == 0, to);
}

void mp__open_job_rows(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"match", l_match}, {"state", l_state}, {"find", l_find}, {"count", l_count},
        {"size", l_size},   {"close", l_close}, {NULL, NULL},
    };

    luaL_newmetatable(L, rows_type);
    luaL_newlib(L, methods);
    lua_setfield(L, -2, "__index");
    lua_pushcfunction(L, l_close);
    lua_setfield(L, -2, "__gc");
    lua_pushcfunction(L, l_close);
    lua_setfield(L, -2, "__close");
    lua_pop(L, 1);
    lua_pushcfunction(L, l_open);
    lua_setfield(L, -2, "job_rows");
    lua_pushcfunction(L, l_copy);
    lua_setfield(L, -2, "job_copy_records");
}

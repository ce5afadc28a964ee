/*
 * vectors.c - replies whose rows are written from a matrix, never as Lua numbers.
 */
#include "binding/server/server.h"
#include "binding/value/matrix.h"
#include "codec/reply.h"

#include <stdlib.h>
#include <string.h>

#define KEEP_OUT ((size_t)1 << 20) /* a larger buffer is not kept between replies */

static const char *const styles[] = {"openai", "tei", "cohere", "ollama", NULL};
static const char *const formats[] = {"float", "base64", "bytes", NULL};

static uint32_t choice(lua_State *L, int t, const char *field, const char *const *names)
{
    uint32_t found = 0;
    lua_getfield(L, t, field);
    const char *s = lua_isnil(L, -1) ? names[0] : lua_tostring(L, -1);
    while (names[found] != NULL && (s == NULL || strcmp(s, names[found]) != 0))
        found++;
    if (names[found] == NULL)
        luaL_error(L, "reply: %s: '%s' is none of those there are", field, s != NULL ? s : "?");
    lua_pop(L, 1);
    return found;
}

/* The matrix, or the one of a result; what a result says of itself are the fallbacks. */
static mp_matrix *matrix_of(lua_State *L, int vectors, struct mp_reply *r)
{
    mp_matrix *m = mp__to_matrix(L, vectors);
    if (m != NULL)
        return m;
    if (lua_istable(L, vectors) && lua_getfield(L, vectors, "matrix") != LUA_TNIL)
        m = mp__to_matrix(L, -1);
    if (m == NULL)
        luaL_error(L, "reply: vectors must be a matrix or the result of embed, not %s",
                   luaL_typename(L, vectors));
    lua_getfield(L, vectors, "model");
    r->model =
        lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : NULL; /* the result keeps it */
    lua_getfield(L, vectors, "total_time");
    r->total_time = lua_tonumber(L, -1);
    lua_getfield(L, vectors, "usage");
    return m;
}

static int64_t count_field(lua_State *L, int usage, const char *name)
{
    lua_getfield(L, usage, name);
    int64_t v = lua_isinteger(L, -1) ? (int64_t)lua_tointeger(L, -1) : -1;
    lua_pop(L, 1);
    return v;
}

static void usage_of(lua_State *L, int usage, struct mp_reply *r)
{
    r->prompt_tokens = r->total_tokens = -1;
    if (!lua_istable(L, usage))
        return;
    r->prompt_tokens = count_field(L, usage, "prompt_tokens");
    r->total_tokens = count_field(L, usage, "total_tokens");
}

static const char *text_field(lua_State *L, int t, const char *name, const char *otherwise)
{
    if (lua_getfield(L, t, name) == LUA_TNIL)
        return otherwise;
    return luaL_checkstring(L, -1); /* stays on the stack: the reply points into it */
}

/* The rows first..first+count-1, all of them where neither is given. */
static void range_of(lua_State *L, int t, struct mp_reply *r)
{
    lua_Integer have = (lua_Integer)mp_matrix_rows(r->matrix);
    lua_getfield(L, t, "first");
    lua_Integer first = luaL_optinteger(L, -1, 1);
    lua_getfield(L, t, "count");
    lua_Integer count = luaL_optinteger(L, -1, have - first + 1);
    if (first < 1 || count < 0 || first - 1 > have || count > have - first + 1)
        luaL_error(L, "reply: %d rows from %d on are not in a matrix with %d", (int)count,
                   (int)first, (int)have);
    r->first = (size_t)first - 1;
    r->nrows = (size_t)count;
}

/* The rows as 0-based numbers in a userdata that is pushed. */
static void rows_of(lua_State *L, int t, struct mp_reply *r)
{
    lua_Integer have = (lua_Integer)mp_matrix_rows(r->matrix);
    if (lua_getfield(L, t, "rows") == LUA_TNIL) {
        range_of(L, t, r);
        return;
    }
    int list = lua_gettop(L);
    if (!lua_istable(L, list))
        luaL_error(L, "reply: rows must be a list of row numbers");
    r->nrows = lua_rawlen(L, list);
    size_t *rows = lua_newuserdatauv(L, (r->nrows + 1) * sizeof(*rows), 0);
    for (size_t i = 0; i < r->nrows; i++) {
        lua_rawgeti(L, list, (lua_Integer)i + 1);
        lua_Integer row = lua_tointeger(L, -1);
        if (row < 1 || row > have)
            luaL_error(L, "reply: rows[%d] is no row of a matrix with %d", (int)i + 1, (int)have);
        rows[i] = (size_t)row - 1;
        lua_pop(L, 1);
    }
    r->rows = rows;
}

static const char *content_type(const struct mp_reply *r)
{
    return r->format == MP_FORMAT_BYTES ? "application/octet-stream" : "application/json";
}

const char *mp__reply_vectors(lua_State *L, int t, int vectors, struct mp__buf *out)
{
    struct mp_reply r = MP_INIT(struct mp_reply);
    size_t bad_row;
    lua_settop(L, vectors);
    luaL_checkstack(L, 16, "reply");
    r.style = choice(L, t, "style", styles);
    r.format = choice(L, t, "encoding_format", formats);
    if (r.format == MP_FORMAT_BASE64 && r.style != MP_REPLY_OPENAI && r.style != MP_REPLY_COHERE)
        luaL_error(L, "reply: style '%s' has no base64", styles[r.style]);
    r.matrix = matrix_of(L, vectors, &r);
    int fallback = lua_gettop(L);
    r.model = text_field(L, t, "model", r.model);
    r.id = text_field(L, t, "id", NULL);
    usage_of(L, lua_getfield(L, t, "usage") != LUA_TNIL ? lua_gettop(L) : fallback, &r);
    rows_of(L, t, &r);
    out->n = 0;
    int err = mp__reply_add(out, &r, &bad_row);
    if (err == MP_EINVAL && bad_row != SIZE_MAX)
        luaL_error(L, "reply: vectors: row %d holds no vector, it failed", (int)bad_row + 1);
    if (err != 0)
        luaL_error(L, "reply: vectors: %s",
                   err == MP_EINVAL ? "model or id is not UTF-8" : "not enough memory");
    return content_type(&r);
}

void mp__reply_vectors_over(struct mp__buf *out)
{
    if (out->cap > KEEP_OUT)
        mp__buf_free(out);
}

/*
 * mock.c - the local model server's vectors and scores, as text ready for its replies.
 *
 * What a mock costs is the writing of numbers, so lists of vectors are made whole here; the words
 * around them, which differ by dialect, are Lua's.
 */
#include "binding/server/server.h"
#include "codec/base64.h"
#include "codec/float_text.h"
#include "mock/hashmodel.h"
#include "codec/vec.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_DIM 16384

enum format { FLOAT, BASE64, INT8, UINT8, BINARY, UBINARY, BYTES };

static const char *const formats[] = {"float",  "base64",  "int8",  "uint8",
                                      "binary", "ubinary", "bytes", NULL};

/* ---- one vector as text: each writes at out and returns the end ---- */

static char *put_floats(char *out, const float *v, size_t n)
{
    *out++ = '[';
    for (size_t i = 0; i < n; i++) {
        out += mp__float_text(out, v[i]);
        *out++ = ',';
    }
    out[-1] = ']';
    return out;
}

static char *put_base64(char *out, const float *v, size_t n)
{
    *out++ = '"';
    out += mp__base64_encode(out, v, n * sizeof(float)); /* little-endian, as this machine */
    *out++ = '"';
    return out;
}

static int quantized(float v, int format)
{
    double x = format == INT8 ? (double)v * 127 : ((double)v + 1) * 127.5;
    int low = format == INT8 ? -128 : 0;
    int q = (int)floor(x + 0.5);
    return q < low ? low : q > low + 255 ? low + 255 : q;
}

/* Eight signs a number, the first dimension the highest bit; binary is the same less 128. */
static int packed(const float *v, int format)
{
    int bits = 0;
    for (int i = 0; i < 8; i++)
        bits = bits << 1 | (v[i] > 0);
    return format == BINARY ? bits - 128 : bits;
}

static char *put_integers(char *out, const float *v, size_t n, int format)
{
    size_t step = format >= BINARY ? 8 : 1;
    *out++ = '[';
    for (size_t i = 0; i + step <= n; i += step) {
        int q = step == 8 ? packed(v + i, format) : quantized(v[i], format);
        out += snprintf(out, 8, "%d,", q);
    }
    out[-1] = ']';
    return out;
}

/* Little-endian, as this machine. */
static char *put_bytes(char *out, const float *v, size_t n)
{
    memcpy(out, v, n * sizeof(float));
    return out + n * sizeof(float);
}

static char *put_vector(char *out, const float *v, size_t n, int format)
{
    if (format == BYTES)
        return put_bytes(out, v, n);
    if (format == FLOAT)
        return put_floats(out, v, n);
    return format == BASE64 ? put_base64(out, v, n) : put_integers(out, v, n, format);
}

/* ---- lists ---- */

struct job {
    uint32_t dim;  /* of the model */
    uint32_t dims; /* asked for: the first so many, scaled to length 1 again */
    int format;
    int objects; /* {"object":"embedding","index":0,"embedding":...} around each */
    float *v;
};

static void embed_text(lua_State *L, const struct job *j, lua_Integer i)
{
    size_t n;
    lua_rawgeti(L, 1, i);
    const char *text = lua_tolstring(L, -1, &n);
    if (text == NULL)
        luaL_error(L, "texts[%d] must be a string", (int)i);
    mp__hash_embed(text, n, j->dim, j->v);
    if (j->dims < j->dim && mp__normalize(j->v, j->dims) == 0)
        mp__hash_embed(text, n, j->dims,
                       j->v); /* a short text may have nothing in so few of them */
    lua_pop(L, 1);
}

static void add_item(luaL_Buffer *b, const struct job *j, lua_Integer i)
{
    size_t room = j->dims * (size_t)MP__FLOAT_TEXT + 128;
    char *start = luaL_prepbuffsize(b, room);
    char *out = start;
    if (j->objects)
        out += snprintf(
            out, 100, "{\"object\":\"embedding\",\"index\":%lld,\"embedding\":", (long long)i - 1);
    out = put_vector(out, j->v, j->dims, j->format);
    if (j->objects)
        *out++ = '}';
    if (j->format != BYTES)
        *out++ = ',';
    luaL_addsize(b, (size_t)(out - start));
}

static uint32_t check_dim(lua_State *L, int idx, lua_Integer max)
{
    lua_Integer dim = luaL_checkinteger(L, idx);
    luaL_argcheck(L, dim >= 1 && dim <= max, idx, "dimension out of range");
    return (uint32_t)dim;
}

/* mock_vectors(texts, dim, dims, format, objects, order): the texts' vectors as JSON, separated by
 * commas ("bytes": one behind the other). order (may be nil) lists which, 1-based, in which order. */
static int l_mock_vectors(lua_State *L)
{
    struct job j;
    luaL_Buffer b;
    luaL_checktype(L, 1, LUA_TTABLE);
    j.dim = check_dim(L, 2, MAX_DIM);
    j.dims = check_dim(L, 3, j.dim);
    j.format = luaL_checkoption(L, 4, "float", formats);
    luaL_argcheck(L, j.format < BINARY || j.format == BYTES || j.dims % 8 == 0, 3,
                  "packed bits need a multiple of 8");
    j.objects = lua_toboolean(L, 5);
    int ordered = lua_istable(L, 6);
    lua_settop(L, 6);
    lua_Integer n = (lua_Integer)lua_rawlen(L, ordered ? 6 : 1);
    j.v = lua_newuserdatauv(L, j.dim * sizeof(float), 0);
    luaL_buffinit(L, &b);
    for (lua_Integer k = 1; k <= n; k++) {
        lua_Integer i = k;
        if (ordered) {
            lua_rawgeti(L, 6, k);
            i = lua_tointeger(L, -1);
            lua_pop(L, 1);
        }
        embed_text(L, &j, i);
        add_item(&b, &j, i);
    }
    if (n > 0 && j.format != BYTES)
        luaL_buffsub(&b, 1); /* the last comma */
    luaL_pushresult(&b);
    return 1;
}

/* ---- scores ---- */

/* mock_scores(query, texts): how well each text answers, 0..1. */
static int l_mock_scores(lua_State *L)
{
    size_t qn, n;
    const char *query = luaL_checklstring(L, 1, &qn);
    luaL_checktype(L, 2, LUA_TTABLE);
    lua_Integer count = (lua_Integer)lua_rawlen(L, 2);
    lua_createtable(L, (int)count, 0);
    for (lua_Integer i = 1; i <= count; i++) {
        lua_rawgeti(L, 2, i);
        const char *text = lua_tolstring(L, -1, &n);
        if (text == NULL)
            return luaL_error(L, "texts[%d] must be a string", (int)i);
        double score = (double)mp__hash_score(query, qn, text, n);
        lua_pop(L, 1);
        lua_pushnumber(L, score);
        lua_rawseti(L, -2, i);
    }
    return 1;
}

#define ANCHOR_DIM 512

static const char liked[] = "good great excellent best love lovely wonderful perfect happy nice "
                            "amazing fast helpful recommend enjoy beautiful useful fantastic";
static const char disliked[] =
    "bad terrible awful worst hate horrible broken poor sad slow useless "
    "disappointing waste fail failed wrong ugly annoying boring";

/* mock_sentiment(text): how positive it sounds, 0..1: nearer to which of two heaps of words. The
 * heaps' vectors are the upvalue, zero until first used. */
static int l_mock_sentiment(lua_State *L)
{
    size_t n;
    float v[ANCHOR_DIM];
    const char *text = luaL_checklstring(L, 1, &n);
    float *anchors = lua_touserdata(L, lua_upvalueindex(1));
    if (mp__dot(anchors, anchors, ANCHOR_DIM) == 0) {
        mp__hash_embed(liked, sizeof(liked) - 1, ANCHOR_DIM, anchors);
        mp__hash_embed(disliked, sizeof(disliked) - 1, ANCHOR_DIM, anchors + ANCHOR_DIM);
    }
    mp__hash_embed(text, n, ANCHOR_DIM, v);
    double lean = (double)mp__dot(v, anchors, ANCHOR_DIM) -
                  (double)mp__dot(v, anchors + ANCHOR_DIM, ANCHOR_DIM);
    lua_pushnumber(L, 1 / (1 + exp(-12 * lean)));
    return 1;
}

void mp__open_mock(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"mock_vectors", l_mock_vectors}, {"mock_scores", l_mock_scores}, {NULL, NULL}};
    luaL_setfuncs(L, functions, 0);
    float *anchors = lua_newuserdatauv(L, 2 * ANCHOR_DIM * sizeof(float), 0);
    memset(anchors, 0, 2 * ANCHOR_DIM * sizeof(float));
    lua_pushcclosure(L, l_mock_sentiment, 1);
    lua_setfield(L, -2, "mock_sentiment");
}

/*
 * msgpack.c - MessagePack (github.com/msgpack/msgpack/blob/master/spec.md) to Lua values. Bounded by
 * the document: a claimed length is believed only as far as bytes are left.
 */
#include "binding/value/msgpack.h"

#include "binding/value/json.h"

#include <lauxlib.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define MAX_DEPTH 128

struct reader {
    lua_State *L;
    const unsigned char *p;
    size_t n, at;
    const char *why;
    size_t left; /* of the budget of values */
};

static const char too_many[] = "the values would take too much memory";

static int value(struct reader *r, int depth);

static int fail(struct reader *r, const char *why)
{
    r->why = why;
    return -1;
}

static int take(struct reader *r, size_t bytes)
{
    return mp__values_take(&r->left, bytes) ? 0 : fail(r, too_many);
}

static int big_endian(struct reader *r, unsigned bytes, uint64_t *out)
{
    uint64_t v = 0;
    if (r->n - r->at < bytes)
        return fail(r, "truncated");
    for (unsigned i = 0; i < bytes; i++)
        v = v << 8 | r->p[r->at++];
    *out = v;
    return 0;
}

static int bytes(struct reader *r, uint64_t len)
{
    if (len > r->n - r->at)
        return fail(r, "truncated");
    if (take(r, MP__VALUE_STRING + (size_t)len) != 0)
        return -1;
    lua_pushlstring(r->L, (const char *)r->p + r->at, (size_t)len);
    r->at += (size_t)len;
    return 0;
}

static int sized_bytes(struct reader *r, unsigned width)
{
    uint64_t len = 0;
    return big_endian(r, width, &len) != 0 ? -1 : bytes(r, len);
}

static int extension(struct reader *r, uint64_t len)
{
    uint64_t type = 0;
    if (take(r, MP__VALUE_TABLE + 2 * MP__VALUE_NODE) != 0)
        return -1;
    lua_createtable(r->L, 0, 2);
    if (big_endian(r, 1, &type) != 0 || bytes(r, len) != 0)
        return -1;
    lua_setfield(r->L, -2, "data");
    lua_pushinteger(r->L, (int8_t)type);
    lua_setfield(r->L, -2, "type");
    return 0;
}

static int array(struct reader *r, uint64_t len, int depth)
{
    if (len > r->n - r->at)
        return fail(r, "truncated");
    if (take(r, MP__VALUE_TABLE + (size_t)len * MP__VALUE_SLOT) != 0)
        return -1;
    lua_createtable(r->L, (int)(len < 65536 ? len : 65536), 0);
    for (uint64_t i = 0; i < len; i++) {
        if (value(r, depth) != 0)
            return -1;
        lua_rawseti(r->L, -2, (lua_Integer)i + 1);
    }
    return 0;
}

static int key_is_usable(lua_State *L)
{
    if (lua_type(L, -1) == LUA_TNUMBER)
        return lua_tonumber(L, -1) == lua_tonumber(L, -1);
    return lua_type(L, -1) == LUA_TSTRING || lua_isboolean(L, -1);
}

static int map(struct reader *r, uint64_t len, int depth)
{
    if (len > (r->n - r->at) / 2)
        return fail(r, "truncated");
    if (take(r, MP__VALUE_TABLE + (size_t)len * MP__VALUE_NODE) != 0)
        return -1;
    lua_createtable(r->L, 0, (int)(len < 65536 ? len : 65536));
    for (uint64_t i = 0; i < len; i++) {
        if (value(r, depth) != 0)
            return -1;
        if (!key_is_usable(r->L))
            return fail(r, "a map key that is no string or number");
        if (value(r, depth) != 0)
            return -1;
        lua_rawset(r->L, -3);
    }
    return 0;
}

static int number(struct reader *r, unsigned tag)
{
    uint64_t v = 0;
    unsigned width = 1u << (tag & 3); /* cc..cf unsigned, d0..d3 signed: 1 2 4 8 bytes */
    if (big_endian(r, width, &v) != 0)
        return -1;
    if (tag >= 0xd0) {
        unsigned shift = 64 - 8 * width;
        lua_pushinteger(r->L, (lua_Integer)((int64_t)(v << shift) >> shift));
    } else if (v > INT64_MAX && v % 2048 == 0) { /* exact: 53 bits of 64 */
        lua_pushnumber(r->L, (lua_Number)v);
    } else if (v > INT64_MAX) {
        char digits[24];
        int n = snprintf(digits, sizeof(digits), "%" PRIu64, v);
        if (take(r, MP__VALUE_TABLE + MP__VALUE_STRING) != 0)
            return -1;
        mp__json_push_digits(r->L, digits, (size_t)n);
    } else {
        lua_pushinteger(r->L, (lua_Integer)v);
    }
    return 0;
}

static int real(struct reader *r, unsigned tag)
{
    uint64_t bits = 0;
    if (big_endian(r, tag == 0xca ? 4 : 8, &bits) != 0)
        return -1;
    if (tag == 0xca) {
        float f = 0;
        uint32_t low = (uint32_t)bits;
        memcpy(&f, &low, sizeof(f));
        lua_pushnumber(r->L, f);
    } else {
        double d = 0;
        memcpy(&d, &bits, sizeof(d));
        lua_pushnumber(r->L, d);
    }
    return 0;
}

static int counted(struct reader *r, unsigned tag, int depth)
{
    uint64_t len = 0;
    switch (tag) {
    case 0xc4:
    case 0xd9:
        return sized_bytes(r, 1);
    case 0xc5:
    case 0xda:
        return sized_bytes(r, 2);
    case 0xc6:
    case 0xdb:
        return sized_bytes(r, 4);
    case 0xc7:
    case 0xc8:
    case 0xc9:
        return big_endian(r, 1u << (tag - 0xc7), &len) != 0 ? -1 : extension(r, len);
    case 0xdc:
    case 0xdd:
        return big_endian(r, tag == 0xdc ? 2 : 4, &len) != 0 ? -1 : array(r, len, depth);
    default:
        return big_endian(r, tag == 0xde ? 2 : 4, &len) != 0 ? -1 : map(r, len, depth);
    }
}

static int value(struct reader *r, int depth)
{
    uint64_t t = 0;
    if (depth >= MAX_DEPTH || !lua_checkstack(r->L, 8))
        return fail(r, "nesting too deep");
    if (big_endian(r, 1, &t) != 0)
        return -1;
    unsigned tag = (unsigned)t;
    if (tag < 0x80 || tag >= 0xe0)
        lua_pushinteger(r->L, (int8_t)tag);
    else if (tag < 0x90)
        return map(r, tag & 15, depth + 1);
    else if (tag < 0xa0)
        return array(r, tag & 15, depth + 1);
    else if (tag < 0xc0)
        return bytes(r, tag & 31);
    else if (tag == 0xc0)
        lua_pushlightuserdata(r->L, NULL);
    else if (tag == 0xc1)
        return fail(r, "a byte that is never used");
    else if (tag == 0xc2 || tag == 0xc3)
        lua_pushboolean(r->L, tag == 0xc3);
    else if (tag == 0xca || tag == 0xcb)
        return real(r, tag);
    else if (tag >= 0xcc && tag <= 0xd3)
        return number(r, tag);
    else if (tag >= 0xd4 && tag <= 0xd8)
        return extension(r, UINT64_C(1) << (tag - 0xd4));
    else
        return counted(r, tag, depth + 1);
    return 0;
}

int mp__msgpack_decode(lua_State *L, const char *p, size_t n, char *err, size_t errcap)
{
    struct reader r = {L, (const unsigned char *)p, n, 0, NULL, MP__VALUES_MAX};
    int top = lua_gettop(L);
    int rc = value(&r, 0);
    if (rc == 0 && r.at != n)
        rc = fail(&r, "bytes after the value");
    if (rc == 0)
        return 1;
    lua_settop(L, top);
    snprintf(err, errcap, "MessagePack: %s at byte %zu", r.why, r.at + 1);
    return r.why == too_many ? -2 : -1;
}

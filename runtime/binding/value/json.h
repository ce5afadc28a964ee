/*
 * json.h - JSON between Lua values and text, for the files of the binding.
 *
 * Both ways are strict RFC 8259: UTF-8 checked, nothing after the document, no NaN. Neither calls
 * metamethods or anything else of the script, and neither raises but for Lua's own lack of memory.
 */
#ifndef MP_BINDING_VALUE_JSON_H
#define MP_BINDING_VALUE_JSON_H

#include "base/buf.h"
#include "moonpool.h"

#include <lua.h>

#define MP__JSON_ENCODE_DEPTH 128
#define MP__JSON_DECODE_DEPTH 512
#define MP__VALUES_MAX        ((size_t)256 << 20) /* bytes that one reply may become in Lua */

struct mp__json_options {
    const char *root; /* what messages call the value; NULL: "value" */
    int sort_keys;    /* keys in byte order, so equal values give equal text */
};

/*
 * Appends the value at idx. 0; or -1 with the reason in err ("value.items[3].name: invalid UTF-8
 * at byte 5"), and out is as it was. opt may be NULL.
 */
int mp__json_encode_with(lua_State *L, int idx, struct mp__buf *out,
                         const struct mp__json_options *opt, char *err, size_t errcap);
int mp__json_encode(lua_State *L, int idx, struct mp__buf *out, char *err, size_t errcap);

/*
 * Pushes the value of the document p[0..n) and returns 1; or pushes nothing and returns -1 with
 * the reason and the place in err, or -2 where the values would take more than `most` bytes (a few
 * bytes of text can ask for a table). null becomes moonpool.json.null; integers that fit stay
 * integers, larger ones are floats where that is exact, else tables that print and are written as
 * their digits; of equal keys the
 * last wins; an empty array keeps its kind by a metatable.
 */
int mp__json_decode_within(lua_State *L, const char *p, size_t n, size_t most, char *err,
                           size_t errcap);
int mp__json_decode(lua_State *L, const char *p, size_t n, char *err, size_t errcap);

enum mp__marker { MP__MARK_ARRAY = 0, MP__MARK_OBJECT, MP__MARK_NUMBER, MP__MARKS };
void mp__json_push_marker(lua_State *L, enum mp__marker which); /* the metatable */
/* An integer beyond Lua's, by its digits. */
void mp__json_push_digits(lua_State *L, const char *p, size_t n);

/* What values cost of `left`, about as Lua counts them: 0, the budget is spent. */
static inline int mp__values_take(size_t *left, size_t bytes)
{
    if (*left < bytes)
        return 0;
    *left -= bytes;
    return 1;
}

#define MP__VALUE_TABLE  56
#define MP__VALUE_SLOT   16
#define MP__VALUE_NODE   40
#define MP__VALUE_STRING 32

#endif

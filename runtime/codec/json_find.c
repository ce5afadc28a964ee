/*
 * json_find.c - one value out of a small valid document. Bounds are still checked at every step,
 * because "valid" is a promise of the caller.
 */
#include "codec/json_find.h"

#include "codec/json_text.h"

#include <string.h>

struct cursor {
    const char *p;
    const char *end;
};

static void skip_space(struct cursor *c)
{
    c->p = mp__json_skip(c->p, c->end);
}

static void skip_string(struct cursor *c)
{
    for (c->p++; c->p < c->end; c->p++) {
        if (*c->p == '"') {
            c->p++;
            return;
        }
        if (*c->p == '\\' && c->end - c->p > 1)
            c->p++;
    }
}

/* Brackets of both kinds are counted together: in valid JSON they nest properly. */
static void skip_value(struct cursor *c)
{
    int depth = 0;

    while (c->p < c->end) {
        if (*c->p == '"') {
            skip_string(c);
        } else if (*c->p == '{' || *c->p == '[') {
            depth++;
            c->p++;
            continue;
        } else if (*c->p == '}' || *c->p == ']') {
            depth--;
            c->p++;
        } else if (depth > 0) {
            c->p++;
            continue;
        } else {
            while (c->p < c->end && strchr(",}] \t\r\n", *c->p) == NULL)
                c->p++;
        }
        if (depth <= 0)
            return;
    }
}

/* Stands c on the element of that number, written in digits; 0 when the array has none. */
static int enter_array(struct cursor *c, const char *digits, size_t n)
{
    size_t place = 0, i;

    for (i = 0; i < n; i++) {
        if (digits[i] < '0' || digits[i] > '9' || place > SIZE_MAX / 10 - 1)
            return 0;
        place = place * 10 + (size_t)(digits[i] - '0');
    }
    c->p++;
    for (skip_space(c); n != 0 && c->p < c->end && *c->p != ']'; skip_space(c)) {
        if (place-- == 0)
            return 1;
        skip_value(c);
        skip_space(c);
        if (c->p < c->end && *c->p == ',')
            c->p++;
    }
    return 0;
}

/* Stands c on the value of the key; 0 when the object has none. */
static int enter(struct cursor *c, const char *key, size_t n)
{
    const char *name;
    int hit;

    if (c->p < c->end && *c->p == '[')
        return enter_array(c, key, n);
    if (c->p >= c->end || *c->p != '{')
        return 0;
    c->p++;
    for (skip_space(c); c->p < c->end && *c->p == '"'; skip_space(c)) {
        name = c->p + 1;
        skip_string(c);
        hit = (size_t)(c->p - name) == n + 1 && memcmp(name, key, n) == 0;
        skip_space(c);
        if (c->p < c->end)
            c->p++; /* the colon */
        skip_space(c);
        if (hit)
            return 1;
        skip_value(c);
        skip_space(c);
        if (c->p < c->end && *c->p == ',')
            c->p++;
    }
    return 0;
}

/* Stands c on the value at the path; 0: it is not there. */
static int walk(struct cursor *c, const char *path)
{
    size_t seg;

    skip_space(c);
    while (*path != '\0') {
        seg = strcspn(path, ".");
        if (!enter(c, path, seg))
            return 0;
        path += seg;
        path += *path == '.';
    }
    return c->p < c->end;
}

const char *mp__json_at(const char *doc, size_t n, const char *path)
{
    struct cursor c = {doc, doc + n};

    return walk(&c, path) ? c.p : NULL;
}

const char *mp__json_find(const char *doc, size_t n, const char *path, size_t *len)
{
    struct cursor c = {doc, doc + n};
    const char *start;

    if (!walk(&c, path))
        return NULL;
    start = c.p;
    skip_value(&c);
    *len = (size_t)(c.p - start);
    return *len != 0 ? start : NULL;
}

int64_t mp__json_find_int(const char *doc, size_t n, const char *path)
{
    size_t len, i;
    const char *p = mp__json_find(doc, n, path, &len);
    int64_t v = 0;

    if (p == NULL)
        return -1;
    for (i = 0; i < len && p[i] >= '0' && p[i] <= '9'; i++) {
        if (v > (INT64_C(1) << 53) / 10)
            return -1;
        v = v * 10 + (p[i] - '0');
    }
    return i == 0 || (i < len && p[i] != '.') ? -1 : v;
}

/* head.h - a reply's headers as the engine keeps them: lines of "name: value\n", in their order. */
#ifndef MP_CODEC_HEAD_H
#define MP_CODEC_HEAD_H

#include <stddef.h>

struct mp__head_line {
    const char *name, *value; /* not NUL-ended */
    size_t name_n, value_n;
};

/* The next whole line from *at, which moves behind it; 0: there is none before `end`. */
int mp__head_next(const char **at, const char *end, struct mp__head_line *line);

/* The value of the first line of that name; NULL: none. */
const char *mp__head_find(const char *head, size_t n, const char *name, size_t *value_n);

int mp__head_is(const struct mp__head_line *line, const char *name);

#endif

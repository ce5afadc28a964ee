#include "codec/head.h"

#include <string.h>

int mp__head_next(const char **at, const char *end, struct mp__head_line *line)
{
    while (*at != NULL && *at < end) {
        const char *p = *at;
        const char *eol = memchr(p, '\n', (size_t)(end - p));
        const char *colon = eol != NULL ? memchr(p, ':', (size_t)(eol - p)) : NULL;

        if (eol == NULL)
            return 0;
        *at = eol + 1;
        if (colon == NULL || eol - colon < 2)
            continue;
        line->name = p;
        line->name_n = (size_t)(colon - p);
        line->value = colon + 2;
        line->value_n = (size_t)(eol - line->value);
        return 1;
    }
    return 0;
}

int mp__head_is(const struct mp__head_line *line, const char *name)
{
    return strlen(name) == line->name_n && strncasecmp(line->name, name, line->name_n) == 0;
}

const char *mp__head_find(const char *head, size_t n, const char *name, size_t *value_n)
{
    struct mp__head_line line;
    const char *at = head;

    while (mp__head_next(&at, head + n, &line)) {
        if (mp__head_is(&line, name)) {
            *value_n = line.value_n;
            return line.value;
        }
    }
    return NULL;
}

/*
 * buf.c - a growable byte buffer with a hard maximum.
 */
#include "base/buf.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

void mp__buf_init(struct mp__buf *b, size_t max)
{
    memset(b, 0, sizeof(*b));
    b->max = max;
}

void mp__buf_free(struct mp__buf *b)
{
    free(b->p);
    mp__buf_init(b, b->max);
}

void mp__buf_trim(struct mp__buf *b, size_t keep)
{
    b->n = 0;
    if (b->cap > keep)
        mp__buf_free(b);
}

int mp__buf_reserve(struct mp__buf *b, size_t more)
{
    size_t want, cap;
    char *p;

    if (more <= b->cap - b->n && (b->max == 0 || more <= b->max - b->n))
        return 0;
    if (more > SIZE_MAX / 2 - b->n)
        return MP__ETOOBIG;
    want = b->n + more;
    if (b->max != 0 && want > b->max)
        return MP__ETOOBIG;
    cap = b->cap < 64 ? 64 : b->cap + b->cap / 2;
    if (b->max != 0 && cap > b->max)
        cap = b->max;
    if (cap < want)
        cap = want;
    p = realloc(b->p, cap);
    if (p == NULL)
        return MP__ENOMEM;
    b->p = p;
    b->cap = cap;
    return 0;
}

int mp__buf_add(struct mp__buf *b, const void *p, size_t n)
{
    int err = mp__buf_reserve(b, n);

    if (err != 0 || n == 0)
        return err;
    memcpy(b->p + b->n, p, n);
    b->n += n;
    return 0;
}

int mp__buf_addc(struct mp__buf *b, char c)
{
    return mp__buf_add(b, &c, 1);
}

int mp__buf_adds(struct mp__buf *b, const char *s)
{
    return mp__buf_add(b, s, strlen(s));
}

char *mp__buf_take(struct mp__buf *b, size_t *n)
{
    /* The NUL is not contents, so it may lie past the maximum. */
    char *p = realloc(b->p, b->n + 1);

    if (p == NULL)
        return NULL;
    p[b->n] = '\0';
    if (n != NULL)
        *n = b->n;
    b->p = NULL;
    mp__buf_init(b, b->max);
    return p;
}

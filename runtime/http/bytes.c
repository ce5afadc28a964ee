/* bytes.c - the server's growing buffers. */
#include "http/internal.h"

#include <stdlib.h>
#include <string.h>

int mp__bytes_reserve(struct mp__bytes *b, size_t more)
{
    if (b->cap - b->n >= more)
        return 0;
    size_t cap = b->cap < 512 ? 1024 : b->cap * 2;
    if (cap < b->n + more)
        cap = b->n + more;
    char *p = realloc(b->p, cap);
    if (p == NULL)
        return UV_ENOMEM;
    b->p = p;
    b->cap = cap;
    return 0;
}

int mp__bytes_add(struct mp__bytes *b, const void *p, size_t n)
{
    if (mp__bytes_reserve(b, n) != 0)
        return UV_ENOMEM;
    if (n > 0)
        memcpy(b->p + b->n, p, n);
    b->n += n;
    return 0;
}

void mp__bytes_trim(struct mp__bytes *b, size_t keep)
{
    b->n = 0;
    if (b->cap <= keep)
        return;
    free(b->p);
    *b = (struct mp__bytes){0};
}

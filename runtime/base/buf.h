/*
 * buf.h - a growable byte buffer with a hard maximum.
 *
 * Every call that adds returns 0, MP__ENOMEM, or MP__ETOOBIG when the maximum would be passed; the
 * contents are then as before. The memory is the buffer's until mp__buf_take().
 */
#ifndef MP_BASE_BUF_H
#define MP_BASE_BUF_H

#include <stddef.h>

#define MP__ENOMEM  (-3)  /* MP_ENOMEM of moonpool.h, which base does not know */
#define MP__ETOOBIG (-20) /* a hard maximum would be passed */

struct mp__buf {
    char *p; /* NULL while nothing was added */
    size_t n;
    size_t cap;
    size_t max; /* bytes, 0: none */
};

void mp__buf_init(struct mp__buf *b, size_t max);
void mp__buf_free(struct mp__buf *b);                /* may be used again */
void mp__buf_trim(struct mp__buf *b, size_t keep);   /* empties; frees more memory than `keep` */
int mp__buf_reserve(struct mp__buf *b, size_t more); /* room for `more` bytes after n */
int mp__buf_add(struct mp__buf *b, const void *p, size_t n);
int mp__buf_addc(struct mp__buf *b, char c);
int mp__buf_adds(struct mp__buf *b, const char *s); /* without its NUL */

/* Hands the bytes over (free() them), NUL after the last; NULL: out of memory. b is empty then. */
char *mp__buf_take(struct mp__buf *b, size_t *n);

#endif

/*
 * decode.h - bytes of a file as UTF-8 text: gzip and zstd by their magic, UTF-16 and UTF-32 by their
 * byte order mark or their zeros. Knows no Lua.
 */
#ifndef MP_BINDING_FILES_DECODE_H
#define MP_BINDING_FILES_DECODE_H

#include <stddef.h>
#include <stdint.h>

struct mp__decode;

struct mp__decode *mp__decode_new(void); /* NULL: out of memory */
void mp__decode_free(struct mp__decode *d);

enum { MP__DECODE_BAD = -2 };

/* Up to cap (at least 64) bytes: > 0; 0 at the end; -1 with errno (EAGAIN: a stream has nothing yet);
 * MP__DECODE_BAD: *why says what is wrong with the file. */
long mp__decode_read(struct mp__decode *d, int fd, int stream, char *out, size_t cap,
                     const char **why);

/* Bytes of the file taken so far; and whether they are those handed out. */
uint64_t mp__decode_taken(const struct mp__decode *d);
int mp__decode_plain(const struct mp__decode *d);

#endif

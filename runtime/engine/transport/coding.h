/*
 * coding.h - content codings of replies undone: gzip, deflate and zstd, by zlib and libzstd.
 *
 * Not left to curl, which takes a text that was compressed and cut short for a whole one, and calls
 * bytes behind the end a fault of the connection in one version and none at all in another.
 */
#ifndef MP_ENGINE_TRANSPORT_CODING_H
#define MP_ENGINE_TRANSPORT_CODING_H

#include <stddef.h>

enum mp__coding_name { MP__IDENTITY = 0, MP__GZIP, MP__DEFLATE, MP__ZSTD, MP__CODING_UNKNOWN };

struct mp__coding;

/* Of the value of a Content-Encoding; more than one coding is not known. */
enum mp__coding_name mp__coding_named(const char *value, size_t n);
/* Whether all that this Accept-Encoding offers is known here. */
int mp__coding_offers(const char *accept);

struct mp__coding *mp__coding_new(void);
void mp__coding_free(struct mp__coding *c); /* NULL is fine */
/* Ready for a reply in this coding; 0, or MP_ENOMEM. May be used again without end. */
int mp__coding_start(struct mp__coding *c, enum mp__coding_name name);
/*
 * Undoes n bytes and hands them out in pieces. 0; 1: `out` returned nonzero; -1: they are wrong, and
 * mp__coding_error says how.
 */
int mp__coding_feed(struct mp__coding *c, const char *p, size_t n,
                    int (*out)(void *arg, const char *p, size_t n), void *arg);
/* The reply has ended: 0, or -1 when it was cut short. One without any bytes is whole. */
int mp__coding_finish(struct mp__coding *c);
const char *mp__coding_error(const struct mp__coding *c);

#endif

#include "engine/transport/coding.h"

#include "moonpool.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <zlib.h>
#include <zstd.h>

#define PIECE       ((size_t)64 * 1024)
#define ZSTD_WINDOW 23 /* 8 MiB, the most that RFC 9659 lets a reply ask for */
#define GZIP_BITS   (15 + 16)

struct mp__coding {
    enum mp__coding_name name;
    unsigned begun : 1;    /* bytes have come */
    unsigned over : 1;     /* the compressed data have ended */
    unsigned inflates : 1; /* z is set up */
    z_stream z;
    ZSTD_DStream *zstd;
    char error[96];
    unsigned char piece[PIECE];
};

static int is_name(const char *p, size_t n, const char *name)
{
    return strlen(name) == n && strncasecmp(p, name, n) == 0;
}

enum mp__coding_name mp__coding_named(const char *p, size_t n)
{
    while (n > 0 && (p[n - 1] == ' ' || p[n - 1] == '\t'))
        n--;
    if (n == 0 || is_name(p, n, "identity"))
        return MP__IDENTITY;
    if (is_name(p, n, "gzip") || is_name(p, n, "x-gzip"))
        return MP__GZIP;
    if (is_name(p, n, "deflate"))
        return MP__DEFLATE;
    return is_name(p, n, "zstd") ? MP__ZSTD : MP__CODING_UNKNOWN;
}

int mp__coding_offers(const char *accept)
{
    for (const char *p = accept; *p != '\0';) {
        p += strspn(p, ", \t");
        size_t n = strcspn(p, ",; \t");
        if (n > 0 && mp__coding_named(p, n) == MP__CODING_UNKNOWN && !is_name(p, n, "*"))
            return 0;
        p += n;
        p += strcspn(p, ","); /* a weight */
    }
    return 1;
}

struct mp__coding *mp__coding_new(void)
{
    return calloc(1, sizeof(struct mp__coding));
}

void mp__coding_free(struct mp__coding *c)
{
    if (c == NULL)
        return;
    if (c->inflates)
        inflateEnd(&c->z);
    ZSTD_freeDStream(c->zstd);
    free(c);
}

static int inflate_as(struct mp__coding *c, int bits)
{
    int rc = c->inflates ? inflateReset2(&c->z, bits) : inflateInit2(&c->z, bits);
    if (rc != Z_OK)
        return MP_ENOMEM;
    c->inflates = 1;
    return 0;
}

int mp__coding_start(struct mp__coding *c, enum mp__coding_name name)
{
    c->name = name;
    c->begun = c->over = 0;
    c->error[0] = '\0';
    if (name == MP__GZIP || name == MP__DEFLATE)
        return inflate_as(c, name == MP__GZIP ? GZIP_BITS : 15);
    if (name != MP__ZSTD)
        return 0;
    if (c->zstd == NULL)
        c->zstd = ZSTD_createDStream();
    if (c->zstd == NULL)
        return MP_ENOMEM;
    ZSTD_DCtx_reset(c->zstd, ZSTD_reset_session_only);
    ZSTD_DCtx_setParameter(c->zstd, ZSTD_d_windowLogMax, ZSTD_WINDOW);
    return 0;
}

static int wrong(struct mp__coding *c, const char *what)
{
    static const char *const names[] = {"", "gzip", "deflate", "zstd", ""};
    snprintf(c->error, sizeof(c->error), "the reply's %s data: %s", names[c->name], what);
    return -1;
}

/* Some servers call bare deflate data "deflate", without the zlib frame that the name asks for. */
static int is_bare(const struct mp__coding *c, const unsigned char *p, size_t n)
{
    return c->name == MP__DEFLATE && !c->begun && n >= 2 &&
           ((p[0] & 15) != 8 || ((unsigned)p[0] << 8 | p[1]) % 31 != 0);
}

/* One member behind another is one file still; anything else behind the end is not. */
static int next_member(struct mp__coding *c)
{
    if (c->name == MP__GZIP && c->z.next_in[0] == 0x1F && inflate_as(c, GZIP_BITS) == 0) {
        c->over = 0;
        return 0;
    }
    return wrong(c, "there are bytes behind its end");
}

static int feed_zlib(struct mp__coding *c, const char *p, size_t n,
                     int (*out)(void *, const char *, size_t), void *arg)
{
    c->z.next_in = (unsigned char *)(void *)p;
    c->z.avail_in = (uInt)n;
    if (is_bare(c, c->z.next_in, n) && inflate_as(c, -15) != 0)
        return wrong(c, "out of memory");
    do {
        if (c->over && c->z.avail_in > 0 && next_member(c) != 0)
            return -1;
        c->z.next_out = c->piece;
        c->z.avail_out = PIECE;
        int rc = c->over ? Z_BUF_ERROR : inflate(&c->z, Z_NO_FLUSH);
        if (rc != Z_OK && rc != Z_STREAM_END && rc != Z_BUF_ERROR)
            return wrong(c, c->z.msg != NULL    ? c->z.msg
                            : rc == Z_MEM_ERROR ? "out of memory"
                                                : "it is damaged");
        c->over |= rc == Z_STREAM_END;
        size_t made = PIECE - c->z.avail_out;
        if (made > 0 && out(arg, (const char *)c->piece, made) != 0)
            return 1;
    } while (c->z.avail_in > 0 || c->z.avail_out == 0);
    return 0;
}

static int feed_zstd(struct mp__coding *c, const char *p, size_t n,
                     int (*out)(void *, const char *, size_t), void *arg)
{
    ZSTD_inBuffer in = {p, n, 0};
    size_t made = 0;
    do {
        ZSTD_outBuffer to = {c->piece, PIECE, 0};
        size_t rc = ZSTD_decompressStream(c->zstd, &to, &in);
        if (ZSTD_isError(rc))
            return wrong(c, c->over ? "there are bytes behind its end" : ZSTD_getErrorName(rc));
        c->over = rc == 0;
        made = to.pos;
        if (made > 0 && out(arg, (const char *)c->piece, made) != 0)
            return 1;
    } while (in.pos < in.size || (made == PIECE && !c->over));
    return 0;
}

int mp__coding_feed(struct mp__coding *c, const char *p, size_t n,
                    int (*out)(void *arg, const char *p, size_t n), void *arg)
{
    if (n == 0)
        return 0;
    int rc = c->name == MP__ZSTD ? feed_zstd(c, p, n, out, arg) : feed_zlib(c, p, n, out, arg);
    c->begun = 1;
    return rc;
}

int mp__coding_finish(struct mp__coding *c)
{
    return !c->begun || c->over ? 0 : wrong(c, "they end too early");
}

const char *mp__coding_error(const struct mp__coding *c)
{
    return c->error;
}

/*
 * decode.c - two stages, each with a buffer: what was read becomes bytes, bytes become UTF-8. Of a
 * plain file neither is used once its first bytes have been seen.
 */
#include "binding/files/decode.h"

#include "binding/files/files.h"
#include "codec/utf8.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#define RAW ((size_t)64 * 1024)

enum packing { UNKNOWN, PLAIN, GZIP, ZSTD };
enum charset { UNSEEN, UTF8, UTF16LE, UTF16BE, UTF32LE, UTF32BE };

struct buffer {
    unsigned char *p;
    size_t start, end;
    int eof;
};

struct mp__decode {
    enum packing packing;
    enum charset charset;
    struct buffer raw, mid;
    uint64_t taken;
    z_stream z;
    int z_open, whole; /* whole: at a place where a packed file may end */
    ZSTD_DStream *zstd;
    const char *why;
};

struct mp__decode *mp__decode_new(void)
{
    struct mp__decode *d = calloc(1, sizeof(*d));

    if (d == NULL)
        return NULL;
    d->raw.p = malloc(RAW);
    d->mid.p = malloc(RAW);
    if (d->raw.p == NULL || d->mid.p == NULL) {
        mp__decode_free(d);
        return NULL;
    }
    return d;
}

void mp__decode_free(struct mp__decode *d)
{
    if (d == NULL)
        return;
    if (d->z_open)
        inflateEnd(&d->z);
    ZSTD_freeDStream(d->zstd);
    free(d->raw.p);
    free(d->mid.p);
    free(d);
}

uint64_t mp__decode_taken(const struct mp__decode *d)
{
    return d->taken;
}

int mp__decode_plain(const struct mp__decode *d)
{
    return d->packing == PLAIN && d->charset == UTF8;
}

static size_t held(const struct buffer *b)
{
    return b->end - b->start;
}

static long bad(struct mp__decode *d, const char *why)
{
    d->why = why;
    return MP__DECODE_BAD;
}

/* ---- reading ---- */

static long read_fd(struct mp__decode *d, int fd, int stream, void *out, size_t cap)
{
    ssize_t n;

    if (stream && !mp__fd_ready(fd, MP__FD_READ)) {
        errno = EAGAIN;
        return -1;
    }
    do
        n = read(fd, out, cap);
    while (n < 0 && errno == EINTR);
    if (n > 0)
        d->taken += (uint64_t)n;
    return (long)n;
}

/* More raw bytes behind those that are held: as read_fd. */
static long more_raw(struct mp__decode *d, int fd, int stream)
{
    struct buffer *b = &d->raw;
    long n;

    if (b->eof)
        return 0;
    memmove(b->p, b->p + b->start, held(b));
    b->end -= b->start;
    b->start = 0;
    n = read_fd(d, fd, stream, b->p + b->end, RAW - b->end);
    b->eof = n == 0;
    b->end += n > 0 ? (size_t)n : 0;
    return n;
}

/* ---- unpacking ---- */

static int may_begin(const struct buffer *b, const char *magic, size_t n)
{
    size_t have = held(b) < n ? held(b) : n;

    return memcmp(b->p + b->start, magic, have) == 0;
}

static const char gzip_magic[] = "\x1f\x8b", zstd_magic[] = "\x28\xb5\x2f\xfd";

static long see_packing(struct mp__decode *d, int fd, int stream)
{
    struct buffer *b = &d->raw;

    while (!b->eof && held(b) < 4 &&
           (held(b) == 0 || may_begin(b, gzip_magic, 2) || may_begin(b, zstd_magic, 4))) {
        if (more_raw(d, fd, stream) < 0)
            return -1;
    }
    d->packing = held(b) >= 2 && may_begin(b, gzip_magic, 2)   ? GZIP
                 : held(b) >= 4 && may_begin(b, zstd_magic, 4) ? ZSTD
                                                               : PLAIN;
    if (d->packing == GZIP)
        d->z_open = inflateInit2(&d->z, 15 + 16) == Z_OK;
    if (d->packing == ZSTD)
        d->zstd = ZSTD_createDStream();
    if ((d->packing == GZIP && !d->z_open) || (d->packing == ZSTD && d->zstd == NULL)) {
        errno = ENOMEM;
        return -1;
    }
    return 1;
}

static long inflate_some(struct mp__decode *d, unsigned char *out, size_t cap)
{
    struct buffer *b = &d->raw;
    int rc;

    if (d->whole) { /* files may stand behind one another */
        if (!may_begin(b, gzip_magic, 2))
            return bad(d, "there is more behind its gzip data");
        inflateReset(&d->z);
        d->whole = 0;
    }
    d->z.next_in = b->p + b->start;
    d->z.avail_in = (uInt)held(b);
    d->z.next_out = out;
    d->z.avail_out = (uInt)(cap < (1u << 30) ? cap : (1u << 30));
    rc = inflate(&d->z, Z_NO_FLUSH);
    b->start = b->end - d->z.avail_in;
    if (rc == Z_STREAM_END)
        d->whole = 1;
    else if (rc != Z_OK && rc != Z_BUF_ERROR)
        return bad(d, "its gzip data is damaged");
    return (long)((unsigned char *)d->z.next_out - out);
}

static long zstd_some(struct mp__decode *d, unsigned char *out, size_t cap)
{
    struct buffer *b = &d->raw;
    ZSTD_inBuffer in = {b->p + b->start, held(b), 0};
    ZSTD_outBuffer o = {out, cap, 0};
    size_t rc = ZSTD_decompressStream(d->zstd, &o, &in);

    b->start += in.pos;
    if (ZSTD_isError(rc))
        return bad(d, "its zstd data is damaged");
    d->whole = rc == 0;
    return (long)o.pos;
}

static long unpack(struct mp__decode *d, int fd, int stream, unsigned char *out, size_t cap)
{
    for (;;) {
        long n = held(&d->raw) > 0 ? 1 : more_raw(d, fd, stream);

        if (n < 0)
            return n;
        if (n == 0 && d->packing == ZSTD && !d->whole) { /* what it still holds back */
            n = zstd_some(d, out, cap);
            if (n != 0)
                return n;
        }
        if (n == 0)
            return d->whole ? 0 : bad(d, "its packed data is cut short");
        n = d->packing == GZIP ? inflate_some(d, out, cap) : zstd_some(d, out, cap);
        if (n != 0)
            return n;
    }
}

/* Unpacked bytes. */
static long some_bytes(struct mp__decode *d, int fd, int stream, unsigned char *out, size_t cap)
{
    size_t n;

    if (d->packing == UNKNOWN) {
        long rc = see_packing(d, fd, stream);

        if (rc < 0)
            return rc;
    }
    if (d->packing != PLAIN)
        return unpack(d, fd, stream, out, cap);
    n = held(&d->raw);
    if (n == 0)
        return d->raw.eof ? 0 : read_fd(d, fd, stream, out, cap);
    n = n < cap ? n : cap;
    memcpy(out, d->raw.p + d->raw.start, n);
    d->raw.start += n;
    return (long)n;
}

/* ---- characters ---- */

static long more_mid(struct mp__decode *d, int fd, int stream)
{
    struct buffer *b = &d->mid;
    long n;

    if (b->eof)
        return 0;
    memmove(b->p, b->p + b->start, held(b));
    b->end -= b->start;
    b->start = 0;
    n = some_bytes(d, fd, stream, b->p + b->end, RAW - b->end);
    b->eof = n == 0;
    b->end += n > 0 ? (size_t)n : 0;
    return n;
}

/* A text without a mark: every second byte is zero, or three of four. */
static enum charset by_zeros(const unsigned char *p, size_t n)
{
    unsigned zeros = 0;

    if (n < 4)
        return UTF8;
    for (int i = 0; i < 4; i++)
        zeros |= (unsigned)(p[i] == 0) << i;
    switch (zeros) {
    case 0xA:
        return UTF16LE;
    case 0x5:
        return UTF16BE;
    case 0xE:
        return UTF32LE;
    case 0x7:
        return UTF32BE;
    default:
        return UTF8;
    }
}

static enum charset see(struct buffer *b)
{
    static const struct {
        const char *mark;
        size_t n;
        enum charset charset;
    } marks[] = {
        {"\xFF\xFE\0\0", 4, UTF32LE},
        {"\0\0\xFE\xFF", 4, UTF32BE},
        {"\xFF\xFE", 2, UTF16LE},
        {"\xFE\xFF", 2, UTF16BE},
    };

    for (size_t i = 0; i < sizeof(marks) / sizeof(marks[0]); i++) {
        if (held(b) >= marks[i].n && memcmp(b->p + b->start, marks[i].mark, marks[i].n) == 0) {
            b->start += marks[i].n;
            return marks[i].charset;
        }
    }
    return by_zeros(b->p + b->start, held(b));
}

/* Whether the first bytes could still become something else than UTF-8. */
static int undecided(const struct buffer *b)
{
    const unsigned char *p = b->p + b->start;
    size_t n = held(b);

    if (n == 0 || b->eof || n >= 4)
        return n == 0 && !b->eof;
    return p[0] >= 0xFE || p[0] == 0 || n == 1 || p[1] == 0;
}

static long see_charset(struct mp__decode *d, int fd, int stream)
{
    while (undecided(&d->mid)) {
        long n = more_mid(d, fd, stream);

        if (n < 0)
            return n;
    }
    d->charset = see(&d->mid);
    return 1;
}

static unsigned unit(const unsigned char *p, int bytes, int big)
{
    unsigned v = 0;

    for (int i = 0; i < bytes; i++)
        v |= (unsigned)p[i] << 8 * (big ? bytes - 1 - i : i);
    return v;
}

/* Characters that are whole in mid; a lone half of a pair becomes U+FFFD. */
static size_t convert(struct mp__decode *d, char *out, size_t cap)
{
    struct buffer *b = &d->mid;
    int wide = d->charset >= UTF32LE, big = d->charset == UTF16BE || d->charset == UTF32BE;
    size_t bytes = wide ? 4 : 2, n = 0;

    while (held(b) >= bytes && cap - n >= 4) {
        const unsigned char *p = b->p + b->start;
        unsigned c = unit(p, (int)bytes, big), low;

        if (!wide && c >= 0xD800 && c < 0xDC00) {
            if (held(b) < 4 && !b->eof)
                break;
            low = held(b) >= 4 ? unit(p + 2, 2, big) : 0;
            if (low >= 0xDC00 && low < 0xE000) {
                c = mp__utf8_pair(c, low);
                b->start += 2;
            }
        }
        b->start += bytes;
        n += mp__utf8_put(out + n, mp__utf8_is_scalar(c) ? c : 0xFFFD);
    }
    return n;
}

static long wide_text(struct mp__decode *d, int fd, int stream, char *out, size_t cap)
{
    for (;;) {
        size_t n = convert(d, out, cap);
        long rc;

        if (n > 0)
            return (long)n;
        rc = more_mid(d, fd, stream);
        if (rc < 0)
            return rc;
        if (rc == 0)
            return held(&d->mid) == 0
                       ? 0
                       : bad(d, "its UTF-16 or UTF-32 text ends in half a character");
    }
}

long mp__decode_read(struct mp__decode *d, int fd, int stream, char *out, size_t cap,
                     const char **why)
{
    size_t n;
    long rc = 1;

    if (d->charset == UNSEEN)
        rc = see_charset(d, fd, stream);
    if (rc >= 0 && d->charset != UTF8) {
        rc = wide_text(d, fd, stream, out, cap);
    } else if (rc >= 0) {
        n = held(&d->mid) < cap ? held(&d->mid) : cap;
        memcpy(out, d->mid.p + d->mid.start, n);
        d->mid.start += n;
        rc = n > 0 || d->mid.eof ? (long)n : some_bytes(d, fd, stream, (unsigned char *)out, cap);
    }
    *why = d->why;
    return rc;
}

/*
 * reply.c - what curl lets through although it is wrong, and what it calls by one name in one version
 * and by another in the next.
 *
 * A connection that is closed inside the head is a good end to curl, without a body; so is a text
 * whose compression was cut short. Both are found here, by the empty line that must end the head and
 * by undoing the compression ourselves. Which fault it was otherwise is told by curl's words where
 * its codes do not say it.
 */
#include "engine/transport/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define TOO_LARGE 100                /* CURLE_TOO_LARGE, since curl 8.6 */
#define HELD_MOST ((size_t)16 << 20) /* out of one read, for a reader that has said stop */

void mp__reply_begin(struct mp__handle *h)
{
    h->head = (struct mp__head){0};
    h->fault[0] = '\0';
}

static int fail(struct mp__handle *h, enum mp_kind kind, const char *text)
{
    h->xfer->fault = (uint8_t)kind;
    snprintf(h->fault, sizeof(h->fault), "%s", text); /* curl writes over its own */
    return 1;
}

static const char unknown_framing[] = "the reply comes in a transfer coding that is not known";

static int value_of(const char *line, size_t n, const char *name, const char **value)
{
    size_t k = strlen(name);
    if (n <= k || line[k] != ':' || strncasecmp(line, name, k) != 0)
        return -1;
    for (k++; k < n && (line[k] == ' ' || line[k] == '\t'); k++)
        ;
    *value = line + k;
    return (int)(n - k);
}

/* Two lengths that differ: what one reader takes for the body's end is not the other's. */
static int length_line(struct mp__handle *h, const char *value, int n)
{
    uint64_t size = 0;
    for (int i = 0; i < n && value[i] >= '0' && value[i] <= '9' && size < UINT64_MAX / 20; i++)
        size = size * 10 + (uint64_t)(value[i] - '0');
    if (h->head.sized && h->head.size != size)
        return fail(h, MP_KIND_DECODE, "the reply has two lengths");
    h->head.sized = 1;
    h->head.size = size;
    return 0;
}

static int is_framing(const char *value, size_t n)
{
    return (n == 7 && strncasecmp(value, "chunked", n) == 0) ||
           (n == 8 && strncasecmp(value, "identity", n) == 0);
}

int mp__reply_line(struct mp__handle *h, const char *line, size_t n)
{
    const char *value = NULL;
    int len;
    while (n > 0 && (line[n - 1] == '\r' || line[n - 1] == '\n'))
        n--;
    if (n == 0) {
        h->head.over = !h->head.interim;
        return 0;
    }
    if (n > 5 && memcmp(line, "HTTP/", 5) == 0) {
        const char *space = memchr(line, ' ', n);
        mp__reply_begin(h);
        h->head.interim = space != NULL && space + 3 < line + n && space[1] == '1' &&
                          memcmp(space + 1, "101", 3) != 0;
        return 0;
    }
    len = value_of(line, n, "content-length", &value);
    if (len >= 0)
        return length_line(h, value, len);
    len = value_of(line, n, "transfer-encoding", &value);
    if (len >= 0 && !is_framing(value, (size_t)len))
        return fail(h, MP_KIND_DECODE, unknown_framing);
    len = h->decodes ? value_of(line, n, "content-encoding", &value) : -1;
    if (len >= 0) {
        enum mp__coding_name name = mp__coding_named(value, (size_t)len);
        h->head.coding = (uint8_t)(h->head.coding == MP__IDENTITY ? name : MP__CODING_UNKNOWN);
    }
    return 0;
}

struct sink {
    struct mp__xfer *x;
    size_t held;
};

static int pass_on(void *arg, const char *p, size_t n)
{
    struct sink *s = arg;
    if (s->x->hold && (s->held += n) > HELD_MOST)
        return fail(s->x->handle, MP_KIND_TOO_LARGE, "the reply unpacks to too much at once");
    return s->x->on_body(s->x, p, n);
}

static int start_coding(struct mp__handle *h)
{
    if (h->head.coding == MP__CODING_UNKNOWN)
        return fail(h, MP_KIND_DECODE,
                    "the reply comes in a content coding that was not asked for");
    if (h->coding == NULL)
        h->coding = mp__coding_new();
    if (h->coding == NULL || mp__coding_start(h->coding, h->head.coding) != 0)
        return fail(h, MP_KIND_TOO_LARGE, "out of memory");
    return 0;
}

int mp__reply_bytes(struct mp__handle *h, const char *p, size_t n)
{
    struct sink sink = {h->xfer, 0};
    int rc;
    if (h->head.coding == MP__IDENTITY)
        return h->xfer->on_body(h->xfer, p, n);
    if (!h->head.coded && start_coding(h) != 0)
        return 1;
    h->head.coded = 1;
    rc = mp__coding_feed(h->coding, p, n, pass_on, &sink);
    return rc < 0 ? fail(h, MP_KIND_DECODE, mp__coding_error(h->coding)) : rc;
}

static int speaks_of(const struct mp__handle *h, const char *what)
{
    return strcasestr(h->error, what) != NULL;
}

/* By its words: a reply that breaks the rules is not a connection that broke. */
static void name_fault(struct mp__handle *h, CURLcode code)
{
    struct mp__xfer *x = h->xfer;
    if (x->fault != MP_KIND_NONE || x->aborted || !x->connected)
        return;
    if ((int)code == TOO_LARGE || speaks_of(h, "large response header") ||
        speaks_of(h, "long header") || speaks_of(h, "giant realloc") ||
        (code == CURLE_OUT_OF_MEMORY && !h->head.over))
        fail(h, MP_KIND_TOO_LARGE, "the head of the reply is too large");
    else if (speaks_of(h, "chunk") && !speaks_of(h, "outstanding") && !speaks_of(h, "remaining"))
        fail(h, MP_KIND_DECODE, h->error);
    else if (code == CURLE_BAD_CONTENT_ENCODING && speaks_of(h, "Transfer-Encoding"))
        fail(h, MP_KIND_DECODE, unknown_framing); /* curl 8 sees it before we do */
}

/* Told that the server speaks HTTP/2 without TLS, curl gets nothing, or words of HTTP/1.1. Where it has
 * never answered so, it does not. */
static void name_http2(struct mp__handle *h, CURLcode code)
{
    struct mp__xfer *x = h->xfer;
    if (!h->h2c || !x->connected || x->fault != MP_KIND_NONE || x->aborted ||
        mp__h2c_answered(x->lane->t, x->target->id, 0))
        return;
    if (code != CURLE_GOT_NOTHING && code != CURLE_HTTP2 && code != CURLE_WEIRD_SERVER_REPLY &&
        !speaks_of(h, "SETTINGS") && !speaks_of(h, "HTTP/2"))
        return;
    fail(h, MP_KIND_CONNECT,
         "the server does not speak HTTP/2 without TLS: leave http_version at \"1.1\"");
    x->hopeless = 1;
}

void mp__reply_end(struct mp__handle *h, CURLcode code)
{
    if (code == CURLE_OK && h->h2c && h->head.over)
        mp__h2c_answered(h->xfer->lane->t, h->xfer->target->id, 1);
    if (code != CURLE_OK) {
        name_fault(h, code);
        name_http2(h, code);
    } else if (!h->head.over)
        fail(h, MP_KIND_CONNECT, "the connection was closed inside the head of the reply");
    else if (h->head.coded && mp__coding_finish(h->coding) != 0)
        fail(h, MP_KIND_DECODE, mp__coding_error(h->coding));
}

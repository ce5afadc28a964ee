/*
 * attempt_request.c - the request of one exchange: body, URL, headers, ids.
 */
#include "codec/json_write.h"
#include "engine/internal.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define EXPECT_FROM (1024 * 1024) /* curl adds Expect to larger bodies */
#define FEW_VECTORS 4

static int encode_row(struct mp__call *call, uint64_t row, struct mp__buf *b)
{
    const struct mp_str *s = &call->rows[row];
    int rc = mp__buf_add(b, call->row_prefix.p, call->row_prefix.n);
    if (rc == 0 && call->row_style == MP_ROW_WRAPPED)
        rc = mp__buf_addc(b, '[');
    if (rc == 0 && call->row_style == MP_ROW_JSON)
        rc = mp__buf_add(b, s->p, s->n);
    else if (rc == 0)
        rc = mp__json_string(b, s->p, s->n, NULL);
    if (rc == 0 && call->row_style == MP_ROW_WRAPPED)
        rc = mp__buf_addc(b, ']');
    return rc == 0 ? mp__buf_add(b, call->row_suffix.p, call->row_suffix.n) : rc;
}

static int add_count(struct mp__buf *b, uint32_t rows, const struct mp_str *tail)
{
    char text[16];
    snprintf(text, sizeof(text), "%u", rows);
    int rc = mp__buf_adds(b, text);
    return rc == 0 ? mp__buf_add(b, tail->p, tail->n) : rc;
}

static int add_suffix(struct mp__buf *b, const struct mp__call *call, int optional)
{
    const struct mp_str *s = &call->suffix;
    size_t behind = call->optional_at + call->optional_n;
    if (optional || call->optional_n == 0)
        return mp__buf_add(b, s->p, s->n);
    int rc = mp__buf_add(b, s->p, call->optional_at);
    return rc == 0 ? mp__buf_add(b, s->p + behind, s->n - behind) : rc;
}

int mp__attempt_joined(struct mp__attempt *a, int optional)
{
    struct mp__call *call = a->call;
    struct mp__buf *b = &a->body;
    a->optional = optional && call->optional_n > 0;
    b->n = 0;
    int rc = mp__buf_add(b, call->prefix.p, call->prefix.n);
    for (uint32_t i = 0; rc == 0 && i < a->part->count; i++) {
        if (i > 0)
            rc = mp__buf_addc(b, ',');
        if (rc == 0)
            rc = encode_row(call, a->part->first + i, b);
    }
    if (rc == 0)
        rc = add_suffix(b, call, optional);
    if (rc == 0 && call->tail.p != NULL)
        rc = add_count(b, a->part->count, &call->tail);
    a->xfer.body = b->p;
    a->xfer.body_len = b->n;
    return rc;
}

static int build_sourced(struct mp__attempt *a)
{
    struct mp_str text = {NULL, 0};
    if (a->call->source(a->call->source_arg, a->part->first, &text) != 0) {
        snprintf(a->message, sizeof(a->message), "%.*s", (int)text.n, text.p != NULL ? text.p : "");
        return MP_EINVAL;
    }
    a->body.n = 0;
    if (text.p == NULL)
        return 0;
    int rc = mp__buf_add(&a->body, text.p, text.n);
    a->xfer.body = a->body.p != NULL ? a->body.p : "";
    a->xfer.body_len = a->body.n;
    return rc;
}

static int build_body(struct mp__attempt *a)
{
    struct mp__call *call = a->call;
    a->xfer.body = NULL;
    a->xfer.body_len = 0;
    if (call->mode == MP_BODY_JOIN)
        return mp__attempt_joined(a, !a->client->plain);
    if (call->rows != NULL) {
        a->xfer.body = call->rows[a->part->first].p;
        a->xfer.body_len = call->rows[a->part->first].n;
        return 0;
    }
    return call->source != NULL ? build_sourced(a) : 0;
}

/* The length of a version that p begins with ("/v1"), 0: none. */
static size_t version_length(const char *p)
{
    size_t n = p[0] == '/' && p[1] == 'v' ? strspn(p + 2, "0123456789") : 0;
    return n > 0 && (p[2 + n] == '/' || p[2 + n] == '\0' || p[2 + n] == '?') ? 2 + n : 0;
}

static int ends_in(const char *base, const char *tail, size_t n)
{
    size_t have = strlen(base);
    return n > 1 && have >= n && memcmp(base + have - n, tail, n) == 0;
}

/* What of the path the base URL does not say already: a version of its own holds ("/v3" for "/v1"),
 * and it may be the whole endpoint. */
static const char *path_behind(const struct mp__attempt *a, const char *path)
{
    const char *base = a->client->endpoints[a->endpoint].url.path;
    const char *last = strrchr(base, '/');
    const char *tail = path + version_length(path);
    size_t n = strcspn(tail, "?");
    if (*path != '/')
        return path;
    if (ends_in(base, path, n + (size_t)(tail - path)) && memchr(path + 1, '/', n) != NULL)
        return tail + n;
    if ((a->call->flags & MP_SERVICE_PATH) && ends_in(base, tail, n))
        return tail + n;
    return last != NULL && version_length(last) == strlen(last) ? tail : path;
}

int mp__attempt_url(struct mp__attempt *a, const char *path)
{
    const char *base = a->client->endpoints[a->endpoint].url.base;
    path = path_behind(a, path);
    a->url.n = 0;
    int rc = mp__buf_add(&a->url, base, strlen(base));
    if (rc == 0 && *path != '/' && *path != '?' && *path != '\0')
        rc = mp__buf_addc(&a->url, '/');
    if (rc == 0)
        rc = mp__buf_add(&a->url, path, strlen(path) + 1);
    a->xfer.url = a->url.p;
    return rc;
}

static void link_header(struct mp__attempt *a, int i)
{
    a->own[i].data = a->own_text[i];
    a->own[i].next = a->xfer.headers;
    a->xfer.headers = &a->own[i];
}

static void add_header(struct mp__attempt *a, int i, const char *name, const char *value)
{
    const char *colon = *value != '\0' ? ": " : ":"; /* "Name:" leaves curl's own out */
    snprintf(a->own_text[i], sizeof(a->own_text[i]), "%s%s%s", name, colon, value);
    link_header(a, i);
}

static double attempt_limit(const struct mp__attempt *a, mp__time now)
{
    double limit = a->call->timeouts.attempt;
    if (a->call->timeouts.total > 0) {
        double left = a->call->timeouts.total - (double)(now - a->call->created) / 1e9;
        if (limit <= 0 || left < limit)
            limit = left;
    }
    return limit;
}

static void add_deadline_headers(struct mp__attempt *a, mp__time now)
{
    char text[32];
    double limit = attempt_limit(a, now);
    if (!a->client->deadline_headers || limit <= 0)
        return;
    struct timespec wall;
    clock_gettime(CLOCK_REALTIME, &wall);
    double epoch_ms = (double)wall.tv_sec * 1e3 + (double)wall.tv_nsec / 1e6 + limit * 1e3;
    snprintf(text, sizeof(text), "%.0f", ceil(limit * 1e3));
    add_header(a, 0, "Request-Timeout-Ms", text);
    snprintf(text, sizeof(text), "%.0f", epoch_ms);
    add_header(a, 1, "Request-Deadline-Ms", text);
}

static char *put_text(char *to, const char *end, const char *text, size_t max)
{
    for (; max > 0 && *text != '\0' && to < end; max--)
        *to++ = *text++;
    return to;
}

static char *put_number(char *to, const char *end, unsigned v)
{
    char digits[12];
    char *p = digits + sizeof(digits) - 1;
    *p = '\0';
    do
        *--p = (char)('0' + v % 10);
    while ((v /= 10) != 0);
    return put_text(to, end, p, sizeof(digits));
}

static char *put_hex(char *to, const char *end, uint64_t v, int digits)
{
    for (int shift = 4 * (digits - 1); shift >= 0 && to < end; shift -= 4)
        *to++ = "0123456789abcdef"[v >> shift & 15];
    return to;
}

/*
 * prefix-<call's random part>-<part>-<attempt>[-hedge-N]: unique on the wire, alike in a log.
 * Written by hand, once, into the header's own text: two snprintfs were 1 % of a small request.
 */
static void make_request_id(struct mp__attempt *a, const struct mpp_part_facts *facts,
                            uint64_t salt)
{
    const struct mp_client *c = a->client;
    char *to = a->own_text[2];
    const char *end = to + sizeof(a->own_text[2]) - 1;
    int sent = c->request_id_header[0] != '\0';
    if (sent) {
        to = put_text(to, end, c->request_id_header, 80);
        to = put_text(to, end, ": ", 2);
    }
    a->request_id = to;
    to = put_text(to, end, c->request_id_prefix, 32);
    to = put_text(to, end, "-", 1);
    to = put_hex(to, end, salt & 0xffffffffffULL, 10);
    to = put_text(to, end, "-", 1);
    to = put_number(to, end, a->part->serial);
    to = put_text(to, end, "-", 1);
    to = put_number(to, end, facts->attempts > 0 ? facts->attempts - 1 : 0);
    if (a->is_hedge) {
        to = put_text(to, end, "-hedge-", 7);
        to = put_number(to, end, facts->hedges);
    }
    *to = '\0';
    if (sent)
        link_header(a, 2);
}

static void make_ids(struct mp__attempt *a, const struct mpp_part_facts *facts)
{
    char key[96];
    uint64_t salt = a->call->ticket * MP__GOLDEN ^ a->engine->id_salt;
    make_request_id(a, facts, salt);
    if (a->client->idempotency_header != NULL) {
        snprintf(key, sizeof(key), "%016llx-%u", (unsigned long long)salt, a->part->serial);
        add_header(a, 3, a->client->idempotency_header, key);
    }
    if (a->xfer.body_len > EXPECT_FROM) /* curl would wait for a 100 Continue */
        add_header(a, 4, "Expect", "");
}

static int put_all(struct mp__header_set *set, const struct mp_header *h, size_t n)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = mp__header_put(set, h[i].name, h[i].value);
    return rc;
}

/* Its own list: the endpoint's, the call's, the row's, then `more`. */
static int own_chain(struct mp__attempt *a, const struct mp_header *rows, size_t nrows,
                     const struct mp_header *more, size_t n)
{
    const struct mp__header_set *call = a->call->headers;
    struct mp__header_set *all = mp__header_copy(a->client->endpoints[a->endpoint].headers);
    struct mp__hdr *chain = NULL;
    int rc = all != NULL ? 0 : MP_ENOMEM;
    for (size_t i = 0; rc == 0 && call != NULL && i < call->n; i++)
        rc = mp__header_put(all, call->v[i].name, call->v[i].value);
    if (rc == 0)
        rc = put_all(all, rows, nrows);
    if (rc == 0)
        rc = put_all(all, more, n);
    if (rc == 0)
        chain = mp__header_chain(all, a->xfer.body != NULL);
    mp__header_free(all);
    if (chain == NULL)
        return MP_ENOMEM;
    mp__hdr_free(a->row_chain);
    a->row_chain = a->xfer.headers = chain;
    return 0;
}

static const struct mp_header *row_headers(const struct mp__attempt *a, size_t *n)
{
    const struct mp__call *call = a->call;
    *n = 0;
    return call->row_headers != NULL ? call->row_headers(call->source_arg, a->part->first, n)
                                     : NULL;
}

int mp__attempt_headers(struct mp__attempt *a, const struct mp_header *more, size_t n)
{
    size_t nrows = 0;
    const struct mp_header *rows = row_headers(a, &nrows);
    return nrows == SIZE_MAX ? MP_ENOMEM : own_chain(a, rows, nrows, more, n);
}

/* Never fewer headers than were given: one of them may be the key. */
static int set_headers(struct mp__attempt *a)
{
    size_t n = 0;
    const struct mp_header *rows = row_headers(a, &n);
    if (n == SIZE_MAX)
        return MP_ENOMEM;
    if (rows != NULL && n > 0)
        return own_chain(a, rows, n, NULL, 0);
    a->xfer.headers = mp__call_chain(a->call, a->endpoint, a->xfer.body != NULL);
    return a->xfer.headers != NULL ? 0 : MP_ENOMEM;
}

int mp__attempt_build(struct mp__attempt *a, const struct mpp_part_facts *facts, mp__time now)
{
    const struct mp__hooks *hooks = a->call->hooks;
    int rc = build_body(a);
    if (rc == 0)
        rc = mp__attempt_url(a, a->call->path);
    if (rc != 0)
        return rc;
    a->xfer.method = a->call->method;
    /* A buffer is made for each transfer: a few vectors do not pay for a large one. */
    a->xfer.big_reply = (a->call->has_vectors && a->part->count > FEW_VECTORS) ||
                        (a->call->flags & MP_BIG_REPLY) != 0;
    rc = set_headers(a);
    if (rc != 0)
        return rc;
    if (hooks != NULL && hooks->before != NULL)
        hooks->before(hooks->core.arg, a);
    add_deadline_headers(a, now);
    make_ids(a, facts);
    return 0;
}

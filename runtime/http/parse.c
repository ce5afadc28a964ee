/*
 * parse.c - bytes to a request, through llhttp.
 *
 * llhttp hands out spans and keeps nothing, so the head is gathered in one buffer: url NUL, then
 * name NUL value NUL for each header. What llhttp passes over in silence (white space, chunk
 * extensions, trailers) has no span to bound it; the raw byte count does.
 */
#include "http/internal.h"

#include <string.h>
#include <strings.h>

/* Framing a body may have besides its own bytes: 1-byte chunks have five bytes a byte. */
#define FRAMING_SLACK 65536
#define FRAMING_RATIO 8

static int fail(struct mp__conn *c, int status)
{
    c->fail = status;
    return -1;
}

static int add_head(struct mp__conn *c, const char *p, size_t n)
{
    if (c->head.n + n > c->server->config.max_head)
        return fail(c, 431);
    if (mp__bytes_add(&c->head, p, n) != 0)
        return fail(c, 503);
    return 0;
}

static int on_url(llhttp_t *parser, const char *at, size_t n)
{
    return add_head(parser->data, at, n);
}

static int on_url_complete(llhttp_t *parser)
{
    return add_head(parser->data, "", 1);
}

static int on_field(llhttp_t *parser, const char *at, size_t n)
{
    struct mp__conn *c = parser->data;
    if (c->state == MP__S_BODY)
        return 0; /* a trailer */
    if (!c->in_field) {
        if (c->nheaders == c->server->config.max_headers)
            return fail(c, 431);
        c->in_field = 1;
        c->offsets[2 * c->nheaders] = (uint32_t)c->head.n;
    }
    size_t from = c->head.n;
    if (add_head(c, at, n) != 0)
        return -1;
    for (char *p = c->head.p + from; p < c->head.p + c->head.n; p++)
        *p = (char)(*p >= 'A' && *p <= 'Z' ? *p + 32 : *p);
    return 0;
}

static int on_field_complete(llhttp_t *parser)
{
    struct mp__conn *c = parser->data;
    if (c->state == MP__S_BODY)
        return 0;
    if (add_head(c, "", 1) != 0)
        return -1;
    c->in_field = 0;
    c->offsets[2 * c->nheaders + 1] = (uint32_t)c->head.n;
    return 0;
}

/* llhttp joins folded lines (RFC 9112, 5.2: obsolete) without a word, and what one server joins the
 * next may not. Only the gap between two spans of a value tells. */
static int on_value(llhttp_t *parser, const char *at, size_t n)
{
    struct mp__conn *c = parser->data;
    if (c->state == MP__S_BODY)
        return 0;
    int across = c->value_end == NULL && at == c->piece;
    if (c->head.n > c->offsets[2 * c->nheaders + 1] && at != c->value_end && !across)
        return fail(c, 400);
    c->value_end = at + n;
    return add_head(c, at, n);
}

static int on_value_complete(llhttp_t *parser)
{
    struct mp__conn *c = parser->data;
    if (c->state == MP__S_BODY)
        return 0;
    size_t start = c->offsets[2 * c->nheaders + 1];
    while (c->head.n > start && strchr(" \t", c->head.p[c->head.n - 1]) != NULL)
        c->head.n--;
    c->nheaders++;
    return add_head(c, "", 1);
}

/* ---- the end of the head ---- */

/* "GET http://host/path" is for proxies, yet a server must take it (RFC 9112, 3.2.2). */
static char *skip_authority(char *url)
{
    if (strncasecmp(url, "http://", 7) != 0 && strncasecmp(url, "https://", 8) != 0)
        return url;
    char *authority = strchr(url, ':') + 3;
    return authority + strcspn(authority, "/?#");
}

static int set_target(struct mp__conn *c)
{
    char *path = skip_authority(c->head.p);
    path[strcspn(path, "#")] = '\0';
    char *question = strchr(path, '?');
    c->req.query = NULL;
    if (question != NULL) {
        *question = '\0';
        c->req.query = question + 1;
    }
    c->req.path = *path != '\0' ? path : "/";
    if (c->req.path[0] != '/' && strcmp(c->req.path, "*") != 0)
        return fail(c, 400);
    return 0;
}

struct seen {
    int hosts, codings;
    const char *coding, *expect;
};

static void set_headers(struct mp__conn *c, struct seen *seen)
{
    for (size_t i = 0; i < c->nheaders; i++) {
        struct mp__http_header *h = &c->headers[i];
        h->name = c->head.p + c->offsets[2 * i];
        h->value = c->head.p + c->offsets[2 * i + 1];
        if (strcmp(h->name, "host") == 0) {
            seen->hosts++;
        } else if (strcmp(h->name, "transfer-encoding") == 0) {
            seen->codings++;
            seen->coding = h->value;
        } else if (strcmp(h->name, "expect") == 0) {
            seen->expect = h->value;
        }
    }
    c->req.headers = c->headers;
    c->req.nheaders = c->nheaders;
}

static int check_head(struct mp__conn *c, const struct seen *seen)
{
    llhttp_t *p = &c->parser;
    if (p->http_major != 1 || p->http_minor > 1)
        return fail(c, 505);
    if (p->method == HTTP_CONNECT)
        return fail(c, 501);
    if (seen->hosts > 1 || (seen->hosts == 0 && p->http_minor == 1))
        return fail(c, 400);
    if (seen->codings > 0 && p->http_minor == 0)
        return fail(c, 400);
    /* We undo chunked and nothing else; the handler must not take gzip for the body. */
    if (seen->codings > 1 || (seen->codings == 1 && strcasecmp(seen->coding, "chunked") != 0))
        return fail(c, 501);
    if (seen->expect != NULL && p->http_minor == 1 && strcasecmp(seen->expect, "100-continue") != 0)
        return fail(c, 417);
    if (p->content_length > c->server->config.max_body)
        return fail(c, 413);
    return 0;
}

static int on_headers_complete(llhttp_t *parser)
{
    struct mp__conn *c = parser->data;
    struct seen seen = {0};
    set_headers(c, &seen);
    c->is_head = parser->method == HTTP_HEAD;
    if (check_head(c, &seen) != 0 || set_target(c) != 0)
        return -1;
    parser->upgrade = 0;
    c->req.method = llhttp_method_name((llhttp_method_t)parser->method);
    c->req.http_minor = parser->http_minor;
    c->keep_alive = (uint8_t)(llhttp_should_keep_alive(parser) && !c->server->stopping);
    c->wants_continue = seen.expect != NULL && parser->http_minor == 1;
    c->state = MP__S_BODY;
    c->body_since = uv_now(c->server->loop);
    size_t first = parser->content_length < (1 << 20) ? (size_t)parser->content_length : 1 << 20;
    if (mp__buf_reserve(&c->body, first + 1) != 0)
        return fail(c, 503);
    return 0;
}

/* ---- body ---- */

static int on_body(llhttp_t *parser, const char *at, size_t n)
{
    struct mp__conn *c = parser->data;
    if (n > c->server->config.max_body - c->body.n)
        return fail(c, 413);
    if (mp__bytes_add(&c->body, at, n) != 0)
        return fail(c, 503);
    return 0;
}

static int on_message_complete(llhttp_t *parser)
{
    struct mp__conn *c = parser->data;
    if (mp__bytes_add(&c->body, "", 1) != 0)
        return fail(c, 503);
    c->req.body = c->body.p;
    c->req.body_len = c->body.n - 1;
    c->state = MP__S_READY;
    return HPE_PAUSED;
}

/* ---- driving ---- */

void mp__parse_settings(llhttp_settings_t *settings)
{
    llhttp_settings_init(settings);
    settings->on_url = on_url;
    settings->on_url_complete = on_url_complete;
    settings->on_header_field = on_field;
    settings->on_header_field_complete = on_field_complete;
    settings->on_header_value = on_value;
    settings->on_header_value_complete = on_value_complete;
    settings->on_headers_complete = on_headers_complete;
    settings->on_body = on_body;
    settings->on_message_complete = on_message_complete;
}

void mp__parse_start(struct mp__conn *c)
{
    llhttp_init(&c->parser, HTTP_REQUEST, &c->server->settings);
    c->parser.data = c;
    mp__buf_trim(&c->head, MP__KEEP_HEAD);
    mp__buf_trim(&c->body, MP__KEEP_BODY);
    c->state = MP__S_IDLE;
    c->fail = 0;
    c->raw = 0;
    c->nheaders = 0;
    c->in_field = 0;
    c->wants_continue = 0;
    c->lines = MP__L_REQUEST;
    c->line_n = c->line_last = 0;
    c->is_head = 0;
    c->streaming = 0;
}

/* llhttp takes a line that goes on in the next one, a header without a name and several spaces in front
 * of the target, and the next server may read each of them otherwise: 400 (RFC 9112, 3 and 5.2). */
static int bad_line_start(const struct mp__conn *c, char first)
{
    return c->lines == MP__L_HEADERS && (first == ' ' || first == '\t' || first == ':');
}

static int two_spaces(struct mp__conn *c, const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (p[i] == ' ' && c->line_last == ' ')
            return 1;
        c->line_last = (uint8_t)p[i];
    }
    return 0;
}

static int watch_lines(struct mp__conn *c, const char *p, size_t n)
{
    while (n > 0 && c->lines != MP__L_OVER) {
        const char *end = memchr(p, '\n', n);
        size_t len = end != NULL ? (size_t)(end - p) : n;
        if (c->line_n == 0 && bad_line_start(c, *p))
            return fail(c, 400);
        if (c->lines == MP__L_REQUEST && two_spaces(c, p, len))
            return fail(c, 400);
        int empty = c->line_n + len == 0 || (c->line_n + len == 1 && (len == 0 || *p == '\r'));
        c->line_n = c->line_n + len > 2 ? 2 : c->line_n + (uint32_t)len;
        if (end == NULL)
            return 0;
        if (!empty)
            c->lines = MP__L_HEADERS; /* empty lines in front of a request are let pass */
        else if (c->lines == MP__L_HEADERS)
            c->lines = MP__L_OVER;
        c->line_n = 0;
        c->line_last = 0;
        n -= len + 1;
        p = end + 1;
    }
    return 0;
}

static void check_raw(struct mp__conn *c)
{
    size_t limit = c->server->config.max_head;
    if (c->state == MP__S_HEAD && c->raw > limit)
        c->fail = 431;
    limit += FRAMING_SLACK + c->body.n * FRAMING_RATIO;
    if (c->state == MP__S_BODY && c->raw - c->body.n > limit)
        c->fail = 413;
}

static void say_continue(struct mp__conn *c)
{
    static char words[] = "HTTP/1.1 100 Continue\r\n\r\n";
    uv_buf_t buf = uv_buf_init(words, sizeof(words) - 1);
    c->wants_continue = 0;
    mp__conn_write(c, &buf, 1);
}

size_t mp__parse(struct mp__conn *c, const char *p, size_t n)
{
    if (c->state == MP__S_IDLE)
        c->state = MP__S_HEAD;
    c->piece = p;
    if (watch_lines(c, p, n) != 0)
        return n;
    llhttp_errno_t err = llhttp_execute(&c->parser, p, n);
    if (err != HPE_OK && err != HPE_PAUSED) {
        if (c->fail == 0)
            c->fail = 400;
        return n;
    }
    size_t eaten = err == HPE_PAUSED ? (size_t)(llhttp_get_error_pos(&c->parser) - p) : n;
    c->raw += eaten;
    if (c->value_end == p + n)
        c->value_end = NULL; /* the value may go on at the start of the next piece */
    check_raw(c);
    if (c->wants_continue && c->fail == 0 && c->state == MP__S_BODY)
        say_continue(c);
    return eaten;
}

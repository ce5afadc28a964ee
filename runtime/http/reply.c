/* reply.c - whole replies in one write, streamed replies, and the server's own error replies. */
#include "http/internal.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

static const struct {
    int status;
    const char *reason;
} reasons[] = {
    {200, "OK"},
    {201, "Created"},
    {202, "Accepted"},
    {204, "No Content"},
    {206, "Partial Content"},
    {301, "Moved Permanently"},
    {302, "Found"},
    {303, "See Other"},
    {304, "Not Modified"},
    {307, "Temporary Redirect"},
    {308, "Permanent Redirect"},
    {400, "Bad Request"},
    {401, "Unauthorized"},
    {402, "Payment Required"},
    {403, "Forbidden"},
    {404, "Not Found"},
    {405, "Method Not Allowed"},
    {406, "Not Acceptable"},
    {408, "Request Timeout"},
    {409, "Conflict"},
    {410, "Gone"},
    {411, "Length Required"},
    {413, "Content Too Large"},
    {414, "URI Too Long"},
    {415, "Unsupported Media Type"},
    {417, "Expectation Failed"},
    {422, "Unprocessable Content"},
    {424, "Failed Dependency"},
    {425, "Too Early"},
    {429, "Too Many Requests"},
    {431, "Request Header Fields Too Large"},
    {499, "Client Closed Request"},
    {500, "Internal Server Error"},
    {501, "Not Implemented"},
    {502, "Bad Gateway"},
    {503, "Service Unavailable"},
    {504, "Gateway Timeout"},
    {505, "HTTP Version Not Supported"},
    {529, "Overloaded"},
};

static const char *reason_of(int status)
{
    for (size_t i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++) {
        if (reasons[i].status == status)
            return reasons[i].reason;
    }
    return "Status";
}

/* ---- head ---- */

static int add(struct mp__buf *b, const char *s)
{
    return mp__bytes_add(b, s, strlen(s));
}

static int add_date(struct mp__http_server *s)
{
    int64_t now = (int64_t)time(NULL);
    if (now != s->date_at) {
        /* strftime would follow the locale. */
        static const char days[] = "SunMonTueWedThuFriSat";
        static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
        struct tm tm;
        time_t at = (time_t)now;
        gmtime_r(&at, &tm);
        snprintf(s->date, sizeof(s->date), "%.3s, %02d %.3s %d %02d:%02d:%02d GMT",
                 days + 3 * tm.tm_wday, tm.tm_mday, months + 3 * tm.tm_mon, tm.tm_year + 1900,
                 tm.tm_hour, tm.tm_min, tm.tm_sec);
        s->date_at = now;
    }
    return add(&s->scratch, "\r\ndate: ") || add(&s->scratch, s->date);
}

static int is_token(const char *s)
{
    static const char allowed[] = "!#$%&'*+-.^_`|~0123456789"
                                  "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    return *s != '\0' && s[strspn(s, allowed)] == '\0';
}

static int is_value(const char *s)
{
    for (; *s != '\0'; s++) {
        if (((unsigned char)*s < 32 && *s != '\t') || *s == 127)
            return 0;
    }
    return 1;
}

static int is_framing(const char *name)
{
    static const char *const ours[] = {"content-length", "transfer-encoding", "keep-alive", "date",
                                       "connection"};
    for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++) {
        if (strcasecmp(name, ours[i]) == 0)
            return 1;
    }
    return 0;
}

static int add_headers(struct mp__conn *c, const struct mp__http_header *headers, size_t n)
{
    struct mp__buf *b = &c->server->scratch;
    for (size_t i = 0; i < n; i++) {
        if (!is_token(headers[i].name) || !is_value(headers[i].value))
            return UV_EINVAL;
        if (strcasecmp(headers[i].name, "connection") == 0 &&
            strcasecmp(headers[i].value, "close") == 0)
            c->keep_alive = 0;
        if (is_framing(headers[i].name))
            continue;
        if (add(b, "\r\n") || add(b, headers[i].name) || add(b, ": ") || add(b, headers[i].value))
            return UV_ENOMEM;
    }
    return 0;
}

static int add_framing(struct mp__conn *c, int status, int64_t length)
{
    struct mp__buf *b = &c->server->scratch;
    char line[48] = "";
    if (status == 204 || status == 304)
        line[0] = '\0';
    else if (length >= 0)
        snprintf(line, sizeof(line), "\r\ncontent-length: %lld", (long long)length);
    else if (c->req.http_minor == 1)
        snprintf(line, sizeof(line), "\r\ntransfer-encoding: chunked");
    const char *last = "\r\n\r\n";
    if (!c->keep_alive)
        last = "\r\nconnection: close\r\n\r\n";
    else if (c->req.http_minor == 0)
        last = "\r\nconnection: keep-alive\r\n\r\n";
    return add(b, line) || add(b, last) ? UV_ENOMEM : 0;
}

int mp__reply_head(struct mp__conn *c, int status, const struct mp__http_header *headers,
                   size_t nheaders, int64_t length)
{
    char first[64];
    struct mp__http_server *s = c->server;
    if (status < 200 || status > 599)
        return UV_EINVAL;
    if (s->stopping || (length < 0 && c->req.http_minor == 0))
        c->keep_alive = 0;
    s->scratch.n = 0;
    snprintf(first, sizeof(first), "HTTP/1.1 %d %s", status, reason_of(status));
    if (add(&s->scratch, first) || add_date(s))
        return UV_ENOMEM;
    int err = add_headers(c, headers, nheaders);
    return err != 0 ? err : add_framing(c, status, length);
}

static void count(struct mp__http_server *s, int status)
{
    s->stats.replies++;
    s->stats.status[status / 100]++;
}

/* ---- whole ---- */

int mp__http_reply(struct mp__http_request *req, int status, const struct mp__http_header *headers,
                   size_t nheaders, const void *body, size_t len)
{
    struct mp__conn *c = (struct mp__conn *)req;
    struct mp__http_server *s = c->server;
    int err = mp__reply_head(c, status, headers, nheaders, (int64_t)len);
    if (err == UV_EINVAL)
        return err;
    if (err != 0) {
        mp__http_abort(req);
        return err;
    }
    uv_buf_t bufs[2] = {uv_buf_init(s->scratch.p, (unsigned int)s->scratch.n),
                        uv_buf_init((char *)body, (unsigned int)len)};
    int no_body = c->is_head || status == 204 || status == 304 || len == 0;
    err = mp__conn_write(c, bufs, no_body ? 1 : 2);
    count(s, status);
    mp__conn_ended(c);
    return err;
}

void mp__reply_fail(struct mp__conn *c, int status)
{
    char body[128];
    struct mp__http_server *s = c->server;
    s->stats.malformed++;
    c->keep_alive = 0;
    c->req.http_minor = 1;
    int len = snprintf(body, sizeof(body), "{\"error\":{\"message\":\"%s\",\"code\":%d}}\n",
                       reason_of(status), status);
    static const struct mp__http_header type = {"content-type", "application/json"};
    if (mp__reply_head(c, status, &type, 1, len) != 0) {
        mp__conn_close(c);
        return;
    }
    uv_buf_t bufs[2] = {uv_buf_init(s->scratch.p, (unsigned int)s->scratch.n),
                        uv_buf_init(body, (unsigned int)len)};
    if (mp__conn_write(c, bufs, c->is_head ? 1 : 2) != 0)
        return;
    count(s, status);
    mp__conn_linger(c);
}

/* ---- streamed ---- */

enum { STREAM_NONE, STREAM_CHUNKED, STREAM_PLAIN, STREAM_SILENT };

int mp__http_start(struct mp__http_request *req, int status, const struct mp__http_header *headers,
                   size_t nheaders)
{
    struct mp__conn *c = (struct mp__conn *)req;
    struct mp__http_server *s = c->server;
    int err = mp__reply_head(c, status, headers, nheaders, -1);
    if (err != 0)
        return err;
    uv_buf_t buf = uv_buf_init(s->scratch.p, (unsigned int)s->scratch.n);
    if (c->is_head || status == 204 || status == 304)
        c->streaming = STREAM_SILENT;
    else
        c->streaming = req->http_minor == 1 ? STREAM_CHUNKED : STREAM_PLAIN;
    count(s, status);
    return mp__conn_write(c, &buf, 1);
}

int mp__http_write(struct mp__http_request *req, const void *data, size_t len)
{
    struct mp__conn *c = (struct mp__conn *)req;
    char size[24];
    if (c->state == MP__S_CLOSED)
        return UV_ECANCELED;
    if (len == 0 || c->streaming == STREAM_SILENT)
        return 0; /* an empty chunk would end the reply */
    int n = snprintf(size, sizeof(size), "%zx\r\n", len);
    uv_buf_t bufs[3] = {uv_buf_init(size, (unsigned int)n),
                        uv_buf_init((char *)data, (unsigned int)len), uv_buf_init("\r\n", 2)};
    int err = c->streaming == STREAM_CHUNKED ? mp__conn_write(c, bufs, 3)
                                             : mp__conn_write(c, bufs + 1, 1);
    if (err != 0)
        return err;
    c->full = c->pending > c->server->config.high_water;
    return c->full;
}

void mp__http_end(struct mp__http_request *req)
{
    struct mp__conn *c = (struct mp__conn *)req;
    uv_buf_t last = uv_buf_init("0\r\n\r\n", 5);
    if (c->streaming == STREAM_CHUNKED)
        mp__conn_write(c, &last, 1);
    mp__conn_ended(c);
}

void mp__http_abort(struct mp__http_request *req)
{
    struct mp__conn *c = (struct mp__conn *)req;
    mp__conn_close(c);
    mp__conn_ended(c);
}

/* ---- reading a request ---- */

const char *mp__http_header(const struct mp__http_request *req, const char *name)
{
    for (size_t i = 0; i < req->nheaders; i++) {
        if (strcmp(req->headers[i].name, name) == 0)
            return req->headers[i].value;
    }
    return NULL;
}

const char *mp__http_peer(const struct mp__http_request *req, char *out, size_t n)
{
    const struct mp__conn *c = (const struct mp__conn *)req;
    struct sockaddr_storage at;
    int len = (int)sizeof(at);
    char host[64], port[8];
    snprintf(out, n, "%s", c->is_tcp ? "" : "unix");
    if (!c->is_tcp || c->state == MP__S_CLOSED ||
        uv_tcp_getpeername(&c->uv.tcp, (struct sockaddr *)&at, &len) != 0)
        return out;
    if (getnameinfo((struct sockaddr *)&at, (socklen_t)len, host, sizeof(host), port, sizeof(port),
                    NI_NUMERICHOST | NI_NUMERICSERV) == 0)
        snprintf(out, n, at.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
    return out;
}

/* message.c - errors in words: what happened, and what to do about it. */
#include "engine/message.h"

#include "codec/utf8.h"
#include "engine/transport/transport.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define MAX_ERROR_JSON 16384

static const char *advice(int status)
{
    switch (status) {
    case 401:
    case 403:
        return " (check the API key and its rights)";
    case 404:
        return " (check base_url, path and model)";
    case 407:
        return " (check the proxy's user and password)";
    case 413:
        return " (the request is too large: lower batch_size)";
    case 429:
        return " (rate limited: lower the rate or raise the quota)";
    default:
        return "";
    }
}

static const char *text_of(const cJSON *v)
{
    static const char *const keys[] = {"message", "detail", "error", "errors", "msg", "title"};
    if (cJSON_IsString(v))
        return v->valuestring;
    if (cJSON_IsArray(v))
        return text_of(v->child);
    for (size_t i = 0; cJSON_IsObject(v) && i < sizeof(keys) / sizeof(*keys); i++) {
        const char *text = text_of(cJSON_GetObjectItemCaseSensitive(v, keys[i]));
        if (text != NULL)
            return text;
    }
    return NULL;
}

/* What moves a terminal's cursor or turns the reading direction, beyond ASCII: U+0080 to U+009F (the
 * C1 controls), U+200E, U+200F, U+2028 to U+202E, U+2066 to U+2069. */
static int steers(const unsigned char *s, size_t len)
{
    if (len == 2)
        return s[0] == 0xC2 && s[1] < 0xA0;
    if (len != 3 || s[0] != 0xE2)
        return 0;
    return (s[1] == 0x80 && (s[2] == 0x8E || s[2] == 0x8F || (s[2] >= 0xA8 && s[2] <= 0xAE))) ||
           (s[1] == 0x81 && s[2] >= 0xA6 && s[2] <= 0xA9);
}

/* Plain words stay, a page of HTML or binary does not; what is no UTF-8 is a question mark. */
static void plain(char *out, size_t cap, const char *body, size_t n)
{
    const unsigned char *s = (const unsigned char *)body;
    size_t to = 0, i, len;
    for (i = 0; i < n; i += len) {
        len = s[i] < 0x80 ? 1 : mp__utf8_seq(s + i, n - i);
        if ((s[i] == '<' && to == 0) || to + (len > 1 ? len : 1) >= cap)
            break;
        if (len > 1 && !steers(s + i, len)) {
            memcpy(out + to, s + i, len);
            to += len;
            continue;
        }
        out[to++] = len == 0 ? '?' : len > 1 || s[i] < ' ' || s[i] == 127 ? ' ' : (char)s[i];
        len = len == 0 ? 1 : len;
    }
    out[to] = '\0';
}

void mp__status_reason(char *out, size_t cap, const char *body, size_t body_len)
{
    out[0] = '\0';
    if (body_len == 0 || body_len > MAX_ERROR_JSON)
        return;
    cJSON *doc = cJSON_ParseWithLength(body, body_len);
    const char *text = doc != NULL ? text_of(doc) : NULL;
    if (text != NULL)
        plain(out, cap, text, strlen(text));
    else
        plain(out, cap, body, body_len);
    cJSON_Delete(doc);
}

static int status_in(const cJSON *v)
{
    static const char *const keys[] = {"status", "status_code", "code", "http_code"};
    for (size_t i = 0; cJSON_IsObject(v) && i < sizeof(keys) / sizeof(*keys); i++) {
        const cJSON *c = cJSON_GetObjectItemCaseSensitive(v, keys[i]);
        double n = cJSON_IsNumber(c)   ? c->valuedouble
                   : cJSON_IsString(c) ? strtod(c->valuestring, NULL)
                                       : 0;
        if (n >= 400 && n <= 599)
            return (int)n;
    }
    return 0;
}

/* The kinds that services give names instead of numbers. */
static int status_of_name(const cJSON *v)
{
    static const struct {
        const char *part;
        int status;
    } names[] = {{"rate_limit", 429},     {"ratelimit", 429},       {"too_many_requests", 429},
                 {"authentication", 401}, {"invalid_api_key", 401}, {"permission", 403},
                 {"not_found", 404},      {"notfound", 404},        {"overloaded", 503},
                 {"unavailable", 503},    {"server_error", 500},    {"internal", 500},
                 {"invalid", 400},        {"badrequest", 400},      {"bad_request", 400}};
    static const char *const keys[] = {"code", "type", "status", "error_type"};
    for (size_t k = 0; cJSON_IsObject(v) && k < sizeof(keys) / sizeof(*keys); k++) {
        const cJSON *c = cJSON_GetObjectItemCaseSensitive(v, keys[k]);
        for (size_t i = 0; cJSON_IsString(c) && i < sizeof(names) / sizeof(*names); i++)
            if (strcasestr(c->valuestring, names[i].part) != NULL)
                return names[i].status;
    }
    return 0;
}

int mp__error_reply(const char *body, size_t n, int *status, char *words, size_t cap)
{
    if (n == 0 || n > MAX_ERROR_JSON || memmem(body, n, "error", 5) == NULL)
        return 0;
    cJSON *doc = cJSON_ParseWithLength(body, n);
    const cJSON *e = cJSON_GetObjectItemCaseSensitive(doc, "error");
    const cJSON *object = cJSON_GetObjectItemCaseSensitive(doc, "object");
    int is_error = cJSON_IsObject(e) || (cJSON_IsString(e) && e->valuestring[0] != '\0');
    if (!is_error && cJSON_IsString(object) && strcmp(object->valuestring, "error") == 0) {
        is_error = 1;
        e = doc;
    }
    if (is_error) {
        const char *text = text_of(e);
        if (text == NULL)
            text = "no words";
        *status = status_in(e);
        if (*status == 0)
            *status = status_in(doc);
        if (*status == 0)
            *status = status_of_name(e);
        if (*status == 0)
            *status = status_of_name(doc);
        plain(words, cap, text, strlen(text));
    }
    cJSON_Delete(doc);
    return is_error;
}

void mp__status_message(char *out, size_t cap, int status, const char *body, size_t body_len)
{
    char reason[161];
    mp__status_reason(reason, sizeof(reason), body, body_len);
    snprintf(out, cap, "HTTP %d%s%s%s", status, reason[0] ? ": " : "", reason, advice(status));
}

void mp__status_where(char *out, size_t cap, int status, const char *method, const char *url)
{
    size_t n = strlen(out);
    if (status == 404 || status == 405) /* a query may hold a signature */
        snprintf(out + n, cap - n, "; asked: %s %.*s", method, (int)strcspn(url, "?#"), url);
}

void mp__fault_message(char *out, size_t cap, const struct mp__xfer *x)
{
    if (x->kind == MP_KIND_HTTP) {
        snprintf(out, cap, "HTTP %d from the proxy: %s%s", x->status, x->detail,
                 x->status == 407 || x->status == 401
                     ? advice(407)
                     : " (the proxy cannot or may not reach the server)");
        return;
    }
    if (x->os_errno == EACCES && x->kind == MP_KIND_INVALID) {
        snprintf(out, cap, "this address may not be connected to");
        return;
    }
    if (x->target->unix_path != NULL && !x->connected && x->os_errno != 0) {
        snprintf(out, cap, "cannot connect to the unix socket %s: %s; is the server running?",
                 x->target->unix_path, strerror(x->os_errno));
        return;
    }
    const char *what = x->refused ? "connection refused: " : x->reset ? "connection reset: " : "";
    const char *tail = "";
    if (x->os_errno == EADDRNOTAVAIL)
        tail = "; no local port is free: raise the pool's limits so that connections are reused, "
               "and check NAT";
    else if (x->os_errno == EMFILE || x->os_errno == ENFILE)
        tail = "; no file descriptor is free: raise ulimit -n or lower pool.max_connections";
    else if (x->refused)
        tail = "; is the server running there? If it is, ports or its backlog run out: raise the "
               "pool's limits, check NAT";
    else if (x->kind == MP_KIND_TLS)
        tail = "; check tls.ca_file, the host name and the certificate";
    else if (x->reset)
        tail = "; the connection broke before the whole reply came";
    snprintf(out, cap, "%s%s%s", what, x->detail, tail);
}

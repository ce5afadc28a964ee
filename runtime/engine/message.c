/* message.c - errors in words: what happened, and what to do about it. */
#include "engine/message.h"

#include "codec/utf8.h"
#include "engine/transport/transport.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdio.h>
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

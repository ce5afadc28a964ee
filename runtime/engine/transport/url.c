/* url.c - base URLs, taken apart by curl's parser so that both see the same thing. */
#include "engine/transport/transport.h"

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* NULL: it has none, or *lost: no memory for it. */
static char *part_or(CURLU *u, CURLUPart what, unsigned flags, int *lost)
{
    char *p = NULL;
    char *copy = NULL;
    CURLUcode code = curl_url_get(u, what, &p, flags);
    if (code == CURLUE_OK && p != NULL)
        copy = strdup(p);
    *lost |= code == CURLUE_OUT_OF_MEMORY || (p != NULL && copy == NULL);
    curl_free(p);
    return copy;
}

static char *part(CURLU *u, CURLUPart what, unsigned flags)
{
    int lost = 0;
    return part_or(u, what, flags, &lost);
}

static int is_numeric(const char *host)
{
    if (host[0] == '[')
        return 1;
    return host[strspn(host, "0123456789.")] == '\0';
}

static int reject(struct mp__url *out, char *err, size_t cap, const char *why, const char *text)
{
    mp__url_free(out);
    snprintf(err, cap, "%s%s%.200s", why, *text != '\0' ? ": " : "", text);
    return MP_EINVAL;
}

static int take_parts(CURLU *u, const char *text, struct mp__url *out, char *err, size_t cap)
{
    int lost = 0;
    char *user = part_or(u, CURLUPART_USER, 0, &lost);
    char *query = part_or(u, CURLUPART_QUERY, 0, &lost);
    char *fragment = part_or(u, CURLUPART_FRAGMENT, 0, &lost);
    int extra = user != NULL || query != NULL || fragment != NULL;
    free(user);
    free(query);
    free(fragment);
    if (extra) /* the text may hold a password: it is not repeated */
        return reject(out, err, cap, "a base URL takes no user, query or fragment", "");
    char *port = part_or(u, CURLUPART_PORT, CURLU_DEFAULT_PORT, &lost);
    out->scheme = part_or(u, CURLUPART_SCHEME, 0, &lost);
    out->host = part_or(u, CURLUPART_HOST, 0, &lost);
    out->path = part_or(u, CURLUPART_PATH, 0, &lost);
    out->port = port != NULL ? (int)strtol(port, NULL, 10) : 0;
    free(port);
    if (lost) {
        mp__url_free(out);
        return MP_ENOMEM;
    }
    if (out->scheme == NULL || out->host == NULL || out->path == NULL)
        return reject(out, err, cap, "not a usable URL", text);
    if (strcmp(out->scheme, "http") != 0 && strcmp(out->scheme, "https") != 0)
        return reject(out, err, cap, "the scheme must be http or https", text);
    size_t n = strlen(out->path);
    while (n > 0 && out->path[n - 1] == '/')
        out->path[--n] = '\0';
    out->numeric = is_numeric(out->host);
    return 0;
}

static int join_base(struct mp__url *out)
{
    int standard = strcmp(out->scheme, "https") == 0 ? 443 : 80;
    size_t cap = strlen(out->scheme) + strlen(out->host) + strlen(out->path) + 16;
    out->base = malloc(cap);
    if (out->base == NULL)
        return MP_ENOMEM;
    if (out->port == standard)
        snprintf(out->base, cap, "%s://%s%s", out->scheme, out->host, out->path);
    else
        snprintf(out->base, cap, "%s://%s:%d%s", out->scheme, out->host, out->port, out->path);
    return 0;
}

/* unix:/path/to/socket, with an optional prefix of the HTTP path after a second colon. */
static int parse_unix(const char *text, struct mp__url *out, char *err, size_t cap)
{
    const char *path = text + strlen("unix:");
    if (strncmp(path, "//", 2) == 0)
        path += 2;
    const char *colon = strchr(path, ':');
    size_t n = colon != NULL ? (size_t)(colon - path) : strlen(path);
    if (n == 0 || path[0] != '/' || n > 107)
        return reject(out, err, cap, "a unix socket needs an absolute path of at most 107 bytes",
                      text);
    out->unix_path = strndup(path, n);
    out->scheme = strdup("http");
    out->host = strdup("localhost");
    out->path = strdup(colon != NULL && strcmp(colon + 1, "/") != 0 ? colon + 1 : "");
    out->port = 80;
    out->numeric = 1;
    if (out->unix_path == NULL || out->scheme == NULL || out->host == NULL || out->path == NULL) {
        mp__url_free(out);
        return MP_ENOMEM;
    }
    return join_base(out);
}

int mp__url_parse(const char *text, struct mp__url *out, char *err, size_t errcap)
{
    memset(out, 0, sizeof(*out));
    snprintf(err, errcap, "out of memory");
    if (text == NULL || *text == '\0')
        return reject(out, err, errcap, "a base URL is needed", "(empty)");
    for (const unsigned char *p = (const unsigned char *)text; *p != '\0'; p++)
        if (*p <= ' ' || *p == 127)
            return reject(out, err, errcap, "a URL cannot hold spaces or control characters", "");
    if (strncmp(text, "unix:", 5) == 0)
        return parse_unix(text, out, err, errcap);
    if (strstr(text, "://") == NULL)
        return reject(out, err, errcap, "the scheme must be http or https", text);
    CURLU *u = curl_url();
    if (u == NULL)
        return MP_ENOMEM;
    CURLUcode code = curl_url_set(u, CURLUPART_URL, text, CURLU_NON_SUPPORT_SCHEME);
    int rc = code == CURLUE_OUT_OF_MEMORY ? MP_ENOMEM
             : code != CURLUE_OK          ? reject(out, err, errcap, "not a URL", "")
                                          : take_parts(u, text, out, err, errcap);
    curl_url_cleanup(u);
    return rc != 0 ? rc : join_base(out);
}

int mp__proxy_check(const char *text, char *err, size_t errcap)
{
    static const char *const schemes[] = {"http",   "https",   "socks4", "socks4a",
                                          "socks5", "socks5h", NULL};
    int ok = 0;
    if (*text == '\0')
        return 0;
    CURLU *u = curl_url();
    if (u == NULL)
        return MP_ENOMEM;
    CURLUcode code =
        curl_url_set(u, CURLUPART_URL, text, CURLU_NON_SUPPORT_SCHEME | CURLU_GUESS_SCHEME);
    int lost = code == CURLUE_OUT_OF_MEMORY;
    if (code == CURLUE_OK) {
        char *scheme = part_or(u, CURLUPART_SCHEME, 0, &lost);
        /* without "://" curl's guess goes by the name, its proxy code takes http */
        ok = strstr(text, "://") == NULL;
        for (int i = 0; !ok && scheme != NULL && schemes[i] != NULL; i++)
            ok = strcmp(scheme, schemes[i]) == 0;
        free(scheme);
    }
    curl_url_cleanup(u);
    if (lost)
        return MP_ENOMEM;
    if (ok)
        return 0;
    snprintf(err, errcap,
             "not a proxy's URL (scheme://[user:password@]host:port, scheme http, https, socks4, "
             "socks4a, socks5 or socks5h)");
    return MP_EINVAL;
}

static int same_part(CURLU *a, CURLU *b, CURLUPart what)
{
    char *x = part(a, what, CURLU_DEFAULT_PORT);
    char *y = part(b, what, CURLU_DEFAULT_PORT);
    int same = x != NULL && y != NULL && strcasecmp(x, y) == 0;
    free(x);
    free(y);
    return same;
}

char *mp__url_follow(const char *from, const char *location)
{
    char *out = NULL;
    CURLU *old = curl_url();
    CURLU *u = curl_url();
    for (const unsigned char *p = (const unsigned char *)location; *p != '\0'; p++)
        if (*p <= ' ' || *p == 127)
            goto done;
    if (old == NULL || u == NULL || curl_url_set(old, CURLUPART_URL, from, 0) != CURLUE_OK ||
        curl_url_set(u, CURLUPART_URL, from, 0) != CURLUE_OK ||
        curl_url_set(u, CURLUPART_URL, location, CURLU_DISALLOW_USER) != CURLUE_OK)
        goto done;
    if (same_part(old, u, CURLUPART_SCHEME) && same_part(old, u, CURLUPART_HOST) &&
        same_part(old, u, CURLUPART_PORT)) {
        curl_url_set(u, CURLUPART_FRAGMENT, NULL, 0);
        out = part(u, CURLUPART_URL, 0);
    }
done:
    curl_url_cleanup(old);
    curl_url_cleanup(u);
    return out;
}

void mp__url_free(struct mp__url *url)
{
    free(url->base);
    free(url->scheme);
    free(url->host);
    free(url->path);
    free(url->unix_path);
    memset(url, 0, sizeof(*url));
}

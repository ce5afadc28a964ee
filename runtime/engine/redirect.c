/*
 * redirect.c - the few redirects that are followed.
 *
 * curl is never asked to: of our headers it would take only Authorization and Cookie away on the way
 * to another host, and send it keys in any other header and the texts. Here a request goes on only to
 * the scheme, host and port that it was sent to, with its method and body: after 307 and 308 any,
 * after 301, 302 and 303 one that has no body to lose.
 */
#include "codec/head.h"
#include "engine/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define MAX_HOPS 3

static int is_redirect(int status)
{
    return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

/* The last Location of the kept headers, "" when there is none. */
static void location(const struct mp__attempt *a, char *out, size_t cap)
{
    struct mp__head_line line;
    const char *at = a->head.p;
    out[0] = '\0';
    while (mp__head_next(&at, a->head.p + a->head.n, &line))
        if (mp__head_is(&line, "location") && line.value_n > 0 && line.value_n < cap)
            snprintf(out, cap, "%.*s", (int)line.value_n, line.value);
}

static int keeps_method(const struct mp__attempt *a)
{
    if (a->status == 307 || a->status == 308)
        return 1;
    return a->xfer.body == NULL &&
           (strcmp(a->xfer.method, "GET") == 0 || strcmp(a->xfer.method, "HEAD") == 0);
}

static int take_url(struct mp__attempt *a, const char *to)
{
    char *next = mp__url_follow(a->xfer.url, to);
    if (next == NULL)
        return MP_EINVAL;
    a->url.n = 0;
    int rc = mp__buf_add(&a->url, next, strlen(next) + 1);
    a->xfer.url = a->url.p;
    free(next);
    return rc;
}

int mp__attempt_again(struct mp__attempt *a)
{
    a->head.n = a->reply.n = 0;
    a->nheaders = a->heads = 0;
    a->sent_at = mp__now();
    mpp_hints_init(&a->hints);
    if (mp__transport_start(a->pool->transport, &a->xfer) != 0)
        return 0;
    a->status = 0;
    return 1;
}

int mp__redirect(struct mp__attempt *a)
{
    char to[2048];
    if (!is_redirect(a->xfer.status) || a->stop != MP_KIND_NONE || a->hops >= MAX_HOPS)
        return 0;
    location(a, to, sizeof(to));
    if (to[0] == '\0' || !keeps_method(a) || take_url(a, to) != 0)
        return 0;
    a->hops++;
    return mp__attempt_again(a);
}

void mp__redirect_message(struct mp__attempt *a)
{
    char to[2048];
    char kind[64];
    location(a, to, sizeof(to));
    to[strcspn(to, "?#")] = '\0'; /* a query may hold a signature */
    snprintf(kind, sizeof(kind), "HTTP %d: redirect", a->status);
    if (to[0] == '\0')
        snprintf(a->message, sizeof(a->message), "%s to nowhere", kind);
    else if (a->hops >= MAX_HOPS)
        snprintf(a->message, sizeof(a->message), "%s to %.160s is not followed after %d others",
                 kind, to, a->hops);
    else if (!keeps_method(a))
        snprintf(a->message, sizeof(a->message),
                 "%s of a %s to %.160s is not followed; set base_url or path to it", kind,
                 a->xfer.method, to);
    else
        snprintf(a->message, sizeof(a->message),
                 "%s to %.160s is not followed: another scheme, host or port; set base_url to it",
                 kind, to);
}

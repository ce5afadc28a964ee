/*
 * optional.c - a field of the request that not every server takes, such as encoding_format.
 *
 * The call says where in its suffix the field stands. A refusal that names the field or its value is
 * answered at once by the same request without it, within the same attempt, as a redirect is
 * followed; when that was right the client leaves the field out from then on.
 */
#include "engine/internal.h"

#include <string.h>

#define MAX_WRONG 3 /* refusals that named the field, and were no better without it */

static int refuses(int status)
{
    return status == 400 || status == 415 || status == 422 || status == 500 || status == 501;
}

/* The next text in quotes from p on; NULL: none. */
static const char *quoted(const char *p, const char *end, size_t *n)
{
    const char *from = memchr(p, '"', (size_t)(end - p));
    const char *to = from != NULL ? memchr(from + 1, '"', (size_t)(end - from - 1)) : NULL;
    if (to == NULL)
        return NULL;
    *n = (size_t)(to - from - 1);
    return from + 1;
}

/* Does the refusal speak of the field, or of what it asked for? */
static int names_it(const struct mp__attempt *a)
{
    const char *p = a->call->suffix.p + a->call->optional_at;
    const char *end = p + a->call->optional_n;
    size_t n = 0;
    for (p = quoted(p, end, &n); p != NULL; p = quoted(p + n + 1, end, &n))
        if (n >= 4 && a->reply.n > 0 && memmem(a->reply.p, a->reply.n, p, n) != NULL)
            return 1;
    return 0;
}

static int is_worth_it(const struct mp__attempt *a)
{
    const struct mp_client *c = a->client;
    if (c->plain)
        return 1; /* this one was under way when another found out */
    return c->plain_wrong < MAX_WRONG && names_it(a);
}

int mp__optional_drop(struct mp__attempt *a)
{
    if (!a->optional || !refuses(a->xfer.status) || a->stop != MP_KIND_NONE ||
        a->xfer.body != a->body.p || !is_worth_it(a))
        return 0;
    a->trial = !a->client->plain;
    return mp__attempt_joined(a, 0) == 0 && mp__attempt_again(a);
}

void mp__optional_judge(struct mp__attempt *a)
{
    struct mp_client *c = a->client;
    int good = a->kind == MP_KIND_NONE;
    if (!a->trial)
        return;
    if (!good)
        c->plain_wrong++;
    else if (!c->plain)
        mp__log(a->engine, MP_LOG_INFO, "%s refuses%.*s: it is left out from now on",
                c->endpoints[a->endpoint].url.base, (int)a->call->optional_n - 1,
                a->call->suffix.p + a->call->optional_at + 1);
    c->plain |= good;
}

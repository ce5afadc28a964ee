/*
 * headers.c - header sets, merged by replacement, and their curl lists.
 *
 * A name given later replaces the same name given earlier, whatever its case; a NULL value removes
 * it. Names and values that could break out of their line are refused before any request.
 */
#include "engine/internal.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* What says where a message ends or what the connection is for is the transport's: with a second
 * word on it, a proxy and the server could read two requests where one was sent. */
static int is_framing(const char *name)
{
    static const char *const names[] = {
        "content-length", "transfer-encoding", "connection", "keep-alive", "te",
        "trailer",        "proxy-connection",  "upgrade",
    };
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
        if (strcasecmp(name, names[i]) == 0)
            return 1;
    return 0;
}

int mp__header_check(const char *name, const char *value, const char **why)
{
    static const char extra[] = "!#$%&'*+-.^_`|~";
    *why = NULL;
    if (name == NULL || *name == '\0')
        *why = "a header name is empty";
    for (const char *p = name; *why == NULL && *p != '\0'; p++) {
        int alnum =
            (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9');
        if (!alnum && strchr(extra, *p) == NULL)
            *why = "a header name holds a character that is not allowed";
    }
    if (*why == NULL && value != NULL && is_framing(name))
        *why = "Content-Length, Transfer-Encoding, Connection, Keep-Alive, TE, Trailer and Upgrade "
               "are the transport's to set";
    for (const char *p = value; *why == NULL && p != NULL && *p != '\0'; p++)
        if (*p == '\r' || *p == '\n' || ((unsigned char)*p < ' ' && *p != '\t') || *p == 127)
            *why = "a header value holds a line break or control character";
    return *why == NULL ? 0 : MP_EINVAL;
}

static void pair_free(struct mp__pair *p)
{
    free(p->name);
    free(p->value);
}

static int pair_set(struct mp__pair *p, const char *name, const char *value)
{
    char *n = strdup(name);
    char *v = value != NULL ? strdup(value) : NULL;
    if (n == NULL || (value != NULL && v == NULL)) {
        free(n);
        free(v);
        return MP_ENOMEM;
    }
    p->name = n;
    p->value = v;
    return 0;
}

int mp__header_put(struct mp__header_set *set, const char *name, const char *value)
{
    for (size_t i = 0; i < set->n; i++) {
        if (strcasecmp(set->v[i].name, name) != 0)
            continue;
        struct mp__pair old = set->v[i];
        int rc = pair_set(&set->v[i], name, value);
        if (rc == 0)
            pair_free(&old);
        return rc;
    }
    if (set->n == set->cap) {
        size_t cap = set->cap ? set->cap * 2 : 8;
        struct mp__pair *v = realloc(set->v, cap * sizeof(*v));
        if (v == NULL)
            return MP_ENOMEM;
        set->v = v;
        set->cap = cap;
    }
    int rc = pair_set(&set->v[set->n], name, value);
    if (rc == 0)
        set->n++;
    return rc;
}

struct mp__header_set *mp__header_copy(const struct mp__header_set *set)
{
    struct mp__header_set *copy = calloc(1, sizeof(*copy));
    if (copy == NULL)
        return NULL;
    for (size_t i = 0; set != NULL && i < set->n; i++)
        if (mp__header_put(copy, set->v[i].name, set->v[i].value) != 0) {
            mp__header_free(copy);
            return NULL;
        }
    return copy;
}

void mp__header_free(struct mp__header_set *set)
{
    if (set == NULL)
        return;
    for (size_t i = 0; i < set->n; i++)
        pair_free(&set->v[i]);
    free(set->v);
    free(set);
}

/* curl's forms: "Name: value", "Name;" for an empty value, "Name:" to leave its own header out. */
static struct mp__hdr *node(const struct mp__pair *p)
{
    struct mp__hdr *h = malloc(sizeof(*h));
    size_t name_len = strlen(p->name);
    size_t value_len = p->value != NULL ? strlen(p->value) : 0;
    char *data = malloc(name_len + value_len + 3);
    if (h == NULL || data == NULL) {
        free(h);
        free(data);
        return NULL;
    }
    memcpy(data, p->name, name_len);
    if (p->value == NULL) {
        memcpy(data + name_len, ":", 2);
    } else if (value_len == 0) {
        memcpy(data + name_len, ";", 2);
    } else {
        memcpy(data + name_len, ": ", 2);
        memcpy(data + name_len + 2, p->value, value_len + 1);
    }
    h->data = data;
    h->next = NULL;
    return h;
}

struct mp__hdr *mp__header_chain(const struct mp__header_set *set, int with_body)
{
    static const char no_type[] = "Content-Type";
    struct mp__hdr *first = NULL;
    struct mp__hdr **tail = &first;
    for (size_t i = 0; i < set->n; i++) {
        struct mp__pair p = set->v[i];
        if (!with_body && strcasecmp(p.name, no_type) == 0)
            p.value = NULL; /* curl would name a type even for nothing */
        *tail = node(&p);
        if (*tail == NULL) {
            mp__hdr_free(first);
            return NULL;
        }
        tail = &(*tail)->next;
    }
    return first;
}

void mp__hdr_free(struct mp__hdr *chain)
{
    struct mp__hdr *next = NULL;
    for (; chain != NULL; chain = next) {
        next = chain->next;
        free(chain->data);
        free(chain);
    }
}

/*
 * names.c - host names, looked up in detached threads.
 *
 * One look-up a name at a time, whatever waits for it: curl's threaded resolver would start a
 * thread for each of a hundred first requests. A thread that hangs in getaddrinfo is never joined,
 * neither by a cancel nor at the end: it holds only the counted struct shared, and finds out there
 * that nobody listens any more. (uv_getaddrinfo cannot do this: libuv joins its pool at exit.)
 */
#include "base/mailbox.h"
#include "base/thread.h"
#include "engine/internal.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define FRESH_SECONDS 60
#define RETRY_SECONDS 1 /* a failure is believed for so long */
#define MAX_ADDRESSES 16

struct mp__names {
    struct mp_engine *engine;
    struct mp__mailbox *box;
    void (*closed)(void *arg);
    void *closed_arg;
};

/* A thread's job, and then its answer. */
struct lookup {
    struct mp__link letter;
    struct mp__mailbox *box;
    struct mp__name *name; /* lives as long as the box is open; not the thread's to look at */
    char host[256];
    char *addresses;
    const char *failure; /* static */
    int missing;         /* the name servers say that there is no such name */
};

static void lookup_free(struct lookup *l)
{
    mp__mailbox_unref(l->box);
    free(l->addresses);
    free(l);
}

static char *join_addresses(const struct addrinfo *list, const char **failure)
{
    size_t cap = MAX_ADDRESSES * (INET6_ADDRSTRLEN + 3);
    size_t n = 0;
    int count = 0;
    char *out = malloc(cap);
    *failure = out == NULL ? "out of memory" : NULL;
    if (out == NULL)
        return NULL;
    out[0] = '\0';
    for (; list != NULL && count < MAX_ADDRESSES; list = list->ai_next) {
        char text[INET6_ADDRSTRLEN + 1];
        if (getnameinfo(list->ai_addr, list->ai_addrlen, text, sizeof(text), NULL, 0,
                        NI_NUMERICHOST) != 0 ||
            strchr(text, '%') != NULL)
            continue;
        const char *form = list->ai_family == AF_INET6 ? "%s[%s]" : "%s%s";
        n += (size_t)snprintf(out + n, cap - n, form, count ? "," : "", text);
        count++;
    }
    if (count == 0) {
        *failure = "no usable address";
        free(out);
        return NULL;
    }
    return out;
}

static void *look_up(void *arg)
{
    struct lookup *l = arg;
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *list = NULL;
    int rc = getaddrinfo(l->host, NULL, &hints, &list);
    l->missing = rc == EAI_NONAME || rc == EAI_NODATA;
    if (rc != 0)
        l->failure = gai_strerror(rc);
    else
        l->addresses = join_addresses(list, &l->failure);
    if (list != NULL)
        freeaddrinfo(list);
    struct mp__mailbox *box = mp__mailbox_ref(l->box); /* the loop may free l before we are back */
    if (!mp__mailbox_post(box, &l->letter))
        lookup_free(l);
    mp__mailbox_unref(box);
    return NULL;
}

static int thread_start(struct mp__name *name)
{
    struct lookup *l = calloc(1, sizeof(*l));
    if (l == NULL)
        return MP_ENOMEM;
    l->box = mp__mailbox_ref(name->engine->names->box);
    l->name = name;
    snprintf(l->host, sizeof(l->host), "%s", name->host);
    if (mp__thread_start(NULL, look_up, l) == 0)
        return 0;
    lookup_free(l);
    return MP_ESYS;
}

static void take_answer(struct lookup *a, mp__time now)
{
    struct mp__name *name = a->name;
    name->looking = 0;
    if (a->addresses != NULL) {
        if (name->addresses == NULL || strcmp(name->addresses, a->addresses) != 0)
            name->version++;
        free(name->addresses);
        name->addresses = a->addresses;
        a->addresses = NULL;
        name->failure = NULL;
        name->fresh_until = now + FRESH_SECONDS * MP__SECOND;
    } else {
        /* Known addresses outlive a failing name server. */
        name->failure = name->addresses == NULL ? a->failure : NULL;
        name->missing = name->failure != NULL && a->missing;
        name->fresh_until = now + RETRY_SECONDS * MP__SECOND;
    }
    while (!mp__list_empty(&name->waiters)) {
        struct mp__waiter *w = MP__ENTRY(mp__list_shift(&name->waiters), struct mp__waiter, link);
        w->ready(w);
    }
}

static void on_answers(void *arg, struct mp__link *letters)
{
    struct mp__names *n = arg;
    while (!mp__list_empty(letters)) {
        struct lookup *l = MP__ENTRY(mp__list_shift(letters), struct lookup, letter);
        take_answer(l, mp__now());
        lookup_free(l);
    }
    mp__wake(n->engine);
}

struct mp__names *mp__names_new(struct mp_engine *e)
{
    struct mp__names *n = calloc(1, sizeof(*n));
    if (n == NULL)
        return NULL;
    n->engine = e;
    n->box = mp__mailbox_new(e->loop, on_answers, n);
    if (n->box == NULL) {
        free(n);
        return NULL;
    }
    return n;
}

static void box_closed(void *arg)
{
    struct mp__names *n = arg;
    void (*closed)(void *) = n->closed;
    void *closed_arg = n->closed_arg;
    free(n);
    closed(closed_arg);
}

void mp__names_close(struct mp__names *n, void (*closed)(void *arg), void *arg)
{
    struct mp__link left;
    n->closed = closed;
    n->closed_arg = arg;
    mp__mailbox_close(n->box, &left, box_closed, n);
    while (!mp__list_empty(&left))
        lookup_free(MP__ENTRY(mp__list_shift(&left), struct lookup, letter));
    struct mp__name *next = NULL;
    for (struct mp__name *name = n->engine->name_list; name != NULL; name = next) {
        next = name->next;
        free(name->host);
        free(name->addresses);
        free(name);
    }
    n->engine->name_list = NULL;
}

struct mp__name *mp__name_get(struct mp_engine *e, const char *host)
{
    for (struct mp__name *name = e->name_list; name != NULL; name = name->next)
        if (strcmp(name->host, host) == 0)
            return name;
    struct mp__name *name = calloc(1, sizeof(*name));
    if (name == NULL)
        return NULL;
    name->host = strdup(host);
    if (name->host == NULL) {
        free(name);
        return NULL;
    }
    name->engine = e;
    mp__list_init(&name->waiters);
    name->next = e->name_list;
    e->name_list = name;
    return name;
}

int mp__name_wait(struct mp__name *name, struct mp__waiter *w, mp__time now)
{
    if (now >= name->fresh_until && !name->looking) {
        if (thread_start(name) == 0) {
            name->looking = 1;
        } else if (name->addresses == NULL) {
            name->failure = "no thread for the look-up";
            name->missing = 0;
            return 1;
        }
    }
    /* Stale addresses serve while the new ones are looked up. */
    if (name->addresses != NULL || (name->failure != NULL && !name->looking))
        return 1;
    mp__list_push(&name->waiters, &w->link);
    return 0;
}

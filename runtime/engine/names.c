/*
 * names.c - host names, looked up in detached threads.
 *
 * One look-up a name at a time, whatever waits for it: curl's threaded resolver would start a
 * thread for each of a hundred first requests. A thread that hangs in getaddrinfo is never joined,
 * neither by a cancel nor at the end: it holds only the counted struct shared, and finds out there
 * that nobody listens any more. (uv_getaddrinfo cannot do this: libuv joins its pool at exit.)
 */
#include <arpa/inet.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "engine/internal.h"

#define FRESH_SECONDS 60
#define RETRY_SECONDS 1 /* a failure is believed for so long */
#define MAX_ADDRESSES 16

struct answer {
    struct answer *next;
    char *host;
    char *addresses;
    const char *failure; /* gai_strerror's, static */
    int missing;         /* the name servers say that there is no such name */
};

struct shared { /* outlives the engine while a thread still hangs */
    pthread_mutex_t lock;
    int refs;
    int listening;
    uv_async_t *bell;
    struct answer *answers;
};

struct mp__names {
    struct mp_engine *engine;
    uv_async_t bell;
    struct shared *shared;
    void (*closed)(void *arg);
    void *closed_arg;
};

struct job {
    struct shared *shared;
    char host[256];
};

static void shared_unref(struct shared *s)
{
    pthread_mutex_lock(&s->lock);
    int left = --s->refs;
    pthread_mutex_unlock(&s->lock);
    if (left > 0)
        return;
    struct answer *next = NULL;
    for (struct answer *a = s->answers; a != NULL; a = next) {
        next = a->next;
        free(a->host);
        free(a->addresses);
        free(a);
    }
    pthread_mutex_destroy(&s->lock);
    free(s);
}

static char *join_addresses(const struct addrinfo *list)
{
    size_t cap = MAX_ADDRESSES * (INET6_ADDRSTRLEN + 3);
    size_t n = 0;
    int count = 0;
    char *out = malloc(cap);
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
        free(out);
        return NULL;
    }
    return out;
}

static struct answer *look_up(const char *host)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *list = NULL;
    struct answer *a = calloc(1, sizeof(*a));
    if (a == NULL)
        return NULL;
    a->host = strdup(host);
    int rc = getaddrinfo(host, NULL, &hints, &list);
    a->missing = rc == EAI_NONAME || rc == EAI_NODATA;
    if (rc != 0)
        a->failure = gai_strerror(rc);
    else
        a->addresses = join_addresses(list);
    if (a->failure == NULL && a->addresses == NULL)
        a->failure = "no usable address";
    if (list != NULL)
        freeaddrinfo(list);
    return a;
}

static void *thread_main(void *jobp)
{
    struct job *job = jobp;
    struct shared *s = job->shared;
    struct answer *a = look_up(job->host);
    free(job);
    pthread_mutex_lock(&s->lock);
    if (a != NULL) {
        a->next = s->answers;
        s->answers = a;
    }
    if (s->listening)
        uv_async_send(s->bell);
    pthread_mutex_unlock(&s->lock);
    shared_unref(s);
    return NULL;
}

static int thread_start(struct mp__names *n, const char *host)
{
    pthread_attr_t attr;
    pthread_t id;
    sigset_t all, old;
    struct job *job = calloc(1, sizeof(*job));
    if (job == NULL)
        return MP_ENOMEM;
    job->shared = n->shared;
    snprintf(job->host, sizeof(job->host), "%s", host);
    pthread_mutex_lock(&n->shared->lock);
    n->shared->refs++;
    pthread_mutex_unlock(&n->shared->lock);
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attr, 256 * 1024);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old); /* signals are the host's */
    int rc = pthread_create(&id, &attr, thread_main, job);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
    if (rc != 0) {
        shared_unref(n->shared);
        free(job);
        return MP_ESYS;
    }
    return 0;
}

static void take_answer(struct mp__name *name, struct answer *a, mp__time now)
{
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
    while (name->waiters.next != &name->waiters) {
        struct mp__waiter *w = name->waiters.next;
        mp__waiter_unlink(w);
        w->ready(w);
    }
}

static void on_bell(uv_async_t *bell)
{
    struct mp__names *n = bell->data;
    pthread_mutex_lock(&n->shared->lock);
    struct answer *list = n->shared->answers;
    n->shared->answers = NULL;
    pthread_mutex_unlock(&n->shared->lock);
    struct answer *next = NULL;
    for (struct answer *a = list; a != NULL; a = next) {
        next = a->next;
        for (struct mp__name *name = n->engine->name_list; name != NULL; name = name->next)
            if (a->host != NULL && strcmp(name->host, a->host) == 0)
                take_answer(name, a, mp__now());
        free(a->host);
        free(a->addresses);
        free(a);
    }
    mp__wake(n->engine);
}

struct mp__names *mp__names_new(struct mp_engine *e)
{
    struct mp__names *n = calloc(1, sizeof(*n));
    struct shared *s = calloc(1, sizeof(*s));
    if (n == NULL || s == NULL || uv_async_init(e->loop, &n->bell, on_bell) != 0) {
        free(n);
        free(s);
        return NULL;
    }
    pthread_mutex_init(&s->lock, NULL);
    s->refs = 1;
    s->listening = 1;
    s->bell = &n->bell;
    n->shared = s;
    n->engine = e;
    n->bell.data = n;
    uv_unref((uv_handle_t *)&n->bell);
    return n;
}

static void bell_closed(uv_handle_t *handle)
{
    struct mp__names *n = handle->data;
    void (*closed)(void *) = n->closed;
    void *arg = n->closed_arg;
    shared_unref(n->shared);
    free(n);
    closed(arg);
}

void mp__names_close(struct mp__names *n, void (*closed)(void *arg), void *arg)
{
    n->closed = closed;
    n->closed_arg = arg;
    pthread_mutex_lock(&n->shared->lock);
    n->shared->listening = 0;
    pthread_mutex_unlock(&n->shared->lock);
    struct mp__name *next = NULL;
    for (struct mp__name *name = n->engine->name_list; name != NULL; name = next) {
        next = name->next;
        free(name->host);
        free(name->addresses);
        free(name);
    }
    n->engine->name_list = NULL;
    uv_close((uv_handle_t *)&n->bell, bell_closed);
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
    name->waiters.next = name->waiters.prev = &name->waiters;
    name->next = e->name_list;
    e->name_list = name;
    return name;
}

int mp__name_wait(struct mp__name *name, struct mp__waiter *w, mp__time now)
{
    if (now >= name->fresh_until && !name->looking) {
        if (thread_start(name->engine->names, name->host) == 0) {
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
    w->next = &name->waiters;
    w->prev = name->waiters.prev;
    w->prev->next = w;
    w->next->prev = w;
    return 0;
}

void mp__waiter_unlink(struct mp__waiter *w)
{
    if (w->next == NULL)
        return;
    w->prev->next = w->next;
    w->next->prev = w->prev;
    w->next = w->prev = NULL;
}

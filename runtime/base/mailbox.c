#include "base/mailbox.h"

#include <pthread.h>
#include <stdlib.h>

struct mp__mailbox {
    uv_async_t async;
    pthread_mutex_t lock; /* for all below it */
    struct mp__link letters;
    int refs;
    int listening;
    mp__mailbox_fn *open; /* from here on only the loop's thread looks */
    void *arg;
    void (*closed)(void *arg);
    void *closed_arg;
};

static void on_async(uv_async_t *async)
{
    struct mp__mailbox *box = async->data;
    struct mp__link letters;

    mp__list_init(&letters);
    pthread_mutex_lock(&box->lock);
    mp__list_move(&box->letters, &letters);
    pthread_mutex_unlock(&box->lock);
    box->open(box->arg, &letters);
}

struct mp__mailbox *mp__mailbox_new(uv_loop_t *loop, mp__mailbox_fn *open, void *arg)
{
    struct mp__mailbox *box = calloc(1, sizeof(*box));

    if (box == NULL || uv_async_init(loop, &box->async, on_async) != 0) {
        free(box);
        return NULL;
    }
    uv_unref((uv_handle_t *)&box->async);
    box->async.data = box;
    pthread_mutex_init(&box->lock, NULL);
    mp__list_init(&box->letters);
    box->refs = 1;
    box->listening = 1;
    box->open = open;
    box->arg = arg;
    return box;
}

struct mp__mailbox *mp__mailbox_ref(struct mp__mailbox *box)
{
    pthread_mutex_lock(&box->lock);
    box->refs++;
    pthread_mutex_unlock(&box->lock);
    return box;
}

void mp__mailbox_unref(struct mp__mailbox *box)
{
    int left;

    pthread_mutex_lock(&box->lock);
    left = --box->refs;
    pthread_mutex_unlock(&box->lock);
    if (left > 0)
        return;
    pthread_mutex_destroy(&box->lock);
    free(box);
}

int mp__mailbox_post(struct mp__mailbox *box, struct mp__link *letter)
{
    int taken;

    pthread_mutex_lock(&box->lock);
    taken = box->listening;
    if (taken) {
        mp__list_push(&box->letters, letter);
        /* Under the lock: the handle is not closed while it is rung. */
        uv_async_send(&box->async);
    }
    pthread_mutex_unlock(&box->lock);
    return taken;
}

void mp__mailbox_ring(struct mp__mailbox *box)
{
    uv_async_send(&box->async);
}

static void on_closed(uv_handle_t *handle)
{
    struct mp__mailbox *box = handle->data;
    void (*closed)(void *) = box->closed;
    void *arg = box->closed_arg;

    mp__mailbox_unref(box);
    closed(arg);
}

void mp__mailbox_close(struct mp__mailbox *box, struct mp__link *left, void (*closed)(void *arg),
                       void *arg)
{
    mp__list_init(left);
    pthread_mutex_lock(&box->lock);
    box->listening = 0;
    mp__list_move(&box->letters, left);
    pthread_mutex_unlock(&box->lock);
    box->closed = closed;
    box->closed_arg = arg;
    uv_close((uv_handle_t *)&box->async, on_closed);
}

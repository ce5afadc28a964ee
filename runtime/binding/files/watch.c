/*
 * watch.c - readiness of pipes and terminals, whoever else shares them.
 *
 * uv_poll_t makes its descriptor non-blocking, and so would uv_tty_t and uv_pipe_t. For standard
 * input that is wrong: the flag belongs to the open file, which the shell and other programs share.
 * So uv watches an epoll descriptor of our own that holds the real one, and the real one is read
 * only when it is ready.
 */
#include "binding/files/files.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

struct mp__fd_watch {
    uv_poll_t poll;
    int epoll_fd;
    struct mp__rt *rt;
    struct mp__fd_slot *slot;
};

int mp__fd_is_stream(int fd)
{
    struct epoll_event ev = {.events = EPOLLIN};
    struct stat st;
    int probe, refused;

    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
        return 0;
    probe = epoll_create1(EPOLL_CLOEXEC);
    if (probe < 0)
        return 0;
    refused = epoll_ctl(probe, EPOLL_CTL_ADD, fd, &ev) != 0;
    close(probe);
    return !refused;
}

int mp__fd_ready(int fd, int direction)
{
    struct pollfd p = {.fd = fd, .events = direction == MP__FD_READ ? POLLIN : POLLOUT};

    return poll(&p, 1, 0) > 0;
}

static void on_ready(uv_poll_t *poll, int status, int events)
{
    struct mp__fd_watch *w = poll->data;

    (void)status;
    (void)events;
    uv_poll_stop(poll);
    mp__wait_wake(w->rt, &w->slot->wait);
}

static void on_cancel(struct mp__wait *wait)
{
    struct mp__fd_slot *slot = MP__ENTRY(wait, struct mp__fd_slot, wait);

    if (slot->watch != NULL)
        uv_poll_stop(&slot->watch->poll);
}

static void on_closed(uv_handle_t *handle)
{
    struct mp__fd_watch *w = handle->data;

    mp__rt_release(w->rt);
    free(w);
}

static void close_watch(struct mp__fd_watch *w)
{
    w->slot->watch = NULL;
    mp__rt_hold(w->rt);
    uv_poll_stop(&w->poll);
    close(w->epoll_fd);
    uv_close((uv_handle_t *)&w->poll, on_closed);
}

static void on_runtime_close(struct mp__rt *rt, void *arg)
{
    (void)rt;
    close_watch(arg);
}

int mp__fd_waiting(const struct mp__fd_slot *slot)
{
    return slot->wait.state == 1 || slot->wait.state == 2;
}

void mp__fd_unwatch(struct mp__fd_slot *slot)
{
    struct mp__fd_watch *w = slot->watch;

    if (w == NULL)
        return;
    mp__rt_off_close(w->rt, on_runtime_close, w);
    if (slot->wait.state == 1)
        mp__wait_wake(w->rt, &slot->wait);
    close_watch(w);
}

static int watch_fd(int epoll_fd, int fd, int direction)
{
    struct epoll_event ev = {.events = direction == MP__FD_READ ? EPOLLIN : EPOLLOUT};

    return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &ev);
}

static struct mp__fd_watch *new_watch(struct mp__rt *rt, int fd, int direction)
{
    struct mp__fd_watch *w = calloc(1, sizeof(*w));

    if (w == NULL)
        return NULL;
    w->rt = rt;
    w->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (w->epoll_fd < 0 || watch_fd(w->epoll_fd, fd, direction) != 0 ||
        mp__rt_on_close(rt, on_runtime_close, w) != 0)
        goto fail;
    if (uv_poll_init(rt->loop, &w->poll, w->epoll_fd) != 0) {
        mp__rt_off_close(rt, on_runtime_close, w);
        goto fail;
    }
    w->poll.data = w;
    return w;
fail:
    if (w->epoll_fd >= 0)
        close(w->epoll_fd);
    free(w);
    return NULL;
}

int mp__fd_wait(lua_State *L, struct mp__fd_slot *slot, int fd, int direction, lua_KContext ctx,
                lua_KFunction k)
{
    mp__wait_check(L);
    if (slot->watch == NULL) {
        slot->watch = new_watch(mp__rt(L), fd, direction);
        if (slot->watch == NULL)
            return luaL_error(L, "cannot wait for a descriptor: %s", strerror(errno));
        slot->watch->slot = slot;
    }
    if (uv_poll_start(&slot->watch->poll, UV_READABLE, on_ready) != 0)
        return luaL_error(L, "cannot wait for a descriptor");
    slot->wait.cancel = on_cancel;
    slot->wait.state = 0;
    return mp__wait_begin(L, &slot->wait, ctx, k);
}

/*
 * bridge_bell.c - how a bridge's host is woken: a descriptor that stays readable while completions
 * wait, or one byte on a unix socket when the first of them comes.
 */
#include "engine/bridge.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

int mp__bells_init(struct mp__bells *b)
{
    b->listener = b->socket = -1;
    b->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return b->event >= 0 ? 0 : MP_ESYS;
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void stop_listening(struct mp__bells *b)
{
    if (b->listener >= 0)
        unlink(b->path);
    close_fd(&b->listener);
}

void mp__bells_fini(struct mp__bells *b)
{
    stop_listening(b);
    close_fd(&b->socket);
    close_fd(&b->event);
}

void mp__bells_beat(struct mp__bells *b)
{
    if (b->socket < 0)
        return;
    /* A full socket has a byte in it already, which is all that a bell has to say. */
    if (send(b->socket, "!", 1, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && errno != EAGAIN &&
        errno != EINTR)
        close_fd(&b->socket);
}

void mp__bells_ring(struct mp__bells *b)
{
    uint64_t one = 1;
    ssize_t n = write(b->event, &one, sizeof(one));
    (void)n; /* it cannot be full: it is emptied before it is rung again */
    mp__bells_beat(b);
}

void mp__bells_quiet(struct mp__bells *b)
{
    uint64_t count = 0;
    ssize_t n = read(b->event, &count, sizeof(count));
    (void)n;
}

/* ---- the socket ---- */

static int private_dir(const char *dir)
{
    struct stat st;
    if (mkdir(dir, 0700) != 0 && errno != EEXIST)
        return mp__fail(MP_ESYS, "%s: %s", dir, strerror(errno));
    if (lstat(dir, &st) != 0 || !S_ISDIR(st.st_mode))
        return mp__fail(MP_EINVAL, "%s is no directory", dir);
    if (st.st_uid != geteuid() || (st.st_mode & 077) != 0)
        return mp__fail(MP_EINVAL, "%s is not private to this user (mode 0700)", dir);
    return 0;
}

static int listen_at(struct mp__bells *b, const char *dir)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    uint64_t salt = 0;
    if (getrandom(&salt, sizeof(salt), 0) != sizeof(salt))
        return mp__fail(MP_ESYS, "getrandom: %s", strerror(errno));
    int n = snprintf(a.sun_path, sizeof(a.sun_path), "%s/%ld-%016llx.sock", dir, (long)getpid(),
                     (unsigned long long)salt);
    if (n < 0 || (size_t)n >= sizeof(a.sun_path))
        return mp__fail(MP_EINVAL, "dir: too long for the path of a socket");
    b->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (b->listener < 0)
        return mp__fail(MP_ESYS, "socket: %s", strerror(errno));
    if (bind(b->listener, (struct sockaddr *)&a, sizeof(a)) != 0 || listen(b->listener, 4) != 0) {
        int rc = mp__fail(MP_ESYS, "%s: %s", a.sun_path, strerror(errno));
        close_fd(&b->listener);
        return rc;
    }
    memcpy(b->path, a.sun_path, sizeof(b->path));
    return 0;
}

int mp_bridge_bell(mp_bridge *br, const char *dir, char *path, size_t size)
{
    if (br == NULL || dir == NULL || path == NULL)
        return mp__fail(MP_EINVAL, "bridge, dir or path: missing");
    if (br->pid != getpid())
        return mp__fail(MP_EFORK, "the bridge was started before a fork");
    int rc = private_dir(dir);
    if (rc != 0)
        return rc;
    pthread_mutex_lock(&br->lock);
    stop_listening(&br->bells);
    rc = listen_at(&br->bells, dir);
    if (rc == 0 && strlen(br->bells.path) >= size) {
        stop_listening(&br->bells);
        rc = mp__fail(MP_EINVAL, "size: too small for the path");
    }
    if (rc == 0)
        memcpy(path, br->bells.path, strlen(br->bells.path) + 1);
    pthread_mutex_unlock(&br->lock);
    return rc;
}

static int is_ourselves(int fd)
{
    struct ucred peer = {0};
    socklen_t n = sizeof(peer);
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) == 0 && peer.pid == getpid();
}

static int accept_peer(mp_bridge *br)
{
    struct mp__bells *b = &br->bells;
    if (b->listener < 0)
        return mp__fail(MP_EINVAL, "mp_bridge_bell was not called");
    int fd = accept4(b->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return errno == EAGAIN || errno == EINTR ? 0
                                                 : mp__fail(MP_ESYS, "accept: %s", strerror(errno));
    if (!is_ourselves(fd)) { /* somebody else of this user: the place stays free */
        close(fd);
        return 0;
    }
    stop_listening(b);
    close_fd(&b->socket);
    b->socket = fd;
    if (!mp__list_empty(&br->ready))
        mp__bells_beat(b);
    return 1;
}

int mp_bridge_bell_accept(mp_bridge *br)
{
    if (br == NULL)
        return mp__fail(MP_EINVAL, "bridge: missing");
    if (br->pid != getpid())
        return mp__fail(MP_EFORK, "the bridge was started before a fork");
    pthread_mutex_lock(&br->lock);
    int rc = accept_peer(br);
    pthread_mutex_unlock(&br->lock);
    return rc;
}

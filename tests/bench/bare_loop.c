/*
 * bare_loop.c - the least a C program needs to drive many POST requests with curl's multi interface
 * on a libuv loop: the yardstick for the engine's cost of one request.
 *
 *     bare_loop URL REQUESTS CONNECTIONS
 *
 * What makes it cheap, and what curl's own example lacks: easy handles are reused as they are, and a
 * socket's watcher stays in epoll until curl closes the socket. curl reports REMOVE whenever a
 * kept-alive connection falls idle; taking that literally costs two epoll_ctl a request.
 */
#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

static const char body[] = "{\"input\":\"The quick brown fox\",\"id\":1234567}";

struct watch {
    uv_poll_t poll;
    struct bench *bench;
    curl_socket_t fd;
    int armed;  /* uv events now asked for, 0: stopped */
    int wanted; /* what curl wants; 0: the connection is idle */
};

struct bench {
    uv_loop_t loop;
    uv_timer_t timer;
    uv_check_t check;
    uv_idle_t idle; /* runs while curl wants to be called at once */
    CURLM *multi;
    struct watch **by_fd;
    size_t fds;
    struct curl_slist *headers;
    int kick;
    int running;
    long total;
    long started;
    long done;
    long failed;
};

static void die(const char *what)
{
    fprintf(stderr, "bare_loop: %s\n", what);
    exit(1);
}

static size_t on_body(char *data, size_t size, size_t n, void *arg)
{
    (void)data;
    (void)arg;
    return size * n;
}

/* ---- sockets ---------------------------------------------------------------------------- */

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct watch *w = poll->data;
    int mask = 0;

    if (!w->wanted) { /* the server closed an idle connection: curl finds out when it next uses it */
        uv_poll_stop(poll);
        w->armed = 0;
        return;
    }
    if (status < 0)
        mask = CURL_CSELECT_ERR;
    if (events & UV_READABLE)
        mask |= CURL_CSELECT_IN;
    if (events & UV_WRITABLE)
        mask |= CURL_CSELECT_OUT;
    curl_multi_socket_action(w->bench->multi, w->fd, mask, &w->bench->running);
}

static curl_socket_t on_open(void *arg, curlsocktype purpose, struct curl_sockaddr *addr)
{
    struct bench *b = arg;
    struct watch *w;
    int fd;

    (void)purpose;
    fd = socket(addr->family, addr->socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, addr->protocol);
    if (fd < 0)
        return CURL_SOCKET_BAD;
    if ((size_t)fd >= b->fds)
        die("more sockets than expected");
    w = calloc(1, sizeof(*w));
    if (w == NULL || uv_poll_init(&b->loop, &w->poll, fd) != 0)
        die("cannot watch a socket");
    w->poll.data = w;
    w->bench = b;
    w->fd = fd;
    b->by_fd[fd] = w;
    return fd;
}

static void on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static int on_close(void *arg, curl_socket_t fd)
{
    struct bench *b = arg;

    uv_close((uv_handle_t *)&b->by_fd[fd]->poll, on_closed);
    b->by_fd[fd] = NULL;
    return close(fd);
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *socketp)
{
    struct bench *b = arg;
    struct watch *w = b->by_fd[fd];

    (void)easy;
    (void)socketp;
    if (w == NULL || what == CURL_POLL_REMOVE) {
        if (w != NULL)
            w->wanted = 0;
        return 0;
    }
    w->wanted = (what & CURL_POLL_IN ? UV_READABLE : 0) | (what & CURL_POLL_OUT ? UV_WRITABLE : 0);
    if (w->wanted != w->armed) {
        w->armed = w->wanted;
        uv_poll_start(&w->poll, w->wanted, on_poll);
    }
    return 0;
}

/* ---- time ------------------------------------------------------------------------------- */

static void on_idle(uv_idle_t *idle)
{
    (void)idle;
}

static void on_timer(uv_timer_t *timer)
{
    struct bench *b = timer->data;

    curl_multi_socket_action(b->multi, CURL_SOCKET_TIMEOUT, 0, &b->running);
}

/* A zero timer would run again within the same pass of libuv 1.44 and starve the sockets. */
static int on_timeout(CURLM *multi, long ms, void *arg)
{
    struct bench *b = arg;

    (void)multi;
    if (ms == 0) {
        b->kick = 1;
    } else if (ms < 0) {
        uv_timer_stop(&b->timer);
    } else {
        uv_update_time(&b->loop);
        uv_timer_start(&b->timer, on_timer, (uint64_t)ms, 0);
    }
    return 0;
}

/* ---- requests --------------------------------------------------------------------------- */

static void finish(struct bench *b, CURL *easy, CURLcode result)
{
    long status = 0;

    curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
    b->done++;
    if (result != CURLE_OK || status != 200)
        b->failed++;
    curl_multi_remove_handle(b->multi, easy);
    if (b->started < b->total) {
        b->started++;
        curl_multi_add_handle(b->multi, easy);
    } else {
        curl_easy_cleanup(easy);
    }
}

static void stop(struct bench *b)
{
    curl_multi_cleanup(b->multi); /* closes the sockets, so their watchers */
    uv_close((uv_handle_t *)&b->timer, NULL);
    uv_close((uv_handle_t *)&b->check, NULL);
    uv_close((uv_handle_t *)&b->idle, NULL);
}

static void reap(struct bench *b)
{
    CURLMsg *message;
    int more;

    for (;;) {
        message = curl_multi_info_read(b->multi, &more);
        if (message == NULL)
            return;
        finish(b, message->easy_handle, message->data.result);
    }
}

static void on_check(uv_check_t *check)
{
    struct bench *b = check->data;

    reap(b);
    if (b->kick) {
        b->kick = 0;
        curl_multi_socket_action(b->multi, CURL_SOCKET_TIMEOUT, 0, &b->running);
        reap(b);
    }
    if (b->done == b->total)
        stop(b);
    else if (b->kick)
        uv_idle_start(&b->idle, on_idle);
    else
        uv_idle_stop(&b->idle);
}

static void add(struct bench *b, const char *url)
{
    CURL *easy = curl_easy_init();

    if (easy == NULL)
        die("no easy handle");
    curl_easy_setopt(easy, CURLOPT_URL, url);
    curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE, (long)strlen(body));
    curl_easy_setopt(easy, CURLOPT_POSTFIELDS, body);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, b->headers);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_PROXY, "");
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, on_open);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, b);
    curl_easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION, on_close);
    curl_easy_setopt(easy, CURLOPT_CLOSESOCKETDATA, b);
    curl_multi_add_handle(b->multi, easy);
}

static void start(struct bench *b, const char *url, long requests, long connections)
{
    uv_loop_init(&b->loop);
    uv_timer_init(&b->loop, &b->timer);
    uv_check_init(&b->loop, &b->check);
    uv_idle_init(&b->loop, &b->idle);
    b->timer.data = b;
    b->check.data = b;
    b->fds = (size_t)connections + 64;
    b->by_fd = calloc(b->fds, sizeof(struct watch *));
    b->multi = curl_multi_init();
    if (b->by_fd == NULL || b->multi == NULL)
        die("out of memory");
    b->headers = curl_slist_append(NULL, "Content-Type: application/json");
    b->headers = curl_slist_append(b->headers, "Expect:");
    curl_multi_setopt(b->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
    curl_multi_setopt(b->multi, CURLMOPT_SOCKETDATA, b);
    curl_multi_setopt(b->multi, CURLMOPT_TIMERFUNCTION, on_timeout);
    curl_multi_setopt(b->multi, CURLMOPT_TIMERDATA, b);
    curl_multi_setopt(b->multi, CURLMOPT_MAXCONNECTS, connections + 8);
    uv_check_start(&b->check, on_check);
    uv_idle_start(&b->idle, on_idle);
    b->total = requests;
    for (b->started = 0; b->started < connections; b->started++)
        add(b, url);
}

static double cpu_seconds(void)
{
    struct rusage r;

    getrusage(RUSAGE_SELF, &r);
    return (double)(r.ru_utime.tv_sec + r.ru_stime.tv_sec) +
           1e-6 * (double)(r.ru_utime.tv_usec + r.ru_stime.tv_usec);
}

int main(int argc, char **argv)
{
    static struct bench b;
    long requests = argc == 4 ? strtol(argv[2], NULL, 10) : 0;
    long connections = argc == 4 ? strtol(argv[3], NULL, 10) : 0;
    double cpu, wall;

    if (connections < 1 || requests < connections) {
        fprintf(stderr, "usage: bare_loop URL REQUESTS CONNECTIONS\n");
        return 2;
    }
    curl_global_init(CURL_GLOBAL_DEFAULT);
    cpu = cpu_seconds();
    wall = (double)uv_hrtime() * 1e-9;
    start(&b, argv[1], requests, connections);
    uv_run(&b.loop, UV_RUN_DEFAULT);
    cpu = cpu_seconds() - cpu;
    wall = (double)uv_hrtime() * 1e-9 - wall;
    printf("requests=%ld failed=%ld seconds=%.3f cpu_us=%.2f\n", b.done, b.failed, wall,
           1e6 * cpu / (double)b.done);
    curl_slist_free_all(b.headers);
    free(b.by_fd);
    uv_loop_close(&b.loop);
    curl_global_cleanup();
    return b.failed || b.done != requests;
}

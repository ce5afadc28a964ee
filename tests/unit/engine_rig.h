/*
 * engine_rig.h - an engine and a server on one loop, and a count of what is open at the end.
 *
 * A test sets rig->serve to answer requests, submits calls, and runs the loop with rig_run until
 * `done` calls have completed. rig_close checks that everything went: handles, descriptors.
 */
#ifndef ENGINE_RIG_H
#define ENGINE_RIG_H

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <uv.h>

#include "http/http.h"
#include "moonpool_uv.h"

#define RIG_MAX 65536

struct rig {
    uv_loop_t loop;
    mp_engine *engine;
    mp_client *client;
    struct mp__http_server *server;
    char url[64];
    int fds;
    int closed, server_closed;
    void (*serve)(struct rig *rig, struct mp__http_request *req);
    unsigned requests;
    unsigned done;
    struct mp_result *last; /* kept */
    unsigned ends[RIG_MAX]; /* completions by the call's number */
};

static int rig_open_fds(void)
{
    int n = 0;
    DIR *d = opendir("/proc/self/fd");
    assert_non_null(d);
    while (readdir(d) != NULL)
        n++;
    closedir(d);
    return n;
}

static void rig_on_request(struct mp__http_request *req, void *arg)
{
    struct rig *rig = arg;
    rig->requests++;
    rig->serve(rig, req);
}

static inline void rig_reply(struct mp__http_request *req, int status, const char *body)
{
    static const struct mp__http_header json = {"content-type", "application/json"};
    mp__http_reply(req, status, &json, 1, body, strlen(body));
}

static inline void rig_serve_ok(struct rig *rig, struct mp__http_request *req)
{
    (void)rig;
    rig_reply(req, 200, "{\"ok\":true}");
}

/* The server first: its url goes into the client's configuration. */
static inline void rig_open(struct rig *rig)
{
    memset(rig, 0, sizeof(*rig));
    assert_int_equal(uv_loop_init(&rig->loop), 0); /* libuv keeps a pipe of its first loop */
    uv_loop_close(&rig->loop);
    rig->fds = rig_open_fds();
    rig->serve = rig_serve_ok;
    assert_int_equal(uv_loop_init(&rig->loop), 0);
    struct mp__http_config hc = {.on_request = rig_on_request, .arg = rig};
    assert_int_equal(mp__http_server_new(&rig->loop, &hc, &rig->server), 0);
    assert_int_equal(mp__http_server_listen(rig->server, "127.0.0.1:0"), 0);
    snprintf(rig->url, sizeof(rig->url), "%s", mp__http_server_url(rig->server));
    struct mp_config c = MP_INIT(struct mp_config);
    c.seed = 7;
    rig->engine = mp_engine_new_on_loop(&rig->loop, &c);
    assert_non_null(rig->engine);
}

static inline void rig_client(struct rig *rig, struct mp_client_config *c)
{
    struct mp_endpoint_config ep = {.base_url = rig->url};
    struct mp_client_config plain = MP_INIT(struct mp_client_config);
    if (c == NULL)
        c = &plain;
    if (c->endpoints == NULL) {
        c->endpoints = &ep;
        c->nendpoints = 1;
    }
    int rc = mp_client_new(rig->engine, c, &rig->client);
    if (rc != 0)
        print_error("%s\n", mp_last_error());
    assert_int_equal(rc, 0);
}

static void rig_closed(void *arg)
{
    *(int *)arg = 1;
}

static inline void rig_close(struct rig *rig)
{
    mp_engine_close(rig->engine, rig_closed, &rig->closed);
    for (int i = 0; i < 100000 && !rig->closed; i++)
        uv_run(&rig->loop, UV_RUN_ONCE);
    assert_true(rig->closed);
    mp__http_server_close(rig->server, rig_closed, &rig->server_closed);
    uv_run(&rig->loop, UV_RUN_DEFAULT);
    assert_true(rig->server_closed);
    mp_result_free(rig->last);
    assert_int_equal(uv_loop_close(&rig->loop), 0);
    assert_int_equal(rig_open_fds(), rig->fds);
}

static inline void rig_done(void *arg, const struct mp_result *r)
{
    struct rig *rig = arg;
    mp_result_free(rig->last);
    rig->last = mp_result_keep(r);
    rig->done++;
    rig->ends[(uint32_t)r->ticket % RIG_MAX]++;
}

static void rig_stop(uv_timer_t *t)
{
    *(int *)t->data = 1;
}

/* Runs the loop until `n` calls have completed; a hang ends the test after 20 s. */
static inline void rig_run(struct rig *rig, unsigned n)
{
    uv_timer_t guard;
    int late = 0;
    uv_timer_init(&rig->loop, &guard);
    guard.data = &late;
    uv_timer_start(&guard, rig_stop, 20000, 0);
    while (rig->done < n && !late)
        uv_run(&rig->loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)&guard, NULL);
    uv_run(&rig->loop, UV_RUN_NOWAIT);
    assert_false(late);
    assert_int_equal(rig->done, n);
}

static inline struct mp_request rig_request(struct rig *rig, const struct mp_str *rows, size_t n)
{
    struct mp_request q = MP_INIT(struct mp_request);
    q.client = rig->client;
    q.path = "/v1/test";
    q.rows = rows;
    q.nrows = n;
    q.done = rig_done;
    q.arg = rig;
    return q;
}

static inline uint64_t rig_submit(struct rig *rig, const struct mp_request *q)
{
    uint64_t ticket = 0;
    int rc = mp_submit(rig->engine, q, &ticket);
    if (rc != 0)
        print_error("%s\n", mp_last_error());
    assert_int_equal(rc, 0);
    return ticket;
}

#endif

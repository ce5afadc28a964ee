/*
 * server.h - the HTTP server seen from Lua, shared by the files of this folder.
 *
 * A loop callback only queues the request and wakes an idle worker task; workers take requests with
 * core.server_next and answer them. A request that a task holds cancels that task when its client
 * leaves. The C parts outlive their userdata as long as libuv or a request needs them.
 */
#ifndef MP_BINDING_SERVER_SERVER_H
#define MP_BINDING_SERVER_SERVER_H

#include "base/buf.h"
#include "http/http.h"
#include "task/task.h"

#define MP__SERVER  "moonpool.server"
#define MP__REQUEST "moonpool.request"

struct mp__srv {
    struct mp__rt *rt;
    struct mp__http_server *http; /* NULL once closing */
    struct mp__waiting_request {
        struct mp__http_request *http; /* NULL: left meanwhile */
        struct mp_result *failed;      /* what the short way had for it; NULL: it did not take it */
    } * queue;                         /* ring of those that no worker has yet */
    size_t head, queued, cap;
    struct mp__waitlist idle;  /* workers that wait */
    struct mp__waitlist quiet; /* who waits for the last reply of a stopped server */
    struct mp__link taken;     /* mp__req.link of requests that workers hold */
    unsigned streak;           /* requests taken since a worker last waited */
    struct front *front;       /* the short way, kept by the userdata; NULL: none */
    int closing, closed, collected;
    struct mp__buf out;         /* the body of a reply of vectors */
    struct mp__http_stats last; /* of a server that is no more */
};

struct mp__req {
    struct mp__http_request *http; /* NULL: over */
    struct mp__srv *srv;
    struct mp__link link;      /* in srv->taken */
    struct mp__task *task;     /* NULL: taken outside any task */
    struct mp__waitlist drain; /* who waits for the client to read */
    struct mp_result *failed;  /* what the short way had; the request's to free */
    int gone, started;
};

enum { REQ_UV_SERVER = 1, REQ_UV_FIELDS, REQ_UVS = REQ_UV_FIELDS };

/* server.c */
struct mp__srv *mp__check_server(lua_State *L, int idx);
/* Hands the request to the next worker; takes over `failed`, which may be NULL. */
void mp__srv_queue(struct mp__srv *s, struct mp__http_request *http, struct mp_result *failed);

/* front.c */
int mp__front_take(struct mp__srv *s, struct mp__http_request *http); /* 0: not its kind */
struct front *mp__test_front(lua_State *L, int idx);
void mp__open_front(lua_State *L);

/* request.c */
/* One that mp__request_again is to fill. */
struct mp__req *mp__push_request(lua_State *L, int server);
struct mp__req *mp__check_request(lua_State *L, int idx); /* raises when it is over */
void mp__request_over(struct mp__req *r);                 /* before the call that ends http */
void mp__request_again(struct mp__req *r, struct mp__http_request *http); /* it did not end it */
void mp__open_request(lua_State *L);

/* reply.c */
void mp__open_reply(lua_State *L);

/* hangup.c */
void mp__open_hangup(lua_State *L);

/* vectors.c */
/* Writes the body that the reply table at t describes, from the matrix or result at `vectors` (the
 * top), into out; returns its content type. Raises for what makes no sense. */
const char *mp__reply_vectors(lua_State *L, int t, int vectors, struct mp__buf *out);
void mp__reply_vectors_over(struct mp__buf *out); /* the body was sent */

/* mock.c */
void mp__open_mock(lua_State *L);

#endif

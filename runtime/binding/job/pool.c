/*
 * pool.c - a task waits for work in libuv's threads: a sync may take as long as the disk likes.
 */
#include "binding/job/job.h"

#include <errno.h>

static void in_thread(uv_work_t *req)
{
    struct mp__pool_op *op = req->data;

    errno = 0;
    if (op->work(op) != 0)
        op->error = errno ? errno : EIO;
}

static void after(uv_work_t *req, int status)
{
    struct mp__pool_op *op = req->data;
    struct mp__rt *rt = op->rt;

    if (status != 0)
        op->error = ECANCELED;
    op->busy = 0;
    mp__wait_wake(rt, &op->wait);
    mp__rt_release(rt);
}

/* What is under way cannot be taken back: the wait holds. */
static void on_cancel(struct mp__wait *w)
{
    (void)w;
}

int mp__pool_run(lua_State *L, struct mp__pool_op *op, int (*work)(struct mp__pool_op *op), int now,
                 lua_KFunction k)
{
    if (op->busy)
        return luaL_error(L, "another task is at work on this file");
    op->error = 0;
    op->work = work;
    op->req.data = op;
    op->rt = mp__rt(L);
    if (now) {
        in_thread(&op->req);
        return k(L, LUA_OK, 0);
    }
    mp__wait_check(L);
    op->wait = (struct mp__wait){.cancel = on_cancel, .hold = 1};
    if (uv_queue_work(op->rt->loop, &op->req, in_thread, after) != 0)
        return luaL_error(L, "no thread for work on a file");
    op->busy = 1;
    mp__rt_hold(op->rt);
    return mp__wait_begin(L, &op->wait, 0, k);
}

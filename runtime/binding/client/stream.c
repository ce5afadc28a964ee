/*
 * stream.c - replies read as they come. The engine's chunk callback runs inside the transport, so
 * it only appends to the op's buffer; above the high-water mark the engine stops reading the socket
 * until the script has taken what is there.
 */
#include "binding/client/client.h"
#include "binding/value/headers.h"

#include <string.h>

#define HIGH_WATER (256 * 1024)

static void wake(struct mp__op *op)
{
    if (!op->waiting)
        return;
    op->waiting = 0;
    mp__wait_wake(op->rt, &op->wait);
}

static void on_head(void *arg, int status, const char *head, size_t n)
{
    struct mp__op *op = arg;
    op->status = status;
    op->head.n = 0;
    mp__buf_add(&op->head, head, n); /* without memory the reply has no headers */
    wake(op);
}

static int on_chunk(void *arg, const char *p, size_t n)
{
    struct mp__op *op = arg;
    if (mp__buf_add(&op->in, p, n) != 0)
        mp_cancel(op->engine, op->ticket);
    wake(op);
    op->held = op->in.n >= HIGH_WATER;
    return op->held;
}

void mp__stream_into(struct mp_request *q)
{
    q->head = on_head;
    q->chunk = on_chunk;
}

static struct mp__op *check_op(lua_State *L)
{
    struct mp__op_box *box = luaL_checkudata(L, 1, MP__OP_TYPE);
    luaL_argcheck(L, box->op != NULL, 1, "the stream is closed");
    return box->op;
}

static int head_ready(lua_State *L, int status, lua_KContext ctx)
{
    struct mp__op *op = (struct mp__op *)ctx;
    (void)status;
    if (op->status == 0) /* it ended without a good reply: core.call_wait tells why */
        return 0;
    lua_pushinteger(L, op->status);
    mp__headers_push(L, op->head.p != NULL ? op->head.p : "", op->head.n);
    return 2;
}

/* core.stream_head(op) -> status, headers; or nothing: the call ended without a 2xx reply */
static int l_stream_head(lua_State *L)
{
    struct mp__op *op = check_op(L);
    if (op->status != 0 || op->done)
        return head_ready(L, LUA_OK, (lua_KContext)op);
    mp__wait_check(L);
    op->waiting = 1;
    return mp__wait_begin(L, &op->wait, (lua_KContext)op, head_ready);
}

static int bytes_ready(lua_State *L, int status, lua_KContext ctx)
{
    struct mp__op *op = (struct mp__op *)ctx;
    (void)status;
    if (op->in.n == 0)
        return 0;
    lua_pushlstring(L, op->in.p, op->in.n);
    op->in.n = 0;
    if (op->held && !op->done && op->rt->engine != NULL) {
        op->held = 0;
        mp_resume(op->engine, op->ticket); /* more may be appended before this returns */
    }
    return 1;
}

/* core.stream_read(op) -> the bytes that have come; nothing: the reply is over */
static int l_stream_read(lua_State *L)
{
    struct mp__op *op = check_op(L);
    if (op->in.n > 0 || op->done)
        return bytes_ready(L, LUA_OK, (lua_KContext)op);
    mp__wait_check(L);
    op->waiting = 1;
    return mp__wait_begin(L, &op->wait, (lua_KContext)op, bytes_ready);
}

void mp__open_stream(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"stream_head", l_stream_head}, {"stream_read", l_stream_read}, {NULL, NULL}};
    luaL_setfuncs(L, functions, 0);
}

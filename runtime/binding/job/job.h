/*
 * job.h - what the files of this folder share: work in the pool's threads, lines and records of items.
 *
 * An item is a Lua table: text (what is asked), key (what stands for it where it is no text), id, parent
 * and piece; or json, its whole line.
 */
#ifndef MP_BINDING_JOB_JOB_H
#define MP_BINDING_JOB_JOB_H

#include "binding/job/part.h"
#include "task/task.h"

#include <lauxlib.h>
#include <lua.h>
#include <uv.h>

/* ---- work off the loop ---- */

struct mp__pool_op {
    uv_work_t req;
    struct mp__wait wait;
    struct mp__rt *rt;
    int (*work)(struct mp__pool_op *op); /* in another thread: no Lua; 0 or -1 with errno */
    int busy, error;
};

/* op lives in a userdata among the arguments. The task waits; a cancelled one until the work is done.
 * now: here and at once, for the end of a task that may wait no more. */
int mp__pool_run(lua_State *L, struct mp__pool_op *op, int (*work)(struct mp__pool_op *op), int now,
                 lua_KFunction k);

/* ---- items ---- */

struct mp__span {
    const char *p; /* NULL: not there */
    size_t n;
};

struct mp__item {
    struct mp__span text, key, json;
    int labels; /* has an id, a parent or a piece */
    int problem;
};

void mp__item_read(lua_State *L, int idx, struct mp__item *item); /* spans are the table's */
void mp__item_row(lua_State *L, int idx, const struct mp__item *item, struct mp__row *row);

/* The line of an item with its newline; error: index of an error table, 0 for none. 0 or MP__ENOMEM. */
int mp__item_line(lua_State *L, int idx, const struct mp__item *item, lua_Integer row, int error,
                  int with_text, struct mp__buf *out);

int mp__l_text_fault(lua_State *L);

/* ---- the ledger ---- */

struct mp__ledger;
struct mp__sound *mp__ledger_sound(lua_State *L, int idx); /* raises for another type */

/* Records of rows first..first+n of a job_rows; 0 or -1 with errno. */
int mp__job_rows_read(lua_State *L, int idx, uint64_t first, uint32_t n, struct mp__row *out);

void mp__open_job_rows(lua_State *L);
void mp__open_job_part(lua_State *L);
void mp__open_job_ledger(lua_State *L);
void mp__open_job_files(lua_State *L);
void mp__open_job_quantize(lua_State *L);
void mp__open_job_sqlite(lua_State *L);

#endif

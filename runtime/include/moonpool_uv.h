/*
 * moonpool_uv.h - for hosts that own a uv_loop_t.
 *
 * The engine's handles are unreferenced while nothing is open, so the host's uv_run can return; no
 * call blocks or runs the loop. mp_engine_close must have called back before the loop is closed.
 */
#ifndef MOONPOOL_UV_H
#define MOONPOOL_UV_H

#include "moonpool.h"

#include <uv.h>

#ifdef __cplusplus
extern "C" {
#endif

MP_API mp_engine *mp_engine_new_on_loop(uv_loop_t *loop, const struct mp_config *config);

/* `turn` runs at the end of each engine turn that did something, outside every callback of curl;
 * it may submit and cancel. For runtimes that resume their own tasks there. */
MP_API void mp_engine_on_turn(mp_engine *engine, void (*turn)(void *arg), void *arg);

#ifdef __cplusplus
}
#endif

#endif

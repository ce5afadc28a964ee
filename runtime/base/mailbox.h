/*
 * mailbox.h - letters from any thread to the thread of a loop.
 *
 * A letter is a link inside an object of the sender's: posting allocates nothing and never waits for
 * the loop. The box is counted, because a thread may outlive the loop; once it is closed it takes
 * nothing more, and whoever posts keeps the letter. It does not keep the loop alive.
 */
#ifndef MP_BASE_MAILBOX_H
#define MP_BASE_MAILBOX_H

#include "base/list.h"

#include <uv.h>

struct mp__mailbox;

/* On the loop: the letters since, oldest first, none if it was only rung. Take them all off. */
typedef void mp__mailbox_fn(void *arg, struct mp__link *letters);

/* NULL: out of memory or descriptors. The caller's reference goes with mp__mailbox_close. */
struct mp__mailbox *mp__mailbox_new(uv_loop_t *loop, mp__mailbox_fn *open, void *arg);
struct mp__mailbox *mp__mailbox_ref(struct mp__mailbox *box);
void mp__mailbox_unref(struct mp__mailbox *box); /* from any thread */

/* From any thread. 0: the box is closed, and the letter is still the caller's. */
int mp__mailbox_post(struct mp__mailbox *box, struct mp__link *letter);

/* From any thread and any signal handler, before the close: open is called, with letters or without. */
void mp__mailbox_ring(struct mp__mailbox *box);

/* On the loop, once: letters that nobody has opened move to `left` (a list's head). `closed` is called
 * when the loop has let go of the box. */
void mp__mailbox_close(struct mp__mailbox *box, struct mp__link *left, void (*closed)(void *arg),
                       void *arg);

#endif

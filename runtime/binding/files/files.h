/*
 * files.h - what the files_*.c share: waiting for a descriptor without blocking the loop.
 */
#ifndef MP_BINDING_FILES_FILES_H
#define MP_BINDING_FILES_FILES_H

#include "task/task.h"

enum { MP__FD_READ = 1, MP__FD_WRITE };

struct mp__fd_watch;

/* Zeroed, in a userdata that is an argument of the waiting function and whose finaliser calls
 * mp__fd_unwatch. Keeps its watch from one wait to the next. */
struct mp__fd_slot {
    struct mp__fd_watch *watch;
    struct mp__wait wait;
};

/* Regular files (and whatever epoll refuses) are always ready and need no watch. */
int mp__fd_is_stream(int fd);
int mp__fd_ready(int fd, int direction);

/* Begins a wait until fd is ready. Raises when the system refuses. */
int mp__fd_wait(lua_State *L, struct mp__fd_slot *slot, int fd, int direction, lua_KContext ctx,
                lua_KFunction k);
int mp__fd_waiting(const struct mp__fd_slot *slot); /* a task is in such a wait */
void mp__fd_unwatch(struct mp__fd_slot *slot);      /* before fd is closed; wakes who waits */

int mp__push_errno(lua_State *L, const char *path); /* nil, "path: reason", errno */

void mp__open_writer(lua_State *L);

#endif

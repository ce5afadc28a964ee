/* fds.h - the process's file descriptors: the first three, and how many are left. */
#ifndef MP_BASE_FDS_H
#define MP_BASE_FDS_H

#include <stddef.h>

/*
 * Opens /dev/null where descriptor 0, 1 or 2 is closed (a daemon started by `cmd <&- >&-`): else the
 * next socket becomes "standard output", and libuv aborts when it closes one of them. Each is opened
 * the wrong way round, so that reading and writing still fail.
 */
void mp__fds_keep_standard(void);

/* How many more this process may open, by its soft limit; SIZE_MAX when that cannot be told. */
size_t mp__fds_left(void);

#endif

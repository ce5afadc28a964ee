/* thread.h - threads that take no signal meant for the program, on a small stack. */
#ifndef MP_BASE_THREAD_H
#define MP_BASE_THREAD_H

#include <pthread.h>
#include <stddef.h>

/* 0 or an errno. id NULL: detached. */
int mp__thread_start(pthread_t *id, void *(*run)(void *arg), void *arg);
/* The same with a stack of `stack` bytes. */
int mp__thread_start_with(pthread_t *id, size_t stack, void *(*run)(void *arg), void *arg);

#endif

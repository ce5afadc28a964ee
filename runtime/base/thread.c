#include "base/thread.h"

#include <signal.h>
#include <stddef.h>

#define STACK (256 * 1024)

int mp__thread_start_with(pthread_t *id, size_t stack, void *(*run)(void *arg), void *arg)
{
    pthread_attr_t attr;
    pthread_t unwanted;
    sigset_t all, old;
    int err = pthread_attr_init(&attr);

    if (err != 0)
        return err;
    pthread_attr_setstacksize(&attr, stack);
    if (id == NULL)
        pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    err = pthread_create(id != NULL ? id : &unwanted, &attr, run, arg);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
    return err;
}

int mp__thread_start(pthread_t *id, void *(*run)(void *arg), void *arg)
{
    return mp__thread_start_with(id, STACK, run, arg);
}

/*
 * shared.c - what processes know together about a server: its rates and its pauses.
 *
 * A file of SLOTS places of 64 bytes, mapped by everybody who names it (in /dev/shm it never meets a
 * disk). A place is found by the hash of what it is for and is claimed by one compare-and-swap; one
 * that nobody has used for IDLE may be claimed anew. Zeros are a good beginning, so nothing has to be
 * set up, and nothing is locked that a killed process could leave locked.
 */
#include "base/hash.h"
#include "engine/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define SLOTS 1024
#define PROBE 32
#define IDLE  (600 * MP__SECOND)

struct slot {
    _Atomic uint64_t key;
    struct mpp_shared shared;
    char pad[64 - sizeof(uint64_t) - sizeof(struct mpp_shared)];
};

static void *map(const char *path)
{
    struct stat st;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    void *p = MAP_FAILED;
    if (fd < 0)
        return NULL;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_uid != geteuid() ||
        (st.st_mode & 077) != 0)
        errno = EPERM;
    else if ((size_t)st.st_size >= SLOTS * sizeof(struct slot) ||
             ftruncate(fd, SLOTS * sizeof(struct slot)) == 0)
        p = mmap(NULL, SLOTS * sizeof(struct slot), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    int saved = errno;
    close(fd);
    errno = saved;
    return p != MAP_FAILED ? p : NULL;
}

/* Mapped once an engine: a bucket of rates may outlive the client that named the file. */
struct mp__shared_map *mp__shared_open(struct mp_engine *e, const char *path)
{
    struct mp__shared_map *m = e->shared_maps;
    while (m != NULL && strcmp(m->path, path) != 0)
        m = m->next;
    if (m != NULL)
        return m;
    m = calloc(1, sizeof(*m) + strlen(path) + 1);
    if (m == NULL)
        return NULL;
    memcpy(m->path, path, strlen(path) + 1);
    m->slots = map(path);
    if (m->slots == NULL) {
        mp__fail(MP_ESYS, "shared: %s: %s", path,
                 errno == EPERM ? "not a private file of this user" : strerror(errno));
        free(m);
        return NULL;
    }
    m->next = e->shared_maps;
    e->shared_maps = m;
    return m;
}

void mp__shared_fini(struct mp_engine *e)
{
    while (e->shared_maps != NULL) {
        struct mp__shared_map *m = e->shared_maps;
        e->shared_maps = m->next;
        munmap(m->slots, SLOTS * sizeof(struct slot));
        free(m);
    }
}

static int is_idle(struct slot *s, mp__time now)
{
    mp__time used = atomic_load_explicit(&s->shared.used, memory_order_relaxed);
    return used < now - IDLE || used > now + MP__GCRA_SANE; /* or of another boot */
}

struct mpp_shared *mp__shared_slot(struct mp__shared_map *m, const char *what, size_t n,
                                   mp__time now)
{
    struct slot *slots = m->slots;
    uint64_t key = mp__hash64(what, n, 0) | 1;
    for (uint32_t i = 0; i < PROBE; i++) {
        struct slot *s = &slots[(key + i) % SLOTS];
        uint64_t there = atomic_load(&s->key);
        if (there == key)
            return &s->shared;
    }
    for (uint32_t i = 0; i < PROBE; i++) {
        struct slot *s = &slots[(key + i) % SLOTS];
        uint64_t there = atomic_load(&s->key);
        if (there == key)
            return &s->shared;
        if (there != 0 && !is_idle(s, now))
            continue;
        if (atomic_compare_exchange_strong(&s->key, &there, key)) {
            mp__gcra_raise(&s->shared.used, now);
            return &s->shared;
        }
        if (there == key)
            return &s->shared;
    }
    return NULL;
}

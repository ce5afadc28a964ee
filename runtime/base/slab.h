/*
 * slab.h - fixed-size objects from chunks with a free list. Addresses are stable, an object keeps
 * its index for life, and chunks go back to the system only with the whole slab.
 */
#ifndef MP_BASE_SLAB_H
#define MP_BASE_SLAB_H

#include <stddef.h>
#include <stdint.h>

struct mp__slab {
    size_t size;     /* of an object, a multiple of 16 */
    uint32_t per;    /* objects a chunk */
    uint32_t n, cap; /* chunks */
    char **chunks;
    void *free; /* linked through the object's first word */
    uint32_t used;
};

void mp__slab_init(struct mp__slab *slab, size_t size, uint32_t per);
void mp__slab_fini(struct mp__slab *slab);
void *mp__slab_get(struct mp__slab *slab);   /* content undefined but for its first use: zero */
int mp__slab_reserve(struct mp__slab *slab); /* 0: the next get succeeds; -1: no memory */
void mp__slab_put(struct mp__slab *slab, void *object);
void *mp__slab_at(const struct mp__slab *slab, uint32_t index); /* NULL: never made */
/* An object's index for life; a search over the chunks. */
uint32_t mp__slab_index(const struct mp__slab *slab, const void *object);

#endif

/*
 * slab.h - fixed-size objects from chunks with a free list. Addresses are stable, an object keeps
 * its index for life, and chunks go back to the system only with the whole slab.
 */
#ifndef MP_POLICY_SLAB_H
#define MP_POLICY_SLAB_H

#include <stddef.h>
#include <stdint.h>

struct mpp_slab {
    size_t size;     /* of an object, a multiple of 16 */
    uint32_t per;    /* objects a chunk */
    uint32_t n, cap; /* chunks */
    char **chunks;
    void *free; /* linked through the object's first word */
    uint32_t used;
};

void mpp_slab_init(struct mpp_slab *slab, size_t size, uint32_t per);
void mpp_slab_fini(struct mpp_slab *slab);
void *mpp_slab_get(struct mpp_slab *slab); /* content undefined but for its first use: zero */
void mpp_slab_put(struct mpp_slab *slab, void *object);
void *mpp_slab_at(const struct mpp_slab *slab, uint32_t index); /* NULL: never made */
/* An object's index for life; a search over the chunks. */
uint32_t mpp_slab_index(const struct mpp_slab *slab, const void *object);

#endif

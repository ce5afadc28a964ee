#include "base/slab.h"

#include <stdlib.h>
#include <string.h>

void mp__slab_init(struct mp__slab *slab, size_t size, uint32_t per)
{
    memset(slab, 0, sizeof(*slab));
    slab->size = (size + 15) & ~(size_t)15;
    slab->per = per;
}

void mp__slab_fini(struct mp__slab *slab)
{
    uint32_t i;

    for (i = 0; i < slab->n; i++)
        free(slab->chunks[i]);
    free(slab->chunks);
    memset(slab, 0, sizeof(*slab));
}

static int grow(struct mp__slab *slab)
{
    char *chunk;
    uint32_t i;

    if (slab->n == slab->cap) {
        uint32_t cap = slab->cap ? slab->cap * 2 : 8;
        char **chunks = realloc(slab->chunks, cap * sizeof(*chunks));

        if (chunks == NULL)
            return -1;
        slab->chunks = chunks;
        slab->cap = cap;
    }
    chunk = calloc(slab->per, slab->size);
    if (chunk == NULL)
        return -1;
    slab->chunks[slab->n++] = chunk;
    for (i = slab->per; i-- > 0;) {
        void *object = chunk + i * slab->size;

        memcpy(object, &slab->free, sizeof(void *));
        slab->free = object;
    }
    return 0;
}

int mp__slab_reserve(struct mp__slab *slab)
{
    return slab->free != NULL ? 0 : grow(slab);
}

void *mp__slab_get(struct mp__slab *slab)
{
    void *object;

    if (mp__slab_reserve(slab) < 0)
        return NULL;
    object = slab->free;
    memcpy(&slab->free, object, sizeof(void *));
    memset(object, 0, sizeof(void *));
    slab->used++;
    return object;
}

void mp__slab_put(struct mp__slab *slab, void *object)
{
    memcpy(object, &slab->free, sizeof(void *));
    slab->free = object;
    slab->used--;
}

void *mp__slab_at(const struct mp__slab *slab, uint32_t index)
{
    if (index / slab->per >= slab->n)
        return NULL;
    return slab->chunks[index / slab->per] + (size_t)(index % slab->per) * slab->size;
}

uint32_t mp__slab_index(const struct mp__slab *slab, const void *object)
{
    uintptr_t at = (uintptr_t)object;
    uint32_t i;

    for (i = 0; i < slab->n; i++) {
        uintptr_t base = (uintptr_t)slab->chunks[i];

        if (at >= base && at < base + slab->per * slab->size)
            return i * slab->per + (uint32_t)((at - base) / slab->size);
    }
    return UINT32_MAX;
}

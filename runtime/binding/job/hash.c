/*
 * hash.c - xxHash, which stands in this file only.
 */
#include "binding/job/part.h"

#define XXH_INLINE_ALL
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

uint64_t mp__job_hash64(const void *p, size_t n)
{
    return XXH3_64bits(p, n);
}

void mp__job_key(const void *p, size_t n, unsigned char key[16])
{
    XXH128_canonical_t c;

    XXH128_canonicalFromHash(&c, XXH3_128bits(p, n));
    memcpy(key, c.digest, 16);
    key[15] = 0;
}

struct mp__job_sum {
    XXH3_state_t *state;
    int wide;
};

struct mp__job_sum *mp__job_sum_new(int wide)
{
    struct mp__job_sum *s = malloc(sizeof(*s));

    if (s == NULL)
        return NULL;
    s->wide = wide;
    s->state = XXH3_createState();
    if (s->state == NULL) {
        free(s);
        return NULL;
    }
    if (wide)
        XXH3_128bits_reset(s->state);
    else
        XXH3_64bits_reset(s->state);
    return s;
}

void mp__job_sum_add(struct mp__job_sum *s, const void *p, size_t n)
{
    if (s->wide)
        XXH3_128bits_update(s->state, p, n);
    else
        XXH3_64bits_update(s->state, p, n);
}

void mp__job_sum_hex(struct mp__job_sum *s, char out[33])
{
    XXH128_hash_t h;

    if (s->wide) {
        h = XXH3_128bits_digest(s->state);
        snprintf(out, 33, "%016llx%016llx", (unsigned long long)h.high64,
                 (unsigned long long)h.low64);
    } else {
        snprintf(out, 17, "%016llx", (unsigned long long)XXH3_64bits_digest(s->state));
    }
}

void mp__job_sum_free(struct mp__job_sum *s)
{
    if (s == NULL)
        return;
    XXH3_freeState(s->state);
    free(s);
}

#define XXH_INLINE_ALL /* nothing to link: a program that uses the library needs no libxxhash */
#include "base/hash.h"

#include <stdio.h>
#include <stdlib.h>
#include <xxhash.h>

uint64_t mp__hash64(const void *p, size_t n, uint64_t seed)
{
    return XXH3_64bits_withSeed(n > 0 ? p : "", n, seed);
}

struct mp__hash128 mp__hash128(const void *p, size_t n, uint64_t seed)
{
    XXH128_hash_t h = XXH3_128bits_withSeed(n > 0 ? p : "", n, seed);
    return (struct mp__hash128){h.low64, h.high64};
}

void mp__hash64_hex(uint64_t h, char out[17])
{
    snprintf(out, 17, "%016llx", (unsigned long long)h);
}

void mp__hash128_hex(struct mp__hash128 h, char out[33])
{
    mp__hash64_hex(h.high, out);
    mp__hash64_hex(h.low, out + 16);
}

struct mp__hash_sum {
    XXH3_state_t *state;
    int wide;
};

struct mp__hash_sum *mp__hash_sum_new(int wide)
{
    struct mp__hash_sum *s = malloc(sizeof(*s));

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

void mp__hash_sum_add(struct mp__hash_sum *s, const void *p, size_t n)
{
    if (s->wide)
        XXH3_128bits_update(s->state, p, n);
    else
        XXH3_64bits_update(s->state, p, n);
}

void mp__hash_sum_hex(struct mp__hash_sum *s, char out[33])
{
    XXH128_hash_t h;

    if (s->wide) {
        h = XXH3_128bits_digest(s->state);
        mp__hash128_hex((struct mp__hash128){h.low64, h.high64}, out);
    } else {
        mp__hash64_hex(XXH3_64bits_digest(s->state), out);
    }
}

void mp__hash_sum_free(struct mp__hash_sum *s)
{
    if (s == NULL)
        return;
    XXH3_freeState(s->state);
    free(s);
}

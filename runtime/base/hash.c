#define XXH_INLINE_ALL /* nothing to link: a program that uses the library needs no libxxhash */
#include "base/hash.h"

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

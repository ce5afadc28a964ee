/* hash.h - bytes to 64 or 128 bits, seeded; xxHash, taken from the system's header whole. */
#ifndef MP_BASE_HASH_H
#define MP_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

struct mp__hash128 {
    uint64_t low, high;
};

uint64_t mp__hash64(const void *p, size_t n, uint64_t seed);
struct mp__hash128 mp__hash128(const void *p, size_t n, uint64_t seed);

#endif

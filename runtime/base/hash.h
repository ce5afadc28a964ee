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

/* As hexadecimal digits, the highest first. */
void mp__hash64_hex(uint64_t h, char out[17]);
void mp__hash128_hex(struct mp__hash128 h, char out[33]);

/* The same of bytes that come piece by piece, with seed 0. */
struct mp__hash_sum;
struct mp__hash_sum *mp__hash_sum_new(int wide); /* NULL: no memory */
void mp__hash_sum_add(struct mp__hash_sum *s, const void *p, size_t n);
void mp__hash_sum_hex(struct mp__hash_sum *s, char out[33]); /* wide: 32 digits, else 16 */
void mp__hash_sum_free(struct mp__hash_sum *s);

#endif

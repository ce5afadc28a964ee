/* prng.h - splitmix64 (Steele, Lea, Flood 2014): the only randomness, seeded from outside. */
#ifndef MP_BASE_PRNG_H
#define MP_BASE_PRNG_H

#include <stdint.h>

/* 2^64 over the golden ratio: the stream's step, and a spreader of small numbers. */
#define MP__GOLDEN UINT64_C(0x9e3779b97f4a7c15)

static inline uint64_t mp__mix64(uint64_t x)
{
    x ^= x >> 30;
    x *= UINT64_C(0xbf58476d1ce4e5b9);
    x ^= x >> 27;
    x *= UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

static inline uint64_t mp__random(uint64_t *state)
{
    *state += MP__GOLDEN;
    return mp__mix64(*state);
}

/* The n-th number of the stream with seed 0: a ticket's fixed point. */
static inline uint64_t mp__ticket_hash(uint64_t n)
{
    return mp__mix64((n + 1) * MP__GOLDEN);
}

static inline double mp__unit(uint64_t x)
{
    return (double)(x >> 11) * 0x1p-53; /* [0, 1) */
}

static inline double mp__random01(uint64_t *state)
{
    return mp__unit(mp__random(state));
}

#endif

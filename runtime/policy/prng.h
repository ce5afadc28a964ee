/* prng.h - splitmix64 (Steele, Lea, Flood 2014): the only randomness, seeded from outside. */
#ifndef MP_POLICY_PRNG_H
#define MP_POLICY_PRNG_H

#include <stdint.h>

static inline uint64_t mpp_mix64(uint64_t x)
{
    x ^= x >> 30;
    x *= UINT64_C(0xbf58476d1ce4e5b9);
    x ^= x >> 27;
    x *= UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

static inline uint64_t mpp_random(uint64_t *state)
{
    *state += UINT64_C(0x9e3779b97f4a7c15);
    return mpp_mix64(*state);
}

/* The n-th number of the stream with seed 0: a ticket's fixed point. */
static inline uint64_t mpp_ticket_hash(uint64_t n)
{
    return mpp_mix64((n + 1) * UINT64_C(0x9e3779b97f4a7c15));
}

static inline double mpp_unit(uint64_t x)
{
    return (double)(x >> 11) * 0x1p-53; /* [0, 1) */
}

static inline double mpp_random01(uint64_t *state)
{
    return mpp_unit(mpp_random(state));
}

#endif

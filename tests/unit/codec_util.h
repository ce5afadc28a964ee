/*
 * codec_util.h - what the codec's tests share: cmocka, a seeded generator, the SIMD levels.
 */
#ifndef CODEC_UTIL_H
#define CODEC_UTIL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static uint64_t seed_state = 1;

/* The seed is printed, so that a failure can be run again with SEED=. */
static inline void seed_start(void)
{
    const char *s = getenv("SEED");

    seed_state = s != NULL ? strtoull(s, NULL, 0) : 20240611;
    if (seed_state == 0)
        seed_state = 1;
    print_message("seed %llu\n", (unsigned long long)seed_state);
}

static inline uint64_t rnd(void)
{
    seed_state ^= seed_state << 13;
    seed_state ^= seed_state >> 7;
    seed_state ^= seed_state << 17;
    return seed_state * 0x2545F4914F6CDD1Du;
}

static inline size_t below(size_t n)
{
    return (size_t)(rnd() >> 11) % n;
}

#endif

/*
 * cpu.c - which SIMD code may run here.
 */
#include "codec/cpu.h"

#include <stdatomic.h>

static atomic_int level; /* 0: not asked yet */

static int probe(void)
{
#if MP__X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
        __builtin_cpu_supports("f16c"))
        return MP__SIMD_AVX2;
    if (__builtin_cpu_supports("ssse3") && __builtin_cpu_supports("sse4.1"))
        return MP__SIMD_SSE;
#endif
    return MP__SIMD_NONE;
}

enum mp__simd mp__simd(void)
{
    int now = atomic_load_explicit(&level, memory_order_relaxed);

    if (now == 0) {
        now = probe();
        atomic_store_explicit(&level, now, memory_order_relaxed);
    }
    return (enum mp__simd)now;
}

void mp__simd_limit(int limit)
{
    int now = probe();

    if (limit != 0 && limit < now)
        now = limit;
    atomic_store_explicit(&level, now, memory_order_relaxed);
}

/*
 * cpu.c - which SIMD code may run here.
 */
#include "codec/cpu.h"

#include <stdatomic.h>

#if MP__X86
#include <cpuid.h>
#endif

static atomic_int level; /* 0: not asked yet */

#if MP__X86
/* clang 14 does not know the name "f16c" in __builtin_cpu_supports. */
static int has_f16c(void)
{
    unsigned a, b, c = 0, d;

    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C) != 0;
}
#endif

static int probe(void)
{
#if MP__X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c())
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

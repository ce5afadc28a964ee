/*
 * cpu.h - which SIMD code may run here, decided once at run time.
 */
#ifndef MP_CODEC_CPU_H
#define MP_CODEC_CPU_H

#if defined(__x86_64__) && defined(__GNUC__)
#define MP__X86         1
#define MP__TARGET(isa) __attribute__((target(isa)))
#else
#define MP__X86 0
#define MP__TARGET(isa)
#endif

enum mp__simd {
    MP__SIMD_NONE = 1,
    MP__SIMD_SSE, /* up to SSSE3 and SSE4.1 */
    MP__SIMD_AVX2 /* AVX2, FMA and F16C */
};

enum mp__simd mp__simd(void);

/* For tests: no level above this one is used; 0 asks the processor again. */
void mp__simd_limit(int level);

#endif

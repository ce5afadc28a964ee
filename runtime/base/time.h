/*
 * time.h - the clock of the policies: int64_t nanoseconds on a monotonic clock. From seconds it
 * saturates: a policy may say 1e300.
 */
#ifndef MP_BASE_TIME_H
#define MP_BASE_TIME_H

#include <stdint.h>

typedef int64_t mp__time;
#define MP__NEVER  INT64_MAX
#define MP__SECOND INT64_C(1000000000)

static inline mp__time mp__ns(double seconds)
{
    if (!(seconds > 0))
        return 0;
    return seconds > 4e9 ? INT64_C(4000000000) * MP__SECOND : (mp__time)(seconds * 1e9 + 0.5);
}

static inline mp__time mp__after(mp__time now, double seconds)
{
    mp__time d = mp__ns(seconds);

    return now > MP__NEVER - d ? MP__NEVER : now + d;
}

static inline double mp__seconds(mp__time d)
{
    return (double)d * 1e-9;
}

#endif

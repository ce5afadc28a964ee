/* clock.h - what time it is. Not for policy, which is told. */
#ifndef MP_BASE_CLOCK_H
#define MP_BASE_CLOCK_H

#include "base/time.h"

#include <uv.h>

static inline mp__time mp__now(void)
{
    return (mp__time)uv_hrtime();
}

#endif

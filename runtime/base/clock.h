/* clock.h - what time it is. Not for policy, which is told. */
#ifndef MP_BASE_CLOCK_H
#define MP_BASE_CLOCK_H

#include <uv.h>

#include "base/time.h"

static inline mp__time mp__now(void)
{
    return (mp__time)uv_hrtime();
}

#endif

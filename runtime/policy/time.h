/* time.h - seconds to nanoseconds, saturating: a policy may say 1e300. */
#ifndef MP_POLICY_TIME_H
#define MP_POLICY_TIME_H

#include "policy/core.h"

static inline mpp_time mpp_ns(double seconds)
{
    if (!(seconds > 0))
        return 0;
    return seconds > 4e9 ? INT64_C(4000000000) * MPP_SECOND : (mpp_time)(seconds * 1e9 + 0.5);
}

static inline mpp_time mpp_after(mpp_time now, double seconds)
{
    mpp_time d = mpp_ns(seconds);

    return now > MPP_NEVER - d ? MPP_NEVER : now + d;
}

static inline double mpp_seconds(mpp_time d)
{
    return (double)d * 1e-9;
}

#endif

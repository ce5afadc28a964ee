/* restrict.c - mp_restrict_addresses: the checks in front of transport/guard.c. */
#include "engine/internal.h"

int mp_restrict_addresses(const char *const *allowed, size_t n)
{
    if (n > MP__GUARD_MAX)
        return mp__fail(MP_EINVAL, "more than %d addresses", MP__GUARD_MAX);
    int bad = mp__guard_set(allowed, n);
    if (bad < 0)
        return MP_OK;
    return mp__fail(MP_EINVAL, "'%s' is no address like 10.0.0.0/8 or 127.0.0.1:8089",
                    allowed[bad] != NULL ? allowed[bad] : "NULL");
}

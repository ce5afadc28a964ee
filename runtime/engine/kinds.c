/* kinds.c - names of error kinds and codes, and the text of the last refused argument. */
#include "engine/internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static _Thread_local char last_error[256];

static const char *const kind_names[MP_KIND_COUNT] = {
    "none",         "invalid",       "connect",      "connect_timeout",
    "read_timeout", "write_timeout", "pool_timeout", "total_timeout",
    "http",         "decode",        "tls",          "too_large",
    "rate_limited", "budget",        "breaker_open", "cancelled",
    "closed",
};

const char *mp_kind_name(enum mp_kind kind)
{
    return (unsigned)kind < MP_KIND_COUNT ? kind_names[kind] : "unknown";
}

const char *mp_strerror(int err)
{
    switch (err) {
    case MP_OK:
        return "no error";
    case MP_EINVAL:
        return "an argument makes no sense";
    case MP_EAGAIN:
        return "a bound is reached, try again after a completion";
    case MP_ENOMEM:
        return "out of memory";
    case MP_ECLOSED:
        return "closed";
    case MP_EFORK:
        return "the engine was made before a fork";
    case MP_ESYS:
        return "the system refused";
    default:
        return "unknown error";
    }
}

const char *mp_version(void)
{
    return MP_VERSION_STRING;
}

size_t mp_struct_size(const char *name)
{
#define SIZE(type)                                                                                 \
    {                                                                                              \
#type, sizeof(struct type)                                                                 \
    }
    static const struct {
        const char *name;
        size_t size;
    } sizes[] = {
        SIZE(mp_str),           SIZE(mp_row_error),       SIZE(mp_header),
        SIZE(mp_vectors),       SIZE(mp_exchange),        SIZE(mp_result),
        SIZE(mp_timeouts),      SIZE(mp_request),         SIZE(mp_completion),
        SIZE(mp_gather),        SIZE(mp_reply),           SIZE(mp_stats),
        SIZE(mp_client_stats),  SIZE(mp_policy),          SIZE(mp_config),
        SIZE(mp_client_config), SIZE(mp_endpoint_config), SIZE(mp_pool_config),
        SIZE(mp_batcher_stats), SIZE(mp_bridge_stats),    SIZE(mp_batcher_config),
        SIZE(mp_bridge_config),
    };
    for (size_t i = 0; name != NULL && i < sizeof(sizes) / sizeof(*sizes); i++)
        if (strcmp(name, sizes[i].name) == 0)
            return sizes[i].size;
    return 0;
}

const char *mp_last_error(void)
{
    return last_error;
}

int mp__fail(int err, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(last_error, sizeof(last_error), fmt, ap);
    va_end(ap);
    for (char *p = last_error; *p != '\0'; p++) /* what was refused may be in it */
        if ((unsigned char)*p < ' ' || *p == 127)
            *p = '?';
    return err;
}

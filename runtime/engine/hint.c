/*
 * hint.c - what a fault says to whoever runs the program: in the log once a minute at most, and in
 * the client's statistics for as long.
 *
 * Running out of ports, descriptors or connections looks like a faulty server from where the
 * request stands; only here both the error and the cause are known.
 */
#include "engine/internal.h"

#include <errno.h>

#define LAST_SECONDS 60

static const char ports[] =
    "this machine has no local port left for new connections: keep them longer (pool.max_idle, "
    "pool.idle_timeout), lower max_concurrent_requests, use http_version 2, or widen "
    "net.ipv4.ip_local_port_range; behind NAT its table can run out in the same way";
static const char files[] =
    "this process has no file descriptor left: raise `ulimit -n`, or lower pool.max_connections";
static const char pool[] =
    "requests wait too long for a connection: raise pool.max_connections or lower "
    "max_concurrent_requests";

static void hint(struct mp_client *c, const char *text, mp__time now)
{
    struct mp_engine *e = c->engine;
    c->hint = text;
    c->hint_until = mp__limit_at(now, LAST_SECONDS);
    if (now < e->next_hint)
        return;
    e->next_hint = c->hint_until;
    mp__log(e, MP_LOG_WARN, "%s: %s", c->endpoints[0].url.base, text);
}

void mp__hint_fault(struct mp_client *c, const struct mp__xfer *x)
{
    if (x->os_errno == EADDRNOTAVAIL) {
        c->n.no_ports++;
        hint(c, ports, mp__now());
    } else if (x->os_errno == EMFILE || x->os_errno == ENFILE) {
        hint(c, files, mp__now());
    }
}

void mp__hint_pool(struct mp_client *c)
{
    c->n.pool_timeouts++;
    hint(c, pool, mp__now());
}

const char *mp__hint_now(const struct mp_client *c)
{
    return mp__now() < c->hint_until ? c->hint : NULL;
}

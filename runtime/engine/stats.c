/* stats.c - counters of the engine and of a client, gathered when asked for. */
#include "engine/internal.h"

#include <string.h>

static void fill(void *out, const void *full, size_t size)
{
    size_t want = *(size_t *)out;
    memcpy(out, full, want < size ? want : size);
    *(size_t *)out = want;
}

void mp_stats(mp_engine *e, struct mp_stats *out)
{
    if (e == NULL || out == NULL)
        return;
    struct mp_stats s = e->n;
    struct mpp_core_stats core;
    mpp_core_stats(e->core, &core);
    s.retries = core.retries;
    s.hedges = core.hedges;
    s.running = core.running;
    s.pool_waiting = core.pool_waiting;
    s.calls_open = e->calls_open;
    s.queued_bytes = e->queued_bytes;
    for (struct mp_client *c = e->clients; c != NULL; c = c->next)
        for (uint32_t i = 0; i < c->nendpoints; i++) {
            struct mpp_endpoint_stats ep;
            mpp_endpoint_stats(c->core, i, mp__now(), &ep);
            s.hedges_won += ep.hedges_won;
        }
    for (struct mp_pool *p = e->pools; p != NULL; p = p->next) {
        struct mp__transport_counters t;
        mp__transport_counters(p->transport, &t);
        s.connections_opened += t.opened;
        s.connections_reused += t.reused;
        s.connections_closed += t.closed;
        s.connections_open += t.open;
        s.connects_refused += t.refused;
        s.resets += t.resets;
        s.tcp_retransmits += t.retransmits;
    }
    fill(out, &s, sizeof(s));
}

void mp_client_stats(mp_client *c, struct mp_client_stats *out)
{
    struct mp_client_stats s;
    struct mp__transport_counters t;
    if (c == NULL || out == NULL)
        return;
    memset(&s, 0, sizeof(s));
    mp__transport_counters(c->pool->transport, &t);
    for (uint32_t i = 0; i < c->nendpoints; i++) {
        struct mpp_endpoint_stats ep;
        mpp_endpoint_stats(c->core, i, mp__now(), &ep);
        s.attempts += ep.attempts;
        s.retries += ep.retries;
        s.hedges += ep.hedges;
        s.hedges_won += ep.hedges_won;
        s.throttled += ep.throttled;
        s.in_flight += ep.in_flight;
        s.concurrency_limit += ep.limit;
        s.retry_budget += ep.budget_level;
        if (ep.paused_for > s.paused_for)
            s.paused_for = ep.paused_for;
    }
    s.p50 = mpp_client_latency(c->core, 0.50, mp__now());
    s.p90 = mpp_client_latency(c->core, 0.90, mp__now());
    s.p95 = mpp_client_latency(c->core, 0.95, mp__now());
    s.p99 = mpp_client_latency(c->core, 0.99, mp__now());
    s.calls = c->n.calls;
    s.requests = c->n.requests;
    s.rows = c->n.rows;
    s.rows_failed = c->n.rows_failed;
    s.ok = c->n.ok;
    s.failed = c->n.failed;
    s.bytes_sent = c->n.sent;
    s.bytes_received = c->n.received;
    s.connections_opened = c->n.opened;
    s.connections_reused = c->n.reused;
    s.connects_refused = c->n.refused;
    s.resets = c->n.resets;
    s.connections_open = t.open;
    s.connections_idle = t.idle;
    s.ports_in_use = t.ports;
    s.tcp_retransmits = t.retransmits;
    s.no_local_port = c->n.no_ports;
    s.pool_timeouts = c->n.pool_timeouts;
    s.pool_waiting = mpp_client_waiting(c->core);
    s.pool_wait_p50 = mp__hists_percentile(&c->pool_waits, 0, 0.5, mp__now());
    s.pool_wait_p99 = mp__hists_percentile(&c->pool_waits, 0, 0.99, mp__now());
    s.hint = mp__hint_now(c);
    fill(out, &s, sizeof(s));
}

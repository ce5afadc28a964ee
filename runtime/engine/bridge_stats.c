/* bridge_stats.c - a bridge's counters, as a struct and as lines of text. */
#include "engine/bridge.h"

#include <stdio.h>
#include <string.h>

enum kind { U32, U64, SECONDS };

struct counter {
    const char *name;
    size_t offset;
    enum kind kind;
};

#define OWN(member, kind)                                                                          \
    {                                                                                              \
        "bridge." #member, offsetof(struct mp_bridge_stats, member), kind                          \
    }
#define OF(part, member, kind)                                                                     \
    {                                                                                              \
#part "." #member, offsetof(struct mp_bridge_stats, part.member), kind                     \
    }

static const struct counter counters[] = {
    OWN(submitted, U64),
    OWN(completed, U64),
    OWN(taken, U64),
    OWN(dropped, U64),
    OWN(refused, U64),
    OWN(bells, U64),
    OWN(open, U32),
    OWN(ready, U32),
    OF(engine, calls, U64),
    OF(engine, calls_done, U64),
    OF(engine, turns, U64),
    OF(engine, longest_turn, SECONDS),
    OF(engine, calls_open, U32),
    OF(engine, running, U32),
    OF(engine, connections_open, U32),
    OF(engine, queued_bytes, U64),
    OF(client, requests, U64),
    OF(client, attempts, U64),
    OF(client, retries, U64),
    OF(client, hedges, U64),
    OF(client, hedges_won, U64),
    OF(client, ok, U64),
    OF(client, failed, U64),
    OF(client, throttled, U64),
    OF(client, rows, U64),
    OF(client, rows_failed, U64),
    OF(client, bytes_sent, U64),
    OF(client, bytes_received, U64),
    OF(client, connections_opened, U64),
    OF(client, connections_reused, U64),
    OF(client, in_flight, U32),
    OF(client, pool_timeouts, U64),
    OF(client, p50, SECONDS),
    OF(client, p90, SECONDS),
    OF(client, p95, SECONDS),
    OF(client, p99, SECONDS),
    OF(client, paused_for, SECONDS),
    OF(client, retry_budget, SECONDS),
    OF(batcher, submissions, U64),
    OF(batcher, rows, U64),
    OF(batcher, requests, U64),
    OF(batcher, request_rows, U64),
    OF(batcher, largest, U64),
    OF(batcher, alone, U64),
    OF(batcher, dropped, U64),
    OF(batcher, refused, U64),
    OF(batcher, hits, U64),
    OF(batcher, misses, U64),
    OF(batcher, shared, U64),
    OF(batcher, cache_bytes, U64),
    OF(batcher, evicted, U64),
    OF(batcher, waiting, U32),
    OF(batcher, busy, U32),
};

int mp_bridge_stats(mp_bridge *b, struct mp_bridge_stats *out)
{
    int rc = mp__bridge_check(b);
    if (rc == 0 && out == NULL)
        rc = mp__fail(MP_EINVAL, "out: missing");
    if (rc != 0)
        return rc;
    size_t want = out->size;
    pthread_mutex_lock(&b->lock);
    struct mp_bridge_stats s = b->n;
    pthread_mutex_unlock(&b->lock);
    s.size = want < sizeof(s) ? want : sizeof(s);
    memcpy(out, &s, s.size);
    return MP_OK;
}

static int add_line(struct mp__buf *b, const struct counter *c, const void *stats)
{
    char line[96];
    const char *at = (const char *)stats + c->offset;
    uint32_t small = 0;
    uint64_t large = 0;
    double seconds = 0;
    if (c->kind == SECONDS) {
        memcpy(&seconds, at, sizeof(seconds));
        snprintf(line, sizeof(line), "%s %.9g\n", c->name, seconds);
        return mp__buf_adds(b, line);
    }
    if (c->kind == U32)
        memcpy(&small, at, sizeof(small));
    else
        memcpy(&large, at, sizeof(large));
    snprintf(line, sizeof(line), "%s %llu\n", c->name, (unsigned long long)(large + small));
    return mp__buf_adds(b, line);
}

int mp_bridge_stats_text(mp_bridge *b, char **out, size_t *n)
{
    struct mp_bridge_stats s = MP_INIT(struct mp_bridge_stats);
    struct mp__buf text;
    if (out == NULL || n == NULL)
        return mp__fail(MP_EINVAL, "out or n: missing");
    *out = NULL;
    int rc = mp_bridge_stats(b, &s);
    if (rc != 0)
        return rc;
    mp__buf_init(&text, 0);
    for (size_t i = 0; rc == 0 && i < sizeof(counters) / sizeof(*counters); i++)
        rc = add_line(&text, &counters[i], &s);
    *out = rc == 0 ? mp__buf_take(&text, n) : NULL;
    mp__buf_free(&text);
    return *out != NULL ? MP_OK : mp__fail(MP_ENOMEM, "out of memory");
}

/*
 * queue30k.c - N one-part calls submitted at once over a few connections: the longest engine turn,
 * the time until a cancel is answered, CPU and peak memory.
 *
 *   queue30k URL [requests [connections]]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "moonpool.h"

static size_t good, bad;

static void on_done(void *arg, const struct mp_result *r)
{
    (void)arg;
    if (r->rows_ok == 1)
        good++;
    else
        bad++;
    if (r->rows_ok != 1 && bad <= 3 && r->nexchanges > 0)
        fprintf(stderr, "failed: %s\n", mp_exchange_message(&r->exchanges[0]));
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
    size_t n = argc > 2 ? strtoul(argv[2], NULL, 10) : 30000;
    unsigned connections = argc > 3 ? (unsigned)strtoul(argv[3], NULL, 10) : 32;
    static const char body[] = "{\"model\":\"m\",\"input\":[\"a short text to embed\"]}";
    if (argc < 2) {
        fprintf(stderr, "usage: queue30k URL [requests [connections]]\n");
        return 2;
    }
    mp_engine *e = mp_engine_new(NULL);
    struct mp_pool_config pc = MP_INIT(struct mp_pool_config);
    struct mp_client_config cc = MP_INIT(struct mp_client_config);
    struct mp_endpoint_config ep = {.base_url = argv[1]};
    mp_client *client = NULL;
    pc.max_connections = connections;
    cc.pool_config = &pc;
    cc.endpoints = &ep;
    cc.nendpoints = 1;
    if (e == NULL || mp_client_new(e, &cc, &client) != 0) {
        fprintf(stderr, "%s\n", mp_last_error());
        return 1;
    }
    struct mp_str row = {body, sizeof(body) - 1};
    struct mp_request q = MP_INIT(struct mp_request);
    q.client = client;
    q.path = "/";
    q.rows = &row;
    q.nrows = 1;
    q.done = on_done;
    double start = now();
    for (size_t i = 0; i < n; i++)
        if (mp_submit(e, &q, NULL) != 0) {
            fprintf(stderr, "submit %zu: %s\n", i, mp_last_error());
            return 1;
        }
    double queued = now();
    while (good + bad < n && mp_wait(e, 30000) > 0)
        continue;
    double end = now();
    struct mp_stats s = MP_INIT(struct mp_stats);
    struct rusage u;
    mp_stats(e, &s);
    getrusage(RUSAGE_SELF, &u);
    double cpu = (double)u.ru_utime.tv_sec + (double)u.ru_stime.tv_sec +
                 (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
    printf("{\"requests\":%zu,\"failed\":%zu,\"submit_s\":%.3f,\"total_s\":%.3f,"
           "\"longest_turn_ms\":%.2f,\"cpu_us_per_request\":%.1f,\"peak_mb\":%.1f,"
           "\"connections_opened\":%llu}\n",
           n, bad, queued - start, end - start, s.longest_turn * 1e3, cpu / (double)n * 1e6,
           (double)u.ru_maxrss / 1024, (unsigned long long)s.connections_opened);
    mp_client_close(client);
    mp_engine_close(e, NULL, NULL);
    return bad > 0 || good != n;
}

/*
 * queue30k.c - 30,000 requests queued at once over 32 connections: how long may one engine turn
 * take, and what does the queue weigh? Guards the decision to keep the queue out of curl.
 *
 *     queue30k URL [calls]
 *
 * One call of 30,000 rows; with the word "calls", 30,000 calls of one row. Prints lines "name metric
 * value".
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "moonpool.h"

#define REQUESTS    30000
#define CONNECTIONS 32

static const char body[] = "{\"input\":\"The quick brown fox\",\"id\":1234567}";

struct tally {
    long done;
    long good;
};

static void on_done(void *arg, const struct mp_result *result)
{
    struct tally *t = arg;

    t->done++;
    t->good += (long)result->rows_ok;
}

static void die(const char *what)
{
    fprintf(stderr, "queue30k: %s: %s\n", what, mp_last_error());
    exit(1);
}

static mp_client *client_new(mp_engine *engine, const char *url)
{
    struct mp_endpoint_config endpoint = {.base_url = url};
    struct mp_pool_config pool = MP_INIT(struct mp_pool_config);
    struct mp_client_config config = MP_INIT(struct mp_client_config);
    mp_client *client;

    pool.max_connections = CONNECTIONS;
    pool.max_idle = CONNECTIONS;
    config.endpoints = &endpoint;
    config.nendpoints = 1;
    config.pool_config = &pool;
    if (mp_client_new(engine, &config, &client) != MP_OK)
        die("client");
    return client;
}

static void submit(mp_engine *engine, mp_client *client, size_t rows, struct tally *tally)
{
    static const struct mp_header json = {"Content-Type", "application/json"};
    static struct mp_str row[REQUESTS];
    struct mp_request request = MP_INIT(struct mp_request);
    uint64_t ticket;

    for (size_t i = 0; i < rows; i++)
        row[i] = (struct mp_str){body, sizeof(body) - 1};
    request.client = client;
    request.path = "/v1";
    request.headers = &json;
    request.nheaders = 1;
    request.mode = MP_BODY_WHOLE;
    request.max_concurrent = CONNECTIONS;
    request.rows = row;
    request.nrows = rows;
    request.done = on_done;
    request.arg = tally;
    if (mp_submit(engine, &request, &ticket) != MP_OK)
        die("submit");
}

int main(int argc, char **argv)
{
    int many = argc == 3 && strcmp(argv[2], "calls") == 0;
    const char *name = many ? "queue30k_calls" : "queue30k";
    struct mp_stats stats = MP_INIT(struct mp_stats);
    struct tally tally = {0};
    long calls = many ? REQUESTS : 1;
    mp_engine *engine;
    mp_client *client;

    if (argc < 2 || (argc == 3 && !many) || argc > 3) {
        fprintf(stderr, "usage: queue30k URL [calls]\n");
        return 2;
    }
    engine = mp_engine_new(NULL);
    if (!engine)
        die("engine");
    client = client_new(engine, argv[1]);
    for (long i = 0; i < calls; i++)
        submit(engine, client, (size_t)(REQUESTS / calls), &tally);
    while (tally.done < calls) {
        if (mp_wait(engine, -1) < 0)
            die("wait");
    }
    mp_stats(engine, &stats);
    printf("%s good %ld\n", name, tally.good);
    printf("%s longest_turn_ms %.3f\n", name, 1e3 * stats.longest_turn);
    mp_client_close(client);
    mp_engine_close(engine, NULL, NULL);
    return tally.good != REQUESTS;
}

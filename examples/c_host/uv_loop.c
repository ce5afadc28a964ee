/*
 * uv_loop.c - embeddings inside a program that has a libuv loop: the engine lives on the loop, nothing
 * blocks, and the loop ends by itself when nothing is open.
 *
 *     moonpool mock --port 8089 &
 *     make && ./uv_loop http://127.0.0.1:8089 "a text" "another"
 */
#include <moonpool_uv.h>
#include <stdio.h>
#include <stdlib.h>

static const struct mp_vectors openai = {.list = "data", .vector = "embedding", .index = "index"};

/* The result is the engine's; take a reference to the matrix, or mp_result_keep it, to have it longer. */
static void on_done(void *arg, const struct mp_result *r)
{
    int *failed = arg;
    for (size_t i = 0; i < r->nexchanges; i++)
        if (r->exchanges[i].kind != MP_KIND_NONE) {
            fprintf(stderr, "rows from %llu: %s\n", (unsigned long long)r->exchanges[i].first + 1,
                    mp_exchange_message(&r->exchanges[i]));
            *failed = 1;
        }
    for (uint64_t row = 0; r->matrix != NULL && row < r->rows; row++)
        printf("row %llu: %u numbers, the first %.6f\n", (unsigned long long)row + 1, r->dimensions,
               mp_matrix_data(r->matrix)[(r->first_row + row) * r->dimensions]);
}

static int submit(mp_engine *engine, mp_client *client, char **texts, int n, int *failed)
{
    struct mp_str *rows = calloc((size_t)n, sizeof(*rows));
    struct mp_request q = MP_INIT(struct mp_request);
    uint64_t ticket = 0;
    for (int i = 0; rows != NULL && i < n; i++) {
        rows[i].p = texts[i];
        for (rows[i].n = 0; texts[i][rows[i].n] != '\0';)
            rows[i].n++;
    }
    q.client = client;
    q.path = "/v1/embeddings";
    q.mode = MP_BODY_JOIN; /* as many rows a request as the policy says */
    q.rows = rows;         /* copied before mp_submit returns, unless MP_BORROW is given */
    q.nrows = (size_t)n;
    q.prefix = (struct mp_str){"{\"model\":\"m\",\"input\":[", 22};
    q.suffix = (struct mp_str){"]}", 2};
    q.vectors = &openai;
    q.done = on_done;
    q.arg = failed;
    int rc = rows != NULL ? mp_submit(engine, &q, &ticket) : MP_ENOMEM;
    free(rows);
    return rc;
}

int main(int argc, char **argv)
{
    uv_loop_t loop;
    mp_client *client = NULL;
    int failed = 0;
    if (argc < 3 || uv_loop_init(&loop) != 0) {
        fprintf(stderr, "usage: uv_loop URL TEXT...\n");
        return 2;
    }
    struct mp_endpoint_config endpoint = {.base_url = argv[1]};
    struct mp_client_config config = MP_INIT(struct mp_client_config);
    config.endpoints = &endpoint;
    config.nendpoints = 1;
    mp_engine *engine = mp_engine_new_on_loop(&loop, NULL);
    int rc = engine != NULL ? mp_client_new(engine, &config, &client) : MP_ENOMEM;
    if (rc == 0)
        rc = submit(engine, client, argv + 2, argc - 2, &failed);
    if (rc != 0)
        fprintf(stderr, "%s: %s\n", mp_strerror(rc), mp_last_error());
    uv_run(&loop, UV_RUN_DEFAULT); /* until everything is answered */
    mp_engine_close(engine, NULL, NULL);
    uv_run(&loop, UV_RUN_DEFAULT); /* until the engine is gone */
    if (uv_loop_close(&loop) != 0) {
        fprintf(stderr, "the loop still has handles\n");
        return 1;
    }
    return rc != 0 || failed;
}

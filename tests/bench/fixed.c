/*
 * fixed.c - work of a fixed size, to be counted by `make bench-check`.
 *
 *   fixed float|base64|reply N
 *
 * The same numbers N times: a reply of 128 vectors of 1,024 floats decoded in chunks of 64 KB, or a
 * reply of one vector written. At the level of SSE, which every x86-64 of today and valgrind have.
 */
#include "base/buf.h"
#include "base/prng.h"
#include "codec/base64.h"
#include "codec/cpu.h"
#include "codec/decode.h"
#include "moonpool.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ITEMS 128u
#define DIM   1024u
#define CHUNK ((size_t)64 * 1024)

static float out[ITEMS * DIM];

static float value(void)
{
    static uint64_t seed;
    return (float)((double)(int64_t)mp__random(&seed) / 1e20);
}

static float *row(void *arg, uint32_t item, uint32_t dim)
{
    return (float *)arg + (size_t)item * dim;
}

static void add_vector(struct mp__buf *b, int base64)
{
    static float v[DIM];
    static char text[MP__BASE64_ENCODED(sizeof(v)) + 1];
    for (uint32_t i = 0; i < DIM; i++)
        v[i] = value();
    if (base64) {
        mp__buf_addc(b, '"');
        mp__buf_add(b, text, mp__base64_encode(text, v, sizeof(v)));
        mp__buf_addc(b, '"');
        return;
    }
    for (uint32_t i = 0; i < DIM; i++) {
        char one[64];
        snprintf(one, sizeof(one), "%c%.9g", i == 0 ? '[' : ',', (double)v[i]);
        mp__buf_adds(b, one);
    }
    mp__buf_addc(b, ']');
}

static int decode(int base64, long n)
{
    static const struct mp__shape shape = {
        .list = "data", .vector = "embedding", .index = "index", .layout = MP__PACKED};
    struct mp__decoder_cfg cfg = {&shape, ITEMS, DIM, 0, 0, row, out};
    struct mp__decoder *d = mp__decoder_new(&cfg);
    struct mp__buf b;
    int rc = d != NULL ? 0 : 1;
    mp__buf_init(&b, 0);
    mp__buf_adds(&b, "{\"data\":[");
    for (uint32_t i = 0; i < ITEMS; i++) {
        char head[64];
        snprintf(head, sizeof(head), "%s{\"index\":%u,\"embedding\":", i == 0 ? "" : ",", i);
        mp__buf_adds(&b, head);
        add_vector(&b, base64);
        mp__buf_addc(&b, '}');
    }
    mp__buf_adds(&b, "],\"usage\":{\"total_tokens\":8}}");
    for (long i = 0; i < n && rc == 0; i++) {
        rc = mp__decoder_reset(d, &cfg);
        for (size_t at = 0; at < b.n && rc == 0; at += CHUNK)
            rc = mp__decoder_feed(d, b.p + at, b.n - at < CHUNK ? b.n - at : CHUNK);
        if (rc == 0)
            rc = mp__decoder_finish(d);
    }
    mp__decoder_free(d);
    mp__buf_free(&b);
    return rc != 0;
}

static int reply(long n)
{
    mp_matrix *m = mp_matrix_new(1, DIM);
    struct mp_reply r = MP_INIT(struct mp_reply);
    int rc = m != NULL ? 0 : 1;
    for (uint32_t i = 0; i < DIM && rc == 0; i++)
        mp_matrix_data(m)[i] = value();
    r.matrix = m;
    r.model = "m";
    r.format = MP_FORMAT_FLOAT;
    for (long i = 0; i < n && rc == 0; i++) {
        char *text = NULL;
        size_t bytes = 0;
        rc = mp_reply_write(&r, &text, &bytes);
        mp_free(text);
    }
    mp_matrix_unref(m);
    return rc != 0;
}

int main(int argc, char **argv)
{
    long n = argc == 3 ? strtol(argv[2], NULL, 10) : 0;
    mp__simd_limit(MP__SIMD_SSE);
    if (n > 0 && strcmp(argv[1], "float") == 0)
        return decode(0, n);
    if (n > 0 && strcmp(argv[1], "base64") == 0)
        return decode(1, n);
    if (n > 0 && strcmp(argv[1], "reply") == 0)
        return reply(n);
    fprintf(stderr, "usage: fixed float|base64|reply N\n");
    return 2;
}

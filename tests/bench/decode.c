/*
 * decode.c - how fast the streaming decoder is on one core.
 *
 *   cc -O2 -Iruntime -Iruntime/include tests/bench/decode.c build/mock.a build/codec.a \
 *      build/base.a -lm -o decode && ./decode
 *
 * A reply of 1024 vectors of 1024 dimensions in OpenAI's form, fed in chunks. JSON is given as MB
 * of text a second, base64 and bytes (vLLM's encoding_format "bytes") as GB of floats a second; the
 * best of several runs. The last line compares these two as a server's replies of 128 vectors.
 */
#include "codec/base64.h"
#include "base/buf.h"
#include "codec/cpu.h"
#include "codec/decode.h"
#include "mock/hashmodel.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ITEMS 1024u
#define DIM   1024u
#define RUNS  15
#define REPLY 128u

static uint64_t seed = 0x9E3779B97F4A7C15u;

static uint64_t next(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static float *row(void *arg, uint32_t item, uint32_t dim)
{
    return (float *)arg + (size_t)item * dim;
}

enum form { SHORT, DOUBLE, PRETTY, BASE64, BYTES };

static void add_vector(struct mp__buf *b, enum form form)
{
    static float raw[DIM];
    static char text[MP__BASE64_ENCODED(sizeof(raw)) + 1];
    char one[64];
    uint32_t i;

    if (form == BASE64) {
        for (i = 0; i < DIM; i++)
            raw[i] = (float)((double)(int64_t)next() / 1e20);
        mp__buf_addc(b, '"');
        mp__buf_add(b, text, mp__base64_encode(text, raw, sizeof(raw)));
        mp__buf_addc(b, '"');
        return;
    }
    for (i = 0; i < DIM; i++) {
        double v = (double)(int64_t)next() / 1e20;

        snprintf(one, sizeof(one), "%s%.*g", form == PRETTY ? "\n        " : "",
                 form == SHORT ? 9 : 17, v);
        mp__buf_addc(b, i == 0 ? '[' : ',');
        mp__buf_adds(b, one);
    }
    mp__buf_addc(b, ']');
}

/* The header that says where the vectors lie, and the vectors. */
static void make_bytes(struct mp__buf *b, struct mp__buf *header, uint32_t items)
{
    char item[160];
    float v;
    uint32_t i, k;

    mp__buf_init(b, 0);
    mp__buf_init(header, 0);
    mp__buf_adds(header, "{\"id\": \"embd-0\", \"created\": 1, \"model\": \"m\", \"data\": [");
    for (i = 0; i < items; i++) {
        snprintf(item, sizeof(item),
                 "%s{\"index\": %u, \"embed_dtype\": \"float32\", \"endianness\": \"little\", "
                 "\"start\": %zu, \"end\": %zu, \"shape\": [%u]}",
                 i == 0 ? "" : ", ", i, i * (size_t)DIM * 4, (i + 1) * (size_t)DIM * 4, DIM);
        mp__buf_adds(header, item);
        for (k = 0; k < DIM; k++) {
            v = (float)((double)(int64_t)next() / 1e20);
            mp__buf_add(b, (const char *)&v, sizeof(v));
        }
    }
    mp__buf_adds(header, "], \"usage\": {\"prompt_tokens\": 8, \"total_tokens\": 8}}");
}

static void make(struct mp__buf *b, enum form form, uint32_t items)
{
    char head[80];
    uint32_t i;

    mp__buf_init(b, 0);
    mp__buf_adds(b, "{\"object\":\"list\",\"data\":[");
    for (i = 0; i < items; i++) {
        snprintf(head, sizeof(head),
                 "%s{\"object\":\"embedding\",\"index\":%u,\"embedding\":", i == 0 ? "" : ",", i);
        mp__buf_adds(b, head);
        add_vector(b, form);
        mp__buf_addc(b, '}');
    }
    mp__buf_adds(b, "],\"model\":\"m\",\"usage\":{\"prompt_tokens\":8,\"total_tokens\":8}}");
}

static double best(const struct mp__buf *b, const struct mp__buf *header, uint32_t items,
                   size_t chunk, float *out)
{
    static const struct mp__shape shape = {
        .list = "data", .vector = "embedding", .index = "index", .layout = MP__PACKED};
    struct mp__decoder_cfg cfg = {&shape, items, DIM, 0, 0, row, out};
    struct mp__decoder *d = mp__decoder_new(&cfg);
    double t, least = 1e9;
    size_t at, n;
    int i;

    for (i = 0; i < RUNS && d != NULL; i++) {
        t = now();
        mp__decoder_reset(d, &cfg);
        if (header != NULL)
            mp__decoder_header(d, header->p, header->n);
        for (at = 0; at < b->n; at += n) {
            n = b->n - at < chunk ? b->n - at : chunk;
            mp__decoder_feed(d, b->p + at, n);
        }
        if (mp__decoder_finish(d) != 0) {
            fprintf(stderr, "%s\n", mp__decoder_error(d));
            exit(1);
        }
        t = now() - t;
        least = t < least ? t : least;
    }
    mp__decoder_free(d);
    return least;
}

/* What a reply of 128 vectors costs in base64 and in bytes, and how these compare. */
static void compare(float *out)
{
    struct mp__buf base64, bytes, header;
    double slow, fast;

    mp__simd_limit(0);
    make(&base64, BASE64, REPLY);
    make_bytes(&bytes, &header, REPLY);
    slow = best(&base64, NULL, REPLY, 16 << 10, out);
    fast = best(&bytes, &header, REPLY, 16 << 10, out);
    printf("reply of %u x %u: base64 %.1f us, bytes %.1f us (%.0f %% of it)\n", REPLY, DIM,
           slow * 1e6, fast * 1e6, 100 * fast / slow);
    mp__buf_free(&base64);
    mp__buf_free(&bytes);
    mp__buf_free(&header);
}

static void hash_rate(void)
{
    static const char text[] =
        "The quick brown fox jumps over the lazy dog while embeddings are computed elsewhere. ";
    float v[256];
    double t = now();
    int i;

    for (i = 0; i < 50000; i++)
        mp__hash_embed(text, sizeof(text) - 1, 256, v);
    t = now() - t;
    printf("hash model, %zu byte texts        %8.1f MB/s\n", sizeof(text) - 1,
           50000.0 * sizeof(text) / t / 1e6);
}

int main(void)
{
    static const size_t chunks[] = {512 << 10, 64 << 10, 16 << 10};
    static const char *const names[] = {"JSON, 9 digits", "JSON, 17 digits",
                                        "JSON, 17 digits, indented", "base64"};
    float *out = malloc((size_t)ITEMS * DIM * sizeof(float));
    struct mp__buf b;
    double t;
    int form, level;
    size_t i;

    memset(out, 0, (size_t)ITEMS * DIM * sizeof(float));
    for (form = SHORT; form <= BASE64; form++) {
        make(&b, (enum form)form, ITEMS);
        for (i = 0; i < 3; i++) {
            for (level = MP__SIMD_NONE; level <= MP__SIMD_AVX2; level++) {
                mp__simd_limit(level);
                t = best(&b, NULL, ITEMS, chunks[i], out);
                printf("%-26s %3zu KB chunks  simd %d", names[form], chunks[i] >> 10, level);
                if (form == BASE64)
                    printf("  %8.2f GB/s of floats\n", ITEMS * (double)DIM * 4 / t / 1e9);
                else
                    printf("  %8.0f MB/s of text, %.1f ns a number\n", (double)b.n / t / 1e6,
                           t * 1e9 / ((double)ITEMS * DIM));
            }
        }
        mp__buf_free(&b);
    }
    compare(out);
    hash_rate();
    free(out);
    return 0;
}

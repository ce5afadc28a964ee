/*
 * codec_decode_random.c - the streaming decoder on generated and on damaged replies.
 */
#include "codec/base64.h"
#include "codec/cpu.h"
#include "codec_decode_rig.h"

#include <cjson/cJSON.h>

/* ---- generated replies: random values, shapes, white space, splits ----------------------------- */

struct text {
    char p[1 << 16];
    size_t n;
};

__attribute__((format(printf, 2, 3))) static void put(struct text *t, const char *fmt, ...)
{
    static const char *const spaces[] = {"", "", "", " ", "\n  ", "\t\r\n"};
    va_list ap;

    va_start(ap, fmt);
    t->n += (size_t)vsnprintf(t->p + t->n, sizeof(t->p) - t->n, fmt, ap);
    va_end(ap);
    t->n += (size_t)snprintf(t->p + t->n, sizeof(t->p) - t->n, "%s", spaces[below(6)]);
    assert_true(t->n < sizeof(t->p) - 100);
}

static void put_rest(struct text *t, int depth)
{
    size_t i, n = below(4);

    switch (below(depth > 4 ? 4 : 6)) {
    case 0:
        put(t, "%s", (const char *const[]){"true", "false", "null"}[below(3)]);
        break;
    case 1:
        put(t, "%.*g", (int)below(9) + 1, (double)(int64_t)rnd() / 1e12);
        break;
    case 2:
    case 3:
        put(t, "\"%s\"",
            (const char *const[]){"", "a\\\"b", "\\u00e9\\n", "\xE2\x82\xAC uro",
                                  "plain old text of some length", "[{:,}]"}[below(6)]);
        break;
    case 4:
        put(t, "[");
        for (i = 0; i < n; i++) {
            put(t, "%s", i != 0 ? "," : "");
            put_rest(t, depth + 1);
        }
        put(t, "]");
        break;
    default:
        put(t, "{");
        for (i = 0; i < n; i++) {
            put(t, "%s\"k%zu\"", i != 0 ? "," : "", i);
            put(t, ":");
            put_rest(t, depth + 1);
        }
        put(t, "}");
    }
}

static void put_vector(struct text *t, float *v, uint32_t dim)
{
    char b64[MP__BASE64_ENCODED(MAX_DIM * 4) + 1];
    uint32_t i;

    for (i = 0; i < dim; i++)
        v[i] = (float)((double)(int64_t)rnd() / (below(5) == 0 ? 1e25 : 1e19));
    if (below(3) == 0) {
        b64[mp__base64_encode(b64, v, dim * sizeof(float))] = '\0';
        put(t, "\"%s\"", b64);
        return;
    }
    put(t, "[");
    for (i = 0; i < dim; i++) {
        put(t, "%s", i != 0 ? "," : "");
        put(t, "%.*g", (int)below(9) + 9, (double)v[i]);
    }
    put(t, "]");
}

static void put_item(struct text *t, float (*rows)[MAX_DIM], uint32_t index, uint32_t dim)
{
    int first = (int)below(2);

    put(t, "{");
    if (first)
        put(t, "\"index\":%u,", index);
    put(t, "\"object\":");
    put_rest(t, 3);
    put(t, ",\"embedding\":");
    put_vector(t, rows[index], dim);
    if (!first)
        put(t, ",\"index\":%u", index);
    put(t, "}");
}

static void same_document(struct mp__decoder *d, const struct text *t)
{
    size_t n;
    const char *p = mp__decoder_rest(d, &n);
    cJSON *want = cJSON_ParseWithLength(t->p, t->n), *got = cJSON_ParseWithLength(p, n);

    assert_non_null(want);
    assert_non_null(got);
    cJSON_ReplaceItemInObjectCaseSensitive(want, "data", cJSON_CreateArray());
    assert_true(cJSON_Compare(want, got, 1));
    cJSON_Delete(want);
    cJSON_Delete(got);
}

static void make_reply(struct text *t, float (*rows)[MAX_DIM], uint32_t items, uint32_t dim)
{
    uint32_t order[MAX_ITEMS], i, k, swap;

    for (i = 0; i < items; i++)
        order[i] = i;
    for (i = items; i > 1; i--) {
        k = (uint32_t)below(i);
        swap = order[k];
        order[k] = order[i - 1];
        order[i - 1] = swap;
    }
    t->n = 0;
    put(t, "{\"before\":");
    put_rest(t, 0);
    put(t, ",\"data\":[");
    for (i = 0; i < items; i++) {
        put(t, "%s", i != 0 ? "," : "");
        put_item(t, rows, order[i], dim);
    }
    put(t, "],\"after\":");
    put_rest(t, 0);
    put(t, "}");
}

static void feed_pieces(struct mp__decoder *d, const struct text *t)
{
    size_t most = below(4) == 0 ? 4 : below(4) == 0 ? 100 : 2000, at, n;

    for (at = 0; at < t->n; at += n) {
        n = below(most) + 1;
        n = n < t->n - at ? n : t->n - at;
        feed_copy(d, t->p + at, n);
    }
}

/* Vectors that outgrow the scratch several times: dimension unknown, or index after the vector. */
static float *big_row(void *arg, uint32_t item, uint32_t dim)
{
    return (float *)arg + (size_t)item * dim;
}

static void big(uint32_t dim, int base64, int known)
{
    float *v = malloc(dim * sizeof(float)), *out = malloc(dim * sizeof(float));
    struct mp__decoder_cfg cfg = {&openai, 1, known ? dim : 0, 0, 0, big_row, out};
    struct mp__decoder *d = mp__decoder_new(&cfg);
    char *text = malloc(dim * 16 + 100);
    size_t n, at, step;
    uint32_t i;

    for (i = 0; i < dim; i++)
        v[i] = (float)((double)(int64_t)rnd() / 1e20);
    n = (size_t)snprintf(text, 100, "{\"data\":[{\"embedding\":%c", base64 ? '"' : '[');
    if (base64)
        n += mp__base64_encode(text + n, v, dim * sizeof(float));
    for (i = 0; i < dim && !base64; i++)
        n += (size_t)snprintf(text + n, 20, "%s%.9g", i != 0 ? "," : "", (double)v[i]);
    n += (size_t)snprintf(text + n, 32, "%c,\"index\":0}]}", base64 ? '"' : ']');
    for (at = 0; at < n; at += step) {
        step = below(3000) + 1;
        step = step < n - at ? step : n - at;
        feed_copy(d, text + at, step);
    }
    assert_int_equal(mp__decoder_finish(d), 0);
    assert_int_equal(mp__decoder_dim(d), dim);
    assert_memory_equal(out, v, dim * sizeof(float));
    mp__decoder_free(d);
    free(text);
    free(out);
    free(v);
}

static void test_big(void **state)
{
    int i;

    (void)state;
    for (i = 0; i < 40; i++) {
        /* Around the sizes at which the scratch grows, where the last bytes just fit or do not. */
        big((uint32_t)(2048 << (i % 3)) + (uint32_t)below(5) - 2, i % 2, (int)below(2));
        big((uint32_t)below(9000) + 1, i % 2, (int)below(2));
    }
}

static void test_generated(void **state)
{
    static struct text t;
    static float want[MAX_ITEMS][MAX_DIM];
    struct sink s;
    struct mp__decoder *d = start(&s, &openai, 0, 0);
    uint32_t items, dim, i;
    int round;

    (void)state;
    for (round = 0; round < 3000; round++) {
        struct mp__decoder_cfg cfg = {&openai, 0, 0, 0, 0, row, &s};

        mp__simd_limit((int)below(4));
        items = cfg.items = (uint32_t)below(MAX_ITEMS) + 1;
        dim = (uint32_t)below(MAX_DIM) + 1;
        cfg.dim = below(2) ? dim : 0;
        make_reply(&t, want, items, dim);
        memset(&s, 0, sizeof(s));
        assert_int_equal(mp__decoder_reset(d, &cfg), 0);
        feed_pieces(d, &t);
        if (mp__decoder_finish(d) != 0)
            fail_msg("round %d: %s in %.*s", round, mp__decoder_error(d), (int)t.n, t.p);
        for (i = 0; i < items; i++)
            assert_memory_equal(s.rows[i], want[i], dim * sizeof(float));
        same_document(d, &t);
    }
    mp__simd_limit(0);
    mp__decoder_free(d);
}

/* Any damage may be refused or not, but not crash, and never depends on the chunks. */
static void test_damaged(void **state)
{
    static const char spice[] = "[]{}\",:0e-.\\ntu\x80\xE2 ";
    static struct text t;
    static float want[MAX_ITEMS][MAX_DIM];
    struct sink s, s2;
    int round, refused = 0;

    (void)state;
    for (round = 0; round < 4000; round++) {
        uint32_t items = (uint32_t)below(3) + 1, dim = (uint32_t)below(12) + 1;
        struct mp__decoder *d, *d2;
        size_t k, n, n2;
        const char *p, *p2;

        make_reply(&t, want, items, dim);
        for (k = below(3) + 1; k > 0; k--)
            t.p[below(t.n)] = below(4) ? spice[below(sizeof(spice))] : (char)rnd();
        d = start(&s, &openai, items, 0);
        d2 = start(&s2, &openai, items, 0);
        feed_copy(d, t.p, t.n);
        feed_pieces(d2, &t);
        refused += mp__decoder_finish(d) != 0;
        mp__decoder_finish(d2);
        assert_string_equal(mp__decoder_error(d), mp__decoder_error(d2));
        if (mp__decoder_finish(d) == 0) {
            cJSON *j;

            p = mp__decoder_rest(d, &n);
            p2 = mp__decoder_rest(d2, &n2);
            assert_int_equal(n, n2);
            assert_memory_equal(p, p2, n);
            j = cJSON_ParseWithLength(p, n);
            assert_non_null(j);
            cJSON_Delete(j);
        }
        mp__decoder_free(d);
        mp__decoder_free(d2);
    }
    assert_true(refused > 2000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_big),
        cmocka_unit_test(test_generated),
        cmocka_unit_test(test_damaged),
    };

    seed_start();
    return cmocka_run_group_tests(tests, NULL, NULL);
}

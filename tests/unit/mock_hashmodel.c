/*
 * codec_hashmodel.c - related texts come out nearer than unrelated ones, whatever the bytes.
 */
#include "mock/hashmodel.h"
#include "codec_util.h"

#include <math.h>

#define DIM 256

static double near(const char *a, const char *b)
{
    float x[DIM], y[DIM];
    double s = 0;
    int i;

    mp__hash_embed(a, strlen(a), DIM, x);
    mp__hash_embed(b, strlen(b), DIM, y);
    for (i = 0; i < DIM; i++)
        s += (double)x[i] * (double)y[i];
    return s;
}

static float score(const char *query, const char *doc)
{
    return mp__hash_score(query, strlen(query), doc, strlen(doc));
}

static void test_related(void **state)
{
    /* text, related, unrelated */
    static const char *const cases[][3] = {
        {"how to train a neural network", "training of neural networks",
         "the price of coffee in Brazil"},
        {"The cat sat on the mat.", "A cat is sitting on a mat",
         "Interest rates rose last quarter"},
        {"reset my password", "password reset instructions", "shipping times to Canada"},
        {"embedding", "embeddings", "bed"},
        {"connection refused by server", "the server refused our connection",
         "a recipe for lentil soup"},
        {"Z\xC3\xBCrich Hauptbahnhof", "Hauptbahnhof Z\xC3\xBCrich", "Lake Geneva"},
        {"\xE6\x9C\xBA\xE5\x99\xA8\xE5\xAD\xA6\xE4\xB9\xA0\xE6\xA8\xA1\xE5\x9E\x8B",
         "\xE6\x9C\xBA\xE5\x99\xA8\xE5\xAD\xA6\xE4\xB9\xA0", "\xE5\x92\x96\xE5\x95\xA1"},
    };
    size_t i;

    (void)state;
    for (i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        double good = near(cases[i][0], cases[i][1]), bad = near(cases[i][0], cases[i][2]);

        if (!(good > bad + 0.2 && bad < 0.35))
            fail_msg("%s: related %.3f, unrelated %.3f", cases[i][0], good, bad);
        assert_true(score(cases[i][0], cases[i][1]) > score(cases[i][0], cases[i][2]) + 0.1f);
    }
}

static void test_same_and_case(void **state)
{
    (void)state;
    assert_true(fabs(near("Hello, World!", "hello world") - 1) < 1e-6);
    assert_true(near("dog", "dog dog dog") > 0.99);
    /* Stop words weigh little. */
    assert_true(near("the cat and the dog", "cat dog") > 0.9);
    /* A frequent word does not drown the rest. */
    assert_true(near("red red red red red red blue", "blue") > 0.3);
}

static void check_unit(const char *p, size_t n, uint32_t dim)
{
    float *v = malloc(dim * sizeof(float)), *again = malloc(dim * sizeof(float));
    double s = 0;
    uint32_t i;

    mp__hash_embed(p, n, dim, v);
    mp__hash_embed(p, n, dim, again);
    assert_memory_equal(v, again, dim * sizeof(float));
    for (i = 0; i < dim; i++)
        s += (double)v[i] * (double)v[i];
    assert_true(fabs(s - 1) < 1e-5);
    free(v);
    free(again);
}

static void test_any_bytes(void **state)
{
    static char text[5000];
    float v[4];
    size_t i, k, n;

    (void)state;
    mp__hash_embed("", 0, 4, v);
    assert_true(v[0] == 1 && v[1] == 0 && v[2] == 0 && v[3] == 0);
    mp__hash_embed(" ?!\n", 4, 4, v);
    assert_true(v[0] == 1);
    mp__hash_embed("x", 1, 0, NULL);
    for (i = 0; i < 300; i++) {
        char *copy;

        n = below(sizeof(text));
        for (k = 0; k < n; k++)
            text[k] = (char)rnd();
        copy = malloc(n + 1);
        memcpy(copy, text, n);
        check_unit(copy, n, (uint32_t)below(600) + 1);
        free(copy);
    }
    memset(text, 'a', sizeof(text)); /* one word far longer than any */
    check_unit(text, sizeof(text), 64);
}

static void test_known_bits(void **state)
{
    /* Written down once: the vectors of stored jobs must not change under them. */
    static const uint32_t want[8] = {0x3e2451cb, 0xbf132bfa, 0x3e2451cb, 0,
                                     0xbf2451cb, 0xbea451cb, 0x3ea451cb, 0};
    float v[8];

    (void)state;
    mp__hash_embed("Moonpool", 8, 8, v);
    assert_memory_equal(v, want, sizeof(v));
}

static void test_score_range(void **state)
{
    (void)state;
    assert_true(score("same words here", "same words here") > 0.999f);
    assert_true(score("same", "same") <= 1);
    assert_true(score("alpha", "omega nothing") >= 0);
    assert_true(score("alpha", "omega nothing") < 0.2f);
    assert_true(score("", "") >= 0 && score("", "") <= 1);
    /* A long document that holds the query's words beats one that holds none. */
    assert_true(score("capital of France",
                      "Paris has been the capital of France for centuries, and "
                      "its museums are visited by millions every year.") >
                score("capital of France", "Bananas are rich in potassium and grow in bunches."));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_related),     cmocka_unit_test(test_same_and_case),
        cmocka_unit_test(test_any_bytes),   cmocka_unit_test(test_known_bits),
        cmocka_unit_test(test_score_range),
    };

    seed_start();
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * codec_base64.c - strict base64 at every SIMD level and every split.
 */
#include "codec/base64.h"
#include "codec/cpu.h"
#include "codec_util.h"

static void test_known(void **state)
{
    /* RFC 4648, section 10, and the two last characters of the alphabet. */
    static const char *const pairs[][2] = {{"", ""},
                                           {"f", "Zg=="},
                                           {"fo", "Zm8="},
                                           {"foo", "Zm9v"},
                                           {"foob", "Zm9vYg=="},
                                           {"fooba", "Zm9vYmE="},
                                           {"foobar", "Zm9vYmFy"},
                                           {"\xFB\xEF\xFF", "++//"}};
    size_t i, n, out_n;

    (void)state;
    for (i = 0; i < sizeof(pairs) / sizeof(*pairs); i++) {
        char text[64];
        uint8_t out[64];

        n = mp__base64_encode(text, pairs[i][0], strlen(pairs[i][0]));
        assert_int_equal(n, strlen(pairs[i][1]));
        assert_memory_equal(text, pairs[i][1], n);
        assert_int_equal(mp__base64_decode(out, &out_n, text, n), 0);
        assert_int_equal(out_n, strlen(pairs[i][0]));
        assert_memory_equal(out, pairs[i][0], out_n);
        while (n > 0 && text[n - 1] == '=')
            n--;
        assert_int_equal(mp__base64_decode(out, &out_n, text, n), 0); /* padding may be absent */
        assert_int_equal(out_n, strlen(pairs[i][0]));
    }
}

static void test_refused(void **state)
{
    static const char *const bad[] = {
        "Z",     "Zg=",   "Zm9vZ", "=",        "====",  "Z===",   "Zg==Zg==", "Zm9v=",
        "Zm8==", "Zg===", "Zh==",  "Zm9=",     "Zm 9v", "Zm9v\n", "Zm-_",     "Zm9\xC3",
        "Zg=a",  "Zg=a=", "Zm9v*", "Zm9v====", "Zn",    "Zm9"};
    uint8_t out[64];
    size_t i, n;

    (void)state;
    for (i = 0; i < sizeof(bad) / sizeof(*bad); i++)
        if (mp__base64_decode(out, &n, bad[i], strlen(bad[i])) == 0)
            fail_msg("accepted: %s", bad[i]);
    assert_int_equal(mp__base64_decode(out, &n, "Zm9v\0Zm9", 8), MP_EINVAL);
}

static void round_trips(void)
{
    uint8_t in[400], *out;
    char text[600];
    size_t n, i, len, out_n;

    for (n = 0; n < sizeof(in); n++) {
        for (i = 0; i < n; i++)
            in[i] = (uint8_t)rnd();
        len = mp__base64_encode(text, in, n);
        assert_int_equal(len, MP__BASE64_ENCODED(n));
        out = malloc(len / 4 * 3 + 3); /* its end is the sanitizer's to watch */
        assert_int_equal(mp__base64_decode(out, &out_n, text, len), 0);
        assert_int_equal(out_n, n);
        assert_memory_equal(out, in, n);
        free(out);
    }
}

/* Every wrong byte at every place of a long text. */
static void wrong_bytes(void)
{
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char text[160];
    uint8_t out[128];
    size_t at, n;
    int c;

    for (at = 0; at < 80; at++)
        for (c = 0; c < 256; c++) {
            int good = c != 0 && strchr(alphabet, c) != NULL;

            memset(text, 'A', sizeof(text)); /* gcc 12 loses a store that undoes text[at] below */
            text[at] = (char)c;
            assert_int_equal(mp__base64_decode(out, &n, text, sizeof(text)) == 0, good);
        }
}

static void test_levels(void **state)
{
    int level;

    (void)state;
    for (level = MP__SIMD_NONE; level <= MP__SIMD_AVX2; level++) {
        mp__simd_limit(level);
        round_trips();
        wrong_bytes();
    }
    mp__simd_limit(0);
}

static void test_splits(void **state)
{
    uint8_t in[101], out[110];
    char text[140];
    size_t len, cut, cut2, n, i;

    (void)state;
    for (i = 0; i < sizeof(in); i++)
        in[i] = (uint8_t)rnd();
    len = mp__base64_encode(text, in, sizeof(in));
    for (cut = 0; cut <= len; cut++)
        for (cut2 = cut; cut2 <= len; cut2 += 1 + cut2 / 20) {
            struct mp__b64 s = {0};
            size_t from[4] = {0, cut, cut2, len};

            for (i = n = 0; i < 3; i++)
                assert_int_equal(mp__b64_feed(&s, text + from[i], from[i + 1] - from[i], out + n,
                                              sizeof(out) - n, &n),
                                 from[i + 1] - from[i]);
            assert_int_equal(mp__b64_finish(&s, out + n, &n), 0);
            assert_int_equal(n, sizeof(in));
            assert_memory_equal(out, in, n);
        }
}

static void test_room(void **state)
{
    /* Room for exactly the bytes is enough, and one less is never passed. */
    char text[200];
    uint8_t in[132] = {1, 2, 3};
    size_t bytes, len, n, eaten;

    (void)state;
    for (bytes = 1; bytes < 128; bytes++) {
        uint8_t *out = malloc(bytes);
        struct mp__b64 s = {0};

        len = mp__base64_encode(text, in, bytes);
        n = 0;
        assert_int_equal(mp__b64_feed(&s, text, len, out, bytes, &n), len);
        assert_int_equal(mp__b64_finish(&s, out + n, &n), 0);
        assert_int_equal(n, bytes);
        memset(&s, 0, sizeof(s));
        n = 0;
        len = mp__base64_encode(text, in, (bytes / 3 + 1) * 3);
        eaten = mp__b64_feed(&s, text, len, out, bytes, &n);
        assert_int_equal(n, bytes / 3 * 3);
        assert_int_equal(eaten, bytes / 3 * 4 + 3);
        free(out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known),  cmocka_unit_test(test_refused),
        cmocka_unit_test(test_levels), cmocka_unit_test(test_splits),
        cmocka_unit_test(test_room),
    };

    seed_start();
    return cmocka_run_group_tests(tests, NULL, NULL);
}

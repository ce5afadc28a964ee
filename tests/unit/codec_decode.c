/*
 * codec_decode.c - the streaming decoder: every shape, every split, every fault.
 */
#include "codec_decode_rig.h"

static const struct mp__shape tei = {"", NULL, NULL, MP__F32};
static const struct mp__shape cohere = {"embeddings|embeddings.float|embeddings.base64", NULL, NULL,
                                        MP__F32};

static int whole(struct mp__decoder *d, const char *text, size_t n)
{
    feed_copy(d, text, n);
    return mp__decoder_finish(d);
}

static void same_rest(struct mp__decoder *d, const char *want)
{
    size_t n;
    const char *p = mp__decoder_rest(d, &n);

    if (n != strlen(want) || memcmp(p, want, n) != 0)
        fail_msg("rest is %.*s, wanted %s", (int)n, p, want);
}

/* ---- good replies ---------------------------------------------------------------------------- */

struct good {
    const char *text;
    const struct mp__shape *shape;
    uint32_t items;
    uint32_t dim;
    float first[2]; /* of each of the first two rows, the first element */
    const char *rest;
};

static const struct mp__shape i8 = {"e", NULL, NULL, MP__I8}, u8 = {"e", NULL, NULL, MP__U8};
static const struct mp__shape bits = {"e", NULL, NULL, MP__BITS};
static const struct mp__shape bits8 = {"e", NULL, NULL, MP__BITS_I8};
static const struct mp__shape keyed = {"data", "v", NULL, MP__F32};

#define X64 "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"

static const struct good goods[] = {
    {"{\"object\":\"list\",\"data\":[{\"object\":\"embedding\",\"index\":0,\"embedding\":[0.5,-1,"
     "2e0]},"
     "{\"object\":\"embedding\",\"index\":1,\"embedding\":[0.25,4,5]}],\"model\":\"m\","
     "\"usage\":{\"prompt_tokens\":8,\"total_tokens\":9}}",
     &openai,
     2,
     3,
     {0.5f, 0.25f},
     "{\"object\":\"list\",\"data\":[],\"model\":\"m\",\"usage\":{\"prompt_tokens\":8,\"total_"
     "tokens\":9}}"},
    /* index after the vector, other order, white space everywhere, things inside items */
    {"\n{ \"data\" : [ { \"embedding\" : [ 7 , 8 ] , \"x\" : {\"embedding\":[9,9,9],\"y\":[[]]} ,"
     " \"index\" : 1 } ,\t{ \"index\" : 0 , \"embedding\" : [ 1 , 2 ] } ] , \"e\" : [ 1 , {} ] "
     "}\r\n ",
     &openai,
     2,
     0,
     {1, 7},
     "{\"data\":[],\"e\":[1,{}]}"},
    {"[[1.5,2],[3,4]]", &tei, 2, 2, {1.5f, 3}, "[]"},
    {" [ [ 1.5 ] ] ", &tei, 1, 0, {1.5f, 0}, "[]"},
    {"{\"embeddings\":[[1,2]],\"meta\":{\"billed_units\":{\"input_tokens\":5}}}",
     &cohere,
     1,
     2,
     {1, 0},
     "{\"embeddings\":[],\"meta\":{\"billed_units\":{\"input_tokens\":5}}}"},
    {"{\"embeddings\":{\"int8\":null,\"float\":[[1,2],[3,4]]}}",
     &cohere,
     2,
     2,
     {1, 3},
     "{\"embeddings\":{\"int8\":null,\"float\":[]}}"},
    {"{\"id\":\"a\",\"embeddings\":{\"base64\":[\"AACAPwAAAEA=\",\"AABAQAAAgEA\"]}}",
     &cohere,
     2,
     2,
     {1, 3},
     "{\"id\":\"a\",\"embeddings\":{\"base64\":[]}}"},
    /* escapes in base64, as .NET and PHP write them */
    {"[\"\\u0041ACAPw\\u003d\\u003D\"]", &tei, 1, 0, {1, 0}, "[]"},
    {"[\"\\/\\u002f9/Pw==\"]", &tei, 1, 0, {0x1.fffffep-1f, 0}, "[]"},
    /* a name that only looks like the list's */
    {"{\"\\u0064ata\":[1],\"x\":{\"data\":[\"no\"]},\"datas\":2,\"dat\":3,\"data\":[{\"v\":[1]}]}",
     &keyed,
     1,
     1,
     {1, 0},
     "{\"\\u0064ata\":[1],\"x\":{\"data\":[\"no\"]},\"datas\":2,\"dat\":3,\"data\":[]}"},
    /* a key too long to keep, whose beginning a chunk may hold */
    {"{\"data" X64 "\":[1],\"data\":[{\"v" X64 "\":[2],\"v\":[1]}]}",
     &keyed,
     1,
     1,
     {1, 0},
     "{\"data" X64 "\":[1],\"data\":[]}"},
    {"{\"data\":null,\"data\":[{\"v\":[1],\"\\u0076\":[]}]}",
     &keyed,
     1,
     1,
     {1, 0},
     "{\"data\":null,\"data\":[]}"},
    {"{\"e\":[[-128,127],[0,5]]}", &i8, 2, 2, {-128, 0}, "{\"e\":[]}"},
    {"{\"e\":[\"gH8=\",\"AAU=\"]}", &i8, 2, 2, {-128, 0}, "{\"e\":[]}"},
    {"{\"e\":[[255,0],[7,1.0e1]]}", &u8, 2, 2, {255, 7}, "{\"e\":[]}"},
    {"{\"e\":[\"/wA=\",\"BwE=\"]}", &u8, 2, 2, {255, 7}, "{\"e\":[]}"},
    {"{\"e\":[[128],[127]]}", &bits, 2, 8, {1, -1}, "{\"e\":[]}"},
    {"{\"e\":[\"gA==\",\"fw==\"]}", &bits, 2, 0, {1, -1}, "{\"e\":[]}"},
    {"{\"e\":[[0],[-1]]}", &bits8, 2, 8, {1, -1}, "{\"e\":[]}"},
    {"{\"e\":[\"AA==\",\"/w==\"]}", &bits8, 2, 8, {1, -1}, "{\"e\":[]}"},
    {"{\"data\":[],\"s\":\"\\\"\\\\\\/"
     "\\b\\f\\n\\r\\t\\u00e9\\ud83d\\ude00\xC3\xA9\xF0\x9F\x98\x80\"}",
     &openai,
     0,
     0,
     {0, 0},
     "{\"data\":[],\"s\":\"\\\"\\\\\\/"
     "\\b\\f\\n\\r\\t\\u00e9\\ud83d\\ude00\xC3\xA9\xF0\x9F\x98\x80\"}"},
    {"{\"a\":[true,false,null,-0.0e-1,1E400,{\"\":[]}],\"data\":[]}",
     &openai,
     0,
     4,
     {0, 0},
     "{\"a\":[true,false,null,-0.0e-1,1E400,{\"\":[]}],\"data\":[]}"},
};

#define GOODS (sizeof(goods) / sizeof(*goods))

static void check_good(const struct good *g, struct mp__decoder *d, struct sink *s)
{
    uint32_t i;

    if (mp__decoder_finish(d) != 0)
        fail_msg("%s: %s", g->text, mp__decoder_error(d));
    assert_int_equal(mp__decoder_items(d), g->items);
    for (i = 0; i < g->items; i++) {
        assert_int_equal(s->calls[i], 1);
        if (i < 2)
            assert_true(s->rows[i][0] == g->first[i]);
    }
    assert_string_equal(mp__decoder_error(d), "");
    same_rest(d, g->rest);
}

static void test_good(void **state)
{
    struct sink s;
    size_t i;

    (void)state;
    for (i = 0; i < GOODS; i++) {
        struct mp__decoder *d = start(&s, goods[i].shape, goods[i].items, goods[i].dim);

        feed_copy(d, goods[i].text, strlen(goods[i].text));
        check_good(&goods[i], d, &s);
        mp__decoder_free(d);
    }
}

static void test_every_split(void **state)
{
    struct sink s;
    size_t i, cut, k;

    (void)state;
    for (i = 0; i < GOODS; i++) {
        const struct good *g = &goods[i];
        size_t n = strlen(g->text);

        for (cut = 0; cut <= n + 1; cut++) {
            struct mp__decoder *d = start(&s, g->shape, g->items, g->dim);

            if (cut <= n) {
                feed_copy(d, g->text, cut);
                feed_copy(d, g->text + cut, n - cut);
            } else {
                for (k = 0; k < n; k++)
                    feed_copy(d, g->text + k, 1);
            }
            check_good(g, d, &s);
            mp__decoder_free(d);
        }
    }
}

static void test_every_truncation(void **state)
{
    struct sink s;
    size_t i, cut;

    (void)state;
    for (i = 0; i < GOODS; i++) {
        const char *text = goods[i].text;
        size_t n = strlen(text);

        while (text[n - 1] == ' ' || text[n - 1] == '\n' || text[n - 1] == '\r')
            n--;
        for (cut = 0; cut < n; cut++) {
            struct mp__decoder *d = start(&s, goods[i].shape, goods[i].items, goods[i].dim);

            assert_int_equal(whole(d, text, cut), MP__EDECODE);
            assert_non_null(strstr(mp__decoder_error(d), "truncated JSON at byte "));
            mp__decoder_free(d);
        }
    }
}

/* ---- bad replies ----------------------------------------------------------------------------- */

struct bad {
    const char *text;
    const struct mp__shape *shape;
    uint32_t items;
    uint32_t dim;
    const char *error;
};

#define D32 "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["

static const struct bad bads[] = {
    {"[[1],[2],[3]]", &tei, 4, 1, "reply has 3 vectors, 4 were sent"},
    {"[[1],[2],[3]]", &tei, 2, 1, "reply has more vectors than the 2 that were sent"},
    {"[]", &tei, 1, 1, "reply has 0 vectors, 1 were sent"},
    {"{}", &openai, 1, 1, "reply has no list \"data\""},
    {"{\"data\":{}}", &openai, 1, 1, "reply has no list \"data\""},
    {"17", &tei, 1, 1, "reply has no list \"\""},
    {"[\"AACAPwAAgD8=\"]", &tei, 1, 1, "the vector has more than the expected 1 dimensions"},
    {"[\"AACAPwA=\"]", &tei, 1, 1, "the vector has more than the expected 1 dimensions"},
    {"[\"AACAPwA=\"]", &tei, 1, 0, "the vector is base64 of 5 bytes, not a multiple of 4"},
    {"[\"AACAPwAA\"]", &tei, 1, 2, "the vector is base64 of 6 bytes, not a multiple of 4"},
    {"[\"AACAPw==\"]", &tei, 1, 2, "the vector has dimension 1, expected 2"},
    {"[\"\"]", &tei, 1, 0, "the vector is empty"},
    {"[[]]", &tei, 1, 0, "the vector is empty"},
    {"[[ ]]", &tei, 1, 2, "the vector is empty"},
    {"[\"AADAfw==\"]", &tei, 1, 0, "NaN or infinity in the vector"},
    {"[\"AACA/w==\"]", &tei, 1, 1, "NaN or infinity in the vector"},
    {"[[1e39]]", &tei, 1, 1, "element 1 of the vector is too large for float32"},
    {"[[1,-3.5e38]]", &tei, 1, 2, "element 2 of the vector is too large for float32"},
    {"[[1,null]]", &tei, 1, 2, "element 2 of the vector is null"},
    {"[[NaN]]", &tei, 1, 1, "element 1 of the vector is NaN or infinite"},
    {"[[-Infinity]]", &tei, 1, 1, "element 1 of the vector is NaN or infinite"},
    {"[[\"1\"]]", &tei, 1, 1, "element 1 of the vector is not a number"},
    {"[[[1]]]", &tei, 1, 1, "element 1 of the vector is not a number"},
    {"[[1,]]", &tei, 1, 1, "invalid JSON at byte 4"},
    {"[[,1]]", &tei, 1, 1, "invalid JSON at byte 2"},
    {"[[1 2]]", &tei, 1, 2, "item 1: no comma after element 1 (byte 4)"},
    {"[[01]]", &tei, 1, 1, "item 1: no comma after element 1 (byte 3)"},
    {"[[1.]]", &tei, 1, 1, "item 1: element 1 is not a JSON number (byte 4)"},
    {"[[1}]", &tei, 1, 1, "item 1: no comma after element 1 (byte 3)"},
    {"[null]", &tei, 1, 1, "the vector is null"},
    {"[{}]", &tei, 1, 1, "the vector is not a list"},
    {"[7]", &tei, 1, 1, "the vector is not a list"},
    {"[\"AAC*Pw==\"]", &tei, 1, 1, "the vector is not base64"},
    {"[\"AACAP\\n==\"]", &tei, 1, 1, "the vector is not base64"},
    {"[\"AACAP\"]", &tei, 1, 1, "the vector is not base64: its end is wrong"},
    {"[\"AACAPw=\"]", &tei, 1, 1, "the vector is not base64: its end is wrong"},
    {"[\"AACAPw==AACAPw==\"]", &tei, 1, 2, "the vector is not base64"},
    {"[[1]] x", &tei, 1, 1, "trailing bytes after the JSON document at byte 6"},
    {"[[1]][]", &tei, 1, 1, "trailing bytes after the JSON document at byte 5"},
    {"\xEF\xBB\xBF[[1]]", &tei, 1, 1, "a byte order mark before the JSON document"},
    {"{\"data\":[[1]]}", &openai, 1, 1, "its item is not an object"},
    {"{\"data\":[null]}", &openai, 1, 1, "the vector is null"},
    {"{\"data\":[{\"index\":0}]}", &openai, 1, 1, "its item has no vector"},
    {"{\"data\":[{\"index\":0,\"embedding\":[1],\"embedding\":[2]}]}", &openai, 1, 1,
     "item 1 has two vectors"},
    {"{\"data\":[{\"index\":0,\"index\":1,\"embedding\":[1]}]}", &openai, 2, 1,
     "item 1 has two indices"},
    {"{\"data\":[{\"index\":1,\"embedding\":[1]},{\"embedding\":[2],\"index\":1}]}", &openai, 2, 1,
     "duplicate index 1"},
    {"{\"data\":[{\"index\":7,\"embedding\":[1]}]}", &openai, 4, 1,
     "index 7 out of range: 4 were sent"},
    {"{\"data\":[{\"index\":18446744073709551616,\"embedding\":[1]}]}", &openai, 4, 1,
     "item 1: \"index\" is not a position"},
    {"{\"data\":[{\"index\":-1,\"embedding\":[1]}]}", &openai, 4, 1,
     "item 1: \"index\" is not a position"},
    {"{\"data\":[{\"index\":1.5,\"embedding\":[1]}]}", &openai, 4, 1,
     "item 1: \"index\" is not a position"},
    {"{\"data\":[{\"index\":\"0x\",\"embedding\":[1]}]}", &openai, 4, 1,
     "item 1: \"index\" is not a position"},
    {"{\"data\":[{\"index\":0,\"embedding\":null}]}", &openai, 1, 1, "the vector is null"},
    {"{\"data\":[],\"data\":[]}", &openai, 0, 0, "the list of vectors comes twice (byte 18)"},
    {"{\"embeddings\":{\"float\":[[1]],\"base64\":[\"AACAPw==\"]}}", &cohere, 1, 1,
     "the list of vectors comes twice (byte 38)"},
    {"{\"e\":[[128]]}", &i8, 1, 1, "element 1 of the vector is not a whole number of -128 to 127"},
    {"{\"e\":[[1,-1]]}", &u8, 1, 2, "element 2 of the vector is not a whole number of 0 to 255"},
    {"{\"e\":[[0.5]]}", &u8, 1, 1, "element 1 of the vector is not a whole number of 0 to 255"},
    {"{\"e\":[[256]]}", &bits, 1, 8, "element 1 of the vector is not a whole number of 0 to 255"},
    {"{\"e\":[[1,2]]}", &bits, 1, 8, "the vector has more than the expected 8 dimensions"},
    {"{\"e\":[[1]]}", &bits, 1, 12, "the vector has dimension 8, expected 12"},
    {"{\"x\":" D32 "]", &openai, 1, 1, "nesting deeper than 32 at byte 36"},
    {D32 "[", &openai, 1, 1, "nesting deeper than 32 at byte 32"},
    {"{\"a\":1,}", &openai, 1, 1, "invalid JSON at byte 7"},
    {"{\"a\" 1}", &openai, 1, 1, "invalid JSON at byte 5"},
    {"{a:1}", &openai, 1, 1, "invalid JSON at byte 1"},
    {"{,}", &openai, 1, 1, "invalid JSON at byte 1"},
    {"{\"a\":[1,]}", &openai, 1, 1, "invalid JSON at byte 8"},
    {"{\"a\":[1}", &openai, 1, 1, "invalid JSON at byte 7"},
    {"{\"a\":{]", &openai, 1, 1, "invalid JSON at byte 6"},
    {"{\"a\":01}", &openai, 1, 1, "invalid JSON at byte 6"},
    {"{\"a\":1.}", &openai, 1, 1, "invalid JSON at byte 7"},
    {"{\"a\":+1}", &openai, 1, 1, "invalid JSON at byte 5"},
    {"{\"a\":tru}", &openai, 1, 1, "invalid JSON at byte 8"},
    {"{\"a\":nulll}", &openai, 1, 1, "invalid JSON at byte 9"},
    {"{\"a\":'x'}", &openai, 1, 1, "invalid JSON at byte 5"},
    {"]", &openai, 1, 1, "invalid JSON at byte 0"},
    {"// x", &openai, 1, 1, "invalid JSON at byte 0"},
    {"{\"a\":\"\n\"}", &openai, 1, 1, "a control character in a string at byte 6"},
    {"{\"a\":\"\\x\"}", &openai, 1, 1, "a wrong escape in a string at byte 7"},
    {"{\"a\":\"\\u12g4\"}", &openai, 1, 1, "a wrong escape in a string at byte 10"},
    {"{\"a\":\"\\ud800\"}", &openai, 1, 1, "a wrong escape in a string at byte 12"},
    {"{\"a\":\"\\ud800\\n\"}", &openai, 1, 1, "a wrong escape in a string at byte 13"},
    {"{\"a\":\"\\ud800\\ud800\"}", &openai, 1, 1, "a wrong escape in a string at byte 17"},
    {"{\"a\":\"\\udc00\"}", &openai, 1, 1, "a wrong escape in a string at byte 11"},
    {"{\"a\":\"\x80\"}", &openai, 1, 1, "a string is not UTF-8 at byte 6"},
    {"{\"a\":\"\xC0\x80\"}", &openai, 1, 1, "a string is not UTF-8 at byte 6"},
    {"{\"a\":\"\xED\xA0\x80\"}", &openai, 1, 1, "a string is not UTF-8 at byte 7"},
    {"{\"a\":\"\xF4\x90\x80\x80\"}", &openai, 1, 1, "a string is not UTF-8 at byte 7"},
    {"{\"a\":\"\xE2\x82\"}", &openai, 1, 1, "a string is not UTF-8 at byte 8"},
    {"{\"\xFF\":1}", &openai, 1, 1, "a string is not UTF-8 at byte 2"},
    /* inside items nothing is kept, but all is checked */
    {"{\"data\":[{\"x\":\"\x80\"}]}", &openai, 1, 1, "a string is not UTF-8 at byte 15"},
    {"{\"data\":[{\"x\":[1,]}]}", &openai, 1, 1, "invalid JSON at byte 17"},
    {"{\"data\":[{\"x\":1e}]}", &openai, 1, 1, "invalid JSON at byte 16"},
};

#define BADS (sizeof(bads) / sizeof(*bads))

static void check_bad(const struct bad *b, struct mp__decoder *d)
{
    assert_int_equal(mp__decoder_finish(d), MP__EDECODE);
    if (strcmp(mp__decoder_error(d), b->error) != 0)
        fail_msg("%s: \"%s\", wanted \"%s\"", b->text, mp__decoder_error(d), b->error);
    /* It stays. */
    assert_int_equal(mp__decoder_feed(d, "[]", 2), MP__EDECODE);
    assert_string_equal(mp__decoder_error(d), b->error);
}

static void test_bad(void **state)
{
    struct sink s;
    size_t i, cut, k, n;

    (void)state;
    for (i = 0; i < BADS; i++) {
        n = strlen(bads[i].text);
        for (cut = 0; cut <= n + 1; cut++) {
            struct mp__decoder *d = start(&s, bads[i].shape, bads[i].items, bads[i].dim);

            if (cut <= n) {
                feed_copy(d, bads[i].text, cut);
                feed_copy(d, bads[i].text + cut, n - cut);
            } else {
                for (k = 0; k < n; k++)
                    feed_copy(d, bads[i].text + k, 1);
            }
            check_bad(&bads[i], d);
            mp__decoder_free(d);
        }
    }
}

static void test_limits(void **state)
{
    struct sink s = {0};
    struct mp__decoder_cfg cfg = {&tei, 1, 0, 4, 16, row, &s};
    static const struct mp__shape deep = {"a.b.c.d.e.f.g", NULL, NULL, MP__F32};
    static const struct mp__shape many = {"a|b|c|d|e", NULL, NULL, MP__F32};
    struct mp__decoder *d = mp__decoder_new(&cfg);

    (void)state;
    assert_int_equal(whole(d, "[[1,2,3,4]]", 11), 0);
    assert_int_equal(mp__decoder_dim(d), 4);
    assert_int_equal(mp__decoder_reset(d, &cfg), 0);
    assert_int_equal(whole(d, "[[1,2,3,4,5]]", 13), MP__EDECODE);
    assert_string_equal(mp__decoder_error(d), "the vector has more than 4 dimensions");
    mp__decoder_reset(d, &cfg);
    assert_int_equal(whole(d, "{\"a\":\"0123456789\"}", 18), MP__EDECODE);
    assert_string_equal(mp__decoder_error(d),
                        "the reply has more than 16 bytes besides its vectors");
    mp__decoder_reset(d, &cfg);
    s.fail = 1;
    assert_int_equal(whole(d, "[[1]]", 5), MP_ENOMEM);
    s.fail = 0;
    cfg.shape = &deep;
    assert_int_equal(mp__decoder_reset(d, &cfg), MP_EINVAL);
    cfg.shape = &many;
    assert_int_equal(mp__decoder_reset(d, &cfg), MP_EINVAL);
    cfg.shape = &tei;
    assert_int_equal(mp__decoder_reset(d, &cfg), 0);
    assert_int_equal(whole(d, "[[1]]", 5), 0);
    mp__decoder_free(d);
    mp__decoder_free(NULL);
}

static void check_usage(const char *text, int64_t prompt, int64_t total, const char *model)
{
    struct sink s;
    struct mp__decoder *d = start(&s, &openai, 0, 0);
    int64_t p, t;
    size_t n = 0;
    const char *m;

    assert_int_equal(whole(d, text, strlen(text)), 0);
    mp__decoder_usage(d, &p, &t);
    assert_int_equal(p, prompt);
    assert_int_equal(t, total);
    m = mp__decoder_model(d, &n);
    if (model == NULL)
        assert_null(m);
    else
        assert_true(n == strlen(model) && memcmp(m, model, n) == 0);
    mp__decoder_free(d);
}

static void test_usage(void **state)
{
    (void)state;
    check_usage("{\"data\":[]}", -1, -1, NULL);
    check_usage(
        "{\"usage\":{\"total_tokens\":12,\"prompt_tokens\":11},\"model\":\"a-b\",\"data\":[]}", 11,
        12, "a-b");
    check_usage("{\"data\":[],\"meta\":{\"billed_units\":{\"input_tokens\":3}}}", 3, -1, NULL);
    check_usage("{\"data\":[],\"x\":{\"usage\":{\"prompt_tokens\":1}},\"usage\":null,\"model\":7}",
                -1, -1, NULL);
    check_usage(
        "{\"data\":[],\"usage\":{\"prompt_tokens\":-3,\"total_tokens\":99999999999999999999}}", -1,
        -1, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_every_split),
        cmocka_unit_test(test_every_truncation),
        cmocka_unit_test(test_bad),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_usage),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

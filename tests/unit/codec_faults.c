/*
 * codec_faults.c - replies that deviate: positions not named or oddly written, and vectors that are
 * wrong, each of which costs its own row and no other.
 */
#include "codec_decode_rig.h"

static const struct mp__shape tei = {"", NULL, NULL, MP__F32};
static const struct mp__shape i8 = {"e", NULL, NULL, MP__I8};

#define E(v)      "{\"embedding\":" v "}"
#define AT(i, v)  "{\"index\":" i ",\"embedding\":" v "}"
#define IN(i, v)  "{\"embedding\":" v ",\"index\":" i "}"
#define DATA(...) "{\"data\":[" __VA_ARGS__ "]}"

struct reply {
    const char *text;
    const struct mp__shape *shape;
    uint32_t items;
    uint32_t dim;
    const char *rows;   /* a character a row: its first element, '-' for none */
    const char *faults; /* "row why|row why", rows from 0 */
};

static const struct reply replies[] = {
    /* the order stands in for an index that is missing */
    {DATA(E("[1]") "," AT("1", "[2]") "," IN("2", "[3]")), &openai, 3, 1, "123", ""},
    {DATA(E("[1]") "," E("[2]") "," E("[3]")), &openai, 3, 0, "123", ""},
    {DATA(AT("null", "[1]") "," IN("null", "[2]")), &openai, 2, 0, "12", ""},
    {DATA(AT("2", "[3]") "," E("[2]") "," AT("0", "[1]")), &openai, 3, 0, "123", ""},
    /* positions that are written otherwise */
    {DATA(AT("\"1\"", "[2]") "," AT("\"0\"", "[1]")), &openai, 2, 0, "12", ""},
    {DATA(IN("1.0", "[2]") "," AT("0.0", "[1]")), &openai, 2, 1, "12", ""},
    {DATA(IN("1e0", "\"AAAAQA==\"") "," AT("-0", "\"AACAPw==\"")), &openai, 2, 0, "12", ""},
    /* a vector that is no vector */
    {DATA(AT("0", "null") "," AT("1", "[2]")), &openai, 2, 0, "-2", "0 the vector is null"},
    {DATA(IN("1", "null") "," IN("0", "[1]")), &openai, 2, 0, "1-", "1 the vector is null"},
    {DATA("null," AT("1", "[2]")), &openai, 2, 1, "-2", "0 the vector is null"},
    {DATA("7," AT("1", "[2]")), &openai, 2, 1, "-2", "0 its item is not an object"},
    {DATA(AT("0", "[1]") ",{\"index\":1}"), &openai, 2, 1, "1-", "1 its item has no vector"},
    {DATA(AT("0", "{\"a\":[NaN]}") "," AT("1", "[2]")), &openai, 2, 1, "-2",
     "0 the vector is not a list"},
    {DATA(AT("0", "true") "," AT("1", "[2]")), &openai, 2, 1, "-2", "0 the vector is not a list"},
    {DATA(AT("0", "NaN") "," AT("1", "-1.5e3")), &openai, 2, 1, NULL,
     "no vector of 2 is sound; the first: the vector is not a list"},
    {"[[1],null,[3]]", &tei, 3, 0, "1-3", "1 the vector is null"},
    {"[[1],{\"error\":[\"x\"]},[3]]", &tei, 3, 1, "1-3", "1 the vector is not a list"},
    {"[[1],[],[ ],\"\",[5]]", &tei, 5, 1, "1---5",
     "1 the vector is empty|2 the vector is empty|3 the vector is empty"},
    /* elements */
    {"[[1,1],[null,2],[3,null],[4,4]]", &tei, 4, 0, "1--4",
     "1 element 1 of the vector is null|2 element 2 of the vector is null"},
    {"[[NaN],[-Infinity],[ Infinity ,1],[4]]", &tei, 4, 0, "---4",
     "0 element 1 of the vector is NaN or infinite|1 element 1 of the vector is NaN or infinite|"
     "2 element 1 of the vector is NaN or infinite"},
    {"[[1,\"x\",{\"a\":[NaN,-Infinity,\"\\u00e9\"]},[]],[2,[[3]]],[4]]", &tei, 3, 1, "--4",
     "0 element 2 of the vector is not a number|1 element 2 of the vector is not a number"},
    {"[[1e39,5],[2,-1e40],[3,3]]", &tei, 3, 2, "--3",
     "0 element 1 of the vector is too large for float32|"
     "1 element 2 of the vector is too large for float32"},
    {"[\"AADAfw==\",\"AACAPw==\"]", &tei, 2, 0, "-1", "0 NaN or infinity in the vector"},
    {"{\"e\":[[1],[200],[3]]}", &i8, 3, 1, "1-3",
     "1 element 1 of the vector is not a whole number of -128 to 127"},
    {"{\"e\":[\"AQ==\",\"A*==\",\"Aw==\"]}", &i8, 3, 0, "1-3", "1 the vector is not base64"},
    /* base64 */
    {"[\"AACAPw==\",\"AAC*Pw\\n\\u00e9\xC3\xA9\",\"AABAQA==\"]", &tei, 3, 0, "1-3",
     "1 the vector is not base64"},
    {"[\"AACAPw==\",\"AAC\\u00e9\",\"AABAQA==\"]", &tei, 3, 1, "1-3", "1 the vector is not base64"},
    {"[\"AACAPw==\",\"AACAP\",\"AABAQA==\"]", &tei, 3, 1, "1-3",
     "1 the vector is not base64: its end is wrong"},
    {"[\"AACAPw==\",\"AAA=\",\"AABAQA==\"]", &tei, 3, 1, "1-3",
     "1 the vector is base64 of 2 bytes, not a multiple of 4"},
    {"[\"AACAPw==\",\"AABAQAAAQEAAAEBA\",\"AABAQA==\"]", &tei, 3, 1, "1-3",
     "1 the vector has more than the expected 1 dimensions"},
    /* another length */
    {"[[1,2],[1],[3,3]]", &tei, 3, 2, "1-3", "1 the vector has dimension 1, expected 2"},
    {"[[1,2],[1,2,3],[3,3]]", &tei, 3, 2, "1-3",
     "1 the vector has more than the expected 2 dimensions"},
    /* the dimension that two agree on, whatever comes first */
    {"[[1,2,3],[2,2],[3,3]]", &tei, 3, 0, "-23", "0 the vector has dimension 3, expected 2"},
    {DATA(IN("2", "[1,2,3]") "," AT("1", "[2,2]") "," E("[9]") "," AT("0", "[1,1]")), &openai, 4, 0,
     NULL, "duplicate index 2"},
    {DATA(IN("2", "[1,2,3]") "," AT("1", "[2,2]") "," AT("3", "[9]") "," AT("0", "[1,1]")), &openai,
     4, 0, "12--",
     "2 the vector has dimension 3, expected 2|3 the vector has dimension 1, expected 2"},
    {"[[1],[2,2]]", &tei, 2, 0, "1-", "1 the vector has dimension 2, expected 1"},
    {"[[1],[2,2],[3,3,3],[4,4,4,4],[5,5,5,5,5],[6]]", &tei, 6, 0, "1----6",
     "1 the vector has dimension 2, expected 1|2 the vector has dimension 3, expected 1|"
     "3 the vector has dimension 4, expected 1|4 the vector has dimension 5, expected 1"},
    /* items that do not come, while the others say who they are */
    {DATA(AT("0", "[1]") "," AT("2", "[3]")), &openai, 3, 0, "1-3",
     "1 the reply has no vector for it"},
    {DATA(IN("3", "[4]")), &openai, 4, 1, "---4",
     "0 the reply has no vector for it|1 the reply has no vector for it|"
     "2 the reply has no vector for it"},
    {DATA(AT("0", "[1]") "," E("[3]")), &openai, 3, 0, NULL, "reply has 2 vectors, 3 were sent"},
    {DATA(), &openai, 3, 0, NULL, "reply has 0 vectors, 3 were sent"},
    /* contradictions, and what is no JSON */
    {DATA(E("[1]") "," AT("0", "[2]")), &openai, 2, 0, NULL, "duplicate index 0"},
    {DATA(AT("1", "[1]") "," E("[2]")), &openai, 2, 0, NULL, "duplicate index 1"},
    {DATA(AT("\"\"", "[1]")), &openai, 1, 0, NULL, "item 1: \"index\" is not a position"},
    {DATA(AT("\" 0\"", "[1]")), &openai, 1, 0, NULL, "item 1: \"index\" is not a position"},
    {DATA(AT("\"\\u0030\"", "[1]")), &openai, 1, 0, NULL, "item 1: \"index\" is not a position"},
    {DATA(AT("true", "[1]")), &openai, 1, 0, NULL, "item 1: \"index\" is not a position"},
    {DATA(AT("0", "null") "," IN("1", "[1],\"embedding\":null")), &openai, 2, 0, NULL,
     "item 2 has two vectors"},
    {"[[1],[null,tru]]", &tei, 2, 0, NULL, "invalid JSON at byte 14"},
    {"[[1],[null 1]]", &tei, 2, 0, NULL, "invalid JSON at byte 11"},
    {"{\"a\":NaN,\"data\":[]}", &openai, 0, 0, NULL, "invalid JSON at byte 5"},
    {DATA("{\"embedding\":null,\"x\":NaN}"), &openai, 1, 0, NULL, "invalid JSON at byte 31"},
};

#define REPLIES (sizeof(replies) / sizeof(*replies))

static void check_faults(struct mp__decoder *d, const char *want, const char *text)
{
    char got[600] = "", why[128];
    uint32_t k, row;
    size_t n = 0;

    for (k = 0; k < mp__decoder_faults(d); k++) {
        row = mp__decoder_fault(d, k, why, sizeof(why));
        n += (size_t)snprintf(got + n, sizeof(got) - n, "%s%u %s", k != 0 ? "|" : "", row, why);
    }
    if (strcmp(got, want) != 0)
        fail_msg("%s: faults \"%s\", wanted \"%s\"", text, got, want);
}

static void check_reply(const struct reply *r, struct mp__decoder *d, struct sink *s)
{
    uint32_t i, good = 0;

    if (r->rows == NULL) {
        assert_int_equal(mp__decoder_finish(d), MP__EDECODE);
        if (strcmp(mp__decoder_error(d), r->faults) != 0)
            fail_msg("%s: \"%s\", wanted \"%s\"", r->text, mp__decoder_error(d), r->faults);
        return;
    }
    if (mp__decoder_finish(d) != 0)
        fail_msg("%s: %s", r->text, mp__decoder_error(d));
    check_faults(d, r->faults, r->text);
    for (i = 0; i < r->items; i++) {
        if (r->rows[i] == '-')
            continue;
        good++;
        if (s->rows[i][0] != (float)(r->rows[i] - '0'))
            fail_msg("%s: row %u begins with %g", r->text, i, (double)s->rows[i][0]);
    }
    assert_int_equal(mp__decoder_items(d), good);
}

static void test_replies(void **state)
{
    struct sink s;
    size_t i, cut, k;

    (void)state;
    for (i = 0; i < REPLIES; i++) {
        const struct reply *r = &replies[i];
        size_t n = strlen(r->text);

        for (cut = 0; cut <= n + 1; cut++) {
            struct mp__decoder *d = start(&s, r->shape, r->items, r->dim);

            if (cut <= n) {
                feed_copy(d, r->text, cut);
                feed_copy(d, r->text + cut, n - cut);
            } else {
                for (k = 0; k < n; k++)
                    feed_copy(d, r->text + k, 1);
            }
            check_reply(r, d, &s);
            mp__decoder_free(d);
        }
    }
}

/* A decoder that is used again knows nothing of its last reply's faults and held vectors. */
static void test_again(void **state)
{
    struct sink s = {0};
    struct mp__decoder_cfg cfg = {&tei, 3, 0, 0, 0, row, &s};
    struct mp__decoder *d = mp__decoder_new(&cfg);

    (void)state;
    feed_copy(d, "[[1,1],null", 11);
    assert_int_equal(mp__decoder_finish(d), MP__EDECODE);
    assert_int_equal(mp__decoder_reset(d, &cfg), 0);
    feed_copy(d, "[[1],[2],[3]]", 13);
    assert_int_equal(mp__decoder_finish(d), 0);
    assert_int_equal(mp__decoder_faults(d), 0);
    assert_int_equal(mp__decoder_dim(d), 1);
    assert_true(s.rows[0][0] == 1 && s.rows[2][0] == 3);
    mp__decoder_free(d);
}

/* Another reply of the same call has settled the dimension meanwhile. */
struct elsewhere {
    struct sink s;
    struct mp__decoder *d;
    uint32_t dim;
};

static float *row_elsewhere(void *arg, uint32_t item, uint32_t dim)
{
    struct elsewhere *e = arg;

    if (dim == e->dim)
        return row(&e->s, item, dim);
    mp__decoder_expect(e->d, e->dim);
    return NULL;
}

static void test_expect(void **state)
{
    struct elsewhere e = {.dim = 2};
    struct mp__decoder_cfg cfg = {&tei, 4, 0, 0, 0, row_elsewhere, &e};

    (void)state;
    e.d = mp__decoder_new(&cfg);
    feed_copy(e.d, "[[1],[2],[3,3],[4]]", 19);
    assert_int_equal(mp__decoder_finish(e.d), 0);
    check_faults(
        e.d,
        "0 the vector has dimension 1, expected 2|1 the vector has dimension 1, expected 2|"
        "3 the vector has dimension 1, expected 2",
        "expect");
    assert_true(e.s.rows[2][0] == 3);
    mp__decoder_free(e.d);
}

static void test_learnt_bound(void **state)
{
    struct sink s = {0};
    struct mp__decoder_cfg cfg = {&tei, 2, 0, 4, 0, row, &s};
    struct mp__decoder *d = mp__decoder_new(&cfg);

    (void)state;
    feed_copy(d, "[[1,2,3,4,5,6,null,[NaN]],[1,2,3]]", 34);
    assert_int_equal(mp__decoder_finish(d), 0);
    check_faults(d, "0 the vector has more than 4 dimensions", "bound");
    cfg.dim = 5; /* what was asked for may be more */
    assert_int_equal(mp__decoder_reset(d, &cfg), 0);
    feed_copy(d, "[[1,2,3,4,5],[1,2,3,4,5]]", 25);
    assert_int_equal(mp__decoder_finish(d), 0);
    mp__decoder_free(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replies),
        cmocka_unit_test(test_again),
        cmocka_unit_test(test_expect),
        cmocka_unit_test(test_learnt_bound),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

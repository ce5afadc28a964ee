/*
 * codec_layout.c - replies that are no plain list of vectors: one vector, a flat tensor, bytes laid
 * out by a header, vectors and counts deep in their items.
 */
#include "codec_decode_rig.h"

static const struct mp__shape vertex = {.list = "predictions",
                                        .vector = "embeddings.values",
                                        .tokens = "embeddings.statistics.token_count",
                                        .cut = "embeddings.statistics.truncated"};
static const struct mp__shape titan = {
    .list = "embedding", .layout = MP__ONE, .usage = "inputTextTokenCount"};
static const struct mp__shape kserve = {.list = "outputs.0.data",
                                        .layout = MP__TENSOR,
                                        .dims = "outputs.0.shape",
                                        .kind = "outputs.0.datatype"};
static const struct mp__shape packed = {
    .list = "data", .vector = "embedding", .index = "index", .layout = MP__PACKED};

struct reply {
    const struct mp__shape *shape;
    const char *header; /* NULL: none */
    const char *body;
    size_t n;
    uint32_t items, dim;
};

/* Decodes in chunks of `chunk` bytes; the decoder is the caller's. */
static struct mp__decoder *decode(const struct reply *r, struct sink *s, size_t chunk)
{
    struct mp__decoder *d = start(s, r->shape, r->items, r->dim);
    size_t at, n;

    if (r->header != NULL)
        mp__decoder_header(d, r->header, strlen(r->header));
    for (at = 0; at < r->n; at += n) {
        n = r->n - at < chunk ? r->n - at : chunk;
        feed_copy(d, r->body + at, n);
    }
    mp__decoder_finish(d);
    return d;
}

/* want: items x dims numbers. At every chunk size, and with the dimension known and not. */
static void good(struct reply r, uint32_t dims, const float *want, int64_t tokens)
{
    struct sink s;
    struct mp__decoder *d;
    int64_t prompt, total;
    size_t chunk;
    uint32_t i, k;

    for (r.dim = 0; r.dim <= dims; r.dim += dims)
        for (chunk = 1; chunk <= r.n; chunk++) {
            d = decode(&r, &s, chunk);
            assert_string_equal(mp__decoder_error(d), "");
            assert_int_equal(mp__decoder_dim(d), dims);
            assert_int_equal(mp__decoder_items(d), r.items);
            for (i = 0; i < r.items; i++) {
                assert_int_equal(s.calls[i], 1);
                for (k = 0; k < dims; k++)
                    assert_true(s.rows[i][k] == want[i * dims + k]);
            }
            mp__decoder_usage(d, &prompt, &total);
            assert_int_equal(prompt, tokens);
            mp__decoder_free(d);
        }
}

static void bad(struct reply r, const char *part)
{
    struct sink s;
    struct mp__decoder *d;
    size_t chunk;

    for (chunk = 1; chunk <= r.n + 1; chunk++) {
        d = decode(&r, &s, chunk);
        if (strstr(mp__decoder_error(d), part) == NULL)
            fail_msg("'%s' does not say '%s'", mp__decoder_error(d), part);
        mp__decoder_free(d);
    }
}

#define TEXT(shape, items, text)                                                                   \
    (struct reply)                                                                                 \
    {                                                                                              \
        &(shape), NULL, (text), sizeof(text) - 1, (items), 0                                       \
    }
#define BYTES(shape, items, head, bytes)                                                           \
    (struct reply)                                                                                 \
    {                                                                                              \
        &(shape), (head), (bytes), sizeof(bytes) - 1, (items), 0                                   \
    }

static const float four[] = {1, -2, 3, 4};

static void test_nested(void **state)
{
    struct sink s;
    struct mp__decoder *d;
    struct reply cut;

    (void)state;
    good(TEXT(vertex, 2,
              "{\"predictions\":[{\"embeddings\":{\"statistics\":{\"truncated\":false,"
              "\"token_count\":6},\"values\":[1,-2]}},{\"embeddings\":{\"values\":[3,4],"
              "\"values2\":[9],\"statistics\":{\"token_count\":5,\"truncated\":true}},"
              "\"values\":[7]}],\"metadata\":{}}"),
         2, four, 11);
    cut = TEXT(vertex, 1,
               "{\"predictions\":[{\"embeddings\":{\"values\":[1],\"statistics\":"
               "{\"truncated\":true,\"token_count\":null}}}]}");
    d = decode(&cut, &s, 7);
    assert_string_equal(mp__decoder_error(d), "");
    assert_int_equal(mp__decoder_cuts(d), 1);
    mp__decoder_free(d);
    bad(TEXT(vertex, 1, "{\"predictions\":[{\"embeddings\":{\"value\":[1]}}]}"),
        "its item has no vector");
    bad(TEXT(vertex, 1, "{\"predictions\":[{\"embeddings\":[{\"values\":[1]}]}]}"),
        "its item has no vector");
    bad(TEXT(vertex, 1, "{\"predictions\":[{\"embeddings\":{\"values\":[1],\"values\":[1]}}]}"),
        "two vectors");
}

static void test_one(void **state)
{
    (void)state;
    good(TEXT(titan, 1,
              "{\"embeddingsByType\":{\"float\":[1,-2,3,4]},\"embedding\":[1,-2,3,4],"
              "\"inputTextTokenCount\":5}"),
         4, four, 5);
    bad(TEXT(titan, 2, "{\"embedding\":[1,-2]}"), "reply has 1 vectors, 2 were sent");
    bad(TEXT(titan, 1, "{\"embedding\":null}"), "no list \"embedding\"");
    bad(TEXT(titan, 1, "{\"embedding\":[1],\"embedding\":[2]}"), "twice");
    bad(TEXT(titan, 1, "{\"embedding\":[[1]]}"), "is not a number");
}

static void test_tensor(void **state)
{
    (void)state;
    good(TEXT(kserve, 2,
              "{\"outputs\":[{\"name\":\"e\",\"datatype\":\"FP32\",\"shape\":[2,2],"
              "\"data\":[1,-2, 3,4]},{\"name\":\"f\",\"data\":[5]}]}"),
         2, four, -1);
    good(TEXT(kserve, 2, "{\"outputs\":[{\"data\":[[1,-2],[3,4]],\"shape\":[2,2]}]}"), 2, four, -1);
    bad(TEXT(kserve, 2, "{\"outputs\":[{\"data\":[1,-2,3]}]}"),
        "3 numbers, which are not 2 vectors");
    bad(TEXT(kserve, 2, "{\"outputs\":[{\"shape\":[4,1],\"data\":[1,-2,3,4]}]}"),
        "tensor of 4 rows, 2 were sent");
    bad(TEXT(kserve, 2, "{\"outputs\":[{\"data\":[]}]}"), "reply has 0 vectors");
    bad(TEXT(kserve, 2, "{\"outputs\":[{\"data\":[1,null]}]}"), "element 2 of the vector is null");
    bad(TEXT(kserve, 2, "{\"outputs\":[{\"data\":[1,2"), "truncated JSON");
    bad(TEXT(kserve, 1, "{\"outputs\":[{\"name\":\"e\"}]}"), "no list");
}

static void test_binary_tensor(void **state)
{
    (void)state;
#define HEAD(rows, dims, kind)                                                                     \
    "{\"outputs\":[{\"name\":\"e\",\"datatype\":\"" kind "\",\"shape\":[" rows "," dims "]}]}"
    good(BYTES(kserve, 2, "58",
               HEAD("2", "2",
                    "FP32") "\x00\x00\x80\x3f\x00\x00\x00\xc0\x00\x00\x40\x40\x00\x00\x80\x40"),
         2, four, -1);
    good(BYTES(kserve, 2, "58", HEAD("2", "2", "FP16") "\x00\x3c\x00\xc0\x00\x42\x00\x44"), 2, four,
         -1);
    good(BYTES(kserve, 2, "58", HEAD("2", "2", "BF16") "\x80\x3f\x00\xc0\x40\x40\x80\x40"), 2, four,
         -1);
    good(BYTES(kserve, 1, "58", HEAD("1", "1", "FP64") "\x00\x00\x00\x00\x00\x00\xf0\x3f"), 1, four,
         -1);
    bad(BYTES(kserve, 1, "59", HEAD("1", "1", "INT64") "\x00\x00\x80\x3f"), "no vectors");
    bad(BYTES(kserve, 2, "58", HEAD("1", "1", "FP32") "\x00\x00\x80\x3f"), "1 rows x 1");
    bad(BYTES(kserve, 1, "58", HEAD("1", "1", "FP32") "\x00\x00\x80"), "broke off");
    bad(BYTES(kserve, 1, "58", HEAD("1", "1", "FP32") "\x00\x00\x80\x3f!"), "trailing bytes");
    bad(BYTES(kserve, 1, "58", HEAD("1", "1", "FP32") "\x00\x00\xc0\x7f"),
        "NaN or infinity in the vector");
    bad(BYTES(kserve, 1, "40", HEAD("1", "1", "FP32") "\x00\x00\x80\x3f"), "in its middle");
    bad(BYTES(kserve, 1, "x", HEAD("1", "1", "FP32") "\x00\x00\x80\x3f"), "not a length");
    bad(BYTES(kserve, 1, "900", HEAD("1", "1", "FP32") "\x00\x00\x80\x3f"), "trailing bytes");
    bad(BYTES(kserve, 1, "2", "{}"), "-1 rows x -1");
}

#define AT(index, from, to, dims)                                                                  \
    "{\"index\":" #index ",\"embed_dtype\":\"float32\",\"endianness\":\"little\",\"start\":" #from \
    ",\"end\":" #to ",\"shape\":[" #dims "]}"

static void test_packed(void **state)
{
    static const char bytes[] = "\x00\x00\x80\x3f\x00\x00\x00\xc0\x00\x00\x40\x40\x00\x00\x80\x40";
    static const float swapped[] = {3, 4, 1, -2};

    (void)state;
    good(BYTES(packed, 2,
               "{\"id\":\"x\",\"model\":\"m\",\"data\":[" AT(0, 0, 8, 2) ", " AT(
                   1, 8, 16, 2) "],\"usage\":{\"prompt_tokens\":7}}",
               bytes),
         2, four, 7);
    good(BYTES(packed, 2, "{\"data\":[" AT(1, 0, 8, 2) "," AT(0, 8, 16, 2) "]}", bytes), 2, swapped,
         -1);
    good(BYTES(packed, 2, "{\"data\":[" AT(1, 8, 16, 2) "," AT(0, 0, 8, 2) "]}", bytes), 2, four,
         -1);
    good(BYTES(packed, 1,
               "{\"data\":[{\"index\":0,\"start\":0,\"end\":4,\"embed_dtype\":\"float16\","
               "\"endianness\":\"big\",\"shape\":[2]}]}",
               "\x3c\x00\xc0\x00"),
         2, four, -1);
    bad(BYTES(packed, 2, "{\"data\":[" AT(0, 0, 8, 2) "]}", bytes), "1 vectors, 2 were sent");
    bad(BYTES(packed, 1, "{\"data\":[" AT(0, 0, 8, 2) "," AT(1, 8, 16, 2) "]}", bytes),
        "more vectors than the 1");
    bad(BYTES(packed, 2, "{\"data\":[" AT(0, 0, 8, 2) "," AT(0, 8, 16, 2) "]}", bytes),
        "duplicate");
    bad(BYTES(packed, 2, "{\"data\":[" AT(0, 0, 8, 2) "," AT(2, 8, 16, 2) "]}", bytes),
        "index 2 out of range");
    bad(BYTES(packed, 2, "{\"data\":[" AT(0, 0, 4, 1) "," AT(1, 8, 16, 2) "]}", bytes), "gap");
    bad(BYTES(packed, 2, "{\"data\":[" AT(0, 0, 4, 1) "," AT(1, 4, 16, 3) "]}", bytes),
        "vector 2 has dimension 3");
    bad(BYTES(packed, 1, "{\"data\":[" AT(0, 0, 16, 8) "]}", bytes), "makes no sense");
    bad(BYTES(packed, 1,
              "{\"data\":[{\"index\":0,\"start\":0,\"end\":8,\"embed_dtype\":\"fp8_e4m3\"}]}",
              bytes),
        "not known: \"fp8_e4m3\"");
    bad(BYTES(packed, 1, "{}", bytes), "no list \"data\"");
    bad(BYTES(packed, 1, "[\"data", bytes), "no list \"data\"");
    bad(BYTES(packed, 1, "{\"data\":[" AT(0, 0, 32, 8) "]}", bytes), "broke off");
    /* a server that does not know of bytes answers JSON, and no header */
    good(TEXT(packed, 1, "{\"data\":[{\"index\":0,\"embedding\":[1,-2,3,4]}]}"), 4, four, -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nested), cmocka_unit_test(test_one),
        cmocka_unit_test(test_tensor), cmocka_unit_test(test_binary_tensor),
        cmocka_unit_test(test_packed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

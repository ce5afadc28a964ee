/* engine_reply.c - rows of a matrix as a service's reply, and back through the decoder. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "moonpool.h"

static mp_matrix *two_rows(void)
{
    static const float values[] = {0.25f, -1, 1e-7f, 3, 0.1f, 0};
    mp_matrix *m = mp_matrix_new(2, 3);
    memcpy(mp_matrix_data(m), values, sizeof(values));
    return m;
}

static struct mp_reply reply_of(mp_matrix *m, uint32_t style, uint32_t format)
{
    struct mp_reply r = MP_INIT(struct mp_reply);
    r.matrix = m;
    r.style = style;
    r.format = format;
    r.model = "m\"1";
    r.id = "x";
    r.prompt_tokens = 7;
    r.total_tokens = -1;
    return r;
}

static void expect(const struct mp_reply *r, const char *text)
{
    char *out;
    size_t n;
    assert_int_equal(mp_reply_write(r, &out, &n), 0);
    assert_int_equal(strlen(out), n);
    assert_string_equal(out, text);
    mp_free(out);
}

static void each_style_has_its_words(void **state)
{
    mp_matrix *m = two_rows();
    (void)state;
    struct mp_reply r = reply_of(m, MP_REPLY_OPENAI, MP_FORMAT_FLOAT);
    expect(&r, "{\"object\":\"list\",\"data\":[{\"object\":\"embedding\",\"index\":0,\"embedding\":"
               "[0.25,-1,1e-7]},{\"object\":\"embedding\",\"index\":1,\"embedding\":[3,0.1,0]}],"
               "\"model\":\"m\\\"1\",\"usage\":{\"prompt_tokens\":7,\"total_tokens\":7}}");
    r.style = MP_REPLY_TEI;
    expect(&r, "[[0.25,-1,1e-7],[3,0.1,0]]");
    r.style = MP_REPLY_COHERE;
    expect(&r, "{\"id\":\"x\",\"embeddings\":{\"float\":[[0.25,-1,1e-7],[3,0.1,0]]},\"meta\":{"
               "\"api_version\":{\"version\":\"2\"},\"billed_units\":{\"input_tokens\":7}},"
               "\"response_type\":\"embeddings_by_type\"}");
    r.style = MP_REPLY_OLLAMA;
    r.total_time = 0.5;
    expect(&r, "{\"model\":\"m\\\"1\",\"embeddings\":[[0.25,-1,1e-7],[3,0.1,0]],"
               "\"total_duration\":500000000,\"load_duration\":0,\"prompt_eval_count\":7}");
    mp_matrix_unref(m);
}

static void rows_are_chosen_and_base64_is_their_bytes(void **state)
{
    mp_matrix *m = two_rows();
    size_t rows[] = {1, 0, 1};
    (void)state;
    struct mp_reply r = reply_of(m, MP_REPLY_TEI, MP_FORMAT_FLOAT);
    r.rows = rows;
    r.nrows = 3;
    expect(&r, "[[3,0.1,0],[0.25,-1,1e-7],[3,0.1,0]]");
    r.nrows = 0;
    expect(&r, "[]");
    r = reply_of(m, MP_REPLY_TEI, MP_FORMAT_FLOAT);
    r.first = 1;
    expect(&r, "[[3,0.1,0]]");
    r.first = 2;
    expect(&r, "[]");
    r.first = 0;
    r.nrows = 1;
    expect(&r, "[[0.25,-1,1e-7]]");
    r = reply_of(m, MP_REPLY_OPENAI, MP_FORMAT_BASE64);
    r.rows = rows;
    r.nrows = 1;
    expect(&r, "{\"object\":\"list\",\"data\":[{\"object\":\"embedding\",\"index\":0,\"embedding\":"
               "\"AABAQM3MzD0AAAAA\"}],\"model\":\"m\\\"1\",\"usage\":{\"prompt_tokens\":7,"
               "\"total_tokens\":7}}");
    r = reply_of(m, MP_REPLY_OPENAI, MP_FORMAT_BYTES);
    char *out;
    size_t n;
    assert_int_equal(mp_reply_write(&r, &out, &n), 0);
    assert_int_equal(n, 6 * sizeof(float));
    assert_memory_equal(out, mp_matrix_data(m), n);
    mp_free(out);
    mp_matrix_unref(m);
}

static void refused(const struct mp_reply *r, const char *why)
{
    char *out = "untouched";
    size_t n;
    assert_int_equal(mp_reply_write(r, &out, &n), MP_EINVAL);
    assert_non_null(strstr(mp_last_error(), why));
}

static void what_cannot_be_said_is_refused(void **state)
{
    mp_matrix *m = two_rows();
    size_t rows[] = {0, 2};
    (void)state;
    struct mp_reply r = reply_of(m, MP_REPLY_TEI, MP_FORMAT_BASE64);
    refused(&r, "no base64");
    r.format = 3;
    refused(&r, "format");
    r = reply_of(m, 9, MP_FORMAT_FLOAT);
    refused(&r, "style");
    r = reply_of(NULL, MP_REPLY_TEI, MP_FORMAT_FLOAT);
    refused(&r, "matrix");
    r = reply_of(m, MP_REPLY_TEI, MP_FORMAT_FLOAT);
    r.rows = rows;
    r.nrows = 2;
    refused(&r, "rows[1]");
    r.rows = NULL;
    r.first = 1;
    refused(&r, "2 rows from 1");
    r.first = SIZE_MAX;
    r.nrows = 1;
    refused(&r, "rows from");
    r = reply_of(m, MP_REPLY_OPENAI, MP_FORMAT_FLOAT);
    r.model = "\xff";
    refused(&r, "UTF-8");
    for (uint32_t format = MP_FORMAT_FLOAT; format <= MP_FORMAT_BYTES; format++) {
        r = reply_of(m, MP_REPLY_OPENAI, format);
        mp_matrix_data(m)[4] = NAN;
        refused(&r, "row 2");
        mp_matrix_data(m)[4] = INFINITY;
        refused(&r, "row 2");
    }
    r.size = 0;
    refused(&r, "size");
    assert_int_equal(mp_reply_write(NULL, NULL, NULL), MP_EINVAL);
    mp_matrix_unref(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_style_has_its_words),
        cmocka_unit_test(rows_are_chosen_and_base64_is_their_bytes),
        cmocka_unit_test(what_cannot_be_said_is_refused),
    };
    return cmocka_run_group_tests_name("engine_reply", tests, NULL, NULL);
}

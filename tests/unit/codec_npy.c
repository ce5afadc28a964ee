/*
 * codec_npy.c - .npy files: the bytes of the format, the round trip, hostile headers.
 */
#include "codec/npy.h"
#include "codec/vec.h"
#include "codec_util.h"

#include <unistd.h>

static int temp_fd(void)
{
    char name[] = "/tmp/codec_npy_XXXXXX";
    int fd = mkstemp(name);

    assert_true(fd >= 0);
    unlink(name);
    return fd;
}

static void test_header_bytes(void **state)
{
    static const char dict[] = "{'descr': '<f4', 'fortran_order': False, 'shape': (7, 256), }";
    char h[MP__NPY_HEADER], small[MP__NPY_HEADER - 1];
    size_t i;

    (void)state;
    assert_int_equal(mp__npy_header(h, sizeof(h), 7, 256, 0), MP__NPY_HEADER);
    assert_memory_equal(h, "\x93NUMPY\x01\x00\x76\x00", 10); /* 118 = 128 - 10, little-endian */
    assert_memory_equal(h + 10, dict, sizeof(dict) - 1);
    for (i = 10 + sizeof(dict) - 1; i < sizeof(h) - 1; i++)
        assert_int_equal(h[i], ' ');
    assert_int_equal(h[sizeof(h) - 1], '\n');
    assert_int_equal(sizeof(h) % 64, 0);
    mp__npy_header(h, sizeof(h), UINT64_MAX, UINT32_MAX, 1);
    assert_non_null(strstr(h + 10, "'<f2'"));
    assert_non_null(strstr(h + 10, "(18446744073709551615, 4294967295), } "));
    assert_int_equal(h[sizeof(h) - 1], '\n');
    assert_int_equal(mp__npy_header(small, sizeof(small), 1, 1, 0), MP_EINVAL);
}

static void round_trip(int f16)
{
    float rows[5 * 3], *p;
    struct mp__npy_writer w;
    char err[100];
    int fd = temp_fd();
    mp_matrix *m;
    size_t i;

    for (i = 0; i < 15; i++)
        rows[i] = (float)i * 0.25f;
    assert_int_equal(mp__npy_create(&w, fd, 3, f16), 0);
    assert_int_equal(mp__npy_append(&w, rows, 2), 0);
    assert_int_equal(mp__npy_write_at(&w, 4, rows + 12, 1), 0); /* leaves a hole of zeros */
    assert_int_equal(w.rows, 5);
    assert_int_equal(mp__npy_finish(&w), 0);
    m = mp__npy_load(fd, err, sizeof(err));
    assert_non_null(m);
    assert_int_equal(mp_matrix_rows(m), 5);
    assert_int_equal(mp_matrix_cols(m), 3);
    p = mp_matrix_data(m);
    assert_memory_equal(p, rows, 6 * sizeof(float));
    assert_true(p[6] == 0 && p[11] == 0);
    assert_memory_equal(p + 12, rows + 12, 3 * sizeof(float));
    mp_matrix_unref(m);
    /* A crash: half a row at the end, the count never corrected. */
    assert_int_equal(pwrite(fd, "xx", 2, lseek(fd, 0, SEEK_END)), 2);
    assert_int_equal(mp__npy_reopen(&w, fd), 0);
    assert_int_equal(w.rows, 5);
    assert_int_equal(w.f16, f16);
    assert_int_equal(mp__npy_append(&w, rows + 3, 1), 0);
    assert_int_equal(mp__npy_finish(&w), 0);
    assert_int_equal(lseek(fd, 0, SEEK_END), MP__NPY_HEADER + 6 * 3 * (f16 ? 2 : 4));
    m = mp__npy_load(fd, err, sizeof(err));
    assert_memory_equal(mp_matrix_data(m) + 15, rows + 3, 3 * sizeof(float));
    mp_matrix_unref(m);
    close(fd);
}

static void test_round_trip(void **state)
{
    (void)state;
    round_trip(0);
    round_trip(1);
}

static void test_big_half(void **state)
{
    /* More than one block of the converter, on both sides. */
    size_t n = 70000, i;
    float *rows = malloc(n * sizeof(float));
    struct mp__npy_writer w;
    int fd = temp_fd();
    char err[100];
    mp_matrix *m;

    (void)state;
    for (i = 0; i < n; i++)
        rows[i] = mp__f32_from_f16((uint16_t)(i % 0x7C00));
    assert_int_equal(mp__npy_create(&w, fd, 7, 1), 0);
    assert_int_equal(mp__npy_append(&w, rows, n / 7), 0);
    assert_int_equal(mp__npy_finish(&w), 0);
    m = mp__npy_load(fd, err, sizeof(err));
    assert_non_null(m);
    assert_memory_equal(mp_matrix_data(m), rows, n * sizeof(float));
    mp_matrix_unref(m);
    free(rows);
    close(fd);
}

static mp_matrix *load_text(const char *magic, size_t magic_n, const char *dict, const void *data,
                            size_t n, char *err, size_t cap)
{
    int fd = temp_fd();
    mp_matrix *m;

    assert_int_equal(write(fd, magic, magic_n), magic_n);
    assert_int_equal(write(fd, dict, strlen(dict)), strlen(dict));
    if (n != 0)
        assert_int_equal(write(fd, data, n), n);
    m = mp__npy_load(fd, err, cap);
    close(fd);
    return m;
}

static void test_versions(void **state)
{
    static const double d[] = {1.5, -2, 1e300, 0.1};
    static const float f[] = {1.5f, -2};
    char magic[16], err[100];
    const char *dict;
    mp_matrix *m;

    (void)state;
    dict = "{\"shape\": (2,2), \"fortran_order\": False, \"descr\": \"<f8\"}\n";
    memcpy(magic, "\x93NUMPY\x02\x00", 8);
    magic[8] = (char)strlen(dict);
    magic[9] = magic[10] = magic[11] = 0;
    m = load_text(magic, 12, dict, d, sizeof(d), err, sizeof(err));
    assert_non_null(m);
    assert_true(mp_matrix_data(m)[0] == 1.5f && mp_matrix_data(m)[3] == 0.1f);
    assert_true(mp_matrix_data(m)[2] > 3e38f);
    mp_matrix_unref(m);
    magic[6] = 3;
    dict = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }    \n";
    magic[8] = (char)strlen(dict);
    m = load_text(magic, 12, dict, f, sizeof(f), err, sizeof(err));
    assert_non_null(m);
    assert_int_equal(mp_matrix_rows(m), 2);
    assert_int_equal(mp_matrix_cols(m), 1);
    mp_matrix_unref(m);
}

#define D(descr, order, shape)                                                                     \
    "{'descr': " descr ", 'fortran_order': " order ", 'shape': " shape ", }\n"

static void test_hostile(void **state)
{
    static const struct {
        const char *dict;
        const char *error;
    } bad[] = {
        {D("'<f4'", "True", "(1, 2)"), "npy: fortran_order is not supported; save in C order"},
        {D("'<i4'", "False", "(1, 2)"), "npy: element type is not '<f4', '<f2' or '<f8'"},
        {D("'>f4'", "False", "(1, 2)"), "npy: element type is not '<f4', '<f2' or '<f8'"},
        {D("[('a','<f4')]", "False", "(1, 2)"), "npy: 'descr' is not a simple type"},
        {D("'<f4'", "Maybe", "(1, 2)"), "npy: 'fortran_order' is not True or False"},
        {D("'<f4'", "False", "()"), "npy: an array of one or two dimensions is needed"},
        {D("'<f4'", "False", "(1, 2, 3)"), "npy: an array of one or two dimensions is needed"},
        {D("'<f4'", "False", "(-1, 2)"), "npy: an array of one or two dimensions is needed"},
        {D("'<f4'", "False", "(99999999999999999999, 1)"),
         "npy: an array of one or two dimensions is needed"},
        {D("'<f4'", "False", "(18446744073709551615, 4)"), "npy: the shape is too large"},
        {D("'<f4'", "False", "(1000000000000, 1000)"),
         "npy: the file is shorter than its shape says"},
        {D("'<f4'", "False", "(3, 2)"), "npy: the file is shorter than its shape says"},
        {"{'descr': '<f4'}\n", "npy: the header lacks 'descr', 'fortran_order' or 'shape'"},
        {"{'descr': '<f4', 'descr': '<f4'}\n", "npy: a key comes twice in the header"},
        {"{'x': 1}\n", "npy: the header has an unknown key"},
        {"[1]\n", "npy: the header is not a dictionary"},
        {"{'descr': '<f4', 'shape': (1,2\n", "npy: an array of one or two dimensions is needed"},
        {"{'descr': '<f4\n", "npy: 'descr' is not a simple type"},
        {"", "npy: the header is not a dictionary"},
    };
    char magic[16] = "\x93NUMPY\x01\x00", err[100], data[16] = {0};
    size_t i;

    (void)state;
    for (i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        magic[8] = (char)strlen(bad[i].dict);
        assert_null(load_text(magic, 10, bad[i].dict, data, sizeof(data), err, sizeof(err)));
        assert_string_equal(err, bad[i].error);
    }
    assert_null(load_text("PK\3\4", 4, "xxxxxxxxxxxxxxxxxx", data, 8, err, sizeof(err)));
    assert_string_equal(err, "npy: not an .npy file");
    magic[6] = 9;
    assert_null(load_text(magic, 10, "{}", data, 16, err, sizeof(err)));
    assert_string_equal(err, "npy: unknown format version");
    memcpy(magic + 6, "\2\0\xFF\xFF\xFF\xFF", 6);
    assert_null(load_text(magic, 12, "{}", data, 16, err, sizeof(err)));
    assert_string_equal(err, "npy: the header is too long");
    memcpy(magic + 6, "\1\0\xFF\x7F", 4);
    assert_null(load_text(magic, 10, "{}", data, 16, err, sizeof(err)));
    assert_string_equal(err, "npy: the file ends in its header");
    assert_null(load_text("", 0, "", data, 0, err, sizeof(err)));
    assert_string_equal(err, "npy: the file ends in its header");
}

static void test_every_damage(void **state)
{
    char h[MP__NPY_HEADER], copy[MP__NPY_HEADER], err[100];
    struct mp__npy_info info;
    size_t i, n;

    (void)state;
    mp__npy_header(h, sizeof(h), 12, 34, 0);
    for (i = 0; i < 200000; i++) {
        char *exact;

        memcpy(copy, h, sizeof(h));
        copy[below(sizeof(copy))] = (char)rnd();
        copy[below(sizeof(copy))] = "(){}',: 0"[below(9)];
        n = below(4) ? sizeof(copy) : below(sizeof(copy));
        exact = malloc(n + 1);
        memcpy(exact, copy, n);
        mp__npy_parse(exact, n, &info, err, sizeof(err));
        free(exact);
    }
    assert_int_equal(mp__npy_parse(h, sizeof(h), &info, err, sizeof(err)), 0);
    assert_true(info.rows == 12 && info.cols == 34 && info.offset == MP__NPY_HEADER);
    for (n = 0; n < sizeof(h); n++)
        assert_int_equal(mp__npy_parse(h, n, &info, err, sizeof(err)), MP_EAGAIN);
}

static void test_writer_refuses(void **state)
{
    struct mp__npy_writer w;
    int fd = temp_fd();
    float x = 1;

    (void)state;
    assert_int_equal(mp__npy_create(&w, fd, 0, 0), MP_EINVAL);
    assert_int_equal(mp__npy_reopen(&w, fd), MP_EINVAL);
    assert_int_equal(mp__npy_create(&w, fd, 1, 0), 0);
    assert_int_equal(mp__npy_write_at(&w, UINT64_MAX, &x, 1), MP_EINVAL);
    assert_int_equal(mp__npy_write_at(&w, UINT64_MAX / 4, &x, 1), MP_EINVAL);
    close(fd);
    assert_int_equal(mp__npy_append(&w, &x, 1), MP_ESYS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_header_bytes),   cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_big_half),       cmocka_unit_test(test_versions),
        cmocka_unit_test(test_hostile),        cmocka_unit_test(test_every_damage),
        cmocka_unit_test(test_writer_refuses),
    };

    seed_start();
    return cmocka_run_group_tests(tests, NULL, NULL);
}

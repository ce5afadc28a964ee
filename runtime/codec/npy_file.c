/*
 * npy_file.c - .npy files over a descriptor: load whole, write by row.
 */
#include "codec/npy.h"
#include "codec/vec.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BLOCK 65536 /* bytes converted at a time */

static int write_all(int fd, const void *p, size_t n, uint64_t at)
{
    const char *s = p;
    ssize_t k;

    while (n != 0) {
        k = pwrite(fd, s, n, (off_t)at);
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0)
            return MP_ESYS;
        s += k;
        n -= (size_t)k;
        at += (uint64_t)k;
    }
    return 0;
}

/* 0, or MP_ESYS; a file that ends early is errno 0. */
static int read_all(int fd, void *p, size_t n, uint64_t at)
{
    char *s = p;
    ssize_t k;

    while (n != 0) {
        k = pread(fd, s, n, (off_t)at);
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0) {
            errno = k == 0 ? 0 : errno;
            return MP_ESYS;
        }
        s += k;
        n -= (size_t)k;
        at += (uint64_t)k;
    }
    return 0;
}

/* ---- load ---------------------------------------------------------------------------------- */

static int read_header(int fd, uint64_t size, struct mp__npy_info *info, char *err, size_t cap)
{
    char first[256], *more = NULL;
    size_t n = size < sizeof(first) ? (size_t)size : sizeof(first);
    int rc;

    if (read_all(fd, first, n, 0) != 0) {
        snprintf(err, cap, "npy: cannot read");
        return MP_ESYS;
    }
    rc = mp__npy_parse(first, n, info, err, cap);
    if (rc == MP_EAGAIN && info->offset <= size && n < size) {
        n = (size_t)info->offset;
        more = malloc(n);
        if (more == NULL)
            return MP_ENOMEM;
        rc = read_all(fd, more, n, 0);
        if (rc == 0)
            rc = mp__npy_parse(more, n, info, err, cap);
        free(more);
    }
    if (rc == MP_EAGAIN) {
        snprintf(err, cap, "npy: the file ends in its header");
        rc = MP_EINVAL;
    }
    return rc;
}

static void widen(float *out, const void *in, size_t n, int item)
{
    const double *d = in;
    size_t i;

    if (item == 2)
        mp__f32_from_f16_row(out, in, n);
    else
        for (i = 0; i < n; i++)
            out[i] = (float)d[i];
}

static int load_data(int fd, const struct mp__npy_info *info, float *out)
{
    size_t n = (size_t)(info->rows * info->cols), step = BLOCK / (size_t)info->item, i, k;
    uint64_t at = info->offset;
    void *block;
    int rc = 0;

    if (info->item == 4)
        return read_all(fd, out, n * sizeof(float), at);
    block = malloc(BLOCK);
    if (block == NULL)
        return MP_ENOMEM;
    for (i = 0; i < n && rc == 0; i += k) {
        k = n - i < step ? n - i : step;
        rc = read_all(fd, block, k * (size_t)info->item, at);
        if (rc == 0)
            widen(out + i, block, k, info->item);
        at += k * (size_t)info->item;
    }
    free(block);
    return rc;
}

mp_matrix *mp__npy_load(int fd, char *err, size_t cap)
{
    struct mp__npy_info info;
    struct stat st;
    mp_matrix *m;
    uint64_t bytes;

    if (cap != 0)
        err[0] = '\0';
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        snprintf(err, cap, "npy: not a regular file");
        return NULL;
    }
    if (read_header(fd, (uint64_t)st.st_size, &info, err, cap) != 0) {
        if (cap != 0 && err[0] == '\0')
            snprintf(err, cap, "npy: cannot read the header");
        return NULL;
    }
    /* The length decides before anything is allocated: a header may claim what it likes. */
    bytes = info.rows * info.cols * (uint64_t)info.item;
    if (bytes > (uint64_t)st.st_size - info.offset) {
        snprintf(err, cap, "npy: the file is shorter than its shape says");
        return NULL;
    }
    m = mp_matrix_new((size_t)info.rows, (size_t)info.cols);
    if (m == NULL) {
        snprintf(err, cap, "npy: out of memory");
        return NULL;
    }
    if (load_data(fd, &info, mp_matrix_data(m)) != 0) {
        snprintf(err, cap, "npy: cannot read the data");
        mp_matrix_unref(m);
        return NULL;
    }
    return m;
}

/* ---- write --------------------------------------------------------------------------------- */

static uint64_t row_bytes(const struct mp__npy_writer *w)
{
    return (uint64_t)w->cols * (w->f16 ? 2 : 4);
}

int mp__npy_finish(struct mp__npy_writer *w)
{
    char header[MP__NPY_HEADER];

    mp__npy_header(header, sizeof(header), w->rows, w->cols, w->f16);
    return write_all(w->fd, header, sizeof(header), 0);
}

int mp__npy_create(struct mp__npy_writer *w, int fd, uint32_t cols, int f16)
{
    if (cols == 0)
        return MP_EINVAL;
    memset(w, 0, sizeof(*w));
    w->fd = fd;
    w->cols = cols;
    w->f16 = f16 != 0;
    if (ftruncate(fd, 0) != 0)
        return MP_ESYS;
    return mp__npy_finish(w);
}

int mp__npy_reopen(struct mp__npy_writer *w, int fd)
{
    struct mp__npy_info info;
    struct stat st;
    char err[8];
    int rc;

    memset(w, 0, sizeof(*w));
    if (fstat(fd, &st) != 0)
        return MP_ESYS;
    rc = read_header(fd, (uint64_t)st.st_size, &info, err, sizeof(err));
    if (rc != 0)
        return rc;
    if (info.offset != MP__NPY_HEADER || info.item == 8 || info.cols == 0 || info.cols > UINT32_MAX)
        return MP_EINVAL;
    w->fd = fd;
    w->cols = (uint32_t)info.cols;
    w->f16 = info.item == 2;
    w->rows = ((uint64_t)st.st_size - info.offset) / row_bytes(w); /* a torn last row is dropped */
    return 0;
}

static int write_half(struct mp__npy_writer *w, const float *rows, size_t n, uint64_t at)
{
    uint16_t block[2048];
    size_t i, k;
    int rc = 0;

    for (i = 0; i < n && rc == 0; i += k) {
        k = n - i < 2048 ? n - i : 2048;
        mp__f16_from_f32_row(block, rows + i, k);
        rc = write_all(w->fd, block, k * 2, at + i * 2);
    }
    return rc;
}

int mp__npy_write_at(struct mp__npy_writer *w, uint64_t row, const float *rows, size_t n)
{
    uint64_t end, at, count;
    int rc;

    if (__builtin_add_overflow(row, (uint64_t)n, &end) ||
        __builtin_mul_overflow(end, row_bytes(w), &at) || at > (uint64_t)INT64_MAX / 2)
        return MP_EINVAL;
    at = MP__NPY_HEADER + row * row_bytes(w);
    count = (uint64_t)n * w->cols;
    rc = w->f16 ? write_half(w, rows, (size_t)count, at)
                : write_all(w->fd, rows, (size_t)count * sizeof(float), at);
    if (rc == 0 && end > w->rows)
        w->rows = end;
    return rc;
}

int mp__npy_append(struct mp__npy_writer *w, const float *rows, size_t n)
{
    return mp__npy_write_at(w, w->rows, rows, n);
}

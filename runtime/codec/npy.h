/*
 * npy.h - NumPy's .npy files of float32 (or float16) rows.
 *
 * Written is version 1.0, C order, '<f4' or '<f2', with a header of always MP__NPY_HEADER bytes
 * (a multiple of 64), so the row count can be corrected in place while rows are appended. Read are
 * versions 1.0 to 3.0, '<f4', '<f2' and '<f8', one or two dimensions. Format:
 * https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
 */
#ifndef MP_CODEC_NPY_H
#define MP_CODEC_NPY_H

#include "moonpool.h"

#define MP__NPY_HEADER 128

/* Writes the header; returns MP__NPY_HEADER, or MP_EINVAL when cap is less. */
int mp__npy_header(char *out, size_t cap, uint64_t rows, uint32_t cols, int f16);

struct mp__npy_info {
    uint64_t rows;
    uint64_t cols;   /* 1 for a one-dimensional file */
    uint64_t offset; /* of the data */
    int item;        /* bytes an element: 2, 4 or 8 */
};

/*
 * Reads a header from the first n bytes of a file. 0; MP_EAGAIN: more bytes are needed
 * (info->offset says up to where); MP_EINVAL with the reason in err[cap].
 */
int mp__npy_parse(const char *p, size_t n, struct mp__npy_info *info, char *err, size_t cap);

/* The whole file as float32; NULL with the reason in err[cap]. Reads fd from offset 0. */
mp_matrix *mp__npy_load(int fd, char *err, size_t cap);

/* A writer over a descriptor that the caller opened for reading and writing, and closes. */
struct mp__npy_writer {
    int fd;
    int f16;
    uint32_t cols;
    uint64_t rows; /* the highest row written, plus one */
};

/* All return 0, MP_EINVAL, MP_ENOMEM, or MP_ESYS with errno. create truncates the file. */
int mp__npy_create(struct mp__npy_writer *w, int fd, uint32_t cols, int f16);

/* Takes up a file made by create, perhaps unfinished: rows are what the file's length holds. */
int mp__npy_reopen(struct mp__npy_writer *w, int fd);

int mp__npy_append(struct mp__npy_writer *w, const float *rows, size_t n);
int mp__npy_write_at(struct mp__npy_writer *w, uint64_t row, const float *rows, size_t n);
int mp__npy_finish(struct mp__npy_writer *w); /* corrects the count; may be called repeatedly */

#endif

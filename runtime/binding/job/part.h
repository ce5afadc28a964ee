/*
 * part.h - one part of a job's output while it is being filled: vectors by position in an .npy file,
 * what else there is of its rows in a log beside it. Knows no Lua; runs in the pool's threads too.
 *
 * A row is taken when its vector stands in the file and its record is in the log, and the record
 * goes into the log only after the vectors are on the disk. After a kill the log's records say what
 * counts; the rest of the files is noise.
 */
#ifndef MP_BINDING_JOB_PART_H
#define MP_BINDING_JOB_PART_H

#include "base/buf.h"

#include <stddef.h>
#include <stdint.h>

enum mp__row_state { MP__ROW_NONE, MP__ROW_OK, MP__ROW_FAILED, MP__ROW_LOCAL };

/* One row on the disk: what was asked (120 bits of its hash) with the state in the last byte, and a
 * hash of what else its line says. */
struct mp__row {
    unsigned char key[16];
    uint64_t tag;
};

/* ---- health ---- */

#define MP__HEALTH_BINS  16
#define MP__HEALTH_SLOTS 16384

struct mp__health {
    uint64_t rows, zero, bad, same; /* bad: holds a number that is not finite */
    double norm_min, norm_max, norm_sum, norm_squares;
    uint64_t norms[MP__HEALTH_BINS]; /* bin i: 2^(i-8) <= norm < 2^(i-7), the ends open */
};

/* The last vectors seen: the same one for another text is what a broken server answers. */
struct mp__sound {
    struct {
        uint64_t vector, text;
    } slots[MP__HEALTH_SLOTS];
};

void mp__health_row(struct mp__health *h, struct mp__sound *s, const float *row, size_t cols,
                    uint64_t vector, uint64_t text);
void mp__health_add(struct mp__health *to, const struct mp__health *from);

/* ---- the part ---- */

struct mp__block {
    uint32_t at, count;
    uint32_t lines;      /* bytes */
    uint32_t no_vectors; /* written before the dimension was known: all rows failed */
    uint64_t offset;     /* of the lines in the log */
};

struct mp__part {
    char *npy, *log; /* paths */
    uint64_t first;  /* row of the job that row 0 of the part is */
    uint32_t limit, have, failed;
    uint32_t cols; /* 0: not known yet */
    int f16;
    int npy_fd, log_fd; /* < 0: closed for now */
    int error;          /* the errno that ended it: a failed sync is never tried again */
    int flight_fd;      /* the .npy whose vectors the records in flight speak of */
    struct mp__row *rows;
    uint64_t *sums; /* of each row's bytes in the .npy */
    struct mp__block *blocks;
    uint32_t n_blocks, cap_blocks;
    struct mp__buf pending; /* records that are not in the log */
    struct mp__buf flight;  /* records on their way there */
    uint64_t log_size, log_end;
    struct mp__health health;
    struct mp__sound *sound; /* the job's, may be NULL */
};

/* All return 0 or -1 with errno. */
int mp__part_open(struct mp__part *p, const char *npy, const char *log, uint64_t first,
                  uint32_t limit, uint32_t cols, int f16, struct mp__sound *sound);
void mp__part_close(struct mp__part *p);
void mp__part_rest(struct mp__part *p); /* closes the descriptors until they are needed */

int mp__part_set_cols(struct mp__part *p, uint32_t cols);
size_t mp__part_stride(const struct mp__part *p);

/* Rows at..at+n that have no state yet; their vectors in the file's form (NULL: the dimension is not
 * known), their records and their lines. */
int mp__part_put(struct mp__part *p, uint32_t at, uint32_t n, const void *vectors,
                 const struct mp__row *rows, const char *lines, size_t bytes);

/* Moves what is pending into flight; then commit may run in another thread; then landed. */
int mp__part_launch(struct mp__part *p); /* 1: there is something to do */
int mp__part_commit(struct mp__part *p);
void mp__part_landed(struct mp__part *p);

struct mp__published {
    char npy_sum[17], jsonl_sum[17];
    uint64_t npy_bytes, jsonl_bytes;
};

/* Makes files of the first n rows, which all have a state: `rows_fd` gets their records, `jsonl` is
 * where the lines are gathered, and both files are linked to their names. */
int mp__part_publish(struct mp__part *p, uint32_t n, int rows_fd, const char *jsonl,
                     const char *npy_name, const char *jsonl_name, const char *dir,
                     struct mp__published *out);

int mp__write_at(int fd, const void *p, size_t n, uint64_t offset);
int mp__read_at(int fd, void *p, size_t n, uint64_t offset); /* EIO: the file ends before */

#endif

/*
 * publish.c - a part whose rows are all there becomes two files under their final names.
 */
#include "binding/job/part.h"

#include "base/hash.h"
#include "codec/npy.h"
#include "codec/vec.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHUNK ((size_t)256 * 1024)

static int by_place(const void *a, const void *b)
{
    const struct mp__block *x = a, *y = b;

    return (x->at > y->at) - (x->at < y->at);
}

/* Rows that failed before the dimension was known have no vectors in the file yet. */
static int fill_nan(struct mp__part *p, const struct mp__block *b)
{
    size_t stride = mp__part_stride(p);
    char *row = malloc(stride);
    int rc = row != NULL ? 0 : -1;

    for (uint32_t i = 0; row != NULL && i < p->cols; i++) {
        float nan = NAN;
        uint16_t half = mp__f16_from_f32(nan);

        if (p->f16)
            memcpy(row + i * 2, &half, 2);
        else
            memcpy(row + i * 4, &nan, 4);
    }
    for (uint32_t i = 0; rc == 0 && i < b->count; i++) {
        p->sums[b->at + i] = mp__hash64(row, stride, 0);
        rc = mp__write_at(p->npy_fd, row, stride, MP__NPY_HEADER + (b->at + i) * (uint64_t)stride);
    }
    free(row);
    return rc;
}

static int finish_npy(struct mp__part *p, uint32_t n, struct mp__published *out)
{
    char head[MP__NPY_HEADER];
    size_t stride = mp__part_stride(p);

    if (p->npy_fd < 0)
        p->npy_fd = open(p->npy, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (p->npy_fd < 0)
        return -1;
    for (uint32_t i = 0; i < p->n_blocks; i++)
        if (p->blocks[i].no_vectors && fill_nan(p, &p->blocks[i]) != 0)
            return -1;
    mp__npy_header(head, sizeof(head), n, p->cols, p->f16);
    out->npy_bytes = MP__NPY_HEADER + n * (uint64_t)stride;
    mp__hash64_hex(mp__hash64(p->sums, n * sizeof(*p->sums), 0), out->npy_sum);
    if (mp__write_at(p->npy_fd, head, sizeof(head), 0) != 0 ||
        (n == p->limit && ftruncate(p->npy_fd, (off_t)out->npy_bytes) != 0))
        return -1;
    return fsync(p->npy_fd);
}

static int copy_lines(struct mp__part *p, const struct mp__block *b, int fd, char *chunk,
                      struct mp__hash_sum *sum, uint64_t *at)
{
    for (uint64_t done = 0; done < b->lines;) {
        size_t n = b->lines - done < CHUNK ? (size_t)(b->lines - done) : CHUNK;

        if (mp__read_at(p->log_fd, chunk, n, b->offset + done) != 0 ||
            mp__write_at(fd, chunk, n, *at) != 0)
            return -1;
        mp__hash_sum_add(sum, chunk, n);
        done += n;
        *at += n;
    }
    return 0;
}

/* Only blocks that lie before row n; a block never straddles the end of a part. */
static int gather(struct mp__part *p, uint32_t n, int fd, struct mp__published *out)
{
    char *chunk = malloc(CHUNK), hex[33];
    struct mp__hash_sum *sum = mp__hash_sum_new(0);
    uint64_t at = 0;
    int rc = chunk != NULL && sum != NULL ? 0 : -1;

    for (uint32_t i = 0; rc == 0 && i < p->n_blocks && p->blocks[i].at < n; i++)
        rc = copy_lines(p, &p->blocks[i], fd, chunk, sum, &at);
    if (rc == 0) {
        mp__hash_sum_hex(sum, hex);
        memcpy(out->jsonl_sum, hex, 17);
        out->jsonl_bytes = at;
    }
    mp__hash_sum_free(sum);
    free(chunk);
    return rc;
}

static int write_lines(struct mp__part *p, uint32_t n, const char *path, struct mp__published *out)
{
    int fd, rc, e;

    unlink(path); /* an earlier gathering may have a second name by now */
    fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return -1;
    if (p->log_fd < 0)
        p->log_fd = open(p->log, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    rc = p->log_fd < 0 ? -1 : gather(p, n, fd, out);
    if (rc == 0)
        rc = fsync(fd);
    e = errno;
    if (close(fd) != 0 && rc == 0)
        return -1;
    errno = e;
    return rc;
}

/* The name may be taken by what an earlier run published just before it was killed. */
static int give_name(const char *from, const char *name)
{
    if (link(from, name) == 0)
        return 0;
    if (errno != EEXIST || unlink(name) != 0)
        return -1;
    return link(from, name);
}

static int sync_dir(const char *dir)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc, e;

    if (fd < 0)
        return -1;
    rc = fsync(fd);
    e = errno;
    close(fd);
    errno = e;
    return rc == 0 || e == EINVAL ? 0 : -1;
}

int mp__part_publish(struct mp__part *p, uint32_t n, int rows_fd, const char *jsonl,
                     const char *npy_name, const char *jsonl_name, const char *dir,
                     struct mp__published *out)
{
    memset(out, 0, sizeof(*out));
    if (p->error) {
        errno = p->error;
        return -1;
    }
    qsort(p->blocks, p->n_blocks, sizeof(*p->blocks), by_place);
    if ((p->cols && finish_npy(p, n, out) != 0) || write_lines(p, n, jsonl, out) != 0 ||
        mp__write_at(rows_fd, p->rows, n * sizeof(*p->rows), p->first * sizeof(*p->rows)) != 0 ||
        fdatasync(rows_fd) != 0 || (p->cols && give_name(p->npy, npy_name) != 0) ||
        give_name(jsonl, jsonl_name) != 0)
        return -1;
    return sync_dir(dir);
}

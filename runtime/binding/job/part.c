/*
 * part.c - filling a part and finding it again after a kill.
 *
 * The log is a row of records: a head, the rows' own records, their lines. A record that was torn, or
 * whose vectors are not what it says, ends what is believed of the log.
 */
#include "binding/job/part.h"

#include "base/hash.h"
#include "codec/npy.h"
#include "codec/vec.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC     0x314a504du /* "MPJ1" */
#define MAX_LINES ((size_t)1 << 31)

struct head {
    uint32_t magic, at, count, lines;
    uint64_t no_vectors;
    uint64_t vectors; /* of the rows' own sums */
    uint64_t body;    /* of records and lines */
    uint64_t self;    /* of what stands before it */
};

/* ---- files ---- */

int mp__write_at(int fd, const void *p, size_t n, uint64_t offset)
{
    const char *s = p;

    while (n > 0) {
        ssize_t got = pwrite(fd, s, n, (off_t)offset);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -1;
        s += got;
        n -= (size_t)got;
        offset += (uint64_t)got;
    }
    return 0;
}

int mp__read_at(int fd, void *p, size_t n, uint64_t offset)
{
    char *s = p;

    while (n > 0) {
        ssize_t got = pread(fd, s, n, (off_t)offset);

        if (got < 0 && errno == EINTR)
            continue;
        if (got == 0)
            errno = EIO;
        if (got <= 0)
            return -1;
        s += got;
        n -= (size_t)got;
        offset += (uint64_t)got;
    }
    return 0;
}

static int open_file(int *fd, const char *path)
{
    if (*fd < 0)
        *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    return *fd < 0 ? -1 : 0;
}

static int fail(struct mp__part *p)
{
    if (!p->error)
        p->error = errno ? errno : EIO;
    errno = p->error;
    return -1;
}

size_t mp__part_stride(const struct mp__part *p)
{
    return (size_t)p->cols * (p->f16 ? 2 : 4);
}

static uint64_t place(const struct mp__part *p, uint32_t at)
{
    return MP__NPY_HEADER + (uint64_t)at * mp__part_stride(p);
}

static int begin_npy(struct mp__part *p)
{
    char head[MP__NPY_HEADER];

    if (p->npy_fd >= 0)
        return 0;
    if (open_file(&p->npy_fd, p->npy) != 0)
        return -1;
    mp__npy_header(head, sizeof(head), p->limit, p->cols, p->f16);
    return mp__write_at(p->npy_fd, head, sizeof(head), 0);
}

/* ---- rows ---- */

static int add_block(struct mp__part *p, const struct mp__block *b)
{
    struct mp__block *blocks;
    uint32_t cap = p->cap_blocks ? p->cap_blocks * 2 : 64;

    if (p->n_blocks == p->cap_blocks) {
        blocks = realloc(p->blocks, cap * sizeof(*blocks));
        if (blocks == NULL)
            return -1;
        p->blocks = blocks;
        p->cap_blocks = cap;
    }
    p->blocks[p->n_blocks++] = *b;
    return 0;
}

static void take_rows(struct mp__part *p, uint32_t at, uint32_t n, const struct mp__row *rows)
{
    memcpy(p->rows + at, rows, n * sizeof(*rows));
    p->have += n;
    for (uint32_t i = 0; i < n; i++)
        p->failed += rows[i].key[15] != MP__ROW_OK;
}

/* Sums and health of rows in the file's form. */
static void look_at(struct mp__part *p, uint32_t at, uint32_t n, const char *vectors,
                    const struct mp__row *rows, float *scratch)
{
    size_t stride = mp__part_stride(p);
    uint64_t text;

    for (uint32_t i = 0; i < n; i++) {
        const void *row = vectors + i * stride;
        const float *floats = row;

        p->sums[at + i] = mp__hash64(row, stride, 0);
        if (rows[i].key[15] != MP__ROW_OK)
            continue;
        if (p->f16) {
            mp__f32_from_f16_row(scratch, row, p->cols);
            floats = scratch;
        }
        memcpy(&text, rows[i].key, sizeof(text));
        mp__health_row(&p->health, p->sound, floats, p->cols, p->sums[at + i], text);
    }
}

static int taken(const struct mp__part *p, uint32_t at, uint32_t n)
{
    if (n == 0 || at >= p->limit || n > p->limit - at)
        return 1;
    for (uint32_t i = 0; i < n; i++)
        if (p->rows[at + i].key[15] != MP__ROW_NONE)
            return 1;
    return 0;
}

static int add_record(struct mp__part *p, const struct mp__block *b, const struct mp__row *rows,
                      const char *lines)
{
    struct head h = {MAGIC, b->at, b->count, b->lines, b->no_vectors, 0, 0, 0};
    size_t before = p->pending.n, body = b->count * sizeof(*rows);

    if (!b->no_vectors)
        h.vectors = mp__hash64(p->sums + b->at, b->count * sizeof(*p->sums), 0);
    if (mp__buf_add(&p->pending, &h, sizeof(h)) || mp__buf_add(&p->pending, rows, body) ||
        mp__buf_add(&p->pending, lines, b->lines)) {
        p->pending.n = before;
        errno = ENOMEM;
        return -1;
    }
    h.body = mp__hash64(p->pending.p + before + sizeof(h), body + b->lines, 0);
    h.self = mp__hash64(&h, offsetof(struct head, self), 0);
    memcpy(p->pending.p + before, &h, sizeof(h));
    return 0;
}

static int write_vectors(struct mp__part *p, uint32_t at, uint32_t n, const void *vectors,
                         const struct mp__row *rows)
{
    float *scratch = p->f16 ? malloc(p->cols * sizeof(*scratch)) : NULL;

    if (p->f16 && scratch == NULL)
        return -1;
    if (begin_npy(p) != 0 ||
        mp__write_at(p->npy_fd, vectors, n * mp__part_stride(p), place(p, at)) != 0) {
        free(scratch);
        return -1;
    }
    look_at(p, at, n, vectors, rows, scratch);
    free(scratch);
    return 0;
}

int mp__part_put(struct mp__part *p, uint32_t at, uint32_t n, const void *vectors,
                 const struct mp__row *rows, const char *lines, size_t bytes)
{
    struct mp__block b = {at, n, (uint32_t)bytes, vectors == NULL, 0};

    if (p->error || taken(p, at, n) || bytes > MAX_LINES) {
        errno = p->error ? p->error : EINVAL;
        return -1;
    }
    if (vectors != NULL && write_vectors(p, at, n, vectors, rows) != 0)
        return fail(p);
    b.offset = p->log_end + sizeof(struct head) + n * sizeof(*rows);
    if (add_record(p, &b, rows, lines) != 0 || add_block(p, &b) != 0)
        return fail(p);
    p->log_end = b.offset + bytes;
    take_rows(p, at, n, rows);
    return 0;
}

/* ---- commits ---- */

int mp__part_launch(struct mp__part *p)
{
    struct mp__buf empty = p->flight;

    if (p->pending.n == 0 || p->error || p->flight.n > 0)
        return 0;
    p->flight = p->pending;
    p->pending = empty;
    p->flight_fd = p->npy_fd;
    return 1;
}

int mp__part_commit(struct mp__part *p)
{
    if (p->flight_fd >= 0 && fdatasync(p->flight_fd) != 0)
        return fail(p);
    if (open_file(&p->log_fd, p->log) != 0 ||
        mp__write_at(p->log_fd, p->flight.p, p->flight.n, p->log_size) != 0 ||
        fdatasync(p->log_fd) != 0)
        return fail(p);
    return 0;
}

void mp__part_landed(struct mp__part *p)
{
    if (!p->error)
        p->log_size += p->flight.n;
    if (p->flight.cap > (1 << 20))
        mp__buf_free(&p->flight);
    p->flight.n = 0;
}

/* ---- after a kill ---- */

static int vectors_as_said(struct mp__part *p, const struct head *h, const struct mp__row *rows,
                           void *raw, float *scratch)
{
    size_t stride = mp__part_stride(p);

    if (h->no_vectors)
        return 1;
    if (p->cols == 0 || open_file(&p->npy_fd, p->npy) != 0 ||
        mp__read_at(p->npy_fd, raw, h->count * stride, place(p, h->at)) != 0)
        return 0;
    for (uint32_t i = 0; i < h->count; i++)
        p->sums[h->at + i] = mp__hash64((char *)raw + i * stride, stride, 0);
    if (mp__hash64(p->sums + h->at, h->count * sizeof(*p->sums), 0) != h->vectors)
        return 0;
    look_at(p, h->at, h->count, raw, rows, scratch);
    return 1;
}

static int head_at(struct mp__part *p, uint64_t size, uint64_t at, struct head *h)
{
    return size - at >= sizeof(*h) && mp__read_at(p->log_fd, h, sizeof(*h), at) == 0 &&
           h->magic == MAGIC && h->self == mp__hash64(h, offsetof(struct head, self), 0) &&
           h->at < p->limit && h->count > 0 && h->count <= p->limit - h->at;
}

/* One record at offset `at`: 1 believed, 0 not, -1 errno. */
static int load_record(struct mp__part *p, uint64_t size, uint64_t at, uint64_t *next)
{
    struct head h;
    struct mp__block b;
    size_t rows, raw;
    char *body, *vectors;
    int ok = 0;

    if (!head_at(p, size, at, &h))
        return 0;
    rows = h.count * sizeof(struct mp__row);
    raw = h.no_vectors ? 1 : h.count * mp__part_stride(p) + 1;
    if (size - at - sizeof(h) < rows + h.lines)
        return 0;
    body = malloc(rows + h.lines + 1);
    vectors = malloc(raw + p->cols * sizeof(float) + 8);
    if (body != NULL && vectors != NULL &&
        mp__read_at(p->log_fd, body, rows + h.lines, at + sizeof(h)) == 0)
        ok = mp__hash64(body, rows + h.lines, 0) == h.body && !taken(p, h.at, h.count) &&
             vectors_as_said(p, &h, (void *)body, vectors + p->cols * sizeof(float) + 4,
                             (void *)vectors);
    b = (struct mp__block){h.at, h.count, h.lines, h.no_vectors != 0, at + sizeof(h) + rows};
    if (ok)
        take_rows(p, h.at, h.count, (void *)body);
    if (ok && add_block(p, &b) != 0)
        ok = -1;
    if (body == NULL || vectors == NULL)
        ok = -1;
    free(body);
    free(vectors);
    *next = b.offset + h.lines;
    return ok;
}

static int load(struct mp__part *p)
{
    struct stat st;
    int ok = 1;

    p->log_fd = open(p->log, O_RDWR | O_CLOEXEC);
    if (p->log_fd < 0)
        return errno == ENOENT ? 0 : -1;
    if (fstat(p->log_fd, &st) != 0)
        return -1;
    while (ok == 1 && p->log_size < (uint64_t)st.st_size) {
        uint64_t next = 0;

        ok = load_record(p, (uint64_t)st.st_size, p->log_size, &next);
        if (ok == 1)
            p->log_size = next;
    }
    p->log_end = p->log_size;
    if (ok >= 0 && p->log_size < (uint64_t)st.st_size)
        ok = ftruncate(p->log_fd, (off_t)p->log_size);
    return ok < 0 ? -1 : 0;
}

int mp__part_open(struct mp__part *p, const char *npy, const char *log, uint64_t first,
                  uint32_t limit, uint32_t cols, int f16, struct mp__sound *sound)
{
    *p = (struct mp__part){.npy_fd = -1, .log_fd = -1, .first = first, .limit = limit};
    p->cols = cols;
    p->f16 = f16;
    p->sound = sound;
    p->npy = strdup(npy);
    p->log = strdup(log);
    p->rows = calloc(limit, sizeof(*p->rows));
    p->sums = calloc(limit, sizeof(*p->sums));
    mp__buf_init(&p->pending, 0);
    mp__buf_init(&p->flight, 0);
    if (p->npy == NULL || p->log == NULL || p->rows == NULL || p->sums == NULL) {
        errno = ENOMEM;
        return -1;
    }
    return load(p);
}

int mp__part_set_cols(struct mp__part *p, uint32_t cols)
{
    if (p->cols == 0)
        p->cols = cols;
    if (p->cols != cols)
        errno = EINVAL;
    return p->cols == cols ? 0 : -1;
}

void mp__part_rest(struct mp__part *p)
{
    if (p->pending.n > 0 && p->npy_fd >= 0 && fdatasync(p->npy_fd) != 0)
        fail(p); /* its commit would not find the descriptor again */
    if (p->npy_fd >= 0)
        close(p->npy_fd);
    if (p->log_fd >= 0)
        close(p->log_fd);
    p->npy_fd = p->log_fd = -1;
}

void mp__part_close(struct mp__part *p)
{
    mp__part_rest(p);
    free(p->npy);
    free(p->log);
    free(p->rows);
    free(p->sums);
    free(p->blocks);
    mp__buf_free(&p->pending);
    mp__buf_free(&p->flight);
    memset(p, 0, sizeof(*p));
    p->npy_fd = p->log_fd = -1;
}

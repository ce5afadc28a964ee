/*
 * matrix.c - the counted block of float32 rows.
 *
 * The count is atomic because a foreign thread (a finaliser in an FFI host) may drop the last
 * reference. Blocks of MAP_FROM bytes and more are fresh anonymous pages: zero without being
 * touched, so a big matrix costs resident memory only where rows were written. From HUGE_FROM on
 * they may be huge pages: a fault for every 4 KiB was a fifth of the cost of a big base64 reply.
 */
#include "moonpool.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define ALIGN    64
#define MAP_FROM (256u * 1024)

#define HUGE_PAGE (2u * 1024 * 1024)
#define HUGE_FROM (8u * HUGE_PAGE) /* below it half a page for nothing would show */

struct mp_matrix {
    atomic_size_t refs;
    size_t rows;
    size_t cols;
    size_t bytes; /* allocated */
    float *data;
};

static void *map(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    return p == MAP_FAILED ? NULL : p;
}

/* Huge pages start at their own multiples: what is mapped too much before and after goes back. */
static void *map_huge(size_t bytes)
{
    size_t page = (bytes + 4095) & ~(size_t)4095;
    char *p = map(page + HUGE_PAGE);
    size_t before;

    if (p == NULL)
        return map(bytes);
    before = (HUGE_PAGE - (uintptr_t)p % HUGE_PAGE) % HUGE_PAGE;
    if (before > 0)
        munmap(p, before);
    if (before < HUGE_PAGE)
        munmap(p + before + page, HUGE_PAGE - before);
    madvise(p + before, page, MADV_HUGEPAGE);
    return p + before;
}

static float *block_new(size_t bytes)
{
    void *p;

    if (bytes >= HUGE_FROM)
        return map_huge(bytes);
    if (bytes >= MAP_FROM)
        return map(bytes);
    p = aligned_alloc(ALIGN, bytes);
    if (p != NULL)
        memset(p, 0, bytes);
    return p;
}

static void block_free(float *p, size_t bytes)
{
    if (bytes >= MAP_FROM)
        munmap(p, bytes);
    else
        free(p);
}

mp_matrix *mp_matrix_new(size_t rows, size_t cols)
{
    struct mp_matrix *m;
    size_t bytes;

    if (__builtin_mul_overflow(rows, cols, &bytes) || bytes > PTRDIFF_MAX / sizeof(float) - ALIGN)
        return NULL;
    bytes = (bytes * sizeof(float) + ALIGN - 1) / ALIGN * ALIGN;
    if (bytes == 0)
        bytes = ALIGN; /* an empty matrix still has a data pointer */
    m = malloc(sizeof(*m));
    if (m == NULL)
        return NULL;
    m->data = block_new(bytes);
    if (m->data == NULL) {
        free(m);
        return NULL;
    }
    atomic_init(&m->refs, 1);
    m->rows = rows;
    m->cols = cols;
    m->bytes = bytes;
    return m;
}

mp_matrix *mp_matrix_ref(mp_matrix *m)
{
    atomic_fetch_add_explicit(&m->refs, 1, memory_order_relaxed);
    return m;
}

void mp_matrix_unref(mp_matrix *m)
{
    if (m == NULL || atomic_fetch_sub_explicit(&m->refs, 1, memory_order_acq_rel) != 1)
        return;
    block_free(m->data, m->bytes);
    free(m);
}

float *mp_matrix_data(mp_matrix *m)
{
    return m->data;
}

size_t mp_matrix_rows(const mp_matrix *m)
{
    return m->rows;
}

size_t mp_matrix_cols(const mp_matrix *m)
{
    return m->cols;
}

/* reply.c - what writing a reply of 1,024 floats costs, as JSON and as base64. */
#include "moonpool.h"

#include <stdio.h>
#include <time.h>

static double cpu(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static void measure(const char *name, struct mp_reply *r, uint32_t format, int n)
{
    size_t bytes = 0;
    r->format = format;
    double start = cpu();
    for (int i = 0; i < n; i++) {
        char *out;
        if (mp_reply_write(r, &out, &bytes) != 0)
            return;
        mp_free(out);
    }
    printf("%-8s %6.2f us a reply of %zu bytes\n", name, (cpu() - start) / n, bytes);
}

int main(void)
{
    mp_matrix *m = mp_matrix_new(1, 1024);
    uint64_t x = 1;
    for (int i = 0; i < 1024; i++) {
        x = x * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        mp_matrix_data(m)[i] = (float)((int)(x >> 40) - (1 << 23)) / (float)(1 << 27);
    }
    struct mp_reply r = MP_INIT(struct mp_reply);
    r.matrix = m;
    r.model = "m";
    measure("JSON", &r, MP_FORMAT_FLOAT, 20000);
    measure("base64", &r, MP_FORMAT_BASE64, 200000);
    mp_matrix_unref(m);
    return 0;
}

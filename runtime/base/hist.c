#include "base/hist.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define FIRST  62.5e-6
#define WINDOW (10 * MP__SECOND)

static unsigned bucket_of(mp__time latency)
{
    double x = (double)latency * 1e-9 / FIRST;
    double i;

    if (!(x > 1))
        return 0;
    i = log2(x) * 16;
    return i >= MP__HIST_BUCKETS - 1 ? MP__HIST_BUCKETS - 1 : (unsigned)i;
}

static double middle_of(unsigned bucket)
{
    return FIRST * exp2(((double)bucket + 0.5) / 16);
}

static void turn(struct mp__hist *h, mp__time now)
{
    int64_t window = now / WINDOW;

    if (window == h->window)
        return;
    h->fresh[0] = h->fresh[1] = 0;
    if (window - h->window >= MP__HIST_WINDOWS) {
        memset(h->count, 0, sizeof(h->count));
        memset(h->total, 0, sizeof(h->total));
        h->window = window;
    }
    while (h->window < window) {
        h->window++;
        memset(h->count[h->window % MP__HIST_WINDOWS], 0, sizeof(h->count[0]));
        h->total[h->window % MP__HIST_WINDOWS] = 0;
    }
}

static void record(struct mp__hist *h, mp__time latency, mp__time now)
{
    int w;

    turn(h, now);
    w = (int)(h->window % MP__HIST_WINDOWS);
    h->count[w][bucket_of(latency)]++;
    h->total[w]++;
    for (w = 0; w < 2; w++)
        if (h->fresh[w])
            h->fresh[w]--;
}

static uint32_t samples(const struct mp__hist *h)
{
    return h->total[0] + h->total[1] + h->total[2];
}

static double scan(const struct mp__hist *h, double q)
{
    double want = q * samples(h);
    uint64_t seen = 0;
    unsigned i;

    for (i = 0; i < MP__HIST_BUCKETS - 1; i++) {
        seen += h->count[0][i] + h->count[1][i] + h->count[2][i];
        if (seen > 0 && (double)seen >= want)
            break;
    }
    return middle_of(i);
}

/* A hedge asks at every start: the answer is kept until a sixteenth more samples came. */
static double percentile(struct mp__hist *h, double q)
{
    int k;

    for (k = 0; k < 2; k++)
        if (h->fresh[k] && h->cached_q[k] == q)
            return h->cached[k];
    k = h->turn++ & 1;
    h->cached_q[k] = q;
    h->cached[k] = scan(h, q);
    h->fresh[k] = samples(h) / 16 + 8;
    return h->cached[k];
}

void mp__hists_fini(struct mp__hists *hists)
{
    int i;

    free(hists->all);
    for (i = 0; i < MP__HIST_CLASSES; i++)
        free(hists->of[i]);
    memset(hists, 0, sizeof(*hists));
}

static struct mp__hist *made(struct mp__hist **slot)
{
    if (*slot == NULL)
        *slot = calloc(1, sizeof(**slot));
    return *slot;
}

void mp__hists_record(struct mp__hists *hists, uint32_t size_class, mp__time latency, mp__time now)
{
    struct mp__hist *h = made(&hists->all);

    if (h != NULL)
        record(h, latency, now);
    if (size_class == 0 || size_class >= MP__HIST_CLASSES)
        return;
    h = made(&hists->of[size_class]);
    if (h != NULL)
        record(h, latency, now);
}

double mp__hists_seen(struct mp__hists *hists, double q, mp__time now)
{
    struct mp__hist *h = hists->all;

    if (h != NULL)
        turn(h, now);
    return h != NULL && samples(h) > 0 ? percentile(h, q) : -1;
}

double mp__hists_seen_all(struct mp__hists *(*next)(void *arg, uint32_t i), void *arg, double q,
                          mp__time now)
{
    uint64_t of[MP__HIST_BUCKETS] = {0}, sum = 0, seen = 0;
    struct mp__hists *hists;
    uint32_t k;
    unsigned i;

    for (k = 0; (hists = next(arg, k)) != NULL; k++) {
        struct mp__hist *h = hists->all;

        if (h == NULL)
            continue;
        turn(h, now);
        sum += samples(h);
        for (i = 0; i < MP__HIST_BUCKETS; i++)
            of[i] += (uint64_t)h->count[0][i] + h->count[1][i] + h->count[2][i];
    }
    if (sum == 0)
        return -1;
    for (i = 0; i < MP__HIST_BUCKETS - 1; i++) {
        seen += of[i];
        if (seen > 0 && (double)seen >= q * (double)sum)
            break;
    }
    return middle_of(i);
}

double mp__hists_percentile(struct mp__hists *hists, uint32_t size_class, double q, mp__time now)
{
    struct mp__hist *h = NULL;

    if (size_class > 0 && size_class < MP__HIST_CLASSES)
        h = hists->of[size_class];
    if (h != NULL)
        turn(h, now);
    if (h == NULL || samples(h) < MP__HIST_ENOUGH) {
        h = hists->all;
        if (h != NULL)
            turn(h, now);
    }
    if (h == NULL || samples(h) < MP__HIST_ENOUGH)
        return -1;
    return percentile(h, q);
}

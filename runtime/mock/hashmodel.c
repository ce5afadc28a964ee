/*
 * hashmodel.c - vectors and scores by signed feature hashing.
 *
 * One pass, no allocation. A word's k-th occurrence adds sqrt(k) - sqrt(k - 1), which sums to the
 * square root of its count; the counts are kept by hash in a small table, where two words that
 * meet merely damp each other a little.
 */
#include "mock/hashmodel.h"

#include "base/prng.h"

#include <math.h>
#include <string.h>

#define COUNTS    4096 /* slots of the table of counts */
#define WORD_MAX  62   /* a longer run of letters is cut */
#define SCORE_DIM 512
#define STOP      0.1f /* weight of a stop word */

/* A word with '<' and '>' around it, lower case, and 8 bytes to read past its end. */
struct word {
    size_t n; /* without the marks */
    char p[WORD_MAX + 2 + 8];
};

struct reader {
    const uint8_t *p;
    const uint8_t *end;
};

static inline uint64_t load(const char *p)
{
    uint64_t w;

    memcpy(&w, p, 8);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    w = __builtin_bswap64(w);
#endif
    return w;
}

static inline uint8_t lower(uint8_t c)
{
    return c >= 'A' && c <= 'Z' ? c | 0x20 : c;
}

/* Letters, digits and every byte above ASCII, so words of other scripts need no decoding. */
static inline int is_word(uint8_t c)
{
    return c >= 0x80 || (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
}

static int next_word(struct reader *r, struct word *w)
{
    size_t n = 0;

    while (r->p < r->end && !is_word(*r->p))
        r->p++;
    w->p[0] = '<';
    while (r->p < r->end && n < WORD_MAX && is_word(*r->p))
        w->p[1 + n++] = (char)lower(*r->p++);
    w->p[1 + n] = '>';
    memset(w->p + n + 2, 0, 8);
    w->n = n;
    return n != 0;
}

static uint64_t word_hash(const struct word *w)
{
    uint64_t h = MP__GOLDEN * (w->n + 1), last;
    size_t i;

    for (i = 0; i + 8 <= w->n; i += 8)
        h = mp__mix64(h ^ load(w->p + 1 + i));
    last = load(w->p + 1 + i); /* the '>' and zeros follow, always the same for the same word */
    return mp__mix64(h ^ last);
}

static int is_stop(const struct word *w)
{
    static const char *const stop[6] = {
        "",
        " a i ",
        " an as at be by he if in is it my no of on or so to us we do ",
        " and are but can did for had has her him his how its not our she the was who you ",
        " been does from have into than that them then they this were what when will with your ",
        " about their there these those which would could should "};
    char probe[8] = " ";

    if (w->n > 5)
        return 0;
    memcpy(probe + 1, w->p + 1, w->n);
    probe[1 + w->n] = ' ';
    probe[2 + w->n] = '\0';
    return strstr(stop[w->n], probe) != NULL;
}

static inline void add(float *out, uint32_t dim, uint64_t h, float weight)
{
    uint32_t at = (uint32_t)((h >> 32) * dim >> 32);

    out[at] += h & 1 ? weight : -weight;
}

/* Half of a word's squared length is the word, half its parts, however long it is. */
static void add_word(float *out, uint32_t dim, const struct word *w, uint64_t h, float weight)
{
    size_t len = w->n + 2, i, k, grams;
    float part;

    add(out, dim, h, weight);
    if (len < 4)
        return;
    grams = (len - 2) + (len - 3) + (len > 4 ? len - 4 : 0);
    part = weight / sqrtf((float)grams);
    for (i = 0; i + 3 <= len; i++) {
        uint64_t bytes = load(w->p + i);

        for (k = 3; k <= 5 && i + k <= len; k++)
            add(out, dim, mp__mix64((bytes & (UINT64_MAX >> (64 - 8 * k))) + k * MP__GOLDEN), part);
    }
}

/* In double and in one order, so that every processor gets the same bits. */
static void unit(float *out, uint32_t dim)
{
    double sum = 0, inv;
    uint32_t i;

    for (i = 0; i < dim; i++)
        sum += (double)out[i] * (double)out[i];
    if (!(sum > 1e-12)) {
        memset(out, 0, dim * sizeof(*out));
        out[0] = 1;
        return;
    }
    inv = 1 / sqrt(sum);
    for (i = 0; i < dim; i++)
        out[i] = (float)(out[i] * inv);
}

void mp__hash_embed(const char *text, size_t n, uint32_t dim, float *out)
{
    struct reader r = {(const uint8_t *)text, (const uint8_t *)text + n};
    uint16_t counts[COUNTS] = {0}, *count;
    struct word w;
    uint64_t h;
    float weight;

    if (dim == 0)
        return;
    memset(out, 0, dim * sizeof(*out));
    while (next_word(&r, &w)) {
        h = word_hash(&w);
        count = &counts[h % COUNTS];
        if (*count < UINT16_MAX)
            ++*count;
        weight = sqrtf((float)*count) - sqrtf((float)*count - 1);
        add_word(out, dim, &w, h, is_stop(&w) ? weight * STOP : weight);
    }
    unit(out, dim);
}

static void mark_words(const char *text, size_t n, uint64_t *bits)
{
    struct reader r = {(const uint8_t *)text, (const uint8_t *)text + n};
    struct word w;
    uint64_t h;

    while (next_word(&r, &w)) {
        h = word_hash(&w) >> 48;
        bits[h / 64] |= UINT64_C(1) << (h % 64);
    }
}

/* The share of the query's words, stop words light, that are among the doc's. */
static double overlap(const char *query, size_t qn, const char *doc, size_t dn)
{
    struct reader r = {(const uint8_t *)query, (const uint8_t *)query + qn};
    uint64_t bits[1024] = {0}, h;
    double all = 0, hit = 0, weight;
    struct word w;

    mark_words(doc, dn, bits);
    while (next_word(&r, &w)) {
        h = word_hash(&w) >> 48;
        weight = is_stop(&w) ? (double)STOP : 1;
        all += weight;
        if (bits[h / 64] >> (h % 64) & 1)
            hit += weight;
    }
    return all > 0 ? hit / all : 0;
}

float mp__hash_score(const char *query, size_t qn, const char *doc, size_t dn)
{
    float a[SCORE_DIM], b[SCORE_DIM];
    double cosine = 0, score;
    size_t i;

    mp__hash_embed(query, qn, SCORE_DIM, a);
    mp__hash_embed(doc, dn, SCORE_DIM, b);
    for (i = 0; i < SCORE_DIM; i++)
        cosine += (double)a[i] * (double)b[i];
    score = 0.6 * (cosine > 0 ? cosine : 0) + 0.4 * overlap(query, qn, doc, dn);
    return score < 1 ? (float)score : 1.0f;
}

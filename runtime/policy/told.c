#include "policy/told.h"

#include <string.h>
#include <strings.h>

#define NEAR_BYTES 48 /* from "at most" to its number */

static int has(const char *text, size_t n, const char *word)
{
    size_t len = strlen(word), i;

    for (i = 0; i + len <= n; i++)
        if (strncasecmp(text + i, word, len) == 0)
            return 1;
    return 0;
}

static int any(const char *text, size_t n, const char *const *words)
{
    for (; *words != NULL; words++)
        if (has(text, n, *words))
            return 1;
    return 0;
}

static const char *const of_bounds[] = {"max",      "at most", "limit",     "up to",  "exceed",
                                        "than",     "<=",      "> ",        "allow",  "between",
                                        "at least", "only",    "supported", "capped", NULL};
static const char *const of_bytes[] = {"byte",           "payload", "body",     "entity",
                                       "token",          "context", "too long", "content length",
                                       "content-length", NULL};
static const char *const of_rows[] = {"batch", "inputs", "items",     "documents", "elements",
                                      "texts", "rows",   "requests",  "sentences", "instances",
                                      "array", "list",   "number of", NULL};

struct number {
    uint64_t value;
    size_t from, to;
};

/* The next whole number, "1,000" too; no part of a word, a fraction or an exponent. */
static int next_number(const char *text, size_t n, size_t *at, struct number *out)
{
    size_t i = *at;

    while (i < n) {
        if (text[i] < '0' || text[i] > '9') {
            i++;
            continue;
        }
        out->from = i;
        out->value = 0;
        for (; i < n; i++) {
            if (text[i] == ',' && i + 3 < n && text[i + 1] >= '0' && text[i + 1] <= '9')
                continue;
            if (text[i] < '0' || text[i] > '9')
                break;
            if (out->value < UINT64_C(1) << 40)
                out->value = out->value * 10 + (uint64_t)(text[i] - '0');
        }
        out->to = i;
        *at = i;
        if (out->from > 0) {
            char c = text[out->from - 1];

            if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '.' ||
                c == '-')
                continue;
        }
        if (i + 1 < n && text[i] == '.' && text[i + 1] >= '0' && text[i + 1] <= '9')
            continue;
        return 1;
    }
    return 0;
}

/* Is it a bound? A word of bounds stands before it, or right behind. */
static int bounded(const char *text, size_t n, const struct number *x)
{
    size_t from = x->from > NEAR_BYTES ? x->from - NEAR_BYTES : 0;
    size_t behind = n - x->to < 24 ? n - x->to : 24;
    static const char *const after[] = {"max", "limit", "allowed", NULL};

    return any(text + from, x->from - from, of_bounds) || any(text + x->to, behind, after);
}

/* The largest bound below what was sent; 0: none. */
static uint64_t bound_below(const char *text, size_t n, uint64_t sent)
{
    struct number x;
    size_t at = 0;
    uint64_t best = 0;

    while (next_number(text, n, &at, &x))
        if (x.value > 0 && x.value < sent && x.value > best && bounded(text, n, &x))
            best = x.value;
    return best;
}

/* "maximum 8192 tokens, got 9000": the part's bytes in the same proportion, and a little less. */
static uint64_t bytes_for_tokens(const char *text, size_t n, uint64_t bytes)
{
    struct number x;
    size_t at = 0;
    uint64_t numbers[8];
    int count = 0, i;
    uint64_t most = 0, limit = 0;

    while (count < 8 && next_number(text, n, &at, &x)) {
        numbers[count++] = x.value;
        if (x.value > most)
            most = x.value;
    }
    /* What was counted is the largest, and of its order: bytes have 1 to 8 of them in a token. */
    if (most > bytes || most < bytes / 16)
        return 0;
    limit = bound_below(text, n, most);
    for (i = 0; i < count; i++)
        if (numbers[i] < most && numbers[i] * 100 < most)
            return 0; /* numbers of another matter: say no more than is sure */
    return limit > 0 ? (uint64_t)((double)bytes * (double)limit / (double)most * 0.95) : 0;
}

void mpp_told(const char *text, size_t n, uint32_t rows, uint64_t bytes, struct mpp_outcome *out)
{
    int size = any(text, n, of_bytes), number = any(text, n, of_rows);
    uint64_t told;

    if (number) {
        told = bound_below(text, n, rows);
        if (told > 0 && !has(text, n, "token")) {
            out->about = MPP_ABOUT_ROWS;
            out->told_rows = (uint32_t)told;
            return;
        }
    }
    if (!size) {
        if (number && any(text, n, of_bounds))
            out->about = MPP_ABOUT_ROWS;
        return;
    }
    out->about = MPP_ABOUT_BYTES;
    if (has(text, n, "token"))
        out->told_bytes = bytes_for_tokens(text, n, bytes);
    else if (has(text, n, "byte"))
        out->told_bytes = bound_below(text, n, bytes);
}

#include "policy/hints.h"

#include <string.h>

void mpp_hints_init(struct mpp_hints *h)
{
    h->retry_after = -1;
    h->should_retry = -1;
    h->limit_requests = h->remaining_requests = h->reset_requests = -1;
    h->limit_tokens = h->remaining_tokens = h->reset_tokens = -1;
    h->rank = 0;
}

/* ---- scanning -------------------------------------------------------------------------------- */

struct scan {
    const char *p, *end;
};

static int digit(const struct scan *s)
{
    return s->p < s->end && *s->p >= '0' && *s->p <= '9';
}

static int take(struct scan *s, char c)
{
    if (s->p >= s->end || *s->p != c)
        return 0;
    s->p++;
    return 1;
}

/* A decimal number without sign or exponent; the locale has no say. */
static int number(struct scan *s, double *out)
{
    double x = 0, unit = 1;
    int digits = 0;

    for (; digit(s); s->p++, digits++)
        x = x * 10 + (*s->p - '0');
    if (s->p + 1 < s->end && *s->p == '.' && s->p[1] >= '0' && s->p[1] <= '9') {
        for (s->p++; digit(s); s->p++, digits++) {
            unit /= 10;
            x += (*s->p - '0') * unit;
        }
    }
    if (digits == 0 || digits > 18)
        return 0;
    *out = x;
    return 1;
}

static int fixed(struct scan *s, int digits, int *out)
{
    int x = 0;

    while (digits-- > 0) {
        if (!digit(s))
            return 0;
        x = x * 10 + (*s->p++ - '0');
    }
    *out = x;
    return 1;
}

static struct scan trimmed(const char *p, size_t n)
{
    struct scan s = {p, p + n};

    while (s.p < s.end && (*s.p == ' ' || *s.p == '\t'))
        s.p++;
    while (s.end > s.p && (s.end[-1] == ' ' || s.end[-1] == '\t'))
        s.end--;
    return s;
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
}

static int same(const char *p, size_t n, const char *word)
{
    size_t i;

    for (i = 0; i < n; i++)
        if (!word[i] || lower(p[i]) != word[i])
            return 0;
    return word[n] == '\0';
}

/* ---- times ----------------------------------------------------------------------------------- */

/* Days since 1970-01-01 of a Gregorian date (H. Hinnant, "chrono-compatible low-level date
 * algorithms"): years begin in March, so the leap day is the last. */
static int64_t days_from_civil(int64_t y, int m, int d)
{
    int64_t era, yoe, doy, doe;

    y -= m <= 2;
    era = (y >= 0 ? y : y - 399) / 400;
    yoe = y - era * 400;
    doy = (153 * (m + (m > 2 ? -3 : 9)) + 2) / 5 + d - 1;
    doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    return era * 146097 + doe - 719468;
}

static int unix_time(int64_t y, int mo, int d, int h, int mi, int sec, double *out)
{
    if (mo < 1 || mo > 12 || d < 1 || d > 31 || h > 23 || mi > 59 || sec > 60 || y < 1970)
        return 0;
    *out = (double)(days_from_civil(y, mo, d) * 86400 + h * 3600 + mi * 60 + sec);
    return 1;
}

static int month(struct scan *s, int *out)
{
    static const char names[] = "janfebmaraprmayjunjulaugsepoctnovdec";
    int i;

    if (s->end - s->p < 3)
        return 0;
    for (i = 0; i < 12; i++) {
        if (lower(s->p[0]) == names[3 * i] && lower(s->p[1]) == names[3 * i + 1] &&
            lower(s->p[2]) == names[3 * i + 2]) {
            s->p += 3;
            *out = i + 1;
            return 1;
        }
    }
    return 0;
}

static int time_of_day(struct scan *s, int *h, int *m, int *sec)
{
    return fixed(s, 2, h) && take(s, ':') && fixed(s, 2, m) && take(s, ':') && fixed(s, 2, sec);
}

/* "Sun, 06 Nov 1994 08:49:37 GMT", or with dashes and two digits of year (RFC 850). */
static int http_date(struct scan s, double *out)
{
    int d, mo, y, h, mi, sec, yy, n;
    const char *comma = memchr(s.p, ',', (size_t)(s.end - s.p));
    char sep;

    if (comma == NULL)
        return 0;
    s = trimmed(comma + 1, (size_t)(s.end - comma - 1));
    if (!fixed(&s, 2, &d))
        return 0;
    sep = s.p < s.end ? *s.p : 0;
    if ((sep != ' ' && sep != '-') || !take(&s, sep) || !month(&s, &mo) || !take(&s, sep))
        return 0;
    if (!fixed(&s, 2, &y))
        return 0;
    n = fixed(&s, 2, &yy);
    y = n ? y * 100 + yy : y + (y < 70 ? 2000 : 1900);
    if (!take(&s, ' ') || !time_of_day(&s, &h, &mi, &sec))
        return 0;
    return unix_time(y, mo, d, h, mi, sec, out);
}

static double fraction(struct scan *s)
{
    double sum = 0, unit = 1;

    for (; digit(s); s->p++) {
        unit /= 10;
        sum += (*s->p - '0') * unit;
    }
    return sum;
}

/* "Z", "+01:00": seconds east of Greenwich. */
static int zone(struct scan *s, int *out)
{
    int h = 0, m = 0, sign = 0;

    if (take(s, '+'))
        sign = 1;
    else if (take(s, '-'))
        sign = -1;
    else if (!take(s, 'Z') && !take(s, 'z'))
        return 0;
    if (sign && (!fixed(s, 2, &h) || !take(s, ':') || !fixed(s, 2, &m)))
        return 0;
    *out = sign * (h * 3600 + m * 60);
    return 1;
}

/* "2026-03-01T12:00:00.5Z", "2026-03-01T12:00:00+01:00" */
static int rfc3339(struct scan s, double *out)
{
    int hi, y, mo, d, h, mi, sec, east;
    double part = 0;

    if (!fixed(&s, 2, &hi) || !fixed(&s, 2, &y) || !take(&s, '-') || !fixed(&s, 2, &mo) ||
        !take(&s, '-') || !fixed(&s, 2, &d))
        return 0;
    if (!(take(&s, 'T') || take(&s, 't') || take(&s, ' ')) || !time_of_day(&s, &h, &mi, &sec))
        return 0;
    if (take(&s, '.'))
        part = fraction(&s);
    if (!zone(&s, &east) || s.p != s.end || !unix_time(hi * 100 + y, mo, d, h, mi, sec, out))
        return 0;
    *out += part - east;
    return 1;
}

static double unit_of(struct scan *s)
{
    if (s->end - s->p >= 2 && s->p[1] == 's') {
        char c = *s->p;
        double u = c == 'm' ? 1e-3 : c == 'u' ? 1e-6 : c == 'n' ? 1e-9 : 0;

        if (u > 0) {
            s->p += 2;
            return u;
        }
    }
    if (s->end - s->p >= 3 && (unsigned char)s->p[0] >= 0xc2 && s->p[2] == 's') { /* micro sign */
        s->p += 3;
        return 1e-6;
    }
    if (take(s, 's'))
        return 1;
    if (take(s, 'm'))
        return 60;
    if (take(s, 'h'))
        return 3600;
    return take(s, 'd') ? 86400 : 0;
}

/* "12ms", "6m0s", "1h2m3.5s" */
static int go_duration(struct scan s, double *out)
{
    double sum = 0, x, unit;

    if (s.p >= s.end)
        return 0;
    while (s.p < s.end) {
        if (!number(&s, &x))
            return 0;
        unit = unit_of(&s);
        if (unit == 0)
            return 0;
        sum += x * unit;
    }
    *out = sum;
    return 1;
}

static int plain(struct scan s, double *out)
{
    return number(&s, out) && s.p == s.end;
}

/* s from now on, whatever the notation: 1 if it makes sense. Numbers beyond 2001 are unix time,
 * beyond that in milliseconds. */
static int from_now(const char *value, size_t n, double wall_now, double *out)
{
    struct scan s = trimmed(value, n);
    double t;

    if (plain(s, &t)) {
        if (t > 1e12)
            t /= 1e3;
        *out = t > 1e9 ? t - wall_now : t;
    } else if (go_duration(s, &t)) {
        *out = t;
    } else if (rfc3339(s, &t) || http_date(s, &t)) {
        *out = t - wall_now;
    } else {
        return 0;
    }
    return 1;
}

/* ---- headers --------------------------------------------------------------------------------- */

static int should_retry(struct mpp_hints *h, const char *value, size_t n)
{
    struct scan s = trimmed(value, n);

    if (same(s.p, (size_t)(s.end - s.p), "true"))
        h->should_retry = 1;
    else if (same(s.p, (size_t)(s.end - s.p), "false"))
        h->should_retry = 0;
    else
        return 0;
    return 1;
}

static int retry_after(struct mpp_hints *h, const char *value, size_t n, double wall_now)
{
    double t;

    if (!from_now(value, n, wall_now, &t) || !(t > 0))
        return 0;
    if (h->rank < 2) {
        h->retry_after = t;
        h->rank = 1;
    }
    return 1;
}

static int retry_after_ms(struct mpp_hints *h, const char *value, size_t n)
{
    double t;

    if (!plain(trimmed(value, n), &t) || !(t > 0))
        return 0;
    h->retry_after = t / 1e3;
    h->rank = 2;
    return 1;
}

enum what { LIMIT, REMAINING, RESET };

static int set_rate(struct mpp_hints *h, enum what what, int tokens, const char *value, size_t n,
                    double wall_now)
{
    struct scan s = trimmed(value, n);
    const char *cut = memchr(s.p, ',', (size_t)(s.end - s.p));
    double t;

    if (what == RESET) {
        if (!from_now(value, n, wall_now, &t) || !(t > 0))
            return 0;
        *(tokens ? &h->reset_tokens : &h->reset_requests) = t;
        return 1;
    }
    /* "100, 100;w=60" (the old ratelimit draft): the first number is the one in force. */
    if (cut != NULL)
        s = trimmed(s.p, (size_t)(cut - s.p));
    if (!plain(s, &t) || (what == LIMIT && t == 0))
        return 0;
    if (what == LIMIT)
        *(tokens ? &h->limit_tokens : &h->limit_requests) = t;
    else
        *(tokens ? &h->remaining_tokens : &h->remaining_requests) = t;
    return 1;
}

static int rate_word(const char *p, size_t n, enum what *what)
{
    if (same(p, n, "limit"))
        *what = LIMIT;
    else if (same(p, n, "remaining"))
        *what = REMAINING;
    else if (same(p, n, "reset"))
        *what = RESET;
    else
        return 0;
    return 1;
}

static int unit_word(const char *p, size_t n, int *tokens)
{
    if (same(p, n, "requests"))
        *tokens = 0;
    else if (same(p, n, "tokens"))
        *tokens = 1;
    else
        return 0;
    return 1;
}

/* After the vendor's prefix: "limit-requests" (OpenAI), "requests-limit" (Anthropic), or "limit".
 * Anthropic's input-tokens and output-tokens are not ours to count. */
static int rate_header(struct mpp_hints *h, const char *name, size_t n, const char *value,
                       size_t value_n, double wall_now)
{
    const char *dash = memchr(name, '-', n);
    size_t left = dash != NULL ? (size_t)(dash - name) : n;
    size_t right = dash != NULL ? n - left - 1 : 0;
    enum what what;
    int tokens = 0;

    if (dash == NULL) {
        /* A bare limit does not say of what period: it is not believed, see rate.c. */
        return rate_word(name, n, &what) && what != LIMIT &&
               set_rate(h, what, 0, value, value_n, wall_now);
    }
    if (!(rate_word(name, left, &what) && unit_word(dash + 1, right, &tokens)) &&
        !(unit_word(name, left, &tokens) && rate_word(dash + 1, right, &what)))
        return 0;
    return set_rate(h, what, tokens, value, value_n, wall_now);
}

static const char *const prefixes[] = {"x-ratelimit-", "anthropic-ratelimit-", "ratelimit-"};

int mpp_hints_header(struct mpp_hints *h, const char *name, size_t n, const char *value,
                     size_t value_n, double wall_now)
{
    size_t i;

    if (n < 9)
        return 0;
    if (same(name, n, "retry-after"))
        return retry_after(h, value, value_n, wall_now);
    if (same(name, n, "retry-after-ms") || same(name, n, "x-ms-retry-after-ms"))
        return retry_after_ms(h, value, value_n);
    if (same(name, n, "x-should-retry"))
        return should_retry(h, value, value_n);
    for (i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++) {
        size_t k = strlen(prefixes[i]);

        if (n > k && same(name, k, prefixes[i]))
            return rate_header(h, name + k, n - k, value, value_n, wall_now);
    }
    return 0;
}

/* ---- the body of an error ----------------------------------------------------------------------- */

/* Behind the word, in any case; NULL: it is not there. */
static const char *behind(const char *p, const char *end, const char *word)
{
    size_t n = strlen(word), i;

    for (; (size_t)(end - p) >= n; p++) {
        for (i = 0; i < n && lower(p[i]) == word[i]; i++)
            ;
        if (i == n)
            return p + n;
    }
    return NULL;
}

static void skip(struct scan *s, const char *set)
{
    while (s->p < s->end && strchr(set, *s->p) != NULL && *s->p != '\0')
        s->p++;
}

/* "29.05s", "6m0s", "20 seconds", "1 minute", "3": as far as it makes sense. */
static int spoken(struct scan s, double *out)
{
    double sum = 0, x, unit;
    int parts = 0;

    while (number(&s, &x)) {
        skip(&s, " ");
        unit = behind(s.p, s.end, "millis") == s.p + 6 ? 1e-3 : unit_of(&s);
        while (s.p < s.end && lower(*s.p) >= 'a' && lower(*s.p) <= 'z') /* "econds" */
            s.p++;
        if (unit == 0 && parts > 0)
            break;
        sum += x * (unit > 0 ? unit : 1);
        parts++;
        if (unit == 0)
            break;
    }
    *out = sum;
    return parts > 0;
}

int mpp_hints_body(struct mpp_hints *h, int status, const char *body, size_t n)
{
    static const char *const words[] = {
        "\"retrydelay\"", "\"estimated_time\"", "\"retry_after\"",  "retry in ",
        "try again in ",  "retry after ",       "try again after ", "retry again in ",
    };
    struct scan s = {NULL, body + n};
    double t;
    size_t i;

    if (h->retry_after > 0 || (status != 429 && status != 503) || n == 0)
        return 0;
    for (i = 0; i < sizeof(words) / sizeof(*words); i++) {
        s.p = behind(body, s.end, words[i]);
        if (s.p == NULL)
            continue;
        skip(&s, " \t\r\n:\"");
        if (spoken(s, &t) && t > 0) {
            h->retry_after = t;
            return 1;
        }
    }
    return 0;
}

void mpp_hints_settle(struct mpp_hints *h, int status)
{
    double wait = -1;

    if (h->retry_after > 0 || status != 429)
        return;
    if (h->reset_requests > 0 && h->remaining_requests == 0)
        wait = h->reset_requests;
    if (h->reset_tokens > 0 && h->remaining_tokens == 0 && h->reset_tokens > wait)
        wait = h->reset_tokens;
    /* Azure tells the reset and no remainder. */
    if (wait < 0 && h->remaining_requests < 0 && h->remaining_tokens < 0)
        wait = h->reset_tokens > h->reset_requests ? h->reset_tokens : h->reset_requests;
    if (wait > 0)
        h->retry_after = wait;
}

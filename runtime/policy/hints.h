/*
 * hints.h - what a response's headers, or the body of an error, say about when to come back.
 *
 * Understood: retry-after-ms, retry-after (seconds, float or HTTP date), x-should-retry,
 * x-ratelimit-{limit,remaining,reset}-{requests,tokens}, anthropic-ratelimit-*, the generic
 * x-ratelimit-{limit,remaining,reset} and ratelimit-*; times as seconds, Go durations (`12ms`,
 * `6m0s`), RFC 3339, HTTP dates or unix time. Values that make no sense (-1, 0 for a limit,
 * rubbish) count as absent.
 */
#ifndef MP_POLICY_HINTS_H
#define MP_POLICY_HINTS_H

#include <stddef.h>
#include <stdint.h>

struct mpp_hints {
    double retry_after; /* s, < 0: none. retry-after-ms wins over retry-after; for a 429 without
                            either, the reset of the exhausted limit */
    int should_retry;   /* 1, 0, or -1: not said */
    double limit_requests, remaining_requests, reset_requests; /* < 0: not said; reset in s */
    double limit_tokens, remaining_tokens, reset_tokens;
    uint8_t rank; /* private: 2 retry-after-ms was seen, 1 retry-after */
};

void mpp_hints_init(struct mpp_hints *hints);

/* One header; the name in any case. wall_now: unix time, for dates. Returns 1 if it was of use. */
int mpp_hints_header(struct mpp_hints *hints, const char *name, size_t name_len, const char *value,
                     size_t value_len, double wall_now);

/* The body of a 429 or 503 whose headers name no delay: Google's "retryDelay", Hugging Face's
 * "estimated_time", or words such as "try again in 1.5s". Returns 1 if it was of use. */
int mpp_hints_body(struct mpp_hints *hints, int status, const char *body, size_t n);

/* After the last header of a reply with that status: for a 429 that names no delay itself,
 * retry_after becomes the reset of the exhausted limit. mpp_judge does it too, so forgetting it
 * loses nothing but the number in the error. */
void mpp_hints_settle(struct mpp_hints *hints, int status);

#endif

/* What headers say: every notation of a delay or a limit, and rubbish. */
#include "policy_rig.h"

#define NOW 1772366400.0 /* 2026-03-01T12:00:00Z */

static struct mpp_hints H;

static int header(const char *name, const char *value)
{
    return mpp_hints_header(&H, name, strlen(name), value, strlen(value), NOW);
}

static void near(double got, double want)
{
    if (got < want - 1e-6 || got > want + 1e-6)
        fail_msg("%.9f is not %.9f", got, want);
}

static void delays_in_bodies(void **state)
{
    static const struct {
        int status;
        const char *text;
        double want;
    } cases[] = {
        {429,
         "{\"error\":{\"details\":[{\"@type\":\"type.googleapis.com/google.rpc.RetryInfo\","
         "\"retryDelay\":\"29.05s\"}]}}",
         29.05},
        {429, "{\"message\":\"Quota exceeded. Please retry in 29.5s.\"}", 29.5},
        {429, "Rate limit reached. Please try again in 6m0s. Visit https://x", 360},
        {429, "Please try again in 20ms.", 0.02},
        {429, "try again in 20 milliseconds", 0.02},
        {429, "Please retry after 26 seconds.", 26},
        {503, "{\"error\":\"Model m is currently loading\",\"estimated_time\":20.25}", 20.25},
        {429, "Try again in 1 minute", 60},
        {429, "{\"retryDelay\" : \"0s\"}", -1},
        {429, "retry in a while", -1},
        {429, "", -1},
        {500, "Please retry in 29s.", -1},
    };
    size_t i;

    (void)state;
    for (i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        mpp_hints_init(&H);
        assert_int_equal(mpp_hints_body(&H, cases[i].status, cases[i].text, strlen(cases[i].text)),
                         cases[i].want > 0);
        near(H.retry_after, cases[i].want);
    }
    mpp_hints_init(&H);
    header("Retry-After", "2");
    assert_int_equal(mpp_hints_body(&H, 429, "retry in 9s", 11), 0);
    near(H.retry_after, 2);
}

static void delay_notations(void **state)
{
    static const struct {
        const char *text;
        double want;
    } cases[] = {
        {"3", 3},
        {"0.25", 0.25},
        {" 7 ", 7},
        {"12ms", 0.012},
        {"6m0s", 360},
        {"1h2m3.5s", 3723.5},
        {"250us", 0.00025},
        {"Sun, 01 Mar 2026 12:00:30 GMT", 30},
        {"Sunday, 01-Mar-26 12:01:00 GMT", 60},
        {"2026-03-01T12:00:05Z", 5},
        {"2026-03-01T13:00:05.500+01:00", 5.5},
        {"1772366410", 10},
        {"1772366410000", 10},
    };
    size_t i;

    (void)state;
    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        mpp_hints_init(&H);
        assert_int_equal(header("Retry-After", cases[i].text), 1);
        near(H.retry_after, cases[i].want);
    }
}

static void rubbish_is_absent(void **state)
{
    static const char *const bad[] = {"",
                                      "-1",
                                      "0",
                                      "soon",
                                      "1e9999",
                                      "nan",
                                      "inf",
                                      "12 s",
                                      "1,5",
                                      "--3",
                                      "3x",
                                      "6m0",
                                      "s",
                                      ".",
                                      "2026-13-01T00:00:00Z",
                                      "2026-03-01",
                                      "Sun, 32 Mar 2026",
                                      "Sun, 01 Mar 2020 12:00:30 GMT",
                                      "99999999999999999999999"};
    size_t i;

    (void)state;
    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        mpp_hints_init(&H);
        if (header("retry-after", bad[i]) != 0)
            fail_msg("\"%s\" was taken for %f", bad[i], H.retry_after);
        assert_true(H.retry_after < 0);
        header("retry-after-ms", bad[i]);
        assert_true(H.retry_after < 0);
    }
}

static void milliseconds_win_over_seconds(void **state)
{
    (void)state;
    mpp_hints_init(&H);
    header("retry-after", "9");
    header("retry-after-ms", "1500");
    near(H.retry_after, 1.5);
    mpp_hints_init(&H);
    header("retry-after-ms", "1500");
    header("retry-after", "9");
    near(H.retry_after, 1.5);
}

static void rate_headers_of_every_provider(void **state)
{
    (void)state;
    mpp_hints_init(&H);
    header("x-ratelimit-limit-requests", "600");
    header("X-RateLimit-Remaining-Requests", "599");
    header("x-ratelimit-reset-requests", "100ms");
    header("x-ratelimit-limit-tokens", "60000");
    header("x-ratelimit-remaining-tokens", "0");
    header("x-ratelimit-reset-tokens", "6m0s");
    near(H.limit_requests, 600);
    near(H.remaining_requests, 599);
    near(H.reset_requests, 0.1);
    near(H.limit_tokens, 60000);
    near(H.remaining_tokens, 0);
    near(H.reset_tokens, 360);
    mpp_hints_init(&H);
    header("anthropic-ratelimit-requests-limit", "50");
    header("anthropic-ratelimit-requests-remaining", "49");
    header("anthropic-ratelimit-tokens-reset", "2026-03-01T12:01:00Z");
    assert_int_equal(header("anthropic-ratelimit-input-tokens-limit", "10"), 0);
    near(H.limit_requests, 50);
    near(H.remaining_requests, 49);
    near(H.reset_tokens, 60);
    mpp_hints_init(&H);
    header("x-ratelimit-remaining", "12");
    header("ratelimit-reset", "30");
    assert_int_equal(header("x-ratelimit-limit", "1000"), 0);
    near(H.remaining_requests, 12);
    near(H.reset_requests, 30);
}

static void senseless_limits_are_absent(void **state)
{
    (void)state;
    mpp_hints_init(&H);
    header("x-ratelimit-limit-requests", "0");
    header("x-ratelimit-remaining-requests", "-1");
    header("x-ratelimit-limit-tokens", "-1");
    header("x-ratelimit-reset-tokens", "0");
    assert_true(H.limit_requests < 0 && H.remaining_requests < 0);
    assert_true(H.limit_tokens < 0 && H.reset_tokens < 0);
}

static void a_429_waits_for_the_exhausted_limit(void **state)
{
    (void)state;
    mpp_hints_init(&H);
    header("x-ratelimit-remaining-requests", "10");
    header("x-ratelimit-reset-requests", "1s");
    header("x-ratelimit-remaining-tokens", "0");
    header("x-ratelimit-reset-tokens", "20s");
    mpp_hints_settle(&H, 200);
    assert_true(H.retry_after < 0);
    mpp_hints_settle(&H, 429);
    near(H.retry_after, 20);
    mpp_hints_init(&H); /* Azure: seconds, and nothing else */
    header("x-ratelimit-reset-tokens", "7");
    mpp_hints_settle(&H, 429);
    near(H.retry_after, 7);
}

static void should_retry_is_true_or_false(void **state)
{
    (void)state;
    mpp_hints_init(&H);
    assert_int_equal(header("x-should-retry", "maybe"), 0);
    assert_int_equal(H.should_retry, -1);
    header("X-Should-Retry", "TRUE");
    assert_int_equal(H.should_retry, 1);
    header("x-should-retry", "false");
    assert_int_equal(H.should_retry, 0);
}

static void other_headers_are_none_of_its_business(void **state)
{
    static const char *const names[] = {"content-type",
                                        "",
                                        "x",
                                        "x-ratelimit-",
                                        "ratelimit-x",
                                        "retry-afte",
                                        "retry-afterwards",
                                        "x-ratelimit-limit-"};
    size_t i;

    (void)state;
    mpp_hints_init(&H);
    for (i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        assert_int_equal(header(names[i], "5"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(delay_notations),
        cmocka_unit_test(delays_in_bodies),
        cmocka_unit_test(rubbish_is_absent),
        cmocka_unit_test(milliseconds_win_over_seconds),
        cmocka_unit_test(rate_headers_of_every_provider),
        cmocka_unit_test(senseless_limits_are_absent),
        cmocka_unit_test(a_429_waits_for_the_exhausted_limit),
        cmocka_unit_test(should_retry_is_true_or_false),
        cmocka_unit_test(other_headers_are_none_of_its_business),
    };

    return cmocka_run_group_tests_name("policy_hints", tests, NULL, NULL);
}

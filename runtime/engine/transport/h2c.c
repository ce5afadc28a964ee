/*
 * h2c.c - HTTP/2 without TLS, around a fault of libcurl before 8.0.
 *
 * Told that a clear-text server speaks HTTP/2, those versions put the HTTP/2 layer on a connection
 * again with every request that reuses it, and break it (curl pull request 10643). So the first
 * request of a lane leads: it opens a connection and is told. Those that follow are told nothing,
 * wait for that connection and share it. One that finds none would open its own and speak
 * HTTP/1.1 there: it is stopped before it has sent anything, and leads in its turn.
 */
#include "engine/transport/internal.h"

#define MAX_ASTRAY 3

static int curl_is_old(void)
{
    return curl_version_info(CURLVERSION_NOW)->version_num < 0x080000;
}

static int is_led(const struct mp__lane *lane, uint64_t target)
{
    for (size_t i = 0; i < MP__LED; i++)
        if (lane->led[i] == target)
            return 1;
    return 0;
}

static void set_led(struct mp__lane *lane, uint64_t target, int on)
{
    for (size_t i = 0; i < MP__LED; i++)
        if (lane->led[i] == target)
            lane->led[i] = 0;
    if (on) /* one that is pushed out costs a connection, no more */
        lane->led[lane->led_next++ % MP__LED] = target;
}

void mp__h2c_start(struct mp__lane *lane, struct mp__handle *h, struct mp__xfer *x)
{
    int old = curl_is_old();
    x->leads = x->fresh || !is_led(lane, x->target->id);
    if (x->leads)
        set_led(lane, x->target->id, 1);
    curl_easy_setopt(h->easy, CURLOPT_HTTP_VERSION,
                     x->leads || !old ? (long)CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE
                                      : (long)CURL_HTTP_VERSION_2TLS);
    curl_easy_setopt(h->easy, CURLOPT_FRESH_CONNECT, x->leads && old ? 1L : 0L);
    h->fresh = x->leads && old;
}

int mp__h2c_astray(struct mp__xfer *x)
{
    long opened = 0;
    if (x->leads || !curl_is_old())
        return 0;
    curl_easy_getinfo(x->handle->easy, CURLINFO_NUM_CONNECTS, &opened);
    x->astray = opened > 0;
    if (x->astray)
        set_led(x->lane, x->target->id, 0);
    return x->astray;
}

int mp__h2c_again(struct mp__transport *t, struct mp__xfer *x)
{
    if (x->leads && !x->connected)
        set_led(x->lane, x->target->id, 0);
    if (!x->astray || x->strayed >= MAX_ASTRAY)
        return 0;
    uint8_t strayed = x->strayed + 1;
    if (mp__transport_start(t, x) != 0)
        return 0;
    x->strayed = strayed;
    return 1;
}

int mp__h2c_answered(struct mp__transport *t, uint64_t target, int yes)
{
    for (size_t i = 0; i < MP__LED; i++)
        if (t->h2c[i] == target)
            return 1;
    if (yes)
        t->h2c[t->h2c_next++ % MP__LED] = target;
    return 0;
}

/*
 * json_policy.c - policies as JSON, in the words of the Lua library: {"preset": "gateway",
 * "retry": {"max_attempts": 3, "on": [429, "5xx"]}, "hedge": {"after": "2*p95"}, ...}.
 */
#include "engine/json_read.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIELD(place, name, member, type)                                                           \
    {                                                                                              \
        name, type, offsetof(struct mp_policy, place.member)                                       \
    }

static const struct mp__jfield retry_fields[] = {
    FIELD(retry, "max_attempts", max_attempts, MP__J_COUNT),
    FIELD(retry, "base", base, MP__J_SECONDS),
    FIELD(retry, "throttle_base", throttle_base, MP__J_SECONDS),
    FIELD(retry, "cap", cap, MP__J_SECONDS),
    FIELD(retry, "budget", budget, MP__J_SECONDS),
    FIELD(retry, "reserve", reserve, MP__J_SECONDS),
    FIELD(retry, "budget_cap", budget_cap, MP__J_SECONDS),
    FIELD(retry, "max_retry_after", max_server_delay, MP__J_SECONDS),
    FIELD(retry, "respect_retry_after", respect_retry_after, MP__J_BOOL8),
    {"on", MP__J_OTHER, 0},
    {"never", MP__J_OTHER, 0},
    {"when_empty", MP__J_OTHER, 0},
    {"jitter", MP__J_OTHER, 0},
    {NULL, 0, 0},
};

static const struct mp__jfield hedge_fields[] = {
    FIELD(hedge, "delay", delay, MP__J_SECONDS),
    FIELD(hedge, "budget", budget, MP__J_SECONDS),
    FIELD(hedge, "reserve", reserve, MP__J_SECONDS),
    {"after", MP__J_OTHER, 0},
    {NULL, 0, 0},
};

static const struct mp__jfield rate_fields[] = {
    FIELD(rate, "rpm", rpm, MP__J_SECONDS),
    FIELD(rate, "tpm", tpm, MP__J_SECONDS),
    FIELD(rate, "share", share, MP__J_SECONDS),
    {NULL, 0, 0},
};

static const struct mp__jfield concurrency_fields[] = {
    FIELD(concurrency, "limit", limit, MP__J_COUNT),
    FIELD(concurrency, "start", limit, MP__J_COUNT),
    FIELD(concurrency, "max", max, MP__J_COUNT),
    FIELD(concurrency, "min", min, MP__J_COUNT),
    {"mode", MP__J_OTHER, 0},
    {NULL, 0, 0},
};

static const struct mp__jfield batch_fields[] = {
    FIELD(batch, "size", size, MP__J_COUNT),           FIELD(batch, "chars", chars, MP__J_COUNT64),
    FIELD(batch, "tokens", tokens, MP__J_COUNT64),     FIELD(batch, "bytes", bytes, MP__J_COUNT64),
    FIELD(batch, "max_wait", max_wait, MP__J_SECONDS), {NULL, 0, 0},
};

static const struct mp__jfield breaker_fields[] = {
    FIELD(breaker, "consecutive", consecutive, MP__J_COUNT),
    FIELD(breaker, "ratio", ratio, MP__J_SECONDS),
    FIELD(breaker, "min_requests", min_requests, MP__J_COUNT),
    FIELD(breaker, "window", window, MP__J_SECONDS),
    FIELD(breaker, "open", open, MP__J_SECONDS),
    FIELD(breaker, "open_max", open_max, MP__J_SECONDS),
    {NULL, 0, 0},
};

static const struct mp__jfield route_fields[] = {
    FIELD(route, "eject", eject, MP__J_BOOL32),
    {"mode", MP__J_OTHER, 0},
    {NULL, 0, 0},
};

/* ---- places with words of their own ---- */

static int add_statuses(struct mp_retry_policy *r, const cJSON *list, const char *name, int on)
{
    const cJSON *v = NULL;
    if (!cJSON_IsArray(list))
        return mp__fail(MP_EINVAL, "retry.%s: a list expected", name);
    cJSON_ArrayForEach(v, list)
    {
        const char *s = cJSON_GetStringValue(v);
        uint8_t fault = 0;
        if (s == NULL && cJSON_IsNumber(v) && v->valuedouble >= 100 && v->valuedouble <= 65535) {
            mp_status_set(r->on, (unsigned)v->valuedouble, on);
            continue;
        }
        if (s != NULL && strcmp(s, "connect") == 0)
            fault = MP_FAULT_CONNECT;
        else if (s != NULL && strcmp(s, "timeout") == 0)
            fault = MP_FAULT_TIMEOUT;
        else if (s != NULL && strcmp(s, "transport") == 0)
            fault = MP_FAULT_ANY;
        else if (s == NULL || strcmp(s, "5xx") != 0)
            return mp__fail(
                MP_EINVAL,
                "retry.%s: holds a value that is no status, '5xx', 'connect', 'timeout' "
                "or 'transport'",
                name);
        for (unsigned status = 500; fault == 0 && status < 600; status++)
            mp_status_set(r->on, status, on);
        r->transport = (uint8_t)(on ? r->transport | fault : r->transport & ~fault);
    }
    return 0;
}

static int read_retry(struct mp_policy *p, const cJSON *v)
{
    static const char *const empty[] = {"park", "fail", NULL};
    static const char *const jitter[] = {"full", NULL};
    struct mp_retry_policy *r = &p->retry;
    if (cJSON_IsFalse(v)) {
        r->max_attempts = 1;
        return 0;
    }
    double before = r->base;
    int rc = mp__json_fields(p, v, "retry", retry_fields);
    if (rc != 0)
        return rc;
    if (r->base != before && cJSON_GetObjectItemCaseSensitive(v, "throttle_base") == NULL)
        r->throttle_base = r->base > 1 ? r->base : 1;
    const cJSON *on = cJSON_GetObjectItemCaseSensitive(v, "on");
    const cJSON *never = cJSON_GetObjectItemCaseSensitive(v, "never");
    if (on != NULL) {
        memset(r->on, 0, sizeof(r->on));
        r->transport = 0;
        rc = add_statuses(r, on, "on", 1);
    }
    if (rc == 0 && never != NULL)
        rc = add_statuses(r, never, "never", 0);
    int word = mp__json_word(v, "retry", "jitter", jitter);
    if (rc != 0 || word < -1)
        return MP_EINVAL;
    word = mp__json_word(v, "retry", "when_empty", empty);
    if (word >= 0)
        r->fail_fast = (uint8_t)word;
    return word < -1 ? MP_EINVAL : 0;
}

static int read_hedge(struct mp_policy *p, const cJSON *v)
{
    struct mp_hedge_policy *h = &p->hedge;
    if (cJSON_IsFalse(v)) {
        h->delay = h->factor = 0;
        return 0;
    }
    if (cJSON_IsNumber(v) && v->valuedouble > 0) {
        h->delay = v->valuedouble;
        h->factor = 0;
        return 0;
    }
    int rc = mp__json_fields(p, v, "hedge", hedge_fields);
    const cJSON *after = rc == 0 ? cJSON_GetObjectItemCaseSensitive(v, "after") : NULL;
    if (after == NULL)
        return rc;
    double factor = 1;
    double percentile = 0;
    char end = 0;
    const char *s = cJSON_IsString(after) ? after->valuestring : "";
    if (sscanf(s, " p%lf %c", &percentile, &end) != 1 &&
        sscanf(s, "%lf * p%lf %c", &factor, &percentile, &end) != 2)
        return mp__fail(MP_EINVAL, "hedge.after: a text such as '2*p95' expected");
    h->delay = 0;
    h->factor = factor;
    h->percentile = percentile / 100;
    return 0;
}

static int read_rate(struct mp_policy *p, const cJSON *v)
{
    p->rate.rpm = p->rate.tpm = 0;
    return cJSON_IsFalse(v) ? 0 : mp__json_fields(p, v, "rate", rate_fields);
}

static int read_concurrency(struct mp_policy *p, const cJSON *v)
{
    static const char *const modes[] = {"off", "fixed", "adaptive", NULL};
    struct mp_concurrency_policy *c = &p->concurrency;
    if (cJSON_IsFalse(v)) {
        c->mode = MP_CONC_OFF;
        return 0;
    }
    if (cJSON_IsNumber(v) && v->valuedouble >= 1 && v->valuedouble <= UINT32_MAX) {
        c->mode = MP_CONC_FIXED;
        c->limit = (uint32_t)v->valuedouble;
        return 0;
    }
    if (cJSON_IsString(v) && strcmp(v->valuestring, "adaptive") == 0) {
        c->mode = MP_CONC_ADAPTIVE;
        return 0;
    }
    int rc = mp__json_fields(p, v, "concurrency", concurrency_fields);
    if (rc != 0)
        return rc;
    int mode = mp__json_word(v, "concurrency", "mode", modes);
    if (mode >= -1)
        c->mode = mode >= 0 ? (uint32_t)mode : MP_CONC_FIXED;
    return mode < -1 ? MP_EINVAL : 0;
}

static int read_batch(struct mp_policy *p, const cJSON *v)
{
    if (cJSON_IsNumber(v) && v->valuedouble >= 1 && v->valuedouble <= UINT32_MAX) {
        p->batch.size = (uint32_t)v->valuedouble;
        return 0;
    }
    return mp__json_fields(p, v, "batch", batch_fields);
}

static int read_breaker(struct mp_policy *p, const cJSON *v)
{
    p->breaker.enabled = !cJSON_IsFalse(v);
    return cJSON_IsBool(v) ? 0 : mp__json_fields(p, v, "breaker", breaker_fields);
}

static int read_route(struct mp_policy *p, const cJSON *v)
{
    static const char *const modes[] = {"weighted", "least", "p2c", "sticky", NULL};
    int mode = -1;
    if (cJSON_IsFalse(v))
        return 0;
    if (cJSON_IsString(v)) {
        for (int i = 0; modes[i] != NULL; i++)
            mode = strcmp(v->valuestring, modes[i]) == 0 ? i : mode;
        if (mode < 0)
            return mp__fail(MP_EINVAL, "route: weighted, least, p2c or sticky expected");
    } else {
        int rc = mp__json_fields(p, v, "route", route_fields);
        if (rc != 0)
            return rc;
        mode = mp__json_word(v, "route", "mode", modes);
    }
    if (mode >= 0)
        p->route.mode = (uint32_t)mode;
    return mode < -1 ? MP_EINVAL : 0;
}

static const struct {
    const char *name;
    int (*read)(struct mp_policy *p, const cJSON *v);
} places[] = {
    {"retry", read_retry}, {"hedge", read_hedge},
    {"rate", read_rate},   {"concurrency", read_concurrency},
    {"batch", read_batch}, {"breaker", read_breaker},
    {"route", read_route},
};

int mp__json_policy_place(struct mp_policy *p, const cJSON *v)
{
    for (size_t i = 0; i < sizeof(places) / sizeof(*places); i++)
        if (strcmp(v->string, places[i].name) == 0)
            return places[i].read(p, v);
    return 1;
}

int mp__json_preset(struct mp_policy *p, const cJSON *object, enum mp_preset otherwise)
{
    static const char *const presets[] = {"job", "gateway", "interactive", "none", NULL};
    int preset = mp__json_word(object, NULL, "preset", presets);
    if (preset < -1)
        return MP_EINVAL;
    mp_policy_init(p, preset >= 0 ? (enum mp_preset)preset : otherwise);
    return 0;
}

int mp_policy_json(struct mp_policy *policy, const char *json, size_t n)
{
    struct mp_policy p;
    const cJSON *v = NULL;
    if (policy == NULL)
        return mp__fail(MP_EINVAL, "policy: missing");
    cJSON *doc = mp__json_object(json, n);
    if (doc == NULL)
        return MP_EINVAL;
    int rc = mp__json_preset(&p, doc, MP_PRESET_JOB);
    for (v = doc->child; rc == 0 && v != NULL; v = v->next)
        if (strcmp(v->string, "preset") != 0) {
            rc = mp__json_policy_place(&p, v);
            if (rc == 1)
                rc = mp__fail(MP_EINVAL, "%.40s: no such policy", v->string);
        }
    cJSON_Delete(doc);
    if (rc == 0)
        *policy = p;
    return rc;
}

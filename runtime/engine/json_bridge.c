/*
 * json_bridge.c - a whole bridge from one JSON document: endpoints, headers, timeouts, policies,
 * batcher, in the words of the Lua library's client.
 */
#include "engine/json_read.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST_ENDPOINTS 64
#define MOST_HEADERS   64

struct header_list {
    struct mp_header v[MOST_HEADERS];
    size_t n;
    char *bearer; /* owned */
};

struct options {
    struct mp_bridge_config bridge;
    struct mp_config engine;
    struct mp_client_config client;
    struct mp_pool_config pool;
    struct mp_batcher_config batcher;
    struct mp_policy policy;
    struct header_list headers;
    struct mp_endpoint_config endpoints[MOST_ENDPOINTS];
    struct header_list endpoint_headers[MOST_ENDPOINTS];
};

#define AT(type, name, member, kind)                                                               \
    {                                                                                              \
        name, kind, offsetof(type, member)                                                         \
    }

static const struct mp__jfield pool_fields[] = {
    AT(struct mp_pool_config, "max_connections", max_connections, MP__J_COUNT),
    AT(struct mp_pool_config, "max_idle", max_idle, MP__J_COUNT),
    AT(struct mp_pool_config, "idle_timeout", idle_timeout, MP__J_SECONDS),
    AT(struct mp_pool_config, "max_age", max_age, MP__J_SECONDS),
    {NULL, 0, 0},
};

static const struct mp__jfield timeout_fields[] = {
    AT(struct mp_timeouts, "connect", connect, MP__J_SECONDS),
    AT(struct mp_timeouts, "read", read, MP__J_SECONDS),
    AT(struct mp_timeouts, "write", write, MP__J_SECONDS),
    AT(struct mp_timeouts, "pool", pool, MP__J_SECONDS),
    AT(struct mp_timeouts, "attempt", attempt, MP__J_SECONDS),
    AT(struct mp_timeouts, "total", total, MP__J_SECONDS),
    {NULL, 0, 0},
};

static const struct mp__jfield proxy_fields[] = {
    AT(struct mp_client_config, "http", proxy_http, MP__J_STRING),
    AT(struct mp_client_config, "https", proxy_https, MP__J_STRING),
    {NULL, 0, 0},
};

static const struct mp__jfield tls_fields[] = {
    AT(struct mp_tls_config, "ca_file", ca_file, MP__J_STRING),
    AT(struct mp_tls_config, "cert_file", cert_file, MP__J_STRING),
    AT(struct mp_tls_config, "key_file", key_file, MP__J_STRING),
    {"verify", MP__J_OTHER, 0},
    {NULL, 0, 0},
};

static const struct mp__jfield batcher_fields[] = {
    AT(struct mp_batcher_config, "slots", slots, MP__J_COUNT),
    AT(struct mp_batcher_config, "max_batch", batch.size, MP__J_COUNT),
    AT(struct mp_batcher_config, "max_wait", batch.max_wait, MP__J_SECONDS),
    AT(struct mp_batcher_config, "max_tokens", batch.tokens, MP__J_COUNT64),
    AT(struct mp_batcher_config, "max_chars", batch.chars, MP__J_COUNT64),
    AT(struct mp_batcher_config, "max_bytes", batch.bytes, MP__J_COUNT64),
    AT(struct mp_batcher_config, "max_waiting", max_waiting, MP__J_COUNT),
    AT(struct mp_batcher_config, "cache_bytes", cache_bytes, MP__J_COUNT64),
    {NULL, 0, 0},
};

/* ---- headers ---- */

static int add_header(struct header_list *h, const char *name, const char *value)
{
    if (h->n == MOST_HEADERS)
        return mp__fail(MP_EINVAL, "headers: more than %d", MOST_HEADERS);
    h->v[h->n++] = (struct mp_header){name, value};
    return 0;
}

static int read_headers(struct header_list *h, const cJSON *v)
{
    int rc = cJSON_IsObject(v) ? 0 : mp__fail(MP_EINVAL, "headers: a table of texts expected");
    for (const cJSON *x = rc == 0 ? v->child : NULL; rc == 0 && x != NULL; x = x->next)
        rc = cJSON_IsString(x) || cJSON_IsFalse(x)
                 ? add_header(h, x->string, cJSON_GetStringValue(x))
                 : mp__fail(MP_EINVAL, "headers.%.40s: a text expected", x->string);
    return rc;
}

static int read_key(struct header_list *h, const cJSON *v)
{
    if (!cJSON_IsString(v))
        return mp__fail(MP_EINVAL, "api_key: a text expected");
    size_t n = strlen(v->valuestring) + sizeof("Bearer ");
    h->bearer = malloc(n);
    if (h->bearer == NULL)
        return mp__fail(MP_ENOMEM, "out of memory");
    snprintf(h->bearer, n, "Bearer %s", v->valuestring);
    return add_header(h, "Authorization", h->bearer);
}

/* ---- the members that are not plain fields ---- */

static int read_endpoint(struct options *o, const cJSON *v)
{
    size_t i = o->client.nendpoints;
    if (i == MOST_ENDPOINTS)
        return mp__fail(MP_EINVAL, "endpoints: more than %d", MOST_ENDPOINTS);
    struct mp_endpoint_config *ep = &o->endpoints[i];
    struct header_list *h = &o->endpoint_headers[i];
    int rc = cJSON_IsObject(v) ? 0 : mp__fail(MP_EINVAL, "endpoints: tables expected");
    for (const cJSON *x = rc == 0 ? v->child : NULL; rc == 0 && x != NULL; x = x->next) {
        if (strcmp(x->string, "base_url") == 0 && cJSON_IsString(x))
            ep->base_url = x->valuestring;
        else if (strcmp(x->string, "weight") == 0 && cJSON_IsNumber(x) && x->valuedouble >= 0)
            ep->weight = x->valuedouble;
        else if (strcmp(x->string, "api_key") == 0)
            rc = read_key(h, x);
        else if (strcmp(x->string, "headers") == 0)
            rc = read_headers(h, x);
        else
            rc = mp__fail(MP_EINVAL, "endpoints: %.40s: no such option, or of a wrong type",
                          x->string);
    }
    ep->headers = h->v;
    ep->nheaders = h->n;
    o->client.nendpoints++;
    return rc;
}

static int read_endpoints(struct options *o, const cJSON *v)
{
    int rc = cJSON_IsArray(v) ? 0 : mp__fail(MP_EINVAL, "endpoints: a list expected");
    for (const cJSON *x = rc == 0 ? v->child : NULL; rc == 0 && x != NULL; x = x->next)
        rc = read_endpoint(o, x);
    return rc;
}

static int read_base_url(struct options *o, const cJSON *v)
{
    if (!cJSON_IsString(v))
        return mp__fail(MP_EINVAL, "base_url: a text expected");
    o->endpoints[o->client.nendpoints++].base_url = v->valuestring;
    return 0;
}

static int read_client_headers(struct options *o, const cJSON *v)
{
    return read_headers(&o->headers, v);
}

static int read_client_key(struct options *o, const cJSON *v)
{
    return read_key(&o->headers, v);
}

static int read_user_agent(struct options *o, const cJSON *v)
{
    return cJSON_IsString(v) ? add_header(&o->headers, "User-Agent", v->valuestring)
                             : mp__fail(MP_EINVAL, "user_agent: a text expected");
}

static int read_timeout(struct options *o, const cJSON *v)
{
    if (!cJSON_IsNumber(v))
        return mp__json_fields(&o->client.timeouts, v, "timeout", timeout_fields);
    if (v->valuedouble <= 0)
        return mp__fail(MP_EINVAL, "timeout: a positive number or a table expected");
    o->client.timeouts.attempt = v->valuedouble;
    return 0;
}

static int read_pool(struct options *o, const cJSON *v)
{
    return mp__json_fields(&o->pool, v, "pool", pool_fields);
}

static int read_proxy(struct options *o, const cJSON *v)
{
    return mp__json_fields(&o->client, v, "proxy", proxy_fields);
}

static int read_tls(struct options *o, const cJSON *v)
{
    int rc = mp__json_fields(&o->client.tls, v, "tls", tls_fields);
    const cJSON *verify = rc == 0 ? cJSON_GetObjectItemCaseSensitive(v, "verify") : NULL;
    if (verify != NULL && !cJSON_IsBool(verify))
        return mp__fail(MP_EINVAL, "tls.verify: true or false expected");
    o->client.tls.no_verify = cJSON_IsFalse(verify);
    return rc;
}

static int read_http_version(struct options *o, const cJSON *v)
{
    const char *s = cJSON_GetStringValue(v);
    if (s == NULL || (strcmp(s, "1.1") != 0 && strcmp(s, "2") != 0))
        return mp__fail(MP_EINVAL, "http_version: '1.1' or '2' expected");
    o->client.http_version = s[0] - '0';
    return 0;
}

static int read_batcher(struct options *o, const cJSON *v)
{
    return mp__json_fields(&o->batcher, v, "batch", batcher_fields);
}

static int read_max_open(struct options *o, const cJSON *v)
{
    if (!cJSON_IsNumber(v) || v->valuedouble < 1 || v->valuedouble > UINT32_MAX)
        return mp__fail(MP_EINVAL, "max_open: a whole number from 1 expected");
    o->bridge.max_open = (uint32_t)v->valuedouble;
    return 0;
}

static int read_name(struct options *o, const cJSON *v)
{
    o->bridge.name = cJSON_GetStringValue(v);
    return o->bridge.name != NULL ? 0 : mp__fail(MP_EINVAL, "name: a text expected");
}

static int read_shared(struct options *o, const cJSON *v)
{
    o->client.shared = cJSON_GetStringValue(v);
    return o->client.shared != NULL ? 0 : mp__fail(MP_EINVAL, "shared: a path expected");
}

static int read_note(struct options *o, const cJSON *v)
{
    o->bridge.note = cJSON_GetStringValue(v);
    return o->bridge.note != NULL ? 0 : mp__fail(MP_EINVAL, "note: a text expected");
}

static const struct {
    const char *name;
    int (*read)(struct options *o, const cJSON *v);
} members[] = {
    {"base_url", read_base_url},
    {"endpoints", read_endpoints},
    {"api_key", read_client_key},
    {"headers", read_client_headers},
    {"user_agent", read_user_agent},
    {"timeout", read_timeout},
    {"pool", read_pool},
    {"proxy", read_proxy},
    {"tls", read_tls},
    {"http_version", read_http_version},
    {"batch", read_batcher},
    {"max_open", read_max_open},
    {"name", read_name},
    {"note", read_note},
    {"shared", read_shared},
};

static int read_member(struct options *o, const cJSON *v)
{
    if (strcmp(v->string, "preset") == 0)
        return 0;
    for (size_t i = 0; i < sizeof(members) / sizeof(*members); i++)
        if (strcmp(v->string, members[i].name) == 0)
            return members[i].read(o, v);
    int rc = mp__json_policy_place(&o->policy, v);
    return rc == 1 ? mp__fail(MP_EINVAL, "%.40s: no such option", v->string) : rc;
}

static void prepare(struct options *o)
{
    o->bridge = (struct mp_bridge_config)MP_INIT(struct mp_bridge_config);
    o->engine = (struct mp_config)MP_INIT(struct mp_config);
    o->client = (struct mp_client_config)MP_INIT(struct mp_client_config);
    o->pool = (struct mp_pool_config)MP_INIT(struct mp_pool_config);
    o->batcher = (struct mp_batcher_config)MP_INIT(struct mp_batcher_config);
    o->bridge.engine = &o->engine;
    o->bridge.client = &o->client;
    o->bridge.batcher = &o->batcher;
    o->client.pool_config = &o->pool;
    o->client.policy = &o->policy;
    o->client.endpoints = o->endpoints;
}

int mp_bridge_start_json(const char *json, size_t n, mp_bridge **out)
{
    if (out == NULL)
        return mp__fail(MP_EINVAL, "out: missing");
    *out = NULL;
    cJSON *doc = mp__json_object(json, n);
    struct options *o = doc != NULL ? calloc(1, sizeof(*o)) : NULL;
    if (o == NULL) {
        cJSON_Delete(doc);
        return doc == NULL ? MP_EINVAL : mp__fail(MP_ENOMEM, "out of memory");
    }
    prepare(o);
    int rc = mp__json_preset(&o->policy, doc, MP_PRESET_GATEWAY);
    for (const cJSON *v = doc->child; rc == 0 && v != NULL; v = v->next)
        rc = read_member(o, v);
    o->client.headers = o->headers.v;
    o->client.nheaders = o->headers.n;
    if (rc == 0)
        rc = mp_bridge_start(&o->bridge, out);
    free(o->headers.bearer);
    for (size_t i = 0; i < MOST_ENDPOINTS; i++)
        free(o->endpoint_headers[i].bearer);
    free(o);
    cJSON_Delete(doc);
    return rc;
}

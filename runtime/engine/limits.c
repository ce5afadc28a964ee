/* limits.c - limits of request sizes that a server did not tell: named, told once, kept to show. */
#include "engine/internal.h"

#include <stdlib.h>
#include <string.h>

#define LABELS_MAX 32

struct mp__label { /* what a key stands for */
    struct mp__label *next;
    uint64_t key;
    char *model; /* behind the path, in one block; "" none */
    char path[];
};

static uint64_t mix(uint64_t h, const char *s)
{
    for (; *s != '\0'; s++)
        h = (h ^ (unsigned char)*s) * UINT64_C(0x100000001b3);
    return (h ^ 0xff) * UINT64_C(0x100000001b3);
}

static struct mp__label *label_of(const struct mp_client *c, uint64_t key)
{
    struct mp__label *l = c->labels;
    while (l != NULL && l->key != key)
        l = l->next;
    return l;
}

uint64_t mp__limit_key(struct mp_client *c, const char *path, const char *model)
{
    if (model == NULL)
        model = "";
    uint64_t key = mix(mix(UINT64_C(0xcbf29ce484222325), path), model);
    if (label_of(c, key) != NULL || c->nlabels >= LABELS_MAX)
        return key;
    size_t n = strlen(path) + 1;
    size_t m = strlen(model) + 1;
    struct mp__label *l = malloc(sizeof(*l) + n + m);
    if (l == NULL)
        return key;
    memcpy(l->path, path, n);
    l->model = memcpy(l->path + n, model, m);
    l->key = key;
    l->next = c->labels;
    c->labels = l;
    c->nlabels++;
    return key;
}

void mp__limits_free(struct mp_client *c)
{
    while (c->labels != NULL) {
        struct mp__label *l = c->labels;
        c->labels = l->next;
        free(l);
    }
}

void mp__limit_learnt(struct mp_client *c, const struct mpp_limit *limit)
{
    const struct mp__label *l = label_of(c, limit->key);
    unsigned long long n = limit->rows > 0 ? limit->rows : limit->bytes;
    mp__log(c->engine, MP_LOG_WARN,
            "%s%s%s: the server %s requests of more than %llu %s; larger ones are cut (%s)",
            l != NULL ? l->path : "", l != NULL && l->model[0] != '\0' ? " " : "",
            l != NULL ? l->model : "", limit->soft ? "does not answer" : "refuses", n,
            limit->rows > 0 ? "inputs" : "bytes of inputs",
            limit->rows > 0 ? "batch_size says so beforehand"
                            : "max_bytes_per_request says so beforehand");
}

int mp_client_limit(mp_client *c, uint32_t nth, struct mp_size_limit *out)
{
    struct mpp_limit limit;
    struct mp_size_limit full = {0};
    size_t want = out->size;
    if (!mpp_client_limit(c->core, nth, &limit))
        return 0;
    const struct mp__label *l = label_of(c, limit.key);
    full.size = want;
    full.path = l != NULL ? l->path : "";
    full.model = l != NULL ? l->model : "";
    full.rows = limit.rows;
    full.bytes = limit.bytes;
    full.guessed = limit.soft;
    memcpy(out, &full, want < sizeof(full) ? want : sizeof(full));
    return 1;
}

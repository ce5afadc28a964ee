#include "engine/json_read.h"

#include <string.h>

#define MOST_BYTES (1024 * 1024)
#define INVALID    (-1 + MP_EINVAL) /* below -1, which words need */

cJSON *mp__json_object(const char *json, size_t n)
{
    cJSON *doc = json != NULL && n <= MOST_BYTES ? cJSON_ParseWithLength(json, n) : NULL;
    if (doc != NULL && cJSON_IsObject(doc))
        return doc;
    cJSON_Delete(doc);
    mp__fail(MP_EINVAL, "json: an object of at most 1 MiB expected");
    return NULL;
}

static int set(void *to, const cJSON *v, const char *where, const struct mp__jfield *f)
{
    char *at = (char *)to + f->offset;
    int number = cJSON_IsNumber(v) && v->valuedouble >= 0 && v->valuedouble <= 1e18;
    double d = number ? v->valuedouble : 0;
    int whole = number && d == (double)(uint64_t)d && d >= 1;
    switch (f->type) {
    case MP__J_COUNT:
        if (!whole || d > UINT32_MAX)
            return mp__fail(MP_EINVAL, "%s.%s: a whole number from 1 expected", where, f->name);
        *(uint32_t *)at = (uint32_t)d;
        return 0;
    case MP__J_COUNT64:
        if (!whole)
            return mp__fail(MP_EINVAL, "%s.%s: a whole number from 1 expected", where, f->name);
        *(uint64_t *)at = (uint64_t)d;
        return 0;
    case MP__J_SECONDS:
        if (!number)
            return mp__fail(MP_EINVAL, "%s.%s: a number from 0 expected", where, f->name);
        *(double *)at = d;
        return 0;
    case MP__J_BOOL8:
    case MP__J_BOOL32:
        if (!cJSON_IsBool(v))
            return mp__fail(MP_EINVAL, "%s.%s: true or false expected", where, f->name);
        if (f->type == MP__J_BOOL8)
            *(uint8_t *)at = (uint8_t)cJSON_IsTrue(v);
        else
            *(uint32_t *)at = (uint32_t)cJSON_IsTrue(v);
        return 0;
    case MP__J_STRING:
        if (!cJSON_IsString(v))
            return mp__fail(MP_EINVAL, "%s.%s: a text expected", where, f->name);
        *(const char **)at = v->valuestring;
        return 0;
    default:
        return 0;
    }
}

int mp__json_fields(void *to, const cJSON *object, const char *where,
                    const struct mp__jfield *fields)
{
    if (!cJSON_IsObject(object))
        return mp__fail(MP_EINVAL, "%s: a table expected", where);
    for (const cJSON *v = object->child; v != NULL; v = v->next) {
        const struct mp__jfield *f = fields;
        while (f->name != NULL && strcmp(f->name, v->string) != 0)
            f++;
        if (f->name == NULL)
            return mp__fail(MP_EINVAL, "%s.%.40s: no such option", where, v->string);
        int rc = set(to, v, where, f);
        if (rc != 0)
            return rc;
    }
    return 0;
}

int mp__json_word(const cJSON *object, const char *where, const char *name,
                  const char *const *words)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(object, name);
    if (v == NULL)
        return -1;
    for (int i = 0; cJSON_IsString(v) && words[i] != NULL; i++)
        if (strcmp(v->valuestring, words[i]) == 0)
            return i;
    mp__fail(MP_EINVAL, "%s%s%s: not one of the words it may be", where != NULL ? where : "",
             where != NULL ? "." : "", name);
    return INVALID;
}

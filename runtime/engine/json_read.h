/* json_read.h - options from JSON: each one checked, an unknown one refused by its name. */
#ifndef MP_ENGINE_JSON_READ_H
#define MP_ENGINE_JSON_READ_H

#include "engine/internal.h"

#include <cjson/cJSON.h>

enum mp__jtype {
    MP__J_COUNT = 1, /* uint32_t, 1 or more */
    MP__J_COUNT64,
    MP__J_SECONDS, /* double, not negative */
    MP__J_BOOL8,
    MP__J_BOOL32,
    MP__J_STRING, /* const char *, into the document */
    MP__J_OTHER   /* allowed; its reader looks for it */
};

struct mp__jfield {
    const char *name;
    enum mp__jtype type;
    size_t offset;
};

/* The document, an object; NULL with mp_last_error. To be deleted. */
cJSON *mp__json_object(const char *json, size_t n);
/* Sets what `object` says of the fields (the last has no name). `where`: for messages. */
int mp__json_fields(void *to, const cJSON *object, const char *where,
                    const struct mp__jfield *fields);
/* The place of object's member `name` in `words`; -1: it says nothing; MP_EINVAL is below -1. */
int mp__json_word(const cJSON *object, const char *where, const char *name,
                  const char *const *words);

/* json_policy.c: 1 when `v` is no place of a policy. */
int mp__json_policy_place(struct mp_policy *p, const cJSON *v);
int mp__json_preset(struct mp_policy *p, const cJSON *object, enum mp_preset otherwise);

#endif

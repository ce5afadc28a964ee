/* told.h - the limit of a request's size as a refusal says it in words. */
#ifndef MP_POLICY_TOLD_H
#define MP_POLICY_TOLD_H

#include "policy/core.h"

#include <stddef.h>
#include <stdint.h>

/* Reads `text` ("batch size 128 > maximum allowed batch size 32") into about, told_rows and
 * told_bytes of `out`, for a request of `rows` rows whose body has `bytes` bytes. */
void mpp_told(const char *text, size_t n, uint32_t rows, uint64_t bytes, struct mpp_outcome *out);

#endif

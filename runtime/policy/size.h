/*
 * size.h - how large a request may be, learnt from what a server took and what it refused.
 *
 * A limit is of rows or of bytes, whichever separates the two. Rows first, unless the refusal speaks
 * of bytes or tokens ("context length"); when that is contradicted (refused with no more rows
 * than were taken before, or taken with more) the other one. Between the most that was taken and the least that was
 * refused the next request is a probe; from a tenth apart the search is over.
 *
 * Soft: read from timeouts and gateways' 504, which may have had another reason. What was learnt is
 * forgotten after a while (soft 5 min, else 30) of work, and one request of full size asks again.
 */
#ifndef MP_POLICY_SIZE_H
#define MP_POLICY_SIZE_H

#include "base/time.h"
#include "policy/core.h"

enum mpp_unit { MPP_ROWS = 0, MPP_BYTES, MPP_UNITS };

struct mpp_size {
    uint64_t ok[MPP_UNITS];      /* the most that was taken */
    uint64_t bad;                /* the least known to be refused; 0: no limit known */
    uint64_t told;               /* the limit in the server's words; 0: none */
    mp__time at;                 /* of the last refusal that counted */
    uint64_t refused[MPP_UNITS]; /* the least that was refused */
    uint32_t probes;             /* refused between ok and bad */
    uint8_t unit;                /* of bad and told */
    uint8_t sure;                /* that it is this unit */
    uint8_t soft;
};

/* The most that the next request may have in the limit's unit; 0: no limit known. */
uint64_t mpp_size_limit(const struct mpp_size *size);
/* No probes any more. Also without a limit. */
int mpp_size_settled(const struct mpp_size *size);
/* As large as what was taken before, within `slack` (1: exactly so). */
int mpp_size_proven(const struct mpp_size *size, uint64_t rows, uint64_t bytes, double slack);
int mpp_size_over(const struct mpp_size *size, uint64_t rows, uint64_t bytes);

void mpp_size_taken(struct mpp_size *size, uint64_t rows, uint64_t bytes);
/* The limit binds while the other unit is well below what was taken: is it the right one? Then one
 * request as large as the other unit allows is worth its cost; taken or not, the answer is for good. */
int mpp_size_doubtful(const struct mpp_size *size, uint64_t rows, uint64_t bytes);
void mpp_size_tried(struct mpp_size *size, uint64_t rows, uint64_t bytes, int taken);
/* It was refused for its size, as is certain by now. */
void mpp_size_refused(struct mpp_size *size, uint64_t rows, uint64_t bytes,
                      const struct mpp_outcome *outcome, int soft, mp__time now);
void mpp_size_age(struct mpp_size *size, mp__time now);

#endif

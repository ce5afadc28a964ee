#include "policy/size.h"

#define PROBES     10
#define KEEP_SOFT  (300 * MP__SECOND)
#define KEEP_HARD  (1800 * MP__SECOND)
#define NEAR_SHARE 10 /* the search ends when the gap is a tenth */

int mpp_size_settled(const struct mpp_size *size)
{
    uint64_t ok = size->ok[size->unit];

    return size->bad == 0 || size->told > 0 || size->bad <= ok + 1 || size->probes >= PROBES ||
           (ok > 0 && size->bad - 1 - ok <= ok / NEAR_SHARE);
}

uint64_t mpp_size_limit(const struct mpp_size *size)
{
    uint64_t ok = size->ok[size->unit];
    uint64_t limit;

    if (size->bad == 0)
        return 0;
    if (size->told > 0)
        return size->told;
    if (ok >= size->bad)
        ok = size->bad - 1;
    if (ok > 0 && mpp_size_settled(size))
        return ok;
    limit = ok > 0 ? ok + (size->bad - ok) / 2 : size->bad / 2;
    return limit > 0 ? limit : 1;
}

int mpp_size_proven(const struct mpp_size *size, uint64_t rows, uint64_t bytes, double slack)
{
    return (double)rows <= (double)size->ok[MPP_ROWS] * slack &&
           (double)bytes <= (double)size->ok[MPP_BYTES] * slack;
}

int mpp_size_over(const struct mpp_size *size, uint64_t rows, uint64_t bytes)
{
    uint64_t limit = mpp_size_limit(size);

    return limit > 0 && rows > 1 && (size->unit == MPP_ROWS ? rows : bytes) > limit;
}

void mpp_size_taken(struct mpp_size *size, uint64_t rows, uint64_t bytes)
{
    if (rows > size->ok[MPP_ROWS])
        size->ok[MPP_ROWS] = rows;
    if (bytes > size->ok[MPP_BYTES])
        size->ok[MPP_BYTES] = bytes;
}

int mpp_size_doubtful(const struct mpp_size *size, uint64_t rows, uint64_t bytes)
{
    uint64_t got[MPP_UNITS] = {rows, bytes};
    unsigned unit = size->unit, other = 1 - unit;

    return size->bad > 0 && !size->sure && size->told == 0 && mpp_size_settled(size) &&
           got[unit] * 10 >= size->ok[unit] * 7 && got[other] * 5 < size->ok[other] * 4;
}

void mpp_size_tried(struct mpp_size *size, uint64_t rows, uint64_t bytes, int taken)
{
    uint64_t got[MPP_UNITS] = {rows, bytes};
    unsigned other = 1 - size->unit;

    if (taken && got[size->unit] < size->bad)
        return; /* it was no larger than the limit: nothing was tried */
    size->sure = 1;
    if (!taken || size->refused[other] <= size->ok[other])
        return;
    size->unit = (uint8_t)other;
    size->bad = size->refused[other];
    size->probes = 0;
}

static uint64_t told_in(const struct mpp_outcome *o, unsigned unit)
{
    return unit == MPP_ROWS ? o->told_rows : o->told_bytes;
}

/* The unit in which this refusal does not contradict what was taken. */
static unsigned unit_of(const struct mpp_size *size, const uint64_t *got,
                        const struct mpp_outcome *o)
{
    unsigned first = size->bad > 0                 ? size->unit
                     : o->about == MPP_ABOUT_BYTES ? MPP_BYTES
                                                   : MPP_ROWS;
    unsigned other = 1 - first;

    if (o->told_rows > 0 || o->told_bytes > 0)
        return o->told_rows > 0 ? MPP_ROWS : MPP_BYTES;
    return got[first] <= size->ok[first] && got[other] > size->ok[other] ? other : first;
}

void mpp_size_refused(struct mpp_size *size, uint64_t rows, uint64_t bytes,
                      const struct mpp_outcome *o, int soft, mp__time now)
{
    uint64_t got[MPP_UNITS] = {rows, bytes};
    unsigned unit;
    uint64_t told;

    for (unit = 0; unit < MPP_UNITS; unit++)
        if (size->refused[unit] == 0 || got[unit] < size->refused[unit])
            size->refused[unit] = got[unit];
    if (size->bad > 0 && got[size->unit] >= size->bad)
        return; /* nothing new: it was on its way before */
    unit = unit_of(size, got, o);
    told = told_in(o, unit);
    if (size->bad > 0 && unit == size->unit)
        size->probes++;
    if (unit != size->unit || size->bad == 0 || got[unit] < size->bad)
        size->bad = got[unit];
    if (unit != size->unit || (size->told > 0 && got[unit] <= size->told))
        size->told = 0; /* the word was not the whole truth */
    if (unit != size->unit)
        size->probes = 0;
    size->unit = (uint8_t)unit;
    size->soft = (uint8_t)soft;
    size->at = now;
    if (told > 0 && told < got[unit])
        size->told = told;
    /* Taken before and refused now: the unit is not quite the server's own, so a tenth less. */
    if (size->ok[unit] >= size->bad)
        size->ok[unit] = size->bad - size->bad / NEAR_SHARE - (size->bad < NEAR_SHARE);
}

void mpp_size_age(struct mpp_size *size, mp__time now)
{
    mp__time keep = size->soft ? KEEP_SOFT : KEEP_HARD;

    if (size->bad == 0 || now - size->at < keep)
        return;
    size->bad = size->told = 0;
    size->refused[MPP_ROWS] = size->refused[MPP_BYTES] = 0;
    size->probes = 0;
    size->sure = 0;
}

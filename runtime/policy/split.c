/*
 * split.c - a refused batch is cut in two to find the row that is at fault.
 *
 * Refused: 400, 413 or 422 on a part the engine calls splittable. The first half has ceil(n/2)
 * rows; halves start with fresh attempts. One poison row among n costs at most 2 * ceil(log2(n))
 * requests more.
 *
 * A request that is wrong as a whole (unknown model) would so become one request a row. Therefore
 * a call in which nothing has ever succeeded stops splitting after 2 * ceil(log2(n)) + 2 refusals
 * in a row with the same status, n being the rows of the part in hand; from then on refused parts
 * fail as they are. One success anywhere in the call sets the count back.
 */
#include "policy/state.h"

static int refusal(const struct mpp_outcome *o)
{
    return o->splittable && (o->status == 400 || o->status == 413 || o->status == 422);
}

static unsigned log2_up(uint32_t n)
{
    unsigned k = 0;

    while (k < 31 && (UINT32_C(1) << k) < n)
        k++;
    return k;
}

/* The call's first refusal fixes how many it may have in a row. */
static int hopeless(struct mpp_call *call, uint32_t rows, int status)
{
    if (call->refused_status != status) {
        call->refused_status = (uint16_t)status;
        call->refused = 0;
    }
    if (call->refused == 0)
        call->refused_most = (uint16_t)(2 * log2_up(rows) + 2);
    call->refused++;
    return !call->succeeded && call->refused > call->refused_most;
}

static void shrink(struct mpp_part_info *info, uint32_t keep)
{
    double share = (double)keep / info->count;

    while (info->size_class > 1 && keep * 2 <= info->count && share < 1) {
        info->size_class--;
        break;
    }
    info->bytes = (uint64_t)((double)info->bytes * share + 0.5);
    info->tokens *= share;
    info->count = keep;
}

static void restart(struct mpp_part *part)
{
    part->facts.attempts = 0;
    part->facts.hedges = 0;
    part->tried = 0;
    part->faults = 0;
    part->decode_faults = 0;
    part->unearned = 1;
    part->state = MPP_SPLITTING;
}

/* 1: the part was split, the receiver will be told; its slot is free. */
int mpp_split(struct mpp_part *part, const struct mpp_outcome *outcome)
{
    struct mpp_call *call = part->call;
    struct mpp_part_info *info = &part->facts.info;
    struct mpp_part *half;

    if (!refusal(outcome) || info->count < 2 || hopeless(call, info->count, outcome->status))
        return 0;
    half = mpp_part_new(call);
    if (half == NULL)
        return 0;
    half->facts = part->facts;
    half->facts.info.user = NULL;
    half->facts.info.first = info->first + (info->count + 1) / 2;
    part->keep = (info->count + 1) / 2;
    shrink(&half->facts.info, info->count - part->keep);
    shrink(info, part->keep);
    part->half = half;
    part->endpoint->stats.splits++;
    call->client->core->stats.parts++;
    mpp_part_leave(part);
    restart(part);
    restart(half);
    mpp_tell(call->client->core, &part->note, MPP_TELL_SPLIT);
    return 1;
}

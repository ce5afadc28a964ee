/*
 * split.c - a part that is refused, or fails whatever is done, is cut in two before rows are lost.
 *
 * Cut at once: 400, 413, 422; and 504, a timeout, or a connection broken while the body was still
 * being sent, on a part larger than what was taken before. Cut when its attempts are used up: 5xx,
 * broken replies and the rest of the faults that may be one row's doing; the halves have two
 * attempts each. Only parts that the engine calls splittable.
 *
 * Two things can be wrong, a row or the size.
 *   - No larger than what the server took before: a row. Both halves go at once, and one poison row
 *     among n costs at most 2 * ceil(log2(n)) requests more.
 *   - Larger: nobody knows. One part of the lane is the *tree*: its pieces go one at a time, the
 *     first half first, while other refused parts are held and nothing larger is sent. Two halves
 *     that are both taken say that their whole was too large: that is the limit (size.h). All that
 *     is larger goes back to its call to be cut anew.
 *   - A limit is known or named by the server: a refused probe narrows it.
 * A request that is wrong as a whole (unknown model) refuses single rows too. After three, from
 * different ends of the call, none taken, the parts refused until then fail as they are, and so does
 * every later one of that call. When it is timeouts that even single rows meet, the server is down
 * or slow: parts go back to the ordinary retries.
 */
#include "policy/state.h"

#define LONE_MAX      3 /* single rows refused, and nothing taken: the request itself is wrong */
#define LONE_SOFT     2
#define HALF_ATTEMPTS 2

enum verdict { NO, HARD, SOFT };

static enum verdict refusal(const struct mpp_part *part, const struct mpp_outcome *o)
{
    if (o->status == 400 || o->status == 413 || o->status == 422)
        return HARD;
    if (part->call->policy->retry.max_attempts < 2 || o->never_sent)
        return NO;
    if (o->unread || o->status == 504)
        return SOFT;
    return o->status == 0 && (o->kind == MP_KIND_READ_TIMEOUT || o->kind == MP_KIND_TOTAL_TIMEOUT ||
                              o->kind == MP_KIND_WRITE_TIMEOUT)
               ? SOFT
               : NO;
}

static void shrink(struct mpp_part_info *info, uint32_t keep)
{
    double share = (double)keep / info->count;

    if (info->size_class > 1 && keep * 2 <= info->count)
        info->size_class--;
    info->bytes = (uint64_t)((double)info->bytes * share + 0.5);
    info->tokens *= share;
    info->count = keep;
}

static void restart(struct mpp_part *part)
{
    part->facts.attempts = 0;
    part->facts.hedges = 0;
    part->facts.throttled = 0;
    part->tried = 0;
    part->faults = 0;
    part->decode_faults = 0;
    part->unearned = 1;
    part->state = MPP_SPLITTING;
}

/* ---- twins: two halves that are taken prove that their whole was too large -------------------- */

static void untwin(struct mpp_part *part)
{
    if (part->twin != NULL)
        part->twin->twin = NULL;
    part->twin = NULL;
    part->twin_taken = 0;
}

static void pair(struct mpp_part *a, struct mpp_part *b, const struct mpp_part_info *whole,
                 enum verdict how)
{
    struct mpp_part *both[] = {a, b};
    int i;

    for (i = 0; i < 2; i++) {
        both[i]->twin = both[1 - i];
        both[i]->twin_taken = 0;
        both[i]->whole_rows = whole->count;
        both[i]->whole_bytes = whole->bytes;
        both[i]->whole_soft = how != HARD;
    }
}

/* ---- the tree -------------------------------------------------------------------------------- */

static void halve(struct mpp_part *part, uint32_t keep, enum verdict how);

static void hold(struct mpp_part *part, enum verdict how)
{
    untwin(part);
    part->state = MPP_HELD;
    part->refusal = (uint8_t)how;
    mp__list_push(&part->call->lane->held, &part->queue);
}

static void grow_tree(struct mpp_part *part, enum verdict how)
{
    struct mpp_lane *lane = part->call->lane;

    lane->seeker = part->call;
    lane->tree++;
    lane->pieces = 0;
    lane->taken_before = lane->taken;
    part->tree = lane->tree;
    lane->pieces++;
    halve(part, (part->facts.info.count + 1) / 2, how);
}

/* It was found to be, and nothing was taken since. */
static int hopeless(const struct mpp_call *call, enum verdict how)
{
    return (how == SOFT ? call->calm : call->hopeless) && call->lane->taken == call->given_up_at;
}

int mpp_hopeless(const struct mpp_call *call)
{
    return hopeless(call, HARD);
}

/* One whose attempts are used up is not sent again for nothing. */
static void settle_held(struct mpp_part *part)
{
    struct mpp_lane *lane = part->call->lane;
    const struct mpp_part_info *info = &part->facts.info;
    enum verdict how = (enum verdict)part->refusal;
    int used_up = part->facts.attempts - part->facts.throttled >= mpp_most_attempts(part);

    if (mpp_lane_over(part))
        mpp_part_ready(part, 0);
    else if (how == SOFT && !used_up)
        mpp_retry_held(part);
    else if (used_up ? lane->taken == part->taken_before : hopeless(part->call, how))
        mpp_part_end(part, (enum mp_kind)part->last_kind);
    else if (used_up || mpp_size_proven(&lane->size, info->count, info->bytes, 1))
        halve(part, (info->count + 1) / 2, how);
    else
        grow_tree(part, how);
}

/* The tree is done with: what was held by it is looked at again. */
static void end_tree(struct mpp_lane *lane)
{
    struct mpp_call *seeker = lane->seeker;
    struct mp__link *link, *next;

    lane->seeker = NULL;
    lane->tree++;
    lane->pieces = 0;
    for (link = lane->held.next; link != &lane->held && lane->seeker == NULL; link = next) {
        struct mpp_part *part = MP__ENTRY(link, struct mpp_part, queue);

        next = link->next;
        if (part->call->ended) /* which is about to end it */
            continue;
        mp__list_remove(link);
        settle_held(part);
    }
    if (seeker != NULL)
        mpp_call_touch(seeker);
    mpp_client_touch(lane->client);
}

/* Told by every part that ends, goes back or is cut. */
void mpp_split_forget(struct mpp_part *part)
{
    struct mpp_lane *lane = part->call->lane;

    mpp_lane_tried(part);
    untwin(part);
    if (part->tree == 0 || part->tree != lane->tree || lane->seeker == NULL) {
        part->tree = 0;
        return;
    }
    part->tree = 0;
    if (--lane->pieces == 0)
        end_tree(lane);
}

/* The second opinion comes from the other end: a file may begin with rows that are all bad. */
static void ask_elsewhere(struct mpp_call *call)
{
    struct mpp_part *best = NULL;
    struct mp__link *link;

    for (link = call->parts.next; link != &call->parts; link = link->next) {
        struct mpp_part *part = MP__ENTRY(link, struct mpp_part, siblings);

        if ((part->state == MPP_HELD ||
             (part->state == MPP_READY && part->tree == call->lane->tree)) &&
            part->facts.info.count > 1 && !part->facts.info.whole &&
            (best == NULL || part->facts.info.count >= best->facts.info.count))
            best = part;
    }
    if (best == NULL)
        return;
    mp__list_remove(&best->queue);
    if (best->tree != call->lane->tree) {
        best->tree = call->lane->tree;
        call->lane->pieces++;
    }
    untwin(best);
    best->last_first = 1;
    halve(best, best->facts.info.count - 1, NO);
}

/* Those refused until now have their answer, or get another chance by the ordinary way. */
static void give_all_up(struct mpp_call *call, enum verdict how)
{
    struct mpp_lane *lane = call->lane;
    struct mp__link *link, *next;
    enum mp_kind kind = (enum mp_kind)call->lone_kind;

    call->given_up_at = lane->taken;
    if (how == SOFT)
        call->calm = 1;
    else
        call->hopeless = 1;
    for (link = call->parts.next; link != &call->parts; link = next) {
        struct mpp_part *part = MP__ENTRY(link, struct mpp_part, siblings);
        int piece = part->state == MPP_READY && part->tree == lane->tree;

        next = link->next;
        if (how != SOFT && (piece || part->state == MPP_HELD)) {
            part->tree = 0;
            mpp_part_end(part, part->state == MPP_HELD ? (enum mp_kind)part->last_kind : kind);
        }
    }
    if (lane->taken == 0)
        lane->size = (struct mpp_size){0}; /* there was no limit to find */
    end_tree(lane);
}

/* A single row of the tree met the fault, and nothing was taken since the tree began. */
static int lone(struct mpp_part *part, const struct mpp_outcome *o, enum verdict how)
{
    struct mpp_call *call = part->call;
    struct mpp_lane *lane = call->lane;
    unsigned most = how == SOFT ? LONE_SOFT : LONE_MAX;

    if (part->facts.info.count > 1 || part->lonely || lane->taken != lane->taken_before ||
        !((lane->seeker != NULL && part->tree == lane->tree) ||
          (lane->size.bad > 0 && lane->taken == 0)))
        return 0;
    part->lonely = 1;
    call->lone_kind = (uint8_t)o->kind;
    if (++call->lone >= most) {
        call->lone = 0;
        give_all_up(call, how);
    } else if (lane->seeker == call) {
        ask_elsewhere(call);
    }
    return 1;
}

/* ---- cutting --------------------------------------------------------------------------------- */

static void halve(struct mpp_part *part, uint32_t keep, enum verdict how)
{
    struct mpp_call *call = part->call;
    struct mpp_part_info *info = &part->facts.info;
    struct mpp_part_info whole = *info;
    struct mpp_part *half = mpp_part_new(call);

    if (half == NULL) {
        mpp_part_end(part, (enum mp_kind)part->last_kind);
        return;
    }
    half->facts = part->facts;
    half->facts.info.user = NULL;
    half->facts.info.first = info->first + keep;
    half->most = part->most;
    half->last_kind = part->last_kind;
    half->tree = part->tree;
    if (part->tree != 0 && part->tree == call->lane->tree)
        call->lane->pieces++;
    part->keep = keep;
    shrink(&half->facts.info, info->count - keep);
    shrink(info, keep);
    untwin(part);
    if (how != NO)
        pair(part, half, &whole, how);
    part->half = half;
    if (part->endpoint != NULL)
        part->endpoint->stats.splits++;
    call->client->core->stats.parts++;
    restart(part);
    restart(half);
    mpp_tell(call->client->core, &part->note, MPP_TELL_SPLIT);
}

/* To its call, to be cut by the limit. */
void mpp_part_back(struct mpp_part *part)
{
    struct mpp_call *call = part->call;

    mp__list_remove(&part->queue);
    mp__list_remove(&part->siblings);
    mpp_part_unhold(part);
    part->state = MPP_ENDED;
    if (!call->ended) {
        call->more = 1;
        call->dry = 0;
    }
    mpp_tell(call->client->core, &part->note, MPP_TELL_BACK);
    mpp_split_forget(part);
    mpp_call_after_part(call);
}

/* The size is at fault and the lane says so from now on. */
static void too_large(struct mpp_part *part, const struct mpp_outcome *o, enum verdict how)
{
    struct mpp_lane *lane = part->call->lane;
    const struct mpp_part_info *info = &part->facts.info;

    mpp_lane_refused(lane, info->count, info->bytes, o, how != HARD);
    if (lane->seeker != NULL)
        end_tree(lane);
    part->endpoint->stats.splits++;
    mpp_part_leave(part);
    mpp_part_back(part);
}

/* Nobody knows yet whether a row or the size is at fault. */
static void seek(struct mpp_part *part, enum verdict how)
{
    struct mpp_lane *lane = part->call->lane;
    uint32_t keep = (part->facts.info.count + 1) / 2;

    if (part->facts.attempts - part->facts.throttled >= mpp_most_attempts(part))
        part->most = HALF_ATTEMPTS;
    mpp_part_leave(part);
    if (lane->seeker != NULL && part->tree == lane->tree)
        halve(part, keep, how);
    else if (lane->seeker != NULL)
        hold(part, how);
    else
        grow_tree(part, how);
}

/* 1: the part was cut, held, or goes back to its call; its slot is free. */
int mpp_split(struct mpp_part *part, const struct mpp_outcome *o)
{
    struct mpp_lane *lane = part->call->lane;
    const struct mpp_part_info *info = &part->facts.info;
    enum verdict how = refusal(part, o);
    /* Of timeouts one more may be chance: a little larger is no new size. */
    double slack = how == SOFT && lane->size.bad == 0 ? MPP_SLACK : 1;
    int proven = mpp_size_proven(&lane->size, info->count, info->bytes, slack);

    if (how == NO)
        return 0;
    if (info->count < 2) {
        untwin(part);
        lone(part, o, how);
        return 0;
    }
    if (!o->splittable || info->whole || hopeless(part->call, how) || (how == SOFT && proven))
        return 0;
    if (part->trial) {
        mpp_lane_tried(part);
        mpp_part_leave(part);
        mpp_part_back(part);
    } else if ((lane->size.bad > 0 && !proven) || (o->status == 413 && !proven) ||
               (o->told_rows > 0 && o->told_rows < info->count) ||
               (o->told_bytes > 0 && o->told_bytes < info->bytes)) {
        too_large(part, o, how);
    } else if (proven) {
        mpp_part_leave(part);
        halve(part, (info->count + 1) / 2, how);
    } else {
        seek(part, how);
    }
    return 1;
}

/* May one of the part's rows be what failed it all the time? */
static int may_be_a_row(const struct mpp_part *part, const struct mpp_outcome *o)
{
    if (part->call->policy->retry.max_attempts < 2 || o->never_sent)
        return 0;
    switch (o->kind) {
    case MP_KIND_HTTP:
        return o->status == 0 || (o->status >= 500 && o->status != 529);
    case MP_KIND_DECODE:
        return o->hints.should_retry != 0; /* else it has words of its own */
    case MP_KIND_READ_TIMEOUT:
    case MP_KIND_WRITE_TIMEOUT:
    case MP_KIND_TOTAL_TIMEOUT:
    case MP_KIND_CONNECT:
        return 1;
    default:
        return 0;
    }
}

/* Its attempts are used up. */
int mpp_split_last(struct mpp_part *part, const struct mpp_outcome *o)
{
    struct mpp_lane *lane = part->call->lane;
    const struct mpp_part_info *info = &part->facts.info;

    if (!may_be_a_row(part, o))
        return 0;
    if (info->count < 2) {
        untwin(part);
        lone(part, o, HARD);
        return 0;
    }
    if (!o->splittable || info->whole || hopeless(part->call, HARD) || hopeless(part->call, SOFT))
        return 0;
    part->most = HALF_ATTEMPTS;
    if (lane->taken != part->taken_before) { /* the server answers others meanwhile */
        mpp_part_leave(part);
        halve(part, (info->count + 1) / 2, SOFT);
    } else {
        seek(part, SOFT);
    }
    return 1;
}

/* A part was taken, and with it perhaps the second of two halves. */
void mpp_split_taken(struct mpp_part *part)
{
    struct mpp_lane *lane = part->call->lane;
    struct mpp_outcome plain = {.kind = MP_KIND_HTTP};
    int whole_new = !mpp_size_proven(&lane->size, part->whole_rows, part->whole_bytes, 1);

    mpp_lane_taken(part);
    if (part->twin != NULL) {
        part->twin->twin_taken = 1;
    } else if (part->twin_taken && part->whole_rows > 0 && (whole_new || !part->whole_soft)) {
        mpp_lane_refused(lane, part->whole_rows, part->whole_bytes, &plain, part->whole_soft);
        if (lane->seeker != NULL)
            end_tree(lane);
    }
    untwin(part);
}

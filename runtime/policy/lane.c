/*
 * lane.c - requests that a server judges alike (a path, a model), and what is known of their size.
 *
 * Until a server has taken one, no more than MPP_WIDTH requests of a size that it has not yet taken
 * are in flight; while a limit is sought it is one, the probe. A limit so costs the first few
 * requests and one a step, not a whole window of requests a step. Single rows always go, and so does
 * everything that is no larger than what was taken; what a call sends waits at most MPP_AGE_LIMIT
 * for another call's probe.
 */
#include "policy/state.h"

#include <stdlib.h>
#include <string.h>

#define LANES_MAX    32
#define FORGET_AFTER 100 /* requests taken, and a while: asking again costs one that is refused */

static struct mpp_lane *lane_new(struct mpp_client *client, uint64_t key)
{
    struct mpp_lane *lane = calloc(1, sizeof(*lane));

    if (lane == NULL)
        return NULL;
    lane->client = client;
    lane->key = key;
    lane->width = MPP_WIDTH;
    mp__list_init(&lane->held);
    mp__list_unshift(&client->lanes, &lane->link);
    client->nlanes++;
    return lane;
}

static void lane_free(struct mpp_lane *lane)
{
    mp__list_remove(&lane->link);
    mp__list_remove(&lane->note.link);
    lane->client->nlanes--;
    free(lane);
}

/* The oldest that nobody uses makes room. */
static void make_room(struct mpp_client *client)
{
    struct mp__link *link, *prev;

    for (link = client->lanes.prev; link != &client->lanes && client->nlanes >= LANES_MAX;
         link = prev) {
        struct mpp_lane *lane = MP__ENTRY(link, struct mpp_lane, link);

        prev = link->prev;
        if (lane->refs == 0)
            lane_free(lane);
    }
}

struct mpp_lane *mpp_lane_take(struct mpp_client *client, uint64_t key)
{
    struct mpp_lane *lane = NULL;
    struct mp__link *link;

    for (link = client->lanes.next; link != &client->lanes; link = link->next) {
        lane = MP__ENTRY(link, struct mpp_lane, link);
        if (lane->key == key)
            break;
        lane = NULL;
    }
    if (lane == NULL) {
        make_room(client);
        lane = lane_new(client, key);
    } else if (client->lanes.next != &lane->link) {
        mp__list_remove(&lane->link);
        mp__list_unshift(&client->lanes, &lane->link);
    }
    if (lane != NULL)
        lane->refs++;
    return lane;
}

void mpp_lane_give(struct mpp_lane *lane)
{
    lane->refs--;
}

void mpp_lanes_free(struct mpp_client *client)
{
    while (!mp__list_empty(&client->lanes))
        lane_free(MP__ENTRY(client->lanes.next, struct mpp_lane, link));
}

/* ---- what may go ----------------------------------------------------------------------------- */

static int seeking(const struct mpp_lane *lane)
{
    return lane->seeker != NULL || !mpp_size_settled(&lane->size);
}

/* A piece of a refused part teaches something until one has been taken. */
static int is_piece(const struct mpp_part *part)
{
    const struct mpp_lane *lane = part->call->lane;

    return lane->seeker != NULL && part->tree == lane->tree && lane->taken == lane->taken_before;
}

enum { PLAIN, RISKY, PROBE };

static int risk_of(const struct mpp_part *part)
{
    const struct mpp_lane *lane = part->call->lane;
    const struct mpp_part_info *info = &part->facts.info;

    if (part->trial || is_piece(part) || (part->twin_taken && lane->seeker != NULL))
        return PROBE;
    if (info->whole)
        return PLAIN;
    if (info->count < 2)
        return lane->taken == 0 && seeking(lane) ? PROBE : PLAIN;
    if (seeking(lane))
        return mpp_size_proven(&lane->size, info->count, info->bytes, 1) ? PLAIN : PROBE;
    return mpp_size_proven(&lane->size, info->count, info->bytes,
                           lane->size.bad > 0 ? 1 : MPP_SLACK)
               ? PLAIN
               : RISKY;
}

int mpp_lane_open(struct mpp_part *part, mp__time *wake)
{
    struct mpp_lane *lane = part->call->lane;
    mp__time now = lane->client->core->now, at;

    if (!mpp_door_open(part))
        return 0;
    switch (risk_of(part)) {
    case PLAIN:
        return 1;
    case RISKY:
        /* With a limit of rows, say, it may yet turn out to be one of bytes. */
        return lane->risky < (lane->size.bad > 0 && lane->taken > 0 ? 2 : lane->width);
    default:
        if (lane->probing == 0)
            return 1;
        at = lane->probed_at + MPP_AGE_LIMIT;
        if (lane->probe_of == part->call || is_piece(part))
            return 0;
        if (now >= at)
            return 1;
        if (at < *wake)
            *wake = at;
        return 0;
    }
}

void mpp_lane_enter(struct mpp_part *part)
{
    struct mpp_lane *lane = part->call->lane;

    part->risk = (uint8_t)risk_of(part);
    if (part->risk == RISKY)
        lane->risky++;
    if (part->risk == PROBE) {
        lane->probing++;
        lane->probe_of = part->call;
        lane->probed_at = lane->client->core->now;
    }
}

void mpp_lane_leave(struct mpp_part *part)
{
    struct mpp_lane *lane = part->call->lane;

    if (part->risk == RISKY)
        lane->risky--;
    if (part->risk == PROBE)
        lane->probing--;
    part->risk = PLAIN;
}

/* More than the limit that has become known since the part was cut. */
int mpp_lane_over(const struct mpp_part *part)
{
    const struct mpp_part_info *info = &part->facts.info;

    return !info->whole && !part->trial &&
           mpp_size_over(&part->call->lane->size, info->count, info->bytes);
}

void mpp_lane_want(struct mpp_call *call, struct mpp_action *out)
{
    struct mpp_lane *lane = call->lane;
    unsigned unit;
    uint64_t limit;

    if (lane->size.bad > 0 && lane->taken - lane->taken_then >= FORGET_AFTER) {
        mpp_size_age(&lane->size, lane->client->core->now);
        if (lane->size.bad == 0)
            lane->width = 1;
    }
    limit = mpp_size_limit(&lane->size);
    call->trial = limit > 0 && lane->trial == 1;
    if (limit == 0)
        return;
    unit = lane->size.unit;
    if (call->trial) {
        unit = 1 - unit;
        limit = lane->size.ok[unit];
        lane->trial = 2;
    }
    if (unit == MPP_ROWS)
        out->most_rows = limit < UINT32_MAX ? (uint32_t)limit : UINT32_MAX;
    else
        out->most_bytes = limit;
}

/* ---- what is told ---------------------------------------------------------------------------- */

/* Once a limit, and again when it turns out to be another by more than a tenth. */
static void maybe_tell(struct mpp_lane *lane)
{
    uint64_t limit = mpp_size_limit(&lane->size), was = lane->known;

    if (limit == 0 || !mpp_size_settled(&lane->size) ||
        (was > 0 && lane->known_unit == lane->size.unit && limit <= was + was / 10 &&
         was <= limit + limit / 10))
        return;
    lane->known = limit;
    lane->known_unit = lane->size.unit;
    if (!mp__linked(&lane->note.link))
        mpp_tell(lane->client->core, &lane->note, MPP_TELL_LIMIT);
}

void mpp_lane_taken(struct mpp_part *part)
{
    struct mpp_lane *lane = part->call->lane;
    const struct mpp_part_info *info = &part->facts.info;

    lane->taken++;
    if (info->whole)
        return;
    mpp_size_taken(&lane->size, info->count, info->bytes);
    if (part->trial) {
        mpp_size_tried(&lane->size, info->count, info->bytes, 1);
        part->trial = lane->trial = 0;
    } else if (lane->trial == 0 && mpp_size_doubtful(&lane->size, info->count, info->bytes)) {
        lane->trial = 1;
    }
    maybe_tell(lane);
}

void mpp_lane_tried(struct mpp_part *part)
{
    struct mpp_lane *lane = part->call->lane;
    const struct mpp_part_info *info = &part->facts.info;

    if (!part->trial)
        return;
    mpp_size_tried(&lane->size, info->count, info->bytes, 0);
    part->trial = lane->trial = 0;
}

void mpp_lane_refused(struct mpp_lane *lane, uint64_t rows, uint64_t bytes,
                      const struct mpp_outcome *outcome, int soft)
{
    lane->taken_then = lane->taken;
    mpp_size_refused(&lane->size, rows, bytes, outcome, soft, lane->client->core->now);
    maybe_tell(lane);
}

int mpp_client_limit(const struct mpp_client *client, uint32_t nth, struct mpp_limit *out)
{
    struct mp__link *link;

    for (link = client->lanes.next; link != &client->lanes; link = link->next) {
        const struct mpp_lane *lane = MP__ENTRY(link, struct mpp_lane, link);

        if (lane->known == 0 || lane->size.bad == 0 || nth-- > 0)
            continue;
        mpp_lane_limit(lane, out);
        return 1;
    }
    return 0;
}

void mpp_lane_limit(const struct mpp_lane *lane, struct mpp_limit *out)
{
    uint64_t limit = mpp_size_limit(&lane->size);

    memset(out, 0, sizeof(*out));
    out->key = lane->key;
    out->soft = lane->size.soft;
    out->rows = lane->size.unit == MPP_ROWS ? limit : 0;
    out->bytes = lane->size.unit == MPP_BYTES ? limit : 0;
}

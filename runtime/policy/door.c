/*
 * door.c - a client to whom nobody has ever answered well, and a fault that no row can cause.
 *
 * A wrong key (401, 403), a wrong path (404, where all rows go to one), a name that does not exist, a
 * port at which nobody listens, a certificate that is not trusted: after a handful of tries at every
 * endpoint the call ends, what was not sent included; where one waits (no fail_fast) so do the
 * client's other calls of that kind, which would only ask the same. Behind such a fault requests go
 * one at a time. A connection that fails may be a server that starts, so those are tried for ten
 * seconds, ever more seldom. One good reply in the client's life, and all of this is over: then faults are
 * waited out as the policy says.
 */
#include "policy/state.h"

#define TRIES      5
#define TRIES_MANY 2 /* each, with several endpoints */
#define PATIENCE   (10 * MP__SECOND)
#define BREATH     (MP__SECOND / 4) /* between two tries of a connection, then twice that, ... 4 s */

enum fault { NO, CONNECTION, REFUSAL };

static enum fault fault_of(const struct mpp_part *part, const struct mpp_outcome *o)
{
    switch (o->kind) {
    case MP_KIND_TLS:
        return REFUSAL;
    case MP_KIND_CONNECT:
    case MP_KIND_CONNECT_TIMEOUT:
        return !o->never_sent ? NO : o->hints.should_retry == 0 ? REFUSAL : CONNECTION;
    case MP_KIND_HTTP:
        return o->status == 401 ||
                       (part->call->rows_alike && (o->status == 403 || o->status == 404))
                   ? REFUSAL
                   : NO;
    default:
        return NO;
    }
}

/* Counts the fault: 1 when there is no use in going on. */
int mpp_door_shut(struct mpp_part *part, struct mpp_endpoint *ep, const struct mpp_outcome *o)
{
    struct mpp_client *client = ep->client;
    enum fault fault = client->answered ? NO : fault_of(part, o);
    uint32_t i;

    if (fault == NO)
        return 0;
    if (client->door_faults++ == 0)
        client->door_since = client->core->now;
    ep->door_faults++;
    if (fault == CONNECTION && !part->call->policy->retry.fail_fast &&
        ep->not_before <= client->core->now)
        mpp_endpoint_pause(ep, client->core->now +
                                   (BREATH << (ep->door_steps < 4 ? ep->door_steps++ : 4)));
    for (i = 0; i < client->n; i++)
        if (client->endpoints[i].door_faults < (client->n > 1 ? TRIES_MANY : TRIES))
            return 0;
    return fault == REFUSAL || client->core->now - client->door_since >= PATIENCE;
}

/* One at a time, while all that is known is the fault. */
int mpp_door_open(const struct mpp_part *part)
{
    const struct mpp_client *client = part->call->client;

    return client->answered || client->door_faults == 0 || client->admitted == 0 ||
           part->call->policy->retry.fail_fast;
}

void mpp_door_answered(struct mpp_client *client)
{
    client->answered = 1;
}

void mpp_door_end(struct mpp_call *call, enum mp_kind kind)
{
    struct mpp_client *client = call->client;
    struct mpp_lane *lane = call->lane;
    int others = !call->policy->retry.fail_fast;
    struct mp__link *link, *next;

    mpp_call_end(call, kind);
    for (link = client->calls.next; others && link != &client->calls; link = next) {
        struct mpp_call *other = MP__ENTRY(link, struct mpp_call, siblings);

        next = link->next;
        if (other->lane == lane)
            mpp_call_end(other, kind);
    }
}

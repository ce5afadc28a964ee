/* sim.c - the run: load in, actions carried out, promises watched. */
#include "sim/sim.h"

#include "base/prng.h"
#include "sim/internal.h"
#include "base/slab.h"
#include "base/time.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { T_REQUEST = 1, T_ARRIVAL, T_CANCEL };

#define ASK_EVERY 4096 /* turns between two questions whether to stop */

uint64_t *mp__sim_rng(struct sim_run *run)
{
    return &run->rng;
}

struct sim_server *mp__sim_server_at(struct sim_run *run, uint32_t i)
{
    return &run->servers[i];
}

mp__time mp__sim_now(const struct sim_run *run)
{
    return run->now;
}

double mp__sim_elapsed(const struct sim_run *run)
{
    return mp__seconds(run->now - SIM_START);
}

/* A row's fate is its own, whatever request carries it. */
int mp__sim_poisoned(const struct sim_run *run, uint64_t first, uint32_t rows)
{
    double share = run->sim->poison_share;
    uint32_t i;

    for (i = 0; share > 0 && i < rows; i++)
        if (mp__unit(mp__mix64((first + i) ^ run->sim->seed * 77)) < share)
            return 1;
    return 0;
}

void mp__sim_end_at(struct sim_run *run, struct sim_request *q, double seconds)
{
    mp__time at = mp__after(run->now, seconds);

    if (at >= q->limit) {
        at = q->limit;
        q->outcome = (struct mpp_outcome){.kind = MP_KIND_READ_TIMEOUT, .tokens = -1};
        mpp_hints_init(&q->outcome.hints);
    } else if (q->serving && q->outcome.kind == MP_KIND_READ_TIMEOUT) {
        /* It had waited in the queue; now it is served in time after all. */
        q->outcome.kind = MP_KIND_NONE;
        q->outcome.status = 200;
        q->outcome.tokens = (int64_t)(q->tokens + 0.5);
    }
    mp__heap_set(&run->heap, &q->timer, at);
}

static struct mp__sim_second *second(struct sim_run *run)
{
    double t = mp__sim_elapsed(run);

    if (run->sim->seconds == NULL || t < 0 || t >= run->sim->nseconds)
        return NULL;
    return &run->sim->seconds[(uint32_t)t];
}

/* ---- load ------------------------------------------------------------------------------------ */

static int open_load(const struct sim_run *run)
{
    return run->sim->rate > 0;
}

/* Of an open load each call is of one part, which the limits of a server may cut. */
static void give(struct sim_run *run, const struct mpp_action *act)
{
    struct sim_call *c = mpp_call_user(act->call);
    struct mpp_part_info info = {0};
    struct sim_part *p;

    if ((open_load(run) && c->left == 0 && run->nback == 0) ||
        (!open_load(run) && !mp__sim_rows_left(run))) {
        mpp_part_none(act->call, 0);
        return;
    }
    if (open_load(run) && run->nback == 0)
        c->left--;
    p = mp__slab_get(&run->parts);
    if (p == NULL || !mp__sim_rows_take(run, act, &info, &p->born)) {
        run->nomem = 1;
        mpp_part_none(act->call, 0);
        return;
    }
    p->ends = 0;
    info.user = p;
    if (!mpp_part_give(act->call, &info))
        mp__sim_violated(run, "a part was wanted and not taken");
}

static void back(struct sim_run *run, const struct mpp_action *act)
{
    const struct mpp_part_facts *f = mpp_part_facts(act->part);
    struct sim_part *p = f->info.user;

    if (p->ends)
        mp__sim_violated(run, "came back after its end");
    mp__sim_rows_back(run, &f->info, p->born);
    mp__slab_put(&run->parts, p);
    run->out->backs++;
}

static void new_call(struct sim_run *run)
{
    const struct mp__sim *sim = run->sim;
    struct sim_call *c = mp__slab_get(&run->calls);
    struct mpp_call_cfg cfg = {.client = run->client,
                               .deadline = MP__NEVER,
                               .idempotent = 1,
                               .pinned_endpoint = -1,
                               .user = c,
                               .pool_timeout = sim->pool_timeout,
                               .max_concurrent = sim->rate > 0 ? 1 : sim->concurrency};

    if (c == NULL) {
        run->nomem = 1;
        return;
    }
    memset(c, 0, sizeof(*c));
    c->run = run;
    c->left = 1;
    c->cancel.kind = T_CANCEL;
    if (sim->total_timeout > 0)
        cfg.deadline = mp__after(run->now, sim->total_timeout);
    c->call = mpp_call_new(&cfg, run->now);
    if (c->call == NULL) {
        run->nomem = 1;
        return;
    }
    run->calls_open++;
    if (sim->cancel_share > 0 && mp__random01(&run->rng) < sim->cancel_share)
        mp__heap_set(&run->heap, &c->cancel, mp__after(run->now, mp__random01(&run->rng) * 2));
}

static void arrive(struct sim_run *run)
{
    double gap = -log(1 - mp__random01(&run->rng)) / run->sim->rate;

    if (!mp__sim_rows_left(run) || (run->sim->parts > 0 && run->arrivals >= run->sim->parts))
        return;
    run->arrivals++;
    new_call(run);
    mp__heap_set(&run->heap, &run->arrival, mp__after(run->now, gap));
}

/* ---- actions --------------------------------------------------------------------------------- */

static void check_start(struct sim_run *run, const struct mpp_action *act)
{
    const struct mp_policy *p = &run->sim->policy;
    const struct mpp_part_facts *f = mpp_part_facts(act->part);
    uint32_t pool = run->sim->pool ? run->sim->pool : 256;

    if (run->now < run->not_before[act->endpoint])
        mp__sim_violated(run, "sent before the server's delay was over");
    if (run->on_the_way > pool)
        mp__sim_violated(run, "more running than the pool has connections");
    if (p->concurrency.mode == MP_CONC_FIXED && run->running[act->endpoint] > p->concurrency.limit)
        mp__sim_violated(run, "more running than the endpoint's limit");
    if (f->attempts - f->throttled > p->retry.max_attempts && !act->is_hedge)
        mp__sim_violated(run, "more attempts than allowed");
    if (f->hedges > 1)
        mp__sim_violated(run, "two hedges of one part");
    if (((struct sim_part *)f->info.user)->ends)
        mp__sim_violated(run, "started after its end");
}

static void start(struct sim_run *run, const struct mpp_action *act)
{
    const struct mpp_part_facts *f = mpp_part_facts(act->part);
    struct sim_request *q = mp__slab_get(&run->requests);
    struct mp__sim_second *s = second(run);

    if (q == NULL) {
        run->nomem = 1;
        return;
    }
    memset(q, 0, sizeof(*q));
    q->timer.kind = T_REQUEST;
    q->id = act->attempt;
    q->endpoint = act->endpoint;
    q->rows = f->info.count;
    q->first = f->info.first;
    q->bytes = f->info.bytes;
    q->tokens = f->info.tokens;
    q->sent = run->now;
    q->is_hedge = act->is_hedge;
    q->limit = mp__after(run->now, run->sim->attempt_timeout > 0 ? run->sim->attempt_timeout : 60);
    q->outcome.tokens = -1;
    mpp_hints_init(&q->outcome.hints);
    mp__list_push(&run->running_list, &q->running);
    run->on_the_way++;
    run->running[q->endpoint]++;
    run->out->attempts++;
    if (s != NULL) {
        s->attempts++;
        if (run->on_the_way > s->running)
            s->running = run->on_the_way;
    }
    check_start(run, act);
    mp__sim_server_take(run, q);
}

static void leave(struct sim_run *run, struct sim_request *q)
{
    mp__sim_server_leave(run, q);
    mp__heap_clear(&run->heap, &q->timer);
    mp__list_remove(&q->running);
    run->on_the_way--;
    run->running[q->endpoint]--;
}

static void abort_it(struct sim_run *run, uint64_t id)
{
    struct mp__link *link;

    for (link = run->running_list.next; link != &run->running_list; link = link->next) {
        struct sim_request *q = MP__ENTRY(link, struct sim_request, running);

        if (q->id != id)
            continue;
        leave(run, q);
        mp__slab_put(&run->requests, q);
        run->out->aborted++;
        return;
    }
    mp__sim_violated(run, "abort of an attempt that does not run");
}

static void part_done(struct sim_run *run, const struct mpp_action *act)
{
    const struct mpp_part_facts *f = mpp_part_facts(act->part);
    struct sim_part *p = f->info.user;
    struct mp__sim_result *out = run->out;
    struct mp__sim_second *s = second(run);

    if (p->ends++)
        mp__sim_violated(run, "a part ended twice");
    run->ended += f->info.count;
    if (act->kind == MP_KIND_NONE) {
        out->ok++;
        out->rows_ok += f->info.count;
        out->tokens += f->info.tokens;
        mp__sim_keep_latency(run, mp__seconds(run->now - p->born));
        if (s != NULL) {
            s->ok++;
            s->tokens += f->info.tokens;
        }
        return;
    }
    out->kinds[act->kind]++;
    if (act->kind == MP_KIND_CANCELLED || act->kind == MP_KIND_CLOSED ||
        act->kind == MP_KIND_TOTAL_TIMEOUT)
        out->cut++;
    else
        out->failed++;
    out->rows_failed += f->info.count;
    if (s != NULL)
        s->failed++;
}

static void split(struct sim_run *run, const struct mpp_action *act)
{
    struct sim_part *p = mp__slab_get(&run->parts);

    if (p == NULL) {
        run->nomem = 1;
        return;
    }
    p->born = ((struct sim_part *)mpp_part_facts(act->part)->info.user)->born;
    p->ends = 0;
    mpp_part_set_user(act->other, p);
    run->out->splits++;
}

static void call_done(struct sim_run *run, const struct mpp_action *act)
{
    struct sim_call *c = mpp_call_user(act->call);

    if (c->done)
        mp__sim_violated(run, "a call ended twice");
    c->done = 1;
    mp__heap_clear(&run->heap, &c->cancel);
    run->calls_open--;
    for (; run->calls_open == 0 && run->nback > 0; run->nback--) /* cut short */
        run->ended += run->back[run->nback - 1].count;
    run->out->makespan = mp__sim_elapsed(run);
}

static void hash(struct sim_run *run, uint64_t x)
{
    run->out->trace = mp__mix64(run->out->trace ^ (x + MP__GOLDEN));
}

static void perform(struct sim_run *run, const struct mpp_action *act)
{
    hash(run, (uint64_t)run->now);
    hash(run, (uint64_t)act->type << 56 ^ act->attempt ^ (uint64_t)act->endpoint << 48 ^
                  (uint64_t)act->kind << 40);
    switch (act->type) {
    case MPP_START:
        start(run, act);
        break;
    case MPP_ABORT:
        abort_it(run, act->attempt);
        break;
    case MPP_PART_DONE:
        part_done(run, act);
        break;
    case MPP_PART_SPLIT:
        split(run, act);
        break;
    case MPP_PART_BACK:
        back(run, act);
        break;
    case MPP_WANT_PART:
        give(run, act);
        break;
    case MPP_LIMIT:
        run->out->limit = act->limit;
        break;
    case MPP_CALL_DONE:
        call_done(run, act);
        break;
    case MPP_PROBE:
        mpp_probe_done(act->client, act->endpoint, 1, run->now);
        break;
    }
}

/* ---- events ---------------------------------------------------------------------------------- */

/* What the core must now heed, reckoned here by itself. */
static void expect_pause(struct sim_run *run, const struct sim_request *q)
{
    const struct mp_retry_policy *p = &run->sim->policy.retry;
    double d = q->outcome.hints.retry_after;
    mp__time until;

    if (d <= 0 || d > p->max_server_delay || !p->respect_retry_after ||
        !mp_status_has(p->on, (unsigned)q->outcome.status))
        return;
    until = mp__after(run->now, d);
    if (until > run->not_before[q->endpoint])
        run->not_before[q->endpoint] = until;
}

static void answered(struct sim_run *run, struct sim_request *q)
{
    struct mp__sim_second *s = second(run);

    leave(run, q);
    if (q->outcome.status == 429) {
        run->out->throttled++;
        if (s != NULL)
            s->throttled++;
    }
    expect_pause(run, q);
    q->outcome.splittable = q->rows > 1;
    mpp_attempt_done(run->core, q->id, &q->outcome, run->now);
    mp__slab_put(&run->requests, q);
}

static void expire(struct sim_run *run)
{
    struct mp__timer *t = mp__heap_first(&run->heap);

    if (t == NULL || t->at > run->now)
        return;
    mp__heap_clear(&run->heap, t);
    if (t->kind == T_REQUEST)
        answered(run, MP__ENTRY(t, struct sim_request, timer));
    else if (t->kind == T_ARRIVAL)
        arrive(run);
    else
        mpp_call_cancel(MP__ENTRY(t, struct sim_call, cancel)->call, MP_KIND_CANCELLED, run->now);
}

static void note_limit(struct sim_run *run)
{
    struct mp__sim_second *s = second(run);
    struct mpp_endpoint_stats stats;

    if (s == NULL)
        return;
    mpp_endpoint_stats(run->client, 0, run->now, &stats);
    s->limit = stats.limit;
}

static int asked_to_stop(const struct sim_run *run, uint64_t turns)
{
    return turns % ASK_EVERY == 0 && run->sim->stop != NULL && run->sim->stop(run->sim->stop_arg);
}

/* That a run has no end is the core's fault, unless it was told where to end. */
static void give_up(struct sim_run *run, mp__time at)
{
    run->out->unfinished = 1;
    run->out->makespan = mp__sim_elapsed(run);
    if (at == MP__NEVER)
        mp__sim_violated(run, "stuck: open calls and nothing to wait for");
    else if (run->sim->max_time <= 0 && run->sim->stop == NULL)
        mp__sim_violated(run, "not done at the end of time");
}

static void loop(struct sim_run *run)
{
    mp__time end = mp__after(SIM_START, run->sim->max_time > 0 ? run->sim->max_time : 100000);
    mp__time noted = -1;
    uint64_t turns = 0;
    struct mpp_action act;

    while (!run->nomem) {
        struct mp__timer *t;
        mp__time at;
        int left = 0;

        while (!left && mpp_next(run->core, run->now, &act)) {
            run->out->steps++;
            perform(run, &act);
            left = run->sim->hasty > 0 && mp__random01(&run->rng) < run->sim->hasty;
        }
        if (run->sim->seconds != NULL && run->now / MP__SECOND != noted) {
            noted = run->now / MP__SECOND;
            note_limit(run);
        }
        t = mp__heap_first(&run->heap);
        if (!left && run->calls_open == 0 && run->on_the_way == 0 && !run->arrival.armed)
            return;
        at = left ? run->now + MP__SECOND / 1000 : mpp_wake_at(run->core);
        if (t != NULL && t->at < at)
            at = t->at;
        if (at == MP__NEVER || at > end || asked_to_stop(run, ++turns)) {
            give_up(run, at);
            return;
        }
        if (at > run->now)
            run->now = at;
        expire(run);
    }
}

/* ---- the whole -------------------------------------------------------------------------------- */

static int open_run(struct sim_run *run)
{
    const struct mp__sim *sim = run->sim;
    struct mpp_endpoint_cfg eps[MP__SIM_SERVERS];
    struct mpp_client_cfg cfg = {
        .policy = &sim->policy, .hooks = sim->hooks, .endpoints = eps, .nendpoints = sim->nservers};
    uint32_t i;

    memset(eps, 0, sizeof(eps));
    for (i = 0; i < sim->nservers; i++) {
        eps[i].weight = sim->servers[i].weight > 0 ? sim->servers[i].weight : 1;
        eps[i].idempotent = 1;
        run->servers[i].cfg = &sim->servers[i];
        mp__list_init(&run->servers[i].waiting);
    }
    run->core = mpp_new(&(struct mpp_config){.seed = sim->seed, .drain_losers = sim->drain_losers});
    if (run->core == NULL)
        return MP_ENOMEM;
    run->pool = mpp_pool_new(run->core, sim->pool);
    cfg.pool = run->pool;
    run->client = run->pool != NULL ? mpp_client_new(run->core, &cfg) : NULL;
    return run->client != NULL ? MP_OK : MP_ENOMEM;
}

static void close_run(struct sim_run *run)
{
    struct mpp_action act;

    if (run->client != NULL)
        mpp_client_close(run->client, run->now);
    while (run->core != NULL && mpp_next(run->core, run->now, &act))
        ;
    mpp_pool_unref(run->pool);
    mpp_free(run->core);
    mp__slab_fini(&run->requests);
    mp__slab_fini(&run->calls);
    mp__slab_fini(&run->parts);
    free(run->latency);
    free(run->back);
    free(run);
}

int mp__sim_run(const struct mp__sim *sim, struct mp__sim_result *out)
{
    struct sim_run *run;
    int err;

    memset(out, 0, sizeof(*out));
    if (sim->seconds != NULL)
        memset(sim->seconds, 0, sim->nseconds * sizeof(*sim->seconds));
    if (sim->nservers == 0 || sim->nservers > MP__SIM_SERVERS ||
        (sim->parts == 0 && sim->total_rows == 0 && sim->duration <= 0))
        return MP_EINVAL;
    run = calloc(1, sizeof(*run));
    if (run == NULL)
        return MP_ENOMEM;
    run->sim = sim;
    run->out = out;
    run->now = SIM_START;
    run->rng = sim->seed ^ UINT64_C(0x5851f42d4c957f2d);
    run->arrival.kind = T_ARRIVAL;
    mp__slab_init(&run->requests, sizeof(struct sim_request), 128);
    mp__slab_init(&run->calls, sizeof(struct sim_call), 256);
    mp__slab_init(&run->parts, sizeof(struct sim_part), 1024);
    mp__list_init(&run->running_list);
    err = open_run(run);
    if (err == MP_OK) {
        if (sim->rate > 0)
            arrive(run);
        else
            new_call(run);
        loop(run);
        mp__sim_check_budgets(run);
        mp__sim_summarise(run);
        if (run->nomem)
            err = MP_ENOMEM;
    }
    close_run(run);
    return err;
}

void mp__sim_init(struct mp__sim *sim, enum mp_preset preset)
{
    memset(sim, 0, sizeof(*sim));
    sim->seed = 1;
    mp_policy_init(&sim->policy, preset);
    sim->nservers = 1;
}

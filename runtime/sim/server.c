/* server.c - what a modelled server makes of a request. */
#include "sim/internal.h"
#include "base/prng.h"
#include "base/time.h"

#include <math.h>

static double normal(uint64_t *rng) /* Box and Muller */
{
    double u = 1 - mp__random01(rng);

    return sqrt(-2 * log(u)) * cos(6.283185307179586 * mp__random01(rng));
}

static void answer(struct sim_request *q, int status, double retry_after)
{
    q->outcome.status = status;
    q->outcome.kind = status < 300    ? MP_KIND_NONE
                      : status == 429 ? MP_KIND_RATE_LIMITED
                                      : MP_KIND_HTTP;
    if (retry_after > 0)
        q->outcome.hints.retry_after = retry_after;
}

static double draw(uint64_t *rng, const struct mp__sim_server *cfg)
{
    double median = cfg->median > 0 ? cfg->median : 0.02;

    if (cfg->nsamples > 0)
        return cfg->samples[(uint32_t)(mp__random01(rng) * cfg->nsamples)];
    switch (cfg->service) {
    case MP__SIM_UNIFORM:
        return cfg->median + (cfg->sigma - cfg->median) * mp__random01(rng);
    case MP__SIM_EXPONENTIAL:
        return -median * log(1 - mp__random01(rng));
    default:
        return median * exp(cfg->sigma * normal(rng));
    }
}

static double service_time(struct sim_run *run, const struct mp__sim_server *cfg, uint32_t rows)
{
    uint64_t *rng = mp__sim_rng(run);
    double t = draw(rng, cfg) + cfg->per_row * rows;

    if (cfg->stall_share > 0 && mp__random01(rng) < cfg->stall_share)
        t += cfg->stall;
    return t;
}

static void serve(struct sim_run *run, struct sim_server *s, struct sim_request *q)
{
    q->serving = 1;
    s->busy++;
    mp__sim_end_at(run, q, service_time(run, s->cfg, q->rows));
}

static int out_of_quota(struct sim_run *run, struct sim_server *s, struct sim_request *q)
{
    const struct mp__sim_server *cfg = s->cfg;
    double width = cfg->quota_window > 0 ? cfg->quota_window : 1;
    int64_t window = mp__sim_now(run) / mp__ns(width);

    if (cfg->rpm <= 0 && cfg->tpm <= 0)
        return 0;
    if (window != s->window) {
        s->window = window;
        s->used_requests = s->used_tokens = 0;
    }
    if ((cfg->rpm > 0 && s->used_requests + 1 > cfg->rpm / 60 * width + 1e-9) ||
        (cfg->tpm > 0 && s->used_tokens > 0 &&
         s->used_tokens + q->tokens > cfg->tpm / 60 * width + 1e-9))
        return 1;
    s->used_requests += 1;
    s->used_tokens += q->tokens;
    if (cfg->quota_tells > 1 && cfg->rpm > 0) {
        q->outcome.hints.limit_requests = cfg->rpm;
        q->outcome.hints.remaining_requests = cfg->rpm / 60 * width - s->used_requests;
        q->outcome.hints.reset_requests = width - fmod(mp__seconds(mp__sim_now(run)), width) + 1e-3;
    }
    return 0;
}

static int in_outage(struct sim_run *run, const struct mp__sim_server *cfg)
{
    double t = mp__sim_elapsed(run);

    return cfg->outage_to > cfg->outage_from && t >= cfg->outage_from && t < cfg->outage_to;
}

static void suffer(struct sim_run *run, const struct mp__sim_server *cfg, struct sim_request *q)
{
    switch (cfg->outage) {
    case MP__SIM_REFUSE:
        q->outcome.kind = MP_KIND_CONNECT;
        q->outcome.never_sent = 1;
        mp__sim_end_at(run, q, 0.0005);
        break;
    case MP__SIM_SILENT:
        q->outcome.kind = MP_KIND_READ_TIMEOUT;
        mp__sim_end_at(run, q, 1e9);
        break;
    default:
        answer(q, cfg->outage == MP__SIM_429 ? 429 : 503, cfg->outage_delay);
        mp__sim_end_at(run, q, 0.002);
    }
}

void mp__sim_server_take(struct sim_run *run, struct sim_request *q)
{
    struct sim_server *s = mp__sim_server_at(run, q->endpoint);
    const struct mp__sim_server *cfg = s->cfg;
    double width = cfg->quota_window > 0 ? cfg->quota_window : 1;
    double phase;

    if (in_outage(run, cfg)) {
        suffer(run, cfg, q);
        return;
    }
    if (out_of_quota(run, s, q)) {
        phase = fmod(mp__seconds(mp__sim_now(run)), width);
        answer(q, 429, cfg->quota_tells ? width - phase : 0);
        mp__sim_end_at(run, q, 0.001);
        return;
    }
    if (cfg->error_share > 0 && mp__random01(mp__sim_rng(run)) < cfg->error_share) {
        answer(q, cfg->error_status ? cfg->error_status : 500, 0);
        mp__sim_end_at(run, q, 0.005);
        return;
    }
    if ((cfg->most_rows > 0 && q->rows > cfg->most_rows) ||
        (cfg->most_bytes > 0 && q->rows > 1 &&
         mp__sim_row_bytes(run, q->first, q->rows) > cfg->most_bytes)) {
        run->out->too_large++;
        if (cfg->too_large < 0)
            q->outcome.kind = MP_KIND_READ_TIMEOUT;
        else
            answer(q, cfg->too_large ? cfg->too_large : 400, 0);
        mp__sim_end_at(run, q, cfg->too_large < 0 ? 1e9 : 0.003);
        return;
    }
    if (mp__sim_poisoned(run, q->first, q->rows)) {
        answer(q, 422, 0);
        mp__sim_end_at(run, q, 0.003);
        return;
    }
    answer(q, 200, 0);
    q->outcome.tokens = (int64_t)(q->tokens + 0.5);
    if (cfg->places == 0 || s->busy < cfg->places) {
        serve(run, s, q);
    } else if (cfg->queue > 0 && s->queued >= cfg->queue) {
        answer(q, 429, 0);
        mp__sim_end_at(run, q, 0.001);
    } else {
        s->queued++;
        mp__list_push(&s->waiting, &q->link);
        mp__sim_end_at(run, q, 1e9);
    }
}

void mp__sim_server_leave(struct sim_run *run, struct sim_request *q)
{
    struct sim_server *s = mp__sim_server_at(run, q->endpoint);
    struct mp__link *link;

    if (mp__linked(&q->link)) {
        mp__list_remove(&q->link);
        s->queued--;
        return;
    }
    if (!q->serving)
        return;
    q->serving = 0;
    s->busy--;
    link = mp__list_shift(&s->waiting);
    if (link != NULL) {
        s->queued--;
        serve(run, s, MP__ENTRY(link, struct sim_request, link));
    }
}

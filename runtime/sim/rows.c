/* rows.c - the rows of the load: how long each is, which are still to be sent. */
#include "sim/internal.h"
#include "base/prng.h"

#include <stdlib.h>
#include <string.h>

uint64_t mp__sim_row_bytes(const struct sim_run *run, uint64_t first, uint64_t count)
{
    const struct mp__sim *sim = run->sim;
    uint32_t each = sim->bytes ? sim->bytes : 100;
    uint64_t sum = 0, i;

    if (sim->spread <= 0)
        return each * count;
    for (i = 0; i < count; i++) {
        double u = 2 * mp__unit(mp__mix64((first + i) ^ sim->seed * 131)) - 1;

        sum += (uint64_t)(each * (1 + sim->spread * u) + 0.5);
    }
    return sum;
}

int mp__sim_rows_left(const struct sim_run *run)
{
    const struct mp__sim *sim = run->sim;

    return run->nback > 0 || ((sim->parts == 0 || run->born < sim->parts) &&
                              (sim->total_rows == 0 || run->rows_born < sim->total_rows) &&
                              (sim->duration <= 0 || mp__sim_elapsed(run) < sim->duration));
}

static uint32_t fitting(const struct sim_run *run, const struct mpp_action *act, uint64_t first,
                        uint64_t rows)
{
    uint64_t sum = 0;
    uint32_t n = 0;

    if (act->most_rows > 0 && rows > act->most_rows)
        rows = act->most_rows;
    for (; n < rows; n++) {
        sum += mp__sim_row_bytes(run, first + n, 1);
        if (n > 0 && act->most_bytes > 0 && sum > act->most_bytes)
            break;
    }
    return n;
}

/* The next part, as large as the core wants it; 0: no memory for the rest of it. */
int mp__sim_rows_take(struct sim_run *run, const struct mpp_action *act, struct mpp_part_info *out,
                      mp__time *born)
{
    const struct mp__sim *sim = run->sim;
    struct sim_rows *back = run->nback > 0 ? &run->back[0] : NULL;
    uint64_t rows = sim->rows ? sim->rows : 1;
    uint32_t n;

    if (back == NULL && sim->total_rows > 0 && rows > sim->total_rows - run->rows_born)
        rows = sim->total_rows - run->rows_born;
    if (back != NULL && rows > back->count)
        rows = back->count;
    out->first = back != NULL ? back->first : run->rows_born;
    *born = back != NULL ? back->born : run->now;
    out->again = back != NULL;
    n = fitting(run, act, out->first, rows);
    out->count = n;
    out->tokens = sim->tokens * n;
    out->bytes = mp__sim_row_bytes(run, out->first, n);
    out->size_class = 1;
    if (back != NULL) {
        back->first += n;
        back->count -= n;
        if (back->count == 0)
            memmove(run->back, run->back + 1, --run->nback * sizeof(*run->back));
        return 1;
    }
    run->born++;
    run->rows_born += rows;
    if (n < rows) {
        struct mpp_part_info rest = {.first = out->first + n, .count = (uint32_t)(rows - n)};

        mp__sim_rows_back(run, &rest, run->now);
    }
    return !run->nomem;
}

void mp__sim_rows_back(struct sim_run *run, const struct mpp_part_info *info, mp__time born)
{
    uint32_t i = 0;

    if (run->nback == run->backcap) {
        uint32_t cap = run->backcap ? run->backcap * 2 : 64;
        struct sim_rows *v = realloc(run->back, cap * sizeof(*v));

        if (v == NULL) {
            run->nomem = 1;
            return;
        }
        run->back = v;
        run->backcap = cap;
    }
    while (i < run->nback && run->back[i].first < info->first)
        i++;
    memmove(run->back + i + 1, run->back + i, (run->nback - i) * sizeof(*run->back));
    run->back[i] = (struct sim_rows){info->first, info->count, born};
    run->nback++;
    if (i + 1 < run->nback && run->back[i].first + run->back[i].count == run->back[i + 1].first) {
        run->back[i].count += run->back[i + 1].count;
        run->nback--;
        memmove(run->back + i + 1, run->back + i + 2, (run->nback - i - 1) * sizeof(*run->back));
    }
    if (i > 0 && run->back[i - 1].first + run->back[i - 1].count == run->back[i].first) {
        run->back[i - 1].count += run->back[i].count;
        run->nback--;
        memmove(run->back + i, run->back + i + 1, (run->nback - i) * sizeof(*run->back));
    }
}

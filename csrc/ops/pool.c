/* pool.c: the windows of pooling and the loops over them, for fixed and adaptive pooling, maximum and average.
 *
 * Forward, a chunk is a band of output rows. Backward, it is a band of input rows, each of which gathers from the output rows
 * whose windows reach it, in ascending order: chunks write disjoint rows, and no bit depends on who computes what. */
#include "pool.h"

#include "stage.h"

#include <string.h>

enum { BAND = 32768, BLOCK_CHANNELS = 64 }; /* input elements a chunk, about; least channels a block */

int fnn_pool_check_map(fnn_call *call, const char *name, const fnn_tensor *t) {
    if (t->rank != 4)
        return fnn_fail(call, FNN_VALUE_ERROR, "argument '%s' has shape %s, but must be 4-d: (N, C, H, W)", name, fnn_shape_text(t));
    if (t->shape[2] < 1 || t->shape[3] < 1)
        return fnn_fail(call, FNN_VALUE_ERROR, "argument '%s' has shape %s: only N and C may be 0", name, fnn_shape_text(t));
    return FNN_OK;
}

/* ---- windows ---- */

static fnn_pool_window window_of(const fnn_pool_axis *axis, ptrdiff_t o) {
    fnn_pool_window w;
    if (axis->kernel == 0) { /* adaptive: floor(o * input / output) to ceil((o + 1) * input / output) */
        w.origin = w.first = w.position = o * axis->input / axis->output;
        w.count = w.extent = fnn_ceil_div((o + 1) * axis->input, axis->output) - w.first;
        return w;
    }
    w.origin = o * axis->stride - axis->padding;
    ptrdiff_t skipped = w.origin < 0 ? fnn_ceil_div(-w.origin, axis->dilation) : 0;
    ptrdiff_t inside = fnn_ceil_div(fnn_max(axis->input - w.origin, 0), axis->dilation);
    w.position = skipped;
    w.count = fnn_max(fnn_min(axis->kernel, inside) - skipped, 0);
    w.first = w.count ? w.origin + skipped * axis->dilation : 0;
    w.extent = axis->include_padding ? fnn_min(w.origin + axis->kernel, axis->input + axis->padding) - w.origin : w.count;
    return w;
}

static void make_tables(fnn_pool_plan *plan, char **workspace) {
    plan->rows = (fnn_pool_window *)*workspace;
    plan->columns = plan->rows + plan->h.output;
    *workspace += fnn_pool_table_bytes(plan);
    for (ptrdiff_t o = 0; o < plan->h.output; o++) plan->rows[o] = window_of(&plan->h, o);
    ptrdiff_t end = 0, covered = 0;
    plan->disjoint = 1;
    for (ptrdiff_t o = 0; o < plan->w.output; o++) {
        const fnn_pool_window *w = &plan->columns[o];
        plan->columns[o] = window_of(&plan->w, o);
        if (!w->count) continue;
        plan->disjoint = plan->disjoint && w->first >= end;
        end = w->first + (w->count - 1) * plan->w.dilation + 1;
        covered += w->count;
    }
    plan->covering = plan->disjoint && covered == plan->w.input;
}

size_t fnn_pool_table_bytes(const fnn_pool_plan *plan) {
    return ((size_t)(plan->h.output + plan->w.output) * sizeof(fnn_pool_window) + 63) & ~(size_t)63;
}

void fnn_pool_workspace(const fnn_call *call, const fnn_pool_plan *plan, fnn_workspace *ws) {
    ws->shared = fnn_pool_table_bytes(plan);
    for (int k = 0; k < 2; k++) ws->shared += fnn_stage_bytes(call->out[k]) + fnn_stage_bytes(call->in[k]);
}

/* ---- chunks ---- */

/* `rows` rows per image whose windows reach over `size` input elements in all. A row that is a large chunk by itself (global
 * pooling) is cut into blocks of channels. */
static void cut(fnn_pool_plan *plan, ptrdiff_t rows) {
    ptrdiff_t reach = plan->h.input * plan->w.input * fnn_max(plan->channels, 1) / rows;
    plan->band_rows = fnn_max(BAND / fnn_max(reach, plan->w.output), 1);
    plan->bands = fnn_ceil_div(plan->images * rows, plan->band_rows);
    ptrdiff_t pieces = fnn_max(fnn_min(reach / BAND, plan->channels / BLOCK_CHANNELS), 1);
    plan->block = fnn_round_up(fnn_max(fnn_ceil_div(plan->channels, pieces), 1), BLOCK_CHANNELS);
    plan->blocks = fnn_ceil_div(plan->channels, plan->block);
}

static fnn_pool_row row_of(const fnn_pool_plan *plan, ptrdiff_t from) {
    return (fnn_pool_row){
        .windows = plan->columns,
        .outputs = plan->w.output,
        .channels = fnn_min(plan->block, plan->channels - from),
        .pitch = plan->channels,
        .column_step = plan->w.dilation * plan->channels,
        .row_step = plan->h.dilation * plan->w.input * plan->channels,
        .position_step = plan->position_step,
        .divisor_given = plan->divisor != 0,
    };
}

static void run_forward(void *context, ptrdiff_t chunk, void *scratch) {
    (void)scratch;
    const fnn_pool_plan *plan = context;
    const fnn_kernels *K = fnn_kernels_of(plan->dtype);
    ptrdiff_t from = chunk % plan->blocks * plan->block, band = chunk / plan->blocks * plan->band_rows;
    ptrdiff_t end = fnn_min(band + plan->band_rows, plan->images * plan->h.output), C = plan->channels;
    fnn_pool_row row = row_of(plan, from);
    for (ptrdiff_t r = band; r < end; r++) {
        const fnn_pool_window *w = &plan->rows[r % plan->h.output];
        ptrdiff_t to = r * plan->w.output * C + from;
        const void *x = fnn_at(plan->x, (r / plan->h.output * plan->h.input + w->first) * plan->w.input * C + from, plan->dtype);
        row.rows = w->count;
        row.position = w->position * plan->position_step;
        row.divisor = plan->divisor ? plan->divisor : w->extent;
        if (plan->is_max) K->max_pool_row(&row, fnn_at(plan->y, to, plan->dtype), plan->argmax ? plan->argmax + to : NULL, x);
        else K->avg_pool_row(&row, fnn_at(plan->y, to, plan->dtype), x);
    }
}

static void clear_row(const fnn_pool_plan *plan, const fnn_pool_row *row, char *dx) {
    size_t size = fnn_itemsize(plan->dtype);
    if (row->channels == row->pitch) {
        memset(dx, 0, (size_t)(plan->w.input * row->pitch) * size);
        return;
    }
    for (ptrdiff_t w = 0; w < plan->w.input; w++) memset(dx + (size_t)(w * row->pitch) * size, 0, (size_t)row->channels * size);
}

/* One input row, number i of its image: the sum over output rows that reach it, number `o` of image `n` first of all. */
static void gather_row(const fnn_pool_plan *plan, fnn_pool_row *row, ptrdiff_t n, ptrdiff_t i, ptrdiff_t o, ptrdiff_t from) {
    const fnn_kernels *K = fnn_kernels_of(plan->dtype);
    char *dx = fnn_at(plan->x, (n * plan->h.input + i) * plan->w.input * plan->channels + from, plan->dtype);
    int accumulate = !plan->disjoint, touched = 0;
    for (; o < plan->h.output && plan->rows[o].origin <= i; o++) {
        const fnn_pool_window *w = &plan->rows[o];
        ptrdiff_t k = (i - w->first) / plan->h.dilation;
        if (i < w->first || (i - w->first) % plan->h.dilation || k >= w->count) continue;
        if (!touched && !plan->covering) clear_row(plan, row, dx);
        touched = 1;
        ptrdiff_t at = (n * plan->h.output + o) * plan->w.output * plan->channels + from;
        row->position = (w->position + k) * plan->position_step;
        row->divisor = plan->divisor ? plan->divisor : w->extent;
        if (plan->is_max) K->max_pool_row_backward(row, accumulate, dx, fnn_at(plan->y, at, plan->dtype), plan->argmax + at);
        else K->avg_pool_row_backward(row, accumulate, dx, fnn_at(plan->y, at, plan->dtype));
        accumulate = 1;
    }
    if (!touched) clear_row(plan, row, dx);
}

static void run_backward(void *context, ptrdiff_t chunk, void *scratch) {
    (void)scratch;
    const fnn_pool_plan *plan = context;
    ptrdiff_t from = chunk % plan->blocks * plan->block, band = chunk / plan->blocks * plan->band_rows;
    ptrdiff_t end = fnn_min(band + plan->band_rows, plan->images * plan->h.input), o = 0;
    fnn_pool_row row = row_of(plan, from);
    for (ptrdiff_t r = band; r < end; r++) {
        ptrdiff_t i = r % plan->h.input;
        if (i == 0) o = 0;
        /* Windows that end before this row end before all that follow. */
        while (o < plan->h.output && plan->rows[o].first + (plan->rows[o].count - 1) * plan->h.dilation < i) o++;
        gather_row(plan, &row, r / plan->h.input, i, o, from);
    }
}

void fnn_pool_forward(fnn_call *call, fnn_pool_plan *plan) {
    char *workspace = call->shared;
    plan->dtype = call->in[0]->dtype;
    make_tables(plan, &workspace);
    plan->x = (char *)fnn_stage_input(call->in[0], &workspace);
    plan->y = fnn_stage_output(call->out[0], &workspace);
    plan->argmax = plan->is_max ? fnn_stage_output(call->out[1], &workspace) : NULL;
    cut(plan, plan->h.output);
    fnn_parallel_for(call, plan->bands * plan->blocks, fnn_cost(call), run_forward, plan);
    fnn_unstage_output(call->out[0], plan->y);
    if (plan->is_max) fnn_unstage_output(call->out[1], plan->argmax);
}

void fnn_pool_backward(fnn_call *call, fnn_pool_plan *plan) {
    char *workspace = call->shared;
    plan->dtype = call->in[0]->dtype;
    make_tables(plan, &workspace);
    plan->y = (char *)fnn_stage_input(call->in[0], &workspace);
    plan->argmax = plan->is_max ? (int32_t *)fnn_stage_input(call->in[1], &workspace) : NULL;
    plan->x = fnn_stage_output(call->out[0], &workspace);
    cut(plan, plan->h.input);
    fnn_parallel_for(call, plan->bands * plan->blocks, fnn_cost(call), run_backward, plan);
    fnn_unstage_output(call->out[0], plan->x);
}

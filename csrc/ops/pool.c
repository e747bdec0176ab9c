/* pool.c: the windows of pooling and the loops over them, for fixed and adaptive pooling, maximum and average.
 *
 * Forward, a chunk is a band of output rows. Backward, it is a band of input rows, whose pixels gather from the
 * windows that hold them, in ascending order: every element is written once, and no bit depends on who computes
 * what. */
#include "pool.h"

#include "stage.h"

#include <string.h>

enum { BAND = 32768, BLOCK_CHANNELS = 64 }; /* input elements a chunk, about; least channels a block */
#define MOST_LINKS ((ptrdiff_t)1 << 48)

int fnn_pool_check_map(fnn_call *call, const char *name, const fnn_tensor *t) {
    if (t->rank != 4)
        return fnn_fail(call, FNN_VALUE_ERROR, "argument '%s' has shape %s, but must be 4-d: (N, C, H, W)", name,
                        fnn_shape_text(t));
    if (t->shape[2] < 1 || t->shape[3] < 1)
        return fnn_fail(call, FNN_VALUE_ERROR, "argument '%s' has shape %s: only N and C may be 0", name,
                        fnn_shape_text(t));
    return FNN_OK;
}

int fnn_pool_infer_gradient(fnn_call *call, int is_max) {
    const fnn_tensor *dy = call->in[0];
    if (is_max && !fnn_same_shape(dy, call->in[1]))
        return fnn_fail(call, FNN_VALUE_ERROR, "arguments 'dy' %s and 'argmax' %s must have one shape",
                        fnn_shape_text(dy), fnn_shape_text(call->in[1]));
    ptrdiff_t shape[4] = {dy->shape[0], dy->shape[1], call->attr.i[0], call->attr.i[1]};
    fnn_set_shape(call->out[0], dy->dtype, 4, shape);
    return FNN_OK;
}

/* ---- windows ---- */

static fnn_pool_window window_of(const fnn_pool_axis *axis, ptrdiff_t o) {
    fnn_pool_window w;
    if (axis->kernel == 0) { /* adaptive: floor(o * input / output) to ceil((o + 1) * input / output) */
        w.first = w.position = o * axis->input / axis->output;
        w.count = w.extent = fnn_ceil_div((o + 1) * axis->input, axis->output) - w.first;
        return w;
    }
    ptrdiff_t origin = o * axis->stride - axis->padding;
    ptrdiff_t skipped = origin < 0 ? fnn_ceil_div(-origin, axis->dilation) : 0;
    ptrdiff_t inside = fnn_ceil_div(fnn_max(axis->input - origin, 0), axis->dilation);
    w.position = skipped;
    w.count = fnn_max(fnn_min(axis->kernel, inside) - skipped, 0);
    w.first = w.count ? origin + skipped * axis->dilation : 0;
    w.extent = axis->include_padding ? fnn_min(origin + axis->kernel, axis->input + axis->padding) - origin : w.count;
    return w;
}

static size_t windows_bytes(const fnn_pool_axis *axis) { return fnn_whole_lines((size_t)axis->output * sizeof(fnn_pool_window)); }

static fnn_pool_window *make_windows(const fnn_pool_axis *axis, char **workspace) {
    fnn_pool_window *windows = fnn_take(workspace, windows_bytes(axis));
    for (ptrdiff_t o = axis->output - 1; o >= 0; o--) {
        fnn_pool_window *w = &windows[o], *next = w + 1;
        *w = window_of(axis, o);
        w->alike = 1;
        w->step = o + 1 < axis->output ? next->first - w->first : 0;
        if (o + 1 == axis->output || w->count != next->count || w->position != next->position) continue;
        if (w->extent != next->extent) continue;
        if (next->alike == 1 || next->step == w->step) w->alike = next->alike + 1;
    }
    return windows;
}

/* At most: adaptive windows share only their ends. More than MOST_LINKS no memory holds. */
static size_t num_links(const fnn_pool_axis *axis) {
    if (!axis->kernel) return (size_t)(axis->input + axis->output);
    ptrdiff_t each = fnn_min(axis->kernel, axis->input);
    return axis->output > MOST_LINKS / each ? MOST_LINKS : (size_t)(axis->output * each);
}

static size_t links_bytes(const fnn_pool_axis *axis) {
    const size_t links = num_links(axis) * sizeof(fnn_pool_link), starts = ((size_t)axis->input + 2) * sizeof(ptrdiff_t);
    return fnn_whole_lines(links) + fnn_whole_lines(starts);
}

/* The windows turned around: for each input position those that hold it, in ascending order. */
static void make_links(fnn_pool_plan *plan, int d, const fnn_pool_axis *axis, char **workspace) {
    fnn_pool_link *links = plan->links[d] = fnn_take(workspace, num_links(axis) * sizeof(fnn_pool_link));
    /* Counted two places on; the fill then moves each start up to where the next one belongs. */
    ptrdiff_t *starts = fnn_take(workspace, ((size_t)axis->input + 2) * sizeof(ptrdiff_t));
    memset(starts, 0, ((size_t)axis->input + 2) * sizeof(ptrdiff_t));
    for (ptrdiff_t o = 0; o < axis->output; o++) {
        fnn_pool_window w = window_of(axis, o);
        for (ptrdiff_t k = 0; k < w.count; k++) starts[w.first + k * axis->dilation + 2]++;
    }
    for (ptrdiff_t i = 2; i < axis->input + 2; i++) starts[i] += starts[i - 1];
    for (ptrdiff_t o = 0; o < axis->output; o++) {
        fnn_pool_window w = window_of(axis, o);
        for (ptrdiff_t k = 0; k < w.count; k++)
            links[starts[w.first + k * axis->dilation + 1]++] = (fnn_pool_link){o, w.position + k, w.extent};
    }
    plan->starts[d] = starts;
}

static size_t stretches_bytes(const fnn_pool_axis *axis) {
    return fnn_whole_lines((size_t)axis->input * sizeof(fnn_pool_stretch));
}

/* Pixels from i on that lie side by side in one window and in no other; 1 for any other pixel. */
static ptrdiff_t run_width(const fnn_pool_link *links, const ptrdiff_t *starts, ptrdiff_t i, ptrdiff_t input) {
    const fnn_pool_link *link = &links[starts[i]];
    ptrdiff_t n = 1;
    if (starts[i + 1] - starts[i] != 1) return 1;
    for (; i + n < input && starts[i + n + 1] - starts[i + n] == 1; n++)
        if (link[n].output != link->output || link[n].position != link->position + n) break;
    return n;
}

/* A run joins the stretch before it if it is as wide and lies in as many windows, and, where that is one, in the next one. */
static int continues(const fnn_pool_stretch *s, ptrdiff_t width, ptrdiff_t windows, const fnn_pool_link *first,
                     const fnn_pool_link *link) {
    if (s->width != width || s->windows != windows) return 0;
    return windows != 1 || (link->output == first->output + s->runs && link->position == first->position &&
                            link->extent == first->extent);
}

static void make_stretches(fnn_pool_plan *plan, char **workspace) {
    const fnn_pool_link *links = plan->links[1];
    const ptrdiff_t *starts = plan->starts[1];
    fnn_pool_stretch *s = plan->stretches = fnn_take(workspace, stretches_bytes(&plan->w));
    ptrdiff_t n = 0;
    for (ptrdiff_t i = 0, width; i < plan->w.input; i += width) {
        const ptrdiff_t windows = starts[i + 1] - starts[i];
        width = run_width(links, starts, i, plan->w.input);
        if (n && continues(&s[n - 1], width, windows, &links[starts[s[n - 1].first]], &links[starts[i]])) s[n - 1].runs++;
        else s[n++] = (fnn_pool_stretch){i, width, 1, windows};
    }
    plan->num_stretches = n;
}

/* ---- chunks ---- */

/* `rows` rows per image whose windows reach over all its elements. A row that is a large chunk by itself (global
 * pooling) is cut into blocks of channels. */
static void cut(fnn_pool_plan *plan, ptrdiff_t rows) {
    ptrdiff_t reach = plan->h.input * plan->w.input * fnn_max(plan->channels, 1) / rows;
    plan->band_rows = fnn_max(BAND / fnn_max(reach, plan->w.output), 1);
    plan->bands = fnn_ceil_div(plan->images * rows, plan->band_rows);
    ptrdiff_t pieces = fnn_max(fnn_min(reach / BAND, plan->channels / BLOCK_CHANNELS), 1);
    plan->block = fnn_round_up(fnn_max(fnn_ceil_div(plan->channels, pieces), 1), BLOCK_CHANNELS);
    plan->blocks = fnn_ceil_div(plan->channels, plan->block);
}

static void run_forward(void *context, ptrdiff_t chunk, void *scratch) {
    (void)scratch;
    const fnn_pool_plan *plan = context;
    const fnn_kernels *K = fnn_kernels_of(plan->dtype);
    ptrdiff_t from = chunk % plan->blocks * plan->block, band = chunk / plan->blocks * plan->band_rows;
    ptrdiff_t end = fnn_min(band + plan->band_rows, plan->images * plan->h.output), C = plan->channels;
    fnn_pool_row row = {
        .windows = plan->windows[1],
        .outputs = plan->w.output,
        .inputs = plan->w.input,
        .channels = fnn_min(plan->block, C - from),
        .pitch = C,
        .column_step = plan->w.dilation * C,
        .row_step = plan->h.dilation * plan->w.input * C,
        .position_step = plan->position_step,
        .divisor_given = plan->divisor != 0,
        .stream = plan->stream,
    };
    for (ptrdiff_t r = band; r < end; r++) {
        const fnn_pool_window *w = &plan->windows[0][r % plan->h.output];
        ptrdiff_t to = r * plan->w.output * C + from;
        const void *x = fnn_at(plan->x, (r / plan->h.output * plan->h.input + w->first) * plan->w.input * C + from,
                               plan->dtype);
        row.rows = w->count;
        row.position = w->position * plan->position_step;
        row.divisor = plan->divisor ? plan->divisor : w->extent;
        void *y = fnn_at(plan->y, to, plan->dtype);
        if (plan->is_max) K->max_pool_row(&row, y, plan->argmax ? plan->argmax + to : NULL, x);
        else K->avg_pool_row(&row, y, x);
    }
    if (plan->stream) K->stream_end();
}

static void run_backward(void *context, ptrdiff_t chunk, void *scratch) {
    (void)scratch;
    const fnn_pool_plan *plan = context;
    const fnn_kernels *K = fnn_kernels_of(plan->dtype);
    ptrdiff_t from = chunk % plan->blocks * plan->block, band = chunk / plan->blocks * plan->band_rows;
    ptrdiff_t end = fnn_min(band + plan->band_rows, plan->images * plan->h.input), C = plan->channels;
    fnn_pool_gather row = {
        .inputs = plan->w.input,
        .outputs = plan->w.output,
        .channels = fnn_min(plan->block, C - from),
        .pitch = C,
        .row_pitch = plan->w.output * C,
        .columns = plan->links[1],
        .starts = plan->starts[1],
        .stretches = plan->stretches,
        .num_stretches = plan->num_stretches,
        .position_step = plan->position_step,
        .divisor = plan->divisor,
        .stream = plan->stream,
    };
    for (ptrdiff_t r = band; r < end; r++) {
        const ptrdiff_t *start = &plan->starts[0][r % plan->h.input];
        ptrdiff_t image = r / plan->h.input * plan->h.output * plan->w.output * C + from;
        void *dx = fnn_at(plan->x, r * plan->w.input * C + from, plan->dtype);
        row.rows = plan->links[0] + start[0];
        row.num_rows = start[1] - start[0];
        if (plan->is_max) K->max_pool_gather(&row, dx, fnn_at(plan->y, image, plan->dtype), plan->argmax + image);
        else K->avg_pool_gather(&row, dx, fnn_at(plan->y, image, plan->dtype));
        if (plan->follows) fnn_follow(plan->call, r * plan->w.input * C, plan->w.input * C);
    }
    if (plan->stream) K->stream_end();
}

/* ---- drivers ---- */

static size_t staged_bytes(const fnn_call *call) {
    size_t bytes = 0;
    for (int k = 0; k < 2; k++) bytes += fnn_stage_bytes(call->out[k]) + fnn_stage_bytes(call->in[k]);
    return bytes;
}

void fnn_pool_forward_workspace(const fnn_call *call, const fnn_pool_plan *plan, fnn_workspace *ws) {
    ws->shared = windows_bytes(&plan->h) + windows_bytes(&plan->w) + staged_bytes(call);
}

void fnn_pool_backward_workspace(const fnn_call *call, const fnn_pool_plan *plan, fnn_workspace *ws) {
    ws->shared = links_bytes(&plan->h) + links_bytes(&plan->w) + stretches_bytes(&plan->w) + staged_bytes(call);
}

void fnn_pool_forward(fnn_call *call, fnn_pool_plan *plan) {
    char *workspace = call->shared;
    plan->dtype = call->in[0]->dtype;
    plan->windows[0] = make_windows(&plan->h, &workspace);
    plan->windows[1] = make_windows(&plan->w, &workspace);
    plan->x = (char *)fnn_stage_input(call->in[0], &workspace);
    plan->y = fnn_stage_output(call->out[0], &workspace);
    plan->argmax = call->out[1] ? fnn_stage_output(call->out[1], &workspace) : NULL;
    ptrdiff_t outputs = fnn_numel(call->out[0]);
    plan->stream = fnn_may_stream(plan->y, outputs, plan->channels, plan->dtype) &&
                   (!plan->argmax || fnn_may_stream(plan->argmax, outputs, plan->channels, FNN_INT32));
    cut(plan, plan->h.output);
    fnn_parallel_for(call, plan->bands * plan->blocks, fnn_cost(call), run_forward, plan);
    fnn_unstage_output(call->out[0], plan->y);
    if (plan->argmax) fnn_unstage_output(call->out[1], plan->argmax);
}

void fnn_pool_backward(fnn_call *call, fnn_pool_plan *plan) {
    char *workspace = call->shared;
    plan->dtype = call->in[0]->dtype;
    make_links(plan, 0, &plan->h, &workspace);
    make_links(plan, 1, &plan->w, &workspace);
    make_stretches(plan, &workspace);
    plan->y = (char *)fnn_stage_input(call->in[0], &workspace);
    plan->argmax = plan->is_max ? (int32_t *)fnn_stage_input(call->in[1], &workspace) : NULL;
    plan->x = fnn_stage_output(call->out[0], &workspace);
    plan->stream = !call->follower && fnn_may_stream(plan->x, fnn_numel(call->out[0]), plan->channels, plan->dtype);
    cut(plan, plan->h.input);
    plan->call = call;
    plan->follows = call->follower && plan->blocks == 1 && plan->x == call->out[0]->data;
    fnn_parallel_for(call, plan->bands * plan->blocks, fnn_cost(call), run_backward, plan);
    fnn_unstage_output(call->out[0], plan->x);
    if (!plan->follows) fnn_follow_all(call, NULL);
}

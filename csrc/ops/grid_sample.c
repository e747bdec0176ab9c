/* grid_sample.c: images seen through a grid of places (M. Jaderberg et al., "Spatial transformer networks", NIPS 2015).
 *
 * A chunk is some rows of the result; of the image's gradient, into which many places may add, it is all places of one image for
 * some channels, in order: sums do not depend on the number of threads. */
#include "order.h"
#include "stage.h"

#include <string.h>

enum { CHUNK = 8192 /* elements a chunk, about */, CHANNELS = 32 /* of the image's gradient, a chunk */ };

typedef struct {
    const fnn_kernels *K;
    const fnn_tensor *grid, *dgrid;
    fnn_grid g;
    int dtype;
    ptrdiff_t images, oh, ow, rows, blocks; /* rows: a chunk; blocks: of channels */
    ptrdiff_t first;                        /* image of those that x holds */
    const char *x, *dy;                     /* channels last, dense */
    char *y;                                /* likewise: the result, or the image's gradient */
} plan;

static int check(fnn_call *call, const fnn_tensor *x, const fnn_tensor *grid) {
    if (x->rank != 4 || x->shape[2] < 1 || x->shape[3] < 1)
        return fnn_fail(call, FNN_VALUE_ERROR, "x has shape %s, but must be (N, C, H, W) with at least one pixel",
                        fnn_shape_text(x));
    if (grid->rank != 4 || grid->shape[0] != x->shape[0] || grid->shape[3] != 2)
        return fnn_fail(call, FNN_VALUE_ERROR, "grid has shape %s, but must be (%td, OH, OW, 2)", fnn_shape_text(grid),
                        x->shape[0]);
    const int64_t *i = call->attr.i;
    if (i[0] < FNN_GRID_BILINEAR || i[0] > FNN_GRID_BICUBIC || i[1] < FNN_GRID_ZEROS || i[1] > FNN_GRID_REFLECTION)
        return fnn_fail(call, FNN_VALUE_ERROR, "mode is %lld and padding %lld, but both must be 0, 1 or 2", (long long)i[0],
                        (long long)i[1]);
    return FNN_OK;
}

/* dy must be what the grid makes of x. */
static int check_gradient(fnn_call *call, const fnn_tensor *dy, const fnn_tensor *x, const fnn_tensor *grid) {
    if (dy->rank == 4 && dy->shape[0] == x->shape[0] && dy->shape[1] == x->shape[1] && dy->shape[2] == grid->shape[1] &&
        dy->shape[3] == grid->shape[2])
        return FNN_OK;
    return fnn_fail(call, FNN_VALUE_ERROR, "dy has shape %s, but must be (%td, %td, %td, %td)", fnn_shape_text(dy), x->shape[0],
                    x->shape[1], grid->shape[1], grid->shape[2]);
}

static plan plan_of(const fnn_call *call, const fnn_tensor *x, const fnn_tensor *grid) {
    const int64_t *i = call->attr.i;
    plan p = {.K = fnn_kernels_of(x->dtype), .grid = grid, .dtype = x->dtype, .images = x->shape[0], .oh = grid->shape[1],
              .ow = grid->shape[2],
              .g = {.h = x->shape[2], .w = x->shape[3], .channels = x->shape[1], .mode = (int)i[0], .padding = (int)i[1],
                    .align_corners = i[2] != 0}};
    p.rows = fnn_max(CHUNK / fnn_max(p.ow * p.g.channels, 1), 1);
    p.blocks = fnn_ceil_div(p.g.channels, CHANNELS);
    return p;
}

static size_t row_bytes(const fnn_tensor *grid) { return (size_t)grid->shape[2] * 2 * fnn_itemsize(grid->dtype); }

/* One row's columns (axis 0) or rows (1). */
static void *row_of(const fnn_tensor *grid, ptrdiff_t image, ptrdiff_t row, int axis) {
    return fnn_at(grid->data, image * grid->stride[0] + row * grid->stride[1] + axis * grid->stride[3], grid->dtype);
}

/* Its places, (2, OW) dense. */
static void read_row(const plan *p, ptrdiff_t image, ptrdiff_t row, void *places) {
    if (p->grid->stride[2] == 2 && p->grid->stride[3] == 1) {
        p->K->planes_split(p->ow, 2, row_of(p->grid, image, row, 0), places, p->ow);
        return;
    }
    for (int k = 0; k < 2; k++)
        fnn_move_strided(fnn_at(places, k * p->ow, p->dtype), 1, row_of(p->grid, image, row, k), p->grid->stride[2], p->ow,
                         fnn_itemsize(p->dtype));
}

static const void *image_of(const plan *p, ptrdiff_t image) {
    return fnn_at(p->x, image * p->g.h * p->g.w * p->g.channels, p->dtype);
}

static ptrdiff_t result_row(const plan *p, ptrdiff_t image, ptrdiff_t row) {
    return (image * p->oh + row) * p->ow * p->g.channels;
}

/* A place and its weights take some 10 ns, in bicubic mode 40; then there are 1, 4 or 16 products a channel. */
static double cost_of(const fnn_call *call, const fnn_tensor *x, const fnn_tensor *grid) {
    static const double place[] = {10, 5, 40}, channel[] = {0.8, 0.3, 3};
    const int mode = (int)call->attr.i[0];
    return (double)fnn_numel(grid) / 2 * (place[mode] + channel[mode] * (double)x->shape[1]);
}

static ptrdiff_t row_chunks(const plan *p) { return p->images * fnn_ceil_div(p->oh, p->rows); }

/* ---- forward ---- */

static int forward_infer(fnn_call *call) {
    const fnn_tensor *x = call->in[0], *grid = call->in[1];
    int status = check(call, x, grid);
    if (!status)
        fnn_set_shape(call->out[0], x->dtype, 4, (ptrdiff_t[]){x->shape[0], x->shape[1], grid->shape[1], grid->shape[2]});
    return status;
}

/* Images that are brought into channels-last order and sampled together: as many as a core's caches hold. */
static fnn_tensor group_of(const fnn_tensor *x) {
    enum { GROUP_BYTES = 1 << 19 };
    const ptrdiff_t image = fnn_span(x, 1, 4) * (ptrdiff_t)fnn_itemsize(x->dtype);
    fnn_tensor group = *x;
    if (fnn_stage_bytes(x)) group.shape[0] = fnn_min(fnn_max(GROUP_BYTES / fnn_max(image, 1), 1), x->shape[0]);
    return group;
}

static void forward_workspace(const fnn_call *call, fnn_workspace *ws) {
    const fnn_tensor group = group_of(call->in[0]);
    ws->shared = fnn_stage_bytes(&group) + fnn_stage_bytes(call->out[0]);
    ws->scratch = row_bytes(call->in[1]);
}

static double forward_cost(const fnn_call *call) { return cost_of(call, call->in[0], call->in[1]); }

static void run_forward(void *context, ptrdiff_t chunk, void *scratch) {
    const plan *p = context;
    const ptrdiff_t parts = fnn_ceil_div(p->oh, p->rows), image = chunk / parts, first = chunk % parts * p->rows;
    for (ptrdiff_t i = first; i < fnn_min(first + p->rows, p->oh); i++) {
        read_row(p, p->first + image, i, scratch);
        p->K->grid_sample(&p->g, p->ow, scratch, image_of(p, image),
                          fnn_at(p->y, result_row(p, p->first + image, i), p->dtype));
    }
}

/* y: (N, C, OH, OW); x: (N, C, H, W); grid: (N, OH, OW, 2) */
static int forward_run(fnn_call *call) {
    char *at = call->shared;
    const fnn_tensor *x = call->in[0];
    plan p = plan_of(call, x, call->in[1]);
    fnn_tensor group = group_of(x);
    const ptrdiff_t images = group.shape[0];
    p.y = fnn_stage_output(call->out[0], &at);
    for (; p.first < x->shape[0]; p.first += images) {
        char *staged = at;
        group.shape[0] = p.images = fnn_min(images, x->shape[0] - p.first);
        group.data = fnn_at(x->data, p.first * x->stride[0], x->dtype);
        p.x = fnn_stage_input(&group, &staged);
        fnn_parallel_for(call, row_chunks(&p), forward_cost(call) * (double)p.images / (double)x->shape[0], run_forward, &p);
    }
    fnn_unstage_output(call->out[0], p.y);
    return FNN_OK;
}

const fnn_driver fnn_grid_sample_forward = {
    .infer = forward_infer, .workspace = forward_workspace, .cost = forward_cost, .run = forward_run};

/* ---- the image's gradient: the caller gives it, and with it the image's size ---- */

static int input_infer(fnn_call *call) {
    const fnn_tensor *dx = call->out[0], *dy = call->in[0], *grid = call->in[1];
    if (dx->rank < 0) return fnn_fail(call, FNN_TYPE_ERROR, "writes into an output that the caller gives");
    int status = check(call, dx, grid);
    if (!status && dx->dtype != dy->dtype)
        status = fnn_fail(call, FNN_TYPE_ERROR, "output 'dx' has dtype %s, but 'dy' has %s: they must be the same",
                          fnn_dtype_name(dx->dtype), fnn_dtype_name(dy->dtype));
    return status ? status : check_gradient(call, dy, dx, grid);
}

static void input_workspace(const fnn_call *call, fnn_workspace *ws) {
    ws->shared = fnn_stage_bytes(call->in[0]) + fnn_stage_bytes(call->out[0]);
    ws->scratch = row_bytes(call->in[1]);
}

static double input_cost(const fnn_call *call) {
    return cost_of(call, call->out[0], call->in[1]) + 0.2 * (double)fnn_numel(call->out[0]);
}

static void run_input(void *context, ptrdiff_t chunk, void *scratch) {
    const plan *p = context;
    const ptrdiff_t image = chunk / p->blocks, c = chunk % p->blocks * CHANNELS, width = fnn_min(CHANNELS, p->g.channels - c);
    char *dx = fnn_at(p->y, image * p->g.h * p->g.w * p->g.channels, p->dtype);
    for (ptrdiff_t k = 0; k < p->g.h * p->g.w; k++)
        memset(fnn_at(dx, k * p->g.channels + c, p->dtype), 0, (size_t)width * fnn_itemsize(p->dtype));
    for (ptrdiff_t i = 0; i < p->oh; i++) {
        read_row(p, image, i, scratch);
        p->K->grid_sample_input(&p->g, p->ow, scratch, c, width, fnn_at(p->dy, result_row(p, image, i), p->dtype), dx);
    }
}

/* dx: (N, C, H, W); dy: (N, C, OH, OW); grid: (N, OH, OW, 2) */
static int input_run(fnn_call *call) {
    char *at = call->shared;
    plan p = plan_of(call, call->out[0], call->in[1]);
    p.dy = fnn_stage_input(call->in[0], &at);
    p.y = fnn_stage_output(call->out[0], &at);
    fnn_parallel_for(call, p.images * p.blocks, input_cost(call), run_input, &p);
    fnn_unstage_output(call->out[0], p.y);
    return FNN_OK;
}

const fnn_driver fnn_grid_sample_backward_input = {
    .infer = input_infer, .workspace = input_workspace, .cost = input_cost, .run = input_run};

/* ---- the grid's gradient ---- */

static int grid_infer(fnn_call *call) {
    const fnn_tensor *dy = call->in[0], *x = call->in[1], *grid = call->in[2];
    int status = check(call, x, grid);
    if (!status) status = check_gradient(call, dy, x, grid);
    if (!status) fnn_set_like(call->out[0], grid);
    return status;
}

static void grid_workspace(const fnn_call *call, fnn_workspace *ws) {
    ws->shared = fnn_stage_bytes(call->in[0]) + fnn_stage_bytes(call->in[1]);
    ws->scratch = 2 * row_bytes(call->in[2]);
}

static double grid_cost(const fnn_call *call) { return 1.5 * cost_of(call, call->in[1], call->in[2]); }

static void run_grid(void *context, ptrdiff_t chunk, void *scratch) {
    const plan *p = context;
    const ptrdiff_t parts = fnn_ceil_div(p->oh, p->rows), image = chunk / parts, first = chunk % parts * p->rows;
    char *dplaces = fnn_at(scratch, 2 * p->ow, p->dtype);
    for (ptrdiff_t i = first; i < fnn_min(first + p->rows, p->oh); i++) {
        read_row(p, image, i, scratch);
        p->K->grid_sample_grid(&p->g, p->ow, scratch, image_of(p, image), fnn_at(p->dy, result_row(p, image, i), p->dtype),
                               dplaces);
        for (int k = 0; k < 2; k++)
            fnn_move_strided(row_of(p->dgrid, image, i, k), p->dgrid->stride[2], fnn_at(dplaces, k * p->ow, p->dtype), 1, p->ow,
                             fnn_itemsize(p->dtype));
    }
}

/* dgrid, grid: (N, OH, OW, 2); dy: (N, C, OH, OW); x: (N, C, H, W) */
static int grid_run(fnn_call *call) {
    char *at = call->shared;
    plan p = plan_of(call, call->in[1], call->in[2]);
    p.dgrid = call->out[0];
    p.dy = fnn_stage_input(call->in[0], &at);
    p.x = fnn_stage_input(call->in[1], &at);
    fnn_parallel_for(call, row_chunks(&p), grid_cost(call), run_grid, &p);
    return FNN_OK;
}

const fnn_driver fnn_grid_sample_backward_grid = {
    .infer = grid_infer, .workspace = grid_workspace, .cost = grid_cost, .run = grid_run};

/* fractional_pool.c: max-pooling over windows whose steps are random but share out the whole map. A chunk is one image's plane,
 * as every plane has windows of its own. Samples are checked before anything is written. */
#include "order.h"
#include "stage.h"

enum { CHANNELS = 16 /* of an image that a chunk of the gradient owns: at least a cache line */ };

typedef struct {
    const fnn_kernels *K;
    const fnn_call *call;
    const char *samples; /* (N, C, 2) dense: of columns, of rows */
} plan;

static int infer(fnn_call *call) {
    const fnn_tensor *x = call->in[0], *samples = call->in[1];
    const int64_t *kernel = call->attr.i, *output = call->attr.i + 2;
    if (x->rank != 4) return fnn_fail(call, FNN_VALUE_ERROR, "x has shape %s, but must be (N, C, H, W)", fnn_shape_text(x));
    for (int d = 0; d < 2; d++)
        if (kernel[d] < 1 || output[d] < 1 || kernel[d] > x->shape[2 + d] || output[d] > x->shape[2 + d] - kernel[d] + 1)
            return fnn_fail(call, FNN_VALUE_ERROR, "kernel is (%lld, %lld) and output (%lld, %lld), but both must be at least 1, "
                            "and kernel + output - 1 at most the map's %td x %td", (long long)kernel[0], (long long)kernel[1],
                            (long long)output[0], (long long)output[1], x->shape[2], x->shape[3]);
    if (samples->rank != 3 || samples->shape[0] != x->shape[0] || samples->shape[1] != x->shape[1] || samples->shape[2] != 2)
        return fnn_fail(call, FNN_VALUE_ERROR, "samples has shape %s, but must be (%td, %td, 2)", fnn_shape_text(samples),
                        x->shape[0], x->shape[1]);
    const ptrdiff_t shape[4] = {x->shape[0], x->shape[1], (ptrdiff_t)output[0], (ptrdiff_t)output[1]};
    fnn_set_shape(call->out[0], x->dtype, 4, shape);
    fnn_set_shape(call->out[1], FNN_INT64, 4, shape);
    return FNN_OK;
}

static void workspace(const fnn_call *call, fnn_workspace *ws) {
    ws->shared = (size_t)fnn_numel(call->in[1]) * fnn_itemsize(call->in[1]->dtype);
    ws->scratch = (size_t)(call->attr.i[2] + call->attr.i[3]) * sizeof(ptrdiff_t);
}

static double cost(const fnn_call *call) {
    return (double)fnn_numel(call->out[0]) * (4 + (double)call->attr.i[0] * (double)call->attr.i[1]);
}

static void run_plane(void *context, ptrdiff_t chunk, void *scratch) {
    const plan *p = context;
    const fnn_tensor *x = p->call->in[0], *y = p->call->out[0], *index = p->call->out[1];
    const int64_t *i = p->call->attr.i;
    const ptrdiff_t n = chunk / x->shape[1], c = chunk % x->shape[1], rows = (ptrdiff_t)i[2], columns = (ptrdiff_t)i[3];
    const fnn_fractional q = {.rows = rows, .columns = columns, .kernel = {(ptrdiff_t)i[0], (ptrdiff_t)i[1]}, .width = x->shape[3],
                              .x_row = x->stride[2], .x_column = x->stride[3], .y_row = y->stride[2], .y_column = y->stride[3],
                              .index_row = index->stride[2], .index_column = index->stride[3]};
    ptrdiff_t *down = scratch, *along = down + rows;
    p->K->fractional_starts(columns, x->shape[3], q.kernel[1], fnn_at(p->samples, 2 * chunk, x->dtype), along);
    p->K->fractional_starts(rows, x->shape[2], q.kernel[0], fnn_at(p->samples, 2 * chunk + 1, x->dtype), down);
    p->K->fractional_max(&q, down, along, fnn_at(x->data, n * x->stride[0] + c * x->stride[1], x->dtype),
                         fnn_at(y->data, n * y->stride[0] + c * y->stride[1], y->dtype),
                         (int64_t *)index->data + n * index->stride[0] + c * index->stride[1]);
}

/* y, indices: (N, C, OH, OW), indices = h W + w; x: (N, C, H, W); samples: (N, C, 2) */
static int run(fnn_call *call) {
    const fnn_tensor *x = call->in[0], *samples = call->in[1];
    plan p = {.K = fnn_kernels_of(x->dtype), .call = call, .samples = call->shared};
    const fnn_order order = fnn_order_of(samples);
    ptrdiff_t bad;
    fnn_order_gather(&order, samples->data, fnn_itemsize(samples->dtype), 0, order.size, call->shared);
    p.K->fractional_check(order.size, p.samples, &bad);
    if (bad >= 0)
        return fnn_fail(call, FNN_VALUE_ERROR, "samples[%td, %td, %td] is not at least 0 and below 1", bad / 2 / x->shape[1],
                        bad / 2 % x->shape[1], bad % 2);
    fnn_parallel_for(call, x->shape[0] * x->shape[1], cost(call), run_plane, &p);
    return FNN_OK;
}

const fnn_driver fnn_fractional_max_pool2d = {.infer = infer, .workspace = workspace, .cost = cost, .run = run};

/* ---- gradient ---- */

typedef struct {
    const fnn_kernels *K;
    int dtype;
    ptrdiff_t channels, blocks, places, pixels;
    const int64_t *index; /* channels last, as all */
    const char *dy;
    char *dx;
    int has_bad; /* some index lies outside of its map */
} gradient_plan;

static int backward_infer(fnn_call *call) {
    const fnn_tensor *dy = call->in[0], *index = call->in[1];
    const int64_t *size = call->attr.i;
    if (dy->rank != 4 || !fnn_same_shape(dy, index))
        return fnn_fail(call, FNN_VALUE_ERROR, "dy %s and indices %s must have one shape, (N, C, OH, OW)", fnn_shape_text(dy),
                        fnn_shape_text(index));
    if (size[0] < 0 || size[1] < 0 || size[0] > INT32_MAX || size[1] > INT32_MAX)
        return fnn_fail(call, FNN_VALUE_ERROR, "attribute 'input' is (%lld, %lld), but must be 0 to %d each", (long long)size[0],
                        (long long)size[1], INT32_MAX);
    fnn_set_shape(call->out[0], dy->dtype, 4, (ptrdiff_t[]){dy->shape[0], dy->shape[1], (ptrdiff_t)size[0], (ptrdiff_t)size[1]});
    return FNN_OK;
}

static void backward_workspace(const fnn_call *call, fnn_workspace *ws) {
    ws->shared = fnn_stage_bytes(call->in[0]) + fnn_stage_bytes(call->in[1]) + fnn_stage_bytes(call->out[0]);
}

static double backward_cost(const fnn_call *call) {
    return 1.5 * (double)fnn_numel(call->in[0]) + 0.3 * (double)fnn_numel(call->out[0]);
}

/* An image's channels, CHANNELS of them: nobody else adds there, and windows come in order. */
static void run_gradient(void *context, ptrdiff_t chunk, void *scratch) {
    gradient_plan *p = context;
    int bad = 0;
    const ptrdiff_t image = chunk / p->blocks, c = chunk % p->blocks * CHANNELS, small = image * p->pixels * p->channels + c;
    (void)scratch;
    p->K->fractional_gradient(p->places, p->pixels, fnn_min(CHANNELS, p->channels - c), p->channels, p->index + small,
                              fnn_at(p->dy, small, p->dtype), fnn_at(p->dx, image * p->places * p->channels + c, p->dtype), &bad);
    if (bad) __atomic_store_n(&p->has_bad, 1, __ATOMIC_RELAXED);
}

/* dx: (N, C, H, W); dy, indices: (N, C, OH, OW), indices = h W + w */
static int backward_run(fnn_call *call) {
    const fnn_tensor *dy = call->in[0], *dx = call->out[0];
    char *at = call->shared;
    gradient_plan p = {.K = fnn_kernels_of(dy->dtype), .dtype = dy->dtype, .channels = dy->shape[1],
                       .blocks = fnn_ceil_div(dy->shape[1], CHANNELS), .places = dx->shape[2] * dx->shape[3],
                       .pixels = dy->shape[2] * dy->shape[3], .dy = fnn_stage_input(dy, &at)};
    p.index = fnn_stage_input(call->in[1], &at);
    p.dx = fnn_stage_output(dx, &at);
    fnn_parallel_for(call, dy->shape[0] * p.blocks, backward_cost(call), run_gradient, &p);
    fnn_unstage_output(dx, p.dx);
    if (p.has_bad) return fnn_fail(call, FNN_INDEX_ERROR, "indices must lie between 0 and %td", p.places - 1);
    return FNN_OK;
}

const fnn_driver fnn_fractional_max_pool2d_backward = {
    .infer = backward_infer, .workspace = backward_workspace, .cost = backward_cost, .run = backward_run};

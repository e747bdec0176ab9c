/* softmax.c: softmax and log_softmax along any axis, forward and backward, and logsumexp. Axis 1 of a channels-last
 * tensor and the last axis of a C-ordered one are dense rows, worked on in place; others are gathered and scattered
 * block by block. */
#include "order.h"

enum { CHUNK = 8192 /* elements */ };

typedef struct {
    fnn_lines in[2], out;
    int inputs;
    ptrdiff_t n, block; /* of a row; rows a chunk */
    int stream;         /* results are written past the caches */
    void (*forward)(ptrdiff_t rows, ptrdiff_t n, const void *x, void *y, int stream);
    void (*backward)(ptrdiff_t rows, ptrdiff_t n, const void *dy, const void *y, void *dx, int stream);
} plan;

static int softmax_infer(fnn_call *call) {
    const fnn_tensor *x = call->in[0];
    const int status = fnn_check_axis(call, x);
    if (status) return status;
    if (call->in[1] && !fnn_same_shape(x, call->in[1]))
        return fnn_fail(call, FNN_VALUE_ERROR, "dy has shape %s, but y has %s", fnn_shape_text(x),
                        fnn_shape_text(call->in[1]));
    fnn_set_alike(call->out[0], x->dtype, x);
    return FNN_OK;
}

static void make_plan(const fnn_call *call, plan *p) {
    int axis = (int)call->attr.i[0];
    p->inputs = call->in[1] ? 2 : 1;
    for (int k = 0; k < p->inputs; k++) p->in[k] = fnn_lines_of(call->in[k], axis);
    p->out = fnn_lines_of(call->out[0], axis);
    p->n = p->in[0].n;
    p->block = fnn_max(CHUNK / fnn_max(p->n, 1), 1);
    p->stream = fnn_lines_stream(&p->out);
    for (int k = 0; k < p->inputs; k++) p->stream &= p->in[k].is_dense && p->in[k].data != p->out.data;
}

static void softmax_workspace(const fnn_call *call, fnn_workspace *ws) {
    plan p;
    make_plan(call, &p);
    size_t bytes = (size_t)(p.block * p.n) * p.out.size;
    /* the result is made where the first input was gathered */
    if (!p.in[0].is_dense || !p.out.is_dense) ws->scratch += bytes;
    if (p.inputs == 2 && !p.in[1].is_dense) ws->scratch += bytes;
}

static void run_chunk(void *context, ptrdiff_t chunk, void *scratch) {
    const plan *p = context;
    ptrdiff_t from = chunk * p->block, rows = fnn_min(p->block, p->out.rows - from), n = p->n;
    int first_staged = !p->in[0].is_dense || !p->out.is_dense;
    void *second = (char *)scratch + (first_staged ? p->block * n * (ptrdiff_t)p->out.size : 0);
    const void *x = fnn_lines_read(&p->in[0], from, rows, scratch);
    void *y = fnn_lines_place(&p->out, from, scratch);
    if (p->inputs == 1) p->forward(rows, n, x, y, p->stream);
    else p->backward(rows, n, x, fnn_lines_read(&p->in[1], from, rows, second), y, p->stream);
    fnn_lines_write(&p->out, from, rows, y);
}

static double softmax_cost(const fnn_call *call) {
    return (double)fnn_numel(call->in[0]) * (double)fnn_itemsize(call->in[0]->dtype) * 0.2 + 100;
}

static int softmax_run(fnn_call *call, plan *p) {
    make_plan(call, p);
    if (p->out.order.size == 0) return FNN_OK;
    fnn_parallel_for(call, fnn_ceil_div(p->out.rows, p->block), softmax_cost(call), run_chunk, p);
    return FNN_OK;
}

/* y: softmax of x along `axis`; the shape of x */
static int softmax_forward_run(fnn_call *call) {
    return softmax_run(call, &(plan){.forward = fnn_kernels_of(call->in[0]->dtype)->softmax_rows});
}

/* dx, dy, y: one shape */
static int softmax_backward_run(fnn_call *call) {
    return softmax_run(call, &(plan){.backward = fnn_kernels_of(call->in[0]->dtype)->softmax_backward_rows});
}

/* y: logarithm of the softmax of x along `axis`; the shape of x */
static int log_softmax_forward_run(fnn_call *call) {
    return softmax_run(call, &(plan){.forward = fnn_kernels_of(call->in[0]->dtype)->log_softmax_rows});
}

/* dx, dy, y: one shape */
static int log_softmax_backward_run(fnn_call *call) {
    return softmax_run(call, &(plan){.backward = fnn_kernels_of(call->in[0]->dtype)->log_softmax_backward_rows});
}

#define DRIVER(name)                                                                                                    \
    const fnn_driver fnn_##name = {.infer = softmax_infer, .workspace = softmax_workspace, .cost = softmax_cost,        \
                                   .run = name##_run}
DRIVER(softmax_forward);
DRIVER(softmax_backward);
DRIVER(log_softmax_forward);
DRIVER(log_softmax_backward);

static int logsumexp_infer(fnn_call *call) {
    int status = softmax_infer(call);
    if (status || call->in[0]->rank == 0) return status;
    fnn_tensor y = *call->out[0];
    if (y.shape[call->attr.i[0]] == 0)
        return fnn_fail(call, FNN_VALUE_ERROR, "x has shape %s: axis %lld is empty", fnn_shape_text(&y),
                        (long long)call->attr.i[0]);
    y.shape[call->attr.i[0]] = 1;
    fnn_set_shape(call->out[0], y.dtype, y.rank, y.shape);
    return FNN_OK;
}

/* y: log of the sum of exp(x) along `axis`, which stays with one element */
static int logsumexp_run(fnn_call *call) {
    return softmax_run(call, &(plan){.forward = fnn_kernels_of(call->in[0]->dtype)->logsumexp_rows});
}

const fnn_driver fnn_logsumexp = {.infer = logsumexp_infer, .workspace = softmax_workspace, .cost = softmax_cost,
                                  .run = logsumexp_run};

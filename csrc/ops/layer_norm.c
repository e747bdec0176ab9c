/* layer_norm.c: layer and RMS normalisation, forward and backward, over the last axes of a tensor: rows in logical
 * order. Dense rows are worked on where they lie, others are gathered and scattered block by block. Backward, each
 * chunk of rows sums the parameters' gradients by itself; a second loop adds the chunks' sums, columns shared out. */
#include "order.h"
#include "stage.h"

#include <string.h>

enum {
    CHUNK = 8192,    /* elements a chunk, about */
    PARTIALS = 64,   /* most chunks backward: each has its own sums */
    COLUMNS = 1024   /* of the parameters' gradients, added together */
};

typedef struct {
    const fnn_kernels *K;
    fnn_lines x, y, dy, dx;
    ptrdiff_t rows, n, block; /* block: rows a chunk */
    ptrdiff_t staged;         /* rows gathered at a time */
    size_t size;
    double eps;
    const void *weight, *bias;
    char *mean, *rstd; /* mean NULL: RMS */
    char *partials;    /* [2][chunks][n] */
    void *gradient[2];
} plan;

/* t as rows of its last `dims` axes, in logical order. */
static fnn_lines rows_of(const fnn_tensor *t, int dims) {
    fnn_lines rows = {.order = fnn_order_of(t), .data = t->data, .size = fnn_itemsize(t->dtype)};
    rows.n = fnn_span(t, t->rank - dims, t->rank);
    rows.rows = fnn_span(t, 0, t->rank - dims);
    rows.is_dense = fnn_order_is_dense(&rows.order);
    return rows;
}

static plan plan_of(const fnn_call *call, const fnn_tensor *x) {
    int dims = (int)call->attr.i[0];
    plan p = {
        .K = fnn_kernels_of(x->dtype), .size = fnn_itemsize(x->dtype), .x = rows_of(x, dims), .eps = call->attr.f[0]};
    p.rows = p.x.rows, p.n = p.x.n;
    p.staged = fnn_max(CHUNK / fnn_max(p.n, 1), 1);
    p.block = p.staged;
    return p;
}

static int check_dims(fnn_call *call, const fnn_tensor *x) {
    int64_t dims = call->attr.i[0];
    if (dims >= 1 && dims <= x->rank) return FNN_OK;
    return fnn_fail(call, FNN_VALUE_ERROR,
                    "attribute 'dims' is %lld, but must be 1 to the rank of x, whose shape is %s", (long long)dims,
                    fnn_shape_text(x));
}

static int check_parameter(fnn_call *call, const char *name, const fnn_tensor *t, const fnn_tensor *x) {
    if (!t) return FNN_OK;
    int dims = (int)call->attr.i[0], same = t->rank == dims;
    for (int d = 0; same && d < dims; d++) same = t->shape[d] == x->shape[x->rank - dims + d];
    if (same) return FNN_OK;
    return fnn_fail(call, FNN_VALUE_ERROR,
                    "argument '%s' has shape %s, but must have the last %d axes of x, whose shape is %s", name,
                    fnn_shape_text(t), dims, fnn_shape_text(x));
}

static int check_statistic(fnn_call *call, const char *name, const fnn_tensor *t, const fnn_tensor *x) {
    if (!t) return FNN_OK;
    int rank = x->rank - (int)call->attr.i[0], same = t->rank == rank;
    for (int d = 0; same && d < rank; d++) same = t->shape[d] == x->shape[d];
    if (same) return FNN_OK;
    return fnn_fail(call, FNN_VALUE_ERROR,
                    "argument '%s' has shape %s, but must have the first %d axes of x, whose shape is %s", name,
                    fnn_shape_text(t), rank, fnn_shape_text(x));
}

/* ---- forward ---- */

static int forward_infer_of(fnn_call *call, int statistics) {
    const fnn_tensor *x = call->in[0];
    int status = check_dims(call, x);
    if (!status) status = check_parameter(call, "weight", call->in[1], x);
    if (!status && statistics == 2) status = check_parameter(call, "bias", call->in[2], x);
    if (status) return status;
    fnn_set_alike(call->out[0], x->dtype, x);
    for (int k = 1; k <= statistics; k++)
        fnn_set_shape_contiguous(call->out[k], x->dtype, x->rank - (int)call->attr.i[0], x->shape);
    return FNN_OK;
}

static void forward_workspace(const fnn_call *call, fnn_workspace *ws) {
    plan p = plan_of(call, call->in[0]);
    p.y = rows_of(call->out[0], (int)call->attr.i[0]);
    for (int k = 1; k < 3; k++) ws->shared += fnn_stage_c_bytes(call->in[k]) + fnn_stage_c_bytes(call->out[k]);
    if (!p.x.is_dense || !p.y.is_dense) ws->scratch = (size_t)(p.staged * p.n) * p.size;
}

static void run_forward(void *context, ptrdiff_t chunk, void *scratch) {
    const plan *p = context;
    const ptrdiff_t from = chunk * p->block, rows = fnn_min(p->block, p->rows - from), at = from * (ptrdiff_t)p->size;
    const void *x = fnn_lines_read(&p->x, from, rows, scratch);
    void *y = fnn_lines_place(&p->y, from, scratch);
    p->K->layer_norm_rows(rows, p->n, p->eps, y, p->mean ? p->mean + at : NULL, p->rstd + at, x, p->weight, p->bias);
    fnn_lines_write(&p->y, from, rows, y);
}

/* y: (..., D); [mean,] rstd: (...); x: (..., D); weight[, bias]: (D) or NULL; D: the last `dims` axes. */
static int forward_run_of(fnn_call *call, int statistics) {
    plan p = plan_of(call, call->in[0]);
    char *at = call->shared;
    p.y = rows_of(call->out[0], (int)call->attr.i[0]);
    p.weight = fnn_stage_c_input(call->in[1], &at);
    if (statistics == 2) p.bias = fnn_stage_c_input(call->in[2], &at);
    if (statistics == 2) p.mean = fnn_stage_c_output(call->out[1], &at);
    p.rstd = fnn_stage_c_output(call->out[statistics], &at);
    fnn_parallel_for(call, fnn_ceil_div(p.rows, p.block), fnn_cost(call), run_forward, &p);
    if (statistics == 2) fnn_unstage_c_output(call->out[1], p.mean);
    fnn_unstage_c_output(call->out[statistics], p.rstd);
    return FNN_OK;
}

/* ---- backward ---- */

static plan backward_plan(const fnn_call *call) {
    plan p = plan_of(call, call->in[1]);
    int dims = (int)call->attr.i[0];
    p.block = fnn_max(p.block, fnn_ceil_div(p.rows, PARTIALS));
    p.dy = rows_of(call->in[0], dims);
    if (call->out[0]) p.dx = rows_of(call->out[0], dims);
    return p;
}

/* None where rows have no elements. */
static ptrdiff_t backward_chunks(const plan *p) { return p->n ? fnn_ceil_div(p->rows, p->block) : 0; }

/* in: dy, x[, mean], rstd, weight; out: dx, dweight[, dbias]. */
static int backward_infer_of(fnn_call *call, int statistics) {
    const fnn_tensor *dy = call->in[0], *x = call->in[1];
    int status = check_dims(call, x);
    if (!status && !fnn_same_shape(dy, x))
        status = fnn_fail(call, FNN_VALUE_ERROR, "arguments 'dy' %s and 'x' %s must have one shape", fnn_shape_text(dy),
                          fnn_shape_text(x));
    if (!status && statistics == 2) status = check_statistic(call, "mean", call->in[2], x);
    if (!status) status = check_statistic(call, "rstd", call->in[1 + statistics], x);
    if (!status) status = check_parameter(call, "weight", call->in[2 + statistics], x);
    if (status) return status;
    int dims = (int)call->attr.i[0];
    if (call->out[0]) fnn_set_alike(call->out[0], x->dtype, x);
    for (int k = 1; k <= statistics; k++)
        if (call->out[k]) fnn_set_shape_contiguous(call->out[k], x->dtype, dims, x->shape + x->rank - dims);
    return FNN_OK;
}

static size_t block_bytes(const plan *p) { return fnn_whole_lines((size_t)(p->staged * p->n) * p->size); }

static void backward_workspace(const fnn_call *call, fnn_workspace *ws) {
    plan p = backward_plan(call);
    for (int k = 1; k < 3; k++) ws->shared += fnn_stage_c_bytes(call->out[k]);
    for (int k = 2; k < 5; k++) ws->shared += fnn_stage_c_bytes(call->in[k]);
    ws->shared += 2 * (size_t)(backward_chunks(&p) * p.n) * p.size;
    ws->scratch = (!p.dy.is_dense + (size_t)!p.x.is_dense + (call->out[0] && !p.dx.is_dense)) * block_bytes(&p);
}

/* One chunk's rows, `staged` at a time; its sums start from 0. */
static void run_backward(void *context, ptrdiff_t chunk, void *scratch) {
    const plan *p = context;
    const ptrdiff_t first = chunk * p->block, end = fnn_min(first + p->block, p->rows), row = p->n * (ptrdiff_t)p->size;
    char *sums[2] = {NULL, NULL};
    for (int k = 0; k < 2; k++)
        if (p->gradient[k]) {
            sums[k] = p->partials + (k * backward_chunks(p) + chunk) * row;
            memset(sums[k], 0, (size_t)row);
        }
    for (ptrdiff_t from = first, rows; from < end; from += rows) {
        char *at = scratch;
        rows = fnn_min(p->staged, end - from);
        const void *dy = fnn_lines_read(&p->dy, from, rows, at);
        at += p->dy.is_dense ? 0 : block_bytes(p);
        const void *x = fnn_lines_read(&p->x, from, rows, at);
        at += p->x.is_dense ? 0 : block_bytes(p);
        void *dx = p->dx.data ? fnn_lines_place(&p->dx, from, at) : NULL;
        const ptrdiff_t s = from * (ptrdiff_t)p->size;
        p->K->layer_norm_backward_rows(rows, p->n, dy, x, p->mean ? p->mean + s : NULL, p->rstd + s, p->weight, dx,
                                       sums[0], sums[1]);
        if (dx) fnn_lines_write(&p->dx, from, rows, dx);
    }
}

static void run_sum(void *context, ptrdiff_t chunk, void *scratch) {
    const plan *p = context;
    const ptrdiff_t from = chunk * COLUMNS, columns = fnn_min(COLUMNS, p->n - from), chunks = backward_chunks(p);
    (void)scratch;
    for (int k = 0; k < 2; k++)
        if (p->gradient[k])
            p->K->sum_columns(chunks, columns, p->partials + (k * chunks * p->n + from) * (ptrdiff_t)p->size, p->n, 1,
                              FNN_ONLY_PART, NULL, (char *)p->gradient[k] + from * (ptrdiff_t)p->size);
}

static int backward_run_of(fnn_call *call, int statistics) {
    plan p = backward_plan(call);
    char *at = call->shared;
    if (statistics == 2) p.mean = fnn_stage_c_input(call->in[2], &at);
    p.rstd = fnn_stage_c_input(call->in[1 + statistics], &at);
    p.weight = fnn_stage_c_input(call->in[2 + statistics], &at);
    for (int k = 0; k < statistics; k++) p.gradient[k] = fnn_stage_c_output(call->out[1 + k], &at);
    p.partials = at;
    const ptrdiff_t chunks = backward_chunks(&p);
    fnn_parallel_for(call, chunks, fnn_cost(call), run_backward, &p);
    for (int k = 0; k < 2; k++)
        if (p.gradient[k] && chunks == 0) memset(p.gradient[k], 0, (size_t)p.n * p.size);
    if (chunks && (p.gradient[0] || p.gradient[1]))
        fnn_parallel_for(call, fnn_ceil_div(p.n, COLUMNS), 0.2 * (double)(chunks * p.n), run_sum, &p);
    for (int k = 0; k < statistics; k++) fnn_unstage_c_output(call->out[1 + k], p.gradient[k]);
    return FNN_OK;
}

#define DRIVERS(name, statistics)                                                                                      \
    static int name##_forward_infer(fnn_call *call) { return forward_infer_of(call, statistics); }                     \
    static int name##_forward_run(fnn_call *call) { return forward_run_of(call, statistics); }                         \
    static int name##_backward_infer(fnn_call *call) { return backward_infer_of(call, statistics); }                   \
    static int name##_backward_run(fnn_call *call) { return backward_run_of(call, statistics); }                       \
    const fnn_driver fnn_##name##_forward = {                                                                          \
        .infer = name##_forward_infer, .workspace = forward_workspace, .run = name##_forward_run};                     \
    const fnn_driver fnn_##name##_backward = {                                                                         \
        .infer = name##_backward_infer, .workspace = backward_workspace, .run = name##_backward_run};
DRIVERS(layer_norm, 2)
DRIVERS(rms_norm, 1)

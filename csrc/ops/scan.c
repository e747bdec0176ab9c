/* scan.c: running sums, products and extrema along any axis, products of whole lines, and gradients. One chunk walks whole lines;
 * lines that are not dense are gathered and scattered block by block. */
#include "nest.h"
#include "order.h"
#include "slices.h"

enum { CHUNK = 8192 /* elements, at least one line */ };

typedef struct {
    const fnn_call *call;
    const fnn_kernels *K;
    fnn_lines in[2], out[2];
    int inputs, outputs;
    ptrdiff_t block;              /* lines a chunk */
    ptrdiff_t in_at[2], out_at[2]; /* where lines lie in scratch */
    ptrdiff_t bytes;              /* of scratch */
} plan;

static ptrdiff_t reserve(plan *p, const fnn_lines *lines) {
    const ptrdiff_t at = p->bytes;
    p->bytes += (ptrdiff_t)fnn_lines_bytes(lines, p->block);
    return at;
}

/* Of a product whose axis is gone, lines of one element. */
static fnn_lines output_lines(const fnn_call *call, int k, int axis) {
    if (call->out[k]->rank == call->in[0]->rank) return fnn_lines_of(call->out[k], axis);
    fnn_tensor y = *call->out[k];
    for (int d = y.rank++; d > axis; d--) y.shape[d] = y.shape[d - 1], y.stride[d] = y.stride[d - 1];
    y.shape[axis] = 1, y.stride[axis] = 0;
    return fnn_lines_of(&y, axis);
}

/* The line's length is that of the last input, which is x. */
static void make_plan(const fnn_call *call, plan *p) {
    const int axis = (int)call->attr.i[0];
    *p = (plan){.call = call, .inputs = call->in[1] ? 2 : 1, .outputs = call->out[1] ? 2 : 1};
    for (int k = 0; k < p->inputs; k++) p->in[k] = fnn_lines_of(call->in[k], axis);
    for (int k = 0; k < p->outputs; k++) p->out[k] = output_lines(call, k, axis);
    p->block = fnn_max(CHUNK / fnn_max(p->in[p->inputs - 1].n, 1), 1);
    for (int k = 0; k < p->inputs; k++) p->in_at[k] = reserve(p, &p->in[k]);
    for (int k = 0; k < p->outputs; k++) p->out_at[k] = reserve(p, &p->out[k]);
}

static void workspace(const fnn_call *call, fnn_workspace *ws) {
    plan p;
    if (fnn_numel(call->out[0]) == 0) return; /* however long the axis is */
    make_plan(call, &p);
    ws->scratch = (size_t)p.bytes;
}

/* Integers are counted in 64 bits and wrap around. */
static void scan_integers(ptrdiff_t rows, ptrdiff_t n, const uint64_t *x, int op, int reverse, uint64_t *y) {
    for (ptrdiff_t r = 0; r < rows; r++, x += n, y += op == FNN_OP_prod ? 1 : n) {
        uint64_t total = op == FNN_OP_cumsum ? 0 : 1;
        for (ptrdiff_t i = 0; i < n; i++) {
            const ptrdiff_t at = reverse ? n - 1 - i : i;
            total = op == FNN_OP_cumsum ? total + x[at] : total * x[at];
            if (op != FNN_OP_prod) y[at] = total;
        }
        if (op == FNN_OP_prod) *y = total;
    }
}

/* As cummax_rows_kernel (kernels/scan.h). */
static void extrema_of_integers(ptrdiff_t rows, ptrdiff_t n, const int64_t *x, int smallest, int64_t *y, int64_t *index) {
    for (ptrdiff_t r = 0; r < rows; r++, x += n, y += n, index += n) {
        ptrdiff_t best = 0;
        for (ptrdiff_t i = 0; i < n; i++) {
            if (smallest ? x[i] <= x[best] : x[i] >= x[best]) best = i;
            y[i] = x[best];
            index[i] = best;
        }
    }
}

static void compute(const plan *p, ptrdiff_t rows, const void *const *in, void *const *out) {
    const int option = (int)p->call->attr.i[1];
    const ptrdiff_t n = p->in[p->inputs - 1].n;
    if (p->call->in[0]->dtype == FNN_INT64) {
        if (p->call->op == FNN_OP_cummax) extrema_of_integers(rows, n, in[0], option, out[0], out[1]);
        else scan_integers(rows, n, in[0], p->call->op, option, out[0]);
        return;
    }
    switch (p->call->op) {
    case FNN_OP_cumsum: p->K->cumsum_rows(rows, n, in[0], option, out[0]); return;
    case FNN_OP_cumprod: p->K->cumprod_rows(rows, n, in[0], out[0]); return;
    case FNN_OP_prod: p->K->prod_rows(rows, n, in[0], out[0]); return;
    case FNN_OP_cumprod_backward: p->K->cumprod_backward_rows(rows, n, in[0], in[1], 0, out[0]); return;
    case FNN_OP_prod_backward: p->K->cumprod_backward_rows(rows, n, in[0], in[1], 1, out[0]); return;
    case FNN_OP_cummax: p->K->cummax_rows(rows, n, in[0], option, out[0], out[1]); return;
    }
}

static void run_chunk(void *context, ptrdiff_t chunk, void *scratch) {
    const plan *p = context;
    const ptrdiff_t from = chunk * p->block, rows = fnn_min(p->block, p->in[0].rows - from);
    const void *in[2];
    void *out[2];
    for (int k = 0; k < p->inputs; k++) in[k] = fnn_lines_read(&p->in[k], from, rows, (char *)scratch + p->in_at[k]);
    for (int k = 0; k < p->outputs; k++) out[k] = fnn_lines_place(&p->out[k], from, (char *)scratch + p->out_at[k]);
    compute(p, rows, in, out);
    for (int k = 0; k < p->outputs; k++) fnn_lines_write(&p->out[k], from, rows, out[k]);
}

/* ---- products of lines whose neighbours lie side by side ---- */

typedef struct {
    fnn_nest nest;     /* of the lines: y, and x where a line begins */
    ptrdiff_t n, step; /* a line's elements, and from one to the next */
    ptrdiff_t units;   /* lines a chunk */
    const fnn_kernels *K;
} columns_plan;

/* Whether x is to be multiplied down its columns. */
static int plan_columns(const fnn_call *call, columns_plan *p) {
    const fnn_tensor *x = call->in[0];
    const int axis = (int)call->attr.i[0];
    if (call->op != FNN_OP_prod || x->dtype == FNN_INT64 || x->rank < 2 || x->stride[axis] == 1 || fnn_numel(x) == 0) return 0;
    const fnn_tensor from = fnn_slice_of(x, axis), to = call->attr.i[1] ? fnn_slice_of(call->out[0], axis) : *call->out[0];
    const fnn_tensor *operands[] = {&to, &from};
    fnn_nest_build(&p->nest, operands, 2);
    const int last = p->nest.rank - 1;
    p->n = x->shape[axis], p->step = x->stride[axis];
    p->units = fnn_round_up(fnn_max(CHUNK / p->n, 1), FNN_PROD_COLUMNS);
    p->K = fnn_kernels_of(x->dtype);
    return p->nest.stride[0][last] == 1 && p->nest.stride[1][last] == 1 && p->nest.shape[last] >= 8;
}

static void run_columns(void *context, ptrdiff_t chunk, void *scratch) {
    const columns_plan *p = context;
    const ptrdiff_t end = fnn_min((chunk + 1) * p->units, p->nest.size);
    char *at[FNN_MAX_ARGS];
    (void)scratch;
    for (ptrdiff_t u = chunk * p->units, n; u < end; u += n) {
        n = fnn_min(fnn_nest_run(&p->nest, u, end, at), FNN_PROD_COLUMNS);
        p->K->prod_columns(p->n, n, at[1], p->step, at[0]);
    }
}

static double cost(const fnn_call *call) {
    if (call->op == FNN_OP_prod) return 0.3 * (double)fnn_numel(call->in[0]) + 100;
    return 1.5 * (double)fnn_numel(call->in[call->in[1] ? 1 : 0]) + 100;
}

static int run(fnn_call *call) {
    plan p;
    columns_plan columns;
    if (fnn_numel(call->out[0]) == 0) return FNN_OK;
    if (plan_columns(call, &columns)) {
        fnn_parallel_for(call, fnn_ceil_div(columns.nest.size, columns.units), cost(call), run_columns, &columns);
        return FNN_OK;
    }
    make_plan(call, &p);
    /* int64 is not the kernels' work, but the table has no row for it. */
    p.K = fnn_kernels_of(call->in[0]->dtype == FNN_INT64 ? FNN_FLOAT64 : call->in[0]->dtype);
    fnn_parallel_for(call, fnn_ceil_div(p.in[0].rows, p.block), cost(call), run_chunk, &p);
    return FNN_OK;
}

static int scan_infer(fnn_call *call) {
    int status = fnn_check_axis(call, call->in[0]);
    if (!status) status = fnn_check_summable(call, call->in[0]);
    if (!status) fnn_set_alike(call->out[0], call->in[0]->dtype, call->in[0]);
    return status;
}

static int cummax_infer(fnn_call *call) {
    const fnn_tensor *x = call->in[0];
    int status = fnn_check_axis(call, x);
    if (!status) status = fnn_check_summable(call, x);
    if (status) return status;
    fnn_set_alike(call->out[0], x->dtype, x);
    fnn_set_alike(call->out[1], FNN_INT64, x);
    return FNN_OK;
}

/* The shape of x with one element along the axis. */
static fnn_tensor whole_lines(const fnn_tensor *x, int64_t axis) {
    fnn_tensor y = *x;
    if (x->rank) y.shape[axis] = 1;
    return y;
}

static int prod_infer(fnn_call *call) {
    int status = fnn_check_axis(call, call->in[0]);
    if (!status) status = fnn_check_summable(call, call->in[0]);
    if (status) return status;
    const fnn_tensor y = call->attr.i[1] ? whole_lines(call->in[0], call->attr.i[0]) : fnn_slice_of(call->in[0], (int)call->attr.i[0]);
    fnn_set_shape(call->out[0], y.dtype, y.rank, y.shape);
    return FNN_OK;
}

static int backward_infer(fnn_call *call) {
    const fnn_tensor *dy = call->in[0], *x = call->in[1];
    int status = fnn_check_axis(call, x);
    if (status) return status;
    const fnn_tensor want = call->op == FNN_OP_prod_backward ? whole_lines(x, call->attr.i[0]) : *x;
    if (!fnn_same_shape(dy, &want))
        return fnn_fail(call, FNN_VALUE_ERROR, "argument 'dy' has shape %s, but x %s needs %s", fnn_shape_text(dy),
                        fnn_shape_text(x), fnn_shape_text(&want));
    fnn_set_alike(call->out[0], x->dtype, x);
    return FNN_OK;
}

/* y: running sums of x along `axis` */
const fnn_driver fnn_cumsum = {.infer = scan_infer, .workspace = workspace, .cost = cost, .run = run};
/* y: running products of x along `axis` */
const fnn_driver fnn_cumprod = {.infer = scan_infer, .workspace = workspace, .cost = cost, .run = run};
/* dx, dy, x: one shape */
const fnn_driver fnn_cumprod_backward = {.infer = backward_infer, .workspace = workspace, .cost = cost, .run = run};
/* y: products of x along `axis`, which stays with one element or goes */
const fnn_driver fnn_prod = {.infer = prod_infer, .workspace = workspace, .cost = cost, .run = run};
/* dx, x: one shape; dy: with one element along `axis` */
const fnn_driver fnn_prod_backward = {.infer = backward_infer, .workspace = workspace, .cost = cost, .run = run};
/* y, indices: the shape of x */
const fnn_driver fnn_cummax = {.infer = cummax_infer, .workspace = workspace, .cost = cost, .run = run};

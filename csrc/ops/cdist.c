/* cdist.c: Euclidean distances of all rows of one matrix from all rows of another, without the differences as a tensor between.
 *
 * A chunk is some rows of the first matrix and as many of the second as the second-level cache holds; backward, where a row's
 * gradient sums over all of the second, some rows of the first. */
#include "../fastnn.h"
#include "stage.h"

#include <string.h>

enum {
    ROWS = 16,      /* of the first matrix: each row of the second that comes into the first-level cache serves them all */
    HELD = 1 << 16, /* bytes of the second at a time */
    MANY = 1 << 18  /* bytes of the second that a chunk goes through */
};

typedef struct {
    const fnn_kernels *K;
    int dtype;
    ptrdiff_t rows, others, n;     /* N, M, D */
    ptrdiff_t row_chunks, columns, column_chunks;
    ptrdiff_t w_batch, w_row, w_step; /* steps of w */
    const char *x1, *x2, *w;
    char *y;
} plan;

static plan plan_of(const fnn_tensor *x1, const fnn_tensor *x2) {
    plan p = {.K = fnn_kernels_of(x1->dtype), .dtype = x1->dtype, .rows = x1->shape[1], .others = x2->shape[1], .n = x1->shape[2]};
    p.row_chunks = fnn_ceil_div(p.rows, ROWS);
    p.columns = fnn_max(MANY / (fnn_max(p.n, 1) * (ptrdiff_t)fnn_itemsize(p.dtype)), 16);
    p.column_chunks = fnn_ceil_div(p.others, p.columns);
    return p;
}

static int check(fnn_call *call, const fnn_tensor *x1, const fnn_tensor *x2) {
    if (x1->rank == 3 && x2->rank == 3 && x1->dtype == x2->dtype && x1->shape[0] == x2->shape[0] && x1->shape[2] == x2->shape[2])
        return FNN_OK;
    return fnn_fail(call, FNN_VALUE_ERROR, "x1 is %s %s and x2 %s %s, but they must be (B, N, D) and (B, M, D) of one type",
                    fnn_dtype_name(x1->dtype), fnn_shape_text(x1), fnn_dtype_name(x2->dtype), fnn_shape_text(x2));
}

static int forward_infer(fnn_call *call) {
    const fnn_tensor *x1 = call->in[0], *x2 = call->in[1];
    int status = check(call, x1, x2);
    if (!status) fnn_set_shape(call->out[0], x1->dtype, 3, (ptrdiff_t[]){x1->shape[0], x1->shape[1], x2->shape[1]});
    return status;
}

static void workspace(const fnn_call *call, fnn_workspace *ws) {
    const int first = call->op == FNN_OP_cdist_backward;
    ws->shared = fnn_stage_c_bytes(call->in[first]) + fnn_stage_c_bytes(call->in[first + 1]) + fnn_stage_c_bytes(call->out[0]);
}

static double cost(const fnn_call *call) {
    const int first = call->op == FNN_OP_cdist_backward;
    return 0.06 * (double)fnn_numel(call->in[first]) * (double)call->in[first + 1]->shape[1];
}

static void run_forward(void *context, ptrdiff_t chunk, void *scratch) {
    const plan *p = context;
    const ptrdiff_t column = chunk % p->column_chunks * p->columns, b = chunk / p->column_chunks / p->row_chunks;
    const ptrdiff_t row = chunk / p->column_chunks % p->row_chunks * ROWS, end = fnn_min(column + p->columns, p->others);
    const ptrdiff_t held = fnn_max(HELD / (fnn_max(p->n, 1) * (ptrdiff_t)fnn_itemsize(p->dtype)), 4) & ~(ptrdiff_t)3;
    (void)scratch;
    for (ptrdiff_t j = column; j < end; j += held)
        for (ptrdiff_t i = b * p->rows + row, last = b * p->rows + fnn_min(row + ROWS, p->rows); i < last; i += 2)
            p->K->cdist(fnn_min(2, last - i), fnn_min(held, end - j), p->n, fnn_at(p->x1, i * p->n, p->dtype),
                        fnn_at(p->x2, (b * p->others + j) * p->n, p->dtype), fnn_at(p->y, i * p->others + j, p->dtype),
                        p->others);
}

/* y: (B, N, M); x1: (B, N, D); x2: (B, M, D) */
static int forward_run(fnn_call *call) {
    const fnn_tensor *x1 = call->in[0], *x2 = call->in[1];
    char *at = call->shared;
    plan p = plan_of(x1, x2);
    if (fnn_numel(call->out[0]) == 0) return FNN_OK;
    p.x1 = fnn_stage_c_input(x1, &at), p.x2 = fnn_stage_c_input(x2, &at);
    p.y = fnn_stage_c_output(call->out[0], &at);
    fnn_parallel_for(call, x1->shape[0] * p.row_chunks * p.column_chunks, cost(call), run_forward, &p);
    fnn_unstage_c_output(call->out[0], p.y);
    return FNN_OK;
}

const fnn_driver fnn_cdist_forward = {.infer = forward_infer, .workspace = workspace, .cost = cost, .run = forward_run};

static int backward_infer(fnn_call *call) {
    const fnn_tensor *w = call->in[0], *x1 = call->in[1], *x2 = call->in[2];
    int status = check(call, x1, x2);
    if (status) return status;
    if (w->rank != 3 || w->dtype != x1->dtype || w->shape[0] != x1->shape[0] || w->shape[1] != x1->shape[1] ||
        w->shape[2] != x2->shape[1])
        return fnn_fail(call, FNN_VALUE_ERROR, "w is %s %s, but must be %s (B, N, M) for x1 %s and x2 %s", fnn_dtype_name(w->dtype),
                        fnn_shape_text(w), fnn_dtype_name(x1->dtype), fnn_shape_text(x1), fnn_shape_text(x2));
    fnn_set_shape(call->out[0], x1->dtype, 3, x1->shape);
    return FNN_OK;
}

static void run_backward(void *context, ptrdiff_t chunk, void *scratch) {
    const plan *p = context;
    const ptrdiff_t b = chunk / p->row_chunks, row = chunk % p->row_chunks * ROWS, end = fnn_min(row + ROWS, p->rows);
    const ptrdiff_t held = fnn_max(HELD / (fnn_max(p->n, 1) * (ptrdiff_t)fnn_itemsize(p->dtype)), 4);
    (void)scratch;
    memset(fnn_at(p->y, (b * p->rows + row) * p->n, p->dtype), 0, (size_t)((end - row) * p->n) * fnn_itemsize(p->dtype));
    for (ptrdiff_t j = 0; j < p->others; j += held)
        for (ptrdiff_t i = row; i < end; i++)
            p->K->cdist_backward(fnn_min(held, p->others - j), p->n,
                                 fnn_at(p->w, b * p->w_batch + i * p->w_row + j * p->w_step, p->dtype), p->w_step,
                                 fnn_at(p->x1, (b * p->rows + i) * p->n, p->dtype),
                                 fnn_at(p->x2, (b * p->others + j) * p->n, p->dtype), fnn_at(p->y, (b * p->rows + i) * p->n, p->dtype));
}

/* dx1[b, i] = the sum over j of w[b, i, j] (x1[b, i] - x2[b, j]); w: (B, N, M), any strides */
static int backward_run(fnn_call *call) {
    const fnn_tensor *w = call->in[0], *x1 = call->in[1], *x2 = call->in[2];
    char *at = call->shared;
    plan p = plan_of(x1, x2);
    if (fnn_numel(call->out[0]) == 0) return FNN_OK;
    p.w = w->data, p.w_batch = w->stride[0], p.w_row = w->stride[1], p.w_step = w->stride[2];
    p.x1 = fnn_stage_c_input(x1, &at), p.x2 = fnn_stage_c_input(x2, &at);
    p.y = fnn_stage_c_output(call->out[0], &at);
    fnn_parallel_for(call, x1->shape[0] * p.row_chunks, cost(call), run_backward, &p);
    fnn_unstage_c_output(call->out[0], p.y);
    return FNN_OK;
}

const fnn_driver fnn_cdist_backward = {.infer = backward_infer, .workspace = workspace, .cost = cost, .run = backward_run};

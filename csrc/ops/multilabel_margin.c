/* multilabel_margin.c: hinge losses of rows of scores with any number of labels. Labels are read and checked before anything is
 * written; a chunk is some rows. */
#include "order.h"
#include "stage.h"

#include <stdio.h>

enum { CHUNK = 4096 /* scores */, REDUCE_NONE = 0, REDUCE_MEAN = 1, REDUCE_SUM = 2 };

typedef struct {
    const fnn_kernels *K;
    int dtype, reduction;
    ptrdiff_t rows, n, block; /* rows a chunk */
    const char *x;
    char *dx, *losses;        /* losses: (rows) dense; backward: dloss */
    int64_t *label;           /* (rows, n) */
} plan;

static int check(fnn_call *call, const fnn_tensor *x, const fnn_tensor *target) {
    const int64_t reduction = call->attr.i[0];
    if (x->rank < 1 || x->rank > 2 || !fnn_same_shape(x, target))
        return fnn_fail(call, FNN_VALUE_ERROR, "x has shape %s and target %s, but both must be (N, C) or (C,)", fnn_shape_text(x),
                        fnn_shape_text(target));
    if (x->shape[x->rank - 1] == 0)
        return fnn_fail(call, FNN_VALUE_ERROR, "x has shape %s: it has no classes", fnn_shape_text(x));
    if (reduction < REDUCE_NONE || reduction > REDUCE_SUM)
        return fnn_fail(call, FNN_VALUE_ERROR, "reduction is %lld, but must be 0 (none), 1 (mean) or 2 (sum)",
                        (long long)reduction);
    return FNN_OK;
}

static void set_loss(fnn_tensor *loss, const fnn_call *call, const fnn_tensor *x) {
    fnn_set_shape(loss, x->dtype, call->attr.i[0] == REDUCE_NONE && x->rank == 2, x->shape);
}

/* Labels, x and what both passes share. */
static int make_plan(fnn_call *call, plan *p, const fnn_tensor *x, const fnn_tensor *target, char **at) {
    *p = (plan){.K = fnn_kernels_of(x->dtype), .dtype = x->dtype, .reduction = (int)call->attr.i[0],
                .rows = x->rank == 2 ? x->shape[0] : 1, .n = x->shape[x->rank - 1]};
    const fnn_order order = fnn_order_of(target);
    p->block = fnn_max(CHUNK / p->n, 1);
    p->label = fnn_take(at, (size_t)order.size * sizeof *p->label);
    p->losses = fnn_take(at, (size_t)p->rows * fnn_itemsize(p->dtype));
    fnn_order_gather(&order, target->data, sizeof *p->label, 0, order.size, p->label);
    char where[64] = "";
    for (ptrdiff_t i = 0; i < order.size; i++) {
        if (p->label[i] >= -1 && p->label[i] < p->n) continue;
        if (target->rank == 2) snprintf(where, sizeof where, "%td, ", i / p->n);
        return fnn_fail(call, FNN_INDEX_ERROR,
                        "target[%s%td] is %lld, but must be a class between 0 and %td, or -1 behind the last", where,
                        i % p->n, (long long)p->label[i], p->n - 1);
    }
    p->x = fnn_stage_input(x, at);
    return FNN_OK;
}

static void set_workspace(const fnn_tensor *x, fnn_workspace *ws) {
    const size_t size = fnn_itemsize(x->dtype), n = (size_t)x->shape[x->rank - 1], count = (size_t)fnn_numel(x);
    ws->shared = fnn_whole_lines(count * sizeof(int64_t)) + fnn_whole_lines(fnn_max((ptrdiff_t)(count / n), 1) * size) +
                 fnn_stage_bytes(x);
    ws->scratch = n * size;
}

/* As with four labels a row. */
static double cost_of(const fnn_tensor *x) { return 2.0 * (double)fnn_numel(x) + 100; }

/* ---- forward ---- */

static int forward_infer(fnn_call *call) {
    int status = check(call, call->in[0], call->in[1]);
    if (!status) set_loss(call->out[0], call, call->in[0]);
    return status;
}

static void forward_workspace(const fnn_call *call, fnn_workspace *ws) { set_workspace(call->in[0], ws); }
static double forward_cost(const fnn_call *call) { return cost_of(call->in[0]); }

static void run_forward(void *context, ptrdiff_t chunk, void *scratch) {
    const plan *p = context;
    for (ptrdiff_t r = chunk * p->block, end = fnn_min(r + p->block, p->rows); r < end; r++)
        p->K->multilabel_margin(p->n, fnn_at(p->x, r * p->n, p->dtype), p->label + r * p->n, fnn_at(p->losses, r, p->dtype),
                                scratch);
}

/* loss: () or (N); x, target: (N, C) or (C) */
static int forward_run(fnn_call *call) {
    const fnn_tensor *loss = call->out[0];
    char *at = call->shared;
    plan p;
    int status = make_plan(call, &p, call->in[0], call->in[1], &at);
    if (status) return status;
    fnn_parallel_for(call, fnn_ceil_div(p.rows, p.block), cost_of(call->in[0]), run_forward, &p);
    if (loss->rank) fnn_move_strided(loss->data, loss->stride[0], p.losses, 1, p.rows, fnn_itemsize(p.dtype));
    else p.K->divided_sum(p.rows, p.losses, p.reduction == REDUCE_MEAN ? (double)p.rows : 1, loss->data);
    return FNN_OK;
}

const fnn_driver fnn_multilabel_margin_forward = {
    .infer = forward_infer, .workspace = forward_workspace, .cost = forward_cost, .run = forward_run};

/* ---- backward ---- */

static int backward_infer(fnn_call *call) {
    const fnn_tensor *dloss = call->in[0], *x = call->in[1];
    int status = check(call, x, call->in[2]);
    if (status) return status;
    fnn_tensor loss = {0};
    set_loss(&loss, call, x);
    if (!fnn_same_shape(dloss, &loss))
        return fnn_fail(call, FNN_VALUE_ERROR, "dloss has shape %s, but the loss has %s", fnn_shape_text(dloss),
                        fnn_shape_text(&loss));
    fnn_set_like(call->out[0], x);
    return FNN_OK;
}

static void backward_workspace(const fnn_call *call, fnn_workspace *ws) {
    set_workspace(call->in[1], ws);
    ws->shared += fnn_stage_bytes(call->out[0]);
}

static double backward_cost(const fnn_call *call) { return 2 * cost_of(call->in[1]); }

static void run_backward(void *context, ptrdiff_t chunk, void *scratch) {
    const plan *p = context;
    for (ptrdiff_t r = chunk * p->block, end = fnn_min(r + p->block, p->rows); r < end; r++)
        p->K->multilabel_margin_backward(p->n, fnn_at(p->x, r * p->n, p->dtype), p->label + r * p->n,
                                         fnn_at(p->losses, r, p->dtype), p->reduction == REDUCE_MEAN ? (double)p->rows : 1,
                                         fnn_at(p->dx, r * p->n, p->dtype), scratch);
}

/* dx: as x; dloss: as the loss */
static int backward_run(fnn_call *call) {
    const fnn_tensor *dloss = call->in[0], *dx = call->out[0];
    char *at = call->shared;
    plan p;
    int status = make_plan(call, &p, call->in[1], call->in[2], &at);
    if (status) return status;
    p.dx = fnn_stage_output(dx, &at);
    fnn_move_strided(p.losses, 1, dloss->data, dloss->rank ? dloss->stride[0] : 0, p.rows, fnn_itemsize(p.dtype));
    fnn_parallel_for(call, fnn_ceil_div(p.rows, p.block), backward_cost(call), run_backward, &p);
    fnn_unstage_output(dx, p.dx);
    return FNN_OK;
}

const fnn_driver fnn_multilabel_margin_backward = {
    .infer = backward_infer, .workspace = backward_workspace, .cost = backward_cost, .run = backward_run};

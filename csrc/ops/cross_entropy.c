/* cross_entropy.c: softmax and cross-entropy in one, from logits, as PyTorch's cross_entropy defines it: labels or class
 * probabilities, class weights, weights of samples, an ignored label, label smoothing; and the labels' share of it, nll_loss, which
 * picks log-probabilities and reads no others.
 *
 * x is taken as rows of C logits, one per position (N, d1, ...) in canonical order. Labels are read and checked before
 * anything is written. Each chunk of rows makes its log-probabilities, losses and their partial sums while they are in
 * cache. */
#include "order.h"
#include "slices.h"

#include <stdio.h>
#include <string.h>

enum {
    CHUNK = 8192, /* logits */
    PICKS = 4096, /* positions a chunk, where one logit of each is read */
    REDUCE_NONE = 0,
    REDUCE_MEAN = 1,
    REDUCE_SUM = 2
};

typedef struct {
    const fnn_kernels *K;
    size_t size;              /* of a real */
    ptrdiff_t rows, n;        /* positions, classes */
    ptrdiff_t block, chunks;  /* rows a chunk */
    int reduction, has_labels;
    int stream;               /* logp or dx is written past the caches: nothing but labels' elements are read again */
    double smoothing;
    int64_t ignore_index;
    fnn_lines x, dx;           /* (rows, n) */
    fnn_lines target;          /* probabilities: (rows, n) */
    fnn_order labels;         /* or labels: (rows) */
    const fnn_tensor *target_tensor, *sample_weight;
    fnn_order samples, loss;  /* (rows): sample_weight, and loss or dloss */
    fnn_order positions;      /* nll_loss: class 0 of every position in x or dx */
    ptrdiff_t class_step;     /* from one class to the next */
    char *data;               /* x or dx */
    char *logp, *loss_data;   /* (rows, n) dense; loss or dloss */
    /* in shared memory */
    int64_t *label;           /* checked, -1 where ignored */
    int64_t *bad;             /* a chunk's first bad position, or -1 */
    char *weight;             /* (n) dense, or NULL */
    char *sums;               /* a chunk's losses added up, then all chunks' applied weights */
    char g[8];                /* backward: dloss over the mean's divisor, where one serves all rows */
} plan;

static char *at(const void *base, ptrdiff_t index, size_t size) { return (char *)base + index * (ptrdiff_t)size; }

/* ---- arguments ---- */

static int class_axis(const fnn_tensor *x) { return x->rank > 1; }

/* Whether t has x's shape without the class axis. */
static int is_per_position(const fnn_tensor *t, const fnn_tensor *x) {
    int axis = class_axis(x);
    if (t->rank != x->rank - 1) return 0;
    for (int d = 0; d < t->rank; d++)
        if (t->shape[d] != x->shape[d < axis ? d : d + 1]) return 0;
    return 1;
}

static int is_label(int dtype) { return dtype == FNN_INT64 || dtype == FNN_INT32 || dtype == FNN_UINT8; }

/* x: the logits, or for backward a stand-in with their shape. */
static int check_arguments(fnn_call *call, const fnn_tensor *x, const fnn_tensor *target, const fnn_tensor *weight,
                           const fnn_tensor *sample_weight) {
    int axis = class_axis(x);
    if (x->rank == 0)
        return fnn_fail(call, FNN_VALUE_ERROR, "x is 0-d, but must have shape (C,), (N, C) or (N, C, d1, ...)");
    if (is_label(target->dtype)) {
        if (!is_per_position(target, x))
            return fnn_fail(call, FNN_VALUE_ERROR,
                            "target has shape %s, but labels for x %s have its shape without axis %d",
                            fnn_shape_text(target), fnn_shape_text(x), axis);
    } else if (target->dtype != x->dtype) {
        return fnn_fail(call, FNN_TYPE_ERROR,
                        "target has dtype %s, but must be int64, int32 or uint8 (labels) or %s like x (probabilities)",
                        fnn_dtype_name(target->dtype), fnn_dtype_name(x->dtype));
    } else if (!fnn_same_shape(target, x)) {
        return fnn_fail(call, FNN_VALUE_ERROR, "target has shape %s, but probabilities for x have its shape %s",
                        fnn_shape_text(target), fnn_shape_text(x));
    }
    if (weight && (weight->rank != 1 || weight->shape[0] != x->shape[axis]))
        return fnn_fail(call, FNN_VALUE_ERROR, "weight has shape %s, but x %s has %td classes", fnn_shape_text(weight),
                        fnn_shape_text(x), x->shape[axis]);
    if (sample_weight && !is_per_position(sample_weight, x))
        return fnn_fail(call, FNN_VALUE_ERROR, "sample_weight has shape %s, but must have that of x %s without axis %d",
                        fnn_shape_text(sample_weight), fnn_shape_text(x), axis);
    if (call->attr.i[1] < REDUCE_NONE || call->attr.i[1] > REDUCE_SUM)
        return fnn_fail(call, FNN_VALUE_ERROR, "reduction is %lld, but must be 0 (none), 1 (mean) or 2 (sum)",
                        (long long)call->attr.i[1]);
    if (!(call->attr.f[0] >= 0 && call->attr.f[0] <= 1))
        return fnn_fail(call, FNN_VALUE_ERROR, "smoothing is %g, but must lie between 0 and 1", call->attr.f[0]);
    if (x->shape[axis] == 0)
        return fnn_fail(call, FNN_VALUE_ERROR, "x has shape %s: it has no classes", fnn_shape_text(x));
    return FNN_OK;
}

static void set_per_position(fnn_tensor *t, const fnn_tensor *x) {
    ptrdiff_t shape[FNN_MAX_RANK];
    int axis = class_axis(x), rank = 0;
    for (int d = 0; d < x->rank; d++)
        if (d != axis) shape[rank++] = x->shape[d];
    if (x->rank == 1) rank = 0;
    fnn_set_shape(t, x->dtype, rank, shape);
}

static void make_plan(const fnn_call *call, plan *p, const fnn_tensor *x, const fnn_tensor *target,
                      const fnn_tensor *sample_weight, const fnn_tensor *loss) {
    *p = (plan){.K = fnn_kernels_of(x->dtype), .size = fnn_itemsize(x->dtype), .ignore_index = call->attr.i[0],
                .reduction = (int)call->attr.i[1], .smoothing = call->attr.f[0], .target_tensor = target,
                .sample_weight = sample_weight};
    int axis = class_axis(x);
    p->x = p->dx = fnn_lines_of(x, axis);
    p->rows = p->x.rows, p->n = p->x.n;
    p->block = fnn_max(CHUNK / p->n, 1);
    p->chunks = fnn_ceil_div(p->rows, p->block);
    p->has_labels = is_label(target->dtype);
    p->stream = p->has_labels && p->smoothing == 0 && fnn_lines_stream(&p->x);
    if (p->has_labels) p->labels = fnn_order_of(target);
    else p->target = fnn_lines_of(target, axis);
    if (sample_weight) p->samples = fnn_order_of(sample_weight);
    p->loss = fnn_order_of(loss);
    p->loss_data = loss->data;
}

static size_t place_shared(plan *p, void *shared, int has_weight) {
    size_t used = 0;
    if (p->has_labels) {
        p->label = fnn_place(shared, &used, (size_t)p->rows * sizeof *p->label);
        p->bad = fnn_place(shared, &used, (size_t)p->chunks * sizeof *p->bad);
    }
    if (has_weight) p->weight = fnn_place(shared, &used, (size_t)p->n * p->size);
    p->sums = fnn_place(shared, &used, 2 * (size_t)p->chunks * p->size);
    return used;
}

/* ---- labels ---- */

/* Chunk: reads `block` labels of any integer type as int64. */
static void run_labels(void *context, ptrdiff_t chunk, void *scratch) {
    plan *p = context;
    ptrdiff_t from = chunk * p->block, rows = fnn_min(p->block, p->rows - from);
    int dtype = p->target_tensor->dtype;
    int64_t *label = p->label + from;
    void *raw = dtype == FNN_INT64 ? label : scratch;
    fnn_order_gather(&p->labels, p->target_tensor->data, fnn_itemsize(dtype), from, rows, raw);
    p->bad[chunk] = -1;
    for (ptrdiff_t r = rows - 1; r >= 0; r--) {
        int64_t c = dtype == FNN_INT64 ? label[r] : dtype == FNN_INT32 ? ((int32_t *)raw)[r] : ((uint8_t *)raw)[r];
        if (c == p->ignore_index) c = -1;
        else if (c < 0 || c >= p->n) p->bad[chunk] = from + r;
        label[r] = c;
    }
}

static int fail_label(fnn_call *call, const plan *p, ptrdiff_t position) {
    const fnn_tensor *t = p->target_tensor;
    ptrdiff_t index[FNN_MAX_RANK], rest = position;
    char where[128] = "";
    for (int d = t->rank - 1; d >= 0; d--) index[d] = rest % t->shape[d], rest /= t->shape[d];
    for (int d = 0, used = 0; d < t->rank && used < 100; d++)
        used += snprintf(where + used, sizeof where - (size_t)used, "%s%td", d ? ", " : "[", index[d]);
    return fnn_fail(call, FNN_INDEX_ERROR,
                    "target%s%s is %lld, but must be a class between 0 and %td, or ignore_index (%lld)", where,
                    t->rank ? "]" : "", (long long)p->label[position], p->n - 1, (long long)p->ignore_index);
}

/* Labels and class weights into shared memory. */
static int read_arguments(fnn_call *call, plan *p, const fnn_tensor *weight) {
    place_shared(p, call->shared, weight != NULL);
    if (weight) {
        fnn_order order = fnn_order_of(weight);
        fnn_order_gather(&order, weight->data, p->size, 0, p->n, p->weight);
    }
    if (!p->has_labels) return FNN_OK;
    fnn_parallel_for(call, p->chunks, (double)p->rows * 2, run_labels, p);
    for (ptrdiff_t c = 0; c < p->chunks; c++)
        if (p->bad[c] >= 0) return fail_label(call, p, p->bad[c]);
    return FNN_OK;
}

/* ---- one chunk of rows ---- */

typedef struct {
    char *x, *target, *sample_weight, *loss, *applied; /* dense, in scratch where needed */
} block_memory;

static size_t place_scratch(const plan *p, void *scratch, block_memory *m) {
    size_t used = 0, column = (size_t)p->block * p->size, block = column * (size_t)p->n;
    m->sample_weight = fnn_place(scratch, &used, column);
    m->loss = fnn_place(scratch, &used, column);
    m->applied = fnn_place(scratch, &used, column);
    m->x = fnn_place(scratch, &used, p->x.is_dense && p->dx.is_dense ? 0 : block);
    m->target = fnn_place(scratch, &used, p->has_labels || p->target.is_dense ? 0 : block);
    return used;
}

static const void *read_samples(const plan *p, const block_memory *m, ptrdiff_t from, ptrdiff_t rows) {
    if (!p->sample_weight) return NULL;
    fnn_order_gather(&p->samples, p->sample_weight->data, p->size, from, rows, m->sample_weight);
    return m->sample_weight;
}

/* A chunk's losses, each or added up, and the sum of the weights applied. */
static void put_losses(const plan *p, const block_memory *m, ptrdiff_t chunk, ptrdiff_t rows) {
    if (p->reduction == REDUCE_NONE) fnn_order_scatter(&p->loss, p->loss_data, p->size, chunk * p->block, rows, m->loss);
    else p->K->sum_rows(1, rows, m->loss, 0, at(p->sums, chunk, p->size));
    p->K->sum_rows(1, rows, m->applied, 0, at(p->sums, p->chunks + chunk, p->size));
}

static void run_forward(void *context, ptrdiff_t chunk, void *scratch) {
    const plan *p = context;
    const fnn_kernels *K = p->K;
    block_memory m;
    place_scratch(p, scratch, &m);
    ptrdiff_t from = chunk * p->block, rows = fnn_min(p->block, p->rows - from), n = p->n;
    char *logp = at(p->logp, from * n, p->size);
    const void *samples = read_samples(p, &m, from, rows);
    K->log_softmax_rows(rows, n, fnn_lines_read(&p->x, from, rows, m.x), logp, p->stream);
    if (p->has_labels) {
        K->label_loss(rows, n, logp, p->label + from, p->weight, samples, p->smoothing, m.loss, m.applied);
    } else {
        const void *target = fnn_lines_read(&p->target, from, rows, m.target);
        K->soft_loss(rows, n, logp, target, p->weight, samples, p->smoothing, m.loss, m.applied);
    }
    put_losses(p, &m, chunk, rows);
}

static void run_backward(void *context, ptrdiff_t chunk, void *scratch) {
    const plan *p = context;
    const fnn_kernels *K = p->K;
    block_memory m;
    place_scratch(p, scratch, &m);
    ptrdiff_t from = chunk * p->block, rows = fnn_min(p->block, p->rows - from), n = p->n;
    ptrdiff_t step = p->reduction == REDUCE_NONE;
    const char *logp = at(p->logp, from * n, p->size);
    const void *samples = read_samples(p, &m, from, rows), *g = p->g;
    char *dx = fnn_lines_place(&p->dx, from, m.x);
    if (step) fnn_order_gather(&p->loss, p->loss_data, p->size, from, rows, m.loss), g = m.loss;
    if (p->has_labels) {
        K->label_loss_backward(rows, n, g, step, logp, p->label + from, p->weight, samples, p->smoothing, p->stream, dx);
    } else {
        const void *target = fnn_lines_read(&p->target, from, rows, m.target);
        K->soft_loss_backward(rows, n, g, step, logp, target, p->weight, samples, p->smoothing, dx);
    }
    fnn_lines_write(&p->dx, from, rows, dx);
}

/* The loss, but for "none", and the sum of the weights applied, from all chunks' sums. */
static void reduce_chunks(const plan *p, void *loss, void *total) {
    p->K->sum_rows(1, p->chunks, at(p->sums, p->chunks, p->size), 0, total);
    if (p->reduction != REDUCE_NONE) p->K->sum_rows(1, p->chunks, p->sums, 0, loss);
    if (p->reduction == REDUCE_MEAN)
        p->K->div(1, &loss, (const void *const[]){loss, total}, (const ptrdiff_t[]){1, 1}, NULL);
}

/* dloss over the mean's divisor, where one serves all rows. */
static void share_gradient(plan *p, const void *total) {
    void *g = p->g;
    if (p->reduction == REDUCE_MEAN) p->K->div(1, &g, (const void *const[]){p->loss_data, total}, (const ptrdiff_t[]){1, 1}, NULL);
    else if (p->reduction == REDUCE_SUM) memcpy(g, p->loss_data, p->size);
}

/* ---- forward ---- */

static int cross_entropy_forward_infer(fnn_call *call) {
    const fnn_tensor *x = call->in[0];
    int status = check_arguments(call, x, call->in[1], call->in[2], call->in[3]);
    if (status) return status;
    ptrdiff_t classes = x->shape[class_axis(x)], shape[2] = {fnn_numel(x) / classes, classes};
    if (call->attr.i[1] == REDUCE_NONE) set_per_position(call->out[0], x);
    else fnn_set_shape(call->out[0], x->dtype, 0, NULL);
    if (call->out[1]->rank >= 0 && !fnn_is_contiguous(call->out[1]))
        return fnn_fail(call, FNN_VALUE_ERROR, "output 'logp' must be dense, in C order");
    fnn_set_shape(call->out[1], x->dtype, 2, shape);
    fnn_set_shape(call->out[2], x->dtype, 0, NULL);
    return FNN_OK;
}

static void forward_workspace(const fnn_call *call, fnn_workspace *ws) {
    plan p;
    block_memory m;
    make_plan(call, &p, call->in[0], call->in[1], call->in[3], call->out[0]);
    ws->shared = place_shared(&p, NULL, call->in[2] != NULL);
    ws->scratch = place_scratch(&p, NULL, &m) + (size_t)p.block * sizeof(int64_t);
}

static double forward_cost(const fnn_call *call) {
    return (double)fnn_numel(call->in[0]) * (double)fnn_itemsize(call->in[0]->dtype) * 0.25 + 200;
}

/* loss: () or per position; logp: (positions, C), for backward; total: (), the sum of the applied weights, by which the
 * mean divides; x: (N, C, d1, ...) or (C,); target: (N, d1, ...) labels or x's shape; weight: (C,);
 * sample_weight: (N, d1, ...) */
static int cross_entropy_forward_run(fnn_call *call) {
    plan p;
    make_plan(call, &p, call->in[0], call->in[1], call->in[3], call->out[0]);
    p.logp = call->out[1]->data;
    int status = read_arguments(call, &p, call->in[2]);
    if (status) return status;
    fnn_parallel_for(call, p.chunks, forward_cost(call), run_forward, &p);
    reduce_chunks(&p, call->out[0]->data, call->out[2]->data);
    return FNN_OK;
}

const fnn_driver fnn_cross_entropy_forward = {
    .infer = cross_entropy_forward_infer, .workspace = forward_workspace, .cost = forward_cost,
    .run = cross_entropy_forward_run};

/* ---- backward ---- */

/* The logits' shape from that of the labels, which lack the class axis. */
static void set_logits(fnn_tensor *x, int dtype, const fnn_tensor *target, ptrdiff_t classes) {
    ptrdiff_t shape[FNN_MAX_RANK];
    int rank = 0;
    for (int d = 0; d < target->rank && d < FNN_MAX_RANK - 1; d++) {
        if (d == 1) shape[rank++] = classes;
        shape[rank++] = target->shape[d];
    }
    if (target->rank < 2) shape[rank++] = classes;
    fnn_set_shape(x, dtype, rank, shape);
}

static int cross_entropy_backward_infer(fnn_call *call) {
    const fnn_tensor *dloss = call->in[0], *logp = call->in[1], *total = call->in[5];
    if (logp->rank != 2 || !fnn_is_contiguous(logp))
        return fnn_fail(call, FNN_VALUE_ERROR, "logp has shape %s, but must be (positions, C) as forward made it",
                        fnn_shape_text(logp));
    if (is_label(call->in[2]->dtype)) set_logits(call->out[0], logp->dtype, call->in[2], logp->shape[1]);
    else fnn_set_shape(call->out[0], logp->dtype, call->in[2]->rank, call->in[2]->shape);
    const fnn_tensor *x = call->out[0];
    int status = check_arguments(call, x, call->in[2], call->in[3], call->in[4]);
    if (status) return status;
    if (fnn_numel(x) != fnn_numel(logp) || x->shape[class_axis(x)] != logp->shape[1])
        return fnn_fail(call, FNN_VALUE_ERROR, "logp has shape %s, which does not fit target %s", fnn_shape_text(logp),
                        fnn_shape_text(call->in[2]));
    int none = call->attr.i[1] == REDUCE_NONE;
    if (total->rank || (none ? !is_per_position(dloss, x) : dloss->rank != 0))
        return fnn_fail(call, FNN_VALUE_ERROR, "dloss has shape %s and total %s, but must have those that forward made",
                        fnn_shape_text(dloss), fnn_shape_text(total));
    return FNN_OK;
}

static void plan_backward(const fnn_call *call, plan *p) {
    fnn_tensor *dx = call->out[0];
    make_plan(call, p, dx, call->in[2], call->in[4], call->in[0]);
    p->logp = call->in[1]->data;
}

static void backward_workspace(const fnn_call *call, fnn_workspace *ws) {
    plan p;
    block_memory m;
    plan_backward(call, &p);
    ws->shared = place_shared(&p, NULL, call->in[3] != NULL);
    ws->scratch = place_scratch(&p, NULL, &m) + (size_t)p.block * sizeof(int64_t);
}

static double backward_cost(const fnn_call *call) {
    return (double)fnn_numel(call->in[1]) * (double)fnn_itemsize(call->in[1]->dtype) * 0.2 + 200;
}

/* dx: the logits' shape; dloss: as loss; logp, total: from forward; target, weight, sample_weight: forward's */
static int cross_entropy_backward_run(fnn_call *call) {
    plan p;
    plan_backward(call, &p);
    int status = read_arguments(call, &p, call->in[3]);
    if (status) return status;
    share_gradient(&p, call->in[5]->data);
    fnn_parallel_for(call, p.chunks, backward_cost(call), run_backward, &p);
    return FNN_OK;
}

const fnn_driver fnn_cross_entropy_backward = {
    .infer = cross_entropy_backward_infer, .workspace = backward_workspace, .cost = backward_cost,
    .run = cross_entropy_backward_run};

/* ---- nll_loss ---- */

/* x: what is picked from, or the gradient of that. */
static void plan_picks(const fnn_call *call, plan *p, const fnn_tensor *x, const fnn_tensor *target, const fnn_tensor *loss) {
    const int axis = class_axis(x);
    const fnn_tensor positions = fnn_slice_of(x, axis);
    make_plan(call, p, x, target, NULL, loss);
    p->positions = fnn_order_of(&positions);
    p->class_step = x->stride[axis];
    p->data = x->data;
}

/* n positions, `step` apart, of which `dense` has what their labels pick. Where a label is ignored nothing is read and the buffer has
 * 0, and nothing is written. */
static void move_run(const plan *p, ptrdiff_t n, const int64_t *label, char *data, ptrdiff_t step, char *dense, int puts) {
#define MOVE(type)                                                                                                      \
    type *x = (type *)data, *picked = (type *)dense;                                                                    \
    if (puts) {                                                                                                         \
        for (ptrdiff_t j = 0; j < n; j++)                                                                               \
            if (label[j] >= 0) x[j * step + label[j] * p->class_step] = picked[j];                                      \
    } else {                                                                                                            \
        for (ptrdiff_t j = 0; j < n; j++) picked[j] = label[j] < 0 ? 0 : x[j * step + label[j] * p->class_step];        \
    }                                                                                                                   \
    return
    if (p->size == 4) { MOVE(uint32_t); }
    MOVE(uint64_t);
#undef MOVE
}

/* Between a dense buffer and the elements that the labels of positions from .. from + rows - 1 pick. */
static void move_picks(const plan *p, ptrdiff_t from, ptrdiff_t rows, char *dense, int puts) {
    const int last = p->positions.rank - 1;
    const ptrdiff_t columns = last < 0 ? 1 : p->positions.shape[last], step = last < 0 ? 0 : p->positions.stride[last];
    for (ptrdiff_t r = 0, n; r < rows; r += n) {
        const ptrdiff_t start = fnn_order_seek(&p->positions, from + r);
        n = fnn_min(columns - (from + r) % columns, rows - r);
        move_run(p, n, p->label + from + r, at(p->data, start, p->size), step, at(dense, r, p->size), puts);
    }
}

static void run_picks(void *context, ptrdiff_t chunk, void *scratch) {
    const plan *p = context;
    const ptrdiff_t from = chunk * p->block, rows = fnn_min(p->block, p->rows - from);
    const size_t column = fnn_whole_lines((size_t)p->block * p->size);
    char *picked = scratch;
    block_memory m = {.loss = picked + column, .applied = picked + 2 * column};
    move_picks(p, from, rows, picked, 0);
    p->K->nll_loss(rows, picked, p->label + from, p->weight, m.loss, m.applied);
    put_losses(p, &m, chunk, rows);
}

static int nll_loss_forward_infer(fnn_call *call) {
    const fnn_tensor *x = call->in[0];
    const int status = check_arguments(call, x, call->in[1], call->in[2], NULL);
    if (status) return status;
    if (call->attr.i[1] == REDUCE_NONE) set_per_position(call->out[0], x);
    else fnn_set_shape(call->out[0], x->dtype, 0, NULL);
    fnn_set_shape(call->out[1], x->dtype, 0, NULL);
    return FNN_OK;
}

static void plan_nll_forward(const fnn_call *call, plan *p) {
    plan_picks(call, p, call->in[0], call->in[1], call->out[0]);
    p->block = PICKS;
    p->chunks = fnn_ceil_div(p->rows, p->block);
}

static void nll_forward_workspace(const fnn_call *call, fnn_workspace *ws) {
    plan p;
    plan_nll_forward(call, &p);
    ws->shared = place_shared(&p, NULL, call->in[2] != NULL);
    ws->scratch = 3 * fnn_whole_lines((size_t)p.block * p.size);
}

static double nll_forward_cost(const fnn_call *call) { return 4 * (double)fnn_numel(call->in[1]) + 100; }

/* loss: () or per position; total: (), the sum of the applied weights, by which the mean divides; x: (N, C, d1, ...) or (C,);
 * target: (N, d1, ...); weight: (C,) */
static int nll_loss_forward_run(fnn_call *call) {
    plan p;
    plan_nll_forward(call, &p);
    const int status = read_arguments(call, &p, call->in[2]);
    if (status) return status;
    fnn_parallel_for(call, p.chunks, nll_forward_cost(call), run_picks, &p);
    reduce_chunks(&p, call->out[0]->data, call->out[1]->data);
    return FNN_OK;
}

const fnn_driver fnn_nll_loss_forward = {
    .infer = nll_loss_forward_infer, .workspace = nll_forward_workspace, .cost = nll_forward_cost, .run = nll_loss_forward_run};

static int nll_loss_backward_infer(fnn_call *call) {
    const fnn_tensor *dloss = call->in[0], *target = call->in[1], *total = call->in[3];
    fnn_tensor *dx = call->out[0];
    if (call->attr.i[2] < 1)
        return fnn_fail(call, FNN_VALUE_ERROR, "classes is %lld, but must be at least 1", (long long)call->attr.i[2]);
    set_logits(dx, dloss->dtype, target, (ptrdiff_t)call->attr.i[2]);
    const int status = check_arguments(call, dx, target, call->in[2], NULL);
    if (status) return status;
    if (total->rank || (call->attr.i[1] == REDUCE_NONE ? !is_per_position(dloss, dx) : dloss->rank != 0))
        return fnn_fail(call, FNN_VALUE_ERROR, "dloss has shape %s and total %s, but must have those that forward made",
                        fnn_shape_text(dloss), fnn_shape_text(total));
    return FNN_OK;
}

/* dloss of a chunk's positions, their elements' gradients, and where rows are not dense, rows of 0. */
static size_t place_gradients(const plan *p, void *scratch, char **dloss, char **dpicked, char **zeros) {
    size_t used = 0, column = (size_t)p->block * p->size;
    *dloss = fnn_place(scratch, &used, column);
    *dpicked = fnn_place(scratch, &used, column);
    *zeros = fnn_place(scratch, &used, p->dx.is_dense ? 0 : column * (size_t)p->n);
    return used;
}

static void nll_backward_workspace(const fnn_call *call, fnn_workspace *ws) {
    plan p;
    char *room;
    plan_picks(call, &p, call->out[0], call->in[1], call->in[0]);
    ws->shared = place_shared(&p, NULL, call->in[2] != NULL);
    ws->scratch = place_gradients(&p, NULL, &room, &room, &room);
}

static void run_nll_backward(void *context, ptrdiff_t chunk, void *scratch) {
    const plan *p = context;
    const ptrdiff_t from = chunk * p->block, rows = fnn_min(p->block, p->rows - from), step = p->reduction == REDUCE_NONE;
    char *dloss, *dpicked, *zeros;
    place_gradients(p, scratch, &dloss, &dpicked, &zeros);
    char *dx = fnn_lines_place(&p->dx, from, zeros);
    memset(dx, 0, (size_t)(rows * p->n) * p->size);
    fnn_lines_write(&p->dx, from, rows, dx);
    if (step) fnn_order_gather(&p->loss, p->loss_data, p->size, from, rows, dloss);
    p->K->nll_loss_backward(rows, step ? dloss : p->g, step, p->label + from, p->weight, dpicked);
    move_picks(p, from, rows, dpicked, 1);
}

static double nll_backward_cost(const fnn_call *call) {
    return 0.1 * (double)fnn_numel(call->out[0]) * (double)fnn_itemsize(call->out[0]->dtype) + 4 * (double)fnn_numel(call->in[1]);
}

/* dx: x's shape; dloss: as loss; total: from forward; target, weight: forward's */
static int nll_loss_backward_run(fnn_call *call) {
    plan p;
    plan_picks(call, &p, call->out[0], call->in[1], call->in[0]);
    const int status = read_arguments(call, &p, call->in[2]);
    if (status) return status;
    share_gradient(&p, call->in[3]->data);
    fnn_parallel_for(call, p.chunks, nll_backward_cost(call), run_nll_backward, &p);
    return FNN_OK;
}

const fnn_driver fnn_nll_loss_backward = {
    .infer = nll_loss_backward_infer, .workspace = nll_backward_workspace, .cost = nll_backward_cost, .run = nll_loss_backward_run};

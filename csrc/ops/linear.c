/* linear.c: y = x weight^T + bias and its gradients: three products of one family. */
#include "gemm.h"

/* A call's product, its result, and what had to be staged: the same reading of the call for cost, workspace and run. */
typedef struct {
    fnn_gemm g;
    fnn_tensor result;
    fnn_staging staging;
} task;

typedef void setup_function(const fnn_call *call, task *t);

static ptrdiff_t columns(const fnn_tensor *x) { return x->shape[x->rank - 1]; }
static ptrdiff_t rows(const fnn_tensor *x) { return fnn_span(x, 0, x->rank - 1); }

static void set_result(task *t, const fnn_call *call) {
    const fnn_tensor *y = call->out[0];
    if (call->follower) t->g.leader = call;
    t->result = fnn_result_of(&t->staging, y, 1);
    fnn_staging none = {.call = NULL};
    t->g.c = fnn_rows_of(&none, &t->result);
    t->g.dtype = y->dtype;
}

static double cost_of(const fnn_call *call, setup_function *setup) {
    task t = {.staging = {.call = NULL}};
    setup(call, &t);
    t.g.precision = call->precision;
    return fnn_gemm_cost(&t.g) + 0.5 * (double)t.staging.bytes;
}

static const char *algorithm_of(const fnn_call *call, setup_function *setup) {
    task t = {.staging = {.call = NULL}};
    setup(call, &t);
    t.g.precision = call->precision;
    return fnn_gemm_algorithm(&t.g);
}

static void workspace_of(const fnn_call *call, fnn_workspace *ws, setup_function *setup) {
    task t = {.staging = {.call = NULL}};
    setup(call, &t);
    t.g.precision = call->precision;
    ws->shared = t.staging.bytes;
    fnn_gemm_workspace(&t.g, ws);
}

static int run_of(fnn_call *call, setup_function *setup) {
    task t = {.staging = {.call = call, .at = call->shared}};
    setup(call, &t);
    t.g.precision = call->precision;
    fnn_gemm_run(call, &t.g, (char *)call->shared + t.staging.bytes);
    fnn_finish(call, call->out[0], &t.result);
    return FNN_OK;
}

static int can_pass(const fnn_call *call, setup_function *setup) {
    task t = {.staging = {.call = NULL}};
    setup(call, &t);
    t.g.precision = call->precision;
    return fnn_is_contiguous(call->out[0]) && fnn_gemm_can_pass(&t.g);
}

#define DRIVER(name)                                                                                                    \
    static double name##_cost(const fnn_call *call) { return cost_of(call, name##_setup); }                             \
    static void name##_workspace(const fnn_call *call, fnn_workspace *ws) { workspace_of(call, ws, name##_setup); }     \
    static int name##_run(fnn_call *call) { return run_of(call, name##_setup); }                                        \
    static const char *name##_algorithm(const fnn_call *call) { return algorithm_of(call, name##_setup); }              \
    static int name##_can_pass(const fnn_call *call) { return can_pass(call, name##_setup); }                           \
    const fnn_driver fnn_linear_##name = {.infer = name##_infer,                                                        \
                                          .workspace = name##_workspace,                                                \
                                          .cost = name##_cost,                                                          \
                                          .run = name##_run,                                                            \
                                          .algorithm = name##_algorithm,                                                \
                                          .can_pass = name##_can_pass};

static int check_weight(fnn_call *call, const fnn_tensor *weight) {
    if (weight->rank == 2) return FNN_OK;
    return fnn_fail(call, FNN_VALUE_ERROR, "argument 'weight' has shape %s, but must be (out_features, in_features)",
                    fnn_shape_text(weight));
}

/* x (..., from) must meet axis `axis` of weight; y becomes (..., to). */
static int infer_product(fnn_call *call, const char *name, int axis, const char *feature) {
    const fnn_tensor *x = call->in[0], *weight = call->in[1];
    int status = check_weight(call, weight);
    if (status) return status;
    if (x->rank < 1 || columns(x) != weight->shape[axis])
        return fnn_fail(call, FNN_VALUE_ERROR, "argument '%s' has shape %s, but its last axis must be %s = %td, as weight is %s",
                        name, fnn_shape_text(x), feature, weight->shape[axis], fnn_shape_text(weight));
    ptrdiff_t shape[FNN_MAX_RANK];
    for (int d = 0; d < x->rank; d++) shape[d] = x->shape[d];
    shape[x->rank - 1] = weight->shape[1 - axis];
    fnn_set_shape_contiguous(call->out[0], x->dtype, x->rank, shape);
    return FNN_OK;
}

static int forward_infer(fnn_call *call) {
    const fnn_tensor *weight = call->in[1], *bias = call->in[2];
    int status = infer_product(call, "x", 1, "in_features");
    if (!status && bias && (bias->rank != 1 || bias->shape[0] != weight->shape[0]))
        return fnn_fail(call, FNN_VALUE_ERROR, "argument 'bias' has shape %s, but must be (%td,), the out_features of weight %s",
                        fnn_shape_text(bias), weight->shape[0], fnn_shape_text(weight));
    return status;
}

/* y (..., out) = x (..., in) times weight (out, in) transposed, plus bias (out). Few rows: inner products, without packing. */
static void forward_setup(const fnn_call *call, task *t) {
    const fnn_tensor *x = call->in[0], *weight = call->in[1], *bias = call->in[2];
    t->g.M = rows(x), t->g.N = weight->shape[0], t->g.K = columns(x);
    t->g.a = fnn_rows_of(&t->staging, x);
    t->g.b = (fnn_matrix){.data = weight->data, .row = weight->stride[1], .col = weight->stride[0]};
    t->g.dot = 1;
    if (bias) t->g.epilogue.bias = fnn_vector_of(&t->staging, bias);
    t->g.epilogue.activation = call->activation;
    set_result(t, call);
}
DRIVER(forward)

static int backward_input_infer(fnn_call *call) { return infer_product(call, "dy", 0, "out_features"); }

/* dx (..., in) = dy (..., out) times weight (out, in). */
static void backward_input_setup(const fnn_call *call, task *t) {
    const fnn_tensor *dy = call->in[0], *weight = call->in[1];
    t->g.M = rows(dy), t->g.N = weight->shape[1], t->g.K = columns(dy);
    t->g.a = fnn_rows_of(&t->staging, dy);
    t->g.b = (fnn_matrix){.data = weight->data, .row = weight->stride[0], .col = weight->stride[1]};
    set_result(t, call);
}
DRIVER(backward_input)

static int backward_weight_infer(fnn_call *call) {
    const fnn_tensor *dy = call->in[0], *x = call->in[1];
    int same = dy->rank == x->rank && x->rank >= 1;
    for (int d = 0; same && d < x->rank - 1; d++) same = dy->shape[d] == x->shape[d];
    if (!same)
        return fnn_fail(call, FNN_VALUE_ERROR, "arguments 'dy' %s and 'x' %s must agree in all axes but the last",
                        fnn_shape_text(dy), fnn_shape_text(x));
    fnn_set_shape_contiguous(call->out[0], x->dtype, 2, (ptrdiff_t[]){columns(dy), columns(x)});
    return FNN_OK;
}

/* dweight (out, in) = dy (..., out) transposed times x (..., in), summed over all leading axes. */
static void backward_weight_setup(const fnn_call *call, task *t) {
    const fnn_tensor *dy = call->in[0], *x = call->in[1];
    t->g.M = columns(dy), t->g.N = columns(x), t->g.K = rows(x);
    t->g.b = fnn_rows_of(&t->staging, x);
    fnn_matrix by_rows = fnn_rows_of(&t->staging, dy);
    t->g.a = (fnn_matrix){.data = by_rows.data, .row = by_rows.col, .col = by_rows.row};
    set_result(t, call);
}
DRIVER(backward_weight)

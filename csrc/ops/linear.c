/* linear.c: y = x weight^T + bias and its gradients: three products of one family. */
#include "gemm.h"
#include "slices.h"

typedef void setup_function(const fnn_call *call, fnn_product *p);

static ptrdiff_t columns(const fnn_tensor *x) { return x->shape[x->rank - 1]; }
static ptrdiff_t rows(const fnn_tensor *x) { return fnn_span(x, 0, x->rank - 1); }

static void set_result(fnn_product *p, const fnn_call *call) {
    const fnn_tensor *y = call->out[0];
    if (call->follower) p->g.leader = call;
    p->result = fnn_result_of(&p->staging, y, 1);
    fnn_staging none = {.memory = NULL};
    p->g.c = fnn_rows_of(&none, &p->result);
    p->g.dtype = y->dtype;
}

/* memory: where what has to be staged goes; NULL: it is only counted. */
static void read_call(const fnn_call *call, setup_function *setup, void *memory, fnn_product *p) {
    *p = (fnn_product){.staging = {.memory = memory}};
    setup(call, p);
    p->g.precision = call->precision;
}

/* The rows of x: in memory, or where index_select would pick them from. */
static fnn_matrix rows_of(const fnn_call *call, fnn_product *p, const fnn_tensor *x) {
    if (!call->picking) return fnn_rows_of(&p->staging, x);
    return (fnn_matrix){.data = call->picking->in[0]->data, .row = columns(x), .col = 1, .picking = call->picking};
}

static fnn_call with_rows_in_memory(const fnn_call *call) {
    fnn_call plain = *call;
    plain.picking = NULL;
    return plain;
}

static double cost_of(const fnn_call *call, setup_function *setup) {
    fnn_product p;
    read_call(call, setup, NULL, &p);
    return fnn_product_cost(&p);
}

static const char *algorithm_of(const fnn_call *call, setup_function *setup) {
    const fnn_call plain = with_rows_in_memory(call);
    fnn_product p;
    if (call->picking && !call->picking->is_picked) return "zeros skipped";
    read_call(&plain, setup, NULL, &p);
    return fnn_gemm_algorithm(&p.g);
}

static void workspace_of(const fnn_call *call, fnn_workspace *ws, setup_function *setup) {
    fnn_product p;
    read_call(call, setup, NULL, &p);
    fnn_product_workspace(&p, ws);
    if (!call->picking) return;
    const fnn_call plain = with_rows_in_memory(call);
    fnn_workspace copied = {0};
    workspace_of(&plain, &copied, setup);
    fnn_enlarge(ws, copied.shared, copied.scratch);
}

/* Rows that zeros do not let it read where they lie are picked first, unless another reader had them picked. */
static int run_of(fnn_call *call, setup_function *setup) {
    fnn_product p;
    if (!call->picking || !call->picking->is_picked) read_call(call, setup, call->shared, &p);
    if (!call->picking) {
        fnn_product_run(call, &p, call->out[0]);
        return FNN_OK;
    }
    if (!call->picking->is_picked && fnn_product_run_rows(call, &p, call->out[0])) return FNN_OK;
    fnn_pick_rows(call->picking);
    fnn_call plain = with_rows_in_memory(call);
    return run_of(&plain, setup);
}

static int can_read_rows(const fnn_call *call, setup_function *setup) {
    fnn_product p;
    read_call(call, setup, NULL, &p);
    return fnn_gemm_can_read_rows(&p.g);
}

static int can_pass(const fnn_call *call, setup_function *setup) {
    fnn_product p;
    read_call(call, setup, NULL, &p);
    return fnn_is_contiguous(call->out[0]) && fnn_gemm_can_pass(&p.g);
}

/* x: which argument is the matrix of rows; -1: none. */
#define DRIVER(name, x)                                                                                                  \
    static double name##_cost(const fnn_call *call) { return cost_of(call, name##_setup); }                             \
    static void name##_workspace(const fnn_call *call, fnn_workspace *ws) { workspace_of(call, ws, name##_setup); }     \
    static int name##_run(fnn_call *call) { return run_of(call, name##_setup); }                                        \
    static const char *name##_algorithm(const fnn_call *call) { return algorithm_of(call, name##_setup); }              \
    static int name##_can_pass(const fnn_call *call) { return can_pass(call, name##_setup); }                           \
    static int name##_can_read_rows(const fnn_call *call, int k) { return k == (x) && can_read_rows(call, name##_setup); } \
    const fnn_driver fnn_linear_##name = {.infer = name##_infer,                                                        \
                                          .workspace = name##_workspace,                                                \
                                          .cost = name##_cost,                                                          \
                                          .run = name##_run,                                                            \
                                          .algorithm = name##_algorithm,                                                \
                                          .can_pass = name##_can_pass,                                                  \
                                          .can_read_rows = name##_can_read_rows};

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
static void forward_setup(const fnn_call *call, fnn_product *p) {
    const fnn_tensor *x = call->in[0], *weight = call->in[1], *bias = call->in[2];
    p->g.M = rows(x), p->g.N = weight->shape[0], p->g.K = columns(x);
    p->g.a = rows_of(call, p, x);
    p->g.b = (fnn_matrix){.data = weight->data, .row = weight->stride[1], .col = weight->stride[0]};
    p->g.dot = 1;
    if (bias) p->g.epilogue.bias = fnn_vector_of(&p->staging, bias);
    p->g.epilogue.activation = call->activation;
    set_result(p, call);
}
DRIVER(forward, 0)

static int backward_input_infer(fnn_call *call) { return infer_product(call, "dy", 0, "out_features"); }

/* dx (..., in) = dy (..., out) times weight (out, in). */
static void backward_input_setup(const fnn_call *call, fnn_product *p) {
    const fnn_tensor *dy = call->in[0], *weight = call->in[1];
    p->g.M = rows(dy), p->g.N = weight->shape[1], p->g.K = columns(dy);
    p->g.a = fnn_rows_of(&p->staging, dy);
    p->g.b = (fnn_matrix){.data = weight->data, .row = weight->stride[0], .col = weight->stride[1]};
    set_result(p, call);
}
DRIVER(backward_input, -1)

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
static void backward_weight_setup(const fnn_call *call, fnn_product *p) {
    const fnn_tensor *dy = call->in[0], *x = call->in[1];
    p->g.M = columns(dy), p->g.N = columns(x), p->g.K = rows(x);
    p->g.b = rows_of(call, p, x);
    fnn_matrix by_rows = fnn_rows_of(&p->staging, dy);
    p->g.a = (fnn_matrix){.data = by_rows.data, .row = by_rows.col, .col = by_rows.row};
    set_result(p, call);
}
DRIVER(backward_weight, 1)

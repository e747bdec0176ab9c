/* adaptive_pool2d.c: pooling to a given output size: output o looks at floor(o * I / O) to ceil((o + 1) * I / O) of
 * I; the loops are in pool.c. Output size (1, 1) is global pooling. */
#include "pool.h"

static int check_size(fnn_call *call, const char *name, const int64_t *size, ptrdiff_t limit) {
    if (size[0] >= 1 && size[1] >= 1 && size[0] <= limit && size[1] <= limit / size[0]) return FNN_OK;
    return fnn_fail(call, FNN_VALUE_ERROR,
                    "attribute '%s' is (%lld, %lld), but both must be at least 1 and their product at most 2^31 - 1",
                    name, (long long)size[0], (long long)size[1]);
}

static fnn_pool_plan plan_of(const fnn_tensor *t, const int64_t *input, const int64_t *output, int is_max) {
    return (fnn_pool_plan){.images = t->shape[0],
                           .channels = t->shape[1],
                           .h = {.input = input[0], .output = output[0], .dilation = 1},
                           .w = {.input = input[1], .output = output[1], .dilation = 1},
                           .position_step = input[1],
                           .is_max = is_max};
}

static fnn_pool_plan forward_plan(const fnn_call *call, int is_max) {
    const int64_t map[2] = {call->in[0]->shape[2], call->in[0]->shape[3]};
    return plan_of(call->in[0], map, call->attr.i, is_max);
}

static fnn_pool_plan backward_plan(const fnn_call *call, int is_max) {
    const int64_t map[2] = {call->in[0]->shape[2], call->in[0]->shape[3]};
    return plan_of(call->in[0], call->attr.i, map, is_max);
}

static int forward_infer(fnn_call *call, int is_max) {
    const fnn_tensor *x = call->in[0];
    int status = fnn_pool_check_map(call, "x", x);
    if (!status) status = check_size(call, "output", call->attr.i, INT32_MAX);
    if (status) return status;
    if (x->shape[2] > INT32_MAX / x->shape[3])
        return fnn_fail(call, FNN_VALUE_ERROR, "argument 'x' has shape %s, but H * W may be at most 2^31 - 1",
                        fnn_shape_text(x));
    ptrdiff_t shape[4] = {x->shape[0], x->shape[1], call->attr.i[0], call->attr.i[1]};
    fnn_set_shape(call->out[0], x->dtype, 4, shape);
    if (is_max && call->out[1]) fnn_set_shape(call->out[1], FNN_INT32, 4, shape);
    return FNN_OK;
}

static int backward_infer(fnn_call *call, int is_max) {
    const fnn_tensor *dy = call->in[0];
    int status = fnn_pool_check_map(call, "dy", dy);
    if (!status) status = check_size(call, "input", call->attr.i, INT32_MAX);
    return status ? status : fnn_pool_infer_gradient(call, is_max);
}

#define ADAPTIVE_DRIVER(name, direction, is_max)                                                                       \
    static int name##_infer(fnn_call *call) { return direction##_infer(call, is_max); }                                \
    static void name##_workspace(const fnn_call *call, fnn_workspace *ws) {                                            \
        fnn_pool_plan plan = direction##_plan(call, is_max);                                                           \
        fnn_pool_##direction##_workspace(call, &plan, ws);                                                             \
    }                                                                                                                  \
    static int name##_run(fnn_call *call) {                                                                            \
        fnn_pool_plan plan = direction##_plan(call, is_max);                                                           \
        fnn_pool_##direction(call, &plan);                                                                             \
        return FNN_OK;                                                                                                 \
    }                                                                                                                  \
    const fnn_driver fnn_##name = {.infer = name##_infer, .workspace = name##_workspace, .run = name##_run};

/* y, argmax: (N, C, OH, OW); x: (N, C, H, W). */
ADAPTIVE_DRIVER(adaptive_max_pool2d_forward, forward, 1)
ADAPTIVE_DRIVER(adaptive_max_pool2d_values, forward, 1)
ADAPTIVE_DRIVER(adaptive_avg_pool2d_forward, forward, 0)
/* dx: (N, C, H, W); dy, argmax: (N, C, OH, OW). */
ADAPTIVE_DRIVER(adaptive_max_pool2d_backward, backward, 1)
ADAPTIVE_DRIVER(adaptive_avg_pool2d_backward, backward, 0)

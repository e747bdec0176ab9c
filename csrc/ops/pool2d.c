/* pool2d.c: maximum and average pooling with windows of a fixed size; the loops are in pool.c. */
#include "pool.h"

#include "stage.h"

#include <string.h>

/* Attributes in ops.def's order, from `at` on. */
typedef struct {
    int64_t kernel[2], stride[2], padding[2], dilation[2], ceil_mode, include_padding, divisor;
} window;

static window max_window(const int64_t *at) {
    return (window){{at[0], at[1]}, {at[2], at[3]}, {at[4], at[5]}, {at[6], at[7]}, at[8], 0, 0};
}

static window avg_window(const int64_t *at) {
    return (window){{at[0], at[1]}, {at[2], at[3]}, {at[4], at[5]}, {1, 1}, at[6], at[7], at[8]};
}

static int check_pair(fnn_call *call, const char *name, const int64_t *pair, int64_t least) {
    if (pair[0] >= least && pair[1] >= least && pair[0] <= INT32_MAX && pair[1] <= INT32_MAX) return FNN_OK;
    return fnn_fail(call, FNN_VALUE_ERROR, "attribute '%s' is (%lld, %lld), but both must be in [%lld, 2^31)", name,
                    (long long)pair[0], (long long)pair[1], (long long)least);
}

static int check_window(fnn_call *call, const window *w) {
    int status = check_pair(call, "kernel", w->kernel, 1);
    if (!status) status = check_pair(call, "stride", w->stride, 1);
    if (!status) status = check_pair(call, "dilation", w->dilation, 1);
    if (!status) status = check_pair(call, "padding", w->padding, 0);
    if (status) return status;
    if (w->padding[0] > w->kernel[0] / 2 || w->padding[1] > w->kernel[1] / 2)
        return fnn_fail(call, FNN_VALUE_ERROR,
                        "attribute 'padding' is (%lld, %lld), but may be at most half of kernel (%lld, %lld)",
                        (long long)w->padding[0], (long long)w->padding[1], (long long)w->kernel[0],
                        (long long)w->kernel[1]);
    if (w->kernel[0] * w->kernel[1] > INT32_MAX)
        return fnn_fail(call, FNN_VALUE_ERROR,
                        "attribute 'kernel' is (%lld, %lld): a window may have at most 2^31 - 1 positions",
                        (long long)w->kernel[0], (long long)w->kernel[1]);
    if (w->divisor < -INT32_MAX || w->divisor > INT32_MAX)
        return fnn_fail(call, FNN_VALUE_ERROR, "attribute 'divisor' is %lld, but must be in (-2^31, 2^31)",
                        (long long)w->divisor);
    return FNN_OK;
}

/* PyTorch's rule: with ceil_mode the last window may reach over the end, but must start in the map or before it. */
static fnn_pool_axis axis_of(const window *w, int d, ptrdiff_t input) {
    fnn_pool_axis axis = {input, 0, w->kernel[d], w->stride[d], w->padding[d], w->dilation[d], w->include_padding != 0};
    ptrdiff_t room = input + 2 * axis.padding - axis.dilation * (axis.kernel - 1) - 1;
    if (w->ceil_mode) room += axis.stride - 1;
    axis.output = room < 0 ? 0 : room / axis.stride + 1;
    if (w->ceil_mode && (axis.output - 1) * axis.stride >= input + axis.padding) axis.output--;
    return axis;
}

static fnn_pool_plan plan_of(const window *w, ptrdiff_t N, ptrdiff_t C, ptrdiff_t H, ptrdiff_t W, int is_max) {
    return (fnn_pool_plan){.images = N,
                           .channels = C,
                           .h = axis_of(w, 0, H),
                           .w = axis_of(w, 1, W),
                           .divisor = w->divisor,
                           .position_step = w->kernel[1],
                           .is_max = is_max};
}

static int forward_infer(fnn_call *call, const window *w, int is_max) {
    const fnn_tensor *x = call->in[0];
    int status = fnn_pool_check_map(call, "x", x);
    if (!status) status = check_window(call, w);
    if (status) return status;
    fnn_pool_plan plan = plan_of(w, x->shape[0], x->shape[1], x->shape[2], x->shape[3], is_max);
    if (plan.h.output < 1 || plan.w.output < 1)
        return fnn_fail(call, FNN_VALUE_ERROR,
                        "window (%lld, %lld), dilation (%lld, %lld) does not fit into x %s padded by (%lld, %lld)",
                        (long long)w->kernel[0], (long long)w->kernel[1], (long long)w->dilation[0],
                        (long long)w->dilation[1], fnn_shape_text(x), (long long)w->padding[0],
                        (long long)w->padding[1]);
    ptrdiff_t shape[4] = {x->shape[0], x->shape[1], plan.h.output, plan.w.output};
    fnn_set_shape(call->out[0], x->dtype, 4, shape);
    if (is_max && call->out[1]) fnn_set_shape(call->out[1], FNN_INT32, 4, shape);
    return FNN_OK;
}

/* dy (or argmax) `t` must have the size that pooling an input of attr.i[0] x attr.i[1] gives. */
static int check_pooled(fnn_call *call, const char *name, const fnn_tensor *t, const window *w) {
    int status = fnn_pool_check_map(call, name, t);
    if (!status) status = check_pair(call, "input", call->attr.i, 1);
    if (!status) status = check_window(call, w);
    if (status) return status;
    fnn_pool_plan plan = plan_of(w, 0, 0, call->attr.i[0], call->attr.i[1], 0);
    if (t->shape[2] != plan.h.output || t->shape[3] != plan.w.output)
        return fnn_fail(call, FNN_VALUE_ERROR,
                        "argument '%s' has shape %s, but pooling an input of (%lld, %lld) gives (N, C, %td, %td)", name,
                        fnn_shape_text(t), (long long)call->attr.i[0], (long long)call->attr.i[1], plan.h.output,
                        plan.w.output);
    return FNN_OK;
}

static int backward_infer(fnn_call *call, const window *w, int is_max) {
    const fnn_tensor *dy = call->in[0];
    int status = check_pooled(call, "dy", dy, w);
    return status ? status : fnn_pool_infer_gradient(call, is_max);
}

static fnn_pool_plan forward_plan(const fnn_call *call, const window *w, int is_max) {
    const fnn_tensor *x = call->in[0];
    return plan_of(w, x->shape[0], x->shape[1], x->shape[2], x->shape[3], is_max);
}

static fnn_pool_plan backward_plan(const fnn_call *call, const window *w, int is_max) {
    const fnn_tensor *dy = call->in[0];
    return plan_of(w, dy->shape[0], dy->shape[1], call->attr.i[0], call->attr.i[1], is_max);
}

/* A driver, forward (attributes from 0 on) or backward (from 2 on: attr.i[0..1] is the input's size). */
#define POOL_FUNCTIONS(name, direction, kind, first, is_max)                                                           \
    static int name##_infer(fnn_call *call) {                                                                          \
        window w = kind##_window(call->attr.i + first);                                                                \
        return direction##_infer(call, &w, is_max);                                                                    \
    }                                                                                                                  \
    static void name##_workspace(const fnn_call *call, fnn_workspace *ws) {                                            \
        window w = kind##_window(call->attr.i + first);                                                                \
        fnn_pool_plan plan = direction##_plan(call, &w, is_max);                                                       \
        fnn_pool_##direction##_workspace(call, &plan, ws);                                                             \
    }                                                                                                                  \
    static int name##_run(fnn_call *call) {                                                                            \
        window w = kind##_window(call->attr.i + first);                                                                \
        fnn_pool_plan plan = direction##_plan(call, &w, is_max);                                                       \
        fnn_pool_##direction(call, &plan);                                                                             \
        return FNN_OK;                                                                                                 \
    }
#define POOL_DRIVER(name, direction, kind, first, is_max)                                                                  \
    POOL_FUNCTIONS(name, direction, kind, first, is_max)                                                                  \
    const fnn_driver fnn_##name = {.infer = name##_infer, .workspace = name##_workspace, .run = name##_run};

/* y, argmax: (N, C, OH, OW); x: (N, C, H, W). */
POOL_DRIVER(max_pool2d_forward, forward, max, 0, 1)
POOL_DRIVER(max_pool2d_values, forward, max, 0, 1)
POOL_DRIVER(avg_pool2d_forward, forward, avg, 0, 0)
/* dx: (N, C, H, W); dy, argmax: (N, C, OH, OW). */
POOL_DRIVER(avg_pool2d_backward, backward, avg, 2, 0)

/* ---- max pooling's gradient, whose map may have no memory ---- */

POOL_FUNCTIONS(max_pool2d_backward, backward, max, 2, 1)

/* The reader, as it runs in this call's place. */
static fnn_call reader_of(const fnn_call *call) {
    fnn_call reader = *call->reader;
    reader.unpooled = call;
    reader.shared = call->shared, reader.scratch = call->scratch, reader.scratch_stride = call->scratch_stride;
    reader.workers = call->workers;
    return reader;
}

static void max_gradient_workspace(const fnn_call *call, fnn_workspace *ws) {
    if (!call->reader) {
        max_pool2d_backward_workspace(call, ws);
        return;
    }
    const fnn_call reader = reader_of(call);
    fnn_ops[reader.op].driver->workspace(&reader, ws);
}

static int max_gradient_run(fnn_call *call) {
    if (!call->reader) return max_pool2d_backward_run(call);
    fnn_call reader = reader_of(call);
    const int status = fnn_ops[reader.op].driver->run(&reader);
    if (status) memcpy(call->message, reader.message, sizeof call->message);
    return status;
}

const fnn_driver fnn_max_pool2d_backward = {.infer = max_pool2d_backward_infer, .workspace = max_gradient_workspace,
                                            .run = max_gradient_run};

enum { MOST_CHANNELS = 16 }; /* as readers have, which skip what pooling does not let through */

int fnn_pool_is_of_blocks(const fnn_call *call) {
    static const int64_t windows[8] = {2, 2, 2, 2, 0, 0, 1, 1}; /* kernel, stride, padding, dilation */
    const fnn_tensor *dy = call->in[0], *map = call->out[0];
    if (memcmp(call->attr.i + 2, windows, sizeof windows) || map->shape[2] % 2 || map->shape[3] % 2) return 0;
    return map->shape[1] > 1 && map->shape[1] <= MOST_CHANNELS && fnn_is_channels_last(dy) && fnn_is_channels_last(call->in[1]) &&
           fnn_is_channels_last(map);
}

void fnn_pool_spread(const fnn_call *call, ptrdiff_t pair, char *to) {
    const fnn_tensor *dy = call->in[0], *argmax = call->in[1];
    const ptrdiff_t channels = dy->shape[1], row = dy->shape[3] * channels;
    fnn_kernels_of(dy->dtype)->pool_spread(dy->shape[3], channels, fnn_at(dy->data, pair * row, dy->dtype),
                                           (const int32_t *)argmax->data + pair * row, to, fnn_at(to, 2 * row, dy->dtype));
}

/* ---- positions in the map ---- */

static int indices_infer(fnn_call *call) {
    const fnn_tensor *argmax = call->in[0];
    window w = max_window(call->attr.i + 2);
    int status = check_pooled(call, "argmax", argmax, &w);
    if (!status) fnn_set_shape(call->out[0], FNN_INT64, 4, argmax->shape);
    return status;
}

static void indices_workspace(const fnn_call *call, fnn_workspace *ws) {
    ws->shared = fnn_stage_bytes(call->in[0]) + fnn_stage_bytes(call->out[0]);
}

typedef struct {
    window w;
    ptrdiff_t C, OH, OW, W;
    int64_t *indices;
    const int32_t *argmax;
} indices_plan;

/* One output row. */
static void run_indices(void *context, ptrdiff_t row, void *scratch) {
    (void)scratch;
    const indices_plan *p = context;
    const window *w = &p->w;
    int64_t top = row % p->OH * w->stride[0] - w->padding[0];
    for (ptrdiff_t o = 0; o < p->OW; o++) {
        int64_t left = o * w->stride[1] - w->padding[1];
        for (ptrdiff_t e = (row * p->OW + o) * p->C, end = e + p->C; e < end; e++) {
            int64_t position = p->argmax[e], kh = position / w->kernel[1], kw = position % w->kernel[1];
            p->indices[e] = position < 0 ? -1 : (top + kh * w->dilation[0]) * p->W + left + kw * w->dilation[1];
        }
    }
}

/* indices, argmax: (N, C, OH, OW): h * W + w from the position within the window. */
static int indices_run(fnn_call *call) {
    const fnn_tensor *argmax = call->in[0];
    char *workspace = call->shared;
    indices_plan p = {max_window(call->attr.i + 2), argmax->shape[1], argmax->shape[2], argmax->shape[3],
                      call->attr.i[1], NULL, NULL};
    p.argmax = fnn_stage_input(argmax, &workspace);
    p.indices = fnn_stage_output(call->out[0], &workspace);
    fnn_parallel_for(call, argmax->shape[0] * p.OH, fnn_cost(call), run_indices, &p);
    fnn_unstage_output(call->out[0], p.indices);
    return FNN_OK;
}

const fnn_driver fnn_max_pool2d_indices = {.infer = indices_infer, .workspace = indices_workspace, .run = indices_run};

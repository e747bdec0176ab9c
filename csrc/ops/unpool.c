/* unpool.c: max-unpooling by remembered positions, and its gradient: one chunk an image. Where several elements name
 * one place, the last one in h, w order is there. */
#include "../fastnn.h"

typedef struct {
    const fnn_kernels *K;
    const fnn_tensor *small, *index, *large;
    int gather;
} plan;

static int check(fnn_call *call, const fnn_tensor *x, const fnn_tensor *index) {
    if (x->rank != 4 || !fnn_same_shape(x, index))
        return fnn_fail(call, FNN_VALUE_ERROR, "x %s and indices %s must have one shape, (N, C, H, W)",
                        fnn_shape_text(x), fnn_shape_text(index));
    return FNN_OK;
}

/* Every index lies in its map of `places`. */
static int check_indices(fnn_call *call, const fnn_tensor *t, ptrdiff_t places) {
    for (ptrdiff_t n = 0; n < t->shape[0]; n++)
        for (ptrdiff_t c = 0; c < t->shape[1]; c++)
            for (ptrdiff_t h = 0; h < t->shape[2]; h++)
                for (ptrdiff_t w = 0; w < t->shape[3]; w++) {
                    const int64_t at =
                        ((const int64_t *)
                             t->data)[n * t->stride[0] + c * t->stride[1] + h * t->stride[2] + w * t->stride[3]];
                    if (at < 0 || at >= places)
                        return fnn_fail(call, FNN_INDEX_ERROR,
                                        "indices[%td, %td, %td, %td] is %lld, but must be 0 to %td", n, c, h, w,
                                        (long long)at, places - 1);
                }
    return FNN_OK;
}

static void run_image(void *context, ptrdiff_t n, void *scratch) {
    const plan *p = context;
    const fnn_tensor *x = p->small, *index = p->index, *y = p->large;
    (void)scratch;
    for (ptrdiff_t c = 0; c < x->shape[1]; c++)
        for (ptrdiff_t h = 0; h < x->shape[2]; h++)
            p->K->unpool(
                p->gather, x->shape[3],
                fnn_at(index->data, n * index->stride[0] + c * index->stride[1] + h * index->stride[2], FNN_INT64),
                index->stride[3], fnn_at(x->data, n * x->stride[0] + c * x->stride[1] + h * x->stride[2], x->dtype),
                x->stride[3], y->shape[3], fnn_at(y->data, n * y->stride[0] + c * y->stride[1], y->dtype),
                y->stride[2], y->stride[3]);
}

static int forward_infer(fnn_call *call) {
    const fnn_tensor *x = call->in[0];
    const int64_t *size = call->attr.i;
    int status = check(call, x, call->in[1]);
    if (status) return status;
    if (size[0] < 0 || size[1] < 0 || size[0] > INT32_MAX || size[1] > INT32_MAX)
        return fnn_fail(call, FNN_VALUE_ERROR, "attribute 'output' is (%lld, %lld), but must be 0 to %d each",
                        (long long)size[0], (long long)size[1], INT32_MAX);
    fnn_set_shape(call->out[0], x->dtype, 4,
                  (ptrdiff_t[]){x->shape[0], x->shape[1], (ptrdiff_t)size[0], (ptrdiff_t)size[1]});
    return FNN_OK;
}

/* y: (N, C, OH, OW), 0 but where indices say; x, indices: (N, C, H, W), indices = oh * OW + ow */
static int forward_run(fnn_call *call) {
    plan p = {fnn_kernels_of(call->in[0]->dtype), call->in[0], call->in[1], call->out[0], 0};
    int status = check_indices(call, p.index, p.large->shape[2] * p.large->shape[3]);
    if (status) return status;
    fnn_call fill = {.op = FNN_OP_fill, .out = {call->out[0]}};
    fnn_fill.run(&fill);
    fnn_parallel_for(call, p.small->shape[0], 4.0 * (double)fnn_numel(p.small), run_image, &p);
    return FNN_OK;
}

static int backward_infer(fnn_call *call) {
    const fnn_tensor *dy = call->in[0], *index = call->in[1];
    if (dy->rank != 4 || index->rank != 4 || dy->shape[0] != index->shape[0] || dy->shape[1] != index->shape[1])
        return fnn_fail(call, FNN_VALUE_ERROR, "dy %s and indices %s must be (N, C, ...) with the same N and C",
                        fnn_shape_text(dy), fnn_shape_text(index));
    fnn_set_shape(call->out[0], dy->dtype, 4, index->shape);
    return FNN_OK;
}

/* dx, indices: (N, C, H, W); dy: (N, C, OH, OW) */
static int backward_run(fnn_call *call) {
    plan p = {fnn_kernels_of(call->in[0]->dtype), call->out[0], call->in[1], call->in[0], 1};
    int status = check_indices(call, p.index, p.large->shape[2] * p.large->shape[3]);
    if (!status) fnn_parallel_for(call, p.small->shape[0], 4.0 * (double)fnn_numel(p.small), run_image, &p);
    return status;
}

const fnn_driver fnn_max_unpool2d_forward = {.infer = forward_infer, .run = forward_run};
const fnn_driver fnn_max_unpool2d_backward = {.infer = backward_infer, .run = backward_run};

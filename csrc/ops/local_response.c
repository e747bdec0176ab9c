/* local_response.c: local response normalisation along channels, forward and backward, over [pixels][channels]. */
#include "stage.h"

enum { CHUNK = 4096 /* elements a chunk, about */ };

typedef struct {
    const fnn_kernels *K;
    ptrdiff_t pixels, channels, block, size; /* block: pixels a chunk */
    int dtype;
    double alpha, beta, k;
    const char *x, *dy;
    char *y, *scale; /* y: or dx */
} plan;

static plan plan_of(const fnn_call *call, const fnn_tensor *x) {
    plan p = {.K = fnn_kernels_of(x->dtype), .channels = x->shape[1], .pixels = x->shape[0] * fnn_span(x, 2, x->rank),
              .size = (ptrdiff_t)call->attr.i[0], .dtype = x->dtype, .alpha = call->attr.f[0], .beta = call->attr.f[1],
              .k = call->attr.f[2]};
    p.block = fnn_max(CHUNK / fnn_max(p.channels, 1), 1);
    return p;
}

static int check(fnn_call *call, const fnn_tensor *x) {
    if (x->rank < 2)
        return fnn_fail(call, FNN_VALUE_ERROR,
                        "argument 'x' has shape %s, but must have at least 2 dimensions: (N, C, ...)",
                        fnn_shape_text(x));
    if (call->attr.i[0] < 1 || call->attr.i[0] > INT32_MAX)
        return fnn_fail(call, FNN_VALUE_ERROR, "attribute 'size' is %lld, but must be 1 to %d",
                        (long long)call->attr.i[0], INT32_MAX);
    return FNN_OK;
}

static void workspace(const fnn_call *call, fnn_workspace *ws) {
    for (int k = 0; k < 3; k++) ws->shared += fnn_stage_bytes(call->in[k]) + fnn_stage_bytes(call->out[k]);
    ws->scratch = 2 * (size_t)call->in[0]->shape[1] * fnn_itemsize(call->in[0]->dtype);
}

static double cost(const fnn_call *call) {
    return (double)fnn_numel(call->in[0]) *
           (4 + 0.5 * (double)fnn_min((ptrdiff_t)call->attr.i[0], call->in[0]->shape[1]));
}

static int forward_infer(fnn_call *call) {
    int status = check(call, call->in[0]);
    if (status) return status;
    for (int k = 0; k < 2; k++) fnn_set_like(call->out[k], call->in[0]);
    return FNN_OK;
}

static void run_forward(void *context, ptrdiff_t chunk, void *scratch) {
    const plan *p = context;
    const ptrdiff_t at = chunk * p->block * p->channels, n = fnn_min(p->block, p->pixels - chunk * p->block);
    p->K->local_response(n, p->channels, p->size, p->alpha, p->beta, p->k, fnn_at(p->y, at, p->dtype),
                         fnn_at(p->scale, at, p->dtype), fnn_at(p->x, at, p->dtype), scratch);
}

/* y, scale, x: (N, C, ...) */
static int forward_run(fnn_call *call) {
    plan p = plan_of(call, call->in[0]);
    char *at = call->shared;
    p.x = fnn_stage_input(call->in[0], &at);
    p.y = fnn_stage_output(call->out[0], &at), p.scale = fnn_stage_output(call->out[1], &at);
    fnn_parallel_for(call, fnn_ceil_div(p.pixels, p.block), cost(call), run_forward, &p);
    fnn_unstage_output(call->out[0], p.y);
    fnn_unstage_output(call->out[1], p.scale);
    return FNN_OK;
}

const fnn_driver fnn_local_response_forward = {
    .infer = forward_infer, .workspace = workspace, .cost = cost, .run = forward_run};

static int backward_infer(fnn_call *call) {
    const fnn_tensor *dy = call->in[0], *x = call->in[1], *scale = call->in[2];
    int status = check(call, x);
    if (status) return status;
    if (!fnn_same_shape(dy, x) || !fnn_same_shape(scale, x))
        return fnn_fail(call, FNN_VALUE_ERROR, "dy %s, x %s and scale %s must have one shape", fnn_shape_text(dy),
                        fnn_shape_text(x), fnn_shape_text(scale));
    fnn_set_like(call->out[0], x);
    return FNN_OK;
}

static void run_backward(void *context, ptrdiff_t chunk, void *scratch) {
    const plan *p = context;
    const ptrdiff_t at = chunk * p->block * p->channels, n = fnn_min(p->block, p->pixels - chunk * p->block);
    p->K->local_response_backward(n, p->channels, p->size, p->alpha, p->beta, fnn_at(p->y, at, p->dtype),
                                  fnn_at(p->dy, at, p->dtype), fnn_at(p->x, at, p->dtype),
                                  fnn_at(p->scale, at, p->dtype), scratch);
}

/* dx, dy, x, scale: (N, C, ...) */
static int backward_run(fnn_call *call) {
    plan p = plan_of(call, call->in[1]);
    char *at = call->shared;
    p.dy = fnn_stage_input(call->in[0], &at), p.x = fnn_stage_input(call->in[1], &at);
    p.scale = (char *)fnn_stage_input(call->in[2], &at);
    p.y = fnn_stage_output(call->out[0], &at);
    fnn_parallel_for(call, fnn_ceil_div(p.pixels, p.block), cost(call), run_backward, &p);
    fnn_unstage_output(call->out[0], p.y);
    return FNN_OK;
}

const fnn_driver fnn_local_response_backward = {
    .infer = backward_infer, .workspace = workspace, .cost = cost, .run = backward_run};

/* group_norm.c: normalisation over groups of channels of each image, forward and backward, over
 * [image][pixels][channels] (instance normalisation: groups of one channel). Each image's channels have the
 * statistics of batch normalisation, one partial per fixed run of pixels; the runs are merged in sequence, then the
 * channels of each group. */
#include "stage.h"

#include <math.h>

enum { RUN = 16384, LEAST_PIXELS = 32, MOST_PIXELS = 512 }; /* elements of a run, about; its pixels */

typedef struct {
    const fnn_kernels *K;
    ptrdiff_t images, channels, pixels, groups, run, runs; /* pixels of a run; runs of an image */
    int dtype;
    double eps;
    const char *x, *dy;
    char *y;                               /* or dx */
    double *partials;                      /* [images][runs][2][channels] */
    char *mean, *var, *rstd;               /* [images][groups] */
    char *centre, *scale, *shift, *slope;  /* [images][channels] */
    const void *weight, *bias;
} plan;

static plan plan_of(const fnn_call *call, const fnn_tensor *x) {
    plan p = {.K = fnn_kernels_of(x->dtype), .dtype = x->dtype, .images = x->shape[0], .channels = x->shape[1],
              .pixels = fnn_span(x, 2, x->rank), .groups = (ptrdiff_t)call->attr.i[0], .eps = call->attr.f[0]};
    p.run = fnn_min(fnn_max(RUN / fnn_max(p.channels, 1), LEAST_PIXELS), MOST_PIXELS);
    p.runs = fnn_max(fnn_ceil_div(p.pixels, p.run), 1);
    return p;
}

static int check(fnn_call *call, const fnn_tensor *x) {
    int64_t groups = call->attr.i[0];
    if (x->rank < 2)
        return fnn_fail(call, FNN_VALUE_ERROR,
                        "argument 'x' has shape %s, but must have at least 2 dimensions: (N, C, ...)",
                        fnn_shape_text(x));
    if (groups < 1 || groups > fnn_max(x->shape[1], 1) || x->shape[1] % groups)
        return fnn_fail(call, FNN_VALUE_ERROR,
                        "attribute 'groups' is %lld, but must be at least 1 and divide the %td channels of x %s",
                        (long long)groups, x->shape[1], fnn_shape_text(x));
    return FNN_OK;
}

static int check_channels(fnn_call *call, const char *name, const fnn_tensor *t, const fnn_tensor *x) {
    if (!t || (t->rank == 1 && t->shape[0] == x->shape[1])) return FNN_OK;
    return fnn_fail(call, FNN_VALUE_ERROR, "argument '%s' has shape %s, but x %s has %td channels", name,
                    fnn_shape_text(t), fnn_shape_text(x), x->shape[1]);
}

static int check_groups(fnn_call *call, const char *name, const fnn_tensor *t, const fnn_tensor *x) {
    if (t->rank == 2 && t->shape[0] == x->shape[0] && t->shape[1] == call->attr.i[0]) return FNN_OK;
    return fnn_fail(call, FNN_VALUE_ERROR,
                    "argument '%s' has shape %s, but must be (%td, %lld): images of x %s by groups", name,
                    fnn_shape_text(t), x->shape[0], (long long)call->attr.i[0], fnn_shape_text(x));
}

static size_t per_channel(const plan *p) { return (size_t)(p->images * p->channels) * fnn_itemsize(p->dtype); }
static size_t partial_bytes(const plan *p) { return (size_t)(p->images * p->runs * 2 * p->channels) * sizeof(double); }
/* A (N, G) statistic has two axes, and so is staged as [image][group]: C order. */
static void workspace(const fnn_call *call, fnn_workspace *ws) {
    plan p = plan_of(call, call->in[call->op == FNN_OP_group_norm_backward]);
    ws->shared = fnn_whole_lines(partial_bytes(&p)) + 4 * fnn_whole_lines(per_channel(&p));
    for (int k = 0; k < FNN_MAX_ARGS; k++) ws->shared += fnn_stage_bytes(call->out[k]) + fnn_stage_bytes(call->in[k]);
}

static ptrdiff_t run_pixels(const plan *p, ptrdiff_t run) {
    return fnn_max(fnn_min(p->run, p->pixels - run * p->run), 0);
}

static void *map_at(const plan *p, const void *map, ptrdiff_t chunk) {
    return fnn_at(map, (chunk / p->runs * p->pixels + chunk % p->runs * p->run) * p->channels, p->dtype);
}

static void *channels_at(const plan *p, const void *values, ptrdiff_t image) {
    return fnn_at(values, image * p->channels, p->dtype);
}

/* ---- forward ---- */

static void run_moments(void *context, ptrdiff_t chunk, void *scratch) {
    const plan *p = context;
    double *partial = p->partials + chunk * 2 * p->channels;
    (void)scratch;
    p->K->batch_norm_moments(run_pixels(p, chunk % p->runs), p->channels, map_at(p, p->x, chunk), partial,
                             partial + p->channels);
}

static void run_finish(void *context, ptrdiff_t image, void *scratch) {
    const plan *p = context;
    double *first = p->partials + image * p->runs * 2 * p->channels;
    const ptrdiff_t C = p->channels;
    (void)scratch;
    for (ptrdiff_t r = 1; r < p->runs; r++) {
        double *more = first + r * 2 * C;
        p->K->batch_norm_merge(C, (double)(r * p->run), (double)run_pixels(p, r), first, first + C, more, more + C);
    }
    const ptrdiff_t at = image * p->groups;
    p->K->group_norm_finish(p->groups, C, p->pixels, p->eps, first, first + C, p->weight, p->bias,
                            fnn_at(p->mean, at, p->dtype), fnn_at(p->var, at, p->dtype),
                            fnn_at(p->rstd, at, p->dtype), channels_at(p, p->centre, image),
                            channels_at(p, p->scale, image), channels_at(p, p->shift, image));
}

static void run_apply(void *context, ptrdiff_t chunk, void *scratch) {
    const plan *p = context;
    const ptrdiff_t image = chunk / p->runs;
    (void)scratch;
    p->K->batch_norm_apply(run_pixels(p, chunk % p->runs), p->channels, 0, map_at(p, p->y, chunk),
                           map_at(p, p->x, chunk), channels_at(p, p->centre, image), channels_at(p, p->scale, image),
                           channels_at(p, p->shift, image));
}

static int forward_infer(fnn_call *call) {
    const fnn_tensor *x = call->in[0];
    int status = check(call, x);
    if (!status) status = check_channels(call, "weight", call->in[1], x);
    if (!status) status = check_channels(call, "bias", call->in[2], x);
    if (status) return status;
    fnn_set_like(call->out[0], x);
    for (int k = 1; k < 4; k++)
        fnn_set_shape_contiguous(call->out[k], x->dtype, 2, (ptrdiff_t[]){x->shape[0], (ptrdiff_t)call->attr.i[0]});
    return FNN_OK;
}

/* y: (N, C, ...); mean, var, rstd: (N, G); x: (N, C, ...); weight, bias: (C,). */
static int forward_run(fnn_call *call) {
    plan p = plan_of(call, call->in[0]);
    char *at = call->shared;
    if (fnn_numel(call->in[0]) == 0) {
        fnn_call fill = {.op = FNN_OP_fill, .attr.f = {NAN}};
        for (int k = 1; k < 4; k++) fill.out[0] = call->out[k], fnn_fill.run(&fill);
        return FNN_OK;
    }
    p.partials = fnn_take(&at, partial_bytes(&p));
    p.centre = fnn_take(&at, per_channel(&p)), p.scale = fnn_take(&at, per_channel(&p)),
    p.shift = fnn_take(&at, per_channel(&p));
    p.x = fnn_stage_input(call->in[0], &at);
    p.weight = fnn_stage_input(call->in[1], &at), p.bias = fnn_stage_input(call->in[2], &at);
    p.mean = fnn_stage_output(call->out[1], &at), p.var = fnn_stage_output(call->out[2], &at);
    p.rstd = fnn_stage_output(call->out[3], &at);
    p.y = fnn_stage_output(call->out[0], &at);
    const ptrdiff_t chunks = p.images * p.runs;
    fnn_parallel_for(call, chunks, fnn_cost(call), run_moments, &p);
    fnn_parallel_for(call, p.images, 4.0 * (double)(chunks * p.channels), run_finish, &p);
    fnn_parallel_for(call, chunks, fnn_cost(call), run_apply, &p);
    fnn_unstage_output(call->out[0], p.y);
    fnn_unstage_output(call->out[1], p.mean);
    fnn_unstage_output(call->out[2], p.var);
    fnn_unstage_output(call->out[3], p.rstd);
    return FNN_OK;
}

const fnn_driver fnn_group_norm_forward = {.infer = forward_infer, .workspace = workspace, .run = forward_run};

/* ---- backward ---- */

/* Every channel's mean is its group's. */
static void run_spread(const plan *p) {
    const ptrdiff_t each = p->channels / p->groups;
    fnn_tensor from = {.data = p->mean,
                       .dtype = p->dtype,
                       .rank = 2,
                       .shape = {p->images * p->groups, each},
                       .stride = {1, 0}},
               to;
    fnn_set_shape_contiguous(&to, p->dtype, 2, from.shape);
    to.data = p->centre;
    fnn_copy_tensor(&to, &from);
}

static void run_sums(void *context, ptrdiff_t chunk, void *scratch) {
    const plan *p = context;
    double *partial = p->partials + chunk * 2 * p->channels;
    (void)scratch;
    p->K->batch_norm_sums(run_pixels(p, chunk % p->runs), p->channels, map_at(p, p->dy, chunk), map_at(p, p->x, chunk),
                          channels_at(p, p->centre, chunk / p->runs), partial, partial + p->channels);
}

static void run_finish_backward(void *context, ptrdiff_t image, void *scratch) {
    const plan *p = context;
    double *first = p->partials + image * p->runs * 2 * p->channels;
    (void)scratch;
    for (ptrdiff_t r = 1; r < p->runs; r++) p->K->batch_norm_add(2 * p->channels, first, first + r * 2 * p->channels);
    p->K->group_norm_finish_backward(
        p->groups, p->channels, p->pixels, first, first + p->channels, fnn_at(p->rstd, image * p->groups, p->dtype),
        p->weight, channels_at(p, p->scale, image), channels_at(p, p->slope, image), channels_at(p, p->shift, image));
}

static void run_gradient(void *context, ptrdiff_t chunk, void *scratch) {
    const plan *p = context;
    const ptrdiff_t image = chunk / p->runs;
    (void)scratch;
    p->K->group_norm_gradient(run_pixels(p, chunk % p->runs), p->channels, map_at(p, p->y, chunk),
                              map_at(p, p->dy, chunk), map_at(p, p->x, chunk), channels_at(p, p->centre, image),
                              channels_at(p, p->scale, image), channels_at(p, p->slope, image),
                              channels_at(p, p->shift, image));
}

static int backward_infer(fnn_call *call) {
    const fnn_tensor *dy = call->in[0], *x = call->in[1];
    int status = check(call, x);
    if (!status && !fnn_same_shape(dy, x))
        status = fnn_fail(call, FNN_VALUE_ERROR, "arguments 'dy' %s and 'x' %s must have one shape", fnn_shape_text(dy),
                          fnn_shape_text(x));
    if (!status) status = check_groups(call, "mean", call->in[2], x);
    if (!status) status = check_groups(call, "rstd", call->in[3], x);
    if (!status) status = check_channels(call, "weight", call->in[4], x);
    if (status) return status;
    if (call->out[0]) fnn_set_like(call->out[0], x);
    for (int k = 1; k < 3; k++)
        if (call->out[k]) fnn_set_shape_contiguous(call->out[k], x->dtype, 1, &x->shape[1]);
    return FNN_OK;
}

/* dx: (N, C, ...); dweight, dbias: (C,); dy, x: (N, C, ...); mean, rstd: (N, G); weight: (C,). */
static int backward_run(fnn_call *call) {
    plan p = plan_of(call, call->in[1]);
    char *at = call->shared;
    if (fnn_numel(call->in[1]) == 0) {
        fnn_call fill = {.op = FNN_OP_fill};
        for (int k = 1; k < 3; k++)
            if (call->out[k]) fill.out[0] = call->out[k], fnn_fill.run(&fill);
        return FNN_OK;
    }
    p.partials = fnn_take(&at, partial_bytes(&p));
    p.centre = fnn_take(&at, per_channel(&p)), p.scale = fnn_take(&at, per_channel(&p));
    p.shift = fnn_take(&at, per_channel(&p)), p.slope = fnn_take(&at, per_channel(&p));
    p.dy = fnn_stage_input(call->in[0], &at), p.x = fnn_stage_input(call->in[1], &at);
    p.mean = (char *)fnn_stage_input(call->in[2], &at), p.rstd = (char *)fnn_stage_input(call->in[3], &at);
    p.weight = fnn_stage_input(call->in[4], &at);
    p.y = fnn_stage_output(call->out[0], &at);
    void *dweight = fnn_stage_output(call->out[1], &at), *dbias = fnn_stage_output(call->out[2], &at);
    const ptrdiff_t chunks = p.images * p.runs;
    run_spread(&p);
    fnn_parallel_for(call, chunks, fnn_cost(call), run_sums, &p);
    fnn_parallel_for(call, p.images, 4.0 * (double)(chunks * p.channels), run_finish_backward, &p);
    p.K->group_norm_parameters(p.images, p.groups, p.channels, p.runs * 2 * p.channels, p.partials,
                               p.partials + p.channels, p.rstd, dweight, dbias);
    if (p.y) fnn_parallel_for(call, chunks, fnn_cost(call), run_gradient, &p);
    fnn_unstage_output(call->out[0], p.y);
    fnn_unstage_output(call->out[1], dweight);
    fnn_unstage_output(call->out[2], dbias);
    return FNN_OK;
}

const fnn_driver fnn_group_norm_backward = {.infer = backward_infer, .workspace = workspace, .run = backward_run};

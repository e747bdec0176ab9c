/* batch_norm.c: batch normalisation, forward, inference and backward, over [pixels][channels].
 *
 * Statistics are canonical: one partial per fixed run of pixels in N, H, W order, then a binary tree over the runs. A
 * chunk is RUNS of them, merged to one partial as the tree does; so neither threads nor layouts change a bit. A
 * partial holds two rows of doubles per channel: mean and squares about it forward, the sums of dy and of
 * dy * (x - mean) backward. */
#include "stage.h"

#include <string.h>

enum {
    RUN = 16384,                          /* elements of a run, about: it is read twice while in cache */
    LEAST_PIXELS = 32, MOST_PIXELS = 512, /* of a run: it must be worth merging; its sums' rounding errors grow */
    RUNS = 4                              /* runs of a chunk: a power of two */
};

typedef struct {
    const fnn_kernels *K;
    ptrdiff_t pixels, channels;
    ptrdiff_t run_pixels, chunks;
    double *partials; /* [chunks][2][channels] */
    const char *x, *dy;
    char *y; /* or dx */
    const void *mean;
    char *scale, *shift; /* forward */
    char *dmean, *slope; /* backward */
    int dtype, stream;
    const fnn_call *call;
    ptrdiff_t plane;     /* where maps are [images][channels][plane]; 0: they are [pixels][channels] */
} plan;

/* Maps in C order, which channels-last work would have to stage, are worked on as planes. */
static int are_planes(const fnn_call *call, int inputs) {
    if (!fnn_stage_bytes(call->in[0]) || (call->out[0] && !fnn_is_contiguous(call->out[0]))) return 0;
    for (int k = 0; k < inputs; k++)
        if (!fnn_is_contiguous(call->in[k])) return 0;
    return 1;
}

static plan plan_of(const fnn_call *call) {
    int inputs = call->op == FNN_OP_batch_norm_backward ? 2 : 1; /* dy and x, or x */
    const fnn_tensor *x = call->in[inputs - 1];
    plan p = {.call = call, .dtype = x->dtype, .channels = x->shape[1], .pixels = x->shape[0] * fnn_span(x, 2, x->rank)};
    p.run_pixels = fnn_min(fnn_max(RUN / fnn_max(p.channels, 1), LEAST_PIXELS), MOST_PIXELS);
    p.chunks = fnn_max(fnn_ceil_div(p.pixels, p.run_pixels * RUNS), 1);
    p.K = fnn_kernels_of(p.dtype);
    if (are_planes(call, inputs)) p.plane = fnn_span(x, 2, x->rank);
    return p;
}

/* ---- checks ---- */

static int check_map(fnn_call *call, const char *name, const fnn_tensor *x) {
    if (x->rank >= 2 && x->rank <= 5) return FNN_OK;
    return fnn_fail(call, FNN_VALUE_ERROR, "argument '%s' has shape %s, but must have 2 to 5 dimensions: (N, C, ...)",
                    name, fnn_shape_text(x));
}

static int check_channels(fnn_call *call, const char *name, const fnn_tensor *t, const fnn_tensor *x) {
    if (!t || (t->rank == 1 && t->shape[0] == x->shape[1])) return FNN_OK;
    return fnn_fail(call, FNN_VALUE_ERROR, "argument '%s' has shape %s, but x %s has %td channels", name,
                    fnn_shape_text(t), fnn_shape_text(x), x->shape[1]);
}

/* A result of x's shape: of four axes channels last, which is how the kernels and the next convolution want it. */
static void set_map(fnn_tensor *t, const fnn_tensor *x) {
    if (x->rank == 4) fnn_set_like(t, x);
    else fnn_set_alike(t, x->dtype, x);
}

static void set_channels(fnn_tensor *t, const fnn_tensor *x) {
    if (t) fnn_set_shape_contiguous(t, x->dtype, 1, &x->shape[1]);
}

/* ---- statistics ---- */

typedef void (*run_kernel)(const plan *p, ptrdiff_t pixel, ptrdiff_t pixels, char *tile, double *partial);
/* Adds the partial of b pixels to that of a pixels. */
typedef void (*merge_kernel)(const plan *p, double a, double b, double *partial, const double *more);

/* A run of pixels as [pixels][channels]: where it lies, or turned around into `tile`. */
static const void *run_of(const plan *p, const char *map, ptrdiff_t pixel, ptrdiff_t pixels, void *tile) {
    ptrdiff_t C = p->channels;
    if (!p->plane) return fnn_at(map, pixel * C, p->dtype);
    for (ptrdiff_t done = 0, n; done < pixels; done += n) {
        ptrdiff_t image = (pixel + done) / p->plane, at = (pixel + done) % p->plane;
        n = fnn_min(p->plane - at, pixels - done);
        p->K->conv_pack(1, n, C, fnn_at(map, image * C * p->plane + at, p->dtype), 1, p->plane,
                        fnn_at(tile, done * C, p->dtype), NULL, C);
    }
    return tile;
}

static size_t tile_bytes(const plan *p) {
    return p->plane ? fnn_whole_lines((size_t)(p->run_pixels * p->channels) * fnn_itemsize(p->dtype)) : 0;
}

static void moments(const plan *p, ptrdiff_t pixel, ptrdiff_t pixels, char *tile, double *partial) {
    const void *x = run_of(p, p->x, pixel, pixels, tile);
    p->K->batch_norm_moments(pixels, p->channels, x, partial, partial + p->channels);
}

static void merge_moments(const plan *p, double a, double b, double *partial, const double *more) {
    ptrdiff_t C = p->channels;
    p->K->batch_norm_merge(C, a, b, partial, partial + C, more, more + C);
}

static void sums(const plan *p, ptrdiff_t pixel, ptrdiff_t pixels, char *tile, double *partial) {
    const void *dy = run_of(p, p->dy, pixel, pixels, tile), *x = run_of(p, p->x, pixel, pixels, tile + tile_bytes(p));
    p->K->batch_norm_sums(pixels, p->channels, dy, x, p->mean, partial, partial + p->channels);
}

static void merge_sums(const plan *p, double a, double b, double *partial, const double *more) {
    (void)a, (void)b;
    p->K->batch_norm_add(2 * p->channels, partial, more);
}

/* A binary tree over `count` partials of `each` pixels (the last of fewer; `total` in all), into the first. */
static void merge_tree(const plan *p, merge_kernel merge, double *partials, ptrdiff_t count, ptrdiff_t each,
                       ptrdiff_t total) {
    ptrdiff_t size = 2 * p->channels;
    for (ptrdiff_t step = 1; step < count; step *= 2) {
        for (ptrdiff_t i = 0; i + step < count; i += 2 * step) {
            ptrdiff_t end = fnn_min((i + 2 * step) * each, total);
            merge(p, (double)(step * each), (double)(end - (i + step) * each), partials + i * size,
                  partials + (i + step) * size);
        }
    }
}

static void chunk_statistics(const plan *p, ptrdiff_t chunk, char *tile, run_kernel run, merge_kernel merge) {
    double *scratch = (double *)(tile + 2 * tile_bytes(p));
    ptrdiff_t size = 2 * p->channels, from = chunk * RUNS * p->run_pixels, runs = 0;
    ptrdiff_t end = fnn_min(from + RUNS * p->run_pixels, p->pixels);
    do { /* once at least: the sums over an empty batch are 0 */
        ptrdiff_t pixel = from + runs * p->run_pixels;
        run(p, pixel, fnn_min(p->run_pixels, end - pixel), tile, scratch + runs * size);
    } while (from + ++runs * p->run_pixels < end);
    merge_tree(p, merge, scratch, runs, p->run_pixels, end - from);
    for (ptrdiff_t c = 0; c < size; c++) p->partials[chunk * size + c] = scratch[c];
}

static void run_moments(void *context, ptrdiff_t chunk, void *scratch) {
    chunk_statistics(context, chunk, scratch, moments, merge_moments);
}

static void run_sums(void *context, ptrdiff_t chunk, void *scratch) {
    chunk_statistics(context, chunk, scratch, sums, merge_sums);
}

/* ---- passes ---- */

typedef struct {
    ptrdiff_t at, pixels;
} span;

static span chunk_span(const plan *p, ptrdiff_t chunk) {
    ptrdiff_t each = RUNS * p->run_pixels, from = chunk * each;
    return (span){from * p->channels, fnn_min(each, p->pixels - from)};
}

/* The planes of one chunk, no more than one image's at a time: calls step(first channel, channels, elements from the
 * start). */
#define FOR_PLANES(step)                                                                                               \
    do {                                                                                                               \
        ptrdiff_t each = planes_of_chunk(p), all = p->pixels / p->plane * p->channels, n;                              \
        for (ptrdiff_t from = chunk * each, end = fnn_min(from + each, all); from < end; from += n) {                  \
            ptrdiff_t c = from % p->channels, at = from * p->plane;                                                    \
            n = fnn_min(p->channels - c, end - from);                                                                  \
            step(c, n, at);                                                                                            \
        }                                                                                                              \
    } while (0)

static ptrdiff_t planes_of_chunk(const plan *p) { return fnn_max(RUN * RUNS / p->plane, 1); }

static void run_apply_planes(void *context, ptrdiff_t chunk, void *scratch) {
    (void)scratch;
    const plan *p = context;
#define STEP(c, n, at)                                                                                                 \
    p->K->batch_norm_apply_planes(n, p->plane, fnn_at(p->y, at, p->dtype), fnn_at(p->x, at, p->dtype),                 \
                                  fnn_at(p->mean, c, p->dtype), fnn_at(p->scale, c, p->dtype),                         \
                                  fnn_at(p->shift, c, p->dtype))
    FOR_PLANES(STEP);
#undef STEP
}

static void run_gradient_planes(void *context, ptrdiff_t chunk, void *scratch) {
    (void)scratch;
    const plan *p = context;
#define STEP(c, n, at)                                                                                                 \
    p->K->batch_norm_gradient_planes(n, p->plane, fnn_at(p->y, at, p->dtype), fnn_at(p->dy, at, p->dtype),             \
                                     fnn_at(p->x, at, p->dtype), fnn_at(p->mean, c, p->dtype),                         \
                                     fnn_at(p->scale, c, p->dtype), fnn_at(p->dmean, c, p->dtype),                     \
                                     fnn_at(p->slope, c, p->dtype))
    FOR_PLANES(STEP);
#undef STEP
}

/* Calls behind this one take a finished span. */
static void follow(const plan *p, span s) {
    if (p->call->follower && p->y == p->call->out[0]->data) fnn_follow(p->call, s.at, s.pixels * p->channels);
}

static void run_apply(void *context, ptrdiff_t chunk, void *scratch) {
    (void)scratch;
    const plan *p = context;
    span s = chunk_span(p, chunk);
    p->K->batch_norm_apply(s.pixels, p->channels, p->stream, fnn_at(p->y, s.at, p->dtype), fnn_at(p->x, s.at, p->dtype),
                           p->mean, p->scale, p->shift);
    follow(p, s);
}

static void run_gradient(void *context, ptrdiff_t chunk, void *scratch) {
    (void)scratch;
    const plan *p = context;
    span s = chunk_span(p, chunk);
    p->K->batch_norm_gradient(s.pixels, p->channels, p->stream, fnn_at(p->y, s.at, p->dtype),
                              fnn_at(p->dy, s.at, p->dtype), fnn_at(p->x, s.at, p->dtype), p->mean, p->scale, p->dmean,
                              p->slope);
    follow(p, s);
}

static void run_pass(const fnn_call *call, const plan *p, fnn_body pixels, fnn_body planes) {
    ptrdiff_t chunks = p->plane ? fnn_ceil_div(p->pixels / p->plane * p->channels, planes_of_chunk(p)) : p->chunks;
    fnn_parallel_for(call, chunks, fnn_cost(call), p->plane ? planes : pixels, (void *)p);
}

/* What is left to do for the map when all passes are done. */
static void finish_map(const plan *p) {
    const fnn_tensor *y = p->call->out[0];
    if (!p->plane) fnn_unstage_output(y, p->y);
    if (y && (p->plane || p->y != y->data)) fnn_follow_all(p->call, NULL);
}

/* ---- workspace ---- */

enum { VECTORS = 4 }; /* rows of parameters that a driver prepares, at most */

static size_t vector_bytes(const plan *p) { return fnn_whole_lines((size_t)p->channels * fnn_itemsize(p->dtype)); }

static size_t staged_bytes(const plan *p, const fnn_tensor *t) {
    return t && t->rank > 1 && p->plane ? 0 : fnn_stage_bytes(t);
}

static const char *map_input(const plan *p, const fnn_tensor *t, char **at) {
    return p->plane ? t->data : fnn_stage_input(t, at);
}

static char *map_output(const plan *p, const fnn_tensor *t, char **at) {
    return p->plane ? t ? t->data : NULL : fnn_stage_output(t, at);
}

static void workspace(const fnn_call *call, fnn_workspace *ws) {
    plan p = plan_of(call);
    size_t partial = 2 * (size_t)p.channels * sizeof(double);
    ws->shared = VECTORS * vector_bytes(&p);
    if (call->op != FNN_OP_batch_norm_inference) {
        ws->shared += (size_t)p.chunks * partial + 64;
        ws->scratch = 2 * tile_bytes(&p) + RUNS * partial;
    }
    for (int k = 0; k < FNN_MAX_ARGS; k++) ws->shared += staged_bytes(&p, call->out[k]) + staged_bytes(&p, call->in[k]);
}

/* ---- forward ---- */

static int forward_infer(fnn_call *call) {
    const fnn_tensor *x = call->in[0];
    int status = check_map(call, "x", x);
    if (!status) status = check_channels(call, "weight", call->in[1], x);
    if (!status) status = check_channels(call, "bias", call->in[2], x);
    if (status) return status;
    if (x->shape[0] * fnn_span(x, 2, x->rank) < 2)
        return fnn_fail(call, FNN_VALUE_ERROR,
                        "expected more than 1 value per channel when training, but x has shape %s; drop_last leaves out a last "
                        "batch of one sample", fnn_shape_text(x));
    set_map(call->out[0], x);
    for (int k = 1; k < 4; k++) set_channels(call->out[k], x);
    return FNN_OK;
}

/* y: (N, C, ...); mean, var, rstd: (C,); x: (N, C, ...); weight, bias: (C,). */
static int forward_run(fnn_call *call) {
    plan p = plan_of(call);
    char *at = call->shared;
    size_t bytes = vector_bytes(&p);
    p.partials = fnn_take(&at, (size_t)p.chunks * 2 * (size_t)p.channels * sizeof(double));
    p.scale = fnn_take(&at, bytes), p.shift = fnn_take(&at, bytes);
    p.x = map_input(&p, call->in[0], &at);
    const void *weight = fnn_stage_input(call->in[1], &at), *bias = fnn_stage_input(call->in[2], &at);
    void *mean = fnn_stage_output(call->out[1], &at), *var = fnn_stage_output(call->out[2], &at);
    void *rstd = fnn_stage_output(call->out[3], &at);
    p.y = map_output(&p, call->out[0], &at);
    p.stream = !call->follower && fnn_may_stream(p.y, p.pixels * p.channels, p.channels, p.dtype);
    fnn_parallel_for(call, p.chunks, fnn_cost(call), run_moments, &p);
    merge_tree(&p, merge_moments, p.partials, p.chunks, RUNS * p.run_pixels, p.pixels);
    p.K->batch_norm_finish(p.pixels, p.channels, call->attr.f[0], mean, var, rstd, p.partials, p.partials + p.channels);
    p.K->batch_norm_scale(p.channels, p.scale, p.shift, rstd, weight, bias);
    p.mean = mean;
    run_pass(call, &p, run_apply, run_apply_planes);
    finish_map(&p);
    fnn_unstage_output(call->out[1], mean);
    fnn_unstage_output(call->out[2], var);
    fnn_unstage_output(call->out[3], rstd);
    return FNN_OK;
}

const fnn_driver fnn_batch_norm_forward = {.infer = forward_infer, .workspace = workspace, .run = forward_run};

/* ---- inference ---- */

static int inference_infer(fnn_call *call) {
    static const char *const names[] = {"x", "mean", "var", "weight", "bias"};
    const fnn_tensor *x = call->in[0];
    int status = check_map(call, "x", x);
    for (int k = 1; k < 5 && !status; k++) status = check_channels(call, names[k], call->in[k], x);
    if (!status) set_map(call->out[0], x);
    return status;
}

/* y: (N, C, ...); x: (N, C, ...); mean, var, weight, bias: (C,). */
static int inference_run(fnn_call *call) {
    plan p = plan_of(call);
    char *at = call->shared;
    size_t bytes = vector_bytes(&p);
    void *rstd = fnn_take(&at, bytes);
    p.scale = fnn_take(&at, bytes), p.shift = fnn_take(&at, bytes);
    p.x = map_input(&p, call->in[0], &at);
    p.mean = fnn_stage_input(call->in[1], &at);
    const void *var = fnn_stage_input(call->in[2], &at);
    const void *weight = fnn_stage_input(call->in[3], &at), *bias = fnn_stage_input(call->in[4], &at);
    p.y = map_output(&p, call->out[0], &at);
    p.stream = !call->follower && fnn_may_stream(p.y, p.pixels * p.channels, p.channels, p.dtype);
    p.K->batch_norm_rstd(p.channels, call->attr.f[0], rstd, var);
    p.K->batch_norm_scale(p.channels, p.scale, p.shift, rstd, weight, bias);
    run_pass(call, &p, run_apply, run_apply_planes);
    finish_map(&p);
    return FNN_OK;
}

const fnn_driver fnn_batch_norm_inference = {.infer = inference_infer, .workspace = workspace, .run = inference_run};

/* ---- backward ---- */

static int backward_infer(fnn_call *call) {
    static const char *const names[] = {"dy", "x", "mean", "rstd", "weight"};
    const fnn_tensor *dy = call->in[0], *x = call->in[1];
    int status = check_map(call, "x", x);
    for (int k = 2; k < 5 && !status; k++) status = check_channels(call, names[k], call->in[k], x);
    if (status) return status;
    if (!fnn_same_shape(dy, x))
        return fnn_fail(call, FNN_VALUE_ERROR, "arguments 'dy' %s and 'x' %s must have one shape", fnn_shape_text(dy),
                        fnn_shape_text(x));
    if (call->out[0]) set_map(call->out[0], x);
    set_channels(call->out[1], x);
    set_channels(call->out[2], x);
    return FNN_OK;
}

/* dx when the statistics are constants: dy * scale. */
static void scale_gradient(fnn_call *call, plan *p) {
    memset(p->dmean, 0, vector_bytes(p));
    memset(p->shift, 0, vector_bytes(p));
    p->mean = p->dmean;
    p->x = p->dy;
    run_pass(call, p, run_apply, run_apply_planes);
}

/* dx: (N, C, ...); dweight, dbias: (C,); dy, x: (N, C, ...); mean, rstd, weight: (C,). */
static int backward_run(fnn_call *call) {
    plan p = plan_of(call);
    char *at = call->shared;
    size_t bytes = vector_bytes(&p);
    p.partials = fnn_take(&at, (size_t)p.chunks * 2 * (size_t)p.channels * sizeof(double));
    p.scale = fnn_take(&at, bytes), p.shift = fnn_take(&at, bytes), p.dmean = fnn_take(&at, bytes), p.slope = fnn_take(&at, bytes);
    p.dy = map_input(&p, call->in[0], &at);
    p.x = map_input(&p, call->in[1], &at);
    p.mean = fnn_stage_input(call->in[2], &at);
    const void *rstd = fnn_stage_input(call->in[3], &at), *weight = fnn_stage_input(call->in[4], &at);
    p.y = map_output(&p, call->out[0], &at);
    p.stream = !call->follower && fnn_may_stream(p.y, p.pixels * p.channels, p.channels, p.dtype);
    void *dweight = fnn_stage_output(call->out[1], &at), *dbias = fnn_stage_output(call->out[2], &at);
    fnn_parallel_for(call, p.chunks, fnn_cost(call), run_sums, &p);
    merge_tree(&p, merge_sums, p.partials, p.chunks, RUNS * p.run_pixels, p.pixels);
    p.K->batch_norm_finish_backward(p.pixels, p.channels, dweight, dbias, p.scale, p.dmean, p.slope, p.partials,
                                    p.partials + p.channels, rstd, weight);
    if (p.y && call->attr.i[0]) run_pass(call, &p, run_gradient, run_gradient_planes);
    else if (p.y) scale_gradient(call, &p);
    finish_map(&p);
    fnn_unstage_output(call->out[1], dweight);
    fnn_unstage_output(call->out[2], dbias);
    return FNN_OK;
}

const fnn_driver fnn_batch_norm_backward = {.infer = backward_infer, .workspace = workspace, .run = backward_run};

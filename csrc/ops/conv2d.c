/* conv2d.c: checks, sizes and drivers of the three passes of a 2-D convolution. */
#include "conv2d.h"
#include "conv2d_amx.h"
#include "conv2d_winograd.h"
#include "pool.h"
#include "stage.h"

/* ---- attributes and shapes ---- */

/* stride:2i padding:4i dilation:2i groups:i */
static int read_attributes(fnn_call *call, const int64_t *i, fnn_conv_dims *d) {
    static const char *const side[4] = {"top", "bottom", "left", "right"};
    for (int k = 0; k < 2; k++) d->stride[k] = i[k], d->dilation[k] = i[6 + k];
    for (int k = 0; k < 4; k++) d->padding[k] = i[2 + k];
    d->groups = i[8];
    for (int k = 0; k < 2; k++) {
        if (d->stride[k] < 1)
            return fnn_fail(call, FNN_VALUE_ERROR, "stride is (%td, %td), but must be at least 1", d->stride[0],
                            d->stride[1]);
        if (d->dilation[k] < 1)
            return fnn_fail(call, FNN_VALUE_ERROR, "dilation is (%td, %td), but must be at least 1", d->dilation[0],
                            d->dilation[1]);
    }
    for (int k = 0; k < 4; k++)
        if (d->padding[k] < 0)
            return fnn_fail(call, FNN_VALUE_ERROR, "padding at the %s is %td, but must not be negative", side[k],
                            d->padding[k]);
    if (d->groups < 1) return fnn_fail(call, FNN_VALUE_ERROR, "groups is %td, but must be at least 1", d->groups);
    return FNN_OK;
}

static int check_rank(fnn_call *call, const fnn_tensor *t, const char *name, const char *axes) {
    if (t->rank == 4) return FNN_OK;
    return fnn_fail(call, FNN_VALUE_ERROR, "'%s' has shape %s, but must have 4 axes: %s", name, fnn_shape_text(t),
                    axes);
}

/* Output extent of one axis; `axis` 0: height, 1: width. */
static int output_extent(fnn_call *call, const fnn_conv_dims *d, int axis, ptrdiff_t *out) {
    const ptrdiff_t limit = (ptrdiff_t)1 << 40;
    ptrdiff_t in = axis ? d->w : d->h, kernel = axis ? d->s : d->r, before = d->padding[2 * axis],
              after = d->padding[2 * axis + 1];
    if (kernel < 1 || kernel > limit || d->dilation[axis] > limit / kernel || before > limit || after > limit ||
        d->stride[axis] > limit)
        return fnn_fail(call, FNN_VALUE_ERROR,
                        "a kernel of %td with dilation %td, stride %td, padding %td and %td is out of range", kernel,
                        d->dilation[axis], d->stride[axis], before, after);
    ptrdiff_t padded = in + before + after, window = (kernel - 1) * d->dilation[axis] + 1;
    if (window > padded)
        return fnn_fail(call, FNN_VALUE_ERROR,
                        "the kernel spans %td %s, more than the padded input's %td (%td + padding %td and %td)", window,
                        axis ? "columns" : "rows", padded, in, before, after);
    *out = (padded - window) / d->stride[axis] + 1;
    return FNN_OK;
}

static int check_channels(fnn_call *call, fnn_conv_dims *d, ptrdiff_t in, ptrdiff_t out, ptrdiff_t per_group) {
    if (in < 1 || out < 1)
        return fnn_fail(call, FNN_VALUE_ERROR, "%td input and %td output channels: there must be at least 1 of each",
                        in, out);
    if (in % d->groups || out % d->groups)
        return fnn_fail(call, FNN_VALUE_ERROR, "%td input and %td output channels do not divide into %td groups", in,
                        out, d->groups);
    d->c = in / d->groups;
    d->k = out / d->groups;
    if (per_group != d->c)
        return fnn_fail(call, FNN_VALUE_ERROR,
                        "%td input channels in %td groups need a weight of %td channels a group, but it has %td", in,
                        d->groups, d->c, per_group);
    return FNN_OK;
}

static int output_shape(fnn_call *call, fnn_conv_dims *d) {
    int status = output_extent(call, d, 0, &d->oh);
    return status ? status : output_extent(call, d, 1, &d->ow);
}

static int forward_dims(fnn_call *call, fnn_conv_dims *d) {
    const fnn_tensor *x = call->in[0], *weight = call->in[1], *bias = call->in[2];
    int status;
    if ((status = check_rank(call, x, "x", "(N, C, H, W)")) ||
        (status = check_rank(call, weight, "weight", "(out, in / groups, kernel height, kernel width)")) ||
        (status = read_attributes(call, call->attr.i, d)) ||
        (status = check_channels(call, d, x->shape[1], weight->shape[0], weight->shape[1])))
        return status;
    d->n = x->shape[0], d->h = x->shape[2], d->w = x->shape[3], d->r = weight->shape[2], d->s = weight->shape[3];
    if (bias && (bias->rank != 1 || bias->shape[0] != weight->shape[0]))
        return fnn_fail(call, FNN_VALUE_ERROR,
                        "'bias' has shape %s, but must have shape (%td,), one for each output channel",
                        fnn_shape_text(bias), weight->shape[0]);
    return output_shape(call, d);
}

static int check_gradient(fnn_call *call, const fnn_conv_dims *d) {
    const fnn_tensor *dy = call->in[0];
    const ptrdiff_t want[4] = {d->n, d->groups * d->k, d->oh, d->ow};
    for (int k = 0; k < 4; k++)
        if (dy->shape[k] != want[k])
            return fnn_fail(call, FNN_VALUE_ERROR, "'dy' has shape %s, but the output has shape (%td, %td, %td, %td)",
                            fnn_shape_text(dy), want[0], want[1], want[2], want[3]);
    return FNN_OK;
}

static int backward_input_dims(fnn_call *call, fnn_conv_dims *d) {
    const fnn_tensor *dy = call->in[0], *weight = call->in[1];
    int status;
    if ((status = check_rank(call, dy, "dy", "(N, C, H, W)")) ||
        (status = check_rank(call, weight, "weight", "(out, in / groups, kernel height, kernel width)")) ||
        (status = read_attributes(call, call->attr.i + 2, d)) ||
        (status = check_channels(call, d, weight->shape[1] * d->groups, weight->shape[0], weight->shape[1])))
        return status;
    const fnn_tensor *bias = call->in[2];
    if (bias && (bias->rank != 1 || bias->shape[0] != d->c * d->groups))
        return fnn_fail(call, FNN_VALUE_ERROR, "'bias' has shape %s, but must have shape (%td,), one for each channel",
                        fnn_shape_text(bias), d->c * d->groups);
    d->n = dy->shape[0], d->h = call->attr.i[0], d->w = call->attr.i[1], d->r = weight->shape[2],
    d->s = weight->shape[3];
    if (d->h < 0 || d->w < 0)
        return fnn_fail(call, FNN_VALUE_ERROR, "input is (%td, %td), but must not be negative", d->h, d->w);
    status = output_shape(call, d);
    return status ? status : check_gradient(call, d);
}

static int backward_weight_dims(fnn_call *call, fnn_conv_dims *d) {
    const fnn_tensor *dy = call->in[0], *x = call->in[1];
    int status;
    if ((status = check_rank(call, dy, "dy", "(N, C, H, W)")) || (status = check_rank(call, x, "x", "(N, C, H, W)")) ||
        (status = read_attributes(call, call->attr.i + 2, d)) ||
        (status = check_channels(call, d, x->shape[1], dy->shape[1], x->shape[1] / d->groups)))
        return status;
    d->n = x->shape[0], d->h = x->shape[2], d->w = x->shape[3], d->r = call->attr.i[0], d->s = call->attr.i[1];
    status = output_shape(call, d);
    return status ? status : check_gradient(call, d);
}

fnn_image fnn_image_of(const fnn_tensor *t) {
    return (fnn_image){t->data, t->stride[0], t->stride[1], t->stride[2], t->stride[3]};
}

/* About 100 GFLOP/s a core for wide layers; a channel or two fill a vector badly. */
double fnn_conv_cost(const fnn_conv_dims *d, int dtype) {
    double macs = (double)(d->n * d->oh * d->ow) * (double)(d->groups * d->k * d->c * d->r * d->s);
    double bytes = (double)(d->n * d->groups) * (double)(d->c * d->h * d->w + d->k * d->oh * d->ow) *
                   (double)fnn_itemsize(dtype);
    return macs * (dtype == FNN_FLOAT64 ? 0.04 : 0.02) + bytes * 0.05;
}

/* The sizes of a call that infer has checked: for what has only a constant one. */
typedef int read_dims(fnn_call *call, fnn_conv_dims *d);

static fnn_conv_dims dims_of(const fnn_call *call, read_dims *read) {
    fnn_call copy = *call; /* its message may be written to */
    fnn_conv_dims d = {0};
    read(&copy, &d);
    return d;
}

static double cost_of(const fnn_call *call, read_dims *read) {
    const fnn_conv_dims d = dims_of(call, read);
    return fnn_conv_cost(&d, call->in[0]->dtype);
}

static double forward_cost(const fnn_call *call) { return cost_of(call, forward_dims); }
static double backward_input_cost(const fnn_call *call) { return cost_of(call, backward_input_dims); }
static double backward_weight_cost(const fnn_call *call) { return cost_of(call, backward_weight_dims); }

/* ---- which way, for reports ---- */

static const char *way(const fnn_call *call, read_dims *read, fnn_conv_pass pass) {
    const fnn_conv_dims d = dims_of(call, read);
    if (fnn_conv_product_suits(call, &d, pass)) return fnn_conv_product_way(call, &d, pass);
    if (fnn_conv_amx_suits(call, &d, pass)) return "bfloat16 parts";
    if (!fnn_winograd_suits(call, &d, pass)) return "direct";
    return fnn_winograd_amx_suits(call, &d, pass) ? "winograd in bfloat16 parts" : "winograd";
}

static const char *forward_way(const fnn_call *call) { return way(call, forward_dims, FNN_CONV_FORWARD); }
static const char *backward_input_way(const fnn_call *call) {
    return way(call, backward_input_dims, FNN_CONV_BACKWARD_INPUT);
}
static const char *backward_weight_way(const fnn_call *call) {
    return way(call, backward_weight_dims, FNN_CONV_BACKWARD_WEIGHT);
}

/* What the one of the other ways that is taken needs besides: the direct way may still have to compute the call. */
static void enlarge_workspace(const fnn_call *call, const fnn_conv_dims *d, fnn_conv_pass pass, fnn_workspace *ws) {
    if (fnn_conv_amx_suits(call, d, pass)) fnn_conv_amx_workspace(call, d, pass, ws);
    else fnn_winograd_workspace(call, d, pass, ws);
}

/* Whether one of the other ways has computed the call; FNN_WINOGRAD_LEFT: a part of it. */
static int correlated(const fnn_call *call, const fnn_conv_dims *d, fnn_conv_pass pass, const fnn_epilogue *epilogue) {
    if (fnn_conv_amx_suits(call, d, pass)) return fnn_conv_amx_correlate(call, d, pass, epilogue);
    return fnn_winograd_correlate(call, d, pass, epilogue);
}

/* ---- what the ways share ---- */

int fnn_conv_can_repeat_followers(const fnn_call *call) {
    for (const fnn_call *f = call->follower; f; f = f->follower)
        for (int k = 0; k < FNN_MAX_ARGS; k++)
            for (const fnn_call *g = call; f->out[k]; g = g->follower) {
                for (int j = 0; j < FNN_MAX_ARGS; j++)
                    if (g->in[j] && g->in[j]->data != call->out[0]->data && fnn_overlap(f->out[k], g->in[j])) return 0;
                if (g == f) break;
            }
    return 1;
}

void fnn_conv_follow(const fnn_call *leader, const fnn_image *y, const fnn_conv_block *b) {
    for (ptrdiff_t i = b->image; i < b->image + b->images; i++)
        for (ptrdiff_t row = b->row; row < b->row + b->rows; row++)
            fnn_follow(leader, i * y->n + row * y->h + b->col * y->w, b->cols * y->w);
}

const void *fnn_conv_dense_bias(const fnn_call *call, void *copy) {
    const fnn_tensor *bias = call->in[2];
    if (!bias) return NULL;
    fnn_kernels_of(bias->dtype)->conv_pack(1, bias->shape[0], 1, bias->data, bias->stride[0], 1, copy, NULL, 1);
    return copy;
}

/* ---- forward and backward_input: plans ---- */

fnn_conv_weight fnn_conv_weight_of(const fnn_tensor *weight, const fnn_conv_dims *d, int backward) {
    const fnn_kernels *K = fnn_kernels_of(weight->dtype);
    fnn_conv_weight w = {.K = K,
                         .dtype = weight->dtype,
                         .groups = d->groups,
                         .depth = backward ? d->k : d->c,
                         .width = backward ? d->c : d->k,
                         .r = d->r,
                         .s = d->s,
                         .data = weight->data,
                         .group_stride = d->k * weight->stride[0],
                         .width_stride = weight->stride[backward ? 1 : 0],
                         .depth_stride = weight->stride[backward ? 0 : 1],
                         .r_stride = weight->stride[2],
                         .s_stride = weight->stride[3]};
    w.cols = w.width > K->triple_cols ? K->tile_cols : fnn_min(K->triple_cols, fnn_round_up(w.width, 8));
    w.lane_group = !backward && fnn_conv_repeats(d, K) ? 1 : fnn_conv_lane_group(d, K);
    if (w.lane_group) w.groups = 1, w.width *= d->groups, w.cols = K->lanes;
    if (w.lane_group == 1) w.width_stride = weight->stride[0];
    return w;
}

/* What the two passes have in common; `backward`: input and output channels change places. */
static void plan_common(const fnn_tensor *weight, const fnn_conv_dims *d, int backward, fnn_conv_weight *w,
                        fnn_correlation *c) {
    *w = fnn_conv_weight_of(weight, d, backward);
    *c = (fnn_correlation){.K = w->K, .dtype = w->dtype, .images = d->n, .groups = w->groups, .depth = w->depth,
                           .width = w->width, .weight = w, .repeats = 1};
    if (w->lane_group) c->depth = w->width, c->depthwise = 1;
    if (w->lane_group && d->c != d->k) c->repeats = d->k;
    fnn_conv_weight_plan(w);
}

fnn_axis fnn_conv_forward_axis(const fnn_conv_dims *d, int axis) {
    return (fnn_axis){.in = axis ? d->w : d->h,
                      .out = axis ? d->ow : d->oh,
                      .step = d->stride[axis],
                      .taps = axis ? d->s : d->r,
                      .first = -d->padding[2 * axis],
                      .gap = d->dilation[axis]};
}

static void plan_forward(const fnn_call *call, const fnn_conv_dims *d, fnn_conv_weight *w, fnn_correlation *c) {
    plan_common(call->in[1], d, 0, w, c);
    c->h = fnn_conv_forward_axis(d, 0);
    c->w = fnn_conv_forward_axis(d, 1);
    c->src = fnn_image_of(call->in[0]);
    c->dst = fnn_image_of(call->out[0]);
    c->flops = 2.0 * (double)(d->groups * d->k * d->c * d->r * d->s);
    c->pooling = call->pooling;
    fnn_correlate_plan(c);
}

/* Input positions p, p + stride, ... meet the kernel positions t of one residue class only: those with phase_of(t) = p. */
static ptrdiff_t phase_of(const fnn_conv_dims *d, int axis, ptrdiff_t t) {
    ptrdiff_t stride = d->stride[axis], shift = (t * d->dilation[axis] - d->padding[2 * axis]) % stride;
    return shift < 0 ? shift + stride : shift;
}

/* The places of kernel positions in packed weights: by phase, and within one from the last to the first, which is the
 * order of the output positions they read. */
void fnn_conv_order_by_phase(const fnn_conv_dims *d, int axis, ptrdiff_t *order) {
    ptrdiff_t taps = axis ? d->s : d->r;
    for (ptrdiff_t t = 0; t < taps; t++) {
        ptrdiff_t phase = phase_of(d, axis, t);
        order[t] = 0;
        for (ptrdiff_t u = 0; u < taps; u++) {
            ptrdiff_t other = phase_of(d, axis, u);
            order[t] += other < phase || (other == phase && u > t);
        }
    }
}

fnn_axis fnn_conv_phase_axis(const fnn_conv_dims *d, int axis, ptrdiff_t phase) {
    ptrdiff_t taps = axis ? d->s : d->r, stride = d->stride[axis], extent = axis ? d->w : d->h;
    fnn_axis a = {.in = axis ? d->ow : d->oh, .out = fnn_ceil_div(extent - phase, stride), .step = 1, .gap = 1};
    for (ptrdiff_t t = taps - 1; t >= 0; t--) {
        ptrdiff_t class = phase_of(d, axis, t), reads = (phase + d->padding[2 * axis] - t * d->dilation[axis]) / stride;
        a.slot += class < phase;
        if (class != phase) continue;
        if (a.taps == 0) a.first = reads;
        if (a.taps == 1) a.gap = reads - a.first;
        a.taps++;
    }
    return a;
}

static void plan_phase(const fnn_call *call, const fnn_conv_dims *d, ptrdiff_t phase_h, ptrdiff_t phase_w,
                       fnn_conv_weight *w, fnn_correlation *c) {
    ptrdiff_t size = (ptrdiff_t)fnn_itemsize(call->in[0]->dtype);
    plan_common(call->in[1], d, 1, w, c);
    c->h = fnn_conv_phase_axis(d, 0, phase_h);
    c->w = fnn_conv_phase_axis(d, 1, phase_w);
    c->src = fnn_image_of(call->in[0]);
    c->dst = fnn_image_of(call->out[0]);
    c->dst.data += (phase_h * c->dst.h + phase_w * c->dst.w) * size;
    c->dst.h *= d->stride[0];
    c->dst.w *= d->stride[1];
    c->flops = 2.0 * (double)(d->groups * d->k * d->c * d->r * d->s) / (double)(d->stride[0] * d->stride[1]);
    fnn_correlate_plan(c);
}

/* ---- conv2d_forward: y (n, groups*k, oh, ow) <- x (n, groups*c, h, w), weight (groups*k, c, r, s), bias? (groups*k) ---- */

static int forward_infer(fnn_call *call) {
    fnn_conv_dims d;
    int status = forward_dims(call, &d);
    if (status) return status;
    fnn_set_shape(call->out[0], call->in[0]->dtype, 4, (ptrdiff_t[]){d.n, d.groups * d.k, d.oh, d.ow});
    return FNN_OK;
}

static size_t bias_bytes(const fnn_call *call) {
    const fnn_tensor *bias = call->in[2];
    return bias ? fnn_dense_bytes(bias) : 0;
}

static void forward_workspace(const fnn_call *call, fnn_workspace *ws) {
    const fnn_conv_dims d = dims_of(call, forward_dims);
    fnn_conv_weight w;
    fnn_correlation c;
    if (fnn_conv_product_suits(call, &d, FNN_CONV_FORWARD)) {
        fnn_conv_product_workspace(call, &d, FNN_CONV_FORWARD, ws);
        return;
    }
    plan_forward(call, &d, &w, &c);
    ws->shared = bias_bytes(call) + fnn_correlate_bytes(&c) + fnn_conv_weight_bytes(&w);
    ws->scratch = c.scratch_bytes;
    enlarge_workspace(call, &d, FNN_CONV_FORWARD, ws);
}

static int forward_run(fnn_call *call) {
    fnn_conv_dims d;
    fnn_conv_weight w;
    fnn_correlation c;
    int status = forward_dims(call, &d);
    if (status || fnn_numel(call->out[0]) == 0) return status;
    if (fnn_conv_product_suits(call, &d, FNN_CONV_FORWARD)) {
        fnn_conv_product(call, &d, FNN_CONV_FORWARD);
        return FNN_OK;
    }
    fnn_epilogue finish = {.activation = call->activation};
    if (correlated(call, &d, FNN_CONV_FORWARD, &finish)) return FNN_OK;
    plan_forward(call, &d, &w, &c);
    char *memory = call->shared;
    if (call->in[2]) finish.bias = fnn_conv_dense_bias(call, memory);
    memory += bias_bytes(call);
    if (finish.bias || finish.activation) c.epilogue = &finish;
    fnn_conv_weight_pack(call, &w, memory + fnn_correlate_bytes(&c), NULL, NULL);
    fnn_correlate(call, &c, 1, memory);
    return FNN_OK;
}

static int forward_can_pool(const fnn_call *call, const fnn_call *pooling) {
    const fnn_conv_dims d = dims_of(call, forward_dims);
    fnn_conv_weight w;
    fnn_correlation c;
    if (fnn_conv_product_suits(call, &d, FNN_CONV_FORWARD) || fnn_conv_amx_suits(call, &d, FNN_CONV_FORWARD)) return 0;
    if (fnn_winograd_suits(call, &d, FNN_CONV_FORWARD)) return 0;
    plan_forward(call, &d, &w, &c);
    return fnn_narrow_can_pool(&c, pooling);
}

const fnn_driver fnn_conv2d_forward = {.infer = forward_infer,
                                       .workspace = forward_workspace,
                                       .cost = forward_cost,
                                       .run = forward_run,
                                       .can_pool = forward_can_pool,
                                       .algorithm = forward_way};

/* ---- conv2d_backward_input: dx (n, groups*c, h, w) <- dy (n, groups*k, oh, ow), weight (groups*k, c, r, s), bias? (groups*c) ----
 * The bias is what a transposed convolution adds. */

static int backward_input_infer(fnn_call *call) {
    fnn_conv_dims d;
    int status = backward_input_dims(call, &d);
    if (status) return status;
    fnn_set_shape(call->out[0], call->in[0]->dtype, 4, (ptrdiff_t[]){d.n, d.groups * d.c, d.h, d.w});
    return FNN_OK;
}

static size_t order_bytes(const fnn_conv_dims *d) {
    return fnn_whole_lines((size_t)(d->r + d->s) * sizeof(ptrdiff_t));
}

static ptrdiff_t count_phases(const fnn_conv_dims *d) {
    return fnn_min(d->stride[0], d->h) * fnn_min(d->stride[1], d->w);
}

static size_t phases_bytes(const fnn_conv_dims *d) {
    return fnn_whole_lines((size_t)count_phases(d) * sizeof(fnn_correlation));
}

/* Few channels are sums of windows (conv2d_columns.c) where that costs less than the correlation of each phase. */
static int suits_columns(const fnn_call *call, const fnn_conv_dims *d) {
    fnn_conv_weight w;
    fnn_correlation c;
    if (!fnn_conv_columns_can(d)) return 0;
    plan_phase(call, d, 0, 0, &w, &c);
    return c.narrow != FNN_NARROW_IMAGES && fnn_conv_columns_cost(d, c.K) < fnn_conv_phases_cost(d, c.K);
}

/* shared: [orders][bias][packed weights][phases][their offsets] */
static void dense_input_workspace(const fnn_call *call, fnn_workspace *ws) {
    const fnn_conv_dims d = dims_of(call, backward_input_dims);
    fnn_conv_weight w;
    fnn_correlation c;
    if (fnn_numel(call->out[0]) == 0) return;
    if (fnn_conv_product_suits(call, &d, FNN_CONV_BACKWARD_INPUT)) {
        fnn_conv_product_workspace(call, &d, FNN_CONV_BACKWARD_INPUT, ws);
        return;
    }
    if (suits_columns(call, &d)) {
        fnn_conv_columns_workspace(call, &d, ws);
        enlarge_workspace(call, &d, FNN_CONV_BACKWARD_INPUT, ws);
        return;
    }
    ws->shared = order_bytes(&d) + bias_bytes(call) + phases_bytes(&d);
    for (ptrdiff_t i = 0, wide = fnn_min(d.stride[1], d.w), n = count_phases(&d); i < n; i++) {
        plan_phase(call, &d, i / wide, i % wide, &w, &c);
        ws->shared += fnn_correlate_bytes(&c);
        if (c.scratch_bytes > ws->scratch) ws->scratch = c.scratch_bytes;
    }
    ws->shared += fnn_conv_weight_bytes(&w);
    enlarge_workspace(call, &d, FNN_CONV_BACKWARD_INPUT, ws);
}

static int input_suits_blocks(const fnn_call *call, const fnn_conv_dims *d) {
    return fnn_conv_input_blocks_suits(call, d) && !fnn_conv_product_suits(call, d, FNN_CONV_BACKWARD_INPUT) &&
           !fnn_conv_amx_suits(call, d, FNN_CONV_BACKWARD_INPUT);
}

static int backward_input_can_unpool(const fnn_call *call, const fnn_call *pooling) {
    const fnn_conv_dims d = dims_of(call, backward_input_dims);
    return fnn_pool_is_of_blocks(pooling) && input_suits_blocks(call, &d);
}

/* What a call needs but for memory for dy. */
static void known_input_workspace(const fnn_call *call, fnn_workspace *ws) {
    const fnn_conv_dims d = dims_of(call, backward_input_dims);
    dense_input_workspace(call, ws);
    if (fnn_numel(call->out[0]) && input_suits_blocks(call, &d)) fnn_conv_input_blocks_workspace(call, &d, ws);
    ws->shared = fnn_whole_lines(ws->shared);
}

/* A pooled map's gradient that is not finite is spread out behind the workspace: the one case in which the map's gradient needs memory
 * after all. */
static void backward_input_workspace(const fnn_call *call, fnn_workspace *ws) {
    known_input_workspace(call, ws);
    if (call->unpooled) ws->shared += (size_t)fnn_numel(call->in[0]) * fnn_itemsize(call->in[0]->dtype);
}

static void spread_out(const fnn_call *call, fnn_tensor *dy) {
    const ptrdiff_t pair = 2 * dy->shape[3] * dy->shape[1], pairs = fnn_numel(dy) / pair;
    fnn_workspace ws = {0, 0, 0};
    known_input_workspace(call, &ws);
    dy->data = (char *)call->shared + ws.shared;
    for (ptrdiff_t i = 0; i < pairs; i++) fnn_pool_spread(call->unpooled, i, fnn_at(dy->data, i * pair, dy->dtype));
}

/* All phases of the input grid; the weights are packed once for all. */
static int backward_input_run(fnn_call *call) {
    fnn_conv_dims d;
    fnn_conv_weight w, same;
    fnn_correlation first;
    int status = backward_input_dims(call, &d);
    if (status || fnn_numel(call->out[0]) == 0) return status;
    if (fnn_conv_product_suits(call, &d, FNN_CONV_BACKWARD_INPUT)) {
        fnn_conv_product(call, &d, FNN_CONV_BACKWARD_INPUT);
        return FNN_OK;
    }
    if (input_suits_blocks(call, &d) && fnn_conv_input_blocks(call, &d)) return FNN_OK;
    fnn_tensor dense = *call->in[0];
    if (call->unpooled) spread_out(call, &dense), call->in[0] = &dense;
    const int done = correlated(call, &d, FNN_CONV_BACKWARD_INPUT, NULL);
    if (done && done != FNN_WINOGRAD_LEFT) return FNN_OK;
    if (suits_columns(call, &d)) {
        fnn_conv_columns_gradient(call, &d);
        return FNN_OK;
    }
    ptrdiff_t *order = call->shared;
    fnn_conv_order_by_phase(&d, 0, order);
    fnn_conv_order_by_phase(&d, 1, order + d.r);
    plan_common(call->in[1], &d, 1, &w, &first);
    char *row = (char *)call->shared + order_bytes(&d), *packed = row + bias_bytes(call);
    const fnn_epilogue finish = {.bias = fnn_conv_dense_bias(call, row)};
    if (fnn_conv_quads_suit(call, &d)) {
        fnn_conv_quads(call, &d, finish.bias, packed);
        return FNN_OK;
    }
    char *after = packed + fnn_conv_weight_bytes(&w);
    fnn_correlation *phases = (fnn_correlation *)after;
    fnn_conv_weight_pack(call, &w, packed, order, order + d.r);
    ptrdiff_t wide = fnn_min(d.stride[1], d.w), count = 0;
    for (ptrdiff_t i = 0; i < count_phases(&d); i++) {
        fnn_correlation *phase = &phases[count];
        plan_phase(call, &d, i / wide, i % wide, &same, phase);
        if (done && phase->h.taps * phase->w.taps > 1) continue;
        phase->weight = &w;
        if (finish.bias) phase->epilogue = &finish;
        count++;
    }
    fnn_correlate(call, phases, count, after + phases_bytes(&d));
    return FNN_OK;
}

const fnn_driver fnn_conv2d_backward_input = {.infer = backward_input_infer,
                                              .workspace = backward_input_workspace,
                                              .cost = backward_input_cost,
                                              .run = backward_input_run,
                                              .algorithm = backward_input_way,
                                              .can_unpool = backward_input_can_unpool};

/* ---- conv2d_backward_weight: dweight (groups*k, c, r, s) <- dy (n, groups*k, oh, ow), x (n, groups*c, h, w) ---- */

static int backward_weight_infer(fnn_call *call) {
    fnn_conv_dims d;
    int status = backward_weight_dims(call, &d);
    if (status) return status;
    fnn_set_shape_contiguous(call->out[0], call->in[0]->dtype, 4, (ptrdiff_t[]){d.groups * d.k, d.c, d.r, d.s});
    return FNN_OK;
}

static int suits_blocks(const fnn_call *call, const fnn_conv_dims *d) {
    return fnn_conv_blocks_suits(call, d) && !fnn_conv_amx_suits(call, d, FNN_CONV_BACKWARD_WEIGHT);
}

static void backward_weight_workspace(const fnn_call *call, fnn_workspace *ws) {
    const fnn_conv_dims d = dims_of(call, backward_weight_dims);
    if (fnn_conv_product_suits(call, &d, FNN_CONV_BACKWARD_WEIGHT)) {
        fnn_conv_product_workspace(call, &d, FNN_CONV_BACKWARD_WEIGHT, ws);
        return;
    }
    fnn_conv_weight_gradient_workspace(call, &d, ws);
    enlarge_workspace(call, &d, FNN_CONV_BACKWARD_WEIGHT, ws);
    if (suits_blocks(call, &d)) fnn_conv_blocks_gradient_workspace(call, &d, ws);
}

static int backward_weight_run(fnn_call *call) {
    fnn_conv_dims d;
    int status = backward_weight_dims(call, &d);
    if (status) return status;
    if (fnn_conv_product_suits(call, &d, FNN_CONV_BACKWARD_WEIGHT)) {
        fnn_conv_product(call, &d, FNN_CONV_BACKWARD_WEIGHT);
        return FNN_OK;
    }
    if (suits_blocks(call, &d) && fnn_conv_blocks_gradient(call, &d)) return FNN_OK;
    const int done = fnn_conv_amx_suits(call, &d, FNN_CONV_BACKWARD_WEIGHT) ? fnn_conv_amx_gradient(call, &d)
                                                                            : fnn_winograd_gradient(call, &d);
    if (!done) fnn_conv_weight_gradient(call, &d);
    return FNN_OK;
}

static int backward_weight_can_unpool(const fnn_call *call, const fnn_call *pooling) {
    const fnn_conv_dims d = dims_of(call, backward_weight_dims);
    const fnn_conv_pass pass = FNN_CONV_BACKWARD_WEIGHT;
    if (fnn_conv_product_suits(call, &d, pass) || fnn_conv_amx_suits(call, &d, pass) || !fnn_pool_is_of_blocks(pooling)) return 0;
    return suits_blocks(call, &d) || (!fnn_winograd_suits(call, &d, pass) && fnn_conv_weight_can_unpool(&d, call->in[0]->dtype));
}

const fnn_driver fnn_conv2d_backward_weight = {.infer = backward_weight_infer,
                                               .workspace = backward_weight_workspace,
                                               .cost = backward_weight_cost,
                                               .run = backward_weight_run,
                                               .algorithm = backward_weight_way,
                                               .can_unpool = backward_weight_can_unpool};

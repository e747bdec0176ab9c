/* conv2d.h: the parts of a 2-D convolution that its three passes share.
 *
 * Forward and backward_input are both correlations (conv2d_correlate.c): every output pixel sums `taps` input pixels at
 * fixed distances. backward_input with a stride is one correlation per phase of the input grid: no zeros are inserted. */
#ifndef FNN_CONV2D_H
#define FNN_CONV2D_H
#include "../fastnn.h"

/* Sizes of a convolution: x (n, groups*c, h, w), weight (groups*k, c, r, s), y (n, groups*k, oh, ow). */
typedef struct {
    ptrdiff_t n, groups, c, k, h, w, r, s, oh, ow;
    ptrdiff_t stride[2], padding[4] /* top, bottom, left, right */, dilation[2];
} fnn_conv_dims;

typedef enum { FNN_CONV_FORWARD, FNN_CONV_BACKWARD_INPUT, FNN_CONV_BACKWARD_WEIGHT } fnn_conv_pass;

/* Channels of a group, where lanes are channels of several groups, or of one (kernels/conv_depthwise.h); 1: depthwise. Else 0.
 * Beside register tiles (Zen 3, AVX2, float32, one thread): 2 channels 2.4 to 4.5 times as fast, 4 channels 1.2 to 3.6, a vector of
 * them 1 to 2.8, but 0.5 to 0.95 where a kernel has one row or column. */
static inline ptrdiff_t fnn_conv_lane_group(const fnn_conv_dims *d, const fnn_kernels *K) {
    if (d->groups == 1 || d->c != d->k || K->lanes % d->c) return 0;
    if (d->c == 1) return 1;
    return d->groups * d->c < K->lanes || (d->c == K->lanes && (d->r == 1 || d->s == 1)) ? 0 : d->c;
}

/* Groups of one input channel and several outputs are depthwise, too, if that channel is repeated for each of them. The input's
 * gradient, their sum, goes another way. */
static inline int fnn_conv_repeats(const fnn_conv_dims *d, const fnn_kernels *K) {
    return d->groups > 1 && d->c == 1 && d->k > 1 && d->groups * d->k >= K->lanes;
}

/* A 4-D tensor by its strides in elements. */
typedef struct {
    char *data;
    ptrdiff_t n, c, h, w;
} fnn_image;

/* Whether rows and images of h x w pixels follow one another. */
static inline int fnn_image_is_dense(const fnn_image *t, ptrdiff_t h, ptrdiff_t w) { return t->h == w * t->w && t->n == h * t->h; }

/* One direction of a correlation: tap t of output o reads input o * step + first + t * gap, zero outside 0 .. in-1; its
 * weights are packed at place slot + t. */
typedef struct {
    ptrdiff_t in, out, step, taps, first, gap, slot;
} fnn_axis;

/* Weights as panels [group][panel][place][depth][cols]: `width` counts what is produced, `depth` what is summed over.
 * Weights of a `lane_group` (else 0) are panels of a vector of channels, [input][place][lane]. */
typedef struct {
    const fnn_kernels *K;
    int dtype;
    ptrdiff_t groups, depth, width, r, s, lane_group;
    const char *data;
    ptrdiff_t group_stride, width_stride, depth_stride, r_stride, s_stride;
    ptrdiff_t cols;       /* of a panel */
    ptrdiff_t panels;     /* per group */
    ptrdiff_t panel_size; /* in elements */
    ptrdiff_t *slot;      /* where in a panel kernel position r * S + s is */
    char *packed;
} fnn_conv_weight;

/* With few output channels the columns of tiles are not channels but pixels (scratch holds a plane of each channel) or images
 * (scratch holds [row][column][channel][image]). */
typedef enum { FNN_NOT_NARROW, FNN_NARROW_PIXELS, FNN_NARROW_IMAGES } fnn_narrow_form;

typedef struct {
    const fnn_kernels *K;
    int dtype;
    ptrdiff_t images, groups, depth, width; /* channels per group: read, written */
    fnn_axis h, w;
    fnn_image src, dst;
    const fnn_conv_weight *weight;
    const fnn_epilogue *epilogue;
    double flops;  /* for each output pixel; phases give their mean, so that their blocks agree */
    int depthwise; /* depth = width = all channels, each read by its lane_group only */
    ptrdiff_t repeats; /* depthwise: neighbouring channels that are one of src's; else 1 */
    /* planned */
    int staged;                 /* input rows are copied into padded scratch first */
    int spread;                 /* scratch holds [row][output column][tap][channel]: runs of pixels cross rows */
    int streamed;               /* depthwise: results are written past the caches */
    int asks;                   /* depthwise: the next rows are asked for while one or two are computed */
    int merged;                 /* horizontal taps and channels are one run */
    fnn_narrow_form narrow;
    int linear;                 /* narrow, pixels: runs cross rows */
    ptrdiff_t pitch, row_pitch; /* elements between input pixels of a row, between rows */
    ptrdiff_t plane;            /* narrow, pixels: elements between channels */
    ptrdiff_t block_images, block_rows, block_cols, image_blocks, row_blocks, col_blocks, splits;
    ptrdiff_t stage_size;           /* bytes of scratch for one image's rows */
    ptrdiff_t batch, run;           /* a tile's batch and depth */
    ptrdiff_t call_cols;            /* output channels that one call takes: a panel, or two */
    ptrdiff_t *a_offset, *b_offset; /* batch of each: input, weights */
    ptrdiff_t tile_at, product_at;  /* in scratch: a tile that dst cannot take (else -1); narrow: the product */
    size_t scratch_bytes;
    const fnn_call *pooling;        /* narrow, images: max pooling whose results are made in place of dst */
    const fnn_call *leader;         /* whose followers take finished rows; NULL: nobody follows by rows */
} fnn_correlation;

typedef struct {
    ptrdiff_t image, images, row, rows, col, cols; /* output pixels */
} fnn_conv_block;

/* conv2d.c */
double fnn_conv_cost(const fnn_conv_dims *d, int dtype);
fnn_image fnn_image_of(const fnn_tensor *t);
/* Single pixels: every output is a product with one pixel of the input, the one at its place. */
static inline int fnn_conv_is_pointwise(const fnn_conv_dims *d) {
    return d->groups == 1 && d->r * d->s == 1 && d->stride[0] * d->stride[1] == 1 && d->oh == d->h && d->ow == d->w &&
           d->padding[0] + d->padding[2] == 0;
}
/* t (n, channels, h, w) as pixels by channels; weights (k, c, 1, 1) as (k, c). */
static inline fnn_tensor fnn_conv_pixels_of(const fnn_tensor *t) {
    fnn_tensor last = *t;
    for (int axis = 1; axis < 4; axis++) last.shape[axis] = t->shape[axis % 3 + 1], last.stride[axis] = t->stride[axis % 3 + 1];
    return last;
}
static inline fnn_tensor fnn_conv_factors_of(const fnn_tensor *weight) {
    fnn_tensor w = *weight;
    w.rank = 2;
    return w;
}
/* Whether the calls behind this one could run a second time: none writes what it, one before it, or this call reads,
 * but for the result, which the second time writes anew. */
int fnn_conv_can_repeat_followers(const fnn_call *call);
/* Calls behind this one take the rows of a block of y that has all its channels. */
void fnn_conv_follow(const fnn_call *leader, const fnn_image *y, const fnn_conv_block *b);
/* The call's bias, a copy with unit stride; NULL: there is none. */
const void *fnn_conv_dense_bias(const fnn_call *call, void *copy);

/* What an axis of the forward pass reads; of a phase of backward_input: input positions phase, phase + stride, ... */
fnn_axis fnn_conv_forward_axis(const fnn_conv_dims *d, int axis);
fnn_axis fnn_conv_phase_axis(const fnn_conv_dims *d, int axis, ptrdiff_t phase);
/* The places of kernel positions in packed weights that fnn_conv_phase_axis counts on. */
void fnn_conv_order_by_phase(const fnn_conv_dims *d, int axis, ptrdiff_t *order);
/* Weights of one pass; of lane groups as one group. */
fnn_conv_weight fnn_conv_weight_of(const fnn_tensor *weight, const fnn_conv_dims *d, int backward);

/* conv2d_correlate.c */
void fnn_conv_weight_plan(fnn_conv_weight *w);
size_t fnn_conv_weight_bytes(const fnn_conv_weight *w);
/* Packs all panels into w->packed; order_r[r], order_s[s]: the places of a kernel's rows and columns (NULL: as they
 * are). */
void fnn_conv_weight_pack(const fnn_call *call, fnn_conv_weight *w, void *memory, const ptrdiff_t *order_r,
                          const ptrdiff_t *order_s);
/* Rows from .. from + count - 1 of a panel; place t's go to dst + slot[t], in elements. */
void fnn_conv_weight_gather(const fnn_conv_weight *w, ptrdiff_t panel, ptrdiff_t from, ptrdiff_t count,
                            const ptrdiff_t *slot, char *dst);
void fnn_correlate_plan(fnn_correlation *c);
size_t fnn_correlate_bytes(const fnn_correlation *c); /* shared: offsets */
/* Runs `count` correlations (planned, with the same weights) as one loop; memory: the sum of their fnn_correlate_bytes. */
void fnn_correlate(const fnn_call *call, fnn_correlation *list, ptrdiff_t count, void *memory);

/* Input positions from the first to the last that so many outputs read. */
static inline ptrdiff_t fnn_reach(const fnn_axis *a, ptrdiff_t outputs) {
    return (outputs - 1) * a->step + (a->taps - 1) * a->gap + 1;
}
/* Outputs lo .. hi-1 of the axis find the input position `offset` from theirs inside. */
void fnn_valid_range(const fnn_axis *a, ptrdiff_t offset, ptrdiff_t from, ptrdiff_t to, ptrdiff_t *lo, ptrdiff_t *hi);
/* The kernel rows (columns) that meet the input from output row (column) `at`: the others would add zeros. */
void fnn_taps_that_meet(const fnn_axis *a, ptrdiff_t at, ptrdiff_t *t, ptrdiff_t *t_end);
/* Pixels whose every channel is repeated so many times, one after another. */
void fnn_conv_repeat(const fnn_kernels *K, int dtype, ptrdiff_t pixels, ptrdiff_t channels, ptrdiff_t times, const char *src,
                     ptrdiff_t src_pixel, ptrdiff_t src_channel, char *dst, ptrdiff_t dst_pixel);
char *fnn_conv_input_row(const fnn_correlation *c, ptrdiff_t image, ptrdiff_t group, ptrdiff_t row);
static inline char *fnn_conv_output(const fnn_correlation *c, ptrdiff_t image, ptrdiff_t row, ptrdiff_t col, ptrdiff_t channel) {
    return fnn_at(c->dst.data, image * c->dst.n + row * c->dst.h + col * c->dst.w + channel * c->dst.c, c->dtype);
}
/* Bias and what else follows the sum, on pixels x cols at out; then to dst where out is only a buffer. */
void fnn_conv_finish_run(const fnn_correlation *c, ptrdiff_t pixels, ptrdiff_t cols, char *out, ptrdiff_t out_row, char *dst,
                         const char *bias);

/* The most output channels that are few: one vector of them is slow as columns where a tile of one vector has fewer accumulators
 * than hide their latency. */
static inline ptrdiff_t fnn_few_channels(const fnn_kernels *K) { return K->tile_rows < 8 ? K->lanes : K->lanes / 2; }

/* conv2d_narrow.c */
fnn_narrow_form fnn_narrow_form_of(const fnn_correlation *c);
ptrdiff_t fnn_narrow_plan(fnn_correlation *c); /* of planned blocks; returns the product's bytes */
/* Whether max pooling can be part of a planned correlation, see fnn_call. */
int fnn_narrow_can_pool(const fnn_correlation *c, const fnn_call *pooling);
/* A group's input of a block, for all its images. */
void fnn_narrow_stage(const fnn_correlation *c, const fnn_conv_block *b, ptrdiff_t group, char *scratch);
/* A block's output, from `channel` on, by a panel of weights. */
void fnn_narrow_compute(const fnn_correlation *c, const fnn_conv_block *b, const char *panel, ptrdiff_t channel, const char *bias,
                        char *scratch);

/* conv2d_columns.c: backward_input as a product of dy with all of the kernel, whose windows are added up */
int fnn_conv_columns_can(const fnn_conv_dims *d);
/* What a pixel of dy costs so, and as correlations of phases, in multiply-adds of a lane. */
double fnn_conv_columns_cost(const fnn_conv_dims *d, const fnn_kernels *K);
double fnn_conv_phases_cost(const fnn_conv_dims *d, const fnn_kernels *K);
void fnn_conv_columns_workspace(const fnn_call *call, const fnn_conv_dims *d, fnn_workspace *ws);
void fnn_conv_columns_gradient(const fnn_call *call, const fnn_conv_dims *d);

/* Gradients of the weights by parts of the pixels: each packed as [group][panel][r][s][c][cols]. */
typedef struct {
    const fnn_call *call;
    const fnn_conv_dims *d;
    const fnn_kernels *K;
    int dtype;
    fnn_tensor dw;
    ptrdiff_t groups, c, k; /* as the loops see them: depthwise has one group of all channels */
    ptrdiff_t cols, panels, parts, part_size;
    ptrdiff_t *slot; /* where in a panel kernel position r * S + s is: fnn_conv_combine's to fill */
    char *packed;
} fnn_conv_parts;

/* conv2d_weight.c */
void fnn_conv_weight_gradient_workspace(const fnn_call *call, const fnn_conv_dims *d, fnn_workspace *ws);
void fnn_conv_weight_gradient(const fnn_call *call, const fnn_conv_dims *d);
/* Whether it could take dy from a pooled map's gradient, see fnn_call.unpooled. */
int fnn_conv_weight_can_unpool(const fnn_conv_dims *d, int dtype);
/* dweight = the sum of the parts; followers run on it. Works in so much scratch of the call. */
void fnn_conv_combine(fnn_conv_parts *p);
size_t fnn_conv_combine_scratch(const fnn_conv_parts *p);

/* conv2d_weight_packed.c: few input channels, or few output channels where lanes are pixels or images */
int fnn_conv_packed_suits(const fnn_conv_dims *d, int dtype);
void fnn_conv_packed_gradient_workspace(const fnn_call *call, const fnn_conv_dims *d, fnn_workspace *ws);
void fnn_conv_packed_gradient(const fnn_call *call, const fnn_conv_dims *d);

/* conv2d_weight_wide.c: channels enough for register tiles */
void fnn_conv_wide_gradient_workspace(const fnn_call *call, const fnn_conv_dims *d, fnn_workspace *ws);
void fnn_conv_wide_gradient(const fnn_call *call, const fnn_conv_dims *d);
/* Where a copy of x or dy goes, if channels are not neighbours: `at` is where the workspace ends so far. */
size_t fnn_conv_plan_copy(const fnn_conv_parts *p, const fnn_image *t, ptrdiff_t per_group, ptrdiff_t h, ptrdiff_t w, size_t *at);
/* Makes that copy, if it is needed: t becomes it. */
void fnn_conv_make_channels_last(const fnn_conv_parts *p, fnn_image *t, ptrdiff_t per_group, ptrdiff_t h, ptrdiff_t w, size_t at);

/* conv2d_weight_unfold.c: many channels, windows of several elements */
int fnn_conv_unfold_suits(const fnn_conv_dims *d, int dtype);
void fnn_conv_unfold_gradient_workspace(const fnn_call *call, const fnn_conv_dims *d, fnn_workspace *ws);
void fnn_conv_unfold_gradient(const fnn_call *call, const fnn_conv_dims *d);

/* conv2d_weight_few.c: output channels that fill vectors, and windows of few elements or channels */
int fnn_conv_few_suits(const fnn_conv_dims *d, int dtype);
void fnn_conv_few_gradient_workspace(const fnn_call *call, const fnn_conv_dims *d, fnn_workspace *ws);
void fnn_conv_few_gradient(const fnn_call *call, const fnn_conv_dims *d);

/* conv2d_weight_taps.c: one input channel and few output channels, lanes are a row of the kernel */
int fnn_conv_taps_suits(const fnn_conv_dims *d, int dtype);
void fnn_conv_taps_gradient_workspace(const fnn_call *call, const fnn_conv_dims *d, fnn_workspace *ws);
void fnn_conv_taps_gradient(const fnn_call *call, const fnn_conv_dims *d);

/* conv2d_blocks.c: what is not 0 of dy, if it is as max pooling's gradient makes it: values (n, oh / 2, ow / 2, k), dense, and which of
 * its block's four pixels each is. */
typedef struct {
    const float *values;
    const int32_t *positions;
} fnn_conv_pooled;
/* Whether it pays to look, as far as that does not depend on the kernel's extents. */
int fnn_conv_pooled_suits(const fnn_call *call, const fnn_conv_dims *d);
size_t fnn_conv_pooled_bytes(const fnn_call *call, const fnn_conv_dims *d); /* shared */
size_t fnn_conv_pooled_scratch(const fnn_conv_dims *d);
/* Returns whether dy is such a gradient. */
int fnn_conv_find_pooled(const fnn_call *call, const fnn_conv_dims *d, void *shared, fnn_conv_pooled *pooled);
/* Two rows of dy, with neighbouring channels: where they lie, or a copy of them. */
typedef struct {
    const float *upper, *lower;
    ptrdiff_t pixel;
} fnn_conv_row_pair;
fnn_conv_row_pair fnn_conv_read_pair(const fnn_image *dy, const fnn_conv_dims *d, ptrdiff_t image, ptrdiff_t pair, float *copy);

/* conv2d_input_blocks.c: dx of such a dy, likewise. */
int fnn_conv_input_blocks_suits(const fnn_call *call, const fnn_conv_dims *d);
void fnn_conv_input_blocks_workspace(const fnn_call *call, const fnn_conv_dims *d, fnn_workspace *ws);
int fnn_conv_input_blocks(const fnn_call *call, const fnn_conv_dims *d);

/* conv2d_weight_blocks.c: dweight of such a dy. Returns whether it was such, and the call is computed. */
int fnn_conv_blocks_suits(const fnn_call *call, const fnn_conv_dims *d);
void fnn_conv_blocks_gradient_workspace(const fnn_call *call, const fnn_conv_dims *d, fnn_workspace *ws);
int fnn_conv_blocks_gradient(const fnn_call *call, const fnn_conv_dims *d);

/* conv2d_product.c: single pixels as a matrix product, where that suits; what follows the call has run then. */
int fnn_conv_product_suits(const fnn_call *call, const fnn_conv_dims *d, fnn_conv_pass pass);
const char *fnn_conv_product_way(const fnn_call *call, const fnn_conv_dims *d, fnn_conv_pass pass);
void fnn_conv_product_workspace(const fnn_call *call, const fnn_conv_dims *d, fnn_conv_pass pass, fnn_workspace *ws);
void fnn_conv_product(const fnn_call *call, const fnn_conv_dims *d, fnn_conv_pass pass);

/* conv2d_quads.c: backward_input of depthwise 3 x 3 kernels with stride 2, from channels-last dy; packed: as many bytes as the
 * weights take. */
int fnn_conv_quads_suit(const fnn_call *call, const fnn_conv_dims *d);
void fnn_conv_quads(const fnn_call *call, const fnn_conv_dims *d, const void *bias, void *packed);

/* conv2d_weight_depthwise.c */
void fnn_conv_depthwise_gradient_workspace(const fnn_call *call, const fnn_conv_dims *d, fnn_workspace *ws);
void fnn_conv_depthwise_gradient(const fnn_call *call, const fnn_conv_dims *d);

#endif

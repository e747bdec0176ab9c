/* conv2d_product.c: convolutions of single pixels (1 x 1, no padding; forward any stride, gradients 1) as matrix products (gemm.c):
 * y (pixels x k) = x (pixels x c) times the weights transposed, dx = dy times the weights, dweight = dy transposed times x.
 *
 * The implicit products of conv2d_correlate.c read all weights for each block of pixels, and chunks of conv2d_weight_wide.c that
 * share out the gradient each copy their channels' pixels for themselves; a product cuts both operands to the caches, and copies
 * them once for all threads. That is faster where the weights are too large for a core's cache (two cores of a Granite Rapids,
 * AVX-512: 512 x 2048 channels and 784 pixels 1.16 to 1.35 times as fast, 512 x 1024 and 3136 1.1, 256 x 1024 1.03 to 1.06), or a
 * gradient's pixels are few beside its channels (1024 x 2048 and 784 1.13, 512 x 1024 and 3136 1.14; AVX2 on two cores of a Zen 3:
 * 512 x 2048 and 784 1.11, 512 x 1024 and 3136 1.09, 64 x 256 and 50176 0.7). On bfloat16 matrix units (gemm_amx.c) it is so from
 * 128 channels on: the implicit ways split a block of pixels before they multiply (ResNet-50, batch 16: 1.1 to 1.5 times as fast;
 * with 64 channels 0.8 to 1.0).
 */
#include "conv2d_amx.h"
#include "gemm.h"
#include "gemm_amx.h"

enum {
    LEAST_SIDE = 32,              /* channels for which copying the others costs little */
    LEAST_PIXELS = 128,           /* that a copy of the weights serves */
    LARGE_FACTORS = 1 << 20,      /* bytes of weights that no second-level cache keeps beside pixels (small tiles: twice that) */
    FEW_PIXELS = 1024,            /* of a gradient, one block of the product's inner extent: a sum is not taken up again */
    LARGE_GRADIENT = 512 << 10,   /* elements, whose chunks share out channels however many the pixels are, ... */
    MOST_PIXELS = 4096,           /* ... up to which this was measured */
    WORTH = 80,                   /* multiply-adds of a pixel for each of its elements: copies cost large tiles little then */
    LEAST_SPLIT_SIDE = 128,       /* channels on matrix units */
    MOST_SPLIT_PIXELS = 4096      /* there, of a gradient: of more, split, one call would write tens of megabytes */
};

static fnn_gemm shape_of(const fnn_call *call, const fnn_conv_dims *d, fnn_conv_pass pass) {
    const int gradient = pass == FNN_CONV_BACKWARD_WEIGHT, forward = pass == FNN_CONV_FORWARD;
    const ptrdiff_t pixels = d->n * d->oh * d->ow;
    return (fnn_gemm){.dtype = call->in[0]->dtype,
                      .precision = call->precision,
                      .M = gradient ? d->k : pixels,
                      .N = forward ? d->k : d->c,
                      .K = gradient ? pixels : forward ? d->c : d->k};
}

/* The pixels that outputs read: a stride leaves out others. */
static fnn_tensor pixels_read(const fnn_tensor *t, const fnn_conv_dims *d) {
    fnn_tensor x = fnn_conv_pixels_of(t);
    x.shape[1] = d->oh, x.stride[1] *= d->stride[0];
    x.shape[2] = d->ow, x.stride[2] *= d->stride[1];
    return x;
}

static fnn_tensor result_of(const fnn_call *call, fnn_conv_pass pass) {
    return pass == FNN_CONV_BACKWARD_WEIGHT ? fnn_conv_factors_of(call->out[0]) : fnn_conv_pixels_of(call->out[0]);
}

/* memory: where what has to be staged goes; NULL: it is only counted. */
static fnn_product read_call(const fnn_call *call, const fnn_conv_dims *d, fnn_conv_pass pass, void *memory) {
    const int gradient = pass == FNN_CONV_BACKWARD_WEIGHT, forward = pass == FNN_CONV_FORWARD;
    const fnn_tensor x = forward ? pixels_read(call->in[0], d) : fnn_conv_pixels_of(call->in[0]);
    const fnn_tensor w = gradient ? fnn_conv_pixels_of(call->in[1]) : fnn_conv_factors_of(call->in[1]);
    const fnn_tensor y = result_of(call, pass);
    fnn_staging none = {.memory = NULL};
    fnn_product p = {.g = shape_of(call, d, pass), .staging = {.memory = memory}};
    const fnn_matrix a = fnn_rows_of(&p.staging, &x), b = fnn_rows_of(&p.staging, &w);
    const size_t operands = p.staging.bytes;
    p.result = fnn_result_of(&p.staging, &y, 1);
    const int in_place = p.staging.bytes == operands; /* what follows reads the result where it is to be */
    p.g.a = gradient ? fnn_turned(a) : a;
    p.g.b = forward ? fnn_turned(b) : b;
    p.g.c = fnn_rows_of(&none, &p.result);
    if (!gradient && call->in[2]) p.g.epilogue.bias = fnn_vector_of(&p.staging, call->in[2]);
    if (forward) p.g.epilogue.activation = call->activation;
    if (call->follower && in_place) p.g.leader = call;
    return p;
}

static int suits_matrix_units(const fnn_call *call, const fnn_conv_dims *d, fnn_conv_pass pass) {
    if (fnn_min(d->k, d->c) < LEAST_SPLIT_SIDE) return 0;
    if (pass == FNN_CONV_BACKWARD_WEIGHT && d->n * d->oh * d->ow > MOST_SPLIT_PIXELS) return 0;
    const fnn_gemm g = shape_of(call, d, pass);
    return fnn_gemm_amx_suits(&g);
}

/* A stride picks out pixels, whose copies cost little beside many channels (1024 x 2048 and 784 pixels of 3136: 1.2 times as fast).
 * Not on matrix units: conv2d_amx.c splits them as it picks them out. */
static int picks_pixels(const fnn_conv_dims *d) {
    return d->groups == 1 && d->r * d->s == 1 && d->padding[0] + d->padding[2] == 0 && d->stride[0] * d->stride[1] > 1 &&
           (d->oh - 1) * d->stride[0] < d->h && (d->ow - 1) * d->stride[1] < d->w;
}

int fnn_conv_product_suits(const fnn_call *call, const fnn_conv_dims *d, fnn_conv_pass pass) {
    const int dtype = call->in[0]->dtype, small = fnn_small_tile(fnn_kernels_of(dtype));
    const ptrdiff_t pixels = d->n * d->oh * d->ow, factors = d->k * d->c;
    if (!fnn_conv_is_pointwise(d) && !(pass == FNN_CONV_FORWARD && picks_pixels(d))) return 0;
    if (suits_matrix_units(call, d, pass)) return fnn_conv_is_pointwise(d);
    if (fnn_conv_amx_suits(call, d, pass)) return 0;
    if (fnn_min(d->k, d->c) < LEAST_SIDE || pixels < LEAST_PIXELS) return 0;
    if (pass != FNN_CONV_BACKWARD_WEIGHT) return factors * (ptrdiff_t)fnn_itemsize(dtype) >= (small ? 2 : 1) * LARGE_FACTORS;
    if (factors >= LARGE_GRADIENT && pixels <= MOST_PIXELS) return 1;
    return pixels <= FEW_PIXELS && (small || factors >= WORTH * (d->k + d->c));
}

const char *fnn_conv_product_way(const fnn_call *call, const fnn_conv_dims *d, fnn_conv_pass pass) {
    const fnn_gemm g = shape_of(call, d, pass);
    return fnn_gemm_amx_suits(&g) ? "bfloat16 parts" : "direct";
}

void fnn_conv_product_workspace(const fnn_call *call, const fnn_conv_dims *d, fnn_conv_pass pass, fnn_workspace *ws) {
    const fnn_product p = read_call(call, d, pass, NULL);
    fnn_product_workspace(&p, ws);
}

void fnn_conv_product(const fnn_call *call, const fnn_conv_dims *d, fnn_conv_pass pass) {
    fnn_tensor y = result_of(call, pass);
    const fnn_product p = read_call(call, d, pass, call->shared);
    fnn_product_run(call, &p, &y);
    if (!p.g.leader) fnn_follow_all(call, NULL);
}

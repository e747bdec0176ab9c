/* conv2d_weight_product.c: dweight (k, c, 1, 1) = dy (pixels x k) transposed times x (pixels x c): a matrix product (gemm.c), which
 * copies both operands once for all threads.
 *
 * Where pixels are few beside the channels, chunks of conv2d_weight_wide.c share out the gradient, and each would copy its
 * channels' pixels for itself. (Two cores of a Zen 3, AVX2: 512 x 2048 channels and 784 pixels 1.11 times as fast so,
 * 512 x 1024 and 3136 1.09; 64 x 256 and 50176 0.7 times: there chunks share out pixels and need nothing of each other. Of a
 * Granite Rapids, AVX-512, beside cells: 1024 x 2048 and 784 1.13, 512 x 1024 and 3136 0.92.) */
#include "conv2d.h"
#include "gemm.h"

enum {
    LEAST_PIXELS = 128,         /* that a copy serves */
    FEW_PIXELS = 1024,          /* one block of the product's inner extent: a sum is not taken up again */
    LARGE_GRADIENT = 512 << 10, /* elements, whose chunks share out channels however many the pixels are */
    MOST_PIXELS = 4096,         /* ... up to which this was measured */
    LEAST_SIDE = 32,            /* channels for which copying the others costs little */
    WORTH = 80                  /* multiply-adds of a pixel for each of its elements: what copies cost large tiles is small then */
};

int fnn_conv_product_suits(const fnn_conv_dims *d, int dtype) {
    const ptrdiff_t pixels = d->n * d->oh * d->ow;
    if (!fnn_conv_is_pointwise(d) || fnn_min(d->k, d->c) < LEAST_SIDE || pixels < LEAST_PIXELS) return 0;
    if (!fnn_small_tile(fnn_kernels_of(dtype))) return pixels <= FEW_PIXELS && d->k * d->c >= WORTH * (d->k + d->c);
    return pixels <= FEW_PIXELS || (d->k * d->c >= LARGE_GRADIENT && pixels <= MOST_PIXELS);
}

/* memory: where what has to be staged goes; NULL: it is only counted. */
static void read_call(const fnn_call *call, const fnn_conv_dims *d, void *memory, fnn_product *p) {
    const fnn_tensor dw = fnn_conv_factors_of(call->out[0]);
    const fnn_tensor dy_pixels = fnn_conv_pixels_of(call->in[0]), x_pixels = fnn_conv_pixels_of(call->in[1]);
    fnn_staging none = {.memory = NULL};
    p->staging = (fnn_staging){.memory = memory};
    const fnn_matrix dy = fnn_rows_of(&p->staging, &dy_pixels), x = fnn_rows_of(&p->staging, &x_pixels);
    p->result = fnn_result_of(&p->staging, &dw, 1);
    p->g = (fnn_gemm){.dtype = dw.dtype, .precision = call->precision, .M = d->k, .N = d->c, .K = d->n * d->oh * d->ow,
                      .a = {.data = dy.data, .row = dy.col, .col = dy.row}, .b = x, .c = fnn_rows_of(&none, &p->result),
                      .leader = call->follower ? call : NULL};
}

void fnn_conv_product_gradient_workspace(const fnn_call *call, const fnn_conv_dims *d, fnn_workspace *ws) {
    fnn_product p;
    read_call(call, d, NULL, &p);
    fnn_product_workspace(&p, ws);
}

void fnn_conv_product_gradient(const fnn_call *call, const fnn_conv_dims *d) {
    fnn_product p;
    read_call(call, d, call->shared, &p);
    fnn_tensor dw = fnn_conv_factors_of(call->out[0]);
    fnn_product_run(call, &p, &dw);
}

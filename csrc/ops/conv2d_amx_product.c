/* conv2d_amx_product.c: convolutions of single pixels (1 x 1, stride 1, no padding) on bfloat16 matrix units, as matrix products
 * (gemm_amx.c): y (pixels x k) = x (pixels x c) times the weights transposed, dx = dy times the weights, dweight = dy transposed
 * times x.
 *
 * The implicit products of conv2d_amx.c and conv2d_amx_weight.c split a block of pixels before they multiply, and
 * read all weights for each block; a product cuts both operands to the caches. (Two cores of a Granite Rapids, ResNet-50, batch 16:
 * 1.1 to 1.5 times as fast; with 64 channels on a side 0.8 to 1.0 times.) */
#include "conv2d_amx.h"
#include "gemm.h"
#include "gemm_amx.h"

enum {
    LEAST_SIDE = 128,  /* channels */
    MOST_PIXELS = 4096 /* that a sum of the gradient runs over: of more, split, one call would write tens of megabytes */
};

static fnn_matrix turned(fnn_matrix m) { return (fnn_matrix){.data = m.data, .row = m.col, .col = m.row}; }

/* memory: where what has to be staged goes; NULL: it is only counted. */
static void read_call(const fnn_call *call, const fnn_conv_dims *d, fnn_conv_pass pass, void *memory, fnn_product *p) {
    const int gradient = pass == FNN_CONV_BACKWARD_WEIGHT, forward = pass == FNN_CONV_FORWARD;
    const ptrdiff_t pixels = d->n * d->oh * d->ow;
    const fnn_tensor x = fnn_conv_pixels_of(call->in[0]);
    const fnn_tensor w = gradient ? fnn_conv_pixels_of(call->in[1]) : fnn_conv_factors_of(call->in[1]);
    const fnn_tensor y = gradient ? fnn_conv_factors_of(call->out[0]) : fnn_conv_pixels_of(call->out[0]);
    fnn_staging none = {.memory = NULL};
    p->staging = (fnn_staging){.memory = memory};
    const fnn_matrix a = fnn_rows_of(&p->staging, &x), b = fnn_rows_of(&p->staging, &w);
    p->result = fnn_result_of(&p->staging, &y, 1);
    p->g = (fnn_gemm){.dtype = y.dtype,
                      .precision = call->precision,
                      .M = gradient ? d->k : pixels,
                      .N = forward ? d->k : d->c,
                      .K = gradient ? pixels : forward ? d->c : d->k,
                      .a = gradient ? turned(a) : a,
                      .b = forward ? turned(b) : b,
                      .c = fnn_rows_of(&none, &p->result)};
    if (!gradient && call->in[2]) p->g.epilogue.bias = fnn_vector_of(&p->staging, call->in[2]);
}

int fnn_conv_amx_product_suits(const fnn_call *call, const fnn_conv_dims *d, fnn_conv_pass pass) {
    const ptrdiff_t pixels = d->n * d->oh * d->ow;
    if (!fnn_conv_is_pointwise(d) || fnn_min(d->k, d->c) < LEAST_SIDE) return 0;
    if (pass == FNN_CONV_BACKWARD_WEIGHT && pixels > MOST_PIXELS) return 0;
    const fnn_gemm g = {.dtype = FNN_FLOAT32,
                        .precision = call->precision,
                        .M = pass == FNN_CONV_BACKWARD_WEIGHT ? d->k : pixels,
                        .N = pass == FNN_CONV_FORWARD ? d->k : d->c,
                        .K = pass == FNN_CONV_BACKWARD_WEIGHT ? pixels : pass == FNN_CONV_FORWARD ? d->c : d->k};
    return fnn_gemm_amx_suits(&g);
}

void fnn_conv_amx_product_workspace(const fnn_call *call, const fnn_conv_dims *d, fnn_conv_pass pass, fnn_workspace *ws) {
    fnn_product p;
    fnn_workspace own = {0};
    read_call(call, d, pass, NULL, &p);
    fnn_gemm_amx_workspace(&p.g, &own);
    fnn_enlarge(ws, p.staging.bytes + own.shared, own.scratch);
}

int fnn_conv_amx_product(const fnn_call *call, const fnn_conv_dims *d, fnn_conv_pass pass, int activation) {
    fnn_product p;
    read_call(call, d, pass, call->shared, &p);
    p.g.epilogue.activation = activation;
    if (!fnn_gemm_amx_run(call, &p.g, (char *)call->shared + p.staging.bytes)) return 0;
    fnn_tensor y = pass == FNN_CONV_BACKWARD_WEIGHT ? fnn_conv_factors_of(call->out[0]) : fnn_conv_pixels_of(call->out[0]);
    fnn_finish(&y, &p.result);
    fnn_follow_all(call, NULL);
    return 1;
}

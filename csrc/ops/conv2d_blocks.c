/* conv2d_blocks.c: dy where it is the gradient of a map that was pooled by maxima of 2 x 2 windows: of each block of 2 x 2 pixels and
 * channel at most one element is not 0. That is seen when a call runs; dy is looked at until a block holds two, which in any other dy
 * is soon. A program knows it, and lets a gradient read the pooled map's (fnn_call.unpooled). */
#include "conv2d.h"

enum {
    POOLED_BYTES = 8 << 20, /* of values, and of positions, at most */
    OCTET = 8               /* lanes, at least: both gradients keep a window's rows of sums in registers */
};

typedef struct {
    const fnn_conv_dims *d;
    const fnn_kernels *K;
    fnn_image dy;
    float *values;
    int32_t *positions;
    int is_other; /* dy is not such a gradient */
} search;

/* Elements of a row of the pooled map, and of all images. */
static ptrdiff_t row_of(const fnn_conv_dims *d) { return d->ow / 2 * d->k; }
static ptrdiff_t size_of(const fnn_conv_dims *d) { return d->n * (d->oh / 2) * row_of(d); }

int fnn_conv_pooled_suits(const fnn_call *call, const fnn_conv_dims *d) {
    if (call->in[0]->dtype != FNN_FLOAT32 || call->algorithm == FNN_CONV_WINOGRAD || call->algorithm == FNN_CONV_PARTS) return 0;
    if (fnn_kernels_of(FNN_FLOAT32)->lanes < OCTET || d->n == 0 || d->groups > 1 || d->k < 2) return 0;
    if (d->stride[0] > 1 || d->stride[1] > 1 || d->dilation[0] > 1 || d->dilation[1] > 1) return 0;
    return d->oh % 2 == 0 && d->ow % 2 == 0 && d->n <= POOLED_BYTES / 2 / (d->oh * d->ow * d->k);
}

/* shared: [values][positions]; scratch: a pair of rows */
size_t fnn_conv_pooled_bytes(const fnn_call *call, const fnn_conv_dims *d) {
    return call->unpooled ? 0 : 2 * fnn_whole_lines((size_t)size_of(d) * sizeof(float));
}
size_t fnn_conv_pooled_scratch(const fnn_conv_dims *d) { return fnn_whole_lines((size_t)(2 * d->ow * d->k) * sizeof(float)); }

fnn_conv_row_pair fnn_conv_read_pair(const fnn_image *dy, const fnn_conv_dims *d, ptrdiff_t image, ptrdiff_t pair, float *copy) {
    const fnn_kernels *K = fnn_kernels_of(FNN_FLOAT32);
    const ptrdiff_t size = d->ow * d->k;
    const float *rows[2];
    for (int i = 0; i < 2; i++) rows[i] = (const float *)dy->data + image * dy->n + (2 * pair + i) * dy->h;
    if (dy->c == 1) return (fnn_conv_row_pair){rows[0], rows[1], dy->w};
    for (int i = 0; i < 2; i++) K->conv_pack(1, d->ow, d->k, rows[i], dy->w, dy->c, copy + i * size, NULL, d->k);
    return (fnn_conv_row_pair){copy, copy + size, d->k};
}

/* An image's, until it is seen that dy is another. */
static void find_in_image(search *s, ptrdiff_t image, void *scratch) {
    const fnn_conv_dims *d = s->d;
    int is_single = !__atomic_load_n(&s->is_other, __ATOMIC_RELAXED);
    for (ptrdiff_t i = 0; i < d->oh / 2 && is_single; i++) {
        const ptrdiff_t at = (image * (d->oh / 2) + i) * row_of(d);
        const fnn_conv_row_pair rows = fnn_conv_read_pair(&s->dy, d, image, i, scratch);
        s->K->conv_blocks_find(d->ow / 2, d->k, rows.upper, rows.lower, rows.pixel, s->values + at, s->positions + at, &is_single);
    }
    if (!is_single) __atomic_store_n(&s->is_other, 1, __ATOMIC_RELAXED);
}

static void find_in_later(void *context, ptrdiff_t index, void *scratch) { find_in_image(context, index + 1, scratch); }

int fnn_conv_find_pooled(const fnn_call *call, const fnn_conv_dims *d, void *shared, fnn_conv_pooled *pooled) {
    if (call->unpooled) {
        *pooled = (fnn_conv_pooled){call->unpooled->in[0]->data, call->unpooled->in[1]->data};
        return 1;
    }
    search s = {.d = d, .K = fnn_kernels_of(FNN_FLOAT32), .dy = fnn_image_of(call->in[0]), .values = shared};
    s.positions = (int32_t *)((char *)shared + fnn_conv_pooled_bytes(call, d) / 2);
    find_in_image(&s, 0, call->scratch);
    if (!s.is_other) fnn_parallel_for(call, d->n - 1, 1.2 * (double)size_of(d), find_in_later, &s);
    *pooled = (fnn_conv_pooled){s.values, s.positions};
    return !s.is_other;
}

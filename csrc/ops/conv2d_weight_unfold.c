/* conv2d_weight_unfold.c: gradients of many channels' weights as a matrix product (gemm.c): dy transposed (k x pixels) times
 * windows, unfolded to rows (pixels x taps c; im2col).
 *
 * No matrix of windows is ever made: where the product copies a block of it, it is copied from the image, zeros for what lies
 * beyond its edges (so an infinity or NaN in dy reaches all taps, those too that meet only the edge there). Tiles then have the
 * length of all pixels, not of a row of the map. An element is copied once for every window it is in, which costs little where
 * each copy serves many channels. (3 x 3 kernels of stride 2 beside conv2d_weight_wide.c, two cores of a Granite Rapids: 512 to 512
 * channels 1.11 times as fast, 256 to 256 1.13, 128 to 128 1.06, 64 to 128 0.90; with AVX2 1.09, 1.09, 0.91, 0.87.) */
#include "conv2d.h"
#include "gemm.h"

#include <string.h>

enum {
    LEAST_CHANNELS = 128, /* of either side */
    SMALL_TILES_LEAST = 256
};

/* ---- windows ---- */

typedef struct {
    const fnn_kernels *K;
    int dtype;
    fnn_axis h, w;
    ptrdiff_t depth; /* channels, neighbours in memory */
    fnn_image src;
} windows;

static void clear_rows(const windows *p, ptrdiff_t rows, ptrdiff_t cols, char *to, ptrdiff_t wide, ptrdiff_t panel) {
    const ptrdiff_t size = (ptrdiff_t)fnn_itemsize(p->dtype);
    for (ptrdiff_t i = 0; i < rows; i++)
        for (ptrdiff_t j = 0; j < cols; j += wide)
            memset(to + (i * wide + j / wide * panel) * size, 0, (size_t)(fnn_min(wide, cols - j) * size));
}

/* Channels from .. from + cols - 1 of one tap, for `pixels` windows of an output row from column `col` on. */
static void unfold_run(const windows *p, const char *row, ptrdiff_t offset, ptrdiff_t col, ptrdiff_t pixels, ptrdiff_t cols,
                       char *to, ptrdiff_t wide, ptrdiff_t panel) {
    const ptrdiff_t step = wide * (ptrdiff_t)fnn_itemsize(p->dtype);
    ptrdiff_t lo = col, hi = col;
    if (row) fnn_valid_range(&p->w, offset, col, col + pixels, &lo, &hi);
    clear_rows(p, lo - col, cols, to, wide, panel);
    if (hi > lo)
        p->K->gemm_pack(hi - lo, cols, fnn_at(row, (lo * p->w.step + offset) * p->src.w, p->dtype), p->w.step * p->src.w, 1,
                        to + (lo - col) * step, wide, panel);
    clear_rows(p, col + pixels - hi, cols, to + (hi - col) * step, wide, panel);
}

/* One tap's channels from `from` on, for windows first .. first + count - 1. */
static void unfold_tap(const windows *p, ptrdiff_t tap, ptrdiff_t from, ptrdiff_t cols, ptrdiff_t first, ptrdiff_t count, char *to,
                       ptrdiff_t wide, ptrdiff_t panel) {
    const ptrdiff_t down = p->h.first + tap / p->w.taps * p->h.gap, across = p->w.first + tap % p->w.taps * p->w.gap;
    for (ptrdiff_t i = first, n; i < first + count; i += n, to += n * wide * (ptrdiff_t)fnn_itemsize(p->dtype)) {
        const ptrdiff_t col = i % p->w.out, line = i / p->w.out, y = line % p->h.out * p->h.step + down;
        const int inside = y >= 0 && y < p->h.in;
        n = fnn_min(p->w.out - col, first + count - i);
        const char *row = inside ? fnn_at(p->src.data, line / p->h.out * p->src.n + y * p->src.h + from, p->dtype) : NULL;
        unfold_run(p, row, across, col, n, cols, to, wide, panel);
    }
}

/* What a gatherer copies: windows first .. first + count - 1 are rows, their elements [tap][channel] columns, of which whole panels
 * are one tap's. */
static void unfold(const void *context, ptrdiff_t first, ptrdiff_t count, ptrdiff_t col, ptrdiff_t cols, void *to, ptrdiff_t wide,
                   ptrdiff_t panel) {
    const windows *p = context;
    for (ptrdiff_t j = 0, n; j < cols; j += n) {
        const ptrdiff_t tap = (col + j) / p->depth, from = (col + j) % p->depth;
        n = fnn_min(p->depth - from, cols - j);
        unfold_tap(p, tap, from, n, first, count, fnn_at(to, j / wide * panel, p->dtype), wide, panel);
    }
}

/* ---- the product ---- */

typedef struct {
    const fnn_call *call;
    const fnn_conv_dims *d;
    windows windows;
    fnn_gatherer gatherer;
    fnn_matrix dy; /* pixels x k */
    char *result;  /* k x taps c */
    size_t bytes;
} gradient;

static void make_gradient(gradient *p, const fnn_call *call, const fnn_conv_dims *d, void *memory) {
    const int dtype = call->in[0]->dtype;
    fnn_staging staging = {.memory = memory};
    const fnn_tensor x = fnn_channels_last_of(&staging, call->in[1], 1), dy = fnn_conv_pixels_of(call->in[0]);
    *p = (gradient){.call = call, .d = d};
    p->dy = fnn_rows_of(&staging, &dy);
    p->windows = (windows){.K = fnn_kernels_of(dtype), .dtype = dtype, .h = fnn_conv_forward_axis(d, 0),
                           .w = fnn_conv_forward_axis(d, 1), .depth = d->c, .src = fnn_image_of(&x)};
    p->result = fnn_place(memory, &staging.bytes, (size_t)(d->k * d->r * d->s * d->c) * fnn_itemsize(dtype));
    p->bytes = staging.bytes;
}

static fnn_gemm product_of(gradient *p) {
    const fnn_conv_dims *d = p->d;
    p->gatherer = (fnn_gatherer){unfold, &p->windows};
    return (fnn_gemm){.dtype = p->windows.dtype,
                      .M = d->k,
                      .N = d->r * d->s * d->c,
                      .K = d->n * d->oh * d->ow,
                      .a = fnn_turned(p->dy),
                      .b = {.data = p->windows.src.data, .gatherer = &p->gatherer},
                      .c = {.data = p->result, .row = d->r * d->s * d->c, .col = 1}};
}

/* An output channel's gradient, from [tap][channel] to where it belongs. */
static void scatter_row(void *context, ptrdiff_t k, void *scratch) {
    const gradient *p = context;
    const fnn_conv_dims *d = p->d;
    const fnn_tensor *dw = p->call->out[0];
    (void)scratch;
    for (ptrdiff_t tap = 0; tap < d->r * d->s; tap++)
        p->windows.K->conv_scatter(1, d->c, fnn_at(p->result, (k * d->r * d->s + tap) * d->c, p->windows.dtype), d->c,
                                   fnn_at(dw->data, k * dw->stride[0] + tap / d->s * dw->stride[2] + tap % d->s * dw->stride[3],
                                          p->windows.dtype),
                                   0, dw->stride[1]);
    if (p->call->follower) fnn_follow(p->call, k * d->c * d->r * d->s, d->c * d->r * d->s); /* only a dense gradient is followed */
}

/* ---- the interface ---- */

int fnn_conv_unfold_suits(const fnn_conv_dims *d, int dtype) {
    const fnn_kernels *K = fnn_kernels_of(dtype);
    return d->groups == 1 && d->r * d->s > 1 && d->c % K->tile_cols == 0 &&
           fnn_min(d->c, d->k) >= (fnn_small_tile(K) ? SMALL_TILES_LEAST : LEAST_CHANNELS);
}

void fnn_conv_unfold_gradient_workspace(const fnn_call *call, const fnn_conv_dims *d, fnn_workspace *ws) {
    gradient p;
    make_gradient(&p, call, d, NULL);
    const fnn_gemm g = product_of(&p);
    ws->shared = p.bytes;
    fnn_gemm_blocks_workspace(&g, ws);
}

void fnn_conv_unfold_gradient(const fnn_call *call, const fnn_conv_dims *d) {
    gradient p;
    make_gradient(&p, call, d, call->shared);
    const fnn_gemm g = product_of(&p);
    fnn_gemm_blocks_run(call, &g, (char *)call->shared + p.bytes);
    fnn_parallel_for(call, d->k, (double)(g.M * g.N), scatter_row, &p);
}

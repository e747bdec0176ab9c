/* conv2d_winograd.h: F(4x4, 3x3) and F(4x4, 2x2) convolutions (kernels/winograd.h), for conv2d.c. */
#ifndef FNN_CONV2D_WINOGRAD_H
#define FNN_CONV2D_WINOGRAD_H
#include "conv2d.h"
#include "gemm.h"

/* Whether this pass of a convolution goes this way: by shape, instruction set and setting. */
int fnn_winograd_suits(const fnn_call *call, const fnn_conv_dims *d, fnn_conv_pass pass);
/* Predicted single-thread nanoseconds. */
double fnn_winograd_cost(const fnn_conv_dims *d, fnn_conv_pass pass);
/* Enlarges *ws, which the direct way needs, should a result be infinite or NaN. Nothing where it does not suit. */
void fnn_winograd_workspace(const fnn_call *call, const fnn_conv_dims *d, fnn_conv_pass pass, fnn_workspace *ws);
/* 1: done. 0: it does not suit, or a result is not finite: the call must be computed directly; what follows it has not
 * run, or only in ways that can be repeated. FNN_WINOGRAD_LEFT: done but for the phases of single taps, and what follows. */
enum { FNN_WINOGRAD_LEFT = 2 };
int fnn_winograd_correlate(const fnn_call *call, const fnn_conv_dims *d, fnn_conv_pass pass,
                           const fnn_epilogue *epilogue);
int fnn_winograd_gradient(const fnn_call *call, const fnn_conv_dims *d);

/* One in fnn_winograd_cost is so many nanoseconds of the avx512 level of a machine that has matrix units. */
#define FNN_WINOGRAD_NS_OF_COST (0.0125 / 0.02)
/* conv2d_winograd_amx.c: the same on bfloat16 matrix units in three parts, where they are and take less time, or the setting wants
 * transforms: whether a call that suits goes this way. */
int fnn_winograd_amx_suits(const fnn_call *call, const fnn_conv_dims *d, fnn_conv_pass pass);
/* Predicted nanoseconds on one core of such a machine. */
double fnn_winograd_amx_cost(const fnn_conv_dims *d, fnn_conv_pass pass);
void fnn_winograd_amx_workspace(const fnn_call *call, const fnn_conv_dims *d, fnn_conv_pass pass, fnn_workspace *ws);
int fnn_winograd_amx_correlate(const fnn_call *call, const fnn_conv_dims *d, fnn_conv_pass pass,
                               const fnn_epilogue *epilogue);

/* conv2d_winograd_amx_weight.c */
double fnn_winograd_amx_gradient_cost(const fnn_conv_dims *d);
void fnn_winograd_amx_gradient_workspace(const fnn_call *call, const fnn_conv_dims *d, fnn_workspace *ws);
int fnn_winograd_amx_gradient(const fnn_call *call, const fnn_conv_dims *d);

/* conv2d_winograd5.c: F(2x2, 5x5) of few input channels: whether a call goes this way; then as above. */
int fnn_winograd5_suits(const fnn_call *call, const fnn_conv_dims *d, fnn_conv_pass pass);
double fnn_winograd5_cost(const fnn_conv_dims *d, fnn_conv_pass pass);
void fnn_winograd5_workspace(const fnn_call *call, const fnn_conv_dims *d, fnn_conv_pass pass, fnn_workspace *ws);
int fnn_winograd5_correlate(const fnn_call *call, const fnn_conv_dims *d, fnn_conv_pass pass, const fnn_epilogue *epilogue);
int fnn_winograd5_gradient(const fnn_call *call, const fnn_conv_dims *d);

/* ---- what the passes share ---- */

enum {
    FNN_WINOGRAD_PANEL = 32, /* columns of a panel of U, or of dM: a whole number of register tiles on every ISA */
    FNN_WINOGRAD_PIXELS = FNN_WINOGRAD_PATCH * FNN_WINOGRAD_PATCH,
    FNN_WINOGRAD_STRIDE = 4,                                             /* at most */
    FNN_WINOGRAD_PLACES = 4 * FNN_WINOGRAD_STRIDE * FNN_WINOGRAD_STRIDE  /* kernel positions, at most */
};

/* A convolution as the sum of one of stride 1 for each phase of x: rows p, p + stride, ... of x meet the kernel rows t, t + stride,
 * ..., `taps` of them. Phases are counted by their t, row by row. 3x3 kernels of stride 1 are one phase; kernels of twice their
 * stride have 2x2 taps in each. backward_input also takes what lies between, as 3x3 kernels of stride 2: their other phases are
 * 2x1, 1x2, and 1x1, which are left to direct sums. taps 0: it is nothing of these. */
typedef struct {
    int taps, patch, planes;
    ptrdiff_t kernel[2], stride[2], padding[2], phases, left;
} fnn_winograd_form;

fnn_winograd_form fnn_winograd_form_of(const fnn_conv_dims *d, fnn_conv_pass pass);

/* How the tiles of a map are shared out, in blocks of at most `size` tiles. */
typedef struct {
    ptrdiff_t images, rows, cols; /* tiles */
    ptrdiff_t block_images, block_rows, block_cols, image_blocks, row_blocks, col_blocks;
    ptrdiff_t size, blocks;
} fnn_tiling;

fnn_tiling fnn_tiling_of(ptrdiff_t images, ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t most);

/* One block of tiles. */
typedef struct {
    ptrdiff_t image, row, col, images, rows, cols, tiles;
} fnn_tile_block;

fnn_tile_block fnn_tile_block_of(const fnn_tiling *t, ptrdiff_t block);

/* Where tile `index` of a block is, in tiles. */
static inline void fnn_tile_at(const fnn_tile_block *b, ptrdiff_t index, ptrdiff_t *image, ptrdiff_t *row,
                               ptrdiff_t *col) {
    *col = b->col + index % b->cols;
    *row = b->row + index / b->cols % b->rows;
    *image = b->image + index / b->cols / b->rows;
}

/* A map of tiles; what lies outside is read from `zeros`, one for each channel. */
typedef struct {
    fnn_image image;
    ptrdiff_t h, w;
    const char *zeros;
} fnn_tile_source;

/* A phase's part of the map x; the place on it that the first output reads first. */
fnn_tile_source fnn_phase_of(const fnn_winograd_form *f, const fnn_tile_source *x, ptrdiff_t phase);
ptrdiff_t fnn_phase_first(const fnn_winograd_form *f, int axis, ptrdiff_t phase);

/* Where the weights of kernel position (r, s) are among those of all phases: [phase][row][col], `turned` round. */
ptrdiff_t fnn_phase_place(const fnn_winograd_form *f, ptrdiff_t r, ptrdiff_t s, int turned);

/* The pixels of size x size from (row, col) on, channels from `channel` on. */
void fnn_tile_pixels(const fnn_tile_source *s, ptrdiff_t image, ptrdiff_t row, ptrdiff_t col, int size,
                     ptrdiff_t channel, const void **pixel);

/* Memory to be asked for while something else is computed, a share before each of `calls` products: what rows row ..
 * row_end - 1 hold in channels first .. first + channels - 1, of images image .. image + images - 1. Nothing where the
 * block has not whole rows, or rows are not equally far apart. */
typedef struct {
    fnn_prefetch lines;
    ptrdiff_t share;
} fnn_ahead;

fnn_ahead fnn_ahead_of(const fnn_tile_source *s, const fnn_tiling *t, const fnn_tile_block *b, ptrdiff_t row,
                       ptrdiff_t row_end, ptrdiff_t first, ptrdiff_t channels, ptrdiff_t calls);

static inline void fnn_ask_ahead(fnn_ahead *a) { fnn_prefetch_some(&a->lines, a->share); }

/* Panels that one call of the register tile takes: several only where a tile's are the panels of U. */
static inline ptrdiff_t fnn_winograd_panels_at_once(const fnn_kernels *K) {
    return K->tile_cols == FNN_WINOGRAD_PANEL ? K->best_cols / FNN_WINOGRAD_PANEL : 1;
}

/* Elements, rounded up to an odd number of cache lines: planes so far apart do not share cache sets. */
static inline ptrdiff_t fnn_odd_lines(ptrdiff_t elements) { return 16 * (fnn_ceil_div(elements, 16) | 1); }

/* conv2d_winograd_weight.c */
void fnn_winograd_gradient_workspace(const fnn_call *call, const fnn_conv_dims *d, fnn_workspace *ws);

#endif

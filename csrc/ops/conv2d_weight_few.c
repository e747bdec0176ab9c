/* conv2d_weight_few.c: dweight (k, c, r, s) = sum over images and output pixels of x (n, c, h, w) times dy (n, k, oh, ow), where
 * output channels nearly fill vectors and windows have few elements: first layers, mostly.
 *
 * A pixel of dy is then a few vectors, two of which every element of its window multiplies at a time; a row of a window is one run
 * of neighbours in padded channels-last rows of x. Nothing is turned around or packed, which with so few products takes most of the
 * time; lanes that k leaves empty are lost.
 *
 * The order of summation is fixed by shape: output rows (image by image) form `parts` equal ranges, of which each element is one
 * chain; the parts are added in order. */
#include "conv2d.h"

#include <string.h>

enum {
    PARTS = 16,
    PARTS_BYTES = 8 << 20,  /* all parts together */
    PART_PIXELS = 128,      /* at least: adding one part costs what a few pixels do */
    BLOCK_BYTES = 20 << 10, /* of dy at a time: with what is read beside it, the first-level cache */
    WINDOW_ELEMENTS = 72,   /* of small windows: with more, the turning around that is saved is little ... */
    FEW_INPUTS = 31,        /* ... unless so few channels of x leave tiles empty, or are read where they are (conv2d_weight_wide.c) */
    SMALL_PIXELS = 16,      /* of an image, at least, or a tile's sums are loaded and stored as often as they are used; ... */
    LARGE_PIXELS = 64       /* ... where windows are large and less is to be gained */
};

typedef struct {
    fnn_conv_parts sum; /* a part is [panel][r][s][c][one or two vectors] */
    fnn_image x, dy;
    ptrdiff_t units;    /* output rows of all images */
    ptrdiff_t rows, cols; /* of a block, at most: several rows only if whole */
    ptrdiff_t pitch;    /* elements of a padded row of x */
    int copies;         /* dy's channels are not neighbours */
    size_t dy_at, scratch, slot_at, shared;
} few_plan;

/* Beside the other ways (Zen 3, AVX2, float32, one thread): 7 and 8 channels of 3x3 windows 1.4 to 2.3 times as fast, of 5x5 ones
 * 1.2 to 1.6, of 2x2 ones 1.2 to 4; 6 channels no faster. More than a vector of them: 3x3 windows of one channel 1.8 to 2.8, of two
 * to five 1.2 to 1.7, 5x5 to 11x11 ones of three 1.03 to 1.1, 5x5 ones of 9 to 31 1 to 1.7. */
int fnn_conv_few_suits(const fnn_conv_dims *d, int dtype) {
    const fnn_kernels *K = fnn_kernels_of(dtype);
    const ptrdiff_t pixels = d->oh * d->ow, window = d->r * d->s * d->c, width = fnn_round_up(d->k, 2 * K->lanes);
    const int small = window <= WINDOW_ELEMENTS;
    if (d->n * pixels == 0 || d->groups > 1 || d->s == 1 || K->lanes > fnn_few_channels(K)) return 0;
    if (d->dilation[0] > 1 || d->dilation[1] > 1 || d->stride[0] > d->r || d->stride[1] > d->s) return 0;
    if (d->k <= K->lanes) return small && 4 * d->k > 3 * K->lanes;
    return d->c <= FEW_INPUTS && pixels >= (small ? SMALL_PIXELS : LARGE_PIXELS) &&
           width <= PARTS_BYTES / (PARTS * window * (ptrdiff_t)fnn_itemsize(dtype));
}

static ptrdiff_t rows_read(const fnn_conv_dims *d, ptrdiff_t rows) { return (rows - 1) * d->stride[0] + d->r; }

static few_plan plan_of(const fnn_call *call, const fnn_conv_dims *d) {
    const fnn_tensor *dy = call->in[0], *x = call->in[1];
    const fnn_kernels *K = fnn_kernels_of(x->dtype);
    const ptrdiff_t size = (ptrdiff_t)fnn_itemsize(x->dtype);
    const ptrdiff_t cols = d->k > K->lanes ? 2 * K->lanes : K->lanes, panels = fnn_ceil_div(d->k, cols);
    few_plan p = {.sum = {.call = call, .d = d, .K = K, .dtype = x->dtype, .dw = *call->out[0], .groups = 1, .c = d->c, .k = d->k,
                          .cols = cols, .panels = panels, .part_size = panels * d->r * d->s * d->c * cols},
                  .x = fnn_image_of(x), .dy = fnn_image_of(dy), .units = d->n * d->oh};
    p.sum.parts = fnn_max(fnn_min(fnn_min(p.units * d->ow / PART_PIXELS, PARTS), p.units), 1);
    p.rows = fnn_min(fnn_max(BLOCK_BYTES / (d->k * d->ow * size), 1), d->oh);
    p.cols = p.rows > 1 ? d->ow : fnn_min(fnn_max(BLOCK_BYTES / (d->k * size), 1), d->ow);
    p.pitch = ((d->ow - 1) * d->stride[1] + d->s) * d->c;
    p.copies = p.dy.c != 1 && d->k > 1;
    p.dy_at = fnn_whole_lines((size_t)(rows_read(d, p.rows) * p.pitch * size));
    p.scratch = p.dy_at + (p.copies ? fnn_whole_lines((size_t)(p.rows * d->ow * d->k * size)) : 0);
    if (p.scratch < fnn_conv_combine_scratch(&p.sum)) p.scratch = fnn_conv_combine_scratch(&p.sum);
    p.slot_at = fnn_whole_lines((size_t)(p.sum.parts * p.sum.part_size * size));
    p.shared = p.slot_at + fnn_whole_lines((size_t)(d->r * d->s) * sizeof(ptrdiff_t));
    return p;
}

/* What output rows y .. y + rows - 1 of image n read of x; on both sides scratch is zero. */
static void stage_x(const few_plan *p, ptrdiff_t n, ptrdiff_t y, ptrdiff_t rows, char *scratch) {
    const fnn_conv_dims *d = p->sum.d;
    const int dtype = p->sum.dtype;
    const ptrdiff_t columns = p->pitch / d->c, lo = fnn_min(d->padding[2], columns), hi = fnn_min(lo + d->w, columns);
    for (ptrdiff_t i = 0, count = rows_read(d, rows); i < count; i++) {
        const ptrdiff_t row = y * d->stride[0] - d->padding[0] + i;
        char *to = fnn_at(scratch, i * p->pitch, dtype);
        if (row < 0 || row >= d->h) memset(to, 0, (size_t)p->pitch * fnn_itemsize(dtype));
        else
            p->sum.K->conv_pack(1, hi - lo, d->c, fnn_at(p->x.data, n * p->x.n + row * p->x.h, dtype), p->x.w, p->x.c,
                                fnn_at(to, lo * d->c, dtype), NULL, d->c);
    }
}

/* Output pixels and what they meet, and how many are next in memory. */
typedef struct {
    ptrdiff_t rows, cols, dy_row, dy_col, next;
    const char *dy, *x;
} few_block;

/* Adds a block to sums, a panel of channels after another; meanwhile what comes next is asked for in the order of memory, in which
 * panels do not read it. */
static void add_block(const few_plan *p, const few_block *b, char *sums) {
    const fnn_conv_dims *d = p->sum.d;
    const int dtype = p->sum.dtype;
    const ptrdiff_t size = (ptrdiff_t)fnn_itemsize(dtype), wide = p->sum.cols;
    fnn_prefetch next = fnn_prefetch_of(b->dy + (b->rows - 1) * b->dy_row * size + b->cols * b->dy_col * size, b->next,
                                        b->dy_col * size, d->k * size);
    const ptrdiff_t asks = fnn_ceil_div(next.left, p->sum.panels);
    for (ptrdiff_t k = 0; k < d->k; k += wide) {
        fnn_prefetch_some(&next, asks);
        p->sum.K->conv_few_gradient(b->rows, b->cols, fnn_min(wide, d->k - k), fnn_at(b->dy, k, dtype), b->dy_row, b->dy_col, b->x,
                                    d->stride[0] * p->pitch, d->stride[1] * d->c, p->pitch, d->r, d->s * d->c,
                                    fnn_at(sums, k * d->r * d->s * d->c, dtype), wide);
    }
}

/* Adds output rows y .. y + rows - 1 of image n to sums. */
static void add_rows(const few_plan *p, ptrdiff_t n, ptrdiff_t y, ptrdiff_t rows, char *scratch, char *sums) {
    const fnn_conv_dims *d = p->sum.d;
    const int dtype = p->sum.dtype;
    const char *dy = fnn_at(p->dy.data, n * p->dy.n + y * p->dy.h, dtype);
    char *copy = scratch + p->dy_at;
    few_block b = {.rows = rows, .dy_row = p->copies ? d->ow * d->k : p->dy.h, .dy_col = p->copies ? d->k : p->dy.w};
    stage_x(p, n, y, rows, scratch);
    for (ptrdiff_t i = 0; i < rows && p->copies; i++)
        p->sum.K->conv_pack(1, d->ow, d->k, fnn_at(dy, i * p->dy.h, dtype), p->dy.w, p->dy.c, fnn_at(copy, i * d->ow * d->k, dtype),
                            NULL, d->k);
    for (ptrdiff_t col = 0; col < d->ow; col += b.cols) {
        b.cols = fnn_min(p->cols, d->ow - col);
        b.dy = fnn_at(p->copies ? copy : dy, col * b.dy_col, dtype);
        b.x = fnn_at(scratch, col * d->stride[1] * d->c, dtype);
        b.next = p->copies ? 0 : fnn_min(rows * p->cols, (d->oh - y - rows + 1) * d->ow - col - b.cols);
        add_block(p, &b, sums);
    }
}

static void sum_part(void *context, ptrdiff_t part, void *scratch) {
    const few_plan *p = context;
    const ptrdiff_t oh = p->sum.d->oh, end = fnn_part_begin(p->units, p->sum.parts, part + 1);
    char *sums = fnn_at(p->sum.packed, part * p->sum.part_size, p->sum.dtype);
    memset(scratch, 0, p->dy_at);
    memset(sums, 0, (size_t)p->sum.part_size * fnn_itemsize(p->sum.dtype));
    for (ptrdiff_t u = fnn_part_begin(p->units, p->sum.parts, part), rows; u < end; u += rows) {
        rows = fnn_min(fnn_min(p->rows, end - u), oh - u % oh);
        add_rows(p, u / oh, u % oh, rows, scratch, sums);
    }
}

void fnn_conv_few_gradient_workspace(const fnn_call *call, const fnn_conv_dims *d, fnn_workspace *ws) {
    const few_plan p = plan_of(call, d);
    ws->shared = p.shared;
    ws->scratch = p.scratch;
}

void fnn_conv_few_gradient(const fnn_call *call, const fnn_conv_dims *d) {
    few_plan p = plan_of(call, d);
    p.sum.packed = call->shared;
    p.sum.slot = (ptrdiff_t *)((char *)call->shared + p.slot_at);
    fnn_parallel_for(call, p.sum.parts, fnn_conv_cost(d, p.sum.dtype), sum_part, &p);
    fnn_conv_combine(&p.sum);
}

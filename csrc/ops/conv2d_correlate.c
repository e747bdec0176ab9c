/* conv2d_correlate.c: y (images, oh, ow, groups * width) = correlation of x (images, h, w, groups * depth) with packed weights.
 *
 * Implicit GEMM by batch-reduce (Georganas et al., "High-Performance Deep Learning via a Single Building Block", 2019): rows are
 * runs of output pixels, columns a panel of output channels, and gemm_tile sums over kernel positions and channels while the
 * tile stays in registers. A chunk is a block of output rows of one image: its input rows are copied into zero-padded scratch
 * (which also converts any strides) unless they can be read where they are. */
#include "conv2d.h"

#include <string.h>

enum {
    STAGE_BYTES = 384 << 10,   /* scratch for input rows: a part of the second-level cache, whose rest is for weights */
    PAGE = 4096,               /* rows of a tile this far apart would share one set of the first-level cache */
    CHUNKS = 32,               /* wanted, when each has CHUNK_FLOPS to do */
    CHUNK_FLOPS = 4 << 20
};

static ptrdiff_t size_of(int dtype) { return (ptrdiff_t)fnn_itemsize(dtype); }

/* ---- weights ---- */

void fnn_conv_weight_plan(fnn_conv_weight *w) {
    w->panels = fnn_ceil_div(w->width, w->cols);
    w->panel_size = w->r * w->s * w->depth * w->cols;
}

size_t fnn_conv_weight_bytes(const fnn_conv_weight *w) {
    size_t slots = (size_t)fnn_round_up(w->r * w->s * (ptrdiff_t)sizeof(ptrdiff_t), 64);
    return slots + (size_t)fnn_round_up(w->groups * w->panels * w->panel_size * size_of(w->dtype), 64);
}

static void pack_panel(void *context, ptrdiff_t chunk, void *scratch) {
    (void)scratch;
    const fnn_conv_weight *w = context;
    ptrdiff_t group = chunk / w->panels, first = chunk % w->panels * w->cols, cols = fnn_min(w->cols, w->width - first);
    const char *src = fnn_at(w->data, group * w->group_stride + first * w->width_stride, w->dtype);
    char *dst = fnn_at(w->packed, chunk * w->panel_size, w->dtype);
    ptrdiff_t places = w->r * w->s;
    int positions_dense = (w->s == 1 || w->s_stride == 1) && (w->r == 1 || w->r_stride == w->s);
    if (positions_dense && (w->depth == 1 || w->depth_stride == places)) {
        w->K->conv_pack(places, w->depth, cols, src, 1, w->width_stride, dst, w->slot, w->cols);
    } else if (positions_dense && places > 1) {
        for (ptrdiff_t d = 0; d < w->depth; d++)
            w->K->conv_pack(places, 1, cols, fnn_at(src, d * w->depth_stride, w->dtype), 1, w->width_stride,
                            fnn_at(dst, d * w->cols, w->dtype), w->slot, 0);
    } else {
        for (ptrdiff_t t = 0; t < places; t++)
            w->K->conv_pack(1, w->depth, cols, fnn_at(src, t / w->s * w->r_stride + t % w->s * w->s_stride, w->dtype),
                            w->depth_stride, w->width_stride, fnn_at(dst, w->slot[t], w->dtype), NULL, w->cols);
    }
}

void fnn_conv_weight_pack(const fnn_call *call, fnn_conv_weight *w, void *memory, const ptrdiff_t *order_r, const ptrdiff_t *order_s) {
    w->slot = memory;
    w->packed = (char *)memory + fnn_round_up(w->r * w->s * (ptrdiff_t)sizeof(ptrdiff_t), 64);
    for (ptrdiff_t r = 0; r < w->r; r++)
        for (ptrdiff_t s = 0; s < w->s; s++)
            w->slot[r * w->s + s] = ((order_r ? order_r[r] : r) * w->s + (order_s ? order_s[s] : s)) * w->depth * w->cols;
    ptrdiff_t chunks = w->groups * w->panels;
    fnn_parallel_for(call, chunks, 0.5 * (double)(chunks * w->panel_size), pack_panel, w);
}

/* ---- the plan: from shapes, strides of the operands, dtype and ISA; strides decide only how elements are fetched ---- */

/* Outputs lo .. hi-1 of the axis find their tap inside the input. */
static void valid_range(const fnn_axis *a, ptrdiff_t offset, ptrdiff_t from, ptrdiff_t to, ptrdiff_t *lo, ptrdiff_t *hi) {
    ptrdiff_t low = offset >= 0 ? 0 : fnn_ceil_div(-offset, a->step);
    ptrdiff_t high = a->in - 1 - offset < 0 ? 0 : (a->in - 1 - offset) / a->step + 1;
    *lo = fnn_min(fnn_max(low, from), to);
    *hi = fnn_max(fnn_min(high, to), *lo);
}

static ptrdiff_t reach(const fnn_axis *a, ptrdiff_t outputs) { return (outputs - 1) * a->step + (a->taps - 1) * a->gap + 1; }

static int needs_padding(const fnn_axis *a) { return a->first < 0 || a->first + reach(a, a->out) > a->in; }

static int is_pointwise(const fnn_axis *a) { return a->taps == 1 && a->step == 1 && a->first == 0 && a->in == a->out; }

/* A 1x1 convolution does not know rows: where memory allows, an image becomes one row, and the batch one image. */
static void join_rows(fnn_correlation *c) {
    if (!is_pointwise(&c->h) || !is_pointwise(&c->w)) return;
    if (c->src.h != c->w.in * c->src.w || c->dst.h != c->w.out * c->dst.w) return;
    c->w.in = c->w.out = c->h.in * c->w.in;
    c->h.in = c->h.out = 1;
    if (c->src.n != c->w.in * c->src.w || c->dst.n != c->w.out * c->dst.w) return;
    c->w.in = c->w.out = c->images * c->w.in;
    c->images = 1;
}

/* Rows of few pixels leave register tiles half empty unless runs go on into the next row. */
static int wants_spread(const fnn_correlation *c) {
    ptrdiff_t tile = c->K->tile_rows;
    if (c->depthwise || c->h.step != 1 || c->h.out < 2 || c->dst.c != 1 || c->dst.h != c->w.out * c->dst.w) return 0;
    ptrdiff_t by_row = c->h.out * fnn_ceil_div(c->w.out, tile), crossing = fnn_ceil_div(c->h.out * c->w.out, tile);
    return 5 * by_row > 6 * crossing;
}

static ptrdiff_t stage_bytes(const fnn_correlation *c, ptrdiff_t rows, ptrdiff_t cols) {
    ptrdiff_t pixels = c->spread ? c->w.out : reach(&c->w, cols);
    return reach(&c->h, rows) * pixels * c->pitch * size_of(c->dtype);
}

static void plan_layout(fnn_correlation *c) {
    ptrdiff_t size = size_of(c->dtype);
    int aliases = c->src.w * c->w.step * size % PAGE == 0;
    c->spread = wants_spread(c);
    c->staged = c->spread || needs_padding(&c->h) || needs_padding(&c->w) || (c->depth > 1 && c->src.c != 1) ||
                (aliases && !c->depthwise);
    ptrdiff_t run = c->spread ? c->w.taps * c->depth : c->depth;
    c->pitch = !c->staged ? c->src.w : run * size % PAGE ? run : run + 64 / size;
    c->merged = !c->depthwise && (c->spread || (c->w.gap == 1 && c->pitch == c->depth) || c->w.taps == 1);
    c->batch = c->merged ? c->h.taps : c->h.taps * c->w.taps;
    c->run = c->depthwise ? 1 : c->merged ? c->w.taps * c->depth : c->depth;
}

/* Blocks small enough for the cache and for sharing out, then panels are split where pixels do not give enough chunks. */
static void plan_blocks(fnn_correlation *c) {
    ptrdiff_t tile = c->K->tile_rows, rows = c->h.out, cols = c->w.out;
    double flops = 2.0 * (double)(c->h.taps * c->w.taps * c->depth * (c->depthwise ? 1 : c->width * c->groups));
    while (!c->spread && cols > tile &&
           (stage_bytes(c, 1, cols) > STAGE_BYTES ||
            (rows == 1 && (double)cols * flops > CHUNK_FLOPS && c->images * fnn_ceil_div(c->w.out, cols) < CHUNKS)))
        cols = fnn_round_up(fnn_ceil_div(cols, 2), tile);
    while (rows > 1 && stage_bytes(c, rows, cols) > STAGE_BYTES) rows = fnn_ceil_div(rows, 2);
    c->col_blocks = fnn_ceil_div(c->w.out, cols);
    while (rows > 1 && c->images * c->col_blocks * fnn_ceil_div(c->h.out, rows) < CHUNKS &&
           (double)(rows * cols) * flops > CHUNK_FLOPS)
        rows = fnn_ceil_div(rows, 2);
    c->block_rows = rows;
    c->block_cols = cols;
    c->row_blocks = fnn_ceil_div(c->h.out, rows);
    ptrdiff_t chunks = c->images * c->row_blocks * c->col_blocks, panels = c->groups * (c->depthwise ? 1 : c->weight->panels);
    c->splits = 1;
    while (chunks * c->splits < CHUNKS / 2 && 2 * c->splits <= panels &&
           (double)(rows * cols) * flops / (double)c->splits > CHUNK_FLOPS)
        c->splits *= 2;
}

void fnn_correlate_plan(fnn_correlation *c) {
    ptrdiff_t size = size_of(c->dtype);
    c->batch = 0;
    c->scratch_bytes = 0;
    if (c->h.taps * c->w.taps == 0 || c->images * c->h.out * c->w.out == 0) return;
    join_rows(c);
    plan_layout(c);
    plan_blocks(c);
    c->row_pitch = !c->staged ? c->src.h : (c->spread ? c->w.out : reach(&c->w, c->block_cols)) * c->pitch;
    ptrdiff_t stage = c->staged ? fnn_round_up(stage_bytes(c, c->block_rows, c->block_cols), 64) : 0;
    c->tile_at = c->dst.c == 1 ? -1 : stage;
    c->scratch_bytes = (size_t)(stage + (c->tile_at < 0 ? 0 : c->block_cols * c->weight->cols * size));
}

size_t fnn_correlate_bytes(const fnn_correlation *c) { return (size_t)fnn_round_up(2 * c->batch * (ptrdiff_t)sizeof(ptrdiff_t), 64); }

/* ---- the work of a chunk ---- */

typedef struct {
    ptrdiff_t image, row, rows, col, cols; /* output pixels */
} block_range;

/* Input row `row` of a group into a scratch row of `pixels` pixels, the first of them at input column `col`. */
static void stage_row(const fnn_correlation *c, const char *src, ptrdiff_t col, ptrdiff_t pixels, char *dst) {
    ptrdiff_t size = size_of(c->dtype), lo = fnn_min(fnn_max(-col, 0), pixels);
    ptrdiff_t hi = fnn_max(fnn_min(c->w.in - col, pixels), lo);
    memset(dst, 0, (size_t)(lo * c->pitch * size));
    if (hi > lo)
        c->K->conv_pack(1, hi - lo, c->depth, fnn_at(src, (col + lo) * c->src.w, c->dtype), c->src.w, c->src.c,
                        dst + lo * c->pitch * size, NULL, c->pitch);
    memset(dst + hi * c->pitch * size, 0, (size_t)((pixels - hi) * c->pitch * size));
}

/* Input row into [output column][tap][channel]. */
static void spread_row(const fnn_correlation *c, const char *src, char *dst) {
    ptrdiff_t size = size_of(c->dtype), lo, hi;
    for (ptrdiff_t t = 0; t < c->w.taps; t++) {
        ptrdiff_t offset = c->w.first + t * c->w.gap;
        char *to = dst + t * c->depth * size;
        valid_range(&c->w, offset, 0, c->w.out, &lo, &hi);
        for (ptrdiff_t o = 0; o < lo; o++) memset(to + o * c->pitch * size, 0, (size_t)(c->depth * size));
        if (hi > lo)
            c->K->conv_pack(1, hi - lo, c->depth, fnn_at(src, (lo * c->w.step + offset) * c->src.w, c->dtype),
                            c->src.w * c->w.step, c->src.c, to + lo * c->pitch * size, NULL, c->pitch);
        for (ptrdiff_t o = hi; o < c->w.out; o++) memset(to + o * c->pitch * size, 0, (size_t)(c->depth * size));
    }
}

/* Where tap (0, 0) of the block's first output pixel is, after staging what is needed of the group's input. */
static const char *stage(const fnn_correlation *c, const block_range *b, ptrdiff_t group, char *scratch) {
    const char *src = fnn_at(c->src.data, b->image * c->src.n + group * c->depth * c->src.c, c->dtype);
    ptrdiff_t row = b->row * c->h.step + c->h.first, col = b->col * c->w.step + c->w.first;
    if (!c->staged) return fnn_at(src, row * c->src.h + col * c->src.w, c->dtype);
    ptrdiff_t row_bytes = c->row_pitch * size_of(c->dtype);
    for (ptrdiff_t i = 0, n = reach(&c->h, b->rows); i < n; i++, row++) {
        char *dst = scratch + i * row_bytes;
        if (row < 0 || row >= c->h.in) memset(dst, 0, (size_t)row_bytes);
        else if (c->spread) spread_row(c, fnn_at(src, row * c->src.h, c->dtype), dst);
        else stage_row(c, fnn_at(src, row * c->src.h, c->dtype), col, reach(&c->w, b->cols), dst);
    }
    return scratch;
}

/* `pixels` output pixels that follow one another at dst, a panel of channels wide. */
static void compute_run(const fnn_correlation *c, ptrdiff_t pixels, ptrdiff_t cols, const char *a, ptrdiff_t a_row,
                        const char *panel, char *dst, const char *bias, char *scratch) {
    const fnn_kernels *K = c->K;
    char *out = c->tile_at < 0 ? dst : scratch + c->tile_at;
    ptrdiff_t out_row = c->tile_at < 0 ? c->dst.w : c->weight->cols;
    if (c->depthwise)
        K->conv_depthwise(pixels, cols, c->batch, a, c->a_offset, a_row, panel, c->b_offset, out, out_row);
    else
        K->gemm_tile(pixels, cols, c->batch, c->run, a, c->a_offset, a_row, 1, panel, c->b_offset, c->weight->cols, out, out_row, 0);
    if (c->epilogue) {
        const char *residual = c->epilogue->residual;
        K->gemm_epilogue(pixels, cols, out, out_row, bias, residual ? residual + (dst - c->dst.data) : NULL, c->dst.w,
                         c->epilogue->activation);
    }
    if (c->tile_at >= 0) K->conv_scatter(pixels, cols, out, out_row, dst, c->dst.w, c->dst.c);
}

static void compute_panel(const fnn_correlation *c, const block_range *b, ptrdiff_t index, const char *a, char *scratch) {
    const fnn_conv_weight *w = c->weight;
    ptrdiff_t group = index / w->panels, first = index % w->panels * w->cols, cols = fnn_min(w->cols, w->width - first);
    ptrdiff_t channel = group * c->width + first;
    const char *panel = fnn_at(w->packed, index * w->panel_size, c->dtype);
    char *dst = fnn_at(c->dst.data, b->image * c->dst.n + b->row * c->dst.h + b->col * c->dst.w + channel * c->dst.c, c->dtype);
    const char *bias = c->epilogue && c->epilogue->bias ? fnn_at(c->epilogue->bias, channel, c->dtype) : NULL;
    if (c->spread) {
        compute_run(c, b->rows * b->cols, cols, a, c->pitch, panel, dst, bias, scratch);
        return;
    }
    for (ptrdiff_t i = 0; i < b->rows; i++)
        compute_run(c, b->cols, cols, fnn_at(a, i * c->h.step * c->row_pitch, c->dtype), c->w.step * c->pitch, panel,
                    fnn_at(dst, i * c->dst.h, c->dtype), bias, scratch);
}

static void compute_chunk(void *context, ptrdiff_t chunk, void *scratch) {
    const fnn_correlation *c = context;
    ptrdiff_t split = chunk % c->splits, place = chunk / c->splits, panels = c->groups * c->weight->panels;
    block_range b = {.col = place % c->col_blocks * c->block_cols, .row = place / c->col_blocks % c->row_blocks * c->block_rows,
                     .image = place / c->col_blocks / c->row_blocks};
    b.rows = fnn_min(c->block_rows, c->h.out - b.row);
    b.cols = fnn_min(c->block_cols, c->w.out - b.col);
    const char *a = NULL;
    for (ptrdiff_t index = panels * split / c->splits, end = panels * (split + 1) / c->splits; index < end; index++) {
        if (!a || index % c->weight->panels == 0) a = stage(c, &b, index / c->weight->panels, scratch);
        compute_panel(c, &b, index, a, scratch);
    }
}

/* No tap reaches these outputs: a phase of backward_input that the kernel never touched. */
static void clear_image(void *context, ptrdiff_t image, void *scratch) {
    (void)scratch;
    const fnn_correlation *c = context;
    for (ptrdiff_t i = 0; i < c->h.out; i++)
        c->K->conv_clear(c->w.out, c->groups * c->width, fnn_at(c->dst.data, image * c->dst.n + i * c->dst.h, c->dtype), c->dst.w,
                         c->dst.c);
}

void fnn_correlate(const fnn_call *call, fnn_correlation *c, void *memory) {
    if (c->images * c->h.out * c->w.out == 0) return;
    ptrdiff_t pixels = c->images * c->h.out * c->w.out;
    if (c->batch == 0) {
        fnn_parallel_for(call, c->images, (double)(pixels * c->groups * c->width), clear_image, c);
        return;
    }
    const fnn_conv_weight *w = c->weight;
    c->a_offset = memory;
    c->b_offset = c->a_offset + c->batch;
    ptrdiff_t wide = c->merged ? 1 : c->w.taps, row = c->h.gap * c->row_pitch, col = c->w.gap * c->pitch;
    for (ptrdiff_t i = 0; i < c->batch; i++) {
        ptrdiff_t t = i / wide, u = i % wide;
        c->a_offset[i] = t * row + u * col;
        c->b_offset[i] = ((c->h.slot + t) * w->s + c->w.slot + u) * w->depth * w->cols;
    }
    double flops = 2.0 * (double)(pixels * c->h.taps * c->w.taps * c->depth * (c->depthwise ? 1 : c->width * c->groups));
    fnn_parallel_for(call, c->images * c->row_blocks * c->col_blocks * c->splits, flops / 100, compute_chunk, c);
}

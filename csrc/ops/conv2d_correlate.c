/* conv2d_correlate.c: y (images, oh, ow, groups * width) = correlation of x (images, h, w, groups * depth) with packed
 * weights.
 *
 * Implicit GEMM by batch-reduce (Georganas et al., "High-Performance Deep Learning via a Single Building Block", 2019):
 * rows are runs of output pixels, columns a panel of output channels or two, and gemm_panels sums over kernel positions and
 * channels while the tile stays in registers. A chunk is a block of output rows of an image, or a few small images: its
 * input rows are copied into zero-padded scratch (which also converts any strides) unless they can be read where they
 * are.
 *
 * With few output channels most lanes would idle: conv2d_narrow.c then turns tiles round. */
#include "conv2d.h"
#include "stage.h"

#include <string.h>

enum {
    STAGE_BYTES = 384
        << 10, /* scratch for input rows: a part of the second-level cache, whose rest is for weights ... */
    SECOND_LEVEL = 1200 << 10, /* ... of this much together, where whole images fit */
    NEAR_BYTES = 32 << 10,     /* of a stage: the first-level cache */
    SIDE_BY_SIDE = 8, /* images, at most */
    PAGE = 4096,               /* rows of a tile this far apart would share one set of the first-level cache */
    LATENCY = 8,               /* accumulators that hide a multiply-add's */
    CHUNKS = 16,               /* wanted, when each has CHUNK_FLOPS to do ... */
    CHUNKS_OF_IMAGES = 8,      /* ... or, of many images, which all stage their rows: fewer rows are staged for several chunks */
    CHUNK_FLOPS = 4 << 20
};

static ptrdiff_t size_of(int dtype) { return (ptrdiff_t)fnn_itemsize(dtype); }

/* ---- weights ---- */

void fnn_conv_weight_plan(fnn_conv_weight *w) {
    w->panels = fnn_ceil_div(w->width, w->cols);
    w->panel_size = w->r * w->s * w->depth * w->cols;
}

static size_t slots_bytes(const fnn_conv_weight *w) { return fnn_whole_lines((size_t)(w->r * w->s) * sizeof *w->slot); }

size_t fnn_conv_weight_bytes(const fnn_conv_weight *w) {
    return slots_bytes(w) + fnn_whole_lines((size_t)(w->groups * w->panels * w->panel_size * size_of(w->dtype)));
}

/* `count` inputs of a group from `src` on, for `cols` outputs, to dst, `row` apart. */
static void gather(const fnn_conv_weight *w, const char *src, ptrdiff_t count, ptrdiff_t cols, const ptrdiff_t *slot, char *dst,
                   ptrdiff_t row) {
    ptrdiff_t places = w->r * w->s;
    int positions_dense = (w->s == 1 || w->s_stride == 1) && (w->r == 1 || w->r_stride == w->s);
    if (positions_dense && (w->depth == 1 || w->depth_stride == places)) {
        w->K->conv_pack(places, count, cols, src, 1, w->width_stride, dst, slot, row);
    } else if (positions_dense && places > 1) {
        for (ptrdiff_t d = 0; d < count; d++)
            w->K->conv_pack(places, 1, cols, fnn_at(src, d * w->depth_stride, w->dtype), 1, w->width_stride,
                            fnn_at(dst, d * row, w->dtype), slot, 0);
    } else {
        for (ptrdiff_t t = 0; t < places; t++)
            w->K->conv_pack(1, count, cols, fnn_at(src, t / w->s * w->r_stride + t % w->s * w->s_stride, w->dtype),
                            w->depth_stride, w->width_stride, fnn_at(dst, slot[t], w->dtype), NULL, row);
    }
}

void fnn_conv_weight_gather(const fnn_conv_weight *w, ptrdiff_t panel, ptrdiff_t from, ptrdiff_t count,
                            const ptrdiff_t *slot, char *dst) {
    const ptrdiff_t group = panel / w->panels, first = panel % w->panels * w->cols;
    const char *src =
        fnn_at(w->data, group * w->group_stride + first * w->width_stride + from * w->depth_stride, w->dtype);
    gather(w, src, count, fnn_min(w->cols, w->width - first), slot, dst, w->cols);
}

/* A vector of channels of lane groups. */
static void pack_lane_groups(const fnn_conv_weight *w, ptrdiff_t panel) {
    const ptrdiff_t row = w->r * w->s * w->cols, end = fnn_min((panel + 1) * w->cols, w->width);
    for (ptrdiff_t k = panel * w->cols; k < end; k += w->lane_group)
        gather(w, fnn_at(w->data, k / w->lane_group * w->group_stride, w->dtype), w->lane_group, w->lane_group, w->slot,
               fnn_at(w->packed, panel * w->panel_size + k % w->cols, w->dtype), row);
}

static void pack_panel(void *context, ptrdiff_t panel, void *scratch) {
    (void)scratch;
    const fnn_conv_weight *w = context;
    if (w->lane_group > 1) pack_lane_groups(w, panel);
    else fnn_conv_weight_gather(w, panel, 0, w->depth, w->slot, fnn_at(w->packed, panel * w->panel_size, w->dtype));
}

void fnn_conv_weight_pack(const fnn_call *call, fnn_conv_weight *w, void *memory, const ptrdiff_t *order_r,
                          const ptrdiff_t *order_s) {
    w->slot = memory;
    w->packed = (char *)memory + slots_bytes(w);
    for (ptrdiff_t r = 0; r < w->r; r++)
        for (ptrdiff_t s = 0; s < w->s; s++)
            w->slot[r * w->s + s] = ((order_r ? order_r[r] : r) * w->s + (order_s ? order_s[s] : s)) *
                                    (w->lane_group ? 1 : w->depth) * w->cols;
    ptrdiff_t chunks = w->groups * w->panels;
    fnn_parallel_for(call, chunks, 0.5 * (double)(chunks * w->panel_size), pack_panel, w);
}

/* ---- the plan ----
 * From shapes, dtype and ISA; strides of the operands decide only how elements are fetched. */

void fnn_valid_range(const fnn_axis *a, ptrdiff_t offset, ptrdiff_t from, ptrdiff_t to, ptrdiff_t *lo, ptrdiff_t *hi) {
    ptrdiff_t low = offset >= 0 ? 0 : fnn_ceil_div(-offset, a->step);
    ptrdiff_t high = a->in - 1 - offset < 0 ? 0 : (a->in - 1 - offset) / a->step + 1;
    *lo = fnn_min(fnn_max(low, from), to);
    *hi = fnn_max(fnn_min(high, to), *lo);
}

static int needs_padding(const fnn_axis *a) { return a->first < 0 || a->first + fnn_reach(a, a->out) > a->in; }

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

/* Rows of very few pixels leave register tiles that wait for their own latency, unless runs go on into the next row.
 * (From 7 pixels on, reading twice the weights costs less than copying the input once for every horizontal tap.)
 * Small tiles wait for the pixels that a strided 1x1 kernel picks out: a copy of those is read ahead of them. */
static int wants_spread(const fnn_correlation *c) {
    ptrdiff_t tile = c->K->tile_rows, tiles = fnn_ceil_div(c->w.out, tile), lanes = fnn_min(c->width, c->K->tile_cols);
    if (c->depthwise || c->narrow || c->h.out < 2) return 0;
    if (fnn_small_tile(c->K) && c->h.taps * c->w.taps == 1 && c->w.step > 1) return 1;
    if (5 * c->h.out * tiles <= 6 * fnn_ceil_div(c->h.out * c->w.out, tile)) return 0;
    return c->w.out / tiles * fnn_ceil_div(lanes, c->K->lanes) < 8;
}

/* Whether what a panel writes is a matrix: pixels of a run follow one another, their channels too. */
static int writes_in_place(const fnn_correlation *c) {
    return c->dst.c == 1 && (!c->spread || c->dst.h == c->w.out * c->dst.w);
}

/* Spread rows that one kernel row meets follow one another: those that a stride leaves out are apart, in as many groups as it has
 * residues, so many rows each. */
static ptrdiff_t group_rows(const fnn_correlation *c, ptrdiff_t rows) { return fnn_ceil_div(fnn_reach(&c->h, rows), c->h.step); }

static ptrdiff_t spread_place(const fnn_correlation *c, ptrdiff_t rows, ptrdiff_t row) {
    return row % c->h.step * group_rows(c, rows) + row / c->h.step;
}

/* Bytes of scratch (or of the input itself) that a block of one image reads. */
static ptrdiff_t stage_bytes(const fnn_correlation *c, ptrdiff_t rows, ptrdiff_t cols) {
    const int images = c->narrow == FNN_NARROW_IMAGES;
    const ptrdiff_t reach = c->spread ? c->h.step * group_rows(c, rows) : fnn_reach(&c->h, rows);
    ptrdiff_t pixels = images ? c->w.in : c->spread ? c->w.out : fnn_reach(&c->w, cols);
    return reach * pixels * (c->narrow ? c->depth : c->pitch) * size_of(c->dtype);
}

static void plan_layout(fnn_correlation *c) {
    ptrdiff_t size = size_of(c->dtype);
    int aliases = c->src.w * c->w.step * size % PAGE == 0;
    c->narrow = fnn_narrow_form_of(c);
    c->spread = wants_spread(c);
    c->staged = c->narrow || c->spread || c->repeats > 1 || (c->depth > 1 && c->src.c != 1) ||
                (!c->depthwise && (aliases || needs_padding(&c->h) || needs_padding(&c->w)));
    ptrdiff_t run = c->spread ? c->w.taps * c->depth : c->depth;
    c->pitch = !c->staged ? c->src.w : c->narrow ? 1 : run * size % PAGE ? run : run + FNN_LINE / size;
    const int merges = c->spread || (c->w.gap == 1 && c->pitch == c->depth) || c->w.taps == 1;
    c->merged = c->narrow == FNN_NARROW_IMAGES || (!c->depthwise && !c->narrow && merges);
    c->batch = c->merged ? c->h.taps : c->h.taps * c->w.taps;
    c->run = c->depthwise ? 1 : c->merged ? c->w.taps * c->depth : c->depth;
    if (c->narrow == FNN_NARROW_PIXELS && c->depth < c->w.taps) c->batch = c->h.taps * c->depth, c->run = c->w.taps;
}

/* What chunks may share out; of a depthwise convolution they take all channels. */
static ptrdiff_t panels_of(const fnn_correlation *c) { return c->depthwise ? 1 : c->groups * c->weight->panels; }

static ptrdiff_t count_chunks(const fnn_correlation *c) {
    return c->image_blocks * c->row_blocks * c->col_blocks * c->splits;
}

/* Blocks as large as what they read stays in cache. */
static void fit_blocks(fnn_correlation *c, ptrdiff_t panel_bytes) {
    const int across = c->narrow == FNN_NARROW_IMAGES;
    const ptrdiff_t tile = c->K->tile_rows, limit = fnn_max(STAGE_BYTES, SECOND_LEVEL - panel_bytes);
    ptrdiff_t images = across ? c->K->tile_cols : 1, rows = c->h.out, cols = c->w.out;
    while (!c->spread && !across && cols > tile &&
           (stage_bytes(c, 1, cols) > STAGE_BYTES ||
            (rows == 1 && (double)cols * c->flops > CHUNK_FLOPS && c->images * fnn_ceil_div(c->w.out, cols) < CHUNKS)))
        cols = fnn_round_up(fnn_ceil_div(cols, 2), tile);
    while (rows > 1 && images * stage_bytes(c, rows, cols) > (rows == c->h.out ? limit : STAGE_BYTES))
        rows = fnn_ceil_div(rows, 2);
    const int whole = rows == c->h.out && cols == c->w.out;
    /* Weights beyond the cache are read anew by every chunk: let it have several small images. */
    if (!across && whole && panels_of(c) * panel_bytes > SECOND_LEVEL)
        while (2 * images <= c->images && 2 * images * stage_bytes(c, rows, cols) <= limit &&
               2 * images * rows * cols <= 16 * tile)
            images *= 2;
    /* Planes of several images side by side make long runs of the rows at the edges, which meet fewer rows of the kernel. */
    if (c->narrow == FNN_NARROW_PIXELS && c->h.step == 1 && whole)
        while (2 * images * CHUNKS <= c->images && images < SIDE_BY_SIDE && 2 * images * stage_bytes(c, rows, cols) <= STAGE_BYTES)
            images *= 2;
    c->block_images = images, c->block_rows = rows, c->block_cols = cols;
}

/* Then small enough for sharing out; panels are split where pixels do not give enough chunks, or where a chunk would read more of
 * the weights than of the input. */
static void share_blocks(fnn_correlation *c, ptrdiff_t panel_bytes) {
    const ptrdiff_t images = c->block_images, cols = c->block_cols, panels = panels_of(c);
    const ptrdiff_t wanted = c->narrow == FNN_NARROW_IMAGES ? CHUNKS_OF_IMAGES : CHUNKS;
    for (c->splits = 1;;) {
        const ptrdiff_t rows = c->block_rows;
        c->image_blocks = fnn_ceil_div(c->images, images), c->row_blocks = fnn_ceil_div(c->h.out, rows);
        c->col_blocks = fnn_ceil_div(c->w.out, cols);
        if (count_chunks(c) >= wanted || (double)(images * rows * cols) * c->flops / (double)c->splits <= CHUNK_FLOPS) return;
        const int can_split = 2 * c->splits <= panels;
        if (can_split && panels / c->splits * panel_bytes > images * stage_bytes(c, rows, cols)) c->splits *= 2;
        else if (rows > 1) c->block_rows = fnn_ceil_div(rows, 2);
        else if (can_split) c->splits *= 2;
        else return;
    }
}

void fnn_correlate_plan(fnn_correlation *c) {
    ptrdiff_t size = size_of(c->dtype);
    c->batch = 0;
    c->scratch_bytes = 0;
    if (c->h.taps * c->w.taps == 0 || c->images * c->h.out * c->w.out == 0) return;
    join_rows(c);
    const ptrdiff_t panel_bytes = c->weight->panel_size * size;
    plan_layout(c);
    fit_blocks(c, panel_bytes);
    share_blocks(c, panel_bytes);
    if (c->pooling) c->block_rows += c->block_rows % 2, c->row_blocks = fnn_ceil_div(c->h.out, c->block_rows);
    ptrdiff_t pixels = c->spread ? c->w.out : fnn_reach(&c->w, c->block_cols), product = 0;
    c->row_pitch = !c->staged ? c->src.h : pixels * c->pitch;
    if (c->narrow) product = fnn_narrow_plan(c);
    c->stage_size = c->staged ? fnn_round_up(stage_bytes(c, c->block_rows, c->block_cols), FNN_LINE) : 0;
    c->product_at = c->block_images * c->stage_size;
    ptrdiff_t used = c->product_at + fnn_round_up(product, FNN_LINE);
    c->tile_at = writes_in_place(c) ? -1 : used;
    const int by_panels = !c->narrow && !c->depthwise && c->weight->cols == c->K->tile_cols;
    c->call_cols = by_panels ? c->K->best_cols : c->weight->cols;
    const ptrdiff_t tile = c->narrow == FNN_NARROW_IMAGES ? c->width * c->block_images : c->depthwise ? c->width : c->call_cols;
    const ptrdiff_t run = (c->spread ? c->block_rows : 1) * c->block_cols;
    c->scratch_bytes = (size_t)(used + (c->tile_at < 0 ? 0 : run * tile * size));
}

size_t fnn_correlate_bytes(const fnn_correlation *c) {
    return fnn_whole_lines(2 * (size_t)c->batch * sizeof(ptrdiff_t));
}

/* ---- the work of a chunk ---- */

void fnn_conv_repeat(const fnn_kernels *K, int dtype, ptrdiff_t pixels, ptrdiff_t channels, ptrdiff_t times, const char *src,
                     ptrdiff_t src_pixel, ptrdiff_t src_channel, char *dst, ptrdiff_t dst_pixel) {
    const ptrdiff_t together = src_channel == 1 ? channels : 1;
    for (ptrdiff_t c = 0; c < channels; c += together)
        for (ptrdiff_t j = 0; j < times; j++)
            K->conv_scatter(pixels, together, fnn_at(src, c * src_channel, dtype), src_pixel, fnn_at(dst, c * times + j, dtype),
                            dst_pixel, times);
}

/* Input row `row` of a group into a scratch row of `pixels` pixels, the first of them at input column `col`. */
static void stage_row(const fnn_correlation *c, const char *src, ptrdiff_t col, ptrdiff_t pixels, char *dst) {
    ptrdiff_t size = size_of(c->dtype), lo = fnn_min(fnn_max(-col, 0), pixels);
    ptrdiff_t hi = fnn_max(fnn_min(c->w.in - col, pixels), lo);
    memset(dst, 0, (size_t)(lo * c->pitch * size));
    if (hi > lo && c->repeats > 1)
        fnn_conv_repeat(c->K, c->dtype, hi - lo, c->depth / c->repeats, c->repeats, fnn_at(src, (col + lo) * c->src.w, c->dtype),
                        c->src.w, c->src.c, dst + lo * c->pitch * size, c->pitch);
    else if (hi > lo)
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
        fnn_valid_range(&c->w, offset, 0, c->w.out, &lo, &hi);
        for (ptrdiff_t o = 0; o < lo; o++) memset(to + o * c->pitch * size, 0, (size_t)(c->depth * size));
        if (hi > lo)
            c->K->conv_pack(1, hi - lo, c->depth, fnn_at(src, (lo * c->w.step + offset) * c->src.w, c->dtype),
                            c->src.w * c->w.step, c->src.c, to + lo * c->pitch * size, NULL, c->pitch);
        for (ptrdiff_t o = hi; o < c->w.out; o++) memset(to + o * c->pitch * size, 0, (size_t)(c->depth * size));
    }
}

char *fnn_conv_input_row(const fnn_correlation *c, ptrdiff_t image, ptrdiff_t group, ptrdiff_t row) {
    return fnn_at(c->src.data, image * c->src.n + group * c->depth * c->src.c + row * c->src.h, c->dtype);
}

/* Copies what a block of an image reads of a group's channels. */
static void stage(const fnn_correlation *c, const fnn_conv_block *b, ptrdiff_t image, ptrdiff_t group, char *scratch) {
    ptrdiff_t row = b->row * c->h.step + c->h.first, col = b->col * c->w.step + c->w.first,
              pixels = fnn_reach(&c->w, b->cols);
    ptrdiff_t row_bytes = c->row_pitch * size_of(c->dtype);
    for (ptrdiff_t i = 0, n = fnn_reach(&c->h, b->rows); i < n; i++, row++) {
        char *dst = scratch + (c->spread ? spread_place(c, c->block_rows, i) : i) * row_bytes;
        int inside = row >= 0 && row < c->h.in;
        if (!inside) {
            if (c->spread) memset(dst, 0, (size_t)row_bytes); /* else nobody reads it: see fnn_taps_that_meet */
        } else if (c->spread) spread_row(c, fnn_conv_input_row(c, image, group, row), dst);
        else stage_row(c, fnn_conv_input_row(c, image, group, row), col, pixels, dst);
    }
}

void fnn_conv_finish_run(const fnn_correlation *c, ptrdiff_t pixels, ptrdiff_t cols, char *out, ptrdiff_t out_row, char *dst,
                         const char *bias) {
    if (c->epilogue) {
        const char *residual = c->epilogue->residual;
        c->K->gemm_epilogue(pixels, cols, out, out_row, bias, residual ? residual + (dst - c->dst.data) : NULL,
                            c->dst.w, c->epilogue->activation);
    }
    if (out != dst) c->K->conv_scatter(pixels, cols, out, out_row, dst, c->dst.w, c->dst.c);
}

void fnn_taps_that_meet(const fnn_axis *a, ptrdiff_t at, ptrdiff_t *t, ptrdiff_t *t_end) {
    *t = *t_end = 0;
    for (ptrdiff_t tap = a->taps - 1; tap >= 0; tap--) {
        const ptrdiff_t from = at * a->step + a->first + tap * a->gap;
        if (from < 0 || from >= a->in) continue;
        if (*t_end == 0) *t_end = tap + 1;
        *t = tap;
    }
}

/* Depthwise: a block's output rows, two at a time where they share input rows; a: where tap (0, 0) of the first output is. */
static void compute_depthwise(const fnn_correlation *c, const fnn_conv_block *b, const char *a, char *dst, const char *bias,
                              char *scratch) {
    const fnn_conv_weight *w = c->weight;
    const ptrdiff_t most = c->h.step == 1 && c->h.gap == 1 && c->tile_at < 0 ? 2 : 1;
    const ptrdiff_t left = b->col * c->w.step + c->w.first;
    const ptrdiff_t copied = c->staged ? fnn_reach(&c->w, b->cols) : c->w.in - left; /* a copy ends with what the pixels need */
    const int dense = c->pitch == c->width && c->dst.w == c->width;
    const char *place = fnn_at(w->packed, (c->h.slot * w->s + c->w.slot) * w->cols, c->dtype);
    char *out = scratch + c->tile_at;
    fnn_depthwise p = {.pixels = b->cols, .channels = c->width, .group = w->lane_group, .taps_r = c->h.taps, .taps_s = c->w.taps,
                       .step = c->w.step, .gap = c->w.gap, .col_from = -left, .col_to = fnn_min(c->w.in - left, copied),
                       .a_r = c->h.gap * c->row_pitch, .a_s = c->pitch, .w_r = w->s * w->cols, .w_in = w->r * w->s * w->cols,
                       .w_c = w->panel_size, .y_row = c->dst.h, .y_pixel = c->tile_at < 0 ? c->dst.w : c->width,
                       .ahead_row = c->row_pitch,
                       .asks_x = dense && c->asks, .asks_y = dense && c->asks && !c->streamed, .stream = c->streamed};
    for (ptrdiff_t i = 0; i < b->rows; i += p.rows) {
        const ptrdiff_t top = (b->row + i) * c->h.step + c->h.first;
        p.rows = fnn_min(most, b->rows - i);
        if (p.rows == 1) fnn_taps_that_meet(&c->h, b->row + i, &p.row_from, &p.row_to);
        else p.row_from = fnn_max(-top, 0), p.row_to = fnn_min(fnn_reach(&c->h, 2), c->h.in - top);
        p.ahead = fnn_reach(&c->h, p.rows) * c->row_pitch;
        char *to = fnn_at(dst, i * c->dst.h, c->dtype);
        if (c->tile_at < 0) out = to;
        c->K->conv_depthwise(&p, fnn_at(a, i * c->h.step * c->row_pitch, c->dtype), place, out);
        for (ptrdiff_t r = 0, row = p.y_row; r < p.rows; r++)
            fnn_conv_finish_run(c, b->cols, c->width, fnn_at(out, r * row, c->dtype), p.y_pixel,
                                fnn_at(to, r * row, c->dtype), bias);
    }
}

/* Elements from a panel of weights to the next; of channels that make one panel they run on. */
static ptrdiff_t panel_step(const fnn_correlation *c) {
    return c->weight->cols == c->K->tile_cols ? c->weight->panel_size : c->K->tile_cols;
}

/* `pixels` output pixels that follow one another at dst, one panel of channels wide or two, from kernel rows t .. t_end - 1. */
static void compute_run(const fnn_correlation *c, ptrdiff_t t, ptrdiff_t t_end, ptrdiff_t pixels, ptrdiff_t cols, const char *a,
                        ptrdiff_t a_row, const char *panel, char *dst, const char *bias, char *scratch) {
    char *out = c->tile_at < 0 ? dst : scratch + c->tile_at;
    const ptrdiff_t out_row = c->tile_at < 0 ? c->dst.w : c->call_cols, inner = c->batch / c->h.taps;
    const ptrdiff_t batch = (t_end - t) * inner;
    const ptrdiff_t *a_offset = c->a_offset + t * inner, *b_offset = c->b_offset + t * inner;
    const fnn_epilogue *e = c->epilogue;
    const int alone = out == dst && e && !e->residual && !e->activation; /* the bias is all that follows: the tile adds it */
    c->K->gemm_panels(pixels, cols, batch, c->run, a, a_offset, a_row, 1, panel, b_offset, c->weight->cols, panel_step(c), out,
                      out_row, 0, alone ? bias : NULL);
    if (!alone) fnn_conv_finish_run(c, pixels, cols, out, out_row, dst, bias);
}

/* Where a panel's tiles find what they read and go to: the first pixel of a block. */
typedef struct {
    ptrdiff_t cols;
    const char *a, *panel, *bias;
    char *dst, *scratch;
} panel_run;

/* The same for spread rows from .. to - 1 of a block, which are one run. */
static void compute_spread_rows(const fnn_correlation *c, const fnn_conv_block *b, const panel_run *p, ptrdiff_t from, ptrdiff_t to,
                                ptrdiff_t t, ptrdiff_t t_end) {
    const char *a = fnn_at(p->a, from * c->row_pitch, c->dtype);
    char *dst = fnn_at(p->dst, from * c->dst.h, c->dtype);
    if (c->tile_at < 0) {
        compute_run(c, t, t_end, (to - from) * b->cols, p->cols, a, c->pitch, p->panel, dst, p->bias, p->scratch);
        return;
    }
    const ptrdiff_t wide = c->call_cols;
    char *out = p->scratch + c->tile_at;
    c->K->gemm_panels((to - from) * b->cols, p->cols, t_end - t, c->run, a, c->a_offset + t, c->pitch, 1, p->panel,
                      c->b_offset + t, c->weight->cols, panel_step(c), out, wide, 0, NULL);
    for (ptrdiff_t i = 0; i < to - from; i++)
        fnn_conv_finish_run(c, b->cols, p->cols, fnn_at(out, i * b->cols * wide, c->dtype), wide,
                            fnn_at(dst, i * c->dst.h, c->dtype), p->bias);
}

/* What so many pixels cost by `taps` kernel rows, in steps of a tile: small tiles wait for their latency. */
static ptrdiff_t run_cost(const fnn_correlation *c, ptrdiff_t pixels, ptrdiff_t cols, ptrdiff_t taps) {
    const ptrdiff_t tiles = fnn_ceil_div(pixels, c->K->tile_rows), least = fnn_ceil_div(LATENCY, fnn_ceil_div(cols, c->K->lanes));
    return fnn_max(pixels, tiles * least) * taps;
}

static int misses_taps(const fnn_axis *h, ptrdiff_t row, ptrdiff_t *t, ptrdiff_t *t_end) {
    fnn_taps_that_meet(h, row, t, t_end);
    return *t_end - *t < h->taps;
}

/* Spread rows of a block: one run, or three, so that those at the edges leave out kernel rows that meet only padding. */
static void compute_spread(const fnn_correlation *c, const fnn_conv_block *b, const panel_run *p) {
    const ptrdiff_t taps = c->h.taps;
    ptrdiff_t from = 0, to = b->rows, t, t_end, top = 0, bottom = taps;
    for (; from < to && misses_taps(&c->h, b->row + from, &t, &t_end); from++) top = t;
    for (; to > from && misses_taps(&c->h, b->row + to - 1, &t, &t_end); to--) bottom = t_end;
    const ptrdiff_t apart = run_cost(c, from * b->cols, p->cols, taps - top) + run_cost(c, (to - from) * b->cols, p->cols, taps) +
                            run_cost(c, (b->rows - to) * b->cols, p->cols, bottom);
    if (from == to || apart >= run_cost(c, b->rows * b->cols, p->cols, taps)) {
        compute_spread_rows(c, b, p, 0, b->rows, 0, taps);
        return;
    }
    if (from > 0) compute_spread_rows(c, b, p, 0, from, top, taps);
    compute_spread_rows(c, b, p, from, to, 0, taps);
    if (to < b->rows) compute_spread_rows(c, b, p, to, b->rows, 0, bottom);
}

/* What staging a group's input will read of an image's block, if that is a line of each pixel, between those of other groups, which no
 * CPU fetches ahead. (3x3, two cores of a Zen 3: 16 channels a group, 14 x 14 pixels 1.07 times as fast; 28 x 28 pixels, with stride 2,
 * which leave the first-level cache, 0.94; 32 channels 0.97.) */
static fnn_prefetch lines_of_group(const fnn_correlation *c, const fnn_conv_block *b, ptrdiff_t image, ptrdiff_t group) {
    const ptrdiff_t row = b->row * c->h.step + c->h.first, from = fnn_max(row, 0), size = size_of(c->dtype);
    const ptrdiff_t rows = fnn_min(row + fnn_reach(&c->h, b->rows), c->h.in) - from;
    const int are_lines = c->staged && c->stage_size <= NEAR_BYTES && c->src.c == 1 && c->depth * size <= FNN_LINE;
    if (group >= c->groups || !are_lines || b->cols < c->w.out || rows <= 0) return (fnn_prefetch){0};
    return fnn_prefetch_rows(fnn_conv_input_row(c, image, group, from), rows, c->src.h * size, c->w.in, c->src.w * size, c->depth * size);
}

/* Panels of output channels, as many as a call takes, for the block of one image, or of all where they are narrow; a: where tap
 * (0, 0) of the first output pixel is. */
static void compute_panels(const fnn_correlation *c, const fnn_conv_block *b, ptrdiff_t image, ptrdiff_t index, ptrdiff_t count,
                           const char *a, fnn_prefetch *next, char *scratch) {
    const fnn_conv_weight *w = c->weight;
    ptrdiff_t group = index / w->panels, first = index % w->panels * w->cols, cols = fnn_min(count * w->cols, w->width - first);
    ptrdiff_t channel = group * c->width + first;
    const char *panel = fnn_at(w->packed, index * w->panel_size, c->dtype);
    char *dst = fnn_conv_output(c, image, b->row, b->col, channel);
    const char *bias = c->epilogue && c->epilogue->bias ? fnn_at(c->epilogue->bias, channel, c->dtype) : NULL;
    if (c->narrow) fnn_narrow_compute(c, b, panel, channel, bias, scratch);
    else if (c->depthwise) compute_depthwise(c, b, a, dst, bias, scratch);
    else if (c->spread) compute_spread(c, b, &(panel_run){cols, a, panel, bias, dst, scratch});
    else
        for (ptrdiff_t i = 0; i < b->rows; i++) {
            fnn_prefetch_some(next, fnn_ceil_div(next->left, b->rows - i));
            const char *from = fnn_at(a, i * c->h.step * c->row_pitch, c->dtype);
            char *to = fnn_at(dst, i * c->dst.h, c->dtype);
            ptrdiff_t t, t_end;
            fnn_taps_that_meet(&c->h, b->row + i, &t, &t_end);
            compute_run(c, t, t_end, b->cols, cols, from, c->w.step * c->pitch, panel, to, bias, scratch);
        }
}

static void compute_chunk(const fnn_correlation *c, ptrdiff_t chunk, void *scratch) {
    ptrdiff_t split = chunk % c->splits, place = chunk / c->splits, panels = panels_of(c), staged = -1;
    fnn_conv_block b = {.col = place % c->col_blocks * c->block_cols,
                        .row = place / c->col_blocks % c->row_blocks * c->block_rows,
                        .image = place / c->col_blocks / c->row_blocks * c->block_images};
    b.images = fnn_min(c->block_images, c->images - b.image);
    b.rows = fnn_min(c->block_rows, c->h.out - b.row);
    b.cols = fnn_min(c->block_cols, c->w.out - b.col);
    ptrdiff_t row = b.row * c->h.step + c->h.first, col = b.col * c->w.step + c->w.first;
    const ptrdiff_t end = fnn_part_begin(panels, c->splits, split + 1), most = fnn_max(c->call_cols / c->weight->cols, 1);
    for (ptrdiff_t index = fnn_part_begin(panels, c->splits, split), count; index < end; index += count) {
        ptrdiff_t group = index / c->weight->panels;
        count = fnn_min(most, fnn_min(end, (group + 1) * c->weight->panels) - index);
        if (c->narrow && group != staged) fnn_narrow_stage(c, &b, group, scratch);
        for (ptrdiff_t i = 0, n = c->narrow ? 1 : b.images; i < n; i++) {
            char *copy = (char *)scratch + i * c->stage_size;
            if (c->staged && !c->narrow && group != staged) stage(c, &b, b.image + i, group, copy);
            const char *direct = fnn_at(fnn_conv_input_row(c, b.image + i, group, row), col * c->src.w, c->dtype);
            fnn_prefetch next = {0};
            if (c->groups > 1 && group != staged) next = lines_of_group(c, &b, b.image + i, group + 1);
            compute_panels(c, &b, b.image + i, index, count, c->staged ? copy : direct, &next, scratch);
        }
        staged = group;
    }
    if (c->streamed) c->K->stream_end();
    if (c->leader) fnn_conv_follow(c->leader, &c->dst, &b);
}

/* No tap reaches these outputs, a phase of backward_input that the kernel never touched: the bias, or zeros. */
static void fill_image(const fnn_correlation *c, ptrdiff_t image) {
    for (ptrdiff_t i = 0; i < c->h.out; i++)
        c->K->conv_fill(c->w.out, c->groups * c->width, c->epilogue ? c->epilogue->bias : NULL,
                        fnn_at(c->dst.data, image * c->dst.n + i * c->dst.h, c->dtype), c->dst.w, c->dst.c);
}

/* Tables of where a tile's operands start, from `memory` on. */
static void fill_offsets(fnn_correlation *c, void *memory) {
    const fnn_conv_weight *w = c->weight;
    c->a_offset = memory;
    c->b_offset = c->a_offset + c->batch;
    int by_channel = c->narrow == FNN_NARROW_PIXELS && c->depth < c->w.taps; /* fewer channels than taps in a row */
    ptrdiff_t inner = c->merged ? 1 : by_channel ? c->depth : c->w.taps;
    ptrdiff_t step = by_channel ? c->plane : c->w.gap * c->pitch;
    for (ptrdiff_t i = 0; i < c->batch; i++) {
        ptrdiff_t t = i / inner, u = i % inner, place = (c->h.slot + t) * w->s + c->w.slot + (by_channel ? 0 : u);
        c->a_offset[i] = (c->spread ? spread_place(c, c->block_rows, t * c->h.gap) : t * c->h.gap) * c->row_pitch + u * step;
        c->b_offset[i] = place * w->depth * w->cols + (by_channel ? u * w->cols : 0);
    }
}

typedef struct {
    const fnn_correlation *list;
    ptrdiff_t count;
} correlations;

/* Whether depthwise results are too large for the caches, nobody takes them from there, and pixels are whole lines. */
static int wants_stream(const fnn_call *call, const fnn_correlation *c) {
    const ptrdiff_t line = 64 / size_of(c->dtype);
    return c->depthwise && c->tile_at < 0 && !call->follower && !c->epilogue &&
           fnn_may_stream(c->dst.data, fnn_numel(call->out[0]), c->width, c->dtype) && c->dst.w % line == 0 &&
           c->dst.h % line == 0 && c->dst.n % line == 0;
}

static ptrdiff_t chunks_of(const fnn_correlation *c) {
    if (c->images * c->h.out * c->w.out == 0) return 0;
    return c->batch ? count_chunks(c) : c->images;
}

/* Chunk by chunk through all correlations in turn: phases of one block read the same input and write the same lines. */
static void correlate_chunk(void *context, ptrdiff_t chunk, void *scratch) {
    const correlations *all = context;
    const fnn_correlation *c = &all->list[chunk % all->count];
    ptrdiff_t index = chunk / all->count;
    if (index >= chunks_of(c)) return;
    if (c->batch) compute_chunk(c, index, scratch);
    else fill_image(c, index);
}

static ptrdiff_t results_of(const fnn_correlation *c) { return c->images * c->h.out * c->w.out * c->groups * c->width; }

void fnn_correlate(const fnn_call *call, fnn_correlation *list, ptrdiff_t count, void *memory) {
    correlations all = {list, count};
    /* A dense result of one correlation; without taps its chunks are images. */
    const int whole = count == 1 && results_of(list) == fnn_numel(call->out[0]);
    const int follows = call->follower && whole && list->batch && list->splits == 1;
    if (follows) list->leader = call;
    ptrdiff_t chunks = 0;
    double ns = 0;
    for (ptrdiff_t i = 0; i < count; i++) {
        fnn_correlation *c = &list[i];
        fill_offsets(c, memory);
        c->streamed = wants_stream(call, c);
        c->asks = count == 1 && !c->staged;
        memory = (char *)memory + fnn_correlate_bytes(c);
        chunks = fnn_max(chunks, chunks_of(c));
        ns += (double)(c->images * c->h.out * c->w.out) * (c->flops / 100 + 0.1 * (double)(c->groups * c->width));
    }
    fnn_parallel_for(call, chunks * count, ns, correlate_chunk, &all);
    if (!follows) fnn_follow_all(call, NULL);
}

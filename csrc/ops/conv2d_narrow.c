/* conv2d_narrow.c: correlations with so few output channels that most lanes would idle. Channels become the rows of tiles, and the
 * columns are pixels, or images.
 *
 * Pixels: the input is staged as planes, a chunk's product is (channels x pixels), and it is transposed on its way out.
 * Images: many small maps, of which every pixel is a tile of its own, as wide as the images of a block. Taps outside the input
 * are left out, which a run of pixels cannot do for columns (LeNet-5's second input gradient: 196 pixels of 25 taps, of which
 * 2,500 matter), and maps are transposed as whole matrices, image by place, on their way in and out. */
#include "conv2d.h"

#include <string.h>

enum {
    IMAGES_BYTES = 192 << 10 /* of the input that a row of outputs reads, in all images of a block: half of a second-level cache */
};

static ptrdiff_t size_of(const fnn_correlation *c) { return (ptrdiff_t)fnn_itemsize(c->dtype); }

/* ---- the plan ---- */

static int few_channels(const fnn_correlation *c) {
    return !c->depthwise && c->width <= fnn_few_channels(c->K) && c->h.taps * c->w.taps > 1;
}

static int across_images(const fnn_correlation *c) {
    const ptrdiff_t row = fnn_reach(&c->h, 1) * c->w.in * c->depth * c->K->tile_cols * size_of(c);
    return c->images >= c->K->tile_cols && row <= IMAGES_BYTES && (c->w.gap == 1 || c->w.taps == 1);
}

fnn_narrow_form fnn_narrow_form_of(const fnn_correlation *c) {
    if (!few_channels(c)) return FNN_NOT_NARROW;
    if (across_images(c)) return FNN_NARROW_IMAGES;
    return c->w.step == 1 ? FNN_NARROW_PIXELS : FNN_NOT_NARROW;
}

/* Planes whose rows follow one another need the zeros between two rows only once: those on the right of one are those on the left
 * of the next. */
static ptrdiff_t shared_pitch(const fnn_correlation *c) {
    const ptrdiff_t full = fnn_reach(&c->w, c->block_cols), left = fnn_max(-c->w.first, 0);
    const ptrdiff_t right = fnn_max(c->w.first + full - c->w.in, 0);
    if (c->block_cols < c->w.out) return full;
    return fnn_min(fnn_max(c->w.in + fnn_max(left, right), c->w.out), full);
}

ptrdiff_t fnn_narrow_plan(fnn_correlation *c) {
    if (c->narrow == FNN_NARROW_IMAGES) {
        c->row_pitch = c->w.in * c->depth * c->block_images;
        const ptrdiff_t row = c->w.out * c->width * c->block_images * size_of(c);
        return c->pooling ? 3 * row : row; /* two rows, half as many maxima, as many positions */
    }
    const ptrdiff_t pixels = fnn_reach(&c->w, c->block_cols), shared = shared_pitch(c);
    c->linear = c->h.step == 1 && 2 * shared <= 3 * c->block_cols;
    c->row_pitch = c->linear ? c->block_images * shared : pixels;
    c->plane = fnn_reach(&c->h, c->block_rows) * c->row_pitch + (c->linear ? pixels - shared : 0);
    return c->width * (c->linear ? c->block_rows * c->row_pitch : pixels) * size_of(c);
}

/* ---- what is read ---- */

/* Input row, pixels from column `col` on, into a row of every channel's plane; scratch is zero where nothing is
 * written. */
static void plane_row(const fnn_correlation *c, const char *src, ptrdiff_t col, ptrdiff_t pixels, char *dst) {
    ptrdiff_t lo = fnn_min(fnn_max(-col, 0), pixels), hi = fnn_max(fnn_min(c->w.in - col, pixels), lo);
    if (hi > lo)
        c->K->conv_pack(1, c->depth, hi - lo, fnn_at(src, (col + lo) * c->src.w, c->dtype), c->src.c, c->src.w,
                        fnn_at(dst, lo, c->dtype), NULL, c->plane);
}

/* Input row of the block's images: [column][channel][image]. */
static void images_row(const fnn_correlation *c, const char *src, ptrdiff_t images, char *dst) {
    const int dense = c->depth == 1 ? c->src.w == 1 : c->src.c == 1 && c->src.w == c->depth;
    const ptrdiff_t runs = dense ? 1 : c->w.in, run = dense ? c->w.in * c->depth : c->depth;
    for (ptrdiff_t i = 0; i < runs; i++)
        c->K->conv_pack(1, run, images, fnn_at(src, i * c->src.w, c->dtype), dense ? 1 : c->src.c, c->src.n,
                        fnn_at(dst, i * run * c->block_images, c->dtype), NULL, c->block_images);
}

/* The rows that a block reads; `images`: all of them at once. */
static void stage_rows(const fnn_correlation *c, const fnn_conv_block *b, ptrdiff_t image, ptrdiff_t images, ptrdiff_t group,
                       char *dst) {
    const ptrdiff_t row = b->row * c->h.step + c->h.first, col = b->col * c->w.step + c->w.first;
    for (ptrdiff_t i = 0, n = fnn_reach(&c->h, b->rows); i < n; i++, dst += c->row_pitch * size_of(c)) {
        if (row + i < 0 || row + i >= c->h.in) continue;
        const char *src = fnn_conv_input_row(c, image, group, row + i);
        if (c->narrow == FNN_NARROW_IMAGES) images_row(c, src, images, dst);
        else plane_row(c, src, col, fnn_reach(&c->w, b->cols), dst);
    }
}

static char *planes_of(const fnn_correlation *c, ptrdiff_t image, char *scratch) {
    return c->linear ? fnn_at(scratch, image * (c->row_pitch / c->block_images), c->dtype) : scratch + image * c->stage_size;
}

void fnn_narrow_stage(const fnn_correlation *c, const fnn_conv_block *b, ptrdiff_t group, char *scratch) {
    if (c->narrow == FNN_NARROW_IMAGES) {
        stage_rows(c, b, b->image, b->images, group, scratch);
        return;
    }
    memset(scratch, 0, (size_t)(c->block_images * c->stage_size));
    for (ptrdiff_t i = 0; i < b->images; i++) stage_rows(c, b, b->image + i, 1, group, planes_of(c, i, scratch));
}

/* ---- columns are pixels ---- */

/* `product` (width x pixels, rows `pitch` apart) from kernel rows t .. t_end - 1; a: where tap (0, 0) of the first pixel is. */
static void multiply_pixels(const fnn_correlation *c, ptrdiff_t t, ptrdiff_t t_end, ptrdiff_t pixels, const char *a,
                            const char *panel, char *product, ptrdiff_t pitch) {
    const int by_place = c->depth >= c->w.taps;
    const ptrdiff_t step = by_place ? c->plane : c->w.gap, weight_step = by_place ? c->weight->cols : c->depth * c->weight->cols;
    const ptrdiff_t inner = c->batch / c->h.taps;
    for (ptrdiff_t p = 0, n; p < pixels; p += n) {
        n = fnn_min(2 * c->K->tile_cols, pixels - p);
        c->K->gemm_tile(c->width, n, (t_end - t) * inner, c->run, panel, c->b_offset + t * inner, 1, weight_step,
                        fnn_at(a, p, c->dtype), c->a_offset + t * inner, step, fnn_at(product, p, c->dtype), pitch, 0);
    }
}

/* A residual is added pixel by pixel; without one the epilogue is applied before the transpose. */
static int finishes_early(const fnn_correlation *c) { return !c->epilogue || !c->epilogue->residual; }

static int early_activation(const fnn_correlation *c) {
    return c->epilogue && finishes_early(c) ? c->epilogue->activation : FNN_ACT_NONE;
}

/* What is left to do to a row of pixels that was transposed to `out`: the way to dst, a late epilogue. */
static void store_late(const fnn_correlation *c, ptrdiff_t cols, char *out, ptrdiff_t out_col, char *dst, const char *bias) {
    if (!finishes_early(c)) fnn_conv_finish_run(c, cols, c->width, out, out_col, dst, bias);
    else if (out != dst) c->K->conv_scatter(cols, c->width, out, out_col, dst, c->dst.w, c->dst.c);
}

/* `rows` rows of a product, c->row_pitch apart, finished and transposed on their way to dst. */
static void store_pixels(const fnn_correlation *c, ptrdiff_t rows, ptrdiff_t cols, const char *product, ptrdiff_t pitch, char *dst,
                         const char *bias, char *scratch) {
    const int early = finishes_early(c);
    const ptrdiff_t together = c->tile_at < 0 && early ? rows : 1;
    for (ptrdiff_t i = 0; i < rows; i += together) {
        char *to = fnn_at(dst, i * c->dst.h, c->dtype), *out = c->tile_at < 0 ? to : scratch + c->tile_at;
        ptrdiff_t out_col = c->tile_at < 0 ? c->dst.w : c->weight->cols;
        c->K->conv_planes_out(together, cols, c->width, fnn_at(product, i * c->row_pitch, c->dtype), pitch, c->row_pitch,
                              early ? bias : NULL, early_activation(c), out, c->dst.h, out_col);
        store_late(c, cols, out, out_col, to, bias);
    }
}

/* All images of a block at once, their rows side by side, so that runs are long although rows that meet fewer kernel rows go by
 * themselves. */
static void compute_linear(const fnn_correlation *c, const fnn_conv_block *b, const char *panel, ptrdiff_t channel,
                           const char *bias, char *scratch) {
    const ptrdiff_t image_pitch = c->row_pitch / c->block_images, pitch = c->row_pitch * c->block_rows;
    char *product = scratch + c->product_at;
    for (ptrdiff_t row = 0, n, t, t_end; row < b->rows; row += n) {
        fnn_taps_that_meet(&c->h, b->row + row, &t, &t_end);
        for (n = 1; row + n < b->rows; n++) {
            ptrdiff_t next, next_end;
            fnn_taps_that_meet(&c->h, b->row + row + n, &next, &next_end);
            if (next != t || next_end != t_end) break;
        }
        multiply_pixels(c, t, t_end, (n - 1) * c->row_pitch + (b->images - 1) * image_pitch + b->cols,
                        fnn_at(scratch, row * c->row_pitch, c->dtype), panel, product, pitch);
        for (ptrdiff_t i = 0; i < b->images; i++)
            store_pixels(c, n, b->cols, fnn_at(product, i * image_pitch, c->dtype), pitch,
                         fnn_conv_output(c, b->image + i, b->row + row, b->col, channel), bias, scratch);
    }
}

static void compute_rows(const fnn_correlation *c, const fnn_conv_block *b, const char *panel, ptrdiff_t channel, const char *bias,
                         char *scratch) {
    char *product = scratch + c->product_at;
    for (ptrdiff_t image = 0; image < b->images; image++)
        for (ptrdiff_t i = 0, t, t_end; i < b->rows; i++) {
            const char *from = fnn_at(scratch + image * c->stage_size, i * c->h.step * c->row_pitch, c->dtype);
            fnn_taps_that_meet(&c->h, b->row + i, &t, &t_end);
            multiply_pixels(c, t, t_end, b->cols, from, panel, product, b->cols);
            store_pixels(c, 1, b->cols, product, b->cols, fnn_conv_output(c, b->image + image, b->row + i, b->col, channel), bias,
                         scratch);
        }
}

/* ---- columns are images ---- */

/* Row of pixels `row` of the block: product [column][channel][image]. Pixels whose windows are inside are one series. */
static void multiply_images(const fnn_correlation *c, const fnn_conv_block *b, ptrdiff_t row, const char *panel,
                            const char *staged, char *product) {
    const ptrdiff_t pixel = c->depth * c->block_images, result = c->width * c->block_images, cols = c->weight->cols;
    ptrdiff_t t, t_end, s, s_end, lo, hi, any;
    fnn_taps_that_meet(&c->h, b->row + row, &t, &t_end);
    fnn_valid_range(&c->w, c->w.first, 0, b->cols, &lo, &any);
    fnn_valid_range(&c->w, c->w.first + (c->w.taps - 1) * c->w.gap, 0, b->cols, &any, &hi);
    for (ptrdiff_t i = 0, n; i < b->cols; i += n) {
        const int inside = i >= lo && i < hi;
        n = inside ? hi - i : 1;
        s = 0, s_end = c->w.taps;
        if (!inside) fnn_taps_that_meet(&c->w, i, &s, &s_end);
        const ptrdiff_t from = row * c->h.step * c->row_pitch + (i * c->w.step + c->w.first + s) * pixel;
        c->K->gemm_tile_series(n, c->w.step * pixel, result, c->width, b->images, t_end - t, (s_end - s) * c->depth,
                               fnn_at(panel, s * c->depth * cols, c->dtype), c->b_offset + t, 1, cols,
                               fnn_at(staged, from, c->dtype), c->a_offset + t, c->block_images,
                               fnn_at(product, i * result, c->dtype), c->block_images);
    }
}

static void compute_images(const fnn_correlation *c, const fnn_conv_block *b, const char *panel, ptrdiff_t channel,
                           const char *bias, char *scratch) {
    char *product = scratch + c->product_at;
    const int early = finishes_early(c), direct = c->tile_at < 0;
    for (ptrdiff_t row = 0; row < b->rows; row++) {
        multiply_images(c, b, row, panel, scratch, product);
        char *dst = fnn_conv_output(c, b->image, b->row + row, b->col, channel), *out = direct ? dst : scratch + c->tile_at;
        const ptrdiff_t out_col = direct ? c->dst.w : c->width, out_image = direct ? c->dst.n : b->cols * c->width;
        c->K->conv_images_out(b->cols, c->width, b->images, product, c->block_images, early ? bias : NULL, early_activation(c), out,
                              out_image, out_col);
        for (ptrdiff_t i = 0; i < b->images && !(early && direct); i++)
            store_late(c, b->cols, fnn_at(out, i * out_image, c->dtype), out_col, fnn_at(dst, i * c->dst.n, c->dtype), bias);
    }
}

/* ---- and are pooled ---- */

int fnn_narrow_can_pool(const fnn_correlation *c, const fnn_call *pooling) {
    static const int64_t windows[8] = {2, 2, 2, 2, 0, 0, 1, 1}; /* kernel, stride, padding, dilation */
    const fnn_tensor *map = pooling->in[0];
    const ptrdiff_t shape[4] = {c->images, c->width, c->h.out, c->w.out};
    if (c->narrow != FNN_NARROW_IMAGES || c->dtype != FNN_FLOAT32 || c->groups > 1) return 0;
    if (map->rank != 4 || memcmp(map->shape, shape, sizeof shape)) return 0;
    if (memcmp(pooling->attr.i, windows, sizeof windows) || (pooling->attr.i[8] && (c->h.out % 2 || c->w.out % 2))) return 0;
    for (int k = 0; k < 2; k++) {
        const fnn_tensor *t = pooling->out[k];
        if (t && (t->stride[1] != 1 || t->stride[3] != c->width)) return 0;
    }
    return 1;
}

/* Pairs of rows: their maxima and positions are [column][channel][image], as the product is. */
static void pool_images(const fnn_correlation *c, const fnn_conv_block *b, const char *panel, const char *bias, char *scratch) {
    const ptrdiff_t cols = c->w.out / 2, row = c->w.out * c->width * c->block_images, pooled = cols * c->width * c->block_images;
    char *upper = scratch + c->product_at, *lower = fnn_at(upper, row, c->dtype);
    char *maxima = fnn_at(lower, row, c->dtype), *positions = fnn_at(maxima, pooled, c->dtype);
    const char *results[2] = {maxima, positions};
    for (ptrdiff_t i = 0; i + 1 < b->rows; i += 2) {
        multiply_images(c, b, i, panel, scratch, upper);
        multiply_images(c, b, i + 1, panel, scratch, lower);
        c->K->conv_images_pool(cols, c->width, c->block_images, upper, lower, bias, early_activation(c), maxima, positions);
        for (int k = 0; k < 2; k++) {
            const fnn_tensor *t = c->pooling->out[k];
            if (!t) continue;
            char *to = fnn_at(t->data, b->image * t->stride[0] + (b->row + i) / 2 * t->stride[2], c->dtype);
            c->K->conv_images_out(cols, c->width, b->images, results[k], c->block_images, NULL, FNN_ACT_NONE, to, t->stride[0],
                                  t->stride[3]);
        }
    }
}

void fnn_narrow_compute(const fnn_correlation *c, const fnn_conv_block *b, const char *panel, ptrdiff_t channel,
                        const char *bias, char *scratch) {
    if (c->narrow == FNN_NARROW_IMAGES && c->pooling) pool_images(c, b, panel, bias, scratch);
    else if (c->narrow == FNN_NARROW_IMAGES) compute_images(c, b, panel, channel, bias, scratch);
    else if (c->linear) compute_linear(c, b, panel, channel, bias, scratch);
    else compute_rows(c, b, panel, channel, bias, scratch);
}

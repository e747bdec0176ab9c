/* conv2d_weight_packed.c: weights' gradients where an input channel or a few leave register tiles empty, unless horizontal kernel
 * positions help to fill them.
 *
 * For each kernel row it is a matrix product x^T dy that sums over pixels: gemm_tile with x as the k-major A, whose rows are all
 * horizontal kernel positions and channels of a pixel, and dy as B. Both are packed, a block of output rows at a time: x as
 * zero-padded rows, where the positions are neighbours (with dilation as cells of one tile at one pixel), dy as panels of output
 * channels. With few output channels most lanes would idle: then lanes are neighbouring pixels of planes, or many small images, and
 * the lanes' sums are added at the end (`narrow`). */
#include "conv2d.h"

#include <string.h>

enum {
    PARTS_BYTES = 8 << 20,    /* all parts together */
    PART_PIXELS = 128,        /* at least: adding a part costs what a few pixels do, and two threads want even shares */
    TARGET_BYTES = 640 << 10, /* of the gradient a chunk works on, to stay in the second-level cache */
    BLOCK_PIXELS = 256,       /* packed at a time, at least: a tile of the gradient is read and written once for each block */
    NARROW_BYTES = 24 << 10,  /* planes packed at a time, to stay in the first-level cache */
    NARROW_SUMS = 128 << 10,  /* bytes of the lanes' sums, at most */
    IMAGES_BYTES = 128 << 10, /* packed at a time where lanes are images: a part of the second-level cache */
    CHUNKS = 16,
    CHUNK_FLOPS = 16 << 20
};

typedef struct {
    fnn_conv_parts sum;
    fnn_image x, dy;
    int lines;                           /* read from padded rows */
    int narrow;                          /* lanes are pixels of planes, or images */
    ptrdiff_t images;                    /* narrow: so many at a time, as lanes of [row][column][channel][image]; 0: pixels */
    ptrdiff_t units;                     /* output rows, of all images, or of all blocks of images */
    int dense_dy;                        /* its rows follow one another */
    ptrdiff_t rows, tiles, height, cell; /* gradient rows of one kernel row, in tiles of `height` */
    ptrdiff_t chunk_panels, chunk_tiles, chunk_r, panel_chunks, tile_chunks, r_chunks;
    ptrdiff_t row_step, pitch;        /* packed x: rows between output rows, elements of a row */
    ptrdiff_t block_rows, block_images, image_rows; /* output rows of a block, images of it, packed rows of its part in one */
    size_t slot_at, dy_at, x_at, line_at, shared, scratch;
} gradient;

/* ---- plan ---- */

static ptrdiff_t sums_bytes(const fnn_conv_dims *d, const fnn_kernels *K) {
    return d->r * d->c * d->k * d->s * K->lanes * (ptrdiff_t)fnn_itemsize(K->dtype);
}

/* Columns of x that a row of outputs reads. */
static ptrdiff_t columns_read(const fnn_conv_dims *d) { return (d->ow - 1) * d->stride[1] + (d->s - 1) * d->dilation[1] + 1; }

/* Bytes of an output row, and of the rows of x that it moves on by, for one image. */
static ptrdiff_t row_bytes(const fnn_conv_dims *d, const fnn_kernels *K) {
    const ptrdiff_t step = d->r == 1 ? 1 : d->stride[0];
    return (d->k * d->ow + d->c * step * columns_read(d)) * (ptrdiff_t)fnn_itemsize(K->dtype);
}

/* Whether lanes are images: as many as a tile has columns, a few of whose rows fit. */
static int wants_images(const fnn_conv_dims *d, const fnn_kernels *K) {
    return d->n >= K->tile_cols && 4 * K->tile_cols * row_bytes(d, K) <= IMAGES_BYTES;
}

static int wants_narrow(const fnn_conv_dims *d, const fnn_kernels *K) {
    return d->s > 1 && d->k <= fnn_few_channels(K) && sums_bytes(d, K) <= NARROW_SUMS &&
           (wants_images(d, K) || (d->stride[1] == 1 && 2 * d->ow >= K->lanes));
}

/* Not where channels fill register tiles without the horizontal kernel positions' help. */
int fnn_conv_packed_suits(const fnn_conv_dims *d, int dtype) {
    const fnn_kernels *K = fnn_kernels_of(dtype);
    return wants_narrow(d, K) || (d->s > 1 && d->c < K->tile_rows);
}

/* Whether pixels are equally far apart throughout, with neighbouring channels. */
static int is_one_run(const fnn_image *t, ptrdiff_t h, ptrdiff_t w) { return t->c == 1 && fnn_image_is_dense(t, h, w); }

static void split_gradient(gradient *p) {
    const fnn_conv_dims *d = p->sum.d;
    ptrdiff_t size = (ptrdiff_t)fnn_itemsize(p->sum.dtype), pixels = d->n * d->oh * d->ow, bytes = p->sum.part_size * size;
    double flops = 2.0 * (double)pixels * (double)(p->sum.groups * p->sum.k * p->sum.c * d->r * d->s);
    const ptrdiff_t most = fnn_min(PARTS_BYTES / fnn_max(bytes, 1), pixels / PART_PIXELS);
    p->sum.parts = fnn_max(fnn_min(most, fnn_min(CHUNKS, p->units)), 1);
    p->chunk_panels = p->sum.panels, p->chunk_tiles = p->tiles, p->chunk_r = d->r;
    for (;;) {
        ptrdiff_t splits = p->sum.groups * fnn_ceil_div(p->sum.panels, p->chunk_panels) *
                           fnn_ceil_div(p->tiles, p->chunk_tiles) * fnn_ceil_div(d->r, p->chunk_r);
        ptrdiff_t target = p->chunk_panels * p->sum.cols * p->chunk_tiles * p->height * p->chunk_r * size;
        int wanted = p->sum.parts * splits < CHUNKS && flops / (double)(p->sum.parts * splits) > 2 * CHUNK_FLOPS;
        if (target <= TARGET_BYTES && !wanted) break;
        /* Halve the longer side: a chunk packs its channels of x and of dy for itself. */
        if (p->chunk_panels > 1 && p->chunk_panels * p->sum.cols >= p->chunk_tiles * p->height)
            p->chunk_panels = fnn_ceil_div(p->chunk_panels, 2);
        else if (p->chunk_tiles > 4) p->chunk_tiles = fnn_ceil_div(p->chunk_tiles, 2);
        else if (p->chunk_r > 1) p->chunk_r = fnn_ceil_div(p->chunk_r, 2);
        else if (p->chunk_panels > 1) p->chunk_panels = fnn_ceil_div(p->chunk_panels, 2);
        else break;
    }
    p->panel_chunks = fnn_ceil_div(p->sum.panels, p->chunk_panels);
    p->tile_chunks = fnn_ceil_div(p->tiles, p->chunk_tiles);
    p->r_chunks = fnn_ceil_div(d->r, p->chunk_r);
}

static void plan_tiles(gradient *p) {
    const fnn_conv_dims *d = p->sum.d;
    p->sum.cols = fnn_min(p->sum.K->tile_cols, fnn_round_up(p->sum.k, 8));
    p->sum.panels = fnn_ceil_div(p->sum.k, p->sum.cols);
    p->sum.part_size = p->sum.groups * p->sum.panels * d->r * d->s * p->sum.c * p->sum.cols;
    p->narrow = wants_narrow(d, p->sum.K);
    p->images = p->narrow && wants_images(d, p->sum.K) ? p->sum.K->tile_cols : 0;
    p->units = (p->images ? fnn_ceil_div(d->n, p->images) : d->n) * d->oh;
    p->rows = d->s * p->sum.c;
    p->tiles = p->narrow ? 1 : fnn_ceil_div(p->rows, p->sum.K->tile_rows);
    p->height = fnn_ceil_div(p->rows, p->tiles);
    p->lines = !p->narrow && d->dilation[1] == 1;
    p->cell = p->images ? p->sum.c * p->images : p->narrow ? 1 : p->lines ? p->sum.c : fnn_round_up(p->height, 8);
}

/* How many output rows are packed at a time, and what of x with them. */
static void plan_block(gradient *p) {
    const fnn_conv_dims *d = p->sum.d;
    if (p->narrow) {
        const ptrdiff_t rows = (p->images ? IMAGES_BYTES / p->images : NARROW_BYTES) / row_bytes(d, p->sum.K);
        p->block_rows = fnn_min(fnn_max(rows, 1), d->oh), p->block_images = 1;
    } else {
        p->block_images = fnn_min(fnn_max(BLOCK_PIXELS / (d->oh * d->ow), 1), fnn_max(d->n, 1));
        p->block_rows = p->block_images > 1 ? p->block_images * d->oh : fnn_min(fnn_ceil_div(BLOCK_PIXELS, d->ow), d->oh);
    }
    const int by_output = !p->lines && !p->narrow; /* a cell for each output column, not for each of x */
    p->row_step = d->r == 1 ? 1 : d->stride[0];
    p->pitch = (by_output ? d->ow : columns_read(d)) * p->cell;
    p->image_rows = (fnn_min(p->block_rows, d->oh) - 1) * p->row_step + (d->r - 1) * d->dilation[0] + 1;
}

static size_t elements_bytes(const gradient *p, ptrdiff_t elements) {
    return fnn_whole_lines((size_t)elements * fnn_itemsize(p->sum.dtype));
}

/* shared: [parts][slots]; scratch: [offsets][dy][x][a padded row of x, or the lanes' sums]; or a panel of the result, when dweight
 * is strided. */
static void plan_memory(gradient *p) {
    const fnn_conv_dims *d = p->sum.d;
    p->slot_at = elements_bytes(p, p->sum.parts * p->sum.part_size);
    p->shared = p->slot_at + fnn_whole_lines((size_t)(d->r * d->s) * sizeof(ptrdiff_t));
    const ptrdiff_t dy_pixels = p->block_rows * d->ow * fnn_max(p->images, 1);
    const ptrdiff_t x_rows = (p->images ? 1 : p->narrow ? p->sum.c : p->block_images) * p->image_rows;
    p->dy_at = fnn_whole_lines((size_t)(2 * p->block_rows) * sizeof(ptrdiff_t));
    p->x_at = p->dy_at + elements_bytes(p, dy_pixels * p->chunk_panels * p->sum.cols);
    p->line_at = p->x_at + elements_bytes(p, x_rows * p->pitch);
    p->scratch = p->line_at + (p->narrow ? fnn_whole_lines((size_t)sums_bytes(d, p->sum.K))
                                         : elements_bytes(p, columns_read(d) * p->sum.c));
    const size_t panel = fnn_conv_combine_scratch(&p->sum);
    if (p->scratch < panel) p->scratch = panel;
}

static void plan_gradient(const fnn_call *call, const fnn_conv_dims *d, gradient *p) {
    const fnn_tensor *dy = call->in[0], *x = call->in[1];
    *p = (gradient){.sum = {.call = call, .d = d, .K = fnn_kernels_of(x->dtype), .dtype = x->dtype, .dw = *call->out[0],
                            .groups = d->groups, .c = d->c, .k = d->k},
                    .x = fnn_image_of(x),
                    .dy = fnn_image_of(dy)};
    plan_tiles(p);
    split_gradient(p);
    p->dense_dy = is_one_run(&p->dy, d->oh, d->ow);
    plan_block(p);
    plan_memory(p);
}

static ptrdiff_t clamp(ptrdiff_t v, ptrdiff_t lo, ptrdiff_t hi) { return fnn_min(fnn_max(v, lo), hi); }

/* ---- packing ---- */

/* Row y of image n of x, `channels` channels from `first` on, every `step`-th column from -left on: [pixels][cell];
 * zeros outside. */
static void pack_line(const gradient *p, ptrdiff_t n, ptrdiff_t y, ptrdiff_t first, ptrdiff_t channels, ptrdiff_t step,
                      ptrdiff_t pixels, char *dst, ptrdiff_t cell) {
    const fnn_conv_dims *d = p->sum.d;
    ptrdiff_t size = (ptrdiff_t)fnn_itemsize(p->sum.dtype), left = d->padding[2], lo = fnn_min(fnn_ceil_div(left, step), pixels);
    ptrdiff_t hi = fnn_max(fnn_min(fnn_ceil_div(left + d->w, step), pixels), lo);
    if (y < 0 || y >= d->h) lo = hi = pixels;
    memset(dst, 0, (size_t)(lo * cell * size));
    if (hi > lo)
        p->sum.K->conv_pack(1, hi - lo, channels,
                            fnn_at(p->x.data, n * p->x.n + y * p->x.h + (lo * step - left) * p->x.w + first * p->x.c, p->sum.dtype),
                            step * p->x.w, p->x.c, dst + lo * cell * size, NULL, cell);
    memset(dst + hi * cell * size, 0, (size_t)((pixels - hi) * cell * size));
}

/* One packed row: all channels of every column, or a cell of tile `tile` for every output column. */
static void pack_row(const gradient *p, ptrdiff_t group, ptrdiff_t tile, ptrdiff_t n, ptrdiff_t y, char *dst,
                     char *line) {
    const fnn_conv_dims *d = p->sum.d;
    ptrdiff_t from = tile * p->height, height = fnn_min(p->height, p->rows - from), pixels = p->pitch / p->cell,
              c = p->sum.c;
    if (p->lines) {
        pack_line(p, n, y, group * c, c, 1, pixels, dst, c);
        return;
    }
    pack_line(p, n, y, group * c, c, 1, columns_read(d), line, c);
    for (ptrdiff_t q = from, n_q; q < from + height; q += n_q) {
        n_q = fnn_min(c - q % c, from + height - q);
        p->sum.K->conv_pack(1, d->ow, n_q, fnn_at(line, q / c * d->dilation[1] * c + q % c, p->sum.dtype), d->stride[1] * c, 1,
                            fnn_at(dst, q - from, p->sum.dtype), NULL, p->cell);
    }
}

/* ---- a chunk: one part of the pixels, one box of the gradient ---- */

typedef struct {
    ptrdiff_t group, panel, panel_end, tile, tile_end, r, r_end;
    char *part;
    ptrdiff_t *a_offset, *b_offset;
    char *dy, *x, *line;
    fnn_prefetch next_x, next_dy; /* of the next block */
    ptrdiff_t quota_x, quota_dy;  /* to ask for before each tile */
} target;

static char *place_of(const gradient *p, const target *t, ptrdiff_t panel, ptrdiff_t r, ptrdiff_t row) {
    const fnn_conv_dims *d = p->sum.d;
    return fnn_at(t->part, (((t->group * p->sum.panels + panel) * d->r + r) * d->s * p->sum.c + row) * p->sum.cols,
                  p->sum.dtype);
}

/* Output rows u0 .. u1-1, counted through all images: where their first packed rows are, and dy as
 * [panel][row][ow][cols]. */
static void pack_dy(const gradient *p, target *t, ptrdiff_t u0, ptrdiff_t u1) {
    const fnn_conv_dims *d = p->sum.d;
    ptrdiff_t row = d->ow * p->sum.cols;
    for (ptrdiff_t u = u0; u < u1; u++) {
        ptrdiff_t image = u / d->oh - u0 / d->oh, first = image ? 0 : u0 % d->oh;
        t->a_offset[u - u0] = (image * p->image_rows + (u % d->oh - first) * p->row_step) * p->pitch;
        t->b_offset[u - u0] = (u - u0) * row;
        if (p->dense_dy && u > u0) continue; /* packed with the first row */
        for (ptrdiff_t panel = t->panel; panel < t->panel_end; panel++) {
            ptrdiff_t from = panel * p->sum.cols, k = t->group * p->sum.k + from;
            const char *src = fnn_at(p->dy.data, u / d->oh * p->dy.n + u % d->oh * p->dy.h + k * p->dy.c, p->sum.dtype);
            p->sum.K->conv_pack(1, p->dense_dy ? (u1 - u0) * d->ow : d->ow, fnn_min(p->sum.cols, p->sum.k - from), src, p->dy.w,
                                p->dy.c, fnn_at(t->dy, ((panel - t->panel) * p->block_rows + u - u0) * row, p->sum.dtype), NULL,
                                p->sum.cols);
        }
    }
}

/* The rows of x that output rows u0 .. u1-1 read, for one tile. */
static void pack_x(const gradient *p, const target *t, ptrdiff_t tile, ptrdiff_t u0, ptrdiff_t u1) {
    const fnn_conv_dims *d = p->sum.d;
    if (p->lines && tile != t->tile) return; /* they serve all tiles */
    for (ptrdiff_t u = u0, image = 0, rows; u < u1; u += rows, image++) {
        rows = fnn_min(d->oh - u % d->oh, u1 - u);
        ptrdiff_t y = u % d->oh * d->stride[0] - d->padding[0],
                  count = (rows - 1) * p->row_step + (d->r - 1) * d->dilation[0] + 1;
        ptrdiff_t step = d->r == 1 ? d->stride[0] : 1;
        for (ptrdiff_t i = 0; i < count; i++) {
            char *dst = fnn_at(t->x, (image * p->image_rows + i) * p->pitch, p->sum.dtype);
            pack_row(p, t->group, tile, u / d->oh, y + i * step, dst, t->line);
        }
    }
}

/* Plans to ask for what output rows u0 .. u1-1 read. */
static void plan_prefetch(const gradient *p, target *t, ptrdiff_t u0, ptrdiff_t u1) {
    const fnn_conv_dims *d = p->sum.d;
    ptrdiff_t size = (ptrdiff_t)fnn_itemsize(p->sum.dtype), k = t->panel * p->sum.cols;
    ptrdiff_t k_end = fnn_min(t->panel_end * p->sum.cols, p->sum.k);
    ptrdiff_t calls = (t->tile_end - t->tile) * (t->panel_end - t->panel) * (t->r_end - t->r);
    t->next_x.left = t->next_dy.left = 0;
    if (u0 >= u1) return;
    if (is_one_run(&p->x, d->h, d->w)) {
        ptrdiff_t top = d->padding[0], first = u0 / d->oh * d->h + clamp(u0 % d->oh * d->stride[0] - top, 0, d->h);
        ptrdiff_t last = (u1 - 1) / d->oh * d->h +
                         clamp((u1 - 1) % d->oh * d->stride[0] - top + (d->r - 1) * d->dilation[0] + 1, 0, d->h);
        t->next_x = fnn_prefetch_of(fnn_at(p->x.data, first * p->x.h + t->group * p->sum.c, p->sum.dtype),
                                    (last - first) * d->w, p->x.w * size, p->sum.c * size);
    }
    if (is_one_run(&p->dy, d->oh, d->ow))
        t->next_dy = fnn_prefetch_of(fnn_at(p->dy.data, u0 * p->dy.h + t->group * p->sum.k + k, p->sum.dtype),
                                     (u1 - u0) * d->ow, p->dy.w * size, (k_end - k) * size);
    t->quota_x = t->next_x.left / calls + 1;
    t->quota_dy = t->next_dy.left / calls + 1;
}

static void add_tile(const gradient *p, target *t, ptrdiff_t tile, ptrdiff_t rows) {
    const fnn_conv_dims *d = p->sum.d;
    ptrdiff_t from = tile * p->height, height = fnn_min(p->height, p->rows - from);
    for (ptrdiff_t panel = t->panel; panel < t->panel_end; panel++) {
        const char *b = fnn_at(t->dy, (panel - t->panel) * p->block_rows * d->ow * p->sum.cols, p->sum.dtype);
        for (ptrdiff_t r = t->r; r < t->r_end; r++) {
            fnn_prefetch_some(&t->next_x, t->quota_x);
            fnn_prefetch_some(&t->next_dy, t->quota_dy);
            p->sum.K->gemm_tile(height, fnn_min(p->sum.cols, p->sum.k - panel * p->sum.cols), rows, d->ow,
                                fnn_at(t->x, r * d->dilation[0] * p->pitch + (p->lines ? from : 0), p->sum.dtype),
                                t->a_offset, 1, p->lines ? d->stride[1] * p->cell : p->cell, b, t->b_offset, p->sum.cols,
                                place_of(p, t, panel, r, from), p->sum.cols, 1);
        }
    }
}

/* Output rows u0 .. u1-1, of one image, as planes: of dy [k][rows][ow], of x [c][packed rows][pitch] with zeros
 * around. */
static void pack_planes(const gradient *p, const target *t, ptrdiff_t u0, ptrdiff_t u1) {
    const fnn_conv_dims *d = p->sum.d;
    ptrdiff_t rows = u1 - u0, n = u0 / d->oh, size = (ptrdiff_t)fnn_itemsize(p->sum.dtype), left = d->padding[2];
    const char *dy = fnn_at(p->dy.data, n * p->dy.n + u0 % d->oh * p->dy.h + t->group * p->sum.k * p->dy.c,
                            p->sum.dtype);
    for (ptrdiff_t i = 0, n_i = p->dense_dy ? rows : 1; i < rows; i += n_i)
        p->sum.K->conv_pack(1, p->sum.k, n_i * d->ow, fnn_at(dy, i * p->dy.h, p->sum.dtype), p->dy.c, p->dy.w,
                        fnn_at(t->dy, i * d->ow, p->sum.dtype), NULL, p->block_rows * d->ow);
    ptrdiff_t y = u0 % d->oh * d->stride[0] - d->padding[0], step = d->r == 1 ? d->stride[0] : 1;
    ptrdiff_t lo = fnn_min(left, p->pitch), hi = clamp(left + d->w, lo, p->pitch), plane = p->image_rows * p->pitch;
    memset(t->x, 0, (size_t)(p->sum.c * plane * size));
    for (ptrdiff_t i = 0, count = (rows - 1) * p->row_step + (d->r - 1) * d->dilation[0] + 1; i < count; i++, y += step)
        if (y >= 0 && y < d->h && hi > lo)
            p->sum.K->conv_pack(1, p->sum.c, hi - lo,
                                fnn_at(p->x.data, n * p->x.n + y * p->x.h + t->group * p->sum.c * p->x.c, p->sum.dtype), p->x.c,
                                p->x.w, fnn_at(t->x, i * p->pitch + lo, p->sum.dtype), NULL, plane);
}

/* The lanes' sums of row r of the kernel and channel c. */
static char *lanes_of(const gradient *p, const target *t, ptrdiff_t r, ptrdiff_t c) {
    return fnn_at(t->line, (r * p->sum.c + c) * p->sum.k * p->sum.d->s * p->sum.K->lanes, p->sum.dtype);
}

static void add_planes(const gradient *p, const target *t, ptrdiff_t rows) {
    const fnn_conv_dims *d = p->sum.d;
    for (ptrdiff_t r = t->r; r < t->r_end; r++)
        for (ptrdiff_t c = 0; c < p->sum.c; c++)
            p->sum.K->conv_narrow_gradient(rows, d->ow, p->sum.k, d->s,
                                           fnn_at(t->x, (c * p->image_rows + r * d->dilation[0]) * p->pitch, p->sum.dtype),
                                           p->row_step * p->pitch, d->dilation[1], t->dy, d->ow, p->block_rows * d->ow,
                                           lanes_of(p, t, r, c));
}

/* A row of `pixels` pixels of some images, of a group's channels: [pixel][channel][image]. */
static void pack_images(const gradient *p, const fnn_image *t, const char *src, ptrdiff_t pixels, ptrdiff_t channels,
                        ptrdiff_t images, char *dst) {
    const int dense = channels == 1 ? t->w == 1 : t->c == 1 && t->w == channels;
    const ptrdiff_t runs = dense ? 1 : pixels, run = dense ? pixels * channels : channels;
    for (ptrdiff_t i = 0; i < runs; i++)
        p->sum.K->conv_pack(1, run, images, fnn_at(src, i * t->w, p->sum.dtype), dense ? 1 : t->c, t->n,
                            fnn_at(dst, i * run * p->images, p->sum.dtype), NULL, p->images);
}

/* Output rows y0 .. y1-1 of images n .. n+images-1, and the rows of x they read, with zeros on both sides. */
static void pack_image_rows(const gradient *p, const target *t, ptrdiff_t n, ptrdiff_t images, ptrdiff_t y0, ptrdiff_t y1) {
    const fnn_conv_dims *d = p->sum.d;
    const int dtype = p->sum.dtype;
    for (ptrdiff_t y = y0; y < y1; y++)
        pack_images(p, &p->dy, fnn_at(p->dy.data, n * p->dy.n + y * p->dy.h + t->group * p->sum.k * p->dy.c, dtype), d->ow,
                    p->sum.k, images, fnn_at(t->dy, (y - y0) * d->ow * p->sum.k * p->images, dtype));
    const ptrdiff_t columns = columns_read(d), lo = fnn_min(d->padding[2], columns), hi = clamp(lo + d->w, lo, columns);
    const ptrdiff_t count = (y1 - y0 - 1) * p->row_step + (d->r - 1) * d->dilation[0] + 1, step = d->r == 1 ? d->stride[0] : 1;
    for (ptrdiff_t i = 0; i < count; i++) {
        const ptrdiff_t y = y0 * d->stride[0] - d->padding[0] + i * step;
        char *dst = fnn_at(t->x, i * p->pitch, dtype);
        if (y < 0 || y >= d->h) continue; /* add_images leaves it out */
        memset(dst, 0, (size_t)(lo * p->cell) * fnn_itemsize(dtype));
        pack_images(p, &p->x, fnn_at(p->x.data, n * p->x.n + y * p->x.h + t->group * p->sum.c * p->x.c, dtype), hi - lo, p->sum.c,
                    images, fnn_at(dst, lo * p->cell, dtype));
        memset(fnn_at(dst, hi * p->cell, dtype), 0, (size_t)((columns - hi) * p->cell) * fnn_itemsize(dtype));
    }
}

/* Row by row: what a row of dy meets stays in the first-level cache while all kernel rows come by. */
static void add_images(const gradient *p, const target *t, ptrdiff_t images, ptrdiff_t y0, ptrdiff_t y1) {
    const fnn_conv_dims *d = p->sum.d;
    const ptrdiff_t pixel = p->sum.k * p->images;
    for (ptrdiff_t y = y0; y < y1; y++)
        for (ptrdiff_t r = t->r; r < t->r_end; r++) {
            const ptrdiff_t row = y * d->stride[0] - d->padding[0] + r * d->dilation[0];
            if (row < 0 || row >= d->h) continue;
            for (ptrdiff_t c = 0; c < p->sum.c; c++)
                p->sum.K->conv_narrow_gradient(
                    d->ow, images, p->sum.k, d->s,
                    fnn_at(t->x, ((y - y0) * p->row_step + r * d->dilation[0]) * p->pitch + c * p->images, p->sum.dtype),
                    d->stride[1] * p->cell, d->dilation[1] * p->cell, fnn_at(t->dy, (y - y0) * d->ow * pixel, p->sum.dtype), pixel,
                    p->images, lanes_of(p, t, r, c));
        }
}

/* The lanes' sums of rows r of the kernel: to the part. */
static void finish_narrow(const gradient *p, const target *t) {
    const fnn_conv_dims *d = p->sum.d;
    for (ptrdiff_t r = t->r; r < t->r_end; r++)
        for (ptrdiff_t c = 0; c < p->sum.c; c++)
            p->sum.K->conv_narrow_finish(p->sum.k, d->s, lanes_of(p, t, r, c), place_of(p, t, 0, r, c), p->sum.c * p->sum.cols);
}

static void sum_narrow(const gradient *p, target *t, ptrdiff_t u, ptrdiff_t end) {
    memset(t->line, 0, (size_t)sums_bytes(p->sum.d, p->sum.K));
    for (ptrdiff_t n; u < end; u += n) {
        const ptrdiff_t y = u % p->sum.d->oh, image = u / p->sum.d->oh * p->images;
        const ptrdiff_t images = fnn_min(p->images, p->sum.d->n - image);
        n = fnn_min(fnn_min(p->block_rows, end - u), p->sum.d->oh - y);
        if (p->images) {
            pack_image_rows(p, t, image, images, y, y + n);
            add_images(p, t, images, y, y + n);
        } else {
            pack_planes(p, t, u, u + n);
            add_planes(p, t, n);
        }
    }
    finish_narrow(p, t);
}

static void clear_target(const gradient *p, const target *t) {
    ptrdiff_t from = t->tile * p->height, to = fnn_min(t->tile_end * p->height, p->rows);
    for (ptrdiff_t panel = t->panel; panel < t->panel_end; panel++)
        for (ptrdiff_t r = t->r; r < t->r_end; r++)
            memset(place_of(p, t, panel, r, from), 0, (size_t)((to - from) * p->sum.cols) * fnn_itemsize(p->sum.dtype));
}

/* Output rows of the block that starts at row u: blocks end where images do. */
static ptrdiff_t block_from(const gradient *p, ptrdiff_t u, ptrdiff_t end) {
    return fnn_min(fnn_min(p->block_rows, end - u), fnn_max(p->block_rows, p->sum.d->oh) - u % p->sum.d->oh);
}

static void sum_chunk(void *context, ptrdiff_t chunk, void *scratch) {
    const gradient *p = context;
    const fnn_conv_dims *d = p->sum.d;
    ptrdiff_t rest = chunk;
    target t = {.a_offset = scratch,
                .b_offset = (ptrdiff_t *)scratch + p->block_rows,
                .dy = (char *)scratch + p->dy_at,
                .x = (char *)scratch + p->x_at,
                .line = (char *)scratch + p->line_at};
    t.r = rest % p->r_chunks * p->chunk_r, rest /= p->r_chunks;
    t.tile = rest % p->tile_chunks * p->chunk_tiles, rest /= p->tile_chunks;
    t.panel = rest % p->panel_chunks * p->chunk_panels, rest /= p->panel_chunks;
    t.group = rest % p->sum.groups, rest /= p->sum.groups;
    t.r_end = fnn_min(t.r + p->chunk_r, d->r);
    t.tile_end = fnn_min(t.tile + p->chunk_tiles, p->tiles);
    t.panel_end = fnn_min(t.panel + p->chunk_panels, p->sum.panels);
    t.part = fnn_at(p->sum.packed, rest * p->sum.part_size, p->sum.dtype);
    const ptrdiff_t begin = fnn_part_begin(p->units, p->sum.parts, rest), end = fnn_part_begin(p->units, p->sum.parts, rest + 1);
    if (p->narrow) {
        sum_narrow(p, &t, begin, end);
        return;
    }
    clear_target(p, &t);
    for (ptrdiff_t u = begin, n; u < end; u += n) {
        n = block_from(p, u, end);
        pack_dy(p, &t, u, u + n);
        plan_prefetch(p, &t, u + n, u + n + block_from(p, u + n, end));
        for (ptrdiff_t tile = t.tile; tile < t.tile_end; tile++) {
            pack_x(p, &t, tile, u, u + n);
            add_tile(p, &t, tile, n);
        }
    }
}

/* ---- the interface ---- */

void fnn_conv_packed_gradient_workspace(const fnn_call *call, const fnn_conv_dims *d, fnn_workspace *ws) {
    gradient p;
    plan_gradient(call, d, &p);
    ws->shared = p.shared;
    ws->scratch = p.scratch;
}

void fnn_conv_packed_gradient(const fnn_call *call, const fnn_conv_dims *d) {
    gradient p;
    plan_gradient(call, d, &p);
    p.sum.packed = call->shared;
    p.sum.slot = (ptrdiff_t *)((char *)call->shared + p.slot_at);
    ptrdiff_t chunks = p.sum.parts * p.sum.groups * p.panel_chunks * p.tile_chunks * p.r_chunks;
    fnn_parallel_for(call, chunks, fnn_conv_cost(d, p.sum.dtype), sum_chunk, &p);
    fnn_conv_combine(&p.sum);
}

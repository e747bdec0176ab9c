/* conv2d_weight_wide.c: dweight (groups*k, c, r, s) of convolutions with enough channels to fill register tiles.
 *
 * For each kernel position it is a product x^T dy that sums over pixels; those outside the input are left out instead of
 * multiplied by zero. A chunk packs both operands, a block of pixels at a time, into cells of a tile's channels (on two cores
 * of a Zen 3, AVX2: 76 to 93 GFLOP/s in place, 115 to 150 from cells; of a Granite Rapids, AVX-512, 1x1: 128 to 512 channels
 * 1.02 to 1.25 times as fast so, 256 to 2048 1.2 to 1.7 times). Large register tiles read few channels where they are, pixel by
 * pixel (there, 64 x 64 channels 0.83 times as fast from cells, 64 x 256 0.93). Operands that are not channels-last are first
 * copied.
 *
 * Of groups a chunk takes several, whose channels are a few neighbouring lines of each pixel: packed together, and asked for together
 * (on two cores of a Zen 3, AVX2: 3x3, 16 channels a group 1.5, with stride 2 1.3, 32 with stride 2 1.2 times as fast as in place).
 *
 * The order of summation is fixed by shape: output rows (image by image) form `parts` equal ranges, each summed one
 * after another into its own copy of the gradient; the copies are added in order. Within a part, chunks share out the
 * gradient. */
#include "conv2d.h"

#include <string.h>

enum {
    PARTS_BYTES = 8 << 20,    /* all parts together */
    PART_PIXELS = 256,        /* at least */
    /* of the gradient a chunk works on: it stays in the second-level cache beside its pixels */
    TARGET_BYTES = 320 << 10,
    LEAST_SIDE = 48,          /* channels of a chunk whose reading costs little beside the multiply-adds */
    /* that all tiles take in turn: a tile of the gradient is read and written once for each block */
    BLOCK_PIXELS = 256,
    BESIDE_BYTES = 256,       /* of a pixel, of groups whose cells are packed together ... */
    BESIDE_CELLS = 112 << 10, /* ... of a block, which then leave the second-level cache to what is asked for */
    CHUNKS = 16,
    CHUNK_FLOPS = 4 << 20,
    /* channels on either side, and multiply-adds of a pixel for each of its packed elements: of fewer, packing costs too much */
    CELLS_LEAST = 32, CELLS_WORTH = 80,
    CELLS_LEAST_SMALL = 16, CELLS_WORTH_SMALL = 15, /* small tiles, of as many columns (14.8: 0.95, 15.5 and 19: 1.1 times as fast) */
    LONG_RUN = 28,            /* pixels, for which twice the tiles, of two panels each, are worth their beginnings: 7 0.93, 14 0.97 */
    MANY_PANELS = 5,          /* of which one may be left alone */
    CELLS_PIXELS = 2048       /* of x in a block, at most: a row may be long, and a stride large */
};

/* How tiles find an operand: elements between the channels of one and the next, between pixels. */
typedef struct {
    ptrdiff_t wide /* channels of a tile */, next, pixel;
} side;

typedef struct {
    fnn_conv_parts sum;
    fnn_image x, dy;           /* channels-last */
    /* a 1x1 kernel whose tiles hold output channels by input channels, as the gradient does */
    int swapped;
    int direct;                /* swapped, and summed where the gradient is */
    int one_run;               /* pixels of all rows follow one another in both */
    ptrdiff_t rows, cols;      /* of a tile's side of the gradient: channels of a group */
    ptrdiff_t height, tiles;   /* rows in tiles */
    ptrdiff_t tile_chunks, panel_chunks, chunks;
    ptrdiff_t block_rows;      /* output rows of a block */
    ptrdiff_t beside;          /* groups of a chunk, whose channels are neighbours */
    int by_pairs;              /* cells are as high as tiles that take two panels */
    int packed;                /* tiles read cells of their channels, else x and dy where they are */
    ptrdiff_t row_step, pitch; /* packed x: rows between output rows, pixels of a row */
    ptrdiff_t column_step;     /* places of x between output columns */
    side x_side, dy_side;
    size_t x_at, dy_at, slot_at, shared;
    size_t cells_x, cells_dy, scratch;
    ptrdiff_t group_x, group_dy; /* from the cells of a group to those of the next, in elements */
} gradient;

/* ---- plan ---- */

/* Twice the parts cost their zeros and their sum; chunks of half the panels (tiles) read all pixels' rows (columns)
 * once more: whichever moves fewer bytes is next, until there are chunks enough. */
static void split(gradient *p) {
    const fnn_conv_dims *d = p->sum.d;
    const ptrdiff_t size = (ptrdiff_t)fnn_itemsize(p->sum.dtype), pixels = d->n * d->oh * d->ow, places = d->r * d->s;
    const double flops = 2.0 * (double)pixels * (double)(d->groups * d->k * d->c * places);
    ptrdiff_t *parts = &p->sum.parts, *tiles = &p->tile_chunks, *panels = &p->panel_chunks;
    *parts = *tiles = *panels = 1;
    for (;;) {
        const ptrdiff_t chunk_rows = fnn_ceil_div(p->rows, *tiles), chunk_cols = fnn_ceil_div(p->cols, *panels);
        const int large = chunk_rows * chunk_cols * places * size > TARGET_BYTES;
        const ptrdiff_t chunks = *parts * fnn_ceil_div(d->groups, p->beside) * *tiles * *panels;
        if (!large && (chunks >= CHUNKS || flops / (double)chunks < 2.0 * CHUNK_FLOPS)) break;
        const ptrdiff_t least = large ? 1 : LEAST_SIDE;
        const int more_tiles = 2 * *tiles <= p->tiles && chunk_rows >= 2 * least,
                  more_panels = 2 * *panels <= p->sum.panels && chunk_cols >= 2 * least,
                  more_parts = !large && pixels >= 2 * *parts * PART_PIXELS && d->n * d->oh >= 2 * *parts &&
                               2 * *parts * p->sum.part_size * size <= PARTS_BYTES;
        const double none = 1e30, for_parts = more_parts ? 3.0 * (double)(*parts * p->sum.part_size) : none;
        const double for_tiles = more_tiles ? (double)(*tiles * pixels) * (double)p->cols : none,
                     for_panels = more_panels ? (double)(*panels * pixels) * (double)p->rows : none;
        if (!more_parts && !more_tiles && !more_panels) {
            if (p->beside == 1) break;
            p->beside = fnn_ceil_div(p->beside, 2);
            continue;
        }
        if (for_parts <= for_tiles && for_parts <= for_panels) *parts *= 2;
        else if (for_tiles <= for_panels) *tiles *= 2;
        else *panels *= 2;
    }
}

static int is_channels_last(const fnn_image *t, ptrdiff_t channels) { return channels == 1 || t->c == 1; }

size_t fnn_conv_plan_copy(const fnn_conv_parts *p, const fnn_image *t, ptrdiff_t per_group, ptrdiff_t h, ptrdiff_t w, size_t *at) {
    const size_t here = *at;
    if (is_channels_last(t, per_group)) return here;
    *at += fnn_whole_lines((size_t)(p->d->n * h * w * p->groups * per_group) * fnn_itemsize(p->dtype));
    return here;
}

/* Rows of x that a block reads, counted as if none were outside. */
static ptrdiff_t rows_read(const gradient *p) {
    const fnn_conv_dims *d = p->sum.d;
    const ptrdiff_t images = (p->block_rows + d->oh - 2) / d->oh + 1;
    return p->block_rows * p->row_step + images * fnn_max((d->r - 1) * d->dilation[0] + 1 - p->row_step, 0);
}

/* Whether tiles read cells: columns are to stay in the first-level cache, where pixels evict each other that are as far apart as
 * their channels are many. */
static int wants_cells(const gradient *p) {
    const fnn_conv_dims *d = p->sum.d;
    const ptrdiff_t area = d->r * d->s == 1 ? 1 : d->stride[0] * d->stride[1]; /* packed pixels of x for one of dy */
    const int small = fnn_small_tile(p->sum.K);
    if (fnn_min(p->rows, p->cols) < (small ? CELLS_LEAST_SMALL : CELLS_LEAST)) return 0;
    if (d->k * d->c * d->r * d->s < (small ? CELLS_WORTH_SMALL : CELLS_WORTH) * (d->k + d->c * area)) return 0;
    return rows_read(p) <= CELLS_PIXELS && p->pitch <= CELLS_PIXELS && rows_read(p) * p->pitch <= CELLS_PIXELS;
}

/* Cells of one tile: an odd number of lines, so that the tiles of a pixel are in different sets. */
static ptrdiff_t cells_size(const gradient *p, ptrdiff_t pixels, ptrdiff_t wide) {
    const ptrdiff_t line = 64 / (ptrdiff_t)fnn_itemsize(p->sum.dtype);
    return (fnn_ceil_div(pixels * wide + p->sum.K->lanes, line) | 1) * line;
}

/* Where the cells of a chunk's block are, behind what scratch has so far. */
static void plan_cells(gradient *p) {
    const ptrdiff_t size = (ptrdiff_t)fnn_itemsize(p->sum.dtype);
    const ptrdiff_t tiles = fnn_ceil_div(p->tiles, p->tile_chunks), panels = fnn_ceil_div(p->sum.panels, p->panel_chunks);
    p->x_side.pixel = p->x_side.wide, p->dy_side.pixel = p->dy_side.wide;
    p->x_side.next = cells_size(p, rows_read(p) * p->pitch, p->x_side.wide);
    p->dy_side.next = cells_size(p, p->block_rows * p->sum.d->ow, p->dy_side.wide);
    p->group_x = (p->swapped ? panels : tiles) * p->x_side.next, p->group_dy = (p->swapped ? tiles : panels) * p->dy_side.next;
    p->cells_x = p->scratch;
    p->cells_dy = p->cells_x + (size_t)(p->beside * p->group_x * size);
    p->scratch = p->cells_dy + (size_t)(p->beside * p->group_dy * size);
}

/* Whether the pixels of all rows follow one another in both operands. */
static int is_one_run(const gradient *p) {
    const fnn_conv_dims *d = p->sum.d;
    if (d->r * d->s > 1 || d->padding[0] + d->padding[2] > 0) return 0;
    if (p->packed) return (d->oh - 1) * d->stride[0] < d->h && (d->ow - 1) * d->stride[1] < d->w;
    return d->stride[0] * d->stride[1] == 1 && d->oh == d->h && d->ow == d->w && fnn_image_is_dense(&p->x, d->h, d->w) &&
           fnn_image_is_dense(&p->dy, d->oh, d->ow);
}

/* Groups of a chunk, so narrow that it has all their channels, and the rows of a block of them. */
static void plan_groups(gradient *p) {
    const fnn_conv_dims *d = p->sum.d;
    const ptrdiff_t size = (ptrdiff_t)fnn_itemsize(p->sum.dtype);
    p->beside = p->packed ? fnn_even_share(d->groups, BESIDE_BYTES / (fnn_max(d->c, d->k) * size)) : 1;
    if (p->beside == 1) return;
    const ptrdiff_t row_bytes = p->beside * (p->row_step * p->pitch * d->c + d->ow * d->k) * size;
    p->block_rows = fnn_max(fnn_min(BESIDE_CELLS / row_bytes, p->block_rows), 1);
}

static void plan_gradient(const fnn_call *call, const fnn_conv_dims *d, gradient *p) {
    const fnn_kernels *K = fnn_kernels_of(call->in[0]->dtype);
    *p = (gradient){.sum = {.call = call, .d = d, .K = K, .dtype = call->in[0]->dtype, .dw = *call->out[0],
                            .groups = d->groups, .c = d->c, .k = d->k},
                    .x = fnn_image_of(call->in[1]),
                    .dy = fnn_image_of(call->in[0])};
    fnn_conv_parts *s = &p->sum;
    p->swapped = d->r * d->s == 1 && d->k * fnn_round_up(d->c, K->lanes) <= d->c * fnn_round_up(d->k, K->lanes);
    p->rows = p->swapped ? d->k : d->c, p->cols = p->swapped ? d->c : d->k;
    s->cols = fnn_min(K->tile_cols, fnn_round_up(p->cols, 8));
    s->panels = fnn_ceil_div(p->cols, s->cols);
    s->part_size = p->swapped ? d->groups * d->k * d->c : d->groups * s->panels * d->r * d->s * d->c * s->cols;
    p->block_rows = fnn_min(fnn_ceil_div(BLOCK_PIXELS, d->ow), fnn_max(d->n * d->oh, 1));
    p->row_step = d->r == 1 ? 1 : d->stride[0];
    p->pitch = d->s == 1 ? d->ow : d->w;
    p->packed = wants_cells(p);
    plan_groups(p);
    const int pairs = s->panels % 2 == 0 || s->panels >= MANY_PANELS;
    p->by_pairs = p->packed && pairs && K->best_cols > s->cols && (d->ow >= LONG_RUN || is_one_run(p));
    const ptrdiff_t most = p->by_pairs ? K->best_rows : K->tile_rows;
    p->tiles = fnn_ceil_div(p->rows, most);
    /* All cells but the last are full, as gemm_tile_cells wants them. */
    p->height = p->packed ? most : fnn_ceil_div(p->rows, p->tiles);
    p->column_step = p->packed && d->s == 1 ? 1 : d->stride[1];
    split(p);
    p->chunks = s->parts * fnn_ceil_div(d->groups, p->beside) * p->tile_chunks * p->panel_chunks;
    p->direct = p->swapped && s->parts == 1 && (d->c == 1 || s->dw.stride[1] == 1);
    p->slot_at = fnn_whole_lines((size_t)(p->direct ? 0 : s->parts * s->part_size) * fnn_itemsize(s->dtype));
    p->shared = p->slot_at + fnn_whole_lines((size_t)(d->r * d->s) * sizeof(ptrdiff_t));
    p->x_at = fnn_conv_plan_copy(s, &p->x, d->c, d->h, d->w, &p->shared);
    p->dy_at = fnn_conv_plan_copy(s, &p->dy, d->k, d->oh, d->ow, &p->shared);
    const size_t tables = (size_t)((2 * p->block_rows + 1) * d->r) * sizeof(ptrdiff_t);
    p->scratch = fnn_whole_lines(tables);
    p->x_side.wide = p->x_side.next = p->swapped ? s->cols : p->height;
    p->dy_side.wide = p->dy_side.next = p->swapped ? p->height : s->cols;
    if (p->packed) plan_cells(p);
    if (p->scratch < fnn_conv_combine_scratch(s)) p->scratch = fnn_conv_combine_scratch(s);
}

/* ---- operands that are not channels-last ---- */

typedef struct {
    const fnn_conv_parts *p;
    fnn_image from, to;
    ptrdiff_t h, w, channels;
} copying;

static void copy_row(void *context, ptrdiff_t row, void *scratch) {
    (void)scratch;
    const copying *c = context;
    const int dtype = c->p->dtype;
    c->p->K->conv_pack(1, c->w, c->channels, fnn_at(c->from.data, row / c->h * c->from.n + row % c->h * c->from.h, dtype),
                       c->from.w, c->from.c, fnn_at(c->to.data, row * c->to.h, dtype), NULL, c->to.w);
}

void fnn_conv_make_channels_last(const fnn_conv_parts *p, fnn_image *t, ptrdiff_t per_group, ptrdiff_t h, ptrdiff_t w,
                                 size_t at) {
    if (is_channels_last(t, per_group)) return;
    const ptrdiff_t channels = p->groups * per_group, rows = p->d->n * h;
    copying c = {p, *t, {(char *)p->call->shared + at, h * w * channels, 1, w * channels, channels}, h, w, channels};
    fnn_parallel_for(p->call, rows, (double)(rows * w * channels), copy_row, &c);
    *t = c.to;
}

/* ---- a chunk: one part of the pixels, one box of the gradient ---- */

/* What to ask for, and how much of it before each tile. */
typedef struct {
    fnn_prefetch x, dy;
    ptrdiff_t quota_x, quota_dy;
} fetching;

static void fetch_some(fetching *f) {
    fnn_prefetch_some(&f->x, f->quota_x);
    fnn_prefetch_some(&f->dy, f->quota_dy);
}

typedef struct {
    ptrdiff_t group, group_end, tile, tile_end, panel, panel_end;
    ptrdiff_t first, end, block; /* output rows, counted through all images; how many at a time */
    char *part;                  /* of the first group */
    char *x, *dy;                /* of the first tile, or panel */
    /* for each kernel row: how many output rows it meets, where theirs begin */
    ptrdiff_t *count, *x_offset, *dy_offset;
    fetching *next;              /* of the next block */
} target;

/* Outputs lo .. hi - 1 of a row read x at kernel column s inside the input. */
static void valid_columns(const fnn_conv_dims *d, ptrdiff_t s, ptrdiff_t *lo, ptrdiff_t *hi) {
    const ptrdiff_t first = s * d->dilation[1] - d->padding[2], step = d->stride[1];
    *lo = first >= 0 ? 0 : fnn_min(fnn_ceil_div(-first, step), d->ow);
    *hi = first >= d->w ? *lo : fnn_max(fnn_min((d->w - 1 - first) / step + 1, d->ow), *lo);
}

/* Output rows u0 .. u1-1, counted through all images, of the chunk's channels, and what they read: to cells. */
static void pack_dy(const gradient *p, const target *t, ptrdiff_t u0, ptrdiff_t u1) {
    const fnn_conv_dims *d = p->sum.d;
    const int dtype = p->sum.dtype;
    const ptrdiff_t wide = p->dy_side.wide, first = (p->swapped ? t->tile : t->panel) * wide;
    const ptrdiff_t channels = fnn_min((p->swapped ? t->tile_end : t->panel_end) * wide, d->k) - first;
    for (ptrdiff_t u = u0; u < u1; u++)
        for (ptrdiff_t group = t->group; group < t->group_end; group++)
            p->sum.K->gemm_pack(d->ow, channels,
                                fnn_at(p->dy.data, u / d->oh * p->dy.n + u % d->oh * p->dy.h + (group * d->k + first) * p->dy.c, dtype),
                                p->dy.w, 1, fnn_at(t->dy, (group - t->group) * p->group_dy + (u - u0) * d->ow * wide, dtype), wide,
                                p->dy_side.next);
}

/* Rows of x that output rows u .. u + rows - 1 of one image read, as rows of cells from `place` on. */
static void pack_x(const gradient *p, const target *t, ptrdiff_t u, ptrdiff_t rows, ptrdiff_t place) {
    const fnn_conv_dims *d = p->sum.d;
    const int dtype = p->sum.dtype;
    const ptrdiff_t wide = p->x_side.wide, channel = (p->swapped ? t->panel : t->tile) * wide;
    const ptrdiff_t channels = fnn_min((p->swapped ? t->panel_end : t->tile_end) * wide, d->c) - channel;
    const ptrdiff_t count = (rows - 1) * p->row_step + (d->r - 1) * d->dilation[0] + 1, step = d->r == 1 ? d->stride[0] : 1;
    const ptrdiff_t across = d->s == 1 ? d->stride[1] : 1, left = d->s == 1 ? -d->padding[2] : 0;
    ptrdiff_t lo = 0, hi = d->w, y = u % d->oh * d->stride[0] - d->padding[0];
    if (d->s == 1) valid_columns(d, 0, &lo, &hi);
    const char *image = fnn_at(p->x.data, u / d->oh * p->x.n + (lo * across + left) * p->x.w + channel * p->x.c, dtype);
    for (ptrdiff_t i = 0; i < count; i++, y += step)
        for (ptrdiff_t group = t->group; y >= 0 && y < d->h && group < t->group_end; group++)
            p->sum.K->gemm_pack(hi - lo, channels, fnn_at(image, y * p->x.h + group * d->c * p->x.c, dtype), across * p->x.w, 1,
                                fnn_at(t->x, (group - t->group) * p->group_x + ((place + i) * p->pitch + lo) * wide, dtype), wide,
                                p->x_side.next);
}

/* The row of cells that output row u reads first, in a block from row u0 on: an image's rows follow those of the one before. */
static ptrdiff_t place_of(const gradient *p, ptrdiff_t u0, ptrdiff_t u) {
    const fnn_conv_dims *d = p->sum.d;
    return (u - u0) * p->row_step + (u / d->oh - u0 / d->oh) * ((d->r - 1) * d->dilation[0] + 1 - p->row_step);
}

static void pack_block(const gradient *p, const target *t, ptrdiff_t u0, ptrdiff_t u1) {
    pack_dy(p, t, u0, u1);
    for (ptrdiff_t u = u0, rows; u < u1; u += rows) {
        rows = fnn_min(p->sum.d->oh - u % p->sum.d->oh, u1 - u);
        pack_x(p, t, u, rows, place_of(p, u0, u));
    }
}

/* Where rows u0 .. u1-1 of the outputs, counted through all images, and what they read begin. */
static void find_rows(const gradient *p, target *t, ptrdiff_t u0, ptrdiff_t u1) {
    const fnn_conv_dims *d = p->sum.d;
    for (ptrdiff_t r = 0; r < d->r; r++) {
        ptrdiff_t n = 0, *x = t->x_offset + r * p->block_rows, *dy = t->dy_offset + r * p->block_rows;
        for (ptrdiff_t u = u0; u < u1; u++) {
            const ptrdiff_t image = u / d->oh, y = u % d->oh * d->stride[0] - d->padding[0] + r * d->dilation[0];
            if (y < 0 || y >= d->h) continue;
            if (p->packed) {
                x[n] = (place_of(p, u0, u) + r * d->dilation[0]) * p->pitch * p->x_side.pixel;
                dy[n++] = (u - u0) * d->ow * p->dy_side.pixel;
                continue;
            }
            x[n] = image * p->x.n + y * p->x.h + t->group * d->c * p->x.c;
            dy[n++] = image * p->dy.n + u % d->oh * p->dy.h + t->group * d->k * p->dy.c;
        }
        t->count[r] = n;
    }
}

/* A 1x1 kernel with a stride, whose rows of x are equally far apart through all images. */
static int skips_pixels(const gradient *p) {
    const fnn_conv_dims *d = p->sum.d;
    return d->r * d->s == 1 && d->stride[0] * d->stride[1] > 1 && d->padding[0] + d->padding[2] == 0 &&
           d->h == d->oh * d->stride[0] && p->x.n == d->h * p->x.h;
}

/* Plans to ask for what a block of `next` reads while t's tiles are computed. */
static void plan_fetching(const gradient *p, const target *t, const target *next, ptrdiff_t u0, ptrdiff_t u1) {
    const fnn_conv_dims *d = p->sum.d;
    fetching *f = t->next;
    const ptrdiff_t size = (ptrdiff_t)fnn_itemsize(p->sum.dtype), groups = next->group_end - next->group;
    const ptrdiff_t row = next->tile * p->height, rows = fnn_min(next->tile_end * p->height, p->rows) - row;
    const ptrdiff_t col = next->panel * p->sum.cols, cols = fnn_min(next->panel_end * p->sum.cols, p->cols) - col;
    const ptrdiff_t calls = (t->group_end - t->group) * (t->tile_end - t->tile) * (t->panel_end - t->panel) * d->r * d->s;
    const ptrdiff_t c = next->group * d->c + (p->swapped ? col : row), k = next->group * d->k + (p->swapped ? row : col);
    *f = (fetching){.quota_x = 0};
    if (u0 >= u1) return;
    const ptrdiff_t row_bytes = p->x.h * size, bytes = groups * (p->swapped ? cols : rows) * size;
    const char *x = fnn_at(p->x.data, c * p->x.c, p->sum.dtype);
    if (skips_pixels(p)) {
        f->x = fnn_prefetch_rows(x + u0 * d->stride[0] * row_bytes, u1 - u0, d->stride[0] * row_bytes, d->ow,
                                 d->stride[1] * p->x.w * size, bytes);
    } else if (fnn_image_is_dense(&p->x, d->h, d->w)) {
        const ptrdiff_t first = u0 / d->oh * d->h + fnn_min(u0 % d->oh * d->stride[0], d->h - 1);
        const ptrdiff_t last = (u1 - 1) / d->oh * d->h + fnn_min((u1 - 1) % d->oh * d->stride[0] + d->r, d->h);
        f->x = fnn_prefetch_of(x + first * row_bytes, (last - first) * d->w, p->x.w * size, bytes);
    }
    if (fnn_image_is_dense(&p->dy, d->oh, d->ow))
        f->dy = fnn_prefetch_of(fnn_at(p->dy.data, u0 * p->dy.h + k * p->dy.c, p->sum.dtype), (u1 - u0) * d->ow, p->dy.w * size,
                                groups * (p->swapped ? rows : cols) * size);
    f->quota_x = f->x.left / calls + 1;
    f->quota_dy = f->dy.left / calls + 1;
}

/* One side of the products at a kernel position: `data` is of the first tile, or panel. */
typedef struct {
    const char *data;
    const ptrdiff_t *offset;
    ptrdiff_t col, next;
} operand;

typedef struct {
    operand a, b;
    ptrdiff_t batch, depth;
} product;

static product product_at(const gradient *p, const target *t, ptrdiff_t place) {
    const fnn_conv_dims *d = p->sum.d;
    const ptrdiff_t r = place / d->s, s = place % d->s, first = p->packed && d->s == 1 ? 0 : s * d->dilation[1] - d->padding[2];
    ptrdiff_t lo, hi;
    valid_columns(d, s, &lo, &hi);
    const operand x = {fnn_at(t->x, (lo * p->column_step + first) * p->x_side.pixel, p->sum.dtype), t->x_offset + r * p->block_rows,
                       p->column_step * p->x_side.pixel, p->x_side.next};
    const operand dy = {fnn_at(t->dy, lo * p->dy_side.pixel, p->sum.dtype), t->dy_offset + r * p->block_rows, p->dy_side.pixel,
                        p->dy_side.next};
    product m = {.a = p->swapped ? dy : x, .b = p->swapped ? x : dy, .batch = t->count[r], .depth = hi - lo};
    if (p->one_run) m.depth *= m.batch, m.batch = fnn_min(m.batch, 1);
    return m;
}

/* Where a panel's gradient is from `row` on, and how far its rows are apart. */
static char *result_at(const gradient *p, const target *t, ptrdiff_t panel, ptrdiff_t place, ptrdiff_t row, ptrdiff_t *step) {
    const fnn_conv_dims *d = p->sum.d;
    *step = !p->swapped ? p->sum.cols : p->direct ? p->sum.dw.stride[0] : d->c;
    if (p->swapped) return fnn_at(t->part, row * *step + panel * p->sum.cols, p->sum.dtype);
    return fnn_at(t->part, ((panel * d->r * d->s + place) * d->c + row) * p->sum.cols, p->sum.dtype);
}

/* Adds the block's pixels to panels of all tiles, as many as a call takes, read from cells. */
static void add_cells(const gradient *p, const target *t, ptrdiff_t panel, ptrdiff_t place, int accumulate) {
    const product m = product_at(p, t, place);
    const fnn_kernels *K = p->sum.K;
    const ptrdiff_t row = t->tile * p->height, rows = fnn_min(t->tile_end * p->height, p->rows) - row;
    const ptrdiff_t wide = p->sum.cols, most = fnn_min(p->by_pairs ? K->best_cols : wide, (t->panel_end - panel) * wide);
    ptrdiff_t step, next;
    char *to = result_at(p, t, panel, place, row, &step);
    next = p->swapped ? wide : p->sum.d->r * p->sum.d->s * p->sum.d->c * wide;
    K->gemm_tile_cells(rows, fnn_min(most, p->cols - panel * wide), m.batch, m.depth, p->height, m.a.data, m.a.offset, m.a.next,
                       m.a.col, fnn_at(m.b.data, (panel - t->panel) * m.b.next, p->sum.dtype), m.b.offset, m.b.next, to, step,
                       next, accumulate, to, 0);
}

/* Adds them to one tile of a panel, read where they are. */
static void add_tile(const gradient *p, const target *t, ptrdiff_t tile, ptrdiff_t panel, ptrdiff_t place, int accumulate) {
    const product m = product_at(p, t, place);
    const ptrdiff_t row = tile * p->height, rows = fnn_min(p->height, p->rows - row);
    ptrdiff_t step;
    char *to = result_at(p, t, panel, place, row, &step);
    p->sum.K->gemm_tile(rows, fnn_min(p->sum.cols, p->cols - panel * p->sum.cols), m.batch, m.depth,
                        fnn_at(m.a.data, tile * m.a.next, p->sum.dtype), m.a.offset, 1, m.a.col,
                        fnn_at(m.b.data, panel * m.b.next, p->sum.dtype), m.b.offset, m.b.col, to, step, accumulate);
}

/* Adds the block's pixels to all tiles of a group. Cells of a panel stay in the first-level cache while the tiles' come by, many in one
 * call; what is copied next is left to the hardware, which sees streams (asked for between tiles, it cost more than it saved), but of
 * groups, whose channels are some lines of each pixel. */
static void add_block(const gradient *p, const target *t, int accumulate) {
    const ptrdiff_t tiles = t->tile_end - t->tile, panels = t->panel_end - t->panel, places = p->sum.d->r * p->sum.d->s;
    const ptrdiff_t at_once = p->by_pairs ? p->sum.K->best_cols / p->sum.cols : 1, calls = fnn_ceil_div(panels, at_once) * places;
    const ptrdiff_t shares = p->sum.d->groups > 1 ? tiles * at_once : 0;
    for (ptrdiff_t q = 0; p->packed && q < calls; q++) {
        for (ptrdiff_t i = 0; i < shares; i++) fetch_some(t->next);
        add_cells(p, t, t->panel + q / places * at_once, q % places, accumulate);
    }
    for (ptrdiff_t q = 0; !p->packed && q < tiles * panels; q++)
        for (ptrdiff_t place = 0; place < places; place++) {
            fetch_some(t->next);
            add_tile(p, t, t->tile + q / panels, t->panel + q % panels, place, accumulate);
        }
}

static void find_target(const gradient *p, ptrdiff_t chunk, target *t) {
    const ptrdiff_t tile = chunk % p->tile_chunks, panel = chunk / p->tile_chunks % p->panel_chunks;
    const ptrdiff_t rest = chunk / p->tile_chunks / p->panel_chunks, rows = p->sum.d->n * p->sum.d->oh;
    const ptrdiff_t windows = fnn_ceil_div(p->sum.groups, p->beside), part = rest / windows;
    t->group = rest % windows * p->beside, t->group_end = fnn_min(t->group + p->beside, p->sum.groups);
    t->tile = fnn_part_begin(p->tiles, p->tile_chunks, tile), t->tile_end = fnn_part_begin(p->tiles, p->tile_chunks, tile + 1);
    t->panel = fnn_part_begin(p->sum.panels, p->panel_chunks, panel);
    t->panel_end = fnn_part_begin(p->sum.panels, p->panel_chunks, panel + 1);
    t->first = fnn_part_begin(rows, p->sum.parts, part), t->end = fnn_part_begin(rows, p->sum.parts, part + 1);
    t->block = fnn_max(fnn_even_share(t->end - t->first, p->block_rows), 1);
    if (p->direct) t->part = fnn_at(p->sum.dw.data, t->group * p->sum.k * p->sum.dw.stride[0], p->sum.dtype);
    else t->part = fnn_at(p->sum.packed, part * p->sum.part_size + t->group * (p->sum.part_size / p->sum.groups),
                          p->sum.dtype);
}

/* Number i of the target's groups. */
static target group_of(const gradient *p, const target *t, ptrdiff_t i) {
    const int dtype = p->sum.dtype;
    target one = *t;
    one.group += i;
    one.part = fnn_at(t->part, i * (p->direct ? p->sum.k * p->sum.dw.stride[0] : p->sum.part_size / p->sum.groups), dtype);
    if (p->packed) one.x = fnn_at(t->x, i * p->group_x, dtype), one.dy = fnn_at(t->dy, i * p->group_dy, dtype);
    return one;
}

static void sum_chunk(void *context, ptrdiff_t chunk, void *scratch) {
    const gradient *p = context;
    const fnn_conv_dims *d = p->sum.d;
    fetching next_block = {.quota_x = 0};
    target t = {.count = scratch, .next = &next_block}, after = {0};
    t.x_offset = t.count + d->r, t.dy_offset = t.x_offset + d->r * p->block_rows;
    t.x = p->packed ? (char *)scratch + p->cells_x : p->x.data;
    t.dy = p->packed ? (char *)scratch + p->cells_dy : p->dy.data;
    find_target(p, chunk, &t);
    if (chunk + 1 < p->chunks) find_target(p, chunk + 1, &after);
    ptrdiff_t u = t.first;
    do { /* also without any rows: the gradient is zero then */
        const ptrdiff_t next = fnn_min(u + t.block, t.end);
        find_rows(p, &t, u, next);
        if (p->packed) pack_block(p, &t, u, next);
        if (!p->packed || d->groups > 1) {
            if (next < t.end) plan_fetching(p, &t, &t, next, fnn_min(next + t.block, t.end));
            else plan_fetching(p, &t, &after, after.first, fnn_min(after.first + after.block, after.end));
        }
        for (ptrdiff_t i = 0; i < t.group_end - t.group; i++) {
            const target one = group_of(p, &t, i);
            add_block(p, &one, u > t.first);
        }
        u = next;
    } while (u < t.end);
}

/* ---- the sum of the parts of a 1x1 kernel's gradient ---- */

/* Row k of the gradient, of all groups. */
static void combine_row(void *context, ptrdiff_t k, void *scratch) {
    const gradient *p = context;
    const fnn_conv_parts *s = &p->sum;
    const ptrdiff_t c = s->d->c;
    const int dense = c == 1 || s->dw.stride[1] == 1;
    char *row = fnn_at(s->dw.data, k * s->dw.stride[0], s->dtype);
    if (!p->direct) {
        const char *from = fnn_at(s->packed, k * c, s->dtype);
        char *to = dense ? row : scratch;
        if (s->parts == 1) memcpy(to, from, (size_t)c * fnn_itemsize(s->dtype));
        for (ptrdiff_t part = 1; part < s->parts; part++)
            s->K->add(c, (void *const[]){to},
                      (const void *const[]){part > 1 ? to : from, fnn_at(from, part * s->part_size, s->dtype)},
                      (const ptrdiff_t[]){1, 1}, NULL);
        if (!dense) s->K->conv_scatter(1, c, to, c, row, 0, s->dw.stride[1]);
    }
    if (s->call->follower) fnn_follow(s->call, k * c, c); /* only a dense gradient is followed */
}

void fnn_conv_wide_gradient_workspace(const fnn_call *call, const fnn_conv_dims *d, fnn_workspace *ws) {
    gradient p;
    plan_gradient(call, d, &p);
    ws->shared = p.shared;
    ws->scratch = p.scratch;
}

void fnn_conv_wide_gradient(const fnn_call *call, const fnn_conv_dims *d) {
    gradient p;
    plan_gradient(call, d, &p);
    p.sum.packed = call->shared;
    p.sum.slot = (ptrdiff_t *)((char *)call->shared + p.slot_at);
    fnn_conv_make_channels_last(&p.sum, &p.x, d->c, d->h, d->w, p.x_at);
    fnn_conv_make_channels_last(&p.sum, &p.dy, d->k, d->oh, d->ow, p.dy_at);
    if (!p.packed) p.x_side.pixel = p.x.w, p.dy_side.pixel = p.dy.w;
    p.one_run = is_one_run(&p);
    fnn_parallel_for(call, p.chunks, fnn_conv_cost(d, p.sum.dtype), sum_chunk, &p);
    if (!p.swapped) fnn_conv_combine(&p.sum);
    else if (!p.direct || call->follower)
        fnn_parallel_for(call, d->groups * d->k, (double)(p.sum.parts * p.sum.part_size) * 0.1, combine_row, &p);
}

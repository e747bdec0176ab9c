/* conv2d_weight_taps.c: dweight (k, 1, r, s) = sum over images and output pixels of x (n, 1, h, w) times dy (n, k, oh, ow) where lanes
 * are a row of the kernel: one input channel and few output channels, as in LeNet-5's first layer. Nothing is turned around.
 *
 * Of a map that was pooled by maxima of 2 x 2 windows, dy is 0 but for one pixel of each window and channel. A program lets this
 * gradient take it from the pooled map's (fnn_call.unpooled): a quarter of the products, and dy has no memory.
 *
 * The order of summation is fixed by shape: pairs of output rows (image by image) form `parts` equal ranges, of which each element
 * is one chain over blocks of 2 x 2 pixels; the parts are added in order. A multiply-add of 0 changes no sum but -0, so pooled or
 * not the bits are the same, with two exceptions: where x is not finite, dy is spread out, a pair of rows at a time; where -0 comes
 * out, which only underflow makes, the part is summed anew so. */
#include "conv2d.h"
#include "pool.h"

#include <string.h>

enum {
    PARTS = 16,
    PART_PIXELS = 128,     /* at least: adding one part costs what a few pixels do */
    X_BYTES = 20 << 10,    /* of padded rows at a time: half of a first-level cache */
    MOST_COLUMNS = 1024,
    OCTET = 8
};

typedef struct {
    fnn_conv_parts sum; /* a part is [r][s][channel] */
    fnn_image x, dy;
    const fnn_call *unpooled;
    ptrdiff_t pairs, units;   /* pairs of output rows in an image, in all */
    ptrdiff_t block;          /* pairs at a time */
    ptrdiff_t pitch, second;  /* elements of a padded row of x; from a block's rows to their copy, or 0 */
    ptrdiff_t sums;           /* elements */
    size_t column_at, edge_at, sums_at, dy_at, at_at, scratch, slot_at, shared;
} taps_plan;

/* Beside lanes of images (LeNet-5's first layer on two cores of a Granite Rapids): 0.96 to 1 times as fast with AVX-512, 0.8 with AVX2,
 * but, with zeros left out, 262 in place of 442 us in a step. Rows of fewer than five elements leave too many lanes empty. */
int fnn_conv_taps_suits(const fnn_conv_dims *d, int dtype) {
    const fnn_kernels *K = fnn_kernels_of(dtype);
    if (d->n == 0 || d->groups > 1 || d->c > 1 || d->k > fnn_few_channels(K) || K->lanes < OCTET) return 0;
    if ((d->r != 5 && d->r != 7) || d->s < 5 || d->s > OCTET || d->ow > MOST_COLUMNS) return 0;
    return d->stride[0] == 1 && d->stride[1] == 1 && d->dilation[0] == 1 && d->dilation[1] == 1;
}

static ptrdiff_t rows_read(const fnn_conv_dims *d, ptrdiff_t pairs) { return 2 * pairs + d->r - 1; }

static ptrdiff_t columns_read(const fnn_conv_dims *d) { return d->ow + d->s - 1; }

/* A block's rows and their copy, each with what an octet reads behind them. */
static size_t x_bytes(const taps_plan *p) {
    const ptrdiff_t size = (ptrdiff_t)fnn_itemsize(p->sum.dtype);
    return (size_t)((rows_read(p->sum.d, p->block) * p->pitch * size + FNN_LINE) * (p->second ? 2 : 1));
}

/* shared: [parts][slots][columns][edges]; scratch: [x][sums][dy: a pair of rows][where windows begin], or what the sum of the parts needs. */
static void plan_memory(taps_plan *p) {
    const fnn_conv_dims *d = p->sum.d;
    const size_t size = fnn_itemsize(p->sum.dtype);
    const ptrdiff_t windows = d->ow / 2 * d->k;
    p->slot_at = fnn_whole_lines((size_t)(p->sum.parts * p->sum.part_size) * size);
    p->column_at = p->slot_at + fnn_whole_lines((size_t)(d->r * d->s) * sizeof(ptrdiff_t));
    p->edge_at = p->column_at + fnn_whole_lines((size_t)d->ow * sizeof(int32_t));
    p->shared = p->edge_at + (p->unpooled ? fnn_whole_lines((size_t)(2 * p->block * windows) * sizeof(int32_t)) : 0);
    p->sums_at = x_bytes(p);
    p->dy_at = p->sums_at + fnn_whole_lines((size_t)p->sums * size);
    p->at_at = p->dy_at + fnn_whole_lines((size_t)(2 * d->ow * d->k) * size);
    p->scratch = p->at_at + (p->unpooled ? fnn_whole_lines((size_t)(p->block * windows) * sizeof(int32_t)) : 0);
    if (p->scratch < fnn_conv_combine_scratch(&p->sum)) p->scratch = fnn_conv_combine_scratch(&p->sum);
}

static taps_plan plan_of(const fnn_call *call, const fnn_conv_dims *d) {
    const fnn_tensor *dy = call->in[0], *x = call->in[1];
    const ptrdiff_t size = (ptrdiff_t)fnn_itemsize(x->dtype), line = FNN_LINE / size, cols = fnn_round_up(d->k, 8);
    taps_plan p = {.sum = {.call = call, .d = d, .K = fnn_kernels_of(x->dtype), .dtype = x->dtype, .dw = *call->out[0], .groups = 1,
                           .c = 1, .k = d->k, .cols = cols, .panels = 1, .part_size = d->r * d->s * cols},
                   .x = fnn_image_of(x), .dy = fnn_image_of(dy), .unpooled = call->unpooled};
    p.pairs = fnn_ceil_div(d->oh, 2), p.units = d->n * p.pairs;
    p.sum.parts = fnn_max(fnn_min(fnn_min(d->n * d->oh * d->ow / PART_PIXELS, PARTS), p.units), 1);
    p.pitch = fnn_round_up(columns_read(d), line);
    p.block = fnn_min(fnn_max((X_BYTES / (p.pitch * size) - d->r + 1) / 2, 1), p.pairs);
    p.second = line > OCTET ? rows_read(d, p.block) * p.pitch + line : 0;
    p.sums = fnn_round_up(d->k * d->r * OCTET, p.sum.K->lanes);
    plan_memory(&p);
    return p;
}

/* Where in padded rows the window of a column begins: rows are there twice, half a line apart, so that no octet crosses lines. Edges
 * are those of blocks of 2 x 2 pixels, left and right, for each channel. */
static void place_columns(const taps_plan *p, int32_t *column, int32_t *edge) {
    const fnn_conv_dims *d = p->sum.d;
    const ptrdiff_t line = FNN_LINE / (ptrdiff_t)fnn_itemsize(p->sum.dtype), n = d->ow / 2 * d->k;
    for (ptrdiff_t i = 0; i < d->ow; i++) column[i] = (int32_t)(p->second && i % line > line - OCTET ? p->second + OCTET + i : i);
    for (ptrdiff_t i = 0; i < p->block * n && p->unpooled; i++) {
        const int32_t *at = column + i % n / d->k * 2, row = (int32_t)(i / n * 2 * p->pitch);
        edge[i] = row + at[0], edge[p->block * n + i] = row + at[1];
    }
}

/* ---- a part ---- */

typedef struct {
    const int32_t *column, *edge;
    char *x, *sums, *dy;
    int32_t *at;
    int spreads; /* zeros are multiplied, too */
} target;

/* What a block of pairs reads of x; on both sides scratch is zero. */
static void stage_x(const taps_plan *p, const target *t, ptrdiff_t n, ptrdiff_t pair, ptrdiff_t pairs) {
    const fnn_conv_dims *d = p->sum.d;
    const int dtype = p->sum.dtype;
    const size_t size = fnn_itemsize(dtype);
    const ptrdiff_t columns = columns_read(d), lo = fnn_min(d->padding[2], columns), hi = fnn_min(lo + d->w, columns);
    const ptrdiff_t count = rows_read(d, pairs);
    for (ptrdiff_t i = 0; i < count; i++) {
        const ptrdiff_t row = 2 * pair - d->padding[0] + i;
        char *to = fnn_at(t->x, i * p->pitch, dtype);
        if (row < 0 || row >= d->h) {
            memset(to, 0, (size_t)p->pitch * size);
            continue;
        }
        const char *from = fnn_at(p->x.data, n * p->x.n + row * p->x.h, dtype);
        if (p->x.w == 1) memcpy(fnn_at(to, lo, dtype), from, (size_t)(hi - lo) * size);
        else p->sum.K->conv_pack(1, hi - lo, 1, from, p->x.w, p->x.c, fnn_at(to, lo, dtype), NULL, 1);
    }
    if (p->second) memcpy(fnn_at(t->x, p->second + OCTET, dtype), t->x, (size_t)(count * p->pitch) * size);
}

/* Adds pairs of output rows from dy, from a copy of a pair, or from what is spread out, a pair too. */
static void add_rows(const taps_plan *p, const target *t, ptrdiff_t n, ptrdiff_t pair, ptrdiff_t pairs, const char *x) {
    const fnn_conv_dims *d = p->sum.d;
    const int dtype = p->sum.dtype, direct = !p->unpooled && (p->dy.c == 1 || d->k == 1);
    const ptrdiff_t rows = fnn_min(2 * pairs, d->oh - 2 * pair), row = d->ow * d->k;
    const char *dy = fnn_at(p->dy.data, n * p->dy.n + 2 * pair * p->dy.h, dtype);
    if (!direct && pairs > 1) {
        for (ptrdiff_t i = 0; i < pairs; i++) add_rows(p, t, n, pair + i, 1, fnn_at(x, 2 * i * p->pitch, dtype));
        return;
    }
    if (p->unpooled) fnn_pool_spread(p->unpooled, n * p->pairs + pair, t->dy);
    for (ptrdiff_t i = 0; i < rows && !p->unpooled && !direct; i++)
        p->sum.K->conv_pack(1, d->ow, d->k, fnn_at(dy, i * p->dy.h, dtype), p->dy.w, p->dy.c, fnn_at(t->dy, i * row, dtype), NULL, d->k);
    p->sum.K->conv_taps(rows, d->ow, d->k, d->r, x, p->pitch, t->column, direct ? dy : t->dy, direct ? p->dy.h : row,
                        direct ? p->dy.w : d->k, t->sums);
}

/* Whether a block could be added from the pooled map's gradient as it is. */
static int add_pooled(const taps_plan *p, const target *t, ptrdiff_t n, ptrdiff_t pair, ptrdiff_t pairs) {
    const fnn_conv_dims *d = p->sum.d;
    const fnn_tensor *dy = p->unpooled->in[0], *position = p->unpooled->in[1];
    const ptrdiff_t row = d->ow / 2 * d->k, size = (ptrdiff_t)fnn_itemsize(p->sum.dtype), first = (n * p->pairs + pair) * row;
    int is_sure;
    p->sum.K->gemm_finite(rows_read(d, pairs) * p->pitch, t->x, &is_sure);
    if (!is_sure) return 0;
    p->sum.K->conv_taps_find(pairs * row, (const int32_t *)position->data + first, t->edge, t->edge + p->block * row, p->pitch, t->at);
    p->sum.K->conv_taps_pooled(pairs * d->ow / 2, d->k, d->r, t->x, p->pitch, t->at, (const char *)dy->data + first * size, t->sums);
    return 1;
}

static void add_units(const taps_plan *p, const target *t, ptrdiff_t unit, ptrdiff_t end) {
    memset(t->sums, 0, (size_t)p->sums * fnn_itemsize(p->sum.dtype));
    for (ptrdiff_t n; unit < end; unit += n) {
        const ptrdiff_t image = unit / p->pairs, pair = unit % p->pairs;
        n = fnn_min(fnn_min(p->block, end - unit), p->pairs - pair);
        stage_x(p, t, image, pair, n);
        if (t->spreads || !add_pooled(p, t, image, pair, n)) add_rows(p, t, image, pair, n, t->x);
    }
}

static void finish_part(const taps_plan *p, const char *sums, char *part) {
    const fnn_conv_dims *d = p->sum.d;
    const size_t size = fnn_itemsize(p->sum.dtype);
    memset(part, 0, (size_t)p->sum.part_size * size);
    for (ptrdiff_t k = 0; k < d->k; k++)
        for (ptrdiff_t t = 0; t < d->r * d->s; t++)
            memcpy(fnn_at(part, t * p->sum.cols + k, p->sum.dtype),
                   fnn_at(sums, (k * d->r + t / d->s) * OCTET + t % d->s, p->sum.dtype), size);
}

static void sum_part(void *context, ptrdiff_t part, void *scratch) {
    const taps_plan *p = context;
    const ptrdiff_t begin = fnn_part_begin(p->units, p->sum.parts, part), end = fnn_part_begin(p->units, p->sum.parts, part + 1);
    char *shared = p->sum.call->shared, *to = scratch;
    target t = {.column = (int32_t *)(shared + p->column_at), .edge = (int32_t *)(shared + p->edge_at), .x = to,
                .sums = to + p->sums_at, .dy = to + p->dy_at, .at = (int32_t *)(to + p->at_at), .spreads = !p->unpooled};
    int is_sure = 1;
    memset(t.x, 0, x_bytes(p));
    add_units(p, &t, begin, end);
    if (p->unpooled) p->sum.K->gemm_no_negative_zero(p->sums, t.sums, &is_sure);
    if (!is_sure) t.spreads = 1, add_units(p, &t, begin, end);
    finish_part(p, t.sums, fnn_at(p->sum.packed, part * p->sum.part_size, p->sum.dtype));
}

/* ---- the interface ---- */

void fnn_conv_taps_gradient_workspace(const fnn_call *call, const fnn_conv_dims *d, fnn_workspace *ws) {
    const taps_plan p = plan_of(call, d);
    ws->shared = p.shared;
    ws->scratch = p.scratch;
}

void fnn_conv_taps_gradient(const fnn_call *call, const fnn_conv_dims *d) {
    taps_plan p = plan_of(call, d);
    char *shared = call->shared;
    p.sum.packed = shared;
    p.sum.slot = (ptrdiff_t *)(shared + p.slot_at);
    place_columns(&p, (int32_t *)(shared + p.column_at), (int32_t *)(shared + p.edge_at));
    fnn_parallel_for(call, p.sum.parts, fnn_conv_cost(d, p.sum.dtype) / (p.unpooled ? 3 : 1), sum_part, &p);
    fnn_conv_combine(&p.sum);
}

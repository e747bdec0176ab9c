/* conv2d_weight_blocks.c: dweight (k, c, r, s) = sum over images and output pixels of x (n, c, h, w) times dy (n, k, oh, ow) where dy
 * is the gradient of a map that was pooled by maxima of 2 x 2 windows (conv2d_blocks.c).
 *
 * What is not 0 is listed, in the order of memory, with the place of its window in x, whose rows are unfolded: a few vectors for
 * the window's row at each column, aligned. A quarter of the products are made.
 *
 * The order of summation is fixed by shape: blocks of pairs of output rows (image by image) form `parts` equal ranges, of
 * which each element is one chain over blocks of 2 x 2 pixels; the parts are added in order. Where x is not finite, all pixels are
 * listed: zeros count. A sum of nothing but zeros is +0, whatever their signs, which depend on how they are listed. */
#include "conv2d.h"
#include "pool.h"

#include <string.h>

enum {
    PARTS = 16,
    X_BYTES = 24 << 10,    /* of unfolded rows at a time: half of a first-level cache */
    MOST_COLUMNS = 64,
    TAPS = 5,              /* rows of the kernel */
    MOST_RUN = 32          /* elements of a window's row */
};

typedef struct {
    fnn_conv_parts sum; /* a part is [k][r][a window's row] */
    fnn_image x, dy;
    ptrdiff_t vecs, width, pitch;    /* of a window's row; elements of these, and of an unfolded row */
    ptrdiff_t pairs, row;            /* pairs of output rows in an image; what of a pair is listed */
    ptrdiff_t block, blocks, units;  /* pairs at a time; blocks in an image, in all */
    ptrdiff_t line_size, sums;       /* elements of a padded row of x, and of the sums of a part */
    size_t pooled_at, at_at, edge_at, shared;
    size_t line_at, sums_at, pair_at, all_at, all_values_at, scratch;
    fnn_conv_pooled pooled;
} blocks_plan;

static ptrdiff_t run_of(const fnn_conv_dims *d) { return d->s * d->c; }

/* A window's row of LeNet-5's second layer is 30 elements: vectors, nearly full. */
int fnn_conv_blocks_suits(const fnn_call *call, const fnn_conv_dims *d) {
    if (!fnn_conv_pooled_suits(call, d) || d->c < 2 || d->r != TAPS || d->ow > MOST_COLUMNS) return 0;
    return run_of(d) <= MOST_RUN;
}

static float *floats(void *base, size_t at) { return (float *)((char *)base + at); }

/* shared: [parts][what is not 0][where it is met][where blocks' left and right windows begin]; scratch: [unfolded x][a row][sums]
 * [a pair of rows][all pixels of a block][where], or, in less than these, a pair of rows of dy, or a row of the result. */
static void plan_memory(blocks_plan *p) {
    const fnn_conv_dims *d = p->sum.d;
    const size_t all = fnn_whole_lines((size_t)(4 * p->block * p->row) * sizeof(float));
    p->pooled_at = fnn_whole_lines((size_t)(p->sum.parts * p->sums) * sizeof(float));
    p->at_at = p->pooled_at + fnn_conv_pooled_bytes(p->sum.call, d);
    p->edge_at = p->at_at + fnn_whole_lines((size_t)(d->n * p->pairs * p->row) * sizeof(int32_t));
    p->shared = p->edge_at + fnn_whole_lines((size_t)(2 * p->block * p->row) * sizeof(int32_t));
    p->line_at = fnn_whole_lines((size_t)((2 * p->block + TAPS - 1) * p->pitch) * sizeof(float));
    p->sums_at = p->line_at + fnn_whole_lines((size_t)p->line_size * sizeof(float));
    p->pair_at = p->sums_at + fnn_whole_lines((size_t)p->sums * sizeof(float));
    p->all_values_at = p->pair_at + fnn_conv_pooled_scratch(d);
    p->all_at = p->all_values_at + all;
    p->scratch = p->all_at + all;
}

static blocks_plan plan_of(const fnn_call *call, const fnn_conv_dims *d) {
    const fnn_kernels *K = fnn_kernels_of(FNN_FLOAT32);
    blocks_plan p = {.sum = {.call = call, .d = d, .K = K, .dtype = FNN_FLOAT32, .dw = *call->out[0], .groups = 1, .c = d->c, .k = d->k},
                     .x = fnn_image_of(call->in[1]), .dy = fnn_image_of(call->in[0])};
    p.vecs = fnn_ceil_div(run_of(d), K->lanes), p.width = p.vecs * K->lanes, p.pitch = d->ow * p.width;
    p.pairs = d->oh / 2, p.row = d->ow / 2 * d->k;
    p.block = fnn_min(fnn_max((X_BYTES / (p.pitch * (ptrdiff_t)sizeof(float)) - TAPS + 1) / 2, 1), p.pairs);
    p.blocks = fnn_ceil_div(p.pairs, p.block), p.units = d->n * p.blocks;
    p.sum.parts = fnn_min(PARTS, p.units);
    p.line_size = fnn_round_up((d->ow + d->s - 1) * d->c, K->lanes), p.sums = d->k * TAPS * p.width;
    plan_memory(&p);
    return p;
}

/* ---- what is not 0 ---- */

/* The places of the windows in x that values meet; edges: where left and right pixels' windows begin in a block. */
static void place_windows(void *context, ptrdiff_t part, void *scratch) {
    const blocks_plan *p = context;
    int32_t *at = (int32_t *)floats(p->sum.call->shared, p->at_at), *edge = (int32_t *)floats(p->sum.call->shared, p->edge_at);
    const ptrdiff_t end = fnn_part_begin(p->units, p->sum.parts, part + 1);
    (void)scratch;
    for (ptrdiff_t unit = fnn_part_begin(p->units, p->sum.parts, part); unit < end; unit++) {
        const ptrdiff_t pair = unit % p->blocks * p->block, first = (unit / p->blocks * p->pairs + pair) * p->row;
        p->sum.K->conv_taps_find(fnn_min(p->block, p->pairs - pair) * p->row, p->pooled.positions + first, edge,
                                 edge + p->block * p->row, p->pitch, at + first);
    }
}

static void place_edges(const blocks_plan *p, int32_t *edge) {
    for (ptrdiff_t i = 0, k = p->sum.d->k; i < p->block * p->row; i++) {
        edge[i] = (int32_t)(i / p->row * 2 * p->pitch + i % p->row / k * 2 * p->width);
        edge[p->block * p->row + i] = edge[i] + (int32_t)p->width;
    }
}

/* ---- a part ---- */

/* Row `row` of x as windows' rows; with padding, or if it is not dense, by way of a line that is 0 on both sides. */
static void unfold_row(const blocks_plan *p, ptrdiff_t image, ptrdiff_t row, float *line, float *to) {
    const fnn_conv_dims *d = p->sum.d;
    const ptrdiff_t columns = d->ow + d->s - 1, lo = fnn_min(d->padding[2], columns), hi = fnn_min(lo + d->w, columns);
    const float *from = fnn_at(p->x.data, image * p->x.n + row * p->x.h, FNN_FLOAT32);
    const int is_dense = p->x.c == 1 && p->x.w == d->c;
    if (!is_dense) p->sum.K->conv_pack(1, hi - lo, d->c, from, p->x.w, p->x.c, line + lo * d->c, NULL, d->c);
    else if (hi - lo < columns) memcpy(line + lo * d->c, from, (size_t)((hi - lo) * d->c) * sizeof *line);
    if (!is_dense || hi - lo < columns) from = line;
    p->sum.K->conv_blocks_unfold(d->ow, run_of(d), d->c, from, to);
}

/* Unfolds the rows of x that a block reads. Returns whether all are finite. */
static int unfold_rows(const blocks_plan *p, ptrdiff_t image, ptrdiff_t pair, ptrdiff_t pairs, void *scratch) {
    const ptrdiff_t count = 2 * pairs + TAPS - 1;
    int is_finite;
    for (ptrdiff_t i = 0; i < count; i++) {
        const ptrdiff_t row = 2 * pair - p->sum.d->padding[0] + i;
        float *to = (float *)scratch + i * p->pitch;
        if (row >= 0 && row < p->sum.d->h) unfold_row(p, image, row, floats(scratch, p->line_at), to);
        else memset(to, 0, (size_t)p->pitch * sizeof *to);
    }
    p->sum.K->gemm_finite(count * p->pitch, scratch, &is_finite);
    return is_finite;
}

/* All pixels of a block in the order of their blocks of 2 x 2, zeros too. */
static void add_all(const blocks_plan *p, ptrdiff_t image, ptrdiff_t pair, ptrdiff_t pairs, void *scratch) {
    const fnn_conv_dims *d = p->sum.d;
    float *values = floats(scratch, p->all_values_at);
    int32_t *at = (int32_t *)floats(scratch, p->all_at);
    ptrdiff_t pixels = 0;
    for (ptrdiff_t i = 0; i < pairs; i++) {
        char *spread = (char *)floats(scratch, p->pair_at);
        fnn_conv_row_pair rows = {(float *)spread, (float *)spread + d->ow * d->k, d->k};
        if (p->sum.call->unpooled) fnn_pool_spread(p->sum.call->unpooled, image * p->pairs + pair + i, spread);
        else rows = fnn_conv_read_pair(&p->dy, d, image, pair + i, (float *)spread);
        for (ptrdiff_t q = 0; q < 2 * d->ow; q++, pixels++) {
            const ptrdiff_t row = q % 4 / 2, col = q / 4 * 2 + q % 2;
            memcpy(values + pixels * d->k, (row ? rows.lower : rows.upper) + col * rows.pixel, (size_t)d->k * sizeof *values);
            for (ptrdiff_t k = 0; k < d->k; k++) at[pixels * d->k + k] = (int32_t)((2 * i + row) * p->pitch + col * p->width);
        }
    }
    p->sum.K->conv_blocks_gradient(pixels, d->k, p->vecs, scratch, p->pitch, at, values, floats(scratch, p->sums_at));
}

static void sum_part(void *context, ptrdiff_t part, void *scratch) {
    const blocks_plan *p = context;
    const fnn_conv_dims *d = p->sum.d;
    const int32_t *at = (int32_t *)floats(p->sum.call->shared, p->at_at);
    const ptrdiff_t end = fnn_part_begin(p->units, p->sum.parts, part + 1);
    float *sums = floats(scratch, p->sums_at);
    memset(floats(scratch, p->line_at), 0, (size_t)p->line_size * sizeof *sums);
    memset(sums, 0, (size_t)p->sums * sizeof *sums);
    for (ptrdiff_t unit = fnn_part_begin(p->units, p->sum.parts, part); unit < end; unit++) {
        const ptrdiff_t image = unit / p->blocks, pair = unit % p->blocks * p->block, pairs = fnn_min(p->block, p->pairs - pair);
        const ptrdiff_t first = (image * p->pairs + pair) * p->row;
        if (!unfold_rows(p, image, pair, pairs, scratch)) add_all(p, image, pair, pairs, scratch);
        else
            p->sum.K->conv_blocks_gradient(pairs * d->ow / 2, d->k, p->vecs, scratch, p->pitch, at + first, p->pooled.values + first, sums);
    }
    memcpy((float *)p->sum.packed + part * p->sums, sums, (size_t)p->sums * sizeof *sums);
}

/* An output channel's gradient: the sum of the parts, in their order. */
static void combine_channel(void *context, ptrdiff_t k, void *scratch) {
    const blocks_plan *p = context;
    const fnn_conv_dims *d = p->sum.d;
    const fnn_tensor *dw = &p->sum.dw;
    const ptrdiff_t size = TAPS * p->width;
    float *total = scratch;
    const float *part = (float *)p->sum.packed + k * size;
    memset(total, 0, (size_t)size * sizeof *total);
    for (ptrdiff_t q = 0; q < p->sum.parts; q++)
        p->sum.K->add(size, (void *const[]){total}, (const void *const[]){total, part + q * p->sums}, (const ptrdiff_t[]){1, 1}, NULL);
    for (ptrdiff_t c = 0; c < d->c; c++)
        for (ptrdiff_t t = 0; t < TAPS * d->s; t++)
            ((float *)dw->data)[k * dw->stride[0] + c * dw->stride[1] + t / d->s * dw->stride[2] + t % d->s * dw->stride[3]] =
                total[t / d->s * p->width + t % d->s * d->c + c];
    const ptrdiff_t row = d->c * TAPS * d->s;
    if (p->sum.call->follower) fnn_follow(p->sum.call, k * row, row); /* only a dense gradient is followed */
}

/* ---- the interface ---- */

void fnn_conv_blocks_gradient_workspace(const fnn_call *call, const fnn_conv_dims *d, fnn_workspace *ws) {
    const blocks_plan p = plan_of(call, d);
    fnn_enlarge(ws, p.shared, p.scratch);
}

int fnn_conv_blocks_gradient(const fnn_call *call, const fnn_conv_dims *d) {
    blocks_plan p = plan_of(call, d);
    p.sum.packed = call->shared;
    if (!fnn_conv_find_pooled(call, d, floats(call->shared, p.pooled_at), &p.pooled)) return 0;
    place_edges(&p, (int32_t *)floats(call->shared, p.edge_at));
    fnn_parallel_for(call, p.sum.parts, 0.2 * (double)(d->n * p.pairs * p.row), place_windows, &p);
    fnn_parallel_for(call, p.sum.parts, fnn_conv_cost(d, FNN_FLOAT32) / 3, sum_part, &p);
    fnn_parallel_for(call, d->k, 0.1 * (double)(p.sum.parts * p.sums), combine_channel, &p);
    return 1;
}

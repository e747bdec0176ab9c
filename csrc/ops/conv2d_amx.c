/* conv2d_amx.c: forward and backward_input of convolutions on bfloat16 matrix units: implicit GEMM, rows of C being
 * output pixels, columns output channels, steps of the sum 32 channels at one kernel position.
 *
 * The weights are split once for all, as [panel of 32 columns][place][channels][plane][tile]. A chunk takes a block of
 * output pixels: it splits the input that they read, once for all kernel positions (kernels/conv_amx.h), as
 * [channels][plane][class][row][column], padding included, which stays in its core's second-level cache; then panel
 * after panel is multiplied, each a block of steps at a time for all pixels of the block. Where all channels of enough
 * pixels would not fit, they come in stages, and the sums of all panels wait in scratch. Rows of C run on from one
 * output row into the next over the few columns that only padding needs: what comes out there is dropped, and small
 * maps fill their tiles. backward_input with a stride is one product per phase of the input grid, all of them from the
 * same split gradient. 1x1 kernels of stride 1 do not know rows; those with a stride gather what they read.
 *
 * An infinity or NaN in an operand, or a sum that overflows, brings the call back to the direct way. */
#include "conv2d_amx.h"

#include <string.h>

enum {
    STRIP = FNN_AMX_STRIP,
    STEP = FNN_AMX_STEP,
    ROW = FNN_AMX_ROW,
    FLOAT = 4,
    PACK_DEPTH = 64,         /* channels whose weights are gathered together */
    STAGE_BYTES = 768 << 10, /* of split input: what is left of 2 MB is for weights and C */
    BLOCK_STEPS = 16,        /* of three planes, in a block of the sum: 96 KB of weights */
    SUMS_BYTES = 640 << 10,  /* of C, where channels come in stages ... */
    LEAST_STAGE = 2,         /* ... of at least so many steps, ... */
    WANTED_PIXELS = 196,     /* as a chunk of fewer reads weights too often */
    BLOCK_PIXELS = 512,      /* most of a chunk */
    LEAST_PIXELS = 128,      /* fewest, or weights come from the third-level cache too often */
    LEAST_PANELS = 4,        /* of a chunk where panels are shared out: each share splits the input anew */
    CHUNKS = 16
};
static const double CHUNK_NS = 50000;

/* ---- shared with the weights' gradients ---- */

/* Measured on the reference machine: 6 ns for two tiles; for splitting an element in three within the first-level
 * cache 0.48 cycles, 0.13 ns, which bounds the following from below. Derived, not measured: 0.15 ns for an element to
 * come from the third-level cache, which gives 8 bytes a cycle, and 0.1 ns for each part of it: 0.04 for instructions
 * (20 to split 32 elements in three, on two ports, and loads, stores), 0.02 for 2 bytes on their way to the
 * second-level cache, and as much again for what was not thought of. */
double fnn_amx_products_ns(int planes, double tiles) { return 6.0 * (double)(planes * (planes + 1) / 2) * tiles; }
double fnn_amx_split_ns(int planes, double fetched, double written) { return 0.15 * fetched + 0.1 * planes * written; }

/* ---- the plan ---- */

typedef struct {
    fnn_axis h, w;
    fnn_image dst;
    ptrdiff_t steps;               /* of its sum */
    ptrdiff_t *a_offset, *b_offset; /* of each step, in bytes */
} phase;

typedef struct {
    const fnn_call *call;
    const fnn_kernels *K;
    const fnn_amx_kernels *X;
    int planes;
    ptrdiff_t images, depth, width, panels, channel_steps, block_steps;
    ptrdiff_t stage_steps, stages; /* channel steps that are split together */
    fnn_conv_weight weight;
    fnn_tile_source src;
    fnn_image dst;
    phase phases[FNN_AMX_MOST_PHASES];
    ptrdiff_t count;              /* of phases */
    int joined;                   /* all outputs are one row, which they were not before */
    ptrdiff_t joined_images;
    fnn_axis joined_h, joined_w;
    fnn_amx_lattice rows, cols;
    ptrdiff_t out_h, out_w;       /* of the largest phase */
    const fnn_epilogue *epilogue;
    /* chunks */
    ptrdiff_t block_images, block_rows, block_cols, image_blocks, row_blocks, col_blocks, splits;
    ptrdiff_t high, wide;         /* of a class, in a block of one image */
    ptrdiff_t plane_bytes, image_bytes; /* split input: [channel step][plane][position] */
    ptrdiff_t step_bytes, panel_bytes;  /* split weights: [panel][place][channel step][plane][tile] */
    ptrdiff_t c_panel;                  /* bytes of a panel's tiles of C */
    size_t a_bytes, c_bytes, table_bytes, scratch;
    ptrdiff_t *slot;              /* where gathered weights of kernel position r * S + s go */
    char *split;                  /* weights */
    const fnn_call *leader;       /* whose followers take finished rows; NULL: they run later */
    int *bad;
} plan;

/* A pass's phases: one, or those of backward_input's strides. */
static void find_phases(plan *p, const fnn_conv_dims *d, fnn_conv_pass pass) {
    const int turned = pass == FNN_CONV_BACKWARD_INPUT;
    const ptrdiff_t high = turned ? fnn_min(d->stride[0], d->h) : 1, wide = turned ? fnn_min(d->stride[1], d->w) : 1;
    p->count = high * wide;
    for (ptrdiff_t i = 0; i < p->count; i++) {
        phase *f = &p->phases[i];
        f->h = turned ? fnn_conv_phase_axis(d, 0, i / wide) : fnn_conv_forward_axis(d, 0);
        f->w = turned ? fnn_conv_phase_axis(d, 1, i % wide) : fnn_conv_forward_axis(d, 1);
        f->dst = p->dst;
        if (!turned) continue;
        f->dst.data += (i / wide * p->dst.h + i % wide * p->dst.w) * FLOAT;
        f->dst.h *= d->stride[0], f->dst.w *= d->stride[1];
    }
}

/* A 1x1 convolution does not know rows: the outputs of all images become one row, where they lie so. */
static void join_rows(plan *p) {
    phase *f = &p->phases[0];
    if (p->count > 1 || f->h.taps * f->w.taps != 1) return;
    if (!fnn_image_is_dense(&f->dst, f->h.out, f->w.out)) return;
    p->joined = 1;
    p->joined_images = p->images, p->joined_h = f->h, p->joined_w = f->w;
    f->w = (fnn_axis){.in = p->images * f->h.out * f->w.out, .step = 1, .taps = 1, .gap = 1, .slot = f->w.slot};
    f->h = (fnn_axis){.in = 1, .out = 1, .step = 1, .taps = 1, .gap = 1, .slot = f->h.slot};
    f->w.out = f->w.in;
    p->images = 1;
}

static void find_lattices(plan *p) {
    fnn_axis high[FNN_AMX_MOST_PHASES], wide[FNN_AMX_MOST_PHASES];
    for (ptrdiff_t i = 0; i < p->count; i++) high[i] = p->phases[i].h, wide[i] = p->phases[i].w;
    p->rows = fnn_amx_lattice_of(high, p->count);
    p->cols = fnn_amx_lattice_of(wide, p->count);
    p->out_h = p->phases[0].h.out, p->out_w = p->phases[0].w.out; /* phase 0 is never smaller than another */
}

static ptrdiff_t positions(const plan *p, ptrdiff_t rows, ptrdiff_t cols) {
    return p->rows.classes * p->cols.classes * (rows + p->rows.most) * (cols + p->cols.most) + FNN_AMX_TILE;
}
static ptrdiff_t stage_bytes(const plan *p, ptrdiff_t images, ptrdiff_t rows, ptrdiff_t cols) {
    return images * p->stage_steps * p->planes * positions(p, rows, cols) * ROW;
}
static ptrdiff_t strips_of(const plan *p, ptrdiff_t images, ptrdiff_t rows, ptrdiff_t cols) {
    return images * fnn_ceil_div((rows - 1) * (cols + p->cols.most) + cols, STRIP);
}
/* Whether what a block needs stays in cache. */
static int fits(const plan *p, ptrdiff_t images, ptrdiff_t rows, ptrdiff_t cols) {
    const ptrdiff_t sums = strips_of(p, images, rows, cols) * p->panels * FNN_AMX_C_BYTES;
    return images * rows * cols <= BLOCK_PIXELS && stage_bytes(p, images, rows, cols) <= STAGE_BYTES &&
           (p->stage_steps == p->channel_steps || sums <= SUMS_BYTES);
}

static double products_ns(const plan *p) {
    double tiles = 0;
    for (ptrdiff_t i = 0; i < p->count; i++) {
        const phase *f = &p->phases[i];
        const ptrdiff_t run = (f->h.out - 1) * (f->w.out + p->cols.most) + f->w.out;
        tiles += (double)(p->images * fnn_ceil_div(run, FNN_AMX_TILE)) * (double)(f->h.taps * f->w.taps);
    }
    tiles *= (double)(fnn_ceil_div(p->width, FNN_AMX_TILE) * p->channel_steps);
    return fnn_amx_products_ns(p->planes, tiles);
}

/* The largest block that fits. */
static void fit_block(plan *p) {
    ptrdiff_t images = 1, rows = p->out_h, cols = p->out_w;
    while (!fits(p, 1, rows, cols)) {
        if (rows > 1) rows = fnn_ceil_div(rows, 2);
        else if (cols > FNN_AMX_TILE) cols = fnn_round_up(fnn_ceil_div(cols, 2), FNN_AMX_TILE);
        else break;
    }
    if (rows == p->out_h && cols == p->out_w)
        while (2 * images <= p->images && fits(p, 2 * images, rows, cols)) images *= 2;
    p->block_images = images, p->block_rows = rows, p->block_cols = cols;
}

/* Fewer channels at a time while that lets blocks grow to the pixels wanted. */
static void choose_stage(plan *p) {
    p->stage_steps = p->channel_steps;
    fit_block(p);
    const ptrdiff_t all = p->images * p->out_h * p->out_w;
    for (ptrdiff_t steps = p->channel_steps; p->count == 1 && steps > LEAST_STAGE;) {
        const plan before = *p;
        const ptrdiff_t pixels = p->block_images * p->block_rows * p->block_cols;
        if (pixels >= fnn_min(WANTED_PIXELS, all)) break;
        p->stage_steps = steps = fnn_ceil_div(steps, 2);
        fit_block(p);
        if (p->block_images * p->block_rows * p->block_cols < pixels) *p = before; /* the sums need more */
    }
    p->stages = fnn_ceil_div(p->channel_steps, p->stage_steps);
}

/* Blocks whose input stays in cache; smaller ones, then shares of the panels, while that leaves few chunks. */
static void plan_blocks(plan *p) {
    choose_stage(p);
    ptrdiff_t images = p->block_images, rows = p->block_rows, cols = p->block_cols;
    const double ns = products_ns(p);
    for (p->splits = 1;;) {
        p->image_blocks = fnn_ceil_div(p->images, images);
        p->row_blocks = fnn_ceil_div(p->out_h, rows);
        p->col_blocks = fnn_ceil_div(p->out_w, cols);
        const ptrdiff_t chunks = p->image_blocks * p->row_blocks * p->col_blocks * p->splits;
        if (chunks >= CHUNKS || ns / (double)chunks < 2 * CHUNK_NS) break;
        const int can_halve = images * rows * cols >= 2 * LEAST_PIXELS;
        if (can_halve && images > 1) images = fnn_ceil_div(images, 2);
        else if (can_halve && rows > 1) rows = fnn_ceil_div(rows, 2);
        else if (can_halve && cols >= 2 * FNN_AMX_TILE) cols = fnn_round_up(fnn_ceil_div(cols, 2), FNN_AMX_TILE);
        else if (p->panels >= 2 * p->splits * LEAST_PANELS) p->splits *= 2;
        else break;
    }
    p->block_images = images, p->block_rows = rows, p->block_cols = cols;
}

static void plan_sizes(plan *p) {
    p->high = p->block_rows + p->rows.most, p->wide = p->block_cols + p->cols.most;
    p->plane_bytes = positions(p, p->block_rows, p->block_cols) * ROW;
    p->image_bytes = p->stage_steps * p->planes * p->plane_bytes;
    p->step_bytes = p->planes * FNN_AMX_STRIP_BYTES;
    p->panel_bytes = p->weight.r * p->weight.s * p->channel_steps * p->step_bytes;
    p->block_steps = BLOCK_STEPS * 3 / p->planes;
    const ptrdiff_t strips = strips_of(p, p->block_images, p->block_rows, p->block_cols);
    p->a_bytes = (size_t)(p->block_images * p->image_bytes);
    p->c_panel = strips * FNN_AMX_C_BYTES;
    p->c_bytes = (size_t)(p->c_panel * (p->stages > 1 ? fnn_ceil_div(p->panels, p->splits) : 1));
    const size_t pixels = fnn_whole_lines((size_t)p->wide * sizeof(float *));
    const size_t gathered = (size_t)(p->weight.r * p->weight.s * PACK_DEPTH * STRIP * FLOAT);
    p->scratch = p->a_bytes + p->c_bytes + pixels;
    if (p->scratch < gathered) p->scratch = gathered;
    ptrdiff_t entries = p->weight.r * p->weight.s;
    for (ptrdiff_t i = 0; i < p->count; i++) {
        phase *f = &p->phases[i];
        f->steps = f->h.taps * f->w.taps * p->channel_steps;
        entries += 2 * f->steps;
    }
    p->table_bytes = fnn_whole_lines((size_t)entries * sizeof(ptrdiff_t));
}

/* x, y: what the pass reads and writes, channels-last. */
static void make_plan(plan *p, const fnn_call *call, const fnn_conv_dims *d, fnn_conv_pass pass, const fnn_tensor *x,
                      const fnn_tensor *y) {
    const int turned = pass == FNN_CONV_BACKWARD_INPUT;
    *p = (plan){.call = call,
                .K = fnn_kernels_of(FNN_FLOAT32),
                .X = fnn_amx(),
                .planes = fnn_amx_planes(call->precision),
                .images = d->n,
                .weight = fnn_conv_weight_of(call->in[1], d, turned),
                .src = {.image = fnn_image_of(x), .h = turned ? d->oh : d->h, .w = turned ? d->ow : d->w},
                .dst = fnn_image_of(y)};
    p->weight.cols = STRIP;
    fnn_conv_weight_plan(&p->weight);
    p->depth = p->weight.depth, p->width = p->weight.width, p->panels = p->weight.panels;
    p->channel_steps = fnn_ceil_div(p->depth, STEP);
    find_phases(p, d, pass);
    join_rows(p);
    find_lattices(p);
    plan_blocks(p);
    plan_sizes(p);
}

/* ---- tables ---- */

/* Where the steps of a stage, by kernel position and channels, find their tiles. */
static void fill_stage(const plan *p, const phase *f, ptrdiff_t stage) {
    const ptrdiff_t first = stage * p->stage_steps, count = fnn_min(p->stage_steps, p->channel_steps - first);
    ptrdiff_t at = first * f->h.taps * f->w.taps;
    for (ptrdiff_t t = 0; t < f->h.taps * f->w.taps; t++) {
        ptrdiff_t down, right, r = t / f->w.taps, s = t % f->w.taps;
        const ptrdiff_t class_h = fnn_amx_class(&p->rows, &f->h, r, &down);
        const ptrdiff_t class_w = fnn_amx_class(&p->cols, &f->w, s, &right);
        const ptrdiff_t position = ((class_h * p->cols.classes + class_w) * p->high + down) * p->wide + right;
        const ptrdiff_t place = (f->h.slot + r) * p->weight.s + f->w.slot + s;
        for (ptrdiff_t c = 0; c < count; c++, at++) {
            f->a_offset[at] = position * ROW + c * p->planes * p->plane_bytes;
            f->b_offset[at] = (place * p->channel_steps + first + c) * p->step_bytes;
        }
    }
}

static void fill_tables(plan *p, const fnn_conv_dims *d, fnn_conv_pass pass, ptrdiff_t *memory) {
    const fnn_conv_weight *w = &p->weight;
    ptrdiff_t order_r[FNN_AMX_MOST_PLACES], order_s[FNN_AMX_MOST_PLACES];
    for (ptrdiff_t t = 0; t < w->r; t++) order_r[t] = t;
    for (ptrdiff_t t = 0; t < w->s; t++) order_s[t] = t;
    if (pass == FNN_CONV_BACKWARD_INPUT) {
        fnn_conv_order_by_phase(d, 0, order_r);
        fnn_conv_order_by_phase(d, 1, order_s);
    }
    p->slot = memory;
    for (ptrdiff_t t = 0; t < w->r * w->s; t++)
        p->slot[t] = (order_r[t / w->s] * w->s + order_s[t % w->s]) * PACK_DEPTH * STRIP;
    memory += w->r * w->s;
    for (ptrdiff_t i = 0; i < p->count; i++) {
        phase *f = &p->phases[i];
        f->a_offset = memory, f->b_offset = memory + f->steps;
        memory += 2 * f->steps;
        for (ptrdiff_t stage = 0; stage < p->stages; stage++) fill_stage(p, f, stage);
    }
}

/* ---- weights ---- */

static void split_weights(void *context, ptrdiff_t chunk, void *scratch) {
    const plan *p = context;
    const fnn_conv_weight *w = &p->weight;
    const ptrdiff_t parts = fnn_ceil_div(p->depth, PACK_DEPTH), panel = chunk / parts, places = w->r * w->s;
    const ptrdiff_t from = chunk % parts * PACK_DEPTH, count = fnn_min(PACK_DEPTH, p->depth - from);
    _Alignas(64) float bad[16] = {0};
    if ((panel + 1) * STRIP > p->width) memset(scratch, 0, (size_t)(places * PACK_DEPTH * STRIP * FLOAT));
    fnn_conv_weight_gather(w, panel, from, count, p->slot, scratch);
    for (ptrdiff_t t = 0; t < places; t++) {
        const fnn_amx_strip s = {.data = (const float *)scratch + t * PACK_DEPTH * STRIP, .wide = STRIP, .depth = count,
                                 .wide_step = 1, .k_step = STRIP, .columns = 1};
        char *to = p->split + panel * p->panel_bytes + (t * p->channel_steps + from / STEP) * p->step_bytes;
        p->X->split(p->planes, &s, to, bad);
    }
    fnn_amx_raise(p->bad, bad);
}

/* ---- a chunk ---- */

typedef struct {
    fnn_conv_block b;
    char *a;             /* split input */
    char *c;             /* tiles */
    const float **pixel;
    ptrdiff_t first_panel, end_panel, panel, next_panel;
    ptrdiff_t start; /* the panel it begins with, from the first on: others begin elsewhere, or cores would wait for each other */
    ptrdiff_t from, to;  /* channel steps of the stage */
    _Alignas(64) float bad[16];
} target;

static void split_input(const plan *p, target *t) {
    const fnn_conv_block *b = &t->b;
    const ptrdiff_t first = t->from * STEP;
    if (p->joined) {
        const fnn_amx_pixels run = {t->pixel, b->cols, fnn_min(t->to * STEP, p->depth) - first};
        fnn_amx_outputs(&p->src, p->joined_images, first, &p->joined_h, &p->joined_w, b->col, run.count, t->pixel);
        p->X->split_rows(p->planes, &run, t->a, p->planes * p->plane_bytes, p->plane_bytes, t->bad);
        return;
    }
    const fnn_amx_pixels row = {t->pixel, b->cols + p->cols.most, fnn_min(t->to * STEP, p->depth) - first};
    for (ptrdiff_t image = 0; image < b->images; image++)
        for (ptrdiff_t class = 0; class < p->rows.classes * p->cols.classes; class++)
            for (ptrdiff_t y = 0; y < b->rows + p->rows.most; y++) {
                const ptrdiff_t at = p->rows.base + p->rows.value[class / p->cols.classes];
                fnn_amx_row(&p->src, b->image + image, at + (b->row + y) * p->rows.step, first, &p->cols,
                            class % p->cols.classes, b->col, row.count, t->pixel);
                p->X->split_rows(p->planes, &row, t->a + image * p->image_bytes + (class * p->high + y) * p->wide * ROW,
                                 p->planes * p->plane_bytes, p->plane_bytes, t->bad);
            }
}

/* The pixels of a strip, which begins at position `from` of image `image`, to y. */
static void finish_strip(const plan *p, const phase *f, target *t, ptrdiff_t image, ptrdiff_t from, ptrdiff_t end,
                         ptrdiff_t cols, const float *c) {
    const fnn_epilogue *e = p->epilogue;
    const ptrdiff_t first = t->panel * STRIP, width = fnn_min(STRIP, p->width - first);
    for (ptrdiff_t q = from, next; q < end; q = next) {
        const ptrdiff_t row = q / p->wide, col = q % p->wide;
        next = fnn_min((row + 1) * p->wide, end);
        const ptrdiff_t count = fnn_min(cols - col, end - q);
        if (count <= 0) continue;
        float *y = (float *)f->dst.data + (t->b.image + image) * f->dst.n + (t->b.row + row) * f->dst.h +
                   (t->b.col + col) * f->dst.w + first;
        p->X->store(q - from, count, width, c, y, f->dst.w, t->bad);
        if (e->bias || e->residual || e->activation)
            p->K->gemm_epilogue(count, width, y, f->dst.w, e->bias ? (const float *)e->bias + first : NULL,
                                e->residual ? (const float *)e->residual + (y - (float *)p->dst.data) : NULL, f->dst.w,
                                e->activation);
    }
}

/* One panel's stage of a phase, rows x cols pixels of each image. Meanwhile the weights of the next steps come into the
 * second-level cache. */
static void multiply_panel(const plan *p, const phase *f, target *t, ptrdiff_t rows, ptrdiff_t cols) {
    const ptrdiff_t run = (rows - 1) * p->wide + cols, strips = fnn_ceil_div(run, STRIP), all = strips * t->b.images;
    const int col_tiles = p->width - t->panel * STRIP > FNN_AMX_TILE ? 2 : 1;
    const char *weights = p->split + t->panel * p->panel_bytes;
    const ptrdiff_t share = fnn_round_up(fnn_ceil_div(p->step_bytes, all), 64);
    const ptrdiff_t places = f->h.taps * f->w.taps, begin = t->from * places, finish = t->to * places;
    char *sums = t->c + (p->stages > 1 ? (t->panel - t->first_panel) * p->c_panel : 0);
    for (ptrdiff_t k = begin; k < finish; k += p->block_steps) {
        const ptrdiff_t steps = fnn_min(p->block_steps, finish - k), after = k + steps;
        const char *next = after < finish ? weights + f->b_offset[after]
                                          : p->split + t->next_panel * p->panel_bytes + f->b_offset[begin];
        const int more = after < finish || t->next_panel != t->panel;
        for (ptrdiff_t i = 0; i < all; i++) {
            const ptrdiff_t image = i / strips, from = i % strips * STRIP, end = fnn_min(from + STRIP, run);
            const fnn_amx_operand a = {t->a + image * p->image_bytes + from * ROW, 0, FNN_AMX_TILE_BYTES, p->plane_bytes,
                                       f->a_offset + k};
            const fnn_amx_operand b = {weights, 0, FNN_AMX_TILE_BYTES, FNN_AMX_STRIP_BYTES, f->b_offset + k};
            const fnn_amx_ahead ahead = {.near = next + i * share * steps, .near_step = share};
            float *c = (float *)(sums + i * FNN_AMX_C_BYTES);
            p->X->multiply(p->planes, end - from > FNN_AMX_TILE ? 2 : 1, col_tiles, steps, &a, &b, c, k > 0,
                           more ? &ahead : NULL);
            if (after == f->steps) finish_strip(p, f, t, image, from, end, cols, c);
        }
    }
}

/* Input positions that no kernel position meets: the bias, or zeros. */
static void fill_phase(const plan *p, const phase *f, const fnn_conv_block *b, ptrdiff_t rows, ptrdiff_t cols) {
    for (ptrdiff_t i = 0; i < b->images; i++)
        for (ptrdiff_t row = 0; row < rows; row++)
            p->K->conv_fill(cols, p->width, p->epilogue->bias,
                            f->dst.data + ((b->image + i) * f->dst.n + (b->row + row) * f->dst.h + b->col * f->dst.w) *
                                              FLOAT,
                            f->dst.w, 1);
}

/* A stage of all phases and panels of a chunk. */
static void run_stage(const plan *p, target *t) {
    split_input(p, t);
    for (ptrdiff_t i = 0; i < p->count; i++) {
        const phase *f = &p->phases[i];
        const ptrdiff_t rows = fnn_min(t->b.rows, f->h.out - t->b.row), cols = fnn_min(t->b.cols, f->w.out - t->b.col);
        if (rows <= 0 || cols <= 0) continue;
        if (f->steps == 0 && t->first_panel == 0) fill_phase(p, f, &t->b, rows, cols);
        if (f->steps == 0) continue;
        const ptrdiff_t panels = t->end_panel - t->first_panel;
        for (ptrdiff_t n = 0; n < panels; n++) {
            t->panel = t->first_panel + (t->start + n) % panels;
            t->next_panel = n + 1 < panels ? t->first_panel + (t->start + n + 1) % panels : t->panel;
            multiply_panel(p, f, t, rows, cols);
        }
    }
}

static void run_chunk(void *context, ptrdiff_t chunk, void *scratch) {
    const plan *p = context;
    const ptrdiff_t split = chunk % p->splits, place = chunk / p->splits;
    target t = {.b = {.col = place % p->col_blocks * p->block_cols,
                      .row = place / p->col_blocks % p->row_blocks * p->block_rows,
                      .image = place / p->col_blocks / p->row_blocks * p->block_images},
                .a = scratch,
                .first_panel = fnn_part_begin(p->panels, p->splits, split),
                .end_panel = fnn_part_begin(p->panels, p->splits, split + 1)};
    t.start = place * (t.end_panel - t.first_panel) / (p->image_blocks * p->row_blocks * p->col_blocks);
    t.c = t.a + p->a_bytes;
    t.pixel = (const float **)(t.a + p->a_bytes + p->c_bytes);
    t.b.images = fnn_min(p->block_images, p->images - t.b.image);
    t.b.rows = fnn_min(p->block_rows, p->out_h - t.b.row);
    t.b.cols = fnn_min(p->block_cols, p->out_w - t.b.col);
    p->X->begin();
    for (; t.from < p->channel_steps; t.from = t.to) {
        t.to = fnn_min(t.from + p->stage_steps, p->channel_steps);
        run_stage(p, &t);
    }
    p->X->end();
    fnn_amx_raise(p->bad, t.bad);
    if (p->leader) fnn_conv_follow(p->leader, &p->dst, &t.b);
}

/* ---- what it costs, and whether it suits ---- */

/* Weights are gathered (0.5 ns an element), split, and wait in the third-level cache. Every chunk reads
 * them from there (8 bytes a cycle, 28 a nanosecond), of which half is thought to stay hidden behind products. Results are
 * written while no product runs: 0.2 ns an element. */
static double correlate_cost(const plan *p) {
    const ptrdiff_t high = p->out_h + p->rows.most * p->row_blocks, wide = p->out_w + p->cols.most * p->col_blocks;
    const double read = (double)(p->images * p->rows.classes * p->cols.classes * high * wide * p->splits);
    const double weights = (double)(p->panels * STRIP) * (double)(p->weight.r * p->weight.s * p->channel_steps * STEP);
    const double chunks = (double)(p->image_blocks * p->row_blocks * p->col_blocks);
    const double traffic = chunks * (double)(p->panels * p->panel_bytes) / 28;
    const double elements = read * (double)(p->channel_steps * STEP);
    double results = 0;
    for (ptrdiff_t i = 0; i < p->count; i++)
        results += (double)(p->images * p->phases[i].h.out * p->phases[i].w.out) * (double)p->width;
    return products_ns(p) + traffic / 2 + 0.2 * results + fnn_amx_split_ns(p->planes, elements, elements) +
           (0.75 + 0.22 * p->planes) * weights + 5000;
}

static double cost_of(const fnn_call *call, const fnn_conv_dims *d, fnn_conv_pass pass) {
    plan p;
    if (pass == FNN_CONV_BACKWARD_WEIGHT) return fnn_conv_amx_gradient_cost(d, fnn_amx_planes(call->precision));
    fnn_tensor x = *call->in[0], y = *call->out[0]; /* as results lie: strides decide nothing */
    fnn_set_shape(&x, x.dtype, 4, x.shape);
    fnn_set_shape(&y, y.dtype, 4, y.shape);
    make_plan(&p, call, d, pass, &x, &y);
    return correlate_cost(&p);
}

/* Padding is split like pixels: what reaches far beyond the map is for the direct way. */
enum { MOST_REACH = 4096 };

static int is_possible(const fnn_call *call, const fnn_conv_dims *d) {
    if ((d->r - 1) * d->dilation[0] > MOST_REACH || (d->s - 1) * d->dilation[1] > MOST_REACH) return 0;
    const int strides = d->stride[0] <= FNN_AMX_MOST_STRIDE && d->stride[1] <= FNN_AMX_MOST_STRIDE;
    return fnn_amx() && call->in[0]->dtype == FNN_FLOAT32 && d->groups == 1 && strides && d->r <= FNN_AMX_MOST_PLACES &&
           d->s <= FNN_AMX_MOST_PLACES && d->r * d->s <= FNN_AMX_MOST_PLACES &&
           d->n * d->oh * d->ow * d->h * d->w > 0;
}

/* A multiply-add takes an avx512 core of the reference machine 12.5 ps, lanes without columns counted, unless columns
 * are so few that the direct way puts pixels there; in weights' gradients of single pixels, which wait for memory, 18.5 ps (of 17
 * that this moves, 14 are 1.03 to 1.35 times as fast, the others 0.89 to 0.99). Winograd's cost is in the same units. (Of 28 passes
 * that a demand of a seventh more had left to others, 27 are 1.02 to 2.0 times as fast here on two cores of a Granite Rapids, one
 * 0.7.) */
int fnn_conv_amx_suits(const fnn_call *call, const fnn_conv_dims *d, fnn_conv_pass pass) {
    static const double NS = 0.0125, NS_OF_PIXELS = 0.0185;
    if (!is_possible(call, d)) return 0;
    if (call->algorithm == FNN_CONV_PARTS) return 1;
    const int winograd = fnn_winograd_suits(call, d, pass);
    if (winograd && call->algorithm == FNN_CONV_WINOGRAD) return 0;
    const int turned = pass == FNN_CONV_BACKWARD_INPUT;
    const ptrdiff_t depth = turned ? d->k : d->c, width = turned ? d->c : d->k;
    const double columns = (double)(width < 16 ? width : fnn_round_up(width, 16)) * (double)depth;
    const double places = (double)(d->n * d->oh * d->ow) * (double)(d->r * d->s);
    double other = (pass == FNN_CONV_BACKWARD_WEIGHT && d->r * d->s == 1 ? NS_OF_PIXELS : NS) * places * columns;
    if (winograd)
        other = fnn_winograd_amx_suits(call, d, pass) ? fnn_winograd_amx_cost(d, pass)
                                                      : FNN_WINOGRAD_NS_OF_COST * fnn_winograd_cost(d, pass);
    /* Most small layers need no plan to be refused. */
    const double padded = (double)fnn_round_up(depth, pass == FNN_CONV_BACKWARD_WEIGHT ? FNN_AMX_TILE : STEP) *
                          (double)fnn_round_up(width, FNN_AMX_TILE);
    const double tiles = places * padded / (FNN_AMX_TILE * FNN_AMX_TILE * STEP);
    const double least = fnn_amx_products_ns(fnn_amx_planes(call->precision), tiles);
    return least < other && cost_of(call, d, pass) < other;
}

/* ---- the interface ---- */

static size_t zeros_bytes(const plan *p) { return fnn_whole_lines((size_t)(p->depth * FLOAT)); }
static size_t bias_bytes(const plan *p) { return fnn_whole_lines((size_t)(p->width * FLOAT)); }
static size_t weight_bytes(const plan *p) { return (size_t)(p->panels * p->panel_bytes); }

/* shared: [staged maps][split weights][zeros][bias][tables] */
void fnn_conv_amx_workspace(const fnn_call *call, const fnn_conv_dims *d, fnn_conv_pass pass, fnn_workspace *ws) {
    plan p;
    fnn_staging staging = {.memory = NULL};
    if (pass == FNN_CONV_BACKWARD_WEIGHT) {
        fnn_conv_amx_gradient_workspace(call, d, ws);
        return;
    }
    const fnn_tensor x = fnn_channels_last_of(&staging, call->in[0], 0);
    const fnn_tensor y = fnn_channels_last_of(&staging, call->out[0], 0);
    make_plan(&p, call, d, pass, &x, &y);
    const size_t shared = weight_bytes(&p) + zeros_bytes(&p) + bias_bytes(&p) + p.table_bytes + staging.bytes;
    if (ws->shared < shared) ws->shared = shared;
    if (ws->scratch < p.scratch) ws->scratch = p.scratch;
}

static void run(plan *p, const fnn_conv_dims *d, fnn_conv_pass pass) {
    const ptrdiff_t chunks = p->image_blocks * p->row_blocks * p->col_blocks * p->splits;
    const ptrdiff_t parts = p->panels * fnn_ceil_div(p->depth, PACK_DEPTH);
    fill_tables(p, d, pass, p->slot);
    fnn_parallel_for(p->call, parts, (double)(parts * PACK_DEPTH * STRIP * p->weight.r * p->weight.s), split_weights, p);
    if (!*p->bad) fnn_parallel_for(p->call, chunks, correlate_cost(p), run_chunk, p);
}

int fnn_conv_amx_correlate(const fnn_call *call, const fnn_conv_dims *d, fnn_conv_pass pass,
                           const fnn_epilogue *epilogue) {
    plan p;
    int bad = 0;
    fnn_staging staging = {.memory = call->shared};
    const fnn_tensor x = fnn_channels_last_of(&staging, call->in[0], 1);
    const fnn_tensor y = fnn_channels_last_of(&staging, call->out[0], 0);
    make_plan(&p, call, d, pass, &x, &y);
    p.split = (char *)call->shared + staging.bytes;
    char *zeros = p.split + weight_bytes(&p), *bias = zeros + zeros_bytes(&p);
    p.slot = (ptrdiff_t *)(bias + bias_bytes(&p));
    p.src.zeros = memset(zeros, 0, zeros_bytes(&p));
    fnn_epilogue finish = epilogue ? *epilogue : (fnn_epilogue){0};
    finish.bias = fnn_conv_dense_bias(call, bias);
    p.epilogue = &finish;
    p.bad = &bad;
    const int by_rows = call->follower && p.count == 1 && p.splits == 1 && y.data == call->out[0]->data &&
                        fnn_conv_can_repeat_followers(call);
    if (by_rows) p.leader = call;
    run(&p, d, pass);
    if (bad) return 0;
    fnn_finish(call->out[0], &y);
    if (!by_rows) fnn_follow_all(call, NULL);
    return 1;
}

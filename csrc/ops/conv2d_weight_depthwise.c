/* conv2d_weight_depthwise.c: dweight (channels, c, r, s) of convolutions whose every channel is one of its own, or whose groups have
 * few channels (kernels/conv_depthwise_gradient.h), or one and several outputs, for each of which x's is repeated.
 *
 * x and dy are read where they are, each once, all kernel positions of some channels being summed in registers; positions outside
 * the input are left out. Of groups, blocks that each input meets anew are copied before. Operands that are not channels-last are
 * first copied whole.
 *
 * The order of summation is fixed by shape: output rows (image by image) form `parts` equal ranges, each summed one after another
 * into its own copy of the gradient; the copies are added in order. Within a part, chunks share out the channels. */
#include "conv2d.h"

#include <string.h>

enum {
    PARTS_BYTES = 8 << 20,  /* all parts together */
    PART_PIXELS = 49,       /* at least: whole images of 7 x 7 */
    PANEL_BYTES = 512,      /* of channels: their gradient stays in the first-level cache */
    BAND_BYTES = 128 << 10, /* of rows of x and dy for which a gradient is read and written once: with what they share with others
                             * and what is asked for next they stay in the second-level cache */
    BLOCK_COLUMNS = 28,     /* at a time: lines of pixels a power of two apart share few sets of the first-level cache, and those of
                             * three such rows stay there until all channels of a line were used */
    COPY_BYTES = 24 << 10,  /* of a block of a line of channels, which groups' inputs meet one after another: neighbours, they stay in
                             * the nearer caches, where pixels as far apart as channels are many do not */
    CHUNKS = 16
};

typedef struct {
    fnn_conv_parts sum;
    fnn_image x, dy; /* channels-last */
    fnn_axis h, w;
    ptrdiff_t panel_chunks, band_rows, block_cols;
    int by_image; /* parts are whole images */
    size_t x_at, dy_at, slot_at, shared;
    size_t copy_at, scratch; /* groups: copies of a band's x, and behind it dy */
} gradient;

/* Bands of groups are as many rows as copies of a line of channels may have. */
static void plan_copies(gradient *p) {
    const ptrdiff_t cols = fnn_reach(&p->w, p->block_cols), row = p->h.step * cols + p->block_cols;
    const ptrdiff_t rows = (COPY_BYTES / FNN_LINE - (fnn_reach(&p->h, 1) - p->h.step) * cols) / row;
    p->band_rows = fnn_even_share(p->h.out, fnn_min(rows, p->band_rows));
    p->copy_at = (size_t)(fnn_reach(&p->h, p->band_rows) * cols * FNN_LINE);
    p->scratch = p->copy_at + (size_t)(p->band_rows * p->block_cols * FNN_LINE);
}

static void plan_gradient(const fnn_call *call, const fnn_conv_dims *d, gradient *p) {
    *p = (gradient){.sum = {.call = call, .d = d, .K = fnn_kernels_of(call->in[0]->dtype), .dtype = call->in[0]->dtype,
                            .dw = *call->out[0], .groups = 1, .c = d->c, .k = d->groups * d->k},
                    .x = fnn_image_of(call->in[1]),
                    .dy = fnn_image_of(call->in[0]),
                    .h = {d->h, d->oh, d->stride[0], d->r, -d->padding[0], d->dilation[0], 0},
                    .w = {d->w, d->ow, d->stride[1], d->s, -d->padding[2], d->dilation[1], 0}};
    fnn_conv_parts *s = &p->sum;
    const ptrdiff_t size = (ptrdiff_t)fnn_itemsize(s->dtype), rows = d->n * d->oh;
    s->cols = fnn_min(PANEL_BYTES / size, s->k);
    if (d->c > 1) s->cols = fnn_round_up(s->cols, s->K->lanes);
    s->panels = fnn_ceil_div(s->k, s->cols);
    s->part_size = s->panels * d->r * d->s * d->c * s->cols;
    const ptrdiff_t most = fnn_min(PARTS_BYTES / fnn_max(s->part_size * size, 1), rows * d->ow / PART_PIXELS);
    s->parts = fnn_max(fnn_min(fnn_min(most, rows), CHUNKS), 1);
    p->panel_chunks = fnn_min(s->panels, fnn_ceil_div(CHUNKS, s->parts));
    p->by_image = s->parts <= d->n;
    const ptrdiff_t channels = fnn_ceil_div(s->panels, p->panel_chunks) * s->cols;
    const ptrdiff_t row_bytes = (d->stride[0] * d->w + d->ow) * channels * size;
    p->band_rows = fnn_max(BAND_BYTES / fnn_max(row_bytes, 1), 1);
    p->band_rows = fnn_even_share(d->oh, p->band_rows);
    p->block_cols = fnn_even_share(d->ow, BLOCK_COLUMNS);
    if (d->c > 1) plan_copies(p);
    p->slot_at = fnn_whole_lines((size_t)(s->parts * s->part_size * size));
    p->shared = p->slot_at + fnn_whole_lines((size_t)(d->r * d->s) * sizeof(ptrdiff_t));
    p->x_at = p->shared;
    if (d->c < d->k) p->shared += fnn_whole_lines((size_t)(d->n * d->h * d->w * s->k * size));
    else fnn_conv_plan_copy(s, &p->x, s->k, d->h, d->w, &p->shared);
    p->dy_at = fnn_conv_plan_copy(s, &p->dy, s->k, d->oh, d->ow, &p->shared);
}

/* A row of x whose channels are repeated, as many as there are outputs of each. */
typedef struct {
    const gradient *p;
    fnn_image x;
} repeating;

static void repeat_row(void *context, ptrdiff_t row, void *scratch) {
    (void)scratch;
    const repeating *c = context;
    const fnn_conv_parts *s = &c->p->sum;
    const fnn_conv_dims *d = s->d;
    fnn_conv_repeat(s->K, s->dtype, d->w, d->groups, d->k, fnn_at(c->x.data, row / d->h * c->x.n + row % d->h * c->x.h, s->dtype),
                    c->x.w, c->x.c, fnn_at(c->p->x.data, row * c->p->x.h, s->dtype), c->p->x.w);
}

static void repeat_channels(gradient *p) {
    const fnn_conv_dims *d = p->sum.d;
    const repeating c = {p, p->x};
    p->x = (fnn_image){(char *)p->sum.call->shared + p->x_at, d->h * d->w * p->sum.k, 1, d->w * p->sum.k, p->sum.k};
    fnn_parallel_for(p->sum.call, d->n * d->h, (double)(d->n * d->h * d->w * p->sum.k), repeat_row, (void *)&c);
}

/* ---- a chunk: one part of the pixels, some panels of channels ---- */

typedef struct {
    ptrdiff_t part, panel, panel_end, first, channels; /* of the chunk */
    ptrdiff_t u, end, image, row, rows;                /* output rows: counted through all images, of one */
} band;

static ptrdiff_t part_start(const gradient *p, ptrdiff_t part) {
    const ptrdiff_t n = p->sum.d->n, rows = p->h.out, parts = p->sum.parts;
    return p->by_image ? n * part / parts * rows : n * rows * part / parts;
}

static void place_band(const gradient *p, band *b, ptrdiff_t u) {
    b->u = u, b->image = u / p->h.out, b->row = u % p->h.out;
    b->rows = fnn_min(fnn_min(p->band_rows, b->end - u), p->h.out - b->row);
}

static band first_band(const gradient *p, ptrdiff_t chunk) {
    const fnn_conv_parts *sum = &p->sum;
    const ptrdiff_t share = chunk % p->panel_chunks;
    band b = {.part = chunk / p->panel_chunks, .panel = sum->panels * share / p->panel_chunks,
              .panel_end = sum->panels * (share + 1) / p->panel_chunks};
    b.first = b.panel * sum->cols, b.channels = fnn_min(b.panel_end * sum->cols, sum->k) - b.first;
    b.end = part_start(p, b.part + 1);
    place_band(p, &b, part_start(p, b.part));
    return b;
}

/* What a block of a band's columns, from pixel j on, reads: x from where kernel position (0, 0) of the first pixel is, and dy. */
typedef struct {
    const char *x, *dy;
    ptrdiff_t x_row, x_col, dy_row, dy_col;
} operands;

static operands operands_of(const gradient *p, const band *b, ptrdiff_t first, ptrdiff_t j) {
    const ptrdiff_t top = b->row * p->h.step + p->h.first, left = j * p->w.step + p->w.first;
    return (operands){fnn_at(p->x.data, b->image * p->x.n + top * p->x.h + left * p->x.w + first, p->sum.dtype),
                      fnn_at(p->dy.data, b->image * p->dy.n + b->row * p->dy.h + j * p->dy.w + first, p->sum.dtype),
                      p->x.h, p->x.w, p->dy.h, p->dy.w};
}

/* The same of copies of so many channels, as whole vectors, and neighbouring pixels are neighbours. */
static operands copy_operands(const gradient *p, const band *b, ptrdiff_t first, ptrdiff_t channels, ptrdiff_t j, ptrdiff_t pixels,
                              char *scratch) {
    const fnn_kernels *K = p->sum.K;
    const int dtype = p->sum.dtype;
    const ptrdiff_t top = b->row * p->h.step + p->h.first, left = j * p->w.step + p->w.first;
    const ptrdiff_t lo = fnn_max(-left, 0), hi = fnn_min(fnn_reach(&p->w, pixels), p->w.in - left);
    const ptrdiff_t wide = fnn_round_up(channels, K->lanes), x_row = fnn_reach(&p->w, p->block_cols) * wide;
    const operands o = operands_of(p, b, first, j);
    char *dy = scratch + p->copy_at;
    for (ptrdiff_t i = fnn_max(-top, 0); i < fnn_min(fnn_reach(&p->h, b->rows), p->h.in - top) && lo < hi; i++)
        K->conv_pack(1, hi - lo, channels, fnn_at(o.x, i * o.x_row + lo * o.x_col, dtype), o.x_col, 1,
                     fnn_at(scratch, i * x_row + lo * wide, dtype), NULL, wide);
    for (ptrdiff_t i = 0; i < b->rows; i++)
        K->conv_pack(1, pixels, channels, fnn_at(o.dy, i * o.dy_row, dtype), o.dy_col, 1,
                     fnn_at(dy, i * p->block_cols * wide, dtype), NULL, wide);
    return (operands){scratch, dy, x_row, wide, p->block_cols * wide, wide};
}

/* Adds the gradient of a block of so many columns and channels to dw ([r][s][c][cols]). */
static void add_block(const gradient *p, const band *b, const operands *o, ptrdiff_t channels, ptrdiff_t j, ptrdiff_t pixels,
                      fnn_prefetch ahead[2], const ptrdiff_t asks[2], char *dw) {
    const fnn_conv_parts *sum = &p->sum;
    const ptrdiff_t top = b->row * p->h.step + p->h.first, left = j * p->w.step + p->w.first;
    const fnn_depthwise_gradient plan = {
        .rows = b->rows, .pixels = pixels, .channels = channels, .group = sum->c, .taps_r = p->h.taps, .taps_s = p->w.taps,
        .step = p->w.step, .gap = p->w.gap, .step_r = p->h.step, .gap_r = p->h.gap, .row_from = -top, .row_to = p->h.in - top,
        .col_from = -left, .col_to = p->w.in - left, .x_row = p->h.step * o->x_row, .x_col = o->x_col,
        .x_r = p->h.gap * o->x_row, .dy_row = o->dy_row, .dy_col = o->dy_col, .dw_r = p->w.taps * sum->c * sum->cols,
        .dw_s = sum->c * sum->cols, .dw_in = sum->cols, .ahead = {&ahead[0], &ahead[1]}, .asks = {asks[0], asks[1]}};
    sum->K->conv_depthwise_gradient(&plan, o->x, o->dy, dw);
}

/* Adds a band's gradient of channels first .. first + channels - 1, some columns after others; of groups a line of channels after
 * another. */
static void add_panel(const gradient *p, const band *b, ptrdiff_t first, ptrdiff_t channels, fnn_prefetch ahead[2],
                      const ptrdiff_t asks[2], char *dw, char *scratch) {
    const int groups = p->sum.c > 1;
    const ptrdiff_t wide = groups ? FNN_LINE / (ptrdiff_t)fnn_itemsize(p->sum.dtype) : channels;
    for (ptrdiff_t k = 0; k < channels; k += wide)
        for (ptrdiff_t j = 0; j < p->w.out; j += p->block_cols) {
            const ptrdiff_t n = fnn_min(wide, channels - k), pixels = fnn_min(p->block_cols, p->w.out - j);
            const operands o = groups ? copy_operands(p, b, first + k, n, j, pixels, scratch) : operands_of(p, b, first + k, j);
            add_block(p, b, &o, groups ? fnn_round_up(n, p->sum.K->lanes) : n, j, pixels, ahead, asks, fnn_at(dw, k, p->sum.dtype));
        }
}

/* So many pixels' channels, to be asked for in `times` equal shares. */
static fnn_prefetch share_out(const gradient *p, const fnn_image *t, ptrdiff_t offset, ptrdiff_t pixels, ptrdiff_t channels,
                              ptrdiff_t times, ptrdiff_t *asks) {
    if (pixels == 0) return (fnn_prefetch){0};
    const ptrdiff_t size = (ptrdiff_t)fnn_itemsize(p->sum.dtype), pitch = t->w * size;
    const ptrdiff_t runs = t->w == channels ? 1 : pixels, lines = fnn_ceil_div(pixels / runs * channels * size, FNN_LINE);
    const ptrdiff_t least = fnn_ceil_div(runs * lines, times), pieces = fnn_max(lines / least, 1);
    const ptrdiff_t bytes = fnn_ceil_div(lines, pieces) * FNN_LINE;
    *asks = fnn_ceil_div(runs * pieces, times);
    return fnn_prefetch_rows(fnn_at(t->data, offset, p->sum.dtype), runs, pitch, pieces, bytes, bytes);
}

/* Plans to ask for what a band reads, besides what the one before it did, in `times` shares. */
static void plan_prefetch(const gradient *p, const band *b, ptrdiff_t times, fnn_prefetch ahead[2], ptrdiff_t asks[2]) {
    const ptrdiff_t top = b->row * p->h.step + p->h.first, to = fnn_max(fnn_min(top + fnn_reach(&p->h, b->rows), p->h.in), 0);
    const ptrdiff_t from = fnn_min(fnn_max(b->row ? top + fnn_reach(&p->h, 1) - p->h.step : 0, 0), to);
    if (p->x.h == p->w.in * p->x.w && to > from)
        ahead[0] = share_out(p, &p->x, b->image * p->x.n + from * p->x.h + b->first, (to - from) * p->w.in, b->channels, times,
                             &asks[0]);
    if (p->dy.h == p->w.out * p->dy.w && b->rows)
        ahead[1] = share_out(p, &p->dy, b->image * p->dy.n + b->row * p->dy.h + b->first, b->rows * p->w.out, b->channels, times,
                             &asks[1]);
}

/* How often a band's rows ask for some of it: those that the kernel takes in pairs do once. */
static ptrdiff_t turns_of(const gradient *p, const band *b) {
    const int pairs = p->sum.c == 1 && p->h.step == 1 && p->h.gap == 1 && p->h.taps > 2 && p->w.step == 1 && p->w.gap == 1 && p->w.taps > 2;
    return pairs ? fnn_ceil_div(b->rows, 2) : b->rows;
}

static void sum_chunk(void *context, ptrdiff_t chunk, void *scratch) {
    const gradient *p = context;
    const fnn_conv_parts *sum = &p->sum;
    const ptrdiff_t panel_size = p->h.taps * p->w.taps * sum->c * sum->cols;
    band b = first_band(p, chunk), next;
    char *dw = fnn_at(sum->packed, b.part * sum->part_size + b.panel * panel_size, sum->dtype);
    memset(dw, 0, (size_t)((b.panel_end - b.panel) * panel_size) * fnn_itemsize(sum->dtype));
    for (; b.u < b.end; b = next) {
        const ptrdiff_t times =
            turns_of(p, &b) * fnn_ceil_div(p->w.out, p->block_cols) * fnn_ceil_div(b.channels, sum->K->lanes);
        fnn_prefetch ahead[2] = {{0}, {0}};
        ptrdiff_t asks[2] = {0, 0};
        next = b;
        place_band(p, &next, b.u + b.rows);
        if (next.u < next.end) plan_prefetch(p, &next, times, ahead, asks);
        else if (chunk + 1 < sum->parts * p->panel_chunks) {
            const band other = first_band(p, chunk + 1);
            plan_prefetch(p, &other, times, ahead, asks);
        }
        for (ptrdiff_t i = b.panel; i < b.panel_end; i++) {
            const ptrdiff_t k = i * sum->cols;
            add_panel(p, &b, k, fnn_min(sum->cols, sum->k - k), ahead, asks, fnn_at(dw, (i - b.panel) * panel_size, sum->dtype), scratch);
        }
    }
}

void fnn_conv_depthwise_gradient_workspace(const fnn_call *call, const fnn_conv_dims *d, fnn_workspace *ws) {
    gradient p;
    plan_gradient(call, d, &p);
    ws->shared = p.shared;
    ws->scratch = p.scratch < fnn_conv_combine_scratch(&p.sum) ? fnn_conv_combine_scratch(&p.sum) : p.scratch;
}

void fnn_conv_depthwise_gradient(const fnn_call *call, const fnn_conv_dims *d) {
    gradient p;
    plan_gradient(call, d, &p);
    p.sum.packed = call->shared;
    p.sum.slot = (ptrdiff_t *)((char *)call->shared + p.slot_at);
    if (d->c < d->k) repeat_channels(&p);
    else fnn_conv_make_channels_last(&p.sum, &p.x, p.sum.k, d->h, d->w, p.x_at);
    fnn_conv_make_channels_last(&p.sum, &p.dy, p.sum.k, d->oh, d->ow, p.dy_at);
    fnn_parallel_for(call, p.sum.parts * p.panel_chunks, fnn_conv_cost(d, p.sum.dtype), sum_chunk, &p);
    fnn_conv_combine(&p.sum);
}

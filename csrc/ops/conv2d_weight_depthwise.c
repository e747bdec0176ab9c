/* conv2d_weight_depthwise.c: dweight (channels, 1, r, s) of convolutions whose every channel is one of its own.
 *
 * Nothing is packed: x and dy are read where they are, each once, all kernel positions of some channels being summed in registers;
 * positions outside the input are left out. Operands that are not channels-last are first copied.
 *
 * The order of summation is fixed by shape: output rows (image by image) form `parts` equal ranges, each summed one after another
 * into its own copy of the gradient; the copies are added in order. Within a part, chunks share out the channels. */
#include "conv2d.h"

#include <string.h>

enum {
    PARTS_BYTES = 8 << 20, /* all parts together */
    PART_PIXELS = 128,     /* at least */
    PANEL_BYTES = 256,     /* of channels: whole lines, and their gradient stays in the first-level cache */
    BLOCK_PIXELS = 64,     /* for which a gradient is read and written once, if rows are short ... */
    BLOCK_COLUMNS = 28,    /* ... and so many of long ones: lines of pixels a power of two apart share few sets of the first-level
                            * cache, and those of three such rows stay there until all channels of a line were used */
    CHUNKS = 16
};

typedef struct {
    fnn_conv_parts sum;
    fnn_image x, dy; /* channels-last */
    fnn_axis h, w;
    ptrdiff_t panel_chunks, block_rows;
    size_t x_at, dy_at, slot_at, shared;
} gradient;

static void plan_gradient(const fnn_call *call, const fnn_conv_dims *d, gradient *p) {
    *p = (gradient){.sum = {.call = call, .d = d, .K = fnn_kernels_of(call->in[0]->dtype), .dtype = call->in[0]->dtype,
                            .dw = *call->out[0], .groups = 1, .c = 1, .k = d->groups},
                    .x = fnn_image_of(call->in[1]),
                    .dy = fnn_image_of(call->in[0]),
                    .h = {d->h, d->oh, d->stride[0], d->r, -d->padding[0], d->dilation[0], 0},
                    .w = {d->w, d->ow, d->stride[1], d->s, -d->padding[2], d->dilation[1], 0}};
    fnn_conv_parts *s = &p->sum;
    const ptrdiff_t size = (ptrdiff_t)fnn_itemsize(s->dtype), rows = d->n * d->oh;
    s->cols = fnn_min(PANEL_BYTES / size, s->k);
    s->panels = fnn_ceil_div(s->k, s->cols);
    s->part_size = s->panels * d->r * d->s * s->cols;
    const ptrdiff_t most = fnn_min(PARTS_BYTES / fnn_max(s->part_size * size, 1), rows * d->ow / PART_PIXELS);
    s->parts = fnn_max(fnn_min(fnn_min(most, rows), CHUNKS), 1);
    p->panel_chunks = fnn_min(s->panels, fnn_ceil_div(CHUNKS, s->parts));
    p->block_rows = fnn_max(BLOCK_PIXELS / fnn_max(d->ow, 1), 1);
    p->slot_at = fnn_whole_lines((size_t)(s->parts * s->part_size * size));
    p->shared = p->slot_at + fnn_whole_lines((size_t)(d->r * d->s) * sizeof(ptrdiff_t));
    p->x_at = fnn_conv_plan_copy(s, &p->x, s->k, d->h, d->w, &p->shared);
    p->dy_at = fnn_conv_plan_copy(s, &p->dy, s->k, d->oh, d->ow, &p->shared);
}

/* ---- a chunk: one part of the pixels, some panels of channels ---- */

typedef struct {
    ptrdiff_t image, row, rows, t, t_end; /* output rows of an image that meet the same kernel rows */
} block;

static block block_from(const gradient *p, ptrdiff_t u, ptrdiff_t end) {
    block b = {.image = u / p->h.out, .row = u % p->h.out, .rows = 1};
    const ptrdiff_t most = fnn_min(fnn_min(p->block_rows, end - u), p->h.out - b.row);
    fnn_taps_that_meet(&p->h, b.row, &b.t, &b.t_end);
    for (ptrdiff_t t, t_end; b.rows < most; b.rows++) {
        fnn_taps_that_meet(&p->h, b.row + b.rows, &t, &t_end);
        if (t != b.t || t_end != b.t_end) break;
    }
    return b;
}

/* Adds a block's gradient of `channels` channels to dw ([r][s][cols]), some columns after others. */
static void add_block(const gradient *p, const block *b, ptrdiff_t first, ptrdiff_t channels, fnn_prefetch ahead[2],
                      const ptrdiff_t asks[2], char *dw) {
    const fnn_conv_parts *sum = &p->sum;
    const ptrdiff_t top = b->row * p->h.step + p->h.first + b->t * p->h.gap;
    fnn_depthwise_gradient plan = {
        .rows = b->rows, .channels = channels, .taps_r = b->t_end - b->t, .taps_s = p->w.taps, .step = p->w.step, .gap = p->w.gap,
        .x_row = p->h.step * p->x.h, .x_col = p->x.w, .x_r = p->h.gap * p->x.h, .dy_row = p->dy.h, .dy_col = p->dy.w,
        .dw_r = p->w.taps * sum->cols, .dw_s = sum->cols, .ahead = {&ahead[0], &ahead[1]}, .asks = {asks[0], asks[1]}};
    for (ptrdiff_t j = 0; j < p->w.out; j += plan.pixels) {
        const ptrdiff_t left = j * p->w.step + p->w.first;
        plan.pixels = fnn_min(BLOCK_COLUMNS, p->w.out - j), plan.col_from = -left, plan.col_to = p->w.in - left;
        sum->K->conv_depthwise_gradient(
            &plan, fnn_at(p->x.data, b->image * p->x.n + top * p->x.h + left * p->x.w + first, sum->dtype),
            fnn_at(p->dy.data, b->image * p->dy.n + b->row * p->dy.h + j * p->dy.w + first, sum->dtype),
            fnn_at(dw, b->t * p->w.taps * sum->cols, sum->dtype));
    }
}

/* Plans to ask for what output rows u .. u + rows - 1 read of `channels` channels, besides what those before them did. */
static void plan_prefetch(const gradient *p, ptrdiff_t u, ptrdiff_t rows, ptrdiff_t first, ptrdiff_t channels,
                          fnn_prefetch *x, fnn_prefetch *dy) {
    const ptrdiff_t size = (ptrdiff_t)fnn_itemsize(p->sum.dtype), image = u / p->h.out, row = u % p->h.out;
    const ptrdiff_t top = row * p->h.step + p->h.first, to = fnn_max(fnn_min(top + fnn_reach(&p->h, rows), p->h.in), 0);
    const ptrdiff_t from = fnn_min(fnn_max(row ? top + fnn_reach(&p->h, 1) - p->h.step : 0, 0), to);
    *x = *dy = (fnn_prefetch){0};
    if (rows <= 0) return;
    if (p->x.h == p->w.in * p->x.w)
        *x = fnn_prefetch_of(fnn_at(p->x.data, image * p->x.n + from * p->x.h + first, p->sum.dtype), (to - from) * p->w.in,
                             p->x.w * size, channels * size);
    if (p->dy.h == p->w.out * p->dy.w)
        *dy = fnn_prefetch_of(fnn_at(p->dy.data, image * p->dy.n + row * p->dy.h + first, p->sum.dtype),
                              rows * p->w.out, p->dy.w * size, channels * size);
}

static void sum_chunk(void *context, ptrdiff_t chunk, void *scratch) {
    (void)scratch;
    const gradient *p = context;
    const fnn_conv_parts *sum = &p->sum;
    const ptrdiff_t part = chunk / p->panel_chunks, share = chunk % p->panel_chunks, rows = sum->d->n * sum->d->oh;
    const ptrdiff_t panel = sum->panels * share / p->panel_chunks, panel_end = sum->panels * (share + 1) / p->panel_chunks;
    const ptrdiff_t panel_size = p->h.taps * p->w.taps * sum->cols, end = rows * (part + 1) / sum->parts;
    const ptrdiff_t first = panel * sum->cols, channels = fnn_min(panel_end * sum->cols, sum->k) - first;
    char *dw = fnn_at(sum->packed, part * sum->part_size + panel * panel_size, sum->dtype);
    memset(dw, 0, (size_t)((panel_end - panel) * panel_size) * fnn_itemsize(sum->dtype));
    block b;
    for (ptrdiff_t u = rows * part / sum->parts; u < end; u += b.rows) {
        fnn_prefetch ahead[2];
        b = block_from(p, u, end);
        plan_prefetch(p, u + b.rows, fnn_min(end - u - b.rows, b.rows), first, channels, &ahead[0], &ahead[1]);
        const ptrdiff_t times = b.rows * fnn_ceil_div(p->w.out, BLOCK_COLUMNS) * fnn_ceil_div(channels, sum->K->lanes);
        const ptrdiff_t asks[2] = {ahead[0].left / times + 1, ahead[1].left / times + 1};
        for (ptrdiff_t i = 0; i < panel_end - panel; i++) {
            const ptrdiff_t k = first + i * sum->cols;
            add_block(p, &b, k, fnn_min(sum->cols, sum->k - k), ahead, asks, fnn_at(dw, i * panel_size, sum->dtype));
        }
    }
}

void fnn_conv_depthwise_gradient_workspace(const fnn_call *call, const fnn_conv_dims *d, fnn_workspace *ws) {
    gradient p;
    plan_gradient(call, d, &p);
    ws->shared = p.shared;
    ws->scratch = fnn_conv_combine_scratch(&p.sum);
}

void fnn_conv_depthwise_gradient(const fnn_call *call, const fnn_conv_dims *d) {
    gradient p;
    plan_gradient(call, d, &p);
    p.sum.packed = call->shared;
    p.sum.slot = (ptrdiff_t *)((char *)call->shared + p.slot_at);
    fnn_conv_make_channels_last(&p.sum, &p.x, p.sum.k, d->h, d->w, p.x_at);
    fnn_conv_make_channels_last(&p.sum, &p.dy, p.sum.k, d->oh, d->ow, p.dy_at);
    fnn_parallel_for(call, p.sum.parts * p.panel_chunks, fnn_conv_cost(d, p.sum.dtype), sum_chunk, &p);
    fnn_conv_combine(&p.sum);
}

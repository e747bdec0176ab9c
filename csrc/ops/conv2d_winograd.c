/* conv2d_winograd.c: forward and backward_input of 3x3 convolutions as F(4x4, 3x3): y = A'[(GgG') . (B'dB)]A.
 *
 * The weights are transformed once for all, into 36 matrices U (depth x width). A chunk takes a block of tiles of all
 * channels to V, 36 matrices (tiles x depth), multiplies them with one panel group of U after the other, and takes the
 * products M of each group back to pixels, where bias, residual, activation and the calls that follow meet them in
 * cache. So nothing transformed but U is ever in memory. backward_input is the same with the weights turned round.
 *
 * Kernels of twice their stride, as 4x4 ones of stride 2, are 2x2 ones of stride 1 for each phase of x, F(4x4, 2x2) with 25 such
 * matrices: forward sums over the channels of all phases, backward_input writes one phase after the other, those that read the
 * same windows of dy from one V. The groups of a grouped convolution (`conv_groups`) are 3x3 ones side by side.
 *
 * An infinity or NaN would spread over its tile. It always reaches one of the tile's outputs that it belongs to, so
 * outputs that are all finite are right; otherwise the call is computed directly. */
#include "conv2d_winograd.h"
#include "stage.h"

#include <string.h>

enum {
    OUTPUTS = FNN_WINOGRAD_OUTPUTS,
    PIXELS = FNN_WINOGRAD_PIXELS,
    PANEL = FNN_WINOGRAD_PANEL,
    PLACES = FNN_WINOGRAD_PLACES,
    FLOAT = 4,
    MOST_TILES = 64,
    LEAST_TILES = 32,
    V_BYTES = 384 << 10,  /* of a block of tiles, unless that is fewer than LEAST_TILES */
    GROUP = 2,            /* panels multiplied before their products are taken back */
    PACK_DEPTH = 64,      /* channels whose weights are transformed together */
    CHUNKS = 16,
    LEAST_CHANNELS = 16,  /* with fewer, transforms outweigh products */
    LEAST_TILES_OF_GRADIENT = 8, /* a direct sum over fewer pixels errs so little that this way errs six times as much */
    LEAST_WIDTH = 128     /* of a chunk where the width is split: each split transforms the input anew */
};

/* ---- phases ---- */

static int has_phases(const fnn_conv_dims *d, fnn_conv_pass pass) {
    const ptrdiff_t kernel[2] = {d->r, d->s};
    for (int axis = 0; axis < 2; axis++) {
        const ptrdiff_t stride = d->stride[axis], least = pass == FNN_CONV_BACKWARD_INPUT ? stride + 1 : 2 * stride;
        if (stride > FNN_WINOGRAD_STRIDE || kernel[axis] < least || kernel[axis] > 2 * stride) return 0;
    }
    return 1;
}

fnn_winograd_form fnn_winograd_form_of(const fnn_conv_dims *d, fnn_conv_pass pass) {
    fnn_winograd_form f = {.kernel = {d->r, d->s},
                           .stride = {d->stride[0], d->stride[1]},
                           .padding = {d->padding[0], d->padding[2]}};
    if (d->dilation[0] > 1 || d->dilation[1] > 1 || (d->groups > 1 && fnn_min(d->c, d->k) < LEAST_CHANNELS)) return f;
    f.taps = has_phases(d, pass) ? 2 : d->r == 3 && d->s == 3 && d->stride[0] == 1 && d->stride[1] == 1 ? 3 : 0;
    if (d->groups > 1 && f.taps == 2) f.taps = 0; /* those of groups are apart already */
    f.patch = OUTPUTS + f.taps - 1;
    f.planes = f.patch * f.patch;
    f.phases = f.stride[0] * f.stride[1];
    f.left = f.taps == 2 ? (2 * f.stride[0] - d->r) * (2 * f.stride[1] - d->s) : 0;
    return f;
}

static ptrdiff_t phase_axis(const fnn_winograd_form *f, int axis, ptrdiff_t phase) {
    return axis ? phase % f->stride[1] : phase / f->stride[1];
}

/* Whether the phase has a single tap. */
static int is_left(const fnn_winograd_form *f, ptrdiff_t phase) {
    const ptrdiff_t row = phase_axis(f, 0, phase), col = phase_axis(f, 1, phase);
    return f->left && row + f->stride[0] >= f->kernel[0] && col + f->stride[1] >= f->kernel[1];
}

/* The first row of x's phase that kernel row `tap` meets. */
static ptrdiff_t meets(const fnn_winograd_form *f, int axis, ptrdiff_t tap) {
    const ptrdiff_t stride = f->stride[axis];
    return tap / stride - fnn_ceil_div(f->padding[axis] - tap % stride, stride);
}

ptrdiff_t fnn_phase_first(const fnn_winograd_form *f, int axis, ptrdiff_t phase) {
    return meets(f, axis, phase_axis(f, axis, phase));
}

/* backward_input: phases that read the same windows of dy, which begin at one of two rows, and of two columns. A phase of one tap
 * goes with either. */
static ptrdiff_t groups_of(const fnn_winograd_form *f, int axis) {
    const ptrdiff_t last = f->kernel[axis] - f->stride[axis] - 1; /* of two taps */
    return f->taps == 2 ? 1 + meets(f, axis, last) - meets(f, axis, 0) : 1;
}

static ptrdiff_t group_of(const fnn_winograd_form *f, int axis, ptrdiff_t tap) {
    return groups_of(f, axis) == 1 ? 0 : meets(f, axis, tap % f->stride[axis]) - meets(f, axis, 0);
}

fnn_tile_source fnn_phase_of(const fnn_winograd_form *f, const fnn_tile_source *x, ptrdiff_t phase) {
    fnn_tile_source p = *x;
    ptrdiff_t at[2];
    for (int axis = 0; axis < 2; axis++)
        at[axis] = phase_axis(f, axis, phase) - f->padding[axis] - f->stride[axis] * fnn_phase_first(f, axis, phase);
    p.image.data += (at[0] * x->image.h + at[1] * x->image.w) * FLOAT;
    p.image.h *= f->stride[0], p.image.w *= f->stride[1];
    p.h = fnn_ceil_div(x->h - at[0], f->stride[0]), p.w = fnn_ceil_div(x->w - at[1], f->stride[1]);
    return p;
}

ptrdiff_t fnn_phase_place(const fnn_winograd_form *f, ptrdiff_t r, ptrdiff_t s, int turned) {
    const ptrdiff_t phase = r % f->stride[0] * f->stride[1] + s % f->stride[1], taps = f->taps, tap[2] = {r, s};
    ptrdiff_t place[2];
    for (int axis = 0; axis < 2; axis++) {
        const ptrdiff_t first = meets(f, axis, 0) + group_of(f, axis, tap[axis]);
        place[axis] = turned ? taps - 1 - (meets(f, axis, tap[axis]) - first) : tap[axis] / f->stride[axis];
    }
    return (phase * taps + place[0]) * taps + place[1];
}

/* ---- tiles ---- */

/* Whole rows of tiles if possible, whole images if small. */
fnn_tiling fnn_tiling_of(ptrdiff_t images, ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t most) {
    fnn_tiling t = {.images = images, .rows = rows, .cols = cols};
    t.block_cols = fnn_even_share(t.cols, most);
    t.block_rows = t.block_cols < t.cols ? 1 : fnn_even_share(t.rows, most / t.cols);
    t.block_images = t.block_rows < t.rows || t.block_cols < t.cols ? 1 : fnn_even_share(images, most / (t.rows * t.cols));
    t.image_blocks = fnn_ceil_div(images, t.block_images);
    t.row_blocks = fnn_ceil_div(t.rows, t.block_rows);
    t.col_blocks = fnn_ceil_div(t.cols, t.block_cols);
    t.size = t.block_images * t.block_rows * t.block_cols;
    t.blocks = t.image_blocks * t.row_blocks * t.col_blocks;
    return t;
}

fnn_tile_block fnn_tile_block_of(const fnn_tiling *t, ptrdiff_t block) {
    fnn_tile_block b = {.col = block % t->col_blocks * t->block_cols,
                        .row = block / t->col_blocks % t->row_blocks * t->block_rows,
                        .image = block / t->col_blocks / t->row_blocks * t->block_images};
    b.cols = fnn_min(t->block_cols, t->cols - b.col);
    b.rows = fnn_min(t->block_rows, t->rows - b.row);
    b.images = fnn_min(t->block_images, t->images - b.image);
    b.tiles = b.images * b.rows * b.cols;
    return b;
}

void fnn_tile_pixels(const fnn_tile_source *s, ptrdiff_t image, ptrdiff_t row, ptrdiff_t col, int size,
                     ptrdiff_t channel, const void **pixel) {
    const float *at = (const float *)s->image.data + image * s->image.n + row * s->image.h + col * s->image.w + channel;
    for (int i = 0; i < size; i++, at += s->image.h)
        for (int j = 0; j < size; j++) {
            const int inside = row + i >= 0 && row + i < s->h && col + j >= 0 && col + j < s->w;
            pixel[i * size + j] = inside ? (const void *)(at + j * s->image.w) : s->zeros;
        }
}

fnn_ahead fnn_ahead_of(const fnn_tile_source *s, const fnn_tiling *t, const fnn_tile_block *b, ptrdiff_t row,
                       ptrdiff_t row_end, ptrdiff_t first, ptrdiff_t channels, ptrdiff_t calls) {
    const fnn_image *map = &s->image;
    if (b->cols < t->cols || (b->images > 1 && map->n != s->h * map->h)) return (fnn_ahead){0};
    row = fnn_min(fnn_max(row, 0), s->h);
    row_end = fnn_min(fnn_max(row_end, row), s->h);
    const float *at = (const float *)map->data + b->image * map->n + row * map->h + first;
    const ptrdiff_t rows = (b->images - 1) * s->h + row_end - row, step = map->w * FLOAT, bytes = channels * FLOAT;
    const fnn_prefetch lines = map->h == s->w * map->w ? fnn_prefetch_of(at, rows * s->w, step, bytes)
                                                       : fnn_prefetch_rows(at, rows, map->h * FLOAT, s->w, step, bytes);
    return (fnn_ahead){lines, fnn_ceil_div(lines.left, calls)};
}

/* ---- the plan ---- */

typedef struct {
    const fnn_call *call;
    const fnn_kernels *K;
    fnn_winograd_form form;
    ptrdiff_t conv_groups;   /* of channels, which are convolved by themselves */
    ptrdiff_t depth, width;  /* channels of one, read, written */
    ptrdiff_t first;         /* of the channels written, in a chunk */
    ptrdiff_t reads;         /* phases, side by side; backward_input: 1 */
    ptrdiff_t groups;        /* of the phases written; forward: 1 */
    fnn_tile_source src, dst;
    fnn_tensor weight;
    ptrdiff_t r, s;
    int turned; /* backward_input: weights turned round, their two channel axes exchanged */
    const fnn_epilogue *epilogue;
    fnn_tiling tiling;
    ptrdiff_t panels, splits;
    ptrdiff_t at_once; /* panels that one call of the register tile takes */
    ptrdiff_t pitch, v_plane, m_pitch, m_plane, u_plane, u_panel, u_phase, u_group, g_plane; /* in elements */
    size_t u_bytes, v_bytes, scratch;
    char *u;
    const fnn_call *leader; /* whose followers take finished rows; NULL: they run later */
    int *bad;
} plan;

static void plan_blocks(plan *p, ptrdiff_t images) {
    const ptrdiff_t tile_bytes = p->form.planes * p->reads * p->depth * FLOAT;
    const ptrdiff_t most = fnn_min(fnn_max(V_BYTES / tile_bytes, LEAST_TILES), MOST_TILES);
    const ptrdiff_t apart_h = p->turned ? p->form.stride[0] : 1, apart_w = p->turned ? p->form.stride[1] : 1;
    p->tiling = fnn_tiling_of(images, fnn_ceil_div(fnn_ceil_div(p->dst.h, apart_h), OUTPUTS),
                              fnn_ceil_div(fnn_ceil_div(p->dst.w, apart_w), OUTPUTS), most);
    const ptrdiff_t chunks = p->conv_groups * p->groups * p->tiling.blocks;
    for (p->splits = 1; chunks * p->splits < CHUNKS && p->width / (2 * p->splits) >= LEAST_WIDTH;) p->splits *= 2;
}

/* What the weights of all phases take while they are transformed: [phase][row][col][channels]. */
static size_t packing_bytes(const plan *p) { return (size_t)(p->form.phases * p->form.taps * p->form.taps * p->g_plane * FLOAT); }

static void make_plan(plan *p, const fnn_call *call, const fnn_conv_dims *d, fnn_conv_pass pass) {
    const int turned = pass == FNN_CONV_BACKWARD_INPUT;
    const fnn_tile_source x = {.h = d->h, .w = d->w}, y = {.h = d->oh, .w = d->ow};
    *p = (plan){.call = call,
                .K = fnn_kernels_of(FNN_FLOAT32),
                .form = fnn_winograd_form_of(d, pass),
                .conv_groups = d->groups,
                .depth = turned ? d->k : d->c,
                .width = turned ? d->c : d->k,
                .src = turned ? y : x,
                .dst = turned ? x : y,
                .weight = *call->in[1],
                .r = d->r,
                .s = d->s,
                .turned = turned};
    p->reads = turned ? 1 : p->form.phases;
    p->groups = turned ? groups_of(&p->form, 0) * groups_of(&p->form, 1) : 1;
    plan_blocks(p, d->n);
    const ptrdiff_t depth = p->reads * p->depth, planes = p->form.planes;
    p->panels = fnn_ceil_div(p->width, PANEL);
    p->at_once = fnn_winograd_panels_at_once(p->K);
    const ptrdiff_t room = fnn_round_up(depth - p->depth + fnn_round_up(p->depth, 16), 16); /* a phase's last vector is whole */
    p->pitch = room % 256 ? room : fnn_odd_lines(room);
    p->v_plane = fnn_odd_lines(p->tiling.size * p->pitch);
    p->m_pitch = fnn_min(GROUP, p->panels) * PANEL;
    p->m_plane = fnn_odd_lines(p->tiling.size * p->m_pitch);
    p->u_plane = fnn_odd_lines(depth * PANEL);
    p->u_panel = planes * p->u_plane;
    p->u_phase = turned ? p->panels * p->u_panel : p->depth * PANEL;
    p->g_plane = fnn_odd_lines(PACK_DEPTH * PANEL);
    p->u_group = (turned ? p->form.phases : 1) * p->panels * p->u_panel;
    p->u_bytes = (size_t)(p->conv_groups * p->u_group * FLOAT);
    p->v_bytes = (size_t)(planes * p->v_plane * FLOAT);
    p->scratch = p->v_bytes + (size_t)(planes * p->m_plane * FLOAT);
    const size_t packing = packing_bytes(p);
    if (p->scratch < packing) p->scratch = packing;
}

/* ---- weights ---- */

/* `cols` columns (channels written) from `first` on, `count` rows (channels read) from `from` on, as
 * [place][row][col]. */
static void gather_weights(const plan *p, ptrdiff_t first, ptrdiff_t cols, ptrdiff_t from, ptrdiff_t count, float *g) {
    const ptrdiff_t *stride = p->weight.stride, places = p->r * p->s;
    const ptrdiff_t width_stride = stride[p->turned ? 1 : 0], depth_stride = stride[p->turned ? 0 : 1];
    const float *data = (const float *)p->weight.data + first * width_stride + from * depth_stride;
    ptrdiff_t slot[PLACES];
    for (ptrdiff_t t = 0; t < places; t++) slot[t] = fnn_phase_place(&p->form, t / p->s, t % p->s, p->turned) * p->g_plane;
    const int dense = stride[3] == 1 && stride[2] == p->s;
    if (dense && depth_stride == places)
        p->K->conv_pack(places, count, cols, data, 1, width_stride, g, slot, PANEL);
    else if (dense)
        for (ptrdiff_t i = 0; i < count; i++)
            p->K->conv_pack(places, 1, cols, data + i * depth_stride, 1, width_stride, g + i * PANEL, slot, 0);
    else
        for (ptrdiff_t t = 0; t < places; t++)
            p->K->conv_pack(1, count, cols, data + t / p->s * stride[2] + t % p->s * stride[3], depth_stride, width_stride,
                            g + slot[t], NULL, PANEL);
}

/* The convolution of one group of channels. */
static plan group_plan(const plan *all, ptrdiff_t group) {
    plan p = *all;
    p.src.image.data += group * p.depth * FLOAT, p.dst.image.data += group * p.width * FLOAT;
    p.weight.data = (float *)p.weight.data + group * (p.turned ? p.depth : p.width) * p.weight.stride[0];
    p.u += group * p.u_group * FLOAT;
    p.first = group * p.width;
    return p;
}

static ptrdiff_t packs_of(const plan *p) { return fnn_ceil_div(p->depth, PACK_DEPTH); }

static void transform_weights(void *context, ptrdiff_t chunk, void *scratch) {
    const plan *all = context;
    const ptrdiff_t packs = packs_of(all), panel = chunk / packs % all->panels;
    const plan own = group_plan(all, chunk / packs / all->panels), *p = &own;
    const ptrdiff_t from = chunk % packs * PACK_DEPTH, count = fnn_min(PACK_DEPTH, p->depth - from);
    const ptrdiff_t cols = fnn_min(PANEL, p->width - panel * PANEL), taps = p->form.taps;
    const int full = cols == PANEL && p->r * p->s == p->form.phases * taps * taps; /* a single row or column has zeros beside it */
    for (ptrdiff_t place = 0; place < p->form.phases * taps * taps && !full; place++)
        memset((float *)scratch + place * p->g_plane, 0, (size_t)(count * PANEL * FLOAT));
    gather_weights(p, panel * PANEL, cols, from, count, scratch);
    for (ptrdiff_t phase = 0; phase < p->form.phases; phase++)
        if (!is_left(&p->form, phase))
            p->K->winograd_weight(p->form.taps, count * PANEL, (float *)scratch + phase * taps * taps * p->g_plane, p->g_plane,
                                  (float *)p->u + phase * p->u_phase + panel * p->u_panel + from * PANEL, p->u_plane);
}

/* ---- a chunk ---- */

/* The first row (column) of dy that the first tile of a group of phases reads. */
static ptrdiff_t first_turned(const plan *p, int axis, ptrdiff_t group) {
    const ptrdiff_t wide = groups_of(&p->form, 1), which = axis ? group % wide : group / wide;
    return 1 - p->form.taps - meets(&p->form, axis, 0) - which;
}

/* Of what a group of phases reads; forward, of all phases, side by side. */
static void transform_tiles(const plan *p, const fnn_tile_block *b, ptrdiff_t group, float *v) {
    const void *pixel[PIXELS];
    for (ptrdiff_t i = 0; i < p->reads; i++, v += p->depth) {
        const fnn_tile_source src = p->turned ? p->src : fnn_phase_of(&p->form, &p->src, i);
        const ptrdiff_t first_row = p->turned ? first_turned(p, 0, group) : fnn_phase_first(&p->form, 0, i);
        const ptrdiff_t first_col = p->turned ? first_turned(p, 1, group) : fnn_phase_first(&p->form, 1, i);
        for (ptrdiff_t t = 0, image, row, col; t < b->tiles; t++) {
            fnn_tile_at(b, t, &image, &row, &col);
            fnn_tile_pixels(&src, image, row * OUTPUTS + first_row, col * OUTPUTS + first_col, p->form.patch, 0, pixel);
            p->K->winograd_input(p->form.taps, p->depth, pixel, v + t * p->pitch, p->v_plane);
        }
    }
}

static ptrdiff_t chunks_of(const plan *p) { return p->tiling.blocks * p->splits * p->groups; }

/* M of panels first .. end - 1; u: of the panel 0. */
static void multiply(const plan *p, ptrdiff_t tiles, ptrdiff_t first, ptrdiff_t end, const float *u, const float *v, float *m,
                     fnn_ahead *next, fnn_ahead *result) {
    for (ptrdiff_t plane = 0; plane < p->form.planes; plane++)
        for (ptrdiff_t panel = first, count; panel < end; panel += count) {
            for (count = 0; count < fnn_min(p->at_once, end - panel); count++) {
                fnn_ask_ahead(next);
                fnn_ask_ahead(result);
            }
            p->K->gemm_panels(tiles, fnn_min(count * PANEL, p->width - panel * PANEL), 1, p->reads * p->depth,
                              v + plane * p->v_plane, NULL, p->pitch, 1, u + panel * p->u_panel + plane * p->u_plane, NULL, PANEL,
                              p->at_once > 1 ? p->u_panel : p->K->tile_cols, m + plane * p->m_plane + (panel - first) * PANEL,
                              p->m_pitch, 0, NULL);
        }
}

/* What the next chunk reads, which the same worker takes. */
static fnn_ahead ahead_of_next(const plan *p, ptrdiff_t chunk, ptrdiff_t calls) {
    if (chunk + 1 >= chunks_of(p)) return (fnn_ahead){0};
    const fnn_tile_block b = fnn_tile_block_of(&p->tiling, (chunk + 1) % p->tiling.blocks);
    const ptrdiff_t step = p->turned ? 1 : p->form.stride[0], first = p->turned ? first_turned(p, 0, 0) : -p->form.padding[0];
    const ptrdiff_t row = b.row * OUTPUTS * step + first, row_end = row + (b.rows * OUTPUTS + p->form.taps - 1) * step;
    return fnn_ahead_of(&p->src, &p->tiling, &b, row, row_end, 0, p->depth, calls);
}

/* Channels from `first` on of the block's pixels. */
static void finish_tiles(const plan *p, const fnn_tile_source *dst, const fnn_tile_block *b, ptrdiff_t first, ptrdiff_t channels,
                         const float *m, int *bad) {
    const fnn_epilogue *e = p->epilogue;
    const fnn_image *y = &dst->image;
    for (ptrdiff_t t = 0, image, row, col; t < b->tiles; t++) {
        fnn_tile_at(b, t, &image, &row, &col);
        const ptrdiff_t at = image * y->n + row * OUTPUTS * y->h + col * OUTPUTS * y->w + first;
        p->K->winograd_output(p->form.taps, channels, m + t * p->m_pitch, p->m_plane, fnn_min(OUTPUTS, dst->h - row * OUTPUTS),
                              fnn_min(OUTPUTS, dst->w - col * OUTPUTS), (float *)y->data + at, y->h, y->w,
                              e->bias ? (const float *)e->bias + p->first + first : NULL,
                              e->residual ? (const float *)e->residual + p->first + at : NULL, e->activation, bad);
    }
}

/* Calls behind this one take the rows of a block that has all their channels. */
static void follow_rows(const plan *p, const fnn_tile_block *b) {
    const fnn_image *y = &p->dst.image;
    const ptrdiff_t row_end = fnn_min((b->row + b->rows) * OUTPUTS, p->dst.h), col = b->col * OUTPUTS;
    const ptrdiff_t cols = fnn_min((b->col + b->cols) * OUTPUTS, p->dst.w) - col;
    for (ptrdiff_t i = b->image; i < b->image + b->images; i++)
        for (ptrdiff_t row = b->row * OUTPUTS; row < row_end; row++)
            fnn_follow(p->leader, i * y->n + row * y->h + col * y->w, cols * y->w);
}

/* Panels from .. end - 1 of a phase (forward: of y) from V. */
static void write_phase(const plan *p, const fnn_tile_block *b, ptrdiff_t phase, ptrdiff_t from, ptrdiff_t end, const float *v,
                        float *m, fnn_ahead *next, int *bad) {
    const fnn_tile_source dst = p->turned ? fnn_phase_of(&p->form, &p->dst, phase) : p->dst;
    const float *u = (const float *)p->u + phase * p->u_phase;
    for (ptrdiff_t panel = from, stop; panel < end; panel = stop) {
        stop = fnn_min(panel + GROUP, end);
        const ptrdiff_t first = panel * PANEL, channels = fnn_min(stop * PANEL, p->width) - first;
        fnn_ahead result = fnn_ahead_of(&dst, &p->tiling, b, b->row * OUTPUTS, (b->row + b->rows) * OUTPUTS, first,
                                        channels, p->form.planes * (stop - panel));
        multiply(p, b->tiles, panel, stop, u, v, m, next, &result);
        finish_tiles(p, &dst, b, first, channels, m, bad);
    }
}

/* Neighbouring chunks share their part of U. */
static void run_chunk(void *context, ptrdiff_t index, void *scratch) {
    const plan *all = context, own = group_plan(all, index / chunks_of(all)), *p = &own;
    const ptrdiff_t chunk = index % chunks_of(all);
    const fnn_winograd_form *f = &p->form;
    const fnn_tile_block b = fnn_tile_block_of(&p->tiling, chunk % p->tiling.blocks);
    const ptrdiff_t part = chunk / p->tiling.blocks, split = part % p->splits, group = part / p->splits;
    const ptrdiff_t from = fnn_part_begin(p->panels, p->splits, split), end = fnn_part_begin(p->panels, p->splits, split + 1);
    float *v = scratch, *m = (float *)((char *)scratch + p->v_bytes);
    int bad = 0;
    fnn_ahead next = ahead_of_next(p, chunk, f->planes * (end - from));
    transform_tiles(p, &b, group, v);
    for (ptrdiff_t phase = 0; phase < (p->turned ? f->phases : 1); phase++) {
        const ptrdiff_t row = phase_axis(f, 0, phase), col = phase_axis(f, 1, phase);
        if (!is_left(f, phase) && (!p->turned || group_of(f, 0, row) * groups_of(f, 1) + group_of(f, 1, col) == group))
            write_phase(p, &b, phase, from, end, v, m, &next, &bad);
    }
    if (bad) __atomic_store_n(p->bad, 1, __ATOMIC_RELAXED);
    else if (p->leader) follow_rows(p, &b);
}

/* ---- what it costs, and whether it suits ---- */

static int is_possible(const fnn_call *call, const fnn_conv_dims *d, fnn_conv_pass pass) {
    const fnn_winograd_form f = fnn_winograd_form_of(d, pass);
    if (f.left && d->c <= LEAST_CHANNELS) return 0; /* these may be sums of windows, which know no phases */
    return call->in[0]->dtype == FNN_FLOAT32 && f.taps > 0 && d->n * d->oh * d->ow * d->h * d->w > 0;
}

/* Of a group, in multiply-adds, a lane's worth of them at a time: the products; the transforms of a tile's channels; those of the
 * weights, whose results go to memory (weight gradients: whose sums come from cache). Measured on one Zen 4 core, both
 * ways forced by set_conv_algorithm, on some of the layers of vgg16 and resnet18 and on maps of 2 to 14 pixels; of phases, whose
 * pixels are apart, on one Zen 3 core, 4x4 kernels on maps of 4 to 64 pixels; of groups, whose channels of a pixel are few but run on
 * in those of the next, on two cores of a Granite Rapids, AVX-512 and AVX2, 16 to 64 channels a group on maps of 7 to 56; the gradient of
 * their weights with small tiles, whose other way is faster there, on a Zen 3, AVX2, 16 and 32 channels. */
static double work_of(const fnn_conv_dims *d, fnn_conv_pass pass) {
    const fnn_winograd_form f = fnn_winograd_form_of(d, pass);
    const int turned = pass == FNN_CONV_BACKWARD_INPUT;
    const ptrdiff_t lanes = fnn_kernels_of(FNN_FLOAT32)->lanes;
    const ptrdiff_t rows = fnn_ceil_div(turned ? fnn_ceil_div(d->h, f.stride[0]) : d->oh, OUTPUTS);
    const ptrdiff_t cols = fnn_ceil_div(turned ? fnn_ceil_div(d->w, f.stride[1]) : d->ow, OUTPUTS);
    const double tiles = (double)(d->n * rows * cols), planes = (double)f.planes, phases = (double)(f.phases - f.left);
    const ptrdiff_t granule = d->groups > 1 ? 1 : lanes; /* of a transform */
    const double c = phases * (double)fnn_round_up(d->c, turned ? lanes : granule);
    const double k = (double)fnn_round_up(d->k, turned ? granule : lanes);
    const double again = turned ? (double)(groups_of(&f, 0) * groups_of(&f, 1)) : pass == FNN_CONV_FORWARD ? 1 : phases;
    const double transforms = phases * (double)fnn_round_up(d->c, granule) + again * (double)fnn_round_up(d->k, granule);
    const double left = (double)(f.left * d->n * rows * cols * OUTPUTS * OUTPUTS) * c / phases * k;
    const int gradient = pass == FNN_CONV_BACKWARD_WEIGHT;
    const double of_groups = gradient && !fnn_small_tile(fnn_kernels_of(FNN_FLOAT32)) ? 12 : 21;
    const double weights = gradient ? 0.6 : 1.7, apart = d->groups > 1 ? of_groups : gradient ? 11 : 14;
    const double transform = f.taps == 3 && d->groups == 1 ? 5.3 : apart;
    return planes * (tiles * c * k + transform * tiles * transforms + weights * (double)lanes * c * k) + left;
}

double fnn_winograd_cost(const fnn_conv_dims *d, fnn_conv_pass pass) {
    if (!fnn_winograd_form_of(d, pass).taps) return fnn_winograd5_cost(d, pass);
    return 0.02 * (double)d->groups * work_of(d, pass);
}

int fnn_winograd_suits(const fnn_call *call, const fnn_conv_dims *d, fnn_conv_pass pass) {
    if (fnn_winograd5_suits(call, d, pass)) return 1;
    if (call->algorithm == FNN_CONV_DIRECT || call->algorithm == FNN_CONV_PARTS || !is_possible(call, d, pass)) return 0;
    if (call->algorithm == FNN_CONV_WINOGRAD) return 1;
    const ptrdiff_t tiles = d->n * fnn_ceil_div(d->oh, OUTPUTS) * fnn_ceil_div(d->ow, OUTPUTS);
    if (pass == FNN_CONV_BACKWARD_WEIGHT && tiles < LEAST_TILES_OF_GRADIENT) return 0;
    const int turned = pass == FNN_CONV_BACKWARD_INPUT;
    const ptrdiff_t depth = turned ? d->k : d->c, width = turned ? d->c : d->k; /* lanes are along the width */
    const double each = (double)(depth * fnn_round_up(width, fnn_kernels_of(FNN_FLOAT32)->lanes) * d->r * d->s);
    const double direct = (double)(d->n * d->oh * d->ow) * each;
    return d->c >= LEAST_CHANNELS && d->k >= LEAST_CHANNELS && 1.1 * work_of(d, pass) < direct;
}

/* ---- the interface ---- */

static size_t zeros_bytes(const plan *p) { return fnn_whole_lines((size_t)(p->depth * FLOAT)); }
static size_t bias_bytes(const plan *p) { return fnn_whole_lines((size_t)(p->conv_groups * p->width * FLOAT)); }

/* shared: [U][zeros][bias][staged maps] */
void fnn_winograd_workspace(const fnn_call *call, const fnn_conv_dims *d, fnn_conv_pass pass, fnn_workspace *ws) {
    plan p;
    fnn_staging staging = {.memory = NULL};
    if (!fnn_winograd_suits(call, d, pass)) return;
    if (fnn_winograd5_suits(call, d, pass)) {
        fnn_winograd5_workspace(call, d, pass, ws);
        return;
    }
    if (fnn_winograd_amx_suits(call, d, pass)) {
        fnn_winograd_amx_workspace(call, d, pass, ws);
        return;
    }
    if (pass == FNN_CONV_BACKWARD_WEIGHT) {
        fnn_winograd_gradient_workspace(call, d, ws);
        return;
    }
    make_plan(&p, call, d, pass);
    fnn_channels_last_of(&staging, call->in[0], 1);
    fnn_channels_last_of(&staging, call->out[0], 0);
    fnn_enlarge(ws, p.u_bytes + zeros_bytes(&p) + bias_bytes(&p) + staging.bytes, p.scratch);
}

int fnn_winograd_correlate(const fnn_call *call, const fnn_conv_dims *d, fnn_conv_pass pass,
                           const fnn_epilogue *epilogue) {
    plan p;
    int bad = 0;
    if (!fnn_winograd_suits(call, d, pass)) return 0;
    if (fnn_winograd5_suits(call, d, pass)) return fnn_winograd5_correlate(call, d, pass, epilogue);
    if (fnn_winograd_amx_suits(call, d, pass)) return fnn_winograd_amx_correlate(call, d, pass, epilogue);
    make_plan(&p, call, d, pass);
    p.u = call->shared;
    char *zeros = p.u + p.u_bytes, *bias = zeros + zeros_bytes(&p);
    p.src.zeros = memset(zeros, 0, zeros_bytes(&p));
    fnn_epilogue finish = epilogue ? *epilogue : (fnn_epilogue){0};
    finish.bias = fnn_conv_dense_bias(call, bias);
    p.epilogue = &finish;
    p.bad = &bad;
    fnn_staging staging = {.memory = bias + bias_bytes(&p)};
    const fnn_tensor x = fnn_channels_last_of(&staging, call->in[0], 1);
    const fnn_tensor y = fnn_channels_last_of(&staging, call->out[0], 0);
    p.src.image = fnn_image_of(&x);
    p.dst.image = fnn_image_of(&y);
    const int by_rows = call->follower && p.form.phases == 1 && p.conv_groups == 1 && p.splits == 1 && y.data == call->out[0]->data &&
                        fnn_conv_can_repeat_followers(call);
    if (by_rows) p.leader = call;
    fnn_parallel_for(call, p.conv_groups * p.panels * packs_of(&p), (double)p.u_bytes * 0.08, transform_weights, &p);
    fnn_parallel_for(call, p.conv_groups * chunks_of(&p), fnn_winograd_cost(d, pass), run_chunk, &p);
    if (bad) return 0;
    fnn_finish(call->out[0], &y);
    if (p.form.left) return FNN_WINOGRAD_LEFT;
    if (!by_rows) fnn_follow_all(call, NULL);
    return 1;
}

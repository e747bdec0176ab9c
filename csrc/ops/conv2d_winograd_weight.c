/* conv2d_winograd_weight.c: dweight of convolutions as F(4x4, 3x3) or F(4x4, 2x2): dg = G'[sum over tiles of (B'dB) (A dY A')]G.
 *
 * A chunk has a box of the gradient (of a phase `chunk_c` x `chunk_k` channels) and one part of the tiles. Block of tiles by block
 * it transforms its channels of x to V and of dy to dM, and adds V'dM to 36 sums dU, which stay in its core's cache;
 * only at the end are these taken back to 3 x 3 (2 x 2). The parts are as many as shapes say and are added in order. */
#include "conv2d_winograd.h"

#include <string.h>

enum {
    OUTPUTS = FNN_WINOGRAD_OUTPUTS,
    PIXELS = FNN_WINOGRAD_PIXELS,
    PANEL = FNN_WINOGRAD_PANEL,
    PLACES = FNN_WINOGRAD_PLACES,
    FLOAT = 4,
    MOST_TILES = 32,
    MOST_CHANNELS = 64,     /* of a box, each way */
    PARTS_BYTES = 8 << 20,  /* all parts together */
    PART_TILES = 64,        /* at least: taking sums back costs what a few tiles do */
    CHUNKS = 16
};

typedef struct {
    const fnn_call *call;
    const fnn_kernels *K;
    fnn_winograd_form form;
    ptrdiff_t groups, c, k, r, s; /* channels of a group */
    fnn_tile_source x, dy;
    fnn_tensor dw;
    fnn_tiling tiling;
    ptrdiff_t chunk_c, chunk_k, c_chunks, k_chunks, parts;
    ptrdiff_t panels, part_size;                              /* packed gradient: [group][panel][phase, place][c][PANEL] */
    ptrdiff_t v_plane, m_panel, m_plane, u_plane;             /* in elements; a plane of u is chunk_c by chunk_k */
    ptrdiff_t at_once;                                        /* panels that one call of the register tile takes */
    size_t v_bytes, m_bytes, scratch, parts_bytes, zeros_bytes;
    float *packed;
    int *bad;
} gradient;

/* Channels in equal boxes of whole `unit`s. */
static ptrdiff_t box_of(ptrdiff_t channels, ptrdiff_t unit) {
    return fnn_round_up(fnn_ceil_div(channels, fnn_ceil_div(channels, MOST_CHANNELS)), unit);
}

static ptrdiff_t boxes_of(const gradient *p) { return p->groups * p->form.phases * p->c_chunks * p->k_chunks; }

static ptrdiff_t panel_size(const gradient *p) { return p->r * p->s * p->c * PANEL; }

static void plan_gradient(gradient *p, const fnn_call *call, const fnn_conv_dims *d) {
    *p = (gradient){.call = call,
                    .K = fnn_kernels_of(FNN_FLOAT32),
                    .groups = d->groups,
                    .c = d->c,
                    .k = d->k,
                    .form = fnn_winograd_form_of(d, FNN_CONV_BACKWARD_WEIGHT),
                    .r = d->r,
                    .s = d->s,
                    .x = {.h = d->h, .w = d->w},
                    .dy = {.h = d->oh, .w = d->ow},
                    .dw = *call->out[0],
                    .tiling = fnn_tiling_of(d->n, fnn_ceil_div(d->oh, OUTPUTS), fnn_ceil_div(d->ow, OUTPUTS), MOST_TILES)};
    p->chunk_c = box_of(p->c, 16);
    p->chunk_k = box_of(p->k, PANEL);
    p->c_chunks = fnn_ceil_div(p->c, p->chunk_c);
    p->k_chunks = fnn_ceil_div(p->k, p->chunk_k);
    p->panels = fnn_ceil_div(p->k, PANEL);
    p->part_size = p->groups * p->panels * panel_size(p);
    const ptrdiff_t tiles = p->tiling.images * p->tiling.rows * p->tiling.cols, boxes = boxes_of(p);
    p->parts = fnn_min(fnn_min(PARTS_BYTES / (p->part_size * FLOAT), tiles / PART_TILES), fnn_ceil_div(CHUNKS, boxes));
    p->parts = fnn_max(fnn_min(p->parts, p->tiling.blocks), 1);
    p->v_plane = fnn_odd_lines(p->tiling.size * p->chunk_c);
    p->m_panel = p->tiling.size * PANEL;
    p->m_plane = fnn_odd_lines(p->chunk_k / PANEL * p->m_panel);
    p->at_once = fnn_winograd_panels_at_once(p->K);
    p->u_plane = fnn_odd_lines(p->chunk_c * p->chunk_k);
    p->v_bytes = (size_t)(p->form.planes * p->v_plane * FLOAT);
    p->m_bytes = (size_t)(p->form.planes * p->m_plane * FLOAT);
    p->scratch = p->v_bytes + p->m_bytes + (size_t)(p->form.planes * p->u_plane * FLOAT);
    const size_t dense = (size_t)(PANEL * p->c * p->r * p->s * FLOAT); /* a panel of the result, when dweight is strided */
    if (p->scratch < dense) p->scratch = dense;
    p->parts_bytes = fnn_whole_lines((size_t)(p->parts * p->part_size * FLOAT));
    p->zeros_bytes = fnn_whole_lines((size_t)(fnn_max(p->c, p->k) * FLOAT));
}

/* ---- a chunk ---- */

typedef struct {
    ptrdiff_t group, phase, first_c, c, first_k, k; /* the box: channels of x, of dy, in a group */
    fnn_tile_source x;
    float *v, *m, *u;
    fnn_ahead next_x, next_dy;
} target;

static void transform_tiles(const gradient *p, const target *t, const fnn_tile_block *b) {
    const void *pixel[PIXELS];
    const ptrdiff_t first_row = fnn_phase_first(&p->form, 0, t->phase), first_col = fnn_phase_first(&p->form, 1, t->phase);
    for (ptrdiff_t i = 0, image, row, col; i < b->tiles; i++) {
        fnn_tile_at(b, i, &image, &row, &col);
        row *= OUTPUTS, col *= OUTPUTS;
        fnn_tile_pixels(&t->x, image, row + first_row, col + first_col, p->form.patch, t->group * p->c + t->first_c, pixel);
        p->K->winograd_input(p->form.taps, t->c, pixel, t->v + i * p->chunk_c, p->v_plane);
        for (ptrdiff_t k = 0; k < t->k; k += PANEL) {
            fnn_tile_pixels(&p->dy, image, row, col, OUTPUTS, t->group * p->k + t->first_k + k, pixel);
            p->K->winograd_output_gradient(p->form.taps, fnn_min(PANEL, t->k - k), pixel,
                                           t->m + k / PANEL * p->m_panel + i * PANEL, p->m_plane);
        }
    }
}

/* Plans to ask for what a block reads. */
static void plan_ahead(const gradient *p, target *t, ptrdiff_t block) {
    const fnn_tile_block b = fnn_tile_block_of(&p->tiling, block);
    const ptrdiff_t calls = p->form.planes * fnn_ceil_div(t->k, PANEL), top = b.row * OUTPUTS, bottom = top + b.rows * OUTPUTS;
    const ptrdiff_t first_row = fnn_phase_first(&p->form, 0, t->phase);
    t->next_x = fnn_ahead_of(&t->x, &p->tiling, &b, top + first_row, bottom + first_row + p->form.taps - 1,
                             t->group * p->c + t->first_c, t->c, calls);
    t->next_dy = fnn_ahead_of(&p->dy, &p->tiling, &b, top, bottom, t->group * p->k + t->first_k, t->k, calls);
}

static void add_products(const gradient *p, target *t, ptrdiff_t tiles, int accumulate) {
    for (ptrdiff_t plane = 0; plane < p->form.planes; plane++)
        for (ptrdiff_t k = 0, cols; k < t->k; k += cols) {
            cols = fnn_min(p->at_once * PANEL, t->k - k);
            for (ptrdiff_t q = 0; q < cols; q += PANEL) {
                fnn_ask_ahead(&t->next_x);
                fnn_ask_ahead(&t->next_dy);
            }
            p->K->gemm_panels(t->c, cols, 1, tiles, t->v + plane * p->v_plane, NULL, 1, p->chunk_c,
                              t->m + plane * p->m_plane + k / PANEL * p->m_panel, NULL, PANEL,
                              p->at_once > 1 ? p->m_panel : p->K->tile_cols, t->u + plane * p->u_plane + k, p->chunk_k,
                              accumulate, NULL);
        }
}

/* The sums, taken back, to their part. */
static void store_part(const gradient *p, const target *t, float *part) {
    int bad = 0;
    const int taps = p->form.taps;
    for (ptrdiff_t k = 0; k < t->k; k += PANEL) {
        const ptrdiff_t index = t->group * p->panels + (t->first_k + k) / PANEL;
        float *panel = part + index * panel_size(p) + (t->phase * taps * taps * p->c + t->first_c) * PANEL;
        const ptrdiff_t cols = fnn_min(PANEL, t->k - k);
        for (ptrdiff_t c = 0; c < t->c; c++)
            p->K->winograd_weight_gradient(taps, cols, t->u + c * p->chunk_k + k, p->u_plane, panel + c * PANEL, p->c * PANEL, &bad);
    }
    if (bad) __atomic_store_n(p->bad, 1, __ATOMIC_RELAXED);
}

static void run_chunk(void *context, ptrdiff_t chunk, void *scratch) {
    const gradient *p = context;
    const ptrdiff_t boxes = boxes_of(p), box = chunk % boxes, part = chunk / boxes;
    target t = {.phase = box / p->c_chunks % p->form.phases, .first_c = box % p->c_chunks * p->chunk_c, .v = scratch};
    t.first_k = box / p->c_chunks / p->form.phases % p->k_chunks * p->chunk_k;
    t.group = box / p->c_chunks / p->form.phases / p->k_chunks;
    t.x = fnn_phase_of(&p->form, &p->x, t.phase);
    t.c = fnn_min(p->chunk_c, p->c - t.first_c);
    t.k = fnn_min(p->chunk_k, p->k - t.first_k);
    t.m = (float *)((char *)scratch + p->v_bytes);
    t.u = (float *)((char *)t.m + p->m_bytes);
    const ptrdiff_t blocks = p->tiling.blocks, begin = fnn_part_begin(blocks, p->parts, part);
    const ptrdiff_t end = fnn_part_begin(blocks, p->parts, part + 1);
    for (ptrdiff_t i = begin; i < end; i++) {
        const fnn_tile_block b = fnn_tile_block_of(&p->tiling, i);
        transform_tiles(p, &t, &b);
        if (i + 1 < end) plan_ahead(p, &t, i + 1);
        add_products(p, &t, b.tiles, i > begin);
    }
    store_part(p, &t, p->packed + part * p->part_size);
}

/* ---- the sum of the parts, as (k, c, r, s) ---- */

static void combine_panel(void *context, ptrdiff_t index, void *scratch) {
    const gradient *p = context;
    const fnn_tensor *dw = &p->dw;
    const ptrdiff_t places = p->r * p->s, in_group = index % p->panels * PANEL, row = p->c * places;
    const ptrdiff_t first = index / p->panels * p->k + in_group, cols = fnn_min(PANEL, p->k - in_group);
    ptrdiff_t slot[PLACES];
    for (ptrdiff_t t = 0; t < places; t++) slot[t] = fnn_phase_place(&p->form, t / p->s, t % p->s, 0) * p->c * PANEL;
    float *dst = (float *)dw->data + first * dw->stride[0];
    const int dense = dw->stride[3] == 1 && dw->stride[2] == p->s && (p->c == 1 || dw->stride[1] == places);
    p->K->conv_combine(places, p->c, cols, p->parts, p->packed + index * panel_size(p), p->part_size, slot,
                       PANEL, dense ? dst : scratch, dense ? dw->stride[0] : row);
    if (p->call->follower) fnn_follow(p->call, first * row, cols * row); /* only a dense gradient is followed */
    for (ptrdiff_t j = 0; j < cols && !dense; j++)
        for (ptrdiff_t c = 0; c < p->c; c++)
            p->K->conv_scatter(p->r, p->s, (float *)scratch + j * row + c * places, p->s,
                               dst + j * dw->stride[0] + c * dw->stride[1], dw->stride[2], dw->stride[3]);
}

/* ---- the interface ---- */

/* shared: [parts][zeros][staged maps] */
void fnn_winograd_gradient_workspace(const fnn_call *call, const fnn_conv_dims *d, fnn_workspace *ws) {
    gradient p;
    fnn_staging staging = {.memory = NULL};
    plan_gradient(&p, call, d);
    fnn_channels_last_of(&staging, call->in[0], 1);
    fnn_channels_last_of(&staging, call->in[1], 1);
    fnn_enlarge(ws, p.parts_bytes + p.zeros_bytes + staging.bytes, p.scratch);
}

int fnn_winograd_gradient(const fnn_call *call, const fnn_conv_dims *d) {
    gradient p;
    int bad = 0;
    if (!fnn_winograd_suits(call, d, FNN_CONV_BACKWARD_WEIGHT)) return 0;
    if (fnn_winograd5_suits(call, d, FNN_CONV_BACKWARD_WEIGHT)) return fnn_winograd5_gradient(call, d);
    if (fnn_winograd_amx_suits(call, d, FNN_CONV_BACKWARD_WEIGHT)) return fnn_winograd_amx_gradient(call, d);
    plan_gradient(&p, call, d);
    p.bad = &bad;
    p.packed = call->shared;
    char *zeros = (char *)call->shared + p.parts_bytes;
    p.x.zeros = p.dy.zeros = memset(zeros, 0, p.zeros_bytes);
    fnn_staging staging = {.memory = zeros + p.zeros_bytes};
    const fnn_tensor dy = fnn_channels_last_of(&staging, call->in[0], 1);
    const fnn_tensor x = fnn_channels_last_of(&staging, call->in[1], 1);
    p.dy.image = fnn_image_of(&dy);
    p.x.image = fnn_image_of(&x);
    fnn_parallel_for(call, p.parts * boxes_of(&p), fnn_winograd_cost(d, FNN_CONV_BACKWARD_WEIGHT), run_chunk,
                     &p);
    if (bad) return 0;
    fnn_parallel_for(call, p.groups * p.panels, (double)(p.parts * p.part_size), combine_panel, &p);
    return 1;
}

/* conv2d_winograd_amx.c: forward and backward_input of 3x3 convolutions as F(4x4, 3x3), as in conv2d_winograd.c, on
 * bfloat16 matrix units in three parts (kernels/gemm_amx.h).
 *
 * These multiply so fast that a chunk of its own few tiles would wait for the 36 matrices U, which are read from the third-
 * level cache for each. So all threads work on one block of many tiles together: they transform the tiles to V,
 * [plane][tile]; multiply, each chunk a plane's V by a group of panels of U, which it splits in three and which stay in its
 * core's second-level cache while strip after strip of 32 tiles is split, to M, [plane][strip][panel], as tiles that nobody
 * copies; and take M back to pixels. V and U wait as float32: split they would be half as large again, and this is bound by
 * memory.
 *
 * An infinity or NaN in V or U, or in a result, brings the call back to the direct way. */
#include "conv2d_amx.h"

#include <string.h>

enum {
    OUTPUTS = FNN_WINOGRAD_OUTPUTS,
    PATCH = FNN_WINOGRAD_PATCH,
    PLANES = FNN_WINOGRAD_PIXELS,
    TAPS = 3,
    PARTS = 3,
    STRIP = FNN_AMX_STRIP,
    STEP = FNN_AMX_STEP,
    FLOAT = 4,
    PACK_DEPTH = 64,         /* channels whose weights are transformed together */
    CHANNELS = 128,          /* of a strip that are transformed together */
    GROUP_BYTES = 768 << 10, /* of U, for a chunk: what is left of 2 MB is for V that comes by */
    ROOM_BYTES = 32 << 20,   /* of a block's V and M ... */
    LEAST_STRIPS = 8,        /* ... or of so many strips: U is read and split once for each block */
    AHEAD = 2,               /* tiles whose sums are asked for before they are taken back to pixels */
    MOST_SUMS = 1 << 19,     /* of a gradient's plane, which are in memory all together: 75 MB */
    STEP_BYTES = PARTS * FNN_AMX_STRIP_BYTES,
    G_PLANE = PACK_DEPTH * STRIP + 16 /* of weights in scratch: an odd number of lines */
};

typedef struct {
    const fnn_kernels *K;
    const fnn_amx_kernels *X;
    int turned;
    ptrdiff_t depth, width, steps, panels;
    ptrdiff_t group_panels, groups;
    fnn_conv_weight weight;
    fnn_tile_source src, dst;
    ptrdiff_t first[2];      /* row and column of src that the first tile reads first */
    fnn_tile_block map;      /* all tiles */
    ptrdiff_t block_tiles;   /* at most */
    ptrdiff_t begin, tiles, strips; /* of the present block */
    ptrdiff_t pitch, v_plane, u_plane; /* in elements */
    ptrdiff_t m_plane;                 /* in bytes */
    size_t u_bytes, v_bytes, m_bytes, scratch;
    float *u, *v;
    char *m;
    const fnn_epilogue *epilogue;
    int *bad;
} plan;

/* ---- the plan ---- */

static ptrdiff_t odd_lines(ptrdiff_t bytes) { return fnn_odd_lines(bytes / FLOAT) * FLOAT; }

static void plan_shape(plan *p, const fnn_conv_dims *d, fnn_conv_pass pass) {
    const int turned = pass == FNN_CONV_BACKWARD_INPUT;
    const fnn_tile_source x = {.h = d->h, .w = d->w}, y = {.h = d->oh, .w = d->ow};
    *p = (plan){.K = fnn_kernels_of(FNN_FLOAT32),
                .X = fnn_amx(),
                .turned = turned,
                .depth = turned ? d->k : d->c,
                .width = turned ? d->c : d->k,
                .src = turned ? y : x,
                .dst = turned ? x : y,
                .first = {turned ? d->padding[0] - TAPS + 1 : -d->padding[0], turned ? d->padding[2] - TAPS + 1 : -d->padding[2]}};
    p->steps = fnn_ceil_div(p->depth, STEP), p->panels = fnn_ceil_div(p->width, STRIP);
    p->groups = fnn_ceil_div(p->panels, fnn_max(GROUP_BYTES / (p->steps * STEP_BYTES), 1));
    p->group_panels = fnn_ceil_div(p->panels, p->groups);
    p->map = (fnn_tile_block){.images = d->n, .rows = fnn_ceil_div(p->dst.h, OUTPUTS), .cols = fnn_ceil_div(p->dst.w, OUTPUTS)};
    p->map.tiles = p->map.images * p->map.rows * p->map.cols;
    const ptrdiff_t strips = fnn_ceil_div(p->map.tiles, STRIP);
    p->pitch = fnn_odd_lines(p->depth);
    const ptrdiff_t strip_bytes = PLANES * (STRIP * p->pitch * FLOAT + p->panels * FNN_AMX_C_BYTES);
    p->block_tiles = STRIP * fnn_even_share(strips, fnn_max(ROOM_BYTES / strip_bytes, LEAST_STRIPS));
    p->v_plane = fnn_odd_lines(p->block_tiles * p->pitch);
    p->u_plane = fnn_odd_lines(p->panels * p->depth * STRIP);
    p->m_plane = odd_lines(p->block_tiles / STRIP * p->panels * FNN_AMX_C_BYTES);
    p->u_bytes = (size_t)(PLANES * p->u_plane * FLOAT), p->v_bytes = (size_t)(PLANES * p->v_plane * FLOAT);
    p->m_bytes = (size_t)(PLANES * p->m_plane);
    const size_t weights = (size_t)(TAPS * TAPS * G_PLANE * FLOAT);
    const size_t split = (size_t)((p->group_panels + 1) * p->steps * STEP_BYTES);
    p->scratch = weights > split ? weights : split;
}

/* ---- weights ---- */

/* A panel's rows from .. from + PACK_DEPTH - 1, of all planes. */
static void transform_weights(void *context, ptrdiff_t chunk, void *scratch) {
    const plan *p = context;
    const ptrdiff_t packs = fnn_ceil_div(p->depth, PACK_DEPTH), panel = chunk / packs, from = chunk % packs * PACK_DEPTH;
    const ptrdiff_t count = fnn_min(PACK_DEPTH, p->depth - from);
    ptrdiff_t slot[TAPS * TAPS];
    for (ptrdiff_t t = 0; t < TAPS * TAPS; t++) slot[t] = (p->turned ? TAPS * TAPS - 1 - t : t) * G_PLANE;
    if ((panel + 1) * STRIP > p->width) memset(scratch, 0, (size_t)(TAPS * TAPS * G_PLANE * FLOAT));
    fnn_conv_weight_gather(&p->weight, panel, from, count, slot, scratch);
    p->K->winograd_weight(TAPS, count * STRIP, scratch, G_PLANE, p->u + (panel * p->depth + from) * STRIP, p->u_plane);
}

/* ---- a block ---- */

static ptrdiff_t tiles_of(const plan *p, ptrdiff_t strip) { return fnn_min(STRIP, p->tiles - strip * STRIP); }

/* CHANNELS of a strip. */
static void transform_tiles(void *context, ptrdiff_t chunk, void *scratch) {
    const plan *p = context;
    const ptrdiff_t parts = fnn_ceil_div(p->depth, CHANNELS), strip = chunk / parts, from = chunk % parts * CHANNELS;
    const ptrdiff_t channels = fnn_min(CHANNELS, p->depth - from);
    const void *pixel[PLANES];
    (void)scratch;
    for (ptrdiff_t t = strip * STRIP, image, row, col; t < strip * STRIP + tiles_of(p, strip); t++) {
        fnn_tile_at(&p->map, p->begin + t, &image, &row, &col);
        fnn_tile_pixels(&p->src, image, row * OUTPUTS + p->first[0], col * OUTPUTS + p->first[1], PATCH, from, pixel);
        p->K->winograd_input(TAPS, channels, pixel, p->v + t * p->pitch + from, p->v_plane);
    }
}

/* A plane's tiles by a group of panels. Meanwhile the next strip comes nearer, a share in each product. */
static void multiply(void *context, ptrdiff_t chunk, void *scratch) {
    const plan *p = context;
    const ptrdiff_t plane = chunk / p->groups, first = chunk % p->groups * p->group_panels;
    const ptrdiff_t end = fnn_min(first + p->group_panels, p->panels), panel_bytes = p->steps * STEP_BYTES;
    const ptrdiff_t share = fnn_round_up(fnn_ceil_div(STEP * STRIP * FLOAT, end - first), 64);
    char *split = scratch, *v = split + p->group_panels * panel_bytes;
    _Alignas(64) float bad[16] = {0};
    for (ptrdiff_t panel = first; panel < end; panel++) {
        const fnn_amx_strip s = {.data = p->u + plane * p->u_plane + panel * p->depth * STRIP, .wide = STRIP, .depth = p->depth,
                                 .wide_step = 1, .k_step = STRIP, .columns = 1};
        p->X->split(PARTS, &s, split + (panel - first) * panel_bytes, bad);
    }
    p->X->begin();
    for (ptrdiff_t strip = 0; strip < p->strips; strip++) {
        const float *tiles = p->v + plane * p->v_plane + strip * STRIP * p->pitch;
        const fnn_amx_strip s = {.data = tiles, .wide = tiles_of(p, strip), .depth = p->depth, .wide_step = p->pitch, .k_step = 1};
        const int row_tiles = s.wide > FNN_AMX_TILE ? 2 : 1;
        const fnn_amx_operand a = {v, row_tiles * STEP_BYTES / 2, FNN_AMX_TILE_BYTES, row_tiles * FNN_AMX_TILE_BYTES, NULL};
        p->X->split(PARTS, &s, v, bad);
        for (ptrdiff_t panel = first; panel < end; panel++) {
            const fnn_amx_operand b = {split + (panel - first) * panel_bytes, STEP_BYTES, FNN_AMX_TILE_BYTES, FNN_AMX_STRIP_BYTES,
                                       NULL};
            char *m = p->m + plane * p->m_plane + (strip * p->panels + panel) * FNN_AMX_C_BYTES;
            const fnn_amx_ahead ahead = {.near = (const char *)(tiles + STRIP * p->pitch) + (panel - first) * share * p->steps,
                                         .near_step = strip + 1 < p->strips ? share : 0,
                                         .out = panel + 1 < end ? m + FNN_AMX_C_BYTES : NULL,
                                         .out_step = 2 * FNN_LINE};
            p->X->multiply(PARTS, row_tiles, p->width - panel * STRIP > FNN_AMX_TILE ? 2 : 1, p->steps, &a, &b, (float *)m, 0,
                           &ahead);
        }
    }
    p->X->end();
    fnn_amx_raise(p->bad, bad);
}

static const char *row_of(const char *m, ptrdiff_t tile) {
    return m + tile / FNN_AMX_TILE * FNN_AMX_STRIP_BYTES + tile % FNN_AMX_TILE * FNN_AMX_ROW;
}

/* 16 channels of a strip. */
static void finish_channels(const plan *p, ptrdiff_t strip, ptrdiff_t first, int *bad) {
    const fnn_epilogue *e = p->epilogue;
    const fnn_image *y = &p->dst.image;
    const ptrdiff_t channels = fnn_min(FNN_AMX_TILE, p->width - first);
    const char *panel = p->m + (strip * p->panels + first / STRIP) * FNN_AMX_C_BYTES;
    const char *m = panel + first % STRIP / FNN_AMX_TILE * FNN_AMX_TILE_BYTES;
    for (ptrdiff_t t = 0, image, row, col; t < tiles_of(p, strip); t++) {
        fnn_tile_at(&p->map, p->begin + strip * STRIP + t, &image, &row, &col);
        const ptrdiff_t at = image * y->n + row * OUTPUTS * y->h + col * OUTPUTS * y->w + first;
        for (ptrdiff_t plane = 0; plane < PLANES; plane++) __builtin_prefetch(row_of(m, t + AHEAD) + plane * p->m_plane);
        p->K->winograd_output(TAPS, channels, row_of(m, t), p->m_plane / FLOAT, fnn_min(OUTPUTS, p->dst.h - row * OUTPUTS),
                              fnn_min(OUTPUTS, p->dst.w - col * OUTPUTS), (float *)y->data + at, y->h, y->w,
                              e->bias ? (const float *)e->bias + first : NULL, e->residual ? (const float *)e->residual + at : NULL,
                              e->activation, bad);
    }
}

/* A panel of a strip. */
static void finish_tiles(void *context, ptrdiff_t chunk, void *scratch) {
    const plan *p = context;
    const ptrdiff_t strip = chunk / p->panels, panel = chunk % p->panels;
    int bad = 0;
    (void)scratch;
    for (ptrdiff_t first = panel * STRIP; first < fnn_min((panel + 1) * STRIP, p->width); first += FNN_AMX_TILE)
        finish_channels(p, strip, first, &bad);
    if (bad) __atomic_store_n(p->bad, 1, __ATOMIC_RELAXED);
}

/* ---- what it costs, and whether it suits ---- */

/* Nanoseconds on one of two cores of a Granite Rapids that both compute: a block's products, which wait for V, M and U now
 * and then, and U split for them; an element of V, of M, of U. Where maps are large they are a quarter more, as
 * fnn_winograd_cost is, beside which these stand: of 24 layers of vgg16, resnet18, resnet50, googlenet and alexnet the faster
 * way is taken. */
static double products_ns(const plan *p, ptrdiff_t tiles) {
    return 1.25 * fnn_amx_products_ns(PARTS, (double)(PLANES * fnn_ceil_div(tiles, FNN_AMX_TILE)) *
                                                 (double)(fnn_ceil_div(p->width, FNN_AMX_TILE) * p->steps)) +
           0.2 * PLANES * (double)(p->depth * p->width);
}
static double transform_ns(const plan *p, ptrdiff_t tiles) { return 0.45 * PLANES * (double)(tiles * p->depth); }
static double finish_ns(const plan *p, ptrdiff_t tiles) { return 0.4 * PLANES * (double)(tiles * p->width); }
static double weights_ns(const plan *p) { return 0.35 * PLANES * (double)(p->depth * p->width); }

double fnn_winograd_amx_cost(const fnn_conv_dims *d, fnn_conv_pass pass) {
    plan p;
    if (pass == FNN_CONV_BACKWARD_WEIGHT) return fnn_winograd_amx_gradient_cost(d);
    plan_shape(&p, d, pass);
    const ptrdiff_t tiles = p.map.tiles, blocks = fnn_ceil_div(tiles, p.block_tiles);
    return (double)blocks * products_ns(&p, fnn_ceil_div(tiles, blocks)) + transform_ns(&p, tiles) + finish_ns(&p, tiles) +
           weights_ns(&p) + 5000;
}

int fnn_winograd_amx_suits(const fnn_call *call, const fnn_conv_dims *d, fnn_conv_pass pass) {
    if (!fnn_amx() || fnn_amx_planes(call->precision) != PARTS) return 0;
    const fnn_winograd_form f = fnn_winograd_form_of(d, pass);
    if (f.taps != TAPS || d->groups > 1) return 0;
    if (pass == FNN_CONV_BACKWARD_WEIGHT && d->c * d->k > MOST_SUMS) return 0;
    if (call->algorithm == FNN_CONV_WINOGRAD) return 1;
    return fnn_winograd_amx_cost(d, pass) < fnn_winograd_cost(d, pass) * FNN_WINOGRAD_NS_OF_COST;
}

/* ---- the interface ---- */

static size_t zeros_bytes(const plan *p) { return fnn_whole_lines((size_t)(p->depth * FLOAT)); }
static size_t bias_bytes(const plan *p) { return fnn_whole_lines((size_t)(p->width * FLOAT)); }

/* shared: [U][V][M][zeros][bias][staged maps] */
void fnn_winograd_amx_workspace(const fnn_call *call, const fnn_conv_dims *d, fnn_conv_pass pass, fnn_workspace *ws) {
    plan p;
    fnn_staging staging = {.memory = NULL};
    if (pass == FNN_CONV_BACKWARD_WEIGHT) {
        fnn_winograd_amx_gradient_workspace(call, d, ws);
        return;
    }
    plan_shape(&p, d, pass);
    fnn_channels_last_of(&staging, call->in[0], 1);
    fnn_channels_last_of(&staging, call->out[0], 0);
    fnn_enlarge(ws, p.u_bytes + p.v_bytes + p.m_bytes + zeros_bytes(&p) + bias_bytes(&p) + staging.bytes, p.scratch);
}

static void run_block(const fnn_call *call, plan *p, ptrdiff_t begin) {
    p->begin = begin, p->tiles = fnn_min(p->block_tiles, p->map.tiles - begin);
    p->strips = fnn_ceil_div(p->tiles, STRIP);
    const ptrdiff_t parts = fnn_ceil_div(p->depth, CHANNELS);
    fnn_parallel_for(call, p->strips * parts, transform_ns(p, p->tiles), transform_tiles, p);
    if (!*p->bad) fnn_parallel_for(call, PLANES * p->groups, products_ns(p, p->tiles), multiply, p);
    if (!*p->bad) fnn_parallel_for(call, p->strips * p->panels, finish_ns(p, p->tiles), finish_tiles, p);
}

int fnn_winograd_amx_correlate(const fnn_call *call, const fnn_conv_dims *d, fnn_conv_pass pass, const fnn_epilogue *epilogue) {
    plan p;
    int bad = 0;
    plan_shape(&p, d, pass);
    p.weight = fnn_conv_weight_of(call->in[1], d, p.turned);
    p.weight.cols = STRIP;
    fnn_conv_weight_plan(&p.weight);
    p.u = call->shared, p.v = (float *)((char *)p.u + p.u_bytes), p.m = (char *)p.v + p.v_bytes;
    char *zeros = p.m + p.m_bytes, *bias = zeros + zeros_bytes(&p);
    p.src.zeros = memset(zeros, 0, zeros_bytes(&p));
    fnn_epilogue finish = epilogue ? *epilogue : (fnn_epilogue){0};
    finish.bias = fnn_conv_dense_bias(call, bias);
    p.epilogue = &finish;
    p.bad = &bad;
    fnn_staging staging = {.memory = bias + bias_bytes(&p)};
    const fnn_tensor x = fnn_channels_last_of(&staging, call->in[0], 1);
    const fnn_tensor y = fnn_channels_last_of(&staging, call->out[0], 0);
    p.src.image = fnn_image_of(&x), p.dst.image = fnn_image_of(&y);
    fnn_parallel_for(call, p.panels * fnn_ceil_div(p.depth, PACK_DEPTH), weights_ns(&p), transform_weights, &p);
    for (ptrdiff_t begin = 0; begin < p.map.tiles && !bad; begin += p.block_tiles) run_block(call, &p, begin);
    if (bad) return 0;
    fnn_finish(call->out[0], &y);
    fnn_follow_all(call, NULL);
    return 1;
}

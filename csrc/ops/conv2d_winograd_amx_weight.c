/* conv2d_winograd_amx_weight.c: dweight of 3x3 convolutions as F(4x4, 3x3), as in conv2d_winograd_weight.c, on bfloat16 matrix
 * units in three parts (kernels/gemm_amx.h).
 *
 * All threads work on one block of tiles together, as in conv2d_winograd_amx.c: they transform x to V and dy to dM and split
 * both, [plane][strip of 32 channels][32 tiles][part] (as float32, tile after tile, a strip would be slow to read); add dM'V to the
 * sums dU, [plane][strip of dy][strip of x], each chunk a plane's and a group of strips of dM, which stays in its core's
 * second-level cache; and at the end take dU back to 3 x 3. */
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
    TILE_FLOATS = FNN_AMX_TILE_BYTES / 4,
    CHANNELS = 128,          /* that are transformed and split together: 0.6 MB */
    PITCH = CHANNELS + 16,   /* of them, for each tile */
    GROUP_BYTES = 768 << 10, /* of dM, for a chunk: what is left of 2 MB is for V that comes by */
    ROOM_BYTES = 32 << 20,   /* of a block's V and dM ... */
    LEAST_STEPS = 8,         /* ... or of so many tiles: the sums are taken up again for each block */
    STEP_BYTES = PARTS * FNN_AMX_STRIP_BYTES,
    G_PLANE = 4 * TILE_FLOATS + 16 /* of a gradient in scratch: an odd number of lines */
};

/* x, or dy: what is split. */
typedef struct {
    fnn_tile_source map;
    ptrdiff_t channels, strips, parts; /* parts: of CHANNELS */
    ptrdiff_t first[2];                /* row and column that the first tile reads first */
    int size;                          /* of what a tile reads, each way */
    ptrdiff_t plane;                   /* bytes */
    char *split;
} side;

typedef struct {
    fnn_conv_parts sum;
    const fnn_amx_kernels *X;
    side x, dy;
    fnn_tile_block map;                  /* all tiles */
    ptrdiff_t block_steps;               /* at most */
    ptrdiff_t begin, tiles, steps;       /* of the present block */
    ptrdiff_t group_strips, groups;      /* of dM */
    ptrdiff_t u_plane;                   /* bytes */
    size_t u_bytes, parts_bytes, slot_bytes, zeros_bytes, scratch;
    char *u;
    int *bad;
} gradient;

/* ---- the plan ---- */

static ptrdiff_t odd_lines(ptrdiff_t bytes) { return fnn_odd_lines(bytes / FLOAT) * FLOAT; }

static side side_of(ptrdiff_t channels, ptrdiff_t h, ptrdiff_t w, int size) {
    return (side){.map = {.h = h, .w = w},
                  .channels = channels,
                  .strips = fnn_ceil_div(channels, STRIP),
                  .parts = fnn_ceil_div(channels, CHANNELS),
                  .size = size};
}

static void plan_shape(gradient *p, const fnn_conv_dims *d) {
    *p = (gradient){.sum = {.d = d, .dtype = FNN_FLOAT32, .groups = 1, .c = d->c, .k = d->k, .cols = STRIP, .parts = 1},
                    .X = fnn_amx(),
                    .x = side_of(d->c, d->h, d->w, PATCH),
                    .dy = side_of(d->k, d->oh, d->ow, OUTPUTS)};
    p->x.first[0] = -d->padding[0], p->x.first[1] = -d->padding[2];
    p->sum.panels = p->dy.strips;
    p->sum.part_size = p->sum.panels * TAPS * TAPS * d->c * STRIP;
    p->map = (fnn_tile_block){.images = d->n, .rows = fnn_ceil_div(d->oh, OUTPUTS), .cols = fnn_ceil_div(d->ow, OUTPUTS)};
    p->map.tiles = p->map.images * p->map.rows * p->map.cols;
    const ptrdiff_t room = ROOM_BYTES / (PLANES * STEP_BYTES * (p->x.strips + p->dy.strips));
    p->block_steps = fnn_even_share(fnn_ceil_div(p->map.tiles, STEP), fnn_max(room, LEAST_STEPS));
    p->groups = fnn_ceil_div(p->dy.strips, fnn_max(GROUP_BYTES / (p->block_steps * STEP_BYTES), 1));
    p->group_strips = fnn_ceil_div(p->dy.strips, p->groups);
    p->x.plane = odd_lines(p->x.strips * p->block_steps * STEP_BYTES);
    p->dy.plane = odd_lines(p->dy.strips * p->block_steps * STEP_BYTES);
    p->u_plane = odd_lines(p->dy.strips * p->x.strips * FNN_AMX_C_BYTES);
    p->u_bytes = (size_t)(PLANES * p->u_plane);
}

static void plan_gradient(gradient *p, const fnn_call *call, const fnn_conv_dims *d) {
    plan_shape(p, d);
    p->sum.call = call;
    p->sum.K = fnn_kernels_of(FNN_FLOAT32);
    p->sum.dw = *call->out[0];
    p->parts_bytes = fnn_whole_lines((size_t)(p->sum.part_size * FLOAT));
    p->slot_bytes = fnn_whole_lines(TAPS * TAPS * sizeof(ptrdiff_t));
    p->zeros_bytes = fnn_whole_lines((size_t)(fnn_max(d->c, d->k) * FLOAT));
    const size_t combining = fnn_conv_combine_scratch(&p->sum);
    p->scratch = (size_t)(PLANES * fnn_odd_lines(STEP * PITCH) * FLOAT); /* more than a gradient taken back */
    if (p->scratch < combining) p->scratch = combining;
}

/* ---- a block ---- */

static ptrdiff_t width(const side *s, ptrdiff_t strip) { return fnn_min(s->channels - strip * STRIP, STRIP); }

/* A narrow strip has one tile a part. */
static ptrdiff_t step_bytes(const side *s, ptrdiff_t strip) { return width(s, strip) > FNN_AMX_TILE ? STEP_BYTES : STEP_BYTES / 2; }
static char *strip_at(const gradient *p, const side *s, ptrdiff_t plane, ptrdiff_t strip) {
    return s->split + plane * s->plane + strip * p->steps * STEP_BYTES;
}

/* CHANNELS of x, or of dy, from `from` on, in a step. */
static void transform(const gradient *p, const side *s, ptrdiff_t step, ptrdiff_t from, float *v) {
    const ptrdiff_t channels = fnn_min(CHANNELS, s->channels - from), tiles = fnn_min(STEP, p->tiles - step * STEP);
    const ptrdiff_t plane_size = fnn_odd_lines(STEP * PITCH);
    const void *pixel[PLANES];
    _Alignas(64) float bad[16] = {0};
    for (ptrdiff_t t = 0, image, row, col; t < tiles; t++) {
        fnn_tile_at(&p->map, p->begin + step * STEP + t, &image, &row, &col);
        fnn_tile_pixels(&s->map, image, row * OUTPUTS + s->first[0], col * OUTPUTS + s->first[1], s->size, from, pixel);
        if (s == &p->x) p->sum.K->winograd_input(TAPS, channels, pixel, v + t * PITCH, plane_size);
        else p->sum.K->winograd_output_gradient(TAPS, channels, pixel, v + t * PITCH, plane_size);
    }
    for (ptrdiff_t plane = 0; plane < PLANES; plane++)
        for (ptrdiff_t c = 0; c < channels; c += STRIP) {
            const ptrdiff_t strip = (from + c) / STRIP;
            const fnn_amx_strip split = {.data = v + plane * plane_size + c, .wide = width(s, strip), .depth = tiles,
                                         .wide_step = 1, .k_step = PITCH, .columns = s == &p->x};
            p->X->split(PARTS, &split, strip_at(p, s, plane, strip) + step * step_bytes(s, strip), bad);
        }
    fnn_amx_raise(p->bad, bad);
}

static void transform_tiles(void *context, ptrdiff_t chunk, void *scratch) {
    const gradient *p = context;
    const ptrdiff_t parts = p->x.parts + p->dy.parts, step = chunk / parts, part = chunk % parts;
    if (part < p->x.parts) transform(p, &p->x, step, part * CHANNELS, scratch);
    else transform(p, &p->dy, step, (part - p->x.parts) * CHANNELS, scratch);
}

static char *sums_of(const gradient *p, ptrdiff_t plane, ptrdiff_t k, ptrdiff_t c) {
    return p->u + plane * p->u_plane + (k * p->x.strips + c) * FNN_AMX_C_BYTES;
}

/* A plane's products of a group of dM's strips. Meanwhile the next strip of V comes nearer, a share in each product. */
static void add_products(void *context, ptrdiff_t chunk, void *scratch) {
    const gradient *p = context;
    const ptrdiff_t plane = chunk / p->groups, first = chunk % p->groups * p->group_strips;
    const ptrdiff_t end = fnn_min(first + p->group_strips, p->dy.strips);
    const ptrdiff_t share = fnn_round_up(fnn_ceil_div(STEP_BYTES, end - first), 64);
    (void)scratch;
    p->X->begin();
    for (ptrdiff_t c = 0; c < p->x.strips; c++) {
        const ptrdiff_t v_step = step_bytes(&p->x, c);
        const fnn_amx_operand b = {strip_at(p, &p->x, plane, c), v_step, FNN_AMX_TILE_BYTES, v_step / PARTS, NULL};
        for (ptrdiff_t k = first; k < end; k++) {
            const ptrdiff_t m_step = step_bytes(&p->dy, k);
            const fnn_amx_operand a = {strip_at(p, &p->dy, plane, k), m_step, FNN_AMX_TILE_BYTES, m_step / PARTS, NULL};
            const fnn_amx_ahead ahead = {.near = strip_at(p, &p->x, plane, c + 1) + (k - first) * share * p->steps,
                                         .near_step = c + 1 < p->x.strips ? share : 0,
                                         .out = k + 1 < end ? sums_of(p, plane, k + 1, c) : NULL,
                                         .out_step = 2 * FNN_LINE};
            p->X->multiply(PARTS, m_step == STEP_BYTES ? 2 : 1, v_step == STEP_BYTES ? 2 : 1, p->steps, &a, &b,
                           (float *)sums_of(p, plane, k, c), p->begin > 0, &ahead);
        }
    }
    p->X->end();
}

/* ---- back to 3 x 3 ---- */

/* The sums of two strips to the packed gradient. */
static void finish_strips(void *context, ptrdiff_t chunk, void *scratch) {
    const gradient *p = context;
    const ptrdiff_t k = chunk / p->x.strips, c = chunk % p->x.strips, rows = width(&p->dy, k), cols = width(&p->x, c);
    float *g = scratch;
    int bad = 0;
    _Alignas(64) float not_finite[16] = {0};
    for (int tile = 0; tile < 4; tile++)
        if (tile / 2 * FNN_AMX_TILE < rows && tile % 2 * FNN_AMX_TILE < cols)
            p->sum.K->winograd_weight_gradient(TAPS, TILE_FLOATS, (float *)sums_of(p, 0, k, c) + tile * TILE_FLOATS,
                                               p->u_plane / FLOAT, g + tile * TILE_FLOATS, G_PLANE, &bad);
    for (ptrdiff_t place = 0; place < TAPS * TAPS && !bad; place++) {
        float *to = (float *)p->sum.packed + ((k * TAPS * TAPS + place) * p->sum.c + c * STRIP) * STRIP;
        p->X->store_turned(rows, cols, g + place * G_PLANE, to, STRIP, not_finite);
    }
    if (bad) __atomic_store_n(p->bad, 1, __ATOMIC_RELAXED);
}

/* ---- what it costs ---- */

/* As in conv2d_winograd_amx.c; an element of dU is read and written for every block. All are a fifth less than measured, as
 * fnn_winograd_cost is less, beside which these stand: of 22 layers the faster way is taken. */
static double products_ns(const gradient *p, ptrdiff_t steps) {
    const double k = (double)fnn_ceil_div(p->dy.channels, FNN_AMX_TILE), c = (double)fnn_ceil_div(p->x.channels, FNN_AMX_TILE);
    return fnn_amx_products_ns(PARTS, PLANES * k * c * (double)steps) +
           0.12 * PLANES * (double)(p->dy.channels * p->x.channels);
}
static double transform_ns(const gradient *p, ptrdiff_t tiles) {
    return 0.4 * PLANES * (double)(tiles * (p->x.channels + p->dy.channels));
}
static double finish_ns(const gradient *p) { return 0.25 * PLANES * (double)(p->dy.channels * p->x.channels); }

double fnn_winograd_amx_gradient_cost(const fnn_conv_dims *d) {
    gradient p;
    plan_shape(&p, d);
    const ptrdiff_t steps = fnn_ceil_div(p.map.tiles, STEP), blocks = fnn_ceil_div(steps, p.block_steps);
    return (double)blocks * products_ns(&p, fnn_ceil_div(steps, blocks)) + transform_ns(&p, p.map.tiles) + finish_ns(&p) + 5000;
}

/* ---- the interface ---- */

/* Bytes of V and dM, and then, when they have been multiplied, of the packed gradient. */
static size_t split_bytes(const gradient *p) {
    const size_t split = (size_t)(PLANES * (p->x.plane + p->dy.plane));
    return split > p->parts_bytes ? split : p->parts_bytes;
}

/* shared: [dU][V and dM, or packed][slots][zeros][staged maps] */
void fnn_winograd_amx_gradient_workspace(const fnn_call *call, const fnn_conv_dims *d, fnn_workspace *ws) {
    gradient p;
    fnn_staging staging = {.memory = NULL};
    plan_gradient(&p, call, d);
    fnn_channels_last_of(&staging, call->in[0], 1);
    fnn_channels_last_of(&staging, call->in[1], 1);
    fnn_enlarge(ws, p.u_bytes + split_bytes(&p) + p.slot_bytes + p.zeros_bytes + staging.bytes, p.scratch);
}

static void add_block(const fnn_call *call, gradient *p, ptrdiff_t begin) {
    p->begin = begin, p->tiles = fnn_min(p->block_steps * STEP, p->map.tiles - begin);
    p->steps = fnn_ceil_div(p->tiles, STEP);
    fnn_parallel_for(call, p->steps * (p->x.parts + p->dy.parts), transform_ns(p, p->tiles), transform_tiles, p);
    if (!*p->bad) fnn_parallel_for(call, PLANES * p->groups, products_ns(p, p->steps), add_products, p);
}

int fnn_winograd_amx_gradient(const fnn_call *call, const fnn_conv_dims *d) {
    gradient p;
    int bad = 0;
    plan_gradient(&p, call, d);
    p.bad = &bad;
    p.u = call->shared, p.x.split = p.u + p.u_bytes, p.dy.split = p.x.split + PLANES * p.x.plane;
    p.sum.packed = p.x.split;
    p.sum.slot = (ptrdiff_t *)(p.sum.packed + split_bytes(&p));
    char *zeros = p.sum.packed + split_bytes(&p) + p.slot_bytes;
    p.x.map.zeros = p.dy.map.zeros = memset(zeros, 0, p.zeros_bytes);
    fnn_staging staging = {.memory = zeros + p.zeros_bytes};
    const fnn_tensor dy = fnn_channels_last_of(&staging, call->in[0], 1);
    const fnn_tensor x = fnn_channels_last_of(&staging, call->in[1], 1);
    p.dy.map.image = fnn_image_of(&dy), p.x.map.image = fnn_image_of(&x);
    for (ptrdiff_t begin = 0; begin < p.map.tiles && !bad; begin += p.block_steps * STEP) add_block(call, &p, begin);
    if (!bad) fnn_parallel_for(call, p.dy.strips * p.x.strips, finish_ns(&p), finish_strips, &p);
    if (bad) return 0;
    fnn_conv_combine(&p.sum);
    return 1;
}

/* conv2d_winograd5.c: 5x5 convolutions of few input channels as F(2x2, 5x5): y = A'[(GgG') . (B'dB)]A and its adjoints
 * dg = G'[sum over tiles of (B'dB) . (A dY A')]G and dx = the sum of windows B[(GgG') . (A dY A')]B'.
 *
 * With few channels the transforms of a tile cost as much as its products, and products of so little depth leave register tiles
 * waiting. Here a block of tiles goes through one row of points after the other (kernels/winograd5.h): V of that row, a few KB,
 * meets its weights, or dM, and what is stored of the products is transformed along the row already. Forward and weights' gradient
 * have channels of y as lanes, the input's gradient images.
 *
 * What is not finite is found as in conv2d_winograd.c, and the call then computed directly. */
#include "conv2d_winograd.h"
#include "stage.h"

#include <string.h>

enum {
    OUTPUTS = 2,
    TAPS = 5,
    PATCH = FNN_WINOGRAD_PATCH,
    EDGE = TAPS - 1, /* what a row of tiles reads beyond its outputs */
    POINTS = PATCH * PATCH,
    PLACES = TAPS * TAPS,
    NEAR_PLANE = 176, /* so much of it is taken, but for gradients where two panels share it: there calls with few tiles cost more */
    PLANE = FNN_WINOGRAD5_PLANE, /* an odd number of cache lines: points so far apart do not share cache sets */
    MOST_CHANNELS = 32,
    MOST_CHANNELS_UNASKED = 16,
    LEAST_LANES = 8,
    /* Of fewer tiles direct sums err so little that this way would err six times as much. */
    LEAST_TILES_OF_GRADIENT = 16,
    LEAST_TILES_OF_MAP = 9,
    FLOAT = 4,
    LINE = FNN_LINE / FLOAT,
    PARTS_BYTES = 8 << 20, /* of the gradient, all parts together */
    PART_TILES = 64,       /* at least: taking sums back costs what a few tiles do */
    ALONG_BYTES = 1 << 20, /* at most, of a row of tiles, and of its windows, in all images of a block */
    CHUNKS = 16
};

typedef struct {
    const fnn_call *call;
    const fnn_kernels *K;
    const fnn_conv_dims *d;
    fnn_tiling tiling;
    fnn_image x, y; /* or their gradients */
    const fnn_epilogue *epilogue;
    ptrdiff_t lanes, panels; /* panels: of a vector of channels of y */
    ptrdiff_t half;          /* elements that even (odd) columns of a staged row take */
    ptrdiff_t u_plane, u_panel; /* in elements */
    ptrdiff_t dy_row, along; /* the input's gradient: elements of a row of pixels, of points and windows along a row of tiles */
    size_t down_at, v_at, sums_at, du_at, scratch, u_bytes, g_bytes, part_bytes;
    fnn_conv_parts sum;
    fnn_tensor weight;
    float *u, *g;
    const fnn_call *leader; /* whose followers take finished rows; NULL: they run later */
    int *bad;
} plan;

/* ---- the plan ---- */

static ptrdiff_t tile_rows(const fnn_conv_dims *d) { return fnn_ceil_div(d->oh, OUTPUTS); }
static ptrdiff_t tile_cols(const fnn_conv_dims *d) { return fnn_ceil_div(d->ow, OUTPUTS); }

/* Elements of a row of points, or of dx with what lies outside, all channels of a block of images. */
static ptrdiff_t along_of(const fnn_conv_dims *d, const fnn_kernels *K) {
    return (tile_cols(d) * OUTPUTS + EDGE) * d->c * K->lanes;
}

static size_t bytes_of(ptrdiff_t elements) { return fnn_whole_lines((size_t)elements * FLOAT); }

/* scratch: [staged rows][their points downwards][V at a row of points][sums_at: M along, or dM downwards][dU] */
static void plan_blocks(plan *p) {
    const fnn_conv_dims *d = p->d;
    p->half = fnn_round_up((p->tiling.block_cols + EDGE / 2) * d->c, LINE) + LINE;
    p->down_at = bytes_of((p->tiling.block_rows * OUTPUTS + EDGE) * 2 * p->half);
    p->v_at = p->down_at + bytes_of(p->tiling.block_images * p->tiling.block_rows * PATCH * 2 * p->half);
    p->sums_at = p->v_at + bytes_of(PATCH * PLANE);
}

static size_t room_bytes(const plan *p) { return bytes_of(PATCH * (OUTPUTS * p->d->k + p->d->c) * p->lanes); }

static void plan_correlation(plan *p, int turned) {
    const fnn_conv_dims *d = p->d;
    p->u_plane = turned ? d->k * d->c : d->c * p->lanes;
    p->u_panel = turned ? 0 : POINTS * p->u_plane;
    p->u_bytes = bytes_of((turned ? 1 : p->panels) * POINTS * p->u_plane);
    p->g_bytes = bytes_of((turned ? 1 : p->panels) * PLACES * p->u_plane);
    p->scratch = p->sums_at + bytes_of(p->panels * p->tiling.size * PATCH * OUTPUTS * p->lanes);
    if (!turned) return;
    p->dy_row = tile_cols(d) * OUTPUTS * d->k * p->lanes;
    p->along = along_of(d, p->K);
    p->scratch = bytes_of(OUTPUTS * p->dy_row) + room_bytes(p) + 2 * bytes_of(PATCH * p->along);
}

static void plan_gradient(plan *p) {
    const fnn_conv_dims *d = p->d;
    fnn_conv_parts *s = &p->sum;
    const ptrdiff_t tiles = d->n * p->tiling.rows * p->tiling.cols;
    *s = (fnn_conv_parts){.call = p->call, .d = d, .K = p->K, .dtype = FNN_FLOAT32, .dw = *p->call->out[0], .groups = 1, .c = d->c,
                          .k = d->k, .cols = p->lanes, .panels = p->panels};
    s->part_size = p->panels * PLACES * d->c * p->lanes;
    s->parts = fnn_min(fnn_min(PARTS_BYTES / (s->part_size * FLOAT), tiles / PART_TILES), fnn_min(CHUNKS, p->tiling.blocks));
    s->parts = fnn_max(s->parts, 1);
    p->u_plane = d->c * p->lanes, p->u_panel = POINTS * p->u_plane;
    p->part_bytes = bytes_of(s->parts * s->part_size);
    p->du_at = p->sums_at + bytes_of(2 * OUTPUTS * p->tiling.size * p->lanes); /* of two panels */
    p->scratch = p->du_at + bytes_of(p->panels * p->u_panel);
    const size_t panel = fnn_conv_combine_scratch(s);
    if (p->scratch < panel) p->scratch = panel;
}

/* Elements of V that a row of tiles takes. */
static ptrdiff_t row_of(const plan *p, ptrdiff_t cols) { return fnn_round_up(cols * p->d->c, p->lanes); }

static void make_plan(plan *p, const fnn_call *call, const fnn_conv_dims *d, fnn_conv_pass pass) {
    *p = (plan){.call = call, .K = fnn_kernels_of(FNN_FLOAT32), .d = d};
    p->lanes = p->K->lanes;
    p->panels = fnn_ceil_div(d->k, p->lanes);
    const ptrdiff_t cols = fnn_even_share(tile_cols(d), NEAR_PLANE / d->c);
    const ptrdiff_t near = pass == FNN_CONV_BACKWARD_WEIGHT && fnn_small_tile(p->K) ? PLANE : NEAR_PLANE;
    p->tiling = fnn_tiling_of(d->n, tile_rows(d), tile_cols(d), cols * (cols < tile_cols(d) ? 1 : near / row_of(p, cols)));
    plan_blocks(p);
    if (pass == FNN_CONV_BACKWARD_WEIGHT) plan_gradient(p);
    else plan_correlation(p, pass == FNN_CONV_BACKWARD_INPUT);
}

/* ---- weights ---- */

/* Of one panel: [place][channel of x][lane]. */
static void transform_panel(void *context, ptrdiff_t panel, void *scratch) {
    (void)scratch;
    const plan *p = context;
    const ptrdiff_t c = p->d->c, cols = fnn_min(p->lanes, p->d->k - panel * p->lanes), row = PLACES * c;
    float *g = p->g + panel * PLACES * p->u_plane;
    ptrdiff_t slot[PLACES];
    for (ptrdiff_t t = 0; t < PLACES; t++) slot[t] = t * p->u_plane;
    if (cols < p->lanes) memset(g, 0, (size_t)(PLACES * p->u_plane * FLOAT));
    p->K->conv_pack(PLACES, c, cols, (const float *)p->weight.data + panel * p->lanes * row, 1, row, g, slot, p->lanes);
    p->K->winograd5_weight(p->u_plane, g, p->u_plane, p->u + panel * p->u_panel, p->u_plane);
}

/* For the input's gradient: [place][channel of dy][channel of x]. */
static void transform_turned(void *context, ptrdiff_t chunk, void *scratch) {
    (void)chunk, (void)scratch;
    const plan *p = context;
    const ptrdiff_t c = p->d->c;
    ptrdiff_t slot[PLACES];
    for (ptrdiff_t t = 0; t < PLACES; t++) slot[t] = t * p->u_plane;
    for (ptrdiff_t k = 0; k < p->d->k; k++)
        p->K->conv_pack(PLACES, 1, c, (const float *)p->weight.data + k * PLACES * c, 1, PLACES, p->g + k * c, slot, c);
    p->K->winograd5_weight(p->u_plane, p->g, p->u_plane, p->u, p->u_plane);
}

/* ---- V ---- */

/* Row of x, columns from `col` on; zeros outside. */
static void stage_row(const plan *p, ptrdiff_t image, ptrdiff_t row, ptrdiff_t col, ptrdiff_t columns, float *to) {
    const fnn_conv_dims *d = p->d;
    const int inside = row >= 0 && row < d->h;
    const ptrdiff_t lo = inside ? fnn_min(fnn_max(-col, 0), columns) : columns;
    const ptrdiff_t hi = fnn_max(fnn_min(d->w - col, columns), lo);
    if (lo > 0 || hi < columns) memset(to, 0, (size_t)(2 * p->half * FLOAT));
    float *even = to + (lo + 1) / 2 * d->c, *odd = to + p->half + lo / 2 * d->c;
    if (hi > lo)
        p->K->winograd5_stage(hi - lo, d->c, (const float *)p->x.data + image * p->x.n + row * p->x.h + (col + lo) * p->x.w, p->x.w,
                              lo % 2 ? odd : even, lo % 2 ? even : odd);
}

/* A block's rows of points. */
static void transform_down(const plan *p, const fnn_tile_block *b, char *scratch) {
    const fnn_conv_dims *d = p->d;
    float *staged = (float *)scratch, *down = (float *)(scratch + p->down_at);
    const ptrdiff_t rows = b->rows * OUTPUTS + EDGE, columns = b->cols * OUTPUTS + EDGE;
    for (ptrdiff_t i = 0; i < b->images; i++) {
        for (ptrdiff_t row = 0; row < rows; row++)
            stage_row(p, b->image + i, b->row * OUTPUTS - d->padding[0] + row, b->col * OUTPUTS - d->padding[2], columns,
                      staged + row * 2 * p->half);
        p->K->winograd5_down(b->rows, (b->cols + EDGE / 2) * d->c, staged, p->half, down + i * b->rows * PATCH * 2 * p->half);
    }
}

/* V at one row of points of all tiles. */
static float *transform_along(const plan *p, const fnn_tile_block *b, ptrdiff_t point, char *scratch) {
    float *v = (float *)(scratch + p->v_at);
    const float *down = (float *)(scratch + p->down_at) + point * 2 * p->half;
    p->K->winograd5_along(b->images * b->rows, b->cols, p->d->c, down, p->half, v);
    return v;
}

/* A block's pixels of y, or dy, and `channels` of them from `first` on. */
static fnn_winograd5_map map_of(const plan *p, const fnn_tile_block *b, ptrdiff_t first, ptrdiff_t channels) {
    const ptrdiff_t row = b->row * OUTPUTS, col = b->col * OUTPUTS;
    return (fnn_winograd5_map){.images = b->images,
                               .rows = b->rows,
                               .cols = b->cols,
                               .height = fnn_min(b->rows * OUTPUTS, p->d->oh - row),
                               .width = fnn_min(b->cols * OUTPUTS, p->d->ow - col),
                               .channels = channels,
                               .image = p->y.n,
                               .row = p->y.h,
                               .col = p->y.w,
                               .data = (float *)p->y.data + b->image * p->y.n + row * p->y.h + col * p->y.w + first};
}

/* ---- forward ---- */

/* Calls behind this one take the rows of a block. */
static void follow_rows(const plan *p, const fnn_tile_block *b) {
    const ptrdiff_t row = b->row * OUTPUTS, col = b->col * OUTPUTS;
    const fnn_conv_block pixels = {.image = b->image, .images = b->images, .row = row,
                                   .rows = fnn_min(b->rows * OUTPUTS, p->d->oh - row), .col = col,
                                   .cols = fnn_min(b->cols * OUTPUTS, p->d->ow - col)};
    fnn_conv_follow(p->leader, &p->y, &pixels);
}

static void run_forward(void *context, ptrdiff_t chunk, void *scratch) {
    const plan *p = context;
    const fnn_epilogue *e = p->epilogue;
    const fnn_tile_block b = fnn_tile_block_of(&p->tiling, chunk);
    const ptrdiff_t tile_size = PATCH * OUTPUTS * p->lanes, u_point = PATCH * p->u_plane;
    float *sums = (float *)((char *)scratch + p->sums_at);
    int bad = 0;
    transform_down(p, &b, scratch);
    for (int point = 0; point < PATCH; point++) {
        const float *v = transform_along(p, &b, point, scratch);
        p->K->winograd5_products(p->panels, b.images * b.rows, b.cols, p->d->c, v, p->u + point * u_point, p->u_panel,
                                 sums + point * OUTPUTS * p->lanes, b.tiles * tile_size);
    }
    for (ptrdiff_t i = 0; i < p->panels; i++) {
        const ptrdiff_t first = i * p->lanes;
        fnn_winograd5_map y = map_of(p, &b, first, fnn_min(p->lanes, p->d->k - first));
        y.activation = e->activation;
        if (e->bias) y.bias = (const float *)e->bias + first;
        if (e->residual) y.residual = (const float *)e->residual + ((const float *)y.data - (const float *)p->y.data);
        p->K->winograd5_output(&y, sums + i * b.tiles * tile_size, &bad);
    }
    if (bad) __atomic_store_n(p->bad, 1, __ATOMIC_RELAXED);
    else if (p->leader) follow_rows(p, &b);
}

/* ---- the weights' gradient: a part of the tiles ---- */

static void run_gradient(void *context, ptrdiff_t part, void *scratch) {
    const plan *p = context;
    const ptrdiff_t begin = fnn_part_begin(p->tiling.blocks, p->sum.parts, part);
    const ptrdiff_t end = fnn_part_begin(p->tiling.blocks, p->sum.parts, part + 1);
    char *down = (char *)scratch + p->sums_at;
    float *du = (float *)((char *)scratch + p->du_at), *dg = (float *)p->sum.packed + part * p->sum.part_size;
    int bad = 0;
    memset(du, 0, (size_t)(p->panels * p->u_panel * FLOAT));
    for (ptrdiff_t block = begin; block < end; block++) {
        const fnn_tile_block b = fnn_tile_block_of(&p->tiling, block);
        const fnn_winograd5_map dy = map_of(p, &b, 0, p->d->k);
        transform_down(p, &b, scratch);
        for (int point = 0; point < PATCH; point++) {
            const float *v = transform_along(p, &b, point, scratch);
            p->K->winograd5_gradient(point, &dy, p->d->c, v, down, du + point * PATCH * p->u_plane, p->u_panel);
        }
    }
    for (ptrdiff_t i = 0; i < p->panels; i++)
        p->K->winograd5_weight_gradient(p->u_plane, du + i * p->u_panel, p->u_plane, dg + i * PLACES * p->u_plane, p->u_plane,
                                        &bad);
    if (bad) __atomic_store_n(p->bad, 1, __ATOMIC_RELAXED);
}

/* ---- the input's gradient: a block of images ---- */

/* Rows row, row + 1 of dy: [row][column][channel][image]. */
static void stage_images(const plan *p, ptrdiff_t image, ptrdiff_t images, ptrdiff_t row, float *to) {
    const fnn_conv_dims *d = p->d;
    const int dense = p->y.w == d->k;
    const ptrdiff_t runs = dense ? 1 : d->ow, run = dense ? d->ow * d->k : d->k, rows = fnn_min(OUTPUTS, d->oh - row);
    if (images < p->lanes || rows < OUTPUTS || d->ow % OUTPUTS) memset(to, 0, (size_t)(OUTPUTS * p->dy_row * FLOAT));
    for (ptrdiff_t i = 0; i < rows; i++)
        for (ptrdiff_t j = 0; j < runs; j++)
            p->K->conv_pack(1, run, images, (const float *)p->y.data + image * p->y.n + (row + i) * p->y.h + j * p->y.w, 1, p->y.n,
                            to + i * p->dy_row + j * run * p->lanes, NULL, p->lanes);
}

/* A row of windows that is complete. */
static void emit_row(const plan *p, ptrdiff_t image, ptrdiff_t images, ptrdiff_t row, float *windows) {
    const fnn_conv_dims *d = p->d;
    if (row >= 0 && row < d->h)
        p->K->conv_images_out(d->w, d->c, images, windows + d->padding[2] * d->c * p->lanes, p->lanes, p->epilogue->bias,
                              FNN_ACT_NONE, (float *)p->x.data + image * p->x.n + row * p->x.h, p->x.n, p->x.w);
}

/* Windows of a row of tiles overlap with those of the next two: six rows take turns. */
static void run_input_gradient(void *context, ptrdiff_t chunk, void *scratch) {
    const plan *p = context;
    const fnn_conv_dims *d = p->d;
    const ptrdiff_t image = chunk * p->lanes, images = fnn_min(p->lanes, d->n - image), rows = tile_rows(d);
    float *dy = scratch, *room = (float *)((char *)dy + bytes_of(OUTPUTS * p->dy_row));
    float *along = (float *)((char *)room + room_bytes(p));
    float *windows = (float *)((char *)along + bytes_of(PATCH * p->along));
    int bad = 0;
    for (ptrdiff_t i = 0; i < rows; i++) {
        const int last = i + 1 == rows;
        const ptrdiff_t first = i * OUTPUTS;
        void *dx[PATCH];
        for (ptrdiff_t j = 0; j < PATCH; j++) dx[j] = windows + (first + j) % PATCH * p->along;
        stage_images(p, image, images, first, dy);
        p->K->winograd5_input_gradient(tile_cols(d), d->k, d->c, dy, p->dy_row, p->u, p->u_plane, room, along, p->along);
        p->K->winograd5_windows(p->along / p->lanes, along, p->along, dx, i == 0, last, &bad);
        for (ptrdiff_t j = 0; j < (last ? PATCH : OUTPUTS); j++) emit_row(p, image, images, first + j - d->padding[0], dx[j]);
    }
    if (bad) __atomic_store_n(p->bad, 1, __ATOMIC_RELAXED);
}

/* ---- what it costs, and whether it suits ---- */

static int is_possible(const fnn_call *call, const fnn_conv_dims *d, fnn_conv_pass pass) {
    const fnn_kernels *K = fnn_kernels_of(FNN_FLOAT32);
    if (call->in[0]->dtype != FNN_FLOAT32 || d->r != TAPS || d->s != TAPS || d->groups > 1 || d->c > MOST_CHANNELS) return 0;
    if (d->stride[0] > 1 || d->stride[1] > 1 || d->dilation[0] > 1 || d->dilation[1] > 1) return 0;
    if (!d->n || !d->h || !d->w) return 0; /* outputs there are, or infer had failed */
    if (pass != FNN_CONV_BACKWARD_INPUT) return 1;
    const ptrdiff_t rows = OUTPUTS * tile_cols(d) * OUTPUTS * d->k * K->lanes;
    return d->c <= K->lanes && fnn_max(rows, PATCH * along_of(d, K)) * FLOAT <= ALONG_BYTES;
}

/* In multiply-adds of a vector: products, transforms, sums of the gradient, weights. Measured, with what they are multiplied by
 * below, on two cores of a Granite Rapids, AVX-512 and AVX2, both ways forced by set_conv_algorithm, 3 to 32 channels of x, 6 to
 * 64 of y, maps of 8 to 32 pixels, 1 to 64 images. */
static double work_of(const fnn_conv_dims *d, fnn_conv_pass pass) {
    const ptrdiff_t lanes = fnn_kernels_of(FNN_FLOAT32)->lanes;
    const double tiles = (double)(tile_rows(d) * tile_cols(d)), c = (double)d->c, k = (double)d->k;
    if (pass == FNN_CONV_BACKWARD_INPUT)
        return (double)fnn_ceil_div(d->n, lanes) * tiles * (POINTS * k * c + 100 * k + 300 * c) + 50 * k * c;
    const double panels = (double)fnn_ceil_div(d->k, lanes), sums = pass == FNN_CONV_BACKWARD_WEIGHT ? 0.4 * c * c : 0;
    return (double)d->n * tiles * (panels * (POINTS * c + sums + 100) + 170 * c / (double)lanes) + 2500 * c * panels;
}

/* The same of the other ways, whose lanes are images where channels of y are few. */
static double direct_work_of(const fnn_conv_dims *d, fnn_conv_pass pass) {
    const fnn_kernels *K = fnn_kernels_of(FNN_FLOAT32);
    const int images = pass == FNN_CONV_BACKWARD_INPUT || (d->k <= fnn_few_channels(K) && d->n >= K->tile_cols);
    const double vectors = images ? (double)d->k / (double)K->lanes : (double)fnn_ceil_div(d->k, K->lanes);
    return (double)(d->n * d->oh * d->ow * PLACES * d->c) * vectors;
}

int fnn_winograd5_suits(const fnn_call *call, const fnn_conv_dims *d, fnn_conv_pass pass) {
    if (call->algorithm == FNN_CONV_DIRECT || call->algorithm == FNN_CONV_PARTS || !is_possible(call, d, pass)) return 0;
    if (call->algorithm == FNN_CONV_WINOGRAD) return 1;
    const ptrdiff_t lanes = fnn_kernels_of(FNN_FLOAT32)->lanes, tiles = tile_rows(d) * tile_cols(d);
    if (d->c > MOST_CHANNELS_UNASKED || lanes < LEAST_LANES) return 0;
    if (pass == FNN_CONV_BACKWARD_INPUT && (d->n < 2 * lanes || tiles < LEAST_TILES_OF_MAP)) return 0;
    if (pass == FNN_CONV_BACKWARD_WEIGHT && d->n * tiles < LEAST_TILES_OF_GRADIENT) return 0;
    return (pass == FNN_CONV_BACKWARD_INPUT ? 1.1 : 1.3) * work_of(d, pass) < direct_work_of(d, pass);
}

double fnn_winograd5_cost(const fnn_conv_dims *d, fnn_conv_pass pass) {
    return 0.02 * work_of(d, pass) * (double)fnn_kernels_of(FNN_FLOAT32)->lanes;
}

/* ---- the interface ---- */

static size_t bias_bytes(const fnn_conv_dims *d) { return bytes_of(fnn_max(d->c, d->k)); }
static size_t slot_bytes(void) { return fnn_whole_lines(PLACES * sizeof(ptrdiff_t)); }

/* shared: [U][weights in their order][bias][staged maps and weights], or [parts][their places][staged maps] */
void fnn_winograd5_workspace(const fnn_call *call, const fnn_conv_dims *d, fnn_conv_pass pass, fnn_workspace *ws) {
    plan p;
    fnn_staging staging = {.memory = NULL};
    make_plan(&p, call, d, pass);
    fnn_channels_last_of(&staging, call->in[0], 1);
    if (pass == FNN_CONV_BACKWARD_WEIGHT) {
        fnn_channels_last_of(&staging, call->in[1], 1);
        fnn_enlarge(ws, p.part_bytes + slot_bytes() + staging.bytes, p.scratch);
        return;
    }
    fnn_channels_last_of(&staging, call->out[0], 0);
    fnn_staged_copy(&staging, call->in[1]);
    fnn_enlarge(ws, p.u_bytes + p.g_bytes + bias_bytes(d) + staging.bytes, p.scratch);
}

int fnn_winograd5_correlate(const fnn_call *call, const fnn_conv_dims *d, fnn_conv_pass pass, const fnn_epilogue *epilogue) {
    const int turned = pass == FNN_CONV_BACKWARD_INPUT;
    plan p;
    int bad = 0;
    make_plan(&p, call, d, pass);
    p.u = call->shared;
    p.g = (float *)((char *)p.u + p.u_bytes);
    char *bias = (char *)p.g + p.g_bytes;
    fnn_epilogue finish = epilogue ? *epilogue : (fnn_epilogue){0};
    finish.bias = fnn_conv_dense_bias(call, bias);
    p.epilogue = &finish;
    p.bad = &bad;
    fnn_staging staging = {.memory = bias + bias_bytes(d)};
    const fnn_tensor from = fnn_channels_last_of(&staging, call->in[0], 1);
    const fnn_tensor to = fnn_channels_last_of(&staging, call->out[0], 0);
    p.weight = fnn_staged_copy(&staging, call->in[1]);
    p.x = fnn_image_of(turned ? &to : &from);
    p.y = fnn_image_of(turned ? &from : &to);
    const int by_rows = !turned && call->follower && to.data == call->out[0]->data && fnn_conv_can_repeat_followers(call);
    if (by_rows) p.leader = call;
    fnn_parallel_for(call, turned ? 1 : p.panels, (double)p.u_bytes * 0.08, turned ? transform_turned : transform_panel, &p);
    if (turned) fnn_parallel_for(call, fnn_ceil_div(d->n, p.lanes), fnn_winograd5_cost(d, pass), run_input_gradient, &p);
    else fnn_parallel_for(call, p.tiling.blocks, fnn_winograd5_cost(d, pass), run_forward, &p);
    if (bad) return 0;
    fnn_finish(call->out[0], &to);
    if (!by_rows) fnn_follow_all(call, NULL);
    return 1;
}

int fnn_winograd5_gradient(const fnn_call *call, const fnn_conv_dims *d) {
    plan p;
    int bad = 0;
    make_plan(&p, call, d, FNN_CONV_BACKWARD_WEIGHT);
    p.bad = &bad;
    p.sum.packed = call->shared;
    p.sum.slot = (ptrdiff_t *)(p.sum.packed + p.part_bytes);
    fnn_staging staging = {.memory = (char *)p.sum.slot + slot_bytes()};
    const fnn_tensor dy = fnn_channels_last_of(&staging, call->in[0], 1);
    const fnn_tensor x = fnn_channels_last_of(&staging, call->in[1], 1);
    p.y = fnn_image_of(&dy);
    p.x = fnn_image_of(&x);
    fnn_parallel_for(call, p.sum.parts, fnn_winograd5_cost(d, FNN_CONV_BACKWARD_WEIGHT), run_gradient, &p);
    if (bad) return 0;
    fnn_conv_combine(&p.sum);
    return 1;
}

/* conv2d_amx_weight.c: dweight of convolutions on bfloat16 matrix units: for each kernel position a product of dy^T and
 * x, whose sum runs over pixels, 32 a step.
 *
 * A chunk has a box of the gradient (`box_k` x `box_c` channels, all kernel positions) and one part of the pixels. Block
 * by block of output rows it splits its channels of dy, turned, and of x, as pairs of pixels (kernels/conv_amx.h): a
 * kernel position then moves x's tiles by whole rows, and no element is split again for it. As in conv2d_amx.c pixels
 * run on from one output row into the next; there dy is zero. 1x1 kernels do not know rows: a block is any run of
 * output pixels and what they read. The sums wait in scratch as float32 tiles; at the end they go to the part's packed
 * gradient. The parts are as many as shapes say and are added in order. */
#include "conv2d_amx.h"

#include <string.h>

enum {
    STRIP = FNN_AMX_STRIP,
    STEP = FNN_AMX_STEP,
    ROW = FNN_AMX_ROW,
    FLOAT = 4,
    BLOCK_PIXELS = 256,       /* of three planes: a sum is taken up again for each block */
    SUMS_BYTES = 640 << 10,   /* of a box: what is left of 2 MB is for split pixels */
    STAGE_BYTES = 900 << 10,  /* of those */
    LEAST_BOX = 32,           /* channels of a box, each way, ... */
    MOST_BOX = 512,
    PARTS_BYTES = 8 << 20,    /* all parts together */
    PART_PIXELS = 256,        /* at least */
    CHUNKS = 16
};

typedef struct {
    fnn_conv_parts sum;
    const fnn_amx_kernels *X;
    int planes;
    fnn_tile_source x, dy;
    fnn_axis h, w;
    fnn_amx_lattice rows, cols;
    int pointwise;                     /* one kernel position: all outputs are one row, in block_rows = 1 runs of w.out */
    ptrdiff_t places, box_c, box_k, c_boxes, k_boxes;
    ptrdiff_t images, block_images, block_rows, image_blocks, row_blocks;
    ptrdiff_t high, wide, steps;       /* of a block of one image: rows of a class, pixels of a row, steps */
    ptrdiff_t pair_rows;               /* of a class of x */
    ptrdiff_t step_rows;               /* that a step moves on by: 16 where there is one kernel position */
    ptrdiff_t x_plane, x_tile, x_class, x_image, dy_step, dy_strip; /* in bytes */
    size_t sums_bytes, x_bytes, dy_bytes, table_bytes, pixel_bytes, scratch, zeros_bytes;
    size_t parts_bytes, slot_bytes;
    int *bad;
} gradient;

/* ---- the plan ---- */

/* Splitting one pixel of x, all channels of a box, and of dy: elements of x are written twice unless there is one kernel
 * position, the second time with half the instructions. Transposing dy is counted as fetching it once more: 64 shuffles
 * for 256 elements. */
static double split_x_ns(const gradient *p, ptrdiff_t channels) {
    return fnn_amx_split_ns(p->planes, (double)channels, (p->pointwise ? 1.0 : 1.5) * (double)channels);
}
static double split_dy_ns(const gradient *p, ptrdiff_t channels) {
    return fnn_amx_split_ns(p->planes, 2 * (double)channels, (double)channels);
}

static ptrdiff_t even_box(ptrdiff_t channels, ptrdiff_t boxes) {
    return fnn_round_up(fnn_ceil_div(channels, boxes), STRIP);
}

/* Boxes whose sums stay in cache: each splits its channels anew for every box of the other side, so they are as few as
 * possible, of x or of dy, whichever costs less. */
static void plan_boxes(gradient *p) {
    const double step = (double)(p->sum.d->stride[0] * p->sum.d->stride[1]); /* pixels of x for one of dy */
    const double x_ns = (p->pointwise ? 1 : step) * split_x_ns(p, p->sum.c), dy_ns = split_dy_ns(p, p->sum.k);
    p->c_boxes = p->k_boxes = 1;
    for (;;) {
        p->box_c = even_box(p->sum.c, p->c_boxes), p->box_k = even_box(p->sum.k, p->k_boxes);
        const int c = p->box_c > LEAST_BOX, k = p->box_k > LEAST_BOX;
        const int wide = fnn_max(p->box_c, p->box_k) > MOST_BOX;
        if (!(c || k) || (!wide && p->box_c * p->box_k * p->places * FLOAT <= SUMS_BYTES)) break;
        const int halve_c = wide ? p->box_c >= p->box_k : (double)p->c_boxes * dy_ns <= (double)p->k_boxes * x_ns;
        if (c && (halve_c || !k)) p->c_boxes *= 2;
        else p->k_boxes *= 2;
    }
    p->c_boxes = fnn_ceil_div(p->sum.c, p->box_c), p->k_boxes = fnn_ceil_div(p->sum.k, p->box_k);
}

static void plan_block(gradient *p, ptrdiff_t images, ptrdiff_t rows) {
    p->block_images = images, p->block_rows = rows;
    p->high = rows + p->rows.most, p->wide = p->w.out + p->cols.most;
    p->steps = fnn_ceil_div((rows - 1) * p->wide + p->w.out, STEP);
    p->step_rows = p->pointwise ? FNN_AMX_TILE : STEP;
    p->pair_rows = p->pointwise ? p->steps * FNN_AMX_TILE
                                : (p->steps - 1) * STEP + FNN_AMX_TILE + p->rows.most * p->wide + p->cols.most;
    p->x_plane = p->pair_rows * ROW;
    p->x_tile = p->planes * p->x_plane;
    p->x_class = p->box_c / FNN_AMX_TILE * p->x_tile;
    p->x_image = p->rows.classes * p->cols.classes * p->x_class;
    p->dy_step = p->planes * FNN_AMX_STRIP_BYTES;
    p->dy_strip = images * p->steps * p->dy_step;
    p->x_bytes = (size_t)(images * p->x_image);
    p->dy_bytes = (size_t)(p->box_k / STRIP * p->dy_strip);
}

static int fits(const gradient *p) { return p->x_bytes + p->dy_bytes <= (size_t)STAGE_BYTES; }

/* Steps of an image in blocks of so many rows. */
static ptrdiff_t steps_of(const gradient *p, ptrdiff_t rows) {
    const ptrdiff_t run = (rows - 1) * (p->w.out + p->cols.most) + p->w.out;
    return fnn_ceil_div(p->h.out, rows) * fnn_ceil_div(run, STEP);
}

/* All outputs in one row, cut into equal runs of whole steps. */
static void join_rows(gradient *p, ptrdiff_t most) {
    const fnn_conv_dims *d = p->sum.d;
    const ptrdiff_t all = d->n * d->oh * d->ow;
    p->w.out = fnn_round_up(fnn_ceil_div(all, fnn_ceil_div(all, most)), STEP);
    p->h.out = fnn_ceil_div(all, p->w.out);
    p->images = 1;
}

/* The rows whose runs fill their steps best, as long as they fit. */
static void plan_blocks(gradient *p) {
    const ptrdiff_t pixels = BLOCK_PIXELS * 3 / p->planes;
    if (p->pointwise) join_rows(p, pixels);
    ptrdiff_t most = p->pointwise ? 1 : fnn_max(fnn_min(2 * pixels / p->w.out, p->h.out), 1), images = 1;
    for (plan_block(p, 1, most); !fits(p) && most > 1; plan_block(p, 1, most)) most--;
    for (ptrdiff_t fewer = pixels / 2; p->pointwise && !fits(p) && fewer >= STEP; fewer /= 2) {
        join_rows(p, fewer);
        plan_block(p, 1, 1);
    }
    ptrdiff_t rows = most;
    for (ptrdiff_t fewer = most; fewer > most / 2; fewer--)
        if (steps_of(p, fewer) < steps_of(p, rows)) rows = fewer;
    while (rows == p->h.out && 2 * images <= p->images && 2 * images * rows * p->w.out <= pixels) {
        plan_block(p, 2 * images, rows);
        if (!fits(p)) break;
        images *= 2;
    }
    plan_block(p, images, rows);
    p->image_blocks = fnn_ceil_div(p->images, images);
    p->row_blocks = fnn_ceil_div(p->h.out, rows);
}

/* Parts until there are chunks enough. */
static void plan_parts(gradient *p) {
    const fnn_conv_dims *d = p->sum.d;
    fnn_conv_parts *s = &p->sum;
    s->cols = STRIP;
    s->panels = fnn_ceil_div(s->k, STRIP);
    s->part_size = s->panels * p->places * s->c * STRIP;
    const ptrdiff_t wanted = fnn_ceil_div(CHUNKS, p->c_boxes * p->k_boxes);
    s->parts = fnn_min(fnn_min(PARTS_BYTES / (s->part_size * FLOAT), d->n * d->oh * d->ow / PART_PIXELS), wanted);
    s->parts = fnn_max(fnn_min(s->parts, p->image_blocks * p->row_blocks), 1);
}

static void plan_shape(gradient *p, const fnn_conv_dims *d, int planes) {
    *p = (gradient){.sum = {.d = d, .dtype = FNN_FLOAT32, .groups = 1, .c = d->c, .k = d->k},
                    .X = fnn_amx(),
                    .planes = planes,
                    .x = {.h = d->h, .w = d->w},
                    .dy = {.h = d->oh, .w = d->ow},
                    .h = fnn_conv_forward_axis(d, 0),
                    .w = fnn_conv_forward_axis(d, 1),
                    .pointwise = d->r * d->s == 1,
                    .images = d->n,
                    .places = d->r * d->s};
    p->rows = fnn_amx_lattice_of(&p->h, 1);
    p->cols = fnn_amx_lattice_of(&p->w, 1);
    plan_boxes(p);
    plan_blocks(p);
    plan_parts(p);
}

static void plan_gradient(gradient *p, const fnn_call *call, const fnn_conv_dims *d) {
    plan_shape(p, d, fnn_amx_planes(call->precision));
    p->sum.call = call;
    p->sum.K = fnn_kernels_of(FNN_FLOAT32);
    p->sum.dw = *call->out[0];
    p->sums_bytes = (size_t)(p->box_k / STRIP * (p->box_c / STRIP) * p->places * FNN_AMX_C_BYTES);
    p->table_bytes = fnn_whole_lines((size_t)(p->block_images * p->steps) * sizeof(ptrdiff_t));
    p->pixel_bytes = fnn_whole_lines((size_t)(p->steps * STEP + p->rows.most * p->wide + p->cols.most) * sizeof(float *));
    p->scratch = p->sums_bytes + p->x_bytes + p->dy_bytes + p->table_bytes + p->pixel_bytes;
    const size_t combining = fnn_conv_combine_scratch(&p->sum);
    if (p->scratch < combining) p->scratch = combining;
    p->parts_bytes = fnn_whole_lines((size_t)(p->sum.parts * p->sum.part_size * FLOAT));
    p->slot_bytes = fnn_whole_lines((size_t)p->places * sizeof(ptrdiff_t));
    p->zeros_bytes = fnn_whole_lines((size_t)(fnn_max(d->c, d->k) * FLOAT));
}

/* Products; splitting; sums to their parts, and parts to their sum: 8 bytes an element through the third-level cache, and a
 * little arithmetic. */
static double cost_of(const gradient *p, const fnn_conv_dims *d) {
    const double blocks = (double)(p->image_blocks * p->row_blocks * p->block_images);
    const double pixels = blocks * (double)(p->steps * STEP);
    const double of_x = blocks * (double)(p->rows.classes * p->cols.classes * p->pair_rows) * (p->pointwise ? 2 : 1);
    const double c = (double)fnn_round_up(d->c, FNN_AMX_TILE), k = (double)fnn_round_up(d->k, FNN_AMX_TILE);
    const double tiles = c / FNN_AMX_TILE * k / FNN_AMX_TILE * pixels / STEP * (double)p->places;
    return fnn_amx_products_ns(p->planes, tiles) +
           (double)p->k_boxes * of_x * split_x_ns(p, (ptrdiff_t)c) +
           (double)p->c_boxes * pixels * split_dy_ns(p, (ptrdiff_t)k) +
           0.6 * (double)(p->sum.parts * p->sum.part_size) + 5000;
}

double fnn_conv_amx_gradient_cost(const fnn_conv_dims *d, int planes) {
    gradient p;
    plan_shape(&p, d, planes);
    return cost_of(&p, d);
}

/* ---- a chunk ---- */

typedef struct {
    ptrdiff_t first_c, c, first_k, k; /* the box: channels of x, of dy */
    ptrdiff_t image, images, row, rows; /* the block */
    char *sums, *x, *dy;
    ptrdiff_t *offset; /* of each step in x */
    const float **pixel;
    const char *next[2]; /* what the next block reads of x and dy, one run of bytes each ... */
    ptrdiff_t next_bytes[2]; /* ... or 0: not asked for */
    _Alignas(64) float bad[16];
} target;

/* Addresses of `count` positions of a class of x; those past its rows are zeros. */
static void find_pixels(const gradient *p, target *t, ptrdiff_t image, ptrdiff_t class, ptrdiff_t count) {
    const ptrdiff_t base = p->rows.base + p->rows.value[class / p->cols.classes];
    for (ptrdiff_t y = 0, at = 0, n; at < count; y++, at += n) {
        n = fnn_min(p->wide, count - at);
        const ptrdiff_t row = y < p->high ? base + (t->row + y) * p->rows.step : -1;
        fnn_amx_row(&p->x, image, row, t->first_c, &p->cols, class % p->cols.classes, 0, n, t->pixel + at);
    }
}

static void split_x(const gradient *p, target *t) {
    const fnn_conv_dims *d = p->sum.d;
    const fnn_axis h = fnn_conv_forward_axis(d, 0), w = fnn_conv_forward_axis(d, 1);
    for (ptrdiff_t i = 0; i < t->images; i++)
        for (ptrdiff_t class = 0; class < p->rows.classes * p->cols.classes; class++) {
            char *to = t->x + i * p->x_image + class * p->x_class;
            const int runs = !p->pointwise; /* else steps are 16 pairs, and the next 16 belong to them */
            fnn_amx_pixels pairs = {t->pixel, runs ? p->pair_rows : FNN_AMX_TILE, t->c};
            if (runs) find_pixels(p, t, t->image + i, class, p->pair_rows + FNN_AMX_TILE);
            else fnn_amx_outputs(&p->x, d->n, t->first_c, &h, &w, t->row * p->wide, p->steps * STEP, t->pixel);
            for (ptrdiff_t s = 0; s < (runs ? 1 : p->steps); s++, pairs.pixel += STEP, to += FNN_AMX_TILE_BYTES)
                p->X->split_pairs(p->planes, &pairs, to, p->x_tile, p->x_plane, t->bad);
        }
}

/* The outputs of a block's image, with zeros between its rows and after them. */
static void find_rows(const gradient *p, const target *t, ptrdiff_t image) {
    for (ptrdiff_t q = 0; q < p->steps * STEP; q++) {
        const ptrdiff_t row = q / p->wide, col = q % p->wide;
        const float *at = (const float *)p->dy.image.data + image * p->dy.image.n + (t->row + row) * p->dy.image.h +
                          col * p->dy.image.w + t->first_k;
        t->pixel[q] = row < t->rows && col < p->w.out ? at : (const float *)p->dy.zeros;
    }
}

static void split_dy(const gradient *p, target *t) {
    const fnn_conv_dims *d = p->sum.d;
    const fnn_axis h = {.out = d->oh, .step = 1}, w = {.out = d->ow, .step = 1};
    for (ptrdiff_t i = 0; i < t->images; i++) {
        if (p->pointwise)
            fnn_amx_outputs(&p->dy, d->n, t->first_k, &h, &w, t->row * p->wide, p->steps * STEP, t->pixel);
        else find_rows(p, t, t->image + i);
        for (ptrdiff_t s = 0; s < p->steps; s++) {
            const fnn_amx_pixels pixels = {t->pixel + s * STEP, STEP, t->k};
            p->X->split_turned(p->planes, &pixels, t->dy + (i * p->steps + s) * p->dy_step, p->dy_strip, t->bad);
        }
    }
}

/* The rows of a map from `row` of image `image` on, all channels. */
static void ask_for_rows(target *t, int which, const fnn_tile_source *map, ptrdiff_t image, ptrdiff_t row, ptrdiff_t rows) {
    const fnn_image *m = &map->image;
    row = fnn_min(fnn_max(row, 0), map->h);
    t->next[which] = m->data + (image * m->n + row * m->h) * FLOAT;
    t->next_bytes[which] = fnn_min(rows, map->h - row) * m->h * FLOAT;
}

/* What the block behind this one reads, where the box has all channels and it is one run of bytes. x of single pixels is not asked
 * for: 0.9 to 1.0 times as fast. */
static void find_next(const gradient *p, target *t, ptrdiff_t image, ptrdiff_t row) {
    const fnn_conv_dims *d = p->sum.d;
    const fnn_image *dy = &p->dy.image;
    t->next_bytes[0] = t->next_bytes[1] = 0;
    if (p->pointwise && p->k_boxes == 1 && fnn_image_is_dense(dy, d->oh, d->ow)) {
        const ptrdiff_t begin = row * p->wide, pixels = fnn_min(p->steps * STEP, d->n * d->oh * d->ow - begin);
        t->next[1] = dy->data + begin * dy->w * FLOAT, t->next_bytes[1] = pixels * dy->w * FLOAT;
    }
    if (!p->pointwise && p->c_boxes == 1)
        ask_for_rows(t, 0, &p->x, image, row * d->stride[0] - d->padding[0], p->block_rows * d->stride[0] + p->rows.most);
    if (!p->pointwise && p->k_boxes == 1) ask_for_rows(t, 1, &p->dy, image, row, p->block_rows);
}

/* Of the next block's bytes the share of product `index` of `count`. */
static fnn_amx_ahead ahead_of(const target *t, ptrdiff_t index, ptrdiff_t count, ptrdiff_t steps) {
    const ptrdiff_t x = t->next_bytes[0], all = x + t->next_bytes[1];
    const ptrdiff_t share = fnn_round_up(fnn_ceil_div(all, count), 64), at = index * share;
    if (at >= all) return (fnn_amx_ahead){.near = NULL};
    return (fnn_amx_ahead){.near = at < x ? t->next[0] + at : t->next[1] + at - x,
                           .near_step = fnn_round_up(fnn_ceil_div(share, steps), 64)};
}

static char *sums_of(const gradient *p, const target *t, ptrdiff_t k, ptrdiff_t c) {
    return t->sums + (k / STRIP * (p->box_c / STRIP) + c / STRIP) * p->places * FNN_AMX_C_BYTES;
}

static void add_products(const gradient *p, target *t, int accumulate) {
    const fnn_conv_dims *d = p->sum.d;
    const ptrdiff_t steps = t->images * p->steps;
    const ptrdiff_t count = fnn_ceil_div(t->k, STRIP) * fnn_ceil_div(t->c, STRIP) * p->places;
    ptrdiff_t index = 0;
    for (ptrdiff_t k = 0; k < t->k; k += STRIP)
        for (ptrdiff_t c = 0; c < t->c; c += STRIP)
            for (ptrdiff_t place = 0; place < p->places; place++) {
                ptrdiff_t down, right;
                const ptrdiff_t class_h = fnn_amx_class(&p->rows, &p->h, place / d->s, &down);
                const ptrdiff_t class_w = fnn_amx_class(&p->cols, &p->w, place % d->s, &right);
                const char *x = t->x + (class_h * p->cols.classes + class_w) * p->x_class + c / FNN_AMX_TILE * p->x_tile +
                                (down * p->wide + right) * ROW;
                const fnn_amx_operand a = {t->dy + k / STRIP * p->dy_strip, p->dy_step, FNN_AMX_TILE_BYTES,
                                           FNN_AMX_STRIP_BYTES, NULL};
                const fnn_amx_operand b = {x, 0, p->x_tile, p->x_plane, t->offset};
                const fnn_amx_ahead ahead = ahead_of(t, index++, count, steps);
                p->X->multiply(p->planes, t->k - k > FNN_AMX_TILE ? 2 : 1, t->c - c > FNN_AMX_TILE ? 2 : 1, steps, &a, &b,
                               (float *)(sums_of(p, t, k, c) + place * FNN_AMX_C_BYTES), accumulate,
                               ahead.near ? &ahead : NULL);
            }
}

/* The sums to their part, [panel][place][c][STRIP]. */
static void store_part(const gradient *p, target *t, float *part) {
    for (ptrdiff_t k = 0; k < t->k; k += STRIP)
        for (ptrdiff_t c = 0; c < t->c; c += STRIP)
            for (ptrdiff_t place = 0; place < p->places; place++) {
                const ptrdiff_t panel = (t->first_k + k) / STRIP;
                float *to = part + ((panel * p->places + place) * p->sum.c + t->first_c + c) * STRIP;
                p->X->store_turned(fnn_min(t->k - k, STRIP), fnn_min(t->c - c, STRIP),
                                   (const float *)(sums_of(p, t, k, c) + place * FNN_AMX_C_BYTES), to, STRIP, t->bad);
            }
}

static void run_chunk(void *context, ptrdiff_t chunk, void *scratch) {
    const gradient *p = context;
    const ptrdiff_t boxes = p->c_boxes * p->k_boxes, box = chunk % boxes, part = chunk / boxes;
    target t = {.first_c = box % p->c_boxes * p->box_c, .first_k = box / p->c_boxes * p->box_k, .sums = scratch};
    t.c = fnn_min(p->box_c, p->sum.c - t.first_c), t.k = fnn_min(p->box_k, p->sum.k - t.first_k);
    t.x = t.sums + p->sums_bytes, t.dy = t.x + p->x_bytes;
    t.offset = (ptrdiff_t *)(t.dy + p->dy_bytes);
    t.pixel = (const float **)(t.dy + p->dy_bytes + p->table_bytes);
    for (ptrdiff_t s = 0; s < p->block_images * p->steps; s++)
        t.offset[s] = s / p->steps * p->x_image + s % p->steps * p->step_rows * ROW;
    const ptrdiff_t units = p->image_blocks * p->row_blocks;
    const ptrdiff_t begin = fnn_part_begin(units, p->sum.parts, part), end = fnn_part_begin(units, p->sum.parts, part + 1);
    p->X->begin();
    for (ptrdiff_t u = begin; u < end; u++) {
        t.image = u / p->row_blocks * p->block_images, t.row = u % p->row_blocks * p->block_rows;
        t.images = fnn_min(p->block_images, p->images - t.image);
        t.rows = fnn_min(p->block_rows, p->h.out - t.row);
        split_x(p, &t);
        split_dy(p, &t);
        if (u + 1 < end) find_next(p, &t, (u + 1) / p->row_blocks * p->block_images, (u + 1) % p->row_blocks * p->block_rows);
        else t.next_bytes[0] = t.next_bytes[1] = 0;
        add_products(p, &t, u > begin);
    }
    p->X->end();
    store_part(p, &t, (float *)p->sum.packed + part * p->sum.part_size);
    fnn_amx_raise(p->bad, t.bad);
}

/* ---- the interface ---- */

/* shared: [parts][slots][zeros][staged maps] */
void fnn_conv_amx_gradient_workspace(const fnn_call *call, const fnn_conv_dims *d, fnn_workspace *ws) {
    gradient p;
    fnn_staging staging = {.memory = NULL};
    plan_gradient(&p, call, d);
    fnn_channels_last_of(&staging, call->in[0], 0);
    fnn_channels_last_of(&staging, call->in[1], 0);
    const size_t shared = p.parts_bytes + p.slot_bytes + p.zeros_bytes + staging.bytes;
    if (ws->shared < shared) ws->shared = shared;
    if (ws->scratch < p.scratch) ws->scratch = p.scratch;
}

int fnn_conv_amx_gradient(const fnn_call *call, const fnn_conv_dims *d) {
    gradient p;
    int bad = 0;
    plan_gradient(&p, call, d);
    p.bad = &bad;
    p.sum.packed = call->shared;
    p.sum.slot = (ptrdiff_t *)(p.sum.packed + p.parts_bytes);
    char *zeros = p.sum.packed + p.parts_bytes + p.slot_bytes;
    p.x.zeros = p.dy.zeros = memset(zeros, 0, p.zeros_bytes);
    fnn_staging staging = {.memory = zeros + p.zeros_bytes};
    const fnn_tensor dy = fnn_channels_last_of(&staging, call->in[0], 1);
    const fnn_tensor x = fnn_channels_last_of(&staging, call->in[1], 1);
    p.dy.image = fnn_image_of(&dy);
    p.x.image = fnn_image_of(&x);
    fnn_parallel_for(call, p.sum.parts * p.c_boxes * p.k_boxes, cost_of(&p, d), run_chunk, &p);
    if (bad) return 0;
    fnn_conv_combine(&p.sum);
    return 1;
}

/* conv2d_weight_wide.c: dweight (groups*k, c, r, s) of convolutions with enough channels to fill register tiles.
 *
 * For each kernel position it is a product x^T dy that sums over pixels. gemm_tile reads both where they are, pixel by
 * pixel: nothing is packed, and pixels outside the input are left out instead of multiplied by zero. (Packing x into
 * cells of one tile, dy into panels, or both: 70 to 106 instead of 85 to 113 GFLOP/s on one core of a Zen 4.) Operands
 * that are not channels-last are first copied.
 *
 * The order of summation is fixed by shape: output rows (image by image) form `parts` equal ranges, each summed one
 * after another into its own copy of the gradient; the copies are added in order. Within a part, chunks share out the
 * gradient. */
#include "conv2d.h"

#include <string.h>

enum {
    PARTS_BYTES = 8 << 20,    /* all parts together */
    PART_PIXELS = 256,        /* at least */
    /* of the gradient a chunk works on: it stays in the second-level cache beside its pixels */
    TARGET_BYTES = 320 << 10,
    LEAST_SIDE = 48,          /* channels of a chunk whose reading costs little beside the multiply-adds */
    /* that all tiles take in turn: a tile of the gradient is read and written once for each block */
    BLOCK_PIXELS = 256,
    CHUNKS = 16,
    CHUNK_FLOPS = 4 << 20
};

typedef struct {
    fnn_conv_parts sum;
    fnn_image x, dy;           /* channels-last */
    /* a 1x1 kernel whose tiles hold output channels by input channels, as the gradient does */
    int swapped;
    int direct;                /* swapped, and summed where the gradient is */
    int one_run;               /* pixels of all rows follow one another in both */
    ptrdiff_t rows, cols;      /* of a tile's side of the gradient: channels of a group */
    ptrdiff_t height, tiles;   /* rows in tiles */
    ptrdiff_t tile_chunks, panel_chunks, chunks;
    ptrdiff_t block_rows;      /* output rows of a block */
    size_t x_at, dy_at, slot_at, shared, scratch;
} gradient;

/* ---- plan ---- */

/* Twice the parts cost their zeros and their sum; chunks of half the panels (tiles) read all pixels' rows (columns)
 * once more: whichever moves fewer bytes is next, until there are chunks enough. */
static void split(gradient *p) {
    const fnn_conv_dims *d = p->sum.d;
    const ptrdiff_t size = (ptrdiff_t)fnn_itemsize(p->sum.dtype), pixels = d->n * d->oh * d->ow, places = d->r * d->s;
    const double flops = 2.0 * (double)pixels * (double)(d->groups * d->k * d->c * places);
    ptrdiff_t *parts = &p->sum.parts, *tiles = &p->tile_chunks, *panels = &p->panel_chunks;
    *parts = *tiles = *panels = 1;
    for (;;) {
        const ptrdiff_t chunk_rows = fnn_ceil_div(p->rows, *tiles), chunk_cols = fnn_ceil_div(p->cols, *panels);
        const int large = chunk_rows * chunk_cols * places * size > TARGET_BYTES;
        const ptrdiff_t chunks = *parts * d->groups * *tiles * *panels;
        if (!large && (chunks >= CHUNKS || flops / (double)chunks < 2.0 * CHUNK_FLOPS)) break;
        const ptrdiff_t least = large ? 1 : LEAST_SIDE;
        const int more_tiles = 2 * *tiles <= p->tiles && chunk_rows >= 2 * least,
                  more_panels = 2 * *panels <= p->sum.panels && chunk_cols >= 2 * least,
                  more_parts = !large && pixels >= 2 * *parts * PART_PIXELS && d->n * d->oh >= 2 * *parts &&
                               2 * *parts * p->sum.part_size * size <= PARTS_BYTES;
        const double none = 1e30, for_parts = more_parts ? 3.0 * (double)(*parts * p->sum.part_size) : none;
        const double for_tiles = more_tiles ? (double)(*tiles * pixels) * (double)p->cols : none,
                     for_panels = more_panels ? (double)(*panels * pixels) * (double)p->rows : none;
        if (!more_parts && !more_tiles && !more_panels) break;
        if (for_parts <= for_tiles && for_parts <= for_panels) *parts *= 2;
        else if (for_tiles <= for_panels) *tiles *= 2;
        else *panels *= 2;
    }
}

static int is_channels_last(const fnn_image *t, ptrdiff_t channels) { return channels == 1 || t->c == 1; }

size_t fnn_conv_plan_copy(const fnn_conv_parts *p, const fnn_image *t, ptrdiff_t per_group, ptrdiff_t h, ptrdiff_t w, size_t *at) {
    const size_t here = *at;
    if (is_channels_last(t, per_group)) return here;
    *at += fnn_whole_lines((size_t)(p->d->n * h * w * p->groups * per_group) * fnn_itemsize(p->dtype));
    return here;
}

static void plan_gradient(const fnn_call *call, const fnn_conv_dims *d, gradient *p) {
    const fnn_kernels *K = fnn_kernels_of(call->in[0]->dtype);
    *p = (gradient){.sum = {.call = call, .d = d, .K = K, .dtype = call->in[0]->dtype, .dw = *call->out[0],
                            .groups = d->groups, .c = d->c, .k = d->k},
                    .x = fnn_image_of(call->in[1]),
                    .dy = fnn_image_of(call->in[0])};
    fnn_conv_parts *s = &p->sum;
    p->swapped = d->r * d->s == 1 && d->k * fnn_round_up(d->c, K->lanes) <= d->c * fnn_round_up(d->k, K->lanes);
    p->rows = p->swapped ? d->k : d->c, p->cols = p->swapped ? d->c : d->k;
    s->cols = fnn_min(K->tile_cols, fnn_round_up(p->cols, 8));
    s->panels = fnn_ceil_div(p->cols, s->cols);
    s->part_size = p->swapped ? d->groups * d->k * d->c : d->groups * s->panels * d->r * d->s * d->c * s->cols;
    p->tiles = fnn_ceil_div(p->rows, K->tile_rows);
    p->height = fnn_ceil_div(p->rows, p->tiles);
    split(p);
    p->chunks = s->parts * d->groups * p->tile_chunks * p->panel_chunks;
    p->direct = p->swapped && s->parts == 1 && (d->c == 1 || s->dw.stride[1] == 1);
    p->block_rows = fnn_min(fnn_ceil_div(BLOCK_PIXELS, d->ow), fnn_max(d->n * d->oh, 1));
    p->slot_at = fnn_whole_lines((size_t)(p->direct ? 0 : s->parts * s->part_size) * fnn_itemsize(s->dtype));
    p->shared = p->slot_at + fnn_whole_lines((size_t)(d->r * d->s) * sizeof(ptrdiff_t));
    p->x_at = fnn_conv_plan_copy(s, &p->x, d->c, d->h, d->w, &p->shared);
    p->dy_at = fnn_conv_plan_copy(s, &p->dy, d->k, d->oh, d->ow, &p->shared);
    const size_t tables = (size_t)((2 * p->block_rows + 1) * d->r) * sizeof(ptrdiff_t);
    p->scratch = fnn_whole_lines(tables);
    if (p->scratch < fnn_conv_combine_scratch(s)) p->scratch = fnn_conv_combine_scratch(s);
}

/* ---- operands that are not channels-last ---- */

typedef struct {
    const fnn_conv_parts *p;
    fnn_image from, to;
    ptrdiff_t h, w, channels;
} copying;

static void copy_row(void *context, ptrdiff_t row, void *scratch) {
    (void)scratch;
    const copying *c = context;
    const int dtype = c->p->dtype;
    c->p->K->conv_pack(1, c->w, c->channels, fnn_at(c->from.data, row / c->h * c->from.n + row % c->h * c->from.h, dtype),
                       c->from.w, c->from.c, fnn_at(c->to.data, row * c->to.h, dtype), NULL, c->to.w);
}

void fnn_conv_make_channels_last(const fnn_conv_parts *p, fnn_image *t, ptrdiff_t per_group, ptrdiff_t h, ptrdiff_t w,
                                 size_t at) {
    if (is_channels_last(t, per_group)) return;
    const ptrdiff_t channels = p->groups * per_group, rows = p->d->n * h;
    copying c = {p, *t, {(char *)p->call->shared + at, h * w * channels, 1, w * channels, channels}, h, w, channels};
    fnn_parallel_for(p->call, rows, (double)(rows * w * channels), copy_row, &c);
    *t = c.to;
}

/* ---- a chunk: one part of the pixels, one box of the gradient ---- */

typedef struct {
    ptrdiff_t group, tile, tile_end, panel, panel_end;
    ptrdiff_t first, end, block; /* output rows, counted through all images; how many at a time */
    char *part;
    /* for each kernel row: how many output rows it meets, where theirs begin */
    ptrdiff_t *count, *x_offset, *dy_offset;
    fnn_prefetch next_x, next_dy;            /* of the next block */
    ptrdiff_t quota_x, quota_dy;             /* to ask for before each tile */
} target;

static ptrdiff_t begin(ptrdiff_t extent, ptrdiff_t parts, ptrdiff_t part) { return extent * part / parts; }

/* Outputs lo .. hi - 1 of a row read x at kernel column s inside the input. */
static void valid_columns(const fnn_conv_dims *d, ptrdiff_t s, ptrdiff_t *lo, ptrdiff_t *hi) {
    const ptrdiff_t first = s * d->dilation[1] - d->padding[2], step = d->stride[1];
    *lo = first >= 0 ? 0 : fnn_min(fnn_ceil_div(-first, step), d->ow);
    *hi = first >= d->w ? *lo : fnn_max(fnn_min((d->w - 1 - first) / step + 1, d->ow), *lo);
}

/* Where rows u0 .. u1-1 of the outputs, counted through all images, and what they read begin. */
static void find_rows(const gradient *p, target *t, ptrdiff_t u0, ptrdiff_t u1) {
    const fnn_conv_dims *d = p->sum.d;
    for (ptrdiff_t r = 0; r < d->r; r++) {
        ptrdiff_t n = 0, *x = t->x_offset + r * p->block_rows, *dy = t->dy_offset + r * p->block_rows;
        for (ptrdiff_t u = u0; u < u1; u++) {
            const ptrdiff_t image = u / d->oh, y = u % d->oh * d->stride[0] - d->padding[0] + r * d->dilation[0];
            if (y < 0 || y >= d->h) continue;
            x[n] = image * p->x.n + y * p->x.h + t->group * d->c * p->x.c;
            dy[n++] = image * p->dy.n + u % d->oh * p->dy.h + t->group * d->k * p->dy.c;
        }
        t->count[r] = n;
    }
}

static int is_dense(const fnn_image *t, ptrdiff_t h, ptrdiff_t w) { return t->h == w * t->w && t->n == h * t->h; }

/* Plans to ask for what a block of `next` reads while t's `calls` tiles are computed. */
static void plan_prefetch(const gradient *p, target *t, const target *next, ptrdiff_t u0, ptrdiff_t u1) {
    const fnn_conv_dims *d = p->sum.d;
    const ptrdiff_t size = (ptrdiff_t)fnn_itemsize(p->sum.dtype);
    const ptrdiff_t row = next->tile * p->height, rows = fnn_min(next->tile_end * p->height, p->rows) - row;
    const ptrdiff_t col = next->panel * p->sum.cols, cols = fnn_min(next->panel_end * p->sum.cols, p->cols) - col;
    const ptrdiff_t calls = (t->tile_end - t->tile) * (t->panel_end - t->panel) * d->r * d->s;
    const ptrdiff_t c = next->group * d->c + (p->swapped ? col : row), k = next->group * d->k + (p->swapped ? row
                                                                                                 : col);
    t->next_x.left = t->next_dy.left = 0;
    if (u0 >= u1) return;
    if (is_dense(&p->x, d->h, d->w)) {
        const ptrdiff_t first = u0 / d->oh * d->h + fnn_min(u0 % d->oh * d->stride[0], d->h - 1);
        const ptrdiff_t last = (u1 - 1) / d->oh * d->h + fnn_min((u1 - 1) % d->oh * d->stride[0] + d->r, d->h);
        t->next_x = fnn_prefetch_of(fnn_at(p->x.data, first * p->x.h + c * p->x.c, p->sum.dtype), (last - first) * d->w,
                                    p->x.w * size, (p->swapped ? cols : rows) * size);
    }
    if (is_dense(&p->dy, d->oh, d->ow))
        t->next_dy = fnn_prefetch_of(fnn_at(p->dy.data, u0 * p->dy.h + k * p->dy.c, p->sum.dtype), (u1 - u0) * d->ow,
                                     p->dy.w * size, (p->swapped ? rows : cols) * size);
    t->quota_x = t->next_x.left / calls + 1;
    t->quota_dy = t->next_dy.left / calls + 1;
}

/* The tile's gradient at one kernel position. */
static void add_position(const gradient *p, target *t, ptrdiff_t row, ptrdiff_t col, ptrdiff_t place, int accumulate) {
    const fnn_conv_dims *d = p->sum.d;
    const fnn_conv_parts *sum = &p->sum;
    const ptrdiff_t r = place / d->s, s = place % d->s, first = s * d->dilation[1] - d->padding[2];
    const ptrdiff_t rows = fnn_min(p->height, p->rows - row), cols = fnn_min(sum->cols, p->cols - col);
    ptrdiff_t lo, hi, batch = t->count[r];
    valid_columns(d, s, &lo, &hi);
    ptrdiff_t depth = hi - lo;
    if (p->one_run) depth *= batch, batch = fnn_min(batch, 1);
    const char *x = fnn_at(p->x.data, (lo * d->stride[1] + first) * p->x.w + (p->swapped ? col : row), sum->dtype);
    const char *dy = fnn_at(p->dy.data, lo * p->dy.w + (p->swapped ? row : col), sum->dtype);
    const ptrdiff_t x_col = d->stride[1] * p->x.w, dy_col = p->dy.w, *x_offset = t->x_offset + r * p->block_rows,
                    *dy_offset = t->dy_offset + r * p->block_rows;
    if (p->swapped)
        sum->K->gemm_tile(rows, cols, batch, depth, dy, dy_offset, 1, dy_col, x, x_offset, x_col,
                          fnn_at(t->part, row * (p->direct ? sum->dw.stride[0] : d->c) + col, sum->dtype),
                          p->direct ? sum->dw.stride[0] : d->c, accumulate);
    else
        sum->K->gemm_tile(rows, cols, batch, depth, x, x_offset, 1, x_col, dy, dy_offset, dy_col,
                          fnn_at(t->part, ((col / sum->cols * d->r * d->s + place) * d->c + row) * sum->cols,
                                 sum->dtype),
                          sum->cols, accumulate);
}

static void find_target(const gradient *p, ptrdiff_t chunk, target *t) {
    const ptrdiff_t tile = chunk % p->tile_chunks, panel = chunk / p->tile_chunks % p->panel_chunks;
    const ptrdiff_t rest = chunk / p->tile_chunks / p->panel_chunks, rows = p->sum.d->n * p->sum.d->oh;
    const ptrdiff_t part = rest / p->sum.groups;
    t->group = rest % p->sum.groups;
    t->tile = begin(p->tiles, p->tile_chunks, tile), t->tile_end = begin(p->tiles, p->tile_chunks, tile + 1);
    t->panel = begin(p->sum.panels, p->panel_chunks, panel), t->panel_end = begin(p->sum.panels, p->panel_chunks,
                                                                                  panel + 1);
    t->first = begin(rows, p->sum.parts, part), t->end = begin(rows, p->sum.parts, part + 1);
    t->block = fnn_max(fnn_ceil_div(t->end - t->first, fnn_max(fnn_ceil_div(t->end - t->first, p->block_rows), 1)), 1);
    if (p->direct) t->part = fnn_at(p->sum.dw.data, t->group * p->sum.k * p->sum.dw.stride[0], p->sum.dtype);
    else t->part = fnn_at(p->sum.packed, part * p->sum.part_size + t->group * (p->sum.part_size / p->sum.groups),
                          p->sum.dtype);
}

static void sum_chunk(void *context, ptrdiff_t chunk, void *scratch) {
    const gradient *p = context;
    const fnn_conv_dims *d = p->sum.d;
    target t = {.count = scratch}, after = {0};
    t.x_offset = t.count + d->r, t.dy_offset = t.x_offset + d->r * p->block_rows;
    find_target(p, chunk, &t);
    if (chunk + 1 < p->chunks) find_target(p, chunk + 1, &after);
    ptrdiff_t u = t.first;
    do { /* also without any rows: the gradient is zero then */
        const ptrdiff_t next = fnn_min(u + t.block, t.end);
        find_rows(p, &t, u, next);
        if (next < t.end) plan_prefetch(p, &t, &t, next, fnn_min(next + t.block, t.end));
        else plan_prefetch(p, &t, &after, after.first, fnn_min(after.first + after.block, after.end));
        for (ptrdiff_t i = t.tile; i < t.tile_end; i++)
            for (ptrdiff_t j = t.panel; j < t.panel_end; j++)
                for (ptrdiff_t place = 0; place < d->r * d->s; place++) {
                    fnn_prefetch_some(&t.next_x, t.quota_x);
                    fnn_prefetch_some(&t.next_dy, t.quota_dy);
                    add_position(p, &t, i * p->height, j * p->sum.cols, place, u > t.first);
                }
        u = next;
    } while (u < t.end);
}

/* ---- the sum of the parts of a 1x1 kernel's gradient ---- */

/* Row k of the gradient, of all groups. */
static void combine_row(void *context, ptrdiff_t k, void *scratch) {
    const gradient *p = context;
    const fnn_conv_parts *s = &p->sum;
    const ptrdiff_t c = s->d->c;
    const int dense = c == 1 || s->dw.stride[1] == 1;
    char *row = fnn_at(s->dw.data, k * s->dw.stride[0], s->dtype);
    if (!p->direct) {
        const char *from = fnn_at(s->packed, k * c, s->dtype);
        char *to = dense ? row : scratch;
        if (s->parts == 1) memcpy(to, from, (size_t)c * fnn_itemsize(s->dtype));
        for (ptrdiff_t part = 1; part < s->parts; part++)
            s->K->add(c, (void *const[]){to},
                      (const void *const[]){part > 1 ? to : from, fnn_at(from, part * s->part_size, s->dtype)},
                      (const ptrdiff_t[]){1, 1}, NULL);
        if (!dense) s->K->conv_scatter(1, c, to, c, row, 0, s->dw.stride[1]);
    }
    if (s->call->follower) fnn_follow(s->call, k * c, c); /* only a dense gradient is followed */
}

void fnn_conv_wide_gradient_workspace(const fnn_call *call, const fnn_conv_dims *d, fnn_workspace *ws) {
    gradient p;
    plan_gradient(call, d, &p);
    ws->shared = p.shared;
    ws->scratch = p.scratch;
}

void fnn_conv_wide_gradient(const fnn_call *call, const fnn_conv_dims *d) {
    gradient p;
    plan_gradient(call, d, &p);
    p.sum.packed = call->shared;
    p.sum.slot = (ptrdiff_t *)((char *)call->shared + p.slot_at);
    fnn_conv_make_channels_last(&p.sum, &p.x, d->c, d->h, d->w, p.x_at);
    fnn_conv_make_channels_last(&p.sum, &p.dy, d->k, d->oh, d->ow, p.dy_at);
    p.one_run = d->r * d->s == 1 && d->stride[0] * d->stride[1] == 1 && d->oh == d->h && d->ow == d->w &&
                d->padding[0] + d->padding[2] == 0 && is_dense(&p.x, d->h, d->w) && is_dense(&p.dy, d->oh, d->ow);
    fnn_parallel_for(call, p.chunks, fnn_conv_cost(d, p.sum.dtype), sum_chunk, &p);
    if (!p.swapped) fnn_conv_combine(&p.sum);
    else if (!p.direct || call->follower)
        fnn_parallel_for(call, d->groups * d->k, (double)(p.sum.parts * p.sum.part_size) * 0.1, combine_row, &p);
}

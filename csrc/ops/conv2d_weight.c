/* conv2d_weight.c: dweight (groups*k, c, r, s) = sum over images and output pixels of x (n, groups*c, h, w) times
 * dy (n, groups*k, oh, ow).
 *
 * For each kernel position it is a matrix product x^T dy that sums over pixels: gemm_tile with x as the k-major A (a pixel's
 * channels are neighbours) and dy as B. Positions that fall into the padding are left out of the ranges, so x is read where it
 * is. With few channels, a kernel row's positions and channels are one run of rows in padded scratch.
 *
 * The order of summation is fixed by shape: output rows (image by image) form `parts` equal ranges, each summed one after
 * another into its own copy of the gradient; the copies are added in order. Within a part, chunks share out the gradient. */
#include "conv2d.h"

#include <string.h>

enum {
    PARTS_BYTES = 8 << 20,  /* all parts together */
    PART_PIXELS = 1024,     /* at least, or adding the parts up costs more than a few percent */
    TARGET_BYTES = 640 << 10, /* of the gradient a chunk works on, to stay in the second-level cache */
    BLOCK_BYTES = 384 << 10,  /* of x and dy read again and again meanwhile */
    CHUNKS = 24,
    CHUNK_FLOPS = 8 << 20
};

typedef struct {
    const fnn_conv_dims *d;
    const fnn_kernels *K;
    int dtype;
    fnn_image x, dy;
    fnn_tensor dw;
    int depthwise, staged, merged;
    ptrdiff_t groups, c, k;                 /* as the loops see them: depthwise has one group, c = 1 */
    ptrdiff_t cols, panels, part_size;      /* packed gradient: [group][panel][r][s][c][cols] */
    ptrdiff_t parts, chunk_panels, chunk_c, chunk_r, panel_chunks, c_chunks, r_chunks;
    ptrdiff_t block_rows;                   /* output rows read at a time */
    ptrdiff_t pitch_row, stage_cols;        /* of scratch */
    ptrdiff_t *slot, *valid, *a_offset, *b_offset;
    char *packed, *x_copy, *dy_copy;
    size_t slot_at, offset_at, x_at, dy_at, shared, scratch;
} gradient;

static size_t align(size_t bytes) { return (bytes + 63) & ~(size_t)63; }

/* ---- plan ---- */

static void split_gradient(gradient *p) {
    const fnn_conv_dims *d = p->d;
    ptrdiff_t size = (ptrdiff_t)fnn_itemsize(p->dtype), pixels = d->n * d->oh * d->ow;
    double flops = 2.0 * (double)pixels * (double)(p->groups * p->k * p->c * d->r * d->s);
    ptrdiff_t bytes = p->part_size * size;
    p->parts = fnn_max(fnn_min(fnn_min(PARTS_BYTES / fnn_max(bytes, 1), pixels / PART_PIXELS), fnn_min(32, d->n * d->oh)), 1);
    p->chunk_panels = p->panels, p->chunk_c = p->c, p->chunk_r = d->r;
    for (;;) {
        ptrdiff_t splits = p->groups * fnn_ceil_div(p->panels, p->chunk_panels) * fnn_ceil_div(p->c, p->chunk_c) *
                           fnn_ceil_div(d->r, p->chunk_r);
        ptrdiff_t target = p->chunk_panels * p->cols * p->chunk_c * p->chunk_r * d->s * size;
        int wanted = p->parts * splits < CHUNKS && flops / (double)(p->parts * splits) > 2 * CHUNK_FLOPS;
        if (p->depthwise || (target <= TARGET_BYTES && !wanted)) break;
        /* Halve the longer side: a chunk reads its channels of x and of dy, and these count most when they are few. */
        if (p->chunk_panels > 1 && p->chunk_panels * p->cols >= p->chunk_c) p->chunk_panels = fnn_ceil_div(p->chunk_panels, 2);
        else if (p->chunk_c > 4 * p->K->tile_rows && !p->staged) p->chunk_c = fnn_ceil_div(p->chunk_c, 2);
        else if (p->chunk_r > 1) p->chunk_r = fnn_ceil_div(p->chunk_r, 2);
        else if (p->chunk_panels > 1) p->chunk_panels = fnn_ceil_div(p->chunk_panels, 2);
        else break;
    }
    p->panel_chunks = fnn_ceil_div(p->panels, p->chunk_panels);
    p->c_chunks = fnn_ceil_div(p->c, p->chunk_c);
    p->r_chunks = fnn_ceil_div(d->r, p->chunk_r);
}

static void plan_gradient(const fnn_call *call, const fnn_conv_dims *d, gradient *p) {
    const fnn_tensor *dy = call->in[0], *x = call->in[1];
    ptrdiff_t size = (ptrdiff_t)fnn_itemsize(x->dtype), places = d->r * d->s;
    *p = (gradient){.d = d, .K = fnn_kernels_of(x->dtype), .dtype = x->dtype, .x = fnn_image_of(x), .dy = fnn_image_of(dy),
                    .dw = *call->out[0], .groups = d->groups, .c = d->c, .k = d->k};
    p->depthwise = d->groups > 1 && d->c == 1 && d->k == 1;
    if (p->depthwise) p->k = d->groups, p->groups = 1;
    p->cols = p->depthwise ? p->k : p->K->tile_cols;
    p->panels = fnn_ceil_div(p->k, p->cols);
    p->part_size = p->groups * p->panels * places * p->c * p->cols;
    p->staged = !p->depthwise && d->s > 1 && p->c < p->K->tile_rows;
    p->merged = p->staged && d->dilation[1] == 1;
    split_gradient(p);
    ptrdiff_t channels = p->staged ? p->c : d->groups * d->c;
    p->stage_cols = (d->ow - 1) * d->stride[1] + (d->s - 1) * d->dilation[1] + 1;
    p->pitch_row = p->stage_cols * p->c;
    ptrdiff_t row_bytes = ((p->staged ? p->pitch_row : d->w * channels) * d->stride[0] + d->ow * d->groups * d->k) * size;
    p->block_rows = fnn_min(fnn_max(BLOCK_BYTES / fnn_max(row_bytes, 1), 1), p->staged ? d->oh : d->n * d->oh);
    p->slot_at = align((size_t)(p->parts * p->part_size * size));
    p->offset_at = p->slot_at + align((size_t)(places + 3 * d->r) * sizeof(ptrdiff_t));
    p->x_at = p->offset_at + align((size_t)(2 * (p->staged ? p->block_rows : d->r * d->n * d->oh)) * sizeof(ptrdiff_t));
    int copy_x = !p->staged && p->x.c != 1 && d->groups * d->c > 1, copy_dy = p->dy.c != 1 && d->groups * d->k > 1;
    p->dy_at = p->x_at + (copy_x ? align((size_t)(fnn_numel(x) * size)) : 0);
    p->shared = p->dy_at + (copy_dy ? align((size_t)(fnn_numel(dy) * size)) : 0);
    ptrdiff_t stage_rows = (p->block_rows - 1) * d->stride[0] + (d->r - 1) * d->dilation[0] + 1;
    p->scratch = p->staged ? align((size_t)(stage_rows * p->pitch_row * size)) : 0;
    p->scratch += align((size_t)(p->cols * p->c * places * size)); /* for a dweight that is not dense */
    p->x_copy = copy_x ? (char *)call->shared + p->x_at : NULL;
    p->dy_copy = copy_dy ? (char *)call->shared + p->dy_at : NULL;
}

/* Output positions lo .. hi-1 whose kernel position `tap` lies inside the input. */
static void inside(const fnn_conv_dims *d, int axis, ptrdiff_t tap, ptrdiff_t *lo, ptrdiff_t *hi) {
    ptrdiff_t offset = tap * d->dilation[axis] - d->padding[2 * axis], step = d->stride[axis];
    ptrdiff_t in = axis ? d->w : d->h, out = axis ? d->ow : d->oh;
    ptrdiff_t low = offset >= 0 ? 0 : fnn_ceil_div(-offset, step), high = in - 1 - offset < 0 ? 0 : (in - 1 - offset) / step + 1;
    *lo = fnn_min(low, out);
    *hi = fnn_max(fnn_min(high, out), *lo);
}

static void fill_tables(const fnn_call *call, gradient *p) {
    const fnn_conv_dims *d = p->d;
    p->packed = call->shared;
    p->slot = (ptrdiff_t *)((char *)call->shared + p->slot_at);
    p->valid = p->slot + d->r * d->s;
    p->a_offset = (ptrdiff_t *)((char *)call->shared + p->offset_at);
    p->b_offset = p->a_offset + (p->staged ? p->block_rows : d->r * d->n * d->oh);
    for (ptrdiff_t t = 0; t < d->r * d->s; t++) p->slot[t] = t * p->c * p->cols;
    if (p->staged) {
        for (ptrdiff_t i = 0; i < p->block_rows; i++) p->a_offset[i] = i * d->stride[0] * p->pitch_row, p->b_offset[i] = i * p->dy.h;
        return;
    }
    ptrdiff_t index = 0;
    for (ptrdiff_t r = 0; r < d->r; r++) {
        ptrdiff_t lo, hi;
        inside(d, 0, r, &lo, &hi);
        p->valid[3 * r] = index, p->valid[3 * r + 1] = lo, p->valid[3 * r + 2] = hi;
        for (ptrdiff_t n = 0; n < d->n; n++)
            for (ptrdiff_t o = lo; o < hi; o++, index++) {
                p->a_offset[index] = n * p->x.n + (o * d->stride[0] + r * d->dilation[0] - d->padding[0]) * p->x.h;
                p->b_offset[index] = n * p->dy.n + o * p->dy.h;
            }
    }
}

/* ---- inputs whose channels are not neighbours are copied once ---- */

typedef struct {
    const gradient *p;
    fnn_image from;
    char *to;
    ptrdiff_t channels, rows, cols;
} image_copy;

static void copy_row(void *context, ptrdiff_t row, void *scratch) {
    (void)scratch;
    const image_copy *m = context;
    const char *src = fnn_at(m->from.data, row / m->rows * m->from.n + row % m->rows * m->from.h, m->p->dtype);
    m->p->K->conv_pack(1, m->cols, m->channels, src, m->from.w, m->from.c, fnn_at(m->to, row * m->cols * m->channels, m->p->dtype),
                       NULL, m->channels);
}

static fnn_image channels_last(const fnn_call *call, const gradient *p, fnn_image from, char *to, ptrdiff_t channels, ptrdiff_t rows,
                               ptrdiff_t cols) {
    if (!to) return from;
    image_copy m = {p, from, to, channels, rows, cols};
    ptrdiff_t images = p->d->n;
    fnn_parallel_for(call, images * rows, 0.5 * (double)(images * rows * cols * channels), copy_row, &m);
    return (fnn_image){to, rows * cols * channels, 1, cols * channels, channels};
}

/* ---- a chunk: one part of the pixels, one rectangle of the gradient ---- */

typedef struct {
    ptrdiff_t group, panel, panel_end, c, c_end, r, r_end;
    char *part;
} target;

static char *place_of(const gradient *p, const target *t, ptrdiff_t panel, ptrdiff_t r, ptrdiff_t s, ptrdiff_t c) {
    const fnn_conv_dims *d = p->d;
    return fnn_at(t->part, ((((t->group * p->panels + panel) * d->r + r) * d->s + s) * p->c + c) * p->cols, p->dtype);
}

static ptrdiff_t clamp(ptrdiff_t v, ptrdiff_t lo, ptrdiff_t hi) { return fnn_min(fnn_max(v, lo), hi); }

/* Output rows u0 .. u1-1, counted through all images; x where it is. */
static void add_rows(const gradient *p, const target *t, ptrdiff_t u0, ptrdiff_t u1) {
    const fnn_conv_dims *d = p->d;
    for (ptrdiff_t panel = t->panel; panel < t->panel_end; panel++) {
        ptrdiff_t first = panel * p->cols, cols = fnn_min(p->cols, p->k - first);
        for (ptrdiff_t r = t->r; r < t->r_end; r++) {
            ptrdiff_t index = p->valid[3 * r], lo = p->valid[3 * r + 1], hi = p->valid[3 * r + 2];
            ptrdiff_t from = index + u0 / d->oh * (hi - lo) + clamp(u0 % d->oh, lo, hi) - lo;
            ptrdiff_t to = index + u1 / d->oh * (hi - lo) + clamp(u1 % d->oh, lo, hi) - lo;
            for (ptrdiff_t s = 0; s < d->s; s++) {
                ptrdiff_t left, right;
                inside(d, 1, s, &left, &right);
                if (from >= to || left >= right) continue;
                ptrdiff_t column = left * d->stride[1] + s * d->dilation[1] - d->padding[2];
                const char *a = fnn_at(p->x.data, column * p->x.w + t->group * p->c + t->c, p->dtype);
                const char *b = fnn_at(p->dy.data, left * p->dy.w + t->group * p->k + first, p->dtype);
                char *out = place_of(p, t, panel, r, s, t->c);
                if (p->depthwise)
                    for (ptrdiff_t i = from; i < to; i++)
                        p->K->conv_depthwise_gradient(right - left, cols, fnn_at(a, p->a_offset[i], p->dtype), d->stride[1] * p->x.w,
                                                      fnn_at(b, p->b_offset[i], p->dtype), p->dy.w, out);
                else
                    p->K->gemm_tile(t->c_end - t->c, cols, to - from, right - left, a, p->a_offset + from, 1, d->stride[1] * p->x.w, b,
                                    p->b_offset + from, p->dy.w, out, p->cols, 1);
            }
        }
    }
}

/* Padded rows of x for `rows` output rows of image n from `row` on: scratch [row][stage_cols][c]. */
static void stage_rows(const gradient *p, ptrdiff_t group, ptrdiff_t n, ptrdiff_t row, ptrdiff_t rows, char *scratch) {
    const fnn_conv_dims *d = p->d;
    ptrdiff_t size = (ptrdiff_t)fnn_itemsize(p->dtype), lo = fnn_min(d->padding[2], p->stage_cols);
    ptrdiff_t hi = clamp(d->padding[2] + d->w, lo, p->stage_cols), y = row * d->stride[0] - d->padding[0];
    for (ptrdiff_t i = 0, count = (rows - 1) * d->stride[0] + (d->r - 1) * d->dilation[0] + 1; i < count; i++, y++) {
        char *dst = scratch + i * p->pitch_row * size;
        if (y < 0 || y >= d->h) {
            memset(dst, 0, (size_t)(p->pitch_row * size));
            continue;
        }
        memset(dst, 0, (size_t)(lo * p->c * size));
        if (hi > lo)
            p->K->conv_pack(1, hi - lo, p->c, fnn_at(p->x.data, n * p->x.n + group * p->c * p->x.c + y * p->x.h, p->dtype), p->x.w,
                            p->x.c, dst + lo * p->c * size, NULL, p->c);
        memset(dst + hi * p->c * size, 0, (size_t)((p->stage_cols - hi) * p->c * size));
    }
}

/* Output rows row .. row+rows-1 of image n, x from padded scratch. */
static void add_staged(const gradient *p, const target *t, ptrdiff_t n, ptrdiff_t row, ptrdiff_t rows, char *scratch) {
    const fnn_conv_dims *d = p->d;
    stage_rows(p, t->group, n, row, rows, scratch);
    for (ptrdiff_t panel = t->panel; panel < t->panel_end; panel++) {
        ptrdiff_t first = panel * p->cols, cols = fnn_min(p->cols, p->k - first);
        const char *b = fnn_at(p->dy.data, n * p->dy.n + row * p->dy.h + t->group * p->k + first, p->dtype);
        for (ptrdiff_t r = t->r; r < t->r_end; r++)
            for (ptrdiff_t s = 0; s < (p->merged ? 1 : d->s); s++)
                p->K->gemm_tile((p->merged ? d->s : 1) * p->c, cols, rows, d->ow,
                                fnn_at(scratch, r * d->dilation[0] * p->pitch_row + s * d->dilation[1] * p->c, p->dtype), p->a_offset, 1,
                                d->stride[1] * p->c, b, p->b_offset, p->dy.w, place_of(p, t, panel, r, s, 0), p->cols, 1);
    }
}

static void sum_chunk(void *context, ptrdiff_t chunk, void *scratch) {
    const gradient *p = context;
    const fnn_conv_dims *d = p->d;
    ptrdiff_t rest = chunk, size = (ptrdiff_t)fnn_itemsize(p->dtype), rows = d->n * d->oh;
    target t;
    t.r = rest % p->r_chunks * p->chunk_r, rest /= p->r_chunks;
    t.c = rest % p->c_chunks * p->chunk_c, rest /= p->c_chunks;
    t.panel = rest % p->panel_chunks * p->chunk_panels, rest /= p->panel_chunks;
    t.group = rest % p->groups, rest /= p->groups;
    t.r_end = fnn_min(t.r + p->chunk_r, d->r);
    t.c_end = fnn_min(t.c + p->chunk_c, p->c);
    t.panel_end = fnn_min(t.panel + p->chunk_panels, p->panels);
    t.part = fnn_at(p->packed, rest * p->part_size, p->dtype);
    for (ptrdiff_t panel = t.panel; panel < t.panel_end; panel++)
        for (ptrdiff_t r = t.r; r < t.r_end; r++)
            for (ptrdiff_t s = 0; s < d->s; s++)
                memset(place_of(p, &t, panel, r, s, t.c), 0, (size_t)((t.c_end - t.c) * p->cols * size));
    for (ptrdiff_t u = rows * rest / p->parts, end = rows * (rest + 1) / p->parts, n; u < end; u += n) {
        n = fnn_min(p->block_rows, end - u);
        if (p->staged) n = fnn_min(n, d->oh - u % d->oh), add_staged(p, &t, u / d->oh, u % d->oh, n, scratch);
        else add_rows(p, &t, u, u + n);
    }
}

/* ---- the sum of the parts, as (k, c, r, s) ---- */

static void combine_panel(void *context, ptrdiff_t index, void *scratch) {
    const gradient *p = context;
    const fnn_conv_dims *d = p->d;
    ptrdiff_t group = index / p->panels, first = index % p->panels * p->cols, cols = fnn_min(p->cols, p->k - first);
    ptrdiff_t places = d->r * d->s, row = p->c * places, k = group * p->k + first;
    const fnn_tensor *dw = &p->dw;
    const char *src = fnn_at(p->packed, index * places * p->c * p->cols, p->dtype);
    char *dst = fnn_at(dw->data, k * dw->stride[0], p->dtype);
    int dense = (d->s == 1 || dw->stride[3] == 1) && (d->r == 1 || dw->stride[2] == d->s) && (p->c == 1 || dw->stride[1] == places);
    p->K->conv_combine(places, p->c, cols, p->parts, src, p->part_size, p->slot, p->cols, dense ? dst : scratch,
                       dense ? dw->stride[0] : row);
    if (dense) return;
    for (ptrdiff_t j = 0; j < cols; j++)
        for (ptrdiff_t c = 0; c < p->c; c++)
            p->K->conv_scatter(d->r, d->s, fnn_at(scratch, j * row + c * places, p->dtype), d->s,
                               fnn_at(dst, j * dw->stride[0] + c * dw->stride[1], p->dtype), dw->stride[2], dw->stride[3]);
}

void fnn_conv_weight_gradient_workspace(const fnn_call *call, const fnn_conv_dims *d, fnn_workspace *ws) {
    gradient p;
    plan_gradient(call, d, &p);
    ws->shared = p.shared;
    ws->scratch = p.scratch;
}

void fnn_conv_weight_gradient(const fnn_call *call, const fnn_conv_dims *d) {
    gradient p;
    plan_gradient(call, d, &p);
    p.dy = channels_last(call, &p, p.dy, p.dy_copy, d->groups * d->k, d->oh, d->ow);
    p.x = channels_last(call, &p, p.x, p.x_copy, d->groups * d->c, d->h, d->w);
    fill_tables(call, &p);
    ptrdiff_t chunks = p.parts * p.groups * p.panel_chunks * p.c_chunks * p.r_chunks;
    fnn_parallel_for(call, chunks, fnn_conv_cost(d, p.dtype), sum_chunk, &p);
    fnn_parallel_for(call, p.groups * p.panels, (double)(p.parts * p.part_size), combine_panel, &p);
}

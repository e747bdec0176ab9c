/* conv2d_columns.c: gradients of inputs with few channels, as of first layers, and transposed convolutions that end in images.
 *
 * What a pixel of dy adds to its window of dx is one row of a matrix product, dy (pixels x k) times the weights (k x columns),
 * whose columns are the window's elements (col2im). Tiles are full however few channels dx has, dy is read where it is, once for
 * all phases of a stride, and no tap is multiplied with zeros. In a channels-last image a row of a window is one run of
 * neighbours: a block of rows of dx collects them in scratch that is padded, so that no window needs a bound.
 *
 * An element of dx is the sum, over the pixels that reach it, of one chain of multiply-adds over k each. */
#include "conv2d.h"

#include <string.h>

enum {
    COLUMNS_BYTES = 32 << 10, /* of windows at a time: what the first-level cache takes */
    ROWS_BYTES = 96 << 10,    /* of dx's rows at a time */
    CHUNKS = 16,              /* wanted, when each has CHUNK_FLOPS to do */
    CHUNK_FLOPS = 4 << 20
};

/* ---- which way ---- */

/* A window's row is one run of neighbours only where no dilation parts them, and of one group. */
int fnn_conv_columns_can(const fnn_conv_dims *d) { return d->groups == 1 && d->dilation[1] == 1 && d->r * d->s > 1; }

/* The costs below were measured over kernels of 2 to 5, 1 to 8 channels, k of 2 to 64. */
double fnn_conv_columns_cost(const fnn_conv_dims *d, const fnn_kernels *K) {
    const ptrdiff_t columns = d->r * d->s * d->c, computed = fnn_round_up(columns, K->lanes);
    return (double)(computed * d->k) + 8 * (double)columns + 40 * (double)fnn_ceil_div(columns, K->tile_cols);
}

/* Every phase stages dy anew (conv2d_narrow.c), unless none has more than one tap: channels are then lanes as they are. */
double fnn_conv_phases_cost(const fnn_conv_dims *d, const fnn_kernels *K) {
    const double phases = (double)(d->stride[0] * d->stride[1]), k = (double)d->k, columns = (double)(d->r * d->s * d->c);
    if (d->r <= d->stride[0] && d->s <= d->stride[1])
        return k * (double)(d->r * d->s * fnn_round_up(d->c, K->lanes)) + 50 * phases;
    if (d->c > fnn_few_channels(K)) return 0;
    return 1.2 * k * columns + phases * (10 * k + 50);
}

/* ---- the plan ---- */

typedef struct {
    const fnn_kernels *K;
    int dtype;
    const fnn_conv_dims *d;
    fnn_image dy, dx;
    const char *bias; /* a row of pixels, or NULL */
    ptrdiff_t run, columns, cols; /* elements of a window's row, of a window, of a panel of weights */
    ptrdiff_t pixels, pitch;      /* of the windows in scratch: so many, so far apart */
    ptrdiff_t rows, row_pitch;    /* of dx in scratch: so many, so far apart */
    size_t columns_at, dy_at, scratch_bytes;
    char *packed;
} columns_plan;

static size_t round_bytes(ptrdiff_t count, int dtype) { return fnn_whole_lines((size_t)count * fnn_itemsize(dtype)); }

static size_t packed_bytes(const columns_plan *p) { return round_bytes(fnn_round_up(p->columns, p->cols) * p->d->k, p->dtype); }

/* The bias, then a row of pixels of it. */
static size_t bias_bytes(const fnn_call *call, const columns_plan *p) {
    return call->in[2] ? round_bytes(p->d->c, p->dtype) + round_bytes(p->d->w * p->d->c, p->dtype) : 0;
}

/* Rows of dx together: many, as the windows at a block's edges are computed for both blocks, but enough blocks for all threads. */
static ptrdiff_t rows_together(const columns_plan *p) {
    const fnn_conv_dims *d = p->d;
    const ptrdiff_t row_bytes = p->row_pitch * (ptrdiff_t)fnn_itemsize(p->dtype);
    const double flops = 2.0 * (double)(d->n * d->oh * d->ow) * (double)(d->k * p->columns);
    ptrdiff_t rows = d->h;
    while (rows > d->r * d->dilation[0]) {
        const ptrdiff_t chunks = d->n * fnn_ceil_div(d->h, rows);
        if (rows * row_bytes <= ROWS_BYTES && (chunks >= CHUNKS || flops / (double)chunks <= CHUNK_FLOPS)) break;
        rows = fnn_ceil_div(rows, 2);
    }
    return rows;
}

static columns_plan plan_of(const fnn_call *call, const fnn_conv_dims *d) {
    const int dtype = call->in[0]->dtype;
    const fnn_kernels *K = fnn_kernels_of(dtype);
    columns_plan p = {.K = K, .dtype = dtype, .d = d, .dy = fnn_image_of(call->in[0]), .dx = fnn_image_of(call->out[0])};
    p.run = d->s * d->c;
    p.columns = d->r * p.run;
    p.cols = K->tile_cols;
    p.pitch = fnn_round_up(p.columns, p.cols);
    const ptrdiff_t fit = COLUMNS_BYTES / (p.pitch * (ptrdiff_t)fnn_itemsize(dtype));
    p.pixels = fnn_min(fnn_max(fit / K->tile_rows, 1) * K->tile_rows, fnn_max(d->ow, 1));
    p.row_pitch = fnn_max((d->ow - 1) * d->stride[1] * d->c + p.run, (d->padding[2] + d->w) * d->c);
    p.row_pitch = fnn_round_up(p.row_pitch + K->lanes, K->lanes); /* a run's last vector is stored whole */
    p.rows = rows_together(&p);
    p.columns_at = round_bytes(p.rows * p.row_pitch, dtype);
    p.dy_at = p.columns_at + round_bytes(p.pixels * p.pitch, dtype);
    p.scratch_bytes = p.dy_at + (p.dy.c == 1 ? 0 : round_bytes(p.pixels * d->k, dtype));
    return p;
}

void fnn_conv_columns_workspace(const fnn_call *call, const fnn_conv_dims *d, fnn_workspace *ws) {
    const columns_plan p = plan_of(call, d);
    ws->shared = bias_bytes(call, &p) + packed_bytes(&p);
    ws->scratch = p.scratch_bytes;
}

/* ---- the work ---- */

/* weight (k, c, r, s) to panels [panel][k][cols], columns in the order (r, s, c) of a channels-last window. */
static void pack_weight(const columns_plan *p, const fnn_tensor *weight) {
    const fnn_conv_dims *d = p->d;
    for (ptrdiff_t column = 0; column < p->columns; column++) {
        const ptrdiff_t r = column / p->run, s = column % p->run / d->c, c = column % d->c;
        const ptrdiff_t from = c * weight->stride[1] + r * weight->stride[2] + s * weight->stride[3];
        const ptrdiff_t to = column / p->cols * p->cols * d->k + column % p->cols;
        p->K->conv_scatter(d->k, 1, fnn_at(weight->data, from, p->dtype), weight->stride[0], fnn_at(p->packed, to, p->dtype),
                           p->cols, 1);
    }
}

/* Rows `first` .. `end - 1` of the windows of so many pixels of dy: columns of theirs in scratch, as whole panels. */
static void multiply(const columns_plan *p, const char *dy, ptrdiff_t pixels, ptrdiff_t first, ptrdiff_t end, char *columns,
                     char *copy) {
    const ptrdiff_t k = p->d->k;
    ptrdiff_t dy_pixel = p->dy.w;
    if (p->dy.c != 1) {
        p->K->conv_pack(1, pixels, k, dy, p->dy.w, p->dy.c, copy, NULL, k);
        dy = copy, dy_pixel = k;
    }
    for (ptrdiff_t j = first * p->run / p->cols * p->cols, n; j < end * p->run; j += n) {
        n = fnn_min(p->cols, fnn_round_up(p->columns - j, p->K->lanes));
        p->K->gemm_tile(pixels, n, 1, k, dy, NULL, dy_pixel, 1, fnn_at(p->packed, j * k, p->dtype), NULL, p->cols,
                        fnn_at(columns, j, p->dtype), p->pitch, 0);
    }
}

/* Adds what row `oh` of dy gives to rows `row` .. `row + rows - 1` of an image of dx. */
static void add_row(const columns_plan *p, ptrdiff_t image, ptrdiff_t oh, ptrdiff_t row, ptrdiff_t rows, char *scratch) {
    const fnn_conv_dims *d = p->d;
    const ptrdiff_t gap = d->dilation[0], top = oh * d->stride[0] - d->padding[0] - row; /* the window's first row */
    const ptrdiff_t first = top >= 0 ? 0 : fnn_ceil_div(-top, gap), end = fnn_min(fnn_ceil_div(rows - top, gap), d->r);
    char *columns = scratch + p->columns_at;
    for (ptrdiff_t ow = 0, n; ow < d->ow && first < end; ow += n) {
        n = fnn_min(p->pixels, d->ow - ow);
        multiply(p, fnn_at(p->dy.data, image * p->dy.n + oh * p->dy.h + ow * p->dy.w, p->dtype), n, first, end, columns,
                 scratch + p->dy_at);
        const ptrdiff_t step = d->stride[1] * d->c;
        p->K->conv_add_windows(n, end - first, p->run, fnn_at(columns, first * p->run, p->dtype), p->pitch,
                               fnn_at(scratch, (top + first * gap) * p->row_pitch + ow * step, p->dtype), gap * p->row_pitch, step);
    }
}

static void store_row(const columns_plan *p, const char *from, char *to) {
    const ptrdiff_t c = p->d->c, w = p->d->w;
    if (p->dx.c == 1 && p->dx.w == c) memcpy(to, from, (size_t)(w * c) * fnn_itemsize(p->dtype));
    else p->K->conv_scatter(w, c, from, c, to, p->dx.w, p->dx.c);
}

/* A block of rows of an image of dx. */
static void compute_rows(void *context, ptrdiff_t chunk, void *scratch) {
    const columns_plan *p = context;
    const fnn_conv_dims *d = p->d;
    const ptrdiff_t blocks = fnn_ceil_div(d->h, p->rows), image = chunk / blocks, row = chunk % blocks * p->rows;
    const ptrdiff_t rows = fnn_min(p->rows, d->h - row), reach = (d->r - 1) * d->dilation[0];
    const ptrdiff_t last = row + rows - 1 + d->padding[0], first = fnn_max(row + d->padding[0] - reach, 0);
    p->K->conv_fill(rows, p->row_pitch, NULL, scratch, p->row_pitch, 1);
    for (ptrdiff_t oh = fnn_ceil_div(first, d->stride[0]); oh < d->oh && oh * d->stride[0] <= last; oh++)
        add_row(p, image, oh, row, rows, scratch);
    for (ptrdiff_t i = 0; i < rows; i++) {
        char *from = fnn_at(scratch, i * p->row_pitch + d->padding[2] * d->c, p->dtype);
        if (p->bias) p->K->gemm_epilogue(1, d->w * d->c, from, p->row_pitch, p->bias, NULL, 0, FNN_ACT_NONE);
        store_row(p, from, fnn_at(p->dx.data, image * p->dx.n + (row + i) * p->dx.h, p->dtype));
    }
}

/* The bias repeated for each pixel of a row. */
static const char *bias_row(const fnn_call *call, const columns_plan *p) {
    const void *bias = fnn_conv_dense_bias(call, call->shared);
    char *row = (char *)call->shared + round_bytes(p->d->c, p->dtype);
    if (bias) p->K->conv_fill(p->d->w, p->d->c, bias, row, p->d->c, 1);
    return bias ? row : NULL;
}

void fnn_conv_columns_gradient(const fnn_call *call, const fnn_conv_dims *d) {
    columns_plan p = plan_of(call, d);
    p.packed = (char *)call->shared + bias_bytes(call, &p);
    p.bias = bias_row(call, &p);
    pack_weight(&p, call->in[1]);
    const double flops = 2.0 * (double)(d->n * d->oh * d->ow) * (double)(d->k * p.columns);
    fnn_parallel_for(call, d->n * fnn_ceil_div(d->h, p.rows), flops / 100, compute_rows, &p);
    fnn_follow_all(call, NULL);
}

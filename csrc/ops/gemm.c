/* gemm.c: the one matrix product behind linear layers and matmul.
 *
 * C is cut into a grid of row blocks and column blocks, one chunk each, sized by shape alone. A chunk walks k in blocks; for
 * each it packs its columns of B into panels as wide as the register tile, so that they stay in its core's second-level cache,
 * then takes as many rows of A as the first-level cache holds and multiplies them with one panel after the other (the loops of
 * Goto and van de Geijn, ACM TOMS 34(3), 2008, with B in the place of A). Packing per chunk repeats some packing, at most one
 * row's work in ROW_BLOCK, and in return needs no second parallel loop, no shared buffer, and finds what it packed in cache. */
#include "gemm.h"

#include <string.h>

enum {
    ROW_BLOCK = 256,      /* most rows of C in a chunk */
    PANEL_BLOCK = 16,     /* most panels of B in a chunk: with DEPTH_BLOCK, 0.8 MB */
    DEPTH_BLOCK = 384,    /* longest block of k for float32, half of it for float64 */
    NEAR_BYTES = 22528,   /* rows of A kept in the first-level cache */
    DOT_LIMIT = 8,        /* inner products: most rows (or columns) of C ... */
    DOT_DEPTH = 32,       /* ... and least K */
    MAX_CHUNKS = 48
};
static const double CHUNK_NS = 6000;

/* ---- what it costs ---- */

static ptrdiff_t batches(const fnn_gemm *g) {
    ptrdiff_t n = 1;
    for (int d = 0; d < g->batch_rank; d++) n *= g->batch_shape[d];
    return n;
}

/* 9 flop/ns for each lane is what one core of the reference machine reaches on all ISAs (bench/bench_gemm.py); memory gives
 * about 10 GB/s. */
double fnn_gemm_cost(const fnn_gemm *g) {
    const fnn_kernels *K = fnn_kernels_of(g->dtype);
    double count = (double)batches(g), M = (double)g->M, N = (double)fnn_round_up(g->N, K->lanes), depth = (double)g->K;
    double bytes = ((double)g->M * (double)g->N + depth * ((double)g->M + (double)g->N)) * (double)fnn_itemsize(g->dtype);
    return count * (2 * M * N * depth / (9 * (double)K->lanes) + 0.05 * bytes);
}

static ptrdiff_t wanted_chunks(const fnn_gemm *g) {
    double chunks = fnn_gemm_cost(g) / CHUNK_NS;
    return chunks > MAX_CHUNKS ? MAX_CHUNKS : (ptrdiff_t)chunks + 1;
}

/* ---- the plan ---- */

typedef struct {
    const fnn_gemm *g;
    const fnn_kernels *K;
    ptrdiff_t size; /* of an element */
    ptrdiff_t batches, row_blocks, col_blocks, panels;
    ptrdiff_t depth;     /* of a k block */
    ptrdiff_t near_rows; /* of A at a time */
    ptrdiff_t a_stride;  /* between rows of A's copy: never such that they share cache sets */
} plan;

static ptrdiff_t begin(ptrdiff_t extent, ptrdiff_t parts, ptrdiff_t part) { return extent * part / parts; }

static void make_plan(plan *p, const fnn_gemm *g) {
    memset(p, 0, sizeof *p);
    p->g = g;
    p->K = fnn_kernels_of(g->dtype);
    p->size = (ptrdiff_t)fnn_itemsize(g->dtype);
    p->batches = batches(g);
    p->panels = fnn_ceil_div(g->N, p->K->tile_cols);
    p->row_blocks = fnn_ceil_div(g->M, ROW_BLOCK);
    p->col_blocks = fnn_ceil_div(p->panels, PANEL_BLOCK);
    for (ptrdiff_t wanted = wanted_chunks(g); p->batches * p->row_blocks * p->col_blocks < wanted;) {
        ptrdiff_t rows = g->M / p->row_blocks, panels = p->panels / p->col_blocks;
        int may_rows = rows >= 2 * p->K->tile_rows, may_cols = panels >= 2;
        if (!may_rows && !may_cols) break;
        if (may_cols && (panels > 4 || !may_rows || rows <= ROW_BLOCK / 2)) p->col_blocks++;
        else p->row_blocks++;
    }
    ptrdiff_t longest = DEPTH_BLOCK * 4 / p->size;
    p->depth = fnn_round_up(fnn_ceil_div(g->K, fnn_max(fnn_ceil_div(g->K, longest), 1)), 4);
    ptrdiff_t fit = NEAR_BYTES / (p->size * fnn_max(p->depth, 1)) / p->K->tile_rows * p->K->tile_rows;
    p->near_rows = fnn_min(fnn_max(fit, p->K->tile_rows), fnn_ceil_div(g->M, p->row_blocks));
    p->a_stride = p->depth + (p->depth * p->size % 512 ? 0 : 64 / p->size);
}

static size_t copy_bytes(const plan *p) { /* either way round, see copy_rows */
    ptrdiff_t rows = fnn_round_up(p->near_rows, 16);
    return (size_t)fnn_round_up(rows * fnn_max(p->a_stride, 1) * p->size, 64);
}

static size_t panel_bytes(const plan *p) {
    return (size_t)(p->K->tile_cols * p->depth * p->size * fnn_ceil_div(p->panels, fnn_max(p->col_blocks, 1)));
}

/* ---- one chunk ---- */

typedef struct {
    const char *a, *b;
    char *c;
    ptrdiff_t row, rows, col, cols; /* the block of C */
    char *copy, *packed;            /* scratch */
} block;

static void seek(const plan *p, ptrdiff_t index, block *w) {
    const fnn_gemm *g = p->g;
    ptrdiff_t a = 0, b = 0, c = 0;
    for (int d = g->batch_rank - 1; d >= 0; d--) {
        ptrdiff_t at = index % g->batch_shape[d];
        index /= g->batch_shape[d];
        a += at * g->a.batch[d], b += at * g->b.batch[d], c += at * g->c.batch[d];
    }
    w->a = (const char *)g->a.data + a * p->size;
    w->b = (const char *)g->b.data + b * p->size;
    w->c = (char *)g->c.data + c * p->size;
}

/* Rows of A that can be read where they are, without their lines evicting each other: other rows are copied if used often. */
static int near_in_place(const plan *p, const block *w) {
    const fnn_matrix *a = &p->g->a;
    if (w->cols <= 2 * p->K->tile_cols) return 1;
    if (a->col == 1) return a->row * p->size % 2048 != 0 || w->rows <= 4;
    return a->row == 1 && p->depth * fnn_max(a->col, -a->col) * p->size <= NEAR_BYTES;
}

/* B is read where it is when few rows use it, or its rows are narrow enough to be neighbours. */
static int far_in_place(const plan *p, const block *w) {
    const fnn_matrix *b = &p->g->b;
    if (b->col != 1 && w->cols > 1) return 0;
    return w->rows <= 3 * p->K->tile_rows || p->depth * fnn_max(b->row, -b->row) * p->size <= NEAR_BYTES || b->row == w->cols;
}

typedef struct {
    const char *data;
    ptrdiff_t row, col;
} view;

/* n rows of A from row i and k on, in scratch: row by row, or k by k if that is how they lie. */
static view copy_rows(const plan *p, const block *w, ptrdiff_t i, ptrdiff_t n, ptrdiff_t k, ptrdiff_t depth) {
    const fnn_matrix *a = &p->g->a;
    const char *from = w->a + (i * a->row + k * a->col) * p->size;
    if (a->row == 1 && a->col != 1) {
        ptrdiff_t stride = fnn_round_up(n, 16);
        p->K->gemm_pack(depth, n, from, a->col, 1, w->copy, stride);
        return (view){w->copy, 1, stride};
    }
    p->K->gemm_pack(n, depth, from, a->row, a->col, w->copy, p->a_stride);
    return (view){w->copy, p->a_stride, 1};
}

static void epilogue(const plan *p, const block *w, ptrdiff_t i, ptrdiff_t rows, ptrdiff_t j, ptrdiff_t cols) {
    const fnn_gemm *g = p->g;
    const fnn_epilogue *e = &g->epilogue;
    if (!e->bias && !e->residual && !e->activation) return;
    p->K->gemm_epilogue(rows, cols, w->c + (i * g->c.row + j) * p->size, g->c.row,
                        e->bias ? (const char *)e->bias + j * p->size : NULL,
                        e->residual ? (const char *)e->residual + (i * g->residual_row + j) * p->size : NULL, g->residual_row,
                        e->activation);
}

/* The block's product over k in [k, k + depth). */
static void multiply(const plan *p, const block *w, ptrdiff_t k, ptrdiff_t depth) {
    const fnn_gemm *g = p->g;
    const ptrdiff_t wide = p->K->tile_cols, panel = wide * depth * p->size;
    const int a_in_place = near_in_place(p, w), b_in_place = far_in_place(p, w), last = k + depth >= g->K;
    const char *b = w->b + k * g->b.row * p->size;
    if (!b_in_place)
        for (ptrdiff_t j = 0; j < w->cols; j += wide)
            p->K->gemm_pack(depth, fnn_min(wide, w->cols - j), b + (w->col + j) * g->b.col * p->size, g->b.row, g->b.col,
                            w->packed + j / wide * panel, wide);
    ptrdiff_t steps = fnn_ceil_div(w->rows, p->near_rows);
    for (ptrdiff_t s = 0; s < steps; s++) {
        ptrdiff_t i = w->row + begin(w->rows, steps, s), n = w->row + begin(w->rows, steps, s + 1) - i;
        view a = {w->a + (i * g->a.row + k * g->a.col) * p->size, g->a.row, g->a.col};
        if (!a_in_place) a = copy_rows(p, w, i, n, k, depth);
        for (ptrdiff_t j = 0; j < w->cols; j += wide) {
            ptrdiff_t cols = fnn_min(wide, w->cols - j);
            const char *from = b_in_place ? b + (w->col + j) * p->size : w->packed + j / wide * panel;
            p->K->gemm_tile(n, cols, 1, depth, a.data, NULL, a.row, a.col, from, NULL, b_in_place ? g->b.row : wide,
                            w->c + (i * g->c.row + w->col + j) * p->size, g->c.row, k > 0);
            if (last) epilogue(p, w, i, n, w->col + j, cols);
        }
    }
}

/* C block: rows x cols at (row, col) of one batch position. */
static void run_chunk(void *context, ptrdiff_t chunk, void *scratch) {
    const plan *p = context;
    const fnn_gemm *g = p->g;
    ptrdiff_t r = chunk % p->row_blocks, s = chunk / p->row_blocks % p->col_blocks;
    block w;
    seek(p, chunk / p->row_blocks / p->col_blocks, &w);
    w.row = begin(g->M, p->row_blocks, r);
    w.rows = begin(g->M, p->row_blocks, r + 1) - w.row;
    w.col = begin(p->panels, p->col_blocks, s) * p->K->tile_cols;
    w.cols = fnn_min(begin(p->panels, p->col_blocks, s + 1) * p->K->tile_cols, g->N) - w.col;
    w.copy = scratch;
    w.packed = (char *)scratch + copy_bytes(p);
    ptrdiff_t k = 0;
    do {
        ptrdiff_t depth = fnn_min(p->depth, g->K - k);
        multiply(p, &w, k, depth);
        k += depth;
    } while (k < g->K);
}

/* ---- operands in other forms ---- */

/* x's axes [0, to) seen as one: its stride; 0 when no single stride describes them. */
static int merge_axes(const fnn_tensor *x, int to, ptrdiff_t *stride) {
    int first = 1;
    ptrdiff_t next = 0;
    *stride = 1;
    for (int d = to - 1; d >= 0; d--) {
        if (x->shape[d] == 1) continue;
        if (first) *stride = x->stride[d];
        else if (x->stride[d] != next) return 0;
        next = x->stride[d] * x->shape[d];
        first = 0;
    }
    return 1;
}

/* Copies `from` into `to`: the same shape and dtype, other strides. */
static void restride(const fnn_call *call, fnn_tensor *to, const fnn_tensor *from) {
    fnn_call copy = {.op = FNN_OP_copy, .out = {to}, .in = {from}, .flush = call->flush};
    copy.attr.i[0] = -1;
    fnn_copy.run(&copy);
}

/* A tensor of x's shape in C order, in the staging's memory. */
static fnn_tensor staged(fnn_staging *s, const fnn_tensor *x) {
    fnn_tensor t;
    fnn_set_shape_contiguous(&t, x->dtype, x->rank, x->shape);
    size_t bytes = (size_t)fnn_round_up(fnn_numel(x) * (ptrdiff_t)fnn_itemsize(x->dtype), 64);
    t.data = s->call ? s->at + s->bytes : NULL;
    s->bytes += bytes;
    return t;
}

static fnn_tensor copied(fnn_staging *s, const fnn_tensor *x) {
    fnn_tensor t = staged(s, x);
    if (s->call) restride(s->call, &t, x);
    return t;
}

fnn_matrix fnn_rows_of(fnn_staging *s, const fnn_tensor *x) {
    fnn_matrix m = {.data = x->data, .col = x->shape[x->rank - 1] == 1 ? 1 : x->stride[x->rank - 1]};
    if (merge_axes(x, x->rank - 1, &m.row)) return m;
    return (fnn_matrix){.data = copied(s, x).data, .row = x->shape[x->rank - 1], .col = 1};
}

const void *fnn_vector_of(fnn_staging *s, const fnn_tensor *x) {
    return x->stride[0] == 1 || x->shape[0] == 1 ? x->data : copied(s, x).data;
}

fnn_tensor fnn_result_of(fnn_staging *s, const fnn_tensor *y, int leading_axes_merge) {
    ptrdiff_t row;
    int last = y->rank - 1, unit = y->shape[last] == 1 || y->stride[last] == 1;
    return unit && (!leading_axes_merge || merge_axes(y, last, &row)) ? *y : staged(s, y);
}

void fnn_finish(const fnn_call *call, fnn_tensor *y, const fnn_tensor *result) {
    if (result->data != y->data) restride(call, y, result);
}

/* ---- inner products ---- */

static int uses_dot(const fnn_gemm *g) { return g->dot && fnn_min(g->M, g->N) <= DOT_LIMIT && g->K >= DOT_DEPTH; }

/* m: rows x K at every batch position, any strides; becomes contiguous along K. */
static void make_rows(fnn_staging *s, const fnn_gemm *g, fnn_matrix *m, ptrdiff_t rows) {
    if (m->col == 1) return;
    fnn_tensor from = {.data = m->data, .dtype = g->dtype, .rank = g->batch_rank + 2};
    for (int d = 0; d < g->batch_rank; d++) {
        from.shape[d] = m->batch[d] ? g->batch_shape[d] : 1;
        from.stride[d] = m->batch[d];
    }
    from.shape[g->batch_rank] = rows, from.stride[g->batch_rank] = m->row;
    from.shape[g->batch_rank + 1] = g->K, from.stride[g->batch_rank + 1] = m->col;
    fnn_tensor copy = copied(s, &from);
    for (int d = 0; d < g->batch_rank; d++) m->batch[d] = m->batch[d] ? copy.stride[d] : 0;
    m->data = copy.data, m->row = g->K, m->col = 1;
}

/* The product as inner products: of a's rows (few) with b's rows (many), c strided accordingly. */
typedef struct {
    plan p;
    fnn_gemm g; /* with staged operands; b by rows */
    int swapped;
    ptrdiff_t few, many, parts;
} dot_plan;

static void run_dot_chunk(void *context, ptrdiff_t chunk, void *scratch) {
    const dot_plan *d = context;
    const fnn_gemm *g = &d->g;
    block w;
    (void)scratch;
    seek(&d->p, chunk / d->parts, &w);
    ptrdiff_t part = chunk % d->parts, from = begin(d->many, d->parts, part), n = begin(d->many, d->parts, part + 1) - from;
    ptrdiff_t size = d->p.size;
    if (d->swapped) {
        d->p.K->gemm_dot(d->few, n, g->K, w.b, g->b.row, w.a + from * g->a.row * size, g->a.row, w.c + from * g->c.row * size, 1,
                         g->c.row);
        epilogue(&d->p, &w, from, n, 0, d->few);
    } else {
        d->p.K->gemm_dot(d->few, n, g->K, w.a, g->a.row, w.b + from * g->b.row * size, g->b.row, w.c + from * size, g->c.row, 1);
        epilogue(&d->p, &w, 0, d->few, from, n);
    }
}

static void make_dot_operands(fnn_staging *s, fnn_gemm *g) {
    ptrdiff_t column = g->b.col;
    g->b.col = g->b.row, g->b.row = column; /* B by its columns */
    make_rows(s, g, &g->a, g->M);
    make_rows(s, g, &g->b, g->N);
}

static void run_dot(const fnn_call *call, const fnn_gemm *g, char *shared) {
    dot_plan d = {.g = *g, .swapped = g->M > g->N, .few = fnn_min(g->M, g->N), .many = fnn_max(g->M, g->N)};
    fnn_staging s = {.call = call, .at = shared};
    make_dot_operands(&s, &d.g);
    make_plan(&d.p, &d.g);
    d.parts = fnn_max(fnn_min(fnn_ceil_div(wanted_chunks(g), d.p.batches), fnn_ceil_div(d.many, 8)), 1);
    fnn_parallel_for(call, d.p.batches * d.parts, fnn_gemm_cost(g), run_dot_chunk, &d);
}

/* ---- the interface ---- */

void fnn_gemm_workspace(const fnn_gemm *g, fnn_workspace *ws) {
    plan p;
    if (batches(g) * g->M * g->N == 0) return;
    if (uses_dot(g)) {
        fnn_gemm count = *g;
        fnn_staging s = {.bytes = 0};
        make_dot_operands(&s, &count);
        ws->shared += s.bytes;
        return;
    }
    make_plan(&p, g);
    ws->scratch = (size_t)fnn_max((ptrdiff_t)ws->scratch, (ptrdiff_t)(copy_bytes(&p) + panel_bytes(&p)));
}

void fnn_gemm_run(const fnn_call *call, const fnn_gemm *g, void *shared) {
    plan p;
    if (batches(g) * g->M * g->N == 0) return;
    if (uses_dot(g)) {
        run_dot(call, g, shared);
        return;
    }
    make_plan(&p, g);
    fnn_parallel_for(call, p.batches * p.row_blocks * p.col_blocks, fnn_gemm_cost(g), run_chunk, &p);
}

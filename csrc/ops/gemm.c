/* gemm.c: the one matrix product behind linear layers and matmul.
 *
 * C is cut into a grid of row blocks and column blocks, one chunk each, sized by shape alone. A chunk walks k in blocks; in each
 * it takes as many rows of A as the first-level cache holds and multiplies them with one panel of B after the other, so that
 * the chunk's part of B stays in its core's second-level cache (the loops of Goto and van de Geijn, ACM TOMS 34(3), 2008, with
 * B in the place of A). Panels are as wide as the register tile. With one row block every chunk packs its own panels and finds
 * them in cache; with several, a parallel loop packs B once for all, a slab of columns at a time. */
#include "gemm.h"
#include "gemm_amx.h"

#include <string.h>

enum {
    ROW_BLOCK = 512,       /* most rows of C in a chunk */
    LEAST_ROWS = 56,       /* fewest, where M needs several row blocks */
    LEAST_PANELS = 4,      /* fewest, where A is copied */
    PANEL_BLOCK = 16,      /* most panels of B in a chunk: with DEPTH_BLOCK, 0.8 MB */
    DEPTH_BLOCK = 384,     /* longest block of k for float32, half of it for float64 */
    NEAR_BYTES = 22528,    /* rows of A kept in the first-level cache */
    CLOSE_BYTES = 131072,  /* an operand of so few pages is read where it is, whatever its order */
    SLAB_BYTES = 32 << 20, /* most that is packed at a time */
    PACK_PANELS = 8,       /* packed together: long runs of B's rows */
    FEW_ROWS = 16,         /* inner products: most rows of C, where packing B would cost more, ... */
    FEW_ROWS_DEPTH = 128,  /* ... and least K, or the sums across lanes do */
    FEW_COLUMNS = 8,       /* or most columns, where lanes of a tile would be idle, ... */
    FEW_COLUMNS_DEPTH = 32,
    FEW_CHUNKS = 8,        /* enough for most machines: B is not packed twice for more */
    MAX_CHUNKS = 48
};
static const double CHUNK_NS = 12000;

/* ---- what it costs ---- */

static ptrdiff_t batches(const fnn_gemm *g) {
    ptrdiff_t n = 1;
    for (int d = 0; d < g->batch_rank; d++) n *= g->batch_shape[d];
    return n;
}

/* Each lane of one core of the reference machine does 9 flop/ns on all ISAs, and its second-level cache gives 55 GB/s
 * (bench/bench_gemm.py); what does not fit there is large enough for all threads anyway. */
double fnn_gemm_cost(const fnn_gemm *g) {
    const fnn_kernels *K = fnn_kernels_of(g->dtype);
    double count = (double)batches(g), M = (double)g->M, N = (double)g->N, depth = (double)g->K;
    double arithmetic = 2 * M * (double)fnn_round_up(g->N, K->lanes) * depth / (9 * (double)K->lanes);
    double traffic = 0.018 * (M * N + depth * (M + N)) * (double)fnn_itemsize(g->dtype);
    return count * (arithmetic > traffic ? arithmetic : traffic);
}

static ptrdiff_t wanted_chunks(const fnn_gemm *g) {
    double chunks = fnn_gemm_cost(g) / CHUNK_NS;
    return chunks > MAX_CHUNKS ? MAX_CHUNKS : (ptrdiff_t)chunks + 1;
}

/* ---- the plan ---- */

typedef enum { IN_PLACE, BY_CHUNK, SHARED } packing;

typedef struct {
    const fnn_gemm *g;
    const fnn_kernels *K;
    ptrdiff_t size; /* of an element */
    ptrdiff_t batches, row_blocks, col_blocks;
    ptrdiff_t all_panels, slabs; /* of B */
    ptrdiff_t first, panels;     /* of a slab: the widest one, then the present one */
    ptrdiff_t depth;             /* of a k block */
    ptrdiff_t near_rows;         /* of A at a time */
    int a_in_place;
    packing packs;
    char *shared;
} plan;

static ptrdiff_t begin(ptrdiff_t extent, ptrdiff_t parts, ptrdiff_t part) { return extent * part / parts; }

/* B is read where it is when few rows use it, or its rows are near each other. */
static packing choose_packing(const plan *p) {
    const fnn_matrix *b = &p->g->b;
    ptrdiff_t rows = fnn_ceil_div(p->g->M, p->row_blocks), step = fnn_max(b->row, -b->row);
    int close = p->depth * step * p->size <= NEAR_BYTES || (step == p->g->N && p->g->N <= p->K->tile_cols);
    if ((b->col == 1 || p->g->N == 1) && (close || rows <= 3 * p->K->tile_rows)) return IN_PLACE;
    return p->row_blocks == 1 || p->batches > 1 ? BY_CHUNK : SHARED;
}

/* Rows of A are read where they are if contiguous (also when their stride puts them into the same cache sets: copying costs 4 %
 * of a 1024 x 1024 product, not copying nothing), or when all of them are near. Others are copied. */
static int reads_a_in_place(const plan *p) {
    const fnn_matrix *a = &p->g->a;
    return a->col == 1 || (a->row == 1 && p->depth * fnn_max(a->col, -a->col) * p->size <= CLOSE_BYTES);
}

/* Calls that follow take whole rows: they are one run of memory, and the same thread's share in every step. 0: too few rows. */
static int split_rows(plan *p) {
    const ptrdiff_t wanted = fnn_ceil_div(wanted_chunks(p->g), p->slabs), most = p->g->M / (2 * p->K->tile_rows);
    p->col_blocks = 1;
    for (p->row_blocks = 1; p->row_blocks < wanted && 2 * p->row_blocks <= most;) p->row_blocks *= 2;
    return p->row_blocks >= fnn_min(wanted, FEW_CHUNKS / 2);
}

/* One row block: columns are split first, so that each chunk packs its own, and rows only while that leaves few chunks. Several,
 * and B is packed once: rows are split first, so that a row of A, read or copied, serves many panels. Column blocks are counted in
 * panels each: five blocks of eight panels would leave one of two threads with 60 % of them. */
static void choose_grid(plan *p) {
    ptrdiff_t wide = fnn_min(PANEL_BLOCK, fnn_max(p->panels, 1)); /* panels in a block */
    if (p->g->leader && split_rows(p)) return;
    p->row_blocks = fnn_ceil_div(p->g->M, ROW_BLOCK);
    p->col_blocks = fnn_ceil_div(p->panels, wide);
    const int tall = p->row_blocks > 1;
    const ptrdiff_t wanted = fnn_ceil_div(wanted_chunks(p->g), p->slabs), shortest = tall ? LEAST_ROWS : 2 * p->K->tile_rows;
    const ptrdiff_t narrowest = p->a_in_place ? 1 : LEAST_PANELS;
    for (ptrdiff_t chunks; (chunks = p->batches * p->row_blocks * p->col_blocks) < wanted;) {
        int rows = p->g->M / p->row_blocks >= 2 * shortest, cols = wide > narrowest;
        if (rows && (tall || (!cols && chunks < FEW_CHUNKS))) p->row_blocks++;
        else if (cols) p->col_blocks = fnn_ceil_div(p->panels, --wide);
        else break;
    }
}

static void make_plan(plan *p, const fnn_gemm *g) {
    memset(p, 0, sizeof *p);
    p->g = g;
    p->K = fnn_kernels_of(g->dtype);
    p->size = (ptrdiff_t)fnn_itemsize(g->dtype);
    p->batches = batches(g);
    p->all_panels = fnn_ceil_div(g->N, p->K->tile_cols);
    p->slabs = fnn_min(fnn_max(fnn_ceil_div(g->K * g->N * p->size, SLAB_BYTES), 1), p->all_panels);
    p->panels = fnn_ceil_div(p->all_panels, p->slabs);
    ptrdiff_t longest = DEPTH_BLOCK * 4 / p->size;
    p->depth = fnn_round_up(fnn_ceil_div(g->K, fnn_max(fnn_ceil_div(g->K, longest), 1)), 4);
    p->a_in_place = reads_a_in_place(p);
    choose_grid(p);
    ptrdiff_t fit = NEAR_BYTES / (p->size * fnn_max(p->depth, 1)) / p->K->tile_rows * p->K->tile_rows;
    p->near_rows = fnn_min(fnn_max(fit, p->K->tile_rows), fnn_ceil_div(g->M, p->row_blocks));
    p->packs = choose_packing(p);
}

/* Either way round, see copy_rows: whole lots of rows, and one k more. */
static size_t copy_bytes(const plan *p) {
    if (p->a_in_place) return 0;
    return (size_t)fnn_round_up((fnn_ceil_div(p->g->M, p->row_blocks) + p->near_rows) * (p->depth + 1) * p->size, 64);
}

/* Panels lie k block by k block: where the one at k and `panel` begins. */
static char *packed_at(const plan *p, ptrdiff_t k, ptrdiff_t depth, ptrdiff_t panel) {
    return p->shared + (k * p->panels + panel * depth) * p->K->tile_cols * p->size;
}

/* ---- one chunk ---- */

typedef struct {
    const char *a, *b;
    char *c;
    ptrdiff_t row, rows, col, cols; /* the block of C */
    char *copy, *packed;            /* scratch */
} block;

void fnn_gemm_seek(const fnn_gemm *g, ptrdiff_t index, ptrdiff_t *a, ptrdiff_t *b, ptrdiff_t *c) {
    *a = *b = *c = 0;
    for (int d = g->batch_rank - 1; d >= 0; d--) {
        ptrdiff_t at = index % g->batch_shape[d];
        index /= g->batch_shape[d];
        *a += at * g->a.batch[d], *b += at * g->b.batch[d], *c += at * g->c.batch[d];
    }
}

static void seek(const plan *p, ptrdiff_t index, block *w) {
    const fnn_gemm *g = p->g;
    ptrdiff_t a, b, c;
    fnn_gemm_seek(g, index, &a, &b, &c);
    w->a = (const char *)g->a.data + a * p->size;
    w->b = (const char *)g->b.data + b * p->size;
    w->c = (char *)g->c.data + c * p->size;
}

/* What the tile reads: `step` elements from one lot of rows to the next. */
typedef struct {
    const char *data;
    ptrdiff_t row, col, step;
} view;

/* The block's rows of A at k, in scratch: row by row, or, if that is how they lie, k by k in lots of `near`. */
static view copy_rows(const plan *p, const block *w, ptrdiff_t k, ptrdiff_t depth, ptrdiff_t near) {
    const fnn_matrix *a = &p->g->a;
    const char *from = w->a + (w->row * a->row + k * a->col) * p->size;
    if (a->row == 1) {
        p->K->gemm_pack(depth, w->rows, from, a->col, 1, w->copy, near, near * depth);
        return (view){w->copy, 1, near, near * depth};
    }
    p->K->gemm_pack(w->rows, depth, from, a->row, a->col, w->copy, depth + 1, 0);
    return (view){w->copy, depth + 1, 1, near * (depth + 1)};
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

/* Runs the calls that follow on the block's finished rows. */
static void follow_rows(const plan *p, const block *w, ptrdiff_t row, ptrdiff_t rows) {
    const fnn_gemm *g = p->g;
    if (w->cols == g->N) fnn_follow(g->leader, row * g->N, rows * g->N);
    else
        for (ptrdiff_t i = row; i < row + rows; i++) fnn_follow(g->leader, i * g->N + w->col, w->cols);
}

/* The block's product over k in [k, k + depth). */
static void multiply(const plan *p, const block *w, ptrdiff_t k, ptrdiff_t depth) {
    const fnn_gemm *g = p->g;
    const ptrdiff_t wide = p->K->tile_cols, near = fnn_ceil_div(w->rows, fnn_ceil_div(w->rows, p->near_rows));
    const char *b = w->b + (k * g->b.row + w->col * g->b.col) * p->size;
    ptrdiff_t b_row = wide, panel = wide * depth; /* from one row, one panel to the next */
    ptrdiff_t across = wide;                      /* columns at a time */
    if (p->packs == BY_CHUNK) {
        p->K->gemm_pack(depth, w->cols, b, g->b.row, g->b.col, w->packed, wide, panel);
        b = w->packed;
    } else if (p->packs == SHARED) {
        b = packed_at(p, k, depth, w->col / wide - p->first);
    } else {
        b_row = g->b.row, across = w->cols;
    }
    view a = {w->a + (w->row * g->a.row + k * g->a.col) * p->size, g->a.row, g->a.col, near * g->a.row};
    if (!p->a_in_place) a = copy_rows(p, w, k, depth, near);
    for (ptrdiff_t i = 0; i < w->rows; i += near, a.data += a.step * p->size) {
        ptrdiff_t n = fnn_min(near, w->rows - i), row = w->row + i;
        for (ptrdiff_t j = 0; j < w->cols; j += across) {
            ptrdiff_t cols = fnn_min(across, w->cols - j);
            p->K->gemm_tile(n, cols, 1, depth, a.data, NULL, a.row, a.col, b + j / wide * panel * p->size, NULL, b_row,
                            w->c + (row * g->c.row + w->col + j) * p->size, g->c.row, k > 0);
            if (k + depth >= g->K) epilogue(p, w, row, n, w->col + j, cols);
        }
        if (g->leader && k + depth >= g->K) follow_rows(p, w, row, n);
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
    w.col = (p->first + begin(p->panels, p->col_blocks, s)) * p->K->tile_cols;
    w.cols = fnn_min((p->first + begin(p->panels, p->col_blocks, s + 1)) * p->K->tile_cols, g->N) - w.col;
    w.copy = scratch;
    w.packed = (char *)scratch + copy_bytes(p);
    ptrdiff_t k = 0;
    do {
        ptrdiff_t depth = fnn_min(p->depth, g->K - k);
        multiply(p, &w, k, depth);
        k += depth;
    } while (k < g->K);
}

/* PACK_PANELS panels of B at one k block. */
static void run_pack(void *context, ptrdiff_t chunk, void *scratch) {
    const plan *p = context;
    const fnn_matrix *b = &p->g->b;
    const ptrdiff_t wide = p->K->tile_cols, groups = fnn_ceil_div(p->panels, PACK_PANELS);
    ptrdiff_t panel = chunk % groups * PACK_PANELS, k = chunk / groups * p->depth, depth = fnn_min(p->depth, p->g->K - k);
    ptrdiff_t col = (p->first + panel) * wide, end = fnn_min((p->first + fnn_min(panel + PACK_PANELS, p->panels)) * wide, p->g->N);
    (void)scratch;
    p->K->gemm_pack(depth, end - col, (char *)b->data + (k * b->row + col * b->col) * p->size, b->row, b->col,
                    packed_at(p, k, depth, panel), wide, wide * depth);
}

/* C by slabs of columns, as many as SLAB_BYTES of packed B ask for. */
static void run_tiles(const fnn_call *call, const fnn_gemm *g, char *shared) {
    plan p;
    make_plan(&p, g);
    const double ns = fnn_gemm_cost(g) / (double)p.slabs;
    p.shared = shared;
    for (ptrdiff_t s = 0; s < p.slabs; s++) {
        p.first = begin(p.all_panels, p.slabs, s);
        p.panels = begin(p.all_panels, p.slabs, s + 1) - p.first;
        if (p.packs == SHARED)
            fnn_parallel_for(call, fnn_ceil_div(p.panels, PACK_PANELS) * fnn_ceil_div(g->K, p.depth),
                             0.5 * (double)(p.panels * p.K->tile_cols * g->K), run_pack, &p);
        fnn_parallel_for(call, p.batches * p.row_blocks * p.col_blocks, ns, run_chunk, &p);
    }
}

static void tiles_workspace(const fnn_gemm *g, fnn_workspace *ws) {
    plan p;
    make_plan(&p, g);
    const ptrdiff_t panel = p.K->tile_cols * p.size;
    size_t scratch = copy_bytes(&p);
    if (p.packs == SHARED) ws->shared += (size_t)(panel * p.panels * g->K);
    if (p.packs == BY_CHUNK) scratch += (size_t)(panel * p.depth * fnn_ceil_div(p.panels, p.col_blocks));
    if (ws->scratch < scratch) ws->scratch = scratch;
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

static int uses_dot(const fnn_gemm *g) {
    return g->dot && ((g->M <= FEW_ROWS && g->K >= FEW_ROWS_DEPTH) || (g->N <= FEW_COLUMNS && g->K >= FEW_COLUMNS_DEPTH));
}

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

static void dot_workspace(const fnn_gemm *g, fnn_workspace *ws) {
    fnn_gemm count = *g;
    fnn_staging s = {.bytes = 0};
    make_dot_operands(&s, &count);
    ws->shared += s.bytes;
}

/* ---- the interface ---- */

const char *fnn_gemm_algorithm(const fnn_gemm *g) {
    return uses_dot(g) ? "inner products" : fnn_gemm_amx_suits(g) ? "bfloat16 parts" : "blocks";
}

void fnn_gemm_workspace(const fnn_gemm *g, fnn_workspace *ws) {
    if (batches(g) * g->M * g->N == 0) return;
    if (uses_dot(g)) {
        dot_workspace(g, ws);
        return;
    }
    fnn_workspace again = *ws; /* when products on matrix units meet what is not finite */
    tiles_workspace(g, ws);
    if (!fnn_gemm_amx_suits(g)) return;
    fnn_gemm_amx_workspace(g, &again);
    if (ws->shared < again.shared) ws->shared = again.shared;
    if (ws->scratch < again.scratch) ws->scratch = again.scratch;
}

void fnn_gemm_run(const fnn_call *call, const fnn_gemm *g, void *shared) {
    if (batches(g) * g->M * g->N == 0) return;
    if (!uses_dot(g) && (!fnn_gemm_amx_suits(g) || !fnn_gemm_amx_run(call, g, shared))) {
        run_tiles(call, g, shared);
        return;
    }
    if (uses_dot(g)) run_dot(call, g, shared);
    if (g->leader) fnn_follow_all(g->leader);
}

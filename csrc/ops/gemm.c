/* gemm.c: the one matrix product behind linear layers, matmul and convolutions of single pixels.
 *
 * C is cut into a grid of row blocks and column blocks, one chunk each, sized by shape alone. For a block of k, a chunk takes
 * some rows of A and multiplies them with one panel of B (or two) after the other: both stay in its core's second-level cache
 * (the loops of Goto and van de Geijn, ACM TOMS 34(3), 2008; blocks of k are longer, as a sum costs more to take up again than
 * operands cost to read from that cache). Panels are as wide as the register tile. With one row block every chunk packs its own
 * panels and finds them in cache; with several, a parallel loop packs B once for all, a block of k and a slab of columns at a
 * time, and the chunks follow: neighbours share their columns. Rows of A that cannot be read where they are come the same way,
 * in slabs of rows. */
#include "gemm.h"
#include "gemm_amx.h"
#include "gemm_cells.h"
#include "gemm_sparse.h"
#include "gemm_turned.h"

#include <string.h>

enum {
    ROW_BLOCK = 512,         /* most rows of C in a chunk */
    LEAST_ROWS = 56,         /* fewest, where M needs several row blocks */
    LEAST_PANELS = 4,        /* fewest, where A is copied */
    SHARED_ROWS = 256,       /* fewest that pay for a B that has to be turned while some threads wait */
    DEPTH_BYTES = 4096,      /* longest block of k: so much of a row of A (a quarter of it: 5 % slower at 1024 and more) */
    BLOCK_BYTES = 512 << 10, /* most of B in a chunk: half of a second-level cache */
    NEAR_BYTES = 128 << 10,  /* of A at a time: a small part of that cache */
    CLOSE_BYTES = 128 << 10, /* A of so few pages is read where it is, whatever its order, ... */
    CLOSE_PANELS = 16,       /* ... but not for so many panels that take COPY_NS: a small tile uses a part of each line */
    TIGHT_BYTES = 22528,     /* B is read where it is if it stays in the first-level cache */
    FEW_TILES = 3,           /* so many rows of tiles read a panel where it is sooner than it is packed, ... */
    FEW_TILES_NEAR = 14,     /* ... and so many where that stays in the first-level cache */
    ALIAS_BYTES = 4096,      /* rows so far apart, or a multiple, are in the same sets of a first-level cache, ... */
    ALIAS_ROWS = 8,          /* which hold so many */
    SLAB_BYTES = 32 << 20,   /* most of an operand that is packed at a time */
    EVEN_PANELS = 8,         /* fewer cannot be shared out evenly: threads share rows */
    PACK_PANELS = 8,         /* packed together: long runs of B's rows, ... */
    PACK_ROWS = 96,          /* ... so many */
    FEW_ROWS = 16,           /* inner products: most rows of C, where packing B would cost more, ... */
    FEW_ROWS_DEPTH = 128,    /* ... and least K, or the sums across lanes do */
    FEW_COLUMNS = 8,         /* or most columns, where lanes of a tile would be idle, ... */
    FEW_COLUMNS_DEPTH = 32,
    PASS_BYTES = 32 << 10,   /* of C that is handed on and forgotten: a first-level cache, so that it is always the same one */
    FEW_CHUNKS = 8,          /* enough for most machines: B is not packed twice for more */
    MAX_CHUNKS = 48
};
static const double CHUNK_NS = 12000, COPY_NS = 200000;

/* ---- what it costs ---- */

ptrdiff_t fnn_gemm_batches(const fnn_gemm *g) {
    ptrdiff_t n = 1;
    for (int d = 0; d < g->batch_rank; d++) n *= g->batch_shape[d];
    return n;
}

/* Each lane of one core of the reference machine does 9 flop/ns on all ISAs, and its second-level cache gives 55 GB/s
 * (bench/bench_gemm.py); what does not fit there is large enough for all threads anyway. */
double fnn_gemm_cost(const fnn_gemm *g) {
    const fnn_kernels *K = fnn_kernels_of(g->dtype);
    double count = (double)fnn_gemm_batches(g), M = (double)g->M, N = (double)g->N, depth = (double)g->K;
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
    ptrdiff_t all_panels, col_slabs, row_slabs;
    ptrdiff_t first, panels; /* of a slab of B: the widest one, then the present one */
    ptrdiff_t top, rows;     /* of a slab of A, likewise */
    int by_rows;             /* neighbouring chunks share rows, not columns */
    ptrdiff_t depth;         /* of a k block */
    ptrdiff_t from, to;      /* of k, at present */
    ptrdiff_t near_rows;     /* of A at a time */
    ptrdiff_t pass_cols;     /* of C at a time, where it is handed on; 0: it has its memory */
    packing packs_a, packs_b;
    char *shared_a, *shared_b;
} plan;

/* Whether a panel's rows, so many bytes apart, stay in a first-level cache: there is place, and not all of it in a few sets. */
static int stays_near(const plan *p, ptrdiff_t apart) {
    const ptrdiff_t wide = p->K->tile_cols * p->size, step = fnn_min(fnn_max(apart & -apart, wide), ALIAS_BYTES);
    return p->depth * wide <= TIGHT_BYTES && p->depth <= ALIAS_BYTES / step * ALIAS_ROWS;
}

/* B is read where it is when few rows use it, or its rows are near each other. */
static packing choose_b(const plan *p) {
    const fnn_matrix *b = &p->g->b;
    const ptrdiff_t rows = fnn_ceil_div(p->rows, p->row_blocks), step = fnn_max(b->row, -b->row);
    const ptrdiff_t few = (stays_near(p, step * p->size) ? FEW_TILES_NEAR : FEW_TILES) * p->K->tile_rows;
    int close = p->depth * step * p->size <= TIGHT_BYTES || (step == p->g->N && p->g->N <= p->K->tile_cols);
    if (!b->gatherer && (b->col == 1 || p->g->N == 1) && (close || rows <= few)) return IN_PLACE;
    return (p->row_blocks == 1 && p->row_slabs == 1) || p->batches > 1 ? BY_CHUNK : SHARED;
}

/* Whether A, near and contiguous along its rows, is read where it is. (Copied, 50 x 784 x 200 is 1.35 times as fast, 256 x 784 x 64
 * 1.03: Zen 3, two cores.) */
static int reads_close(const plan *p) {
    return !fnn_small_tile(p->K) || p->all_panels < CLOSE_PANELS || fnn_gemm_cost(p->g) < COPY_NS;
}

/* Rows of A are read where they are if contiguous or near. Rows of a tile that share cache sets are copied where enough panels
 * use them (14 rows 4096 bytes apart: 88 in place of 113 GFLOP/s); tiles of two panels have few enough. */
static packing choose_a(const plan *p) {
    const fnn_matrix *a = &p->g->a;
    const ptrdiff_t high = p->g->N % p->K->best_cols ? p->K->tile_rows : p->K->best_rows;
    int alias = a->row * p->size % ALIAS_BYTES == 0 && fnn_min(p->g->M, high) > ALIAS_ROWS &&
                p->g->K * p->size >= ALIAS_BYTES / 4 && p->all_panels >= LEAST_PANELS;
    if (a->col == 1 && !alias) return IN_PLACE;
    if (a->row == 1 && p->depth * fnn_max(a->col, -a->col) * p->size <= CLOSE_BYTES && reads_close(p)) return IN_PLACE;
    return p->batches > 1 ? BY_CHUNK : SHARED;
}

/* Calls that follow take whole rows: they are one run of memory, and the same thread's share in every step. 0: too few rows. */
static int split_rows(plan *p, ptrdiff_t wanted) {
    const ptrdiff_t most = p->rows / (2 * p->K->tile_rows);
    p->col_blocks = 1;
    for (p->row_blocks = 1; p->row_blocks < wanted && 2 * p->row_blocks <= most;) p->row_blocks *= 2;
    return p->row_blocks >= fnn_min(wanted, FEW_CHUNKS / 2);
}

/* Where B's columns are too many to stay near a core, a block of them takes all rows instead. Even shares for even numbers of
 * threads. */
static int split_columns(plan *p, ptrdiff_t wanted, ptrdiff_t most) {
    p->row_blocks = 1;
    p->col_blocks = fnn_max(fnn_min(wanted, FEW_CHUNKS), fnn_ceil_div(p->panels, most));
    return p->rows <= ROW_BLOCK && p->panels >= LEAST_PANELS * p->col_blocks;
}

/* One row block: columns are split first, so that each chunk packs its own, and rows only while that leaves few chunks. Several,
 * and B is packed once: rows are split first, so that a row of A, read or copied, serves many panels. Column blocks are counted in
 * panels each, of which block_begin keeps pairs together: five blocks of eight panels would leave one of two threads with 60 % of
 * them. */
static void choose_grid(plan *p) {
    const ptrdiff_t most = fnn_max(BLOCK_BYTES / (p->depth * p->K->tile_cols * p->size), 1);
    const ptrdiff_t wanted = fnn_ceil_div(wanted_chunks(p->g), p->row_slabs * p->col_slabs);
    ptrdiff_t wide = fnn_min(most, fnn_max(p->panels, 1)); /* panels in a block */
    if (p->g->leader && (p->panels > most ? split_columns(p, wanted, most) : split_rows(p, wanted))) return;
    p->row_blocks = fnn_ceil_div(p->rows, ROW_BLOCK);
    p->col_blocks = fnn_ceil_div(p->panels, wide);
    const int tall = p->row_blocks > 1;
    const ptrdiff_t shortest = tall ? LEAST_ROWS : 2 * p->K->tile_rows;
    const ptrdiff_t narrowest = p->packs_a == BY_CHUNK ? LEAST_PANELS : 1;
    const ptrdiff_t best = fnn_max(narrowest, p->K->best_cols / p->K->tile_cols);
    const ptrdiff_t early = p->rows >= SHARED_ROWS || p->g->b.col == 1 ? best : narrowest; /* from here on rows are split, too */
    for (ptrdiff_t chunks; (chunks = p->batches * p->row_blocks * p->col_blocks) < wanted;) {
        const int few = chunks < FEW_CHUNKS, rows = p->rows / p->row_blocks >= 2 * shortest;
        if (rows && (tall || (wide <= early && few))) p->row_blocks++;
        else if (wide > (few ? narrowest : best)) p->col_blocks = fnn_ceil_div(p->panels, --wide);
        else break;
    }
}

/* Panels that column blocks keep together: a wide tile's, where there are enough. */
static ptrdiff_t panels_together(const plan *p) {
    const ptrdiff_t pair = p->K->best_cols / p->K->tile_cols;
    return fnn_ceil_div(p->panels, pair) < p->col_blocks ? 1 : pair;
}

/* The panel of the slab where column block s begins. */
static ptrdiff_t block_begin(const plan *p, ptrdiff_t s) {
    const ptrdiff_t together = panels_together(p);
    return fnn_min(together * fnn_part_begin(fnn_ceil_div(p->panels, together), p->col_blocks, s), p->panels);
}

/* The most panels in a block. */
static ptrdiff_t widest(const plan *p) {
    const ptrdiff_t together = panels_together(p);
    return together * fnn_ceil_div(fnn_ceil_div(p->panels, together), p->col_blocks);
}

static ptrdiff_t copied_row(const plan *p) { return fnn_gemm_copied_row(p->depth, p->size); }

static void make_plan(plan *p, const fnn_gemm *g) {
    memset(p, 0, sizeof *p);
    p->g = g;
    p->K = fnn_kernels_of(g->dtype);
    p->size = (ptrdiff_t)fnn_itemsize(g->dtype);
    p->batches = fnn_gemm_batches(g);
    const ptrdiff_t longest = DEPTH_BYTES / p->size, parts = fnn_max(fnn_ceil_div(g->K, longest), 1);
    p->depth = fnn_max(fnn_round_up(fnn_ceil_div(g->K, parts), 4), 4);
    p->all_panels = fnn_ceil_div(g->N, p->K->tile_cols);
    p->col_slabs = fnn_min(fnn_ceil_div(p->depth * g->N * p->size, SLAB_BYTES), p->all_panels);
    p->panels = fnn_ceil_div(p->all_panels, p->col_slabs);
    p->packs_a = choose_a(p);
    p->row_slabs = p->packs_a == SHARED ? fnn_min(fnn_ceil_div(copied_row(p) * g->M * p->size, SLAB_BYTES), g->M) : 1;
    p->rows = fnn_ceil_div(g->M, p->row_slabs);
    choose_grid(p);
    p->by_rows = p->all_panels < EVEN_PANELS;
    const ptrdiff_t share = p->K->best_rows, fit = NEAR_BYTES / (p->size * p->depth) / share * share;
    p->near_rows = fnn_min(fnn_max(fit, share), fnn_ceil_div(p->rows, p->row_blocks));
    p->packs_b = choose_b(p);
    if (!g->leader || !g->leader->passes) return;
    const ptrdiff_t tile = p->K->tile_rows, row = PASS_BYTES / p->size / tile / p->K->tile_cols * p->K->tile_cols;
    p->pass_cols = fnn_min(fnn_min(row, widest(p) * p->K->tile_cols), g->N);
    p->near_rows = fnn_min(p->near_rows, fnn_max(PASS_BYTES / (p->pass_cols * p->size) / tile, 1) * tile);
}

static size_t copy_bytes(const plan *p, ptrdiff_t rows) { return (size_t)(rows * copied_row(p) * p->size); }

/* Where the slab's panel of a k block begins. */
static char *packed_at(const plan *p, ptrdiff_t depth, ptrdiff_t panel) {
    return p->shared_b + panel * depth * p->K->tile_cols * p->size;
}

/* ---- one chunk ---- */

typedef struct {
    const char *a, *b;
    char *c;
    ptrdiff_t row, rows, col, cols; /* the block of C */
    char *copy, *packed, *passed;   /* scratch */
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

/* rows x cols of B from (k, col) on, to panels `panel` elements apart; data: where its batch position begins. */
static void pack_b(const plan *p, const char *data, ptrdiff_t k, ptrdiff_t rows, ptrdiff_t col, ptrdiff_t cols, char *to,
                   ptrdiff_t panel) {
    const fnn_matrix *b = &p->g->b;
    const ptrdiff_t wide = p->K->tile_cols;
    if (b->gatherer) b->gatherer->copy(b->gatherer->context, k, rows, col, cols, to, wide, panel);
    else p->K->gemm_pack(rows, cols, data + (k * b->row + col * b->col) * p->size, b->row, b->col, to, wide, panel);
}

/* Rows of A at k, and how far apart. */
typedef struct {
    const char *data;
    ptrdiff_t row, col;
} view;

static view rows_of(const plan *p, const block *w, ptrdiff_t k, ptrdiff_t depth) {
    const fnn_matrix *a = &p->g->a;
    if (p->packs_a == IN_PLACE) return (view){w->a + (w->row * a->row + k * a->col) * p->size, a->row, a->col};
    const ptrdiff_t step = copied_row(p);
    if (p->packs_a == SHARED) return (view){p->shared_a + (w->row - p->top) * step * p->size, step, 1};
    p->K->gemm_pack(w->rows, depth, w->a + (w->row * a->row + k * a->col) * p->size, a->row, a->col, w->copy, step, 0);
    return (view){w->copy, step, 1};
}

void fnn_gemm_epilogue(const fnn_gemm *g, ptrdiff_t row, ptrdiff_t rows, ptrdiff_t col, ptrdiff_t cols, void *c, ptrdiff_t c_row) {
    const fnn_epilogue *e = &g->epilogue;
    if (!e->bias && !e->residual && !e->activation) return;
    fnn_kernels_of(g->dtype)->gemm_epilogue(rows, cols, c, c_row, e->bias ? fnn_at(e->bias, col, g->dtype) : NULL,
                                            e->residual ? fnn_at(e->residual, row * g->residual_row + col, g->dtype) : NULL,
                                            g->residual_row, e->activation);
}

void fnn_gemm_follow(const fnn_gemm *g, ptrdiff_t row, ptrdiff_t rows, ptrdiff_t col, ptrdiff_t cols, void *part) {
    const int is_one_run = cols == g->N;
    fnn_follow_rows(g->leader, row * g->N + col, is_one_run ? rows * cols : cols, is_one_run ? 1 : rows, g->N, part);
}

/* The epilogue on a part of the block's batch position. */
static void epilogue(const plan *p, const block *w, ptrdiff_t i, ptrdiff_t rows, ptrdiff_t j, ptrdiff_t cols) {
    const fnn_gemm *g = p->g;
    fnn_gemm_epilogue(g, i, rows, j, cols, w->c + (i * g->c.row + j) * p->size, g->c.row);
}

static int adds_bias_only(const fnn_gemm *g) { return g->epilogue.bias && !g->epilogue.residual && !g->epilogue.activation; }

/* A block's part of B at k: elements from one row, one panel to the next, and columns that a call takes. */
typedef struct {
    const char *data;
    ptrdiff_t row, panel, across;
} panels;

static panels panels_of(const plan *p, const block *w, ptrdiff_t k, ptrdiff_t depth) {
    const fnn_matrix *b = &p->g->b;
    const ptrdiff_t wide = p->K->tile_cols, across = p->K->best_cols;
    if (p->packs_b == IN_PLACE) return (panels){w->b + (k * b->row + w->col * b->col) * p->size, b->row, wide, w->cols};
    if (p->packs_b == SHARED) return (panels){packed_at(p, depth, w->col / wide - p->first), wide, wide * depth, across};
    pack_b(p, w->b, k, depth, w->col, w->cols, w->packed, wide * depth);
    return (panels){w->packed, wide, wide * depth, across};
}

/* Column j of the block's, which begins a panel. */
static const char *panel_at(const plan *p, const panels *b, ptrdiff_t j) {
    return b->data + j / p->K->tile_cols * b->panel * p->size;
}

/* n rows of the block from `row` on, over all of k, handed on part by part. */
static void multiply_and_pass(const plan *p, const block *w, ptrdiff_t row, ptrdiff_t n, const view *a, const panels *b,
                              ptrdiff_t depth) {
    for (ptrdiff_t j = 0, cols; j < w->cols; j += cols) {
        cols = fnn_min(p->pass_cols, w->cols - j);
        for (ptrdiff_t q = 0, wide; q < cols; q += wide) {
            wide = fnn_min(b->across, cols - q);
            p->K->gemm_panels(n, wide, 1, depth, a->data, NULL, a->row, a->col, panel_at(p, b, j + q), NULL, b->row, b->panel,
                              w->passed + q * p->size, cols, 0, NULL);
        }
        fnn_gemm_follow(p->g, row, n, w->col + j, cols, w->passed);
    }
}

/* n rows of the block from `row` on over k in [k, k + depth), added to what is there of them. */
static void multiply_rows(const plan *p, const block *w, ptrdiff_t row, ptrdiff_t n, const view *a, const panels *b, ptrdiff_t k,
                          ptrdiff_t depth) {
    const fnn_gemm *g = p->g;
    const int ends = k + depth >= g->K;
    for (ptrdiff_t j = 0; j < w->cols; j += b->across) {
        ptrdiff_t cols = fnn_min(b->across, w->cols - j);
        const char *bias = ends && adds_bias_only(g) ? (const char *)g->epilogue.bias + (w->col + j) * p->size : NULL;
        p->K->gemm_panels(n, cols, 1, depth, a->data, NULL, a->row, a->col, panel_at(p, b, j), NULL, b->row, b->panel,
                          w->c + (row * g->c.row + w->col + j) * p->size, g->c.row, k > 0, bias);
        if (ends && !bias) epilogue(p, w, row, n, w->col + j, cols);
    }
    if (g->leader && ends) fnn_gemm_follow(g, row, n, w->col, w->cols, NULL);
}

/* The block's product over k in [k, k + depth). */
static void multiply(const plan *p, const block *w, ptrdiff_t k, ptrdiff_t depth) {
    const ptrdiff_t near = fnn_ceil_div(w->rows, fnn_ceil_div(w->rows, p->near_rows));
    const panels b = panels_of(p, w, k, depth);
    view a = rows_of(p, w, k, depth);
    for (ptrdiff_t i = 0; i < w->rows; i += near, a.data += near * a.row * p->size) {
        const ptrdiff_t n = fnn_min(near, w->rows - i);
        if (p->pass_cols) multiply_and_pass(p, w, w->row + i, n, &a, &b, depth);
        else multiply_rows(p, w, w->row + i, n, &a, &b, k, depth);
    }
}

/* In a chunk's scratch: a copy of A's rows, packed panels of B, then C where it is handed on. */
static size_t packed_in_scratch(const plan *p) {
    return p->packs_a == BY_CHUNK ? copy_bytes(p, fnn_ceil_div(p->rows, p->row_blocks)) : 0;
}
static size_t passed_at(const plan *p) {
    const ptrdiff_t panel = p->K->tile_cols * p->size * p->depth;
    const ptrdiff_t panels = p->packs_b == BY_CHUNK ? widest(p) : 0;
    return packed_in_scratch(p) + (size_t)(panel * panels);
}

/* C block: rows x cols at (row, col) of one batch position. */
static void run_chunk(void *context, ptrdiff_t chunk, void *scratch) {
    const plan *p = context;
    const fnn_gemm *g = p->g;
    const ptrdiff_t blocks = p->row_blocks * p->col_blocks, at = chunk % blocks;
    ptrdiff_t r = p->by_rows ? at / p->col_blocks : at % p->row_blocks, s = p->by_rows ? at % p->col_blocks : at / p->row_blocks;
    block w;
    seek(p, chunk / blocks, &w);
    w.row = p->top + fnn_part_begin(p->rows, p->row_blocks, r);
    w.rows = p->top + fnn_part_begin(p->rows, p->row_blocks, r + 1) - w.row;
    w.col = (p->first + block_begin(p, s)) * p->K->tile_cols;
    w.cols = fnn_min((p->first + block_begin(p, s + 1)) * p->K->tile_cols, g->N) - w.col;
    w.copy = scratch;
    w.packed = (char *)scratch + packed_in_scratch(p);
    w.passed = (char *)scratch + passed_at(p);
    ptrdiff_t k = p->from;
    do {
        ptrdiff_t depth = fnn_min(p->depth, p->to - k);
        multiply(p, &w, k, depth);
        k += depth;
    } while (k < p->to);
}

/* PACK_ROWS rows of PACK_PANELS panels of B. */
static void run_pack_b(void *context, ptrdiff_t chunk, void *scratch) {
    const plan *p = context;
    const ptrdiff_t wide = p->K->tile_cols, groups = fnn_ceil_div(p->panels, PACK_PANELS), depth = p->to - p->from;
    ptrdiff_t panel = chunk % groups * PACK_PANELS, k = chunk / groups * PACK_ROWS;
    ptrdiff_t col = (p->first + panel) * wide, end = fnn_min((p->first + fnn_min(panel + PACK_PANELS, p->panels)) * wide, p->g->N);
    (void)scratch;
    pack_b(p, p->g->b.data, p->from + k, fnn_min(PACK_ROWS, depth - k), col, end - col,
           packed_at(p, depth, panel) + k * wide * p->size, wide * depth);
}

/* PACK_ROWS rows of A. */
static void run_pack_a(void *context, ptrdiff_t chunk, void *scratch) {
    const plan *p = context;
    const fnn_matrix *a = &p->g->a;
    const ptrdiff_t row = chunk * PACK_ROWS, step = copied_row(p);
    (void)scratch;
    p->K->gemm_pack(fnn_min(PACK_ROWS, p->rows - row), p->to - p->from,
                    (char *)a->data + ((p->top + row) * a->row + p->from * a->col) * p->size, a->row, a->col,
                    p->shared_a + row * step * p->size, step, 0);
}

/* The slabs' product over k in [from, to), and what of B is packed for all. */
static void run_block(const fnn_call *call, plan *p) {
    const ptrdiff_t depth = p->to - p->from, wide = p->K->tile_cols;
    const double share = (double)depth / (double)(fnn_max(p->g->K, 1) * p->col_slabs * p->row_slabs);
    if (p->packs_b == SHARED)
        fnn_parallel_for(call, fnn_ceil_div(p->panels, PACK_PANELS) * fnn_ceil_div(depth, PACK_ROWS),
                         0.5 * (double)(p->panels * wide * depth), run_pack_b, p);
    for (ptrdiff_t r = 0; r < p->row_slabs; r++) {
        p->top = fnn_part_begin(p->g->M, p->row_slabs, r);
        p->rows = fnn_part_begin(p->g->M, p->row_slabs, r + 1) - p->top;
        if (p->packs_a == SHARED)
            fnn_parallel_for(call, fnn_ceil_div(p->rows, PACK_ROWS), 0.5 * (double)(p->rows * depth), run_pack_a, p);
        fnn_parallel_for(call, p->batches * p->row_blocks * p->col_blocks, share * fnn_gemm_cost(p->g), run_chunk, p);
    }
}

/* C by slabs of columns and rows, as many as SLAB_BYTES of packed operands ask for. Nothing packed for all: all of k at once. */
void fnn_gemm_blocks_run(const fnn_call *call, const fnn_gemm *g, void *shared) {
    plan p;
    make_plan(&p, g);
    const ptrdiff_t depth = p.packs_a == SHARED || p.packs_b == SHARED ? p.depth : fnn_max(g->K, 1);
    p.shared_a = shared;
    p.shared_b = (char *)shared + (p.packs_a == SHARED ? copy_bytes(&p, p.rows) : 0);
    for (ptrdiff_t s = 0; s < p.col_slabs; s++) {
        p.first = fnn_part_begin(p.all_panels, p.col_slabs, s);
        p.panels = fnn_part_begin(p.all_panels, p.col_slabs, s + 1) - p.first;
        for (p.from = 0; p.from < fnn_max(g->K, 1); p.from += depth) {
            p.to = fnn_min(p.from + depth, g->K);
            run_block(call, &p);
        }
    }
}

void fnn_gemm_blocks_workspace(const fnn_gemm *g, fnn_workspace *ws) {
    plan p;
    make_plan(&p, g);
    const ptrdiff_t panel = p.K->tile_cols * p.size * p.depth;
    const size_t scratch = passed_at(&p) + (size_t)(p.pass_cols * p.near_rows * p.size);
    if (p.packs_a == SHARED) ws->shared += copy_bytes(&p, p.rows);
    if (p.packs_b == SHARED) ws->shared += (size_t)(panel * p.panels);
    fnn_enlarge(ws, 0, scratch);
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
    fnn_tensor copy = fnn_staged_copy(s, &from);
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
    const ptrdiff_t part = chunk % d->parts, from = fnn_part_begin(d->many, d->parts, part), size = d->p.size;
    const ptrdiff_t n = fnn_part_begin(d->many, d->parts, part + 1) - from;
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
    fnn_staging s = {.memory = shared};
    make_dot_operands(&s, &d.g);
    make_plan(&d.p, &d.g);
    d.parts = fnn_max(fnn_min(fnn_ceil_div(wanted_chunks(g), d.p.batches), fnn_ceil_div(d.many, 8)), 1);
    fnn_parallel_for(call, d.p.batches * d.parts, fnn_gemm_cost(g), run_dot_chunk, &d);
}

static void dot_workspace(const fnn_gemm *g, fnn_workspace *ws) {
    fnn_gemm count = *g;
    fnn_staging s = {.memory = NULL};
    make_dot_operands(&s, &count);
    ws->shared += s.bytes;
}

/* ---- the interface ---- */

/* What is handed on passes through scratch of the general way. */
static int uses_cells(const fnn_gemm *g) { return fnn_gemm_cells_suits(g) && !(g->leader && g->leader->passes); }
static int uses_turned(const fnn_gemm *g) { return fnn_gemm_turned_suits(g) && !(g->leader && g->leader->passes); }

/* Sums are finished by one block of k, so that C need not be taken up again. */
int fnn_gemm_can_pass(const fnn_gemm *g) {
    return !uses_dot(g) && !fnn_gemm_amx_suits(g) && fnn_gemm_batches(g) == 1 && g->K > 0 &&
           g->K * (ptrdiff_t)fnn_itemsize(g->dtype) <= DEPTH_BYTES;
}

/* Products on matrix units round otherwise and gain less from zeros. */
static int may_be_sparse(const fnn_gemm *g) { return !uses_dot(g) && !fnn_gemm_amx_suits(g) && fnn_gemm_sparse_suits(g); }

const char *fnn_gemm_algorithm(const fnn_gemm *g) {
    if (uses_dot(g)) return "inner products";
    if (may_be_sparse(g) && fnn_gemm_sparse_pays(g)) return "zeros skipped";
    return fnn_gemm_amx_suits(g) ? "bfloat16 parts" : uses_cells(g) ? "cells" : uses_turned(g) ? "transposed" : "blocks";
}

void fnn_gemm_workspace(const fnn_gemm *g, fnn_workspace *ws) {
    if (fnn_gemm_batches(g) * g->M * g->N == 0) return;
    if (uses_dot(g)) {
        dot_workspace(g, ws);
        return;
    }
    fnn_workspace again = *ws; /* when products on matrix units meet what is not finite, or not enough zeros are found */
    if (uses_cells(g)) fnn_gemm_cells_workspace(g, ws);
    else if (uses_turned(g)) fnn_gemm_turned_workspace(g, ws);
    else fnn_gemm_blocks_workspace(g, ws);
    if (fnn_gemm_amx_suits(g)) fnn_gemm_amx_workspace(g, &again);
    else if (may_be_sparse(g)) fnn_gemm_sparse_workspace(g, &again);
    fnn_enlarge(ws, again.shared, again.scratch);
}

int fnn_gemm_can_read_rows(const fnn_gemm *g) { return may_be_sparse(g); }
int fnn_gemm_run_rows(const fnn_call *call, const fnn_gemm *g, void *shared) {
    return may_be_sparse(g) && fnn_gemm_sparse_run(call, g, shared);
}

void fnn_gemm_run(const fnn_call *call, const fnn_gemm *g, void *shared) {
    if (fnn_gemm_batches(g) * g->M * g->N == 0) return;
    if (may_be_sparse(g) && fnn_gemm_sparse_run(call, g, shared)) return;
    if (!uses_dot(g) && (!fnn_gemm_amx_suits(g) || !fnn_gemm_amx_run(call, g, shared))) {
        if (uses_cells(g)) fnn_gemm_cells_run(call, g, shared);
        else if (uses_turned(g)) fnn_gemm_turned_run(call, g, shared);
        else fnn_gemm_blocks_run(call, g, shared);
        return;
    }
    if (uses_dot(g)) run_dot(call, g, shared);
    if (g->leader) fnn_follow_all(g->leader, NULL);
}

/* gemm_cells.c: C (M x N) = A (M x K) times B (K x N) where neighbours along M, not along K, are neighbours in A: the gradient of
 * a linear layer's weight, K its rows.
 *
 * A slab of rows of both operands is copied at a time, A's into cells of a register tile's rows, B's into panels of its columns:
 * all of memory is read in order, once, and nothing is transposed. Then chunks, blocks of C, take up the slab in blocks of K that
 * stay in a core's caches, and ask for their share of the next slab meanwhile. (Two cores of a Zen 3, AVX2: 256 x 256 x 25088
 * 151 GFLOP/s, the general way 131; 64 x 784 x 4096 1.35 times as fast, 64 x 784 x 200 0.87; 1024 x 1024 x 1024 no gain.) Large
 * register tiles gain less from near operands: theirs is the general way, or gemm_turned.c's. */
#include "gemm_cells.h"

enum {
    DEPTH = 256,             /* a block of K: its panel stays in the first-level cache */
    SLAB_BYTES = 2 << 20,    /* about so much is copied at a time, ... */
    MOST_DEPTH = 2048,       /* but no more of K */
    ROWS = 132,              /* most of C in a chunk: its cells and panels of a block stay in the second-level cache */
    COLUMNS = 256,
    GROUP_BYTES = 1024,      /* of a row are copied together */
    LEAST_SIDE = 32,         /* of C, ... */
    LEAST_MEAN = 64,         /* ... and its sides' harmonic mean, for so many multiply-adds share a copy, ... */
    LEAST_DEPTH = 257,       /* ... and of K: more than a block of it */
    MOST_RESULT = 512 << 10, /* of C's elements: more are read and written so often that longer blocks of K pay */
    CHUNKS = 16,             /* wanted, when each has so much to do */
    CHUNK_FLOPS = 4 << 20
};
static const double LEAST_FLOPS = 16e6; /* a second loop costs little then */

typedef struct {
    const fnn_gemm *g;
    const fnn_kernels *K;
    ptrdiff_t size; /* of an element */
    ptrdiff_t tiles, panels, row_blocks, col_blocks;
    ptrdiff_t depth, blocks;             /* of a block of K, and how many are a slab */
    ptrdiff_t cell, panel;               /* elements of a cell, of a panel */
    ptrdiff_t group_tiles, group_panels; /* that are copied together */
    char *cells, *panels_at;             /* [block][cell], [block][panel] */
    ptrdiff_t from, to;                  /* the slab */
} plan;

int fnn_gemm_cells_suits(const fnn_gemm *g) {
    const fnn_epilogue *e = &g->epilogue;
    const double result = (double)g->M * (double)g->N;
    if (!fnn_small_tile(fnn_kernels_of(g->dtype)) || g->K < LEAST_DEPTH || fnn_min(g->M, g->N) < LEAST_SIDE) return 0;
    if (result > MOST_RESULT || 2 * result < LEAST_MEAN * (double)(g->M + g->N)) return 0;
    if (2 * result * (double)g->K < LEAST_FLOPS) return 0;
    return g->a.row == 1 && g->a.col != 1 && g->b.col == 1 && !g->batch_rank && !e->bias && !e->residual && !e->activation;
}

/* Blocks of C as large as caches allow, then smaller ones, for they are to be shared out: the longer side is cut. */
static void choose_grid(plan *p) {
    const fnn_gemm *g = p->g;
    const double flops = 2.0 * (double)g->M * (double)g->N * (double)g->K;
    p->row_blocks = fnn_ceil_div(g->M, ROWS), p->col_blocks = fnn_ceil_div(g->N, COLUMNS);
    for (ptrdiff_t n; (n = p->row_blocks * p->col_blocks) < CHUNKS && flops / (double)n >= 2.0 * CHUNK_FLOPS;) {
        const ptrdiff_t rows = g->M / p->row_blocks, cols = g->N / p->col_blocks;
        if (fnn_max(rows, cols) < 2 * LEAST_SIDE) break;
        if (rows > cols) p->row_blocks *= 2;
        else p->col_blocks *= 2;
    }
    p->row_blocks = fnn_min(p->row_blocks, p->tiles), p->col_blocks = fnn_min(p->col_blocks, p->panels);
}

/* Cells and panels: an odd number of lines, so that those read together are in different sets of a cache. */
static ptrdiff_t odd_lines(const plan *p, ptrdiff_t elements) {
    const ptrdiff_t line = 64 / p->size;
    return (fnn_ceil_div(elements, line) | 1) * line;
}

static void make_plan(plan *p, const fnn_gemm *g, char *shared) {
    const fnn_kernels *K = fnn_kernels_of(g->dtype);
    *p = (plan){.g = g, .K = K, .size = (ptrdiff_t)fnn_itemsize(g->dtype)};
    p->tiles = fnn_ceil_div(g->M, K->tile_rows), p->panels = fnn_ceil_div(g->N, K->tile_cols);
    choose_grid(p);
    const ptrdiff_t slab = fnn_min(fnn_max(SLAB_BYTES / ((g->M + g->N) * p->size), DEPTH), MOST_DEPTH);
    p->depth = fnn_ceil_div(g->K, fnn_ceil_div(g->K, DEPTH));
    p->blocks = fnn_max(fnn_min(slab, g->K) / p->depth, 1);
    p->cell = odd_lines(p, p->depth * K->tile_rows + K->lanes); /* the last row of a cell may be stored as a whole vector */
    p->panel = odd_lines(p, p->depth * K->tile_cols);
    p->group_tiles = fnn_max(GROUP_BYTES / p->size / K->tile_rows, 1);
    p->group_panels = fnn_max(GROUP_BYTES / p->size / K->tile_cols, 1);
    p->cells = shared;
    p->panels_at = fnn_at(shared, p->blocks * p->tiles * p->cell, g->dtype);
}

static char *cell_at(const plan *p, ptrdiff_t block, ptrdiff_t tile) {
    return fnn_at(p->cells, (block * p->tiles + tile) * p->cell, p->g->dtype);
}
static char *panel_at(const plan *p, ptrdiff_t block, ptrdiff_t panel) {
    return fnn_at(p->panels_at, (block * p->panels + panel) * p->panel, p->g->dtype);
}

/* A group of A's columns or B's, rows of one block. */
static void copy_group(void *context, ptrdiff_t chunk, void *scratch) {
    (void)scratch;
    const plan *p = context;
    const fnn_gemm *g = p->g;
    const ptrdiff_t of_a = fnn_ceil_div(p->tiles, p->group_tiles), groups = of_a + fnn_ceil_div(p->panels, p->group_panels);
    const ptrdiff_t block = chunk / groups, i = chunk % groups, tall = p->K->tile_rows, wide = p->K->tile_cols;
    const ptrdiff_t k = p->from + block * p->depth, depth = fnn_min(p->depth, p->to - k);
    if (i < of_a) {
        const ptrdiff_t tile = i * p->group_tiles, n = fnn_min(p->group_tiles * tall, g->M - tile * tall);
        p->K->gemm_pack(depth, n, fnn_at(g->a.data, k * g->a.col + tile * tall, g->dtype), g->a.col, 1, cell_at(p, block, tile),
                        tall, p->cell);
    } else {
        const ptrdiff_t panel = (i - of_a) * p->group_panels, n = fnn_min(p->group_panels * wide, g->N - panel * wide);
        p->K->gemm_pack(depth, n, fnn_at(g->b.data, k * g->b.row + panel * wide, g->dtype), g->b.row, 1, panel_at(p, block, panel),
                        wide, p->panel);
    }
}

/* Memory that is read next, to be asked for some lines at a time. */
typedef struct {
    const char *at;
    ptrdiff_t lines;
} ahead;

/* Part c of n of the next slab's rows of an operand, `step` elements apart: whole ones of `row` elements, or nothing. */
static ahead share_of(const plan *p, const fnn_matrix *m, ptrdiff_t step, ptrdiff_t row, ptrdiff_t c, ptrdiff_t n) {
    const ptrdiff_t rows = fnn_max(fnn_min(p->to - p->from, p->g->K - p->to), 0);
    const ptrdiff_t first = fnn_part_begin(rows, n, c), last = fnn_part_begin(rows, n, c + 1);
    if (step != row || rows == 0) return (ahead){m->data, 0};
    return (ahead){fnn_at(m->data, (p->to + first) * row, p->g->dtype), (last - first) * row * p->size / 64};
}

/* A chunk: rows x cols of C at (row, col), counted in elements, and in tiles and panels. */
typedef struct {
    ptrdiff_t row, rows, col, cols, tile, tiles, panel, panels;
} block;

static block block_of(const plan *p, ptrdiff_t chunk) {
    const ptrdiff_t r = chunk % p->row_blocks, s = chunk / p->row_blocks, tall = p->K->tile_rows, wide = p->K->tile_cols;
    block w = {.tile = fnn_part_begin(p->tiles, p->row_blocks, r), .panel = fnn_part_begin(p->panels, p->col_blocks, s)};
    w.tiles = fnn_part_begin(p->tiles, p->row_blocks, r + 1) - w.tile;
    w.panels = fnn_part_begin(p->panels, p->col_blocks, s + 1) - w.panel;
    w.row = w.tile * tall, w.rows = fnn_min(w.row + w.tiles * tall, p->g->M) - w.row;
    w.col = w.panel * wide, w.cols = fnn_min(w.col + w.panels * wide, p->g->N) - w.col;
    return w;
}

/* Adds a block of the slab to one panel of the chunk; `lines` of next are asked for before each tile. */
static void add_panel(const plan *p, const block *w, ptrdiff_t k, ptrdiff_t panel, ahead *next, ptrdiff_t lines) {
    const fnn_gemm *g = p->g;
    const ptrdiff_t col = panel * p->K->tile_cols, index = (k - p->from) / p->depth;
    lines = fnn_min(lines, next->lines / w->tiles);
    p->K->gemm_tile_cells(w->rows, fnn_min(p->K->tile_cols, g->N - col), 1, fnn_min(p->depth, p->to - k), p->K->tile_rows,
                          cell_at(p, index, w->tile), NULL, p->cell, p->K->tile_rows, panel_at(p, index, panel), NULL, p->panel,
                          fnn_at(g->c.data, w->row * g->c.row + col, g->dtype), g->c.row, p->K->tile_cols, k > 0, next->at,
                          lines);
    next->at += lines * 64 * w->tiles;
    next->lines = lines ? next->lines - lines * w->tiles : 0;
}

/* Adds the slab to a block of C. */
static void run_chunk(void *context, ptrdiff_t chunk, void *scratch) {
    (void)scratch;
    const plan *p = context;
    const fnn_gemm *g = p->g;
    const block w = block_of(p, chunk);
    const ptrdiff_t n = p->row_blocks * p->col_blocks, tiles = w.tiles * w.panels * fnn_ceil_div(p->to - p->from, p->depth);
    ahead next[2] = {share_of(p, &g->a, g->a.col, g->M, chunk, n), share_of(p, &g->b, g->b.row, g->N, chunk, n)};
    const ptrdiff_t lines = fnn_ceil_div(next[0].lines + next[1].lines, tiles);
    for (ptrdiff_t k = p->from; k < p->to; k += p->depth)
        for (ptrdiff_t j = w.panel; j < w.panel + w.panels; j++) add_panel(p, &w, k, j, &next[next[0].lines == 0], lines);
    if (g->leader && p->to == g->K) fnn_gemm_follow(g, w.row, w.rows, w.col, w.cols, NULL);
}

void fnn_gemm_cells_workspace(const fnn_gemm *g, fnn_workspace *ws) {
    plan p;
    make_plan(&p, g, NULL);
    ws->shared += fnn_whole_lines((size_t)(p.blocks * (p.tiles * p.cell + p.panels * p.panel) * p.size));
}

void fnn_gemm_cells_run(const fnn_call *call, const fnn_gemm *g, void *shared) {
    plan p;
    make_plan(&p, g, shared);
    const ptrdiff_t groups = fnn_ceil_div(p.tiles, p.group_tiles) + fnn_ceil_div(p.panels, p.group_panels);
    for (p.from = 0; p.from < g->K; p.from = p.to) {
        p.to = fnn_min(p.from + p.blocks * p.depth, g->K);
        const double share = (double)(p.to - p.from) / (double)g->K;
        fnn_parallel_for(call, groups * fnn_ceil_div(p.to - p.from, p.depth), 0.3 * (double)((g->M + g->N) * (p.to - p.from)),
                         copy_group, &p);
        fnn_parallel_for(call, p.row_blocks * p.col_blocks, share * fnn_gemm_cost(g), run_chunk, &p);
    }
}

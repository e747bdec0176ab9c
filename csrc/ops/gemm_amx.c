/* gemm_amx.c: plans of float32 products on bfloat16 matrix units (kernels/gemm_amx.h).
 *
 * One parallel loop splits strips of A and of B, a second one multiplies: a chunk is a block of C, which waits in
 * scratch as float32 tiles while the chunk walks k in blocks, short enough for the second-level cache to hold its
 * strips. So the sum over k is one chain, whatever the blocks. What does not fit in SLAB_BYTES is split and multiplied
 * a slab of columns and a slab of rows at a time.
 *
 * Rejected, on the reference machine: splitting a chunk's own strips between its products, in pieces of 128 elements.
 * The two overlap little, and chunks split again what others have split: 224 GFLOP/s a core at 1024 against 250. */
#include "gemm_amx.h"
#include "../amx.h"

enum {
    STRIP = FNN_AMX_STRIP,
    STEP = FNN_AMX_STEP,
    BLOCK = 8,                /* most strips of A, and of B, in a chunk, of two or three planes */
    LEAST_BLOCK = 4,          /* fewest, where there are more */
    BLOCK_STEPS = 16,         /* of a block of k: 0.8 MB of each operand */
    FEW_CHUNKS = 8,           /* enough for most machines: smaller blocks read split strips more often */
    SLAB_BYTES = 48 << 20     /* of each operand, split */
};
static const double CHUNK_NS = 50000;

typedef struct {
    const fnn_gemm *g;
    const fnn_amx_kernels *X;
    int planes;
    ptrdiff_t steps, strip_bytes;
    ptrdiff_t strips, panels;                  /* most strips of A, of B, in a slab; then of the present slab */
    ptrdiff_t all_strips, all_panels, row_slabs, col_slabs;
    ptrdiff_t row_blocks, col_blocks;
    const float *a, *b;
    float *c;                                  /* at this batch position */
    ptrdiff_t first_strip, first_panel;        /* of the slab */
    char *a_at, *b_at;
    int *flag;
} plan;

static ptrdiff_t begin(ptrdiff_t extent, ptrdiff_t parts, ptrdiff_t part) { return extent * part / parts; }

static ptrdiff_t batches(const fnn_gemm *g) {
    ptrdiff_t n = 1;
    for (int d = 0; d < g->batch_rank; d++) n *= g->batch_shape[d];
    return n;
}

/* ---- what it costs ---- */

/* On the reference machine a product of two tiles takes 6 ns and a multiply-add of an avx512 core 12.5 ps, both while
 * all cores compute; splitting an element takes 0.5 to 0.9 ns where it comes from and goes to the third-level cache;
 * the second loop 3 us. */
static double split_ns(const fnn_gemm *g, ptrdiff_t elements) {
    return (0.25 + 0.22 * fnn_amx_planes(g->precision)) * (double)elements;
}

double fnn_gemm_amx_cost(const fnn_gemm *g) {
    const int planes = fnn_amx_planes(g->precision), products = planes * (planes + 1) / 2;
    double tiles = (double)fnn_ceil_div(g->M, 16) * (double)fnn_ceil_div(g->N, 16) * (double)fnn_ceil_div(g->K, STEP);
    return (double)batches(g) * (6.0 * products * tiles + split_ns(g, (g->M + g->N) * g->K) + 3000);
}

int fnn_gemm_amx_suits(const fnn_gemm *g) {
    if (!fnn_amx() || g->dtype != FNN_FLOAT32) return 0;
    double multiply_adds = (double)batches(g) * (double)g->M * (double)fnn_round_up(g->N, 16) * (double)g->K;
    return fnn_gemm_amx_cost(g) < 0.0125 * multiply_adds;
}

/* ---- the plan ---- */

static void make_grid(plan *p) {
    double wanted = fnn_gemm_amx_cost(p->g) / (CHUNK_NS * (double)(batches(p->g) * p->row_slabs * p->col_slabs));
    if (wanted > FEW_CHUNKS) wanted = FEW_CHUNKS;
    const ptrdiff_t block = p->planes == 1 ? 2 * BLOCK : BLOCK; /* what is a third as large can be twice as long */
    p->row_blocks = fnn_ceil_div(p->strips, block);
    /* Equal shares for even numbers of threads. */
    if (p->strips >= 2 * LEAST_BLOCK) p->row_blocks = fnn_round_up(p->row_blocks, 2);
    p->col_blocks = fnn_ceil_div(p->panels, block);
    while ((double)(p->row_blocks * p->col_blocks) < wanted) {
        ptrdiff_t high = p->strips / p->row_blocks, wide = p->panels / p->col_blocks;
        if (high >= 2 * LEAST_BLOCK && high >= wide) p->row_blocks *= 2;
        else if (wide >= 2 * LEAST_BLOCK) p->col_blocks *= 2;
        else break;
    }
}

static void make_plan(plan *p, const fnn_gemm *g) {
    *p = (plan){.g = g, .X = fnn_amx(), .planes = fnn_amx_planes(g->precision), .steps = fnn_ceil_div(g->K, STEP)};
    p->strip_bytes = p->steps * p->planes * FNN_AMX_STRIP_BYTES;
    p->all_strips = fnn_ceil_div(g->M, STRIP);
    p->all_panels = fnn_ceil_div(g->N, STRIP);
    const ptrdiff_t most = fnn_max(SLAB_BYTES / p->strip_bytes, 1);
    p->row_slabs = fnn_ceil_div(p->all_strips, most);
    p->col_slabs = fnn_ceil_div(p->all_panels, most);
    p->strips = fnn_ceil_div(p->all_strips, p->row_slabs);
    p->panels = fnn_ceil_div(p->all_panels, p->col_slabs);
    make_grid(p);
}

/* ---- splitting ---- */

/* One strip. Chunks mix strips of A and of B evenly, so that a worker later finds its rows of A in its own cache. */
static void run_split(void *context, ptrdiff_t chunk, void *scratch) {
    const plan *p = context;
    const fnn_gemm *g = p->g;
    const ptrdiff_t total = p->strips + p->panels, i = begin(p->strips, total, chunk);
    const int columns = begin(p->strips, total, chunk + 1) == i;
    _Alignas(64) float bad[16] = {0};
    (void)scratch;
    fnn_amx_strip s = {.depth = g->K, .columns = columns};
    ptrdiff_t at;
    if (columns) {
        at = (p->first_panel + chunk - i) * STRIP;
        s.data = p->b + at * g->b.col, s.wide = g->N - at, s.wide_step = g->b.col, s.k_step = g->b.row;
    } else {
        at = (p->first_strip + i) * STRIP;
        s.data = p->a + at * g->a.row, s.wide = g->M - at, s.wide_step = g->a.row, s.k_step = g->a.col;
    }
    s.wide = fnn_min(s.wide, STRIP);
    p->X->split(p->planes, &s, columns ? p->b_at + (chunk - i) * p->strip_bytes : p->a_at + i * p->strip_bytes, bad);
    fnn_amx_raise(p->flag, bad);
}

/* ---- multiplying ---- */

static void epilogue(const plan *p, ptrdiff_t i, ptrdiff_t rows, ptrdiff_t j, ptrdiff_t cols) {
    const fnn_gemm *g = p->g;
    const fnn_epilogue *e = &g->epilogue;
    if (!e->bias && !e->residual && !e->activation) return;
    const float *bias = e->bias ? (const float *)e->bias + j : NULL;
    const float *residual = e->residual ? (const float *)e->residual + i * g->residual_row + j : NULL;
    fnn_kernels_of(FNN_FLOAT32)->gemm_epilogue(rows, cols, p->c + i * g->c.row + j, g->c.row, bias, residual,
                                               g->residual_row, e->activation);
}

/* A split strip from step k on. */
static fnn_amx_operand operand(const plan *p, const char *split, ptrdiff_t strip, ptrdiff_t k, int tiles) {
    const ptrdiff_t plane = tiles * FNN_AMX_TILE_BYTES, step = p->planes * plane;
    return (fnn_amx_operand){split + strip * p->strip_bytes + k * step, step, FNN_AMX_TILE_BYTES, plane, NULL};
}

/* Strip i of A times strip j of B, both counted in the slab, over steps k .. k + steps - 1; c: their tiles of C. */
static void multiply(const plan *p, ptrdiff_t i, ptrdiff_t j, ptrdiff_t k, ptrdiff_t steps, fnn_amx_ahead ahead,
                     float *c, float *bad) {
    const fnn_gemm *g = p->g;
    const ptrdiff_t row = (p->first_strip + i) * STRIP, col = (p->first_panel + j) * STRIP;
    const ptrdiff_t rows = fnn_min(g->M - row, STRIP), cols = fnn_min(g->N - col, STRIP);
    const int row_tiles = rows > FNN_AMX_TILE ? 2 : 1, col_tiles = cols > FNN_AMX_TILE ? 2 : 1;
    const fnn_amx_operand a = operand(p, p->a_at, i, k, row_tiles), b = operand(p, p->b_at, j, k, col_tiles);
    p->X->multiply(p->planes, row_tiles, col_tiles, steps, &a, &b, c, k > 0, ahead);
    if (k + steps < p->steps) return;
    p->X->store(0, rows, cols, c, p->c + row * g->c.row + col, g->c.row, bad);
    epilogue(p, row, rows, col, cols);
}

/* A block of C: strips of rows by strips of columns. Meanwhile come from the third-level cache: the next strip of B,
 * while B's are met for the first time; then the next strip of A, a share in each product (worth 8 % from 1536 on). */
static void run_block(void *context, ptrdiff_t chunk, void *scratch) {
    const plan *p = context;
    const ptrdiff_t r = chunk / p->col_blocks, s = chunk % p->col_blocks;
    const ptrdiff_t top = begin(p->strips, p->row_blocks, r), bottom = begin(p->strips, p->row_blocks, r + 1);
    const ptrdiff_t left = begin(p->panels, p->col_blocks, s), right = begin(p->panels, p->col_blocks, s + 1);
    const ptrdiff_t step = p->planes * FNN_AMX_STRIP_BYTES, share = fnn_round_up(step / (right - left), 64);
    _Alignas(64) float bad[16] = {0};
    p->X->begin();
    for (ptrdiff_t k = 0; k < p->steps; k += BLOCK_STEPS) {
        const ptrdiff_t steps = fnn_min(BLOCK_STEPS, p->steps - k);
        char *c = scratch;
        for (ptrdiff_t i = top; i < bottom; i++)
            for (ptrdiff_t j = left; j < right; j++, c += FNN_AMX_C_BYTES) {
                fnn_amx_ahead ahead = {p->a_at, 0};
                if (i == top && j + 1 < right) {
                    ahead.data = p->b_at + (j + 1) * p->strip_bytes + k * step, ahead.step = step;
                } else if (i + 1 < bottom) {
                    ahead.data = p->a_at + (i + 1) * p->strip_bytes + k * step + (j - left) * share * steps;
                    ahead.step = share;
                }
                multiply(p, i, j, k, steps, ahead, (float *)c, bad);
            }
    }
    p->X->end();
    fnn_amx_raise(p->flag, bad);
}

static void run_slabs(const fnn_call *call, plan *p) {
    const double ns = fnn_gemm_amx_cost(p->g) / (double)(batches(p->g) * p->row_slabs * p->col_slabs);
    for (ptrdiff_t s = 0; s < p->col_slabs; s++)
        for (ptrdiff_t r = 0; r < p->row_slabs && !*p->flag; r++) {
            p->first_panel = begin(p->all_panels, p->col_slabs, s);
            p->panels = begin(p->all_panels, p->col_slabs, s + 1) - p->first_panel;
            p->first_strip = begin(p->all_strips, p->row_slabs, r);
            p->strips = begin(p->all_strips, p->row_slabs, r + 1) - p->first_strip;
            fnn_parallel_for(call, p->strips + p->panels, split_ns(p->g, (p->strips + p->panels) * STRIP * p->g->K),
                             run_split, p);
            if (!*p->flag) fnn_parallel_for(call, p->row_blocks * p->col_blocks, ns, run_block, p);
        }
}

/* ---- the interface ---- */

void fnn_gemm_amx_workspace(const fnn_gemm *g, fnn_workspace *ws) {
    plan p;
    make_plan(&p, g);
    size_t scratch = (size_t)(fnn_ceil_div(p.strips, p.row_blocks) * fnn_ceil_div(p.panels, p.col_blocks) * FNN_AMX_C_BYTES);
    if (ws->scratch < scratch) ws->scratch = scratch;
    ws->shared += (size_t)((p.strips + p.panels) * p.strip_bytes);
}

int fnn_gemm_amx_run(const fnn_call *call, const fnn_gemm *g, void *shared) {
    plan p;
    int flag = 0;
    make_plan(&p, g);
    p.flag = &flag;
    p.a_at = shared;
    p.b_at = p.a_at + p.strips * p.strip_bytes;
    for (ptrdiff_t n = batches(g), index = 0; index < n && !flag; index++) {
        ptrdiff_t a, b, c;
        fnn_gemm_seek(g, index, &a, &b, &c);
        p.a = (const float *)g->a.data + a, p.b = (const float *)g->b.data + b, p.c = (float *)g->c.data + c;
        run_slabs(call, &p);
    }
    return !flag;
}

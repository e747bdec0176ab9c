/* gemm_amx.c: plans of float32 products on bfloat16 matrix units (kernels/gemm_amx.h).
 *
 * The longer operand is cut into blocks of strips, one for each chunk, the other one is shared. A first parallel loop
 * splits the shared one; in a second one each chunk splits its own block, a block of k at a time, into scratch, which
 * stays in its core's second-level cache while strip after strip of the shared operand comes by from the third-level
 * one, each for all strips of the block. So half of what is split never leaves its core, and what is shared is read
 * once for a whole block. C waits in scratch as float32 tiles where k has several blocks: the sum over k is one chain,
 * whatever the blocks. Of the shared operand SLAB_BYTES are split at a time.
 *
 * Two things made this 1.2 to 1.3 times as fast as it was (two cores of a Granite Rapids). What comes next is asked for
 * between any two tiles' products, a line or two at a time: a step's share asked for at once keeps the loads of tiles
 * waiting for it. And chunks begin with different shared strips as far as there are any: cores that read the same lines at
 * the same time wait for each other (8.8 ns a tile's product, 7.2 where one begins in the middle; 6.4 from near caches).
 * Rejected there: splitting between products what others split, too, by rows or by runs of four lines (the tiles' loads
 * leave no room between first and second-level cache: 9 to 12 ns); strips split by whoever comes first (no gain); larger
 * blocks; asking ahead in splitting, which waits for memory both ways (0.36 ns an element). */
#include "gemm_amx.h"
#include "../amx.h"

enum {
    STRIP = FNN_AMX_STRIP,
    STEP = FNN_AMX_STEP,
    ROWS = 0,                /* sides of C: strips of A ... */
    COLUMNS = 1,             /* ... and of B */
    BLOCK = 8,               /* most strips of a chunk's own: more would leave shorter blocks of k */
    LEAST_BLOCK = 4,         /* fewest, where there are more: each reads all that is shared; half of it ... */
    MUST_BLOCKS = 4,         /* ... if there would be fewer blocks than these */
    OWN_BYTES = 768 << 10,   /* of a block of k, split: the rest of 2 MB is for what comes by, and sums */
    MOST_SHARED = 128,       /* strips of a chunk whose sums wait: 4 MB of them */
    LEAST_SHARED = 16,       /* or splitting its own costs a chunk more than an eighth of its products */
    FEW_CHUNKS = 8,          /* enough for most machines: smaller blocks read shared strips more often */
    SLAB_BYTES = 48 << 20    /* of the shared operand, split */
};
static const double CHUNK_NS = 50000;

/* An operand at a batch position: all its strips, and those of the present slab. */
typedef struct {
    const float *data;
    ptrdiff_t extent, wide_step, k_step; /* M or N; strides in elements */
    ptrdiff_t all, first, strips;
} side;

typedef struct {
    const fnn_gemm *g;
    const fnn_amx_kernels *X;
    int planes, own, shared;                /* the sides' indices */
    side sides[2];
    ptrdiff_t steps, block_steps;           /* of k; of a block of it */
    ptrdiff_t slabs, own_blocks, shared_blocks;
    ptrdiff_t own_bytes, shared_bytes;      /* of a split strip */
    ptrdiff_t block_strips;                 /* most of a chunk's own */
    float *c;                               /* at this batch position */
    char *split;                            /* the shared slab */
    int *flag;
} plan;

/* ---- what it costs ---- */

/* Nanoseconds on one of two cores of a Granite Rapids that both compute: of a product of two tiles, for which three planes load
 * less than one; of splitting an element, more the further away it was; of an element of C; of the second loop. A multiply-add of
 * its avx512 level takes 11.5 ps. Within a tenth or two of what was measured for products of 128 to 2048 rows, columns and k; where
 * rows are few and the weights many megabytes both take longer. */
static double split_ns(const fnn_gemm *g, ptrdiff_t elements) {
    return (0.15 + 0.05 * fnn_amx_planes(g->precision)) * (double)elements;
}

double fnn_gemm_amx_cost(const fnn_gemm *g) {
    const int planes = fnn_amx_planes(g->precision), products = planes * (planes + 1) / 2;
    const double tiles = (double)fnn_ceil_div(g->M, 16) * (double)fnn_ceil_div(g->N, 16) * (double)fnn_ceil_div(g->K, STEP);
    return (double)fnn_gemm_batches(g) * ((11.5 - 1.5 * planes) * products * tiles + split_ns(g, (g->M + g->N) * g->K) +
                                          0.18 * (double)g->M * (double)g->N + 3000);
}

int fnn_gemm_amx_suits(const fnn_gemm *g) {
    if (!fnn_amx() || g->dtype != FNN_FLOAT32) return 0;
    double multiply_adds = (double)fnn_gemm_batches(g) * (double)g->M * (double)fnn_round_up(g->N, 16) * (double)g->K;
    return fnn_gemm_amx_cost(g) < 0.0115 * multiply_adds;
}

/* ---- the plan ---- */

/* Blocks of the chunks' own strips, even shares for even numbers of threads; then blocks of k. */
static void cut_own(plan *p, double wanted) {
    const ptrdiff_t strips = p->sides[p->own].all;
    p->own_blocks = fnn_ceil_div(strips, BLOCK);
    if (strips >= LEAST_BLOCK) p->own_blocks = fnn_round_up(p->own_blocks, 2);
    while ((double)p->own_blocks < wanted &&
           strips / p->own_blocks >= (p->own_blocks < MUST_BLOCKS ? LEAST_BLOCK : 2 * LEAST_BLOCK))
        p->own_blocks *= 2;
    p->block_strips = fnn_ceil_div(strips, p->own_blocks);
    const ptrdiff_t longest = fnn_max(OWN_BYTES / (p->block_strips * p->planes * FNN_AMX_STRIP_BYTES), 1);
    p->block_steps = fnn_ceil_div(p->steps, fnn_ceil_div(p->steps, longest));
    p->own_bytes = p->block_steps * p->planes * FNN_AMX_STRIP_BYTES;
}

static void cut_shared(plan *p, double wanted) {
    const ptrdiff_t strips = p->sides[p->shared].strips;
    p->shared_blocks = p->block_steps < p->steps ? fnn_ceil_div(strips, MOST_SHARED) : 1;
    while ((double)(p->own_blocks * p->shared_blocks) < wanted && strips / p->shared_blocks >= 2 * LEAST_SHARED)
        p->shared_blocks *= 2;
}

static void make_plan(plan *p, const fnn_gemm *g) {
    *p = (plan){.g = g, .X = fnn_amx(), .planes = fnn_amx_planes(g->precision), .steps = fnn_ceil_div(g->K, STEP)};
    p->sides[ROWS] = (side){.extent = g->M, .wide_step = g->a.row, .k_step = g->a.col};
    p->sides[COLUMNS] = (side){.extent = g->N, .wide_step = g->b.col, .k_step = g->b.row};
    for (int i = 0; i < 2; i++) p->sides[i].all = p->sides[i].strips = fnn_ceil_div(p->sides[i].extent, STRIP);
    p->own = g->M >= g->N ? ROWS : COLUMNS;
    p->shared = 1 - p->own;
    p->shared_bytes = p->steps * p->planes * FNN_AMX_STRIP_BYTES;
    side *shared = &p->sides[p->shared];
    p->slabs = fnn_ceil_div(shared->all, fnn_max(SLAB_BYTES / p->shared_bytes, 1));
    shared->strips = fnn_ceil_div(shared->all, p->slabs);
    double wanted = fnn_gemm_amx_cost(g) / (CHUNK_NS * (double)(fnn_gemm_batches(g) * p->slabs));
    if (wanted > FEW_CHUNKS) wanted = FEW_CHUNKS;
    cut_own(p, wanted);
    cut_shared(p, wanted);
}

/* ---- splitting ---- */

static ptrdiff_t width(const side *s, ptrdiff_t strip) { return fnn_min(s->extent - strip * STRIP, STRIP); }
static int tiles_of(const side *s, ptrdiff_t strip) { return width(s, strip) > FNN_AMX_TILE ? 2 : 1; }

/* Steps k .. k + steps - 1 of a strip. */
static void split_strip(const plan *p, int which, ptrdiff_t strip, ptrdiff_t k, ptrdiff_t steps, char *to, float *bad) {
    const side *s = &p->sides[which];
    const fnn_amx_strip from = {.data = s->data + strip * STRIP * s->wide_step + k * STEP * s->k_step,
                                .wide = width(s, strip),
                                .depth = fnn_min(steps * STEP, p->g->K - k * STEP),
                                .wide_step = s->wide_step,
                                .k_step = s->k_step,
                                .columns = which == COLUMNS};
    p->X->split(p->planes, &from, to, bad);
}

/* One strip of the shared slab. */
static void run_split(void *context, ptrdiff_t chunk, void *scratch) {
    const plan *p = context;
    _Alignas(64) float bad[16] = {0};
    (void)scratch;
    split_strip(p, p->shared, p->sides[p->shared].first + chunk, 0, p->steps, p->split + chunk * p->shared_bytes, bad);
    fnn_amx_raise(p->flag, bad);
}

/* ---- multiplying ---- */

/* A chunk: strips [top, bottom) of its own by strips [left, right) of the shared ones, counted in the slab. */
typedef struct {
    ptrdiff_t top, bottom, left, right;
    ptrdiff_t start;  /* the shared strip it begins with, from `left` on: others begin elsewhere */
    char *own, *sums; /* scratch */
    _Alignas(64) float bad[16];
} block;

static fnn_amx_operand operand(const plan *p, const char *split, int tiles) {
    const ptrdiff_t plane = tiles * FNN_AMX_TILE_BYTES;
    return (fnn_amx_operand){split, p->planes * plane, FNN_AMX_TILE_BYTES, plane, NULL};
}

/* Where step k of a shared strip begins. */
static const char *shared_at(const plan *p, ptrdiff_t strip, ptrdiff_t k) {
    const int tiles = tiles_of(&p->sides[p->shared], p->sides[p->shared].first + strip);
    return p->split + strip * p->shared_bytes + k * p->planes * tiles * FNN_AMX_TILE_BYTES;
}

/* Strip i of the chunk's own times shared strip j over steps k .. k + steps - 1; c: their tiles of C. */
static void multiply(const plan *p, block *w, ptrdiff_t i, ptrdiff_t j, ptrdiff_t k, ptrdiff_t steps,
                     fnn_amx_ahead *ahead, float *c) {
    const fnn_gemm *g = p->g;
    const ptrdiff_t strip[2] = {p->own == ROWS ? i : p->sides[ROWS].first + j,
                                p->own == ROWS ? p->sides[COLUMNS].first + j : i};
    const int tiles[2] = {tiles_of(&p->sides[ROWS], strip[ROWS]), tiles_of(&p->sides[COLUMNS], strip[COLUMNS])};
    const ptrdiff_t row = strip[ROWS] * STRIP, rows = width(&p->sides[ROWS], strip[ROWS]);
    const ptrdiff_t col = strip[COLUMNS] * STRIP, cols = width(&p->sides[COLUMNS], strip[COLUMNS]);
    float *out = p->c + row * g->c.row + col;
    const int last = k + steps == p->steps;
    fnn_amx_operand operands[2];
    operands[p->own] = operand(p, w->own + (i - w->top) * p->own_bytes, tiles[p->own]);
    operands[p->shared] = operand(p, shared_at(p, j, k), tiles[p->shared]);
    ahead->out = last ? (const char *)out : NULL;
    ahead->out_step = g->c.row * (ptrdiff_t)sizeof(float);
    ahead->sums = p->block_steps < p->steps ? (const char *)c + FNN_AMX_C_BYTES : NULL;
    p->X->multiply(p->planes, tiles[ROWS], tiles[COLUMNS], steps, &operands[ROWS], &operands[COLUMNS], c, k > 0, ahead);
    if (!last) return;
    p->X->store(0, rows, cols, c, out, g->c.row, w->bad);
    fnn_gemm_epilogue(g, row, rows, col, cols, out, g->c.row);
}

/* A block of k. Meanwhile the next shared strip comes from the third-level cache, a share in each product: behind
 * the last one, the next block's first. */
static void multiply_block(const plan *p, block *w, ptrdiff_t k, ptrdiff_t steps) {
    const ptrdiff_t own = w->bottom - w->top, step = p->planes * FNN_AMX_STRIP_BYTES;
    const ptrdiff_t share = fnn_round_up(fnn_ceil_div(step, own), 64);
    char *c = w->sums;
    for (ptrdiff_t i = w->top; i < w->bottom; i++)
        split_strip(p, p->own, i, k, steps, w->own + (i - w->top) * p->own_bytes, w->bad);
    const ptrdiff_t count = w->right - w->left;
    for (ptrdiff_t n = 0; n < count; n++) {
        const ptrdiff_t j = w->left + (w->start + n) % count, then = w->left + (w->start + n + 1) % count;
        const int more = n + 1 < count || k + steps < p->steps;
        const char *next = shared_at(p, then, n + 1 < count ? k : k + steps);
        for (ptrdiff_t i = w->top; i < w->bottom; i++) {
            fnn_amx_ahead ahead = {.near = next + (i - w->top) * share * steps, .near_step = more ? share : 0};
            multiply(p, w, i, j, k, steps, &ahead, (float *)c);
            if (p->block_steps < p->steps) c += FNN_AMX_C_BYTES;
        }
    }
}

static ptrdiff_t own_bytes(const plan *p) { return p->block_strips * p->own_bytes; }
static ptrdiff_t sums_bytes(const plan *p) {
    const ptrdiff_t shared = fnn_ceil_div(p->sides[p->shared].strips, p->shared_blocks);
    return p->block_steps < p->steps ? p->block_strips * shared * FNN_AMX_C_BYTES : FNN_AMX_C_BYTES;
}

static void run_chunk(void *context, ptrdiff_t chunk, void *scratch) {
    const plan *p = context;
    const ptrdiff_t strips = p->sides[p->own].all, shared = p->sides[p->shared].strips;
    const ptrdiff_t r = chunk / p->shared_blocks, s = chunk % p->shared_blocks;
    block w = {.top = fnn_part_begin(strips, p->own_blocks, r),
               .bottom = fnn_part_begin(strips, p->own_blocks, r + 1),
               .left = fnn_part_begin(shared, p->shared_blocks, s),
               .right = fnn_part_begin(shared, p->shared_blocks, s + 1),
               .own = scratch,
               .sums = (char *)scratch + own_bytes(p)};
    w.start = r * (w.right - w.left) / p->own_blocks;
    p->X->begin();
    for (ptrdiff_t k = 0; k < p->steps; k += p->block_steps)
        multiply_block(p, &w, k, fnn_min(p->block_steps, p->steps - k));
    p->X->end();
    fnn_amx_raise(p->flag, w.bad);
}

static void run_slabs(const fnn_call *call, plan *p) {
    const double ns = fnn_gemm_amx_cost(p->g) / (double)(fnn_gemm_batches(p->g) * p->slabs);
    side *shared = &p->sides[p->shared];
    for (ptrdiff_t s = 0; s < p->slabs && !*p->flag; s++) {
        shared->first = fnn_part_begin(shared->all, p->slabs, s);
        shared->strips = fnn_part_begin(shared->all, p->slabs, s + 1) - shared->first;
        fnn_parallel_for(call, shared->strips, split_ns(p->g, shared->strips * STRIP * p->g->K), run_split, p);
        if (!*p->flag) fnn_parallel_for(call, p->own_blocks * p->shared_blocks, ns, run_chunk, p);
    }
}

/* ---- the interface ---- */

void fnn_gemm_amx_workspace(const fnn_gemm *g, fnn_workspace *ws) {
    plan p;
    make_plan(&p, g);
    const size_t scratch = (size_t)(own_bytes(&p) + sums_bytes(&p));
    if (ws->scratch < scratch) ws->scratch = scratch;
    ws->shared += (size_t)(p.sides[p.shared].strips * p.shared_bytes);
}

int fnn_gemm_amx_run(const fnn_call *call, const fnn_gemm *g, void *shared) {
    plan p;
    int flag = 0;
    make_plan(&p, g);
    p.flag = &flag;
    p.split = shared;
    for (ptrdiff_t n = fnn_gemm_batches(g), index = 0; index < n && !flag; index++) {
        ptrdiff_t a, b, c;
        fnn_gemm_seek(g, index, &a, &b, &c);
        p.sides[ROWS].data = (const float *)g->a.data + a;
        p.sides[COLUMNS].data = (const float *)g->b.data + b;
        p.c = (float *)g->c.data + c;
        run_slabs(call, &p);
    }
    return !flag;
}

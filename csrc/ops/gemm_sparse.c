/* gemm_sparse.c: C (M x N) = A (M x K) times B (K x N) where most of A or of B is 0: images of digits, one-hot columns, counts of
 * words, what ReLU and dropout leave over.
 *
 * Zeros are seen when the call runs: a few runs of both operands are looked at, and if a model of what it costs says so, what is
 * not 0 in A's rows or B's columns is marked, a bit each, and the other operand is copied into panels of some vectors. Then each
 * row takes, of every panel, the rows that are marked. Where B is marked, C comes transposed.
 *
 * A multiply-add of 0 changes no sum, so the bits are those of the dense way, and the choice is free: no result depends on it. There
 * are two exceptions, -0, which only underflow makes, and 0 times infinity: where -0 comes out or a panel is not finite, all elements
 * are multiplied. */
#include "gemm_sparse.h"

#include <string.h>

enum {
    LEAST_DEPTH = 16,
    MOST_BYTES = 8 << 20,    /* of marks and panels for all */
    RUNS = 32,               /* of RUN elements are looked at, ... */
    FIRST_RUNS = 6,          /* ... but of dense data only so many */
    RUN = 8,
    MARK_ROWS = 16,          /* marked together, ... */
    MARK_COLUMNS = 64,       /* ... or columns */
    PANEL_ROWS = 96,         /* of a panel for all, copied together */
    NEAR_BYTES = 32 << 10,   /* panels so small a chunk copies itself, ... */
    OWN_BYTES = 1 << 20,     /* ... and larger ones if ... */
    OWN_ROWS = 256,          /* ... as many rows or all use them */
    TILE_BYTES = 16 << 10,   /* of C at a time, ... */
    TURNED_BYTES = 7 << 10,  /* ... where it comes transposed: columns of B are marked, lines of which stay near too */
    BLOCK_BYTES = 256 << 10, /* most of C in a chunk: half of a second-level cache */
    LEAST_ROWS = 16,         /* of C in a chunk, ... */
    LEAST_COLUMNS = 64,      /* ... where B is marked, columns */
    CHUNKS = 12,             /* wanted, ... */
    FEW_CHUNKS = 8,          /* ... where calls follow, ... */
    OWN_PANELS = 4           /* ... and enough for each to be one panel by all rows */
};
/* Nanoseconds: what a product must take for zeros to matter; a marked element and a vector's multiply-add with it, which wait for
 * their sums' latency at least; a word of marks, whose end the CPU cannot foresee; marking a vector of elements, contiguous or
 * transposed; copying or transposing one; a byte that comes from memory a second time; one more loop. (Zen 3.) */
static const double LEAST_NS = 40000, ENTRY_NS = 0.2, VEC_NS = 0.25, LEAST_ENTRY_NS = 1.6, WORD_NS = 5, MARK_NS = 0.6, TURN_NS = 1.1,
                    COPY_NS = 0.8, MEMORY_NS = 0.05, LOOP_NS = 2000;
static const double FAR_BYTES = 2 << 20, GAIN = 0.8, MOST_DENSITY = 0.42;

typedef struct {
    const fnn_gemm *g;
    const fnn_kernels *K;
    ptrdiff_t size;           /* of an element */
    int swapped;              /* B's columns are marked, not A's rows */
    ptrdiff_t rows, cols;     /* of A and B, or of B and A transposed */
    fnn_matrix marked, dense; /* (rows x depth) and (depth x cols) */
    ptrdiff_t wide, panels;   /* columns of a panel, and how many make up the dense operand */
    ptrdiff_t words;          /* of marks in a row */
    ptrdiff_t mark_chunks, panel_chunks;
    ptrdiff_t part, parts; /* rows in a chunk, and how many are all; and ... */
    ptrdiff_t tile;        /* ... so many at a time */
    uint64_t *marks;
    ptrdiff_t *count;    /* of what is marked, by chunk */
    char *panel;         /* for all, ... */
    int *is_finite, all; /* ... by chunk, and together; without chunks each part copies its own */
    size_t bytes;        /* for all */
} plan;

static fnn_matrix turned(fnn_matrix m) { return (fnn_matrix){.data = m.data, .row = m.col, .col = m.row}; }
static size_t panel_bytes(const plan *p) { return (size_t)(p->g->K * p->wide * p->size); }
static ptrdiff_t mark_rows(const plan *p) { return p->swapped ? MARK_COLUMNS : MARK_ROWS; }
static int passes(const plan *p) { return p->g->leader && p->g->leader->passes; }

/* Columns of C are whole vectors, and long runs where calls follow: what else these read is far away. */
static void choose_parts(plan *p) {
    const ptrdiff_t chunks = p->swapped && p->g->leader ? FEW_CHUNKS : CHUNKS, least = p->swapped ? LEAST_COLUMNS : LEAST_ROWS;
    const ptrdiff_t most = fnn_max(BLOCK_BYTES / (p->wide * p->size), 1);
    ptrdiff_t wanted = fnn_min(fnn_ceil_div(chunks, p->panels), fnn_max(p->rows / least, 1));
    const int is_own = panel_bytes(p) <= OWN_BYTES && panel_bytes(p) > (p->swapped ? NEAR_BYTES : 0);
    if (p->panels >= OWN_PANELS && is_own) wanted = 1;
    wanted = fnn_max(wanted, fnn_ceil_div(p->rows, most));
    p->part = fnn_round_up(fnn_ceil_div(p->rows, wanted), p->K->lanes), p->parts = fnn_ceil_div(p->rows, p->part);
    p->tile = fnn_round_up(fnn_min(fnn_max((p->swapped ? TURNED_BYTES : TILE_BYTES) / (p->wide * p->size), 1), p->part), p->K->lanes);
}

/* shared: NULL to count bytes only. */
static void make_plan(plan *p, const fnn_gemm *g, int swapped, void *shared) {
    *p = (plan){.g = g, .K = fnn_kernels_of(g->dtype), .size = (ptrdiff_t)fnn_itemsize(g->dtype), .swapped = swapped};
    p->rows = swapped ? g->N : g->M, p->cols = swapped ? g->M : g->N;
    p->marked = swapped ? turned(g->b) : g->a, p->dense = swapped ? turned(g->a) : g->b;
    const ptrdiff_t vecs = fnn_ceil_div(p->cols, p->K->lanes);
    p->panels = fnn_ceil_div(vecs, FNN_MARKED_VECS), p->wide = fnn_ceil_div(vecs, p->panels) * p->K->lanes;
    p->panels = fnn_ceil_div(p->cols, p->wide);
    p->words = fnn_ceil_div(g->K, 64), p->mark_chunks = fnn_ceil_div(p->rows, mark_rows(p));
    choose_parts(p);
    p->marks = fnn_place(shared, &p->bytes, (size_t)(p->rows * p->words) * sizeof *p->marks);
    p->count = fnn_place(shared, &p->bytes, (size_t)p->mark_chunks * sizeof *p->count);
    if (panel_bytes(p) <= (p->parts == 1 || p->part >= OWN_ROWS ? OWN_BYTES : NEAR_BYTES)) return;
    p->panel_chunks = p->panels * fnn_ceil_div(g->K, PANEL_ROWS);
    p->is_finite = fnn_place(shared, &p->bytes, (size_t)p->panel_chunks * sizeof *p->is_finite);
    p->panel = fnn_place(shared, &p->bytes, (size_t)p->panels * panel_bytes(p));
}

/* Single-thread nanoseconds where `entries` elements are marked. */
static double vectors(const plan *p, ptrdiff_t rows, ptrdiff_t cols) {
    return (double)rows * (double)fnn_ceil_div(cols, p->K->lanes);
}
static double prepare_ns(const plan *p) {
    const double bytes = (double)p->rows * (double)p->g->K * (double)p->size;
    return (bytes > FAR_BYTES ? MEMORY_NS * bytes : 0) + vectors(p, p->rows, p->g->K) * (p->marked.col == 1 ? MARK_NS : TURN_NS) +
           (p->panel_chunks ? COPY_NS * vectors(p, p->g->K, p->cols) : 0);
}
static double product_ns(const plan *p, double entries) {
    const double vecs = (double)(p->wide / p->K->lanes), each = ENTRY_NS + VEC_NS * vecs;
    const double row = entries * (each > LEAST_ENTRY_NS ? each : LEAST_ENTRY_NS) + WORD_NS * (double)(p->rows * p->words);
    return (double)p->panels * row + COPY_NS * vectors(p, p->rows, p->cols) +
           (p->panel_chunks ? 0 : COPY_NS * (double)p->parts * vectors(p, p->g->K, p->cols));
}
static double sparse_ns(const plan *p, double entries) { return prepare_ns(p) + product_ns(p, entries) + LOOP_NS; }

/* ---- how many elements are 0 ---- */

static int is_zero(const fnn_matrix *m, ptrdiff_t row, ptrdiff_t col, int dtype) {
    const void *at = fnn_at(m->data, row * m->row + col * m->col, dtype);
    return dtype == FNN_FLOAT64 ? *(const double *)at == 0 : *(const float *)at == 0;
}

/* What share of some elements here and there in the operand to be marked is not 0, in runs of neighbours. */
static double density(const plan *p) {
    const fnn_matrix m = p->marked.col == 1 ? p->marked : turned(p->marked);
    const ptrdiff_t rows = p->marked.col == 1 ? p->rows : p->g->K, length = p->marked.col == 1 ? p->g->K : p->rows;
    const ptrdiff_t run = fnn_min(RUN, length), starts = length - run + 1;
    ptrdiff_t zeros = 0, seen = 0;
    for (ptrdiff_t i = 0; i < RUNS && (i < FIRST_RUNS || (double)zeros > (1 - MOST_DENSITY) * (double)seen / 2); i++) {
        const ptrdiff_t row = (rows * (2 * i + 1) / (2 * RUNS) + i * 7) % rows, first = i * 21 % RUNS * starts / RUNS;
        for (ptrdiff_t j = first; j < first + run; j++, seen++) zeros += is_zero(&m, row, j, p->g->dtype);
    }
    return 1 - (double)zeros / (double)seen;
}

/* Which operand to mark, if any: the plan and 1. */
static int choose(plan *best, const fnn_gemm *g, void *shared) {
    double least = GAIN * fnn_gemm_cost(g);
    int found = 0;
    for (int swapped = 0; swapped < 2; swapped++) {
        plan p;
        make_plan(&p, g, swapped, shared);
        if (p.bytes > MOST_BYTES || sparse_ns(&p, 0) >= least) continue;
        const double share = density(&p), ns = sparse_ns(&p, share * (double)p.rows * (double)g->K);
        if (share > MOST_DENSITY || ns >= least) continue;
        least = ns, *best = p, found = 1;
    }
    return found;
}

/* ---- marks and panels ---- */

static void mark(const plan *p, ptrdiff_t chunk) {
    const ptrdiff_t row = chunk * mark_rows(p), n = fnn_min(mark_rows(p), p->rows - row);
    p->K->gemm_mark(n, p->g->K, fnn_at(p->marked.data, row * p->marked.row, p->g->dtype), p->marked.row, p->marked.col, p->words,
                    p->marks + row * p->words, &p->count[chunk]);
}

/* n rows of a panel from k on; the last panel is filled up with zeros. Returns whether all are finite. */
static int copy_panel(const plan *p, ptrdiff_t panel, ptrdiff_t k, ptrdiff_t n, void *to) {
    const ptrdiff_t col = panel * p->wide, cols = fnn_min(p->wide, p->cols - col);
    if (cols < p->wide) memset(to, 0, (size_t)(n * p->wide * p->size));
    p->K->gemm_pack(n, cols, fnn_at(p->dense.data, k * p->dense.row + col * p->dense.col, p->g->dtype), p->dense.row, p->dense.col,
                    to, p->wide, 0);
    int is_finite;
    p->K->gemm_finite(n * p->wide, to, &is_finite);
    return is_finite;
}

static char *panel_for_all(const plan *p, ptrdiff_t panel) { return p->panel + (size_t)panel * panel_bytes(p); }

static void run_prepare(void *context, ptrdiff_t chunk, void *scratch) {
    const plan *p = context;
    const ptrdiff_t panel = chunk % p->panels, k = chunk / p->panels * PANEL_ROWS, n = fnn_min(PANEL_ROWS, p->g->K - k);
    (void)scratch;
    if (chunk >= p->panel_chunks) mark(p, chunk - p->panel_chunks);
    else p->is_finite[chunk] = copy_panel(p, panel, k, n, fnn_at(panel_for_all(p, panel), k * p->wide, p->g->dtype));
}

/* ---- C ---- */

/* A chunk: of C's rows, or columns, n from `at` on, by one panel of so many columns. */
typedef struct {
    ptrdiff_t at, n, first, cols;
    const char *panel;
    int is_finite;
    void *tile;
} part;

/* In a chunk's scratch, one behind the other: a tile; a panel of its own; C where it is only handed on. */
static size_t tile_bytes(const plan *p) { return fnn_whole_lines((size_t)(p->tile * p->wide * p->size)); }
static size_t own_bytes(const plan *p) { return p->panel_chunks ? 0 : fnn_whole_lines(panel_bytes(p)); }
static size_t part_bytes(const plan *p) { return passes(p) ? (size_t)(p->part * p->wide * p->size) : 0; }

static part part_of(const plan *p, ptrdiff_t chunk, char *scratch) {
    const ptrdiff_t panel = chunk / p->parts, at = chunk % p->parts * p->part;
    part t = {.at = at, .n = fnn_min(p->part, p->rows - at), .first = panel * p->wide, .tile = scratch};
    t.cols = fnn_min(p->wide, p->cols - t.first);
    t.panel = p->panel_chunks ? panel_for_all(p, panel) : scratch + tile_bytes(p);
    t.is_finite = p->panel_chunks ? p->all : copy_panel(p, panel, 0, p->g->K, scratch + tile_bytes(p));
    return t;
}

/* Rows from .. from + n of the product of what is marked with the panel to `to`, transposed where these are columns of C. */
static void multiply(const plan *p, const part *t, ptrdiff_t from, ptrdiff_t n, void *to, ptrdiff_t to_row) {
    const fnn_matrix *m = &p->marked;
    const void *x = fnn_at(m->data, from * m->row, p->g->dtype);
    int is_sure = t->is_finite;
    if (is_sure)
        p->K->gemm_marked(n, p->wide / p->K->lanes, p->words, p->marks + from * p->words, x, m->row, m->col, t->panel, t->tile,
                          &is_sure);
    if (!is_sure) p->K->gemm_tile(n, p->wide, 1, p->g->K, x, NULL, m->row, m->col, t->panel, NULL, p->wide, t->tile, p->wide, 0);
    if (p->swapped) p->K->gemm_pack(t->cols, n, t->tile, 1, p->wide, to, to_row, 0);
    else p->K->gemm_pack(n, t->cols, t->tile, p->wide, 1, to, to_row, 0);
}

/* A block of C, from c on, and where it is in C. */
typedef struct {
    ptrdiff_t row, rows, col, cols;
    char *c;
    ptrdiff_t c_row;
} block;

/* Runs of C's rows are long enough to follow one by one. */
static int follows_by_rows(const plan *p) { return p->swapped || p->panels == 1 || passes(p); }

/* Chunks that are neighbours share the panel. */
static void run_part(void *context, ptrdiff_t chunk, void *scratch) {
    const plan *p = context;
    const fnn_gemm *g = p->g;
    const part t = part_of(p, chunk, scratch);
    block b = {.row = t.at, .rows = t.n, .col = t.first, .cols = t.cols};
    if (p->swapped) b = (block){.row = t.first, .rows = t.cols, .col = t.at, .cols = t.n};
    if (passes(p)) b.c = (char *)scratch + tile_bytes(p) + own_bytes(p), b.c_row = b.cols;
    else b.c = fnn_at(g->c.data, b.row * g->c.row + b.col, g->dtype), b.c_row = g->c.row;
    for (ptrdiff_t i = 0; i < t.n; i += p->tile)
        multiply(p, &t, t.at + i, fnn_min(p->tile, t.n - i), fnn_at(b.c, i * (p->swapped ? 1 : b.c_row), g->dtype), b.c_row);
    fnn_gemm_epilogue(g, b.row, b.rows, b.col, b.cols, b.c, b.c_row);
    if (g->leader && follows_by_rows(p)) fnn_gemm_follow(g, b.row, b.rows, b.col, b.cols, passes(p) ? b.c : NULL);
}

/* ---- the interface ---- */

int fnn_gemm_sparse_suits(const fnn_gemm *g) {
    plan rows, cols;
    if (fnn_gemm_batches(g) != 1 || g->K < LEAST_DEPTH || fnn_gemm_cost(g) < LEAST_NS) return 0;
    make_plan(&rows, g, 0, NULL), make_plan(&cols, g, 1, NULL);
    return fnn_min(rows.bytes, cols.bytes) <= MOST_BYTES;
}

void fnn_gemm_sparse_workspace(const fnn_gemm *g, fnn_workspace *ws) {
    const fnn_workspace before = *ws;
    for (int swapped = 0; swapped < 2; swapped++) {
        plan p;
        make_plan(&p, g, swapped, NULL);
        if (p.bytes <= MOST_BYTES) fnn_enlarge(ws, before.shared + p.bytes, tile_bytes(&p) + own_bytes(&p) + part_bytes(&p));
    }
}

int fnn_gemm_sparse_pays(const fnn_gemm *g) {
    plan p;
    return g->a.data && g->b.data && choose(&p, g, NULL);
}

int fnn_gemm_sparse_run(const fnn_call *call, const fnn_gemm *g, void *shared) {
    plan p;
    ptrdiff_t entries = 0;
    if (!choose(&p, g, shared)) return 0;
    fnn_parallel_for(call, p.panel_chunks + p.mark_chunks, prepare_ns(&p), run_prepare, &p);
    p.all = 1;
    for (ptrdiff_t i = 0; i < p.mark_chunks; i++) entries += p.count[i];
    for (ptrdiff_t i = 0; i < p.panel_chunks; i++) p.all &= p.is_finite[i];
    const double ns = product_ns(&p, (double)entries);
    if (ns >= GAIN * fnn_gemm_cost(g)) return 0;
    fnn_parallel_for(call, p.panels * p.parts, ns, run_part, &p);
    if (g->leader && !follows_by_rows(&p)) fnn_follow_all(g->leader);
    return 1;
}

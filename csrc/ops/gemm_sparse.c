/* gemm_sparse.c: C (M x N) = A (M x K) times B (K x N) where most of A or of B is 0: images of digits, one-hot columns, counts of
 * words, what ReLU and dropout leave over.
 *
 * Zeros are seen when the call runs: a few runs of both operands are looked at, and if a model of what it costs says so, the other
 * operand is copied into panels of some vectors, what is not 0 in A's rows or B's columns is marked, a bit each, and each row
 * takes, of every panel, the rows that are marked. Where B is marked, C comes transposed. Chunks of rows mark what they take, and
 * multiply it while it is in the first-level cache; chunks of one panel share all marks. Rows that are not contiguous are copied.
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
    PANEL_ROWS = 96,         /* of a panel for all, copied together */
    MARK_ROWS = 16,          /* marked together */
    OWN_BYTES = 1 << 20,     /* of a panel that a chunk copies itself, if it is the only one to use it */
    BLOCK_BYTES = 256 << 10, /* most of C in a chunk: half of a second-level cache */
    NEAR_BYTES = 128 << 10,  /* of panels that chunks of rows take one after the other */
    TILE_BYTES = 16 << 10,   /* of C by one panel at a time, ... */
    TILE_ROWS = 64,          /* ... and rows, where these are marked on their way */
    LEAST_ROWS = 16,         /* of C in a chunk, ... */
    LEAST_COLUMNS = 64,      /* ... where B is marked, columns; of a panel */
    CHUNKS = 12,             /* of many rows, ... */
    FEW_CHUNKS = 8,          /* ... of few rows, ... */
    ENOUGH_CHUNKS = 4        /* ... and enough */
};
/* Nanoseconds: what a product must take for zeros to matter; a marked element and a vector's multiply-add with it, which wait for
 * their sums' latency at least; a word of marks, whose end the CPU cannot foresee; marking a vector of elements, and turning one
 * before; copying one; one more loop. (Zen 3.) */
static const double LEAST_NS = 40000, ENTRY_NS = 0.2, VEC_NS = 0.2, LEAST_ENTRY_NS = 1.3, WORD_NS = 6, MARK_NS = 0.6, TURN_NS = 0.8,
                    COPY_NS = 0.8, LOOP_NS = 2000;
static const double GAIN = 0.8, MOST_DENSITY = 0.42;

typedef struct {
    const fnn_gemm *g;
    const fnn_kernels *K;
    ptrdiff_t size;           /* of an element */
    int swapped;              /* B's columns are marked, not A's rows */
    ptrdiff_t rows, cols;     /* of A and B, or of B and A transposed */
    fnn_matrix marked, dense; /* (rows x depth) and (depth x cols) */
    ptrdiff_t wide, panels;   /* columns of a panel, and how many make up the dense operand */
    ptrdiff_t group, groups;  /* panels in a chunk, all or one, and how many groups */
    ptrdiff_t part, parts;    /* rows in a chunk, and how many are all; and ... */
    ptrdiff_t tile;           /* ... so many at a time */
    ptrdiff_t panel_chunks;   /* 0: each chunk copies its own panel */
    ptrdiff_t mark_chunks;    /* 0: each chunk marks its own rows, a tile at a time */
    char *panel;              /* for all, ... */
    int *is_finite, all;      /* ... by chunk, and together */
    ptrdiff_t words;          /* of marks in a row */
    uint64_t *marks;          /* for all, ... */
    ptrdiff_t *count;         /* ... how many, by chunk, ... */
    char *turned;             /* ... and the rows, if they are not contiguous */
    char *whole;              /* C where it is only handed on, but not by chunks */
    size_t bytes;             /* for all */
} plan;

static size_t panel_bytes(const plan *p) { return (size_t)(p->g->K * p->wide * p->size); }
static int passes(const plan *p) { return p->g->leader && p->g->leader->passes; }

/* Whether a chunk of C is one run of memory. What follows reads more of it, from far away. */
static int follows_by_chunks(const plan *p) { return !p->swapped && p->groups == 1; }

/* Rows that are not contiguous are copied, FNN_MARKED_DEPTH elements at a time. */
static ptrdiff_t turned_row(const plan *p) { return fnn_gemm_copied_row(FNN_MARKED_DEPTH, p->size); }
static size_t turned_bytes(const plan *p, ptrdiff_t rows) {
    return p->marked.col == 1 ? 0 : (size_t)(rows * turned_row(p) * p->size);
}

/* Chunks of rows take all panels, if these are few, or stay near and rows are many, or copies of these are large (which is a matter of
 * strides, but no bit depends on it); else a chunk is one panel. Columns of C are whole vectors. */
static void choose_chunks(plan *p) {
    const int is_near = p->panels * (ptrdiff_t)panel_bytes(p) <= NEAR_BYTES;
    const int is_long = turned_bytes(p, p->rows) * (size_t)p->words > MOST_BYTES / 2;
    const int by_rows = p->panels < ENOUGH_CHUNKS || is_long || (is_near && p->rows >= FEW_CHUNKS * TILE_ROWS);
    const ptrdiff_t least = p->swapped ? LEAST_COLUMNS : LEAST_ROWS;
    p->group = by_rows ? p->panels : 1, p->groups = fnn_ceil_div(p->panels, p->group);
    const ptrdiff_t wanted = by_rows ? fnn_max(FEW_CHUNKS, fnn_min(p->rows / TILE_ROWS, CHUNKS)) : 1;
    p->parts = fnn_min(wanted, fnn_max(p->rows / least, 1));
    p->parts = fnn_max(p->parts, fnn_ceil_div(p->rows * p->group * p->wide * p->size, BLOCK_BYTES));
    p->part = fnn_round_up(fnn_ceil_div(p->rows, p->parts), p->swapped ? p->K->lanes : 1), p->parts = fnn_ceil_div(p->rows, p->part);
    const ptrdiff_t tile = fnn_round_up(fnn_max(TILE_BYTES / (p->wide * p->size), 1), p->K->lanes);
    p->tile = fnn_min(fnn_min(tile, by_rows ? TILE_ROWS : p->part), p->part);
    p->mark_chunks = by_rows ? 0 : fnn_ceil_div(p->rows, MARK_ROWS);
    p->panel_chunks = !by_rows && p->parts == 1 && panel_bytes(p) <= OWN_BYTES ? 0 : p->panels * fnn_ceil_div(p->g->K, PANEL_ROWS);
}

/* shared: NULL to count bytes only. */
static void make_plan(plan *p, const fnn_gemm *g, int swapped, void *shared) {
    *p = (plan){.g = g, .K = fnn_kernels_of(g->dtype), .size = (ptrdiff_t)fnn_itemsize(g->dtype), .swapped = swapped};
    p->rows = swapped ? g->N : g->M, p->cols = swapped ? g->M : g->N;
    p->marked = swapped ? fnn_turned(g->b) : g->a, p->dense = swapped ? fnn_turned(g->a) : g->b;
    const ptrdiff_t vecs = fnn_ceil_div(p->cols, p->K->lanes);
    p->panels = fnn_ceil_div(vecs, FNN_MARKED_VECS);
    /* Few rows: copies of panels for all would take longer than their products. */
    const int is_low = p->rows <= FEW_CHUNKS * LEAST_ROWS;
    if (is_low && p->panels < ENOUGH_CHUNKS && p->cols >= ENOUGH_CHUNKS * LEAST_COLUMNS) p->panels = ENOUGH_CHUNKS;
    p->wide = fnn_ceil_div(vecs, p->panels) * p->K->lanes;
    p->panels = fnn_ceil_div(p->cols, p->wide);
    p->words = fnn_ceil_div(g->K, FNN_MARKED_DEPTH);
    choose_chunks(p);
    p->marks = fnn_place(shared, &p->bytes, p->mark_chunks ? (size_t)(p->rows * p->words) * sizeof *p->marks : 0);
    p->count = fnn_place(shared, &p->bytes, (size_t)p->mark_chunks * sizeof *p->count);
    p->turned = fnn_place(shared, &p->bytes, p->mark_chunks ? turned_bytes(p, p->rows) * (size_t)p->words : 0);
    p->whole = fnn_place(shared, &p->bytes, passes(p) && !follows_by_chunks(p) ? (size_t)(g->M * g->N * p->size) : 0);
    if (!p->panel_chunks) return;
    p->is_finite = fnn_place(shared, &p->bytes, (size_t)p->panel_chunks * sizeof *p->is_finite);
    p->panel = fnn_place(shared, &p->bytes, (size_t)p->panels * panel_bytes(p));
}

/* Single-thread nanoseconds where `entries` elements are marked. */
static double vectors(const plan *p, ptrdiff_t rows, ptrdiff_t cols) {
    return (double)rows * (double)fnn_ceil_div(cols, p->K->lanes);
}
static double mark_ns(const plan *p) { return vectors(p, p->rows, p->g->K) * (MARK_NS + (p->marked.col == 1 ? 0 : TURN_NS)); }
static double copy_ns(const plan *p) { return COPY_NS * vectors(p, p->g->K, p->cols); }
static double prepare_ns(const plan *p) { return (p->mark_chunks ? mark_ns(p) : 0) + (p->panel_chunks ? copy_ns(p) : 0); }
static double product_ns(const plan *p, double entries) {
    const double vecs = (double)(p->wide / p->K->lanes), each = ENTRY_NS + VEC_NS * vecs;
    const double row = entries * (each > LEAST_ENTRY_NS ? each : LEAST_ENTRY_NS) + WORD_NS * (double)(p->rows * p->words);
    const double finish = (COPY_NS + (p->swapped ? TURN_NS : 0)) * vectors(p, p->rows, p->cols);
    return (double)p->panels * row + finish + (p->mark_chunks ? 0 : mark_ns(p)) + (p->panel_chunks ? 0 : copy_ns(p));
}
static double sparse_ns(const plan *p, double entries) { return prepare_ns(p) + product_ns(p, entries) + LOOP_NS; }

/* ---- how many elements are 0 ---- */

static int is_zero(const fnn_matrix *m, ptrdiff_t row, ptrdiff_t col, int dtype) {
    const void *at = fnn_at(m->data, row * m->row + col * m->col, dtype);
    return dtype == FNN_FLOAT64 ? *(const double *)at == 0 : *(const float *)at == 0;
}

/* What share of some elements here and there in the operand to be marked is not 0, in runs of neighbours. */
static double density(const plan *p) {
    const fnn_matrix m = p->marked.col == 1 ? p->marked : fnn_turned(p->marked);
    const ptrdiff_t rows = p->marked.col == 1 ? p->rows : p->g->K, length = p->marked.col == 1 ? p->g->K : p->rows;
    const ptrdiff_t run = fnn_min(RUN, length), starts = length - run + 1;
    ptrdiff_t zeros = 0, seen = 0;
    for (ptrdiff_t i = 0; i < RUNS && (i < FIRST_RUNS || (double)zeros > (1 - MOST_DENSITY) * (double)seen / 2); i++) {
        const ptrdiff_t row = (rows * (2 * i + 1) / (2 * RUNS) + i * 7) % rows, first = i * 21 % RUNS * starts / RUNS;
        for (ptrdiff_t j = first; j < first + run; j++, seen++) zeros += is_zero(&m, row, j, p->g->dtype);
    }
    return 1 - (double)zeros / (double)seen;
}

/* Which operand to mark, if any: the plan, and how many elements seem to be not 0; -1: neither. */
static double choose(plan *best, const fnn_gemm *g, void *shared) {
    double least = GAIN * fnn_gemm_cost(g), found = -1;
    for (int swapped = 0; swapped < 2; swapped++) {
        plan p;
        make_plan(&p, g, swapped, shared);
        if (p.bytes > MOST_BYTES || sparse_ns(&p, 0) >= least) continue;
        const double share = density(&p), entries = share * (double)p.rows * (double)g->K, ns = sparse_ns(&p, entries);
        if (share > MOST_DENSITY || ns >= least) continue;
        least = ns, *best = p, found = entries;
    }
    return found;
}

/* ---- marks and panels ---- */

/* Up to FNN_MARKED_DEPTH elements of some rows of what is marked. */
typedef struct {
    ptrdiff_t rows, depth;
    const void *x;
    ptrdiff_t row, col;
    const uint64_t *marks;
    ptrdiff_t apart;
} stretch;

static stretch stretch_of(const plan *p, ptrdiff_t row, ptrdiff_t rows, ptrdiff_t k) {
    const fnn_matrix *m = &p->marked;
    stretch s = {.rows = rows, .depth = fnn_min(FNN_MARKED_DEPTH, p->g->K - k), .row = m->row, .col = m->col};
    s.x = fnn_at(m->data, row * m->row + k * m->col, p->g->dtype);
    return s;
}

/* Marks what is copied to `to` first if rows are not contiguous. Returns how many are marked. */
static ptrdiff_t mark(const plan *p, stretch *s, void *to, uint64_t *marks, ptrdiff_t apart) {
    ptrdiff_t marked;
    if (s->col != 1) {
        p->K->gemm_pack(s->rows, s->depth, s->x, s->row, s->col, to, turned_row(p), 0);
        s->x = to, s->row = turned_row(p), s->col = 1;
    }
    p->K->gemm_mark(s->rows, s->depth, s->x, s->row, marks, apart, &marked);
    s->marks = marks, s->apart = apart;
    return marked;
}

/* Where a word of marks for all is, and its elements if they are copied. */
static uint64_t *marks_at(const plan *p, ptrdiff_t row, ptrdiff_t word) { return p->marks + row * p->words + word; }
static char *turned_at(const plan *p, ptrdiff_t row, ptrdiff_t word) { return p->turned + turned_bytes(p, word * p->rows + row); }

static void mark_for_all(const plan *p, ptrdiff_t chunk) {
    const ptrdiff_t row = chunk * MARK_ROWS, n = fnn_min(MARK_ROWS, p->rows - row);
    p->count[chunk] = 0;
    for (ptrdiff_t w = 0; w < p->words; w++) {
        stretch s = stretch_of(p, row, n, w * FNN_MARKED_DEPTH);
        p->count[chunk] += mark(p, &s, turned_at(p, row, w), marks_at(p, row, w), p->words);
    }
}

static stretch stretch_for_all(const plan *p, ptrdiff_t row, ptrdiff_t rows, ptrdiff_t k) {
    stretch s = stretch_of(p, row, rows, k);
    s.marks = marks_at(p, row, k / FNN_MARKED_DEPTH), s.apart = p->words;
    if (s.col != 1) s.x = turned_at(p, row, k / FNN_MARKED_DEPTH), s.row = turned_row(p), s.col = 1;
    return s;
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
    if (chunk >= p->panel_chunks) mark_for_all(p, chunk - p->panel_chunks);
    else p->is_finite[chunk] = copy_panel(p, panel, k, n, fnn_at(panel_for_all(p, panel), k * p->wide, p->g->dtype));
}

/* ---- C ---- */

/* A chunk: of C's rows, or columns, n from `at` on, by panels first .. first + panels. */
typedef struct {
    ptrdiff_t at, n, first, panels;
    int is_finite;
    char *tile, *turned, *panel, *passed;
    uint64_t *marks;
} part;

static size_t tile_bytes(const plan *p) { return (size_t)(p->tile * p->wide * p->size); }

/* In a chunk's scratch, one behind the other: a tile by each panel; rows that are turned, and marks; a panel of its own; C where it is
 * only handed on. Returns the bytes of all. */
static size_t place_part(const plan *p, part *t, char *scratch) {
    size_t used = 0;
    t->tile = fnn_place(scratch, &used, (size_t)p->group * tile_bytes(p));
    t->turned = fnn_place(scratch, &used, p->mark_chunks ? 0 : turned_bytes(p, p->tile));
    t->marks = fnn_place(scratch, &used, p->mark_chunks ? 0 : (size_t)p->tile * sizeof *t->marks);
    t->panel = fnn_place(scratch, &used, p->panel_chunks ? 0 : panel_bytes(p));
    t->passed = fnn_place(scratch, &used, passes(p) && follows_by_chunks(p) ? (size_t)(p->part * p->cols * p->size) : 0);
    return used;
}

static part part_of(const plan *p, ptrdiff_t chunk, char *scratch) {
    const ptrdiff_t first = chunk / p->parts * p->group, at = chunk % p->parts * p->part;
    part t = {.at = at, .n = fnn_min(p->part, p->rows - at), .first = first, .panels = fnn_min(p->group, p->panels - first)};
    place_part(p, &t, scratch);
    if (p->panel_chunks) t.panel = panel_for_all(p, first), t.is_finite = p->all;
    else t.is_finite = copy_panel(p, first, 0, p->g->K, t.panel);
    return t;
}

static const char *panel_at(const plan *p, const part *t, ptrdiff_t q, ptrdiff_t k) {
    return t->panel + (size_t)q * panel_bytes(p) + k * p->wide * p->size;
}

/* n rows of the tiles by all panels of the chunk, from `row` on. */
static void multiply_marked(const plan *p, const part *t, ptrdiff_t row, ptrdiff_t n) {
    for (ptrdiff_t k = 0; k < p->g->K; k += FNN_MARKED_DEPTH) {
        stretch s = p->mark_chunks ? stretch_for_all(p, row, n, k) : stretch_of(p, row, n, k);
        const ptrdiff_t marked = p->mark_chunks ? 0 : mark(p, &s, t->turned, t->marks, 1);
        const int is_sparse = (double)marked <= MOST_DENSITY * (double)(n * s.depth);
        for (ptrdiff_t q = 0; q < t->panels; q++) {
            const void *b = panel_at(p, t, q, k);
            void *c = t->tile + (size_t)q * tile_bytes(p);
            if (is_sparse) p->K->gemm_marked(n, p->wide / p->K->lanes, s.marks, s.apart, s.x, s.row, b, c, k > 0);
            else p->K->gemm_tile(n, p->wide, 1, s.depth, s.x, NULL, s.row, 1, b, NULL, p->wide, c, p->wide, k > 0);
        }
    }
}

/* A tile by panel q of the chunk with all elements, zeros too. */
static void multiply_all(const plan *p, const part *t, ptrdiff_t q, ptrdiff_t row, ptrdiff_t n, void *c) {
    const void *x = fnn_at(p->marked.data, row * p->marked.row, p->g->dtype);
    p->K->gemm_tile(n, p->wide, 1, p->g->K, x, NULL, p->marked.row, p->marked.col, panel_at(p, t, q, 0), NULL, p->wide, c, p->wide, 0);
}

/* A block of C, from c on, and where it is in C. */
typedef struct {
    ptrdiff_t row, rows, col, cols;
    char *c;
    ptrdiff_t c_row;
} block;

/* Rows i .. i + n of the chunk: transposed to the block where these are columns of C. */
static void make_rows(const plan *p, const part *t, const block *b, ptrdiff_t i, ptrdiff_t n) {
    if (t->is_finite) multiply_marked(p, t, t->at + i, n);
    for (ptrdiff_t q = 0; q < t->panels; q++) {
        char *c = t->tile + (size_t)q * tile_bytes(p);
        const ptrdiff_t first = q * p->wide, cols = fnn_min(p->wide, (p->swapped ? b->rows : b->cols) - first);
        int is_sure = t->is_finite;
        if (is_sure) p->K->gemm_no_negative_zero(n * p->wide, c, &is_sure);
        if (!is_sure) multiply_all(p, t, q, t->at + i, n, c);
        if (p->swapped) p->K->gemm_pack(cols, n, c, 1, p->wide, fnn_at(b->c, first * b->c_row + i, p->g->dtype), b->c_row, 0);
        else p->K->gemm_pack(n, cols, c, p->wide, 1, fnn_at(b->c, i * b->c_row + first, p->g->dtype), b->c_row, 0);
    }
}

/* A chunk's block: in C, in the chunk's scratch, or in memory for all of C that is handed on. */
static block block_of(const plan *p, const part *t) {
    const fnn_gemm *g = p->g;
    const ptrdiff_t first = t->first * p->wide, cols = fnn_min(t->panels * p->wide, p->cols - first);
    block b = {.row = t->at, .rows = t->n, .col = first, .cols = cols, .c_row = passes(p) ? g->N : g->c.row};
    if (p->swapped) b.row = first, b.rows = cols, b.col = t->at, b.cols = t->n;
    if (passes(p) && follows_by_chunks(p)) b.c = t->passed;
    else b.c = fnn_at(passes(p) ? p->whole : g->c.data, b.row * b.c_row + b.col, g->dtype);
    return b;
}

/* Chunks that are neighbours share panels. */
static void run_part(void *context, ptrdiff_t chunk, void *scratch) {
    const plan *p = context;
    const part t = part_of(p, chunk, scratch);
    const block b = block_of(p, &t);
    for (ptrdiff_t i = 0; i < t.n; i += p->tile) make_rows(p, &t, &b, i, fnn_min(p->tile, t.n - i));
    fnn_gemm_epilogue(p->g, b.row, b.rows, b.col, b.cols, b.c, b.c_row);
    if (p->g->leader && follows_by_chunks(p)) fnn_gemm_follow(p->g, b.row, b.rows, b.col, b.cols, passes(p) ? b.c : NULL);
}

/* ---- the interface ---- */

int fnn_gemm_sparse_suits(const fnn_gemm *g) {
    plan rows, cols;
    if (fnn_gemm_batches(g) != 1 || g->M * g->N == 0 || g->K < LEAST_DEPTH || fnn_gemm_cost(g) < LEAST_NS) return 0;
    make_plan(&rows, g, 0, NULL), make_plan(&cols, g, 1, NULL);
    return fnn_min(rows.bytes, cols.bytes) <= MOST_BYTES;
}

void fnn_gemm_sparse_workspace(const fnn_gemm *g, fnn_workspace *ws) {
    const fnn_workspace before = *ws;
    for (int swapped = 0; swapped < 2; swapped++) {
        plan p;
        part t;
        make_plan(&p, g, swapped, NULL);
        if (p.bytes > MOST_BYTES) continue;
        fnn_enlarge(ws, before.shared + p.bytes, place_part(&p, &t, NULL));
    }
}

int fnn_gemm_sparse_pays(const fnn_gemm *g) {
    plan p;
    return g->a.data && g->b.data && choose(&p, g, NULL) >= 0;
}

int fnn_gemm_sparse_run(const fnn_call *call, const fnn_gemm *g, void *shared) {
    plan p;
    double entries = choose(&p, g, shared);
    if (entries < 0) return 0;
    if (p.panel_chunks + p.mark_chunks)
        fnn_parallel_for(call, p.panel_chunks + p.mark_chunks, prepare_ns(&p), run_prepare, &p);
    p.all = 1;
    for (ptrdiff_t i = 0; i < p.panel_chunks; i++) p.all &= p.is_finite[i];
    if (p.mark_chunks) entries = 0;
    for (ptrdiff_t i = 0; i < p.mark_chunks; i++) entries += (double)p.count[i];
    const double ns = product_ns(&p, entries);
    if (ns >= GAIN * fnn_gemm_cost(g)) return 0;
    fnn_parallel_for(call, p.groups * p.parts, ns, run_part, &p);
    if (g->leader && !follows_by_chunks(&p)) fnn_follow_all(g->leader, passes(&p) ? p.whole : NULL);
    return 1;
}

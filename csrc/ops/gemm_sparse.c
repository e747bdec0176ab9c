/* gemm_sparse.c: C (M x N) = A (M x K) times B (K x N) where most of A or of B is 0: images of digits, one-hot columns, counts of
 * words, what ReLU and dropout leave over.
 *
 * Zeros are seen when the call runs: a few runs of both operands are looked at, and if a model of what it costs says so, the other
 * operand is copied into panels of some vectors, what is not 0 in A's rows or B's columns is marked, a bit each, and each row
 * takes, of every panel, the rows that are marked. Where B is marked, C comes transposed. Chunks of rows mark what they take, and
 * multiply it while it is in the first-level cache; chunks of one panel share all marks. Rows may be contiguous or columns in memory, and
 * may be those that a batch picks from a data set (fnn_call.picking): all are read where they lie, but lines that would share few
 * sets of that cache.
 *
 * A multiply-add of 0 changes no sum, so the bits are those of the dense way, and the choice is free: no result depends on it. There
 * are two exceptions, -0, which only underflow makes, and 0 times infinity: where -0 comes out or a panel is not finite, all elements
 * are multiplied. */
#include "gemm_sparse.h"
#include "slices.h"

#include <string.h>

enum {
    LEAST_DEPTH = 16,
    MOST_BYTES = 8 << 20,    /* of marks and panels for all */
    RUNS = 32,               /* of RUN elements are looked at, ... */
    FIRST_RUNS = 6,          /* ... but of dense data only so many */
    RUN = 8,
    PANEL_ROWS = 96,         /* of a panel for all, copied together */
    MOST_LINES = FNN_MARKED_DEPTH, /* marked together, ... */
    MARK_ROWS = 16,          /* ... for all so many where they are rows */
    ALIAS_BYTES = 512,       /* lines that are a multiple apart do not all have place in a first-level cache */
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
 * their sums' latency at least; a word of marks, whose end the CPU cannot foresee; marking a vector of elements; transposing one of
 * C; copying one; one more loop. (Zen 3.) */
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
    const fnn_call *picking;  /* which rows of A or of B are what is marked; NULL: they follow one another */
    int across, is_aliased;   /* whether its lines are columns; whether they are copied */
    ptrdiff_t line;           /* bytes from one line to the next */
    const void **lines;       /* all of them */
    ptrdiff_t wide, panels;   /* columns of a panel, and how many make up the dense operand */
    ptrdiff_t group, groups;  /* panels in a chunk, all or one, and how many groups */
    ptrdiff_t part, parts;    /* rows in a chunk, and how many are all; and ... */
    ptrdiff_t tile;           /* ... so many at a time */
    ptrdiff_t panel_chunks;   /* 0: each chunk copies its own panel */
    ptrdiff_t mark_chunks;    /* 0: each chunk marks its own rows, a tile at a time; else ... */
    ptrdiff_t mark_rows;      /* ... so many a chunk */
    char *panel;              /* for all, ... */
    int *is_finite, all;      /* ... by chunk, and together */
    ptrdiff_t words;          /* of marks in a row */
    uint64_t *marks;          /* for all, ... */
    ptrdiff_t *count;         /* ... and how many, by chunk */
    char *whole;              /* C where it is only handed on, but not by chunks */
    size_t bytes;             /* for all */
} plan;

static size_t panel_bytes(const plan *p) { return (size_t)(p->g->K * p->wide * p->size); }
static int passes(const plan *p) { return p->g->leader && p->g->leader->passes; }

/* Whether a chunk of C is one run of memory. What follows reads more of it, from far away. */
static int follows_by_chunks(const plan *p) { return !p->swapped && p->groups == 1; }

static ptrdiff_t near_row(const plan *p) { return fnn_gemm_copied_row(TILE_ROWS, p->size); }

/* Chunks of rows take all panels, if these are few, or stay near and rows are many, and are whole tiles; else a chunk is one panel.
 * Columns of C are whole vectors. */
static void choose_chunks(plan *p) {
    const int is_near = p->panels * (ptrdiff_t)panel_bytes(p) <= NEAR_BYTES;
    const int by_rows = p->panels < ENOUGH_CHUNKS || (is_near && p->rows >= FEW_CHUNKS * TILE_ROWS);
    const ptrdiff_t least = p->swapped ? LEAST_COLUMNS : LEAST_ROWS;
    p->group = by_rows ? p->panels : 1, p->groups = fnn_ceil_div(p->panels, p->group);
    const ptrdiff_t wanted = by_rows ? fnn_max(FEW_CHUNKS, fnn_min(p->rows / TILE_ROWS, CHUNKS)) : 1;
    p->parts = fnn_min(wanted, fnn_max(p->rows / least, 1));
    p->parts = fnn_max(p->parts, fnn_ceil_div(p->rows * p->group * p->wide * p->size, BLOCK_BYTES));
    p->part = fnn_round_up(fnn_ceil_div(p->rows, p->parts), p->swapped ? p->K->lanes : 1), p->parts = fnn_ceil_div(p->rows, p->part);
    const ptrdiff_t tile = fnn_round_up(fnn_max(TILE_BYTES / (p->wide * p->size), 1), p->K->lanes);
    p->tile = fnn_min(fnn_min(tile, TILE_ROWS), p->part);
    if (by_rows) p->part = (p->part + p->tile / 2) / p->tile * p->tile, p->parts = fnn_ceil_div(p->rows, p->part);
    p->mark_rows = p->across ? MOST_LINES : MARK_ROWS, p->mark_chunks = by_rows ? 0 : fnn_ceil_div(p->rows, p->mark_rows);
    p->panel_chunks = !by_rows && p->parts == 1 && panel_bytes(p) <= OWN_BYTES ? 0 : p->panels * fnn_ceil_div(p->g->K, PANEL_ROWS);
}

/* shared: NULL to count bytes only. */
static void make_plan(plan *p, const fnn_gemm *g, int swapped, void *shared) {
    *p = (plan){.g = g, .K = fnn_kernels_of(g->dtype), .size = (ptrdiff_t)fnn_itemsize(g->dtype), .swapped = swapped};
    p->rows = swapped ? g->N : g->M, p->cols = swapped ? g->M : g->N;
    p->marked = swapped ? fnn_turned(g->b) : g->a, p->dense = swapped ? fnn_turned(g->a) : g->b;
    p->picking = swapped ? g->b.picking : g->a.picking;
    p->across = p->picking ? swapped : p->marked.col != 1, p->line = (p->across ? p->marked.col : p->marked.row) * p->size;
    p->is_aliased = p->across && !p->picking && p->line % ALIAS_BYTES == 0;
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
    p->lines = fnn_place(shared, &p->bytes, (size_t)((p->across ? g->K : p->rows) + MOST_LINES) * sizeof *p->lines);
    p->whole = fnn_place(shared, &p->bytes, passes(p) && !follows_by_chunks(p) ? (size_t)(g->M * g->N * p->size) : 0);
    if (!p->panel_chunks) return;
    p->is_finite = fnn_place(shared, &p->bytes, (size_t)p->panel_chunks * sizeof *p->is_finite);
    p->panel = fnn_place(shared, &p->bytes, (size_t)p->panels * panel_bytes(p));
}

/* Single-thread nanoseconds where `entries` elements are marked. */
static double vectors(const plan *p, ptrdiff_t rows, ptrdiff_t cols) {
    return (double)rows * (double)fnn_ceil_div(cols, p->K->lanes);
}
static double mark_ns(const plan *p) { return vectors(p, p->rows, p->g->K) * (MARK_NS + (p->is_aliased ? COPY_NS : 0)); }
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

static ptrdiff_t length_of(const plan *p) { return p->across ? p->rows : p->g->K; }

/* Where the i-th of RUNS runs begins, of so many elements. */
static const char *run_at(const plan *p, ptrdiff_t i, ptrdiff_t run) {
    const ptrdiff_t lines = p->across ? p->g->K : p->rows, line = (lines * (2 * i + 1) / (2 * RUNS) + i * 7) % lines;
    const ptrdiff_t at = p->picking ? (ptrdiff_t)fnn_late_positions(p->picking)[line] : line;
    return (const char *)p->marked.data + at * p->line + i * 21 % RUNS * (length_of(p) - run + 1) / RUNS * p->size;
}

/* Lines may be far away: runs are asked for before they are looked at. */
static void ask_for_runs(const plan *p, ptrdiff_t first, ptrdiff_t end, ptrdiff_t run) {
    for (ptrdiff_t i = first; i < end; i++) __builtin_prefetch(run_at(p, i, run));
}

static ptrdiff_t count_zeros(const char *at, ptrdiff_t n, int dtype) {
    ptrdiff_t zeros = 0;
    for (ptrdiff_t j = 0; j < n; j++) zeros += dtype == FNN_FLOAT64 ? ((const double *)at)[j] == 0 : ((const float *)at)[j] == 0;
    return zeros;
}

/* What share of some elements here and there in the operand to be marked is not 0, in runs of neighbours on its lines. */
static double density(const plan *p) {
    const ptrdiff_t run = fnn_min(RUN, length_of(p));
    ptrdiff_t zeros = 0, seen = 0;
    ask_for_runs(p, 0, FIRST_RUNS, run);
    for (ptrdiff_t i = 0; i < RUNS && (i < FIRST_RUNS || (double)zeros > (1 - MOST_DENSITY) * (double)seen / 2); i++, seen += run) {
        if (i == FIRST_RUNS) ask_for_runs(p, FIRST_RUNS, RUNS, run);
        zeros += count_zeros(run_at(p, i, run), run, p->g->dtype);
    }
    return 1 - (double)zeros / (double)seen;
}

/* Which operand to mark, if any: the plan, and how many elements seem to be not 0; -1: neither. */
static double choose(plan *best, const fnn_gemm *g, void *shared) {
    double least = GAIN * fnn_gemm_cost(g), found = -1;
    for (int swapped = 0; swapped < 2; swapped++) {
        plan p;
        make_plan(&p, g, swapped, shared);
        if ((swapped ? g->a : g->b).picking || (p.across && p.marked.row != 1) || p.bytes > MOST_BYTES || sparse_ns(&p, 0) >= least) continue;
        const double share = density(&p), entries = share * (double)p.rows * (double)g->K, ns = sparse_ns(&p, entries);
        if (share > MOST_DENSITY || ns >= least) continue;
        least = ns, *best = p, found = entries;
    }
    return found;
}

/* ---- marks and panels ---- */

/* Where all lines begin; behind them the first ones again, a tile further: what comes next where lines are columns. */
static void find_lines(plan *p) {
    const ptrdiff_t lines = p->across ? p->g->K : p->rows;
    const int64_t *at = p->picking ? fnn_late_positions(p->picking) : NULL;
    const char *data = p->marked.data;
    for (ptrdiff_t i = 0; i < lines; i++) p->lines[i] = data + (at ? (ptrdiff_t)at[i] : i) * p->line;
    for (ptrdiff_t i = 0; i < MOST_LINES; i++) p->lines[lines + i] = (const char *)p->lines[i % lines] + p->tile * p->size;
}

/* Some rows of what is marked by some elements of each: of lines, `length` elements from `from` on. */
typedef struct {
    ptrdiff_t rows, depth, lines, from, length;
    const void **line;
    const uint64_t *marks;
    ptrdiff_t apart;
} stretch;

static stretch stretch_of(const plan *p, ptrdiff_t row, ptrdiff_t rows, ptrdiff_t k) {
    const ptrdiff_t depth = fnn_min(FNN_MARKED_DEPTH, p->g->K - k);
    if (p->across) return (stretch){.rows = rows, .depth = depth, .lines = depth, .from = row, .length = rows, .line = p->lines + k};
    return (stretch){.rows = rows, .depth = depth, .lines = rows, .from = k, .length = depth, .line = p->lines + row};
}

/* Returns how many are marked. */
static ptrdiff_t mark(const plan *p, stretch *s, uint64_t *marks, ptrdiff_t apart) {
    ptrdiff_t marked;
    s->marks = marks, s->apart = apart;
    if (p->across) p->K->gemm_mark_across(s->lines, s->length, s->line, s->from, marks, apart, &marked);
    else p->K->gemm_mark(s->lines, s->length, s->line, s->from, marks, apart, &marked);
    return marked;
}

static void mark_for_all(const plan *p, ptrdiff_t chunk) {
    const ptrdiff_t row = chunk * p->mark_rows, n = fnn_min(p->mark_rows, p->rows - row);
    p->count[chunk] = 0;
    for (ptrdiff_t w = 0; w < p->words; w++) {
        stretch s = stretch_of(p, row, n, w * FNN_MARKED_DEPTH);
        p->count[chunk] += mark(p, &s, p->marks + row * p->words + w, p->words);
    }
}

/* Lines that would share few sets of a first-level cache are copied to `to`, and listed before it. */
static void copy_lines(const plan *p, stretch *s, void *to) {
    const ptrdiff_t apart = near_row(p) * p->size;
    const void **line = to;
    char *near = (char *)(line + MOST_LINES);
    for (ptrdiff_t i = 0; i < s->lines; i++)
        line[i] = memcpy(near + i * apart, (const char *)s->line[i] + s->from * p->size, (size_t)(s->length * p->size));
    s->line = line, s->from = 0;
}

/* n rows of a panel from k on; the last panel is filled up with zeros. Returns whether all are finite. */
static int copy_panel(const plan *p, ptrdiff_t panel, ptrdiff_t k, ptrdiff_t n, void *to) {
    const ptrdiff_t col = panel * p->wide, cols = fnn_min(p->wide, p->cols - col);
    for (ptrdiff_t i = 0; i < n && cols < p->wide; i++)
        memset((char *)to + (i * p->wide + cols) * p->size, 0, (size_t)((p->wide - cols) * p->size));
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
    char *tile, *near, *panel, *passed;
    uint64_t *marks;
} part;

static size_t tile_bytes(const plan *p) { return (size_t)(p->tile * p->wide * p->size); }

/* In a chunk's scratch, one behind the other: a tile by each panel; lines that are copied; marks; a panel of its own; C where it is only
 * handed on. Returns the bytes of all. */
static size_t place_part(const plan *p, part *t, char *scratch) {
    size_t used = 0;
    t->tile = fnn_place(scratch, &used, (size_t)p->group * tile_bytes(p));
    t->near = fnn_place(scratch, &used, p->is_aliased ? MOST_LINES * (sizeof *p->lines + (size_t)(near_row(p) * p->size)) : 0);
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

static void multiply_stretch(const plan *p, const stretch *s, const void *b, void *c, int accumulate) {
    const ptrdiff_t vecs = p->wide / p->K->lanes;
    if (p->across) p->K->gemm_marked_across(s->rows, vecs, s->marks, s->apart, s->line, s->from, b, c, accumulate);
    else p->K->gemm_marked(s->rows, vecs, s->marks, s->apart, s->line, s->from, b, c, accumulate);
}

/* The same, zeros too: rows that follow one another, or columns one by one. */
static void multiply_tile(const plan *p, const stretch *s, const void *b, void *c, int accumulate) {
    ptrdiff_t column[MOST_LINES], row[MOST_LINES];
    const ptrdiff_t lines = p->across ? s->lines : 1;
    for (ptrdiff_t k = 0; k < lines; k++) {
        column[k] = ((const char *)s->line[k] - (const char *)s->line[0]) / p->size;
        row[k] = k * p->wide;
    }
    const char *x = (const char *)s->line[0] + s->from * p->size;
    p->K->gemm_tile(s->rows, p->wide, lines, p->across ? 1 : s->depth, x, column, p->across ? 1 : p->marked.row, 1, b, row, p->wide, c,
                    p->wide, accumulate);
}

/* n rows of the tiles by all panels of the chunk, from `row` on. */
static void multiply_marked(const plan *p, const part *t, ptrdiff_t row, ptrdiff_t n) {
    for (ptrdiff_t k = 0; k < p->g->K; k += FNN_MARKED_DEPTH) {
        stretch s = stretch_of(p, row, n, k);
        ptrdiff_t marked = 0;
        s.marks = p->marks + row * p->words + k / FNN_MARKED_DEPTH, s.apart = p->words;
        if (!p->mark_chunks) marked = mark(p, &s, t->marks, 1);
        if (p->is_aliased) copy_lines(p, &s, t->near);
        const int is_sparse = (double)marked <= MOST_DENSITY * (double)(n * s.depth) || (p->picking && !p->across);
        for (ptrdiff_t q = 0; q < t->panels; q++) {
            const void *b = panel_at(p, t, q, k);
            void *c = t->tile + (size_t)q * tile_bytes(p);
            if (is_sparse) multiply_stretch(p, &s, b, c, k > 0);
            else multiply_tile(p, &s, b, c, k > 0);
        }
    }
}

/* A tile by panel q of the chunk with all elements, zeros too. */
static void multiply_all(const plan *p, const part *t, ptrdiff_t q, ptrdiff_t row, ptrdiff_t n, void *c) {
    for (ptrdiff_t k = 0; k < p->g->K; k += FNN_MARKED_DEPTH) {
        const uint64_t all = ~(uint64_t)0 >> (FNN_MARKED_DEPTH - fnn_min(FNN_MARKED_DEPTH, p->g->K - k));
        stretch s = stretch_of(p, row, n, k);
        s.marks = &all, s.apart = 0;
        multiply_stretch(p, &s, panel_at(p, t, q, k), c, k > 0);
    }
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
    find_lines(&p);
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

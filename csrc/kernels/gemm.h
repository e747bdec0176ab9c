/* gemm.h: the register tile of matrix multiplication, on which linear layers, matmul and convolutions stand.
 *
 * The rule: an element of C is one chain of fused multiply-adds, over t, then over k, that starts from 0 or from the element's
 * old value. Every tile shape computes the same chain, so a result depends neither on tiling, packing, blocking of k nor position.
 *
 * A tile is TILE_ROWS x TILE_VECS vectors of accumulators, which leaves registers for one row of B and for broadcasts of A:
 * 14 x 2 of 32 registers and 6 x 2 of 16, the shapes with the fewest loads per multiply-add (BLIS uses the like). Two panels of B
 * together take 6 x 4 of 32 registers: 10 loads for 24 multiply-adds, and few pointers, which makes it 1.04 to 1.15 times as fast as
 * 14 x 2 (one core of a Granite Rapids, B's panels of 256 to 1024 rows from the second-level cache, by the clock of the moment; whole
 * products on two cores 1.03 to 1.1; 8 x 3 is as fast but fits few widths of layers). Few live accumulators are bound by latency: rows are therefore shared
 * out evenly, 15 as 8 + 7, and very few of them make wider tiles, which also read longer runs of B. */

#if defined(VEC_AVX512)
/* A masked load costs what a plain one does. */
enum { TILE_ROWS = 14, TILE_VECS = 2, WIDE_ROWS = 6, WIDE_VECS = 4, TILE_MASKED = 1 };
#elif defined(VEC_NEON)
enum { TILE_ROWS = 6, TILE_VECS = 4, WIDE_ROWS = 2, WIDE_VECS = 8, TILE_MASKED = 0 };
#elif defined(VEC_AVX2)
enum { TILE_ROWS = 6, TILE_VECS = 2, WIDE_ROWS = 3, WIDE_VECS = 4, TILE_MASKED = 0 };
#else
enum { TILE_ROWS = 4, TILE_VECS = 2, WIDE_ROWS = 2, WIDE_VECS = 4, TILE_MASKED = 0 };
#endif
enum { TILE_COLS = TILE_VECS * LANES, WIDE_FIRST = WIDE_ROWS * WIDE_VECS >= 24, TILE_BASES = (TILE_ROWS + 2) / 3, WIDEST = 8 };

typedef struct {
    ptrdiff_t batch, depth;
    const ptrdiff_t *a_offset, *b_offset;
    ptrdiff_t a_row, a_col, b_row, c_row; /* in bytes */
    ptrdiff_t b_next, c_next; /* from a panel of B, of C to the next: TILE_COLS elements where columns go on in memory */
    const char *b, *bias; /* bias: added to each row of the sums, or NULL */
    ptrdiff_t last; /* columns of the last vector */
    int accumulate;
} tile_plan;

typedef void tile_function(const tile_plan *t, const char *a, char *c);

INLINE vec tile_load(const char *p, int v, int vecs, ptrdiff_t last, int masked) {
    const real *q = (const real *)p + v * LANES;
    return masked && v == vecs - 1 ? vec_load_n(q, last) : vec_load(q);
}

/* Vector v of a row of B or C: a tile of WIDE_VECS takes two panels. */
INLINE vec tile_load_panels(const char *p, const char *next, int v, int vecs, ptrdiff_t last, int masked) {
    if (vecs == WIDE_VECS && v >= TILE_VECS) return vec_load((const real *)next + (v - TILE_VECS) * LANES);
    return tile_load(p, v, vecs, last, masked);
}

/* Which elements of A are neighbours in memory. Every instruction of the inner loop that is no multiply-add may take a
 * multiply-add's place in the pipeline: neighbours are reached by constant displacements, without pointers of their own. */
enum { A_STRIDED, A_ALONG_K, A_ALONG_ROWS };

/* A pointer that is counted on by itself: or the compiler keeps one per row or step, more than there are registers. */
#define KEEP_POINTER(p) __asm__("" : "+r"(p))

INLINE const char *tile_row(const char *const base[TILE_BASES], ptrdiff_t a_row, int i, int order) {
    return order == A_ALONG_ROWS ? base[0] + i * (ptrdiff_t)sizeof(real) : base[i / 3] + i % 3 * a_row;
}

/* One k: base[q] is row 3q of A, rows 3q + 1 and 3q + 2 are one and two strides on (x86 addresses scale an index by 1 and 2);
 * neighbouring rows need base[0] only. */
INLINE void tile_step(vec acc[TILE_ROWS][WIDEST], const char *const base[TILE_BASES], ptrdiff_t a_row, ptrdiff_t at,
                      const char *b, const char *next, int rows, int vecs, ptrdiff_t last, int masked, int order) {
    vec bv[WIDEST];
    if (rows < vecs && rows * vecs == TILE_ROWS * TILE_VECS) { /* elements of A take fewer registers than vectors of B */
        vec av[TILE_ROWS];
#pragma GCC unroll 16
        for (int i = 0; i < rows; i++) av[i] = vec_set1(*(const real *)(tile_row(base, a_row, i, order) + at));
#pragma GCC unroll 8
        for (int v = 0; v < vecs; v++) {
            bv[0] = tile_load_panels(b, next, v, vecs, last, masked);
#pragma GCC unroll 16
            for (int i = 0; i < rows; i++) vec_accumulate(&acc[i][v], av[i], bv[0]);
        }
        return;
    }
#pragma GCC unroll 8
    for (int v = 0; v < vecs; v++) bv[v] = tile_load_panels(b, next, v, vecs, last, masked);
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
        const vec av = vec_set1(*(const real *)(tile_row(base, a_row, i, order) + at));
#pragma GCC unroll 8
        for (int v = 0; v < vecs; v++) vec_accumulate(&acc[i][v], av, bv[v]);
    }
}

/* C: rows x vecs vectors, the last one `t->last` wide. */
INLINE void tile_run(const tile_plan *t, const char *a, char *c, int rows, int vecs, int masked, int order, int packed) {
    const int unroll = order == A_ALONG_K ? 4 : order == A_ALONG_ROWS ? 2 : 1;
    const int bases = order == A_ALONG_ROWS ? 1 : (rows + 2) / 3;
    vec acc[TILE_ROWS][WIDEST];
    const ptrdiff_t last = t->last, a_row = t->a_row, b_row = packed ? TILE_COLS * (ptrdiff_t)sizeof(real) : t->b_row;
    const ptrdiff_t a_col = order == A_ALONG_K ? (ptrdiff_t)sizeof(real) : t->a_col;
    const int accumulate = t->accumulate;
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 8
        for (int v = 0; v < vecs; v++)
            acc[i][v] = accumulate ? tile_load_panels(c + i * t->c_row, c + i * t->c_row + t->c_next, v, vecs, last, masked) : vec_zero();
    for (ptrdiff_t batch = 0; batch < t->batch; batch++) {
        const char *b = t->b + (t->b_offset ? t->b_offset[batch] * (ptrdiff_t)sizeof(real) : 0);
        const char *base[TILE_BASES];
        base[0] = a + (t->a_offset ? t->a_offset[batch] * (ptrdiff_t)sizeof(real) : 0);
#pragma GCC unroll 16
        for (int q = 1; q < bases; q++) {
            base[q] = base[q - 1] + 3 * a_row;
            KEEP_POINTER(base[q]);
        }
        const char *next = b + t->b_next;
        ptrdiff_t k = t->depth;
        if (unroll > 1)
            for (; k >= unroll; k -= unroll) {
#pragma GCC unroll 4
                for (int u = 0; u < unroll; u++, b += b_row, next += b_row) {
                    if (!packed) KEEP_POINTER(b);
                    if (!packed) KEEP_POINTER(next);
                    tile_step(acc, base, a_row, u * a_col, b, next, rows, vecs, last, masked, order);
                }
#pragma GCC unroll 16
                for (int q = 0; q < bases; q++) base[q] += unroll * a_col;
            }
        for (; k > 0; k--, b += b_row, next += b_row) {
            tile_step(acc, base, a_row, 0, b, next, rows, vecs, last, masked, order);
#pragma GCC unroll 16
            for (int q = 0; q < bases; q++) base[q] += a_col;
        }
    }
    if (t->bias)
#pragma GCC unroll 16
        for (int i = 0; i < rows; i++)
#pragma GCC unroll 8
            for (int v = 0; v < vecs; v++) acc[i][v] = vec_add(acc[i][v], tile_load(t->bias, v, vecs, last, masked));
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 8
        for (int v = 0; v < vecs; v++) {
            const int next = vecs == WIDE_VECS && v >= TILE_VECS;
            real *p = (real *)(c + i * t->c_row + (next ? t->c_next : 0)) + (next ? v - TILE_VECS : v) * LANES;
            if (masked && v == vecs - 1) vec_store_n(p, acc[i][v], last);
            else vec_store(p, acc[i][v]);
        }
}

/* Every tile: X(rows, vecs, masked, order of A). */
#define TILE_ORDERS(X, rows, vecs, masked) X(rows, vecs, masked, 0) X(rows, vecs, masked, 1) X(rows, vecs, masked, 2)
#if defined(VEC_AVX512)
#define TILE_KINDS(X, rows, vecs) TILE_ORDERS(X, rows, vecs, 1)
#elif defined(VEC_AVX2) || defined(VEC_NEON)
#define TILE_KINDS(X, rows, vecs) TILE_ORDERS(X, rows, vecs, 0) TILE_ORDERS(X, rows, vecs, 1)
#else
#define TILE_KINDS(X, rows, vecs) TILE_ORDERS(X, rows, vecs, 0)
#endif
#if defined(VEC_NEON)
#define TILE_WIDTHS(X, rows) TILE_KINDS(X, rows, 1) TILE_KINDS(X, rows, 2) TILE_KINDS(X, rows, 3) TILE_KINDS(X, rows, 4)
#else
#define TILE_WIDTHS(X, rows) TILE_KINDS(X, rows, 1) TILE_KINDS(X, rows, 2)
#endif
#define TILES_4(X) TILE_WIDTHS(X, 1) TILE_WIDTHS(X, 2) TILE_WIDTHS(X, 3) TILE_WIDTHS(X, 4)
#define TILES_6(X) TILES_4(X) TILE_WIDTHS(X, 5) TILE_WIDTHS(X, 6)
#define TILES_14(X)                                                                                                     \
    TILES_6(X) TILE_WIDTHS(X, 7) TILE_WIDTHS(X, 8) TILE_WIDTHS(X, 9) TILE_WIDTHS(X, 10) TILE_WIDTHS(X, 11)              \
    TILE_WIDTHS(X, 12) TILE_WIDTHS(X, 13) TILE_WIDTHS(X, 14)
#if defined(VEC_AVX512)
#define TILES TILES_14
#elif defined(VEC_AVX2) || defined(VEC_NEON)
#define TILES TILES_6
#else
#define TILES TILES_4
#endif

#define TILE_DEFINE(rows, vecs, masked, order)                                                                          \
    static void tile_##rows##_##vecs##_##masked##_##order(const tile_plan *t, const char *a, char *c) {                 \
        tile_run(t, a, c, rows, vecs, masked, order, 0);                                                                \
    }
#define TILE_ENTRY(rows, vecs, masked, order)                                                                           \
    [rows - 1][vecs - 1][masked][order] = tile_##rows##_##vecs##_##masked##_##order,
TILES(TILE_DEFINE)
static tile_function *const tiles[TILE_ROWS][TILE_VECS][2][3] = {TILES(TILE_ENTRY)};

/* Wider tiles, of two panels of B: for few rows, whose accumulators would wait for their own latency (three rows of 4 vectors, three
 * channels of pixels, are as many as the full tile of 16 registers: 1.25 times as fast as of 2 vectors), and first of all where 32
 * registers hold 6 x 4 (WIDE_FIRST). One row that runs on takes 8 vectors. */
#if defined(VEC_NEON)
#define TILES_WIDE(X) TILE_ORDERS(X, 1, 8, 0) TILE_ORDERS(X, 2, 8, 0)
#elif defined(VEC_AVX512)
#define TILES_WIDE(X)                                                                                                   \
    TILE_ORDERS(X, 1, 4, 0) TILE_ORDERS(X, 2, 4, 0) TILE_ORDERS(X, 3, 4, 0) TILE_ORDERS(X, 4, 4, 0) TILE_ORDERS(X, 5, 4, 0)     \
    TILE_ORDERS(X, 6, 4, 0)
#elif defined(VEC_AVX2)
#define TILES_WIDE(X) TILE_ORDERS(X, 1, 4, 0) TILE_ORDERS(X, 2, 4, 0) TILE_ORDERS(X, 3, 4, 0)
#else
#define TILES_WIDE(X) TILE_ORDERS(X, 1, 4, 0) TILE_ORDERS(X, 2, 4, 0)
#endif
#if defined(VEC_AVX2)
/* Tiles of 4 rows and 3 vectors where these are all columns: as many accumulators as the full tile has, and fewer loads than with
 * the third vector by itself, whose 6 accumulators wait for their latency. */
enum { TRIPLE_ROWS = 4, TRIPLE_COLS = 3 * LANES };
#define TRIPLE_KINDS(X, rows) TILE_KINDS(X, rows, 3)
TRIPLE_KINDS(TILE_DEFINE, 1) TRIPLE_KINDS(TILE_DEFINE, 2) TRIPLE_KINDS(TILE_DEFINE, 3) TRIPLE_KINDS(TILE_DEFINE, 4)
#define TRIPLE_ENTRY(rows, vecs, masked, order) [rows - 1][masked][order] = tile_##rows##_##vecs##_##masked##_##order,
static tile_function *const triple_tiles[TRIPLE_ROWS][2][3] = {
    TRIPLE_KINDS(TRIPLE_ENTRY, 1) TRIPLE_KINDS(TRIPLE_ENTRY, 2) TRIPLE_KINDS(TRIPLE_ENTRY, 3) TRIPLE_KINDS(TRIPLE_ENTRY, 4)};
#else
enum { TRIPLE_ROWS = TILE_ROWS, TRIPLE_COLS = TILE_COLS };
#endif

/* Of packed panels the rows are a constant apart: no counting of pointers takes a multiply-add's place (1.03 times as fast). */
#define TILE_WIDE_DEFINE(rows, vecs, masked, order)                                                                     \
    TILE_DEFINE(rows, vecs, masked, order)                                                                              \
    static void tile_packed_##rows##_##order(const tile_plan *t, const char *a, char *c) {                              \
        tile_run(t, a, c, rows, vecs, masked, order, 1);                                                                \
    }
#define TILE_WIDE_ENTRY(rows, vecs, masked, order)                                                                      \
    [rows - 1][order] = {tile_##rows##_##vecs##_##masked##_##order, tile_packed_##rows##_##order},
TILES_WIDE(TILE_WIDE_DEFINE)
static tile_function *const wide_tiles[WIDE_ROWS][3][2] = {TILES_WIDE(TILE_WIDE_ENTRY)};
#if !defined(VEC_NEON)
TILE_ORDERS(TILE_DEFINE, 1, 8, 0)
#endif
static tile_function *const row_tile[3] = {tile_1_8_0_0, tile_1_8_0_1, tile_1_8_0_2};

/* The tile of so many rows and vectors. */
INLINE tile_function *tile_of(ptrdiff_t rows, int vecs, int masked, int order) {
#if defined(VEC_AVX2)
    if (vecs == 3) return triple_tiles[rows - 1][masked][order];
#endif
    return tiles[rows - 1][vecs - 1][masked][order];
}

/* rows x cols of C, by tiles of so many rows at most; bias (cols) or NULL. `panel`: bytes between panels of TILE_COLS columns of B.
 * Two panels at a time are a wide tile's, where they are whole and rows few, or WIDE_FIRST. Not rows that are one tile's: it reads B
 * once, where wide ones would twice or more (10 rows: 1.05 times as fast so with B in the second-level cache, but 0.75 in the third's;
 * 7, as 4 and 3, 0.84 and 0.74). */
INLINE void tile_all(tile_plan *t, ptrdiff_t rows, ptrdiff_t cols, const char *a, const char *b, ptrdiff_t panel, char *c,
                     const char *bias, int order) {
    const ptrdiff_t size = sizeof(real);
    const int runs_on = panel == TILE_COLS * size, one_row = rows == 1 && runs_on, packed = t->b_row == TILE_COLS * size;
    const ptrdiff_t wide = (one_row ? 8 : WIDE_VECS) * LANES, wide_rows = one_row ? 1 : WIDE_ROWS;
    t->b_next = panel, t->c_next = TILE_COLS * size;
    for (ptrdiff_t j = 0, width; j < cols; j += width) {
        const int is_wide = cols - j >= wide && (rows <= WIDE_ROWS || (WIDE_FIRST && rows > TILE_ROWS));
        width = is_wide ? wide : runs_on && cols - j <= TRIPLE_COLS ? cols - j : cols - j < TILE_COLS ? cols - j : TILE_COLS;
        const int vecs = (int)((width + LANES - 1) / LANES), masked = TILE_MASKED || width % LANES != 0;
        const ptrdiff_t most = is_wide ? wide_rows : width > TILE_COLS ? TRIPLE_ROWS : TILE_ROWS;
        const char *from = a;
        char *to = c + j * size;
        t->b = b + j / TILE_COLS * panel, t->bias = bias ? bias + j * size : NULL;
        t->last = width - (vecs - 1) * LANES;
        for (ptrdiff_t i = 0, n, left = (rows + most - 1) / most; left > 0; left--, i += n) {
            n = (rows - i + left - 1) / left;
            if (is_wide) (one_row ? row_tile[order] : wide_tiles[n - 1][order][packed])(t, from, to);
            else tile_of(n, vecs, masked, order)(t, from, to);
            from += n * t->a_row;
            to += n * t->c_row;
        }
    }
}

INLINE int order_of(ptrdiff_t a_row, ptrdiff_t a_col) { return a_col == 1 ? A_ALONG_K : a_row == 1 ? A_ALONG_ROWS : A_STRIDED; }

/* C (rows x cols) (+)= sum over t of A_t (rows x depth) times B_t (depth x cols, in panels of TILE_COLS columns, `b_panel` elements
 * from one to the next), then + bias (cols, or NULL); A_t starts at a + a_offset[t], B_t at b + b_offset[t] (NULL: 0). A tile stays
 * in registers over all t and k. */
static void gemm_panels_kernel(ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t batch, ptrdiff_t depth, const void *a,
                               const ptrdiff_t *a_offset, ptrdiff_t a_row, ptrdiff_t a_col, const void *b,
                               const ptrdiff_t *b_offset, ptrdiff_t b_row, ptrdiff_t b_panel, void *c, ptrdiff_t c_row,
                               int accumulate, const void *bias) {
    const ptrdiff_t size = sizeof(real);
    tile_plan t = {.batch = batch, .depth = depth, .a_offset = a_offset, .b_offset = b_offset, .a_row = a_row * size,
                   .a_col = a_col * size, .b_row = b_row * size, .c_row = c_row * size, .last = LANES, .accumulate = accumulate};
    tile_all(&t, rows, cols, a, b, b_panel * size, c, bias, order_of(a_row, a_col));
}

/* The same where B's columns are neighbours throughout. */
static void gemm_tile_kernel(ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t batch, ptrdiff_t depth, const void *a,
                             const ptrdiff_t *a_offset, ptrdiff_t a_row, ptrdiff_t a_col, const void *b,
                             const ptrdiff_t *b_offset, ptrdiff_t b_row, void *c, ptrdiff_t c_row, int accumulate) {
    gemm_panels_kernel(rows, cols, batch, depth, a, a_offset, a_row, a_col, b, b_offset, b_row, TILE_COLS, c, c_row, accumulate,
                       NULL);
}

/* `count` products with the same A as gemm_tile makes one: of B, and to C, b_step and c_step elements after the one before. */
static void gemm_tile_series_kernel(ptrdiff_t count, ptrdiff_t b_step, ptrdiff_t c_step, ptrdiff_t rows, ptrdiff_t cols,
                                    ptrdiff_t batch, ptrdiff_t depth, const void *a, const ptrdiff_t *a_offset, ptrdiff_t a_row,
                                    ptrdiff_t a_col, const void *b, const ptrdiff_t *b_offset, ptrdiff_t b_row, void *c,
                                    ptrdiff_t c_row) {
    const ptrdiff_t size = sizeof(real);
    tile_plan t = {.batch = batch, .depth = depth, .a_offset = a_offset, .b_offset = b_offset, .a_row = a_row * size,
                   .a_col = a_col * size, .b_row = b_row * size, .c_row = c_row * size, .last = LANES};
    const int order = order_of(a_row, a_col);
    for (ptrdiff_t i = 0; i < count; i++)
        tile_all(&t, rows, cols, a, (const char *)b + i * b_step * size, TILE_COLS * size, (char *)c + i * c_step * size, NULL, order);
}

/* C (rows x cols) (+)= sum over t of A_t times B_t, as in gemm_panels: A in cells of `high` rows that are neighbours, `cell` elements
 * from one to the next, a_col from one k to the next; B and C in panels, b_panel and c_panel apart: one, or two for cells of best_rows
 * where best_cols are two panels. `lines` cache lines from `ahead` on are asked for before every tile. */
static void gemm_tile_cells_kernel(ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t batch, ptrdiff_t depth, ptrdiff_t high, const void *a,
                                   const ptrdiff_t *a_offset, ptrdiff_t cell, ptrdiff_t a_col, const void *b,
                                   const ptrdiff_t *b_offset, ptrdiff_t b_panel, void *c, ptrdiff_t c_row, ptrdiff_t c_panel,
                                   int accumulate, const void *ahead, ptrdiff_t lines) {
    const ptrdiff_t size = sizeof(real);
    const int is_wide = WIDE_FIRST && high <= WIDE_ROWS && cols == WIDE_VECS * LANES;
    tile_plan t = {.batch = batch, .depth = depth, .a_offset = a_offset, .b_offset = b_offset, .a_row = size,
                   .a_col = a_col * size, .b_row = TILE_COLS * size, .b_next = b_panel * size, .c_row = c_row * size,
                   .c_next = c_panel * size, .accumulate = accumulate};
    const char *next = ahead, *from = a;
    char *to = c;
    for (ptrdiff_t n; rows > 0; rows -= n, from += cell * size, to += n * t.c_row) {
        n = rows < high ? rows : high;
        for (ptrdiff_t q = 0; q < lines; q++, next += 64) __builtin_prefetch(next, 0, 2);
        t.b = b;
        if (is_wide) {
            wide_tiles[n - 1][A_ALONG_ROWS][1](&t, from, to);
            continue;
        }
        for (ptrdiff_t j = 0; j < cols; j += TILE_COLS, t.b += t.b_next) {
            const ptrdiff_t width = cols - j < TILE_COLS ? cols - j : TILE_COLS;
            const int vecs = (int)((width + LANES - 1) / LANES), masked = TILE_MASKED || width % LANES != 0;
            t.last = width - (vecs - 1) * LANES;
            tiles[n - 1][vecs - 1][masked][A_ALONG_ROWS](&t, from, to + j / TILE_COLS * t.c_next);
        }
    }
}

/* C (rows x cols) = activation(C + bias (cols) + residual (rows x cols)), each step rounded; NULL: none. */
static void gemm_epilogue_kernel(ptrdiff_t rows, ptrdiff_t cols, void *c, ptrdiff_t c_row, const void *bias,
                                 const void *residual, ptrdiff_t residual_row, int activation) {
    const real *add = bias, *more = residual;
    for (ptrdiff_t i = 0; i < rows; i++)
        for (ptrdiff_t j = 0; j < cols; j += LANES) {
            const ptrdiff_t n = cols - j < LANES ? cols - j : LANES;
            real *p = (real *)c + i * c_row + j;
            vec y = vec_load_n(p, n);
            if (add) y = vec_add(y, vec_load_n(add + j, n));
            if (more) y = vec_add(y, vec_load_n(more + i * residual_row + j, n));
            if (activation == FNN_ACT_RELU) y = relu_forward_formula(y, NULL);
            vec_store_n(p, y, n);
        }
}

/* y (rows x LANES) = x transposed: its LANES columns are `column` apart and contiguous along the rows. What is a few lines long is
 * too short for the CPU to fetch ahead: the next columns are asked for meanwhile. */
INLINE void pack_across(ptrdiff_t rows, const real *x, ptrdiff_t column, real *y, ptrdiff_t wide) {
    const ptrdiff_t line = FNN_LINE / (ptrdiff_t)sizeof(real), is_short = rows <= 8 * line;
    ptrdiff_t i = 0;
    for (; i + VEC_BLOCK <= rows; i += VEC_BLOCK) {
        if (is_short && i % line == 0)
            for (int q = LANES; q < 2 * LANES; q++) __builtin_prefetch(x + i + q * column);
        vec block[VEC_BLOCK];
        vec_load_columns(x + i, column, block);
#pragma GCC unroll 4
        for (int q = 0; q < VEC_BLOCK; q++) vec_store(y + (i + q) * wide, block[q]);
    }
    for (; i < rows; i++)
        for (int q = 0; q < LANES; q++) y[i * wide + q] = x[i + q * column];
}

/* y (panels of rows x wide) = x (rows x cols, contiguous along them), panels narrower than a vector: it is stored whole where the
 * row goes on, and the panel's next row covers its end. */
INLINE void pack_cells(ptrdiff_t rows, ptrdiff_t cols, const real *x, ptrdiff_t x_row, real *y, ptrdiff_t wide, ptrdiff_t panel) {
    for (ptrdiff_t i = 0; i < rows; i++, x += x_row, y += wide) {
        ptrdiff_t j = 0;
        real *q = y;
        for (; j + LANES <= cols; j += wide, q += panel) vec_store(q, vec_load(x + j));
        for (; j < cols; j += wide, q += panel) {
            const ptrdiff_t n = cols - j < wide ? cols - j : wide;
            vec_store_n(q, vec_load_n(x + j, n), n);
        }
    }
}

/* to = from (rows x cols, any strides), in panels `wide` columns wide: element (i, j) goes to panel j / wide, `panel` elements
 * after the one before, row i, column j % wide. Panels of B: wide = TILE_COLS; a block of A: one panel. Rows are read whole, so
 * that the hardware sees streams; wide is a multiple of LANES, or there is one panel (panel = 0), or rows are contiguous: panels
 * narrower than a vector then have room for one behind their rows. */
static void gemm_pack_kernel(ptrdiff_t rows, ptrdiff_t cols, const void *from, ptrdiff_t from_row, ptrdiff_t from_col, void *to,
                             ptrdiff_t wide, ptrdiff_t panel) {
    const real *x = from;
    if (from_col == 1 && wide < LANES && panel) {
        pack_cells(rows, cols, x, from_row, to, wide, panel);
        return;
    }
    for (ptrdiff_t i = 0; i < rows && from_col == 1; i++) {
        real *y = (real *)to + i * wide;
        for (ptrdiff_t j = 0; j < cols; j += wide, y += panel) {
            const ptrdiff_t n = cols - j < wide ? cols - j : wide;
            const real *p = x + i * from_row + j;
            ptrdiff_t q = 0;
            for (; q + LANES <= n; q += LANES) {
                __builtin_prefetch(p + q + 2 * from_row);
                vec_store(y + q, vec_load(p + q));
            }
            if (q < n) vec_store_n(y + q, vec_load_n(p + q, n - q), n - q);
        }
    }
    for (ptrdiff_t j = 0, n; j < cols && from_col != 1; j += n) {
        real *y = (real *)to + j / wide * panel + j % wide;
        n = from_row == 1 && cols - j >= LANES ? LANES : 1;
        if (n == LANES && from_row == 1) pack_across(rows, x + j * from_col, from_col, y, wide);
        else
            for (ptrdiff_t i = 0; i < rows; i++) y[i * wide] = x[i * from_row + j * from_col];
    }
}

/* ---- inner products: for few rows of C, when both operands are contiguous along k and packing would cost more than the sum ----
 * An element is the sum over lanes, in vec_sum's tree, of one chain per lane; the block's shape does not change it. */

#if REGISTERS == 32
enum { DOT_ROWS = 4 };
#else
enum { DOT_ROWS = 2 };
#endif

#if defined(__x86_64__) && !defined(FNN_AVX512_EMULATED)
#define IN_REGISTER(v) __asm__("" : "+v"(v))
#elif defined(__aarch64__)
#define IN_REGISTER(v) __asm__("" : "+w"(v))
#else
#define IN_REGISTER(v)
#endif

INLINE vec dot_load(const real *p, ptrdiff_t n) { return n < 0 ? vec_load(p) : vec_load_n(p, n); }

/* One vector along k of each row; n < 0: a whole one, else its first n lanes. */
INLINE void dot_step(vec acc[DOT_ROWS][8], const real *a, ptrdiff_t a_row, const real *b, ptrdiff_t b_row, ptrdiff_t n, int rows,
                     int cols) {
    vec av[DOT_ROWS];
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++) av[i] = dot_load(a + i * a_row, n);
#pragma GCC unroll 8
    for (int j = 0; j < cols; j++) {
        vec bv = dot_load(b + j * b_row, n);
        IN_REGISTER(bv); /* or it is loaded again for every row */
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) acc[i][j] = vec_fma(av[i], bv, acc[i][j]);
    }
}

/* C (rows x cols, any strides) = inner products of a's rows and b's rows, depth long. */
INLINE void dot_run(ptrdiff_t depth, const real *a, ptrdiff_t a_row, const real *b, ptrdiff_t b_row, real *c, ptrdiff_t c_row,
                    ptrdiff_t c_col, int rows, int cols) {
    vec acc[DOT_ROWS][8];
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 8
        for (int j = 0; j < cols; j++) acc[i][j] = vec_zero();
    ptrdiff_t k = 0;
    for (; k + LANES <= depth; k += LANES) dot_step(acc, a + k, a_row, b + k, b_row, -1, rows, cols);
    if (k < depth) dot_step(acc, a + k, a_row, b + k, b_row, depth - k, rows, cols);
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 8
        for (int j = 0; j < cols; j++) c[i * c_row + j * c_col] = vec_sum(acc[i][j]);
}

/* Fewer rows of a leave registers for more rows of b: 1 x 8 up to DOT_ROWS x 4. */
static void gemm_dot_kernel(ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t depth, const void *a, ptrdiff_t a_row, const void *b,
                            ptrdiff_t b_row, void *c, ptrdiff_t c_row, ptrdiff_t c_col) {
#define DOT(m, n) dot_run(depth, p, a_row, q, b_row, to, c_row, c_col, m, n)
    const ptrdiff_t many = rows == 1 ? 8 : 4;
    for (ptrdiff_t j = 0, n; j < cols; j += n) {
        n = cols - j >= many ? many : cols - j >= 4 ? 4 : 1;
        const real *q = (const real *)b + j * b_row;
        for (ptrdiff_t i = 0, m, left = (rows + DOT_ROWS - 1) / DOT_ROWS; left > 0; left--, i += m) {
            m = (rows - i + left - 1) / left;
            const real *p = (const real *)a + i * a_row;
            real *to = (real *)c + i * c_row + j * c_col;
            if (n == 8) DOT(1, 8);
            else if (m == 1) n == 4 ? DOT(1, 4) : DOT(1, 1);
            else if (m == 2) n == 4 ? DOT(2, 4) : DOT(2, 1);
#if REGISTERS == 32
            else if (m == 3) n == 4 ? DOT(3, 4) : DOT(3, 1);
            else n == 4 ? DOT(4, 4) : DOT(4, 1);
#endif
        }
    }
#undef DOT
}

/* conv_few.h: gradients of weights where lanes are output channels, a vector or two of them, and a row of a window is one run of
 * neighbours, x being channels-last and padded. */

typedef struct {
    ptrdiff_t rows, cols, channels;         /* of dy */
    ptrdiff_t dy_row, dy_col, x_row, x_col; /* from output to output */
    ptrdiff_t x_tap, sums_tap;              /* from row to row of a window */
    ptrdiff_t pitch;                        /* from element to element of sums */
} few_plan;

/* Of a tile: rows, elements of each, vectors of channels; vectors of sums in registers. */
enum { FEW_TAPS = 6, FEW_RUN = 6, FEW_VECTORS = 2, FEW_SUMS = 12 };

/* sums += dy, one or two vectors of channels, times each element of a tile of its window. */
INLINE void few_gradient(const few_plan *p, const int vectors, const int taps, const int run, const real *x, const real *dy,
                         real *sums) {
    vec acc[FEW_SUMS];
#pragma GCC unroll 16
    for (int i = 0, t = 0; i < taps * run * vectors; i++, t = i / vectors)
        acc[i] = vec_load(sums + t / run * p->sums_tap + t % run * p->pitch + i % vectors * LANES);
    for (ptrdiff_t row = 0; row < p->rows; row++) {
        const real *g = dy + row * p->dy_row, *at = x + row * p->x_row;
        for (ptrdiff_t col = 0; col < p->cols; col++, g += p->dy_col, at += p->x_col) {
            const vec first = vectors == 2 ? vec_load(g) : vec_load_n(g, p->channels);
            const vec second = vectors == 2 ? vec_load_n(g + LANES, p->channels - LANES) : first;
#pragma GCC unroll 16
            for (int t = 0; t < taps * run; t++) {
                const vec v = vec_set1(at[t / run * p->x_tap + t % run]);
                acc[t * vectors] = vec_fma(first, v, acc[t * vectors]);
                if (vectors == 2) acc[t * vectors + 1] = vec_fma(second, v, acc[t * vectors + 1]);
            }
        }
    }
#pragma GCC unroll 16
    for (int i = 0, t = 0; i < taps * run * vectors; i++, t = i / vectors)
        vec_store(sums + t / run * p->sums_tap + t % run * p->pitch + i % vectors * LANES, acc[i]);
}

typedef void few_function(const few_plan *p, const real *x, const real *dy, real *sums);

/* What the registers hold of two vectors, and besides of one. */
#define FEW_TILES_2(X, v) X(v, 1, 1) X(v, 2, 1) X(v, 3, 1) X(v, 4, 1) X(v, 5, 1) X(v, 6, 1) X(v, 1, 2) X(v, 2, 2) X(v, 3, 2) \
    X(v, 1, 3) X(v, 2, 3) X(v, 1, 4) X(v, 1, 5) X(v, 1, 6)
#define FEW_TILES_1(X, v) X(v, 4, 2) X(v, 5, 2) X(v, 6, 2) X(v, 3, 3) X(v, 4, 3) X(v, 2, 4) X(v, 3, 4) X(v, 2, 5) X(v, 2, 6)
#define FEW_TILES(X) FEW_TILES_2(X, 1) FEW_TILES_1(X, 1) FEW_TILES_2(X, 2)
#define FEW_DEFINE(vectors, taps, run)                                                                                         \
    static void few_##vectors##_##taps##_##run(const few_plan *p, const real *x, const real *dy, real *sums) {                 \
        few_gradient(p, vectors, taps, run, x, dy, sums);                                                                      \
    }
#define FEW_ENTRY(vectors, taps, run) [vectors - 1][taps - 1][run - 1] = few_##vectors##_##taps##_##run,
FEW_TILES(FEW_DEFINE)
static few_function *const few_tiles[FEW_VECTORS][FEW_TAPS][FEW_RUN] = {FEW_TILES(FEW_ENTRY)};

/* conv_few_gradient: sums (taps x run, `pitch` apart, x channels) += the sum over rows and columns of dy (at most two vectors of
 * channels, neighbours; dy_row and dy_col apart) times windows of x (`taps` rows x_tap apart of `run` elements; x_row and x_col
 * apart). Windows are cut into even tiles that the registers hold. */
static void conv_few_gradient_kernel(ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t channels, const void *dy, ptrdiff_t dy_row,
                                     ptrdiff_t dy_col, const void *x, ptrdiff_t x_row, ptrdiff_t x_col, ptrdiff_t x_tap,
                                     ptrdiff_t taps, ptrdiff_t run, void *sums, ptrdiff_t pitch) {
    const few_plan p = {rows, cols, channels, dy_row, dy_col, x_row, x_col, x_tap, run * pitch, pitch};
    const ptrdiff_t vectors = channels > LANES ? 2 : 1;
    for (ptrdiff_t j = 0, n_j, left_j = (run + FEW_RUN - 1) / FEW_RUN; left_j > 0; left_j--, j += n_j) {
        n_j = (run - j + left_j - 1) / left_j;
        const ptrdiff_t most = n_j == 1 ? FEW_TAPS : FEW_SUMS / vectors / n_j;
        for (ptrdiff_t t = 0, n_t, left_t = (taps + most - 1) / most; left_t > 0; left_t--, t += n_t) {
            n_t = (taps - t + left_t - 1) / left_t;
            few_tiles[vectors - 1][n_t - 1][n_j - 1](&p, (const real *)x + t * x_tap + j, dy, (real *)sums + (t * run + j) * pitch);
        }
    }
}

/* scan.h: running sums, products and extrema along rows, and their gradients. An element depends on the one before it: of sums
 * several rows are walked side by side. Sums and products are carried in double precision. */

enum { SCAN_SIDE = 4, PROD_CHAINS = 16 };

/* y: (rows, n) running sums of x: (rows, n), from the end on if reverse */
static void cumsum_rows_kernel(ptrdiff_t rows, ptrdiff_t n, const void *x_, int reverse, void *y_) {
    const real *restrict x = x_;
    real *restrict y = y_;
    const ptrdiff_t first = reverse ? n - 1 : 0, step = reverse ? -1 : 1;
    for (ptrdiff_t r = 0; r < rows; r += SCAN_SIDE) {
        double total[SCAN_SIDE] = {0};
        const ptrdiff_t side = rows - r < SCAN_SIDE ? rows - r : SCAN_SIDE;
        for (ptrdiff_t i = 0, at = r * n + first; i < n; i++, at += step)
            for (ptrdiff_t k = 0; k < side; k++) y[at + k * n] = (real)(total[k] += (double)x[at + k * n]);
    }
}

/* y: (rows, n) running products of x: (rows, n) */
static void cumprod_rows_kernel(ptrdiff_t rows, ptrdiff_t n, const void *x_, void *y_) {
    const real *restrict x = x_;
    real *restrict y = y_;
    for (ptrdiff_t r = 0; r < rows; r++) {
        double total = 1;
        for (ptrdiff_t i = r * n; i < (r + 1) * n; i++) y[i] = (real)(total *= (double)x[i]);
    }
}

/* Whole products: element i belongs to the chain i % 16, so that none waits for another; chains are multiplied in a tree. Fewer than
 * 16 are one chain. */
typedef double four_doubles __attribute__((vector_size(4 * sizeof(double))));
typedef double four_doubles_at __attribute__((vector_size(4 * sizeof(double)), aligned(sizeof(double)), may_alias));
typedef real four_reals_at __attribute__((vector_size(4 * sizeof(real)), aligned(sizeof(real)), may_alias));
#if defined(__AVX__) && !defined(__clang__) && !REAL64
#define DOUBLES_AT(x) __builtin_ia32_cvtps2pd256(*(const four_reals_at *)(x)) /* of the other form GCC 12 makes four instructions */
#else
#define DOUBLES_AT(x) __builtin_convertvector(*(const four_reals_at *)(x), four_doubles)
#endif

INLINE double prod_row(ptrdiff_t n, const real *x) {
    double chain[PROD_CHAINS], few = 1;
    if (n < PROD_CHAINS) {
        for (ptrdiff_t i = 0; i < n; i++) few *= (double)x[i];
        return few;
    }
    four_doubles a = DOUBLES_AT(x), b = DOUBLES_AT(x + 4), c = DOUBLES_AT(x + 8), d = DOUBLES_AT(x + 12);
    ptrdiff_t i = PROD_CHAINS;
    for (; i + PROD_CHAINS <= n; i += PROD_CHAINS) {
        a *= DOUBLES_AT(x + i), b *= DOUBLES_AT(x + i + 4);
        c *= DOUBLES_AT(x + i + 8), d *= DOUBLES_AT(x + i + 12);
    }
    *(four_doubles_at *)chain = a, *(four_doubles_at *)(chain + 4) = b;
    *(four_doubles_at *)(chain + 8) = c, *(four_doubles_at *)(chain + 12) = d;
    for (int k = 0; i < n; i++, k++) chain[k] *= (double)x[i];
    for (int half = PROD_CHAINS / 2; half; half /= 2)
        for (int k = 0; k < half; k++) chain[k] *= chain[k + half];
    return chain[0];
}

/* y: (rows) products of x: (rows, n) */
static void prod_rows_kernel(ptrdiff_t rows, ptrdiff_t n, const void *x_, void *y_) {
    const real *x = x_;
    real *y = y_;
    for (ptrdiff_t r = 0; r < rows; r++) y[r] = (real)prod_row(n, x + r * n);
}

/* y *= x: (columns) */
INLINE void multiply_into(ptrdiff_t columns, double *restrict y, const real *restrict x) {
    ptrdiff_t c = 0;
    for (; c + 4 <= columns; c += 4) *(four_doubles_at *)(y + c) *= DOUBLES_AT(x + c);
    for (; c < columns; c++) y[c] *= (double)x[c];
}

/* y: (columns), at most FNN_PROD_COLUMNS, products down x: (n, columns), rows `stride` apart; the bits of prod_rows */
static void prod_columns_kernel(ptrdiff_t n, ptrdiff_t columns, const void *x_, ptrdiff_t stride, void *y_) {
    const real *x = x_;
    real *y = y_;
    double chain[PROD_CHAINS][FNN_PROD_COLUMNS];
    const int chains = n < PROD_CHAINS ? 1 : PROD_CHAINS;
    for (int k = 0; k < chains; k++)
        for (ptrdiff_t c = 0; c < columns; c++) chain[k][c] = k < n ? (double)x[k * stride + c] : 1;
    for (ptrdiff_t i = chains; i < n; i++) multiply_into(columns, chain[i % chains], x + i * stride);
    for (int half = chains / 2; half; half /= 2)
        for (int k = 0; k < half; k++)
            for (ptrdiff_t c = 0; c < columns; c++) chain[k][c] *= chain[k + half][c];
    for (ptrdiff_t c = 0; c < columns; c++) y[c] = (real)chain[0][c];
}

/* dx: (rows, n); x: (rows, n); dy: (rows, n) of running products, or (rows) of the whole ones. Without a division, so that zeros
 * may be among x: dx[k] = x[0] .. x[k - 1] s[k], where s[k] = dy[k] + x[k + 1] s[k + 1], and only the last dy counts for whole
 * products. */
static void cumprod_backward_rows_kernel(ptrdiff_t rows, ptrdiff_t n, const void *dy_, const void *x_, int whole, void *dx_) {
    for (ptrdiff_t r = 0; r < rows && n; r++) {
        const real *restrict x = (const real *)x_ + r * n, *restrict dy = (const real *)dy_ + (whole ? r : r * n);
        real *restrict dx = (real *)dx_ + r * n;
        double behind = (double)(whole ? dy[0] : dy[n - 1]), before = 1;
        dx[n - 1] = (real)behind;
        for (ptrdiff_t k = n - 2; k >= 0; k--) {
            behind = (double)x[k + 1] * behind + (whole ? 0 : (double)dy[k]);
            dx[k] = (real)behind;
        }
        for (ptrdiff_t k = 1; k < n; k++) {
            before *= (double)x[k - 1];
            dx[k] = (real)((double)dx[k] * before);
        }
    }
}

/* y, index: (rows, n), the greatest (least) element of x so far and where it is: the last of equals; NaN stays */
static void cummax_rows_kernel(ptrdiff_t rows, ptrdiff_t n, const void *x_, int smallest, void *y_, int64_t *index) {
    const real *x = x_;
    real *y = y_;
    for (ptrdiff_t r = 0; r < rows; r++, x += n, y += n, index += n) {
        ptrdiff_t best = 0;
        for (ptrdiff_t i = 0; i < n; i++) {
            const int wins = smallest ? x[i] <= x[best] : x[i] >= x[best];
            if (x[i] != x[i] || (x[best] == x[best] && wins)) best = i;
            y[i] = x[best];
            index[i] = best;
        }
    }
}

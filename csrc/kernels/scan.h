/* scan.h: running sums, products and extrema along rows, and their gradients. An element depends on the one before it: of sums and
 * whole products several rows are walked side by side. Sums and products are carried in double precision. */

enum { SCAN_SIDE = 4, PROD_SIDE = 8 };

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

/* y: (rows) products of x: (rows, n) */
static void prod_rows_kernel(ptrdiff_t rows, ptrdiff_t n, const void *x_, void *y_) {
    const real *restrict x = x_;
    real *restrict y = y_;
    for (ptrdiff_t r = 0; r < rows; r += PROD_SIDE) {
        double total[PROD_SIDE] = {1, 1, 1, 1, 1, 1, 1, 1};
        const ptrdiff_t side = rows - r < PROD_SIDE ? rows - r : PROD_SIDE;
        const real *row = x + r * n;
        if (side == PROD_SIDE) {
            for (ptrdiff_t i = 0; i < n; i++)
                for (ptrdiff_t k = 0; k < PROD_SIDE; k++) total[k] *= (double)row[i + k * n];
        } else {
            for (ptrdiff_t k = 0; k < side; k++)
                for (ptrdiff_t i = 0; i < n; i++) total[k] *= (double)row[i + k * n];
        }
        for (ptrdiff_t k = 0; k < side; k++) y[r + k] = (real)total[k];
    }
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

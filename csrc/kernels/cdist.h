/* cdist.h: Euclidean distances of one or two rows from several, and their gradient. */

/* The next vectors of (x - y)^2 into total[own][r], of `own` rows of x and `count` rows of y: loads serve several pairs, and eight
 * sums do not wait for one another. */
INLINE void add_squares(int own, int count, const vec *a, const vec *b, vec total[2][4]) {
    for (int k = 0; k < own; k++)
        for (int r = 0; r < count; r++) {
            const vec d = vec_sub(a[k], b[r]);
            total[k][r] = vec_fma(d, d, total[k][r]);
        }
}

/* out: (own, count), rows `pitch` apart, the sums of (x - y)^2; x: (own, n), own 1 or 2; y: (count, n), count 1 or 4 */
INLINE void squared_distances(int own, int count, ptrdiff_t n, const real *x, const real *y, real *out, ptrdiff_t pitch) {
    vec total[2][4], a[2], b[4];
    for (int k = 0; k < own; k++)
        for (int r = 0; r < count; r++) total[k][r] = vec_zero();
    ptrdiff_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (int k = 0; k < own; k++) a[k] = vec_load(x + k * n + i);
        for (int r = 0; r < count; r++) b[r] = vec_load(y + r * n + i);
        add_squares(own, count, a, b, total);
    }
    if (i < n) {
        for (int k = 0; k < own; k++) a[k] = vec_load_n(x + k * n + i, n - i);
        for (int r = 0; r < count; r++) b[r] = vec_load_n(y + r * n + i, n - i);
        add_squares(own, count, a, b, total);
    }
    for (int k = 0; k < own; k++)
        for (int r = 0; r < count; r++) out[k * pitch + r] = vec_sum(total[k][r]);
}

/* out: (own, rows), rows `pitch` apart, the distances of x (own, n), own 1 or 2, from y (rows, n) */
static void cdist_kernel(ptrdiff_t own, ptrdiff_t rows, ptrdiff_t n, const void *x, const void *y_, void *out_, ptrdiff_t pitch) {
    const real *y = y_;
    real *out = out_;
    ptrdiff_t r = 0;
    for (; own == 2 && r + 4 <= rows; r += 4) squared_distances(2, 4, n, x, y + r * n, out + r, pitch);
    for (; own == 1 && r + 4 <= rows; r += 4) squared_distances(1, 4, n, x, y + r * n, out + r, pitch);
    for (; r < rows; r++)
        for (ptrdiff_t k = 0; k < own; k++) squared_distances(1, 1, n, (const real *)x + k * n, y + r * n, out + k * pitch + r, pitch);
    for (ptrdiff_t k = 0; k < own; k++, out += pitch)
        for (r = 0; r < rows; r += LANES) store_lanes(out + r, vec_sqrt(load_lanes(out + r, rows - r)), rows - r);
}

/* dx: (n) += the sum over `count` rows of y (1 or 8) of w (x - y), one after the other */
INLINE void add_directions(int count, ptrdiff_t n, const real *w, ptrdiff_t w_step, const real *x, const real *y, real *dx) {
    vec factor[8];
    for (int r = 0; r < count; r++) factor[r] = vec_set1(w[r * w_step]);
    EACH_LANES(const vec a = load_lanes(x + i, lanes); vec total = load_lanes(dx + i, lanes);
               for (int r = 0; r < count; r++) total = vec_fma(factor[r], vec_sub(a, load_lanes(y + r * n + i, lanes)), total);
               store_lanes(dx + i, total, lanes););
}

/* dx: (n) += the sum over r of w[r w_step] (x - y[r]), r after r; x: (n); y: (rows, n) */
static void cdist_backward_kernel(ptrdiff_t rows, ptrdiff_t n, const void *w_, ptrdiff_t w_step, const void *x_, const void *y_,
                                  void *dx_) {
    const real *w = w_, *y = y_;
    ptrdiff_t r = 0;
    for (; r + 8 <= rows; r += 8) add_directions(8, n, w + r * w_step, w_step, x_, y + r * n, dx_);
    for (; r < rows; r++) add_directions(1, n, w + r * w_step, w_step, x_, y + r * n, dx_);
}

/* cdist.h: Euclidean distances of one row from several, and their gradient. */

/* out: (count), the sums of (x - y)^2; x: (n); y: `count` (1 or 4) rows `stride` apart, which share the loads of x */
INLINE void squared_distances(int count, ptrdiff_t n, const real *x, const real *y, ptrdiff_t stride, real *out) {
    vec total[4];
    for (int r = 0; r < count; r++) total[r] = vec_zero();
    ptrdiff_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        const vec a = vec_load(x + i);
        for (int r = 0; r < count; r++) {
            const vec d = vec_sub(a, vec_load(y + r * stride + i));
            total[r] = vec_fma(d, d, total[r]);
        }
    }
    if (i < n) {
        const vec a = vec_load_n(x + i, n - i);
        for (int r = 0; r < count; r++) {
            const vec d = vec_sub(a, vec_load_n(y + r * stride + i, n - i));
            total[r] = vec_fma(d, d, total[r]);
        }
    }
    for (int r = 0; r < count; r++) out[r] = vec_sum(total[r]);
}

/* out: (rows), the distances of x (n) from y (rows, n) */
static void cdist_kernel(ptrdiff_t rows, ptrdiff_t n, const void *x, const void *y_, void *out_) {
    const real *y = y_;
    real *out = out_;
    ptrdiff_t r = 0;
    for (; r + 4 <= rows; r += 4) squared_distances(4, n, x, y + r * n, n, out + r);
    for (; r < rows; r++) squared_distances(1, n, x, y + r * n, n, out + r);
    for (r = 0; r < rows; r += LANES) store_lanes(out + r, vec_sqrt(load_lanes(out + r, rows - r)), rows - r);
}

/* dx: (n) += the sum over r of w[r w_step] (x - y[r]), r after r; x: (n); y: (rows, n) */
static void cdist_backward_kernel(ptrdiff_t rows, ptrdiff_t n, const void *w_, ptrdiff_t w_step, const void *x_, const void *y_,
                                  void *dx_) {
    const real *w = w_, *x = x_;
    real *dx = dx_;
    for (ptrdiff_t r = 0; r < rows; r++) {
        const real *y = (const real *)y_ + r * n;
        const vec factor = vec_set1(w[r * w_step]);
        for (ptrdiff_t i = 0, left; (left = n - i) > 0; i += LANES)
            store_lanes(dx + i, vec_fma(factor, vec_sub(load_lanes(x + i, left), load_lanes(y + i, left)), load_lanes(dx + i, left)),
                        left);
    }
}

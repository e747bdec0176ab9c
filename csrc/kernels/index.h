/* index.h: scattered addition. */

/* y[index[j] * y_step] += x[j * x_step] for j = 0 .. n - 1, one after the other */
static void scatter_add_kernel(ptrdiff_t n, const int64_t *index, const void *x_, ptrdiff_t x_step, void *y_,
                               ptrdiff_t y_step) {
    const real *x = x_;
    real *y = y_;
    for (ptrdiff_t j = 0; j < n; j++) y[index[j] * y_step] += x[j * x_step];
}

/* y[index[u] * y_step + u] += x[u] for u = 0 .. n - 1: neighbours of one place along the axis */
static void scatter_add_together_kernel(ptrdiff_t n, const int64_t *restrict index, const void *x_, void *y_, ptrdiff_t y_step) {
    const real *restrict x = x_;
    real *restrict y = y_;
    for (ptrdiff_t u = 0; u < n; u++) y[index[u] * y_step + u] += x[u];
}

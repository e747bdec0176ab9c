/* index.h: scattered addition. */

/* y[index[j] * y_step] += x[j * x_step] for j = 0 .. n - 1, one after the other */
static void scatter_add_kernel(ptrdiff_t n, const int64_t *index, const void *x_, ptrdiff_t x_step, void *y_,
                               ptrdiff_t y_step) {
    const real *x = x_;
    real *y = y_;
    for (ptrdiff_t j = 0; j < n; j++) y[index[j] * y_step] += x[j * x_step];
}

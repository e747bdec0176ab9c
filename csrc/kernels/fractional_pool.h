/* fractional_pool.h: windows at random steps (B. Graham, "Fractional max-pooling", 2014), one plane at a time. */

/* *bad: the first of n samples that is not in [0, 1), or -1 */
static void fractional_check_kernel(ptrdiff_t n, const void *samples, ptrdiff_t *bad) {
    const real *u = samples;
    *bad = -1;
    for (ptrdiff_t i = n - 1; i >= 0; i--)
        if (!(u[i] >= 0 && u[i] < 1)) *bad = i;
}

/* start: (outputs), where the windows along one axis begin: floor(a (i + u)) - floor(a u), the last one at the end */
static void fractional_starts_kernel(ptrdiff_t outputs, ptrdiff_t inputs, ptrdiff_t kernel, const void *sample, ptrdiff_t *start) {
    const real u = *(const real *)sample, a = outputs > 1 ? (real)(inputs - kernel) / (real)(outputs - 1) : 0;
    for (ptrdiff_t i = 0; i < outputs - 1; i++) {
        const ptrdiff_t at = (ptrdiff_t)(((real)i + u) * a) - (ptrdiff_t)(u * a);
        start[i] = at < inputs - kernel ? at : inputs - kernel;
    }
    if (outputs) start[outputs - 1] = inputs - kernel;
}

/* y, index: (rows, columns), the greatest element of each window and its place h width + w: the first among equals; a NaN is
 * greater than all numbers */
static void fractional_max_kernel(const fnn_fractional *q, const ptrdiff_t *down, const ptrdiff_t *along, const void *x_, void *y_,
                                  int64_t *index) {
    const real *x = x_;
    for (ptrdiff_t i = 0; i < q->rows; i++)
        for (ptrdiff_t j = 0; j < q->columns; j++) {
            ptrdiff_t best = -1;
            real most = 0;
            for (ptrdiff_t h = down[i]; h < down[i] + q->kernel[0]; h++)
                for (ptrdiff_t w = along[j]; w < along[j] + q->kernel[1]; w++) {
                    const real v = x[h * q->x_row + w * q->x_column];
                    if (best >= 0 && (v <= most || most != most)) continue;
                    most = v;
                    best = h * q->width + w;
                }
            ((real *)y_)[i * q->y_row + j * q->y_column] = most;
            index[i * q->index_row + j * q->index_column] = best;
        }
}

/* dx: (places), dy, index: (n) pixels of `channels`, each `pitch` elements: 0, then dx[index] += dy, in order; *bad: set where
 * an index does not lie in 0 .. places - 1, which then adds nothing */
static void fractional_gradient_kernel(ptrdiff_t places, ptrdiff_t n, ptrdiff_t channels, ptrdiff_t pitch, const int64_t *index,
                                       const void *dy_, void *dx_, int *bad) {
    const real *dy = dy_;
    real *dx = dx_;
    for (ptrdiff_t i = 0; i < places; i++) memset(dx + i * pitch, 0, (size_t)channels * sizeof(real));
    for (ptrdiff_t i = 0; i < n; i++, index += pitch, dy += pitch)
        for (ptrdiff_t c = 0; c < channels; c++) {
            if (index[c] >= 0 && index[c] < places) dx[index[c] * pitch + c] += dy[c];
            else *bad = 1;
        }
}

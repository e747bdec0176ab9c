/* layer_norm.h: rows of n elements, each normalised by its own statistics: mean and variance (layer normalisation),
 * or the mean square alone (RMS normalisation); and what group normalisation adds to batch normalisation's kernels. */

/* Rows taken together backward: the parameters' gradients pass through the first-level cache once for all of them. */
enum { LAYER_ROWS = 4 };

/* Sums over n elements of (x - centre) and of its square: four vectors in a tree, 32 trees to a partial sum. */
INLINE void deviations(ptrdiff_t n, const real *x, vec centre, real *sum, real *squares) {
    vec total = vec_zero(), square = vec_zero();
    ptrdiff_t i = 0;
    while (i + 4 * LANES <= n) {
        vec part = vec_zero(), part_square = vec_zero();
        for (int t = 0; t < 32 && i + 4 * LANES <= n; t++, i += 4 * LANES) {
            vec d[4];
            for (int k = 0; k < 4; k++) d[k] = vec_sub(vec_load(x + i + k * LANES), centre);
            part = vec_add(part, vec_add(vec_add(d[0], d[1]), vec_add(d[2], d[3])));
            for (int k = 0; k < 4; k++) d[k] = vec_mul(d[k], d[k]);
            part_square = vec_add(part_square, vec_add(vec_add(d[0], d[1]), vec_add(d[2], d[3])));
        }
        total = vec_add(total, part);
        square = vec_add(square, part_square);
    }
    for (ptrdiff_t left; (left = n - i) > 0; i += LANES) {
        vec d = vec_sub(load_lanes(x + i, left), centre);
        if (left < LANES) d = vec_select(mask_first(left), d, vec_zero());
        total = vec_add(total, d);
        square = vec_fma(d, d, square);
    }
    *sum = vec_sum(total);
    *squares = vec_sum(square);
}

/* y, x: (rows, n); mean, rstd: (rows); weight, bias: (n) or NULL; mean NULL: rows are divided by their root mean
 * square. Variance in two passes, the second of which also yields the error of the first one's mean (Chan, Golub and
 * LeVeque 1983). */
static void layer_norm_rows_kernel(ptrdiff_t rows, ptrdiff_t n, double eps, void *y_, void *mean_, void *rstd_,
                                   const void *x_, const void *weight_, const void *bias_) {
    const real *weight = weight_, *bias = bias_;
    for (ptrdiff_t r = 0; r < rows; r++) {
        const real *x = (const real *)x_ + r * n;
        real *y = (real *)y_ + r * n, sum, squares;
        const real first = mean_ ? sum_row(n, x) / (real)n : 0;
        deviations(n, x, vec_set1(first), &sum, &squares);
        const double error = mean_ ? (double)sum / (double)n : 0,
                     variance = (double)squares / (double)n - error * error;
        const real mean = (real)(first + error), scale = (real)(1 / sqrt(variance + eps));
        if (mean_) ((real *)mean_)[r] = mean;
        ((real *)rstd_)[r] = scale;
        const vec centre = vec_set1(mean), by = vec_set1(scale);
        for (ptrdiff_t i = 0, left; (left = n - i) > 0; i += LANES) {
            vec v = vec_mul(vec_sub(load_lanes(x + i, left), centre), by);
            if (weight) v = vec_mul(v, load_lanes(weight + i, left));
            if (bias) v = vec_add(v, load_lanes(bias + i, left));
            store_lanes(y + i, v, left);
        }
    }
}

/* `rows` rows, at most LAYER_ROWS and a constant where this is inlined; see layer_norm_backward_rows. */
INLINE void layer_gradient(int rows, ptrdiff_t n, const real *dy, const real *x, const real *mean, const real *rstd,
                           const real *weight, real *dx, real *dweight, real *dbias) {
    vec centre[LAYER_ROWS], by[LAYER_ROWS], total[LAYER_ROWS], dot[LAYER_ROWS];
    for (int r = 0; r < rows; r++) {
        centre[r] = mean ? vec_set1(mean[r]) : vec_zero();
        by[r] = vec_set1(rstd[r]);
        total[r] = dot[r] = vec_zero();
    }
    for (ptrdiff_t i = 0, left; (left = n - i) > 0; i += LANES) {
        const vec w = weight ? load_lanes(weight + i, left) : vec_set1(1);
        vec dw = dweight ? load_lanes(dweight + i, left) : vec_zero(),
            db = dbias ? load_lanes(dbias + i, left) : vec_zero();
        for (int r = 0; r < rows; r++) {
            const vec g = load_lanes(dy + r * n + i, left), s = vec_mul(g, w);
            const vec d = vec_mul(vec_sub(load_lanes(x + r * n + i, left), centre[r]), by[r]);
            total[r] = vec_add(total[r], s);
            dot[r] = vec_fma(s, d, dot[r]); /* past the row's end s is 0 */
            dw = vec_fma(g, d, dw);
            db = vec_add(db, g);
        }
        if (dweight) store_lanes(dweight + i, dw, left);
        if (dbias) store_lanes(dbias + i, db, left);
    }
    for (int r = 0; r < rows && dx; r++) {
        const vec slope = vec_set1(vec_sum(dot[r]) / (real)n),
                  shift = mean ? vec_set1(vec_sum(total[r]) / (real)n) : vec_zero();
        for (ptrdiff_t i = 0, left; (left = n - i) > 0; i += LANES) {
            vec g = load_lanes(dy + r * n + i, left);
            if (weight) g = vec_mul(g, load_lanes(weight + i, left));
            const vec d = vec_mul(vec_sub(load_lanes(x + r * n + i, left), centre[r]), by[r]);
            store_lanes(dx + r * n + i, vec_mul(vec_fnma(d, slope, vec_sub(g, shift)), by[r]), left);
        }
    }
}

/* dx, dy, x: (rows, n); mean, rstd: (rows); weight: (n) or NULL. With g = dy weight and d = (x - mean) rstd:
 * dx = rstd (g - mean of g - d mean of g d), the mean of g only where there is a mean; dweight (n) += dy d, dbias (n)
 * += dy, summed over rows in turn. dx, dweight and dbias may be NULL. */
static void layer_norm_backward_rows_kernel(ptrdiff_t rows, ptrdiff_t n, const void *dy, const void *x,
                                            const void *mean, const void *rstd, const void *weight, void *dx,
                                            void *dweight, void *dbias) {
#define ROWS(p, r) ((p) ? (real *)(p) + (r) : NULL)
    ptrdiff_t r = 0;
    for (; r + LAYER_ROWS <= rows; r += LAYER_ROWS)
        layer_gradient(LAYER_ROWS, n, ROWS(dy, r * n), ROWS(x, r * n), ROWS(mean, r), ROWS(rstd, r), weight,
                       ROWS(dx, r * n), dweight, dbias);
    for (; r < rows; r++)
        layer_gradient(1, n, ROWS(dy, r * n), ROWS(x, r * n), ROWS(mean, r), ROWS(rstd, r), weight, ROWS(dx, r * n),
                       dweight, dbias);
#undef ROWS
}

/* ---- groups of channels of one image ---- */

/* mean, var, rstd: (groups); means, m2: (channels) of `pixels` each; centre, scale, shift: (channels), what
 * batch_norm_apply takes; weight, bias: (channels) or NULL. */
static void group_norm_finish_kernel(ptrdiff_t groups, ptrdiff_t channels, ptrdiff_t pixels, double eps,
                                     const double *means, const double *m2, const void *weight_, const void *bias_,
                                     void *mean, void *var, void *rstd, void *centre, void *scale, void *shift) {
    const real *weight = weight_, *bias = bias_;
    const ptrdiff_t each = groups ? channels / groups : 0;
    for (ptrdiff_t g = 0; g < groups; g++) {
        double middle = 0, squares = 0;
        for (ptrdiff_t c = g * each; c < (g + 1) * each; c++) middle += means[c];
        middle /= (double)each;
        for (ptrdiff_t c = g * each; c < (g + 1) * each; c++) {
            const double d = means[c] - middle;
            squares += m2[c] + d * d * (double)pixels;
        }
        const double variance = squares / (double)(each * pixels), by = 1 / sqrt(variance + eps);
        ((real *)mean)[g] = (real)middle, ((real *)var)[g] = (real)variance, ((real *)rstd)[g] = (real)by;
        for (ptrdiff_t c = g * each; c < (g + 1) * each; c++) {
            ((real *)centre)[c] = (real)middle;
            ((real *)scale)[c] = weight ? (real)by * weight[c] : (real)by;
            ((real *)shift)[c] = bias ? bias[c] : 0;
        }
    }
}

/* scale, slope, shift: (channels), so that dx = dy scale + (x - mean) slope + shift; dys, dots: (channels) the sums
 * of dy and of dy (x - mean) over `pixels`; rstd: (groups); weight: (channels) or NULL. */
static void group_norm_finish_backward_kernel(ptrdiff_t groups, ptrdiff_t channels, ptrdiff_t pixels,
                                              const double *dys, const double *dots, const void *rstd_,
                                              const void *weight_, void *scale, void *slope, void *shift) {
    const real *rstd = rstd_, *weight = weight_;
    const ptrdiff_t each = groups ? channels / groups : 0;
    for (ptrdiff_t g = 0; g < groups; g++) {
        double sum = 0, dot = 0;
        for (ptrdiff_t c = g * each; c < (g + 1) * each; c++) {
            const double w = weight ? (double)weight[c] : 1;
            sum += w * dys[c];
            dot += w * dots[c];
        }
        const double by = (double)rstd[g], count = (double)(each * pixels);
        for (ptrdiff_t c = g * each; c < (g + 1) * each; c++) {
            ((real *)scale)[c] = weight ? rstd[g] * weight[c] : rstd[g];
            ((real *)slope)[c] = (real)(-by * by * by * dot / count);
            ((real *)shift)[c] = (real)(-by * sum / count);
        }
    }
}

/* dweight, dbias: (channels) or NULL; dys, dots: (images) of `stride` doubles, the sums over each image; rstd:
 * (images, groups). */
static void group_norm_parameters_kernel(ptrdiff_t images, ptrdiff_t groups, ptrdiff_t channels, ptrdiff_t stride,
                                         const double *dys, const double *dots, const void *rstd_, void *dweight,
                                         void *dbias) {
    const real *rstd = rstd_;
    const ptrdiff_t each = groups ? channels / groups : 1;
    for (ptrdiff_t c = 0; c < channels; c++) {
        double weight = 0, bias = 0;
        for (ptrdiff_t i = 0; i < images; i++) {
            weight += dots[i * stride + c] * (double)rstd[i * groups + c / each];
            bias += dys[i * stride + c];
        }
        if (dweight) ((real *)dweight)[c] = (real)weight;
        if (dbias) ((real *)dbias)[c] = (real)bias;
    }
}

/* dx = dy scale + (x - mean) slope + shift: [pixels][channels] with a parameter per channel. */
static void group_norm_gradient_kernel(ptrdiff_t pixels, ptrdiff_t channels, void *dx_, const void *dy_, const void *x_,
                                       const void *mean_, const void *scale_, const void *slope_, const void *shift_) {
    real *dx = dx_;
    const real *dy = dy_, *x = x_, *mean = mean_, *scale = scale_, *slope = slope_, *shift = shift_;
    for (ptrdiff_t p = 0; p < pixels; p++, dx += channels, dy += channels, x += channels)
        for (ptrdiff_t c = 0, left; (left = channels - c) > 0; c += LANES) {
            const vec d = vec_sub(load_lanes(x + c, left), load_lanes(mean + c, left));
            const vec v = vec_fma(d, load_lanes(slope + c, left), load_lanes(shift + c, left));
            store_lanes(dx + c, vec_fma(load_lanes(dy + c, left), load_lanes(scale + c, left), v), left);
        }
}

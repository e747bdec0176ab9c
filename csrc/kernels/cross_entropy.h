/* cross_entropy.h: losses of rows of log-probabilities and their gradients. With q the weighted, smoothed target,
 *     labels: q_c = ((1 - s) [c = label] + s / n) weight_c      probabilities: q_c = ((1 - s) target_c + s / n) weight_c
 * the loss of a row is -sum q_c logp_c and its gradient p_c sum(q) - q_c, both times the sample's weight. Label -1: ignored. */

INLINE real given(const real *p, ptrdiff_t i) { return p ? p[i] : (real)1; }

/* sum of a * weight; weight NULL: ones */
INLINE real weighted_sum(ptrdiff_t n, const real *a, const real *weight) {
    return weight ? dot_row(n, a, weight) : sum_row(n, a);
}

/* loss, applied: (rows); logp: (rows, n); label: (rows) in 0 .. n - 1 or -1; weight: (n) or NULL; sample_weight: (rows) or NULL.
 * applied: the weight that the mean divides by. */
static void label_loss_kernel(ptrdiff_t rows, ptrdiff_t n, const void *logp_, const int64_t *label, const void *weight,
                              const void *sample_weight, double smoothing, void *loss_, void *applied_) {
    const real *logp = logp_, keep = (real)(1 - smoothing), share = (real)(smoothing / (double)n);
    real *loss = loss_, *applied = applied_;
    for (ptrdiff_t r = 0; r < rows; r++, logp += n) {
        if (label[r] < 0) {
            loss[r] = applied[r] = 0;
            continue;
        }
        const real w = given(weight, label[r]), s = given(sample_weight, r);
        real value = -keep * w * logp[label[r]];
        if (smoothing > 0) value -= share * weighted_sum(n, logp, weight);
        loss[r] = s * value;
        applied[r] = s * w;
    }
}

/* y = scale exp(x), x a log-probability */
INLINE void scaled_exp(ptrdiff_t n, const real *x, real scale, real *y) {
    const vec factor = vec_set1(scale);
    for (ptrdiff_t i = 0; i < n; i += LANES)
        store_lanes(y + i, vec_mul(factor, vec_exp_down(load_lanes(x + i, n - i))), n - i);
}

/* y += scale weight; weight NULL: ones */
INLINE void add_weights(ptrdiff_t n, const real *weight, real scale, real *y) {
    const vec factor = vec_set1(scale);
    for (ptrdiff_t i = 0; i < n; i += LANES) {
        vec term = weight ? vec_mul(factor, load_lanes(weight + i, n - i)) : factor;
        store_lanes(y + i, vec_add(load_lanes(y + i, n - i), term), n - i);
    }
}

/* dx = scale exp(logp), less g where a label is, past the caches: all labels are classes. Elements are written in order, once. */
INLINE void label_gradient_stream(ptrdiff_t rows, ptrdiff_t classes, real scale, real g, const real *logp, const int64_t *label,
                                  real *dx) {
    const vec factor = vec_set1(scale);
    const ptrdiff_t n = rows * classes;
    ptrdiff_t next = label[0], row = 0; /* the next element with a label, and its row */
    EACH_ALIGNED(dx, vec v = vec_mul(factor, vec_exp_down(load_lanes(logp + i, lanes)));
                 if (next < i + lanes) {
                     real part[LANES];
                     vec_store(part, v);
                     for (; next < i + lanes; next = ++row < rows ? row * classes + label[row] : n) part[next - i] -= g;
                     v = vec_load(part);
                 }
                 stream_lanes(dx + i, v, lanes););
    vec_stream_end();
}

INLINE int are_classes(ptrdiff_t rows, const int64_t *label) {
    for (ptrdiff_t r = 0; r < rows; r++)
        if (label[r] < 0) return 0;
    return 1;
}

/* dx: (rows, n); dloss: one per row, `step` apart, divided by the mean's divisor already; stream: dx is too large for the caches;
 * the others as label_loss */
static void label_loss_backward_kernel(ptrdiff_t rows, ptrdiff_t n, const void *dloss_, ptrdiff_t step, const void *logp_,
                                       const int64_t *label, const void *weight, const void *sample_weight, double smoothing,
                                       int stream, void *dx_) {
    const real *dloss = dloss_, *weights = weight, *logp = logp_;
    const real keep = (real)(1 - smoothing), share = (real)(smoothing / (double)n);
    real *dx = dx_;
    const real all = share > 0 ? share * (weight ? sum_row(n, weight) : (real)n) : 0;
    /* one factor for all rows: one loop over all elements, without a tail at the end of each short row */
    const int alike = step == 0 && !weight && !sample_weight;
    if (stream && alike && share == 0 && are_classes(rows, label)) {
        label_gradient_stream(rows, n, dloss[0] * (keep + all), dloss[0] * keep, logp, label, dx);
        return;
    }
    if (alike) scaled_exp(rows * n, logp, dloss[0] * (keep + all), dx);
    for (ptrdiff_t r = 0; r < rows; r++, logp += n, dx += n) {
        if (label[r] < 0) {
            memset(dx, 0, (size_t)n * sizeof(real));
            continue;
        }
        const real g = dloss[r * step] * given(sample_weight, r), hit = keep * given(weight, label[r]);
        if (!alike) scaled_exp(n, logp, g * (hit + all), dx);
        if (share > 0) add_weights(n, weights, -g * share, dx);
        dx[label[r]] -= g * hit;
    }
}

/* q of the columns from i on */
INLINE vec soft_target(const real *target, const real *weight, ptrdiff_t i, ptrdiff_t left, vec keep, vec share) {
    vec q = vec_fma(load_lanes(target + i, left), keep, share);
    if (weight) return vec_mul(q, load_lanes(weight + i, left));
    return left < LANES ? vec_select(mask_first(left), q, vec_zero()) : q;
}

/* loss, applied: (rows); logp, target: (rows, n); weight: (n) or NULL; sample_weight: (rows) or NULL */
static void soft_loss_kernel(ptrdiff_t rows, ptrdiff_t n, const void *logp_, const void *target_, const void *weight,
                             const void *sample_weight, double smoothing, void *loss_, void *applied_) {
    const real *logp = logp_, *target = target_;
    real *loss = loss_, *applied = applied_;
    const vec keep = vec_set1((real)(1 - smoothing)), share = vec_set1((real)(smoothing / (double)n));
    for (ptrdiff_t r = 0; r < rows; r++, logp += n, target += n) {
        vec total = vec_zero();
        for (ptrdiff_t i = 0; i < n;) { /* runs of 32 vectors keep the rounding errors of long rows small */
            vec part = vec_zero();
            for (const ptrdiff_t end = fnn_min(n, i + 32 * LANES); i < end; i += LANES)
                part = vec_fma(soft_target(target, weight, i, n - i, keep, share), load_lanes(logp + i, n - i), part);
            total = vec_add(total, part);
        }
        applied[r] = given(sample_weight, r);
        loss[r] = -applied[r] * vec_sum(total);
    }
}

/* dx: (rows, n); dloss: one per row, `step` apart, divided by the mean's divisor already; the others as soft_loss */
static void soft_loss_backward_kernel(ptrdiff_t rows, ptrdiff_t n, const void *dloss_, ptrdiff_t step,
                                      const void *logp_, const void *target_, const void *weight, const void *sample_weight,
                                      double smoothing, void *dx_) {
    const real *dloss = dloss_, *logp = logp_, *target = target_;
    real *dx = dx_;
    const vec keep = vec_set1((real)(1 - smoothing)), share = vec_set1((real)(smoothing / (double)n));
    for (ptrdiff_t r = 0; r < rows; r++, logp += n, target += n, dx += n) {
        vec total = vec_zero();
        for (ptrdiff_t i = 0; i < n; i += LANES)
            total = vec_add(total, soft_target(target, weight, i, n - i, keep, share));
        const vec sum = vec_set1(vec_sum(total)), g = vec_set1(dloss[r * step] * given(sample_weight, r));
        for (ptrdiff_t i = 0; i < n; i += LANES) {
            vec q = soft_target(target, weight, i, n - i, keep, share);
            store_lanes(dx + i, vec_mul(g, vec_sub(vec_mul(vec_exp_down(load_lanes(logp + i, n - i)), sum), q)), n - i);
        }
    }
}

/* loss, applied: (n) = -weight picked, weight; label: (n) or -1: 0 both; weight: of the classes, or NULL */
static void nll_loss_kernel(ptrdiff_t n, const void *picked_, const int64_t *label, const void *weight, void *loss_, void *applied_) {
    const real *picked = picked_;
    real *loss = loss_, *applied = applied_;
    for (ptrdiff_t r = 0; r < n; r++) {
        applied[r] = label[r] < 0 ? 0 : given(weight, label[r]);
        loss[r] = label[r] < 0 ? 0 : -(picked[r] * applied[r]);
    }
}

/* dpicked: (n); dloss: `step` apart, divided by the mean's divisor already; the others as nll_loss */
static void nll_loss_backward_kernel(ptrdiff_t n, const void *dloss_, ptrdiff_t step, const int64_t *label, const void *weight,
                                     void *dpicked_) {
    const real *dloss = dloss_;
    real *dpicked = dpicked_;
    for (ptrdiff_t r = 0; r < n; r++) dpicked[r] = label[r] < 0 ? 0 : -(given(weight, label[r]) * dloss[r * step]);
}

/* batch_norm.h: statistics of a run of pixels, [pixels][channels], and the passes that use them. Sums inside a run
 * are in `real`; what leaves it is in double. Loops over channels on doubles are left to the compiler's vectoriser. */

enum { NORM_VECTORS = 4, NORM_PHASES = 4 };

#define NORM_LOAD(p, v) (n >= LANES ? vec_load((p) + (v) * LANES) : vec_load_n(p, n))

/* All channels: step(vectors, phases, channels in the last vector, first channel). With one vector of channels, four
 * phases of pixels are summed apart, so that the additions do not wait for one another. */
#define NORM_CHANNELS(step)                                                                                            \
    do {                                                                                                               \
        ptrdiff_t c = 0;                                                                                               \
        for (; c + NORM_VECTORS * LANES <= channels; c += NORM_VECTORS * LANES) step(NORM_VECTORS, 1, LANES, c);       \
        for (; c + LANES <= channels; c += LANES) step(1, NORM_PHASES, LANES, c);                                      \
        if (c < channels) step(1, NORM_PHASES, channels - c, c);                                                       \
    } while (0)

/* A sum over pixels of two terms, TERMS(k, p), k-th pair of accumulators and pixel p: phases in turn, then a tree. */
#define NORM_SUM(TERMS)                                                                                                \
    do {                                                                                                               \
        for (int k = 0; k < vectors * phases; k++) s[k] = q[k] = vec_zero();                                           \
        ptrdiff_t p = 0;                                                                                               \
        for (; p + phases <= pixels; p += phases)                                                                      \
            for (int k = 0; k < vectors * phases; k++) TERMS(k, p + k / vectors);                                      \
        for (; p < pixels; p++)                                                                                        \
            for (int k = 0; k < vectors; k++) TERMS(k, p);                                                             \
        for (int step = phases / 2; step >= 1; step /= 2)                                                              \
            for (int k = 0; k < step * vectors; k++) {                                                                 \
                s[k] = vec_add(s[k], s[k + step * vectors]);                                                           \
                q[k] = vec_add(q[k], q[k + step * vectors]);                                                           \
            }                                                                                                          \
    } while (0)

/* mean, m2: [n] each: the mean of x and the sum of squares about it. Two passes while the run is in cache; the
 * second, about the rounded mean, also yields that mean's error (Chan, Golub and LeVeque 1983, the corrected two-pass
 * algorithm). */
INLINE void moments_of(ptrdiff_t pixels, ptrdiff_t channels, int vectors, int phases, ptrdiff_t n, const real *x,
                       double *mean, double *m2) {
    vec s[NORM_VECTORS], q[NORM_VECTORS], about[NORM_VECTORS];
    real centre[LANES], sum[LANES], squares[LANES];
#define TERMS(k, p) s[k] = vec_add(s[k], NORM_LOAD(x + (p) * channels, (k) % vectors))
    NORM_SUM(TERMS);
#undef TERMS
    const vec scale = vec_set1((real)1 / (real)pixels);
    for (int v = 0; v < vectors; v++) about[v] = vec_mul(s[v], scale);
#define TERMS(k, p)                                                                                                    \
    do {                                                                                                               \
        const vec d = vec_sub(NORM_LOAD(x + (p) * channels, (k) % vectors), about[(k) % vectors]);                     \
        s[k] = vec_add(s[k], d);                                                                                       \
        q[k] = vec_fma(d, d, q[k]);                                                                                    \
    } while (0)
    NORM_SUM(TERMS);
#undef TERMS
    for (int v = 0; v < vectors; v++) {
        vec_store(centre, about[v]);
        vec_store(sum, s[v]);
        vec_store(squares, q[v]);
        for (ptrdiff_t c = 0; c < n; c++) {
            double error = (double)sum[c] / (double)pixels, rest = (double)squares[c] - (double)sum[c] * error;
            mean[v * LANES + c] = (double)centre[c] + error;
            m2[v * LANES + c] = rest < 0 ? 0 : rest;
        }
    }
}

static void batch_norm_moments_kernel(ptrdiff_t pixels, ptrdiff_t channels, const void *x_, double *mean, double *m2) {
    const real *x = x_;
#define STEP(vectors, phases, n, c) moments_of(pixels, channels, vectors, phases, n, x + c, mean + c, m2 + c)
    NORM_CHANNELS(STEP);
#undef STEP
}

/* Chan's merge of the moments of two sets of a and b pixels, into the first. */
static void batch_norm_merge_kernel(ptrdiff_t channels, double a, double b, double *restrict mean, double *restrict m2,
                                    const double *restrict mean_b, const double *restrict m2_b) {
    const double share = b / (a + b), weight = a * share;
    for (ptrdiff_t c = 0; c < channels; c++) {
        const double delta = mean_b[c] - mean[c];
        mean[c] += delta * share;
        m2[c] += m2_b[c] + delta * delta * weight;
    }
}

/* mean, var (biased), rstd = 1 / sqrt(var + eps), each rounded once. */
static void batch_norm_finish_kernel(ptrdiff_t pixels, ptrdiff_t channels, double eps, void *mean_, void *var_,
                                     void *rstd_, const double *means, const double *m2) {
    real *mean = mean_, *var = var_, *rstd = rstd_;
    for (ptrdiff_t c = 0; c < channels; c++) {
        const double variance = m2[c] / (double)pixels;
        mean[c] = (real)means[c];
        var[c] = (real)variance;
        rstd[c] = (real)(1 / sqrt(variance + eps));
    }
}

/* rstd = 1 / sqrt(var + eps). */
static void batch_norm_rstd_kernel(ptrdiff_t channels, double eps, void *rstd_, const void *var_) {
    real *rstd = rstd_;
    const real *var = var_;
    for (ptrdiff_t c = 0; c < channels; c++) rstd[c] = (real)(1 / sqrt((double)var[c] + eps));
}

/* scale = rstd * weight (NULL: 1), shift = bias (NULL: 0). */
static void batch_norm_scale_kernel(ptrdiff_t channels, void *scale_, void *shift_, const void *rstd_,
                                    const void *weight_, const void *bias_) {
    real *scale = scale_, *shift = shift_;
    const real *rstd = rstd_, *weight = weight_, *bias = bias_;
    for (ptrdiff_t c = 0; c < channels; c++) {
        scale[c] = weight ? rstd[c] * weight[c] : rstd[c];
        shift[c] = bias ? bias[c] : (real)0;
    }
}

/* A pass over all pixels: step(channels, first channel), on full vectors and then on what is left. */
#define NORM_PASS(step, advance)                                                                                       \
    for (ptrdiff_t p = 0; p < pixels; p++, x += channels, y += channels, advance) {                                    \
        ptrdiff_t c = 0;                                                                                               \
        for (; c + LANES <= channels; c += LANES) step(LANES, c);                                                      \
        if (c < channels) step(channels - c, c);                                                                       \
    }

#define NORM_STORE(p, value)                                                                                           \
    (n < LANES ? vec_store_n(p, value, n) : stream ? vec_stream(p, value) : vec_store(p, value))

enum { NORM_AHEAD = 4096 }; /* bytes of x that are asked for meanwhile: the CPU does not look beyond a page */

/* y = (x - mean) * scale + shift, [pixels][channels] with a parameter per channel. */
INLINE void apply_at(ptrdiff_t n, int stream, real *y, const real *x, const real *mean, const real *scale,
                     const real *shift) {
    const vec d = vec_sub(NORM_LOAD(x, 0), NORM_LOAD(mean, 0));
    NORM_STORE(y, vec_fma(d, NORM_LOAD(scale, 0), NORM_LOAD(shift, 0)));
}

INLINE void apply_all(ptrdiff_t pixels, ptrdiff_t channels, int stream, real *y, const real *x, const real *mean,
                      const real *scale, const real *shift) {
#define STEP(n, c)                                                                                                     \
    do {                                                                                                               \
        if (stream && (c) * (ptrdiff_t)sizeof(real) % FNN_LINE == 0) prefetch((const char *)(x + (c)) + NORM_AHEAD);   \
        apply_at(n, stream, y + c, x + c, mean + c, scale + c, shift + c);                                             \
    } while (0)
    NORM_PASS(STEP, (void)0)
#undef STEP
}

static void batch_norm_apply_kernel(ptrdiff_t pixels, ptrdiff_t channels, int stream, void *y, const void *x,
                                    const void *mean, const void *scale, const void *shift) {
    if (!stream) {
        apply_all(pixels, channels, 0, y, x, mean, scale, shift);
        return;
    }
    apply_all(pixels, channels, 1, y, x, mean, scale, shift);
    vec_stream_end();
}

/* The same on planes, [channels][size], whose parameters are constants: the same bits. */
static void batch_norm_apply_planes_kernel(ptrdiff_t channels, ptrdiff_t size, void *y_, const void *x_,
                                           const void *mean_, const void *scale_, const void *shift_) {
    real *y = y_;
    const real *x = x_, *means = mean_, *scales = scale_, *shifts = shift_;
    for (ptrdiff_t c = 0; c < channels; c++, x += size, y += size) {
        const vec mean = vec_set1(means[c]), scale = vec_set1(scales[c]), shift = vec_set1(shifts[c]);
        for (ptrdiff_t i = 0; i < size; i += LANES) {
            const ptrdiff_t n = size - i;
            const vec value = vec_fma(vec_sub(NORM_LOAD(x + i, 0), mean), scale, shift);
            if (n >= LANES) vec_store(y + i, value);
            else vec_store_n(y + i, value, n);
        }
    }
}

/* ---- backward ---- */

/* dys, dots: [n] each: the sums of dy and of dy * (x - mean). */
INLINE void sums_of(ptrdiff_t pixels, ptrdiff_t channels, int vectors, int phases, ptrdiff_t n, const real *dy,
                    const real *x, const real *mean, double *dys, double *dots) {
    vec s[NORM_VECTORS], q[NORM_VECTORS], about[NORM_VECTORS];
    real sum[LANES], dot[LANES];
    for (int v = 0; v < vectors; v++) about[v] = NORM_LOAD(mean, v);
#define TERMS(k, p)                                                                                                    \
    do {                                                                                                               \
        const vec g = NORM_LOAD(dy + (p) * channels, (k) % vectors);                                                   \
        s[k] = vec_add(s[k], g);                                                                                       \
        q[k] = vec_fma(g, vec_sub(NORM_LOAD(x + (p) * channels, (k) % vectors), about[(k) % vectors]), q[k]);          \
    } while (0)
    NORM_SUM(TERMS);
#undef TERMS
    for (int v = 0; v < vectors; v++) {
        vec_store(sum, s[v]);
        vec_store(dot, q[v]);
        for (ptrdiff_t c = 0; c < n; c++) dys[v * LANES + c] = (double)sum[c], dots[v * LANES + c] = (double)dot[c];
    }
}

static void batch_norm_sums_kernel(ptrdiff_t pixels, ptrdiff_t channels, const void *dy_, const void *x_,
                                   const void *mean_, double *dys, double *dots) {
    const real *dy = dy_, *x = x_, *mean = mean_;
#define STEP(vectors, phases, n, c)                                                                                    \
    sums_of(pixels, channels, vectors, phases, n, dy + c, x + c, mean + c, dys + c, dots + c)
    NORM_CHANNELS(STEP);
#undef STEP
}

/* Adds the sums of a second set of pixels to those of a first. */
static void batch_norm_add_kernel(ptrdiff_t n, double *restrict sums, const double *restrict more) {
    for (ptrdiff_t c = 0; c < n; c++) sums[c] += more[c];
}

/* From a whole batch's sums: dweight, dbias (NULL: not wanted), and what dx needs: scale = rstd * weight, dmean =
 * mean of dy, slope = -rstd^2 * mean of dy * (x - mean). */
static void batch_norm_finish_backward_kernel(ptrdiff_t pixels, ptrdiff_t channels, void *dweight_, void *dbias_,
                                              void *scale_, void *dmean_, void *slope_, const double *dys,
                                              const double *dots, const void *rstd_, const void *weight_) {
    real *dweight = dweight_, *dbias = dbias_, *scale = scale_, *dmean = dmean_, *slope = slope_;
    const real *rstd = rstd_, *weight = weight_;
    for (ptrdiff_t c = 0; c < channels; c++) {
        const double r = (double)rstd[c];
        if (dweight) dweight[c] = (real)(dots[c] * r);
        if (dbias) dbias[c] = (real)dys[c];
        scale[c] = weight ? rstd[c] * weight[c] : rstd[c];
        dmean[c] = (real)(dys[c] / (double)pixels);
        slope[c] = (real)(-r * r * (dots[c] / (double)pixels));
    }
}

/* dx = (dy - dmean + (x - mean) * slope) * scale. */
INLINE void gradient_at(ptrdiff_t n, int stream, real *dx, const real *dy, const real *x, const real *mean,
                        const real *scale, const real *dmean, const real *slope) {
    const vec d = vec_sub(NORM_LOAD(x, 0), NORM_LOAD(mean, 0)), g = vec_sub(NORM_LOAD(dy, 0), NORM_LOAD(dmean, 0));
    NORM_STORE(dx, vec_mul(vec_fma(d, NORM_LOAD(slope, 0), g), NORM_LOAD(scale, 0)));
}

INLINE void gradient_all(ptrdiff_t pixels, ptrdiff_t channels, int stream, real *y, const real *dy, const real *x,
                         const real *mean, const real *scale, const real *dmean, const real *slope) {
#define STEP(n, c) gradient_at(n, stream, y + c, dy + c, x + c, mean + c, scale + c, dmean + c, slope + c)
    NORM_PASS(STEP, dy += channels)
#undef STEP
}

static void batch_norm_gradient_kernel(ptrdiff_t pixels, ptrdiff_t channels, int stream, void *dx, const void *dy,
                                       const void *x, const void *mean, const void *scale, const void *dmean,
                                       const void *slope) {
    if (!stream) {
        gradient_all(pixels, channels, 0, dx, dy, x, mean, scale, dmean, slope);
        return;
    }
    gradient_all(pixels, channels, 1, dx, dy, x, mean, scale, dmean, slope);
    vec_stream_end();
}

static void batch_norm_gradient_planes_kernel(ptrdiff_t channels, ptrdiff_t size, void *dx_, const void *dy_,
                                              const void *x_, const void *mean_, const void *scale_, const void *dmean_,
                                              const void *slope_) {
    real *dx = dx_;
    const real *dy = dy_, *x = x_, *means = mean_, *scales = scale_, *dmeans = dmean_, *slopes = slope_;
    for (ptrdiff_t c = 0; c < channels; c++, dx += size, dy += size, x += size) {
        const vec mean = vec_set1(means[c]), scale = vec_set1(scales[c]);
        const vec dmean = vec_set1(dmeans[c]), slope = vec_set1(slopes[c]);
        for (ptrdiff_t i = 0; i < size; i += LANES) {
            const ptrdiff_t n = size - i;
            const vec d = vec_sub(NORM_LOAD(x + i, 0), mean), g = vec_sub(NORM_LOAD(dy + i, 0), dmean);
            const vec value = vec_mul(vec_fma(d, slope, g), scale);
            if (n >= LANES) vec_store(dx + i, value);
            else vec_store_n(dx + i, value, n);
        }
    }
}

#undef NORM_LOAD
#undef NORM_STORE
#undef NORM_PASS
#undef NORM_CHANNELS
#undef NORM_SUM

/* augment.h: random changes of images, [pixels][channels]: sampling along lines, crops, colours, holes. What is random was
 * drawn by the driver (ops/augment.c). */

/* y[j] = x[j], or x[n - 1 - j] with flip, j = 0 .. n - 1; channels a constant where this is inlined. */
INLINE void crop_pixels(ptrdiff_t n, ptrdiff_t channels, int flip, const real *restrict x, real *restrict y) {
    if (!flip) {
        memcpy(y, x, (size_t)(n * channels) * sizeof(real));
        return;
    }
    for (ptrdiff_t j = 0; j < n; j++)
        for (ptrdiff_t c = 0; c < channels; c++) y[(n - 1 - j) * channels + c] = x[j * channels + c];
}

/* One row of a crop: y[j] = x[first + j], or x[first + width - 1 - j] with flip; 0 outside 0 .. source - 1.
 * y: (width, channels); x: (source, channels), or NULL: all outside; with plane: (channels, source), `plane` apart, few of them. */
static void augment_crop_kernel(ptrdiff_t width, ptrdiff_t channels, ptrdiff_t source, ptrdiff_t first, int flip,
                                const void *x_, ptrdiff_t plane, void *y_) {
    const real *x = x_;
    real *y = y_;
    const size_t pixel = (size_t)channels * sizeof(real);
    ptrdiff_t begin = first < 0 ? -first : 0, end = source - first < width ? source - first : width; /* of those inside */
    if (!x || end <= begin) begin = end = 0;
    const ptrdiff_t n = end - begin, before = flip ? width - end : begin;
    memset(y, 0, (size_t)before * pixel);
    if (n > 0) {
        const real *from = x + (first + begin) * (plane ? 1 : channels);
        real *to = y + before * channels;
        if (plane) planes_join_few(n, channels, from, plane, flip, to);
        else if (channels == 3) crop_pixels(n, 3, flip, from, to);
        else crop_pixels(n, channels, flip, from, to);
    }
    memset(y + (before + n) * channels, 0, (size_t)(width - before - n) * pixel);
}

/* One row along a straight line: y[j] = x at (at[0] + j at[2], at[1] + j at[3]) + flow[j], interpolated between its four
 * neighbours, which are 0 outside. y: (width, channels); x: (rows, columns, channels); flow: (width, 2), or NULL. */
static void augment_sample_kernel(ptrdiff_t width, ptrdiff_t channels, ptrdiff_t rows, ptrdiff_t columns, const double *at,
                                  const void *flow_, const void *x_, void *y_) {
    const real *x = x_, *flow = flow_;
    real *y = y_;
    const ptrdiff_t n = channels;
    for (ptrdiff_t j = 0; j < width; j++, y += channels) {
        const double row = at[0] + (double)j * at[2] + (flow ? (double)flow[2 * j] : 0);
        const double column = at[1] + (double)j * at[3] + (flow ? (double)flow[2 * j + 1] : 0);
        if (!(row > -1 && row < (double)rows && column > -1 && column < (double)columns)) {
            memset(y, 0, (size_t)channels * sizeof(real));
            continue;
        }
        const ptrdiff_t r = (ptrdiff_t)floor(row), c = (ptrdiff_t)floor(column);
        const double down = row - (double)r, right = column - (double)c;
        const real up_weight = r < 0 ? 0 : (real)(1 - down), down_weight = r + 1 < rows ? (real)down : 0;
        const real left_weight = c < 0 ? 0 : (real)(1 - right), right_weight = c + 1 < columns ? (real)right : 0;
        /* a neighbour outside weighs nothing, and is read where the one inside lies */
        const real *upper = x + (r < 0 ? 0 : r) * columns * channels, *lower = x + (r + 1 < rows ? r + 1 : r) * columns * channels;
        const ptrdiff_t left = (c < 0 ? 0 : c) * channels, next = (c + 1 < columns ? c + 1 : c) * channels;
        const vec a = vec_set1(up_weight * left_weight), b = vec_set1(up_weight * right_weight);
        const vec d = vec_set1(down_weight * left_weight), e = vec_set1(down_weight * right_weight);
        EACH_LANES(vec sum = vec_mul(a, load_lanes(upper + left + i, lanes));
                   sum = vec_fma(b, load_lanes(upper + next + i, lanes), sum);
                   sum = vec_fma(d, load_lanes(lower + left + i, lanes), sum);
                   store_lanes(y + i, vec_fma(e, load_lanes(lower + next + i, lanes), sum), lanes););
    }
}

/* y = (y - mean) / std; all (n) */
static void augment_normalise_kernel(ptrdiff_t n, const void *mean_, const void *std_, void *y_) {
    const real *mean = mean_, *std = std_;
    real *y = y_;
    EACH_LANES(vec centred = vec_sub(load_lanes(y + i, lanes), load_lanes(mean + i, lanes));
               store_lanes(y + i, vec_div(centred, load_lanes(std + i, lanes)), lanes););
}

/* sums: (channels); x: (pixels, channels), one or three channels. In double, pixel after pixel. */
static void augment_sums_kernel(ptrdiff_t pixels, ptrdiff_t channels, const void *x_, double *sums) {
    const real *x = x_;
    for (ptrdiff_t c = 0; c < channels; c++) sums[c] = 0;
    for (ptrdiff_t p = 0; p < pixels; p++)
        for (ptrdiff_t c = 0; c < channels; c++) sums[c] += (double)x[p * channels + c];
}

INLINE real unit_clip(real v) { return v < 0 ? 0 : v > 1 ? 1 : v; } /* NaN stays */

/* y = gain x + offset within 0 .. 1; y, x: (pixels, channels), one channel or three; gain: (3, 3), of which one channel
 * takes the first. */
static void augment_color_kernel(ptrdiff_t pixels, ptrdiff_t channels, const double *gain, double offset_, const void *x_,
                                 void *y_) {
    const real *x = x_, offset = (real)offset_;
    real *y = y_, g[9];
    for (int k = 0; k < 9; k++) g[k] = (real)gain[k];
    if (channels == 1) {
        for (ptrdiff_t p = 0; p < pixels; p++) y[p] = unit_clip(g[0] * x[p] + offset);
        return;
    }
    for (ptrdiff_t p = 0; p < pixels; p++, x += 3, y += 3) {
        const real red = x[0], green = x[1], blue = x[2];
        for (int c = 0; c < 3; c++) y[c] = unit_clip(g[3 * c] * red + g[3 * c + 1] * green + g[3 * c + 2] * blue + offset);
    }
}

/* y: (n) = value */
static void augment_hole_kernel(ptrdiff_t n, double value, void *y_) {
    real *y = y_;
    for (ptrdiff_t i = 0; i < n; i++) y[i] = (real)value;
}

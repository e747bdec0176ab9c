/* conv_narrow.h: convolutions with so few output channels that lanes are neighbouring pixels, or images: the way back, weight
 * gradients. */

/* conv_planes_out: dst (rows x pixels x channels, at most LANES channels; pixels dst_col apart, rows dst_row) =
 * activation(planes (channels x rows x pixels; rows `row` apart) + bias (channels)), each step rounded; NULL: none. Applied to
 * whole vectors of pixels: afterwards a pixel's few channels are most of a vector short. (Permuting the few vectors there are
 * takes as long as transposing a whole block: masks and permutations share a port.) */
static void conv_planes_out_kernel(ptrdiff_t rows, ptrdiff_t pixels, ptrdiff_t channels, const void *planes, ptrdiff_t plane,
                                   ptrdiff_t row, const void *bias, int activation, void *to, ptrdiff_t dst_row,
                                   ptrdiff_t dst_col) {
    const real *add = bias;
    for (ptrdiff_t i = 0; i < rows; i++)
        for (ptrdiff_t j = 0; j < pixels; j += LANES) {
            const ptrdiff_t n = pixels - j < LANES ? pixels - j : LANES;
            vec block[LANES];
            for (ptrdiff_t k = 0; k < LANES; k++) {
                block[k] = vec_zero();
                if (k >= channels) continue;
                block[k] = vec_load_n((const real *)planes + k * plane + i * row + j, n);
                if (add) block[k] = vec_add(block[k], vec_set1(add[k]));
                if (activation == FNN_ACT_RELU) block[k] = relu_forward_formula(block[k], NULL);
            }
            vec_transpose(block);
            for (ptrdiff_t q = 0; q < n; q++) vec_store_n((real *)to + i * dst_row + (j + q) * dst_col, block[q], channels);
        }
}

/* What is done to a product's vector of images, a row of one channel, on its way out. */
typedef struct {
    int adds, relu;
    real bias[2 * LANES]; /* of the channels, over and over: of a vector of rows from any channel on */
} images_epilogue;

INLINE vec images_finish(const images_epilogue *e, const int adds, const int relu, const real *row, ptrdiff_t channel) {
    vec v = vec_load(row);
    if (adds) v = vec_add(v, vec_set1(e->bias[channel]));
    return relu ? relu_forward_formula(v, NULL) : v;
}

/* dst (images x rows, contiguous along the rows) = what is done to y (rows x images, rows `wide`, whole vectors, apart), whose rows
 * are channels, one after another. */
INLINE void images_transpose(const images_epilogue *e, const int adds, const int relu, ptrdiff_t rows, ptrdiff_t channels,
                             ptrdiff_t images, const real *y, ptrdiff_t wide, real *dst, ptrdiff_t dst_image) {
    for (ptrdiff_t i = 0; i < rows; i += LANES)
        for (ptrdiff_t image = 0, channel = i % channels; image < images; image += LANES) {
            const ptrdiff_t height = rows - i, width = images - image;
            const real *p = y + i * wide + image;
            real *q = dst + image * dst_image + i;
            vec block[LANES];
            if (height >= LANES && width >= LANES) {
#pragma GCC unroll 16
                for (int v = 0; v < LANES; v++) block[v] = images_finish(e, adds, relu, p + v * wide, channel + v);
                vec_transpose(block);
#pragma GCC unroll 16
                for (int v = 0; v < LANES; v++) vec_store(q + v * dst_image, block[v]);
                continue;
            }
            for (ptrdiff_t v = 0; v < LANES; v++)
                block[v] = v < height ? images_finish(e, adds, relu, p + v * wide, channel + v) : vec_zero();
            vec_transpose(block);
            for (ptrdiff_t v = 0; v < LANES && v < width; v++)
                vec_store_n(q + v * dst_image, block[v], height < LANES ? height : LANES);
        }
}

/* conv_images_out: dst (images x pixels x channels, at most LANES of them; images dst_image apart, pixels dst_pixel) =
 * activation(product (pixels x channels x images, rows `wide`, whole vectors, apart) + bias (channels)), each step rounded; NULL:
 * none. Where pixels follow one another it is the transpose of one matrix, whatever the number of channels. */
static void conv_images_out_kernel(ptrdiff_t pixels, ptrdiff_t channels, ptrdiff_t images, const void *product, ptrdiff_t wide,
                                   const void *bias, int activation, void *dst, ptrdiff_t dst_image, ptrdiff_t dst_pixel) {
    const int dense = dst_pixel == channels;
    const ptrdiff_t runs = dense ? 1 : pixels, rows = dense ? pixels * channels : channels;
    images_epilogue e = {.adds = bias != NULL, .relu = activation == FNN_ACT_RELU};
    for (ptrdiff_t k = 0; bias && k < 2 * LANES; k++) e.bias[k] = ((const real *)bias)[k % channels];
    for (ptrdiff_t i = 0; i < runs; i++) {
        const real *from = (const real *)product + i * rows * wide;
        real *to = (real *)dst + i * dst_pixel;
        if (e.adds && e.relu) images_transpose(&e, 1, 1, rows, channels, images, from, wide, to, dst_image);
        else if (e.adds) images_transpose(&e, 1, 0, rows, channels, images, from, wide, to, dst_image);
        else if (e.relu) images_transpose(&e, 0, 1, rows, channels, images, from, wide, to, dst_image);
        else images_transpose(&e, 0, 0, rows, channels, images, from, wide, to, dst_image);
    }
}

/* Rows of two columns' windows, each the maximum of four finished vectors and where it is, as pool_max_window says. */
INLINE void images_pool(const images_epilogue *e, const int adds, const int relu, ptrdiff_t cols, ptrdiff_t channels,
                        ptrdiff_t images, const real *upper, const real *lower, real *maxima, real *positions) {
    for (ptrdiff_t o = 0; o < cols; o++)
        for (ptrdiff_t k = 0; k < channels; k++)
            for (ptrdiff_t image = 0; image < images; image += LANES, maxima += LANES, positions += LANES) {
                vec best = vec_set1((real)-INFINITY);
                ivec where = ivec_set1(0);
#pragma GCC unroll 4
                for (int q = 0; q < 4; q++) {
                    const real *row = (q < 2 ? upper : lower) + ((2 * o + q % 2) * channels + k) * images + image;
                    const vec value = images_finish(e, adds, relu, row, k);
                    const mask take = mask_or(vec_lt(best, value), vec_unordered(value, value));
                    best = vec_select(take, value, best);
                    where = ivec_select(take, ivec_set1(q), where);
                }
                vec_store(maxima, best);
                vec_store(positions, ivec_as_vec(where));
            }
}

/* conv_images_pool: maxima and positions (cols x channels x images, integers as wide as values) of windows of 2 x 2 pixels of two
 * rows, upper and lower (2 cols x channels x images, whole vectors), with bias and activation as in conv_images_out. */
static void conv_images_pool_kernel(ptrdiff_t cols, ptrdiff_t channels, ptrdiff_t images, const void *upper, const void *lower,
                                    const void *bias, int activation, void *maxima, void *positions) {
    images_epilogue e = {.adds = bias != NULL, .relu = activation == FNN_ACT_RELU};
    for (ptrdiff_t k = 0; bias && k < channels; k++) e.bias[k] = ((const real *)bias)[k];
    if (e.adds && e.relu) images_pool(&e, 1, 1, cols, channels, images, upper, lower, maxima, positions);
    else if (e.adds) images_pool(&e, 1, 0, cols, channels, images, upper, lower, maxima, positions);
    else if (e.relu) images_pool(&e, 0, 1, cols, channels, images, upper, lower, maxima, positions);
    else images_pool(&e, 0, 0, cols, channels, images, upper, lower, maxima, positions);
}

/* ---- weight gradients ---- */

#if REGISTERS == 32
enum { NARROW_CHANNELS = 4, NARROW_TAPS = 5 };
#else
enum { NARROW_CHANNELS = 2, NARROW_TAPS = 5 };
#endif

typedef struct {
    ptrdiff_t rows, cols, x_row, x_tap, dy_row, dy_plane;
} narrow_plan;

/* One vector of pixels; n < 0: a whole one, else its first n. */
INLINE void narrow_step(const narrow_plan *p, vec acc[NARROW_CHANNELS][NARROW_TAPS], int channels, int taps, const real *x,
                        const real *dy, ptrdiff_t n) {
    vec g[NARROW_CHANNELS];
#pragma GCC unroll 8
    for (int k = 0; k < channels; k++) g[k] = n < 0 ? vec_load(dy + k * p->dy_plane) : vec_load_n(dy + k * p->dy_plane, n);
#pragma GCC unroll 8
    for (int t = 0; t < taps; t++) {
        const vec v = n < 0 ? vec_load(x + t * p->x_tap) : vec_load_n(x + t * p->x_tap, n);
#pragma GCC unroll 8
        for (int k = 0; k < channels; k++) acc[k][t] = vec_fma(g[k], v, acc[k][t]);
    }
}

/* sums (channels x taps vectors, `next` vectors from channel to channel) += dy times x. */
INLINE void narrow_block(const narrow_plan *p, int channels, int taps, const real *x, const real *dy, real *sums, ptrdiff_t next) {
    vec acc[NARROW_CHANNELS][NARROW_TAPS];
#pragma GCC unroll 8
    for (int k = 0; k < channels; k++)
#pragma GCC unroll 8
        for (int t = 0; t < taps; t++) acc[k][t] = vec_load(sums + (k * next + t) * LANES);
    for (ptrdiff_t i = 0; i < p->rows; i++) {
        const real *g = dy + i * p->dy_row, *v = x + i * p->x_row;
        ptrdiff_t j = 0;
        for (; j + LANES <= p->cols; j += LANES) narrow_step(p, acc, channels, taps, v + j, g + j, -1);
        if (j < p->cols) narrow_step(p, acc, channels, taps, v + j, g + j, p->cols - j);
    }
#pragma GCC unroll 8
    for (int k = 0; k < channels; k++)
#pragma GCC unroll 8
        for (int t = 0; t < taps; t++) vec_store(sums + (k * next + t) * LANES, acc[k][t]);
}

typedef void narrow_function(const narrow_plan *p, const real *x, const real *dy, real *sums, ptrdiff_t next);

#define NARROW_2(X, taps) X(1, taps) X(2, taps)
#define NARROW_4(X, taps) NARROW_2(X, taps) X(3, taps) X(4, taps)
#if REGISTERS == 32
#define NARROW(X) NARROW_4(X, 1) NARROW_4(X, 2) NARROW_4(X, 3) NARROW_4(X, 4) NARROW_4(X, 5)
#else
#define NARROW(X) NARROW_2(X, 1) NARROW_2(X, 2) NARROW_2(X, 3) NARROW_2(X, 4) NARROW_2(X, 5)
#endif
#define NARROW_DEFINE(channels, taps)                                                                                   \
    static void narrow_##channels##_##taps(const narrow_plan *p, const real *x, const real *dy, real *sums, ptrdiff_t next) { \
        narrow_block(p, channels, taps, x, dy, sums, next);                                                             \
    }
#define NARROW_ENTRY(channels, taps) [channels - 1][taps - 1] = narrow_##channels##_##taps,
NARROW(NARROW_DEFINE)
static narrow_function *const narrow_blocks[NARROW_CHANNELS][NARROW_TAPS] = {NARROW(NARROW_ENTRY)};

/* conv_narrow_gradient: sums (channels x taps x LANES) += for each channel and tap, lane by lane, the sum over rows and columns of
 * dy (at channel * dy_plane + row * dy_row + column) times x (at row * x_row + tap * x_tap + column). */
static void conv_narrow_gradient_kernel(ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t channels, ptrdiff_t taps, const void *x,
                                        ptrdiff_t x_row, ptrdiff_t x_tap, const void *dy, ptrdiff_t dy_row, ptrdiff_t dy_plane,
                                        void *sums) {
    const narrow_plan p = {rows, cols, x_row, x_tap, dy_row, dy_plane};
    for (ptrdiff_t k = 0, n_k, left_k = (channels + NARROW_CHANNELS - 1) / NARROW_CHANNELS; left_k > 0; left_k--, k += n_k) {
        n_k = (channels - k + left_k - 1) / left_k;
        for (ptrdiff_t t = 0, n_t, left_t = (taps + NARROW_TAPS - 1) / NARROW_TAPS; left_t > 0; left_t--, t += n_t) {
            n_t = (taps - t + left_t - 1) / left_t;
            narrow_blocks[n_k - 1][n_t - 1](&p, (const real *)x + t * x_tap, (const real *)dy + k * dy_plane,
                                            (real *)sums + (k * taps + t) * LANES, taps);
        }
    }
}

/* conv_narrow_finish: dw (taps x channels, rows dw_tap apart) = sums (channels x taps x LANES), lanes added up. */
static void conv_narrow_finish_kernel(ptrdiff_t channels, ptrdiff_t taps, const void *sums, void *dw, ptrdiff_t dw_tap) {
    for (ptrdiff_t k = 0; k < channels; k++)
        for (ptrdiff_t t = 0; t < taps; t++)
            ((real *)dw)[t * dw_tap + k] = vec_sum(vec_load((const real *)sums + (k * taps + t) * LANES));
}

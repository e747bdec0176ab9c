/* winograd.h: the transforms of F(4x4, 3x3) convolutions (Winograd 1980; Lavin and Gray, "Fast Algorithms for
 * Convolutional Neural Networks", 2016): 4 x 4 outputs from 6 x 6 inputs by 36 products instead of 144.
 *
 * F(4x4, 2x2) is the same with kernels whose first row and column are zero: their value at the point 0 is 0, and what remains
 * are 4 x 4 outputs from 5 x 5 inputs by 25 products instead of 64. (With the last row and column zero it is infinity that goes,
 * and the error is greater by an eighth.) So kernels take the `taps` of an axis and leave out what comes before `first`.
 *
 * The polynomials are evaluated at 0, +-5/8, +-3/2 and infinity, in this order. These points and their squares and
 * products are exact in binary, so that only the weights' transform rounds constants; measured on normal numbers their
 * error is half that of the common points 0, +-1, +-2. With B, G and A as in Lavin and Gray:
 *     V = B'dB   U = GgG'   Y = A'MA   and their adjoints   dM = A dY A'   dg = G' dU G.
 * Lanes are channels. A transform works along one axis of a tile, then along the other. */

#define POINT_A 0.625
#define POINT_B 1.5
#define POINT_A2 (POINT_A * POINT_A)
#define POINT_B2 (POINT_B * POINT_B)
/* One over the products of distances to the other points. */
#define WEIGHT_0 (1 / (POINT_A2 * POINT_B2))
#define WEIGHT_A (1 / (2 * POINT_A2 * (POINT_A2 - POINT_B2)))
#define WEIGHT_B (1 / (2 * POINT_B2 * (POINT_B2 - POINT_A2)))

enum { PATCH = FNN_WINOGRAD_PATCH, OUTPUTS = FNN_WINOGRAD_OUTPUTS, TAPS = 3, COPIED = 32, COLLISION = 2048 };

/* B': 6 to 6, the first three of them and the last three, which share nothing. */
INLINE void transform_input_low(const vec *d, vec *v) {
    const vec a = constant(POINT_A), b2 = constant(POINT_B2);
    const vec even = vec_fnma(b2, d[2], d[4]), odd = vec_fnma(b2, d[1], d[3]);
    v[0] = vec_fma(constant(POINT_A2 * POINT_B2), d[0], vec_fnma(constant(POINT_A2 + POINT_B2), d[2], d[4]));
    v[1] = vec_fma(a, odd, even);
    v[2] = vec_fnma(a, odd, even);
}

INLINE void transform_input_high(const vec *d, vec *v) {
    const vec b = constant(POINT_B), a2 = constant(POINT_A2);
    const vec even = vec_fnma(a2, d[2], d[4]), odd = vec_fnma(a2, d[1], d[3]);
    v[0] = vec_fma(b, odd, even);
    v[1] = vec_fnma(b, odd, even);
    v[2] = vec_fma(constant(POINT_A2 * POINT_B2), d[1], vec_fnma(constant(POINT_A2 + POINT_B2), d[3], d[5]));
}

/* A': 6 to 4; the point 0 is there if it is the first. */
INLINE void transform_output(const vec *m, vec *y, int first) {
    const vec sum_a = vec_add(m[1], m[2]), odd_a = vec_sub(m[1], m[2]);
    const vec sum_b = vec_add(m[3], m[4]), odd_b = vec_sub(m[3], m[4]);
    y[0] = vec_add(first ? sum_a : vec_add(m[0], sum_a), sum_b);
    y[1] = vec_fma(constant(POINT_B), odd_b, vec_mul(constant(POINT_A), odd_a));
    y[2] = vec_fma(constant(POINT_B2), sum_b, vec_mul(constant(POINT_A2), sum_a));
    y[3] = vec_fma(constant(POINT_B * POINT_B2), odd_b, vec_fma(constant(POINT_A * POINT_A2), odd_a, m[5]));
}

/* A: 4 to 6. */
INLINE void transform_output_gradient(const vec *y, vec *m) {
    const vec a = constant(POINT_A), b = constant(POINT_B), a2 = constant(POINT_A2), b2 = constant(POINT_B2);
    const vec even_a = vec_fma(a2, y[2], y[0]), odd_a = vec_fma(a2, y[3], y[1]);
    const vec even_b = vec_fma(b2, y[2], y[0]), odd_b = vec_fma(b2, y[3], y[1]);
    m[0] = y[0];
    m[1] = vec_fma(a, odd_a, even_a);
    m[2] = vec_fnma(a, odd_a, even_a);
    m[3] = vec_fma(b, odd_b, even_b);
    m[4] = vec_fnma(b, odd_b, even_b);
    m[5] = y[3];
}

/* G: 3 to 6. */
INLINE void transform_weight(const vec *g, vec *u) {
    const vec even_a = vec_mul(constant(WEIGHT_A), vec_fma(constant(POINT_A2), g[2], g[0]));
    const vec even_b = vec_mul(constant(WEIGHT_B), vec_fma(constant(POINT_B2), g[2], g[0]));
    const vec a = constant(POINT_A * WEIGHT_A), b = constant(POINT_B * WEIGHT_B);
    u[0] = vec_mul(constant(WEIGHT_0), g[0]);
    u[1] = vec_fma(a, g[1], even_a);
    u[2] = vec_fnma(a, g[1], even_a);
    u[3] = vec_fma(b, g[1], even_b);
    u[4] = vec_fnma(b, g[1], even_b);
    u[5] = g[2];
}

/* G': 6 to 3. */
INLINE void transform_weight_gradient(const vec *u, vec *g) {
    const vec sum_a = vec_mul(constant(WEIGHT_A), vec_add(u[1], u[2]));
    const vec sum_b = vec_mul(constant(WEIGHT_B), vec_add(u[3], u[4]));
    const vec odd_a = vec_sub(u[1], u[2]), odd_b = vec_sub(u[3], u[4]);
    g[0] = vec_add(vec_fma(constant(WEIGHT_0), u[0], sum_a), sum_b);
    g[1] = vec_fma(constant(POINT_B * WEIGHT_B), odd_b, vec_mul(constant(POINT_A * WEIGHT_A), odd_a));
    g[2] = vec_fma(constant(POINT_B2), sum_b, vec_fma(constant(POINT_A2), sum_a, u[5]));
}

/* Three columns of V: those of transform_input_high or low. So many fit into AVX-512's registers: with all six, storing
 * what is half done costs as much as the arithmetic. */
INLINE void input_columns(ptrdiff_t n, const void *const *pixel, ptrdiff_t j, real *v, ptrdiff_t plane, int high, int first) {
    const int patch = PATCH - first;
    vec half[PATCH][3];
#pragma GCC unroll 6
    for (int i = first; i < PATCH; i++) {
        vec d[PATCH] = {vec_zero()};
#pragma GCC unroll 6
        for (int q = high | first; q < PATCH - 1 + high; q++)
            d[q] = load_lanes((const real *)pixel[(i - first) * patch + q - first] + j, n);
        if (high) transform_input_high(d, half[i]);
        else transform_input_low(d, half[i]);
    }
#pragma GCC unroll 3
    for (int q = high ? 0 : first; q < 3; q++) {
        vec d[PATCH] = {vec_zero()}, all[PATCH];
#pragma GCC unroll 6
        for (int i = first; i < PATCH; i++) d[i] = half[i][q];
        transform_input_low(d, all);
        transform_input_high(d, all + 3);
#pragma GCC unroll 6
        for (int i = first; i < PATCH; i++) vec_store(v + ((i - first) * patch + 3 * high + q - first) * plane, all[i]);
    }
}

INLINE void input_channels(ptrdiff_t channels, const void *const *pixel, ptrdiff_t at, real *v, ptrdiff_t plane, int first) {
    for (ptrdiff_t j = 0; j < channels; j += LANES) {
        input_columns(channels - j, pixel, at + j, v + j, plane, 0, first);
        input_columns(channels - j, pixel, at + j, v + j, plane, 1, first);
    }
}

/* Whether neighbours are so far apart, as with many channels, a power of two, that a tile's pixels are more than the first-level
 * cache has room for in the sets that they share. */
INLINE int pixels_collide(const void *const *pixel, int patch) {
    const uintptr_t a = (uintptr_t)pixel[patch], b = (uintptr_t)pixel[patch + 1], c = (uintptr_t)pixel[patch + 2];
    return !((a ^ b) % COLLISION) || !((b ^ c) % COLLISION);
}

/* Channels from `at` on of the pixels, side by side. */
INLINE void copy_pixels(const void *const *pixel, int pixels, ptrdiff_t at, real (*copy)[COPIED], const void **copied) {
    for (int i = 0; i < pixels; i++) {
        copied[i] = copy[i];
#pragma GCC unroll 4
        for (int j = 0; j < COPIED; j += LANES) vec_store(copy[i] + j, vec_load((const real *)pixel[i] + at + j));
    }
}

INLINE void input_tile(ptrdiff_t channels, const void *const *pixel, real *v, ptrdiff_t plane, int first) {
    const int patch = PATCH - first, collide = pixels_collide(pixel, patch);
    real copy[PATCH * PATCH][COPIED];
    const void *copied[PATCH * PATCH];
    ptrdiff_t j = 0;
    for (; collide && channels - j >= COPIED; j += COPIED) {
        copy_pixels(pixel, patch * patch, j, copy, copied);
        input_channels(COPIED, copied, 0, v + j, plane, first);
    }
    input_channels(channels - j, pixel, j, v + j, plane, first);
}

/* winograd_input: v = B'dB for one tile: 36 planes (2 taps: 25), `plane` elements apart, of `channels` values each, from as many
 * input pixels (row by row) with neighbouring channels. v's last vector is written whole. */
static void winograd_input_kernel(int taps, ptrdiff_t channels, const void *const *pixel, void *to, ptrdiff_t plane) {
    if (taps == TAPS) input_tile(channels, pixel, to, plane, 0);
    else input_tile(channels, pixel, to, plane, 1);
}

INLINE void output_gradient_channels(ptrdiff_t channels, const void *const *pixel, ptrdiff_t at, real *to, ptrdiff_t plane,
                                     int first) {
    const int patch = PATCH - first;
    for (ptrdiff_t j = 0; j < channels; j += LANES) {
        const ptrdiff_t n = channels - j;
        real *v = to + j;
        vec half[OUTPUTS][PATCH];
#pragma GCC unroll 4
        for (int i = 0; i < OUTPUTS; i++) {
            vec y[OUTPUTS];
#pragma GCC unroll 4
            for (int q = 0; q < OUTPUTS; q++) y[q] = load_lanes((const real *)pixel[i * OUTPUTS + q] + at + j, n);
            transform_output_gradient(y, half[i]);
        }
#pragma GCC unroll 6
        for (int q = first; q < PATCH; q++) {
            vec y[OUTPUTS], all[PATCH];
#pragma GCC unroll 4
            for (int i = 0; i < OUTPUTS; i++) y[i] = half[i][q];
            transform_output_gradient(y, all);
#pragma GCC unroll 6
            for (int i = first; i < PATCH; i++) vec_store(v + ((i - first) * patch + q - first) * plane, all[i]);
        }
    }
}

INLINE void output_gradient_tile(ptrdiff_t channels, const void *const *pixel, real *to, ptrdiff_t plane, int first) {
    const int collide = pixels_collide(pixel, OUTPUTS);
    real copy[OUTPUTS * OUTPUTS][COPIED];
    const void *copied[OUTPUTS * OUTPUTS];
    ptrdiff_t j = 0;
    for (; collide && channels - j >= COPIED; j += COPIED) {
        copy_pixels(pixel, OUTPUTS * OUTPUTS, j, copy, copied);
        output_gradient_channels(COPIED, copied, 0, to + j, plane, first);
    }
    output_gradient_channels(channels - j, pixel, j, to + j, plane, first);
}

/* winograd_output_gradient: dm = A dY A' for one tile, as winograd_input, from 16 pixels of dy. */
static void winograd_output_gradient_kernel(int taps, ptrdiff_t channels, const void *const *pixel, void *to, ptrdiff_t plane) {
    if (taps == TAPS) output_gradient_tile(channels, pixel, to, plane, 0);
    else output_gradient_tile(channels, pixel, to, plane, 1);
}

INLINE void output_tile(ptrdiff_t channels, const void *m, ptrdiff_t plane, ptrdiff_t rows, ptrdiff_t cols, void *to,
                        ptrdiff_t y_row, ptrdiff_t y_col, const void *bias, const void *residual, int activation, int *bad,
                        int first) {
    const int patch = PATCH - first;
    vec not_finite = vec_zero();
    for (ptrdiff_t j = 0; j < channels; j += LANES) {
        const ptrdiff_t n = channels - j;
        vec half[OUTPUTS][PATCH];
#pragma GCC unroll 6
        for (int q = first; q < PATCH; q++) {
            vec column[PATCH] = {vec_zero()}, y[OUTPUTS];
#pragma GCC unroll 6
            for (int i = first; i < PATCH; i++)
                column[i] = load_lanes((const real *)m + ((i - first) * patch + q - first) * plane + j, n);
            transform_output(column, y, first);
#pragma GCC unroll 4
            for (int i = 0; i < OUTPUTS; i++) half[i][q] = y[i];
        }
        const vec add = bias ? load_lanes((const real *)bias + j, n) : vec_zero();
#pragma GCC unroll 4
        for (int i = 0; i < OUTPUTS; i++) {
            if (i >= rows) break;
            vec y[OUTPUTS];
            transform_output(half[i], y, first);
#pragma GCC unroll 4
            for (int q = 0; q < OUTPUTS; q++) {
                if (q >= cols) break;
                const ptrdiff_t at = i * y_row + q * y_col + j;
                not_finite = vec_fma(y[q], vec_zero(), not_finite);
                if (bias) y[q] = vec_add(y[q], add);
                if (residual) y[q] = vec_add(y[q], load_lanes((const real *)residual + at, n));
                if (activation == FNN_ACT_RELU) y[q] = relu_forward_formula(y[q], NULL);
                store_lanes((real *)to + at, y[q], n);
            }
        }
    }
    if (mask_any(vec_unordered(not_finite, not_finite))) *bad = 1;
}

/* winograd_output: y = activation(A'MA + bias + residual) for rows x cols of one tile's 4 x 4 pixels; m: 36 planes (2 taps: 25);
 * residual lies as y does; *bad becomes 1 if an element of A'MA is not finite. */
static void winograd_output_kernel(int taps, ptrdiff_t channels, const void *m, ptrdiff_t plane, ptrdiff_t rows, ptrdiff_t cols,
                                   void *y, ptrdiff_t y_row, ptrdiff_t y_col, const void *bias, const void *residual,
                                   int activation, int *bad) {
    if (taps == TAPS) output_tile(channels, m, plane, rows, cols, y, y_row, y_col, bias, residual, activation, bad, 0);
    else output_tile(channels, m, plane, rows, cols, y, y_row, y_col, bias, residual, activation, bad, 1);
}

INLINE void weight_planes(ptrdiff_t n, const void *from, ptrdiff_t g_plane, void *to, ptrdiff_t u_plane, int first) {
    const int patch = PATCH - first, taps = TAPS - first;
    for (ptrdiff_t j = 0; j < n; j += LANES) {
        const real *g = (const real *)from + j;
        real *u = (real *)to + j;
        vec half[TAPS][PATCH];
#pragma GCC unroll 3
        for (int i = first; i < TAPS; i++) {
            vec row[TAPS] = {vec_zero()};
#pragma GCC unroll 3
            for (int q = first; q < TAPS; q++) row[q] = load_lanes(g + ((i - first) * taps + q - first) * g_plane, n - j);
            transform_weight(row, half[i]);
        }
#pragma GCC unroll 6
        for (int q = first; q < PATCH; q++) {
            vec column[TAPS] = {vec_zero()}, all[PATCH];
#pragma GCC unroll 3
            for (int i = first; i < TAPS; i++) column[i] = half[i][q];
            transform_weight(column, all);
#pragma GCC unroll 6
            for (int i = first; i < PATCH; i++) store_lanes(u + ((i - first) * patch + q - first) * u_plane, all[i], n - j);
        }
    }
}

/* winograd_weight: u = GgG' of n elements: 36 planes from 9 (2 taps: 25 from 4), both `..._plane` elements apart. */
static void winograd_weight_kernel(int taps, ptrdiff_t n, const void *g, ptrdiff_t g_plane, void *u, ptrdiff_t u_plane) {
    if (taps == TAPS) weight_planes(n, g, g_plane, u, u_plane, 0);
    else weight_planes(n, g, g_plane, u, u_plane, 1);
}

INLINE void weight_gradient_planes(ptrdiff_t n, const void *from, ptrdiff_t u_plane, void *to, ptrdiff_t g_plane, int *bad,
                                   int first) {
    const int patch = PATCH - first, taps = TAPS - first;
    vec not_finite = vec_zero();
    for (ptrdiff_t j = 0; j < n; j += LANES) {
        const real *u = (const real *)from + j;
        real *g = (real *)to + j;
        vec half[TAPS][PATCH];
#pragma GCC unroll 6
        for (int q = first; q < PATCH; q++) {
            vec column[PATCH] = {vec_zero()}, all[TAPS];
#pragma GCC unroll 6
            for (int i = first; i < PATCH; i++) column[i] = load_lanes(u + ((i - first) * patch + q - first) * u_plane, n - j);
            transform_weight_gradient(column, all);
#pragma GCC unroll 3
            for (int i = first; i < TAPS; i++) half[i][q] = all[i];
        }
#pragma GCC unroll 3
        for (int i = first; i < TAPS; i++) {
            vec row[TAPS];
            if (first) half[i][0] = vec_zero();
            transform_weight_gradient(half[i], row);
#pragma GCC unroll 3
            for (int q = first; q < TAPS; q++) {
                not_finite = vec_fma(row[q], vec_zero(), not_finite);
                store_lanes(g + ((i - first) * taps + q - first) * g_plane, row[q], n - j);
            }
        }
    }
    if (mask_any(vec_unordered(not_finite, not_finite))) *bad = 1;
}

/* winograd_weight_gradient: dg = G' dU G of n elements: 9 planes from 36 (2 taps: 4 from 25); *bad becomes 1 if one is not
 * finite. */
static void winograd_weight_gradient_kernel(int taps, ptrdiff_t n, const void *u, ptrdiff_t u_plane, void *g, ptrdiff_t g_plane,
                                            int *bad) {
    if (taps == TAPS) weight_gradient_planes(n, u, u_plane, g, g_plane, bad, 0);
    else weight_gradient_planes(n, u, u_plane, g, g_plane, bad, 1);
}

/* winograd5.h: F(2x2, 5x5): 2 x 2 outputs from 6 x 6 inputs by 36 products instead of 100, at the points and with the B' of
 * winograd.h; with fewer outputs for as many points its error is smaller than that of F(4x4, 3x3).
 *
 * It is for few channels of x. Forward and in the weights' gradient lanes are channels of y, which meet one number of V = B'dB
 * after the other. V is made with tiles and channels as lanes: where even and odd columns of x are apart, what neighbouring tiles
 * read lies side by side. The input's gradient is the adjoint B[U . (A dY A')]B' (what forward does, with weights turned round,
 * would take twice the tiles); its lanes are images, its windows are added up first along a row of tiles, then downwards.
 *
 * V at a row of points is [point][row of tiles][tile][channel], points FNN_WINOGRAD5_PLANE apart, rows of tiles whole vectors. */

enum {
    FIVE_OUTPUTS = 2,
    FIVE_TAPS = 5,
    FIVE_POINTS = 3,  /* along a row of the tile, multiplied at a time */
    FIVE_TILES = REGISTERS == 32 ? 8 : 4,    /* so many accumulators each */
    FIVE_CHANNELS = REGISTERS == 32 ? 8 : 4, /* the same of gradients */
    FIVE_PAIRS = REGISTERS == 16,            /* two panels at a time (winograd5_pairs.h) */
    PLANE5 = FNN_WINOGRAD5_PLANE
};

/* A': 6 to 2, what the first three points add, and the last three. */
INLINE void five_output_low(const vec *m, vec *y) {
    y[0] = vec_add(m[0], vec_add(m[1], m[2]));
    y[1] = vec_mul(constant(POINT_A), vec_sub(m[1], m[2]));
}

INLINE void five_output_high(const vec *m, vec *y) {
    y[0] = vec_add(y[0], vec_add(m[0], m[1]));
    y[1] = vec_add(y[1], vec_fma(constant(POINT_B), vec_sub(m[0], m[1]), m[2]));
}

/* A: 2 to 6, the first three of them, or the last. */
INLINE void five_output_points(const int high, vec y0, vec y1, vec *m) {
    const vec point = constant(high ? POINT_B : POINT_A);
    const vec plus = vec_fma(point, y1, y0), minus = vec_fnma(point, y1, y0);
    m[0] = high ? plus : y0;
    m[1] = high ? minus : plus;
    m[2] = high ? y1 : minus;
}

INLINE void five_output_gradient(vec y0, vec y1, vec *m) {
    five_output_points(0, y0, y1, m);
    five_output_points(1, y0, y1, m + 3);
}

/* B: 6 to 6. */
INLINE void five_input_gradient(const vec *n, vec *d) {
    const vec a2 = constant(POINT_A2), b2 = constant(POINT_B2), both = constant(POINT_A2 * POINT_B2);
    const vec even_a = vec_add(n[1], n[2]), odd_a = vec_sub(n[1], n[2]), even_b = vec_add(n[3], n[4]), odd_b = vec_sub(n[3], n[4]);
    d[0] = vec_mul(both, n[0]);
    d[1] = vec_fnma(constant(POINT_B2 * POINT_A), odd_a, vec_fnma(constant(POINT_A2 * POINT_B), odd_b, vec_mul(both, n[5])));
    d[2] = vec_fnma(b2, even_a, vec_fnma(a2, even_b, vec_mul(constant(-POINT_A2 - POINT_B2), n[0])));
    d[3] = vec_fma(constant(POINT_A), odd_a, vec_fma(constant(POINT_B), odd_b, vec_mul(constant(-POINT_A2 - POINT_B2), n[5])));
    d[4] = vec_add(n[0], vec_add(even_a, even_b));
    d[5] = n[5];
}

/* G: 5 to 6. */
INLINE void five_weight(const vec *g, vec *u) {
    const vec a2 = constant(POINT_A2), b2 = constant(POINT_B2);
    const vec even_a = vec_mul(constant(WEIGHT_A), vec_fma(a2, vec_fma(a2, g[4], g[2]), g[0]));
    const vec even_b = vec_mul(constant(WEIGHT_B), vec_fma(b2, vec_fma(b2, g[4], g[2]), g[0]));
    const vec odd_a = vec_fma(a2, g[3], g[1]), odd_b = vec_fma(b2, g[3], g[1]);
    const vec a = constant(POINT_A * WEIGHT_A), b = constant(POINT_B * WEIGHT_B);
    u[0] = vec_mul(constant(WEIGHT_0), g[0]);
    u[1] = vec_fma(a, odd_a, even_a);
    u[2] = vec_fnma(a, odd_a, even_a);
    u[3] = vec_fma(b, odd_b, even_b);
    u[4] = vec_fnma(b, odd_b, even_b);
    u[5] = g[4];
}

/* G': 6 to 5. */
INLINE void five_weight_gradient(const vec *u, vec *g) {
    const vec a2 = constant(POINT_A2), b2 = constant(POINT_B2);
    const vec even_a = vec_mul(constant(WEIGHT_A), vec_add(u[1], u[2]));
    const vec even_b = vec_mul(constant(WEIGHT_B), vec_add(u[3], u[4]));
    const vec odd_a = vec_mul(constant(POINT_A * WEIGHT_A), vec_sub(u[1], u[2]));
    const vec odd_b = vec_mul(constant(POINT_B * WEIGHT_B), vec_sub(u[3], u[4]));
    g[0] = vec_fma(constant(WEIGHT_0), u[0], vec_add(even_a, even_b));
    g[1] = vec_add(odd_a, odd_b);
    g[2] = vec_fma(a2, even_a, vec_mul(b2, even_b));
    g[3] = vec_fma(a2, odd_a, vec_mul(b2, odd_b));
    g[4] = vec_fma(constant(POINT_A2 * POINT_A2), even_a, vec_fma(constant(POINT_B2 * POINT_B2), even_b, u[5]));
}

/* ---- V ---- */

/* A pixel's channels, as many as are known here, or not (0). */
INLINE void five_copy(const int known, ptrdiff_t columns, ptrdiff_t depth, const real *from, ptrdiff_t x_col, real *even,
                      real *odd) {
    const ptrdiff_t run = known ? known : depth;
    for (ptrdiff_t j = 0; j < columns; j += 2, from += 2 * x_col, even += run, odd += run) {
        if (known) memcpy(even, from, (size_t)known * sizeof(real));
        else copy_run(run, from, even);
        if (j + 1 == columns) break;
        if (known) memcpy(odd, from + x_col, (size_t)known * sizeof(real));
        else copy_run(run, from + x_col, odd);
    }
}

/* winograd5_stage: columns of a row of x, `depth` channels each, x_col apart, by turns to even and odd. */
static void winograd5_stage_kernel(ptrdiff_t columns, ptrdiff_t depth, const void *x, ptrdiff_t x_col, void *even, void *odd) {
    switch (depth) {
        case 1: five_copy(1, columns, depth, x, x_col, even, odd); break;
        case 2: five_copy(2, columns, depth, x, x_col, even, odd); break;
        case 3: five_copy(3, columns, depth, x, x_col, even, odd); break;
        case 4: five_copy(4, columns, depth, x, x_col, even, odd); break;
        case 6: five_copy(6, columns, depth, x, x_col, even, odd); break;
        case 8: five_copy(8, columns, depth, x, x_col, even, odd); break;
        default: five_copy(0, columns, depth, x, x_col, even, odd);
    }
}

/* The rows of one row of tiles, to 6 rows of points. */
INLINE void five_input_down(ptrdiff_t n, const real *staged, ptrdiff_t half, real *down) {
    for (int odd = 0; odd < 2; odd++)
        for (ptrdiff_t j = odd * half; j < odd * half + n; j += LANES) {
            vec d[PATCH], all[PATCH];
#pragma GCC unroll 6
            for (int i = 0; i < PATCH; i++) d[i] = vec_load(staged + 2 * i * half + j);
            transform_input_low(d, all);
            transform_input_high(d, all + 3);
#pragma GCC unroll 6
            for (int i = 0; i < PATCH; i++) vec_store(down + 2 * i * half + j, all[i]);
        }
}

/* winograd5_down: B'd of `rows` rows of tiles, 6 rows of points each, from 2 rows + 4 staged rows of n elements and as many behind
 * `half`, up to whole vectors, whose last may hold anything. */
static void winograd5_down_kernel(ptrdiff_t rows, ptrdiff_t n, const void *staged, ptrdiff_t half, void *down) {
    for (ptrdiff_t row = 0; row < rows; row++)
        five_input_down(n, (const real *)staged + row * FIVE_OUTPUTS * 2 * half, half, (real *)down + row * PATCH * 2 * half);
}

/* winograd5_along: v, six points of B'dB, of rows x cols tiles, from their row of points of each six: even columns, then, `half`
 * behind them, odd ones; a row of tiles is whole vectors of v. */
static void winograd5_along_kernel(ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t depth, const void *down, ptrdiff_t half, void *to) {
    const ptrdiff_t n = cols * depth, pitch = (n + LANES - 1) / LANES * LANES;
    for (ptrdiff_t row = 0; row < rows; row++)
        for (ptrdiff_t j = 0; j < n; j += LANES) {
            const real *even = (const real *)down + row * PATCH * 2 * half + j, *odd = even + half;
            vec d[PATCH], all[PATCH];
#pragma GCC unroll 6
            for (int q = 0; q < PATCH; q++) d[q] = vec_load((q % 2 ? odd : even) + q / 2 * depth);
            transform_input_low(d, all);
            transform_input_high(d, all + 3);
#pragma GCC unroll 6
            for (int q = 0; q < PATCH; q++) vec_store((real *)to + q * PLANE5 + row * pitch + j, all[q]);
        }
}

#include "winograd5_pairs.h"

/* ---- forward ---- */

/* Three points of neighbouring tiles. */
INLINE void five_products(const int tiles, ptrdiff_t depth, const real *v, const real *u, vec m[FIVE_TILES][FIVE_POINTS]) {
#pragma GCC unroll 8
    for (int t = 0; t < tiles; t++)
#pragma GCC unroll 3
        for (int q = 0; q < FIVE_POINTS; q++) m[t][q] = vec_zero();
    for (ptrdiff_t c = 0; c < depth; c++) {
        vec w[FIVE_POINTS];
#pragma GCC unroll 3
        for (int q = 0; q < FIVE_POINTS; q++) w[q] = vec_load(u + (q * depth + c) * LANES);
#pragma GCC unroll 8
        for (int t = 0; t < tiles; t++)
#pragma GCC unroll 3
            for (int q = 0; q < FIVE_POINTS; q++) vec_accumulate(&m[t][q], vec_set1(v[t * depth + c + q * PLANE5]), w[q]);
    }
}

/* half: A'M of a row of points, 2 of each tile's 12. */
INLINE void five_tiles(const int tiles, ptrdiff_t depth, const real *v, const real *u, real *half) {
    vec m[FIVE_TILES][FIVE_POINTS], y[FIVE_TILES][FIVE_OUTPUTS];
    five_products(tiles, depth, v, u, m);
#pragma GCC unroll 8
    for (int t = 0; t < tiles; t++) five_output_low(m[t], y[t]);
    five_products(tiles, depth, v + FIVE_POINTS * PLANE5, u + FIVE_POINTS * depth * LANES, m);
#pragma GCC unroll 8
    for (int t = 0; t < tiles; t++) {
        five_output_high(m[t], y[t]);
        vec_store(half + t * PATCH * FIVE_OUTPUTS * LANES, y[t][0]);
        vec_store(half + (t * PATCH * FIVE_OUTPUTS + 1) * LANES, y[t][1]);
    }
}

typedef void five_function(ptrdiff_t depth, const real *v, const real *u, real *half);

#if REGISTERS == 32
#define FIVE_COUNTS(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8)
#else
#define FIVE_COUNTS(X) X(1) X(2) X(3) X(4)
#endif
#define FIVE_DEFINE(count)                                                                                              \
    static void five_tiles_##count(ptrdiff_t depth, const real *v, const real *u, real *half) {                         \
        five_tiles(count, depth, v, u, half);                                                                           \
    }
#define FIVE_ENTRY(count) [count - 1] = five_tiles_##count,
FIVE_COUNTS(FIVE_DEFINE)
static five_function *const five_tiles_of[FIVE_TILES] = {FIVE_COUNTS(FIVE_ENTRY)};

/* Whether all tiles are inside, and lanes full. */
INLINE int five_is_whole(const fnn_winograd5_map *p) {
    return p->channels >= LANES && p->height == p->rows * FIVE_OUTPUTS && p->width == p->cols * FIVE_OUTPUTS;
}

/* The pixels of one tile, `rows` x `cols` of which are inside, from element `at` on. */
INLINE vec five_finish(const int whole, const fnn_winograd5_map *p, ptrdiff_t at, ptrdiff_t rows, ptrdiff_t cols, const real *half,
                       vec not_finite) {
    const ptrdiff_t channels = whole ? LANES : p->channels;
    const vec add = p->bias ? load_lanes((const real *)p->bias, channels) : vec_zero();
#pragma GCC unroll 2
    for (int j = 0; j < FIVE_OUTPUTS; j++) {
        vec m[PATCH], y[FIVE_OUTPUTS];
#pragma GCC unroll 6
        for (int i = 0; i < PATCH; i++) m[i] = vec_load(half + (i * FIVE_OUTPUTS + j) * LANES);
        five_output_low(m, y);
        five_output_high(m + 3, y);
#pragma GCC unroll 2
        for (int i = 0; i < FIVE_OUTPUTS; i++) {
            if (!whole && (i >= rows || j >= cols)) continue;
            const ptrdiff_t pixel = at + i * p->row + j * p->col;
            not_finite = vec_fma(y[i], vec_zero(), not_finite);
            if (p->bias) y[i] = vec_add(y[i], add);
            if (p->residual) y[i] = vec_add(y[i], load_lanes((const real *)p->residual + pixel, channels));
            if (p->activation == FNN_ACT_RELU) y[i] = relu_forward_formula(y[i], NULL);
            store_lanes((real *)p->data + pixel, y[i], channels);
        }
    }
    return not_finite;
}

/* One panel's, a row of `cols` tiles. */
INLINE void five_row(ptrdiff_t cols, ptrdiff_t depth, const real *v, const real *u, real *half) {
    for (ptrdiff_t first = 0, n, left = (cols + FIVE_TILES - 1) / FIVE_TILES; left > 0; left--, first += n) {
        n = (cols - first + left - 1) / left;
        five_tiles_of[n - 1](depth, v + first * depth, u, half + first * PATCH * FIVE_OUTPUTS * LANES);
    }
}

/* winograd5_products: half ([panel of channels of y][tile][row of points][2]) = [sum over channels of V . U]A at six points, of
 * rows x cols tiles; u: [panel][point][channel of x][lane]. */
static void winograd5_products_kernel(ptrdiff_t panels, ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t depth, const void *from,
                                      const void *u, ptrdiff_t u_panel, void *to, ptrdiff_t half_panel) {
    const ptrdiff_t pitch = (cols * depth + LANES - 1) / LANES * LANES;
    for (ptrdiff_t i = 0; i < panels; i += FIVE_PAIRS && i + 1 < panels ? 2 : 1)
        for (ptrdiff_t row = 0; row < rows; row++) {
            const real *v = (const real *)from + row * pitch, *w = (const real *)u + i * u_panel;
            real *half = (real *)to + i * half_panel + row * cols * PATCH * FIVE_OUTPUTS * LANES;
            if (FIVE_PAIRS && i + 1 < panels) pair_row(cols, depth, v, w, u_panel, half, half_panel);
            else five_row(cols, depth, v, w, half);
        }
}

/* Where tiles begin, one after another, and how far what exists of the map goes from there. */
#define FIVE_TILES_OF(p)                                                                                                \
    for (ptrdiff_t image = 0; image < (p)->images; image++)                                                             \
        for (ptrdiff_t row = 0, at_row = image * (p)->image; row < (p)->rows; row++, at_row += FIVE_OUTPUTS * (p)->row) \
            for (ptrdiff_t col = 0, at = at_row; col < (p)->cols; col++, at += FIVE_OUTPUTS * (p)->col)

INLINE vec five_output(const int whole, const fnn_winograd5_map *map, const real *half) {
    const fnn_winograd5_map copy = *map, *p = &copy; /* which no store can change */
    vec not_finite = vec_zero();
    FIVE_TILES_OF(p) {
        not_finite = five_finish(whole, p, at, p->height - row * FIVE_OUTPUTS, p->width - col * FIVE_OUTPUTS, half, not_finite);
        half += PATCH * FIVE_OUTPUTS * LANES;
    }
    return not_finite;
}

/* winograd5_output: y = activation(A' half + bias + residual); *bad becomes 1 if an element of the sum is not finite. */
static void winograd5_output_kernel(const fnn_winograd5_map *y, const void *half, int *bad) {
    const vec not_finite = five_is_whole(y) ? five_output(1, y, half) : five_output(0, y, half);
    if (mask_any(vec_unordered(not_finite, not_finite))) *bad = 1;
}

/* ---- the weights' gradient ---- */

/* A dY of the tiles' two columns, one row of points. */
INLINE void five_gradient_down(const int point, const int whole, const fnn_winograd5_map *map, real *down) {
    const fnn_winograd5_map copy = *map, *p = &copy;
    const ptrdiff_t channels = whole ? LANES : p->channels;
    FIVE_TILES_OF(p)
#pragma GCC unroll 2
        for (int j = 0; j < FIVE_OUTPUTS; j++, down += LANES) {
            const real *from = (const real *)p->data + at + j * p->col;
            const int inside = whole || col * FIVE_OUTPUTS + j < p->width, below = whole || row * FIVE_OUTPUTS + 1 < p->height;
            vec m[PATCH];
            five_output_gradient(inside ? load_lanes(from, channels) : vec_zero(),
                                 inside && below ? load_lanes(from + p->row, channels) : vec_zero(), m);
            vec_store(down, m[point]);
        }
}

typedef void five_down_function(const fnn_winograd5_map *p, real *down);

#define FIVE_DOWNS(X, whole) X(whole, 0) X(whole, 1) X(whole, 2) X(whole, 3) X(whole, 4) X(whole, 5)
#define FIVE_DOWN_DEFINE(whole, point)                                                                                  \
    static void five_gradient_down_##whole##_##point(const fnn_winograd5_map *p, real *down) {                          \
        five_gradient_down(point, whole, p, down);                                                                      \
    }
#define FIVE_DOWN_ENTRY(whole, point) five_gradient_down_##whole##_##point,
FIVE_DOWNS(FIVE_DOWN_DEFINE, 0)
FIVE_DOWNS(FIVE_DOWN_DEFINE, 1)
static five_down_function *const five_gradient_downs[2][PATCH] = {{FIVE_DOWNS(FIVE_DOWN_ENTRY, 0)},
                                                                  {FIVE_DOWNS(FIVE_DOWN_ENTRY, 1)}};

/* Three points of neighbouring channels of x: sums of A dY A', from A dY in `down`, times v, whose numbers are depth apart, and at
 * the end of a row of `cols` of them `gap` more. */
INLINE void five_sums(const int high, const int channels, ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t depth, ptrdiff_t gap,
                      const real *down, const real *v, ptrdiff_t plane, vec sum[FIVE_POINTS][FIVE_CHANNELS]) {
    for (ptrdiff_t row = 0; row < rows; row++, v += gap)
        for (ptrdiff_t t = 0; t < cols; t++, down += FIVE_OUTPUTS * LANES, v += depth) {
            vec m[FIVE_POINTS];
            five_output_points(high, vec_load(down), vec_load(down + LANES), m);
#pragma GCC unroll 3
            for (int q = 0; q < FIVE_POINTS; q++)
#pragma GCC unroll 8
                for (int c = 0; c < channels; c++) vec_accumulate(&sum[q][c], vec_set1(v[q * plane + c]), m[q]);
        }
}

/* du ([point][channel]) += those over tiles. */
INLINE void five_gradient_block(const int high, const int channels, ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t depth,
                                const real *down, const real *v, real *du) {
    vec sum[FIVE_POINTS][FIVE_CHANNELS];
#pragma GCC unroll 3
    for (int q = 0; q < FIVE_POINTS; q++)
#pragma GCC unroll 8
        for (int c = 0; c < channels; c++) sum[q][c] = vec_load(du + (q * depth + c) * LANES);
    five_sums(high, channels, rows, cols, depth, (LANES - cols * depth % LANES) % LANES, down, v, PLANE5, sum);
#pragma GCC unroll 3
    for (int q = 0; q < FIVE_POINTS; q++)
#pragma GCC unroll 8
        for (int c = 0; c < channels; c++) vec_store(du + (q * depth + c) * LANES, sum[q][c]);
}

typedef void five_gradient_function(ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t depth, const real *down, const real *v, real *du);

#define FIVE_GRADIENT_DEFINE(count)                                                                                     \
    static void five_gradient_low_##count(ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t depth, const real *down, const real *v, \
                                          real *du) {                                                                   \
        five_gradient_block(0, count, rows, cols, depth, down, v, du);                                                  \
    }                                                                                                                   \
    static void five_gradient_high_##count(ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t depth, const real *down, const real *v, \
                                           real *du) {                                                                  \
        five_gradient_block(1, count, rows, cols, depth, down, v, du);                                                  \
    }
#define FIVE_GRADIENT_ENTRY(count) [count - 1] = {five_gradient_low_##count, five_gradient_high_##count},
FIVE_COUNTS(FIVE_GRADIENT_DEFINE)
static five_gradient_function *const five_gradient_of[FIVE_CHANNELS][2] = {FIVE_COUNTS(FIVE_GRADIENT_ENTRY)};

/* One panel's. */
INLINE void five_gradient(ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t depth, const real *down, const real *v, real *du) {
    for (int high = 0; high < 2; high++)
        for (ptrdiff_t c = 0, n, left = (depth + FIVE_CHANNELS - 1) / FIVE_CHANNELS; left > 0; left--, c += n) {
            n = (depth - c + left - 1) / left;
            five_gradient_of[n - 1][high](rows, cols, depth, down, v + high * FIVE_POINTS * PLANE5 + c,
                                          du + (high * FIVE_POINTS * depth + c) * LANES);
        }
}

/* winograd5_gradient: du ([panel of channels of dy][point][channel of x][lane]) += the sum over tiles of V . (A dY A') at the six
 * points of row `point`; room: 2 vectors for each tile of two panels. */
static void winograd5_gradient_kernel(int point, const fnn_winograd5_map *dy, ptrdiff_t depth, const void *v, void *room, void *to,
                                      ptrdiff_t du_panel) {
    const ptrdiff_t rows = dy->images * dy->rows, cols = dy->cols, down_panel = rows * cols * FIVE_OUTPUTS * LANES;
    real *du = to;
    fnn_winograd5_map panel = *dy;
    for (ptrdiff_t left = dy->channels, together; left > 0; left -= together * LANES, du += together * du_panel) {
        real *down = room;
        together = FIVE_PAIRS && left > LANES ? 2 : 1;
        for (ptrdiff_t i = 0; i < together; i++, down += down_panel, panel.data = (real *)panel.data + LANES) {
            panel.channels = left - i * LANES < LANES ? left - i * LANES : LANES;
            five_gradient_downs[five_is_whole(&panel)][point](&panel, down);
        }
        if (together == 2) pair_gradient(rows, cols, depth, room, down_panel, v, du, du_panel);
        else five_gradient(rows, cols, depth, room, v, du);
    }
}

/* ---- the input's gradient ---- */

/* A dY of a tile's two columns, from two rows of pixels: [row of points][channel][column]. */
INLINE void five_turned_down(ptrdiff_t channels, const real *dy, ptrdiff_t dy_row, real *down) {
    for (ptrdiff_t k = 0; k < channels; k++, dy += LANES)
#pragma GCC unroll 2
        for (int j = 0; j < FIVE_OUTPUTS; j++) {
            const real *from = dy + j * channels * LANES;
            vec m[PATCH];
            five_output_gradient(vec_load(from), vec_load(from + dy_row), m);
#pragma GCC unroll 6
            for (int i = 0; i < PATCH; i++) vec_store(down + ((i * channels + k) * FIVE_OUTPUTS + j) * LANES, m[i]);
        }
}

/* n ([point][channel]) = the sums of five_sums over channels of dy, of which u holds the weights. */
INLINE void five_turned_block(const int high, const int count, ptrdiff_t channels, ptrdiff_t depth, const real *down, const real *u,
                              ptrdiff_t u_plane, real *n) {
    vec sum[FIVE_POINTS][FIVE_CHANNELS];
#pragma GCC unroll 3
    for (int q = 0; q < FIVE_POINTS; q++)
#pragma GCC unroll 8
        for (int c = 0; c < count; c++) sum[q][c] = vec_zero();
    five_sums(high, count, 1, channels, depth, 0, down, u, u_plane, sum);
#pragma GCC unroll 3
    for (int q = 0; q < FIVE_POINTS; q++)
#pragma GCC unroll 8
        for (int c = 0; c < count; c++) vec_store(n + (q * depth + c) * LANES, sum[q][c]);
}

typedef void five_turned_function(ptrdiff_t channels, ptrdiff_t depth, const real *down, const real *u, ptrdiff_t u_plane, real *n);

#define FIVE_TURNED_DEFINE(count)                                                                                       \
    static void five_turned_low_##count(ptrdiff_t channels, ptrdiff_t depth, const real *down, const real *u, ptrdiff_t u_plane, \
                                        real *n) {                                                                      \
        five_turned_block(0, count, channels, depth, down, u, u_plane, n);                                              \
    }                                                                                                                   \
    static void five_turned_high_##count(ptrdiff_t channels, ptrdiff_t depth, const real *down, const real *u, ptrdiff_t u_plane, \
                                         real *n) {                                                                     \
        five_turned_block(1, count, channels, depth, down, u, u_plane, n);                                              \
    }
#define FIVE_TURNED_ENTRY(count) [count - 1] = {five_turned_low_##count, five_turned_high_##count},
FIVE_COUNTS(FIVE_TURNED_DEFINE)
static five_turned_function *const five_turned_of[FIVE_CHANNELS][2] = {FIVE_COUNTS(FIVE_TURNED_ENTRY)};

/* One row of points: what a tile adds to the columns of its windows; the first `old` of them have sums already. */
INLINE void five_along(const int old, ptrdiff_t depth, const real *n, real *to) {
    for (ptrdiff_t c = 0; c < depth; c++, to += LANES) {
        vec points[PATCH], d[PATCH];
#pragma GCC unroll 6
        for (int q = 0; q < PATCH; q++) points[q] = vec_load(n + (q * depth + c) * LANES);
        five_input_gradient(points, d);
#pragma GCC unroll 6
        for (int q = 0; q < PATCH; q++) {
            real *at = to + q * depth * LANES;
            vec_store(at, q < old ? vec_add(vec_load(at), d[q]) : d[q]);
        }
    }
}

/* winograd5_input_gradient: along ([point][column][channel of x]) = what a row of `cols` tiles adds to 2 cols + 4 columns, rows of
 * points along_plane apart: [U . (A dY A')]B'; lanes are images. dy: two rows of pixels, [column][channel]; u: [point][channel of
 * dy][channel of x]; room: 12 vectors for each channel of dy, 6 for each of x. */
static void winograd5_input_gradient_kernel(ptrdiff_t cols, ptrdiff_t channels, ptrdiff_t depth, const void *dy, ptrdiff_t dy_row,
                                            const void *u, ptrdiff_t u_plane, void *room, void *along, ptrdiff_t along_plane) {
    real *down = room, *n = down + PATCH * FIVE_OUTPUTS * channels * LANES;
    for (ptrdiff_t col = 0; col < cols; col++) {
        five_turned_down(channels, (const real *)dy + col * FIVE_OUTPUTS * channels * LANES, dy_row, down);
        for (int row = 0; row < PATCH; row++) {
            for (int point = 0; point < PATCH; point += FIVE_POINTS)
                for (ptrdiff_t c = 0, count, left = (depth + FIVE_CHANNELS - 1) / FIVE_CHANNELS; left > 0; left--, c += count) {
                    count = (depth - c + left - 1) / left;
                    five_turned_of[count - 1][point > 0](channels, depth, down + row * channels * FIVE_OUTPUTS * LANES,
                                                         (const real *)u + (row * PATCH + point) * u_plane + c, u_plane,
                                                         n + (point * depth + c) * LANES);
                }
            real *to = (real *)along + row * along_plane + col * FIVE_OUTPUTS * depth * LANES;
            if (col) five_along(PATCH - FIVE_OUTPUTS, depth, n, to);
            else five_along(0, depth, n, to);
        }
    }
}

INLINE vec five_windows(const int old, const int done, ptrdiff_t n, const real *along, ptrdiff_t along_plane, void *const *dx) {
    vec not_finite = vec_zero();
    for (ptrdiff_t j = 0; j < n * LANES; j += LANES) {
        vec points[PATCH], d[PATCH];
#pragma GCC unroll 6
        for (int i = 0; i < PATCH; i++) points[i] = vec_load(along + i * along_plane + j);
        five_input_gradient(points, d);
#pragma GCC unroll 6
        for (int i = 0; i < PATCH; i++) {
            if (i < old) d[i] = vec_add(vec_load((const real *)dx[i] + j), d[i]);
            vec_store((real *)dx[i] + j, d[i]);
            if (i < done) not_finite = vec_fma(d[i], vec_zero(), not_finite);
        }
    }
    return not_finite;
}

/* winograd5_windows: dx[i] += B along, for each of 6 rows of n vectors; first: all rows begin here, else the last two; last: all
 * end here, else the first two. *bad becomes 1 if an element of a row that ends is not finite. */
static void winograd5_windows_kernel(ptrdiff_t n, const void *along, ptrdiff_t along_plane, void *const *dx, int first, int last,
                                     int *bad) {
    const int old = first ? 0 : PATCH - FIVE_OUTPUTS, done = last ? PATCH : FIVE_OUTPUTS;
    const vec not_finite = old == 0 || done == PATCH ? five_windows(old, done, n, along, along_plane, dx)
                                                     : five_windows(PATCH - FIVE_OUTPUTS, FIVE_OUTPUTS, n, along, along_plane, dx);
    if (mask_any(vec_unordered(not_finite, not_finite))) *bad = 1;
}

/* ---- weights ---- */

/* winograd5_weight: u = GgG' of n elements: 36 planes from 25, u_plane and g_plane elements apart. */
static void winograd5_weight_kernel(ptrdiff_t n, const void *from, ptrdiff_t g_plane, void *to, ptrdiff_t u_plane) {
    for (ptrdiff_t j = 0; j < n; j += LANES) {
        const real *g = (const real *)from + j;
        real *u = (real *)to + j;
        vec half[FIVE_TAPS][PATCH];
        for (int i = 0; i < FIVE_TAPS; i++) {
            vec row[FIVE_TAPS];
            for (int q = 0; q < FIVE_TAPS; q++) row[q] = load_lanes(g + (i * FIVE_TAPS + q) * g_plane, n - j);
            five_weight(row, half[i]);
        }
        for (int q = 0; q < PATCH; q++) {
            vec column[FIVE_TAPS], all[PATCH];
            for (int i = 0; i < FIVE_TAPS; i++) column[i] = half[i][q];
            five_weight(column, all);
            for (int i = 0; i < PATCH; i++) store_lanes(u + (i * PATCH + q) * u_plane, all[i], n - j);
        }
    }
}

/* winograd5_weight_gradient: dg = G' dU G of n elements: 25 planes from 36; *bad becomes 1 if one is not finite. */
static void winograd5_weight_gradient_kernel(ptrdiff_t n, const void *from, ptrdiff_t u_plane, void *to, ptrdiff_t g_plane,
                                             int *bad) {
    vec not_finite = vec_zero();
    for (ptrdiff_t j = 0; j < n; j += LANES) {
        const real *u = (const real *)from + j;
        real *g = (real *)to + j;
        vec half[FIVE_TAPS][PATCH];
        for (int q = 0; q < PATCH; q++) {
            vec column[PATCH], all[FIVE_TAPS];
            for (int i = 0; i < PATCH; i++) column[i] = load_lanes(u + (i * PATCH + q) * u_plane, n - j);
            five_weight_gradient(column, all);
            for (int i = 0; i < FIVE_TAPS; i++) half[i][q] = all[i];
        }
        for (int i = 0; i < FIVE_TAPS; i++) {
            vec row[FIVE_TAPS];
            five_weight_gradient(half[i], row);
            for (int q = 0; q < FIVE_TAPS; q++) {
                not_finite = vec_fma(row[q], vec_zero(), not_finite);
                store_lanes(g + (i * FIVE_TAPS + q) * g_plane, row[q], n - j);
            }
        }
    }
    if (mask_any(vec_unordered(not_finite, not_finite))) *bad = 1;
}

#undef POINT_A
#undef POINT_B
#undef POINT_A2
#undef POINT_B2
#undef WEIGHT_0
#undef WEIGHT_A
#undef WEIGHT_B

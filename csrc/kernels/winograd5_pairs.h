/* winograd5_pairs.h: F(2x2, 5x5) where registers are few: two panels of channels of y at a time, so that each number of V that is
 * loaded serves two vectors. 12 accumulators take 10 loads or less, where three points of three tiles took 12 for 9 (forward 1.2,
 * weights' gradient 1.2 times as fast: LeNet-5's second layer, one core of a Zen 3). Part of winograd5.h. */

enum {
    PAIR_TILES = 3,   /* of two points */
    PAIR_CHANNELS = 6 /* of one point, in the weights' gradient */
};

/* Points p and q of neighbouring tiles: [point][tile][panel]. */
INLINE void pair_products(const int tiles, const int p, const int q, ptrdiff_t depth, const real *v, const real *u, ptrdiff_t u_panel,
                          vec m[2][PAIR_TILES][2]) {
#pragma GCC unroll 6
    for (int t = 0; t < 2 * tiles; t++) m[t % 2][t / 2][0] = m[t % 2][t / 2][1] = vec_zero();
    for (ptrdiff_t c = 0; c < depth; c++)
#pragma GCC unroll 2
        for (int i = 0; i < 2; i++) {
            const int point = i ? q : p;
            const real *w = u + (point * depth + c) * LANES;
            const vec first = vec_load(w), second = vec_load(w + u_panel);
#pragma GCC unroll 3
            for (int t = 0; t < tiles; t++) {
                const vec one = vec_set1(v[t * depth + c + point * PLANE5]);
                vec_accumulate(&m[i][t][0], one, first);
                vec_accumulate(&m[i][t][1], one, second);
            }
        }
}

/* half: A'M of a row of points, as five_tiles makes it, of two panels; two points at a time, as A' adds them up. */
INLINE void pair_tiles(const int tiles, ptrdiff_t depth, const real *v, const real *u, ptrdiff_t u_panel, real *half,
                       ptrdiff_t half_panel) {
    vec m[2][PAIR_TILES][2];
    pair_products(tiles, 1, 2, depth, v, u, u_panel, m);
#pragma GCC unroll 6
    for (int t = 0; t < 2 * tiles; t++) {
        real *y = half + t / 2 * PATCH * FIVE_OUTPUTS * LANES + t % 2 * half_panel;
        vec_store(y, vec_add(m[0][t / 2][t % 2], m[1][t / 2][t % 2]));
        vec_store(y + LANES, vec_mul(constant(POINT_A), vec_sub(m[0][t / 2][t % 2], m[1][t / 2][t % 2])));
    }
    pair_products(tiles, 0, 5, depth, v, u, u_panel, m);
#pragma GCC unroll 6
    for (int t = 0; t < 2 * tiles; t++) {
        real *y = half + t / 2 * PATCH * FIVE_OUTPUTS * LANES + t % 2 * half_panel;
        vec_store(y, vec_add(vec_load(y), m[0][t / 2][t % 2]));
        vec_store(y + LANES, vec_add(vec_load(y + LANES), m[1][t / 2][t % 2]));
    }
    pair_products(tiles, 3, 4, depth, v, u, u_panel, m);
#pragma GCC unroll 6
    for (int t = 0; t < 2 * tiles; t++) {
        real *y = half + t / 2 * PATCH * FIVE_OUTPUTS * LANES + t % 2 * half_panel;
        const vec plus = vec_add(m[0][t / 2][t % 2], m[1][t / 2][t % 2]), minus = vec_sub(m[0][t / 2][t % 2], m[1][t / 2][t % 2]);
        vec_store(y, vec_add(vec_load(y), plus));
        vec_store(y + LANES, vec_fma(constant(POINT_B), minus, vec_load(y + LANES)));
    }
}

/* A row of `cols` tiles. */
INLINE void pair_row(ptrdiff_t cols, ptrdiff_t depth, const real *v, const real *u, ptrdiff_t u_panel, real *half, ptrdiff_t half_panel) {
    for (ptrdiff_t first = 0, n; first < cols; first += n) {
        const ptrdiff_t rest = cols - first; /* no division here: it would take as long as a tile */
        n = rest == PAIR_TILES + 1 ? 2 : rest < PAIR_TILES ? rest : PAIR_TILES;
        const real *from = v + first * depth;
        real *to = half + first * PATCH * FIVE_OUTPUTS * LANES;
        if (n == 3) pair_tiles(3, depth, from, u, u_panel, to, half_panel);
        else if (n == 2) pair_tiles(2, depth, from, u, u_panel, to, half_panel);
        else pair_tiles(1, depth, from, u, u_panel, to, half_panel);
    }
}

/* One point of A dY A' from A dY: both columns, or one of them. */
INLINE vec pair_point(const int point, const real *down) {
    const vec weight = constant(point > 2 ? POINT_B : POINT_A);
    if (point == 0) return vec_load(down);
    if (point == 5) return vec_load(down + LANES);
    return point % 2 ? vec_fma(weight, vec_load(down + LANES), vec_load(down)) : vec_fnma(weight, vec_load(down + LANES), vec_load(down));
}

/* du ([panel][channel]) += the sum over tiles of one point of V . (A dY A'), of so many channels of x; v and gap: see five_sums. */
INLINE void pair_sums(const int point, const int channels, ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t depth, const real *down,
                      ptrdiff_t down_panel, const real *v, real *du, ptrdiff_t du_panel) {
    const ptrdiff_t gap = (LANES - cols * depth % LANES) % LANES;
    vec sum[2][PAIR_CHANNELS];
#pragma GCC unroll 6
    for (int c = 0; c < channels; c++) sum[0][c] = vec_load(du + c * LANES), sum[1][c] = vec_load(du + du_panel + c * LANES);
    for (ptrdiff_t row = 0; row < rows; row++, v += gap)
        for (ptrdiff_t t = 0; t < cols; t++, down += FIVE_OUTPUTS * LANES, v += depth) {
            const vec first = pair_point(point, down), second = pair_point(point, down + down_panel);
#pragma GCC unroll 6
            for (int c = 0; c < channels; c++) {
                const vec one = vec_set1(v[c]);
                vec_accumulate(&sum[0][c], one, first);
                vec_accumulate(&sum[1][c], one, second);
            }
        }
#pragma GCC unroll 6
    for (int c = 0; c < channels; c++) vec_store(du + c * LANES, sum[0][c]), vec_store(du + du_panel + c * LANES, sum[1][c]);
}

typedef void pair_function(ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t depth, const real *down, ptrdiff_t down_panel, const real *v,
                           real *du, ptrdiff_t du_panel);

#define PAIR_POINTS(X, channels)                                                                                        \
    X(channels, 0) X(channels, 1) X(channels, 2) X(channels, 3) X(channels, 4) X(channels, 5)
#define PAIR_ALL(X)                                                                                                     \
    PAIR_POINTS(X, 1) PAIR_POINTS(X, 2) PAIR_POINTS(X, 3) PAIR_POINTS(X, 4) PAIR_POINTS(X, 5) PAIR_POINTS(X, 6)
#define PAIR_DEFINE(channels, point)                                                                                    \
    static void pair_sums_##channels##_##point(ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t depth, const real *down,       \
                                               ptrdiff_t down_panel, const real *v, real *du, ptrdiff_t du_panel) {     \
        pair_sums(point, channels, rows, cols, depth, down, down_panel, v, du, du_panel);                               \
    }
#define PAIR_ENTRY(channels, point) [channels - 1][point] = pair_sums_##channels##_##point,
PAIR_ALL(PAIR_DEFINE)
static pair_function *const pair_sums_of[PAIR_CHANNELS][PATCH] = {PAIR_ALL(PAIR_ENTRY)};

/* All points and channels of two panels. */
INLINE void pair_gradient(ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t depth, const real *down, ptrdiff_t down_panel, const real *v,
                          real *du, ptrdiff_t du_panel) {
    for (int point = 0; point < PATCH; point++)
        for (ptrdiff_t c = 0, n; c < depth; c += n) {
            const ptrdiff_t rest = depth - c;
            n = rest <= PAIR_CHANNELS ? rest : rest < 2 * PAIR_CHANNELS ? (rest + 1) / 2 : PAIR_CHANNELS;
            pair_sums_of[n - 1][point](rows, cols, depth, down, down_panel, v + point * PLANE5 + c, du + (point * depth + c) * LANES,
                                       du_panel);
        }
}

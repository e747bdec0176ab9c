/* grid_sample.h: pixels of an image at places that a grid names, each as a weighted sum of up to 16 pixels. Images are
 * [pixels][channels]; a grid's places are n columns, then n rows, -1 and 1 being the image's ends.
 *
 * Nearest, bilinear and bicubic differ in which indices and weights each axis has, and in nothing after that. Axes are worked out
 * for GRID_BLOCK places at a time, in vectors: place by place that took longer than the pixels of an image of three channels. */

enum { GRID_BLOCK = 64 };

/* One axis: up to 4 indices (-1: outside) for each place, their weights, and those weights' slopes in the grid's number. */
typedef struct {
    real index[4][GRID_BLOCK], weight[4][GRID_BLOCK], slope[4][GRID_BLOCK];
} grid_axis;

/* Pairs of indices of both axes, row by row: where their pixels begin, in elements, and their weights; where is_plain: all lie in
 * the image, and none in its last row, so that whole vectors may be read. */
typedef struct {
    int32_t pixel[16][GRID_BLOCK];
    real weight[16][GRID_BLOCK];
    uint8_t is_plain[GRID_BLOCK];
} grid_pairs;

/* Numbers in pixels along one axis, with their derivatives in the grid's numbers. */
typedef struct {
    vec at, slope;
} grid_position;

INLINE vec grid_floor(vec a) {
    const vec whole = vec_round(a);
    return vec_sub(whole, vec_select(vec_lt(a, whole), vec_set1(1), vec_zero()));
}

/* NaN counts as -1; 1e20 is as far away as infinity. */
INLINE grid_position grid_place(const fnn_grid *g, vec coordinate, ptrdiff_t size) {
    const real n = (real)size;
    const vec one = vec_set1(1), half = vec_set1((real)0.5);
    coordinate = vec_select(vec_unordered(coordinate, coordinate), vec_set1(-1), coordinate);
    coordinate = vec_add(vec_max(vec_set1((real)-1e20), vec_min(vec_set1((real)1e20), coordinate)), one);
    if (g->align_corners) return (grid_position){vec_mul(vec_mul(coordinate, half), vec_set1(n - 1)), vec_set1((n - 1) / 2)};
    return (grid_position){vec_mul(vec_sub(vec_mul(coordinate, vec_set1(n)), one), half), vec_set1(n / 2)};
}

/* Mirrored at the middles of the outermost pixels, or at their outer edges, as often as it takes. */
INLINE grid_position grid_reflect(const fnn_grid *g, grid_position p, ptrdiff_t size) {
    const real last = (real)(g->align_corners ? size - 1 : size);
    const vec low = vec_set1(g->align_corners ? 0 : (real)-0.5), span = vec_set1(last), half = vec_set1((real)0.5);
    if (last == 0) return (grid_position){vec_zero(), vec_zero()};
    const vec from = vec_sub(p.at, low), away = vec_abs(from), turns = grid_floor(vec_div(away, span));
    const vec rest = vec_fnma(turns, span, away), pairs = grid_floor(vec_mul(turns, half));
    const mask is_even = vec_eq(vec_add(pairs, pairs), turns);
    vec slope = vec_select(vec_lt(from, vec_zero()), vec_neg(p.slope), p.slope);
    slope = vec_select(is_even, slope, vec_neg(slope));
    return (grid_position){vec_add(vec_select(is_even, rest, vec_sub(span, rest)), low), slope};
}

/* Into 0 .. size - 1, where the image is continued. */
INLINE grid_position grid_inside(const fnn_grid *g, grid_position p, ptrdiff_t size) {
    if (g->padding == FNN_GRID_ZEROS) return p;
    if (g->padding == FNN_GRID_REFLECTION) p = grid_reflect(g, p, size);
    const vec last = vec_set1((real)(size - 1));
    const mask moves = mask_not(mask_and(vec_lt(vec_zero(), p.at), vec_lt(p.at, last)));
    return (grid_position){vec_max(vec_zero(), vec_min(last, p.at)), vec_select(moves, vec_zero(), p.slope)};
}

/* Whole numbers as they are, -1 outside of the image. */
INLINE vec grid_index(vec at, ptrdiff_t size) {
    const mask is_inside = mask_and(vec_le(vec_zero(), at), vec_lt(at, vec_set1((real)size)));
    return vec_select(is_inside, at, vec_set1(-1));
}

/* a x^3 + b x^2 + c x + d, and its derivative */
INLINE vec grid_cubic(vec x, real a, real b, real c, real d) {
    return vec_fma(vec_fma(vec_fma(vec_set1(a), x, vec_set1(b)), x, vec_set1(c)), x, vec_set1(d));
}

/* Keys's kernel with a = -3/4 at the distances 1 + t, t, 1 - t and 2 - t of the four neighbours. These, and not the place, are
 * brought inside. */
INLINE void grid_bicubic(const fnn_grid *g, grid_position p, ptrdiff_t size, ptrdiff_t i, ptrdiff_t lanes, grid_axis *axis) {
    const real a = (real)-0.75;
    const vec first = grid_floor(p.at), t = vec_sub(p.at, first), one = vec_set1(1);
    for (int k = 0; k < 4; k++) {
        const grid_position neighbour = {vec_add(first, vec_set1((real)(k - 1))), one};
        const vec x = k == 0 ? vec_add(one, t) : k == 1 ? t : k == 2 ? vec_sub(one, t) : vec_sub(vec_set1(2), t);
        const int is_far = k == 0 || k == 3;
        const vec weight = is_far ? grid_cubic(x, a, -5 * a, 8 * a, -4 * a) : grid_cubic(x, a + 2, -(a + 3), 0, 1);
        const vec slope = is_far ? grid_cubic(x, 0, 3 * a, -10 * a, 8 * a) : grid_cubic(x, 0, 3 * (a + 2), -2 * (a + 3), 0);
        store_lanes(axis->index[k] + i, grid_index(grid_inside(g, neighbour, size).at, size), lanes);
        store_lanes(axis->weight[k] + i, weight, lanes);
        store_lanes(axis->slope[k] + i, vec_mul(k < 2 ? p.slope : vec_neg(p.slope), slope), lanes);
    }
}

/* n <= GRID_BLOCK numbers of one axis */
INLINE void grid_axis_of(const fnn_grid *g, ptrdiff_t n, const real *coordinate, ptrdiff_t size, grid_axis *axis) {
    EACH_LANES(
        grid_position p = grid_place(g, load_lanes(coordinate + i, lanes), size);
        if (g->mode == FNN_GRID_BICUBIC) {
            grid_bicubic(g, p, size, i, lanes, axis);
        } else {
            p = grid_inside(g, p, size);
            const vec one = vec_set1(1), first = g->mode == FNN_GRID_NEAREST ? vec_round(p.at) : grid_floor(p.at);
            const vec t = g->mode == FNN_GRID_NEAREST ? vec_zero() : vec_sub(p.at, first);
            store_lanes(axis->index[0] + i, grid_index(first, size), lanes);
            store_lanes(axis->weight[0] + i, vec_sub(one, t), lanes);
            store_lanes(axis->slope[0] + i, g->mode == FNN_GRID_NEAREST ? vec_zero() : vec_neg(p.slope), lanes);
            store_lanes(axis->index[1] + i, grid_index(vec_add(first, one), size), lanes);
            store_lanes(axis->weight[1] + i, t, lanes);
            store_lanes(axis->slope[1] + i, p.slope, lanes);
        });
}

/* `reach` indices of either axis in pairs, worked out in vectors like the axes. */
INLINE void grid_pairs_of(const fnn_grid *g, ptrdiff_t n, int reach, const grid_axis *x, const grid_axis *y, grid_pairs *pairs) {
    const vec step = vec_set1((real)g->channels), row_step = vec_set1((real)(g->w * g->channels));
    const vec last = vec_set1((real)(g->w - 1)), last_row = vec_set1((real)(g->h - 2));
    EACH_LANES(mask is_plain = mask_first(LANES);
               for (int k = 0; k < reach; k++) {
                   const vec column = load_lanes(x->index[k] + i, lanes), row = load_lanes(y->index[k] + i, lanes);
                   is_plain = mask_and(is_plain, mask_and(vec_le(vec_zero(), column), vec_le(column, last)));
                   is_plain = mask_and(is_plain, mask_and(vec_le(vec_zero(), row), vec_le(row, last_row)));
               }
               mask_store_u8(pairs->is_plain + i, is_plain, lanes);
               for (int k = 0; k < reach * reach; k++) {
                   const vec down = vec_mul(load_lanes(y->index[k / reach] + i, lanes), row_step);
                   const vec pixel = vec_fma(load_lanes(x->index[k % reach] + i, lanes), step, down);
                   const vec weight = vec_mul(load_lanes(x->weight[k % reach] + i, lanes),
                                              load_lanes(y->weight[k / reach] + i, lanes));
                   ivec_store_i32(pairs->pixel[k] + i, vec_to_ivec(pixel), lanes);
                   store_lanes(pairs->weight[k] + i, weight, lanes);
               });
}

typedef struct {
    int count;
    ptrdiff_t pixel[16]; /* in elements */
    real weight[16];
    int x[16], y[16];    /* which of either axis */
} grid_taps;

/* What place p of a block takes, of `reach` neighbours along each axis. */
INLINE void grid_taps_of(const fnn_grid *g, const grid_axis *x, const grid_axis *y, ptrdiff_t p, int reach, grid_taps *taps) {
    ptrdiff_t column[4];
    int k = 0;
    for (int i = 0; i < reach; i++) column[i] = (ptrdiff_t)x->index[i][p];
    for (int j = 0; j < reach; j++) {
        const ptrdiff_t row = (ptrdiff_t)y->index[j][p];
        for (int i = 0; i < reach; i++) {
            taps->pixel[k] = (row * g->w + column[i]) * g->channels;
            taps->weight[k] = x->weight[i][p] * y->weight[j][p];
            taps->x[k] = i, taps->y[k] = j;
            k += (row | column[i]) >= 0;
        }
    }
    taps->count = k;
}

/* Whether offsets in an image are exact as reals, and a row has room for a vector behind a pixel. */
INLINE int grid_may_be_plain(const fnn_grid *g) {
    return g->h * g->w * g->channels < 1 << 24 && g->w * g->channels >= LANES;
}

/* Runs the statements for n places, p within its block and `at` of all, with `taps` where is_plain is 0; `reach` should be a
 * constant. offsets: whether places may be plain at all. */
#define EACH_PLACE(offsets, ...)                                                                                        \
    do {                                                                                                                \
        grid_axis x_axis, y_axis;                                                                                       \
        grid_pairs pairs;                                                                                               \
        grid_taps taps = {.count = 0};                                                                                  \
        const int may_be_plain = offsets;                                                                               \
        for (ptrdiff_t from = 0; from < n; from += GRID_BLOCK) {                                                        \
            const ptrdiff_t count = n - from < GRID_BLOCK ? n - from : GRID_BLOCK;                                      \
            grid_axis_of(g, count, (const real *)places + from, g->w, &x_axis);                                         \
            grid_axis_of(g, count, (const real *)places + n + from, g->h, &y_axis);                                     \
            if (may_be_plain) grid_pairs_of(g, count, reach, &x_axis, &y_axis, &pairs);                                 \
            for (ptrdiff_t p = 0; p < count; p++) {                                                                     \
                const ptrdiff_t at = from + p;                                                                          \
                const int is_plain = may_be_plain && pairs.is_plain[p];                                                 \
                if (!is_plain) grid_taps_of(g, &x_axis, &y_axis, p, reach, &taps);                                      \
                __VA_ARGS__                                                                                             \
            }                                                                                                           \
        }                                                                                                               \
    } while (0)

/* Runs the statements for each tap of place p, whose pixel begins `pixel` elements into the image: the ones in the image, in
 * order. */
#define EACH_TAP(...)                                                                                                   \
    do {                                                                                                                \
        if (is_plain) {                                                                                                 \
            for (int k = 0; k < reach * reach; k++) {                                                                   \
                const ptrdiff_t pixel = pairs.pixel[k][p];                                                              \
                const real weight = pairs.weight[k][p];                                                                 \
                __VA_ARGS__                                                                                             \
            }                                                                                                           \
        } else {                                                                                                        \
            for (int k = 0; k < taps.count; k++) {                                                                      \
                const ptrdiff_t pixel = taps.pixel[k];                                                                  \
                const real weight = taps.weight[k];                                                                     \
                __VA_ARGS__                                                                                             \
            }                                                                                                           \
        }                                                                                                               \
    } while (0)

/* y: (n, channels); places: (2, n); x: (h w, channels). What a vector holds behind its place's channels is written too, while
 * places follow that write theirs: stores under a mask are slow. */
INLINE void grid_sample_places(const fnn_grid *g, int reach, ptrdiff_t n, const void *places, const void *x_, void *y_) {
    const real *x = x_;
    real *const end = (real *)y_ + n * g->channels;
    EACH_PLACE(grid_may_be_plain(g), real *y = (real *)y_ + at * g->channels;
               for (ptrdiff_t c = 0, left; (left = g->channels - c) > 0; c += LANES) {
                   vec sum = vec_zero();
                   EACH_TAP(sum = vec_fma(vec_set1(weight), is_plain ? vec_load(x + pixel + c) : load_lanes(x + pixel + c, left),
                                          sum););
                   if (end - (y + c) >= LANES) vec_store(y + c, sum);
                   else vec_store_n(y + c, sum, left);
               });
}

/* dx += what n places took, in order, channels c .. c + width - 1; dx: (h w, channels); dy: (n, channels) */
INLINE void grid_sample_input_places(const fnn_grid *g, int reach, ptrdiff_t n, const void *places, ptrdiff_t c, ptrdiff_t width,
                                     const void *dy_, void *dx_) {
    real *dx = (real *)dx_ + c;
    EACH_PLACE(grid_may_be_plain(g), const real *dy = (const real *)dy_ + at * g->channels + c;
               EACH_TAP(real *to = dx + pixel;
                        if (width < LANES) { /* few channels: one by one is faster than under a mask, and has the same bits */
                            for (ptrdiff_t e = 0; e < width; e++) to[e] += weight * dy[e];
                            continue;
                        }
                        const vec by = vec_set1(weight);
                        for (ptrdiff_t e = 0, left; (left = width - e) > 0; e += LANES)
                            store_lanes(to + e, vec_add(load_lanes(to + e, left), vec_mul(by, load_lanes(dy + e, left))), left);););
}

/* dplaces: (2, n); x: (h w, channels); dy: (n, channels) */
INLINE void grid_sample_grid_places(const fnn_grid *g, int reach, ptrdiff_t n, const void *places, const void *x, const void *dy,
                                    void *dplaces_) {
    real *dplaces = dplaces_;
    EACH_PLACE(0, real along = 0, down = 0;
               for (int k = 0; k < taps.count; k++) {
                   const int i = taps.x[k], j = taps.y[k];
                   const real product = dot_row(g->channels, (const real *)x + taps.pixel[k], (const real *)dy + at * g->channels);
                   along += x_axis.slope[i][p] * y_axis.weight[j][p] * product;
                   down += x_axis.weight[i][p] * y_axis.slope[j][p] * product;
               }
               dplaces[at] = along;
               dplaces[n + at] = down;);
}
#undef EACH_PLACE
#undef EACH_TAP

/* A loop of its own for each mode, in which the number of neighbours is a constant. */
#define EACH_MODE(places_of, ...)                                                                                       \
    switch (g->mode) {                                                                                                  \
    case FNN_GRID_NEAREST: places_of(g, 1, __VA_ARGS__); break;                                                         \
    case FNN_GRID_BILINEAR: places_of(g, 2, __VA_ARGS__); break;                                                        \
    default: places_of(g, 4, __VA_ARGS__);                                                                              \
    }

static void grid_sample_kernel(const fnn_grid *g, ptrdiff_t n, const void *places, const void *x, void *y) {
    EACH_MODE(grid_sample_places, n, places, x, y)
}

static void grid_sample_input_kernel(const fnn_grid *g, ptrdiff_t n, const void *places, ptrdiff_t c, ptrdiff_t width,
                                     const void *dy, void *dx) {
    EACH_MODE(grid_sample_input_places, n, places, c, width, dy, dx)
}

static void grid_sample_grid_kernel(const fnn_grid *g, ptrdiff_t n, const void *places, const void *x, const void *dy,
                                    void *dplaces) {
    EACH_MODE(grid_sample_grid_places, n, places, x, dy, dplaces)
}
#undef EACH_MODE

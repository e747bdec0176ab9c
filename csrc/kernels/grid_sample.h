/* grid_sample.h: pixels of an image at places that a grid names, each as a weighted sum of up to 16 pixels. Images are
 * [pixels][channels]; a grid's places are pairs (x, y), -1 and 1 being the image's ends.
 *
 * Nearest, bilinear and bicubic differ in which pixels and weights they take, and in nothing after that. */

typedef struct {
    int count;
    ptrdiff_t pixel[16];
    real weight[16], slope_x[16], slope_y[16]; /* of the weight in the grid's x and y */
} grid_taps;

/* A coordinate in pixels, and its derivative in the grid's number. NaN counts as -1. */
INLINE real grid_position(const fnn_grid *g, real coordinate, ptrdiff_t size, real *slope) {
    const real far = (real)1e20, n = (real)size;
    if (!(coordinate == coordinate)) coordinate = -1;
    coordinate = coordinate < -far ? -far : coordinate > far ? far : coordinate;
    *slope = g->align_corners ? (n - 1) / 2 : n / 2;
    return g->align_corners ? (coordinate + 1) / 2 * (n - 1) : ((coordinate + 1) * n - 1) / 2;
}

/* Into 0 .. size - 1 by moving to the border; *slope becomes 0 where that moves. */
INLINE real grid_clip(real at, ptrdiff_t size, real *slope) {
    const real last = (real)(size - 1);
    if (at > 0 && at < last) return at;
    *slope = 0;
    return at >= last ? last : 0;
}

/* Mirrored at the middles of the outermost pixels, or at their outer edges, as often as it takes; *slope changes its sign. */
INLINE real grid_reflect(const fnn_grid *g, real at, ptrdiff_t size, real *slope) {
    const real low = g->align_corners ? 0 : (real)-0.5, span = (real)(g->align_corners ? size - 1 : size);
    if (span == 0) return *slope = 0;
    at -= low;
    if (at < 0) at = -at, *slope = -*slope;
    const real rest = (real)fmod((double)at, (double)span);
    if (fmod(floor((double)at / (double)span), 2) == 0) return rest + low;
    *slope = -*slope;
    return span - rest + low;
}

INLINE real grid_inside(const fnn_grid *g, real at, ptrdiff_t size, real *slope) {
    if (g->padding == FNN_GRID_ZEROS) return at;
    if (g->padding == FNN_GRID_REFLECTION) at = grid_reflect(g, at, size, slope);
    return grid_clip(at, size, slope);
}

/* The whole number `at` as an index, -1 outside of the image. */
INLINE ptrdiff_t grid_index(real at, ptrdiff_t size) { return at >= 0 && at < (real)size ? (ptrdiff_t)at : -1; }

/* One axis: up to 4 indices, their weights, and those weights' slopes. */
typedef struct {
    int count;
    ptrdiff_t index[4];
    real weight[4], slope[4];
} grid_axis;

/* Keys's kernel with a = -3/4, for the neighbours at distances 1 + t, t, 1 - t and 2 - t; and its slopes in t. */
INLINE void grid_cubic(real t, real slope, grid_axis *axis) {
    const real a = (real)-0.75, s = 1 - t, far = 1 + t, end = 1 + s;
    axis->weight[0] = ((a * far - 5 * a) * far + 8 * a) * far - 4 * a;
    axis->weight[1] = ((a + 2) * t - (a + 3)) * t * t + 1;
    axis->weight[2] = ((a + 2) * s - (a + 3)) * s * s + 1;
    axis->weight[3] = ((a * end - 5 * a) * end + 8 * a) * end - 4 * a;
    axis->slope[0] = slope * ((3 * a * far - 10 * a) * far + 8 * a);
    axis->slope[1] = slope * (3 * (a + 2) * t - 2 * (a + 3)) * t;
    axis->slope[2] = -slope * (3 * (a + 2) * s - 2 * (a + 3)) * s;
    axis->slope[3] = -slope * ((3 * a * end - 10 * a) * end + 8 * a);
}

INLINE grid_axis grid_axis_of(const fnn_grid *g, real coordinate, ptrdiff_t size) {
    grid_axis axis;
    real slope, at = grid_position(g, coordinate, size, &slope), unused = 1;
    if (g->mode == FNN_GRID_BICUBIC) { /* the neighbours, not the place, are brought inside */
        const real first = (real)floor((double)at);
        axis.count = 4;
        for (int k = 0; k < 4; k++) axis.index[k] = grid_index(grid_inside(g, first + (real)(k - 1), size, &unused), size);
        grid_cubic(at - first, slope, &axis);
        return axis;
    }
    at = grid_inside(g, at, size, &slope);
    if (g->mode == FNN_GRID_NEAREST) {
        axis.count = 1;
        axis.index[0] = grid_index((real)rint((double)at), size);
        axis.weight[0] = 1, axis.slope[0] = 0;
        return axis;
    }
    const real first = (real)floor((double)at);
    axis.count = 2;
    axis.index[0] = grid_index(first, size), axis.index[1] = grid_index(first + 1, size);
    axis.weight[1] = at - first, axis.weight[0] = 1 - axis.weight[1];
    axis.slope[0] = -slope, axis.slope[1] = slope;
    return axis;
}

/* place: x, y */
INLINE void grid_taps_of(const fnn_grid *g, const real *place, grid_taps *taps) {
    const grid_axis x = grid_axis_of(g, place[0], g->w), y = grid_axis_of(g, place[1], g->h);
    taps->count = 0;
    for (int j = 0; j < y.count; j++)
        for (int i = 0; i < x.count; i++) {
            if (y.index[j] < 0 || x.index[i] < 0) continue;
            const int k = taps->count++;
            taps->pixel[k] = y.index[j] * g->w + x.index[i];
            taps->weight[k] = x.weight[i] * y.weight[j];
            taps->slope_x[k] = x.slope[i] * y.weight[j];
            taps->slope_y[k] = x.weight[i] * y.slope[j];
        }
}

/* y: (n, channels); places: (n, 2); x: (h w, channels) */
static void grid_sample_kernel(const fnn_grid *g, ptrdiff_t n, const void *places, const void *x_, void *y_) {
    const real *x = x_;
    real *y = y_;
    grid_taps taps;
    for (ptrdiff_t p = 0; p < n; p++, y += g->channels) {
        grid_taps_of(g, (const real *)places + 2 * p, &taps);
        for (ptrdiff_t c = 0, left; (left = g->channels - c) > 0; c += LANES) {
            vec sum = vec_zero();
            for (int k = 0; k < taps.count; k++)
                sum = vec_fma(vec_set1(taps.weight[k]), load_lanes(x + taps.pixel[k] * g->channels + c, left), sum);
            store_lanes(y + c, sum, left);
        }
    }
}

/* dx += what n places took, in order, channels c .. c + width - 1; dx: (h w, channels); dy: (n, channels) */
static void grid_sample_input_kernel(const fnn_grid *g, ptrdiff_t n, const void *places, ptrdiff_t c, ptrdiff_t width,
                                     const void *dy_, void *dx_) {
    const real *dy = (const real *)dy_ + c;
    real *dx = (real *)dx_ + c;
    grid_taps taps;
    for (ptrdiff_t p = 0; p < n; p++, dy += g->channels) {
        grid_taps_of(g, (const real *)places + 2 * p, &taps);
        for (int k = 0; k < taps.count; k++) {
            const vec weight = vec_set1(taps.weight[k]);
            real *to = dx + taps.pixel[k] * g->channels;
            for (ptrdiff_t i = 0, left; (left = width - i) > 0; i += LANES)
                store_lanes(to + i, vec_fma(weight, load_lanes(dy + i, left), load_lanes(to + i, left)), left);
        }
    }
}

/* dplaces: (n, 2); x: (h w, channels); dy: (n, channels) */
static void grid_sample_grid_kernel(const fnn_grid *g, ptrdiff_t n, const void *places, const void *x_, const void *dy_,
                                    void *dplaces_) {
    const real *x = x_, *dy = dy_;
    real *dplaces = dplaces_;
    grid_taps taps;
    for (ptrdiff_t p = 0; p < n; p++, dy += g->channels) {
        real along = 0, down = 0;
        grid_taps_of(g, (const real *)places + 2 * p, &taps);
        for (int k = 0; k < taps.count; k++) {
            const real product = dot_row(g->channels, x + taps.pixel[k] * g->channels, dy);
            along += taps.slope_x[k] * product;
            down += taps.slope_y[k] * product;
        }
        dplaces[2 * p] = along;
        dplaces[2 * p + 1] = down;
    }
}

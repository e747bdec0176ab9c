/* conv_depthwise_gradient.h: the weights' gradient of convolutions whose every channel is one of its own, or of groups of few
 * channels; lanes are channels, of groups outputs, over which their inputs are spread one after another. */

enum { GRADIENT_TAPS = 3 }; /* in each direction: nine sums in registers */

/* What one pass over some kernel positions works on: as in fnn_depthwise_gradient, for the first of them. */
typedef struct {
    ptrdiff_t row_from, row_to, col_from, col_to;
    ptrdiff_t lo, hi; /* pixels whose columns all exist */
    ptrdiff_t by[2];  /* bytes of x and dy to come for each of those pixels */
    int asks;         /* whether it is time to: with the first of a group's inputs */
    ivec lanes;       /* that x's are spread from (spread_lanes) */
} gradient_reach;

/* What a row asks for, pixel by pixel: all at once would be more than a core can wait for, and its own loads would wait as well
 * (3 x 3 with stride 2 on 96 channels of 112 x 112, two Zen 3 cores: 18 GB/s, so 23). */
typedef struct {
    const char *at[2];
    ptrdiff_t by[2];
} gradient_ahead;

INLINE void gradient_ask(gradient_ahead *a) {
#pragma GCC unroll 2
    for (int k = 0; k < 2; k++) {
        for (ptrdiff_t b = 0; b < a->by[k]; b += FNN_LINE) __builtin_prefetch(a->at[k] + b, 0, 2);
        a->at[k] += a->by[k];
    }
}

/* The next run of each, if it can be shared out among pixels, else at once, as of groups, which have more to do with it. */
INLINE gradient_ahead gradient_next(const fnn_depthwise_gradient *p, const gradient_reach *reach, int spread) {
    gradient_ahead a = {{NULL, NULL}, {0, 0}};
#pragma GCC unroll 2
    for (int k = 0; k < 2; k++) {
        fnn_prefetch *f = p->ahead[k];
        if (spread && !reach->asks) continue;
        if (!spread && reach->by[k] && f->left) a.at[k] = f->at, a.by[k] = reach->by[k], fnn_prefetch_pass(f);
        else fnn_prefetch_some(f, p->asks[k]);
    }
    return a;
}

INLINE vec gradient_load(const real *p, ptrdiff_t n) { return n < 0 ? vec_load(p) : vec_load_n(p, n); }

INLINE vec gradient_input(const gradient_reach *reach, int spread, const real *x, ptrdiff_t n) {
    if (spread == SPREAD_BROADCAST) return vec_set1(*x);
    const vec v = gradient_load(x, n);
    return spread ? vec_permute(v, reach->lanes) : v;
}

/* A pixel of dy meets kernel rows r .. r_to - 1 and columns of x from i on; `edge`: where they exist. */
INLINE void gradient_pixel(const fnn_depthwise_gradient *p, const gradient_reach *reach, int r, int r_to, int taps_s, int edge, int spread,
                           ptrdiff_t i, const real *x, const real *dy, vec sum[GRADIENT_TAPS][GRADIENT_TAPS], ptrdiff_t n) {
    const vec g = gradient_load(dy, n);
    const ptrdiff_t col = p->gap * p->x_col;
#pragma GCC unroll 3
    for (int s = 0; s < taps_s; s++, i += p->gap) {
        if (edge && (i < reach->col_from || i >= reach->col_to)) continue;
#pragma GCC unroll 3
        for (int t = r; t < r_to; t++) vec_accumulate(&sum[t][s], gradient_input(reach, spread, x + t * p->x_r + s * col, n), g);
    }
}

INLINE void gradient_row(const fnn_depthwise_gradient *p, const gradient_reach *reach, gradient_ahead ahead, int r, int r_to,
                         int taps_s, int spread, const real *x, const real *dy, vec sum[GRADIENT_TAPS][GRADIENT_TAPS], ptrdiff_t n) {
    const ptrdiff_t lo = fnn_min(reach->lo, p->pixels), hi = fnn_max(fnn_min(reach->hi, p->pixels), lo), step = p->step * p->x_col;
    ptrdiff_t j = 0;
    for (; j < lo; j++, x += step, dy += p->dy_col) gradient_pixel(p, reach, r, r_to, taps_s, 1, spread, j * p->step, x, dy, sum, n);
    for (; j < hi; j++, x += step, dy += p->dy_col) {
        if (!spread) gradient_ask(&ahead);
        gradient_pixel(p, reach, r, r_to, taps_s, 0, spread, 0, x, dy, sum, n);
    }
    for (; j < p->pixels; j++, x += step, dy += p->dy_col)
        gradient_pixel(p, reach, r, r_to, taps_s, 1, spread, j * p->step, x, dy, sum, n);
}

/* The same with stride 2 and three kernel columns next to each other: a pixel's last column is the next one's first. */
INLINE void gradient_strided_row(const fnn_depthwise_gradient *p, const gradient_reach *reach, gradient_ahead ahead, int r,
                                 int r_to, int spread, const real *x, const real *dy, vec sum[GRADIENT_TAPS][GRADIENT_TAPS],
                                 ptrdiff_t n) {
    const ptrdiff_t lo = fnn_min(reach->lo, p->pixels), hi = fnn_max(fnn_min(reach->hi, p->pixels), lo);
    const ptrdiff_t col = p->x_col, row = p->x_r, dy_col = p->dy_col;
    ptrdiff_t j = 0;
    vec last[GRADIENT_TAPS];
    for (; j < lo; j++, x += 2 * col, dy += dy_col) gradient_pixel(p, reach, r, r_to, 3, 1, spread, 2 * j, x, dy, sum, n);
#pragma GCC unroll 3
    for (int t = r; j < hi && t < r_to; t++) last[t] = gradient_input(reach, spread, x + t * row, n);
    for (; j < hi; j++, x += 2 * col, dy += dy_col) {
        if (!spread) gradient_ask(&ahead);
        const vec g = gradient_load(dy, n);
#pragma GCC unroll 3
        for (int t = r; t < r_to; t++) {
            vec_accumulate(&sum[t][0], last[t], g);
            vec_accumulate(&sum[t][1], gradient_input(reach, spread, x + t * row + col, n), g);
            last[t] = gradient_input(reach, spread, x + t * row + 2 * col, n);
            vec_accumulate(&sum[t][2], last[t], g);
        }
    }
    for (; j < p->pixels; j++, x += 2 * col, dy += dy_col) gradient_pixel(p, reach, r, r_to, 3, 1, spread, 2 * j, x, dy, sum, n);
}

/* A column of x, rows r .. r_to - 1, meets kernel column k with g[.][k], the pixel of dy so many before it. Of a pair of dy's rows
 * the first meets row t with kernel row t, the second with the one before. */
INLINE void gradient_column(const fnn_depthwise_gradient *p, const gradient_reach *reach, int pair, int spread, int r, int r_to, int s,
                            int s_to, const real *x, vec g[2][GRADIENT_TAPS], vec sum[GRADIENT_TAPS][GRADIENT_TAPS], ptrdiff_t n) {
#pragma GCC unroll 4
    for (int t = r; t < r_to; t++) {
        const vec v = gradient_input(reach, spread, x + t * p->x_r, n);
#pragma GCC unroll 3
        for (int k = s; k < s_to; k++) {
            if (t < GRADIENT_TAPS) vec_accumulate(&sum[t][k], v, g[0][k]);
            if (pair && t > 0) vec_accumulate(&sum[t - 1][k], v, g[1][k]);
        }
    }
}

/* The pixel of dy, or of both rows of a pair, that is `back` pixels before. */
INLINE void gradient_take(const fnn_depthwise_gradient *p, int pair, const real *dy, int back, int k, vec g[2][GRADIENT_TAPS],
                          ptrdiff_t n) {
    g[0][k] = gradient_load(dy - back * p->dy_col, n);
    if (pair) g[1][k] = gradient_load(dy + p->dy_row - back * p->dy_col, n);
}

/* The same as gradient_row with stride 1, three kernel columns next to each other and at least two pixels: x and dy are loaded
 * once; and of two rows, which share rows of x. */
INLINE void gradient_sliding_row(const fnn_depthwise_gradient *p, const gradient_reach *reach, gradient_ahead ahead, int pair,
                                 int r, int r_to, int spread, const real *x, const real *dy, vec sum[GRADIENT_TAPS][GRADIENT_TAPS],
                                 ptrdiff_t n) {
    const ptrdiff_t pixels = p->pixels, end = fnn_min(reach->col_to, pixels + GRADIENT_TAPS - 1), inside = fnn_min(end, pixels);
    ptrdiff_t i = fnn_max(reach->col_from, 0);
    vec g[2][GRADIENT_TAPS];
    if (i == 0 && i < end) {
        gradient_take(p, pair, dy, 0, 0, g, n);
        gradient_column(p, reach, pair, spread, r, r_to, 0, 1, x, g, sum, n), i = 1;
    }
    if (i == 1 && i < end) {
        gradient_take(p, pair, dy + p->dy_col, 0, 0, g, n), gradient_take(p, pair, dy, 0, 1, g, n);
        gradient_column(p, reach, pair, spread, r, r_to, 0, 2, x + p->x_col, g, sum, n), i = 2;
    }
    x += i * p->x_col, dy += i * p->dy_col;
    if (i < inside) gradient_take(p, pair, dy, 1, 0, g, n), gradient_take(p, pair, dy, 2, 1, g, n);
    for (; i < inside; i++, x += p->x_col, dy += p->dy_col) {
        if (!spread) gradient_ask(&ahead);
        g[0][2] = g[0][1], g[0][1] = g[0][0];
        if (pair) g[1][2] = g[1][1], g[1][1] = g[1][0];
        gradient_take(p, pair, dy, 0, 0, g, n);
        gradient_column(p, reach, pair, spread, r, r_to, 0, 3, x, g, sum, n);
    }
    if (i == pixels && i < end) {
        gradient_take(p, pair, dy, 1, 1, g, n), gradient_take(p, pair, dy, 2, 2, g, n);
        gradient_column(p, reach, pair, spread, r, r_to, 1, 3, x, g, sum, n), i++, x += p->x_col, dy += p->dy_col;
    }
    if (i == pixels + 1 && i < end) {
        gradient_take(p, pair, dy, 2, 2, g, n);
        gradient_column(p, reach, pair, spread, r, r_to, 2, 3, x, g, sum, n);
    }
}

#define GRADIENT_ROW(r, r_to)                                                                                             \
    do {                                                                                                                  \
        if (slides == 1) gradient_sliding_row(p, reach, ahead, 0, r, r_to, spread, x, dy, sum, n);                        \
        else if (slides == 2) gradient_strided_row(p, reach, ahead, r, r_to, spread, x, dy, sum, n);                      \
        else gradient_row(p, reach, ahead, r, r_to, taps_s, spread, x, dy, sum, n);                                       \
    } while (0)

/* Two rows of dy, of whose four rows of x no more than the first or the last is missing. Otherwise: 0, and nothing is done; and of
 * groups, whose sums would have to wait in memory for a register. */
INLINE int gradient_pair(const fnn_depthwise_gradient *p, const gradient_reach *reach, int spread, ptrdiff_t i, const real *x,
                         const real *dy, vec sum[GRADIENT_TAPS][GRADIENT_TAPS], ptrdiff_t n) {
    const ptrdiff_t from = reach->row_from - i, to = reach->row_to - i;
    if (spread || i + 1 >= p->rows || p->step_r != 1 || p->gap_r != 1 || from > 1 || to < 3 || (from == 1 && to == 3)) return 0;
    const gradient_ahead ahead = gradient_next(p, reach, spread);
    if (from == 1) gradient_sliding_row(p, reach, ahead, 1, 1, 4, spread, x, dy, sum, n);
    else if (to == 3) gradient_sliding_row(p, reach, ahead, 1, 0, 3, spread, x, dy, sum, n);
    else gradient_sliding_row(p, reach, ahead, 1, 0, 4, spread, x, dy, sum, n);
    return 1;
}

/* A vector of channels. Rows at the edges, which meet fewer kernel rows, have code of their own where they are many. */
INLINE void gradient_block(const fnn_depthwise_gradient *p, const gradient_reach *reach, int taps_r, int taps_s, int slides,
                           int spread, const real *x, const real *dy, real *dw, ptrdiff_t n) {
    const int all = (1 << taps_r) - 1, pairs = taps_r == 3 && taps_s == 3 && n < 0;
    vec sum[GRADIENT_TAPS][GRADIENT_TAPS];
#pragma GCC unroll 3
    for (int r = 0; r < taps_r; r++)
#pragma GCC unroll 3
        for (int s = 0; s < taps_s; s++) sum[r][s] = gradient_load(dw + r * p->dw_r + s * p->dw_s, n);
    for (ptrdiff_t i = 0; i < p->rows; i++, x += p->x_row, dy += p->dy_row) {
        if (taps_r == 3 && slides == 1 && gradient_pair(p, reach, spread, i, x, dy, sum, n)) {
            i++, x += p->x_row, dy += p->dy_row;
            continue;
        }
        int meets = 0;
#pragma GCC unroll 3
        for (int r = 0; r < taps_r; r++) {
            const ptrdiff_t row = i * p->step_r + r * p->gap_r;
            meets |= (row >= reach->row_from && row < reach->row_to) << r;
        }
        gradient_ahead ahead = gradient_next(p, reach, spread);
        if (meets == all) GRADIENT_ROW(0, taps_r);
        else if (pairs && meets == 6) GRADIENT_ROW(1, 3);
        else if (pairs && meets == 3) GRADIENT_ROW(0, 2);
        else
#pragma GCC unroll 3
            for (int r = 0; r < taps_r; r++)
                if (meets >> r & 1) {
                    GRADIENT_ROW(r, r + 1);
                    ahead.by[0] = ahead.by[1] = 0;
                }
    }
#pragma GCC unroll 3
    for (int r = 0; r < taps_r; r++)
#pragma GCC unroll 3
        for (int s = 0; s < taps_s; s++) {
            real *q = dw + r * p->dw_r + s * p->dw_s;
            if (n < 0) vec_store(q, sum[r][s]);
            else vec_store_n(q, sum[r][s], n);
        }
}

/* A vector of channels from k on, of groups input by input. */
INLINE void gradient_vector(const fnn_depthwise_gradient *p, gradient_reach *reach, int taps_r, int taps_s, int slides, int spread,
                            ptrdiff_t k, const real *x, const real *dy, real *dw, ptrdiff_t n) {
    for (ptrdiff_t c = 0; c < (spread ? p->group : 1); c++) {
        reach->asks = c == 0;
        if (spread) reach->lanes = spread_lanes(p->group, c);
        gradient_block(p, reach, taps_r, taps_s, slides, spread, x + k + (spread == SPREAD_BROADCAST ? c : 0), dy + k,
                       dw + k + c * p->dw_in, n);
    }
}

/* One function each: put together, they would keep their addresses in memory. */
typedef void gradient_function(const fnn_depthwise_gradient *p, gradient_reach *reach, const real *x, const real *dy, real *dw);

#define GRADIENT_DEFINE(r, s, slides, spread)                                                                                  \
    static __attribute__((noinline)) void gradient_##r##_##s##_##slides##_##spread(                                            \
        const fnn_depthwise_gradient *p, gradient_reach *reach, const real *x, const real *dy, real *dw) {                     \
        ptrdiff_t k = 0;                                                                                                       \
        for (; k + LANES <= p->channels; k += LANES) gradient_vector(p, reach, r, s, slides, spread, k, x, dy, dw, -1);        \
        if (k < p->channels && !spread) gradient_vector(p, reach, r, s, slides, spread, k, x, dy, dw, p->channels - k);        \
    }
#if LANES > 1
#define GRADIENT_SPREADS(X, r, s, slides) X(r, s, slides, 0) X(r, s, slides, 1) X(r, s, slides, 2)
#else
#define GRADIENT_SPREADS(X, r, s, slides) X(r, s, slides, 0)
#endif
#define GRADIENT_ENTRY(r, s, slides, spread) [spread][r - 1][s - 1 + slides] = gradient_##r##_##s##_##slides##_##spread,
#define GRADIENT_5(X, r)                                                                                                       \
    GRADIENT_SPREADS(X, r, 1, 0) GRADIENT_SPREADS(X, r, 2, 0) GRADIENT_SPREADS(X, r, 3, 0) GRADIENT_SPREADS(X, r, 3, 1)        \
    GRADIENT_SPREADS(X, r, 3, 2)
#define GRADIENT(X) GRADIENT_5(X, 1) GRADIENT_5(X, 2) GRADIENT_5(X, 3)
GRADIENT(GRADIENT_DEFINE)
static gradient_function *const gradient_blocks[3][GRADIENT_TAPS][GRADIENT_TAPS + 2] = {GRADIENT(GRADIENT_ENTRY)};

/* conv_depthwise_gradient: dw += for each kernel position the sum over rows and pixels of x times dy. */
static void conv_depthwise_gradient_kernel(const fnn_depthwise_gradient *p, const void *x, const void *dy, void *dw) {
    for (ptrdiff_t r = 0; r < p->taps_r; r += GRADIENT_TAPS)
        for (ptrdiff_t s = 0; s < p->taps_s; s += GRADIENT_TAPS) {
            const ptrdiff_t n_r = fnn_min(p->taps_r - r, GRADIENT_TAPS), n_s = fnn_min(p->taps_s - s, GRADIENT_TAPS);
            gradient_reach reach = {.row_from = p->row_from - r * p->gap_r, .row_to = p->row_to - r * p->gap_r,
                                    .col_from = p->col_from - s * p->gap, .col_to = p->col_to - s * p->gap};
            const ptrdiff_t last = reach.col_to - 1 - (n_s - 1) * p->gap;
            reach.lo = reach.col_from > 0 ? (reach.col_from + p->step - 1) / p->step : 0;
            reach.hi = last < 0 ? 0 : last / p->step + 1;
            const ptrdiff_t inner = fnn_min(reach.hi, p->pixels) - reach.lo;
            for (int k = 0; k < 2; k++)
                if (p->asks[k] == 1 && inner > 0) reach.by[k] = fnn_ceil_div(p->ahead[k]->bytes, inner);
            const int dense = n_s == GRADIENT_TAPS && p->gap == 1 && p->pixels > 1;
            const int slides = dense && p->step <= 2 ? (int)p->step : 0;
            gradient_blocks[spread_of(p->group)][n_r - 1][n_s - 1 + slides](p, &reach,
                                                                            (const real *)x + r * p->x_r + s * p->gap * p->x_col,
                                                                            dy, (real *)dw + r * p->dw_r + s * p->dw_s);
        }
}

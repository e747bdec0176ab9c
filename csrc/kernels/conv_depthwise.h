/* conv_depthwise.h: every channel is a convolution of its own; lanes are channels. */

enum {
    DEPTHWISE_PIXELS = 4, /* of two rows: with a kernel row's weights for both they fill 16 registers */
    DEPTHWISE_TAPS = 7,   /* of a kernel row, at most, whose inputs are loaded once for all outputs */
    LINE = FNN_LINE / (int)sizeof(real)
};

/* What one block reads: of a vector of channels, or its first n. */
typedef struct {
    ptrdiff_t col_from, col_to, pixels; /* as in fnn_depthwise, from the block's first pixel on */
    ptrdiff_t blocks, n;
} depthwise_reach;

enum { CAREFUL_COLUMNS = 1, CAREFUL_LANES = 2 }; /* columns may be missing; and lanes as well */

INLINE vec depthwise_load(int careful, const real *p, ptrdiff_t n) {
    return careful == CAREFUL_LANES ? vec_load_n(p, n) : vec_load(p);
}

INLINE void depthwise_store(int careful, real *p, vec v, ptrdiff_t n) {
    if (careful == CAREFUL_LANES) vec_store_n(p, v, n);
    else vec_store(p, v);
}

/* An input row meets kernel row w of the first output row, and w_second of the second one. Inputs are loaded once; each output's
 * sum goes through the kernel's columns in order. */
INLINE void depthwise_row(const fnn_depthwise *p, const depthwise_reach *reach, int first, int second, int step, int taps,
                          int careful, const real *a, const real *w, const real *w_second,
                          vec sum[2][DEPTHWISE_PIXELS]) {
    vec u[DEPTHWISE_TAPS], v[DEPTHWISE_TAPS];
#pragma GCC unroll 7
    for (int s = 0; s < taps; s++) {
        if (first) u[s] = depthwise_load(careful, w + s * p->w_s, reach->n);
        if (second) v[s] = depthwise_load(careful, w_second + s * p->w_s, reach->n);
    }
#pragma GCC unroll 16
    for (int i = 0; i < (DEPTHWISE_PIXELS - 1) * step + taps; i++) {
        if (careful && (i < reach->col_from || i >= reach->col_to)) continue;
        const vec x = depthwise_load(careful, a + i * p->a_s, reach->n);
#pragma GCC unroll 7
        for (int s = 0; s < taps; s++) {
            const int k = (i - s) / step;
            if (i < s || (i - s) % step || k >= DEPTHWISE_PIXELS) continue;
            if (first) vec_accumulate(&sum[0][k], x, u[s]);
            if (second) vec_accumulate(&sum[1][k], x, v[s]);
        }
    }
}

/* The same of any geometry. */
INLINE void depthwise_any_row(const fnn_depthwise *p, const depthwise_reach *reach, int first, int second, int careful,
                              const real *a, const real *w, const real *w_second, vec sum[2][DEPTHWISE_PIXELS]) {
    for (ptrdiff_t s = 0; s < p->taps_s; s++) {
        const vec u = first ? depthwise_load(careful, w + s * p->w_s, reach->n) : vec_zero();
        const vec v = second ? depthwise_load(careful, w_second + s * p->w_s, reach->n) : vec_zero();
#pragma GCC unroll 4
        for (int k = 0; k < DEPTHWISE_PIXELS; k++) {
            const ptrdiff_t i = s * p->gap + k * p->step;
            if (careful && (i < reach->col_from || i >= reach->col_to)) continue;
            const vec x = depthwise_load(careful, a + i * p->a_s, reach->n);
            if (first) vec_accumulate(&sum[0][k], x, u);
            if (second) vec_accumulate(&sum[1][k], x, v);
        }
    }
}

#define DEPTHWISE_ROW(first, second, at)                                                                                       \
    do {                                                                                                                       \
        const real *x = a + (at) * p->a_r, *g = w + (at) * p->w_r, *h = g - p->w_r;                                            \
        if (step) depthwise_row(p, reach, first, second, step, taps, careful, x, g, h, sum);                                   \
        else depthwise_any_row(p, reach, first, second, careful, x, g, h, sum);                                                \
    } while (0)

/* A vector of channels of DEPTHWISE_PIXELS outputs of each row. square: as many kernel rows as columns, and at most `pair` + 1
 * rows of outputs, so that a block is one run of instructions (with loops over kernel rows it is 1.3 times slower). */
INLINE void depthwise_block(const fnn_depthwise *p, const depthwise_reach *reach, int step, int taps, int square, int pair,
                            int careful, const real *a, const real *w, real *y, ptrdiff_t y_row, ptrdiff_t y_pixel) {
    vec sum[2][DEPTHWISE_PIXELS];
#pragma GCC unroll 4
    for (int i = 0; i < DEPTHWISE_PIXELS; i++) sum[0][i] = sum[1][i] = vec_zero();
    if (square) {
#pragma GCC unroll 4
        for (int r = 0; r < taps + pair; r++)
            if (r >= p->row_from && r < p->row_to) DEPTHWISE_ROW(r < taps, pair && r > 0, r);
    } else {
        ptrdiff_t r = p->row_from;
        const ptrdiff_t both = fnn_min(p->taps_r, p->row_to), alone = p->rows > 1 ? fnn_min(1, p->row_to) : both;
        for (; r < alone; r++) DEPTHWISE_ROW(1, 0, r);
        for (; r < both; r++) DEPTHWISE_ROW(1, 1, r);
        for (; r < p->row_to; r++) DEPTHWISE_ROW(0, 1, r);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++, y += y_row) {
        if (i == p->rows) break;
#pragma GCC unroll 4
        for (int k = 0; k < DEPTHWISE_PIXELS; k++) {
            if (!careful || k < reach->pixels) depthwise_store(careful, y + k * y_pixel, sum[i][k], reach->n);
        }
    }
}

/* Asks for a block's share of what is read and written next: as much as it reads and writes for the first time itself. (Asking for
 * lines in order to write them, prefetchw, is slower: 0.90 in place of 0.82 ms for 192 channels of 28 x 28.) */
INLINE void depthwise_ask(const fnn_depthwise *p, int step, const real *a, const real *y) {
    for (ptrdiff_t r = 0; r < p->ahead_rows; r++, a += p->ahead_row)
#pragma GCC unroll 8
        for (int i = 0; i < DEPTHWISE_PIXELS * step * LANES; i += LINE) __builtin_prefetch(a + i, 0, 2);
    if (p->ask_y)
        for (ptrdiff_t r = 0; r < p->rows; r++, y += p->y_row)
#pragma GCC unroll 8
            for (int i = 0; i < DEPTHWISE_PIXELS * LANES; i += LINE) __builtin_prefetch(y + i, 0, 2);
}

/* A line of channels of a row's pixels, at most DEPTHWISE_PIXELS. */
INLINE void depthwise_stream(const real *line, real *y, ptrdiff_t y_pixel, ptrdiff_t pixels) {
#pragma GCC unroll 4
    for (ptrdiff_t i = 0; i < pixels; i++)
#pragma GCC unroll 16
        for (int k = 0; k < LINE; k += LANES) vec_stream(y + i * y_pixel + k, vec_load(line + i * LINE + k));
}

/* Blocks that follow one another: all channels from `first` on, if careful, else those that fill vectors. Pixels outside, channels
 * inside: memory is read in order. Results that are streamed first become whole lines: eight that are half written are more than
 * can wait. */
INLINE void depthwise_blocks(const fnn_depthwise *p, const depthwise_reach *whole, int step, int taps, int square, int pair,
                             int careful, ptrdiff_t first, const real *a, const real *w, real *y) {
    real line[2 * DEPTHWISE_PIXELS * LINE] __attribute__((aligned(FNN_LINE)));
    const ptrdiff_t y_row = p->stream ? DEPTHWISE_PIXELS * LINE : p->y_row, y_pixel = p->stream ? LINE : p->y_pixel;
    for (ptrdiff_t i = 0; i < whole->blocks; i++) {
        const real *ahead = a + p->ahead, *ahead_y = y + p->rows * p->y_row;
        ptrdiff_t j = first;
        for (; j + LANES <= p->channels; j += LANES) {
            real *to = p->stream ? line + j % LINE : y + j;
            depthwise_ask(p, step, ahead, ahead_y);
            ahead += DEPTHWISE_PIXELS * step * LANES, ahead_y += DEPTHWISE_PIXELS * LANES;
            depthwise_block(p, whole, step, taps, square, pair, careful, a + j, w + j, to, y_row, y_pixel);
            if (p->stream && (j + LANES) % LINE == 0)
#pragma GCC unroll 2
                for (int r = 0; r < 2; r++)
                    if (r < p->rows)
                        depthwise_stream(line + r * y_row, y + r * p->y_row + j + LANES - LINE, p->y_pixel,
                                         careful ? whole->pixels : DEPTHWISE_PIXELS);
        }
        if (careful && j < p->channels) {
            depthwise_reach reach = *whole;
            reach.n = p->channels - j;
            depthwise_block(p, &reach, step, taps, square, pair, CAREFUL_LANES, a + j, w + j, y + j, p->y_row, p->y_pixel);
        }
        a += DEPTHWISE_PIXELS * p->step * p->a_s, y += DEPTHWISE_PIXELS * p->y_pixel;
    }
}

/* One function each: put together, they would keep their addresses in memory. */
typedef void depthwise_function(const fnn_depthwise *p, const depthwise_reach *reach, ptrdiff_t first, const real *a,
                                const real *w, real *y);
#define DEPTHWISE_DEFINE(name, careful, step, taps, square, pair)                                                               \
    static __attribute__((noinline)) void name(const fnn_depthwise *p, const depthwise_reach *reach, ptrdiff_t first,           \
                                               const real *a, const real *w, real *y) {                                         \
        depthwise_blocks(p, reach, step, taps, square, pair, careful, first, a, w, y);                                          \
    }
/* name, step, taps (0: any), and what else depthwise_block must know */
#define DEPTHWISE(X)                                                                                                            \
    X(any, 0, 0, 0, 1) X(row1, 1, 1, 0, 1) X(row2, 1, 2, 0, 1) X(row3, 1, 3, 0, 1) X(row5, 1, 5, 0, 1) X(row7, 1, 7, 0, 1)      \
    X(square3, 1, 3, 1, 1) X(single3, 1, 3, 1, 0) X(stride3, 2, 3, 1, 0) X(stride_row3, 2, 3, 0, 1)
#define DEPTHWISE_BOTH(name, ...)                                                                                               \
    DEPTHWISE_DEFINE(depthwise_##name, 0, __VA_ARGS__) DEPTHWISE_DEFINE(depthwise_careful_##name, 1, __VA_ARGS__)
DEPTHWISE(DEPTHWISE_BOTH)

typedef struct {
    depthwise_function *fast, *careful;
} depthwise_kind;
#define DEPTHWISE_KIND(name, ...)                                                                          \
    static const depthwise_kind depthwise_kind_##name = {depthwise_##name, depthwise_careful_##name};
DEPTHWISE(DEPTHWISE_KIND)

static const depthwise_kind *depthwise_kind_of(const fnn_depthwise *p) {
    const int square = p->taps_r == p->taps_s;
    switch (p->gap != 1 ? 0 : p->step == 1 ? p->taps_s : p->step == 2 ? -p->taps_s : 0) {
    case 1: return &depthwise_kind_row1;
    case 2: return &depthwise_kind_row2;
    case 3: return !square ? &depthwise_kind_row3 : p->rows == 1 ? &depthwise_kind_single3 : &depthwise_kind_square3;
    case 5: return &depthwise_kind_row5;
    case 7: return &depthwise_kind_row7;
    case -3: return square && p->rows == 1 ? &depthwise_kind_stride3 : &depthwise_kind_stride_row3;
    default: return &depthwise_kind_any;
    }
}

/* conv_depthwise: y (rows x pixels x channels) = sums over kernel positions of x times w, as fnn_depthwise says. */
static void conv_depthwise_kernel(const fnn_depthwise *p, const void *a, const void *w, void *y) {
    const depthwise_kind *kind = depthwise_kind_of(p);
    const ptrdiff_t step = DEPTHWISE_PIXELS * p->step, last = step - p->step + (p->taps_s - 1) * p->gap;
    for (ptrdiff_t i = 0, pixel = 0; pixel < p->pixels;) {
        const ptrdiff_t pixels = fnn_min(p->pixels - pixel, DEPTHWISE_PIXELS);
        depthwise_reach reach = {p->col_from - i * step, p->col_to - i * step, pixels, 1, LANES};
        const real *from = (const real *)a + i * step * p->a_s;
        real *to = (real *)y + pixel * p->y_pixel;
        ptrdiff_t first = 0;
        if (reach.col_from <= 0 && reach.col_to > last && pixels == DEPTHWISE_PIXELS) {
            reach.blocks = fnn_min((reach.col_to - last - 1) / step + 1, (p->pixels - pixel) / DEPTHWISE_PIXELS);
            kind->fast(p, &reach, 0, from, w, to);
            first = p->channels / LANES * LANES;
        }
        if (first < p->channels) kind->careful(p, &reach, first, from, w, to);
        i += reach.blocks, pixel = i * DEPTHWISE_PIXELS;
    }
}

/* ---- the input's gradient of 3 x 3 kernels with stride 2 ---- */

enum { QUADS = 2 }; /* side by side */

/* Positions q of dy (0: the quad's own; 1: the next) that meet output side a: through kernel position 1; or 2, and then 0. */
#define QUAD_TAP(a, q) ((a) == 0 ? 1 : (q) == 0 ? 2 : 0)
#define QUAD_MEETS(a, q) ((a) == 1 || (q) == 0)

/* A vector of channels of QUADS quads from `quad` on. */
INLINE void quads_block(const fnn_quads *p, ptrdiff_t quad, int careful, const real *dy, const real *w, real *dx, ptrdiff_t dx_row,
                        ptrdiff_t dx_pixel, ptrdiff_t n) {
    vec sum[2][2 * QUADS];
#pragma GCC unroll 4
    for (int i = 0; i < 2 * QUADS; i++) sum[0][i] = sum[1][i] = vec_zero();
#pragma GCC unroll 2
    for (int q = 0; q < 2; q++) {
        if (q < p->row_from || q >= p->row_to) continue;
#pragma GCC unroll 3
        for (int i = 0; i <= QUADS; i++) {
            if (careful && (quad + i < p->col_from || quad + i >= p->col_to)) continue;
            const vec v = depthwise_load(careful, dy + q * p->dy_row + i * p->dy_pixel, n);
#pragma GCC unroll 8
            for (int t = 0; t < 8; t++) { /* position c of quad i - c meets side b of output row a */
                const int c = t & 1, a = t >> 1 & 1, b = t >> 2, k = i - c;
                if (k < 0 || k >= QUADS || !QUAD_MEETS(a, q) || !QUAD_MEETS(b, c)) continue;
                const real *g = w + (3 * QUAD_TAP(a, q) + QUAD_TAP(b, c)) * p->channels;
                sum[a][2 * k + b] = vec_fma(v, depthwise_load(careful, g, n), sum[a][2 * k + b]);
            }
        }
    }
#pragma GCC unroll 2
    for (int a = 0; a < 2; a++) {
        if (a < p->dx_row_from || a >= p->dx_row_to) continue;
#pragma GCC unroll 4
        for (int i = 0; i < 2 * QUADS; i++) {
            real *to = dx + a * dx_row + i * dx_pixel;
            if (!careful || (2 * quad + i >= p->dx_col_from && 2 * quad + i < p->dx_col_to))
                depthwise_store(careful, to, sum[a][i], n);
        }
    }
}

INLINE void quads_ask(const fnn_quads *p, const real *dy, const real *dx) {
#pragma GCC unroll 4
    for (int i = 0; i < QUADS * LANES; i += LINE) __builtin_prefetch(dy + i, 0, 2);
    if (p->stream) return;
#pragma GCC unroll 4
    for (int i = 0; i < 2 * QUADS * LANES; i += LINE) {
        __builtin_prefetch(dx + i, 0, 2);
        __builtin_prefetch(dx + p->dx_row + i, 0, 2);
    }
}

/* Pixels outside, channels inside; whole quads are streamed in whole lines. */
INLINE void quads_run(const fnn_quads *p, ptrdiff_t quad, ptrdiff_t end, ptrdiff_t first, int careful, const real *dy,
                      const real *w, real *dx) {
    real line[4 * QUADS * LINE] __attribute__((aligned(FNN_LINE)));
    const int stream = !careful && p->stream;
    const ptrdiff_t dx_row = stream ? 2 * QUADS * LINE : p->dx_row, dx_pixel = stream ? LINE : p->dx_pixel;
    for (; quad < end; quad += QUADS) {
        const real *from = dy + quad * p->dy_pixel, *ahead = from + 2 * p->dy_row;
        real *to = dx + 2 * quad * p->dx_pixel, *ahead_dx = to + 2 * p->dx_row;
        ptrdiff_t j = first;
        for (; j + LANES <= p->channels; j += LANES, ahead += QUADS * LANES, ahead_dx += 2 * QUADS * LANES) {
            if (p->asks) quads_ask(p, ahead, ahead_dx);
            quads_block(p, quad, careful, from + j, w + j, stream ? line + j % LINE : to + j, dx_row, dx_pixel, LANES);
            if (stream && (j + LANES) % LINE == 0)
#pragma GCC unroll 2
                for (int a = 0; a < 2; a++)
                    if (a >= p->dx_row_from && a < p->dx_row_to)
                        depthwise_stream(line + a * dx_row, to + a * p->dx_row + j + LANES - LINE, p->dx_pixel, 2 * QUADS);
        }
        if (careful && j < p->channels)
            quads_block(p, quad, CAREFUL_LANES, from + j, w + j, to + j, dx_row, dx_pixel, p->channels - j);
    }
}

static __attribute__((noinline)) void quads_fast(const fnn_quads *p, ptrdiff_t quad, ptrdiff_t end, const real *dy, const real *w,
                                                 real *dx) {
    quads_run(p, quad, end, 0, 0, dy, w, dx);
}

static __attribute__((noinline)) void quads_careful(const fnn_quads *p, ptrdiff_t quad, ptrdiff_t end, ptrdiff_t first,
                                                    const real *dy, const real *w, real *dx) {
    quads_run(p, quad, end, first, 1, dy, w, dx);
}

/* conv_depthwise_quads: two rows of dx from two of dy, as fnn_quads says. */
static void conv_depthwise_quads_kernel(const fnn_quads *p, const void *dy, const void *w, void *dx) {
    for (ptrdiff_t quad = 0, end; quad < p->quads; quad = end) {
        ptrdiff_t first = 0;
        end = quad + QUADS;
        if (quad >= p->col_from && 2 * quad >= p->dx_col_from) {
            const ptrdiff_t most = fnn_min(p->col_to - 1, p->dx_col_to / 2) - quad;
            if (most >= QUADS) {
                end = quad + most / QUADS * QUADS, first = p->channels / LANES * LANES;
                quads_fast(p, quad, end, dy, w, dx);
            }
        }
        if (first < p->channels) quads_careful(p, quad, end, first, dy, w, dx);
    }
}

/* ---- the weights' gradient ---- */

enum { GRADIENT_TAPS = 3 }; /* in each direction: nine sums in registers */

/* What one pass over some kernel positions works on: as in fnn_depthwise_gradient, for the first of them. */
typedef struct {
    ptrdiff_t row_from, row_to, col_from, col_to;
    ptrdiff_t lo, hi; /* pixels whose columns all exist */
    ptrdiff_t by[2];  /* bytes of x and dy to come for each of those pixels */
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

/* The next run of each, if it can be shared out among pixels, else at once. */
INLINE gradient_ahead gradient_next(const fnn_depthwise_gradient *p, const gradient_reach *reach) {
    gradient_ahead a = {{NULL, NULL}, {0, 0}};
#pragma GCC unroll 2
    for (int k = 0; k < 2; k++) {
        fnn_prefetch *f = p->ahead[k];
        if (reach->by[k] && f->left) a.at[k] = f->at, a.by[k] = reach->by[k], fnn_prefetch_pass(f);
        else fnn_prefetch_some(f, p->asks[k]);
    }
    return a;
}

INLINE vec gradient_load(const real *p, ptrdiff_t n) { return n < 0 ? vec_load(p) : vec_load_n(p, n); }

/* A pixel of dy meets kernel rows r .. r_to - 1 and columns of x from i on; `edge`: where they exist. */
INLINE void gradient_pixel(const fnn_depthwise_gradient *p, const gradient_reach *reach, int r, int r_to, int taps_s, int edge,
                           ptrdiff_t i, const real *x, const real *dy, vec sum[GRADIENT_TAPS][GRADIENT_TAPS], ptrdiff_t n) {
    const vec g = gradient_load(dy, n);
    const ptrdiff_t col = p->gap * p->x_col;
#pragma GCC unroll 3
    for (int s = 0; s < taps_s; s++, i += p->gap) {
        if (edge && (i < reach->col_from || i >= reach->col_to)) continue;
#pragma GCC unroll 3
        for (int t = r; t < r_to; t++) vec_accumulate(&sum[t][s], gradient_load(x + t * p->x_r + s * col, n), g);
    }
}

INLINE void gradient_row(const fnn_depthwise_gradient *p, const gradient_reach *reach, gradient_ahead ahead, int r, int r_to,
                         int taps_s, const real *x, const real *dy, vec sum[GRADIENT_TAPS][GRADIENT_TAPS], ptrdiff_t n) {
    const ptrdiff_t lo = fnn_min(reach->lo, p->pixels), hi = fnn_max(fnn_min(reach->hi, p->pixels), lo), step = p->step * p->x_col;
    ptrdiff_t j = 0;
    for (; j < lo; j++, x += step, dy += p->dy_col) gradient_pixel(p, reach, r, r_to, taps_s, 1, j * p->step, x, dy, sum, n);
    for (; j < hi; j++, x += step, dy += p->dy_col) {
        gradient_ask(&ahead);
        gradient_pixel(p, reach, r, r_to, taps_s, 0, 0, x, dy, sum, n);
    }
    for (; j < p->pixels; j++, x += step, dy += p->dy_col)
        gradient_pixel(p, reach, r, r_to, taps_s, 1, j * p->step, x, dy, sum, n);
}

/* A column of x meets kernel column s + k with g[s + k], the pixel of dy so many before it. */
INLINE void gradient_column(const fnn_depthwise_gradient *p, int r, int r_to, int s, int s_to, const real *x,
                            const vec g[GRADIENT_TAPS], vec sum[GRADIENT_TAPS][GRADIENT_TAPS], ptrdiff_t n) {
#pragma GCC unroll 3
    for (int t = r; t < r_to; t++) {
        const vec v = gradient_load(x + t * p->x_r, n);
#pragma GCC unroll 3
        for (int k = s; k < s_to; k++) vec_accumulate(&sum[t][k], v, g[k]);
    }
}

/* The same as gradient_row with stride 1, three kernel columns next to each other and at least two pixels: x and dy are loaded
 * once. */
INLINE void gradient_sliding_row(const fnn_depthwise_gradient *p, const gradient_reach *reach, gradient_ahead ahead, int r,
                                 int r_to, const real *x, const real *dy, vec sum[GRADIENT_TAPS][GRADIENT_TAPS], ptrdiff_t n) {
    const ptrdiff_t pixels = p->pixels, end = fnn_min(reach->col_to, pixels + GRADIENT_TAPS - 1), inside = fnn_min(end, pixels);
    ptrdiff_t i = fnn_max(reach->col_from, 0);
    vec g[GRADIENT_TAPS];
    if (i == 0 && i < end) {
        g[0] = gradient_load(dy, n);
        gradient_column(p, r, r_to, 0, 1, x, g, sum, n), i = 1;
    }
    if (i == 1 && i < end) {
        g[0] = gradient_load(dy + p->dy_col, n), g[1] = gradient_load(dy, n);
        gradient_column(p, r, r_to, 0, 2, x + p->x_col, g, sum, n), i = 2;
    }
    x += i * p->x_col, dy += i * p->dy_col;
    if (i < inside) g[0] = gradient_load(dy - p->dy_col, n), g[1] = gradient_load(dy - 2 * p->dy_col, n);
    for (; i < inside; i++, x += p->x_col, dy += p->dy_col) {
        gradient_ask(&ahead);
        g[2] = g[1], g[1] = g[0], g[0] = gradient_load(dy, n);
        gradient_column(p, r, r_to, 0, 3, x, g, sum, n);
    }
    if (i == pixels && i < end) {
        g[1] = gradient_load(dy - p->dy_col, n), g[2] = gradient_load(dy - 2 * p->dy_col, n);
        gradient_column(p, r, r_to, 1, 3, x, g, sum, n), i++, x += p->x_col, dy += p->dy_col;
    }
    if (i == pixels + 1 && i < end) {
        g[2] = gradient_load(dy - 2 * p->dy_col, n);
        gradient_column(p, r, r_to, 2, 3, x, g, sum, n);
    }
}

#define GRADIENT_ROW(r, r_to)                                                                                             \
    do {                                                                                                                  \
        if (slides) gradient_sliding_row(p, reach, ahead, r, r_to, x, dy, sum, n);                                        \
        else gradient_row(p, reach, ahead, r, r_to, taps_s, x, dy, sum, n);                                               \
    } while (0)

/* A vector of channels. Rows at the edges, which meet fewer kernel rows, have code of their own where they are many. */
INLINE void gradient_block(const fnn_depthwise_gradient *p, const gradient_reach *reach, int taps_r, int taps_s, int slides,
                           const real *x, const real *dy, real *dw, ptrdiff_t n) {
    const int all = (1 << taps_r) - 1, pairs = taps_r == 3 && taps_s == 3 && n < 0;
    vec sum[GRADIENT_TAPS][GRADIENT_TAPS];
#pragma GCC unroll 3
    for (int r = 0; r < taps_r; r++)
#pragma GCC unroll 3
        for (int s = 0; s < taps_s; s++) sum[r][s] = gradient_load(dw + r * p->dw_r + s * p->dw_s, n);
    for (ptrdiff_t i = 0; i < p->rows; i++, x += p->x_row, dy += p->dy_row) {
        int meets = 0;
#pragma GCC unroll 3
        for (int r = 0; r < taps_r; r++) {
            const ptrdiff_t row = i * p->step_r + r * p->gap_r;
            meets |= (row >= reach->row_from && row < reach->row_to) << r;
        }
        gradient_ahead ahead = gradient_next(p, reach);
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

/* One function each, as above. */
typedef void gradient_function(const fnn_depthwise_gradient *p, const gradient_reach *reach, const real *x, const real *dy,
                               real *dw);

#define GRADIENT_DEFINE(r, s, slides)                                                                                     \
    static __attribute__((noinline)) void gradient_##r##_##s##_##slides(                                                  \
        const fnn_depthwise_gradient *p, const gradient_reach *reach, const real *x, const real *dy, real *dw) {          \
        ptrdiff_t k = 0;                                                                                                  \
        for (; k + LANES <= p->channels; k += LANES) gradient_block(p, reach, r, s, slides, x + k, dy + k, dw + k, -1);   \
        if (k < p->channels) gradient_block(p, reach, r, s, slides, x + k, dy + k, dw + k, p->channels - k);              \
    }
#define GRADIENT_ENTRY(r, s, slides) [r - 1][s - 1 + slides] = gradient_##r##_##s##_##slides,
#define GRADIENT_4(X, r) X(r, 1, 0) X(r, 2, 0) X(r, 3, 0) X(r, 3, 1)
#define GRADIENT(X) GRADIENT_4(X, 1) GRADIENT_4(X, 2) GRADIENT_4(X, 3)
GRADIENT(GRADIENT_DEFINE)
static gradient_function *const gradient_blocks[GRADIENT_TAPS][GRADIENT_TAPS + 1] = {GRADIENT(GRADIENT_ENTRY)};

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
            const int slides = n_s == GRADIENT_TAPS && p->step == 1 && p->gap == 1 && p->pixels > 1;
            gradient_blocks[n_r - 1][n_s - 1 + slides](p, &reach, (const real *)x + r * p->x_r + s * p->gap * p->x_col, dy,
                                                       (real *)dw + r * p->dw_r + s * p->dw_s);
        }
}

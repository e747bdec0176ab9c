/* conv_depthwise.h: every channel is a convolution of its own; lanes are channels. */

#if defined(VEC_AVX512)
enum { DEPTHWISE_PIXELS = 8 };
#else
enum { DEPTHWISE_PIXELS = 4 }; /* with a kernel row's weights and inputs they fill 16 registers */
#endif

typedef struct {
    ptrdiff_t taps_r, taps_s, a_r, a_s, a_pixel, w_r, w_s, y_pixel;
    ptrdiff_t ahead_rows, ahead, ahead_row; /* rows to ask for, from how far on, how far apart */
    int stream;
} depthwise_plan;

enum { DEPTHWISE_TAPS = 5 };

/* One vector of channels of `pixels` outputs; `step`: taps_s is `taps`, and neighbouring outputs' inputs are `step`
 * apart and are loaded once for all of them (0: any geometry). n < 0: a whole vector. */
INLINE void depthwise_block(const depthwise_plan *p, int pixels, int step, int taps, const real *a, const real *w,
                            real *y, ptrdiff_t n) {
    vec acc[DEPTHWISE_PIXELS];
#pragma GCC unroll 8
    for (int i = 0; i < pixels; i++) acc[i] = vec_zero();
    for (ptrdiff_t r = 0; r < p->ahead_rows; r++)
        for (ptrdiff_t i = 0, x = pixels * p->a_pixel; i < x; i += p->a_s)
            __builtin_prefetch(a + p->ahead + r * p->ahead_row + i, 0, 2);
    for (ptrdiff_t r = 0; r < p->taps_r; r++, a += p->a_r, w += p->w_r) {
        if (step) {
            vec weight[DEPTHWISE_TAPS], x[2 * DEPTHWISE_PIXELS + DEPTHWISE_TAPS];
#pragma GCC unroll 5
            for (int s = 0; s < taps; s++) weight[s] = n < 0 ? vec_load(w + s * p->w_s) : vec_load_n(w + s * p->w_s, n);
#pragma GCC unroll 20
            for (int i = 0; i < (pixels - 1) * step + taps; i++)
                x[i] = n < 0 ? vec_load(a + i * p->a_s) : vec_load_n(a + i * p->a_s, n);
#pragma GCC unroll 5
            for (int s = 0; s < taps; s++)
#pragma GCC unroll 8
                for (int i = 0; i < pixels; i++) acc[i] = vec_fma(x[i * step + s], weight[s], acc[i]);
        } else {
            const real *from = a;
            for (ptrdiff_t s = 0; s < p->taps_s; s++, from += p->a_s) {
                const vec weight = n < 0 ? vec_load(w + s * p->w_s) : vec_load_n(w + s * p->w_s, n);
#pragma GCC unroll 8
                for (int i = 0; i < pixels; i++) {
                    const real *q = from + i * p->a_pixel;
                    acc[i] = vec_fma(n < 0 ? vec_load(q) : vec_load_n(q, n), weight, acc[i]);
                }
            }
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < pixels; i++) {
        if (n < 0 && p->stream) vec_stream(y + i * p->y_pixel, acc[i]);
        else if (n < 0) vec_store(y + i * p->y_pixel, acc[i]);
        else vec_store_n(y + i * p->y_pixel, acc[i], n);
    }
}

INLINE void depthwise_channels(const depthwise_plan *p, int pixels, int step, int taps, ptrdiff_t channels,
                               const real *a, const real *w, real *y) {
    ptrdiff_t j = 0;
    for (; j + LANES <= channels; j += LANES) depthwise_block(p, pixels, step, taps, a + j, w + j, y + j, -1);
    if (j < channels) depthwise_block(p, pixels, step, taps, a + j, w + j, y + j, channels - j);
}

INLINE void depthwise_run(const depthwise_plan *p, int step, int taps, ptrdiff_t pixels, ptrdiff_t channels,
                          const real *a, const real *w, real *y) {
    ptrdiff_t i = 0;
    for (; i + DEPTHWISE_PIXELS <= pixels; i += DEPTHWISE_PIXELS)
        depthwise_channels(p, DEPTHWISE_PIXELS, step, taps, channels, a + i * p->a_pixel, w, y + i * p->y_pixel);
    for (; i + 3 <= pixels; i += 3)
        depthwise_channels(p, 3, step, taps, channels, a + i * p->a_pixel, w, y + i * p->y_pixel);
    for (; i < pixels; i++)
        depthwise_channels(p, 1, step, taps, channels, a + i * p->a_pixel, w, y + i * p->y_pixel);
}

/* conv_depthwise: y (pixels x channels) = sum over taps_r x taps_s of x at r * a_r + s * a_s + pixel * a_pixel times w
 * (channels) at r * w_r + s * w_s. Pixels outside, channels inside: memory is read in order. Meanwhile ahead_rows rows
 * of x, ahead_row apart, from x + ahead on, are asked for. stream: y is aligned to whole vectors in every pixel and too
 * large for the caches. */
static void conv_depthwise_kernel(ptrdiff_t pixels, ptrdiff_t channels, ptrdiff_t taps_r, ptrdiff_t taps_s,
                                  const void *a, ptrdiff_t a_r, ptrdiff_t a_s, ptrdiff_t a_pixel, const void *w,
                                  ptrdiff_t w_r, ptrdiff_t w_s, void *y, ptrdiff_t y_pixel, ptrdiff_t ahead_rows,
                                  ptrdiff_t ahead, ptrdiff_t ahead_row, int stream) {
    const depthwise_plan p = {taps_r,  taps_s,     a_r,   a_s,       a_pixel, w_r, w_s,
                              y_pixel, ahead_rows, ahead, ahead_row, stream};
    const ptrdiff_t kind = a_pixel == a_s ? taps_s : a_pixel == 2 * a_s ? -taps_s : 0;
    switch (kind) {
    case 1: depthwise_run(&p, 1, 1, pixels, channels, a, w, y); break;
    case 2: depthwise_run(&p, 1, 2, pixels, channels, a, w, y); break;
    case 3: depthwise_run(&p, 1, 3, pixels, channels, a, w, y); break;
    case 5: depthwise_run(&p, 1, 5, pixels, channels, a, w, y); break;
    case -3: depthwise_run(&p, 2, 3, pixels, channels, a, w, y); break;
    default: depthwise_run(&p, 0, 0, pixels, channels, a, w, y);
    }
}

/* ---- the weights' gradient ---- */

enum { GRADIENT_TAPS = 3 }; /* in each direction: a vector of dy meets nine sums in registers */

typedef struct {
    ptrdiff_t rows, pixels, x_row, x_col, x_r, x_s, dy_row, dy_col, dw_r, dw_s;
} gradient_plan;

/* One vector of channels; n < 0: a whole one, else its first n. */
INLINE void gradient_block(const gradient_plan *p, int taps_r, int taps_s, const real *x, const real *dy, real *dw, ptrdiff_t n) {
    vec sum[GRADIENT_TAPS][GRADIENT_TAPS];
#pragma GCC unroll 3
    for (int r = 0; r < taps_r; r++)
#pragma GCC unroll 3
        for (int s = 0; s < taps_s; s++) {
            const real *q = dw + r * p->dw_r + s * p->dw_s;
            sum[r][s] = n < 0 ? vec_load(q) : vec_load_n(q, n);
        }
    for (ptrdiff_t i = 0; i < p->rows; i++) {
        const real *a = x + i * p->x_row, *g = dy + i * p->dy_row;
        for (ptrdiff_t j = 0; j < p->pixels; j++, a += p->x_col, g += p->dy_col) {
            const vec v = n < 0 ? vec_load(g) : vec_load_n(g, n);
#pragma GCC unroll 3
            for (int r = 0; r < taps_r; r++)
#pragma GCC unroll 3
                for (int s = 0; s < taps_s; s++) {
                    const real *q = a + r * p->x_r + s * p->x_s;
                    sum[r][s] = vec_fma(n < 0 ? vec_load(q) : vec_load_n(q, n), v, sum[r][s]);
                }
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

INLINE void gradient_channels(const gradient_plan *p, int taps_r, int taps_s, ptrdiff_t channels, const real *x, const real *dy,
                              real *dw) {
    ptrdiff_t k = 0;
    for (; k + LANES <= channels; k += LANES) gradient_block(p, taps_r, taps_s, x + k, dy + k, dw + k, -1);
    if (k < channels) gradient_block(p, taps_r, taps_s, x + k, dy + k, dw + k, channels - k);
}

typedef void gradient_function(const gradient_plan *p, ptrdiff_t channels, const real *x, const real *dy, real *dw);

#define GRADIENT_3(X, r) X(r, 1) X(r, 2) X(r, 3)
#define GRADIENT(X) GRADIENT_3(X, 1) GRADIENT_3(X, 2) GRADIENT_3(X, 3)
#define GRADIENT_DEFINE(r, s)                                                                                             \
    static void gradient_##r##_##s(const gradient_plan *p, ptrdiff_t channels, const real *x, const real *dy, real *dw) { \
        gradient_channels(p, r, s, channels, x, dy, dw);                                                                  \
    }
#define GRADIENT_ENTRY(r, s) [r - 1][s - 1] = gradient_##r##_##s,
GRADIENT(GRADIENT_DEFINE)
static gradient_function *const gradient_blocks[GRADIENT_TAPS][GRADIENT_TAPS] = {GRADIENT(GRADIENT_ENTRY)};

/* conv_depthwise_gradient: dw (taps_r x taps_s x channels; taps dw_r and dw_s apart) += for each tap the sum over rows and pixels
 * of x (at row * x_row + pixel * x_col + r * x_r + s * x_s) times dy (at row * dy_row + pixel * dy_col), with neighbouring
 * channels. */
static void conv_depthwise_gradient_kernel(ptrdiff_t rows, ptrdiff_t pixels, ptrdiff_t channels, ptrdiff_t taps_r,
                                           ptrdiff_t taps_s, const void *x, ptrdiff_t x_row, ptrdiff_t x_col, ptrdiff_t x_r,
                                           ptrdiff_t x_s, const void *dy, ptrdiff_t dy_row, ptrdiff_t dy_col, void *dw,
                                           ptrdiff_t dw_r, ptrdiff_t dw_s) {
    const gradient_plan p = {rows, pixels, x_row, x_col, x_r, x_s, dy_row, dy_col, dw_r, dw_s};
    for (ptrdiff_t r = 0; r < taps_r; r += GRADIENT_TAPS)
        for (ptrdiff_t s = 0; s < taps_s; s += GRADIENT_TAPS) {
            const ptrdiff_t n_r = taps_r - r < GRADIENT_TAPS ? taps_r - r : GRADIENT_TAPS;
            const ptrdiff_t n_s = taps_s - s < GRADIENT_TAPS ? taps_s - s : GRADIENT_TAPS;
            gradient_blocks[n_r - 1][n_s - 1](&p, channels, (const real *)x + r * x_r + s * x_s, dy,
                                              (real *)dw + r * dw_r + s * dw_s);
        }
}

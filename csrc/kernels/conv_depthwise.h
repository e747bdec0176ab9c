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

enum { GRADIENT_TAPS = 3 };

INLINE void depthwise_gradient_block(int taps, ptrdiff_t rows, ptrdiff_t pixels, ptrdiff_t lanes, const real *x,
                                     const ptrdiff_t *x_offset, ptrdiff_t x_col, ptrdiff_t x_tap, const real *dy,
                                     const ptrdiff_t *dy_offset, ptrdiff_t dy_col, real *dw, ptrdiff_t dw_tap) {
    vec sum[GRADIENT_TAPS];
    for (int t = 0; t < taps; t++) sum[t] = vec_load_n(dw + t * dw_tap, lanes);
    for (ptrdiff_t i = 0; i < rows; i++) {
        const real *p = x + x_offset[i], *q = dy + dy_offset[i];
        for (ptrdiff_t j = 0; j < pixels; j++, p += x_col, q += dy_col) {
            const vec g = vec_load_n(q, lanes);
            for (int t = 0; t < taps; t++) sum[t] = vec_fma(vec_load_n(p + t * x_tap, lanes), g, sum[t]);
        }
    }
    for (int t = 0; t < taps; t++) vec_store_n(dw + t * dw_tap, sum[t], lanes);
}

/* conv_depthwise_gradient: dw (taps x channels) += for each tap the sum over rows and pixels of x (at x_offset[row] +
 * pixel * x_col
 * + tap * x_tap) times dy (at dy_offset[row] + pixel * dy_col), both with neighbouring channels. */
static void conv_depthwise_gradient_kernel(ptrdiff_t rows, ptrdiff_t pixels, ptrdiff_t channels, ptrdiff_t taps,
                                           const void *x, const ptrdiff_t *x_offset, ptrdiff_t x_col, ptrdiff_t x_tap,
                                           const void *dy, const ptrdiff_t *dy_offset, ptrdiff_t dy_col, void *dw,
                                           ptrdiff_t dw_tap) {
    for (ptrdiff_t j = 0; j < channels; j += LANES) {
        const ptrdiff_t lanes = channels - j < LANES ? channels - j : LANES;
        const real *a = (const real *)x + j, *g = (const real *)dy + j;
        real *to = (real *)dw + j;
        ptrdiff_t t = 0;
        for (; t + GRADIENT_TAPS <= taps; t += GRADIENT_TAPS)
            depthwise_gradient_block(GRADIENT_TAPS, rows, pixels, lanes, a + t * x_tap, x_offset, x_col, x_tap, g,
                                     dy_offset, dy_col, to + t * dw_tap, dw_tap);
        for (; t < taps; t++)
            depthwise_gradient_block(1, rows, pixels, lanes, a + t * x_tap, x_offset, x_col, x_tap, g, dy_offset,
                                     dy_col, to + t * dw_tap, dw_tap);
    }
}

/* pool.h: pooling one row of windows over channels-last pixels, a vector of channels at a time. y, argmax, dy: row->outputs
 * pixels; x: the first input row, at the map's first column; dx: one input row. */

enum { POOL_VECTORS = 4 }; /* vectors of channels side by side: whole lines in a row, where maps are small and deep */

/* `n` channels in `vectors` full vectors, or in one that is not full: constants where these are inlined, but for a tail. */
#define POOL_LOAD(p, v) (n >= LANES ? vec_load((p) + (v) * LANES) : vec_load_n(p, n))
#define POOL_STORE(p, v, value) (n >= LANES ? vec_store((p) + (v) * LANES, value) : vec_store_n(p, value, n))

/* The channels of one window: calls step(vectors, channels in the last vector, first channel). */
#define POOL_CHANNELS(step)                                                                                             \
    do {                                                                                                                \
        ptrdiff_t c = 0;                                                                                                \
        for (; c + POOL_VECTORS * LANES <= row->channels; c += POOL_VECTORS * LANES) step(POOL_VECTORS, LANES, c);      \
        for (; c + LANES <= row->channels; c += LANES) step(1, LANES, c);                                               \
        if (c < row->channels) step(1, row->channels - c, c);                                                           \
    } while (0)

/* ---- maximum ---- */

/* The greatest value and its first position in row order; a NaN is greater than all, the last one greatest (PyTorch's rule). */
INLINE void max_window(const fnn_pool_row *row, ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t position, int vectors, ptrdiff_t n,
                       real *y, int32_t *argmax, const real *x) {
    vec best[POOL_VECTORS];
    ivec where[POOL_VECTORS];
    for (int v = 0; v < vectors; v++) best[v] = vec_set1((real)-INFINITY), where[v] = ivec_set1((ireal)position);
    for (ptrdiff_t r = 0; r < rows; r++) {
        for (ptrdiff_t j = 0; j < columns; j++) {
            const real *at = x + r * row->row_step + j * row->column_step;
            const ivec here = ivec_set1((ireal)(position + r * row->position_step + j));
            for (int v = 0; v < vectors; v++) {
                const vec value = POOL_LOAD(at, v);
                const mask take = mask_or(vec_lt(best[v], value), vec_unordered(value, value));
                best[v] = vec_select(take, value, best[v]);
                where[v] = ivec_select(take, here, where[v]);
            }
        }
    }
    for (int v = 0; v < vectors; v++) {
        POOL_STORE(y, v, best[v]);
        if (argmax) ivec_store_i32(argmax + v * LANES, where[v], n);
    }
}

INLINE void max_pixel(const fnn_pool_row *row, ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t position, real *y, int32_t *argmax,
                      const real *x) {
#define STEP(vectors, n, c) max_window(row, rows, columns, position, vectors, n, y + c, argmax ? argmax + c : NULL, x + c)
    POOL_CHANNELS(STEP);
#undef STEP
}

static void max_pool_row_kernel(const fnn_pool_row *row, void *y_, int32_t *argmax, const void *x_) {
    real *y = y_;
    for (ptrdiff_t o = 0; o < row->outputs; o++, y += row->pitch) {
        const fnn_pool_window *w = &row->windows[o];
        const real *x = (const real *)x_ + w->first * row->pitch;
        const ptrdiff_t position = row->rows && w->count ? row->position + w->position : -1;
        /* The two common windows are unrolled. */
        if (row->rows == 2 && w->count == 2) max_pixel(row, 2, 2, position, y, argmax, x);
        else if (row->rows == 3 && w->count == 3) max_pixel(row, 3, 3, position, y, argmax, x);
        else max_pixel(row, row->rows, w->count, position, y, argmax, x);
        if (argmax) argmax += row->pitch;
    }
}

/* dy goes to the one position that argmax names: to the columns of this input row where it names them. */
INLINE void max_window_backward(const fnn_pool_row *row, int accumulate, ptrdiff_t columns, ptrdiff_t position, int vectors,
                                ptrdiff_t n, real *dx, const real *dy, const int32_t *argmax) {
    vec gradient[POOL_VECTORS];
    ivec where[POOL_VECTORS];
    for (int v = 0; v < vectors; v++) gradient[v] = POOL_LOAD(dy, v), where[v] = ivec_load_i32(argmax + v * LANES, n);
    for (ptrdiff_t j = 0; j < columns; j++) {
        real *to = dx + j * row->column_step;
        const ivec here = ivec_set1((ireal)(position + j));
        for (int v = 0; v < vectors; v++) {
            const vec share = vec_select(ivec_eq(where[v], here), gradient[v], vec_zero());
            POOL_STORE(to, v, accumulate ? vec_add(POOL_LOAD(to, v), share) : share);
        }
    }
}

INLINE void max_pixel_backward(const fnn_pool_row *row, int accumulate, ptrdiff_t columns, ptrdiff_t position, real *dx,
                               const real *dy, const int32_t *argmax) {
#define STEP(vectors, n, c) max_window_backward(row, accumulate, columns, position, vectors, n, dx + c, dy + c, argmax + c)
    POOL_CHANNELS(STEP);
#undef STEP
}

static void max_pool_row_backward_kernel(const fnn_pool_row *row, int accumulate, void *dx_, const void *dy_,
                                         const int32_t *argmax) {
    const real *dy = dy_;
    for (ptrdiff_t o = 0; o < row->outputs; o++, dy += row->pitch, argmax += row->pitch) {
        const fnn_pool_window *w = &row->windows[o];
        real *dx = (real *)dx_ + w->first * row->pitch;
        const ptrdiff_t position = row->position + w->position;
        if (accumulate) max_pixel_backward(row, 1, w->count, position, dx, dy, argmax);
        else if (w->count == 2) max_pixel_backward(row, 0, 2, position, dx, dy, argmax);
        else max_pixel_backward(row, 0, w->count, position, dx, dy, argmax);
    }
}

/* ---- average ---- */

INLINE vec window_divisor(const fnn_pool_row *row, const fnn_pool_window *w) {
    return vec_set1((real)(row->divisor_given ? row->divisor : row->divisor * w->extent));
}

/* Row sums first, then their sum: the error grows with height + width, not with their product. */
INLINE void avg_window(const fnn_pool_row *row, ptrdiff_t rows, ptrdiff_t columns, vec divisor, int vectors, ptrdiff_t n, real *y,
                       const real *x) {
    vec total[POOL_VECTORS];
    for (int v = 0; v < vectors; v++) total[v] = vec_zero();
    for (ptrdiff_t r = 0; r < rows; r++) {
        vec sum[POOL_VECTORS];
        for (int v = 0; v < vectors; v++) sum[v] = vec_zero();
        for (ptrdiff_t j = 0; j < columns; j++) {
            const real *at = x + r * row->row_step + j * row->column_step;
            for (int v = 0; v < vectors; v++) sum[v] = vec_add(sum[v], POOL_LOAD(at, v));
        }
        for (int v = 0; v < vectors; v++) total[v] = vec_add(total[v], sum[v]);
    }
    for (int v = 0; v < vectors; v++) POOL_STORE(y, v, vec_div(total[v], divisor));
}

INLINE void avg_pixel(const fnn_pool_row *row, ptrdiff_t rows, ptrdiff_t columns, vec divisor, real *y, const real *x) {
#define STEP(vectors, n, c) avg_window(row, rows, columns, divisor, vectors, n, y + c, x + c)
    POOL_CHANNELS(STEP);
#undef STEP
}

static void avg_pool_row_kernel(const fnn_pool_row *row, void *y_, const void *x_) {
    real *y = y_;
    for (ptrdiff_t o = 0; o < row->outputs; o++, y += row->pitch) {
        const fnn_pool_window *w = &row->windows[o];
        const real *x = (const real *)x_ + w->first * row->pitch;
        const vec divisor = window_divisor(row, w);
        if (row->rows == 2 && w->count == 2) avg_pixel(row, 2, 2, divisor, y, x);
        else avg_pixel(row, row->rows, w->count, divisor, y, x);
    }
}

INLINE void avg_window_backward(const fnn_pool_row *row, int accumulate, ptrdiff_t columns, vec divisor, int vectors, ptrdiff_t n,
                                real *dx, const real *dy) {
    vec share[POOL_VECTORS];
    for (int v = 0; v < vectors; v++) share[v] = vec_div(POOL_LOAD(dy, v), divisor);
    for (ptrdiff_t j = 0; j < columns; j++) {
        real *to = dx + j * row->column_step;
        for (int v = 0; v < vectors; v++) POOL_STORE(to, v, accumulate ? vec_add(POOL_LOAD(to, v), share[v]) : share[v]);
    }
}

INLINE void avg_pixel_backward(const fnn_pool_row *row, int accumulate, ptrdiff_t columns, vec divisor, real *dx, const real *dy) {
#define STEP(vectors, n, c) avg_window_backward(row, accumulate, columns, divisor, vectors, n, dx + c, dy + c)
    POOL_CHANNELS(STEP);
#undef STEP
}

static void avg_pool_row_backward_kernel(const fnn_pool_row *row, int accumulate, void *dx_, const void *dy_) {
    const real *dy = dy_;
    for (ptrdiff_t o = 0; o < row->outputs; o++, dy += row->pitch) {
        const fnn_pool_window *w = &row->windows[o];
        real *dx = (real *)dx_ + w->first * row->pitch;
        const vec divisor = window_divisor(row, w);
        if (accumulate) avg_pixel_backward(row, 1, w->count, divisor, dx, dy);
        else avg_pixel_backward(row, 0, w->count, divisor, dx, dy);
    }
}

#undef POOL_LOAD
#undef POOL_STORE
#undef POOL_CHANNELS

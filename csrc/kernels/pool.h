/* pool.h: pooling over channels-last pixels, a vector of channels at a time: one row of outputs forward, one row of
 * input pixels backward. x: the first input row at the map's first column; dy, argmax: the image's first output row. */

enum { POOL_VECTORS = 4 }; /* vectors of channels side by side: whole lines in a row, where maps are small and deep */

/* `n` channels in `vectors` full vectors, or in one that is not full: constants where inlined, but for a tail. */
#define POOL_LOAD(p, v) (n >= LANES ? vec_load((p) + (v) * LANES) : vec_load_n(p, n))
#define POOL_STORE(p, v, value)                                                                                        \
    (n < LANES ? vec_store_n(p, value, n)                                                                              \
     : stream ? vec_stream((p) + (v) * LANES, value)                                                                   \
              : vec_store((p) + (v) * LANES, value))

/* Of maps too large for the caches lines are fetched so many bytes ahead. */
enum { POOL_AHEAD = 1024 };
#define POOL_FETCH(p, v)                                                                                               \
    do {                                                                                                               \
        if (stream && (v) * LANES * (ptrdiff_t)sizeof(real) % FNN_LINE == 0)                                           \
            prefetch((const char *)((p) + (v) * LANES) + POOL_AHEAD);                                                  \
    } while (0)

/* How many channels a pixel has: at least a vector; fewer; fewer, and those of the pixels behind it may be read and written
 * along, which are written later: so stores need no mask. */
enum { POOL_MANY, POOL_FEW, POOL_FEW_AND_NEXT };

/* Of pixels with fewer channels than LANES, how many at the row's end must be read and written by themselves. */
INLINE ptrdiff_t pool_last(ptrdiff_t channels) { return channels ? (LANES - 1) / channels : 0; }

/* The channels of a pixel: calls step(vectors, channels in the last vector, first channel). */
#define POOL_CHANNELS(step)                                                                                            \
    do {                                                                                                               \
        ptrdiff_t c = 0;                                                                                               \
        if (few != POOL_MANY) {                                                                                        \
            step(1, few == POOL_FEW ? row->channels : LANES, c);                                                       \
            break;                                                                                                     \
        }                                                                                                              \
        for (; c + POOL_VECTORS * LANES <= row->channels; c += POOL_VECTORS * LANES) step(POOL_VECTORS, LANES, c);     \
        for (; c + LANES <= row->channels; c += LANES) step(1, LANES, c);                                              \
        if (c < row->channels) step(1, row->channels - c, c);                                                          \
    } while (0)

/* Calls body(row, few, stream, ...) with constants; `row` is a copy that no store through a pointer can change. Streams are ended by
 * whoever calls, behind the last row: a fence behind each would wait for memory (backward 1.15 to 1.2 times slower). */
#define POOL_ROW(type, body, ...)                                                                                      \
    do {                                                                                                               \
        const type copy = *row;                                                                                        \
        if (copy.channels < LANES) {                                                                                   \
            body(&copy, POOL_FEW, 0, __VA_ARGS__);                                                                     \
        } else if (!copy.stream) {                                                                                     \
            body(&copy, POOL_MANY, 0, __VA_ARGS__);                                                                    \
        } else {                                                                                                       \
            body(&copy, POOL_MANY, 1, __VA_ARGS__);                                                                    \
        }                                                                                                              \
    } while (0)

/* Outputs at the row's begin that may be written, and their windows read, together with what is behind them. */
INLINE ptrdiff_t pool_outputs_and_next(const fnn_pool_row *row) {
    const ptrdiff_t most = row->outputs - pool_last(row->channels), end = row->inputs * row->pitch;
    if (row->channels < row->pitch) return 0;
    /* With dilation a window over the right padding may end before the one ahead of it; among windows that are alike the last one
     * reaches furthest. */
    for (ptrdiff_t n = 0, alike; n < most; n += alike) {
        ptrdiff_t fit = alike = fnn_min(row->windows[n].alike, most - n);
        for (; fit > 0; fit--) {
            const fnn_pool_window *w = &row->windows[n + fit - 1];
            if (w->first * row->pitch + (w->count - 1) * row->column_step + LANES <= end) break;
        }
        if (fit < alike) return n + fit;
    }
    return fnn_max(most, 0);
}

/* ---- maximum ---- */

/* The greatest value and its first position in row order; the last NaN is greater than all (PyTorch's rule). */
INLINE void pool_max_window(const fnn_pool_row *row, int stream, ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t position,
                            int vectors, ptrdiff_t n, real *y, int32_t *argmax, const real *x) {
    vec best[POOL_VECTORS];
    ivec where[POOL_VECTORS];
    for (int v = 0; v < vectors; v++) best[v] = vec_set1((real)-INFINITY), where[v] = ivec_set1((ireal)position);
    for (ptrdiff_t r = 0; r < rows; r++) {
        for (ptrdiff_t j = 0; j < columns; j++) {
            const real *at = x + r * row->row_step + j * row->column_step;
            const ivec here = ivec_set1((ireal)(position + r * row->position_step + j));
            for (int v = 0; v < vectors; v++) {
                POOL_FETCH(at, v);
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

INLINE void pool_max_pixel(const fnn_pool_row *row, int few, int stream, ptrdiff_t rows, ptrdiff_t columns,
                           ptrdiff_t position, real *y, int32_t *argmax, const real *x) {
#define STEP(vectors, n, c)                                                                                            \
    pool_max_window(row, stream, rows, columns, position, vectors, n, y + c, argmax ? argmax + c : NULL, x + c)
    POOL_CHANNELS(STEP);
#undef STEP
}

/* `n` windows like w, side by side. */
INLINE void pool_max_alike(const fnn_pool_row *row, int few, int stream, ptrdiff_t rows, ptrdiff_t columns,
                           const fnn_pool_window *w, ptrdiff_t n, ptrdiff_t position, real *y, int32_t *argmax, const real *x) {
    const ptrdiff_t step = w->step * row->pitch;
    x += w->first * row->pitch;
    for (; n > 0; n--, x += step, y += row->pitch) {
        pool_max_pixel(row, few, stream, rows, columns, position, y, argmax, x);
        if (argmax) argmax += row->pitch;
    }
}

INLINE void pool_max_outputs(const fnn_pool_row *row, int few, int stream, ptrdiff_t begin, ptrdiff_t end, real *y, int32_t *argmax,
                             const real *x) {
    for (ptrdiff_t o = begin, n; o < end; o += n) {
        const fnn_pool_window *w = &row->windows[o];
        real *to = y + o * row->pitch;
        int32_t *where = argmax ? argmax + o * row->pitch : NULL;
        const ptrdiff_t position = row->rows && w->count ? row->position + w->position : -1;
        n = fnn_min(w->alike, end - o);
        /* The two common windows are unrolled. */
        if (row->rows == 2 && w->count == 2) pool_max_alike(row, few, stream, 2, 2, w, n, position, to, where, x);
        else if (row->rows == 3 && w->count == 3) pool_max_alike(row, few, stream, 3, 3, w, n, position, to, where, x);
        else pool_max_alike(row, few, stream, row->rows, w->count, w, n, position, to, where, x);
    }
}

enum { POOL_HELD = 4096 }; /* positions that wait in the nearest cache */

/* A row's maxima go past the caches at once, their positions piece by piece: written by turns, two results leave memory's writes
 * half empty (64 MB on two Zen 3 cores: 1.15 to 1.2 times slower). */
INLINE void pool_max_stream(const fnn_pool_row *row, real *y, int32_t *argmax, const real *x) {
    int32_t held[POOL_HELD];
    fnn_pool_row piece = *row;
    for (ptrdiff_t o = 0; o < row->outputs; o += piece.outputs) {
        piece.windows = row->windows + o;
        piece.outputs = fnn_min(POOL_HELD / row->pitch, row->outputs - o);
        pool_max_outputs(&piece, POOL_MANY, 1, 0, piece.outputs, y + o * row->pitch, held, x);
        fnn_transfer t = fnn_transfer_of(argmax + o * row->pitch, held, piece.outputs * row->pitch * (ptrdiff_t)sizeof *held);
        transfer_kernel(&t);
    }
}

INLINE void pool_max_row(const fnn_pool_row *row, int few, int stream, real *y, int32_t *argmax, const real *x) {
    const ptrdiff_t most = few ? pool_outputs_and_next(row) : 0;
    if (stream && argmax && row->channels == row->pitch && row->pitch <= POOL_HELD) {
        pool_max_stream(row, y, argmax, x);
        return;
    }
    if (few) pool_max_outputs(row, POOL_FEW_AND_NEXT, 0, 0, most, y, argmax, x);
    pool_max_outputs(row, few, stream, most, row->outputs, y, argmax, x);
}

static void max_pool_row_kernel(const fnn_pool_row *row, void *y, int32_t *argmax, const void *x) {
    if (argmax) POOL_ROW(fnn_pool_row, pool_max_row, y, argmax, x);
    else POOL_ROW(fnn_pool_row, pool_max_row, y, NULL, x);
}

/* dx: the sum of dy over the windows whose argmax names this pixel, in their order. */
INLINE void pool_max_sum(const fnn_pool_gather *row, int stream, ptrdiff_t num_rows, const fnn_pool_link *columns,
                         ptrdiff_t num_columns, int vectors, ptrdiff_t n, real *dx, const real *dy,
                         const int32_t *argmax) {
    vec sum[POOL_VECTORS];
    for (int v = 0; v < vectors; v++) sum[v] = vec_zero();
    for (ptrdiff_t r = 0; r < num_rows; r++) {
        const ptrdiff_t line = row->rows[r].output * row->row_pitch;
        const ptrdiff_t position = row->rows[r].position * row->position_step;
        for (ptrdiff_t j = 0; j < num_columns; j++) {
            const ptrdiff_t at = line + columns[j].output * row->pitch;
            const ivec here = ivec_set1((ireal)(position + columns[j].position));
            for (int v = 0; v < vectors; v++) {
                const mask ours = ivec_eq(ivec_load_i32(argmax + at + v * LANES, n), here);
                sum[v] = vec_add(sum[v], vec_select(ours, POOL_LOAD(dy + at, v), vec_zero()));
            }
        }
    }
    for (int v = 0; v < vectors; v++) POOL_STORE(dx, v, sum[v]);
}

/* Runs, of pixels from i and windows from o on, that may be written and read together with what is behind them. */
INLINE ptrdiff_t pool_runs_and_next(const fnn_pool_gather *row, ptrdiff_t i, ptrdiff_t o, ptrdiff_t runs, ptrdiff_t width) {
    const ptrdiff_t last = pool_last(row->channels);
    if (row->channels < row->pitch) return 0;
    ptrdiff_t n = fnn_min(runs, row->outputs - o - last);
    while (n > 0 && i + n * width + last > row->inputs) n--;
    return fnn_max(n, 0);
}

/* dx: dy where argmax names the pixel, for `width` pixels of one window that no other window holds. */
INLINE void pool_max_spread(const fnn_pool_gather *row, int stream, ptrdiff_t width, ptrdiff_t position, int vectors,
                            ptrdiff_t n, real *dx, const real *dy, const int32_t *argmax) {
    vec gradient[POOL_VECTORS];
    ivec where[POOL_VECTORS];
    for (int v = 0; v < vectors; v++) {
        POOL_FETCH(dy, v);
        POOL_FETCH(argmax, v);
        gradient[v] = POOL_LOAD(dy, v), where[v] = n >= LANES ? ivec_load_i32(argmax + v * LANES, LANES) : ivec_load_i32(argmax, n);
    }
    for (ptrdiff_t j = 0; j < width; j++, dx += row->pitch) {
        const ivec here = ivec_set1((ireal)(position + j));
        for (int v = 0; v < vectors; v++) {
            const vec value = vec_select(ivec_eq(where[v], here), gradient[v], vec_zero());
            POOL_STORE(dx, v, value);
        }
    }
}

/* `runs` runs of `width` pixels, side by side like the windows that hold them. */
INLINE void pool_max_runs(const fnn_pool_gather *row, int few, int stream, ptrdiff_t runs, ptrdiff_t width, ptrdiff_t position,
                          real *dx, const real *dy, const int32_t *argmax) {
    for (ptrdiff_t i = 0; i < runs; i++, dx += width * row->pitch, dy += row->pitch, argmax += row->pitch) {
#define STEP(vectors, n, c) pool_max_spread(row, stream, width, position, vectors, n, dx + c, dy + c, argmax + c)
        POOL_CHANNELS(STEP);
#undef STEP
    }
}

INLINE void pool_max_window_runs(const fnn_pool_gather *row, int few, int stream, ptrdiff_t i, ptrdiff_t runs,
                                 ptrdiff_t width, real *dx, const real *dy, const int32_t *argmax) {
    const fnn_pool_link *column = row->columns + row->starts[i];
    const ptrdiff_t at = row->rows->output * row->row_pitch + column->output * row->pitch;
    const ptrdiff_t and_next = few ? pool_runs_and_next(row, i, column->output, runs, width) : 0;
    const ptrdiff_t position = row->rows->position * row->position_step + column->position;
    dx += i * row->pitch, dy += at, argmax += at;
    if (few) {
        pool_max_runs(row, POOL_FEW_AND_NEXT, 0, and_next, width, position, dx, dy, argmax);
        dx += and_next * width * row->pitch, dy += and_next * row->pitch, argmax += and_next * row->pitch;
    }
    pool_max_runs(row, few, stream, runs - and_next, width, position, dx, dy, argmax);
}

INLINE void pool_max_gather(const fnn_pool_gather *row, int few, int stream, real *dx, const real *dy, const int32_t *argmax) {
    for (const fnn_pool_stretch *s = row->stretches; s < row->stretches + row->num_stretches; s++) {
        if (row->num_rows == 1 && s->windows == 1) {
            if (s->width == 2) pool_max_window_runs(row, few, stream, s->first, s->runs, 2, dx, dy, argmax);
            else pool_max_window_runs(row, few, stream, s->first, s->runs, s->width, dx, dy, argmax);
            continue;
        }
        const ptrdiff_t end = s->first + s->runs * s->width;
        for (ptrdiff_t i = s->first; i < end; i++) {
            const fnn_pool_link *columns = row->columns + row->starts[i];
            real *to = dx + i * row->pitch;
#define STEP(vectors, n, c) pool_max_sum(row, stream, row->num_rows, columns, s->windows, vectors, n, to + c, dy + c, argmax + c)
            POOL_CHANNELS(STEP);
#undef STEP
        }
    }
}

static void max_pool_gather_kernel(const fnn_pool_gather *row, void *dx, const void *dy, const int32_t *argmax) {
    POOL_ROW(fnn_pool_gather, pool_max_gather, dx, dy, argmax);
}

/* ---- average ---- */

/* Row sums first, then their sum: the error grows with height + width, not with their product. */
INLINE void pool_avg_window(const fnn_pool_row *row, int stream, ptrdiff_t rows, ptrdiff_t columns, vec divisor,
                            int vectors, ptrdiff_t n, real *y, const real *x) {
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

INLINE void pool_avg_pixel(const fnn_pool_row *row, int few, int stream, ptrdiff_t rows, ptrdiff_t columns, vec divisor,
                           real *y, const real *x) {
#define STEP(vectors, n, c) pool_avg_window(row, stream, rows, columns, divisor, vectors, n, y + c, x + c)
    POOL_CHANNELS(STEP);
#undef STEP
}

/* `n` windows like w, side by side. */
INLINE void pool_avg_alike(const fnn_pool_row *row, int few, int stream, ptrdiff_t rows, ptrdiff_t columns,
                           const fnn_pool_window *w, ptrdiff_t n, vec divisor, real *y, const real *x) {
    const ptrdiff_t step = w->step * row->pitch;
    x += w->first * row->pitch;
    for (; n > 0; n--, x += step, y += row->pitch) {
        pool_avg_pixel(row, few, stream, rows, columns, divisor, y, x);
    }
}

INLINE void pool_avg_outputs(const fnn_pool_row *row, int few, int stream, ptrdiff_t begin, ptrdiff_t end, real *y,
                             const real *x) {
    for (ptrdiff_t o = begin, n; o < end; o += n) {
        const fnn_pool_window *w = &row->windows[o];
        real *to = y + o * row->pitch;
        const vec divisor = vec_set1((real)(row->divisor_given ? row->divisor : row->divisor * w->extent));
        n = fnn_min(w->alike, end - o);
        if (row->rows == 2 && w->count == 2) pool_avg_alike(row, few, stream, 2, 2, w, n, divisor, to, x);
        else pool_avg_alike(row, few, stream, row->rows, w->count, w, n, divisor, to, x);
    }
}

INLINE void pool_avg_row(const fnn_pool_row *row, int few, int stream, real *y, const real *x) {
    const ptrdiff_t most = few ? pool_outputs_and_next(row) : 0;
    if (few) pool_avg_outputs(row, POOL_FEW_AND_NEXT, 0, 0, most, y, x);
    pool_avg_outputs(row, few, stream, most, row->outputs, y, x);
}

static void avg_pool_row_kernel(const fnn_pool_row *row, void *y, const void *x) {
    POOL_ROW(fnn_pool_row, pool_avg_row, y, x);
}

/* dx: the sum of dy / divisor over the windows that hold this pixel; one division a window. */
INLINE void pool_avg_sum(const fnn_pool_gather *row, int stream, ptrdiff_t num_rows, const fnn_pool_link *columns,
                         ptrdiff_t num_columns, int vectors, ptrdiff_t n, real *dx, const real *dy) {
    vec sum[POOL_VECTORS];
    for (int v = 0; v < vectors; v++) sum[v] = vec_zero();
    for (ptrdiff_t r = 0; r < num_rows; r++) {
        for (ptrdiff_t j = 0; j < num_columns; j++) {
            const ptrdiff_t at = row->rows[r].output * row->row_pitch + columns[j].output * row->pitch;
            const ptrdiff_t divisor = row->divisor ? row->divisor : row->rows[r].extent * columns[j].extent;
            const vec share = vec_set1((real)(1 / (double)divisor));
            for (int v = 0; v < vectors; v++) sum[v] = vec_fma(POOL_LOAD(dy + at, v), share, sum[v]);
        }
    }
    for (int v = 0; v < vectors; v++) POOL_STORE(dx, v, sum[v]);
}

/* dx: dy / divisor, for `width` pixels of one window that no other window holds. */
INLINE void pool_avg_spread(const fnn_pool_gather *row, int stream, ptrdiff_t width, vec share, int vectors, ptrdiff_t n, real *dx,
                            const real *dy) {
    vec value[POOL_VECTORS];
    for (int v = 0; v < vectors; v++) {
        POOL_FETCH(dy, v);
        value[v] = vec_fma(POOL_LOAD(dy, v), share, vec_zero());
    }
    for (ptrdiff_t j = 0; j < width; j++, dx += row->pitch)
        for (int v = 0; v < vectors; v++) POOL_STORE(dx, v, value[v]);
}

/* `runs` runs of `width` pixels, side by side like the windows that hold them. */
INLINE void pool_avg_runs(const fnn_pool_gather *row, int few, int stream, ptrdiff_t runs, ptrdiff_t width, vec share,
                          real *dx, const real *dy) {
    for (ptrdiff_t i = 0; i < runs; i++, dx += width * row->pitch, dy += row->pitch) {
#define STEP(vectors, n, c) pool_avg_spread(row, stream, width, share, vectors, n, dx + c, dy + c)
        POOL_CHANNELS(STEP);
#undef STEP
    }
}

INLINE void pool_avg_window_runs(const fnn_pool_gather *row, int few, int stream, ptrdiff_t i, ptrdiff_t runs,
                                 ptrdiff_t width, real *dx, const real *dy) {
    const fnn_pool_link *column = row->columns + row->starts[i];
    const ptrdiff_t at = row->rows->output * row->row_pitch + column->output * row->pitch;
    const ptrdiff_t and_next = few ? pool_runs_and_next(row, i, column->output, runs, width) : 0;
    const ptrdiff_t divisor = row->divisor ? row->divisor : row->rows->extent * column->extent;
    const vec share = vec_set1((real)(1 / (double)divisor));
    dx += i * row->pitch, dy += at;
    if (few) {
        pool_avg_runs(row, POOL_FEW_AND_NEXT, 0, and_next, width, share, dx, dy);
        dx += and_next * width * row->pitch, dy += and_next * row->pitch;
    }
    pool_avg_runs(row, few, stream, runs - and_next, width, share, dx, dy);
}

INLINE void pool_avg_gather(const fnn_pool_gather *row, int few, int stream, real *dx, const real *dy) {
    for (const fnn_pool_stretch *s = row->stretches; s < row->stretches + row->num_stretches; s++) {
        if (row->num_rows == 1 && s->windows == 1) {
            if (s->width == 2) pool_avg_window_runs(row, few, stream, s->first, s->runs, 2, dx, dy);
            else pool_avg_window_runs(row, few, stream, s->first, s->runs, s->width, dx, dy);
            continue;
        }
        const ptrdiff_t end = s->first + s->runs * s->width;
        for (ptrdiff_t i = s->first; i < end; i++) {
            const fnn_pool_link *columns = row->columns + row->starts[i];
            real *to = dx + i * row->pitch;
#define STEP(vectors, n, c) pool_avg_sum(row, stream, row->num_rows, columns, s->windows, vectors, n, to + c, dy + c)
            POOL_CHANNELS(STEP);
#undef STEP
        }
    }
}

static void avg_pool_gather_kernel(const fnn_pool_gather *row, void *dx, const void *dy) {
    POOL_ROW(fnn_pool_gather, pool_avg_gather, dx, dy);
}

#undef POOL_LOAD
#undef POOL_STORE
#undef POOL_FETCH
#undef POOL_CHANNELS
#undef POOL_ROW

/* ---- windows of 2 x 2, spread out ---- */

/* pool_spread: two rows of pixels (2 windows x channels): the gradient of a maximum where it was, else 0. What a vector writes behind its
 * channels, the next pixel overwrites. */
static void pool_spread_kernel(ptrdiff_t windows, ptrdiff_t channels, const void *dy, const int32_t *argmax, void *upper,
                               void *lower) {
    for (ptrdiff_t i = 0, at = 0, left = windows * channels; i < windows; i++, at += channels, left -= channels)
#pragma GCC unroll 4
        for (int q = 0; q < 4; q++) {
            const ptrdiff_t behind = q % 2 * channels;
            real *to = (real *)(q < 2 ? upper : lower) + 2 * at + behind;
            for (ptrdiff_t k = 0; k < channels; k += LANES) {
                const ptrdiff_t n = left - k < LANES ? left - k : LANES;
                const mask here = ivec_eq(ivec_load_i32(argmax + at + k, n), ivec_set1(q));
                store_lanes(to + k, vec_select(here, load_lanes((const real *)dy + at + k, n), vec_zero()), 2 * left - behind - k);
            }
        }
}

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

/* The channels of a pixel: calls step(vectors, channels in the last vector, first channel). few: one vector will do. */
#define POOL_CHANNELS(step)                                                                                            \
    do {                                                                                                               \
        ptrdiff_t c = 0;                                                                                               \
        if (few) {                                                                                                     \
            step(1, row->channels, c);                                                                                 \
            break;                                                                                                     \
        }                                                                                                              \
        for (; c + POOL_VECTORS * LANES <= row->channels; c += POOL_VECTORS * LANES) step(POOL_VECTORS, LANES, c);     \
        for (; c + LANES <= row->channels; c += LANES) step(1, LANES, c);                                              \
        if (c < row->channels) step(1, row->channels - c, c);                                                          \
    } while (0)

/* Calls body(row, few, stream, ...) with constants; `row` is a copy that no store through a pointer can change. */
#define POOL_ROW(type, body, ...)                                                                                      \
    do {                                                                                                               \
        const type copy = *row;                                                                                        \
        if (copy.channels < LANES) {                                                                                   \
            body(&copy, 1, 0, __VA_ARGS__);                                                                            \
        } else if (!copy.stream) {                                                                                     \
            body(&copy, 0, 0, __VA_ARGS__);                                                                            \
        } else {                                                                                                       \
            body(&copy, 0, 1, __VA_ARGS__);                                                                            \
            vec_stream_end();                                                                                          \
        }                                                                                                              \
    } while (0)

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
        if (!argmax) continue;
        if (stream && n >= LANES) ivec_stream_i32(argmax + v * LANES, where[v]);
        else ivec_store_i32(argmax + v * LANES, where[v], n);
    }
}

INLINE void pool_max_pixel(const fnn_pool_row *row, int few, int stream, ptrdiff_t rows, ptrdiff_t columns,
                           ptrdiff_t position, real *y, int32_t *argmax, const real *x) {
#define STEP(vectors, n, c)                                                                                            \
    pool_max_window(row, stream, rows, columns, position, vectors, n, y + c, argmax ? argmax + c : NULL, x + c)
    POOL_CHANNELS(STEP);
#undef STEP
}

INLINE void pool_max_row(const fnn_pool_row *row, int few, int stream, real *y, int32_t *argmax, const real *x) {
    for (ptrdiff_t o = 0; o < row->outputs; o++, y += row->pitch) {
        const fnn_pool_window *w = &row->windows[o];
        const real *from = x + w->first * row->pitch;
        const ptrdiff_t position = row->rows && w->count ? row->position + w->position : -1;
        /* The two common windows are unrolled. */
        if (row->rows == 2 && w->count == 2) pool_max_pixel(row, few, stream, 2, 2, position, y, argmax, from);
        else if (row->rows == 3 && w->count == 3) pool_max_pixel(row, few, stream, 3, 3, position, y, argmax, from);
        else pool_max_pixel(row, few, stream, row->rows, w->count, position, y, argmax, from);
        if (argmax) argmax += row->pitch;
    }
}

static void max_pool_row_kernel(const fnn_pool_row *row, void *y, int32_t *argmax, const void *x) {
    POOL_ROW(fnn_pool_row, pool_max_row, y, argmax, x);
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

INLINE void pool_max_run(const fnn_pool_gather *row, int few, int stream, ptrdiff_t width, const fnn_pool_link *column,
                         real *dx, const real *dy, const int32_t *argmax) {
    const ptrdiff_t at = row->rows->output * row->row_pitch + column->output * row->pitch;
    const ptrdiff_t position = row->rows->position * row->position_step + column->position;
#define STEP(vectors, n, c)                                                                                            \
    pool_max_spread(row, stream, width, position, vectors, n, dx + c, dy + at + c, argmax + at + c)
    POOL_CHANNELS(STEP);
#undef STEP
}

INLINE void pool_max_gather(const fnn_pool_gather *row, int few, int stream, real *dx, const real *dy,
                            const int32_t *argmax) {
    const ptrdiff_t *run = row->runs;
    for (ptrdiff_t i = 0; i < row->inputs; run++) {
        const fnn_pool_link *columns = row->columns + row->starts[i];
        const ptrdiff_t count = row->starts[i + 1] - row->starts[i];
        if (row->num_rows == 1 && count == 1) {
            if (*run == 2) pool_max_run(row, few, stream, 2, columns, dx, dy, argmax);
            else pool_max_run(row, few, stream, *run, columns, dx, dy, argmax);
            i += *run;
            dx += *run * row->pitch;
            continue;
        }
        for (const ptrdiff_t end = i + *run; i < end; i++, dx += row->pitch, columns += count) {
#define STEP(vectors, n, c)                                                                                            \
    pool_max_sum(row, stream, row->num_rows, columns, count, vectors, n, dx + c, dy + c, argmax + c)
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

INLINE void pool_avg_row(const fnn_pool_row *row, int few, int stream, real *y, const real *x) {
    for (ptrdiff_t o = 0; o < row->outputs; o++, y += row->pitch) {
        const fnn_pool_window *w = &row->windows[o];
        const real *from = x + w->first * row->pitch;
        const vec divisor = vec_set1((real)(row->divisor_given ? row->divisor : row->divisor * w->extent));
        if (row->rows == 2 && w->count == 2) pool_avg_pixel(row, few, stream, 2, 2, divisor, y, from);
        else pool_avg_pixel(row, few, stream, row->rows, w->count, divisor, y, from);
    }
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

INLINE void pool_avg_run(const fnn_pool_gather *row, int few, int stream, ptrdiff_t width, const fnn_pool_link *column, real *dx,
                         const real *dy) {
    const ptrdiff_t at = row->rows->output * row->row_pitch + column->output * row->pitch;
    const ptrdiff_t divisor = row->divisor ? row->divisor : row->rows->extent * column->extent;
    const vec share = vec_set1((real)(1 / (double)divisor));
#define STEP(vectors, n, c) pool_avg_spread(row, stream, width, share, vectors, n, dx + c, dy + at + c)
    POOL_CHANNELS(STEP);
#undef STEP
}

INLINE void pool_avg_gather(const fnn_pool_gather *row, int few, int stream, real *dx, const real *dy) {
    const ptrdiff_t *run = row->runs;
    for (ptrdiff_t i = 0; i < row->inputs; run++) {
        const fnn_pool_link *columns = row->columns + row->starts[i];
        const ptrdiff_t count = row->starts[i + 1] - row->starts[i];
        if (row->num_rows == 1 && count == 1) {
            if (*run == 2) pool_avg_run(row, few, stream, 2, columns, dx, dy);
            else pool_avg_run(row, few, stream, *run, columns, dx, dy);
            i += *run;
            dx += *run * row->pitch;
            continue;
        }
        for (const ptrdiff_t end = i + *run; i < end; i++, dx += row->pitch, columns += count) {
#define STEP(vectors, n, c) pool_avg_sum(row, stream, row->num_rows, columns, count, vectors, n, dx + c, dy + c)
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

/* softmax.h: softmax and its logarithm along dense rows, forward and backward. Every row is shifted by its maximum, so that no
 * exponential overflows; a row without a finite maximum gives NaN, as in PyTorch. */

enum {
    SHORT_VECTORS = 4,                /* a row of at most so many vectors stays in registers */
    STREAM_ROW = 16384 / sizeof(real) /* a longer one is not written past the caches: it is read twice, from the nearest of them */
};

/* Runs the statements for element i on, `lanes` of them at a time, over a row whose results go to y: up to where y is a multiple
 * of a vector, whole vectors, the rest. An element does not depend on its place, so that no bit does on y. */
#define EACH_ALIGNED(y, ...)                                                                                            \
    do {                                                                                                                \
        const ptrdiff_t head = fnn_min(n, (ptrdiff_t)(-(uintptr_t)(y) % sizeof(vec) / sizeof(real)));                   \
        if (head > 0) {                                                                                                 \
            const ptrdiff_t i = 0, lanes = head;                                                                        \
            __VA_ARGS__                                                                                                 \
        }                                                                                                               \
        EACH_LANES_FROM(head, __VA_ARGS__);                                                                             \
    } while (0)

/* To a multiple of a vector, if the vector is whole. */
INLINE void stream_lanes(real *y, vec v, ptrdiff_t lanes) {
    if (lanes >= LANES) vec_stream(y, v);
    else vec_store_n(y, v, lanes);
}

/* exp(x - m) over n elements, m their maximum, kept in y unless y is NULL; returns the sum, four vectors in a tree, the trees in
 * sequence. Meanwhile the same places of `ahead` are fetched, unless it is NULL: of a row's passes this one computes most, which
 * hides the memory's latency (16 MB and more on two Zen 3 cores: 1.45 times faster than fetching while results are written). */
INLINE real exp_sum(ptrdiff_t n, const real *x, real m, real *y, const real *ahead) {
    const vec shift = vec_set1(m);
    vec total = vec_zero();
    ptrdiff_t i = 0;
    while (i + 4 * LANES <= n) {
        vec part = vec_zero();
        for (int t = 0; t < 32 && i + 4 * LANES <= n; t++, i += 4 * LANES) {
            vec e[4];
            for (int k = 0; k < 4; k++) {
                if (ahead && k * sizeof(vec) % FNN_LINE == 0) prefetch(ahead + i + k * LANES);
                e[k] = vec_exp_down(vec_sub(vec_load(x + i + k * LANES), shift));
                if (y) vec_store(y + i + k * LANES, e[k]);
            }
            part = vec_add(part, vec_add(vec_add(e[0], e[1]), vec_add(e[2], e[3])));
        }
        total = vec_add(total, part);
    }
    for (ptrdiff_t left; (left = n - i) > 0; i += LANES) {
        vec e = vec_exp_down(vec_sub(load_lanes(x + i, left), shift));
        if (y) store_lanes(y + i, e, left);
        total = vec_add(total, left < LANES ? vec_select(mask_first(left), e, vec_zero()) : e);
    }
    return vec_sum(total);
}

/* log of one number, by the same vector function on every ISA's lanes. */
INLINE real log_of(real a) {
    real lanes[LANES];
    vec_store(lanes, vec_log(vec_set1(a)));
    return lanes[0];
}

/* a / b, share being 1 / b: without a division for each, and but for rare last bits rounded as one (P. Markstein, "Computation of
 * elementary functions on the IBM RISC System/6000 processor", 1990). */
INLINE vec quotient(vec a, vec b, vec share) {
    const vec near = vec_mul(a, share);
    return vec_fma(vec_fnma(near, b, a), share, near);
}

/* made: where exponentials are kept, y itself unless y is streamed. */
INLINE void softmax_row(ptrdiff_t n, const real *x, real *y, real *made, int logarithm, int stream) {
    const real m = max_row(n, x), sum = exp_sum(n, x, m, logarithm ? NULL : made, stream ? x + n : NULL);
    const vec shift = vec_set1(m), last = vec_set1(logarithm ? log_of(sum) : sum), share = vec_set1(1 / sum);
#define RESULT(lanes)                                                                                                   \
    logarithm ? vec_sub(vec_sub(load_lanes(x + i, lanes), shift), last) : quotient(load_lanes(made + i, lanes), last, share)
    if (stream) EACH_ALIGNED(y, stream_lanes(y + i, RESULT(lanes), lanes););
    else EACH_LANES(store_lanes(y + i, RESULT(lanes), lanes););
#undef RESULT
}

/* One row of `count` vectors, the last one holding `left` elements: v = x - max(x), e = exp(v); returns the sum of e. */
INLINE real exp_short(int count, ptrdiff_t left, const real *x, vec *v, vec *e) {
    for (int k = 0; k < count - 1; k++) v[k] = vec_load(x + k * LANES);
    v[count - 1] = vec_select(mask_first(left), vec_load_n(x + (count - 1) * LANES, left), vec_set1(-(real)INFINITY));
    vec top = v[0];
    for (int k = 1; k < count; k++) top = vec_max(top, v[k]);
    const vec shift = vec_set1(vec_hmax(top)); /* a NaN that is lost here still makes the sum NaN */
    vec total = vec_zero();
    for (int k = 0; k < count; k++) {
        v[k] = vec_sub(v[k], shift);
        e[k] = vec_exp_down(v[k]);
        total = vec_add(total, e[k]);
    }
    return vec_sum(total);
}

INLINE void store_short(int count, ptrdiff_t left, real *y, const vec *v) {
    for (int k = 0; k < count - 1; k++) vec_store(y + k * LANES, v[k]);
    vec_store_n(y + (count - 1) * LANES, v[count - 1], left);
}

/* Short rows, in registers; count is a constant where this is inlined. */
INLINE void softmax_short(int count, ptrdiff_t rows, ptrdiff_t n, const real *x, real *y) {
    const ptrdiff_t left = n - (count - 1) * LANES;
    for (ptrdiff_t r = 0; r < rows; r++, x += n, y += n) {
        vec v[SHORT_VECTORS], e[SHORT_VECTORS];
        const vec sum = vec_set1(exp_short(count, left, x, v, e));
        for (int k = 0; k < count; k++) e[k] = vec_div(e[k], sum);
        store_short(count, left, y, e);
    }
}

/* Blocks of rows: the logarithms of their sums are taken a vector at a time. */
INLINE void log_softmax_short(int count, ptrdiff_t rows, ptrdiff_t n, const real *x, real *y) {
    enum { BLOCK = 64 };
    const ptrdiff_t left = n - (count - 1) * LANES;
    real sum[BLOCK];
    for (int k = 0; k < BLOCK; k++) sum[k] = 1;
    for (ptrdiff_t from = 0; from < rows; from += BLOCK) {
        const ptrdiff_t block = fnn_min(rows - from, BLOCK);
        vec v[SHORT_VECTORS], e[SHORT_VECTORS];
        for (ptrdiff_t r = 0; r < block; r++) {
            sum[r] = exp_short(count, left, x + (from + r) * n, v, e);
            store_short(count, left, y + (from + r) * n, v);
        }
        for (ptrdiff_t r = 0; r < block; r += LANES) vec_store(sum + r, vec_log(vec_load(sum + r)));
        for (ptrdiff_t r = 0; r < block; r++) {
            real *row = y + (from + r) * n;
            for (int k = 0; k < count; k++)
                v[k] = vec_sub(load_lanes(row + k * LANES, n - k * LANES), vec_set1(sum[r]));
            store_short(count, left, row, v);
        }
    }
}

INLINE void softmax_all(ptrdiff_t rows, ptrdiff_t n, const real *x, real *y, int logarithm, int stream) {
#define SHORT(count)                                                                                                    \
    case count:                                                                                                         \
        if (logarithm) log_softmax_short(count, rows, n, x, y);                                                         \
        else softmax_short(count, rows, n, x, y);                                                                       \
        return
    switch ((n + LANES - 1) / LANES) {
        SHORT(1);
        SHORT(2);
        SHORT(3);
        SHORT(4);
    }
#undef SHORT
    real made[STREAM_ROW];
    stream &= n <= STREAM_ROW;
    for (ptrdiff_t r = 0; r < rows; r++) {
        if (stream) softmax_row(n, x + r * n, y + r * n, made, logarithm, 1);
        else softmax_row(n, x + r * n, y + r * n, y + r * n, logarithm, 0);
    }
    if (stream) vec_stream_end();
}

/* y = exp(x) / sum of exp(x) along each row; x, y: (rows, n), may be the same memory */
static void softmax_rows_kernel(ptrdiff_t rows, ptrdiff_t n, const void *x, void *y, int stream) {
    softmax_all(rows, n, x, y, 0, stream);
}

/* y = x - log(sum of exp(x)) along each row; x, y: (rows, n), may be the same memory */
static void log_softmax_rows_kernel(ptrdiff_t rows, ptrdiff_t n, const void *x, void *y, int stream) {
    softmax_all(rows, n, x, y, 1, stream);
}

/* y: (rows) logarithms of the sums of exp(x); x: (rows, n). A maximum of +-inf is the answer itself. */
static void logsumexp_rows_kernel(ptrdiff_t rows, ptrdiff_t n, const void *x_, void *y_, int stream) {
    (void)stream;
    for (ptrdiff_t r = 0; r < rows; r++) {
        const real *x = (const real *)x_ + r * n, m = max_row(n, x);
        ((real *)y_)[r] = m - m == 0 ? m + log_of(exp_sum(n, x, m, NULL, NULL)) : m;
    }
}

/* Sum of a * b, in the order of exp_sum. */
INLINE real dot_row(ptrdiff_t n, const real *a, const real *b) {
    vec total = vec_zero();
    ptrdiff_t i = 0;
    while (i + 4 * LANES <= n) {
        vec part = vec_zero();
        for (int t = 0; t < 32 && i + 4 * LANES <= n; t++, i += 4 * LANES) {
            vec p[4];
            for (int k = 0; k < 4; k++) p[k] = vec_mul(vec_load(a + i + k * LANES), vec_load(b + i + k * LANES));
            part = vec_add(part, vec_add(vec_add(p[0], p[1]), vec_add(p[2], p[3])));
        }
        total = vec_add(total, part);
    }
    for (ptrdiff_t left; (left = n - i) > 0; i += LANES)
        total = vec_add(total, vec_mul(load_lanes(a + i, left), load_lanes(b + i, left)));
    return vec_sum(total);
}

/* dx = y (dy - sum of dy y along the row); all (rows, n); dx may be dy */
static void softmax_backward_rows_kernel(ptrdiff_t rows, ptrdiff_t n, const void *dy_, const void *y_, void *dx_, int stream) {
    for (ptrdiff_t r = 0; r < rows; r++) {
        const real *dy = (const real *)dy_ + r * n, *y = (const real *)y_ + r * n;
        real *dx = (real *)dx_ + r * n;
        const vec mean = vec_set1(dot_row(n, dy, y));
        if (stream) {
            EACH_ALIGNED(dx, prefetch(dy + n + i); prefetch(y + n + i);
                         vec g = vec_sub(load_lanes(dy + i, lanes), mean);
                         stream_lanes(dx + i, vec_mul(load_lanes(y + i, lanes), g), lanes););
            continue;
        }
        for (ptrdiff_t i = 0; i < n; i += LANES) {
            ptrdiff_t left = n - i;
            store_lanes(dx + i, vec_mul(load_lanes(y + i, left), vec_sub(load_lanes(dy + i, left), mean)), left);
        }
    }
    if (stream) vec_stream_end();
}

/* dx = dy - exp(y) (sum of dy along the row); y: the logarithms; all (rows, n); dx may be dy */
static void log_softmax_backward_rows_kernel(ptrdiff_t rows, ptrdiff_t n, const void *dy_, const void *y_, void *dx_, int stream) {
    for (ptrdiff_t r = 0; r < rows; r++) {
        const real *dy = (const real *)dy_ + r * n, *y = (const real *)y_ + r * n;
        real *dx = (real *)dx_ + r * n;
        const vec sum = vec_set1(sum_row(n, dy));
        if (stream) {
            EACH_ALIGNED(dx, prefetch(dy + n + i); prefetch(y + n + i);
                         vec p = vec_exp_down(load_lanes(y + i, lanes));
                         stream_lanes(dx + i, vec_fnma(p, sum, load_lanes(dy + i, lanes)), lanes););
            continue;
        }
        for (ptrdiff_t i = 0; i < n; i += LANES) {
            ptrdiff_t left = n - i;
            store_lanes(dx + i, vec_fnma(vec_exp_down(load_lanes(y + i, left)), sum, load_lanes(dy + i, left)), left);
        }
    }
    if (stream) vec_stream_end();
}

/* conv_taps.h: gradients of the weights of one input channel and few output channels: lanes are a row of the kernel, at most eight,
 * and an octet of sums for each row and channel stays in a register. An element is one chain over all pixels, which
 * are taken as blocks of 2 x 2: so what max pooling lets through, a pixel of each block and channel, is the same chain without its zeros. */

/* How many channels' sums the registers hold, and where a pixel's window is in registers, too. */
#if REGISTERS == 32
#define TAPS_CHANNELS(taps) (30 / (taps))
#define TAPS_CHANNELS_BESIDE(taps) (24 / TAPS_PARTS(taps))
#else
#define TAPS_CHANNELS(taps) (10 / (taps))
#define TAPS_CHANNELS_BESIDE(taps) TAPS_CHANNELS(taps)
#endif
enum { TAPS_MOST = 8 };

/* A window in registers: of vectors of two octets, the last may be half. */
#if LANES == 16
#define TAPS_PARTS(taps) (((taps) + 1) / 2)
INLINE vec taps_part(const int taps, const int i, const real *x, ptrdiff_t pitch) {
    const octet first = octet_load(x + 2 * i * pitch);
    return octet_join(first, 2 * i + 1 < taps ? octet_load(x + (2 * i + 1) * pitch) : first);
}
INLINE ptrdiff_t taps_lanes(const int taps, const int i) { return 2 * i + 1 < taps ? LANES : 8; }
#else
#define TAPS_PARTS(taps) ((taps) * (8 / LANES))
INLINE vec taps_part(const int taps, const int i, const real *x, ptrdiff_t pitch) {
    (void)taps;
    return vec_load(x + i * LANES / 8 * pitch + i * LANES % 8);
}
INLINE ptrdiff_t taps_lanes(const int taps, const int i) { return (void)taps, (void)i, LANES; }
#endif

/* sums (channels x taps octets) in registers. */
typedef struct {
    vec of[TAPS_MOST][TAPS_PARTS(TAPS_MOST)];
} taps_sums;

/* A pixel: all channels meet the same window. */
INLINE void taps_pixel(const int channels, const int taps, const real *x, ptrdiff_t pitch, const real *dy, taps_sums *s) {
#pragma GCC unroll 8
    for (int i = 0; i < TAPS_PARTS(taps); i++) {
        const vec v = taps_part(taps, i, x, pitch);
#pragma GCC unroll 8
        for (int k = 0; k < channels; k++) s->of[k][i] = vec_fma(vec_set1(dy[k]), v, s->of[k][i]);
    }
}

typedef struct {
    ptrdiff_t rows, cols, pitch;
    const int32_t *column; /* where in a row of x a column's window begins */
    ptrdiff_t dy_row, dy_col;
} taps_map;

/* A pair of rows, or the last one. */
INLINE void taps_pair(const int channels, const int taps, const taps_map *p, const int both, const real *x, const real *dy,
                      taps_sums *s) {
    const ptrdiff_t pitch = p->pitch, dy_row = p->dy_row, dy_col = p->dy_col, even = p->cols / 2 * 2;
    for (ptrdiff_t i = 0; i < even; i += 2, dy += 2 * dy_col) {
        const real *left = x + p->column[i], *right = x + p->column[i + 1];
        taps_pixel(channels, taps, left, pitch, dy, s);
        taps_pixel(channels, taps, right, pitch, dy + dy_col, s);
        if (!both) continue;
        taps_pixel(channels, taps, left + pitch, pitch, dy + dy_row, s);
        taps_pixel(channels, taps, right + pitch, pitch, dy + dy_row + dy_col, s);
    }
    for (int row = 0; row < 1 + both && even < p->cols; row++)
        taps_pixel(channels, taps, x + p->column[even] + row * pitch, pitch, dy + row * dy_row, s);
}

INLINE void taps_rows(const int channels, const int taps, const taps_map *p, const real *x, const real *dy, real *sums) {
    taps_sums s;
    ptrdiff_t row = 0;
#pragma GCC unroll 8
    for (int k = 0; k < channels; k++)
#pragma GCC unroll 8
        for (int i = 0; i < TAPS_PARTS(taps); i++) s.of[k][i] = load_lanes(sums + k * taps * 8 + i * LANES, taps_lanes(taps, i));
    for (; row + 2 <= p->rows; row += 2) taps_pair(channels, taps, p, 1, x + row * p->pitch, dy + row * p->dy_row, &s);
    if (row < p->rows) taps_pair(channels, taps, p, 0, x + row * p->pitch, dy + row * p->dy_row, &s);
#pragma GCC unroll 8
    for (int k = 0; k < channels; k++)
#pragma GCC unroll 8
        for (int i = 0; i < TAPS_PARTS(taps); i++) store_lanes(sums + k * taps * 8 + i * LANES, s.of[k][i], taps_lanes(taps, i));
}

/* Windows one after another, a pixel of each for each channel: where what it meets begins. */
INLINE void taps_pooled(const int channels, const int taps, ptrdiff_t windows, ptrdiff_t apart, const real *x, ptrdiff_t pitch,
                        const int32_t *at, const real *dy, real *sums) {
    octet s[TAPS_MOST][TAPS_MOST];
    const real *row[TAPS_MOST];
    for (int t = 0; t < taps; t++) row[t] = x + t * pitch;
#pragma GCC unroll 8
    for (int k = 0; k < channels; k++)
#pragma GCC unroll 8
        for (int t = 0; t < taps; t++) s[k][t] = octet_load(sums + (k * taps + t) * 8);
    for (; windows > 0; windows--, dy += apart, at += apart) {
#pragma GCC unroll 8
        for (int k = 0; k < channels; k++) {
            const octet g = octet_set1(dy[k]);
#pragma GCC unroll 8
            for (int t = 0; t < taps; t++) s[k][t] = octet_fma(g, octet_load(row[t] + at[k]), s[k][t]);
        }
    }
#pragma GCC unroll 8
    for (int k = 0; k < channels; k++)
#pragma GCC unroll 8
        for (int t = 0; t < taps; t++) octet_store(sums + (k * taps + t) * 8, s[k][t]);
}

typedef void taps_rows_function(const taps_map *p, const real *x, const real *dy, real *sums);
typedef void taps_pooled_function(ptrdiff_t windows, ptrdiff_t apart, const real *x, ptrdiff_t pitch, const int32_t *at, const real *dy,
                                  real *sums);

#if REGISTERS == 32
#define TAPS(X) X(1, 5) X(2, 5) X(3, 5) X(4, 5) X(5, 5) X(6, 5) X(1, 7) X(2, 7) X(3, 7) X(4, 7)
#define TAPS_BESIDE(X) TAPS(X) X(7, 5) X(8, 5) X(5, 7) X(6, 7)
#else
#define TAPS(X) X(1, 5) X(2, 5) X(1, 7)
#define TAPS_BESIDE(X) TAPS(X)
#endif
#define TAPS_ROWS_DEFINE(channels, taps)                                                                                    \
    static void taps_rows_##channels##_##taps(const taps_map *p, const real *x, const real *dy, real *sums) {              \
        taps_rows(channels, taps, p, x, dy, sums);                                                                          \
    }
#define TAPS_POOLED_DEFINE(channels, taps)                                                                                  \
    static void taps_pooled_##channels##_##taps(ptrdiff_t windows, ptrdiff_t apart, const real *x, ptrdiff_t pitch,         \
                                                const int32_t *at, const real *dy, real *sums) {                            \
        taps_pooled(channels, taps, windows, apart, x, pitch, at, dy, sums);                                                \
    }
#define TAPS_ROWS_ENTRY(channels, taps) [taps][channels] = taps_rows_##channels##_##taps,
#define TAPS_POOLED_ENTRY(channels, taps) [taps][channels] = taps_pooled_##channels##_##taps,
TAPS_BESIDE(TAPS_ROWS_DEFINE)
TAPS(TAPS_POOLED_DEFINE)
static taps_rows_function *const taps_rows_of[TAPS_MOST][TAPS_MOST + 1] = {TAPS_BESIDE(TAPS_ROWS_ENTRY)};
static taps_pooled_function *const taps_pooled_of[TAPS_MOST][TAPS_MOST + 1] = {TAPS(TAPS_POOLED_ENTRY)};

/* n channels from k on: equal shares, of at most so many. */
#define TAPS_SHARES(channels, most, k, n)                                                                                   \
    for (ptrdiff_t left_ = ((channels) + (most)-1) / (most), k = 0, n;                                                      \
         left_ > 0 && (n = ((channels) - k + left_ - 1) / left_, 1); left_--, k += n)

/* conv_taps: sums (channels x taps octets) += windows of x (taps rows of eight, `pitch` apart, the first at row * pitch + column[..])
 * times dy (pairs of rows, then perhaps one; channels are neighbours). */
static void conv_taps_kernel(ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t channels, ptrdiff_t taps, const void *x, ptrdiff_t pitch,
                             const int32_t *column, const void *dy, ptrdiff_t dy_row, ptrdiff_t dy_col, void *sums) {
    const taps_map p = {rows, cols, pitch, column, dy_row, dy_col};
    TAPS_SHARES(channels, TAPS_CHANNELS_BESIDE(taps), k, n)
    taps_rows_of[taps][n](&p, x, (const real *)dy + k, (real *)sums + k * taps * 8);
}

/* conv_taps_pooled: sums += what windows of dy (windows x channels, dense) meet; at (as dy): where it begins in x. */
static void conv_taps_pooled_kernel(ptrdiff_t windows, ptrdiff_t channels, ptrdiff_t taps, const void *x, ptrdiff_t pitch,
                                    const int32_t *at, const void *dy, void *sums) {
    TAPS_SHARES(channels, TAPS_CHANNELS(taps), k, n)
    taps_pooled_of[taps][n](windows, channels, x, pitch, at + k, (const real *)dy + k, (real *)sums + k * taps * 8);
}

/* conv_taps_find: at (n) = where the windows of positions in blocks of 2 x 2 pixels begin; left, right: where those of the blocks' upper
 * pixels do. */
static void conv_taps_find_kernel(ptrdiff_t n, const int32_t *position, const int32_t *left, const int32_t *right, ptrdiff_t pitch,
                                  int32_t *at) {
    const int32_t down = (int32_t)pitch;
    for (ptrdiff_t i = 0; i < n; i++) at[i] = (position[i] & 1 ? right[i] : left[i]) + (position[i] & 2 ? down : 0);
}

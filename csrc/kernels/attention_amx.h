/* attention_amx.h: what scaled dot-product attention does between products on bfloat16 matrix units: as attention.h, but
 * that probabilities and scores' gradients leave the registers as the split factors (gemm_amx.h) of the next products.
 * So they are never stored as they are, and gradients are rounded once for both their factors. */
#include "attention_shift.h"

/* ---- forward ---- */

/* Row i of a left factor of strips of 32 rows: where it begins, and its planes' distance. */
INLINE char *attention_row(void *to, ptrdiff_t rows, ptrdiff_t i, ptrdiff_t strip, ptrdiff_t *plane) {
    const ptrdiff_t first = i / 32 * 32;
    *plane = rows - first > AMX_TILE ? 2 * AMX_TILE_BYTES : AMX_TILE_BYTES;
    return (char *)to + i / 32 * strip + (i - first) / AMX_TILE * AMX_TILE_BYTES + i % AMX_TILE * 64;
}

/* exp(s - shift) of a row, split; their sum, which a NaN or infinity among the scores makes NaN. */
INLINE real attention_split_row(int planes, ptrdiff_t cols, const real *s, vec shift, char *to, ptrdiff_t plane) {
    vec sum = vec_zero(), sum_high = vec_zero();
    __m512i low[3], high[3];
    ptrdiff_t j = 0;
    for (; j + AMX_STEP <= cols; j += AMX_STEP, to += planes * plane) {
        const vec x = vec_exp_down(vec_sub(vec_load(s + j), shift)), y = vec_exp_down(vec_sub(vec_load(s + j + AMX_TILE), shift));
        sum = vec_add(sum, x), sum_high = vec_add(sum_high, y);
        amx_parts(planes, x, low);
        amx_parts(planes, y, high);
        amx_put_parts(planes, to, plane, low, high);
    }
    if (j < cols) {
        const __mmask16 m = amx_first(cols - j), n = amx_first(cols - j - AMX_TILE);
        const vec x = vec_select(m, vec_exp_down(vec_sub(_mm512_maskz_loadu_ps(m, s + j), shift)), vec_zero());
        const vec y = vec_select(n, vec_exp_down(vec_sub(_mm512_maskz_loadu_ps(n, s + j + AMX_TILE), shift)), vec_zero());
        sum = vec_add(sum, x), sum_high = vec_add(sum_high, y);
        amx_parts(planes, x, low);
        amx_parts(planes, y, high);
        amx_put_parts(planes, to, plane, low, high);
    }
    return vec_sum(vec_add(sum, sum_high));
}

INLINE void attention_split(int planes, ptrdiff_t rows, ptrdiff_t cols, const real *s, ptrdiff_t s_row, real *m, real *l,
                            ptrdiff_t width, real *o, void *to) {
    const ptrdiff_t steps = (cols + AMX_STEP - 1) / AMX_STEP, strip = steps * planes * 2 * AMX_TILE_BYTES;
    real shift[LANES], before[LANES];
    for (ptrdiff_t first = 0; first < rows; first += LANES) {
        const ptrdiff_t count = rows - first < LANES ? rows - first : LANES;
        attention_shift(count, cols, s + first * s_row, s_row, m + first, shift, before);
        for (ptrdiff_t i = first; i < first + AMX_TILE; i++) {
            ptrdiff_t plane;
            char *row = attention_row(to, rows, i, strip, &plane);
            if (i < rows) {
                const real sum = attention_split_row(planes, cols, s + i * s_row, vec_set1(shift[i - first]), row, plane);
                l[i] = l[i] * before[i - first] + sum;
                attention_rescale(width, o + i * width, before[i - first]);
            } else {
                for (ptrdiff_t k = 0; k < steps * planes; k++) vec_store((real *)(row + k * plane), vec_zero());
            }
        }
    }
}

/* As attention_online_kernel; to: the probabilities as a left factor that sums over keys. */
static void amx_attention_online_kernel(int planes, ptrdiff_t rows, ptrdiff_t cols, const float *s, ptrdiff_t s_row,
                                        float *m, float *l, ptrdiff_t width, float *o, void *to) {
#define SPLIT(p) attention_split(p, rows, cols, s, s_row, m, l, width, o, to)
    AMX_FOR_PLANES(SPLIT, planes);
#undef SPLIT
}

/* ---- backward ---- */

/* What a block of 32 x 32 scores is made from. */
typedef struct {
    ptrdiff_t rows, cols, row;
    const real *s, *dp, *lse, *delta;
} attention_scores;

/* Lanes m of row i from column j on: probability and its score's gradient, whose others are 0. */
INLINE vec attention_probability(const attention_scores *x, ptrdiff_t i, ptrdiff_t j, __mmask16 m, vec *gradient) {
    const ptrdiff_t at = i * x->row + j;
    const vec s = _mm512_maskz_loadu_ps(m, x->s + at), dp = _mm512_maskz_loadu_ps(m, x->dp + at);
    const vec shift = vec_set1(m ? x->lse[i] : 0), mean = vec_set1(m ? x->delta[i] : 0);
    const vec p = vec_select(m, vec_exp_down(vec_sub(s, shift)), vec_zero());
    *gradient = vec_select(m, vec_mul(p, vec_sub(dp, mean)), vec_zero());
    return p;
}

/* Rows i and i + 16 of 16 columns from j on, lanes `upper` and `lower` of them: a row of the right factors' tiles, and the
 * gradients' parts. */
INLINE void attention_pair(int planes, const attention_scores *x, ptrdiff_t i, ptrdiff_t j, __mmask16 upper, __mmask16 lower,
                           char *p_columns, char *ds_columns, ptrdiff_t plane, __m512i parts[2][3], __m512 *bad) {
    vec ds[2];
    amx_parts(planes, attention_probability(x, i, j, upper, &ds[0]), parts[0]);
    amx_parts(planes, attention_probability(x, i + AMX_TILE, j, lower, &ds[1]), parts[1]);
    amx_put_parts(planes, p_columns, plane, parts[0], parts[1]);
    *bad = _mm512_fmadd_ps(vec_add(ds[0], ds[1]), vec_zero(), *bad);
    amx_parts(planes, ds[0], parts[0]);
    amx_parts(planes, ds[1], parts[1]);
    amx_put_parts(planes, ds_columns, plane, parts[0], parts[1]);
}

/* A block at (i, j): rows of its tiles in the three factors. whole: none of it is outside. */
INLINE void attention_block(int planes, int whole, const attention_scores *x, ptrdiff_t i, ptrdiff_t j, char *p_columns,
                            char *ds_columns, ptrdiff_t column_plane, char *ds_rows, ptrdiff_t row_plane, __m512 *bad) {
    const __mmask16 left = whole ? 0xffff : amx_first(x->cols - j), right = whole ? 0xffff : amx_first(x->cols - j - AMX_TILE);
    for (int r = 0; r < AMX_TILE; r++, p_columns += 64, ds_columns += 64, ds_rows += 64) {
        const int upper = whole || i + r < x->rows, lower = whole || i + r + AMX_TILE < x->rows;
        __m512i parts[2][2][3] = {0}; /* of gradients: [column half][row half] */
        attention_pair(planes, x, i + r, j, upper ? left : 0, lower ? left : 0, p_columns, ds_columns, column_plane, parts[0],
                       bad);
        if (right)
            attention_pair(planes, x, i + r, j + AMX_TILE, upper ? right : 0, lower ? right : 0, p_columns + AMX_TILE_BYTES,
                           ds_columns + AMX_TILE_BYTES, column_plane, parts[1], bad);
        amx_put_parts(planes, ds_rows, row_plane, parts[0][0], parts[1][0]);
        if (row_plane > AMX_TILE_BYTES) amx_put_parts(planes, ds_rows + AMX_TILE_BYTES, row_plane, parts[0][1], parts[1][1]);
    }
}

INLINE void attention_blocks(int planes, const attention_scores *x, char *p_columns, char *ds_columns, char *ds_rows,
                             __m512 *bad) {
    const ptrdiff_t row_steps = (x->rows + AMX_STEP - 1) / AMX_STEP, column_steps = (x->cols + AMX_STEP - 1) / AMX_STEP;
    const ptrdiff_t both = 2 * AMX_TILE_BYTES; /* of a plane and step of whole strips */
    for (ptrdiff_t j = 0; j < x->cols; j += AMX_STEP) {
        const ptrdiff_t column_plane = x->cols - j > AMX_TILE ? both : AMX_TILE_BYTES;
        for (ptrdiff_t i = 0; i < x->rows; i += AMX_STEP) {
            const ptrdiff_t row_plane = x->rows - i > AMX_TILE ? both : AMX_TILE_BYTES;
            const ptrdiff_t at = planes * (j / AMX_STEP * row_steps * both + i / AMX_STEP * column_plane);
            const ptrdiff_t row_at = planes * (i / AMX_STEP * column_steps * both + j / AMX_STEP * row_plane);
            if (x->rows - i >= AMX_STEP && x->cols - j >= AMX_STEP)
                attention_block(planes, 1, x, i, j, p_columns + at, ds_columns + at, both, ds_rows + row_at, both, bad);
            else
                attention_block(planes, 0, x, i, j, p_columns + at, ds_columns + at, column_plane, ds_rows + row_at, row_plane,
                                bad);
        }
    }
}

/* Of scores s and their probabilities' gradients dp (rows, cols; rows `row` apart): the probabilities exp(s - lse) as a
 * right factor that sums over queries; their scores' gradients p (dp - delta) as one, and as a left factor that sums
 * over keys. */
static void amx_attention_gradient_kernel(int planes, ptrdiff_t rows, ptrdiff_t cols, const float *s, const float *dp,
                                          ptrdiff_t row, const float *lse, const float *delta, void *p_columns,
                                          void *ds_columns, void *ds_rows, float *bad_values) {
    const attention_scores x = {rows, cols, row, s, dp, lse, delta};
    __m512 bad = _mm512_load_ps(bad_values);
#define SPLIT(p) attention_blocks(p, &x, p_columns, ds_columns, ds_rows, &bad)
    AMX_FOR_PLANES(SPLIT, planes);
#undef SPLIT
    _mm512_store_ps(bad_values, bad);
}

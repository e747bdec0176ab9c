/* attention.h: what scaled dot-product attention does to a block of scores between its matrix products. Scores of a
 * block: (rows, cols), queries by keys, rows s_row apart. A query's state while blocks of keys go by: its greatest
 * score m, the sum l of exp(score - m), and its output o before the division by l (Milakov and Gimelshein, "Online
 * normalizer calculation for softmax", 2018; Dao et al., "FlashAttention", 2022). */

#include "attention_shift.h"

/* to (rows, cols, dense) = x (rows x_row apart) times a constant */
static void attention_scale_kernel(ptrdiff_t rows, ptrdiff_t cols, double scale, const void *x_, ptrdiff_t x_row, void *to_) {
    const vec by = vec_set1((real)scale);
    for (ptrdiff_t i = 0; i < rows; i++) {
        const real *x = (const real *)x_ + i * x_row;
        real *to = (real *)to_ + i * cols;
        for (ptrdiff_t j = 0, left; (left = cols - j) > 0; j += LANES)
            store_lanes(to + j, vec_mul(load_lanes(x + j, left), by), left);
    }
}

/* -inf where mask (rows, cols, any strides, bytes) is 0 */
static void attention_mask_kernel(ptrdiff_t rows, ptrdiff_t cols, void *s_, ptrdiff_t s_row, const uint8_t *mask_,
                                  ptrdiff_t mask_row, ptrdiff_t mask_col) {
    for (ptrdiff_t i = 0; i < rows; i++) {
        real *s = (real *)s_ + i * s_row;
        const uint8_t *keep = mask_ + i * mask_row;
        for (ptrdiff_t j = 0, left; mask_col == 1 && (left = cols - j) > 0; j += LANES) {
            const mask m = mask_load_u8(keep + j, left < LANES ? left : LANES);
            store_lanes(s + j, vec_select(m, load_lanes(s + j, left), vec_set1(-(real)INFINITY)), left);
        }
        for (ptrdiff_t j = 0; mask_col != 1 && j < cols; j++)
            if (!keep[j * mask_col]) s[j] = -(real)INFINITY;
    }
}

/* s += bias (rows, cols, any strides) */
static void attention_bias_kernel(ptrdiff_t rows, ptrdiff_t cols, void *s_, ptrdiff_t s_row, const void *bias_,
                                  ptrdiff_t bias_row, ptrdiff_t bias_col) {
    for (ptrdiff_t i = 0; i < rows; i++) {
        real *s = (real *)s_ + i * s_row;
        const real *bias = (const real *)bias_ + i * bias_row;
        for (ptrdiff_t j = 0, left; bias_col == 1 && (left = cols - j) > 0; j += LANES)
            store_lanes(s + j, vec_add(load_lanes(s + j, left), load_lanes(bias + j, left)), left);
        for (ptrdiff_t j = 0; bias_col != 1 && j < cols; j++) s[j] += bias[j * bias_col];
    }
}

/* -inf behind the first `first + i` columns of row i */
static void attention_causal_kernel(ptrdiff_t rows, ptrdiff_t cols, void *s, ptrdiff_t s_row, ptrdiff_t first) {
    for (ptrdiff_t i = 0; i < rows; i++)
        for (ptrdiff_t j = first + i > 0 ? first + i : 0; j < cols; j++) ((real *)s)[i * s_row + j] = -(real)INFINITY;
}

/* s (cols) become exp(s - shift); their sum */
INLINE real attention_exponentials(ptrdiff_t cols, real *s, vec shift) {
    vec sum[4] = {vec_zero(), vec_zero(), vec_zero(), vec_zero()};
    ptrdiff_t j = 0;
    for (; j + 4 * LANES <= cols; j += 4 * LANES)
        for (int k = 0; k < 4; k++) {
            const vec e = vec_exp(vec_sub(vec_load(s + j + k * LANES), shift));
            vec_store(s + j + k * LANES, e);
            sum[k] = vec_add(sum[k], e);
        }
    for (ptrdiff_t left; (left = cols - j) > 0; j += LANES) {
        const vec e = vec_exp(vec_sub(load_lanes(s + j, left), shift));
        store_lanes(s + j, e, left);
        sum[0] = vec_add(sum[0], left < LANES ? vec_select(mask_first(left), e, vec_zero()) : e);
    }
    return vec_sum(vec_add(vec_add(sum[0], sum[1]), vec_add(sum[2], sum[3])));
}

/* One block of keys: scores s become exp(s - m) with the new m; l (rows) and o (rows, width) follow. A row whose
 * scores are all -inf so far has m = -inf, l = 0 and stays 0; a NaN that the maximum loses makes the sum NaN. */
static void attention_online_kernel(ptrdiff_t rows, ptrdiff_t cols, void *s_, ptrdiff_t s_row, void *m_, void *l_,
                                    ptrdiff_t width, void *o_) {
    real *s = s_, *m = m_, *l = l_, *o = o_, shift[LANES], before[LANES];
    for (ptrdiff_t first = 0; first < rows; first += LANES) {
        const ptrdiff_t count = rows - first < LANES ? rows - first : LANES;
        attention_shift(count, cols, s + first * s_row, s_row, m + first, shift, before);
        for (ptrdiff_t i = 0; i < count; i++) {
            const real sum = attention_exponentials(cols, s + (first + i) * s_row, vec_set1(shift[i]));
            l[first + i] = l[first + i] * before[i] + sum;
            attention_rescale(width, o + (first + i) * width, before[i]);
        }
    }
}

/* y (rows, width, rows y_row apart) = o / l; lse (rows) = m + log l, what backward needs. Rows that saw no key: 0 and
 * +inf, so that exp(score - lse) is 0 there. */
static void attention_finish_kernel(ptrdiff_t rows, ptrdiff_t width, const void *o_, const void *m_, const void *l_,
                                    void *y_, ptrdiff_t y_row, void *lse) {
    const real *m = m_, *l = l_;
    for (ptrdiff_t i = 0; i < rows; i++) {
        const real *o = (const real *)o_ + i * width;
        real *y = (real *)y_ + i * y_row;
        const vec sum = vec_set1(l[i] == 0 ? 1 : l[i]);
        for (ptrdiff_t e = 0, left; (left = width - e) > 0; e += LANES)
            store_lanes(y + e, vec_div(load_lanes(o + e, left), sum), left);
        ((real *)lse)[i] = l[i] == 0 ? (real)INFINITY : m[i] + log_of(l[i]);
    }
}

/* delta (rows) = sums of dy y along rows of width elements, dy_row and y_row apart */
static void attention_delta_kernel(ptrdiff_t rows, ptrdiff_t width, const void *dy, ptrdiff_t dy_row, const void *y,
                                   ptrdiff_t y_row, void *delta) {
    for (ptrdiff_t i = 0; i < rows; i++)
        ((real *)delta)[i] = dot_row(width, (const real *)dy + i * dy_row, (const real *)y + i * y_row);
}

/* Scores s become probabilities p = exp(s - lse), and their gradients dp become those of the scores, p (dp - delta);
 * s, dp: (rows, cols), rows `row` apart; lse, delta: (rows) */
static void attention_gradient_kernel(ptrdiff_t rows, ptrdiff_t cols, void *s_, void *dp_, ptrdiff_t row,
                                      const void *lse, const void *delta) {
    for (ptrdiff_t i = 0; i < rows; i++) {
        real *s = (real *)s_ + i * row, *dp = (real *)dp_ + i * row;
        const vec shift = vec_set1(((const real *)lse)[i]), mean = vec_set1(((const real *)delta)[i]);
        for (ptrdiff_t j = 0, left; (left = cols - j) > 0; j += LANES) {
            const vec p = vec_exp(vec_sub(load_lanes(s + j, left), shift));
            store_lanes(s + j, p, left);
            store_lanes(dp + j, vec_mul(p, vec_sub(load_lanes(dp + j, left), mean)), left);
        }
    }
}

/* attention_shift.h: the online softmax's steps that attention.h and attention_amx.h share (see there). */

/* The greatest of n scores. */
INLINE real attention_top(ptrdiff_t n, const real *s) {
    const vec low = vec_set1(-(real)INFINITY);
    vec top[4] = {low, low, low, low};
    ptrdiff_t j = 0;
    for (; j + 4 * LANES <= n; j += 4 * LANES)
        for (int k = 0; k < 4; k++) top[k] = vec_max(vec_load(s + j + k * LANES), top[k]);
    for (ptrdiff_t left; (left = n - j) > 0; j += LANES)
        top[0] = vec_max(left < LANES ? vec_select(mask_first(left), vec_load_n(s + j, left), low) : vec_load(s + j),
                         top[0]);
    return vec_hmax(vec_max(vec_max(top[0], top[1]), vec_max(top[2], top[3])));
}

/* Of up to LANES rows of scores: m, updated; what is taken from their scores; exp(m before - m). A row whose scores are
 * all -inf so far has m = -inf, and nothing is taken. All rows at once, as a row's own chain is long. */
INLINE void attention_shift(ptrdiff_t rows, ptrdiff_t cols, const real *s, ptrdiff_t s_row, real *m, real *shift,
                            real *before) {
    real top[LANES] = {0};
    for (ptrdiff_t i = 0; i < rows; i++) top[i] = attention_top(cols, s + i * s_row);
    const vec low = vec_set1(-(real)INFINITY), old = load_lanes(m, rows), seen = vec_load(top);
    const vec most = vec_select(vec_lt(old, seen), seen, old);
    const vec from = vec_select(vec_eq(most, low), vec_zero(), most);
    store_lanes(m, most, rows);
    vec_store(shift, from);
    vec_store(before, vec_exp(vec_sub(old, from)));
}

/* o (width) times `by` */
INLINE void attention_rescale(ptrdiff_t width, real *o, real by) {
    const vec factor = vec_set1(by);
    for (ptrdiff_t e = 0, left; by != 1 && (left = width - e) > 0; e += LANES)
        store_lanes(o + e, vec_mul(load_lanes(o + e, left), factor), left);
}

/* reduce.h: sums, maxima and minima of rows and of columns, and the search for where an extremum lies. The order of every
 * reduction is fixed by the sizes: eight vectors (or eight rows) in a tree, the trees in sequence, lanes in vec_sum's tree. */

enum {
    REDUCE_FOLD_MAX = 128,   /* columns after folding; ops/reduce.c keeps fold * columns within it */
    REDUCE_PART = 256 * LANES /* elements of a group of trees */
};

/* NaN wins, as in NumPy: vec_max and vec_min give their second argument where unordered. */
INLINE vec max_of(vec a, vec b) { return vec_select(vec_unordered(a, a), a, vec_max(a, b)); }
INLINE vec min_of(vec a, vec b) { return vec_select(vec_unordered(a, a), a, vec_min(a, b)); }
INLINE real max_lanes(vec a) { return mask_any(vec_unordered(a, a)) ? (real)NAN : vec_hmax(a); }
INLINE real min_lanes(vec a) { return mask_any(vec_unordered(a, a)) ? (real)NAN : vec_hmin(a); }

#define TREE8(of, load)                                                                                                 \
    of(of(of(load(0), load(1)), of(load(2), load(3))), of(of(load(4), load(5)), of(load(6), load(7))))

/* In a group of 32 trees the running total stays short: its rounding errors are those of 32 terms, not of all. */
#define REDUCE(name, of, across, neutral)                                                                               \
    INLINE vec name##_on(ptrdiff_t n, const real *restrict x, vec total) {                                              \
        ptrdiff_t i = 0;                                                                                                \
        while (i + 8 * LANES <= n) {                                                                                    \
            vec part = vec_set1(neutral);                                                                               \
            for (int t = 0; t < 32 && i + 8 * LANES <= n; t++, i += 8 * LANES)                                          \
                part = of(part, TREE8(of, AT_VECTOR));                                                                  \
            total = of(total, part);                                                                                    \
        }                                                                                                               \
        for (; i + LANES <= n; i += LANES) total = of(total, vec_load(x + i));                                          \
        if (i < n) total = of(total, vec_select(mask_first(n - i), vec_load_n(x + i, n - i), vec_set1(neutral)));       \
        return total;                                                                                                   \
    }                                                                                                                   \
                                                                                                                        \
    INLINE real name##_row(ptrdiff_t n, const real *x) { return across(name##_on(n, x, vec_set1(neutral))); }           \
                                                                                                                        \
    /* y: 1; x: (n), of a longer row, a multiple of REDUCE_PART unless it is the last part. totals: LANES of it so far */ \
    static void name##_row_part_kernel(ptrdiff_t n, const void *x, int part, void *totals, void *y) {                   \
        const vec total = name##_on(n, x, part & FNN_FIRST_PART ? vec_set1(neutral) : vec_load(totals));                \
        if (part & FNN_LAST_PART) *(real *)y = across(total);                                                           \
        else vec_store(totals, total);                                                                                  \
    }                                                                                                                   \
                                                                                                                        \
    /* y: (rows); x: (rows, n), rows `stride` apart */                                                                  \
    static void name##_rows_kernel(ptrdiff_t rows, ptrdiff_t n, const void *x_, ptrdiff_t stride, void *y_) {           \
        const real *x = x_;                                                                                             \
        real *y = y_;                                                                                                   \
        for (ptrdiff_t r = 0; r < rows; r++) y[r] = name##_row(n, x + r * stride);                                      \
    }                                                                                                                   \
                                                                                                                        \
    INLINE void name##_trees(ptrdiff_t columns, const real *restrict x, ptrdiff_t stride, int first, real *restrict y) { \
        ptrdiff_t i = 0;                                                                                                \
        for (; i + LANES <= columns; i += LANES) {                                                                      \
            vec t = TREE8(of, AT_ROW);                                                                                  \
            vec_store(y + i, first ? t : of(vec_load(y + i), t));                                                       \
        }                                                                                                               \
        if (i < columns) {                                                                                              \
            vec t = TREE8(of, AT_ROW_TAIL);                                                                             \
            vec_store_n(y + i, first ? t : of(vec_load_n(y + i, columns - i), t), columns - i);                         \
        }                                                                                                               \
    }                                                                                                                   \
                                                                                                                        \
    INLINE void name##_into(ptrdiff_t n, const real *restrict x, real *restrict y) {                                    \
        ptrdiff_t i = 0;                                                                                                \
        for (; i + LANES <= n; i += LANES) vec_store(y + i, of(vec_load(y + i), vec_load(x + i)));                      \
        if (i < n) vec_store_n(y + i, of(vec_load_n(y + i, n - i), vec_load_n(x + i, n - i)), n - i);                   \
    }                                                                                                                   \
                                                                                                                        \
    /* Eight rows at a time along all columns: eight forward streams, which the hardware prefetches, and the totals     \
     * pass through L1 once per eight rows. Strips of a few registers down all rows jump a row per load instead. */     \
    static void name##_block(ptrdiff_t rows, ptrdiff_t columns, const real *x, ptrdiff_t stride, int first, real *y) {  \
        ptrdiff_t r = 0;                                                                                                \
        if (first && rows >= 8) name##_trees(columns, x, stride, 1, y), r = 8;                                          \
        else if (first && rows) memcpy(y, x, (size_t)columns * sizeof(real)), r = 1;                                    \
        for (; r + 8 <= rows; r += 8) name##_trees(columns, x + r * stride, stride, 0, y);                              \
        for (; r < rows; r++) name##_into(columns, x + r * stride, y);                                                  \
    }                                                                                                                   \
                                                                                                                        \
    /* y: (columns); x: (rows, columns), rows `stride` apart. fold > 1 (then stride = columns): that many rows, unless  \
     * there are fewer, are taken as one long row, so that a few columns still fill the vectors. x may be a part of the \
     * rows, all parts but the last with a multiple of 8 * fold of them; totals: these long rows so far, REDUCE_FOLD_MAX */ \
    static void name##_columns_kernel(ptrdiff_t rows, ptrdiff_t columns, const void *x_, ptrdiff_t stride,              \
                                      ptrdiff_t fold, int part, void *totals, void *y) {                                \
        const real *x = x_;                                                                                             \
        const int first = part & FNN_FIRST_PART;                                                                        \
        if (fold == 1 || (rows < fold && part == FNN_ONLY_PART)) {                                                      \
            name##_block(rows, columns, x, stride, first, y);                                                           \
            return;                                                                                                     \
        }                                                                                                               \
        real own[REDUCE_FOLD_MAX], *folded = part == FNN_ONLY_PART ? own : totals;                                      \
        ptrdiff_t wide = fold * columns, whole = rows / fold;                                                           \
        name##_block(whole, wide, x, wide, first, folded);                                                              \
        if (!(part & FNN_LAST_PART)) return;                                                                            \
        name##_into((rows - whole * fold) * columns, x + whole * wide, folded);                                         \
        name##_block(fold, columns, folded, columns, 1, y);                                                             \
    }

#define AT_VECTOR(k) vec_load(x + i + (k) * LANES)
#define AT_ROW(k) vec_load(x + i + (k) * stride)
#define AT_ROW_TAIL(k) vec_load_n(x + i + (k) * stride, columns - i)
REDUCE(sum, vec_add, vec_sum, 0)
REDUCE(max, max_of, max_lanes, -(real)INFINITY)
REDUCE(min, min_of, min_lanes, (real)INFINITY)
#undef AT_VECTOR
#undef AT_ROW
#undef AT_ROW_TAIL

/* y: (pairs, n), sums of blocks of 2 x 2 pixels, each where its left pixels are; what is where the right ones are is of no use.
 * x: pairs of rows of n elements, `pair` apart, the lower row `below` the upper one. */
static void sum_blocks_kernel(ptrdiff_t pairs, ptrdiff_t n, ptrdiff_t channels, const void *x, ptrdiff_t below, ptrdiff_t pair,
                              void *y) {
    const real *u = x;
    real *to = y;
    for (; pairs > 0; pairs--, u += pair, to += n) {
        const real *l = u + below;
        ptrdiff_t i = 0;
        for (; i + LANES <= n - channels; i += LANES)
            vec_store(to + i, vec_add(vec_add(vec_load(u + i), vec_load(u + i + channels)),
                                      vec_add(vec_load(l + i), vec_load(l + i + channels))));
        for (; i < n - channels; i++) to[i] = (u[i] + u[i + channels]) + (l[i] + l[i + channels]);
        for (; i < n; i++) to[i] = 0;
    }
}

/* y: 1, the sum of x (n) over divisor */
static void divided_sum_kernel(ptrdiff_t n, const void *x, double divisor, void *y) {
    *(real *)y = sum_row(n, x) / (real)divisor;
}

/* index: (rows) first + the position of the first element equal to m (rows), or of the first NaN; rows without one keep
 * theirs; x: (rows, n), rows `stride` apart */
static void find_rows_kernel(ptrdiff_t rows, ptrdiff_t n, const void *x_, ptrdiff_t stride, const void *m_,
                             ptrdiff_t first, int64_t *index) {
    for (ptrdiff_t r = 0; r < rows; r++) {
        const real *x = (const real *)x_ + r * stride;
        const real m = ((const real *)m_)[r];
        const vec wanted = vec_set1(m);
        ptrdiff_t i = 0;
        for (; i + LANES <= n; i += LANES) {
            vec v = vec_load(x + i);
            if (mask_any(mask_or(vec_eq(v, wanted), vec_unordered(v, v)))) break;
        }
        while (i < n && x[i] != m && x[i] == x[i]) i++;
        if (i < n) index[r] = first + i;
    }
}

/* index: (columns), as find_rows down each column of x: (rows, columns), rows `stride` apart. Backwards: the first match is
 * written last. */
static void find_columns_kernel(ptrdiff_t rows, ptrdiff_t columns, const void *x_, ptrdiff_t stride, const void *m_,
                                ptrdiff_t first, int64_t *restrict index) {
    const real *m = m_;
    for (ptrdiff_t r = rows - 1; r >= 0; r--) {
        const real *restrict x = (const real *)x_ + r * stride;
        for (ptrdiff_t c = 0; c < columns; c++) index[c] = (x[c] == m[c]) | (x[c] != x[c]) ? first + r : index[c];
    }
}

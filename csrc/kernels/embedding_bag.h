/* embedding_bag.h: rows of a table added up, averaged or compared bag by bag. Tables and results are dense rows of d elements;
 * an index of -1 names no row. */

enum { BAG_VECTORS = 8 /* of a row that are added at a time, in registers */ };

/* The same columns of all rows: `count` vectors, a constant, the last one holding `left` elements. */
INLINE void bag_sum_columns(ptrdiff_t n, const int64_t *index, ptrdiff_t d, const real *table, const real *weight, vec by,
                            int divides, int count, ptrdiff_t left, real *y) {
    vec sum[BAG_VECTORS];
    for (int k = 0; k < count; k++) sum[k] = vec_zero();
    for (ptrdiff_t j = 0; j < n; j++) {
        if (index[j] < 0) continue;
        const real *row = table + index[j] * d;
        const vec factor = weight ? vec_set1(weight[j]) : vec_set1(1);
        if (j + 4 < n && index[j + 4] >= 0)
            for (int k = 0; k < count; k++) __builtin_prefetch(table + index[j + 4] * d + k * LANES);
        for (int k = 0; k < count; k++)
            sum[k] = vec_fma(factor, load_lanes(row + k * LANES, k < count - 1 ? LANES : left), sum[k]);
    }
    for (int k = 0; k < count; k++)
        store_lanes(y + k * LANES, divides ? vec_div(sum[k], by) : sum[k], k < count - 1 ? LANES : left);
}

/* y (d): the sum of weight (or 1) times row over n indices, over divisor */
static void bag_sum_kernel(ptrdiff_t n, const int64_t *index, ptrdiff_t d, const void *table_, const void *weight_, double divisor,
                           void *y_) {
    const vec by = vec_set1((real)divisor);
    const int divides = divisor != 1;
    const real *table = table_;
    real *y = y_;
    ptrdiff_t c = 0;
    for (; c + BAG_VECTORS * LANES <= d; c += BAG_VECTORS * LANES)
        bag_sum_columns(n, index, d, table + c, weight_, by, divides, BAG_VECTORS, LANES, y + c);
    for (; c < d; c += LANES) bag_sum_columns(n, index, d, table + c, weight_, by, divides, 1, fnn_min(LANES, d - c), y + c);
}

/* y (d): the greatest elements of the rows, argmax (d): of which row, the first among equals; 0 and -1 without rows. A NaN is
 * greater than all numbers. */
static void bag_max_kernel(ptrdiff_t n, const int64_t *index, ptrdiff_t d, const void *table, void *y_, int64_t *argmax) {
    real *y = y_;
    int is_first = 1;
    for (ptrdiff_t c = 0; c < d; c++) y[c] = 0, argmax[c] = -1;
    for (ptrdiff_t j = 0; j < n; j++) {
        if (index[j] < 0) continue;
        const real *row = (const real *)table + index[j] * d;
        for (ptrdiff_t c = 0; c < d; c++) {
            const int is_greater = is_first || (!(row[c] <= y[c]) && y[c] == y[c]);
            y[c] = is_greater ? row[c] : y[c];
            argmax[c] = is_greater ? index[j] : argmax[c];
        }
        is_first = 0;
    }
}

/* scale (n): what each index's row counts for: its weight (or 1) over its bag's divisor and its own frequency, where given */
static void bag_scale_kernel(ptrdiff_t n, const int64_t *index, const int64_t *bag, const void *weight_, const int64_t *divisor,
                             const int64_t *frequency, void *scale_) {
    const real *weight = weight_;
    real *scale = scale_;
    for (ptrdiff_t j = 0; j < n; j++) {
        scale[j] = weight ? weight[j] : 1;
        if (divisor) scale[j] /= (real)divisor[bag[j]];
        if (frequency && index[j] >= 0) scale[j] /= (real)frequency[index[j]];
    }
}

/* dtable rows low .. high - 1, columns c .. c + width - 1: 0 plus scale times dy's row of the bag, index after index */
static void bag_sum_backward_kernel(ptrdiff_t n, const int64_t *index, const int64_t *bag, const void *scale_, ptrdiff_t low,
                                    ptrdiff_t high, ptrdiff_t d, ptrdiff_t c, ptrdiff_t width, const void *dy_, void *dtable_) {
    const real *scale = scale_, *dy = (const real *)dy_ + c;
    real *dtable = (real *)dtable_ + c;
    for (ptrdiff_t r = low; r < high; r++) memset(dtable + r * d, 0, (size_t)width * sizeof(real));
    for (ptrdiff_t j = 0; j < n; j++) {
        if (index[j] < low || index[j] >= high) continue;
        const vec factor = vec_set1(scale[j]);
        const real *from = dy + bag[j] * d;
        real *to = dtable + index[j] * d;
        for (ptrdiff_t i = 0, left; (left = width - i) > 0; i += LANES)
            store_lanes(to + i, vec_fma(factor, load_lanes(from + i, left), load_lanes(to + i, left)), left);
    }
}

/* The same columns of all rows: 0 plus dy where its row had the greatest element, bag after bag */
static void bag_max_backward_kernel(ptrdiff_t bags, ptrdiff_t rows, ptrdiff_t d, ptrdiff_t c, ptrdiff_t width, const void *dy_,
                                    const int64_t *argmax, void *dtable_) {
    const real *dy = dy_;
    real *dtable = dtable_;
    for (ptrdiff_t r = 0; r < rows; r++) memset(dtable + r * d + c, 0, (size_t)width * sizeof(real));
    for (ptrdiff_t b = 0; b < bags; b++)
        for (ptrdiff_t i = b * d + c; i < b * d + c + width; i++)
            if (argmax[i] >= 0) dtable[argmax[i] * d + (i - b * d)] += dy[i];
}

/* dweight (n): the product of each index's row with dy's row of its bag */
static void bag_weight_backward_kernel(ptrdiff_t n, const int64_t *index, const int64_t *bag, ptrdiff_t d, const void *table,
                                       const void *dy, void *dweight_) {
    real *dweight = dweight_;
    for (ptrdiff_t j = 0; j < n; j++)
        dweight[j] = index[j] < 0 ? 0 : dot_row(d, (const real *)table + index[j] * d, (const real *)dy + bag[j] * d);
}

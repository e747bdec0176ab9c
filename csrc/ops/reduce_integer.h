/* reduce_integer.h: the kernels of reductions of int64, which the table of kernels has no row for: the order does not matter, sums wrap
 * around. For reduce.c. */
#ifndef FNN_REDUCE_INTEGER_H
#define FNN_REDUCE_INTEGER_H
#include "../fastnn.h"

#include <string.h>

static int64_t sum_of(int64_t a, int64_t b) { return (int64_t)((uint64_t)a + (uint64_t)b); }
static int64_t greater_of(int64_t a, int64_t b) { return a > b ? a : b; }
static int64_t less_of(int64_t a, int64_t b) { return a < b ? a : b; }

#define INTEGER_KERNELS(formula)                                                                                        \
    static void formula##_rows(ptrdiff_t rows, ptrdiff_t n, const void *x_, ptrdiff_t stride, void *y) {                \
        for (ptrdiff_t r = 0; r < rows; r++) {                                                                          \
            const int64_t *x = (const int64_t *)x_ + r * stride;                                                        \
            int64_t total = x[0];                                                                                       \
            for (ptrdiff_t i = 1; i < n; i++) total = formula(total, x[i]);                                             \
            ((int64_t *)y)[r] = total;                                                                                  \
        }                                                                                                               \
    }                                                                                                                   \
    static void formula##_row_part(ptrdiff_t n, const void *x_, int part, void *totals, void *y) {                      \
        const int64_t *x = x_;                                                                                          \
        (void)totals;                                                                                                   \
        int64_t total = part & FNN_FIRST_PART ? x[0] : formula(*(int64_t *)y, x[0]);                                    \
        for (ptrdiff_t i = 1; i < n; i++) total = formula(total, x[i]);                                                 \
        *(int64_t *)y = total;                                                                                          \
    }                                                                                                                   \
    static void formula##_columns(ptrdiff_t rows, ptrdiff_t columns, const void *x_, ptrdiff_t stride, ptrdiff_t fold,  \
                                  int part, void *totals, void *y_) {                                                   \
        const int64_t *restrict x = x_;                                                                                 \
        int64_t *restrict y = y_;                                                                                       \
        (void)fold, (void)totals; /* rows joined for the sake of vectors */                                             \
        if (part & FNN_FIRST_PART) memcpy(y, x, (size_t)columns * sizeof *y);                                           \
        for (ptrdiff_t r = part & FNN_FIRST_PART; r < rows; r++)                                                        \
            for (ptrdiff_t c = 0; c < columns; c++) y[c] = formula(y[c], x[r * stride + c]);                            \
    }
INTEGER_KERNELS(sum_of)
INTEGER_KERNELS(greater_of)
INTEGER_KERNELS(less_of)
#undef INTEGER_KERNELS

static void find_in_rows(ptrdiff_t rows, ptrdiff_t n, const void *x_, ptrdiff_t stride, const void *m, ptrdiff_t first, int64_t *index) {
    for (ptrdiff_t r = 0; r < rows; r++) {
        const int64_t *x = (const int64_t *)x_ + r * stride, sought = ((const int64_t *)m)[r];
        ptrdiff_t i = 0;
        while (i < n && x[i] != sought) i++;
        if (i < n) index[r] = first + i;
    }
}

static void find_in_columns(ptrdiff_t rows, ptrdiff_t columns, const void *x_, ptrdiff_t stride, const void *m_, ptrdiff_t first,
                            int64_t *index) {
    const int64_t *x = x_, *m = m_;
    for (ptrdiff_t r = rows - 1; r >= 0; r--)
        for (ptrdiff_t c = 0; c < columns; c++)
            if (x[r * stride + c] == m[c]) index[c] = first + r;
}

#endif

/* gemm_sparse.h: products of rows of which most elements are 0: the others are marked, and each row multiplies only those.
 *
 * An element of C is the chain of multiply-adds of gemm.h without those that add 0: the same bits, unless the other operand is
 * infinite or NaN, or the result is -0, which only underflow makes and a product that is +0 would have made +0. */

INLINE uint64_t zeros_of(vec x) { return mask_bits(vec_eq(x, vec_zero())); }

INLINE uint64_t marks_along(ptrdiff_t n, const real *x) {
    uint64_t zeros = 0;
    ptrdiff_t k = 0;
    if (n == FNN_MARKED_DEPTH) {
#pragma GCC unroll 32
        for (; k < FNN_MARKED_DEPTH; k += LANES) zeros |= zeros_of(vec_load(x + k)) << k;
        return ~zeros;
    }
    for (; k + LANES <= n; k += LANES) zeros |= zeros_of(vec_load(x + k)) << k;
    if (k < n) zeros |= zeros_of(vec_load_n(x + k, n - k)) << k;
    return ~zeros & (((uint64_t)1 << n) - 1);
}

/* For each row of x (rows x n, contiguous, n <= FNN_MARKED_DEPTH) a word of marks, a bit per element, 1 where it is not 0, NaN among
 * them; words are `apart`. Returns through `marked` how many there are. What comes next in the rows is asked for. */
static void gemm_mark_kernel(ptrdiff_t rows, ptrdiff_t n, const void *x, ptrdiff_t x_row, uint64_t *marks, ptrdiff_t apart,
                             ptrdiff_t *marked) {
    ptrdiff_t all = 0;
    for (ptrdiff_t i = 0; i < rows; i++) {
        const real *row = (const real *)x + i * x_row;
        for (ptrdiff_t k = 0; k < n; k += FNN_LINE / (ptrdiff_t)sizeof(real)) __builtin_prefetch(row + n + k);
        const uint64_t word = marks_along(n, row);
        marks[i * apart] = word, all += __builtin_popcountll(word);
    }
    *marked = all;
}

/* The first marked element times its row of B. An address of its own makes each multiply-add one instruction with its load. */
INLINE uint64_t marked_element(int vecs, uint64_t marks, const real *x, const real *b, vec *acc) {
    const ptrdiff_t k = __builtin_ctzll(marks);
    const vec a = vec_set1(x[k]);
    const real *row = b + k * vecs * LANES;
    __asm__("" : "+r"(row));
#pragma GCC unroll 8
    for (int v = 0; v < vecs; v++) acc[v] = vec_fma(a, vec_load(row + v * LANES), acc[v]);
    return marks & (marks - 1);
}

/* Marked elements times B's rows of so many vectors: two at a time, since the CPU foresees the end of fewer turns better. */
INLINE void marked_row(int vecs, uint64_t marks, const real *x, const real *b, real *c, int accumulate) {
    vec acc[FNN_MARKED_VECS];
    if (accumulate && !marks) return;
#pragma GCC unroll 8
    for (int v = 0; v < vecs; v++) acc[v] = accumulate ? vec_load(c + v * LANES) : vec_zero();
    const int count = __builtin_popcountll(marks);
    for (int i = count / 2; i > 0; i--) {
        marks = marked_element(vecs, marks, x, b, acc);
        marks = marked_element(vecs, marks, x, b, acc);
    }
    if (count % 2) marked_element(vecs, marks, x, b, acc);
#pragma GCC unroll 8
    for (int v = 0; v < vecs; v++) vec_store(c + v * LANES, acc[v]);
}

INLINE void marked_rows(int vecs, ptrdiff_t rows, const uint64_t *marks, ptrdiff_t apart, const real *x, ptrdiff_t x_row,
                        const real *b, real *c, int accumulate) {
    for (ptrdiff_t i = 0; i < rows; i++) marked_row(vecs, marks[i * apart], x + i * x_row, b, c + i * vecs * LANES, accumulate);
}

/* C (rows x vecs vectors, dense) (+)= x (rows x FNN_MARKED_DEPTH, contiguous; marked, words `apart`) times B (vecs vectors wide,
 * dense). */
static void gemm_marked_kernel(ptrdiff_t rows, ptrdiff_t vecs, const uint64_t *marks, ptrdiff_t apart, const void *x,
                               ptrdiff_t x_row, const void *b, void *c, int accumulate) {
#define MARKED(n) case n: marked_rows(n, rows, marks, apart, x, x_row, b, c, accumulate); break;
    switch (vecs) { MARKED(1) MARKED(2) MARKED(3) MARKED(4) MARKED(5) MARKED(6) MARKED(7) MARKED(8) }
#undef MARKED
}

/* Whether all of x (n a multiple of LANES) is finite: 0 times something else is NaN. */
static void gemm_finite_kernel(ptrdiff_t n, const void *x, int *is_finite) {
    const real *p = x;
    vec none = vec_zero(), others[3] = {none, none, none};
    ptrdiff_t i = 0;
    for (; i + 4 * LANES <= n; i += 4 * LANES) {
        none = vec_fma(vec_load(p + i), vec_zero(), none);
#pragma GCC unroll 3
        for (int v = 0; v < 3; v++) others[v] = vec_fma(vec_load(p + i + (v + 1) * LANES), vec_zero(), others[v]);
    }
    for (; i < n; i += LANES) none = vec_fma(vec_load(p + i), vec_zero(), none);
    none = vec_add(vec_add(none, others[0]), vec_add(others[1], others[2]));
    *is_finite = !mask_any(vec_unordered(none, none));
}

/* Whether none of x (n a multiple of LANES) is -0. */
static void gemm_no_negative_zero_kernel(ptrdiff_t n, const void *x, int *is_sure) {
    const real *p = x;
    const ivec zero = vec_as_ivec(vec_set1((real)-0.0));
    mask found = ivec_eq(vec_as_ivec(vec_load(p)), zero);
    for (ptrdiff_t i = LANES; i < n; i += LANES) found = mask_or(found, ivec_eq(vec_as_ivec(vec_load(p + i)), zero));
    *is_sure = !mask_any(found);
}

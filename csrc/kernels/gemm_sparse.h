/* gemm_sparse.h: products of rows of which most elements are 0: the others are marked, and each row multiplies only those.
 *
 * An element of C is the chain of multiply-adds of gemm.h without those that add 0: the same bits, unless the other operand is
 * infinite or NaN, or the result is -0, which only underflow makes and a product that is +0 would have made +0. */

enum { MARKED_AT_ONCE = LANES > 8 ? LANES : 8 }; /* rows that are neighbours */

INLINE unsigned marks_of(vec x) { return mask_bits(mask_not(vec_eq(x, vec_zero()))); }

/* 8 x 8 bits, a row a byte, transposed: halves, quarters and eighths change places (Warren, Hacker's Delight, 7-3). */
INLINE uint64_t transposed_bits(uint64_t x) {
    uint64_t t = (x ^ (x >> 7)) & 0x00AA00AA00AA00AAu;
    x ^= t ^ (t << 7);
    t = (x ^ (x >> 14)) & 0x0000CCCC0000CCCCu;
    x ^= t ^ (t << 14);
    t = (x ^ (x >> 28)) & 0x00000000F0F0F0F0u;
    return x ^ t ^ (t << 28);
}

/* n <= 64 elements, `step` apart. */
INLINE uint64_t marks_strided(ptrdiff_t n, const real *x, ptrdiff_t step) {
    uint64_t m = 0;
    for (ptrdiff_t k = 0; k < n; k++) m |= (uint64_t) !(x[k * step] == 0) << k;
    return m;
}

INLINE uint64_t marks_along(ptrdiff_t n, const real *x) {
    uint64_t m = 0;
    ptrdiff_t k = 0;
    for (; k + LANES <= n; k += LANES) m |= (uint64_t)marks_of(vec_load(x + k)) << k;
    return k < n ? m | (uint64_t)marks_of(vec_load_n(x + k, n - k)) << k : m;
}

/* MARKED_AT_ONCE rows that are neighbours in memory, n <= 64 elements of each, `step` apart; marks: those of a row `words` from
 * the one before. */
INLINE void marks_across(ptrdiff_t n, const real *x, ptrdiff_t step, uint64_t *marks, ptrdiff_t words) {
    for (int i = 0; i < MARKED_AT_ONCE; i++) marks[i * words] = 0;
    for (ptrdiff_t k = 0; k < n; k += 8) {
        uint64_t square[MARKED_AT_ONCE / 8] = {0};
        for (ptrdiff_t r = 0; r < 8 && k + r < n; r++)
            for (int i = 0; i < MARKED_AT_ONCE; i += LANES) {
                const uint64_t bits = marks_of(vec_load(x + (k + r) * step + i));
                for (int b = 0; b < LANES; b += 8) square[(i + b) / 8] |= (bits >> b & 255) << (i % 8 + 8 * r);
            }
        for (int i = 0; i < MARKED_AT_ONCE; i++) {
            if (i % 8 == 0) square[i / 8] = transposed_bits(square[i / 8]);
            marks[i * words] |= (square[i / 8] >> i % 8 * 8 & 255) << k;
        }
    }
}

/* Word w of the marks of row i of x and of those behind it that are marked at once; returns how many these are. */
INLINE ptrdiff_t mark_word(ptrdiff_t rows, ptrdiff_t depth, const real *x, ptrdiff_t x_row, ptrdiff_t x_col, ptrdiff_t words,
                           uint64_t *marks, ptrdiff_t i, ptrdiff_t w) {
    const ptrdiff_t n = depth - 64 * w < 64 ? depth - 64 * w : 64;
    const real *from = x + i * x_row + 64 * w * x_col;
    uint64_t *to = marks + i * words + w;
    if (x_col == 1) *to = marks_along(n, from);
    else if (x_row != 1 || rows - i < MARKED_AT_ONCE) *to = marks_strided(n, from, x_col);
    else {
        marks_across(n, from, x_col, to, words);
        return MARKED_AT_ONCE;
    }
    return 1;
}

/* For each row of x (rows x depth, any strides) a bit per element, 1 where it is not 0, NaN among them, in `words` words of 64.
 * Returns through `marked` how many there are. Memory is read in order, or pages are too many for the TLB. */
static void gemm_mark_kernel(ptrdiff_t rows, ptrdiff_t depth, const void *x, ptrdiff_t x_row, ptrdiff_t x_col, ptrdiff_t words,
                             uint64_t *marks, ptrdiff_t *marked) {
    ptrdiff_t all = 0;
    if (x_col == 1)
        for (ptrdiff_t i = 0; i < rows; i++)
            for (ptrdiff_t w = 0; w < words; w++) mark_word(rows, depth, x, x_row, 1, words, marks, i, w);
    else
        for (ptrdiff_t w = 0; w < words; w++)
            for (ptrdiff_t i = 0; i < rows;) i += mark_word(rows, depth, x, x_row, x_col, words, marks, i, w);
    for (ptrdiff_t i = 0; i < rows * words; i++) all += __builtin_popcountll(marks[i]);
    *marked = all;
}

/* Marked elements, x_col apart, times B's rows of so many vectors. */
INLINE void marked_row(int vecs, uint64_t marks, const real *x, ptrdiff_t x_col, const real *b, real *c, int accumulate) {
    vec acc[FNN_MARKED_VECS];
#pragma GCC unroll 8
    for (int v = 0; v < vecs; v++) acc[v] = accumulate ? vec_load(c + v * LANES) : vec_zero();
    for (; marks; marks &= marks - 1) {
        const ptrdiff_t k = __builtin_ctzll(marks);
        const vec a = vec_set1(x[k * x_col]);
#pragma GCC unroll 8
        for (int v = 0; v < vecs; v++) acc[v] = vec_fma(a, vec_load(b + (k * vecs + v) * LANES), acc[v]);
    }
#pragma GCC unroll 8
    for (int v = 0; v < vecs; v++) vec_store(c + v * LANES, acc[v]);
}

/* 64 of B's rows after the other, so that they stay in a first-level cache. */
INLINE void marked_rows(int vecs, ptrdiff_t rows, ptrdiff_t words, const uint64_t *marks, const real *x, ptrdiff_t x_row,
                        ptrdiff_t x_col, const real *b, real *c) {
    for (ptrdiff_t w = 0; w < words; w++, x += 64 * x_col, b += 64 * vecs * LANES)
        for (ptrdiff_t i = 0; i < rows; i++)
            marked_row(vecs, marks[i * words + w], x + i * x_row, x_col, b, c + i * vecs * LANES, w > 0);
}

INLINE int holds_negative_zero(ptrdiff_t n, const real *x) {
    const ivec zero = vec_as_ivec(vec_set1((real)-0.0));
    mask found = ivec_eq(vec_as_ivec(vec_load(x)), zero);
    for (ptrdiff_t i = LANES; i < n; i += LANES) found = mask_or(found, ivec_eq(vec_as_ivec(vec_load(x + i)), zero));
    return mask_any(found);
}

/* C (rows x vecs vectors, dense) = x (rows x depth, any strides, marked by gemm_mark) times B (depth x vecs vectors, dense).
 * is_sure: whether the bits are those of all multiply-adds, if B is finite. */
static void gemm_marked_kernel(ptrdiff_t rows, ptrdiff_t vecs, ptrdiff_t words, const uint64_t *marks, const void *x,
                               ptrdiff_t x_row, ptrdiff_t x_col, const void *b, void *c, int *is_sure) {
#define MARKED(n) case n: marked_rows(n, rows, words, marks, x, x_row, x_col, b, c); break;
    switch (vecs) { MARKED(1) MARKED(2) MARKED(3) MARKED(4) MARKED(5) MARKED(6) MARKED(7) MARKED(8) }
#undef MARKED
    *is_sure = !holds_negative_zero(rows * vecs * LANES, c);
}

/* Whether all of x is finite: 0 times something else is NaN. */
static void gemm_finite_kernel(ptrdiff_t n, const void *x, int *is_finite) {
    const real *p = x;
    vec none = vec_zero();
    for (ptrdiff_t i = 0; i < n; i += LANES) none = vec_fma(vec_load_n(p + i, n - i < LANES ? n - i : LANES), vec_zero(), none);
    *is_finite = !mask_any(vec_unordered(none, none));
}

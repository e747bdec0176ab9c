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

/* For each line (n elements, n <= FNN_MARKED_DEPTH, from `from` on) a word of marks, a bit per element, 1 where it is not 0, NaN among
 * them; words are `apart`. Returns through `marked` how many there are. What comes next in the lines is asked for. */
static void gemm_mark_kernel(ptrdiff_t lines, ptrdiff_t n, const void *const *x, ptrdiff_t from, uint64_t *marks, ptrdiff_t apart,
                             ptrdiff_t *marked) {
    ptrdiff_t all = 0;
    for (ptrdiff_t i = 0; i < lines; i++) {
        const real *line = (const real *)x[i] + from;
        for (ptrdiff_t k = 0; k < n; k += FNN_LINE / (ptrdiff_t)sizeof(real)) __builtin_prefetch(line + n + k);
        const uint64_t word = marks_along(n, line);
        marks[i * apart] = word, all += __builtin_popcountll(word);
    }
    *marked = all;
}

enum { MARKED_BITS = 8 * (int)sizeof(real), MARKED_ACROSS = 8 };

/* Marks the lanes of some vectors of lines, at most MARKED_BITS, the last vector's first `rest`: for each a word, a bit for each line. As
 * much is asked for of the lines that come next. */
INLINE void marks_across(ptrdiff_t lines, int vecs, ptrdiff_t rest, const void *const *x, ptrdiff_t from, real *to) {
    const ivec none = vec_as_ivec(vec_zero());
    ivec found[MARKED_ACROSS];
#pragma GCC unroll 8
    for (int v = 0; v < vecs; v++) found[v] = none;
    for (ptrdiff_t i = 0; i < lines; i++) {
        const real *p = (const real *)x[i] + from, *ahead = (const real *)x[i + FNN_MARKED_DEPTH] + from;
        for (int v = 0; v < vecs * LANES; v += FNN_LINE / (int)sizeof(real)) __builtin_prefetch(ahead + v);
        const ivec line = ivec_set1((ireal)((uint64_t)1 << i));
#pragma GCC unroll 8
        for (int v = 0; v < vecs; v++) {
            const vec e = v + 1 < vecs || rest == LANES ? vec_load(p + v * LANES) : vec_load_n(p + v * LANES, rest);
            found[v] = ivec_add(found[v], ivec_select(vec_eq(e, vec_zero()), none, line));
        }
    }
#pragma GCC unroll 8
    for (int v = 0; v < vecs; v++) vec_store(to + v * LANES, ivec_as_vec(found[v]));
}

/* The same of rows across lines, at most FNN_MARKED_DEPTH, behind which x lists as many: for each of n columns a word, a bit for each
 * line. */
static void gemm_mark_across_kernel(ptrdiff_t lines, ptrdiff_t n, const void *const *x, ptrdiff_t from, uint64_t *marks, ptrdiff_t apart,
                                    ptrdiff_t *marked) {
    real found[FNN_MARKED_DEPTH / MARKED_BITS][FNN_MARKED_DEPTH + LANES]; /* bits */
    ptrdiff_t all = 0;
    for (ptrdiff_t i = 0; i < FNN_MARKED_DEPTH; i += MARKED_BITS) {
        const ptrdiff_t m = lines - i < MARKED_BITS ? lines - i : MARKED_BITS;
        ptrdiff_t k = 0;
        for (; k + MARKED_ACROSS * LANES <= n; k += MARKED_ACROSS * LANES)
            marks_across(m, MARKED_ACROSS, LANES, x + i, from + k, found[i / MARKED_BITS] + k);
        for (; k < n; k += LANES) marks_across(m, 1, n - k < LANES ? n - k : LANES, x + i, from + k, found[i / MARKED_BITS] + k);
    }
    for (ptrdiff_t k = 0; k < n; k++) {
        uint64_t word = 0;
        for (int i = 0; i < FNN_MARKED_DEPTH / MARKED_BITS; i++) {
            ireal bits;
            memcpy(&bits, &found[i][k], sizeof bits);
            word |= ((uint64_t)bits & (~(uint64_t)0 >> (64 - MARKED_BITS))) << (i * MARKED_BITS);
        }
        marks[k * apart] = word, all += __builtin_popcountll(word);
    }
    *marked = all;
}

/* The first marked element of row i times its row of B. The row is the i-th line, or, across, the i-th elements of all lines. An address
 * of its own makes each multiply-add one instruction with its load. */
INLINE uint64_t marked_element(int vecs, int across, uint64_t marks, const void *const *x, ptrdiff_t from, ptrdiff_t i,
                              const real *b, vec *acc) {
    const ptrdiff_t k = __builtin_ctzll(marks);
    const vec a = vec_set1(across ? ((const real *)x[k])[from + i] : ((const real *)x[i])[from + k]);
    const real *row = b + k * vecs * LANES;
    __asm__("" : "+r"(row));
#pragma GCC unroll 8
    for (int v = 0; v < vecs; v++) acc[v] = vec_fma(a, vec_load(row + v * LANES), acc[v]);
    return marks & (marks - 1);
}

/* Marked elements times B's rows of so many vectors: two at a time, since the CPU foresees the end of fewer turns better. */
INLINE void marked_row(int vecs, int across, uint64_t marks, const void *const *x, ptrdiff_t from, ptrdiff_t i, const real *b,
                       real *c, int accumulate) {
    vec acc[FNN_MARKED_VECS];
    if (accumulate && !marks) return;
#pragma GCC unroll 8
    for (int v = 0; v < vecs; v++) acc[v] = accumulate ? vec_load(c + v * LANES) : vec_zero();
    const int count = __builtin_popcountll(marks);
    for (int turn = count / 2; turn > 0; turn--) {
        marks = marked_element(vecs, across, marks, x, from, i, b, acc);
        marks = marked_element(vecs, across, marks, x, from, i, b, acc);
    }
    if (count % 2) marked_element(vecs, across, marks, x, from, i, b, acc);
#pragma GCC unroll 8
    for (int v = 0; v < vecs; v++) vec_store(c + v * LANES, acc[v]);
}

INLINE void marked_rows(int vecs, int across, ptrdiff_t rows, const uint64_t *marks, ptrdiff_t apart, const void *const *x,
                        ptrdiff_t from, const real *b, real *c, int accumulate) {
    for (ptrdiff_t i = 0; i < rows; i++)
        marked_row(vecs, across, marks[i * apart], x, from, i, b, c + i * vecs * LANES, accumulate);
}

#define MARKED_KERNEL(name, across)                                                                                     \
    static void name##_kernel(ptrdiff_t rows, ptrdiff_t vecs, const uint64_t *marks, ptrdiff_t apart, const void *const *x, \
                              ptrdiff_t from, const void *b, void *c, int accumulate) {                                 \
        switch (vecs) {                                                                                                 \
            MARKED(1, across) MARKED(2, across) MARKED(3, across) MARKED(4, across)                                     \
            MARKED(5, across) MARKED(6, across) MARKED(7, across) MARKED(8, across)                                     \
        }                                                                                                               \
    }
#define MARKED(n, across) case n: marked_rows(n, across, rows, marks, apart, x, from, b, c, accumulate); break;

/* C (rows x vecs vectors, dense) (+)= marked elements of rows, which lie along lines or across them (words `apart`), times B (vecs
 * vectors wide, dense). */
MARKED_KERNEL(gemm_marked, 0)
MARKED_KERNEL(gemm_marked_across, 1)
#undef MARKED_KERNEL
#undef MARKED

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

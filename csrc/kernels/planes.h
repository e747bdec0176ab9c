/* planes.h: images of few channels, from a plane for each channel to pixels one behind the other, and back. The loops are left to
 * the compiler's vectoriser: with the number of channels a constant it loads and stores whole vectors (on Zen 3 three channels take
 * 0.4 cycles an element, one by one 2). */

INLINE void planes_join(ptrdiff_t n, int planes, const real *restrict from, ptrdiff_t stride, int flip, real *restrict to) {
    for (ptrdiff_t i = 0; i < n; i++)
        for (int c = 0; c < planes; c++) to[i * planes + c] = from[c * stride + (flip ? n - 1 - i : i)];
}

/* to: (n, planes); from: (planes, n), planes `stride` apart, with flip from their ends on; 2 to FNN_FEW_PLANES of them */
INLINE void planes_join_few(ptrdiff_t n, ptrdiff_t planes, const real *from, ptrdiff_t stride, int flip, real *to) {
#define JOIN(count)                                                                                                     \
    if (flip) planes_join(n, count, from, stride, 1, to);                                                               \
    else planes_join(n, count, from, stride, 0, to);                                                                    \
    return
    switch (planes) {
    case 2: JOIN(2);
    case 3: JOIN(3);
    default: JOIN(4);
    }
#undef JOIN
}

INLINE void planes_split(ptrdiff_t n, int planes, const real *restrict from, real *restrict to, ptrdiff_t stride) {
    for (ptrdiff_t i = 0; i < n; i++)
        for (int c = 0; c < planes; c++) to[c * stride + i] = from[i * planes + c];
}

static void planes_join_kernel(ptrdiff_t n, ptrdiff_t planes, const void *from, ptrdiff_t stride, void *to) {
    planes_join_few(n, planes, from, stride, 0, to);
}

/* to: (planes, n), planes `stride` apart; from: (n, planes) */
static void planes_split_kernel(ptrdiff_t n, ptrdiff_t planes, const void *from, void *to, ptrdiff_t stride) {
    if (planes == 2) planes_split(n, 2, from, to, stride);
    else if (planes == 3) planes_split(n, 3, from, to, stride);
    else planes_split(n, 4, from, to, stride);
}

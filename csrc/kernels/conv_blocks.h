/* conv_blocks.h: gradients of weights from dy of which a block of 2 x 2 pixels holds one element of each channel that is not 0, as max
 * pooling's gradient is: lanes are a row of the kernel with all its channels. */

/* Vectors of sums in registers (of 32: such are the only machines that take this way); rows of a kernel. */
enum { BLOCKS_SUMS = 20, BLOCKS_TAPS = 5 };

/* conv_blocks_find: values, at (blocks x channels) = what is not 0 in blocks of two rows, upper and lower (2 blocks pixels of
 * channels, dy_pixel apart), and where the window of its pixel begins: at first for the first block's first pixel, `right` and `down`
 * between pixels. Returns through is_single whether no block and channel holds two; if not, values are of no use. */
static void conv_blocks_find_kernel(ptrdiff_t blocks, ptrdiff_t channels, const void *upper, const void *lower, ptrdiff_t dy_pixel,
                                    ptrdiff_t first, ptrdiff_t right, ptrdiff_t down, void *values, int32_t *at, int *is_single) {
    mask twice = mask_not(vec_eq(vec_zero(), vec_zero()));
    for (ptrdiff_t i = 0; i < blocks; i++)
        for (ptrdiff_t k = 0; k < channels; k += LANES) {
            const ptrdiff_t n = channels - k < LANES ? channels - k : LANES;
            const ptrdiff_t place = first + 2 * i * right;
            vec value = vec_zero();
            ivec where = ivec_set1((ireal)place);
            mask seen = mask_not(vec_eq(value, value));
#pragma GCC unroll 4
            for (int q = 0; q < 4; q++) {
                const real *row = (const real *)(q < 2 ? upper : lower) + (2 * i + q % 2) * dy_pixel + k;
                const vec v = load_lanes(row, n);
                const mask found = mask_not(vec_eq(v, vec_zero()));
                twice = mask_or(twice, mask_and(seen, found)), seen = mask_or(seen, found);
                value = vec_select(found, v, value);
                where = ivec_select(found, ivec_set1((ireal)(place + q % 2 * right + q / 2 * down)), where);
            }
            store_lanes((real *)values + i * channels + k, value, n);
            ivec_store_i32(at + i * channels + k, where, n);
        }
    *is_single = !mask_any(twice);
}

/* conv_blocks_unfold: to (cols x one or two vectors) = runs of x, `step` elements apart, filled up with zeros. */
static void conv_blocks_unfold_kernel(ptrdiff_t cols, ptrdiff_t run, ptrdiff_t step, const void *x, void *to) {
    const real *from = x;
    real *out = to;
    if (run <= LANES)
        for (; cols > 0; cols--, from += step, out += LANES) vec_store(out, vec_load_n(from, run));
    else
        for (; cols > 0; cols--, from += step, out += 2 * LANES) {
            vec_store(out, vec_load(from));
            vec_store(out + LANES, vec_load_n(from + LANES, run - LANES));
        }
}

INLINE void blocks_gradient(const int channels, const int vecs, ptrdiff_t windows, ptrdiff_t apart, const real *x, ptrdiff_t pitch,
                            const int32_t *at, const real *dy, real *sums) {
    vec s[BLOCKS_SUMS];
    const int each = BLOCKS_TAPS * vecs;
#pragma GCC unroll 32
    for (int i = 0; i < channels * each; i++) s[i] = vec_load(sums + i * LANES);
    for (; windows > 0; windows--, dy += apart, at += apart) {
#pragma GCC unroll 8
        for (int k = 0; k < channels; k++) {
            const vec g = vec_set1(dy[k]);
            const real *from = x + at[k];
#pragma GCC unroll 16
            for (int i = 0; i < each; i++)
                s[k * each + i] = vec_fma(g, vec_load(from + i / vecs * pitch + i % vecs * LANES), s[k * each + i]);
        }
    }
#pragma GCC unroll 32
    for (int i = 0; i < channels * each; i++) vec_store(sums + i * LANES, s[i]);
}

/* conv_blocks_gradient: sums (channels x BLOCKS_TAPS x vecs vectors) += dy (windows x channels) times what is at `at` in x, a kernel
 * row every `pitch` elements. */
static void conv_blocks_gradient_kernel(ptrdiff_t windows, ptrdiff_t channels, ptrdiff_t vecs, const void *x, ptrdiff_t pitch,
                                        const int32_t *at, const void *dy, void *sums) {
    const ptrdiff_t most = BLOCKS_SUMS / (BLOCKS_TAPS * vecs), each = BLOCKS_TAPS * vecs * LANES;
    for (ptrdiff_t k = 0, n; k < channels; k += n) {
        n = channels - k < most ? channels - k : most;
#define BLOCKS(vecs_, n_)                                                                                                   \
    if (vecs == vecs_ && n == n_) blocks_gradient(n_, vecs_, windows, channels, x, pitch, at + k, (const real *)dy + k,     \
                                                  (real *)sums + k * each)
        BLOCKS(2, 1);
        BLOCKS(2, 2);
        BLOCKS(1, 1);
        BLOCKS(1, 2);
        BLOCKS(1, 3);
        BLOCKS(1, 4);
#undef BLOCKS
    }
}

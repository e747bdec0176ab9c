/* conv_blocks.h: gradients from dy of which a block of 2 x 2 pixels holds one element of each channel that is not 0, as max pooling's
 * gradient is. Of weights: lanes are a row of the kernel with all its channels. Of the input: lanes are the window of a block, all its
 * pixels and channels, to which an element adds its weights, which lie there as its position wants them. */

/* Vectors of sums in registers, also of a window; rows of a kernel. */
#if REGISTERS == 32
enum { BLOCKS_SUMS = 20, BLOCKS_SCATTER = 16, BLOCKS_TAPS = 5 };
#else
enum { BLOCKS_SUMS = 12, BLOCKS_SCATTER = 14, BLOCKS_TAPS = 5 };
#endif

/* conv_blocks_find: values, positions (blocks x channels) = what is not 0 in blocks of two rows, upper and lower (2 blocks pixels of
 * channels, dy_pixel apart), and which of a block's four pixels it is, counted by rows. Returns through is_single whether no block and
 * channel holds two; if not, values are of no use. */
static void conv_blocks_find_kernel(ptrdiff_t blocks, ptrdiff_t channels, const void *upper, const void *lower, ptrdiff_t dy_pixel,
                                    void *values, int32_t *positions, int *is_single) {
    mask twice = mask_not(vec_eq(vec_zero(), vec_zero()));
    for (ptrdiff_t i = 0; i < blocks; i++)
        for (ptrdiff_t k = 0; k < channels; k += LANES) {
            const ptrdiff_t n = channels - k < LANES ? channels - k : LANES;
            vec value = vec_zero();
            ivec where = ivec_set1(0);
            mask seen = mask_not(vec_eq(value, value));
#pragma GCC unroll 4
            for (int q = 0; q < 4; q++) {
                const real *row = (const real *)(q < 2 ? upper : lower) + (2 * i + q % 2) * dy_pixel + k;
                const vec v = load_lanes(row, n);
                const mask found = mask_not(vec_eq(v, vec_zero()));
                twice = mask_or(twice, mask_and(seen, found)), seen = mask_or(seen, found);
                value = vec_select(found, v, value);
                where = ivec_select(found, ivec_set1(q), where);
            }
            store_lanes((real *)values + i * channels + k, value, n);
            ivec_store_i32(positions + i * channels + k, where, n);
        }
    *is_single = !mask_any(twice);
}

/* conv_blocks_list: of each window's values (windows x channels) those that are not 0, one behind the other, to `list`, and to `at` where
 * their weights are: at `place` of their channel, `right` and `down` further by position. counts: how many of each window. Writes up to a
 * vector more. Returns through is_finite whether all are. */
static void conv_blocks_list_kernel(ptrdiff_t windows, ptrdiff_t channels, const void *values_, const int32_t *positions,
                                    const int32_t *place, ptrdiff_t right, ptrdiff_t down, void *list_, int32_t *at, int32_t *counts,
                                    int *is_finite) {
    const real *values = values_;
    real *list = list_;
    vec zeros = vec_zero();
    const ivec one = ivec_set1(1), two = ivec_set1(2), none = ivec_set1(0);
    for (ptrdiff_t i = 0; i < windows; i++, values += channels, positions += channels) {
        int32_t count = 0;
        for (ptrdiff_t k = 0; k < channels; k += LANES) {
            const ptrdiff_t n = channels - k < LANES ? channels - k : LANES;
            const vec v = load_lanes(values + k, n);
            const ivec position = ivec_load_i32(positions + k, n);
            ivec to = ivec_load_i32(place + k, n);
            to = ivec_add(to, ivec_select(ivec_eq(ivec_and(position, one), one), ivec_set1((ireal)right), none));
            to = ivec_add(to, ivec_select(ivec_eq(ivec_and(position, two), two), ivec_set1((ireal)down), none));
            const mask found = mask_not(vec_eq(v, vec_zero()));
            zeros = vec_fma(v, vec_zero(), zeros);
            pack_lanes(list, v, found), pack_lanes_i32(at, to, found);
            const int32_t more = __builtin_popcount(mask_bits(found));
            list += more, at += more, count += more;
        }
        counts[i] = count;
    }
    *is_finite = !mask_any(mask_not(vec_eq(zeros, vec_zero())));
}

/* An address of its own makes each multiply-add one instruction with its load. */
INLINE void blocks_scatter_one(const int vecs, real value, const real *weights, vec *s) {
    const vec g = vec_set1(value);
    __asm__("" : "+r"(weights));
#pragma GCC unroll 16
    for (int i = 0; i < vecs; i++) s[i] = vec_fma(g, vec_load(weights + i * LANES), s[i]);
}

/* So many neighbouring vectors of a window's sums: to = from + the weights of what is listed. */
INLINE void blocks_scatter(const int vecs, ptrdiff_t count, const real *list, const int32_t *at, const real *weights, const real *from,
                           real *to) {
    vec s[BLOCKS_SCATTER];
#pragma GCC unroll 16
    for (int i = 0; i < vecs; i++) s[i] = from ? vec_load(from + i * LANES) : vec_zero();
    for (; count > 1; count -= 2, list += 2, at += 2) {
        blocks_scatter_one(vecs, list[0], weights + at[0], s);
        blocks_scatter_one(vecs, list[1], weights + at[1], s);
    }
    if (count) blocks_scatter_one(vecs, list[0], weights + at[0], s);
#pragma GCC unroll 16
    for (int i = 0; i < vecs; i++) vec_store(to + i * LANES, s[i]);
}

/* conv_blocks_scatter: sums = a row of windows, each of so many vectors, `pitch` elements apart: what is in `from` (NULL: 0)
 * there, and each listed element times its weights (vectors). */
static void conv_blocks_scatter_kernel(ptrdiff_t windows, ptrdiff_t vecs, const int32_t *counts, const void *list_, const int32_t *at,
                                       const void *weights, const void *from_, void *sums, ptrdiff_t pitch) {
    const real *list = list_;
    const ptrdiff_t parts = (vecs + BLOCKS_SCATTER - 1) / BLOCKS_SCATTER, most = (vecs + parts - 1) / parts;
    for (ptrdiff_t i = 0; i < windows; list += counts[i], at += counts[i], i++)
        for (ptrdiff_t v = 0, n; v < vecs; v += n) {
            n = vecs - v < most ? vecs - v : most;
            const real *from = from_ ? (const real *)from_ + i * pitch + v * LANES : NULL, *w = (const real *)weights + v * LANES;
            real *to = (real *)sums + i * pitch + v * LANES;
#define SCATTER(n_)                                                                                                         \
    case n_: blocks_scatter(n_, counts[i], list, at, w, from, to); break
            switch (n) {
                SCATTER(1); SCATTER(2); SCATTER(3); SCATTER(4); SCATTER(5); SCATTER(6); SCATTER(7); SCATTER(8);
                SCATTER(9); SCATTER(10); SCATTER(11); SCATTER(12); SCATTER(13); SCATTER(14);
#if REGISTERS == 32
                SCATTER(15); SCATTER(16);
#endif
            }
#undef SCATTER
        }
}

INLINE void blocks_fold(ptrdiff_t pieces, ptrdiff_t piece, ptrdiff_t overlap, ptrdiff_t vecs, const real *sums, ptrdiff_t pitch, real *out) {
    sums += (overlap - 1) * pitch;
    for (ptrdiff_t left = pieces * piece; left > 0; left -= piece, sums += pitch, out += piece)
        for (ptrdiff_t i = 0; i < vecs; i++) {
            vec sum = vec_load(sums + i * LANES);
#pragma GCC unroll 4
            for (ptrdiff_t q = 1; q < overlap; q++) sum = vec_add(sum, vec_load(sums + i * LANES + q * (piece - pitch)));
            store_lanes(out + i * LANES, sum, left - i * LANES);
        }
}

/* conv_blocks_fold: out (pieces of `piece` elements) = the sums of `overlap` windows each: piece q of window p + overlap - 1 - q belongs
 * to piece p. What a vector has more than a piece, the next one overwrites. */
static void conv_blocks_fold_kernel(ptrdiff_t pieces, ptrdiff_t piece, ptrdiff_t overlap, const void *sums, ptrdiff_t pitch, void *out) {
    if (overlap == 3 && piece <= LANES) blocks_fold(pieces, piece, 3, 1, sums, pitch, out);
    else if (overlap == 3 && piece <= 2 * LANES) blocks_fold(pieces, piece, 3, 2, sums, pitch, out);
    else blocks_fold(pieces, piece, overlap, (piece + LANES - 1) / LANES, sums, pitch, out);
}

INLINE void blocks_unfold(ptrdiff_t vecs, ptrdiff_t cols, ptrdiff_t run, ptrdiff_t step, const real *from, real *out) {
    const ptrdiff_t whole = (vecs - 1) * LANES;
    for (; cols > 0; cols--, from += step, out += vecs * LANES) {
#pragma GCC unroll 4
        for (ptrdiff_t i = 0; i < whole; i += LANES) vec_store(out + i, vec_load(from + i));
        vec_store(out + whole, vec_load_n(from + whole, run - whole));
    }
}

/* conv_blocks_unfold: to (cols x as many vectors as a run needs) = runs of x, `step` elements apart, filled up with zeros. */
static void conv_blocks_unfold_kernel(ptrdiff_t cols, ptrdiff_t run, ptrdiff_t step, const void *x, void *to) {
    const ptrdiff_t vecs = (run + LANES - 1) / LANES;
    if (vecs == 1) blocks_unfold(1, cols, run, step, x, to);
    else if (vecs == 2) blocks_unfold(2, cols, run, step, x, to);
    else if (vecs == 4) blocks_unfold(4, cols, run, step, x, to);
    else blocks_unfold(vecs, cols, run, step, x, to);
}

/* Some kernel rows' sums of channels, whose sums lie `room` vectors apart. */
INLINE void blocks_gradient(const int channels, const int taps, const int vecs, const int room, ptrdiff_t windows, ptrdiff_t apart,
                            const real *x, ptrdiff_t pitch, const int32_t *at, const real *dy, real *sums) {
    vec s[BLOCKS_SUMS];
    const int each = taps * vecs;
#pragma GCC unroll 32
    for (int i = 0; i < channels * each; i++) s[i] = vec_load(sums + (i / each * room + i % each) * LANES);
    for (; windows > 0; windows--, dy += apart, at += apart) {
#pragma GCC unroll 8
        for (int k = 0; k < channels; k++) {
            const vec g = vec_set1(dy[k]);
            const real *row = x + at[k];
#pragma GCC unroll 5
            for (int i = 0; i < each; i += vecs, row += pitch) {
                if (REGISTERS == 16) __asm__("" : "+r"(row)); /* as above; else some of all distances are in memory */
#pragma GCC unroll 4
                for (int v = 0; v < vecs; v++) s[k * each + i + v] = vec_fma(g, vec_load(row + v * LANES), s[k * each + i + v]);
            }
        }
    }
#pragma GCC unroll 32
    for (int i = 0; i < channels * each; i++) vec_store(sums + (i / each * room + i % each) * LANES, s[i]);
}

/* conv_blocks_gradient: sums (channels x BLOCKS_TAPS x vecs vectors) += dy (windows x channels) times what is at `at` in x, a kernel
 * row every `pitch` elements. As many kernel rows at a time as registers hold, of as many channels; vecs: those of 32 elements at most. */
static void conv_blocks_gradient_kernel(ptrdiff_t windows, ptrdiff_t channels, ptrdiff_t vecs, const void *x, ptrdiff_t pitch,
                                        const int32_t *at, const void *dy, void *sums) {
    const ptrdiff_t room = BLOCKS_TAPS * vecs, parts = (room + BLOCKS_SUMS - 1) / BLOCKS_SUMS, rows = (BLOCKS_TAPS + parts - 1) / parts;
    const ptrdiff_t most = parts > 1 ? 1 : BLOCKS_SUMS / room;
    for (ptrdiff_t k = 0, n; k < channels; k += n) {
        n = channels - k < most ? channels - k : most;
        for (ptrdiff_t r = 0; r < BLOCKS_TAPS; r += rows) {
            const ptrdiff_t taps = BLOCKS_TAPS - r < rows ? BLOCKS_TAPS - r : rows;
            const real *from = (const real *)x + r * pitch;
            real *to = (real *)sums + (k * room + r * vecs) * LANES;
#define BLOCKS(vecs_, taps_, n_)                                                                                            \
    if (vecs == vecs_ && taps == taps_ && n == n_)                                                                          \
    blocks_gradient(n_, taps_, vecs_, BLOCKS_TAPS * vecs_, windows, channels, from, pitch, at + k, (const real *)dy + k, to)
            BLOCKS(1, 5, 1);
            BLOCKS(1, 5, 2);
            BLOCKS(2, 5, 1);
#if REGISTERS == 32
            BLOCKS(1, 5, 3);
            BLOCKS(1, 5, 4);
            BLOCKS(2, 5, 2);
#else
            BLOCKS(3, 3, 1);
            BLOCKS(3, 2, 1);
            BLOCKS(4, 3, 1);
            BLOCKS(4, 2, 1);
#endif
#undef BLOCKS
        }
    }
}

/* conv.h: what convolutions do to elements besides gemm_tile: packing and scattering. */

/* n elements from p to q. */
INLINE void copy_run(ptrdiff_t n, const real *restrict p, real *restrict q) {
    ptrdiff_t i = 0;
    for (; i + LANES <= n; i += LANES) vec_store(q + i, vec_load(p + i));
    if (i < n) vec_store_n(q + i, vec_load_n(p + i, n - i), n - i);
}

/* Rows of so many vectors, a number known here: of others the compiler makes a call of memmove each, which takes longer than these. */
INLINE void copy_vectors(int vectors, ptrdiff_t rows, const real *src, ptrdiff_t src_row, real *dst, ptrdiff_t dst_row) {
    for (ptrdiff_t i = 0; i < rows; i++, src += src_row, dst += dst_row)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) vec_store(dst + v * LANES, vec_load(src + v * LANES));
}

/* conv_pack: src is (outer * inner rows) x cols; row o * inner + i goes to dst + slot[i] + o * dst_row (slot NULL: 0).
 * One text for weights into panels (rows: kernel positions, or channels and positions) and for any layout into NHWC
 * rows (rows: pixels). Where neither rows nor columns are neighbours in memory it is a plain gather. */
static void conv_pack_kernel(ptrdiff_t inner, ptrdiff_t outer, ptrdiff_t cols, const void *from, ptrdiff_t src_row,
                             ptrdiff_t src_col, void *to, const ptrdiff_t *slot, ptrdiff_t dst_row) {
    enum { FEW = 4 }; /* columns below which a transposed block is mostly empty */
    const real *src = from;
    real *dst = to;
    const ptrdiff_t rows = inner * outer;
    if ((src_col == 1 || cols == 1) && inner == 1 && src_row == cols && dst_row == cols) {
        copy_run(rows * cols, src, dst + (slot ? slot[0] : 0));
        return;
    }
    if (inner == 1 && src_col == 1 && cols == LANES) {
        copy_vectors(1, rows, src, src_row, dst + (slot ? slot[0] : 0), dst_row);
        return;
    }
    if (inner == 1 && src_col == 1 && cols == 2 * LANES) {
        copy_vectors(2, rows, src, src_row, dst + (slot ? slot[0] : 0), dst_row);
        return;
    }
    if (inner == 1 && src_col == 1 && cols == 4 * LANES) {
        copy_vectors(4, rows, src, src_row, dst + (slot ? slot[0] : 0), dst_row);
        return;
    }
    if (src_row != 1 || src_col == 1 || cols <= FEW) {
        for (ptrdiff_t o = 0; o < outer; o++)
            for (ptrdiff_t i = 0; i < inner; i++) {
                const real *p = src + (o * inner + i) * src_row;
                real *q = dst + (slot ? slot[i] : 0) + o * dst_row;
                if (src_col == 1) copy_run(cols, p, q);
                else
                    for (ptrdiff_t j = 0; j < cols; j++) q[j] = p[j * src_col];
            }
        return;
    }
    for (ptrdiff_t j = 0; j < cols; j += LANES) {
        const ptrdiff_t width = cols - j < LANES ? cols - j : LANES;
        ptrdiff_t i = 0, o = 0;
        for (ptrdiff_t row = 0; row < rows; row += LANES) {
            const ptrdiff_t height = rows - row < LANES ? rows - row : LANES;
            vec block[LANES];
            if (inner == 1 && width == LANES && height == LANES) {
                real *q = dst + (slot ? slot[0] : 0) + row * dst_row + j;
#pragma GCC unroll 16
                for (int v = 0; v < LANES; v += VEC_BLOCK) {
                    vec_load_columns(src + j * src_col + row + v, src_col, block);
                    for (int k = 0; k < VEC_BLOCK; k++) vec_store(q + (v + k) * dst_row, block[k]);
                }
                o += LANES;
                continue;
            }
            for (int v = 0; v < LANES; v++)
                block[v] = v < width ? vec_load_n(src + (j + v) * src_col + row, height) : vec_zero();
            vec_transpose(block);
            for (ptrdiff_t v = 0; v < height; v++) {
                vec_store_n(dst + (slot ? slot[i] : 0) + o * dst_row + j, block[v], width);
                if (++i == inner) i = 0, o++;
            }
        }
    }
}

/* conv_scatter: src (rows x cols, unit column stride) to any strides. */
static void conv_scatter_kernel(ptrdiff_t rows, ptrdiff_t cols, const void *from, ptrdiff_t src_row, void *to,
                                ptrdiff_t dst_row, ptrdiff_t dst_col) {
    const real *src = from;
    real *dst = to;
    for (ptrdiff_t i = 0; i < rows; i++) {
        if (dst_col == 1) copy_run(cols, src + i * src_row, dst + i * dst_row);
        else
            for (ptrdiff_t j = 0; j < cols; j++) dst[i * dst_row + j * dst_col] = src[i * src_row + j];
    }
}

/* conv_combine: dst (cols x (outer * inner), unit stride along the rows o * inner + i of src) = the sum of `parts`
 * packed gradients, one after another; row o * inner + i of each is at slot[i] + o * src_row. The opposite of
 * conv_pack. */
static void conv_combine_kernel(ptrdiff_t inner, ptrdiff_t outer, ptrdiff_t cols, ptrdiff_t parts, const void *from,
                                ptrdiff_t part_stride, const ptrdiff_t *slot, ptrdiff_t src_row, void *to,
                                ptrdiff_t dst_col) {
    const real *src = from;
    real *dst = to;
    const ptrdiff_t rows = inner * outer;
    for (ptrdiff_t j = 0; j < cols; j += LANES) {
        const ptrdiff_t width = cols - j < LANES ? cols - j : LANES;
        ptrdiff_t i = 0, o = 0;
        for (ptrdiff_t row = 0; row < rows; row += LANES) {
            const ptrdiff_t height = rows - row < LANES ? rows - row : LANES;
            vec block[LANES];
            for (ptrdiff_t v = 0; v < LANES; v++) {
                block[v] = vec_zero();
                if (v >= height) continue;
                const real *p = src + slot[i] + o * src_row + j;
                block[v] = vec_load_n(p, width);
                for (ptrdiff_t part = 1; part < parts; part++)
                    block[v] = vec_add(block[v], vec_load_n(p + part * part_stride, width));
                if (++i == inner) i = 0, o++;
            }
            vec_transpose(block);
            for (ptrdiff_t v = 0; v < width; v++) vec_store_n(dst + (j + v) * dst_col + row, block[v], height);
        }
    }
}

/* conv_fill: rows of dst (rows x cols) = row; NULL: 0. */
static void conv_fill_kernel(ptrdiff_t rows, ptrdiff_t cols, const void *row, void *to, ptrdiff_t dst_row,
                             ptrdiff_t dst_col) {
    const real *from = row;
    for (ptrdiff_t i = 0; i < rows; i++) {
        real *q = (real *)to + i * dst_row;
        if (dst_col == 1 && from) memcpy(q, from, (size_t)cols * sizeof(real));
        else if (dst_col == 1) memset(q, 0, (size_t)cols * sizeof(real));
        else
            for (ptrdiff_t j = 0; j < cols; j++) q[j * dst_col] = from ? from[j] : 0;
    }
}

/* conv_add_windows: image (rows image_row apart) += windows of `pixels` pixels, image_pixel after one another, of `rows` rows of
 * `run` elements each; columns: a window's elements, a pixel's `pitch` apart. There is room for a vector behind a row of the image.
 * Four pixels far apart take turns: a neighbour would wait until what overlaps with it has reached the cache. */
static void conv_add_windows_kernel(ptrdiff_t pixels, ptrdiff_t rows, ptrdiff_t run, const void *columns, ptrdiff_t pitch,
                                    void *image, ptrdiff_t image_row, ptrdiff_t image_pixel) {
    enum { APART = 4 };
    const ptrdiff_t part = (pixels + APART - 1) / APART;
    for (ptrdiff_t turn = 0; turn < part * APART; turn++) {
        const ptrdiff_t pixel = turn % APART * part + turn / APART;
        if (pixel >= pixels) continue;
        const real *p = (const real *)columns + pixel * pitch;
        real *q = (real *)image + pixel * image_pixel;
        for (ptrdiff_t i = 0; i < rows; i++, p += run, q += image_row) {
            ptrdiff_t j = 0;
            for (; j + LANES <= run; j += LANES) vec_store(q + j, vec_add(vec_load(q + j), vec_load(p + j)));
            if (j < run) vec_store(q + j, vec_add(vec_load(q + j), vec_load_n(p + j, run - j)));
        }
    }
}

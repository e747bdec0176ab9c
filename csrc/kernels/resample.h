/* resample.h: weighted sums of whole pixels (up-sampling, padding by what is there, and their gradients); un-pooling;
 * local response normalisation along channels. Maps are [pixels][channels]. */

/* One row of results: y[j] = sum over a of row_weight[a] (sum over b of column_weight[b] x[row[a]][column[b]]), b
 * from start[j] to start[j + 1]; y: (width, channels); x: rows x_row elements apart, pixels `channels` apart. */
static void resample_row_kernel(ptrdiff_t width, ptrdiff_t channels, ptrdiff_t rows, const ptrdiff_t *row,
                                const void *row_weight_, const ptrdiff_t *start, const ptrdiff_t *column,
                                const void *column_weight_, const void *x_, ptrdiff_t x_row, void *y_) {
    const real *row_weight = row_weight_, *column_weight = column_weight_, *x = x_;
    real *y = y_;
    for (ptrdiff_t j = 0; j < width; j++, y += channels)
        for (ptrdiff_t c = 0, left; (left = channels - c) > 0; c += LANES) {
            vec sum = vec_zero();
            for (ptrdiff_t a = 0; a < rows; a++) {
                const real *from = x + row[a] * x_row + c;
                vec across = vec_zero();
                for (ptrdiff_t b = start[j]; b < start[j + 1]; b++)
                    across = vec_fma(vec_set1(column_weight[b]), load_lanes(from + column[b] * channels, left), across);
                sum = vec_fma(vec_set1(row_weight[a]), across, sum);
            }
            store_lanes(y + c, sum, left);
        }
}

/* y[index] = x (gather 0) or x = y[index] (gather 1) for n elements of one plane; index = row * width + column; x,
 * index: steps apart; y: any strides. Indices were checked. */
static void unpool_kernel(int gather, ptrdiff_t n, const int64_t *index, ptrdiff_t index_step, void *x_,
                          ptrdiff_t x_step, ptrdiff_t width, void *y_, ptrdiff_t y_row, ptrdiff_t y_col) {
    real *x = x_, *y = y_;
    for (ptrdiff_t i = 0; i < n; i++) {
        const ptrdiff_t at = (ptrdiff_t)index[i * index_step];
        real *place = y + at / width * y_row + at % width * y_col;
        if (gather) x[i * x_step] = *place;
        else *place = x[i * x_step];
    }
}

/* For each pixel: sums (channels) of v over the window of `size` channels that starts `before` channels earlier. */
INLINE void window_sums(ptrdiff_t channels, ptrdiff_t size, ptrdiff_t before, const real *v, real *sums) {
    for (ptrdiff_t c = 0; c < channels; c++) {
        const ptrdiff_t from = c - before > 0 ? c - before : 0;
        const ptrdiff_t end = c - before + size < channels ? c - before + size : channels;
        real sum = 0;
        for (ptrdiff_t k = from; k < end; k++) sum += v[k];
        sums[c] = sum;
    }
}

/* y = x / scale^beta, scale = k + alpha / size * sum of x^2 over neighbouring channels; y, scale, x: (pixels,
 * channels); room: (channels) */
static void local_response_kernel(ptrdiff_t pixels, ptrdiff_t channels, ptrdiff_t size, double alpha, double beta,
                                  double k, void *y_, void *scale_, const void *x_, void *room) {
    const vec by = vec_set1((real)(alpha / (double)size)), base = vec_set1((real)k), power = vec_set1((real)-beta);
    for (ptrdiff_t p = 0; p < pixels; p++) {
        const real *x = (const real *)x_ + p * channels;
        real *y = (real *)y_ + p * channels, *scale = (real *)scale_ + p * channels, *squares = room;
        for (ptrdiff_t c = 0; c < channels; c++) squares[c] = x[c] * x[c];
        window_sums(channels, size, size / 2, squares, scale);
        for (ptrdiff_t c = 0, left; (left = channels - c) > 0; c += LANES) {
            const vec s = vec_fma(by, load_lanes(scale + c, left), base);
            store_lanes(scale + c, s, left);
            store_lanes(y + c, vec_mul(load_lanes(x + c, left), vec_pow(s, power)), left);
        }
    }
}

/* dx = dy scale^-beta - 2 alpha beta / size x (sum of dy x scale^(-beta - 1) over the channels whose window holds
 * this one); all (pixels, channels); room: (2, channels) */
static void local_response_backward_kernel(ptrdiff_t pixels, ptrdiff_t channels, ptrdiff_t size, double alpha,
                                           double beta, void *dx_, const void *dy_, const void *x_,
                                           const void *scale_, void *room) {
    const vec by = vec_set1((real)(-2 * alpha * beta / (double)size)), power = vec_set1((real)-beta);
    real *terms = room, *sums = terms + channels;
    for (ptrdiff_t p = 0; p < pixels; p++) {
        const real *x = (const real *)x_ + p * channels, *dy = (const real *)dy_ + p * channels;
        const real *scale = (const real *)scale_ + p * channels;
        real *dx = (real *)dx_ + p * channels;
        for (ptrdiff_t c = 0, left; (left = channels - c) > 0; c += LANES) {
            const vec s = load_lanes(scale + c, left), direct = vec_mul(load_lanes(dy + c, left), vec_pow(s, power));
            store_lanes(dx + c, direct, left);
            store_lanes(terms + c, vec_div(vec_mul(direct, load_lanes(x + c, left)), s), left);
        }
        window_sums(channels, size, size - 1 - size / 2, terms, sums);
        for (ptrdiff_t c = 0, left; (left = channels - c) > 0; c += LANES) {
            const vec through = vec_mul(vec_mul(by, load_lanes(x + c, left)), load_lanes(sums + c, left));
            store_lanes(dx + c, vec_add(load_lanes(dx + c, left), through), left);
        }
    }
}

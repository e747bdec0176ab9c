/* resample.h: weighted sums of whole pixels (up-sampling, padding by what is there, and their gradients); un-pooling;
 * local response normalisation along channels. Maps are [pixels][channels]. */

/* y = sum over k of weight[k] x[source[k]], runs of n elements, `step` apart; as many sources as `few` (at most 4) says, or any
 * number. */
INLINE void sum_few_runs(ptrdiff_t n, ptrdiff_t sources, int few, const real *weight, const ptrdiff_t *source, ptrdiff_t step,
                         const real *x, real *y) {
    const ptrdiff_t count = few ? few : sources;
    const real *from[4];
    vec by[4];
#pragma GCC unroll 4
    for (int k = 0; k < few; k++) from[k] = x + source[k] * step, by[k] = vec_set1(weight[k]);
    for (ptrdiff_t i = 0; i < n; i += LANES) {
        const int whole = i + LANES <= n;
        vec sum = vec_zero();
#pragma GCC unroll 4
        for (ptrdiff_t k = 0; k < count; k++) {
            const real *at = few ? from[k] + i : x + source[k] * step + i;
            const vec v = whole ? vec_load(at) : vec_load_n(at, n - i), w = few ? by[k] : vec_set1(weight[k]);
            sum = k ? vec_fma(w, v, sum) : vec_mul(w, v);
        }
        if (whole) vec_store(y + i, sum);
        else vec_store_n(y + i, sum, n - i);
    }
}

static void sum_of_runs(ptrdiff_t n, ptrdiff_t sources, const real *weight, const ptrdiff_t *source, ptrdiff_t step,
                         const real *x, real *y) {
    if (sources == 0) memset(y, 0, (size_t)n * sizeof *y);
    else if (sources == 1 && weight[0] == 1) memcpy(y, x + source[0] * step, (size_t)n * sizeof *y);
    else if (sources == 2) sum_few_runs(n, sources, 2, weight, source, step, x, y);
    else if (sources == 4) sum_few_runs(n, sources, 4, weight, source, step, x, y);
    else sum_few_runs(n, sources, 0, weight, source, step, x, y);
}

/* One row of results: y[j] = sum over its entries of weight (sum over a of row_weight[a] x[row[a]][column]); y: (width, channels);
 * room: for the sums of rows, `block` channels of each pixel that is named, unless there is one row of weight one. */
static void resample_row_kernel(const fnn_resample *p, ptrdiff_t rows, const ptrdiff_t *row, const void *row_weight, const void *x_,
                                void *room, void *y_) {
    const ptrdiff_t channels = p->channels;
    const real *weight = p->weight, *x = x_;
    real *y = y_;
    const int plain = rows == 1 && *(const real *)row_weight == 1;
    for (ptrdiff_t c = 0, n; c < channels; c += n) {
        n = plain || channels - c < p->block ? channels - c : p->block;
        const int dense = n == channels && p->pixels && p->pixel[p->pixels - 1] == p->pixels - 1;
        const ptrdiff_t runs = plain ? 0 : dense ? 1 : p->pixels, run = dense ? p->pixels * n : n;
        for (ptrdiff_t j = 0; j < runs; j++)
            sum_of_runs(run, rows, row_weight, row, p->x_row, x + p->pixel[j] * channels + c, (real *)room + j * n);
        for (ptrdiff_t j = 0; j < p->width; j++) {
            const ptrdiff_t at = p->start[j];
            sum_of_runs(n, p->start[j + 1] - at, weight + at, (plain ? p->column : p->place) + at, plain ? channels : n,
                        plain ? x + row[0] * p->x_row + c : room, y + j * channels + c);
        }
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

/* recurrent.h: one step of a recurrent layer for one sequence, forward and backward, between the matrix products.
 * n: hidden units; pre: (gates, n), what the hidden state gives; x: (gates, n), what the input gives; gates: (gates, n),
 * activated. Gates are in PyTorch's order: i f g o, r z n. */

INLINE vec gate_sum(const real *pre, const real *x, const real *bias, ptrdiff_t at, ptrdiff_t left) {
    const vec v = vec_add(load_lanes(pre + at, left), load_lanes(x + at, left));
    return bias ? vec_add(v, load_lanes(bias + at, left)) : v;
}

/* c = f c + i g, h = o tanh(c) */
INLINE void lstm_step(ptrdiff_t n, const real *pre, const real *x, const real *bias, real *h, real *c, real *gates, real *before,
                      real *extra, real *y) {
    for (ptrdiff_t j = 0, left; (left = n - j) > 0; j += LANES) {
        const vec i = vec_sigmoid(gate_sum(pre, x, bias, j, left)), f = vec_sigmoid(gate_sum(pre, x, bias, n + j, left));
        const vec g = vec_tanh(gate_sum(pre, x, bias, 2 * n + j, left)), o = vec_sigmoid(gate_sum(pre, x, bias, 3 * n + j, left));
        const vec cell = load_lanes(c + j, left), next = vec_fma(f, cell, vec_mul(i, g)), state = vec_mul(o, vec_tanh(next));
        store_lanes(before + j, load_lanes(h + j, left), left);
        store_lanes(extra + j, cell, left);
        store_lanes(gates + j, i, left);
        store_lanes(gates + n + j, f, left);
        store_lanes(gates + 2 * n + j, g, left);
        store_lanes(gates + 3 * n + j, o, left);
        store_lanes(c + j, next, left);
        store_lanes(h + j, state, left);
        store_lanes(y + j, state, left);
    }
}

/* h = (1 - z) tanh(x_n + r hn) + z h, hn: what the hidden state gives to n, bias included */
INLINE void gru_step(ptrdiff_t n, const real *pre, const real *x, const real *bias, real *h, real *gates, real *before,
                     real *extra, real *y) {
    for (ptrdiff_t j = 0, left; (left = n - j) > 0; j += LANES) {
        const vec r = vec_sigmoid(gate_sum(pre, x, bias, j, left)), z = vec_sigmoid(gate_sum(pre, x, bias, n + j, left));
        const vec sum = load_lanes(pre + 2 * n + j, left), old = load_lanes(h + j, left);
        const vec hn = bias ? vec_add(sum, load_lanes(bias + 2 * n + j, left)) : sum;
        const vec m = vec_tanh(vec_fma(r, hn, load_lanes(x + 2 * n + j, left))), state = vec_fma(z, vec_sub(old, m), m);
        store_lanes(before + j, old, left);
        store_lanes(extra + j, hn, left);
        store_lanes(gates + j, r, left);
        store_lanes(gates + n + j, z, left);
        store_lanes(gates + 2 * n + j, m, left);
        store_lanes(h + j, state, left);
        store_lanes(y + j, state, left);
    }
}

/* h = tanh(pre + x) or max(pre + x, 0) */
INLINE void plain_step(int rectified, ptrdiff_t n, const real *pre, const real *x, const real *bias, real *h, real *gates,
                       real *before, real *y) {
    for (ptrdiff_t j = 0, left; (left = n - j) > 0; j += LANES) {
        const vec v = gate_sum(pre, x, bias, j, left), state = rectified ? relu_forward_formula(v, NULL) : vec_tanh(v);
        store_lanes(before + j, load_lanes(h + j, left), left);
        store_lanes(gates + j, state, left);
        store_lanes(h + j, state, left);
        store_lanes(y + j, state, left);
    }
}

/* h, c: (n) the state, which moves on; before: the old h; extra: the old c (LSTM), hn (GRU); y: the new h; bias:
 * (gates, n) or NULL */
static void recurrent_step_kernel(int mode, ptrdiff_t n, const void *pre, const void *x, const void *bias, void *h,
                                  void *c, void *gates, void *before, void *extra, void *y) {
    if (mode == FNN_LSTM) lstm_step(n, pre, x, bias, h, c, gates, before, extra, y);
    else if (mode == FNN_GRU) gru_step(n, pre, x, bias, h, gates, before, extra, y);
    else plain_step(mode == FNN_RNN_RELU, n, pre, x, bias, h, gates, before, y);
}

/* y (1 - y) g and (1 - y^2) g: gradients through the logistic function and tanh */
INLINE vec through_sigmoid(vec y, vec g) { return vec_mul(vec_mul(y, vec_sub(vec_set1(1), y)), g); }
INLINE vec through_tanh(vec y, vec g) { return vec_mul(vec_fnma(y, y, vec_set1(1)), g); }

/* The gradient of a gate goes where all steps' are, and where the next product reads it. */
INLINE void store_gradient(real *dx, real *dhidden, ptrdiff_t at, vec d, ptrdiff_t left) {
    store_lanes(dx + at, d, left);
    store_lanes(dhidden + at, d, left);
}

INLINE void lstm_back(ptrdiff_t n, const real *gates, const real *extra, real *dh, real *dc, real *dx, real *dhidden) {
    for (ptrdiff_t j = 0, left; (left = n - j) > 0; j += LANES) {
        const vec i = load_lanes(gates + j, left), f = load_lanes(gates + n + j, left);
        const vec g = load_lanes(gates + 2 * n + j, left), o = load_lanes(gates + 3 * n + j, left);
        const vec old = load_lanes(extra + j, left), t = vec_tanh(vec_fma(f, old, vec_mul(i, g)));
        const vec d = load_lanes(dh + j, left),
                  cell = vec_add(load_lanes(dc + j, left), through_tanh(t, vec_mul(d, o)));
        store_gradient(dx, dhidden, j, through_sigmoid(i, vec_mul(cell, g)), left);
        store_gradient(dx, dhidden, n + j, through_sigmoid(f, vec_mul(cell, old)), left);
        store_gradient(dx, dhidden, 2 * n + j, through_tanh(g, vec_mul(cell, i)), left);
        store_gradient(dx, dhidden, 3 * n + j, through_sigmoid(o, vec_mul(d, t)), left);
        store_lanes(dc + j, vec_mul(cell, f), left);
        store_lanes(dh + j, vec_zero(), left);
    }
}

INLINE void gru_back(ptrdiff_t n, const real *gates, const real *before, const real *extra, real *dh, real *dx,
                     real *dhidden) {
    for (ptrdiff_t j = 0, left; (left = n - j) > 0; j += LANES) {
        const vec r = load_lanes(gates + j, left), z = load_lanes(gates + n + j, left);
        const vec m = load_lanes(gates + 2 * n + j, left), d = load_lanes(dh + j, left);
        const vec dm = through_tanh(m, vec_fnma(d, z, d)),
                  dr = through_sigmoid(r, vec_mul(dm, load_lanes(extra + j, left)));
        const vec dz = through_sigmoid(z, vec_mul(d, vec_sub(load_lanes(before + j, left), m)));
        store_gradient(dx, dhidden, j, dr, left);
        store_gradient(dx, dhidden, n + j, dz, left);
        store_lanes(dx + 2 * n + j, dm, left);
        store_lanes(dhidden + 2 * n + j, vec_mul(dm, r), left);
        store_lanes(dh + j, vec_mul(d, z), left);
    }
}

INLINE void plain_back(int rectified, ptrdiff_t n, const real *gates, real *dh, real *dx, real *dhidden) {
    for (ptrdiff_t j = 0, left; (left = n - j) > 0; j += LANES) {
        const vec y = load_lanes(gates + j, left), d = load_lanes(dh + j, left);
        const vec g = rectified ? vec_select(vec_le(y, vec_zero()), vec_zero(), d) : through_tanh(y, d);
        store_gradient(dx, dhidden, j, g, left);
        store_lanes(dh + j, vec_zero(), left);
    }
}

/* dh, dc: (n) gradients of the new state, which become those of the old one but for what comes through the matrix
 * product; dy: (n) or NULL, added to dh first; dx, dhidden: (gates, n) gradients of what input and hidden state gave, which
 * are the same for all but GRU */
static void recurrent_step_backward_kernel(int mode, ptrdiff_t n, const void *gates, const void *before,
                                           const void *extra, const void *dy, void *dh, void *dc, void *dx,
                                           void *dhidden) {
    for (ptrdiff_t j = 0, left; dy && (left = n - j) > 0; j += LANES)
        store_lanes((real *)dh + j, vec_add(load_lanes((real *)dh + j, left), load_lanes((const real *)dy + j, left)),
                    left);
    if (mode == FNN_LSTM) lstm_back(n, gates, extra, dh, dc, dx, dhidden);
    else if (mode == FNN_GRU) gru_back(n, gates, before, extra, dh, dx, dhidden);
    else plain_back(mode == FNN_RNN_RELU, n, gates, dh, dx, dhidden);
}

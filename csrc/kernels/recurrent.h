/* recurrent.h: one step of a recurrent layer for one sequence, forward and backward, between the matrix products.
 * n: hidden units; pre: (gates, n), what the hidden state gives; x: (gates, n), what the input gives; gates: (gates, n),
 * activated. Gates are in PyTorch's order: i f g o, r z n. */

INLINE vec gate_sum(const real *pre, const real *x, const real *bias, ptrdiff_t at, ptrdiff_t left) {
    const vec v = vec_add(load_lanes(pre + at, left), load_lanes(x + at, left));
    return bias ? vec_add(v, load_lanes(bias + at, left)) : v;
}

/* What the next call reads of `count` gates: rows of some lines each are too short for the CPU to fetch ahead. */
INLINE void ask_for_gates(const real *next, ptrdiff_t n, int count) {
#pragma GCC unroll 4
    for (int gate = 0; gate < count; gate++) prefetch(next + gate * n);
}

/* c = f c + i g, h = o tanh(c). Two loops: in one, every tanh(c) would wait for four gates, and a core does not look further ahead
 * than one such step. */
INLINE void lstm_step(ptrdiff_t n, const real *pre, const real *x, const real *next, const real *bias, real *h, real *c,
                      real *gates, real *before, real *extra, real *y) {
    EACH_LANES(ask_for_gates(next + i, n, 4);
               const vec input = vec_sigmoid(gate_sum(pre, x, bias, i, lanes)), cell = load_lanes(c + i, lanes);
               const vec f = vec_sigmoid(gate_sum(pre, x, bias, n + i, lanes));
               const vec g = vec_tanh(gate_sum(pre, x, bias, 2 * n + i, lanes));
               store_lanes(gates + i, input, lanes);
               store_lanes(gates + n + i, f, lanes);
               store_lanes(gates + 2 * n + i, g, lanes);
               store_lanes(gates + 3 * n + i, vec_sigmoid(gate_sum(pre, x, bias, 3 * n + i, lanes)), lanes);
               store_lanes(extra + i, cell, lanes);
               store_lanes(c + i, vec_fma(f, cell, vec_mul(input, g)), lanes););
    EACH_LANES(const vec state = vec_mul(load_lanes(gates + 3 * n + i, lanes), vec_tanh(load_lanes(c + i, lanes)));
               store_lanes(before + i, load_lanes(h + i, lanes), lanes);
               store_lanes(h + i, state, lanes);
               store_lanes(y + i, state, lanes););
}

/* h = (1 - z) tanh(x_n + r hn) + z h, hn: what the hidden state gives to n, bias included; in two loops likewise */
INLINE void gru_step(ptrdiff_t n, const real *pre, const real *x, const real *next, const real *bias, real *h, real *gates,
                     real *before, real *extra, real *y) {
    EACH_LANES(ask_for_gates(next + i, n, 3);
               store_lanes(gates + i, vec_sigmoid(gate_sum(pre, x, bias, i, lanes)), lanes);
               store_lanes(gates + n + i, vec_sigmoid(gate_sum(pre, x, bias, n + i, lanes)), lanes););
    EACH_LANES(const vec r = load_lanes(gates + i, lanes), z = load_lanes(gates + n + i, lanes), old = load_lanes(h + i, lanes);
               const vec sum = load_lanes(pre + 2 * n + i, lanes);
               const vec hn = bias ? vec_add(sum, load_lanes(bias + 2 * n + i, lanes)) : sum;
               const vec m = vec_tanh(vec_fma(r, hn, load_lanes(x + 2 * n + i, lanes))), state = vec_fma(z, vec_sub(old, m), m);
               store_lanes(before + i, old, lanes);
               store_lanes(extra + i, hn, lanes);
               store_lanes(gates + 2 * n + i, m, lanes);
               store_lanes(h + i, state, lanes);
               store_lanes(y + i, state, lanes););
}

/* h = tanh(pre + x) or max(pre + x, 0) */
INLINE void plain_step(int rectified, ptrdiff_t n, const real *pre, const real *x, const real *next, const real *bias, real *h,
                       real *gates, real *before, real *y) {
    EACH_LANES(ask_for_gates(next + i, n, 1);
               const vec v = gate_sum(pre, x, bias, i, lanes), state = rectified ? relu_forward_formula(v, NULL) : vec_tanh(v);
               store_lanes(before + i, load_lanes(h + i, lanes), lanes);
               store_lanes(gates + i, state, lanes);
               store_lanes(h + i, state, lanes);
               store_lanes(y + i, state, lanes););
}

/* next: the next call's x; h, c: (n) the state, which moves on; before: the old h; extra: the old c (LSTM), hn (GRU); y: the new
 * h; bias: (gates, n) or NULL */
static void recurrent_step_kernel(int mode, ptrdiff_t n, const void *pre, const void *x, const void *next, const void *bias,
                                  void *h, void *c, void *gates, void *before, void *extra, void *y) {
    if (mode == FNN_LSTM) lstm_step(n, pre, x, next, bias, h, c, gates, before, extra, y);
    else if (mode == FNN_GRU) gru_step(n, pre, x, next, bias, h, gates, before, extra, y);
    else plain_step(mode == FNN_RNN_RELU, n, pre, x, next, bias, h, gates, before, y);
}

/* y (1 - y) g and (1 - y^2) g: gradients through the logistic function and tanh */
INLINE vec through_sigmoid(vec y, vec g) { return vec_mul(vec_mul(y, vec_sub(vec_set1(1), y)), g); }
INLINE vec through_tanh(vec y, vec g) { return vec_mul(vec_fnma(y, y, vec_set1(1)), g); }

/* The gradient of a gate goes where all steps' are, and where the next product reads it. */
INLINE void store_gradient(real *dx, real *dhidden, ptrdiff_t at, vec d, ptrdiff_t left) {
    store_lanes(dx + at, d, left);
    store_lanes(dhidden + at, d, left);
}

/* Of the new state: what later steps give, and what the result does. */
INLINE vec state_gradient(const real *dh, const real *dy, ptrdiff_t at, ptrdiff_t left) {
    const vec d = load_lanes(dh + at, left);
    return dy ? vec_add(d, load_lanes(dy + at, left)) : d;
}

INLINE void lstm_back(ptrdiff_t n, const real *gates, const real *next, const real *extra, const real *dy, real *dh, real *dc,
                      real *dx, real *dhidden) {
    EACH_LANES(ask_for_gates(next + i, n, 4);
               const vec input = load_lanes(gates + i, lanes), f = load_lanes(gates + n + i, lanes);
               const vec g = load_lanes(gates + 2 * n + i, lanes), o = load_lanes(gates + 3 * n + i, lanes);
               const vec old = load_lanes(extra + i, lanes), t = vec_tanh(vec_fma(f, old, vec_mul(input, g)));
               const vec d = state_gradient(dh, dy, i, lanes);
               const vec cell = vec_add(load_lanes(dc + i, lanes), through_tanh(t, vec_mul(d, o)));
               store_gradient(dx, dhidden, i, through_sigmoid(input, vec_mul(cell, g)), lanes);
               store_gradient(dx, dhidden, n + i, through_sigmoid(f, vec_mul(cell, old)), lanes);
               store_gradient(dx, dhidden, 2 * n + i, through_tanh(g, vec_mul(cell, input)), lanes);
               store_gradient(dx, dhidden, 3 * n + i, through_sigmoid(o, vec_mul(d, t)), lanes);
               store_lanes(dc + i, vec_mul(cell, f), lanes);
               store_lanes(dh + i, vec_zero(), lanes););
}

INLINE void gru_back(ptrdiff_t n, const real *gates, const real *next, const real *before, const real *extra, const real *dy,
                     real *dh, real *dx, real *dhidden) {
    EACH_LANES(ask_for_gates(next + i, n, 3);
               const vec r = load_lanes(gates + i, lanes), z = load_lanes(gates + n + i, lanes);
               const vec m = load_lanes(gates + 2 * n + i, lanes), d = state_gradient(dh, dy, i, lanes);
               const vec dm = through_tanh(m, vec_fnma(d, z, d));
               const vec dr = through_sigmoid(r, vec_mul(dm, load_lanes(extra + i, lanes)));
               const vec dz = through_sigmoid(z, vec_mul(d, vec_sub(load_lanes(before + i, lanes), m)));
               store_gradient(dx, dhidden, i, dr, lanes);
               store_gradient(dx, dhidden, n + i, dz, lanes);
               store_lanes(dx + 2 * n + i, dm, lanes);
               store_lanes(dhidden + 2 * n + i, vec_mul(dm, r), lanes);
               store_lanes(dh + i, vec_mul(d, z), lanes););
}

INLINE void plain_back(int rectified, ptrdiff_t n, const real *gates, const real *next, const real *dy, real *dh, real *dx,
                       real *dhidden) {
    EACH_LANES(ask_for_gates(next + i, n, 1);
               const vec y = load_lanes(gates + i, lanes), d = state_gradient(dh, dy, i, lanes);
               const vec g = rectified ? vec_select(vec_le(y, vec_zero()), vec_zero(), d) : through_tanh(y, d);
               store_gradient(dx, dhidden, i, g, lanes);
               store_lanes(dh + i, vec_zero(), lanes););
}

/* next: the next call's gates; dh, dc: (n) gradients of the new state, which become those of the old one but for what comes through
 * the matrix product; dy: (n) or NULL, added to dh first; dx, dhidden: (gates, n) gradients of what input and hidden state gave,
 * which are the same for all but GRU */
static void recurrent_step_backward_kernel(int mode, ptrdiff_t n, const void *gates, const void *next, const void *before,
                                           const void *extra, const void *dy, void *dh, void *dc, void *dx, void *dhidden) {
    if (mode == FNN_LSTM) lstm_back(n, gates, next, extra, dy, dh, dc, dx, dhidden);
    else if (mode == FNN_GRU) gru_back(n, gates, next, before, extra, dy, dh, dx, dhidden);
    else plain_back(mode == FNN_RNN_RELU, n, gates, next, dy, dh, dx, dhidden);
}

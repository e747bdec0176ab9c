/* elementwise_activation.h: activations and their gradients: of a backward formula's inputs, a is dy. */

UNARY(relu_forward, vec_max(vec_zero(), x)) /* NaN stays: vec_max gives its second argument where unordered */
BINARY(relu_backward, vec_select(vec_lt(vec_zero(), b), a, vec_zero()))

UNARY(leaky_relu_forward, vec_select(vec_lt(vec_zero(), x), x, vec_mul(x, constant(p[0]))))
BINARY(leaky_relu_backward, vec_select(vec_lt(vec_zero(), b), a, vec_mul(a, constant(p[0]))))

/* From the result y: y (1 - y) and 1 - y^2. */
UNARY(sigmoid_forward, vec_sigmoid(x))
BINARY(sigmoid_backward, vec_mul(a, vec_mul(vec_sub(vec_set1(1), b), b)))
UNARY(tanh_forward, vec_tanh(x))
BINARY(tanh_backward, vec_mul(a, vec_fnma(b, b, vec_set1(1))))

/* exp(-x^2 / 2). The rounding error of x^2 goes into the exponential too: it would cost up to 40 units in the last place. */
INLINE vec gaussian(vec x) {
    const vec minus_half = constant(-0.5);
    x = vec_min(vec_set1(64), vec_abs(x)); /* exp(-64^2 / 2) is 0 */
    vec square = vec_mul(x, x), error = vec_product_error(x, x, square);
    return vec_exp_sum(vec_mul(minus_half, square), vec_mul(minus_half, error));
}
UNARY(gaussian_forward, gaussian(x))
TERNARY(gaussian_backward, vec_mul(a, vec_neg(vec_mul(b, c)))) /* dy, x, y */

/* NaN stays NaN, -0 becomes 0. */
UNARY(sign, vec_select(vec_lt(vec_zero(), x), vec_set1(1),
                       vec_select(vec_lt(x, vec_zero()), vec_set1(-1), vec_add(x, vec_zero()))))
UNARY(step_forward, vec_select(vec_unordered(x, x), x, vec_select(vec_le(vec_zero(), x), vec_set1(1), vec_zero())))

/* dx = mask ? scale * dy : 0; dy, mask may each be one repeated element. */
static void dropout_backward_kernel FNN_ELEMENTWISE_ARGS {
    real *dx = out[0];
    const real *dy = in[0];
    const uint8_t *kept = in[1];
    const vec scale = constant(attr[0]), first = n ? vec_set1(*dy) : vec_zero();
    const mask all = vec_lt(vec_zero(), vec_set1(n && *kept ? 1 : 0));
    EACH_LANES(vec v = step[0] ? load_lanes(dy + i, lanes) : first; mask m = step[1] ? mask_load_u8(kept + i, lanes) : all;
               store_lanes(dx + i, vec_select(m, vec_mul(v, scale), vec_zero()), lanes););
}

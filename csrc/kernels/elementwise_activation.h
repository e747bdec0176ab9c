/* elementwise_activation.h: activations and their gradients: of a backward formula's inputs, a is dy. */

UNARY(relu_forward, vec_max(vec_zero(), x)) /* NaN stays: vec_max gives its second argument where unordered */
/* Where y is NaN, dy goes through, as in PyTorch. */
BINARY(relu_backward, vec_select(vec_le(b, vec_zero()), vec_zero(), a))

UNARY(leaky_relu_forward, vec_select(vec_lt(vec_zero(), x), x, vec_mul(x, constant(p[0]))))
BINARY(leaky_relu_backward, vec_select(vec_lt(vec_zero(), b), a, vec_mul(a, constant(p[0]))))

/* From the result y: y (1 - y) and 1 - y^2. */
UNARY(sigmoid_forward, vec_sigmoid(x))
BINARY(sigmoid_backward, vec_mul(a, vec_mul(vec_sub(vec_set1(1), b), b)))
UNARY(tanh_forward, vec_tanh(x))
BINARY(tanh_backward, vec_mul(a, vec_fnma(b, b, vec_set1(1))))

/* exp(-x^2 / 2) */
UNARY(gaussian_forward, vec_bell(x))
TERNARY(gaussian_backward, vec_mul(a, vec_neg(vec_mul(b, c)))) /* dy, x, y */

/* NaN stays NaN, -0 becomes 0. */
UNARY(sign, vec_select(vec_lt(vec_zero(), x), vec_set1(1),
                       vec_select(vec_lt(x, vec_zero()), vec_set1(-1), vec_add(x, vec_zero()))))
UNARY(step_forward, vec_select(vec_unordered(x, x), x, vec_select(vec_le(vec_zero(), x), vec_set1(1), vec_zero())))

/* ---- smooth ---- */

/* p = negative, positive, rate: positive x above 0, negative (exp(rate x) - 1) below: ELU, SELU and CELU. */
UNARY(elu_forward, vec_select(vec_lt(vec_zero(), x), vec_mul(constant(p[1]), x),
                              vec_mul(constant(p[0]), vec_expm1(vec_min(vec_zero(), vec_mul(constant(p[2]), x))))))
BINARY(elu_backward,
       vec_mul(a, vec_select(vec_lt(vec_zero(), b), constant(p[1]),
                             vec_mul(constant(p[0] * p[2]), vec_exp(vec_min(vec_zero(), vec_mul(constant(p[2]), b)))))))

/* Far below 0 the product of x and its gate is a zero, also at -inf. NaN stays. */
INLINE vec gated(vec x, vec gate) { return vec_mul(vec_max(vec_set1(-2000), x), gate); }
/* Where gates have long been 0 or 1: keeps infinity times 0 out of slopes. NaN stays. */
INLINE vec within(vec x, real limit) { return vec_min(vec_set1(limit), vec_max(vec_set1(-limit), x)); }

/* x times the normal distribution up to x, with u = |x| and its tail q: x - u q above 0, -u q below. Its slope is
 * 1 - w above and w below, w = q - u exp(-u^2 / 2) / sqrt(2 pi)  (Hendrycks and Gimpel, 2016). */
INLINE vec gelu(vec x) {
    vec u = bell_range(x);
    return vec_fnma(u, normal_of(u).tail, vec_max(vec_zero(), x));
}
INLINE vec gelu_slope(vec x) {
    vec u = bell_range(x);
    normal of = normal_of(u);
    vec w = vec_fnma(vec_mul(u, constant(0.3989422804014327)), of.bell, of.tail);
    return vec_select(vec_lt(x, vec_zero()), w, vec_sub(vec_set1(1), w));
}
UNARY(gelu_forward, gelu(x))
BINARY(gelu_backward, vec_mul(a, gelu_slope(b)))

/* x (1 + tanh(z)) / 2 = x sigmoid(2 z), z = sqrt(2 / pi) (x + 0.044715 x^3) */
INLINE vec gelu_tanh_gate(vec x) {
    vec cubic = vec_fma(vec_mul(x, x), constant(2 * 0.7978845608028654 * 0.044715), constant(2 * 0.7978845608028654));
    return vec_sigmoid(vec_mul(x, cubic));
}
INLINE vec gelu_tanh_slope(vec x) {
    x = within(x, 100);
    vec s = gelu_tanh_gate(x);
    vec inner = vec_fma(vec_mul(x, x), constant(6 * 0.7978845608028654 * 0.044715), constant(2 * 0.7978845608028654));
    return vec_fma(vec_mul(vec_mul(x, inner), s), vec_sub(vec_set1(1), s), s);
}
UNARY(gelu_tanh_forward, gated(x, gelu_tanh_gate(within(x, 100))))
BINARY(gelu_tanh_backward, vec_mul(a, gelu_tanh_slope(b)))

/* x s, s = sigmoid(x); slope s (1 + x (1 - s)) */
INLINE vec silu_slope(vec x) {
    vec s = vec_sigmoid(x);
    return vec_mul(s, vec_fma(within(x, 2000), vec_sub(vec_set1(1), s), vec_set1(1)));
}
UNARY(silu_forward, gated(x, vec_sigmoid(x)))
BINARY(silu_backward, vec_mul(a, silu_slope(b)))

/* x tanh(log(1 + e)), e = exp(x), is x n / (n + 2) with n = e (e + 2); slope (n + 4 x e (e + 1) / (n + 2)) / (n + 2)
 * (Misra, 2020). */
INLINE vec mish(vec x) {
    vec e = vec_exp(vec_min(vec_set1(TANH_MAX), x)), n = vec_mul(e, vec_add(e, vec_set1(2)));
    return gated(x, vec_div(n, vec_add(n, vec_set1(2))));
}
INLINE vec mish_slope(vec x) {
    x = within(x, 2000);
    vec e = vec_exp(vec_min(vec_set1(TANH_MAX), x)), n = vec_mul(e, vec_add(e, vec_set1(2)));
    vec inverse = vec_div(vec_set1(1), vec_add(n, vec_set1(2)));
    vec rise = vec_mul(vec_mul(vec_set1(4), x), vec_mul(e, inverse));
    return vec_mul(inverse, vec_fma(rise, vec_add(e, vec_set1(1)), n));
}
UNARY(mish_forward, mish(x))
BINARY(mish_backward, vec_mul(a, mish_slope(b)))

/* log(1 + exp(x)), without overflow */
INLINE vec softplus(vec x) {
    return vec_add(vec_max(vec_zero(), x), vec_log1p(vec_exp(vec_neg(vec_abs(x)))));
}
/* p = beta, threshold: x where beta x is over the threshold, else softplus(beta x) / beta */
UNARY(softplus_forward, vec_select(vec_lt(constant(p[1]), vec_mul(constant(p[0]), x)), x,
                                   vec_mul(constant(1 / p[0]), softplus(vec_mul(constant(p[0]), x)))))
BINARY(softplus_backward, vec_select(vec_lt(constant(p[1]), vec_mul(constant(p[0]), b)), a,
                                     vec_mul(a, vec_sigmoid(vec_mul(constant(p[0]), b)))))
UNARY(logsigmoid_forward, vec_neg(softplus(vec_neg(x))))
BINARY(logsigmoid_backward, vec_mul(a, vec_sigmoid(vec_neg(b))))

UNARY(softsign_forward, vec_div(x, vec_add(vec_set1(1), vec_abs(x))))
BINARY(softsign_backward, vec_div(a, vec_mul(vec_add(vec_set1(1), vec_abs(b)), vec_add(vec_set1(1), vec_abs(b)))))
UNARY(tanhshrink_forward, vec_sub(x, vec_tanh(x)))
BINARY(tanhshrink_backward, vec_mul(a, vec_mul(vec_tanh(b), vec_tanh(b))))

/* a sigmoid(b), and its gradient in b from dy, a, b: dy a s (1 - s) */
BINARY(glu_forward, vec_mul(a, vec_sigmoid(b)))
INLINE vec glu_gate_slope(vec x, vec gate) {
    vec s = vec_sigmoid(gate);
    return vec_mul(x, vec_mul(s, vec_sub(vec_set1(1), s)));
}
TERNARY(glu_backward_gate, vec_mul(a, glu_gate_slope(b, c)))

/* ---- in straight pieces ---- */

/* min(max(x + 3, 0), 6) / 6; x times that. At the corners the slopes are those of the outer pieces, as in PyTorch. */
INLINE vec hardsigmoid(vec x) {
    return vec_mul(constant(1.0 / 6), vec_min(vec_set1(6), vec_max(vec_zero(), vec_add(x, vec_set1(3)))));
}
INLINE mask inside(vec x, double low, double high) {
    return mask_and(vec_lt(constant(low), x), vec_lt(x, constant(high)));
}
UNARY(hardsigmoid_forward, hardsigmoid(x))
BINARY(hardsigmoid_backward, vec_select(inside(b, -3, 3), vec_mul(a, constant(1.0 / 6)), vec_zero()))
UNARY(hardswish_forward, vec_mul(vec_max(vec_set1(-3), x), hardsigmoid(x)))
BINARY(hardswish_backward,
       vec_select(inside(b, -3, 3), vec_mul(a, vec_fma(b, constant(1.0 / 3), constant(0.5))),
                  vec_select(vec_le(b, vec_set1(-3)), vec_zero(), a)))

/* p = low, high. The forward function is clip; unlike clip's, the slope at the bounds is 0. */
BINARY(hardtanh_backward, vec_select(inside(b, p[0], p[1]), a, vec_zero()))

/* p = bound: towards 0 by the bound, but not past it; or to 0 from within it. NaN stays. */
UNARY(softshrink_forward, vec_sub(x, within(x, (real)p[0])))
UNARY(hardshrink_forward, vec_select(vec_le(vec_abs(x), constant(p[0])), vec_zero(), x))
BINARY(shrink_backward, vec_select(vec_le(vec_abs(b), constant(p[0])), vec_zero(), a))

/* p = threshold, value: x above the threshold, else the value. NaN stays. */
UNARY(threshold_forward, vec_select(vec_le(x, constant(p[0])), constant(p[1]), x))
BINARY(threshold_backward, vec_select(vec_le(b, constant(p[0])), vec_zero(), a))

/* a = x, b = slope below 0; gradients from dy, x and slope, or dy and x */
BINARY(prelu_forward, vec_select(vec_lt(vec_zero(), a), a, vec_mul(a, b)))
TERNARY(prelu_backward, vec_select(vec_lt(vec_zero(), b), a, vec_mul(a, c)))
BINARY(prelu_backward_weight, vec_select(vec_lt(vec_zero(), b), vec_zero(), vec_mul(a, b)))

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
